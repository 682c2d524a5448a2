//! What ordinary libraries and the C library's own look-ups see of units, against the executable that clang makes of the
//! same program: definitions that a library refers to or that replace its own, `dladdr` and its relatives.

use crate::support::{Child, Outcome, Scratch, clang, clangxx, finish, hotbed, shared_library, task};
use hotbed::{Runtime, SharedLibrary, Source};
use std::ffi::c_int;
use std::path::{Path, PathBuf};

/// Cold and warm, the command says what the executable says.
#[track_caller]
fn check(scratch: &Scratch, want: &Outcome, flags: &[&str], files: &[&Path]) {
    let store = scratch.join(format!("store{}", flags.concat().replace('/', "_")));
    for round in ["cold", "warm"] {
        let mut command = hotbed(["run", "--cache-dir"]);
        let got = finish(command.arg(&store).arg("-w").args(flags).args(files).current_dir(scratch.path()));
        got.assert_same(want, &format!("{flags:?} {round}"));
    }
}

#[track_caller]
fn executable(scratch: &Scratch, flags: &[&str], files: &[&Path]) -> Outcome {
    let path = scratch.join("executable");
    let cpp = files.iter().any(|file| file.extension().is_some_and(|suffix| suffix == "cpp"));
    let arguments = ["-w", "-o", path.to_str().unwrap()];
    let files = files.iter().map(|file| file.to_str().unwrap());
    let all = arguments.into_iter().chain(files).chain(flags.iter().copied());
    if cpp {
        clangxx(all)
    } else {
        clang(all)
    }
    finish(std::process::Command::new(path).current_dir(scratch.path()))
}

/// Whatever the C++ library gives to the program, and takes from it, goes through the program's own functions.
const OWN_MEMORY: &str = r#"
#include <cstdio>
#include <cstdlib>
#include <algorithm>
#include <filesystem>
#include <functional>
#include <future>
#include <iostream>
#include <locale>
#include <memory>
#include <new>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>
#include <atomic>
static std::atomic<long> given, back;
struct alignas(16) Head { Head *self; std::size_t size; };
void *operator new(std::size_t n) { auto *h = static_cast<Head *>(std::malloc(n + sizeof(Head))); if (!h) throw std::bad_alloc(); h->self = h; h->size = n; ++given; return h + 1; }
void operator delete(void *p) noexcept { if (!p) return; auto *h = static_cast<Head *>(p) - 1; if (h->self != h) { std::puts("a block of somebody else's"); std::abort(); } h->self = nullptr; ++back; std::free(h); }
void operator delete(void *p, std::size_t) noexcept { operator delete(p); }
static long threads() { std::vector<std::thread> all; std::atomic<long> sum{0}; for (int i = 0; i < 4; i++) all.emplace_back([&, i] { std::string s(100 + i, 'x'); s += s; sum += s.size(); }); for (auto &t : all) t.join(); return sum; }
int main() {
  std::ios::sync_with_stdio(false);
  std::printf("%ld\n", threads());
  std::printf("%d\n", std::async(std::launch::async, [] { return (int)std::string(50, 'a').size(); }).get());
  { std::ostringstream s; s.imbue(std::locale::classic()); for (int i = 0; i < 100; i++) s << std::string(40, 'l') << i << ' ' << 1.5 * i; std::printf("%zu\n", s.str().size()); }
  { std::string text = "words of many lengths, which are all found by an expression"; std::regex e("[a-z]+"); auto n = std::distance(std::sregex_iterator(text.begin(), text.end(), e), std::sregex_iterator()); std::printf("%ld\n", (long)n); }
  { std::filesystem::path p = "/a/very/long/path/with/many/parts/in/it/and/a/name.txt"; std::string all; for (auto &part : p) all += part.string() + "|"; std::printf("%s\n", all.c_str()); }
  try { throw std::runtime_error(std::string(200, 'e')); } catch (const std::exception &e) { std::printf("%zu\n", std::string(e.what()).size()); }
  { std::shared_ptr<std::function<int()>> f = std::make_shared<std::function<int()>>([v = std::vector<int>(100, 1)] { return (int)v.size(); }); std::printf("%d\n", (*f)()); }
  std::cout << std::string(3000, 'c').size() << std::endl;
  std::printf("%d %d\n", given > 100, given - back <= 8);
}
"#;

#[test]
fn a_program_with_an_operator_new_of_its_own() {
    let scratch = Scratch::new("own-operator-new");
    let source = scratch.write("own.cpp", OWN_MEMORY);
    for level in ["-O0", "-O1", "-O2"] {
        let want = executable(&scratch, &[level, "-std=c++17", "-lpthread"], &[&source]);
        check(&scratch, &want, &[level, "-std=c++17", "-lpthread"], &[&source]);
    }
}

