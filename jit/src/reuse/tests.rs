//! Objects with functions of older ones against the same sources compiled as a whole: every function and every variable must be the same,
//! and everything that they refer to.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing test shall say where")]

use super::elf::{ALLOC, EXECUTE, Elf, MERGE, Place, Relocation, STRINGS, Symbol};
use super::frames::{frames, relocations};
use super::{Functions, Kept, Reuse, to_stock};
use crate::frontend::{self, Form, Place as Where, Prepared};
use hotbed_loader::boundary::{Content, Input, Lang};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

mod distinct;
mod programs;

/// A source that is compiled several times.
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) lang: Lang,
    pub(super) flags: Vec<String>,
}

/// What compiling it gave.
pub(super) struct Compiled {
    pub(super) object: Vec<u8>,
    pub(super) functions: Functions,
    pub(super) stock: Option<Vec<u8>>,
}

impl Subject {
    pub(super) fn new(name: &str, flags: &[&str]) -> Self {
        let suffix = name.rsplit('.').next().unwrap();
        let flags = ["-w"].iter().chain(flags).map(|&flag| flag.to_owned()).collect();
        Self { name: name.to_owned(), lang: Lang::of_suffix(suffix).unwrap(), flags }
    }

    pub(super) fn compile(&self, text: &str, stock: &[u8]) -> Compiled {
        crate::shim::initialize();
        let content = Content::Bytes { name: self.name.clone(), bytes: text.as_bytes().to_vec() };
        let input = Input { lang: self.lang, content };
        let directory = std::env::temp_dir();
        let source: Prepared<'_> = frontend::prepare(&input, &directory, Form::Object).unwrap().unwrap();
        let place = Where { directory: &directory, environment: &[] };
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        let reuse = Reuse::new(stock);
        let compiled = frontend::compile(&[source], &flags, &place, Form::Object, false, Some(&reuse));
        let compiled = compiled.unwrap_or_else(|failure| panic!("{}\n{}", failure.message, failure.rendered));
        let made = &compiled.objects[0];
        let (path, arguments) = (self.name.as_str(), &made.arguments[..]);
        let kept = Kept { path, arguments, functions: &made.functions, object: made.bytes() };
        Compiled {
            object: made.bytes().to_vec(),
            functions: made.functions.clone(),
            stock: to_stock([kept].into_iter()),
        }
    }

    /// Compiles `edited` with what is kept of `before`, and as a whole: both must be the same. Gives what the first one gave.
    #[track_caller]
    pub(super) fn check(&self, before: &[u8], edited: &str, what: &str) -> Compiled {
        let reused = self.compile(edited, before);
        let whole = self.compile(edited, b"");
        assert_eq!(whole.functions.reused, 0);
        assert_same(&whole.object, &reused.object, &format!("{} {:?}, {what}", self.name, self.flags));
        crate::link::check_object(&reused.object).unwrap();
        reused
    }
}

/// Compares two objects: what they define and what that is.
#[track_caller]
fn assert_same(whole: &[u8], other: &[u8], what: &str) {
    let read = |bytes| described(&Elf::read(bytes).unwrap_or_else(|| panic!("{what}: not understood")));
    let [whole, other] = [read(whole), read(other)];
    let names = |all: &BTreeMap<String, String>| all.keys().cloned().collect::<BTreeSet<_>>();
    let difference: Vec<_> = names(&whole).symmetric_difference(&names(&other)).cloned().collect();
    assert!(difference.is_empty(), "{what}: not in both: {difference:?}");
    for (name, one) in &whole {
        assert_eq!(*one, other[name], "{what}: {name}");
    }
}

