//! Figures that are no times per operation: memory per key, latency tails, amplification. Printed, not sampled.

use crate::counted::{Counted, Counts};
use crate::{KEYS, VALUE, key, open, slot};
use gramme_store::{Disk, FileDisk, Options, Read, SharedStore, Store};
use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Counts what is allocated now.
struct Meter;

static ALLOCATED: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static METER: Meter = Meter;

// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Meter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size() as u64, Relaxed);
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size() as u64, Relaxed);
        // SAFETY: the caller's promises are the same.
        unsafe { System.dealloc(at, layout) }
    }
}

pub(crate) fn run() {
    // In a test run (`-- --test`) each benchmark runs once, and these would take longer than all of them.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let figures: [(&str, fn()); 8] = [
        ("costs", costs),
        ("alone", alone),
        ("openings", openings),
        ("syncs", shared_syncs),
        ("memory", memory),
        ("tails", tails),
        ("merging", merging),
        ("amplification", amplification),
    ];
    // As with criterion's own filter, which is one word: what has it in its name.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    for (name, figure) in figures {
        if wanted.is_empty() || wanted.iter().any(|word| name.contains(word)) {
            figure();
        }
    }
}

/// Processor time of this thread so far, in nanoseconds: what a busy machine changes least.
fn processor_time() -> u64 {
    clock(rustix::time::ClockId::ThreadCPUTime)
}

fn clock(which: rustix::time::ClockId) -> u64 {
    let now = rustix::time::clock_gettime(which);
    u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).expect("since the thread began")
}

const ROUNDS: u64 = 9;
/// Operations that are timed together; of the peers fewer, for theirs take longer.
const TIMES: u64 = 20_000;
const PEER_TIMES: u64 = 4_000;
/// Look-ups of what is not there, ours and the peers': so many that the caches hold what they need.
const MISSES: u64 = 200_000;
/// The buffer of the lines that say so.
const BUFFER_BYTES: usize = 256 << 10;
/// Keys of every store here: more than the processor's caches hold.
const MANY: u64 = 1_000_000;

