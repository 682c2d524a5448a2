//! clang's own headers (`stddef.h`, the intrinsics, ...), which travel inside this library, so that a machine needs no
//! clang to compile. `build.rs` packs them; the front end sees them below [`RESOURCES`].

use crate::shim::File;
use std::sync::OnceLock;

/// The resource directory that clang is told of; no such folder exists on disk.
pub(crate) const RESOURCES: &str = "/.hotbed/clang/22";

static PACK: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/headers.pack"));
static TABLE: &[(&str, usize, usize)] = include!(concat!(env!("OUT_DIR"), "/headers.rs"));

/// The headers with their full paths.
pub(crate) fn files() -> &'static [File<'static>] {
    static PATHS: OnceLock<Vec<String>> = OnceLock::new();
    static FILES: OnceLock<Vec<File<'static>>> = OnceLock::new();
    let paths =
        PATHS.get_or_init(|| TABLE.iter().map(|(name, ..)| format!("{RESOURCES}/include/{name}")).collect());
    FILES.get_or_init(|| {
        let file = |(&(_, start, size), path): (&(&str, usize, usize), &'static String)| File {
            path: path.as_str().into(),
            contents: PACK[start..start + size].into(),
        };
        TABLE.iter().zip(paths).map(file).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_everyday_headers_are_there() {
        for wanted in ["stddef.h", "stdarg.h", "immintrin.h", "arm_neon.h", "wasm_simd128.h"] {
            let path = format!("{RESOURCES}/include/{wanted}");
            assert!(files().iter().any(|file| file.path.text() == path), "{wanted}");
        }
    }
}
