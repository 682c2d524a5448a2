//! What tells a source at which level it is optimised.

use std::ops::{BitAnd, BitOr, BitOrAssign, BitXor};

/// Some of what tells a source the level of optimisation: macros that clang predefines at some levels, and what was compiled
/// before, which is for one level only. Those that a source, its headers included, has looked at, or those that are there at a
/// level. Their numbers are known in `jit/shim/compile.cpp`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LevelSigns(u8);

const NAMES: [&str; 4] =
    ["__OPTIMIZE__", "__OPTIMIZE_SIZE__", "__NO_INLINE__", "a precompiled header or a module"];

impl LevelSigns {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// `__OPTIMIZE__`.
    pub const OPTIMIZE: Self = Self(1);
    /// `__OPTIMIZE_SIZE__`.
    pub const OPTIMIZE_SIZE: Self = Self(2);
    /// `__NO_INLINE__`.
    pub const NO_INLINE: Self = Self(4);
    /// A precompiled header or a module.
    pub const PRECOMPILED: Self = Self(8);

    /// The set with these bits; bits that stand for nothing are left out.
    pub fn from_bits(bits: u8) -> Self {
        Self(bits & ((1 << NAMES.len()) - 1))
    }

    /// A bit for each sign.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// What the first of them is called.
    pub fn first(self) -> Option<&'static str> {
        NAMES.get(self.0.trailing_zeros() as usize).copied()
    }
}

impl BitOrAssign for LevelSigns {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl BitOr for LevelSigns {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for LevelSigns {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl BitXor for LevelSigns {
    type Output = Self;

    fn bitxor(self, other: Self) -> Self {
        Self(self.0 ^ other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_told_apart_and_named() {
        let mut set = LevelSigns::NONE;
        assert_eq!(set.first(), None);
        set |= LevelSigns::NO_INLINE;
        assert_eq!(set.first(), Some("__NO_INLINE__"));
        set |= LevelSigns::OPTIMIZE;
        assert_eq!(set.first(), Some("__OPTIMIZE__"));
        assert_eq!(set ^ LevelSigns::OPTIMIZE, LevelSigns::NO_INLINE);
        assert_eq!(set & LevelSigns::OPTIMIZE_SIZE, LevelSigns::NONE);
        assert_eq!(set, LevelSigns::OPTIMIZE | LevelSigns::NO_INLINE);
        assert_eq!(LevelSigns::from_bits(0xff).bits(), 15);
    }
}
