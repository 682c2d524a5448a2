//! What was compiled is kept: a process of its own links it into the image, and puts that into the store in the place of
//! the one that was mapped. Nobody waits for it, and nobody is told when it fails: then it is compiled once more.

use hotbed_loader::boundary::Request;
use hotbed_loader::codec::{CodecError, Reader, Writer};
use hotbed_loader::store::Key;
use std::path::PathBuf;
use std::sync::Arc;

/// Where an image of the store comes from.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// What it was made of.
    pub(crate) request: Arc<Request>,
    /// Its checksum.
    pub(crate) checksum: [u8; 32],
}

/// What a keeper is told.
#[derive(Debug, PartialEq)]
pub(crate) struct Order {
    /// The store's directory.
    pub(crate) store: PathBuf,
    /// How large it gets, in bytes.
    pub(crate) budget: u64,
    /// The plugin; empty where the back end is linked in.
    pub(crate) plugin: PathBuf,
    /// Images, and what was compiled of them.
    pub(crate) images: Vec<Grown>,
}

/// An image, and what was compiled of it.
#[derive(Debug, PartialEq)]
pub(crate) struct Grown {
    /// What it was made of.
    pub(crate) request: Request,
    /// Its checksum.
    pub(crate) checksum: [u8; 32],
    /// What the back end has said was compiled.
    pub(crate) bodies: Vec<u8>,
}

impl Grown {
    /// What the store knows it by.
    pub(crate) fn key(&self) -> Key {
        Key::of(&self.request)
    }
}

impl Order {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Self { store, budget, plugin, images } = self;
        let mut w = Writer::new();
        w.path(store);
        w.u64(*budget);
        w.path(plugin);
        w.list(images, |w, Grown { request, checksum, bodies }| {
            w.bytes(&request.encode());
            w.raw(checksum);
            w.bytes(bodies);
        });
        w.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut r = Reader::new(bytes);
        let (store, budget, plugin) = (r.path()?, r.u64()?, r.path()?);
        let images = r.list(|r| {
            let request = Request::decode(r.bytes()?)?;
            let mut checksum = [0; 32];
            checksum.copy_from_slice(r.raw(32)?);
            Ok(Grown { request, checksum, bodies: r.bytes()?.to_vec() })
        })?;
        Ok(Self { store, budget, plugin, images })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;

    #[test]
    fn an_order_survives_the_way() {
        let request = Request {
            unit: "unit".into(),
            arguments: Vec::new(),
            directory: "/tmp".into(),
            entry: Some("main".into()),
            lazy: true,
            ..Request::default()
        };
        let grown = Grown { request, checksum: [7; 32], bodies: vec![1, 2, 3] };
        let order =
            Order { store: "/store".into(), budget: 7 << 30, plugin: PathBuf::new(), images: vec![grown] };
        let bytes = order.encode();
        assert_eq!(Order::decode(&bytes).unwrap(), order);
        assert!((0..bytes.len()).all(|length| Order::decode(&bytes[..length]).is_err()));
    }
}
