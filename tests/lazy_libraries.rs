//! Lazy libraries: registered as source, compiled and loaded when something needs them, and not before.

mod found;
mod real;
mod threads;

use crate::support::Scratch;
use hotbed::{
    Error, Lang, Layer, Load, NamespaceOptions, Observer, Runtime, RuntimeBuilder, Source, Unit, Verdict,
};
use std::sync::{Arc, Mutex};

/// What was compiled, and what was said.
#[derive(Default)]
struct Log {
    compiled: Mutex<Vec<String>>,
    warnings: Mutex<Vec<String>>,
}

impl Observer for Log {
    fn compiling(&self, unit: &str) {
        self.compiled.lock().unwrap().push(unit.to_owned());
    }

    fn warning(&self, line: &str) {
        self.warnings.lock().unwrap().push(line.to_owned());
    }
}

impl Log {
    /// What was compiled since the last question.
    fn compiled(&self) -> Vec<String> {
        std::mem::take(&mut self.compiled.lock().unwrap())
    }

    /// What was warned of since then.
    fn warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.warnings.lock().unwrap())
    }
}

fn logged(builder: RuntimeBuilder) -> (Runtime, Arc<Log>) {
    let log = Arc::new(Log::default());
    (builder.observer(log.clone()).build().unwrap(), log)
}

/// A runtime without a store.
fn runtime() -> (Runtime, Arc<Log>) {
    logged(Runtime::builder().no_cache())
}

/// One whose store is in a folder.
fn stored(scratch: &Scratch) -> (Runtime, Arc<Log>) {
    logged(Runtime::builder().cache_dir(scratch.join("store")))
}

#[track_caller]
fn load(runtime: &Runtime, what: impl Into<Load>) -> Unit {
    runtime.load(what).unwrap_or_else(|error| panic!("{}", error.render()))
}

#[track_caller]
fn lazy(runtime: &Runtime, name: &str, text: &str) -> Unit {
    runtime.library(name).source_text(format!("{name}.c"), text).lazy().unwrap()
}

#[track_caller]
fn call(unit: &Unit, name: &str) -> i32 {
    // SAFETY: every function in these tests that is called so has this type.
    let function = unsafe { unit.get::<unsafe extern "C" fn() -> i32>(name) };
    let function = function.unwrap_or_else(|error| panic!("{}", error.render()));
    // SAFETY: as above.
    unsafe { function() }
}

/// A unit whose function `user` gives what `function` gives.
fn user(function: &str) -> Source {
    Source::text(
        format!("user of {function}.c"),
        format!("int {function}(void); int user(void) {{ return {function}(); }}"),
    )
}

#[test]
fn nothing_is_done_before_it_is_needed_and_then_once() {
    let (runtime, log) = runtime();
    let one =
        lazy(&runtime, "one", "static int n; int one(void) { return ++n; } int more(void) { return 10; }");
    let other = lazy(&runtime, "other", "int other(void) { return 2; }");
    assert!(one.is_waiting() && one.is_loaded() && one.exports().is_empty() && one.path().is_none());
    assert_eq!(one.report().counts.units_compiled, 0);
    load(&runtime, Source::text("plain.c", "int plain(void) { return 0; }"));
    assert_eq!(log.compiled(), ["plain.c"]);
    let first = load(&runtime, user("one"));
    assert_eq!(log.compiled(), ["user of one.c", "one"], "the other one does not mention it");
    assert!(!one.is_waiting() && other.is_waiting());
    assert_eq!((call(&first, "user"), call(&one, "one")), (1, 2));
    assert_eq!(one.report().counts.units_compiled, 1);
    let mut names = one.exports();
    names.sort();
    assert_eq!(names, ["more", "one"]);
    // It is there for others as any unit is.
    let second = load(&runtime, user("more"));
    assert_eq!(call(&second, "user"), 10);
    // Its own unit can be asked, whatever waits besides.
    assert_eq!(call(&other, "other"), 2);
    assert_eq!(log.compiled(), ["user of more.c", "other"]);
    assert_eq!(runtime.functions_compiled(), 3, "they are lazy too");
    assert!(log.warnings().is_empty());
}

