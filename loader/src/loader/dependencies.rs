//! Images that others were linked against: found among what is loaded or is being loaded, held against what they were when
//! their users were linked, and looked for where they are not loaded.
//!
//! Which definition a symbol gets is decided by the layers, as ever; a dependency is held by its users, and started before
//! them, whether they refer to anything of it or not.

use super::{Loader, Member, Namespace, seen_by};
use crate::error::LoadError;
use crate::image::file::ImageFile;
use crate::image::map::Mapped;
use crate::image::symbols::Name;
use crate::image::{Image, ImageDependency, ImageError, InterfaceKind, InterfaceSymbol, note};
use crate::layers::Space;
use crate::libraries::{self, SearchPath};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Who is a dependency of a member of a group.
pub(crate) enum Server {
    /// Another member.
    Member(usize),
    /// An image that is loaded.
    Loaded(Arc<Image>),
}

impl Loader {
    /// Finds the images that members were linked against, among the members and what is loaded.
    ///
    /// # Errors
    /// When one is not there, or has another interface than it had.
    #[inline(never)]
    pub(super) fn find_dependencies(&self, space: &Space, members: &mut [Member]) -> Result<(), LoadError> {
        let images = seen_by(space);
        let mut all = Vec::with_capacity(members.len());
        for (at, member) in members.iter().enumerate() {
            let serve = |dependency| find(member, at, dependency, members, &images);
            all.push(member.dependencies.iter().map(serve).collect::<Result<Vec<_>, _>>()?);
        }
        for (member, servers) in members.iter_mut().zip(all) {
            member.servers = servers;
        }
        Ok(())
    }

    /// The files of the images that `image`, the contents of the one at `path`, was linked against and that no image of the
    /// namespace is nor one that `is_known` knows by its name, as far as they are found: beside it, or else where the libraries that it
    /// needs are looked for.
    ///
    /// # Errors
    /// When it is no image or is damaged.
    pub fn missing_dependencies(
        &self,
        namespace: Option<&Namespace>,
        (path, image): (Option<&Path>, &[u8]),
        is_known: impl Fn(&str) -> bool,
    ) -> Result<Vec<PathBuf>, ImageError> {
        let file = ImageFile::new(image)?;
        let mut dependencies = file.dependencies(&note::layout(image)?)?;
        let loaded = seen_by(self.space(namespace));
        dependencies.retain(|one| {
            !is_known(&one.name) && !loaded.iter().any(|image| image.mapped().is_called(&one.name))
        });
        let names = file.names()?;
        let text = |text: Option<&str>| text.map(|text| text.as_bytes().to_vec());
        let (rpath, runpath) = (text(names.rpath), text(names.runpath));
        let search = SearchPath::of_process().on_behalf_of(path, rpath.as_deref(), runpath.as_deref());
        let beside = |name: &str| Some(path?.with_file_name(name)).filter(|path| path.is_file());
        let find = |one: &ImageDependency| {
            // A name is no path: whoever has made the image must not choose a file anywhere.
            let name = Some(&*one.name).filter(|name| !name.contains('/'))?;
            beside(name).or_else(|| libraries::find(OsStr::new(name), &search))
        };
        Ok(dependencies.iter().filter_map(find).collect())
    }
}

/// Who is a dependency of the member at a place.
fn find(
    user: &Member,
    at: usize,
    dependency: &ImageDependency,
    members: &[Member],
    images: &[Arc<Image>],
) -> Result<Server, LoadError> {
    let others = members.iter().enumerate().filter(|(other, _)| *other != at);
    let others = others.map(|(other, member)| (Server::Member(other), &*member.name, &*member.mapped));
    let loaded = images.iter();
    let loaded = loaded.map(|image| (Server::Loaded(Arc::clone(image)), image.name(), image.mapped()));
    let mut unfit = None;
    for (server, name, mapped) in loaded.chain(others) {
        if !mapped.is_called(&dependency.name) {
            continue;
        }
        if mapped.layout.interface == dependency.interface {
            return Ok(server);
        }
        unfit.get_or_insert((name.to_owned(), mapped));
    }
    let (unit, name) = (user.name.to_string(), dependency.name.clone());
    Err(match unfit {
        None => LoadError::NoDependency { unit, name },
        Some((found, mapped)) => {
            let changes = dependency.symbols.iter().filter_map(|symbol| change(symbol, mapped)).collect();
            LoadError::Interface { unit, found, changes }
        }
    })
}

/// What has become of a symbol, if anything that can be seen.
fn change(symbol: &InterfaceSymbol, mapped: &Mapped) -> Option<String> {
    let InterfaceSymbol { name, version, kind, size } = symbol;
    let all = mapped.symbols.all(Name::new(name.as_bytes()), None);
    let wanted = version.as_ref().map(|version| version.name.as_bytes());
    let Some(now) = all.iter().find(|now| now.version == wanted) else {
        return Some(match version {
            Some(version) if !all.is_empty() => {
                format!("`{name}` is not of version {} any more", version.name)
            }
            _ => format!("`{name}` is gone"),
        });
    };
    let kind_now = InterfaceKind::of(now.kind);
    let size_now = mapped.symbols.get(now.index).map_or(0, |symbol| kind_now.visible(symbol.size));
    if kind_now != *kind {
        let word = |kind| match kind {
            InterfaceKind::Function => "a function",
            InterfaceKind::Data => "a variable",
            InterfaceKind::Tls => "thread-local",
        };
        return Some(format!("`{name}` is {} and was {}", word(kind_now), word(*kind)));
    }
    (size_now != *size).then(|| format!("`{name}` has {size_now} bytes and had {size}"))
}