/// Processor time per operation, the store's beside the raw ones and the peers', in rounds: medians.
#[allow(clippy::cast_precision_loss)]
fn costs() {
    for bytes in [100, 1024] {
        let (_directory, mut store) = crate::filled(MANY, bytes);
        let (_mapped_directory, mut mapped) = crate::filled_mapped(MANY, bytes);
        let value = &VALUE[..bytes];
        let folder = tempfile::tempdir().expect("room");
        let path = folder.path().join("raw");
        let file = std::fs::File::options().create(true).truncate(true).read(true).write(true).open(path);
        let file = file.expect("a file");
        let record = &raw_record(bytes)[..];
        let len = record.len();
        // As long as the store's records together, and written one by one, as a log comes about: a shorter file, or one
        // written in one piece, is faster to read.
        let lap = MANY * len as u64;
        (0..MANY).for_each(|n| file.write_all_at(record, n * len as u64).expect("room"));
        let fresh = |name| file_with_room(&folder.path().join(name), ROUNDS * TIMES * len as u64);
        let (appended, gathered) = (fresh("appended"), fresh("gathered"));
        let buffer = tempfile::tempdir().expect("room for a store");
        let disk = FileDisk::open(buffer.path()).expect("a directory of ours");
        let options = Options::new([7; 16]).with_write_buffer(BUFFER_BYTES);
        let mut buffered = Store::open(disk, options).expect("a store of ours").0;
        let mut raw_buffer = std::io::BufWriter::with_capacity(BUFFER_BYTES, &file);
        let mut raw_append = std::io::BufWriter::with_capacity(BUFFER_BYTES, &gathered);
        let mut into = vec![0; len];
        let mut taken: Vec<(String, Vec<u64>)> = Vec::new();
        let peers = peers(folder.path(), value);
        for round in 0..ROUNDS {
            let mut measure = |name: String, times: u64, act: &mut dyn FnMut(u64)| {
                // Before reads that count come as many of other keys that don't: whoever reads first would pay for what the turns before
                // have put out of the caches, and the others would not.
                if name.contains("get") || name.contains("pread") {
                    (0..times).for_each(|n| act(MANY / 2 + round * times + n));
                }
                let before = processor_time();
                (0..times).for_each(|n| act(round * times + n));
                let spent = (processor_time() - before) / times;
                match taken.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, all)) => all.push(spent),
                    None => taken.push((name, Vec::from([spent]))),
                }
            };
            let place = |n: u64| n * len as u64 % lap;
            // All keys in no order that a disk likes; each turn gets others of them, for what one has read is in the caches for the next.
            let scattered = |n: u64, turn: u64| (n + turn * (MANY / 5)) * 618_033 % MANY;
            measure("raw write".into(), TIMES, &mut |n| file.write_all_at(record, place(n)).expect("room"));
            measure("raw append".into(), TIMES, &mut |n| {
                appended.write_all_at(record, n * len as u64).expect("room");
            });
            measure("put".into(), TIMES, &mut |n| {
                store.put(slot(n % MANY), &key(n % MANY), value, n).expect("room");
            });
            measure("raw buffered write with checksum".into(), TIMES, &mut |n| {
                if place(n) == 0 {
                    raw_buffer.rewind().expect("a file");
                }
                gather(&mut raw_buffer, record);
            });
            measure("raw buffered append with checksum".into(), TIMES, &mut |_| {
                gather(&mut raw_append, record);
            });
            measure("put, buffered".into(), TIMES, &mut |n| {
                buffered.put(slot(n % MANY), &key(n % MANY), value, n).expect("room");
            });
            measure("put, mapped".into(), TIMES, &mut |n| {
                mapped.put(slot(n % MANY), &key(n % MANY), value, n).expect("room");
            });
            // Off the put path, and not counted.
            rest(&mut store);
            rest(&mut buffered);
            rest(&mut mapped);
            measure("raw pread".into(), TIMES, &mut |n| {
                file.read_exact_at(&mut into, place(scattered(n, 0))).expect("readable");
            });
            // What is read first pays for what it finds out of the caches, so they take turns.
            for turn in [round % 2, (round + 1) % 2] {
                if turn == 0 {
                    measure("get hit".into(), TIMES, &mut |n| {
                        let n = scattered(n, 0);
                        assert!(matches!(store.get(slot(n), &key(n)), Ok(Read::Value { .. })));
                    });
                } else {
                    measure("get hit, in place".into(), TIMES, &mut |n| {
                        let n = scattered(n, 1);
                        assert_eq!(
                            store.get_with(slot(n), &key(n), |value| value.bytes.len()),
                            Ok(Some(bytes))
                        );
                    });
                }
            }
            measure("get hit, mapped".into(), TIMES, &mut |n| {
                let n = scattered(n, 2);
                assert_eq!(mapped.get_with(slot(n), &key(n), |value| value.bytes.len()), Ok(Some(bytes)));
            });
            measure("get miss".into(), MISSES, &mut |n| {
                let n = n + 2 * MANY;
                assert!(matches!(store.get(slot(n), &key(n)), Ok(Read::Absent)));
            });
            for (name, peer) in &peers {
                measure(format!("{name}: put"), PEER_TIMES, &mut |n| peer.put(&key(n % MANY), value));
                measure(format!("{name}: get hit"), PEER_TIMES, &mut |n| {
                    assert_eq!(peer.get(&key(scattered(n, 0))), Some(bytes));
                });
                measure(format!("{name}: get miss"), MISSES, &mut |n| {
                    assert_eq!(peer.get(&key(n + 2 * MANY)), None)
                });
            }
        }
        for (name, mut spent) in taken {
            spent.sort_unstable();
            println!("figure: processor time, {bytes} B: {name}: {} ns", spent[spent.len() / 2]);
        }
    }
}

/// As many bytes as a record has whose value has so many.
fn raw_record(value_bytes: usize) -> Vec<u8> {
    let mut record = [VALUE, VALUE].concat();
    record.truncate((56 + value_bytes).next_multiple_of(8));
    record
}

/// A new file with room: a log's writes are to pages that are not there yet.
fn file_with_room(path: &Path, bytes: u64) -> File {
    let file = File::options().create_new(true).write(true).open(path).expect("a file");
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes).expect("room");
    file
}

/// Writes a record with a checksum in its first bytes.
fn gather(into: &mut dyn Write, record: &[u8]) {
    let sum = crc32fast::hash(std::hint::black_box(record));
    into.write_all(&sum.to_le_bytes()).expect("room");
    into.write_all(&record[4..]).expect("room");
}

