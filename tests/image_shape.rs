//! How images are linked: where they want to lie, what their note says about them, and that they remain libraries for
//! everybody else. readelf, and programs that clang makes and that call `dlopen`, are the judges.

use crate::support::{
    End, Outcome, Scratch, archive, clangxx, execute, finish, hotbed, object, shared_library,
};
use hotbed::{Image, Runtime};
use hotbed_loader::image::note::{self, Layout};
use hotbed_loader::sys::reservation::Reservation;
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use object::{LittleEndian as LE, elf};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

const BASE: std::ops::Range<u64> = 0x2000_0000_0000..0x2001_0000_0000;
const STRIDE: u64 = 1 << 20;
/// Bytes of addresses that one page table covers.
const TABLE: u64 = 2 << 20;

fn build(scratch: &Scratch, name: &str, arguments: &[&str]) -> PathBuf {
    let image = scratch.join(name);
    let mut command = hotbed(["image", "build", "-w", "--no-cache", "-o"]);
    command.current_dir(scratch.path()).arg(&image).args(arguments);
    finish(&mut command).assert_success("image build");
    image
}

fn readelf(what: &str, image: &Path) -> String {
    let Outcome { stdout, stderr, .. } = execute(Command::new("readelf").args([what, "--wide"]).arg(image));
    assert_eq!(stderr, "", "{what}");
    stdout
}

fn layout(image: &Path) -> Layout {
    note::layout(&std::fs::read(image).unwrap()).unwrap()
}

/// A loadable segment: offset, address, bytes in the file, flags.
type Load = (u64, u64, u64, elf::ProgramFlags);

fn loads(image: &Path) -> Vec<Load> {
    let bytes = std::fs::read(image).unwrap();
    let header = elf::FileHeader64::<LE>::parse(&*bytes).unwrap();
    let segments = header.program_headers(LE, &*bytes).unwrap().iter();
    segments
        .filter(|segment| segment.p_type(LE) == elf::PT_LOAD)
        .map(|s| (s.p_offset(LE), s.p_vaddr(LE), s.p_filesz(LE), s.p_flags(LE)))
        .collect()
}

/// Names of the undefined dynamic symbols, and what the image has as their hashes.
fn hashes(image: &Path) -> Vec<(String, Option<u32>)> {
    let bytes = std::fs::read(image).unwrap();
    let header = elf::FileHeader64::<LE>::parse(&*bytes).unwrap();
    let sections = header.sections(LE, &*bytes).unwrap();
    let (address, count) = note::layout(&bytes).unwrap().hashes;
    let inside = |section: &&elf::SectionHeader64<LE>| {
        let start = section.sh_addr.get(LE);
        start > 0 && (start..start + section.sh_size.get(LE)).contains(&address)
    };
    let held = sections.iter().find(inside).unwrap();
    let start = (address - held.sh_addr.get(LE)) as usize;
    let (words, _) = held.data(LE, &*bytes).unwrap()[start..].as_chunks::<4>();
    let symbols = sections.symbols(LE, &*bytes, elf::SHT_DYNSYM).unwrap();
    let undefined = symbols.enumerate().skip(1).filter(|(_, s)| s.st_shndx.get(LE) == elf::SHN_UNDEF);
    undefined
        .map(|(index, symbol)| {
            let name = String::from_utf8_lossy(symbols.symbol_name(LE, symbol).unwrap()).into_owned();
            (name, words[..count as usize].get(index.0 - 1).map(|word| u32::from_le_bytes(*word)))
        })
        .collect()
}

/// The dynamic section lies among the other tables.
#[track_caller]
fn assert_read_only_dynamic(image: &Path) {
    let headers = readelf("-l", image);
    let line = headers.lines().find(|line| line.trim_start().starts_with("DYNAMIC")).unwrap();
    assert!(line.contains(" R   0x"), "{line}");
}

