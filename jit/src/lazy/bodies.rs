//! Bodies for the functions of lazy images that are mapped in this process.

use super::body_suffix;
use super::claims::{Claim, Claims, Finished};
use super::kept::{self, Kept, KeptBody};
use super::link::Opened;
use super::names::Names;
use crate::link::FRESH_CODE;
use crate::session::{self, Host, Question, Session, SessionError, fork};
use crate::split::{Facts, Number, PlanOptions, Settings, Unit, cluster, optimises};
use crate::traced::READER_SUFFIX;
use hotbed_loader::boundary::{Body, CompiledFunctions, Failure, FailureKind, FreshArea, Others};
use hotbed_loader::image::note::{
    ENTRIES_SECTION, ENTRY_BYTES, FUNCTIONS_SECTION, SLOTS_HEAD, SLOTS_SECTION,
};
use hotbed_loader::sys::sync::{Mutex, RwLock};
use object::LittleEndian as LE;
use object::elf::{self, FileHeader64, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader};
use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Compiles for all lazy images of a process. It lives as long as something of them may run.
pub struct Compiler {
    session: Session,
    asked: Arc<Asked>,
}

/// The functions of a mapped lazy image.
///
/// Compiling needs a deep stack: the caller gives its threads 64 MiB, and blocks every signal in them. Several may compile
/// at once.
pub struct Bodies {
    /// Unit and number of each function, in the order of slots.
    functions: Vec<(u32, Number)>,
    slots: HashMap<(u32, Number), u32>,
    units: Vec<Work>,
    unit: session::Unit,
    asked: Arc<Asked>,
    compiled: Mutex<Vec<Compiled>>,
    /// Every function is compiled by itself, and its contents are hashed.
    alone: bool,
    by_name: OnceLock<HashMap<String, Vec<u32>>>,
}

/// Functions that were compiled together.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// Their slots.
    pub slots: Vec<u32>,
    /// The object that they are in.
    pub object: Arc<Vec<u8>>,
}

/// What a group became.
struct Made {
    bodies: Vec<(Number, Finished)>,
    object: Vec<u8>,
    /// Whether the same would be made of the bitcode another time.
    lasting: bool,
}

/// A unit of an image.
struct Work {
    number: u32,
    name: String,
    suffix: String,
    arguments: Vec<String>,
    trusted: bool,
    bitcode: Arc<Vec<u8>>,
    /// Whether bodies are too far away from the image to reach it.
    far: bool,
    /// The functions that have bodies in the image itself.
    linked: HashSet<Number>,
    claims: Claims,
    /// One for each thread that compiled at once, at most.
    idle: Mutex<Vec<Unit>>,
    /// For looking at, once that is wanted.
    reader: Mutex<Option<Unit>>,
}

/// What the session's questions lead to.
struct Asked {
    others: Arc<dyn Others>,
    /// By the number of the session's unit: the image, and its names.
    images: RwLock<HashMap<u64, (u64, Names)>>,
}

impl Host for Asked {
    fn find(&self, question: Question) {
        let unit = question.unit();
        let find = |name: &String| {
            let images = self.images.read();
            let (image, names) = images.get(&unit)?;
            let (image, own) = (*image, names.find(name));
            // Others may load something in order to answer.
            drop(images);
            own.or_else(|| self.others.find(image, name))
        };
        let answer: Vec<_> = question.names().iter().map(find).collect();
        question.answer(&answer);
    }

    fn make_known(&self, area: &FreshArea) -> Option<Box<dyn Any + Send + Sync>> {
        self.others.make_known(area)
    }
}

impl Compiler {
    /// A new one.
    ///
    /// # Errors
    /// When the system gives no address space.
    pub fn new(others: Arc<dyn Others>) -> Result<Self, SessionError> {
        let asked = Arc::new(Asked { others, images: RwLock::default() });
        Ok(Self { session: Session::at(asked.clone(), Some(FRESH_CODE))?, asked })
    }

