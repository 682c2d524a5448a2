//! Where things are: the command and the plugin beside the bench itself, the inputs that `scripts/fetch-inputs` puts
//! under `.cache/inputs`, and a scratch folder that is emptied for each row.

use crate::Result;
use crate::process;
use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a row needs to know about its surroundings.
pub(crate) struct Context {
    root: PathBuf,
    command: PathBuf,
    plugin: PathBuf,
    scratch: PathBuf,
}

/// A library of `inputs/crates.tsv` and the program that uses it.
pub(crate) struct Library {
    /// Flags that all of it is compiled with.
    pub(crate) flags: Vec<OsString>,
    /// The library's sources.
    pub(crate) files: Vec<OsString>,
    /// Flags of the linker.
    pub(crate) libraries: Vec<OsString>,
    /// The source of the program.
    pub(crate) program: OsString,
}

impl Context {
    /// Finds the command and the plugin.
    ///
    /// # Errors
    /// When they have not been built.
    pub(crate) fn new() -> Result<Self> {
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("the bench has no project")?.to_owned();
        let own = std::env::current_exe()?;
        let folder = own.parent().ok_or("the bench lies in no folder")?;
        let beside = |name: &str| -> Result<PathBuf> {
            let file = folder.join(name);
            let built = file.is_file();
            built
                .then_some(file)
                .ok_or_else(|| format!("no {name} in {}: run make build", folder.display()).into())
        };
        Ok(Self {
            command: beside("hotbed")?,
            plugin: beside("libhotbed_jit.so")?,
            scratch: folder.parent().unwrap_or(folder).join("bench-scratch"),
            root,
        })
    }

    /// The project's folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The plugin that the row's own runtimes open.
    pub(crate) fn plugin(&self) -> &Path {
        &self.plugin
    }

    /// Empties the scratch folder.
    ///
    /// # Errors
    /// When that cannot be done.
    pub(crate) fn clear_scratch(&self) -> Result<()> {
        let why = |error| format!("cannot make {}: {error}", self.scratch.display());
        match std::fs::remove_dir_all(&self.scratch) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(why(error).into()),
            _ => {}
        }
        Ok(std::fs::create_dir_all(&self.scratch).map_err(why)?)
    }

    /// A path in the scratch folder.
    pub(crate) fn scratch_path(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// A folder that lasts from run to run, for what takes long to make: made by `make` the first time and when `from`,
    /// which stands for everything it is made from, is another one.
    ///
    /// # Errors
    /// Those of `make`, which gets the folder to fill, and when there cannot be such a folder.
    pub(crate) fn kept(
        &self,
        name: &str,
        from: &impl Hash,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let mut hasher = DefaultHasher::new();
        from.hash(&mut hasher);
        let all = self.scratch.with_file_name("bench-kept");
        let folder = all.join(format!("{name}-{:016x}", hasher.finish()));
        if folder.is_dir() {
            return Ok(folder);
        }
        let unfinished = all.join(format!("{name}.new"));
        let why = |error| format!("cannot make {}: {error}", folder.display());
        // What is there is of an earlier build, or of a run that was ended.
        if let Ok(entries) = std::fs::read_dir(&all) {
            for entry in entries.flatten() {
                let begins =
                    entry.file_name().to_str().and_then(|file| file.strip_prefix(name).map(str::to_owned));
                if begins.is_some_and(|rest| rest == ".new" || (rest.len() == 17 && rest.starts_with('-'))) {
                    std::fs::remove_dir_all(entry.path()).map_err(why)?;
                }
            }
        }
        std::fs::create_dir_all(&unfinished).map_err(why)?;
        make(&unfinished)?;
        std::fs::rename(&unfinished, &folder).map_err(why)?;
        Ok(folder)
    }

    /// Writes a file in the scratch folder.
    ///
    /// # Errors
    /// When that cannot be done.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.scratch_path(name);
        std::fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok(path)
    }

    /// `hotbed SUBCOMMAND`, without what the user's environment would change.
    pub(crate) fn hotbed(&self, subcommand: &[&str]) -> Command {
        let mut command = Command::new(&self.command);
        command.args(subcommand).env_remove("HOTBED_JIT").env_remove("HOTBED_WORKER");
        command
    }

    /// `hotbed run` with a store of its own in the scratch folder.
    pub(crate) fn hotbed_run(&self, store: &str) -> Command {
        let mut command = self.hotbed(&["run", "--cache-dir"]);
        command.arg(self.scratch_path(store));
        command
    }

    /// Sees to it that a library's sources are there.
    ///
    /// # Errors
    /// When they cannot be fetched.
    pub(crate) fn library(&self, name: &str) -> Result<Library> {
        process::output_of(Command::new(self.root.join("scripts/fetch-inputs")).arg(name))
            .map_err(|error| format!("the input {name} cannot be fetched: {error}"))?;
        let lines = |suffix: &str| -> Result<Vec<OsString>> {
            let path = self.root.join(format!(".cache/inputs/{name}.{suffix}"));
            let text = std::fs::read_to_string(&path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            Ok(text.lines().filter(|line| !line.is_empty()).map(OsString::from).collect())
        };
        Ok(Library {
            flags: lines("flags")?,
            files: lines("files")?,
            libraries: lines("libs")?,
            program: lines("program")?.pop().ok_or_else(|| format!("the input {name} has no program"))?,
        })
    }
}

impl Library {
    /// What [`Library::arguments`] gives, unoptimised.
    pub(crate) fn program_arguments(&self) -> Vec<OsString> {
        self.arguments("-O0")
    }

    /// Everything a compiler driver needs to build the program at a level of optimisation and without warnings: flags,
    /// sources, libraries.
    pub(crate) fn arguments(&self, level: &str) -> Vec<OsString> {
        let mut arguments = vec![OsString::from("-w"), OsString::from(level)];
        arguments.extend_from_slice(&self.flags);
        arguments.extend_from_slice(&self.files);
        arguments.push(self.program.clone());
        arguments.extend_from_slice(&self.libraries);
        arguments
    }
}
