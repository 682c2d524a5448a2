//! Ordinary shared libraries, opened by glibc.

use crate::facade::{KeptFor, Offered, wanted};
use crate::image::map::Mapped;
use crate::image::unwind;
use crate::layers::Closure;
use crate::libraries::{self, LibraryFile, SearchPath, Tokens, expand};
use crate::sys::libraries::Handle;
use std::collections::HashSet;
use std::ffi::{CString, OsStr};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// Which library to open.
#[derive(Debug, Clone, Copy)]
pub enum LibraryRequest<'a> {
    /// A file.
    Path(&'a Path),
    /// A library by its name without `lib` and suffix, as for the linker's `-l`: `z` is `libz.so`, or else the
    /// highest `libz.so.N` that the run-time linker knows.
    Name(&'a str),
}

impl fmt::Display for LibraryRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A shared library that was opened with `dlopen`. Dropped by the last who holds it, it is closed; images that are
/// bound to it hold it.
pub struct Library {
    handle: Handle,
    asked: String,
    path: String,
    dynamic: usize,
    /// Dropped after the library is closed.
    _offered: KeptFor,
    /// Dropped before the handle would make it invalid: nobody looks at it by then.
    kept: AtomicBool,
    closure: OnceLock<Arc<Closure>>,
}

impl Library {
    /// The path that it was found at.
    pub fn path(&self) -> &Path {
        Path::new(&self.path)
    }

    /// The name or path that it was asked for by.
    pub fn name(&self) -> &str {
        &self.asked
    }

    /// Whether the loader holds it open for whoever needs it next.
    pub fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }

    /// Says that the loader holds it open, if it is one of the system's.
    pub(crate) fn keep(&self) -> bool {
        const SYSTEM: [&str; 4] = ["/lib/", "/usr/lib/", "/lib64/", "/usr/lib64/"];
        let kept = SYSTEM.iter().any(|folder| self.path.starts_with(folder));
        self.kept.store(kept, Ordering::Relaxed);
        kept
    }

    /// The address of `symbol` in it or in what it needs; that of the calling thread's instance for a thread-local
    /// variable.
    pub fn get(&self, symbol: &str) -> Option<usize> {
        self.handle.symbol(&CString::new(symbol).ok()?)
    }

    pub(crate) fn dynamic(&self) -> usize {
        self.dynamic
    }

    /// The tables of this library and of what it needs, read by `make` if they were not before.
    pub(crate) fn closure(&self, make: impl FnOnce(usize) -> Arc<Closure>) -> &Closure {
        self.closure.get_or_init(|| make(self.dynamic))
    }

    /// The same if they were read.
    pub(crate) fn known_closure(&self) -> Option<&Closure> {
        self.closure.get().map(|closure| &**closure)
    }

    /// Whether an image that needs `name` means this one.
    pub(crate) fn is_called(&self, name: &[u8]) -> bool {
        let path = self.path.as_bytes();
        let is_file = || path.strip_suffix(name).is_some_and(|folder| folder.ends_with(b"/"));
        self.asked.as_bytes() == name || path == name || (is_file() && !name.contains(&b'/'))
    }

    /// Opens what was asked for. `offered` is what it was offered before.
    pub(crate) fn open(
        request: LibraryRequest<'_>,
        global: bool,
        offered: Option<Arc<Offered>>,
    ) -> Result<Self, String> {
        match request {
            LibraryRequest::Path(path) => Self::open_path(&with_folder(path), global, offered),
            LibraryRequest::Name(name) => Self::open_named(name, global, offered),
        }
    }

    /// The file that will be opened, as far as it can be known before.
    pub(crate) fn file_of(request: LibraryRequest<'_>) -> Option<PathBuf> {
        match request {
            LibraryRequest::Path(path) => Some(with_folder(path)),
            LibraryRequest::Name(name) => {
                let search = SearchPath::of_process();
                let mut files = libraries::candidates(name, &search)
                    .filter_map(|name| libraries::find(OsStr::new(&name), &search));
                files.find(|path| wanted::LibraryFile::open(path).is_some())
            }
        }
    }

    /// Opens what an image needs, where the run-time linker would have looked for it if it had loaded the image.
    pub(crate) fn needed(
        name: &str,
        mapped: &Mapped,
        global: bool,
        offered: Option<Arc<Offered>>,
    ) -> Result<Arc<Self>, String> {
        if name.contains('/') {
            let path = expand(name.as_bytes(), &Tokens::of_object(mapped.path.as_deref()))
                .ok_or("an image from memory has no place that $ORIGIN could stand for")?;
            return Self::open_called(name, &path, global, offered);
        }
        let c_name = CString::new(name).map_err(|_| "a zero byte in the name")?;
        if let Some(handle) = Handle::loaded(&c_name, global) {
            return Self::from_handle(handle, name.to_owned(), offered).map(Arc::new);
        }
        let search = search_of(mapped);
        match search.find_in_front(OsStr::new(name)) {
            Some(path) => {
                // Kept until what needs them is open and keeps them itself.
                let _inner = open_inherited(&path, &search, global, &mut HashSet::new());
                Self::open_called(name, &path, global, offered)
            }
            None => Self::open_found(name, global, offered).map(Arc::new),
        }
    }

    fn open_called(
        name: &str,
        path: &Path,
        global: bool,
        offered: Option<Arc<Offered>>,
    ) -> Result<Arc<Self>, String> {
        let mut library = Self::open_path(path, global, offered)?;
        library.asked = name.to_owned();
        Ok(Arc::new(library))
    }

    fn open_path(path: &Path, global: bool, offered: Option<Arc<Offered>>) -> Result<Self, String> {
        let name = path.to_string_lossy().into_owned();
        let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| "a zero byte in the path")?;
        Self::from_handle(Handle::open(&path, global)?, name, offered)
    }

    fn open_found(name: &str, global: bool, offered: Option<Arc<Offered>>) -> Result<Self, String> {
        let c_name = CString::new(name).map_err(|_| "a zero byte in the name")?;
        Self::from_handle(Handle::open(&c_name, global)?, name.to_owned(), offered)
    }

    fn open_named(name: &str, global: bool, offered: Option<Arc<Offered>>) -> Result<Self, String> {
        if name.is_empty() || name.contains('/') {
            return Err("not the name of a library".into());
        }
        // The file that linkers use may be missing, or a text that only linkers understand.
        let mut first = None;
        for candidate in libraries::candidates(name, &SearchPath::of_process()) {
            match Self::open_found(&candidate, global, offered.clone()) {
                Ok(library) => return Ok(library),
                Err(reason) => first.get_or_insert(reason),
            };
        }
        Err(first.unwrap_or_else(|| "not found".into()))
    }

    fn from_handle(handle: Handle, asked: String, offered: Option<Arc<Offered>>) -> Result<Self, String> {
        // It may have brought an unwinder along.
        unwind::look_again();
        let (dynamic, path) = handle.identity().ok_or("it is not known to the run-time linker")?;
        let offered = KeptFor { dynamic, offered };
        Ok(Self {
            handle,
            asked,
            path,
            dynamic,
            _offered: offered,
            kept: AtomicBool::new(false),
            closure: OnceLock::new(),
        })
    }
}

