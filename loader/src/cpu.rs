//! Processors: what code may need of one beyond what every x86-64 processor has, and what this one has.
//!
//! There is one table of features, `FEATURES`, and one function that looks for them, [`CpuFeatures::host`]. Who makes an image takes
//! from it what it requires, who loads one asks it whether that is there, and who compiles for this very processor is told what that
//! is. A feature is there if the processor says so and, where it has registers of its own, the system saves these.
//!
//! **The encoding** of a set is 16 bytes, little-endian, a bit for each feature in the order of the table. So lines are added to the
//! table at its end, and none is taken out.

use crate::sys::cpuid::{Processor, Register};
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

/// A set of features of x86-64 processors, without those that all of them have.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct CpuFeatures(u128);

/// Which processors code is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CpuLevel {
    /// `x86-64`: all.
    V1,
    /// `x86-64-v2`: those with SSE4.2 and what came with it.
    V2,
    /// `x86-64-v3`: those with AVX2 and what came with it.
    V3,
    /// `x86-64-v4`: those with the common parts of AVX-512.
    V4,
    /// `native`: those that have everything that this one has.
    Native,
}

/// A word that stands for no level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no processor level {0:?}: the levels are x86-64, x86-64-v2, x86-64-v3, x86-64-v4 and native"
)]
pub struct UnknownCpuLevel(String);

/// What the system must save of each thread, so that a feature can be used.
#[derive(Debug, Clone, Copy)]
enum State {
    /// Nothing that it does not always save.
    Usual,
    /// Whatever there is, by `XSAVE`.
    Any,
    /// Registers of 32 bytes.
    Avx,
    /// Registers of 64 bytes, and masks.
    Avx512,
    /// Tiles.
    Matrix,
    /// Sixteen more general registers.
    Apx,
}

