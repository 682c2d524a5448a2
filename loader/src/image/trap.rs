//! Traps: what stands where an image was bound to one that was unloaded by force.
//!
//! For every function that an image imported from it there is a stub, which leads to the common [`entry`] with the address
//! of what it has to say:
//!
//! ```text
//! page:    8 bytes     address of `entry`
//!          8 bytes     unused
//! stub:    49 bb i64   mov r11, the trap
//!          ff 25 i32   jmp [address of `entry`]
//! ```
//!
//! A variable has no code to put there: its address becomes one that is certain to fault.

use super::arena::{LARGEST, Lease};
use super::map::Memory;
use super::tls::{Reference, TrapModule};
use crate::sys::exit::die;
use crate::sys::memory::{Access, Mapping, PAGE};
use std::arch::naked_asm;
use std::io;
use std::sync::{Arc, OnceLock};

const HEAD: usize = 16;
const STUB: usize = 16;

/// What a stub says when it is called: a line.
struct Trap(Box<[u8]>);

/// What one image has of them. Dropped, none of them may be called any more.
pub(super) struct Traps {
    code: Option<Mapping>,
    _traps: Arc<[Trap]>,
    modules: Vec<TrapModule>,
    references: Vec<Arc<Reference>>,
}

impl Traps {
    /// Traps for functions, saying these lines.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn new(lines: Vec<Vec<u8>>) -> io::Result<Self> {
        let traps: Arc<[Trap]> = lines.into_iter().map(|line| Trap(line.into())).collect();
        let code = if traps.is_empty() { None } else { Some(write(&traps)?) };
        Ok(Self { code, _traps: traps, modules: Vec::new(), references: Vec::new() })
    }

    /// Address of the stub that says the line of that number.
    pub(super) fn stub(&self, number: usize) -> usize {
        self.code.as_ref().map_or(0, |code| code.start() + HEAD + number * STUB)
    }

    /// A module that says `line` when a variable of it is used.
    pub(super) fn module(&mut self, line: &[u8]) -> usize {
        let module = TrapModule::new(line);
        let number = module.number();
        self.modules.push(module);
        number
    }

    /// What a TLS descriptor can point to for a variable of a module that [`Traps::module`] gave.
    pub(super) fn reference(&mut self, module: usize, offset: usize) -> usize {
        let reference = Arc::new(Reference { module, offset });
        let address = Arc::as_ptr(&reference) as usize;
        self.references.push(reference);
        address
    }
}

/// Writes the stubs, in memory that is executable only when they are there.
fn write(traps: &[Trap]) -> io::Result<Mapping> {
    let length = (HEAD + traps.len() * STUB).next_multiple_of(PAGE);
    let mapping = Mapping::of_zeros(length, Access { read: true, write: true, execute: false })?;
    let mut bytes = Vec::with_capacity(HEAD + traps.len() * STUB);
    bytes.extend_from_slice(&(entry as *const () as usize).to_le_bytes());
    bytes.resize(HEAD, 0);
    for trap in traps {
        bytes.extend_from_slice(&[0x49, 0xbb]);
        bytes.extend_from_slice(&(std::ptr::from_ref(trap) as usize).to_le_bytes());
        bytes.extend_from_slice(&[0xff, 0x25]);
        let back = bytes.len() + size_of::<i32>();
        let back = i32::try_from(back).map_err(|_| io::Error::other("too many traps"))?;
        bytes.extend_from_slice(&(-back).to_le_bytes());
    }
    // SAFETY: the mapping is writable and has room for them, and nobody else has seen it.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), mapping.start() as *mut u8, bytes.len());
        mapping.protect(0, length, Access { read: true, write: false, execute: true })?;
    }
    Ok(mapping)
}

/// Where all stubs go, with the trap in `r11`.
#[unsafe(naked)]
unsafe extern "C" fn entry() {
    naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "and rsp, -16",
        "mov rdi, r11",
        "call {spring}",
        "ud2",
        spring = sym spring,
    )
}

unsafe extern "C" fn spring(trap: *const Trap) -> ! {
    // SAFETY: a stub passes its own, which lives as long as the stub.
    die(&[unsafe { &(*trap).0 }])
}

/// What a pointer to `address`, which is in `memory`, becomes when that is unloaded by force: something that is certain to
/// fault, with what lies around it.
pub(super) fn nowhere(memory: &Memory, address: usize) -> usize {
    match memory {
        // Its addresses stay taken, and nobody has access there.
        Memory::Own { .. } => address,
        // Others are in the same pages.
        Memory::Arena(lease) => no_place(lease, address),
    }
}

fn no_place(lease: &Lease, address: usize) -> usize {
    static NOWHERE: OnceLock<Option<Mapping>> = OnceLock::new();
    let nowhere = NOWHERE.get_or_init(|| Mapping::of_zeros(2 * LARGEST, Access::default()).ok());
    // Nobody has the first page.
    nowhere.as_ref().map_or(0, |nowhere| nowhere.start() + lease.offset_of(address).unwrap_or(0))
}
