//! What goes wrong comes back as a value that says what.

use super::forks::in_child;
use super::*;
use std::time::{Duration, Instant};

const NEEDY: &str = "declare i32 @needed()\ndefine i32 @f() { %x = call i32 @needed()\n ret i32 %x }";

#[test]
fn what_nobody_has_is_named() {
    let unit = session().unit("unit", &[]).unwrap();
    let ir = "declare i32 @nowhere()\n@nothing = external global i32\n\
        define ptr @f() { %x = call i32 @nowhere()\n ret ptr @nothing }\ndefine i32 @fine() { ret i32 1 }";
    let part = add(&unit, ir);
    for _ in 0..2 {
        let error = unit.look_up(&["f"]).unwrap_err();
        assert_eq!(error.kind, FailureKind::Undefined);
        assert_eq!(error.names, ["nothing", "nowhere"]);
        assert_eq!(error.to_string(), "unit: undefined: nothing, nowhere");
    }
    assert_eq!(part.link().unwrap_err().names.len(), 2);
    part.remove().unwrap();
    add(&unit, "define i32 @f() { ret i32 5 }");
    assert_eq!(call(look_up(&unit, "f")), 5);
    assert_eq!(unit.look_up(&["f", "g", "h"]).unwrap_err().names, ["g", "h"]);
}

#[test]
fn who_needs_what_failed_hears_the_same_reason() {
    let session = session();
    let broken = session.unit("broken", &[]).unwrap();
    add(&broken, "declare i32 @nobody()\ndefine i32 @needed() { %x = call i32 @nobody()\n ret i32 %x }");
    let user = session.unit("user", &[&broken]).unwrap();
    add(&user, NEEDY);
    let error = user.look_up(&["f"]).unwrap_err();
    assert_eq!((error.kind, error.names), (FailureKind::Undefined, vec!["nobody".to_owned()]));
}

#[test]
fn a_name_may_be_defined_once() {
    let unit = session().unit("u", &[]).unwrap();
    add(&unit, "define i32 @f() { ret i32 1 }");
    let again =
        unit.add_bitcode("again", &bitcode("define i32 @f() { ret i32 2 }"), &Codegen::default(), None);
    let error = again.err().unwrap();
    assert_eq!((error.kind, error.names), (FailureKind::Duplicate, vec!["f".to_owned()]));
    assert_eq!(call(look_up(&unit, "f")), 1);
}

#[test]
fn inputs_that_cannot_be_linked_say_why() {
    let unit = session().unit("u", &[]).unwrap();
    let refused = |bytes: &[u8]| {
        let error = unit.add_object("input.o", bytes, None).err().unwrap();
        assert_eq!(error.kind, FailureKind::Input);
        assert!(error.message.starts_with("input.o: "), "{error}");
        error.message
    };
    refused(b"");
    refused(b"no object at all");
    let whole = object(Lang::C, "int f(void) { return 1; }", &[]);
    refused(&whole[..whole.len() / 2]);
    for (source, flags) in [
        ("__thread int t; int f(void) { return t; }", &["-fPIC"][..]),
        ("extern __thread int t; int f(void) { return t; }", &["-fPIC"]),
    ] {
        assert!(refused(&object(Lang::C, source, flags)).contains("thread_local"));
    }
    let model = ["-fPIC", "-ftls-model=initial-exec"];
    refused(&object(Lang::C, "extern __thread int t; int f(void) { return t; }", &model));
    let choice = "static int one(void) { return 1; } static void *choose(void) { return one; } int f(void) __attribute__((ifunc(\"choose\")));";
    assert!(refused(&object(Lang::C, choice, &[])).contains("'f'"));
    let old = object(Lang::C, "__attribute__((constructor)) void f(void) { }", &["-fno-use-init-array"]);
    assert!(refused(&old).contains("-fuse-init-array"));
    let both = "__asm__(\".section both,\\\"awx\\\",@progbits\\n.globl f\\nf: ret\\n.text\");";
    unit.add_object("both.o", &object(Lang::C, both, &[]), None).unwrap();
    let error = unit.look_up(&["f"]).unwrap_err();
    assert_eq!(
        (error.kind, error.message.as_str()),
        (FailureKind::Input, "both.o: it has a section to be written and executed")
    );
}

#[test]
fn modules_that_cannot_be_compiled_say_why() {
    let unit = session().unit("u", &[]).unwrap();
    let refused = |bitcode: &[u8]| {
        let error = unit.add_bitcode("m", bitcode, &Codegen::default(), None).err().unwrap();
        assert!(error.message.starts_with("m: "), "{error}");
        error.kind
    };
    assert_eq!(refused(b"no bitcode"), FailureKind::Input);
    let assembly = "define void @f() { call void asm sideeffect \"no such instruction\", \"\"()\n ret void }";
    assert_eq!(refused(&bitcode(assembly)), FailureKind::Codegen);
    let unknown =
        "define void @f() { call void asm sideeffect \"\", \"{no_such_register}\"(i32 1)\n ret void }";
    assert_eq!(refused(&bitcode(unknown)), FailureKind::Codegen);
    // What went wrong leaves nothing behind.
    add(&unit, "define i32 @f() { ret i32 3 }");
    assert_eq!(call(look_up(&unit, "f")), 3);
}

#[test]
fn a_host_that_panics_or_says_nothing_fails_the_link() {
    type Act = fn(Question);
    let acts: [(Act, &str); 3] = [
        (|_| panic!("on purpose"), "the host panicked"),
        (drop, "the host gave no answer"),
        (|question| question.refuse("not today"), "not today"),
    ];
    for (act, expected) in acts {
        let session = Session::new(Arc::new(Does(act))).unwrap();
        let unit = session.unit("u", &[]).unwrap();
        add(&unit, NEEDY);
        assert_eq!(unit.look_up(&["f"]).unwrap_err().message, expected);
        add(&unit, "define i32 @g() { ret i32 1 }");
        assert_eq!(call(look_up(&unit, "g")), 1, "the session goes on");
    }
}

