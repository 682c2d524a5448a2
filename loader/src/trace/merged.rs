//! Traces that are read: which functions were called, according to one or several of them.

use super::{BadLine, Record};
use std::collections::HashSet;

/// A function that was called, and where that is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// What is written.
    pub record: Record,
    /// The trace, as messages call it.
    pub trace: String,
    /// The line in it, from 1.
    pub line: u32,
}

/// A line that is no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct NoTrace {
    /// Which, from 1.
    pub line: u32,
    /// Why.
    pub reason: BadLine,
}

/// The functions that the trace with this text, which messages call `name`, says were called, each once.
///
/// # Errors
/// The first line that is no record.
pub fn calls(name: &str, text: &[u8]) -> Result<Vec<Call>, NoTrace> {
    let mut read = Vec::new();
    for (line, bytes) in (1..).zip(text.split(|&byte| byte == b'\n')) {
        if bytes.is_empty() {
            continue;
        }
        let text = std::str::from_utf8(bytes).map_err(|_| BadLine::Damaged("it is not UTF-8"));
        let record = text.and_then(Record::decode).map_err(|reason| NoTrace { line, reason })?;
        read.push(Call { record, trace: name.to_owned(), line });
    }
    let mut calls = Vec::with_capacity(read.len());
    append(&mut calls, read);
    Ok(calls)
}

/// Puts what `more` has of other functions behind `calls`.
pub fn append(calls: &mut Vec<Call>, more: impl IntoIterator<Item = Call>) {
    let mut known: HashSet<(String, String)> = calls.iter().map(identity).collect();
    calls.extend(more.into_iter().filter(|call| known.insert(identity(call))));
}

fn identity(call: &Call) -> (String, String) {
    (call.record.source.clone(), call.record.function.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(function: &str) -> String {
        let (source, function) = ("a.c".to_owned(), function.to_owned());
        Record { source, function, content: None, microseconds: 1, flags: Vec::new() }.encode()
    }

    fn functions(calls: &[Call]) -> Vec<(&str, &str, u32)> {
        calls.iter().map(|call| (&*call.record.function, &*call.trace, call.line)).collect()
    }

    #[test]
    fn the_first_trace_comes_first() {
        let one = line("f") + "\n" + &line("g") + &line("f");
        let mut all = calls("one", one.as_bytes()).expect("a trace");
        append(&mut all, calls("two", (line("h") + &line("f")).as_bytes()).expect("a trace"));
        assert_eq!(functions(&all), [("f", "one", 1), ("g", "one", 3), ("h", "two", 1)]);
        assert_eq!(calls("three", b""), Ok(Vec::new()));
    }

    #[test]
    fn the_line_that_is_no_record_is_told() {
        let text = line("f") + "\n\nnonsense\n";
        let error = calls("t", text.as_bytes()).expect_err("no record");
        assert_eq!(error.to_string(), "line 4: it is no record of a trace");
        let error = calls("t", b"\xff\n").expect_err("no text");
        assert_eq!(error.to_string(), "line 1: it is damaged: it is not UTF-8");
        let torn = line("f") + line("g").trim_end_matches(|c: char| c != '\t');
        assert_eq!(calls("t", torn.as_bytes()).expect_err("torn").line, 2);
    }
}
