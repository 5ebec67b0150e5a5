//! Syncs in two phases: what is answered while one is under way, and what becomes of one that is not handed back.

use gramme_store::{MemDisk, Options, Position, Read, Store, SyncDone, SyncJob, WriteError};

fn store(disk: &MemDisk) -> Store<MemDisk> {
    Store::open(disk.clone(), Options::new([1; 16])).expect("opens").0
}

fn begun(store: &mut Store<MemDisk>) -> SyncJob<MemDisk> {
    store.begin_sync().expect("there is something to sync")
}

#[test]
fn a_sync_says_that_all_is_durable_or_that_it_can_t_say() {
    let mut store = store(&MemDisk::new());
    assert!(store.sync().expect("nothing to sync").covers(store.position()));
    let first = store.put(0, b"first", b"v", 0).expect("room");
    let job = begun(&mut store);
    assert!(store.begin_sync().is_none(), "one at a time");
    assert_eq!(store.sync(), Err(WriteError::SyncUnderWay));
    let second = store.put(0, b"second", b"v", 0).expect("room");
    assert_eq!(store.sync(), Err(WriteError::SyncUnderWay));
    let durable = store.complete_sync(job.run()).expect("syncs");
    assert!(durable.covers(first) && !durable.covers(second));
    assert!(store.sync().expect("syncs").covers(second));
    assert!(store.sync().expect("nothing to sync").covers(second));
}

#[test]
fn a_sync_that_is_dropped_is_begun_anew() {
    for runs in [false, true] {
        let disk = MemDisk::new();
        let mut store = store(&disk);
        let written = store.put(0, b"key", b"v", 0).expect("room");
        let job = begun(&mut store);
        if runs {
            drop(job.run())
        } else {
            drop(job)
        }
        assert!(store.writable() && !store.durable().covers(written));
        let again = begun(&mut store);
        assert!(store.begin_sync().is_none());
        assert!(store.complete_sync(again.run()).expect("syncs").covers(written));
        let written = store.put(0, b"key", b"w", 0).expect("room");
        drop(begun(&mut store));
        assert!(store.sync().expect("syncs").covers(written));
        store.put(0, b"key", b"x", 0).expect("room");
        drop(begun(&mut store));
        store.close().expect("closes in good order");
    }
}

#[test]
fn a_failure_that_nobody_is_told_of_stops_writing_all_the_same() {
    let disk = MemDisk::new();
    let mut store = store(&disk);
    store.put(0, b"key", b"v", 0).expect("room");
    let job = begun(&mut store);
    disk.fail_next_syncs(1);
    // A second sync would succeed, and have written nothing.
    drop(job.run());
    assert!(!store.writable());
    assert!(store.begin_sync().is_none());
    assert_eq!(store.sync(), Err(WriteError::Poisoned));
    assert_eq!(store.put(0, b"key", b"w", 0), Err(WriteError::Poisoned));
    assert_eq!(store.close(), Err(WriteError::Poisoned));
}

#[test]
fn what_is_durable_in_one_opening_says_nothing_of_another() {
    let (disk, options) = (MemDisk::new(), || Options::new([7; 16]));
    let (mut store, _) = Store::open(disk.clone(), options()).expect("opens");
    store.put(1, b"kept", b"value", 0).expect("room");
    let before = store.sync().expect("syncs");
    let lost = store.put(1, b"lost", b"value", 0).expect("room");
    drop(store);
    // The same seed, even: it is not what tells them apart.
    let of_nothing_unsynced = vec![0; disk.crash_outcomes().len()];
    let disk = disk.crash_image_of(&of_nothing_unsynced, 0);
    let (mut store, _) = Store::open(disk, options()).expect("opens");
    let other = store.put(1, b"other", b"value", 0).expect("room");
    assert_eq!(other, lost, "it has the number of the one that was lost");
    let durable = store.sync().expect("syncs");
    assert!(durable.covers(other) && !durable.covers(lost) && !before.covers(other));
    let (mut stranger, _) = Store::open(MemDisk::new(), options()).expect("opens");
    let strange = stranger.put(1, b"kept", b"value", 0).expect("room");
    assert!(!durable.covers(strange) && stranger.sync().expect("syncs").covers(strange));
}

/// The other's sync is refused, tells nothing, and is not in the way of the store's own.
fn refuses(store: &mut Store<MemDisk>, written: Position, foreign: SyncDone) {
    let own = begun(store);
    let (durable, unsynced) = (store.durable(), store.stats().unsynced_writes);
    assert_eq!(store.complete_sync(foreign), Err(WriteError::ForeignSync));
    assert_eq!((store.durable(), store.stats().unsynced_writes), (durable, unsynced));
    assert_eq!(store.sync(), Err(WriteError::SyncUnderWay), "its own is under way");
    assert!(store.complete_sync(own.run()).expect("syncs").covers(written));
}

