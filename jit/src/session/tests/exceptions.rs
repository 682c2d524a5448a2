//! Exceptions through fresh code, and through functions of the host between.

use super::*;
use std::time::Instant;

// What unwinds must say so: the compiler takes the declaration at its word for calls that it makes itself.
unsafe extern "C-unwind" {
    fn __cxa_allocate_exception();
    fn __cxa_throw();
    fn __cxa_begin_catch();
    fn __cxa_end_catch();
    fn __gxx_personality_v0();
    fn _Unwind_Resume();
    static _ZTIi: usize;
}

extern "C-unwind" fn through_host(function: extern "C-unwind" fn(i32) -> i32, argument: i32) -> i32 {
    function(argument)
}

fn host(registers: bool) -> Arc<Table> {
    let functions = [
        ("__cxa_allocate_exception", __cxa_allocate_exception as *const () as usize),
        ("__cxa_throw", __cxa_throw as *const () as usize),
        ("__cxa_begin_catch", __cxa_begin_catch as *const () as usize),
        ("__cxa_end_catch", __cxa_end_catch as *const () as usize),
        ("__gxx_personality_v0", __gxx_personality_v0 as *const () as usize),
        ("_Unwind_Resume", _Unwind_Resume as *const () as usize),
        ("_ZTIi", &raw const _ZTIi as usize),
        ("through_host", through_host as *const () as usize),
    ];
    let functions = functions.map(|(name, at)| (name.to_owned(), at)).into();
    Arc::new(Table { functions: Mutex::new(functions), registers, ..Table::default() })
}

const THROWS: &str = "extern \"C\" int throws(int x) { if (x >= 0) throw x; return x; }";
const MIDDLE: &str = "extern \"C\" int throws(int), through_host(int (*)(int), int); extern \"C\" int cleaned; int cleaned;\n\
    struct Guard { ~Guard() { cleaned++; } };\n\
    extern \"C\" int middle(int x) { Guard guard; return through_host(throws, x) + 1; }";
const CATCHES: &str = "extern \"C\" int middle(int); extern \"C\" int cleaned;\n\
    extern \"C\" int catches() { int sum = 0; for (int i = -1; i < 5; i++) { try { sum += middle(i); } catch (int x) { sum += 100 * x; } }\n\
    return sum + 10000 * cleaned; }";

fn throw_and_catch(session: &Session) {
    let unit = session.unit("u", &[]).unwrap();
    let parts: Vec<_> = [THROWS, MIDDLE, CATCHES]
        .map(|source| unit.add_object("part.o", &object(Lang::Cpp, source, &["-O0"]), None).unwrap())
        .into();
    let catches = look_up(&unit, "catches");
    assert_eq!(call(catches), 1000 + 60_000);
    assert_eq!(call(catches), 1000 + 120_000);
    // One goes and comes back where it was.
    let mut parts = parts.into_iter();
    for part in parts.by_ref().take(1) {
        part.remove().unwrap();
    }
    for part in parts {
        part.remove().unwrap();
    }
    for source in [CATCHES, MIDDLE, THROWS] {
        unit.add_object("part.o", &object(Lang::Cpp, source, &["-O2"]), None).unwrap();
    }
    assert_eq!(call(look_up(&unit, "catches")), 1000 + 60_000);
}

#[test]
fn exceptions_pass_through_fresh_code_in_every_direction() {
    throw_and_catch(&Session::new(host(false)).unwrap());
}

#[test]
fn tables_are_registered_where_the_unwinder_is_not_led_to_them() {
    throw_and_catch(&Session::new(host(true)).unwrap());
}

#[test]
fn bitcode_has_unwind_tables_too() {
    let unit = Session::new(host(false)).unwrap().unit("u", &[]).unwrap();
    unit.add_object("throws.o", &object(Lang::Cpp, THROWS, &[]), None).unwrap();
    unit.add_object("catches.o", &object(Lang::Cpp, CATCHES, &[]), None).unwrap();
    add(
        &unit,
        "@cleaned = global i32 0\ndeclare i32 @throws(i32)\n\
        define i32 @middle(i32 %x) uwtable { %y = call i32 @throws(i32 %x)\n %z = add i32 %y, 1\n ret i32 %z }",
    );
    assert_eq!(call(look_up(&unit, "catches")), 1000);
}

#[test]
fn a_throw_costs_the_same_whatever_is_linked() {
    let session = Session::new(host(false)).unwrap();
    let unit = session.unit("u", &[]).unwrap();
    for source in [THROWS, MIDDLE, CATCHES] {
        unit.add_object("part.o", &object(Lang::Cpp, source, &["-O2"]), None).unwrap();
    }
    let catches = look_up(&unit, "catches");
    let time = || {
        let best = (0..20).map(|_| {
            let start = Instant::now();
            for _ in 0..20 {
                call(catches);
            }
            start.elapsed()
        });
        best.min().unwrap()
    };
    time();
    let before = time();
    let other = session.unit("other", &[]).unwrap();
    let one = object(
        Lang::Cpp,
        "extern \"C\" int callee(int); extern \"C\" int caller(int x) { return callee(x) + 1; } int callee(int x) { return x; }",
        &["-O0"],
    );
    for _ in 0..3000 {
        other.add_object("one.o", &one, Some(&[])).unwrap().link().unwrap();
    }
    assert!(time() < before * 3, "{before:?} became {:?}", time());
}
