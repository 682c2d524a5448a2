//! Near misses: names that somebody has and that are like one that nobody has.
//!
//! Two names are near when few letters have to be changed, added, left out or swapped with their neighbours to make one of
//! the other; names of C++ also when their demangled texts are, or when they are near but for scope and
//! parameters (`helper(int)`, `n::helper(long)`, and `helper` of C, where an `extern "C"` is missing).

use crate::error::demangle;
use std::collections::HashSet;

/// How many are named.
const MOST: usize = 5;

/// A name that nobody has, and what is nearest to it so far.
pub(crate) struct Nearest {
    wanted: String,
    /// As source has it.
    text: String,
    /// Without scope and parameters, where it is C++.
    plain: String,
    letters: u64,
    /// Distance, order of arrival, text.
    found: Vec<(usize, usize, String)>,
    seen: HashSet<String>,
}

impl Nearest {
    /// Nothing found yet for `wanted`, which is mangled or as source has it.
    pub(crate) fn new(wanted: &str) -> Self {
        let text = demangle(wanted).unwrap_or_else(|| wanted.to_owned());
        Self {
            letters: letters(wanted),
            wanted: wanted.to_owned(),
            plain: plain(&text).to_owned(),
            text,
            found: Vec::new(),
            seen: HashSet::new(),
        }
    }

    /// Looks at a name that somebody has. Of equally near ones those that come first are preferred.
    pub(crate) fn consider(&mut self, name: &[u8]) {
        let Ok(name) = std::str::from_utf8(name) else { return };
        let Some((distance, text)) = self.distance(name) else { return };
        if self.seen.insert(text.clone()) {
            self.found.push((distance, self.found.len(), text));
        }
    }

    /// The nearest, nearest first.
    pub(crate) fn names(mut self) -> Vec<String> {
        self.found.sort_unstable();
        self.found.into_iter().take(MOST).map(|(.., text)| text).collect()
    }

    /// How far a name is, and how it is shown, if it is near.
    fn distance(&self, name: &str) -> Option<(usize, String)> {
        if name == self.wanted {
            return None;
        }
        let mangled = name.starts_with("_Z");
        let shown = || demangle(name).unwrap_or_else(|| name.to_owned());
        if let Some(distance) = near(&self.wanted, self.letters, limit(self.wanted.len()), name) {
            return Some((distance, shown()));
        }
        if !mangled && name == self.plain {
            return Some((1, name.to_owned()));
        }
        // Demangling takes its time; most names end here.
        if !mangled || self.plain.len() < 2 || name.len() > 4 * self.text.len() + 64 {
            return None;
        }
        let limit = limit(self.wanted.len());
        let like_plain = identifiers(name).any(|part| self.is_like_plain(part));
        let like_all = self.text.contains('(') && name.len().abs_diff(self.wanted.len()) <= 2 * limit;
        if !like_plain && !like_all {
            return None;
        }
        let text = demangle(name).filter(|text| *text != self.text)?;
        match near(&self.text, letters(&self.text), self.text.len() / 4, &text) {
            Some(distance) => Some((distance, text)),
            None if like_plain && self.is_like_plain(plain(&text)) => {
                Some((strsim::osa_distance(&self.text, &text), text))
            }
            None => None,
        }
    }

    fn is_like_plain(&self, name: &str) -> bool {
        name == self.plain
            || near(&self.plain, letters(&self.plain), (self.plain.len() / 4).max(1), name).is_some()
    }
}

/// The names like `wanted`, which nobody has, among `names`: nearest first, mangled ones as source has them.
pub fn near_misses<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut nearest = Nearest::new(wanted);
    names.into_iter().for_each(|name| nearest.consider(name.as_bytes()));
    nearest.names()
}

