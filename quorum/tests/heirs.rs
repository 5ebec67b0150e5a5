//! Hints for nodes that are no members, or of which their keeper has yet to hear that they are.

mod common;

use common::*;
use gramme_quorum::message::{CallId, Message, Purpose, Refusal, Syncing};
use gramme_quorum::*;
use gramme_ring::{Change, Member, NodeId, Phase};
use std::time::Duration;

/// A fallback whose knowledge of the cluster is an old one keeps a write for an owner of which it has not heard. It makes of that hints for
/// those whom it takes for the owners, and when it has heard of the change it offers them what it holds and does not own.
#[test]
fn a_write_kept_for_an_owner_not_heard_of_reaches_it() {
    let mut cluster = Cluster::with(5, |config| config.timing.exchange = Duration::from_secs(10_000));
    let new = NodeId(6);
    cluster.add(new);
    cluster.pass(Duration::from_secs(5));
    let books = cluster.memberships.clone();
    let join = Change::Member(Member::new(new));
    cluster.change(A, ClusterOp::Stage(join)).unwrap();
    let hash = cluster.nodes[&A].engine.membership().propose().unwrap().hash();
    cluster.change(A, ClusterOp::Commit(hash)).unwrap();
    cluster.pass(Duration::from_secs(20));
    assert!(cluster.nodes.values().all(|node| node.engine.membership().transition().is_none()));
    let mut tried = 0;
    for key in (0..).map(|i| format!("key {i}")) {
        let list = cluster.preference(&key);
        if tried == 5 {
            break;
        } else if !list[..3].contains(&new) {
            continue;
        }
        tried += 1;
        let keeper = list[3];
        let has = *list.iter().find(|id| **id != new).unwrap();
        let settled = cluster.memberships[&keeper].clone();
        cluster.crash(keeper);
        cluster.memberships.insert(keeper, books[&keeper].clone());
        cluster.loses = |_, _, message| matches!(message, Message::Gossip(_));
        cluster.start(keeper);
        // The keeper sees it, as a stranger; the coordinator does not.
        cluster.cut(has, new, true);
        let request = cluster.start_request(has, put(&key, "v", Cover::Held));
        cluster.run();
        cluster.pass(Duration::from_millis(300));
        assert!(matches!(cluster.replies[&request], Reply::Written { .. }), "{key}");
        cluster.pass(Duration::from_secs(5));
        assert_eq!(cluster.nodes[&keeper].engine.membership().layout(), books[&keeper].layout());
        cluster.loses = |_, _, _| false;
        cluster.pass(Duration::from_secs(8));
        assert_eq!(cluster.memberships[&keeper].layout(), settled.layout());
        assert_eq!(cluster.copy(new, &key).unwrap(), ["v"], "{key}");
        cluster.cut(has, new, false);
        cluster.pass(Duration::from_secs(20));
        assert_eq!(cluster.hints(keeper), 0);
    }
}

/// It hears of the change while it looks for hints of nodes that are no members.
#[test]
fn a_write_kept_for_an_owner_just_heard_of_reaches_it() {
    let mut cluster = Cluster::with(3, |config| config.timing.exchange = Duration::from_secs(10_000));
    let new = NodeId(4);
    cluster.add(new);
    cluster.put(B, "k", "v", Cover::Held);
    cluster.pass(Duration::from_secs(5));
    let (key, layout) = (bytes::Bytes::from("k"), cluster.memberships[&A].layout().unwrap().version());
    let object = cluster.nodes[&B].durable[&(common::place("k"), key.clone())].clone();
    let write = Message::Write {
        call: CallId(1),
        layout,
        purpose: Purpose::Write,
        key,
        object,
        hints: vec![new],
        sync: Syncing::First,
        outranked_by: None,
    };
    cluster.nodes.get_mut(&A).unwrap().lists = false;
    cluster.input(A, Input::Peer(B, write));
    assert_eq!(cluster.hints(A), 1);
    cluster.change(B, ClusterOp::Stage(Change::Member(Member::new(new)))).unwrap();
    let hash = cluster.nodes[&B].engine.membership().propose().unwrap().hash();
    cluster.change(B, ClusterOp::Commit(hash)).unwrap();
    cluster.pass(Duration::from_secs(5));
    assert!(cluster.nodes[&A].engine.layout().unwrap().is_member(new));
    cluster.list(A);
    cluster.pass(Duration::from_secs(30));
    assert_eq!(cluster.hints(A), 0);
    assert!(cluster.copy(new, "k").is_some());
}

