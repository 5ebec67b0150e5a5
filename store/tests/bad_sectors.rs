//! Disks that have sectors which can't be read, for ever or for a while.

#[path = "common/watched.rs"]
mod watched;

use gramme_store::{
    DamageKind, Disk, DiskErrorKind, MemDisk, Options, ReadError, SharedStore, Store, WriteError, verify,
};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use watched::{Op, Watched};

/// The file and the range that can't be read.
type Bad = Arc<Mutex<Option<(String, Range<u64>)>>>;

/// A memory disk on which a range of one file's bytes can't be read.
#[derive(Clone, Default)]
struct Rotting {
    disk: MemDisk,
    bad: Bad,
    refused: Arc<AtomicU64>,
}

impl Rotting {
    fn spoil(&self, name: &str, bytes: Range<u64>) {
        *self.bad.lock().expect("no panic") = Some((name.into(), bytes));
    }

    fn heal(&self) {
        *self.bad.lock().expect("no panic") = None;
    }

    fn refused(&self) -> u64 {
        self.refused.load(Ordering::SeqCst)
    }

    fn segments(&self) -> Vec<String> {
        let mut names = self.disk.list().expect("lists");
        names.retain(|name| name.ends_with(".seg"));
        names.sort();
        names
    }

    fn first_segment(&self) -> String {
        self.segments().swap_remove(0)
    }

    fn watched(&self) -> Watched<MemDisk> {
        let Self { disk, bad, refused } = self.clone();
        Watched::new(disk, move |op| {
            if let Op::Read(file, range) = op
                && let Some((name, bytes)) = &*bad.lock().expect("no panic")
                && name == file
                && range.start < bytes.end
                && range.end > bytes.start
            {
                refused.fetch_add(1, Ordering::SeqCst);
                return Err(DiskErrorKind::Io);
            }
            Ok(())
        })
    }
}

fn options(seed: u8) -> Options {
    Options::new([seed; 16]).with_segment_bytes(16 << 10)
}

/// Maintains until there is nothing left to do, or an error. Answers the bytes given back.
fn maintain_all<D: Disk>(store: &mut Store<D>) -> Result<u64, WriteError> {
    let mut freed = 0;
    for _ in 0..5_000 {
        let done = store.maintain(1 << 16)?;
        freed += done.freed_bytes;
        if done.needs_sync {
            store.sync()?;
        } else if !done.more {
            return Ok(freed);
        }
    }
    panic!("maintenance goes on for ever: {:?}", store.stats());
}

#[test]
fn a_segment_that_cannot_be_read_is_sealed_once_in_vain_and_the_others_are_compacted() {
    let disk = Rotting::default();
    let (mut store, _) = Store::open(disk.watched(), options(1)).expect("opens");
    // The first segment is all live, so that nobody but its sealing reads it.
    for n in 0..45u32 {
        store.put(1, &n.to_le_bytes(), &[1; 300], 1).expect("room");
    }
    for n in 0..600u32 {
        store.put(0, &(n % 60).to_le_bytes(), &[1; 300], 1).expect("room");
    }
    store.sync().expect("syncs");
    let first = disk.first_segment();
    disk.spoil(&first, 4096..4608);
    let freed = maintain_all(&mut store).expect("it is not needed");
    assert!(freed > 100_000, "{freed}");
    assert_eq!(disk.refused(), 1);
    let index_files = |disk: &Rotting| {
        let names = disk.disk.list().expect("lists");
        names.into_iter().filter(|name| name.ends_with(".idx")).collect::<BTreeSet<_>>()
    };
    let stem = first.trim_end_matches(".seg");
    assert!(!index_files(&disk).is_empty());
    // The next opening finds it readable, and seals it.
    disk.heal();
    drop(store);
    let (mut store, recovery) = Store::open(disk.watched(), options(2)).expect("opens");
    assert!(recovery.damage.is_empty(), "{recovery:?}");
    maintain_all(&mut store).expect("all can be read");
    assert!(index_files(&disk).iter().any(|name| name.starts_with(stem)));
}

