// One link of a session: a graph's way from the object to memory that can be called.
#include "session.h"

#include "llvm/ExecutionEngine/JITLink/x86_64.h"
#include "llvm/ExecutionEngine/Orc/LinkGraphLayer.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Object/ELF.h"
#include "llvm/Support/Endian.h"
#include "llvm/Support/MemoryBuffer.h"

using namespace llvm;
using namespace llvm::jitlink;
using namespace llvm::orc;

namespace {

bool visible(const Symbol &symbol) { return symbol.hasName() && symbol.getScope() < Scope::SideEffectsOnly; }

// Whether a section has addresses of functions to be called, and with which priority; lower ones come first.
std::optional<unsigned> priority(StringRef section, StringRef kind) {
  if (!section.consume_front(kind))
    return std::nullopt;
  unsigned number = 65535;
  if (section.consume_front(".") && section.getAsInteger(10, number))
    number = 65535;
  return number;
}

bool has_calls(StringRef section) {
  return section.starts_with(".init_array") || section.starts_with(".fini_array") || section.starts_with(".ctors") ||
         section.starts_with(".dtors") || section.starts_with(".preinit_array");
}

Error refused(const LinkGraph &graph, const Twine &what) {
  return make_error<hotbed::Failed>(hb_failure{hb_failure::INPUT, (graph.getName() + ": " + what).str(), {}});
}

// JITLink drops these without a word.
Error check_symbols(const LinkGraph &graph, MemoryBufferRef bytes) {
  auto file = object::ELF64LEFile::create(bytes.getBuffer());
  if (!file)
    return file.takeError();
  auto sections = file->sections();
  if (!sections)
    return sections.takeError();
  for (auto &section : *sections) {
    if (section.sh_type != ELF::SHT_SYMTAB)
      continue;
    auto symbols = file->symbols(&section);
    auto names = file->getStringTableForSymtab(section);
    if (!symbols || !names)
      return joinErrors(symbols.takeError(), names.takeError());
    for (auto &symbol : *symbols) {
      if (symbol.getType() != ELF::STT_GNU_IFUNC)
        continue;
      auto name = symbol.getName(*names);
      return name ? refused(graph, "'" + *name + "' is an ifunc, which fresh code cannot have") : name.takeError();
    }
  }
  return Error::success();
}

// JITLink takes these for something else, or drops them without a word.
Error check(LinkGraph &graph) {
  for (Section &section : graph.sections()) {
    StringRef name = section.getName();
    if (name.starts_with(".tdata") || name.starts_with(".tbss"))
      return refused(graph, "it defines thread_local variables, which fresh code cannot");
    if (name.starts_with(".ctors") || name.starts_with(".dtors") || name.starts_with(".preinit_array"))
      return refused(graph, "it has constructors in " + name + "; compile it with -fuse-init-array");
    bool nowhere = section.getMemLifetime() == MemLifetime::NoAlloc;
    for (Block *block : section.blocks()) {
      if (nowhere && block->isZeroFill())
        return refused(graph, "its section " + name + " has neither contents nor memory");
      for (Edge &edge : block->edges())
        if (edge.getKind() == x86_64::RequestTLSDescInGOTAndTransformToDelta32)
          return refused(graph, "it uses thread_local variables, which fresh code cannot");
    }
  }
  return Error::success();
}

class Context final : public JITLinkContext {
public:
  Context(hotbed::Linker &linker, hb_unit_ref unit, std::shared_ptr<hb_part::Calls> calls,
          std::unique_ptr<MaterializationResponsibility> responsibility, std::unique_ptr<MemoryBuffer> bytes)
      : JITLinkContext(&responsibility->getTargetJITDylib()), linker(linker), unit(std::move(unit)), calls(std::move(calls)),
        responsibility(std::move(responsibility)), bytes(std::move(bytes)) {}

  JITLinkMemoryManager &getMemoryManager() override { return *linker.session.places; }

