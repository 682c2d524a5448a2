//! Explanations against what binding writes, and what they say.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing test shall say where")]

use super::*;
use crate::image::elf::{R_X86_64_64, R_X86_64_DTPMOD64, R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT};
use crate::layers::Value;
use crate::testing::{Folder, load, loader};
use crate::{LibraryRequest, LoaderOptions, NamespaceOptions};

fn eager() -> Loader {
    Loader::new(LoaderOptions { lazy_imports: false, ..LoaderOptions::default() })
}

fn stem(path: &Path) -> &str {
    path.file_stem().unwrap().to_str().unwrap()
}

fn explain_for(loader: &Loader, path: &Path, symbol: &str) -> Explanation {
    loader.explain_for(None, &[(stem(path), ImageSource::File(path))], symbol).unwrap()
}

/// The file that is mapped at an address.
fn file_at(address: usize) -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| {
        let (start, rest) = line.split_once('-').unwrap();
        let end = rest.split(' ').next().unwrap();
        let number = |text| usize::from_str_radix(text, 16).unwrap();
        (number(start)..number(end)).contains(&address)
    });
    line.and_then(|line| line.find('/').map(|at| line[at..].to_owned())).unwrap_or_default()
}

/// Explains every symbol that relocations of an image refer to, then loads it and compares what they got. Says how
/// many were compared.
fn compare(loader: &Loader, path: &Path) -> (Arc<Image>, usize) {
    let sources = [(stem(path), ImageSource::File(path))];
    let name_of = |mapped: &image::map::Mapped, index: u32| {
        let symbol = mapped.symbols.get(index).unwrap();
        String::from_utf8(mapped.symbols.text(symbol.name.into()).unwrap().to_vec()).unwrap()
    };
    let member = loader.map(stem(path), sources[0].1).unwrap();
    let mut explained = std::collections::HashMap::new();
    for relocation in bind::tables(&member.mapped).unwrap().into_iter().flatten() {
        if relocation.symbol() != 0 {
            let name = name_of(&member.mapped, relocation.symbol());
            let explain = |_: &String| loader.explain_group(None, &sources, &name).unwrap();
            explained.entry(name.clone()).or_insert_with_key(explain);
        }
    }
    drop(member);
    let image = load(loader, path).unwrap();
    let mapped = image.mapped();
    let mut compared = 0;
    for relocation in bind::tables(mapped).unwrap().into_iter().flatten() {
        if relocation.symbol() == 0 {
            continue;
        }
        let name = name_of(mapped, relocation.symbol());
        let Explained { explanation, choice } = &explained[&name];
        // SAFETY: a place that has been relocated, in an image that is held.
        let word = unsafe { *(mapped.place.at(relocation.offset) as *const usize) };
        let got = word.wrapping_sub(relocation.addend as usize);
        match relocation.kind() {
            R_X86_64_64 | R_X86_64_GLOB_DAT | R_X86_64_JUMP_SLOT => {}
            R_X86_64_DTPMOD64 => {
                match choice {
                    Choice::Of(Found { party: Party::Unit, .. }) => {
                        assert_eq!(Some(word), Some(image.thread_block().0), "{name}");
                    }
                    Choice::Of(Found { value: Value::Tls { module, .. }, .. }) => {
                        assert_eq!(word, *module, "{name}");
                    }
                    other => panic!("{name}: {other:?}"),
                }
                compared += 1;
                continue;
            }
            _ => continue,
        }
        let winner = explanation.winner();
        match choice {
            Choice::Always(address) | Choice::Instead(address) => {
                assert_eq!(got, *address, "{name}");
                assert_eq!(winner.unwrap().0.layer, Layer::Runtime, "{explanation}");
            }
            Choice::Of(Found { party: Party::Unit, .. }) => {
                assert!(image.range().contains(&got), "{name}");
                assert_eq!(winner.unwrap().1.unit, image.name(), "{explanation}");
            }
            Choice::Of(found) => {
                assert_eq!(Value::Address(got), found.value, "{name}");
                let (asked, answer) = winner.unwrap();
                assert_eq!(asked.layer, found.layer, "{explanation}");
                // An indirect function may be another library's.
                if asked.layer == Layer::Process
                    && answer.kind == SymbolKind::Data
                    && answer.unit.contains('/')
                {
                    assert!([String::new(), answer.unit.clone()].contains(&file_at(got)), "{explanation}");
                } else if asked.layer == Layer::Process && answer.kind == SymbolKind::Function {
                    assert_eq!(file_at(got), answer.unit, "{explanation}");
                }
            }
            Choice::Nobodys => {
                assert_eq!(got, 0, "{name}: weak, and nobody has it");
                assert!(winner.is_none(), "{explanation}");
            }
        }
        compared += 1;
    }
    (image, compared)
}

