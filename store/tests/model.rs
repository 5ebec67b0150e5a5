//! Any sequence of operations, ends, openings and damage against a model.
//!
//! `GRAMME_STORE_HISTORIES=n` sets how many are tried.

mod common;

use common::{Content, KEYS, Model, Op, Run, SLOTS, UNKNOWN, check_listed, contents, options};
use gramme_store::{DamageKind, Disk, MemDisk, OpenError, Read, ReadError, Store, WriteError, verify};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;

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
    /// All is synced, the store closed, and its files rot.
    Rot(Vec<Rot>),
    /// All is synced, the process killed, and one bit of a segment turned. The watermark of that sync may be lost.
    KillAndFlip(u8, u64, bool),
    /// Some writes of these operations go elsewhere in their files, or nowhere, and the disk says nothing of it. All is synced after
    /// that, and the store closed in good order or killed.
    GoAstray {
        aims: Aims,
        count: u64,
        ops: Vec<Op>,
        closes: bool,
    },
    /// Some creations, renames, removals, cuts or syncs of the directory will fail.
    FailChanges(u64, u64),
    /// There is so much room left on the disk, for so many events.
    Fill(u64, usize),
}

/// Where writes go that go astray.
#[derive(Clone, Copy, Debug)]
enum Aims {
    Elsewhere(u64),
    Nowhere,
}

/// What happens to a file: which one and where, both modulo what there is.
#[derive(Clone, Debug)]
enum Rot {
    Flip(u8, u64),
    Fill(u8, u64, usize, u8),
    CutOff(u8, u64),
    Remove(u8),
}

fn rot() -> impl Strategy<Value = Rot> {
    prop_oneof![
        6 => (any::<u8>(), any::<u64>()).prop_map(|(file, bit)| Rot::Flip(file, bit)),
        2 => (any::<u8>(), any::<u64>(), 1..600usize, any::<u8>())
            .prop_map(|(file, at, len, byte)| Rot::Fill(file, at, len, byte)),
        1 => (any::<u8>(), any::<u64>()).prop_map(|(file, at)| Rot::CutOff(file, at)),
        1 => any::<u8>().prop_map(Rot::Remove),
    ]
}

/// Names of files with this ending.
fn named(disk: &MemDisk, endings: &[&str]) -> Vec<String> {
    let mut names = disk.list().expect("lists");
    names.retain(|name| endings.iter().any(|ending| name.ends_with(ending)));
    names
}

/// Lets segments, index files and the chain rot. A segment or a chain that is gone is for other tests.
fn let_rot(disk: &MemDisk, rot: &Rot) {
    let (file, endings): (u8, &[&str]) = match rot {
        Rot::Remove(file) => (*file, &[".idx"]),
        Rot::Flip(file, _) | Rot::Fill(file, ..) | Rot::CutOff(file, _) => {
            (*file, &[".seg", ".idx", "CHAIN"])
        }
    };
    let names = named(disk, endings);
    if names.is_empty() {
        return;
    }
    let name = &names[usize::from(file) % names.len()];
    let mut bytes = disk.contents(name).expect("there");
    let len = bytes.len().max(1) as u64;
    let place = |at: u64| usize::try_from(at % len).expect("in memory");
    match rot {
        Rot::Flip(_, bit) => drop(disk.flip_bit(name, bit % (len * 8))),
        Rot::Fill(_, at, count, byte) => {
            bytes.iter_mut().skip(place(*at)).take(*count).for_each(|old| *old = *byte);
            disk.plant(name, &bytes);
        }
        Rot::CutOff(_, at) => disk.plant(name, &bytes[..place(*at).min(bytes.len())]),
        Rot::Remove(_) => disk.remove(name).expect("it is there"),
    }
}

fn op() -> impl Strategy<Value = Op> {
    let (slot, key) = (0..SLOTS, 0..KEYS);
    prop_oneof![
        8 => (slot.clone(), key.clone(), 0..2000usize).prop_map(|(slot, key, len)| Op::Put { slot, key, len }),
        2 => (slot.clone(), key.clone(), 0..2000usize, 1..60u64)
            .prop_map(|(slot, key, len, after)| Op::PutExpiring { slot, key, len, after }),
        2 => (slot.clone(), key.clone(), 0..2000usize, 0..60u64)
            .prop_map(|(slot, key, len, after)| Op::PutShrinking { slot, key, len, after }),
        1 => (1..20u64).prop_map(|by| Op::Tick { by }),
        3 => (slot.clone(), key).prop_map(|(slot, key)| Op::Delete { slot, key }),
        1 => slot.prop_map(|slot| Op::DropSlot { slot }),
        2 => Just(Op::Sync),
        1 => Just(Op::BeginSync),
        1 => Just(Op::RunSync),
        1 => Just(Op::EndSync),
        3 => (0..20_000usize).prop_map(|budget| Op::Maintain { budget }),
    ]
}

