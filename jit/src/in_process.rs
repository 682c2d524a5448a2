//! The back end itself: a request's way through the front end, the checks and the linker.

use crate::frontend::{self, Compiled, Contents, Form, Place, Prepared, Target};
use crate::lazy::{self, Opened, ServedCompiler};
use crate::link::{
    LinkInput, LinkWishes, ObjectFacts, archive_with_modern_constructors, check_archive, check_object,
    link_image, with_modern_constructors, with_visible_entry,
};
use crate::made::Made;
use crate::reuse::{Kept, Reuse, to_stock};
use crate::shim;
use crate::traced::Traced;
use hotbed_loader::boundary::{
    Argument, BUILD, BackEnd, Content, Counts, Dependency, Failure, FailureKind, FunctionCompiler, Input,
    Lang, Others, Reply, Request,
};
use hotbed_loader::image::Metadata;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
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
        if request.lazy {
            match build(request, true) {
                Ok(built) => {
                    if !built.opened.is_empty() {
                        lazy::remember(built.checksum, built.opened);
                    }
                    return Ok((built.reply, built.image));
                }
                // What is wrong with the input will be wrong once more; what cannot be taken to pieces may be whole.
                Err(failure) if !may_be_pieces(&failure) => return Err(failure),
                Err(_) => {}
            }
        }
        let built = build(request, false)?;
        Ok((built.reply, built.image))
    }

    fn keep(&self, request: &Request, file: &[u8], bodies: &[u8]) -> Result<OwnedFd, Failure> {
        lazy::keep(request, file, bodies)
    }

    fn function_compiler(&self, others: Arc<dyn Others>) -> Result<Box<dyn FunctionCompiler>, Failure> {
        Ok(Box::new(ServedCompiler::new(others)?))
    }
}

/// Whether a lazy image may have failed for what it is: nobody has found anything wrong with a source, a flag or a file.
fn may_be_pieces(failure: &Failure) -> bool {
    match failure.kind {
        FailureKind::Usage | FailureKind::Read => false,
        FailureKind::Compile | FailureKind::Input => failure.diagnostics.is_empty(),
        FailureKind::Link | FailureKind::Internal => true,
    }
}

/// What became of a request.
pub(crate) struct Built {
    /// What a host is told.
    pub(crate) reply: Reply,
    /// The image.
    pub(crate) image: OwnedFd,
    /// What it was sealed with.
    pub(crate) checksum: [u8; 32],
    /// The units of a lazy image, as they were opened for it.
    pub(crate) opened: Vec<Opened>,
}

/// Makes an image, a lazy one or one that has everything compiled.
pub(crate) fn build(request: &Request, lazy: bool) -> Result<Built, Failure> {
    let mut reply = Reply { reproducible: true, ..Reply::default() };
    let mut dependencies = BTreeSet::new();
    let place = Place { directory: &request.directory, environment: &request.environment };

    let traced = Traced::of(request);
    // What a trace says is about modules, and whoever takes one to pieces reads and verifies these.
    let read_as = if lazy { Form::Bitcode } else { Form::Object };
    let form = if traced.is_some() { Form::Bitcode } else { read_as };

    let start = Instant::now();
    let sources = prepare_sources(request, read_as, &mut dependencies)?;
    reply.phases.frontend_ms = start.elapsed().as_secs_f64() * 1e3;
    // Sections are the same whether something is kept or not, and so is what comes out.
    let stock = request.stock.as_deref().unwrap_or_default();
    let reuse = (form == Form::Object).then(|| Reuse::new(stock));
    let reuse = reuse.as_ref();
    let compiled = compile_sources(request, &sources, &place, form, reuse, &mut reply, &mut dependencies)?;
    let start = Instant::now();
    let compiled = compiled.as_ref();
    let made = match &traced {
        _ if lazy => lazy::divide(compiled, &sources, traced.as_ref(), request.entry.as_deref())?,
        Some(traced) => Made::in_order(compiled, &sources, traced, &place, request.color)?,
        None => Made::whole(compiled),
    };
    reply.reproducible &= !made.reads_files;
    reply.phases.codegen_ms += start.elapsed().as_secs_f64() * 1e3;
    reply.counts.functions_compiled = made.compiled;
    if let Some(traced) = &traced {
        reply.rendered += &traced.render(&made.unmatched);
    }
    reply.rendered += &made.rendered;
    reply.diagnostics.extend(made.diagnostics.iter().chain(&made.unmatched).cloned());

    let target = compiled.map_or_else(Target::any, |compiled| compiled.target.clone());
    link(request, made, target, reply, dependencies)
}