/// Both functions of a library and the program's own, in the order of calls; the library is opened before the program is.
#[test]
fn a_library_on_the_command_line_is_bound_to_the_program() {
    let scratch = Scratch::new("bound-to-the-program");
    let helper = scratch.write(
        "helper.c",
        "#include <stdio.h>\nint answer(void); extern int shared_count; extern void (*hook)(const char *);\n\
         void report(const char *text) { printf(\"the library's: %s\\n\", text); }\n\
         __attribute__((constructor)) static void begin(void) { report(\"begin\"); }\n\
         int ask(void) { report(\"ask\"); shared_count += 5; hook(\"hook\"); return answer(); }",
    );
    let library = shared_library(&helper, &["-fsemantic-interposition"]);
    let program = scratch.write(
        "program.c",
        "#include <stdio.h>\n#include <stdlib.h>\nint shared_count = 1; int ask(void);\n\
         void report(const char *text) { char *copy = malloc(50); sprintf(copy, \"the program's: %s\", text); puts(copy); free(copy); }\n\
         void (*hook)(const char *) = report; int answer(void) { return 40; }\n\
         int main(void) { int n = ask(); printf(\"%d %d\\n\", n, shared_count); return n; }",
    );
    let rpath = format!("-Wl,-rpath,{}", scratch.path().display());
    let link = [&*format!("-L{}", scratch.path().display()), "-lhelper", &rpath];
    let want = executable(&scratch, &link, &[&program]);
    assert!(want.stdout.starts_with("the program's: begin"), "{want:?}");
    check(&scratch, &want, &link, &[&program]);
    assert!(library.exists());
}

/// A library that opens plugins itself: what they need of the program is there when the program exports everything.
#[test]
fn everything_is_exported_when_the_linker_is_told_so() {
    let scratch = Scratch::new("rdynamic");
    let opener = scratch.write(
        "opener.c",
        "#include <dlfcn.h>\n#include <stdio.h>\nint open_it(const char *path) { void *h = dlopen(path, RTLD_NOW); if (!h) { puts(\"cannot\"); return -1; }\n\
         int (*f)(void) = (int (*)(void))dlsym(h, \"plugged\"); int *seen = dlsym(RTLD_DEFAULT, \"program_value\"); printf(\"%d\\n\", seen && ++*seen); return f(); }",
    );
    shared_library(&opener, &[]);
    let plugin = scratch.write(
        "plugin.c",
        "int program_function(int); extern int program_value; int plugged(void) { return program_function(program_value); }",
    );
    shared_library(&plugin, &[]);
    let program = scratch.write(
        "program.c",
        "#include <stdio.h>\nint open_it(const char *); int program_value = 5; int program_function(int n) { return 2 * n; }\n\
         int main(void) { printf(\"%d\\n\", open_it(\"./libplugin.so\")); return 0; }",
    );
    let rpath = format!("-Wl,-rpath,{}", scratch.path().display());
    let folder = format!("-L{}", scratch.path().display());
    let link = ["-rdynamic", &*folder, "-lopener", &rpath];
    let want = executable(&scratch, &link, &[&program]);
    assert_eq!(want.stdout, "1\n12\n");
    check(&scratch, &want, &link, &[&program]);
    // And not otherwise.
    let want = executable(&scratch, &link[1..], &[&program]);
    check(&scratch, &want, &link[1..], &[&program]);
}

const FOUND: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <execinfo.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
__attribute__((noinline)) int landmark(int n) {
  void *frames[32]; int count = backtrace(frames, 32), mine = 0;
  char **names = backtrace_symbols(frames, count);
  for (int i = 0; i < count; i++) { Dl_info d; if (dladdr(frames[i], &d) && d.dli_sname) mine += !strcmp(d.dli_sname, "landmark") + 10 * !strcmp(d.dli_sname, "main") + 100 * !strcmp(d.dli_sname, "thread");
    mine += 1000 * (strstr(names[i], "(landmark+") != 0); }
  free(names); return mine + n;
}
void *thread(void *n) { return (void *)(long)landmark((int)(long)n); }
int main(int argc, char **argv) {
  Dl_info d; dladdr((void *)landmark, &d); printf("%s %d\n", d.dli_sname, strcmp(d.dli_fname, argv[0]) == 0);
  printf("%d\n", landmark(0)); pthread_t t; void *r; pthread_create(&t, 0, thread, (void *)1); pthread_join(t, &r); printf("%ld\n", (long)r);
  void *self = dlopen(0, RTLD_NOW); int (*f)(int) = (int (*)(int))dlsym(self, "landmark"); printf("%d %d\n", f == landmark, f(5));
  printf("%d\n", dlsym(RTLD_NEXT, "landmark") == 0); puts(strstr(dlerror(), "undefined"));
  return 0;
}
"#;

#[test]
fn a_program_finds_its_own_functions() {
    let scratch = Scratch::new("finds-its-own");
    let source = scratch.write("found.c", FOUND);
    for level in ["-O0", "-O2"] {
        let flags = [level, "-rdynamic", "-fno-optimize-sibling-calls", "-lpthread"];
        let want = executable(&scratch, &flags, &[&source]);
        check(&scratch, &want, &flags, &[&source]);
    }
}

