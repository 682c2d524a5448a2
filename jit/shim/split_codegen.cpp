// Objects of pieces.
//
// Optimised code comes from clang's own back end, told by the front end's arguments: the same passes and the same
// machine as for a whole unit. Without optimisation setting all that up takes longer than a small function does, so
// there machine and passes are kept, and pieces in which nothing must be inlined go straight to the code generator.
#include "diagnostics.h"
#include "listener.h"
#include "split.h"

#include "clang/Basic/DiagnosticIDs.h"
#include "clang/Basic/TargetInfo.h"
#include "clang/CodeGen/BackendUtil.h"
#include "clang/Frontend/CompilerInstance.h"
#include "clang/Frontend/CompilerInvocation.h"
#include "llvm/Analysis/LazyCallGraph.h"
#include "llvm/Analysis/LoopInfo.h"
#include "llvm/Bitcode/BitcodeWriter.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/IR/Verifier.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Target/TargetMachine.h"
#include "llvm/Target/TargetOptions.h"

using namespace llvm;
using hotbed::text;

namespace {

void complain(hb_messages &messages, const std::string &name, const std::string &what) {
  messages.failed = true;
  messages.list.push_back({3, 0, 0, name, what});
  messages.rendered += name + ": error: " + what + "\n";
}

// Whether something in it means nothing to the code generator.
bool lowered_by_passes(const Module &module) {
  return any_of(module, [](const Function &function) {
    return function.isIntrinsic() &&
           (function.getName().starts_with("llvm.coro.") || function.getName().starts_with("llvm.matrix."));
  });
}

// Copies are there to be inlined: what is left of them is thrown away, so passes need not make them better.
bool is_copy(const Function &function) { return function.hasAvailableExternallyLinkage(); }

bool is_worth_a_pass(Any unit) {
  if (auto *function = llvm::any_cast<const Function *>(&unit))
    return !is_copy(**function);
  if (auto *loop = llvm::any_cast<const Loop *>(&unit))
    return !is_copy(*(*loop)->getHeader()->getParent());
  if (auto *circle = llvm::any_cast<const LazyCallGraph::SCC *>(&unit))
    return !all_of(**circle, [](const LazyCallGraph::Node &node) { return is_copy(node.getFunction()); });
  return true;
}

void leave_copies_alone(PassBuilder &builder) {
  if (auto *callbacks = builder.getPassInstrumentationCallbacks())
    callbacks->registerShouldRunOptionalPassCallback([](StringRef, Any unit) { return is_worth_a_pass(unit); });
}

} // namespace

class hotbed::Backend {
public:
  explicit Backend(std::shared_ptr<clang::CompilerInvocation> invocation)
      : compiler(std::move(invocation)), collector(messages, compiler.getDiagnosticOpts(), false) {}

  bool prepare(Module &source, std::string &reason);
  bool run(hb_piece &piece, SmallVectorImpl<char> &object);
  bool optimises() { return options().OptimizationLevel > 0; }

private:
  clang::CodeGenOptions &options() { return compiler.getCodeGenOpts(); }
  bool make_machine(std::string &reason);

  // Whether the code generator alone does all that clang would do.
  bool plain() {
    return !optimises() && options().getProfileInstr() == llvm::driver::ProfileInstrKind::ProfileNone &&
           !options().InstrumentFunctions && !options().InstrumentFunctionsAfterInlining &&
           !options().XRayInstrumentFunctions && !options().SanitizeCoverageType &&
           !options().SanitizeCoverageTracePCGuard && compiler.getLangOpts().Sanitize.empty() &&
           (options().CodeModel.empty() || options().CodeModel == "default" || options().CodeModel == "small");
  }

  hb_messages messages;
  clang::CompilerInstance compiler;
  hotbed::Collector collector;
  std::unique_ptr<TargetMachine> machine;
  SmallVector<char, 0> bytes;
  raw_svector_ostream stream{bytes};
  legacy::PassManager passes;
};

bool hotbed::Backend::prepare(Module &source, std::string &reason) {
  compiler.setVirtualFileSystem(vfs::getRealFileSystem());
  compiler.createDiagnostics(&collector, /*ShouldOwnClient=*/false);
  if (!compiler.createTarget()) {
    reason = messages.list.empty() ? "no such target" : messages.list.front().text;
    return false;
  }
  options().PassBuilderCallbacks.push_back(leave_copies_alone);
  if (!make_machine(reason))
    return false;
  if (source.getDataLayoutStr().empty()) {
    source.setDataLayout(machine->createDataLayout());
  } else if (source.getDataLayout() != machine->createDataLayout()) {
    reason = "was made for another machine";
    return false;
  }
  source.setTargetTriple(machine->getTargetTriple());
  return true;
}

