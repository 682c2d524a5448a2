//! An archive that units may need members of: which of them are loaded, and which ones a symbol takes.

use super::Archived;
use super::index::{Definition, Index};
use crate::error::Error;
use crate::input::Compilation;
use crate::namespace::Namespace;
use hotbed_loader::Image;
use hotbed_loader::boundary::{Content, Failure, FailureKind, Lang};
use hotbed_loader::sys::files;
use hotbed_loader::sys::sync::Mutex;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A loaded archive.
pub(crate) struct Registered {
    /// Name of its unit.
    name: String,
    namespace: Namespace,
    path: Option<PathBuf>,
    flags: Vec<String>,
    index: Index,
    /// What tells its contents from others.
    pub(crate) hash: [u8; 32],
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Members that are loaded, or are being loaded.
    taken: HashSet<usize>,
    /// What was made of them, in load order.
    images: Vec<Arc<Image>>,
    /// Names of the members that are loaded.
    loaded: Vec<String>,
}

impl Registered {
    /// Reads an archive.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub(crate) fn read(unit: &str, archive: Archived, namespace: &Namespace) -> Result<Arc<Self>, Error> {
        let Archived { content, flags } = archive;
        let (bytes, path) = match content {
            Content::Bytes { bytes, .. } => (bytes, None),
            Content::File(path) => {
                let bytes = files::open_regular(&path)
                    .and_then(|(file, status)| files::contents_of(&file, status.identity.size))
                    .map_err(|e| Error::read(unit, &path, &e))?;
                (bytes, Some(std::path::absolute(&path).unwrap_or(path)))
            }
        };
        let index = Index::read(&bytes, path.as_deref().and_then(Path::parent)).map_err(|what| {
            Error::of_failure(
                unit,
                Failure::new(FailureKind::Input, format!("cannot load {unit}: it {what}")),
            )
        })?;
        let mut hasher = blake3::Hasher::new();
        for flag in &flags {
            hasher.update(&(flag.len() as u64).to_le_bytes()).update(flag.as_bytes());
        }
        // Of a thin archive the members are elsewhere.
        for member in &index.members {
            hasher.update(&(member.contents.len() as u64).to_le_bytes()).update(&member.contents);
        }
        hasher.update(&bytes);
        let (name, namespace, hash) = (unit.to_owned(), namespace.clone(), hasher.finalize().into());
        Ok(Arc::new(Self { name, namespace, path, flags, index, hash, state: Mutex::default() }))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The names that its members define.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.index.names()
    }

    /// Whether a member defines `name`.
    pub(crate) fn defines(&self, name: &str) -> bool {
        self.index.find(name).is_some()
    }

    /// The definition of `name` that would be loaded if somebody needed it, with the name that its member goes by.
    pub(crate) fn offer(&self, name: &str) -> Option<(String, Definition)> {
        let definition = self.index.definition(name)?;
        let member = &self.index.members[definition.member].name;
        let waits = !self.state.lock().taken.contains(&definition.member);
        waits.then(|| (format!("{}({member})", self.name), definition))
    }

    /// What was made of its members up to now, in load order.
    pub(crate) fn images(&self) -> Vec<Arc<Image>> {
        self.state.lock().images.clone()
    }

    /// The names of the members that are loaded, in load order.
    pub(crate) fn loaded(&self) -> Vec<String> {
        self.state.lock().loaded.clone()
    }

    /// Takes images back that were let go of; their members have been counted as loaded all the time.
    pub(crate) fn give_back(&self, images: Vec<Arc<Image>>) {
        self.state.lock().images = images;
    }

    /// Lets go of the images. Their members are not loaded again: it is for the end of the archive.
    pub(crate) fn take_images(&self) -> Vec<Arc<Image>> {
        std::mem::take(&mut self.state.lock().images)
    }
}

/// Members of one archive that are being loaded. They count as loaded until this goes without [`Claim::keep`].
pub(crate) struct Claim {
    archive: Arc<Registered>,
    members: Vec<usize>,
    kept: bool,
}

impl Claim {
    pub(crate) fn archive(&self) -> &Arc<Registered> {
        &self.archive
    }

    /// The name that an image of them goes by.
    pub(crate) fn name(&self) -> String {
        let first = self.members.first().map_or("", |at| &self.archive.index.members[*at].name);
        match self.members.len() {
            0 | 1 => format!("{}({first})", self.archive.name),
            more => format!("{}({first} and {} more)", self.archive.name, more - 1),
        }
    }

    /// Their names.
    pub(crate) fn names(&self) -> Vec<String> {
        self.members.iter().map(|at| self.archive.index.members[*at].name.clone()).collect()
    }

    /// What makes one image of them.
    pub(crate) fn compilation(&self) -> Compilation {
        let inputs = self.members.iter().map(|at| {
            let member = &self.archive.index.members[*at];
            let lang = if member.bitcode { Lang::Bitcode } else { Lang::Object };
            let name = format!("{}({})", self.archive.name, member.name);
            (lang, Content::Bytes { name, bytes: member.contents.clone() })
        });
        Compilation::of_all(inputs, &self.archive.flags)
    }

    /// They are loaded as `image` from now on.
    pub(crate) fn keep(mut self, image: Arc<Image>) {
        let names = self.names();
        let mut state = self.archive.state.lock();
        state.images.push(image);
        state.loaded.extend(names);
        drop(state);
        self.kept = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.kept {
            let mut state = self.archive.state.lock();
            self.members.iter().for_each(|member| {
                state.taken.remove(member);
            });
        }
    }
}

/// The members that define `names` and, transitively, what these need and nobody `has`: one claim for each archive that has
/// any. The first archive that defines a name counts. Whoever calls holds the right to pull, so that nobody else
/// takes the same members.
pub(crate) fn select<'a>(
    archives: &'a [Arc<Registered>],
    names: impl IntoIterator<Item = &'a str>,
    has: impl Fn(&str) -> bool,
) -> Vec<Claim> {
    let mut chosen: Vec<Vec<usize>> = vec![Vec::new(); archives.len()];
    let mut seen: HashSet<&str> = HashSet::new();
    let mut open: Vec<(&str, bool)> = names.into_iter().map(|name| (name, true)).collect();
    while let Some((name, certain)) = open.pop() {
        if !seen.insert(name) {
            continue;
        }
        let definer =
            archives.iter().enumerate().find_map(|(at, archive)| Some((at, archive.index.find(name)?)));
        let Some((at, member)) = definer else { continue };
        let archive = &archives[at];
        if archive.state.lock().taken.contains(&member) || (!certain && has(name)) {
            continue;
        }
        for member in archive.index.cluster(member) {
            archive.state.lock().taken.insert(*member);
            chosen[at].push(*member);
            open.extend(archive.index.members[*member].needs.iter().map(|name| (name.as_str(), false)));
        }
    }
    let with_members = archives.iter().zip(chosen).filter(|(_, members)| !members.is_empty());
    with_members
        .map(|(archive, mut members)| {
            members.sort_unstable();
            Claim { archive: Arc::clone(archive), members, kept: false }
        })
        .collect()
}
