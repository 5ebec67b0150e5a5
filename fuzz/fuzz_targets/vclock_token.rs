//! See `src/vclock_token.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gramme_fuzz::vclock_token::run(data));
