// lld, in this process.
#include "shim.h"

#include <cerrno>

#include <sys/mman.h>
#include <unistd.h>

#include "lld/Common/CommonLinkerContext.h"
#include "lld/Common/Driver.h"
#include "llvm/Support/FileOutputBuffer.h"
#include "llvm/Support/raw_ostream.h"

LLD_HAS_DRIVER(elf)

using hotbed::text;

// What a link said.
struct hb_link {
  int status = 1;
  std::string output;
};

namespace {

// The linked file, laid straight into the memory file whose descriptor stands at the end of its path.
class OutputToMemoryFile final : public llvm::FileOutputBuffer {
public:
  OutputToMemoryFile(llvm::StringRef path, uint8_t *start, size_t size) : FileOutputBuffer(path), start(start), size(size) {}
  ~OutputToMemoryFile() override { munmap(start, size); }
  uint8_t *getBufferStart() const override { return start; }
  uint8_t *getBufferEnd() const override { return start + size; }
  size_t getBufferSize() const override { return size; }
  llvm::Error commit() override { return llvm::Error::success(); }

private:
  uint8_t *start;
  size_t size;
};

} // namespace

// Stands in for LLVM's own, which is not linked because this one is found first. LLVM's writes a temporary file beside the
// final one, renames it, and installs signal handlers to remove it should the process be ended: nothing a host wants.
llvm::Expected<std::unique_ptr<llvm::FileOutputBuffer>> llvm::FileOutputBuffer::create(StringRef path, size_t size,
                                                                                       unsigned) {
  int descriptor = -1;
  StringRef digits = path;
  auto unusable = [](int error) { return errorCodeToError(std::error_code(error, std::generic_category())); };
  if (!digits.consume_front("/proc/self/fd/") || digits.getAsInteger(10, descriptor))
    return unusable(EROFS);
  if (ftruncate(descriptor, size) != 0)
    return unusable(errno);
  void *start = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, descriptor, 0);
  if (start == MAP_FAILED)
    return unusable(errno);
  return std::make_unique<OutputToMemoryFile>(path, static_cast<uint8_t *>(start), size);
}

extern "C" {

// Links with `arguments` (those of ld.lld, without its name). One at a time in a process: the caller sees to it.
// Owned, hb_link_free.
hb_link *hb_link_run(const hb_slice *arguments, size_t count) {
  auto result = std::make_unique<hb_link>();
  std::vector<std::string> owned{"ld.lld"};
  for (size_t i = 0; i < count; i++)
    owned.push_back(text(arguments[i]).str());
  std::vector<const char *> pointers;
  for (auto &argument : owned)
    pointers.push_back(argument.c_str());
  llvm::raw_string_ostream out(result->output);
  lld::Result status{1, true};
  std::string reason;
  bool returned = hotbed::guarded(
      [&] { status = lld::lldMain(pointers, out, out, {{lld::Gnu, &lld::elf::link}}); }, reason);
  out.flush();
  if (!returned) {
    result->output += reason + "\n";
    status = {1, false};
  }
  // A link that broke off leaves its context behind, and the next one would find it there.
  if (!status.canRunAgain && lld::hasContext()) {
    std::string ignored;
    hotbed::guarded([] { lld::CommonLinkerContext::destroy(); }, ignored);
  }
  result->status = status.retCode;
  return result.release();
}

void hb_link_free(hb_link *link) { delete link; }

// Zero when an image was written.
int hb_link_status(const hb_link *link) { return link->status; }

// lld's messages; borrowed from `link`.
hb_slice hb_link_output(const hb_link *link) { return hotbed::slice(link->output); }
}