/// The identifiers in a mangled name, each of which has its length in front; and some text that only looks so.
fn identifiers(mangled: &str) -> impl Iterator<Item = &str> {
    let mut rest = mangled;
    std::iter::from_fn(move || {
        loop {
            let from = rest.find(|c: char| c.is_ascii_digit())?;
            let digits = rest[from..].bytes().take_while(u8::is_ascii_digit).count();
            let (length, after) = rest[from..].split_at(digits);
            rest = after;
            if let Some((part, after)) = length.parse().ok().and_then(|length| after.split_at_checked(length))
            {
                rest = after;
                return Some(part);
            }
        }
    })
}

/// How many changes are few.
fn limit(length: usize) -> usize {
    match length {
        0 => 0,
        1..=3 => 1,
        _ => (length / 4).max(2),
    }
}

/// The letters that occur, as bits.
fn letters(name: &str) -> u64 {
    name.bytes().fold(0, |set, byte| set | 1 << (byte & 63))
}

/// The distance, if it is at most `limit`.
fn near(wanted: &str, wanted_letters: u64, limit: usize, name: &str) -> Option<usize> {
    if name.len().abs_diff(wanted.len()) > limit {
        return None;
    }
    // A letter that only one of them has costs a change.
    let own = letters(name);
    let (left, added) = (wanted_letters & !own, own & !wanted_letters);
    if left.count_ones().max(added.count_ones()) as usize > limit {
        return None;
    }
    let distance = strsim::osa_distance(wanted, name);
    // Nothing in common is not near, however short the names.
    (distance <= limit && distance < wanted.len().max(name.len())).then_some(distance)
}

/// A C++ name without its scope, template arguments and parameters.
fn plain(text: &str) -> &str {
    let mut depth = 0usize;
    let (mut start, mut end) = (0, text.len());
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'<' => {
                if depth == 0 && end == text.len() {
                    end = at;
                }
                depth += 1;
            }
            b'>' => depth = depth.saturating_sub(1),
            b'(' if depth == 0 && at > start => {
                end = end.min(at);
                break;
            }
            b':' | b' ' if depth == 0 => {
                start = at + 1;
                end = text.len();
            }
            _ => {}
        }
    }
    text.get(start..end).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nearest(wanted: &str, names: &[&str]) -> Vec<String> {
        near_misses(wanted, names.iter().copied())
    }

    #[test]
    fn few_changes_are_near_and_the_nearest_comes_first() {
        let names = ["printf", "help", "helper_of_all", "helper2", "hleper", "helper", "puts"];
        assert_eq!(nearest("helpr", &names), ["help", "helper", "helper2", "hleper"]);
        assert_eq!(nearest("helper", &["helper"]), [""; 0], "it is not its own near miss");
        assert_eq!(nearest("ab", &["cd", "ac", "a"]), ["ac", "a"]);
        let many: Vec<String> = (0..20).map(|number| format!("helper{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(nearest("helper", &many).len(), 5);
    }

    #[test]
    fn cpp_names_are_near_by_what_they_mean() {
        // twice(int), n::twice(long), thrice(int)
        let names = ["_Z5twicei", "_ZN1n5twiceEl", "_Z6thricei", "twice"];
        assert_eq!(nearest("_Z5twiced", &names), ["twice(int)", "twice", "n::twice(long)"]);
        assert_eq!(nearest("twice", &names), ["twice(int)", "n::twice(long)"]);
        assert_eq!(nearest("twice(char)", &names)[..2], ["twice", "twice(int)"]);
    }

    #[test]
    fn identifiers_are_found_in_mangled_names() {
        let all = |name| identifiers(name).collect::<Vec<_>>();
        assert_eq!(all("_ZN1n5twiceEl"), ["n", "twice"]);
        assert_eq!(all("_Z99short"), [""; 0]);
        assert_eq!(all("_Z99999999999999999999999x2ab"), ["ab"]);
    }

    #[test]
    fn scope_template_arguments_and_parameters_are_taken_off() {
        for (text, name) in [
            ("twice(int)", "twice"),
            ("n::m::twice(std::vector<int>)", "twice"),
            ("int n::twice<int, a::b>(int)", "twice"),
            ("n::S<int>::value", "value"),
            ("plain", "plain"),
            ("", ""),
        ] {
            assert_eq!(plain(text), name, "{text}");
        }
    }
}
