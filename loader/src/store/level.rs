//! Levels of optimisation: an image made at a higher one serves who asks for a lower one, unless a source could tell.
//!
//! `-O0` to `-O3` are a scale. A source can tell where it is on it by three macros that clang predefines or does not: the front
//! end reports which of them the preprocessor was asked about, by the sources or their headers, and an entry of the store has
//! them noted. `-O1`, `-O2` and `-O3` define the same. A precompiled header or a module is for one level: clang refuses it
//! at others, and so does the store.
//!
//! Where no flag says the level, it is that of `-O0`, unless a configuration file of clang's says something else. What such
//! files say is not read here; so where an image was made with one, levels of which one is unsaid have no rank.

use super::reasons::{Difference, Miss};
use crate::boundary::LevelSigns;

/// A level on the scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(super) enum Level {
    /// No flag says it.
    Unsaid = 0,
    /// `-O0`.
    O0 = 1,
    /// `-O1`.
    O1 = 2,
    /// `-O2`.
    O2 = 3,
    /// `-O3`.
    O3 = 4,
}

impl Level {
    const ALL: [Self; 5] = [Self::Unsaid, Self::O0, Self::O1, Self::O2, Self::O3];

    /// The level that `flag` chooses; nothing if that is not on the scale.
    pub(super) fn of_flag(flag: &str) -> Option<Self> {
        Some(match flag {
            "-O0" => Self::O0,
            "-O" | "-O1" => Self::O1,
            "-O2" => Self::O2,
            "-O3" => Self::O3,
            _ => return None,
        })
    }

    /// The flag that chooses it; empty where none does.
    pub(super) fn flag(self) -> &'static str {
        match self {
            Self::Unsaid => "",
            Self::O0 => "-O0",
            Self::O1 => "-O1",
            Self::O2 => "-O2",
            Self::O3 => "-O3",
        }
    }

    /// The level with that discriminant.
    pub(super) fn from_tag(tag: u8) -> Option<Self> {
        Self::ALL.get(usize::from(tag)).copied()
    }

    fn rank(self) -> u8 {
        match self {
            Self::Unsaid | Self::O0 => 0,
            Self::O1 => 1,
            Self::O2 => 2,
            Self::O3 => 3,
        }
    }

    /// Which of the macros clang predefines at it.
    fn macros(self) -> LevelSigns {
        match self {
            Self::Unsaid | Self::O0 => LevelSigns::NO_INLINE,
            Self::O1 | Self::O2 | Self::O3 => LevelSigns::OPTIMIZE,
        }
    }

    /// Whether an image made at this level, of sources that looked at `seen`, serves who asks for `asked`. `configured`
    /// says whether a configuration file of clang's was read for it.
    ///
    /// # Errors
    /// Why it does not.
    pub(super) fn serves(
        self,
        asked: Self,
        seen: LevelSigns,
        configured: impl FnOnce() -> bool,
    ) -> Result<(), Miss> {
        if self == asked {
            return Ok(());
        }
        let difference = || Difference { asked: asked.flag().into(), has: self.flag().into() };
        let unsaid = [self, asked].contains(&Self::Unsaid);
        if self.rank() < asked.rank() || unsaid && configured() {
            return Err(Miss::Level(difference()));
        }
        let differ = self.macros() ^ asked.macros() | LevelSigns::PRECOMPILED;
        match (seen & differ).first() {
            Some(name) => Err(Miss::LevelSeen { name, levels: difference() }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_level_serves_unless_the_source_can_tell() {
        let all = LevelSigns::OPTIMIZE | LevelSigns::OPTIMIZE_SIZE | LevelSigns::NO_INLINE;
        for has in Level::ALL {
            for asked in Level::ALL {
                let what = format!("{asked:?} by {has:?}");
                let higher = has.rank() >= asked.rank();
                assert_eq!(has.serves(asked, LevelSigns::NONE, || false).is_ok(), higher, "{what}");
                let told = (has.rank() == 0) != (asked.rank() == 0);
                assert_eq!(has.serves(asked, all, || false).is_ok(), higher && !told, "{what}, looked at");
                let unsaid = has != asked && [has, asked].contains(&Level::Unsaid);
                let configured = has.serves(asked, LevelSigns::NONE, || true).is_ok();
                assert_eq!(configured, higher && !unsaid, "{what}, configured");
                // Nothing on the scale is about size.
                assert_eq!(has.serves(asked, LevelSigns::OPTIMIZE_SIZE, || false).is_ok(), higher, "{what}");
                let precompiled = has.serves(asked, LevelSigns::PRECOMPILED, || false);
                assert_eq!(precompiled.is_ok(), has == asked, "{what}, precompiled");
            }
            assert_eq!(Level::from_tag(has as u8), Some(has));
            assert!(has == Level::Unsaid || Level::of_flag(has.flag()) == Some(has));
        }
        assert_eq!(Level::from_tag(5), None);
        for flag in ["-Os", "-Oz", "-Og", "-Ofast", "-O4", "--optimize=2"] {
            assert_eq!(Level::of_flag(flag), None, "{flag}");
        }
        let seen = Level::O2.serves(Level::O0, LevelSigns::OPTIMIZE, || false);
        assert!(seen.is_err_and(|miss| miss.to_string().contains("__OPTIMIZE__")));
    }
}
