//! Stamps and the hybrid logical clock.

use gramme_vclock::{Hlc, Stamp};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Tick(u64),
    /// Of a write over this one.
    TickPast(u64, Stamp),
    Observe(u64, Stamp),
    /// The disk refuses the floor that is asked for.
    Fail(u64),
    /// The process dies; what it reserved is all that is left.
    Crash,
}

fn stamps() -> impl Strategy<Value = Stamp> {
    prop_oneof![
        (0..60_000u64, any::<u16>()).prop_map(|(ms, n)| Stamp::from_parts(ms, n)),
        (0..=Stamp::MAX.as_u64()).prop_map(|raw| Stamp::from_u64(raw).unwrap()),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let wall = || prop_oneof![0..30_000u64, Just(u64::MAX >> 20)];
    prop::collection::vec(
        prop_oneof![
            wall().prop_map(Step::Tick),
            (0..30_000u64, stamps()).prop_map(|(w, s)| Step::TickPast(w, s)),
            (0..30_000u64, stamps()).prop_map(|(w, s)| Step::Observe(w, s)),
            wall().prop_map(Step::Fail),
            Just(Step::Crash),
        ],
        0..40,
    )
}

proptest! {
    #[test]
    fn never_goes_back_nor_answers_twice_alike(steps in steps()) {
        let mut durable = Stamp::ZERO;
        let mut clock = Hlc::new(durable);
        // Given or followed.
        let mut last = None;
        for step in steps {
            match step {
                Step::Tick(wall) => {
                    if let Some(floor) = clock.reserve(wall) {
                        prop_assert!(floor > durable);
                        durable = floor;
                        clock.reserved(floor);
                    }
                    prop_assert_eq!(clock.reserve(wall), None);
                    let stamp = clock.tick(wall);
                    prop_assert!(last < Some(stamp));
                    prop_assert!(stamp.millis() >= wall);
                    last = Some(stamp);
                }
                Step::TickPast(wall, covered) => {
                    let stamp = clock.tick_past(wall, covered);
                    if let Some(floor) = clock.reserve(wall) {
                        durable = floor;
                        clock.reserved(floor);
                    }
                    prop_assert!(stamp > covered || covered == Stamp::MAX);
                    // Beyond the drift allowed it is the key's alone.
                    let own = clock.last();
                    let within = covered.millis() <= wall + Hlc::MAX_DRIFT;
                    prop_assert_eq!(stamp, if within { own } else { own.max(covered.next()) });
                    prop_assert!(last < Some(own));
                    last = Some(own);
                }
                Step::Observe(wall, seen) => {
                    let before = clock.last();
                    let within = seen.millis() <= wall + Hlc::MAX_DRIFT;
                    prop_assert_eq!(clock.observe(wall, seen), within);
                    prop_assert_eq!(clock.last(), if within { before.max(seen) } else { before });
                    prop_assert!(!within || clock.clone().tick(0) > seen);
                    if let Some(floor) = clock.reserve(wall) {
                        durable = floor;
                        clock.reserved(floor);
                    }
                    if within {
                        last = last.max(Some(seen));
                    }
                }
                Step::Fail(wall) => {
                    let asked = clock.reserve(wall);
                    prop_assert_eq!(clock.reserve(wall), asked, "until it is told");
                }
                Step::Crash => clock = Hlc::new(durable),
            }
        }
    }

    #[test]
    fn parts_and_raw_value_are_the_same_stamp(ms in 0..1u64 << 47, logical: u16) {
        let stamp = Stamp::from_parts(ms, logical);
        prop_assert_eq!((stamp.millis(), stamp.logical()), (ms, logical));
        prop_assert_eq!(Stamp::from_u64(stamp.as_u64()), Ok(stamp));
        prop_assert!(stamp.next() > stamp || stamp == Stamp::MAX);
    }
}

#[test]
fn a_floor_is_stored_about_once_a_second() {
    let mut clock = Hlc::new(Stamp::ZERO);
    let mut stored = 0;
    for wall in 1_000_000..1_010_000 {
        for _ in 0..5 {
            if let Some(floor) = clock.reserve(wall) {
                clock.reserved(floor);
                stored += 1;
            }
            clock.tick(wall);
        }
    }
    assert_eq!(stored, 10);
    let mut clock = Hlc::new(Stamp::ZERO);
    let floor = Stamp::from_parts(Hlc::LEAD, 0);
    assert_eq!(clock.reserve(0), Some(floor));
    clock.reserved(floor);
    assert_eq!(clock.reserve(Hlc::LEAD), None, "the floor itself is reserved");
    assert!(clock.reserve(Hlc::LEAD + 1).is_some());
}

#[test]
fn restarts_in_a_row_do_not_run_away_from_the_wall_clock() {
    let mut durable = Stamp::ZERO;
    for _ in 0..100 {
        let mut clock = Hlc::new(durable);
        durable = clock.reserve(5_000).unwrap();
        clock.reserved(durable);
        clock.tick(5_000);
        assert!(Hlc::new(Stamp::ZERO).observe(5_000, clock.last()), "peers still follow");
    }
    assert!(durable.millis() < 5_000 + Hlc::LEAD + 300, "{durable}");
}

/// What was followed is ahead of the wall clock, and further than what was reserved before.
#[test]
fn a_restart_does_not_go_back_behind_a_stamp_that_was_followed() {
    let mut clock = Hlc::new(Stamp::ZERO);
    let mut durable = clock.reserve(1_000).unwrap();
    clock.reserved(durable);
    clock.tick(1_000);
    let seen = Stamp::from_parts(11_000, 0);
    assert!(clock.observe(1_000, seen));
    // The first write fails, and the floor is asked for again.
    assert!(clock.reserve(1_000).is_some_and(|floor| floor > seen));
    durable = clock.reserve(1_000).unwrap_or(durable);
    assert!(Hlc::new(durable).tick(1_001) > seen);
}

/// A write covers what a clock ahead has stamped. The floor that was asked for before knows nothing of it; the one asked for after does.
#[test]
fn a_restart_does_not_give_a_stamp_past_another_twice() {
    let mut clock = Hlc::new(Stamp::ZERO);
    let early = clock.reserve(2_000).unwrap();
    clock.reserved(early);
    let covered = Stamp::from_parts(9_000, 0);
    let stamp = clock.tick_past(2_000, covered);
    assert_eq!((stamp, clock.last()), (covered.next(), stamp), "the clock's own");
    let floor = clock.reserve(2_000).unwrap();
    assert!(early < stamp && stamp < floor);
    let mut clock = Hlc::new(floor);
    assert!(clock.tick_past(2_100, covered) > stamp);
    assert_eq!(clock.tick(2_100).millis(), floor.millis());
}

#[test]
fn a_wild_clock_drags_ours_by_the_drift_at_most() {
    let mut clock = Hlc::with_max_drift(Stamp::ZERO, 500);
    assert!(clock.observe(1_000, Stamp::from_parts(1_500, 7)));
    assert_eq!(clock.tick(1_001), Stamp::from_parts(1_500, 8));
    assert!(!clock.observe(1_000, Stamp::from_parts(1_501, 0)));
    assert!(!clock.observe(1_000, Stamp::MAX));
    assert_eq!(clock.tick(1_001), Stamp::from_parts(1_500, 9));
    assert_eq!(clock.tick(2_000), Stamp::from_parts(2_000, 0), "the wall clock has caught up");
    // A restart without reservations starts from what the store still knows.
    assert_eq!(Hlc::new(clock.last()).tick(0), Stamp::from_parts(2_000, 1));
}

#[test]
fn peers_with_a_small_bound_follow_a_clock_that_restarted() {
    for drift in [4, 10, 500, 999, 1_500] {
        let mut clock = Hlc::with_max_drift(Stamp::ZERO, drift);
        let floor = clock.reserve(10_000).unwrap();
        clock.tick(10_000);
        let stamp = Hlc::with_max_drift(floor, drift).tick(10_000);
        // Though their wall clocks are behind, by the half that the floor leaves.
        let wall = 10_000 - drift / 2;
        assert!(Hlc::with_max_drift(Stamp::ZERO, drift).observe(wall, stamp), "{stamp} within {drift} ms");
    }
}

#[test]
fn a_reading_later_than_any_stamp_is_none() {
    let mut clock = Hlc::new(Stamp::ZERO);
    let first = clock.tick(5_000);
    for wild in [u64::MAX, 1 << 47] {
        let floor = clock.reserve(wild);
        assert!(floor.is_none_or(|floor| floor.millis() < 10_000), "{floor:?}");
        assert!(!clock.observe(wild, Stamp::MAX));
        assert!(clock.tick(wild).millis() < 10_000);
    }
    assert!(first < clock.last());
    assert_eq!(clock.tick(6_000), Stamp::from_parts(6_000, 0));
    // The last millisecond of all is a reading like others.
    assert_eq!(Hlc::new(Stamp::ZERO).tick(Stamp::MAX.millis()), Stamp::from_parts(Stamp::MAX.millis(), 0));
}

#[test]
fn stamps_stay_within_what_can_be_decoded() {
    assert!(Stamp::from_u64(1 << 63).is_err());
    assert!(postcard::from_bytes::<Stamp>(&postcard::to_allocvec(&(1u64 << 63)).unwrap()).is_err());
    assert_eq!(Stamp::from_parts(u64::MAX, 0), Stamp::MAX);
    assert_eq!(Stamp::MAX.next(), Stamp::MAX);
    let bytes = postcard::to_allocvec(&Stamp::MAX.next()).unwrap();
    assert_eq!(postcard::from_bytes::<Stamp>(&bytes).unwrap(), Stamp::MAX);
}

/// The greatest that was followed counts, not the last.
#[test]
fn a_floor_is_ahead_of_the_greatest_stamp_followed() {
    let mut clock = Hlc::new(Stamp::ZERO);
    for seen in [9_000, 2_000] {
        assert!(clock.observe(1_000, Stamp::from_parts(seen, 0)));
    }
    let floor = Stamp::from_parts(9_000 + Hlc::LEAD, 0);
    assert_eq!(clock.reserve(1_000), Some(floor));
    // Nor does an earlier floor undo a later one.
    for told in [floor, Stamp::ZERO] {
        clock.reserved(told);
        assert_eq!(clock.reserve(1_000), None);
    }
    // A clock that is past all that: by one millisecond and its stamps.
    let clock = Hlc::new(Stamp::from_parts(20_000, 7));
    assert_eq!(clock.reserve(1_000), Some(Stamp::from_parts(20_001, u16::MAX)));
}

/// Floors that a clock asks for in ten seconds, while a peer is ahead and sends so often.
fn floors(ahead: u64, per_second: usize) -> usize {
    let mut clock = Hlc::new(Stamp::ZERO);
    let mut stored = 0;
    for wall in (1_000_000..1_010_000).step_by(1000 / per_second) {
        assert!(clock.observe(wall, Stamp::from_parts(wall + ahead, 0)));
        if let Some(floor) = clock.reserve(wall) {
            assert!(floor.millis() <= (wall + Hlc::MAX_DRIFT).max(clock.last().millis() + 1));
            clock.reserved(floor);
            stored += 1;
        }
        clock.tick(wall);
    }
    stored
}

#[test]
fn a_floor_is_stored_about_once_a_second_whoever_is_ahead() {
    for ahead in [0, 500, 900, 1_500, 5_000, 9_000] {
        for per_second in [10, 100, 1_000] {
            assert!(
                floors(ahead, per_second) <= 11,
                "{ahead} ms ahead, {per_second}/s: {}",
                floors(ahead, per_second)
            );
        }
    }
    // What is left of the drift allowed is all that the floor may be ahead.
    assert!(floors(9_500, 1_000) <= 21, "{}", floors(9_500, 1_000));
}

/// However far ahead: the clock itself is not dragged along.
#[test]
fn a_write_is_stamped_past_what_it_covers() {
    let mut clock = Hlc::new(Stamp::ZERO);
    let near = Stamp::from_parts(1_500, 3);
    assert_eq!(clock.tick_past(1_000, near), near.next());
    let wild = Stamp::from_parts(5_000_000, 0);
    assert!(!clock.observe(1_000, wild) && clock.tick(1_000) < wild);
    assert_eq!(clock.tick_past(1_000, wild), wild.next());
    // The lift is the key's: another write over the same has the same stamp, and the next tick is not past it.
    assert_eq!(clock.tick_past(1_000, wild), wild.next());
    assert!(clock.clone().tick(1_000) < wild);
    assert!(clock.last().millis() < 2_000, "{}", clock.last());
    assert_eq!(clock.tick_past(2_000, Stamp::ZERO), Stamp::from_parts(2_000, 0));
    assert_eq!(clock.tick_past(2_000, Stamp::MAX), Stamp::MAX);
}
