//! From objects and archives to an image: checked, linked by lld in this process, sealed.

mod archive;
mod bundle;
mod check;
mod constants;
mod constructors;
mod dependencies;
mod entry;
mod exports;
mod identity;
mod image;
mod libraries;
mod line;
mod lld;
mod memory;
mod order;
mod own_object;
mod reduce;
mod seal;
mod shape;
mod startup;
mod stub;
mod zeros;

pub(crate) use archive::check_archive;
pub(crate) use check::{ObjectFacts, check_object};
pub(crate) use constructors::{archive_with_modern_constructors, with_modern_constructors};
pub(crate) use entry::with_visible_entry;
pub(crate) use identity::STUBS_SECTION;
pub(crate) use image::{LinkInput, LinkWishes, link_image};
pub(crate) use line::is_plain;
pub(crate) use order::with_order;
pub(crate) use shape::FRESH_CODE;
