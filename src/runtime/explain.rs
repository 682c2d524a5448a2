//! Explanations of symbols: what a reference gets, of what is loaded and of what would be.

use super::Runtime;
use super::group::{Failed, Search, is_refused};
use crate::archive::Definition;
use crate::cpu::Chosen;
use crate::error::Error;
use crate::input::{Kind, Load, Place};
use crate::named::NamedImage;
use crate::pending::Says;
use crate::unit::Unit;
use hotbed_loader::boundary::{Failure, FailureKind};
use hotbed_loader::image::ImageSource;
use hotbed_loader::store::Key;
use hotbed_loader::sys::files;
use hotbed_loader::{Answer, Explanation, Layer, LoadError, SymbolKind, Verdict, near_misses};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An image that is not loaded.
struct Waiting {
    name: String,
    file: OwnedFd,
    path: PathBuf,
}

impl Waiting {
    fn source(&self) -> (&str, ImageSource<'_>) {
        (&self.name, ImageSource::Descriptor { file: self.file.as_fd(), path: &self.path })
    }
}

impl Runtime {
    /// Explains what a unit would get that refers to `symbol` and has none itself: who is asked, in order, what each says, who wins and
    /// why, and near misses when nobody has it. The name may be mangled, or as C++ source has it. Nothing is loaded; but a lazy library that
    /// waits is compiled where only that tells whether a reference would get the symbol from it.
    ///
    /// ```
    /// # fn main() -> Result<(), hotbed::Error> {
    /// extern "C" fn helper() {}
    /// let runtime = hotbed::Runtime::builder().no_cache().build()?;
    /// runtime.define("helper", hotbed::host_fn!(helper as extern "C" fn()))?;
    ///
    /// let explanation = runtime.explain("getenv");
    /// let (asked, answer) = explanation.winner().unwrap();
    /// assert_eq!(asked.layer, hotbed::Layer::Process);
    /// assert!(answer.unit.contains("libc.so.6"));
    /// println!("{explanation}");
    ///
    /// assert_eq!(runtime.explain("helpr").near[0], "helper");
    /// # Ok(())
    /// # }
    /// ```
    pub fn explain(&self, symbol: &str) -> Explanation {
        self.on_demand_too(self.pending_too(self.loader().explain(None, symbol)))
    }

    /// Explains what a reference to `symbol` would get if `units` were loaded together: one from the first that
    /// refers to it, or else that defines it, or else from the first of them. They are compiled and mapped as for loading and the libraries that they need opened; no
    /// code of theirs runs, and other symbols may be missing. Shared libraries are loaded, and closed again unless
    /// something else has them open.
    ///
    /// # Errors
    /// What is wrong with an input, the compiler's messages with it.
    pub fn explain_with(
        &self,
        units: impl IntoIterator<Item = impl Into<Load>>,
        symbol: &str,
    ) -> Result<Explanation, Error> {
        let mut waiting = Vec::new();
        // Held until everything is said.
        let mut libraries: Vec<Unit> = Vec::new();
        let mut units: Vec<Load> = units.into_iter().map(Into::into).collect();
        self.add_dependencies(&self.inner.namespace, &mut units);
        for Load { name, kind, namespace } in units {
            if name.is_empty() {
                let failure = Failure::new(FailureKind::Usage, "cannot explain with a unit without a name");
                return Err(Error::of_failure("", failure));
            }
            match kind {
                Kind::Compile(compilation) => {
                    let request = Arc::new(self.request(compilation, &name)?);
                    let made = self.make(&request, &Key::of(&request))?;
                    let path = made.path.unwrap_or_else(|| PathBuf::from(&name));
                    waiting.push(Waiting { name, file: made.image, path });
                }
                Kind::Image(place) => waiting.push(self.unloaded(name, &place)?),
                other @ (Kind::Library(_) | Kind::Archive(_) | Kind::Lazy(..)) => {
                    let known = self.is_loaded(&name);
                    let unit = self.load(Load { name, kind: other, namespace })?;
                    if !known {
                        libraries.push(unit);
                    }
                }
            }
        }
        let explained = self.explain_waiting(&mut waiting, symbol).map(|said| self.pending_too(said));
        let closed = libraries.into_iter().rev().try_for_each(|library| library.unload());
        let explained = explained.map_err(|source| Error::Bind {
            unit: waiting.first().map_or_else(String::new, |unit| unit.name.clone()),
            source: Box::new(source),
        })?;
        closed?;
        Ok(self.on_demand_too(explained))
    }

