//! The back end itself: a request's way through the front end, the checks and the linker.

use crate::frontend::{self, Place};
use crate::link::{LinkInput, LinkWishes, check_archive, check_object, link_image};
use crate::shim;
use hotbed_loader::boundary::{
    Argument, BUILD, BackEnd, Content, Dependency, Failure, FailureKind, Input, Lang, Reply, Request,
};
use hotbed_loader::image::note::Metadata;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Instant;

/// The back end in this process. It holds nothing; LLVM's own state is the process's.
///
/// Compiling needs a deep stack: the caller gives its thread 64 MiB, and blocks every signal in it, which the threads
/// that are started for further sources inherit.
#[derive(Debug, Default, Clone, Copy)]
pub struct InProcess(());

impl InProcess {
    /// Prepares LLVM; cheap after the first time.
    pub fn new() -> Self {
        shim::initialize();
        Self(())
    }
}

impl BackEnd for InProcess {
    fn compile(&self, request: &Request) -> Result<(Reply, OwnedFd), Failure> {
        let mut reply = Reply { reproducible: true, ..Reply::default() };
        let flags: Vec<&str> = request
            .arguments
            .iter()
            .filter_map(|argument| match argument {
                Argument::Flag(flag) => Some(flag.as_str()),
                Argument::Input(_) => None,
            })
            .collect();
        let place = Place { directory: &request.directory, environment: &request.environment };
        let mut dependencies = BTreeSet::new();

        let start = Instant::now();
        let mut prepared = Vec::new();
        for input in request.inputs() {
            if let Some(source) = frontend::prepare(input, &request.directory)? {
                if source.driver_language == "ir"
                    && let Content::File(path) = &input.content
                {
                    dependencies.insert(Dependency::File(path.clone()));
                }
                prepared.push(source);
            }
        }
        let reading = start.elapsed().as_secs_f64() * 1e3;
        let compiled = if prepared.is_empty() {
            None
        } else {
            Some(frontend::compile(&prepared, &flags, &place, request.color)?)
        };
        if let Some(compiled) = &compiled {
            reply.phases.frontend_ms = reading + compiled.times.0;
            reply.phases.codegen_ms = compiled.times.1;
            reply.log.extend(compiled.log.iter().cloned());
            let spoken = prepared.iter().filter_map(|source| source.messages.as_ref());
            for messages in
                spoken.chain([&compiled.messages]).chain(compiled.objects.iter().map(|o| &o.messages))
            {
                reply.diagnostics.extend(frontend::to_diagnostics(messages));
                reply.rendered += &messages.rendered();
            }
            reply.reproducible = !compiled.objects.iter().any(|object| object.object.uses_time());
            add_seen(&mut dependencies, &compiled.seen);
        }

        let start = Instant::now();
        let mut objects = compiled.iter().flat_map(|compiled| &compiled.objects);
        let contents = request
            .inputs()
            .filter(|input| matches!(input.lang, Lang::Object | Lang::Archive))
            .map(|input| frontend::read(&input.content, &request.directory))
            .collect::<Result<Vec<_>, _>>()?;
        let mut contents = contents.iter();
        let mut metadata = Metadata {
            build: BUILD.to_owned(),
            unit: request.unit.clone(),
            triple: "x86_64-pc-linux-gnu".to_owned(),
            cpu: compiled.as_ref().map_or_else(|| "x86-64".to_owned(), |compiled| compiled.cpu.clone()),
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            inputs: Vec::new(),
            entry: request.entry.clone(),
        };
        let mut inputs = Vec::new();
        for argument in &request.arguments {
            let input = match argument {
                Argument::Flag(flag) => {
                    inputs.push(LinkInput::Flag(flag));
                    continue;
                }
                Argument::Input(input) => input,
            };
            let linked = match input.lang {
                Lang::Object | Lang::Archive => {
                    contents.next().map(|bytes| given(input, bytes)).transpose()?
                }
                _ => objects.next().map(|made| generated(&made.name, made.object.bytes())).transpose()?,
            };
            let Some((linked, bytes)) = linked else { continue };
            if let LinkInput::File { facts, .. } | LinkInput::Bytes { facts, .. } = &linked
                && !matches!(input.lang, Lang::Object | Lang::Archive)
            {
                reply.counts.functions_compiled += facts.functions;
                reply.counts.units_compiled += 1;
            }
            metadata.inputs.push((input.content.name().into_owned(), *blake3::hash(bytes).as_bytes()));
            inputs.push(linked);
        }
        let wishes = LinkWishes {
            unit: &request.unit,
            cpp: request.inputs().any(|input| input.lang == Lang::Cpp),
            entry: request.entry.as_deref(),
            whole_archives: request.whole_archives,
            place: &place,
            metadata: &metadata,
        };
        let linked = link_image(&inputs, &wishes)?;
        reply.phases.link_ms = start.elapsed().as_secs_f64() * 1e3;
        reply.counts.images_linked = 1;
        reply.log.extend(linked.log);
        if !linked.warnings.is_empty() {
            reply.rendered += &linked.warnings;
            reply.rendered.push('\n');
        }
        add_seen(&mut dependencies, &linked.seen);
        dependencies.extend(linked.read.into_iter().map(Dependency::File));
        dependencies.extend(linked.missing.into_iter().map(Dependency::Missing));
        reply.dependencies = dependencies.into_iter().collect();
        Ok((reply, linked.file))
    }
}

