//! The programs that rows start, both ways: as the executable that clang makes, and as images. All of it takes up to minutes to
//! make, and is kept from run to run; what Hotbed makes, for as long as its build is the same.
//!
//! A *traced image* is made of what a first run has called (`hotbed run --trace`); the other functions stay bitcode
//! (`--rest bitcode`). It and the executable are compiled with -O2. A *package* is a library alone, compiled whole, with -O0 and
//! -g: so it has the most functions, the most to be bound, and is largest.

use crate::Result;
use crate::context::{Context, Library};
use crate::process::{clang, output_of};
use hotbed::BUILD;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// The libraries whose programs take seconds to compile; Jolt's takes minutes.
pub(crate) const LIBRARIES: [&str; 7] =
    ["sqlite3", "lua", "flecs", "zlib", "stb_image", "imgui", "miniaudio"];

/// The big one.
pub(crate) const JOLT: &str = "jolt";

/// A program: how it is compiled.
pub(crate) struct Program {
    /// Its name, which is a file's as well.
    pub(crate) name: String,
    flags: Vec<OsString>,
    sources: Vec<OsString>,
    libraries: Vec<OsString>,
    /// Contents of the sources that are not those of a library, whose version its path tells.
    own: Vec<Vec<u8>>,
}

impl Program {
    /// The program of a library of `inputs/crates.tsv`.
    ///
    /// # Errors
    /// When the library cannot be fetched.
    pub(crate) fn of_library(context: &Context, name: &str) -> Result<Self> {
        let source = PathBuf::from(context.library(name)?.program);
        Self::new(context, name, &source, Some(name))
    }

    /// The program in `source`, with the library it uses.
    ///
    /// # Errors
    /// When the source cannot be read, or the library not be fetched.
    pub(crate) fn new(context: &Context, name: &str, source: &Path, library: Option<&str>) -> Result<Self> {
        let (mut flags, mut sources, mut libraries) = (vec!["-w".into(), "-O2".into()], vec![], vec![]);
        match library {
            Some(library) => {
                let used = context.library(library)?;
                sources = if library == JOLT { joined(context, &used.files)? } else { used.files };
                flags.extend(used.flags);
                libraries = used.libraries;
            }
            None => libraries.push("-lm".into()),
        }
        let text =
            std::fs::read(source).map_err(|error| format!("cannot read {}: {error}", source.display()))?;
        sources.push(source.into());
        Ok(Self { name: name.to_owned(), flags, sources, libraries, own: vec![text] })
    }

    /// The program in `source`, whose `main` becomes the function `work` of `driver`.
    ///
    /// # Errors
    /// As for [`Program::new`], and when the driver cannot be written.
    pub(crate) fn driven(
        context: &Context,
        name: &str,
        source: &Path,
        library: Option<&str>,
        driver: &str,
    ) -> Result<Self> {
        let suffix = source.extension().unwrap_or_default().to_string_lossy();
        let text = format!("#define main work\n#include \"{}\"\n{driver}", source.display());
        let driver = context.write(&format!("{name}.{suffix}"), &text)?;
        let mut program = Self::new(context, name, &driver, library)?;
        program.own.push(std::fs::read(source)?);
        Ok(program)
    }

    /// Everything a compiler driver needs: flags, sources, libraries.
    pub(crate) fn arguments(&self) -> impl Iterator<Item = &OsString> {
        self.flags.iter().chain(&self.sources).chain(&self.libraries)
    }

    /// What stands for everything that it is made from.
    fn content(&self) -> (Vec<&OsString>, &[Vec<u8>]) {
        (self.arguments().collect(), &self.own)
    }

    /// The executable that clang makes of it.
    ///
    /// # Errors
    /// When clang is missing or cannot compile it.
    pub(crate) fn executable(&self, context: &Context) -> Result<PathBuf> {
        let folder = context.kept(&format!("executable-{}", self.name), &self.content(), |folder| {
            let objects = self.objects(folder)?;
            let mut link = clang([self.driver_mode()])?;
            output_of(link.args(&objects).args(&self.libraries).arg("-o").arg(folder.join("program")))?;
            Ok(objects.iter().try_for_each(std::fs::remove_file)?)
        })?;
        Ok(folder.join("program"))
    }

