//! Stocks: what a back end gave to be kept when something was compiled, so that compiling it once more, when a little of it has changed, takes
//! less time. What is in one is the back end's own affair, and checked by it.
//!
//! `<store>/stocks/<hash>`, the hash being that of all that must be the same for a stock to be of use: the unit's name, the directory, and the
//! settings without the contents of what is in memory. There is one for each of those, the newest, written as a whole and not
//! synced: whatever becomes of it costs time and nothing else. So stocks are the first to go when there is no room, the oldest first, and
//! are never looked for in layers.

use super::Store;
use super::collect::Collected;
use super::contents::Contents;
use super::settings::{Piece, Settings};
use crate::boundary::Request;
use crate::codec::Writer;
use crate::sys::files;
use std::path::PathBuf;

pub(super) const FOLDER: &str = "stocks";

/// One stock may take so much of the budget: what is larger pushes out what is worth more.
const LARGEST_SHARE: u64 = 16;

impl Store {
    /// What was kept when `request` was last compiled, or something that differs from it in the contents of inputs only; empty if
    /// there is nothing that can be used.
    pub fn stock(&self, request: &Request) -> Vec<u8> {
        let read = || {
            let (file, status) = files::open_no_follow(&self.stock_path(request)).ok()?;
            let ours = status.owner == files::effective_user() && status.mode & 0o022 == 0;
            files::contents_of(&file, status.identity.size).ok().filter(|_| ours)
        };
        read().unwrap_or_default()
    }

    /// Keeps what a back end has given with what it made of `request`. What cannot be kept is not.
    pub fn keep_stock(&self, request: &Request, stock: &[u8]) {
        if stock.len() as u64 <= self.budget / LARGEST_SHARE {
            let _shared = self.adding();
            let _ = self.write(&self.stock_path(request), stock, false);
        }
    }

    fn stock_path(&self, request: &Request) -> PathBuf {
        let mut settings = Settings::of(request);
        for piece in &mut settings.arguments {
            if let Piece::Input { contents, .. } = piece {
                *contents = None;
            }
        }
        let mut w = Writer::new();
        w.text(&request.unit);
        w.path(&request.directory);
        w.bytes(&settings.encode());
        self.named(FOLDER, &blake3::hash(&w.finish()).to_hex(), "")
    }
}

/// Removes stocks, the oldest first, until what there is has no more than `goal` bytes, or no stock is left.
pub(super) fn make_room(contents: &Contents, bytes: u64, goal: u64, collected: &mut Collected) {
    let mut stocks: Vec<_> = contents.stocks.iter().collect();
    stocks.sort_by_key(|(_, _, written)| *written);
    let mut left = bytes;
    for (path, size, _) in stocks {
        if left <= goal {
            return;
        }
        if collected.remove(path, *size) {
            left = left.saturating_sub(*size);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::super::tests::{Scratch, request};
    use super::*;
    use crate::boundary::{Argument, Content, Input, Lang};
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn of(flag: &str, bytes: &[u8]) -> Request {
        let content = Content::Bytes { name: "a.c".into(), bytes: bytes.into() };
        let input = Argument::Input(Input { lang: Lang::C, content });
        request(vec![Argument::Flag(flag.into()), input])
    }

    #[test]
    fn it_is_found_again_when_contents_have_changed_and_nothing_else_has() {
        let scratch = Scratch::new("stocks");
        let store = scratch.store();
        assert!(store.stock(&of("-O1", b"1")).is_empty());
        store.keep_stock(&of("-O1", b"1"), b"old");
        store.keep_stock(&of("-O1", b"1"), b"stock");
        assert_eq!(store.stock(&of("-O1", b"2")), b"stock");
        let asks = Request { stock: Some(vec![1]), color: true, ..of("-O1", b"1") };
        assert_eq!(store.stock(&asks), b"stock");
        for other in [
            of("-O2", b"1"),
            of("-DX", b"1"),
            Request { unit: "other".into(), ..of("-O1", b"1") },
            Request { directory: "/other".into(), ..of("-O1", b"1") },
        ] {
            assert!(store.stock(&other).is_empty());
        }
    }

    #[test]
    fn what_is_not_ours_is_not_used() {
        let scratch = Scratch::new("stocks-foreign");
        let store = scratch.store();
        let request = of("-O1", b"");
        store.keep_stock(&request, b"stock");
        let path = store.stock_path(&request);
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        mode(0o666);
        assert!(store.stock(&request).is_empty());
        mode(0o600);
        let elsewhere = scratch.path("elsewhere");
        std::fs::rename(&path, &elsewhere).unwrap();
        symlink(&elsewhere, &path).unwrap();
        assert!(store.stock(&request).is_empty());
        store.keep_stock(&request, b"new");
        assert_eq!(store.stock(&request), b"new");
        assert_eq!(std::fs::read(elsewhere).unwrap(), b"stock");
    }

    #[test]
    fn stocks_go_first_and_the_oldest_of_them() {
        let scratch = Scratch::new("stocks-room");
        let store = scratch.store().with_budget(1 << 20);
        let stock = vec![7; 60 << 10];
        for number in 0..20 {
            store.keep_stock(&of(&format!("-DN={number}"), b""), &stock);
        }
        let there = |number: u32| !store.stock(&of(&format!("-DN={number}"), b"")).is_empty();
        assert!((0..20).all(there));
        store.collect().unwrap().unwrap();
        assert!(!there(0) && there(19));
        assert!(store.stat().bytes <= 1 << 20);
        assert_eq!(store.stat().stocks, (0..20).filter(|&number| there(number)).count() as u64);
        store.clear().unwrap().unwrap();
        assert_eq!(store.stat().bytes, 0);
        // What takes up too much is not kept.
        store.keep_stock(&of("-O1", b""), &vec![0; 70 << 10]);
        assert!(store.stock(&of("-O1", b"")).is_empty());
    }
}
