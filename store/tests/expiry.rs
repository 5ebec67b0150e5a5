//! What has expired gives its room back, whatever else is written or deleted.

use gramme_store::{MemDisk, Options, Read, Store, WriteError};

fn options(seed: u8, tree: bool, indexed: bool) -> Options {
    let options = Options::new([seed; 16]).with_segment_bytes(16 << 10).with_index_files(indexed);
    if tree { options.with_tree_key([7; 16]) } else { options }
}

fn upkeep(store: &mut Store<MemDisk>) {
    for _ in 0..100_000 {
        store.sync().expect("syncs");
        match store.maintain(2048) {
            Ok(done) if done.more || done.needs_sync => {}
            Ok(_) | Err(WriteError::NoSpace) => return,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("upkeep comes to no end");
}

fn put(store: &mut Store<MemDisk>, n: u32, value: usize, expires: u64) -> Result<(), WriteError> {
    let slot = u16::try_from(n % 7).expect("few");
    store.put_expiring(slot, &n.to_le_bytes(), &vec![1; value], u64::from(n) + 1, expires).map(|_| ())
}

#[test]
fn what_has_expired_is_given_back_by_upkeep_alone() {
    for (value, tree) in [(8, false), (300, false), (300, true)] {
        for (indexed, reopens) in [(true, true), (true, false), (false, true), (false, false)] {
            let case = format!("value {value}, tree {tree}, indexed {indexed}, reopens {reopens}");
            let disk = MemDisk::new();
            let (mut store, _) = Store::open(disk.clone(), options(1, tree, indexed)).expect("opens");
            // One in ten stays.
            for n in 0..3000u32 {
                put(&mut store, n, value, if n % 10 == 0 { 1000 } else { 100 + u64::from(n % 17) })
                    .expect("room");
            }
            upkeep(&mut store);
            let sums = |store: &Store<MemDisk>| -> Vec<u128> {
                (0..7).map(|slot| store.tree().map_or(0, |tree| tree.slot(slot))).collect()
            };
            let before = sums(&store);
            if reopens {
                store.close().expect("closes");
                let (opened, recovery) = Store::open(disk.clone(), options(2, tree, indexed)).expect("opens");
                assert_eq!(recovery.index_files > 0, indexed, "{case}");
                store = opened;
            }
            let log = store.stats().log_bytes;
            store.set_time(99);
            upkeep(&mut store);
            assert!(store.stats().log_bytes >= log, "{case}: nothing has expired yet");
            store.set_time(200);
            upkeep(&mut store);
            let after = store.stats().log_bytes;
            let most = if tree { log / 2 } else { log / 4 } + (24 << 10);
            assert!(after < most, "{case}: {after} of {log} bytes stay");
            assert_eq!(sums(&store), before.clone(), "{case}: not by the clock");
            // Before the next opening is told the time, too.
            for reopened in [false, true] {
                if reopened {
                    store.close().expect("closes");
                    store = Store::open(disk.clone(), options(3, tree, indexed)).expect("opens").0;
                    assert_eq!(sums(&store), before.clone(), "{case}");
                }
                for n in 0..3000u32 {
                    let slot = u16::try_from(n % 7).expect("few");
                    match store.get(slot, &n.to_le_bytes()).expect("readable") {
                        Read::Value { value: found, .. } => {
                            assert!(found.len() == value && (n % 10 == 0 || reopened), "{case}: {n}");
                        }
                        Read::Absent => assert!(n % 10 != 0, "{case}: {n}"),
                        other => panic!("{other:?}"),
                    }
                }
            }
        }
    }
}

#[test]
fn a_full_store_takes_puts_when_what_it_holds_has_expired() {
    for tree in [false, true] {
        let disk = MemDisk::new();
        disk.set_capacity(Some(2 << 20));
        let (mut store, _) = Store::open(disk, options(1, tree, true)).expect("opens");
        let mut stored = 0;
        while put(&mut store, stored, 300, 100).is_ok() {
            stored += 1;
        }
        upkeep(&mut store);
        assert_eq!(put(&mut store, stored, 300, 100), Err(WriteError::NoSpace));
        store.set_time(100);
        upkeep(&mut store);
        for n in 0..stored / 2 {
            let mut done = put(&mut store, 10_000 + n, 300, 500);
            if done.is_err() {
                upkeep(&mut store);
                done = put(&mut store, 10_000 + n, 300, 500);
            }
            assert_eq!(done, Ok(()), "{n} of {stored}, tree {tree}, {:?}", store.stats());
        }
    }
}
