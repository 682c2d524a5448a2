//! Images that are linked against other images: what they remember of them, how these come along, and who is refused.

use crate::support::{End, Scratch, clang, execute, finish, hotbed, shared_library, timing};
use hotbed::{Archive, Image, InterfaceKind, Ir, Layer, NamespaceOptions, Object, Runtime, Source, Unit};
use std::path::{Path, PathBuf};
use std::process::Command;

const CORE: &str = "#include <stdio.h>\nint table[4] = {1, 2, 3, 4}; __thread int own = 5; int area(int x) { return x * x; }\n\
    int unused(void) { return 0; } __attribute__((constructor)) static void begin(void) { table[0] += 10; }";
/// Its constructor sees what that of the other one has done.
const GAME: &str = "#include <stdio.h>\nextern int table[]; extern __thread int own; int area(int); static int seen;\n\
    __attribute__((constructor)) static void begin(void) { seen = table[0]; }\n\
    int game(void) { return area(3) + seen * 100 + own * 10000; }\n\
    int main(void) { printf(\"%d\\n\", game()); return 0; }";

fn runtime() -> Runtime {
    Runtime::builder().no_cache().build().unwrap()
}

/// Builds `core.hbi` of a source, and gives its path.
fn core(scratch: &Scratch, text: &str) -> PathBuf {
    let path = scratch.join("core.hbi");
    runtime().image(&path).unit(Source::text("core.c", text)).build().unwrap();
    path
}

/// Builds both, and gives the paths.
fn both(scratch: &Scratch) -> [PathBuf; 2] {
    let (core, game) = (core(scratch, CORE), scratch.join("game.hbi"));
    let builder = runtime();
    let builder = builder.image(&game).unit(Source::text("game.c", GAME));
    builder.dependency(Image::file(&core)).build().unwrap();
    [core, game]
}

fn call(unit: &Unit, name: &str) -> i32 {
    // SAFETY: the tests have functions of this type only.
    let function = unsafe { unit.get::<unsafe extern "C" fn() -> i32>(name) }.unwrap();
    // SAFETY: as above.
    unsafe { function() }
}

const ANSWER: i32 = 9 + 11 * 100 + 5 * 10000;

#[test]
fn the_command_links_against_images_and_brings_them_along() {
    let scratch = Scratch::new("dependencies-command");
    let (core, game) = (scratch.write("core.c", CORE), scratch.write("game.c", GAME));
    let build = |arguments: &[&Path]| {
        let mut command = hotbed(["image", "build", "--no-cache", "-o"]);
        finish(command.current_dir(scratch.path()).args(arguments)).assert_success("image build");
    };
    build(&[Path::new("core.hbi"), &core]);
    build(&[Path::new("game.hbi"), &game, Path::new("core.hbi")]);
    let dynamic = execute(Command::new("readelf").args(["-dW"]).arg(scratch.join("game.hbi"))).stdout;
    assert!(dynamic.contains("[core.hbi]") && dynamic.contains("[$ORIGIN]"), "{dynamic}");
    let elsewhere = scratch.folder("elsewhere");
    for store in [&["--no-cache"][..], &["--cache-dir", "store"], &["--cache-dir", "store"]] {
        let mut run = hotbed(["run", "--timings=json"]);
        let got = finish(run.current_dir(&elsewhere).args(store).arg("../game.hbi"));
        assert_eq!((got.end, got.stdout), (End::Status(0), format!("{ANSWER}\n")), "{}", got.stderr);
        assert_eq!(timing(&got.stderr, "backend_loaded"), "false");
    }
    // The system's own linkers know them for what they are.
    let user = scratch.write("user.c", "int game(void); int main(void) { return game() % 100; }");
    let rpath = format!("-Wl,-rpath,{}", scratch.path().display());
    let executable = scratch.join("user");
    clang([user.as_path(), &scratch.join("game.hbi"), rpath.as_ref(), "-o".as_ref(), &executable]);
    assert_eq!(finish(&mut Command::new(&executable)).end, End::Status(ANSWER % 100));
    let opener = "#include <dlfcn.h>\nint main(int c, char **v) { void *image = dlopen(v[1], RTLD_NOW); if (!image) return 1;\n\
                  return ((int (*)(void))dlsym(image, \"game\"))() % 100; }";
    clang([scratch.write("opener.c", opener).as_path(), "-o".as_ref(), &executable]);
    let got = finish(Command::new(&executable).arg(scratch.join("game.hbi")));
    assert_eq!(got.end, End::Status(ANSWER % 100));
    // Both are told by name, and so is what is used of the one by the other.
    let mut inspect = hotbed(["image", "inspect"]);
    let shown = finish(inspect.arg(scratch.join("game.hbi"))).assert_success("inspect").stdout;
    assert!(shown.contains("linked against (1)") && shown.contains("3 symbols used  core.hbi"), "{shown}");
}

