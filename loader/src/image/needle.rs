//! A text that is looked for in string tables again and again. Most names are short: they are compared at once, without a
//! loop and without a call.

/// Bytes that are compared at once.
const WINDOW: usize = 24;

/// A text with the zero that ends it.
#[derive(Debug)]
pub(crate) struct Needle {
    /// What it begins with.
    words: [u64; WINDOW / 8],
    /// Ones where that counts.
    masks: [u64; WINDOW / 8],
    /// What does not fit in there, with the zero.
    rest: Box<[u8]>,
    length: usize,
}

impl Needle {
    pub(crate) fn new(text: &[u8]) -> Self {
        let mut ended = text.to_vec();
        ended.push(0);
        let head = ended.len().min(WINDOW);
        let (mut window, mut mask) = ([0; WINDOW], [0; WINDOW]);
        window[..head].copy_from_slice(&ended[..head]);
        mask[..head].fill(u8::MAX);
        let rest = ended.split_off(head).into();
        Self { words: words(&window), masks: words(&mask), rest, length: text.len() }
    }

    /// Whether the table `strings` has it at `offset`.
    #[inline(always)]
    pub(crate) fn is_at(&self, strings: &[u8], offset: usize) -> bool {
        let Some(strings) = strings.get(offset..) else { return false };
        match strings.split_first_chunk() {
            Some((window, rest)) => {
                self.fits(window) && (self.rest.is_empty() || rest.starts_with(&self.rest))
            }
            None => self.is_at_end(strings),
        }
    }

    /// The same for the last bytes of a table.
    #[cold]
    fn is_at_end(&self, strings: &[u8]) -> bool {
        // Nothing that ends a text.
        let mut window = [u8::MAX; WINDOW];
        window[..strings.len()].copy_from_slice(strings);
        self.rest.is_empty() && self.fits(&window)
    }

    /// Bytes, without the zero.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Whether it is `text`.
    pub(crate) fn is(&self, text: &[u8]) -> bool {
        let (head, tail) = text.split_at(text.len().min(WINDOW));
        let mut window = [0; WINDOW];
        window[..head.len()].copy_from_slice(head);
        self.length == text.len() && self.fits(&window) && self.rest.starts_with(tail)
    }

    #[inline(always)]
    fn fits(&self, window: &[u8; WINDOW]) -> bool {
        let there = words(window);
        let differs = |at: usize| (there[at] ^ self.words[at]) & self.masks[at];
        differs(0) | differs(1) | differs(2) == 0
    }
}

#[inline(always)]
fn words(window: &[u8; WINDOW]) -> [u64; WINDOW / 8] {
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&window[at * 8..at * 8 + 8]);
        u64::from_le_bytes(bytes)
    };
    [word(0), word(1), word(2)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_where_it_is_and_nowhere_else() {
        let texts: Vec<Vec<u8>> = (0..60u8).map(|length| (1..=length).collect()).collect();
        for text in &texts {
            let needle = Needle::new(text);
            for other in &texts {
                let same = text == other;
                assert_eq!(needle.is(other), same);
                // At the end of the table, and in front of more than is looked at.
                for more in [0, 1, 30] {
                    let mut table = b"before".to_vec();
                    table.extend_from_slice(other);
                    table.push(0);
                    table.resize(table.len() + more, b'x');
                    assert_eq!(needle.is_at(&table, 6), same, "{} {} {more}", text.len(), other.len());
                    assert!(!needle.is_at(&table, table.len()) && !needle.is_at(&table, usize::MAX));
                }
                // Not ended.
                assert!(!needle.is_at(other, 0));
            }
        }
        // What only begins alike up to a zero.
        assert!(!Needle::new(b"a").is(b"a\0b") && Needle::new(b"a").is_at(b"a\0b", 0));
    }
}