/// A feature: its name in LLVM, which behind `-m` is clang's flag for it, and where it is seen.
type Feature = (&'static str, Register, u32, State);

const FEATURES: [Feature; 100] = {
    use Register::*;
    use State::*;
    [
        ("sse3", Leaf1Ecx, 0, Usual),
        ("pclmul", Leaf1Ecx, 1, Usual),
        ("ssse3", Leaf1Ecx, 9, Usual),
        ("fma", Leaf1Ecx, 12, Avx),
        ("cx16", Leaf1Ecx, 13, Usual),
        ("sse4.1", Leaf1Ecx, 19, Usual),
        ("sse4.2", Leaf1Ecx, 20, Usual),
        ("crc32", Leaf1Ecx, 20, Usual),
        ("movbe", Leaf1Ecx, 22, Usual),
        ("popcnt", Leaf1Ecx, 23, Usual),
        ("aes", Leaf1Ecx, 25, Usual),
        ("xsave", Leaf1Ecx, 26, Any),
        ("avx", Leaf1Ecx, 28, Avx),
        ("f16c", Leaf1Ecx, 29, Avx),
        ("rdrnd", Leaf1Ecx, 30, Usual),
        ("fsgsbase", Leaf7Ebx, 0, Usual),
        ("sgx", Leaf7Ebx, 2, Usual),
        ("bmi", Leaf7Ebx, 3, Usual),
        ("avx2", Leaf7Ebx, 5, Avx),
        ("bmi2", Leaf7Ebx, 8, Usual),
        ("invpcid", Leaf7Ebx, 10, Usual),
        ("rtm", Leaf7Ebx, 11, Usual),
        ("avx512f", Leaf7Ebx, 16, Avx512),
        ("avx512dq", Leaf7Ebx, 17, Avx512),
        ("rdseed", Leaf7Ebx, 18, Usual),
        ("adx", Leaf7Ebx, 19, Usual),
        ("avx512ifma", Leaf7Ebx, 21, Avx512),
        ("clflushopt", Leaf7Ebx, 23, Usual),
        ("clwb", Leaf7Ebx, 24, Usual),
        ("avx512cd", Leaf7Ebx, 28, Avx512),
        ("sha", Leaf7Ebx, 29, Usual),
        ("avx512bw", Leaf7Ebx, 30, Avx512),
        ("avx512vl", Leaf7Ebx, 31, Avx512),
        ("avx512vbmi", Leaf7Ecx, 1, Avx512),
        ("pku", Leaf7Ecx, 4, Usual),
        ("waitpkg", Leaf7Ecx, 5, Usual),
        ("avx512vbmi2", Leaf7Ecx, 6, Avx512),
        ("shstk", Leaf7Ecx, 7, Usual),
        ("gfni", Leaf7Ecx, 8, Usual),
        ("vaes", Leaf7Ecx, 9, Avx),
        ("vpclmulqdq", Leaf7Ecx, 10, Avx),
        ("avx512vnni", Leaf7Ecx, 11, Avx512),
        ("avx512bitalg", Leaf7Ecx, 12, Avx512),
        ("avx512vpopcntdq", Leaf7Ecx, 14, Avx512),
        ("rdpid", Leaf7Ecx, 22, Usual),
        ("kl", Leaf7Ecx, 23, Usual),
        ("cldemote", Leaf7Ecx, 25, Usual),
        ("movdiri", Leaf7Ecx, 27, Usual),
        ("movdir64b", Leaf7Ecx, 28, Usual),
        ("enqcmd", Leaf7Ecx, 29, Usual),
        ("uintr", Leaf7Edx, 5, Usual),
        ("avx512vp2intersect", Leaf7Edx, 8, Avx512),
        ("serialize", Leaf7Edx, 14, Usual),
        ("tsxldtrk", Leaf7Edx, 16, Usual),
        ("pconfig", Leaf7Edx, 18, Usual),
        ("amx-bf16", Leaf7Edx, 22, Matrix),
        ("avx512fp16", Leaf7Edx, 23, Avx512),
        ("amx-tile", Leaf7Edx, 24, Matrix),
        ("amx-int8", Leaf7Edx, 25, Matrix),
        ("sha512", Leaf7MoreEax, 0, Avx),
        ("sm3", Leaf7MoreEax, 1, Avx),
        ("sm4", Leaf7MoreEax, 2, Avx),
        ("raoint", Leaf7MoreEax, 3, Usual),
        ("avxvnni", Leaf7MoreEax, 4, Avx),
        ("avx512bf16", Leaf7MoreEax, 5, Avx512),
        ("cmpccxadd", Leaf7MoreEax, 7, Usual),
        ("hreset", Leaf7MoreEax, 22, Usual),
        ("amx-fp16", Leaf7MoreEax, 21, Matrix),
        ("avxifma", Leaf7MoreEax, 23, Avx),
        ("movrs", Leaf7MoreEax, 31, Usual),
        ("avxvnniint8", Leaf7MoreEdx, 4, Avx),
        ("avxneconvert", Leaf7MoreEdx, 5, Avx),
        ("amx-complex", Leaf7MoreEdx, 8, Matrix),
        ("avxvnniint16", Leaf7MoreEdx, 10, Avx),
        ("prefetchi", Leaf7MoreEdx, 14, Usual),
        ("usermsr", Leaf7MoreEdx, 15, Usual),
        ("apxf", Leaf7MoreEdx, 21, Apx),
        ("avx10.1", Avx10, 0, Avx512),
        ("avx10.2", Avx10, 1, Avx512),
        ("xsaveopt", SaveEax, 0, Any),
        ("xsavec", SaveEax, 1, Any),
        ("xsaves", SaveEax, 3, Any),
        ("ptwrite", TraceEbx, 4, Usual),
        ("widekl", KeyEbx, 2, Usual),
        ("amx-fp8", MatrixEax, 4, Matrix),
        ("amx-tf32", MatrixEax, 6, Matrix),
        ("amx-avx512", MatrixEax, 7, Matrix),
        ("amx-movrs", MatrixEax, 8, Matrix),
        ("sahf", ExtendedEcx, 0, Usual),
        ("lzcnt", ExtendedEcx, 5, Usual),
        ("sse4a", ExtendedEcx, 6, Usual),
        ("prfchw", ExtendedEcx, 8, Usual),
        ("xop", ExtendedEcx, 11, Avx),
        ("lwp", ExtendedEcx, 15, Usual),
        ("fma4", ExtendedEcx, 16, Avx),
        ("tbm", ExtendedEcx, 21, Usual),
        ("mwaitx", ExtendedEcx, 29, Usual),
        ("clzero", SizesEbx, 0, Usual),
        ("rdpru", SizesEbx, 4, Usual),
        ("wbnoinvd", SizesEbx, 9, Usual),
    ]
};

/// What LLVM calls the parts of a feature that processors have as a whole.
const PARTS: [(&str, &[&str]); 1] =
    [("apxf", &["egpr", "ndd", "ccmp", "cf", "nf", "zu", "push2pop2", "ppx", "jmpabs"])];

/// What each level has beyond the one before.
const LEVELS: [(CpuLevel, &[&str]); 4] = [
    (CpuLevel::V1, &[]),
    (CpuLevel::V2, &["cx16", "sahf", "popcnt", "crc32", "sse3", "ssse3", "sse4.1", "sse4.2"]),
    (CpuLevel::V3, &["avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"]),
    (CpuLevel::V4, &["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"]),
];

/// The processor that this runs on; asked once.
static HERE: LazyLock<Processor> = LazyLock::new(Processor::here);

impl CpuFeatures {
    /// What every x86-64 processor has: nothing more.
    pub const NONE: Self = Self(0);
    /// More than any processor has.
    pub const ALL: Self = Self(u128::MAX);

    /// What this processor has and the system lets programs use.
    pub fn host() -> Self {
        static FOUND: LazyLock<CpuFeatures> = LazyLock::new(|| {
            let saved = |mask: u64| HERE.saved.is_some_and(|saved| saved & mask == mask);
            let usable = |state: State| match state {
                State::Usual => true,
                State::Any => saved(0),
                State::Avx => saved(0x6),
                State::Avx512 => saved(0xe6),
                State::Matrix => saved(0x6_0000),
                State::Apx => saved(0x8_0000),
            };
            let there = |(_, register, bit, state): &Feature| HERE.has(*register, *bit) && usable(*state);
            CpuFeatures::of(there)
        });
        *FOUND
    }

    /// The features with these names, which are LLVM's. What has another name is no feature of a processor, or one that all of them
    /// have.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let names: Vec<&str> = names.into_iter().collect();
        let parts =
            |name: &str| PARTS.iter().find(|(whole, _)| *whole == name).map_or(&[][..], |(_, parts)| parts);
        Self::of(|(name, ..)| names.contains(name) || parts(name).iter().any(|part| names.contains(part)))
    }

    fn of(is_in: impl Fn(&Feature) -> bool) -> Self {
        let bits = FEATURES.iter().enumerate().filter(|(_, feature)| is_in(feature));
        Self(bits.fold(0, |set, (at, _)| set | 1 << at))
    }

    /// Whether everything in `others` is in it.
    pub fn has(self, others: Self) -> bool {
        others.without(self).is_empty()
    }

    /// What is in it and not in `others`.
    pub fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// What is in both.
    pub fn and(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    /// What is in one of them.
    pub fn or(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Whether it has nothing that not every x86-64 processor has.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Their names, in the order of the alphabet.
    pub fn names(self) -> Vec<&'static str> {
        let inside = |(at, _): &(usize, &Feature)| self.0 >> at & 1 == 1;
        let mut names: Vec<_> =
            FEATURES.iter().enumerate().filter(inside).map(|(_, (name, ..))| *name).collect();
        names.sort_unstable();
        names
    }

    /// The highest level, all of which is in it.
    pub fn level(self) -> CpuLevel {
        let fits = |(level, _): &&(CpuLevel, _)| self.has(level.features());
        LEVELS.iter().rev().find(fits).map_or(CpuLevel::V1, |(level, _)| *level)
    }

    /// What makes one better than another for code that runs on both: wider vectors, then more features.
    pub fn rank(self) -> (u32, u32) {
        let width = [("avx512f", 512), ("avx", 256)];
        let width = width.iter().find(|(name, _)| self.has(Self::named([*name])));
        (width.map_or(128, |(_, bits)| *bits), self.0.count_ones())
    }

    /// Flags of clang for code that needs all of this and nothing more.
    pub fn flags(self) -> Vec<String> {
        let level = self.level();
        let more = self.without(level.features());
        let march = std::iter::once(format!("-march={level}"));
        march.chain(more.names().iter().map(|name| format!("-m{name}"))).collect()
    }

    /// The encoding.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    /// A set from its encoding.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_le_bytes(bytes))
    }
}

