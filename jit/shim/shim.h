// The C interface of the back end's C++ part. Every function is `extern "C"`, throws nothing, and says who owns what:
// "borrowed" is the caller's and must live until the call returns (or as long as said), "owned" is handed over and
// given back with the `free` function named beside it. A function that may be called by several threads at once says so.
#pragma once
#include <cstddef>
#include <cstdint>

#include <memory>
#include <string>
#include <vector>

#include "llvm/ADT/IntrusiveRefCntPtr.h"
#include "llvm/Support/VirtualFileSystem.h"

// A borrowed run of bytes; text is not zero-terminated.
struct hb_slice {
  const char *data;
  size_t size;
};

// A file to be seen by the front end without lying on disk; both borrowed.
struct hb_file {
  hb_slice path;
  hb_slice contents;
};

// What a compiler said, in order; see messages.cpp.
struct hb_message {
  uint8_t severity; // 0 note, 1 remark, 2 warning, 3 error
  uint32_t line, column;
  std::string file, text;
};

struct hb_messages {
  std::vector<hb_message> list;
  std::string rendered;
  bool failed = false;
};

// What a run of the front end or of code generation gave; see compile.cpp.
struct hb_object {
  llvm::SmallVector<char, 0> bytes;
  bool differs_each_time = false;
  uint8_t level_signs = 0; // bits as in boundary/signs.rs
  double frontend_ms = 0, codegen_ms = 0;
  // The syntax tree, the module and the compiler, which somebody has to free.
  std::shared_ptr<void> rest;
};

struct hb_rest {
  std::shared_ptr<void> held;
};

// The file system that the driver and the front end see; see files.cpp.
struct hb_files {
  llvm::IntrusiveRefCntPtr<llvm::vfs::FileSystem> system;
};

namespace llvm {
class Module;
}

// Recovery from what LLVM regards as the end of the process; see recovery.cpp.
namespace hotbed {
// Runs `work`; false when it ended in one of LLVM's fatal errors, whose text is then in `reason`. What `work` held is leaked.
bool guarded(llvm::function_ref<void()> work, std::string &reason);

// Gives what is free back to the system; null where the allocator is the C library's. See plugin/allocator.cpp.
[[gnu::weak]] void give_back_memory();

// Brings a module that was compiled for an executable to position-independent code; see module.cpp.
void to_pic(llvm::Module &module);

// Whether assembly has a directive that reads a file.
inline bool reads_files(llvm::StringRef assembly) {
  return assembly.contains(".incbin") || assembly.contains(".include");
}

inline llvm::StringRef text(hb_slice s) { return {s.data, s.size}; }
inline hb_slice slice(llvm::StringRef s) { return {s.data(), s.size()}; }
} // namespace hotbed
