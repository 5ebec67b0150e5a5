//! Writes while a transition is live: one node may be an owner by one layout and a fallback by the other.

mod common;

use common::{Cluster, changes, put};
use gramme_quorum::message::{CallId, Message, Refusal};
use gramme_quorum::planted::Planted;
use gramme_quorum::*;
use gramme_ring::{Change, Layout, Member, NodeId, Phase, Slot, Step};
use std::time::Duration;

const JOINER: NodeId = NodeId(5);

/// A transition in which a fifth node takes over from others, held up. From now on no message arrives that asks for a hint.
fn held_up() -> Cluster {
    held_up_with(|_| {})
}

fn held_up_with(config: fn(&mut Config)) -> Cluster {
    let mut cluster = Cluster::with(4, config);
    cluster.add(JOINER);
    cluster.pass(Duration::from_secs(5));
    let at = NodeId(1);
    cluster.change(at, ClusterOp::Stage(Change::Member(Member::new(JOINER)))).unwrap();
    let hash = cluster.nodes[&at].engine.membership().propose().unwrap().hash();
    cluster.change(at, ClusterOp::Commit(hash)).unwrap();
    let step = |cluster: &Cluster| cluster.nodes[&at].engine.membership().transition().map(|t| t.step());
    while step(&cluster) != Some(Step::Transferring) {
        assert!(cluster.deliver());
    }
    cluster.loses = |_, _, message| match message {
        Message::Gossip(_) => true,
        Message::Write { hints, .. } => !hints.is_empty(),
        _ => false,
    };
    cluster.run();
    cluster
}

/// A key whose list of owners loses its last one to the joiner, who is first in line to stand in by the new layout: the owners that
/// stay, and that one.
fn displaced(cluster: &Cluster) -> (String, [NodeId; 2], NodeId) {
    let transition = cluster.nodes[&NodeId(1)].engine.membership().transition().unwrap();
    let list = |layout: &gramme_ring::Layout, key: &str| {
        layout.preference(layout.partition_of(Slot::of(key.as_bytes()))).collect::<Vec<_>>()
    };
    let fits = |key: String| {
        let (old, new) = (list(transition.from(), &key), list(transition.to(), &key));
        let mut staying = new[..3].iter().copied().filter(|id| *id != JOINER);
        let staying = [staying.next()?, staying.next()?];
        let fits = new[..3].contains(&JOINER) && old[..3].contains(&new[3]);
        (fits && staying.iter().all(|id| old[..3].contains(id))).then_some((key, staying, new[3]))
    };
    (0..10_000).find_map(|i| fits(format!("k{i}"))).expect("the joiner takes over from everybody")
}

/// That a node has the copy that it owns says nothing of the hint that it was asked for afterwards.
#[test]
fn an_acknowledgement_covers_the_hints_it_was_asked_for() {
    let mut cluster = held_up();
    let (key, [coordinator, other], displaced) = displaced(&cluster);
    cluster.pause(JOINER);
    cluster.pause(other);
    cluster.nodes.get_mut(&displaced).unwrap().syncs = false;
    let request = cluster.start_request(coordinator, put(&key, "v", Cover::Held));
    cluster.pass(Duration::from_millis(500));
    cluster.sync(displaced);
    cluster.run();
    assert_eq!(cluster.copy(displaced, &key).unwrap(), ["v"]);
    assert_eq!(cluster.hints(displaced), 0);
    assert!(
        !cluster.replies.contains_key(&request),
        "of the new layout's owners one has it, and no fallback has a hint"
    );
    cluster.loses = |_, _, message| matches!(message, Message::Gossip(_));
    cluster.resume(other);
    assert!(matches!(cluster.replies[&request], Reply::Written { .. }));
}

/// A coordinator whose own copy is in the log stands in for an owner that falls silent like any other node.
#[test]
fn a_coordinator_comes_to_stand_in_for_an_owner() {
    let mut cluster = held_up();
    let (key, [other, silent], coordinator) = displaced(&cluster);
    cluster.pause(JOINER);
    cluster.pause(silent);
    let request = cluster.start_request(coordinator, put(&key, "v", Cover::Held));
    cluster.pass(Duration::from_millis(50));
    assert_eq!(cluster.copy(other, &key).unwrap(), ["v"]);
    assert_eq!((cluster.hints(coordinator), cluster.replies.contains_key(&request)), (0, false));
    cluster.nodes.get_mut(&coordinator).unwrap().syncs = false;
    cluster.pass(Duration::from_millis(450));
    assert!(!cluster.replies.contains_key(&request), "the hint is not durable");
    cluster.sync(coordinator);
    assert!(cluster.hints(coordinator) > 0);
    assert!(matches!(cluster.replies[&request], Reply::Written { .. }));
}

