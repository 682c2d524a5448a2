//! Small programs with something of everything.

use super::Subject;

/// So many functions that it is worth it.
fn filler(count: usize) -> String {
    (0..count).map(|n| format!("int filler{n}(int x) {{ return x * {n} + {n}; }}\n")).collect()
}

const C: &str = r#"
#include <stdio.h>
#include <string.h>
typedef int (*fn)(int);
struct pair { int a; fn f; };
static int counter; int shared = 3; static _Thread_local int local_thread; _Thread_local int thread = 4;
static const int table[] = {1, 2, 3, 4}; const char *const words[] = {"one", "two"}; static const char text[] = "static text";
__attribute__((weak)) int weak(int x) { return x + 1; }
__attribute__((visibility("hidden"))) int hidden(int x) { return x - 1; }
static int callee(int x) { counter += x; return counter; }
static int user(int x) { static int n; n++; return callee(x) + n + table[x & 3] + thread++ + local_thread++; }
static int strings(int x) { printf("%s %s %s\n", x ? "first" : "second", words[x & 1], text); return (int)strlen("first"); }
static double floats(double x, float y) { return x * 3.25 + y * 1.5f + 1e100; }
static int jumps(int x) { switch (x) { case 0: return 5; case 1: return 7; case 2: return 19; case 3: return 23; case 4: return 4; case 5: return 11; } return 1; }
static int gotos(int x) { static void *labels[] = {&&a, &&b}; goto *labels[x & 1]; a: return 1; b: return 2; }
static int assembly(int x) { __asm__("addl $1, %0" : "+r"(x)); return x; }
static fn pick(int x) { return x ? callee : hidden; }
static struct pair pairs[] = {{1, user}, {2, weak}, {3, jumps}};
static void sum(struct pair p, int *out) { struct pair q[4] = {{1, callee}, {2, hidden}, {3, 0}, {4, user}}; *out += p.a + q[p.a & 3].a; }
__attribute__((constructor)) static void begin(void) { counter = 100; }
static int atomics(_Atomic int *p) { int old = 1; __atomic_compare_exchange_n((int *)p, &old, 2, 0, 5, 5); return *p; }
static long double big(long double x) { return x * 2.5L; }
int edited(int x) { return x + 1; }
int run(int x) { int s = 0; for (int i = 0; i < 3; i++) { s += pairs[i].f(i); sum(pairs[i], &s); }
  return s + user(x) + strings(x) + (int)floats(x, x) + jumps(x) + gotos(x) + assembly(x) + pick(x)(x) + atomics(0) + (int)big(x) + edited(x) + shared; }
"#;

const CPP: &str = r#"
#include <string>
#include <vector>
#include <stdexcept>
struct Tracer { int *n; ~Tracer() { ++*n; } };
struct Base { virtual ~Base() {} virtual int value() const { return 1; } };
template <class T> struct Derived : Base { T t; explicit Derived(T t) : t(t) {} int value() const override { return int(t) + 1; } };
template <class T> T twice(T x) { static int calls; ++calls; return x + x; }
inline int instances = 7;
inline const std::string &name() { static const std::string text = "name"; return text; }
static std::vector<int> made = {1, 2, 3};
static int thrower(int x) { if (x > 2) throw std::runtime_error("too much"); if (x < 0) throw x; return x; }
int catcher(int x) { int n = 0; try { Tracer t{&n}; return thrower(x); } catch (const std::exception &e) { return int(std::string(e.what()).size()); } catch (int i) { return i; } }
int other_catcher(int x) { try { return thrower(x); } catch (...) { throw; } }
int virtuals(const Base &b) { return b.value() + (dynamic_cast<const Derived<int> *>(&b) != nullptr); }
int lambdas(int x) { auto f = [&](int y) { return x * y; }; return f(2); }
thread_local std::string text = "thread";
int edited(int x) { return x + 1; }
int run(int x) { return catcher(x) + other_catcher(1) + virtuals(Derived<int>(x)) + virtuals(Derived<double>(x)) + lambdas(x) + twice(x) + int(twice(2.5)) + instances + int(name().size() + made.size() + text.size()) + edited(x); }
"#;

