//! Scrubbing: rot that no read has met yet is found, and whose it is.

use gramme_store::{
    Damage, DamageKind, Disk, MemDisk, Options, Read, ReadError, Scrubbed, SharedStore, Store,
};
use std::collections::BTreeSet;

const KEYS: u32 = 100;

fn options(seed: u8) -> Options {
    Options::new([seed; 16]).with_segment_bytes(8192)
}

fn slot(n: u32) -> u16 {
    u16::try_from(n % 7).expect("below seven")
}

fn value(n: u32) -> Vec<u8> {
    [n.to_le_bytes().as_slice(), &[0x5a; 120]].concat()
}

/// Every key twice, so that half of the records are dead; some deleted; closed, so that openings go by index files.
fn prepared() -> MemDisk {
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
    for _ in 0..2 {
        for n in 0..KEYS {
            store.put(slot(n), &n.to_le_bytes(), &value(n), 1).expect("room");
        }
    }
    for n in (0..KEYS).step_by(10) {
        store.delete(slot(n), &n.to_le_bytes()).expect("room");
    }
    store.close().expect("closes");
    disk
}

fn segments(disk: &MemDisk) -> Vec<String> {
    let mut names = disk.list().expect("lists");
    names.retain(|name| name.ends_with(".seg"));
    names
}

fn open(disk: &MemDisk) -> Store<MemDisk> {
    let (store, recovery) = Store::open(disk.clone(), options(2)).expect("opens");
    assert!(recovery.index_files > 1 && recovery.damage.is_empty(), "{recovery:?}");
    store
}

/// A whole round, in steps of this budget.
fn round(store: &mut Store<MemDisk>, budget: usize) -> (Vec<Damage>, u64, u64) {
    let (mut damage, mut idle, mut bytes) = (Vec::new(), 0, 0);
    for _ in 0..10_000 {
        let Scrubbed { bytes: read, damage: found, idle_bytes, complete, .. } =
            store.scrub(budget).expect("reads");
        damage.extend(found);
        (idle, bytes) = (idle + idle_bytes, bytes + read);
        if complete {
            return (damage, idle, bytes);
        }
    }
    panic!("a round without an end");
}

/// The keys that can't be read, by their slots.
fn unreadable(store: &mut Store<MemDisk>) -> Vec<u16> {
    let look = |n| match store.get(slot(n), &n.to_le_bytes()) {
        Ok(Read::Value { value: found, .. }) => {
            assert!(n % 10 != 0 && found == value(n));
            None
        }
        Ok(Read::Absent) => {
            assert_eq!(n % 10, 0, "key {n} is not absent");
            None
        }
        Err(ReadError::Damaged { .. }) => Some(slot(n)),
        other => panic!("{other:?}"),
    };
    let mut slots: Vec<u16> = (0..KEYS).filter_map(look).collect();
    slots.sort_unstable();
    slots
}

fn slots_of(damage: &[Damage], wanted: fn(DamageKind) -> Option<u16>) -> Vec<u16> {
    let mut slots: Vec<u16> = damage.iter().filter_map(|damage| wanted(damage.kind)).collect();
    slots.sort_unstable();
    slots
}

fn lost(kind: DamageKind) -> Option<u16> {
    if let DamageKind::Record { slot, .. } = kind { Some(slot) } else { None }
}

#[test]
fn a_healthy_store_is_read_once_in_a_round_and_nothing_is_found() {
    let disk = prepared();
    let sizes: u64 =
        segments(&disk).iter().map(|name| disk.contents(name).expect("there").len() as u64 - 64).sum();
    assert!(sizes > 30_000);
    for budget in [1, 500, 1 << 20] {
        let mut store = open(&disk.fork());
        for _ in 0..2 {
            assert_eq!(round(&mut store, budget), (Vec::new(), 0, sizes));
        }
    }
}

#[test]
fn every_flipped_bit_is_found_and_is_told_from_one_that_no_key_needs() {
    let disk = prepared();
    let (mut found_lost, mut found_mended, mut found_idle) = (0, 0, 0);
    for name in segments(&disk) {
        let bits = disk.contents(&name).expect("there").len() as u64 * 8;
        // Behind the header of the segment: what that says, the manifest says too.
        for bit in (64 * 8..bits).step_by(397) {
            let copy = disk.fork();
            assert!(copy.flip_bit(&name, bit));
            let mut store = open(&copy);
            let (damage, idle, _) = round(&mut store, 3000);
            assert!(damage.len() == 1 || (damage.is_empty() && idle > 0), "bit {bit} of {name}: {damage:?}");
            assert_eq!(slots_of(&damage, lost), unreadable(&mut store), "bit {bit} of {name}");
            found_lost += slots_of(&damage, lost).len();
            found_mended += damage.iter().filter(|one| matches!(one.kind, DamageKind::Mended { .. })).count();
            found_idle += usize::from(idle > 0);
        }
    }
    assert!(
        found_lost > 50 && found_mended > 10 && found_idle > 50,
        "{found_lost} {found_mended} {found_idle}"
    );
}

