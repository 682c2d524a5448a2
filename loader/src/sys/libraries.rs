//! glibc's run-time linker: `dlopen` and its relatives, and the list of what is loaded.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

/// The public beginning of glibc's `struct link_map`.
#[repr(C)]
struct LinkMap {
    base: usize,
    name: *const c_char,
    dynamic: usize,
}

/// A library that `dlopen` opened; dropped, it is closed.
#[derive(Debug)]
pub(crate) struct Handle(*mut c_void);

// SAFETY: glibc's functions on handles may be called from any thread.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    /// Opens the library that `dlopen` finds under `name`, with everything bound at once.
    ///
    /// # Errors
    /// `dlerror`'s words.
    pub(crate) fn open(name: &CStr, global: bool) -> Result<Self, String> {
        let scope = if global { libc::RTLD_GLOBAL } else { libc::RTLD_LOCAL };
        // SAFETY: a terminated name. The library's constructors run: opening a library means trusting it.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | scope) };
        if handle.is_null() { Err(last_error()) } else { Ok(Self(handle)) }
    }

    /// The library that is loaded under `name`, by path or by the name that it gives itself; `None` when there is none.
    pub(crate) fn loaded(name: &CStr, global: bool) -> Option<Self> {
        let scope = if global { libc::RTLD_GLOBAL } else { libc::RTLD_LOCAL };
        // SAFETY: a terminated name. RTLD_NOLOAD loads nothing, so no code of a library runs.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD | scope) };
        if handle.is_null() {
            last_error();
            None
        } else {
            Some(Self(handle))
        }
    }

    /// The address of `name` in the library or what it needs.
    pub(crate) fn symbol(&self, name: &CStr) -> Option<usize> {
        // SAFETY: an open handle and a terminated name.
        let address = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        if address.is_null() {
            last_error();
            None
        } else {
            Some(address as usize)
        }
    }

    /// Address of the library's dynamic section, by which it is known in [`for_each`], and its path.
    pub(crate) fn identity(&self) -> Option<(usize, String)> {
        let mut map = MaybeUninit::<*const LinkMap>::uninit();
        // SAFETY: an open handle; the request writes one pointer, to something that lives as long as the library.
        unsafe {
            if libc::dlinfo(self.0, libc::RTLD_DI_LINKMAP, map.as_mut_ptr().cast()) != 0 {
                last_error();
                return None;
            }
            let map = &*map.assume_init();
            Some((map.dynamic, CStr::from_ptr(map.name).to_string_lossy().into_owned()))
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle is open, and everything that was taken from the library is gone by now.
        unsafe { libc::dlclose(self.0) };
    }
}

/// Keeps the library of that path, which is open, for the rest of the process.
pub(crate) fn keep(path: &CStr) {
    // SAFETY: a terminated name. Nothing is loaded, so no code runs.
    unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE) };
}

/// What `dlsym` finds for everybody, of that version if one is given. Never to be called from [`for_each`].
pub(crate) fn default_symbol(name: &CStr, version: Option<&CStr>) -> Option<usize> {
    // SAFETY: terminated names.
    let address = unsafe {
        match version {
            Some(version) => libc::dlvsym(libc::RTLD_DEFAULT, name.as_ptr(), version.as_ptr()),
            None => libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()),
        }
    };
    if address.is_null() {
        last_error();
        None
    } else {
        Some(address as usize)
    }
}

/// `RTLD_DL_LINKMAP`, which glibc's `dladdr1` takes: the link map, beside what `dladdr` gives.
const LINK_MAP: c_int = 2;

/// What glibc knows about an address.
#[derive(Debug)]
pub(crate) struct Nearest {
    /// Path of the library that has it, or the name that the program goes by.
    pub(crate) path: String,
    /// Where that begins in memory.
    pub(crate) base: usize,
    /// Whether it is the program.
    pub(crate) is_program: bool,
    /// Name and address of the exported symbol that has it.
    pub(crate) symbol: Option<(String, usize)>,
}

/// Who has `address`, among what glibc has loaded.
pub(crate) fn nearest(address: usize) -> Option<Nearest> {
    let mut info = MaybeUninit::<libc::Dl_info>::uninit();
    let mut map = MaybeUninit::<*const LinkMap>::uninit();
    // SAFETY: any address may be asked about; there is room for both results, which are read only when they have been
    // written. The texts belong to a library that is loaded, and whoever asks about its code keeps it so.
    unsafe {
        let found =
            libc::dladdr1(address as *const c_void, info.as_mut_ptr(), map.as_mut_ptr().cast(), LINK_MAP);
        if found == 0 {
            return None;
        }
        let info = info.assume_init();
        let text = |text: *const c_char| CStr::from_ptr(text).to_string_lossy().into_owned();
        let map = map.assume_init();
        Some(Nearest {
            path: if info.dli_fname.is_null() { String::new() } else { text(info.dli_fname) },
            base: info.dli_fbase as usize,
            is_program: !map.is_null() && ((*map).name.is_null() || *(*map).name == 0),
            symbol: (!info.dli_sname.is_null()).then(|| (text(info.dli_sname), info.dli_saddr as usize)),
        })
    }
}

