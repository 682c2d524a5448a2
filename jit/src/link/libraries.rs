//! Libraries named on the linker's line: where they are looked for in vain (an entry of the store depends on that), and
//! what stands in when a machine has no gcc.

use std::path::{Path, PathBuf};

/// The run-time library of gcc as every machine with C++ programs has it.
const LIBGCC_S: [&str; 3] =
    ["/lib/x86_64-linux-gnu/libgcc_s.so.1", "/lib64/libgcc_s.so.1", "/usr/lib/libgcc_s.so.1"];

/// Whether the run-time library of gcc can be wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Libgcc {
    /// Something may refer to it.
    Wanted,
    /// Nothing that is linked refers to a symbol that it has.
    Needless,
}

/// Replaces `-lgcc` and `-lgcc_s` where they cannot be found, and says where each library was looked for in vain.
///
/// The driver names both several times, for linkers that go through archives once; lld reads them anew each time, which
/// is a third of the time that a small link takes. So they stay once, or not at all where they are needless.
pub(crate) fn settle_libraries(
    arguments: &mut Vec<String>,
    directory: &Path,
    libgcc: Libgcc,
) -> Vec<PathBuf> {
    let mut seen = Vec::new();
    arguments.retain(|argument| {
        let ours = argument == "-lgcc" || argument == "-lgcc_s";
        let again = seen.contains(argument);
        if ours {
            seen.push(argument.clone());
        }
        !(ours && (again || libgcc == Libgcc::Needless))
    });
    let folders = search_folders(arguments, directory);
    let mut missing = Vec::new();
    let mut only_static = false;
    let mut settled = Vec::with_capacity(arguments.len());
    for argument in arguments.drain(..) {
        match argument.as_str() {
            "-Bstatic" | "-static" | "-dn" | "-non_shared" => only_static = true,
            "-Bdynamic" | "-dy" | "-call_shared" => only_static = false,
            _ => {}
        }
        let Some(name) = argument.strip_prefix("-l").filter(|name| !name.is_empty()) else {
            settled.push(argument);
            continue;
        };
        let found = look_for(name, &folders, only_static, &mut missing);
        if found || (name != "gcc" && name != "gcc_s") {
            settled.push(argument);
        } else if let Some(library) = LIBGCC_S.iter().find(|path| name == "gcc_s" && Path::new(path).exists())
        {
            settled.push((*library).to_owned());
        }
    }
    *arguments = settled;
    missing
}

/// Looks for a library as lld does: in each folder the shared one, then the archive.
fn look_for(name: &str, folders: &[PathBuf], only_static: bool, missing: &mut Vec<PathBuf>) -> bool {
    let names = match name.strip_prefix(':') {
        Some(exact) => vec![exact.to_owned()],
        None if only_static => vec![format!("lib{name}.a")],
        None => vec![format!("lib{name}.so"), format!("lib{name}.a")],
    };
    for folder in folders {
        for name in &names {
            let path = folder.join(name);
            if path.exists() {
                return true;
            }
            missing.push(path);
        }
    }
    false
}

fn search_folders(arguments: &[String], directory: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "-L" {
            folders.extend(rest.next().map(|folder| directory.join(folder)));
        } else if let Some(folder) = argument.strip_prefix("-L") {
            folders.push(directory.join(folder));
        }
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(arguments: &[&str]) -> Vec<String> {
        arguments.iter().map(|&a| a.to_owned()).collect()
    }

    #[test]
    fn places_without_the_library_are_told() {
        let mut arguments = line(&["-L/nowhere", "-L", "/usr/lib/x86_64-linux-gnu", "-lm"]);
        let missing = settle_libraries(&mut arguments, Path::new("/"), Libgcc::Wanted);
        assert_eq!(missing, [PathBuf::from("/nowhere/libm.so"), PathBuf::from("/nowhere/libm.a")]);
        assert_eq!(arguments.last().map(String::as_str), Some("-lm"));
    }

    #[test]
    fn libgcc_is_read_once_or_not_at_all() {
        let driver = ["-L/usr/lib/gcc/x86_64-linux-gnu/12", "-lgcc", "-lgcc_s", "-lgcc", "-lgcc_s"];
        for (libgcc, count) in [(Libgcc::Wanted, 3), (Libgcc::Needless, 1)] {
            let mut arguments = line(&driver);
            settle_libraries(&mut arguments, Path::new("/"), libgcc);
            assert_eq!(arguments.len(), count, "{arguments:?}");
        }
    }

    #[test]
    fn a_machine_without_gcc_links_all_the_same() {
        let mut arguments = line(&["-L/nowhere", "-lgcc", "-lgcc_s", "-lnosuch"]);
        settle_libraries(&mut arguments, Path::new("/"), Libgcc::Wanted);
        assert!(!arguments.contains(&"-lgcc".to_owned()));
        assert!(arguments.contains(&"-lnosuch".to_owned()));
    }
}
