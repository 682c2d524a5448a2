//! Sessions in a process that forks.

use super::*;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

unsafe extern "C" {
    fn fork() -> i32;
    fn waitpid(process: i32, status: *mut i32, options: i32) -> i32;
    fn _exit(status: i32) -> !;
    fn alarm(seconds: u32) -> u32;
}

/// Runs `run` in a child; its exit status.
pub(in crate::session) fn in_child(run: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child runs what the test gives and ends at once.
    unsafe {
        let child = fork();
        if child == 0 {
            alarm(20);
            _exit(catch_unwind(AssertUnwindSafe(run)).unwrap_or(255));
        }
        let mut status = 0;
        assert_eq!(waitpid(child, &raw mut status, 0), child);
        assert_eq!(status & 0x7f, 0, "the child ended by a signal");
        status >> 8
    }
}

fn counter(name: &str, value: i32) -> String {
    format!(
        "@count_{name} = global i32 {value}\ndefine i32 @{name}() {{\n %x = load i32, ptr @count_{name}\n %y = add i32 %x, 1\n \
         store i32 %y, ptr @count_{name}\n ret i32 %y\n}}"
    )
}

#[test]
fn parent_and_child_link_on_and_never_see_each_others_code_or_data() {
    let _forks = FORKS.write();
    let unit = session().unit("u", &[]).unwrap();
    let removed = add(&unit, &counter("removed", 5));
    add(&unit, &counter("before", 10));
    let before = look_up(&unit, "before");
    assert_eq!((call(before), call(look_up(&unit, "removed"))), (11, 6));
    let status = in_child(|| {
        assert_eq!(call(before), 12);
        removed.remove().unwrap();
        for number in 0..200 {
            let name = format!("child{number}");
            add(&unit, &counter(&name, 1000));
            assert_eq!(call(look_up(&unit, &name)), 1001);
        }
        assert_eq!(call(before), 13);
        in_child(|| {
            add(&unit, &counter("grandchild", 40));
            call(look_up(&unit, "grandchild"))
        })
    });
    assert_eq!(status, 41);
    assert_eq!(call(before), 12, "the child's data are its own");
    for number in 0..200 {
        let name = format!("parent{number}");
        add(&unit, &counter(&name, 2000));
        assert_eq!(call(look_up(&unit, &name)), 2001);
    }
    assert_eq!(call(before), 13);
}

#[test]
fn a_child_finds_no_lock_taken() {
    let _forks = FORKS.write();
    let session = session();
    let units: Vec<_> = (0..2).map(|_| session.unit("busy", &[]).unwrap()).collect();
    let ready = session.unit("ready", &[]).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for unit in &units {
            scope.spawn(|| {
                let code = bitcode(&counter("f", 1));
                while !stop.load(Ordering::Relaxed) {
                    let part = unit.add_bitcode("f", &code, &Codegen::default(), None).unwrap();
                    assert_eq!(call(look_up(unit, "f")), 2);
                    part.remove().unwrap();
                }
            });
        }
        let code = bitcode(&counter("g", 30));
        for _ in 0..20 {
            let status = in_child(|| {
                ready.add_bitcode("g", &code, &Codegen::default(), None).unwrap();
                call(look_up(&ready, "g"))
            });
            assert_eq!(status, 31);
            std::thread::sleep(Duration::from_millis(1));
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_fork_does_not_wait_for_answers() {
    let _forks = FORKS.write();
    let waiting: Arc<Mutex<Option<Question>>> = Arc::default();
    let host = Does({
        let waiting = waiting.clone();
        move |question| *waiting.lock() = Some(question)
    });
    let unit = Session::new(Arc::new(host)).unwrap().unit("u", &[]).unwrap();
    add(&unit, "declare i32 @needed()\ndefine i32 @f() { %x = call i32 @needed()\n ret i32 %x }");
    add(&unit, "define i32 @g() { ret i32 9 }");
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| call(look_up(&unit, "f")));
        while waiting.lock().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let start = Instant::now();
        assert_eq!(in_child(|| call(look_up(&unit, "g"))), 9);
        assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
        let function = Definition { address: super::seven as *const () as usize, function: true };
        waiting.lock().take().unwrap().answer(&[Some(function)]);
        assert_eq!(looking.join().unwrap(), 7);
    });
}
