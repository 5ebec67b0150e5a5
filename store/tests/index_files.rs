//! Index files: a start goes by them, and never by one that is not of the very segment.

#[path = "common/watched.rs"]
mod watched;

use gramme_store::{DamageKind, Disk, FileDisk, MemDisk, Options, Read, ReadError, Store, verify};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use watched::{Op, Watched};

fn options(seed: u8) -> Options {
    Options::new([seed; 16]).with_segment_bytes(8192)
}

const KEYS: u32 = 120;

fn slot(n: u32) -> u16 {
    u16::try_from(n % 4).expect("below four")
}

/// Works until there is nothing left to do.
fn maintain_all<D: Disk>(store: &mut Store<D>) {
    loop {
        let done = store.maintain(1 << 20).expect("maintains");
        store.sync().expect("syncs");
        if !done.more && !done.needs_sync {
            return;
        }
    }
}

fn write<D: Disk>(store: &mut Store<D>, tag: u64) {
    for n in 0..KEYS {
        let value = vec![n.to_le_bytes()[0]; 60 + n as usize % 90];
        store.put(slot(n), &n.to_le_bytes(), &value, tag + u64::from(n)).expect("room");
    }
    for n in (0..KEYS).step_by(9) {
        store.delete(slot(n), &n.to_le_bytes()).expect("room");
    }
    store.sync().expect("syncs");
}

/// Two rounds of every key, some deleted; closed in good order.
fn prepared(seed: u8) -> MemDisk {
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), options(seed)).expect("opens");
    write(&mut store, 1000);
    store.drop_slot(3).expect("room");
    write(&mut store, 2000);
    maintain_all(&mut store);
    store.close().expect("closes");
    disk
}

fn check(store: &mut Store<impl Disk>) {
    for n in 0..KEYS {
        let tag = (n % 9 != 0).then_some(2000 + u64::from(n));
        assert_eq!(store.tag(slot(n), &n.to_le_bytes()), tag, "key {n}");
        match store.get(slot(n), &n.to_le_bytes()).expect("whole") {
            Read::Value { value, .. } => assert_eq!(value.len(), 60 + n as usize % 90),
            Read::Absent => assert_eq!(tag, None),
            Read::Pending(_) => panic!("reads are inline here"),
        }
    }
}

fn named(disk: &MemDisk, suffix: &str) -> Vec<String> {
    let mut names: Vec<String> = disk.list().expect("lists");
    names.retain(|name| name.ends_with(suffix));
    names
}

#[test]
fn a_store_that_was_closed_opens_from_index_files_alone() {
    let disk = prepared(1);
    let report = verify(&disk, None).expect("sound").report;
    let (mut store, recovery) = Store::open(disk, options(2)).expect("opens");
    // An empty segment that waits for its first write has none.
    assert!(recovery.index_files >= recovery.segments - 1 && recovery.bad_index_files == 0, "{recovery:?}");
    assert_eq!((recovery.records, recovery.keys), (report.records, report.keys), "as a scan counts them");
    check(&mut store);
}

#[test]
fn index_files_and_a_scan_come_to_the_same_books() {
    let disk = prepared(1);
    let books = |index_files| {
        let options = options(2).with_index_files(index_files).with_tree_key([3; 16]);
        let (store, recovery) = Store::open(disk.fork(), options).expect("opens");
        (store.stats(), store.position(), recovery.keys, recovery.records)
    };
    assert_eq!(books(true), books(false));
}

#[test]
fn every_flipped_bit_of_an_index_file_is_noticed_and_costs_nothing() {
    let disk = prepared(1);
    for name in named(&disk, ".idx") {
        let bits = disk.contents(&name).expect("there").len() as u64 * 8;
        for bit in (0..bits).step_by(61) {
            let copy = disk.fork();
            assert!(copy.flip_bit(&name, bit));
            assert_eq!(verify(&copy, None).expect("sound").report.bad_index_files, 1, "bit {bit} of {name}");
            let (mut store, recovery) = Store::open(copy, options(2)).expect("opens");
            assert_eq!(recovery.bad_index_files, 1, "bit {bit} of {name}");
            assert!(recovery.damage.is_empty());
            check(&mut store);
        }
    }
}

