//! Where the plugin and the worker's executable are.
//!
//! An explicit path of the builder wins. Then comes the folder of the running executable (and the one above, when that
//! is cargo's folder of test or example executables), then `../lib`, and last an environment variable.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

const PLUGIN: &str = "libhotbed_jit.so";
const PLUGIN_VARIABLE: &str = "HOTBED_JIT";
const WORKER: &str = "hotbed";
const WORKER_VARIABLE: &str = "HOTBED_WORKER";

/// The plugin's file.
///
/// # Errors
/// A text that says where it was looked for.
pub(crate) fn find_plugin(explicit: Option<&Path>) -> Result<PathBuf, String> {
    let folders = executable_folders();
    let lib = folders.iter().map(|folder| folder.join("../lib"));
    let places = folders.iter().cloned().chain(lib).map(|folder| folder.join(PLUGIN)).collect();
    first(PLUGIN, explicit, places, PLUGIN_VARIABLE)
}

/// The executable that workers run.
///
/// # Errors
/// A text that says where it was looked for.
pub(super) fn find_worker(explicit: Option<&Path>, plugin: Option<&Path>) -> Result<PathBuf, String> {
    let beside_plugin = plugin.and_then(Path::parent);
    let mut folders = executable_folders();
    folders.extend(beside_plugin.map(Path::to_owned));
    folders.extend(beside_plugin.map(|folder| folder.join("../bin")));
    let places = folders.into_iter().map(|folder| folder.join(WORKER)).collect();
    first("the worker's executable", explicit, places, WORKER_VARIABLE)
}

/// The executable's path. What runs in this process may have its first thread end, after which the system does not say it any
/// more; so whoever will want it then asks before.
pub(crate) fn executable() -> Option<&'static Path> {
    static EXECUTABLE: OnceLock<Option<PathBuf>> = OnceLock::new();
    EXECUTABLE.get_or_init(|| std::env::current_exe().ok()).as_deref()
}

fn executable_folders() -> Vec<PathBuf> {
    let Some(folder) = executable().and_then(|path| path.parent().map(Path::to_owned)) else {
        return Vec::new();
    };
    let of_cargo = folder.file_name().is_some_and(|name| name == "deps" || name == "examples");
    let above = folder.parent().filter(|_| of_cargo).map(Path::to_owned);
    std::iter::once(folder).chain(above).collect()
}

fn first(
    what: &str,
    explicit: Option<&Path>,
    places: Vec<PathBuf>,
    variable: &str,
) -> Result<PathBuf, String> {
    if let Some(path) = explicit {
        return if path.is_file() {
            Ok(path.to_owned())
        } else {
            Err(format!("{} is not there", path.display()))
        };
    }
    if let Some(found) = places.iter().find(|path| path.is_file()) {
        return Ok(found.clone());
    }
    let mut looked: Vec<String> = places.iter().map(|path| path.display().to_string()).collect();
    match std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from) {
        Some(path) if path.is_file() => return Ok(path),
        Some(path) => looked.push(format!("{} ({variable})", path.display())),
        None => looked.push(format!("{variable} (not set)")),
    }
    Err(format!("{what} was not found; looked for at {}", looked.join(", ")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;

    #[test]
    fn an_explicit_path_wins_or_is_an_error() {
        let executable = std::env::current_exe().unwrap();
        let places = vec![PathBuf::from("/nowhere")];
        assert_eq!(first("x", Some(&executable), places.clone(), "HOTBED_UNSET"), Ok(executable.clone()));
        assert!(first("x", Some(Path::new("/nowhere")), vec![executable.clone()], "HOTBED_UNSET").is_err());
        assert_eq!(
            first("x", None, vec!["/nowhere".into(), executable.clone()], "HOTBED_UNSET"),
            Ok(executable)
        );
        let said = first("x", None, places, "HOTBED_UNSET").unwrap_err();
        assert!(said.contains("/nowhere") && said.contains("HOTBED_UNSET"), "{said}");
    }

    #[test]
    fn test_executables_look_one_folder_up() {
        assert_eq!(executable_folders().len(), 2);
    }
}
