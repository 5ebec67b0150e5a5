//! Version vectors against sets of events, and the paper's truncation.

use gramme_vclock::{
    Actor, Causality, Dot, Entry, FixedVersionVector, Full, GrowableTimedVector, GrowableVersionVector,
    IncrementError, Stamp,
};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn vector(counters: &[u64]) -> GrowableVersionVector {
    let mut vector = GrowableVersionVector::new();
    for (actor, count) in (0..).zip(counters) {
        for _ in 0..*count {
            vector.increment(Actor(actor)).unwrap();
        }
    }
    vector
}

fn events(counters: &[u64]) -> BTreeSet<Dot> {
    (0..)
        .zip(counters)
        .flat_map(|(actor, count)| (1..=*count).map(move |counter| Dot { actor: Actor(actor), counter }))
        .collect()
}

fn counters() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(0..4u64, 0..7)
}

proptest! {
    #[test]
    fn relates_and_merges_like_sets_of_events(a in counters(), b in counters()) {
        let (mut left, right) = (vector(&a), vector(&b));
        let (left_events, right_events) = (events(&a), events(&b));
        let expected = match (left_events.is_subset(&right_events), right_events.is_subset(&left_events)) {
            (true, true) => Causality::Equal,
            (true, false) => Causality::Before,
            (false, true) => Causality::After,
            (false, false) => Causality::Concurrent,
        };
        prop_assert_eq!(left.compare(&right), expected);
        prop_assert_eq!(left == right, expected == Causality::Equal);
        let Ok(changed) = left.merge(&right);
        prop_assert_eq!(changed, !right_events.is_subset(&left_events));
        let union: BTreeSet<Dot> = left_events.union(&right_events).copied().collect();
        let held: BTreeSet<Dot> = left
            .spans()
            .flat_map(|s| (s.first..=s.last).map(move |counter| Dot { actor: s.actor, counter }))
            .collect();
        prop_assert_eq!(&held, &union);
        prop_assert!(union.iter().all(|dot| left.contains(*dot)));
    }

    #[test]
    fn the_fixed_form_does_the_same_or_says_full_and_stays(a in counters(), b in counters()) {
        let fixed = |counters: &[u64]| {
            postcard::from_bytes::<FixedVersionVector<3>>(&postcard::to_allocvec(&vector(counters)).unwrap())
        };
        if let (Ok(mut left), Ok(right)) = (fixed(&a), fixed(&b)) {
            let (before, mut all) = (left.clone(), vector(&a));
            let Ok(changed) = all.merge(&vector(&b));
            match left.merge(&right) {
                Ok(fixed_changed) => {
                    prop_assert_eq!(left.entries(), all.entries());
                    prop_assert_eq!(fixed_changed, changed);
                }
                Err(Full) => {
                    prop_assert!(all.len() > 3);
                    prop_assert_eq!(left, before);
                }
            }
        } else {
            prop_assert!(vector(&a).len() > 3 || vector(&b).len() > 3);
        }
    }

    #[test]
    fn timed_vectors_merge_to_a_join(steps in prop::collection::vec((0..3usize, 0..4u64, 0..9u64), 0..12)) {
        let mut vectors = [(); 3].map(|()| GrowableTimedVector::new());
        for (which, actor, at) in steps {
            // Actors differ by replica: one actor's counter is only ever counted in one place.
            vectors[which].increment_at(Actor(actor * 3 + which as u64), Stamp::from_parts(at, 0)).unwrap();
            let from = vectors[(which + 1) % 3].clone();
            if at == 0 {
                let Ok(_) = vectors[which].merge(&from);
            }
        }
        let join = |order: [usize; 3]| {
            let mut all = GrowableTimedVector::new();
            for at in order {
                let Ok(_) = all.merge(&vectors[at]);
                let Ok(again) = all.merge(&vectors[at]);
                assert!(!again);
            }
            all
        };
        let all = join([0, 1, 2]);
        for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            prop_assert_eq!(&join(order), &all);
        }
    }
}

