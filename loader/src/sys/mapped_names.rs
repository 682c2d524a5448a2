//! Which files are mapped, as far as the system tells.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// The last parts of the paths of all files that a process has mapped which this one may look into: its own, and those of the same
/// user. Folders may have other names there, so whole paths would say less.
pub(crate) fn mapped_names() -> HashSet<OsString> {
    let mut names = HashSet::new();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        if !process.file_name().as_bytes().first().is_some_and(u8::is_ascii_digit) {
            continue;
        }
        // It may have ended, or be another user's.
        let Ok(maps) = std::fs::read(process.path().join("maps")) else { continue };
        for line in maps.split(|byte| *byte == b'\n') {
            // Nothing before the path has a slash in it.
            let path = line.iter().position(|byte| *byte == b'/').map(|start| &line[start..]);
            if let Some(name) = path.and_then(|path| path.rsplit(|byte| *byte == b'/').next())
                && !names.contains(OsStr::from_bytes(name))
            {
                names.insert(OsStr::from_bytes(name).to_owned());
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;
    use crate::sys::mapped_file::MappedFile;
    use crate::testing::Folder;
    use std::fs::File;
    use std::time::Duration;

    #[test]
    fn what_is_mapped_is_named() {
        let program = std::env::current_exe().unwrap();
        assert!(mapped_names().contains(program.file_name().unwrap()));
        let folder = Folder::new();
        let path = folder.path().join("a name of its own");
        std::fs::write(&path, "mapped").unwrap();
        let name = path.file_name().unwrap();
        assert!(!mapped_names().contains(name));
        let mapped = MappedFile::new(&File::open(&path).unwrap(), 6).unwrap();
        assert!(mapped_names().contains(name));
        drop(mapped);
        // A child that another test forked meanwhile has it as well, as long as it runs.
        let gone = || {
            std::thread::sleep(Duration::from_millis(10));
            !mapped_names().contains(name)
        };
        assert!((0..1000).any(|_| gone()));
    }
}
