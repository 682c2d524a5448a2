//! ORC's own way for objects: an `LLJIT` as its C API makes it by default, with a generator for the process's symbols.
//! JITLink links, one object at a time, with nothing stored in between.

use crate::Result;
use crate::peers::shared_library::Entry;
use llvm_sys::core::LLVMCreateMemoryBufferWithMemoryRange;
use llvm_sys::error::{LLVMDisposeErrorMessage, LLVMErrorRef, LLVMGetErrorMessage};
use llvm_sys::orc2::lljit::{
    LLVMOrcCreateLLJIT, LLVMOrcDisposeLLJIT, LLVMOrcLLJITAddObjectFile, LLVMOrcLLJITGetMainJITDylib,
    LLVMOrcLLJITLookup, LLVMOrcLLJITRef,
};
use llvm_sys::target::{
    LLVMInitializeX86AsmParser, LLVMInitializeX86AsmPrinter, LLVMInitializeX86Target,
    LLVMInitializeX86TargetInfo, LLVMInitializeX86TargetMC,
};
use std::ffi::CStr;
use std::ptr;
use std::sync::Once;

/// An `LLJIT`; what it linked goes away with it.
pub(crate) struct Lljit(LLVMOrcLLJITRef);

impl Lljit {
    /// An empty one for this machine.
    ///
    /// # Errors
    /// What LLVM says.
    pub(crate) fn new() -> Result<Self> {
        static TARGET: Once = Once::new();
        TARGET.call_once(|| {
            // SAFETY: these register static tables, once, and need nothing.
            unsafe {
                LLVMInitializeX86TargetInfo();
                LLVMInitializeX86Target();
                LLVMInitializeX86TargetMC();
                LLVMInitializeX86AsmPrinter();
                LLVMInitializeX86AsmParser();
            }
        });
        let mut jit = ptr::null_mut();
        // SAFETY: without a builder LLVM makes the default: this machine's target, JITLink, no threads, and a search in
        // the process for what no object defines. `jit` is set when there is no error.
        check(unsafe { LLVMOrcCreateLLJIT(&raw mut jit, ptr::null_mut()) })?;
        Ok(Self(jit))
    }

    /// Adds an object and looks a function of it up, which links the object. `object` must stay until `self` is gone:
    /// nothing is copied.
    ///
    /// # Errors
    /// What LLVM says.
    pub(crate) fn add_and_look_up(&self, object: &'static [u8], symbol: &CStr) -> Result<Entry> {
        let mut address = 0;
        // SAFETY: the bytes outlive the buffer, which needs no zero after them and which the JIT takes over; the main
        // dylib is the JIT's own, and the name ends with a zero.
        unsafe {
            let buffer = LLVMCreateMemoryBufferWithMemoryRange(
                object.as_ptr().cast(),
                object.len(),
                c"object".as_ptr(),
                0,
            );
            check(LLVMOrcLLJITAddObjectFile(self.0, LLVMOrcLLJITGetMainJITDylib(self.0), buffer))?;
            check(LLVMOrcLLJITLookup(self.0, &raw mut address, symbol.as_ptr()))?;
        }
        let address = usize::try_from(address)?;
        if address == 0 {
            return Err(format!("LLJIT gives no address for {}", symbol.to_string_lossy()).into());
        }
        // SAFETY: the rows ask only for functions of this type; the address is that of linked code.
        Ok(unsafe { std::mem::transmute::<usize, Entry>(address) })
    }
}

impl Drop for Lljit {
    fn drop(&mut self) {
        // SAFETY: made by `new`, disposed of once. An error would concern memory that the system cannot take back.
        let _ = check(unsafe { LLVMOrcDisposeLLJIT(self.0) });
    }
}

/// Turns LLVM's error into ours.
fn check(error: LLVMErrorRef) -> Result<()> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: not null, so an error that has not been consumed; taking the message consumes it, and the message is
    // copied before it is freed.
    unsafe {
        let message = LLVMGetErrorMessage(error);
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        LLVMDisposeErrorMessage(message);
        Err(format!("LLJIT: {text}").into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may end with a panic")]
    use super::*;
    use crate::process::{clang, output_of};

    #[test]
    fn an_object_is_linked_and_finds_the_process() {
        let folder = std::env::temp_dir().join(format!("hotbed-bench-lljit-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (source, object) = (folder.join("seven.c"), folder.join("seven.o"));
        std::fs::write(&source, "#include <stdlib.h>\nint seven(void) { return atoi(\"7\"); }\n").unwrap();
        output_of(clang(["-O0", "-fPIC", "-c"]).unwrap().arg(&source).arg("-o").arg(&object)).unwrap();
        let bytes: &'static [u8] = std::fs::read(&object).unwrap().leak();
        std::fs::remove_dir_all(&folder).unwrap();

        let jit = Lljit::new().unwrap();
        let seven = jit.add_and_look_up(bytes, c"seven").unwrap();
        // SAFETY: the source above gives it this type.
        assert_eq!(unsafe { seven() }, 7);
        let error = Lljit::new().unwrap().add_and_look_up(bytes, c"eight").unwrap_err();
        assert!(error.to_string().contains("eight"), "{error}");
        assert!(Lljit::new().unwrap().add_and_look_up(b"no object at all", c"seven").is_err());
    }
}
