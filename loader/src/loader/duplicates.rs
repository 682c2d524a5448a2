//! Definitions that are loaded more than once: several images have a copy of a template's instance, of an inline function or variable,
//! and all use the first one. What the others have is there for nothing. Whether they are the same their
//! [identities](crate::image::Identity) tell; where these differ, the images were made of different sources, or in different ways.
//!
//! Nothing of this is known until somebody asks; then the symbols of all images are looked through, and for what there is
//! several times the identities are read from the images' files.

use super::{Loader, seen_by};
use crate::image::symbols::Name;
use crate::image::{Identities, Identity, Image, registry};
use crate::layers::{Space, Value};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// How a copy of a definition compares with the one that is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sameness {
    /// It is the same.
    Equal,
    /// It has the same name only: it was made of another source, or in another way. In C++ that breaks the rule of one definition,
    /// unless only the flags differ.
    Differs,
    /// Nobody knows: the process or the host has the one that is used, one of them is bitcode, or the file of an image is gone.
    Unknown,
}

/// A copy of a definition that is loaded and not used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Duplicate {
    /// The symbol.
    pub symbol: String,
    /// The unit that has the copy.
    pub unit: String,
    /// The unit whose definition is used instead; none if the process or the host has that.
    pub used: Option<String>,
    /// Bytes of the copy.
    pub bytes: u64,
    /// How it compares with that.
    pub sameness: Sameness,
}

/// What is loaded more than once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Duplicates {
    all: Vec<Duplicate>,
}

impl Duplicates {
    /// Every copy that is not used, by units in load order.
    pub fn all(&self) -> &[Duplicate] {
        &self.all
    }

    /// Those that compare so with what is used.
    pub fn that_are(&self, sameness: Sameness) -> impl Iterator<Item = &Duplicate> {
        self.all.iter().filter(move |one| one.sameness == sameness)
    }

    /// How many bytes of memory those take.
    pub fn bytes(&self, sameness: Sameness) -> u64 {
        self.that_are(sameness).map(|one| one.bytes).sum()
    }
}

impl Sameness {
    /// That of two identities.
    pub(super) fn of(one: Option<Identity>, other: Option<Identity>) -> Self {
        match (one, other) {
            (Some(one), Some(other)) if one == other => Self::Equal,
            (Some(_), Some(_)) => Self::Differs,
            _ => Self::Unknown,
        }
    }
}

/// The images of a namespace, and what they export.
struct Seen {
    images: Vec<Arc<Image>>,
    /// Of each name the places of the images that have it, in the order of search.
    holders: HashMap<&'static [u8], Vec<usize>>,
}

/// Identities that were read.
#[derive(Default)]
struct Known(HashMap<*const Image, Option<Identities>>);

impl Loader {
    /// Everything that is loaded more than once, in all namespaces.
    pub fn duplicates(&self) -> Duplicates {
        let mut spaces = vec![Arc::clone(&self.0.space)];
        spaces.extend(self.0.spaces.lock().iter().filter_map(Weak::upgrade));
        let (mut all, mut known) = (Vec::new(), Known::default());
        // Kept until all is said, as places in memory are what they are known by.
        let seen: Vec<Seen> = spaces.iter().map(|space| Seen::by(space)).collect();
        for (seen, space) in seen.iter().zip(&spaces) {
            for (at, image) in seen.images.iter().enumerate() {
                if Arc::ptr_eq(image.space(), space) {
                    all.extend(
                        seen.duplicates_of(at).map(|found| (image.sequence(), known.compare(image, found))),
                    );
                }
            }
        }
        all.sort_by_key(|(sequence, _)| *sequence);
        Duplicates { all: all.into_iter().map(|(_, duplicate)| duplicate).collect() }
    }
}

/// A copy that is not used.
struct Lost {
    name: &'static [u8],
    bytes: u64,
    used: Option<Arc<Image>>,
}

impl Seen {
    fn by(space: &Space) -> Self {
        let images = seen_by(space);
        let mut holders: HashMap<&'static [u8], Vec<usize>> = HashMap::new();
        // One alone can only have lost to the process.
        for (at, image) in images.iter().enumerate().filter(|_| images.len() > 1) {
            for name in image.symbols().exported() {
                holders.entry(name).or_default().push(at);
            }
        }
        Self { images, holders }
    }

    /// The copies of the image at a place that are not used.
    fn duplicates_of(&self, at: usize) -> impl Iterator<Item = Lost> {
        let image = &self.images[at];
        let shared =
            image.symbols().iter().filter(|(_, symbol, _)| symbol.is_exported() && symbol.is_shared());
        shared.filter_map(move |(index, symbol, name)| {
            let others =
                self.holders.get(name).into_iter().flatten().copied().filter(move |other| *other != at);
            let lost = match image.shared().counts(index) {
                Some(counts) => !counts,
                // Nobody has asked for it yet; who does gets the first one.
                None => others.clone().any(|other| other < at && self.may_count(other, name)),
            };
            lost.then(|| {
                let used = match image.shared().instead(index) {
                    Some(Value::Address(address)) => registry::image_at(address),
                    _ => {
                        let used = others.clone().find(|other| self.may_count(*other, name));
                        used.map(|other| Arc::clone(&self.images[other]))
                    }
                };
                Lost { name, bytes: symbol.size, used }
            })
        })
    }

    /// Whether the definition that the image at a place has is used, as far as that is known.
    fn may_count(&self, at: usize, name: &[u8]) -> bool {
        let image = &self.images[at];
        let found = image.symbols().find(Name::new(name), None);
        found.is_some_and(|(index, _)| image.shared().counts(index) != Some(false))
    }
}

impl Known {
    fn compare(&mut self, image: &Arc<Image>, Lost { name, bytes, used }: Lost) -> Duplicate {
        let sameness = match &used {
            Some(used) => Sameness::of(self.identity(image, name), self.identity(used, name)),
            None => Sameness::Unknown,
        };
        Duplicate {
            symbol: String::from_utf8_lossy(name).into_owned(),
            unit: image.name().to_owned(),
            used: used.map(|used| used.name().to_owned()),
            bytes,
            sameness,
        }
    }

    fn identity(&mut self, image: &Arc<Image>, name: &[u8]) -> Option<Identity> {
        let identities = self.0.entry(Arc::as_ptr(image)).or_insert_with(|| image.mapped().identities());
        identities.as_ref()?.of(name)
    }
}
