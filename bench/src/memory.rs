//! What the system says about this process's memory.
//!
//! Resident memory is `Rss` of `/proc/self/smaps_rollup`: the kernel walks the page tables for it, so it is exact, where
//! the counters of `/proc/self/statm` lag behind by up to some dozen pages a thread. It is not `Pss`: that divides a page
//! by the number of processes that map it, so the figure of a side would depend on who else runs (the process that
//! started it maps the same program and C library). What rows compare is mapped by one process only, where both say the
//! same of the pages that are added.

use crate::Result;

/// Resident memory of this process in kilobytes.
///
/// # Errors
/// When the system does not say.
pub(crate) fn resident() -> Result<f64> {
    let path = "/proc/self/smaps_rollup";
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    rss(&text).ok_or_else(|| format!("{path} says nothing of Rss").into())
}

/// How many mappings this process has.
///
/// # Errors
/// When the system does not say.
pub(crate) fn mappings() -> Result<f64> {
    let path = "/proc/self/maps";
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    Ok(text.lines().count() as f64)
}

/// The figure in the line `Rss:     1234 kB`.
fn rss(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end with a panic")]
    use super::*;

    #[test]
    fn the_figure_is_found_and_grows_with_what_is_touched() {
        assert_eq!(rss("00-ff ---p 0 00:00 0 [rollup]\nRss:     1234 kB\nPss: 5 kB\n"), Some(1234.0));
        assert_eq!(rss("Pss: 5 kB\n"), None);
        let before = resident().unwrap();
        let touched = std::hint::black_box(vec![1u8; 16 << 20]);
        assert!(resident().unwrap() >= before + 8192.0);
        drop(touched);
        assert!(mappings().unwrap() > 5.0);
    }
}
