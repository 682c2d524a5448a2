// lld initialises every target that LLVM was built with. Code generation for most of them is not linked in; what lld
// calls for those does nothing.
#include "shim.h"

#define HB_ABSENT(T)                                                                                                   \
  void LLVMInitialize##T##TargetInfo() {}                                                                              \
  void LLVMInitialize##T##Target() {}                                                                                  \
  void LLVMInitialize##T##TargetMC() {}

#define HB_ABSENT_PRINTER(T)                                                                                           \
  void LLVMInitialize##T##AsmPrinter() {}

#define HB_ABSENT_PARSER(T)                                                                                            \
  void LLVMInitialize##T##AsmParser() {}

#define HB_EACH(DO)                                                                                                    \
  DO(AMDGPU)                                                                                                           \
  DO(ARM)                                                                                                              \
  DO(AVR)                                                                                                              \
  DO(BPF)                                                                                                              \
  DO(Hexagon)                                                                                                          \
  DO(Lanai)                                                                                                            \
  DO(LoongArch)                                                                                                        \
  DO(M68k)                                                                                                             \
  DO(Mips)                                                                                                             \
  DO(MSP430)                                                                                                           \
  DO(NVPTX)                                                                                                            \
  DO(PowerPC)                                                                                                          \
  DO(RISCV)                                                                                                            \
  DO(Sparc)                                                                                                            \
  DO(SPIRV)                                                                                                            \
  DO(SystemZ)                                                                                                          \
  DO(VE)                                                                                                               \
  DO(XCore)                                                                                                            \
  DO(Xtensa)

extern "C" {
HB_EACH(HB_ABSENT)
HB_EACH(HB_ABSENT_PRINTER)
HB_EACH(HB_ABSENT_PARSER)
}
