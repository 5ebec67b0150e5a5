//! The log on real files, in the system's temporary directory (`TMPDIR` names another disk).
//!
//! Keys of 16 bytes, values of 100 and 1024; everything fits into the page cache. Beside the store stand the limits of what it
//! is made of (`raw`: write, pread, fdatasync), and with `--features peers,peers-native` (and `peers-rocksdb`) other
//! people's stores, which get and put the same in the same run. `figures` prints what criterion has no form for:
//! memory per key, latency tails, amplification.

mod counted;
mod figures;
#[cfg(any(feature = "peers", feature = "peers-native", feature = "peers-rocksdb"))]
mod peers;
mod raw;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gramme_store::{Disk, FileDisk, Options, Read, SharedStore, Store};
use gramme_store_mapped::MappedDisk;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const KEYS: u64 = 200_000;
/// Puts between two steps of upkeep, as a server makes them.
const UPKEEP: u64 = 256;

fn key(n: u64) -> [u8; 16] {
    let mut key = *b"user____________";
    key[8..].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key
}

fn slot(n: u64) -> u16 {
    u16::try_from(n % 16_384).expect("below 16384")
}

fn open(directory: &Path) -> Store<FileDisk> {
    let disk = FileDisk::open(directory).expect("a directory of ours");
    Store::open(disk, Options::new([7; 16])).expect("a store of ours").0
}

/// A store of so many keys with values of so many bytes, all synced.
fn filled(keys: u64, value_bytes: usize) -> (TempDir, Store<FileDisk>) {
    let directory = tempfile::tempdir().expect("room for a store");
    let mut store = open(directory.path());
    fill(&mut store, keys, value_bytes);
    (directory, store)
}

/// The same on mapped segments.
fn filled_mapped(keys: u64, value_bytes: usize) -> (TempDir, Store<MappedDisk>) {
    let directory = tempfile::tempdir().expect("room for a store");
    let mut store = open_mapped(directory.path());
    fill(&mut store, keys, value_bytes);
    (directory, store)
}

fn open_mapped(directory: &Path) -> Store<MappedDisk> {
    // SAFETY: nobody else writes to this new directory.
    let disk = unsafe { MappedDisk::open(directory) }.expect("a directory of ours");
    Store::open(disk, Options::new([7; 16])).expect("a store of ours").0
}

fn fill<D: Disk>(store: &mut Store<D>, keys: u64, value_bytes: usize) {
    let value = vec![b'v'; value_bytes];
    for n in 0..keys {
        store.put(slot(n), &key(n), &value, n).expect("room for a record");
        upkeep(store, n);
    }
    store.sync().expect("a disk that syncs");
}

fn upkeep<D: Disk>(store: &mut Store<D>, n: u64) {
    if n.is_multiple_of(UPKEEP) {
        store.maintain(1 << 20).expect("a disk that takes it");
    }
}

fn put(c: &mut Criterion) {
    let mut group = c.benchmark_group("store/put, overwriting");
    for bytes in [100, 1024] {
        group.throughput(Throughput::Elements(1));
        let (_directory, mut store) = filled(KEYS, bytes);
        let value = vec![b'w'; bytes];
        let mut n = 0;
        group.bench_function(BenchmarkId::new("not synced", bytes), |bench| {
            bench.iter(|| {
                n += 1;
                upkeep(&mut store, n);
                store.put(slot(n % KEYS), &key(n % KEYS), &value, n).expect("room for a record")
            });
        });
        for batch in [1, 32] {
            group.throughput(Throughput::Elements(batch));
            group.bench_function(BenchmarkId::new(format!("a sync for each {batch}"), bytes), |bench| {
                bench.iter(|| {
                    for _ in 0..batch {
                        n += 1;
                        upkeep(&mut store, n);
                        store.put(slot(n % KEYS), &key(n % KEYS), &value, n).expect("room for a record");
                    }
                    let job = store.begin_sync().expect("something was put");
                    store.complete_sync(job.run()).expect("a disk that syncs")
                });
            });
        }
    }
    group.finish();
}

