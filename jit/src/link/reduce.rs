//! The linker's line with stubs for its shared libraries, where it is plain enough to know what they are asked for.

use super::exports::{Contents, Exports, contents_of};
use super::libraries::Settled;
use super::stub::stub;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Libraries with fewer exports are read as they are.
const SMALL: usize = 200;

/// A line that reads less.
#[derive(Debug)]
pub(crate) struct Reduced {
    /// Arguments, stubs among them.
    pub(crate) pieces: Vec<Piece>,
    /// Files that the stubs stand for, and scripts that were followed.
    pub(crate) read: Vec<PathBuf>,
}

/// A piece of a reduced line.
#[derive(Debug)]
pub(crate) enum Piece {
    /// An argument as it is.
    Argument(String),
    /// A stub and the library that it stands for.
    Stub {
        /// The stub's bytes.
        bytes: Vec<u8>,
        /// The library.
        path: PathBuf,
    },
}

/// What a library on the line comes to.
enum Item {
    Shared(PathBuf, Arc<Exports>),
    Archive(PathBuf, Arc<Vec<Vec<u8>>>),
    AsNeeded(Vec<Item>),
}

/// Puts stubs in. `undefined` is what the objects and archives on the line leave undefined. None when something on
/// the line is not understood, which is no error: lld then reads everything itself.
pub(crate) fn reduce<'a>(settled: &Settled, undefined: impl Iterator<Item = &'a [u8]>) -> Option<Reduced> {
    let mut read = Vec::new();
    let mut line = Vec::new();
    for (argument, found) in &settled.arguments {
        line.push(match found {
            Some(path) => Ok(expand(path, &mut read)?),
            None => Err(argument),
        });
    }
    let mut wanted: HashSet<&[u8]> = undefined.collect();
    for items in line.iter().filter_map(|piece| piece.as_ref().ok()) {
        add_wanted(items, &mut wanted);
    }
    let mut pieces = Vec::new();
    for piece in &line {
        match piece {
            Ok(items) => push(items, &wanted, &mut pieces, &mut read),
            Err(argument) => pieces.push(Piece::Argument((*argument).clone())),
        }
    }
    Some(Reduced { pieces, read })
}

fn expand(path: &Path, read: &mut Vec<PathBuf>) -> Option<Vec<Item>> {
    Some(match contents_of(path)? {
        Contents::Shared(exports) => vec![Item::Shared(path.to_owned(), exports)],
        Contents::Archive(undefined) => vec![Item::Archive(path.to_owned(), undefined)],
        Contents::Text(text) => {
            read.push(path.to_owned());
            script(&text)?
        }
    })
}

/// A script as libraries of the system are: a `GROUP` of absolute paths, some of them `AS_NEEDED`.
fn script(text: &str) -> Option<Vec<Item>> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("/*") {
        plain.push_str(&rest[..start]);
        rest = &rest[start..];
        rest = &rest[rest.find("*/")? + 2..];
    }
    plain.push_str(rest);
    let spaced = plain.replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace();
    let mut items = Vec::new();
    while let Some(command) = words.next() {
        if words.next() != Some("(") {
            return None;
        }
        match command {
            "OUTPUT_FORMAT" => while words.next()? != ")" {},
            "GROUP" | "INPUT" => items.extend(group(&mut words)?),
            _ => return None,
        }
    }
    Some(items)
}

fn group<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Vec<Item>> {
    let mut items = Vec::new();
    loop {
        match words.next()? {
            ")" => return Some(items),
            "AS_NEEDED" if words.next()? == "(" => items.push(Item::AsNeeded(group(words)?)),
            path if path.starts_with('/') => match contents_of(Path::new(path))? {
                Contents::Shared(exports) => items.push(Item::Shared(path.into(), exports)),
                Contents::Archive(undefined) => items.push(Item::Archive(path.into(), undefined)),
                Contents::Text(_) => return None,
            },
            _ => return None,
        }
    }
}

fn add_wanted<'a>(items: &'a [Item], wanted: &mut HashSet<&'a [u8]>) {
    for item in items {
        match item {
            Item::Shared(..) => {}
            Item::Archive(_, undefined) => wanted.extend(undefined.iter().map(Vec::as_slice)),
            Item::AsNeeded(items) => add_wanted(items, wanted),
        }
    }
}

/// Whether a library that is linked as needed has nothing that is wanted.
fn is_needless(item: &Item, wanted: &HashSet<&[u8]>) -> bool {
    let Item::Shared(_, exports) = item else { return false };
    !wanted.iter().any(|name| exports.definitions.contains_key(*name))
}

impl Item {
    /// The path of a shared library.
    fn library(&self) -> Option<PathBuf> {
        match self {
            Self::Shared(path, _) => Some(path.clone()),
            Self::Archive(..) | Self::AsNeeded(_) => None,
        }
    }
}

fn push(items: &[Item], wanted: &HashSet<&[u8]>, pieces: &mut Vec<Piece>, read: &mut Vec<PathBuf>) {
    let plain = |argument: &str| Piece::Argument(argument.to_owned());
    for item in items {
        match item {
            Item::Shared(path, exports) if exports.definitions.len() > SMALL => {
                read.push(path.clone());
                let mut names: Vec<&[u8]> = wanted.iter().copied().collect();
                // The order is that of the image's tables.
                names.sort_unstable();
                pieces.push(Piece::Stub { bytes: stub(exports, names.into_iter()), path: path.clone() });
            }
            Item::Shared(path, _) | Item::Archive(path, _) => pieces.push(plain(&path.to_string_lossy())),
            Item::AsNeeded(items) if items.iter().all(|item| is_needless(item, wanted)) => {
                read.extend(items.iter().filter_map(Item::library));
            }
            Item::AsNeeded(items) => {
                pieces.extend([plain("--push-state"), plain("--as-needed")]);
                push(items, wanted, pieces, read);
                pieces.push(plain("--pop-state"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_scripts_are_followed() {
        let Some(Contents::Text(text)) = contents_of(Path::new("/usr/lib/x86_64-linux-gnu/libc.so")) else {
            panic!("libc.so is no script");
        };
        let items = script(&text).expect("items");
        assert!(matches!(&items[0], Item::Shared(_, exports) if exports.soname == b"libc.so.6"));
        assert!(matches!(&items[1], Item::Archive(..)));
        assert!(matches!(&items[2], Item::AsNeeded(_)));
        assert!(script("SECTIONS { }").is_none());
        assert!(script("GROUP ( -lfoo )").is_none());
        assert!(script("GROUP ( /lib/x86_64-linux-gnu/libc.so.6").is_none());
    }
}