/// The highest level in it, and what else there is.
impl fmt::Display for CpuFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = self.level();
        write!(f, "{level}")?;
        let more = self.without(level.features()).names();
        if more.is_empty() { Ok(()) } else { write!(f, " with {}", more.join(", ")) }
    }
}

impl fmt::Debug for CpuFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

impl CpuLevel {
    /// Its name, as after clang's `-march=`.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "x86-64",
            Self::V2 => "x86-64-v2",
            Self::V3 => "x86-64-v3",
            Self::V4 => "x86-64-v4",
            Self::Native => "native",
        }
    }

    /// What it has.
    pub fn features(self) -> CpuFeatures {
        if self == Self::Native {
            return CpuFeatures::host();
        }
        let end = LEVELS.iter().position(|(level, _)| *level == self).map_or(0, |at| at + 1);
        let names = LEVELS[..end].iter().flat_map(|(_, names)| names.iter().copied());
        CpuFeatures::named(names)
    }
}

impl fmt::Display for CpuLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for CpuLevel {
    type Err = UnknownCpuLevel;

    fn from_str(name: &str) -> Result<Self, UnknownCpuLevel> {
        let all = [Self::V1, Self::V2, Self::V3, Self::V4, Self::Native];
        all.into_iter().find(|level| level.name() == name).ok_or_else(|| UnknownCpuLevel(name.to_owned()))
    }
}

