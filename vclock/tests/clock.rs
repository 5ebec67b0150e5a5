//! Stamps and the hybrid logical clock.

use gramme_vclock::{Hlc, Stamp};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Tick(u64),
    Observe(u64, Stamp),
    Restart,
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
            (0..30_000u64, stamps()).prop_map(|(w, s)| Step::Observe(w, s)),
            Just(Step::Restart),
        ],
        0..40,
    )
}

proptest! {
    #[test]
    fn never_goes_back_nor_answers_twice_alike(steps in steps()) {
        let mut clock = Hlc::new(Stamp::ZERO);
        let mut last = None;
        for step in steps {
            match step {
                Step::Tick(wall) => {
                    let stamp = clock.tick(wall);
                    prop_assert!(last < Some(stamp));
                    prop_assert!(stamp.millis() >= wall);
                    last = Some(stamp);
                }
                Step::Observe(wall, seen) => {
                    let before = clock.last();
                    let within = seen.millis() <= wall + Hlc::MAX_DRIFT;
                    prop_assert_eq!(clock.observe(wall, seen), within);
                    prop_assert_eq!(clock.last(), if within { before.max(seen) } else { before });
                    prop_assert!(!within || clock.clone().tick(0) > seen);
                }
                Step::Restart => clock = Hlc::new(clock.last()),
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
fn stamps_stay_within_what_can_be_decoded() {
    assert!(Stamp::from_u64(1 << 63).is_err());
    assert!(postcard::from_bytes::<Stamp>(&postcard::to_allocvec(&(1u64 << 63)).unwrap()).is_err());
    assert_eq!(Stamp::from_parts(u64::MAX, 0), Stamp::MAX);
    assert_eq!(Stamp::MAX.next(), Stamp::MAX);
    let bytes = postcard::to_allocvec(&Stamp::MAX.next()).unwrap();
    assert_eq!(postcard::from_bytes::<Stamp>(&bytes).unwrap(), Stamp::MAX);
}
