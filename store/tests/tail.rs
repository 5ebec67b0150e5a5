//! The end of the log: what was acknowledged last, and no watermark vouches for yet. Damage there can't be told from what a crash
//! leaves of a write that nobody was told of.

use gramme_store::{Disk, MemDisk, Options, Read, Recovery, Store, verify};

const KEY: &[u8] = b"the key";
const NEWER: &[u8] = b"its newer value";

fn options(seed: u8) -> Options {
    Options::new([seed; 16]).with_segment_bytes(64 << 10)
}

/// A value that is durable, and a newer one that is, too; the watermark of the second sync is lost.
fn overwritten() -> (MemDisk, String, u64) {
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
    store.put(3, KEY, b"its older value", 1).expect("room");
    store.sync().expect("syncs");
    store.put(3, KEY, NEWER, 2).expect("room");
    let job = store.begin_sync().expect("a write to sync");
    let done = job.run();
    disk.lose_next_writes(1);
    store.complete_sync(done).expect("it is acknowledged");
    drop(store);
    disk.kill();
    let find = |name: String| {
        let bytes = disk.contents(&name)?;
        Some((name, bytes.windows(NEWER.len()).rposition(|window| window == NEWER)?))
    };
    let (name, at) = disk.list().expect("lists").into_iter().find_map(find).expect("its record");
    (disk, name, (at - KEY.len() - 40) as u64)
}