fn aims() -> impl Strategy<Value = Aims> {
    prop_oneof![3 => any::<u64>().prop_map(Aims::Elsewhere), 1 => Just(Aims::Nowhere)]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        40 => op().prop_map(Event::Op),
        1 => Just(Event::Close),
        1 => Just(Event::Kill),
        1 => any::<u64>().prop_map(Event::PowerCut),
        1 => (any::<u64>(), 0..60u64).prop_map(|(seed, after)| Event::PowerCutAfter(seed, after)),
        1 => vec(rot(), 1..4).prop_map(Event::Rot),
        1 => (any::<u8>(), any::<u64>(), any::<bool>())
            .prop_map(|(file, bit, unmarked)| Event::KillAndFlip(file, bit, unmarked)),
        1 => (aims(), 1..4u64, vec(op(), 1..12), any::<bool>())
            .prop_map(|(aims, count, ops, closes)| Event::GoAstray { aims, count, ops, closes }),
        1 => (0..12u64, 1..3u64).prop_map(|(before, count)| Event::FailChanges(before, count)),
        1 => (0..9000u64, 1..60usize).prop_map(|(room, lasts)| Event::Fill(room, lasts)),
    ]
}

/// Opens again after an end of some kind; what is found is what the model goes on from.
fn reopen(disk: &MemDisk, old: &Run<MemDisk>, has_rotted: bool, seed: u8, numbers: u64) -> Run<MemDisk> {
    let model = &old.model;
    let mut opened = Store::open(disk.clone(), options(seed));
    if !disk.is_powered() {
        // A cut that was planned for later met the recovery.
        drop(opened);
        disk.crash(u64::from(seed));
        opened = Store::open(disk.clone(), options(seed));
    }
    if matches!(opened, Err(OpenError::Disk(_))) {
        // One that was to fail in the store met the recovery.
        disk.fail_changes_after(0, 0);
        opened = Store::open(disk.clone(), options(seed));
    }
    let (mut store, recovery) = opened.expect("opens after any end");
    assert!(has_rotted || recovery.damage.is_empty(), "{recovery:?}");
    store.set_time(model.time);
    let found = contents(&mut store, model.time);
    for ((slot, key), content) in &found {
        // What is told to be damaged may turn out to be more than was thought: then it is unknown, and not absent.
        let is_unknown = *content == Some(UNKNOWN) && recovery.affects(*slot);
        assert!(is_unknown || model.allows(*slot, *key, *content), "slot {slot}, key {key}: {content:?}");
    }
    check_listed(&mut store, model, &found);
    check_nothing_hidden(disk);
    follow(old, store, &found, numbers)
}

/// No history looks as if somebody had altered what decides what is found.
fn check_nothing_hidden(disk: &MemDisk) {
    let found = verify(&disk.fork(), None).expect("a store").report.damage;
    assert!(!found.iter().any(|damage| damage.kind == DamageKind::Hidden), "{found:?}");
}

/// Operations of which some writes go astray, and then a sync of all. Until the next opening a key shows what was written last, or
/// that it can't be read.
fn go_astray(disk: &MemDisk, run: &mut Run<MemDisk>, aims: Aims, count: u64, ops: &[Op]) {
    match aims {
        Aims::Elsewhere(seed) => disk.misdirect_next_writes(count, seed),
        Aims::Nowhere => disk.lose_next_writes(count),
    }
    let mut step = |op: &Op| {
        let done = run.step(op);
        assert!(matches!(done, Ok(()) | Err(WriteError::NoSpace)), "{done:?}");
        for (key, content) in contents(&mut run.store, run.model.time) {
            let was = run.model.now(key.0, key.1);
            assert!(content == was || content == Some(UNKNOWN), "{key:?}: {content:?}, which was {was:?}");
        }
        done.is_ok()
    };
    for op in ops {
        step(op);
    }
    disk.misdirect_next_writes(0, 0);
    disk.lose_next_writes(0);
    // Without a manifest there is no opening, and no error that is louder. The next segment makes one anew. A store that took the disk
    // for full finds out by upkeep that it is not.
    let has_manifest = || disk.contents("MANIFEST").is_some_and(|bytes| !bytes.is_empty());
    let is_marked = (0..1000).any(|_| {
        let is_put = step(&Op::Put { slot: 0, key: 0, len: 1000 });
        let is_synced = step(&Op::Sync);
        step(&Op::Maintain { budget: 1 << 20 });
        is_put && is_synced && has_manifest()
    });
    assert!(is_marked, "no watermark vouches for what came before");
}

