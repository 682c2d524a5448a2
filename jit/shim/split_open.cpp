// Opening a unit: its names, without its bodies.
//
// What is local to the unit becomes visible to all its pieces under a name that no other unit has. Names that assembly may
// refer to stay as they are: those it mentions, and those in llvm.used, which is how compilers are told of uses that
// they do not see.
#include "split.h"

#include "llvm/Bitcode/BitcodeReader.h"
#include "llvm/Bitcode/LLVMBitCodes.h"
#include "llvm/Bitstream/BitstreamReader.h"
#include "llvm/IR/Constants.h"
#include "llvm/IR/DebugInfo.h"
#include "llvm/IR/Verifier.h"
#include "llvm/Object/ModuleSymbolTable.h"
#include "llvm/Support/raw_ostream.h"
#include "llvm/TargetParser/Host.h"
#include "llvm/Transforms/Utils/ModuleUtils.h"

using namespace llvm;
using hotbed::slice;

namespace {

// The lists that LLVM itself reads; they are no names of the unit.
bool is_internal(const GlobalValue &value) {
  return value.getName().starts_with("llvm.") || (isa<GlobalVariable>(value) && value.hasAppendingLinkage());
}

// How many bytes each body takes in the bitcode, in the order of the module. A whole function block is skipped at once.
Error body_sizes(MemoryBufferRef bitcode, SmallVectorImpl<uint32_t> &sizes) {
  auto *begin = reinterpret_cast<const unsigned char *>(bitcode.getBufferStart());
  auto *end = begin + bitcode.getBufferSize();
  if (isBitcodeWrapper(begin, end) && SkipBitcodeWrapperHeader(begin, end, true))
    return createStringError("has a damaged header");
  BitstreamCursor cursor(ArrayRef<uint8_t>(begin, end));
  if (auto magic = cursor.Read(32); !magic)
    return magic.takeError();
  bool inside = false;
  while (inside || !cursor.AtEndOfStream()) {
    auto entry = cursor.advance();
    if (!entry)
      return entry.takeError();
    if (entry->Kind == BitstreamEntry::Error)
      return createStringError("is damaged");
    if (entry->Kind == BitstreamEntry::EndBlock)
      break;
    if (entry->Kind == BitstreamEntry::Record) {
      if (auto code = cursor.skipRecord(entry->ID); !code)
        return code.takeError();
    } else if (!inside && entry->ID == bitc::MODULE_BLOCK_ID) {
      inside = true;
      if (Error error = cursor.EnterSubBlock(entry->ID))
        return error;
    } else {
      uint64_t before = cursor.getCurrentByteNo();
      if (Error error = cursor.SkipBlock())
        return error;
      if (inside && entry->ID == bitc::FUNCTION_BLOCK_ID)
        sizes.push_back(uint32_t(cursor.getCurrentByteNo() - before));
    }
  }
  return Error::success();
}

hb_symbol::Linkage linkage_of(const GlobalValue &value) {
  if (value.isDeclaration())
    return value.hasExternalWeakLinkage() ? hb_symbol::DECLARED_WEAK : hb_symbol::DECLARED;
  if (value.hasAvailableExternallyLinkage())
    return hb_symbol::INLINE_ONLY;
  if (value.hasCommonLinkage())
    return hb_symbol::COMMON;
  return value.isWeakForLinker() ? hb_symbol::WEAK : hb_symbol::STRONG;
}

class Opening {
public:
  explicit Opening(hb_split &split) : split(split), module(*split.source) {}

