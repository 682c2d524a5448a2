//! Code that is known and not loaded, until something needs a symbol of it that nobody else has: members of archives, and
//! lazy libraries, which are one member each.
//!
//! Both are the same layer. Which of them a symbol takes is decided in `runtime/group/pull.rs`; here is what they are,
//! and what of them is loaded.

mod library;

pub(crate) use library::{Exports, LazyLibrary, mentions};

use crate::archive::{Definition, Members};
use crate::namespace::Namespace;
use crate::unit::Making;
use hotbed_loader::Image;
use hotbed_loader::sys::sync::Mutex;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

/// An archive or a lazy library; the body of a unit.
pub(crate) struct Pending {
    /// Name of its unit.
    name: String,
    namespace: Namespace,
    what: What,
    state: Mutex<State>,
}

/// What it is.
pub(crate) enum What {
    Archive(Members),
    Library(LazyLibrary),
}

/// What it says of a symbol.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Says {
    /// It has it.
    Has(Definition),
    /// It does not.
    HasNot,
    /// That is known when it is compiled.
    MayHave,
}

#[derive(Default)]
struct State {
    /// Members that are loaded, or are being loaded.
    taken: HashSet<usize>,
    /// What was made of them, in load order.
    images: Vec<Arc<Image>>,
    /// The members that are loaded, in load order.
    loaded: Vec<usize>,
}

impl Pending {
    pub(crate) fn new(name: &str, namespace: &Namespace, what: What) -> Arc<Self> {
        let (name, namespace) = (name.to_owned(), namespace.clone());
        Arc::new(Self { name, namespace, what, state: Mutex::default() })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub(crate) fn what(&self) -> &What {
        &self.what
    }

    /// The library, if it is one.
    pub(crate) fn library(&self) -> Option<&LazyLibrary> {
        match &self.what {
            What::Library(library) => Some(library),
            What::Archive(_) => None,
        }
    }

    /// What it says of `name`.
    pub(crate) fn says(&self, name: &str) -> Says {
        match &self.what {
            What::Archive(members) => members.definition(name).map_or(Says::HasNot, Says::Has),
            What::Library(library) => library.says(name),
        }
    }

    /// The names that it has, as far as that is known.
    pub(crate) fn names(&self) -> Vec<String> {
        match &self.what {
            What::Archive(members) => members.names().map(str::to_owned).collect(),
            What::Library(library) => library.names(),
        }
    }

    /// The name that a member goes by.
    pub(crate) fn name_of(&self, member: usize) -> String {
        match &self.what {
            What::Archive(members) => format!("{}({})", self.name, members.name_of(member)),
            What::Library(_) => self.name.clone(),
        }
    }

    /// The file of an archive, or of what was made of a library.
    pub(crate) fn path(&self) -> Option<Box<Path>> {
        match &self.what {
            What::Archive(members) => members.path().map(Into::into),
            What::Library(_) => self.images().first().and_then(|image| image.path()).map(Into::into),
        }
    }

    /// Whether a member is loaded, or is being loaded.
    pub(crate) fn is_taken(&self, member: usize) -> bool {
        self.state.lock().taken.contains(&member)
    }

    /// Whether nothing of it is loaded.
    pub(crate) fn is_waiting(&self) -> bool {
        self.state.lock().loaded.is_empty()
    }

    /// What was made of its members up to now, in load order.
    pub(crate) fn images(&self) -> Vec<Arc<Image>> {
        self.state.lock().images.clone()
    }

    /// The names of the members of an archive that are loaded, in load order.
    pub(crate) fn loaded(&self) -> Vec<String> {
        match &self.what {
            What::Archive(members) => {
                let state = self.state.lock();
                state.loaded.iter().map(|member| members.name_of(*member).to_owned()).collect()
            }
            What::Library(_) => Vec::new(),
        }
    }

    /// Takes images back that were let go of; their members have been counted as loaded all the time.
    pub(crate) fn give_back(&self, images: Vec<Arc<Image>>) {
        self.state.lock().images = images;
    }

    /// Lets go of the images. Their members are not loaded again: it is for the end.
    pub(crate) fn take_images(&self) -> Vec<Arc<Image>> {
        std::mem::take(&mut self.state.lock().images)
    }
}

/// Members of one archive, or a library, that are being loaded. They count as loaded until this goes without [`Claim::keep`].
pub(crate) struct Claim {
    pending: Arc<Pending>,
    members: Vec<usize>,
    kept: bool,
}

impl Claim {
    /// Takes `members`. Whoever calls has the right to pull, and they are not taken.
    pub(crate) fn new(pending: &Arc<Pending>, mut members: Vec<usize>) -> Self {
        members.sort_unstable();
        pending.state.lock().taken.extend(&members);
        Self { pending: Arc::clone(pending), members, kept: false }
    }

    pub(crate) fn pending(&self) -> &Arc<Pending> {
        &self.pending
    }

    pub(crate) fn members(&self) -> &[usize] {
        &self.members
    }

    /// The name that an image of them goes by.
    pub(crate) fn name(&self) -> String {
        let What::Archive(members) = &self.pending.what else { return self.pending.name.clone() };
        let (name, first) = (&self.pending.name, self.members.first().map_or("", |at| members.name_of(*at)));
        match self.members.len() {
            0 | 1 => format!("{name}({first})"),
            more => format!("{name}({first} and {} more)", more - 1),
        }
    }

    /// They are loaded as `image` from now on, which was made so.
    pub(crate) fn keep(mut self, image: Arc<Image>, making: Making) {
        if let What::Library(library) = &self.pending.what {
            library.keep(making);
        }
        let mut state = self.pending.state.lock();
        state.images.push(image);
        state.loaded.extend(&self.members);
        drop(state);
        self.kept = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.kept {
            let mut state = self.pending.state.lock();
            self.members.iter().for_each(|member| {
                state.taken.remove(member);
            });
        }
    }
}
