// Sessions, units and parts: what links code into this process, for Rust (jit/src/session.rs). See session.h.
#include "session.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/ExecutionEngine/JITLink/ELF_x86_64.h"
#include "llvm/ExecutionEngine/JITLink/x86_64.h"
#include "llvm/ExecutionEngine/Orc/LinkGraphLayer.h"
#include "llvm/ExecutionEngine/Orc/SelfExecutorProcessControl.h"
#include "llvm/ExecutionEngine/Orc/Shared/OrcError.h"
#include "llvm/Support/MemoryBuffer.h"

using namespace llvm;
using namespace llvm::orc;
using hotbed::Definitions;
using hotbed::text;

char hotbed::Failed::ID = 0;

// Names that the host is asked for. The host answers once, during the call or later; whoever is second goes on.
struct hb_question {
  hb_unit_ref unit;
  SymbolNameVector names;
  unique_function<void(Expected<Definitions>)> then;
};

// Told when something is done, with a failure, owned, or null.
using hb_done = void (*)(void *data, hb_failure *failure);

// What somebody has under a name.
struct hb_definition {
  uint64_t address;
  uint8_t kind; // 0 nobody has it, 1 function, 2 data
};

namespace {

hb_failure failure_of(hb_failure::Kind kind, std::string message, std::vector<std::string> names = {}) {
  return {kind, std::move(message), std::move(names)};
}

// Hands a failure over, or drops it if nobody wants it.
template <typename Result = std::nullptr_t> Result fail(hb_failure failure, hb_failure **into) {
  *into = new hb_failure(std::move(failure));
  return Result();
}

} // namespace

void hotbed::ask(hb_unit &unit, SymbolNameVector names, unique_function<void(Expected<Definitions>)> then) {
  Definitions known;
  SymbolNameVector rest;
  {
    std::lock_guard<std::mutex> guard(unit.lock);
    for (auto &name : names) {
      auto found = unit.found.find(name);
      if (found != unit.found.end())
        known[name] = found->second;
      else
        rest.push_back(name);
    }
  }
  if (rest.empty())
    return then(std::move(known));
  auto add = [known = std::move(known), then = std::move(then)](Expected<Definitions> answer) mutable {
    if (answer)
      answer->insert(known.begin(), known.end());
    then(std::move(answer));
  };
  auto &host = unit.session.host;
  host.find(host.owner, unit.number, new hb_question{hb_unit_ref(&unit), std::move(rest), std::move(add)});
}

hb_failure hb_session::explain(Error error) {
  std::optional<hb_failure> result;
  // The first one says it; what follows from it is not told.
  auto say = [&](hb_failure failure) {
    if (!result)
      result = std::move(failure);
  };
  handleAllErrors(
      std::move(error), [&](const hotbed::Failed &failed) { say(failed.failure); },
      [&](const FailedToMaterialize &failed) {
        std::lock_guard<std::mutex> guard(lock);
        for (auto &[dylib, names] : failed.getSymbols())
          for (auto &name : names) {
            auto reason = reasons.find({dylib, name});
            if (reason != reasons.end())
              return say(*reason->second);
          }
        say(failure_of(hb_failure::LINK, toString(make_error<StringError>(failed.message(), failed.convertToErrorCode()))));
      },
      [&](const SymbolsNotFound &missing) {
        auto failure = failure_of(hb_failure::UNDEFINED, "");
        for (auto &name : missing.getSymbols())
          failure.names.push_back((*name).str());
        llvm::sort(failure.names);
        failure.message = "undefined: " + llvm::join(failure.names, ", ");
        say(std::move(failure));
      },
      [&](const DuplicateDefinition &duplicate) {
        say(failure_of(hb_failure::DUPLICATE, "defined twice: " + duplicate.getSymbolName(),
                       {duplicate.getSymbolName()}));
      },
      [&](const ErrorInfoBase &other) { say(failure_of(hb_failure::LINK, other.message())); });
  return result ? std::move(*result) : failure_of(hb_failure::LINK, "no reason was given");
}

void hb_session::remember(JITDylib &dylib, const SymbolFlagsMap &symbols, const hb_failure &failure) {
  auto shared = std::make_shared<const hb_failure>(failure);
  std::lock_guard<std::mutex> guard(lock);
  for (auto &symbol : symbols)
    reasons[{&dylib, symbol.first}] = shared;
}

