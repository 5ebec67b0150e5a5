//! See `src/ring_tables.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gramme_fuzz::ring_tables::run(data));
