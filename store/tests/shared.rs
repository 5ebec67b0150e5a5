//! Many threads on one store.

#[path = "common/watched.rs"]
mod watched;

use gramme_store::{FileDisk, MemDisk, Options, SharedStore, Store, ValueRef, WriteError};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};
use watched::{Op, Watched};

/// A memory disk whose syncs are counted, and wait at a gate.
#[derive(Clone)]
struct Gated {
    disk: MemDisk,
    gate: Arc<(Mutex<bool>, Condvar)>,
    syncs: Arc<AtomicU64>,
    panics: Arc<AtomicBool>,
}

impl Gated {
    fn new() -> Self {
        let gate = Arc::new((Mutex::new(true), Condvar::new()));
        Self { disk: MemDisk::new(), gate, syncs: Arc::default(), panics: Arc::default() }
    }

    fn set_open(&self, open: bool) {
        *self.gate.0.lock().expect("no panic") = open;
        self.gate.1.notify_all();
    }

    fn watched(&self) -> Watched<MemDisk> {
        let Self { disk, gate, syncs, panics } = self.clone();
        Watched::new(disk, move |op| {
            if let Op::Sync(_) = op {
                let mut open = gate.0.lock().expect("no panic");
                while !*open {
                    open = gate.1.wait(open).expect("no panic");
                }
                drop(open);
                assert!(!panics.load(Ordering::SeqCst), "a disk that panics");
                syncs.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        })
    }
}

#[test]
fn writers_that_wait_share_a_sync() {
    let disk = Gated::new();
    let (store, _) = SharedStore::open(disk.watched(), Options::new([1; 16])).expect("opens");
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
        let found = store.get(31, b"key").expect("reads go past the sync").expect("it is there");
        assert_eq!((found.bytes.as_slice(), found.tag), (b"value".as_slice(), 0));
        disk.set_open(true);
    });
    let syncs = disk.syncs.load(Ordering::SeqCst) - before;
    assert!((1..=2).contains(&syncs), "{syncs} syncs for 32 writers");
}

#[test]
fn a_failed_sync_is_told_to_every_writer_that_waited_for_it() {
    let disk = Gated::new();
    let (store, _) = SharedStore::open(disk.watched(), Options::new([1; 16])).expect("opens");
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
            let found = store.get(thread, &n.to_le_bytes()).expect("readable");
            assert_eq!(found.map(|found| (found.bytes, found.tag)), expected);
        }
    }
    drop(store);
    let (_, recovery) =
        Store::open(FileDisk::open(&directory).expect("a directory"), Options::new([4; 16])).expect("opens");
    assert!(recovery.clean);
    let _ = std::fs::remove_dir_all(&directory);
}

#[test]
fn a_disk_that_panics_takes_one_writer_with_it_and_the_others_are_told() {
    let disk = Gated::new();
    let (store, _) = SharedStore::open(disk.watched(), Options::new([1; 16])).expect("opens");
    disk.set_open(false);
    disk.panics.store(true, Ordering::SeqCst);
    let (told, tell) = mpsc::channel();
    let writers: Vec<_> = (0..8u16)
        .map(|n| {
            let (store, told) = (store.clone(), told.clone());
            std::thread::spawn(move || {
                let result = store.put(n, b"key", b"value", 0);
                told.send(result).expect("somebody listens");
            })
        })
        .collect();
    while store.len() < 8 {
        std::thread::yield_now();
    }
    disk.set_open(true);
    for _ in 0..7 {
        let result = tell.recv_timeout(Duration::from_secs(60)).expect("nobody waits for ever");
        assert_eq!(result, Err(WriteError::Poisoned));
    }
    let panicked = writers.into_iter().filter_map(|writer| writer.join().err()).count();
    assert_eq!(panicked, 1);
    assert!(store.get(3, b"key").expect("reads go on").is_some());
}

