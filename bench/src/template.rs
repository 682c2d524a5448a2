//! Many tiny images out of one: a unit is compiled and linked once through the command, and its copies get other names.
//!
//! The unit has one exported function, an import, a pointer to data that has to be relocated, and unwind tables. The name
//! of the function has a fixed width, and stands in the file where the compiler and the linker put it: in the string
//! tables, in the `SONAME`, and as the text that the unit compares. A copy replaces all of these, makes the hash table
//! right for the new name, and is sealed again.
//!
//! The hash table (GNU's): four words (buckets, first symbol in it, words of the filter, shift of the filter), the
//! filter, the buckets, a word for each symbol: its hash, the lowest bit set at the end of a bucket. With one bucket, which
//! is what the linker makes for so few symbols, other hashes change nothing in the order of the symbols.

use crate::Result;
use crate::context::Context;
use crate::elf::{Elf, SYMBOL, gnu_hash};
use crate::process::output_of;
use hotbed::BUILD;
use hotbed_loader::image::note::seal;
use object::elf::{DT_GNU_HASH, DT_HASH, DT_STRTAB, DT_SYMTAB};
use std::path::Path;

/// What stands in the template for the name of a copy.
const PLACEHOLDER: &str = "unit_00000000";

/// The unit. The function tells whether it is the one that was asked for.
const SOURCE: &str = "#include <string.h>\n\
                      static const char *volatile own = \"unit_00000000\";\n\
                      int unit_00000000(const char *asked) { return strcmp(own, asked) == 0; }\n";

/// The function of a copy: 1 if it is called with its own name.
pub(crate) type IsCalled = unsafe extern "C" fn(*const std::ffi::c_char) -> std::ffi::c_int;

/// The linked unit, ready to be copied.
pub(crate) struct Template {
    bytes: Vec<u8>,
    /// Where the name stands.
    places: Vec<usize>,
    /// Where the words of the filter and the hashes of the symbols stand.
    filter: usize,
    words: usize,
    shift: u32,
    hashes: usize,
    /// Where the names of the symbols in the hash table stand.
    names: Vec<usize>,
}

impl Template {
    /// Compiles and links the unit, or takes what an earlier run has kept.
    ///
    /// # Errors
    /// When the unit cannot be built, or is linked in a way that cannot be copied.
    pub(crate) fn new(context: &Context) -> Result<Self> {
        let folder = context.kept("template", &(BUILD, SOURCE), |folder| build(context, folder))?;
        Self::of(std::fs::read(folder.join(format!("{PLACEHOLDER}.hbi")))?)
    }

    fn of(bytes: Vec<u8>) -> Result<Self> {
        let elf = Elf::new(&bytes)?;
        let tag = |tag: i64| elf.tag(tag).ok_or("the template lacks a table");
        if elf.tag(DT_HASH.0).is_some() {
            return Err("the template has a hash table of the old kind".into());
        }
        let (table, symbols, strings) = (tag(DT_GNU_HASH.0)?, tag(DT_SYMTAB.0)?, tag(DT_STRTAB.0)?);
        let (buckets, first, words) = (elf.u32(table)?, elf.u32(table + 4)?, elf.u32(table + 8)?);
        if buckets != 1 || elf.u32(table + 16 + 8 * u64::from(words))? != first {
            return Err("the template has a hash table that cannot be copied".into());
        }
        let hashes = table + 16 + 8 * u64::from(words) + 4;
        let mut names = Vec::new();
        loop {
            let at = names.len() as u64;
            let symbol = symbols + (u64::from(first) + at) * SYMBOL;
            names.push(elf.offset(strings + u64::from(elf.u32(symbol)?))?);
            if elf.u32(hashes + 4 * at)? & 1 != 0 {
                break;
            }
        }
        let width = PLACEHOLDER.len();
        let places = bytes.windows(width).enumerate().filter(|(_, window)| *window == PLACEHOLDER.as_bytes());
        Ok(Self {
            places: places.map(|(at, _)| at).collect(),
            filter: elf.offset(table + 16)?,
            words: words as usize,
            shift: elf.u32(table + 12)?,
            hashes: elf.offset(hashes)?,
            names,
            bytes,
        })
    }

