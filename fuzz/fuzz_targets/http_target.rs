//! See `src/http_target.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gramme_fuzz::http_target::run(data));
