//! The key of a request: everything that decides what comes out, but for the contents of files.

use crate::boundary::{Argument, BUILD, Content, Request};
use std::os::unix::ffi::OsStrExt;

/// Hash over the shape of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// The key of `request`. The unit's name and the colour of messages are not in it; nor is the directory,
    /// unless debug information or coverage data records it: dependencies with relative paths tell directories apart.
    pub fn of(request: &Request) -> Self {
        // Taken apart, so that a new field cannot be forgotten here.
        let Request {
            unit: _,
            arguments,
            directory,
            environment,
            entry,
            soname,
            whole_archives,
            lazy,
            color: _,
        } = request;
        let mut key = Hasher(blake3::Hasher::new());
        key.part(BUILD.as_bytes());
        key.count(arguments.len());
        let mut records_directory = false;
        let mut native = false;
        for argument in arguments {
            match argument {
                Argument::Flag(flag) => {
                    key.part(b"flag");
                    key.part(flag.as_bytes());
                    records_directory |= flag_records_directory(flag);
                    native |= flag.contains("native");
                }
                Argument::Input(input) => match &input.content {
                    Content::File(path) => {
                        key.part(&[b'f', input.lang as u8]);
                        key.part(path.as_os_str().as_bytes());
                    }
                    Content::Bytes { name, bytes } => {
                        key.part(&[b'b', input.lang as u8]);
                        key.part(name.as_bytes());
                        key.part(blake3::hash(bytes).as_bytes());
                    }
                },
            }
        }
        key.count(environment.len());
        for (name, value) in environment {
            key.part(name.as_bytes());
            key.part(value.as_bytes());
        }
        for option in [entry, soname] {
            key.count(usize::from(option.is_some()));
            key.part(option.as_deref().unwrap_or_default().as_bytes());
        }
        key.count(usize::from(*whole_archives));
        key.count(usize::from(*lazy));
        if records_directory {
            key.part(directory.as_os_str().as_bytes());
        }
        if native {
            key.part(&processor());
        }
        Self(*key.0.finalize().as_bytes())
    }

    /// The key as text.
    pub fn hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }
}

/// Hashes parts with their lengths, so that no two lists of parts run into the same bytes.
struct Hasher(blake3::Hasher);

impl Hasher {
    fn part(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.update(bytes);
    }

    fn count(&mut self, count: usize) {
        self.0.update(&(count as u64).to_le_bytes());
    }
}

fn flag_records_directory(flag: &str) -> bool {
    (flag.starts_with("-g") && flag != "-g0")
        || [
            "-fcoverage",
            "-fprofile",
            "-ftest-coverage",
            "--coverage",
            "-fdebug-compilation-dir",
            "-ffile-compilation-dir",
        ]
        .iter()
        .any(|known| flag.starts_with(known))
}

/// What `-march=native` depends on: family and features of this processor.
#[cfg(target_arch = "x86_64")]
fn processor() -> Vec<u8> {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    let base = __cpuid(1);
    let extended = __cpuid_count(7, 0);
    let more = __cpuid_count(7, 1);
    let far = __cpuid(0x8000_0001);
    [
        base.eax,
        base.ecx,
        base.edx,
        extended.ebx,
        extended.ecx,
        extended.edx,
        more.eax,
        more.ebx,
        more.edx,
        far.ecx,
        far.edx,
    ]
    .iter()
    .flat_map(|word| word.to_le_bytes())
    .collect()
}

/// What `-march=native` depends on: what the system says about the processor.
#[cfg(not(target_arch = "x86_64"))]
fn processor() -> Vec<u8> {
    std::fs::read("/proc/cpuinfo").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boundary::{Input, Lang};

    fn request() -> Request {
        Request {
            unit: "u".into(),
            arguments: vec![
                Argument::Flag("-O2".into()),
                Argument::Input(Input { lang: Lang::C, content: Content::File("a.c".into()) }),
            ],
            directory: "/here".into(),
            environment: vec![],
            entry: None,
            soname: None,
            whole_archives: false,
            lazy: false,
            color: false,
        }
    }

    #[test]
    fn what_matters_is_in_the_key() {
        let base = request();
        let same = Request { unit: "other".into(), color: true, directory: "/there".into(), ..request() };
        assert_eq!(Key::of(&base), Key::of(&same));
        let mut different = vec![
            Request { entry: Some("main".into()), ..request() },
            Request { whole_archives: true, ..request() },
            Request { lazy: true, ..request() },
            Request { soname: Some("u.hbi".into()), ..request() },
            Request { environment: vec![("CPATH".into(), "x".into())], ..request() },
        ];
        let change = |f: &dyn Fn(&mut Vec<Argument>)| {
            let mut changed = request();
            f(&mut changed.arguments);
            changed
        };
        different.push(change(&|a| a.swap(0, 1)));
        different.push(change(&|a| a[0] = Argument::Flag("-O3".into())));
        different.push(change(&|a| a.push(Argument::Flag("-march=native".into()))));
        for (lang, content) in [
            (Lang::Cpp, Content::File("a.c".into())),
            (Lang::C, Content::File("b.c".into())),
            (Lang::C, Content::Bytes { name: "a.c".into(), bytes: vec![] }),
            (Lang::C, Content::Bytes { name: "a.c".into(), bytes: vec![1] }),
        ] {
            different.push(change(&|a| a[1] = Argument::Input(Input { lang, content: content.clone() })));
        }
        let mut keys: Vec<_> = different.iter().map(|r| Key::of(r).hex()).collect();
        keys.push(Key::of(&base).hex());
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), different.len() + 1);
    }

    #[test]
    fn the_directory_counts_when_it_is_recorded() {
        for (flag, counts) in
            [("-g", true), ("-g0", false), ("-ggdb3", true), ("--coverage", true), ("-O1", false)]
        {
            let mut here = request();
            here.arguments.push(Argument::Flag(flag.into()));
            let there = Request { directory: "/there".into(), ..here.clone() };
            assert_eq!(Key::of(&here) != Key::of(&there), counts, "{flag}");
        }
    }
}
