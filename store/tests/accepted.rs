//! What becomes of losses: those that the caller has accepted are merged away with their segments, those whose key is known are told
//! until it is put again.

use gramme_store::{
    Cursor, DamageKind, Disk, MemDisk, Options, Page, Read, ReadError, Recovery, Store, verify,
};

const KEYS: u32 = 60;

/// Every record is read at an opening: what is damaged is found there.
fn options(seed: u8) -> Options {
    Options::new([seed; 16]).with_segment_bytes(4096).with_index_files(false)
}

fn open(disk: &MemDisk, seed: u8) -> (Store<MemDisk>, Recovery) {
    Store::open(disk.clone(), options(seed)).expect("opens")
}

/// Does all the upkeep that there is.
fn upkeep(store: &mut Store<MemDisk>) {
    for _ in 0..1000 {
        let done = store.maintain(1 << 20).expect("maintains");
        store.sync().expect("syncs");
        if !done.more && !done.needs_sync {
            return;
        }
    }
    panic!("upkeep comes to no end");
}

fn segments(disk: &MemDisk) -> Vec<String> {
    let mut names = disk.list().expect("lists");
    names.retain(|name| name.ends_with(".seg"));
    names.sort();
    names
}

/// Sixty keys, all live, in several segments.
fn written(closes: bool) -> MemDisk {
    let disk = MemDisk::new();
    let (mut store, _) = open(&disk, 1);
    for n in 0..KEYS {
        store.put(1, &n.to_le_bytes(), &[1; 300], 1).expect("room");
    }
    store.sync().expect("syncs");
    if closes {
        store.close().expect("closes");
    } else {
        drop(store);
        disk.kill();
    }
    assert!(segments(&disk).len() > 4);
    disk
}

/// Opens, finds the loss and accepts it; nothing of it is told after the upkeep. Answers how many keys were lost.
fn accept(disk: &MemDisk, what: &str) -> usize {
    let (store, recovery) = open(disk, 2);
    assert!(recovery.is_lossy(), "{what}: {recovery:?}");
    drop(store);
    let (mut store, recovery) = open(disk, 3);
    assert!(recovery.is_lossy(), "{what}: {recovery:?}");
    // Of some it is known whose they were: putting them again heals them.
    let mut healed = 0;
    for n in 0..KEYS {
        if store.get(1, &n.to_le_bytes()).is_err() {
            store.put(1, &n.to_le_bytes(), &[2; 300], 1).expect("room");
            healed += 1;
        }
    }
    store.sync().expect("syncs");
    let held = |store: &mut Store<MemDisk>| {
        (0..KEYS).filter(|n| matches!(store.get(1, &n.to_le_bytes()), Ok(Read::Value { .. }))).count()
    };
    let before = held(&mut store);
    store.accept_losses();
    upkeep(&mut store);
    assert_eq!(held(&mut store), before, "{what}");
    store.close().expect("closes");
    let (mut store, recovery) = open(disk, 4);
    assert!(!recovery.is_lossy(), "{what}: {recovery:?}");
    assert_eq!(held(&mut store), before, "{what}");
    KEYS as usize - before + healed
}

#[test]
fn a_damaged_segment_goes_wherever_it_stands_and_whatever_else_it_holds() {
    for closes in [false, true] {
        let original = written(closes);
        for (at, name) in segments(&original).iter().enumerate() {
            // The header of a record in its midst, and what follows it.
            let disk = original.fork();
            let whole = disk.contents(name).expect("there");
            if whole[1000..].iter().all(|byte| *byte == 0) {
                continue;
            }
            assert!(disk.overwrite(name, 1000, &[0xee; 400]));
            let lost = accept(&disk, &format!("segment {at}, closed: {closes}"));
            assert!((1..=3).contains(&lost), "segment {at}, closed: {closes}: {lost}");
        }
    }
}

#[test]
fn a_damaged_segment_goes_beside_any_that_would_be_merged_before_it() {
    // Two segments full, of records of 136 bytes that count as 144.
    let full = 54u32;
    for len in (8..900).step_by(60) {
        let disk = MemDisk::new();
        let (mut store, _) = open(&disk, 1);
        for n in 0..full {
            store.put(1, &n.to_le_bytes(), &[1; 92], 1).expect("room");
        }
        // Of what comes next one record is left, in a segment of its own.
        store.put(1, b"small", &vec![1; len], 1).expect("room");
        for _ in 0..40 {
            store.put(1, b"dead", &[1; 300], 1).expect("room");
        }
        store.delete(1, b"dead").expect("room");
        store.sync().expect("syncs");
        upkeep(&mut store);
        store.close().expect("closes");
        let names = segments(&disk);
        assert!(disk.overwrite(&names[0], 64 + 136 * 5, &[0xee; 136]));
        let lost = accept(&disk, &format!("beside {len} bytes"));
        assert_eq!(lost, (KEYS - full) as usize + 1, "beside {len} bytes");
    }
}

