//! Fuzz targets, one module each. Every `run` takes a fuzzer's bytes and panics if something does not hold.
//!
//! They are plain functions so that a corpus can be replayed without a fuzzer (`cargo test`), and so that
//! `examples/seeds.rs` can write the seed corpora from real encodings.

pub mod meter;
pub mod source;

pub mod cluster;
pub mod http_target;
pub mod peer_frame;
pub mod quorum_engine;
pub mod quorum_message_decode;
pub mod quorum_object_decode;
pub mod resp;
pub mod ring_gossip;
pub mod ring_layout_compute;
pub mod ring_layout_decode;
pub mod ring_membership_decode;
pub mod ring_slot;
pub mod ring_tables;
pub mod store_open;
pub mod store_ops;
pub mod store_raw;
pub mod vclock_dotset_ops;
pub mod vclock_siblings_decode;
pub mod vclock_siblings_ops;
pub mod vclock_token;
pub mod vclock_vector_ops;
