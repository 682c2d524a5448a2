//! Namespaces: images that see each other, and in which order they search.

use super::Loader;
use crate::layers::{DEFAULT_ORDER, Layer, Space};
use std::fmt;
use std::sync::Arc;

/// Images that see each other. Two versions of one library live in two namespaces. Cheap to clone.
#[derive(Clone)]
pub struct Namespace(pub(crate) Arc<Space>);

/// What a namespace shall be like.
#[derive(Debug, Clone)]
pub struct NamespaceOptions {
    /// What it goes by in explanations.
    pub name: String,
    /// The order in which its images search. A layer that is left out is not searched.
    pub order: Vec<Layer>,
    /// Other namespaces whose images its own see, after their own and in this order; and what those see, after them.
    pub links: Vec<Namespace>,
}

impl NamespaceOptions {
    /// A namespace that sees no other and searches in the usual order.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), order: DEFAULT_ORDER.to_vec(), links: Vec::new() }
    }
}

impl Namespace {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The order in which its images search.
    pub fn order(&self) -> &[Layer] {
        &self.0.order
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Namespace")
            .field("name", &self.name())
            .field("order", &self.order())
            .finish_non_exhaustive()
    }
}

impl PartialEq for Namespace {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Loader {
    /// A new namespace without images. The definitions of the host and the process are the same for all of them.
    pub fn namespace(&self, options: NamespaceOptions) -> Namespace {
        let NamespaceOptions { name, order, links } = options;
        let links = links.into_iter().map(|namespace| namespace.0).collect();
        let space = Space::new(&name, order, links, Arc::clone(&self.0.common));
        let mut spaces = self.0.spaces.lock();
        spaces.retain(|space| space.strong_count() > 0);
        spaces.push(Arc::downgrade(&space));
        Namespace(space)
    }

    /// The namespace of who asks for none.
    pub fn default_namespace(&self) -> Namespace {
        Namespace(Arc::clone(&self.0.space))
    }
}
