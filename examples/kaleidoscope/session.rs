//! A session: the functions that a program has defined so far, each a unit of its own, and what is made of them.
//!
//! **A definition** becomes a module, the module a lazy unit: it is compiled when the function is first called. Its symbol is the
//! function's name and a number, `ks.fib.1`, which no function of the process has: so a program may call its functions as it
//! likes, and LLVM does not take a `sin` of the program's for the one it knows.
//!
//! **Defined again**, a function is a new unit with a new symbol, `ks.fib.2`, which later callers are bound to. Earlier ones keep
//! what they were bound to, for Hotbed binds a unit once, when it is loaded. The old unit is unloaded when nobody is
//! bound to it any more.
//!
//! **What comes later** is declared by `extern`, and who calls it waits: Hotbed wants all that a unit needs to be there when the unit is
//! loaded, so that nothing is missing half-way through a run. So a definition is loaded when the last thing it needs is
//! defined, together with that; functions that need each other are loaded in one call.
//!
//! **An expression** is compiled whole, since it is run at once, and unloaded when it has run.

use crate::ast::{Expr, Function, Item, Prototype};
use crate::codegen::{self, Callee, Made, Need};
use crate::host::{self, Shown};
use crate::parser::{Operators, parameters_of};
use crate::source::Problem;
use hotbed::{Bitcode, Error, Load, Runtime, SharedLibrary, SymbolKind};
use inkwell::context::Context;
use std::collections::{HashMap, HashSet};
use std::io::{self, Write};

/// Functions are worth optimising; an expression that runs once is not.
const OPTIMISED: [&str; 1] = ["-O2"];
const PLAIN: [&str; 1] = ["-O0"];

/// What the symbols of all functions of the program begin with.
const OWN: &str = "ks.";

/// A function that calls can mean.
struct Known {
    callee: Callee,
    /// The number in its symbol; 0 for what the host or the process has.
    version: u32,
}

/// A definition that is not loaded, since nobody has something that it needs.
struct Waiting {
    symbol: String,
    needs: Vec<Need>,
    load: Load,
}

pub(crate) struct Session {
    runtime: Runtime,
    /// What names mean now.
    functions: HashMap<String, Known>,
    /// Symbols that are declared, and that neither the process nor the program has.
    missing: HashSet<String>,
    waiting: Vec<Waiting>,
    /// Symbols of functions that were defined again, with somebody bound to them.
    outdated: Vec<String>,
    expressions: u64,
    print_ir: bool,
    pub(crate) operators: Operators,
}

impl Session {
    /// A session without functions. `print_ir` has the IR of everything printed to standard error.
    pub(crate) fn new(print_ir: bool) -> Result<Self, Error> {
        // What a session defines is seldom defined the same way again: a store would only grow.
        let runtime = Runtime::builder().no_cache().build()?;
        host::define(&runtime)?;
        // The process has `sin` and its like only if it uses them itself.
        runtime.load(SharedLibrary::name("m"))?;
        Ok(Self {
            runtime,
            functions: HashMap::new(),
            missing: HashSet::new(),
            waiting: Vec::new(),
            outdated: Vec::new(),
            expressions: 0,
            print_ir,
            operators: Operators::default(),
        })
    }

    /// How many functions were compiled because they were called.
    pub(crate) fn functions_compiled(&self) -> u32 {
        self.runtime.functions_compiled()
    }

    /// How many units of the program are loaded.
    pub(crate) fn units(&self) -> usize {
        // The library of mathematics is one as well.
        self.runtime.units().len() - 1
    }

    /// Does what an item says; an expression's value is printed.
    pub(crate) fn run(&mut self, item: Item) -> Result<(), Problem> {
        match item {
            Item::Definition(function) => self.define(&function),
            Item::Extern(prototype) => self.declare(&prototype),
            Item::Expression(expression) => {
                let value = self.evaluate(expression)?;
                // That nobody reads it is found out at the end.
                let _ = writeln!(io::stdout(), "{}", Shown(value));
                Ok(())
            }
        }
    }

