//! Images that come along: those that an image was linked against are loaded with it, unless they are loaded already.

use super::Runtime;
use crate::input::{Image, Kind, Load, Place};
use crate::namespace::Namespace;
use hotbed_loader::image::{note, soname};
use hotbed_loader::sys::files;
use object::ReadCache;
use std::borrow::Cow;

impl Runtime {
    /// Adds to what is to be loaded into a namespace the images that others of it depend on, and those that these do, as far as they
    /// are found. What is missing then, or does not fit, binding will say.
    pub(super) fn add_dependencies(&self, namespace: &Namespace, all: &mut Vec<Load>) {
        let mut at = 0;
        while let Some(load) = all.get(at) {
            at += 1;
            let Kind::Image(place) = &load.kind else { continue };
            let Some(contents) = contents_if_dependent(place) else { continue };
            let path = match place {
                Place::File(path) => Some(&**path),
                Place::Bytes(_) => None,
            };
            let comes = |name: &str| all.iter().any(|other| is_called(other, name));
            let loader = self.loader();
            let Ok(missing) = loader.missing_dependencies(Some(namespace.loader()), (path, &contents), comes)
            else {
                continue;
            };
            let more = missing.into_iter().map(|path| Load::from(Image::file(path).namespace(namespace)));
            // Two may need the same one.
            let more: Vec<Load> = more.filter(|one| all.iter().all(|other| other.name != one.name)).collect();
            all.extend(more);
        }
    }
}

/// The contents of an image that was linked against others; nothing for any other, nor for what is none or cannot be read,
/// which loading it will say.
fn contents_if_dependent(place: &Place) -> Option<Cow<'_, [u8]>> {
    match place {
        Place::Bytes(bytes) => note::layout(bytes).ok()?.dependencies?,
        Place::File(path) => {
            let (file, _) = files::open_regular(path).ok()?;
            note::read_layout(&ReadCache::new(file)).ok()?.dependencies?
        }
    };
    place.contents().ok()
}

/// Whether it is an image that others need by that name.
fn is_called(load: &Load, name: &str) -> bool {
    let Kind::Image(place) = &load.kind else { return false };
    place.contents().is_ok_and(|contents| soname(&contents).as_deref() == Some(name))
}
