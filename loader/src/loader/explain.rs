//! Explanations: who is asked for a symbol, what each says, and who wins.
//!
//! What a reference gets is found out by the functions that binding uses ([`bind::choose`], [`bind::choose_defined`]); only
//! then is everybody looked through who has the name, and held against that.

mod answer;
mod near;
#[cfg(test)]
mod tests;

pub use answer::{Answer, Asked, Explanation, Reason, Verdict};
use near::Nearest;
pub use near::near_misses;

use super::{Library, Loader, Member, Namespace, Sameness, seen_by};
use crate::error::{LoadError, Unresolved, demangle};
use crate::image::bind::{self, Choice};
use crate::image::symbols::{Holding, Name};
use crate::image::versions::Version;
use crate::image::{self, Image, ImageSource, SymbolKind};
use crate::layers::readers::Section;
use crate::layers::{Found, Held, Layer, Layers, Party, ProcessView, Space, is_mangled};
use crate::libraries::LibraryFile;
use crate::on_demand;
use std::path::Path;
use std::sync::Arc;

/// Near misses are looked for as long as not more symbols are missing: otherwise it is a library, and not a letter.
const FEW: usize = 8;

/// An explanation, and what the reference gets.
struct Explained {
    explanation: Explanation,
    #[cfg_attr(not(test), allow(dead_code, reason = "tests hold it against what binding has written"))]
    choice: Choice,
}

/// Who asks, and for what.
struct Question<'a> {
    members: &'a [Member],
    /// Place of the unit that asks; past the end if nobody in particular does.
    position: usize,
    name: Name<'a>,
    version: Option<&'a Version>,
    /// Index of the asker's own definition.
    own: Option<u32>,
}

impl Loader {
    /// Explains what a unit of the namespace would get that refers to `symbol` and has none itself. The name may be mangled
    /// or as C++ source has it (`n::twice(int)`).
    pub fn explain(&self, namespace: Option<&Namespace>, symbol: &str) -> Explanation {
        self.ask(self.space(namespace), &[], symbol).explanation
    }

