//! Disks that reserve no room for a file: APFS, UFS, most file systems but those of Linux. There a write finds the disk full,
//! and leaves a part of itself.

use gramme_store::{Disk, MemDisk, Options, Read, Store, WriteError};

const SEGMENT: u64 = 16 << 10;

fn options(seed: u8) -> Options {
    Options::new([seed; 16]).with_segment_bytes(SEGMENT).with_index_files(false)
}

fn unreserving() -> MemDisk {
    let disk = MemDisk::new();
    disk.reserve_room(false);
    disk
}

fn value(store: &mut Store<MemDisk>, n: u32) -> Option<usize> {
    match store.get(1, &n.to_le_bytes()).expect("readable") {
        Read::Value { value, .. } => Some(value.len()),
        _ => None,
    }
}

#[test]
fn what_a_refused_put_left_is_not_met_by_a_recovery() {
    // Cut at each length, before the refused record would begin and after its end.
    for (room, buffer) in (0..700).step_by(13).flat_map(|room| [(room, 0), (room, 1 << 10)]) {
        let disk = unreserving();
        let (mut store, _) = Store::open(disk.clone(), options(1).with_write_buffer(buffer)).expect("opens");
        for n in 0..10u32 {
            store.put(1, &n.to_le_bytes(), &[1; 500], 0).expect("room");
        }
        store.sync().expect("syncs");
        disk.set_capacity(Some(disk.used_bytes() + room));
        let mut refused = 0;
        while refused == 0 {
            match store.put(1, &3u32.to_le_bytes(), &[2; 600], 0) {
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error, WriteError::NoSpace);
                    refused += 1;
                }
            }
        }
        let before = value(&mut store, 3);
        disk.set_capacity(None);
        // Too long for what is left of the segment: the log goes on in another.
        store.put(1, &100u32.to_le_bytes(), &vec![3; 12 << 10], 0).expect("room");
        store.sync().expect("syncs");
        store.put(1, &101u32.to_le_bytes(), &[3; 100], 0).expect("room");
        store.sync().expect("syncs");
        drop(store);
        disk.kill();
        let (mut store, recovery) = Store::open(disk, options(2)).expect("opens");
        assert!(recovery.damage.is_empty() && recovery.torn.is_empty(), "{room} {buffer}: {recovery:?}");
        assert_eq!(value(&mut store, 3), before, "{room} {buffer}");
        assert_eq!((value(&mut store, 100), value(&mut store, 101)), (Some(12 << 10), Some(100)));
    }
}

#[test]
fn a_kill_after_a_refused_put_finds_nothing_of_it() {
    for room in (0..700).step_by(13) {
        let disk = unreserving();
        let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
        store.put(1, &3u32.to_le_bytes(), &[1; 500], 0).expect("room");
        store.sync().expect("syncs");
        disk.set_capacity(Some(disk.used_bytes() + room));
        while store.put(1, &3u32.to_le_bytes(), &[2; 600], 0).is_ok() {}
        drop(store);
        disk.kill();
        disk.set_capacity(None);
        let (_, recovery) = Store::open(disk, options(2)).expect("opens");
        assert!(recovery.damage.is_empty() && recovery.torn.is_empty(), "{room}: {recovery:?}");
    }
}

#[test]
fn the_reserve_is_filled_where_none_is_reserved() {
    let disk = unreserving();
    let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
    for n in 0..100u32 {
        store.put(1, &n.to_le_bytes(), &[1; 300], 1).expect("room");
    }
    store.sync().expect("syncs");
    let reserve = disk.contents("RESERVE").map_or(0, |bytes| bytes.len() as u64);
    assert!(reserve >= SEGMENT, "{reserve} bytes are put aside");
}

#[test]
fn a_full_disk_can_be_emptied() {
    let disk = unreserving();
    let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
    for n in 0..200u32 {
        store.put(1, &(n % 100).to_le_bytes(), &[1; 300], 1).expect("room");
    }
    store.sync().expect("syncs");
    disk.set_capacity(Some(disk.used_bytes() + 1000));
    while store.put(1, &7u32.to_le_bytes(), &[2; 300], 1).is_ok() {}
    for _ in 0..1000 {
        let done = match store.maintain(1 << 20) {
            Ok(done) => done,
            Err(WriteError::NoSpace) => break,
            Err(error) => panic!("{error}"),
        };
        store.sync().expect("what is written is synced");
        if !done.more && !done.needs_sync {
            break;
        }
    }
    store.put(1, &7u32.to_le_bytes(), &[3; 301], 1).expect("compaction has made room");
    store.sync().expect("syncs");
    drop(store);
    disk.kill();
    assert!(disk.list().expect("lists").iter().any(|name| name == "MANIFEST"));
    let (mut store, recovery) = Store::open(disk, options(2)).expect("opens");
    assert!(recovery.damage.is_empty() && recovery.torn.is_empty(), "{recovery:?}");
    assert_eq!(value(&mut store, 7), Some(301));
    for n in 0..100u32 {
        assert!(value(&mut store, n).is_some(), "key {n}");
    }
}

#[test]
fn a_last_record_that_the_file_ends_in_is_torn_once_and_no_damage_later() {
    let disk = unreserving();
    let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
    store.put(1, &1u32.to_le_bytes(), &[1; 1000], 0).expect("room");
    drop(store);
    disk.kill();
    let name = disk.list().expect("lists").into_iter().find(|name| name.ends_with(".seg")).expect("one");
    let bytes = disk.contents(&name).expect("there");
    disk.plant(&name, &bytes[..bytes.len() - 8]);
    let (store, recovery) = Store::open(disk.clone(), options(2)).expect("opens");
    assert!(recovery.damage.is_empty() && recovery.torn.len() == 1, "{recovery:?}");
    drop(store);
    let (_, recovery) = Store::open(disk, options(3)).expect("opens");
    assert!(recovery.damage.is_empty() && recovery.torn.is_empty(), "{recovery:?}");
}

