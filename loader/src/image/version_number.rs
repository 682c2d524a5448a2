//! Numbers for versions that are needed: who needs the same version of the same library has the same number, in every
//! image and as long as the process lives. So whoever remembers something about a version compares a number rather than
//! two texts.

use super::needle::Needle;
use super::place::Strings;
use super::versions::Version;
use std::num::NonZeroU32;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// That many get a number, far more than a process has: images that lie must not fill the memory.
const MOST: u32 = 4096;
const LISTS: usize = 64;

/// Lists by hash that only grow and are read without a lock, so that a forked process can go on with them.
static LISTS_OF_HASH: [OnceLock<Box<Entry>>; LISTS] = [const { OnceLock::new() }; LISTS];
static COUNT: AtomicU32 = AtomicU32::new(0);

struct Entry {
    hash: u32,
    number: NonZeroU32,
    name: Needle,
    file: Needle,
    next: OnceLock<Box<Entry>>,
}

/// The version whose ELF hash is `hash`, and whose name and library stand at `name` and `file` among the strings. It has
/// no number where there are too many. `None` when a text lies outside.
#[inline]
pub(super) fn needed(strings: Strings, hash: u32, name: u32, file: u32) -> Option<Version> {
    let mut place = &LISTS_OF_HASH[hash as usize % LISTS];
    while let Some(entry) = place.get() {
        if entry.hash == hash
            && let Some(name) = strings.get_if(name, &entry.name)
            && let Some(file) = strings.get_if(file, &entry.file)
        {
            return Some(Version { name, hash, file, number: Some(entry.number) });
        }
        place = &entry.next;
    }
    let (name, file) = (strings.get(name.into())?, strings.get(file.into())?);
    Some(Version { name, hash, file, number: enter(place, hash, name, file) })
}

/// Enters a version at the end of its list, or behind what other threads are entering there.
#[cold]
fn enter(end: &OnceLock<Box<Entry>>, hash: u32, name: &[u8], file: &[u8]) -> Option<NonZeroU32> {
    let mut place = end;
    loop {
        if COUNT.load(Ordering::Relaxed) >= MOST {
            return None;
        }
        let number = || NonZeroU32::new(COUNT.fetch_add(1, Ordering::Relaxed) + 1).unwrap_or(NonZeroU32::MAX);
        let (name_, file_) = (Needle::new(name), Needle::new(file));
        let entry = place.get_or_init(|| {
            Box::new(Entry { hash, number: number(), name: name_, file: file_, next: OnceLock::new() })
        });
        if entry.hash == hash && entry.name.is(name) && entry.file.is(file) {
            return Some(entry.number);
        }
        place = &entry.next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_one_number() {
        let mut table: Vec<u8> = b"a test's\0another\0".to_vec();
        let places: Vec<u32> = (0..200)
            .map(|at| {
                let place = table.len() as u32;
                table.extend_from_slice(format!("VERSION_{at}\0").as_bytes());
                place
            })
            .collect();
        let strings = Strings::new(table.leak());
        // Few hashes, as if by chance.
        let version = |place: u32, file| needed(strings, place % 7, place, file);
        let all: Vec<Vec<_>> = std::thread::scope(|scope| {
            let numbers = || places.iter().map(|place| version(*place, 0).map(|one| one.number)).collect();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(numbers)).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        assert!(all.len() == 4 && all.iter().all(|numbers| *numbers == all[0]));
        let mut different = all[0].clone();
        different.sort_unstable();
        different.dedup();
        assert!(different.len() == places.len() && different.iter().flatten().all(Option::is_some));
        let texts = |version: Option<Version>| version.map(|one| (one.name, one.file));
        assert_eq!(texts(version(places[5], 0)), Some((&b"VERSION_5"[..], &b"a test's"[..])));
        assert_eq!(texts(version(places[5], 9)), Some((&b"VERSION_5"[..], &b"another"[..])));
        assert_ne!(version(places[5], 9).map(|one| one.number), Some(all[0][5].flatten()));
        assert_eq!(version(u32::MAX, 0), None);
    }
}
