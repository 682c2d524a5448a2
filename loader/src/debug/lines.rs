//! Functions and lines of one ELF file, parsed once and kept: by DWARF where the file has it, by symbols otherwise.

use super::dwarf::{self, Elf};
use super::error::DebugError;
use super::frames::Frame;
use super::symbols;
use crate::error::demangle;
use crate::sys::sync::Mutex;
use addr2line::{Context, Location};
use gimli::{EndianArcSlice, LittleEndian};
use std::fmt;

/// What is known of the code of one file. Addresses are the file's.
pub(super) struct Lines {
    /// Its debug information, which is read where it is asked about.
    context: Option<Mutex<Context<EndianArcSlice<LittleEndian>>>>,
    /// Ascending, not overlapping in any way that matters.
    functions: Vec<Function>,
}

/// A function of the symbol table.
#[derive(Debug)]
pub(super) struct Function {
    /// Its name, mangled.
    pub(super) name: Box<str>,
    /// Where it begins.
    pub(super) address: u64,
    /// Bytes.
    pub(super) size: u64,
}

/// A place in a source file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Where the code begins that is of this line.
    pub(super) address: u64,
    /// The source file.
    pub(super) file: String,
    /// The line, from 1.
    pub(super) line: u32,
}

impl Lines {
    /// Parses an ELF file. Debug information that cannot be read is left out.
    ///
    /// # Errors
    /// When it is no ELF file.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, DebugError> {
        let file = Elf::parse(bytes)?;
        let functions = symbols::functions(&file)
            .into_iter()
            .map(|symbol| Function {
                name: String::from_utf8_lossy(symbol.name).into(),
                address: symbol.address,
                size: symbol.size,
            })
            .collect();
        let context = if dwarf::has_information(&file) {
            dwarf::owned(&file).ok().and_then(|dwarf| Context::from_dwarf(dwarf).ok()).map(Mutex::new)
        } else {
            None
        };
        Ok(Self { context, functions })
    }

    /// Its functions, in ascending order.
    pub(super) fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// The function that has `address`.
    pub(super) fn function_at(&self, address: u64) -> Option<&Function> {
        let after = self.functions.partition_point(|function| function.address <= address);
        let function = self.functions.get(after.checked_sub(1)?)?;
        (address - function.address < function.size).then_some(function)
    }

    /// The frames at `address`, innermost first, with everything but the unit; none when nothing is known.
    pub(super) fn frames(&self, address: u64) -> Vec<Frame> {
        let symbol = self.function_at(address);
        let mut frames = self.inlined(address).unwrap_or_default();
        if frames.is_empty() && symbol.is_some() {
            frames.push(Frame::default());
        }
        let offset = symbol.map(|symbol| (address - symbol.address) as usize);
        for frame in &mut frames {
            frame.offset = offset.unwrap_or_default();
        }
        // The symbol is the function that the others were inlined into, and has the name that linkers know.
        if let (Some(frame), Some(symbol)) = (frames.last_mut(), symbol)
            && frame.mangled.as_deref().is_none_or(|name| !name.starts_with("_Z"))
        {
            frame.name(&symbol.name);
        }
        frames
    }

    /// The frames that debug information tells of.
    fn inlined(&self, address: u64) -> Option<Vec<Frame>> {
        let context = self.context.as_ref()?.lock();
        let mut found = context.find_frames(address).skip_all_loads().ok()?;
        let mut frames = Vec::new();
        // What is damaged ends the list.
        while let Ok(Some(found)) = found.next() {
            let mut frame = Frame::default();
            if let Some(name) = found.function.as_ref().and_then(|function| function.raw_name().ok()) {
                frame.name(&name);
            }
            if let Some(Location { file, line, column }) = found.location {
                frame.file = file.map(Into::into);
                // Zero stands for code that no line is behind.
                frame.line = line.filter(|line| *line != 0);
                frame.column = column.filter(|column| *column != 0);
            }
            frames.push(frame);
        }
        Some(frames)
    }

    /// The lines of the code from `start` on, in ascending order of addresses.
    pub(super) fn rows(&self, start: u64, size: u64) -> Vec<Row> {
        let Some(context) = &self.context else { return Vec::new() };
        let context = context.lock();
        let Ok(found) = context.find_location_range(start, start.saturating_add(size)) else {
            return Vec::new();
        };
        let mut rows: Vec<Row> = Vec::new();
        for (address, _, location) in found {
            if let Location { file: Some(file), line: Some(line), .. } = location
                && line != 0
                && rows.last().is_none_or(|row| row.file != file || row.line != line)
            {
                rows.push(Row { address: address.max(start), file: file.to_owned(), line });
            }
        }
        rows
    }
}

impl Frame {
    /// Sets the names from the one that the linker knows.
    pub(super) fn name(&mut self, mangled: &str) {
        self.function = Some(demangle(mangled).unwrap_or_else(|| mangled.to_owned()));
        self.mangled = Some(mangled.to_owned());
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("functions", &self.functions.len()).finish_non_exhaustive()
    }
}
