//! What else was made of the same inputs: with other flags, in another environment, by another build. It is there to say
//! why there is no entry, and to keep variants few (see `variants`); nothing is found by it, and it is looked at only when nothing is.
//!
//! `<store>/siblings/<hash>`, the hash being that of the inputs' kinds and names. Contents, in the encoding of
//! [`crate::codec`]: a magic text with the version of this format; a list, the newest first, of what became of an image (a
//! byte, see [`Fate`]) and the settings that it was made with ([`super::settings`], a byte string); and a BLAKE3 hash over all
//! that. Whatever is wrong with such a file only makes a reason less precise.

use super::Store;
use super::reasons::Miss;
use super::settings::Settings;
use crate::boundary::{Content, Request};
use crate::codec::{CodecError, Reader, Writer};
use crate::sys::files;
use std::path::PathBuf;
#[cfg(test)]
use {
    super::level::Level,
    super::settings::{Piece, Processor},
    crate::boundary::Lang,
    crate::cpu::CpuFeatures,
    std::path::Path,
};

pub(super) const FOLDER: &str = "siblings";
const MAGIC: &[u8; 8] = b"HotbedS2";
const HASH_BYTES: usize = 32;
/// What became of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Fate {
    /// It went into the store.
    Kept = 0,
    /// It depends on the time of its compilation, or on files that nobody saw the assembler read.
    Unrepeatable = 1,
}

/// The settings that something was made with, encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sibling {
    pub(super) fate: Fate,
    settings: Vec<u8>,
}

impl Sibling {
    /// The settings, if they are of a form that is known here.
    pub(super) fn settings(&self) -> Option<Settings<'_>> {
        Settings::decode(&self.settings).ok()
    }
}

impl Store {
    /// Remembers with which settings `request` was made, for explanations. Of what was made of the same inputs only so much
    /// is kept; what was used least goes.
    pub fn note(&self, request: &Request, fate: Fate) {
        let settings = Settings::of(request);
        let sibling = Sibling { fate, settings: settings.encode() };
        let path = self.siblings_path(&settings);
        self.change(&path, || {
            let mut all = self.siblings(&settings).unwrap_or_default();
            if all.first() == Some(&sibling) {
                return;
            }
            all.retain(|other| other.settings != sibling.settings);
            all.insert(0, sibling);
            self.limit_variants(&mut all);
            // Best effort: without it a reason is less precise.
            let _ = self.write(&path, &encode(&all), false);
        });
    }

    /// The reason why nothing was found for `request`, made more precise by what is known of the request and of what else
    /// was made of its inputs.
    pub fn explain(&self, request: &Request, miss: Miss) -> Miss {
        match miss {
            Miss::NoEntry => self.nearest(&Settings::of(request)),
            Miss::DependencyChanged(path) => {
                let is_it = |content: &Content| matches!(content, Content::File(file) if *file == path);
                if request.inputs().any(|input| is_it(&input.content)) {
                    Miss::InputChanged(path)
                } else {
                    Miss::DependencyChanged(path)
                }
            }
            other => other,
        }
    }

    /// What sets the sibling apart that differs in the fewest things.
    fn nearest(&self, asked: &Settings<'_>) -> Miss {
        let siblings = match self.siblings(asked) {
            Ok(siblings) => siblings,
            Err(miss) => return miss,
        };
        let reasons = siblings.iter().filter_map(|sibling| sibling.reasons(asked));
        let nearest = reasons.min_by_key(Vec::len);
        nearest.and_then(|reasons| reasons.into_iter().next()).unwrap_or(Miss::NoEntry)
    }

    /// What was made of the inputs in `settings`, the newest first.
    ///
    /// # Errors
    /// That nothing was, or is known to have been.
    pub(super) fn siblings(&self, settings: &Settings<'_>) -> Result<Vec<Sibling>, Miss> {
        let bytes = files::open_no_follow(&self.siblings_path(settings))
            .and_then(|(file, status)| files::contents_of(&file, status.identity.size))
            .map_err(|_| Miss::NoEntry)?;
        decode(&bytes)
    }

