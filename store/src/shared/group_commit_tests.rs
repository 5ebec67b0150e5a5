//! The writers of the store for many threads, in all orders in which they may come: nobody waits for ever, and nobody is told before it is
//! true.

use super::explore::{explore, point};
use super::{Inside, OPEN};
use crate::disk::{Disk, DiskError, DiskErrorKind, DiskFile};
use crate::error::WriteError;
use crate::mem_disk::{MemDisk, MemFile};
use crate::options::Options;
use crate::store::Store;
use std::boxed::Box;
use std::string::String;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::vec::Vec;

/// What the disk does of each sync in turn; of those after these, [`End::Well`].
type Ends = &'static [End];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Well,
    Fails,
    Panics,
}

/// A disk that knows how many writes to its segments were begun, and how many it had synced.
#[derive(Clone)]
struct Watched {
    disk: MemDisk,
    written: Arc<AtomicU64>,
    synced: Arc<AtomicU64>,
    /// Syncs so far.
    syncs: Arc<AtomicU64>,
    ends: Ends,
    /// Writes that still go well; the next one then fails.
    good_writes: Arc<AtomicU64>,
}

#[derive(Clone)]
struct WatchedFile {
    file: MemFile,
    is_segment: bool,
    disk: Watched,
}

impl Watched {
    fn file(&self, name: &str, file: MemFile) -> WatchedFile {
        WatchedFile { file, is_segment: name.ends_with(".seg"), disk: self.clone() }
    }
}

impl Disk for Watched {
    type File = WatchedFile;
    type Lock = <MemDisk as Disk>::Lock;

    fn lock(&self) -> Result<Self::Lock, DiskError> {
        self.disk.lock()
    }
    fn list(&self) -> Result<Vec<String>, DiskError> {
        self.disk.list()
    }
    fn open(&self, name: &str) -> Result<WatchedFile, DiskError> {
        Ok(self.file(name, self.disk.open(name)?))
    }
    fn create(&self, name: &str, bytes: u64) -> Result<WatchedFile, DiskError> {
        Ok(self.file(name, self.disk.create(name, bytes)?))
    }
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.disk.remove(name)
    }
    fn sync_dir(&self) -> Result<(), DiskError> {
        self.disk.sync_dir()
    }
}

impl DiskFile for WatchedFile {
    fn size(&self) -> Result<u64, DiskError> {
        self.file.size()
    }
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize, DiskError> {
        self.file.read_at(offset, into)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        if self.is_segment && self.disk.good_writes.fetch_sub(1, SeqCst) == 0 {
            return Err(DiskError::new(DiskErrorKind::Io, "write"));
        }
        self.disk.written.fetch_add(u64::from(self.is_segment), SeqCst);
        self.file.write_at(offset, bytes)
    }
    fn sync_data(&self) -> Result<(), DiskError> {
        let covered = self.disk.written.load(SeqCst);
        // The others go on while the disk works.
        point();
        let number = usize::try_from(self.disk.syncs.fetch_add(1, SeqCst)).expect("few");
        match self.disk.ends.get(number).unwrap_or(&End::Well) {
            End::Well => {}
            End::Fails => return Err(DiskError::new(DiskErrorKind::Io, "sync")),
            End::Panics => std::panic::resume_unwind(Box::new(End::Panics)),
        }
        self.file.sync_data()?;
        self.disk.synced.fetch_max(covered, SeqCst);
        Ok(())
    }
    fn truncate(&self, bytes: u64) -> Result<(), DiskError> {
        self.file.truncate(bytes)
    }
}

/// More writes than are made here.
const WELL: u64 = 1 << 32;
/// A disk that never fails.
const GOOD: (Ends, u64) = (&[], WELL);

type Act<'t> = Box<dyn FnOnce() + Send + 't>;

/// A store whose last sync served so many, on a disk of which so many writes go well.
fn shared(ends: Ends, expected: usize, good_writes: u64) -> (Arc<Inside<Watched>>, Watched) {
    let counter = |from| Arc::new(AtomicU64::new(from));
    let (written, synced, syncs) = (counter(0), counter(0), counter(1 << 32));
    let disk = Watched { disk: MemDisk::new(), written, synced, syncs, ends, good_writes: counter(WELL) };
    let (store, _) =
        Store::open(disk.clone(), Options::new([1; 16]).with_segment_bytes(4096)).expect("opens");
    // Those of the opening went well.
    disk.syncs.store(0, SeqCst);
    disk.good_writes.store(good_writes, SeqCst);
    let inside = Inside::new(store);
    inside.state().syncs.expect(expected);
    (Arc::new(inside), disk)
}

