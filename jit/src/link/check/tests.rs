//! Objects and archives that somebody made to do harm, each with one lie: why it is refused.

#![allow(clippy::unwrap_used, reason = "a failing test shall say where")]

use super::*;
use crate::link::check_archive;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("hotbed-check-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An object to be changed.
struct Victim(Vec<u8>);

/// Where in a section header the fields are.
const NAME: usize = 0;
const FLAGS: usize = 8;
const OFFSET: usize = 24;
const SIZE: usize = 32;
const LINK: usize = 40;
const INFO: usize = 44;
const ALIGNMENT: usize = 48;
const ENTRY: usize = 56;

const SOURCE: &str = "inline int shared = 5; template <class T> T twice(T x) { return x + x + shared; }
    int use(int x) { try { if (x) throw x; } catch (int i) { return i; } return twice(x); }
    const char *text() { return \"some text\"; } char zeros[100]; thread_local int own = 3;";

fn compile(flags: &[&str]) -> Vec<u8> {
    let folder = Folder::new();
    let (source, object) = (folder.0.join("a.cpp"), folder.0.join("a.o"));
    std::fs::write(&source, SOURCE).unwrap();
    let mut command = Command::new("clang++-22");
    let done = command.args(["-fPIC", "-c"]).args(flags).arg(&source).arg("-o").arg(&object).status();
    assert!(done.unwrap().success());
    std::fs::read(object).unwrap()
}

impl Victim {
    fn new() -> Self {
        Self(compile(&[]))
    }

    /// Where in the file the header of the first section of that name is.
    fn header(&self, name: &str) -> usize {
        let header = Header::parse(&*self.0).unwrap();
        let sections = header.sections(LE, &*self.0).unwrap();
        let (index, _) = sections.section_by_name(LE, name.as_bytes()).unwrap();
        header.e_shoff.get(LE) as usize + index.0 * 64
    }

    /// Where in the file the contents of that section are.
    fn contents(&self, name: &str) -> usize {
        self.word(self.header(name) + OFFSET) as usize
    }

    fn word(&self, at: usize) -> u64 {
        u64::from_le_bytes(*self.0[at..].first_chunk().unwrap())
    }

    fn set(&mut self, at: usize, value: u64) -> &mut Self {
        self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
        self
    }

    fn set_half(&mut self, at: usize, value: u32) -> &mut Self {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
        self
    }

    #[track_caller]
    fn refused(&self, reason: &str) {
        let said = check_object(&self.0).map(|_| ()).unwrap_err();
        assert!(said.contains(reason), "{said}");
    }
}

#[test]
fn sound_objects_pass() {
    for flags in [&[][..], &["-g"], &["-g", "-gz"], &["-g", "-gz=zstd", "-O2"], &["-ffunction-sections"]] {
        check_object(&compile(flags)).unwrap();
    }
}

#[test]
fn sections_of_no_possible_size_alignment_or_place() {
    let with = |name: &str, field: usize, value: u64, reason: &str| {
        let mut victim = Victim::new();
        let header = victim.header(name);
        victim.set(header + field, value).refused(reason);
    };
    for alignment in [1 << 63, 1 << 40, 3, u64::MAX] {
        with(".text", ALIGNMENT, alignment, "alignment");
        with(".bss", ALIGNMENT, alignment, "alignment");
    }
    for size in [u64::MAX, 1 << 63, 1 << 40] {
        with(".text", SIZE, size, "lies outside it");
        with(".bss", SIZE, size, "size");
    }
    for offset in [u64::MAX, 1 << 40] {
        with(".text", OFFSET, offset, "lies outside it");
        // An empty one as well: lld dies of it.
        let mut victim = Victim::new();
        let header = victim.header(".note.GNU-stack");
        victim.set(header + OFFSET, offset).refused("lies outside it");
    }
    with(".rodata.str1.1", ENTRY, 0, "no multiple");
    with(".rodata.str1.1", ENTRY, 7, "no multiple");
    with(".symtab", ENTRY, 0, "damaged");
    with(".symtab", SIZE, 25, "damaged");
    for (field, value) in [(LINK, u32::MAX), (LINK, 0xffff), (NAME, u32::MAX)] {
        let mut victim = Victim::new();
        let header = victim.header(".text");
        victim.set_half(header + field, value);
        assert!(check_object(&victim.0).is_err());
    }
}

#[test]
fn sections_of_no_size_and_sections_over_one_another() {
    // Both are fine for lld, and for the check, as long as nothing refers to what is not there.
    let mut victim = Victim::new();
    let (text, data) = (victim.header(".rodata.str1.1"), victim.contents(".text"));
    victim.set(text + OFFSET, data as u64).set(text + SIZE, 0);
    check_object(&victim.0).unwrap();
    let mut victim = Victim::new();
    let header = victim.header(".text");
    victim.set(header + SIZE, 0).refused("a relocation outside its section .text");
}

#[test]
fn relocations_that_lie() {
    for symbol in [0x00ff_ffff, u32::MAX] {
        let mut victim = Victim::new();
        let entry = victim.contents(".rela.text");
        victim.set_half(entry + 12, symbol).refused("against a symbol that does not exist");
    }
    for place in [u64::MAX, 1 << 40, u64::MAX - 3] {
        let mut victim = Victim::new();
        let entry = victim.contents(".rela.text");
        victim.set(entry, place).refused("outside its section .text");
    }
    let mut victim = Victim::new();
    let header = victim.header(".rela.text");
    victim.set_half(header + INFO, 0xffff).refused("a section that does not exist");
    let mut victim = Victim::new();
    let header = victim.header(".rela.text");
    victim.set(header + SIZE, 25).refused("relocation table");
}

#[test]
fn string_tables_without_an_end() {
    let mut victim = Victim::new();
    let header = victim.header(".strtab");
    let (start, size) = (victim.contents(".strtab"), victim.word(header + SIZE) as usize);
    victim.0[start..start + size].fill(b'A');
    assert!(check_object(&victim.0).is_err());
    let mut victim = Victim::new();
    let header = victim.header(".rodata.str1.1");
    let (start, size) = (victim.contents(".rodata.str1.1"), victim.word(header + SIZE) as usize);
    victim.0[start..start + size].fill(b'A');
    victim.refused("whose last string does not end");
}

#[test]
fn symbols_that_lie() {
    let first_global = |victim: &Victim| {
        let header = victim.header(".symtab");
        let at = victim.contents(".symtab");
        at + 24 * victim.word(header + INFO) as u32 as usize
    };
    let mut victim = Victim::new();
    let symbol = first_global(&victim);
    victim.set_half(symbol, u32::MAX).refused("outside its string table");
    let mut victim = Victim::new();
    let symbol = first_global(&victim);
    victim.0[symbol + 6..symbol + 8].copy_from_slice(&0x7fffu16.to_le_bytes());
    victim.refused("in a section that does not exist");
    for count in [0, u32::MAX] {
        let mut victim = Victim::new();
        let header = victim.header(".symtab");
        victim.set_half(header + INFO, count).refused("number of local symbols");
    }
}

#[test]
fn groups_that_lie() {
    for (at, value) in [(4, 0), (4, u32::MAX), (4, 0xffff)] {
        let mut victim = Victim::new();
        let group = victim.contents(".group");
        victim.set_half(group + at, value).refused("the damaged group");
    }
    for size in [0, 3, 5] {
        let mut victim = Victim::new();
        let header = victim.header(".group");
        victim.set(header + SIZE, size).refused("the damaged group");
    }
    // Its signature is a symbol.
    let mut victim = Victim::new();
    let header = victim.header(".group");
    victim.set_half(header + INFO, u32::MAX).refused("the damaged group");
}

#[test]
fn compressed_sections_that_lie() {
    let object = compile(&["-g", "-gz"]);
    for (at, value) in [(8, u64::MAX), (8, 1 << 40), (16, 3)] {
        let mut victim = Victim(object.clone());
        let contents = victim.contents(".debug_info");
        victim.set(contents + at, value).refused("the compressed section .debug_info");
    }
    let mut victim = Victim(object);
    let contents = victim.contents(".debug_info");
    // Smaller than what refers to it.
    victim.set(contents + 8, 4).refused("a relocation outside its section .debug_info");
    let flags = victim.header(".text") + FLAGS;
    let now = victim.word(flags);
    let mut plain = Victim::new();
    let at = plain.header(".text") + FLAGS;
    plain.set(at, now | u64::from(elf::SHF_COMPRESSED.0 as u32));
    assert!(check_object(&plain.0).is_err());
}

/// The header of a member.
fn member(name: &str, size: impl std::fmt::Display) -> Vec<u8> {
    format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, 644).into_bytes()
}

fn refused(archive: &[u8], folder: Option<&Path>, reason: &str) {
    let said = check_archive(archive, folder).map(|_| ()).unwrap_err();
    assert!(said.contains(reason), "{said}");
}

#[test]
fn archives_that_lie() {
    let object = compile(&[]);
    let archive = |parts: &[&[u8]]| [b"!<arch>\n", parts.concat().as_slice()].concat();
    check_archive(&archive(&[&member("a.o/", object.len()), &object]), None).unwrap();
    // The same member twice is what `ar q` makes.
    let once = [member("a.o/", object.len()), object.clone(), vec![b'\n'; object.len() % 2]].concat();
    check_archive(&archive(&[&once, &once]), None).unwrap();
    let sizes = [(object.len() + 1).to_string(), "9999999999".into(), "-1".into(), "x".into(), " ".into()];
    for size in &sizes {
        assert!(check_archive(&archive(&[&member("a.o/", size), &object]), None).is_err(), "{size}");
    }
    // A member that begins in the one before it.
    let overlapping = archive(&[&member("a.o/", 40), &object]);
    assert!(check_archive(&overlapping, None).is_err());
    // Names that are elsewhere, or do not end.
    for name in ["/99999999", "/0", "#1/9999999"] {
        let named = archive(&[&member(name, object.len()), &object]);
        assert!(check_archive(&named, None).is_err(), "{name}");
    }
    let endless = archive(&[&member("//", 40), &[b'A'; 40], &member("/0", object.len()), &object]);
    assert!(check_archive(&endless, None).is_err());
    // An index that points anywhere.
    for offset in [0u32, 9, 1 << 31, u32::MAX] {
        let index = [&1u32.to_be_bytes()[..], &offset.to_be_bytes(), b"use\0"].concat();
        let all = archive(&[&member("/", index.len()), &index, &once]);
        refused(&all, None, "index");
    }
    let index = [&u32::MAX.to_be_bytes()[..], b"use\0"].concat();
    let _ = check_archive(&archive(&[&member("/", index.len()), &index, &once]), None);
    // An archive in itself.
    refused(&archive(&[&member("self.a/", 8), b"!<arch>\n"]), None, "is not an ELF file");
    refused(b"<bigaf>\n00000000000000000000", None, "is not an archive");
}

#[test]
fn thin_archives_whose_members_are_not_what_they_should_be() {
    let folder = Folder::new();
    let path = |name: &str| folder.0.join(name);
    let thin = |name: &str| {
        let names = format!("{name}/\n");
        [
            b"!<thin>\n",
            &*member("//", names.len()),
            names.as_bytes(),
            &*vec![b'\n'; names.len() % 2],
            &*member("/0", 100),
        ]
        .concat()
    };
    std::fs::write(path("a.o"), compile(&[])).unwrap();
    let facts = check_archive(&thin("a.o"), Some(&folder.0)).unwrap();
    assert_eq!(facts.files.into_iter().collect::<Vec<_>>(), [path("a.o")]);
    check_archive(&thin(path("a.o").to_str().unwrap()), Some(Path::new("/"))).unwrap();
    refused(&thin("a.o"), None, "load it by its path");
    refused(&thin("nowhere.o"), Some(&folder.0), "nowhere.o that cannot be read");
    // Itself, a folder, a device, a pipe that nobody writes to.
    std::fs::write(path("self.a"), thin("self.a")).unwrap();
    refused(&thin("self.a"), Some(&folder.0), "self.a that is not an ELF file");
    refused(&thin("."), Some(&folder.0), "cannot be read");
    refused(&thin("/dev/zero"), Some(&folder.0), "cannot be read");
    assert!(Command::new("mkfifo").arg(path("pipe.o")).status().unwrap().success());
    refused(&thin("pipe.o"), Some(&folder.0), "cannot be read");
    std::fs::write(path("cut.o"), &compile(&[])[..500]).unwrap();
    refused(&thin("cut.o"), Some(&folder.0), "has the member cut.o that");
}