    fn declare(&mut self, prototype: &Prototype) -> Result<(), Problem> {
        let Prototype { name, at, parameters } = prototype;
        let parameters = parameters.len();
        if let Some(known) = self.functions.get(name) {
            return check(known, prototype);
        }
        let outside = self.runtime.explain(name);
        let known = match outside.winner() {
            Some((_, answer)) => {
                if !matches!(answer.kind, SymbolKind::Function | SymbolKind::IndirectFunction) {
                    return Err(Problem::new(*at, format!("`{name}` of {} is no function", answer.unit)));
                }
                Known { callee: Callee { symbol: name.clone(), parameters }, version: 0 }
            }
            None => {
                let symbol = symbol(name, 1);
                self.missing.insert(symbol.clone());
                Known { callee: Callee { symbol, parameters }, version: 1 }
            }
        };
        self.functions.insert(name.clone(), known);
        Ok(())
    }

    fn define(&mut self, function: &Function) -> Result<(), Problem> {
        let prototype = &function.prototype;
        let name = &prototype.name;
        let old = self.functions.get(name);
        let version = match old {
            // Who was promised it gets it, and as it was promised.
            Some(known) if self.missing.contains(&known.callee.symbol) => {
                check(known, prototype)?;
                known.version
            }
            Some(known) => known.version + 1,
            None => 1,
        };
        let old = old
            .filter(|known| known.version > 0 && known.version < version)
            .map(|known| known.callee.symbol.clone());
        let callee = Callee { symbol: symbol(name, version), parameters: prototype.parameters.len() };
        let symbol = callee.symbol.clone();
        let context = Context::create();
        let made = self.make(&context, function, &callee)?;
        let bitcode = made.module.write_bitcode_to_memory().as_slice().to_vec();
        let load = Bitcode::bytes(&symbol, bitcode).flags(OPTIMISED).lazy().into();
        self.supply(Waiting { symbol: symbol.clone(), needs: made.needs, load })
            .map_err(|error| Problem::new(prototype.at, error))?;
        self.functions.insert(name.clone(), Known { callee, version });
        self.outdated.extend(old);
        self.let_go();
        Ok(())
    }

    /// Loads a definition, and whatever waits for it and for nothing else, or lets it wait.
    fn supply(&mut self, new: Waiting) -> Result<(), Error> {
        let promised = self.missing.take(&new.symbol);
        self.waiting.push(new);
        let ready = self.ready();
        let loads =
            self.waiting.iter().filter(|unit| ready.contains(&unit.symbol)).map(|unit| unit.load.clone());
        match self.runtime.load_all(loads) {
            Ok(_) => {
                self.waiting.retain(|unit| !ready.contains(&unit.symbol));
                Ok(())
            }
            Err(error) => {
                self.waiting.pop();
                self.missing.extend(promised);
                Err(error)
            }
        }
    }

    /// Unloads the definitions that are outdated and that nobody uses. (Functions that call each other use each other.)
    fn let_go(&mut self) {
        let (runtime, waiting) = (&self.runtime, &mut self.waiting);
        loop {
            let before = self.outdated.len();
            self.outdated.retain(|symbol| {
                let mut needs = waiting.iter().flat_map(|unit| &unit.needs);
                if needs.any(|need| need.symbol == *symbol) {
                    return true;
                }
                waiting.retain(|unit| unit.symbol != *symbol);
                // A unit that others are bound to refuses.
                runtime.unit(symbol).is_some_and(|unit| unit.unload().is_err())
            });
            // Whoever has gone may have been the last to use another one.
            if self.outdated.len() == before {
                return;
            }
        }
    }

    /// Of what waits, that for which all it needs is there or comes with it.
    fn ready(&self) -> HashSet<String> {
        let mut ready: HashSet<String> = self.waiting.iter().map(|unit| unit.symbol.clone()).collect();
        loop {
            let before = ready.len();
            for unit in &self.waiting {
                if unit.needs.iter().any(|need| !self.has(&need.symbol) && !ready.contains(&need.symbol)) {
                    ready.remove(&unit.symbol);
                }
            }
            if ready.len() == before {
                return ready;
            }
        }
    }

    /// Whether units may be bound to that symbol.
    fn has(&self, symbol: &str) -> bool {
        !self.missing.contains(symbol) && !self.waiting.iter().any(|unit| unit.symbol == symbol)
    }

