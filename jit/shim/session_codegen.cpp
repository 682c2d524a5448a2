// Code generation of a session: bitcode in, an object out, again and again.
//
// For a small function most of the time goes into setting up: a target machine, the passes and their order, a context. So
// these are kept, one set for each thread that compiles at the same time and each set of options. The passes come with
// the context, whose constants and types they may remember; as a context never gives anything back, a set is
// renewed when it has seen much.
#include "listener.h"
#include "session.h"

#include "llvm/Bitcode/BitcodeReader.h"
#include "llvm/IR/LLVMContext.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/IR/Module.h"
#include "llvm/IR/Verifier.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/raw_ostream.h"
#include "llvm/Target/TargetMachine.h"
#include "llvm/Target/TargetOptions.h"
#include "llvm/TargetParser/Host.h"

using namespace llvm;
using hotbed::text;

// How code is generated; texts are borrowed.
struct hb_codegen {
  uint8_t level; // 0 to 3
  hb_slice processor, features;
};

namespace {

// So many bytes of bitcode a set sees before it is renewed.
constexpr size_t MOST_BYTES = 16 << 20;

struct Options {
  uint8_t level;
  std::string processor, features;
  bool operator==(const Options &other) const {
    return level == other.level && processor == other.processor && features == other.features;
  }
};

hb_failure codegen_failure(std::string message) { return {hb_failure::CODEGEN, std::move(message), {}}; }

// What is kept.
class Compiler {
public:
  explicit Compiler(Options options) : options(std::move(options)) {}

  // False if this machine has no code generator for it; `reason` says why.
  bool prepare(std::string &reason);
  // Makes an object; with `exports` everything else in it becomes local. False after a failure.
  bool run(MemoryBufferRef bitcode, const StringSet<> *exports, SmallVectorImpl<char> &object, hb_failure &failure);

  const Options options;
  size_t seen = 0;

private:
  std::unique_ptr<Module> read(MemoryBufferRef bitcode, const StringSet<> *exports, hb_failure &failure);

  std::string errors;
  LLVMContext context;
  std::unique_ptr<TargetMachine> machine;
  SmallVector<char, 0> bytes;
  raw_svector_ostream stream{bytes};
  legacy::PassManager passes;
};

bool Compiler::prepare(std::string &reason) {
  Triple triple(sys::getDefaultTargetTriple());
  const Target *target = TargetRegistry::lookupTarget(triple, reason);
  if (!target)
    return false;
  auto level = static_cast<CodeGenOptLevel>(options.level);
  TargetOptions wishes;
  wishes.AllowFPOpFusion = FPOpFusion::Standard;
  machine.reset(target->createTargetMachine(triple, options.processor, options.features, wishes, Reloc::PIC_,
                                            CodeModel::Small, level));
  if (machine && level == CodeGenOptLevel::None) {
    machine->setO0WantsFastISel(true);
    machine->setFastISel(true);
  }
  if (!machine || machine->addPassesToEmitFile(passes, stream, nullptr, CodeGenFileType::ObjectFile,
                                               /*DisableVerify=*/true)) {
    reason = "no objects can be made for this machine";
    return false;
  }
  context.setDiagnosticHandler(std::make_unique<hotbed::Listener>(errors));
  return true;
}

std::unique_ptr<Module> Compiler::read(MemoryBufferRef bitcode, const StringSet<> *exports, hb_failure &failure) {
  auto refuse = [&](const Twine &what) {
    failure = {hb_failure::INPUT, (bitcode.getBufferIdentifier() + ": " + what).str(), {}};
    return nullptr;
  };
  auto parsed = parseBitcodeFile(bitcode, context);
  if (!parsed)
    return refuse(toString(parsed.takeError()));
  std::unique_ptr<Module> module = std::move(*parsed);
  if (module->getDataLayoutStr().empty())
    module->setDataLayout(machine->createDataLayout());
  else if (module->getDataLayout() != machine->createDataLayout())
    return refuse("it was made for another machine");
  module->setTargetTriple(machine->getTargetTriple());
  std::string reason;
  raw_string_ostream out(reason);
  if (verifyModule(*module, &out))
    return refuse("does not verify: " + StringRef(reason).split('\n').first);
  hotbed::to_pic(*module);
  // All functions go into one section. A group would keep its members apart; that the first of several definitions is
  // taken is seen to by name.
  for (GlobalObject &object : module->global_objects())
    object.setComdat(nullptr);
  if (exports)
    for (GlobalValue &value : module->global_values())
      if (!value.isDeclarationForLinker() && !value.hasAppendingLinkage() && !exports->contains(value.getName()) &&
          !value.getName().starts_with("llvm."))
        value.setLinkage(GlobalValue::InternalLinkage), value.setVisibility(GlobalValue::DefaultVisibility);
  return module;
}

bool Compiler::run(MemoryBufferRef bitcode, const StringSet<> *exports, SmallVectorImpl<char> &object,
                   hb_failure &failure) {
  seen += bitcode.getBufferSize();
  errors.clear();
  auto module = read(bitcode, exports, failure);
  if (!module)
    return false;
  bytes.clear();
  passes.run(*module);
  if (!errors.empty()) {
    failure = codegen_failure((bitcode.getBufferIdentifier() + ": " + errors).str());
    return false;
  }
  object.assign(bytes.begin(), bytes.end());
  return true;
}

} // namespace

