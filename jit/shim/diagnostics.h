// Collects clang's diagnostics: each as a record, all as the text that clang would print.
#pragma once
#include "shim.h"

#include "clang/Basic/Diagnostic.h"
#include "clang/Basic/SourceManager.h"
#include "clang/Frontend/TextDiagnosticPrinter.h"
#include "llvm/Support/raw_ostream.h"

namespace hotbed {

class Collector final : public clang::DiagnosticConsumer {
public:
  Collector(hb_messages &messages, clang::DiagnosticOptions &options, bool color)
      : messages(messages), stream(messages.rendered), printer(stream, options) {
    stream.enable_colors(color);
  }

  void BeginSourceFile(const clang::LangOptions &language, const clang::Preprocessor *preprocessor) override {
    printer.BeginSourceFile(language, preprocessor);
  }

  void EndSourceFile() override { printer.EndSourceFile(); }

  void HandleDiagnostic(clang::DiagnosticsEngine::Level level, const clang::Diagnostic &info) override {
    DiagnosticConsumer::HandleDiagnostic(level, info);
    if (level == clang::DiagnosticsEngine::Ignored)
      return;
    hb_message message{};
    message.severity = level == clang::DiagnosticsEngine::Note      ? 0
                       : level == clang::DiagnosticsEngine::Remark  ? 1
                       : level == clang::DiagnosticsEngine::Warning ? 2
                                                                    : 3;
    llvm::SmallString<128> text;
    info.FormatDiagnostic(text);
    message.text = text.str().str();
    if (info.hasSourceManager() && info.getLocation().isValid()) {
      auto place = info.getSourceManager().getPresumedLoc(info.getLocation());
      if (place.isValid()) {
        message.file = place.getFilename();
        message.line = place.getLine();
        message.column = place.getColumn();
      }
    }
    messages.failed |= message.severity == 3;
    messages.list.push_back(std::move(message));
    printer.HandleDiagnostic(level, info);
    stream.flush();
  }

  llvm::raw_ostream &out() { return stream; }

private:
  hb_messages &messages;
  llvm::raw_string_ostream stream;
  clang::TextDiagnosticPrinter printer;
};

} // namespace hotbed
