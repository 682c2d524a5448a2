// What IR and bitcode go through before they are compiled: read, verified, brought from PIE to PIC.
#include "shim.h"

#include "llvm/Bitcode/BitcodeReader.h"
#include "llvm/Bitcode/BitcodeWriter.h"
#include "llvm/IR/DebugInfo.h"
#include "llvm/IR/DiagnosticInfo.h"
#include "llvm/IR/DiagnosticPrinter.h"
#include "llvm/IR/InlineAsm.h"
#include "llvm/IR/InstrTypes.h"
#include "llvm/IR/LLVMContext.h"
#include "llvm/IR/Module.h"
#include "llvm/IR/Verifier.h"
#include "llvm/IRReader/IRReader.h"
#include "llvm/Support/Error.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/SourceMgr.h"
#include "llvm/Support/raw_ostream.h"
#include "llvm/TargetParser/Host.h"
#include "llvm/TargetParser/Triple.h"

using namespace llvm;
using hotbed::text;

// A module as bitcode.
struct hb_bitcode {
  SmallVector<char, 0> bytes;
  bool reads_files = false;
};

// A module that was compiled for an executable says so in a flag and takes every symbol for its own. Without the flag,
// and with visible symbols free to lie elsewhere, the same code generator makes position-independent code of it.
void hotbed::to_pic(Module &module) {
  if (NamedMDNode *flags = module.getModuleFlagsMetadata()) {
    SmallVector<MDNode *, 8> kept;
    for (MDNode *flag : flags->operands()) {
      auto *name = flag->getNumOperands() > 1 ? dyn_cast_or_null<MDString>(flag->getOperand(1)) : nullptr;
      if (!name || (name->getString() != "PIE Level" && name->getString() != "PIC Level"))
        kept.push_back(flag);
    }
    flags->clearOperands();
    for (MDNode *flag : kept)
      flags->addOperand(flag);
  }
  module.setPICLevel(PICLevel::BigPIC);
  for (GlobalValue &value : module.global_values())
    if (!value.hasLocalLinkage() && value.hasDefaultVisibility() && !value.hasDLLImportStorageClass())
      value.setDSOLocal(false);
}

namespace {

void complain(hb_messages &messages, StringRef file, uint32_t line, uint32_t column, StringRef what, StringRef rendered) {
  messages.failed = true;
  messages.list.push_back({3, line, column, file.str(), what.str()});
  messages.rendered += rendered;
}

struct Listener final : DiagnosticHandler {
  hb_messages &messages;
  StringRef name;
  Listener(hb_messages &messages, StringRef name) : messages(messages), name(name) {}
  bool handleDiagnostics(const DiagnosticInfo &info) override {
    if (info.getSeverity() != DS_Error)
      return true;
    std::string message;
    raw_string_ostream out(message);
    DiagnosticPrinterRawOStream printer(out);
    info.print(printer);
    complain(messages, name, 0, 0, message, (name + ": error: " + message + "\n").str());
    return true;
  }
};

// Whether assembly in the module has the assembler read files.
bool reads_files(const Module &module) {
  if (hotbed::reads_files(module.getModuleInlineAsm()))
    return true;
  for (const Function &function : module)
    for (const BasicBlock &block : function)
      for (const Instruction &instruction : block)
        if (auto *call = dyn_cast<CallBase>(&instruction))
          if (auto *assembly = dyn_cast<InlineAsm>(call->getCalledOperand()))
            if (hotbed::reads_files(assembly->getAsmString()))
              return true;
  return false;
}

void prepare(StringRef bytes, StringRef name, hb_messages &messages, hb_bitcode &result) {
  LLVMContext context;
  context.setDiagnosticHandler(std::make_unique<Listener>(messages, name));
  // The parser of textual IR wants a terminating zero.
  auto buffer = MemoryBuffer::getMemBufferCopy(bytes, name);
  SMDiagnostic error;
  std::unique_ptr<Module> module = parseIR(*buffer, error, context);
  if (!module || messages.failed) {
    std::string rendered;
    raw_string_ostream out(rendered);
    error.print(nullptr, out, /*ShowColors=*/false);
    if (!messages.failed || !error.getMessage().empty())
      complain(messages, name, std::max(error.getLineNo(), 0), std::max(error.getColumnNo() + 1, 0), error.getMessage(),
               rendered);
    return;
  }
  Triple target(module->getTargetTriple()), host(sys::getDefaultTargetTriple());
  if (target.getArch() != Triple::UnknownArch && target.getArch() != host.getArch()) {
    std::string what = ("is for " + target.getArchName() + ", this is " + host.getArchName()).str();
    complain(messages, name, 0, 0, what, (name + ": error: " + what + "\n").str());
    return;
  }
  std::string reason;
  raw_string_ostream out(reason);
  bool broken_debug_info = false;
  if (verifyModule(*module, &out, &broken_debug_info)) {
    StringRef first = StringRef(reason).split('\n').first;
    complain(messages, name, 0, 0, ("does not verify: " + first).str(),
             (name + ": error: does not verify:\n" + reason).str());
    return;
  }
  if (broken_debug_info) {
    messages.list.push_back({2, 0, 0, name.str(), "invalid debug info is left out"});
    messages.rendered += (name + ": warning: invalid debug info is left out\n").str();
    StripDebugInfo(*module);
  }
  hotbed::to_pic(*module);
  result.reads_files = reads_files(*module);
  raw_svector_ostream stream(result.bytes);
  WriteBitcodeToFile(*module, stream);
}

} // namespace

extern "C" {

// Reads IR or bitcode, verifies it and returns it as bitcode for position-independent code, or null after an error, which is
// in `messages`. `name` is what messages call it. Any thread. Owned, hb_bitcode_free.
hb_bitcode *hb_bitcode_prepare(hb_slice bytes, hb_slice name, hb_messages *messages) {
  auto result = std::make_unique<hb_bitcode>();
  std::string reason;
  if (!hotbed::guarded([&] { prepare(text(bytes), text(name), *messages, *result); }, reason)) {
    (void)result.release();
    complain(*messages, text(name), 0, 0, reason, (text(name) + ": error: " + reason + "\n").str());
    return nullptr;
  }
  return messages->failed ? nullptr : result.release();
}

// Whether bytes are bitcode of this version of LLVM: nothing in it has to be upgraded. Any thread.
bool hb_bitcode_is_current(hb_slice bytes) {
  auto producer = getBitcodeProducerString(MemoryBufferRef(text(bytes), ""));
  if (!producer) {
    consumeError(producer.takeError());
    return false;
  }
  return *producer == "LLVM" LLVM_VERSION_STRING;
}

// Whether assembly in it has the assembler read files.
bool hb_bitcode_reads_files(const hb_bitcode *bitcode) { return bitcode->reads_files; }

void hb_bitcode_free(hb_bitcode *bitcode) { delete bitcode; }

// Borrowed from `bitcode`.
hb_slice hb_bitcode_bytes(const hb_bitcode *bitcode) { return {bitcode->bytes.data(), bitcode->bytes.size()}; }
}