#[test]
fn a_shared_store_with_a_segment_that_cannot_be_read_rests_and_closes() {
    let disk = Rotting::default();
    let (store, _) = SharedStore::open(disk.watched(), options(1)).expect("opens");
    disk.spoil(&disk.first_segment(), 4096..4608);
    for n in 0..8000u32 {
        store.put_unsynced(0, &(n % 60).to_le_bytes(), &[1; 300], 1).expect("room");
        if n % 100 == 0 {
            store.sync().expect("syncs");
        }
    }
    store.sync().expect("syncs");
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || {
        drop(store);
        let _ = ended.send(());
    });
    assert_eq!(end.recv_timeout(Duration::from_secs(60)), Ok(()), "it closes");
    assert!(disk.refused() < 1000, "{}", disk.refused());
}

#[test]
fn a_segment_that_could_not_be_read_for_a_while_is_compacted_afterwards() {
    let disk = Rotting::default();
    let (mut store, _) = Store::open(disk.watched(), options(1)).expect("opens");
    let put = |store: &mut Store<Watched<MemDisk>>, n: u32, byte: u8| {
        store.put(0, &n.to_le_bytes(), &[byte; 300], 1).expect("room");
    };
    (0..600).for_each(|n| put(&mut store, n, 1));
    store.sync().expect("syncs");
    maintain_all(&mut store).expect("all can be read");
    (0..600).filter(|n| n % 5 != 0).for_each(|n| put(&mut store, n, 2));
    store.sync().expect("syncs");
    let first = disk.first_segment();
    disk.spoil(&first, 0..1 << 20);
    // Sealing and preparing go on; the merge does not.
    assert!(matches!(maintain_all(&mut store), Err(WriteError::Unreadable(_))));
    assert!(disk.refused() > 0);
    disk.heal();
    maintain_all(&mut store).expect("it is tried again");
    assert!(disk.disk.contents(&first).is_none(), "it was compacted");
    for n in 0..600u32 {
        let expected = if n % 5 == 0 { 1 } else { 2 };
        let found = store.get_with(0, &n.to_le_bytes(), |found| found.bytes[0]).expect("readable");
        assert_eq!(found, Some(expected), "key {n}");
    }
}

fn key(n: u32) -> [u8; 4] {
    n.to_le_bytes()
}

/// Sixty keys, each written at its number times two hundred bytes or so, twice where `twice`; one deleted. Killed, not closed.
fn written(index_files: bool, twice: bool) -> Rotting {
    let disk = Rotting::default();
    let options = options(1).with_index_files(index_files);
    let (mut store, _) = Store::open(disk.watched(), options).expect("opens");
    for round in 0..=u8::from(twice) {
        for n in 0..60u32 {
            store.put(1, &key(n), &[round; 600], u64::from(n)).expect("room");
        }
        store.sync().expect("syncs");
    }
    store.delete(1, &key(59)).expect("room");
    store.sync().expect("syncs");
    maintain_all(&mut store).expect("all can be read");
    drop(store);
    disk.disk.kill();
    disk
}

/// What a key shows: its value's first byte, nothing, or that it is unknown.
fn shown(store: &mut Store<Watched<MemDisk>>, n: u32) -> Result<Option<u8>, ReadError> {
    store.get_with(1, &key(n), |found| {
        assert_eq!((found.bytes, found.tag), ([found.bytes[0]; 600].as_slice(), u64::from(n)));
        found.bytes[0]
    })
}

