//! Whatever way an opening takes, by index files or by reading the log, with one thread or with several, it comes to the same
//! state. In tests lines are taken in after every few thousand, so that tables are filled more than once.

use crate::checksum::mix;
use crate::key_index::Hit;
use crate::record::{MAX_NUMBER, MAX_OPENED_NUMBER};
use crate::segment::SegmentId;
use crate::{Disk, MemDisk, OpenError, Options, Read, Store, WriteError};
use std::collections::BTreeSet;
use std::vec::Vec;

const SLOTS: u16 = 700;

fn options() -> Options {
    Options::new([3; 16]).with_segment_bytes(512 << 10).with_tree_key([9; 16])
}

/// Keys of many slots, most of them in a few; many are written again, some are deleted, some slots dropped and used again.
fn work(disk: &MemDisk) -> Store<MemDisk> {
    let (mut store, _) = Store::open(disk.clone(), options()).expect("opens");
    for n in 0..60_000u64 {
        let word = mix(n);
        let slot = match word % 8 {
            0..4 => u16::try_from(word >> 8 & 3).expect("below four"),
            _ => u16::try_from((word >> 8) % u64::from(SLOTS)).expect("below 700"),
        };
        let key = (mix(word) % 30_000).to_le_bytes();
        match word >> 32 & 0x3ff {
            // In some of the slots, and not those with the most keys.
            0..20 if slot % 16 == 9 => drop(store.delete(slot, &key).expect("room")),
            20 if slot % 32 == 9 => drop(store.drop_slot(slot).expect("room")),
            _ => drop(store.put(slot, &key, &[7; 150], n).expect("room")),
        }
        if n % 2000 == 0 {
            store.sync().expect("syncs");
            while store.maintain(1 << 20).expect("maintains").more {}
        }
    }
    store.sync().expect("syncs");
    store
}

type State = (Vec<Vec<Hit>>, Vec<(SegmentId, u64)>, Vec<u128>, u64, BTreeSet<(u16, u64)>, u64);

fn state(store: &Store<MemDisk>) -> State {
    let tree = store.tree.as_ref().expect("asked for");
    (
        (0..SLOTS).map(|slot| store.index.page(slot, 0, usize::MAX)).collect(),
        store.segments.iter().map(|(_, segment)| (segment.id, segment.live)).collect(),
        (0..SLOTS).map(|slot| tree.slot(slot)).collect(),
        tree.odd(),
        store.uncounted.clone(),
        store.next_sequence,
    )
}

fn check(disk: &MemDisk, bad_index_files: u64) {
    let mut first = None;
    for (index_files, threads) in [(false, 1), (true, 1), (true, 3), (false, 3)] {
        let options = options().with_index_files(index_files).with_open_threads(threads);
        let (store, recovery) = Store::open(disk.fork(), options).expect("opens");
        assert_eq!(recovery.index_files > 0, index_files);
        assert_eq!(recovery.bad_index_files, if index_files { bad_index_files } else { 0 });
        assert!(recovery.damage.is_empty(), "{recovery:?}");
        let keys = recovery.keys;
        assert_eq!(keys, store.len());
        assert_eq!(keys, (0..SLOTS).map(|slot| store.slot_len(slot)).sum());
        let found = (state(&store), keys);
        let due = first.get_or_insert_with(|| found.clone());
        assert!(*due == found, "index files {index_files}, {threads} threads");
    }
}

#[test]
fn all_openings_come_to_the_same() {
    let disk = MemDisk::new();
    let store = work(&disk);
    let live = state(&store);
    drop(store);
    let killed = disk.fork();
    killed.kill();
    check(&killed, 0);
    let (store, _) = Store::open(killed, options()).expect("opens");
    assert!(
        state(&store).0.iter().flatten().map(|hit| (hit.fingerprint, hit.tag)).eq(live
            .0
            .iter()
            .flatten()
            .map(|hit| (hit.fingerprint, hit.tag)))
    );
    assert_eq!(state(&store).2, live.2);
    store.close().expect("closes");
}

#[test]
fn a_segment_that_is_read_after_a_part_of_its_index_file_counts_once() {
    let disk = MemDisk::new();
    work(&disk).close().expect("closes");
    let names = disk.list().expect("lists");
    let last = names.iter().filter(|name| name.ends_with(".idx")).max().expect("sealed");
    let bytes = disk.contents(last).expect("there").len() as u64;
    assert!(disk.flip_bit(last, bytes * 7));
    check(&disk, 1);
}

#[test]
fn a_store_whose_numbers_are_at_their_end_writes_nothing_that_it_would_not_read() {
    let put = |store: &mut Store<MemDisk>, n: u32| {
        store.put(0, &n.to_le_bytes(), &[1; 2000], 0).and_then(|_| store.sync()).map(drop)
    };
    let options = || Options::new([3; 16]).with_segment_bytes(16 << 10);
    for last in [MAX_OPENED_NUMBER, MAX_NUMBER] {
        let disk = MemDisk::new();
        let (mut store, _) = Store::open(disk.clone(), options()).expect("opens");
        store.next_sequence = last;
        put(&mut store, 0).expect("room");
        drop(store);
        let before = disk.contents("MANIFEST");
        assert_eq!(Store::open(disk.clone(), options()).err(), Some(OpenError::NumbersExhausted), "{last}");
        assert_eq!(disk.contents("MANIFEST"), before);
    }
    // As far as writers come, so far it opens.
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), options()).expect("opens");
    store.next_sequence = MAX_OPENED_NUMBER - (1 << 33) - 1;
    let mut there = 0;
    let refused = loop {
        match put(&mut store, there) {
            Ok(()) => there += 1,
            Err(error) => break error,
        }
    };
    assert!(refused == WriteError::NumbersExhausted && there > 2, "{refused} after {there}");
    drop(store);
    for _ in 0..3 {
        let (mut store, recovery) = Store::open(disk.clone(), options()).expect("opens for reading");
        assert_eq!((store.len(), recovery.is_lossy()), (u64::from(there), false));
        assert!((0..there).all(|n| matches!(store.get(0, &n.to_le_bytes()), Ok(Read::Value { .. }))));
        assert_eq!(put(&mut store, there), Err(WriteError::NumbersExhausted));
        store.close().expect("closes");
    }
}
