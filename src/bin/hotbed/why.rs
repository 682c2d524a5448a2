//! `hotbed cache why`: which entry of the store would serve what `hotbed run` takes, or the reason why none does. Nothing is
//! compiled, and nothing written.

use crate::arguments::{self, Arguments, Kind, Purpose};
use crate::json::{array, object, optional, string};
use crate::{Status, console, input, run, usage};
use hotbed::{Considered, Miss, Why};
use std::ffi::CStr;
use std::fmt::Write as _;
use std::io::Write as _;

/// `hotbed cache why` with the arguments after `why`.
pub(crate) fn why(arguments: &[&'static CStr]) -> Status {
    match try_why(arguments) {
        Ok(status) | Err(status) => status,
    }
}

fn try_why(arguments: &[&'static CStr]) -> Result<Status, Status> {
    let parsed =
        arguments::parse(arguments, Purpose::Why).map_err(|error| console::usage(&error, "cache why"))?;
    if parsed.options.help {
        return Err(usage::help(usage::CACHE_WHY));
    }
    input::readable(&parsed)?;
    let units = ask(&parsed)?;
    let text = if parsed.options.json {
        let units = units.iter().map(|(unit, why)| json(unit, why));
        format!("{}\n", object(&[("units", array(units))]))
    } else {
        units.iter().map(|(unit, why)| text(unit, why)).collect()
    };
    let mut out = std::io::stdout();
    // Nobody is there to be told when this cannot be written.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    Ok(Status::Success)
}

/// What is to be said of each unit, in the order in which they are loaded.
fn ask(parsed: &Arguments) -> Result<Vec<(String, Why)>, Status> {
    // Images and libraries are what they are.
    let linked = parsed.files().filter(|file| !matches!(file.kind, Kind::Input(_)));
    let mut units: Vec<(String, Why)> = linked
        .map(|file| {
            let (unit, path) = (file.path().display().to_string(), file.path().to_owned());
            (unit, Why { answer: Ok(path), entries: Vec::new() })
        })
        .collect();
    let fail = |error| console::fail(&error);
    let runtime = input::runtime(&parsed.options, None).map_err(fail)?;
    let compiled = parsed.files().find(|file| matches!(file.kind, Kind::Input(_)));
    if let (Some(program), Some(first)) = (run::program(parsed)?, compiled) {
        units.push((first.path().display().to_string(), runtime.why(program).map_err(fail)?));
    }
    Ok(units)
}

fn text(unit: &str, Why { answer, entries }: &Why) -> String {
    let mut text = match answer {
        Ok(image) => format!("{unit}: served by {}\n", image.display()),
        Err(miss) => format!("{unit}: has to be compiled: {miss}\n"),
    };
    for Considered { flags, image, miss } in entries {
        let flags = if flags.is_empty() { "no flags" } else { flags };
        let image = image.as_deref().and_then(|image| image.file_stem()).map(|stem| stem.to_string_lossy());
        let image = image.map_or_else(String::new, |stem| format!(" {}", stem.get(..12).unwrap_or(&stem)));
        let verdict = miss.as_ref().map_or_else(|| "serves".to_owned(), Miss::to_string);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  entry{image} with {flags}: {verdict}");
    }
    text
}

/// Every field, as an object.
fn json(unit: &str, Why { answer, entries }: &Why) -> String {
    let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let image = answer.as_ref().ok().map(|image| path(image));
    let entries = entries.iter().map(|Considered { flags, image, miss }| {
        let image = image.as_deref().map(path);
        object(&[("flags", string(flags)), ("image", optional(&image)), ("miss", miss_json(miss.as_ref()))])
    });
    object(&[
        ("unit", string(unit)),
        ("image", optional(&image)),
        ("miss", miss_json(answer.as_ref().err())),
        ("entries", array(entries)),
    ])
}

fn miss_json(miss: Option<&Miss>) -> String {
    miss.map_or_else(
        || "null".to_owned(),
        |miss| object(&[("name", string(miss.name())), ("reason", string(&miss.to_string()))]),
    )
}