    fn evaluate(&mut self, body: Expr) -> Result<f64, Problem> {
        let at = body.at;
        self.expressions += 1;
        // No function has such a name.
        let name = format!("expression-{}", self.expressions);
        let callee = Callee { symbol: name.clone(), parameters: 0 };
        let function = Function { prototype: Prototype { name, at, parameters: Vec::new() }, body };
        let context = Context::create();
        let made = self.make(&context, &function, &callee)?;
        if let Some(need) = made.needs.iter().find(|need| !self.has(&need.symbol)) {
            return Err(Problem::new(need.at, self.lacking(need)));
        }
        let bitcode = made.module.write_bitcode_to_memory().as_slice().to_vec();
        self.call_once(&callee.symbol, bitcode).map_err(|error| Problem::new(at, error))
    }

    /// Loads a unit whose function `symbol` takes nothing, calls that, and unloads the unit.
    fn call_once(&self, symbol: &str, bitcode: Vec<u8>) -> Result<f64, Error> {
        let unit = self.runtime.load(Bitcode::bytes(symbol, bitcode).flags(PLAIN))?;
        // SAFETY: `make` gave it this type.
        let function = unsafe { unit.get::<unsafe extern "C" fn() -> f64>(symbol)? };
        // SAFETY: as above. The types of what it calls outside the program are what `extern` says, for which who writes a
        // program answers, as in C.
        let value = unsafe { function() };
        drop(function);
        unit.unload()?;
        Ok(value)
    }

    /// Makes the module of a function that is called as `callee` says.
    fn make<'ctx>(
        &self,
        context: &'ctx Context,
        function: &Function,
        callee: &Callee,
    ) -> Result<Made<'ctx>, Problem> {
        let find = |name: &str| {
            if name == function.prototype.name {
                return Some(callee.clone());
            }
            self.functions.get(name).map(|known| known.callee.clone())
        };
        let made = codegen::make(context, &callee.symbol, function, &find)?;
        if self.print_ir {
            let _ = writeln!(io::stderr(), "{}", made.module.print_to_string().to_string_lossy());
        }
        Ok(made)
    }

    /// Why a function cannot be called yet.
    fn lacking(&self, need: &Need) -> String {
        let name = &need.name;
        if self.missing.contains(&need.symbol) {
            let near = self.runtime.explain(name).near.into_iter().find(|near| !near.starts_with(OWN));
            let near = near.map_or_else(String::new, |near| format!("; `{near}` is there"));
            return format!("`{name}` is declared, but neither this program nor the process has it{near}");
        }
        // What it waits for, through others that wait.
        let mut reached = vec![&*need.symbol];
        let mut missing: Vec<&str> = Vec::new();
        let mut at = 0;
        while let Some(symbol) = reached.get(at) {
            at += 1;
            let unit = self.waiting.iter().find(|unit| unit.symbol == *symbol);
            for need in unit.iter().flat_map(|unit| &unit.needs) {
                if self.missing.contains(&need.symbol) && !missing.contains(&&*need.name) {
                    missing.push(&need.name);
                }
                if !reached.contains(&&*need.symbol) {
                    reached.push(&need.symbol);
                }
            }
        }
        missing.sort_unstable();
        format!("`{name}` cannot be called yet: it waits for `{}`", missing.join("`, `"))
    }
}

/// Whether a function is as it is declared or was promised.
fn check(known: &Known, prototype: &Prototype) -> Result<(), Problem> {
    let parameters = known.callee.parameters;
    if parameters == prototype.parameters.len() {
        return Ok(());
    }
    let message = format!("`{}` has {}", prototype.name, parameters_of(parameters));
    Err(Problem::new(prototype.at, message))
}

/// The symbol of a function of the program. With points in it, it is nobody else's; an operator is spelled by its number, for
/// the character may mean something to a linker.
fn symbol(name: &str, version: u32) -> String {
    let mut symbol = OWN.to_owned();
    for character in name.chars() {
        match character {
            '_' | 'a'..='z' | 'A'..='Z' | '0'..='9' => symbol.push(character),
            operator => symbol.push_str(&format!(".{:x}", u32::from(operator))),
        }
    }
    symbol.push_str(&format!(".{version}"));
    symbol
}
