//! Requests in hand are bounded by their bytes: of values that come, and of objects that are read or made for them.

mod common;

use common::*;
use gramme_quorum::*;

const LIMIT: usize = 1 << 20;
const VALUE: usize = 300 << 10;
/// Keys, contexts and what tells versions apart.
const BESIDE: usize = 1 << 10;

fn cluster() -> Cluster {
    let mut cluster = Cluster::with(3, |config| config.limits.request_bytes = LIMIT);
    cluster.pass(Duration::from_secs(1));
    cluster
}

/// Ten keys with large values, which all replicas have.
fn ten_large(cluster: &mut Cluster) -> Vec<String> {
    let keys: Vec<String> = (0..10).map(|i| format!("key {i}")).collect();
    for key in &keys {
        cluster.put(A, key, &"x".repeat(VALUE), Cover::Held);
    }
    cluster.pass(Duration::from_secs(1));
    keys
}

fn bytes(cluster: &Cluster) -> usize {
    cluster.nodes[&A].engine.status(cluster.now.instant).request_bytes
}

/// How many of these were refused as overload, and how many have no answer.
fn refused_and_open(cluster: &Cluster, requests: &[RequestId]) -> (usize, usize) {
    let replies = requests.iter().map(|request| cluster.replies.get(request));
    let (refused, rest): (Vec<_>, Vec<_>) =
        replies.partition(|reply| matches!(reply, Some(Reply::Failed(OpError::Overloaded))));
    (refused.len(), rest.iter().filter(|reply| reply.is_none()).count())
}

#[test]
fn writes_that_wait_for_replicas_are_bounded_by_the_bytes_of_their_values() {
    let mut cluster = cluster();
    cluster.pause(B);
    cluster.pause(C);
    let value = "x".repeat(VALUE);
    let puts: Vec<_> =
        (0..10).map(|i| cluster.start_request(A, put(&format!("key {i}"), &value, Cover::Held))).collect();
    cluster.run();
    assert!(bytes(&cluster) <= LIMIT + 2 * VALUE + BESIDE, "{}", bytes(&cluster));
    let (refused, open) = refused_and_open(&cluster, &puts);
    assert_eq!(refused + open, 10);
    // A value, and the object that it is sent in.
    assert!((2..=4).contains(&open), "{open} are taken");
    // Reads are refused just so.
    assert!(matches!(
        cluster.request(A, Op::Get { key: "key 0".into(), options: ReadOptions::default() }),
        Reply::Failed(OpError::Overloaded)
    ));
    cluster.pass(Duration::from_secs(10));
    assert_eq!(bytes(&cluster), 0);
    cluster.resume(B);
    cluster.resume(C);
    cluster.pass(Duration::from_secs(1));
    cluster.put(A, "late", "v", Cover::Held);
    assert_eq!(bytes(&cluster), 0);
}

#[test]
fn small_writes_that_come_to_a_large_object_are_bounded_by_what_is_made() {
    let mut cluster = cluster();
    cluster.put(A, "k", &"x".repeat(VALUE), Cover::Held);
    cluster.nodes.get_mut(&A).unwrap().loads = false;
    cluster.pause(B);
    cluster.pause(C);
    let puts: Vec<_> =
        (0..10).map(|i| cluster.start_request(A, put("k", &format!("{i}"), Cover::Nothing))).collect();
    cluster.run();
    assert_eq!(refused_and_open(&cluster, &puts), (0, 10), "what they come to is not known yet");
    cluster.load(A);
    cluster.run();
    assert!(bytes(&cluster) <= LIMIT + VALUE + BESIDE, "{}", bytes(&cluster));
    let (refused, open) = refused_and_open(&cluster, &puts);
    assert_eq!((refused, open), (6, 4));
    cluster.resume(B);
    cluster.resume(C);
    cluster.run();
    // Who was refused has done nothing.
    let (siblings, _) = cluster.get(A, "k");
    assert_eq!(siblings.len(), 1 + open);
}

#[test]
fn reads_of_large_objects_are_bounded_by_what_is_read() {
    let mut cluster = cluster();
    let keys = ten_large(&mut cluster);
    cluster.pause(B);
    cluster.pause(C);
    cluster.nodes.get_mut(&A).unwrap().loads = false;
    let get = |key: &String| Op::Get { key: key.clone().into(), options: ReadOptions::default() };
    let gets: Vec<_> = keys.iter().map(|key| cluster.start_request(A, get(key))).collect();
    cluster.run();
    assert_eq!(refused_and_open(&cluster, &gets), (0, 10));
    cluster.load(A);
    cluster.run();
    assert!(bytes(&cluster) <= LIMIT + VALUE + BESIDE, "{}", bytes(&cluster));
    assert_eq!(refused_and_open(&cluster, &gets), (6, 4));
    cluster.resume(B);
    cluster.resume(C);
    cluster.run();
    assert_eq!(refused_and_open(&cluster, &gets), (6, 0));
    assert_eq!(bytes(&cluster), 0);
}

#[test]
fn writes_that_wait_for_congested_replicas_count_with_the_others() {
    let mut cluster = cluster();
    for peer in [B, C] {
        cluster.input(A, Input::Congested(peer, true));
    }
    let value = "x".repeat(VALUE);
    let puts: Vec<_> =
        (0..10).map(|i| cluster.start_request(A, put(&format!("key {i}"), &value, Cover::Held))).collect();
    cluster.run();
    assert_eq!(refused_and_open(&cluster, &puts), (6, 4), "the fourth goes beyond");
    assert!(bytes(&cluster) <= LIMIT + VALUE + BESIDE, "{}", bytes(&cluster));
    for peer in [B, C] {
        cluster.input(A, Input::Congested(peer, false));
    }
    cluster.run();
    assert!(bytes(&cluster) <= LIMIT + 2 * VALUE + BESIDE, "{}", bytes(&cluster));
    let (_, open) = refused_and_open(&cluster, &puts);
    assert_eq!((open, bytes(&cluster)), (0, 0));
}

#[test]
fn what_a_delete_is_to_cover_counts() {
    let mut cluster = cluster();
    let keys = ten_large(&mut cluster);
    // Reads are answered by the others; the mints wait for what is here.
    cluster.nodes.get_mut(&A).unwrap().loads = false;
    let delete = |key: &String| Op::Delete {
        key: key.clone().into(),
        cover: Cover::Held,
        options: WriteOptions::default(),
    };
    let deletes: Vec<_> = keys.iter().map(|key| cluster.start_request(A, delete(key))).collect();
    cluster.pass(Duration::from_secs(1));
    assert!((3 * VALUE..=LIMIT + VALUE + BESIDE).contains(&bytes(&cluster)), "{}", bytes(&cluster));
    assert!(refused_and_open(&cluster, &deletes).0 > 0);
}

#[test]
fn copies_that_heal_others_are_no_requests() {
    let mut cluster = cluster();
    let keys = ten_large(&mut cluster);
    for key in &keys {
        let record = (place(key), bytes::Bytes::from(key.clone()));
        cluster.nodes.get_mut(&A).unwrap().damaged.insert(record);
    }
    cluster.pause(C);
    for key in &keys {
        let options = ReadOptions { r: Some(Level::One), ..ReadOptions::default() };
        cluster.request(A, Op::Get { key: key.clone().into(), options });
    }
    assert_eq!(bytes(&cluster), 0);
    cluster.put(A, "another", "v", Cover::Held);
}