#[test]
fn values_are_shown_in_place_with_their_expiry_and_the_store_may_be_used_meanwhile() {
    for buffer in [0, 1 << 16] {
        let options = Options::new([1; 16]).with_write_buffer(buffer);
        let (store, _) = SharedStore::open(MemDisk::new(), options).expect("opens");
        store.put_expiring_unsynced(1, b"key", b"value", 7, 100).expect("room");
        store.put_unsynced(1, b"other", b"", 8).expect("room");
        let see = |found: ValueRef<'_>| {
            (found.bytes.to_vec(), found.tag, found.expires, store.tag(1, b"other"), store.slot_len(1))
        };
        let shown = Some((b"value".to_vec(), 7, Some(100), Some(8), 2));
        assert_eq!(store.get_with(1, b"key", see).expect("readable"), shown);
        let found = store.get(1, b"key").expect("readable").expect("it has not expired");
        assert_eq!((found.bytes.as_slice(), found.tag, found.expires), (b"value".as_slice(), 7, Some(100)));
        assert_eq!(store.get(1, b"other").expect("readable").map(|found| found.expires), Some(None));
        store.sync().expect("syncs");
        assert_eq!(store.get_with(1, b"key", see).expect("readable"), shown);
        store.set_time(100);
        assert_eq!(store.get(1, b"key"), Ok(None));
        assert_eq!(store.get_with(1, b"key", see), Ok(None));
        assert_eq!(store.get_with(2, b"key", see), Ok(None));
    }
}

#[test]
fn what_is_not_waited_for_is_durable_after_a_sync() {
    let disk = MemDisk::new();
    let (store, _) = SharedStore::open(disk.clone(), Options::new([1; 16])).expect("opens");
    for slot in [1, 2] {
        store.put(slot, b"key", b"value", 0).expect("room");
    }
    let deleted = store.delete_unsynced(1, b"key").expect("room");
    let dropped = store.drop_slot_unsynced(2).expect("room");
    assert!(!store.durable().covers(deleted) && store.position() == dropped);
    assert_eq!(store.stats().unsynced_writes, 2);
    let durable = store.sync().expect("syncs");
    assert!(durable.covers(dropped) && store.durable() == durable);
    let (store, _) = Store::open(disk.crash_image(1), Options::new([2; 16])).expect("opens");
    assert!(store.is_empty());
}

#[test]
fn the_last_handle_closes_and_says_what_went_wrong() {
    let disk = MemDisk::new();
    let (store, _) = SharedStore::open(disk.clone(), Options::new([1; 16])).expect("opens");
    store.put_unsynced(0, b"key", b"value", 0).expect("room");
    let other = store.clone();
    assert_eq!(other.close(), Ok(false));
    assert_eq!(store.close(), Ok(true));
    let mut told = 0;
    let count = |_| told += 1;
    let (store, recovery) =
        SharedStore::open_with(disk.clone(), Options::new([2; 16]), count).expect("opens");
    assert!(recovery.clean && told > 0);
    store.put_unsynced(0, b"key", b"later", 0).expect("room");
    disk.fail_next_syncs(u64::MAX);
    assert!(matches!(store.close(), Err(WriteError::Disk(_))));
    disk.fail_next_syncs(0);
    let (_, recovery) = SharedStore::open(disk, Options::new([3; 16])).expect("its lock is free");
    assert!(!recovery.clean);
}

#[test]
fn upkeep_can_be_done_by_hand() {
    let disk = MemDisk::new();
    let options = Options::new([1; 16]).with_segment_bytes(16 << 10).with_index_files(false);
    let (store, _) = SharedStore::open(disk.clone(), options).expect("opens");
    // Its thread's first round is done, or not needed any more.
    store.maintain().expect("there is nothing to do");
    // Too little for the thread to look at.
    for n in 0..1000u32 {
        store.put_unsynced(0, &(n % 20).to_le_bytes(), &[1; 300], 0).expect("room");
    }
    let before = store.stats().log_bytes;
    assert!(before > 300_000, "{before}");
    let freed = store.maintain().expect("maintains");
    let after = store.stats().log_bytes;
    assert!(freed > 250_000 && after < 50_000, "{freed} {after}");
    assert_eq!(store.maintain(), Ok(0));
    assert_eq!(store.upkeep_error(), None);
}

