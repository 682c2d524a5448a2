//! Objects of one source as one file for the linker: an archive, which it is told to take whole.
//!
//! A source whose functions were compiled one by one comes as thousands of objects. As files in memory each of them would
//! have a descriptor, of which a process usually may have 1024, and a word on lines that clang's driver, lld and the log
//! go through.
//!
//! An archive is `!<arch>\n` and its members, each with a header of 60 characters: name (16), date (12), owner (6), group (6),
//! mode (8), size (10), all padded with spaces, and a back quote and a line feed. Members begin at even places. There is no
//! table of symbols, for nobody looks for one.

use std::io::Write;

/// As many objects are no trouble as files of their own, and messages then say nothing of members.
pub(super) const FEW: usize = 16;

/// The archive; members are called by their numbers.
pub(super) fn bundle(objects: &[&[u8]]) -> Vec<u8> {
    let size: usize = objects.iter().map(|object| object.len() + 61).sum();
    let mut bytes = Vec::with_capacity(size + 8);
    bytes.extend(b"!<arch>\n");
    for (number, object) in objects.iter().enumerate() {
        let name = format!("{number}.o/");
        let size = object.len();
        // Writing to memory does not fail.
        let _ = writeln!(bytes, "{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`", 0, 0, 0, 644);
        bytes.extend(*object);
        if size % 2 == 1 {
            bytes.push(b'\n');
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::read::archive::ArchiveFile;

    #[test]
    fn every_object_is_a_member() {
        let objects: Vec<Vec<u8>> =
            (0..1200usize).map(|size| vec![size as u8; size % 7 * 100 + size % 2]).collect();
        let objects: Vec<&[u8]> = objects.iter().map(Vec::as_slice).collect();
        let bytes = bundle(&objects);
        let archive = ArchiveFile::parse(&*bytes).expect("an archive");
        let members: Vec<_> = archive.members().map(|member| member.expect("a member")).collect();
        assert_eq!(members.len(), objects.len());
        for (number, (member, object)) in members.iter().zip(objects).enumerate() {
            assert_eq!(member.name(), format!("{number}.o").as_bytes());
            assert_eq!(member.data(&*bytes).expect("its contents"), object);
        }
    }
}
