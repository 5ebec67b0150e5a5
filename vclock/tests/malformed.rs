//! Bad input has a name, whether it is decoded or handed in.

use gramme_vclock::{
    Actor, Checked, Dot, Entry, FixedContext, FixedDotSet, FixedSiblings, FixedTimedVector,
    FixedVersionVector, GrowableDotSet, GrowableSiblings, GrowableVersionVector, Malformed, Span, Stamp,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Debug;

const A: Actor = Actor(0xa);
const B: Actor = Actor(0xb);

/// Decodes the encoding of such parts, through postcard and through a format that keeps texts: refused in both, and by this
/// name.
fn refused<T>(parts: impl Serialize, name: Malformed)
where
    T: DeserializeOwned + Debug + PartialEq,
    Checked<T>: DeserializeOwned,
{
    // Something stands behind it, which must be found where it is.
    let bytes = postcard::to_allocvec(&(&parts, 0x5a_u8)).unwrap();
    assert!(postcard::from_bytes::<T>(&bytes).is_err());
    assert_eq!(postcard::from_bytes::<(Checked<T>, u8)>(&bytes).unwrap(), (Checked(Err(name)), 0x5a));
    let text = counters_as_text(serde_json::to_value(&parts).unwrap()).to_string();
    assert_eq!(serde_json::from_str::<Checked<T>>(&text).unwrap(), Checked(Err(name)));
    let said = serde_json::from_str::<T>(&text).unwrap_err().to_string();
    assert!(said.starts_with(&name.to_string()), "{name:?} expected: {said}");
}

/// The numbers that stand behind an actor as they are in formats for people.
fn counters_as_text(parts: Value) -> Value {
    match parts {
        Value::Array(list) if list.first().is_some_and(Value::is_string) => {
            let text = |part: Value| if part.is_number() { part.to_string().into() } else { part };
            list.into_iter().map(text).collect()
        }
        Value::Array(list) => list.into_iter().map(counters_as_text).collect(),
        other => other,
    }
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
        refused::<Two>(entries.iter().map(|(a, c)| (a, c, ())).collect::<Vec<_>>(), name);
    }
    let entries = [Entry { actor: A, counter: u64::MAX, at: () }, Entry { actor: B, counter: 1, at: () }];
    assert_eq!(GrowableVersionVector::from_entries(entries).unwrap().entries(), entries);
}

#[test]
fn a_timed_vector_of_bad_entries() {
    type Two = FixedTimedVector<2>;
    refused::<Two>([(A, 1_u64, Raw(1 << 63))].as_slice(), Malformed::StampOutOfRange);
    refused::<Two>([(A, 1_u64, Raw(7)), (B, 1, Raw(u64::MAX))].as_slice(), Malformed::StampOutOfRange);
    refused::<Two>([(B, 1_u64, Raw(7)), (A, 1, Raw(7))].as_slice(), Malformed::Unsorted);
    refused::<Entry>((A, 0_u64, ()), Malformed::CounterZero);
    refused::<Entry<Stamp>>((A, 0_u64, Raw(7)), Malformed::CounterZero);
    refused::<Entry<Stamp>>((A, 1_u64, Raw(1 << 63)), Malformed::StampOutOfRange);
    // What is wrong first, whatever follows.
    refused::<Two>([(A, 0_u64, Raw(7)), (B, 1, Raw(1 << 63))].as_slice(), Malformed::CounterZero);
    let last = postcard::to_allocvec(&[(A, 1_u64, Raw((1 << 63) - 1))].as_slice()).unwrap();
    let read: Two = postcard::from_bytes(&last).unwrap();
    assert_eq!(read.entries(), [Entry { actor: A, counter: 1, at: Stamp::MAX }]);
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
        refused::<Two>(parts, name);
    }
    assert_eq!(Two::from_sorted_spans([span(A, 2, 1)]), Err(Malformed::CounterOverflow));
    refused::<Two>(vec![(A, 2_u64, u64::MAX - 1)], Malformed::CounterOverflow);
    let spans = [span(A, 1, 5), span(A, 7, u64::MAX), span(B, 1, 1)];
    assert_eq!(GrowableDotSet::from_sorted_spans(spans).unwrap().spans(), spans);
}