/// What is done to a program, and whether all other functions are the same then.
const EDITS: [(&str, &str); 6] = [
    ("return x + 1; }\nint run", "return x + 2; }\nint run"),
    ("int edited(int x) { ", "static int before(int x) { return x; } int edited(int x) { "),
    ("int edited(int x) { ", "int edited(int x) { x += sizeof(\"quite a new text\"); "),
    ("int edited(int x) { ", "int edited(int x) { static int n; n += x; "),
    ("int edited(int x) { return", "int edited(int x) { if (x == 77) __builtin_trap(); return"),
    ("int edited(int x) {", "__attribute__((cold)) int edited(int x) {"),
];

#[test]
fn programs_are_the_same_with_and_without_reuse() {
    for (name, text) in [("one.c", C), ("one.cpp", CPP)] {
        for flags in [&["-O0"][..], &["-O1"], &["-O2"], &["-O0", "-fno-plt"], &["-Os", "-fvisibility=hidden"]]
        {
            let subject = Subject::new(name, flags);
            let text = filler(40) + text;
            let first = subject.compile(&text, b"");
            let mut stock = first.stock.unwrap();
            for (from, to) in EDITS {
                assert!(text.contains(from), "{from}");
                let made = subject.check(&stock, &text.replacen(from, to, 1), to);
                let (all, reused) = (made.functions.all, made.functions.reused);
                assert!(reused * 2 > all && reused < all, "{name} {flags:?} {to}: {reused} of {all}");
                stock = made.stock.unwrap();
            }
        }
    }
}

#[test]
fn what_is_not_to_be_taken_apart_is_not() {
    let text = filler(40) + C;
    for flags in [
        &["-g"][..],
        &["-fsanitize=undefined"],
        &["--coverage"],
        &["-flto"],
        &["-fcf-protection"],
        &["-mcmodel=large"],
    ] {
        let made = Subject::new("one.c", flags).compile(&text, b"");
        assert!(made.stock.is_none(), "{flags:?}");
    }
    let module_assembly = text.clone() + "__asm__(\".globl other\\nother = edited\");";
    assert!(Subject::new("one.c", &[]).compile(&module_assembly, b"").stock.is_none());
    // Too few to be worth it.
    assert!(Subject::new("one.c", &[]).compile(&filler(5), b"").stock.is_none());
}

#[test]
fn a_stock_of_something_else_is_of_no_use() {
    let text = filler(40);
    let stock = Subject::new("one.c", &["-O0"]).compile(&text, b"").stock.unwrap();
    let reused = |name: &str, flags: &[&str], stock: &[u8]| {
        Subject::new(name, flags).compile(&text, stock).functions.reused
    };
    assert_eq!(reused("one.c", &["-O0"], &stock), 40);
    assert_eq!(reused("two.c", &["-O0"], &stock), 0);
    assert_eq!(reused("one.c", &["-O0", "-DX"], &stock), 0);
    assert_eq!(reused("one.c", &["-O0"], &stock[1..]), 0);
    // An object that is not understood.
    let mut sources = super::super::stock::decode(&stock);
    let damaged = sources[0].object[..100].to_vec();
    sources[0].object = &damaged;
    assert_eq!(reused("one.c", &["-O0"], &super::super::stock::encode(&sources)), 0);
}

#[test]
fn damaged_objects_are_taken_apart_without_harm() {
    use super::super::old::Old;
    use super::super::splice::{Taken, splice};
    let subject = Subject::new("one.cpp", &["-O0"]);
    let text = filler(40) + CPP;
    let good = subject.compile(&text, b"").object;
    let edited = "extern \"C\" int use(); int user() { return use(); }";
    let new = subject.compile(edited, b"").object;
    let mut state = 1_u64;
    let mut taken_apart = 0;
    for _ in 0..3000 {
        let mut bytes = good.clone();
        for _ in 0..3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (state >> 33) as usize % bytes.len();
            // Where the tables are, things go wrong.
            let at = if state & 1 == 0 { at } else { bytes.len() - 1 - at % (bytes.len() / 4) };
            bytes[at] ^= 1 << (state >> 8 & 7);
        }
        let Some(old) = Old::read(&bytes) else { continue };
        let names: Vec<Vec<u8>> = old.functions.keys().map(|name| name.to_vec()).collect();
        for names in names.chunks(8) {
            let taken: Vec<_> = names.iter().map(|name| Taken { name, local_alias: true }).collect();
            taken_apart += usize::from(splice(&old, &new, &taken).is_some());
        }
    }
    assert!(taken_apart > 0);
}
