// clang's driver: what a command line means, as the list of jobs that clang would run.
#include "diagnostics.h"

#include "clang/Basic/DiagnosticIDs.h"
#include "clang/Driver/Compilation.h"
#include "clang/Driver/Driver.h"
#include "clang/Driver/Job.h"
#include "clang/Driver/Tool.h"
#include "llvm/TargetParser/Host.h"

using namespace clang;
using hotbed::slice;
using hotbed::text;

// The jobs of one command line.
struct hb_jobs {
  struct Job {
    uint8_t kind;
    std::vector<std::string> arguments;
  };
  std::vector<Job> list;
};

extern "C" {

// Works out the jobs for `arguments` (without the program's name). `clang` is the path the driver takes itself to lie
// at; `color` says how `messages` are rendered. Null when clang's driver reports an error (then in `messages`) or gives
// up (then `messages` is as it was). Owned, hb_jobs_free; any thread.
hb_jobs *hb_jobs_new(hb_files *files, hb_slice clang, const hb_slice *arguments, size_t count, bool color,
                     hb_messages *messages) {
  auto jobs = std::make_unique<hb_jobs>();
  std::string reason;
  bool done = hotbed::guarded(
      [&] {
        DiagnosticOptions options;
        options.ShowColors = color;
        hotbed::Collector collector(*messages, options, color);
        DiagnosticsEngine engine(DiagnosticIDs::create(), options, &collector, /*ShouldOwnClient=*/false);
        driver::Driver driver(text(clang), llvm::sys::getDefaultTargetTriple(), engine, "clang LLVM compiler",
                              files->system);
        driver.setCheckInputsExist(false);
        driver.setProbePrecompiled(true);
        std::vector<std::string> owned{text(clang).str()};
        for (size_t i = 0; i < count; i++)
          owned.push_back(text(arguments[i]).str());
        std::vector<const char *> pointers;
        for (auto &argument : owned)
          pointers.push_back(argument.c_str());
        std::unique_ptr<driver::Compilation> compilation(driver.BuildCompilation(pointers));
        if (!compilation || engine.hasErrorOccurred()) {
          messages->failed = true;
          return;
        }
        for (auto &command : compilation->getJobs()) {
          hb_jobs::Job job;
          auto &arguments = command.getArguments();
          llvm::StringRef first = arguments.empty() ? "" : arguments[0];
          job.kind = first == "-cc1" ? 0 : command.getCreator().isLinkJob() ? 1 : 2;
          for (const char *argument : arguments)
            job.arguments.push_back(argument);
          jobs->list.push_back(std::move(job));
        }
      },
      reason);
  if (!done) {
    messages->failed = true;
    messages->list.push_back({3, 0, 0, "", reason});
    messages->rendered += "error: " + reason + "\n";
  }
  return messages->failed ? nullptr : jobs.release();
}

void hb_jobs_free(hb_jobs *jobs) { delete jobs; }

size_t hb_jobs_count(const hb_jobs *jobs) { return jobs->list.size(); }

// 0 a run of the front end (its first argument is -cc1), 1 a link, 2 anything else.
uint8_t hb_job_kind(const hb_jobs *jobs, size_t job) { return jobs->list[job].kind; }

size_t hb_job_arguments(const hb_jobs *jobs, size_t job) { return jobs->list[job].arguments.size(); }

// Borrowed from `jobs`.
hb_slice hb_job_argument(const hb_jobs *jobs, size_t job, size_t i) { return slice(jobs->list[job].arguments[i]); }
}
