//! See `src/quorum_object_decode.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gramme_fuzz::quorum_object_decode::run(data));
