//! An image as C programs are shown it: names and headers that live as long as it does.

use crate::image::elf::{PF_R, PF_W, PF_X, PT_DYNAMIC, PT_GNU_EH_FRAME, PT_GNU_RELRO, PT_LOAD, PT_TLS};
use crate::image::headers::Range;
use crate::image::map::Mapped;
use crate::image::place::Segment;
use crate::sys::linker::LinkMap;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

/// What is shown of an image.
#[derive(Debug)]
pub(crate) struct Shown {
    /// What a program knows it as: where it lies, if it was loaded from a file of that name, or else the unit's name,
    /// which for a program is what was given to run.
    label: CString,
    /// The file to read symbols from: where the image lies, if it lies anywhere.
    file: CString,
    headers: Vec<libc::Elf64_Phdr>,
    entry: LinkMap,
}

// SAFETY: the pointers in `entry` are to `label`, which never changes, or null.
unsafe impl Send for Shown {}
// SAFETY: as above.
unsafe impl Sync for Shown {}

impl Shown {
    /// What is shown of the image `name`.
    pub(crate) fn new(name: &str, mapped: &Mapped) -> Self {
        let text = |bytes: &[u8]| {
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            CString::new(&bytes[..end]).unwrap_or_default()
        };
        let path = mapped.path.as_deref();
        let label = match path {
            Some(path) if path.ends_with(Path::new(name)) => text(path.as_os_str().as_bytes()),
            _ => text(name.as_bytes()),
        };
        let file = path.map_or_else(|| label.clone(), |path| text(path.as_os_str().as_bytes()));
        let entry = LinkMap {
            base: mapped.place.base,
            name: label.as_ptr(),
            dynamic: mapped.place.at(mapped.headers.dynamic.address),
            next: ptr::null(),
            previous: ptr::null(),
        };
        Self { label, file, headers: headers(mapped), entry }
    }

    pub(crate) fn label(&self) -> &CStr {
        &self.label
    }

    pub(crate) fn file(&self) -> &CStr {
        &self.file
    }

    /// Its program headers.
    pub(crate) fn headers(&self) -> &[libc::Elf64_Phdr] {
        &self.headers
    }

    /// What stands for its entry in glibc's list, in which it is not.
    pub(crate) fn entry(&self) -> &LinkMap {
        &self.entry
    }
}

/// Program headers with what the loader has kept of them: they need not lie in the image's memory.
fn headers(mapped: &Mapped) -> Vec<libc::Elf64_Phdr> {
    let flags = |segment: &Segment| {
        let access =
            [(segment.access.read, PF_R), (segment.access.write, PF_W), (segment.access.execute, PF_X)];
        access.iter().filter(|(has, _)| *has).fold(0, |flags, (_, flag)| flags | flag)
    };
    let read = mapped.place.segments.iter().map(|segment| header(PT_LOAD, flags(segment), segment, 4096));
    let holder = |range: Range| {
        let holds = |segment: &&Segment| {
            range.address >= segment.address && range.address - segment.address < segment.size
        };
        mapped.place.segments.iter().find(holds)
    };
    let part = |kind: u32, range: Range, flags: u32, align: u64| {
        let offset =
            holder(range).map_or(0, |segment| segment.offset.wrapping_add(range.address - segment.address));
        let whole = Segment {
            address: range.address,
            size: range.size,
            offset,
            file_size: range.size,
            access: Default::default(),
        };
        header(kind, flags, &whole, align)
    };
    let mut headers: Vec<_> = read.collect();
    let dynamic = mapped.headers.dynamic;
    // Whoever may write to it adds the base to addresses in it.
    headers.push(part(PT_DYNAMIC, dynamic, holder(dynamic).map_or(PF_R, flags), 8));
    headers.extend(mapped.headers.relro.map(|range| part(PT_GNU_RELRO, range, PF_R, 1)));
    headers.extend(mapped.headers.unwind.map(|range| part(PT_GNU_EH_FRAME, range, PF_R, 4)));
    if let Some(tls) = &mapped.headers.tls {
        let mut block = part(PT_TLS, Range { address: tls.address, size: tls.file_size }, PF_R, tls.align);
        block.p_memsz = tls.size;
        headers.push(block);
    }
    headers
}

fn header(kind: u32, flags: u32, segment: &Segment, align: u64) -> libc::Elf64_Phdr {
    libc::Elf64_Phdr {
        p_type: kind,
        p_flags: flags,
        p_offset: segment.offset,
        p_vaddr: segment.address,
        p_paddr: segment.address,
        p_filesz: segment.file_size,
        p_memsz: segment.size,
        p_align: align,
    }
}