/// The sections that become read-only after relocation.
fn protected(image: &Path) -> Vec<String> {
    let bytes = std::fs::read(image).unwrap();
    let header = elf::FileHeader64::<LE>::parse(&*bytes).unwrap();
    let segments = header.program_headers(LE, &*bytes).unwrap();
    let relro = segments.iter().find(|segment| segment.p_type(LE) == elf::PT_GNU_RELRO).unwrap();
    let range = relro.p_vaddr(LE)..relro.p_vaddr(LE) + relro.p_memsz(LE);
    let sections = header.sections(LE, &*bytes).unwrap();
    let inside = sections.iter().filter(|section| {
        section.sh_flags.get(LE).0 & elf::SHF_ALLOC.0 != 0 && range.contains(&section.sh_addr.get(LE))
    });
    let name = |section| String::from_utf8_lossy(sections.section_name(LE, section).unwrap()).into_owned();
    inside.map(name).collect()
}

/// Whether nobody ever writes to those where the image was linked for.
fn is_settled(image: &Path) -> bool {
    let bytes = std::fs::read(image).unwrap();
    let header = elf::FileHeader64::<LE>::parse(&*bytes).unwrap();
    let segments = header.program_headers(LE, &*bytes).unwrap();
    let relro = segments.iter().find(|segment| segment.p_type(LE) == elf::PT_GNU_RELRO).unwrap();
    relro.p_flags(LE).0 & note::CONSTANTS_SETTLED != 0
}

#[track_caller]
fn assert_hashed(image: &Path, some: &[&str]) {
    let hashes = hashes(image);
    for (name, hash) in &hashes {
        assert_eq!(*hash, Some(elf::gnu_hash(name.as_bytes())), "{name}");
    }
    for name in some {
        assert!(hashes.iter().any(|(known, _)| known == name), "no {name} in {hashes:?}");
    }
}

const SMALL: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int counter = 3, zeros[30];
int *place = &counter;
const char *const names[] = {"one", "two"};
struct __attribute__((packed)) { char one; int *odd; } packed = {1, &counter};
static __thread int local = 5;
__attribute__((constructor)) static void begin(void) { counter++; }
int f(int x) {
  void *(*volatile allocate)(size_t) = malloc;
  free(allocate(9));
  zeros[x]++;
  return *place * 1000 + (*packed.odd == counter) * 100 + strlen(names[x & 1]) * 10 + zeros[x] + local++;
}
int g(int x) { return printf("%d\n", x); }
"#;