  void notifyFailed(Error error) override {
    hb_failure failure = linker.session.explain(std::move(error));
    linker.session.remember(responsibility->getTargetJITDylib(), responsibility->getSymbols(), failure);
    responsibility->failMaterialization();
  }

  void lookup(const LookupMap &symbols, std::unique_ptr<JITLinkAsyncLookupContinuation> then) override;
  Error notifyResolved(LinkGraph &graph) override;
  void notifyFinalized(JITLinkMemoryManager::FinalizedAlloc memory) override;

  LinkGraphPassFunction getMarkLivePass(const Triple &) const override {
    return [this](LinkGraph &graph) { return mark(graph); };
  }

  Error modifyPassConfig(LinkGraph &, PassConfiguration &config) override {
    config.PreFixupPasses.insert(config.PreFixupPasses.begin(), keep_far_calls);
    config.PostFixupPasses.push_back([this](LinkGraph &graph) { return collect_calls(graph); });
    return Error::success();
  }

private:
  Error mark(LinkGraph &graph) const;
  Error collect_calls(LinkGraph &graph);
  static Error keep_far_calls(LinkGraph &graph);

  hotbed::Linker &linker;
  hb_unit_ref unit;
  std::shared_ptr<hb_part::Calls> calls;
  std::unique_ptr<MaterializationResponsibility> responsibility;
  std::unique_ptr<MemoryBuffer> bytes;
  SymbolDependenceMap needed;
};

// What others define already is theirs here too; the rest, and what is called without being named, stays.
Error Context::mark(LinkGraph &graph) const {
  SmallVector<Symbol *> others;
  for (Symbol *symbol : graph.defined_symbols()) {
    if (!visible(*symbol))
      continue;
    if (responsibility->getSymbols().count(symbol->getName()))
      symbol->setLive(true);
    else
      others.push_back(symbol);
  }
  for (Symbol *symbol : others)
    graph.makeExternal(*symbol);
  for (Section &section : graph.sections())
    if (has_calls(section.getName()))
      for (Block *block : section.blocks())
        graph.addAnonymousSymbol(*block, 0, block->getSize(), false, /*IsLive=*/true);
  return Error::success();
}

void Context::lookup(const LookupMap &symbols, std::unique_ptr<JITLinkAsyncLookupContinuation> then) {
  JITDylibSearchOrder order;
  responsibility->getTargetJITDylib().withLinkOrderDo([&](const JITDylibSearchOrder &known) { order = known; });
  SymbolLookupSet wanted;
  // Whatever nobody here has, the host is asked for.
  for (auto &symbol : symbols)
    wanted.add(symbol.first, orc::SymbolLookupFlags::WeaklyReferencedSymbol);
  auto complete = [this, symbols, then = std::move(then)](Expected<SymbolMap> result) mutable {
    if (!result)
      return then->run(result.takeError());
    AsyncLookupResult found(result->begin(), result->end());
    SymbolNameVector rest;
    for (auto &symbol : symbols)
      if (!found.count(symbol.first))
        rest.push_back(symbol.first);
    if (rest.empty())
      return then->run(std::move(found));
    auto add = [symbols, found = std::move(found), then = std::move(then), name = unit->dylib->getName()](
                   Expected<hotbed::Definitions> answer) mutable {
      if (!answer)
        return then->run(answer.takeError());
      hb_failure missing{hb_failure::UNDEFINED, "", {}};
      for (auto &[symbol, flags] : symbols) {
        if (found.count(symbol))
          continue;
        auto known = answer->find(symbol);
        if (known != answer->end())
          found[symbol] = known->second;
        else if (flags == jitlink::SymbolLookupFlags::WeaklyReferencedSymbol)
          found[symbol] = {};
        else
          missing.names.push_back((*symbol).str());
      }
      if (missing.names.empty())
        return then->run(std::move(found));
      llvm::sort(missing.names);
      missing.message = name + ": undefined: " + llvm::join(missing.names, ", ");
      then->run(make_error<hotbed::Failed>(std::move(missing)));
    };
    hotbed::ask(*unit, std::move(rest), std::move(add));
  };
  linker.session.orc->lookup(LookupKind::Static, order, std::move(wanted), SymbolState::Resolved, std::move(complete),
                             [this](const SymbolDependenceMap &needed) { this->needed = needed; });
}

Error Context::notifyResolved(LinkGraph &graph) {
  SymbolMap resolved;
  auto add = [&](Symbol &symbol) {
    if (visible(symbol))
      resolved[symbol.getName()] = {symbol.getAddress(), LinkGraphLayer::getJITSymbolFlagsForSymbol(symbol)};
  };
  for (Symbol *symbol : graph.defined_symbols())
    add(*symbol);
  for (Symbol *symbol : graph.absolute_symbols())
    add(*symbol);
  return responsibility->notifyResolved(resolved);
}

void Context::notifyFinalized(JITLinkMemoryManager::FinalizedAlloc memory) {
  if (auto error = linker.keep(*responsibility, std::move(memory)))
    return notifyFailed(std::move(error));
  // All symbols of a link become ready at once, when what any of them needs is. Those of the link itself are no matter.
  SymbolDependenceGroup group;
  for (auto &symbol : responsibility->getSymbols())
    group.Symbols.insert(symbol.first);
  group.Dependencies = std::move(needed);
  if (auto error = responsibility->notifyEmitted(group))
    notifyFailed(std::move(error));
}

// A call through the table (`call *f@GOTPCREL`) is made direct where the function lies below 4 GiB, as an absolute
// address would do for a move; but a call reaches 2 GiB from where it stands. Such calls are to stay as they are.
Error Context::keep_far_calls(LinkGraph &graph) {
  for (Block *block : graph.blocks())
    for (Edge &edge : block->edges()) {
      if (edge.getKind() != x86_64::PCRel32GOTLoadRelaxable && edge.getKind() != x86_64::PCRel32GOTLoadREXRelaxable)
        continue;
      if (!edge.getTarget().isDefined() || edge.getTarget().getBlock().edges_empty())
        continue;
      auto slot = edge.getTarget().getBlock().edges();
      int64_t distance = slot.begin()->getTarget().getAddress() - block->getFixupAddress(edge);
      // The same sum, which nobody touches any more.
      if (!isInt<31>(distance))
        edge.setKind(x86_64::BranchPCRel32);
    }
  return Error::success();
}

// Reads the addresses of constructors and destructors, which are relocated by now.
Error Context::collect_calls(LinkGraph &graph) {
  struct List {
    unsigned priority;
    ExecutorAddr place;
    Block *block;
  };
  auto collect = [&](StringRef kind, std::vector<uint64_t> &into) {
    std::vector<List> lists;
    for (Section &section : graph.sections())
      if (auto number = priority(section.getName(), kind))
        for (Block *block : section.blocks())
          if (!block->isZeroFill())
            lists.push_back({*number, block->getAddress(), block});
    llvm::sort(lists, [](const List &a, const List &b) {
      return std::tie(a.priority, a.place) < std::tie(b.priority, b.place);
    });
    for (List &list : lists) {
      ArrayRef<char> content = list.block->getContent();
      for (; content.size() >= 8; content = content.drop_front(8))
        into.push_back(support::endian::read64le(content.data()));
    }
  };
  collect(".init_array", calls->beginning);
  collect(".fini_array", calls->end);
  // Ends come in the opposite order.
  std::reverse(calls->end.begin(), calls->end.end());
  return Error::success();
}

// A graph that waits to be linked.
class Waiting final : public MaterializationUnit {
public:
  Waiting(hb_part &part, Interface symbols, std::unique_ptr<MemoryBuffer> bytes, std::unique_ptr<LinkGraph> graph)
      : MaterializationUnit(std::move(symbols)), unit(part.unit), calls(part.calls), bytes(std::move(bytes)),
        graph(std::move(graph)) {}