/// An object or archive of the user's, checked.
fn given<'a>(input: &'a Input, bytes: &'a Cow<'a, [u8]>) -> Result<(LinkInput<'a>, &'a [u8]), Failure> {
    let name = input.content.name();
    let archive = input.lang == Lang::Archive;
    let checked = if archive { check_archive(bytes) } else { check_object(bytes) };
    let facts =
        checked.map_err(|what| Failure::new(FailureKind::Input, format!("cannot load {name}: it {what}")))?;
    let linked = match &input.content {
        Content::File(_) => LinkInput::File { path: name, facts, archive },
        Content::Bytes { .. } => LinkInput::Bytes { name, bytes, facts, archive },
    };
    Ok((linked, bytes))
}

/// An object that was compiled here.
fn generated<'a>(name: &'a str, bytes: &'a [u8]) -> Result<(LinkInput<'a>, &'a [u8]), Failure> {
    // With -flto it is bitcode, which lld compiles.
    let facts = if bytes.starts_with(b"BC\xc0\xde") {
        Default::default()
    } else {
        check_object(bytes).map_err(|what| {
            Failure::new(FailureKind::Usage, format!("cannot load the code of {name}: it {what}"))
        })?
    };
    Ok((LinkInput::Bytes { name: name.into(), bytes, facts, archive: false }, bytes))
}

