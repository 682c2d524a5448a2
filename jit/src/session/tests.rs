#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing test shall say where")]

mod errors;
mod exceptions;
pub(super) mod forks;
mod many;

use super::*;
use crate::frontend;
use crate::shim::{Bitcode, Messages};
use hotbed_loader::boundary::{Content, Input, Lang};
use hotbed_loader::image::FreshCode;
use hotbed_loader::sys::sync::{Mutex, RwLock};
use std::collections::HashMap;

/// A fork closes the pieces of every arena in the process: tests that fork have this alone, those that look at where
/// something lies share it.
pub(super) static FORKS: RwLock<()> = RwLock::new(());

/// A host that knows some addresses, and counts what it is asked.
#[derive(Default)]
pub(super) struct Table {
    functions: Mutex<HashMap<String, usize>>,
    asked: Mutex<Vec<String>>,
    /// Whether unwinders shall not be led to sessions.
    registers: bool,
}

impl Table {
    pub(super) fn of(functions: &[(&str, usize)]) -> Arc<Self> {
        let functions = functions.iter().map(|(name, at)| ((*name).to_owned(), *at)).collect();
        Arc::new(Self { functions: Mutex::new(functions), ..Self::default() })
    }
}

pub(super) fn known(area: &FreshArea) -> Option<Box<dyn Any + Send + Sync>> {
    // SAFETY: what a session says of its area holds until it drops the result.
    unsafe { FreshCode::new(area) }.map(|known| Box::new(known) as Box<_>)
}

impl Host for Table {
    fn find(&self, question: Question) {
        let names = question.names();
        let functions = self.functions.lock();
        let answer: Vec<_> = names
            .iter()
            .map(|name| functions.get(name).map(|at| Definition { address: *at, function: true }))
            .collect();
        drop(functions);
        self.asked.lock().extend(names);
        question.answer(&answer);
    }

    fn make_known(&self, area: &FreshArea) -> Option<Box<dyn Any + Send + Sync>> {
        if self.registers { None } else { known(area) }
    }
}

/// A host that does as a function says.
pub(super) struct Does<F>(pub(super) F);

impl<F: Fn(Question) + Send + Sync> Host for Does<F> {
    fn find(&self, question: Question) {
        (self.0)(question);
    }

    fn make_known(&self, area: &FreshArea) -> Option<Box<dyn Any + Send + Sync>> {
        known(area)
    }
}

pub(super) fn session() -> Session {
    Session::new(Table::of(&[])).unwrap()
}

pub(super) fn bitcode(ir: &str) -> Vec<u8> {
    let messages = Messages::new();
    let made = Bitcode::prepare(ir.as_bytes(), "test.ll", &messages);
    made.unwrap_or_else(|| panic!("{}", messages.rendered())).bytes().to_vec()
}

/// An object that clang makes of a source.
pub(super) fn object(lang: Lang, source: &str, flags: &[&str]) -> Vec<u8> {
    shim::initialize();
    let content = Content::Bytes { name: "test".into(), bytes: source.as_bytes().into() };
    let input = Input { lang, content };
    let directory = std::env::temp_dir();
    let prepared = frontend::prepare(&input, &directory, frontend::Form::Object).unwrap().unwrap();
    let place = frontend::Place { directory: &directory, environment: &[] };
    let compiled = frontend::compile(&[prepared], flags, &place, frontend::Form::Object, false, None)
        .unwrap_or_else(|failure| panic!("{}", failure.message));
    compiled.objects[0].object.bytes().to_vec()
}

pub(super) fn add(unit: &Unit, ir: &str) -> Part {
    unit.add_bitcode("test.ll", &bitcode(ir), &Codegen::default(), None).unwrap()
}

pub(super) fn look_up(unit: &Unit, name: &str) -> usize {
    unit.look_up(&[name]).unwrap_or_else(|error| panic!("{error}"))[0]
}

/// Calls a function without arguments.
pub(super) fn call(address: usize) -> i32 {
    // SAFETY: the tests look up functions of that type only.
    unsafe { std::mem::transmute::<usize, extern "C" fn() -> i32>(address)() }
}

extern "C" fn seven() -> i32 {
    7
}

#[test]
fn bitcode_becomes_a_function() {
    let unit = session().unit("u", &[]).unwrap();
    add(&unit, "define i32 @answer() { ret i32 42 }");
    assert_eq!(call(look_up(&unit, "answer")), 42);
    assert_eq!(look_up(&unit, "answer"), look_up(&unit, "answer"));
}

