//! Values that expire: readers see them no more, and long after that their bytes are given back. What is known of them stays.

mod common;

use bytes::Bytes;
use common::{A, B, C, Cluster, put};
use gramme_quorum::message::Message;
use gramme_quorum::*;
use gramme_vclock::{Actor, Dot, GrowableDotSet, Stamp};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// Long enough to be worth it.
const VALUE: &str = "0123456789012345678901234567890123456789012345678901234567890123456789";

fn short(config: &mut Config) {
    config.timing.expired = 24 * SECOND;
}

/// A cluster whose nodes have looked at their clocks.
fn cluster() -> Cluster {
    let mut cluster = Cluster::with(3, short);
    assert_eq!(compact_all(&mut cluster), [0; 3]);
    cluster
}

/// Puts a value that expires in so many seconds.
fn put_for(cluster: &mut Cluster, key: &str, value: &str, seconds: u64, cover: Cover) {
    let Op::Put { key, value, content_type, cover, options, .. } = put(key, value, cover) else { panic!() };
    let expiry = Some(Expiry(cluster.now.wall_ms + 1000 * seconds));
    let op = Op::Put { key, value, content_type, expiry, cover, options };
    assert!(matches!(cluster.request(A, op), Reply::Written { .. }));
}

fn compact_all(cluster: &mut Cluster) -> [usize; 3] {
    [A, B, C].map(|node| cluster.compact(node))
}

#[test]
fn bytes_go_long_after_they_have_expired() {
    let mut cluster = cluster();
    put_for(&mut cluster, "k", VALUE, 5, Cover::Held);
    put_for(&mut cluster, "short", "v", 5, Cover::Held);
    cluster.put(A, "stays", VALUE, Cover::Held);
    assert_eq!(compact_all(&mut cluster), [0; 3]);
    cluster.pass(28 * SECOND);
    assert_eq!(cluster.get(B, "k").0, [""; 0]);
    assert_eq!(compact_all(&mut cluster), [0; 3], "not yet");
    cluster.pass(2 * SECOND);
    assert_eq!([A, B].map(|node| cluster.compact(node)), [1; 2]);
    assert_eq!(cluster.copy(A, "k").unwrap(), ["(expired)"]);
    assert_eq!(cluster.copy(C, "k").unwrap(), [VALUE]);
    assert_eq!(cluster.copy(A, "short").unwrap(), ["v"], "that is not worth writing it anew");
    assert_eq!(cluster.copy(A, "stays").unwrap(), [VALUE]);
    for node in [A, B, C] {
        assert_eq!(cluster.get(node, "k").0, [""; 0]);
    }
}

#[test]
fn copies_compare_as_equal_whoever_has_the_bytes() {
    let mut cluster = cluster();
    put_for(&mut cluster, "k", VALUE, 5, Cover::Nothing);
    put_for(&mut cluster, "k", VALUE, 6, Cover::Nothing);
    cluster.put(B, "k", "for ever", Cover::Nothing);
    cluster.pass(40 * SECOND);
    assert_eq!(cluster.compact(A), 1);
    cluster.delivered.clear();
    for node in [A, B, C] {
        assert_eq!(cluster.get(node, "k").0, ["for ever"]);
    }
    cluster.pass(120 * SECOND);
    let healed = |(_, _, message): &&(_, _, Message)| {
        matches!(message, Message::Write { .. } | Message::Copy { copy: message::Copy::Object(_), .. })
    };
    // Each read asks one of the nodes for the value, its own.
    let told: Vec<_> = cluster.delivered.iter().filter(healed).collect();
    assert!(told.is_empty(), "{told:?}");
    assert_eq!(
        cluster.nodes.values().map(|node| node.engine.status(cluster.now.instant).repairs).sum::<u64>(),
        0
    );
}

