//! The log on real files, in the system's temporary directory (`TMPDIR` names another disk).
//!
//! Keys of 16 bytes, values of 100 and 1024; everything fits into the page cache. With `--features peers` and
//! `peers-native`, other people's stores get and put the same, not synced, in the same run.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gramme_store::{FileDisk, Options, Read, Store};
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

const KEYS: u64 = 100_000;
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

/// A store of `KEYS` keys with values of so many bytes, all synced.
fn filled(value_bytes: usize) -> (TempDir, Store<FileDisk>) {
    let directory = tempfile::tempdir().expect("room for a store");
    let mut store = open(directory.path());
    let value = vec![b'v'; value_bytes];
    for n in 0..KEYS {
        store.put(slot(n), &key(n), &value, n).expect("room for a record");
        upkeep(&mut store, n);
    }
    store.sync().expect("a disk that syncs");
    (directory, store)
}

fn upkeep(store: &mut Store<FileDisk>, n: u64) {
    if n.is_multiple_of(UPKEEP) {
        store.maintain(1 << 20).expect("a disk that takes it");
    }
}

fn put(c: &mut Criterion) {
    let mut group = c.benchmark_group("store/put, overwriting");
    for bytes in [100, 1024] {
        group.throughput(Throughput::Elements(1));
        let (_directory, mut store) = filled(bytes);
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
        let (_directory, mut store) = filled(bytes);
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

/// What other stores have in common. A put need not survive a power cut; a get returns the value's length.
#[cfg(any(feature = "peers", feature = "peers-native"))]
trait Peer {
    fn put(&mut self, key: &[u8], value: &[u8]);
    fn get(&self, key: &[u8]) -> Option<usize>;
}

#[cfg(any(feature = "peers", feature = "peers-native"))]
fn peer(c: &mut Criterion, name: &str, mut peer: impl Peer) {
    let value = [b'v'; 100];
    (0..KEYS).for_each(|n| peer.put(&key(n), &value));
    let mut group = c.benchmark_group("store/peers, 100");
    group.throughput(Throughput::Elements(1));
    let mut n = 0;
    group.bench_function(BenchmarkId::new("put, overwriting, not synced", name), |bench| {
        bench.iter(|| {
            n = (n + 1) % KEYS;
            peer.put(&key(n), &value);
        });
    });
    group.bench_function(BenchmarkId::new("hit", name), |bench| {
        bench.iter(|| {
            n = (n + 61_803) % KEYS;
            assert_eq!(peer.get(black_box(&key(n))), Some(100));
        });
    });
    group.bench_function(BenchmarkId::new("miss", name), |bench| {
        bench.iter(|| {
            n += 1;
            assert_eq!(peer.get(black_box(&key(n + 2 * KEYS))), None);
        });
    });
    group.finish();
}

#[cfg(feature = "peers")]
mod rust_peers {
    use super::{Criterion, Peer, peer};
    use redb::ReadableDatabase;

    struct Redb(redb::Database);

    const TABLE: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("records");

    impl Peer for Redb {
        fn put(&mut self, key: &[u8], value: &[u8]) {
            let mut write = self.0.begin_write().expect("the only writer");
            write.set_durability(redb::Durability::None).expect("no savepoints here");
            write.open_table(TABLE).expect("its table").insert(key, value).expect("room for a record");
            write.commit().expect("room for a record");
        }

        fn get(&self, key: &[u8]) -> Option<usize> {
            let table = self.0.begin_read().map(|read| read.open_table(TABLE)).expect("a reader");
            table.expect("its table").get(key).expect("no damage").map(|value| value.value().len())
        }
    }

    struct Fjall(fjall::Keyspace);

    impl Peer for Fjall {
        fn put(&mut self, key: &[u8], value: &[u8]) {
            self.0.insert(key, value).expect("room for a record");
        }

        fn get(&self, key: &[u8]) -> Option<usize> {
            self.0.get(key).expect("no damage").map(|value| value.len())
        }
    }

    pub(crate) fn run(c: &mut Criterion) {
        let directory = tempfile::tempdir().expect("room for a store");
        let database = redb::Database::create(directory.path().join("redb")).expect("a new database");
        peer(c, "redb", Redb(database));
        let database =
            fjall::Database::builder(directory.path().join("fjall")).open().expect("a new database");
        let keyspace =
            database.keyspace("records", fjall::KeyspaceCreateOptions::default).expect("a new keyspace");
        peer(c, "fjall", Fjall(keyspace));
    }
}

#[cfg(feature = "peers-native")]
mod native_peers {
    use super::{Criterion, Peer, peer};
    use heed::types::Bytes;
    use heed::{Database, Env, EnvFlags, EnvOpenOptions};

    struct Lmdb(Env, Database<Bytes, Bytes>);

    impl Peer for Lmdb {
        fn put(&mut self, key: &[u8], value: &[u8]) {
            let mut write = self.0.write_txn().expect("the only writer");
            self.1.put(&mut write, key, value).expect("room for a record");
            write.commit().expect("room for a record");
        }

        fn get(&self, key: &[u8]) -> Option<usize> {
            let read = self.0.read_txn().expect("a reader");
            self.1.get(&read, key).expect("no damage").map(<[u8]>::len)
        }
    }

    pub(crate) fn run(c: &mut Criterion) {
        let directory = tempfile::tempdir().expect("room for a store");
        let mut options = EnvOpenOptions::new();
        options.map_size(1 << 30);
        // SAFETY: nobody else opens this new directory, and the file system is a local one; without syncs only a
        // power cut damages the file, and nobody opens it after one.
        let env =
            unsafe { options.flags(EnvFlags::NO_SYNC).open(directory.path()) }.expect("a new environment");
        let mut write = env.write_txn().expect("the only writer");
        let database = env.create_database(&mut write, None).expect("its table");
        write.commit().expect("room for a table");
        peer(c, "LMDB", Lmdb(env, database));
    }
}

#[cfg_attr(not(any(feature = "peers", feature = "peers-native")), expect(unused_variables))]
fn peers(c: &mut Criterion) {
    #[cfg(feature = "peers")]
    rust_peers::run(c);
    #[cfg(feature = "peers-native")]
    native_peers::run(c);
}

fn reopen(c: &mut Criterion) {
    let mut group = c.benchmark_group("store/open");
    group.sample_size(10).throughput(Throughput::Elements(KEYS));
    for bytes in [100, 1024] {
        let (directory, store) = filled(bytes);
        drop(store);
        group.bench_function(BenchmarkId::new(format!("{KEYS} records"), bytes), |bench| {
            let check = |store: Store<FileDisk>| assert_eq!(store.len(), KEYS);
            bench.iter_batched(|| (), |()| check(open(directory.path())), BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(800));
    targets = put, get, reopen, peers
}
criterion_main!(benches);
