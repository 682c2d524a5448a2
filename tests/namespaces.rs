//! Namespaces: what is apart, what is seen through a link, and other orders of search.

use crate::support::{Scratch, archive, object, shared_library};
use hotbed::{Archive, Layer, Load, Namespace, NamespaceOptions, Runtime, SharedLibrary, Source, Unit};

fn call(unit: &Unit, name: &str) -> i32 {
    // SAFETY: every function in these tests that is called so has this type.
    let function = unsafe { unit.get::<unsafe extern "C" fn() -> i32>(name) };
    let function = function.unwrap_or_else(|error| panic!("{}", error.render()));
    // SAFETY: as above.
    unsafe { function() }
}

fn runtime() -> Runtime {
    Runtime::builder().no_cache().build().unwrap()
}

fn namespace(runtime: &Runtime, options: NamespaceOptions) -> Namespace {
    runtime.namespace(options).unwrap_or_else(|error| panic!("{}", error.render()))
}

#[track_caller]
fn load(runtime: &Runtime, what: impl Into<Load>) -> Unit {
    runtime.load(what).unwrap_or_else(|error| panic!("{}", error.render()))
}

const USER: &str = "int version(void); int user(void) { return 100 + version(); }";

/// A library of that version, C++ with a variable and a type that would be one in one namespace.
fn library(version: i32) -> Source {
    let text = format!(
        "inline int calls = {version}; struct Base {{ virtual ~Base() = default; }};\n\
         template <class T> struct Kind : Base {{ static int value; }};\n\
         template <class T> int Kind<T>::value = {version};\n\
         extern \"C\" int version() {{ return Kind<int>::value * 10 + calls; }}"
    );
    Source::text("library.cpp", text)
}

#[test]
fn two_versions_of_a_library_each_with_its_user() {
    let runtime = runtime();
    let spaces = ["v1", "v2"].map(|name| namespace(&runtime, NamespaceOptions::new(name)));
    for (space, version) in spaces.iter().zip(1..) {
        // Each name is used twice, once in each of them; the user comes before its library.
        let both =
            [Source::text("user.c", USER).namespace(space).into(), library(version).namespace(space).into()];
        let units = runtime.load_all(both).unwrap_or_else(|error| panic!("{}", error.render()));
        assert_eq!(units[0].namespace(), space);
        assert_eq!(units[0].namespace().name(), format!("v{version}"));
    }
    for (space, want) in spaces.iter().zip([111, 122]) {
        assert_eq!(call(&runtime.unit_in(space, "user.c").unwrap(), "user"), want);
    }
    // Nobody else sees either.
    assert!(runtime.unit("user.c").is_none());
    assert!(runtime.load(Source::text("user.c", USER)).is_err());
    load(&runtime, library(3));
    assert_eq!(call(&load(&runtime, Source::text("user.c", USER)), "user"), 133);
    assert_eq!(runtime.units().len(), 6);
    runtime.unit_in(&spaces[0], "user.c").unwrap().unload().unwrap();
    assert!(
        runtime.unit_in(&spaces[0], "user.c").is_none() && runtime.unit_in(&spaces[1], "user.c").is_some()
    );
}