#[test]
fn of_entries_with_one_age_the_smaller_actor_goes_first() {
    let of = |n| Entry { actor: Actor(n), counter: 1, at: Stamp::ZERO };
    let mut clock = GrowableTimedVector::from_entries((1..=3).map(of)).unwrap();
    assert_eq!(clock.truncate(1), 2);
    assert_eq!(clock.entries()[0].actor, Actor(3));
    // One at a time as well, also where the one of another age stands between.
    let mut clock = GrowableTimedVector::from_entries((1..=3).map(of)).unwrap();
    clock.increment_at(Actor(2), Stamp::from_parts(9, 0)).unwrap();
    for left in [&[2, 3][..], &[2]] {
        assert_eq!(clock.truncate(left.len()), 1);
        assert!(clock.entries().iter().map(|entry| entry.actor.0).eq(left.iter().copied()));
    }
}

#[test]
fn an_entry_keeps_its_latest_time() {
    let at = |ms| Stamp::from_parts(ms, 0);
    let mut clock = GrowableTimedVector::new();
    clock.increment_at(Actor(1), at(9)).unwrap();
    clock.increment_at(Actor(1), at(4)).unwrap();
    assert_eq!(clock.entries()[0].at, at(9).next());
    clock.increment_at(Actor(2), at(4)).unwrap();
    assert_eq!(clock.entries()[1].at, at(9).next().next());
    clock.increment_at(Actor(1), at(10)).unwrap();
    assert_eq!(clock.entries()[0].at, at(10));
    // Two replicas that should not have: the same counter at two times.
    let of =
        |ms| GrowableTimedVector::from_entries([Entry { actor: Actor(1), counter: 2, at: at(ms) }]).unwrap();
    let (mut early, mut late) = (of(3), of(8));
    let (Ok(true), Ok(false)) = (early.merge(&of(8)), late.merge(&of(3))) else {
        panic!("the later one wins")
    };
    assert_eq!(early, late);
    // Nor does a longer one win that is older in this.
    let longer =
        [(1, 2, 3), (2, 1, 5)].map(|(actor, counter, ms)| Entry { actor: Actor(actor), counter, at: at(ms) });
    let Ok(true) = late.merge(&GrowableTimedVector::from_entries(longer).unwrap()) else {
        panic!("there is one more")
    };
    assert_eq!(late.entries().iter().map(|entry| entry.at).collect::<Vec<_>>(), [at(8), at(5)]);
}

#[test]
fn counter_0_is_seen_by_nobody() {
    assert!(!vector(&[3]).contains(Dot { actor: Actor(0), counter: 0 }));
    assert!(!vector(&[]).contains(Dot { actor: Actor(0), counter: 0 }));
}

#[test]
fn truncation_drops_the_oldest_pairs() {
    // Later actors changed earlier.
    let of = |n| Entry { actor: Actor(n), counter: 1, at: Stamp::from_parts(100 - n, 0) };
    let mut clock = GrowableTimedVector::from_entries((0..12).map(of)).unwrap();
    clock.increment_at(Actor(11), Stamp::from_parts(200, 0)).unwrap();
    let full = clock.clone();
    assert_eq!(clock.truncate(GrowableTimedVector::PAPER_LIMIT), 2);
    assert_eq!((clock.get(Actor(10)), clock.get(Actor(9)), clock.get(Actor(11))), (0, 0, 2));
    assert_eq!(clock.len(), 10);
    assert_eq!(clock.truncate(GrowableTimedVector::PAPER_LIMIT), 0);
    // A later version of a truncated line looks concurrent to an untruncated earlier one, never older.
    clock.increment_at(Actor(0), Stamp::from_parts(300, 0)).unwrap();
    assert_eq!(clock.compare(&full), Causality::Concurrent);
}

