// A unit split into pieces, so that each can be compiled when it is first needed. What the parts share.
//
// The unit's bitcode is the master copy. Its module, the source, is opened lazily and holds every name; a body is read
// when a piece wants it, moves into the piece, and is read again should another piece want it too: reading it costs
// less than copying it. Pieces are modules of the source's context and share its types, constants and metadata.
#pragma once
#include "shim.h"

#include "llvm/ADT/DenseMap.h"
#include "llvm/ADT/DenseSet.h"
#include "llvm/IR/DebugInfoMetadata.h"
#include "llvm/IR/LLVMContext.h"
#include "llvm/IR/Module.h"

namespace hotbed {
class Backend;
struct FreeBackend {
  void operator()(Backend *backend) const;
};
constexpr uint32_t NOTHING = UINT32_MAX;
} // namespace hotbed

// A name of the unit; the numbers are known in shim/split.rs. Borrowed from the unit.
struct hb_symbol {
  enum Kind : uint8_t { FUNCTION, VARIABLE, ALIAS, IFUNC };
  enum Linkage : uint8_t { STRONG, WEAK, COMMON, INLINE_ONLY, DECLARED, DECLARED_WEAK };
  enum Flag : uint8_t { LOCAL = 1, ADDRESS = 2, USED = 4, LABELS = 8, THREAD = 16, CONSTANT = 32, PURE_INLINE = 64 };
  hb_slice name;
  Kind kind;
  Linkage linkage;
  uint8_t visibility; // as LLVM counts it
  uint8_t flags;
  uint32_t size; // bytes of bitcode of a function, of memory of a variable
  uint32_t base; // the symbol that an alias, an ifunc or a table of labels belongs to, or NOTHING
};

// An entry in the tables of constructors and destructors.
struct hb_start {
  uint32_t function, priority;
  bool destructor;
};

// What a body says; lists are borrowed from the unit until it is asked for the next one.
struct hb_body {
  const uint32_t *calls, *mentions;
  size_t call_count, mention_count;
  uint32_t instructions;
  bool assembly, labels;
};

struct hb_split {
  std::string name, suffix;
  std::string errors; // what LLVM reported of the unit
  llvm::LLVMContext context;
  std::unique_ptr<llvm::Module> source;
  std::unique_ptr<hotbed::Backend, hotbed::FreeBackend> backend;

  std::vector<llvm::GlobalValue *> values; // by number, like `symbols`
  std::vector<hb_symbol> symbols;
  llvm::DenseMap<const llvm::Value *, uint32_t> numbers;
  std::vector<hb_start> starts;
  llvm::DenseMap<const llvm::Function *, llvm::SmallVector<llvm::GlobalValue *, 1>> followers; // aliases and ifuncs
  llvm::DenseSet<const llvm::Function *> verified;
  llvm::DenseSet<const llvm::Function *> locals; // all their callers are in the piece that has them
  // Compilation units, as functions refer to them, without the lists of all there is; and copies that have these lists.
  llvm::SmallVector<llvm::DICompileUnit *, 1> units, full_units;
  bool debug_info = true;
  bool trusted = false; // LLVM itself made the bitcode just now: it is not verified
  bool far = false;     // pieces may be further than 2 GiB from each other
  bool broken = false;
  bool reads_files = false; // assembly that was seen so far has the assembler do that
  std::vector<uint32_t> calls, mentions; // of the body that was asked for last

  const hb_symbol *symbol(const llvm::Value *value) const {
    auto number = numbers.find(value);
    return number == numbers.end() ? nullptr : &symbols[number->second];
  }
  // Whether the unit defines it, so that one of its pieces will.
  bool defines(const llvm::Value *value) const {
    const hb_symbol *known = symbol(value);
    return known && known->linkage < hb_symbol::INLINE_ONLY;
  }
  // Reads a body if it is not there, and verifies it the first time.
  bool read(llvm::Function &function, std::string &reason);
  // A function by its number, if there is one that has a body.
  llvm::Function *function(uint32_t number) const;
};

struct hb_piece {
  hb_split &split;
  std::unique_ptr<llvm::Module> module;
  bool has_code = false;
  bool needs_passes = false; // even without optimisation
  bool spent = false;        // code was generated, which changes the module
};

namespace hotbed {
// Runs `work` on a unit, which says false and why when it fails. After one of LLVM's fatal errors the unit is unusable.
bool attempt(hb_split &split, hb_messages &messages, llvm::function_ref<bool(std::string &)> work);

// Reads a unit's tables into `split`, makes local names visible; see split_open.cpp.
bool open(hb_split &split, llvm::MemoryBufferRef bitcode, std::string &reason);

// The machine and the passes for a unit's pieces, as the front end's arguments say; null after an error. See
// split_codegen.cpp.
std::unique_ptr<Backend, FreeBackend> make_backend(hb_split &split, llvm::ArrayRef<const char *> arguments,
                                                   std::string &reason);
bool optimises(const hb_split &split);
} // namespace hotbed
