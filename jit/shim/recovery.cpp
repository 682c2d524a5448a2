// Start of LLVM in this process, and the ways out of it that would end the host.
#include "shim.h"

#include <csignal>
#include <mutex>

#include "llvm/Support/CrashRecoveryContext.h"
#include "llvm/Support/ErrorHandling.h"
#include "llvm/Support/Process.h"
#include "llvm/Support/TargetSelect.h"

extern "C" {
#define HB_TARGET(T)                                                                                                   \
  void LLVMInitialize##T##TargetInfo();                                                                                \
  void LLVMInitialize##T##Target();                                                                                    \
  void LLVMInitialize##T##TargetMC();                                                                                  \
  void LLVMInitialize##T##AsmPrinter();                                                                                \
  void LLVMInitialize##T##AsmParser();
HB_TARGET(X86)
HB_TARGET(AArch64)
HB_TARGET(WebAssembly)
#undef HB_TARGET
}

namespace {

// The reason LLVM gave for its last fatal error on this thread.
thread_local std::string last_words;

// Leaves through the recovery context of `guarded` when there is one; otherwise LLVM ends the process as it would.
void fatal(void *, const char *reason, bool) {
  last_words = reason ? reason : "";
  llvm::sys::Process::Exit(70);
}

// The signals for which CrashRecoveryContext installs handlers.
constexpr int signals[] = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP};

} // namespace

bool hotbed::guarded(llvm::function_ref<void()> work, std::string &reason) {
  last_words.clear();
  llvm::CrashRecoveryContext context;
  if (context.RunSafely(work))
    return true;
  reason = last_words.empty() ? "the compiler gave up" : last_words;
  return false;
}

extern "C" {

// Prepares LLVM; any thread, any number of times. The host's signal handlers are as before when it returns: the recovery
// context is wanted for LLVM's calls of `exit` only.
void hb_initialize() {
  static std::once_flag once;
  std::call_once(once, [] {
#define HB_TARGET(T)                                                                                                   \
  LLVMInitialize##T##TargetInfo();                                                                                     \
  LLVMInitialize##T##Target();                                                                                         \
  LLVMInitialize##T##TargetMC();                                                                                       \
  LLVMInitialize##T##AsmPrinter();                                                                                     \
  LLVMInitialize##T##AsmParser();
    HB_TARGET(X86)
    HB_TARGET(AArch64)
    HB_TARGET(WebAssembly)
#undef HB_TARGET
    struct sigaction before[std::size(signals)];
    for (size_t i = 0; i < std::size(signals); i++)
      sigaction(signals[i], nullptr, &before[i]);
    llvm::CrashRecoveryContext::Enable();
    for (size_t i = 0; i < std::size(signals); i++)
      sigaction(signals[i], &before[i], nullptr);
    llvm::install_fatal_error_handler(fatal, nullptr);
  });
}
}
