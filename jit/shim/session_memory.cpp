// The memory manager of a session: lays a link out in three pieces, code, constants and data, for which the session's
// owner has places. They are written where they can be, so nothing is copied once more and no access has to be changed.
#include "session.h"

#include "llvm/ExecutionEngine/JITLink/JITLinkMemoryManager.h"

using namespace llvm;
using namespace llvm::jitlink;
using orc::ExecutorAddr;
using orc::MemProt;

namespace {

// Bytes of an entry, its index without lines, and one line of it (loader/src/boundary/fresh.rs).
constexpr uint64_t ENTRY_BYTES = 8 + 12, LINE_BYTES = 8;

class Memory final : public JITLinkMemoryManager {
public:
  explicit Memory(const hb_memory &owner) : owner(owner) {}

  void allocate(const JITLinkDylib *, LinkGraph &graph, OnAllocatedFunction done) override;

  void deallocate(std::vector<FinalizedAlloc> places, OnDeallocatedFunction done) override {
    for (auto &place : llvm::reverse(places)) {
      std::unique_ptr<hb_place> known(place.release().toPtr<hb_place *>());
      owner.give_back(owner.owner, known.get());
    }
    done(Error::success());
  }

  const hb_memory &owner;
};

class Link final : public JITLinkMemoryManager::InFlightAlloc {
public:
  Link(Memory &memory, std::unique_ptr<hb_place> place, std::optional<hb_frames> frames)
      : memory(memory), place(std::move(place)), frames(frames) {}

  void finalize(OnFinalizedFunction done) override {
    memory.owner.publish(memory.owner.owner, place.get(), frames ? &*frames : nullptr);
    done(JITLinkMemoryManager::FinalizedAlloc(ExecutorAddr::fromPtr(place.release())));
  }

  void abandon(OnAbandonedFunction done) override {
    memory.owner.give_back(memory.owner.owner, place.get());
    place.reset();
    done(Error::success());
  }

private:
  Memory &memory;
  std::unique_ptr<hb_place> place;
  std::optional<hb_frames> frames;
};

// The pieces of a place, as one walks over them.
struct Piece {
  uint64_t &size, &alignment;
  uint64_t &address, &writer;
};

void Memory::allocate(const JITLinkDylib *, LinkGraph &graph, OnAllocatedFunction done) {
  BasicLayout layout(graph);
  auto place = std::make_unique<hb_place>(hb_place{});
  place->code_alignment = place->constants_alignment = place->data_alignment = 1;
  Piece code{place->code_size, place->code_alignment, place->code, place->code_writer};
  Piece constants{place->constants_size, place->constants_alignment, place->constants, place->constants_writer};
  Piece data{place->data_size, place->data_alignment, place->data, place->data};
  SmallVector<std::pair<Piece *, uint64_t>, 4> starts;
  for (auto &[group, segment] : layout.segments()) {
    auto access = group.getMemProt();
    bool execute = (access & MemProt::Exec) != MemProt::None, write = (access & MemProt::Write) != MemProt::None;
    if (execute && write)
      return done(make_error<hotbed::Failed>(
          hb_failure{hb_failure::INPUT, graph.getName() + ": it has a section to be written and executed", {}}));
    Piece &piece = execute ? code : write ? data : constants;
    uint64_t start = alignTo(piece.size, segment.Alignment);
    piece.alignment = std::max(piece.alignment, segment.Alignment.value());
    piece.size = start + segment.ContentSize + segment.ZeroFillSize;
    starts.push_back({&piece, start});
  }
  // Every record of the unwind tables is a block by now, so there are no more lines than blocks.
  Section *section = graph.findSectionByName(".eh_frame");
  uint64_t entry = 0, entry_size = 0;
  if (section && !section->blocks().empty() && code.size) {
    entry = alignTo(constants.size, 4);
    entry_size = ENTRY_BYTES + LINE_BYTES * section->blocks_size();
    constants.alignment = std::max<uint64_t>(constants.alignment, 8);
    constants.size = entry + entry_size;
  }
  if (!owner.take(owner.owner, place.get()))
    return done(make_error<hotbed::Failed>(
        hb_failure{hb_failure::MEMORY, graph.getName() + ": the session has no memory left for it", {}}));
  auto give_back = [&](Error error) {
    owner.give_back(owner.owner, place.get());
    done(std::move(error));
  };
  for (auto [index, segments] : llvm::enumerate(layout.segments())) {
    auto &[piece, start] = starts[index];
    segments.second.Addr = ExecutorAddr(piece->address + start);
    segments.second.WorkingMem = reinterpret_cast<char *>(piece->writer + start);
  }
  if (auto error = layout.apply())
    return give_back(std::move(error));
  std::optional<hb_frames> frames;
  uint64_t from = entry_size ? SectionRange(*section).getStart().getValue() : 0;
  if (from >= place->constants && from < place->constants + place->constants_size) {
    SectionRange range(*section);
    auto *written = reinterpret_cast<char *>(place->constants_writer + (from - place->constants));
    frames = hb_frames{{written, range.getSize()}, from, place->constants + entry, entry_size};
  }
  done(std::make_unique<Link>(*this, std::move(place), frames));
}

} // namespace

std::unique_ptr<JITLinkMemoryManager> hotbed::make_memory(const hb_memory &memory) {
  return std::make_unique<Memory>(memory);
}
