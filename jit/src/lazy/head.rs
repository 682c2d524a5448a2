//! What the functions of a lazy image have in common, as the first object of its link: the words by which the loader is
//! found, the way there, and what happens where there is no such loader. And the units themselves.

use super::object::{Manner, Writer};
use super::{Kept, KeptBody, kept};
use hotbed_loader::image::note::{
    BODIES_SECTION, ENTRIES_SECTION, FUNCTIONS_SECTION, SLOTS_SECTION, UNITS_SECTION,
};
use object::elf;
use object::write::Error;

/// Where a lazy entry goes.
pub(super) const HEAD: &str = "__hotbed_lazy_head";
/// Where the way from there ends until a loader writes another address.
const ABORT: &str = "__hotbed_lazy_abort";

/// What an image's link begins with.
///
/// # Errors
/// When it cannot be written, which is a defect.
pub(super) fn head_object(units: &[Kept<'_>], bodies: &[KeptBody<'_>]) -> Result<Vec<u8>, Error> {
    let mut object = Writer::new();
    // Nothing of them is here, but here is where they begin.
    let entries = object.section(ENTRIES_SECTION, elf::SHF_EXECINSTR, 1);
    let functions = object.section(FUNCTIONS_SECTION, elf::SectionFlags(0), 8);
    let mut words = object.section(SLOTS_SECTION, elf::SHF_WRITE, 8);
    let mut code = object.section(".text", elf::SHF_EXECINSTR, 16);

    // push image(%rip); jmp *entry(%rip)
    code.bytes.extend([0xff, 0x35]);
    object.refer(&mut code, words.start, -4, elf::R_X86_64_PC32)?;
    code.bytes.extend([0xff, 0x25]);
    object.refer(&mut code, words.start, 8 - 4, elf::R_X86_64_PC32)?;
    let head = code.bytes.len();
    object.define(HEAD, &code, 0, head as u64, Manner::HIDDEN);
    // After the first instruction there is one word more.
    object.frame(&code, 0, head, &[0x46, 0x0e, 16])?;

    words.bytes.extend([0; 8]);
    object.refer(&mut words, code.start, head as i64, elf::R_X86_64_64)?;

    // Which function it is follows from where its lazy entry is, which called the head.
    code.bytes.extend([0x48, 0x8b, 0x44, 0x24, 0x08]); // mov 8(%rsp), %rax
    code.bytes.extend([0x48, 0x8d, 0x0d]); // lea entries(%rip), %rcx
    object.refer(&mut code, entries.start, -4, elf::R_X86_64_PC32)?;
    code.bytes.extend([0x48, 0x29, 0xc8]); // sub %rcx, %rax
    code.bytes.extend([0x31, 0xd2]); // xor %edx, %edx
    code.bytes.extend([0xb9, 5, 0, 0, 0]); // mov $5, %ecx
    code.bytes.extend([0x48, 0xf7, 0xf1]); // div %rcx
    code.bytes.extend([0x48, 0xc1, 0xe0, 4]); // shl $4, %rax
    code.bytes.extend([0x48, 0x8d, 0x0d]); // lea functions(%rip), %rcx
    object.refer(&mut code, functions.start, -4, elf::R_X86_64_PC32)?;
    code.bytes.extend([0x48, 0x8d, 0x5c, 0x01, 0xfc]); // lea -4(%rcx, %rax), %rbx
    code.bytes.extend([0x48, 0x63, 0x0b]); // movslq (%rbx), %rcx
    code.bytes.extend([0x48, 0x01, 0xcb]); // add %rcx, %rbx
    code.bytes.extend(REPORT);
    let size = code.bytes.len() - head;
    object.define(ABORT, &code, head as u64, size as u64, Manner::HIDDEN);
    object.frame(&code, head, size, &[0x0e, 24])?;

    for section in [words, entries, code, functions] {
        object.put(section);
    }
    object.section_in_file(UNITS_SECTION, kept::encode(units));
    if !bodies.is_empty() {
        object.section_in_file(BODIES_SECTION, kept::encode_bodies(bodies));
    }
    object.finish()
}

/// Writes the name at %rbx, with words around it, and ends the process. No library is asked, for nobody knows which is
/// there.
#[rustfmt::skip]
const REPORT: [u8; 128] = [
    0x48, 0x8d, 0x35, 0x5d, 0, 0, 0, // lea before(%rip), %rsi
    0xba, 8, 0, 0, 0,                // mov $8, %edx
    0xe8, 0x46, 0, 0, 0,             // call write
    0x48, 0x89, 0xde,                // mov %rbx, %rsi
    0x31, 0xd2,                      // xor %edx, %edx
    0x80, 0x3c, 0x16, 0,             // length: cmpb $0, (%rsi, %rdx)
    0x74, 0x05,                      // je known
    0x48, 0xff, 0xc2,                // inc %rdx
    0xeb, 0xf5,                      // jmp length
    0xe8, 0x31, 0, 0, 0,             // known: call write
    0x48, 0x8d, 0x35, 0x3f, 0, 0, 0, // lea behind(%rip), %rsi
    0xba, 20, 0, 0, 0,               // mov $20, %edx
    0xe8, 0x20, 0, 0, 0,             // call write
    0xb8, 39, 0, 0, 0, 0x0f, 0x05,   // getpid()
    0x89, 0xc7,                      // mov %eax, %edi
    0xb8, 186, 0, 0, 0, 0x0f, 0x05,  // gettid()
    0x89, 0xc6,                      // mov %eax, %esi
    0xba, 6, 0, 0, 0,                // mov $SIGABRT, %edx
    0xb8, 234, 0, 0, 0, 0x0f, 0x05,  // tgkill()
    0x0f, 0x0b,                      // ud2
    0xbf, 2, 0, 0, 0,                // write: mov $2, %edi
    0xb8, 1, 0, 0, 0, 0x0f, 0x05,    // write()
    0xc3,                            // ret
    b'h', b'o', b't', b'b', b'e', b'd', b':', b' ',
    b' ', b'w', b'a', b's', b' ', b'n', b'e', b'v', b'e', b'r', b' ',
    b'c', b'o', b'm', b'p', b'i', b'l', b'e', b'd', b'\n',
];