  void run(ArrayRef<uint32_t> sizes) {
    read_assembly();
    read_used();
    for (GlobalValue &value : module.global_values())
      if (!is_internal(value))
        enter(value);
    unsigned body = 0;
    for (Function &function : module)
      if (function.isMaterializable() && body < sizes.size()) {
        uint32_t size = sizes[body++];
        if (auto number = split.numbers.find(&function); number != split.numbers.end())
          split.symbols[number->second].size = size;
      }
    read_starts("llvm.global_ctors", false);
    read_starts("llvm.global_dtors", true);
    for (GlobalVariable &variable : module.globals())
      if (variable.hasInitializer() && !is_internal(variable))
        walk(variable.getInitializer());
    if (split.debug_info)
      part_units();
    for (GlobalAlias &alias : module.aliases())
      follow(alias, alias.getAliaseeObject());
    for (GlobalIFunc &ifunc : module.ifuncs())
      follow(ifunc, ifunc.getResolverFunction());
    // Names are given last: until then the assembly's are found by their own.
    for (size_t i = 0; i < split.symbols.size(); i++)
      publish(*split.values[i], split.symbols[i]);
  }

private:
  // Symbols that the module's assembly defines for itself and functions refer to must be seen by other pieces.
  void read_assembly() {
    if (module.getModuleInlineAsm().empty())
      return;
    std::string more;
    ModuleSymbolTable::CollectAsmSymbols(module, [&](StringRef name, object::BasicSymbolRef::Flags flags) {
      const GlobalValue *value = module.getNamedValue(name);
      if (!value)
        return;
      kept.insert(value);
      bool visible = flags & (object::BasicSymbolRef::SF_Global | object::BasicSymbolRef::SF_Undefined);
      if (!visible && value->isDeclaration())
        more += (".globl \"" + name + "\"\n.hidden \"" + name + "\"\n").str();
    });
    if (!more.empty())
      module.appendModuleInlineAsm(more);
  }

  void read_used() {
    SmallVector<GlobalValue *, 8> list;
    collectUsedGlobalVariables(module, list, /*CompilerUsed=*/true);
    kept.insert(list.begin(), list.end());
    collectUsedGlobalVariables(module, list, /*CompilerUsed=*/false);
    kept.insert(list.begin(), list.end());
  }

  void enter(GlobalValue &value) {
    hb_symbol symbol{};
    symbol.kind = isa<Function>(value)      ? hb_symbol::FUNCTION
                  : isa<GlobalVariable>(value) ? hb_symbol::VARIABLE
                  : isa<GlobalAlias>(value)    ? hb_symbol::ALIAS
                                               : hb_symbol::IFUNC;
    symbol.linkage = linkage_of(value);
    symbol.visibility = value.getVisibility();
    symbol.base = hotbed::NOTHING;
    symbol.flags = (value.hasLocalLinkage() ? hb_symbol::LOCAL : 0) | (kept.contains(&value) ? hb_symbol::USED : 0) |
                   (value.isThreadLocal() ? hb_symbol::THREAD : 0);
    if (auto *variable = dyn_cast<GlobalVariable>(&value)) {
      symbol.flags |= variable->isConstant() ? hb_symbol::CONSTANT : 0;
      if (variable->getValueType()->isSized())
        symbol.size = uint32_t(std::min<uint64_t>(module.getDataLayout().getTypeAllocSize(variable->getValueType()).getFixedValue(), UINT32_MAX));
    } else if (auto *function = dyn_cast<Function>(&value)) {
      symbol.flags |= function->hasFnAttribute(Attribute::AlwaysInline) ? hb_symbol::PURE_INLINE : 0;
    }
    split.numbers[&value] = uint32_t(split.symbols.size());
    split.values.push_back(&value);
    split.symbols.push_back(symbol);
  }

  void read_starts(StringRef list, bool destructors) {
    auto *variable = module.getGlobalVariable(list);
    auto *entries = variable && variable->hasInitializer() ? dyn_cast<ConstantArray>(variable->getInitializer()) : nullptr;
    if (!entries)
      return;
    for (const Use &use : entries->operands()) {
      auto *entry = dyn_cast<ConstantStruct>(use);
      if (!entry || entry->getNumOperands() < 2)
        continue;
      auto *priority = dyn_cast<ConstantInt>(entry->getOperand(0));
      auto number = split.numbers.find(entry->getOperand(1)->stripPointerCasts());
      if (priority && number != split.numbers.end())
        split.starts.push_back({number->second, uint32_t(priority->getZExtValue()), destructors});
    }
  }

