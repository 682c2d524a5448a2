//! Work on several things at once.

use crate::session::fork;
use hotbed_loader::sys::sync::Mutex;
use hotbed_loader::sys::threads::{processors, spawn_quiet};
use std::mem::replace;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// Stack of a thread that compiles, in bytes: clang recurses as deep as its input, and untouched pages cost nothing.
const STACK: usize = 64 << 20;

/// Stack of a thread that frees what a compilation left behind, in bytes.
const STACK_TO_DROP: usize = 1 << 20;

/// How long that is left lying first.
const LATER: Duration = Duration::from_secs(2);

/// Does `work` with every number below `count`, on as many threads as there are processors unless it must be `alone`. After
/// an error none is begun any more; then gives the first number that failed and why.
pub(crate) fn in_parallel<T: Send, E: Send>(
    count: usize,
    alone: bool,
    work: impl Fn(usize) -> Result<T, E> + Sync,
) -> Result<Vec<T>, (usize, E)> {
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

/// Drops something that takes a while to drop, later and on a thread of its own. What comes next while it is left lying takes
/// its place; what comes faster than that thread can drop, and what comes when there can be no thread, is dropped here.
///
/// Later, because a program that was waiting for what was compiled runs now, and may be done before.
pub(crate) fn drop_later<T: Send + 'static>(garbage: T) {
    static THREAD: Dropper = Mutex::new(None);
    drop_by(&THREAD, Box::new(garbage));
}

/// How garbage gets to the thread that drops it, while there is one.
type Dropper = Mutex<Option<SyncSender<Box<dyn Send>>>>;

fn drop_by(dropper: &'static Dropper, mut garbage: Box<dyn Send>) {
    let mut thread = dropper.lock();
    if let Some(there) = &*thread {
        match there.try_send(garbage) {
            Ok(()) => return,
            Err(TrySendError::Full(back) | TrySendError::Disconnected(back)) => garbage = back,
        }
        drop(thread);
        return drop(garbage);
    }
    let (sender, more) = sync_channel(1);
    let work = move || {
        let mut lying = garbage;
        loop {
            let next = more.recv_timeout(LATER).or_else(|_| {
                let mut thread = dropper.lock();
                more.try_recv().inspect_err(|_| *thread = None)
            });
            // No process is forked while the allocator's locks are taken.
            let _work = fork::begin();
            let Ok(next) = next else { return drop(lying) };
            drop(replace(&mut lying, next));
        }
    };
    // Without a thread the work is dropped, and the garbage with it.
    if spawn_quiet("hotbed-free", STACK_TO_DROP, work).is_ok() {
        *thread = Some(sender);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, channel};
    use std::thread::{ThreadId, current};

    #[test]
    fn results_are_in_order_and_the_first_error_is_told() {
        assert_eq!(in_parallel(100, false, Ok::<_, ()>), Ok((0..100).collect()));
        let fails = |number| if number >= 5 { Err(number) } else { Ok(()) };
        assert_eq!(in_parallel(6, false, fails), Err((5, 5)));
        assert_eq!(in_parallel(100, true, fails), Err((5, 5)));
    }

    #[test]
    fn what_is_dropped_later_is_dropped() {
        struct Tells(Sender<u32>, u32);
        impl Drop for Tells {
            fn drop(&mut self) {
                self.0.send(self.1).unwrap();
            }
        }
        static DROPPER: Dropper = Mutex::new(None);
        let (tell, told) = channel();
        (0..100).for_each(|number| drop_by(&DROPPER, Box::new(Tells(tell.clone(), number))));
        drop(tell);
        let mut all: Vec<u32> = told.into_iter().collect();
        all.sort_unstable();
        assert_eq!(all, Vec::from_iter(0..100));
    }

    #[test]
    fn nobody_waits_for_the_larger_of_two_that_are_dropped_later() {
        struct Tells(Sender<ThreadId>);
        impl Drop for Tells {
            fn drop(&mut self) {
                self.0.send(current().id()).unwrap();
            }
        }
        static DROPPER: Dropper = Mutex::new(None);
        let (tell, told) = channel();
        for _ in 0..2 {
            drop_by(&DROPPER, Box::new(Tells(tell.clone())));
        }
        drop(tell);
        let by: Vec<ThreadId> = told.into_iter().collect();
        assert_eq!(by.len(), 2);
        assert!(!by.contains(&current().id()));
    }
}
