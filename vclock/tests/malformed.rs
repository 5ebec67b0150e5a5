//! Bad input has a name, whether it is decoded or handed in.

use gramme_vclock::{
    Actor, Dot, Entry, FixedDotSet, FixedSiblings, FixedVersionVector, GrowableDotSet, GrowableSiblings,
    GrowableVersionVector, Malformed, Span, Stamp,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

const A: Actor = Actor(0xa);
const B: Actor = Actor(0xb);

/// What a decoder says of the encoding of such parts, in a format that keeps texts and in postcard.
fn decoded<T: DeserializeOwned>(parts: impl Serialize) -> String {
    assert!(postcard::from_bytes::<T>(&postcard::to_allocvec(&parts).unwrap()).is_err());
    let error = serde_json::from_str::<T>(&serde_json::to_string(&parts).unwrap()).err().unwrap();
    error.to_string()
}

fn says(text: &str, name: Malformed) {
    assert!(text.starts_with(&name.to_string()), "{name:?} expected: {text}");
}

#[test]
fn a_version_vector_of_bad_entries() {
    type Two = FixedVersionVector<2>;
    let cases: [(&[(Actor, u64)], Malformed); 5] = [
        (&[(B, 1), (A, 1)], Malformed::Unsorted),
        (&[(A, 1), (A, 2)], Malformed::Repeated),
        (&[(A, 0)], Malformed::CounterZero),
        (&[(A, 1), (B, 0)], Malformed::CounterZero),
        (&[(A, 1), (B, 1), (Actor(0xc), 1)], Malformed::Full),
    ];
    for (entries, name) in cases {
        let parts =
            || entries.iter().map(|(actor, counter)| Entry { actor: *actor, counter: *counter, at: () });
        assert_eq!(Two::from_entries(parts()), Err(name));
        says(&decoded::<Two>(entries.iter().map(|(a, c)| (a, c, ())).collect::<Vec<_>>()), name);
    }
    let entries = [Entry { actor: A, counter: u64::MAX, at: () }, Entry { actor: B, counter: 1, at: () }];
    assert_eq!(GrowableVersionVector::from_entries(entries).unwrap().entries(), entries);
}

#[test]
fn a_dot_set_of_bad_spans() {
    type Two = FixedDotSet<2>;
    let span = |actor, first, last| Span { actor, first, last };
    let cases: [(&[Span], Malformed); 8] = [
        (&[span(B, 1, 1), span(A, 1, 1)], Malformed::Unsorted),
        (&[span(A, 5, 5), span(A, 1, 1)], Malformed::Unsorted),
        (&[span(A, 1, 1), span(A, 1, 1)], Malformed::Touching),
        (&[span(A, 1, 5), span(A, 3, 7)], Malformed::Touching),
        (&[span(A, 1, 1), span(A, 2, 2)], Malformed::Touching),
        (&[span(A, 1, u64::MAX), span(A, 2, 2)], Malformed::Touching),
        (&[span(A, 0, 3)], Malformed::CounterZero),
        (&[span(A, 1, 1), span(A, 3, 3), span(B, 1, 1)], Malformed::Full),
    ];
    for (spans, name) in cases {
        assert_eq!(Two::from_sorted_spans(spans.iter().copied()), Err(name), "{spans:?}");
        let parts: Vec<_> = spans.iter().map(|s| (s.actor, s.first, s.last - s.first)).collect();
        says(&decoded::<Two>(parts), name);
    }
    assert_eq!(Two::from_sorted_spans([span(A, 2, 1)]), Err(Malformed::CounterOverflow));
    says(&decoded::<Two>([(A, 2, u64::MAX - 1)]), Malformed::CounterOverflow);
    let spans = [span(A, 1, 5), span(A, 7, u64::MAX), span(B, 1, 1)];
    assert_eq!(GrowableDotSet::from_sorted_spans(spans).unwrap().spans(), spans);
}

#[test]
fn an_object_of_bad_parts() {
    type Two = FixedSiblings<u8, 2, 2>;
    let seen = [(A, 1, 4)];
    let cases: [(&[(Actor, u64)], Malformed); 5] = [
        (&[(A, 2), (A, 1)], Malformed::Unsorted),
        (&[(A, 1), (A, 1)], Malformed::Repeated),
        (&[(A, 6)], Malformed::Unseen(Dot { actor: A, counter: 6 })),
        (&[(B, 1)], Malformed::Unseen(Dot { actor: B, counter: 1 })),
        (&[(A, 1), (A, 2), (A, 3)], Malformed::Full),
    ];
    for (dots, name) in cases {
        let history = FixedDotSet::from_spans([Span { actor: A, first: 1, last: 5 }]).unwrap();
        let entries = dots.iter().map(|(actor, counter)| (Dot { actor: *actor, counter: *counter }, 7));
        assert_eq!(Two::from_parts(entries, history), Err(name));
        says(&decoded::<Two>((seen, dots.iter().map(|dot| (dot, 7)).collect::<Vec<_>>())), name);
    }
    says(&decoded::<GrowableSiblings<u8>>((seen, [((A, 0), 7)])), Malformed::CounterZero);
    assert_eq!(decoded::<Stamp>(1u64 << 63), "a raw stamp is 2^63 or more");
}
