//! Builds the C++ part, packs clang's own headers, and says which archives of LLVM, clang and lld are linked.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Code generation for these targets, and what clang, lld and ORC use besides.
const COMPONENTS: &[&str] = &[
    "x86",
    "aarch64",
    "webassembly",
    "orcjit",
    "lto",
    "dtlto",
    "passes",
    "bitwriter",
    "irreader",
    "linker",
    "instrumentation",
    "coverage",
    "frontendopenmp",
    "frontenddriver",
    "frontendhlsl",
    "option",
    "windowsdriver",
    "debuginfodwarf",
];

/// The part of clang that a compiler needs; neither the static analyzer nor the tools.
const CLANG: &[&str] = &[
    "Frontend",
    "Driver",
    "Options",
    "CodeGen",
    "Serialization",
    "Parse",
    "Sema",
    "Analysis",
    "AnalysisLifetimeSafety",
    "ASTMatchers",
    "Edit",
    "AST",
    "APINotes",
    "Lex",
    "Basic",
    "Support",
];

/// Headers of clang for targets and languages that this back end does not compile.
const LEFT_OUT: &[&str] = &[
    "altivec.h",
    "arm_cde.h",
    "arm_mve.h",
    "cuda_wrappers",
    "hexagon",
    "hip",
    "hlsl",
    "htm",
    "hvx",
    "llvm_offload",
    "openmp_wrappers",
    "opencl-c",
    "ppc_wrappers",
    "riscv",
    "s390intrin",
    "sifive",
    "andes",
    "spirv",
    "vecintrin",
    "velintrin",
    "__clang_cuda",
    "__clang_hip",
    "__clang_spirv",
    "lasx",
    "lsx",
    "larch",
    "msa.h",
    "zos_wrappers",
    "amdgpu",
    "nvptx",
    "gpuintrin.h",
    "xtensa",
];

/// C++'s operators, and what the plugin has instead of them: see `shim/plugin/allocator.cpp`.
const OPERATORS: &[(&str, &[&str])] = &[
    ("hb_allocate", &["_Znwm", "_Znam"]),
    ("hb_allocate_aligned", &["_ZnwmSt11align_val_t", "_ZnamSt11align_val_t"]),
    ("mi_malloc", &["_ZnwmRKSt9nothrow_t", "_ZnamRKSt9nothrow_t"]),
    ("mi_malloc_aligned", &["_ZnwmSt11align_val_tRKSt9nothrow_t", "_ZnamSt11align_val_tRKSt9nothrow_t"]),
    // The size and the alignment that some of them are told come behind the block, and are not wanted.
    (
        "mi_free",
        &[
            "_ZdlPv",
            "_ZdaPv",
            "_ZdlPvm",
            "_ZdaPvm",
            "_ZdlPvRKSt9nothrow_t",
            "_ZdaPvRKSt9nothrow_t",
            "_ZdlPvSt11align_val_t",
            "_ZdaPvSt11align_val_t",
            "_ZdlPvmSt11align_val_t",
            "_ZdaPvmSt11align_val_t",
            "_ZdlPvSt11align_val_tRKSt9nothrow_t",
            "_ZdaPvSt11align_val_tRKSt9nothrow_t",
        ],
    ),
];

fn main() {
    let prefix =
        PathBuf::from(std::env::var_os("LLVM_SYS_221_PREFIX").unwrap_or_else(|| "/usr/lib/llvm-22".into()));
    println!("cargo:rerun-if-env-changed=LLVM_SYS_221_PREFIX");
    println!("cargo:rerun-if-changed=shim");
    println!("cargo:rerun-if-changed=build.rs");
    let config = prefix.join("bin/llvm-config");
    let version = llvm_config(&config, &["--version"]);
    assert!(
        version.starts_with("22.1"),
        "LLVM 22.1 is needed and {} is version {version:?}: run scripts/setup, or set LLVM_SYS_221_PREFIX",
        config.display()
    );
    println!("cargo:rustc-env=HOTBED_LLVM_PREFIX={}", prefix.display());
    println!("cargo:rustc-env=HOTBED_LLVM_VERSION={version}");
    build_shim(&prefix);
    pack_headers(&prefix.join("lib/clang/22/include"));
    link(&prefix, &config);
}

/// `shim/` goes wherever this crate goes, `shim/plugin/` into the plugin only.
fn build_shim(prefix: &Path) {
    let sources = |folder: &str| {
        let mut sources: Vec<_> = std::fs::read_dir(folder)
            .expect("a folder of the shim")
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "cpp"))
            .collect();
        sources.sort();
        sources
    };
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .debug(false)
        .flag("-fno-rtti")
        .flag("-fno-exceptions")
        .flag("-fvisibility=hidden")
        .flag("-Wno-unused-parameter")
        .define("NDEBUG", None)
        .define("__STDC_CONSTANT_MACROS", None)
        .define("__STDC_FORMAT_MACROS", None)
        .define("__STDC_LIMIT_MACROS", None)
        .flag(format!("-isystem{}", prefix.join("include").display()))
        .cpp_link_stdlib(None);
    for object in build.clone().files(sources("shim/plugin")).compile_intermediates() {
        println!("cargo:rustc-link-arg-cdylib={}", object.display());
    }
    // libstdc++'s own come before that object on the linker's line, and would be taken.
    for (instead, operators) in OPERATORS {
        for operator in *operators {
            println!(
                "cargo:rustc-link-arg-cdylib=-Wl,--wrap={operator},--defsym=__wrap_{operator}={instead}"
            );
        }
    }
    build.files(sources("shim")).compile("hotbed_shim");
}

