// What code for a processor may use of it.
#include "shim.h"

#include "clang/Basic/Diagnostic.h"
#include "clang/Basic/DiagnosticIDs.h"
#include "clang/Basic/DiagnosticOptions.h"
#include "clang/Basic/TargetInfo.h"
#include "clang/Basic/TargetOptions.h"

using hotbed::slice;
using hotbed::text;

extern "C" {

// Calls `visit` for every feature that the front end takes for granted in code for `cpu`, with `changes` ("+avx2", "-bmi") to what that
// has; its names are LLVM's. False, without a call, when there is no such processor. Everything is borrowed; any thread.
bool hb_processor_features(hb_slice cpu, const hb_slice *changes, size_t count, void (*visit)(void *, hb_slice),
                           void *data) {
  clang::TargetOptions options;
  std::unique_ptr<clang::TargetInfo> target;
  std::string reason;
  bool done = hotbed::guarded(
      [&] {
        clang::DiagnosticOptions settings;
        clang::IgnoringDiagConsumer nobody;
        clang::DiagnosticsEngine engine(clang::DiagnosticIDs::create(), settings, &nobody, /*ShouldOwnClient=*/false);
        options.Triple = "x86_64-unknown-linux-gnu";
        options.CPU = text(cpu).str();
        for (size_t i = 0; i < count; i++)
          options.FeaturesAsWritten.push_back(text(changes[i]).str());
        target.reset(clang::TargetInfo::CreateTargetInfo(engine, options));
      },
      reason);
  if (!done || !target)
    return false;
  for (auto &feature : options.FeatureMap)
    if (feature.getValue())
      visit(data, slice(feature.getKey()));
  return true;
}
}
