//! The engine: requests per second through engines that hand each other messages in memory.
//!
//! One iteration is one client request with all that follows from it on every node, late answers included.

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gramme_benches::MemoryCluster;
use gramme_quorum::{Op, ReadOptions, Reply};
use std::time::Duration;

const KEYS: usize = 1024;

fn keys() -> Vec<Bytes> {
    (0..KEYS).map(|n| Bytes::from(format!("user:{n:08}"))).collect()
}

fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("quorum/(3,2,2), 100-byte values, one request at a time");
    group.throughput(Throughput::Elements(1));
    let keys = keys();
    let value = Bytes::from(vec![b'v'; 100]);
    for nodes in [1, 3, 5] {
        let mut cluster = MemoryCluster::new(nodes);
        let mut turn = 0;
        group.bench_function(BenchmarkId::new("set", nodes), |bench| {
            bench.iter(|| {
                turn += 1;
                let reply =
                    cluster.run(turn % nodes, MemoryCluster::set(keys[turn % KEYS].clone(), value.clone()));
                assert!(matches!(reply, Reply::Written { .. }));
            });
        });
        for key in &keys {
            cluster.run(0, MemoryCluster::set(key.clone(), value.clone()));
        }
        group.bench_function(BenchmarkId::new("get", nodes), |bench| {
            bench.iter(|| {
                turn += 1;
                let get = Op::Get { key: keys[turn % KEYS].clone(), options: ReadOptions::default() };
                let reply = cluster.run(turn % nodes, get);
                assert!(matches!(reply, Reply::Read(reading) if reading.siblings.len() == 1));
            });
        });
        group.bench_function(BenchmarkId::new("get of nothing", nodes), |bench| {
            bench.iter(|| {
                turn += 1;
                let get = Op::Get { key: Bytes::from_static(b"nobody"), options: ReadOptions::default() };
                let reply = cluster.run(turn % nodes, get);
                assert!(matches!(reply, Reply::Read(reading) if reading.siblings.is_empty()));
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(800));
    targets = requests
}
criterion_main!(benches);
