//! See `src/ring_slot.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gramme_fuzz::ring_slot::run(data));