#[test]
fn records_without_headers_are_found_by_the_index_and_healed_by_putting_them_again() {
    let disk = prepared();
    for (name, cut) in segments(&disk).into_iter().flat_map(|name| [(name.clone(), false), (name, true)]) {
        let copy = disk.fork();
        let mut store = open(&copy);
        // Rot while the store runs.
        let bytes = copy.contents(&name).expect("there");
        let middle = bytes.len() / 2 / 8 * 8;
        for bit in (middle * 8..if cut { bytes.len() } else { middle + 700 } * 8).filter(|bit| bit % 3 == 0) {
            copy.flip_bit(&name, bit as u64);
        }
        let (damage, idle, _) = round(&mut store, 1 << 16);
        assert!(damage.len() + usize::from(idle > 0) >= 1, "{name}");
        let lost_slots = slots_of(&damage, lost);
        assert_eq!(lost_slots, unreadable(&mut store), "{name}");
        let to_heal: BTreeSet<u16> = lost_slots.into_iter().collect();
        for n in (0..KEYS).filter(|n| n % 10 != 0 && to_heal.contains(&slot(*n))) {
            store.put(slot(n), &n.to_le_bytes(), &value(n), 1).expect("room");
        }
        let (damage, idle, _) = round(&mut store, 1 << 16);
        assert!(damage.is_empty() && idle > 0, "{name}: {damage:?}");
        assert_eq!(unreadable(&mut store), []);
    }
}

/// Compaction keeps the place of what it can't copy, which is as unreadable as before.
#[test]
fn what_compaction_could_not_copy_is_found_until_it_is_put_again() {
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
    let put = |store: &mut Store<MemDisk>, n: u32| {
        store.put(slot(n), &n.to_le_bytes(), &value(n), 1).expect("room");
    };
    (1..KEYS).for_each(|n| put(&mut store, n));
    let sync = store.begin_sync().expect("there is something to sync").run();
    store.complete_sync(sync).expect("syncs");
    let name = segments(&disk).into_iter().min().expect("there are segments");
    let bytes = disk.contents(&name).expect("there");
    let at = bytes.windows(124).position(|window| window == value(1)).expect("the first key is in it") as u64;
    assert!(disk.flip_bit(&name, at * 8) && disk.flip_bit(&name, at * 8 + 9));
    for _ in 0..10 {
        (2..KEYS).for_each(|n| put(&mut store, n));
        while store.maintain(1 << 16).expect("maintains").more {}
        let sync = store.begin_sync().expect("there is something to sync").run();
        store.complete_sync(sync).expect("syncs");
    }
    assert!(disk.contents(&name).is_none(), "its segment was compacted");
    store.close().expect("closes");
    let (mut store, _) = Store::open(disk, options(2)).expect("opens");
    for _ in 0..2 {
        let (damage, ..) = round(&mut store, 1 << 16);
        assert_eq!(slots_of(&damage, lost), [slot(1)]);
    }
    put(&mut store, 1);
    let (damage, ..) = round(&mut store, 1 << 16);
    assert_eq!(damage, []);
}

fn take(sum: &mut Scrubbed, step: Scrubbed) {
    assert!(!step.complete);
    sum.damage.extend(step.damage);
    sum.idle_bytes += step.idle_bytes;
    sum.bytes += step.bytes;
}

#[test]
fn a_read_that_fails_once_is_made_again_and_nothing_is_damaged_by_it() {
    let disk = prepared();
    for name in segments(&disk) {
        for flipped in [false, true] {
            let copy = disk.fork();
            if flipped {
                assert!(copy.flip_bit(&name, 5000));
            }
            // What a disk that always reads would show.
            let expected = round(&mut open(&copy.fork()), 1 << 20);
            assert_eq!(expected.0.len() + usize::from(expected.1 > 0) > 0, flipped);
            // The failure comes at the first read of any of the segments.
            for good in 0..segments(&disk).len() {
                let copy = copy.fork();
                let mut store = open(&copy);
                let mut before = Scrubbed::default();
                for _ in 0..good {
                    take(&mut before, store.scrub(1).expect("reads"));
                }
                copy.fail_next_reads(1);
                let (mut damage, idle, bytes) = round(&mut store, 1 << 20);
                damage.extend(before.damage);
                damage.sort_by_key(|damage| (damage.segment, damage.start));
                assert_eq!((damage, idle + before.idle_bytes, bytes + before.bytes), expected, "{good}");
            }
        }
    }
}