  StringRef getName() const override { return graph->getName(); }

private:
  void materialize(std::unique_ptr<MaterializationResponsibility> responsibility) override {
    auto context = std::make_unique<Context>(*unit->session.linker, unit, std::move(calls), std::move(responsibility),
                                             std::move(bytes));
    jitlink::link(std::move(graph), std::move(context));
  }

  // The symbol is somebody else's; `Context::mark` sees that from what is left to define.
  void discard(const JITDylib &, const SymbolStringPtr &) override {}

  hb_unit_ref unit;
  std::shared_ptr<hb_part::Calls> calls;
  std::unique_ptr<MemoryBuffer> bytes;
  std::unique_ptr<LinkGraph> graph;
};

} // namespace

Error hotbed::define(hb_part &part, std::unique_ptr<MemoryBuffer> bytes, std::unique_ptr<LinkGraph> graph,
                     const StringSet<> *exports) {
  if (auto error = check(*graph))
    return error;
  if (auto error = bytes ? check_symbols(*graph, bytes->getMemBufferRef()) : Error::success())
    return error;
  hb_session &session = part.unit->session;
  MaterializationUnit::Interface symbols;
  bool calls = llvm::any_of(graph->sections(), [](Section &section) { return has_calls(section.getName()); });
  auto add = [&](Symbol &symbol) {
    if (!visible(symbol))
      return;
    // A pointer to a routine for exceptions, in every object that has any: the first part would be needed by all.
    bool own = (*symbol.getName()).starts_with("DW.ref.");
    if (own || (exports && !exports->contains(*symbol.getName())))
      symbol.setScope(Scope::Local);
    else
      symbols.SymbolFlags[symbol.getName()] = LinkGraphLayer::getJITSymbolFlagsForSymbol(symbol);
  };
  for (Symbol *symbol : graph->defined_symbols())
    add(*symbol);
  for (Symbol *symbol : graph->absolute_symbols())
    add(*symbol);
  if (calls || symbols.SymbolFlags.empty()) {
    uint64_t number = session.orc->runSessionLocked([&] { return session.parts++; });
    symbols.InitSymbol = session.orc->intern(("$part." + Twine(number)).str());
    symbols.SymbolFlags[symbols.InitSymbol] = JITSymbolFlags::MaterializationSideEffectsOnly;
    part.handle = symbols.InitSymbol;
  } else {
    part.handle = symbols.SymbolFlags.begin()->first;
  }
  part.tracker = part.unit->dylib->createResourceTracker();
  auto waiting = std::make_unique<Waiting>(part, std::move(symbols), std::move(bytes), std::move(graph));
  return part.unit->dylib->define(std::move(waiting), part.tracker);
}