#[test]
fn what_is_remembered_is_told() {
    let scratch = Scratch::new("dependencies-told");
    let [core, game] = both(&scratch).map(|path| Image::file(path).inspect().unwrap());
    let [dependency] = &game.dependencies[..] else { panic!("{:?}", game.dependencies) };
    assert_eq!((dependency.name.as_str(), dependency.interface), ("core.hbi", core.interface));
    let used = |name: &str| dependency.symbols.iter().find(|symbol| symbol.name == name);
    assert_eq!(used("area").map(|symbol| (symbol.kind, symbol.size)), Some((InterfaceKind::Function, 0)));
    assert_eq!(used("table").map(|symbol| (symbol.kind, symbol.size)), Some((InterfaceKind::Data, 16)));
    assert_eq!(used("own").map(|symbol| (symbol.kind, symbol.size)), Some((InterfaceKind::Tls, 4)));
    assert!(used("unused").is_none());
    assert!(core.dependencies.is_empty() && game.needed.contains(&"core.hbi".to_owned()));
    let import = game.imports.iter().find(|import| import.name == "area").unwrap();
    assert_eq!((import.layer, import.from.as_deref()), (Layer::Images, Some("core.hbi")));
    Image::file(scratch.join("game.hbi")).verify().unwrap();
}

#[test]
fn a_dependency_is_loaded_once_and_held() {
    let scratch = Scratch::new("dependencies-held");
    let [core, game] = both(&scratch);
    let host = runtime();
    let unit = host.load(Image::file(&game)).unwrap();
    assert_eq!(call(&unit, "game"), ANSWER);
    let names: Vec<String> = host.units().iter().map(|unit| unit.name().to_owned()).collect();
    assert_eq!(names, [game.to_str().unwrap(), core.to_str().unwrap()]);
    // It is a unit like any other.
    let other = host.load(Image::file(&core)).unwrap();
    assert_eq!(host.units().len(), 2);
    assert!(other.unload().unwrap_err().to_string().contains("game.hbi"));
    unit.unload().unwrap();
    other.unload().unwrap();

    // One that is loaded already, under another name and from memory, is the same image.
    let host = runtime();
    let bytes = [&core, &game].map(|path| std::fs::read(path).unwrap());
    let missing = host.load(Image::bytes("game", bytes[1].clone())).unwrap_err().to_string();
    assert!(missing.contains("cannot load game: it needs the image core.hbi"), "{missing}");
    host.load(Image::bytes("the core", bytes[0].clone())).unwrap();
    assert_eq!(call(&host.load(Image::file(&game)).unwrap(), "game"), ANSWER);
    assert_eq!(host.units().len(), 2);
    // Together, in any order.
    let host = runtime();
    let [one, two] = bytes;
    let units = host.load_all([Image::bytes("game", two).into(), Image::bytes("core", one).into()]).unwrap();
    assert_eq!((call(&units[0], "game"), units.len(), host.units().len()), (ANSWER, 2, 2));
    // Each namespace has its own.
    let space = host.namespace(NamespaceOptions::new("space")).unwrap();
    let own = host.load(Image::file(&game).namespace(&space)).unwrap();
    assert_eq!((call(&own, "game"), host.units().len()), (ANSWER, 4));
}

#[test]
fn a_dependency_that_looks_the_same_serves_whatever_is_inside() {
    let scratch = Scratch::new("dependencies-same");
    let [_, game] = both(&scratch);
    let store = scratch.join("store");
    let build = || {
        let host = Runtime::builder().cache_dir(&store).build().unwrap();
        let builder = host.image(&game).unit(Source::text("game.c", GAME));
        builder.dependency(Image::file(scratch.join("core.hbi"))).build().unwrap().from_store
    };
    assert!(!build() && build());
    core(&scratch, &CORE.replace("return x * x;", "return x * x * x;").replace("{1, 2", "{2, 2"));
    let host = runtime();
    assert_eq!(call(&host.load(Image::file(&game)).unwrap(), "game"), 27 + 12 * 100 + 5 * 10000);
    assert!(build(), "what is inside of a dependency is not what its users are made from");
    core(&scratch, &CORE.replace("int unused(void) { return 0; }", ""));
    assert!(!build());
}

