//! What the benchmarks of this package share.
//!
//! The benchmarks themselves are in `benches/`, one file for each layer; `cargo bench -p gramme-benches` runs them
//! all. What the whole server does is measured from outside, by `scripts/bench-redis`. Figures are in the README.

mod memory_cluster;
pub mod ratios;

pub use memory_cluster::MemoryCluster;
