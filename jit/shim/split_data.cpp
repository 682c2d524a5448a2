// The data piece: everything of a unit that is not a function, once.
//
// The tables of constructors and destructors stay in it, as references to functions of other pieces: so whoever links
// the data runs them in the order that the format has for them. Aliases and ifuncs of functions must lie where the
// function does, and are in code pieces, like tables of labels. Its only functions are those for thread-local variables.
#include "split_piece.h"

#include "llvm/IR/Constants.h"
#include "llvm/Transforms/Utils/ModuleUtils.h"

using namespace llvm;

namespace {

class DataMaker {
public:
  explicit DataMaker(hb_split &split) : split(split), source(*split.source), maker(split, /*constants=*/false) {}

  std::unique_ptr<Module> make(std::string &reason) {
    for (GlobalVariable &variable : source.globals()) {
      const hb_symbol *symbol = split.symbol(&variable);
      if (symbol && split.defines(&variable) && !(symbol->flags & hb_symbol::LABELS) &&
          variable.getSection() != "llvm.metadata")
        maker.define_variable(variable);
    }
    for (GlobalAlias &alias : source.aliases())
      if (isa_and_nonnull<GlobalVariable>(alias.getAliaseeObject()))
        define(alias);
    if (!maker.finish(reason))
      return nullptr;
    for (auto [alias, made] : aliases)
      made->setAliasee(maker.mapped(*alias->getAliasee()));
    keep_starts("llvm.global_ctors", appendToGlobalCtors);
    keep_starts("llvm.global_dtors", appendToGlobalDtors);
    keep_used();
    hotbed::define_accessors(maker);
    maker.module->setModuleInlineAsm(source.getModuleInlineAsm());
    if (!split.units.empty()) {
      maker.list_units(split.units);
      maker.list_units(split.full_units);
    }
    return std::move(maker.module);
  }

private:
  void define(GlobalAlias &alias) {
    auto *made = GlobalAlias::create(alias.getValueType(), alias.getAddressSpace(), alias.getLinkage(), alias.getName(),
                                     maker.module.get());
    made->copyAttributesFrom(&alias);
    maker.take_for(alias, *made);
    aliases.push_back({&alias, made});
  }

  void keep_starts(StringRef name, void (*append)(Module &, Function *, int, Constant *)) {
    auto *list = source.getGlobalVariable(name);
    auto *entries = list && list->hasInitializer() ? dyn_cast<ConstantArray>(list->getInitializer()) : nullptr;
    if (!entries)
      return;
    for (const Use &use : entries->operands()) {
      auto *entry = dyn_cast<ConstantStruct>(use);
      auto *priority = entry ? dyn_cast<ConstantInt>(entry->getOperand(0)) : nullptr;
      auto *function = priority ? dyn_cast<Function>(maker.mapped(*entry->getOperand(1)->stripPointerCasts())) : nullptr;
      if (!function)
        continue;
      // An entry that belongs to a variable comes and goes with it.
      Constant *owner = nullptr;
      if (entry->getNumOperands() > 2)
        if (auto *variable = dyn_cast<GlobalVariable>(entry->getOperand(2)->stripPointerCasts()))
          owner = split.defines(variable) ? maker.mapped(*variable) : nullptr;
      append(*maker.module, function, int(priority->getZExtValue()), owner);
    }
  }

  void keep_used() {
    for (bool compiler : {false, true}) {
      SmallVector<GlobalValue *, 8> list, own;
      collectUsedGlobalVariables(source, list, compiler);
      for (GlobalValue *value : list)
        if (auto *known = dyn_cast_or_null<GlobalValue>(maker.found(*value)); known && !known->isDeclaration())
          own.push_back(known);
      if (!own.empty())
        (compiler ? appendToCompilerUsed : appendToUsed)(*maker.module, own);
    }
  }

  hb_split &split;
  Module &source;
  hotbed::PieceMaker maker;
  SmallVector<std::pair<GlobalAlias *, GlobalAlias *>, 8> aliases;
};

} // namespace

extern "C" {

// The data piece; null after an error. The unit lives longer. Owned, hb_piece_free.
hb_piece *hb_split_data(hb_split *split, hb_messages *messages) {
  std::unique_ptr<Module> module;
  bool done = hotbed::attempt(*split, *messages, [&](std::string &reason) {
    module = DataMaker(*split).make(reason);
    return module != nullptr;
  });
  return done ? new hb_piece{*split, std::move(module)} : nullptr;
}
}
