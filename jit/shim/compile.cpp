// One run of the front end with code generation, in this process: what `clang -cc1 -emit-obj` does, into memory.
#include "diagnostics.h"
#include "reuse.h"

#include <chrono>

#include "clang/AST/ASTConsumer.h"
#include "clang/CodeGen/BackendUtil.h"
#include "clang/CodeGen/CodeGenAction.h"
#include "clang/Frontend/CompilerInstance.h"
#include "clang/Frontend/CompilerInvocation.h"
#include "clang/Frontend/FrontendOptions.h"
#include "clang/Frontend/MultiplexConsumer.h"
#include "clang/Lex/PPCallbacks.h"
#include "clang/Lex/Preprocessor.h"
#include "clang/Sema/Sema.h"
#include "llvm/ADT/StringSwitch.h"
#include "llvm/Support/CommandLine.h"
#include "llvm/Support/VirtualOutputBackend.h"
#include "llvm/Support/VirtualOutputConfig.h"

using namespace clang;
using hotbed::text;
using Clock = std::chrono::steady_clock;

namespace {

double since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// Notices macros whose value is different the next time.
class TimeMacros final : public PPCallbacks {
public:
  explicit TimeMacros(bool &used) : used(used) {}
  void MacroExpands(const Token &name, const MacroDefinition &, SourceRange, const MacroArgs *) override {
    llvm::StringRef macro = name.getIdentifierInfo()->getName();
    used |= macro == "__DATE__" || macro == "__TIME__" || macro == "__TIMESTAMP__";
  }

private:
  bool &used;
};

// Notices what a source looks at that tells it the level of optimisation: macros, and what was compiled before.
class LevelSigns final : public PPCallbacks {
public:
  LevelSigns(Preprocessor &preprocessor, uint8_t &seen) : preprocessor(preprocessor), seen(seen) {}
  void MacroExpands(const Token &name, const MacroDefinition &, SourceRange, const MacroArgs *) override { note(name); }
  void Defined(const Token &name, const MacroDefinition &, SourceRange) override { note(name); }
  void Ifdef(SourceLocation, const Token &name, const MacroDefinition &) override { note(name); }
  void Ifndef(SourceLocation, const Token &name, const MacroDefinition &) override { note(name); }
  void Elifdef(SourceLocation, const Token &name, const MacroDefinition &) override { note(name); }
  void Elifndef(SourceLocation, const Token &name, const MacroDefinition &) override { note(name); }
  void EndOfMainFile() override {
    // Nobody is told of `#if NAME` where it is not defined; but then nothing but the source has made the name known.
    auto &known = preprocessor.getIdentifierTable();
    for (llvm::StringRef name : {"__OPTIMIZE__", "__OPTIMIZE_SIZE__", "__NO_INLINE__"})
      if (auto found = known.find(name); found != known.end() && !predefined(found->second))
        seen |= bit(name);
    if (preprocessor.getExternalSource())
      seen |= PRECOMPILED;
  }

private:
  enum : uint8_t { OPTIMIZE = 1, OPTIMIZE_SIZE = 2, NO_INLINE = 4, PRECOMPILED = 8 };
  static uint8_t bit(llvm::StringRef name) {
    return llvm::StringSwitch<uint8_t>(name)
        .Case("__OPTIMIZE__", OPTIMIZE)
        .Case("__OPTIMIZE_SIZE__", OPTIMIZE_SIZE)
        .Case("__NO_INLINE__", NO_INLINE)
        .Default(0);
  }
  void note(const Token &token) {
    if (const IdentifierInfo *name = token.getIdentifierInfo())
      seen |= bit(name->getName());
  }
  // Whether clang itself has defined it, before any source or flag.
  bool predefined(const IdentifierInfo *name) const {
    const MacroDirective *first = preprocessor.getLocalMacroDirectiveHistory(name);
    while (first && first->getPrevious())
      first = first->getPrevious();
    return first && preprocessor.getSourceManager().isWrittenInBuiltinFile(first->getLocation());
  }

  Preprocessor &preprocessor;
  uint8_t &seen;
};

// Comes before the code generator and takes the time when it starts.
class Mark final : public ASTConsumer {
public:
  explicit Mark(Clock::time_point &parsed) : parsed(parsed) {}
  void HandleTranslationUnit(ASTContext &) override { parsed = Clock::now(); }

private:
  Clock::time_point &parsed;
};

class ObjectAction final : public CodeGenAction {
public:
  ObjectAction(hb_object &object, Clock::time_point &parsed, bool bitcode)
      : CodeGenAction(bitcode ? Backend_EmitBC : Backend_EmitObj), object(object), parsed(parsed) {}

protected:
  // What the end of a run would free now.
  void EndSourceFileAction() override {
    CodeGenAction::EndSourceFileAction();
    CompilerInstance &compiler = getCompilerInstance();
    tree = compiler.getASTContextPtr();
    sema = compiler.takeSema();
    consumer = compiler.takeASTConsumer();
  }

