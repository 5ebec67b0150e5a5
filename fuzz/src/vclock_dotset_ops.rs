//! Dot sets against a plain set of dots, and the fixed form against the growable one.

use crate::source::Source;
use gramme_vclock::{Actor, Causality, Dot, FixedDotSet, GrowableDotSet, Span};
use std::collections::BTreeSet;

type Model = BTreeSet<Dot>;
type Fixed = FixedDotSet<5>;

/// Operations on three sets at once.
///
/// # Panics
/// If a set and its model disagree.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let mut sets: [(GrowableDotSet, Model); 3] = Default::default();
    let mut fixed = (Fixed::new(), Model::new());
    for _ in 0..400 {
        if source.is_empty() {
            break;
        }
        let (operation, at, other) = (source.byte(), source.below(3), source.below(3));
        match operation % 6 {
            0 => {
                let dot = dot(&mut source);
                let Ok(()) = sets[at].0.insert(dot);
                insert(&mut sets[at].1, dot.span());
            }
            1 => {
                let span = span(&mut source);
                let Ok(()) = sets[at].0.insert_span(span);
                insert(&mut sets[at].1, span);
            }
            2 => {
                let from = sets[other].clone();
                let Ok(changed) = sets[at].0.union(&from.0);
                assert_eq!(changed, !from.1.is_subset(&sets[at].1));
                sets[at].1.extend(from.1);
            }
            3 => {
                let bytes = postcard::to_allocvec(&sets[at].0).expect("a set has an encoding");
                assert_eq!(postcard::from_bytes::<GrowableDotSet>(&bytes).as_ref(), Ok(&sets[at].0));
                let room = postcard::from_bytes::<Fixed>(&bytes);
                assert_eq!(room.is_ok(), sets[at].0.spans().len() <= 5);
            }
            4 => {
                // The fixed form does the same, or nothing.
                let before = fixed.0.clone();
                let span = span(&mut source);
                let mut after = fixed.1.clone();
                insert(&mut after, span);
                match fixed.0.insert_span(span) {
                    Ok(()) => fixed.1 = after,
                    Err(_) => assert!(fixed.0 == before && runs(&after) > 5),
                }
            }
            _ => {
                let before = fixed.0.clone();
                let from = Fixed::from_spans(sets[at].0.spans().iter().copied());
                assert_eq!(from.is_ok(), runs(&sets[at].1) <= 5);
                let Ok(from) = from else { continue };
                let after: Model = fixed.1.union(&sets[at].1).copied().collect();
                match fixed.0.union(&from) {
                    Ok(changed) => {
                        assert_eq!(changed, after != fixed.1);
                        fixed.1 = after;
                    }
                    Err(_) => assert!(fixed.0 == before && runs(&after) > 5),
                }
            }
        }
        agree(fixed.0.spans(), &fixed.1);
        agree(sets[at].0.spans(), &sets[at].1);
        let probe = span(&mut source);
        let (set, model) = &sets[at];
        assert_eq!(set.contains_span(probe), probe.is_valid() && dots(probe).all(|d| model.contains(&d)));
        let probe = dot(&mut source);
        assert_eq!(set.contains(probe), model.contains(&probe));
        let last = model.iter().filter(|d| d.actor == probe.actor).map(|d| d.counter).max();
        assert_eq!(set.last_of(probe.actor), last);
        let (left, right) = (set.includes(&sets[other].0), sets[other].0.includes(set));
        assert_eq!((left, right), (model.is_superset(&sets[other].1), model.is_subset(&sets[other].1)));
        assert_eq!(set == &sets[other].0, model == &sets[other].1);
        let expected = match (left, right) {
            (true, true) => Causality::Equal,
            (true, false) => Causality::After,
            (false, true) => Causality::Before,
            (false, false) => Causality::Concurrent,
        };
        assert_eq!(set.compare(&sets[other].0), expected);
    }
}

/// Few enough counters to collide, at both ends of the range.
fn counter(source: &mut Source<'_>) -> u64 {
    match source.byte() {
        low @ 0..64 => u64::from(low),
        high @ 192.. => u64::MAX - u64::from(255 - high),
        middle => 1_000 + u64::from(middle),
    }
}

fn dot(source: &mut Source<'_>) -> Dot {
    Dot { actor: Actor(source.below(3) as u64), counter: counter(source) }
}

/// A short span, now and then one that names no events.
fn span(source: &mut Source<'_>) -> Span {
    let Dot { actor, counter: first } = dot(source);
    let last = match source.byte() {
        255 => first.wrapping_sub(1),
        more => first.saturating_add(u64::from(more % 12)),
    };
    Span { actor, first, last }
}

fn dots(span: Span) -> impl Iterator<Item = Dot> {
    // A span that names no events has none, not even one numbered 0.
    let last = span.is_valid().then_some(span.last);
    last.into_iter()
        .flat_map(move |last| span.first..=last)
        .map(move |counter| Dot { actor: span.actor, counter })
}

fn insert(model: &mut Model, span: Span) {
    model.extend(dots(span));
}

/// The spans name the model's dots, and could not be fewer.
fn agree(spans: &[Span], model: &Model) {
    assert!(spans.iter().copied().flat_map(dots).eq(model.iter().copied()), "{spans:?} for {model:?}");
    assert_eq!(spans.len(), runs(model), "{spans:?} touch");
}

/// How many runs of consecutive dots there are.
fn runs(model: &Model) -> usize {
    let starts = |dot: &&Dot| !model.contains(&Dot { counter: dot.counter.wrapping_sub(1), ..**dot });
    model.iter().filter(starts).count()
}
