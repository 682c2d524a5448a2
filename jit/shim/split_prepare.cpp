// What optimised pieces want to have been done to the whole unit before it is split.
//
// Code as the front end leaves it keeps every variable in memory, which makes functions look twice as large as they
// are. And which functions throw nothing, write nothing, return always is found out where all bodies are seen; it goes
// onto the names, where every piece's declarations get it from. Both is done with the cheapest passes there are.
#include "split.h"

#include "llvm/Analysis/CGSCCPassManager.h"
#include "llvm/Bitcode/BitcodeReader.h"
#include "llvm/Bitcode/BitcodeWriter.h"
#include "llvm/IR/Verifier.h"
#include "llvm/Passes/PassBuilder.h"
#include "llvm/Support/raw_ostream.h"
#include "llvm/Transforms/IPO/FunctionAttrs.h"
#include "llvm/Transforms/IPO/InferFunctionAttrs.h"
#include "llvm/Transforms/IPO/StripDeadPrototypes.h"
#include "llvm/Transforms/Scalar/EarlyCSE.h"
#include "llvm/Transforms/Scalar/LowerExpectIntrinsic.h"
#include "llvm/Transforms/Scalar/SROA.h"
#include "llvm/Transforms/Scalar/SimplifyCFG.h"

using namespace llvm;
using hotbed::text;

namespace {

void run_passes(Module &module) {
  LoopAnalysisManager loops;
  FunctionAnalysisManager functions;
  CGSCCAnalysisManager components;
  ModuleAnalysisManager modules;
  PassBuilder builder;
  builder.registerModuleAnalyses(modules);
  builder.registerCGSCCAnalyses(components);
  builder.registerFunctionAnalyses(functions);
  builder.registerLoopAnalyses(loops);
  builder.crossRegisterProxies(loops, functions, components, modules);
  FunctionPassManager early;
  early.addPass(LowerExpectIntrinsicPass());
  early.addPass(SimplifyCFGPass());
  early.addPass(SROAPass(SROAOptions::ModifyCFG));
  early.addPass(EarlyCSEPass());
  ModulePassManager passes;
  passes.addPass(InferFunctionAttrsPass());
  passes.addPass(createModuleToFunctionPassAdaptor(std::move(early)));
  passes.addPass(createModuleToPostOrderCGSCCPassAdaptor(PostOrderFunctionAttrsPass()));
  passes.addPass(ReversePostOrderFunctionAttrsPass());
  // What only dead code called need not be defined anywhere.
  passes.addPass(StripDeadPrototypesPass());
  passes.run(module, modules);
}

bool prepare(StringRef bitcode, const std::string &name, bool trusted, SmallVectorImpl<char> &result, std::string &reason) {
  LLVMContext context;
  auto parsed = parseBitcodeFile(MemoryBufferRef(bitcode, name), context);
  if (!parsed) {
    reason = toString(parsed.takeError());
    return false;
  }
  Module &module = **parsed;
  raw_string_ostream out(reason);
  if (!trusted && verifyModule(module, &out)) {
    reason = "does not verify: " + reason;
    return false;
  }
  reason.clear();
  hotbed::to_pic(module);
  run_passes(module);
  raw_svector_ostream stream(result);
  WriteBitcodeToFile(module, stream);
  return true;
}

} // namespace

extern "C" {

// A whole unit as bitcode that is better to split for optimised pieces; null after an error. Unless `trusted` it is
// verified. Any thread. Owned, hb_object_free.
hb_object *hb_split_prepare(hb_slice bitcode, hb_slice name, bool trusted, hb_messages *messages) {
  auto object = std::make_unique<hb_object>();
  std::string reason, last_words, owned = text(name).str();
  bool done = false;
  if (!hotbed::guarded([&] { done = prepare(text(bitcode), owned, trusted, object->bytes, reason); }, last_words)) {
    // What the interrupted run still refers to must not be freed under it.
    (void)object.release();
    reason = last_words;
  }
  if (done)
    return object.release();
  messages->failed = true;
  messages->list.push_back({3, 0, 0, owned, reason});
  messages->rendered += owned + ": error: " + reason + "\n";
  return nullptr;
}
}
