//! What units are told about loaded code, beside what the same program is told as an executable.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failing test shall say where")]

use crate::Image;
use crate::testing::{Folder, call, call_address, load, loader};
use std::ffi::c_char;
use std::process::Command;
use std::sync::Arc;

/// A program whose `probe` writes what it sees into a buffer.
const SEEN: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <execinfo.h>
#include <link.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define SHOWN __attribute__((visibility("default"), noinline))
static char *out; static size_t left;
static void say(const char *format, ...) { va_list l; va_start(l, format); int n = vsnprintf(out, left, format, l); va_end(l); out += n; left -= n; }
SHOWN int landmark(int n) { return n * 7; }
int data_mark[5] = {1, 2, 3};
__thread int thread_mark = 5;
__attribute__((noinline)) static int hidden(int n) { return n * 3; }
int getppid_calls; pid_t getppid(void) { return -1; }

static void address(const char *what, const void *at) {
  Dl_info d; memset(&d, 0xff, sizeof d);
  if (!dladdr(at, &d)) { say("%s: none\n", what); return; }
  say("%s: %s +%ld in %d, above its base %d\n", what, d.dli_sname ? d.dli_sname : "-", d.dli_sname ? (long)((char *)at - (char *)d.dli_saddr) : 0, d.dli_fname && *d.dli_fname, (char *)at > (char *)d.dli_fbase);
}
static void more(void) {
  Dl_info d; const ElfW(Sym) *symbol = 0; struct link_map *map = 0;
  int a = dladdr1((void *)landmark, &d, (void **)&symbol, RTLD_DL_SYMENT), b = dladdr1((void *)landmark, &d, (void **)&map, RTLD_DL_LINKMAP);
  say("more: %d %d %d %d %d\n", a, b, symbol->st_size > 0, map->l_addr + symbol->st_value == (ElfW(Addr))landmark, map->l_ld->d_tag != 0);
}
static const char *reason(void) { const char *e = dlerror(); if (!e) return "none"; const char *c = strstr(e, ": "); return c ? c + 2 : e; }
static void names(void) {
  void *all = dlopen(0, RTLD_NOW);
  say("default: %d %d %d %d\n", dlsym(RTLD_DEFAULT, "landmark") == (void *)landmark, dlsym(RTLD_DEFAULT, "data_mark") == (void *)data_mark, dlsym(RTLD_DEFAULT, "thread_mark") == (void *)&thread_mark, dlsym(RTLD_DEFAULT, "printf") == (void *)printf);
  say("program: %d %d %d %d\n", all != 0, dlsym(all, "landmark") == (void *)landmark, dlsym(all, "thread_mark") == (void *)&thread_mark, dlsym(all, "puts") == (void *)puts);
  say("hidden: %d, %s, then %s\n", dlsym(RTLD_DEFAULT, "hidden") != 0, reason(), reason());
  say("missing in program: %d, %s\n", dlsym(all, "nobody_has_this") != 0, reason());
  say("version: %d %d\n", dlvsym(RTLD_DEFAULT, "printf", "GLIBC_2.2.5") == (void *)printf, dlvsym(RTLD_DEFAULT, "landmark", "V_7") == (void *)landmark);
  say("no version: %d, %s\n", dlvsym(RTLD_DEFAULT, "printf", "V_7") != 0, reason());
  pid_t (*next)(void) = (pid_t (*)(void))dlsym(RTLD_NEXT, "getppid");
  say("next: %d %d\n", next != getppid, next && next() > 0);
  say("not next: %d, %s\n", dlsym(RTLD_NEXT, "landmark") != 0, reason());
  void *m = dlopen("libm.so.6", RTLD_NOW | RTLD_NOLOAD); if (!m) m = dlopen("libm.so.6", RTLD_NOW); double (*root)(double) = (double (*)(double))dlsym(m, "sqrt");
  say("library: %g, %d, ", root(16.0), dlsym(m, "landmark") != 0); say("%s, ", strstr(reason(), "undefined")); say("%d\n", dlclose(m));
  say("no file: %d, %s\n", dlopen("./nobody.so", RTLD_NOW) != 0, reason());
  say("closed: %d\n", dlclose(all));
  dlsym(RTLD_DEFAULT, "first"); dlopen("./nobody.so", RTLD_NOW); say("latest: %s\n", reason());
  dlopen("./nobody.so", RTLD_NOW); dlsym(RTLD_DEFAULT, "second"); say("latest: %s, then %s\n", reason(), reason());
}
struct found { int code, local, template, named, kinds; unsigned long long adds; };
static int visit(struct dl_phdr_info *i, size_t size, void *data) {
  struct found *f = data; int here = 0;
  if (f->adds && f->adds != i->dlpi_adds) f->kinds |= 1 << 20;
  f->adds = i->dlpi_adds;
  for (int k = 0; k < i->dlpi_phnum; k++) {
    const ElfW(Phdr) *p = &i->dlpi_phdr[k]; char *start = (char *)i->dlpi_addr + p->p_vaddr;
    if (p->p_type == PT_LOAD && (char *)landmark >= start && (char *)landmark < start + p->p_memsz) { here = 1; f->code += p->p_flags == (PF_R | PF_X); }
  }
  if (here) for (int k = 0; k < i->dlpi_phnum; k++) {
    const ElfW(Phdr) *p = &i->dlpi_phdr[k]; char *block = i->dlpi_tls_data;
    if (p->p_type == PT_TLS) f->local += i->dlpi_tls_modid && block && (char *)&thread_mark >= block && (char *)&thread_mark < block + p->p_memsz, f->template += *(int *)((char *)i->dlpi_addr + p->p_vaddr);
    if (p->p_type == PT_DYNAMIC) f->kinds |= ((ElfW(Dyn) *)((char *)i->dlpi_addr + p->p_vaddr))->d_tag != 0;
    if (p->p_type == PT_GNU_EH_FRAME) f->kinds |= 2 * (*((char *)i->dlpi_addr + p->p_vaddr) == 1);
    if (p->p_type == PT_GNU_RELRO) f->kinds |= 4;
  }
  return 0;
}
static int stop(struct dl_phdr_info *i, size_t size, void *data) { return ++*(int *)data == 2 ? 17 : 0; }
static void list(void) {
  struct found f = {0}; thread_mark += 0; int count = 0, result = dl_iterate_phdr(visit, &f);
  say("list: %d, code %d, local %d, template %d, kinds %d\n", result, f.code, f.local, f.template, f.kinds);
  result = dl_iterate_phdr(stop, &count); say("stopped: %d after %d\n", result, count);
  struct dl_find_object o; say("object: %d", _dl_find_object((void *)landmark, &o));
  say(" %d %d %d", (char *)o.dlfo_map_start <= (char *)landmark, (char *)landmark < (char *)o.dlfo_map_end, o.dlfo_eh_frame != 0);
  say(" %d\n", _dl_find_object((void *)puts, &o));
}
static void trim(const char *text) {
  const char *c = strchr(text, '('), *e = strrchr(text, '[');
  if (c) say("  %.*s\n", (int)(e - c), c); else say("  %s\n", text);
}
static void traces(void) {
  void *places[] = {(void *)landmark, (char *)landmark + 1, (void *)data_mark, (void *)puts, (void *)1};
  char **texts = backtrace_symbols(places, 5); for (int i = 0; i < 5; i++) trim(texts[i]); free(texts);
  int ends[2]; char buffer[4096]; if (pipe(ends)) return;
  backtrace_symbols_fd(places, 5, ends[1]); close(ends[1]); ssize_t n = read(ends[0], buffer, sizeof buffer - 1); buffer[n] = 0; close(ends[0]);
  for (char *line = strtok(buffer, "\n"); line; line = strtok(0, "\n")) trim(line);
}
SHOWN int probe(char *buffer, int size) {
  out = buffer; left = size; int local;
  address("function", (void *)landmark); address("inside", (char *)landmark + 1); address("variable", data_mark + 2);
  address("before", (char *)data_mark - 1 + (hidden(0) & 0)); address("library", (void *)puts); address("stack", &local); address("nothing", 0);
  more(); names(); list(); traces();
  return hidden(1);
}
#ifdef PROGRAM
int main(void) { static char text[65536]; probe(text, sizeof text); fputs(text, stdout); return 0; }
#endif
"#;

