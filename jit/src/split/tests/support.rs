//! A program, taken apart and put together.

use crate::lazy;
use crate::split::{
    Body, Facts, Kind, Linkage, Number, Piece, PlanOptions, Settings, Source, Unit, Visibility, plan, sources,
};
use hotbed_loader::boundary::{Argument, Content, Input, Lang, Request};
use std::collections::HashMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Sources and what they are compiled and linked with.
pub(crate) struct Program {
    folder: PathBuf,
    sources: Vec<PathBuf>,
    flags: Vec<String>,
    libraries: Vec<String>,
}

/// How a unit is taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// A function a piece.
    Single,
    /// By a plan.
    Plan,
    /// A function a piece, under another name, with a stub under its own.
    Stubs,
    /// An image without bodies, and these as fresh code.
    Lazy,
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::env::var_os("HOTBED_TEST_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

impl Program {
    /// A program of one source.
    pub(crate) fn small(name: &str, text: &str) -> Self {
        Self::several(&[(name, text)])
    }

    /// A program of some sources.
    pub(crate) fn several(texts: &[(&str, &str)]) -> Self {
        let folder = empty_folder(texts[0].0);
        let write = |(name, text): &(&str, &str)| {
            let source = folder.join(name);
            std::fs::write(&source, text).unwrap();
            source
        };
        let sources = texts.iter().map(write).collect();
        Self { folder, sources, flags: vec!["-w".into()], libraries: vec!["-lpthread".into()] }
    }

    /// A program that uses one of the real libraries.
    pub(crate) fn library(name: &str, use_: &str) -> Self {
        let inputs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/inputs");
        let lines = |suffix: &str| -> Vec<String> {
            let path = inputs.join(format!("{name}.{suffix}"));
            let text = std::fs::read_to_string(&path)
                .unwrap_or_else(|error| panic!("{}: {error}: run scripts/fetch-inputs", path.display()));
            text.lines().map(str::to_owned).collect()
        };
        let sources = [lines("program"), lines("files")].concat().into_iter().map(PathBuf::from).collect();
        let flags = ["-w".to_owned()].into_iter().chain(lines("flags")).collect();
        Self { folder: empty_folder(&format!("{name}-{use_}")), sources, flags, libraries: lines("libs") }
    }

    /// The units, compiled by the front end for a level of optimisation.
    pub(crate) fn modules(&self, more: &[&str]) -> Vec<Source> {
        let request = self.request(more);
        sources(&request).unwrap_or_else(|failure| panic!("{}\n{}", failure.message, failure.rendered))
    }

    /// What is asked of a back end, for a level of optimisation.
    pub(crate) fn request(&self, more: &[&str]) -> Request {
        let flags = self.flags.iter().map(String::as_str).chain(more.iter().copied());
        let inputs = self.sources.iter().map(|path| {
            let lang = if path.extension().is_some_and(|e| e == "c") { Lang::C } else { Lang::Cpp };
            Argument::Input(Input { lang, content: Content::File(path.clone()) })
        });
        let libraries = self.libraries.iter().map(|library| Argument::Flag(library.clone()));
        Request {
            unit: "unit".into(),
            arguments: flags
                .map(|flag| Argument::Flag(flag.to_owned()))
                .chain(inputs)
                .chain(libraries)
                .collect(),
            directory: self.folder.clone(),
            entry: Some("main".into()),
            ..Request::default()
        }
    }

    /// Where it may write.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What clang's executable does.
    pub(crate) fn by_clang(&self, more: &[&str]) -> Output {
        let executable = self.folder.join("by-clang");
        let mut clang = self.driver();
        for source in &self.sources {
            clang
                .arg("-x")
                .arg(if source.extension().is_some_and(|e| e == "c") { "c" } else { "c++" })
                .arg(source);
        }
        // A standard of C++ is not for C; the programs do not need it.
        let is_cpp = self.sources.iter().any(|source| source.extension().is_none_or(|e| e != "c"));
        let flags = self.flags.iter().filter(|flag| is_cpp || !flag.contains("++"));
        finish(clang.args(flags).args(more).args(&self.libraries).arg("-o").arg(&executable));
        self.run(&executable)
    }

    /// What the executable of the pieces does.
    pub(super) fn by_pieces(&self, more: &[&str], cut: Cut) -> Output {
        if cut == Cut::Lazy {
            return lazy::tests::by_fresh_code(self, more);
        }
        let mut objects = Vec::new();
        let mut keep = |name: String, bytes: &[u8]| {
            let path = self.folder.join(name);
            std::fs::write(&path, bytes).unwrap();
            objects.push(format!("\"{}\"", path.display()));
        };
        for (index, module) in self.modules(more).iter().enumerate() {
            let mut number = 0;
            pieces(module, &format!(".u{index}"), cut, |object| {
                keep(format!("{index}-{number}.o"), object);
                number += 1;
            });
            if cut == Cut::Stubs {
                let unit = open(module, &format!(".u{index}"), true);
                keep(format!("{index}-stubs.s"), stubs(unit.facts(), &format!(".u{index}.body")).as_bytes());
            }
        }
        let list = self.folder.join("objects");
        std::fs::write(&list, objects.join("\n")).unwrap();
        let executable = self.folder.join("by-pieces");
        let mut clang = self.driver();
        clang.arg("-fuse-ld=lld").arg("-rdynamic").arg(format!("@{}", list.display()));
        finish(clang.args(&self.libraries).arg("-o").arg(&executable));
        self.run(&executable)
    }

    /// Compares the two.
    #[track_caller]
    pub(crate) fn compare(&self, more: &[&str], cuts: &[Cut]) {
        let want = self.by_clang(more);
        for &cut in cuts {
            let got = self.by_pieces(more, cut);
            let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(
                (got.status, text(&got)),
                (want.status, text(&want)),
                "{:?} {more:?} {cut:?}: {}",
                self.sources[0],
                String::from_utf8_lossy(&got.stderr)
            );
        }
    }

    fn run(&self, executable: &Path) -> Output {
        Command::new(executable).current_dir(&self.folder).output().unwrap()
    }

    fn driver(&self) -> Command {
        let mut clang = Command::new("clang++-22");
        clang.current_dir(&self.folder).arg("-w");
        clang
    }
}

/// Opens a unit.
pub(crate) fn open(source: &Source, suffix: &str, trusted: bool) -> Unit {
    let settings = Settings { name: "unit", suffix, arguments: &source.arguments, trusted, far: false };
    Unit::open(source.bitcode.clone().into(), &settings)
        .unwrap_or_else(|failure| panic!("{}", failure.message))
}

/// All bodies of a unit.
pub(super) fn bodies(unit: &mut Unit) -> HashMap<Number, Body> {
    let functions: Vec<Number> = unit.facts().functions().collect();
    functions.into_iter().map(|function| (function, unit.body(function).unwrap())).collect()
}

/// Gives `keep` the objects of a whole unit, one after the other: with debug information all of them are gigabytes.
fn pieces(module: &Source, suffix: &str, cut: Cut, mut keep: impl FnMut(&[u8])) {
    let mut unit = open(module, suffix, false);
    let options = if cut == Cut::Plan { PlanOptions::SMALL } else { PlanOptions::SINGLE };
    let bodies = bodies(&mut unit);
    let plan = plan(unit.facts(), &bodies, &options);
    unit.keep_local(&plan.local);
    let mut add = |piece: Piece<'_>| {
        piece.verify().unwrap_or_else(|failure| panic!("{}", failure.message));
        keep(&piece.compile().unwrap_or_else(|failure| panic!("{}", failure.message)));
    };
    add(unit.data().unwrap_or_else(|failure| panic!("{}", failure.message)));
    for group in plan.groups {
        let suffix = if cut == Cut::Stubs { format!("{suffix}.body") } else { String::new() };
        add(unit.code_of(&group, &suffix).unwrap_or_else(|failure| panic!("{}", failure.message)));
    }
}

