//! Other people's stores, at the same keys and values.

use crate::{KEYS, VALUE, from_threads, key};
use criterion::{BenchmarkId, Criterion, Throughput};
use std::hint::black_box;
use std::path::Path;

/// What those that have a cache of their own may keep in it: all of these records. It is what redb and sled take unless they are told
/// otherwise; the others get as much.
#[cfg(any(feature = "peers", feature = "peers-rocksdb"))]
const CACHE_BYTES: usize = 1 << 30;

/// What stores have in common. A put need not survive a power cut; a durable put must. A get returns the value's length.
pub(crate) trait Peer: Sync {
    fn put(&self, key: &[u8], value: &[u8]);
    fn put_durable(&self, key: &[u8], value: &[u8]);
    fn get(&self, key: &[u8]) -> Option<usize>;
    /// Puts many keys: those for whom a commit for each takes long have a better way.
    fn fill(&self, keys: u64, value: &[u8]) {
        (0..keys).for_each(|n| self.put(&key(n), value));
    }
}

fn peer(c: &mut Criterion, name: &str, make: fn(&Path) -> Box<dyn Peer>) {
    for bytes in [100, 1024] {
        let directory = tempfile::tempdir().expect("room for a store");
        let peer = make(directory.path());
        let value = &VALUE[..bytes];
        peer.fill(KEYS, value);
        let mut group = c.benchmark_group("store/peers");
        group.throughput(Throughput::Elements(1));
        let mut n = 0;
        group.bench_function(
            BenchmarkId::new(format!("{name}: put, overwriting, not synced"), bytes),
            |bench| {
                bench.iter(|| {
                    n = (n + 1) % KEYS;
                    peer.put(&key(n), value);
                });
            },
        );
        group.bench_function(BenchmarkId::new(format!("{name}: hit"), bytes), |bench| {
            bench.iter(|| {
                n = (n + 61_803) % KEYS;
                assert_eq!(peer.get(black_box(&key(n))), Some(bytes));
            });
        });
        if bytes == 100 {
            group.bench_function(BenchmarkId::new(format!("{name}: miss"), bytes), |bench| {
                bench.iter(|| {
                    n += 1;
                    assert_eq!(peer.get(black_box(&key(n + 2 * KEYS))), None);
                });
            });
        }
        group.sample_size(10);
        for writers in [1, 8, 32] {
            let id = BenchmarkId::new(format!("{name}: durable, {writers} writers"), bytes);
            group.bench_function(id, |bench| {
                bench.iter_custom(|puts| from_threads(writers, puts, |n| peer.put_durable(&key(n), value)));
            });
        }
        group.finish();
    }
}

#[cfg(feature = "peers")]
mod rust_peers {
    use super::{CACHE_BYTES, Path, Peer};
    use redb::ReadableDatabase;

    struct Redb(redb::Database);

    const TABLE: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("records");

    impl Redb {
        fn put_with(&self, key: &[u8], value: &[u8], durability: redb::Durability) {
            let mut write = self.0.begin_write().expect("the only writer");
            write.set_durability(durability).expect("no savepoints here");
            write.open_table(TABLE).expect("its table").insert(key, value).expect("room for a record");
            write.commit().expect("room for a record");
        }
    }

    impl Peer for Redb {
        fn put(&self, key: &[u8], value: &[u8]) {
            self.put_with(key, value, redb::Durability::None);
        }

        fn put_durable(&self, key: &[u8], value: &[u8]) {
            self.put_with(key, value, redb::Durability::Immediate);
        }

        fn get(&self, key: &[u8]) -> Option<usize> {
            let table = self.0.begin_read().map(|read| read.open_table(TABLE)).expect("a reader");
            table.expect("its table").get(key).expect("no damage").map(|value| value.value().len())
        }

        fn fill(&self, keys: u64, value: &[u8]) {
            let mut write = self.0.begin_write().expect("the only writer");
            write.set_durability(redb::Durability::None).expect("no savepoints here");
            let mut table = write.open_table(TABLE).expect("its table");
            for n in 0..keys {
                table.insert(&crate::key(n)[..], value).expect("room for a record");
            }
            drop(table);
            write.commit().expect("room for all");
        }
    }

    struct Fjall(fjall::Database, fjall::Keyspace);

    impl Peer for Fjall {
        fn put(&self, key: &[u8], value: &[u8]) {
            self.1.insert(key, value).expect("room for a record");
        }

        fn put_durable(&self, key: &[u8], value: &[u8]) {
            self.put(key, value);
            self.0.persist(fjall::PersistMode::SyncData).expect("a disk that syncs");
        }

        fn get(&self, key: &[u8]) -> Option<usize> {
            self.1.get(key).expect("no damage").map(|value| value.len())
        }
    }

    struct Sled(sled::Db);

    impl Peer for Sled {
        fn put(&self, key: &[u8], value: &[u8]) {
            self.0.insert(key, value).expect("room for a record");
        }

        fn put_durable(&self, key: &[u8], value: &[u8]) {
            self.put(key, value);
            self.0.flush().expect("a disk that syncs");
        }

        fn get(&self, key: &[u8]) -> Option<usize> {
            self.0.get(key).expect("no damage").map(|value| value.len())
        }
    }

    pub(super) fn open_redb(path: &Path) -> Box<dyn Peer> {
        let database = redb::Database::builder().set_cache_size(CACHE_BYTES).create(path.join("redb"));
        Box::new(Redb(database.expect("a new database")))
    }