#[test]
fn handles_names_and_unloading() {
    let scratch = Scratch::new("lazy-libraries-names");
    let (runtime, log) = runtime();
    let source = scratch.write("file.c", "int from_file(void) { return 5; }");
    drop(runtime.library("file").source(&source).flags(["-O1"]).lazy().unwrap());
    let file = runtime.unit("file").unwrap();
    assert!(file.is_waiting());
    // The same again is the same, other content is not.
    runtime.library("file").source(&source).flags(["-O1"]).lazy().unwrap();
    let error = runtime.library("file").source(&source).lazy().unwrap_err();
    assert!(matches!(error, Error::NameTaken { .. }), "{error}");
    assert!(runtime.load(Source::file(&source).named("file")).is_err());
    assert!(runtime.library("").source(&source).lazy().unwrap_err().is_usage());
    assert!(runtime.library("empty").lazy().unwrap_err().is_usage());
    assert!(runtime.library("odd").source_text("odd", "int x;").lazy().unwrap_err().is_usage());
    let error = runtime.library("gone").source(scratch.join("gone.c")).lazy().unwrap_err();
    assert!(matches!(error, Error::Read { .. }) && error.to_string().contains("gone.c"), "{error}");
    assert_eq!(runtime.units().len(), 1);
    // Unloaded as long as it waits, it is not there any more.
    file.unload().unwrap();
    assert!(runtime.load(user("from_file")).is_err());
    assert_eq!(log.compiled(), ["user of from_file.c"]);
    // Once it is loaded, who is bound to it keeps it.
    let file = runtime.library("file").source(&source).lazy().unwrap();
    let bound = load(&runtime, user("from_file"));
    assert_eq!(call(&bound, "user"), 5);
    assert!(file.dependencies().iter().any(|dependency| format!("{dependency:?}").contains("file.c")));
    assert!(file.unload().unwrap_err().to_string().contains("user of from_file.c"));
    assert_eq!(call(&file, "from_file"), 5);
    bound.unload().unwrap();
    file.unload().unwrap();
    assert!(!file.is_loaded() && !file.is_waiting());
    assert!(runtime.load(user("from_file")).is_err());
}

#[test]
fn libraries_that_need_each_other_in_any_order_and_in_circles() {
    let even = "int odd(int n); int even(int n) { return n == 0 ? 1 : odd(n - 1); }";
    let odd = "int even(int n); int odd(int n) { return n == 0 ? 0 : even(n - 1); }";
    let top = "int even(int), odd(int), base(void); int top(void) { return even(6) + 2 * odd(3) + base(); }";
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let (runtime, log) = runtime();
        for at in order {
            let (name, text) = [("even", even), ("odd", odd), ("top", top)][at];
            lazy(&runtime, name, text);
        }
        // It calls back whoever needs it.
        let text = "int top(void); int base(void) { return 40; } int user(void) { return top(); }";
        assert_eq!(call(&load(&runtime, Source::text("user.c", text)), "user"), 43, "{order:?}");
        let mut compiled = log.compiled();
        compiled.sort();
        assert_eq!(compiled, ["even", "odd", "top", "user.c"], "{order:?}");
        assert!(runtime.units().iter().all(|unit| !unit.is_waiting()));
    }
}

#[test]
fn a_library_that_does_not_have_it_is_not_loaded() {
    let (runtime, log) = runtime();
    // It mentions the symbol in vain, and its constructor would be seen.
    let started = "#include <stdlib.h>\n__attribute__((constructor)) static void start(void) { abort(); }\n";
    let vain = lazy(
        &runtime,
        "vain",
        &format!("{started} int wanted(void); int of_vain(void) {{ return wanted() + 1; }}"),
    );
    for _ in 0..2 {
        let error = runtime.load(user("wanted")).unwrap_err().to_string();
        assert!(error.contains("unresolved symbol wanted") && error.contains("lazy libraries"), "{error}");
        assert!(vain.is_waiting());
    }
    assert_eq!(
        log.compiled(),
        ["user of wanted.c", "vain", "user of wanted.c"],
        "what it has is known by now"
    );
    // Known names are near misses.
    let error = runtime.load(user("of_viam")).unwrap_err().to_string();
    assert!(error.contains("did you mean of_vain?"), "{error}");
    assert_eq!(runtime.explain("of_viam").near, ["of_vain"]);
    // Nor has its own unit what it does not define.
    // SAFETY: never called.
    let error = unsafe { vain.get::<unsafe extern "C" fn()>("wanted") }.unwrap_err();
    assert!(matches!(error, Error::Get { .. }) && vain.is_waiting(), "{error}");
    // What needs it is not loaded when it lacks something itself.
    let error = runtime.load(user("of_vain")).unwrap_err().to_string();
    assert!(error.contains("unresolved symbol wanted, needed by vain"), "{error}");
    assert!(vain.is_waiting());
}

