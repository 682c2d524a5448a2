//! Traces: which functions a program has called, in the order of their first calls. What is in such a file, and how it is
//! read and written.
//!
//! A trace is a text of lines, each ended by a line feed, each a record of one function:
//!
//! ```text
//! hotbed-trace-1 TAB source TAB function TAB content TAB ms { TAB flag }
//! ```
//!
//! | field | what it is |
//! |---|---|
//! | `hotbed-trace-1` | what the line is, and the version of its form |
//! | `source` | the unit of source that has the function: the path as it was given to the runtime or on the command line, relative to the working directory if it lies below that, without `.` and doubled slashes ([`source_name`]); the name of what came from memory |
//! | `function` | its name as linkers see it (mangled); that of a `static` function as the source has it |
//! | `content` | BLAKE3 of what the function says in LLVM's IR, with the names and attributes of what it mentions: 64 digits in hexadecimal, lower case; `-` if it is not known |
//! | `ms` | how long compiling the function took, in milliseconds with three decimals |
//! | `flag` | the flags of the compiler that matter for code, as they were given and in that order, a field each ([`matters`]) |
//!
//! Source and function together are the identity; they mean the same on another machine, where sources lie elsewhere. Two records
//! with the same flags have the same content if the function, and what it mentions, is the same; with other flags contents
//! say nothing. Two sources of one name are one to a trace.
//!
//! The text is UTF-8. In a field `\t`, `\n` and `\r` stand for these characters, `\\` for a backslash, and `\u{7f}`, with the
//! number of the character in hexadecimal, for any other control character; no other character is escaped. So a line feed always
//! ends a record, and traces are merged by writing one behind the other: of several records of one function the first counts.
//! A reader passes over empty lines. A process that forks goes on in each child, so a function may be there once for
//! each of them. What stands in a line of another version is for others to read.

mod merged;

pub use merged::{Call, NoTrace, append, calls};

use std::fmt::{self, Write};
use std::path::{Component, Path};

/// What lines begin with, up to the version.
const MARK: &str = "hotbed-trace-";
/// The version of the form that is written here.
const VERSION: &str = "1";

/// A function that was called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The unit of source that has it.
    pub source: String,
    /// Its name as linkers see it.
    pub function: String,
    /// A hash of what it says.
    pub content: Option<[u8; 32]>,
    /// What compiling it took, in microseconds.
    pub microseconds: u64,
    /// The flags that matter for its code.
    pub flags: Vec<String>,
}

/// Why a line is no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadLine {
    /// It is no line of a trace.
    Foreign,
    /// It is of another version of the form, of this one.
    Version(String),
    /// It is damaged: what is wrong with it.
    Damaged(&'static str),
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("it is no record of a trace"),
            Self::Version(version) => {
                write!(f, "its form is version {version}, this is version {VERSION}")
            }
            Self::Damaged(what) => write!(f, "it is damaged: {what}"),
        }
    }
}

impl std::error::Error for BadLine {}

impl Record {
    /// The line, with its end.
    pub fn encode(&self) -> String {
        // Taken apart, so that a new field cannot be forgotten here.
        let Self { source, function, content, microseconds, flags } = self;
        let mut line = format!("{MARK}{VERSION}");
        for field in [source, function] {
            line.push('\t');
            escape(&mut line, field);
        }
        line.push('\t');
        match content {
            // Writing to a String cannot fail.
            Some(content) => content.iter().for_each(|byte| {
                let _ = write!(line, "{byte:02x}");
            }),
            None => line.push('-'),
        }
        let _ = write!(line, "\t{}.{:03}", microseconds / 1000, microseconds % 1000);
        for flag in flags {
            line.push('\t');
            escape(&mut line, flag);
        }
        line.push('\n');
        line
    }

