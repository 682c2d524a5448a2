//! What loading a unit, or building an image, came to.

use hotbed_loader::boundary::{Counts, Diagnostic, Phases, Reply};
use hotbed_loader::image::LoadTimes;
use hotbed_loader::store::Miss;

/// What was done, how long it took and what the compiler said.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Report {
    /// How much was compiled; all zero when the store had it.
    pub counts: Counts,
    /// Time spent in the back end.
    pub phases: Phases,
    /// Time spent in the loader.
    pub times: LoadTimes,
    /// Whether the image came from the store.
    pub from_store: bool,
    /// Whether a back end was used, which means that LLVM was loaded, in this process or in a worker.
    pub back_end_loaded: bool,
    /// Why the store did not serve; nothing when it did or was not asked.
    pub miss: Option<Miss>,
    /// The compiler's warnings and notes.
    pub diagnostics: Vec<Diagnostic>,
    /// The same as the compiler prints them.
    pub rendered: String,
    /// What the back end did, a line each.
    pub log: Vec<String>,
}

impl Report {
    /// Adds what was done once more for the same unit.
    pub(crate) fn add(&mut self, more: Self) {
        self.counts.units_compiled += more.counts.units_compiled;
        self.counts.functions_compiled += more.counts.functions_compiled;
        self.counts.functions_reused += more.counts.functions_reused;
        self.counts.images_linked += more.counts.images_linked;
        self.phases.frontend_ms += more.phases.frontend_ms;
        self.phases.codegen_ms += more.phases.codegen_ms;
        self.phases.link_ms += more.phases.link_ms;
        self.back_end_loaded |= more.back_end_loaded;
        self.log.extend(more.log);
    }

    /// Adds another variant of the same image; what was said of one before is not said again.
    pub(crate) fn add_variant(&mut self, mut more: Self) {
        self.from_store &= more.from_store;
        self.miss = self.miss.take().or(more.miss.take());
        more.diagnostics.retain(|diagnostic| !self.diagnostics.contains(diagnostic));
        if !more.diagnostics.is_empty() || (self.rendered.is_empty() && self.diagnostics.is_empty()) {
            self.rendered += &more.rendered;
        }
        self.diagnostics.append(&mut more.diagnostics);
        self.add(more);
    }

    /// Takes over what a back end says; its dependencies stay.
    pub(crate) fn absorb(&mut self, reply: &mut Reply) {
        self.back_end_loaded = true;
        self.counts = reply.counts;
        self.phases = reply.phases;
        self.diagnostics = std::mem::take(&mut reply.diagnostics);
        self.rendered = std::mem::take(&mut reply.rendered);
        self.log = std::mem::take(&mut reply.log);
    }
}