/// Opens its first argument as a library and says what `f` gives and where it lies; with a second argument the
/// address it would like to lie at is taken.
const OPENER: &str = r#"
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
int main(int count, char **arguments) {
  if (count > 2) {
    void *wanted = (void *)strtoull(arguments[2], 0, 16);
    if (mmap(wanted, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != wanted) return 9;
  }
  void *library = dlopen(arguments[1], RTLD_NOW);
  if (!library) return puts(dlerror()), 1;
  int (*f)(int) = (int (*)(int))dlsym(library, "f");
  printf("%d ", f(1));
  printf("%d\n", f(1));
  return dlclose(library);
}
"#;

fn opener(scratch: &Scratch) -> PathBuf {
    let source = scratch.write("opener.c", OPENER);
    let program = scratch.join("opener");
    execute(Command::new("clang-22").args(["-w", "-D_GNU_SOURCE"]).arg(&source).arg("-o").arg(&program));
    program
}

/// What the image gives under `dlopen` and under our loader is what the plain library gives, wherever it lies.
#[track_caller]
fn assert_works(scratch: &Scratch, image: &Path, library: &Path) {
    let opener = opener(scratch);
    let open = |path: &Path, taken: &[String]| finish(Command::new(&opener).arg(path).args(taken));
    let want = open(library, &[]).assert_success("dlopen of the library").stdout;
    let base = format!("{:x}", loads(image)[0].1);
    for taken in [&[][..], &[base]] {
        assert_eq!(open(image, taken).assert_success("dlopen of the image").stdout, want, "{taken:?}");
    }
    let runtime = Runtime::builder().no_cache().build().unwrap();
    // Twice, so that one of them lies elsewhere.
    for name in ["first", "second"] {
        let unit = runtime.load(Image::file(image).named(name)).unwrap();
        // SAFETY: that is its type.
        let f = unsafe { unit.get::<unsafe extern "C" fn(i32) -> i32>("f") }.unwrap();
        // SAFETY: as above.
        let got = unsafe { format!("{} {}\n", f(1), f(1)) };
        assert_eq!(got, want, "{name}");
    }
}

#[test]
fn small_images_are_fit_for_arenas() {
    let scratch = Scratch::new("shape-small");
    let source = scratch.write("small.c", SMALL);
    let library = shared_library(&source, &["-O1"]);
    for flags in [&["-O1"][..], &["-O1", "-g"]] {
        let image = build(&scratch, "small.hbi", &[flags, &["small.c"]].concat());
        let [code, data] = loads(&image)[..] else { panic!("{}", readelf("-l", &image)) };
        assert_eq!((code.3, data.3), (elf::PF_R | elf::PF_X, elf::PF_R | elf::PF_W));
        assert_eq!((code.0, code.1 % TABLE), (0, 0), "both within what a page table covers");
        assert!(BASE.contains(&code.1));
        assert_eq!(data.1 - code.1, data.0 + STRIDE, "one stride behind");
        assert!(data.0 < code.2 + 64, "dense in the file");
        let layout = layout(&image);
        assert_eq!(layout.stride.map(u32::from), Some(STRIDE as u32));
        assert!(layout.relocated && !layout.resolvers);
        let headers = readelf("-lS", &image);
        assert!(!headers.contains("GNU_RELRO"), "{headers}");
        assert_read_only_dynamic(&image);
        let (frames, size) = layout.frames.unwrap();
        let line = headers.lines().find(|line| line.contains(" .eh_frame ")).unwrap();
        assert!(
            line.contains(&format!("{frames:016x}")) && line.contains(&format!(" {size:06x} ")),
            "{line}"
        );
        assert_hashed(&image, &["malloc", "printf", "strlen"]);
        assert_works(&scratch, &image, &library);
    }
}

#[test]
fn what_is_large_or_linked_by_the_users_wishes_has_protected_tables() {
    let scratch = Scratch::new("shape-large");
    let large = format!("{SMALL}\nint table[10000] = {{1, 2}};\n");
    let source = scratch.write("large.c", &large);
    scratch.write("small.c", SMALL);
    scratch.write("aligned.c", format!("{SMALL}\n_Alignas(4096) int page[4];\n"));
    let library = shared_library(&source, &["-O1"]);
    for arguments in [&["large.c"][..], &["small.c", "-Wl,--as-needed"], &["aligned.c"]] {
        let image = build(&scratch, "large.hbi", arguments);
        let layout = layout(&image);
        assert_eq!((layout.stride, layout.relocated), (None, true), "{arguments:?}");
        let all = loads(&image);
        assert_eq!((all[0].1 % (1 << 16), all[0].3), (0, elf::PF_R), "{arguments:?}");
        assert!(BASE.contains(&all[0].1));
        assert_eq!(all[0].1 / TABLE, all[all.len() - 1].1 / TABLE, "{arguments:?}");
        assert!(readelf("-l", &image).contains("GNU_RELRO"));
        assert_read_only_dynamic(&image);
        assert_hashed(&image, &["malloc", "printf", "strlen"]);
        assert_works(&scratch, &image, &library);
    }
}

/// Constants that lead to the image's own, to another file of it, to a library; constructors; variables without values.
const CONSTANTS: &str = r#"
extern int printf(const char *, ...);
int other(int);
static int one(int x) { return x + 1; }
static volatile int order[4], counted;
typedef int (*Function)(int);
const Function own[] = {one, one, other};
const char *const names[] = {"one", "two"};
int table[10000] = {1, 2};
__attribute__((constructor(103))) static void third(void) { order[counted++] = 3; }
__attribute__((constructor(101))) static void first(void) { order[counted++] = 1; }
__attribute__((constructor)) static void last(void) { order[counted++] = 9; }
__attribute__((destructor)) static void end(void) { printf("end %d\n", counted); }
int f(int x) { return own[x](x) * 1000 + order[0] * 100 + order[1] * 10 + order[2] + names[x & 1][0]; }
const Function *constants(void) { return own; }
"#;

#[test]
fn constants_that_lead_to_nothing_else_are_read_only_from_the_start() {
    let scratch = Scratch::new("shape-constants");
    scratch.write("constants.c", CONSTANTS);
    scratch.write("other.c", "int other(int x) { return x + 7; }");
    scratch.write(
        "shared.cpp",
        "inline int one(int x) { return x + 1; }\n\
        extern \"C\" int other(int x) { return x + 7; }\n\
        extern \"C\" { extern int (*const elsewhere[])(int) = {one}; }",
    );
    scratch.write(
        "code.c",
        r#"int other(int x) { return x + 7; } __asm__(".section .init,\"ax\"\n nop\n .text");"#,
    );
    scratch.write(
        "library.c",
        "#include <stdlib.h>\nint other(int x) { return x + 7; }\nint (*const of_libc[])(int) = {abs};",
    );
    let members = ["other.c", "shared.cpp"].map(|source| object(&scratch.join(source), "o", &["-fPIC"]));
    archive(&scratch.join("settled.a"), &members[..1]);
    archive(&scratch.join("shared.a"), &members[1..]);
    let array = |sections: &[String], name: &str| sections.iter().any(|section| section == name);
    for (second, settled) in [
        ("other.c", true),
        ("settled.a", true),
        // With code in front of them.
        ("code.c", true),
        ("shared.cpp", false),
        ("shared.a", false),
        ("library.c", false),
    ] {
        let image = build(&scratch, "constants.hbi", &["-O1", "constants.c", second]);
        assert_eq!(is_settled(&image), settled, "{second}: {}", readelf("-lr", &image));
        let sections = protected(&image);
        assert!(
            [".data.rel.ro", ".init_array", ".fini_array"].iter().all(|name| array(&sections, name)),
            "{second}: {sections:?}"
        );
        // At its own address, and where something else lies there.
        for taken in [false, true] {
            let first = loads(&image)[0].1;
            let reserved = taken.then(|| Reservation::new(4096, Some(first as usize)).unwrap());
            let runtime = Runtime::builder().no_cache().build().unwrap();
            let unit = runtime.load(Image::file(&image)).unwrap();
            // SAFETY: the types of `f` and `constants`.
            let (f, constants) = unsafe {
                (
                    unit.get::<extern "C" fn(i32) -> i32>("f").unwrap(),
                    unit.get::<extern "C" fn() -> usize>("constants").unwrap(),
                )
            };
            assert_eq!([f(0), f(1), f(2)], [1139 + 111, 2139 + 116, 9139 + 111], "{second} {taken}");
            let place = constants() as u64;
            assert_eq!((first..first + (1 << 20)).contains(&place), !taken, "{second}");
            assert_eq!(access_of(place), "r--p", "{second} {taken}");
            drop(reserved);
        }
    }
}

/// The access to an address as the system shows it.
fn access_of(address: u64) -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let held = maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let at = |text| u64::from_str_radix(text, 16).ok();
        (at(start)?..at(end)?).contains(&address).then(|| rest[..4].to_owned())
    });
    held.unwrap()
}

