//! Any sequence of operations, ends and openings against a model.

mod common;

use common::{KEYS, Model, Op, Run, SLOTS, check_recovered, options};
use gramme_store::{MemDisk, Store};
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Event {
    Op(Op),
    /// The store is closed in good order, and opened again.
    Close,
    /// The process is killed.
    Kill,
    /// The power fails, and what was not synced is lost in part.
    PowerCut(u64),
    /// The power fails at a later operation of the disk.
    PowerCutAfter(u64, u64),
}

fn op() -> impl Strategy<Value = Op> {
    let (slot, key) = (0..SLOTS, 0..KEYS);
    prop_oneof![
        8 => (slot.clone(), key.clone(), 0..2000usize).prop_map(|(slot, key, len)| Op::Put { slot, key, len }),
        3 => (slot.clone(), key).prop_map(|(slot, key)| Op::Delete { slot, key }),
        1 => slot.prop_map(|slot| Op::DropSlot { slot }),
        2 => Just(Op::Sync),
        1 => Just(Op::BeginSync),
        1 => Just(Op::EndSync),
        3 => (0..20_000usize).prop_map(|budget| Op::Maintain { budget }),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        40 => op().prop_map(Event::Op),
        1 => Just(Event::Close),
        1 => Just(Event::Kill),
        1 => any::<u64>().prop_map(Event::PowerCut),
        1 => (any::<u64>(), 0..60u64).prop_map(|(seed, after)| Event::PowerCutAfter(seed, after)),
    ]
}

/// Opens again after an end of some kind; what is found is what the model goes on from.
fn reopen(disk: &MemDisk, model: &Model, seed: u8, numbers: u64) -> Run<MemDisk> {
    let mut opened = Store::open(disk.clone(), options(seed));
    if !disk.is_powered() {
        // A cut that was planned for later met the recovery.
        drop(opened);
        disk.crash(u64::from(seed));
        opened = Store::open(disk.clone(), options(seed));
    }
    let (mut store, recovery) = opened.expect("opens after any end");
    assert!(recovery.damage.is_empty(), "{recovery:?}");
    let found = check_recovered(&mut store, model);
    let mut model = model.clone();
    model.settle(&found);
    Run::new(store, model, numbers)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_is_as_the_model_allows(events in vec(event(), 1..150)) {
        let disk = MemDisk::new();
        let mut run = Run::new(Store::open(disk.clone(), options(0)).expect("opens").0, Model::default(), 0);
        let mut cut = 0;
        for (number, event) in events.iter().enumerate() {
            let seed = u8::try_from(number).expect("few events");
            let numbers = (number as u64 + 1) << 16;
            let failed = match event {
                Event::Op(op) => run.step(op).is_err(),
                Event::Close => {
                    let Run { store, model, .. } = run;
                    let closed = store.close().is_ok();
                    disk.kill();
                    if disk.is_powered() {
                        prop_assert!(closed);
                    } else {
                        disk.crash(cut);
                    }
                    run = reopen(&disk, &model, seed, numbers);
                    false
                }
                Event::Kill if disk.is_powered() => {
                    disk.kill();
                    let model = run.model.clone();
                    // Without a power cut, that is: none that is still planned may come in between.
                    disk.cut_power_after(u64::MAX);
                    run = reopen(&disk, &model, seed, numbers);
                    for slot in 0..SLOTS {
                        for key in 0..KEYS {
                            prop_assert_eq!(run.model.now(slot, key), model.now(slot, key), "a kill loses nothing");
                        }
                    }
                    false
                }
                Event::PowerCut(seed) => {
                    cut = *seed;
                    true
                }
                Event::PowerCutAfter(seed, after) => {
                    cut = *seed;
                    disk.cut_power_after(*after);
                    false
                }
                Event::Kill => true,
            };
            if failed || !disk.is_powered() {
                disk.crash(cut);
                run = reopen(&disk, &run.model, seed, numbers);
            }
            run.check_now();
        }
    }
}
