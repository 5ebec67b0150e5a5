//! The room that is put aside for a full disk is there when it is needed, power cuts or not.

#[path = "common/watched.rs"]
mod watched;

use gramme_store::{Disk, MemDisk, Options, Store, WriteError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use watched::{Op, Watched};

fn options(segment_bytes: u64) -> Options {
    Options::new([1; 16]).with_segment_bytes(segment_bytes)
}

/// Whether the room of a segment is put aside, that of a small manifest, and some for removals.
fn is_enough(disk: &MemDisk, segment_bytes: usize) -> bool {
    let room = disk.contents("RESERVE").map_or(0, |bytes| bytes.len());
    (segment_bytes + 8192..segment_bytes + (200 << 10)).contains(&room)
}

fn rolled(disk: &MemDisk, segment_bytes: u64) {
    let (mut store, _) = Store::open(disk.clone(), options(segment_bytes)).expect("opens");
    for n in 0..300u32 {
        store.put(0, &n.to_le_bytes(), &[1; 300], 1).expect("room");
        if n % 10 == 0 {
            store.maintain(1 << 16).expect("maintains");
        }
    }
    store.sync().expect("syncs");
}

#[test]
fn the_reserve_outlives_a_power_cut_with_all_its_length() {
    let disk = MemDisk::new();
    rolled(&disk, 4096);
    assert!(is_enough(&disk, 4096));
    for seed in 0..100 {
        assert!(is_enough(&disk.crash_image(seed), 4096), "seed {seed}");
    }
}

#[test]
fn a_reserve_that_is_too_small_is_made_anew() {
    let disk = MemDisk::new();
    rolled(&disk, 4096);
    rolled(&disk, 16 << 10);
    assert!(is_enough(&disk, 16 << 10));
}

#[test]
fn a_reserve_that_is_too_small_is_kept_where_there_is_no_room_for_more() {
    for reserves in [true, false] {
        let disk = MemDisk::new();
        disk.reserve_room(reserves);
        rolled(&disk, 4096);
        disk.kill();
        assert!(is_enough(&disk, 4096));
        let held = || disk.contents("RESERVE").map_or(0, |bytes| bytes.len());
        let before = held();
        disk.set_capacity(Some(disk.used_bytes()));
        let (mut store, _) = Store::open(disk.clone(), options(64 << 10)).expect("opens");
        let refused = loop {
            if let Err(error) = store.put(0, b"key", &[1; 300], 1) {
                break error;
            }
        };
        assert_eq!(refused, WriteError::NoSpace);
        assert!(held() >= before, "reserves: {reserves}: {} of {before}", held());
    }
}

#[test]
fn what_is_urgent_is_put_on_a_full_disk_again_and_again() {
    // Where none is reserved they stay in the segment that is written to, which compaction leaves alone.
    for (reserves, times) in [(true, 3000u32), (false, 1000)] {
        let disk = MemDisk::new();
        disk.reserve_room(reserves);
        rolled(&disk, 64 << 10);
        disk.kill();
        // What the opening clears away may make room for a segment.
        disk.set_capacity(Some(disk.used_bytes()));
        let (mut store, _) = Store::open(disk.clone(), options(64 << 10)).expect("opens");
        while store.put(0, &1u32.to_le_bytes(), &[2; 300], 1).is_ok() {}
        for n in 0..times {
            let mut done = store.put_urgent(9, b"counter", &n.to_le_bytes(), 1);
            if done.is_err() {
                assert_eq!(done, Err(WriteError::NoSpace), "reserves: {reserves}");
                for _ in 0..100 {
                    store.sync().expect("syncs");
                    match store.maintain(1 << 20) {
                        Ok(step) if step.more || step.needs_sync => {}
                        Ok(_) | Err(WriteError::NoSpace) => break,
                        Err(error) => panic!("{error}"),
                    }
                }
                done = store.put_urgent(9, b"counter", &n.to_le_bytes(), 1);
            }
            done.unwrap_or_else(|error| panic!("reserves: {reserves}, {n}: {error}"));
        }
        store.sync().expect("syncs");
        assert_eq!(store.len(), 301);
    }
}

#[test]
fn dead_segments_go_where_nothing_is_put_aside_to_merge_others_with() {
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), options(4096)).expect("opens");
    // Every other record of the first segments is dead, and all of the last ones.
    for n in 0..200u32 {
        store.put(0, &n.to_le_bytes(), &[1; 300], 1).expect("room");
    }
    for n in (0..200u32).filter(|n| n % 2 == 0 || *n > 150) {
        store.put(0, b"elsewhere", &n.to_le_bytes(), 1).expect("room");
        store.delete(0, &n.to_le_bytes()).expect("room");
    }
    store.close().expect("closes");
    disk.remove("RESERVE").expect("it is there");
    // Enough for a small segment or a manifest, and not for both and the output of a merge.
    disk.set_capacity(Some(disk.used_bytes() + 10_000));
    let (mut store, _) = Store::open(disk.clone(), options(4096)).expect("opens");
    // Whatever is put aside of it.
    let used = || disk.used_bytes() - disk.contents("RESERVE").map_or(0, |bytes| bytes.len() as u64);
    let before = used();
    for _ in 0..100 {
        match store.maintain(1 << 20) {
            Ok(done) if done.more || done.needs_sync => drop(store.sync().expect("syncs")),
            Ok(_) | Err(WriteError::NoSpace) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(used() + 8192 < before, "{} of {before} bytes", used());
}

#[test]
fn a_refused_put_does_not_fill_the_reserve_again() {
    const SEGMENT: u64 = 64 << 10;
    let (disk, filled) = (MemDisk::new(), Arc::new(AtomicU64::new(0)));
    disk.reserve_room(false);
    let watched = Watched::new(disk.clone(), {
        let filled = filled.clone();
        move |op| {
            if let Op::Write("RESERVE", range) = op {
                filled.fetch_add(range.end - range.start, Ordering::SeqCst);
            }
            Ok(())
        }
    });
    let (mut store, _) = Store::open(watched, options(SEGMENT)).expect("opens");
    // What is left when the segment is full is half a reserve: before there is one, and when there is.
    for room in [SEGMENT * 3 / 2, SEGMENT * 3 / 2] {
        disk.set_capacity(Some(disk.used_bytes() + room));
        let mut refused = 0;
        while refused < 1000 {
            match store.put(0, &[1], &[1; 300], 1) {
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error, WriteError::NoSpace);
                    refused += 1;
                }
            }
        }
        let bytes = filled.swap(0, Ordering::SeqCst);
        assert!(bytes < 6 * SEGMENT, "{bytes} bytes of zeros for a thousand puts");
        disk.set_capacity(None);
        store.sync().expect("syncs");
        for _ in 0..10 {
            store.maintain(1 << 20).expect("there is room");
            store.sync().expect("syncs");
        }
        assert!(!store.is_full());
        store.put(0, &[2], &[1; 300], 1).expect("there is room");
    }
}