#[test]
fn parts_of_a_unit_and_units_need_each_other_and_the_host() {
    let host = Table::of(&[("seven", seven as *const () as usize)]);
    let session = Session::new(host.clone()).unwrap();
    let base = session.unit("base", &[]).unwrap();
    add(&base, "@word = global i32 100\ndefine i32 @shared() { ret i32 1 }");
    let unit = session.unit("u", &[&base]).unwrap();
    add(
        &unit,
        "@word = external global i32\ndeclare i32 @later()\ndeclare i32 @shared()\ndeclare i32 @seven()\n\
        define i32 @f() {\n %a = call i32 @later()\n %b = call i32 @shared()\n %c = call i32 @seven()\n %w = load i32, ptr @word\n\
         %d = add i32 %a, %b\n %e = add i32 %d, %c\n %g = add i32 %e, %w\n ret i32 %g\n}",
    );
    add(
        &unit,
        "declare i32 @seven()\ndefine i32 @later() { %x = call i32 @seven()\n %y = mul i32 %x, 10\n ret i32 %y }",
    );
    assert_eq!(call(look_up(&unit, "f")), 70 + 1 + 7 + 100);
    assert_eq!(*host.asked.lock(), ["seven"], "the host comes last, and is asked once a unit");
    let other = session.unit("other", &[&unit]).unwrap();
    add(&other, "declare i32 @seven()\ndefine i32 @shared() { %x = call i32 @seven()\n ret i32 %x }");
    assert_eq!(call(look_up(&other, "shared")), 7, "a unit's own definition comes first");
    assert_eq!(host.asked.lock().len(), 2);
}

#[test]
fn weak_references_to_nobody_are_null() {
    let unit = session().unit("u", &[]).unwrap();
    add(
        &unit,
        "declare extern_weak i32 @nobody()\ndefine i32 @f() {\n %x = icmp eq ptr @nobody, null\n %y = zext i1 %x to i32\n ret i32 %y\n}",
    );
    assert_eq!(call(look_up(&unit, "f")), 1);
}

#[test]
fn of_several_weak_definitions_the_first_is_everybodys() {
    let unit = session().unit("u", &[]).unwrap();
    let source = |value: i32, name: &str| {
        format!(
            "$inline = comdat any\ndefine linkonce_odr i32 @inline() comdat {{ ret i32 {value} }}\n\
            define i32 @{name}() {{ %x = call i32 @inline()\n ret i32 %x }}"
        )
    };
    add(&unit, &source(1, "first"));
    add(&unit, &source(2, "second"));
    assert_eq!([call(look_up(&unit, "second")), call(look_up(&unit, "first"))], [1, 1]);
}

#[test]
fn what_is_not_exported_is_local() {
    let unit = session().unit("u", &[]).unwrap();
    let source = |value: i32| {
        bitcode(&format!(
            "define i32 @helper() noinline {{ ret i32 {value} }}\n\
            define i32 @f{value}() {{ %x = call i32 @helper()\n ret i32 %x }}"
        ))
    };
    for value in [1, 2] {
        let name = format!("f{value}");
        unit.add_bitcode("part", &source(value), &Codegen::default(), Some(&[&name])).unwrap();
        assert_eq!(call(look_up(&unit, &name)), value);
    }
    assert_eq!(unit.look_up(&["helper"]).unwrap_err().kind, FailureKind::Undefined);
    let c = object(Lang::C, "int helper(void) { return 3; } int f3(void) { return helper(); }", &["-O0"]);
    unit.add_object("f3.o", &c, Some(&["f3"])).unwrap();
    assert_eq!(call(look_up(&unit, "f3")), 3);
    assert_eq!(unit.look_up(&["helper"]).unwrap_err().names, ["helper"]);
}

#[test]
fn levels_and_processors_are_sets_of_their_own() {
    let unit = session().unit("u", &[]).unwrap();
    for level in 0..4 {
        for processor in ["x86-64", "x86-64-v2"] {
            let codegen = Codegen { level, processor: processor.into(), ..Codegen::default() };
            let name = format!("f{level}{}", processor.len());
            let code = bitcode(&format!("define i32 @{name}() {{ ret i32 {level} }}"));
            unit.add_bitcode(&name, &code, &codegen, None).unwrap();
            assert_eq!(call(look_up(&unit, &name)), level.into());
        }
    }
}

#[test]
fn code_of_an_executable_is_made_independent_of_its_place() {
    // As Debian's clang makes it: everything is said to be near.
    let ir = "@stdout_like = external dso_local global i32\ndefine dso_local i32 @f() {\n %x = load i32, ptr @stdout_like\n ret i32 %x\n}\n\
        !llvm.module.flags = !{!0}\n!0 = !{i32 7, !\"PIE Level\", i32 2}";
    static FAR: i32 = 55;
    let host = Table::of(&[("stdout_like", &raw const FAR as usize)]);
    let unit = Session::new(host).unwrap().unit("u", &[]).unwrap();
    add(&unit, ir);
    assert_eq!(call(look_up(&unit, "f")), 55);
}

