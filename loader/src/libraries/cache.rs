//! The run-time linker's cache, `/etc/ld.so.cache`, which `ldconfig` writes: names of libraries and where they are.
//!
//! ```text
//! magic and version    20 bytes   glibc-ld.so.cache1.1
//! count                u32        number of entries
//! length of strings    u32
//! flags                u8         byte order: 0 not said, 1 invalid, 2 little, 3 big endian; then 3 bytes of padding
//! extensions           u32        offset of the directory of extensions; 0 if there are none
//! unused               3 * u32
//! entries              24 bytes each:
//!     flags            i32        kind of library: 0x303 is ELF with glibc 2 for x86-64
//!     name             u32        offset of a zero-terminated string, "libz.so.1"
//!     path             u32        offset of a zero-terminated string
//!     (unused)         u32
//!     hwcap            u64        0; or 1 << 62 and in the lower half the index of a level; or, before glibc 2.37, bits
//! strings
//! extensions           u32 magic 0xeaa42174, u32 count, then for each: u32 tag, u32 flags, u32 offset, u32 size
//!                      tag 1: names of the levels (folders of `glibc-hwcaps`), u32 offsets of strings
//! ```
//!
//! Offsets count from the magic. Older systems have the old format, `ld.so-1.7.0`, in front: 12 bytes of magic, u32
//! count, entries of 12 bytes; the new one follows at the next multiple of 8. Several entries may have one name: the one with the
//! highest level that the processor has counts, then the one without a level. The file is read as a whole and every
//! offset is checked; a damaged cache is as good as none.

use super::levels;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const OLD_MAGIC: &[u8] = b"ld.so-1.7.0";
const HEADER: usize = 48;
const ENTRY: usize = 24;
const LITTLE_ENDIAN: u8 = 2;
/// x86-64, ELF, glibc 2.
const FLAGS: u32 = 0x0303;
const EXTENSIONS_MAGIC: u32 = 0xeaa4_2174;
const LEVELS: u32 = 1;
/// In the upper half of `hwcap`: the lower half is the index of a level.
const HAS_LEVEL: u32 = 1 << 30;

/// The cache, read.
#[derive(Debug)]
pub(crate) struct Cache {
    bytes: Vec<u8>,
    count: usize,
    levels: Vec<u32>,
}

/// What the cache says about one library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    /// The name it is needed by.
    pub(crate) name: &'a [u8],
    /// Where it is.
    pub(crate) path: &'a Path,
    /// How good it is: 0 for the baseline, more for higher levels.
    rank: usize,
}

impl Cache {
    /// Where it is.
    pub(crate) const PATH: &'static str = "/etc/ld.so.cache";

    /// The cache in the file `path`; `None` when there is none that can be read.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        Self::parse(std::fs::read(path).ok()?)
    }

    /// The cache in `bytes`, if they are one.
    pub(crate) fn parse(mut bytes: Vec<u8>) -> Option<Self> {
        if bytes.starts_with(OLD_MAGIC) {
            let count = word(&bytes, 12)? as usize;
            let start = count.checked_mul(12)?.checked_add(16)?.checked_next_multiple_of(8)?;
            bytes = bytes.get(start..)?.to_vec();
        }
        if !bytes.starts_with(MAGIC) || !matches!(bytes.get(28), Some(0 | &LITTLE_ENDIAN)) {
            return None;
        }
        let count = word(&bytes, 20)? as usize;
        if count.checked_mul(ENTRY)?.checked_add(HEADER)? > bytes.len() {
            return None;
        }
        let levels = levels_of(&bytes).unwrap_or_default();
        Some(Self { bytes, count, levels })
    }

    /// The entries that count on this processor.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        (0..self.count).filter_map(|index| self.entry(HEADER + index * ENTRY))
    }

    /// Where the library of that name is.
    pub(crate) fn find(&self, name: &[u8]) -> Option<PathBuf> {
        let mut best: Option<Entry<'_>> = None;
        for entry in self.entries().filter(|entry| entry.name == name) {
            if best.is_none_or(|best| entry.rank > best.rank) {
                best = Some(entry);
            }
        }
        best.map(|entry| entry.path.to_owned())
    }

    fn entry(&self, at: usize) -> Option<Entry<'_>> {
        let word = |offset: usize| word(&self.bytes, at + offset);
        if word(0)? != FLAGS {
            return None;
        }
        let rank = match (word(20)?, word(16)?) {
            (0, 0) => 0,
            (HAS_LEVEL, index) => {
                let name = self.string(*self.levels.get(index as usize)?)?;
                let supported = levels::supported();
                supported.len() - supported.iter().position(|level| level.as_bytes() == name)?
            }
            // Bits of the old kind: for processors that are not asked about any more.
            _ => return None,
        };
        Some(Entry {
            name: self.string(word(4)?)?,
            path: Path::new(OsStr::from_bytes(self.string(word(8)?)?)),
            rank,
        })
    }

    fn string(&self, offset: u32) -> Option<&[u8]> {
        let rest = self.bytes.get(offset as usize..)?;
        Some(&rest[..rest.iter().position(|byte| *byte == 0)?])
    }
}