    /// Explains what a reference to `symbol` from images that are not loaded would get if they were loaded together: one
    /// from the first that refers to it, or else that defines it, or else from the first of them. They are mapped and the libraries that they need opened, as
    /// for [`Loader::load_images`]; they are neither bound nor started, and nobody else sees them. So other symbols may be missing.
    ///
    /// Nothing is offered to those libraries: one that cannot be opened without definitions of units, or at all, is
    /// a remark of the process layer.
    ///
    /// # Errors
    /// When a source cannot be read or is no image.
    pub fn explain_for(
        &self,
        namespace: Option<&Namespace>,
        sources: &[(&str, ImageSource<'_>)],
        symbol: &str,
    ) -> Result<Explanation, LoadError> {
        self.explain_group(namespace, sources, symbol).map(|explained| explained.explanation)
    }

    fn explain_group(
        &self,
        namespace: Option<&Namespace>,
        sources: &[(&str, ImageSource<'_>)],
        symbol: &str,
    ) -> Result<Explained, LoadError> {
        let mut members = Vec::with_capacity(sources.len());
        for (name, source) in sources {
            members.push(self.map(name, *source)?);
        }
        let unopened = self.open_plainly(&mut members);
        let mut explained = self.ask(self.space(namespace), &members, symbol);
        if !unopened.is_empty() {
            let process = |asked: &&mut Asked| asked.layer == Layer::Process;
            if let Some(asked) = explained.explanation.asked.iter_mut().find(process) {
                asked.remark = Some(unopened.join("; "));
            }
        }
        Ok(explained)
    }

    /// Opens the libraries that members need, and says what cannot be opened.
    fn open_plainly(&self, members: &mut [Member]) -> Vec<String> {
        let process = &self.0.common.process;
        let mut unopened = Vec::new();
        for member in members {
            for name in image::needed(&member.mapped) {
                if process.has_from_start(name) || member.needs_image(name) {
                    continue;
                }
                if let Some(library) = process.opened(|library| library.is_called(name)) {
                    member.libraries.push(library);
                    continue;
                }
                let name = String::from_utf8_lossy(name);
                match Library::needed(&name, &member.mapped, self.0.options.global_libraries, None) {
                    Ok(library) => {
                        process.add(&library);
                        member.libraries.push(library);
                    }
                    Err(reason) => {
                        unopened.push(format!("cannot open {name}, needed by {}: {reason}", member.name));
                    }
                }
            }
        }
        unopened
    }

    fn ask(&self, space: &Space, members: &[Member], wanted: &str) -> Explained {
        let mut view = self.0.common.process.view();
        let known = Known { host: self.0.host.names(), images: seen_by(space), members, view: &view };
        let symbol = known.mangled(wanted).unwrap_or_else(|| wanted.to_owned());
        drop(known);
        let name = Name::new(symbol.as_bytes());
        let import = |member: &Member| member.mapped.symbols.import(name.bytes).is_some();
        let defines = |member: &Member| member.mapped.symbols.find_any(name).is_some();
        let referring = members.iter().position(import);
        let position = referring.or_else(|| members.iter().position(defines)).unwrap_or(0);
        let asker = members.get(position);
        let version = asker.and_then(|asker| asker.mapped.symbols.import(name.bytes)?.1);
        let own = match referring {
            Some(_) => None,
            None => asker.and_then(|asker| asker.mapped.symbols.find_any(name)).map(|(index, _)| index),
        };
        let question = Question { members, position, name, version, own };

        let mut explanation = Explanation::new(&symbol);
        explanation.version = version.map(|version| text(version.name));
        explanation.needed_by = referring.and(asker).map(|asker| asker.name.to_string());
        let mut round = 0;
        let choice = loop {
            // Images must not end while the lock is held, so they are dropped after it is.
            let held = Held::default();
            let images;
            let binding = self.0.common.binding.lock();
            let layers =
                Layers::new(space, &self.0.host, &view, (members, position), &held, Section::under(&binding));
            let choice = question.choice(&layers);
            if round == 0 && matches!(choice, Choice::Nobodys) && view.may_know_more() {
                // `dlsym` must not be called under a lock.
                drop(layers);
                drop(binding);
                round += 1;
                let version = version.map(|version| version.name.to_vec());
                view.ask(vec![(name.bytes.to_vec(), version)]);
                continue;
            }
            images = seen_by(space);
            explanation.asked = question.answers(&layers, &images, choice);
            break choice;
        };
        for answer in explanation
            .asked
            .iter_mut()
            .filter(|asked| asked.layer == Layer::Process)
            .flat_map(|asked| &mut asked.answers)
        {
            // One library goes by several names, depending on who opened it.
            if let Ok(path) = std::fs::canonicalize(&answer.unit) {
                answer.unit = path.to_string_lossy().into_owned();
            }
        }
        compare(&mut explanation, &seen_by(space), members);
        if matches!(choice, Choice::Nobodys) {
            let known = Known { host: self.0.host.names(), images: seen_by(space), members, view: &view };
            explanation.near = known.near(&symbol);
        }
        Explained { explanation, choice }
    }

    /// Says of symbols that nobody has which names are like them. To be called without a lock.
    pub(super) fn add_near_misses(&self, space: &Space, members: &[Member], symbols: &mut [Unresolved]) {
        let view = self.0.common.process.view();
        let known = Known { host: self.0.host.names(), images: seen_by(space), members, view: &view };
        let mut all: Vec<_> = symbols.iter().take(FEW).map(|symbol| Nearest::new(&symbol.name)).collect();
        for name in known.names() {
            all.iter_mut().for_each(|nearest| nearest.consider(name));
        }
        for (symbol, nearest) in symbols.iter_mut().zip(all) {
            symbol.near = nearest.names();
        }
    }
}

impl Question<'_> {
    /// What the reference gets.
    fn choice(&self, layers: &Layers<'_>) -> Choice {
        match (self.own, self.members.get(self.position)) {
            (Some(index), Some(asker)) => {
                let found = bind::choose_defined(&asker.mapped, asker.module(), layers, index);
                // Damage is for loading to complain about.
                found.map_or(Choice::Nobodys, Choice::Of)
            }
            _ => bind::choose(layers, self.name, self.version),
        }
    }

    /// Every layer of the order with what it has; `images` are those that the namespace sees.
    fn answers(&self, layers: &Layers<'_>, images: &[Arc<Image>], choice: Choice) -> Vec<Asked> {
        let used = match choice {
            Choice::Of(found) => Some(found),
            Choice::Always(_) | Choice::Instead(_) | Choice::Nobodys => None,
        };
        let mut all = Vec::new();
        for layer in &layers.space.order {
            let (answers, remark) = match layer {
                Layer::Unit => self.in_unit(used),
                Layer::Host => (self.in_host(layers, used), None),
                Layer::Images => (self.in_images(layers, images, used), None),
                Layer::Process => (self.in_process(layers, choice), None),
                Layer::Archives | Layer::OnDemand => (Vec::new(), Some("not asked".to_owned())),
                Layer::Fresh | Layer::Runtime => (Vec::new(), None),
            };
            all.push(Asked { layer: *layer, answers, remark });
        }
        let place = |wanted| all.iter().position(|asked: &Asked| asked.layer == wanted);
        match (choice, used) {
            (Choice::Always(_), _) => all.insert(0, runtime()),
            (Choice::Instead(_), _) | (_, Some(Found { party: Party::Runtime, .. })) => {
                all.insert(place(Layer::Process).unwrap_or(all.len()), runtime());
            }
            // The unit's own, although the order does not have it.
            (_, Some(Found { party: Party::Unit, .. })) if place(Layer::Unit).is_none() => {
                let (answers, remark) = self.in_unit(used);
                all.push(Asked { layer: Layer::Unit, answers, remark });
            }
            _ => {}
        }
        all
    }

    fn in_unit(&self, used: Option<Found>) -> (Vec<Answer>, Option<String>) {
        let Some(asker) = self.members.get(self.position) else {
            return (Vec::new(), Some("no unit in particular asks".to_owned()));
        };
        let wins = used.is_some_and(|found| found.party == Party::Unit);
        let holdings = asker.mapped.symbols.all(self.name, self.version);
        let answers = holdings.into_iter().map(|holding| {
            let verdict = match wins && self.own == Some(holding.index) {
                true => Verdict::Used,
                false if holding.shared => Verdict::NotCounted(Reason::Replaced),
                false => Verdict::Shadowed,
            };
            answer(asker.name.to_string(), &holding, verdict)
        });
        (answers.collect(), None)
    }

    fn in_host(&self, layers: &Layers<'_>, used: Option<Found>) -> Vec<Answer> {
        let found = layers.host.find(self.name);
        let answer = found.map(|found| Answer {
            unit: "host".to_owned(),
            kind: found.kind,
            weak: found.shared,
            version: None,
            verdict: match used {
                Some(used) if used.party == Party::Host => Verdict::Used,
                _ => Verdict::Shadowed,
            },
            sameness: None,
        });
        answer.into_iter().collect()
    }

    fn in_images(&self, layers: &Layers<'_>, images: &[Arc<Image>], used: Option<Found>) -> Vec<Answer> {
        let mut answers = Vec::new();
        for image in images {
            let wins = used.is_some_and(|found| match found.party {
                Party::Image(at) => layers.held.get(at).is_some_and(|held| Arc::ptr_eq(&held, image)),
                _ => false,
            });
            for holding in image.symbols().all(self.name, self.version) {
                let replaced = holding.shared && image.shared().counts(holding.index) == Some(false);
                let verdict = self.verdict(&holding, wins, || replaced.then_some(Reason::Replaced));
                answers.push(answer(image.name().to_owned(), &holding, verdict));
            }
        }
        for (at, member) in self.members.iter().enumerate().filter(|(at, _)| *at != self.position) {
            let wins = used.is_some_and(|found| found.party == Party::Member(at));
            let replaced = used.is_some_and(|found| found.layer == Layer::Process);
            for holding in member.mapped.symbols.all(self.name, self.version) {
                let verdict =
                    self.verdict(&holding, wins, || (holding.shared && replaced).then_some(Reason::Replaced));
                answers.push(answer(member.name.to_string(), &holding, verdict));
            }
        }
        answers
    }

    fn in_process(&self, layers: &Layers<'_>, choice: Choice) -> Vec<Answer> {
        let view = layers.process;
        let used = match choice {
            Choice::Of(found) => Some(found),
            _ => None,
        };
        // Whoever has a weak definition and uses it has found no other that counts.
        let keeps_own = used.is_some_and(|found| found.party == Party::Unit && found.shared);
        let mut answers = Vec::new();
        let mut first = true;
        for holder in view.all(self.name, self.version) {
            let holding = &holder.holding;
            let wins = used.is_some_and(|found| found.party == Party::Process(holder.at));
            let verdict = self.verdict(holding, wins, || match choice {
                Choice::Always(_) | Choice::Instead(_) => first.then_some(Reason::StandIn),
                _ if !keeps_own => None,
                _ if is_mangled(self.name.bytes) => Some(Reason::Guard),
                _ => Some(Reason::NotShared),
            });
            first &= !holding.answers;
            let unit = match view.path(holder.at) {
                "" => "the program".to_owned(),
                path => path.to_owned(),
            };
            answers.push(answer(unit, holding, verdict));
        }
        if let Some(Found { party: Party::Unknown, kind, shared, .. }) = used {
            let unit = "a library that somebody opened for everybody".to_owned();
            answers.push(Answer {
                unit,
                kind,
                weak: shared,
                version: None,
                verdict: Verdict::Used,
                sameness: None,
            });
        }
        answers
    }

    /// What became of a definition, given whether its owner's was taken, or why it could not have been.
    fn verdict(&self, holding: &Holding, wins: bool, why: impl FnOnce() -> Option<Reason>) -> Verdict {
        if !holding.answers {
            let hidden = self.version.is_none() && holding.hidden;
            Verdict::NotCounted(if hidden { Reason::HiddenVersion } else { Reason::OtherVersion })
        } else if wins {
            Verdict::Used
        } else {
            why().map_or(Verdict::Shadowed, Verdict::NotCounted)
        }
    }
}

impl Explanation {
    /// Adds what the libraries of the system say, which were asked because nobody else has the symbol.
    pub fn add_on_demand(&mut self, said: &on_demand::Answer) {
        let is_had = self.winner().is_some();
        let Some(asked) = self.asked.iter_mut().find(|asked| asked.layer == Layer::OnDemand) else { return };
        asked.remark = None;
        match said {
            on_demand::Answer::Nobody => {}
            on_demand::Answer::Refused { interposer } => {
                asked.remark = Some(format!(
                    "only {} has it, which is made to stand in front of other libraries and is never loaded on demand",
                    interposer.display()
                ));
            }
            on_demand::Answer::Found { library, others } => {
                for (at, path) in std::iter::once(library).chain(others).enumerate() {
                    let verdict = if at == 0 && !is_had { Verdict::Used } else { Verdict::Shadowed };
                    asked.answers.push(of_file(path, &self.symbol, self.version.clone(), verdict));
                }
                self.near.clear();
            }
        }
    }
}

/// The definition in a library that is not opened.
fn of_file(path: &Path, symbol: &str, version: Option<String>, verdict: Verdict) -> Answer {
    let (mut kind, mut weak) = (SymbolKind::Function, false);
    if let Some(file) = LibraryFile::open(path) {
        file.for_each_export(|export| {
            let found = export.name == symbol.as_bytes();
            if found {
                (kind, weak) = (export.kind, !export.strong);
            }
            !found
        });
    }
    Answer { unit: path.to_string_lossy().into_owned(), kind, weak, version, verdict, sameness: None }
}

/// Says of shared definitions that are not used how they compare with the one that is, where that is another unit's.
fn compare(explanation: &mut Explanation, images: &[Arc<Image>], members: &[Member]) {
    let is_copy = |layer: Layer, answer: &Answer| answer.weak && matches!(layer, Layer::Unit | Layer::Images);
    let used = explanation.winner().filter(|(asked, answer)| is_copy(asked.layer, answer));
    let Some(used) = used.map(|(_, answer)| answer.unit.clone()) else { return };
    let symbol = explanation.symbol.clone();
    let identity = |unit: &str| {
        let members = members.iter().map(|member| (&*member.name, &*member.mapped));
        let images = images.iter().map(|image| (image.name(), image.mapped()));
        let (_, mapped) = members.chain(images).find(|(name, _)| *name == unit)?;
        mapped.identities()?.of(symbol.as_bytes())
    };
    let all = explanation.asked.iter_mut().flat_map(|Asked { layer, answers, .. }| {
        answers.iter_mut().filter(|answer| is_copy(*layer, answer) && answer.verdict != Verdict::Used)
    });
    // Nothing is read unless there are several.
    let mut of_used = None;
    for answer in all {
        let of_used = *of_used.get_or_insert_with(|| identity(&used));
        answer.sameness = Some(Sameness::of(of_used, identity(&answer.unit)));
    }
}

/// Hotbed's own function.
fn runtime() -> Asked {
    let unit = Layer::Runtime.to_string();
    let kind = SymbolKind::Function;
    let answer = Answer { unit, kind, weak: false, version: None, verdict: Verdict::Used, sameness: None };
    Asked { layer: Layer::Runtime, answers: vec![answer], remark: None }
}

fn answer(unit: String, holding: &Holding, verdict: Verdict) -> Answer {
    let version = holding.version.map(text);
    Answer { unit, kind: holding.kind, weak: holding.shared, version, verdict, sameness: None }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Everybody who has names. To be dropped without a lock, as an image may end with it.
struct Known<'a> {
    host: Vec<Vec<u8>>,
    images: Vec<Arc<Image>>,
    members: &'a [Member],
    view: &'a ProcessView,
}

impl Known<'_> {
    /// All names that somebody exports, units first.
    fn names(&self) -> impl Iterator<Item = &[u8]> + '_ {
        fn shorter<'a>(name: &'static [u8]) -> &'a [u8] {
            name
        }
        let members = self.members.iter().flat_map(|member| member.mapped.symbols.exported().map(shorter));
        let images = self.images.iter().flat_map(|image| image.symbols().exported().map(shorter));
        let host = self.host.iter().map(Vec::as_slice);
        members.chain(host).chain(images).chain(self.view.exported().map(shorter))
    }

    fn near(&self, wanted: &str) -> Vec<String> {
        let mut nearest = Nearest::new(wanted);
        self.names().for_each(|name| nearest.consider(name));
        nearest.names()
    }

    /// The symbol behind a name as C++ source has it, if it is one: what the members refer to comes first.
    fn mangled(&self, source: &str) -> Option<String> {
        let is_source = |byte: u8| b":(<[ ~".contains(&byte);
        if !source.bytes().any(is_source) {
            return None;
        }
        let squeezed = |text: &str| text.replace(' ', "");
        let wanted = squeezed(source);
        // Its own letters are in the mangled name, so most names need not be demangled.
        let end = source.find(['(', '<', '[']).unwrap_or(source.len());
        let begin = source[..end].rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |at| at + 1);
        let part = if source.contains("operator") { "" } else { &source[begin..end] };
        // The text of a template has the type of its result in front.
        let with_type = format!(" {source}");
        let is_wanted = |text: &str| squeezed(text) == wanted || text.ends_with(&with_type);
        let imports = self.members.iter().flat_map(|member| member.mapped.symbols.iter());
        let imports = imports.filter(|(_, symbol, _)| !symbol.is_defined()).map(|(_, _, name)| name);
        imports.chain(self.names()).find_map(|name| {
            let name = std::str::from_utf8(name).ok()?;
            (name.starts_with("_Z") && name.contains(part) && is_wanted(&demangle(name)?))
                .then(|| name.to_owned())
        })
    }
}