/// A jump to the body under every function's name.
fn stubs(facts: &Facts, suffix: &str) -> String {
    let mut text = String::from(".text\n.section .note.GNU-stack,\"\",@progbits\n.text\n");
    for symbol in &facts.symbols {
        let base = symbol.base.and_then(|base| facts.get(base)).filter(|base| base.kind == Kind::Function);
        let body = match (symbol.kind, base) {
            (Kind::Function, _) if symbol.linkage.is_definition() => {
                format!("\"{0}\": jmp \"{0}{suffix}\"", symbol.name)
            }
            (Kind::Alias, Some(base)) => format!(".set \"{}\", \"{}\"", symbol.name, base.name),
            (Kind::Ifunc, Some(base)) => {
                format!(
                    ".type \"{0}\", @gnu_indirect_function\n.set \"{0}\", \"{1}\"",
                    symbol.name, base.name
                )
            }
            _ => continue,
        };
        let binding = if symbol.linkage == Linkage::Weak { "weak" } else { "globl" };
        writeln!(text, ".{binding} \"{}\"\n{body}", symbol.name).unwrap();
        if symbol.visibility == Visibility::Hidden {
            writeln!(text, ".hidden \"{}\"", symbol.name).unwrap();
        }
    }
    text
}

fn empty_folder(name: &str) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("hotbed-split-{}-{number}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn finish(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
}