    /// Opens the lazy image in `file`, which others know by the number `image`; it is mapped `distance` bytes behind the
    /// addresses it was linked for. Its units, if [`skeleton`](super::skeleton()) opened them in this process, are in
    /// `opened`; else they are opened when they are needed.
    ///
    /// # Errors
    /// When it is no lazy image, or has lost its table of symbols.
    pub fn open(
        &self,
        image: u64,
        file: &[u8],
        distance: usize,
        opened: Vec<Opened>,
    ) -> Result<Bodies, Failure> {
        let refuse = |what| {
            Failure::new(FailureKind::Input, format!("cannot compile functions of an image: it {what}"))
        };
        let names = Names::read(file, distance).map_err(refuse)?;
        let functions = functions(file).map_err(refuse)?;
        let far = !reaches(&self.session.extent(), &extent(file, distance).map_err(refuse)?);
        let mut linked: HashMap<u32, HashSet<Number>> = HashMap::new();
        for (&(unit, number), has_body) in functions.iter().zip(bodies_in(file).map_err(refuse)?) {
            if has_body {
                linked.entry(unit).or_default().insert(number);
            }
        }
        let mut opened = opened.into_iter().map(|opened| opened.0);
        let work = |(number, unit): (u32, &Kept<'_>)| {
            // What is there need not be read from the file.
            let idle = opened.next();
            let bitcode = idle.as_ref().map(|unit| unit.bitcode().clone());
            let idle = idle.filter(|_| !far);
            Work {
                number,
                name: unit.name.to_owned(),
                suffix: unit.suffix.to_owned(),
                arguments: unit.arguments.iter().map(|&argument| argument.to_owned()).collect(),
                trusted: unit.trusted,
                bitcode: bitcode.unwrap_or_else(|| Arc::new(unit.bitcode.to_vec())),
                far,
                linked: linked.remove(&number).unwrap_or_default(),
                claims: Claims::default(),
                idle: Mutex::new(idle.into_iter().collect()),
                reader: Mutex::default(),
            }
        };
        let units: Vec<Work> = (0..).zip(&kept::units(file).map_err(refuse)?).map(work).collect();
        if functions.iter().any(|(unit, _)| *unit as usize >= units.len()) {
            return Err(refuse("has functions of a unit that it has not"));
        }
        let unit = self.session.unit(&format!("image {image}"), &[]).map_err(failed)?;
        self.asked.images.write().insert(unit.number(), (image, names));
        Ok(Bodies {
            slots: functions.iter().copied().zip(0..).collect(),
            functions,
            units,
            unit,
            asked: self.asked.clone(),
            compiled: Mutex::default(),
            alone: false,
            by_name: OnceLock::new(),
        })
    }
}

