//! Checks of archives before lld sees them.

use super::check::{ObjectFacts, check_object};
use object::read::archive::ArchiveFile;

/// Checks an archive and each of its members, and returns what the members need.
///
/// # Errors
/// What is wrong with it, as the end of a sentence that begins with its name.
pub(crate) fn check_archive(bytes: &[u8]) -> Result<ObjectFacts, String> {
    if bytes.is_empty() {
        return Err("is empty".into());
    }
    let archive = ArchiveFile::parse(bytes).map_err(|error| format!("is not an archive: {error}"))?;
    let mut all = ObjectFacts::default();
    for member in archive.members() {
        let member = member.map_err(|error| format!("is damaged or cut off: {error}"))?;
        if member.is_thin() {
            // Its members are files of their own, which lld opens.
            continue;
        }
        let name = String::from_utf8_lossy(member.name()).into_owned();
        let data = member.data(bytes).map_err(|_| format!("is cut off in its member {name}"))?;
        if data.starts_with(b"BC\xc0\xde") {
            continue;
        }
        let facts = check_object(data).map_err(|what| format!("has the member {name} that {what}"))?;
        all.functions += facts.functions;
        all.cpp |= facts.cpp;
        all.startup |= facts.startup;
        all.undefined.extend(facts.undefined);
    }
    all.undefined.sort_unstable();
    all.undefined.dedup();
    if let Ok(Some(symbols)) = archive.symbols() {
        for symbol in symbols {
            let member = symbol.map_err(|error| format!("has a damaged index: {error}"))?.offset();
            archive.member(member).map_err(|_| "has an index that points outside its members".to_owned())?;
        }
    }
    Ok(all)
}
