// Code pieces: the bodies of some functions, and copies of what is worth inlining into them.
#include "split_piece.h"

#include "llvm/IR/Constants.h"
#include "llvm/IR/InstIterator.h"
#include "llvm/IR/Instructions.h"
#include "llvm/Transforms/Utils/ModuleUtils.h"

using namespace llvm;
using hotbed::text;

namespace {

// Copies of callees are taken like ThinLTO takes them: small ones, smaller the further away they are. They go through the
// passes like everything else: with the limits three times as high, pieces of sqlite3 took twice as long and their
// code was as large.
constexpr unsigned MOST_INSTRUCTIONS = 60;
constexpr unsigned MOST_BYTES_AN_INSTRUCTION = 16;
constexpr float SHRINK = 0.7f;
// All copies of a piece together.
constexpr unsigned MOST_COPIED = 500;

// What is copied into a piece, to be inlined there.
enum class Copies : uint8_t { NONE, FORCED, ALL };

class CodeMaker {
public:
  CodeMaker(hb_split &split, StringRef suffix, Copies copies)
      : split(split), suffix(suffix), copies(copies), maker(split, copies != Copies::NONE && hotbed::optimises(split)) {
    // What a function says does not depend on where its source lies.
    if (copies == Copies::NONE)
      maker.module->setSourceFileName("");
  }

  bool make(ArrayRef<uint32_t> wanted, std::string &reason) {
    for (uint32_t number : wanted) {
      Function *function = split.function(number);
      if (!function || !split.defines(function)) {
        reason = "it has no function of that number";
        return false;
      }
      if (!split.read(*function, reason))
        return false;
      if (here.insert(function).second)
        define(*function, split.locals.contains(function));
    }
    if ((copies != Copies::NONE && !copy_callees(reason)) || !maker.finish(reason))
      return false;
    for (auto [source, made] : followers)
      follow(*source, *made);
    if (split.far)
      for (GlobalValue &value : maker.module->global_values())
        if (value.isDeclarationForLinker() && !value.getName().starts_with("llvm.")) {
          // As if somebody else could have it: it is reached through a table.
          value.setVisibility(GlobalValue::DefaultVisibility);
          value.setDSOLocal(false);
        }
    for (auto [source, made] : renamed)
      if (!source->isInterposable())
        call_directly(*source, *made);
    if (!suffix.empty())
      hotbed::use_accessors(split, *maker.module);
    return true;
  }

  std::unique_ptr<Module> take() { return std::move(maker.module); }
  bool needs_passes = false;

private:
  void define(Function &function, bool local) {
    auto linkage = function.getLinkage();
    if (local)
      linkage = GlobalValue::InternalLinkage;
    else if (!suffix.empty())
      linkage = GlobalValue::ExternalLinkage;
    // Whether somebody needs it is not known here.
    else if (linkage == GlobalValue::LinkOnceAnyLinkage)
      linkage = GlobalValue::WeakAnyLinkage;
    else if (linkage == GlobalValue::LinkOnceODRLinkage)
      linkage = GlobalValue::WeakODRLinkage;
    Function *made = maker.define_function(function, function.getName() + (local ? "" : suffix), linkage);
    if (local) {
      made->setVisibility(GlobalValue::DefaultVisibility);
      made->setDSOLocal(true);
    } else if (!suffix.empty()) {
      made->setVisibility(GlobalValue::HiddenVisibility);
    }
    if (function.hasComdat()) {
      // Members of a group of the unit may lie in several pieces: each gets a group of its own.
      made->setComdat(nullptr);
      if (!local && suffix.empty())
        made->setComdat(maker.module->getOrInsertComdat(made->getName()));
    }
    if (split.symbol(&function)->flags & hb_symbol::USED)
      appendToUsed(*maker.module, {made});
    needs_passes |= function.isPresplitCoroutine();
    bodies.push_back({&function, 0});
    if (!local && !suffix.empty()) {
      renamed.push_back({&function, made});
      return;
    }
    maker.take_for(function, *made);
    if (local)
      return;
    for (GlobalValue *follower : split.followers.lookup(&function)) {
      GlobalValue *own;
      if (auto *alias = dyn_cast<GlobalAlias>(follower)) {
        auto *as = GlobalAlias::create(alias->getValueType(), alias->getAddressSpace(), alias->getLinkage(),
                                       alias->getName(), maker.module.get());
        as->copyAttributesFrom(alias);
        own = as;
      } else {
        auto *ifunc = cast<GlobalIFunc>(follower);
        auto *as = GlobalIFunc::create(ifunc->getValueType(), ifunc->getAddressSpace(), ifunc->getLinkage(),
                                       ifunc->getName(), nullptr, maker.module.get());
        as->copyAttributesFrom(ifunc);
        own = as;
      }
      maker.take_for(*follower, *own);
      followers.push_back({follower, own});
    }
  }

