//! Ordinary shared libraries, opened by glibc.

use crate::facade::search::{Search, folders};
use crate::facade::wanted::LibraryFile;
use crate::facade::{KeptFor, Offered};
use crate::image::map::Mapped;
use crate::layers::Closure;
use crate::sys::libraries::Handle;
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
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
    closure: OnceLock<Closure>,
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

    /// The address of `symbol` in it or in what it needs; that of the calling thread's instance for a thread-local
    /// variable.
    pub fn get(&self, symbol: &str) -> Option<usize> {
        self.handle.symbol(&CString::new(symbol).ok()?)
    }

    pub(crate) fn dynamic(&self) -> usize {
        self.dynamic
    }

    /// The tables of this library and of what it needs, read by `make` if they were not before.
    pub(crate) fn closure(&self, make: impl FnOnce(usize) -> Closure) -> &Closure {
        self.closure.get_or_init(|| make(self.dynamic))
    }

    /// The same if they were read.
    pub(crate) fn known_closure(&self) -> Option<&Closure> {
        self.closure.get()
    }

    /// Whether an image that needs `name` means this one.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        self.asked == name || self.path == name || self.path.rsplit('/').next() == Some(name)
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
                let plain = format!("lib{name}.so");
                let mut search = Search::default();
                let found = search.find(plain.as_bytes(), None, None);
                found.filter(|path| LibraryFile::open(path).is_some()).or_else(|| {
                    numbered(&plain).iter().find_map(|name| search.find(name.as_bytes(), None, None))
                })
            }
        }
    }

    /// Opens what an image needs: in the folders that it names itself, or else where `dlopen` looks.
    pub(crate) fn needed(
        name: &str,
        mapped: &Mapped,
        global: bool,
        offered: Option<Arc<Offered>>,
    ) -> Result<Arc<Self>, String> {
        if !name.contains('/') {
            for folder in search_path(mapped) {
                let path = folder.join(name);
                if path.exists() {
                    let mut library = Self::open_path(&path, global, offered)?;
                    library.asked = name.to_owned();
                    return Ok(Arc::new(library));
                }
            }
        }
        Self::open_found(name, global, offered).map(Arc::new)
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
        let plain = format!("lib{name}.so");
        // The file that linkers use may be missing, or a text that only linkers understand.
        let first = match Self::open_found(&plain, global, offered.clone()) {
            Ok(library) => return Ok(library),
            Err(reason) => reason,
        };
        for candidate in numbered(&plain) {
            if let Ok(library) = Self::open_found(&candidate, global, offered.clone()) {
                return Ok(library);
            }
        }
        Err(first)
    }

    fn from_handle(handle: Handle, asked: String, offered: Option<Arc<Offered>>) -> Result<Self, String> {
        let (dynamic, path) = handle.identity().ok_or("it is not known to the run-time linker")?;
        let offered = KeptFor { dynamic, offered };
        Ok(Self { handle, asked, path, dynamic, _offered: offered, closure: OnceLock::new() })
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

/// The folders that an image wants its libraries looked for in.
pub(crate) fn search_path(mapped: &Mapped) -> Vec<PathBuf> {
    let text = mapped.dynamic.search_path.and_then(|offset| mapped.symbols.text(offset));
    // An image from memory has no place of its own.
    text.map_or_else(Vec::new, |text| folders(text, mapped.path.as_deref().and_then(Path::parent)))
}

/// Names of libraries that are `plain` with a number after it, highest first: those in the run-time linker's cache
/// and in the folders it looks into.
fn numbered(plain: &str) -> Vec<String> {
    let prefix = format!("{plain}.");
    let mut found = BTreeSet::new();
    let mut add = |name: &str| {
        if let Some(rest) = name.strip_prefix(&prefix)
            && let Some(numbers) =
                rest.split('.').map(|number| number.parse::<u32>().ok()).collect::<Option<Vec<_>>>()
        {
            found.insert((numbers, name.to_owned()));
        }
    };
    if let Ok(cache) = std::fs::read("/etc/ld.so.cache") {
        for name in cache.split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok()) {
            add(name);
        }
    }
    let path = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    let folders = path.split([':', ';']).filter(|folder| !folder.is_empty());
    let usual =
        ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"];
    for folder in folders.chain(usual) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if let Some(name) = entry.file_name().to_str() {
                add(name);
            }
        }
    }
    found.into_iter().rev().map(|(_, name)| name).collect()
}
