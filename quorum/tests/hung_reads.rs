//! A disk that takes a read and never answers it: what waits for that record is told so, and nothing else waits.

mod common;

use bytes::Bytes;
use common::*;
use gramme_quorum::message::{Message, Refusal, Want};
use gramme_quorum::*;
use gramme_ring::NodeId;
use std::time::Duration;

fn record(key: &str) -> (Place, Bytes) {
    (place(key), Bytes::copy_from_slice(key.as_bytes()))
}

fn hang(cluster: &mut Cluster, id: NodeId, key: &str) {
    cluster.nodes.get_mut(&id).unwrap().hangs.insert(record(key));
}

/// C misses a write of this key, and nobody keeps a hint for it.
fn miss(cluster: &mut Cluster, key: &str) {
    cluster.start_request(A, put(key, "v", Cover::Held));
    cluster.lose(|_, to, message| to == C && matches!(message, Message::Write { .. }));
    cluster.run();
    cluster.crash(A);
    cluster.start(A);
    cluster.run();
    assert_eq!(cluster.copy(C, key), None);
}

#[test]
fn a_read_that_hangs_does_not_end_anti_entropy() {
    let mut cluster = Cluster::new(3);
    let hung = "{a}";
    miss(&mut cluster, hung);
    hang(&mut cluster, C, hung);
    // The second time what C waits for is not what A's end breaks off.
    for other in ["{b}", "{c}", "{d}"] {
        assert_ne!(place(hung), place(other));
        cluster.pass(Duration::from_secs(30));
        miss(&mut cluster, other);
        cluster.pass(Duration::from_secs(60));
        assert_eq!(cluster.copy(C, other), Some(vec![String::from("v")]), "C waits for one key alone");
    }
    assert_eq!(cluster.copy(C, hung), None);
    assert_eq!(cluster.nodes[&C].held_loads.len(), 1, "no more than one read of a key hangs");
    // Nobody waits for it any more, and what it answers is what the next one gets.
    cluster.load(C);
    cluster.pass(Duration::from_secs(30));
    assert_eq!(cluster.copy(C, hung), Some(vec![String::from("v")]));
}

#[test]
fn a_write_whose_record_is_not_read_surely_fails_and_the_copy_is_as_it_was() {
    let mut cluster = Cluster::with(3, |config| config.timing.request = Duration::from_secs(2));
    cluster.put(A, "k", "old", Cover::Held);
    let coordinator = cluster.preference("k")[0];
    for id in [A, B, C] {
        hang(&mut cluster, id, "k");
    }
    let long = WriteOptions { timeout: Some(Duration::from_secs(60)), ..WriteOptions::default() };
    let Op::Put { key, value, content_type, expiry, cover, .. } = put("k", "new", Cover::Held) else {
        panic!()
    };
    let op = Op::Put { key, value, content_type, expiry, cover, options: long };
    let began = cluster.now.instant;
    let request = cluster.start_request(coordinator, op);
    cluster.pass(Duration::from_secs(5));
    let took = cluster.now.instant.since(began);
    assert!(took <= Duration::from_secs(5));
    assert_eq!(cluster.replies.get(&request), Some(&Reply::Failed(OpError::Overloaded)));
    // The read comes after all, and nothing that was answered is done.
    for id in [A, B, C] {
        cluster.load(id);
        cluster.pass(Duration::from_secs(1));
        assert_eq!(cluster.copy(id, "k"), Some(vec![String::from("old")]));
    }
}

#[test]
fn a_merge_whose_record_is_not_read_is_refused_and_one_that_comes_later_waits_for_the_same_read() {
    let mut cluster = Cluster::new(3);
    cluster.put(A, "k", "old", Cover::Held);
    let coordinator = cluster.preference("k")[0];
    let slow = cluster.preference("k")[1];
    hang(&mut cluster, slow, "k");
    cluster.put(coordinator, "k", "one", Cover::Held);
    cluster.delivered.clear();
    cluster.pass(Duration::from_secs(6));
    let refused = |(from, _, message): &(NodeId, NodeId, Message)| {
        *from == slow && matches!(message, Message::Refused { why: Refusal::Overloaded, .. })
    };
    assert!(cluster.delivered.iter().any(refused), "nothing is heard of a write whose record hangs");
    cluster.put(coordinator, "k", "two", Cover::Held);
    assert_eq!(cluster.copy(slow, "k"), Some(vec![String::from("old")]));
    assert_eq!(cluster.nodes[&slow].held_loads.len(), 1);
    cluster.load(slow);
    cluster.run();
    assert_eq!(cluster.copy(slow, "k"), Some(vec![String::from("two")]));
    let status = cluster.nodes[&slow].engine.status(cluster.now.instant);
    assert_eq!((status.local, status.local_bytes), (0, 0));
}

#[test]
fn a_copy_that_is_only_slow_is_not_taken_for_damaged() {
    let mut cluster = Cluster::new(3);
    cluster.put(A, "k", "v", Cover::Held);
    hang(&mut cluster, C, "k");
    cluster.delivered.clear();
    let all = Op::Get { key: Bytes::from_static(b"k"), options: r(Level::Count(3)) };
    assert!(matches!(cluster.request(C, all.clone()), Reply::Failed(OpError::Quorum { .. })));
    cluster.pass(Duration::from_secs(30));
    let heals = |message: &Message| matches!(message, Message::Read { want: Want::Source, .. });
    assert!(!cluster.delivered.iter().any(|(_, _, message)| heals(message)));
    cluster.load(C);
    assert!(matches!(cluster.request(C, all), Reply::Read(reading) if reading.siblings.len() == 1));
}

#[test]
fn a_key_whose_hint_can_not_be_served_does_not_stop_the_handoff_of_the_others() {
    let mut cluster = Cluster::new(3);
    cluster.crash(C);
    for i in 0..20 {
        cluster.put(A, &format!("k{i}"), "v", Cover::Held);
    }
    let keeper = [A, B].into_iter().find(|id| cluster.hints(*id) > 0).expect("somebody keeps hints");
    let hints = cluster.hints(keeper);
    for i in 0..5 {
        hang(&mut cluster, keeper, &format!("k{i}"));
    }
    cluster.start(C);
    cluster.pass(Duration::from_secs(60));
    let have = (0..20).filter(|i| cluster.copy(C, &format!("k{i}")).is_some()).count();
    assert!(have >= 15, "{have} of {hints} hints");
    cluster.load(keeper);
    cluster.pass(Duration::from_secs(60));
    assert_eq!((0..20).filter(|i| cluster.copy(C, &format!("k{i}")).is_some()).count(), 20);
    assert_eq!(cluster.hints(keeper), 0);
}

/// A load that hangs counts as long as it does, whether anybody waits for it or not.
#[test]
fn loads_that_come_after_all_leave_room_for_others() {
    let mut cluster = Cluster::with(3, |config| config.limits.local = 4);
    cluster.put(A, "k", "v", Cover::Held);
    let local = |cluster: &Cluster| cluster.nodes[&C].engine.status(cluster.now.instant).local;
    for _ in 0..8 {
        hang(&mut cluster, C, "k");
        let all = Op::Get { key: Bytes::from_static(b"k"), options: r(Level::All) };
        cluster.request(A, all);
        cluster.pass(Duration::from_secs(30));
        assert_eq!(local(&cluster), 1, "nobody waits for it any more");
        cluster.load(C);
        assert_eq!(local(&cluster), 0);
    }
    assert_eq!(cluster.get_with(A, "k", r(Level::All)).0, ["v"]);
}