    fn siblings_path(&self, settings: &Settings<'_>) -> PathBuf {
        self.named(FOLDER, &settings.inputs_hash().to_hex(), "")
    }
}

impl Sibling {
    /// Why it does not serve who asks for `asked`; nothing where its settings are of another form.
    pub(super) fn reasons(&self, asked: &Settings<'_>) -> Option<Vec<Miss>> {
        let reasons = asked.differences(&self.settings()?);
        Some(match (reasons.is_empty(), self.fate) {
            (true, Fate::Unrepeatable) => vec![Miss::Unrepeatable],
            (true, Fate::Kept) => vec![Miss::Dropped],
            (false, _) => reasons,
        })
    }
}

pub(super) fn encode(siblings: &[Sibling]) -> Vec<u8> {
    let mut w = Writer::new();
    w.raw(MAGIC);
    w.list(siblings, |w, Sibling { fate, settings }| {
        w.u8(*fate as u8);
        w.bytes(settings);
    });
    let mut bytes = w.finish();
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    bytes
}

pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Sibling>, Miss> {
    let (contents, hash) =
        bytes.len().checked_sub(HASH_BYTES).and_then(|at| bytes.split_at_checked(at)).ok_or(Miss::NoEntry)?;
    if blake3::hash(contents).as_bytes() != hash {
        return Err(Miss::NoEntry);
    }
    let contents = contents.strip_prefix(MAGIC).ok_or(Miss::Format)?;
    let read = |r: &mut Reader<'_>| {
        let fate = match r.u8()? {
            0 => Fate::Kept,
            1 => Fate::Unrepeatable,
            _ => return Err(CodecError("an unknown fate")),
        };
        Ok(Sibling { fate, settings: r.bytes()?.to_vec() })
    };
    Reader::new(contents).list(read).map_err(|_| Miss::Format)
}