    pub(super) fn open_fjall(path: &Path) -> Box<dyn Peer> {
        let database = fjall::Database::builder(path).cache_size(CACHE_BYTES as u64).open();
        let database = database.expect("a new database");
        let keyspace = database.keyspace("records", fjall::KeyspaceCreateOptions::default);
        let keyspace = keyspace.expect("a new keyspace");
        Box::new(Fjall(database, keyspace))
    }

    pub(super) fn open_sled(path: &Path) -> Box<dyn Peer> {
        let database = sled::Config::new().path(path).cache_capacity(CACHE_BYTES as u64).open();
        Box::new(Sled(database.expect("a new database")))
    }
}

#[cfg(feature = "peers-native")]
mod native_peers {
    use super::{Path, Peer};
    use heed::types::Bytes;
    use heed::{Database, Env, EnvFlags, EnvOpenOptions};

    struct Lmdb {
        /// One that never syncs, and one of its own that always does.
        fast: (Env, Database<Bytes, Bytes>),
        durable: (Env, Database<Bytes, Bytes>),
    }

    fn open(path: &Path, flags: EnvFlags) -> (Env, Database<Bytes, Bytes>) {
        std::fs::create_dir_all(path).expect("room for a directory");
        let mut options = EnvOpenOptions::new();
        options.map_size(4 << 30);
        // SAFETY: nobody else opens this new directory, and the file system is a local one; without syncs only a
        // power cut damages the file, and nobody opens it after one.
        let env = unsafe { options.flags(flags).open(path) }.expect("a new environment");
        let mut write = env.write_txn().expect("the only writer");
        let database = env.create_database(&mut write, None).expect("its table");
        write.commit().expect("room for a table");
        (env, database)
    }

    fn put((env, database): &(Env, Database<Bytes, Bytes>), key: &[u8], value: &[u8]) {
        let mut write = env.write_txn().expect("the only writer");
        database.put(&mut write, key, value).expect("room for a record");
        write.commit().expect("room for a record");
    }

    impl Peer for Lmdb {
        fn put(&self, key: &[u8], value: &[u8]) {
            put(&self.fast, key, value);
        }

        fn put_durable(&self, key: &[u8], value: &[u8]) {
            put(&self.durable, key, value);
        }

        fn get(&self, key: &[u8]) -> Option<usize> {
            let read = self.fast.0.read_txn().expect("a reader");
            self.fast.1.get(&read, key).expect("no damage").map(<[u8]>::len)
        }

        fn fill(&self, keys: u64, value: &[u8]) {
            let (env, database) = &self.fast;
            let mut write = env.write_txn().expect("the only writer");
            for n in 0..keys {
                database.put(&mut write, &crate::key(n), value).expect("room for a record");
            }
            write.commit().expect("room for all");
        }
    }

    pub(super) fn open_lmdb(path: &Path) -> Box<dyn Peer> {
        let fast = open(&path.join("fast"), EnvFlags::NO_SYNC);
        Box::new(Lmdb { fast, durable: open(&path.join("durable"), EnvFlags::empty()) })
    }
}

#[cfg(feature = "peers-rocksdb")]
mod rocksdb_peer {
    use super::{CACHE_BYTES, Path, Peer};
    use rocksdb::{BlockBasedOptions, Cache, DB, DBCompressionType, Options, WriteOptions};

    struct Rocks(DB);

    impl Peer for Rocks {
        fn put(&self, key: &[u8], value: &[u8]) {
            self.0.put(key, value).expect("room for a record");
        }

        fn put_durable(&self, key: &[u8], value: &[u8]) {
            let mut options = WriteOptions::default();
            options.set_sync(true);
            self.0.put_opt(key, value, &options).expect("a disk that syncs");
        }

        fn get(&self, key: &[u8]) -> Option<usize> {
            self.0.get_pinned(key).expect("no damage").map(|value| value.len())
        }
    }

    pub(super) fn open_rocksdb(path: &Path) -> Box<dyn Peer> {
        let mut tables = BlockBasedOptions::default();
        tables.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES));
        // Of ten bits for each key, without which it looks for what is absent in its files.
        tables.set_bloom_filter(10.0, false);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&tables);
        // Nobody else here compresses, and these values would come to nothing.
        options.set_compression_type(DBCompressionType::None);
        Box::new(Rocks(DB::open(&options, path).expect("a new database")))
    }
}

/// A peer's name, and how it is made in a directory.
type Maker = (&'static str, fn(&Path) -> Box<dyn Peer>);

fn makers() -> Vec<Maker> {
    vec![
        #[cfg(feature = "peers-native")]
        ("LMDB", native_peers::open_lmdb),
        #[cfg(feature = "peers")]
        ("redb", rust_peers::open_redb),
        #[cfg(feature = "peers")]
        ("fjall", rust_peers::open_fjall),
        #[cfg(feature = "peers")]
        ("sled", rust_peers::open_sled),
        #[cfg(feature = "peers-rocksdb")]
        ("RocksDB", rocksdb_peer::open_rocksdb),
    ]
}

pub(crate) fn run(c: &mut Criterion) {
    makers().into_iter().for_each(|(name, make)| peer(c, name, make));
}

/// Each of them, in a folder of its own below `path`, when its turn comes.
pub(crate) fn open_each(path: &Path) -> impl Iterator<Item = (&'static str, Box<dyn Peer>)> {
    makers().into_iter().map(move |(name, make)| {
        let path = path.join(name);
        std::fs::create_dir_all(&path).expect("room for a directory");
        (name, make(&path))
    })
}
