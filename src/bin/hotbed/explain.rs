//! `hotbed explain`: says who has a symbol that the files refer to, who is asked for it, and why the winner wins. What
//! is given is compiled and mapped as for `hotbed run`, and not started.

use crate::arguments::{self, Kind, Purpose};
use crate::json::{array, kind_key, layer_key, object, optional, string};
use crate::{Status, console, input, usage};
use hotbed::{Answer, Asked, Explanation, Image, Load, Reason, Sameness, SharedLibrary, Verdict};
use std::ffi::CStr;
use std::io::Write;

/// `hotbed explain` with the arguments after `explain`.
pub(crate) fn explain(arguments: &[&'static CStr]) -> Status {
    match try_explain(arguments) {
        Ok(status) | Err(status) => status,
    }
}

fn try_explain(arguments: &[&'static CStr]) -> Result<Status, Status> {
    let parsed =
        arguments::parse(arguments, Purpose::Explain).map_err(|error| console::usage(&error, "explain"))?;
    if parsed.options.help {
        return Err(usage::help(usage::EXPLAIN));
    }
    input::readable(&parsed)?;
    // The parser saw it.
    let symbol = parsed.symbol.ok_or(Status::Usage)?;
    let fail = |error| console::fail(&error);
    let runtime = input::runtime(&parsed.options, None).map_err(fail)?;
    // In the order in which they are loaded when they are run.
    let mut units: Vec<Load> = Vec::new();
    for file in parsed.files() {
        match file.kind {
            Kind::SharedLibrary => units.push(SharedLibrary::path(file.path()).into()),
            Kind::Image => units.push(Image::file(file.path()).into()),
            Kind::Input(_) => {}
        }
    }
    if let Some(program) = input::program(&parsed)? {
        units.push(program.entry(parsed.options.entry.unwrap_or("main")).into());
    }
    let explanation = runtime.explain_with(units, symbol).map_err(fail)?;
    runtime.shut_down_workers();
    let text = if parsed.options.json { json(&explanation) } else { explanation.to_string() };
    let mut out = std::io::stdout();
    // Nobody is there to be told when this cannot be written.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    Ok(if explanation.winner().is_some() { Status::Success } else { Status::Failure })
}

/// Every field, as one object on one line.
fn json(explanation: &Explanation) -> String {
    let Explanation { symbol, demangled, version, needed_by, asked, near } = explanation;
    let winner = explanation.winner().map(|(asked, answer)| {
        object(&[("layer", string(layer_key(asked.layer))), ("unit", string(&answer.unit))])
    });
    object(&[
        ("symbol", string(symbol)),
        ("demangled", optional(demangled)),
        ("version", optional(version)),
        ("needed_by", optional(needed_by)),
        ("asked", array(asked.iter().map(asked_json))),
        ("winner", winner.unwrap_or_else(|| "null".to_owned())),
        ("why", explanation.why().map_or_else(|| "null".to_owned(), string)),
        ("near", array(near.iter().map(|name| string(name)))),
    ])
}

fn asked_json(asked: &Asked) -> String {
    object(&[
        ("layer", string(layer_key(asked.layer))),
        ("answers", array(asked.answers.iter().map(answer_json))),
        ("remark", optional(&asked.remark)),
    ])
}

fn answer_json(answer: &Answer) -> String {
    let (verdict, reason) = match answer.verdict {
        Verdict::Used => ("used", None),
        Verdict::Shadowed => ("shadowed", None),
        Verdict::NotCounted(reason) => ("not-counted", Some(reason)),
    };
    object(&[
        ("unit", string(&answer.unit)),
        ("kind", string(kind_key(answer.kind))),
        ("weak", answer.weak.to_string()),
        ("version", optional(&answer.version)),
        ("verdict", string(verdict)),
        ("reason", optional(&reason.as_ref().map(Reason::to_string))),
        ("same", same(answer.sameness)),
    ])
}

/// Whether a copy is the same as the one that is used; null where that is not known, or no question.
fn same(sameness: Option<Sameness>) -> String {
    match sameness {
        Some(Sameness::Equal) => true.to_string(),
        Some(Sameness::Differs) => false.to_string(),
        Some(Sameness::Unknown) | None => "null".to_owned(),
    }
}
