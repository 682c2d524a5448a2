//! What is known of a unit, and how it is divided.

use super::support::{self, Program, bodies};
use crate::split::{Kind, Linkage, Number, PlanOptions, Start, Symbol, Unit, Visibility, cluster, plan};
use std::collections::HashSet;
use std::convert::Infallible;

const TEXT: &str = r#"
extern int outside(int); extern int perhaps(void) __attribute__((weak));
static int counter = 3; int common; __attribute__((weak)) int weak_one = 1; static __thread int mine; const int table[] = {1, 2};
static int once(int a) { return outside(a) + counter; }
static int pointed(int a) { return a; } int (*pointer)(int) = pointed;
__attribute__((visibility("hidden"))) int caller(int a) { return once(a) + mine; }
int other_name(int a) __attribute__((alias("caller")));
static int odd(int); static int even(int n) { return n ? odd(n - 1) : 1; } static int odd(int n) { return n ? even(n - 1) : 0; }
int parity(int n) { return even(n) + odd(n); }
int labels(int n) { static void *t[] = {&&a, &&b}; goto *t[n]; a: return 1; b: return 2; }
int (*takes(void))(int) { return perhaps ? once : 0; }
__attribute__((constructor(200))) static void begin(void) { counter++; }
__attribute__((destructor)) static void end(void) { counter--; }
__attribute__((used)) static int for_assembly(void) { return 7; }
"#;

fn open(text: &str) -> Unit {
    support::open(&Program::small("facts.c", text).modules(&["-O0"])[0], ".u", false)
}

fn number(unit: &Unit, name: &str) -> Number {
    unit.facts().by_name()[name]
}

fn symbol<'a>(unit: &'a Unit, name: &str) -> &'a Symbol {
    unit.facts().get(number(unit, name)).unwrap()
}

#[test]
fn names_are_known_without_bodies() {
    let unit = open(TEXT);
    let of = |name: &str| {
        let symbol = symbol(&unit, name);
        (symbol.kind, symbol.linkage, symbol.visibility, symbol.local)
    };
    use Linkage::{Declared, DeclaredWeak, Strong, Weak};
    assert_eq!(of("outside"), (Kind::Function, Declared, Visibility::Default, false));
    assert_eq!(of("perhaps"), (Kind::Function, DeclaredWeak, Visibility::Default, false));
    assert_eq!(of("counter.u"), (Kind::Variable, Strong, Visibility::Hidden, true));
    assert_eq!(of("weak_one"), (Kind::Variable, Weak, Visibility::Default, false));
    assert_eq!(of("caller"), (Kind::Function, Strong, Visibility::Hidden, false));
    assert_eq!(of("other_name").0, Kind::Alias);
    assert_eq!(symbol(&unit, "other_name").base, Some(number(&unit, "caller")));
    assert_eq!(symbol(&unit, "labels.t.u").base, Some(number(&unit, "labels")));
    assert!(symbol(&unit, "labels.t.u").labels);
    assert!(symbol(&unit, "mine.u").thread_local && symbol(&unit, "table").constant);
    assert!(symbol(&unit, "pointed.u").address_in_data && !symbol(&unit, "once.u").address_in_data);
    // Assembly knows it by its own name.
    assert!(symbol(&unit, "for_assembly").used && symbol(&unit, "for_assembly").local);
    assert_eq!((symbol(&unit, "common").size, symbol(&unit, "table").size), (4, 8));
    assert!(symbol(&unit, "parity").size > symbol(&unit, "pointed.u").size);
    let start = |name, priority, destructor| Start { function: number(&unit, name), priority, destructor };
    assert_eq!(unit.facts().starts, [start("begin.u", 200, false), start("end.u", 65535, true)]);
}

#[test]
fn bodies_say_what_they_call_and_mention() {
    let mut unit = open(TEXT);
    let names = |unit: &Unit, list: &[Number]| -> Vec<String> {
        list.iter().map(|&number| unit.facts().get(number).unwrap().name.clone()).collect()
    };
    let once = unit.body(number(&unit, "once.u")).unwrap();
    assert_eq!(names(&unit, &once.calls), ["outside"]);
    assert_eq!(names(&unit, &once.mentions), ["counter.u"]);
    let takes = unit.body(number(&unit, "takes")).unwrap();
    assert!(takes.calls.is_empty());
    assert_eq!(names(&unit, &takes.mentions), ["perhaps", "once.u"]);
    assert!(unit.body(number(&unit, "labels")).unwrap().labels && !takes.labels && takes.instructions > 1);
    let none = unit.body(number(&unit, "outside"));
    assert!(none.is_err_and(|failure| failure.message.contains("no function of that number")));
    assert!(unit.code(&[number(&unit, "counter.u")]).is_err() && unit.code(&[u32::MAX]).is_err());
}

#[test]
fn contents_are_the_same_whatever_else_changes() {
    let mut one = open(TEXT);
    let mut two =
        open(&format!("int before(int a) {{ return a * 3; }} const char *text = \"more\";\n{TEXT}"));
    let mut three = open(&TEXT.replace("return outside(a) + counter", "return outside(a) - counter"));
    let hash = |unit: &mut Unit, name: &str| unit.content(number(unit, name)).unwrap();
    for name in ["once.u", "caller", "labels", "parity"] {
        assert_eq!(hash(&mut one, name), hash(&mut two, name), "{name}");
        // Asking again reads the body again.
        assert_eq!(hash(&mut one, name), hash(&mut two, name), "{name}");
    }
    assert_eq!(hash(&mut one, "caller"), hash(&mut three, "caller"));
    assert_ne!(hash(&mut one, "once.u"), hash(&mut three, "once.u"));
}

#[test]
fn plans_have_every_function_once() {
    let mut unit = open(&TEXT.replace("perhaps ? once : 0", "0"));
    let bodies = bodies(&mut unit);
    for options in [PlanOptions::SINGLE, PlanOptions::SMALL] {
        let plan = plan(unit.facts(), &bodies, &options);
        let mut all: Vec<Number> = plan.groups.concat();
        all.sort_unstable();
        assert!(all.iter().copied().eq(unit.facts().functions()), "{options:?}");
        assert!(plan.groups.iter().all(|group| group.len() <= options.most));
        let together = |a, b| {
            let (a, b) = (number(&unit, a), number(&unit, b));
            plan.groups.iter().any(|group| group.contains(&a) && group.contains(&b))
        };
        let local = |name| plan.local.contains(&number(&unit, name));
        let small = options.most > 1;
        assert_eq!((together("even.u", "odd.u"), together("caller", "once.u")), (small, small));
        assert_eq!((local("once.u"), local("even.u")), (small, small));
        assert!(!local("caller") && !local("pointed.u") && !local("begin.u") && !local("for_assembly"));
    }
}

#[test]
fn clusters_read_no_more_than_they_take() {
    let mut unit = open(TEXT);
    let bodies = bodies(&mut unit);
    let mut taken = HashSet::from([number(&unit, "odd.u")]);
    let mut read = Vec::new();
    let mut body = |function: Number| {
        read.push(function);
        Ok::<_, Infallible>(bodies[&function].clone())
    };
    let parity = number(&unit, "parity");
    let mut take = |function| taken.insert(function);
    let Ok(group) = cluster(parity, unit.facts(), &PlanOptions::SMALL, &mut take, &mut body);
    assert_eq!(group, [parity, number(&unit, "even.u")]);
    let Ok(alone) =
        cluster(number(&unit, "caller"), unit.facts(), &PlanOptions::SINGLE, &mut take, &mut body);
    assert_eq!(alone.len(), 1);
    assert_eq!(read, group);
}
