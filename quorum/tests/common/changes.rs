//! What tests of membership do with a cluster.

use super::{Cluster, put};
use gramme_quorum::*;
use gramme_ring::{Change, NodeId};
use std::collections::BTreeMap;

/// Makes a change at a node and commits it.
pub(crate) fn commit(cluster: &mut Cluster, at: NodeId, changes: Vec<Change>) {
    for change in changes {
        cluster.change(at, ClusterOp::Stage(change)).unwrap();
    }
    let hash = cluster.nodes[&at].engine.membership().propose().unwrap().hash();
    cluster.change(at, ClusterOp::Commit(hash)).unwrap();
}

/// Writes keys all the while until the transition has ended everywhere.
pub(crate) fn settle(cluster: &mut Cluster, written: &mut BTreeMap<String, String>) {
    for round in 0..400 {
        let at = *cluster.nodes.keys().nth(round % cluster.nodes.len()).unwrap();
        let (key, value) = (format!("key {}", round % 97), format!("round {round}"));
        if let Reply::Written { .. } = cluster.request(at, put(&key, &value, Cover::Held)) {
            written.insert(key, value);
        } else {
            // It may be there or not.
            written.remove(&key);
        }
        cluster.pass(Duration::from_millis(100));
        if cluster.nodes.values().all(|node| node.engine.membership().transition().is_none()) {
            return;
        }
    }
    let state: Vec<_> = cluster
        .nodes
        .iter()
        .map(|(id, node)| {
            let t = node.engine.membership().transition();
            (*id, t.map(|t| (t.step(), t.waiting_for())), node.engine.status(cluster.now.instant))
        })
        .collect();
    panic!("the transition does not end: {state:#?}");
}

pub(crate) fn fill(cluster: &mut Cluster, count: usize) -> BTreeMap<String, String> {
    let mut written = BTreeMap::new();
    for i in 0..count {
        let (key, value) = (format!("key {i}"), format!("value {i}"));
        cluster.put(NodeId(1), &key, &value, Cover::Held);
        written.insert(key, value);
    }
    written
}
