//! Many links, large links, links at once.

use super::*;
use std::time::{Duration, Instant};

/// How many mappings the process has.
fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

/// Resident kilobytes of the process.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4
}

/// The access of each mapping that is writable and executable.
fn writable_code() -> Vec<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines()
        .filter(|line| line.split(' ').nth(1).is_some_and(|access| access.starts_with("rwx")))
        .map(str::to_owned)
        .collect()
}

#[test]
fn linking_and_removing_goes_on_in_the_same_memory() {
    let _no_forks = FORKS.read();
    let session = session();
    let code = object(
        Lang::C,
        "int word = 5; const int table[3] = {1, 2, 3}; int g(int); int f(void) { return g(1) + word; } int g(int x) { return x + table[x]; }",
        &["-O1"],
    );
    let before = mappings();
    let unit = session.unit("u", &[]).unwrap();
    for number in 0..20_000 {
        let part = unit.add_object("f.o", &code, Some(&["f"])).unwrap();
        if number % 100 == 0 {
            assert_eq!(call(look_up(&unit, "f")), 8);
        }
        part.link().unwrap();
        part.remove().unwrap();
    }
    assert!(mappings() < before + 40, "{} mappings, {before} before", mappings());
    assert_eq!(writable_code(), [""; 0]);
}

#[test]
fn links_are_packed() {
    let _no_forks = FORKS.read();
    let session = session();
    let unit = session.unit("u", &[]).unwrap();
    let code: Vec<_> = ["f", "g"]
        .map(|name| object(Lang::C, &format!("int w = 1; int {name}(int x) {{ return x + w; }}"), &["-O1"]))
        .into();
    let (before, memory) = (mappings(), resident());
    let mut places = Vec::new();
    for number in 0..20_000 {
        // Without names there is nothing to be in the way of the next one.
        let part = unit.add_object("part.o", &code[number % 2], Some(&[])).unwrap();
        part.link().unwrap();
        if number % 1000 == 0 {
            let name = format!("x{number}");
            add(&unit, &format!("define i32 @{name}() {{ ret i32 {number} }}"));
            places.push((look_up(&unit, &name), number as i32));
        }
    }
    for (place, value) in places {
        assert_eq!(call(place), value);
    }
    assert!(mappings() < before + 40, "{} mappings, {before} before", mappings());
    assert!(resident() < memory + 200_000, "{} KB, {memory} before", resident());
}

#[test]
fn memory_of_what_is_removed_is_given_back() {
    let _no_forks = FORKS.read();
    const SIZE: usize = 32 << 20;
    let session = session();
    let unit = session.unit("u", &[]).unwrap();
    let source = format!(
        "char data[{SIZE}] = {{1}}; const char table[{SIZE}] = {{1}}; char *f(void) {{ return data; }}"
    );
    let code = object(Lang::C, &source, &[]);
    let before = resident();
    for _ in 0..3 {
        let part = unit.add_object("large.o", &code, None).unwrap();
        look_up(&unit, "f");
        assert!(resident() > before + 2 * (SIZE >> 10) - 4096);
        part.remove().unwrap();
        assert!(resident() < before + (SIZE >> 10), "{} KB, {before} before", resident());
    }
}

/// C with a chain of functions, each calling the next.
fn chain(count: usize) -> String {
    let mut source = format!("int f{count}(int x) {{ return x; }}\n");
    for number in (0..count).rev() {
        source += &format!("int f{number}(int x) {{ return f{}(x + 1); }}\n", number + 1);
    }
    source
}

#[test]
fn thousands_of_functions_link_at_once() {
    let session = session();
    for flags in [&["-O0"][..], &["-O0", "-ffunction-sections"]] {
        let code = object(Lang::C, &chain(4000), flags);
        let unit = session.unit("u", &[]).unwrap();
        let start = Instant::now();
        unit.add_object("chain.o", &code, None).unwrap();
        let f0 = look_up(&unit, "f0");
        let took = start.elapsed();
        // SAFETY: that is its type.
        let f0: extern "C" fn(i32) -> i32 = unsafe { std::mem::transmute(f0) };
        assert_eq!(f0(1), 4001);
        assert!(took < Duration::from_millis(700), "{flags:?}: {took:?}");
    }
}

#[test]
fn threads_link_at_once() {
    let session = session();
    let shared = session.unit("shared", &[]).unwrap();
    add(
        &shared,
        "@calls = global i32 0\ndefine i32 @base() { %x = atomicrmw add ptr @calls, i32 1 seq_cst\n ret i32 1000 }",
    );
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (session, shared) = (&session, &shared);
            scope.spawn(move || {
                let unit = session.unit(&format!("u{thread}"), &[shared]).unwrap();
                for number in 0..100 {
                    let name = format!("f{number}");
                    let ir = format!("declare i32 @base()\ndefine i32 @{name}() {{ %x = call i32 @base()\n %y = add i32 %x, {number}\n ret i32 %y }}");
                    let part = add(&unit, &ir);
                    assert_eq!(call(look_up(&unit, &name)), 1000 + number);
                    if number % 3 == 0 {
                        part.remove().unwrap();
                    }
                }
            });
        }
    });
    // SAFETY: a word that stays as long as the unit.
    assert_eq!(unsafe { *(look_up(&shared, "calls") as *const i32) }, 400);
}

#[test]
fn threads_look_the_same_name_up_at_once() {
    let session = session();
    for _ in 0..20 {
        let unit = session.unit("u", &[]).unwrap();
        add(&unit, "define i32 @f() { ret i32 1 }");
        let places: Vec<usize> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| look_up(&unit, "f"))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(places.iter().all(|place| *place == places[0]));
    }
}
