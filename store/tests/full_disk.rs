//! Full disks, those that reserve room for files and those that don't: deletes and compaction go on, and what they free serves.

use gramme_store::{Disk, MemDisk, Options, Read, SharedStore, Store, WriteError};
use std::time::{Duration, Instant};

const SEGMENT: u64 = 16 << 10;

fn options(seed: u8) -> Options {
    Options::new([seed; 16]).with_segment_bytes(SEGMENT).with_index_files(false)
}

/// All upkeep that the room allows; whether there was any.
fn upkeep(store: &mut Store<MemDisk>) -> bool {
    let mut freed = 0;
    for _ in 0..10_000 {
        let synced = store.sync();
        assert!(matches!(synced, Ok(_) | Err(WriteError::NoSpace)), "{synced:?}");
        match store.maintain(1 << 20) {
            Ok(done) => {
                freed += done.freed_bytes;
                if !done.more && !done.needs_sync {
                    return freed > 0;
                }
            }
            Err(WriteError::NoSpace) => return freed > 0,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("upkeep comes to no end");
}

/// A disk that is full of live records, and how many there are.
fn filled(reserves: bool, value: usize) -> (MemDisk, Store<MemDisk>, u32) {
    let disk = MemDisk::new();
    disk.reserve_room(reserves);
    disk.set_capacity(Some(1 << 20));
    let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
    let mut n = 0u32;
    loop {
        let mut put = || store.put(1, &n.to_le_bytes(), &vec![1; value], 1);
        if put().is_err() {
            break;
        }
        n += 1;
    }
    upkeep(&mut store);
    disk.set_capacity(Some(disk.used_bytes()));
    (disk, store, n)
}

#[test]
fn deletes_that_are_spread_thin_all_go() {
    for reserves in [true, false] {
        for step in [2, 9, 40] {
            let (_, mut store, stored) = filled(reserves, 100);
            for n in (0..stored).step_by(step) {
                let mut deleted = store.delete(1, &n.to_le_bytes());
                if deleted == Err(WriteError::NoSpace) {
                    upkeep(&mut store);
                    deleted = store.delete(1, &n.to_le_bytes());
                }
                assert!(deleted.is_ok(), "{n} of {stored}, each {step}th, reserves {reserves}: {deleted:?}");
            }
            upkeep(&mut store);
            store.sync().expect("syncs");
        }
    }
}

#[test]
fn puts_go_on_where_there_is_room_again_after_removals_used_some_of_what_was_put_aside() {
    for reserves in [true, false] {
        let (disk, mut store, stored) = filled(reserves, 100);
        let put_aside = || disk.contents("RESERVE").map_or(0, |bytes| bytes.len());
        let whole = put_aside();
        // So many that a segment of their own is made for them, and so few that nothing is worth a merge.
        let mut deleted = (0..stored).step_by(9).map(|n| store.delete(1, &n.to_le_bytes()));
        assert!(
            deleted.by_ref().take_while(|_| put_aside() == whole).all(|deleted| deleted.is_ok()),
            "reserves {reserves}"
        );
        assert!((1..whole).contains(&put_aside()), "{} of {whole}, reserves {reserves}", put_aside());
        drop(deleted);
        let put = |store: &mut Store<MemDisk>, n: u32| store.put(2, &n.to_le_bytes(), &[1; 300], 1);
        assert_eq!((0..).find_map(|n| put(&mut store, n).err()), Some(WriteError::NoSpace));
        disk.set_capacity(None);
        upkeep(&mut store);
        for n in 0..200 {
            let done = put(&mut store, n);
            assert!(done.is_ok(), "{n}, reserves {reserves}: {done:?}, {} of {whole}", put_aside());
        }
        assert!(!store.is_full() && put_aside() >= whole, "{} of {whole}", put_aside());
    }
}

#[test]
fn what_was_lent_to_a_delete_is_not_for_puts() {
    let (_, mut store, stored) = filled(false, 300);
    for round in 0..200u32 {
        for n in [round * 2, round * 2 + 1] {
            let mut deleted = store.delete(1, &n.to_le_bytes());
            if deleted == Err(WriteError::NoSpace) {
                upkeep(&mut store);
                deleted = store.delete(1, &n.to_le_bytes());
            }
            assert!(deleted.is_ok(), "{n} of {stored}: {deleted:?}");
        }
        for key in 0u64.. {
            if store.put(2, &(u64::from(round) << 32 | key).to_le_bytes(), &[1; 300], 1).is_err() {
                break;
            }
        }
        if round % 3 == 0 {
            upkeep(&mut store);
        }
    }
}

#[test]
fn a_merge_that_finds_no_room_is_not_in_the_way_of_others() {
    for reserves in [true, false] {
        let disk = MemDisk::new();
        disk.reserve_room(reserves);
        let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
        store.put(1, b"big", &vec![1; 60_000], 1).expect("room");
        store.sync().expect("syncs");
        for n in 0..200u32 {
            store.put(1, &n.to_le_bytes(), &[1; 300], 1).expect("room");
        }
        store.close().expect("closes");
        // What stands behind the record in its segment is nobody knows what.
        let big = (1..9)
            .map(|n| format!("{n:016x}.seg"))
            .find(|name| disk.contents(name).is_some_and(|bytes| bytes.len() > 50_000));
        let big = big.expect("its segment");
        let len = disk.contents(&big).expect("there").len() as u64;
        assert!(disk.overwrite(&big, len - 40, &[0xee; 40]));
        let (mut store, recovery) = Store::open(disk.clone(), options(2)).expect("opens");
        assert!(recovery.is_lossy(), "{recovery:?}");
        for n in 1000u32.. {
            if store.put(1, &n.to_le_bytes(), &[1; 300], 1).is_err() {
                break;
            }
            if n == 1050 {
                disk.set_capacity(Some(disk.used_bytes() + 5000));
            }
        }
        upkeep(&mut store);
        disk.set_capacity(Some(disk.used_bytes()));
        store.accept_losses();
        upkeep(&mut store);
        for n in 0..100u32 {
            let mut deleted = store.delete(1, &n.to_le_bytes());
            if deleted == Err(WriteError::NoSpace) {
                upkeep(&mut store);
                deleted = store.delete(1, &n.to_le_bytes());
            }
            assert!(deleted.is_ok(), "{n}, reserves {reserves}: {deleted:?}");
        }
        let before = disk.used_bytes();
        upkeep(&mut store);
        assert!(store.stats().log_bytes < before, "reserves {reserves}");
        store.put(1, &5000u32.to_le_bytes(), &[1; 300], 1).expect("there is room");
    }
}

#[test]
fn many_threads_get_room_back_with_a_buffer_too() {
    let disk = MemDisk::new();
    disk.reserve_room(false);
    let options = Options::new([1; 16]).with_segment_bytes(64 << 10).with_write_buffer(4096);
    let (store, _) = SharedStore::open(disk.clone(), options).expect("opens");
    for n in 0..2000u32 {
        store.put_unsynced(0, &n.to_le_bytes(), &[1; 300], 1).expect("room");
    }
    store.sync().expect("syncs");
    store.maintain().expect("room");
    disk.set_capacity(Some(disk.used_bytes() + (100 << 10)));
    let refused = (0..2000u32).find_map(|n| store.put(0, &n.to_le_bytes(), &[2; 300], 1).err());
    assert_eq!(refused, Some(WriteError::NoSpace), "{:?} used {}", store.stats(), disk.used_bytes());
    // Upkeep, which a refusal has woken, makes room: a segment is all dead.
    let began = Instant::now();
    loop {
        match store.put(0, b"another", &[2; 300], 1) {
            Ok(_) => break,
            Err(WriteError::NoSpace) if began.elapsed() < Duration::from_secs(60) => std::thread::yield_now(),
            Err(error) => panic!("{error}, {:?}, {:?}", store.maintain(), store.stats()),
        }
    }
    assert!(store.sync().is_ok());
}

/// A disk full of records of which each third is dead, killed after so many small steps of upkeep; whether there were so many.
fn killed(reserves: bool, room: u64, steps: usize) -> Option<MemDisk> {
    let disk = MemDisk::new();
    disk.reserve_room(reserves);
    let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
    for n in 0..300u32 {
        store.put(1, &(n - n % 3 / 2).to_le_bytes(), &[1; 300], 1).expect("room");
    }
    store.sync().expect("syncs");
    store.maintain(1).expect("room");
    disk.set_capacity(Some(disk.used_bytes() + room));
    puts(&mut store);
    for _ in 0..steps {
        store.sync().expect("syncs");
        match store.maintain(2048) {
            Ok(done) if done.more || done.needs_sync => {}
            Ok(_) | Err(WriteError::NoSpace) => return None,
            Err(error) => panic!("{error}"),
        }
    }
    drop(store);
    disk.kill();
    Some(disk)
}

/// New keys until the disk is full.
fn puts(store: &mut Store<MemDisk>) -> usize {
    let from = u32::try_from(store.position().as_u64()).expect("few") + 10_000;
    (from..).take_while(|n| store.put(1, &n.to_le_bytes(), &[1; 300], 1).is_ok()).count()
}

#[test]
fn an_opening_leaves_compaction_the_room_of_a_merge_that_was_cut_off() {
    let mut opened = 0;
    for (reserves, room) in
        [true, false].into_iter().flat_map(|it| (0..20).step_by(3).map(move |n| (it, n << 10)))
    {
        for disk in (0..).map_while(|steps| killed(reserves, room, steps)) {
            let (mut store, _) = Store::open(disk.clone(), options(2)).expect("opens");
            puts(&mut store);
            upkeep(&mut store);
            puts(&mut store);
            upkeep(&mut store);
            let stats = store.stats();
            let dead = stats.log_bytes.saturating_sub(stats.live_bytes);
            assert!(dead < 3 * SEGMENT / 2, "{room}, reserves {reserves}: {dead} dead bytes stay: {stats:?}");
            opened += 1;
        }
    }
    assert!(opened > 200, "{opened}");
}

#[test]
fn a_full_store_with_a_write_buffer_closes() {
    for reserves in [true, false] {
        let disk = MemDisk::new();
        disk.reserve_room(reserves);
        let buffered = |seed| options(seed).with_write_buffer(4 << 10);
        let (mut store, _) = Store::open(disk.clone(), buffered(1)).expect("opens");
        for n in 0..100u32 {
            store.put(1, &n.to_le_bytes(), &[1; 300], 1).expect("room");
        }
        store.sync().expect("syncs");
        store.maintain(1 << 20).expect("room");
        disk.set_capacity(Some(disk.used_bytes()));
        store.put(1, b"last", &[1; 300], 1).expect("it is buffered");
        assert_eq!(store.close(), Ok(()), "reserves {reserves}");
        let (mut store, recovery) = Store::open(disk, buffered(2)).expect("opens");
        assert!(recovery.clean && recovery.damage.is_empty(), "{recovery:?}");
        assert!(matches!(store.get(1, b"last"), Ok(Read::Value { .. })));
    }
}

/// A store, and the disk that it is on.
#[derive(Clone, Copy, Debug)]
struct Shape {
    segment: u64,
    value: usize,
    capacity: u64,
    indexed: bool,
    tree: bool,
    reserves: bool,
    buffer: usize,
}

impl Shape {
    fn options(&self, seed: u8) -> Options {
        let options =
            Options::new([seed; 16]).with_segment_bytes(self.segment).with_write_buffer(self.buffer);
        let options = options.with_index_files(self.indexed);
        if self.tree { options.with_tree_key([7; 16]) } else { options }
    }

    fn put(&self, store: &mut Store<MemDisk>, n: u64) -> Result<(), WriteError> {
        let slot = u16::try_from(n % 50).expect("few");
        let value = vec![1; self.value];
        with_upkeep(store, &mut |store| store.put(slot, &n.to_le_bytes(), &value, 1).map(|_| ()))
    }

    /// Puts until there is no room; how many went.
    fn fill(&self, store: &mut Store<MemDisk>, from: u64) -> u64 {
        for n in from.. {
            match self.put(store, n) {
                Ok(()) if n % 200 == 0 => sync_and_step(store),
                Ok(()) => {}
                Err(WriteError::NoSpace) => return n - from,
                Err(error) => panic!("{self:?}: {error}"),
            }
        }
        unreachable!("the disk is bounded")
    }

    fn delete(&self, store: &mut Store<MemDisk>, n: u64) -> Result<(), WriteError> {
        let slot = u16::try_from(n % 50).expect("few");
        with_upkeep(store, &mut |store| store.delete(slot, &n.to_le_bytes()).map(|_| ()))
    }

    fn is_emptied_and_filled_again(&self, order: Order, reopens: bool) {
        let disk = MemDisk::new();
        disk.reserve_room(self.reserves);
        disk.set_capacity(Some(self.capacity));
        let (mut store, _) = Store::open(disk.clone(), self.options(1)).expect("opens");
        let stored = self.fill(&mut store, 0);
        assert!(stored > 12, "{self:?}: {stored}");
        if reopens {
            store.close().unwrap_or_else(|error| panic!("{self:?}: {error}"));
            store = Store::open(disk.clone(), self.options(2)).expect("opens").0;
        }
        for (done, n) in order.of(stored).into_iter().enumerate() {
            let deleted = self.delete(&mut store, n);
            let put_aside = disk.contents("RESERVE").map_or(0, |bytes| bytes.len());
            assert_eq!(
                deleted,
                Ok(()),
                "{self:?}, {order:?}: {done} of {stored} went; {put_aside} put aside, {:?}",
                store.stats()
            );
            if done % 64 == 0 {
                sync_and_step(&mut store);
            }
        }
        upkeep(&mut store);
        assert_eq!(store.len(), 0);
        let again = self.fill(&mut store, stored);
        // The chain has grown meanwhile, and is never cut; and what is no whole segment is left over.
        let chain = disk.contents("CHAIN").map_or(0, |bytes| bytes.len() as u64);
        let missing = stored.saturating_sub(again) * (48 + self.value as u64);
        assert!(
            missing <= chain + self.segment.max(self.capacity / 20),
            "{self:?}, {order:?}: {stored} keys, then {again}, {:?}, chain {chain}",
            store.stats()
        );
        store.close().unwrap_or_else(|error| panic!("{self:?}: {error}"));
    }
}

#[derive(Clone, Copy, Debug)]
enum Order {
    /// As they were put.
    First,
    Last,
    /// Slot by slot: each fiftieth.
    Slots,
    Scattered,
}

impl Order {
    fn of(self, keys: u64) -> Vec<u64> {
        match self {
            Self::First => (0..keys).collect(),
            Self::Last => (0..keys).rev().collect(),
            Self::Slots => (0..50).flat_map(|slot| (slot..keys).step_by(50)).collect(),
            Self::Scattered => {
                let mut order: Vec<u64> = (0..keys).collect();
                order.sort_by_key(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                order
            }
        }
    }
}

fn sync_and_step(store: &mut Store<MemDisk>) {
    let synced = store.sync();
    assert!(matches!(synced, Ok(_) | Err(WriteError::NoSpace)), "{synced:?}");
    let step = store.maintain(64 << 10);
    assert!(matches!(step, Ok(_) | Err(WriteError::NoSpace)), "{step:?}");
}

/// A write that is refused goes after upkeep, or not at all.
fn with_upkeep(
    store: &mut Store<MemDisk>,
    write: &mut dyn FnMut(&mut Store<MemDisk>) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    match write(store) {
        Err(WriteError::NoSpace) => {
            upkeep(store);
            write(store)
        }
        done => done,
    }
}

const SHAPES: [(u64, usize, u64); 12] = [
    (4 << 10, 8, 1 << 20),
    (4 << 10, 100, 1 << 20),
    (4 << 10, 6000, 2 << 20),
    (16 << 10, 8, 2 << 20),
    (16 << 10, 100, 2 << 20),
    (16 << 10, 30_000, 4 << 20),
    (64 << 10, 208, 4 << 20),
    (64 << 10, 1000, 4 << 20),
    (256 << 10, 1000, 8 << 20),
    (256 << 10, 20_000, 16 << 20),
    (1 << 20, 100, 8 << 20),
    (4 << 20, 3000, 32 << 20),
];

fn each_shape(indexed: bool, tree: bool, reserves: bool, buffer: usize, reopens: bool) {
    for (at, (segment, value, capacity)) in SHAPES.into_iter().enumerate() {
        let shape = Shape { segment, value, capacity, indexed, tree, reserves, buffer };
        let orders = [Order::Slots, Order::Scattered, Order::First, Order::Last];
        shape.is_emptied_and_filled_again(orders[at % 4], reopens);
        if cfg!(not(debug_assertions)) {
            shape.is_emptied_and_filled_again(orders[(at + 1) % 4], reopens);
        }
    }
}

#[test]
fn whatever_its_shape_a_full_store_is_emptied_and_filled_again() {
    each_shape(false, false, true, 0, false);
}

#[test]
fn so_is_one_with_index_files_and_a_hash_tree() {
    each_shape(true, true, true, 0, false);
}

#[test]
fn so_is_one_that_was_opened_when_it_was_full() {
    each_shape(true, false, true, 0, true);
}

#[test]
fn so_is_one_where_the_disk_reserves_no_room() {
    each_shape(true, false, false, 0, false);
}

#[test]
fn so_is_one_with_a_write_buffer() {
    each_shape(false, true, true, 2048, true);
}

/// Deletes all keys, which are those before this one, thinly spread.
fn is_emptied(store: &mut Store<MemDisk>, stored: u32, what: &str) {
    for step in 0..9 {
        for n in (step..stored).step_by(9) {
            let deleted = with_upkeep(store, &mut |store| store.delete(1, &n.to_le_bytes()).map(|_| ()));
            assert!(deleted.is_ok(), "{what}: {n} of {stored}: {deleted:?}, {:?}", store.stats());
        }
    }
    upkeep(store);
    assert!(store.is_empty() && store.sync().is_ok(), "{what}");
}

#[test]
fn a_full_store_that_is_opened_with_longer_segments_is_emptied_too() {
    for reserves in [true, false] {
        for segment in [64 << 10, 1 << 20, 32 << 20] {
            let (disk, store, stored) = filled(reserves, 100);
            drop(store);
            disk.kill();
            let longer = options(2).with_segment_bytes(segment);
            let (mut store, _) = Store::open(disk, longer).expect("opens");
            is_emptied(&mut store, stored, &format!("reserves {reserves}, segments of {segment}"));
        }
    }
}

#[test]
fn what_reads_at_leisure_keeps_no_room_of_segments_that_go() {
    for reserves in [true, false] {
        let (disk, mut store, stored) = filled(reserves, 100);
        // It stands in a segment, and nobody goes on with it.
        store.scrub(1).expect("readable");
        for n in 0..stored {
            let deleted = with_upkeep(&mut store, &mut |store| store.delete(1, &n.to_le_bytes()).map(|_| ()));
            assert!(deleted.is_ok(), "{n} of {stored}: {deleted:?}");
        }
        upkeep(&mut store);
        let names = disk.list().expect("lists");
        let lens = names.iter().filter_map(|name| disk.contents(name)).map(|bytes| bytes.len() as u64);
        let named: u64 = lens.map(|len| len.next_multiple_of(4096)).sum();
        assert_eq!(disk.used_bytes(), named, "a segment that has gone is open");
    }
}

#[test]
fn a_full_store_is_emptied_after_a_snapshot_of_it_has_gone() {
    for reserves in [true, false] {
        let (disk, mut store, stored) = filled(reserves, 100);
        let snapshot = store.snapshot().expect("room");
        // What goes stays on the disk for as long as the snapshot.
        for n in (0..stored).step_by(40) {
            let _ = with_upkeep(&mut store, &mut |store| store.delete(1, &n.to_le_bytes()).map(|_| ()));
        }
        drop(snapshot);
        upkeep(&mut store);
        is_emptied(&mut store, stored, &format!("reserves {reserves}"));
        assert!(store.put(1, b"key", &[1; 300], 1).is_ok(), "{}", disk.used_bytes());
    }
}

#[test]
fn what_has_expired_is_not_in_the_way_of_what_is_dead() {
    let disk = MemDisk::new();
    let options = |seed| options(seed).with_segment_bytes(64 << 10);
    let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
    // An old segment hides deletes; in the next ones all has expired; and one is dead.
    for n in 0..2000u32 {
        store.put_expiring(1, &(n % 1900).to_le_bytes(), &[1; 300], 1, 100).expect("room");
    }
    for _ in 0..400u32 {
        store.put(2, b"key", &[1; 300], 1).expect("room");
    }
    store.close().expect("closes");
    disk.remove("RESERVE").expect("it is there");
    disk.set_capacity(Some(disk.used_bytes() + 16_000));
    let (mut store, _) = Store::open(disk.clone(), options(2)).expect("opens");
    store.set_time(1000);
    let before = disk.used_bytes();
    assert!(upkeep(&mut store), "{:?}", store.stats());
    assert!(disk.used_bytes() + (300 << 10) < before, "{} of {before}", disk.used_bytes());
}

#[test]
fn a_record_that_is_longer_than_segments_leaves_room_to_merge_it() {
    for (reserves, room) in
        [true, false].into_iter().flat_map(|it| (0..24).step_by(5).map(move |n| (it, n << 14)))
    {
        let disk = MemDisk::new();
        disk.reserve_room(reserves);
        let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
        for n in 0..600u32 {
            store.put(1, &n.to_le_bytes(), &[1; 300], 1).expect("room");
        }
        store.sync().expect("syncs");
        disk.set_capacity(Some(disk.used_bytes() + room));
        let _ = store.put(2, b"long", &vec![1; 150_000], 1);
        puts(&mut store);
        upkeep(&mut store);
        disk.set_capacity(Some(disk.used_bytes()));
        let left = |store: &Store<MemDisk>| store.len() - u64::from(store.tag(2, b"long").is_some());
        for n in (0..9).flat_map(|from| (from..20_000u32).step_by(9)) {
            if store.tag(1, &n.to_le_bytes()).is_some() {
                let deleted =
                    with_upkeep(&mut store, &mut |store| store.delete(1, &n.to_le_bytes()).map(|_| ()));
                assert!(
                    deleted.is_ok(),
                    "{n}, reserves {reserves}, {room}: {deleted:?}, {:?}",
                    store.stats()
                );
            }
        }
        assert_eq!(left(&store), 0);
    }
}