#[test]
fn what_is_buffered_on_a_full_disk_is_synced_when_there_is_room() {
    let disk = unreserving();
    let (mut store, _) = Store::open(disk.clone(), options(1).with_write_buffer(4 << 10)).expect("opens");
    store.put(1, &1u32.to_le_bytes(), &[1; 300], 0).expect("room");
    store.sync().expect("syncs");
    disk.set_capacity(Some(disk.used_bytes()));
    // More than is left in the last block.
    store.put(1, &2u32.to_le_bytes(), &[1; 3700], 0).expect("it is buffered");
    for _ in 0..3 {
        assert_eq!(store.sync(), Err(WriteError::NoSpace));
        assert!(store.writable() && value(&mut store, 2) == Some(3700), "nothing has changed");
    }
    disk.set_capacity(None);
    assert!(store.sync().expect("there is room").covers(store.position()));
    drop(store);
    disk.crash(7);
    let (mut store, recovery) = Store::open(disk, options(2)).expect("opens");
    assert!(recovery.damage.is_empty() && recovery.torn.is_empty(), "{recovery:?}");
    assert_eq!((value(&mut store, 1), value(&mut store, 2)), (Some(300), Some(3700)));
}

/// Puts new keys until the disk is full, upkeep or not.
fn fill(store: &mut Store<MemDisk>, keys: &mut Vec<u32>, from: u32) {
    for n in from.. {
        let mut done = store.put(1, &n.to_le_bytes(), &[1; 300], 1);
        if done.is_err() {
            upkeep(store);
            done = store.put(1, &n.to_le_bytes(), &[1; 300], 1);
        }
        match done {
            Ok(_) => keys.push(n),
            Err(WriteError::NoSpace) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// All upkeep that the room allows.
fn upkeep(store: &mut Store<MemDisk>) {
    for _ in 0..1000 {
        let synced = store.sync();
        assert!(matches!(synced, Ok(_) | Err(WriteError::NoSpace)), "{synced:?}");
        match store.maintain(1 << 20) {
            Ok(done) if done.more || done.needs_sync => {}
            Ok(_) | Err(WriteError::NoSpace) => return,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("upkeep comes to no end");
}

/// Fills a disk on which all is live, deletes what `goes` says, and has as much put again.
fn is_emptied(what: &str, buffer: usize, room: u64, goes: impl Fn(u32) -> bool) {
    let disk = unreserving();
    let options = |seed| options(seed).with_write_buffer(buffer);
    let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
    let mut keys = Vec::new();
    for n in 0..200u32 {
        store.put(1, &n.to_le_bytes(), &[1; 300], 1).expect("room");
        keys.push(n);
        store.maintain(1 << 20).expect("room");
    }
    store.sync().expect("syncs");
    disk.set_capacity(Some(disk.used_bytes() + room));
    fill(&mut store, &mut keys, 200);
    upkeep(&mut store);
    let before = keys.len();
    keys.retain(|n| {
        if !goes(*n) {
            return true;
        }
        // Where it is refused upkeep makes the room.
        let mut deleted = store.delete(1, &n.to_le_bytes());
        for _ in 0..3 {
            if deleted.is_ok() {
                break;
            }
            assert_eq!(deleted, Err(WriteError::NoSpace), "{what}, {room}, {buffer}: key {n}");
            upkeep(&mut store);
            deleted = store.delete(1, &n.to_le_bytes());
        }
        assert!(deleted.is_ok(), "{what}, {room}, {buffer}: {deleted:?} for key {n}");
        false
    });
    upkeep(&mut store);
    assert!(store.sync().is_ok(), "{what}, {room}, {buffer}");
    let left = keys.len();
    fill(&mut store, &mut keys, 10_000);
    let again = keys.len() - left;
    // Half, but for a segment of which there is only a part.
    let segment = usize::try_from(SEGMENT / 344).expect("few");
    assert!(
        (again + segment) * 2 > before - left,
        "{what}, {room}, {buffer}: {again} of {} again",
        before - left
    );
    // What could be synced is there after a power cut.
    let synced = store.sync();
    drop(store);
    disk.crash(room);
    let (mut store, recovery) = Store::open(disk, options(2)).expect("opens");
    assert!(recovery.damage.is_empty(), "{what}, {room}, {buffer}: {recovery:?}");
    if synced.is_ok() {
        keys.iter()
            .for_each(|n| assert_eq!(value(&mut store, *n), Some(300), "{what}, {room}, {buffer}: {n}"));
    }
    (0..200)
        .filter(|n| goes(*n))
        .for_each(|n| assert_eq!(value(&mut store, n), None, "{what}, {room}, {buffer}: {n}"));
}

#[test]
fn a_full_disk_of_live_keys_can_be_emptied_with_a_buffer_and_without() {
    for buffer in [0, 1 << 10, 4 << 10] {
        for room in (0..40_000).step_by(1300).chain((0..1500).step_by(100)) {
            is_emptied("each second", buffer, room, |n| n % 2 == 0);
            is_emptied("all", buffer, room, |_| true);
            is_emptied("the first", buffer, room, |n| n < 100);
        }
    }
}
