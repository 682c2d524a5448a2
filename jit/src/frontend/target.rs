//! The processor that code is for, as the lines of the front end have it: its name, and all that code may use of it.
//!
//! A function with features of its own (`__attribute__((target("avx2")))`, or a module's function that was compiled for more) does not
//! count: whoever has written it asks the processor before calling it.

use crate::shim;
use hotbed_loader::cpu::CpuFeatures;
use std::collections::HashSet;

/// What code is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// LLVM's name of the processor.
    pub(crate) cpu: String,
    /// What the code needs of it.
    pub(crate) requires: CpuFeatures,
}

impl Target {
    /// Every processor.
    pub(crate) fn any() -> Self {
        Self { cpu: "x86-64".to_owned(), requires: CpuFeatures::NONE }
    }

    /// The processor that can run what becomes of all these lines (what is behind `-cc1`).
    pub(crate) fn of<'a>(lines: impl Iterator<Item = &'a [String]>) -> Self {
        let mut of_all: Option<Self> = None;
        let mut known = HashSet::new();
        for line in lines {
            let values = |flag: &'static str| {
                line.windows(2).filter(move |pair| pair[0] == flag).map(|pair| pair[1].as_str())
            };
            let cpu = values("-target-cpu").next_back().unwrap_or("x86-64");
            let changes: Vec<&str> = values("-target-feature").collect();
            // The lines of one unit mostly agree.
            if !known.insert((cpu, changes.clone())) {
                continue;
            }
            let names = shim::processor_features(cpu, &changes);
            let requires = CpuFeatures::named(names.iter().map(String::as_str));
            let all = of_all.get_or_insert_with(|| Self { cpu: cpu.to_owned(), requires });
            all.requires = all.requires.or(requires);
        }
        of_all.unwrap_or_else(Self::any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hotbed_loader::cpu::CpuLevel;

    fn of(cpu: &str, changes: &[&str]) -> CpuFeatures {
        shim::initialize();
        let changes = changes.iter().flat_map(|change| ["-target-feature", change]);
        let line: Vec<String> = ["-target-cpu", cpu].into_iter().chain(changes).map(str::to_owned).collect();
        Target::of([&line[..]].into_iter()).requires
    }

    #[test]
    fn levels_need_what_clang_takes_for_granted() {
        for level in [CpuLevel::V1, CpuLevel::V2, CpuLevel::V3, CpuLevel::V4] {
            assert_eq!(of(level.name(), &[]), level.features(), "{level}");
        }
        assert!(!of("x86-64", &["+avx2", "-avx2"]).names().contains(&"avx2"));
        // What comes with it, too.
        let names = of("x86-64", &["+avx2"]).names();
        assert!(names.contains(&"avx2") && names.contains(&"avx") && names.contains(&"sse4.2"), "{names:?}");
        assert_eq!(of("no-such-processor", &[]), CpuFeatures::NONE);
    }

    #[test]
    fn every_feature_of_a_processor_is_in_the_table() {
        shim::initialize();
        // What all have, and what is a way of generating code rather than a feature.
        let known = ["64bit", "cmov", "cx8", "fxsr", "mmx", "sse", "sse2", "x87", "evex512", "vzeroupper"];
        for cpu in
            ["diamondrapids", "clearwaterforest", "novalake", "znver5", "bdver4", "tigerlake", "alderlake"]
        {
            let names = shim::processor_features(cpu, &[]);
            assert!(names.len() > 20, "{cpu}");
            for name in names.iter().filter(|name| !known.contains(&name.as_str())) {
                assert!(!CpuFeatures::named([name.as_str()]).is_empty(), "{cpu}: {name}");
            }
        }
    }
}