#[test]
fn a_few_zeros_are_in_the_file_and_many_are_not() {
    let scratch = Scratch::new("shape-zeros");
    let source = |zeros: usize| {
        format!(
            "int table[10000] = {{1, 2}}; static char zeros[{zeros}]; int shared;\n\
        int f(int x) {{ zeros[x] += 3; return zeros[x] + zeros[x + 1] + shared++; }}"
        )
    };
    for (zeros, in_file) in [(3000, true), (4096, false), (1 << 22, false)] {
        scratch.write("zeros.c", source(zeros));
        let image = build(&scratch, "zeros.hbi", &["-fcommon", "zeros.c"]);
        let size = std::fs::metadata(&image).unwrap().len();
        assert!(size < 100_000, "{zeros}: {size}");
        let bytes = std::fs::read(&image).unwrap();
        let header = elf::FileHeader64::<LE>::parse(&*bytes).unwrap();
        let mut segments = header.program_headers(LE, &*bytes).unwrap().iter();
        let data = segments.rfind(|segment| segment.p_type(LE) == elf::PT_LOAD).unwrap();
        assert_eq!(data.p_filesz(LE) == data.p_memsz(LE), in_file, "{zeros}");
        let runtime = Runtime::builder().no_cache().build().unwrap();
        let unit = runtime.load(Image::file(&image)).unwrap();
        // SAFETY: the type of `f`.
        let f = unsafe { unit.get::<extern "C" fn(i32) -> i32>("f") }.unwrap();
        let last = zeros as i32 - 2;
        assert_eq!([f(0), f(last), f(0)], [3, 4, 8], "{zeros}");
    }
}

