//! See `src/ring_membership_decode.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gramme_fuzz::ring_membership_decode::run(data));
