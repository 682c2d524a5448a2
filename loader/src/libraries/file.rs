//! What the file of a shared library says about itself: what it needs, what it exports. Read with plain reads, only
//! the parts that are asked for, and never mapped: a file that shrinks meanwhile is an error and not a signal. Any damage is
//! "nothing to be had from this file".
//!
//! Tables are found by section headers, which give their sizes; a library without them (`sstrip`) is passed over.

use crate::image::SymbolKind;
use crate::sys::files::{self, FileIdentity};
use object::elf::{self, FileHeader64, Sym64, Versym};
use object::read::elf::{FileHeader as _, SectionHeader as _, SectionTable, Sym as _};
use object::read::{ReadCache, StringTable, SymbolIndex};
use object::{LittleEndian, SectionIndex};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

type Header = FileHeader64<LittleEndian>;

/// What a search for libraries makes of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fitness {
    /// A file of this machine's kind.
    Fits,
    /// A file of ELF's kind for another machine or of another class.
    Other,
    /// Another file, such as a text that only linkers understand.
    NotElf,
    /// Nothing that can be read.
    Absent,
}

/// Looks at the beginning of the file at `path`.
pub(crate) fn fitness(path: &Path) -> Fitness {
    let Ok((file, _)) = files::open_regular(path) else { return Fitness::Absent };
    let mut head = [0; 20];
    let full = file.read_exact_at(&mut head, 0).is_ok();
    if !full || head[..4] != elf::ELFMAG {
        return Fitness::NotElf;
    }
    let machine = u16::from_le_bytes([head[18], head[19]]);
    let fits = head[4] == elf::ELFCLASS64.0 && head[5] == elf::ELFDATA2LSB.0 && machine == elf::EM_X86_64.0;
    if fits { Fitness::Fits } else { Fitness::Other }
}

/// The file of a shared library, open.
pub(crate) struct LibraryFile {
    data: ReadCache<File>,
    identity: FileIdentity,
}

/// What a library's dynamic section says, as far as it matters for searching.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Names of the libraries it needs.
    pub(crate) needed: Vec<Vec<u8>>,
    /// Where they are looked for.
    pub(crate) rpath: Option<Vec<u8>>,
    /// Where they are looked for, with less weight.
    pub(crate) runpath: Option<Vec<u8>>,
    /// The name it gives itself.
    pub(crate) soname: Option<Vec<u8>>,
    /// Whether `dlopen` refuses it: an executable, or marked so.
    pub(crate) not_for_opening: bool,
}

/// A symbol that a library exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exported<'a> {
    /// Its name.
    pub(crate) name: &'a [u8],
    /// Whether it is not weak.
    pub(crate) strong: bool,
    /// Whether it is found by those who ask for no version.
    pub(crate) default: bool,
    /// What it is.
    pub(crate) kind: SymbolKind,
    index: usize,
}

/// Names that a linker makes in every library, or that mean this library only.
const OF_EVERY_LIBRARY: [&[u8]; 12] = [
    b"_init",
    b"_fini",
    b"_edata",
    b"edata",
    b"_end",
    b"end",
    b"_etext",
    b"etext",
    b"__bss_start",
    b"__data_start",
    b"data_start",
    b"_start",
];

impl LibraryFile {
    /// Opens the file at `path`; `None` when it cannot be read.
    pub(crate) fn open(path: &Path) -> Option<Self> {
        let (file, status) = files::open_regular(path).ok()?;
        Some(Self { data: ReadCache::new(file), identity: status.identity })
    }

    /// Which state of which file is read.
    pub(crate) fn identity(&self) -> &FileIdentity {
        &self.identity
    }

