#![no_main]

// The first two bytes say where the first object ends.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((length, objects)) = bytes.split_first_chunk() else { return };
    if let Some((old, new)) = objects.split_at_checked(u16::from_le_bytes(*length).into()) {
        hotbed_jit::fuzzing::reuse(old, new);
    }
});
