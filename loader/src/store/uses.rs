//! When images were used, for whoever has to decide which of them can go.
//!
//! `<store>/used/<checksum>` is an empty file. Its time of modification is when the image was last used, to a day: so a
//! warm start makes one status call for it, and writes once a day. Where there is none, the image was not used again since it was
//! made. The image's own times will not do: they are in memos, which say that its contents need not be read again.
//!
//! Clocks are set, backwards too. A time more than a day ahead was written by a wrong clock and tells nothing; the next use
//! writes it anew.

use super::{Store, in_folder_of};
use crate::sys::files::{FileStatus, Stamp};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

pub(super) const FOLDER: &str = "used";

/// How exact the times are.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Store {
    /// Notes that the image with this checksum is used. What cannot be noted is not: it is used all the same.
    pub fn note_use(&self, checksum: &[u8; 32]) {
        let path = self.use_path(checksum);
        let known = FileStatus::of_link(&path).map(|status| status.identity.mtime_ns);
        if !known.is_ok_and(|time| is_of_today(time, Stamp::now())) {
            let _ = in_folder_of(&path, || touch(&path));
        }
    }

    pub(super) fn use_path(&self, checksum: &[u8; 32]) -> PathBuf {
        self.named(FOLDER, &blake3::Hash::from_bytes(*checksum).to_hex(), "")
    }
}

/// Whether `time`, in nanoseconds since 1970, is `now` as far as that is exact.
pub(super) fn is_of_today(time: i64, now: Stamp) -> bool {
    u128::from(now.nanoseconds().abs_diff(time)) < DAY.as_nanos()
}

/// Whether `time`, in nanoseconds since 1970, is of a clock that was wrong.
pub(super) fn is_wrong(time: i64, now: Stamp) -> bool {
    time > now.nanoseconds() && !is_of_today(time, now)
}

/// Gives an empty file the time of now, and makes it if there is none.
fn touch(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options.open(path)?.set_modified(SystemTime::now())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::super::tests::Scratch;
    use super::*;

    #[test]
    fn a_use_is_written_once_a_day_whatever_the_clock_did() {
        let scratch = Scratch::new("uses");
        let store = scratch.store();
        store.note_use(&[7; 32]);
        let path = store.use_path(&[7; 32]);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let age = || SystemTime::now().duration_since(file.metadata().unwrap().modified().unwrap());
        for (moved, written) in [
            (SystemTime::now() - DAY / 2, false),
            (SystemTime::now() - DAY * 2, true),
            (SystemTime::now() + DAY / 2, false),
            (SystemTime::now() + DAY * 400, true),
        ] {
            file.set_modified(moved).unwrap();
            store.note_use(&[7; 32]);
            let now = age().is_ok_and(|age| age < DAY / 4);
            assert_eq!(now, written, "{moved:?}");
        }
        assert!(!scratch.path("store/used").join("other").exists());
    }
}