fn lua_files() -> (PathBuf, Vec<PathBuf>) {
    let inputs = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/inputs");
    let text = std::fs::read_to_string(inputs.join("lua.files")).unwrap();
    let files: Vec<PathBuf> = text.lines().map(PathBuf::from).collect();
    (files[0].parent().unwrap().to_owned(), files)
}

const MODULE: &str = r#"
#include "lua.h"
#include "lauxlib.h"
static int add(lua_State *l) { lua_pushinteger(l, luaL_checkinteger(l, 1) + luaL_checkinteger(l, 2)); return 1; }
static int deep(lua_State *l) { return luaL_error(l, "from %s", "the module"); }
int luaopen_mod(lua_State *l) { static const luaL_Reg f[] = {{"add", add}, {"deep", deep}, {0, 0}}; luaL_newlib(l, f); return 1; }
"#;
const SCRIPT: &str = r#"
#include <stdio.h>
#include "lua.h"
#include "lauxlib.h"
#include "lualib.h"
int script(lua_CFunction module) {
  lua_State *l = luaL_newstate(); luaL_openlibs(l);
  if (module) { luaL_requiref(l, "mod", module, 0); lua_pop(l, 1); }
  int e = luaL_dostring(l, "package.cpath = './?.so' local m = require 'mod' print(m.add(40, 2), pcall(m.deep))");
  if (e) puts(lua_tostring(l, -1));
  lua_close(l); fflush(stdout); return e;
}
int main(void) { return script(0); }
"#;

/// Lua is a unit, and `require` opens a module that calls it.
#[test]
fn lua_opens_a_module_that_is_an_ordinary_library() {
    let scratch = Scratch::new("lua-module");
    let (folder, files) = lua_files();
    let include = format!("-I{}", folder.display());
    let module = shared_library(&scratch.write("mod.c", MODULE), &[&include]);
    std::fs::rename(module, scratch.join("mod.so")).unwrap();
    let host = scratch.write("script.c", SCRIPT);
    let mut all: Vec<&Path> = vec![&host];
    all.extend(files.iter().map(PathBuf::as_path));
    let flags = ["-rdynamic", "-DLUA_USE_LINUX", &include, "-lm"];
    let want = executable(&scratch, &flags, &all);
    assert!(want.stdout.starts_with("42\tfalse"), "{want:?}");
    check(&scratch, &want, &flags, &all);

    let got = Child::new("seen::child", "lua").env("HOTBED_TEST_FOLDER", scratch.path()).succeed();
    assert!(got.contains(&want.stdout), "{got}");
    assert!(got.contains("mod.so is bound to it"), "{got}");
    assert!(got.ends_with("unloaded\n"), "{got}");
}

/// A host that has Lua as a unit and opens the module itself.
#[test]
fn child() {
    let Some(_task) = task() else { return };
    let folder = PathBuf::from(std::env::var_os("HOTBED_TEST_FOLDER").unwrap());
    let runtime = Runtime::builder().cache_dir(folder.join("host-store")).build().unwrap();
    let (include, files) = lua_files();
    let flags = ["-w".into(), "-DLUA_USE_LINUX".into(), format!("-I{}", include.display()), "-lm".into()];
    let module = SharedLibrary::path(folder.join("mod.so"));
    assert!(runtime.load(module.clone()).is_err(), "nobody has what it needs");
    let lua = runtime.load(Source::files(files).flags(&flags).named("lua")).unwrap();
    let script = runtime.load(Source::file(folder.join("script.c")).flags(&flags)).unwrap();
    let module = runtime.load(module).unwrap();
    {
        // SAFETY: the functions' types.
        let (open, script) = unsafe {
            (
                module.get::<*const std::ffi::c_void>("luaopen_mod").unwrap(),
                script.get::<unsafe extern "C" fn(*const std::ffi::c_void) -> c_int>("script").unwrap(),
            )
        };
        // SAFETY: as above.
        assert_eq!(unsafe { script(*open) }, 0);
    }
    script.unload().unwrap();
    println!("{}", lua.unload().unwrap_err());
    module.unload().unwrap();
    lua.unload().unwrap();
    println!("unloaded");
}

#[test]
fn an_allocator_that_comes_too_late_is_told() {
    let scratch = Scratch::new("own-malloc");
    let source = scratch.write(
        "own.c",
        "#include <stddef.h>\nstatic char pool[1 << 16]; static size_t used;\n\
         void *malloc(size_t n) { void *p = pool + used; used += (n + 15) & ~15ul; return p; } void free(void *p) {}\n\
         int main(void) { int *p = malloc(4); *p = 3; int r = *p + ((char *)p < pool); free(p); return r; }",
    );
    let got = finish(hotbed(["run", "--no-cache", "-w", "-fno-builtin"]).arg(&source));
    assert_eq!(got.end, crate::support::End::Status(3), "{got:?}");
    assert!(got.stderr.contains("warning: ") && got.stderr.contains("replaces malloc, free"), "{got:?}");
}