/// A put that waits, as `SharedStore::put` does; what it is told must be true.
fn put(inside: &Inside<Watched>, disk: &Watched, n: u8) -> Result<(), WriteError> {
    let mut state = inside.state();
    let position = state.act(|store| store.put(0, &[n], b"value", 1))?;
    let written = disk.written.load(SeqCst);
    let durable = inside.wait(state, position)?;
    assert!(durable.covers(position) && disk.synced.load(SeqCst) >= written, "told before it was true");
    Ok(())
}

/// Threads that put, each so many times, and one that syncs before it seals or merges, if there is `upkeep`.
fn explore_puts(
    bound: usize,
    (ends, good_writes): (Ends, u64),
    expected: usize,
    puts: &[u8],
    upkeep: bool,
) -> Result<u64, String> {
    explore(bound, || {
        let (inside, disk) = shared(ends, expected, good_writes);
        let writer = |(thread, puts): (u8, &u8)| -> Act<'_> {
            let (inside, disk, puts) = (inside.clone(), disk.clone(), *puts);
            Box::new(move || {
                for n in 0..puts {
                    let put = || put(&inside, &disk, thread * 16 + n);
                    // Whoever ran the sync gets to know of the disk's panic.
                    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(put));
                    match done {
                        Ok(done) => {
                            assert!(done.is_ok() || !ends.is_empty() || good_writes < WELL, "{done:?}")
                        }
                        Err(panic) if panic.is::<End>() => {}
                        Err(panic) => std::panic::resume_unwind(panic),
                    }
                }
            })
        };
        let mut threads: Vec<Act<'_>> = (0..).zip(puts).map(writer).collect();
        if upkeep {
            let inside = inside.clone();
            threads.push(Box::new(move || {
                let (state, synced) = inside.sync(inside.state());
                let store = state.store.as_ref().expect(OPEN);
                assert_eq!(synced.is_ok(), store.writable(), "{synced:?}");
            }));
        }
        threads
    })
}

fn check(name: &str, explored: Result<u64, String>) {
    let runs = explored.unwrap_or_else(|failure| panic!("{name}: {failure}"));
    std::println!("{name}: {runs} runs");
    assert!(runs > 5, "{name}: {runs} runs");
}

/// Every interruption that there can be.
const ALL: usize = usize::MAX;

/// Of three threads, of which there are a hundred thousand orders and more.
fn interruptions() -> usize {
    std::env::var("GRAMME_STORE_INTERRUPTIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}

#[test]
fn no_order_of_two_writers_keeps_one_waiting_or_tells_it_early() {
    for expected in [1, 2, 3] {
        check("one put each", explore_puts(ALL, GOOD, expected, &[1, 1], false));
        check("two puts and one", explore_puts(ALL, GOOD, expected, &[2, 1], false));
    }
    check("one put, and a sync", explore_puts(ALL, GOOD, 1, &[1], true));
}

#[test]
fn no_order_of_three_keeps_one_waiting_or_tells_it_early() {
    for expected in [1, 2, 3] {
        check("three puts", explore_puts(interruptions(), GOOD, expected, &[1, 1, 1], false));
        check("two puts, and a sync", explore_puts(interruptions(), GOOD, expected, &[1, 1], true));
        check("four puts", explore_puts(interruptions().min(1), GOOD, expected, &[2, 1, 1], false));
    }
}

#[test]
fn no_order_keeps_one_waiting_where_the_disk_fails() {
    for ends in [&[End::Fails][..], &[End::Panics], &[End::Well, End::Fails]] {
        check("two writers", explore_puts(ALL, (ends, WELL), 2, &[1, 1], false));
        check("three writers", explore_puts(interruptions(), (ends, WELL), 2, &[1, 1, 1], false));
    }
    // Who is called to lead the next sync may find that a put has failed meanwhile.
    for good_writes in 0..7 {
        check("four puts", explore_puts(1, (&[], good_writes), 1, &[2, 1, 1], false));
    }
}