#[test]
fn references_to_shared_definitions_of_its_own_are_there_from_the_link() {
    const SOURCE: &str = r#"
        struct Base { virtual ~Base() {} virtual int f() { return 1; } };
        struct Derived : Base { int f() override { return 2; } };
        inline int counter = 40;
        inline int &reach() { return counter; }
        template <class T> T twice(T x) { return 2 * x; }
        int table[10000] = {1, 2};
        extern "C" int f(int x) {
          Derived derived;
          Base &base = derived;
          reach() += x;
          return base.f() + counter + twice(x);
        }
    "#;
    const DRIVER: &str = r#"
        #include <dlfcn.h>
        #include <stdio.h>
        int main(int count, char **arguments) {
          (void)count;
          int modes[] = {RTLD_LAZY, RTLD_NOW};
          for (int at = 0; at < 2; at++) {
            void *library = dlopen(arguments[1], modes[at]);
            int (*f)(int) = library ? (int (*)(int))dlsym(library, "f") : 0;
            printf("%d %d\n", f ? f(1) : -1, f ? f(2) : -1);
            if (library)
              dlclose(library);
          }
        }
    "#;
    let scratch = Scratch::new("shape-shared");
    scratch.write("shared.cpp", SOURCE);
    let image = build(&scratch, "shared.hbi", &["shared.cpp"]);
    assert!(layout(&image).settled);

    let bytes = std::fs::read(&image).unwrap();
    let header = elf::FileHeader64::<LE>::parse(&*bytes).unwrap();
    let segments = header.program_headers(LE, &*bytes).unwrap();
    let sections = header.sections(LE, &*bytes).unwrap();
    let symbols = sections.symbols(LE, &*bytes, elf::SHT_DYNSYM).unwrap();
    let mut there = 0;
    let tables = sections.iter().filter_map(|section| section.rela(LE, &*bytes).unwrap());
    for relocation in tables.flat_map(|(relocations, _)| relocations) {
        let symbol = symbols.symbol(object::SymbolIndex(relocation.r_sym(LE, false) as usize)).unwrap();
        if symbol.st_bind() != elf::STB_WEAK || symbol.st_shndx.get(LE) == elf::SHN_UNDEF {
            continue;
        }
        let place = relocation.r_offset.get(LE);
        let word = segments.iter().find_map(|one| one.data_range(LE, &*bytes, place, 8).unwrap()).unwrap();
        let want = symbol.st_value.get(LE).wrapping_add_signed(relocation.r_addend.get(LE));
        assert_eq!(word, want.to_le_bytes(), "{place:#x}");
        there += 1;
    }
    assert!(there >= 8, "{there}");

    // At its own address, then elsewhere, where all that is shared is that of the first.
    let runtime = Runtime::builder().no_cache().build().unwrap();
    for (name, want) in [("first", [2 + 41 + 2, 2 + 43 + 4]), ("second", [2 + 44 + 2, 2 + 46 + 4])] {
        let unit = runtime.load(Image::file(&image).named(name)).unwrap();
        // SAFETY: that is its type.
        let f = unsafe { unit.get::<unsafe extern "C" fn(i32) -> i32>("f") }.unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { [f(1), f(2)] }, want, "{name}");
    }
    let driver = scratch.write("driver.c", DRIVER);
    let program = scratch.join("driver");
    execute(Command::new("clang-22").arg(&driver).arg("-o").arg(&program));
    assert_eq!(execute(Command::new(&program).arg(&image)).stdout, "45 49\n45 49\n");
}