/// Everything that an object defines, by name.
fn described(elf: &Elf<'_>) -> BTreeMap<String, String> {
    let describer = Describer { elf };
    let frames = frames(elf).unwrap();
    let mut all = BTreeMap::new();
    for symbol in elf.symbols.iter().skip(1).filter(|symbol| !symbol.is_anonymous()) {
        let name = String::from_utf8_lossy(&symbol.name).into_owned();
        let mut text = format!("{} {} {} {}\n", symbol.binding, symbol.kind, symbol.other, symbol.size);
        match symbol.place {
            // Those that nothing refers to are a matter of taste.
            Place::Undefined => continue,
            Place::Section(section) => {
                let holder = &elf.sections[section];
                let group = elf.group_name(holder).map(String::from_utf8_lossy);
                text += &format!("{} {:x} {group:?}\n", String::from_utf8_lossy(&holder.name), holder.flags);
                text += &format!("{} {}\n", holder.align, holder.entry);
                if holder.flags & MERGE != 0 {
                    let start = symbol.value as usize;
                    text += &format!("{:?}\n", &holder.data[start..start + symbol.size as usize]);
                } else {
                    text += &format!("{} ", holder.size);
                    text += &describer.part(section, &(0..holder.size as usize), 0);
                }
                if let Some(frame) = frames.get(&section) {
                    // The way to what is shared is not the same.
                    let record = &describer.part(frame.section, &frame.record, 0)[..];
                    let way = record.split_once(' ').map_or(record, |(_, rest)| rest);
                    // Nor is what fills the last one of a section up.
                    let filled = way.split_once('\n').unwrap();
                    let own = filled.0.trim_end_matches("00");
                    text += &format!("frame {own}\n{}", filled.1);
                    text += &describer.part(frame.section, &frame.common, 0);
                }
            }
            place => text += &format!("{place:?} {}", symbol.value),
        }
        assert!(all.insert(name.clone(), text).is_none(), "{name} twice");
    }
    // What runs by itself.
    for (index, section) in elf.sections.iter().enumerate().filter(|(_, section)| section.kind != 0) {
        if section.name.starts_with(b".init_array") || section.name.starts_with(b".fini_array") {
            let name = String::from_utf8_lossy(&section.name).into_owned();
            *all.entry(name).or_default() += &describer.part(index, &(0..section.size as usize), 0);
        }
    }
    all
}

struct Describer<'e, 'a> {
    elf: &'e Elf<'a>,
}

impl Describer<'_, '_> {
    /// The bytes of a part of a section, and what it refers to; of unwind records without the first eight.
    fn part(&self, section: usize, part: &Range<usize>, depth: usize) -> String {
        assert!(depth < 64, "in a circle");
        let holder = &self.elf.sections[section];
        let skipped = if *holder.name == *b".eh_frame" { 8 } else { 0 };
        let bytes = holder.data.get(part.start + skipped..part.end).unwrap_or_default();
        let mut text = String::from("bytes ");
        bytes.iter().for_each(|byte| text += &format!("{byte:02x}"));
        for relocation in relocations(self.elf, section, part) {
            let target = self.target(section, relocation, depth);
            text += &format!("\n{} {} {target}", relocation.offset - part.start as u64, relocation.kind);
        }
        text + "\n"
    }

    /// What a relocation refers to, by name or by contents.
    fn target(&self, from: usize, relocation: &Relocation, depth: usize) -> String {
        let symbol = &self.elf.symbols[relocation.symbol];
        let addend = relocation.addend;
        let shown = |symbol: &Symbol<'_>| String::from_utf8_lossy(&symbol.name).into_owned();
        let Place::Section(section) = symbol.place else {
            return format!("{} {:?} {} {addend}", shown(symbol), symbol.place, symbol.binding);
        };
        let holder = &self.elf.sections[section];
        // Whether it is by the symbol or past it is one for a linker that binds both to the same.
        let named: Vec<&Symbol<'_>> = self
            .elf
            .symbols
            .iter()
            .skip(1)
            .filter(|symbol| symbol.place == Place::Section(section) && !symbol.is_anonymous())
            .collect();
        if !symbol.is_anonymous() {
            return format!("{} {addend}", shown(symbol));
        }
        if holder.flags & MERGE != 0 {
            let (place, addend) =
                if symbol.is_of_section() { (addend as u64, 0) } else { (symbol.value, addend) };
            let place = place as usize;
            let entry = holder.entry as usize;
            let data = &holder.data;
            let end = if holder.flags & STRINGS == 0 {
                place + entry
            } else {
                (place..).step_by(entry).find(|&at| data[at..at + entry].iter().all(|&b| b == 0)).unwrap()
                    + entry
            };
            return format!("piece {:?} {addend}", &data[place..end]);
        }
        let addend = addend + symbol.value as i64;
        match named[..] {
            // A constructor may have two names.
            [one, ..] if named.iter().all(|other| other.value == one.value) => {
                let mut names: Vec<String> = named.iter().map(|symbol| shown(symbol)).collect();
                names.sort();
                format!("{} {addend}", names[0])
            }
            [] if section == from => format!("itself {addend}"),
            [] => {
                assert!(holder.flags & EXECUTE == 0 && holder.flags & ALLOC != 0);
                // The compiler puts what it needs of the addresses of types behind each other.
                let whole = 0..holder.size as usize;
                let part = if *holder.name == *b".data" {
                    let at = if [2, 4].contains(&relocation.kind) { addend } else { 0 } as usize;
                    return format!("address {}", self.part(section, &(at..at + 8), depth + 1));
                } else {
                    whole
                };
                format!("{} {addend} {}", holder.align, self.part(section, &part, depth + 1))
            }
            // What runs at the start shares a section, and is compiled every time.
            _ => format!("{} {addend}", String::from_utf8_lossy(&holder.name)),
        }
    }
}