    fn explain_waiting(&self, waiting: &mut [Waiting], symbol: &str) -> Result<Explanation, LoadError> {
        let explain = |waiting: &[Waiting]| {
            let sources: Vec<_> = waiting.iter().map(Waiting::source).collect();
            self.loader().explain_for(None, &sources, symbol)
        };
        match explain(waiting) {
            // The store may be on a file system that nothing can be executed from.
            Err(error) if is_refused(&error) => {
                for unit in &mut *waiting {
                    let copy = files::contents(unit.file.as_fd())
                        .and_then(|bytes| files::memory_copy(&unit.name, &bytes));
                    unit.file = copy.map_err(|source| LoadError::Read { path: unit.path.clone(), source })?;
                }
                explain(waiting)
            }
            explained => explained,
        }
    }

    /// An image that was built before, intact, as a file that nobody changes.
    fn unloaded(&self, name: String, place: &Place) -> Result<Waiting, Error> {
        match place {
            Place::Bytes(bytes) => {
                let bytes = Chosen::of(&name, bytes, || self.cpu())?.bytes();
                let path = PathBuf::from(&name);
                let file = files::memory_copy(&name, bytes).map_err(|e| Error::read(&name, &path, &e))?;
                Ok(Waiting { name, file, path })
            }
            Place::File(path) => {
                let (cache, observer) = (&self.inner.cache, &*self.inner.observer);
                let image = NamedImage::find(cache, &name, path, || self.cpu(), observer)?;
                let file = image.into_copy(cache, &name, path, observer)?;
                Ok(Waiting { name, file, path: Path::to_owned(path) })
            }
        }
    }

    /// Adds what is pending and would be loaded.
    fn pending_too(&self, mut explanation: Explanation) -> Explanation {
        // Then nobody here is asked, and says what is certain anyway.
        let had_before = explanation.winner().is_some();
        let mut is_had = had_before;
        let Some(asked) = explanation.asked.iter_mut().find(|asked| asked.layer == Layer::Archives) else {
            return explanation;
        };
        let symbol = &explanation.symbol;
        let (mut names, mut failed) = (Vec::new(), Vec::new());
        let _right = self.right_to_pull();
        for namespace in self.inner.namespace.scope() {
            let pending = namespace.pending();
            let mut search = Search::new(self, &pending, &mut failed);
            for at in search.candidates(symbol) {
                let one = &pending[at];
                let known = match (one.says(symbol), one.library()) {
                    _ if !had_before => search.definition(at, symbol),
                    (_, Some(library)) if !library.has_list() => None,
                    (Says::Has(definition), _) => Some(definition),
                    _ => Some(Definition { member: 0, kind: SymbolKind::Function, weak: false }),
                };
                let Some(Definition { member, kind, weak }) = known else { continue };
                if one.is_taken(member) {
                    continue;
                }
                let verdict = if is_had { Verdict::Shadowed } else { Verdict::Used };
                let unit = one.name_of(member);
                let answer = Answer { unit, kind, weak, version: None, verdict, sameness: None };
                asked.answers.push(answer);
                if !is_had {
                    is_had = true;
                    asked.remark = Some("would be loaded".to_owned());
                }
            }
            names.extend(pending.iter().flat_map(|one| one.names()));
        }
        if let Some(Failed { library, error }) = failed.first().filter(|_| !is_had) {
            asked.remark = Some(format!("{} may have it: {error}", library.name()));
        }
        if is_had {
            explanation.near.clear();
        } else {
            let near = near_misses(&explanation.symbol, names.iter().map(String::as_str));
            explanation
                .near
                .extend(near.into_iter().filter(|name| !explanation.near.contains(name)).collect::<Vec<_>>());
        }
        explanation
    }

    /// Adds what the libraries of the system say, if they would be asked.
    fn on_demand_too(&self, mut explanation: Explanation) -> Explanation {
        let asks = explanation.winner().is_none()
            && explanation.asked.iter().any(|asked| asked.layer == Layer::OnDemand);
        if let Some(autoload) = self.inner.autoload.as_ref().filter(|_| asks) {
            let (cache, observer) = (&self.inner.cache, &*self.inner.observer);
            let index = autoload.index(cache, observer);
            let version = explanation.version.as_ref().map(String::as_bytes);
            let said = index.find(explanation.symbol.as_bytes(), version);
            explanation.add_on_demand(&said);
        }
        explanation
    }
}
