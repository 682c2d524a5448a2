//! What is at an address: `dladdr` and `dladdr1`.

use crate::image::elf::{SHN_ABS, STT_TLS, Symbol};
use crate::image::{Image, registry};
use crate::slots::{Located, locate};
use crate::sys::linker::{self, AddressInfo, RTLD_DL_LINKMAP, RTLD_DL_SYMENT};
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::Arc;

/// The symbol that an address of an image belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Nearest {
    /// Its name, in the image's string table, with its end.
    pub(super) name: &'static [u8],
    /// Where it begins.
    pub(super) address: usize,
    entry: &'static Symbol,
}

/// The exported symbol at `address` as glibc chooses it: of those that reach over it, or that have no size and are
/// exactly there, the last to begin.
pub(super) fn nearest(image: &Image, address: usize) -> Option<Nearest> {
    let place = &image.mapped().place;
    let mut best: Option<Nearest> = None;
    for (_, entry, name) in image.symbols().iter() {
        if !entry.is_defined() || entry.kind() == STT_TLS || entry.section == SHN_ABS {
            continue;
        }
        let start = place.at(entry.value);
        let Some(distance) = address.checked_sub(start) else { continue };
        let covered = if entry.size == 0 { distance == 0 } else { (distance as u64) < entry.size };
        if covered && best.is_none_or(|best| best.address < start) {
            best = Some(Nearest { name, address: start, entry });
        }
    }
    best
}

/// The image that an address belongs to, which may be in code that was compiled for it; where that begins; and the address
/// of the image that stands for it.
pub(super) fn belonging(address: usize) -> Option<(Arc<Image>, Option<usize>, usize)> {
    let own = registry::image_at(address);
    if let Some(image) = own.clone().filter(|image| nearest(image, address).is_some()) {
        return Some((image, None, address));
    }
    match locate(address) {
        Some(Located { image, function, body, .. }) => Some((image, Some(body), function)),
        None => own.map(|image| (image, None, address)),
    }
}

/// The same as `dladdr` tells it.
fn tell(image: &Image, address: usize, info: &mut AddressInfo) -> Option<Nearest> {
    let nearest = nearest(image, address);
    *info = AddressInfo {
        file: image.shown().label().as_ptr(),
        base: ptr::without_provenance_mut(image.range().start),
        // The name has its end in the table that it is a part of.
        symbol: nearest.map_or(ptr::null(), |nearest| nearest.name.as_ptr().cast::<c_char>()),
        address: ptr::without_provenance_mut(nearest.map_or(0, |nearest| nearest.address)),
    };
    nearest
}

/// What units get for `dladdr`.
///
/// # Safety
/// As for glibc's: `info` can be written to.
pub(super) unsafe extern "C" fn dladdr(address: *const c_void, info: *mut AddressInfo) -> c_int {
    match belonging(address as usize) {
        Some((image, _, address)) => {
            // SAFETY: the caller's promise.
            tell(&image, address, unsafe { &mut *info });
            1
        }
        // SAFETY: the caller's promise.
        None => unsafe { linker::dladdr(address, info) },
    }
}

/// What units get for `dladdr1`.
///
/// # Safety
/// As for glibc's: `info` can be written to, and `extra` where `flags` ask for more.
pub(super) unsafe extern "C" fn dladdr1(
    address: *const c_void,
    info: *mut AddressInfo,
    extra: *mut *mut c_void,
    flags: c_int,
) -> c_int {
    let Some((image, _, address)) = belonging(address as usize) else {
        // SAFETY: the caller's promise.
        return unsafe { linker::dladdr1(address, info, extra, flags) };
    };
    // SAFETY: the caller's promise, here and below.
    let nearest = tell(&image, address, unsafe { &mut *info });
    let more = match flags {
        RTLD_DL_SYMENT => {
            nearest.map_or(ptr::null_mut(), |nearest| ptr::from_ref(nearest.entry).cast_mut().cast())
        }
        RTLD_DL_LINKMAP => ptr::from_ref(image.shown().entry()).cast_mut().cast(),
        _ => return 1,
    };
    // SAFETY: as above.
    unsafe { extra.write(more) };
    1
}
