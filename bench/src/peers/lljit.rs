//! ORC's own way for objects and bitcode: an `LLJIT` as its C API makes it by default, with a generator for the process's
//! symbols. JITLink links, one object at a time, with nothing stored in between.

use crate::Result;
use crate::peers::shared_library::Entry;
use llvm_sys::bit_reader::LLVMParseBitcodeInContext2;
use llvm_sys::bit_writer::LLVMWriteBitcodeToMemoryBuffer;
use llvm_sys::core::{
    LLVMContextCreate, LLVMContextDispose, LLVMCreateMemoryBufferWithMemoryRange,
    LLVMCreateMemoryBufferWithMemoryRangeCopy, LLVMDisposeMemoryBuffer, LLVMDisposeMessage,
    LLVMDisposeModule, LLVMGetBufferSize, LLVMGetBufferStart,
};
use llvm_sys::error::{LLVMDisposeErrorMessage, LLVMErrorRef, LLVMGetErrorMessage};
use llvm_sys::ir_reader::LLVMParseIRInContext2;
use llvm_sys::orc2::lljit::{
    LLVMOrcCreateLLJIT, LLVMOrcCreateLLJITBuilder, LLVMOrcDisposeLLJIT, LLVMOrcLLJITAddLLVMIRModule,
    LLVMOrcLLJITAddObjectFile, LLVMOrcLLJITBuilderRef, LLVMOrcLLJITBuilderSetJITTargetMachineBuilder,
    LLVMOrcLLJITGetMainJITDylib, LLVMOrcLLJITLookup, LLVMOrcLLJITRef,
};
use llvm_sys::orc2::{
    LLVMOrcCreateNewThreadSafeContextFromLLVMContext, LLVMOrcCreateNewThreadSafeModule,
    LLVMOrcDisposeThreadSafeContext, LLVMOrcJITTargetMachineBuilderCreateFromTargetMachine,
    LLVMOrcThreadSafeContextRef,
};
use llvm_sys::prelude::LLVMContextRef;
use llvm_sys::target::{
    LLVMInitializeX86AsmParser, LLVMInitializeX86AsmPrinter, LLVMInitializeX86Target,
    LLVMInitializeX86TargetInfo, LLVMInitializeX86TargetMC,
};
use llvm_sys::target_machine::{
    LLVMCodeGenOptLevel, LLVMCodeModel, LLVMCreateTargetMachine, LLVMGetDefaultTargetTriple,
    LLVMGetTargetFromTriple, LLVMRelocMode,
};
use std::ffi::CStr;
use std::ptr;
use std::sync::Once;

/// An `LLJIT`; what it linked goes away with it.
pub(crate) struct Lljit {
    jit: LLVMOrcLLJITRef,
    /// Of all its modules, so that none has to set one up.
    context: LLVMContextRef,
    /// The same, as the JIT holds it.
    shared: LLVMOrcThreadSafeContextRef,
}

impl Lljit {
    /// An empty one for this machine.
    ///
    /// # Errors
    /// What LLVM says.
    pub(crate) fn new() -> Result<Self> {
        initialize();
        Self::built(ptr::null_mut())
    }

    /// One that generates code as for -O0.
    ///
    /// # Errors
    /// What LLVM says.
    pub(crate) fn unoptimised() -> Result<Self> {
        initialize();
        let mut target = ptr::null_mut();
        let mut message = ptr::null_mut();
        // SAFETY: the target is set when there is no message; triple and message are LLVM's and given back. The builder
        // takes the machine over, and LLJIT takes the builder.
        unsafe {
            let triple = LLVMGetDefaultTargetTriple();
            let failed = LLVMGetTargetFromTriple(triple, &raw mut target, &raw mut message) != 0;
            let machine = if failed {
                ptr::null_mut()
            } else {
                LLVMCreateTargetMachine(
                    target,
                    triple,
                    c"x86-64".as_ptr(),
                    c"".as_ptr(),
                    LLVMCodeGenOptLevel::LLVMCodeGenLevelNone,
                    LLVMRelocMode::LLVMRelocPIC,
                    LLVMCodeModel::LLVMCodeModelSmall,
                )
            };
            LLVMDisposeMessage(triple);
            LLVMDisposeMessage(message);
            if machine.is_null() {
                return Err("LLJIT: no code can be generated for this machine".into());
            }
            let builder = LLVMOrcCreateLLJITBuilder();
            let machines = LLVMOrcJITTargetMachineBuilderCreateFromTargetMachine(machine);
            LLVMOrcLLJITBuilderSetJITTargetMachineBuilder(builder, machines);
            Self::built(builder)
        }
    }