  // Adds copies of callees that are not in the piece; they are not compiled themselves.
  bool copy_callees(std::string &reason) {
    const bool optimised = copies == Copies::ALL && hotbed::optimises(split);
    unsigned copied = 0;
    for (size_t next = 0; next < bodies.size(); next++) {
      auto [function, depth] = bodies[next];
      float limit = MOST_INSTRUCTIONS;
      for (unsigned level = 0; level < depth; level++)
        limit *= SHRINK;
      // The body that is gone through does not change while others are read.
      for (Instruction &instruction : instructions(*function)) {
        auto *call = dyn_cast<CallBase>(&instruction);
        auto *callee = call ? dyn_cast<Function>(call->getCalledOperand()) : nullptr;
        if (!callee || here.contains(callee))
          continue;
        const hb_symbol *known = split.symbol(callee);
        if (!known || known->linkage > hb_symbol::INLINE_ONLY)
          continue;
        bool always = known->flags & hb_symbol::PURE_INLINE;
        if (!always && (!optimised || copied >= MOST_COPIED || known->size > limit * MOST_BYTES_AN_INSTRUCTION ||
                        callee->isInterposable() || callee->hasFnAttribute(Attribute::NoInline)))
          continue;
        here.insert(callee);
        if (!split.read(*callee, reason))
          return false;
        unsigned size = callee->getInstructionCount();
        if (!always && (size > limit || !can_be_copied(*callee)))
          continue;
        copied += size;
        needs_passes = true;
        Function *copy = maker.define_function(*callee, callee->getName(), GlobalValue::AvailableExternallyLinkage);
        copy->setComdat(nullptr);
        maker.take_for(*callee, *copy);
        bodies.push_back({callee, depth + 1});
      }
    }
    return true;
  }

  // Labels have one address each, and local functions are in one piece. What calls these will be larger than it looks.
  bool can_be_copied(Function &function) {
    return none_of(function, [](const BasicBlock &block) { return block.hasAddressTaken(); }) &&
           none_of(instructions(function), [&](Instruction &instruction) {
             auto *call = dyn_cast<CallBase>(&instruction);
             auto *callee = call ? dyn_cast<Function>(call->getCalledOperand()) : nullptr;
             return callee && split.locals.contains(callee);
           });
  }

  void follow(const GlobalValue &source, GlobalValue &made) {
    if (auto *alias = dyn_cast<GlobalAlias>(&source))
      cast<GlobalAlias>(made).setAliasee(maker.mapped(*const_cast<Constant *>(alias->getAliasee())));
    else
      cast<GlobalIFunc>(made).setResolver(
          maker.mapped(*const_cast<Constant *>(cast<GlobalIFunc>(source).getResolver())));
  }

  // The name means the function's one address; calls need not go there.
  void call_directly(const Function &source, Function &made) {
    auto *declared = dyn_cast_or_null<Function>(maker.found(source));
    if (!declared)
      return;
    for (Use &use : make_early_inc_range(declared->uses()))
      if (auto *call = dyn_cast<CallBase>(use.getUser()); call && call->isCallee(&use))
        use.set(&made);
    if (declared->use_empty())
      declared->eraseFromParent();
  }

  hb_split &split;
  const StringRef suffix;
  const Copies copies;
  hotbed::PieceMaker maker;
  SmallPtrSet<const Function *, 8> here;
  SmallVector<std::pair<Function *, unsigned>, 8> bodies; // and how many calls away from what is wanted
  SmallVector<std::pair<const GlobalValue *, GlobalValue *>, 2> followers;
  SmallVector<std::pair<const Function *, Function *>, 4> renamed;
};

} // namespace

extern "C" {

// From now on these functions are visible in their pieces only, where all their callers must be; always-inlined functions
// must not be among these.
void hb_split_keep_local(hb_split *split, const uint32_t *numbers, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (Function *function = split->function(numbers[i]))
      split->locals.insert(function);
}

// The bodies of some functions as a piece; null after an error. With a suffix they are called by their names and that, and
// the names themselves stay open: for a linker whose names mean stubs. With `copies` of what is to be inlined (2), or of what
// always is (1); without them (0) it is good for looking at only. The unit lives longer. Owned, hb_piece_free.
hb_piece *hb_split_code(hb_split *split, const uint32_t *wanted, size_t count, hb_slice suffix, uint8_t copies,
                        hb_messages *messages) {
  auto maker = std::make_unique<CodeMaker>(*split, text(suffix), Copies(copies));
  bool done = hotbed::attempt(*split, *messages, [&](std::string &reason) { return maker->make({wanted, count}, reason); });
  if (split->broken)
    (void)maker.release(); // what the interrupted run still refers to must not be freed under it
  return done ? new hb_piece{*split, maker->take(), /*has_code=*/true, maker->needs_passes} : nullptr;
}
}