#[test]
fn a_namespace_sees_those_that_it_links_to() {
    let scratch = Scratch::new("namespaces-link");
    let runtime = runtime();
    let base = namespace(&runtime, NamespaceOptions::new("base"));
    let top = namespace(&runtime, NamespaceOptions::new("top").link(&base));
    load(&runtime, library(4).namespace(&base));
    let user = load(&runtime, Source::text("user.c", USER).namespace(&top));
    assert_eq!(call(&user, "user"), 144);
    // Inline variables and template statics are one for all that see each other: first loaded wins.
    load(&runtime, library(5).namespace(&top));
    assert_eq!(call(&runtime.unit_in(&top, "library.cpp").unwrap(), "version"), 44);
    // Strong definitions of its own come first.
    let other = namespace(&runtime, NamespaceOptions::new("other").link(&base));
    load(&runtime, Source::text("own.c", "int version(void) { return 6; }").namespace(&other));
    assert_eq!(call(&load(&runtime, Source::text("user.c", USER).namespace(&other)), "user"), 106);
    // The link goes one way.
    load(&runtime, Source::text("only.c", "int only_in_top(void) { return 1; }").namespace(&top));
    let back = Source::text("back.c", "int only_in_top(void); int back(void) { return only_in_top(); }");
    assert!(runtime.load(back.namespace(&base)).is_err());
    // Archives are seen too, and their members belong to where the archive is.
    let made = object(&scratch.write("member.c", "int member(void) { return 9; }"), "o", &["-fPIC"]);
    let path = scratch.join("lib.a");
    archive(&path, &[&made]);
    let lib = load(&runtime, Archive::file(&path).namespace(&base));
    let text = "int member(void); int ask(void) { return member(); }";
    assert_eq!(call(&load(&runtime, Source::text("top.c", text).namespace(&top)), "ask"), 9);
    assert_eq!(call(&load(&runtime, Source::text("base.c", text).namespace(&base)), "ask"), 9);
    assert_eq!(lib.members(), ["member.o"]);
    // Not from the default one, which sees neither.
    assert!(runtime.load(Source::text("default.c", text)).is_err());
}

#[test]
fn the_order_of_search_is_that_of_the_namespace() {
    let scratch = Scratch::new("namespaces-order");
    let runtime = runtime();
    let own = shared_library(&scratch.write("who.c", "int who(void) { return 1; }"), &[]);
    load(&runtime, SharedLibrary::path(&own));
    let process_first =
        [Layer::Unit, Layer::Host, Layer::Process, Layer::Fresh, Layer::Images, Layer::Archives];
    let options = NamespaceOptions::new("process first").order(process_first);
    let first = namespace(&runtime, options);
    assert_eq!(first.order(), process_first);
    for (space, want) in [(runtime.default_namespace(), 2), (&first, 1)] {
        load(&runtime, Source::text("who.c", "int who(void) { return 2; }").namespace(space));
        let user = Source::text("user.c", "int who(void); int user(void) { return who(); }");
        assert_eq!(call(&load(&runtime, user.namespace(space)), "user"), want);
    }
    // A layer that is left out is not asked.
    let made = object(&scratch.write("member.c", "int member(void) { return 9; }"), "o", &["-fPIC"]);
    let path = scratch.join("lib.a");
    archive(&path, &[&made]);
    let order = [Layer::Unit, Layer::Images, Layer::Process];
    let without = namespace(&runtime, NamespaceOptions::new("no archives").order(order));
    load(&runtime, Archive::file(&path).namespace(&without));
    let user = Source::text("user.c", "int member(void); int user(void) { return member(); }");
    let error = runtime.load(user.namespace(&without)).unwrap_err().to_string();
    assert!(
        error.contains("member") && error.contains("asked: the unit itself, loaded images, the process"),
        "{error}"
    );
    let text = "#include <dlfcn.h>\nint looks(void) { return dlsym(RTLD_DEFAULT, \"member\") != 0; }";
    assert_eq!(call(&load(&runtime, Source::text("looks.c", text).namespace(&without)), "looks"), 0);
}

#[test]
fn namespaces_of_other_runtimes_are_refused() {
    let (one, other) = (runtime(), runtime());
    let space = namespace(&one, NamespaceOptions::new("one"));
    assert!(other.load(Source::text("a.c", "int a;").namespace(&space)).unwrap_err().is_usage());
    assert!(other.namespace(NamespaceOptions::new("x").link(&space)).unwrap_err().is_usage());
    let mixed =
        [Source::text("a.c", "int a;").into(), Source::text("b.c", "int b;").namespace(&space).into()];
    assert!(one.load_all(mixed).unwrap_err().is_usage());
    assert!(one.units().is_empty());
}
