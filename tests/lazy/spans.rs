//! What listeners of `tracing` hear of functions that are compiled at their first calls.

use crate::support::{Child, task};
use hotbed::{Runtime, Source};
use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Spans of functions and events in them, each with its fields, a line each. Spans have their places for numbers.
#[derive(Default)]
struct Listener(Mutex<Vec<String>>);

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "hotbed::lazy" && *metadata.level() <= Level::DEBUG
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut lines = self.0.lock().unwrap();
        let mut line = span.metadata().name().to_owned();
        span.record(&mut Fields(&mut line));
        lines.push(line);
        Id::from_u64(lines.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let lines = &mut *self.0.lock().unwrap();
        values.record(&mut Fields(&mut lines[span.into_u64() as usize - 1]));
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = String::from("event");
        event.record(&mut Fields(&mut line));
        self.0.lock().unwrap().push(line);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn functions_are_told_with_their_outcome() {
    let heard = Child::new("lazy::spans::listen", "").succeed();
    let lines: Vec<&str> = heard.lines().filter(|line| !line.is_empty()).collect();
    let named = |lines: &[&str], start: &str, function: &str| {
        let name = format!("function=\"{function}\"");
        lines.iter().filter(|line| line.starts_with(start) && line.contains(&name)).count()
    };
    assert_eq!(named(&lines, "function", "good"), 1, "{heard}");
    // With the one that was asked for comes another.
    assert_eq!((named(&lines, "event", "good"), named(&lines, "event", "helper")), (1, 1), "{heard}");
    assert_eq!((named(&lines, "function", "bad"), named(&lines, "event", "bad")), (1, 0), "{heard}");
    for line in &lines {
        assert!(line.contains("unit=\"told\"") && line.contains("source=\"told.c\""), "{line}");
        let outcome = if line.contains("\"bad\"") { "no_such_instruction" } else { "outcome=\"compiled\"" };
        let fits = if line.starts_with("event") { line.contains(" ms=") } else { line.contains(outcome) };
        assert!(fits && line.starts_with("event") != line.contains("deep=false"), "{line}");
    }
    assert_eq!(lines.len(), 4, "{heard}");
}

/// A listener is there for the whole process.
#[test]
fn listen() {
    let Some(_task) = task() else { return };
    let listener = Arc::new(Listener::default());
    tracing::subscriber::set_global_default(Arc::clone(&listener)).unwrap();
    let instead = {
        extern "C" fn instead(x: i32) -> i32 {
            -x
        }
        instead as *const () as usize
    };
    let runtime = Runtime::builder().no_cache().on_function_failure(move |_| Some(instead)).build().unwrap();
    let text = "int bad(int x) { __asm__ volatile(\"no_such_instruction\"); return x; }\n\
                static int helper(int x) { return x + 1; } int good(int x) { return helper(x); }";
    let unit = runtime.load(Source::text("told.c", text).named("told").lazy()).unwrap();
    for (name, want) in [("good", 4), ("bad", -3)] {
        // SAFETY: that is their type.
        let function = unsafe { unit.get::<unsafe extern "C" fn(i32) -> i32>(name) }.unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { function(3) }, want);
    }
    for line in listener.0.lock().unwrap().iter() {
        println!("{}", line.replace('\n', " "));
    }
}
