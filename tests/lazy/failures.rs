//! Functions that do not compile: the call is told, by name, and everything else goes on.

use crate::support::{End, Scratch, finish, hotbed};
use hotbed::{Runtime, Source};
use std::sync::{Arc, Mutex};

/// What only the code generator finds: the front end does not look into assembly.
const TEXT: &str = "__attribute__((noinline)) int bad(int x) { __asm__ volatile(\"no_such_instruction %0\" : \"+r\"(x)); return x; }\n\
                    int good(int x) { return x + 1; }\n\
                    int calls(int x) { return x ? bad(x) : good(x); }";

extern "C" fn replacement(x: i32) -> i32 {
    x * 7
}

#[test]
fn the_host_is_told_and_may_give_another() {
    for level in ["-O0", "-O2"] {
        let told: Arc<Mutex<Vec<(String, String, String)>>> = Arc::default();
        let seen = Arc::clone(&told);
        let runtime = Runtime::builder()
            .no_cache()
            .on_function_failure(move |failure| {
                let function = failure.function.name.clone();
                seen.lock().unwrap().push((failure.image.into(), function, failure.reason.into()));
                Some(replacement as *const () as usize)
            })
            .build()
            .unwrap();
        let unit = runtime.load(Source::text("bad.c", TEXT).flags([level]).named("unit").lazy()).unwrap();
        let call = |name: &str, x: i32| {
            // SAFETY: that is the type of all of them.
            let f = unsafe { unit.get::<unsafe extern "C" fn(i32) -> i32>(name) }.unwrap();
            // SAFETY: as above.
            unsafe { f(x) }
        };
        assert_eq!((call("calls", 0), call("calls", 3)), (1, 21), "{level}");
        // It is asked for again, and tells again.
        assert_eq!((call("bad", 4), call("good", 4)), (28, 5), "{level}");
        let told = told.lock().unwrap();
        assert_eq!(told.len(), 2, "{level}: {told:?}");
        for (image, function, reason) in told.iter() {
            assert_eq!((image.as_str(), function.as_str()), ("unit", "bad"), "{level}");
            assert!(reason.contains("no_such_instruction"), "{level}: {reason}");
        }
        unit.unload().unwrap();
    }
}

#[test]
fn without_a_host_the_program_ends_with_its_name() {
    let scratch = Scratch::new("lazy-failure");
    let main = format!(
        "{TEXT}\n#include <stdio.h>\nint main(int c, char **v) {{ printf(\"%d\\n\", good(1)); fflush(stdout); return bad(c); }}"
    );
    let source = scratch.write("bad.c", main);
    for round in ["cold", "warm"] {
        let mut command = hotbed(["run", "--lazy", "--cache-dir"]);
        let got = finish(command.arg(scratch.join("store")).arg(&source));
        assert_eq!((got.end, got.stdout.as_str()), (End::Signal(libc::SIGABRT), "2\n"), "{round}: {got:?}");
        let said = format!("hotbed: {}: cannot compile bad, which it calls: ", source.display());
        assert!(got.stderr.contains(&said), "{round}: {}", got.stderr);
        assert!(got.stderr.contains("no_such_instruction"), "{round}: {}", got.stderr);
    }
}
