//! Fingerprints of functions that are, and that are not, the same.

use super::Subject;

/// A module around what is to be compared: functions enough, and the one that counts, `f`.
fn module(text: &str) -> String {
    let filler: String =
        (0..40).map(|n| format!("define i32 @filler{n}(i32 %x) {{ ret i32 {n} }}\n")).collect();
    format!("target triple = \"x86_64-pc-linux-gnu\"\n{text}\n{filler}")
}

fn fingerprint(text: &str) -> Option<[u8; 16]> {
    let made = Subject::new("one.ll", &["-O0"]).compile(&module(text), b"");
    made.functions.known.iter().find(|(name, _)| name == b"f").map(|(_, fingerprint)| *fingerprint)
}

const BODIES: &[(&str, &str)] = &[
    ("add i32 %a, %b", "add nsw i32 %a, %b"),
    ("add i32 %a, %b", "add nuw i32 %a, %b"),
    ("add i32 %a, %b", "add i32 %b, %a"),
    ("add i32 %a, %b", "sub i32 %a, %b"),
    ("add i32 %a, 1", "add i32 %a, 2"),
    ("udiv i32 %a, %b", "udiv exact i32 %a, %b"),
    ("or i32 %a, %b", "or disjoint i32 %a, %b"),
    ("zext i8 %c to i32", "sext i8 %c to i32"),
    ("zext i8 %c to i32", "zext nneg i8 %c to i32"),
    ("trunc i64 %l to i32", "trunc nsw i64 %l to i32"),
    ("load i32, ptr %p, align 4", "load i32, ptr %p, align 1"),
    ("load i32, ptr %p, align 4", "load volatile i32, ptr %p, align 4"),
    ("load i32, ptr %p, align 4", "load atomic i32, ptr %p monotonic, align 4"),
    ("load atomic i32, ptr %p monotonic, align 4", "load atomic i32, ptr %p seq_cst, align 4"),
    (
        "load atomic i32, ptr %p monotonic, align 4",
        "load atomic i32, ptr %p syncscope(\"singlethread\") monotonic, align 4",
    ),
    ("load i32, ptr %p, align 4", "load i32, ptr %p, align 4, !range !0"),
    ("load i32, ptr %p, align 4, !range !0", "load i32, ptr %p, align 4, !range !1"),
    ("load i32, ptr %p, align 4, !invariant.load !2", "load i32, ptr %p, align 4, !nontemporal !3"),
    ("load i32, ptr @v", "load i32, ptr @w"),
    ("load i32, ptr @v", "load i32, ptr @t"),
    ("load i32, ptr @v", "load i32, ptr @x"),
    ("load i32, ptr @v", "load i32, ptr @h"),
    ("load i32, ptr @v", "load i32, ptr @k1"),
    (
        "load i32, ptr getelementptr (i8, ptr @v, i64 1)",
        "load i32, ptr getelementptr inbounds (i8, ptr @v, i64 1)",
    ),
    ("load i32, ptr getelementptr (i8, ptr @v, i64 1)", "load i32, ptr getelementptr (i16, ptr @v, i64 1)"),
    ("load i32, ptr getelementptr (i8, ptr @v, i64 1)", "load i32, ptr getelementptr (i8, ptr @v, i64 2)"),
    ("atomicrmw add ptr %p, i32 %a seq_cst", "atomicrmw sub ptr %p, i32 %a seq_cst"),
    ("atomicrmw add ptr %p, i32 %a seq_cst", "atomicrmw volatile add ptr %p, i32 %a seq_cst"),
    ("atomicrmw add ptr %p, i32 %a seq_cst", "atomicrmw add ptr %p, i32 %a monotonic"),
    ("call i32 @g(i32 %a)", "call i32 @g2(i32 %a)"),
    ("call i32 @g(i32 %a)", "call fastcc i32 @g(i32 %a)"),
    ("call i32 @g(i32 %a)", "tail call i32 @g(i32 %a)"),
    ("call i32 @g(i32 %a)", "notail call i32 @g(i32 %a)"),
    ("call i32 @g(i32 %a)", "call i32 @g(i32 signext %a)"),
    ("call i32 @g(i32 %a)", "call i32 @g(i32 %a) nounwind"),
    ("call i32 @g(i32 %a)", "call i32 @g(i32 %a) \"no-builtins\""),
    ("call i32 @g(i32 %a)", "call signext i32 @g(i32 %a)"),
    ("call i32 (i32, ...) @g(i32 %a)", "call i32 (...) @g(i32 %a)"),
    ("call i32 @g(i32 %a) [\"deopt\"(i32 1)]", "call i32 @g(i32 %a) [\"deopt\"(i32 2)]"),
    ("call i32 @by(ptr byval({i32}) %p)", "call i32 @by(ptr byval({i64}) %p)"),
    ("call i32 @by(ptr byval(%S) %p)", "call i32 @by(ptr byval(%T) %p)"),
    ("select i1 %d, i32 %a, i32 %b", "select i1 %d, i32 %b, i32 %a"),
    ("freeze i32 %a", "freeze i32 %b"),
    ("extractvalue {i32, i32} %s, 0", "extractvalue {i32, i32} %s, 1"),
    ("extractelement <4 x i32> %e, i32 0", "extractelement <4 x i32> %e, i32 1"),
    ("load i32, ptr @.str.1", "load i32, ptr @.str.2"),
    ("load i32, ptr @k1", "load i32, ptr @k2"),
    ("load i32, ptr @kk1", "load i32, ptr @kk2"),
];