/// A full disk still takes what removes something. A hint for who was removed goes only when those for its heirs are there.
#[test]
fn a_hint_stays_until_its_heirs_have_theirs() {
    let mut cluster = Cluster::with(5, |config| config.timing.exchange = Duration::from_secs(10_000));
    let list = cluster.preference("k");
    let (gone, keeper) = (list[2], list[3]);
    cluster.crash(gone);
    cluster.put(list[0], "k", "v", Cover::Held);
    assert_eq!(cluster.hints(keeper), 1);
    // Removals alone find room.
    cluster.nodes.get_mut(&keeper).unwrap().takes_only_removals = true;
    changes::commit(&mut cluster, list[0], vec![Change::Remove(gone)]);
    cluster.pass(Duration::from_secs(20));
    assert_eq!(cluster.hints(keeper), 1, "it is all that tells of the write");
    cluster.nodes.get_mut(&keeper).unwrap().takes_only_removals = false;
    cluster.pass(Duration::from_secs(20));
    assert_eq!(cluster.hints(keeper), 0);
    for owner in &cluster.preference("k")[..3] {
        assert_eq!(cluster.copy(*owner, "k").unwrap(), ["v"], "{owner}");
    }
}

/// A power cut may tear the one and leave the other.
#[test]
fn a_hint_stays_until_its_heirs_are_durable() {
    let mut cluster = Cluster::with(5, |config| config.timing.exchange = Duration::from_secs(10_000));
    let list = cluster.preference("k");
    let (gone, keeper) = (list[2], list[3]);
    cluster.crash(gone);
    cluster.put(list[0], "k", "v", Cover::Held);
    changes::commit(&mut cluster, list[0], vec![Change::Remove(gone)]);
    cluster.nodes.get_mut(&keeper).unwrap().syncs = false;
    cluster.run();
    let of_gone =
        |(place, key): &(Place, bytes::Bytes)| place.0 >= 0x8000 && key.starts_with(&gone.0.to_be_bytes());
    assert!(cluster.hints(keeper) > 1, "those for its heirs are in the log");
    assert_eq!(cluster.records(keeper).filter(|record| of_gone(record)).count(), 1);
    cluster.sync(keeper);
    assert_eq!(cluster.records(keeper).filter(|record| of_gone(record)).count(), 0);
}

/// Who was no member when its hint was looked at may be one when those for its heirs are durable.
#[test]
fn a_hint_for_one_that_becomes_a_member_meanwhile_stays() {
    let mut cluster = Cluster::with(4, |config| config.timing.exchange = Duration::from_secs(10_000));
    let (keeper, joiner) = (A, NodeId(5));
    cluster.add(joiner);
    cluster.pass(Duration::from_secs(5));
    cluster.put(B, "k", "v", Cover::Held);
    let layout = cluster.memberships[&A].layout().unwrap().version();
    let holder = cluster.preference("k")[0];
    let object = cluster.nodes[&holder].durable[&(place("k"), "k".into())].clone();
    cluster.nodes.get_mut(&keeper).unwrap().syncs = false;
    let write = Message::Write {
        call: CallId(1),
        layout,
        purpose: Purpose::Write,
        key: "k".into(),
        object,
        hints: vec![joiner],
        sync: Syncing::First,
        outranked_by: None,
    };
    // Its sender knows of a commit that this node has not heard of.
    cluster.input(keeper, Input::Peer(B, write));
    let of_joiner =
        |(place, key): &&(Place, bytes::Bytes)| place.0 >= 0x8000 && key.starts_with(&joiner.0.to_be_bytes());
    assert!(cluster.hints(keeper) > 1, "heirs are to have it");
    cluster.change(B, ClusterOp::Stage(Change::Member(Member::new(joiner)))).unwrap();
    let hash = cluster.nodes[&B].engine.membership().propose().unwrap().hash();
    cluster.change(B, ClusterOp::Commit(hash)).unwrap();
    cluster.run();
    assert!(cluster.nodes[&keeper].engine.membership().transition().is_some(), "it has heard");
    cluster.loses = |_, _, message| matches!(message, Message::Write { .. });
    cluster.sync(keeper);
    cluster.run();
    assert_eq!(cluster.records(keeper).filter(of_joiner).count(), 1);
    cluster.loses = |_, _, _| false;
    cluster.pass(Duration::from_secs(20));
    assert_eq!(cluster.records(keeper).filter(of_joiner).count(), 0);
    assert_eq!(cluster.copy(joiner, "k"), cluster.copy(holder, "k"));
}