#[test]
fn an_index_file_that_is_cut_empty_or_gone_is_passed_over() {
    let disk = prepared(1);
    for name in named(&disk, ".idx") {
        let whole = disk.contents(&name).expect("there");
        for len in (0..whole.len()).step_by(37) {
            let copy = disk.fork();
            copy.plant(&name, &whole[..len]);
            let (mut store, recovery) = Store::open(copy, options(2)).expect("opens");
            assert_eq!(recovery.bad_index_files, 1, "{len} bytes of {name}");
            check(&mut store);
        }
        disk.remove(&name).expect("removed");
    }
    let (mut store, recovery) = Store::open(disk, options(2)).expect("opens");
    assert_eq!((recovery.index_files, recovery.bad_index_files), (0, 0));
    check(&mut store);
}

#[test]
fn an_index_file_of_another_segment_or_store_is_not_believed() {
    // Swapped within the store, and taken from a store with the same history.
    let disk = prepared(1);
    let names = named(&disk, ".idx");
    assert!(names.len() > 1);
    let stranger = prepared(7);
    for foreign in [disk.contents(&names[1]), stranger.contents(&names[0])] {
        let copy = disk.fork();
        copy.plant(&names[0], &foreign.expect("there"));
        let (mut store, recovery) = Store::open(copy, options(2)).expect("opens");
        assert_eq!(recovery.bad_index_files, 1);
        check(&mut store);
    }
}

#[test]
fn an_index_file_older_than_its_segment_is_not_believed() {
    // bitcask: a hint file written before the data file's last records hid them. Here the segment that an index file is
    // of has grown since, as it seems: its end is another one.
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
    store.put(0, b"first", b"value", 1).expect("room");
    store.sync().expect("syncs");
    let active = named(&disk, ".seg").pop().expect("a segment");
    let early = disk.fork();
    let (closed, _) = Store::open(early.clone(), options(1)).expect("opens");
    closed.close().expect("closes");
    let (mut closed, _) = Store::open(early.clone(), options(1)).expect("opens");
    closed.maintain(1 << 20).expect("seals");
    let index = active.replace(".seg", ".idx");
    let old = early.contents(&index).expect("the early segment was sealed");
    store.put(0, b"second", b"value", 2).expect("room");
    store.close().expect("closes");
    disk.plant(&index, &old);
    let (store, recovery) = Store::open(disk, options(2)).expect("opens");
    assert_eq!(recovery.bad_index_files, 1, "{recovery:?}");
    assert_eq!((store.tag(0, b"first"), store.tag(0, b"second")), (Some(1), Some(2)));
}

#[test]
fn an_index_file_does_not_outlive_its_segment_or_hide_that_it_is_cut() {
    let disk = prepared(1);
    let segment = named(&disk, ".seg").remove(0);
    let whole = disk.contents(&segment).expect("there");
    disk.plant(&segment, &whole[..whole.len() / 2]);
    let (_, recovery) = Store::open(disk.clone(), options(2)).expect("opens");
    assert!(recovery.is_lossy() && recovery.bad_index_files == 1, "{recovery:?}");
    disk.kill();
    let index = disk.contents(&segment.replace(".seg", ".idx")).expect("it was passed over");
    disk.plant("00000000000000aa.idx", &index);
    let (_, recovery) = Store::open(disk.clone(), options(3)).expect("opens");
    assert!(recovery.leftovers >= 1);
    assert!(disk.contents("00000000000000aa.idx").is_none(), "cleared away");
}

/// What a store shows of each key: its tag, nothing, or that it is unknown.
fn shown(store: &mut Store<impl Disk>) -> Vec<Result<Option<u64>, ()>> {
    let look = |n| match store.get(slot(n), &n.to_le_bytes()) {
        Ok(Read::Absent) | Err(ReadError::Unknown) => Ok(None),
        Ok(Read::Value { tag, .. }) => Ok(Some(tag)),
        Err(ReadError::Damaged { .. }) => Err(()),
        other => panic!("key {n}: {other:?}"),
    };
    (0..KEYS).map(look).collect()
}

