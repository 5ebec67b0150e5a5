//! What the standard library's traits say of these types.

use gramme_vclock::{
    Actor, Buf, Causality, Dot, FixedContext, FixedDotSet, FixedSiblings, GrowableSiblings, InlineVec,
    Minter, ParseActorError, Stamp,
};
use proptest::prelude::*;
use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};

fn hash(value: impl Hash) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(value)
}

fn list(items: impl IntoIterator<Item = u8>) -> InlineVec<u8, 3> {
    let mut list = InlineVec::new();
    for item in items {
        let Ok(()) = list.push(item);
    }
    list
}

#[test]
fn an_inline_list_is_its_elements_wherever_they_stand() {
    let inline = list([1, 2, 3]);
    let mut heap = list([1, 2, 3, 4]);
    heap.truncate(3);
    assert!(heap.spilled() && !inline.spilled());
    assert_eq!(inline, heap);
    assert_eq!(hash(&inline), hash(&heap));
    assert_eq!(hash(&inline), hash([1_u8, 2, 3].as_slice()), "as a slice is");
    assert_ne!(inline, list([1, 2]));
    // All that slices can do.
    heap.reverse();
    assert_eq!((heap.len(), heap.first(), &heap[1..]), (3, Some(&3), &[2, 1][..]));
    assert!((&heap).into_iter().copied().eq([3, 2, 1]));
}

#[test]
fn an_inline_list_is_taken_apart_from_both_ends() {
    for count in [0_u8, 1, 3, 4, 9] {
        let mut rest = list(0..count).into_iter();
        let (mut first, mut last) = (0, count);
        while first < last {
            assert_eq!(rest.len(), usize::from(last - first));
            assert_eq!(rest.next(), Some(first));
            first += 1;
            if first < last {
                last -= 1;
                assert_eq!(rest.next_back(), Some(last));
            }
        }
        assert_eq!((rest.len(), rest.next(), rest.next_back()), (0, None, None));
    }
}

#[test]
fn objects_of_the_same_writes_are_one_key_of_a_map() {
    let (mut one, mut other) = (Minter::new(Actor(1)), Minter::new(Actor(2)));
    let blind = FixedDotSet::new();
    let (mut a, mut b) = (FixedSiblings::<_, 2, 2>::new(), FixedSiblings::<_, 2, 2>::new());
    a.write(&blind, &mut one, "ann").unwrap();
    b.write(&blind, &mut other, "bob").unwrap();
    let mut merged = [a.clone(), b.clone()];
    merged[0].merge(b.clone()).unwrap();
    merged[1].merge(a.clone()).unwrap();
    assert_eq!(HashSet::from(merged.clone()).len(), 1);
    assert_eq!(HashSet::from([a, b, merged[0].clone()]).len(), 3);

    // What was replaced is a part of it, and so is the stamp of a context.
    let (mut discarded, [_, gone]) = (merged[0].clone(), merged);
    discarded.discard(gone.seen()).unwrap();
    assert_ne!(hash(&discarded), hash(FixedSiblings::<&str, 2, 2>::new()));
    let context =
        |millis| FixedContext::<2> { seen: gone.seen().clone(), stamp: Stamp::from_parts(millis, 0) };
    assert_eq!(HashSet::from([context(5), context(5), context(6)]).len(), 2);
}

#[test]
fn values_are_gone_through_in_the_order_of_their_dots() {
    let mut object = GrowableSiblings::new();
    let (mut minter, blind) = (Minter::new(Actor(7)), gramme_vclock::GrowableDotSet::new());
    for value in ["a", "b", "c"] {
        object.write(&blind, &mut minter, value).unwrap();
    }
    let mut seen = Vec::new();
    for (dot, value) in &object {
        seen.push((dot.counter, *value));
    }
    assert_eq!(seen, [(1, "a"), (2, "b"), (3, "c")]);
    let mut rest = object.iter();
    assert_eq!((rest.len(), rest.next_back()), (3, Some((Dot { actor: Actor(7), counter: 3 }, &"c"))));
    assert_eq!((rest.len(), rest.clone().count(), rest.next().map(|(_, value)| *value)), (2, 2, Some("a")));
}

#[test]
fn causality_in_words() {
    let all = [Causality::Equal, Causality::Before, Causality::After, Causality::Concurrent];
    assert_eq!(all.map(|relation| relation.to_string()), ["equal", "before", "after", "concurrent"]);
    assert_eq!(format!("[{:>7}]", Causality::After), "[  after]");
}

#[test]
fn what_is_no_actor() {
    for text in [
        "",
        "ff",
        "00000000000000FF",
        "+0000000000000ff",
        "0x000000000000ff",
        "00000000000000fg",
        "00000000000000ff0",
        " 0000000000000ff",
        "000000000000000é",
    ] {
        assert_eq!(text.parse::<Actor>(), Err(ParseActorError), "{text}");
    }
}

proptest! {
    #[test]
    fn an_actor_is_read_as_it_is_written(raw in any::<u64>()) {
        prop_assert_eq!(Actor(raw).to_string().parse(), Ok(Actor(raw)));
    }
}
