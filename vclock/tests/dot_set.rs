//! Exact dot sets against plain sets of dots.

use gramme_vclock::{Actor, Causality, Dot, DotSet, FixedDotSet, Full, GrowableDotSet, Span};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn dot(actor: u64, counter: u64) -> Dot {
    Dot { actor: Actor(actor), counter }
}

fn span(actor: u64, first: u64, last: u64) -> Span {
    Span { actor: Actor(actor), first, last }
}

fn spans() -> impl Strategy<Value = Vec<Span>> {
    prop::collection::vec((0..3u64, 1..12u64, 0..4u64).prop_map(|(a, f, more)| span(a, f, f + more)), 0..10)
}

fn model(spans: &[Span]) -> BTreeSet<Dot> {
    spans.iter().flat_map(|s| (s.first..=s.last).map(|c| Dot { actor: s.actor, counter: c })).collect()
}

fn set(spans: &[Span]) -> GrowableDotSet {
    let Ok(set) = DotSet::from_spans(spans.iter().copied());
    set
}

/// The dots of a set, having checked that its spans are in the one form that stands for them.
fn dots(set: &GrowableDotSet) -> BTreeSet<Dot> {
    for pair in set.spans().windows(2) {
        assert!(pair[0] < pair[1]);
        assert!(pair[0].actor < pair[1].actor || pair[0].last + 1 < pair[1].first, "{set:?}");
    }
    assert!(set.spans().iter().all(|s| s.is_valid()));
    model(set.spans())
}

/// Nor is it one's event that the other parts name.
#[test]
fn a_span_without_events_contains_none() {
    for counter in [0, 1, 2, 3, 4, u64::MAX] {
        assert_eq!(span(1, 1, 3).contains(dot(1, counter)), (1..=3).contains(&counter));
        assert!(!span(1, 0, 3).contains(dot(1, counter)), "{counter}");
        assert!(!span(1, 3, 2).contains(dot(1, counter)) && !span(1, 1, 3).contains(dot(2, counter)));
    }
}

fn relation(a: &BTreeSet<Dot>, b: &BTreeSet<Dot>) -> Causality {
    match (a.is_subset(b), b.is_subset(a)) {
        (true, true) => Causality::Equal,
        (true, false) => Causality::Before,
        (false, true) => Causality::After,
        (false, false) => Causality::Concurrent,
    }
}

