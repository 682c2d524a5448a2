// The file system that the driver and the front end see: clang's own headers from memory, inputs that lie in memory,
// and the disk; and a record of what was read and what was looked for in vain.
#include "shim.h"

#include <map>
#include <mutex>

#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"

using namespace llvm;
using hotbed::text;

namespace {

enum class Access : uint8_t { Read, Missing, Listed };

class TrackedFiles final : public vfs::FileSystem {
public:
  TrackedFiles(StringRef directory, StringRef resource_prefix, IntrusiveRefCntPtr<vfs::InMemoryFileSystem> resources)
      : disk(vfs::createPhysicalFileSystem()), inputs(makeIntrusiveRefCnt<vfs::InMemoryFileSystem>()),
        resources(std::move(resources)), prefix(resource_prefix) {
    setCurrentWorkingDirectory(directory);
  }

  void add(StringRef path, StringRef contents) {
    // A copy, for the lexer wants a zero behind the contents.
    inputs->addFile(path, 0, MemoryBuffer::getMemBufferCopy(contents, path));
  }

  ErrorOr<vfs::Status> status(const Twine &twine) override {
    SmallString<256> storage;
    StringRef path = twine.toStringRef(storage);
    if (path.starts_with(prefix))
      return resources->status(path);
    auto input = inputs->status(path);
    if (input && !input->isDirectory())
      return input;
    auto found = disk->status(path);
    // A folder may exist in the name of an input only.
    if (!found && input)
      return input;
    if (!found)
      note(path, Access::Missing);
    return found;
  }

  ErrorOr<std::unique_ptr<vfs::File>> openFileForRead(const Twine &twine) override {
    SmallString<256> storage;
    StringRef path = twine.toStringRef(storage);
    if (path.starts_with(prefix))
      return resources->openFileForRead(path);
    if (auto found = inputs->openFileForRead(path))
      return found;
    auto found = disk->openFileForRead(path);
    note(path, found ? Access::Read : Access::Missing);
    return found;
  }

  vfs::directory_iterator dir_begin(const Twine &twine, std::error_code &error) override {
    SmallString<256> storage;
    StringRef path = twine.toStringRef(storage);
    if (path.starts_with(prefix))
      return resources->dir_begin(path, error);
    auto iterator = disk->dir_begin(path, error);
    note(path, error ? Access::Missing : Access::Listed);
    return iterator;
  }

  ErrorOr<std::string> getCurrentWorkingDirectory() const override { return disk->getCurrentWorkingDirectory(); }

  std::error_code setCurrentWorkingDirectory(const Twine &path) override {
    inputs->setCurrentWorkingDirectory(path);
    return disk->setCurrentWorkingDirectory(path);
  }

  std::error_code getRealPath(const Twine &twine, SmallVectorImpl<char> &output) override {
    SmallString<256> storage;
    StringRef path = twine.toStringRef(storage);
    if (path.starts_with(prefix) || inputs->exists(path)) {
      output.assign(path.begin(), path.end());
      return {};
    }
    return disk->getRealPath(path, output);
  }

  std::error_code isLocal(const Twine &path, bool &result) override { return disk->isLocal(path, result); }

  void each(function_ref<void(StringRef, Access)> visit) {
    std::lock_guard<std::mutex> lock(mutex);
    for (auto &[path, access] : seen)
      visit(path, access);
  }

private:
  void note(StringRef path, Access access) {
    std::lock_guard<std::mutex> lock(mutex);
    auto [place, fresh] = seen.try_emplace(path.str(), access);
    // A file that is found after all (it was written meanwhile) counts as read.
    if (!fresh && access != Access::Missing)
      place->second = access;
  }

  IntrusiveRefCntPtr<vfs::FileSystem> disk;
  IntrusiveRefCntPtr<vfs::InMemoryFileSystem> inputs, resources;
  std::string prefix;
  std::mutex mutex;
  std::map<std::string, Access> seen;
};

IntrusiveRefCntPtr<vfs::InMemoryFileSystem> shared_resources(const hb_file *files, size_t count) {
  static std::once_flag once;
  static IntrusiveRefCntPtr<vfs::InMemoryFileSystem> shared;
  std::call_once(once, [&] {
    shared = makeIntrusiveRefCnt<vfs::InMemoryFileSystem>();
    for (size_t i = 0; i < count; i++)
      shared->addFile(text(files[i].path), 0,
                      MemoryBuffer::getMemBuffer(text(files[i].contents), text(files[i].path), false));
  });
  return shared;
}

} // namespace

extern "C" {

// A file system whose working directory is `directory`. Below `prefix` it shows the `count` files at `resources`, the same
// at every call (borrowed for ever); `inputs` are shown over the disk (contents borrowed for the object's life).
// Owned, hb_files_free; the object may be used by several threads at once.
hb_files *hb_files_new(hb_slice directory, hb_slice prefix, const hb_file *resources, size_t count, const hb_file *inputs,
                       size_t input_count) {
  auto tracked = makeIntrusiveRefCnt<TrackedFiles>(text(directory), text(prefix), shared_resources(resources, count));
  for (size_t i = 0; i < input_count; i++)
    tracked->add(text(inputs[i].path), text(inputs[i].contents));
  return new hb_files{std::move(tracked)};
}

void hb_files_free(hb_files *files) { delete files; }

// Calls `visit` for every path that was read (0), looked for in vain (1) or listed (2), in the order of the paths.
void hb_files_each(hb_files *files, void (*visit)(void *data, hb_slice path, uint8_t access), void *data) {
  static_cast<TrackedFiles *>(files->system.get())->each([&](StringRef path, Access access) {
    visit(data, hotbed::slice(path), static_cast<uint8_t>(access));
  });
}
}