  std::unique_ptr<ASTConsumer> CreateASTConsumer(CompilerInstance &compiler, llvm::StringRef file) override {
    Preprocessor &preprocessor = compiler.getPreprocessor();
    preprocessor.addPPCallbacks(std::make_unique<TimeMacros>(object.differs_each_time));
    preprocessor.addPPCallbacks(std::make_unique<LevelSigns>(preprocessor, object.level_signs));
    // Files that the assembler includes are opened where nobody sees it. Texts that only look so cost a compilation.
    preprocessor.setTokenWatcher([&object = object](const Token &token) {
      if (token.is(tok::string_literal) && token.getLiteralData())
        object.differs_each_time |= hotbed::reads_files({token.getLiteralData(), token.getLength()});
    });
    auto generator = CodeGenAction::CreateASTConsumer(compiler, file);
    if (!generator)
      return nullptr;
    std::vector<std::unique_ptr<ASTConsumer>> consumers;
    consumers.push_back(std::make_unique<Mark>(parsed));
    consumers.push_back(std::move(generator));
    return std::make_unique<MultiplexConsumer>(std::move(consumers));
  }

private:
  hb_object &object;
  Clock::time_point &parsed;
  // The consumer refers to the tree, and what analyses it to both: they go in this order from below.
  llvm::IntrusiveRefCntPtr<ASTContext> tree;
  std::unique_ptr<ASTConsumer> consumer;
  std::unique_ptr<Sema> sema;
};

// What a run leaves behind. The action goes first. What both refer to besides (object, messages, the texts of files in memory)
// may be gone by then: no destructor looks at it.
struct Rest {
  explicit Rest(std::shared_ptr<CompilerInvocation> invocation) : compiler(std::move(invocation)) {}

  CompilerInstance compiler;
  std::optional<ObjectAction> action;
};

// Takes what the front end would write to disk: the object.
class OutputToMemory final : public llvm::vfs::OutputBackend {
public:
  explicit OutputToMemory(llvm::SmallVectorImpl<char> &bytes) : bytes(bytes) {}

protected:
  class File final : public llvm::vfs::OutputFileImpl {
  public:
    explicit File(llvm::SmallVectorImpl<char> &bytes) : stream(bytes) {}
    llvm::Error keep() override { return llvm::Error::success(); }
    llvm::Error discard() override { return llvm::Error::success(); }
    llvm::raw_pwrite_stream &getOS() override { return stream; }

  private:
    llvm::raw_svector_ostream stream;
  };

  llvm::IntrusiveRefCntPtr<OutputBackend> cloneImpl() const override {
    return llvm::makeIntrusiveRefCnt<OutputToMemory>(bytes);
  }

