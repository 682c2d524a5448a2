//! The levels of the x86-64 architecture that this processor has: glibc looks for libraries in a folder's
//! `glibc-hwcaps/x86-64-vN` first, the highest level in front.

use crate::cpu::{CpuFeatures, CpuLevel};
use crate::sys::cpuid::is_intel;

/// The folder in which the folders of levels are.
pub(super) const FOLDER: &str = "glibc-hwcaps";

/// Names of the levels that this processor has, highest first; the baseline has none.
pub(super) fn supported() -> &'static [&'static str] {
    const ALL: &[&str] = &["x86-64-v4", "x86-64-v3", "x86-64-v2"];
    match CpuFeatures::host().level() {
        CpuLevel::V4 => ALL,
        CpuLevel::V3 => &ALL[1..],
        CpuLevel::V2 => &ALL[2..],
        CpuLevel::V1 | CpuLevel::Native => &[],
    }
}

/// Whether the processor is what glibc before 2.37 calls the platform `haswell`: it must be Intel's, whatever others have.
pub(super) fn has_haswell() -> bool {
    let names = ["avx2", "bmi", "bmi2", "fma", "lzcnt", "movbe", "popcnt"];
    is_intel() && CpuFeatures::host().has(CpuFeatures::named(names))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;
    use std::process::Command;

    #[test]
    fn the_run_time_linker_agrees() {
        let output = Command::new("/lib64/ld-linux-x86-64.so.2").arg("--help").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("x86-64-v2"), "this run-time linker does not list its levels: {text}");
        let listed: Vec<&str> = text
            .lines()
            .filter_map(|line| line.trim().strip_suffix(" (supported, searched)"))
            .filter(|name| name.starts_with("x86-64-v"))
            .collect();
        assert_eq!(supported(), listed);
    }
}
