// Single functions that need no code, since an older object has it: a pass behind all others takes fingerprints, asks, and leaves of
// those functions declarations. Every function and every variable gets a section of its own, so that they can be told apart in
// objects.
#include "reuse.h"

#include "fingerprints.h"

#include "clang/Frontend/CompilerInvocation.h"
#include "llvm/IR/Module.h"
#include "llvm/IR/PassManager.h"
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Transforms/IPO/ConstantMerge.h"
#include "llvm/Transforms/IPO/GlobalDCE.h"
#include "llvm/Transforms/Utils/ModuleUtils.h"
#include "llvm/Transforms/Utils/RelLookupTableConverter.h"

using namespace llvm;

namespace {

// What local functions are called when they have become declarations. The names of some functions mean something to the code
// generator, unless these are local.
constexpr StringLiteral REUSED = ".hotbed.reused.";

void become_declaration(Function &function) {
  bool local = function.hasLocalLinkage();
  bool dso_local = function.isDSOLocal();
  function.deleteBody();
  function.clearMetadata();
  function.setComdat(nullptr);
  if (local) {
    function.setName(REUSED + function.getName());
    function.setVisibility(GlobalValue::HiddenVisibility);
  }
  function.setDSOLocal(dso_local || local);
}

// Keeps what only bodies that are gone have used, and what older code will look for by its name.
void keep_unused(Module &module) {
  SmallVector<GlobalValue *, 0> kept;
  for (GlobalValue &global : module.global_values())
    if (!global.isDeclarationForLinker() && global.isDiscardableIfUnused() && !global.hasPrivateLinkage())
      kept.push_back(&global);
  appendToCompilerUsed(module, kept);
}

// Removes constants without names that only bodies that are gone have used: older code comes with its own.
void drop_unused(Module &module) {
  for (GlobalVariable &variable : make_early_inc_range(module.globals())) {
    if (!variable.hasPrivateLinkage() || !variable.isConstant() || variable.hasSection())
      continue;
    variable.removeDeadConstantUsers();
    if (variable.use_empty())
      variable.eraseFromParent();
  }
}

class ChooseFunctions : public PassInfoMixin<ChooseFunctions> {
public:
  ChooseFunctions(hb_choose choose, void *data, bool last) : choose(choose), data(data), last(last) {}

  static bool isRequired() { return true; }

  PreservedAnalyses run(Module &module, ModuleAnalysisManager &) {
    hotbed::Fingerprints fingerprints(module);
    if (!fingerprints.understood())
      return PreservedAnalyses::all();
    SmallVector<Function *, 0> functions;
    std::vector<hb_function> described;
    for (Function &function : module) {
      if (function.isDeclarationForLinker())
        continue;
      hb_function one{hotbed::slice(function.getName()), {}, false, false};
      if (auto fingerprint = fingerprints.of(function)) {
        std::copy(fingerprint->begin(), fingerprint->end(), one.fingerprint);
        one.known = true;
      }
      one.local_alias = function.isDSOLocal() && function.canBenefitFromLocalAlias();
      functions.push_back(&function);
      described.push_back(one);
    }
    auto reused = std::make_unique<bool[]>(functions.size());
    choose(data, described.data(), described.size(), reused.get());
    bool any = false;
    for (size_t at = 0; at < functions.size(); at++)
      any |= reused[at];
    if (!any)
      return PreservedAnalyses::all();
    if (!last)
      keep_unused(module);
    for (size_t at = 0; at < functions.size(); at++)
      if (reused[at])
        become_declaration(*functions[at]);
    drop_unused(module);
    return PreservedAnalyses::none();
  }

private:
  hb_choose choose;
  void *data;
  // Whether no pass comes after this one that removes what is not used.
  bool last;
};

// Whether nothing is asked for that is written down beside the functions, or that looks at several of them.
bool may_choose(const clang::CompilerInvocation &invocation) {
  const clang::CodeGenOptions &options = invocation.getCodeGenOpts();
  const clang::LangOptions &language = invocation.getLangOpts();
  auto remarks = [](const clang::CodeGenOptions::OptRemark &one) { return one.hasValidPattern(); };
  bool plain_code = (options.CodeModel.empty() || options.CodeModel == "default" || options.CodeModel == "small") &&
                    options.RelocationModel == Reloc::PIC_ && !options.EmulatedTLS && !options.DisableIntegratedAS &&
                    !options.CFProtectionBranch && !options.CFProtectionReturn && !options.JMCInstrument &&
                    options.UniqueSectionNames && !options.DisableLLVMPasses;
  bool one_by_one = !options.MergeFunctions && !options.SplitMachineFunctions && !options.PartitionStaticDataSections &&
                    !options.PrepareForLTO && !options.PrepareForThinLTO && !options.FatLTO && !options.LTOUnit &&
                    options.PassPlugins.empty() && options.PassBuilderCallbacks.empty();
  bool nothing_beside = options.getDebugInfo() == llvm::codegenoptions::NoDebugInfo && !options.StackSizeSection &&
                        options.StackUsageOutput.empty() && !options.XRayInstrumentFunctions && !options.BBAddrMap &&
                        !options.CallGraphSection && !options.EmitCallSiteInfo && options.PatchableFunctionEntryCount == 0 &&
                        (options.BBSections.empty() || options.BBSections == "none") && options.RecordCommandLine.empty() &&
                        options.SaveTempsFilePrefix.empty() && options.SymbolPartition.empty() &&
                        options.OptRecordFile.empty() && !remarks(options.OptimizationRemark) &&
                        !remarks(options.OptimizationRemarkMissed) && !remarks(options.OptimizationRemarkAnalysis);
  bool not_measured = !options.hasProfileClangInstr() && !options.hasProfileIRInstr() && !options.hasProfileCSIRInstr() &&
                      !options.hasProfileClangUse() && !options.hasProfileIRUse() && options.SampleProfileFile.empty() &&
                      options.MemoryProfileOutput.empty() && options.MemoryProfileUsePath.empty() && !options.CoverageMapping &&
                      options.CoverageDataFile.empty() && options.CoverageNotesFile.empty() && !options.InstrumentForProfiling &&
                      options.SanitizeCoverageType == 0 && language.Sanitize.empty();
  return plain_code && one_by_one && nothing_beside && not_measured;
}

} // namespace

void hotbed::choose_functions(clang::CompilerInvocation &invocation, hb_choose choose, void *data) {
  if (!may_choose(invocation))
    return;
  clang::CodeGenOptions &options = invocation.getCodeGenOpts();
  options.FunctionSections = true;
  options.DataSections = true;
  options.Addrsig = false;
  options.PassBuilderCallbacks.push_back([choose, data](PassBuilder &builder) {
    builder.registerOptimizerLastEPCallback(
        [choose, data](ModulePassManager &passes, OptimizationLevel level, ThinOrFullLTOPhase) {
          bool last = level == OptimizationLevel::O0;
          if (!last) {
            // What comes behind this one, so that it finds nothing to do any more: it would look at functions that are gone.
            passes.addPass(GlobalDCEPass());
            passes.addPass(ConstantMergePass());
            passes.addPass(RelLookupTableConverterPass());
          }
          passes.addPass(ChooseFunctions(choose, data, last));
        });
  });
}