const GLOBALS: &str = "
@v = global i32 1
@w = global i32 1
@t = thread_local global i32 1
@x = external global i32
@h = hidden global i32 1
@k1 = constant i32 1
@k2 = constant i32 2
@kk1 = constant ptr @k1
@kk2 = constant ptr @k2
@.str.1 = private unnamed_addr constant [4 x i8] c\"abc\\00\"
@.str.2 = private unnamed_addr constant [4 x i8] c\"abd\\00\"
%S = type { i32 }
%T = type { i64 }
declare i32 @g(i32)
declare i32 @g2(i32)
declare i32 @by(ptr)
!0 = !{i32 0, i32 5}
!1 = !{i32 0, i32 6}
!2 = !{}
!3 = !{i32 1}
";

fn of_body(body: &str) -> String {
    format!(
        "{GLOBALS}\ndefine i32 @f(i32 %a, i32 %b, i8 %c, i1 %d, ptr %p, i64 %l, {{i32, i32}} %s, <4 x i32> %e) {{\n \
         %r = {body}\n ret i32 %r\n}}"
    )
}

/// Whole functions, and what goes with them.
const FUNCTIONS: &[(&str, &str)] = &[
    (
        "declare float @llvm.experimental.constrained.fadd.f32(float, float, metadata, metadata)\n\
         define float @f(float %a) strictfp { %r = call float @llvm.experimental.constrained.fadd.f32(float %a, float %a, metadata !\"round.tonearest\", metadata !\"fpexcept.strict\") strictfp\n ret float %r }",
        "declare float @llvm.experimental.constrained.fadd.f32(float, float, metadata, metadata)\n\
         define float @f(float %a) strictfp { %r = call float @llvm.experimental.constrained.fadd.f32(float %a, float %a, metadata !\"round.tonearest\", metadata !\"fpexcept.ignore\") strictfp\n ret float %r }",
    ),
    ("define i32 @f() { ret i32 1 }", "define i32 @f() { ret i32 2 }"),
    ("define i32 @f() { ret i32 1 }", "define i64 @f() { ret i64 1 }"),
    ("define i32 @f() { ret i32 1 }", "define weak i32 @f() { ret i32 1 }"),
    ("define i32 @f() { ret i32 1 }", "define hidden i32 @f() { ret i32 1 }"),
    ("define i32 @f() { ret i32 1 }", "define fastcc i32 @f() { ret i32 1 }"),
    ("define i32 @f() { ret i32 1 }", "define i32 @f() align 64 { ret i32 1 }"),
    ("define i32 @f() { ret i32 1 }", "define i32 @f() nounwind { ret i32 1 }"),
    ("define i32 @f() { ret i32 1 }", "define i32 @f() uwtable { ret i32 1 }"),
    ("define i32 @f() { ret i32 1 }", "define i32 @f() \"target-cpu\"=\"haswell\" { ret i32 1 }"),
    (
        "define i32 @f() { ret i32 1 }",
        "define i32 @f() personality ptr @g { ret i32 1 }\ndeclare i32 @g(...)",
    ),
    ("define i32 @f() { ret i32 1 }", "$f = comdat any\ndefine linkonce_odr i32 @f() comdat { ret i32 1 }"),
    ("define i32 @f(i32 %a) { ret i32 1 }", "define i32 @f(i32 zeroext %a) { ret i32 1 }"),
    ("define void @f() { %a = alloca i32\n ret void }", "define void @f() { %a = alloca i64\n ret void }"),
    (
        "define void @f() { %a = alloca i32, align 4\n ret void }",
        "define void @f() { %a = alloca i32, align 64\n ret void }",
    ),
    (
        "define void @f() { %a = alloca i32, i32 1\n ret void }",
        "define void @f() { %a = alloca i32, i32 2\n ret void }",
    ),
    ("define void @f() { fence acquire\n ret void }", "define void @f() { fence release\n ret void }"),
    (
        "define void @f(ptr %p) { store i32 1, ptr %p, align 4\n ret void }",
        "define void @f(ptr %p) { store volatile i32 1, ptr %p, align 4\n ret void }",
    ),
    (
        "define void @f(ptr %p) { store i32 1, ptr %p, align 4\n ret void }",
        "define void @f(ptr %p) { store i32 1, ptr %p, align 2\n ret void }",
    ),
    (
        "define void @f(ptr %p) { store i32 1, ptr %p, align 4\n ret void }",
        "define void @f(ptr %p) { store i16 1, ptr %p, align 4\n ret void }",
    ),
    (
        "define i1 @f(i32 %a) { %r = icmp eq i32 %a, 1\n ret i1 %r }",
        "define i1 @f(i32 %a) { %r = icmp ne i32 %a, 1\n ret i1 %r }",
    ),
    (
        "define i1 @f(i32 %a) { %r = icmp ult i32 %a, 1\n ret i1 %r }",
        "define i1 @f(i32 %a) { %r = icmp samesign ult i32 %a, 1\n ret i1 %r }",
    ),
    (
        "define float @f(float %a) { %r = fadd float %a, 1.0\n ret float %r }",
        "define float @f(float %a) { %r = fadd fast float %a, 1.0\n ret float %r }",
    ),
    (
        "define float @f(float %a) { %r = fadd float %a, 1.0\n ret float %r }",
        "define float @f(float %a) { %r = fadd float %a, 2.0\n ret float %r }",
    ),
    (
        "define float @f(float %a) { %r = fadd float %a, 0.0\n ret float %r }",
        "define float @f(float %a) { %r = fadd float %a, -0.0\n ret float %r }",
    ),
    (
        "define ptr @f(ptr %p) { %r = getelementptr i8, ptr %p, i64 4\n ret ptr %r }",
        "define ptr @f(ptr %p) { %r = getelementptr i32, ptr %p, i64 4\n ret ptr %r }",
    ),
    (
        "define ptr @f(ptr %p) { %r = getelementptr i8, ptr %p, i64 4\n ret ptr %r }",
        "define ptr @f(ptr %p) { %r = getelementptr nuw i8, ptr %p, i64 4\n ret ptr %r }",
    ),
    (
        "define <2 x i32> @f(<2 x i32> %v) { %r = shufflevector <2 x i32> %v, <2 x i32> %v, <2 x i32> <i32 0, i32 1>\n ret <2 x i32> %r }",
        "define <2 x i32> @f(<2 x i32> %v) { %r = shufflevector <2 x i32> %v, <2 x i32> %v, <2 x i32> <i32 1, i32 0>\n ret <2 x i32> %r }",
    ),
    (
        "define {i32, i32} @f({i32, i32} %s) { %r = insertvalue {i32, i32} %s, i32 1, 0\n ret {i32, i32} %r }",
        "define {i32, i32} @f({i32, i32} %s) { %r = insertvalue {i32, i32} %s, i32 1, 1\n ret {i32, i32} %r }",
    ),
    (
        "define i32 @f(i32 %a) { switch i32 %a, label %x [i32 1, label %y]\nx: ret i32 1\ny: ret i32 2 }",
        "define i32 @f(i32 %a) { switch i32 %a, label %x [i32 2, label %y]\nx: ret i32 1\ny: ret i32 2 }",
    ),
    (
        "define i32 @f(i1 %a) { br i1 %a, label %x, label %y\nx: ret i32 1\ny: ret i32 2 }",
        "define i32 @f(i1 %a) { br i1 %a, label %y, label %x\nx: ret i32 1\ny: ret i32 2 }",
    ),
    (
        "define i32 @f(i1 %a) { br i1 %a, label %x, label %y\nx: br label %y\ny: %r = phi i32 [1, %x], [2, %0]\n ret i32 %r }",
        "define i32 @f(i1 %a) { br i1 %a, label %x, label %y\nx: br label %y\ny: %r = phi i32 [2, %x], [1, %0]\n ret i32 %r }",
    ),
    (
        "define void @f(ptr %p) { %r = cmpxchg ptr %p, i32 1, i32 2 seq_cst seq_cst\n ret void }",
        "define void @f(ptr %p) { %r = cmpxchg weak ptr %p, i32 1, i32 2 seq_cst seq_cst\n ret void }",
    ),
    (
        "define void @f(ptr %p) { %r = cmpxchg ptr %p, i32 1, i32 2 seq_cst seq_cst\n ret void }",
        "define void @f(ptr %p) { %r = cmpxchg ptr %p, i32 1, i32 2 seq_cst monotonic\n ret void }",
    ),
    (
        "declare void @g()\ndefine void @f() { call void @g()\n ret void }",
        "declare void @g() noreturn\ndefine void @f() { call void @g()\n ret void }",
    ),
    (
        "declare void @g()\ndefine void @f() { call void @g()\n ret void }",
        "declare hidden void @g()\ndefine void @f() { call void @g()\n ret void }",
    ),
    (
        "declare void @g()\ndefine void @f() { call void @g()\n ret void }",
        "define void @g() { ret void }\ndefine void @f() { call void @g()\n ret void }",
    ),
    (
        "define void @g() { ret void }\ndefine void @f() { call void @g()\n ret void }",
        "define internal void @g() { ret void }\ndefine void @f() { call void @g()\n ret void }",
    ),
    (
        "@v = global i32 1, align 4\ndefine ptr @f() { ret ptr @v }",
        "@v = global i32 1, align 64\ndefine ptr @f() { ret ptr @v }",
    ),
    (
        "@v = global i32 1\ndefine ptr @f() { ret ptr @v }",
        "@v = global i64 1\ndefine ptr @f() { ret ptr @v }",
    ),
    (
        "@v = global i32 1\ndefine ptr @f() { ret ptr @v }",
        "@v = constant i32 1\ndefine ptr @f() { ret ptr @v }",
    ),
    (
        "@v = global i32 1\ndefine ptr @f() { ret ptr @v }",
        "@v = internal global i32 1\ndefine ptr @f() { ret ptr @v }",
    ),
    (
        "@v = global i32 1\ndefine ptr @f() { ret ptr @v }",
        "@v = global i32 1, section \"own\"\ndefine ptr @f() { ret ptr @v }",
    ),
    (
        "@v = global i32 1\ndefine ptr @f() { ret ptr @v }",
        "@v = weak global i32 1\ndefine ptr @f() { ret ptr @v }",
    ),
    (
        "@v = thread_local global i32 1\ndefine ptr @f() { ret ptr @v }",
        "@v = thread_local(initialexec) global i32 1\ndefine ptr @f() { ret ptr @v }",
    ),
    (
        "@v = extern_weak global i32\ndefine ptr @f() { ret ptr @v }",
        "@v = external global i32\ndefine ptr @f() { ret ptr @v }",
    ),
    (
        "@v = constant [2 x i8] c\"ab\"\ndefine ptr @f() { ret ptr @v }",
        "@v = constant [2 x i8] c\"ac\"\ndefine ptr @f() { ret ptr @v }",
    ),
    (
        "@v = constant { ptr, i32 } { ptr @w, i32 1 }\n@w = constant i32 1\ndefine ptr @f() { ret ptr @v }",
        "@v = constant { ptr, i32 } { ptr @w, i32 1 }\n@w = constant i32 2\ndefine ptr @f() { ret ptr @v }",
    ),
    (
        "define void @f() { ret void }\n!llvm.module.flags = !{!0}\n!0 = !{i32 7, !\"uwtable\", i32 1}",
        "define void @f() { ret void }\n!llvm.module.flags = !{!0}\n!0 = !{i32 7, !\"uwtable\", i32 2}",
    ),
    (
        "define void @f() { ret void }",
        "target datalayout = \"e-m:e-p270:32:32-p271:32:32-p272:64:64-i64:64-i128:128-f80:128-n8:16:32:64-S128\"\ndefine void @f() { ret void }\n!llvm.module.flags = !{!0}\n!0 = !{i32 7, !\"frame-pointer\", i32 2}",
    ),
];