/// Links what was made of the sources with everything else.
pub(crate) fn link(
    request: &Request,
    made: Made<'_>,
    target: Target,
    mut reply: Reply,
    mut dependencies: BTreeSet<Dependency>,
) -> Result<Built, Failure> {
    let place = Place { directory: &request.directory, environment: &request.environment };
    let start = Instant::now();
    let given = read_objects(request)?;
    let mut metadata = Metadata {
        build: BUILD.to_owned(),
        unit: request.unit.clone(),
        triple: "x86_64-pc-linux-gnu".to_owned(),
        cpu: target.cpu,
        flags: flags(request).map(str::to_owned).collect(),
        inputs: Vec::new(),
        entry: request.entry.clone(),
    };
    let inputs = link_inputs(request, &made, &given, &mut metadata, &mut reply.counts, &mut dependencies)?;
    let Counts { functions_compiled, functions_reused, .. } = &mut reply.counts;
    *functions_compiled = functions_compiled.saturating_sub(*functions_reused);
    let wishes = LinkWishes {
        unit: &request.unit,
        cpp: request.inputs().any(|input| input.lang == Lang::Cpp),
        entry: request.entry.as_deref(),
        soname: request.soname.as_deref(),
        whole_archives: request.whole_archives,
        place: &place,
        images: &request.images,
        lazy: made.first.is_some(),
        ordered: made.ordered,
        metadata: &metadata,
        requires: target.requires,
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
    Ok(Built { reply, image: linked.file, checksum: linked.checksum, opened: made.opened })
}

fn flags(request: &Request) -> impl Iterator<Item = &str> + Clone {
    request.arguments.iter().filter_map(|argument| match argument {
        Argument::Flag(flag) => Some(flag.as_str()),
        Argument::Input(_) => None,
    })
}

/// The inputs that go through the front end.
fn prepare_sources<'a>(
    request: &'a Request,
    form: Form,
    dependencies: &mut BTreeSet<Dependency>,
) -> Result<Vec<Prepared<'a>>, Failure> {
    let mut sources = Vec::new();
    for input in request.inputs() {
        let Some(source) = frontend::prepare(input, &request.directory, form)? else { continue };
        // A module is read here; clang then sees a file in memory, which it does not report.
        if let (true, Content::File(path)) = (source.contents.is_some(), &input.content) {
            dependencies.insert(Dependency::File(path.clone()));
        }
        sources.push(source);
    }
    Ok(sources)
}

