//! Where the run-time linker will find a library: the file is looked at before it is opened.
//!
//! The order is glibc's: the folders that the needing library names (`DT_RUNPATH` or `DT_RPATH`, with `$ORIGIN`),
//! `LD_LIBRARY_PATH`, `/etc/ld.so.cache`, the system's folders. What is not found here is not looked at; whether it can
//! be opened is for `dlopen` to say.
//!
//! The cache, as `ldconfig` has written it since glibc 2.2 (and by itself since 2.32), in the machine's byte order:
//!
//! | offset | size | contents                                                                    |
//! |--------|------|-----------------------------------------------------------------------------|
//! | 0      | 20   | `glibc-ld.so.cache1.1`                                                      |
//! | 20     | 4    | number of entries                                                           |
//! | 24     | 24   | length of the strings and what later versions have added                    |
//! | 48     | 24 n | entries: flags (4), offset of the name (4), of the path (4), 12 bytes more  |
//!
//! Offsets are from the beginning of the file, names and paths end with a zero. Flags `0x0303` say: a library for
//! glibc on x86-64.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const HEADER: usize = 48;
const ENTRY: usize = 24;
const LIBRARY_OF_X86_64: u32 = 0x0303;

/// The folders that are searched when nothing else has the library, as Debian and others have them.
const FOLDERS: [&str; 6] =
    ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"];

/// Finds the files of libraries. The cache is read once, when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct Search {
    cache: Option<Vec<u8>>,
}

impl Search {
    /// The file of the library `name`, needed by one in the folder `origin` that looks in `run_path` first.
    pub(crate) fn find(
        &mut self,
        name: &[u8],
        run_path: Option<&[u8]>,
        origin: Option<&Path>,
    ) -> Option<PathBuf> {
        let plain = Path::new(OsStr::from_bytes(name));
        if name.contains(&b'/') {
            return plain.exists().then(|| plain.to_owned());
        }
        let in_folder = |folder: PathBuf| {
            let path = folder.join(plain);
            path.exists().then_some(path)
        };
        let own = run_path.into_iter().flat_map(|path| folders(path, origin)).find_map(in_folder);
        own.or_else(|| {
            let path = std::env::var_os("LD_LIBRARY_PATH")?;
            let mut folders = path.as_bytes().split(|byte| matches!(byte, b':' | b';'));
            folders.find_map(|folder| {
                in_folder(if folder.is_empty() { ".".into() } else { OsStr::from_bytes(folder).into() })
            })
        })
        .or_else(|| self.in_cache(name).filter(|path| path.exists()))
        .or_else(|| FOLDERS.iter().map(PathBuf::from).find_map(in_folder))
    }

    fn in_cache(&mut self, name: &[u8]) -> Option<PathBuf> {
        let cache = self.cache.get_or_insert_with(|| std::fs::read("/etc/ld.so.cache").unwrap_or_default());
        in_cache(cache, name)
    }
}

/// The first path that the cache has under that name.
fn in_cache(cache: &[u8], name: &[u8]) -> Option<PathBuf> {
    if !cache.starts_with(MAGIC) {
        return None;
    }
    let word = |at: usize| {
        let bytes = cache.get(at..)?.first_chunk::<4>()?;
        Some(u32::from_le_bytes(*bytes))
    };
    let text = |offset: u32| {
        let rest = cache.get(offset as usize..)?;
        rest.get(..rest.iter().position(|byte| *byte == 0)?)
    };
    let count = word(MAGIC.len())? as usize;
    let entries = cache.get(HEADER..)?.chunks_exact(ENTRY).take(count).enumerate();
    for (at, _) in entries {
        let entry = HEADER + at * ENTRY;
        let key = word(entry + 4)? as usize;
        let named = cache.get(key..key.checked_add(name.len() + 1)?);
        if named.is_some_and(|text| text.starts_with(name) && text.ends_with(&[0]))
            && word(entry)? == LIBRARY_OF_X86_64
        {
            return Some(PathBuf::from(OsStr::from_bytes(text(word(entry + 8)?)?)));
        }
    }
    None
}

/// The folders of a search path of a file that lies in `origin`; those that name what is not known are left out.
pub(crate) fn folders(path: &[u8], origin: Option<&Path>) -> Vec<PathBuf> {
    let text = String::from_utf8_lossy(path);
    let origin = origin.map(|folder| {
        if folder.as_os_str().is_empty() { ".".into() } else { folder.to_string_lossy().into_owned() }
    });
    let folders = text.split(':').filter(|folder| !folder.is_empty()).filter_map(|folder| {
        if !folder.contains('$') {
            return Some(PathBuf::from(folder));
        }
        let folder = match &origin {
            Some(origin) => folder.replace("${ORIGIN}", origin).replace("$ORIGIN", origin),
            None => folder.to_owned(),
        };
        (!folder.contains('$')).then(|| PathBuf::from(folder))
    });
    folders.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_where_the_run_time_linker_finds_them() {
        let found = Search::default().find(b"libc.so.6", None, None);
        let mut loaded = None;
        crate::sys::libraries::for_each(|library| {
            let path = library.name.to_string_lossy().into_owned();
            if path.ends_with("/libc.so.6") {
                loaded = Some(path);
            }
            true
        });
        let real = |path: &Path| std::fs::canonicalize(path).ok();
        assert_eq!(
            found.as_deref().and_then(real),
            loaded.as_deref().map(Path::new).and_then(real),
            "{found:?} {loaded:?}"
        );
        assert_eq!(Search::default().find(b"libnobody-has-this.so.9", None, None), None);
    }

    #[test]
    fn origin_is_the_folder_of_the_file() {
        let folders = |text: &str, origin| folders(text.as_bytes(), origin);
        assert_eq!(
            folders("$ORIGIN/../lib:/x::${ORIGIN}:$LIB/y", Some(Path::new("/a"))),
            ["/a/../lib", "/x", "/a"].map(PathBuf::from)
        );
        assert_eq!(folders("$ORIGIN/lib:/x", None), [PathBuf::from("/x")]);
    }

    #[test]
    fn a_damaged_cache_has_nothing() {
        let cache = std::fs::read("/etc/ld.so.cache").unwrap_or_default();
        for end in (0..cache.len()).step_by(97) {
            in_cache(&cache[..end], b"libc.so.6");
        }
        let mut wild = cache.clone();
        for (at, byte) in wild.iter_mut().enumerate().skip(MAGIC.len()) {
            *byte ^= (at % 251) as u8;
        }
        assert_eq!(in_cache(&wild, b"libc.so.6"), None);
    }
}
