//! Images for tests, made of sources by clang and lld as processes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing test shall say where")]

use crate::image::note;
use crate::{Image, ImageSource, LoadError, Loader, LoaderOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The note, with the symbol that goes with it.
fn note_source() -> String {
    let bytes: Vec<String> = note::note_bytes().iter().map(u8::to_string).collect();
    format!(
        ".section {section},\"a\",@note\n.p2align 2\n.globl {handle}\n.hidden {handle}\n{handle}:\n.byte {bytes}\n\
         .section .note.GNU-stack,\"\",@progbits\n",
        section = note::NOTE_SECTION,
        handle = note::DSO_HANDLE,
        bytes = bytes.join(","),
    )
}

/// A folder that goes away with the test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("hotbed-loader-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Compiles `source` into the image `name`; the language follows from the suffix of `name`.
    pub(crate) fn image(&self, name: &str, source: &str, flags: &[&str]) -> PathBuf {
        let note = self.0.join("note.s");
        std::fs::write(&note, note_source()).unwrap();
        let mut all = vec![
            "-nostartfiles",
            "-Wl,-Bsymbolic-non-weak",
            "-Wl,-z,pack-relative-relocs",
            "-Wl,--eh-frame-hdr",
            note.to_str().unwrap(),
        ];
        all.extend_from_slice(flags);
        self.library(name, source, &all)
    }

    /// Compiles `source` into an ordinary shared library.
    pub(crate) fn library(&self, name: &str, source: &str, flags: &[&str]) -> PathBuf {
        let input = self.0.join(name);
        std::fs::write(&input, source).unwrap();
        let output = self.0.join(format!("{}.so", name.split('.').next().unwrap()));
        let compiler = if name.ends_with(".cpp") { "clang++-22" } else { "clang-22" };
        let result = Command::new(compiler)
            .args(["-O1", "-shared", "-fPIC", "-fuse-ld=lld", "-w", "-o"])
            .args([&output, &input])
            .args(flags)
            .output()
            .unwrap();
        assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
        output
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn loader() -> Loader {
    Loader::new(LoaderOptions::default())
}

pub(crate) fn load(loader: &Loader, path: &Path) -> Result<Arc<Image>, LoadError> {
    let name = path.file_stem().unwrap().to_str().unwrap();
    loader.load_image(name, ImageSource::File(path))
}

/// Calls a function without arguments that gives an `int`.
pub(crate) fn call(image: &Image, name: &str) -> i32 {
    let definition = image.get(name).unwrap_or_else(|| panic!("no {name}"));
    // SAFETY: the tests give functions of this type only.
    unsafe { std::mem::transmute::<usize, extern "C-unwind" fn() -> i32>(definition.address)() }
}

/// Calls a function without arguments that gives an address.
pub(crate) fn call_address(image: &Image, name: &str) -> usize {
    let definition = image.get(name).unwrap_or_else(|| panic!("no {name}"));
    // SAFETY: the tests give functions of this type only.
    unsafe { std::mem::transmute::<usize, extern "C-unwind" fn() -> usize>(definition.address)() }
}