#[test]
fn a_full_disk_is_emptied_and_filled_again() {
    for (all, waits) in [(false, false), (false, true), (true, false), (true, true)] {
        let disk = MemDisk::new();
        disk.set_capacity(Some(4 << 20));
        let options = Options::new([1; 16]).with_segment_bytes(64 << 10);
        let (store, _) = SharedStore::open(disk, options).expect("opens");
        // What finds no room is made again until upkeep, which nobody calls, has made some.
        let until_it_goes = |write: &dyn Fn() -> Result<(), WriteError>| {
            let begun = Instant::now();
            loop {
                match write() {
                    Ok(()) => return,
                    Err(WriteError::NoSpace) if begun.elapsed() < Duration::from_secs(60) => {
                        std::thread::yield_now();
                    }
                    Err(error) => {
                        let (upkeep, by_hand) = (store.upkeep_error(), store.maintain());
                        panic!(
                            "{error}: all {all}, waits {waits}, {upkeep:?}, {by_hand:?}, {:?}",
                            store.stats()
                        )
                    }
                }
            }
        };
        let mut stored = 0u32;
        loop {
            let put = || store.put_unsynced(0, &stored.to_le_bytes(), &[1; 1000], 1);
            // Upkeep gives back what segments have past their ends.
            if put().is_err() && (store.maintain().is_err() || put().is_err()) {
                break;
            }
            stored += 1;
        }
        assert!(stored > 3000, "{stored}");
        for round in 0..3 {
            // Later on upkeep may have been at what was dropped.
            if round == 0 {
                assert_eq!(store.put(0, &stored.to_le_bytes(), &[9; 1000], 0), Err(WriteError::NoSpace));
            }
            for n in (0..stored).filter(|n| all || n % 10 != 0) {
                let key = n.to_le_bytes();
                if waits {
                    until_it_goes(&|| store.delete(0, &key).map(drop));
                } else {
                    until_it_goes(&|| store.delete_unsynced(0, &key).map(drop));
                }
            }
            for n in 0..stored * 4 / 5 {
                let key = n.to_le_bytes();
                until_it_goes(&|| store.put_unsynced(0, &key, &[round; 1000], 0).map(drop));
            }
            store.sync().expect("syncs");
            for n in 0..stored * 4 / 5 {
                let found = store.get(0, &n.to_le_bytes()).expect("readable").expect("it was put");
                assert_eq!(found.bytes, [round; 1000]);
            }
            // Full again.
            while store.put_unsynced(1, &stored.to_le_bytes(), &[1; 1000], 1).is_ok() {
                stored += 1;
            }
            store.drop_slot(1).expect("room");
        }
    }
}

