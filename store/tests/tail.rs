//! The end of the log: what was acknowledged last, and no watermark vouches for yet. Damage there can't be told from what a crash
//! leaves of a write that nobody was told of.

use gramme_store::{DamageKind, Disk, MemDisk, Options, Read, Recovery, Store, verify};

const KEY: &[u8] = b"the key";
const NEWER: &[u8] = b"its newer value";

fn options(seed: u8) -> Options {
    Options::new([seed; 16]).with_segment_bytes(64 << 10)
}

/// A value that is durable, and a newer one that is, too; the watermark of the second sync is lost.
fn overwritten() -> (MemDisk, String, u64) {
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
    store.put(3, KEY, b"its older value", 1).expect("room");
    store.sync().expect("syncs");
    store.put(3, KEY, NEWER, 2).expect("room");
    let job = store.begin_sync().expect("a write to sync");
    let done = job.run();
    disk.lose_next_writes(1);
    store.complete_sync(done).expect("it is acknowledged");
    drop(store);
    disk.kill();
    let find = |name: String| {
        let bytes = disk.contents(&name)?;
        Some((name, bytes.windows(NEWER.len()).rposition(|window| window == NEWER)?))
    };
    let (name, at) = disk.list().expect("lists").into_iter().find_map(find).expect("its record");
    (disk, name, (at - KEY.len() - 40) as u64)
}

fn value(store: &mut Store<MemDisk>) -> Vec<u8> {
    match store.get(3, KEY).expect("readable") {
        Read::Value { value, .. } => value,
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_bit_of_the_last_header_is_set_right_on_the_disk() {
    let (original, name, record) = overwritten();
    for bit in 0..40 * 8 {
        let disk = original.fork();
        assert!(disk.flip_bit(&name, record * 8 + bit));
        let (mut store, recovery) = Store::open(disk.clone(), options(2)).expect("opens");
        assert_eq!(value(&mut store), NEWER, "bit {bit}: {recovery:?}");
        let mended =
            |report: &Recovery| report.damage.iter().any(|one| one.kind == DamageKind::Mended { slot: 3 });
        assert!(mended(&recovery) && !recovery.is_lossy() && recovery.torn.is_empty(), "{recovery:?}");
        // What is shown outlives a power cut, and needs no mending any more.
        drop(store);
        disk.crash(bit);
        let (mut store, recovery) = Store::open(disk, options(3)).expect("opens");
        assert_eq!(
            (value(&mut store), mended(&recovery)),
            (NEWER.to_vec(), false),
            "bit {bit}: {recovery:?}"
        );
    }
}

#[test]
fn a_last_record_that_is_not_whole_affects_its_slot_or_all() {
    let (original, name, record) = overwritten();
    // In the body: the header tells whose it was. It may never have been acknowledged, so the older value stands.
    let disk = original.fork();
    assert!(disk.flip_bit(&name, (record + 45) * 8));
    let (mut store, recovery) = Store::open(disk, options(2)).expect("opens");
    assert_eq!(value(&mut store), b"its older value");
    assert!(recovery.affects(3) && !recovery.affects(4), "{recovery:?}");
    assert!(
        !recovery.is_lossy() && recovery.torn.len() == 1,
        "a torn write costs nothing durable: {recovery:?}"
    );
    // Nothing tells whose it was.
    let disk = original.fork();
    assert!(disk.overwrite(&name, record, &[0xee; 60]));
    let (mut store, recovery) = Store::open(disk, options(2)).expect("opens");
    assert_eq!(value(&mut store), b"its older value");
    assert!(recovery.affects(3) && recovery.affects(4) && !recovery.is_lossy(), "{recovery:?}");
    // Whole: nothing is in doubt.
    let (mut store, recovery) = Store::open(original, options(2)).expect("opens");
    assert_eq!(value(&mut store), NEWER);
    assert!(!recovery.affects(3) && recovery.damage.is_empty(), "{recovery:?}");
}

#[test]
fn what_is_torn_is_told_by_one_opening_and_by_each_verification_before_it() {
    let (disk, name, record) = overwritten();
    assert!(disk.flip_bit(&name, (record + 45) * 8));
    let told = |disk: &MemDisk| verify(disk, None).expect("there is a store").report.torn;
    let torn = told(&disk);
    assert!(torn.len() == 1 && torn[0].slot == Some(3), "{torn:?}");
    assert_eq!(told(&disk), torn);
    // An opening that the power cuts off before it has cut the segment tells nobody, and takes nothing.
    let cut = disk.fork();
    cut.cut_power_after(0);
    assert!(Store::open(cut.clone(), options(2)).is_err());
    cut.crash(1);
    assert_eq!(told(&cut), torn);
    let (store, recovery) = Store::open(disk.clone(), options(2)).expect("opens");
    assert_eq!(recovery.torn, torn);
    drop(store);
    disk.kill();
    assert_eq!(told(&disk), []);
    let (_, recovery) = Store::open(disk, options(3)).expect("opens");
    assert!(recovery.torn.is_empty() && recovery.damage.is_empty(), "{recovery:?}");
}