/// Writes the headers behind each other and a Rust table of their names and places.
fn pack_headers(folder: &Path) {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    let mut files = Vec::new();
    collect(folder, folder, &mut files);
    files.sort();
    let mut pack = Vec::new();
    let mut table = String::from("&[\n");
    for (name, path) in &files {
        let bytes = std::fs::read(path).expect("a header of clang");
        table += &format!("    ({name:?}, {}, {}),\n", pack.len(), bytes.len());
        pack.extend_from_slice(&bytes);
        // The lexer reads until a zero behind the contents.
        pack.push(0);
    }
    table += "]\n";
    std::fs::write(out.join("headers.pack"), pack).expect("writing headers.pack");
    std::fs::write(out.join("headers.rs"), table).expect("writing headers.rs");
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<(String, PathBuf)>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
        if LEFT_OUT.iter().any(|left_out| name.starts_with(left_out)) {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            files.push((name, path));
        }
    }
}

fn link(prefix: &Path, config: &Path) {
    lay_out(prefix);
    // A symbol that is missing is an error of this build, not of the first compilation.
    println!("cargo:rustc-link-arg-cdylib=-Wl,-z,defs");
    // Functions may have to be compiled while the process ends: see shim/lasting.cpp.
    println!("cargo:rustc-link-arg-cdylib=-Wl,--defsym=__cxa_atexit=hb_never_destroy");
    println!("cargo:rustc-link-search=native={}", prefix.join("lib").display());
    for library in ["lldELF", "lldCommon"] {
        println!("cargo:rustc-link-lib=static:-bundle={library}");
    }
    for library in CLANG {
        println!("cargo:rustc-link-lib=static:-bundle=clang{library}");
    }
    let mut arguments = vec!["--link-static", "--libs"];
    arguments.extend(COMPONENTS);
    for library in llvm_config(config, &arguments).split_whitespace() {
        if let Some(name) = library.strip_prefix("-l") {
            println!("cargo:rustc-link-lib=static:-bundle={name}");
        }
    }
    // Static as well, and hidden by the plugin's list of exports: a program must not find the back end's copies.
    for (library, file) in [("stdc++", "libstdc++.a"), ("z", "libz.a"), ("zstd", "libzstd.a")] {
        let output = Command::new("g++").arg(format!("-print-file-name={file}")).output().expect("g++");
        let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        assert!(path.is_absolute(), "{file} is not installed: run scripts/setup");
        if let Some(folder) = path.parent() {
            println!("cargo:rustc-link-search=native={}", folder.display());
        }
        println!("cargo:rustc-link-lib=static:-bundle={library}");
    }
}

/// Has the linker of a release build followed by BOLT, which lays out the plugin's code by blocks, the hot ones together: the
/// archives of LLVM and clang come compiled, so that this is the only place where a profile can help. It is worth a sixth of
/// a compilation's time. `HOTBED_PLUGIN_LAYOUT=plain` leaves it out (it takes most of a minute), `relocations` makes what
/// BOLT reads, for `scripts/profile-plugin`.
fn lay_out(prefix: &Path) {
    println!("cargo:rerun-if-env-changed=HOTBED_PLUGIN_LAYOUT");
    println!("cargo:rerun-if-changed=profile.xz");
    println!("cargo:rerun-if-changed=link-plugin");
    let is = |name, value: &str| std::env::var(name).is_ok_and(|it| it == value);
    if is("HOTBED_PLUGIN_LAYOUT", "plain")
        || !is("PROFILE", "release")
        || !is("TARGET", "x86_64-unknown-linux-gnu")
    {
        return;
    }
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let bolt = prefix.join("bin/llvm-bolt");
    let profile = here.join("profile.xz");
    let profile = if is("HOTBED_PLUGIN_LAYOUT", "relocations") { Path::new("none") } else { &profile };
    if let Some(missing) = missing_for_layout(&bolt) {
        println!(
            "cargo:warning=the back end is linked without its profile, and compiles slower by a sixth: {missing}"
        );
        return;
    }
    println!("cargo:rustc-link-arg-cdylib=-wrapper");
    let parts = [&here.join("link-plugin"), profile, &bolt].map(|path| path.display().to_string());
    println!("cargo:rustc-link-arg-cdylib={}", parts.join(","));
}

/// What is not there of the things that `link-plugin` uses.
fn missing_for_layout(bolt: &Path) -> Option<String> {
    let linker = std::env::var_os("RUSTC_LINKER").unwrap_or_else(|| "cc".into());
    let says = |command: &std::ffi::OsStr| Command::new(command).arg("--version").output().ok();
    if !bolt.exists() {
        return Some(format!("{} is missing: run scripts/setup", bolt.display()));
    }
    for tool in ["bash", "awk", "xz", "objcopy"] {
        if says(tool.as_ref()).is_none() {
            return Some(format!("{tool} is missing: run scripts/setup"));
        }
    }
    // Another driver has no -wrapper.
    let is_gcc = says(&linker)
        .is_some_and(|output| String::from_utf8_lossy(&output.stdout).contains("Free Software Foundation"));
    (!is_gcc).then(|| format!("{} is not gcc", linker.display()))
}

#[allow(clippy::panic, reason = "a build script tells cargo so that the build cannot go on")]
fn llvm_config(config: &Path, arguments: &[&str]) -> String {
    let output = Command::new(config)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}: run scripts/setup", config.display()));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
