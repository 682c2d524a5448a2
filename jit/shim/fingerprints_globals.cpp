// What code generation can see of a function, as a hash: what functions refer to, types, constants and globals, each looked at once for
// a module; and what there is to a module that concerns all of its functions.
#include "fingerprints.h"

#include "llvm/ADT/StringSwitch.h"
#include "llvm/IR/Constants.h"
#include "llvm/IR/GlobalAlias.h"
#include "llvm/IR/GlobalIFunc.h"
#include "llvm/IR/GlobalVariable.h"
#include "llvm/IR/LLVMContext.h"
#include "llvm/IR/Metadata.h"
#include "llvm/IR/Module.h"
#include "llvm/IR/Operator.h"
#include "llvm/Support/BLAKE3.h"
#include "llvm/Transforms/Utils/ModuleUtils.h"

using namespace llvm;

namespace hotbed {

// Constants that lie deeper in each other are not looked at: so deep goes the stack.
static constexpr unsigned DEEPEST = 1000;

Fingerprints::Fingerprints(const Module &module) : module(module) {
  module.getMDKindNames(kinds);
  // What is written down beside functions, or names what is in them, is not known to come to the same without them.
  sound = module.getModuleInlineAsm().empty() && module.getTargetTriple().isOSBinFormatELF() &&
          module.getTargetTriple().getArch() == Triple::x86_64;
  for (const NamedMDNode &named : module.named_metadata())
    sound &= StringSwitch<bool>(named.getName())
                 .Cases({"llvm.module.flags", "llvm.ident", "llvm.errno.tbaa"}, true)
                 .Default(false);
  Stream stream;
  stream.text(module.getTargetTriple().str());
  stream.text(module.getDataLayoutStr());
  SmallVector<Module::ModuleFlagEntry, 8> flags;
  module.getModuleFlagsMetadata(flags);
  stream.number(flags.size());
  for (const Module::ModuleFlagEntry &flag : flags) {
    StringRef key = flag.Key->getString();
    sound &= StringSwitch<bool>(key)
                 .Cases({"wchar_size", "PIC Level", "PIE Level", "uwtable", "frame-pointer"}, true)
                 .Cases({"openmp", "MaxTLSAlign", "RtLibUseGOT", "direct-access-external-data"}, true)
                 .Default(key.starts_with("stack-protector-guard"));
    stream.number(flag.Behavior);
    stream.text(key);
    metadata(stream, flag.Val);
  }
  sound &= stream.understood;
  of_module = stream.finish();
  if (!sound)
    return;
  SmallVector<GlobalValue *, 8> used;
  collectUsedGlobalVariables(module, used, /*CompilerUsed=*/false);
  excluded.insert(used.begin(), used.end());
  for (const GlobalAlias &alias : module.aliases())
    excluded.insert(alias.getAliaseeObject());
  // Who chooses is asked by the dynamic linker.
  for (const GlobalIFunc &chosen : module.ifuncs())
    excluded.insert(chosen.getResolverFunction());
}

// The digest of what `describe` writes, once for each `thing`. What leads back to itself has none.
std::optional<Fingerprint> Fingerprints::known(const void *thing, unsigned depth,
                                               function_ref<void(Stream &, unsigned)> describe) {
  auto [entry, inserted] = digests.try_emplace(thing, std::nullopt);
  if (!inserted)
    return entry->second;
  if (depth > DEEPEST)
    return std::nullopt;
  Stream stream;
  describe(stream, depth + 1);
  if (!stream.understood)
    return std::nullopt;
  // The table may have moved.
  return digests[thing] = stream.finish();
}

std::optional<Fingerprint> Fingerprints::of_type(Type *type, unsigned depth) {
  return known(type, depth, [&](Stream &stream, unsigned below) {
    auto contained = [&](Type *inner) { stream.digest(of_type(inner, below)); };
    stream.byte('t');
    stream.byte(type->getTypeID());
    switch (type->getTypeID()) {
    case Type::IntegerTyID:
      return stream.number(cast<IntegerType>(type)->getBitWidth());
    case Type::PointerTyID:
      return stream.number(type->getPointerAddressSpace());
    case Type::ArrayTyID:
      stream.number(type->getArrayNumElements());
      return contained(type->getArrayElementType());
    case Type::FixedVectorTyID:
    case Type::ScalableVectorTyID:
      stream.number(cast<VectorType>(type)->getElementCount().getKnownMinValue());
      return contained(cast<VectorType>(type)->getElementType());
    case Type::StructTyID: {
      auto *record = cast<StructType>(type);
      stream.byte(record->isPacked());
      stream.byte(record->isOpaque());
      if (record->isOpaque())
        return stream.text(record->getName());
      break;
    }
    case Type::FunctionTyID:
      stream.byte(type->isFunctionVarArg());
      break;
    case Type::TargetExtTyID:
    case Type::TypedPointerTyID:
      stream.understood = false;
      return;
    default:
      break;
    }
    stream.number(type->getNumContainedTypes());
    for (Type *inner : type->subtypes())
      contained(inner);
  });
}

std::optional<Fingerprint> Fingerprints::of_attributes(AttributeList list) {
  return known(list.getRawPointer(), 0, [&](Stream &stream, unsigned) {
    for (unsigned index : list.indexes()) {
      AttributeSet set = list.getAttributes(index);
      stream.number(set.getNumAttributes());
      for (Attribute attribute : set) {
        // What the code generator says of calls of such functions has to be said every time.
        if (attribute.hasAttribute("dontcall-error") || attribute.hasAttribute("dontcall-warn"))
          stream.understood = false;
        stream.text(attribute.getAsString());
        // The text has only the name of a type.
        if (attribute.isTypeAttribute() && attribute.getValueAsType())
          stream.digest(of_type(attribute.getValueAsType(), 0));
      }
    }
  });
}

std::optional<Fingerprint> Fingerprints::of_constant(const Constant *constant, unsigned depth) {
  return known(constant, depth, [&](Stream &stream, unsigned below) {
    stream.byte('c');
    stream.number(constant->getValueID());
    if (auto *global = dyn_cast<GlobalValue>(constant))
      return describe_global(stream, *global, below);
    stream.digest(of_type(constant->getType(), below));
    describe_constant(stream, *constant, below);
  });
}

void Fingerprints::describe_constant(Stream &stream, const Constant &constant, unsigned depth) {
  auto bits = [&](const APInt &value) {
    for (unsigned at = 0; at < value.getNumWords(); at++)
      stream.number(value.getRawData()[at]);
  };
  switch (constant.getValueID()) {
  case Value::UndefValueVal:
  case Value::PoisonValueVal:
  case Value::ConstantAggregateZeroVal:
  case Value::ConstantPointerNullVal:
  case Value::ConstantTokenNoneVal:
    return;
  case Value::ConstantIntVal:
    return bits(cast<ConstantInt>(constant).getValue());
  case Value::ConstantFPVal:
    return bits(cast<ConstantFP>(constant).getValueAPF().bitcastToAPInt());
  case Value::ConstantDataArrayVal:
  case Value::ConstantDataVectorVal:
    return stream.text(cast<ConstantDataSequential>(constant).getRawDataValues());
  case Value::ConstantExprVal: {
    auto &expression = cast<ConstantExpr>(constant);
    stream.number(expression.getOpcode());
    stream.number(expression.getRawSubclassOptionalData());
    if (auto *element = dyn_cast<GEPOperator>(&expression)) {
      stream.digest(of_type(element->getSourceElementType(), depth));
      auto range = element->getInRange();
      stream.byte(range.has_value());
      if (range) {
        bits(range->getLower());
        bits(range->getUpper());
      }
    } else if (!expression.isCast() && !Instruction::isBinaryOp(expression.getOpcode())) {
      stream.understood = false;
      return;
    }
    break;
  }
  case Value::ConstantArrayVal:
  case Value::ConstantStructVal:
  case Value::ConstantVectorVal:
    break;
  default:
    // Addresses of blocks, signed pointers and the like.
    stream.understood = false;
    return;
  }
  stream.number(constant.getNumOperands());
  for (const Use &operand : constant.operands()) {
    if (!stream.understood)
      return;
    stream.digest(of_constant(cast<Constant>(operand.get()), depth));
  }
}

void Fingerprints::describe_comdat(Stream &stream, const GlobalValue &global) {
  const Comdat *group = global.getComdat();
  stream.byte(group != nullptr);
  if (group) {
    stream.text(group->getName());
    stream.byte(group->getSelectionKind());
  }
}

void Fingerprints::describe_global(Stream &stream, const GlobalValue &global, unsigned depth) {
  // Numbers in the names of what has none of its own change with what comes before.
  if (!global.hasPrivateLinkage())
    stream.text(global.getName());
  stream.byte(global.getLinkage());
  stream.byte(global.getVisibility());
  stream.byte(global.getDLLStorageClass());
  stream.byte(global.isDSOLocal());
  stream.byte(global.getThreadLocalMode());
  stream.byte(static_cast<uint8_t>(global.getUnnamedAddr()));
  stream.byte(global.isDeclaration());
  stream.number(global.getAddressSpace());
  stream.digest(of_type(global.getValueType(), depth));
  describe_comdat(stream, global);
  stream.understood &= !global.hasPartition() && !global.hasSanitizerMetadata();
  auto alignment = [&](MaybeAlign align) { stream.number(align ? align->value() : 0); };
  if (auto *object = dyn_cast<GlobalObject>(&global))
    stream.text(object->getSection());
  if (auto *function = dyn_cast<Function>(&global)) {
    alignment(function->getAlign());
    stream.number(function->getCallingConv());
    stream.digest(of_attributes(function->getAttributes()));
    stream.understood &= !function->hasPrivateLinkage();
  } else if (auto *variable = dyn_cast<GlobalVariable>(&global)) {
    alignment(variable->getAlign());
    describe_variable(stream, *variable, depth);
  } else if (auto *alias = dyn_cast<GlobalAlias>(&global)) {
    stream.understood &= !global.hasPrivateLinkage();
    stream.digest(of_constant(alias->getAliasee(), depth));
  } else {
    stream.understood = false;
  }
}

void Fingerprints::describe_variable(Stream &stream, const GlobalVariable &variable, unsigned depth) {
  stream.byte(variable.isConstant());
  stream.byte(variable.isExternallyInitialized());
  stream.number(variable.getCodeModelRaw());
  stream.text(variable.hasAttributes() ? variable.getAttributes().getAsString() : "");
  // Some of it says where a variable is.
  stream.understood &= !variable.hasMetadata();
  bool is_content = variable.isConstant() && variable.hasDefinitiveInitializer();
  // What has no name is taken over with its contents, so its address must not matter.
  if (variable.hasPrivateLinkage())
    stream.understood &= is_content && variable.hasGlobalUnnamedAddr() && !variable.hasSection() &&
                         !variable.isThreadLocal() && !variable.hasComdat() && !variable.hasAttributes();
  stream.byte(is_content);
  if (is_content)
    stream.digest(of_constant(variable.getInitializer(), depth));
}

} // namespace hotbed
