//! One link: inputs in, a sealed image in an in-memory file out.

use super::bundle::{FEW, bundle};
use super::check::ObjectFacts;
use super::constants;
use super::dependencies::{remembered, stub_of};
use super::identity::identities;
use super::libraries::Libgcc;
use super::line::{LinePiece, Wishes, is_plain, line, read_dependencies};
use super::lld;
use super::memory::MemoryFiles;
use super::order;
use super::own_object::{own_object, registers_ends};
use super::reduce::{Piece, reduce};
use super::seal::seal;
use super::shape::{Shape, is_foreign_archive, is_small, most_imports};
use super::startup;
use super::zeros;
use crate::frontend::Place;
use hotbed_loader::boundary::{Failure, FailureKind};
use hotbed_loader::cpu::CpuFeatures;
use hotbed_loader::image::{Identities, ImageInterface, Metadata};
use hotbed_loader::sys::files::contents;
use std::borrow::Cow;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// How the linker is told to export everything; clang's driver says it for `-rdynamic`.
const EXPORT_EVERYTHING: [&str; 3] = ["-export-dynamic", "--export-dynamic", "-E"];

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
    /// `SONAME`, unless it is the unit's name.
    pub(crate) soname: Option<&'a str>,
    /// Take archives whole.
    pub(crate) whole_archives: bool,
    /// Base of relative paths, and the environment.
    pub(crate) place: &'a Place<'a>,
    /// Images that it is linked against.
    pub(crate) images: &'a [ImageInterface],
    /// It has functions that are compiled later.
    pub(crate) lazy: bool,
    /// Functions come in an order ([`with_order`](super::with_order)).
    pub(crate) ordered: bool,
    /// What the image says about itself.
    pub(crate) metadata: &'a Metadata,
    /// What its code needs of the processor.
    pub(crate) requires: CpuFeatures,
}

/// An image and what its link depended on.
pub(crate) struct LinkedImage {
    /// The image, in memory.
    pub(crate) file: OwnedFd,
    /// What it was sealed with.
    pub(crate) checksum: [u8; 32],
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
    let mut files = MemoryFiles::default();
    let mut pieces = Vec::new();
    let mut cpp = wishes.cpp;
    // Whether it is known what the libraries are asked for.
    let mut plain = !wishes.whole_archives;
    let mut libgcc = Libgcc::Needless;
    let mut undefined: Vec<&[u8]> = Vec::new();
    for inputs in inputs.chunk_by(of_one_source) {
        for input in inputs {
            let Some((facts, archive)) = facts_of(input) else { continue };
            cpp |= facts.cpp;
            undefined.extend(facts.undefined.iter().map(Vec::as_slice));
            if archive
                || facts.undefined.iter().any(|name| name.starts_with(b"__") || name.starts_with(b"_Unwind"))
            {
                libgcc = Libgcc::Wanted;
            }
        }
        if inputs.len() > FEW {
            let (name, objects): (Vec<_>, Vec<_>) = inputs.iter().filter_map(in_memory).unzip();
            let name = name.first().copied().unwrap_or_default();
            let path = files.add(&bundle(&objects), name).map_err(internal("no memory for objects"))?;
            push_file(&mut pieces, path, true);
            continue;
        }
        for input in inputs {
            let (path, archive) = match input {
                LinkInput::Flag(flag) => {
                    plain &= is_plain(flag);
                    if !is_plain(flag) || flag.starts_with("-l") {
                        libgcc = Libgcc::Wanted;
                    }
                    pieces.push(LinePiece::Flag((*flag).to_owned()));
                    continue;
                }
                LinkInput::File { path, archive, .. } => (path.to_string(), *archive),
                LinkInput::Bytes { name, bytes, archive, .. } => {
                    let path = files.add(bytes, name).map_err(internal("no memory for an input"))?;
                    (path, *archive)
                }
            };
            push_file(&mut pieces, path, archive && wishes.whole_archives);
        }
    }
    let defect = |error: object::write::Error| {
        Failure::new(FailureKind::Internal, format!("cannot link {}: {error}", wishes.unit))
    };
    let dependencies = remembered(wishes.images, undefined.iter().copied());
    let shared =
        facts(inputs).flat_map(|(facts, archive)| facts.shared.iter().map(move |one| (one, archive)));
    let identities = Identities::new(identities(shared, wishes.unit));
    let ends = undefined.iter().any(|name| registers_ends(name));
    // What is in it depends on the line that it is in.
    let own_path = files.add(&[], "the note of the image").map_err(internal("no memory for the note"))?;
    let startup_paths = if needs_startup(inputs) {
        let add = |bytes: Vec<u8>| files.add(&bytes, "the start files of the image");
        let [first, last] = startup::objects().map_err(defect)?.map(add);
        let failed = internal("no memory for the start files");
        Some([first.map_err(&failed)?, last.map_err(&failed)?])
    } else {
        None
    };
    let stubs = wishes.images.iter().map(|image| files.add(&stub_of(image), &image.name));
    let stubs: Vec<String> =
        stubs.collect::<Result<_, _>>().map_err(internal("no memory for an image's stub"))?;
    let dependency_path =
        files.add(&[], "the list of dependencies").map_err(internal("no memory for dependencies"))?;
    let image_path = files.add(&[], wishes.unit).map_err(internal("no memory for the image"))?;

