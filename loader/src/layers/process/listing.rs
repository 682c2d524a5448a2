//! Everything in the process that has a name, in the order in which it is searched.

use super::ProcessView;
use crate::image::SymbolKind;
use crate::image::symbols::{Holding, Name};
use crate::image::versions::Version;

/// A definition that the program or a library has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Holder {
    /// Place in the view.
    pub(crate) at: usize,
    /// The definition.
    pub(crate) holding: Holding,
}

impl ProcessView {
    /// All definitions of `name`; `version` is what somebody asks for.
    pub(crate) fn all(&self, name: Name<'_>, version: Option<&Version>) -> Vec<Holder> {
        let mut all = Vec::new();
        for (at, entry) in self.entries().enumerate() {
            let Some(symbols) = self.table(entry).and_then(|table| table.symbols()) else { continue };
            if entry.filter.passes(name.hash) {
                let holdings = symbols.all(name, version);
                // A program that is not position-independent stands for functions that it does not define.
                if holdings.is_empty()
                    && at == 0
                    && let Some(found) = self.find_in(at, name, version)
                {
                    all.push(Holder { at, holding: Holding::stand_in(found.kind) });
                }
                all.extend(holdings.into_iter().map(|holding| Holder { at, holding }));
            }
        }
        all
    }

    /// The names that everything in it exports.
    pub(crate) fn exported(&self) -> impl Iterator<Item = &'static [u8]> {
        let tables = self.entries().filter_map(|entry| self.table(entry)?.symbols());
        tables.flat_map(|symbols| symbols.exported())
    }
}

impl Holding {
    fn stand_in(kind: SymbolKind) -> Self {
        Self { index: 0, kind, shared: false, version: None, hidden: false, answers: true }
    }
}
