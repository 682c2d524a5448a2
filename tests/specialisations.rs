//! What several packages have a copy of: instances of templates, inline functions and variables are one at run time, whoever
//! comes first; what a package has for itself never meets what another one has under the same name; and copies are counted.

use crate::support::{End, Outcome, Scratch, finish, hotbed};
use hotbed::{Duplicate, Image, Load, Runtime, Sameness, Source, Unit};
use std::path::{Path, PathBuf};

/// What both packages include.
const HEADER: &str = r#"
    #include <stdexcept>
    #include <string>
    #include <typeinfo>
    #include <vector>
    struct Shape { virtual ~Shape() {} virtual int area() { return 1; } };
    template <class T> struct Square : Shape { T side{}; int area() override { return int(side * side); } };
    struct Refused : std::runtime_error { using std::runtime_error::runtime_error; int code = 7; };
    template <class T> T &total() { static T sum{}; return sum; }
    template <class T> T twice(T x) { total<T>() += x; return x + x; }
    inline std::vector<int> &seen() { static std::vector<int> all; return all; }
    inline int version = 3;
"#;

/// A package; its functions begin with its name.
fn package(name: &str) -> String {
    let body = r#"
        extern "C" int NAME_add(int x) { seen().push_back(x); std::vector<std::string> words{"a", "b"}; return int(seen().size() + words.size()) + twice(x) + ++version; }
        extern "C" const void *NAME_twice() { return (const void *)&twice<int>; }
        extern "C" const void *NAME_total() { return &total<int>(); }
        extern "C" const void *NAME_version() { return &version; }
        extern "C" const void *NAME_type() { return &typeid(Square<int>); }
        extern "C" Shape *NAME_make() { auto *shape = new Square<int>; shape->side = 6; return shape; }
        extern "C" int NAME_is_square(Shape *shape) { auto *square = dynamic_cast<Square<int> *>(shape); int area = square ? square->area() : 0; delete shape; return area; }
        extern "C" void NAME_refuse() { throw Refused("no"); }
        extern "C" int NAME_catches(void (*refuse)()) { try { refuse(); } catch (const Refused &refused) { return refused.code; } catch (...) { return 1; } return 0; }
    "#;
    format!("#include \"both.h\"\n{}", body.replace("NAME", name))
}

/// A host with a store: what is said of identities stands in files of images.
fn runtime(scratch: &Scratch) -> Runtime {
    Runtime::builder().cache_dir(scratch.join("store")).build().unwrap()
}

fn call(unit: &Unit, name: &str) -> i32 {
    // SAFETY: the tests have functions of this type only.
    let function = unsafe { unit.get::<unsafe extern "C" fn() -> i32>(name) }.unwrap();
    // SAFETY: as above.
    unsafe { function() }
}

/// The two packages as units, loaded in an order.
fn both(scratch: &Scratch, host: &Runtime, order: [&str; 2], flags: &[&str]) -> [Unit; 2] {
    order.map(|name| {
        let source = scratch.write(format!("{name}.cpp"), package(name));
        host.load(Source::file(&source).flags(flags.iter().copied()).named(name)).unwrap()
    })
}