#[test]
fn a_segment_cut_beside_its_index_file_shows_the_same_at_every_opening() {
    // What stood behind the cut is unknown, what a later segment deletes is absent; neither may turn into the other because
    // an opening noted down what is left of the segment for what it had.
    let original = prepared(1);
    for name in named(&original, ".seg") {
        let whole = original.contents(&name).expect("there");
        for len in (0..whole.len()).step_by(97) {
            let disk = original.fork();
            disk.plant(&name, &whole[..len]);
            let (mut store, first) = Store::open(disk.clone(), options(2)).expect("opens");
            // One that has no record has none to lose; its header is missed all the same.
            assert!(first.is_lossy() || whole.len() == 64, "{len} bytes of {name}");
            assert!(!first.damage.is_empty(), "{len} bytes of {name}");
            let expected = shown(&mut store);
            for (n, seen) in (0..KEYS).zip(&expected) {
                let tag = (n % 9 != 0).then_some(2000 + u64::from(n));
                // No value is ever an old one, and what is there is never absent.
                assert!(*seen == Ok(tag) || *seen == Err(()), "{len} bytes of {name}, key {n}: {seen:?}");
            }
            let position = store.position();
            drop(store);
            for seed in 3..5 {
                let (mut store, again) = Store::open(disk.clone(), options(seed)).expect("opens again");
                assert_eq!(shown(&mut store), expected, "{len} bytes of {name}");
                assert_eq!((again.damage, store.position()), (first.damage.clone(), position));
            }
            // Upkeep finds nothing out, either, and forgets nothing.
            let (mut store, _) = Store::open(disk.clone(), options(5)).expect("opens again");
            maintain_all(&mut store);
            assert_eq!(shown(&mut store), expected, "{len} bytes of {name}");
            drop(store);
            let (mut store, again) = Store::open(disk, options(6)).expect("opens again");
            assert_eq!(shown(&mut store), expected, "{len} bytes of {name}, after upkeep");
            assert!(again.is_lossy() || expected.iter().all(Result::is_ok), "{len} bytes of {name}");
        }
    }
}

#[test]
fn a_segment_whose_hash_no_manifest_knows_is_not_hashed_anew_when_it_has_rotted() {
    // Sealed, and killed before the next manifest. Hashed as it is now, it would have another hash than its index file says,
    // which would be passed over: and with it what it knows of records that are gone.
    let original = MemDisk::new();
    let (mut store, _) = Store::open(original.clone(), options(1)).expect("opens");
    write(&mut store, 1000);
    store.drop_slot(3).expect("room");
    write(&mut store, 2000);
    for _ in 0..1000 {
        store.maintain(1 << 20).expect("maintains");
        if named(&original, ".idx").len() == 2 {
            break;
        }
    }
    drop(store);
    original.kill();
    let mut altered = 0;
    for index in named(&original, ".idx") {
        let name = index.replace(".idx", ".seg");
        let whole = original.contents(&name).expect("there");
        for at in (64..whole.len().saturating_sub(200)).step_by(160) {
            let disk = original.fork();
            let mut bytes = whole.clone();
            bytes[at..at + 120].fill(0x77);
            disk.plant(&name, &bytes);
            let (mut store, first) = Store::open(disk.clone(), options(2)).expect("opens");
            assert!(first.index_files > 0 && first.damage.is_empty(), "{first:?}");
            let expected = shown(&mut store);
            while store.maintain(1 << 20).is_ok_and(|done| done.more && done.freed_bytes == 0) {}
            store.close().expect("closes");
            let (mut store, again) = Store::open(disk.clone(), options(3)).expect("opens again");
            assert_eq!((again.bad_index_files, shown(&mut store)), (0, expected), "byte {at} of {name}");
            drop(store);
            disk.kill();
            let report = verify(&disk, None).expect("a store").report;
            altered += usize::from(report.damage.iter().any(|one| one.kind == DamageKind::Altered));
        }
    }
    assert!(altered > 30, "and the chain vouches for what was sealed, not for what it has become: {altered}");
}

