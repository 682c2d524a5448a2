//! A row as one line of JSON: `id ours peer unit ratio bar holds n`, and `note` where a figure is missing.

use super::Entry;

/// The line, without its end.
pub(super) fn line(entry: &Entry) -> String {
    let mut line = format!(
        "{{\"id\":{},\"ours\":{},\"peer\":{},\"unit\":{},\"ratio\":{},\"bar\":{},\"holds\":{},\"n\":{}",
        text(entry.row.id),
        number(entry.ours()),
        number(entry.peer()),
        text(entry.row.unit.name()),
        number(entry.ratio()),
        number(Some(entry.bar.value())),
        entry.holds(),
        entry.n(),
    );
    if let Some(note) = entry.note() {
        line.push_str(",\"note\":");
        line.push_str(&text(&note));
    }
    line.push('}');
    line
}

/// A number, with more digits than any clock has.
fn number(value: Option<f64>) -> String {
    match value {
        Some(value) if value.is_finite() => format!("{}", (value * 1e6).round() / 1e6),
        _ => "null".to_owned(),
    }
}

/// A string in quotes.
fn text(value: &str) -> String {
    let mut quoted = String::from("\"");
    for character in value.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            c if c < ' ' || c == '\x7f' => quoted.push_str(&format!("\\u{:04x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end with a panic")]
    use super::*;
    use crate::row::{Bar, Outcome, Peer};

    fn entry(bar: Bar, outcome: Result<Outcome, String>) -> Entry {
        Entry { row: &crate::rows::ALL[0], bar, outcome }
    }

    #[test]
    fn a_row_is_one_object() {
        let outcome = Outcome { ours: 1.25, peer: Peer::Measured(0.5), n: 60 };
        assert_eq!(
            line(&entry(Bar::Ratio(2.5), Ok(outcome))),
            r#"{"id":"first.hello-exe","ours":1.25,"peer":0.5,"unit":"ms","ratio":2.5,"bar":2.5,"holds":true,"n":60}"#
        );
        let outcome = Outcome { ours: 0.0, peer: Peer::None, n: 7 };
        assert!(
            line(&entry(Bar::Absolute(0.0), Ok(outcome)))
                .ends_with(r#""ours":0,"peer":null,"unit":"ms","ratio":null,"bar":0,"holds":true,"n":7}"#)
        );
    }

    #[test]
    fn what_is_missing_is_null_and_said() {
        let outcome = Outcome { ours: 1.0, peer: Peer::Missing("tcc is not installed".into()), n: 7 };
        let missing = line(&entry(Bar::Ratio(1.0), Ok(outcome)));
        assert!(missing.contains(r#""peer":null"#) && missing.contains(r#""holds":false"#));
        assert!(missing.ends_with(r#""note":"no peer: tcc is not installed"}"#));
        let failed = line(&entry(Bar::Ratio(1.0), Err("a \"quoted\"\nreason\\".into())));
        assert!(failed.contains(r#""ours":null"#));
        assert!(failed.ends_with(r#""note":"not measured: a \"quoted\"\u000areason\\"}"#));
    }
}