#[test]
fn what_was_given_back_is_replaced_like_anything_else() {
    for compacted in [&[A][..], &[B, C], &[A, B, C]] {
        let mut cluster = cluster();
        put_for(&mut cluster, "k", VALUE, 5, Cover::Held);
        let (_, context) = cluster.get(B, "k");
        cluster.pass(40 * SECOND);
        for node in compacted {
            assert_eq!(cluster.compact(*node), 1);
        }
        // The first replaces it, the second is its sibling's equal: a write by somebody who saw nothing.
        cluster.put(C, "k", "new", Cover::Context(context));
        assert_eq!(cluster.get(A, "k").0, ["new"]);
        assert_eq!([A, B, C].map(|node| cluster.copy(node, "k").unwrap()), [["new"]; 3]);
        cluster.put(B, "k", "beside", Cover::Nothing);
        assert_eq!(cluster.get(A, "k").0, ["beside", "new"]);
    }
}

#[test]
fn a_node_that_lost_its_disk_gets_what_the_others_have() {
    let mut cluster = cluster();
    put_for(&mut cluster, "k", VALUE, 5, Cover::Held);
    cluster.pass(40 * SECOND);
    compact_all(&mut cluster);
    cluster.crash(C);
    cluster.wipe(C);
    cluster.start(C);
    cluster.pass(60 * SECOND);
    assert_eq!(cluster.copy(C, "k").unwrap(), ["(expired)"]);
    assert!(!cluster.incomplete.contains(&C));
    assert_eq!(cluster.get(C, "k").0, [""; 0]);
}

#[test]
fn a_clock_that_was_wrong_for_a_while_gives_nothing_back() {
    let mut cluster = cluster();
    put_for(&mut cluster, "k", VALUE, 3600, Cover::Held);
    cluster.pass(10 * SECOND);
    assert_eq!(cluster.compact(A), 0);
    cluster.skew.insert(A, 10 * 365 * 24 * 3_600_000);
    assert_eq!(cluster.compact(A), 0);
    cluster.skew.clear();
    assert_eq!(cluster.compact(A), 0);
    assert_eq!(cluster.get(A, "k").0, [VALUE]);
}

const TEN_YEARS: i64 = 10 * 365 * 24 * 3_600_000;

#[test]
fn a_clock_that_most_others_contradict_gives_nothing_back() {
    // One that is behind keeps nobody else from it.
    for wrong in [-TEN_YEARS, TEN_YEARS] {
        let mut cluster = Cluster::with(3, short);
        cluster.skew.insert(A, wrong);
        assert_eq!(compact_all(&mut cluster), [0; 3]);
        put_for(&mut cluster, "k", VALUE, 3600, Cover::Held);
        cluster.pass(60 * SECOND);
        assert_eq!(compact_all(&mut cluster), [0; 3]);
        assert_eq!(cluster.get(B, "k").0, [VALUE]);
        // Nor with one other, nor alone.
        cluster.crash(C);
        cluster.pass(10 * SECOND);
        assert_eq!([A, B].map(|node| cluster.compact(node)), [0; 2]);
        cluster.crash(B);
        cluster.pass(10 * SECOND);
        assert_eq!(cluster.compact(A), 0);
        [B, C].into_iter().for_each(|node| cluster.start(node));
        cluster.pass(SECOND);
        compact_all(&mut cluster);
        put_for(&mut cluster, "later", VALUE, 5, Cover::Held);
        cluster.pass(40 * SECOND);
        assert_eq!(compact_all(&mut cluster), if wrong < 0 { [0, 1, 1] } else { [1; 3] });
    }
}

/// Nor does what they showed count any more.
#[test]
fn clocks_that_were_wrong_together_are_believed_until_they_are_set_right() {
    let mut cluster = cluster();
    put_for(&mut cluster, "lost", VALUE, 3600, Cover::Held);
    for node in [A, B] {
        cluster.skew.insert(node, TEN_YEARS);
    }
    assert_eq!(compact_all(&mut cluster), [0; 3]);
    cluster.pass(10 * SECOND);
    assert_eq!(compact_all(&mut cluster), [1, 1, 0]);
    cluster.skew.clear();
    put_for(&mut cluster, "k", VALUE, 3600, Cover::Held);
    compact_all(&mut cluster);
    cluster.pass(10 * SECOND);
    assert_eq!(compact_all(&mut cluster), [0; 3]);
    assert_eq!(cluster.get(A, "k").0, [VALUE]);
}

fn dot(counter: u64) -> Dot {
    Dot { actor: Actor(7), counter }
}

