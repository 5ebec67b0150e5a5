//! Owners of a key, and the computation of layouts.
//!
//! With `--features peers`, the crates for this job beside them, and at the end the ratios of that run, held against what
//! they are to reach: `lfchring`, `ringlet-hash` and `consistent_hash_ring` walk a
//! ring of points; `hashring` copies its whole ring to find more than one owner and is measured finding one. Rendezvous
//! hashing scores every node for every key and is no peer at 1,000 nodes.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group};
use gramme_benches::ratios::{self, Comparison, Target};
use gramme_ring::token::{TokenRing, hash_key};
use gramme_ring::{Layout, Member, NodeId, Slot, Zone};
use std::hint::black_box;
use std::time::{Duration, SystemTime};

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

const OWNERS: &str = "ring/owners of a 18-byte key, N = 3";
const KEYS: u64 = 4096;
/// The clusters in which owners are looked up: nodes and partitions.
const CLUSTERS: [(u64, u32); 2] = [(3, 256), (1000, 16_384)];

fn keys() -> Vec<String> {
    (0..KEYS).map(|n| format!("user:{:08}:cart", n * 7919)).collect()
}

fn owners(c: &mut Criterion) {
    let keys = keys();
    let mut group = c.benchmark_group(OWNERS);
    group.throughput(Throughput::Elements(KEYS));
    for (nodes, partitions) in CLUSTERS {
        let layout = Layout::compute(3, partitions, &plain(nodes), None).expect("a plain layout");
        group.bench_function(BenchmarkId::new("layout", nodes), |bench| {
            bench.iter(|| {
                keys.iter().fold(0u64, |sum, key| {
                    let partition = layout.partition_of(Slot::of(black_box(key.as_bytes())));
                    layout.owners(partition).fold(sum, |sum, owner| sum ^ owner.0)
                })
            });
        });
        tokens(&mut group, &keys, nodes);
        #[cfg(feature = "peers")]
        peers(&mut group, &keys, nodes);
    }
    group.finish();
}

type Group<'a> = BenchmarkGroup<'a, WallTime>;

/// Points of each node in rings of points: as many as make their balance bearable.
const POINTS: u32 = 64;

/// Strategy 1, the same data structure as that of the peers.
fn tokens(group: &mut Group<'_>, keys: &[String], nodes: u64) {
    let ring = TokenRing::random(POINTS, 7, &plain(nodes)).expect("a plain ring");
    group.bench_function(BenchmarkId::new("token ring, 64 points", nodes), |bench| {
        bench.iter(|| {
            keys.iter().fold(0u64, |sum, key| {
                let mut owners = [NodeId(0); 3];
                let position = hash_key(black_box(key.as_bytes()));
                ring.table().owners(position, &mut owners).iter().fold(sum, |sum, owner| sum ^ owner.0)
            })
        });
    });
    group.bench_function(BenchmarkId::new("token ring, 64 points, spread over zones", nodes), |bench| {
        bench.iter(|| {
            keys.iter().fold(0u64, |sum, key| {
                let position = hash_key(black_box(key.as_bytes()));
                let owners: [NodeId; 3] = ring.table().replicas(position).expect("enough nodes");
                owners.iter().fold(sum, |sum, owner| sum ^ owner.0)
            })
        });
    });
}

#[cfg(feature = "peers")]
fn peers(group: &mut Group<'_>, keys: &[String], nodes: u64) {
    let mut run = |name: &str, find: &dyn Fn(&String) -> u64| {
        group.bench_function(BenchmarkId::new(name, nodes), |bench| {
            bench.iter(|| keys.iter().fold(0u64, |sum, key| sum ^ find(black_box(key))));
        });
    };

    let ids: Vec<std::sync::Arc<Vec<u8>>> =
        (0..nodes).map(|n| id(n).0.to_le_bytes().to_vec().into()).collect();
    let ring = lfchring::HashRing::with_nodes(u16::try_from(POINTS).expect("few"), 3, &ids).expect("a ring");
    run("lfchring, 64 points", &|key| {
        let owners = ring.nodes_for_key(&key.as_bytes()).expect("a ring with nodes");
        owners.iter().fold(0, |sum, owner| sum ^ u64::from(owner[0]))
    });

    let ids: Vec<u64> = (0..nodes).map(|n| id(n).0).collect();
    let build_hasher = std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default();
    let config = ringlet_hash::RingConfig { virtual_node_base_count: POINTS as usize, build_hasher };
    let mut ring = ringlet_hash::ConsistentRing::try_new(config).expect("a ring");
    for id in &ids {
        ring.add_node(id, &id.to_string(), 1).expect("a node");
    }
    run("ringlet-hash, 64 points", &|key| {
        ring.get_nodes(key, 3).into_iter().fold(0, |sum, owner| sum ^ owner)
    });

    let ring = consistent_hash_ring::RingBuilder::default().vnodes(POINTS as usize).nodes(&ids).build();
    run("consistent_hash_ring, 64 points", &|key| {
        ring.replicas(key).take(3).fold(0, |sum, owner| sum ^ owner)
    });

    let mut ring = hashring::HashRing::new();
    ring.batch_add(ids.iter().flat_map(|&id| (0..POINTS).map(move |point| (id, point))).collect());
    run("hashring, first owner only, 64 points", &|key| ring.get(key).map_or(0, |at| at.0));
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
    config = Criterion::default().output_directory(&ratios::folder()).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(800));
    targets = owners, layouts
}

fn main() {
    let since = SystemTime::now();
    benches();
    Criterion::default().configure_from_args().final_summary();
    // What is to be reached is said of layouts, in the larger cluster.
    let layout = &[("layout", Some(Target { floor: 60.0, goal: 30.0 }))][..];
    let token_ring = &[("token ring, 64 points", None)];
    let [small, large] = CLUSTERS.map(|(nodes, _)| [nodes]);
    let times = Some(Target { floor: 3.0, goal: 5.0 });
    for (sizes, ours, times) in [
        (&large, layout, times),
        (&large, token_ring, None),
        (&small, &[("layout", None)], None),
        (&small, token_ring, None),
    ] {
        let comparison = Comparison {
            groups: &[OWNERS],
            sizes,
            unit: "nodes",
            each: KEYS,
            ours,
            peers: &[
                ("consistent_hash_ring, 64 points", times),
                ("lfchring, 64 points", times),
                ("ringlet-hash, 64 points", times),
                ("hashring, first owner only, 64 points", times),
            ],
        };
        comparison.print(since);
    }
}