    let last_part = Path::new(wishes.unit).file_name();
    let soname = wishes.soname.map_or_else(
        || last_part.map_or_else(|| wishes.unit.into(), |name| name.to_string_lossy()),
        Cow::Borrowed,
    );
    let line = line(
        &Wishes {
            inputs: pieces,
            cpp,
            libgcc: if cpp { Libgcc::Wanted } else { libgcc },
            soname: &soname,
            entry: wishes.entry,
            output: &image_path,
            dependencies: &dependency_path,
            own_object: &own_path,
            startup: startup_paths.as_ref().map(|[first, last]| [first.as_str(), last.as_str()]),
            images: &stubs,
        },
        wishes.place,
    )?;
    let mut libraries = line.settled.arguments.iter().filter_map(|(_, found)| found.as_deref());
    let known = plain && !libraries.any(is_foreign_archive);
    let small = known
        && facts(inputs).all(|(_, archive)| !archive)
        && is_small(facts(inputs).map(|(facts, _)| facts));
    let mut read = Vec::new();
    let mut shape = Shape::new(wishes.metadata, allocated(inputs), small, wishes.lazy);
    shape.settled = known && !shape.arena && constants::are_settled(facts(inputs).map(|(facts, _)| facts));
    let few_zeros = known && !shape.arena && zeros::are_few(facts(inputs).map(|(facts, _)| facts));
    let own =
        own_object(wishes.metadata, most_imports(facts(inputs)), &dependencies, &identities, ends, few_zeros)
            .map_err(defect)?;
    files.fill(&own_path, &own).map_err(internal("no memory for the note"))?;
    let mut script = String::new();
    if few_zeros {
        script += zeros::SCRIPT;
    }
    if shape.settled {
        script += &constants::script(ends || facts(inputs).any(|(facts, _)| facts.arrays));
    }
    if wishes.ordered {
        script += order::SCRIPT;
    }
    let mut arguments = shape.arguments();
    if !script.is_empty() {
        let path = files.add(script.as_bytes(), "the order of sections");
        arguments.push(path.map_err(internal("no memory for the order of sections"))?);
    }
    match plain.then(|| reduce(&line.settled, undefined.into_iter())).flatten() {
        Some(reduced) => {
            for piece in reduced.pieces {
                arguments.push(match piece {
                    Piece::Argument(argument) => argument,
                    Piece::Stub { bytes, path } => files
                        .add(&bytes, &path.to_string_lossy())
                        .map_err(internal("no memory for a library's stub"))?,
                });
            }
            read = reduced.read;
        }
        None => arguments.extend(line.settled.arguments.iter().map(|(argument, _)| argument.clone())),
    }
    let mut log = vec![shown(&arguments, &files.names)];
    let mut outcome = lld::run(&arguments, &files.names);
    if !outcome.ok && outcome.messages.contains("recompile with -fPIC") {
        // Objects made for an executable reach their own inline variables directly. Bound to itself altogether the image
        // is right by itself, though it no longer shares them with other units.
        arguments.insert(0, "-Bsymbolic".into());
        arguments.retain(|argument| argument != "-Bsymbolic-non-weak");
        let again = lld::run(&arguments, &files.names);
        if again.ok {
            log.push(shown(&arguments, &files.names));
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
    let file_of = |files: &mut MemoryFiles, path: &str| {
        files.take(path).ok_or_else(|| std::io::Error::other("the linker's output is gone"))
    };
    let mut image = file_of(&mut files, &image_path).map_err(internal("reading the image"))?;
    let exports = arguments.iter().any(|argument| EXPORT_EVERYTHING.contains(&argument.as_str()));
    let checksum =
        seal(&mut image, exports, wishes.requires, shape.settled).map_err(internal("sealing the image"))?;
    let dependencies = file_of(&mut files, &dependency_path)
        .and_then(|file| contents(file.as_fd()))
        .map_err(internal("reading dependencies"))?;
    read.extend(read_dependencies(&String::from_utf8_lossy(&dependencies)));
    Ok(LinkedImage {
        file: image.into(),
        checksum,
        read,
        missing: line.settled.missing,
        seen: line.seen,
        warnings: outcome.messages,
        log,
    })
}

/// Bytes that the sections of the objects take in memory.
fn allocated(inputs: &[LinkInput<'_>]) -> u64 {
    facts(inputs).fold(0, |sum, (facts, _)| sum.saturating_add(facts.allocated))
}

/// Whether there are pieces of `.init` or `.fini`, and nobody who makes functions of them.
fn needs_startup(inputs: &[LinkInput<'_>]) -> bool {
    let own = [object::elf::gnu_hash(b"_init"), object::elf::gnu_hash(b"_fini")];
    facts(inputs).any(|(facts, _)| facts.startup)
        && !facts(inputs)
            .any(|(facts, archive)| !archive && facts.defined.iter().any(|hash| own.contains(hash)))
}

/// What the checks of objects and archives found, and which are archives.
fn facts<'a>(inputs: &'a [LinkInput<'_>]) -> impl Iterator<Item = (&'a ObjectFacts, bool)> + Clone {
    inputs.iter().filter_map(facts_of)
}

fn facts_of<'a>(input: &'a LinkInput<'_>) -> Option<(&'a ObjectFacts, bool)> {
    match input {
        LinkInput::Flag(_) => None,
        LinkInput::File { facts, archive, .. } | LinkInput::Bytes { facts, archive, .. } => {
            Some((facts, *archive))
        }
    }
}

/// The name and the bytes of an object in memory.
fn in_memory<'a>(input: &'a LinkInput<'_>) -> Option<(&'a str, &'a [u8])> {
    match input {
        LinkInput::Bytes { name, bytes, archive: false, .. } => Some((name, bytes)),
        _ => None,
    }
}

/// Whether both are objects in memory that were made of one source.
fn of_one_source(left: &LinkInput<'_>, right: &LinkInput<'_>) -> bool {
    in_memory(left).zip(in_memory(right)).is_some_and(|((left, _), (right, _))| left == right)
}

/// A file of the line, which is an archive that is taken whole.
fn push_file(pieces: &mut Vec<LinePiece>, path: String, whole: bool) {
    if whole {
        pieces.push(LinePiece::Flag("-Wl,--whole-archive".to_owned()));
    }
    // A name that begins like a flag is still a file.
    pieces.push(LinePiece::File(if path.starts_with('-') { format!("./{path}") } else { path }));
    if whole {
        pieces.push(LinePiece::Flag("-Wl,--no-whole-archive".to_owned()));
    }
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

fn shown(arguments: &[String], names: &[(String, String)]) -> String {
    lld::readable(&format!("ld.lld {}", crate::frontend::shown(arguments)), names)
}