fn value(store: &mut Store<MemDisk>) -> Vec<u8> {
    match store.get(3, KEY).expect("readable") {
        Read::Value { value, .. } => value,
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_bit_of_the_last_header_is_set_right_on_the_disk() {
    let (original, name, record) = overwritten();
    for bit in 0..40 * 8 {
        let disk = original.fork();
        assert!(disk.flip_bit(&name, record * 8 + bit));
        let (mut store, recovery) = Store::open(disk.clone(), options(2)).expect("opens");
        assert_eq!(value(&mut store), NEWER, "bit {bit}: {recovery:?}");
        let mended = |report: &Recovery| report.torn.iter().any(|one| one.slot == Some(3));
        assert!(mended(&recovery) && recovery.damage.is_empty() && recovery.torn.len() == 1, "{recovery:?}");
        // What is shown outlives a power cut, and needs no mending any more.
        drop(store);
        disk.crash(bit);
        let (mut store, recovery) = Store::open(disk, options(3)).expect("opens");
        assert_eq!(
            (value(&mut store), mended(&recovery)),
            (NEWER.to_vec(), false),
            "bit {bit}: {recovery:?}"
        );
    }
}

/// A sector's last byte is torn off, in the midst of a header: where that had a single bit, it looks like one that has turned over.
#[test]
fn a_torn_header_with_one_bit_wrong_is_no_damage() {
    let mut mended = 0;
    for filler in 0..64 {
        let disk = MemDisk::new();
        let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
        store.put(3, KEY, &vec![7; filler * 8], 1).expect("room");
        store.put(3, KEY, NEWER, 1 << 56).expect("room");
        let counts = disk.crash_outcomes();
        let mut all = vec![Vec::new()];
        for count in counts {
            all = all.iter().flat_map(|one| (0..count).map(move |n| [&one[..], &[n]].concat())).collect();
        }
        for outcomes in all {
            let (mut store, recovery) =
                Store::open(disk.crash_image_of(&outcomes, 511), options(2)).expect("opens");
            assert!(recovery.damage.is_empty(), "{filler}, {outcomes:?}: {recovery:?}");
            let newer = matches!(store.get(3, KEY), Ok(Read::Value { value, tag, .. }) if value == NEWER && tag == 1 << 56);
            mended += u32::from(newer && !recovery.torn.is_empty());
        }
    }
    assert!(mended > 0, "it was seen");
}

#[test]
fn a_last_record_that_is_not_whole_affects_its_slot_or_all() {
    let (original, name, record) = overwritten();
    // In the body: the header tells whose it was. It may never have been acknowledged, so the older value stands.
    let disk = original.fork();
    assert!(disk.flip_bit(&name, (record + 45) * 8));
    let (mut store, recovery) = Store::open(disk, options(2)).expect("opens");
    assert_eq!(value(&mut store), b"its older value");
    assert!(recovery.affects(3) && !recovery.affects(4), "{recovery:?}");
    assert!(
        !recovery.is_lossy() && recovery.torn.len() == 1,
        "a torn write costs nothing durable: {recovery:?}"
    );
    // Nothing tells whose it was.
    let disk = original.fork();
    assert!(disk.overwrite(&name, record, &[0xee; 60]));
    let (mut store, recovery) = Store::open(disk, options(2)).expect("opens");
    assert_eq!(value(&mut store), b"its older value");
    assert!(recovery.affects(3) && recovery.affects(4) && !recovery.is_lossy(), "{recovery:?}");
    // Whole: nothing is in doubt.
    let (mut store, recovery) = Store::open(original, options(2)).expect("opens");
    assert_eq!(value(&mut store), NEWER);
    assert!(!recovery.affects(3) && recovery.damage.is_empty(), "{recovery:?}");
}

#[test]
fn what_is_torn_is_told_by_one_opening_and_by_each_verification_before_it() {
    let (disk, name, record) = overwritten();
    assert!(disk.flip_bit(&name, (record + 45) * 8));
    let told = |disk: &MemDisk| verify(disk, None).expect("there is a store").report.torn;
    let torn = told(&disk);
    assert!(torn.len() == 1 && torn[0].slot == Some(3), "{torn:?}");
    assert_eq!(told(&disk), torn);
    // An opening that the power cuts off before it has cut the segment tells nobody, and takes nothing.
    let cut = disk.fork();
    cut.cut_power_after(0);
    assert!(Store::open(cut.clone(), options(2)).is_err());
    cut.crash(1);
    assert_eq!(told(&cut), torn);
    let (store, recovery) = Store::open(disk.clone(), options(2)).expect("opens");
    assert_eq!(recovery.torn, torn);
    drop(store);
    disk.kill();
    assert_eq!(told(&disk), []);
    let (_, recovery) = Store::open(disk, options(3)).expect("opens");
    assert!(recovery.torn.is_empty() && recovery.damage.is_empty(), "{recovery:?}");
}

/// Whatever is cut off the segment that was written to last, or reads as zeros, and was acknowledged: a slot that is not said to be affected
/// has all of it. (Zeros from the end of a record on are as if nothing had been written.)
#[test]
fn an_end_that_is_gone_affects_every_slot_that_had_records_in_it() {
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
    for n in 0..60u16 {
        store.put(n % 7, &[b'a'; 5], &vec![1; usize::from(n * 7 % 90)], u64::from(n)).expect("room");
        store.sync().expect("syncs");
    }
    drop(store);
    disk.kill();
    let name = "0000000000000001.seg";
    let whole = disk.contents(name).expect("there");
    let end = whole.iter().rposition(|byte| *byte != 0).expect("records") + 1;
    let look = |disk: &MemDisk, what: &str, at: usize| {
        let report = verify(disk, None).expect("a store").report;
        let (mut store, recovery) = Store::open(disk.clone(), options(2)).expect("opens");
        for slot in 0..7u16 {
            let tag = store.tag(slot, &[b'a'; 5]);
            let newest = (0..60u16).rev().find(|n| n % 7 == slot).map(u64::from);
            let is_well = store.get(slot, &[b'a'; 5]).is_ok() && tag == newest;
            assert!(is_well || recovery.affects(slot), "{what} {at}: {slot}, {tag:?}, {recovery:?}");
            // A verification does not know whether the disk reserves room.
            let is_told = report.affects(slot) || recovery.torn.iter().any(|torn| torn.end == 64 << 10);
            assert!(is_well || is_told, "{what} {at}: {slot}, {tag:?}, {report:?}");
        }
        recovery
    };
    for at in (0..end).step_by(3) {
        let cut = disk.fork();
        cut.plant(name, &whole[..at]);
        let recovery = look(&cut, "cut", at);
        assert!(recovery.affects(0) && recovery.affects(9), "{at}: {recovery:?}");
        // Where nothing of a record is left there is nothing to see.
        let is_amid = whole[at] != 0 && whole[at - 8.min(at)..at].iter().any(|byte| *byte != 0);
        let starts_record = at % 8 == 0;
        if is_amid && !starts_record {
            let zeroed = disk.fork();
            assert!(zeroed.overwrite(name, at as u64, &vec![0; end - at]));
            look(&zeroed, "zeroed", at);
        }
    }
    // As it was nothing is torn, and where no room is reserved each file ends with its last record.
    let recovery = look(&disk.fork(), "whole", end);
    assert!(recovery.torn.is_empty() && !recovery.affects(0), "{recovery:?}");
    let growing = disk.fork();
    growing.reserve_room(false);
    growing.plant(name, &whole[..end.next_multiple_of(8)]);
    let (_, recovery) = Store::open(growing, options(2)).expect("opens");
    assert!(recovery.torn.is_empty() && recovery.damage.is_empty(), "{recovery:?}");
}
