// Making a piece: a module of the source's context with a few definitions, and declarations of just what these need.
#pragma once
#include "split.h"

#include "llvm/Transforms/Utils/ValueMapper.h"

namespace hotbed {

// What is not defined in the piece becomes a declaration when it is first met.
class PieceMaker final : llvm::ValueMaterializer {
public:
  // With `constants`, constants that are met are declared with their values, for the optimiser to see.
  PieceMaker(hb_split &split, bool constants);

  // Copies a variable with what it contains.
  void define_variable(llvm::GlobalVariable &variable);
  // The body becomes that of a new function of that name.
  llvm::Function *define_function(llvm::Function &function, const llvm::Twine &name,
                                  llvm::GlobalValue::LinkageTypes linkage);
  // Whenever the source's value is met from now on, it is this.
  void take_for(const llvm::GlobalValue &source, llvm::Value &value) { map[&source] = &value; }
  // Fills in bodies and contents; nothing can be defined afterwards. False after an error.
  bool finish(std::string &reason);
  // What the source's constant is in the piece.
  llvm::Constant *mapped(llvm::Constant &constant) { return mapper.mapConstant(constant); }
  // What stands for the source's value in the piece, or null if nothing refers to it.
  llvm::Value *found(const llvm::GlobalValue &source) const { return map.lookup(&source); }

  // The piece has debug information of these.
  void list_units(llvm::ArrayRef<llvm::DICompileUnit *> units);

  hb_split &split;
  std::unique_ptr<llvm::Module> module;

private:
  llvm::Value *materialize(llvm::Value *value) override;
  llvm::Value *declare(llvm::GlobalValue &value);
  llvm::GlobalVariable *new_variable(llvm::GlobalVariable &variable, llvm::GlobalValue::LinkageTypes linkage);
  void fill();

  struct Body {
    llvm::Function *source, *made;
  };

  const bool constants;
  llvm::ValueToValueMapTy map;
  llvm::ValueMapper mapper;
  llvm::SmallVector<Body, 4> bodies;
  llvm::SmallPtrSet<const llvm::Value *, 4> defined; // functions of the source whose bodies are here
  llvm::SmallVector<std::pair<llvm::GlobalVariable *, llvm::Constant *>, 16> contents;
  std::string failure;
};

// Defines functions for the thread-local variables that the unit has or mentions; see split_thread.cpp. The piece is
// finished.
void define_accessors(PieceMaker &maker);
// Lets the functions of a finished piece call these instead of naming variables.
void use_accessors(const hb_split &split, llvm::Module &module);

} // namespace hotbed
