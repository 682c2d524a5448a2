//! What the store would answer, for who wants to know why something is compiled.

use super::Runtime;
use crate::error::Error;
use crate::input::{Kind, Load};
use hotbed_loader::boundary::{Failure, FailureKind};
use hotbed_loader::store::{Miss, Why};

impl Runtime {
    /// What the store would answer if `what` were loaded: the image that would be mapped, or the reason why something would be
    /// compiled, and everything that was made of the same inputs. Nothing is compiled, loaded or written. Any thread may call it.
    ///
    /// # Errors
    /// When `what` is nothing that the store is asked for, such as an image or a library, or makes no sense.
    pub fn why(&self, what: impl Into<Load>) -> Result<Why, Error> {
        let Load { name, kind, .. } = what.into();
        let (Kind::Compile(compilation) | Kind::Lazy(compilation, _)) = kind else {
            let message = format!("cannot say why {name} is compiled: it never is");
            return Err(Error::of_failure(&name, Failure::new(FailureKind::Usage, message)));
        };
        let request = self.request(compilation, &name)?;
        let store = self.inner.cache.existing(&*self.inner.observer);
        Ok(store.map_or_else(
            || Why { answer: Err(Miss::NoEntry), entries: Vec::new() },
            |store| store.why(&request),
        ))
    }
}