/// Any block of any file: the store opens, says so, loses what was in it and nothing else; and has it back when it can be read again.
#[test]
fn an_unreadable_block_is_damage_and_what_stands_around_it_is_there() {
    for (index_files, twice) in [(false, false), (false, true), (true, true)] {
        let original = written(index_files, twice).disk;
        let newest = u8::from(twice);
        let (mut lost, mut unreadable) = (0, 0);
        for name in original.list().expect("lists").iter().filter(|name| *name != "RESERVE") {
            let len = original.contents(name).expect("there").len() as u64;
            for block in (0..len).step_by(4096) {
                let disk = Rotting { disk: original.fork(), ..Rotting::default() };
                // A sector is enough to have its block refused.
                disk.spoil(name, block + 512..block.max(64) + 1024);
                let place = format!("{name} from {block}, index files: {index_files}, twice: {twice}");
                let report = verify(&disk.watched(), None).expect("it reads around").report;
                let open = || Store::open(disk.watched(), options(2).with_index_files(index_files));
                let (mut store, recovery) = open().expect("opens");
                let has = |kind| recovery.damage.iter().any(|damage| damage.kind == kind);
                if name.ends_with(".seg") && recovery.index_files == 0 {
                    assert!(has(DamageKind::Unreadable) || recovery.is_lossy(), "{place}: {recovery:?}");
                    assert_eq!(report.damage, recovery.damage, "{place}");
                    unreadable += u32::from(has(DamageKind::Unreadable));
                }
                let mut missing = 0;
                for n in 0..59 {
                    match shown(&mut store, n) {
                        Ok(Some(byte)) if byte == newest => {}
                        Ok(found) => {
                            assert!(found < Some(newest) && recovery.affects(1), "{place}: {n} {found:?}");
                            missing += 1;
                        }
                        Err(_) => missing += 1,
                    }
                }
                // A block has six or seven of them, and a part of two more.
                assert!(missing <= 9, "{place}: {missing} of 59 keys are missing");
                lost += missing;
                assert!(recovery.affects(1) || shown(&mut store, 59) == Ok(None), "{place}");

                // Life goes on. One key is deleted, whether it is there or not, and one put.
                for n in [7, 8, 22, 41] {
                    store.delete(1, &key(n)).expect("room");
                }
                for n in [8, 22, 41] {
                    store.put(1, &key(n + 1), &[9; 600], u64::from(n) + 1).expect("room");
                }
                for n in 0..400u32 {
                    store.put(0, &key(n % 20), &[3; 600], 1).expect("room");
                }
                store.sync().expect("syncs");
                let _ = maintain_all(&mut store);
                maintain_all(&mut store).expect("it is left alone");
                drop(store);
                disk.disk.kill();
                // And then the disk reads it again.
                disk.heal();
                let (mut store, recovery) = open().expect("opens");
                assert!(!recovery.is_lossy(), "{place}: {recovery:?}");
                for n in 0..60 {
                    let expected = match n {
                        9 | 23 | 42 => Some(9),
                        7 | 8 | 22 | 41 | 59 => None,
                        _ => Some(newest),
                    };
                    assert_eq!(shown(&mut store, n), Ok(expected), "{place}: key {n} after all");
                }
                let report = verify(&disk.disk.fork(), None).expect("sound").report;
                assert!(!report.is_lossy(), "{place}: {report:?}");
            }
        }
        assert!(lost > 20 && (unreadable > 5 || index_files), "{lost} {unreadable}");
    }
}

#[test]
fn a_block_that_becomes_unreadable_is_told_once_and_the_rest_is_compacted() {
    let disk = Rotting::default();
    let (mut store, _) = Store::open(disk.watched(), options(1)).expect("opens");
    let mut put = |n: u32, byte: u8| store.put(1, &key(n), &[byte; 600], u64::from(n)).expect("room");
    for n in 0..60 {
        put(n, 1);
    }
    // What is left of each segment is worth moving.
    for n in (0..60).filter(|n| n % 4 != 0) {
        put(n, 2);
    }
    store.sync().expect("syncs");
    let first = disk.first_segment();
    disk.spoil(&first, 4096..8192);
    assert!(matches!(maintain_all(&mut store), Err(WriteError::Unreadable(_))));
    let freed = maintain_all(&mut store).expect("it goes around");
    // All but the one segment: what is live takes 40 KB.
    assert!(freed > 20_000 && store.stats().log_bytes < 60_000, "{freed} {:?}", store.stats());
    assert!(disk.segments().contains(&first));
    let unknown: Vec<u32> = (0..60).filter(|n| shown(&mut store, *n).is_err()).collect();
    assert!(!unknown.is_empty() && unknown.iter().all(|n| n % 4 == 0 && *n < 16), "{unknown:?}");
    // A round of scrubbing finds whose they are.
    let mut damaged = 0;
    loop {
        let found = store.scrub(1 << 20).expect("reads around");
        damaged += found.damage.len();
        if found.complete {
            break;
        }
    }
    assert_eq!(damaged, unknown.len());
    disk.heal();
    for reopened in [false, true] {
        if reopened {
            store.close().expect("closes");
            store = Store::open(disk.watched(), options(2)).expect("opens").0;
            for n in 0..60 {
                store.put(1, &key(n), &[if n % 4 == 0 { 1 } else { 2 }; 600], u64::from(n)).expect("room");
            }
            store.sync().expect("syncs");
            maintain_all(&mut store).expect("all can be read");
            assert!(!disk.segments().contains(&first), "it was compacted");
        }
        for n in 0..60 {
            assert_eq!(shown(&mut store, n), Ok(Some(if n % 4 == 0 { 1 } else { 2 })), "key {n}");
        }
    }
}