/// A coordinator that has not heard of it yet has a fallback stand in for a node that was removed: the write is taken, and nothing kept.
#[test]
fn nothing_is_kept_for_who_was_removed() {
    let mut cluster = Cluster::with(5, |config| config.timing.exchange = Duration::from_secs(10_000));
    let list = cluster.preference("k");
    let (keeper, gone) = (list[3], list[4]);
    cluster.put(list[0], "k", "v", Cover::Held);
    cluster.crash(gone);
    changes::commit(&mut cluster, list[0], vec![Change::Remove(gone)]);
    cluster.pass(Duration::from_secs(20));
    let object = cluster.nodes[&list[0]].durable[&(place("k"), "k".into())].clone();
    let layout = cluster.memberships[&keeper].layout().unwrap().version();
    let write = Message::Write {
        call: CallId(1),
        layout,
        purpose: Purpose::Write,
        key: "k".into(),
        object,
        hints: vec![gone],
        sync: Syncing::First,
        outranked_by: None,
    };
    cluster.delivered.clear();
    cluster.input(keeper, Input::Peer(list[0], write));
    assert_eq!(cluster.hints(keeper), 0);
    cluster.run();
    let written = Message::Written { call: CallId(1), hints: Vec::new(), outranking: None };
    assert!(cluster.delivered.contains(&(keeper, list[0], written)));
}

/// It has declared that nothing depends on it any more, and may go at any time.
#[test]
fn who_has_left_keeps_nothing_for_others() {
    let mut cluster = Cluster::with(5, |config| config.timing.exchange = Duration::from_secs(10_000));
    let list = cluster.preference("k");
    let (reader, owner, leaver) = (list[0], list[1], list[3]);
    cluster.put(reader, "k", "v", Cover::Held);
    let object = cluster.nodes[&reader].durable[&(place("k"), "k".into())].clone();
    // A read by the old layout is under way as long as this, so that the change does not end.
    cluster.loses = |_, _, message| matches!(message, Message::Copy { .. });
    let options = ReadOptions { timeout: Some(Duration::from_secs(60)), ..r(Level::All) };
    cluster.start_request(reader, Op::Get { key: "k".into(), options });
    changes::commit(&mut cluster, reader, vec![Change::Leave(leaver)]);
    cluster.pass(Duration::from_secs(20));
    let phase = cluster.nodes[&leaver].engine.membership().transition().expect("it is live").phase(leaver);
    assert_eq!(phase, Some(Phase::Moved));
    cluster.cut(leaver, owner, true);
    let layout = cluster.memberships[&leaver].layout().unwrap().version();
    let write = Message::Write {
        call: CallId(1),
        layout,
        purpose: Purpose::Write,
        key: "k".into(),
        object,
        hints: vec![owner],
        sync: Syncing::First,
        outranked_by: None,
    };
    cluster.delivered.clear();
    cluster.input(leaver, Input::Peer(reader, write));
    cluster.run();
    let refused = Message::Refused { call: CallId(1), why: Refusal::Overloaded };
    assert!(cluster.delivered.contains(&(leaver, reader, refused)));
    cluster.pass(Duration::from_secs(60));
    assert!(cluster.nodes[&leaver].engine.membership().transition().is_none());
    assert_eq!(cluster.hints(leaver), 0, "it would go with them");
}

