//! Who compiles which functions of a unit: each is compiled once, by whoever claims it first, and others wait for that.

use crate::split::Number;
use hotbed_loader::sys::sync::{Condvar, Mutex};
use std::collections::HashMap;

/// The functions of a unit that are compiled or being compiled.
#[derive(Default)]
pub(super) struct Claims {
    states: Mutex<HashMap<Number, State>>,
    changed: Condvar,
}

enum State {
    Claimed,
    Done(Finished),
}

/// A function that is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Finished {
    /// Where its body is.
    pub(super) address: usize,
    /// What that took.
    pub(super) nanoseconds: u64,
    /// A hash of what it says, where that is wanted.
    pub(super) content: Option<[u8; 32]>,
}

/// Functions that are being compiled. Dropped, they are free again, unless they are done.
pub(super) struct Claim<'a> {
    claims: &'a Claims,
    functions: Vec<Number>,
}

impl Claims {
    /// Claims a function, or gives what became of it; if it is being compiled, that is waited for.
    pub(super) fn claim(&self, function: Number) -> Result<Claim<'_>, Finished> {
        let mut states = self.states.lock();
        loop {
            match states.get(&function) {
                Some(State::Done(finished)) => return Err(*finished),
                Some(State::Claimed) => states = self.changed.wait(states),
                None => break,
            }
        }
        states.insert(function, State::Claimed);
        Ok(Claim { claims: self, functions: vec![function] })
    }

    /// Whether nobody has a function.
    pub(super) fn is_free(&self, function: Number) -> bool {
        !self.states.lock().contains_key(&function)
    }
}

impl Claim<'_> {
    /// Claims one more if nobody has it.
    pub(super) fn add(&mut self, function: Number) -> bool {
        let mut states = self.claims.states.lock();
        if states.contains_key(&function) {
            return false;
        }
        states.insert(function, State::Claimed);
        self.functions.push(function);
        true
    }

    /// These of them are compiled; the others are free again.
    pub(super) fn done(mut self, bodies: &[(Number, Finished)]) {
        let mut states = self.claims.states.lock();
        for &(function, finished) in bodies {
            states.insert(function, State::Done(finished));
        }
        drop(states);
        self.functions.retain(|function| bodies.iter().all(|(done, _)| done != function));
        self.claims.changed.notify_all();
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if self.functions.is_empty() {
            return;
        }
        let mut states = self.claims.states.lock();
        for function in &self.functions {
            states.remove(function);
        }
        self.claims.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_function_is_had_once_and_waited_for() {
        let claims = Claims::default();
        let finished = |address| Finished { address, nanoseconds: 7, content: None };
        let mut claim = claims.claim(1).map_err(drop).expect("free");
        assert!(claim.add(2) && !claim.add(2) && !claim.add(1));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| claims.claim(2).err());
            claim.done(&[(1, finished(10)), (2, finished(20))]);
            assert_eq!(waiting.join().expect("no panic"), Some(finished(20)));
        });
        assert_eq!(claims.claim(1).err(), Some(finished(10)));
    }

    #[test]
    fn what_could_not_be_compiled_is_free_again() {
        let claims = Claims::default();
        let claim = claims.claim(1).map_err(drop).expect("free");
        thread::scope(|scope| {
            let waiting = scope.spawn(|| claims.claim(1).is_ok());
            drop(claim);
            assert!(waiting.join().expect("no panic"));
        });
        assert!(claims.claim(1).is_ok());
    }
}
