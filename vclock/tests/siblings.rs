//! Siblings, case by case.

mod common;

use common::minter;
use gramme_vclock::{
    Actor, Causality, Dot, FixedDotSet, FixedSiblings, Full, GrowableDotSet, GrowableSiblings, Malformed,
    Minter, Span, WriteError,
};

type Object = GrowableSiblings<&'static str>;

const A: Actor = Actor(0xa);
const B: Actor = Actor(0xb);

fn dot(actor: Actor, counter: u64) -> Dot {
    Dot { actor, counter }
}

fn span(actor: Actor, first: u64, last: u64) -> Span {
    Span { actor, first, last }
}

fn set(spans: &[Span]) -> GrowableDotSet {
    let Ok(set) = GrowableDotSet::from_spans(spans.iter().copied());
    set
}

fn write(object: &mut Object, context: &GrowableDotSet, dot: Dot, value: &'static str) -> GrowableDotSet {
    let written = object.write(context, &mut minter(dot.actor, dot.counter - 1, 0), value).unwrap();
    assert_eq!(written.dot, dot);
    written.context
}

fn values(object: &Object) -> Vec<&'static str> {
    object.iter().map(|(_, value)| *value).collect()
}

fn merged(a: &Object, b: &Object) -> Object {
    let mut all = a.clone();
    let Ok(_) = all.merge(b.clone());
    all
}

#[test]
fn a_write_replaces_what_its_context_covers_and_nothing_else() {
    let mut object = Object::new();
    let first = write(&mut object, &GrowableDotSet::new(), dot(A, 1), "red");
    write(&mut object, &GrowableDotSet::new(), dot(A, 2), "blue");
    assert_eq!(values(&object), ["red", "blue"]);
    write(&mut object, &first, dot(A, 3), "crimson");
    assert_eq!(values(&object), ["blue", "crimson"]);
    let read = object.seen().clone();
    write(&mut object, &read, dot(A, 4), "purple");
    assert_eq!(values(&object), ["purple"]);
    assert_eq!(object.seen(), &set(&[span(A, 1, 4)]));
}

#[test]
fn a_replaced_value_does_not_come_back() {
    let mut old = Object::new();
    write(&mut old, &GrowableDotSet::new(), dot(A, 1), "old");
    let mut new = old.clone();
    write(&mut new, &old.seen().clone(), dot(B, 1), "new");
    assert_eq!(old.compare(&new), Causality::Before);
    assert_eq!(values(&merged(&new, &old)), ["new"]);
    assert_eq!(values(&merged(&old, &new)), ["new"]);
}

#[test]
fn a_history_without_values_still_replaces() {
    let mut live = Object::new();
    write(&mut live, &GrowableDotSet::new(), dot(A, 1), "gone");
    let mut dead = live.clone();
    let Ok(removed) = dead.discard(&live.seen().clone());
    assert_eq!(removed, 1);
    assert!(!dead.is_empty());
    assert_eq!(dead.len(), 0);
    // Their histories are equal, but the one without the value knows more.
    assert_eq!((live.compare(&dead), dead.compare(&live)), (Causality::Before, Causality::After));
    assert_eq!(merged(&live, &dead), dead);
    assert_eq!(merged(&dead, &live), dead);
    // A concurrent value is not touched.
    let mut other = Object::new();
    write(&mut other, &GrowableDotSet::new(), dot(B, 1), "kept");
    assert_eq!(values(&merged(&dead, &other)), ["kept"]);
    assert_eq!(merged(&dead, &other), merged(&other, &dead));
}

#[test]
fn a_merge_says_whether_it_changed_anything() {
    let mut a = Object::new();
    write(&mut a, &GrowableDotSet::new(), dot(A, 1), "a");
    let mut b = a.clone();
    write(&mut b, &GrowableDotSet::new(), dot(B, 1), "b");
    let merge = |into: &Object, from: &Object| {
        let Ok(merged) = into.clone().merge(from.clone());
        merged.changed
    };
    assert!(merge(&a, &b));
    assert!(!merge(&b, &a));
    assert!(!merge(&a, &a));
    assert!(!merge(&a, &Object::new()));
    let mut gone = a.clone();
    let Ok(_) = gone.discard(&a.seen().clone());
    assert!(merge(&a, &gone), "only the value goes, the history is the same");
    assert!(!merge(&gone, &a));
}

#[test]
fn keeping_one_sibling_sees_the_others_out() {
    let mut object = Object::new();
    write(&mut object, &GrowableDotSet::new(), dot(A, 1), "loser");
    write(&mut object, &GrowableDotSet::new(), dot(B, 1), "winner");
    let before = object.clone();
    assert_eq!(object.keep_only(dot(B, 2)), None, "there is no such value");
    assert_eq!(object, before);
    assert_eq!(object.keep_only(dot(B, 1)), Some(1));
    assert_eq!(values(&merged(&object, &before)), ["winner"]);
}