/// Goes on from what was found.
fn follow(
    old: &Run<MemDisk>,
    store: Store<MemDisk>,
    found: &BTreeMap<(u16, u8), Content>,
    numbers: u64,
) -> Run<MemDisk> {
    let mut model = old.model.clone();
    model.settle(found);
    let mut run = Run::new(store, model, numbers);
    run.written.clone_from(&old.written);
    run
}

/// Opens after damage to what was durable. A key shows what it was, or it is unknown; where records are destroyed beyond
/// knowing whose they were, and the report says so, it may be what it was earlier. So it may where its end is torn, if the watermark may be
/// what has rotted.
fn open_rotten(disk: &MemDisk, old: &Run<MemDisk>, unmarked: bool, seed: u8, numbers: u64) -> Run<MemDisk> {
    let (mut store, recovery) = Store::open(disk.clone(), options(seed)).expect("opens, whatever has rotted");
    store.set_time(old.model.time);
    let found = contents(&mut store, old.model.time);
    let any_key = |kind| matches!(kind, DamageKind::Unknown | DamageKind::CutOff);
    let any_key = recovery.damage.iter().any(|damage| any_key(damage.kind));
    match store.get(0, b"never put") {
        Err(ReadError::Unknown) => assert!(any_key, "{recovery:?}"),
        Ok(Read::Absent) => assert!(!any_key, "an absence that may be a loss: {recovery:?}"),
        other => panic!("{other:?}"),
    }
    let is_torn =
        |slot| unmarked && recovery.torn.iter().any(|torn| torn.slot.is_none_or(|torn| torn == slot));
    for ((slot, key), content) in &found {
        let was = old.model.now(*slot, *key);
        if *content == was {
            continue;
        }
        let any_key = any_key || is_torn(*slot);
        assert!(!any_key || recovery.affects(*slot));
        let is_allowed = match content {
            // An opening by index files has not read the records.
            Some(UNKNOWN) => recovery.affects(*slot) || recovery.index_files > 0,
            // A bit that is turned twice is as it was.
            Some(earlier) => {
                (any_key || was == Some(UNKNOWN)) && old.written[&(*slot, *key)].contains(earlier)
            }
            None => any_key,
        };
        assert!(is_allowed, "slot {slot}, key {key}: {content:?}, which was {was:?}: {recovery:?}");
    }
    check_listed(&mut store, &old.model, &found);
    check_nothing_hidden(disk);
    follow(old, store, &found, numbers)
}

fn histories() -> u32 {
    std::env::var("GRAMME_STORE_HISTORIES").ok().and_then(|text| text.parse().ok()).unwrap_or(300)
}