#[test]
fn a_disk_that_is_gone_is_an_error_and_not_damage() {
    let disk = prepared();
    let mut store = open(&disk);
    disk.cut_power_after(0);
    assert!(store.put(1, b"key", b"value", 1).is_err());
    for _ in 0..3 {
        assert!(matches!(store.scrub(1 << 20), Err(ReadError::Disk(_))));
    }
}

#[test]
fn a_round_outlives_compaction_and_writes() {
    let disk = prepared();
    let mut store = open(&disk);
    for n in 0..600u32 {
        store.put(6, &(n % 9).to_le_bytes(), &[1; 200], 1).expect("room");
        if n % 5 == 0 {
            store.sync().expect("syncs");
            store.maintain(2000).expect("maintains");
        }
        let step = store.scrub(100).expect("reads");
        assert!(step.damage.is_empty() && step.idle_bytes == 0, "{step:?}");
    }
    let before = store.stats().segments;
    assert_eq!(round(&mut store, 1 << 20).0, []);
    assert!(before > 2);
}

#[test]
fn a_shared_store_can_be_scrubbed() {
    let disk = prepared();
    let name = segments(&disk).pop().expect("some");
    let last = disk.contents(&name).expect("there").len() as u64;
    assert!(disk.flip_bit(&name, last * 8 - 900));
    let (store, _) = SharedStore::open(disk, options(2)).expect("opens");
    let mut found = 0;
    loop {
        let step = store.scrub(1 << 16).expect("reads");
        found += step.damage.len() as u64 + step.idle_bytes;
        if step.complete {
            break;
        }
    }
    assert!(found > 0);
}

/// The last record of a segment stands where the one before it should, and where it should stand there is nothing: nothing but zeros
/// follows what can't be read.
#[test]
fn zeros_after_damage_at_a_segment_s_end_are_as_damaged() {
    let disk = prepared();
    let mut store = open(&disk);
    let len = 40 + 4 + value(0).len();
    let mut found = 0;
    for name in segments(&disk) {
        let contents = disk.contents(&name).expect("there");
        let puts = contents.windows(120).enumerate().filter(|(_, window)| *window == [0x5a; 120]);
        let starts: Vec<usize> = puts.map(|(at, _)| at - 48).collect();
        let [.., before, last] = starts[..] else { continue };
        if last + len != contents.len() || before + len != last {
            continue;
        }
        found += 1;
        assert!(disk.overwrite(&name, before as u64, &contents[last..]));
        assert!(disk.overwrite(&name, last as u64, &vec![0; len]));
    }
    assert!(found > 1, "segments end with two puts");
    let unreadable = unreadable(&mut store);
    assert!(unreadable.len() > 2);
    let (damage, _, _) = round(&mut store, 3000);
    assert_eq!(slots_of(&damage, lost), unreadable);
}

#[test]
fn a_write_that_went_to_another_s_place_costs_two_records_under_an_open_store() {
    let disk = prepared();
    let mut store = open(&disk);
    // The second writes of two keys: the disk put the one where the other stands, and where it should stand there is nothing.
    let place = |n: u32| {
        let record = [&n.to_le_bytes()[..], &value(n)].concat();
        let places = segments(&disk).into_iter().flat_map(|name| {
            let contents = disk.contents(&name).expect("there");
            let places = contents.windows(record.len()).enumerate().filter(|(_, window)| *window == record);
            places.map(|(at, _)| (name.clone(), at - 40)).collect::<Vec<_>>()
        });
        places.last().expect("it was written")
    };
    let len = 40 + 4 + value(0).len();
    let ((from, start), (to, there)) = (place(15), place(57));
    let record = disk.contents(&from).expect("there")[start..start + len].to_vec();
    assert!(disk.overwrite(&to, there as u64, &record));
    assert!(disk.overwrite(&from, start as u64, &vec![0; len]));
    let mut both = vec![slot(15), slot(57)];
    both.sort_unstable();
    assert_eq!(unreadable(&mut store), both, "neither of them, and nothing else");
    let (damage, _, _) = round(&mut store, 3000);
    assert_eq!(slots_of(&damage, lost), both);
    drop(store);
    // An opening by index files knows of both.
    let mut store = open(&disk);
    assert_eq!(unreadable(&mut store), both);
    for n in [15, 57] {
        store.put(slot(n), &n.to_le_bytes(), &value(n), 1).expect("healed from a replica");
    }
    assert_eq!(unreadable(&mut store), []);
}
