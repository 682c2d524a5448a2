//! clang's driver: what the flags of a unit mean, as the list of jobs that clang would run.
//!
//! The driver is asked twice about the flags of a unit: with `-c`, for the runs of the front end, and with `-shared`,
//! for the linker's line. Both times it sees the user's flags as they are, so that they mean what they mean to clang;
//! only what an image needs is added.
//!
//! It spends about a millisecond looking for the gcc whose libraries it takes, and its answer depends on the flags and
//! the environment only. So it is asked about placeholders, the answers are kept, and the inputs' own names are put in.

use super::headers::{self, RESOURCES};
use super::messages::failure;
use crate::shim::{Files, Job, Messages};
use hotbed_loader::boundary::{Failure, FailureKind};
use hotbed_loader::sys::sync::Mutex;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};

/// Where clang's driver takes itself to lie: what it finds beside itself (libc++ when it is installed, configuration
/// files) is what the clang of this version would find.
const CLANG: &str = concat!(env!("HOTBED_LLVM_PREFIX"), "/bin/clang");

/// How many answers are kept; one is a few kilobytes.
const KEPT: usize = 64;

/// A question: the whole line, the working directory and the environment.
type Question = (Vec<String>, String, Vec<(String, String)>);

static ANSWERS: LazyLock<Mutex<HashMap<Question, Arc<Answer>>>> = LazyLock::new(Mutex::default);

/// What the driver said to one line.
pub(crate) struct Answer {
    /// The jobs.
    pub(crate) jobs: Vec<Job>,
    /// Paths that were read (0), looked for in vain (1), listed (2).
    pub(crate) seen: Vec<(Vec<u8>, u8)>,
    /// Warnings; an answer that has some is not kept.
    pub(crate) messages: Messages,
}

/// A piece of a line for the driver.
pub(crate) enum Piece<'a> {
    /// A flag.
    Flag(&'a str),
    /// The path of an input.
    Input(&'a str),
}

/// Where a line is asked about.
pub(crate) struct Place<'a> {
    /// Working directory.
    pub(crate) directory: &'a Path,
    /// The variables that the driver consults; they are those of the process, this is the record of them.
    pub(crate) environment: &'a [(String, String)],
}