#[test]
fn beginnings_and_ends_are_told_in_order() {
    let unit = session().unit("u", &[]).unwrap();
    let source = "static int log_[4], n; int *get(void) { return log_; }\n\
        __attribute__((constructor(200))) static void second(void) { log_[n++] = 2; }\n\
        __attribute__((constructor(101))) static void first(void) { log_[n++] = 1; }\n\
        __attribute__((destructor)) static void last(void) { log_[n++] = 3; }\n\
        extern void *__dso_handle __attribute__((visibility(\"hidden\"))); void *handle(void) { return &__dso_handle; }";
    let part =
        unit.add_object("order.o", &object(Lang::C, source, &["-O0"]), Some(&["get", "handle"])).unwrap();
    let calls = part.link().unwrap();
    assert_eq!((calls.beginning.len(), calls.end.len()), (2, 1));
    for address in calls.beginning.iter().chain(&calls.end) {
        call(*address);
    }
    // SAFETY: it gives an array of four, and the word at the handle is readable.
    unsafe {
        let get: extern "C" fn() -> *const [i32; 4] = std::mem::transmute(look_up(&unit, "get"));
        assert_eq!(*get(), [1, 2, 3, 0]);
        let handle: extern "C" fn() -> *const usize = std::mem::transmute(look_up(&unit, "handle"));
        assert_eq!(*handle(), handle() as usize, "a word with its own address");
    }
    let alone = "__attribute__((constructor)) static void only(void) { }";
    let part = unit.add_object("alone.o", &object(Lang::C, alone, &[]), None).unwrap();
    assert_eq!(part.link().unwrap().beginning.len(), 1, "a part without names");
}

#[test]
fn removed_parts_make_room_for_others_of_the_same_names() {
    let _no_forks = FORKS.read();
    let unit = session().unit("u", &[]).unwrap();
    let mut places = Vec::new();
    for value in 0..50 {
        let part = add(
            &unit,
            &format!(
                "@data = global i32 {value}\ndefine i32 @f() {{ %x = load i32, ptr @data\n ret i32 %x }}"
            ),
        );
        let at = look_up(&unit, "f");
        assert_eq!(call(at), value);
        places.push(at);
        part.remove().unwrap();
        assert_eq!(unit.look_up(&["f"]).unwrap_err().kind, FailureKind::Undefined);
    }
    places.dedup();
    assert_eq!(places.len(), 1, "the same memory again and again");
}

#[test]
fn a_unit_goes_as_a_whole() {
    let _no_forks = FORKS.read();
    let session = session();
    let unit = session.unit("u", &[]).unwrap();
    add(&unit, "define i32 @f() { ret i32 1 }");
    let at = look_up(&unit, "f");
    let user = session.unit("user", &[&unit]).unwrap();
    unit.remove().unwrap();
    add(
        &user,
        "define i32 @g() { ret i32 2 }\ndeclare i32 @f()\ndefine i32 @h() { %x = call i32 @f()\n ret i32 %x }",
    );
    assert_eq!(user.look_up(&["h"]).unwrap_err().names, ["f"]);
    let again = session.unit("u", &[]).unwrap();
    add(&again, "define i32 @f() { ret i32 3 }");
    assert_eq!((call(look_up(&again, "f")), look_up(&again, "f")), (3, at));
}

#[test]
fn sessions_are_independent() {
    let (one, two) = (session(), session());
    let units = [&one, &two].map(|session| session.unit("same", &[]).unwrap());
    for (value, unit) in units.iter().enumerate() {
        add(unit, &format!("define i32 @f() {{ ret i32 {value} }}"));
    }
    let [a, b] = [&units[0], &units[1]].map(|unit| look_up(unit, "f"));
    assert_eq!((call(a), call(b)), (0, 1));
    drop(units);
    drop(one);
    assert_eq!(call(b), 1);
}

#[test]
fn calls_through_the_table_reach_far_below() {
    use hotbed_loader::sys::memory::{Access, Mapping, PAGE};
    // As functions of a program that is linked at a fixed address: below 4 GiB, and far from here.
    let low = 0x1234_0000;
    let mut memory = Mapping::growing(low);
    memory.grow(PAGE, None, Access { read: true, write: true, execute: false }).unwrap();
    // SAFETY: mapped above; `mov eax, 9; ret`.
    unsafe {
        (low as *mut [u8; 6]).write([0xb8, 9, 0, 0, 0, 0xc3]);
        memory.protect(0, PAGE, Access { read: true, write: false, execute: true }).unwrap();
    }
    let unit = Session::new(Table::of(&[("low", low)])).unwrap().unit("u", &[]).unwrap();
    let c = "int low(void) __attribute__((nothrow)); int f(void) { return low() + 1; } int (*g(void))(void) { return low; }";
    unit.add_object("low.o", &object(Lang::C, c, &["-fno-plt", "-O1"]), None).unwrap();
    assert_eq!(call(look_up(&unit, "f")), 10);
    // SAFETY: that is its type.
    let g: extern "C" fn() -> usize = unsafe { std::mem::transmute(look_up(&unit, "g")) };
    assert_eq!(g(), low);
}
