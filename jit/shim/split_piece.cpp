#include "split_piece.h"

#include "llvm/IR/Constants.h"
#include "llvm/IR/InstIterator.h"
#include "llvm/IR/Instructions.h"
#include "llvm/Transforms/Utils/Cloning.h"

using namespace llvm;

namespace {

// Of a constant's value no more than this many bytes are shown to the optimiser: text, and tables of a few lines.
constexpr uint64_t MOST_SHOWN = 1024;

// Metadata is shared, not mapped: nothing that code is made of refers to the module from there.
constexpr auto FLAGS = RemapFlags(unsigned(RF_NoModuleLevelChanges) | unsigned(RF_IgnoreMissingLocals));

void strip_definition(Function &declared) {
  declared.setComdat(nullptr);
  declared.setSection("");
  if (declared.hasPersonalityFn())
    declared.setPersonalityFn(nullptr);
  if (declared.hasPrefixData())
    declared.setPrefixData(nullptr);
  if (declared.hasPrologueData())
    declared.setPrologueData(nullptr);
}

} // namespace

hotbed::PieceMaker::PieceMaker(hb_split &split, bool constants)
    : split(split), module(std::make_unique<Module>(split.name, split.context)), constants(constants),
      mapper(map, FLAGS, nullptr, this) {
  const Module &source = *split.source;
  module->setSourceFileName(source.getSourceFileName());
  module->setTargetTriple(source.getTargetTriple());
  module->setDataLayout(source.getDataLayout());
  if (NamedMDNode *flags = source.getModuleFlagsMetadata()) {
    NamedMDNode *own = module->getOrInsertModuleFlagsMetadata();
    for (MDNode *flag : flags->operands())
      own->addOperand(flag);
  }
}

Value *hotbed::PieceMaker::materialize(Value *value) {
  auto *global = dyn_cast<GlobalValue>(value);
  if (global && global->getParent() == split.source.get())
    return declare(*global);
  if (auto *label = dyn_cast<BlockAddress>(value);
      label && label->getFunction()->getParent() == split.source.get() && !defined.contains(label->getFunction()))
    failure = ("the address of a label of " + label->getFunction()->getName() + " is taken outside of it").str();
  return nullptr;
}

Value *hotbed::PieceMaker::declare(GlobalValue &value) {
  auto linkage = value.hasExternalWeakLinkage() ? GlobalValue::ExternalWeakLinkage : GlobalValue::ExternalLinkage;
  if (auto *variable = dyn_cast<GlobalVariable>(&value)) {
    const hb_symbol *known = split.symbol(variable);
    if (known && known->flags & hb_symbol::LABELS && defined.contains(split.values[known->base])) {
      // A table of labels goes where the function goes.
      define_variable(*variable);
      return map.lookup(variable);
    }
    bool shown = constants && variable->isConstant() && variable->hasDefinitiveInitializer() && known &&
                 !(known->flags & hb_symbol::LABELS) && known->size <= MOST_SHOWN;
    auto *declared = new_variable(*variable, shown ? GlobalValue::AvailableExternallyLinkage : linkage);
    if (shown)
      contents.push_back({declared, variable->getInitializer()});
    if (declared->isThreadLocal()) {
      // Linkers of pieces know one model, which does not depend on where the variable lies.
      declared->setVisibility(GlobalValue::DefaultVisibility);
      declared->setDSOLocal(false);
    }
    return declared;
  }
  auto *type = dyn_cast<FunctionType>(value.getValueType());
  if (!type) {
    auto *declared = new GlobalVariable(*module, value.getValueType(), false, linkage, nullptr, value.getName(), nullptr,
                                        value.getThreadLocalMode(), value.getAddressSpace());
    declared->setVisibility(value.getVisibility());
    declared->setDSOLocal(value.isDSOLocal());
    return declared;
  }
  auto *declared = Function::Create(type, linkage, value.getAddressSpace(), value.getName(), module.get());
  if (auto *function = dyn_cast<Function>(&value)) {
    declared->copyAttributesFrom(function);
    strip_definition(*declared);
  } else {
    declared->setVisibility(value.getVisibility());
    declared->setDSOLocal(value.isDSOLocal());
  }
  return declared;
}

