//! Measurements, for whoever changes something: `cargo test --release -p hotbed-jit split::tests::bench -- --ignored --nocapture`.

use super::support::{Program, bodies, open};
use crate::split::{Number, PlanOptions, Unit, plan};

/// Milliseconds that this thread has had a processor, whatever else the machine does.
fn now() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e6
}

/// The best of some runs, in milliseconds.
fn best<T>(times: usize, mut work: impl FnMut() -> T) -> (f64, T) {
    let mut least = f64::MAX;
    let mut result = None;
    for _ in 0..times {
        let start = now();
        result = Some(work());
        least = least.min(now() - start);
    }
    (least, result.unwrap())
}

fn code(unit: &mut Unit, functions: &[Number]) -> usize {
    unit.code(functions).unwrap().compile().unwrap().len()
}

#[test]
#[ignore = "a measurement"]
fn sqlite_without_optimisation() {
    for (flags, trusted) in
        [(&["-O0"][..], true), (&["-O0"], false), (&["-O0", "-g"], true), (&["-O0", "-g"], false)]
    {
        let module = Program::library("sqlite3", "bench").modules(flags).swap_remove(1);
        println!("{flags:?}, trusted {trusted}: bitcode {} bytes", module.bitcode.len());
        let (opening, mut unit) = best(5, || open(&module, ".u", trusted));
        let functions: Vec<Number> = unit.facts().functions().collect();
        println!(
            "open {opening:.2} ms, {} symbols, {} functions",
            unit.facts().symbols.len(),
            functions.len()
        );
        let (making, _) = best(3, || drop(unit.data().unwrap()));
        let (all, data) = best(3, || unit.data().unwrap().compile().unwrap().len());
        println!("data piece {making:.2} ms, with its object {all:.2} ms, {data} bytes");
        let (reading, _) = best(1, || bodies(&mut open(&module, ".u", trusted)));
        println!("all bodies read {reading:.1} ms, {:.4} ms each", reading / functions.len() as f64);
        let some: Vec<Number> = functions.iter().copied().step_by(4).collect();
        for batch in [1, 10, 50] {
            let mut unit = open(&module, ".u", trusted);
            let (splitting, _) = best(1, || {
                for chunk in some.chunks(batch) {
                    drop(unit.code(chunk).unwrap());
                }
            });
            let (first, _) =
                best(1, || some.chunks(batch).map(|chunk| code(&mut unit, chunk)).sum::<usize>());
            let each = |ms: f64| ms / some.len() as f64;
            println!(
                "batches of {batch}: {:.3} ms a function, of it splitting {:.3}",
                each(first),
                each(splitting)
            );
        }
        let (hashing, _) = best(1, || some.iter().map(|&one| unit.content(one).unwrap()).count());
        println!("content hash {:.3} ms each", hashing / some.len() as f64);
    }
}

/// Functions to be measured: those whose names are in a file, or every tenth.
fn chosen(unit: &Unit) -> Vec<Number> {
    let Some(path) = std::env::var_os("HOTBED_SPLIT_FUNCTIONS") else {
        return unit.facts().functions().step_by(10).collect();
    };
    let by_name = unit.facts().by_name();
    let text = std::fs::read_to_string(path).unwrap();
    let find = |name: &str| by_name.get(name).or_else(|| by_name.get(format!("{name}.u").as_str())).copied();
    text.lines().filter_map(find).collect()
}

#[test]
#[ignore = "a measurement"]
fn sqlite_optimised() {
    let program = Program::library("sqlite3", "bench-2");
    let (making, module) = best(1, || program.modules(&["-O2"]).swap_remove(1));
    println!("prepared in {making:.0} ms or less, {} bytes", module.bitcode.len());
    let mut unit = open(&module, ".u", true);
    let functions = chosen(&unit);
    println!("{} of {} functions", functions.len(), unit.facts().functions().count());
    let (single, size) = best(1, || functions.iter().map(|&one| code(&mut unit, &[one])).sum::<usize>());
    println!("single {single:.0} ms, {size} bytes");
    let all = bodies(&mut unit);
    for options in [PlanOptions::SMALL, PlanOptions { most: 64, small: 512, total: 32768 }] {
        let mut unit = open(&module, ".u", true);
        let plan = plan(unit.facts(), &all, &options);
        unit.keep_local(&plan.local);
        let wanted: Vec<&Vec<Number>> =
            plan.groups.iter().filter(|group| group.iter().any(|one| functions.contains(one))).collect();
        let count: usize = wanted.iter().map(|group| group.len()).sum();
        let (time, size) = best(1, || wanted.iter().map(|group| code(&mut unit, group)).sum::<usize>());
        println!("{options:?}: {} groups of {count} functions {time:.0} ms, {size} bytes", wanted.len());
    }
}
