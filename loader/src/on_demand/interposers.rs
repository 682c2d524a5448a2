//! Libraries that are never loaded on demand, as data: those that are made to stand in front of a program's others. What they export
//! (`malloc`, `open`, every function of the C library) is everybody's, so a missing name could lead to one of them by accident, and
//! loaded late they break what is there.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Beginnings of file names. One that ends with a letter or digit must be followed by something else in the file's
/// name: `libhoard` is not `libhoarder.so`.
const NEVER: &[&str] = &[
    // Run-time libraries of sanitizers, of gcc and of clang.
    "libasan",
    "libtsan",
    "libubsan",
    "liblsan",
    "libhwasan",
    "libmsan",
    "libclang_rt.",
    // Replacements of malloc.
    "libjemalloc",
    "libtcmalloc",
    "libtcmalloc_",
    "libmimalloc",
    "libhoard",
    "libtbbmalloc",
    "libtbbmalloc_",
    "libsnmalloc",
    "librpmalloc",
    "libscudo",
    "libnedmalloc",
    "libc_malloc_debug",
    "libhardened_malloc",
    "libduma",
    "libefence",
    "libdmalloc",
    "libumem",
    "liballoc_hooks",
    // Profilers and tracers of memory and calls.
    "libmemusage",
    "libpcprofile",
    "libprofiler",
    "libheaptrack_",
    "libbytehound",
    "libvgpreload_",
    "libltrace",
    "libsegfault",
    "libSegFault",
    "libbacktracer",
    "liblttng-ust-",
    // Layers between a program and the C library.
    "libfakeroot",
    "libfakeroot-",
    "libfakechroot",
    "libeatmydata",
    "libfaketime",
    "libfaketimeMT",
    "libtsocks",
    "libtorsocks",
    "libproxychains",
    "libproxychains4",
    "libnss_wrapper",
    "libuid_wrapper",
    "libsocket_wrapper",
    "libresolv_wrapper",
    "libpam_wrapper",
    "libpriv_wrapper",
    "libsnoopy",
    "libstdbuf",
    "libtrash",
    "libgtk3-nocsd",
    "libv4l2convert",
    "libv4l1compat",
    "libaoss",
    "libpulsedsp",
    "libdlfaker",
    "libvglfaker",
    "libMangoHud",
    "libgamemodeauto",
    // Other C libraries.
    "libc.musl-",
    "libdietc",
];

/// Whether the library at `path` is one of them.
pub(super) fn is_interposer(path: &Path) -> bool {
    let Some(name) = path.file_name().map(OsStrExt::as_bytes) else { return false };
    NEVER.iter().any(|never| {
        let Some(rest) = name.strip_prefix(never.as_bytes()) else { return false };
        let whole = never.ends_with(|last: char| !last.is_ascii_alphanumeric());
        whole || !rest.first().is_some_and(u8::is_ascii_alphabetic)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interposers_are_told_by_their_file_names() {
        for name in [
            "libasan.so.8.0.0",
            "libtsan.so.2",
            "libclang_rt.asan-x86_64.so",
            "libjemalloc.so.2",
            "libtcmalloc_minimal.so.4",
            "libfakeroot-sysv.so",
            "libfakeroot.so",
            "libmimalloc-secure.so.2.0",
            "libeatmydata.so",
            "libSegFault.so",
            "libmemusage.so",
            "libpcprofile.so",
            "libc_malloc_debug.so.0",
        ] {
            assert!(is_interposer(&Path::new("/usr/lib").join(name)), "{name}");
        }
        for name in ["libz.so.1", "libhoarder.so", "libasanitary.so", "libc.so.6", "libprofilerate.so", ""] {
            assert!(!is_interposer(&Path::new("/usr/lib").join(name)), "{name}");
        }
    }
}
