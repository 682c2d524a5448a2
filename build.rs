//! Exports from the command what gdb looks for: its JIT interface (`loader/src/debug/gdb/interface.rs`), which stripping
//! would take away otherwise.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for symbol in ["__jit_debug_descriptor", "__jit_debug_register_code"] {
        println!("cargo:rustc-link-arg-bins=-Wl,--export-dynamic-symbol={symbol}");
    }
}
