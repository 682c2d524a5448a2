//! What can go wrong while loading, by name.

use crate::image::ImageError;
use crate::layers::Layer;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// Something could not be loaded or defined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The system gave no memory.
    #[error("cannot map {unit}: {source}")]
    Map {
        /// Name of the unit.
        unit: String,
        /// What the system says.
        source: io::Error,
    },
    /// The image is damaged or unsuitable.
    #[error("cannot load {unit}: {source}")]
    Image {
        /// Name of the unit.
        unit: String,
        /// The reason.
        source: ImageError,
    },
    /// A shared library could not be opened.
    #[error("cannot open library {name}{}: {reason}", needed_by.as_ref().map(|unit| format!(", needed by {unit}")).unwrap_or_default())]
    Library {
        /// The library.
        name: String,
        /// The unit that needs it, unless the host asked for it.
        needed_by: Option<String>,
        /// `dlerror`'s words.
        reason: String,
    },
    /// Symbols that nobody has.
    #[error("{}", Lines { unit, symbols, asked })]
    Unresolved {
        /// Name of the unit.
        unit: String,
        /// The symbols.
        symbols: Vec<Unresolved>,
        /// Where they were looked for, in this order.
        asked: Vec<Layer>,
    },
    /// An image that this one was linked against is not there.
    #[error(
        "cannot load {unit}: it needs the image {name}, which is not loaded, nor found beside it or where libraries are"
    )]
    NoDependency {
        /// Name of the unit.
        unit: String,
        /// The `SONAME` of the image that it needs.
        name: String,
    },
    /// An image that this one was linked against has another interface than it had then.
    #[error(
        "cannot load {unit}: {found} has another interface than when {unit} was linked against it{}; link {unit} anew",
        seen_changes(changes)
    )]
    Interface {
        /// Name of the unit.
        unit: String,
        /// Name of the unit whose interface has changed.
        found: String,
        /// What has changed of what the unit is known to refer to, a symbol each.
        changes: Vec<String>,
    },
    /// A library that is opened for the image calls it before it is bound, and so before its functions can be compiled.
    #[error("cannot load {unit}: a library that it needs calls it before its functions can be compiled")]
    CalledEarly {
        /// Name of the unit.
        unit: String,
    },
    /// An image that this one is bound to was being started by another thread, which failed.
    #[error("cannot load {unit}: a unit that it uses could not be initialised")]
    Uninitialised {
        /// Name of the unit.
        unit: String,
    },
    /// The host has defined the symbol before, with another address.
    #[error("cannot define {name}: it is defined already, at another address")]
    Redefined {
        /// The symbol.
        name: String,
    },
}

fn seen_changes(changes: &[String]) -> String {
    match changes.join(", ") {
        none if none.is_empty() => ", though not in what it is known to use".to_owned(),
        changes => format!(": {changes}"),
    }
}

/// A symbol that nobody has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unresolved {
    /// Its name.
    pub name: String,
    /// The name as C++ or Rust source has it, if it is mangled.
    pub demangled: Option<String>,
    /// The version it must have.
    pub version: Option<String>,
    /// Names like it that somebody has, nearest first; mangled ones as source has them.
    pub near: Vec<String>,
}

impl Unresolved {
    /// A symbol of that name, which gets demangled.
    pub fn new(name: &str, version: Option<&str>) -> Self {
        let version = version.map(str::to_owned);
        Self { name: name.to_owned(), demangled: demangle(name), version, near: Vec::new() }
    }
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.demangled {
            Some(demangled) => write!(f, "{demangled} ({})", self.name)?,
            None => f.write_str(&self.name)?,
        }
        match &self.version {
            Some(version) => write!(f, " of version {version}"),
            None => Ok(()),
        }
    }
}

/// What a mangled C++ name stands for.
pub fn demangle(name: &str) -> Option<String> {
    if !name.starts_with("_Z") {
        return None;
    }
    // Names come from files: a nested one must not exhaust the stack.
    let options = cpp_demangle::ParseOptions::default().recursion_limit(128);
    let symbol = cpp_demangle::Symbol::new_with_options(name, &options).ok()?;
    let options = cpp_demangle::DemangleOptions::default().recursion_limit(128);
    let mut text = Short(String::new());
    symbol.structured_demangle(&mut text, &options).ok()?;
    Some(text.0)
}

/// A text that refuses to grow beyond all measure: a short name may refer to its own parts over and over.
struct Short(String);

impl fmt::Write for Short {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        const MOST: usize = 64 << 10;
        if self.0.len() + more.len() > MOST {
            return Err(fmt::Error);
        }
        self.0.push_str(more);
        Ok(())
    }
}

/// One line a symbol.
struct Lines<'a> {
    unit: &'a str,
    symbols: &'a [Unresolved],
    asked: &'a [Layer],
}

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { unit, symbols, asked } = self;
        for (at, symbol) in symbols.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            write!(f, "unresolved symbol {symbol}, needed by {unit}")?;
            if !asked.is_empty() {
                f.write_str("; asked: ")?;
                for (at, layer) in asked.iter().enumerate() {
                    write!(f, "{}{layer}", if at > 0 { ", " } else { "" })?;
                }
            }
            if !symbol.near.is_empty() {
                write!(f, "; did you mean {}?", symbol.near.join(", "))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_fill_memory_stays_mangled() {
        // Each type is a function of the one before, which it mentions so many times.
        let nested = |mentions: usize| {
            let types = (0..3).map(|at| format!("PF{}E", format!("S{}_", 2 * at).repeat(mentions)));
            format!("_Z1fP1a{}", types.collect::<String>())
        };
        let short = demangle(&nested(2));
        assert!(short.as_ref().is_some_and(|text| text.starts_with("f(a*, a* (*)(a*), ")), "{short:?}");
        assert_eq!(demangle(&nested(100)), None);
    }

    #[test]
    fn unresolved_symbols_are_told_in_a_line_each() {
        let near = vec!["bold".to_owned(), "told".to_owned()];
        let old = Unresolved { near, ..Unresolved::new("old", Some("V_1")) };
        let error = LoadError::Unresolved {
            unit: "u".into(),
            symbols: vec![Unresolved::new("_Z4nopei", None), old],
            asked: vec![Layer::Unit, Layer::Process],
        };
        assert_eq!(
            error.to_string(),
            "unresolved symbol nope(int) (_Z4nopei), needed by u; asked: the unit itself, the process\n\
             unresolved symbol old of version V_1, needed by u; asked: the unit itself, the process; did you mean bold, told?"
        );
    }
}
