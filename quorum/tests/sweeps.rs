//! What a node holds and does not own reaches those who do, whoever of them refuses and whatever answers are lost.

mod common;

use bytes::Bytes;
use common::{A, B, C, Cluster};
use gramme_quorum::message::{CallId, Message, Purpose, Syncing};
use gramme_quorum::*;
use gramme_ring::{Change, NodeId};
use std::time::Duration;

const D: NodeId = NodeId(4);

/// A copy at D, which owns nothing of it and keeps no hint, while A, B and C own it.
fn left_behind(cluster: &mut Cluster) -> String {
    let owners = |key: &String| {
        let mut owners = cluster.preference(key)[..3].to_vec();
        owners.sort_unstable();
        owners == [A, B, C]
    };
    let key = (0..).map(|i| format!("key {i}")).find(owners).unwrap();
    cluster.put(A, &key, "v", Cover::Held);
    cluster.pass(Duration::from_secs(1));
    let bytes = Bytes::from(key.clone());
    let object = cluster.nodes[&A].durable[&(common::place(&key), bytes.clone())].clone();
    let layout = cluster.memberships[&A].layout().unwrap().version();
    let write = Message::Write {
        call: CallId(1),
        layout,
        purpose: Purpose::Write,
        key: bytes,
        object,
        hints: Vec::new(),
        sync: Syncing::First,
        outranked_by: None,
    };
    cluster.input(D, Input::Peer(A, write));
    assert!(cluster.copy(D, &key).is_some());
    key
}

fn sweeping(cluster: &Cluster) -> usize {
    cluster.nodes[&D].engine.status(cluster.now.instant).sweeping_partitions
}

/// One owner takes it, the answer of the second is lost, and the third can't and says so again and again: two of them are enough.
#[test]
fn who_was_asked_once_is_asked_again_while_another_refuses() {
    let mut cluster = Cluster::with(4, |config| config.timing.exchange = Duration::from_secs(5));
    let key = left_behind(&mut cluster);
    cluster.loses = |from, _, message| from != A && matches!(message, Message::Offered { .. });
    let offer = |(_, to, message): &(NodeId, NodeId, Message)| match message {
        Message::Offer { call, .. } if *to == C => Some(*call),
        _ => None,
    };
    for tenth in 0..1200 {
        cluster.delivered.clear();
        cluster.pass(Duration::from_millis(100));
        for call in cluster.delivered.iter().filter_map(offer).collect::<Vec<_>>() {
            cluster.input(D, Input::Peer(C, Message::Offered { call, whole: false }));
        }
        if tenth == 100 {
            assert_eq!(sweeping(&cluster), 1);
            cluster.loses = |from, _, message| from == C && matches!(message, Message::Offered { .. });
        }
    }
    assert_eq!(sweeping(&cluster), 0);
    assert_eq!(cluster.copy(D, &key), None);
}

/// Who took it and was lost may come back without it: that is asked anew.
#[test]
fn an_owner_that_was_wiped_since_it_took_something_takes_it_again() {
    let mut cluster = Cluster::with(4, |config| config.timing.exchange = Duration::from_secs(5));
    let key = left_behind(&mut cluster);
    // A takes it, and nobody else's word arrives.
    cluster.loses = |from, _, message| from != A && matches!(message, Message::Offered { .. });
    cluster.pass(Duration::from_secs(10));
    assert_eq!(sweeping(&cluster), 1);
    cluster.crash(A);
    cluster.pass(Duration::from_secs(1));
    cluster.loses = |from, _, message| from == C && matches!(message, Message::Offered { .. });
    cluster.pass(Duration::from_secs(60));
    // B's alone is not enough.
    assert!(cluster.copy(D, &key).is_some());
    cluster.loses = |_, _, _| false;
    cluster.pass(Duration::from_secs(60));
    assert_eq!(cluster.copy(D, &key), None);
}

/// The hints of an owner that was removed are looked for again where they could not be listed.
#[test]
fn hints_that_could_not_be_listed_are_looked_for_again() {
    let mut cluster = Cluster::new(5);
    let list = cluster.preference("k");
    let (dead, keeper) = (list[2], list[3]);
    cluster.crash(dead);
    cluster.put(list[0], "k", "v", Cover::Held);
    assert_eq!(cluster.hints(keeper), 1);
    cluster.nodes.get_mut(&keeper).unwrap().hint_lists_fail = true;
    cluster.change(list[0], ClusterOp::Stage(Change::Remove(dead))).unwrap();
    let hash = cluster.nodes[&list[0]].engine.membership().propose().unwrap().hash();
    cluster.change(list[0], ClusterOp::Commit(hash)).unwrap();
    cluster.pass(Duration::from_secs(30));
    assert_eq!(cluster.hints(keeper), 1);
    cluster.nodes.get_mut(&keeper).unwrap().hint_lists_fail = false;
    cluster.pass(Duration::from_secs(120));
    assert_eq!(cluster.hints(keeper), 0);
}