Error hotbed::Linker::keep(MaterializationResponsibility &responsibility, Memory memory) {
  auto error = responsibility.withResourceKeyDo([&](ResourceKey key) {
    std::lock_guard<std::mutex> guard(lock);
    kept[key].push_back(std::move(memory));
  });
  // It was removed while it was linked.
  if (error)
    return joinErrors(std::move(error), session.places->deallocate(std::move(memory)));
  return error;
}

Error hotbed::Linker::handleRemoveResources(JITDylib &, ResourceKey key) {
  std::vector<Memory> memory;
  session.orc->runSessionLocked([&] {
    std::lock_guard<std::mutex> guard(lock);
    auto known = kept.find(key);
    if (known == kept.end())
      return;
    memory = std::move(known->second);
    kept.erase(known);
  });
  if (memory.empty())
    return Error::success();
  return session.places->deallocate(std::move(memory));
}

void hotbed::Linker::handleTransferResources(JITDylib &, ResourceKey to, ResourceKey from) {
  std::lock_guard<std::mutex> guard(lock);
  auto known = kept.find(from);
  if (known == kept.end())
    return;
  auto moved = std::move(known->second);
  kept.erase(known);
  auto &there = kept[to];
  for (auto &memory : moved)
    there.push_back(std::move(memory));
}
