//! Full disks, those that reserve room for files and those that don't: deletes and compaction go on, and what they free serves.

use gramme_store::{MemDisk, Options, Read, SharedStore, Store, WriteError};
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
