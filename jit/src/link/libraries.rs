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
pub(crate) fn settle_libraries(mut arguments: Vec<String>, directory: &Path, libgcc: Libgcc) -> Settled {
    // A static unwinder inside the image would not find the image's own tables: those are registered with the process's.
    arguments.iter_mut().filter(|a| *a == "-lgcc_eh").for_each(|a| "-lgcc_s".clone_into(a));
    let mut seen = Vec::new();
    arguments.retain(|argument| {
        let ours = argument == "-lgcc" || argument == "-lgcc_s";
        let again = seen.contains(argument);
        if ours {
            seen.push(argument.clone());
        }
        !(ours && (again || libgcc == Libgcc::Needless))
    });
    let folders = search_folders(&arguments, directory);
    let mut settled = Settled::default();
    let mut only_static = false;
    for argument in arguments {
        match argument.as_str() {
            "-Bstatic" | "-static" | "-dn" | "-non_shared" => only_static = true,
            "-Bdynamic" | "-dy" | "-call_shared" => only_static = false,
            _ => {}
        }
        let Some(name) = argument.strip_prefix("-l").filter(|name| !name.is_empty()) else {
            settled.arguments.push((argument, None));
            continue;
        };
        let found = look_for(name, &folders, only_static, &mut settled.missing);
        if found.is_some() || (name != "gcc" && name != "gcc_s") {
            settled.arguments.push((argument, found));
        } else if let Some(library) = LIBGCC_S.iter().find(|path| name == "gcc_s" && Path::new(path).exists())
        {
            settled.arguments.push(((*library).to_owned(), Some(library.into())));
        }
    }
    settled
}

/// A linker's line with its libraries found.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// The arguments; with a library the file that it is.
    pub(crate) arguments: Vec<(String, Option<PathBuf>)>,
    /// Where libraries were looked for and not found.
    pub(crate) missing: Vec<PathBuf>,
}

/// Looks for a library as lld does: in each folder the shared one, then the archive.
fn look_for(
    name: &str,
    folders: &[PathBuf],
    only_static: bool,
    missing: &mut Vec<PathBuf>,
) -> Option<PathBuf> {
    let names = match name.strip_prefix(':') {
        Some(exact) => vec![exact.to_owned()],
        None if only_static => vec![format!("lib{name}.a")],
        None => vec![format!("lib{name}.so"), format!("lib{name}.a")],
    };
    for folder in folders {
        for name in &names {
            let path = folder.join(name);
            if path.exists() {
                return Some(path);
            }
            missing.push(path);
        }
    }
    None
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

    fn settled(arguments: &[&str], libgcc: Libgcc) -> Settled {
        settle_libraries(line(arguments), Path::new("/"), libgcc)
    }

    #[test]
    fn places_without_the_library_are_told() {
        let settled = settled(&["-L/nowhere", "-L", "/usr/lib/x86_64-linux-gnu", "-lm"], Libgcc::Wanted);
        assert_eq!(settled.missing, [PathBuf::from("/nowhere/libm.so"), PathBuf::from("/nowhere/libm.a")]);
        let found = Some(PathBuf::from("/usr/lib/x86_64-linux-gnu/libm.so"));
        assert_eq!(settled.arguments.last(), Some(&("-lm".to_owned(), found)));
    }

    #[test]
    fn libgcc_is_read_once_or_not_at_all() {
        let driver = ["-L/usr/lib/gcc/x86_64-linux-gnu/12", "-lgcc", "-lgcc_s", "-lgcc", "-lgcc_s"];
        for (libgcc, count) in [(Libgcc::Wanted, 3), (Libgcc::Needless, 1)] {
            assert_eq!(settled(&driver, libgcc).arguments.len(), count);
        }
    }

    #[test]
    fn the_unwinder_is_the_processs() {
        let settled = settled(&["-L/usr/lib/gcc/x86_64-linux-gnu/12", "-lgcc", "-lgcc_eh"], Libgcc::Wanted);
        assert_eq!(settled.arguments.last().map(|(argument, _)| argument.as_str()), Some("-lgcc_s"));
    }

    #[test]
    fn a_machine_without_gcc_links_all_the_same() {
        let settled = settled(&["-L/nowhere", "-lgcc", "-lgcc_s", "-lnosuch"], Libgcc::Wanted);
        let arguments: Vec<&str> = settled.arguments.iter().map(|(argument, _)| argument.as_str()).collect();
        assert!(!arguments.contains(&"-lgcc"));
        assert!(arguments.contains(&"-lnosuch"));
    }
}
