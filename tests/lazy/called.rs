//! Traces against what the same program calls when clang has compiled it ahead of time (`-finstrument-functions`).

use super::trace::records;
use crate::libraries::Library;
use crate::support::{Scratch, execute, finish, hotbed};
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;

/// Notes every function at its first call, in a file of addresses.
const HOOKS: &str = r#"
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#define HIDDEN __attribute__((no_instrument_function))
static uintptr_t seen[1 << 16];
static int file = -1;
HIDDEN void __cyg_profile_func_enter(void *function, void *from) {
  uintptr_t at = ((uintptr_t)function * 0x9e3779b97f4a7c15u) >> 48;
  while (seen[at] && seen[at] != (uintptr_t)function) at = (at + 1) & 0xffff;
  if (seen[at]) return;
  seen[at] = (uintptr_t)function;
  if (file < 0) file = open(getenv("CALLED"), O_CREAT | O_WRONLY | O_APPEND, 0600);
  dprintf(file, "%lx\n", (unsigned long)function);
}
HIDDEN void __cyg_profile_func_exit(void *function, void *from) {}
"#;

/// The functions that an executable calls, in order, each by all names that it has.
fn called(
    scratch: &Scratch,
    compiler: &str,
    flags: &[String],
    files: &[PathBuf],
    libs: &[String],
) -> Vec<Vec<String>> {
    let hooks = scratch.write("hooks.c", HOOKS);
    let object = scratch.join("hooks.o");
    execute(Command::new("clang-22").args(["-O2", "-c"]).arg(hooks).arg("-o").arg(&object));
    let executable = scratch.join("instrumented");
    let mut command = Command::new(compiler);
    command.args(["-w", "-O0", "-no-pie", "-finstrument-functions"]).args(flags).args(files).arg(object);
    execute(command.args(libs).arg("-o").arg(&executable));
    let list = scratch.join("called");
    finish(Command::new(&executable).env("CALLED", &list)).assert_success("the instrumented program");
    let mut names: HashMap<u64, Vec<String>> = HashMap::new();
    let table = Command::new("nm").arg(&executable).output().unwrap().stdout;
    for line in String::from_utf8(table).unwrap().lines() {
        let mut fields = line.split_whitespace();
        if let (Some(address), Some(_), Some(name)) = (fields.next(), fields.next(), fields.next())
            && let Ok(address) = u64::from_str_radix(address, 16)
        {
            names.entry(address).or_default().push(name.to_owned());
        }
    }
    let lines = std::fs::read_to_string(list).unwrap();
    lines.lines().map(|line| names[&u64::from_str_radix(line, 16).unwrap()].clone()).collect()
}

/// What clang makes itself is not instrumented.
fn is_generated(name: &str) -> bool {
    ["__tls_init", "_GLOBAL__", "__cxx_global", "_ZTW", "_ZTH", "_ZTh", "_ZTv", "__clang_call_terminate"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

#[track_caller]
fn same(scratch: &Scratch, compiler: &str, flags: &[String], files: &[PathBuf], libs: &[String]) {
    let want = called(scratch, compiler, flags, files, libs);
    for level in ["-O0", "-O1"] {
        let trace = scratch.join(format!("trace{level}"));
        let mut command = hotbed(["run", "--no-cache", "-w", level, "--trace"]);
        finish(command.arg(&trace).args(flags).args(files).args(libs)).assert_success(level);
        let found: Vec<String> = records(&trace).into_iter().map(|record| record.function).collect();
        let found: Vec<&String> = found.iter().filter(|name| !is_generated(name)).collect();
        // The optimiser leaves out calls that do nothing.
        let mut expected =
            want.iter().filter(|names| level == "-O0" || found.iter().any(|one| names.contains(one)));
        for (at, one) in found.iter().enumerate() {
            let want = expected.next();
            assert!(
                want.is_some_and(|names| names.contains(one)),
                "{level}: call {at} is of {one}, not of {want:?}"
            );
        }
        assert_eq!(expected.next(), None, "{level}");
        assert!(found.len() > want.len() * 9 / 10, "{level}: {} of {}", found.len(), want.len());
    }
}

fn library(name: &str, more: &[&str]) {
    let scratch = Scratch::new(&format!("called-{name}"));
    let library = Library::find(name);
    let flags: Vec<String> = library.flags.iter().filter(|flag| *flag != "-O0").cloned().collect();
    let flags = [flags, more.iter().map(|&flag| flag.to_owned()).collect()].concat();
    let files = [library.files, vec![library.program]].concat();
    let libs = [library.libs, vec!["-lm".to_owned()]].concat();
    same(&scratch, "clang-22", &flags, &files, &libs);
}

#[test]
fn zlib() {
    library("zlib", &[]);
}

#[test]
fn lua() {
    // Otherwise addresses decide about the order in tables.
    library("lua", &["-Dluai_makeseed(L)=42"]);
}

/// It does without templates that libstdc++ has, too: the library's serve there, which nobody sees, and in an executable its
/// own.
#[test]
fn a_program_with_classes() {
    let text = r#"
#include <algorithm>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <vector>
struct Shape { Shape() { made++; } virtual ~Shape() { made--; } virtual double area() const = 0; static int made; };
int Shape::made = 0;
template <class T> struct Square final : Shape { T side; explicit Square(T s) : side(s) {} double area() const override { return double(side) * side; } };
struct Other { virtual ~Other() {} virtual int other() { return 1; } };
struct Both : Shape, Other { double area() const override { return 1; } int other() override { return 2; } };
static int fail(int x) { if (x > 2) throw std::runtime_error("too large"); return x; }
struct Guard { ~Guard() { std::puts("guard"); } };
static Guard global;
struct Word { const char *text = "word"; ~Word() { std::puts(text); } };
static thread_local Word word;
int main() {
  std::vector<std::unique_ptr<Shape>> shapes;
  for (int i = 1; i < 4; i++) shapes.push_back(std::make_unique<Square<int>>(i));
  shapes.push_back(std::make_unique<Square<float>>(0.5f));
  shapes.push_back(std::make_unique<Both>());
  std::sort(shapes.begin(), shapes.end(), [](auto &a, auto &b) { return a->area() > b->area(); });
  std::map<char, std::function<int(int)>> actions{{'f', fail}, {'t', [](int x) { return 2 * x; }}};
  int caught = 0;
  for (int i = 0; i < 5; i++) try { Guard local; caught += actions['f'](i); } catch (const std::exception &e) { caught += e.what()[0]; }
  Other *other = dynamic_cast<Other *>(shapes[2].get());
  std::printf("%d %d %zu %d %s\n", caught, actions['t'](4), shapes.size(), other ? other->other() : 0, word.text);
}
"#;
    let scratch = Scratch::new("called-classes");
    let source = scratch.write("classes.cpp", text);
    same(&scratch, "clang++-22", &[], &[source], &[]);
}