#[test]
fn what_code_generation_sees_tells_functions_apart() {
    let bodies = BODIES.iter().map(|(one, other)| (of_body(one), of_body(other)));
    let functions = FUNCTIONS.iter().map(|(one, other)| ((*one).to_owned(), (*other).to_owned()));
    for (one, other) in bodies.chain(functions) {
        let (first, second) = (fingerprint(&one), fingerprint(&other));
        assert!(first.is_some() && second.is_some(), "{one}\n{other}\n{first:?} {second:?}");
        assert_ne!(first, second, "{one}\n{other}");
    }
}

#[test]
fn what_it_does_not_see_does_not() {
    for (one, other) in [
        (
            "define i32 @f(i32 %a) { %r = add i32 %a, 1\n ret i32 %r }",
            "define i32 @f(i32 %x) { %y = add i32 %x, 1\n ret i32 %y }",
        ),
        ("define i32 @f() { br label %a\na: ret i32 1 }", "define i32 @f() { br label %b\nb: ret i32 1 }"),
        (
            "@.str = private unnamed_addr constant [2 x i8] c\"a\\00\"\ndefine ptr @f() { ret ptr @.str }",
            "@.str = private unnamed_addr constant [2 x i8] c\"b\\00\"\n@.str.1 = private unnamed_addr constant [2 x i8] c\"a\\00\"\ndefine ptr @f() { ret ptr @.str.1 }",
        ),
        (
            "define void @f() { ret void }\n@v = global i32 1",
            "define void @f() { ret void }\n@v = global i32 2\ndeclare void @other()",
        ),
        (
            "@v = global i32 1\ndefine ptr @f() { ret ptr @v }",
            "@v = global i32 2\ndefine ptr @f() { ret ptr @v }",
        ),
        (
            "define void @g() { ret void }\ndefine void @f() { call void @g()\n ret void }",
            "define void @f() { call void @g()\n ret void }\ndefine void @g() { fence seq_cst\n ret void }",
        ),
        (
            "%S = type { i32 }\ndefine void @f() { %a = alloca %S\n ret void }",
            "%T = type { i32 }\ndefine void @f() { %a = alloca %T\n ret void }",
        ),
    ] {
        let (first, second) = (fingerprint(one), fingerprint(other));
        assert!(first.is_some(), "{one}");
        assert_eq!(first, second, "{one}\n{other}");
    }
}

