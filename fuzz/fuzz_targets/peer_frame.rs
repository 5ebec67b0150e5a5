//! See `src/peer_frame.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gramme_fuzz::peer_frame::run(data));
