//! Compaction: what it may drop, what it may not, and what it gives back.

#[path = "common/watched.rs"]
mod watched;

use gramme_store::{
    Disk, DiskErrorKind, MemDisk, MergeProgress, Options, Read, ReadError, Stats, Store, WriteError,
};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use watched::{Op, Watched};

fn options(seed: u8) -> Options {
    Options::new([seed; 16]).with_segment_bytes(16 << 10)
}

fn open(disk: &MemDisk) -> Store<MemDisk> {
    Store::open(disk.clone(), options(1)).expect("opens").0
}

fn is_there<D: Disk>(store: &mut Store<D>, key: &[u8]) -> bool {
    match store.get(0, key) {
        Ok(Read::Value { .. }) => true,
        // After damage of which nobody knows what it was.
        Ok(Read::Absent) | Err(ReadError::Unknown) => false,
        other => panic!("{other:?}"),
    }
}

/// Maintains until there is nothing left to do. Answers the bytes that were given back.
fn maintain_all(store: &mut Store<MemDisk>) -> u64 {
    let mut freed = 0;
    for _ in 0..10_000 {
        let done = store.maintain(4096).expect("maintains");
        freed += done.freed_bytes;
        if done.needs_sync {
            store.sync().expect("syncs");
        } else if !done.more {
            return freed;
        }
    }
    panic!("maintenance goes on for ever: {:?}", store.stats());
}

/// Fills segments with records of no further use, so that the ones before are sealed.
fn roll(store: &mut Store<MemDisk>, filler: &[u8]) {
    for _ in 0..40 {
        store.put(9, filler, &[0; 1000], 0).expect("room");
    }
    store.sync().expect("syncs");
}

#[test]
fn a_partial_merge_does_not_undo_a_delete() {
    // bitcask #82 and #148: the merge took the delete, but not the older segment with what it deleted.
    for order in 0..2 {
        let disk = MemDisk::new();
        let mut store = open(&disk);
        // An old segment that is all live but for one key, and not worth merging.
        store.put(0, b"deleted", &[1; 100], 0).expect("room");
        for n in 0..14u32 {
            store.put(1, &n.to_le_bytes(), &[2; 1000], 0).expect("room");
        }
        roll(&mut store, b"filler");
        store.delete(0, b"deleted").expect("room");
        roll(&mut store, b"filler");
        assert!(maintain_all(&mut store) > 0, "the fillers were merged");
        roll(&mut store, b"filler");
        maintain_all(&mut store);
        assert!(!is_there(&mut store, b"deleted"));
        drop(store);
        if order == 1 {
            disk.crash(7);
        }
        let mut store = open(&disk);
        assert!(!is_there(&mut store, b"deleted"), "gone for good");
        assert_eq!(store.slot_len(1), 14);
        // Then what it deleted is merged away, and so can the delete be.
        store.drop_slot(1).expect("room");
        roll(&mut store, b"filler");
        maintain_all(&mut store);
        roll(&mut store, b"filler");
        maintain_all(&mut store);
        drop(store);
        assert!(!is_there(&mut open(&disk), b"deleted"));
    }
}

#[test]
fn a_delete_during_a_merge_holds() {
    // bitcask #156: deleted while the merge had its record copied, or about to be.
    for steps in 0..60 {
        let disk = MemDisk::new();
        let mut store = open(&disk);
        for n in 0..60u32 {
            store.put(0, &n.to_le_bytes(), &[3; 500], u64::from(n)).expect("room");
        }
        for n in (0..60u32).step_by(2) {
            store.put(0, &n.to_le_bytes(), &[4; 500], 1000 + u64::from(n)).expect("room");
        }
        store.sync().expect("syncs");
        for _ in 0..steps {
            let done = store.maintain(600).expect("maintains");
            if done.needs_sync {
                store.sync().expect("syncs");
            }
        }
        store.delete(0, &7u32.to_le_bytes()).expect("room");
        store.put(0, &9u32.to_le_bytes(), &[5; 10], 9999).expect("room");
        store.sync().expect("syncs");
        maintain_all(&mut store);
        for reopened in [false, true] {
            if reopened {
                drop(store);
                disk.crash(steps);
                store = open(&disk);
            }
            for n in 0..60u32 {
                let tag = match n {
                    7 => None,
                    9 => Some(9999),
                    n if n % 2 == 0 => Some(1000 + u64::from(n)),
                    n => Some(u64::from(n)),
                };
                assert_eq!(store.tag(0, &n.to_le_bytes()), tag, "key {n} after {steps} steps");
                assert_eq!(is_there(&mut store, &n.to_le_bytes()), tag.is_some());
            }
        }
    }
}