/// By the old layout a node is an owner, and by the new one it is asked to stand in for the coordinator, whose disk is full. It has no room
/// for the one when it comes, and then for the other.
#[test]
fn who_refuses_what_it_was_asked_first_may_have_the_write_all_the_same() {
    let mut cluster = held_up();
    let (key, [coordinator, _], displaced) = displaced(&cluster);
    cluster.loses = |_, _, message| matches!(message, Message::Gossip(_));
    cluster.nodes.get_mut(&coordinator).unwrap().refuses = |place| place.0 < 0x4000;
    cluster.nodes.get_mut(&displaced).unwrap().syncs = false;
    let request = cluster.start_request(coordinator, put(&key, "v", Cover::Held));
    for _ in 0..10 {
        let asked = cluster.wire().filter_map(|(_, to, message)| match message {
            Message::Write { call, hints, .. } => Some((*to, *call, hints.is_empty())),
            _ => None,
        });
        let asked: Vec<(NodeId, CallId, bool)> = asked.collect();
        // What it is asked for besides is all that it takes.
        cluster.lose(|_, to, message| match message {
            Message::Write { hints, .. } => to != displaced || hints.is_empty(),
            _ => false,
        });
        cluster.run();
        for (node, call, plain) in asked {
            if node != displaced || plain {
                let why = Refusal::Overloaded;
                cluster.input(coordinator, Input::Peer(node, Message::Refused { call, why }));
            }
        }
    }
    assert_eq!((cluster.copy(displaced, &key).is_some(), cluster.hints(displaced)), (true, 1));
    cluster.sync(displaced);
    cluster.pass(Duration::from_secs(6));
    let reply = &cluster.replies[&request];
    assert!(matches!(reply, Reply::Failed(OpError::Indeterminate { .. })), "{reply:?}");
}

/// It takes what it was asked first, and refuses to stand in besides: somebody else is asked at once.
#[test]
fn who_has_the_write_may_refuse_to_stand_in() {
    let mut cluster = held_up();
    let (key, [coordinator, _], displaced) = displaced(&cluster);
    cluster.loses = |_, _, message| matches!(message, Message::Gossip(_));
    cluster.nodes.get_mut(&coordinator).unwrap().refuses = |place| place.0 < 0x4000;
    let Op::Put { key, value, content_type, expiry, cover, .. } = put(&key, "v", Cover::Held) else {
        unreachable!()
    };
    let options = WriteOptions { w: Some(Level::All), ..WriteOptions::default() };
    let put = Op::Put { key, value, content_type, expiry, cover, options };
    let request = cluster.start_request(coordinator, put);
    let besides = |to: NodeId, message: &Message| match message {
        Message::Write { call, hints, .. } if to == displaced && !hints.is_empty() => Some(*call),
        _ => None,
    };
    let call = cluster.wire().find_map(|(_, to, message)| besides(*to, message));
    let call = call.expect("it is to stand in for the coordinator");
    cluster.lose(|_, to, message| besides(to, message).is_some());
    cluster.run();
    assert!(!cluster.replies.contains_key(&request));
    cluster.input(coordinator, Input::Peer(displaced, Message::Refused { call, why: Refusal::Overloaded }));
    cluster.run();
    let reply = cluster.replies.get(&request);
    assert!(matches!(reply, Some(Reply::Written { .. })), "it waits for nobody: {reply:?}");
}

