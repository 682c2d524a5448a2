//! Images that the one that is being linked depends on: lld gets a stub of each, made of its interface; the image remembers
//! them.

use super::exports::{Export, Exports};
use super::stub::stub;
use hotbed_loader::image::{ImageDependency, ImageInterface, InterfaceKind};
use object::elf;
use std::collections::HashMap;

/// Versions in a file are numbered from here on.
const FIRST_VERSION: usize = 2;

/// What the linker reads of an image.
pub(super) fn stub_of(image: &ImageInterface) -> Vec<u8> {
    let mut exports = Exports {
        soname: image.name.clone().into_bytes(),
        versions: vec![Vec::new(); FIRST_VERSION],
        ..Exports::default()
    };
    let mut numbers: HashMap<&str, u16> = HashMap::new();
    let mut names: Vec<&[u8]> = Vec::new();
    for symbol in image.interface.symbols() {
        let version = symbol.version.as_ref().map_or(1, |version| {
            let number = *numbers.entry(&version.name).or_insert_with(|| {
                exports.versions.push(version.name.clone().into_bytes());
                (exports.versions.len() - 1) as u16
            });
            number | if version.default { 0 } else { elf::VERSYM_HIDDEN.0 }
        });
        let kind = match symbol.kind {
            InterfaceKind::Function => elf::STT_FUNC,
            InterfaceKind::Data => elf::STT_OBJECT,
            InterfaceKind::Tls => elf::STT_TLS,
        };
        let export = Export { info: elf::STB_GLOBAL.0 << 4 | kind.0, size: symbol.size, version };
        let name = symbol.name.as_bytes();
        exports.definitions.entry(name.to_vec()).or_default().push(export);
        if names.last() != Some(&name) {
            names.push(name);
        }
    }
    stub(&exports, names.into_iter())
}

/// What the image remembers of those, given what is left undefined by what it is linked from.
pub(super) fn remembered<'a>(
    images: &[ImageInterface],
    undefined: impl Iterator<Item = &'a [u8]> + Clone,
) -> Vec<ImageDependency> {
    images.iter().map(|image| ImageDependency::new(image, undefined.clone())).collect()
}
