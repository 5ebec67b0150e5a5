//! What a damaged copy is healed from, as a story: random runs hardly ever come to an owner that lags and is the only one in reach.

use core::time::Duration;
use gramme_quorum::planted::Planted;
use gramme_quorum::{Level, Timing};
use gramme_sim::script::Script;
use gramme_sim::swarm::Harm;
use gramme_sim::world::{Alteration, Crash, Shape, World};

const SECOND: Duration = Duration::from_secs(1);

/// Node 1's disk damages what node 2 has missed, while node 0, which has it too, can't be reached.
fn damaged_beside_a_laggard(planted: Planted) {
    let timing = Timing { exchange: 10_000 * SECOND, ..Timing::default() };
    let shape = Shape { segment_bytes: 16 << 10, timing, planted, ..Shape::new(3) };
    let mut s = Script { world: World::new(43, shape), w: None, r: None };
    s.wait(SECOND);
    s.world.crash(2, Crash::Kill);
    s.wait(5 * SECOND);
    let keys: Vec<String> = (0..900).map(|n| format!("key{n}")).collect();
    let written: Vec<_> = keys.iter().map(|key| s.set(0, key).unwrap().value).collect();
    // The segments are sealed by and by.
    s.wait(8 * SECOND);
    s.world.set_cut_both(0, 1, true);
    s.world.set_cut_both(0, 2, true);
    s.restart(2);
    s.wait(5 * SECOND);
    for _ in 0..5 {
        assert!(s.world.damage(1, Harm::Lost, false), "there is something to be damaged");
    }
    let unknown = |s: &mut Script| keys.iter().filter(|key| s.get(1, key).is_err()).count();
    assert_eq!(unknown(&mut s), 5, "who lags can't say what it was");
    s.world.set_cut_both(0, 1, false);
    s.world.set_cut_both(0, 2, false);
    s.wait(5 * SECOND);
    assert_eq!(unknown(&mut s), 0);
    s.wait(5 * SECOND);
    s.rest();
    s.world.crash(0, Crash::Kill);
    s.r = Some(Level::One);
    for (key, value) in keys.iter().zip(&written) {
        assert_eq!(s.get(1, key).unwrap().values, [*value], "{key}");
    }
}

#[test]
fn a_damaged_copy_is_not_healed_from_one_that_lags() {
    damaged_beside_a_laggard(Planted::default());
}

#[cfg(feature = "planted")]
#[test]
#[should_panic(expected = "replaces a damaged copy by")]
fn one_that_would_be_is_found_by_the_judge() {
    damaged_beside_a_laggard(Planted::one(gramme_quorum::planted::Bug::HealedFromOne));
}

/// Node 2 is back on an old copy of its disk, and the two that could tell have been down in between.
fn back_on_an_old_disk(planted: Planted) {
    let mut s = Script::of(45, Shape { planted, ..Shape::new(3) });
    s.world.set_back(2);
    for n in 0..60 {
        s.set(n % 3, &format!("key{n}")).unwrap();
    }
    s.wait(2 * SECOND);
    s.world.set_back(2);
    s.wait(12 * SECOND);
    for node in [0, 1] {
        s.world.crash(node, Crash::PowerCut);
        s.restart(node);
    }
    s.restart(2);
    s.wait(15 * SECOND);
    s.rest();
}

#[test]
fn who_was_down_knows_an_old_disk_all_the_same() {
    back_on_an_old_disk(Planted::default());
}

#[cfg(feature = "planted")]
#[test]
#[should_panic(expected = "nobody tells it")]
fn one_that_nobody_knows_any_more_is_found_by_the_judge() {
    back_on_an_old_disk(Planted::one(gramme_quorum::planted::Bug::NotesForgotten));
}

#[cfg(feature = "planted")]
#[test]
#[should_panic(expected = "violated")]
fn that_a_damaged_copy_is_none_is_found_by_the_judge() {
    damaged_beside_a_laggard(Planted::one(gramme_quorum::planted::Bug::DamagedIsAbsent));
}

/// Node 3 joined, and is back on its disk from before it did; who could tell it what it had told them is out of reach, and only node 4,
/// which has lost its disk since they met, is there to say what it owns.
fn owns_what_it_never_pulled(planted: Planted) {
    let mut s = Script::of(52, Shape { planted, spares: 2, r: 1, w: 3, ..Shape::new(3) });
    s.world.set_back(3);
    s.world.alter(0, &[Alteration::Member(3, 1), Alteration::Member(4, 1)]);
    s.wait(5 * SECOND);
    s.rest();
    let keys: Vec<String> = (0..60).map(|n| format!("key{n}")).collect();
    keys.iter().for_each(|key| drop(s.set(0, key).unwrap()));
    s.world.set_cut_both(3, 4, true);
    s.world.wipe(4);
    s.restart(4);
    s.wait(5 * SECOND);
    s.world.set_back(3);
    for other in 0..3 {
        s.world.set_cut_both(3, other, true);
    }
    s.world.set_cut_both(3, 4, false);
    s.restart(3);
    s.wait(5 * SECOND);
    let owned: Vec<&String> = keys.iter().filter(|key| s.world.owners(key.as_bytes()).contains(&3)).collect();
    for key in owned {
        let shown = s.get(3, key);
        assert!(shown.as_ref().map_or(true, |shown| !shown.values.is_empty()), "{key} is not absent");
    }
}

#[test]
fn what_no_transition_brought_is_missing() {
    owns_what_it_never_pulled(Planted::default());
}

#[cfg(feature = "planted")]
#[test]
#[should_panic(expected = "is not absent")]
fn one_that_takes_it_for_whole_says_that_there_is_nothing() {
    owns_what_it_never_pulled(Planted::one(gramme_quorum::planted::Bug::SkippedIgnored));
}