impl Bodies {
    /// How many functions there are; they are known by their slots.
    pub fn len(&self) -> u32 {
        self.functions.len() as u32
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// The same, which compile every function by itself from now on, inline nothing that need not be, and say what functions
    /// are ([`Body::content`]): all calls go through slots.
    pub fn one_by_one(self) -> Self {
        Self { alone: true, ..self }
    }

    /// Compiles a function if it is not, or waits for whoever does. The bodies of all functions that were compiled with it
    /// come with its own; of one that was compiled before only that.
    ///
    /// # Errors
    /// When there is no such function, it does not compile, or refers to what nobody has. It can be tried again.
    pub fn compile(&self, slot: u32) -> Result<CompiledFunctions, Failure> {
        let (work, function) = self.function(slot)?;
        // A child of a fork finds nothing half done.
        let _work = fork::begin();
        let started = Instant::now();
        let mut claim = match work.claims.claim(function) {
            Ok(claim) => claim,
            Err(finished) => {
                return Ok(CompiledFunctions { bodies: vec![finished.body(slot)], calls: Vec::new() });
            }
        };
        let (group, calls) =
            if self.alone { (vec![function], Vec::new()) } else { work.group(function, &mut claim)? };
        let mut made = match self.make(work, &group, started) {
            Err(_) if group.len() > 1 => self.make(work, &[function], started),
            made => made,
        }?;
        if self.alone {
            made.bodies
                .iter_mut()
                .for_each(|(function, finished)| finished.content = work.content(*function));
        }
        let of_slot = |&(function, finished): &(Number, Finished)| {
            self.slots.get(&(work.number, function)).map(|&slot| finished.body(slot))
        };
        let bodies: Vec<Body> = made.bodies.iter().filter_map(of_slot).collect();
        let slots = bodies.iter().map(|body| body.slot).collect();
        if made.lasting {
            self.compiled.lock().push(Compiled { slots, object: Arc::new(made.object) });
        }
        claim.done(&made.bodies);
        let is_free = |call: &Number| work.claims.is_free(*call) && !work.linked.contains(call);
        let calls = calls.into_iter().filter(is_free);
        let calls = calls.filter_map(|call| self.slots.get(&(work.number, call)).copied()).collect();
        Ok(CompiledFunctions { bodies, calls })
    }

    /// Generates code for functions and links it.
    fn make(&self, work: &Work, group: &[Number], started: Instant) -> Result<Made, Failure> {
        let suffix = body_suffix(work.number);
        let mut unit = work.take()?;
        let piece = match *group {
            [function] if self.alone => unit.code_alone(function, &suffix),
            _ => unit.code_of(group, &suffix),
        };
        let object = piece?.compile()?;
        let facts = unit.facts().clone();
        let name = |&function: &Number| facts.get(function).map(|f| format!("{}{suffix}", f.elf_name()));
        let names: Vec<String> = group.iter().filter_map(name).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let lasting = !unit.reads_files();
        work.idle.lock().push(unit);
        let part = self.unit.add_object(&work.name, &object, None).map_err(failed)?;
        let addresses = self.unit.look_up(&names).or_else(|error| {
            // So that its names can be defined once more.
            part.remove()?;
            Err(error)
        });
        let shares = shares(started.elapsed(), group, &facts);
        let finished = |(address, nanoseconds)| Finished { address, nanoseconds, content: None };
        let bodies = addresses.map_err(failed)?.into_iter().zip(shares).map(finished);
        Ok(Made { bodies: group.iter().copied().zip(bodies).collect(), object, lasting })
    }

    /// Compiles a function and all that it reaches by direct calls within its image.
    ///
    /// # Errors
    /// As for [`compile`](Self::compile).
    pub fn compile_deep(&self, slot: u32) -> Result<CompiledFunctions, Failure> {
        let mut seen = HashSet::from([slot]);
        let mut open = vec![slot];
        let mut bodies = Vec::new();
        while let Some(slot) = open.pop() {
            bodies.extend(self.compile(slot)?.bodies);
            open.extend(self.callees(slot)?.into_iter().filter(|&callee| seen.insert(callee)));
        }
        Ok(CompiledFunctions { bodies, calls: Vec::new() })
    }

    /// What was compiled so far, but for code that depends on files which the assembler reads.
    pub fn compiled(&self) -> Vec<Compiled> {
        self.compiled.lock().clone()
    }

    /// The same for [`keep`](super::keep()).
    pub fn kept(&self) -> Vec<u8> {
        let compiled = self.compiled.lock();
        let body = |one: &'_ Compiled| (one.slots.clone(), Arc::clone(&one.object));
        let all: Vec<_> = compiled.iter().map(body).collect();
        drop(compiled);
        let bodies: Vec<_> =
            all.iter().map(|(slots, object)| KeptBody { slots: slots.clone(), object }).collect();
        kept::encode_bodies(&bodies)
    }

    /// Takes all bodies out of memory, when nobody uses them any more.
    ///
    /// # Errors
    /// What the session says; they are out all the same.
    pub fn remove(self) -> Result<(), SessionError> {
        let number = self.unit.number();
        let removed = self.unit.remove();
        self.asked.images.write().remove(&number);
        removed
    }

    fn function(&self, slot: u32) -> Result<(&Work, Number), Failure> {
        let function = self.functions.get(slot as usize);
        let found = function.and_then(|&(unit, number)| Some((self.units.get(unit as usize)?, number)));
        found.ok_or_else(|| {
            Failure::new(
                FailureKind::Input,
                format!("cannot compile function {slot} of an image: it has none"),
            )
        })
    }

    /// The slots of the functions of the image that may be meant by what a function calls.
    fn callees(&self, slot: u32) -> Result<Vec<u32>, Failure> {
        let (work, function) = self.function(slot)?;
        let _work = fork::begin();
        let mut unit = work.take()?;
        let calls = unit.body(function)?.calls;
        let facts = unit.facts().clone();
        work.idle.lock().push(unit);
        let mut found = Vec::new();
        for call in calls {
            let symbol = &facts.symbols[call as usize];
            let own = self.slots.get(&(work.number, symbol.base.unwrap_or(call)));
            found.extend(own);
            // A weak one may be another unit's.
            if own.is_none() || !symbol.local {
                found.extend(self.by_name()?.get(symbol.elf_name()).into_iter().flatten());
            }
        }
        Ok(found)
    }

    /// The functions that units have for each other.
    fn by_name(&self) -> Result<&HashMap<String, Vec<u32>>, Failure> {
        if let Some(known) = self.by_name.get() {
            return Ok(known);
        }
        let mut slots: HashMap<String, Vec<u32>> = HashMap::new();
        for work in &self.units {
            let unit = work.take()?;
            for (number, symbol) in (0..).zip(&unit.facts().symbols) {
                let slot = self.slots.get(&(work.number, symbol.base.unwrap_or(number)));
                if let Some(&slot) = slot.filter(|_| !symbol.local) {
                    slots.entry(symbol.elf_name().to_owned()).or_default().push(slot);
                }
            }
            work.idle.lock().push(unit);
        }
        Ok(self.by_name.get_or_init(|| slots))
    }
}

impl Work {
    /// The unit for this thread alone. It comes back if nothing went wrong: LLVM may not survive what did.
    fn take(&self) -> Result<Unit, Failure> {
        if let Some(unit) = self.idle.lock().pop() {
            return Ok(unit);
        }
        self.open(&self.suffix, self.far)
    }

