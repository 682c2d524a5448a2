//! What reads bytes that may be damaged or hostile, each behind one function: for the fuzzers in `fuzz/` and for the test
//! that gives them mutated files by the hundred thousand.
//!
//! A function here panics when something is wrong with the reader, for example when what it has read does not survive
//! being written again; it says nothing about the bytes. No code of an image runs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failure shall say where")]

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod hostile;
pub mod mutation;

use crate::boundary::{Request, decode_answer, encode_answer};
use crate::image::note::{self, Layout};
use crate::image::{
    ImageDependency, ImageDescription, ImageError, Interface, Metadata, unit_names, variants,
};
use crate::{ImageSource, Loader, LoaderOptions};
use std::sync::LazyLock;

/// How far a damaged file came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was refused, with a reason.
    Refused,
    /// It was accepted.
    Accepted,
}

impl<T, E: std::fmt::Display> From<Result<T, E>> for Outcome {
    fn from(result: Result<T, E>) -> Self {
        match result {
            Ok(_) => Self::Accepted,
            Err(error) => {
                assert!(!error.to_string().is_empty(), "a refusal without a reason");
                Self::Refused
            }
        }
    }
}

/// Maps an image, resolves and relocates it, and reads all its tables. `others` are sound images that are bound to it or to
/// one another then.
pub fn image(bytes: &[u8], others: &[&[u8]]) -> Outcome {
    static LOADER: LazyLock<Loader> = LazyLock::new(|| {
        Loader::new(LoaderOptions { uncompiled_functions: true, ..LoaderOptions::default() })
    });
    let loader = &*LOADER;
    let image = match loader.bind_only("fuzzed", ImageSource::Bytes(bytes)) {
        Ok(image) => image,
        refused => return refused.map(|_| ()).into(),
    };
    let inspected = image.inspect();
    // Whatever they make of it: they look for their names in its tables.
    for other in others {
        let _ = loader.bind_only("other", ImageSource::Bytes(other));
    }
    inspected.into()
}

/// Looks for the note of an image, its checksum, its variants and the metadata, and describes it.
pub fn note(bytes: &[u8]) -> Outcome {
    let mut sealed = bytes.to_vec();
    if let Ok(checksum) = note::seal(&mut sealed) {
        assert_eq!(note::verify(&sealed), Ok(checksum));
        assert_eq!(note::recorded_checksum(&*sealed), Ok(checksum));
    }
    if let Ok(all) = variants(bytes) {
        let inside: usize = all.iter().map(|variant| variant.bytes.len()).sum();
        assert!(!all.is_empty() && inside <= bytes.len());
        all.iter().for_each(|variant| describe(variant.bytes.to_vec()));
    }
    let _ = (note::verify(bytes), unit_names(bytes), ImageDescription::of(bytes));
    Metadata::of_file(bytes).into()
}

/// Describes an image of somebody who means harm, and so has it say of itself what is checked first.
fn describe(mut image: Vec<u8>) {
    let Ok(interface) = Interface::of_file(&image) else { return };
    // A variant that ends like a file with variants.
    if variants(&image).is_ok_and(|all| all.len() > 1) {
        return;
    }
    let described = note::layout(&image)
        .and_then(|layout| note::set_layout(&mut image, &Layout { interface: interface.hash(), ..layout }))
        .and_then(|()| note::seal(&mut image))
        .and_then(|_| ImageDescription::of(&image));
    assert!(described.is_ok() || described.is_err_and(|error| error != ImageError::Checksum));
}

/// Decodes metadata, requests, answers, and what images remember of others.
pub fn codec(bytes: &[u8]) -> Outcome {
    let mut outcome = Outcome::Refused;
    if let Ok(metadata) = Metadata::decode(bytes) {
        assert_eq!(Metadata::decode(&metadata.encode()), Ok(metadata));
        outcome = Outcome::Accepted;
    }
    if let Ok(request) = Request::decode(bytes) {
        assert_eq!(Request::decode(&request.encode()), Ok(request));
        outcome = Outcome::Accepted;
    }
    if let Ok(dependencies) = ImageDependency::decode_all(bytes) {
        let again = ImageDependency::encode_all(&dependencies);
        assert_eq!(ImageDependency::decode_all(&again), Ok(dependencies));
    }
    if let Ok(answer) = decode_answer(bytes) {
        let again = encode_answer(&answer);
        // The values themselves may be no numbers, which are not equal to themselves.
        assert_eq!(encode_answer(&decode_answer(&again).unwrap()), again);
        outcome = Outcome::Accepted;
    }
    outcome
}

pub use crate::store::fuzz as store;