/// The path with a folder in it: without a slash `dlopen` would look elsewhere.
fn with_folder(path: &Path) -> PathBuf {
    if path.components().count() == 1 && !path.as_os_str().as_bytes().contains(&b'/') {
        Path::new(".").join(path)
    } else {
        path.to_owned()
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Library").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Where libraries are looked for that an image needs.
pub(crate) fn search_of(mapped: &Mapped) -> SearchPath {
    let text = |offset: Option<u64>| offset.and_then(|offset| mapped.symbols.text(offset));
    let dynamic = &mapped.dynamic;
    SearchPath::of_process().on_behalf_of(mapped.path.as_deref(), text(dynamic.rpath), text(dynamic.runpath))
}

/// Opens what the library at `path` needs and glibc would not find: it knows nothing of images, so it does not search the
/// `DT_RPATH` that a library inherits from one. Once they are open, glibc knows them by the names they give themselves.
/// What cannot be opened is left for glibc to complain about.
fn open_inherited(
    path: &Path,
    search: &SearchPath,
    global: bool,
    seen: &mut HashSet<Vec<u8>>,
) -> Vec<Handle> {
    let mut opened = Vec::new();
    if !search.hands_down() {
        return opened;
    }
    let Some(needs) = LibraryFile::open(path).and_then(|file| file.needs()) else { return opened };
    let search = search.through(path, needs.rpath.as_deref(), needs.runpath.as_deref());
    for name in needs.needed {
        if name.contains(&b'/') || !seen.insert(name.clone()) {
            continue;
        }
        let Ok(c_name) = CString::new(name) else { continue };
        if Handle::loaded(&c_name, global).is_some() {
            continue;
        }
        let Some(found) = search.find_in_front(OsStr::from_bytes(c_name.to_bytes())) else { continue };
        opened.extend(open_inherited(&found, &search, global, seen));
        if let Ok(c_path) = CString::new(found.as_os_str().as_bytes()) {
            opened.extend(Handle::open(&c_path, global));
        }
    }
    opened
}

#[cfg(test)]
mod tests;
