//! What the processor says about itself, and what of it the system has enabled.

use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

/// A register in which a processor tells of its features, by the question (`CPUID`'s leaf and subleaf) that it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Register {
    /// Leaf 1, `ecx`.
    Leaf1Ecx,
    /// Leaf 7, subleaf 0, `ebx`.
    Leaf7Ebx,
    /// The same, `ecx`.
    Leaf7Ecx,
    /// The same, `edx`.
    Leaf7Edx,
    /// Leaf 7, subleaf 1, `eax`.
    Leaf7MoreEax,
    /// The same, `edx`.
    Leaf7MoreEdx,
    /// Leaf 13, subleaf 1, `eax`: ways of saving registers.
    SaveEax,
    /// Leaf 20, subleaf 0, `ebx`: traces of the processor.
    TraceEbx,
    /// Leaf 25, `ebx`: the key locker.
    KeyEbx,
    /// Leaf 30, subleaf 1, `eax`: matrices.
    MatrixEax,
    /// A bit for each version of AVX10 up to that of leaf 36, version 1 in bit 0.
    Avx10,
    /// Leaf 0x8000_0001, `ecx`.
    ExtendedEcx,
    /// Leaf 0x8000_0008, `ebx`.
    SizesEbx,
}

/// How many registers there are.
const REGISTERS: usize = Register::SizesEbx as usize + 1;

/// What a processor has said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Processor {
    /// Family, model and stepping.
    pub(crate) signature: u32,
    registers: [u32; REGISTERS],
    /// The components of its state that the system saves when it goes on with another thread (`XCR0`); `None` if it does not by
    /// `XSAVE`.
    pub(crate) saved: Option<u64>,
}

impl Processor {
    /// The one that this runs on. In a virtual machine each question may take microseconds.
    pub(crate) fn here() -> Self {
        let (last, last_extended) = (__cpuid(0).eax, __cpuid(0x8000_0000).eax);
        // What is not there answers with something else.
        let ask = |leaf: u32, subleaf: u32| {
            let last = if leaf < 0x8000_0000 { last } else { last_extended };
            if leaf <= last { Some(__cpuid_count(leaf, subleaf)) } else { None }
        };
        let features = ask(7, 0);
        // Its `eax` says which subleaf is the last.
        let more = features.filter(|features| features.eax >= 1).and_then(|_| ask(7, 1));
        let matrices = ask(30, 0).filter(|said| said.eax >= 1).and_then(|_| ask(30, 1));
        let first = __cpuid(1);
        let mut registers = [0; REGISTERS];
        let mut put = |register: Register, value: Option<u32>| {
            registers[register as usize] = value.unwrap_or(0);
        };
        put(Register::Leaf1Ecx, Some(first.ecx));
        put(Register::Leaf7Ebx, features.map(|said| said.ebx));
        put(Register::Leaf7Ecx, features.map(|said| said.ecx));
        put(Register::Leaf7Edx, features.map(|said| said.edx));
        put(Register::Leaf7MoreEax, more.map(|said| said.eax));
        put(Register::Leaf7MoreEdx, more.map(|said| said.edx));
        put(Register::SaveEax, ask(13, 1).map(|said| said.eax));
        put(Register::TraceEbx, ask(20, 0).map(|said| said.ebx));
        put(Register::KeyEbx, ask(25, 0).map(|said| said.ebx));
        put(Register::MatrixEax, matrices.map(|said| said.eax));
        // Bit 19: there is AVX10, in a version that leaf 36 tells.
        let avx10 = more.filter(|said| said.edx >> 19 & 1 == 1).and_then(|_| ask(36, 0));
        put(Register::Avx10, avx10.map(|said| (1 << (said.ebx & 0xff).min(31)) - 1));
        put(Register::ExtendedEcx, ask(0x8000_0001, 0).map(|said| said.ecx));
        put(Register::SizesEbx, ask(0x8000_0008, 0).map(|said| said.ebx));
        // Bit 27: the system has enabled XSAVE, and with it XGETBV.
        // SAFETY: the instruction is there.
        let saved = (first.ecx >> 27 & 1 == 1).then(|| unsafe { saved_state() });
        Self { signature: first.eax, registers, saved }
    }

    /// Whether it has the feature that stands in that bit, whatever the system says to it.
    pub(crate) fn has(&self, register: Register, bit: u32) -> bool {
        self.registers[register as usize] >> bit & 1 == 1
    }
}

/// Whether Intel has made it, as the run-time linker of old asks.
pub(crate) fn is_intel() -> bool {
    let said = __cpuid(0);
    [said.ebx, said.edx, said.ecx].map(u32::to_le_bytes).concat() == b"GenuineIntel"
}

/// # Safety
/// The system has enabled `XSAVE`.
#[target_feature(enable = "xsave")]
unsafe fn saved_state() -> u64 {
    // SAFETY: register 0 is there where the instruction is.
    unsafe { _xgetbv(0) }
}
