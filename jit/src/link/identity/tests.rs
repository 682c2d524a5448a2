//! When copies are the same and when they are not, in objects that clang makes.

#![allow(clippy::unwrap_used, reason = "a failing test shall say where")]

use super::*;
use crate::link::check_object;
use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

/// The identities of what the object of a C++ source has, by name.
fn of(unit: &str, flags: &[&str], source: &str) -> BTreeMap<String, Identity> {
    let mut clang = Command::new("clang++-22")
        .args(["-fPIC", "-xc++", "-c", "-o", "/dev/stdout", "-"])
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    clang.stdin.take().unwrap().write_all(source.as_bytes()).unwrap();
    let done = clang.wait_with_output().unwrap();
    assert!(done.status.success());
    let facts = check_object(&done.stdout).unwrap();
    let name = |definition: &SharedDefinition| String::from_utf8(definition.name.clone()).unwrap();
    facts.shared.iter().map(|one| (name(one), one.identity(unit))).collect()
}

/// Has exceptions, a jump table, constants, text, static variables, type information, a vtable.
const HEADER: &str = r#"
    #include <vector>
    #include <string>
    struct Shape { virtual ~Shape() {} virtual int area() { return 1; } };
    template <class T> struct Square : Shape { T side; int area() override { return int(side * side); } };
    inline int counted() { static std::vector<int> all{1, 2, 3}; all.push_back(4); return int(all.size()); }
    inline const char *word(int n) {
        switch (n) { case 0: return "zero"; case 1: return "one"; case 2: return "two"; case 3: return "three"; default: return "many"; }
    }
    inline double scaled(double x) { return x * 1.25 + 3.5; }
    inline int jump(int n) {
        switch (n) { case 0: return counted(); case 1: return int(scaled(n)); case 2: return word(n)[0]; case 3: return 7 * n; default: return -1; }
    }
    inline int careful(int n) {
        try { if (n) throw std::string("thrown"); return jump(n); } catch (const std::string &text) { return int(text.size()); } catch (int x) { return x; }
    }
    static inline int helper(int n) { return n * 17; }
    inline int helped(int n) { return helper(n) + helper(n + 1); }
    inline int table[3] = {4, 5, 6};
"#;

const USE: &str = "int use(int n) { Square<double> s; s.side = n; Shape *p = &s; return p->area() + careful(n) + helped(n) + table[n]; }";

#[test]
fn the_same_is_the_same_wherever_it_lies() {
    for flags in [&["-O0"][..], &["-O2", "-fno-inline"], &["-O1", "-g", "-ffunction-sections", "-fno-inline"]]
    {
        let one = of("one", flags, &format!("{HEADER}{USE}"));
        // Something before, between and behind, of every kind.
        let front = "static const char *words[] = {\"one\", \"other\"}; int front(int n) { try { if (n) throw 1; } catch (int) { return 2; } return words[n & 1][0]; }
            static int own = 5; double factor(double x) { own++; return x * 8.75 + 1.25; }";
        let behind =
            "int *behind() { static int x[9]; return &x[own]; } int again(int n) { return careful(n + 2); }";
        let other = of("other", flags, &format!("{front}{HEADER}{behind}{USE}"));
        for name in
            ["_Z7countedv", "_Z4wordi", "_Z6scaledd", "_Z4jumpi", "_Z7carefuli", "_Z6helpedi", "table"]
        {
            assert!(one.contains_key(name), "{flags:?}: no {name} in {:?}", one.keys());
        }
        assert!(one.len() > 40, "{flags:?}: {}", one.len());
        for (name, identity) in &one {
            assert_eq!(other.get(name), Some(identity), "{flags:?}: {name}");
        }
    }
}

#[test]
fn what_differs_somewhere_is_another() {
    let source = |change: &[(&str, &str)]| {
        let header = change.iter().fold(HEADER.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        });
        of("one", &["-O1", "-fno-inline"], &format!("{header}{USE}"))
    };
    let before = source(&[]);
    for (from, to, changed) in [
        ("\"three\"", "\"three!\"", &["_Z4wordi"][..]),
        ("1.25", "1.5", &["_Z6scaledd"]),
        ("7 * n", "9 * n", &["_Z4jumpi"]),
        ("catch (int x)", "catch (long x)", &["_Z7carefuli"]),
        ("return n * 17", "return n * 19", &["_Z6helpedi"]),
        ("{4, 5, 6}", "{4, 5, 7}", &["table"]),
        ("int(side * side)", "int(side + side)", &["_ZN6SquareIdE4areaEv"]),
        ("counted(); case 1", "(word(n), counted()); case 1", &["_Z4jumpi"]),
    ] {
        let after = source(&[(from, to)]);
        let differ: Vec<&str> = before
            .iter()
            .filter(|(name, identity)| after.get(*name) != Some(identity))
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(differ, changed, "{from} to {to}");
    }
    // Another name is something else, whatever that has.
    let renamed = source(&[("counted", "counter")]);
    assert_ne!(renamed["_Z4jumpi"], before["_Z4jumpi"]);
}

#[test]
fn what_refers_to_a_units_own_variables_is_no_other_units() {
    let source = "static int calls; inline int count() { return ++calls; } inline int same() { return 3; } int use() { return count() + same(); }";
    let (one, again, other) = (of("one", &[], source), of("one", &[], source), of("other", &[], source));
    assert_eq!(one, again);
    assert_eq!(one["_Z4samev"], other["_Z4samev"]);
    assert_ne!(one["_Z5countv"], other["_Z5countv"]);
    let hidden = "__attribute__((visibility(\"hidden\"))) int deep(); inline int call() { return deep(); } int use() { return call(); }";
    assert_ne!(of("one", &[], hidden)["_Z4callv"], of("other", &[], hidden)["_Z4callv"]);
}

#[test]
fn the_first_of_several_counts_unless_nobody_knows_which_that_is() {
    let one = |body: u8| SharedDefinition { name: b"f".into(), hash: blake3::hash(&[body]), own: false };
    let (a, b) = (one(1), one(2));
    let first = |all: &[(&SharedDefinition, bool)]| {
        identities(all.iter().copied(), "u").first().map(|(_, identity)| *identity)
    };
    let (of_a, of_b) = (Some(a.identity("u")), Some(b.identity("u")));
    assert_ne!(of_a, of_b);
    assert_eq!(first(&[(&a, false), (&b, false)]), of_a);
    assert_eq!(first(&[(&a, false), (&b, true)]), of_a);
    assert_eq!(first(&[(&b, true), (&a, false)]), None);
    assert_eq!(first(&[(&b, true), (&b, false), (&a, true)]), of_b);
    assert_eq!(first(&[(&b, true), (&a, true)]), None);
}
