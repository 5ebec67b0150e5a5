//! Many threads on one store.

use gramme_store::{Disk, DiskError, DiskFile, FileDisk, MemDisk, Options, SharedStore, Store, WriteError};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex};

/// A memory disk whose syncs are counted, and wait at a gate.
#[derive(Clone)]
struct Gated {
    disk: MemDisk,
    gate: Arc<(Mutex<bool>, Condvar)>,
    syncs: Arc<AtomicU64>,
}

#[derive(Clone)]
struct GatedFile<F> {
    file: F,
    gate: Arc<(Mutex<bool>, Condvar)>,
    syncs: Arc<AtomicU64>,
}

impl Gated {
    fn new() -> Self {
        let gate = Arc::new((Mutex::new(true), Condvar::new()));
        Self { disk: MemDisk::new(), gate, syncs: Arc::default() }
    }

    fn set_open(&self, open: bool) {
        *self.gate.0.lock().expect("no panic") = open;
        self.gate.1.notify_all();
    }

    fn wrap<F>(&self, file: F) -> GatedFile<F> {
        GatedFile { file, gate: self.gate.clone(), syncs: self.syncs.clone() }
    }
}

impl Disk for Gated {
    type File = GatedFile<<MemDisk as Disk>::File>;
    type Lock = <MemDisk as Disk>::Lock;

    fn lock(&self) -> Result<Self::Lock, DiskError> {
        self.disk.lock()
    }
    fn list(&self) -> Result<Vec<String>, DiskError> {
        self.disk.list()
    }
    fn open(&self, name: &str) -> Result<Self::File, DiskError> {
        Ok(self.wrap(self.disk.open(name)?))
    }
    fn create(&self, name: &str, bytes: u64) -> Result<Self::File, DiskError> {
        Ok(self.wrap(self.disk.create(name, bytes)?))
    }
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.disk.remove(name)
    }
    fn sync_dir(&self) -> Result<(), DiskError> {
        self.disk.sync_dir()
    }
}

impl<F: DiskFile> DiskFile for GatedFile<F> {
    fn size(&self) -> Result<u64, DiskError> {
        self.file.size()
    }
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize, DiskError> {
        self.file.read_at(offset, into)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.file.write_at(offset, bytes)
    }
    fn sync_data(&self) -> Result<(), DiskError> {
        let mut open = self.gate.0.lock().expect("no panic");
        while !*open {
            open = self.gate.1.wait(open).expect("no panic");
        }
        drop(open);
        self.syncs.fetch_add(1, Ordering::SeqCst);
        self.file.sync_data()
    }
    fn truncate(&self, bytes: u64) -> Result<(), DiskError> {
        self.file.truncate(bytes)
    }
}

#[test]
fn writers_that_wait_share_a_sync() {
    let disk = Gated::new();
    let (store, _) = SharedStore::open(disk.clone(), Options::new([1; 16])).expect("opens");
    disk.set_open(false);
    let before = disk.syncs.load(Ordering::SeqCst);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..32u16)
            .map(|n| {
                let store = &store;
                scope.spawn(move || store.put(n, b"key", b"value", 0).expect("durable"))
            })
            .collect();
        // All have written, none is durable: the first sync waits at the gate, the others for it.
        while store.len() < 32 {
            std::thread::yield_now();
        }
        assert_eq!(store.stats().unsynced_writes, 32);
        assert!(writers.iter().all(|writer| !writer.is_finished()), "nobody is told before it is durable");
        assert_eq!(store.get(31, b"key").expect("reads go past the sync"), Some((b"value".to_vec(), 0)));
        disk.set_open(true);
    });
    let syncs = disk.syncs.load(Ordering::SeqCst) - before;
    assert!((1..=2).contains(&syncs), "{syncs} syncs for 32 writers");
}

#[test]
fn a_failed_sync_is_told_to_every_writer_that_waited_for_it() {
    let disk = Gated::new();
    let (store, _) = SharedStore::open(disk.clone(), Options::new([1; 16])).expect("opens");
    disk.set_open(false);
    disk.disk.fail_next_syncs(1);
    let told = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8u16)
            .map(|n| {
                let store = &store;
                scope.spawn(move || store.put(n, b"key", b"value", 0))
            })
            .collect();
        while store.len() < 8 {
            std::thread::yield_now();
        }
        disk.set_open(true);
        writers.into_iter().map(|writer| writer.join().expect("no panic")).collect::<Vec<_>>()
    });
    assert!(told.iter().all(Result::is_err), "{told:?}");
    assert!(!store.writable());
    assert_eq!(store.put(0, b"more", b"", 0), Err(WriteError::Poisoned));
    assert!(store.get(3, b"key").expect("reads go on").is_some());
}

#[test]
fn everything_that_was_told_durable_survives_and_compaction_keeps_up() {
    let directory = std::env::temp_dir().join(format!("gramme-store-{}-shared", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    let open = || {
        let options = Options::new([3; 16]).with_segment_bytes(256 << 10);
        SharedStore::open(FileDisk::open(&directory).expect("a directory"), options).expect("opens")
    };
    let (store, _) = open();
    let start = Barrier::new(4);
    std::thread::scope(|scope| {
        for thread in 0..4u16 {
            let (store, start) = (store.clone(), &start);
            scope.spawn(move || {
                start.wait();
                for n in 0..2000u32 {
                    let key = (n % 50).to_le_bytes();
                    store
                        .put_unsynced(thread, &key, &n.to_le_bytes().repeat(100), u64::from(n))
                        .expect("room");
                    if n % 100 == 99 {
                        let durable = store.sync().expect("syncs");
                        assert!(durable.through().as_u64() > u64::from(n));
                    }
                }
                store.delete(thread, &7u32.to_le_bytes()).expect("room");
            });
        }
    });
    // More than 3 MB were written over 80 KB of keys. The upkeep thread gets its turn while these writes wait.
    let compacted = (0..10_000).any(|_| {
        store.put(5, b"another", b"write", 0).expect("room");
        store.stats().log_bytes < 2 << 20
    });
    assert!(compacted, "{:?}", store.stats());
    drop(store);
    let (store, recovery) = open();
    assert!(recovery.clean && recovery.damage.is_empty(), "{recovery:?}");
    for thread in 0..4u16 {
        for n in 0..50u32 {
            let last = 1950 + n;
            let expected = (n != 7).then(|| (last.to_le_bytes().repeat(100), u64::from(last)));
            assert_eq!(store.get(thread, &n.to_le_bytes()).expect("readable"), expected);
        }
    }
    drop(store);
    let (_, recovery) =
        Store::open(FileDisk::open(&directory).expect("a directory"), Options::new([4; 16])).expect("opens");
    assert!(recovery.clean);
    let _ = std::fs::remove_dir_all(&directory);
}
