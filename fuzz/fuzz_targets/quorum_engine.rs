//! See `src/quorum_engine.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gramme_fuzz::quorum_engine::run(data));
