//! See `src/store_raw.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gramme_fuzz::store_raw::run(data));