/// A write that is waited for no more leaves its hint beside the coordinator's copy, by whichever layout that is one.
#[test]
fn a_write_that_is_cut_short_leaves_its_hint_with_the_copy_here() {
    let mut cluster = held_up_with(|config| config.limits.requests = 4);
    let transition = cluster.nodes[&NodeId(1)].engine.membership().transition().unwrap();
    let list = |layout: &gramme_ring::Layout, key: &str| {
        layout.preference(layout.partition_of(Slot::of(key.as_bytes()))).collect::<Vec<_>>()
    };
    let coordinator = NodeId(1);
    // It is an owner by the old layout, and by the new one the last that would stand in for the joiner.
    let fits = |key: &String| {
        let (old, new) = (list(transition.from(), key), list(transition.to(), key));
        old[..3].contains(&coordinator) && new[..3].contains(&JOINER) && new[4] == coordinator
    };
    let keys: Vec<String> = (0..100_000).map(|i| format!("k{i}")).filter(fits).take(20).collect();
    assert_eq!(keys.len(), 20);
    cluster.pause(JOINER);
    for key in &keys {
        let request = cluster.start_request(coordinator, put(key, "v", Cover::Held));
        cluster.run();
        assert!(matches!(cluster.replies[&request], Reply::Written { .. }));
    }
    let lingering = cluster.nodes[&coordinator].engine.status(cluster.now.instant).lingering_writes;
    assert!(lingering <= 4, "{lingering}");
    assert_eq!(cluster.hints(coordinator) + lingering, keys.len());
}

/// A node that lost its disk is to gain a partition, and has asked one of its owners before all went by both layouts: what that one was sent
/// afterwards, by who went by the former layout alone, it does not have.
fn gains_what_it_has_pulled_from_one(planted: Planted) {
    let [a, b, c, gainer] = [1, 2, 3, 4].map(NodeId);
    let mut cluster = Cluster::with(4, |config| config.timing.exchange = Duration::from_secs(3600));
    cluster.pass(Duration::from_secs(5));
    cluster.loses =
        |from, to, message| [from, to].contains(&NodeId(2)) && matches!(message, Message::Gossip(_));
    changes::commit(&mut cluster, a, vec![Change::Member(Member::new(gainer).with_weight(9))]);
    cluster.pass(Duration::from_secs(1));
    let membership = cluster.nodes[&gainer].engine.membership();
    let transition = membership.transition().expect("it waits for one who has yet to hear of it");
    assert_eq!(transition.step(), Step::Acknowledging);
    let owns =
        |layout: &Layout, key: &str| layout.is_owner(layout.partition_of(Slot::of(key.as_bytes())), gainer);
    let gained = |key: &String| !owns(transition.from(), key) && owns(transition.to(), key);
    let key = (0..10_000).map(|i| format!("k{i}")).find(gained).expect("it gains some");

    cluster.crash(gainer);
    cluster.incomplete.insert(gainer);
    cluster.cut(gainer, b, true);
    cluster.cut(gainer, c, true);
    cluster.start_planted(gainer, planted);
    cluster.pass(Duration::from_secs(5));
    cluster.loses = |from, to, message| match message {
        Message::Gossip(_) => [from, to].contains(&NodeId(2)),
        Message::Write { .. } => to == NodeId(3),
        _ => false,
    };
    cluster.put(b, &key, "v", Cover::Held);
    assert_eq!(cluster.copy(a, &key).unwrap(), ["v"]);
    assert_eq!(cluster.copy(c, &key), None);

    cluster.loses = |_, to, message| matches!(message, Message::Write { .. }) && to == NodeId(3);
    let transition = |cluster: &Cluster| {
        let transition = cluster.memberships[&gainer].transition().expect("it is live");
        (transition.step(), transition.phase(gainer))
    };
    while transition(&cluster).0 < Step::Transferring {
        cluster.pass(Duration::from_millis(100));
    }
    cluster.cut(gainer, c, false);
    for _ in 0..1_000_000 {
        if transition(&cluster).1 >= Some(Phase::Synced) {
            assert_eq!(cluster.copy(gainer, &key), Some(vec![String::from("v")]), "it was acknowledged");
            return;
        }
        if !cluster.deliver() {
            cluster.pass(Duration::from_millis(1));
        }
    }
    panic!("it never has what it gains");
}

#[test]
fn what_was_pulled_before_all_write_by_both_layouts_is_no_gain() {
    gains_what_it_has_pulled_from_one(Planted::default());
}

#[cfg(feature = "planted")]
#[test]
#[should_panic(expected = "acknowledged")]
fn that_it_would_be_is_found() {
    gains_what_it_has_pulled_from_one(Planted::one(gramme_quorum::planted::Bug::EarlyPullCounts));
}
