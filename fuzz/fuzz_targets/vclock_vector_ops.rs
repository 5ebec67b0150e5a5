//! See `src/vclock_vector_ops.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gramme_fuzz::vclock_vector_ops::run(data));