#[test]
fn overwriting_takes_no_more_than_half_as_much_again() {
    let disk = MemDisk::new();
    let mut store = open(&disk);
    let (mut most, mut copied) = (0, 0);
    let mut word = 1u64;
    for n in 0..20_000u32 {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = if n < 1000 { n } else { u32::try_from(word >> 33).expect("31 bits") % 1000 };
        store.put(0, &key.to_le_bytes(), &[6; 100], 0).expect("room");
        if n % 20 == 0 {
            store.sync().expect("syncs");
            for _ in 0..3 {
                copied += u64::from(store.maintain(8192).expect("maintains").freed_bytes > 0);
            }
        }
        if n > 5000 {
            most = most.max(store.stats().disk_bytes);
        }
    }
    let stats = store.stats();
    assert_eq!((stats.keys, stats.live_bytes), (1000, 144_000));
    assert!(copied > 20, "it was merged again and again: {copied}");
    // The log itself, and the active segment, the spare, and an output on its way.
    assert!(most < 144_000 * 3 / 2 + 5 * (16 << 10), "{most} bytes of disk at most, {stats:?}");
}

#[test]
fn deleting_everything_gives_back_everything() {
    let disk = MemDisk::new();
    let mut store = open(&disk);
    for n in 0..2000u32 {
        store.put(0, &n.to_le_bytes(), &[7; 100], 0).expect("room");
    }
    for n in 0..2000u32 {
        store.delete(0, &n.to_le_bytes()).expect("room");
    }
    store.sync().expect("syncs");
    maintain_all(&mut store);
    // The deletes themselves are in segments of their own now; with nothing older left they go, too.
    roll(&mut store, b"filler");
    maintain_all(&mut store);
    let Stats { segments, live_bytes, log_bytes, .. } = store.stats();
    assert!(segments <= 4 && log_bytes < 3 * (16 << 10), "{segments} segments, {live_bytes} of {log_bytes}");
}

#[test]
fn many_openings_do_not_leave_many_segments() {
    let disk = MemDisk::new();
    for n in 0..200u32 {
        let mut store = open(&disk);
        store.put(0, &n.to_le_bytes(), b"value", 0).expect("room");
        store.sync().expect("syncs");
        maintain_all(&mut store);
    }
    let store = open(&disk);
    assert_eq!(store.len(), 200);
    assert!(store.stats().segments < 20, "{:?}", store.stats());
}