#[test]
fn damage_behind_an_index_file_is_found_by_a_read_and_by_verify() {
    let disk = prepared(1);
    let mut found = 0;
    for n in (0..KEYS).filter(|n| n % 9 != 0).step_by(5) {
        let copy = disk.fork();
        let value = vec![n.to_le_bytes()[0]; 60 + n as usize % 90];
        let (name, at) = named(&copy, ".seg")
            .into_iter()
            .filter_map(|name| {
                let bytes = copy.contents(&name)?;
                // The last of the two rounds.
                let at = bytes.windows(value.len()).rposition(|window| window == value)?;
                Some((name, at))
            })
            .next_back()
            .expect("its value");
        assert!(copy.flip_bit(&name, at as u64 * 8 + 13));
        let report = verify(&copy, None).expect("opens").report;
        let (mut store, recovery) = Store::open(copy, options(2)).expect("opens");
        assert!(recovery.index_files >= recovery.segments - 1, "not read at the opening");
        assert!(report.is_lossy());
        match store.get(slot(n), &n.to_le_bytes()) {
            Err(ReadError::Damaged { .. }) => found += 1,
            Ok(Read::Value { tag, .. }) => assert_eq!(tag, 2000 + u64::from(n), "another one's byte was hit"),
            other => panic!("key {n}: {other:?}"),
        }
    }
    assert!(found > 10, "{found}");
}