#[test]
fn what_an_image_has_registered_for_its_end_is_done_when_it_is_closed() {
    const SOURCE: &str = r#"
        #include <cstdio>
        #include <cstdlib>
        struct Ends { ~Ends() { std::puts("static"); } };
        static Ends ends;
        static void registered() { std::puts("atexit"); }
        __attribute__((destructor)) static void destructor() { std::puts("destructor"); }
        extern "C" int f(int x) { return x ? std::atexit(registered) : std::fflush(stdout); }
    "#;
    const DRIVER: &str = r#"
        #include <dlfcn.h>
        #include <stdio.h>
        int main(int count, char **arguments) {
          (void)count;
          void *library = dlopen(arguments[1], RTLD_NOW);
          int (*f)(int) = (int (*)(int))dlsym(library, "f");
          printf("%d %d\n", f(0), f(1));
          dlclose(library);
          puts("closed");
        }
    "#;
    let scratch = Scratch::new("shape-end");
    scratch.write("end.cpp", SOURCE);
    let source = scratch.write("driver.c", DRIVER);
    let (driver, library) = (scratch.join("driver"), scratch.join("end.so"));
    execute(Command::new("clang-22").arg(&source).arg("-o").arg(&driver));
    clangxx([
        OsStr::new("-shared"),
        "-fPIC".as_ref(),
        scratch.join("end.cpp").as_ref(),
        "-o".as_ref(),
        library.as_ref(),
    ]);
    let want = finish(Command::new(&driver).arg(&library)).assert_success("dlopen of the library").stdout;
    assert!(want.ends_with("closed\n") && want.contains("static") && want.contains("atexit"), "{want}");
    // With a section that small images have no room for as well.
    for (name, more) in [("small.hbi", ""), ("large.hbi", "int table[10000] = {1, 2};")] {
        scratch.write("more.cpp", more);
        let image = build(&scratch, name, &["end.cpp", "more.cpp"]);
        let got = finish(Command::new(&driver).arg(&image)).assert_success("dlopen of the image").stdout;
        assert_eq!(got, want, "{name}");
    }
}

#[test]
fn imports_wait_for_their_first_call_unless_the_user_says_no() {
    let scratch = Scratch::new("shape-lazy");
    scratch.write("p.c", format!("{SMALL}\nint table[10000] = {{1, 2}};\n"));
    for (flags, lazy) in [(&["p.c"][..], true), (&["p.c", "-Wl,-z,now"], false)] {
        let image = build(&scratch, "p.hbi", flags);
        let dynamic = readelf("-d", &image);
        assert_eq!(!dynamic.contains("BIND_NOW"), lazy, "{dynamic}");
        // Called functions go through the table; what stands there leads to the part that asks the loader.
        let relocations = readelf("-r", &image);
        let slots = relocations.lines().filter(|line| line.contains("R_X86_64_JUMP_SLO"));
        let called = ["free", "strlen", "printf"];
        let called = slots.filter(|line| called.iter().any(|name| line.contains(&format!(" {name}@"))));
        assert_eq!(called.count(), 3, "{relocations}");
        assert_eq!(!protected(&image).contains(&".got.plt".to_owned()), lazy, "{}", readelf("-l", &image));
    }
}

#[test]
fn an_address_belongs_to_a_unit_and_its_contents() {
    let scratch = Scratch::new("shape-base");
    scratch.write("a.c", "int f(void) { return 1; }");
    scratch.write("b.c", "int f(void) { return 2; }");
    let base = |arguments: &[&str]| {
        let image = build(&scratch, "u.hbi", arguments);
        (loads(&image)[0].1, std::fs::read(&image).unwrap())
    };
    let first = base(&["a.c"]);
    assert_eq!(base(&["a.c"]), first, "the same input gives the same image");
    assert_ne!(base(&["b.c"]).0, first.0);
    assert_ne!(base(&["a.c", "-O2"]).0, first.0, "other code");
    assert_eq!(base(&["a.c", "-Wl,--image-base=0x10000"]).0, 0x10000, "as the user says");
}

