//! Snapshots: a backup without stopping.

#[path = "common/watched.rs"]
mod watched;

use gramme_store::{Disk, DiskErrorKind, MemDisk, OpenError, Options, Read, SharedStore, Store, verify};
use std::sync::atomic::{AtomicBool, Ordering};
use watched::{Op, Watched};

fn options(seed: u8) -> Options {
    Options::new([seed; 16]).with_segment_bytes(8192)
}

fn value(store: &mut Store<MemDisk>, key: u32) -> Option<u64> {
    match store.get(1, &key.to_le_bytes()).expect("whole") {
        Read::Value { tag, .. } => Some(tag),
        Read::Absent => None,
        Read::Pending(_) => panic!("reads are inline here"),
    }
}

#[test]
fn a_snapshot_is_the_store_of_its_moment_whatever_comes_after() {
    // Taken at every stage of writing, sealing and merging.
    for steps in 0..40 {
        let disk = MemDisk::new();
        let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
        for n in 0..200u32 {
            store.put(1, &(n % 80).to_le_bytes(), &[1; 200], u64::from(n)).expect("room");
        }
        store.delete(1, &5u32.to_le_bytes()).expect("room");
        store.sync().expect("syncs");
        for _ in 0..steps {
            let done = store.maintain(3000).expect("maintains");
            if done.needs_sync {
                store.sync().expect("syncs");
            }
        }
        store.put(1, &6u32.to_le_bytes(), b"not synced", 777).expect("room");
        let snapshot = store.snapshot().expect("the disk is well");
        assert_eq!(snapshot.through(), store.position());
        // The store goes on: everything is overwritten and merged away.
        for n in 0..400u32 {
            store.put(1, &(n % 80).to_le_bytes(), &[2; 200], 5000).expect("room");
        }
        for _ in 0..100 {
            store.sync().expect("syncs");
            store.maintain(1 << 20).expect("maintains");
        }
        let copy = MemDisk::new();
        let mut last = 0;
        snapshot
            .copy_to(&copy, |progress| {
                assert!(progress.bytes_done > last && progress.bytes_done <= progress.bytes);
                last = progress.bytes_done;
            })
            .expect("room");
        assert!(last > 0);
        copy.crash(steps);
        let verified = verify(&copy, None).expect("a store");
        assert!(verified.report.damage.is_empty() && verified.report.torn.is_empty(), "{verified:?}");
        let (mut backup, _) = Store::open(copy, options(2)).expect("opens");
        assert_eq!(backup.len(), 79);
        for key in 0..80 {
            let newest = (0..200).rev().find(|n| n % 80 == key).map(u64::from);
            let expected = match key {
                5 => None,
                6 => Some(777),
                _ => newest,
            };
            assert_eq!(value(&mut backup, key), expected, "key {key} after {steps} steps");
        }
    }
}

#[test]
fn a_copy_that_was_cut_off_is_no_store_and_a_store_is_not_copied_over() {
    let (mut store, _) = Store::open(MemDisk::new(), options(1)).expect("opens");
    for n in 0..100u32 {
        store.put(1, &n.to_le_bytes(), &[1; 200], 1).expect("room");
    }
    let snapshot = store.snapshot().expect("the disk is well");
    let (mut none, mut refused) = (0, 0);
    for cut in 0.. {
        let copy = MemDisk::new();
        copy.cut_power_after(cut);
        let copied = snapshot.copy_to(&copy, |_| {});
        if copied.is_ok() && copy.is_powered() {
            break;
        }
        assert!(copied.is_err(), "{cut}");
        copy.crash(cut);
        // The manifest comes last, when all else is durable: without it nobody takes the segments for a store.
        match Store::open(copy, options(2)) {
            Err(OpenError::ManifestMissing) => refused += 1,
            Ok((store, recovery)) if recovery.created => {
                assert!(store.is_empty());
                none += 1;
            }
            Ok((store, recovery)) => {
                assert!(store.len() == 100 && recovery.damage.is_empty(), "{cut}: {recovery:?}");
            }
            Err(other) => panic!("{cut}: {other}"),
        }
    }
    assert!(none > 0 && refused > 3, "{none} {refused}");
    let copy = MemDisk::new();
    snapshot.copy_to(&copy, |_| {}).expect("room");
    let before = copy.list().expect("lists");
    let refused = snapshot.copy_to(&copy, |_| {}).expect_err("there is a store");
    assert_eq!(refused.kind(), DiskErrorKind::AlreadyExists);
    assert_eq!(copy.list().expect("lists"), before);
}

