//! `--timings`: where the time of a whole process went, printed when it exits.

use crate::arguments::TimingsFormat;
use crate::console;
use crate::json::{array, object, string};
use hotbed::{Duplicates, FunctionTime, FunctionTimes, Report, Runtime, Sameness};
use hotbed_loader::demangle;
use hotbed_loader::sys::start;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// What copies of definitions that are not used are called.
const SAMENESSES: [(&str, Sameness); 3] =
    [("equal", Sameness::Equal), ("differing", Sameness::Differs), ("unknown", Sameness::Unknown)];

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
    functions_reused: u32,
    images_linked: u32,
    images_mapped: u32,
    backend_loaded: bool,
    /// Reasons why the store did not serve, and how often each.
    misses: BTreeMap<&'static str, u32>,
    functions: FunctionTimes,
    duplicates: Duplicates,
}

/// What is shown by name, and milliseconds where it is a time.
struct Figures {
    total: f64,
    phases: [(&'static str, f64); 7],
    counts: [(&'static str, u32); 5],
    functions: [(&'static str, f64); 2],
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
        self.functions_reused += report.counts.functions_reused;
        self.images_linked += report.counts.images_linked;
        self.backend_loaded |= report.back_end_loaded;
        if let Some(miss) = &report.miss {
            *self.misses.entry(miss.name()).or_default() += 1;
        }
    }

    /// Counts an image that was mapped.
    pub(crate) fn mapped(&mut self) {
        self.images_mapped += 1;
    }

    /// The sums as text; `run` is the program's own time, when one ran.
    pub(crate) fn render(&self, format: TimingsFormat, total: Duration, run: Duration) -> String {
        let figures = self.figures(total, run);
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = match format {
            TimingsFormat::Json => self.write_json(&mut text, &figures),
            TimingsFormat::Table => self.write_table(&mut text, &figures),
        };
        text
    }

    fn figures(&self, total: Duration, run: Duration) -> Figures {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let FunctionTimes { compiling, waited, .. } = self.functions;
        Figures {
            total: ms(total),
            phases: [
                ("frontend", self.frontend),
                ("codegen", self.codegen),
                ("link", self.link),
                ("map", ms(self.map)),
                ("bind", ms(self.bind)),
                ("init", ms(self.init)),
                ("run", ms(run)),
            ],
            counts: [
                ("units_compiled", self.units_compiled),
                ("functions_compiled", self.functions_compiled),
                ("functions_reused", self.functions_reused),
                ("images_linked", self.images_linked),
                ("images_mapped", self.images_mapped),
            ],
            functions: [("functions", ms(compiling)), ("functions_waited", ms(waited))],
        }
    }

    fn write_json(&self, text: &mut String, figures: &Figures) -> std::fmt::Result {
        let Figures { total, phases, counts, functions } = figures;
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
        write!(text, ",\"slowest_functions\":{}", array(self.functions.slowest.iter().map(slow_json)))?;
        let misses: Vec<_> = self.misses.iter().map(|(name, count)| (*name, count.to_string())).collect();
        write!(text, ",\"misses\":{}", object(&misses))?;
        let duplicates =
            SAMENESSES.map(|(name, sameness)| (name, self.duplicates.bytes(sameness).to_string()));
        write!(text, ",\"duplicate_bytes\":{}", object(&duplicates))?;
        writeln!(text, ",\"backend_loaded\":{}}}", self.backend_loaded)
    }

    fn write_table(&self, text: &mut String, figures: &Figures) -> std::fmt::Result {
        let Figures { total, phases, counts, functions } = figures;
        for (name, ms) in phases {
            writeln!(text, "{name:<20}{ms:>10.3} ms")?;
        }
        writeln!(text, "{:<20}{total:>10.3} ms", "total")?;
        for (name, count) in counts {
            writeln!(text, "{:<20}{count:>10}", name.replace('_', " "))?;
        }
        for (name, count) in &self.misses {
            writeln!(text, "{:<20}{count:>10}", format!("miss: {name}"))?;
        }
        for (name, sameness) in SAMENESSES {
            let bytes = self.duplicates.bytes(sameness);
            if bytes > 0 {
                writeln!(text, "{:<20}{bytes:>10} bytes", format!("copies, {name}"))?;
            }
        }
        writeln!(text, "{:<20}{:>10}", "back end loaded", if self.backend_loaded { "yes" } else { "no" })?;
        if self.functions.slowest.is_empty() {
            return Ok(());
        }
        // They run while the program does.
        for (name, ms) in functions {
            writeln!(text, "{:<20}{ms:>10.3} ms", name.replace('_', " "))?;
        }
        for FunctionTime { source, function, time, .. } in &self.functions.slowest {
            let name = demangle(function).unwrap_or_else(|| function.clone());
            writeln!(text, "  {:>8.3} ms  {name} ({source})", time.as_secs_f64() * 1e3)?;
        }
        Ok(())
    }
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
        let (total, run) = (record.started.elapsed(), record.entered.elapsed());
        totals.duplicates = record.runtime.duplicates();
        let text = totals.render(record.format, total, run);
        console::print(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_every_key_on_one_line() {
        let misses = BTreeMap::from([("level", 1)]);
        let map = Duration::from_micros(1500);
        let totals = Totals { units_compiled: 2, map, misses, ..Totals::default() };
        let text = totals.render(TimingsFormat::Json, Duration::from_millis(3), Duration::from_millis(1));
        assert_eq!(
            text,
            "{\"total_ms\":3.000,\"phases_ms\":{\"frontend\":0.000,\"codegen\":0.000,\"link\":0.000,\"map\":1.500,\
             \"bind\":0.000,\"init\":0.000,\"run\":1.000},\"units_compiled\":2,\"functions_compiled\":0,\
             \"functions_reused\":0,\"images_linked\":0,\"images_mapped\":0,\"functions_ms\":0.000,\"functions_waited_ms\":0.000,\
             \"slowest_functions\":[],\"misses\":{\"level\":1},\
             \"duplicate_bytes\":{\"equal\":0,\"differing\":0,\"unknown\":0},\"backend_loaded\":false}\n"
        );
    }

    #[test]
    fn the_table_names_every_phase_and_count() {
        let text = Totals::default().render(TimingsFormat::Table, Duration::ZERO, Duration::ZERO);
        assert_eq!(text.lines().count(), 14);
    }
}