/// Compiles the sources, if there are any, and notes what was said and seen.
fn compile_sources(
    request: &Request,
    sources: &[Prepared<'_>],
    place: &Place<'_>,
    form: Form,
    reuse: Option<&Reuse<'_>>,
    reply: &mut Reply,
    dependencies: &mut BTreeSet<Dependency>,
) -> Result<Option<Compiled>, Failure> {
    if sources.is_empty() {
        return Ok(None);
    }
    let flags: Vec<&str> = flags(request).collect();
    let compiled = frontend::compile(sources, &flags, place, form, request.color, reuse)?;
    reply.phases.frontend_ms += compiled.times.0;
    reply.phases.codegen_ms = compiled.times.1;
    reply.log.extend(compiled.log.iter().cloned());
    let of_readers = sources.iter().filter_map(|source| source.messages.as_ref());
    let of_compilers = compiled.objects.iter().map(|object| &object.messages);
    for messages in of_readers.chain([&compiled.messages]).chain(of_compilers) {
        reply.diagnostics.extend(frontend::to_diagnostics(messages));
        reply.rendered += &messages.rendered();
    }
    let read_by_assembler = sources
        .iter()
        .any(|source| matches!(&source.contents, Some(Contents::Bitcode(bitcode)) if bitcode.reads_files()));
    reply.reproducible =
        !read_by_assembler && !compiled.objects.iter().any(|object| object.object.differs_each_time());
    compiled.objects.iter().for_each(|object| reply.level_signs |= object.object.level_signs());
    add_seen(dependencies, &compiled.seen);
    if reuse.is_some() && request.stock.is_some() {
        note_reused(sources, &compiled, reply);
    }
    Ok(Some(compiled))
}

/// Says what was reused, and what there is to be reused the next time.
fn note_reused(sources: &[Prepared<'_>], compiled: &Compiled, reply: &mut Reply) {
    for (source, made) in sources.iter().zip(&compiled.objects) {
        let (all, reused) = (made.functions.all, made.functions.reused);
        if reused > 0 {
            reply.counts.functions_reused += reused;
            reply.log.push(format!("{}: reused {reused} of {all} functions", source.path));
        }
    }
    let paths = frontend::distinct_paths(sources);
    let kept = paths.iter().zip(&compiled.objects).map(|(path, made)| Kept {
        path,
        arguments: &made.arguments,
        functions: &made.functions,
        object: made.bytes(),
    });
    reply.stock = to_stock(kept);
}

/// The contents of the objects and archives, in order.
fn read_objects(request: &Request) -> Result<Vec<Cow<'_, [u8]>>, Failure> {
    let objects = request.inputs().filter(|input| !goes_through_front_end(input));
    objects.map(|input| frontend::read(&input.content, &request.directory)).collect()
}

fn goes_through_front_end(input: &Input) -> bool {
    input.lang.is_compiled()
}

/// Everything in the order of the command line, checked, for the linker.
fn link_inputs<'a>(
    request: &'a Request,
    made: &'a Made<'_>,
    given: &'a [Cow<'a, [u8]>],
    metadata: &mut Metadata,
    counts: &mut Counts,
    dependencies: &mut BTreeSet<Dependency>,
) -> Result<Vec<LinkInput<'a>>, Failure> {
    let mut given = given.iter();
    let mut sources = made.sources.iter();
    let mut inputs = Vec::with_capacity(request.arguments.len());
    if let Some(first) = &made.first {
        let facts = check_object(first).map_err(|what| Failure::new(FailureKind::Internal, what))?;
        let name = "what lazy functions have in common".into();
        inputs.push(LinkInput::Bytes { name, bytes: Cow::Borrowed(first), facts, archive: false });
    }
    for argument in &request.arguments {
        let input = match argument {
            Argument::Flag(flag) => {
                inputs.push(LinkInput::Flag(flag));
                continue;
            }
            Argument::Input(input) => input,
        };
        let name = input.content.name();
        let archive = input.lang == Lang::Archive;
        let source = if goes_through_front_end(input) { sources.next() } else { None };
        let (hash, objects): (_, Vec<&[u8]>) = match (source, given.as_slice()) {
            (Some(source), _) => (source.hash, source.objects.iter().map(AsRef::as_ref).collect()),
            (None, [first, rest @ ..]) => {
                given = rest.iter();
                (*blake3::hash(first).as_bytes(), vec![first])
            }
            (None, []) => continue,
        };
        metadata.inputs.push((name.to_string(), hash));
        counts.units_compiled += u32::from(source.is_some());
        for bytes in objects {
            let facts = check(input, bytes, source.is_some(), &request.directory, dependencies)
                .map_err(|what| Failure::new(FailureKind::Input, format!("cannot load {name}: it {what}")))?;
            // The functions of a lazy image are stubs.
            if source.is_some() && made.first.is_none() {
                counts.functions_compiled += facts.functions;
            }
            let modern = match (facts.old_constructors, archive) {
                (false, _) => None,
                (true, true) => archive_with_modern_constructors(bytes),
                (true, false) => with_modern_constructors(bytes),
            };
            let now = modern.as_deref().unwrap_or(bytes);
            let visible =
                request.entry.as_deref().filter(|_| !archive).and_then(|e| with_visible_entry(now, e));
            let name = name.clone();
            inputs.push(match (&input.content, visible.or(modern)) {
                (Content::File(_), None) if source.is_none() => {
                    LinkInput::File { path: name, facts, archive }
                }
                (_, changed) => {
                    let bytes = changed.map_or(Cow::Borrowed(bytes), Cow::Owned);
                    LinkInput::Bytes { name, bytes, facts, archive }
                }
            });
        }
    }
    if made.known.as_ref().is_some_and(|known| *known != metadata.inputs) {
        let message = format!("cannot link {} once more: an input has changed", request.unit);
        return Err(Failure::new(FailureKind::Input, message));
    }
    if made.first.is_some() {
        inputs.extend(lazy::link_flags(flags(request)).into_iter().map(LinkInput::Flag));
    }
    Ok(inputs)
}

/// What a link has to know of an object or archive, if it can be linked at all.
fn check(
    input: &Input,
    bytes: &[u8],
    compiled: bool,
    directory: &Path,
    dependencies: &mut BTreeSet<Dependency>,
) -> Result<ObjectFacts, String> {
    let folder = match &input.content {
        Content::File(path) => directory.join(path).parent().map(Path::to_owned),
        Content::Bytes { .. } => None,
    };
    // With -flto it is bitcode, which lld compiles.
    match (input.lang == Lang::Archive, compiled && bytes.starts_with(b"BC\xc0\xde")) {
        (true, _) => check_archive(bytes, folder.as_deref()).map(|facts| {
            // lld reads them and does not say so.
            dependencies.extend(facts.files.into_iter().map(Dependency::File));
            facts.objects
        }),
        (_, true) => Ok(ObjectFacts::default()),
        _ => check_object(bytes),
    }
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
mod tests;