GlobalVariable *hotbed::PieceMaker::new_variable(GlobalVariable &variable, GlobalValue::LinkageTypes linkage) {
  auto *made = new GlobalVariable(*module, variable.getValueType(), variable.isConstant(), linkage, nullptr,
                                  variable.getName(), nullptr, variable.getThreadLocalMode(), variable.getAddressSpace(),
                                  variable.isExternallyInitialized());
  made->copyAttributesFrom(&variable);
  return made;
}

void hotbed::PieceMaker::define_variable(GlobalVariable &variable) {
  auto linkage = variable.getLinkage();
  // Whether somebody needs it is not known here.
  if (linkage == GlobalValue::LinkOnceAnyLinkage)
    linkage = GlobalValue::WeakAnyLinkage;
  else if (linkage == GlobalValue::LinkOnceODRLinkage)
    linkage = GlobalValue::WeakODRLinkage;
  auto *made = new_variable(variable, linkage);
  if (const Comdat *comdat = variable.getComdat()) {
    // A group that is named for a function would be taken for the one that the function's piece has.
    auto *key = split.source->getNamedValue(comdat->getName());
    StringRef name = key && isa<GlobalVariable>(key) ? comdat->getName() : variable.getName();
    Comdat *own = module->getOrInsertComdat(name);
    own->setSelectionKind(comdat->getSelectionKind());
    made->setComdat(own);
  }
  if (split.debug_info)
    made->copyMetadata(&variable, 0);
  made->eraseMetadata(LLVMContext::MD_associated);
  map[&variable] = made;
  contents.push_back({made, variable.getInitializer()});
}

Function *hotbed::PieceMaker::define_function(Function &function, const Twine &name, GlobalValue::LinkageTypes linkage) {
  auto *made = Function::Create(function.getFunctionType(), linkage, function.getAddressSpace(), name, module.get());
  made->copyAttributesFrom(&function);
  bodies.push_back({&function, made});
  defined.insert(&function);
  return made;
}

bool hotbed::PieceMaker::finish(std::string &reason) {
  for (auto [source, made] : bodies) {
    bool labels = any_of(*source, [](const BasicBlock &block) { return block.hasAddressTaken(); });
    if (labels) {
      // Constants know its blocks, some of them in tables, so it stays and is copied.
      auto argument = made->arg_begin();
      for (Argument &original : source->args())
        map[&original] = &*argument++;
      SmallVector<ReturnInst *, 8> returns;
      CloneFunctionBodyInto(*made, *source, map, FLAGS, returns, "", nullptr, nullptr, this);
      made->copyMetadata(source, 0);
      for (Use &use : made->operands())
        if (use)
          use = mapper.mapValue(*use);
    } else {
      made->stealArgumentListFrom(*source);
      made->splice(made->end(), source);
      made->copyMetadata(source, 0);
      source->clearMetadata();
      mapper.remapFunction(*made);
    }
    // Metadata is not mapped; this one refers to functions, and is for the optimiser only.
    for (Instruction &instruction : instructions(*made))
      instruction.setMetadata(LLVMContext::MD_callees, nullptr);
  }
  if (any_of(bodies, [](const Body &body) { return body.made->getSubprogram(); }))
    list_units(split.units);
  fill();
  if (!failure.empty())
    reason = failure;
  return failure.empty();
}

void hotbed::PieceMaker::list_units(ArrayRef<DICompileUnit *> units) {
  NamedMDNode *list = module->getOrInsertNamedMetadata("llvm.dbg.cu");
  for (DICompileUnit *unit : units)
    list->addOperand(unit);
}

// Contents may mention what has contents of its own.
void hotbed::PieceMaker::fill() {
  while (!contents.empty()) {
    auto [variable, initializer] = contents.pop_back_val();
    variable->setInitializer(mapper.mapConstant(*initializer));
  }
}