/// Does all upkeep that is due, and syncs.
fn rest<D: Disk>(store: &mut Store<D>) {
    while store.maintain(1 << 20).is_ok_and(|done| done.more) {}
    store.sync().expect("a disk that syncs");
}

/// Puts to one store at a time, with all that it does in other threads (and, of ours, with upkeep): time and processor time of the whole
/// process.
#[allow(clippy::cast_precision_loss)]
fn alone() {
    for bytes in [100, 1024] {
        let value = &VALUE[..bytes];
        let measure = |name: &str, times: u64, put: &mut dyn FnMut(u64)| {
            (0..times / 4).for_each(&mut *put);
            let (begun, before) = (Instant::now(), clock(rustix::time::ClockId::ProcessCPUTime));
            (times / 4..times).for_each(put);
            let took = begun.elapsed().as_secs_f64();
            let spent = clock(rustix::time::ClockId::ProcessCPUTime) - before;
            let puts = (times - times / 4) as f64;
            println!(
                "figure: puts, all threads, {bytes} B: {name}: {:.0} ns of processor time, {:.0} thousand a second",
                spent as f64 / puts,
                puts / took / 1e3
            );
        };
        let record = raw_record(bytes);
        for _ in 0..3 {
            let folder = tempfile::tempdir().expect("room");
            let file = file_with_room(&folder.path().join("gathered"), 400_000 * record.len() as u64);
            let mut raw = std::io::BufWriter::with_capacity(BUFFER_BYTES, file);
            measure("raw, gathered, with checksum", 400_000, &mut |_| gather(&mut raw, &record));
            // What a put that makes its write at once can't be faster than.
            let file = file_with_room(&folder.path().join("appended"), 400_000 * record.len() as u64);
            measure("raw, a write for each", 400_000, &mut |n| {
                file.write_all_at(&record, n * record.len() as u64).expect("room");
            });
            for buffer in [0, BUFFER_BYTES] {
                let directory = tempfile::tempdir().expect("room for a store");
                let disk = FileDisk::open(directory.path()).expect("a directory of ours");
                let options = Options::new([7; 16]).with_write_buffer(buffer);
                let mut store = Store::open(disk, options).expect("a store of ours").0;
                let name = if buffer == 0 { "ours" } else { "ours, buffered" };
                measure(name, 400_000, &mut |n| {
                    store.put(slot(n % KEYS), &key(n % KEYS), value, n).expect("room");
                    crate::upkeep(&mut store, n);
                });
            }
            let directory = tempfile::tempdir().expect("room for a store");
            let mut store = crate::open_mapped(directory.path());
            measure("ours, mapped", 400_000, &mut |n| {
                store.put(slot(n % KEYS), &key(n % KEYS), value, n).expect("room");
                crate::upkeep(&mut store, n);
            });
            drop((store, directory));
            let directory = tempfile::tempdir().expect("room for stores");
            for (name, peer) in empty_peers(directory.path()) {
                measure(name, 400_000, &mut |n| peer.put(&key(n % KEYS), value));
            }
        }
    }
}

#[cfg(any(feature = "peers", feature = "peers-native", feature = "peers-rocksdb"))]
fn empty_peers(path: &Path) -> impl Iterator<Item = (&'static str, Box<dyn crate::peers::Peer>)> {
    crate::peers::open_each(path)
}

/// No peers were asked for.
#[cfg(not(any(feature = "peers", feature = "peers-native", feature = "peers-rocksdb")))]
fn empty_peers(_: &Path) -> impl Iterator<Item = (&'static str, Box<dyn Peer>)> {
    std::iter::empty()
}

#[cfg(any(feature = "peers", feature = "peers-native", feature = "peers-rocksdb"))]
fn peers(path: &Path, value: &[u8]) -> Vec<(&'static str, Box<dyn crate::peers::Peer>)> {
    let peers: Vec<_> = crate::peers::open_each(path).collect();
    for (_, peer) in &peers {
        peer.fill(MANY, value);
    }
    peers
}

/// No peers were asked for.
#[cfg(not(any(feature = "peers", feature = "peers-native", feature = "peers-rocksdb")))]
fn peers(_: &Path, _: &[u8]) -> Vec<(&'static str, Box<dyn Peer>)> {
    Vec::new()
}