#[test]
fn declared_lists_are_believed_and_checked() {
    let (runtime, log) = runtime();
    let text = "int listed(void) { return 1; } int unlisted(void) { return 2; }";
    let library = runtime.library("list").source_text("list.c", text);
    let library = library.declares(["listed", "missing"]).lazy().unwrap();
    let mut names = library.exports();
    names.sort();
    assert_eq!(names, ["listed", "missing"]);
    // Nothing is compiled for what is not in the list.
    assert!(runtime.load(user("unlisted")).is_err());
    assert_eq!(log.compiled(), ["user of unlisted.c"]);
    // What is declared in vain is looked for elsewhere.
    let elsewhere = lazy(&runtime, "elsewhere", "int missing(void) { return 3; }");
    assert_eq!(call(&load(&runtime, user("missing")), "user"), 3);
    let warnings = log.warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("list: declared to have missing"), "{warnings:?}");
    assert!(library.is_waiting() && !elsewhere.is_waiting());
    // Its unit has all that it defines; and so have others once it is there.
    assert_eq!(call(&load(&runtime, user("listed")), "user"), 1);
    assert_eq!(call(&library, "unlisted"), 2);
    assert_eq!(call(&load(&runtime, user("unlisted")), "user"), 2);
}

#[test]
fn of_several_the_first_that_mentions_it_counts_cold_and_warm() {
    let scratch = Scratch::new("lazy-libraries-several");
    scratch.write("hidden.h", "int both(void) { return 3; }");
    let include = format!("#include \"{}\"\n", scratch.join("hidden.h").display());
    for round in ["cold", "warm"] {
        let (runtime, log) = stored(&scratch);
        // It has the symbol, and does not say so in its own text.
        let quiet = lazy(&runtime, "quiet", &format!("{include} int quiet(void) {{ return 0; }}"));
        let first = lazy(&runtime, "first", "int both(void) { return 1; }");
        let second = lazy(&runtime, "second", "int both(void) { return 2; } int also(void) { return 20; }");
        assert_eq!(call(&load(&runtime, user("both")), "user"), 1, "{round}");
        assert!(!first.is_waiting() && second.is_waiting() && quiet.is_waiting());
        let warnings = log.warnings();
        let compiled = log.compiled();
        if round == "cold" {
            assert_eq!(compiled, ["user of both.c", "first"]);
            assert!(warnings.is_empty(), "{warnings:?}");
            // Only now they are known to have it.
            assert_eq!((call(&second, "also"), call(&quiet, "quiet")), (20, 0));
        } else {
            assert!(compiled.is_empty(), "{compiled:?}");
            let want = "several libraries have both: taken is first; also in second, quiet";
            assert_eq!(warnings, [want]);
        }
    }
}

#[test]
fn what_does_not_compile_is_the_error_of_who_needs_it() {
    let (runtime, log) = runtime();
    let broken = lazy(&runtime, "broken", "int of_broken(void) { return undeclared; }\n");
    let error = runtime.load(user("of_broken")).unwrap_err();
    let Error::Needed { unit, symbol, library, .. } = &error else { panic!("{error}") };
    assert_eq!((&**unit, &**symbol, &**library), ("user of of_broken.c", "of_broken", "broken"));
    assert_eq!(error.diagnostics().len(), 1, "{error:?}");
    assert!(error.render().contains("broken.c:1:30: error: "), "{}", error.render());
    assert!(
        error.to_string().starts_with("cannot load broken for `of_broken`, needed by user of of_broken.c: ")
    );
    // SAFETY: never called.
    let error = unsafe { broken.get::<unsafe extern "C" fn()>("of_broken") }.unwrap_err();
    assert!(matches!(error, Error::Compile { .. }), "{error}");
    let said = runtime.explain("of_broken").to_string();
    assert!(said.contains("broken may have it: cannot compile") && said.contains("nobody has"), "{said}");
    assert!(broken.is_waiting());
    // Where somebody else has it, that is a warning.
    lazy(&runtime, "sound", "int of_sound(void) { return 4; }");
    lazy(&runtime, "mentions", "int of_sound(void) { return of_mentions; }");
    runtime.unit("mentions").unwrap().unload().unwrap();
    assert_eq!(call(&load(&runtime, user("of_sound")), "user"), 4);
    assert!(log.warnings().is_empty());
    runtime.library("worse").source_text("worse.c", "of_third").lazy().unwrap();
    lazy(&runtime, "third", "int of_third(void) { return 5; }");
    assert_eq!(call(&load(&runtime, user("of_third")), "user"), 5);
    let warnings = log.warnings();
    assert!(warnings.len() == 1 && warnings[0].starts_with("worse: "), "{warnings:?}");
}