    /// The section headers, if it is a library for this machine.
    fn sections(&self) -> Option<SectionTable<'_, Header, &ReadCache<File>>> {
        let header = Header::parse(&self.data).ok()?;
        if !header.is_little_endian()
            || header.e_machine.get(LittleEndian) != elf::EM_X86_64
            || header.e_type.get(LittleEndian) != elf::ET_DYN
        {
            return None;
        }
        header.sections(LittleEndian, &self.data).ok()
    }

    /// The strings that the section at `index` holds.
    fn strings<'a>(
        &'a self,
        sections: &SectionTable<'a, Header, &'a ReadCache<File>>,
        index: SectionIndex,
    ) -> Option<Strings<'a>> {
        let bytes = sections.section(index).ok()?.data(LittleEndian, &self.data).ok()?;
        Some(Strings(StringTable::new(bytes, 0, bytes.len() as u64)))
    }

    /// Its dynamic section.
    pub(crate) fn needs(&self) -> Option<Needs> {
        let sections = self.sections()?;
        let (entries, link) = sections.dynamic(LittleEndian, &self.data).ok()??;
        let strings = self.strings(&sections, link)?;
        let mut needs = Needs::default();
        for entry in entries {
            let text = || strings.get(u32::try_from(entry.d_val.get(LittleEndian)).ok()?).map(<[u8]>::to_vec);
            match entry.d_tag.get(LittleEndian) {
                elf::DT_NULL => break,
                elf::DT_NEEDED => needs.needed.extend(text()),
                elf::DT_RPATH => needs.rpath = text(),
                elf::DT_RUNPATH => needs.runpath = text(),
                elf::DT_SONAME => needs.soname = text(),
                elf::DT_FLAGS_1 => {
                    let flags = entry.d_val.get(LittleEndian);
                    const NO_OPEN: u64 = 0x40;
                    const PIE: u64 = 0x0800_0000;
                    needs.not_for_opening = flags & (NO_OPEN | PIE) != 0;
                }
                _ => {}
            }
        }
        Some(needs)
    }

    /// The build id, as far as it has one of usual length: up to 20 bytes, the rest zeros.
    pub(crate) fn build_id(&self) -> Option<[u8; 20]> {
        let sections = self.sections()?;
        for section in sections.iter() {
            let Ok(Some(mut notes)) = section.notes(LittleEndian, &self.data) else { continue };
            while let Ok(Some(note)) = notes.next() {
                if note.name() == elf::ELF_NOTE_GNU && note.n_type(LittleEndian) == elf::NT_GNU_BUILD_ID {
                    let id = note.desc();
                    let mut bytes = [0; 20];
                    bytes.get_mut(..id.len())?.copy_from_slice(id);
                    return (!id.is_empty()).then_some(bytes);
                }
            }
        }
        None
    }

    /// Calls `visit` with every symbol it exports, until that says `false`; `None` when the tables cannot be read.
    pub(crate) fn for_each_export<'a>(&'a self, mut visit: impl FnMut(Exported<'a>) -> bool) -> Option<()> {
        let sections = self.sections()?;
        let section = sections.iter().find(|section| section.sh_type.get(LittleEndian) == elf::SHT_DYNSYM)?;
        let symbols: &[Sym64<LittleEndian>] = section.data_as_array(LittleEndian, &self.data).ok()?;
        let strings = self.strings(&sections, section.link(LittleEndian))?;
        let versions = sections.gnu_versym(LittleEndian, &self.data).ok()?.map_or(&[][..], |found| found.0);
        for (index, symbol) in symbols.iter().enumerate() {
            let default = match versions.get(index).map(|version: &Versym<_>| version.0.get(LittleEndian)) {
                Some(version) if version.index() == elf::VER_NDX_LOCAL => continue,
                Some(version) => !version.is_hidden(),
                None => true,
            };
            if !is_exported(symbol) {
                continue;
            }
            let Some(name) = strings.get(symbol.st_name(LittleEndian)) else { continue };
            if name.is_empty() || OF_EVERY_LIBRARY.contains(&name) {
                continue;
            }
            let kind = match symbol.st_type() {
                elf::STT_TLS => SymbolKind::Tls,
                elf::STT_GNU_IFUNC => SymbolKind::IndirectFunction,
                elf::STT_OBJECT | elf::STT_COMMON => SymbolKind::Data,
                _ => SymbolKind::Function,
            };
            if !visit(Exported { name, strong: symbol.st_bind() != elf::STB_WEAK, default, kind, index }) {
                break;
            }
        }
        Some(())
    }

    /// Whether it exports `name`, of that version if one is asked for, by default otherwise. A library without versions
    /// has every version.
    pub(crate) fn exports(&self, name: &[u8], version: Option<&[u8]>) -> bool {
        let mut found = false;
        let done = self.for_each_export(|symbol| {
            if symbol.name == name {
                found = match version {
                    None => symbol.default,
                    Some(version) => self.has_version(symbol.index, version).unwrap_or(false),
                };
            }
            !found
        });
        done.is_some() && found
    }

    fn has_version(&self, index: usize, wanted: &[u8]) -> Option<bool> {
        let sections = self.sections()?;
        if sections.gnu_verdef(LittleEndian, &self.data).ok()?.is_none() {
            return Some(true);
        }
        let versions = sections.versions(LittleEndian, &self.data).ok()??;
        let index = versions.version_index(LittleEndian, SymbolIndex(index)).index();
        match versions.version(index).ok()? {
            Some(version) => Some(version.name() == wanted),
            // The base version belongs to those who ask for none.
            None => Some(false),
        }
    }
}

