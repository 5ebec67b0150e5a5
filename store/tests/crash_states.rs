//! Every workload of up to three operations, crashed at every disk operation with every outcome of what was not synced
//! (each name, each length, each sector as it was at each moment, or torn) where there are at most 1,024 of them, and some
//! drawn from all where there are more; and crashed again during the recovery.
//!
//! States are counted once: a state is what lies on the disk together with what the store had promised.
//! `GRAMME_STORE_CRASH_STATES=n` goes on with longer random workloads until `n` states have been seen: ten million of them
//! by `GRAMME_STORE_CRASH_STATES=10000000 cargo test --release -p gramme-store --test crash_states -- --nocapture`.

mod common;

use common::{Dice, Model, Op, Run, check_recovered, options};
use gramme_store::{Disk, MemDisk, OpenError, Store};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// What is checked without being asked for more.
const STATES: usize = 100_000;
/// So many outcomes are gone through one by one; of more,
const EXHAUSTIVE: u64 = 1 << 10;
/// so many are drawn.
const DRAWN: u64 = 100;

#[derive(Default)]
struct Checker {
    seen: HashSet<u64>,
    /// Moments at which all outcomes were gone through, and at which they were drawn.
    exhausted: u64,
    sampled: u64,
    recoveries_cut: u64,
}

fn state_of(disk: &MemDisk, model: &Model) -> u64 {
    let mut hasher = DefaultHasher::new();
    for name in disk.list().expect("lists") {
        name.hash(&mut hasher);
        let bytes = disk.contents(&name).expect("there");
        // Most of a file is room without contents.
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes.len().hash(&mut hasher);
        bytes[..used].hash(&mut hasher);
    }
    format!("{model:?}").hash(&mut hasher);
    hasher.finish()
}

impl Checker {
    /// Runs a workload up to the power cut; answers whether the power failed.
    fn crash(&mut self, ops: &[Op], cut: u64, dice: &mut Dice) -> bool {
        let disk = MemDisk::new();
        disk.cut_power_after(cut);
        let (model, failed) = run(&disk, ops);
        let outcomes = disk.crash_outcomes();
        let all = outcomes.iter().try_fold(1u64, |all, one| all.checked_mul(*one)).unwrap_or(u64::MAX);
        let tear = 1 + dice.below(510);
        if all <= EXHAUSTIVE {
            self.exhausted += 1;
        } else {
            self.sampled += 1;
        }
        for number in 0..if all > EXHAUSTIVE { DRAWN } else { all } {
            let mut rest = number;
            let chosen: Vec<u64> = outcomes
                .iter()
                .map(|count| {
                    if all > EXHAUSTIVE {
                        return dice.below(*count);
                    }
                    let one = rest % count;
                    rest /= count;
                    one
                })
                .collect();
            self.check(&disk.crash_image_of(&chosen, tear), &model, dice);
        }
        failed
    }

    fn check(&mut self, image: &MemDisk, model: &Model, dice: &mut Dice) {
        if !self.seen.insert(state_of(image, model)) {
            return;
        }
        let again = image.fork();
        recover(image, model);
        // The power fails during the recovery, too, at some operation and with some outcome.
        again.cut_power_after(dice.below(14));
        if Store::open(again.clone(), options(3)).is_err() {
            self.recoveries_cut += 1;
            let outcomes: Vec<u64> = again.crash_outcomes().iter().map(|count| dice.below(*count)).collect();
            let image = again.crash_image_of(&outcomes, 1 + dice.below(510));
            if self.seen.insert(state_of(&image, model)) {
                recover(&image, model);
            }
        }
    }

    /// Crashes at every operation of the disk from `cut` on.
    fn crash_everywhere(&mut self, ops: &[Op], mut cut: u64, dice: &mut Dice) {
        while self.crash(ops, cut, dice) {
            cut += 1;
        }
    }
}

fn run(disk: &MemDisk, ops: &[Op]) -> (Model, bool) {
    let store = match Store::open(disk.clone(), options(1)) {
        Ok((store, _)) => store,
        Err(OpenError::Disk(_)) => return (Model::default(), true),
        Err(error) => panic!("{error}"),
    };
    let mut run = Run::new(store, Model::default(), 0);
    for op in ops {
        if run.step(op).is_err() || !disk.is_powered() {
            return (run.model, true);
        }
    }
    (run.model, false)
}

/// Nothing lost, nothing invented, no damage reported, and what is shown is there to stay.
fn recover(disk: &MemDisk, model: &Model) {
    let (mut store, recovery) = Store::open(disk.clone(), options(2)).expect("opens after any power cut");
    assert!(recovery.damage.is_empty(), "a power cut is not damage: {recovery:?}");
    let found = check_recovered(&mut store, model);
    // The worst that a power cut can do now: nothing that is not synced survives.
    let nothing = vec![0; disk.crash_outcomes().len()];
    let (mut again, recovery) =
        Store::open(disk.crash_image_of(&nothing, 1), options(4)).expect("opens again");
    assert!(recovery.damage.is_empty() && recovery.torn.is_empty(), "{recovery:?}");
    assert_eq!(common::contents(&mut again, model.time), found);
}

