//! `bench/RESULTS.md`: the table with what each row measures, and the machine it was measured on.

use super::{Entry, figure};
use crate::Result;
use crate::row::Bar;
use std::fmt::Write;
use std::process::Command;

/// The whole page.
///
/// # Errors
/// Never; writing to a string can fail only in type.
pub(super) fn page(entries: &[Entry]) -> Result<String> {
    let mut page = String::from(
        "# Results of the bench\n\n\
         Written by `make bench`. Medians; ours and the peer are measured in turn, in the same run, on the same input. A row \
         holds when the ratio of ours to the peer's (or ours itself, where there is no peer) is at most the bar. Rows that do \
         not hold stay here.\n\n",
    );
    writeln!(page, "Machine: {}.\n", machine())?;
    page.push_str("![How far each row is from its bar](results.svg)\n\n");
    page.push_str("| row | ours | peer | ratio | bar | n | holds |\n|---|---|---|---|---|---|---|\n");
    for entry in entries {
        let unit = entry.row.unit.name();
        let with_unit =
            |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{} {unit}", figure(v)));
        writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} | {} |",
            entry.row.id,
            with_unit(entry.ours()),
            with_unit(entry.peer()),
            entry.ratio().map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}x")),
            match entry.bar {
                Bar::Ratio(bar) => format!("{bar}x"),
                Bar::Absolute(bar) => bar.to_string(),
            },
            entry.n(),
            if entry.holds() { "yes" } else { "**no**" },
        )?;
    }
    page.push_str("\n| row | ours is | the peer is |\n|---|---|---|\n");
    for entry in entries {
        writeln!(page, "| {} | {} | {} |", entry.row.id, entry.row.what, entry.row.peer)?;
    }
    let notes: Vec<_> = entries.iter().filter_map(|e| e.note().map(|note| (e.row.id, note))).collect();
    if !notes.is_empty() {
        page.push('\n');
    }
    for (id, note) in notes {
        writeln!(page, "- {id}: {}", note)?;
    }
    Ok(page)
}

/// Processor, kernel, C library and compiler, as far as they can be found out.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let first_line = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().next().map(|line| line.trim().to_owned())
    };
    let processor = read("/proc/cpuinfo").lines().find_map(|line| {
        line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim().to_owned())
    });
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease").trim().to_owned();
    let parts = [
        processor.map(|name| format!("{name}, {count} processors")),
        (!kernel.is_empty()).then(|| format!("Linux {kernel}")),
        first_line("getconf", "GNU_LIBC_VERSION"),
        first_line("clang-22", "--version"),
    ];
    let known: Vec<_> = parts.into_iter().flatten().collect();
    if known.is_empty() { "unknown".to_owned() } else { known.join("; ") }
}
