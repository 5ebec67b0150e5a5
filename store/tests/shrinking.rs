//! Of values that may shrink their beginnings stay, and nothing else changes.

use gramme_store::{
    Cursor, Disk, MAX_KEY_BYTES, MAX_VALUE_BYTES, MemDisk, Options, Read, ReadError, Reads, SharedStore,
    Store, WriteError, verify,
};
use std::time::{Duration, Instant};

const SLOTS: u16 = 7;

fn options(seed: u8, tree: bool, indexed: bool) -> Options {
    let options = Options::new([seed; 16]).with_segment_bytes(16 << 10).with_index_files(indexed);
    if tree { options.with_tree_key([7; 16]) } else { options }
}

fn upkeep(store: &mut Store<MemDisk>) {
    for _ in 0..100_000 {
        store.sync().expect("syncs");
        match store.maintain(2048) {
            Ok(done) if done.more || done.needs_sync => {}
            Ok(_) | Err(WriteError::NoSpace) => return,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("upkeep comes to no end");
}

fn key(n: u32) -> (u16, [u8; 4]) {
    (u16::try_from(n).expect("few") % SLOTS, n.to_le_bytes())
}

fn value(n: u32) -> Vec<u8> {
    (0..300).map(|at| (n + at).to_le_bytes()[0]).collect()
}

fn get(store: &mut Store<MemDisk>, n: u32) -> Vec<u8> {
    let (slot, key) = key(n);
    match store.get(slot, &key).expect("readable") {
        Read::Value { value, tag, expires: None } if tag == u64::from(n) + 1 => value,
        other => panic!("{n}: {other:?}"),
    }
}

/// The keys of a slot, and their tags.
type Listed = Vec<(Vec<u8>, u64)>;

/// All that is told of keys without their values.
fn told(store: &mut Store<MemDisk>) -> (u64, Option<u128>, Vec<Listed>) {
    let list = |slot| {
        let page = store.list(slot, Cursor::START, 10_000).expect("readable");
        assert_eq!((page.unreadable, page.next), (0, None));
        let mut keys: Vec<_> = page.keys.into_iter().zip(page.tags).collect();
        keys.sort();
        assert_eq!(store.slot_len(slot), keys.len() as u64);
        keys
    };
    let listed = (0..SLOTS).map(list).collect();
    (store.len(), store.tree().map(|tree| tree.root()), listed)
}

#[test]
fn upkeep_alone_leaves_the_beginnings_and_all_that_is_told_of_them() {
    const KEPT: usize = 21;
    for tree in [false, true] {
        for (indexed, reopens) in [(true, true), (true, false), (false, true), (false, false)] {
            let case = format!("tree {tree}, indexed {indexed}, reopens {reopens}");
            let disk = MemDisk::new();
            let (mut store, _) = Store::open(disk.clone(), options(1, tree, indexed)).expect("opens");
            // One in ten stays whole.
            let is_whole = |n: u32| n.is_multiple_of(10);
            for n in 0..2000 {
                let shrinks = if is_whole(n) { 1000 } else { 100 + u64::from(n % 17) };
                let (slot, key) = key(n);
                store.put_shrinking(slot, &key, &value(n), u64::from(n) + 1, shrinks, KEPT).expect("room");
            }
            upkeep(&mut store);
            let before = told(&mut store);
            assert_eq!(before.0, 2000);
            if reopens {
                store.close().expect("closes");
                let (opened, recovery) = Store::open(disk.clone(), options(2, tree, indexed)).expect("opens");
                assert_eq!(recovery.index_files > 0, indexed, "{case}");
                store = opened;
            }
            let log = store.stats().log_bytes;
            store.set_time(99);
            upkeep(&mut store);
            assert!(store.stats().log_bytes >= log, "{case}: it is too early");
            // A read makes nothing shrink.
            store.set_time(200);
            (0..2000).for_each(|n| assert_eq!(get(&mut store, n), value(n), "{case}"));
            assert!(store.stats().log_bytes >= log);
            upkeep(&mut store);
            let after = store.stats().log_bytes;
            // Nine in ten take 72 bytes instead of 360, but for those in the segment that is written to.
            assert!(after < log * 30 / 100, "{case}: {after} of {log} bytes stay");
            let left: Vec<usize> = (0..2000).map(|n| get(&mut store, n).len()).collect();
            let shrunk = left.iter().filter(|len| **len == KEPT).count();
            assert!(shrunk > 1750, "{case}: {shrunk}");
            // Before the next opening is told the time, too, and whatever the end was.
            for end in 0..4 {
                assert_eq!(told(&mut store), before, "{case}, end {end}");
                for (n, len) in (0..).zip(&left) {
                    assert!(*len == 300 || (*len == KEPT && !is_whole(n)), "{case}: {n} has {len}");
                    assert_eq!(get(&mut store, n), value(n)[..*len], "{case}, end {end}");
                }
                match end {
                    0 => store.close().expect("closes"),
                    _ => drop(store),
                }
                match end {
                    1 => disk.kill(),
                    2 => disk.crash(5),
                    _ => {}
                }
                let (opened, recovery) =
                    Store::open(disk.clone(), options(3 + end, tree, indexed)).expect("opens");
                assert!(recovery.damage.is_empty() && recovery.torn.is_empty(), "{case}: {recovery:?}");
                store = opened;
            }
            drop(store);
            assert_eq!(verify(&disk, None).expect("a store").report.damage, []);
        }
    }
}

#[test]
fn a_full_store_takes_puts_when_what_it_holds_may_shrink() {
    for tree in [false, true] {
        let disk = MemDisk::new();
        disk.set_capacity(Some(2 << 20));
        let (mut store, _) = Store::open(disk, options(1, tree, true)).expect("opens");
        let put = |store: &mut Store<MemDisk>, n: u32| {
            let (slot, key) = key(n);
            store.put_shrinking(slot, &key, &value(n), 1, 100, 8).map(drop)
        };
        let mut stored = 0;
        while put(&mut store, stored).is_ok() {
            stored += 1;
        }
        upkeep(&mut store);
        assert_eq!(put(&mut store, stored), Err(WriteError::NoSpace));
        store.set_time(100);
        upkeep(&mut store);
        for n in 0..stored / 2 {
            let mut done = put(&mut store, 10_000 + n);
            if done.is_err() {
                upkeep(&mut store);
                done = put(&mut store, 10_000 + n);
            }
            assert_eq!(done, Ok(()), "{n} of {stored}, tree {tree}, {:?}", store.stats());
        }
        assert_eq!(store.len(), u64::from(stored + stored / 2));
    }
}

#[test]
fn what_keeps_all_is_a_plain_put_and_what_keeps_nothing_an_empty_value() {
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk, options(1, false, true)).expect("opens");
    let taken = |store: &mut Store<MemDisk>, kept: usize, value: &[u8]| {
        let before = store.stats().log_bytes;
        store.put_shrinking(0, b"key", value, 1, 0, kept).expect("room");
        store.stats().log_bytes - before
    };
    for kept in [5, 6, usize::MAX] {
        assert_eq!(taken(&mut store, kept, b"value"), 48);
    }
    assert_eq!(taken(&mut store, 0, b""), 48);
    assert_eq!(taken(&mut store, 4, b"value"), 64, "twelve bytes more");
    // What is past from the beginning waits for compaction, too.
    store.put_shrinking(1, b"empty", &[1; 5000], 2, 0, 0).expect("room");
    for n in 0..100u32 {
        store.put_shrinking(2, &n.to_le_bytes(), &[1; 1000], 3, 0, 1).expect("room");
    }
    let len =
        |store: &mut Store<MemDisk>, slot, key: &[u8]| store.get_with(slot, key, |found| found.bytes.len());
    assert_eq!(len(&mut store, 1, b"empty"), Ok(Some(5000)));
    upkeep(&mut store);
    assert_eq!(len(&mut store, 1, b"empty"), Ok(Some(0)));
    assert_eq!(store.tag(1, b"empty"), Some(2));
}

#[test]
fn the_longest_shrinks_too_and_a_longer_one_is_refused() {
    let (mut store, _) = Store::open(MemDisk::new(), options(1, true, false)).expect("opens");
    let (key, value) = (vec![7; MAX_KEY_BYTES], vec![1; MAX_VALUE_BYTES + 1]);
    assert_eq!(
        store.put_shrinking(0, &key, &value, 1, 5, 1),
        Err(WriteError::ValueLength(MAX_VALUE_BYTES + 1))
    );
    store.put_shrinking(0, &key, &value[1..], 1, 5, 1).expect("room");
    let len = |store: &mut Store<MemDisk>| store.get_with(0, &key, |found| found.bytes.len());
    let listed = |store: &mut Store<MemDisk>| store.list(0, Cursor::START, 10).expect("readable").keys;
    assert_eq!((len(&mut store), listed(&mut store)), (Ok(Some(MAX_VALUE_BYTES)), vec![key.clone()]));
    // Another segment is written to.
    store.put(1, b"other", b"", 1).expect("room");
    store.set_time(5);
    upkeep(&mut store);
    assert_eq!((len(&mut store), listed(&mut store)), (Ok(Some(1)), vec![key.clone()]));
}

#[test]
fn a_read_that_was_begun_before_answers_all_of_it() {
    let options = options(1, false, true).with_reads(Reads::Jobs);
    let (mut store, _) = Store::open(MemDisk::new(), options).expect("opens");
    for n in 0..200 {
        let (slot, key) = key(n);
        store.put_shrinking(slot, &key, &value(n), 1, 5, 2).expect("room");
    }
    store.set_time(5);
    let (slot, key) = key(0);
    let Ok(Read::Pending(before)) = store.get(slot, &key) else { panic!("it is read by a job") };
    upkeep(&mut store);
    let Ok(Read::Pending(after)) = store.get(slot, &key) else { panic!("it is read by a job") };
    for (job, len) in [(before, 300), (after, 2)] {
        match store.finish_read(job.run()) {
            Ok(Read::Value { value: found, tag: 1, expires: None }) => assert_eq!(found, value(0)[..len]),
            other => panic!("{other:?}"),
        }
    }
}

/// Wherever its record is damaged, it is unknown, and stays so when compaction has come by.
#[test]
fn a_damaged_one_never_shrinks_to_something_else() {
    let written = |disk: &MemDisk| {
        let (mut store, _) = Store::open(disk.clone(), options(1, true, true)).expect("opens");
        for n in 0..100 {
            let (slot, key) = key(n);
            store.put_shrinking(slot, &key, &value(n), u64::from(n) + 1, 5, 40).expect("room");
        }
        store.sync().expect("syncs");
        store
    };
    let whole = value(50);
    // From the key on: the stamp, how much is kept, what stays, what goes.
    for at in [0, 3, 4, 11, 12, 15, 16, 55, 56, 315] {
        let disk = MemDisk::new();
        let mut store = written(&disk);
        let (name, start) = disk
            .list()
            .expect("lists")
            .into_iter()
            .find_map(|name| {
                let found = disk.contents(&name)?.windows(300).position(|window| window == whole);
                Some((name, found? - 16))
            })
            .expect("it is on the disk");
        assert!(disk.flip_bit(&name, (start + at) as u64 * 8 + 1));
        store.set_time(5);
        upkeep(&mut store);
        for reopened in [false, true] {
            let (slot, key) = key(50);
            let found = store.get(slot, &key);
            assert!(matches!(found, Err(ReadError::Damaged { .. })), "{at}, {reopened}: {found:?}");
            for n in (0..100).filter(|n| *n != 50) {
                // What was written last is in no segment yet that can be merged.
                let found = get(&mut store, n);
                assert!(found == value(n)[..40] || (n > 80 && found == value(n)), "{at}: {n}");
            }
            if !reopened {
                store.close().expect("closes");
                store = Store::open(disk.clone(), options(2, true, true)).expect("opens").0;
            }
        }
    }
}

#[test]
fn a_shared_store_gives_back_what_may_go_without_another_write() {
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
        let shrinks = if n < 2000 { 100 } else { 200 };
        store.put_shrinking_unsynced(0, &n.to_le_bytes(), &[1; 1000], 0, shrinks, 10).expect("room");
    }
    store.put_shrinking(0, b"one more", &[2; 1000], 0, 200, 10).expect("room");
    store.maintain().expect("upkeep");
    let all = store.stats().log_bytes;
    store.set_time(99);
    assert_eq!(store.stats().log_bytes, all, "it is too early");
    store.set_time(100);
    given_back(&store, all * 6 / 10);
    // An opening by index files does not know what may go when, until it is told the time.
    store.close().expect("closes");
    let store = open();
    store.maintain().expect("upkeep");
    store.set_time(200);
    given_back(&store, all / 10);
    assert_eq!(store.len(), 4001);
    assert_eq!(store.get(0, b"one more").expect("readable").map(|found| found.bytes), Some(vec![2; 10]));
}

#[test]
fn a_clock_that_was_set_right_lets_no_more_shrink() {
    let (mut store, _) = Store::open(MemDisk::new(), options(1, true, true)).expect("opens");
    let put = |store: &mut Store<MemDisk>, n: u32, shrinks| {
        let (slot, key) = key(n);
        store.put_shrinking(slot, &key, &value(n), u64::from(n) + 1, shrinks, 21).expect("room");
    };
    store.set_time(1_000_000);
    (0..1000).for_each(|n| put(&mut store, n, 500));
    upkeep(&mut store);
    assert_eq!(get(&mut store, 7).len(), 21);
    store.set_time(400);
    (0..1000).for_each(|n| put(&mut store, n, 500));
    upkeep(&mut store);
    (0..1000).for_each(|n| assert_eq!(get(&mut store, n), value(n)));
    store.set_time(500);
    upkeep(&mut store);
    assert_eq!(get(&mut store, 7).len(), 21);
}
