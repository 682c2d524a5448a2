//! `hotbed image build`: compiles and links files into one image that another run, or a host, maps.

use crate::arguments::{self, Purpose};
use crate::timings::Totals;
use crate::{Status, console, input, usage};
use std::ffi::CStr;
use std::time::{Duration, Instant};

/// `hotbed image build` with the arguments after `build`.
pub(crate) fn build(arguments: &[&'static CStr], started: Instant) -> Status {
    match try_build(arguments, started) {
        Ok(()) => Status::Success,
        Err(status) => status,
    }
}

fn try_build(arguments: &[&'static CStr], started: Instant) -> Result<(), Status> {
    let parsed = arguments::parse(arguments, Purpose::BuildImage)
        .map_err(|error| console::usage(&error, "image build"))?;
    if parsed.options.help {
        return Err(usage::help(usage::IMAGE_BUILD));
    }
    input::readable(&parsed)?;
    let (Some(mut program), Some(output)) = (input::program(&parsed)?, parsed.options.output) else {
        // The parser saw both.
        return Err(Status::Usage);
    };
    if let Some(entry) = parsed.options.entry {
        program = program.entry(entry);
    }
    let fail = |error| console::fail(&error);
    let runtime = input::runtime(&parsed.options, None).map_err(fail)?;
    let report = runtime.build_image(program, output).map_err(fail)?;
    console::print(&report.rendered);
    if let Some(format) = parsed.options.timings {
        let mut totals = Totals::default();
        totals.add(&report);
        console::print(&totals.render(format, started.elapsed(), Duration::ZERO));
    }
    Ok(())
}
