// thread_local variables as bodies reach them that are linked without the run-time linker's help: through functions of
// the data piece, one a variable, which say where the calling thread has it. The data piece is linked by an ordinary
// linker, for which such variables are nothing special.
#include "split_piece.h"

#include "llvm/IR/IRBuilder.h"
#include "llvm/IR/Instructions.h"
#include "llvm/IR/IntrinsicInst.h"
#include "llvm/IR/ReplaceConstant.h"

using namespace llvm;

namespace {

Function *declare_accessor(const hb_split &split, Module &module, const GlobalValue &variable) {
  // Several units of an image may reach the same variable, each by a function of its own.
  std::string name = (variable.getName() + split.suffix + ".tls").str();
  auto *type = FunctionType::get(variable.getType(), /*isVarArg=*/false);
  auto *accessor = Function::Create(type, GlobalValue::ExternalLinkage, name, module);
  accessor->setVisibility(GlobalValue::HiddenVisibility);
  accessor->setDSOLocal(true);
  accessor->setDoesNotThrow();
  accessor->setSpeculatable();
  return accessor;
}

Value *call(Function *accessor, Instruction &before) {
  IRBuilder<> builder(&before);
  CallInst *call = builder.CreateCall(accessor);
  // What a thread is told once holds for it. But a coroutine may go on in another one.
  if (!before.getFunction()->isPresplitCoroutine()) {
    call->setDoesNotAccessMemory();
    call->addFnAttr(Attribute::WillReturn);
  }
  return call;
}

// A use in a phi is one at the end of the block that comes before; the same block always brings the same value.
void call_for(PHINode &phi, const GlobalValue &variable, Function *accessor) {
  for (unsigned i = 0; i < phi.getNumIncomingValues(); i++)
    if (phi.getIncomingValue(i) == &variable)
      phi.setIncomingValueForBlock(phi.getIncomingBlock(i), call(accessor, *phi.getIncomingBlock(i)->getTerminator()));
}

} // namespace

void hotbed::define_accessors(PieceMaker &maker) {
  for (uint32_t number = 0; number < maker.split.values.size(); number++) {
    if (!(maker.split.symbols[number].flags & hb_symbol::THREAD))
      continue;
    auto *variable = cast<GlobalValue>(maker.mapped(*maker.split.values[number]));
    Function *accessor = declare_accessor(maker.split, *maker.module, *variable);
    // A handler that interrupts it may want to walk the stack.
    accessor->setUWTableKind(UWTableKind::Async);
    IRBuilder<> builder(BasicBlock::Create(maker.split.context, "", accessor));
    builder.CreateRet(builder.CreateThreadLocalAddress(variable));
  }
}

void hotbed::use_accessors(const hb_split &split, Module &module) {
  SmallVector<GlobalValue *, 4> variables;
  for (GlobalValue &value : module.global_values())
    if (value.isThreadLocal())
      variables.push_back(&value);
  for (GlobalValue *variable : variables) {
    convertUsersOfConstantsToInstructions({variable});
    Function *accessor = declare_accessor(split, module, *variable);
    while (!variable->use_empty()) {
      auto *user = cast<Instruction>(variable->user_back());
      if (auto *phi = dyn_cast<PHINode>(user)) {
        call_for(*phi, *variable, accessor);
        continue;
      }
      Value *address = call(accessor, *user);
      if (auto *intrinsic = dyn_cast<IntrinsicInst>(user); intrinsic && intrinsic->getIntrinsicID() == Intrinsic::threadlocal_address) {
        intrinsic->replaceAllUsesWith(address);
        intrinsic->eraseFromParent();
      } else {
        user->replaceUsesOfWith(variable, address);
      }
    }
    variable->eraseFromParent();
  }
}