#[test]
fn what_is_damaged_in_one_victim_does_not_hold_back_the_next() {
    let disk = MemDisk::new();
    let (mut store, _) = open(&disk, 1);
    // Nine records of 400 bytes fill a segment: the first stays whole, of the next two most is put again elsewhere, and one deleted.
    let put =
        |store: &mut Store<MemDisk>, n: u32| store.put(1, &n.to_le_bytes(), &[1; 356], 1).expect("room");
    (0..26).for_each(|n| _ = put(&mut store, n));
    store.delete(1, &10u32.to_le_bytes()).expect("room");
    (9..17).chain(18..25).filter(|n| *n != 10).for_each(|n| _ = put(&mut store, n));
    store.sync().expect("syncs");
    let victims = ["0000000000000002.seg", "0000000000000003.seg"];
    assert!(disk.overwrite(victims[0], 64, &[0xee; 40]), "the header of a record that is dead");
    upkeep(&mut store);
    let left = segments(&disk);
    assert!(victims.iter().all(|victim| !left.contains(&(*victim).to_owned())), "{left:?}");
    for n in (0..26u32).filter(|n| *n != 10) {
        assert!(matches!(store.get(1, &n.to_le_bytes()), Ok(Read::Value { .. })), "key {n}");
    }
}

#[test]
fn a_segment_of_no_bytes_goes_too() {
    for closes in [false, true] {
        let original = written(closes);
        for (at, name) in segments(&original).iter().enumerate() {
            let disk = original.fork();
            disk.plant(name, &[]);
            let (_, recovery) = open(&disk.fork(), 2);
            if recovery.is_lossy() {
                accept(&disk, &format!("segment {at}, closed: {closes}"));
            }
        }
    }
}

#[test]
fn a_loss_has_one_range_at_every_opening() {
    for closes in [false, true] {
        let original = written(closes);
        for name in segments(&original) {
            for len in [0, 32, 64, 1000] {
                let disk = original.fork();
                let whole = disk.contents(&name).expect("there");
                disk.plant(&name, &whole[..len]);
                let told = [2, 3, 4].map(|seed| {
                    let (_, mut recovery) = open(&disk, seed);
                    recovery.damage.retain(|damage| damage.kind != DamageKind::SegmentHeader);
                    recovery.damage
                });
                assert!(told[0] == told[1] && told[1] == told[2], "{name} of {len}: {told:?}");
            }
        }
    }
}

#[test]
fn a_record_that_compaction_left_a_mark_for_is_told_until_its_key_is_put_again() {
    for index_files in [false, true] {
        let options = |seed| options(seed).with_index_files(index_files);
        let disk = written(true);
        let name = segments(&disk).swap_remove(2);
        let whole = disk.contents(&name).expect("there");
        // In the midst of a value.
        assert!(disk.overwrite(&name, 64 + 344 * 2 + 200, &[0xee; 8]), "{}", whole.len());
        let open = |seed| Store::open(disk.clone(), options(seed)).expect("opens");
        let lost = |store: &mut Store<MemDisk>| {
            (0..KEYS).find(|n| matches!(store.get(1, &n.to_le_bytes()), Err(ReadError::Damaged { .. })))
        };
        let (mut store, _) = open(2);
        let key = lost(&mut store).expect("one is damaged");
        // All others are written anew, and the segment goes.
        for n in (0..KEYS).filter(|n| *n != key) {
            store.put(1, &n.to_le_bytes(), &[2; 300], 1).expect("room");
        }
        store.sync().expect("syncs");
        upkeep(&mut store);
        assert!(disk.contents(&name).is_none(), "it was merged");
        assert_eq!(lost(&mut store), Some(key));
        store.close().expect("closes");
        for seed in 3..5 {
            let found = verify(&disk, None).expect("a store").report;
            let (mut store, recovery) = open(seed);
            assert_eq!(recovery.index_files > 0, index_files);
            for report in [found, recovery] {
                assert!(report.is_lossy() && report.affects(1) && !report.affects(2), "{report:?}");
                assert_eq!(report.damage.len(), 1, "{report:?}");
            }
            assert_eq!(lost(&mut store), Some(key));
            store.close().expect("closes");
        }
        let (mut store, _) = open(5);
        store.put(1, &key.to_le_bytes(), &[2; 300], 1).expect("room");
        store.close().expect("closes");
        let (mut store, recovery) = open(6);
        assert!(recovery.damage.is_empty() && lost(&mut store).is_none(), "{recovery:?}");
        assert!(verify(&disk, None).is_err(), "it is open");
        drop(store);
        assert!(verify(&disk, None).expect("a store").report.damage.is_empty());
    }
}

