//! Power cuts at every disk operation, with any subset of what was not synced, and again during the recovery.
//!
//! `GRAMME_STORE_CRASH_SEEDS=n` sets how many random workloads are run, and `GRAMME_STORE_CRASH_IMAGES=n` how many outcomes of each cut
//! are looked at. A hundred thousand states: `GRAMME_STORE_CRASH_SEEDS=40 GRAMME_STORE_CRASH_IMAGES=6 cargo test --release -p
//! gramme-store --test crash -- --nocapture`.

mod common;

use common::{Dice, Model, Op, Run, check_recovered, options};
use gramme_store::{Disk, MemDisk, OpenError, Store, verify};
use std::collections::BTreeMap;

/// Runs the workload until the power fails or it is through. Answers the model and whether the power failed.
fn run_until_cut(disk: &MemDisk, ops: &[Op], cut: Option<u64>) -> (Model, bool) {
    if let Some(cut) = cut {
        disk.cut_power_after(cut);
    }
    let store = match Store::open(disk.clone(), options(1)) {
        Ok((store, _)) => store,
        Err(OpenError::Disk(_)) => return (Model::default(), true),
        Err(error) => panic!("{error}"),
    };
    let mut run = Run::new(store, Model::default(), 0);
    for op in ops {
        // The watermark after a sync may meet the power cut without failing the sync.
        if run.step(op).is_err() || !disk.is_powered() {
            return (run.model, true);
        }
        run.check_now();
    }
    (run.model, false)
}

/// Opens after a crash; nothing may be lost, nothing invented, and what is shown must be there to stay.
fn recover_and_check(disk: &MemDisk, model: &Model, dice: &mut Dice) -> u64 {
    let mut states = 1;
    let twice = disk.fork();
    {
        let (mut store, recovery) = Store::open(disk.clone(), options(2)).expect("opens after any power cut");
        assert!(recovery.damage.is_empty(), "a power cut is not damage: {recovery:?}");
        let found = check_recovered(&mut store, model);
        // Shown once, it may not go away: not in a power cut right after.
        let (mut again, recovery) =
            Store::open(disk.crash_image(dice.below(u64::MAX)), options(3)).expect("opens again");
        assert!(recovery.damage.is_empty() && recovery.torn.is_empty(), "{recovery:?}");
        assert_eq!(common::contents(&mut again, model.time), found);
        // What was torn off is not taken for records that somebody hides.
        assert_eq!(verify(&disk.fork(), None).expect("a store").report.damage, []);
        // And it goes on working.
        let mut model = model.clone();
        model.settle(&found);
        let mut run = Run::new(store, model, 1 << 20);
        for op in dice.ops(4) {
            run.step(&op).expect("a disk without faults");
        }
        run.check_now();
        check_books(&mut run.store);
    }
    // The power fails during the recovery, too.
    twice.cut_power_after(dice.below(14));
    if Store::open(twice.clone(), options(4)).is_err() {
        states += 1;
        twice.crash(dice.below(u64::MAX));
        let (mut store, recovery) = Store::open(twice, options(5)).expect("opens after a cut recovery");
        assert!(recovery.damage.is_empty(), "{recovery:?}");
        check_recovered(&mut store, model);
    }
    states
}

/// What the store counts as live must be what a rebuild from the log counts.
fn check_books(store: &mut Store<MemDisk>) {
    let stats = store.stats();
    assert!(stats.live_bytes <= stats.log_bytes + stats.log_bytes / 8, "{stats:?}");
    assert!(stats.log_bytes <= stats.disk_bytes, "{stats:?}");
}

/// Crashes a workload at every disk operation, a few times each. Answers how many states were checked.
fn crash_everywhere(ops: &[Op], seed: u64, images: u64) -> u64 {
    let mut states = 0;
    let mut dice = Dice(seed);
    for cut in 0.. {
        let disk = MemDisk::new();
        // Where no room is reserved each write makes its file longer, and lengths survive on their own.
        disk.reserve_room(seed.is_multiple_of(2));
        let (model, failed) = run_until_cut(&disk, ops, Some(cut));
        for _ in 0..images {
            let image = disk.crash_image(dice.below(u64::MAX));
            states += recover_and_check(&image, &model, &mut dice);
        }
        if !failed {
            return states;
        }
    }
    unreachable!("a workload ends")
}

fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn images() -> u64 {
    setting("GRAMME_STORE_CRASH_IMAGES", 2)
}

#[test]
fn every_workload_of_three_operations_survives_every_power_cut() {
    let choices = [
        Op::Put { slot: 0, key: 0, len: 100 },
        Op::Put { slot: 0, key: 0, len: 1500 },
        Op::Put { slot: 0, key: 1, len: 3000 },
        Op::Delete { slot: 0, key: 0 },
        Op::DropSlot { slot: 0 },
        Op::Sync,
    ];
    let mut states = 0;
    for first in &choices {
        for second in &choices {
            for third in &choices {
                states += crash_everywhere(&[first.clone(), second.clone(), third.clone()], 2, images());
            }
        }
    }
    println!("{states} states");
    assert!(states > 5_000, "{states} states");
}

#[test]
fn long_random_workloads_survive_every_power_cut() {
    let mut states = 0;
    for seed in 0..setting("GRAMME_STORE_CRASH_SEEDS", 5) {
        let ops = Dice(seed).ops(100);
        states += crash_everywhere(&ops, seed, images());
    }
    println!("{states} states");
}

#[test]
fn a_kill_loses_nothing_and_what_it_shows_survives_a_power_cut() {
    for seed in 0..200 {
        let mut dice = Dice(seed);
        let disk = MemDisk::new();
        let (store, _) = Store::open(disk.clone(), options(1)).expect("opens");
        let mut run = Run::new(store, Model::default(), 0);
        for op in dice.ops(150) {
            run.step(&op).expect("a disk without faults");
        }
        let (model, live) = (run.model.clone(), run.store.stats().live_bytes);
        let merges = run.store.merge_progress().is_some();
        drop(run);
        disk.kill();
        let (mut store, recovery) = Store::open(disk.clone(), options(2)).expect("opens");
        assert!(recovery.damage.is_empty() && recovery.torn.is_empty(), "{recovery:?}");
        // What a merge has made shrink that was not through is whole again.
        let counted = store.stats().live_bytes;
        assert!(counted == live || (merges && counted > live), "counted anew: {counted}, not {live}");
        let found: BTreeMap<_, _> = common::contents(&mut store, model.time);
        for ((slot, key), content) in &found {
            assert_eq!(*content, model.now(*slot, *key), "slot {slot}, key {key}");
        }
        drop(store);
        disk.crash(seed);
        let (mut store, _) = Store::open(disk, options(3)).expect("opens");
        assert_eq!(common::contents(&mut store, model.time), found);
    }
}

#[test]
fn names_are_durable_before_anything_in_their_files_is_promised() {
    // A power cut that takes all that a sync of the directory or of a file did not cover, after each promise: in new segments, in
    // merged ones, and behind a new manifest.
    let disk = MemDisk::new();
    let (store, _) = Store::open(disk.clone(), options(1)).expect("opens");
    let mut run = Run::new(store, Model::default(), 0);
    let mut dice = Dice(3);
    let mut names = std::collections::BTreeSet::new();
    for op in dice.ops(400) {
        run.step(&op).expect("a disk without faults");
        run.step(&Op::Sync).expect("a disk without faults");
        let nothing = vec![0; disk.crash_outcomes().len()];
        let image = disk.crash_image_of(&nothing, 1);
        names.extend(image.list().expect("lists"));
        let (mut store, recovery) =
            Store::open(image, options(2)).expect("opens: what it needs has its name");
        assert!(recovery.damage.is_empty(), "{recovery:?}");
        for (of, content) in common::contents(&mut store, run.model.time) {
            assert_eq!(content, run.model.now(of.0, of.1), "{of:?} was promised");
        }
    }
    assert!(names.len() > 20, "{names:?}");
}
