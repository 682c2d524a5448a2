//! Bitcode that is given and not made here: it is opened as it is, and read body by body.

use super::{Process, bytes};
use crate::lazy::{Compiler, Skeleton, skeleton};
use crate::module_bitcode;
use hotbed_loader::boundary::{Argument, Content, Failure, Input, Lang, Request};
use inkwell::context::Context;
use inkwell::memory_buffer::MemoryBuffer;
use std::sync::Arc;

/// Bitcode of a text, which nobody verifies.
fn bitcode(text: &str) -> Vec<u8> {
    let context = Context::create();
    let buffer = MemoryBuffer::create_from_memory_range_copy(text.as_bytes(), "text");
    module_bitcode(&context.create_module_from_ir(buffer).unwrap())
}

fn made(text: &str, flags: &[&str]) -> Result<Skeleton, Failure> {
    let content = Content::Bytes { name: "given.bc".into(), bytes: bitcode(text) };
    let flags = flags.iter().map(|&flag| Argument::Flag(flag.to_owned()));
    skeleton(&Request {
        unit: "given".into(),
        arguments: flags.chain([Argument::Input(Input { lang: Lang::Bitcode, content })]).collect(),
        directory: std::env::temp_dir(),
        lazy: true,
        ..Request::default()
    })
}

#[test]
fn a_body_is_verified_when_it_is_read() {
    // `bad` uses a value where it may have none, and `good` would take it along.
    let text = "define i32 @good(i1 %c) {\n %x = call i32 @bad(i1 %c)\n ret i32 %x\n}\n\
                define i32 @bad(i1 %c) {\n br i1 %c, label %a, label %b\na:\n %x = add i32 1, 2\n br label %b\n\
                b:\n ret i32 %x\n}\n";
    let skeleton = made(text, &["-O0"]).unwrap_or_else(|failure| panic!("{}", failure.message));
    let file = bytes(&skeleton);
    // As it was opened for the image, and as the image has it.
    for opened in [skeleton.opened, Vec::new()] {
        let compiler = Compiler::new(Arc::new(Process::of(&file))).unwrap();
        let bodies = compiler.open(1, &file, 0, opened).unwrap();
        assert_eq!(bodies.compile(0).unwrap().bodies.len(), 1);
        for _ in 0..2 {
            let failure = bodies.compile(1).unwrap_err();
            assert!(failure.message.contains("does not verify"), "{}", failure.message);
        }
        bodies.remove().unwrap();
    }
    // The optimiser reads all of it first.
    assert!(made(text, &["-O2"]).is_err());
}

#[test]
fn what_reads_files_does_not_last() {
    let asm = "module asm \".section .rodata\"\nmodule asm \".incbin \\22/etc/debian_version\\22\"\n";
    let plain = "define i32 @plain() { ret i32 7 }\n";
    let blob = "define void @blob() { call void asm sideeffect \".incbin \\22/etc/debian_version\\22\", \"\"() ret void }\n";
    let made = |text: &str| made(text, &["-O0"]).unwrap_or_else(|failure| panic!("{}", failure.message));
    assert!(!made(&format!("{asm}{plain}")).reply.reproducible);
    let skeleton = made(&format!("{plain}{blob}"));
    assert!(skeleton.reply.reproducible);
    let file = bytes(&skeleton);
    let compiler = Compiler::new(Arc::new(Process::of(&file))).unwrap();
    let bodies = compiler.open(1, &file, 0, skeleton.opened).unwrap();
    for slot in [0, 1] {
        assert_eq!(bodies.compile(slot).unwrap().bodies.len(), 1);
    }
    let kept: Vec<u32> = bodies.compiled().iter().flat_map(|compiled| compiled.slots.clone()).collect();
    assert_eq!(kept, [0]);
    bodies.remove().unwrap();
}
