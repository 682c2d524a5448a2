//! `--timings`: where the time of a whole process went, printed when it exits.

use crate::arguments::TimingsFormat;
use crate::console;
use crate::json::{array, object, string};
use hotbed::{FunctionTime, FunctionTimes, Report, Runtime};
use hotbed_loader::demangle;
use hotbed_loader::sys::start;
use std::fmt::Write;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Sums over everything that was loaded.
#[derive(Debug, Default, Clone)]
pub(crate) struct Totals {
    frontend: f64,
    codegen: f64,
    link: f64,
    map: Duration,
    bind: Duration,
    init: Duration,
    units_compiled: u32,
    functions_compiled: u32,
    images_linked: u32,
    images_mapped: u32,
    backend_loaded: bool,
    functions: FunctionTimes,
}

impl Totals {
    /// Adds a unit that became an image.
    pub(crate) fn add(&mut self, report: &Report) {
        self.frontend += report.phases.frontend_ms;
        self.codegen += report.phases.codegen_ms;
        self.link += report.phases.link_ms;
        self.map += report.times.map;
        self.bind += report.times.bind;
        self.init += report.times.init;
        self.units_compiled += report.counts.units_compiled;
        self.functions_compiled += report.counts.functions_compiled;
        self.images_linked += report.counts.images_linked;
        self.backend_loaded |= report.back_end_loaded;
    }

    /// Counts an image that was mapped.
    pub(crate) fn mapped(&mut self) {
        self.images_mapped += 1;
    }

    /// The sums as text; `run` is the program's own time, when one ran.
    pub(crate) fn render(&self, format: TimingsFormat, total: Duration, run: Duration) -> String {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let phases = [
            ("frontend", self.frontend),
            ("codegen", self.codegen),
            ("link", self.link),
            ("map", ms(self.map)),
            ("bind", ms(self.bind)),
            ("init", ms(self.init)),
            ("run", ms(run)),
        ];
        let counts = [
            ("units_compiled", self.units_compiled),
            ("functions_compiled", self.functions_compiled),
            ("images_linked", self.images_linked),
            ("images_mapped", self.images_mapped),
        ];
        let FunctionTimes { compiling, waited, ref slowest, .. } = self.functions;
        let functions = [("functions", ms(compiling)), ("functions_waited", ms(waited))];
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = match format {
            TimingsFormat::Json => {
                let slowest = array(slowest.iter().map(slow_json));
                render_json(&mut text, ms(total), &phases, &counts, &functions, &slowest, self.backend_loaded)
            }
            TimingsFormat::Table => {
                render_table(&mut text, ms(total), &phases, &counts, &functions, slowest, self.backend_loaded)
            }
        };
        text
    }
}

fn render_json(
    text: &mut String,
    total: f64,
    phases: &[(&str, f64)],
    counts: &[(&str, u32)],
    functions: &[(&str, f64)],
    slowest: &str,
    backend_loaded: bool,
) -> std::fmt::Result {
    write!(text, "{{\"total_ms\":{total:.3},\"phases_ms\":{{")?;
    for (i, (name, ms)) in phases.iter().enumerate() {
        write!(text, "{}\"{name}\":{ms:.3}", if i == 0 { "" } else { "," })?;
    }
    write!(text, "}}")?;
    for (name, count) in counts {
        write!(text, ",\"{name}\":{count}")?;
    }
    for (name, ms) in functions {
        write!(text, ",\"{name}_ms\":{ms:.3}")?;
    }
    write!(text, ",\"slowest_functions\":{slowest}")?;
    writeln!(text, ",\"backend_loaded\":{backend_loaded}}}")
}

fn render_table(
    text: &mut String,
    total: f64,
    phases: &[(&str, f64)],
    counts: &[(&str, u32)],
    functions: &[(&str, f64)],
    slowest: &[FunctionTime],
    backend_loaded: bool,
) -> std::fmt::Result {
    for (name, ms) in phases {
        writeln!(text, "{name:<20}{ms:>10.3} ms")?;
    }
    writeln!(text, "{:<20}{total:>10.3} ms", "total")?;
    for (name, count) in counts {
        writeln!(text, "{:<20}{count:>10}", name.replace('_', " "))?;
    }
    writeln!(text, "{:<20}{:>10}", "back end loaded", if backend_loaded { "yes" } else { "no" })?;
    if slowest.is_empty() {
        return Ok(());
    }
    // They run while the program does.
    for (name, ms) in functions {
        writeln!(text, "{:<20}{ms:>10.3} ms", name.replace('_', " "))?;
    }
    for FunctionTime { source, function, time, .. } in slowest {
        let name = demangle(function).unwrap_or_else(|| function.clone());
        writeln!(text, "  {:>8.3} ms  {name} ({source})", time.as_secs_f64() * 1e3)?;
    }
    Ok(())
}

fn slow_json(one: &FunctionTime) -> String {
    let ms = format!("{:.3}", one.time.as_secs_f64() * 1e3);
    object(&[("function", string(&one.function)), ("source", string(&one.source)), ("ms", ms)])
}

/// What the handler at exit needs.
struct Record {
    format: TimingsFormat,
    totals: Totals,
    started: Instant,
    entered: Instant,
    process: i32,
    /// It compiles functions as long as the program runs.
    runtime: Runtime,
}

static RECORD: OnceLock<Record> = OnceLock::new();

/// Has the timings printed when the process exits. To be called before anything is loaded: what is registered first is
/// called last.
pub(crate) fn print_at_exit() {
    if !start::at_exit(print) {
        console::say("warning: no timings: the C library takes no more exit handlers");
    }
}

/// The program is about to be entered.
pub(crate) fn entering(format: TimingsFormat, totals: Totals, started: Instant, runtime: &Runtime) {
    let (entered, process) = (Instant::now(), start::process_id());
    let record = Record { format, totals, started, entered, process, runtime: runtime.clone() };
    // A second program is never entered.
    let _ = RECORD.set(record);
}

extern "C" fn print() {
    let Some(record) = RECORD.get() else { return };
    // A child that the program forked has no timings of its own.
    if record.process == start::process_id() {
        let mut totals = record.totals.clone();
        totals.functions = record.runtime.function_times();
        totals.functions_compiled += record.runtime.functions_compiled();
        totals.backend_loaded |= record.runtime.functions_took_back_end();
        let text = totals.render(record.format, record.started.elapsed(), record.entered.elapsed());
        console::print(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_every_key_on_one_line() {
        let totals = Totals { units_compiled: 2, map: Duration::from_micros(1500), ..Totals::default() };
        let text = totals.render(TimingsFormat::Json, Duration::from_millis(3), Duration::from_millis(1));
        assert_eq!(
            text,
            "{\"total_ms\":3.000,\"phases_ms\":{\"frontend\":0.000,\"codegen\":0.000,\"link\":0.000,\"map\":1.500,\
             \"bind\":0.000,\"init\":0.000,\"run\":1.000},\"units_compiled\":2,\"functions_compiled\":0,\
             \"images_linked\":0,\"images_mapped\":0,\"functions_ms\":0.000,\"functions_waited_ms\":0.000,\
             \"slowest_functions\":[],\"backend_loaded\":false}\n"
        );
    }

    #[test]
    fn the_table_names_every_phase_and_count() {
        let text = Totals::default().render(TimingsFormat::Table, Duration::ZERO, Duration::ZERO);
        assert_eq!(text.lines().count(), 13);
    }
}
