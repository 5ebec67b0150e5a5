//! See `src/ring_layout_compute.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gramme_fuzz::ring_layout_compute::run(data));
