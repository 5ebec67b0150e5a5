//! Copies that a node holds and does not own.

use super::{A, B, C, Cluster, place};
use bytes::Bytes;
use gramme_quorum::message::{CallId, Message, Purpose, Syncing};
use gramme_quorum::planted::Planted;
use gramme_quorum::*;
use gramme_ring::NodeId;
use std::time::Duration;

pub(crate) const D: NodeId = NodeId(4);

/// A key that A, B and C own.
pub(crate) fn owned_by_the_first_three(cluster: &Cluster) -> String {
    owned_in_slot(cluster, |_| true)
}

/// The same, in one of these slots.
pub(crate) fn owned_in_slot(cluster: &Cluster, which: impl Fn(Place) -> bool) -> String {
    let owners = |key: &String| {
        let mut owners = cluster.preference(key)[..3].to_vec();
        owners.sort_unstable();
        owners == [A, B, C]
    };
    (0..).map(|i| format!("key {i}")).filter(|key| which(place(key))).find(owners).unwrap()
}

/// The number of a key's partition.
pub(crate) fn partition(key: &str) -> u16 {
    place(key).0 / 64
}

/// A copy at D, which owns nothing of it and keeps no hint, while A, B and C own it.
pub(crate) fn left_behind(cluster: &mut Cluster) -> String {
    let key = owned_by_the_first_three(cluster);
    cluster.put(A, &key, "v", Cover::Held);
    cluster.pass(Duration::from_secs(1));
    send_copy(cluster, &key, &[]);
    assert!(cluster.copy(D, &key).is_some());
    key
}

/// A write of what A has comes to D, from a coordinator by whose layout D was an owner, or that has it stand in for some.
pub(crate) fn send_copy(cluster: &mut Cluster, key: &str, hints: &[NodeId]) {
    let bytes = Bytes::copy_from_slice(key.as_bytes());
    let object = cluster.nodes[&A].durable[&(place(key), bytes.clone())].clone();
    let layout = cluster.memberships[&A].layout().unwrap().version();
    let write = Message::Write {
        call: CallId(1),
        layout,
        purpose: Purpose::Write,
        key: bytes,
        object,
        hints: hints.to_vec(),
        sync: Syncing::First,
        outranked_by: None,
    };
    cluster.input(D, Input::Peer(A, write));
}

/// How many partitions D has still to look at.
pub(crate) fn sweeping(cluster: &Cluster) -> usize {
    cluster.nodes[&D].engine.status(cluster.now.instant).sweeping_partitions
}

/// D's copy has served as a hint, and is to go; its disk has answered so many times since.
pub(crate) fn about_to_go(rounds: usize, planted: Planted) -> (Cluster, String) {
    let mut cluster = Cluster::with(4, |config| config.timing.exchange = Duration::from_secs(5));
    cluster.crash(D);
    cluster.start_planted(D, planted);
    cluster.pass(Duration::from_secs(2));
    let key = left_behind(&mut cluster);
    cluster.pass(Duration::from_secs(30));
    assert_eq!(cluster.copy(D, &key), None);
    cluster.crash(C);
    cluster.put(A, &key, "w", Cover::Held);
    cluster.pass(Duration::from_secs(5));
    assert_eq!(cluster.hints(D), 1);
    cluster.nodes.get_mut(&D).unwrap().loads = false;
    cluster.start(C);
    let mut since = 0;
    while since < rounds {
        cluster.pass(Duration::from_millis(10));
        for load in std::mem::take(&mut cluster.nodes.get_mut(&D).unwrap().held_loads) {
            cluster.input(D, load);
        }
        since += usize::from(cluster.hints(D) == 0);
    }
    (cluster, key)
}
