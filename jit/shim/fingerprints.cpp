// What code generation can see of a function, as a hash: the function itself. See fingerprints_globals.cpp for what it refers to.
#include "fingerprints.h"

#include "llvm/IR/Constants.h"
#include "llvm/IR/InlineAsm.h"
#include "llvm/IR/Instructions.h"
#include "llvm/IR/Metadata.h"
#include "llvm/IR/Module.h"
#include "llvm/IR/Operator.h"
#include "llvm/Support/BLAKE3.h"

using namespace llvm;

namespace hotbed {

void Fingerprints::Stream::text(StringRef value) {
  number(value.size());
  bytes.append(value);
}

void Fingerprints::Stream::digest(const std::optional<Fingerprint> &value) {
  if (!value) {
    understood = false;
    return;
  }
  bytes.append(reinterpret_cast<const char *>(value->data()), reinterpret_cast<const char *>(value->data()) + value->size());
}

Fingerprint Fingerprints::Stream::finish() const {
  BLAKE3 hasher;
  hasher.update(StringRef(bytes));
  return hasher.final<16>();
}

std::optional<Fingerprint> Fingerprints::of(const Function &function) {
  if (!sound || is_excluded(function))
    return std::nullopt;
  Stream &stream = current;
  stream.bytes.clear();
  stream.numbers.clear();
  stream.understood = true;
  stream.digest(of_module);
  header(stream, function);
  for (const Argument &argument : function.args())
    stream.is_new(&argument);
  for (const BasicBlock &block : function) {
    if (!stream.understood || block.hasAddressTaken())
      return std::nullopt;
    stream.byte(1);
    stream.is_new(&block);
    for (const Instruction &one : block)
      instruction(stream, one);
  }
  if (!stream.understood)
    return std::nullopt;
  return stream.finish();
}

// What is not, or not only, known by what it says.
bool Fingerprints::is_excluded(const Function &function) const {
  // Sections of the user's own, and attributes that have the code generator say something of the function elsewhere.
  return function.isDeclaration() || function.hasAvailableExternallyLinkage() || function.hasPrivateLinkage() ||
         function.hasAppendingLinkage() || function.hasSection() || function.hasPartition() ||
         function.hasPrefixData() || function.hasPrologueData() || function.hasSanitizerMetadata() ||
         function.hasGC() || excluded.contains(&function) || function.hasFnAttribute("warn-stack-size") ||
         function.hasFnAttribute("patchable-function-entry") || function.hasFnAttribute("patchable-function-prefix") ||
         function.hasFnAttribute("patchable-function") || function.hasFnAttribute("function-instrument") ||
         function.hasFnAttribute("implicit-section-name") || function.hasFnAttribute("fentry-call") ||
         (function.hasComdat() && function.getComdat()->getSelectionKind() != Comdat::Any);
}

void Fingerprints::header(Stream &stream, const Function &function) {
  stream.text(function.getName());
  stream.byte(function.getLinkage());
  stream.byte(function.getVisibility());
  stream.byte(function.getDLLStorageClass());
  stream.byte(function.isDSOLocal());
  stream.byte(static_cast<uint8_t>(function.getUnnamedAddr()));
  stream.number(function.getCallingConv());
  stream.number(function.getAddressSpace());
  stream.number(function.getAlign() ? function.getAlign()->value() : 0);
  describe_comdat(stream, function);
  type(stream, function.getFunctionType());
  attributes(stream, function.getAttributes());
  stream.byte(function.hasPersonalityFn());
  if (function.hasPersonalityFn())
    value(stream, function.getPersonalityFn());
  SmallVector<std::pair<unsigned, MDNode *>, 4> all;
  function.getAllMetadata(all);
  attachments(stream, all);
}

void Fingerprints::type(Stream &stream, Type *type) {
  // Most are of these, and told apart sooner than looked up.
  if (type->isIntegerTy()) {
    stream.byte('i');
    return stream.number(type->getIntegerBitWidth());
  }
  if (type->isVoidTy())
    return stream.byte('v');
  if (type->isPointerTy() && type->getPointerAddressSpace() == 0)
    return stream.byte('p');
  stream.byte('t');
  if (stream.is_new(type))
    stream.digest(of_type(type, 0));
}

void Fingerprints::attributes(Stream &stream, AttributeList list) {
  if (list.isEmpty())
    return stream.byte(0);
  stream.byte(1);
  if (stream.is_new(list.getRawPointer()))
    stream.digest(of_attributes(list));
}

void Fingerprints::value(Stream &stream, const Value *value) {
  if (auto *number = dyn_cast<ConstantInt>(value); number && number->getType()->isIntegerTy() && number->getBitWidth() <= 64) {
    stream.byte('n');
    stream.number(number->getBitWidth());
    stream.number(number->getZExtValue());
  } else if (auto *constant = dyn_cast<Constant>(value)) {
    stream.byte('c');
    if (stream.is_new(constant))
      stream.digest(of_constant(constant, 0));
  } else if (isa<Instruction>(value) || isa<Argument>(value) || isa<BasicBlock>(value)) {
    stream.byte('l');
    stream.is_new(value);
  } else if (auto *wrapped = dyn_cast<MetadataAsValue>(value)) {
    stream.byte('m');
    metadata(stream, wrapped->getMetadata());
  } else {
    // Assembly: what it makes the assembler say is about places in the source.
    stream.understood = false;
  }
}

void Fingerprints::metadata(Stream &stream, const Metadata *metadata) {
  if (!metadata)
    return stream.byte(0);
  stream.byte(1);
  if (!stream.is_new(metadata))
    return;
  stream.byte(metadata->getMetadataID());
  if (auto *text = dyn_cast<MDString>(metadata))
    return stream.text(text->getString());
  if (auto *constant = dyn_cast<ConstantAsMetadata>(metadata))
    return value(stream, constant->getValue());
  if (auto *local = dyn_cast<LocalAsMetadata>(metadata))
    return value(stream, local->getValue());
  auto *node = dyn_cast<MDTuple>(metadata);
  if (!node) {
    // Debug information.
    stream.understood = false;
    return;
  }
  stream.byte(node->isDistinct());
  stream.number(node->getNumOperands());
  for (const MDOperand &operand : node->operands()) {
    if (!stream.understood)
      return;
    this->metadata(stream, operand.get());
  }
}

void Fingerprints::attachments(Stream &stream, ArrayRef<std::pair<unsigned, MDNode *>> all) {
  stream.number(all.size());
  for (auto [kind, node] : all) {
    if (kind >= kinds.size()) {
      stream.understood = false;
      return;
    }
    stream.text(kinds[kind]);
    metadata(stream, node);
  }
}

void Fingerprints::instruction(Stream &stream, const Instruction &one) {
  stream.byte(2);
  stream.number(one.getOpcode());
  stream.number(one.getRawSubclassOptionalData());
  type(stream, one.getType());
  if (!one.getType()->isVoidTy())
    stream.is_new(&one);
  stream.number(one.getNumOperands());
  for (const Use &operand : one.operands())
    value(stream, operand.get());
  if (one.getDebugLoc() || one.hasDbgRecords())
    stream.understood = false;
  if (one.hasMetadata()) {
    SmallVector<std::pair<unsigned, MDNode *>, 4> all;
    one.getAllMetadata(all);
    attachments(stream, all);
  } else {
    stream.byte(0xff);
  }
  special(stream, one);
}

void Fingerprints::access(Stream &stream, bool is_volatile, Align alignment, AtomicOrdering ordering, SyncScope::ID scope) {
  stream.byte(is_volatile);
  stream.number(alignment.value());
  stream.byte(static_cast<uint8_t>(ordering));
  stream.byte(scope);
  // Others have no fixed numbers.
  if (scope != SyncScope::SingleThread && scope != SyncScope::System)
    stream.understood = false;
}

// What instructions of one kind have beside operands, type and flags.
void Fingerprints::special(Stream &stream, const Instruction &one) {
  switch (one.getOpcode()) {
  case Instruction::Alloca: {
    auto &alloca = cast<AllocaInst>(one);
    type(stream, alloca.getAllocatedType());
    stream.number(alloca.getAlign().value());
    stream.byte(alloca.isUsedWithInAlloca());
    return stream.byte(alloca.isSwiftError());
  }
  case Instruction::Load: {
    auto &load = cast<LoadInst>(one);
    return access(stream, load.isVolatile(), load.getAlign(), load.getOrdering(), load.getSyncScopeID());
  }
  case Instruction::Store: {
    auto &store = cast<StoreInst>(one);
    return access(stream, store.isVolatile(), store.getAlign(), store.getOrdering(), store.getSyncScopeID());
  }
  case Instruction::Fence: {
    auto &fence = cast<FenceInst>(one);
    return access(stream, false, Align(1), fence.getOrdering(), fence.getSyncScopeID());
  }
  case Instruction::AtomicCmpXchg: {
    auto &exchange = cast<AtomicCmpXchgInst>(one);
    stream.byte(exchange.isWeak());
    stream.byte(static_cast<uint8_t>(exchange.getFailureOrdering()));
    return access(stream, exchange.isVolatile(), exchange.getAlign(), exchange.getSuccessOrdering(),
                  exchange.getSyncScopeID());
  }
  case Instruction::AtomicRMW: {
    auto &change = cast<AtomicRMWInst>(one);
    stream.byte(change.getOperation());
    return access(stream, change.isVolatile(), change.getAlign(), change.getOrdering(), change.getSyncScopeID());
  }
  case Instruction::GetElementPtr:
    return type(stream, cast<GetElementPtrInst>(one).getSourceElementType());
  case Instruction::ICmp:
  case Instruction::FCmp:
    return stream.number(cast<CmpInst>(one).getPredicate());
  case Instruction::PHI:
    for (const BasicBlock *from : cast<PHINode>(one).blocks())
      value(stream, from);
    return;
  case Instruction::ExtractValue:
    for (unsigned index : cast<ExtractValueInst>(one).indices())
      stream.number(index);
    return;
  case Instruction::InsertValue:
    for (unsigned index : cast<InsertValueInst>(one).indices())
      stream.number(index);
    return;
  case Instruction::ShuffleVector: {
    auto mask = cast<ShuffleVectorInst>(one).getShuffleMask();
    stream.number(mask.size());
    for (int index : mask)
      stream.number(static_cast<uint32_t>(index));
    return;
  }
  case Instruction::LandingPad: {
    auto &pad = cast<LandingPadInst>(one);
    stream.byte(pad.isCleanup());
    for (unsigned clause = 0; clause < pad.getNumClauses(); clause++)
      stream.byte(pad.isCatch(clause));
    return;
  }
  case Instruction::Switch:
    for (auto &way : cast<SwitchInst>(one).cases()) {
      value(stream, way.getCaseValue());
      value(stream, way.getCaseSuccessor());
    }
    return;
  case Instruction::Call:
    stream.byte(cast<CallInst>(one).getTailCallKind());
    return call(stream, cast<CallBase>(one));
  case Instruction::Invoke:
    value(stream, cast<InvokeInst>(one).getNormalDest());
    value(stream, cast<InvokeInst>(one).getUnwindDest());
    return call(stream, cast<CallBase>(one));
  // All that there is to these has been said.
  case Instruction::Ret:
  case Instruction::Br:
  case Instruction::Resume:
  case Instruction::Unreachable:
  case Instruction::FNeg:
  case Instruction::Select:
  case Instruction::VAArg:
  case Instruction::ExtractElement:
  case Instruction::InsertElement:
  case Instruction::Freeze:
    return;
  default:
    if (!one.isBinaryOp() && !one.isCast())
      stream.understood = false;
  }
}

void Fingerprints::call(Stream &stream, const CallBase &call) {
  type(stream, call.getFunctionType());
  stream.number(call.getCallingConv());
  attributes(stream, call.getAttributes());
  stream.number(call.getNumOperandBundles());
  for (unsigned at = 0; at < call.getNumOperandBundles(); at++) {
    OperandBundleUse bundle = call.getOperandBundleAt(at);
    stream.text(bundle.getTagName());
    // The inputs are among the operands.
    stream.number(bundle.Inputs.size());
  }
}

} // namespace hotbed