#[cfg(not(any(feature = "peers", feature = "peers-native", feature = "peers-rocksdb")))]
trait Peer: Sync {
    fn put(&self, key: &[u8], value: &[u8]);
    fn put_durable(&self, key: &[u8], value: &[u8]);
    fn get(&self, key: &[u8]) -> Option<usize>;
}

/// Processor time of an opening of a store that was closed, with one thread. After a kill there is an unsealed segment to read besides, its
/// reserved room too.
#[allow(clippy::cast_precision_loss)]
fn openings() {
    for bytes in [100, 1024] {
        let (directory, store) = crate::filled(MANY, bytes);
        store.close().expect("a disk that syncs");
        for index_files in [true, false] {
            let mut spent = Vec::new();
            let mut log = 0;
            for _ in 0..7 {
                let disk = FileDisk::open(directory.path()).expect("a directory of ours");
                let options = Options::new([7; 16]).with_index_files(index_files).with_open_threads(1);
                let before = processor_time();
                let (store, _) = Store::open(disk, options).expect("a store of ours");
                spent.push(processor_time() - before);
                assert_eq!(store.len(), MANY);
                log = store.stats().log_bytes;
                store.close().expect("a disk that syncs");
            }
            spent.sort_unstable();
            let median = spent[spent.len() / 2] as f64;
            println!(
                "figure: opening, {bytes} B, index files {index_files}: {:.1} M entries/s, {:.2} GB/s of log",
                MANY as f64 * 1e3 / median,
                log as f64 / median
            );
        }
    }
}

/// How many durable puts share a sync, and how many are made in a second, in rounds in which the peers take turns.
#[allow(clippy::cast_precision_loss)]
fn shared_syncs() {
    const SYNC_ROUNDS: u64 = 5;
    const RAW_BYTES: usize = 5 * 200 * RECORD;
    /// Bytes of a record with a value of 100 bytes.
    const RECORD: usize = 160;
    // New keys in each round: to put what is there already is no work for some.
    let put_all = |writers: u64, round: u64, put: &(dyn Fn(u64) + Sync)| {
        let puts = writers * 200;
        puts as f64 / crate::from_threads(writers, puts, |n| put(round * puts + n)).as_secs_f64()
    };
    for writers in [1, 8, 32] {
        let directory = tempfile::tempdir().expect("room for a store");
        let counts = Arc::new(Counts::default());
        let disk = FileDisk::open(directory.path()).expect("a directory of ours");
        let disk = Counted::new(disk, counts.clone());
        let (store, _) = SharedStore::open(disk, Options::new([7; 16])).expect("a store of ours");
        let folder = tempfile::tempdir().expect("room for stores");
        let peers: Vec<_> = empty_peers(folder.path()).collect();
        let before = counts.syncs.load(Relaxed);
        let mut rates = vec![Vec::new(); 1 + peers.len()];
        // As many bytes as a record has, into a file that has its room: what a disk does of a put.
        let raw = File::create_new(folder.path().join("raw")).expect("room for a file");
        raw.write_all_at(&vec![0; RAW_BYTES], 0).expect("room for a file");
        raw.sync_all().expect("a disk that syncs");
        let mut raw_rates = Vec::new();
        for round in 0..SYNC_ROUNDS {
            if writers == 1 {
                raw_rates.push(put_all(writers, round, &|n| {
                    raw.write_all_at(&VALUE[..RECORD], n * RECORD as u64).expect("room");
                    raw.sync_data().expect("a disk that syncs");
                }));
            }
            rates[0].push(put_all(writers, round, &|n| {
                store.put(slot(n), &key(n), &VALUE[..100], n).expect("a disk that syncs");
            }));
            for ((_, peer), rates) in peers.iter().zip(&mut rates[1..]) {
                rates.push(put_all(writers, round, &|n| peer.put_durable(&key(n), &VALUE[..100])));
            }
        }
        let syncs = counts.syncs.load(Relaxed) - before;
        let per_sync = (writers * 200 * SYNC_ROUNDS) as f64 / syncs as f64;
        println!("figure: durable puts, {writers} writers: {per_sync:.1} per sync");
        raw_rates.sort_unstable_by(f64::total_cmp);
        if let Some(median) = raw_rates.get(raw_rates.len() / 2) {
            println!("figure: write and fdatasync, one after the other: {median:.0} a second");
        }
        let names = std::iter::once("ours").chain(peers.iter().map(|(name, _)| *name));
        for (name, mut rates) in names.zip(rates) {
            rates.sort_unstable_by(f64::total_cmp);
            println!(
                "figure: durable puts, {writers} writers: {name}: {:.0} a second ({:.0} to {:.0})",
                rates[rates.len() / 2],
                rates[0],
                rates[rates.len() - 1]
            );
        }
    }
}

