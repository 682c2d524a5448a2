// Bodies of an opened unit: reading one, and what it says.
#include "split.h"

#include "llvm/IR/Constants.h"
#include "llvm/IR/DebugInfo.h"
#include "llvm/IR/InlineAsm.h"
#include "llvm/IR/InstIterator.h"
#include "llvm/IR/Instructions.h"
#include "llvm/IR/Verifier.h"
#include "llvm/Support/raw_ostream.h"

using namespace llvm;

bool hb_split::read(Function &function, std::string &reason) {
  if (function.empty()) {
    // Bodies that went into a piece are read again.
    function.setIsMaterializable(true);
    if (Error error = function.materialize()) {
      reason = toString(std::move(error));
      return false;
    }
    if (function.empty()) {
      reason = ("the body of " + function.getName() + " is not there").str();
      return false;
    }
    if (!debug_info)
      stripDebugInfo(function);
  }
  if (trusted || verified.contains(&function))
    return true;
  for (Instruction &instruction : instructions(function))
    if (auto *call = dyn_cast<CallBase>(&instruction))
      if (auto *assembly = dyn_cast<InlineAsm>(call->getCalledOperand()))
        reads_files |= hotbed::reads_files(assembly->getAsmString());
  raw_string_ostream out(reason);
  if (!verifyFunction(function, &out)) {
    verified.insert(&function);
    return true;
  }
  reason = "does not verify: " + reason;
  return false;
}

Function *hb_split::function(uint32_t number) const {
  auto *function = number < values.size() ? dyn_cast<Function>(values[number]) : nullptr;
  return function && symbols[number].linkage <= hb_symbol::INLINE_ONLY ? function : nullptr;
}

extern "C" {

// Reads the body of a function and says what is in it; false after an error.
bool hb_split_body(hb_split *split, uint32_t number, hb_body *body, hb_messages *messages) {
  return hotbed::attempt(*split, *messages, [&](std::string &reason) {
    Function *function = split->function(number);
    if (!function) {
      reason = "it has no function of that number";
      return false;
    }
    if (!split->read(*function, reason))
      return false;
    *body = {};
    split->calls.clear();
    split->mentions.clear();
    DenseSet<const Value *> seen, called;
    auto mention = [&](Constant *root) {
      SmallVector<Constant *, 8> open{root};
      while (!open.empty()) {
        Constant *constant = open.pop_back_val();
        if (isa<ConstantData>(constant) || isa<BlockAddress>(constant) || !seen.insert(constant).second)
          continue;
        if (auto known = split->numbers.find(constant); known != split->numbers.end())
          split->mentions.push_back(known->second);
        else if (!isa<GlobalValue>(constant))
          for (Use &use : constant->operands())
            if (auto *operand = dyn_cast<Constant>(use))
              open.push_back(operand);
      }
    };
    for (BasicBlock &block : *function)
      body->labels |= block.hasAddressTaken();
    for (Instruction &instruction : instructions(*function)) {
      body->instructions++;
      auto *call = dyn_cast<CallBase>(&instruction);
      if (call) {
        body->assembly |= call->isInlineAsm();
        auto known = split->numbers.find(call->getCalledOperand());
        if (known != split->numbers.end() && called.insert(known->first).second)
          split->calls.push_back(known->second);
      }
      for (Use &use : instruction.operands())
        if (auto *constant = dyn_cast<Constant>(use); constant && !(call && call->isCallee(&use)))
          mention(constant);
    }
    body->calls = split->calls.data(), body->call_count = split->calls.size();
    body->mentions = split->mentions.data(), body->mention_count = split->mentions.size();
    return true;
  });
}
}
