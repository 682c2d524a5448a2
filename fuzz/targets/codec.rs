#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    hotbed_loader::fuzzing::codec(bytes);
});