/// What the executable made of `source` prints.
fn as_executable(folder: &Folder, source: &str) -> String {
    let path = folder.path().join("program");
    std::fs::write(folder.path().join("program.c"), source).unwrap();
    let output = Command::new("clang-22")
        .args(["-w", "-O1", "-rdynamic", "-fuse-ld=lld", "-DPROGRAM", "-o"])
        .args([&path, &folder.path().join("program.c")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = Command::new(path).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What `probe` of the image writes.
fn as_unit(image: &Image) -> String {
    let mut text = vec![0u8; 65536];
    let probe = image.get("probe").unwrap().address;
    // SAFETY: this is the function's type, and the buffer has as many bytes as it is told.
    unsafe {
        let probe = std::mem::transmute::<usize, extern "C" fn(*mut c_char, i32) -> i32>(probe);
        assert_eq!(probe(text.as_mut_ptr().cast(), text.len() as i32), 3);
    }
    let end = text.iter().position(|byte| *byte == 0).unwrap();
    String::from_utf8(text[..end].to_vec()).unwrap()
}

#[test]
fn a_unit_sees_what_an_executable_sees() {
    let folder = Folder::new();
    let want = as_executable(&folder, SEEN);
    let image = load(&loader(), &folder.image("seen.c", SEEN, &[])).unwrap();
    assert_eq!(as_unit(&image), want);
    // Another thread has its own variables and errors.
    let other = Arc::clone(&image);
    assert_eq!(std::thread::spawn(move || as_unit(&other)).join().unwrap(), want);
}

/// What one unit asks about another.
const ASKER: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
int asker(void) { return 1; }
int same(void) { return 10; }
static int count(struct dl_phdr_info *i, size_t size, void *where) {
  for (int k = 0; k < i->dlpi_phnum; k++) { char *start = (char *)i->dlpi_addr + i->dlpi_phdr[k].p_vaddr;
    if (i->dlpi_phdr[k].p_type == PT_LOAD && (char *)where >= start && (char *)where < start + i->dlpi_phdr[k].p_memsz) return 1; }
  return 0;
}
static unsigned long long adds, subs;
static int counts(struct dl_phdr_info *i, size_t size, void *p) { adds = i->dlpi_adds; subs = i->dlpi_subs; return 0; }
int loaded_or_unloaded(void) { dl_iterate_phdr(counts, 0); return (int)(adds + subs); }
static void *other;
int find(void) { other = dlsym(RTLD_DEFAULT, "landmark_of_other"); return other != 0; }
int named(void) { Dl_info d; return dladdr(other, &d) && d.dli_sname && !strcmp(d.dli_sname, "landmark_of_other") && strstr(d.dli_fname, "other") != 0; }
int listed(void) { return dl_iterate_phdr(count, other); }
int own_first(void) { return ((int (*)(void))dlsym(RTLD_DEFAULT, "same"))(); }
int next_one(void) { int (*f)(void) = (int (*)(void))dlsym(RTLD_NEXT, "same"); return f ? f() : -1; }
int thread_value(void) { int *p = dlsym(RTLD_DEFAULT, "thread_of_other"); return p ? ++*p : -1; }
int by_name(void) { Dl_info d; dladdr(other, &d); void *h = dlopen(d.dli_fname, RTLD_NOW); int (*f)(int) = h ? (int (*)(int))dlsym(h, "landmark_of_other") : 0;
  int result = f == other && dlsym(h, "asker") == 0 && strstr(dlerror(), "undefined symbol: asker") != 0; struct link_map *m; result += 2 * (dlinfo(h, RTLD_DI_LINKMAP, &m) == 0 && !strcmp(m->l_name, d.dli_fname)); dlclose(h); return result; }
static void *kept; int keep(void) { Dl_info d; dladdr(other, &d); kept = dlopen(d.dli_fname, RTLD_NOW); return kept != 0; }
int give_back(void) { return dlclose(kept); }
void *hidden_call(void) { return dlsym(RTLD_DEFAULT, "dlsym") == (void *)dlsym ? (void *)1 : 0; }
"#;
const OTHER: &str = "__thread int thread_of_other = 7; int landmark_of_other(int n) { return n + 1; } int same(void) { return 20; }";

#[test]
fn units_see_each_other_until_they_are_unloaded() {
    let folder = Folder::new();
    let loader = loader();
    let asker = load(&loader, &folder.image("asker.c", ASKER, &[])).unwrap();
    let before = call(&asker, "loaded_or_unloaded");
    assert_eq!((call(&asker, "find"), call(&asker, "next_one")), (0, -1));
    let other = load(&loader, &folder.image("other.c", OTHER, &[])).unwrap();
    let during = call(&asker, "loaded_or_unloaded");
    assert!(during > before);
    for name in ["find", "named", "listed"] {
        assert_eq!(call(&asker, name), 1, "{name}");
    }
    assert_eq!((call(&asker, "own_first"), call(&asker, "next_one")), (10, 20));
    assert_eq!((call(&asker, "thread_value"), call(&asker, "thread_value")), (8, 9));
    let again = Arc::clone(&asker);
    assert_eq!(std::thread::spawn(move || call(&again, "thread_value")).join().unwrap(), 8);
    assert_eq!(call(&asker, "by_name"), 3);
    assert_ne!(call_address(&asker, "hidden_call"), 0);
    // An open handle keeps it.
    assert_eq!(call(&asker, "keep"), 1);
    let weak = Arc::downgrade(&other);
    drop(other);
    assert!(weak.upgrade().is_some());
    assert_eq!(call(&asker, "give_back"), 0);
    assert!(weak.upgrade().is_none());
    assert_eq!((call(&asker, "named"), call(&asker, "listed"), call(&asker, "find")), (0, 0, 0));
    assert!(call(&asker, "loaded_or_unloaded") > during);
}