/// glibc's version, major and minor number.
pub(crate) fn glibc_version() -> Option<(u32, u32)> {
    // SAFETY: it gives a terminated text that stays.
    let text = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) };
    let mut numbers = text.to_str().ok()?.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// The kernel's name for the processor, `x86_64`.
pub(crate) fn kernel_platform() -> Option<&'static str> {
    // SAFETY: any number may be asked for; 0 means that there is no such entry.
    let text = unsafe { libc::getauxval(libc::AT_PLATFORM) };
    if text == 0 {
        return None;
    }
    // SAFETY: the kernel put a terminated text there, beside the program's arguments, and it stays.
    unsafe { CStr::from_ptr(text as *const c_char) }.to_str().ok()
}

fn last_error() -> String {
    // SAFETY: the text belongs to this thread until its next call of this kind.
    unsafe {
        let text = libc::dlerror();
        if text.is_null() {
            "no reason given".into()
        } else {
            CStr::from_ptr(text).to_string_lossy().into_owned()
        }
    }
}

/// Something that glibc has loaded: the program or a library.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Loaded<'a> {
    /// What is added to the addresses in the file.
    pub(crate) base: usize,
    /// Path; empty for the program.
    pub(crate) name: &'a CStr,
    /// Program headers.
    pub(crate) segments: &'a [libc::Elf64_Phdr],
    /// Number of its thread-local block for `__tls_get_addr`, 0 if it has none.
    pub(crate) tls_module: usize,
}

/// Calls `visit` with everything loaded, in glibc's order, until it says `false`; gives what [`present`] would have.
/// Nothing is unloaded meanwhile. `visit` must not call `dlopen` or `dlsym`: others hold the locks of these when they
/// wait for the one held here.
pub(crate) fn for_each(mut each: impl FnMut(Loaded<'_>) -> bool) -> u64 {
    let (loaded, unloaded) = visit(&mut each);
    loaded.wrapping_sub(unloaded)
}

/// The same, and how many things were loaded and unloaded by then.
fn visit(each: &mut dyn FnMut(Loaded<'_>) -> bool) -> (u64, u64) {
    let mut state: VisitState<'_> = ((0, 0), each);
    // SAFETY: the callback gets the pointer that is passed here, while `state` is alive.
    unsafe { libc::dl_iterate_phdr(Some(visit_one), ptr::from_mut(&mut state).cast()) };
    state.0
}

/// Whether the program or library whose dynamic section is at `dynamic` is loaded.
pub(crate) fn is_loaded(dynamic: usize) -> bool {
    let mut found = false;
    for_each(|loaded| {
        let section = loaded.segments.iter().find(|segment| segment.p_type == libc::PT_DYNAMIC);
        found = section.is_some_and(|section| loaded.base.wrapping_add(section.p_vaddr as usize) == dynamic);
        !found
    });
    found
}

/// Whether something that is loaded was found under this path, or in a file of this name when it has no folder.
pub(crate) fn is_named(path: &Path) -> bool {
    let wanted = path.as_os_str().as_bytes();
    let mut found = false;
    for_each(|loaded| {
        let front = loaded.name.to_bytes().strip_suffix(wanted);
        found = front.is_some_and(|front| {
            !wanted.is_empty() && (front.is_empty() || (front.ends_with(b"/") && !wanted.contains(&b'/')))
        });
        !found
    });
    found
}

/// How many things are loaded, by glibc's own count, which may be off by the same number all the time.
pub(crate) fn present() -> u64 {
    for_each(|_| false)
}

/// How many things were unloaded since the process began. As long as that does not change, whatever was loaded still is.
pub(crate) fn unloaded() -> u64 {
    let mut nothing = |_: Loaded<'_>| false;
    visit(&mut nothing).1
}

type VisitState<'a> = ((u64, u64), &'a mut dyn FnMut(Loaded<'_>) -> bool);

unsafe extern "C" fn visit_one(info: *mut libc::dl_phdr_info, _size: usize, state: *mut c_void) -> c_int {
    // SAFETY: `for_each` passes a pointer to its state.
    let state = unsafe { &mut *state.cast::<VisitState<'_>>() };
    // SAFETY: glibc passes a filled struct; every glibc since 2.4 fills all fields.
    let info = unsafe { &*info };
    state.0 = (info.dlpi_adds, info.dlpi_subs);
    // SAFETY: name and program headers are those of a loaded library, and it stays loaded during the call.
    let loaded = unsafe {
        Loaded {
            base: info.dlpi_addr as usize,
            name: if info.dlpi_name.is_null() { c"" } else { CStr::from_ptr(info.dlpi_name) },
            segments: if info.dlpi_phdr.is_null() {
                &[]
            } else {
                std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum))
            },
            tls_module: info.dlpi_tls_modid,
        }
    };
    c_int::from(!(state.1)(loaded))
}