/// Whether others can bind to the symbol. Absolute ones are the names of versions.
fn is_exported(symbol: &Sym64<LittleEndian>) -> bool {
    let section = symbol.st_shndx(LittleEndian);
    section != elf::SHN_UNDEF
        && section != elf::SHN_ABS
        && matches!(symbol.st_bind(), elf::STB_GLOBAL | elf::STB_WEAK | elf::STB_GNU_UNIQUE)
        && matches!(symbol.st_visibility(), elf::STV_DEFAULT | elf::STV_PROTECTED)
        && matches!(
            symbol.st_type(),
            elf::STT_NOTYPE
                | elf::STT_OBJECT
                | elf::STT_FUNC
                | elf::STT_COMMON
                | elf::STT_TLS
                | elf::STT_GNU_IFUNC
        )
}

/// A string table in memory.
#[derive(Clone, Copy)]
struct Strings<'a>(StringTable<'a, &'a [u8]>);

impl<'a> Strings<'a> {
    fn get(&self, offset: u32) -> Option<&'a [u8]> {
        self.0.get(offset).ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;
    use crate::testing::Folder;
    use std::collections::BTreeSet;
    use std::process::Command;

    fn exports(path: &Path) -> BTreeSet<(String, bool, bool)> {
        let file = LibraryFile::open(path).unwrap();
        let mut found = BTreeSet::new();
        file.for_each_export(|symbol| {
            let name = String::from_utf8_lossy(symbol.name).into_owned();
            found.insert((name, symbol.strong, symbol.default));
            true
        })
        .unwrap();
        found
    }

