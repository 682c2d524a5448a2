//! A dump of code for perf, which finds by file name what was mapped from a file and by this everything else.
//!
//! The file is `jit-PID.dump`, as the documentation of perf has it (`tools/perf/Documentation/jitdump-specification.txt`).
//! perf learns of it by a page of it that is mapped executable while perf records. Every runtime of a process appends to
//! the same file; it is open only while something is appended. A process that was forked gets a file of its own.

mod records;

use super::code::{CodeFile, LoadedCode};
use super::error::DebugError;
use super::lines::Lines;
use crate::sys::memory::{Access, Mapping, PAGE};
use crate::sys::{clock, start, threads};
use object::{Object, ObjectSegment};
use parking_lot::Mutex;
use records::Records;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The dump of a loader's code.
pub(super) struct JitDump {
    folder: PathBuf,
}

/// A file that this process has begun.
struct Begun {
    path: PathBuf,
    process: i32,
    /// What has been written to it, in functions.
    functions: u64,
    /// The page that perf knows it by.
    _marker: Mapping,
}

/// The files that this process has begun.
static BEGUN: Mutex<Vec<Begun>> = Mutex::new(Vec::new());

impl JitDump {
    /// A dump in `folder`; nothing is written yet.
    pub(super) fn new(folder: PathBuf) -> Self {
        // The program that is loaded may change its directory.
        Self { folder: std::path::absolute(&folder).unwrap_or(folder) }
    }

    /// Appends the functions of `code`, with their lines.
    ///
    /// # Errors
    /// When its file was not kept or makes no sense, or the dump cannot be written.
    pub(super) fn add(&self, code: &LoadedCode) -> Result<(), DebugError> {
        let contents = code.contents()?;
        let file = super::dwarf::Elf::parse(&*contents)?;
        let lines = match code.file() {
            CodeFile::Bytes(_) => code.lines()?,
            _ => Lines::parse(&contents)?.into(),
        };
        let (process, thread) = (start::process_id(), threads::kernel_id());
        let path = self.folder.join(format!("jit-{process}.dump"));
        let failed = |source| DebugError::Write { path: path.clone(), source };

        let mut begun = BEGUN.lock();
        let at = match begun.iter().position(|one| one.process == process && one.path == path) {
            Some(at) => at,
            None => {
                begun.push(begin(&self.folder, &path, process).map_err(failed)?);
                begun.len() - 1
            }
        };
        let Begun { functions, .. } = &mut begun[at];
        let mut records = Records::new(clock::monotonic_ns());
        for function in lines.functions() {
            let segment = file
                .segments()
                .find_map(|segment| segment.data_range(function.address, function.size).ok().flatten());
            // Outside of what the file has there is no code.
            let Some(bytes) = segment else { continue };
            let rows = lines.rows(function.address, function.size);
            let address = (code.bias() as u64).wrapping_add(function.address);
            if !rows.is_empty() {
                records.lines(address, &rows, code.bias() as u64);
            }
            records.load(process as u32, thread as u32, address, *functions, &function.name, bytes);
            *functions += 1;
        }
        let mut file = OpenOptions::new().append(true).open(&path).map_err(failed)?;
        // At once, so that a reader sees all of a unit or nothing.
        file.write_all(records.bytes()).map_err(failed)
    }
}

impl Drop for JitDump {
    fn drop(&mut self) {
        let process = start::process_id();
        let path = self.folder.join(format!("jit-{process}.dump"));
        let begun = BEGUN.lock();
        if begun.iter().any(|one| one.path == path) {
            let mut records = Records::new(clock::monotonic_ns());
            records.close();
            // When that does not work the dump is as good without.
            let _ = OpenOptions::new()
                .append(true)
                .open(&path)
                .and_then(|mut file| file.write_all(records.bytes()));
        }
    }
}

/// Makes the file, in place of one that a former process of that number may have left.
fn begin(folder: &Path, path: &Path, process: i32) -> std::io::Result<Begun> {
    std::fs::create_dir_all(folder)?;
    let mut file: File =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(&records::header(process as u32, clock::monotonic_ns()))?;
    let access = Access { read: true, write: false, execute: true };
    let marker = Mapping::of_file(file.as_fd(), 0, PAGE, access, None)?;
    Ok(Begun { path: path.to_owned(), process, functions: 0, _marker: marker })
}