proptest! {
    #[test]
    fn what_another_lacks_is_the_difference((ours, theirs) in (spans(), spans())) {
        let missing: Vec<Span> = set(&ours).without(&set(&theirs)).collect();
        let difference: BTreeSet<Dot> = model(&ours).difference(&model(&theirs)).copied().collect();
        prop_assert_eq!(missing.iter().map(|s| s.last - s.first + 1).sum::<u64>(), difference.len() as u64);
        prop_assert_eq!(dots(&set(&missing)), difference);
        let ends: Vec<Span> = [span(0, 1, u64::MAX)].to_vec();
        prop_assert_eq!(set(&ends).without(&set(&ends)).count(), 0);
    }

    #[test]
    fn holds_exactly_the_dots_put_in(spans in spans()) {
        let (set, model) = (set(&spans), model(&spans));
        prop_assert_eq!(&dots(&set), &model);
        for actor in 0..4 {
            for counter in 0..18 {
                prop_assert_eq!(set.contains(dot(actor, counter)), model.contains(&dot(actor, counter)));
            }
            let last = model.iter().filter(|d| d.actor == Actor(actor)).map(|d| d.counter).max();
            prop_assert_eq!(set.last_of(Actor(actor)), last);
        }
    }

    #[test]
    fn a_span_is_contained_if_all_its_dots_are(spans in spans(), asked in (0..4u64, 0..14u64, 0..6u64)) {
        let (set, model) = (set(&spans), model(&spans));
        let asked = span(asked.0, asked.1, asked.1 + asked.2);
        let all = (asked.first..=asked.last).all(|c| model.contains(&dot(asked.actor.0, c)));
        prop_assert_eq!(set.contains_span(asked), all);
    }

    #[test]
    fn union_inclusion_and_comparison_are_those_of_sets(a in spans(), b in spans()) {
        let (mut left, right) = (set(&a), set(&b));
        let (plain_left, plain_right) = (model(&a), model(&b));
        prop_assert_eq!(left.includes(&right), plain_right.is_subset(&plain_left));
        prop_assert_eq!(left.compare(&right), relation(&plain_left, &plain_right));
        prop_assert_eq!(left.compare(&right), right.compare(&left).reverse());
        prop_assert_eq!(left == right, plain_left == plain_right);
        let Ok(changed) = left.union(&right);
        prop_assert_eq!(changed, !plain_right.is_subset(&plain_left));
        prop_assert_eq!(dots(&left), plain_left.union(&plain_right).copied().collect::<BTreeSet<_>>());
    }

    #[test]
    fn the_fixed_form_does_the_same_or_says_full_and_stays(a in spans(), b in spans()) {
        let mut fixed = FixedDotSet::<4>::new();
        let mut grown = GrowableDotSet::new();
        for s in a {
            let before = fixed.clone();
            match fixed.insert_span(s) {
                Ok(()) => { let Ok(()) = grown.insert_span(s); }
                Err(Full) => {
                    let mut more = grown.clone();
                    let Ok(()) = more.insert_span(s);
                    prop_assert!(more.spans().len() > 4);
                    prop_assert_eq!(&before, &fixed);
                }
            }
            prop_assert_eq!(fixed.spans(), grown.spans());
        }
        let Ok(other) = GrowableDotSet::from_spans(b.iter().copied());
        if let Ok(other_fixed) = FixedDotSet::<4>::from_spans(b) {
            let before = fixed.clone();
            let Ok(changed) = grown.union(&other);
            match fixed.union(&other_fixed) {
                Ok(fixed_changed) => {
                    prop_assert_eq!(fixed_changed, changed);
                    prop_assert_eq!(fixed.spans(), grown.spans());
                }
                Err(Full) => {
                    prop_assert!(grown.spans().len() > 4);
                    prop_assert_eq!(before, fixed);
                }
            }
        }
    }

    #[test]
    fn survives_encoding(spans in spans()) {
        let set = set(&spans);
        let bytes = postcard::to_allocvec(&set).unwrap();
        prop_assert_eq!(&postcard::from_bytes::<GrowableDotSet>(&bytes).unwrap(), &set);
        let text = serde_json::to_string(&set).unwrap();
        prop_assert_eq!(&serde_json::from_str::<GrowableDotSet>(&text).unwrap(), &set);
    }

    #[test]
    fn whatever_decodes_is_canonical(spans in prop::collection::vec((0..3u8, 0..9u8, 0..4u8), 0..6)) {
        let mut bytes = vec![u8::try_from(spans.len()).unwrap()];
        for (actor, first, more) in spans {
            bytes.extend([actor, 0, 0, 0, 0, 0, 0, 0, first, more]);
        }
        if let Ok(decoded) = postcard::from_bytes::<GrowableDotSet>(&bytes) {
            prop_assert_eq!(&set(decoded.spans()), &decoded);
            dots(&decoded);
            prop_assert_eq!(postcard::to_allocvec(&decoded).unwrap(), bytes);
        }
    }
}

#[test]
fn the_ends_of_the_counters_are_dots_like_others() {
    let Ok(mut set) = GrowableDotSet::from_spans([span(1, 1, 1), span(1, u64::MAX, u64::MAX)]);
    assert_eq!(set.spans().len(), 2);
    let Ok(()) = set.insert_span(span(1, 2, u64::MAX - 1));
    assert_eq!(set.spans(), [span(1, 1, u64::MAX)]);
    let Ok(()) = set.insert(dot(1, u64::MAX));
    assert_eq!(set.spans(), [span(1, 1, u64::MAX)]);
}

