//! Namespaces: units that see each other, and in which order they search.

use crate::error::Error;
use crate::pending::Pending;
use crate::runtime::{Runtime, WeakRuntime};
use hotbed_loader::boundary::{Failure, FailureKind};
use hotbed_loader::sys::sync::Mutex;
use hotbed_loader::{Layer, Loader};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// Units that see each other; two versions of one library live in two namespaces. The process, the libraries that are open
/// and what the host defined are the same for all. Cheap to clone; from [`Runtime::namespace`].
#[derive(Clone)]
pub struct Namespace {
    inner: Arc<Inner>,
}

struct Inner {
    number: u64,
    loader: hotbed_loader::Namespace,
    links: Vec<Namespace>,
    runtime: WeakRuntime,
    /// In load order; units own them.
    pending: Mutex<Vec<Weak<Pending>>>,
}

/// What a namespace shall be like.
#[derive(Debug, Clone)]
#[must_use]
pub struct NamespaceOptions {
    name: String,
    order: Option<Vec<Layer>>,
    links: Vec<Namespace>,
}

impl NamespaceOptions {
    /// A namespace that sees no other and searches in the usual order. The name is for messages and need not be unique.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), order: None, links: Vec::new() }
    }

    /// The order in which its units search; a layer that is left out is not searched. [`Layer::Archives`] and
    /// [`Layer::OnDemand`] are asked for what no other layer has, in their order, wherever they stand.
    pub fn order(mut self, order: impl IntoIterator<Item = Layer>) -> Self {
        self.order = Some(order.into_iter().collect());
        self
    }

    /// Another namespace, whose units, archives and lazy libraries its own see after their own and after those linked before it; and
    /// what that one sees.
    pub fn link(mut self, namespace: &Namespace) -> Self {
        self.links.push(namespace.clone());
        self
    }

    /// Makes it.
    pub(crate) fn make(self, loader: &Loader, runtime: WeakRuntime) -> Result<Namespace, Error> {
        let Self { name, order, links } = self;
        if let Some(foreign) = links.iter().find(|link| !link.belongs_to(&runtime)) {
            let message = format!("cannot link namespace {name} to {}: of another runtime", foreign.name());
            return Err(Error::of_failure(&name, Failure::new(FailureKind::Usage, message)));
        }
        let mut options = hotbed_loader::NamespaceOptions::new(&name);
        options.order = order.unwrap_or(options.order);
        options.links = links.iter().map(|link| link.inner.loader.clone()).collect();
        Ok(Namespace::of(loader.namespace(options), links, runtime))
    }
}

impl Namespace {
    /// That of who asks for none.
    pub(crate) fn default_of(loader: &Loader, runtime: WeakRuntime) -> Self {
        Self::of(loader.default_namespace(), Vec::new(), runtime)
    }

    fn of(loader: hotbed_loader::Namespace, links: Vec<Self>, runtime: WeakRuntime) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self { inner: Arc::new(Inner { number, loader, links, runtime, pending: Mutex::default() }) }
    }

    /// Its name; empty for the default one.
    pub fn name(&self) -> &str {
        self.inner.loader.name()
    }

    /// The order in which its units search.
    pub fn order(&self) -> &[Layer] {
        self.inner.loader.order()
    }

    /// What tells it from all others.
    pub(crate) fn number(&self) -> u64 {
        self.inner.number
    }

    pub(crate) fn loader(&self) -> &hotbed_loader::Namespace {
        &self.inner.loader
    }

    pub(crate) fn belongs_to(&self, runtime: &WeakRuntime) -> bool {
        self.inner.runtime.ptr_eq(runtime)
    }

    /// It and what it sees, each once, in the order of search.
    pub(crate) fn scope(&self) -> Vec<Self> {
        let mut scope: Vec<Self> = Vec::new();
        let mut next = vec![self];
        while let Some(namespace) = next.pop() {
            if !scope.contains(namespace) {
                scope.push(namespace.clone());
                next.extend(namespace.inner.links.iter().rev());
            }
        }
        scope
    }

    /// Its archives and lazy libraries, in load order.
    pub(crate) fn pending(&self) -> Vec<Arc<Pending>> {
        self.inner.pending.lock().iter().filter_map(Weak::upgrade).collect()
    }

    pub(crate) fn add_pending(&self, one: &Arc<Pending>) {
        let mut pending = self.inner.pending.lock();
        pending.retain(|other| other.strong_count() > 0);
        pending.push(Arc::downgrade(one));
    }

    pub(crate) fn remove_pending(&self, one: &Arc<Pending>) {
        self.inner.pending.lock().retain(|other| !std::ptr::eq(other.as_ptr(), Arc::as_ptr(one)));
    }

    pub(crate) fn downgrade(&self) -> WeakNamespace {
        WeakNamespace(Arc::downgrade(&self.inner))
    }
}

/// A namespace that may be gone.
pub(crate) struct WeakNamespace(Weak<Inner>);

impl WeakNamespace {
    pub(crate) fn upgrade(&self) -> Option<Namespace> {
        Some(Namespace { inner: self.0.upgrade()? })
    }
}

impl PartialEq for Namespace {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl Eq for Namespace {}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Namespace")
            .field("name", &self.name())
            .field("order", &self.order())
            .finish_non_exhaustive()
    }
}

impl Runtime {
    /// A new namespace without units.
    ///
    /// # Errors
    /// When it shall see one of another runtime.
    pub fn namespace(&self, options: NamespaceOptions) -> Result<Namespace, Error> {
        let namespace = options.make(self.loader(), self.downgrade())?;
        self.remember(&namespace);
        Ok(namespace)
    }
}