#[test]
fn an_answer_may_come_later_from_another_thread() {
    let host = Does(|question: Question| {
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            let function = Definition { address: super::seven as *const () as usize, function: true };
            question.answer(&[Some(function)]);
        });
    });
    let unit = Session::new(Arc::new(host)).unwrap().unit("u", &[]).unwrap();
    add(&unit, NEEDY);
    add(&unit, "define i32 @other() { ret i32 1 }");
    let start = Instant::now();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| call(look_up(&unit, "f")));
        // Nothing else waits.
        assert_eq!(call(look_up(&unit, "other")), 1);
        assert_eq!(waiting.join().unwrap(), 7);
    });
    assert!(start.elapsed() >= Duration::from_millis(30));
}

#[test]
fn a_host_may_link_in_the_same_unit_to_answer() {
    let unit: Arc<OnceLock<Unit>> = Arc::default();
    let host = Does({
        let unit = unit.clone();
        move |question: Question| {
            let names = question.names();
            let unit = unit.get().unwrap();
            let find = |name: &String| {
                let depth: usize = name.strip_prefix('f')?.parse().ok()?;
                let code = match depth {
                    20 => "define i32 @x20() { ret i32 20 }".to_owned(),
                    _ => format!(
                        "declare i32 @f{next}()\ndefine i32 @x{depth}() {{ %x = call i32 @f{next}()\n ret i32 %x }}",
                        next = depth + 1
                    ),
                };
                add(unit, &code);
                Some(Definition { address: look_up(unit, &format!("x{depth}")), function: true })
            };
            let answer: Vec<_> = names.iter().map(find).collect();
            question.answer(&answer);
        }
    });
    let session = Session::new(Arc::new(host)).unwrap();
    let _ = unit.set(session.unit("u", &[]).unwrap());
    let unit = unit.get().unwrap();
    add(unit, "declare i32 @f0()\ndefine i32 @start() { %x = call i32 @f0()\n ret i32 %x }");
    assert_eq!(call(look_up(unit, "start")), 20);
}

#[test]
fn a_session_lasts_until_its_questions_are_answered() {
    let waiting: Arc<Mutex<Option<Question>>> = Arc::default();
    let host = Does({
        let waiting = waiting.clone();
        move |question| *waiting.lock() = Some(question)
    });
    let session = Session::new(Arc::new(host)).unwrap();
    let unit = session.unit("u", &[]).unwrap();
    add(&unit, NEEDY);
    std::thread::scope(|scope| {
        let looking = scope.spawn(move || unit.look_up(&["f"]).map_err(|error| error.message));
        while waiting.lock().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(session);
        waiting.lock().take().unwrap().answer(&[]);
        assert_eq!(looking.join().unwrap(), Err("u: undefined: needed".to_owned()));
    });
}

#[test]
fn a_part_may_be_removed_while_it_is_linked() {
    let waiting: Arc<Mutex<Option<Question>>> = Arc::default();
    let host = Does({
        let waiting = waiting.clone();
        move |question| *waiting.lock() = Some(question)
    });
    let session = Session::new(Arc::new(host)).unwrap();
    let unit = session.unit("u", &[]).unwrap();
    let function = Definition { address: super::seven as *const () as usize, function: true };
    for _ in 0..3 {
        let part = add(&unit, NEEDY);
        std::thread::scope(|scope| {
            let looking = scope.spawn(|| unit.look_up(&["f"]));
            while waiting.lock().is_none() && !looking.is_finished() {
                std::thread::sleep(Duration::from_millis(1));
            }
            let question = waiting.lock().take();
            part.remove().unwrap();
            if let Some(question) = question {
                question.answer(&[None]);
            }
            assert!(looking.join().unwrap().is_err());
        });
    }
    add(&unit, NEEDY);
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| call(look_up(&unit, "f")));
        while waiting.lock().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        waiting.lock().take().unwrap().answer(&[Some(function)]);
        assert_eq!(looking.join().unwrap(), 7);
    });
}

#[test]
fn damaged_objects_end_nobody() {
    let _forks = FORKS.write();
    let source = "struct A { ~A(); }; extern int x; int y = 5; static int z[10]; const char *s = \"abc\"; int g(int);\n\
        int f(int a) { A guard; return g(a) + x + y + z[a] + s[0]; }";
    let whole = object(Lang::Cpp, source, &["-O0"]);
    let mut number = 7u64;
    let mut next = || {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (number >> 33) as usize
    };
    let (mut refused, mut linked) = (0, 0);
    for _ in 0..300 {
        let mut bytes = whole.clone();
        for _ in 0..1 + next() % 3 {
            let at = next() % bytes.len();
            bytes[at] = next() as u8;
        }
        let status = in_child(|| {
            let everything = Does(|question: Question| {
                let found = Definition { address: 0x7fff_0000_0000, function: true };
                let count = question.names().len();
                question.answer(&vec![Some(found); count]);
            });
            let unit = Session::new(Arc::new(everything)).unwrap().unit("u", &[]).unwrap();
            i32::from(unit.add_object("damaged.o", &bytes, None).is_ok_and(|part| part.link().is_ok()))
        });
        match status {
            0 => refused += 1,
            1 => linked += 1,
            _ => panic!("the child ended with {status}"),
        }
    }
    assert!(refused > 50 && linked > 50, "{refused} refused, {linked} linked");
}
