//! See `src/vclock_dotset_ops.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gramme_fuzz::vclock_dotset_ops::run(data));
