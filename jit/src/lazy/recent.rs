//! The units of the lazy image that was made last, kept open: who maps it in this process compiles their functions next, and
//! need not read them again.

use super::link::Opened;
use crate::session::fork;
use hotbed_loader::image::note;
use hotbed_loader::sys::sync::Mutex;

/// By the checksum of the image.
static LAST: Mutex<Option<([u8; 32], Vec<Opened>)>> = Mutex::new(None);

/// Keeps the units of the image with this checksum, in the place of those of another.
pub(crate) fn remember(checksum: [u8; 32], opened: Vec<Opened>) {
    // A child of a fork finds it as it is now or as it was before.
    let _work = fork::begin();
    let before = LAST.lock().replace((checksum, opened));
    drop(before);
}

/// The units of the image in `file`, if they are kept.
pub(super) fn take(file: &[u8]) -> Vec<Opened> {
    let Ok(checksum) = note::recorded_checksum(file) else { return Vec::new() };
    let _work = fork::begin();
    let kept = LAST.lock().take_if(|(known, _)| *known == checksum);
    kept.map_or_else(Vec::new, |(_, opened)| opened)
}