#[test]
fn what_is_put_aside_is_not_given_up_to_ask_for_more() {
    let disk = MemDisk::new();
    let options = |seed| Options::new([seed; 16]).with_segment_bytes(16 << 10);
    let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
    store.put(1, b"key", &[1; 300], 1).expect("room");
    store.close().expect("closes");
    disk.plant("RESERVE", &vec![0; 8 << 10]);
    disk.set_capacity(Some(disk.used_bytes()));
    let (mut store, _) = Store::open(disk.clone(), options(2)).expect("opens");
    let held = || disk.contents("RESERVE").map(|bytes| bytes.len());
    assert_eq!(held(), Some(8 << 10));
    // It could not be made again at once, as on a file system that gives room back late.
    for _ in 0..3 {
        disk.fail_changes_after(1, 100);
        assert_eq!(store.put(1, b"key", &[1; 3000], 1), Err(WriteError::NoSpace));
        assert_eq!(held(), Some(8 << 10));
    }
}

/// A full disk with a store on it, and how many keys that has.
fn full(reserves: bool) -> (MemDisk, u32) {
    let disk = MemDisk::new();
    disk.reserve_room(reserves);
    disk.set_capacity(Some(1 << 20));
    let (mut store, _) = Store::open(disk.clone(), options(16 << 10)).expect("opens");
    let stored = (0u32..).take_while(|n| store.put(0, &n.to_le_bytes(), &[1; 300], 1).is_ok()).count();
    upkeep(&mut store);
    drop(store);
    disk.kill();
    (disk, u32::try_from(stored).expect("few"))
}