#[test]
fn every_import_is_hashed_whatever_the_image_is_made_of() {
    let scratch = Scratch::new("shape-hashes");
    let cpp = "#include <iostream>\n#include <map>\n#include <string>\n#include <thread>\n\
               int helper(int); std::map<std::string, int> all;\n\
               extern \"C\" int f(int x) { thread_local std::string s; s += 'x'; std::cout << s; all[s] = x; \
               std::thread([] {}).join(); if (x > 100) throw x; return helper(x) + (int)all.size(); }";
    scratch.write("f.cpp", cpp);
    let helper =
        scratch.write("helper.cpp", "#include <cstdio>\nint helper(int x) { return std::puts(\"h\") + x; }");
    let unused = scratch.write("unused.c", "int never(void); int unused(void) { return never(); }");
    let members = [object(&helper, "o", &["-fPIC"]), object(&unused, "o", &["-fPIC"])];
    archive(&scratch.join("libhelp.a"), &members);
    for arguments in [
        &["f.cpp", "helper.cpp"][..],
        &["f.cpp", "libhelp.a"],
        &["f.cpp", "-L.", "-lhelp"],
        &["f.cpp", "helper.o", "-O2", "-Wl,--gc-sections"],
        &["f.cpp", "helper.o", "-s"],
    ] {
        let image = build(&scratch, "f.hbi", arguments);
        assert_hashed(&image, &["puts", "_ZNSt6thread4joinEv", "__cxa_throw"]);
        // They are of use only if binding with them finds everything.
        let runtime = Runtime::builder().no_cache().build().unwrap();
        runtime.load(hotbed::SharedLibrary::name("stdc++")).unwrap();
        runtime.load(Image::file(&image)).unwrap();
    }
}

#[test]
fn indirect_functions_are_announced() {
    let scratch = Scratch::new("shape-ifunc");
    scratch.write(
        "i.c",
        "static int one(void) { return 1; } static int (*choose(void))(void) { return one; }\n\
         static int hidden(void) __attribute__((ifunc(\"choose\"))); int f(int x) { return hidden() + x; }",
    );
    let image = build(&scratch, "i.hbi", &["i.c"]);
    assert!(layout(&image).resolvers);
    let runtime = Runtime::builder().no_cache().build().unwrap();
    let unit = runtime.load(Image::file(&image)).unwrap();
    // SAFETY: that is its type.
    let f = unsafe { unit.get::<unsafe extern "C" fn(i32) -> i32>("f") }.unwrap();
    // SAFETY: as above.
    assert_eq!(unsafe { f(4) }, 5);
}

#[test]
fn local_names_and_debug_sections_stay_unless_stripped() {
    let scratch = Scratch::new("shape-symbols");
    scratch.write("p.c", "static __attribute__((noinline)) int inner(int x) { return x * 3; }\nint f(int x) { return inner(x); }");
    for (flags, symbols, debug) in [
        (&["p.c"][..], true, false),
        (&["p.c", "-g"], true, true),
        (&["p.c", "-g", "-s"], false, false),
        (&["p.c", "-g", "-Wl,-S"], true, false),
    ] {
        let image = build(&scratch, "p.hbi", flags);
        let sections = readelf("-S", &image);
        assert_eq!(sections.contains(".debug_info"), debug, "{flags:?}");
        let names = finish(Command::new("nm").arg(&image)).assert_success("nm").stdout;
        assert_eq!(names.contains(" t inner\n"), symbols, "{flags:?}: {names}");
        let opener = opener(&scratch);
        assert_eq!(finish(Command::new(&opener).arg(&image)).end, End::Status(0), "{flags:?}");
    }
}