/// A package with a header of its own, and one that uses both.
fn with_header(scratch: &Scratch) -> [PathBuf; 2] {
    scratch.write("core.h", "#pragma once\nint area(int);\ninline int scaled(int x) { return x * 10; }\n");
    let core = "#include \"core.h\"\nint area(int x) { return scaled(x) + x * x; }";
    let game = "#include \"core.h\"\n#include <cstdio>\nint main() { std::printf(\"%d\\n\", area(3) + scaled(1000)); }";
    [scratch.write("core.cpp", core), scratch.write("game.cpp", game)]
}

fn change(file: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(file, text.replace(from, to)).unwrap();
}

#[test]
fn a_changed_inline_body_is_compiled_again_by_all_who_include_it() {
    let scratch = Scratch::new("dependencies-inline");
    let [core, game] = with_header(&scratch);
    let build = |arguments: &[&Path]| {
        let mut command = hotbed(["image", "build", "--verbose", "--cache-dir", "store", "-o"]);
        let built = finish(command.current_dir(scratch.path()).args(arguments)).assert_success("image build");
        built.stderr.contains(": from the store")
    };
    let build_core = || build(&[Path::new("core.hbi"), &core]);
    let build_game = || build(&[Path::new("game.hbi"), &game, Path::new("core.hbi")]);
    // Linked against the image, as a package of its own and as a program that is run.
    let answers = || {
        let finish = |command: &mut Command| {
            let got = finish(command.current_dir(scratch.path())).assert_success("run");
            (got.stdout.trim().parse::<i32>().unwrap(), timing(&got.stderr, "units_compiled") == "0")
        };
        let run = || hotbed(["run", "--eager", "--timings=json", "--cache-dir", "store"]);
        (finish(run().arg("game.hbi")).0, finish(run().args(["core.hbi", "game.cpp"])))
    };
    assert!(!build_core() && !build_game());
    assert_eq!(answers(), (39 + 10_000, (39 + 10_000, false)));
    assert!(build_core() && build_game());
    // Inside of the dependency: its users stay as they are.
    change(&core, "x * x", "x * x * x");
    assert!(!build_core());
    assert_eq!(answers(), (57 + 10_000, (57 + 10_000, true)));
    assert!(build_game(), "the same interface");
    // In what both include.
    change(&scratch.join("core.h"), "x * 10", "x * 20");
    assert!(!build_core() && !build_game(), "another inline function");
    assert_eq!(answers(), (87 + 20_000, (87 + 20_000, false)));
    // Back again, all is in the store.
    change(&core, "x * x * x", "x * x");
    change(&scratch.join("core.h"), "x * 20", "x * 10");
    assert!(build_core() && build_game());
    assert_eq!(answers(), (39 + 10_000, (39 + 10_000, true)));
}

#[test]
fn a_dependency_that_looks_otherwise_is_refused() {
    let scratch = Scratch::new("dependencies-refused");
    let [path, game] = both(&scratch);
    let refused = |text: String| {
        core(&scratch, &text);
        let host = runtime();
        let error = host.load(Image::file(&game)).unwrap_err().to_string();
        assert!(host.units().is_empty());
        assert!(error.contains("game.hbi: ") && error.contains(path.to_str().unwrap()), "{error}");
        error
    };
    for (old, new, reason) in [
        ("int area(int x) { return x * x; }", "", "`area` is gone"),
        ("table[4]", "table[6]", "`table` has 24 bytes and had 16"),
        ("__thread int own", "int own", "`own` is a variable and was thread-local"),
        ("int unused(void) { return 0; }", "", "not in what it is known to use"),
    ] {
        let error = refused(CORE.replace(old, new));
        assert!(error.contains(reason), "{error}");
    }
    // As of one that is loaded.
    let host = runtime();
    host.load(Image::file(&path)).unwrap();
    assert!(host.load(Image::file(&game)).unwrap_err().to_string().contains("another interface"));
    let got = finish(hotbed(["run", "--no-cache"]).arg(&game));
    assert_eq!(got.end, End::Status(1));
    assert!(got.stderr.contains("game.hbi") && got.stderr.contains("core.hbi"), "{}", got.stderr);
    std::fs::write(&path, "no image").unwrap();
    let error = runtime().load(Image::file(&game)).unwrap_err().to_string();
    assert!(error.contains("core.hbi: not an ELF file"), "{error}");
    std::fs::remove_file(&path).unwrap();
    let error = runtime().load(Image::file(&game)).unwrap_err().to_string();
    assert!(error.contains("it needs the image core.hbi, which is not loaded"), "{error}");
}