#[test]
fn an_actor_whose_entry_was_truncated_goes_on_where_it_was() {
    let at = |millis| Stamp::from_parts(millis, 0);
    let mut clock = GrowableTimedVector::new();
    clock.increment_at(Actor(2), at(1)).unwrap();
    let last = clock.increment_at(Actor(2), at(2)).unwrap().counter;
    clock.increment_at(Actor(1), at(100)).unwrap();
    let before = clock.clone();
    assert_eq!(clock.truncate(1), 1);
    let mut again = clock.clone();
    assert_eq!(clock.increment_past(Actor(2), last, at(200)), Ok(Dot { actor: Actor(2), counter: 3 }));
    assert_eq!(clock.compare(&before), Causality::After);
    // An entry that is further on counts; and from 1 again the new version would look old.
    assert_eq!(clock.increment_past(Actor(2), last, at(201)), Ok(Dot { actor: Actor(2), counter: 4 }));
    again.increment_at(Actor(2), at(200)).unwrap();
    assert_eq!(again.compare(&before), Causality::Before);
    assert_eq!(clock.increment_past(Actor(3), u64::MAX, at(1)), Err(IncrementError::Overflow));
    assert_eq!(clock.len(), 2);
}

/// Whoever brought it: what is counted after it would be no later, and might be dropped.
#[test]
fn nothing_is_counted_after_the_last_stamp() {
    let mut clock = GrowableTimedVector::new();
    clock.increment_at(Actor(7), Stamp::MAX).unwrap();
    let before = clock.clone();
    for actor in [6, 7, 8] {
        assert_eq!(clock.increment_at(Actor(actor), Stamp::MAX), Err(IncrementError::LastStamp));
    }
    assert_eq!(clock, before);
    clock.forget(Actor(7));
    assert!(clock.increment_past(Actor(7), 1, Stamp::ZERO).is_ok());
}

#[test]
fn an_increment_that_can_not_be_is_an_error_and_changes_nothing() {
    let bytes = postcard::to_allocvec(&vec![([7u8, 0, 0, 0, 0, 0, 0, 0], u64::MAX)]).unwrap();
    let mut vector: FixedVersionVector<1> = postcard::from_bytes(&bytes).unwrap();
    let before = vector.clone();
    assert_eq!(vector.increment(Actor(7)), Err(IncrementError::Overflow));
    assert_eq!(vector.increment(Actor(8)), Err(IncrementError::Full(Full)));
    assert_eq!(vector, before);
    assert_eq!(vector.forget(Actor(7)), u64::MAX);
    assert_eq!(vector.forget(Actor(7)), 0);
    assert!(vector.is_empty());
}

#[test]
fn a_received_event_brings_the_earlier_ones() {
    let mut vector = FixedVersionVector::<2>::new();
    let dot = |actor, counter| Dot { actor: Actor(actor), counter };
    assert_eq!(vector.include(dot(2, 5)), Ok(true));
    assert_eq!(vector.include(dot(2, 5)), Ok(false));
    assert_eq!(vector.include(dot(2, 3)), Ok(false));
    assert_eq!(vector.include(dot(1, 0)), Ok(false));
    assert_eq!(vector.include(dot(1, 1)), Ok(true));
    let before = vector.clone();
    assert_eq!(vector.include(dot(3, 1)), Err(Full));
    assert_eq!(vector, before);
    assert_eq!(vector.include(dot(3, 0)), Ok(false));
    assert!(vector.contains(dot(2, 4)) && !vector.contains(dot(2, 6)));
    assert_eq!(vector.len(), 2);
    // As a merge with a vector that has it would.
    let one = FixedVersionVector::<2>::from_entries([Entry { actor: Actor(2), counter: 9, at: () }]).unwrap();
    let mut merged = vector.clone();
    merged.merge(&one).unwrap();
    vector.include(dot(2, 9)).unwrap();
    assert_eq!(vector, merged);
    assert_eq!(merged.compare(&before).ordering(), Some(core::cmp::Ordering::Greater));
    assert_eq!(one.compare(&before).ordering(), None);
}