#[test]
fn what_two_packages_share_is_one_whoever_comes_first() {
    let scratch = Scratch::new("specialisations-one");
    scratch.write("both.h", HEADER);
    for (order, flags) in [(["one", "two"], &["-O0"][..]), (["two", "one"], &["-O1", "-fno-inline"])] {
        let host = runtime(&scratch);
        let units = both(&scratch, &host, order, flags);
        let address = |at: usize, what: &str| {
            let name = format!("{}_{what}", order[at]);
            // SAFETY: a function of the package, of this type.
            let function = unsafe { units[at].get::<unsafe extern "C" fn() -> usize>(&name) }.unwrap();
            // SAFETY: as above.
            unsafe { function() }
        };
        for what in ["twice", "total", "version", "type"] {
            assert_eq!(address(0, what), address(1, what), "{order:?}: {what}");
        }
        let add = |at: usize, x: i32| {
            let name = format!("{}_add", order[at]);
            // SAFETY: as above.
            let function = unsafe { units[at].get::<unsafe extern "C" fn(i32) -> i32>(&name) }.unwrap();
            // SAFETY: as above.
            unsafe { function(x) }
        };
        // One list, one version.
        assert_eq!((add(0, 10), add(1, 100), add(0, 0)), (1 + 2 + 20 + 4, 2 + 2 + 200 + 5, 3 + 2 + 6));
        // SAFETY: `total` gives the address of an `int`.
        assert_eq!(unsafe { *(address(1, "total") as *const i32) }, 110);
        for (maker, user) in [(0, 1), (1, 0)] {
            let name = |at: usize, what: &str| format!("{}_{what}", order[at]);
            // SAFETY: as declared above, here and below.
            let is_square = unsafe {
                units[user].get::<unsafe extern "C" fn(usize) -> i32>(&name(user, "is_square")).unwrap()
            };
            // SAFETY: as above.
            assert_eq!(unsafe { is_square(address(maker, "make")) }, 36, "{order:?}");
            let refuse = units[maker].address_of(&name(maker, "refuse")).unwrap();
            // SAFETY: as above.
            let catches = unsafe {
                units[user].get::<unsafe extern "C" fn(usize) -> i32>(&name(user, "catches")).unwrap()
            };
            // SAFETY: as above.
            assert_eq!(unsafe { catches(refuse) }, 7, "{order:?}");
        }

        let found = host.duplicates();
        let of_units = |one: &&Duplicate| one.used.as_deref() == Some(order[0]);
        let copies: Vec<&Duplicate> = found.all().iter().filter(of_units).collect();
        for name in [
            "_Z5twiceIiET_S0_",
            "_ZTV6SquareIiE",
            "_Z4seenv",
            "version",
            "_ZNSt6vectorIiSaIiEE9push_backERKi",
        ] {
            let one = copies.iter().find(|one| one.symbol == name);
            let one = one.unwrap_or_else(|| panic!("no {name} in {copies:?}"));
            assert_eq!((one.unit.as_str(), one.sameness), (order[1], Sameness::Equal), "{name}");
            assert!(one.bytes > 0);
        }
        assert_eq!(found.that_are(Sameness::Differs).count(), 0, "{found:?}");
        assert!(found.bytes(Sameness::Equal) > 400, "{found:?}");
        assert!(found.all().iter().all(|one| one.used.as_deref() != Some(order[1])), "{found:?}");
    }
}

#[test]
fn what_each_has_for_itself_never_meets_under_one_name() {
    // The same file name, the same names in it, all of its own.
    let text = |value: i32| {
        format!(
            "static int count = {value}; static int next() {{ return ++count; }}
             namespace {{ int hidden = {value}; template <class T> struct Box {{ T get() {{ return T(hidden * 2); }} virtual ~Box() {{}} }};
                 struct Same {{ int x = {value}; }}; template <class T> int made() {{ static T same; return same.x++; }} }}
             struct Local {{ }}; namespace {{ int of(Local *) {{ return {value}; }} }}
             extern \"C\" __attribute__((visibility(\"hidden\"))) int inner(void) {{ static int calls = {value}; return calls++; }}
             extern \"C\" int NAME() {{ return next() + Box<int>().get() + made<Same>() + of((Local *)0) + inner(); }}"
        )
    };
    let want = |value: i32, calls: i32| {
        (value + calls) + value * 2 + (value + calls - 1) + value + (value + calls - 1)
    };
    let scratch = Scratch::new("specialisations-own");
    let sources: Vec<PathBuf> = [("one", 100), ("two", 1000)]
        .iter()
        .map(|(name, value)| scratch.write(format!("{name}/same.cpp"), text(*value).replace("NAME", name)))
        .collect();
    for (lazy, flags, order) in [(false, ["-O0"], [0, 1]), (false, ["-O2"], [1, 0]), (true, ["-O0"], [1, 0])]
    {
        let host = runtime(&scratch);
        let load = |at: usize| {
            let source = Source::file(&sources[at]).flags(flags);
            host.load(if lazy { Load::from(source.lazy()) } else { source.into() }).unwrap()
        };
        let units = order.map(|at| (["one", "two"][at], [100, 1000][at], load(at)));
        for calls in 1..3 {
            for (name, value, unit) in &units {
                assert_eq!(call(unit, name), want(*value, calls), "{name} {flags:?} {lazy}");
            }
        }
        assert_eq!(host.duplicates().all(), [], "{flags:?} {lazy}");
    }
}

