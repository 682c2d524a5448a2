//! The linker's line: what clang's driver makes of the flags, and what makes the result an image.

use super::libraries::{Libgcc, Settled, settle_libraries};
use crate::frontend::{self, Piece, Place};
use crate::shim::JobKind;
use hotbed_loader::boundary::{Failure, FailureKind};
use std::path::PathBuf;

/// A line for lld, and the places where the driver and the linker look in vain.
pub(crate) struct Line {
    /// lld's arguments, with the libraries found.
    pub(crate) settled: Settled,
    /// What the driver read (0), looked for in vain (1), listed (2).
    pub(crate) seen: Vec<(Vec<u8>, u8)>,
}

/// A flag or a file.
pub(crate) enum LinePiece {
    /// A flag of the driver.
    Flag(String),
    /// The path of an object or archive.
    File(String),
}

/// What is particular to one link.
pub(crate) struct Wishes<'a> {
    /// Flags, objects and archives in the order of the command line.
    pub(crate) inputs: Vec<LinePiece>,
    /// The C++ run-time library is wanted.
    pub(crate) cpp: bool,
    /// Whether gcc's run-time library can be wanted.
    pub(crate) libgcc: Libgcc,
    /// `SONAME`.
    pub(crate) soname: &'a str,
    /// Symbol to take out of archives.
    pub(crate) entry: Option<&'a str>,
    /// Path of the image.
    pub(crate) output: &'a str,
    /// Path for the list of files that were read.
    pub(crate) dependencies: &'a str,
    /// Path of the object with the note.
    pub(crate) own_object: &'a str,
    /// Paths of the objects that stand in for start files.
    pub(crate) startup: Option<[&'a str; 2]>,
    /// Paths of the stubs of images that it is linked against.
    pub(crate) images: &'a [String],
}

/// Works out the line.
///
/// # Errors
/// Usage when clang's driver does not take the flags.
pub(crate) fn line(wishes: &Wishes<'_>, place: &Place<'_>) -> Result<Line, Failure> {
    let mut question = vec![
        Piece::Flag(if wishes.cpp { "--driver-mode=g++" } else { "--driver-mode=gcc" }),
        // The start files belong to executables and libraries of the system; what an image needs of them it has itself.
        Piece::Flag("-shared"),
        Piece::Flag("-nostartfiles"),
        Piece::Flag("-o"),
        Piece::Input(wishes.output),
    ];
    question.extend(wishes.inputs.iter().map(|input| match input {
        LinePiece::Flag(flag) => Piece::Flag(flag),
        LinePiece::File(path) => Piece::Input(path),
    }));
    let answer = frontend::ask(&question, place, false)?;
    let driver = answer.jobs.into_iter().find(|job| job.kind == JobKind::Link).map(|job| job.arguments);
    let driver = driver.ok_or_else(|| {
        Failure::new(FailureKind::Usage, "cannot link with these flags: they leave out the linker")
    })?;
    let mut arguments = implied(wishes);
    arguments.extend(wishes.startup.map(|[first, _]| first.to_owned()));
    // A host's own linker plugins and program interpreters are not for lld in this process.
    let mut skip = 0;
    for argument in driver {
        match argument.as_str() {
            _ if skip > 0 => skip -= 1,
            "-plugin" => skip = 1,
            "-dynamic-linker" => skip = 1,
            _ => arguments.push(argument),
        }
    }
    arguments.push(wishes.own_object.to_owned());
    arguments.extend(wishes.startup.map(|[_, last]| last.to_owned()));
    Ok(Line { settled: settle_libraries(arguments, place.directory, wishes.libgcc), seen: answer.seen })
}

/// Whether a flag of the driver leaves the linker's work as it usually is: no script, no option, no link-time optimisation
/// by which symbols may be wanted that no object names.
pub(crate) fn is_plain(flag: &str) -> bool {
    !["-Wl,", "-Xlinker", "-T", "-u", "-z", "-flto"].iter().any(|special| flag.starts_with(special))
}

/// What every image is linked with; the user's `-Wl` comes later and wins.
fn implied(wishes: &Wishes<'_>) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "--threads=1",
        // A sealed image binds its own strong definitions to itself; weak ones get one address in the process.
        "-Bsymbolic-non-weak",
        // Relative relocations in a few hundred bytes.
        "-z",
        "pack-relative-relocs",
        // The dynamic section is read where it lies, beside the other tables: as data it has a page that nobody else may
        // ever touch. Run-time linkers that know packed relocations (glibc 2.36) do not write to it either.
        "-z",
        "rodynamic",
        // One dense table of imported functions that the loader may fill as they are called.
        "-z",
        "lazy",
        "--build-id=fast",
        "--color-diagnostics=never",
        "-soname",
        wishes.soname,
    ]
    .map(str::to_owned)
    .into();
    arguments.push(format!("--dependency-file={}", wishes.dependencies));
    if !wishes.images.is_empty() {
        // For the system's own linker: images that belong together lie together.
        arguments.extend(["-rpath", "$ORIGIN"].map(str::to_owned));
        // In front of all libraries: whoever is linked against an image means that.
        arguments.extend_from_slice(wishes.images);
    }
    if let Some(entry) = wishes.entry {
        arguments.push(format!("--undefined={entry}"));
    }
    arguments
}

/// The paths in a dependency file as lld writes it, in the syntax of make, without the target.
pub(crate) fn read_dependencies(text: &str) -> Vec<PathBuf> {
    // The first rule is `target: \` and a path a line; phony rules without prerequisites follow.
    let rule = text.split("\n\n").next().unwrap_or_default();
    let unescape = |line: &str| line.replace("\\ ", " ").replace("\\#", "#").replace("$$", "$");
    rule.lines()
        .skip(1)
        .map(|line| line.trim_start().trim_end_matches(" \\").trim_end())
        .filter(|line| !line.is_empty() && !line.starts_with("/proc/self/fd/"))
        .map(|line| PathBuf::from(unescape(line)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_and_files_in_memory_left_out() {
        let text = "/proc/self/fd/4: \\\n  /proc/self/fd/5 \\\n  /usr/lib/a\\ b.so \\\n  /lib/libc.so.6\n\n/usr/lib/a\\ b.so:\n";
        assert_eq!(
            read_dependencies(text),
            [PathBuf::from("/usr/lib/a b.so"), PathBuf::from("/lib/libc.so.6")]
        );
    }
}
