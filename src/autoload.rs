//! Libraries opened on demand: what a unit refers to and nobody has is looked for in the libraries of the system.

use crate::cache::Cache;
use crate::observer::Observer;
use hotbed_loader::on_demand::{Answer, OnDemand, Wanted};
use hotbed_loader::{Library, LibraryRequest, Loader, Unresolved};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// The libraries that a runtime may open on demand.
#[derive(Default)]
pub(crate) struct Autoload {
    index: OnceLock<OnDemand>,
}

/// How many of several libraries that have a symbol are named.
const NAMED: usize = 3;

impl Autoload {
    /// Who of the system's libraries has what.
    pub(crate) fn index(&self, cache: &Cache, observer: &dyn Observer) -> &OnDemand {
        self.index.get_or_init(|| OnDemand::new(cache.store(observer).map(|store| store.root())))
    }

    /// Opens the libraries that have these `symbols`, which `unit` refers to; none when one of the symbols is nowhere, for then the
    /// unit cannot be loaded anyway. Whoever gets them holds them until the unit is bound to them.
    pub(crate) fn open(
        &self,
        unit: &str,
        symbols: &[Unresolved],
        loader: &Loader,
        cache: &Cache,
        observer: &dyn Observer,
    ) -> Vec<Arc<Library>> {
        let index = self.index(cache, observer);
        let wanted: Vec<Wanted<'_>> = symbols
            .iter()
            .map(|symbol| (symbol.name.as_bytes(), symbol.version.as_ref().map(String::as_bytes)))
            .collect();
        let mut plan: Vec<Wish<'_>> = Vec::new();
        let mut missing = false;
        for (symbol, answer) in symbols.iter().zip(index.find_all(&wanted)) {
            match answer {
                Answer::Found { library, others } => {
                    match plan.iter_mut().find(|wish| wish.library == library) {
                        Some(wish) => wish.symbols.push((symbol, others)),
                        None => plan.push(Wish { library, symbols: vec![(symbol, others)] }),
                    }
                }
                Answer::Refused { interposer } => {
                    missing = true;
                    observer.warning(&format!(
                        "{unit}: {symbol} is in {} only, which is made to stand in front of other libraries and is \
                         never loaded on demand",
                        interposer.display()
                    ));
                }
                Answer::Nobody => {
                    missing = true;
                    observer.note(&format!("{unit}: {symbol} is in no library of the system"));
                }
            }
        }
        if missing {
            return Vec::new();
        }
        let mut opened = Vec::new();
        // A library may refer to what another one of them has without saying so: it can be opened after that.
        loop {
            let before = plan.len();
            plan.retain(|wish| match loader.open_library(LibraryRequest::Path(&wish.library)) {
                Ok(library) => {
                    wish.tell(unit, &wish.library, observer);
                    opened.push(library);
                    false
                }
                Err(_) => true,
            });
            if plan.len() == before || plan.is_empty() {
                break;
            }
        }
        opened.extend(plan.iter().filter_map(|wish| wish.open_any(unit, loader, observer)));
        opened
    }
}

/// A library that shall be opened.
struct Wish<'a> {
    library: PathBuf,
    /// What for, and which other libraries have each symbol.
    symbols: Vec<(&'a Unresolved, Vec<PathBuf>)>,
}

impl Wish<'_> {
    /// Says that `library` has been opened for it.
    fn tell(&self, unit: &str, library: &Path, observer: &dyn Observer) {
        let names: Vec<String> = self.symbols.iter().map(|(symbol, _)| symbol.to_string()).collect();
        observer.note(&format!("{unit}: loaded on demand: {} for {}", library.display(), names.join(", ")));
        for (symbol, others) in &self.symbols {
            let all = std::iter::once(&self.library).chain(others);
            let others: Vec<&PathBuf> = all.filter(|other| *other != library).collect();
            if !others.is_empty() {
                observer.warning(&ambiguity(unit, symbol, library, &others));
            }
        }
    }

    /// Opens it or, as it cannot be opened, the next best for its first symbol, and says what is wrong.
    fn open_any(&self, unit: &str, loader: &Loader, observer: &dyn Observer) -> Option<Arc<Library>> {
        let others = self.symbols.iter().take(1).flat_map(|(_, others)| others);
        for path in std::iter::once(&self.library).chain(others) {
            match loader.open_library(LibraryRequest::Path(path)) {
                Ok(library) => {
                    self.tell(unit, path, observer);
                    return Some(library);
                }
                Err(error) => observer.warning(&format!("{unit}: on demand: {error}")),
            }
        }
        None
    }
}

fn ambiguity(unit: &str, symbol: &Unresolved, library: &Path, others: &[&PathBuf]) -> String {
    let mut named: Vec<String> = others.iter().take(NAMED).map(|path| path.display().to_string()).collect();
    if others.len() > NAMED {
        named.push(format!("{} more", others.len() - NAMED));
    }
    let (library, others) = (library.display(), named.join(", "));
    format!("{unit}: several libraries have {symbol}: taken is {library}; also in {others}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_of_many_libraries_are_named() {
        let others: Vec<PathBuf> = (0..5).map(|number| format!("/lib/lib{number}.so").into()).collect();
        let others: Vec<&PathBuf> = others.iter().collect();
        let symbol = Unresolved::new("f", None);
        assert_eq!(
            ambiguity("u", &symbol, Path::new("/lib/liba.so"), &others),
            "u: several libraries have f: taken is /lib/liba.so; also in /lib/lib0.so, /lib/lib1.so, /lib/lib2.so, \
             2 more"
        );
    }
}