/// The files and flags of one of the real libraries.
fn library(name: &str) -> (Vec<PathBuf>, Vec<String>) {
    let inputs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/inputs");
    let lines = |suffix: &str| -> Vec<String> {
        let path = inputs.join(format!("{name}.{suffix}"));
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}: run scripts/fetch-inputs", path.display()));
        text.lines().map(str::to_owned).collect()
    };
    (lines("files").into_iter().map(PathBuf::from).collect(), lines("flags"))
}

/// Edits a file of a library again and again at places where `from` is, each time based on what was made the last time.
fn edit_library(name: &str, file: &str, from: &str, levels: &[&str], edits: usize) {
    let (files, flags) = library(name);
    let to = grown(from);
    // One of them includes all others.
    let beside = |path: &PathBuf| {
        ["", "third-party/imgui-master/imgui"].map(|folder| path.parent().unwrap().join(folder).join(file))
    };
    let path = files.iter().flat_map(beside).find(|path| path.exists()).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let places: Vec<usize> = text.match_indices(from).map(|(at, _)| at).collect();
    assert!(places.len() >= edits, "{}", places.len());
    for level in levels {
        let folder = format!("-I{}", path.parent().unwrap().display());
        let flags: Vec<&str> = flags.iter().map(String::as_str).chain([*level, &folder]).collect();
        let subject = Subject::new(file, &flags);
        let mut stock = subject.compile(&text, b"").stock.unwrap();
        for edit in 0..edits {
            let at = places[(edit * 2 + 1) * places.len() / (edits * 2)];
            let edited = format!("{}{to}{}", &text[..at], &text[at + from.len()..]);
            let made = subject.check(&stock, &edited, &format!("edit {edit}"));
            let Functions { all, reused, .. } = made.functions;
            assert!(reused > 0 && reused < all, "{name} {level}: {reused} of {all}");
            eprintln!("{name} {level} edit {edit}: reused {reused} of {all}, {} bytes", made.object.len());
            stock = made.stock.unwrap();
        }
    }
}

/// What comes instead of a statement, whatever its function returns: a variable, a text and a number that were not there before.
fn grown(statement: &str) -> String {
    format!("{{ static int fresh; if (fresh++ == 77) __builtin_printf(\"new text %f\", 3.5); {statement} }}")
}

#[test]
fn sqlite_is_the_same_with_and_without_reuse() {
    edit_library("sqlite3", "sqlite3.c", "return 0;", &["-O0"], 3);
    edit_library("sqlite3", "sqlite3.c", "return 0;", &["-O1"], 1);
}

#[test]
fn lua_is_the_same_with_and_without_reuse() {
    for file in ["lapi.c", "lstrlib.c", "lcode.c"] {
        edit_library("lua", file, "return 0;", &["-O0", "-O2"], 2);
    }
}

#[test]
fn imgui_is_the_same_with_and_without_reuse() {
    edit_library("imgui", "imgui.cpp", "return false;", &["-O0"], 2);
    edit_library("imgui", "imgui_widgets.cpp", "return false;", &["-O0", "-O2"], 2);
}
