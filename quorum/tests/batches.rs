//! Operations on one key that wait for one record share its append, and a minted object carries what came before it.

mod common;

use common::*;
use gramme_quorum::message::{CallId, Message, Refusal};
use gramme_quorum::*;
use gramme_ring::NodeId;

/// The writes that A has sent and nobody has received yet: their calls, the oldest first.
fn sent(cluster: &Cluster) -> Vec<CallId> {
    let mut calls: Vec<CallId> = cluster
        .wire()
        .filter_map(|(from, _, message)| match message {
            Message::Write { call, .. } if *from == A => Some(*call),
            _ => None,
        })
        .collect();
    calls.sort_unstable();
    calls.dedup();
    calls
}

/// All who were asked refuse, each as often as it was asked.
fn refuse(cluster: &mut Cluster, call: CallId) {
    let is_it = |message: &Message| matches!(message, Message::Write { call: other, .. } if *other == call);
    let asked = cluster.wire().filter(|(_, _, message)| is_it(message)).map(|(_, to, _)| *to);
    let asked: Vec<NodeId> = asked.collect();
    cluster.lose(|_, _, message| is_it(message));
    for from in asked {
        cluster.input(A, Input::Peer(from, Message::Refused { call, why: Refusal::Overloaded }));
    }
}

/// Two writes in one batch at A, whose disk takes neither: their requests, and the calls in which they went to B and C.
fn two_in_one() -> (Cluster, [RequestId; 2], Vec<CallId>) {
    let mut cluster = Cluster::new(3);
    cluster.nodes.get_mut(&A).unwrap().loads = false;
    let requests =
        ["first", "second"].map(|value| cluster.start_request(A, put("key", value, Cover::Nothing)));
    cluster.nodes.get_mut(&A).unwrap().disk_full = true;
    cluster.load(A);
    let calls = sent(&cluster);
    assert_eq!(calls.len(), 2);
    (cluster, requests, calls)
}

#[test]
fn a_refused_write_that_another_carries_may_be_done() {
    let (mut cluster, [first, second], calls) = two_in_one();
    refuse(&mut cluster, calls[0]);
    cluster.run();
    assert!(matches!(cluster.replies[&second], Reply::Written { .. }), "B and C have it");
    assert_eq!(cluster.copy(B, "key").unwrap().len(), 2, "with what came before it");
    assert!(
        matches!(cluster.replies[&first], Reply::Failed(OpError::Indeterminate { .. })),
        "{:?}",
        cluster.replies[&first]
    );
}

#[test]
fn a_refused_write_that_nothing_carries_is_surely_not_done() {
    let (mut cluster, [first, second], calls) = two_in_one();
    refuse(&mut cluster, calls[1]);
    cluster.run();
    assert!(matches!(cluster.replies[&first], Reply::Written { .. }));
    assert_eq!(cluster.replies[&second], Reply::Failed(OpError::Overloaded));
    assert_eq!(cluster.copy(B, "key").unwrap(), ["first"]);
}

#[test]
fn a_copy_that_a_minted_object_carries_is_not_refused() {
    let mut cluster = Cluster::new(3);
    // What B coordinates comes to A while A mints on the same record.
    let request = cluster.start_request(B, put("key", "B's", Cover::Nothing));
    cluster.lose(|_, to, _| to == C);
    cluster.nodes.get_mut(&A).unwrap().loads = false;
    cluster.run();
    assert!(!cluster.replies.contains_key(&request));
    cluster.start_request(A, put("key", "A's", Cover::Nothing));
    cluster.nodes.get_mut(&A).unwrap().disk_full = true;
    cluster.load(A);
    let refused = |(from, to, message): &(NodeId, NodeId, Message)| {
        (*from, *to) == (A, B) && matches!(message, Message::Refused { .. })
    };
    assert!(!cluster.wire().any(refused), "A's own write carries it");
}
