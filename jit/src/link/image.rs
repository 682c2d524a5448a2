//! One link: inputs in, a sealed image in an in-memory file out.

use super::check::ObjectFacts;
use super::libraries::Libgcc;
use super::line::{LinePiece, Wishes, line, read_dependencies};
use super::lld;
use super::own_object::own_object;
use crate::frontend::Place;
use hotbed_loader::boundary::{Failure, FailureKind};
use hotbed_loader::image::note::{self, Metadata};
use hotbed_loader::sys::files::{contents, memory_file};
use std::borrow::Cow;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A piece of the linker's part of the command line.
pub(crate) enum LinkInput<'a> {
    /// A flag of the driver.
    Flag(&'a str),
    /// A file on disk.
    File {
        /// Its path, as the user gave it.
        path: Cow<'a, str>,
        /// What the checks found.
        facts: ObjectFacts,
        /// It is an archive.
        archive: bool,
    },
    /// Bytes in memory.
    Bytes {
        /// What messages call it.
        name: Cow<'a, str>,
        /// The object or archive.
        bytes: Cow<'a, [u8]>,
        /// What the checks found.
        facts: ObjectFacts,
        /// It is an archive.
        archive: bool,
    },
}

/// What is asked of a link beside its inputs.
pub(crate) struct LinkWishes<'a> {
    /// Name of the unit.
    pub(crate) unit: &'a str,
    /// The C++ run-time library is wanted whatever the objects refer to.
    pub(crate) cpp: bool,
    /// Symbol to take out of archives.
    pub(crate) entry: Option<&'a str>,
    /// Take archives whole.
    pub(crate) whole_archives: bool,
    /// Base of relative paths, and the environment.
    pub(crate) place: &'a Place<'a>,
    /// What the image says about itself.
    pub(crate) metadata: &'a Metadata,
}

/// An image and what its link depended on.
pub(crate) struct LinkedImage {
    /// The image, in memory.
    pub(crate) file: OwnedFd,
    /// Files that were read.
    pub(crate) read: Vec<PathBuf>,
    /// Places where a library was looked for in vain.
    pub(crate) missing: Vec<PathBuf>,
    /// What the driver read (0), looked for in vain (1), listed (2).
    pub(crate) seen: Vec<(Vec<u8>, u8)>,
    /// lld's warnings.
    pub(crate) warnings: String,
    /// The line, for `--verbose`.
    pub(crate) log: Vec<String>,
}

