//! The levels of the x86-64 architecture that this processor has: glibc looks for libraries in a folder's
//! `glibc-hwcaps/x86-64-vN` first, the highest level in front.

use std::arch::is_x86_feature_detected;
use std::sync::OnceLock;

/// The folder in which the folders of levels are.
pub(super) const FOLDER: &str = "glibc-hwcaps";

/// Names of the levels that this processor has, highest first; the baseline has none.
pub(super) fn supported() -> &'static [&'static str] {
    static LEVELS: OnceLock<&'static [&'static str]> = OnceLock::new();
    LEVELS.get_or_init(|| {
        const ALL: &[&str] = &["x86-64-v4", "x86-64-v3", "x86-64-v2"];
        // Each has what those below it have.
        let second = is_x86_feature_detected!("cmpxchg16b")
            && is_x86_feature_detected!("popcnt")
            && is_x86_feature_detected!("sse3")
            && is_x86_feature_detected!("ssse3")
            && is_x86_feature_detected!("sse4.1")
            && is_x86_feature_detected!("sse4.2");
        let third = has_haswell() && is_x86_feature_detected!("f16c");
        let fourth = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512cd")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        match (second, third, fourth) {
            (true, true, true) => ALL,
            (true, true, false) => &ALL[1..],
            (true, false, _) => &ALL[2..],
            (false, ..) => &[],
        }
    })
}

/// Whether the processor has what glibc before 2.37 calls the platform `haswell`.
pub(super) fn has_haswell() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("movbe")
        && is_x86_feature_detected!("popcnt")
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