  // Marks what an initialiser takes the address of. A constant may be shared, and is looked at once.
  void walk(Constant *root) {
    SmallVector<Constant *, 16> open{root};
    while (!open.empty()) {
      Constant *constant = open.pop_back_val();
      if (isa<ConstantData>(constant) || !seen.insert(constant).second)
        continue;
      if (auto *label = dyn_cast<BlockAddress>(constant)) {
        mark_tables(label, *label->getFunction());
      } else if (auto number = split.numbers.find(constant); number != split.numbers.end()) {
        split.symbols[number->second].flags |= hb_symbol::ADDRESS;
      } else if (!isa<GlobalValue>(constant)) {
        for (Use &use : constant->operands())
          if (auto *operand = dyn_cast<Constant>(use))
            open.push_back(operand);
      }
    }
  }

  // The variables that contain the address of a label go where its function goes.
  void mark_tables(Constant *label, const Function &function) {
    SmallVector<Constant *, 8> open{label};
    SmallPtrSet<Constant *, 16> passed;
    while (!open.empty()) {
      Constant *constant = open.pop_back_val();
      if (!passed.insert(constant).second)
        continue;
      if (auto number = split.numbers.find(constant); number != split.numbers.end()) {
        split.symbols[number->second].flags |= hb_symbol::LABELS;
        split.symbols[number->second].base = split.numbers.lookup(&function);
        continue;
      }
      for (User *user : constant->users())
        if (auto *outer = dyn_cast<Constant>(user))
          open.push_back(outer);
    }
  }

  void follow(GlobalValue &follower, const GlobalObject *base) {
    auto number = split.numbers.find(base);
    if (number == split.numbers.end())
      return;
    split.symbols[split.numbers[&follower]].base = number->second;
    split.symbols[number->second].flags |= hb_symbol::ADDRESS;
    if (auto *function = dyn_cast<Function>(base))
      split.followers[function].push_back(&follower);
  }

  // A code piece has debug information of its functions. Types and names of the whole unit are the data piece's.
  void part_units() {
    auto *units = module.getNamedMetadata("llvm.dbg.cu");
    if (!units)
      return;
    for (MDNode *operand : units->operands()) {
      auto *unit = dyn_cast<DICompileUnit>(operand);
      if (!unit)
        continue;
      split.units.push_back(unit);
      split.full_units.push_back(MDNode::replaceWithDistinct(unit->clone()));
      unit->replaceEnumTypes({});
      unit->replaceRetainedTypes({});
      unit->replaceGlobalVariables({});
      unit->replaceImportedEntities({});
      unit->replaceMacros({});
    }
  }

  void publish(GlobalValue &value, hb_symbol &symbol) {
    if (value.hasLocalLinkage() || value.getName().empty()) {
      if (value.getName().empty())
        value.setName("unnamed" + split.suffix);
      else if (!kept.contains(&value))
        value.setName(value.getName() + split.suffix);
      if (value.hasLocalLinkage()) {
        value.setLinkage(GlobalValue::ExternalLinkage);
        value.setVisibility(GlobalValue::HiddenVisibility);
      }
    }
    symbol.name = slice(value.getName());
    symbol.visibility = value.getVisibility();
  }

  hb_split &split;
  Module &module;
  SmallPtrSet<const GlobalValue *, 16> kept;
  DenseSet<const Constant *> seen;
};

} // namespace

