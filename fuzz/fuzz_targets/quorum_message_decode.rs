//! See `src/quorum_message_decode.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gramme_fuzz::quorum_message_decode::run(data));
