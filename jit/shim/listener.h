// Takes what LLVM says while it reads or compiles a module: the first error, as text.
#pragma once
#include <string>

#include "llvm/IR/DiagnosticInfo.h"
#include "llvm/IR/DiagnosticHandler.h"
#include "llvm/IR/DiagnosticPrinter.h"
#include "llvm/Support/raw_ostream.h"

namespace hotbed {

struct Listener final : llvm::DiagnosticHandler {
  std::string &errors; // borrowed, as long as the context that has this
  explicit Listener(std::string &errors) : errors(errors) {}
  bool handleDiagnostics(const llvm::DiagnosticInfo &info) override {
    if (info.getSeverity() == llvm::DS_Error && errors.empty()) {
      llvm::raw_string_ostream out(errors);
      llvm::DiagnosticPrinterRawOStream printer(out);
      info.print(printer);
    }
    return true;
  }
};

} // namespace hotbed
