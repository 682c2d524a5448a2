//! Measurements, for whoever changes something: `cargo test --release -p hotbed-jit lazy::tests::bench -- --ignored --nocapture`.

use super::{Process, bytes, made};
use crate::lazy::stubs::stub_object;
use crate::lazy::{Compiler, head, kept::Kept, suffix};
use crate::link::check_object;
use crate::split::tests::support::{Program, open};
use std::collections::HashSet;
use std::sync::Arc;

unsafe extern "C" {
    fn clock_gettime(clock: i32, time: *mut [i64; 2]) -> i32;
}

/// Milliseconds that the process has had processors, whatever else the machine does.
fn now() -> f64 {
    let mut time = [0; 2];
    // SAFETY: room for the two words of a time, of the clock of the process.
    unsafe { clock_gettime(2, &mut time) };
    time[0] as f64 * 1e3 + time[1] as f64 / 1e6
}

/// The best of some runs, in milliseconds.
fn best<T>(times: usize, mut work: impl FnMut() -> T) -> (f64, T) {
    let mut run = || {
        let start = now();
        let result = work();
        (now() - start, result)
    };
    let mut least = run();
    for _ in 1..times {
        let next = run();
        if next.0 < least.0 {
            least = next;
        }
    }
    least
}

#[test]
#[ignore = "a measurement"]
fn sqlite() {
    for flags in [&["-O0"][..], &["-O2"]] {
        let program = Program::library("sqlite3", "lazy-bench");
        let (whole, skeleton) = best(3, || made(&program, flags));
        println!("{flags:?}: skeleton {whole:.1} ms, {:?}", skeleton.reply.phases);
        let (frontend, mut modules) = best(3, || program.modules(flags));
        println!("front end alone, with what is done to optimise pieces {frontend:.1} ms");
        let module = modules.swap_remove(1);
        let (opening, mut unit) = best(5, || open(&module, ".u1", true));
        let (data, _) = best(3, || unit.data().unwrap().compile().unwrap().len());
        let (stubs, object) = best(5, || stub_object(unit.facts(), 1, ".u1", &HashSet::new(), None).unwrap());
        let (checking, _) = best(5, || check_object(&object).unwrap());
        let arguments = module.arguments.iter().map(String::as_str).collect();
        let kept =
            [Kept { name: "a", suffix: &suffix(1), arguments, trusted: true, bitcode: &module.bitcode }];
        let (head, _) = best(5, || head::head_object(&kept, &[]).unwrap());
        println!(
            "open {opening:.2}, data {data:.2}, stubs {stubs:.2} ({} functions, {} bytes), checked {checking:.2}, head {head:.2}",
            unit.facts().functions().count(),
            object.len()
        );

        let file = bytes(&skeleton);
        let compiler = Compiler::new(Arc::new(Process::of(&file))).unwrap();
        let (open_image, bodies) = best(3, || compiler.open(1, &file, 0, Vec::new()).unwrap());
        let (first, _) = best(1, || bodies.compile(0).unwrap());
        let mut times = Vec::new();
        let mut compiled = 0;
        for slot in (1..bodies.len()).step_by(7) {
            let before = bodies.compiled().len();
            let (time, found) = best(1, || bodies.compile(slot).unwrap());
            // A body that came along with another costs nothing.
            if bodies.compiled().len() > before {
                times.push(time);
                compiled += found.bodies.len();
            }
        }
        // The same without linking.
        let numbers: Vec<_> = unit.facts().functions().collect();
        let before = bodies.len() as usize - numbers.len();
        let group = |slots: &[u32]| -> Vec<_> {
            slots
                .iter()
                .filter_map(|&slot| numbers.get((slot as usize).checked_sub(before)?))
                .copied()
                .collect()
        };
        let groups: Vec<_> = bodies.compiled().iter().skip(1).map(|one| group(&one.slots)).collect();
        let (unlinked, _) = best(1, || {
            groups
                .iter()
                .map(|group| unit.code_of(group, ".body").unwrap().compile().unwrap().len())
                .sum::<usize>()
        });
        let sum: f64 = times.iter().sum();
        times.sort_by(f64::total_cmp);
        println!(
            "image opened in {open_image:.2}, first body, with its unit {first:.2}, then {} times {:.3} in the middle, {:.3} on average, of it linked {:.3}; {:.3} a function",
            times.len(),
            times[times.len() / 2],
            sum / times.len() as f64,
            (sum - unlinked) / times.len() as f64,
            sum / compiled as f64
        );
    }
}