#[test]
fn what_is_not_understood_has_none() {
    for text in [
        "define i32 @f(i32 %a) { %r = call i32 asm \"\", \"=r,0\"(i32 %a)\n ret i32 %r }",
        "@v = private global i32 1\ndefine ptr @f() { ret ptr @v }",
        "@v = private constant i32 1\ndefine ptr @f() { ret ptr @v }",
        "define void @f() section \"own\" { ret void }",
        "define void @f() \"warn-stack-size\"=\"8\" { ret void }",
        "declare void @g() \"dontcall-warn\"=\"no\"\ndefine void @f() { call void @g()\n ret void }",
        "define void @f() { ret void }\n@a = alias void (), ptr @f",
        "define void @f() { ret void }\n@llvm.used = appending global [1 x ptr] [ptr @f], section \"llvm.metadata\"",
        "define void @f() { br label %a\na: ret void }\n@b = global ptr blockaddress(@f, %a)",
        "@v = constant ptr @w\n@w = constant ptr @v\ndefine ptr @f() { ret ptr @v }",
        "define void @f() { ret void }\nmodule asm \"nop\"",
        "define void @f() { ret void }\n!llvm.module.flags = !{!0}\n!0 = !{i32 8, !\"cf-protection-branch\", i32 1}",
        "define void @f() prefix i32 1 { ret void }",
        "define available_externally void @f() { ret void }",
    ] {
        assert_eq!(fingerprint(text), None, "{text}");
    }
}
