//! Work on several things at once.

use hotbed_loader::sys::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Stack of a thread that compiles, in bytes: clang recurses as deep as its input, and untouched pages cost nothing.
const STACK: usize = 64 << 20;

/// Does `work` with every number below `count`, on as many threads as there are processors unless it must be `alone`. After
/// an error none is begun any more; then gives the first number that failed and why.
pub(crate) fn in_parallel<T: Send, E: Send>(
    count: usize,
    alone: bool,
    work: impl Fn(usize) -> Result<T, E> + Sync,
) -> Result<Vec<T>, (usize, E)> {
    // Asking how many processors there are reads files.
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if alone || count < 2 { 1 } else { processors().min(count) };
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Result<T, E>>>> = (0..count).map(|_| Mutex::new(None)).collect();
    let go_on = || {
        while let number = next.fetch_add(1, Ordering::Relaxed)
            && let Some(place) = results.get(number)
        {
            let result = work(number);
            if result.is_err() {
                next.store(count, Ordering::Relaxed);
            }
            *place.lock() = Some(result);
        }
    };
    // This thread has the stack for it and blocks signals, and new threads inherit the mask. Where no thread can be
    // had, this one does all the work.
    std::thread::scope(|scope| {
        for _ in 1..threads {
            let builder = std::thread::Builder::new().name("hotbed compile".into()).stack_size(STACK);
            if builder.spawn_scoped(scope, go_on).is_err() {
                break;
            }
        }
        go_on();
    });
    let done = (0..).zip(results).filter_map(|(number, result)| Some((number, result.into_inner()?)));
    done.map(|(number, result)| result.map_err(|error| (number, error))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_and_the_first_error_is_told() {
        assert_eq!(in_parallel(100, false, Ok::<_, ()>), Ok((0..100).collect()));
        let fails = |number| if number >= 5 { Err(number) } else { Ok(()) };
        assert_eq!(in_parallel(6, false, fails), Err((5, 5)));
        assert_eq!(in_parallel(100, true, fails), Err((5, 5)));
    }
}
