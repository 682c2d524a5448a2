//! The table on the terminal, a line as soon as its row is measured.

use super::{Entry, figure};
use std::io::{IsTerminal, Write};

/// Above the rows.
pub(super) fn head() {
    println!(
        "{:<24} {:>10} {:>10} {:<5} {:>8} {:>7} {:>5}  ",
        "row", "ours", "peer", "unit", "ratio", "bar", "n"
    );
}

/// One row.
pub(super) fn line(entry: &Entry) {
    let or_dash = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), figure);
    let verdict = entry.verdict();
    let verdict = match (std::io::stdout().is_terminal(), entry.holds()) {
        (false, _) => verdict.to_owned(),
        (true, true) => format!("\x1b[32m{verdict}\x1b[0m"),
        (true, false) => format!("\x1b[31m{verdict}\x1b[0m"),
    };
    println!(
        "{:<24} {:>10} {:>10} {:<5} {:>8} {:>7} {:>5}  {verdict}",
        entry.row.id,
        or_dash(entry.ours()),
        or_dash(entry.peer()),
        entry.row.unit.name(),
        entry.ratio().map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}")),
        entry.bar.value(),
        entry.n(),
    );
    if let Some(note) = entry.note() {
        println!("    {note}");
    }
    // A reader of a pipe sees each row when it is done. That nobody reads is no reason to stop measuring.
    let _ = std::io::stdout().flush();
}

/// Below the rows.
pub(super) fn foot(entries: &[Entry]) {
    let short = entries.iter().filter(|entry| !entry.holds()).count();
    println!("{} rows, {} hold, {short} do not", entries.len(), entries.len() - short);
}