#[test]
fn a_disk_that_panics_in_a_write_is_written_to_no_more() {
    // In a put, the making of a segment, a sync's watermark, a step of compaction: whatever is done with the store locked.
    for buffer in [0, 4096] {
        for at in 0..120 {
            let (disk, left) = (MemDisk::new(), Arc::new(AtomicU64::new(u64::MAX)));
            let watched = Watched::new(disk.clone(), {
                let left = left.clone();
                move |op| {
                    // Index files are written without the lock, and are nothing to rely on.
                    if let Op::Write(name, _) | Op::Create(name) | Op::Rename(name) | Op::Remove(name) = op
                        && !name.ends_with(".idx")
                    {
                        assert!(left.fetch_sub(1, Ordering::SeqCst) != 0, "a disk that panics");
                    }
                    Ok(())
                }
            });
            let options = Options::new([1; 16]).with_segment_bytes(4096).with_write_buffer(buffer);
            let (store, _) = SharedStore::open(watched, options).expect("opens");
            left.store(at, Ordering::SeqCst);
            let (mut acknowledged, mut panics) = ([0u8; 8], 0);
            for n in 1..100u8 {
                let key = n % 8;
                let put = || store.put(0, &[key], &[n; 200], 0).map(|_| ());
                let act = || if n % 9 == 0 { store.maintain().and_then(|_| put()) } else { put() };
                match std::panic::catch_unwind(std::panic::AssertUnwindSafe(act)) {
                    Ok(Ok(())) => {
                        assert_eq!(panics, 0, "operation {at}: nothing is acknowledged after a panic");
                        acknowledged[usize::from(key)] = n;
                    }
                    Ok(Err(error)) => assert_eq!(error, WriteError::Poisoned, "operation {at}"),
                    Err(_) => panics += 1,
                }
            }
            // The upkeep thread may have been the one that it hit.
            assert!(panics <= 1, "operation {at}: {panics}");
            left.store(u64::MAX, Ordering::SeqCst);
            assert!(store.get(0, &[7]).is_ok(), "reads go on");
            drop(store);
            disk.kill();
            let (mut store, recovery) = Store::open(disk, options_of_a_look()).expect("opens");
            assert!(recovery.damage.is_empty(), "operation {at}: {recovery:?}");
            for (key, n) in (0..).zip(acknowledged) {
                let found = store.get_with(0, &[key], |value| value.bytes[0]).expect("readable");
                assert!(
                    found.unwrap_or(0) >= n,
                    "operation {at}: key {key} has {found:?}, {n} was acknowledged"
                );
            }
        }
    }
}

/// Waits for what another thread is to do.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_disk_that_panics_while_a_segment_is_sealed_stops_writing_and_says_so() {
    let panics = Arc::new(AtomicBool::new(false));
    let disk = Watched::new(MemDisk::new(), {
        let panics = panics.clone();
        move |op| {
            if let Op::Write(name, _) = op
                && name.ends_with(".idx")
            {
                assert!(panics.swap(true, Ordering::SeqCst), "a disk that panics once");
            }
            Ok(())
        }
    });
    let (store, _) =
        SharedStore::open(disk, Options::new([1; 16]).with_segment_bytes(64 << 10)).expect("opens");
    // Upkeep comes after a megabyte.
    let mut refused = None;
    for n in 0..4000u32 {
        if let Err(error) = store.put_unsynced(0, &n.to_le_bytes(), &[1; 300], 1).and_then(|_| store.sync()) {
            refused = Some(error);
            break;
        }
    }
    until("a segment is sealed", || panics.load(Ordering::SeqCst));
    until("upkeep says so", || store.upkeep_error() == Some(WriteError::Poisoned));
    assert!(matches!(refused, None | Some(WriteError::Poisoned)), "{refused:?}");
    assert_eq!(store.put(0, b"more", b"value", 1), Err(WriteError::Poisoned), "there is no upkeep any more");
    assert!(store.get(0, &1u32.to_le_bytes()).expect("reads go on").is_some());
}