/// Offsets of the names of levels.
fn levels_of(bytes: &[u8]) -> Option<Vec<u32>> {
    let start = word(bytes, 32)? as usize;
    if start == 0 || word(bytes, start)? != EXTENSIONS_MAGIC {
        return None;
    }
    let count = word(bytes, start + 4)? as usize;
    for section in bytes.get(start + 8..)?.chunks_exact(16).take(count) {
        if word(section, 0)? == LEVELS {
            let (offset, size) = (word(section, 8)? as usize, word(section, 12)? as usize);
            let names = bytes.get(offset..offset.checked_add(size)?)?;
            return (0..size / 4).map(|index| word(names, index * 4)).collect();
        }
    }
    None
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;
    use std::collections::BTreeMap;
    use std::process::Command;

    /// A cache as `ldconfig` would write it: name, path and level of each entry.
    pub(in crate::libraries) fn made(entries: &[(&str, &str, Option<&str>)]) -> Vec<u8> {
        let levels: Vec<&str> = entries.iter().filter_map(|entry| entry.2).collect();
        let mut strings = Vec::new();
        let base = HEADER + entries.len() * ENTRY;
        let mut string = |text: &str| {
            let at = base + strings.len();
            strings.extend_from_slice(text.as_bytes());
            strings.push(0);
            at as u32
        };
        let mut body = Vec::new();
        let mut level_index = 0_u32;
        for (name, path, level) in entries {
            let (low, high) = match level {
                None => (0, 0),
                Some(_) => {
                    level_index += 1;
                    (level_index - 1, HAS_LEVEL)
                }
            };
            for word in [FLAGS, string(name), string(path), 0, low, high] {
                body.extend_from_slice(&word.to_le_bytes());
            }
        }
        let names: Vec<u32> = levels.iter().map(|level| string(level)).collect();
        let extensions = base + strings.len();
        let mut bytes = MAGIC.to_vec();
        for word in [entries.len() as u32, strings.len() as u32, u32::from(LITTLE_ENDIAN), extensions as u32]
        {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&[0; 12]);
        bytes.extend_from_slice(&body);
        bytes.extend_from_slice(&strings);
        let at = extensions as u32 + 24;
        for word in [EXTENSIONS_MAGIC, 1, LEVELS, 0, at, names.len() as u32 * 4] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        names.iter().for_each(|name| bytes.extend_from_slice(&name.to_le_bytes()));
        bytes
    }

    #[test]
    fn the_system_s_cache_says_what_ldconfig_prints() {
        let cache = Cache::read(Path::new(Cache::PATH)).unwrap();
        let output = Command::new("/sbin/ldconfig").arg("-p").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut listed = BTreeMap::new();
        for line in text.lines() {
            // libz.so.1 (libc6,x86-64) => /lib/x86_64-linux-gnu/libz.so.1
            if let Some((name, rest)) = line.trim().split_once(' ')
                && rest.starts_with("(libc6,x86-64)")
                && let Some((_, path)) = rest.split_once(" => ")
            {
                listed.entry(name.as_bytes().to_vec()).or_insert_with(|| PathBuf::from(path));
            }
        }
        assert!(listed.len() > 20);
        for (name, path) in &listed {
            assert_eq!(cache.find(name).as_ref(), Some(path));
        }
        assert_eq!(cache.find(b"libnowhere.so.1"), None);
    }

    #[test]
    fn the_highest_level_counts_and_unknown_ones_do_not() {
        let Some(level) = levels::supported().last() else { return };
        let cache = Cache::parse(made(&[
            ("liba.so", "/x/glibc-hwcaps/z99/liba.so", Some("z99")),
            ("liba.so", "/x/liba.so", None),
            ("liba.so", "/x/glibc-hwcaps/level/liba.so", Some(level)),
            ("libb.so", "/x/glibc-hwcaps/z99/libb.so", Some("z99")),
        ]))
        .unwrap();
        assert_eq!(cache.find(b"liba.so"), Some("/x/glibc-hwcaps/level/liba.so".into()));
        assert_eq!(cache.find(b"libb.so"), None);
    }

    #[test]
    fn an_old_cache_may_stand_in_front() {
        let mut bytes = OLD_MAGIC.to_vec();
        bytes.push(0);
        bytes.extend_from_slice(&1_u32.to_le_bytes());
        bytes.extend_from_slice(&[0; 12]);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend_from_slice(&made(&[("liba.so", "/x/liba.so", None)]));
        assert_eq!(Cache::parse(bytes).unwrap().find(b"liba.so"), Some("/x/liba.so".into()));
    }

    #[test]
    fn damage_is_never_more_than_no_answer() {
        let whole = made(&[("liba.so", "/x/liba.so", None), ("libb.so", "/x/v2/libb.so", Some("x86-64-v2"))]);
        for length in 0..whole.len() {
            if let Some(cache) = Cache::parse(whole[..length].to_vec()) {
                cache.entries().count();
            }
        }
        for at in 0..whole.len() {
            for value in [0, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                if let Some(cache) = Cache::parse(bytes) {
                    cache.entries().count();
                    cache.find(b"liba.so");
                }
            }
        }
    }
}
