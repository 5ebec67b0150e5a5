//! See `src/vclock_siblings_ops.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gramme_fuzz::vclock_siblings_ops::run(data));
