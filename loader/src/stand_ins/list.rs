//! Everything that is loaded, images included: `dl_iterate_phdr`.

use crate::image::{Image, registry};
use crate::sys::linker::{self, VisitLoaded};
use std::ffi::{c_int, c_void};
use std::mem::offset_of;
use std::sync::Arc;

/// What the caller of `dl_iterate_phdr` gave, and how much is loaded and was unloaded besides glibc's libraries.
struct Iteration {
    visit: VisitLoaded,
    data: *mut c_void,
    loaded: u64,
    unloaded: u64,
    /// glibc's own counts, seen at its last entry.
    counts: (u64, u64),
}

/// What units get for `dl_iterate_phdr`: glibc's entries, then images in load order. The counts of what was loaded and
/// unloaded are those of both together, so that who remembers answers by them notices every change.
///
/// # Safety
/// As for glibc's: `visit` may be called with `data`.
pub(super) unsafe extern "C-unwind" fn dl_iterate_phdr(visit: VisitLoaded, data: *mut c_void) -> c_int {
    let (loaded, unloaded) = registry::counts();
    let mut iteration = Iteration { visit, data, loaded, unloaded, counts: (0, 0) };
    // Images must stay while their names and headers are looked at.
    let mut images: Vec<Arc<Image>> = Vec::new();
    registry::for_each(|image| images.push(image));
    // SAFETY: the state lives through the call.
    let result = unsafe { linker::visit_loaded(visit_glibcs, (&raw mut iteration).cast()) };
    if result != 0 {
        return result;
    }
    for image in images {
        let (adds, subs) = iteration.counts;
        let shown = image.shown();
        let (tls_module, tls_data) = image.thread_block();
        let mut info = libc::dl_phdr_info {
            dlpi_addr: image.mapped().place.base as u64,
            dlpi_name: shown.file().as_ptr(),
            dlpi_phdr: shown.headers().as_ptr(),
            dlpi_phnum: shown.headers().len() as u16,
            dlpi_adds: adds,
            dlpi_subs: subs,
            dlpi_tls_modid: tls_module,
            dlpi_tls_data: tls_data as *mut c_void,
        };
        // SAFETY: the caller's promise; the struct is complete, and the image stays meanwhile.
        let result = unsafe { visit(&mut info, size_of::<libc::dl_phdr_info>(), data) };
        if result != 0 {
            return result;
        }
    }
    0
}

/// Hands on one of glibc's entries, with the counts of both.
unsafe extern "C-unwind" fn visit_glibcs(
    info: *mut libc::dl_phdr_info,
    size: usize,
    state: *mut c_void,
) -> c_int {
    // SAFETY: `dl_iterate_phdr` passes its state.
    let state = unsafe { &mut *state.cast::<Iteration>() };
    // glibc passes a struct of its own for each entry, which may be changed; before 2.4 it had no counts.
    if size >= offset_of!(libc::dl_phdr_info, dlpi_subs) + size_of::<u64>() {
        // SAFETY: the struct has these fields.
        unsafe {
            (*info).dlpi_adds += state.loaded;
            (*info).dlpi_subs += state.unloaded;
            state.counts = ((*info).dlpi_adds, (*info).dlpi_subs);
        }
    }
    // SAFETY: what the caller of `dl_iterate_phdr` promised.
    unsafe { (state.visit)(info, size, state.data) }
}
