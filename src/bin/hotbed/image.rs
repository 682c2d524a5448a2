//! `hotbed image build`: compiles and links files into one image that another run, or a host, maps.

use crate::arguments::{self, Kind, Options, Purpose, Rest};
use crate::timings::Totals;
use crate::{Status, console, input, usage};
use hotbed::{Image, Trace};
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
    let fail = |error| console::fail(&error);
    if let Some(trace) = trace(&parsed.options).map_err(fail)? {
        program = program.trace(trace);
        if parsed.options.rest == Some(Rest::Bitcode) {
            program = program.lazy();
        }
    }
    let runtime = input::runtime(&parsed.options, None).map_err(fail)?;
    let mut image = runtime.image(output).unit(program);
    for file in parsed.files().filter(|file| file.kind == Kind::Image) {
        image = image.dependency(Image::file(file.path()));
    }
    if let Some(entry) = parsed.options.entry {
        image = image.entry(entry);
    }
    image = parsed.options.variants.iter().fold(image, |image, level| image.cpu(*level));
    let report = image.build().map_err(fail)?;
    console::print(&report.rendered);
    if let Some(format) = parsed.options.timings {
        let mut totals = Totals::default();
        totals.add(&report);
        console::print(&totals.render(format, started.elapsed(), Duration::ZERO));
    }
    Ok(())
}

/// All traces as one, if there are any.
fn trace(options: &Options) -> Result<Option<Trace>, hotbed::Error> {
    let mut all: Option<Trace> = None;
    for path in &options.traces {
        let one = Trace::read(path)?;
        all = Some(match all {
            Some(all) => all.and(&one),
            None => one,
        });
    }
    Ok(all.map(|trace| if options.strict { trace.strict() } else { trace }))
}
