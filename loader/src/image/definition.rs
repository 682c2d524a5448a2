//! What images define and need, and what a definition stands for in memory.

use super::elf::{self, SHN_ABS, STT_FUNC, STT_GNU_IFUNC, STT_TLS};
use super::place::Place;
use super::tls::{self, Reference};
use crate::layers::Value;

/// What a symbol is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SymbolKind {
    /// A function, or something of no known kind.
    Function,
    /// A variable.
    Data,
    /// A thread-local variable.
    Tls,
    /// A function that was chosen at load out of several.
    IndirectFunction,
}

impl SymbolKind {
    pub(crate) fn of(symbol: &elf::Symbol) -> Self {
        match symbol.kind() {
            STT_TLS => Self::Tls,
            STT_GNU_IFUNC => Self::IndirectFunction,
            elf::STT_OBJECT | elf::STT_COMMON => Self::Data,
            STT_FUNC => Self::Function,
            // An assembler's label: nobody knows.
            _ => Self::Function,
        }
    }
}

/// An exported definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Definition {
    /// Where it is; for a thread-local variable, the calling thread's instance.
    pub address: usize,
    /// What it is.
    pub kind: SymbolKind,
    /// Whether it is weak or otherwise shared with other units.
    pub weak: bool,
    /// Bytes, 0 if unknown.
    pub size: u64,
}

/// The name of an exported definition, and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Export<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it is.
    pub kind: SymbolKind,
    /// Whether it is weak or otherwise shared with other units.
    pub weak: bool,
    /// Bytes, 0 if unknown.
    pub size: u64,
}

/// Something that an image needs from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// Its name.
    pub name: String,
    /// The version it must have.
    pub version: Option<String>,
    /// `SONAME` of the library that the version is of.
    pub library: Option<String>,
    /// Whether it may be missing.
    pub weak: bool,
}

/// What a definition in the image at `place` stands for. `None` when it cannot be.
pub(crate) fn own_value(place: &Place, module: Option<usize>, symbol: &elf::Symbol) -> Option<Value> {
    Some(match symbol.kind() {
        STT_TLS => Value::Tls { module: module?, offset: symbol.value as usize, fixed: false },
        _ if symbol.section == SHN_ABS => Value::Address(symbol.value as usize),
        STT_GNU_IFUNC => {
            let resolver = place.at(symbol.value);
            place.is_code(resolver).then_some(Value::Resolver(resolver))?
        }
        _ => Value::Address(place.at(symbol.value)),
    })
}

/// The address behind a value, in the calling thread.
pub(crate) fn address_of(value: Value) -> usize {
    match value {
        Value::Address(address) => address,
        // SAFETY: a resolver in the code of an image that is bound.
        Value::Resolver(resolver) => unsafe { call_resolver(resolver) },
        Value::Tls { module, offset, .. } => tls::address(Reference { module, offset }),
    }
}

/// Asks an indirect function where it is.
///
/// # Safety
/// There is such a function at `address`, and it is relocated.
pub(crate) unsafe fn call_resolver(address: usize) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        let resolver: unsafe extern "C" fn() -> usize = std::mem::transmute(address);
        resolver()
    }
}