/// Two packages that have the same and something else under one name each, as images.
fn at_odds(scratch: &Scratch) -> [PathBuf; 2] {
    let text = "inline int fixed(int x) { return x * 3; } inline int moved(int x) { return x * VALUE; }\n\
                extern \"C\" int NAME(int x) { return fixed(x) + moved(x); }";
    ["one", "two"].map(|name| {
        let value = if name == "one" { "5" } else { "7" };
        let source = scratch.write(format!("{name}.cpp"), text.replace("VALUE", value).replace("NAME", name));
        let image = scratch.join(format!("{name}.hbi"));
        let mut build = hotbed(["image", "build", "--no-cache", "-O0", "-o"]);
        finish(build.arg(&image).arg(&source)).assert_success("image build");
        image
    })
}

#[test]
fn identities_are_of_what_a_definition_is() {
    let scratch = Scratch::new("specialisations-identities");
    let [one, two] = at_odds(&scratch).map(|path| Image::file(path).inspect().unwrap());
    let identity = |image: &hotbed::ImageDescription, name: &str| {
        image.exports.iter().find(|export| export.name == name).unwrap().identity
    };
    assert!(identity(&one, "_Z5fixedi").is_some());
    assert_eq!(identity(&one, "_Z5fixedi"), identity(&two, "_Z5fixedi"));
    assert_ne!(identity(&one, "_Z5movedi"), identity(&two, "_Z5movedi"));
    assert_eq!(identity(&one, "one"), None, "it is nobody else's");
    let shown = identity(&one, "_Z5fixedi").unwrap().to_string();
    let inspect = |flags: &[&str]| {
        let outcome = finish(hotbed(["image", "inspect"]).args(flags).arg(scratch.join("one.hbi")));
        outcome.assert_success("inspect").stdout
    };
    assert!(inspect(&[]).contains(&shown[..12]));
    assert!(inspect(&["--json"]).contains(&format!("\"identity\":\"{shown}\"")));
}

#[test]
fn copies_that_differ_are_named_and_all_are_counted() {
    let scratch = Scratch::new("specialisations-odds");
    let [one, two] = at_odds(&scratch);
    let main = scratch.write("main.c", "int one(int), two(int); int main(void) { return one(1) + two(1); }");
    let run = |flags: &[&str], images: [&Path; 2]| -> Outcome {
        let mut command = hotbed(["run", "--cache-dir"]);
        finish(command.arg(scratch.join("store")).args(flags).args(images).arg(&main))
    };
    // The first one's definition is used by both.
    for (images, status) in [([&*one, &*two], 8 + 8), ([&*two, &*one], 10 + 10)] {
        let got = run(&["--timings=json", "--verbose"], images);
        assert_eq!(got.end, End::Status(status), "{}", got.stderr);
        let loser = images[1].file_name().unwrap().to_str().unwrap();
        let named = got.stderr.lines().filter(|line| line.contains("is not the same as")).collect::<Vec<_>>();
        assert_eq!(named.len(), 1, "{}", got.stderr);
        assert!(named[0].contains("moved(int)") && named[0].contains(&format!("{loser}: ")), "{named:?}");
        let line = got.stderr.lines().find(|line| line.starts_with('{')).unwrap();
        let counted = line.split("\"duplicate_bytes\":").nth(1).unwrap();
        assert!(counted.starts_with("{\"equal\":") && !counted.starts_with("{\"equal\":0,"), "{line}");
        assert!(!counted.contains("\"differing\":0,"), "{line}");
        let table = run(&["--timings"], images).stderr;
        assert!(table.contains("copies, equal") && table.contains("copies, differing"), "{table}");
        assert!(!run(&[], images).stderr.contains("not the same"));
    }
    let explain = |flags: &[&str], symbol: &str| {
        let mut command = hotbed(["explain", "--cache-dir"]);
        let command = command.arg(scratch.join("store")).args(flags).arg(symbol);
        finish(command.args([&one, &two])).assert_success("explain").stdout
    };
    for (symbol, sentence, key) in [
        ("fixed(int)", "it is the same", "\"same\":true"),
        ("moved(int)", "it is not the same", "\"same\":false"),
    ] {
        let text = explain(&[], symbol);
        assert_eq!(text.matches("; it is").count(), 1, "{text}");
        assert!(text.contains(sentence), "{text}");
        assert!(explain(&["--json"], symbol).contains(key));
    }
}
