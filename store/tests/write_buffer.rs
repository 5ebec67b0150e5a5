//! Writes that are gathered and written together: seen at once, durable when a sync says so, gone with a process that is
//! killed, and nothing worse than that.

mod common;

use common::{Dice, Model, Op, Run, check_recovered, options};
use gramme_store::{
    Cursor, Disk, DiskErrorKind, MemDisk, OpenError, Options, Read, Reads, Store, WriteError,
};

const BUFFER: usize = 1000;

fn buffered(seed: u8) -> Options {
    options(seed).with_write_buffer(BUFFER)
}

/// Bytes of all segments on the disk that are not zero.
fn written(disk: &MemDisk) -> usize {
    let names = disk.list().expect("lists");
    let segments = names.iter().filter(|name| name.ends_with(".seg"));
    segments.map(|name| disk.contents(name).expect("there").iter().filter(|byte| **byte != 0).count()).sum()
}

fn value(store: &mut Store<MemDisk>, key: &[u8]) -> Option<Vec<u8>> {
    match store.get(0, key).expect("readable") {
        Read::Value { value, .. } => Some(value),
        Read::Absent => None,
        Read::Pending(_) => panic!("it is in memory"),
    }
}

#[test]
fn what_is_buffered_is_seen_in_every_way_and_not_on_the_disk() {
    for reads in [Reads::Inline, Reads::Cached, Reads::Jobs] {
        let disk = MemDisk::new();
        let (mut store, _) = Store::open(disk.clone(), buffered(1).with_reads(reads)).expect("opens");
        let before = written(&disk);
        store.put(0, b"first", &[1; 100], 7).expect("room");
        store.put(0, b"second", &[2; 100], 8).expect("room");
        store.put(0, b"first", &[3; 120], 9).expect("room");
        assert_eq!(written(&disk), before, "less than the buffer holds");
        assert_eq!(value(&mut store, b"first"), Some(vec![3; 120]));
        assert_eq!(store.get_with(0, b"second", |found| found.bytes.to_vec()), Ok(Some(vec![2; 100])));
        let mut keys = store.list(0, Cursor::START, 10).expect("readable").keys;
        keys.sort();
        assert_eq!(keys, [b"first".to_vec(), b"second".to_vec()]);
        store.delete(0, b"second").expect("room");
        assert_eq!(value(&mut store, b"second"), None);
        assert_eq!(written(&disk), before);
        store.flush().expect("a disk that takes it");
        assert!(written(&disk) > before + 300);
        disk.kill();
        let (mut again, recovery) = Store::open(disk.clone(), options(2)).expect("opens");
        assert!(!recovery.is_lossy() && recovery.torn.is_empty());
        assert_eq!(value(&mut again, b"first"), Some(vec![3; 120]));
        assert_eq!(value(&mut again, b"second"), None);
    }
}

#[test]
fn a_full_buffer_a_drop_and_a_close_write_what_there_is() {
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), buffered(1)).expect("opens");
    let before = written(&disk);
    for n in 0..10u8 {
        store.put(0, &[n], &[9; 100], 1).expect("room");
    }
    assert!(written(&disk) > before + 600, "more than the buffer holds");
    store.put(0, b"last", b"one", 1).expect("room");
    drop(store);
    let (mut store, _) = Store::open(disk.clone(), buffered(2)).expect("opens");
    assert_eq!(value(&mut store, b"last"), Some(b"one".to_vec()));
    store.put(0, b"last", b"two", 2).expect("room");
    store.close().expect("closes");
    let (mut store, recovery) = Store::open(disk, buffered(3)).expect("opens");
    assert!(recovery.clean && recovery.damage.is_empty());
    assert_eq!(value(&mut store, b"last"), Some(b"two".to_vec()));
}