#[test]
fn writers_go_on_while_a_shared_store_is_copied() {
    let (store, _) = SharedStore::open(MemDisk::new(), options(1)).expect("opens");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..3u32 {
            let (store, stop) = (&store, &stop);
            scope.spawn(move || {
                let mut n = 0u64;
                // Not without end: on a slow machine each copy would be larger than the one before.
                while !stop.load(Ordering::Relaxed) && n < 5_000 {
                    n += 1;
                    store
                        .put(
                            1,
                            &(thread << 16 | u32::try_from(n % 50).expect("small")).to_le_bytes(),
                            &[3; 100],
                            n,
                        )
                        .expect("room");
                }
            });
        }
        for _ in 0..20 {
            let promised = store.sync().expect("syncs");
            let snapshot = store.snapshot().expect("the disk is well");
            assert!(snapshot.through() >= promised.through());
            let copy = MemDisk::new();
            snapshot.copy_to(&copy, |_| {}).expect("room");
            let report = verify(&copy, None).expect("a store").report;
            assert!(report.damage.is_empty() && report.torn.is_empty(), "{report:?}");
            let (backup, _) = Store::open(copy, options(2)).expect("opens");
            assert!(backup.position() >= promised.through());
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_segment_of_which_nothing_can_be_read_is_reported_in_the_copy_and_after_compaction() {
    let options = |seed| Options::new([seed; 16]).with_segment_bytes(4096).with_index_files(false);
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
    let segments = |disk: &MemDisk| {
        let mut names = disk.list().expect("lists");
        names.retain(|name| name.ends_with(".seg"));
        names.sort();
        names
    };
    // The second one is prepared before the first is full: no manifest comes after that.
    for n in 0..40u32 {
        store.put(1, &n.to_le_bytes(), &[1; 200], 1).expect("room");
        if segments(&disk).len() < 2 {
            store.maintain(1 << 16).expect("maintains");
        }
    }
    store.sync().expect("syncs");
    drop(store);
    disk.kill();
    let name = segments(&disk)[0].clone();
    let mut bytes = disk.contents(&name).expect("there");
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("records") + 1;
    bytes[64..used].fill(0xee);
    disk.plant(&name, &bytes);
    let (mut store, recovery) = Store::open(disk.clone(), options(2)).expect("opens");
    assert!(recovery.is_lossy());
    let copy = MemDisk::new();
    store.snapshot().expect("the disk is well").copy_to(&copy, |_| {}).expect("room");
    assert!(!verify(&copy, None).expect("a store").report.damage.is_empty());
    assert!(Store::open(copy, options(3)).expect("opens").1.is_lossy());
    for _ in 0..50 {
        store.maintain(1 << 16).expect("maintains");
        store.sync().expect("syncs");
    }
    drop(store);
    disk.kill();
    assert!(Store::open(disk, options(4)).expect("opens").1.is_lossy(), "compaction forgot it");
}

#[test]
fn what_the_disk_refuses_to_read_is_damage_in_the_copy_and_the_rest_is_there() {
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
    for n in 0..200u32 {
        store.put(1, &n.to_le_bytes(), &[1; 200], u64::from(n)).expect("room");
    }
    store.close().expect("closes");
    let failing = Watched::new(disk, |op| match op {
        Op::Read("0000000000000002.seg", range) if range.start < 8192 && range.end > 4096 => {
            Err(DiskErrorKind::Io)
        }
        _ => Ok(()),
    });
    let (mut store, _) = Store::open(failing, options(2)).expect("opens");
    let copy = MemDisk::new();
    store.snapshot().expect("taken").copy_to(&copy, |_| ()).expect("copied");
    let (mut copied, recovery) = Store::open(copy, options(3).with_index_files(false)).expect("opens");
    assert!(recovery.is_lossy(), "{recovery:?}");
    let there =
        (0..200).filter(|n| matches!(copied.get(1, &u32::to_le_bytes(*n)), Ok(Read::Value { .. }))).count();
    assert!((180..200).contains(&there), "{there} of 200");
}
