// A session of ORC: what its parts share. It links with a layer of its own over JITLink instead of ORC's, for three
// reasons. ORC's asks generators for what nobody defines, and a generator serves one look-up at a time: a host that
// links something else of the same unit in order to answer would wait for itself. It notes which section needs which,
// and working that off is about cubic; the symbols of one link become ready together anyway. And it says why a link
// failed to a reporter of errors, not to whoever looked the symbol up.
#pragma once
#include "shim.h"

#include <map>
#include <mutex>

#include "llvm/ADT/DenseMap.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/ExecutionEngine/JITLink/JITLink.h"
#include "llvm/ExecutionEngine/Orc/Core.h"

// What a link wants of the session's memory; alignments are powers of two. And where it got it: addresses, and the places
// where code and constants can be written.
struct hb_place {
  uint64_t code, code_writer, code_size, code_alignment;
  uint64_t constants, constants_writer, constants_size, constants_alignment;
  uint64_t data, data_size, data_alignment;
  uint64_t piece, pending; // the owner's
};

// The unwind tables of a link: `.eh_frame` as it lies at `address`, and the place in the constants that was kept for their
// entry and index.
struct hb_frames {
  hb_slice section;
  uint64_t address, entry, entry_size;
};

// The memory of a session. The functions may be called by any thread.
struct hb_memory {
  void *owner;
  // Fills in where; false when there is none. Data and constants are zero.
  bool (*take)(void *owner, hb_place *place);
  // Everything is written; `frames` may be null.
  void (*publish)(void *owner, hb_place *place, const hb_frames *frames);
  // Nobody uses the place any more.
  void (*give_back)(void *owner, hb_place *place);
};

struct hb_question;

// Whoever knows what no unit defines.
struct hb_host {
  void *owner;
  // Any thread. The question is owned, and consumed by hb_question_answer, in any thread, during the call or later.
  void (*find)(void *owner, uint64_t unit, hb_question *question);
};

// Why something failed; the numbers are known in session.rs.
struct hb_failure {
  enum Kind : uint8_t { LINK, UNDEFINED, DUPLICATE, INPUT, CODEGEN, MEMORY };
  Kind kind;
  std::string message;
  std::vector<std::string> names;
};

namespace hotbed {

class Linker;

// A failure on its way through LLVM.
class Failed final : public llvm::ErrorInfo<Failed> {
public:
  static char ID;
  explicit Failed(hb_failure failure) : failure(std::move(failure)) {}
  void log(llvm::raw_ostream &out) const override { out << failure.message; }
  std::error_code convertToErrorCode() const override { return llvm::inconvertibleErrorCode(); }
  hb_failure failure;
};

// What the places of a session are given by; see session_memory.cpp.
std::unique_ptr<llvm::jitlink::JITLinkMemoryManager> make_memory(const hb_memory &memory);

// Makes an object out of bitcode; see session_codegen.cpp.
class Compilers;
struct FreeCompilers {
  void operator()(Compilers *) const;
};
std::unique_ptr<Compilers, FreeCompilers> make_compilers();

} // namespace hotbed

struct hb_session {
  hb_memory memory;
  hb_host host;
  // Before the session, which uses it to its end.
  std::unique_ptr<llvm::jitlink::JITLinkMemoryManager> places;
  std::unique_ptr<llvm::orc::ExecutionSession> orc;
  std::unique_ptr<hotbed::Linker> linker;
  std::unique_ptr<hotbed::Compilers, hotbed::FreeCompilers> compilers;

  // Why symbols could not be linked.
  std::mutex lock;
  std::map<std::pair<llvm::orc::JITDylib *, llvm::orc::SymbolStringPtr>, std::shared_ptr<const hb_failure>> reasons;
  uint64_t units = 0, parts = 0;

  // The failure that an error stands for; the error is consumed.
  hb_failure explain(llvm::Error error);
  void remember(llvm::orc::JITDylib &dylib, const llvm::orc::SymbolFlagsMap &symbols, const hb_failure &failure);
};

// A unit: names of its own, and an order in which those of others are searched. Links under way hold it.
struct hb_unit : llvm::ThreadSafeRefCountedBase<hb_unit> {
  hb_session &session;
  llvm::orc::JITDylibSP dylib;
  uint64_t number;
  // ORC keeps the places of those that are searched, even when they are taken out.
  std::vector<llvm::IntrusiveRefCntPtr<hb_unit>> order;
  // What the host has answered, which holds as long as the unit: an address is bound once.
  std::mutex lock;
  llvm::DenseMap<llvm::orc::SymbolStringPtr, llvm::orc::ExecutorSymbolDef> found;

  hb_unit(hb_session &session, llvm::orc::JITDylibSP dylib, uint64_t number)
      : session(session), dylib(std::move(dylib)), number(number) {}
};
using hb_unit_ref = llvm::IntrusiveRefCntPtr<hb_unit>;

// A part of a unit: what one object or module became.
struct hb_part {
  hb_unit_ref unit;
  llvm::orc::ResourceTrackerSP tracker;
  // A symbol whose look-up links the part.
  llvm::orc::SymbolStringPtr handle;
  // Addresses of functions to be called at the beginning and at the end, in order; complete once the part is linked.
  struct Calls {
    std::vector<uint64_t> beginning, end;
  };
  std::shared_ptr<Calls> calls = std::make_shared<Calls>();
};

namespace hotbed {

using Definitions = llvm::jitlink::AsyncLookupResult;

// Asks the host for `names`, which are not empty; `then` is called, in whatever thread, with what it has.
void ask(hb_unit &unit, llvm::orc::SymbolNameVector names,
         llvm::unique_function<void(llvm::Expected<Definitions>)> then);

// Brings a graph into the unit: checks it, makes all symbols local that are not exported (`exports` null: those that the
// object shows) and defines the rest.
llvm::Error define(hb_part &part, std::unique_ptr<llvm::MemoryBuffer> bytes,
                   std::unique_ptr<llvm::jitlink::LinkGraph> graph, const llvm::StringSet<> *exports);

// Links graphs; see session_link.cpp.
class Linker final : public llvm::orc::ResourceManager {
public:
  explicit Linker(hb_session &session) : session(session) { session.orc->registerResourceManager(*this); }
  ~Linker() override { session.orc->deregisterResourceManager(*this); }

  // Has `key` hold the memory.
  llvm::Error keep(llvm::orc::MaterializationResponsibility &responsibility,
                   llvm::jitlink::JITLinkMemoryManager::FinalizedAlloc memory);
  llvm::Error handleRemoveResources(llvm::orc::JITDylib &, llvm::orc::ResourceKey key) override;
  void handleTransferResources(llvm::orc::JITDylib &, llvm::orc::ResourceKey to, llvm::orc::ResourceKey from) override;

  hb_session &session;

private:
  using Memory = llvm::jitlink::JITLinkMemoryManager::FinalizedAlloc;
  std::mutex lock;
  llvm::DenseMap<llvm::orc::ResourceKey, std::vector<Memory>> kept;
};

} // namespace hotbed
