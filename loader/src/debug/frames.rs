//! What is behind an address: functions, files and lines, of images and of the process's own libraries.

use super::code::LoadedCode;
use crate::image::Image;
use crate::slots::Located;
use crate::sys::libraries;
use std::fmt;
use std::path::PathBuf;

/// A function call at an address, or what is known of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frame {
    /// Name of the function, readable.
    pub function: Option<String>,
    /// Name of the function as linkers know it, which is the same for C.
    pub mangled: Option<String>,
    /// The source file, as the compiler recorded it.
    pub file: Option<PathBuf>,
    /// The line in it, from 1.
    pub line: Option<u32>,
    /// The column in it, from 1.
    pub column: Option<u32>,
    /// Name of the unit, or path of the library or program.
    pub unit: Option<String>,
    /// How many bytes after the beginning of the function's symbol the address is; when no symbol is known, after the
    /// beginning of the unit.
    pub offset: usize,
}

/// The frames at `address`, which is in `image`.
pub(crate) fn in_image(image: &Image, address: usize) -> Vec<Frame> {
    let mut frames = in_code(image.code(), address);
    if frames.is_empty() {
        frames.push(
            from_exports(image, address)
                .unwrap_or_else(|| Frame { offset: address - image.range().start, ..Frame::default() }),
        );
    }
    for frame in &mut frames {
        frame.unit = Some(image.name().to_owned());
    }
    frames
}

/// The frame at `address`, which is in code that was compiled for a function.
pub(crate) fn in_body(located: &Located, address: usize) -> Frame {
    let unit = Some(located.image.name().to_owned());
    let mut frame = Frame { unit, offset: address - located.body, ..Frame::default() };
    frame.name(&located.name);
    frame
}

/// The frames at `address`, which is in `code`, by its file; none when that has nothing to say.
pub(crate) fn in_code(code: &LoadedCode, address: usize) -> Vec<Frame> {
    let Ok(lines) = code.lines() else { return Vec::new() };
    let mut frames = lines.frames(address.wrapping_sub(code.bias()) as u64);
    for frame in &mut frames {
        frame.unit = Some(code.name().to_owned());
    }
    frames
}

/// The frame at `address` in a library or the program, by its dynamic symbols.
pub(crate) fn in_process(address: usize) -> Option<Frame> {
    let near = libraries::nearest(address)?;
    let mut frame = Frame { unit: Some(near.path), offset: address - near.base, ..Frame::default() };
    if let Some((name, start)) = near.symbol {
        frame.name(&name);
        frame.offset = address - start;
    }
    Some(frame)
}

/// The exported function that has `address`, as the memory of the image says.
fn from_exports(image: &Image, address: usize) -> Option<Frame> {
    let at = address.wrapping_sub(image.bias()) as u64;
    let (_, symbol, name) = image.symbols().iter().find(|(_, symbol, _)| {
        symbol.is_exported() && !symbol.is_thread_local() && at.wrapping_sub(symbol.value) < symbol.size
    })?;
    let mut frame = Frame { offset: (at - symbol.value) as usize, ..Frame::default() };
    frame.name(&String::from_utf8_lossy(name));
    Some(frame)
}

impl fmt::Display for Frame {
    /// As backtraces show it: `function+0x1c at file:line:column (unit)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { function, mangled: _, file, line, column, unit, offset } = self;
        write!(f, "{}+{offset:#x}", function.as_deref().unwrap_or("??"))?;
        if let Some(file) = file {
            write!(f, " at {}", file.display())?;
            if let Some(line) = line {
                write!(f, ":{line}")?;
                if let Some(column) = column {
                    write!(f, ":{column}")?;
                }
            }
        }
        match unit {
            Some(unit) => write!(f, " ({unit})"),
            None => Ok(()),
        }
    }
}