/// Siblings with something of everything.
#[cfg(test)]
pub(super) fn sample() -> Vec<Sibling> {
    let settings = Settings {
        build: "0.1.0-0",
        lazy: true,
        arguments: vec![
            Piece::Flag("-DX"),
            Piece::Input { lang: Lang::C, name: b"a.c", contents: None },
            Piece::Input { lang: Lang::Ir, name: b"m", contents: Some([7; 32]) },
        ],
        entry: Some("main"),
        soname: None,
        images: vec![("one.hbi", [7; 32])],
        whole_archives: true,
        trace: Some([9; 32]),
        environment: vec![("CPATH", "x")],
        directory: Some(Path::new("/there")),
        processor: Some(Processor { signature: 1, features: CpuFeatures::named(["avx"]) }),
        level: Some(Level::O2),
    };
    let unranked = Settings { level: None, ..settings.clone() };
    [(Fate::Kept, settings), (Fate::Unrepeatable, unranked)]
        .map(|(fate, settings)| Sibling { fate, settings: settings.encode() })
        .into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::super::tests::{Scratch, request};
    use super::super::variants::VARIANTS;
    use super::*;
    use crate::boundary::{Argument, Input};
    use crate::cpu::CpuLevel;

    fn of(flags: &str) -> Request {
        let input = Argument::Input(Input { lang: Lang::C, content: Content::File("a.c".into()) });
        let flags = flags.split_whitespace().map(|flag| Argument::Flag(flag.into()));
        request(flags.chain([input]).collect())
    }

    #[test]
    fn the_nearest_sibling_gives_the_reason() {
        let scratch = Scratch::new("siblings");
        let store = scratch.store();
        let why = |request: &Request| store.explain(request, Miss::NoEntry);
        assert_eq!(why(&of("-O2")), Miss::NoEntry);
        store.note(&of("-O2 -fno-inline -ffast-math"), Fate::Kept);
        store.note(&of("-O2 -DA"), Fate::Kept);
        store.note(&of("-O2"), Fate::Kept);
        let named = |flags: &str| why(&of(flags)).name();
        assert_eq!(named("-O2 -g"), "debug-info");
        assert_eq!(named("-O2 -fno-inline"), "inlining");
        assert_eq!(named("-O2 -fno-inline -ffast-math -lm"), "flags");
        assert_eq!(named("-Os"), "level");
        assert_eq!(named("-O1"), "dropped");
        assert_eq!(named("-O2 -DA -fsanitize=bounds"), "bounds-checks");
        assert_eq!(named("-O2 -ffast-math"), "floating-point");
        assert_eq!(named("-O2 -march=haswell"), "processor");
        assert_eq!(named("-O2 --target=x86_64-linux-gnu"), "target");
        assert_eq!(
            why(&of("-O2 -DB")).to_string(),
            "flags differ: -DB is asked for, the entry has no such flag"
        );
        assert_eq!(why(&Request { lazy: true, ..of("-O2") }).name(), "form");
        assert_eq!(why(&Request { entry: Some("main".into()), ..of("-O2") }).name(), "linkage");
        let environment = vec![("CPATH".to_owned(), "x".to_owned())];
        assert_eq!(why(&Request { environment, ..of("-O2") }), Miss::Environment("CPATH".into()));
        store.note(&of("-g"), Fate::Unrepeatable);
        assert_eq!(named("-g"), "unrepeatable");
        let elsewhere = Request { directory: "/there".into(), ..of("-g") };
        assert_eq!(why(&elsewhere), Miss::Directory("/".into()));
        // Other inputs have other siblings.
        let mut other = of("-O2");
        other.arguments.pop();
        assert_eq!(why(&other), Miss::NoEntry);
    }

    #[test]
    fn inputs_in_memory_builds_and_processors_are_told_apart() {
        let request = |bytes: &[u8]| {
            let content = Content::Bytes { name: "m".into(), bytes: bytes.into() };
            request(vec![
                Argument::Flag("-march=native".into()),
                Argument::Input(Input { lang: Lang::C, content }),
            ])
        };
        let (one, other) = (request(b"1"), request(b"2"));
        let (asked, has) = (Settings::of(&one), Settings::of(&other));
        assert_eq!(asked.differences(&has), [Miss::InputChanged("m".into())]);
        let has = Settings { build: "older", ..asked.clone() };
        assert_eq!(asked.differences(&has), [Miss::Build("older".into())]);
        let of = |signature, level: CpuLevel| {
            let processor = Some(Processor { signature, features: level.features() });
            Settings { processor, ..asked.clone() }
        };
        let miss = |asked: &Settings<'_>, has: &Settings<'_>| {
            let reasons = asked.differences(has);
            assert!(matches!(reasons[..], [Miss::Features(_)]), "{reasons:?}");
            reasons[0].to_string()
        };
        let lacking = miss(&of(1, CpuLevel::V2), &of(2, CpuLevel::V3));
        assert!(lacking.contains("the processor has x86-64-v2: missing are avx, avx2, bmi"), "{lacking}");
        // Tuned for another one.
        assert_eq!(miss(&of(1, CpuLevel::V3), &of(2, CpuLevel::V3)), "the entry is for another processor");
    }

    #[test]
    fn siblings_are_few_and_damage_does_no_harm() {
        let scratch = Scratch::new("few-siblings");
        let store = scratch.store();
        for number in 0..2 * VARIANTS {
            store.note(&of(&format!("-DN={number}")), Fate::Kept);
            store.note(&of("-O2"), Fate::Kept);
        }
        let request = of("");
        let path = store.siblings_path(&Settings::of(&request));
        let good = std::fs::read(&path).unwrap();
        let siblings = decode(&good).unwrap();
        assert_eq!(siblings.len(), VARIANTS);
        assert_eq!(siblings[0].settings().unwrap(), Settings::of(&of("-O2")));
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(store.explain(&request, Miss::NoEntry), Miss::NoEntry, "flipped at {at}");
            assert_eq!(decode(&good[..at]), Err(Miss::NoEntry), "cut at {at}");
        }
        let mut newer = good[..good.len() - HASH_BYTES].to_vec();
        newer[7] = b'9';
        newer.extend_from_slice(blake3::hash(&newer).as_bytes());
        std::fs::write(&path, &newer).unwrap();
        assert_eq!(store.explain(&request, Miss::NoEntry), Miss::Format);
        store.note(&request, Fate::Kept);
        assert_eq!(store.explain(&request, Miss::NoEntry), Miss::Dropped);
    }
}