#[test]
fn a_disk_that_panics_in_the_sync_of_a_merge_stops_writing_and_says_so() {
    let (writers, panics) = (std::thread::current().id(), Arc::new(AtomicBool::new(false)));
    // Of what upkeep writes, the output of a merge alone is a segment with more than a header.
    let written = Mutex::new(BTreeMap::<String, u32>::new());
    let disk = Watched::new(MemDisk::new(), {
        let panics = panics.clone();
        move |op| {
            let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
            match op {
                _ if std::thread::current().id() == writers => {}
                Op::Write(name, _) if name.ends_with(".seg") => {
                    *written.entry(name.to_owned()).or_default() += 1;
                }
                Op::Sync(name) if written.get(name).is_some_and(|writes| *writes > 1) => {
                    written.clear();
                    panics.store(true, Ordering::SeqCst);
                    panic!("a disk that panics once");
                }
                _ => {}
            }
            Ok(())
        }
    });
    let (store, _) =
        SharedStore::open(disk, Options::new([1; 16]).with_segment_bytes(64 << 10)).expect("opens");
    let mut n = 0u32;
    until("a merge is synced", || {
        n += 1;
        // Every tenth key stays.
        let key = if n.is_multiple_of(10) { n } else { 0 };
        let _ = store.put_unsynced(0, &key.to_le_bytes(), &[1; 1000], 1);
        if n.is_multiple_of(100) {
            let _ = store.sync();
        }
        panics.load(Ordering::SeqCst)
    });
    until("upkeep says so", || store.upkeep_error() == Some(WriteError::Poisoned));
    assert_eq!(store.put(0, b"more", b"value", 1), Err(WriteError::Poisoned), "there is no upkeep any more");
}

fn options_of_a_look() -> Options {
    Options::new([2; 16]).with_segment_bytes(4096)
}

/// Callers whose writes the sync under way covers, and others that come meanwhile: all return, whoever is woken first, and nobody else
/// has to come for that.
#[test]
fn who_waits_for_the_sync_under_way_keeps_nobody_waiting() {
    for late_puts in [0, 1, 2] {
        for _ in 0..60 {
            let disk = Gated::new();
            let (store, _) = SharedStore::open(disk.watched(), Options::new([1; 16])).expect("opens");
            disk.set_open(false);
            let (done, all) = mpsc::channel();
            let spawn = |act: Box<dyn FnOnce(&SharedStore<_>) + Send>| {
                let (store, done) = (store.clone(), done.clone());
                std::thread::spawn(move || {
                    act(&store);
                    done.send(()).expect("somebody listens");
                });
            };
            spawn(Box::new(|store| assert!(store.put(1, b"first", b"", 0).is_ok())));
            until("the sync is at the gate", || store.stats().unsynced_writes == 1);
            for _ in 0..2 {
                spawn(Box::new(|store| assert!(store.sync().is_ok())));
                spawn(Box::new(|store| assert!(store.delete(2, b"absent").is_ok())));
            }
            for n in 0..late_puts {
                spawn(Box::new(move |store| assert!(store.put(n, b"late", b"", 0).is_ok())));
            }
            until("all have written", || store.len() == 1 + u64::from(late_puts));
            (0..20).for_each(|_| std::thread::yield_now());
            disk.set_open(true);
            for _ in 0..5 + late_puts {
                all.recv_timeout(Duration::from_secs(20)).expect("somebody waits for ever");
            }
        }
    }
}

#[test]
fn what_expires_is_given_back_without_another_write() {
    let disk = MemDisk::new();
    let open = || {
        let options = Options::new([5; 16]).with_segment_bytes(256 << 10);
        SharedStore::open(disk.clone(), options).expect("opens").0
    };
    let given_back = |store: &SharedStore<MemDisk>, left: u64| {
        let start = Instant::now();
        while store.stats().log_bytes > left {
            assert!(start.elapsed() < Duration::from_secs(60), "{:?}", store.stats());
            std::thread::yield_now();
        }
    };
    let store = open();
    for n in 0..4000u32 {
        let expires = if n < 2000 { 100 } else { 200 };
        store.put_expiring_unsynced(0, &n.to_le_bytes(), &[1; 1000], 0, expires).expect("room");
    }
    store.maintain().expect("upkeep");
    let all = store.stats().log_bytes;
    store.set_time(99);
    assert_eq!(store.stats().log_bytes, all, "nothing has expired");
    store.set_time(100);
    given_back(&store, all * 6 / 10);
    // An opening by index files does not know what expires when, until it is told the time.
    store.close().expect("closes");
    let store = open();
    store.maintain().expect("upkeep");
    assert_eq!(store.len(), 2000);
    store.set_time(200);
    given_back(&store, all / 10);
}