/// The disk is full no more: upkeep finds that out, and then puts go on. An error is one of another kind.
fn has_room_again(disk: &MemDisk, run: &mut Run<MemDisk>) -> Result<(), WriteError> {
    // A merge that is under way ends first, though changes that fail may keep it from that for a while.
    for _ in 0..1000 {
        run.step(&Op::Sync)?;
        match run.store.maintain(1 << 20) {
            Ok(step) if !step.more && !step.needs_sync => break,
            Ok(_) | Err(WriteError::NewSegment(_)) => {}
            Err(error) => return Err(error),
        }
    }
    match run.step(&Op::Put { slot: 0, key: 0, len: 1000 }) {
        Err(WriteError::NoSpace) if disk.is_powered() => {
            panic!("refused where there is room: {:?}", run.store.stats())
        }
        Ok(()) | Err(WriteError::NewSegment(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

fn check(events: &[Event], reserves_room: bool) {
    let disk = MemDisk::new();
    disk.reserve_room(reserves_room);
    let mut run = Run::new(Store::open(disk.clone(), options(0)).expect("opens").0, Model::default(), 0);
    let (mut cut, mut has_rotted, mut full_until) = (0, false, None);
    for (number, event) in events.iter().enumerate() {
        if full_until.take_if(|until| *until <= number).is_some() {
            disk.set_capacity(None);
            if disk.is_powered() && has_room_again(&disk, &mut run).is_err() {
                disk.crash(cut);
                run = reopen(&disk, &run, has_rotted, 255, (number as u64) << 16 | 0x8000);
            }
        }
        let seed = u8::try_from(number).expect("few events");
        let numbers = (number as u64 + 1) << 16;
        let failed = match event {
            Event::Op(op) => match run.step(op) {
                Ok(()) => false,
                // It goes on as if it had not been asked.
                Err(WriteError::NoSpace | WriteError::NewSegment(_)) if disk.is_powered() => {
                    assert!(run.store.writable());
                    false
                }
                Err(_) => true,
            },
            // A store that is closed badly is one whose power failed, or of which a sync was under way.
            Event::Close | Event::Rot(_) => {
                // With a sync under way a store can't be closed in good order, and rot in its tail would look like one
                // that was never synced.
                if matches!(event, Event::Rot(_)) && (run.step(&Op::Sync).is_err() || !disk.is_powered()) {
                    disk.crash(cut);
                    run = reopen(&disk, &run, has_rotted, seed, numbers);
                    continue;
                }
                let Run { store, model, written, .. } = run;
                let mut old = Run::new(Store::open(MemDisk::new(), options(0)).expect("opens").0, model, 0);
                old.written = written;
                let closed = match store.close() {
                    Ok(()) | Err(WriteError::SyncUnderWay) => true,
                    Err(_) => false,
                };
                disk.kill();
                // One that fails in the middle leaves what a power cut finds.
                let powered = disk.is_powered() && closed;
                if !powered {
                    disk.crash(cut);
                }
                disk.fail_changes_after(0, 0);
                run = match event {
                    Event::Rot(rots) if powered => {
                        disk.cut_power_after(u64::MAX);
                        rots.iter().for_each(|rot| let_rot(&disk, rot));
                        has_rotted = true;
                        open_rotten(&disk, &old, true, seed, numbers)
                    }
                    _ => reopen(&disk, &old, has_rotted, seed, numbers),
                };
                false
            }
            Event::FailChanges(before, count) => {
                disk.fail_changes_after(*before, *count);
                false
            }
            Event::Fill(room, lasts) => {
                disk.set_capacity(Some(disk.used_bytes() + room));
                full_until = Some(number + lasts);
                false
            }
            Event::KillAndFlip(file, bit, unmarked) => {
                disk.lose_next_writes(u64::from(*unmarked));
                let failed = run.step(&Op::Sync).is_err() || !disk.is_powered();
                disk.lose_next_writes(0);
                // What was lost leaves a gap before what comes after, if the power fails in between.
                has_rotted |= *unmarked;
                if !failed {
                    disk.fail_changes_after(0, 0);
                    disk.cut_power_after(u64::MAX);
                    disk.kill();
                    let names = named(&disk, &[".seg"]);
                    // A store that opened on a full disk may have none.
                    if let Some(name) = names.get(usize::from(*file) % names.len().max(1)) {
                        let bits = disk.contents(name).expect("there").len() as u64 * 8;
                        // One that was cut to nothing has none.
                        disk.flip_bit(name, bit % bits.max(1));
                    }
                    has_rotted = true;
                    run = open_rotten(&disk, &run, true, seed, numbers);
                }
                failed
            }
            Event::GoAstray { aims, count, ops, closes } if disk.is_powered() => {
                disk.fail_changes_after(0, 0);
                disk.cut_power_after(u64::MAX);
                disk.set_capacity(None);
                // A sync that is under way may have failed already.
                let failed = !matches!(run.step(&Op::Sync), Ok(()) | Err(WriteError::NoSpace));
                if !failed {
                    go_astray(&disk, &mut run, *aims, *count, ops);
                    has_rotted = true;
                    let fresh = Store::open(MemDisk::new(), options(0)).expect("opens").0;
                    let store = std::mem::replace(&mut run.store, fresh);
                    match closes {
                        true => store.close().expect("closes"),
                        false => drop(store),
                    }
                    disk.kill();
                    run = open_rotten(&disk, &run, false, seed, numbers);
                }
                failed
            }
            Event::Kill if disk.is_powered() => {
                disk.kill();
                // Without a power cut, that is: none that is still planned may come in between.
                disk.cut_power_after(u64::MAX);
                let model = run.model.clone();
                run = reopen(&disk, &run, has_rotted, seed, numbers);
                for slot in 0..SLOTS {
                    for key in 0..KEYS {
                        assert_eq!(run.model.now(slot, key), model.now(slot, key), "a kill loses nothing");
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
            Event::Kill | Event::GoAstray { .. } => true,
        };
        if failed || !disk.is_powered() {
            disk.crash(cut);
            run = reopen(&disk, &run, has_rotted, seed, numbers);
        }
        run.check_now();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: histories(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_is_as_the_model_allows(events in vec(event(), 1..150), reserves_room in any::<bool>()) {
        check(&events, reserves_room);
    }
}
