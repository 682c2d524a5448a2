// Single functions that need no code: see reuse.cpp.
#pragma once
#include "shim.h"

namespace clang {
class CompilerInvocation;
}

// A function of a module.
struct hb_function {
  hb_slice name;
  uint8_t fingerprint[16];
  // It has a fingerprint.
  bool known;
  // Code of its own unit refers to it past its symbol, which may be another one's.
  bool local_alias;
};

// Says which of `functions` no code is to be generated for, by setting their places in `reused`. All borrowed for the call.
using hb_choose = void (*)(void *data, const hb_function *functions, size_t count, bool *reused);

namespace hotbed {
// Has `choose` asked when the module has gone through the passes, unless something about the compilation speaks against it.
void choose_functions(clang::CompilerInvocation &invocation, hb_choose choose, void *data);
} // namespace hotbed
