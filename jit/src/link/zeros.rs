//! Where zeros lie: variables without initial values.
//!
//! The linker puts them behind the data and not into the file. What the file has there is something else, up to the end of
//! the page, so whoever maps the image has to clear it, and the page becomes the process's own. A few zeros in the
//! file cost less: for sqlite3, 2.5 KB of them are a page and a fault less in each process.

use super::check::ObjectFacts;
use hotbed_loader::sys::memory::PAGE;

/// What the linker is told: they follow the data. That they are in the file comes of one that is, in what
/// [`own_object`](super::own_object) makes.
pub(super) const SCRIPT: &str = "SECTIONS {
  .bss : { *(.bss .bss.* COMMON) }
} INSERT AFTER .data;
";

/// Whether so few zeros are wanted by objects, and by what archives may bring in, that the file can have them.
pub(super) fn are_few<'a>(objects: impl Iterator<Item = &'a ObjectFacts>) -> bool {
    let sum = objects.fold(0u64, |sum, facts| sum.saturating_add(facts.zeros));
    sum > 0 && sum <= PAGE as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_zeros_is_few() {
        let facts = |zeros| ObjectFacts { zeros, ..ObjectFacts::default() };
        assert!(are_few([facts(4000), facts(96)].iter()));
        assert!(!are_few([facts(4000), facts(97)].iter()));
        assert!(!are_few([facts(u64::MAX), facts(u64::MAX)].iter()));
        assert!(!are_few([facts(0)].iter()));
    }
}