    fn open(&self, suffix: &str, far: bool) -> Result<Unit, Failure> {
        let Self { name, arguments, trusted, .. } = self;
        let settings = Settings { name, suffix, arguments, trusted: *trusted, far };
        Unit::open(self.bitcode.clone(), &settings)
    }

    /// A function with those that are to be compiled together with it, and what they call, each once.
    fn group(&self, function: Number, claim: &mut Claim<'_>) -> Result<(Vec<Number>, Vec<Number>), Failure> {
        let mut unit = self.take()?;
        let facts = unit.facts().clone();
        let mut calls = Vec::new();
        let mut body = |one| {
            let body = unit.body(one)?;
            for &call in &body.calls {
                let call = facts.symbols[call as usize].base.unwrap_or(call);
                if !calls.contains(&call) {
                    calls.push(call);
                }
            }
            Ok(body)
        };
        // Optimised, small callees are copied and dissolve, and nobody may call their own bodies.
        let group = if optimises(&self.arguments) {
            body(function).map(|_| vec![function])
        } else {
            let take = |callee| !self.linked.contains(&callee) && claim.add(callee);
            cluster(function, &facts, &PlanOptions::SMALL, take, body)
        };
        // What was to come along may be what nobody will ever call, and not be sound.
        Ok(match group {
            Ok(group) => {
                self.idle.lock().push(unit);
                (group, calls)
            }
            Err::<_, Failure>(_) => (vec![function], Vec::new()),
        })
    }

