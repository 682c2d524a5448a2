//! The few structures of ELF that are read where they lie in memory, and their constants.

/// An entry of the dynamic symbol table.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Symbol {
    /// Offset of the name in the string table.
    pub(crate) name: u32,
    info: u8,
    other: u8,
    /// Section it is defined in; 0 if it is not.
    pub(crate) section: u16,
    /// Address before relocation, or offset in the thread-local block.
    pub(crate) value: u64,
    /// Bytes.
    pub(crate) size: u64,
}

/// A relocation with addend.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Rela {
    /// Where.
    pub(crate) offset: u64,
    info: u64,
    /// What is added.
    pub(crate) addend: i64,
}

/// Types that may be read from any bytes of their size.
///
/// # Safety
/// Every bit pattern is a value, and there is no padding.
pub(crate) unsafe trait Plain: Copy + 'static {}

// SAFETY: integers only, laid out without gaps.
unsafe impl Plain for Symbol {}
// SAFETY: integers only, laid out without gaps.
unsafe impl Plain for Rela {}
// SAFETY: an integer.
unsafe impl Plain for u8 {}
// SAFETY: an integer.
unsafe impl Plain for u16 {}
// SAFETY: an integer.
unsafe impl Plain for u32 {}
// SAFETY: an integer.
unsafe impl Plain for u64 {}

impl Symbol {
    /// The entry that stands in these bytes of a file.
    pub(crate) fn of_bytes(bytes: &[u8; 24]) -> Self {
        let [name @ .., info, other, s0, s1, v0, v1, v2, v3, v4, v5, v6, v7, z0, z1, z2, z3, z4, z5, z6, z7] =
            *bytes;
        Self {
            name: u32::from_le_bytes(name),
            info,
            other,
            section: u16::from_le_bytes([s0, s1]),
            value: u64::from_le_bytes([v0, v1, v2, v3, v4, v5, v6, v7]),
            size: u64::from_le_bytes([z0, z1, z2, z3, z4, z5, z6, z7]),
        }
    }

    /// Kind, an `STT_` number.
    pub(crate) fn kind(&self) -> u8 {
        self.info & 15
    }

    /// Binding, an `STB_` number.
    pub(crate) fn binding(&self) -> u8 {
        self.info >> 4
    }

    /// Whether it is defined here.
    pub(crate) fn is_defined(&self) -> bool {
        self.section != 0
    }

    /// Whether its value is an offset in the thread-local block.
    pub(crate) fn is_thread_local(&self) -> bool {
        self.kind() == STT_TLS
    }

    /// Whether others may have their own definition of it that is as good: weak, or unique in the process.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self.binding(), STB_WEAK | STB_GNU_UNIQUE)
    }

    /// Whether others can see it.
    pub(crate) fn is_exported(&self) -> bool {
        self.is_defined()
            && matches!(self.binding(), STB_GLOBAL | STB_WEAK | STB_GNU_UNIQUE)
            // Default or protected.
            && matches!(self.other & 3, 0 | 3)
            && matches!(self.kind(), STT_NOTYPE | STT_OBJECT | STT_FUNC | STT_COMMON | STT_TLS | STT_GNU_IFUNC)
            && (self.value != 0 || self.kind() == STT_TLS || self.section == SHN_ABS)
    }
}

impl Rela {
    /// Index of the symbol.
    pub(crate) fn symbol(&self) -> u32 {
        (self.info >> 32) as u32
    }

    /// Type, an `R_X86_64_` number.
    pub(crate) fn kind(&self) -> u32 {
        self.info as u32
    }
}

pub(crate) const ET_DYN: u16 = 3;
pub(crate) const EM_X86_64: u16 = 62;

pub(crate) const PT_LOAD: u32 = 1;
pub(crate) const PT_DYNAMIC: u32 = 2;
pub(crate) const PT_NOTE: u32 = 4;
pub(crate) const PT_TLS: u32 = 7;
pub(crate) const PT_GNU_EH_FRAME: u32 = 0x6474_e550;
pub(crate) const PT_GNU_RELRO: u32 = 0x6474_e552;