namespace {

// The unit's own handle, a word with its own address as the loader's images have it, among the unit's data: code reaches
// it directly.
std::unique_ptr<jitlink::LinkGraph> handle_graph(ExecutionSession &session) {
  auto graph = std::make_unique<jitlink::LinkGraph>("__dso_handle", session.getSymbolStringPool(),
                                                    session.getTargetTriple(), SubtargetFeatures(),
                                                    jitlink::x86_64::getEdgeKindName);
  auto &section = graph->createSection(".data", MemProt::Read | MemProt::Write);
  auto &block = graph->createMutableContentBlock(section, 8, ExecutorAddr(), 8, 0);
  auto &symbol = graph->addDefinedSymbol(block, 0, "__dso_handle", 8, jitlink::Linkage::Strong,
                                         jitlink::Scope::Hidden, false, false);
  block.addEdge(jitlink::x86_64::Pointer64, 0, symbol, 0);
  return graph;
}

// Has the names of a unit linked, and says so to `done` after `use` has had what was found.
void look_up(hb_unit &unit, SymbolLookupSet names, hb_done done, void *data, unique_function<void(SymbolMap &)> use) {
  hb_session &session = unit.session;
  auto complete = [&session, done, data, use = std::move(use)](Expected<SymbolMap> found) mutable {
    if (!found)
      return done(data, new hb_failure(session.explain(found.takeError())));
    use(*found);
    done(data, nullptr);
  };
  session.orc->lookup(LookupKind::Static, {{unit.dylib.get(), JITDylibLookupFlags::MatchAllSymbols}}, std::move(names),
                      SymbolState::Ready, std::move(complete), NoDependenciesToRegister);
}

StringSet<> set_of(const hb_slice *names, size_t count) {
  StringSet<> set;
  for (size_t i = 0; i < count; i++)
    set.insert(text(names[i]));
  return set;
}

} // namespace

