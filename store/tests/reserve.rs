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