#[test]
fn segments_side_by_side_on_files_come_to_the_same_as_one_by_one() {
    let directory = std::env::temp_dir().join(format!("gramme-store-{}-parallel", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    let open = |seed, threads, index_files| {
        let disk = FileDisk::open(&directory).expect("a directory");
        let options = Options::new([seed; 16])
            .with_segment_bytes(2 << 20)
            .with_tree_key([9; 16])
            .with_index_files(index_files)
            .with_open_threads(threads);
        Store::open(disk, options).expect("opens")
    };
    let (mut store, _) = open(1, 1, true);
    for n in 0..60_000u32 {
        store.put(slot(n), &(n % 25_000).to_le_bytes(), &[1; 300], u64::from(n)).expect("room");
        if n % 1000 == 0 {
            store.maintain(1 << 20).expect("maintains");
            store.sync().expect("syncs");
        }
    }
    let (books, root) = (store.stats().keys, store.tree().expect("a tree").root());
    drop(store);
    for (threads, index_files) in [(1, false), (4, false), (1, true), (4, true)] {
        let mut seen = 0;
        let disk = FileDisk::open(&directory).expect("a directory");
        let options = Options::new([7; 16])
            .with_segment_bytes(2 << 20)
            .with_tree_key([9; 16])
            .with_index_files(index_files)
            .with_open_threads(threads);
        let (store, recovery) = Store::open_with(disk, options, |progress| {
            seen += 1;
            assert_eq!(progress.segments_done, seen);
            assert!(progress.bytes_done <= progress.bytes);
        })
        .expect("opens");
        assert_eq!(seen, recovery.segments);
        assert_eq!((store.stats().keys, store.tree().expect("a tree").root()), (books, root));
    }
    let _ = std::fs::remove_dir_all(&directory);
}

#[test]
fn a_store_that_was_synced_only_at_its_end_is_sealed_when_it_is_closed() {
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
    for n in 0..300u32 {
        store.put(1, &n.to_le_bytes(), &[1; 200], 1).expect("room");
    }
    store.close().expect("closes");
    let (_, recovery) = Store::open(disk, options(2)).expect("opens");
    assert!(recovery.segments > 8 && recovery.index_files >= recovery.segments - 1, "{recovery:?}");
}

/// The most index files that an opening has open at once.
fn open_at_once(disk: &MemDisk, threads: usize) -> (u64, u64) {
    let (now, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let watched = Watched::new(disk.clone(), {
        let (disk, now, most) = (disk.clone(), now.clone(), most.clone());
        move |op| {
            match op {
                Op::Open(name) if name.ends_with(".idx") && disk.contents(name).is_some() => {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                }
                Op::Close(name) if name.ends_with(".idx") => drop(now.fetch_sub(1, Ordering::SeqCst)),
                _ => {}
            }
            Ok(())
        }
    });
    let options = options(2).with_open_threads(threads);
    let (_, recovery) = Store::open(watched, options).expect("opens");
    assert_eq!(now.load(Ordering::SeqCst), 0, "all are closed");
    (most.load(Ordering::SeqCst), recovery.index_files)
}

#[test]
fn few_index_files_are_open_at_once() {
    let disk = MemDisk::new();
    // More than it takes to be read by several threads.
    let options = options(1).with_segment_bytes(256 << 10);
    let (mut store, _) = Store::open(disk.clone(), options).expect("opens");
    for n in 0..180u32 {
        store.put(0, &n.to_le_bytes(), &vec![1; 60_000], 1).expect("room");
        store.sync().expect("syncs");
        while store.maintain(1 << 20).expect("maintains").more {}
    }
    drop(store);
    disk.kill();
    for threads in [1, 3] {
        let (most, index_files) = open_at_once(&disk.fork(), threads);
        assert!(index_files > 30 && most <= 2 * threads as u64 + 1, "{most} of {index_files}");
    }
}

#[test]
fn a_slot_that_was_dropped_and_filled_again_is_not_read_for_its_sum() {
    let (disk, read) = (MemDisk::new(), Arc::new(AtomicU64::new(0)));
    let options = |seed| options(seed).with_tree_key([3; 16]);
    let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
    let mut put = |slot: u16, keys: std::ops::Range<u32>| {
        for n in keys {
            store.put(slot, &n.to_le_bytes(), &[1; 300], u64::from(n)).expect("room");
        }
    };
    // A segment of slot 1 and what is dropped; one of slot 2 with the drop; one of slot 7. The first and the third are merged, and
    // come first then.
    put(7, 100..101);
    put(1, 0..20);
    put(2, 0..19);
    store.drop_slot(7).expect("room");
    let mut put = |slot: u16, keys: std::ops::Range<u32>| {
        for n in keys {
            store.put(slot, &n.to_le_bytes(), &[1; 300], u64::from(n)).expect("room");
        }
    };
    put(7, 0..20);
    put(1, 0..14);
    put(7, 0..14);
    store.sync().expect("syncs");
    maintain_all(&mut store);
    let root = store.tree().expect("a key was given").root();
    store.close().expect("closes");
    let watched = Watched::new(disk, {
        let read = read.clone();
        move |op| {
            if let Op::Read(name, range) = op
                && name.ends_with(".seg")
                && range.start > 0
            {
                read.fetch_add(range.end - range.start, Ordering::SeqCst);
            }
            Ok(())
        }
    });
    let (store, recovery) = Store::open(watched, options(2)).expect("opens");
    assert!(recovery.index_files >= recovery.segments - 1, "{recovery:?}");
    assert_eq!(store.tree().expect("a key was given").root(), root);
    let read = read.load(Ordering::SeqCst);
    assert!(read < 2000, "{read} bytes of records are read");
}

#[test]
fn an_index_file_that_found_the_disk_full_is_not_left_there() {
    for room in 0..6 {
        let disk = MemDisk::new();
        let options = |seed| options(seed).with_segment_bytes(64 << 10);
        let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
        for n in 0..900u32 {
            store.put(slot(n), &n.to_le_bytes(), &[1; 60], 1 << 40).expect("room");
        }
        store.sync().expect("syncs");
        // The next segment, if it is not there yet.
        store.maintain(1).expect("room");
        disk.set_capacity(Some(disk.used_bytes() + (room << 12)));
        while named(&disk, ".idx").is_empty() || store.maintain(1 << 20).expect("sealing needs no room").more
        {
            if !store.maintain(1 << 10).expect("sealing needs no room").more {
                break;
            }
        }
        drop(store);
        disk.kill();
        disk.set_capacity(None);
        let left = named(&disk, ".idx");
        let (_, recovery) = Store::open(disk.clone(), options(2)).expect("opens");
        assert_eq!(recovery.bad_index_files, 0, "{room} blocks: {left:?}");
    }
}
