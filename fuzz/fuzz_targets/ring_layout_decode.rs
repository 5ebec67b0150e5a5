//! See `src/ring_layout_decode.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gramme_fuzz::ring_layout_decode::run(data));