    /// C++ wants its library.
    fn driver_mode(&self) -> &'static str {
        let is_cpp = self.sources.iter().any(|source| is_cpp(source));
        if is_cpp { "--driver-mode=g++" } else { "--driver-mode=gcc" }
    }

    /// Compiles each source by itself, on as many processors as there are.
    fn objects(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let waiting = Mutex::new(self.sources.iter().enumerate());
        let made = Mutex::new(Vec::new());
        // An error of another thread as text, for errors stay where they came from.
        let work = || -> std::result::Result<(), String> {
            loop {
                let next = waiting.lock().map_err(|error| error.to_string())?.next();
                let Some((number, source)) = next else { return Ok(()) };
                let object = folder.join(format!("{number}.o"));
                // A standard of C++ is none of C.
                let fits =
                    |flag: &&OsString| is_cpp(source) || !flag.as_encoded_bytes().starts_with(b"-std=c++");
                let mut compile = clang(self.flags.iter().filter(fits))?;
                output_of(compile.arg("-c").arg(source).arg("-o").arg(&object))
                    .map_err(|error| error.to_string())?;
                made.lock().map_err(|error| error.to_string())?.push((number, object));
            }
        };
        std::thread::scope(|scope| {
            let count = std::thread::available_parallelism().map_or(1, usize::from);
            let threads: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?)
        })?;
        let mut made = made.into_inner().map_err(|error| error.to_string())?;
        made.sort_unstable();
        Ok(made.into_iter().map(|(_, object)| object).collect())
    }

    /// Its traced image, and the trace.
    ///
    /// # Errors
    /// When it cannot be run or built.
    pub(crate) fn traced_image(&self, context: &Context) -> Result<PathBuf> {
        let folder = context.kept(&format!("traced-{}", self.name), &(BUILD, self.content()), |folder| {
            let trace = folder.join("trace");
            output_of(context.hotbed(&["run", "--no-cache", "--trace"]).arg(&trace).args(self.arguments()))?;
            let mut build = context.hotbed(&["image", "build", "--no-cache", "--rest", "bitcode", "--trace"]);
            output_of(build.arg(&trace).arg("-o").arg(folder.join(self.image_name())).args(self.arguments()))
                .map(drop)
        })?;
        Ok(folder.join(self.image_name()))
    }

    fn image_name(&self) -> String {
        format!("{}.hbi", self.name)
    }
}

/// The image of a library as a package.
///
/// # Errors
/// When it cannot be fetched or built.
pub(crate) fn package(context: &Context, name: &str) -> Result<PathBuf> {
    let Library { flags, files, libraries, .. } = context.library(name)?;
    let image = format!("{name}.hbi");
    let folder =
        context.kept(&format!("package-{name}"), &(BUILD, &flags, &files, &libraries), |folder| {
            let mut build = context.hotbed(&["image", "build", "--no-cache", "-w", "-O0", "-g", "-o"]);
            output_of(build.arg(folder.join(&image)).args(&flags).args(&files).args(&libraries)).map(drop)
        })?;
    Ok(folder.join(image))
}

fn is_cpp(source: &OsStr) -> bool {
    Path::new(source).extension().is_some_and(|suffix| suffix == "cpp")
}

/// A source for each folder that includes all those in it: headers are read twenty times and not 138, for whoever
/// compiles them. (All in one do not go together: files in different folders have local functions of the same name.)
fn joined(context: &Context, files: &[OsString]) -> Result<Vec<OsString>> {
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    for file in files {
        let folder = Path::new(file).parent().ok_or("a source lies in no folder")?;
        let name = folder.iter().rev().take(2).map(OsStr::to_string_lossy).collect::<Vec<_>>().join("-");
        let text = texts.entry(name).or_default();
        text.push_str(&format!("#include \"{}\"\n", file.to_string_lossy()));
    }
    let folder = context.kept("joined", &texts, |folder| {
        let write =
            |(name, text): (&String, &String)| std::fs::write(folder.join(format!("{name}.cpp")), text);
        Ok(texts.iter().try_for_each(write)?)
    })?;
    Ok(texts.keys().map(|name| folder.join(format!("{name}.cpp")).into()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_are_in_the_table_of_inputs() {
        let table = include_str!("../../inputs/crates.tsv");
        for library in LIBRARIES.into_iter().chain([JOLT]) {
            assert!(table.lines().any(|line| line.split('\t').next() == Some(library)), "{library}");
        }
    }
}
