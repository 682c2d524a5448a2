//! What the store would answer, entry by entry, without anything being done: nothing is written, not even a memo.

use super::Store;
use super::key::Key;
use super::reasons::Miss;
use super::record::Checker;
use super::settings::Settings;
use super::siblings::Fate;
use crate::boundary::Request;
use std::path::PathBuf;

/// What the store would answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// The image that would be mapped, or why something has to be compiled.
    pub answer: Result<PathBuf, Miss>,
    /// Everything that was made of the same inputs, in the order in which it is looked at; what was made in other ways comes
    /// last, the newest first.
    pub entries: Vec<Considered>,
}

/// An entry, and what is to be said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Considered {
    /// The flags it was made with.
    pub flags: String,
    /// Its image; none where an entry is known of by hearsay.
    pub image: Option<PathBuf>,
    /// Why it does not serve; nothing if it does.
    pub miss: Option<Miss>,
}

impl Store {
    /// What [`Store::find`] would say to `request`, and why.
    pub fn why(&self, request: &Request) -> Why {
        let settings = Settings::of(request);
        let key = Key::of_settings(&settings);
        let mut entries = Vec::new();
        let mut checker = Checker::new(&request.directory);
        let found = self.manifest(&self.manifest_path(&key)).map(|manifest| manifest.entries);
        let (found, mut miss) = found.map_or_else(|miss| (Vec::new(), Some(miss)), |found| (found, None));
        for mut entry in found {
            let answer = self.open_entry(&key, &mut entry, &mut checker);
            let flags = Settings { level: entry.level, ..settings.clone() }.flags();
            let image = Some(self.image_path(&entry.checksum));
            let refused = answer.err().map(|miss| self.explain(request, miss));
            entries.push(Considered { flags, image, miss: refused });
        }
        let chosen = entries.iter().find(|entry| entry.miss.is_none()).and_then(|entry| entry.image.clone());
        if chosen.is_none() && miss.is_none() {
            let reasons = entries.iter().filter_map(|entry| entry.miss.as_ref());
            miss = reasons.min_by_key(|miss| miss.is_of_settings()).cloned();
        }
        for sibling in self.siblings(&settings).unwrap_or_default() {
            let Some(other) = sibling.settings() else { continue };
            // Others are in manifests of their own.
            let is_here = Key::of_settings(&other).hex() == key.hex();
            if !is_here || sibling.fate == Fate::Unrepeatable {
                let reasons = sibling.reasons(&settings).unwrap_or_default();
                let miss = reasons.into_iter().next();
                entries.push(Considered { flags: other.flags(), image: None, miss });
            }
        }
        let answer = chosen.ok_or_else(|| self.explain(request, miss.unwrap_or(Miss::NoEntry)));
        Why { answer, entries }
    }
}