fn upkeep<D: Disk>(store: &mut Store<D>) {
    for _ in 0..10_000 {
        let synced = store.sync();
        assert!(matches!(synced, Ok(_) | Err(WriteError::NoSpace)), "{synced:?}");
        match store.maintain(1 << 20) {
            Ok(done) if done.more || done.needs_sync => {}
            Ok(_) | Err(_) => return,
        }
    }
    panic!("upkeep comes to no end");
}

/// Deletes all keys, thinly spread.
fn is_emptied<D: Disk>(store: &mut Store<D>, stored: u32, mut each: impl FnMut()) {
    for step in 0..9 {
        for n in (step..stored).step_by(9) {
            let mut deleted = store.delete(0, &n.to_le_bytes());
            if deleted == Err(WriteError::NoSpace) {
                upkeep(store);
                deleted = store.delete(0, &n.to_le_bytes());
            }
            assert!(deleted.is_ok(), "{n} of {stored}: {deleted:?}, {:?}", store.stats());
            each();
        }
    }
}

#[test]
fn a_store_that_is_closed_on_a_full_disk_leaves_others_none_of_its_room() {
    for reserves in [true, false] {
        let (disk, stored) = full(reserves);
        disk.set_capacity(Some(disk.used_bytes()));
        for round in 0..20u32 {
            let (mut store, _) = Store::open(disk.clone(), options(16 << 10)).expect("opens");
            let mut deleted = store.delete(0, &round.to_le_bytes());
            if deleted.is_err() {
                upkeep(&mut store);
                deleted = store.delete(0, &round.to_le_bytes());
            }
            assert!(deleted.is_ok(), "round {round}, reserves {reserves}: {deleted:?}");
            store.close().expect("closes");
            // They take at once what there is.
            disk.set_capacity(Some(disk.used_bytes()));
        }
        let (mut store, _) = Store::open(disk.clone(), options(16 << 10)).expect("opens");
        is_emptied(&mut store, stored, || disk.set_capacity(Some(disk.used_bytes())));
    }
}

#[test]
fn what_is_put_aside_is_there_at_any_moment() {
    let (disk, stored) = full(true);
    // Others take what room there is as soon as nothing is put aside.
    let greedy = Watched::new(disk.clone(), {
        let disk = disk.clone();
        move |op| {
            let is_there = disk.contents("RESERVE").is_some_and(|bytes| !bytes.is_empty());
            if let Op::Create(_) | Op::SyncDir = op
                && !is_there
            {
                disk.set_capacity(Some(disk.used_bytes()));
            }
            Ok(())
        }
    });
    let held = || disk.contents("RESERVE").map_or(0, |bytes| bytes.len());
    let before = held();
    let (mut store, _) = Store::open(greedy, options(64 << 10)).expect("opens");
    for room in (0..40).map(|n| n * 8192) {
        disk.set_capacity(Some(disk.used_bytes() + room));
        let _ = store.put(0, &stored.to_le_bytes(), &[1; 300], 1);
        upkeep(&mut store);
        assert!(held() >= before, "{} of {before}, with {room} bytes more", held());
    }
}

#[test]
fn a_process_that_may_open_no_file_keeps_what_is_put_aside() {
    let (disk, stored) = full(true);
    let short = Arc::new(AtomicU64::new(0));
    let watched = Watched::new(disk.clone(), {
        let short = short.clone();
        move |op| match op {
            Op::Create(_) | Op::Open(_) if short.load(Ordering::SeqCst) > 0 => {
                Err(gramme_store::DiskErrorKind::TooManyFiles)
            }
            _ => Ok(()),
        }
    });
    let (mut store, _) = Store::open(watched, options(64 << 10)).expect("opens");
    let held = || disk.contents("RESERVE").map_or(0, |bytes| bytes.len());
    let before = held();
    disk.set_capacity(Some(disk.used_bytes() + (1 << 20)));
    short.store(1, Ordering::SeqCst);
    for _ in 0..10 {
        let refused = store.put(0, &stored.to_le_bytes(), &vec![1; 64 << 10], 1);
        assert!(refused.is_err());
        upkeep(&mut store);
    }
    short.store(0, Ordering::SeqCst);
    disk.set_capacity(Some(disk.used_bytes()));
    assert!(held() >= before, "{} of {before}", held());
    is_emptied(&mut store, stored, || {});
}

