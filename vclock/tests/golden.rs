//! The byte format and the tokens, frozen: what an older build wrote must read the same for ever.
//!
//! A line is a name and, in hexadecimal, as JSON or as a token, what it stands for. Never change a line. A new version of the
//! format gets lines of its own.

use gramme_vclock::{
    Actor, Dot, Entry, GrowableContext, GrowableDotSet, GrowableSiblings, GrowableTimedVector,
    GrowableVersionVector, SealKey, Span, Stamp,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

const A: Actor = Actor(0x0123_4567_89ab_cdef);
const B: Actor = Actor(0xfedc_ba98_7654_3210);

fn line<'a>(file: &'a str, name: &str) -> &'a str {
    let found = file.lines().filter_map(|line| line.split_once(' ')).find(|(named, _)| *named == name);
    found.unwrap_or_else(|| panic!("no golden line {name}")).1
}

fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, value: T) {
    let golden = line(include_str!("golden/postcard.txt"), name);
    let bytes = postcard::to_allocvec(&value).unwrap();
    let written: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(written, golden, "{name}");
    assert_eq!(postcard::from_bytes::<T>(&bytes).unwrap(), value, "{name}");

    // What formats for people make of it.
    let golden = line(include_str!("golden/json.txt"), name);
    let written = serde_json::to_string(&value).unwrap();
    assert_eq!(written, golden, "{name}");
    assert_eq!(serde_json::from_str::<T>(golden).unwrap(), value, "{name}");
}

fn set(spans: &[Span]) -> GrowableDotSet {
    let Ok(set) = GrowableDotSet::from_spans(spans.iter().copied());
    set
}

fn span(actor: Actor, first: u64, last: u64) -> Span {
    Span { actor, first, last }
}

#[test]
fn the_bytes_are_frozen() {
    check("actor", A);
    check("dot", Dot { actor: A, counter: 300 });
    check("span", span(A, 1, 1));
    check("span_long", span(B, 5, 1_000_000));
    check("stamp", Stamp::from_parts(1_790_000_000_000, 2));
    check("dot_set_empty", set(&[]));
    let spans = [span(A, 1, 7), span(A, 9, 9), span(B, 200, u64::MAX)];
    check("dot_set", set(&spans));
    check("context", GrowableContext { seen: set(&spans[..1]), stamp: Stamp::from_parts(1, 0) });

    type Object = GrowableSiblings<String>;
    check("siblings_never_written", Object::new());
    check("siblings_without_values", Object::from_parts([], set(&spans)).unwrap());
    let entries =
        [(Dot { actor: A, counter: 9 }, "milk".into()), (Dot { actor: B, counter: 201 }, "eggs".into())];
    check("siblings", Object::from_parts(entries, set(&spans)).unwrap());

    let mut vector = GrowableVersionVector::new();
    for actor in [B, A, B] {
        vector.increment(actor).unwrap();
    }
    let timed = [(A, 1, 1), (B, 2, 5)].map(|(actor, counter, ms)| Entry {
        actor,
        counter,
        at: Stamp::from_parts(ms, 0),
    });
    let timed = GrowableTimedVector::from_entries(timed).unwrap();
    check("entry", vector.entries()[1]);
    check("entry_timed", timed.entries()[1]);
    check("version_vector", vector);
    check("version_vector_timed", timed);
}

#[test]
fn the_tokens_are_frozen() {
    let key = SealKey(std::array::from_fn(|at| u8::try_from(at).unwrap()));
    let spans = [span(A, 1, 7), span(A, 9, 9), span(B, 200, 70_000)];
    for (name, context, cluster, subject) in [
        ("empty", GrowableContext::default(), 0, ""),
        (
            "one",
            GrowableContext { seen: set(&spans[..1]), stamp: Stamp::from_parts(1_790_000_000_000, 0) },
            1,
            "cart",
        ),
        (
            "three",
            GrowableContext { seen: set(&spans), stamp: Stamp::from_parts(1_790_000_000_000, 3) },
            u64::MAX,
            "{a}b",
        ),
        ("widest", GrowableContext { seen: set(&[span(B, 1, u64::MAX)]), stamp: Stamp::MAX }, 1, "cart"),
    ] {
        let token = line(include_str!("golden/tokens.txt"), name);
        assert_eq!(context.to_token(&key, cluster, subject.as_bytes()).as_deref(), Ok(token), "{name}");
        assert_eq!(
            GrowableContext::open(token.as_bytes(), &key, cluster, subject.as_bytes()),
            Ok(context),
            "{name}"
        );
    }
}