/// Family, model and stepping of this processor.
pub(crate) fn signature() -> u32 {
    HERE.signature
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;

    #[test]
    fn the_features_of_this_machine_are_those_that_rust_sees() {
        let host = CpuFeatures::host();
        for (name, seen) in [
            ("sse3", is_x86_feature_detected!("sse3")),
            ("sse4.2", is_x86_feature_detected!("sse4.2")),
            ("popcnt", is_x86_feature_detected!("popcnt")),
            ("cx16", is_x86_feature_detected!("cmpxchg16b")),
            ("xsave", is_x86_feature_detected!("xsave")),
            ("avx", is_x86_feature_detected!("avx")),
            ("avx2", is_x86_feature_detected!("avx2")),
            ("fma", is_x86_feature_detected!("fma")),
            ("f16c", is_x86_feature_detected!("f16c")),
            ("bmi", is_x86_feature_detected!("bmi1")),
            ("bmi2", is_x86_feature_detected!("bmi2")),
            ("lzcnt", is_x86_feature_detected!("lzcnt")),
            ("movbe", is_x86_feature_detected!("movbe")),
            ("sha", is_x86_feature_detected!("sha")),
            ("avx512f", is_x86_feature_detected!("avx512f")),
            ("avx512vl", is_x86_feature_detected!("avx512vl")),
            ("avx512vbmi2", is_x86_feature_detected!("avx512vbmi2")),
            ("gfni", is_x86_feature_detected!("gfni")),
            ("vaes", is_x86_feature_detected!("vaes")),
        ] {
            let feature = CpuFeatures::named([name]);
            assert!(!feature.is_empty(), "{name}");
            assert_eq!(host.has(feature), seen, "{name}");
        }
    }

    #[test]
    fn levels_have_names_and_each_has_the_one_before() {
        let levels = [CpuLevel::V1, CpuLevel::V2, CpuLevel::V3, CpuLevel::V4];
        for pair in levels.windows(2) {
            let [lower, higher] = [pair[0], pair[1]].map(CpuLevel::features);
            assert!(higher.has(lower) && !lower.has(higher), "{pair:?}");
            assert!(higher.rank() > lower.rank());
        }
        for level in levels {
            assert_eq!(level.name().parse(), Ok(level));
            assert_eq!(level.features().level(), level);
            assert_eq!(level.features().flags(), [format!("-march={level}")]);
            assert_eq!(level.features().to_string(), level.name());
        }
        let count = LEVELS.iter().map(|(_, names)| names.len()).sum();
        assert_eq!(CpuLevel::V4.features().names().len(), count, "a name is not in the table");
        assert_eq!("native".parse(), Ok(CpuLevel::Native));
        let unknown = "x86-64-v5".parse::<CpuLevel>().unwrap_err().to_string();
        assert!(unknown.contains("x86-64-v5") && unknown.contains("x86-64-v4 and native"), "{unknown}");
    }

    #[test]
    fn wider_vectors_come_before_more_features() {
        let wide = CpuFeatures::named(["avx", "avx512f"]);
        let many = CpuLevel::V3.features().or(CpuFeatures::named(["sha", "aes", "gfni"]));
        assert!(wide.rank() > many.rank() && many.rank() > CpuLevel::V3.features().rank());
    }

    #[test]
    fn sets_survive_and_say_what_is_beyond_a_level() {
        let some = CpuLevel::V3.features().or(CpuFeatures::named(["sha", "aes", "no-such-thing"]));
        assert_eq!(CpuFeatures::from_bytes(some.to_bytes()), some);
        assert_eq!(some.to_string(), "x86-64-v3 with aes, sha");
        assert_eq!(some.flags(), ["-march=x86-64-v3", "-maes", "-msha"]);
        assert_eq!(CpuFeatures::named(["egpr"]).names(), ["apxf"]);
        assert_eq!(some.without(CpuLevel::V3.features()).names(), ["aes", "sha"]);
    }
}
