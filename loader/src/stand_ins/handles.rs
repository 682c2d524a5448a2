//! Handles that units have: glibc's, and those of images.
//!
//! The handle of an image is the address of its note, which no library is known by. Whatever a unit has opened is
//! remembered until it closes it: an image stays as long, and so does what a library was offered.

use crate::facade::{KeptFor, Offered};
use crate::image::{Image, registry};
use crate::sys::linker;
use crate::sys::sync::Mutex;
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Which definitions are asked for by a handle that means more than one image or library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Special {
    /// `RTLD_DEFAULT`: what a reference of the unit that asks is bound to.
    Default,
    /// `RTLD_NEXT`: what comes behind the unit that asks.
    Next,
    /// The handle of the program: all units.
    Program,
}

/// What a handle stands for.
pub(super) enum Meaning {
    /// More than one.
    Special(Special),
    /// An image.
    Image(Arc<Image>),
    /// Something that glibc has opened.
    Library,
}

/// Something that was opened and not yet closed as often.
#[derive(Default)]
struct Opened {
    count: usize,
    image: Option<Arc<Image>>,
    /// Whether it was an image, and is none any more.
    unloaded: bool,
    offered: Vec<KeptFor>,
}

static OPENED: Mutex<Option<HashMap<usize, Opened>>> = Mutex::new(None);
/// glibc's handle of the program, once a unit has asked for it.
static PROGRAM: AtomicUsize = AtomicUsize::new(0);

/// What `handle` stands for.
pub(super) fn meaning(handle: *mut c_void) -> Meaning {
    match handle {
        libc::RTLD_DEFAULT => Meaning::Special(Special::Default),
        libc::RTLD_NEXT => Meaning::Special(Special::Next),
        _ if handle as usize == PROGRAM.load(Ordering::Relaxed) => Meaning::Special(Special::Program),
        _ => match registry::image_at(handle as usize).filter(|image| of_image(image) == handle) {
            Some(image) => Meaning::Image(image),
            None => Meaning::Library,
        },
    }
}

fn of_image(image: &Image) -> *mut c_void {
    image.mapped().handle as *mut c_void
}

/// Remembers glibc's handle of the program.
pub(super) fn set_program(handle: *mut c_void) {
    PROGRAM.store(handle as usize, Ordering::Relaxed);
}

fn change<R>(handle: *mut c_void, change: impl FnOnce(&mut Opened) -> R) -> R {
    change(OPENED.lock().get_or_insert_with(HashMap::new).entry(handle as usize).or_default())
}

/// A handle of an image, which stays as long as it is open.
pub(super) fn open_image(image: Arc<Image>) -> *mut c_void {
    let handle = of_image(&image);
    let before = change(handle, |opened| {
        opened.count += 1;
        opened.image.replace(image)
    });
    // Not with the lock held.
    drop(before);
    handle
}

/// Has open handles keep an image no longer, which is about to be unloaded by force. They can still be closed.
pub(crate) fn abandon(image: &Image) {
    let mut list = OPENED.lock();
    let opened = list.as_mut().and_then(|all| all.get_mut(&(of_image(image) as usize)));
    let Some(opened) = opened else { return };
    opened.unloaded = true;
    let gone = opened.image.take();
    // Not with the lock held.
    drop(list);
    drop(gone);
}

/// Remembers what was offered to a library that glibc has opened as `handle`.
pub(super) fn keep(handle: *mut c_void, offered: Option<Arc<Offered>>) {
    // SAFETY: an open handle.
    let dynamic = unsafe { linker::entry(handle) }.map_or(0, |entry| entry.dynamic);
    change(handle, |opened| {
        opened.count += 1;
        opened.offered.extend(offered.map(|offered| KeptFor { dynamic, offered: Some(offered) }));
    });
}

/// Closes a handle once.
///
/// # Safety
/// As for `dlclose`.
pub(super) unsafe fn close(handle: *mut c_void) -> c_int {
    let known = OPENED.lock().as_ref().and_then(|all| Some(all.get(&(handle as usize))?.unloaded));
    if known == Some(true) || matches!(meaning(handle), Meaning::Image(_)) {
        release(handle);
        return 0;
    }
    // SAFETY: the caller's promise.
    let result = unsafe { linker::close(handle) };
    if result == 0 {
        release(handle);
    }
    result
}

/// Forgets one opening of a handle; with the last, what it has kept.
fn release(handle: *mut c_void) {
    let mut list = OPENED.lock();
    let Some(all) = list.as_mut() else { return };
    let Some(opened) = all.get_mut(&(handle as usize)) else { return };
    opened.count -= 1;
    if opened.count > 0 {
        return;
    }
    let gone = all.remove(&(handle as usize));
    // Destructors may come here again.
    drop(list);
    drop(gone);
}