    /// The record in a line, whose end may be there or not.
    ///
    /// # Errors
    /// Why there is none.
    pub fn decode(line: &str) -> Result<Self, BadLine> {
        let line = line.strip_suffix('\n').unwrap_or(line);
        let mut fields = line.split('\t');
        let version = fields.next().and_then(|mark| mark.strip_prefix(MARK)).ok_or(BadLine::Foreign)?;
        if version != VERSION {
            return Err(BadLine::Version(version.to_owned()));
        }
        let mut next = || fields.next().ok_or(BadLine::Damaged("it ends too early"));
        let (source, function) = (unescape(next()?)?, unescape(next()?)?);
        let content = match next()? {
            "-" => None,
            digits => Some(decode_content(digits).ok_or(BadLine::Damaged("its content is no hash"))?),
        };
        let microseconds = decode_ms(next()?).ok_or(BadLine::Damaged("its time is no number"))?;
        let flags = fields.map(unescape).collect::<Result<_, _>>()?;
        if function.is_empty() {
            return Err(BadLine::Damaged("it names no function"));
        }
        Ok(Self { source, function, content, microseconds, flags })
    }
}

/// What a trace calls a source that was given as `path` to somebody who works in `directory`.
pub fn source_name(path: &str, directory: &Path) -> String {
    let path = Path::new(path);
    let inside = path.strip_prefix(directory).ok().filter(|rest| !rest.as_os_str().is_empty());
    let parts = inside.unwrap_or(path).components().filter(|part| *part != Component::CurDir);
    parts.collect::<std::path::PathBuf>().to_string_lossy().into_owned()
}

/// Those of the compiler's flags, as they were given, that decide about code by themselves. Where headers and libraries are
/// looked for, what is linked and what is warned of do not: what comes of them shows in the contents of functions.
pub fn matters<'a>(flags: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    /// Without effect on code, and so is what follows.
    const WITH_VALUE: &[&str] = &[
        "-B",
        "-I",
        "-L",
        "-T",
        "-Xlinker",
        "-e",
        "-idirafter",
        "-iquote",
        "-isystem",
        "-l",
        "-rpath",
        "-u",
        "-z",
    ];
    /// Without effect on code, with whatever is joined to them.
    const JOINED: &[&str] =
        &["-B", "-I", "-L", "-W", "-fdiagnostics-", "-idirafter", "-iquote", "-isystem", "-l", "-rdynamic"];
    let mut flags = flags.into_iter();
    let mut found = Vec::new();
    while let Some(flag) = flags.next() {
        if WITH_VALUE.contains(&flag) {
            flags.next();
        } else if flag.starts_with("-Wa,")
            || !(flag == "-w" || JOINED.iter().any(|one| flag.starts_with(one)))
        {
            found.push(flag);
        }
    }
    found
}

fn escape(line: &mut String, field: &str) {
    for character in field.chars() {
        match character {
            '\t' => line.push_str("\\t"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\\' => line.push_str("\\\\"),
            // Writing to a String cannot fail.
            other if other.is_control() => {
                let _ = write!(line, "\\u{{{:x}}}", u32::from(other));
            }
            other => line.push(other),
        }
    }
}

fn unescape(field: &str) -> Result<String, BadLine> {
    const WRONG: BadLine = BadLine::Damaged("a backslash stands where there can be none");
    let mut text = String::with_capacity(field.len());
    let mut rest = field.chars();
    while let Some(character) = rest.next() {
        text.push(match character {
            '\\' => match rest.next() {
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('\\') => '\\',
                Some('u') => {
                    let (digits, behind) =
                        rest.as_str().strip_prefix('{').and_then(|rest| rest.split_once('}')).ok_or(WRONG)?;
                    rest = behind.chars();
                    let number = u32::from_str_radix(digits, 16).map_err(|_| WRONG)?;
                    char::from_u32(number).filter(|character| character.is_control()).ok_or(WRONG)?
                }
                _ => return Err(WRONG),
            },
            other if other.is_control() => return Err(BadLine::Damaged("it has a control character")),
            other => other,
        });
    }
    Ok(text)
}

fn decode_content(digits: &str) -> Option<[u8; 32]> {
    let mut content = [0; 32];
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else { return None };
    if pairs.len() != content.len() {
        return None;
    }
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    for (byte, &[high, low]) in content.iter_mut().zip(pairs) {
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(content)
}

fn decode_ms(text: &str) -> Option<u64> {
    let (whole, thousandths) = text.split_once('.')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(thousandths) || thousandths.len() != 3 {
        return None;
    }
    whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(thousandths.parse().ok()?)
}

#[cfg(test)]
mod tests;