#[test]
fn a_span_is_extended_only_while_the_key_was_held() {
    // Counter 7 was this key's, then others of the slot, then 12 is this key's again.
    let mut object = Object::new();
    write(&mut object, &GrowableDotSet::new(), dot(A, 7), "seven");
    let mut held = object.clone();
    held.write(&GrowableDotSet::new(), &mut minter(A, 11, 6), "twelve").unwrap();
    assert_eq!(held.seen(), &set(&[span(A, 7, 12)]));
    // The store dropped some copy in the slot when its counter stood at 7 or later: 8 to 11 may be this key's.
    for since in [7, 9, 11] {
        let mut dropped = object.clone();
        dropped.write(&GrowableDotSet::new(), &mut minter(A, 11, since), "twelve").unwrap();
        assert_eq!(dropped.seen(), &set(&[span(A, 7, 7), span(A, 12, 12)]), "since {since}");
    }
    // Another actor's span is never extended, nor by a context that tells of dots of ours.
    let mut new = Object::new();
    write(&mut new, &set(&[span(A, 3, 3), span(B, 1, 1)]), dot(A, 9), "nine");
    assert_eq!(new.seen(), &set(&[span(A, 3, 3), span(A, 9, 9), span(B, 1, 1)]));
}

#[test]
fn a_write_over_dots_that_were_never_minted_is_refused() {
    let mut minter = minter(A, 4, 0);
    let mut object = Object::new();
    let before = object.clone();
    let ahead = set(&[span(A, 1, 5), span(B, 1, 9)]);
    assert!(minter.is_behind(&ahead) && !minter.is_behind(&set(&[span(A, 1, 4), span(B, 1, 9)])));
    assert_eq!(object.write(&ahead, &mut minter, "hidden").err(), Some(WriteError::Ahead));
    assert_eq!((&object, minter.minted()), (&before, 4));
    // Believed, dot 5 would have been born replaced.
    let told = Object::from_parts([], ahead.clone()).unwrap();
    // However the history came here: the write is refused, and no later one is lost either.
    let (mut merged, mut discarded) = (Object::new(), Object::new());
    merged.merge(told.clone()).unwrap();
    discarded.discard(&ahead).unwrap();
    for mut object in [told, merged, discarded] {
        let refused = object.write(&GrowableDotSet::new(), &mut minter, "hidden");
        assert_eq!((refused.err(), minter.minted(), object.len()), (Some(WriteError::Ahead), 4, 0));
    }
}

#[test]
fn a_context_is_flattened_only_over_what_was_replaced_here() {
    let mut object = Object::new();
    let mine = write(&mut object, &GrowableDotSet::new(), dot(A, 1), "mine 1");
    let theirs = write(&mut object, &GrowableDotSet::new(), dot(A, 2), "theirs 2");
    let mine = write(&mut object, &mine, dot(A, 3), "mine 3");
    // 2 is live: the gap stays open.
    assert_eq!(mine, set(&[span(A, 1, 1), span(A, 3, 3)]));
    write(&mut object, &theirs, dot(A, 4), "theirs 4");
    // 2 was replaced: its gap is filled; 4 is live.
    let mine = write(&mut object, &mine, dot(A, 5), "mine 5");
    assert_eq!(mine, set(&[span(A, 1, 3), span(A, 5, 5)]));
    // A store that has not seen 4 leaves its gap alone, though it has no value there.
    let mut elsewhere = Object::new();
    let mine = write(&mut elsewhere, &mine, dot(B, 1), "mine b1");
    assert_eq!(mine, set(&[span(A, 1, 3), span(A, 5, 5), span(B, 1, 1)]));
    assert_eq!(values(&merged(&object, &elsewhere)), ["theirs 4", "mine b1"]);
}

