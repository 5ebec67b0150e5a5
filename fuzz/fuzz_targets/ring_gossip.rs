//! See `src/ring_gossip.rs`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| gramme_fuzz::ring_gossip::run(data));