#[test]
fn a_segment_of_removals_is_made_though_what_was_cut_for_it_can_t_be_made_up_for() {
    let (disk, stored) = full(true);
    disk.set_capacity(Some(disk.used_bytes()));
    let failing = Arc::new(AtomicU64::new(0));
    let watched = Watched::new(disk.clone(), {
        let failing = failing.clone();
        move |op| match op {
            Op::Sync("RESERVE") if failing.load(Ordering::SeqCst) > 0 => Err(gramme_store::DiskErrorKind::Io),
            _ => Ok(()),
        }
    });
    let (mut store, _) = Store::open(watched, options(16 << 10)).expect("opens");
    let before = store.stats().segments;
    failing.store(1, Ordering::SeqCst);
    let deleted = store.delete(0, &0u32.to_le_bytes());
    let made = store.stats().segments - before;
    assert!(deleted.is_ok() || made == 0, "{deleted:?}, and {made} segments that nobody writes to");
    failing.store(0, Ordering::SeqCst);
    is_emptied(&mut store, stored, || {});
}

#[test]
fn a_file_that_asked_for_room_and_could_not_be_removed_is_in_nobody_s_way() {
    let (disk, stored) = full(true);
    let failing = Arc::new(AtomicU64::new(0));
    let watched = Watched::new(disk.clone(), {
        let failing = failing.clone();
        move |op| match op {
            Op::Remove("RESERVE.new") if failing.swap(0, Ordering::SeqCst) > 0 => {
                Err(gramme_store::DiskErrorKind::Io)
            }
            _ => Ok(()),
        }
    });
    let (mut store, _) = Store::open(watched, options(16 << 10)).expect("opens");
    disk.set_capacity(Some(disk.used_bytes() + (200 << 10)));
    let mut met = 0;
    for n in stored..stored + 400 {
        failing.store(1, Ordering::SeqCst);
        let done = store.put(0, &n.to_le_bytes(), &[1; 300], 1);
        assert!(matches!(done, Ok(_) | Err(WriteError::NoSpace)), "{n}: {done:?}");
        met += 1 - failing.load(Ordering::SeqCst);
    }
    assert!(met > 0, "it asks");
}

#[test]
fn what_is_put_aside_is_kept_where_nothing_that_is_given_back_can_be_had_again() {
    // As on a file system that keeps blocks for root, once root has used them: what others give back is root's first.
    let disk = MemDisk::new();
    disk.set_capacity(Some(4 << 20));
    let (mut store, _) = Store::open(disk.clone(), options(64 << 10)).expect("opens");
    let maintain_all = |store: &mut Store<MemDisk>| {
        for _ in 0..10_000 {
            let _ = store.sync();
            match store.maintain(1 << 20) {
                Ok(done) if done.more || done.needs_sync => {}
                _ => return,
            }
        }
        panic!("no end");
    };
    let mut stored = 0u32;
    while store.put(0, &stored.to_le_bytes(), &[1; 300], 1).is_ok() {
        stored += 1;
        if stored.is_multiple_of(100) {
            maintain_all(&mut store);
        }
    }
    maintain_all(&mut store);
    let held = || disk.contents("RESERVE").map_or(0, |bytes| bytes.len());
    let before = held();
    disk.withhold(1 << 20);
    let mut refused = 0;
    for n in (0..7).flat_map(|from| (from..stored).step_by(7)) {
        if store.delete(0, &n.to_le_bytes()).is_err() {
            maintain_all(&mut store);
            refused += u32::from(store.delete(0, &n.to_le_bytes()).is_err());
        }
        // Root takes what was given back.
        disk.set_capacity(Some(disk.used_bytes()));
    }
    assert!(refused > stored / 2, "{refused} of {stored}: too little is withheld to show anything");
    assert!(held() + (128 << 10) > before, "{} of {before}", held());
    // What was put aside is for this, once it can be used: root gave back all that it had taken, and a block more.
    disk.withhold(0);
    disk.set_capacity(Some(disk.used_bytes() + 4096));
    for n in 0..stored {
        if store.delete(0, &n.to_le_bytes()).is_err() {
            maintain_all(&mut store);
            store.delete(0, &n.to_le_bytes()).unwrap_or_else(|error| panic!("{n} of {stored}: {error}"));
        }
    }
    maintain_all(&mut store);
    assert_eq!(store.len(), 0);
    for n in 0..stored / 2 {
        store.put(0, &n.to_le_bytes(), &[1; 300], 1).expect("room");
        if n.is_multiple_of(100) {
            maintain_all(&mut store);
        }
    }
}