/// Links the inputs.
///
/// # Errors
/// Link when lld refuses or a `thread_local` is reached in a way that an image cannot have.
pub(crate) fn link_image(inputs: &[LinkInput<'_>], wishes: &LinkWishes<'_>) -> Result<LinkedImage, Failure> {
    check_thread_locals(inputs, wishes.unit)?;
    let internal = |what: &str| {
        let what = format!("cannot link {}: {what}: ", wishes.unit);
        move |error: std::io::Error| Failure::new(FailureKind::Internal, format!("{what}{error}"))
    };
    let mut held = Vec::new();
    let mut names = Vec::new();
    let mut pieces = Vec::new();
    let mut cpp = wishes.cpp;
    let mut libgcc = Libgcc::Needless;
    for input in inputs {
        let (path, archive, facts) = match input {
            LinkInput::Flag(flag) => {
                if flag.starts_with("-l") || flag.starts_with("-W") || flag.starts_with("-X") {
                    libgcc = Libgcc::Wanted;
                }
                pieces.push(LinePiece::Flag((*flag).to_owned()));
                continue;
            }
            LinkInput::File { path, facts, archive } => (path.to_string(), *archive, facts),
            LinkInput::Bytes { name, bytes, facts, archive } => {
                let (file, path) = in_memory(bytes).map_err(internal("no memory for an input"))?;
                held.push(file);
                names.push((path.clone(), name.to_string()));
                (path, *archive, facts)
            }
        };
        cpp |= facts.cpp;
        if facts.libgcc || archive {
            libgcc = Libgcc::Wanted;
        }
        let whole = archive && wishes.whole_archives;
        if whole {
            pieces.push(LinePiece::Flag("-Wl,--whole-archive".to_owned()));
        }
        // A name that begins like a flag is still a file.
        pieces.push(LinePiece::File(if path.starts_with('-') { format!("./{path}") } else { path }));
        if whole {
            pieces.push(LinePiece::Flag("-Wl,--no-whole-archive".to_owned()));
        }
    }
    let own = own_object(wishes.metadata).map_err(|error| {
        Failure::new(FailureKind::Internal, format!("cannot link {}: {error}", wishes.unit))
    })?;
    let (_own_file, own_path) = in_memory(&own).map_err(internal("no memory for the note"))?;
    let (dependency_file, dependency_path) =
        in_memory(&[]).map_err(internal("no memory for dependencies"))?;
    let (image, image_path) = in_memory(&[]).map_err(internal("no memory for the image"))?;
    names.push((image_path.clone(), wishes.unit.to_owned()));
    names.push((own_path.clone(), "the note of the image".to_owned()));

    let soname =
        Path::new(wishes.unit).file_name().map_or_else(|| wishes.unit.into(), |name| name.to_string_lossy());
    let mut line = line(
        &Wishes {
            inputs: pieces,
            cpp,
            libgcc: if cpp { Libgcc::Wanted } else { libgcc },
            soname: &soname,
            entry: wishes.entry,
            output: &image_path,
            dependencies: &dependency_path,
            own_object: &own_path,
        },
        wishes.place,
    )?;
    let mut log = vec![shown(&line.arguments, &names)];
    let mut outcome = lld::run(&line.arguments, &names);
    if !outcome.ok && outcome.messages.contains("recompile with -fPIC") {
        // Objects made for an executable reach their own inline variables directly. Bound to itself altogether the image
        // is right by itself, though it no longer shares them with other units.
        line.arguments.insert(0, "-Bsymbolic".into());
        line.arguments.retain(|argument| argument != "-Bsymbolic-non-weak");
        let again = lld::run(&line.arguments, &names);
        if again.ok {
            log.push(shown(&line.arguments, &names));
            log.push(format!(
                "{} has objects that were not compiled with -fPIC: its inline variables and functions are its own",
                wishes.unit
            ));
            outcome = again;
        }
    }
    if !outcome.ok {
        let reason = lld::first_error(&outcome.messages);
        return Err(Failure {
            rendered: outcome.messages + "\n",
            log,
            ..Failure::new(FailureKind::Link, format!("cannot link {}: {reason}", wishes.unit))
        });
    }
    let image = File::from(image);
    seal(&image).map_err(internal("sealing the image"))?;
    let dependencies = contents(dependency_file.as_fd()).map_err(internal("reading dependencies"))?;
    Ok(LinkedImage {
        file: image.into(),
        read: read_dependencies(&String::from_utf8_lossy(&dependencies)),
        missing: line.missing,
        seen: line.seen,
        warnings: outcome.messages,
        log,
    })
}

/// The initial-exec model wants a place in the static thread-local block, which a loaded image does not get.
fn check_thread_locals(inputs: &[LinkInput<'_>], unit: &str) -> Result<(), Failure> {
    let all: Vec<(&str, &ObjectFacts)> = inputs
        .iter()
        .filter_map(|input| match input {
            LinkInput::Flag(_) => None,
            LinkInput::File { path: name, facts, .. } | LinkInput::Bytes { name, facts, .. } => {
                Some((name.as_ref(), facts))
            }
        })
        .collect();
    for (name, facts) in &all {
        let own = |variable: &&Vec<u8>| all.iter().any(|(_, f)| f.thread_locals.contains(variable));
        if let Some(variable) = facts.initial_exec.iter().find(own) {
            return Err(Failure::new(
                FailureKind::Link,
                format!(
                    "cannot link {unit}: {name} reaches the thread_local '{}' by the initial-exec model; \
                     recompile with -fPIC and without -ftls-model",
                    String::from_utf8_lossy(variable)
                ),
            ));
        }
    }
    Ok(())
}

fn seal(image: &File) -> std::io::Result<()> {
    let mut bytes = contents(image.as_fd())?;
    let before = note::checksum_range(&bytes).map_err(std::io::Error::other)?;
    note::seal(&mut bytes).map_err(std::io::Error::other)?;
    image.write_all_at(&bytes[before.clone()], before.start as u64)
}

/// A file in memory with these bytes, and the path under which lld can open it.
fn in_memory(bytes: &[u8]) -> std::io::Result<(OwnedFd, String)> {
    let mut file = File::from(memory_file("hotbed")?);
    file.write_all(bytes)?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok((file.into(), path))
}

fn shown(arguments: &[String], names: &[(String, String)]) -> String {
    lld::readable(&format!("ld.lld {}", crate::frontend::shown(arguments)), names)
}