    /// A hash of what a function says; none if it cannot be read once more.
    fn content(&self, function: Number) -> Option<[u8; 32]> {
        let mut reader = self.reader.lock();
        let mut unit = reader.take().or_else(|| self.open(READER_SUFFIX, false).ok())?;
        let content = unit.content(function).ok()?;
        *reader = Some(unit);
        Some(content)
    }
}

impl Finished {
    fn body(self, slot: u32) -> Body {
        let Self { address, nanoseconds, content } = self;
        Body { slot, address, nanoseconds, content }
    }
}

/// The parts of a time, in nanoseconds, that functions have by their sizes.
fn shares(time: Duration, group: &[Number], facts: &Facts) -> Vec<u64> {
    let size = |&function: &Number| facts.get(function).map_or(1, |symbol| u128::from(symbol.size.max(1)));
    let all: u128 = group.iter().map(size).sum();
    group.iter().map(|function| (time.as_nanos() * size(function) / all.max(1)) as u64).collect()
}

/// Units and numbers of the functions of the image in `file`, in the order of slots.
pub(super) fn functions(file: &[u8]) -> Result<Vec<(u32, Number)>, &'static str> {
    let header = FileHeader64::<LE>::parse(file).map_err(|_| "is no image")?;
    let sections = header.sections(LE, file).map_err(|_| "has no table of sections")?;
    let found = sections.section_by_name(LE, FUNCTIONS_SECTION.as_bytes());
    let (_, section) = found.ok_or("has no functions to be compiled")?;
    let bytes = section.data(LE, file).map_err(|_| "has a damaged table of functions")?;
    let word = |bytes: &[u8; 16], at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| bytes[at + byte]));
    Ok(bytes.as_chunks().0.iter().map(|record| (word(record, 0), word(record, 4))).collect())
}

/// Whether functions of the image in `file` have bodies there, in the order of slots: these lead elsewhere than to the lazy
/// entries.
fn bodies_in(file: &[u8]) -> Result<Vec<bool>, &'static str> {
    let header = FileHeader64::<LE>::parse(file).map_err(|_| "is no image")?;
    let sections = header.sections(LE, file).map_err(|_| "has no table of sections")?;
    let section = |name: &str| sections.section_by_name(LE, name.as_bytes()).map(|(_, section)| section);
    let slots = section(SLOTS_SECTION).ok_or("has no slots for its functions")?;
    let entries = section(ENTRIES_SECTION).ok_or("has no lazy entries for its functions")?.sh_addr(LE);
    let slots = slots.data(LE, file).map_err(|_| "has damaged slots")?;
    let slots = slots.get(SLOTS_HEAD as usize..).ok_or("has damaged slots")?.as_chunks().0;
    let entry = |number: u64| entries.wrapping_add(number * ENTRY_BYTES);
    Ok((0..).zip(slots).map(|(number, slot)| u64::from_le_bytes(*slot) != entry(number)).collect())
}

/// Where the image in `file` lies.
fn extent(file: &[u8], distance: usize) -> Result<Range<usize>, &'static str> {
    let header = FileHeader64::<LE>::parse(file).map_err(|_| "is no image")?;
    let segments = header.program_headers(LE, file).map_err(|_| "has a damaged table of segments")?;
    let loaded = segments.iter().filter(|segment| segment.p_type(LE) == elf::PT_LOAD);
    let place = |segment: &ProgramHeader64<LE>| (segment.p_vaddr(LE), segment.p_memsz(LE));
    let (starts, ends): (Vec<u64>, Vec<u64>) =
        loaded.map(place).map(|(start, size)| (start, start.saturating_add(size))).unzip();
    let (start, end) = (starts.into_iter().min().unwrap_or(0), ends.into_iter().max().unwrap_or(0));
    Ok((start as usize).wrapping_add(distance)..(end as usize).wrapping_add(distance))
}

/// Whether a distance of 32 bits leads from any place of `fresh` to any of `image`.
fn reaches(fresh: &Range<usize>, image: &Range<usize>) -> bool {
    const REACH: usize = i32::MAX as usize;
    image.end.saturating_sub(fresh.start) <= REACH && fresh.end.saturating_sub(image.start) <= REACH
}

fn failed(error: SessionError) -> Failure {
    Failure::new(FailureKind::Link, format!("cannot link a function: {error}"))
}