  llvm::Expected<std::unique_ptr<llvm::vfs::OutputFileImpl>>
  createFileImpl(llvm::StringRef, std::optional<llvm::vfs::OutputConfig>) override {
    bytes.clear();
    return std::make_unique<File>(bytes);
  }

private:
  llvm::SmallVectorImpl<char> &bytes;
};

void run(hb_files *files, llvm::ArrayRef<const char *> arguments, bool bitcode, bool color, hb_messages &messages,
         hb_choose choose, void *data, hb_object &object) {
  auto start = Clock::now(), parsed = start;
  auto invocation = std::make_shared<CompilerInvocation>();
  DiagnosticOptions early;
  early.ShowColors = color;
  {
    hotbed::Collector collector(messages, early, color);
    DiagnosticsEngine engine(DiagnosticIDs::create(), early, &collector, false);
    if (!CompilerInvocation::CreateFromArgs(*invocation, arguments, engine, "clang")) {
      messages.failed = true;
      return;
    }
  }
  // The driver lets a front end that is a process of its own leave its memory to the system; here it is given back, if by
  // somebody else (hb_object_take_rest).
  invocation->getFrontendOpts().DisableFree = false;
  invocation->getCodeGenOpts().DisableFree = false;
  // The module as the front end leaves it: its pieces go through the passes one by one.
  invocation->getCodeGenOpts().DisableLLVMPasses |= bitcode;
  // Whoever reads it says whether that is to be done.
  invocation->getCodeGenOpts().VerifyModule &= !bitcode;
  auto &llvm_arguments = invocation->getFrontendOpts().LLVMArgs;
  if (!llvm_arguments.empty()) {
    std::vector<const char *> list{"clang (LLVM option parsing)"};
    for (auto &argument : llvm_arguments)
      list.push_back(argument.c_str());
    std::string complaint;
    llvm::raw_string_ostream out(complaint);
    bool understood = llvm::cl::ParseCommandLineOptions(list.size(), list.data(), "", &out);
    if (!understood) {
      messages.failed = true;
      messages.list.push_back({3, 0, 0, "", complaint});
      messages.rendered += complaint;
      return;
    }
  }
  // What is for LLVM's whole process may be about anything.
  if (choose && !bitcode && llvm_arguments.empty())
    hotbed::choose_functions(*invocation, choose, data);
  auto rest = std::make_shared<Rest>(invocation);
  CompilerInstance &compiler = rest->compiler;
  compiler.setVirtualFileSystem(files->system);
  hotbed::Collector collector(messages, compiler.getDiagnosticOpts(), color);
  compiler.createDiagnostics(&collector, /*ShouldOwnClient=*/false);
  compiler.setVerboseOutputStream(collector.out());
  compiler.createFileManager();
  compiler.setOutputManager(llvm::makeIntrusiveRefCnt<OutputToMemory>(object.bytes));
  bool ok = compiler.ExecuteAction(rest->action.emplace(object, parsed, bitcode));
  collector.out().flush();
  messages.failed |= !ok || compiler.getDiagnostics().hasErrorOccurred();
  object.frontend_ms = std::chrono::duration<double, std::milli>(parsed - start).count();
  object.codegen_ms = since(parsed);
  object.rest = std::move(rest);
  if (!llvm_arguments.empty())
    llvm::cl::ResetAllOptionOccurrences();
}

} // namespace

extern "C" {

// Runs the front end with `arguments` (those of a job, after -cc1) and returns the object, or with `bitcode` the module before
// any pass; null after an error, which is in `messages`. Arguments that contain -mllvm change LLVM for the whole process while it runs: the caller lets no other
// run go on beside such a one. Otherwise any thread. If `choose` is not null it is asked, at most once and with `data`, which
// functions need no code: these are undefined in the object (reuse.h). Owned, hb_object_free.
hb_object *hb_compile(hb_files *files, const hb_slice *arguments, size_t count, bool bitcode, bool color,
                      hb_messages *messages, hb_choose choose, void *data) {
  auto object = std::make_unique<hb_object>();
  std::vector<std::string> owned;
  for (size_t i = 0; i < count; i++)
    owned.push_back(text(arguments[i]).str());
  std::vector<const char *> pointers;
  for (auto &argument : owned)
    pointers.push_back(argument.c_str());
  std::string reason;
  if (!hotbed::guarded([&] { run(files, pointers, bitcode, color, *messages, choose, data, *object); }, reason)) {
    messages->failed = true;
    messages->list.push_back({3, 0, 0, "", "error in the back end: " + reason});
    messages->rendered += "error: error in the back end: " + reason + "\n";
    // What the interrupted run still refers to must not be freed under it.
    (void)object.release();
    return nullptr;
  }
  return messages->failed ? nullptr : object.release();
}

// An object with a copy of these bytes, for what needs no run. Owned, hb_object_free.
hb_object *hb_object_of(hb_slice bytes) {
  auto object = std::make_unique<hb_object>();
  object->bytes.assign(bytes.data, bytes.data + bytes.size);
  return object.release();
}

void hb_object_free(hb_object *object) { delete object; }

// Borrowed from `object`.
hb_slice hb_object_bytes(const hb_object *object) { return {object->bytes.data(), object->bytes.size()}; }

// What the run left behind and nobody needs; null when it is taken already. Any thread may free it, which takes a while, at any
// time. Owned, hb_rest_free.
hb_rest *hb_object_take_rest(hb_object *object) {
  return object->rest ? new hb_rest{std::move(object->rest)} : nullptr;
}

void hb_rest_free(hb_rest *rest) {
  std::string reason;
  // What cannot be freed is leaked.
  (void)hotbed::guarded([&] { delete rest; }, reason);
  if (hotbed::give_back_memory)
    hotbed::give_back_memory();
}

// Whether __DATE__, __TIME__ or __TIMESTAMP__ was used, or the assembler was told to read files.
bool hb_object_differs_each_time(const hb_object *object) { return object->differs_each_time; }

// A bit for each thing that the source looked at and that is not the same at each level of optimisation.
uint8_t hb_object_level_signs(const hb_object *object) { return object->level_signs; }

double hb_object_frontend_ms(const hb_object *object) { return object->frontend_ms; }

double hb_object_codegen_ms(const hb_object *object) { return object->codegen_ms; }
}