fn get(c: &mut Criterion) {
    let mut group = c.benchmark_group("store/get");
    group.throughput(Throughput::Elements(1));
    for bytes in [100, 1024] {
        let (_directory, mut store) = filled(KEYS, bytes);
        let mut n = 0u64;
        group.bench_function(BenchmarkId::new("hit in the page cache", bytes), |bench| {
            bench.iter(|| {
                // A stride that is coprime to their number visits all keys in no order that a disk likes.
                n = (n + 61_803) % KEYS;
                match store.get(slot(n), &key(n)).expect("no damage") {
                    Read::Value { value, .. } => value.len(),
                    other => panic!("{other:?}"),
                }
            });
        });
        group.bench_function(BenchmarkId::new("hit, seen in place", bytes), |bench| {
            bench.iter(|| {
                n = (n + 61_803) % KEYS;
                store
                    .get_with(slot(n), &key(n), |value| value.bytes.len())
                    .expect("no damage")
                    .expect("there")
            });
        });
        if bytes == 100 {
            group.bench_function("miss", |bench| {
                bench.iter(|| {
                    n += 1;
                    let found = store.get(slot(n), black_box(&key(n + 2 * KEYS))).expect("no damage");
                    assert!(matches!(found, Read::Absent));
                });
            });
        }
    }
    group.finish();
}

/// Writers that each wait until their put is durable.
fn durable(c: &mut Criterion) {
    for bytes in [100, 1024] {
        let mut group = c.benchmark_group("store/put, durable");
        group.sample_size(10);
        for writers in [1, 8, 32] {
            let directory = tempfile::tempdir().expect("room for a store");
            let disk = FileDisk::open(directory.path()).expect("a directory of ours");
            let (store, _) = SharedStore::open(disk, Options::new([7; 16])).expect("a store of ours");
            group.throughput(Throughput::Elements(1));
            group.bench_function(BenchmarkId::new(format!("{writers} writers"), bytes), |bench| {
                bench.iter_custom(|puts| {
                    from_threads(writers, puts, |n| {
                        store.put(slot(n), &key(n), &VALUE[..bytes], n).expect("a disk that syncs");
                    })
                });
            });
        }
        group.finish();
    }
}

/// The longest value of these benchmarks.
static VALUE: [u8; 1024] = [b'v'; 1024];

/// Makes so many puts from so many threads; answers how long it took.
fn from_threads(threads: u64, puts: u64, put: impl Fn(u64) + Sync) -> Duration {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let put = &put;
            scope.spawn(move || (thread..puts).step_by(usize::try_from(threads).expect("few")).for_each(put));
        }
    });
    begun.elapsed()
}

#[cfg_attr(
    not(any(feature = "peers", feature = "peers-native", feature = "peers-rocksdb")),
    expect(clippy::needless_pass_by_ref_mut, unused_variables)
)]
fn peers(c: &mut Criterion) {
    #[cfg(any(feature = "peers", feature = "peers-native", feature = "peers-rocksdb"))]
    peers::run(c);
}

fn reopen(c: &mut Criterion) {
    let mut group = c.benchmark_group("store/open");
    group.sample_size(10);
    for bytes in [100, 1024] {
        let (directory, store) = filled(KEYS, bytes);
        store.close().expect("a disk that syncs");
        for (how, index_files, threads) in [
            ("index files", true, 1),
            ("index files, 2 threads", true, 2),
            ("scan", false, 1),
            ("scan, 2 threads", false, 2),
        ] {
            let open = || {
                let disk = FileDisk::open(directory.path()).expect("a directory of ours");
                let options = Options::new([7; 16]).with_index_files(index_files).with_open_threads(threads);
                Store::open(disk, options).expect("a store of ours")
            };
            let log = open().0.stats().log_bytes;
            group.throughput(if index_files { Throughput::Elements(KEYS) } else { Throughput::Bytes(log) });
            group.bench_function(BenchmarkId::new(how, bytes), |bench| {
                let check = |store: Store<FileDisk>| assert_eq!(store.len(), KEYS);
                bench.iter_batched(|| (), |()| check(open().0), BatchSize::PerIteration);
            });
        }
    }
    group.finish();
}

fn raw_limits(c: &mut Criterion) {
    raw::run(c);
}

fn printed(_: &mut Criterion) {
    figures::run();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(600)).sample_size(20);
    targets = printed, raw_limits, put, get, peers, durable, reopen
}
criterion_main!(benches);
