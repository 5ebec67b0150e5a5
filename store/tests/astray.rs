//! Writes of which the disk says that they succeeded, and which it wrote elsewhere or nowhere.

use gramme_store::{DamageKind, MemDisk, Options, Read, ReadError, Store};

fn options(seed: u8) -> Options {
    Options::new([seed; 16]).with_segment_bytes(4096).with_index_files(false)
}

fn key(n: u32) -> Vec<u8> {
    format!("key {n}").into_bytes()
}

fn value(n: u32) -> Vec<u8> {
    let mut value = vec![n.to_le_bytes()[0] ^ 0x5a; 20 + (n as usize * 37) % 200];
    value[..4].copy_from_slice(&n.to_le_bytes());
    value
}

const KEYS: u32 = 60;

fn slot(n: u32) -> u16 {
    u16::try_from(n % 5).expect("below five")
}

#[test]
fn a_lost_write_is_reported_once_something_synced_comes_after_it() {
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
    disk.lose_next_writes(1);
    store.put(0, b"lost", b"value", 0).expect("the disk says so");
    assert!(matches!(store.get(0, b"lost"), Err(ReadError::Damaged { .. })), "never a wrong answer");
    store.put(0, b"kept", b"value", 0).expect("room");
    store.sync().expect("syncs");
    drop(store);
    let (mut store, recovery) = Store::open(disk, options(2)).expect("opens");
    assert!(recovery.is_lossy() && recovery.affects(0));
    assert!(matches!(store.get(0, b"kept"), Ok(Read::Value { .. })));
}

#[test]
fn a_misdirected_write_never_shows_a_wrong_value() {
    let mut hit = 0;
    for seed in 0..300 {
        let disk = MemDisk::new();
        let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
        for n in 0..KEYS {
            if n == 20 {
                disk.misdirect_next_writes(1, seed);
            }
            store.put(slot(n), &key(n), &value(n), 0).expect("the disk says so");
        }
        assert!(
            matches!(store.get(slot(20), &key(20)), Err(ReadError::Damaged { .. })),
            "never a wrong answer"
        );
        store.sync().expect("syncs");
        store.put(0, b"another", b"value", 0).expect("room");
        store.sync().expect("syncs");
        drop(store);
        let (mut store, recovery) = Store::open(disk, options(2)).expect("opens");
        assert!(recovery.is_lossy() && recovery.affects(slot(20)), "seed {seed}: {recovery:?}");
        for n in 0..KEYS {
            match store.get(slot(n), &key(n)) {
                Ok(Read::Value { value: found, .. }) => {
                    assert!(n != 20 && found == value(n), "seed {seed}")
                }
                Err(ReadError::Damaged { .. } | ReadError::Unknown) => hit += u32::from(n != 20),
                other => panic!("seed {seed}, key {n}: {other:?}"),
            }
        }
    }
    assert!(hit > 50, "{hit} records written over");
}

#[test]
fn a_segment_of_which_every_write_was_lost_is_known_to_have_had_some() {
    for reserves in [true, false] {
        let disk = MemDisk::new();
        disk.reserve_room(reserves);
        let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
        disk.lose_next_writes(2);
        store.put(1, b"lost", &[1; 1500], 1).expect("the disk says so");
        store.put(2, b"lost", &[1; 1500], 1).expect("the disk says so");
        // It has no room in their segment.
        store.put(3, b"kept", &[1; 1500], 1).expect("room");
        store.sync().expect("syncs");
        drop(store);
        disk.kill();
        for seed in 2..4 {
            let (mut store, recovery) = Store::open(disk.clone(), options(seed)).expect("opens");
            let cut = |kind| kind == DamageKind::CutOff;
            assert!(recovery.damage.iter().any(|one| cut(one.kind)), "reserves {reserves}: {recovery:?}");
            assert!(matches!(store.get(1, b"lost"), Err(ReadError::Unknown)));
            assert!(matches!(store.get(3, b"kept"), Ok(Read::Value { .. })));
        }
    }
}

#[test]
fn a_record_that_is_missing_behind_a_damaged_one_is_missed() {
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
    store.put(1, b"key", b"value", 1).expect("room");
    store.put(2, b"damaged", &[1; 3000], 1).expect("room");
    disk.lose_next_writes(1);
    store.delete(1, b"key").expect("the disk says so");
    // It has no room in their segment.
    store.put(3, b"kept", &[1; 1500], 1).expect("room");
    store.sync().expect("syncs");
    drop(store);
    disk.kill();
    let name = format!("{:016x}.seg", 1);
    assert!(disk.overwrite(&name, 2000, b"damage"));
    for seed in 2..4 {
        let (mut store, recovery) = Store::open(disk.clone(), options(seed)).expect("opens");
        let kinds: Vec<_> = recovery.damage.iter().map(|one| one.kind).collect();
        assert!(
            matches!(kinds[..], [DamageKind::Record { slot: 2, .. }, DamageKind::CutOff]),
            "what is deleted comes back, and nobody is told: {recovery:?}"
        );
        assert!(recovery.affects(1));
        assert!(matches!(store.get(1, b"never put"), Err(ReadError::Unknown)));
    }
}