/// Bytes of memory per key, as the number of keys goes from one power of two to the next: tables double on the way.
fn memory() {
    let directory = tempfile::tempdir().expect("room for a store");
    let mut store = open(directory.path());
    let base = ALLOCATED.load(Relaxed);
    let (mut sum, mut least, mut most, mut samples) = (0.0, f64::MAX, 0.0f64, 0.0);
    for n in 1..=(1u64 << 20) {
        store.put(slot(n % 1024), &key(n), b"", n).expect("room");
        if n.is_multiple_of(256) {
            store.maintain(1 << 20).expect("a disk that takes it");
        }
        if n >= 1 << 19 && n.is_multiple_of(1 << 14) {
            #[allow(clippy::cast_precision_loss)]
            let per_key = (ALLOCATED.load(Relaxed) - base) as f64 / n as f64;
            (sum, samples) = (sum + per_key, samples + 1.0);
            (least, most) = (least.min(per_key), most.max(per_key));
        }
    }
    println!(
        "figure: memory per key, 0.5 to 1 M keys in 1,024 slots: mean {:.1} B, {least:.1} to {most:.1} B",
        sum / samples
    );
}

/// How long puts take without upkeep, and with it, all that they wait for included: in a loop of one thread that makes a small step of
/// upkeep before every 16th put, and on the store for many threads, whose own thread seals and compacts and holds the lock meanwhile.
/// Syncs stand between the puts in all three: whether a put waits for one is its caller's choice.
fn tails() {
    const KEYS: u64 = 100_000;
    let put = |n: u64| (slot(n % KEYS), key(n % KEYS));
    let alone = |upkeep: bool| {
        let directory = tempfile::tempdir().expect("room for a store");
        let store = std::cell::RefCell::new(open(directory.path()));
        let timed = |n: u64| {
            let mut store = store.borrow_mut();
            if upkeep && n.is_multiple_of(16) {
                store.maintain(4 << 10).expect("a disk that takes it");
            }
            let (slot, key) = put(n);
            store.put(slot, &key, &VALUE[..100], n).expect("room");
        };
        latencies(timed, || {
            store.borrow_mut().sync().expect("a disk that syncs");
        })
    };
    let shared = || {
        let directory = tempfile::tempdir().expect("room for a store");
        let disk = FileDisk::open(directory.path()).expect("a directory of ours");
        let (store, _) = SharedStore::open(disk, Options::new([7; 16])).expect("a store of ours");
        let timed = |n: u64| {
            let (slot, key) = put(n);
            store.put_unsynced(slot, &key, &VALUE[..100], n).expect("room");
        };
        let times = latencies(timed, || {
            store.sync().expect("a disk that syncs");
        });
        assert!(store.upkeep_error().is_none(), "it has kept up");
        times
    };
    let (median, quiet) = alone(false);
    println!("figure: put without upkeep: median {median:?}, p99.9 {quiet:?}");
    for (how, (median, tail)) in [("in steps", alone(true)), ("by a thread", shared())] {
        let ratio = tail.as_secs_f64() / quiet.as_secs_f64();
        println!(
            "figure: put while sealing and compacting {how}: median {median:?}, p99.9 {tail:?}: {ratio:.1} x"
        );
    }
}

/// The median and the 99.9th percentile of what 600,000 calls take, each with its number; between them, now and then, `sync`.
fn latencies(timed: impl Fn(u64), sync: impl Fn()) -> (Duration, Duration) {
    let mut times: Vec<Duration> = (0..600_000u64)
        .map(|n| {
            if n.is_multiple_of(512) {
                sync();
            }
            let begun = Instant::now();
            timed(n);
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() / 1000 * 999])
}

