// What code generation can see of a function, as a hash: two functions with equal fingerprints, compiled with the same settings,
// become the same code with the same relocations, up to names that nobody sees. What is not understood has no fingerprint.
#pragma once
#include "shim.h"

#include <array>
#include <optional>

#include "llvm/ADT/DenseMap.h"
#include "llvm/ADT/DenseSet.h"
#include "llvm/ADT/SmallString.h"
#include "llvm/IR/Attributes.h"
#include "llvm/IR/Function.h"
#include "llvm/IR/InstrTypes.h"

namespace hotbed {

using Fingerprint = std::array<uint8_t, 16>;

class Fingerprints {
public:
  explicit Fingerprints(const llvm::Module &module);

  // Whether functions of the module can be told apart at all. If not, none has a fingerprint.
  bool understood() const { return sound; }

  // That of a function with a body that is compiled; nothing where something about it is not understood.
  std::optional<Fingerprint> of(const llvm::Function &function);

private:
  // What a fingerprint is taken of. Whatever a function refers to is written out when it is first met, and has a number from
  // then on: so the order of use decides, and neither names nor addresses do.
  struct Stream {
    llvm::SmallString<0> bytes;
    llvm::DenseMap<const void *, unsigned> numbers;
    bool understood = true;

    void byte(uint8_t value) { bytes.push_back(static_cast<char>(value)); }
    void number(uint64_t value) {
      // Most are small.
      if (value < 0xff)
        return byte(value);
      byte(0xff);
      bytes.append(reinterpret_cast<const char *>(&value), reinterpret_cast<const char *>(&value + 1));
    }
    void text(llvm::StringRef value);
    void digest(const std::optional<Fingerprint> &value);
    Fingerprint finish() const;
    // Writes the number of something; true when it is new and has to be written out. What is new says so by having the next number.
    bool is_new(const void *thing) {
      auto [entry, inserted] = numbers.try_emplace(thing, numbers.size());
      number(entry->second);
      return inserted;
    }
  };

  std::optional<Fingerprint> known(const void *thing, unsigned depth,
                                   llvm::function_ref<void(Stream &, unsigned)> describe);
  std::optional<Fingerprint> of_type(llvm::Type *type, unsigned depth);
  std::optional<Fingerprint> of_constant(const llvm::Constant *constant, unsigned depth);
  std::optional<Fingerprint> of_attributes(llvm::AttributeList list);

  void describe_global(Stream &stream, const llvm::GlobalValue &global, unsigned depth);
  void describe_variable(Stream &stream, const llvm::GlobalVariable &variable, unsigned depth);
  void describe_constant(Stream &stream, const llvm::Constant &constant, unsigned depth);
  void describe_comdat(Stream &stream, const llvm::GlobalValue &global);

  void type(Stream &stream, llvm::Type *type);
  void attributes(Stream &stream, llvm::AttributeList list);
  void value(Stream &stream, const llvm::Value *value);
  void metadata(Stream &stream, const llvm::Metadata *metadata);
  void attachments(Stream &stream, llvm::ArrayRef<std::pair<unsigned, llvm::MDNode *>> all);
  void header(Stream &stream, const llvm::Function &function);
  void instruction(Stream &stream, const llvm::Instruction &instruction);
  void special(Stream &stream, const llvm::Instruction &instruction);
  void call(Stream &stream, const llvm::CallBase &call);
  void access(Stream &stream, bool is_volatile, llvm::Align alignment, llvm::AtomicOrdering ordering,
              llvm::SyncScope::ID scope);
  bool is_excluded(const llvm::Function &function) const;

  const llvm::Module &module;
  llvm::SmallVector<llvm::StringRef, 48> kinds;
  // What is the same for all functions; nothing for what is not understood, or is being looked at.
  llvm::DenseMap<const void *, std::optional<Fingerprint>> digests;
  // Functions that others know by more than their names.
  llvm::DenseSet<const llvm::Value *> excluded;
  Fingerprint of_module{};
  Stream current;
  bool sound = true;
};

} // namespace hotbed
