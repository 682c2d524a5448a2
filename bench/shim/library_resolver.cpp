// The peer LibraryResolver: LLVM's own way to find the library that has a symbol, as a host would use it.

#include "llvm/ExecutionEngine/Orc/TargetProcess/LibraryResolver.h"

#include <cstddef>
#include <cstring>
#include <memory>
#include <string>

using namespace llvm;
using namespace llvm::orc;

struct Resolver {
  std::unique_ptr<LibraryResolutionDriver> Driver;
};

extern "C" {

// A resolver over these folders, in this order. Nothing is scanned yet. The caller gives it back with
// hotbed_bench_resolver_free.
Resolver *hotbed_bench_resolver_new(const char *const *Folders, size_t Count) {
  auto Driver = LibraryResolutionDriver::create(LibraryResolver::Setup::create({}));
  if (!Driver)
    return nullptr;
  for (size_t I = 0; I != Count; ++I)
    Driver->addScanPath(Folders[I], PathType::System);
  return new Resolver{std::move(Driver)};
}

// Looks for the library that has Symbol and copies its path, with a zero at the end, to Path, which has Capacity bytes.
// Gives 1 if there is one, 0 if there is none, -1 if its path does not fit.
int hotbed_bench_resolver_find(Resolver *R, const char *Symbol, char *Path, size_t Capacity) {
  int Answer = 0;
  StringRef Name(Symbol);
  R->Driver->resolveSymbols({Name}, [&](LibraryResolver::SymbolQuery &Query) {
    auto Library = Query.getResolvedLib(Name);
    if (!Library)
      return;
    if (Library->size() >= Capacity) {
      Answer = -1;
      return;
    }
    std::memcpy(Path, Library->data(), Library->size());
    Path[Library->size()] = 0;
    Answer = 1;
  });
  return Answer;
}

void hotbed_bench_resolver_free(Resolver *R) { delete R; }
}