/// What merging takes of a thread: segments of which five in eight records are dead, in no order, are copied in steps of some sizes.
#[allow(clippy::cast_precision_loss)]
fn merging() {
    for (bytes, budget) in [(100, 4 << 10), (100, 256 << 10), (1024, 4 << 10), (1024, 256 << 10)] {
        let (mut rates, mut walls, mut per_write) = (Vec::new(), Vec::new(), 0.0);
        for _ in 0..5 {
            let directory = tempfile::tempdir().expect("room for a store");
            let counts = Arc::new(Counts::default());
            let disk = FileDisk::open(directory.path()).expect("a directory of ours");
            let options = Options::new([7; 16]).with_segment_bytes(8 << 20);
            let (mut store, _) =
                Store::open(Counted::new(disk, counts.clone()), options).expect("a store of ours");
            let keys = (64 << 20) / (56 + bytes as u64);
            let mut put = |n: u64| {
                store.put(slot(n), &key(n), &VALUE[..bytes], n).expect("room");
            };
            (0..keys).for_each(&mut put);
            (0..keys).filter(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61 < 5).for_each(&mut put);
            store.sync().expect("a disk that syncs");
            let (mut spent, mut took, mut copied, mut writes) = (0, Duration::ZERO, 0, 0);
            loop {
                let written = || [counts.records.load(Relaxed), counts.writes.load(Relaxed)];
                let (begun, before, [bytes, calls]) = (Instant::now(), processor_time(), written());
                let done = store.maintain(budget).expect("a disk that takes it");
                // Steps of a merge alone count, but for the last one.
                if done.more && store.merge_progress().is_some() {
                    spent += processor_time() - before;
                    took += begun.elapsed();
                    copied += written()[0] - bytes;
                    writes += written()[1] - calls;
                }
                if done.needs_sync {
                    store.sync().expect("a disk that syncs");
                } else if !done.more {
                    break;
                }
            }
            rates.push(copied as f64 / spent as f64 * 1e3);
            walls.push(copied as f64 / took.as_secs_f64() / 1e6);
            per_write = copied as f64 / writes as f64;
        }
        rates.sort_unstable_by(f64::total_cmp);
        walls.sort_unstable_by(f64::total_cmp);
        println!(
            "figure: merging, {bytes} B, steps of {} KiB: {:.0} MB copied a second of processor time ({:.0} to {:.0}), {:.0} MB a second; {per_write:.0} bytes a write",
            budget >> 10,
            rates[2],
            rates[0],
            rates[4],
            walls[2]
        );
    }
}

/// Space and writes under random overwriting, with and without index files.
#[allow(clippy::cast_precision_loss)]
fn amplification() {
    for index_files in [true, false] {
        let directory = tempfile::tempdir().expect("room for a store");
        let path: &Path = directory.path();
        let counts = Arc::new(Counts::default());
        let disk = FileDisk::open(path).expect("a directory of ours");
        let disk = Counted::new(disk, counts.clone());
        let options = Options::new([7; 16]).with_segment_bytes(1 << 20).with_index_files(index_files);
        let (mut store, _) = Store::open(disk, options).expect("a store of ours");
        let keys = 1_000_000;
        let mut word = 1u64;
        let written = || [counts.records.load(Relaxed), counts.rest.load(Relaxed)];
        let (mut before, mut space, mut samples) = ([0; 2], 0.0, 0.0);
        let puts = 8_000_000u64;
        for n in 0..puts {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = if n < keys { n } else { (word >> 33) % keys };
            store.put(slot(at), &key(at), &VALUE[..100], n).expect("room");
            if n.is_multiple_of(64) {
                store.maintain(64 << 10).expect("a disk that takes it");
            }
            if n.is_multiple_of(512) {
                store.sync().expect("a disk that syncs");
            }
            if n == puts / 2 {
                before = written();
            }
            if n > puts / 2 && n.is_multiple_of(40_000) {
                let files: u64 = std::fs::read_dir(path)
                    .expect("listed")
                    .filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()))
                    .sum();
                space += files as f64 / store.stats().live_bytes as f64;
                samples += 1.0;
            }
        }
        let logical = (puts / 2 * 160) as f64;
        let [records, rest] = written();
        println!(
            "figure: random overwriting, index files {index_files}: all files {:.2} x live; over the records put: {:.2} copied, {:.2} written in all",
            space / samples,
            (records - before[0]) as f64 / logical - 1.0,
            (records - before[0] + rest - before[1]) as f64 / logical
        );
    }
}
