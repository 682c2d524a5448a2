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
                let placeholder = Placeholder::new(names.len(), path);
                arguments.push(placeholder.path());
                names.push((placeholder, *path));
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
    let named = |argument: &String| {
        let replace =
            |text: String, (placeholder, path): &(Placeholder, &str)| placeholder.replaced(&text, path);
        names.iter().fold(argument.clone(), replace)
    };
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

/// What stands for an input's path while the driver works: a stem that occurs nowhere else, with the input's suffix.
struct Placeholder {
    stem: String,
    suffix: String,
}

impl Placeholder {
    const FOLDER: &'static str = "/.hotbed/input/";

    fn new(number: usize, path: &str) -> Self {
        let suffix = Path::new(path).extension().map(|suffix| format!(".{}", suffix.to_string_lossy()));
        Self { stem: format!("hotbed-input-{number}-"), suffix: suffix.unwrap_or_default() }
    }

    fn path(&self) -> String {
        format!("{}{}{}", Self::FOLDER, self.stem, self.suffix)
    }

    /// `text` with the placeholder's path and stem replaced by those of `path`.
    fn replaced(&self, text: &str, path: &str) -> String {
        if !text.contains(&self.stem) {
            return text.to_owned();
        }
        let stem = Path::new(path).file_stem().map(|stem| stem.to_string_lossy()).unwrap_or_default();
        text.replace(&self.path(), path).replace(&self.stem, &stem)
    }
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