    /// The name of copy `number`; its function has the same.
    pub(crate) fn name(number: usize) -> String {
        format!("unit_{number:08}")
    }

    /// Copy `number`: another image.
    ///
    /// # Errors
    /// When it cannot be sealed.
    pub(crate) fn copy(&self, number: usize) -> Result<Vec<u8>> {
        let mut bytes = self.bytes.clone();
        let name = Self::name(number);
        for at in &self.places {
            bytes[*at..*at + name.len()].copy_from_slice(name.as_bytes());
        }
        let mut filter = vec![0u64; self.words];
        for (index, at) in self.names.iter().enumerate() {
            let length = bytes[*at..].iter().position(|byte| *byte == 0).ok_or("a name without an end")?;
            let hash = gnu_hash(&bytes[*at..*at + length]);
            filter[(hash / 64) as usize % self.words] |= 1 << (hash % 64) | 1 << ((hash >> self.shift) % 64);
            let last = u32::from(index + 1 == self.names.len());
            let place = self.hashes + 4 * index;
            bytes[place..place + 4].copy_from_slice(&(hash & !1 | last).to_le_bytes());
        }
        for (index, word) in filter.iter().enumerate() {
            let place = self.filter + 8 * index;
            bytes[place..place + 8].copy_from_slice(&word.to_le_bytes());
        }
        seal(&mut bytes)?;
        Ok(bytes)
    }
}

fn build(context: &Context, folder: &Path) -> Result<()> {
    let source = folder.join(format!("{PLACEHOLDER}.c"));
    std::fs::write(&source, SOURCE)?;
    let mut build = context.hotbed(&["image", "build", "-O1", "-fasynchronous-unwind-tables", "-o"]);
    output_of(build.arg(folder.join(format!("{PLACEHOLDER}.hbi"))).arg(&source)).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end with a panic")]
    use super::*;
    use crate::process::clang;
    use hotbed_loader::image::note::note_bytes;

    #[test]
    fn a_copy_is_found_under_its_own_name() {
        let folder = std::env::temp_dir().join(format!("hotbed-bench-template-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (source, library) = (folder.join("unit.c"), folder.join("unit.so"));
        let note = note_bytes().iter().map(|byte| format!("{byte},")).collect::<String>();
        let note = note.trim_end_matches(',');
        let note = format!(
            "__asm__(\".section .note.hotbed,\\\"a\\\",@note\\n.p2align 2\\n.byte {note}\\n.text\");\n"
        );
        std::fs::write(&source, format!("{note}{SOURCE}")).unwrap();
        let flags = ["-shared", "-fPIC", "-nostartfiles", "-fuse-ld=lld", "-Wl,--hash-style=gnu", "-o"];
        output_of(clang(flags).unwrap().arg(&library).arg(&source)).unwrap();

        let template = Template::of(std::fs::read(&library).unwrap()).unwrap();
        let copy = template.copy(4711).unwrap();
        hotbed_loader::image::note::verify(&copy).unwrap();
        let path = folder.join("copy.so");
        std::fs::write(&path, &copy).unwrap();
        let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: the library is the one above; its function has the type `IsCalled`, and texts end with a zero.
        unsafe {
            let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
            assert!(!library.is_null());
            let function = libc::dlsym(library, c"unit_00004711".as_ptr());
            assert!(!function.is_null() && libc::dlsym(library, c"unit_00000000".as_ptr()).is_null());
            let function = std::mem::transmute::<*mut libc::c_void, IsCalled>(function);
            assert_eq!((function(c"unit_00004711".as_ptr()), function(c"unit_00000000".as_ptr())), (1, 0));
            libc::dlclose(library);
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
