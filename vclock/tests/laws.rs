//! Merging is a join: every object over a handful of dots, and random larger ones.

mod common;

use common::minter;
use gramme_vclock::{
    Actor, Causality, Dot, FixedSiblings, Full, GrowableDotSet, GrowableSiblings, WriteError, Written,
};
use proptest::prelude::*;

type Object = GrowableSiblings<u64>;

/// A dot's value is what the dot says, as it is wherever no dot is issued twice.
fn object(dots: impl IntoIterator<Item = (Dot, bool)>) -> Object {
    let mut seen = GrowableDotSet::new();
    let mut live = Vec::new();
    for (dot, lives) in dots {
        let Ok(()) = seen.insert(dot);
        if lives {
            live.push((dot, dot.actor.0 << 32 | dot.counter));
        }
    }
    Object::from_parts(live, seen).unwrap()
}

fn merged(a: &Object, b: &Object) -> Object {
    let mut all = a.clone();
    let Ok(merged) = all.merge(b.clone());
    assert_eq!(merged.changed, all != *a);
    all
}

fn check_pair(a: &Object, b: &Object) {
    let all = merged(a, b);
    assert_eq!(merged(b, a), all);
    assert_eq!(merged(&all, a), all);
    assert_eq!(merged(&all, b), all);
    let expected = match (all == *a, all == *b) {
        (true, true) => Causality::Equal,
        (false, true) => Causality::Before,
        (true, false) => Causality::After,
        (false, false) => Causality::Concurrent,
    };
    assert_eq!(a.compare(b), expected);
}

/// All objects over these dots: each dot unseen, replaced or live.
fn all_objects(dots: &[Dot]) -> Vec<Object> {
    (0..3usize.pow(u32::try_from(dots.len()).unwrap()))
        .map(|code| {
            let state = |at: usize| code / 3usize.pow(u32::try_from(at).unwrap()) % 3;
            let known = (0..dots.len()).filter(|at| state(*at) > 0);
            object(known.map(|at| (dots[at], state(at) == 2)))
        })
        .collect()
}

#[test]
fn every_small_object_joins() {
    // Neighbours, a gap, and a second actor; objects with a history and no value are among them.
    let dots = [(1, 1), (1, 2), (1, 4), (2, 2)].map(|(a, counter)| Dot { actor: Actor(a), counter });
    let objects = all_objects(&dots);
    assert_eq!(objects.len(), 81);
    // The joins are again among them, so a table of pairs says all about three.
    let place = |object: &Object| objects.iter().position(|known| known == object).unwrap();
    let table: Vec<Vec<usize>> = objects
        .iter()
        .map(|a| {
            let check = |b| {
                check_pair(a, b);
                place(&merged(a, b))
            };
            objects.iter().map(check).collect()
        })
        .collect();
    for a in 0..objects.len() {
        assert_eq!(table[a][a], a);
        for b in 0..objects.len() {
            for c in 0..objects.len() {
                assert_eq!(table[table[a][b]][c], table[a][table[b][c]]);
            }
        }
    }
}

fn objects() -> impl Strategy<Value = Object> {
    prop_oneof![0..8usize, 8..24usize]
        .prop_flat_map(|most| prop::collection::btree_map((0..5u64, 1..12u64), any::<bool>(), 0..=most))
        .prop_map(|dots| {
            object(dots.into_iter().map(|((a, counter), lives)| (Dot { actor: Actor(a), counter }, lives)))
        })
}

proptest! {
    #[test]
    fn larger_objects_join(a in objects(), b in objects(), c in objects()) {
        check_pair(&a, &b);
        prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
    }

    #[test]
    fn a_later_merge_never_undoes_a_write(mut at in objects(), stale in objects(), more in 0..3u64) {
        // Whatever a context covered stays away, whoever still holds it.
        let context = stale.seen().clone();
        let written = at.write(&context, &mut minter(Actor(9), more, 0), 9);
        let Written { dot, context: handed_back } = written.unwrap();
        prop_assert!(handed_back.includes(&context) && handed_back.contains(dot));
        let end = merged(&at, &stale);
        prop_assert!(end.iter().all(|(held, _)| !context.contains(held)));
        prop_assert_eq!(end.get(dot), Some(&9));
        prop_assert!(at.seen().includes(&handed_back));
    }

    #[test]
    fn the_fixed_form_does_the_same_or_says_full_and_stays(
        a in objects(),
        b in objects(),
        held_since in 0..12u64,
        since_then in 0..12u64,
    ) {
        type Fixed = FixedSiblings<u64, 4, 6>;
        let fixed = |object: &Object| postcard::from_bytes::<Fixed>(&postcard::to_allocvec(object).unwrap());
        let same = |fixed: &Fixed, grown: &Object| {
            postcard::to_allocvec(fixed).unwrap() == postcard::to_allocvec(grown).unwrap()
        };
        let fits = |grown: &Object| grown.len() <= 4 && grown.seen().spans().len() <= 6;
        prop_assert_eq!(fixed(&a).is_ok(), fits(&a));
        if let (Ok(left), Ok(right)) = (fixed(&a), fixed(&b)) {
            let (mut small, mut large) = (left.clone(), a.clone());
            let answer = small.merge(right.clone());
            let Ok(expected) = large.merge(b.clone());
            prop_assert_eq!(answer, if fits(&large) { Ok(expected) } else { Err(Full) });
            let as_it_must_be = if fits(&large) { same(&small, &large) } else { small == left };
            prop_assert!(as_it_must_be);

            let (mut small, mut large) = (left.clone(), a.clone());
            let minted = held_since + since_then;
            let mut minters = [(); 2].map(|()| minter(Actor(2), minted, held_since));
            let answer = small.write(right.seen(), &mut minters[0], 7);
            let expected = large.write(b.seen(), &mut minters[1], 7);
            prop_assert_eq!(minters[0].minted(), minted + u64::from(answer.is_ok()));
            match (answer, expected) {
                (Ok(written), Ok(expected)) => {
                    prop_assert_eq!(written.dot, expected.dot);
                    prop_assert_eq!(written.context.spans(), expected.context.spans());
                    prop_assert!(same(&small, &large));
                }
                (Err(refused), Err(expected)) => {
                    prop_assert_eq!((refused, expected), (WriteError::Ahead, WriteError::Ahead));
                    prop_assert!(minters[0].is_behind(a.seen()) || minters[0].is_behind(b.seen()));
                    prop_assert!(small == left && large == a);
                }
                (refused, expected) => {
                    prop_assert_eq!(refused.err(), Some(WriteError::Full(Full)));
                    let expected = expected.unwrap().context;
                    // The history before the own span is extended may need more room than the one after.
                    let mut passing = a.seen().clone();
                    let Ok(_) = passing.union(b.seen());
                    prop_assert!(!fits(&large) || passing.spans().len() > 6 || expected.spans().len() > 6);
                    prop_assert!(small == left);
                }
            }

            let (mut small, mut large) = (left.clone(), a.clone());
            let answer = small.discard(right.seen());
            let Ok(expected) = large.discard(b.seen());
            prop_assert_eq!(answer, if large.seen().spans().len() <= 6 { Ok(expected) } else { Err(Full) });
            let as_it_must_be = if answer.is_ok() { same(&small, &large) } else { small == left };
            prop_assert!(as_it_must_be);
        }
    }
}