#[test]
fn upkeep_by_hand_returns_whatever_cannot_be_read() {
    let disk = Rotting::default();
    let (store, _) = SharedStore::open(disk.watched(), options(1)).expect("opens");
    let write = |keys: &mut dyn Iterator<Item = u32>| {
        for n in keys {
            store.put_unsynced(0, &key(n), &[1; 300], 1).expect("room");
        }
        store.sync().expect("syncs");
    };
    write(&mut (0..600));
    store.maintain().expect("all can be read");
    let first = disk.first_segment();
    disk.spoil(&first, 0..1 << 20);
    write(&mut (0..600).filter(|n| n % 5 != 0));
    let told = [store.maintain(), store.maintain(), store.maintain()];
    assert!(told[2].is_ok(), "{told:?}");
    // It is told once: here, or to its own thread, whose round at the opening may be as late as this.
    let by_hand = told.iter().filter(|told| matches!(told, Err(WriteError::Unreadable(_)))).count();
    let by_thread = matches!(store.upkeep_error(), Some(WriteError::Unreadable(_)));
    assert_eq!(by_hand + usize::from(by_thread), 1, "{told:?} {:?}", store.upkeep_error());
    assert!(disk.segments().contains(&first));
    assert!(store.stats().log_bytes < 600_000, "the others were compacted: {:?}", store.stats());
    disk.heal();
    for n in 0..600 {
        assert!(store.get(0, &key(n)).expect("readable").is_some(), "key {n}");
    }
}

/// Of the delete the header can be read, which names what it deletes by its fingerprint; its key runs into a sector that can't.
#[test]
fn a_delete_in_an_accepted_segment_is_no_part_of_the_loss() {
    let rotting = Rotting::default();
    let key = [b'k'; 9000];
    let open = |seed| {
        let options = options(seed).with_segment_bytes(128 << 10).with_index_files(false);
        Store::open(rotting.watched(), options).expect("opens")
    };
    let (mut store, _) = open(1);
    store.put(1, &key, b"old", 1).expect("room");
    for n in 0..250u32 {
        store.put(1, &n.to_le_bytes(), &[1; 500], 1).expect("room");
    }
    store.sync().expect("syncs");
    store.delete(1, &key).expect("room");
    // What stands in that sector beside it is overwritten.
    for n in (10_000..10_010u32).chain(250..600).chain(10_000..10_010) {
        store.put(1, &n.to_le_bytes(), &[1; 500], 1).expect("room");
    }
    store.close().expect("closes");
    let at = |name: &String| {
        let bytes = rotting.disk.contents(name).expect("there");
        bytes.windows(key.len()).position(|window| window == key).map(|at| at as u64)
    };
    let holders: Vec<String> = rotting.segments().into_iter().filter(|name| at(name).is_some()).collect();
    let [older, name] = &holders[..] else { panic!("{holders:?}") };
    let end = at(name).expect("it is there") + 9000;
    let sector = end / 4096 * 4096;
    rotting.spoil(name, sector..sector + 4096);
    let (mut store, recovery) = open(2);
    assert!(recovery.is_lossy(), "{recovery:?}");
    assert_eq!(store.get(1, &key).err(), Some(ReadError::Unknown));
    store.accept_losses();
    // It is told once that the segment could not be read to be sealed.
    assert!(matches!(maintain_all(&mut store), Err(WriteError::Unreadable(_))));
    maintain_all(&mut store).expect("maintains");
    assert!(!rotting.segments().contains(name), "{name} of {:?}", rotting.segments());
    assert!(rotting.segments().contains(older), "{older} of {:?}", rotting.segments());
    store.close().expect("closes");
    rotting.heal();
    let (mut store, _) = open(3);
    assert!(matches!(store.get(1, &key), Ok(gramme_store::Read::Absent)), "it is back");
}
