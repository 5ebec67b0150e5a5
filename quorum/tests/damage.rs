//! More copies of a key are damaged than W can lose.

mod common;

use common::{A, B, C, Cluster, delete, place, put};
use gramme_quorum::*;
use gramme_ring::NodeId;
use std::time::Duration;

const OWNERS: [NodeId; 3] = [A, B, C];

fn damage(cluster: &mut Cluster, node: NodeId, key: &str, refused: bool) {
    let record = (place(key), bytes::Bytes::copy_from_slice(key.as_bytes()));
    let node = cluster.nodes.get_mut(&node).unwrap();
    assert!(node.damaged.insert(record));
    node.refuses_reads = refused;
}

/// Reads, so that damage is found, and lets it be healed. Whether anybody can be shown the key then.
fn shown(cluster: &mut Cluster, key: &str) -> Option<Vec<String>> {
    for node in OWNERS {
        cluster.request(
            node,
            Op::Get { key: bytes::Bytes::copy_from_slice(key.as_bytes()), options: ReadOptions::default() },
        );
        cluster.pass(Duration::from_secs(6));
    }
    let op = Op::Get { key: bytes::Bytes::copy_from_slice(key.as_bytes()), options: ReadOptions::default() };
    match cluster.request(A, op) {
        Reply::Read(reading) => Some(
            reading.siblings.iter().map(|found| String::from_utf8(found.value.to_vec()).unwrap()).collect(),
        ),
        _ => None,
    }
}

#[test]
fn the_copy_that_is_left_heals_the_others() {
    for left in OWNERS {
        let mut cluster = Cluster::new(3);
        cluster.put(A, "k", "v", Cover::Held);
        for node in OWNERS.into_iter().filter(|node| *node != left) {
            damage(&mut cluster, node, "k", false);
        }
        assert_eq!(shown(&mut cluster, "k"), Some(vec![String::from("v")]), "{left} has it");
        assert_eq!(OWNERS.map(|node| cluster.copy(node, "k").unwrap()), [["v"]; 3]);
        assert!(OWNERS.iter().all(|node| cluster.nodes[node].damaged.is_empty()));
        cluster.put(B, "k", "w", Cover::Held);
        assert_eq!(cluster.get(C, "k").0, ["w"]);
    }
}

#[test]
fn not_while_one_of_them_may_be_read_another_day() {
    let mut cluster = Cluster::new(3);
    // The last write is on A and B alone.
    cluster.put(A, "k", "old", Cover::Held);
    cluster.crash(C);
    cluster.put(A, "k", "new", Cover::Held);
    cluster.loses =
        |from, to, message| (from == C || to == C) && matches!(message, message::Message::Write { .. });
    cluster.start(C);
    cluster.run();
    assert_eq!(cluster.copy(C, "k").unwrap(), ["old"]);
    damage(&mut cluster, A, "k", false);
    damage(&mut cluster, B, "k", true);
    assert_eq!(shown(&mut cluster, "k"), None);
    cluster.nodes.get_mut(&B).unwrap().damaged.clear();
    assert_eq!(shown(&mut cluster, "k"), Some(vec![String::from("new")]));
}

#[test]
fn nor_while_one_of_them_is_down() {
    let mut cluster = Cluster::new(3);
    cluster.put(A, "k", "v", Cover::Held);
    cluster.crash(C);
    damage(&mut cluster, A, "k", false);
    assert_eq!(
        cluster.request(B, Op::Get { key: "k".into(), options: ReadOptions::default() }),
        Reply::Failed(OpError::Quorum { need: Need::R, have: 1, want: 2 })
    );
    cluster.pass(Duration::from_secs(10));
    assert!(!cluster.nodes[&A].damaged.is_empty());
    cluster.start(C);
    assert_eq!(shown(&mut cluster, "k"), Some(vec![String::from("v")]));
}

#[test]
fn what_is_left_nowhere_is_not_taken_for_absent() {
    let mut cluster = Cluster::new(3);
    cluster.put(A, "k", "v", Cover::Held);
    for node in OWNERS {
        damage(&mut cluster, node, "k", false);
    }
    assert_eq!(shown(&mut cluster, "k"), None);
    cluster.pass(Duration::from_secs(6));
    let reply = cluster.request(B, put("k", "w", Cover::Held));
    assert_eq!(reply, Reply::Failed(OpError::Unwritable));
    // By now each has found that nobody has it.
    cluster.put(B, "k", "w", Cover::Held);
    assert_eq!(OWNERS.map(|node| cluster.copy(node, "k").unwrap()), [["w"]; 3]);
    assert_eq!(cluster.get(C, "k").0, ["w"]);
}

#[test]
fn where_one_node_alone_owns_it_a_write_replaces_it() {
    let mut cluster = Cluster::found(3, 1, |_| {});
    let owner = cluster.preference("k")[0];
    let others = OWNERS.into_iter().filter(|node| *node != owner);
    cluster.put(owner, "k", "v", Cover::Held);
    damage(&mut cluster, owner, "k", false);
    let options = ReadOptions::default();
    let read = Op::Get { key: "k".into(), options };
    assert!(matches!(cluster.request(owner, read), Reply::Failed(_)), "unknown is not absent");
    let gone = cluster.request(owner, delete("k", Cover::Held));
    assert!(matches!(gone, Reply::Failed(_)), "a delete reads first: {gone:?}");
    for other in others {
        assert!(matches!(cluster.request(other, put("k", "w", Cover::Held)), Reply::Written { .. }));
        assert_eq!(cluster.get(owner, "k").0, ["w"]);
    }
}

#[test]
fn what_a_disk_refuses_to_read_once_is_replaced_by_nothing() {
    let mut cluster = Cluster::found(3, 1, |_| {});
    let owner = cluster.preference("k")[0];
    cluster.put(owner, "k", "v", Cover::Held);
    damage(&mut cluster, owner, "k", true);
    // Another node keeps it for the owner.
    cluster.put(owner, "k", "w", Cover::Nothing);
    cluster.nodes.get_mut(&owner).unwrap().damaged.clear();
    cluster.pass(Duration::from_secs(10));
    assert_eq!(cluster.copy(owner, "k").unwrap(), ["v", "w"]);
}
