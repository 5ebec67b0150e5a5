//! Owners of a key, and the computation of layouts.
//!
//! With `--features peers`, the ring of the crate `hashring` beside them.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gramme_ring::{Layout, Member, NodeId, Slot, Zone};
use std::hint::black_box;
use std::time::Duration;

fn id(n: u64) -> NodeId {
    NodeId(n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Members with weights 1, 2 and 4 in turn, in so many zones.
fn weighted(count: u64, zones: u64) -> Vec<Member> {
    let zone = |n| Zone::new(&format!("zone {}", n % zones)).expect("a short name");
    let weight = |n| [1, 2, 4][usize::try_from(n % 3).expect("small")];
    (0..count).map(|n| Member::new(id(n)).with_weight(weight(n)).with_zone(zone(n))).collect()
}

fn plain(count: u64) -> Vec<Member> {
    (0..count).map(|n| Member::new(id(n))).collect()
}

fn keys() -> Vec<String> {
    (0..4096).map(|n| format!("user:{:08}:cart", n * 7919)).collect()
}

fn owners(c: &mut Criterion) {
    let keys = keys();
    let mut group = c.benchmark_group("ring/owners of a 18-byte key, N = 3");
    group.throughput(Throughput::Elements(keys.len() as u64));
    for (nodes, partitions) in [(3, 256), (1000, 16_384)] {
        let layout = Layout::compute(3, partitions, &plain(nodes), None).expect("a plain layout");
        group.bench_function(BenchmarkId::new("layout", nodes), |bench| {
            bench.iter(|| {
                keys.iter().fold(0u64, |sum, key| {
                    let partition = layout.partition_of(Slot::of(black_box(key.as_bytes())));
                    layout.owners(partition).fold(sum, |sum, owner| sum ^ owner.0)
                })
            });
        });
        #[cfg(feature = "peers")]
        {
            let mut ring = hashring::HashRing::new();
            for n in 0..nodes {
                // As many points for each node as make its balance bearable.
                ring.batch_add((0..64).map(|point| (id(n).0, point)).collect());
            }
            group.bench_function(BenchmarkId::new("hashring, first owner only, 64 points", nodes), |bench| {
                bench.iter(|| {
                    keys.iter().fold(0, |sum, key| sum ^ ring.get(black_box(key)).map_or(0, |at| at.0))
                });
            });
        }
    }
    group.finish();
}

fn layouts(c: &mut Criterion) {
    let mut group = c.benchmark_group("ring/layout");
    group.sample_size(10);
    for (nodes, partitions, zones) in [(30, 1024, 3), (1000, 16_384, 7)] {
        let members = weighted(nodes, zones);
        let name = format!("{nodes} nodes, Q = {partitions}, {zones} zones");
        group.bench_function(BenchmarkId::new("first", &name), |bench| {
            bench.iter(|| Layout::compute(3, partitions, black_box(&members), None).expect("a layout"));
        });
        let before = Layout::compute(3, partitions, &members, None).expect("a layout");
        let joined = weighted(nodes + 1, zones);
        group.bench_function(BenchmarkId::new("join", &name), |bench| {
            bench.iter(|| {
                Layout::compute(3, partitions, black_box(&joined), Some(&before)).expect("a layout")
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(800));
    targets = owners, layouts
}
criterion_main!(benches);