#[test]
fn a_full_disk_is_compacted_from_the_reserve() {
    let disk = MemDisk::new();
    disk.set_capacity(Some(300 << 10));
    let mut store = open(&disk);
    let mut stored = 0u32;
    loop {
        match store.put(0, &stored.to_le_bytes(), &[8; 400], 0) {
            Ok(_) => stored += 1,
            Err(error) => {
                assert_eq!(error, WriteError::NoSpace);
                break;
            }
        }
    }
    store.sync().expect("syncs");
    assert!(stored > 200, "{stored}");
    // Every third goes: no segment is empty, each has to be copied to give anything back.
    for n in (0..stored).step_by(3) {
        loop {
            match store.delete(0, &n.to_le_bytes()) {
                Ok(_) => break,
                Err(WriteError::NoSpace) => {
                    store.sync().expect("syncs");
                    let done = store.maintain(1 << 20).expect("compaction works on a full disk");
                    assert!(done.more || done.needs_sync, "stuck: {:?}", store.stats());
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    store.sync().expect("syncs");
    maintain_all(&mut store);
    // A third of them went, and a segment more than before is put aside.
    for n in 0..stored / 20 {
        assert!(
            store.put(1, &n.to_le_bytes(), &[9; 400], 0).is_ok(),
            "{n} of {stored}, {:?}, {}",
            store.stats(),
            disk.used_bytes()
        );
    }
    for n in 0..stored {
        assert_eq!(is_there(&mut store, &n.to_le_bytes()), n % 3 != 0, "key {n}");
    }
}

#[test]
fn no_space_at_any_moment_loses_nothing() {
    // The disk is full at one moment after another; each time some writes fail, and all that did not are there.
    for capacity in (20_000..140_000).step_by(1_731) {
        let disk = MemDisk::new();
        let mut store = open(&disk);
        disk.set_capacity(Some(capacity));
        let mut expected = std::collections::BTreeMap::new();
        for n in 0..400u32 {
            let key = n % 50;
            if store.put(0, &key.to_le_bytes(), &[10; 300], u64::from(n)).is_ok() {
                expected.insert(key, u64::from(n));
            }
            if n % 7 == 0 && store.delete(0, &(key / 2).to_le_bytes()).is_ok() {
                expected.remove(&(key / 2));
            }
            if n % 5 == 0 {
                store.sync().expect("syncs");
                match store.maintain(2000) {
                    Ok(_) | Err(WriteError::NoSpace) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
        assert!(store.writable());
        disk.set_capacity(None);
        drop(store);
        let (mut store, recovery) = Store::open(disk, options(2)).expect("opens");
        assert!(recovery.damage.is_empty() && recovery.torn.is_empty(), "{recovery:?}");
        for key in 0..50u32 {
            assert_eq!(store.tag(0, &key.to_le_bytes()), expected.get(&key).copied(), "key {key}");
            assert_eq!(is_there(&mut store, &key.to_le_bytes()), expected.contains_key(&key));
        }
    }
}

#[test]
fn what_is_damaged_stays_unknown_through_a_merge() {
    for whole_record in [false, true] {
        let disk = MemDisk::new();
        let mut store = open(&disk);
        store.put(0, b"bad", &[0xab; 64], 0).expect("room");
        store.put(0, b"old", &[1; 100], 0).expect("room");
        for n in 0..10u32 {
            store.put(0, &n.to_le_bytes(), &[2; 100], 0).expect("room");
        }
        roll(&mut store, b"filler");
        store.delete(0, b"old").expect("room");
        roll(&mut store, b"filler");
        // Rot while the store runs: in the value alone, or in the header too.
        let name = "0000000000000001.seg";
        let mut bytes = disk.contents(name).expect("there");
        let at = bytes.windows(64).position(|window| window == [0xab; 64]).expect("there");
        let from = if whole_record { at - 43 } else { at };
        bytes[from..at + 9].fill(0x11);
        let bits = (from..at + 9).flat_map(|byte| {
            let was = if byte < at { 0 } else { 0xab };
            (0..8).map(move |bit| (byte as u64 * 8 + bit, was))
        });
        let original = disk.contents(name).expect("there");
        for (bit, _) in bits {
            let place = usize::try_from(bit / 8).expect("in memory");
            if (original[place] ^ bytes[place]) >> (bit % 8) & 1 == 1 {
                assert!(disk.flip_bit(name, bit));
            }
        }
        let unknown =
            |store: &mut Store<MemDisk>| matches!(store.get(0, b"bad"), Err(ReadError::Damaged { .. }));
        assert!(unknown(&mut store));
        maintain_all(&mut store);
        roll(&mut store, b"filler");
        maintain_all(&mut store);
        assert!(unknown(&mut store), "not absent, not a panic");
        assert!(!is_there(&mut store, b"old"));
        for n in 0..10u32 {
            assert!(is_there(&mut store, &n.to_le_bytes()));
        }
        drop(store);
        let (mut store, recovery) = Store::open(disk.clone(), options(2)).expect("opens");
        assert!(!is_there(&mut store, b"old"), "no resurrection by a merge that was spoiled");
        assert!(unknown(&mut store) || recovery.is_lossy(), "unknown, or reported: {recovery:?}");
        assert_eq!(
            disk.list().expect("lists").iter().any(|file| file == name),
            whole_record,
            "kept if need be"
        );
    }
}

#[test]
fn a_delete_that_rotted_unseen_does_not_give_its_key_back_by_a_merge() {
    // The opening went by the index file, which knows the delete; the merge meets the record and finds it gone. Merging the
    // rest would leave nothing that says that the key was deleted, while the older segment still has it.
    for cut in [false, true] {
        let disk = MemDisk::new();
        let mut store = open(&disk);
        store.put(0, b"deleted", &[1; 100], 0).expect("room");
        for n in 0..14u32 {
            store.put(1, &n.to_le_bytes(), &[2; 1000], 0).expect("room");
        }
        roll(&mut store, b"filler");
        store.delete(0, b"deleted").expect("room");
        store.sync().expect("syncs");
        store.close().expect("closes");
        // A delete ends with its key.
        let (name, at) = disk
            .list()
            .expect("lists")
            .into_iter()
            .filter_map(|name| {
                let bytes = disk.contents(&name)?;
                Some((name, bytes.windows(7).rposition(|window| window == b"deleted")?))
            })
            .next_back()
            .expect("its record");
        let mut bytes = disk.contents(&name).expect("there");
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at - 40..at + 7].fill(0x11);
        }
        disk.plant(&name, &bytes);
        let (mut store, recovery) = Store::open(disk.clone(), options(2)).expect("opens");
        assert!(recovery.is_lossy() == cut, "{recovery:?}");
        assert!(!is_there(&mut store, b"deleted"), "the index file knows");
        for _ in 0..3 {
            roll(&mut store, b"filler");
            maintain_all(&mut store);
        }
        assert!(!is_there(&mut store, b"deleted"));
        drop(store);
        let mut store = Store::open(disk, options(3)).expect("opens").0;
        assert!(!is_there(&mut store, b"deleted"), "cut: {cut}");
    }
}

#[test]
fn a_merge_says_how_far_it_is() {
    let disk = MemDisk::new();
    let mut store = open(&disk);
    for n in 0..1000u32 {
        store.put(0, &(n % 300).to_le_bytes(), &[1; 200], 0).expect("room");
    }
    store.sync().expect("syncs");
    assert_eq!(store.merge_progress(), None);
    let (mut merges, mut steps, mut before) = (0, 0, None::<MergeProgress>);
    for _ in 0..10_000 {
        let done = store.maintain(2000).expect("maintains");
        let now = store.merge_progress();
        if let (Some(before), Some(now)) = (before, now) {
            assert!(before.bytes_done <= now.bytes_done && now.bytes == before.bytes, "{before:?} {now:?}");
            steps += u32::from(before.bytes_done < now.bytes_done);
        }
        if let Some(now) = now {
            assert!(now.bytes_done <= now.bytes, "{now:?}");
            assert!(!done.needs_sync || now.bytes_done == now.bytes, "{now:?} {done:?}");
        }
        merges += u32::from(done.freed_bytes > 0);
        before = now;
        if done.needs_sync {
            assert!(now.is_some());
            store.sync().expect("syncs");
        } else if !done.more {
            break;
        }
    }
    assert_eq!(store.merge_progress(), None);
    assert!(merges > 0 && steps > 2, "{merges} {steps}");
}

#[test]
fn a_record_that_is_read_wrong_once_is_copied_as_it_is() {
    // Two segments with records that are overwritten and others that are not: the second one's read gets a bit wrong.
    let value = |n: u32, round: u8| vec![n.to_le_bytes()[0] ^ round; 60];
    for seed in 0..300 {
        let disk = MemDisk::new();
        let mut store = open(&disk);
        for round in 0..2u8 {
            for n in (0..160u32).filter(|n| round == 0 || n % 3 > 0) {
                store.put(0, &n.to_le_bytes(), &value(n, round), 0).expect("room");
            }
            roll(&mut store, b"filler");
        }
        let mut steps = 0;
        while store.merge_progress().is_none() {
            let done = store.maintain(1).expect("maintains");
            store.sync().expect("syncs");
            steps += 1;
            assert!((done.more || done.needs_sync) && steps < 100_000, "there is something to merge");
        }
        disk.spoil_next_reads(1, seed);
        maintain_all(&mut store);
        let lost = |store: &mut Store<MemDisk>| {
            (0..160u32)
                .filter(|n| {
                    let due = value(*n, u8::from(n % 3 > 0));
                    !matches!(store.get(0, &n.to_le_bytes()), Ok(Read::Value { value, .. }) if value == due)
                })
                .count()
        };
        // Had nothing been read meanwhile, the first of these reads would be spoiled.
        assert_eq!(lost(&mut store), 0, "seed {seed}");
        drop(store);
        let (mut store, recovery) = Store::open(disk, options(2).with_index_files(false)).expect("opens");
        assert_eq!((lost(&mut store), recovery.is_lossy()), (0, false), "seed {seed}: {recovery:?}");
    }
}

#[test]
fn an_opening_clears_nothing_away_that_a_power_cut_may_need_again() {
    // A merge is through, but the directory with its manifest was not synced when the process died. The victims that the next
    // opening clears away are those of a manifest that may not be there after a power cut.
    let disk = MemDisk::new();
    let (armed, refuses) = (Arc::new(AtomicBool::new(false)), AtomicBool::new(false));
    let watched = Watched::new(disk.clone(), {
        let armed = armed.clone();
        move |op| match op {
            Op::Rename(_) if armed.load(Ordering::SeqCst) => {
                refuses.store(true, Ordering::SeqCst);
                Ok(())
            }
            Op::SyncDir if refuses.load(Ordering::SeqCst) => Err(DiskErrorKind::Io),
            _ => Ok(()),
        }
    });
    let (mut store, _) = Store::open(watched, options(1)).expect("opens");
    for n in 0..800u32 {
        store.put(0, &(n % 60).to_le_bytes(), &[1; 200], u64::from(n)).expect("room");
    }
    store.sync().expect("syncs");
    let merged = |store: &Store<Watched<MemDisk>>| {
        store.merge_progress().is_some_and(|merge| merge.bytes_done == merge.bytes)
    };
    while !merged(&store) {
        let done = store.maintain(1 << 20).expect("maintains");
        assert!(done.more || done.needs_sync);
        if !merged(&store) || done.needs_sync {
            store.sync().expect("syncs");
        }
    }
    armed.store(true, Ordering::SeqCst);
    while store.maintain(1 << 20).is_ok() {
        store.sync().expect("syncs");
    }
    assert!(!store.writable());
    drop(store);
    disk.kill();
    for cut in 0..60 {
        for seed in 0..40 {
            let disk = disk.fork();
            disk.cut_power_after(cut);
            drop(Store::open(disk.clone(), options(2)));
            disk.crash(seed);
            let (mut store, recovery) = Store::open(disk, options(3)).expect("no segment is missing");
            assert!(!recovery.is_lossy(), "cut {cut}, seed {seed}: {recovery:?}");
            assert!((0..60u32).all(|n| is_there(&mut store, &n.to_le_bytes())), "cut {cut}, seed {seed}");
        }
    }
}

#[test]
fn copies_share_writes_and_what_is_refused_is_copied_later() {
    for refuses in [false, true] {
        let (copied, asked) = (Arc::new(Mutex::new(Vec::new())), AtomicU64::new(0));
        let disk = Watched::new(MemDisk::new(), {
            let copied = copied.clone();
            move |op| {
                if let Op::Write(name, bytes) = op
                    && name.ends_with(".seg")
                    && bytes.start > 0
                {
                    if refuses && asked.fetch_add(1, Ordering::Relaxed) % 3 < 2 {
                        return Err(DiskErrorKind::NoSpace);
                    }
                    copied.lock().expect("no panic").push(bytes.end - bytes.start);
                }
                Ok(())
            }
        });
        let options = options(1).with_segment_bytes(64 << 10).with_index_files(false);
        let (mut store, _) = Store::open(disk, options).expect("opens");
        let mut tags = [0; 2000];
        let overwritten = |n: &usize| n % 8 < 5;
        for n in (0..2000usize).chain((0..2000).filter(overwritten)) {
            let tag = tags[n] + 1;
            while store.put(0, &n.to_le_bytes(), &[1; 100], tag).is_err() {}
            tags[n] = tag;
        }
        store.sync().expect("syncs");
        copied.lock().expect("no panic").clear();
        let mut refused = 0;
        loop {
            match store.maintain(64 << 10) {
                Ok(done) if done.needs_sync => drop(store.sync().expect("syncs")),
                Ok(done) if !done.more => break,
                Ok(_) => {}
                Err(WriteError::NoSpace) => refused += 1,
                Err(error) => panic!("{error}"),
            }
            for n in (refused % 7..2000usize).step_by(7) {
                let read = store.get(0, &n.to_le_bytes()).expect("readable");
                assert!(matches!(read, Read::Value { tag, .. } if tag == tags[n]), "{n}: {read:?}");
            }
        }
        assert_eq!(refused > 0, refuses);
        let copied = copied.lock().expect("no panic");
        let bytes: u64 = copied.iter().sum();
        assert!(bytes > 30_000 && bytes / copied.len() as u64 > 4000, "{bytes} in {} writes", copied.len());
    }
}