#[test]
fn the_sync_of_a_store_s_copy_is_foreign_to_it() {
    let (disk, copied) = (MemDisk::new(), MemDisk::new());
    let mut first = store(&disk);
    first.put(0, b"both", b"v", 0).expect("room");
    first.snapshot().expect("a snapshot").copy_to(&copied, |_| {}).expect("copied");
    let (mut copy, _) = Store::open(copied.clone(), Options::new([2; 16])).expect("opens");
    // It would cover more than the copy has.
    for key in 0..9 {
        first.put(0, &[key], b"v", 0).expect("room");
    }
    let promised = copy.put(0, b"promised", b"v", 0).expect("room");
    refuses(&mut copy, promised, begun(&mut first).run());
    assert_eq!(found(&mut after_a_power_cut(&copied), b"promised"), b"v");
}

#[test]
fn the_sync_of_a_store_of_the_same_seed_is_foreign() {
    let (mut one, mut other) = (store(&MemDisk::new()), store(&MemDisk::new()));
    one.put(0, b"key", b"v", 0).expect("room");
    let written = other.put(0, b"key", b"v", 0).expect("room");
    refuses(&mut other, written, begun(&mut one).run());
}

#[test]
fn the_sync_of_an_earlier_opening_is_foreign() {
    let disk = MemDisk::new();
    let mut earlier = store(&disk);
    earlier.put(0, b"key", b"v", 0).expect("room");
    let done = begun(&mut earlier).run();
    earlier.put(0, b"key", b"w", 0).expect("room");
    drop(earlier);
    // The same seed, even.
    let mut later = store(&disk);
    let written = later.put(0, b"key", b"x", 0).expect("room");
    refuses(&mut later, written, done);
}

/// What a power cut leaves at the worst: nothing that was not synced.
fn after_a_power_cut(disk: &MemDisk) -> Store<MemDisk> {
    let of_nothing_unsynced = vec![0; disk.crash_outcomes().len()];
    let image = disk.crash_image_of(&of_nothing_unsynced, 1);
    let (store, recovery) = Store::open(image, Options::new([3; 16])).expect("opens");
    assert!(recovery.damage.is_empty(), "{recovery:?}");
    store
}

fn found(store: &mut Store<MemDisk>, key: &[u8]) -> Vec<u8> {
    match store.get(0, key) {
        Ok(Read::Value { value, .. }) => value,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_segment_written_to_after_a_sync_had_run_is_synced_by_the_next() {
    let disk = MemDisk::new();
    let options = Options::new([1; 16]).with_segment_bytes(4096);
    let (mut store, _) = Store::open(disk.clone(), options).expect("opens");
    store.put(0, b"before", &[1; 1000], 0).expect("room");
    let done = begun(&mut store).run();
    let after = store.put(0, b"after", &[2; 1000], 0).expect("room");
    // In another segment.
    store.put(0, b"last", &[3; 3000], 0).expect("room");
    assert!(!store.complete_sync(done).expect("syncs").covers(after));
    assert!(store.sync().expect("syncs").covers(after));
    let mut again = after_a_power_cut(&disk);
    assert_eq!(found(&mut again, b"after"), [2; 1000]);
    assert_eq!(found(&mut again, b"last"), [3; 3000]);
}

#[test]
fn a_merge_waits_until_what_made_its_records_dead_is_durable_itself() {
    let disk = MemDisk::new();
    let options = Options::new([1; 16]).with_segment_bytes(4096).with_index_files(false);
    let (mut store, _) = Store::open(disk.clone(), options).expect("opens");
    let maintain = |store: &mut Store<MemDisk>| loop {
        let step = store.maintain(1 << 20).expect("upkeep");
        if step.needs_sync || !step.more {
            return step.needs_sync;
        }
    };
    store.put(0, b"key", &[1; 3000], 0).expect("room");
    store.put(0, b"other", &[1; 3000], 0).expect("room");
    store.sync().expect("syncs");
    assert!(!maintain(&mut store), "all lives");
    store.put(0, b"a third", &[1; 100], 0).expect("room");
    let done = begun(&mut store).run();
    // Not in that sync, though it is there when that is completed.
    store.put(0, b"key", &[2; 300], 0).expect("room");
    assert!(maintain(&mut store), "the merge waits for a sync");
    let _ = store.complete_sync(done).expect("syncs");
    assert!(maintain(&mut store), "it waits for one of the later write");
    assert_eq!(found(&mut after_a_power_cut(&disk), b"key"), [1; 3000]);
    store.sync().expect("syncs");
    assert!(!maintain(&mut store), "it is through");
    assert_eq!(found(&mut after_a_power_cut(&disk), b"key"), [2; 300]);
}
