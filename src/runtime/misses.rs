//! What units look up while they run and nobody has: the loader asks, the runtime loads what is pending.

use super::{Runtime, WeakRuntime};
use hotbed_loader::Provider;
use std::fmt;
use std::sync::OnceLock;

/// Answers the loader of one runtime.
#[derive(Default)]
pub(crate) struct Misses {
    runtime: OnceLock<WeakRuntime>,
}

impl Misses {
    /// To be called once, before anything is loaded.
    pub(super) fn connect(&self, runtime: WeakRuntime) {
        // There is one runtime.
        let _ = self.runtime.set(runtime);
    }
}

impl Provider for Misses {
    fn provide(
        &self,
        namespace: &hotbed_loader::Namespace,
        unit: &str,
        symbol: &str,
    ) -> Result<bool, String> {
        let Some(runtime) = self.runtime.get().and_then(Runtime::upgrade) else { return Ok(false) };
        let Some(namespace) = runtime.namespace_with(namespace) else { return Ok(false) };
        runtime.provide(&namespace, unit, symbol).map_err(|error| error.to_string())
    }
}

impl fmt::Debug for Misses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Misses").finish_non_exhaustive()
    }
}