fn object(versions: &[(u64, Version)]) -> Object {
    let mut seen = GrowableDotSet::new();
    for (counter, _) in versions {
        seen.insert(dot(*counter)).unwrap();
    }
    let entries: Vec<_> =
        versions.iter().map(|(counter, version)| (dot(*counter), version.clone())).collect();
    Object::from_parts(entries, seen).unwrap()
}

fn version(value: &str, expiry: Option<u64>, content_type: Option<&str>) -> Version {
    Version {
        stamp: Stamp::from_u64(256).unwrap(),
        expiry: expiry.map(Expiry),
        content: Content::Value {
            bytes: Bytes::copy_from_slice(value.as_bytes()),
            content_type: content_type.map(String::from),
        },
    }
}

#[test]
fn an_object_without_its_expired_values_has_its_digest() {
    let values = [
        version("a", Some(5), None),
        version("b", None, Some("text/plain")),
        version("", Some(9), Some("")),
        version("", Some(9), None),
    ];
    let mut digests = Vec::new();
    // Every choice of them, and every choice of those of which the bytes are gone.
    for chosen in 1..16_u64 {
        let chosen = (1..).zip(&values).filter(|(n, _)| chosen >> (n - 1) & 1 == 1);
        let versions: Vec<_> = chosen.map(|(n, version)| (n, version.clone())).collect();
        let whole = object(&versions);
        let bytes = object::encode(&whole);
        assert_eq!(object::decode(&bytes).as_ref(), Ok(&whole));
        let digest = object::digest(&[3; 16], &whole, &bytes);
        for gone in 0..16_u64 {
            let left = versions.iter().map(|(n, version)| {
                let rest = version.given_back().filter(|_| gone >> (n - 1) & 1 == 1);
                (*n, rest.unwrap_or_else(|| version.clone()))
            });
            let left = object(&left.collect::<Vec<_>>());
            let encoded = object::encode(&left);
            assert_eq!(object::decode(&encoded).as_ref(), Ok(&left));
            assert_eq!(object::digest(&[3; 16], &left, &encoded), digest, "{left:?}");
            assert!(encoded.len() <= bytes.len());
        }
        digests.push(digest);
    }
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), 15);
    // No type, an empty one, other bytes: other values.
    let of = |version: Version| {
        let object = object(&[(1, version)]);
        object::digest(&[3; 16], &object, &object::encode(&object))
    };
    let all = [("", None), ("", Some("")), ("x", None), ("", Some("x"))]
        .map(|(value, name)| of(version(value, Some(9), name)));
    assert!((0..4).all(|n| !all[..n].contains(&all[n])));
}

#[test]
fn what_does_not_fit_its_digest_is_no_object() {
    let whole = object(&[(1, version("value", Some(5), None)), (2, version("more", Some(6), Some("t")))]);
    let bytes = object::encode(&whole);
    let kept = object::encode(&object(&[
        (1, version("value", Some(5), None).given_back().unwrap()),
        (2, version("more", Some(6), Some("t")).given_back().unwrap()),
    ]));
    assert!(bytes.starts_with(&kept));
    for at in kept.len()..bytes.len() {
        for bit in 0..8 {
            let mut wrong = bytes.to_vec();
            wrong[at] ^= 1 << bit;
            assert_eq!(object::decode(&wrong), Err(object::Malformed), "bit {bit} of byte {at}");
        }
        assert!(object::decode(&bytes[..at]).is_ok() == (at == kept.len()), "cut at {at}");
    }
    // Two gaps and no value; something after the end.
    assert_eq!(object::decode(&[&kept[..], &[0, 0]].concat()), Err(object::Malformed));
    assert_eq!(object::decode(&[&bytes[..], &[0]].concat()), Err(object::Malformed));
    // What expires in the first part, as it was written once; and what is left of what never expires.
    let inline = in_one_part(&whole);
    assert_eq!(object::decode(&inline), Err(object::Malformed));
    let never = Version { expiry: None, ..version("value", Some(5), None).given_back().unwrap() };
    assert_eq!(object::decode(&in_one_part(&object(&[(1, never)]))), Err(object::Malformed));
}

/// All of it in one part.
fn in_one_part(object: &Object) -> Vec<u8> {
    postcard::to_extend(object, Vec::new()).unwrap()
}