bool hotbed::open(hb_split &split, MemoryBufferRef bitcode, std::string &reason) {
  auto refuse = [&](Error error) {
    reason = toString(std::move(error));
    return false;
  };
  SmallVector<uint32_t, 0> sizes;
  if (Error error = body_sizes(bitcode, sizes))
    return refuse(std::move(error));
  auto parsed = getLazyBitcodeModule(bitcode, split.context, /*ShouldLazyLoadMetadata=*/true, /*IsImporting=*/true);
  if (!parsed)
    return refuse(parsed.takeError());
  split.source = std::move(*parsed);
  Module &module = *split.source;
  Triple target(module.getTargetTriple()), host(sys::getDefaultTargetTriple());
  if (target.getArch() != Triple::UnknownArch && target.getArch() != host.getArch()) {
    reason = ("is for " + target.getArchName() + ", this is " + host.getArchName()).str();
    return false;
  }
  // Assembly is parsed for the target that the module names.
  if (target.getArch() == Triple::UnknownArch)
    module.setTargetTriple(host);
  if (Error error = module.materializeMetadata())
    return refuse(std::move(error));
  // Debug information of another version is taken out.
  split.debug_info = !module.getNamedMetadata("llvm.dbg.cu") ||
                     getDebugMetadataVersionFromModule(module) == DEBUG_METADATA_VERSION;
  if (!split.trusted) {
    split.reads_files = hotbed::reads_files(module.getModuleInlineAsm());
    raw_string_ostream out(reason);
    bool broken_debug_info = false;
    if (verifyModule(module, &out, &broken_debug_info)) {
      reason = "does not verify: " + reason;
      return false;
    }
    reason.clear();
    split.debug_info &= !broken_debug_info;
  }
  hotbed::to_pic(module);
  Opening(split).run(sizes);
  return true;
}

extern "C" {

// Opens the bitcode of a unit, which stays borrowed as long as the unit lives; null after an error, which is in `messages`.
// `name` is what messages call it, `suffix` makes local names unique, `arguments` are those of the front end (after
// -cc1) and say how code is generated. Unless `trusted`, it is verified, bodies when they are read. If pieces are `far`
// from each other, code does not take for granted that it reaches others. One thread at a time.
// Owned, hb_split_free.
hb_split *hb_split_open(hb_slice bitcode, hb_slice name, hb_slice suffix, const hb_slice *arguments, size_t count,
                        bool trusted, bool far, hb_messages *messages) {
  auto split = std::make_unique<hb_split>();
  split->trusted = trusted;
  split->far = far;
  split->name = hotbed::text(name).str();
  split->suffix = hotbed::text(suffix).str();
  split->context.setDiscardValueNames(true);
  std::vector<std::string> owned;
  for (size_t i = 0; i < count; i++)
    owned.push_back(hotbed::text(arguments[i]).str());
  std::vector<const char *> pointers;
  for (auto &argument : owned)
    pointers.push_back(argument.c_str());
  bool done = hotbed::attempt(*split, *messages, [&](std::string &reason) {
    if (!hotbed::open(*split, MemoryBufferRef(hotbed::text(bitcode), split->name), reason))
      return false;
    split->backend = hotbed::make_backend(*split, pointers, reason);
    return split->backend != nullptr;
  });
  if (done)
    return split.release();
  if (split->broken)
    (void)split.release(); // what the interrupted run still refers to must not be freed under it
  return nullptr;
}

// Whether assembly has the assembler read files, in what was seen so far of a unit that is not trusted.
bool hb_split_reads_files(const hb_split *split) { return split->reads_files; }

// Pieces go first.
void hb_split_free(hb_split *split) {
  if (!split->broken)
    delete split;
}

// All names of the unit, by number; borrowed.
const hb_symbol *hb_split_symbols(const hb_split *split, size_t *count) {
  *count = split->symbols.size();
  return split->symbols.data();
}

// The entries of the tables of constructors and destructors; borrowed.
const hb_start *hb_split_starts(const hb_split *split, size_t *count) {
  *count = split->starts.size();
  return split->starts.data();
}
}
