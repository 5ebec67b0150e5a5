//! Two commits on one layout, of which a newcomer knows only the one that was displaced.

mod common;

use bytes::Bytes;
use common::changes::commit;
use common::{A, B, C, Cluster, place};
use gramme_quorum::message::Message;
use gramme_quorum::*;
use gramme_ring::{Change, Layout, Member, NodeId, Slot, Step};
use std::collections::BTreeMap;
use std::time::Duration;

const NEW: NodeId = NodeId(6);

/// The hash of what is proposed with this, and that of its layout.
fn proposed(cluster: &mut Cluster, at: NodeId, change: Change) -> (u64, u64) {
    cluster.change(at, ClusterOp::Stage(change)).unwrap();
    let proposal = cluster.nodes[&at].engine.membership().propose().unwrap();
    (proposal.hash(), proposal.layout().hash())
}

/// Both layouts have the same version, so that nobody would refuse what the newcomer asks by its own. It asks nobody: who joins
/// coordinates nothing before reads have moved to it, as the plan of every request goes by the layout that is left.
#[test]
fn who_joins_by_a_displaced_commit_coordinates_nothing() {
    let mut cluster = Cluster::new(5);
    cluster.add(NEW);
    let keys: Vec<String> = (0..200).map(|i| format!("key {i}")).collect();
    for key in &keys {
        cluster.put(A, key, "old", Cover::Held);
    }
    // A knows the newcomer, and commits with nobody but that to hear it.
    cluster.pass(Duration::from_secs(5));
    cluster.loses = |from, to, message| {
        matches!(message, Message::Gossip(_)) && [from, to].contains(&NEW) && ![from, to].contains(&A)
    };
    for other in 2..=5 {
        cluster.cut(A, NodeId(other), true);
    }
    let (commit, joins) = proposed(&mut cluster, A, Change::Member(Member::new(NEW)));
    cluster.change(A, ClusterOp::Commit(commit)).unwrap();
    cluster.pass(Duration::from_secs(3));
    let displaced = cluster.nodes[&NEW].engine.membership().layout().unwrap().clone();
    assert_eq!(displaced.hash(), joins);
    // From here on it hears nothing more of the membership.
    cluster.loses = |from, to, message| matches!(message, Message::Gossip(_)) && [from, to].contains(&NEW);
    let (commit, other) = (2..200)
        .map(|weight| {
            let change = Change::Member(Member::new(NodeId(3)).with_weight(weight));
            proposed(&mut cluster, B, change)
        })
        .find(|(_, layout)| *layout < joins)
        .expect("one in two is smaller");
    cluster.change(B, ClusterOp::Commit(commit)).unwrap();
    for other in 2..=5 {
        cluster.cut(A, NodeId(other), false);
    }
    for _ in 0..300 {
        cluster.pass(Duration::from_millis(100));
        let done = |id: u64| {
            let membership = cluster.nodes[&NodeId(id)].engine.membership();
            membership.transition().is_none() && membership.layout().unwrap().hash() == other
        };
        if (1..=5).all(done) {
            break;
        }
    }
    let current = cluster.nodes[&A].engine.membership().layout().unwrap().clone();
    assert_eq!((current.hash(), current.version()), (other, displaced.version()));
    let newcomer = cluster.nodes[&NEW].engine.membership();
    assert_eq!(newcomer.layout().unwrap().hash(), joins);
    assert_eq!(newcomer.transition().unwrap().step(), Step::Acknowledging);
    // Otherwise this shows nothing: there are keys that it is to own beside one who owns them no more.
    let apart = keys.iter().filter(|key| {
        let slot = Slot::of(key.as_bytes());
        let [was, is] =
            [&displaced, &current].map(|l: &Layout| l.owners(l.partition_of(slot)).collect::<Vec<_>>());
        was.contains(&NEW) && was.iter().filter(|id| !is.contains(id)).count() >= 2
    });
    assert!(apart.count() > 5);

    let mut expected: BTreeMap<&String, &str> = BTreeMap::new();
    for key in &keys {
        cluster.put(B, key, "new", Cover::Held);
        expected.insert(key, "new");
    }
    cluster.delivered.clear();
    for (number, key) in keys.iter().enumerate() {
        assert_eq!(cluster.get(NEW, key).0, ["new"], "{key}");
        if number % 2 == 0 {
            cluster.put(NEW, key, "newest", Cover::Held);
            expected.insert(key, "newest");
        }
    }
    for (key, value) in expected {
        assert_eq!(cluster.get(B, key).0, [value], "{key}");
    }
    let asks = |message: &Message| matches!(message, Message::Read { .. } | Message::Write { .. });
    let own: Vec<_> = cluster.delivered.iter().filter(|(from, _, m)| *from == NEW && asks(m)).collect();
    assert!(own.is_empty(), "{own:?}");
}

