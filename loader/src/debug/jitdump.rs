//! A dump of code for perf, which finds by file name what was mapped from a file and by this everything else.
//!
//! The file is `jit-PID.dump`, as the documentation of perf has it (`tools/perf/Documentation/jitdump-specification.txt`).
//! perf learns of it by a page of it that is mapped executable while perf records. Every runtime of a process appends to
//! the same file; it is open only while something is appended. A process that was forked gets a file of its own.

mod records;

use super::code::LoadedCode;
use super::error::DebugError;
use super::lines::Lines;
use crate::sys::memory::{Access, Mapping, PAGE};
use crate::sys::sync::Mutex;
use crate::sys::{clock, start, threads};
use object::{Object, ObjectSegment};
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
        let lines = Lines::parse(&contents)?;
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
        let functions = &mut begun[at].functions;
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
        append(&path, records.bytes()).map_err(failed)
    }
}

impl Drop for JitDump {
    fn drop(&mut self) {
        close(|begun| begun.path.parent() == Some(&self.folder));
    }
}

/// Marks the end of all dumps of this process. They can be continued nevertheless.
pub(super) fn close_all() {
    close(|_| true);
}

/// Marks the end of the dumps of this process that are `wanted`.
fn close(wanted: impl Fn(&Begun) -> bool) {
    let process = start::process_id();
    let mut records = Records::new(clock::monotonic_ns());
    records.close();
    for begun in BEGUN.lock().iter().filter(|begun| begun.process == process && wanted(begun)) {
        // When that does not work the dump is as good without.
        let _ = append(&begun.path, records.bytes());
    }
}

/// Appends to a dump, at once, so that a reader sees all of a unit or nothing.
fn append(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    OpenOptions::new().append(true).open(path)?.write_all(bytes)
}

/// Makes the file, in place of one that a former process of that number may have left.
fn begin(folder: &Path, path: &Path, process: i32) -> std::io::Result<Begun> {
    std::fs::create_dir_all(folder)?;
    let mut file: File =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(&records::header(process as u32, clock::monotonic_ns()))?;
    let access = Access { read: true, write: false, execute: true };
    let marker = Mapping::of_file(file.as_fd(), 0, PAGE, access)?;
    Ok(Begun { path: path.to_owned(), process, functions: 0, _marker: marker })
}