    /// What `builder`, which is consumed, makes.
    fn built(builder: LLVMOrcLLJITBuilderRef) -> Result<Self> {
        let mut jit = ptr::null_mut();
        // SAFETY: without a builder LLVM makes the default: this machine's target, JITLink, no threads, and a search in
        // the process for what no object defines; with one of `unoptimised` only the target is another. `jit` is set when
        // there is no error.
        check(unsafe { LLVMOrcCreateLLJIT(&raw mut jit, builder) })?;
        // SAFETY: the second holds the first from here on.
        let (context, shared) = unsafe {
            let context = LLVMContextCreate();
            (context, LLVMOrcCreateNewThreadSafeContextFromLLVMContext(context))
        };
        Ok(Self { jit, context, shared })
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
            check(LLVMOrcLLJITAddObjectFile(self.jit, LLVMOrcLLJITGetMainJITDylib(self.jit), buffer))?;
            check(LLVMOrcLLJITLookup(self.jit, &raw mut address, symbol.as_ptr()))?;
        }
        let address = usize::try_from(address)?;
        if address == 0 {
            return Err(format!("LLJIT gives no address for {}", symbol.to_string_lossy()).into());
        }
        // SAFETY: the rows ask only for functions of this type; the address is that of linked code.
        Ok(unsafe { std::mem::transmute::<usize, Entry>(address) })
    }

    /// Adds a module and looks a function of it up, which generates its code and links that.
    ///
    /// # Errors
    /// What LLVM says.
    pub(crate) fn compile_and_look_up(&self, bitcode: &[u8], symbol: &CStr) -> Result<usize> {
        let mut address = 0;
        // SAFETY: the bytes are borrowed until they are parsed, and need no zero after them; the module is of the JIT's
        // context and taken over with what wraps it; the name ends with a zero.
        unsafe {
            let start = bitcode.as_ptr().cast();
            let buffer = LLVMCreateMemoryBufferWithMemoryRange(start, bitcode.len(), c"module".as_ptr(), 0);
            let mut module = ptr::null_mut();
            let failed = LLVMParseBitcodeInContext2(self.context, buffer, &raw mut module) != 0;
            LLVMDisposeMemoryBuffer(buffer);
            if failed {
                return Err("LLJIT: the bitcode cannot be read".into());
            }
            let module = LLVMOrcCreateNewThreadSafeModule(module, self.shared);
            check(LLVMOrcLLJITAddLLVMIRModule(self.jit, LLVMOrcLLJITGetMainJITDylib(self.jit), module))?;
            check(LLVMOrcLLJITLookup(self.jit, &raw mut address, symbol.as_ptr()))?;
        }
        Ok(usize::try_from(address)?)
    }
}

/// A module's text as bitcode.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn bitcode(text: &CStr) -> Result<Vec<u8>> {
    let bytes = text.to_bytes();
    // SAFETY: the buffer is a copy with a zero behind it, and goes when it is parsed; module and context are owned and end here, in this order; the
    // bytes are copied before their buffer goes.
    unsafe {
        let buffer =
            LLVMCreateMemoryBufferWithMemoryRangeCopy(bytes.as_ptr().cast(), bytes.len(), c"text".as_ptr());
        let context = LLVMContextCreate();
        let (mut module, mut message) = (ptr::null_mut(), ptr::null_mut());
        let failed = LLVMParseIRInContext2(context, buffer, &raw mut module, &raw mut message) != 0;
        LLVMDisposeMemoryBuffer(buffer);
        if failed {
            let why = CStr::from_ptr(message).to_string_lossy().into_owned();
            LLVMDisposeMessage(message);
            LLVMContextDispose(context);
            return Err(why.into());
        }
        let written = LLVMWriteBitcodeToMemoryBuffer(module);
        let (start, size) = (LLVMGetBufferStart(written), LLVMGetBufferSize(written));
        let bitcode = std::slice::from_raw_parts(start.cast(), size).to_vec();
        LLVMDisposeMemoryBuffer(written);
        LLVMDisposeModule(module);
        LLVMContextDispose(context);
        Ok(bitcode)
    }
}

/// Makes this machine known to LLVM.
fn initialize() {
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
}

impl Drop for Lljit {
    fn drop(&mut self) {
        // SAFETY: both were made by `built` and are disposed of once, the modules before their context. An error would
        // concern memory that the system cannot take back.
        unsafe {
            let _ = check(LLVMOrcDisposeLLJIT(self.jit));
            LLVMOrcDisposeThreadSafeContext(self.shared);
        }
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

        let text = c"define i32 @six() { ret i32 6 }";
        let place =
            Lljit::unoptimised().unwrap().compile_and_look_up(&bitcode(text).unwrap(), c"six").unwrap();
        assert_ne!(place, 0);
        assert!(bitcode(c"no module at all").is_err());

        let jit = Lljit::new().unwrap();
        let seven = jit.add_and_look_up(bytes, c"seven").unwrap();
        // SAFETY: the source above gives it this type.
        assert_eq!(unsafe { seven() }, 7);
        let error = Lljit::new().unwrap().add_and_look_up(bytes, c"eight").unwrap_err();
        assert!(error.to_string().contains("eight"), "{error}");
        assert!(Lljit::new().unwrap().add_and_look_up(b"no object at all", c"seven").is_err());
    }
}