/// A write begins by the rules of a commit that another displaces, whose layout is the same; its record is slow to be read. Whether that
/// other one stands, and whether the write was acknowledged and is missed by a read that asks for one copy.
fn write_across(displaced: Option<u64>) -> (bool, bool) {
    let mut cluster = Cluster::with(3, |config| {
        config.timing.exchange = Duration::from_secs(3600);
        config.timing.request = Duration::from_secs(60);
    });
    cluster.pass(Duration::from_secs(3));
    cluster.loses = |from, to, message| matches!(message, Message::Gossip(_)) && [from, to].contains(&A);
    if let Some(ttl) = displaced {
        let keyspace = Keyspace { ttl_ms: Some(ttl), ..Keyspace::default() };
        commit(&mut cluster, A, vec![keyspace.change("other:").unwrap()]);
        cluster.pass(Duration::from_millis(200));
    }
    cluster.nodes.get_mut(&A).unwrap().hangs.insert((place("k"), Bytes::from_static(b"k")));
    let options = WriteOptions { timeout: Some(Duration::from_secs(59)), ..WriteOptions::default() };
    let (key, value) = (Bytes::from_static(b"k"), Bytes::from_static(b"v"));
    let write = Op::Put { key, value, content_type: None, expiry: None, cover: Cover::Held, options };
    let write = cluster.start_request(A, write);
    let ttl_ms = displaced.map(|ttl| ttl * 1000);
    let all = Keyspace { r: Some(Level::One), w: Some(Level::All), ttl_ms, ..Keyspace::default() };
    commit(&mut cluster, B, vec![all.change("").unwrap()]);
    cluster.pass(Duration::from_millis(200));
    cluster.loses = |_, _, _| false;
    cluster.pass(Duration::from_secs(8));
    let stands = [A, B, C].into_iter().all(|id| {
        let mut keyspaces = Keyspace::all(cluster.nodes[&id].engine.membership());
        keyspaces.any(|(prefix, one)| prefix.is_empty() && one.w == Some(Level::All))
    });
    // The record is read; what A sends to C is lost.
    cluster.loses = |_, to, message| to == C && matches!(message, Message::Write { .. });
    cluster.load(A);
    cluster.pass(Duration::from_secs(6));
    let acknowledged = matches!(cluster.replies.get(&write), Some(Reply::Written { .. }));
    for other in [A, B] {
        cluster.cut(C, other, true);
    }
    let key = Bytes::from_static(b"k");
    let read = cluster.request(C, Op::Get { key, options: ReadOptions::default() });
    let missed = matches!(&read, Reply::Read(reading) if reading.siblings.is_empty());
    (stands, acknowledged && missed)
}

#[test]
fn a_write_by_displaced_rules_is_waited_for() {
    assert_eq!(write_across(None), (true, false));
    // The commit with the smaller hash stands: one of two does.
    let (stands, missed) =
        (1..20).map(|ttl| write_across(Some(ttl * 1_000_000))).find(|(stands, _)| *stands).unwrap();
    assert!(stands && !missed, "an acknowledged write is not read");
}

/// Who commits alone that the last write of some keys is to win discards none of them by that: the others may have committed to something
/// else meanwhile. Whether they have, and that stands.
fn writes_beside(other: &str) -> bool {
    let mut cluster = Cluster::new(3);
    let lww = Keyspace { policy: Policy::Lww, ..Keyspace::default() };
    let two_writes = |cluster: &mut Cluster| {
        for value in ["a", "b"] {
            let options = WriteOptions { w: Some(Level::One), ..WriteOptions::default() };
            let (key, value) = (Bytes::from_static(b"last:k"), Bytes::copy_from_slice(value.as_bytes()));
            let put =
                Op::Put { key, value, content_type: None, expiry: None, cover: Cover::Nothing, options };
            assert!(matches!(cluster.request(A, put), Reply::Written { .. }));
        }
        cluster.copy(A, "last:k").unwrap()
    };
    let policy =
        |cluster: &Cluster| Keyspace::policy_in_force(cluster.nodes[&A].engine.membership(), "last:");
    for other in [B, C] {
        cluster.cut(A, other, true);
    }
    commit(&mut cluster, A, vec![lww.change("last:").unwrap()]);
    assert_eq!(policy(&cluster), Some(Policy::Siblings));
    assert_eq!(two_writes(&mut cluster), ["a", "b"]);
    commit(&mut cluster, B, vec![lww.change(other).unwrap()]);
    for other in [B, C] {
        cluster.cut(A, other, false);
    }
    cluster.pass(Duration::from_secs(30));
    let stands = policy(&cluster).is_none();
    if stands {
        for node in [A, B, C] {
            assert_eq!(cluster.copy(node, "last:k").unwrap(), ["a", "b"]);
        }
        commit(&mut cluster, A, vec![lww.change("last:").unwrap()]);
        cluster.pass(Duration::from_secs(30));
    }
    // When all go by it, it holds.
    assert_eq!(policy(&cluster), Some(Policy::Lww));
    assert_eq!(two_writes(&mut cluster), ["b"]);
    stands
}

#[test]
fn by_a_displaced_commit_nothing_is_discarded() {
    assert!((0..30).any(|n| writes_beside(&format!("{n}:"))), "one of two does");
}