/// Asks the driver.
///
/// # Errors
/// Usage for flags that clang does not take.
pub(crate) fn ask(line: &[Piece<'_>], place: &Place<'_>, color: bool) -> Result<Answer, Failure> {
    let mut names = Vec::new();
    let mut arguments = implied(color);
    for piece in line {
        match piece {
            Piece::Flag(flag) => arguments.push((*flag).to_owned()),
            Piece::Input(path) => {
                arguments.push(placeholder(names.len(), path));
                names.push(*path);
            }
        }
    }
    let directory = place.directory.to_string_lossy().into_owned();
    let question = (arguments, directory, place.environment.to_vec());
    let known = ANSWERS.lock().get(&question).cloned();
    let answer = match known {
        Some(answer) => answer,
        None => {
            let answer = Arc::new(run(&question.0, &question.1, color)?);
            if answer.messages.list().is_empty() {
                let mut answers = ANSWERS.lock();
                if answers.len() >= KEPT {
                    answers.clear();
                }
                answers.insert(question, answer.clone());
            }
            answer
        }
    };
    let named = |argument: &String| with_names(argument, &names);
    let jobs = answer
        .jobs
        .iter()
        .map(|job| Job { kind: job.kind, arguments: job.arguments.iter().map(named).collect() })
        .collect();
    Ok(Answer { jobs, seen: answer.seen.clone(), messages: answer.messages.copy() })
}

fn run(arguments: &[String], directory: &str, color: bool) -> Result<Answer, Failure> {
    let files = Files::new(directory, RESOURCES, headers::files(), &[]);
    let messages = Messages::new();
    let mut jobs = files
        .jobs(CLANG, arguments, color, &messages)
        .ok_or_else(|| failure(FailureKind::Usage, "understand the flags", &messages))?;
    jobs.iter_mut().for_each(use_own_headers);
    Ok(Answer { jobs, seen: files.seen(), messages })
}

/// What every line begins with; the user's flags come later and win.
fn implied(color: bool) -> Vec<String> {
    [
        "-resource-dir",
        RESOURCES,
        // A sealed image calls itself directly.
        "-fno-semantic-interposition",
        // The flags of a unit are for the compiler and the linker, and each uses but a part of them.
        "-Qunused-arguments",
        if color { "-fcolor-diagnostics" } else { "-fno-color-diagnostics" },
    ]
    .map(str::to_owned)
    .into()
}

/// Some distributions build clang to look for its headers in a folder of theirs, whatever the resource directory is.
fn use_own_headers(job: &mut Job) {
    for i in 1..job.arguments.len() {
        if job.arguments[i - 1] == "-internal-isystem" && job.arguments[i].starts_with("/usr/include/clang/")
        {
            job.arguments[i] = format!("{RESOURCES}/include");
        }
    }
}

/// The folder and the beginning of the stem of what stands for an input's path while the driver works.
const FOLDER: &str = "/.hotbed/input/";
const STEM: &str = "hotbed-input-";

/// What stands for the input with a number: a stem that occurs nowhere else, with the input's suffix.
fn placeholder(number: usize, path: &str) -> String {
    format!("{FOLDER}{STEM}{number}-{}", suffix(path))
}

fn suffix(path: &str) -> String {
    Path::new(path).extension().map(|suffix| format!(".{}", suffix.to_string_lossy())).unwrap_or_default()
}

/// `text` with the paths and stems of inputs in the place of those that stood for them.
fn with_names(text: &str, names: &[&str]) -> String {
    let mut named = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(STEM) {
        let (before, found) = rest.split_at(at);
        let found = &found[STEM.len()..];
        let number = found.split_once('-').and_then(|(number, behind)| Some((number.parse().ok()?, behind)));
        let input = number.and_then(|(number, behind): (usize, _)| Some((*names.get(number)?, behind)));
        let Some((path, behind)) = input else {
            named += &rest[..at + STEM.len()];
            rest = found;
            continue;
        };
        rest = match (before.strip_suffix(FOLDER), behind.strip_prefix(&*suffix(path))) {
            (Some(before), Some(behind)) => {
                named.extend([before, path]);
                behind
            }
            _ => {
                named += before;
                named += &Path::new(path).file_stem().unwrap_or_default().to_string_lossy();
                behind
            }
        };
    }
    named + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inputs_own_names_are_in_the_answer() {
        crate::shim::initialize();
        let place = Place { directory: Path::new("/"), environment: &[] };
        for path in ["sub/one.c", "two.c"] {
            let line = [Piece::Flag("-c"), Piece::Flag("-x"), Piece::Flag("c"), Piece::Input(path)];
            let answer = ask(&line, &place, false).expect("jobs");
            let arguments = &answer.jobs[0].arguments;
            let after =
                |flag: &str| arguments.iter().skip_while(|a| *a != flag).nth(1).cloned().unwrap_or_default();
            assert_eq!(arguments.last().map(String::as_str), Some(path));
            assert_eq!(after("-main-file-name"), path.rsplit('/').next().unwrap_or_default());
            assert!(!arguments.iter().any(|argument| argument.contains("hotbed-input")), "{arguments:?}");
        }
    }

    #[test]
    fn paths_and_stems_are_put_in_by_their_numbers() {
        let names = Vec::from_iter((0..12).map(|number| format!("sub/hotbed-input-{number}.c")));
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for (text, expected) in [
            ("/.hotbed/input/hotbed-input-11-.c", "sub/hotbed-input-11.c"),
            ("-main-file-name=hotbed-input-1-.c", "-main-file-name=hotbed-input-1.c"),
            (
                "/.hotbed/input/hotbed-input-1-.c,/.hotbed/input/hotbed-input-2-.c",
                "sub/hotbed-input-1.c,sub/hotbed-input-2.c",
            ),
            ("hotbed-input-12-.c", "hotbed-input-12-.c"),
            ("hotbed-input-", "hotbed-input-"),
            ("plain", "plain"),
        ] {
            assert_eq!(with_names(text, &names), expected);
        }
    }

    #[test]
    fn the_driver_finds_its_headers_inside() {
        crate::shim::initialize();
        let place = Place { directory: Path::new("/"), environment: &[] };
        let line = [Piece::Flag("-c"), Piece::Flag("-x"), Piece::Flag("c++"), Piece::Input("a.cc")];
        let answer = ask(&line, &place, false).expect("jobs");
        assert!(
            answer.jobs[0].arguments.contains(&format!("{RESOURCES}/include")),
            "{:?}",
            answer.jobs[0].arguments
        );
    }
}
