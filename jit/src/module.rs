//! The way of an inkwell module across the boundary.

use inkwell::module::Module;

/// The module as bitcode: what a host hands to Hotbed, which never takes pointers to LLVM's own objects. The host may
/// carry another copy of LLVM than the back end; the module stays the host's.
///
/// # Examples
/// ```no_run
/// let context = inkwell::context::Context::create();
/// let module = context.create_module("answer");
/// let bitcode = hotbed_jit::module_bitcode(&module);
/// # let _ = bitcode;
/// ```
pub fn module_bitcode(module: &Module<'_>) -> Vec<u8> {
    module.write_bitcode_to_memory().as_slice().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use inkwell::context::Context;
    use inkwell::memory_buffer::MemoryBuffer;

    #[test]
    fn a_module_survives_the_way() {
        let context = Context::create();
        let module = context.create_module("answer");
        let word = context.i32_type();
        let function = module.add_function("answer", word.fn_type(&[], false), None);
        let builder = context.create_builder();
        builder.position_at_end(context.append_basic_block(function, "entry"));
        builder.build_return(Some(&word.const_int(42, false))).expect("a return");
        let bitcode = module_bitcode(&module);
        let buffer = MemoryBuffer::create_from_memory_range_copy(&bitcode, "answer");
        let again = Module::parse_bitcode_from_buffer(&buffer, &context).expect("bitcode");
        assert_eq!(again.get_function("answer").map(|f| f.count_basic_blocks()), Some(1));
    }
}