#[test]
fn what_was_sealed_short_is_cut_off_and_not_altered() {
    let original = written(false);
    for name in segments(&original) {
        for records in [3, 4] {
            let disk = original.fork();
            let whole = disk.contents(&name).expect("there");
            disk.plant(&name, &whole[..64 + 344 * records]);
            let (mut store, recovery) = open(&disk, 2);
            let is_cut = |report: &Recovery| report.damage.iter().any(|one| one.kind == DamageKind::CutOff);
            if !is_cut(&recovery) {
                continue;
            }
            upkeep(&mut store);
            store.close().expect("closes");
            let verified = verify(&disk, None).expect("a store");
            assert!(verified.sealed_segments > 2 && is_cut(&verified.report), "{verified:?}");
            let altered = verified.report.damage.iter().find(|one| one.kind == DamageKind::Altered);
            assert_eq!(altered, None, "{name}");
        }
    }
}

/// A key may be in bytes that were lost, or given up as lost: what is deleted meanwhile stays deleted, should they come back.
#[test]
fn what_is_deleted_after_a_loss_stays_deleted_when_the_bytes_come_back() {
    for (accepts, drops) in [(true, false), (true, true), (false, false), (false, true)] {
        let disk = MemDisk::new();
        let keys = 0..40u16;
        let by_index = |seed| Options::new([seed; 16]).with_segment_bytes(4096);
        let (mut store, _) = Store::open(disk.clone(), by_index(1)).expect("opens");
        for n in keys.clone() {
            store.put(n, &n.to_le_bytes(), &[7; 200], 1).expect("room");
        }
        store.sync().expect("syncs");
        upkeep(&mut store);
        store.close().expect("closes");
        let name = segments(&disk)[1].clone();
        let whole = disk.contents(&name).expect("there");
        assert!(disk.overwrite(&name, 1000, &[0xaa; 600]));
        let (mut store, recovery) = open(&disk, 2);
        assert!(recovery.damage.iter().any(|damage| damage.kind == DamageKind::Unknown), "{recovery:?}");
        let lost: Vec<u16> = keys.clone().filter(|n| store.get(*n, &n.to_le_bytes()).is_err()).collect();
        assert!((2..6).contains(&lost.len()), "{lost:?}");
        if accepts {
            store.accept_losses();
        }
        for n in &lost {
            let before = store.durable();
            let removed = if drops { store.drop_slot(*n) } else { store.delete(*n, &n.to_le_bytes()) };
            assert!(!before.covers(removed.expect("room")), "it is a write of its own");
        }
        store.sync().expect("syncs");
        store.close().expect("closes");
        // By index files, which know of the keys.
        let look = |disk: &MemDisk| {
            let (mut store, recovery) = Store::open(disk.clone(), by_index(3)).expect("opens");
            assert!(!recovery.is_lossy(), "{recovery:?}");
            for n in keys.clone() {
                let read = store.get(n, &n.to_le_bytes()).expect("readable");
                assert_eq!(matches!(read, Read::Absent), lost.contains(&n), "{n}: {read:?}");
            }
        };
        look(&disk.fork());
        // From a backup.
        disk.plant(&name, &whole);
        look(&disk.fork());
        let (mut store, recovery) = open(&disk, 4);
        assert!(!recovery.is_lossy());
        for n in &lost {
            assert!(matches!(store.get(*n, &n.to_le_bytes()), Ok(Read::Absent)), "{n}");
        }
        // Once nothing is in doubt a key that is not there costs nothing again.
        let removed = store.delete(7, b"never there").expect("nothing to write");
        assert!(store.durable().covers(removed));
    }
}

#[test]
fn a_listing_tells_of_what_a_get_calls_unknown() {
    let disk = written(true);
    let name = segments(&disk)[1].clone();
    assert!(disk.overwrite(&name, 1000, &[0xee; 600]));
    let (mut store, _) = open(&disk, 2);
    let pages = |store: &mut Store<MemDisk>, slot| {
        let mut pages = vec![store.list(slot, Cursor::START, 7).expect("readable")];
        while let Some(next) = pages[pages.len() - 1].next {
            pages.push(store.list(slot, next, 7).expect("readable"));
        }
        pages
    };
    let is_listed =
        |pages: &[Page], n: u32| pages.iter().any(|page| page.keys.contains(&n.to_le_bytes().to_vec()));
    let listed = pages(&mut store, 1);
    let unknown: Vec<u32> =
        (0..KEYS).filter(|n| store.get(1, &n.to_le_bytes()).map(drop) == Err(ReadError::Unknown)).collect();
    assert!(!unknown.is_empty() && !unknown.iter().any(|n| is_listed(&listed, *n)));
    assert!(listed.iter().all(|page| page.unknown), "{listed:?}");
    // A slot of which nothing is left, too.
    assert!(store.has_unknown() && pages(&mut store, 2).iter().all(|page| page.unknown));
    store.accept_losses();
    assert!(!store.has_unknown() && pages(&mut store, 1).iter().all(|page| !page.unknown));
    assert!(matches!(store.get(1, &unknown[0].to_le_bytes()), Ok(Read::Absent)));
}