#[test]
fn dependencies_have_dependencies_and_are_looked_for() {
    let scratch = Scratch::new("dependencies-chain");
    let text = |name: &str, uses: &str| {
        format!(
            "#include <stdio.h>\n__attribute__((constructor)) static void begin(void) {{ printf(\"{name} \"); fflush(stdout); }} {uses}"
        )
    };
    // The one in the middle refers to nothing of the first.
    let host = runtime();
    let unit = |name: &str, uses: &str| Source::text(format!("{name}.c"), text(name, uses));
    let path = |name: &str| scratch.join(format!("{name}.hbi"));
    host.image(path("first")).unit(unit("first", "int first(void) { return 40; }")).build().unwrap();
    let second = host.image(path("second")).unit(unit("second", "int second(void) { return 2; }"));
    second.dependency(Image::file(path("first"))).build().unwrap();
    let third = unit("third", "int first(void), second(void); int main(void) { return first() + second(); }");
    let third = host.image(path("third")).unit(third);
    let third = third.dependency(Image::file(path("second"))).dependency(Image::file(path("first")));
    third.build().unwrap();
    let run = |image: &Path, libraries: &Path| {
        let mut command = hotbed(["run", "--no-cache"]);
        finish(command.env("LD_LIBRARY_PATH", libraries).arg(image))
    };
    let got = run(&path("third"), Path::new(""));
    assert_eq!((got.end, got.stdout.as_str()), (End::Status(42), "first second third "), "{}", got.stderr);
    let moved = scratch.folder("moved").join("third.hbi");
    std::fs::rename(path("third"), &moved).unwrap();
    let got = run(&moved, Path::new(""));
    assert_eq!(got.end, End::Status(1));
    assert!(got.stderr.contains("it needs the image second.hbi"), "{}", got.stderr);
    let got = run(&moved, scratch.path());
    assert_eq!((got.end, got.stdout.as_str()), (End::Status(42), "first second third "), "{}", got.stderr);
}

#[test]
fn an_image_is_made_of_units_of_any_kind() {
    let scratch = Scratch::new("dependencies-mix");
    let core = core(&scratch, CORE);
    let object = |name: &str, text: &str| crate::support::object(&scratch.write(name, text), "o", &["-fPIC"]);
    let member = object("member.c", "int member(void) { return 1000; }");
    let unused = object("unused.c", "int never(void) { return 0; }");
    crate::support::archive(&scratch.join("parts.a"), &[&member, &unused]);
    let path = scratch.join("mix.hbi");
    let host = runtime();
    let text = "int area(int); int from_ir(void), in_object(void), member(void);
                int mix(void) { return area(2) + from_ir() + in_object() + member() + X; }";
    let image = host
        .image(&path)
        .unit(Source::text("mix.c", text).flags(["-DX=5", "-O1"]))
        .unit(Ir::text("i.ll", "define i32 @from_ir() { ret i32 10 }"))
        .unit(Object::file(object("o.c", "int in_object(void) { return 100; }")))
        .unit(Archive::file(scratch.join("parts.a")))
        .dependency(Image::bytes("core", std::fs::read(&core).unwrap()));
    let report = image.build().unwrap();
    assert_eq!((report.counts.units_compiled, report.counts.images_linked), (2, 1));
    assert_eq!(call(&host.load(Image::file(&path)).unwrap(), "mix"), 4 + 10 + 100 + 1000 + 5);
    let described = Image::file(&path).inspect().unwrap();
    assert_eq!(described.metadata.unit, "mix.c");
    assert!(!described.exports.iter().any(|export| export.name == "never"));
}

#[test]
fn only_images_are_linked_against() {
    let scratch = Scratch::new("dependencies-other");
    let core = core(&scratch, CORE);
    let library = shared_library(&scratch.write("plain.c", "int area(int x) { return x; }"), &[]);
    let mut damaged = std::fs::read(&core).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let host = runtime();
    for (image, reason) in [
        (Image::file(&library), "libplain.so: not an image written by Hotbed"),
        (Image::bytes("damaged", damaged), "damaged: damaged: the checksum does not match"),
        (Image::file("/nowhere.hbi"), "cannot read /nowhere.hbi"),
    ] {
        let path = scratch.join("game.hbi");
        let error = host.image(&path).unit(Source::text("game.c", GAME)).dependency(image).build();
        let error = error.unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        assert!(!path.exists());
    }
    let nothing = host.image(scratch.join("x.hbi")).dependency(Image::file(&core)).build().unwrap_err();
    assert!(nothing.is_usage() && nothing.to_string().contains("no input"), "{nothing}");
}