#[test]
fn the_fixed_form_says_full_and_stays_as_it_was() {
    type Fixed = FixedSiblings<&'static str, 2, 2>;
    let none = FixedDotSet::<2>::new();
    let (mut a, mut b) = (Minter::new(A), Minter::new(B));
    let mut object = Fixed::new();
    object.write(&none, &mut a, "one").unwrap();
    object.write(&none, &mut a, "two").unwrap();
    let before = object.clone();
    let no_room = Some(WriteError::Full(Full));
    assert_eq!(object.write(&none, &mut a, "three").err(), no_room, "no room for a value");
    assert_eq!((&object, a.minted()), (&before, 2));
    let mut other = Fixed::new();
    other.write(&none, &mut b, "b").unwrap();
    assert_eq!(object.merge(other.clone()), Err(Full), "no room for a merged value");
    assert_eq!(object, before);
    // One value would go, two would come: not even the one goes.
    let seen = FixedDotSet::from_spans([span(A, 1, 1), span(B, 1, 2)]).unwrap();
    let replacing = Fixed::from_parts([(dot(B, 1), "b1"), (dot(B, 2), "b2")], seen).unwrap();
    assert_eq!(object.merge(replacing), Err(Full), "no room for what replaces");
    assert_eq!(object, before);
    other.discard(&FixedDotSet::from_spans([span(A, 5, 5)]).unwrap()).unwrap();
    assert_eq!(object.discard(other.seen()), Err(Full), "no room for a span");
    assert_eq!(object, before);
    // Replacing needs no further room.
    let seen = object.seen().clone();
    assert_eq!(object.write(&seen, &mut a, "three").unwrap().dot, dot(A, 3));
    assert_eq!(object.len(), 1);
}

#[test]
fn parts_are_checked() {
    let entries = [(dot(A, 1), "a1"), (dot(B, 3), "b3")];
    let seen = set(&[span(A, 1, 2), span(B, 3, 3)]);
    let object = Object::from_parts(entries, seen.clone()).unwrap();
    let (list, history) = object.clone().into_parts();
    assert_eq!(Object::from_parts(list, history), Ok(object));
    assert_eq!(Object::from_parts([entries[1], entries[0]], seen.clone()), Err(Malformed::Unsorted));
    assert_eq!(Object::from_parts([entries[0], entries[0]], seen.clone()), Err(Malformed::Repeated));
    assert_eq!(Object::from_parts([(dot(B, 2), "b2")], seen), Err(Malformed::Unseen(dot(B, 2))));
    let one = FixedSiblings::<_, 1, 4>::from_parts(entries, FixedDotSet::new());
    assert_eq!(one, Err(Malformed::Full));
}

#[test]
fn decoding_checks_the_same() {
    type Numbers = GrowableSiblings<u8>;
    let decode = |seen: &[(u8, u64, u64)], entries: &[(u8, u64, u8)]| {
        let actor = |a: u8| [a, 0, 0, 0, 0, 0, 0, 0];
        let seen: Vec<_> = seen.iter().map(|(a, f, m)| (actor(*a), *f, *m)).collect();
        let entries: Vec<_> = entries.iter().map(|(a, c, v)| ((actor(*a), *c), *v)).collect();
        postcard::from_bytes::<Numbers>(&postcard::to_allocvec(&(seen, entries)).unwrap())
    };
    let good = decode(&[(1, 1, 4)], &[(1, 2, 20), (1, 5, 50)]).unwrap();
    assert_eq!(good.get(dot(Actor(1), 5)), Some(&50));
    let again: Numbers = postcard::from_bytes(&postcard::to_allocvec(&good).unwrap()).unwrap();
    assert_eq!(again, good);
    let text = serde_json::to_string(&good).unwrap();
    assert_eq!(serde_json::from_str::<Numbers>(&text).unwrap(), good);
    assert!(decode(&[(1, 1, 4)], &[(1, 5, 50), (1, 2, 20)]).is_err(), "unsorted");
    assert!(decode(&[(1, 1, 4)], &[(1, 2, 20), (1, 2, 20)]).is_err(), "repeated");
    assert!(decode(&[(1, 1, 4)], &[(1, 6, 60)]).is_err(), "unseen");
    assert!(decode(&[(1, 1, 4)], &[(2, 1, 10)]).is_err(), "unseen actor");
    assert!(decode(&[(1, 1, 4)], &[(1, 0, 10)]).is_err(), "counter 0");
    let bytes = postcard::to_allocvec(&good).unwrap();
    assert!(postcard::from_bytes::<FixedSiblings<u8, 1, 1>>(&bytes).is_err(), "capacity exceeded");
    assert!(postcard::from_bytes::<FixedSiblings<u8, 2, 1>>(&bytes).is_ok());
}

/// As many siblings as gaps between what the writer has seen: each gap is looked up, not searched through all. (Of so many, minutes.)
#[test]
fn a_write_over_many_gaps_among_many_siblings_takes_no_quadratic_time() {
    let count = 200_000;
    let mut object: GrowableSiblings<()> =
        GrowableSiblings::from_parts((1..=count).map(|n| (dot(A, 2 * n), ())), set(&[span(A, 1, 2 * count)]))
            .unwrap();
    let Ok(context) = GrowableDotSet::from_spans((1..=count).map(|n| span(A, 2 * n - 1, 2 * n - 1)));
    let written = object.write(&context, &mut minter(A, 2 * count, 0), ()).unwrap();
    assert_eq!((object.len() as u64, written.context.spans().len() as u64), (count + 1, count + 1));
}
