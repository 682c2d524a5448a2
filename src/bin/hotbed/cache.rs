//! `hotbed cache`: where the store is, what is in it, and making room.

use crate::json::{object, string};
use crate::{Status, console, usage};
use clap::{Args, Subcommand};
use hotbed::{ByteSize, Collected, Error, Store, StoreStat};
use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// What is to be done.
#[derive(Subcommand)]
pub(crate) enum CacheCommand {
    /// Say where the store is
    Path(Options),
    /// Say what is in it
    Stat(Options),
    /// Remove what nobody needs and, if it is larger than it should be, what was not used for longest
    Gc(Options),
    /// Remove everything; programs that run are not disturbed
    Clear(Options),
    /// Say which entry would serve, or why none does
    #[command(override_help = usage::CACHE_WHY)]
    Why,
}

/// What all of them take.
#[derive(Args)]
pub(crate) struct Options {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Where the store is [default: $XDG_CACHE_HOME/hotbed or ~/.cache/hotbed]
    #[arg(long, value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// How large it gets, such as 500M or 2G [default: $HOTBED_CACHE_SIZE or 5G]
    #[arg(long, value_name = "SIZE")]
    cache_size: Option<ByteSize>,
}

/// `hotbed cache`.
pub(crate) fn cache(command: &CacheCommand) -> Status {
    let (CacheCommand::Path(options)
    | CacheCommand::Stat(options)
    | CacheCommand::Gc(options)
    | CacheCommand::Clear(options)) = command
    else {
        // It takes what `run` takes, and has been dealt with.
        return Status::Usage;
    };
    let done = store(options).and_then(|store| {
        let Some(store) = store else {
            console::say("error: there is no store without a home: give its directory with --cache-dir");
            return Ok(Status::Failure);
        };
        match command {
            CacheCommand::Path(_) => Ok(shown(&path(&store, options.json))),
            CacheCommand::Stat(_) => Ok(shown(&stat(&store, &store.stat()?, options.json))),
            CacheCommand::Gc(_) => Ok(removed(&store, store.collect()?, options.json)),
            CacheCommand::Clear(_) => Ok(removed(&store, store.clear()?, options.json)),
            CacheCommand::Why => Ok(Status::Usage),
        }
    });
    done.unwrap_or_else(|error: Error| console::fail(&error))
}

fn store(options: &Options) -> Result<Option<Store>, Error> {
    let store = match &options.cache_dir {
        Some(directory) => Some(Store::at(directory)?),
        None => Store::of_user()?,
    };
    Ok(store.map(|store| match options.cache_size {
        Some(size) => store.with_size(size),
        None => store,
    }))
}

fn path(store: &Store, json: bool) -> String {
    let path = store.path().display().to_string();
    if json { object(&[("path", string(&path))]) } else { path }
}

fn stat(store: &Store, stat: &StoreStat, json: bool) -> String {
    let seconds = |time: Option<SystemTime>| {
        time.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map(|since| since.as_secs())
    };
    let (oldest, newest) = (seconds(stat.oldest), seconds(stat.newest));
    if json {
        let optional =
            |seconds: Option<u64>| seconds.map_or_else(|| "null".to_owned(), |seconds| seconds.to_string());
        return object(&[
            ("path", string(&store.path().display().to_string())),
            ("entries", stat.entries.to_string()),
            ("images", stat.images.to_string()),
            ("used", stat.used.to_string()),
            ("bytes", stat.bytes.to_string()),
            ("budget", store.size().0.to_string()),
            ("oldest", optional(oldest)),
            ("newest", optional(newest)),
            ("orphans", stat.orphans.to_string()),
            ("orphan_bytes", stat.orphan_bytes.to_string()),
            ("stocks", stat.stocks.to_string()),
            ("stock_bytes", stat.stock_bytes.to_string()),
        ]);
    }
    let now = seconds(Some(SystemTime::now())).unwrap_or_default();
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:<10}{value}");
    };
    line("directory", store.path().display().to_string());
    line("size", format!("{} of {}", ByteSize(stat.bytes), store.size()));
    line("entries", stat.entries.to_string());
    line("images", format!("{}, {} of them used again after they were made", stat.images, stat.used));
    for (name, time) in [("oldest", oldest), ("newest", newest)] {
        if let Some(time) = time {
            line(name, age(now.saturating_sub(time)));
        }
    }
    line("stocks", format!("{}, {}", stat.stocks, ByteSize(stat.stock_bytes)));
    line("orphans", format!("{}, {}", stat.orphans, ByteSize(stat.orphan_bytes)));
    text.truncate(text.trim_end().len());
    text
}

/// So many seconds in the largest unit that goes into them.
fn age(seconds: u64) -> String {
    let units = [(86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];
    let (length, unit) = units.into_iter().find(|(length, _)| seconds >= *length).unwrap_or((1, "second"));
    let count = seconds / length;
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

fn removed(store: &Store, collected: Option<Collected>, json: bool) -> Status {
    let Some(collected) = collected else {
        let path = store.path().display();
        console::say(&format!("error: cannot remove anything in {path}: somebody else is at that"));
        return Status::Failure;
    };
    let Collected { evicted, orphans, bytes, .. } = collected;
    shown(&if json {
        object(&[
            ("path", string(&store.path().display().to_string())),
            ("images", evicted.to_string()),
            ("orphans", orphans.to_string()),
            ("bytes", bytes.to_string()),
        ])
    } else {
        format!("removed {evicted} images and {orphans} files that nobody needed, {}", ByteSize(bytes))
    })
}

fn shown(text: &str) -> Status {
    let mut out = std::io::stdout();
    // Nobody is there to be told when this cannot be written.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    Status::Success
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_one_unit() {
        for (seconds, text) in [
            (0, "0 seconds ago"),
            (1, "1 second ago"),
            (119, "1 minute ago"),
            (7_200, "2 hours ago"),
            (1_000_000, "11 days ago"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }
}
