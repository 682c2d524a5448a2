//! A unit's sources as bitcode: what is opened to be split.

use super::prepare;
use crate::frontend::{self, Form, Place, Prepared};
use crate::shim::initialize;
use hotbed_loader::boundary::{Argument, Failure, Request};

/// A source, compiled as far as the front end goes.
#[derive(Debug, Clone)]
pub struct Source {
    /// The bitcode; without optimisation as the front end made it, else [prepared](prepare).
    pub bitcode: Vec<u8>,
    /// The front end's arguments, after `-cc1` ([`Settings::arguments`](super::Settings::arguments)).
    pub arguments: Vec<String>,
}

/// Whether the front end's arguments ask for optimised code.
pub(crate) fn optimises(arguments: &[String]) -> bool {
    arguments.iter().rfind(|argument| argument.starts_with("-O")).is_some_and(|level| level != "-O0")
}

/// Compiles the sources of a request to bitcode, in order; IR and bitcode are sources, too.
///
/// # Errors
/// When one cannot be read or does not compile.
pub fn sources(request: &Request) -> Result<Vec<Source>, Failure> {
    initialize();
    let place = Place { directory: &request.directory, environment: &request.environment };
    let prepared: Vec<Prepared<'_>> = request
        .inputs()
        .filter_map(|input| frontend::prepare(input, &request.directory, Form::Object).transpose())
        .collect::<Result<_, _>>()?;
    if prepared.is_empty() {
        return Ok(Vec::new());
    }
    let flags: Vec<&str> = request
        .arguments
        .iter()
        .filter_map(|argument| match argument {
            Argument::Flag(flag) => Some(flag.as_str()),
            Argument::Input(_) => None,
        })
        .collect();
    let compiled = frontend::compile(&prepared, &flags, &place, Form::Bitcode, request.color, None)?;
    let finish = |(made, input): (frontend::CompiledObject, &Prepared<'_>)| {
        let bitcode = if optimises(&made.arguments) {
            prepare(made.object.bytes(), &input.path, true)?
        } else {
            made.object.bytes().to_vec()
        };
        Ok(Source { bitcode, arguments: made.arguments })
    };
    compiled.objects.into_iter().zip(&prepared).map(finish).collect()
}
