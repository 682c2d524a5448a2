//! Links the peers LLJIT and LibraryResolver (through `shim/`, for it has no C API): LLVM's own archives, static, so that the peer has what a host that ships it would have, and
//! so that no further shared library lies in the process's search order, where it would slow `dlopen` down.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=shim");
    println!("cargo::rerun-if-env-changed=LLVM_SYS_221_PREFIX");
    let config = match std::env::var("LLVM_SYS_221_PREFIX") {
        Ok(prefix) => format!("{prefix}/bin/llvm-config"),
        Err(_) => "llvm-config-22".to_owned(),
    };
    // Before LLVM's archives, which it needs.
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .flag("-fno-rtti")
        .flag("-fno-exceptions")
        .flag("-Wno-unused-parameter")
        .define("NDEBUG", None)
        .define("__STDC_CONSTANT_MACROS", None)
        .define("__STDC_FORMAT_MACROS", None)
        .define("__STDC_LIMIT_MACROS", None)
        .flag(format!("-isystem{}", output(&config, &["--includedir"]).trim()))
        .cpp_link_stdlib(None)
        .file("shim/library_resolver.cpp")
        .compile("hotbed_bench_shim");
    println!("cargo::rustc-link-search=native={}", output(&config, &["--libdir"]).trim());
    let libraries = output(&config, &["--link-static", "--libs", "orcjit", "x86codegen", "x86asmparser"]);
    for library in libraries.split_whitespace().filter_map(|flag| flag.strip_prefix("-l")) {
        println!("cargo::rustc-link-lib=static={library}");
    }
    // The C++ library and what compressed sections need, from wherever the system's compiler has them.
    for library in ["stdc++", "z", "zstd"] {
        let file = output("g++", &[&format!("-print-file-name=lib{library}.a")]);
        if let Some((folder, _)) = file.trim().rsplit_once('/') {
            println!("cargo::rustc-link-search=native={folder}");
        }
        println!("cargo::rustc-link-lib=static={library}");
    }
}

/// What `program` prints; the build fails with a sentence when it cannot be had.
fn output(program: &str, arguments: &[&str]) -> String {
    let result = Command::new(program).args(arguments).output();
    let output =
        result.unwrap_or_else(|error| fail(&format!("cannot run {program}: {error} (run `make build`)")));
    if !output.status.success() {
        fail(&format!("{program} {} failed", arguments.join(" ")));
    }
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    std::process::exit(1)
}