// Those that nobody uses at the moment.
class hotbed::Compilers {
public:
  std::unique_ptr<Compiler> take(Options options, std::string &reason) {
    {
      std::lock_guard<std::mutex> guard(lock);
      auto known = llvm::find_if(idle, [&](auto &compiler) { return compiler->options == options; });
      if (known != idle.end()) {
        std::swap(*known, idle.back());
        return idle.pop_back_val();
      }
    }
    auto compiler = std::make_unique<Compiler>(std::move(options));
    return compiler->prepare(reason) ? std::move(compiler) : nullptr;
  }

  void give_back(std::unique_ptr<Compiler> compiler) {
    if (compiler->seen > MOST_BYTES)
      return;
    std::lock_guard<std::mutex> guard(lock);
    idle.push_back(std::move(compiler));
  }

private:
  std::mutex lock;
  SmallVector<std::unique_ptr<Compiler>, 4> idle;
};

void hotbed::FreeCompilers::operator()(Compilers *compilers) const { delete compilers; }

std::unique_ptr<hotbed::Compilers, hotbed::FreeCompilers> hotbed::make_compilers() {
  return std::unique_ptr<Compilers, FreeCompilers>(new Compilers);
}

extern "C" {

// Makes an object of bitcode, which is verified and made position-independent; null after a failure. Everything is borrowed;
// unless `all`, no other names than `exports` are visible in the object. Any thread. Owned, hb_object_free.
hb_object *hb_session_compile(hb_session *session, hb_slice name, hb_slice bitcode, const hb_codegen *wishes,
                              const hb_slice *exports, size_t count, bool all, hb_failure **failure) {
  std::string identifier = text(name).str(), reason;
  auto compiler = session->compilers->take({std::min<uint8_t>(wishes->level, 3), text(wishes->processor).str(),
                                            text(wishes->features).str()},
                                           reason);
  if (!compiler) {
    *failure = new hb_failure(codegen_failure(std::move(reason)));
    return nullptr;
  }
  StringSet<> names;
  for (size_t i = 0; i < count; i++)
    names.insert(text(exports[i]));
  auto object = std::make_unique<hb_object>();
  hb_failure why{};
  bool done = false;
  auto work = [&] {
    done = compiler->run(MemoryBufferRef(text(bitcode), identifier), all ? nullptr : &names, object->bytes, why);
  };
  if (!hotbed::guarded(work, reason)) {
    // What the interrupted run still refers to must not be freed under it.
    (void)compiler.release();
    why = codegen_failure(identifier + ": " + reason);
  } else if (done) {
    session->compilers->give_back(std::move(compiler));
    return object.release();
  } else if (why.kind == hb_failure::INPUT) {
    session->compilers->give_back(std::move(compiler));
  }
  *failure = new hb_failure(std::move(why));
  return nullptr;
}
}