const TEMPLATES: &str = "#include <iostream>\n#include <map>\n#include <regex>\n#include <string>\n#include <thread>\n
    thread_local std::string mine = \"m\"; inline int counter = 3; inline std::string named = \"named\";
    inline std::string &single() { static std::string s = \"one\"; return s; }
    struct Base { virtual ~Base() {} virtual int f() { return 1; } }; template <class T> struct D : Base { int f() override { return sizeof(T); } };";

#[test]
fn what_is_explained_is_what_binding_writes() {
    let folder = Folder::new();
    let c = folder.image(
        "plain.c",
        "#define _GNU_SOURCE\n#include <stdio.h>\n#include <stdlib.h>\n#include <dlfcn.h>\n#include <string.h>\n#include <time.h>\n#include <errno.h>\n
         __attribute__((weak)) int nobody(void); __attribute__((weak)) int init(void) { return 3; } __thread int t;
         extern int host; extern char **environ; int shared_name = 4; int strange(void) { return 5; }
         void *all[] = { printf, dladdr, dlsym, memcpy, strlen, &stdout, &environ, nobody, init, &shared_name, time, getenv };
         int f(void) { Dl_info i; errno = t; printf(\"%d\", init() + strange()); return dladdr(all, &i) + host + nobody(); }",
        &["-fno-builtin"],
    );
    let cpp = |name: &str| {
        format!(
            "{TEMPLATES}\nextern \"C\" int shared_name; extern \"C\" int strange(); extern \"C\" int host;
             int use_{name}(int n) {{ std::map<std::string, std::regex> m; m.emplace(single(), std::regex(\"a+\"));
               std::cout << counter++ << named << mine; Base *b = new D<long>; std::thread([]{{}}).join();
               try {{ if (dynamic_cast<D<long> *>(b)) throw std::string(named); }} catch (std::string &) {{ n++; }}
               return n + b->f() + shared_name + strange() + host; }}"
        )
    };
    let one = folder.image("one.cpp", &cpp("one"), &["-lm"]);
    let two = folder.image("two.cpp", &cpp("two"), &["-lm"]);
    let loader = eager();
    static HOST: i32 = 1;
    loader.define("host", &raw const HOST as usize).unwrap();
    let (_c, plain) = compare(&loader, &c);
    let (_one, first) = compare(&loader, &one);
    let (_two, second) = compare(&loader, &two);
    assert!(plain > 10 && first > 100 && second > 100, "{plain} {first} {second}");
}

#[test]
fn everybody_who_has_the_name_is_listed() {
    let folder = Folder::new();
    let first = folder.image(
        "first.c",
        "int both(void) { return 1; } int strlen(void) { return 1; }",
        &["-fno-builtin"],
    );
    let second = folder.image("second.c", "int both(void) { return 2; }", &[]);
    let third = folder.image(
        "third.c",
        "int both(void); int missing(void); int strlen(void); int f(void) { return both() + missing() + strlen(); }",
        &["-fno-builtin"],
    );
    let loader = loader();
    let _first = load(&loader, &first).unwrap();
    let second = load(&loader, &second).unwrap();
    let text = explain_for(&loader, &third, "both").to_string();
    assert_eq!(
        text,
        "both, needed by third\n\
         \x20 the unit itself            -\n\
         \x20 host definitions           -\n\
         \x20 fresh code                 -\n\
         \x20 loaded images              first: function: used\n\
         \x20                            second: function: shadowed\n\
         \x20 the process                -\n\
         \x20 archives, lazy libraries   (not asked)\n\
         \x20 libraries found on demand  (not asked)\n\
         both is from first, loaded images: first in the order that has it"
    );
    let strlen = explain_for(&loader, &third, "strlen");
    assert_eq!(strlen.winner().unwrap().1.unit, "first", "{strlen}");
    let process = strlen.asked.iter().find(|asked| asked.layer == Layer::Process).unwrap();
    assert!(
        process.answers.iter().any(|answer| answer.unit.contains("libc.so.6")
            && answer.verdict == Verdict::Shadowed
            && answer.version.as_deref() == Some("GLIBC_2.2.5")),
        "{strlen}"
    );

    // From the second's view it is its own.
    let path = folder.path().join("second.so");
    let own = explain_for(&loader, &path, "both");
    assert_eq!(
        (own.winner().unwrap().0.layer, own.why().unwrap()),
        (Layer::Unit, "the unit's own strong definition")
    );
    assert_eq!(own.needed_by, None);
    drop(second);
    let asked = loader.explain(None, "both");
    assert_eq!(asked.asked.iter().map(|asked| asked.answers.len()).sum::<usize>(), 1, "{asked}");
    assert!(asked.to_string().contains("(no unit in particular asks)"));
}

#[test]
fn the_first_weak_copy_counts() {
    let folder = Folder::new();
    let source = "inline int shared = 1; template <class T> int of() { return sizeof(T); }
                  __attribute__((weak)) extern \"C\" int getpid() { return 7; }
                  int *where() { return &shared; } int (*f)() = &of<long>; int (*g)() = getpid;";
    let one = folder.image("one.cpp", source, &[]);
    let two = folder.image("two.cpp", source, &[]);
    let loader = loader();
    let alone = explain_for(&loader, &one, "shared");
    assert_eq!(alone.winner().unwrap().0.layer, Layer::Unit);
    assert!(
        alone
            .to_string()
            .ends_with("shared is from one, the unit itself: weak: the first loaded copy counts"),
        "{alone}"
    );
    let _one = load(&loader, &one).unwrap();
    let shared = explain_for(&loader, &two, "of<long>()");
    assert!(shared.symbol.starts_with("_Z2of"), "{shared}");
    let (asked, answer) = shared.winner().unwrap();
    assert_eq!((asked.layer, answer.unit.as_str(), answer.weak), (Layer::Images, "one", true));
    assert_eq!(shared.asked[0].answers[0].verdict, Verdict::NotCounted(Reason::Replaced), "{shared}");
    // A plain name of the process does not replace a unit's own.
    let plain = explain_for(&crate::testing::loader(), &one, "getpid");
    assert!(plain.to_string().contains("not counted: a plain name does not replace a unit's own"), "{plain}");
    // Together with another that is not loaded either.
    let sources = [("a", ImageSource::File(&one)), ("b", ImageSource::File(&two))];
    let fresh = crate::testing::loader();
    let together = fresh.explain_for(None, &sources, "shared").unwrap();
    assert_eq!(together.winner().unwrap().1.unit, "a", "{together}");
    assert!(together.to_string().contains("b: weak variable: shadowed"), "{together}");
}

#[test]
fn versions_that_do_not_fit_are_not_counted() {
    let folder = Folder::new();
    let map = folder.path().join("map");
    std::fs::write(&map, "V1 { global: f; local: *; }; V2 { global: f; } V1;").unwrap();
    let source = "int f1(void) { return 1; } int f2(void) { return 2; }
                  __asm__(\".symver f1, f@V1\"); __asm__(\".symver f2, f@@V2\");";
    let script = format!("-Wl,--version-script={}", map.display());
    let library = folder.library("libversions.c", source, &[&script]);
    let old = "int old(void); __asm__(\".symver old, f@V1\"); int g(void) { return old(); }";
    let old = folder.image("old.c", old, &[library.to_str().unwrap(), "-Wl,-rpath,$ORIGIN"]);
    let loader = loader();
    let explained = explain_for(&loader, &old, "f");
    assert_eq!(explained.version.as_deref(), Some("V1"), "{explained}");
    let (asked, answer) = explained.winner().unwrap();
    assert_eq!((asked.layer, answer.version.as_deref()), (Layer::Process, Some("V1")));
    assert!(explained.to_string().contains("function, V2: not counted: another version"), "{explained}");
    assert!(loader.explain(None, "f").winner().is_none(), "the library is closed again");
    let _library = loader.open_library(LibraryRequest::Path(&library)).unwrap();
    let text = loader.explain(None, "f").to_string();
    assert!(text.contains("function, V1: not counted: a version that must be asked for"), "{text}");
    assert!(text.contains("function, V2: used"), "{text}");
}

#[test]
fn stand_ins_are_named() {
    let explained = loader().explain(None, "dladdr");
    let (asked, _) = explained.winner().unwrap();
    assert_eq!(asked.layer, Layer::Runtime);
    let text = explained.to_string();
    assert!(
        text.contains("Hotbed itself") && text.contains("not counted: Hotbed stands in for it"),
        "{text}"
    );
    let always = loader().explain(None, "__tls_get_addr");
    assert_eq!(always.asked[0].layer, Layer::Runtime, "{always}");
}

#[test]
fn near_misses_are_named_when_nobody_has_it() {
    let folder = Folder::new();
    let image = folder.image(
        "u.c",
        "int helper(int x) { return x; } int helpr(int); int hst(void); int f(void) { return helpr(1) + hst(); }",
        &[],
    );
    let loader = loader();
    loader.define("host", 8).unwrap();
    let explained = explain_for(&loader, &image, "helpr");
    assert_eq!((explained.winner(), explained.near[0].as_str()), (None, "helper"));
    assert_eq!(explained.needed_by.as_deref(), Some("u"));
    assert!(explained.to_string().contains("nobody has helpr; did you mean helper"), "{explained}");
    let error = load(&loader, &image).unwrap_err().to_string();
    assert!(error.contains("unresolved symbol helpr, needed by u; asked: "), "{error}");
    assert!(error.contains("; did you mean helper") && error.contains("; did you mean host"), "{error}");
    assert_eq!(loader.explain(None, "prntf").near[0], "printf");
    let cpp = folder.image(
        "v.cpp",
        "namespace n { int twice(int x) { return x; } } int twise(int); int f() { return twise(1); }",
        &[],
    );
    let explained = explain_for(&loader, &cpp, "twise(int)");
    assert_eq!((explained.symbol.as_str(), explained.near[0].as_str()), ("_Z5twisei", "n::twice(int)"));
    assert_eq!(explain_for(&loader, &cpp, "twice(int)").near[0], "n::twice(int)");
    assert_eq!(explain_for(&loader, &cpp, "n::twice(int)").winner().unwrap().1.unit, "v");
}

#[test]
fn namespaces_have_their_own_order_and_see_those_they_are_linked_to() {
    let folder = Folder::new();
    let library = folder.image(
        "library.c",
        "int getpid(void) { return 1; } int only(void) { return 2; }",
        &["-fno-builtin"],
    );
    let loader = loader();
    let other = loader.namespace(NamespaceOptions::new("other"));
    let process_first = vec![Layer::Process, Layer::Images];
    let links = vec![other.clone()];
    let first = loader.namespace(NamespaceOptions { name: "first".into(), order: process_first, links });
    let _library = loader.load_images(Some(&other), &[("library", ImageSource::File(&library))]).unwrap();
    let explained = loader.explain(Some(&first), "getpid");
    let layers: Vec<_> = explained.asked.iter().map(|asked| asked.layer).collect();
    assert_eq!(layers, [Layer::Process, Layer::Images]);
    assert!(explained.winner().unwrap().1.unit.contains("libc.so.6"), "{explained}");
    assert_eq!(explained.asked[1].answers[0].verdict, Verdict::Shadowed);
    assert_eq!(loader.explain(Some(&first), "only").winner().unwrap().1.unit, "library");
    assert_eq!(loader.explain(Some(&other), "getpid").winner().unwrap().1.unit, "library");
    assert_eq!(loader.explain(None, "only").winner(), None);
}

#[test]
fn units_that_are_loaded_together_see_each_other() {
    let folder = Folder::new();
    let user = folder.image("user.c", "int late(void); int f(void) { return late(); }", &[]);
    let late = folder.image("late.c", "int late(void) { return 1; }", &[]);
    let loader = loader();
    let sources = [("user", ImageSource::File(&user)), ("late", ImageSource::File(&late))];
    assert_eq!(loader.explain_for(None, &sources, "late").unwrap().winner().unwrap().1.unit, "late");
    assert!(loader.images().is_empty());
    let nowhere = Path::new("/nowhere.hbi");
    assert!(loader.explain_for(None, &[("n", ImageSource::File(nowhere))], "f").is_err());
}

#[test]
fn libraries_that_cannot_be_opened_are_a_remark() {
    let folder = Folder::new();
    let library = folder.library("libgone.c", "int gone(void) { return 1; }", &[]);
    let user = folder.image(
        "user.c",
        "int gone(void); int f(void) { return gone(); }",
        &[library.to_str().unwrap()],
    );
    std::fs::remove_file(&library).unwrap();
    let text = explain_for(&loader(), &user, "gone").to_string();
    assert!(text.contains("cannot open ") && text.contains("libgone.so, needed by user"), "{text}");
}