    #[test]
    fn what_a_library_exports_is_what_nm_lists() {
        let libc = super::super::find("libc.so.6".as_ref(), &super::super::SearchPath::of_process()).unwrap();
        let output = Command::new("llvm-nm-22").args(["-D", "--defined-only"]).arg(&libc).output().unwrap();
        let mut listed = BTreeSet::new();
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            // 0000000000080a90 T puts@@GLIBC_2.2.5
            let mut fields = line.split_whitespace().skip(1);
            let (kind, name) = (fields.next().unwrap(), fields.next().unwrap());
            if kind == "A" || OF_EVERY_LIBRARY.contains(&name.as_bytes()) {
                continue;
            }
            let hidden = name.contains('@') && !name.contains("@@");
            listed.insert((name.split('@').next().unwrap().to_owned(), !matches!(kind, "W" | "V"), !hidden));
        }
        // nm calls a resolver `i`, whatever its binding.
        let resolved: BTreeSet<_> =
            listed.iter().map(|(name, _, default)| (name.clone(), *default)).collect();
        let read: BTreeSet<_> =
            exports(&libc).into_iter().map(|(name, _, default)| (name, default)).collect();
        assert!(read.len() > 2000);
        assert_eq!(read, resolved);
    }

    #[test]
    fn weak_hidden_and_local_are_told_apart() {
        let folder = Folder::new();
        let source = "__attribute__((weak)) int w(void) { return 1; }\n int s(void) { return 2; }\n\
                      __attribute__((visibility(\"hidden\"))) int h(void) { return 3; }\n\
                      int data; extern int missing; int* p(void) { return &missing; } __thread int t;";
        let path = folder.library("kinds.c", source, &["-Wl,--allow-shlib-undefined"]);
        let expected = [("data", true), ("p", true), ("s", true), ("t", true), ("w", false)];
        let expected = expected.map(|(name, strong)| (name.to_owned(), strong, true));
        assert_eq!(exports(&path), BTreeSet::from(expected));
    }

    #[test]
    fn versions_are_asked_of_the_library_itself() {
        let folder = Folder::new();
        let script = folder.path().join("map");
        std::fs::write(&script, "V_1 { global: f; local: *; }; V_2 { global: f; g; } V_1;").unwrap();
        let source = "__asm__(\".symver f1, f@V_1\"); __asm__(\".symver f2, f@@V_2\");\n\
                      int f1(void) { return 1; } int f2(void) { return 2; } int g(void) { return 3; }";
        let flag = format!("-Wl,--version-script={}", script.display());
        let path = folder.library("versions.c", source, &[&flag, "-Wl,--undefined-version"]);
        let file = LibraryFile::open(&path).unwrap();
        for (name, version, expected) in [
            ("f", None, true),
            ("f", Some("V_1"), true),
            ("f", Some("V_2"), true),
            ("f", Some("V_3"), false),
            ("g", Some("V_2"), true),
            ("g", Some("V_1"), false),
            ("h", None, false),
        ] {
            assert_eq!(
                file.exports(name.as_bytes(), version.map(str::as_bytes)),
                expected,
                "{name} {version:?}"
            );
        }
        let plain = LibraryFile::open(&folder.library("plain.c", "int f(void) { return 1; }", &[])).unwrap();
        assert!(plain.exports(b"f", Some(b"V_9")));
    }

    #[test]
    fn the_dynamic_section_is_what_the_linker_was_told() {
        let folder = Folder::new();
        folder.library("libinner.c", "int inner(void) { return 1; }", &["-Wl,-soname,libinner.so.3"]);
        let search = format!("-L{}", folder.path().display());
        let flags = [
            &search,
            "-linner",
            "-Wl,-soname,libouter.so.2",
            "-Wl,-rpath,$ORIGIN/x",
            "-Wl,--disable-new-dtags",
            "-Wl,--build-id=0x0102ff",
        ];
        let path =
            folder.library("libouter.c", "int inner(void); int outer(void) { return inner(); }", &flags);
        let file = LibraryFile::open(&path).unwrap();
        let needs = file.needs().unwrap();
        assert!(needs.needed.contains(&b"libinner.so.3".to_vec()));
        assert_eq!(needs.soname.as_deref(), Some(&b"libouter.so.2"[..]));
        assert_eq!((needs.rpath.as_deref(), needs.runpath), (Some(&b"$ORIGIN/x"[..]), None));
        assert!(!needs.not_for_opening);
        let mut id = [0; 20];
        id[..3].copy_from_slice(&[1, 2, 255]);
        assert_eq!(file.build_id(), Some(id));
        assert!(LibraryFile::open(Path::new("/proc/self/exe")).unwrap().needs().unwrap().not_for_opening);
    }

    #[test]
    fn damage_is_never_more_than_nothing() {
        let folder = Folder::new();
        let path = folder.library("whole.c", "int f(void) { return 1; } int g;", &[]);
        let whole = std::fs::read(&path).unwrap();
        let mutant = folder.path().join("mutant.so");
        let look = |bytes: &[u8]| {
            std::fs::write(&mutant, bytes).unwrap();
            if let Some(file) = LibraryFile::open(&mutant) {
                let _ =
                    (file.needs(), file.build_id(), file.exports(b"f", None), file.exports(b"f", Some(b"V")));
            }
        };
        for length in (0..whole.len()).step_by(7) {
            look(&whole[..length]);
        }
        // Headers of the file, and of sections, which stand at the end.
        let headers = (0..64).chain(whole.len() - 64 * 30..whole.len());
        for at in headers {
            for value in [0, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                look(&bytes);
            }
        }
    }
}
