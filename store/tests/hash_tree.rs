//! The hash tree: the same content has the same sums, whatever the way to it.

mod common;

use common::{Dice, Model, Run};
use gramme_store::{MemDisk, Options, Store};
use std::collections::BTreeMap;

fn options(seed: u8) -> Options {
    Options::new([seed; 16]).with_segment_bytes(4096).with_tree_key([0x77; 16])
}

fn open(disk: &MemDisk, seed: u8) -> Store<MemDisk> {
    Store::open(disk.clone(), options(seed)).expect("opens").0
}

fn root(store: &Store<MemDisk>) -> u128 {
    store.tree().expect("a tree key was given").root()
}

#[test]
fn equal_content_has_equal_roots_whatever_the_order_and_the_store() {
    let mut roots = Vec::new();
    for seed in 0..6u8 {
        let mut store = open(&MemDisk::new(), seed);
        let mut keys: Vec<u32> = (0..200).collect();
        let mut dice = Dice(u64::from(seed));
        for n in (1..keys.len()).rev() {
            keys.swap(n, usize::try_from(dice.below(n as u64 + 1)).expect("small"));
        }
        for n in &keys {
            for older in 0..dice.below(3) {
                store.put(3, &n.to_le_bytes(), b"older", older).expect("room");
            }
            store
                .put(
                    3,
                    &n.to_le_bytes(),
                    &vec![0; usize::try_from(dice.below(100)).expect("small")],
                    u64::from(*n),
                )
                .expect("room");
            // Comes and goes.
            store.put(4, &n.to_le_bytes(), b"", 1).expect("room");
            if n % 2 == 0 {
                store.delete(4, &n.to_le_bytes()).expect("room");
            }
        }
        store.drop_slot(4).expect("room");
        roots.push((root(&store), store.tree().expect("a tree").slot(3)));
    }
    assert!(roots.windows(2).all(|pair| pair[0] == pair[1]), "{roots:x?}");
    assert_eq!(roots[0].0, roots[0].1, "slot 4 is empty again");
    assert_ne!(roots[0].0, 0);
}

#[test]
fn a_difference_shows_in_its_slot_and_above_and_nowhere_else() {
    let (mut one, mut two) = (open(&MemDisk::new(), 1), open(&MemDisk::new(), 2));
    for n in 0..300u16 {
        for store in [&mut one, &mut two] {
            store.put(n, b"key", b"value", 1).expect("room");
        }
    }
    two.put(77, b"key", b"value", 2).expect("room");
    let (a, b) = (one.tree().expect("a tree"), two.tree().expect("a tree"));
    assert_ne!(a.root(), b.root());
    assert_ne!(a.range(64..=127), b.range(64..=127));
    assert_eq!(a.range(0..=76), b.range(0..=76));
    assert_eq!(a.range(78..=u16::MAX), b.range(78..=u16::MAX));
    assert!((0..300).all(|slot| (a.slot(slot) == b.slot(slot)) == (slot != 77)));
}

/// The sums of what a model holds, from a store that is given just that.
fn rebuilt(content: &BTreeMap<(u16, u8), Option<u64>>) -> u128 {
    let mut store = open(&MemDisk::new(), 99);
    for ((slot, key), number) in content {
        if let Some(number) = number {
            store.put(*slot, &common::key_bytes(*slot, *key), b"", *number).expect("room");
        }
    }
    root(&store)
}

#[test]
fn any_history_with_crashes_and_merges_leaves_the_sum_of_what_is_there() {
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let disk = MemDisk::new();
        let mut run = Run::new(open(&disk, 1), Model::default(), 0);
        for life in 0..4u8 {
            for op in dice.ops(60) {
                run.step(&op).expect("a disk without faults");
            }
            let now = run.model.time;
            let found = common::contents(&mut run.store, now);
            assert_eq!(root(&run.store), rebuilt(&found), "seed {seed}, life {life}: as it runs");
            drop(run);
            disk.crash(dice.below(u64::MAX));
            // From index files where there are any, and from a scan.
            let scanned = Store::open(disk.fork(), options(2).with_index_files(false)).expect("opens").0;
            let mut store = open(&disk, life + 3);
            store.set_time(now);
            let found = common::contents(&mut store, now);
            assert_eq!(root(&store), rebuilt(&found), "seed {seed}, life {life}: after a crash");
            assert_eq!(root(&scanned), root(&store));
            let mut model = Model::default();
            model.time = now;
            model.settle(&found);
            run = Run::new(store, model, u64::from(life + 1) << 20);
        }
    }
}

#[test]
fn another_tree_key_has_other_sums_and_no_index_file_in_its_way() {
    let disk = MemDisk::new();
    let mut store = open(&disk, 1);
    for n in 0..100u32 {
        store.put(1, &n.to_le_bytes(), &[1; 100], 1).expect("room");
    }
    let before = root(&store);
    store.close().expect("closes");
    let other = options(2).with_tree_key([0x78; 16]);
    let (store, recovery) = Store::open(disk.clone(), other).expect("opens");
    assert_ne!(root(&store), before);
    assert_eq!(recovery.index_files, 0, "what they say of keys was under the first tree key");
    drop(store);
    assert_eq!(root(&open(&disk, 3)), before);
}

#[test]
fn a_damaged_record_is_not_counted_and_counts_again_when_it_is_healed() {
    let disk = MemDisk::new();
    let mut store = open(&disk, 1);
    for n in 0..40u32 {
        store.put(1, &n.to_le_bytes(), &[n.to_le_bytes()[0]; 100], 1).expect("room");
    }
    store.sync().expect("syncs");
    let whole = root(&store);
    drop(store);
    let (name, at) = gramme_store::Disk::list(&disk)
        .expect("lists")
        .into_iter()
        .find_map(|name| {
            let at = disk.contents(&name)?.windows(100).position(|window| window == [7; 100])?;
            Some((name, at))
        })
        .expect("its value");
    assert!(disk.flip_bit(&name, at as u64 * 8));
    let (mut store, recovery) = Store::open(disk, options(2).with_index_files(false)).expect("opens");
    assert!(recovery.is_lossy());
    assert_ne!(root(&store), whole, "an exchange with a replica finds it");
    store.put(1, &7u32.to_le_bytes(), &[7; 100], 1).expect("room");
    assert_eq!(root(&store), whole);
}