fn add_seen(dependencies: &mut BTreeSet<Dependency>, seen: &[(Vec<u8>, u8)]) {
    for (path, access) in seen {
        let path = PathBuf::from(OsString::from_vec(path.clone()));
        dependencies.insert(match access {
            0 => Dependency::File(path),
            1 => Dependency::Missing(path),
            _ => Dependency::Listing(path),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hotbed_loader::image::note;
    use hotbed_loader::sys::files::contents;
    use std::os::fd::AsFd;

    fn request(arguments: Vec<Argument>) -> Request {
        Request {
            unit: "test".into(),
            arguments,
            directory: std::env::temp_dir(),
            environment: Vec::new(),
            entry: None,
            whole_archives: false,
            color: false,
        }
    }

    fn text(lang: Lang, name: &str, bytes: &[u8]) -> Argument {
        Argument::Input(Input { lang, content: Content::Bytes { name: name.into(), bytes: bytes.into() } })
    }

    fn failure(arguments: Vec<Argument>) -> Failure {
        match InProcess::new().compile(&request(arguments)) {
            Ok(_) => panic!("an image where none can be"),
            Err(failure) => failure,
        }
    }

    #[test]
    fn c_becomes_a_sealed_image_with_its_dependencies() {
        let source = b"#include <stdio.h>\nint hello(void) { return puts(\"hi\"); }\n";
        let arguments = vec![Argument::Flag("-O1".into()), text(Lang::C, "hello.c", source)];
        let (reply, image) = InProcess::new().compile(&request(arguments)).expect("an image");
        let bytes = contents(image.as_fd()).expect("its bytes");
        note::verify(&bytes).expect("sealed");
        let metadata = note::metadata(&bytes).expect("metadata");
        assert_eq!((metadata.unit.as_str(), metadata.flags), ("test", vec!["-O1".to_owned()]));
        assert_eq!((reply.counts.units_compiled, reply.counts.functions_compiled), (1, 1));
        assert!(reply.reproducible);
        assert!(reply.dependencies.contains(&Dependency::File("/usr/include/stdio.h".into())));
        assert!(reply.dependencies.contains(&Dependency::Missing("/usr/local/include/stdio.h".into())));
        let of_libc = |d: &Dependency| matches!(d, Dependency::File(path) if path.ends_with("libc.so.6"));
        assert!(reply.dependencies.iter().any(of_libc), "{:?}", reply.dependencies);
    }

    #[test]
    fn languages_mix_in_one_image() {
        let c = b"int one(void) { return 1; }";
        let cpp = b"#include <string>\nextern \"C\" int one(); int two() { return one() + (int)std::string(\"x\").size(); }";
        let ir = b"define i32 @three() { ret i32 3 }";
        let arguments =
            vec![text(Lang::C, "one.c", c), text(Lang::Cpp, "two.cpp", cpp), text(Lang::Ir, "three.ll", ir)];
        let (reply, _image) = InProcess::new().compile(&request(arguments)).expect("an image");
        assert_eq!(reply.counts.units_compiled, 3);
        assert!(reply.log.iter().any(|line| line.starts_with("ld.lld ") && line.contains("-lstdc++")));
    }

    #[test]
    fn what_does_not_compile_says_where() {
        let failure = failure(vec![text(Lang::C, "bad.c", b"int f(void) {\n  return x;\n}")]);
        assert_eq!(failure.kind, FailureKind::Compile);
        assert_eq!(failure.message, "cannot compile bad.c: bad.c:2:10: use of undeclared identifier 'x'");
        assert!(failure.rendered.contains("    2 |   return x;\n"), "{}", failure.rendered);
        assert_eq!((failure.diagnostics[0].line, failure.diagnostics[0].column), (2, 10));
    }

    #[test]
    fn ir_that_does_not_verify_is_refused() {
        let parse = failure(vec![text(Lang::Ir, "bad.ll", b"define i32 @f() { ret i64 0 }")]);
        assert!(parse.message.starts_with("cannot read bad.ll: bad.ll:1:"), "{}", parse.message);
        let verify = failure(vec![text(
            Lang::Ir,
            "use.ll",
            b"define i32 @f(i1 %c) {\n br i1 %c, label %a, label %b\na:\n %x = add i32 1, 2\n br label %b\nb:\n ret i32 %x\n}",
        )]);
        assert!(verify.message.contains("does not verify"), "{}", verify.message);
        let other = failure(vec![text(Lang::Ir, "arm.ll", b"target triple = \"aarch64-linux-gnu\"")]);
        assert!(other.message.contains("aarch64"), "{}", other.message);
    }

    #[test]
    fn flags_that_clang_does_not_know_are_a_usage_error() {
        let failure = failure(vec![Argument::Flag("--no-such".into()), text(Lang::C, "a.c", b"")]);
        assert_eq!(failure.kind, FailureKind::Usage);
        assert!(failure.message.contains("--no-such"), "{}", failure.message);
    }

    #[test]
    fn two_strong_definitions_name_both_files() {
        let one = text(Lang::C, "one.c", b"int dup(void) { return 1; }");
        let two = text(Lang::C, "two.c", b"int dup(void) { return 2; }");
        let failure = failure(vec![one, two]);
        assert_eq!(failure.kind, FailureKind::Link);
        assert!(failure.message.contains("dup"), "{}", failure.message);
        assert!(
            failure.rendered.contains("one.c") && failure.rendered.contains("two.c"),
            "{}",
            failure.rendered
        );
    }

    #[test]
    fn time_macros_make_an_image_irreproducible() {
        let source = text(Lang::C, "t.c", b"const char *when(void) { return __TIME__; }");
        let (reply, _image) = InProcess::new().compile(&request(vec![source])).expect("an image");
        assert!(!reply.reproducible);
    }

    #[test]
    fn damaged_objects_are_refused_by_name() {
        for (lang, name) in [(Lang::Object, "junk.o"), (Lang::Archive, "junk.a"), (Lang::Bitcode, "junk.bc")]
        {
            for bytes in
                [&b""[..], b"garbage that is longer than a header, and then some more of it to be sure"]
            {
                let failure = failure(vec![text(lang, name, bytes)]);
                assert!(failure.message.contains(name), "{}", failure.message);
            }
        }
    }
}