bool hotbed::Backend::make_machine(std::string &reason) {
  const clang::TargetOptions &target_options = compiler.getTargetOpts();
  Triple triple(target_options.Triple);
  const Target *target = TargetRegistry::lookupTarget(triple, reason);
  if (!target)
    return false;
  llvm::TargetOptions wishes;
  wishes.AllowFPOpFusion = compiler.getLangOpts().getDefaultFPContractMode() == clang::LangOptions::FPM_Fast
                               ? FPOpFusion::Fast
                               : FPOpFusion::Standard;
  wishes.UseInitArray = options().UseInitArray;
  wishes.FunctionSections = options().FunctionSections;
  wishes.DataSections = options().DataSections;
  wishes.UniqueSectionNames = options().UniqueSectionNames;
  wishes.EmulatedTLS = options().EmulatedTLS;
  wishes.DebuggerTuning = options().getDebuggerTuning();
  wishes.MCOptions.X86RelaxRelocations = options().X86RelaxRelocations;
  wishes.MCOptions.CompressDebugSections = options().getCompressDebugSections();
  machine.reset(target->createTargetMachine(triple, target_options.CPU, join(target_options.Features, ","), wishes,
                                            Reloc::PIC_, CodeModel::Small, CodeGenOptLevel::None));
  if (!machine || machine->addPassesToEmitFile(passes, stream, nullptr, CodeGenFileType::ObjectFile,
                                               /*DisableVerify=*/true)) {
    reason = "no objects can be made for this machine";
    return false;
  }
  return true;
}

bool hotbed::Backend::run(hb_piece &piece, SmallVectorImpl<char> &object) {
  if (piece.has_code && (piece.needs_passes || lowered_by_passes(*piece.module) || !plain())) {
    clang::emitBackendOutput(compiler, options(), compiler.getTarget().getDataLayoutString(), piece.module.get(),
                             clang::Backend_EmitObj, compiler.getVirtualFileSystemPtr(),
                             std::make_unique<raw_svector_ostream>(object));
  } else {
    bytes.clear();
    passes.run(*piece.module);
    object.assign(bytes.begin(), bytes.end());
  }
  return !compiler.getDiagnostics().hasErrorOccurred();
}

void hotbed::FreeBackend::operator()(Backend *backend) const { delete backend; }

bool hotbed::optimises(const hb_split &split) { return split.backend->optimises(); }

std::unique_ptr<hotbed::Backend, hotbed::FreeBackend>
hotbed::make_backend(hb_split &split, ArrayRef<const char *> arguments, std::string &reason) {
  hb_messages early;
  auto invocation = std::make_shared<clang::CompilerInvocation>();
  clang::DiagnosticOptions how;
  Collector collector(early, how, false);
  clang::DiagnosticsEngine engine(clang::DiagnosticIDs::create(), how, &collector, false);
  if (!clang::CompilerInvocation::CreateFromArgs(*invocation, arguments, engine, "clang")) {
    reason = early.list.empty() ? "the arguments are not understood" : early.list.front().text;
    return nullptr;
  }
  split.context.setDiagnosticHandler(std::make_unique<hotbed::Listener>(split.errors));
  std::unique_ptr<Backend, FreeBackend> backend(new Backend(std::move(invocation)));
  return backend->prepare(*split.source, reason) ? std::move(backend) : nullptr;
}

bool hotbed::attempt(hb_split &split, hb_messages &messages, function_ref<bool(std::string &)> work) {
  if (split.broken) {
    complain(messages, split.name, "an error of LLVM made it unusable");
    return false;
  }
  std::string reason, last_words;
  bool done = false;
  split.errors.clear();
  if (!guarded([&] { done = work(reason); }, last_words)) {
    split.broken = true;
    reason = last_words;
  } else if (!split.errors.empty()) {
    done = false;
    reason = split.errors;
  }
  if (!done)
    complain(messages, split.name, reason);
  return done;
}

extern "C" {

// Ends a piece; its unit is still there.
void hb_piece_free(hb_piece *piece) {
  if (piece->split.broken)
    (void)piece->module.release();
  delete piece;
}

// The piece as bitcode; null after an error. Owned, hb_object_free.
hb_object *hb_piece_bitcode(hb_piece *piece, hb_messages *messages) {
  auto object = std::make_unique<hb_object>();
  bool done = hotbed::attempt(piece->split, *messages, [&](std::string &reason) {
    if (piece->spent) {
      reason = "code was generated of the piece before";
      return false;
    }
    raw_svector_ostream stream(object->bytes);
    WriteBitcodeToFile(*piece->module, stream);
    return true;
  });
  return done ? object.release() : nullptr;
}

// Whether it is a sound module; for tests.
bool hb_piece_verify(hb_piece *piece, hb_messages *messages) {
  return hotbed::attempt(piece->split, *messages, [&](std::string &reason) {
    raw_string_ostream out(reason);
    return !verifyModule(*piece->module, &out);
  });
}

// Generates code of a piece, once; null after an error. Owned, hb_object_free.
hb_object *hb_piece_compile(hb_piece *piece, hb_messages *messages) {
  auto object = std::make_unique<hb_object>();
  bool done = hotbed::attempt(piece->split, *messages, [&](std::string &reason) {
    if (std::exchange(piece->spent, true)) {
      reason = "code was generated of the piece before";
      return false;
    }
    reason = "no code could be generated";
    return piece->split.backend->run(*piece, object->bytes);
  });
  return done ? object.release() : nullptr;
}
}