#[test]
fn spans_without_events_are_in_no_set() {
    let none = [span(1, 0, 5), span(1, 3, 2), span(1, 0, 0), span(1, 0, u64::MAX), span(1, u64::MAX, 1)];
    let Ok(set) = GrowableDotSet::from_spans(none);
    assert!(set.is_empty());
    // Nor do they take room in a full one, or join what stands beside them.
    let held = [span(1, 1, 1), span(1, 4, 4)];
    let mut full = FixedDotSet::<2>::from_spans(held).unwrap();
    for nothing in none {
        assert_eq!(full.insert_span(nothing), Ok(()));
    }
    assert_eq!(full.insert(dot(2, 0)), Ok(()));
    assert_eq!(full.spans(), held);
    // What they would claim can't be written down either.
    assert!(postcard::to_allocvec(&dot(1, 0)).is_err());
    assert!(none.iter().all(|span| postcard::to_allocvec(span).is_err()));
    let Ok(all) = GrowableDotSet::from_spans([span(1, 1, u64::MAX)]);
    assert!(!all.contains(dot(1, 0)));
    assert!(!all.contains_span(span(1, 0, 4)));
    assert!(!all.contains_span(span(1, 4, 3)));
}

#[test]
fn a_claimed_length_takes_no_memory() {
    // 2^63 spans claimed, none there: fails at the first missing one instead of reserving room.
    let mut bytes = vec![0xff; 9];
    bytes.push(0x01);
    assert!(postcard::from_bytes::<GrowableDotSet>(&bytes).is_err());
}

/// In whatever order they come, it takes a sort, no more: one by one, it had not ended after a minute.
#[test]
fn a_million_spans_in_any_order() {
    let many = if cfg!(debug_assertions) { 200_000 } else { 1_000_000 };
    let spans = |step: u64| (0..many).map(move |at| 1 + 2 * (at * step % many)).map(|n| span(1, n, n));
    let sorted = GrowableDotSet::from_sorted_spans(spans(1)).unwrap();
    let Ok(descending) = GrowableDotSet::from_spans(spans(many - 1));
    let Ok(scattered) = GrowableDotSet::from_spans(spans(7919));
    assert!(descending == sorted && scattered == sorted);
    // What comes again takes no room, and what lies between all makes one of them.
    let all =
        spans(7919).chain(spans(many - 1)).chain((0..many).rev().map(|n| span(1, 2 * n + 2, 2 * n + 2)));
    let Ok(all) = GrowableDotSet::from_spans(all);
    assert_eq!(all.spans(), [span(1, 1, 2 * many)]);
}

/// A fixed form that is full before it is sorted, or stays more than half full.
#[test]
fn a_fixed_form_takes_what_fits_in_any_order() {
    for len in 0..=8_u64 {
        let spans = (0..len).rev().chain(0..len).chain((0..len).rev()).map(|n| span(1, 1 + 2 * n, 1 + 2 * n));
        let set = FixedDotSet::<8>::from_spans(spans.clone()).unwrap();
        assert!(set.spans().iter().copied().eq((0..len).map(|n| span(1, 1 + 2 * n, 1 + 2 * n))));
        let more = spans.chain([span(2, 1, 1)]);
        assert_eq!(FixedDotSet::<8>::from_spans(more).is_ok(), len < 8);
    }
}

/// What a fixed form needs room for depends on the order, as `from_spans` says.
#[test]
fn spans_in_ascending_order_need_the_least_room() {
    let from = |counters: [u64; 5]| {
        FixedDotSet::<2>::from_spans(counters.map(|counter| Dot { actor: Actor(1), counter }.span()))
    };
    assert_eq!(from([1, 2, 3, 4, 5]).unwrap().spans().len(), 1);
    assert_eq!(from([1, 3, 5, 2, 4]), Err(Full));
    let roomy = [1, 3, 5, 2, 4].map(|counter| Dot { actor: Actor(1), counter }.span());
    assert_eq!(FixedDotSet::<5>::from_spans(roomy).unwrap().spans().len(), 1);
}