#[test]
fn every_crash_of_every_short_workload_is_survived() {
    let choices = [
        Op::Put { slot: 0, key: 0, len: 100 },
        Op::Put { slot: 0, key: 0, len: 900 },
        Op::Put { slot: 0, key: 1, len: 2600 },
        Op::Delete { slot: 0, key: 0 },
        Op::DropSlot { slot: 0 },
        Op::Sync,
        Op::Maintain { budget: 1 << 16 },
    ];
    let mut checker = Checker::default();
    let mut dice = Dice(7);
    checker.crash_everywhere(&[], 0, &mut dice);
    let mut workloads: Vec<Vec<Op>> = vec![Vec::new()];
    for _ in 0..3 {
        let longer = workloads
            .iter()
            .flat_map(|ops| choices.iter().map(|op| [ops.as_slice(), std::slice::from_ref(op)].concat()));
        workloads = longer.collect();
        for ops in &workloads {
            // The crashes before the last operation are those of the workload without it.
            let before = MemDisk::new();
            run(&before, &ops[..ops.len() - 1]);
            checker.crash_everywhere(ops, before.operations(), &mut dice);
        }
    }
    let short = checker.seen.len();
    let wanted = std::env::var("GRAMME_STORE_CRASH_STATES").ok().and_then(|text| text.parse().ok());
    let wanted: usize = wanted.unwrap_or(STATES);
    let mut seed = 0;
    while checker.seen.len() < wanted {
        seed += 1;
        let mut dice = Dice(seed);
        let length = 10 + usize::try_from(dice.below(90)).expect("short");
        let ops = dice.ops(length);
        checker.crash_everywhere(&ops, 0, &mut dice);
    }
    println!(
        "{} distinct crash states, {short} of them of workloads of up to three operations; {} moments gone through, {} drawn \
         from; {} recoveries cut",
        checker.seen.len(),
        checker.exhausted,
        checker.sampled,
        checker.recoveries_cut
    );
    assert!(short > 20_000 && checker.seen.len() >= STATES, "{short}, {}", checker.seen.len());
}

#[test]
fn every_crash_is_survived_while_values_shrink() {
    let shrinking = |key, len| Op::PutShrinking { slot: 0, key, len, after: 1 };
    let beginning = [
        shrinking(0, 2600),
        shrinking(1, 2600),
        shrinking(2, 900),
        Op::Put { slot: 0, key: 3, len: 2600 },
        Op::Sync,
        Op::Tick { by: 1 },
    ];
    let upkeep = vec![Op::Maintain { budget: 1 << 16 }; 12];
    let between =
        [Op::Sync, Op::Put { slot: 0, key: 0, len: 300 }, Op::Delete { slot: 0, key: 1 }, shrinking(2, 90)];
    let (mut checker, mut dice) = (Checker::default(), Dice(7));
    for write in between {
        let ops = [beginning.to_vec(), upkeep.clone(), vec![write, Op::Sync], upkeep.clone(), vec![Op::Sync]]
            .concat();
        let whole = MemDisk::new();
        run(&whole, &ops);
        let (store, _) = Store::open(whole, options(2)).expect("opens");
        assert!(store.stats().log_bytes < 4000, "{:?}: nothing has shrunk", store.stats());
        checker.crash_everywhere(&ops, 0, &mut dice);
    }
    println!("{} distinct crash states", checker.seen.len());
    assert!(checker.seen.len() > 1_000, "{}", checker.seen.len());
}

#[test]
fn every_crash_is_survived_when_writes_come_between_a_sync_s_run_and_its_completion() {
    let upkeep = vec![Op::Maintain { budget: 1 << 16 }; 4];
    let beginning = [
        vec![Op::Put { slot: 0, key: 0, len: 2600 }, Op::Put { slot: 0, key: 1, len: 2600 }, Op::Sync],
        upkeep.clone(),
        vec![Op::Put { slot: 0, key: 2, len: 100 }, Op::BeginSync, Op::RunSync],
    ];
    let (small, large) = (Op::Put { slot: 0, key: 0, len: 300 }, Op::Put { slot: 0, key: 1, len: 2600 });
    let choices = [vec![small], vec![large], vec![Op::Sync], upkeep];
    let (mut checker, mut dice) = (Checker::default(), Dice(7));
    for chosen in 0..choices.len().pow(3) {
        let choice = |place: u32| choices[chosen / choices.len().pow(place) % choices.len()].clone();
        let between = [beginning.concat(), choice(0), choice(1)].concat();
        let before = MemDisk::new();
        run(&before, &between);
        let ops = [between, vec![Op::EndSync], choice(2)].concat();
        checker.crash_everywhere(&ops, before.operations(), &mut dice);
    }
    println!("{} distinct crash states", checker.seen.len());
    assert!(checker.seen.len() > 5_000, "{}", checker.seen.len());
}
