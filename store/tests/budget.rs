//! One call of `scrub` or `maintain` reads as much as it was told to, and little more, whatever it meets.

#[path = "common/watched.rs"]
mod watched;

use gramme_store::{MemDisk, Options, Store};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use watched::{Op, Watched};

const BUDGET: usize = 4096;
/// A window of a scan twice, and the longest record here.
const MORE: u64 = (2 << 13) + (BUDGET as u64) + 2048;

fn options(seed: u8) -> Options {
    Options::new([seed; 16]).with_segment_bytes(8 << 20).with_tree_key([7; 16])
}

/// A disk that counts the bytes that are read from it.
fn counted(disk: &MemDisk) -> (Watched<MemDisk>, Arc<AtomicU64>) {
    let read = Arc::new(AtomicU64::new(0));
    let counter = read.clone();
    let watched = Watched::new(disk.clone(), move |op| {
        if let Op::Read(_, range) = op {
            counter.fetch_add(range.end - range.start, Ordering::Relaxed);
        }
        Ok(())
    });
    (watched, read)
}

/// Does all the upkeep that there is, in small steps; answers how many they were.
fn upkeep(
    store: &mut Store<Watched<MemDisk>>,
    read: &AtomicU64,
    mut between: impl FnMut(&mut Store<Watched<MemDisk>>),
) -> u64 {
    for steps in 0.. {
        let before = read.load(Ordering::Relaxed);
        let done = store.maintain(BUDGET).expect("maintains");
        let bytes = read.load(Ordering::Relaxed) - before;
        assert!(bytes <= MORE, "{bytes} bytes in one step");
        store.sync().expect("syncs");
        if !done.more && !done.needs_sync {
            return steps;
        }
        between(store);
    }
    unreachable!("it comes to an end")
}

fn key(n: u32) -> [u8; 4] {
    n.to_le_bytes()
}

#[test]
fn a_hole_is_gone_through_in_pieces() {
    const KEYS: u32 = 6000;
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
    for n in 0..KEYS {
        store.put(1, &key(n), &[7; 1000], 1).expect("room");
    }
    store.close().expect("closes");
    // Bytes that begin like records and are none.
    let hole: Vec<u8> = (0..4u32 << 18).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    assert!(disk.overwrite("0000000000000001.seg", 1 << 20, &hole));
    let (watched, read) = counted(&disk);
    let (mut store, recovery) = Store::open(watched, options(2)).expect("opens");
    assert!(
        recovery.damage.is_empty() && recovery.index_files == 1,
        "the index file knows of all: {recovery:?}"
    );
    let (mut found, mut most, mut complete) = (0, 0, false);
    while !complete {
        let before = read.load(Ordering::Relaxed);
        let step = store.scrub(BUDGET).expect("readable");
        let bytes = read.load(Ordering::Relaxed) - before;
        assert!(bytes <= MORE && step.bytes <= bytes, "{bytes} bytes, {step:?}");
        most = most.max(bytes);
        found += step.damage.len();
        complete = step.complete;
    }
    assert!(found > 3000 && most > 0, "{found}");
    // Compaction goes through it, too, once much is dead.
    for n in 0..4500 {
        store.delete(1, &key(n)).expect("room");
    }
    store.sync().expect("syncs");
    assert!(upkeep(&mut store, &read, |_| ()) > 20);
}

/// A store without faults that holds the same keys.
fn sums_of(store: &mut Store<Watched<MemDisk>>, slot: u16, tags: &[Option<u64>]) -> (u128, u64) {
    let (mut fresh, _) = Store::open(MemDisk::new(), options(9)).expect("opens");
    for (n, tag) in (0..).zip(tags) {
        if let Some(tag) = tag
            && store.get(slot, &key(n)).is_ok()
        {
            fresh.put(slot, &key(n), b"", *tag).expect("room");
        }
    }
    let tree = fresh.tree().expect("it has one");
    (tree.root(), tree.odd())
}

#[test]
fn a_slot_is_counted_anew_in_pieces_while_it_is_written_to() {
    const KEYS: u32 = 20_000;
    for variant in 0..5 {
        let disk = MemDisk::new();
        let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
        let mut tags: Vec<Option<u64>> = (0..KEYS).map(|n| Some(u64::from(n))).collect();
        for n in 0..KEYS {
            store.put(0, &key(n), &[&key(n)[..], &[0xee; 200]].concat(), u64::from(n)).expect("room");
        }
        store.close().expect("closes");
        // Two values rot.
        let rotten = [41u32, 9001];
        let bytes = disk.contents("0000000000000001.seg").expect("there");
        for n in rotten {
            let value = [&key(n)[..], &[0xee; 200]].concat();
            let at = bytes.windows(value.len()).position(|window| window == value).expect("it is there");
            assert!(disk.flip_bit("0000000000000001.seg", (at as u64 + 50) * 8));
        }
        let (watched, read) = counted(&disk);
        let (mut store, _) = Store::open(watched, options(2)).expect("opens");
        let whole = store.tree().expect("it has one").root();
        for n in (0..KEYS).filter(|n| n % 2 == 0) {
            store.delete(0, &key(n)).expect("room");
            tags[n as usize] = None;
        }
        store.sync().expect("syncs");
        let mut step = 0u32;
        let steps = upkeep(&mut store, &read, |store| {
            step += 1;
            let n = step.wrapping_mul(7919) % KEYS;
            match variant {
                1 => {
                    store.put(0, &key(n), b"again", u64::from(n) + 1).expect("room");
                    tags[n as usize] = Some(u64::from(n) + 1);
                }
                2 if !rotten.contains(&n) => {
                    store.delete(0, &key(n)).expect("room");
                    tags[n as usize] = None;
                }
                3 if step.is_multiple_of(300) => {
                    store.put(0, &key(rotten[0]), b"healed", 5).expect("room");
                    tags[rotten[0] as usize] = Some(5);
                }
                4 if step == 600 => {
                    store.drop_slot(0).expect("room");
                    tags.fill(None);
                }
                _ => {}
            }
        });
        assert!(steps > 500 || variant == 4, "{steps}");
        let tree = store.tree().expect("it has one");
        let sums = (tree.root(), tree.odd());
        assert_ne!(sums.0, whole);
        assert_eq!(sums, sums_of(&mut store, 0, &tags), "variant {variant}");
    }
}