extern "C" {

// A new session; null after a failure. `memory` and `host` are copied; what they point to lives longer than the session.
// Owned, hb_session_free.
hb_session *hb_session_new(const hb_memory *memory, const hb_host *host, hb_failure **failure) {
  auto control = SelfExecutorProcessControl::Create(nullptr, std::make_unique<InPlaceTaskDispatcher>());
  auto session = std::make_unique<hb_session>();
  if (!control)
    return fail(session->explain(control.takeError()), failure);
  session->memory = *memory;
  session->host = *host;
  session->places = hotbed::make_memory(session->memory);
  session->orc = std::make_unique<ExecutionSession>(std::move(*control));
  // Reasons are remembered where they arise; what is left is said to whoever asks.
  session->orc->setErrorReporter([](Error error) { consumeError(std::move(error)); });
  session->linker = std::make_unique<hotbed::Linker>(*session);
  session->compilers = hotbed::make_compilers();
  return session.release();
}

// Ends a session with all its units. No call is under way, no question open, and nobody uses its code any more.
void hb_session_free(hb_session *session) {
  consumeError(session->orc->endSession());
  session->linker.reset();
  delete session;
}

// A new unit in which names are searched for in itself, then in `order`, borrowed, then by the host, who knows it by
// `number`. Any thread. Owned, hb_unit_free.
hb_unit *hb_unit_new(hb_session *session, hb_slice name, uint64_t number, hb_unit *const *order, size_t count,
                     hb_failure **failure) {
  JITDylib &dylib = session->orc->createBareJITDylib(text(name).str());
  JITDylibSearchOrder others;
  for (size_t i = 0; i < count; i++)
    others.push_back({order[i]->dylib.get(), JITDylibLookupFlags::MatchExportedSymbolsOnly});
  dylib.setLinkOrder(std::move(others), /*LinkAgainstThisJITDylibFirst=*/true);
  hb_unit_ref unit(new hb_unit(*session, &dylib, number));
  unit->order.assign(order, order + count);
  hb_part part;
  part.unit = unit;
  if (auto error = hotbed::define(part, nullptr, handle_graph(*session->orc), nullptr))
    return fail(session->explain(std::move(error)), failure);
  unit->Retain();
  return unit.get();
}

// Takes the unit's code and names out of the session; false after a failure. Nobody uses its code any more. Any thread.
bool hb_unit_remove(hb_unit *unit, hb_failure **failure) {
  hb_session &session = unit->session;
  auto error = session.orc->removeJITDylib(*unit->dylib);
  {
    std::lock_guard<std::mutex> guard(session.lock);
    auto first = session.reasons.lower_bound({unit->dylib.get(), SymbolStringPtr()});
    while (first != session.reasons.end() && first->first.first == unit->dylib.get())
      first = session.reasons.erase(first);
  }
  if (error)
    return fail<bool>(session.explain(std::move(error)), failure);
  return true;
}

// The handle only; the unit stays.
void hb_unit_free(hb_unit *unit) { unit->Release(); }

// Adds an object to a unit; null after a failure. `bytes` and `exports` are borrowed; with `exports` no other name than
// these is visible outside of the part. The caller has checked the object. Nothing is linked yet. Any thread. Owned,
// hb_part_free.
hb_part *hb_part_new(hb_unit *unit, hb_slice name, hb_slice bytes, const hb_slice *exports, size_t count, bool all,
                     hb_failure **failure) {
  auto copy = MemoryBuffer::getMemBufferCopy(text(bytes), text(name));
  auto fail_with = [&](Error error) { return fail(unit->session.explain(std::move(error)), failure); };
  auto graph = jitlink::createLinkGraphFromELFObject_x86_64(copy->getMemBufferRef(),
                                                            unit->session.orc->getSymbolStringPool());
  if (!graph) {
    auto reason = unit->session.explain(graph.takeError());
    reason.kind = hb_failure::INPUT;
    reason.message = text(name).str() + ": " + reason.message;
    return fail(std::move(reason), failure);
  }
  auto part = std::make_unique<hb_part>();
  part->unit = hb_unit_ref(unit);
  auto names = set_of(exports, count);
  if (auto error = hotbed::define(*part, std::move(copy), std::move(*graph), all ? nullptr : &names))
    return fail_with(std::move(error));
  return part.release();
}

// Links the part if it is not, and then calls `done` with `data` and a failure, owned, or null: during the call or later,
// from any thread. Any thread.
void hb_part_link(hb_part *part, hb_done done, void *data) {
  look_up(*part->unit, SymbolLookupSet(part->handle, SymbolLookupFlags::WeaklyReferencedSymbol), done, data,
          [](SymbolMap &) {});
}

// Addresses of what is to be called at the beginning (or at the end), in order. The part is linked. Borrowed from `part`.
const uint64_t *hb_part_calls(const hb_part *part, bool end, size_t *count) {
  auto &list = end ? part->calls->end : part->calls->beginning;
  *count = list.size();
  return list.data();
}

// Takes the part's code and names out of its unit; false after a failure. Nobody uses its code any more. Any thread.
bool hb_part_remove(hb_part *part, hb_failure **failure) {
  hb_session &session = part->unit->session;
  if (auto error = part->tracker->remove())
    return fail<bool>(session.explain(std::move(error)), failure);
  return true;
}

// The handle only; the part stays as long as its unit.
void hb_part_free(hb_part *part) { delete part; }

// Looks names up in the unit itself and links what defines them, and then calls `done` as hb_part_link does. `names` are
// borrowed for the call, `addresses`, one for each, until then. Any thread.
void hb_unit_look_up(hb_unit *unit, const hb_slice *names, size_t count, uint64_t *addresses, hb_done done, void *data) {
  SymbolLookupSet wanted;
  SymbolNameVector order;
  for (size_t i = 0; i < count; i++) {
    order.push_back(unit->session.orc->intern(text(names[i])));
    wanted.add(order.back());
  }
  wanted.sortByAddress();
  wanted.removeDuplicates();
  look_up(*unit, std::move(wanted), done, data, [order = std::move(order), addresses](SymbolMap &found) {
    for (size_t i = 0; i < order.size(); i++)
      addresses[i] = found[order[i]].getAddress().getValue();
  });
}

size_t hb_question_count(const hb_question *question) { return question->names.size(); }

// Borrowed from `question`.
hb_slice hb_question_name(const hb_question *question, size_t i) { return hotbed::slice(*question->names[i]); }

// Answers with `definitions`, one for each name and borrowed, or with `reason` if that is not empty; `question` is consumed.
// What waited goes on in this thread.
void hb_question_answer(hb_question *question, const hb_definition *definitions, hb_slice reason) {
  std::unique_ptr<hb_question> owned(question);
  if (!text(reason).empty())
    return owned->then(make_error<hotbed::Failed>(failure_of(hb_failure::LINK, text(reason).str())));
  Definitions found;
  for (size_t i = 0; i < owned->names.size(); i++) {
    if (definitions[i].kind == 0)
      continue;
    auto flags = JITSymbolFlags::Exported;
    if (definitions[i].kind == 1)
      flags |= JITSymbolFlags::Callable;
    found[owned->names[i]] = {ExecutorAddr(definitions[i].address), flags};
  }
  {
    std::lock_guard<std::mutex> guard(owned->unit->lock);
    owned->unit->found.insert(found.begin(), found.end());
  }
  owned->then(std::move(found));
}

uint8_t hb_failure_kind(const hb_failure *failure) { return failure->kind; }

// Borrowed from `failure`, like the names.
hb_slice hb_failure_message(const hb_failure *failure) { return hotbed::slice(failure->message); }

size_t hb_failure_names(const hb_failure *failure) { return failure->names.size(); }

hb_slice hb_failure_name(const hb_failure *failure, size_t i) { return hotbed::slice(failure->names[i]); }

void hb_failure_free(hb_failure *failure) { delete failure; }
}