/// A coordinator that waits for a node, with nobody to stand in for it, keeps nothing for it when it is removed meanwhile.
#[test]
fn nothing_is_kept_for_who_is_removed_while_a_write_waits_for_it() {
    let mut cluster = Cluster::with(3, |config| config.timing.exchange = Duration::from_secs(10_000));
    cluster.pause(C);
    cluster.start_request(A, put("k", "v", Cover::Held));
    cluster.run();
    changes::commit(&mut cluster, A, vec![Change::Remove(C)]);
    cluster.pass(Duration::from_secs(20));
    assert!(cluster.nodes[&A].engine.membership().transition().is_none());
    for id in [A, B] {
        let status = cluster.nodes[&id].engine.status(cluster.now.instant);
        assert_eq!((status.hints_kept, status.hints_refused), (0, 0), "{id}");
    }
}

/// One dies for good when it has done its part of a change, and another, which leaves by it, keeps writes for it. It is removed in the midst
/// of the change, which would wait for the one, while the removal waited for the change.
#[test]
fn a_dead_member_is_removed_while_one_that_leaves_keeps_writes_for_it() {
    let mut cluster = Cluster::new(5);
    let (leaves, dies) = (NodeId(4), NodeId(5));
    let commit = |cluster: &mut Cluster, change| {
        cluster.change(A, ClusterOp::Stage(change)).unwrap();
        let hash = cluster.nodes[&A].engine.membership().propose().unwrap().hash();
        cluster.change(A, ClusterOp::Commit(hash))
    };
    for n in 0..100 {
        cluster.put(A, &format!("before {n}"), "v", Cover::Held);
    }
    // Nobody can tell it that they have what it has.
    cluster.loses = |_, to, message| to == NodeId(4) && matches!(message, Message::Offered { .. });
    commit(&mut cluster, Change::Leave(leaves)).unwrap();
    cluster.pass(Duration::from_secs(10));
    let waits = |cluster: &Cluster| {
        cluster.nodes[&A].engine.membership().transition().map(|t| (t.step(), t.waiting_for()))
    };
    assert_eq!(waits(&cluster), Some((gramme_ring::Step::Moving, vec![leaves])));
    cluster.crash(dies);
    cluster.pass(Duration::from_secs(5));
    let mut written = Vec::new();
    for key in (0..300).map(|n| format!("key {n}")) {
        let hints = cluster.hints(leaves);
        let coordinator = cluster.preference(&key).into_iter().find(|node| ![leaves, dies].contains(node));
        cluster.put(coordinator.unwrap(), &key, "v", Cover::Held);
        if cluster.hints(leaves) > hints {
            written.push(key);
        }
    }
    assert!(!written.is_empty(), "it keeps none");
    cluster.loses = |_, _, _| false;
    cluster.pass(Duration::from_secs(60));
    assert_eq!(waits(&cluster), Some((gramme_ring::Step::Moving, vec![leaves])));
    cluster.change(A, ClusterOp::Stage(Change::Remove(dies))).unwrap();
    cluster.pass(Duration::from_secs(60));
    assert_eq!(waits(&cluster), None);
    assert_eq!(cluster.hints(leaves), 0);
    let hash = cluster.nodes[&A].engine.membership().propose().unwrap().hash();
    cluster.change(A, ClusterOp::Commit(hash)).unwrap();
    cluster.pass(Duration::from_secs(30));
    assert_eq!(cluster.nodes[&B].engine.membership().layout().unwrap().members().len(), 3);
    cluster.crash(leaves);
    for key in written {
        for node in [A, B, C] {
            assert_eq!(cluster.copy(node, &key).unwrap(), ["v"], "{key} at {node}");
        }
    }
}