pub(crate) const PF_X: u32 = 1;
pub(crate) const PF_W: u32 = 2;
pub(crate) const PF_R: u32 = 4;

pub(crate) const DT_NEEDED: u64 = 1;
pub(crate) const DT_PLTRELSZ: u64 = 2;
pub(crate) const DT_PLTGOT: u64 = 3;
pub(crate) const DT_HASH: u64 = 4;
pub(crate) const DT_STRTAB: u64 = 5;
pub(crate) const DT_SYMTAB: u64 = 6;
pub(crate) const DT_RELA: u64 = 7;
pub(crate) const DT_RELASZ: u64 = 8;
pub(crate) const DT_RELAENT: u64 = 9;
pub(crate) const DT_STRSZ: u64 = 10;
pub(crate) const DT_SYMENT: u64 = 11;
pub(crate) const DT_INIT: u64 = 12;
pub(crate) const DT_FINI: u64 = 13;
pub(crate) const DT_SONAME: u64 = 14;
pub(crate) const DT_RPATH: u64 = 15;
pub(crate) const DT_REL: u64 = 17;
pub(crate) const DT_PLTREL: u64 = 20;
pub(crate) const DT_TEXTREL: u64 = 22;
pub(crate) const DT_JMPREL: u64 = 23;
pub(crate) const DT_BIND_NOW: u64 = 24;
pub(crate) const DT_INIT_ARRAY: u64 = 25;
pub(crate) const DT_FINI_ARRAY: u64 = 26;
pub(crate) const DT_INIT_ARRAYSZ: u64 = 27;
pub(crate) const DT_FINI_ARRAYSZ: u64 = 28;
pub(crate) const DT_RUNPATH: u64 = 29;
pub(crate) const DT_FLAGS: u64 = 30;
pub(crate) const DT_PREINIT_ARRAY: u64 = 32;
pub(crate) const DT_PREINIT_ARRAYSZ: u64 = 33;
pub(crate) const DT_RELRSZ: u64 = 35;
pub(crate) const DT_RELR: u64 = 36;
pub(crate) const DT_RELRENT: u64 = 37;
pub(crate) const DT_GNU_HASH: u64 = 0x6fff_fef5;
pub(crate) const DT_VERSYM: u64 = 0x6fff_fff0;
pub(crate) const DT_FLAGS_1: u64 = 0x6fff_fffb;
pub(crate) const DT_VERDEF: u64 = 0x6fff_fffc;
pub(crate) const DT_VERDEFNUM: u64 = 0x6fff_fffd;
pub(crate) const DT_VERNEED: u64 = 0x6fff_fffe;
pub(crate) const DT_VERNEEDNUM: u64 = 0x6fff_ffff;

pub(crate) const SHN_ABS: u16 = 0xfff1;

pub(crate) const STB_GLOBAL: u8 = 1;
pub(crate) const STB_WEAK: u8 = 2;
pub(crate) const STB_GNU_UNIQUE: u8 = 10;

pub(crate) const STT_NOTYPE: u8 = 0;
pub(crate) const STT_OBJECT: u8 = 1;
pub(crate) const STT_FUNC: u8 = 2;
pub(crate) const STT_COMMON: u8 = 5;
pub(crate) const STT_TLS: u8 = 6;
pub(crate) const STT_GNU_IFUNC: u8 = 10;

pub(crate) const R_X86_64_NONE: u32 = 0;
pub(crate) const R_X86_64_64: u32 = 1;
pub(crate) const R_X86_64_COPY: u32 = 5;
pub(crate) const R_X86_64_GLOB_DAT: u32 = 6;
pub(crate) const R_X86_64_JUMP_SLOT: u32 = 7;
pub(crate) const R_X86_64_RELATIVE: u32 = 8;
pub(crate) const R_X86_64_DTPMOD64: u32 = 16;
pub(crate) const R_X86_64_DTPOFF64: u32 = 17;
pub(crate) const R_X86_64_TPOFF64: u32 = 18;
pub(crate) const R_X86_64_TLSDESC: u32 = 36;
pub(crate) const R_X86_64_IRELATIVE: u32 = 37;
