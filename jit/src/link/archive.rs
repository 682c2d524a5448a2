//! Checks of archives before lld sees them.
//!
//! An archive is a magic text and members, each behind a header of 60 bytes in which everything is text: name, date,
//! owner, group, mode, size. A *thin* archive has the headers only; its members are files beside it, which lld opens by
//! their names, whatever is there: so they are looked at here as well, and must be ordinary files.

use super::check::{ObjectFacts, check_object};
use hotbed_loader::sys::files::{self, plain};
use object::read::archive::ArchiveFile;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What the link needs to know about an archive.
#[derive(Debug, Default)]
pub(crate) struct ArchiveFacts {
    /// About all its members.
    pub(crate) objects: ObjectFacts,
    /// The files that are members of a thin archive.
    pub(crate) files: BTreeSet<PathBuf>,
}

/// Checks an archive and each of its members, and returns what the members need. `folder` is where it lies, if it is a
/// file.
///
/// # Errors
/// What is wrong with it, as the end of a sentence that begins with its name.
pub(crate) fn check_archive(bytes: &[u8], folder: Option<&Path>) -> Result<ArchiveFacts, String> {
    if bytes.is_empty() {
        return Err("is empty".into());
    }
    // There are formats of other systems, which lld takes for archives without anything in them.
    if !bytes.starts_with(b"!<arch>\n") && !bytes.starts_with(b"!<thin>\n") {
        return Err("is not an archive".into());
    }
    let archive = ArchiveFile::parse(bytes).map_err(|error| format!("is not an archive: {error}"))?;
    let mut facts = ArchiveFacts::default();
    for member in archive.members() {
        let member = member.map_err(|error| format!("is damaged or cut off: {error}"))?;
        let name = String::from_utf8_lossy(member.name()).into_owned();
        let contents;
        let data = if member.is_thin() {
            let folder =
                folder.ok_or("is a thin archive, whose members are files beside it: load it by its path")?;
            let path = folder.join(OsStr::from_bytes(member.name()));
            contents = read_member(&path)
                .map_err(|e| format!("has the member {name} that cannot be read: {}", plain(&e)))?;
            // Looked at once, however often it is named.
            if !facts.files.insert(path) {
                continue;
            }
            &contents[..]
        } else {
            member.data(bytes).map_err(|_| format!("is cut off in its member {name}"))?
        };
        if data.starts_with(b"BC\xc0\xde") {
            // What becomes of it is not known.
            facts.objects.zeros = u64::MAX;
            continue;
        }
        let object = check_object(data).map_err(|what| format!("has the member {name} that {what}"))?;
        facts.objects.functions += object.functions;
        facts.objects.cpp |= object.cpp;
        facts.objects.startup |= object.startup;
        facts.objects.old_constructors |= object.old_constructors;
        facts.objects.undefined.extend(object.undefined);
        facts.objects.shared.extend(object.shared);
        facts.objects.zeros = facts.objects.zeros.saturating_add(object.zeros);
        facts.objects.arrays |= object.arrays;
        facts.objects.constants_want.extend(object.constants_want);
        facts.objects.shared_constants |= object.shared_constants;
        facts.objects.defined.extend(object.defined);
    }
    facts.objects.undefined.sort_unstable();
    facts.objects.undefined.dedup();
    if let Ok(Some(symbols)) = archive.symbols() {
        for symbol in symbols {
            let member = symbol.map_err(|error| format!("has a damaged index: {error}"))?.offset();
            archive.member(member).map_err(|_| "has an index that points outside its members".to_owned())?;
        }
    }
    Ok(facts)
}

/// The contents of an ordinary file; a pipe is not waited for.
fn read_member(path: &Path) -> io::Result<Vec<u8>> {
    let (file, status) = files::open_regular(path)?;
    files::contents_of(&file, status.identity.size)
}
