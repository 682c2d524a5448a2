//! Tokens in search paths and names of libraries, as the run-time linker expands them: `$ORIGIN`, `$LIB`, `$PLATFORM`, each with or
//! without braces.

use super::levels;
use crate::sys::libraries;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What the tokens stand for.
#[derive(Debug, Clone)]
pub(crate) struct Tokens {
    /// The folder of the object that has the text; an image from memory has none.
    pub(crate) origin: Option<PathBuf>,
    /// Where libraries are below `/` and `/usr`.
    pub(crate) lib: &'static str,
    /// The processor.
    pub(crate) platform: &'static str,
}

impl Tokens {
    /// For an object that lies in the folder `origin`.
    pub(crate) fn new(origin: Option<PathBuf>) -> Self {
        Self { origin, lib: lib(), platform: platform() }
    }

    /// For an object at `path`, which is made absolute: its folder.
    pub(crate) fn of_object(path: Option<&Path>) -> Self {
        let absolute = path.and_then(|path| std::path::absolute(path).ok());
        Self::new(absolute.and_then(|path| path.parent().map(Path::to_owned)))
    }
}

/// `text` with every token replaced. What only looks like one stays as it is; `None` when a token stands for nothing
/// here, which makes the whole text void.
pub(crate) fn expand(text: &[u8], tokens: &Tokens) -> Option<PathBuf> {
    let mut expanded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| *byte == b'$') {
        expanded.extend_from_slice(&rest[..at]);
        rest = &rest[at + 1..];
        let known: [(&[u8], Option<&[u8]>); 3] = [
            (b"ORIGIN", tokens.origin.as_ref().map(|origin| origin.as_os_str().as_bytes())),
            (b"LIB", Some(tokens.lib.as_bytes())),
            (b"PLATFORM", Some(tokens.platform.as_bytes())),
        ];
        match known.iter().find_map(|(name, value)| Some((token(rest, name)?, *value))) {
            Some((length, value)) => {
                expanded.extend_from_slice(value?);
                rest = &rest[length..];
            }
            None => expanded.push(b'$'),
        }
    }
    expanded.extend_from_slice(rest);
    Some(OsString::from_vec(expanded).into())
}

/// How many bytes at the start of `text`, which follows a `$`, are the token `name`.
fn token(text: &[u8], name: &[u8]) -> Option<usize> {
    if let Some(inner) = text.strip_prefix(b"{") {
        return inner.strip_prefix(name)?.starts_with(b"}").then_some(name.len() + 2);
    }
    let after = text.strip_prefix(name)?.first();
    // A longer name is another name.
    (!after.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')).then_some(name.len())
}

/// `$LIB` is decided when a distribution builds glibc. It shows in where the distribution has put it.
fn lib() -> &'static str {
    static LIB: OnceLock<&str> = OnceLock::new();
    LIB.get_or_init(|| {
        const KNOWN: [&str; 2] = ["lib/x86_64-linux-gnu", "lib64"];
        let has_libc = |lib: &&str| {
            ["/", "/usr/"].iter().any(|root| Path::new(root).join(lib).join("libc.so.6").exists())
        };
        KNOWN.into_iter().find(has_libc).unwrap_or("lib")
    })
}

/// `$PLATFORM` is the kernel's word, unless glibc is one of those before 2.37 and knows better.
fn platform() -> &'static str {
    static PLATFORM: OnceLock<String> = OnceLock::new();
    PLATFORM.get_or_init(|| {
        let overrides = libraries::glibc_version().is_some_and(|version| version < (2, 37));
        if overrides && levels::has_haswell() {
            return "haswell".into();
        }
        libraries::kernel_platform().unwrap_or("x86_64").into()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test shall say where")]
    use super::*;
    use std::process::Command;

    fn tokens(origin: Option<&str>) -> Tokens {
        Tokens { origin: origin.map(PathBuf::from), lib: "lib64", platform: "x86_64" }
    }

    #[test]
    fn tokens_end_where_their_name_ends() {
        let tokens = tokens(Some("/opt/app/bin"));
        for (text, expected) in [
            ("$ORIGIN", "/opt/app/bin"),
            ("${ORIGIN}/../lib", "/opt/app/bin/../lib"),
            ("$ORIGIN/x$ORIGIN", "/opt/app/bin/x/opt/app/bin"),
            ("$ORIGINAL/x", "$ORIGINAL/x"),
            ("$ORIGIN_", "$ORIGIN_"),
            ("${ORIGIN", "${ORIGIN"),
            ("/usr/$LIB/$PLATFORM-x", "/usr/lib64/x86_64-x"),
            ("/a$/b$$LIB", "/a$/b$lib64"),
            ("$HOME", "$HOME"),
            ("", ""),
        ] {
            assert_eq!(expand(text.as_bytes(), &tokens), Some(expected.into()), "{text}");
        }
    }

    #[test]
    fn what_has_no_place_has_no_origin() {
        assert_eq!(expand(b"$ORIGIN/lib", &tokens(None)), None);
        assert_eq!(expand(b"/lib", &tokens(None)), Some("/lib".into()));
    }

    #[test]
    fn the_run_time_linker_agrees() {
        let output = Command::new("/lib64/ld-linux-x86-64.so.2").arg("--list-diagnostics").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let value = |key: &str| {
            let start = text.find(&format!("{key}=\"")).unwrap() + key.len() + 2;
            text[start..].split('"').next().unwrap().to_owned()
        };
        let tokens = Tokens::new(None);
        assert_eq!(tokens.lib, value("dl_dst_lib"));
        assert_eq!(tokens.platform, value("dl_platform"));
    }
}