#[test]
fn explanations_before_and_after_cold_and_warm() {
    let scratch = Scratch::new("lazy-libraries-explain");
    let explain = || {
        let (runtime, _) = stored(&scratch);
        lazy(&runtime, "first", "int thing(void) { return 1; }");
        lazy(&runtime, "second", "int thing = 2;");
        let declares = runtime.library("list").source_text("list.c", "int getpid(void) { return 1; }");
        declares.declares(["getpid"]).lazy().unwrap();
        let before = runtime.explain("thing");
        assert!(runtime.units().iter().all(Unit::is_waiting));
        let (asked, answer) = before.winner().unwrap();
        assert_eq!((asked.layer, &*answer.unit), (Layer::Archives, "first"));
        assert_eq!(asked.answers[1].verdict, Verdict::Shadowed);
        assert_eq!(asked.answers[1].unit, "second");
        let text = before.to_string();
        assert!(text.contains("(would be loaded)"), "{text}");
        assert!(
            text.ends_with("thing is from first, archives, lazy libraries: first in the order that has it"),
            "{text}"
        );
        // The process has it, and is asked before.
        let process = runtime.explain("getpid");
        assert_eq!(process.winner().unwrap().0.layer, Layer::Process);
        assert!(process.to_string().contains("list: function: shadowed"), "{process}");
        load(&runtime, user("thing"));
        let after = runtime.explain("thing");
        assert_eq!(
            (after.winner().unwrap().0.layer, &*after.winner().unwrap().1.unit),
            (Layer::Images, "first")
        );
        [text, process.to_string(), after.to_string()]
    };
    assert_eq!(explain(), explain());
}

#[test]
fn namespaces_have_libraries_of_their_own() {
    let (runtime, _) = runtime();
    let space = |name: &str| runtime.namespace(NamespaceOptions::new(name)).unwrap();
    let (one, two) = (space("one"), space("two"));
    let top = runtime.namespace(NamespaceOptions::new("top").link(&two)).unwrap();
    for (space, version) in [(&one, 1), (&two, 2)] {
        let text = format!("int helper(void); int version(void) {{ return {version} + helper(); }}");
        runtime.library("lib").source_text("lib.c", text).namespace(space).lazy().unwrap();
        let text = format!("int helper(void) {{ return 10 * {version}; }}");
        runtime.library("helper").source_text("helper.c", text).namespace(space).lazy().unwrap();
    }
    assert!(runtime.load(user("version")).is_err(), "the default one sees neither");
    assert_eq!(call(&load(&runtime, user("version").namespace(&one)), "user"), 11);
    assert!(runtime.unit_in(&two, "lib").unwrap().is_waiting());
    assert_eq!(call(&load(&runtime, user("version").namespace(&top)), "user"), 22);
    assert_eq!(runtime.unit_in(&two, "helper").unwrap().namespace().name(), "two");
    // Also for who asks at run time.
    runtime
        .library("late")
        .source_text("late.c", "int late(void) { return 9; }")
        .namespace(&two)
        .lazy()
        .unwrap();
    let text = "#include <dlfcn.h>\nint user(void) { int (*f)(void) = dlsym(RTLD_DEFAULT, \"late\"); return f ? f() : -1; }";
    assert_eq!(call(&load(&runtime, Source::text("a.c", text).namespace(&one)), "user"), -1);
    assert_eq!(call(&load(&runtime, Source::text("a.c", text).namespace(&top)), "user"), 9);
}

#[test]
fn in_a_worker_too() {
    let (runtime, log) = logged(Runtime::builder().no_cache().isolation(hotbed::Isolation::Process));
    lazy(&runtime, "lib", "int lib(void) { return 7; }");
    assert_eq!(call(&load(&runtime, user("lib")), "user"), 7);
    assert_eq!(log.compiled(), ["user of lib.c", "lib"]);
    lazy(&runtime, "broken", "int broken(void) { return undeclared; }");
    assert!(matches!(runtime.load(user("broken")).unwrap_err(), Error::Needed { .. }));
}
