//! Every figure that Hotbed claims, with its peers measured in the same run.
//!
//! `hotbed-bench list` shows the rows, `hotbed-bench run [ID or PREFIX...]` measures them. A row compares Hotbed with
//! a peer that does the same work on the same input, the two interleaved; its bar says how large the ratio of the two
//! medians may be. Rows that do not hold stay in the table.
//!
//! | file | what |
//! |---|---|
//! | `row` | what a row is, its bar, its outcome, whether it holds |
//! | `rows` | the rows, one file a topic |
//! | `measure` | interleaving, warm-up, medians |
//! | `context` | where the command, the plugin, the inputs and the scratch folder are |
//! | `process` | programs that are run to the end |
//! | `programs` | the programs that rows start, as executables and as images |
//! | `side` | one side of a row in a process of its own |
//! | `elf` | the little that the bench reads of linked files |
//! | `generated` | sources and images that the bench makes up |
//! | `template` | many tiny images out of one |
//! | `memory` | what the system says about this process's memory |
//! | `peers` | what Hotbed is compared with in process: `dlopen`, LLJIT, LibraryResolver |
//! | `runner` | each row in a process of its own |
//! | `report` | the table, JSON, Markdown and the plot |

mod context;
mod elf;
mod generated;
mod measure;
mod memory;
mod peers;
mod process;
mod programs;
mod report;
mod row;
mod rows;
mod runner;
mod side;
mod template;

use clap::{Parser, Subcommand};
use context::Context;
use report::Format;
use row::Row;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

/// What a measurement gives, or why there is none.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Measures Hotbed against its peers.
#[derive(Parser)]
#[command(name = "hotbed-bench", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// What the bench can do.
#[derive(Subcommand)]
enum Command {
    /// Show the rows: id, bar, what is measured and against what.
    List,
    /// Measure rows and compare them with their bars.
    Run {
        /// Ids of rows, or what they begin with; all rows when there is none.
        rows: Vec<String>,
        /// One JSON object a line instead of a table.
        #[arg(long)]
        json: bool,
        /// Write bench/RESULTS.md and bench/results.svg as well; for a run of all rows.
        #[arg(long, conflicts_with = "rows")]
        write: bool,
    },
    /// Measure one row in this process and write the outcome to a file; what `run` does for each row.
    #[command(hide = true)]
    Row {
        /// Id of the row.
        id: String,
        /// Where the outcome goes.
        outcome: PathBuf,
    },
    /// Measure one side of a row in this process and write its figures to a file; what rows do whose sides must not
    /// share a process.
    #[command(hide = true)]
    Side {
        /// Id of the side.
        id: String,
        /// Where the figures go.
        figures: PathBuf,
        /// What the side wants to know.
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::List => {
            report::list(rows::ALL);
            Ok(true)
        }
        Command::Run { rows, json, write } => {
            run(&rows, if json { Format::Json } else { Format::Table }, write)
        }
        Command::Row { id, outcome } => runner::measure_here(&id, &outcome).map(|()| true),
        Command::Side { id, figures, arguments } => {
            side::measure_here(&id, &figures, &arguments).map(|()| true)
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("hotbed-bench: error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures the rows that are asked for; false when one could not be measured.
fn run(wanted: &[String], format: Format, write: bool) -> Result<bool> {
    let rows = select(wanted)?;
    let context = Context::new()?;
    let mut report = report::Report::new(format);
    for row in rows {
        report.add(row, runner::measure_apart(row, &context));
    }
    report.close();
    if write {
        report.write(context.root())?;
    }
    Ok(report.is_complete())
}

/// The rows that `wanted` names, in their own order.
fn select(wanted: &[String]) -> Result<Vec<&'static Row>> {
    if let Some(unknown) = wanted.iter().find(|w| !rows::ALL.iter().any(|row| row.id.starts_with(w.as_str())))
    {
        return Err(format!("no row begins with {unknown:?}; `list` shows them all").into());
    }
    let asked = |row: &&Row| wanted.is_empty() || wanted.iter().any(|w| row.id.starts_with(w.as_str()));
    Ok(rows::ALL.iter().filter(asked).collect())
}