#[test]
fn a_snapshot_has_what_is_buffered() {
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk, buffered(1)).expect("opens");
    store.put(0, b"key", b"value", 1).expect("room");
    let snapshot = store.snapshot().expect("the disk is well");
    let copy = MemDisk::new();
    snapshot.copy_to(&copy, |_| {}).expect("copies");
    let (mut copy, _) = Store::open(copy, options(2)).expect("opens");
    assert_eq!(value(&mut copy, b"key"), Some(b"value".to_vec()));
}

#[test]
fn a_sync_whose_write_fails_makes_nothing_durable() {
    let disk = MemDisk::new();
    let (mut store, _) = Store::open(disk.clone(), buffered(1)).expect("opens");
    let position = store.put(0, b"key", b"value", 1).expect("room");
    disk.cut_power_after(0);
    let job = store.begin_sync().expect("something was put");
    let failed = store.complete_sync(job.run());
    assert!(matches!(failed, Err(WriteError::Disk(error)) if error.kind() == DiskErrorKind::Unplugged));
    assert!(!store.durable().covers(position) && !store.writable());
    assert_eq!(store.put(0, b"key", b"other", 1), Err(WriteError::Poisoned));
    assert_eq!(value(&mut store, b"key"), Some(b"value".to_vec()), "reads go on");
}

/// Runs the workload until the power fails or it is through. Answers the model and whether the power failed.
fn run_until_cut(disk: &MemDisk, ops: &[Op], cut: u64) -> (Model, bool) {
    disk.cut_power_after(cut);
    let store = match Store::open(disk.clone(), buffered(1)) {
        Ok((store, _)) => store,
        Err(OpenError::Disk(_)) => return (Model::default(), true),
        Err(error) => panic!("{error}"),
    };
    let mut run = Run::new(store, Model::default(), 0);
    for op in ops {
        if run.step(op).is_err() || !disk.is_powered() {
            return (run.model.clone(), true);
        }
        run.check_now();
    }
    (run.model.clone(), false)
}

#[test]
fn random_workloads_survive_every_power_cut() {
    let mut states = 0;
    for seed in 0..3 {
        let mut dice = Dice(seed);
        let ops = dice.ops(100);
        for cut in 0.. {
            let disk = MemDisk::new();
            let (model, failed) = run_until_cut(&disk, &ops, cut);
            for _ in 0..3 {
                let image = disk.crash_image(dice.below(u64::MAX));
                let (mut store, recovery) =
                    Store::open(image, buffered(2)).expect("opens after any power cut");
                assert!(recovery.damage.is_empty(), "a power cut is not damage: {recovery:?}");
                check_recovered(&mut store, &model);
                states += 1;
            }
            if !failed {
                break;
            }
        }
    }
    assert!(states > 500, "{states}");
}

#[test]
fn a_kill_shows_no_more_and_no_less_than_what_may_be() {
    for seed in 0..100 {
        let mut dice = Dice(seed);
        let disk = MemDisk::new();
        let (store, _) = Store::open(disk.clone(), buffered(1)).expect("opens");
        let mut run = Run::new(store, Model::default(), 0);
        for op in dice.ops(150) {
            run.step(&op).expect("a disk without faults");
            run.check_now();
        }
        // The process is gone before it can write anything more.
        let image = disk.fork();
        let (mut store, recovery) = Store::open(image, options(2)).expect("opens");
        assert!(recovery.damage.is_empty() && recovery.torn.is_empty(), "{recovery:?}");
        check_recovered(&mut store, &run.model);
    }
}

#[test]
fn a_write_buffer_without_bounds_is_refused() {
    for bytes in [usize::MAX, usize::MAX / 2 + 1, (1 << 30) + 1] {
        let options = Options::new([1; 16]).with_write_buffer(bytes);
        assert!(matches!(Store::open(MemDisk::new(), options), Err(OpenError::Options(_))), "{bytes}");
    }
    let (mut store, _) =
        Store::open(MemDisk::new(), Options::new([1; 16]).with_write_buffer(1 << 30)).expect("opens");
    store.put(0, b"key", b"value", 0).expect("room");
    store.sync().expect("syncs");
}
