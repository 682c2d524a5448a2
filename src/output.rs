//! Writing an image to where the user wants it.

use crate::error::Error;
use hotbed_loader::sys::files::plain;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Writes the image `bytes` to `path`. A file that is there is replaced in one step, since somebody may have it mapped; a device
/// or pipe is written to.
pub(crate) fn write_image(bytes: &[u8], path: &Path) -> Result<(), Error> {
    let fail = |e: io::Error| Error::Write { path: path.display().to_string(), reason: plain(&e) };
    let special = std::fs::metadata(path).is_ok_and(|found| !found.is_file());
    if special {
        return OpenOptions::new().write(true).open(path).and_then(|mut f| f.write_all(bytes)).map_err(fail);
    }
    // A link stays a link; what it leads to is replaced.
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let temporary = beside(&path);
    let written = File::create_new(&temporary)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| std::fs::rename(&temporary, &path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written.map_err(fail)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;

    #[test]
    fn files_are_replaced_and_devices_written_to() {
        let folder = std::env::temp_dir().join(format!("hotbed-output-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("out.hbi");
        for _ in 0..2 {
            write_image(b"image", &path).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), b"image");
        }
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        write_image(b"image", Path::new("/dev/null")).unwrap();
        assert!(write_image(b"image", &folder).is_err());
        assert!(write_image(b"image", &folder.join("no/where.hbi")).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
