//! What debuggers, profilers and backtraces see of loaded code.
//!
//! The system's run-time linker knows nothing of images, so what others learn from it they are told here: names and
//! lines behind an address ([`Frame`]), gdb through its JIT interface (`gdb`), and perf through a dump of the code that
//! has no file (`jitdump`); images that have one perf finds by itself. All of it takes [`LoadedCode`], whatever the code
//! came from, and costs nothing when it is not asked for.

mod code;
mod dwarf;
mod error;
mod frames;
mod gdb;
mod jitdump;
mod lines;
mod symbols;
#[cfg(test)]
mod tests;

pub use code::{CodeFile, LoadedCode};
pub use error::DebugError;
pub use frames::Frame;
pub(crate) use frames::{in_body, in_image, in_process};

use crate::image::{Image, ImageSource};
use crate::sys::files;
use gdb::Gdb;
use jitdump::JitDump;
use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// Hears about what could not be shown to a tool, a line each; called from the threads that load.
pub type Note = Arc<dyn Fn(&str) + Send + Sync>;

/// Which tools are told about code that is loaded.
#[derive(Clone, Default)]
pub struct DebugOptions {
    /// gdb, through its JIT interface: every image before its constructors run, until it is unloaded.
    pub gdb: bool,
    /// perf: the folder for `jit-PID.dump`, which gets the code that has no file of its own.
    pub jitdump: Option<PathBuf>,
    /// Who hears what could not be shown.
    pub note: Option<Note>,
}

impl fmt::Debug for DebugOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { gdb, jitdump, note: _ } = self;
        f.debug_struct("DebugOptions").field("gdb", gdb).field("jitdump", jitdump).finish_non_exhaustive()
    }
}

/// The tools that one loader tells.
pub(crate) struct Tools {
    gdb: Option<Gdb>,
    jitdump: Option<JitDump>,
    note: Option<Note>,
}

/// What an image keeps for tools.
#[derive(Default)]
pub(crate) struct Told {
    /// The contents of one that has no file with a name, if they were kept.
    nameless: OnceLock<Option<Arc<[u8]>>>,
    code: OnceLock<Arc<LoadedCode>>,
    presence: OnceLock<Presence>,
}

/// Code that tools have been told about; dropped, they are told that it goes. To be dropped after the code's last
/// instruction has run and before its memory is given back.
pub(crate) struct Presence {
    tools: Arc<Tools>,
    code: Arc<LoadedCode>,
}

impl Tools {
    /// Nobody is told anything before code is loaded.
    pub(crate) fn new(options: &DebugOptions) -> Arc<Self> {
        let gdb = options.gdb.then(|| Gdb::new(options.note.clone()));
        let jitdump = options.jitdump.clone().map(JitDump::new);
        Arc::new(Self { gdb, jitdump, note: options.note.clone() })
    }

    /// Tells tools about images that were mapped from their sources and are about to be started.
    pub(crate) fn announce<'a>(
        self: &Arc<Self>,
        images: impl Iterator<Item = (&'a Image, ImageSource<'a>)> + Clone,
    ) {
        let wanted = self.gdb.is_some() || self.jitdump.is_some();
        for (image, source) in images.clone() {
            if !matches!(source, ImageSource::File(_)) {
                keep_nameless(image, source, wanted);
            }
        }
        if wanted {
            let codes: Vec<_> = images.clone().map(|(image, _)| Arc::clone(image.code())).collect();
            for ((image, _), presence) in images.zip(self.show(codes)) {
                let _ = image.told().presence.set(presence);
            }
        }
    }

    /// Tells tools about pieces of code, which are in their places and have not run yet, all at once.
    pub(crate) fn show(self: &Arc<Self>, codes: Vec<Arc<LoadedCode>>) -> Vec<Presence> {
        if let Some(gdb) = &self.gdb {
            gdb.add(codes.clone());
        }
        if let Some(jitdump) = &self.jitdump {
            for code in
                codes.iter().filter(|code| !matches!(code.file(), CodeFile::Path { mapped: true, .. }))
            {
                if let Err(error) = jitdump.add(code) {
                    self.note(&format!("perf is not told about {}: {error}", code.name()));
                }
            }
        }
        codes.into_iter().map(|code| Presence { tools: Arc::clone(self), code }).collect()
    }

    fn note(&self, line: &str) {
        if let Some(note) = &self.note {
            note(line);
        }
    }
}

/// Marks the end of the dumps for perf that runtimes of this process have written. For the end of a process that ends
/// without dropping its runtimes.
pub fn close_dumps() {
    jitdump::close_all();
}

impl Drop for Presence {
    fn drop(&mut self) {
        if let Some(gdb) = &self.tools.gdb {
            gdb.remove(&self.code);
        }
    }
}

/// Keeps the contents of what has no file with a name, if tools want them.
#[cold]
fn keep_nameless(image: &Image, source: ImageSource<'_>, wanted: bool) {
    let contents = match source {
        ImageSource::File(_) => return,
        ImageSource::Descriptor { file, .. } if files::has_name(file) => return,
        ImageSource::Descriptor { file, .. } => files::contents(file).ok().map(Cow::Owned),
        ImageSource::Bytes(bytes) => Some(Cow::Borrowed(bytes)),
    };
    let kept = contents.filter(|bytes| wanted || dwarf::is_in(bytes));
    let _ = image.told().nameless.set(kept.map(Arc::from));
}

impl Told {
    /// The image as tools take it.
    pub(crate) fn code(&self, image: &Image) -> &Arc<LoadedCode> {
        self.code.get_or_init(|| {
            let file = match (self.nameless.get(), image.path()) {
                (Some(Some(bytes)), _) => CodeFile::Bytes(Arc::clone(bytes)),
                (None, Some(path)) => CodeFile::Path {
                    path: path.to_owned(),
                    checksum: image.mapped().checksum(),
                    mapped: image.has_mappings(),
                },
                (Some(None), _) | (None, None) => CodeFile::Nowhere,
            };
            Arc::new(LoadedCode::new(image.name(), image.bias(), image.range(), file))
        })
    }
}
