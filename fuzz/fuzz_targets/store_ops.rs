//! See `src/store_ops.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gramme_fuzz::store_ops::run(data));
