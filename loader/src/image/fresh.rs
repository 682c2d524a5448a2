//! Fresh code, as a back end links it into an area of its own: known to unwinding by its addresses.
//!
//! What lies where in an area is written by the back end (`boundary/fresh.rs`), so nothing happens here when code comes
//! or goes.

use super::registry::Fresh;
use super::unwind;
use crate::boundary::FreshArea;

/// An area in which exceptions find unwind tables; dropped, they find none there any more.
#[derive(Debug)]
pub struct FreshCode(&'static Fresh);

impl FreshCode {
    /// Makes the area known; `None` where the unwinder of this process cannot be led to it and wants every section
    /// registered.
    ///
    /// # Safety
    /// The area is as its fields say as long as the result lives, and only code of whole links is in it.
    pub unsafe fn new(area: &FreshArea) -> Option<Self> {
        // SAFETY: the caller's promise.
        unwind::by_address().then(|| Self(unsafe { Fresh::new(area) }))
    }
}

impl Drop for FreshCode {
    fn drop(&mut self) {
        self.0.leave();
    }
}