#[test]
fn an_object_of_bad_parts() {
    type Two = FixedSiblings<u8, 2, 2>;
    let seen = vec![(A, 1_u64, 4_u64)];
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
        refused::<Two>((&seen, dots.iter().map(|dot| (dot, 7_u8)).collect::<Vec<_>>()), name);
    }
    refused::<GrowableSiblings<u8>>((&seen, vec![((A, 0_u64), 7_u8)]), Malformed::CounterZero);
    refused::<Dot>((A, 0_u64), Malformed::CounterZero);
    refused::<GrowableSiblings<u8>>(
        (vec![(A, 2_u64, 0_u64), (A, 1, 0)], vec![((A, 0_u64), 7_u8)]),
        Malformed::Unsorted,
    );
}

#[test]
fn a_context_or_a_stamp_out_of_range() {
    refused::<Stamp>(Raw(1 << 63), Malformed::StampOutOfRange);
    refused::<FixedContext<2>>((vec![(A, 1_u64, 0_u64)], Raw(u64::MAX)), Malformed::StampOutOfRange);
    refused::<FixedContext<2>>((vec![(A, 0_u64, 0_u64)], Raw(7)), Malformed::CounterZero);
    for text in [
        "5",
        "\"5\"",
        "\"5.\"",
        "\".5\"",
        "\"05.1\"",
        "\"5.01\"",
        "\"+5.1\"",
        "\"5.1.1\"",
        "\"5.-1\"",
        "\"00.1\"",
        "\"5.00\"",
    ] {
        assert!(serde_json::from_str::<Checked<Stamp>>(text).is_err(), "{text}");
    }
    // A count beyond its bits, and milliseconds beyond any number.
    for text in ["\"5.65536\"", "\"99999999999999999999.0\""] {
        let Checked(read) = serde_json::from_str::<Checked<Stamp>>(text).unwrap();
        assert_eq!(read, Err(Malformed::StampOutOfRange), "{text}");
    }
    for stamp in [Stamp::ZERO, Stamp::from_parts(1_790_000_000_000, 3), Stamp::MAX] {
        assert_eq!(stamp.to_string().parse(), Ok(stamp));
        assert_eq!(serde_json::to_string(&stamp).unwrap(), format!("\"{stamp}\""));
    }
}

/// What no decoder takes, nothing writes.
#[test]
fn what_names_no_event_is_not_written() {
    fn refused(value: &impl Serialize) {
        assert!(postcard::to_allocvec(value).is_err());
        assert!(serde_json::to_string(value).unwrap_err().to_string().contains("has no encoding"));
    }
    refused(&Dot { actor: A, counter: 0 });
    refused(&Span { actor: A, first: 0, last: 3 });
    refused(&Span { actor: A, first: 3, last: 2 });
    refused(&Entry { actor: A, counter: 0, at: () });
    refused(&Entry { actor: A, counter: 0, at: Stamp::ZERO });
}

/// In JSON a number above 2^53 is another to many readers: a counter is text there, in one spelling.
#[test]
fn in_json_counters_are_text() {
    let dot = |counter| Dot { actor: A, counter };
    for counter in [1, 10, 1 << 53, u64::MAX] {
        let text = format!("[\"{A}\",\"{counter}\"]");
        assert_eq!(serde_json::to_string(&dot(counter)).unwrap(), text);
        assert_eq!(serde_json::from_str::<Dot>(&text).unwrap(), dot(counter));
    }
    for spelling in
        ["1", "\"\"", "\"01\"", "\"+1\"", "\"-1\"", "\" 1\"", "\"1.0\"", "\"18446744073709551616\""]
    {
        assert!(serde_json::from_str::<Dot>(&format!("[\"{A}\",{spelling}]")).is_err(), "{spelling}");
    }
}

/// A raw stamp, whatever its value, as a stamp is written.
struct Raw(u64);

impl Serialize for Raw {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(&format_args!("{}.{}", self.0 >> 16, self.0 & 0xffff))
        } else {
            self.0.serialize(serializer)
        }
    }
}

#[test]
fn what_cannot_be_read_is_the_formats_error() {
    assert!(postcard::from_bytes::<Checked<GrowableDotSet>>(&[1, 0xa]).is_err());
    let set = GrowableDotSet::from_sorted_spans([Span { actor: A, first: 1, last: 5 }]).unwrap();
    let bytes = postcard::to_allocvec(&set).unwrap();
    assert_eq!(postcard::from_bytes::<Checked<GrowableDotSet>>(&bytes).unwrap(), Checked(Ok(set)));
}