#[test]
fn truncation_drops_the_oldest_however_many_and_of_equals_the_smaller_actors() {
    let times = |n: u64| (n * 7919) % 13;
    for len in [3u64, 10, 64, 50_000] {
        for limit in [0, 1, 2, 9, 40] {
            let entry = |n| Entry { actor: Actor(n), counter: 1 + n, at: Stamp::from_parts(times(n), 0) };
            let mut vector = GrowableTimedVector::from_entries((0..len).map(entry)).unwrap();
            let mut expected: Vec<_> = vector.entries().to_vec();
            expected.sort_by_key(|entry| (entry.at, entry.actor));
            expected.drain(..expected.len().saturating_sub(limit));
            expected.sort_by_key(|entry| entry.actor);
            vector.truncate(limit);
            assert_eq!(vector.entries(), expected, "{len} to {limit}");
        }
    }
}

/// One of three replicas' writes of a key: what it is called, and all that it came after, itself included.
struct Version {
    dot: Dot,
    clock: GrowableTimedVector,
    history: BTreeSet<Dot>,
}

proptest! {
    /// Truncated versions against their causal histories, whatever the clocks show: concurrent is said where nothing is known any more,
    /// older never of what is not.
    #[test]
    fn truncation_makes_no_version_look_older_than_it_is(
        limit in 1..5usize,
        walls in prop::collection::vec(0..40u64, 6),
        steps in prop::collection::vec((0..6usize, 0..6usize, 0..3u8, 0..3u64), 1..60),
    ) {
        let mut replicas = [(); 6].map(|()| (GrowableTimedVector::new(), BTreeSet::new(), 0));
        let mut versions: Vec<Version> = Vec::new();
        for (now, (which, from, write, drift)) in (0..).zip(steps) {
            if write == 0 {
                let (theirs, known, _) = replicas[from].clone();
                let (clock, history, _) = &mut replicas[which];
                let Ok(_) = clock.merge(&theirs);
                history.extend(known);
                continue;
            }
            // Of equals, too: time passes in every third step.
            let at = Stamp::from_parts(walls[which] + now / 3 * drift, 0);
            let (clock, history, last) = &mut replicas[which];
            let dot = clock.increment_past(Actor(which as u64), *last, at).unwrap();
            prop_assert_eq!(dot.counter, *last + 1);
            *last = dot.counter;
            clock.truncate(limit);
            history.insert(dot);
            versions.push(Version { dot, clock: clock.clone(), history: history.clone() });
        }
        for (n, version) in versions.iter().enumerate() {
            prop_assert!(version.clock.contains(version.dot), "a version lacks its own event");
            for other in versions.iter().skip(n + 1) {
                let truth = (other.history.contains(&version.dot), version.history.contains(&other.dot));
                let said = version.clock.compare(&other.clock);
                prop_assert!(said == Causality::Concurrent || match said {
                    Causality::Before => truth == (true, false),
                    Causality::After => truth == (false, true),
                    _ => false,
                }, "{said}, {truth:?}");
            }
        }
    }
}

/// The paper's ten, all of them stamped later than the clock of the one who writes shows, or just then.
#[test]
fn an_event_is_not_dropped_because_its_clock_is_behind() {
    let at = |ms| Stamp::from_parts(ms, 0);
    for wall in [9_000, 10_000, 10_019] {
        let of =
            |n| Entry { actor: Actor(n), counter: 1, at: at(10_000 + if wall == 10_000 { 0 } else { n }) };
        let parent = GrowableTimedVector::from_entries((10..20).map(of)).unwrap();
        let (mut ours, mut theirs) = (parent.clone(), parent.clone());
        let dot = ours.increment_at(Actor(1), at(wall)).unwrap();
        theirs.increment_at(Actor(10), at(11_000)).unwrap();
        for clock in [&mut ours, &mut theirs] {
            clock.truncate(GrowableTimedVector::PAPER_LIMIT);
        }
        assert!(ours.contains(dot));
        assert_eq!(
            (ours.compare(&parent), ours.compare(&theirs)),
            (Causality::Concurrent, Causality::Concurrent)
        );
    }
}
