//! Nodes that die, disks that fill, links that break.

mod common;

use common::*;
use gramme_quorum::message::{CallId, Message};
use gramme_quorum::*;
use gramme_ring::NodeId;
use std::time::Duration;

fn read_one() -> ReadOptions {
    r(Level::One)
}

#[test]
fn writes_go_on_with_any_one_node_dead_and_it_catches_up() {
    for dead in [A, B, C] {
        let mut cluster = Cluster::new(3);
        cluster.crash(dead);
        let alive = [A, B, C].into_iter().find(|n| *n != dead).unwrap();
        for i in 0..20 {
            cluster.put(alive, &format!("key {i}"), &format!("value {i}"), Cover::Held);
        }
        cluster.start(dead);
        cluster.pass(Duration::from_secs(5));
        for other in [A, B, C].into_iter().filter(|n| *n != dead) {
            assert_eq!(cluster.hints(other), 0, "hints drain");
            cluster.crash(other);
        }
        for i in 0..20 {
            let (values, _) = cluster.get_with(dead, &format!("key {i}"), read_one());
            assert_eq!(values, [format!("value {i}")]);
        }
    }
}

#[test]
fn with_two_of_three_dead_quorums_fail_at_once_and_one_still_answers() {
    let mut cluster = Cluster::new(3);
    cluster.put(A, "k", "v", Cover::Held);
    cluster.crash(B);
    cluster.crash(C);
    let before = cluster.now;
    let reply = cluster.request(A, put("k", "w", Cover::Held));
    assert_eq!(reply, Reply::Failed(OpError::Quorum { need: Need::W, have: 1, want: 2 }));
    let reply = cluster.request(A, Op::Get { key: "k".into(), options: ReadOptions::default() });
    assert_eq!(reply, Reply::Failed(OpError::Quorum { need: Need::R, have: 1, want: 2 }));
    assert_eq!(cluster.now, before, "no waiting");
    assert_eq!(cluster.get_with(A, "k", read_one()).0, ["v"]);
    assert_eq!(cluster.copy(A, "k").unwrap(), ["v"], "the refused write left nothing");
}

#[test]
fn levels_are_checked() {
    let mut cluster = Cluster::new(3);
    for level in [Level::Count(0), Level::Count(4)] {
        let reply = cluster.request(A, Op::Get { key: "k".into(), options: r(level) });
        assert_eq!(reply, Reply::Failed(OpError::Level { need: Need::R, replicas: 3 }));
    }
    let long = "x".repeat(MAX_KEY + 1);
    let reply = cluster.request(A, put(&long, "v", Cover::Held));
    assert_eq!(reply, Reply::Failed(OpError::KeyLength(65_537)));
    assert_eq!(cluster.request(A, put("", "v", Cover::Held)), Reply::Failed(OpError::KeyLength(0)));
}

#[test]
fn primaries_are_told_from_fallbacks() {
    let mut cluster = Cluster::new(5);
    let list = cluster.preference("k");
    cluster.crash(list[1]);
    let with = |pw| WriteOptions { pw: Some(pw), ..WriteOptions::default() };
    let Op::Put { key, value, content_type, expiry, cover, .. } = put("k", "v", Cover::Held) else {
        unreachable!()
    };
    let op = |options| Op::Put {
        key: key.clone(),
        value: value.clone(),
        content_type: content_type.clone(),
        expiry,
        cover: cover.clone(),
        options,
    };
    let reply = cluster.request(list[0], op(with(Level::All)));
    assert_eq!(reply, Reply::Failed(OpError::Quorum { need: Need::Pw, have: 2, want: 3 }));
    let reply = cluster.request(list[0], op(with(Level::Count(2))));
    assert!(matches!(reply, Reply::Written { .. }), "{reply:?}");
    let all = WriteOptions { w: Some(Level::All), ..WriteOptions::default() };
    let reply = cluster.request(list[0], op(all));
    assert!(matches!(reply, Reply::Written { .. }), "a fallback counts toward W: {reply:?}");
}

#[test]
fn a_stale_copy_is_repaired_by_a_read() {
    let mut cluster = Cluster::new(3);
    cluster.put(A, "k", "old", Cover::Held);
    let request = cluster.start_request(A, put("k", "new", Cover::Held));
    cluster.lose(|_, to, message| to == C && matches!(message, Message::Write { .. }));
    cluster.run();
    assert!(matches!(cluster.replies[&request], Reply::Written { .. }));
    assert_eq!(cluster.copy(C, "k").unwrap(), ["old"]);
    assert_eq!(cluster.get(B, "k").0, ["new"]);
    assert_eq!(cluster.copy(C, "k").unwrap(), ["new"], "read repair");
}

#[test]
fn a_write_that_was_lost_on_its_way_is_hinted() {
    let mut cluster = Cluster::new(3);
    cluster.start_request(A, put("k", "v", Cover::Held));
    cluster.lose(|_, to, message| to == C && matches!(message, Message::Write { .. }));
    cluster.pass(Duration::from_secs(5));
    assert_eq!(cluster.copy(C, "k").unwrap(), ["v"], "no read was needed");
    assert_eq!(cluster.hints(A), 0);
}

#[test]
fn no_acknowledgement_before_the_sync() {
    let mut cluster = Cluster::new(3);
    for node in [A, B, C] {
        cluster.nodes.get_mut(&node).unwrap().syncs = false;
    }
    let request = cluster.start_request(A, put("k", "v", Cover::Held));
    cluster.run();
    assert!(!cluster.replies.contains_key(&request));
    cluster.sync(A);
    cluster.run();
    assert!(!cluster.replies.contains_key(&request), "one durable copy is not two");
    cluster.sync(B);
    cluster.run();
    assert!(matches!(cluster.replies[&request], Reply::Written { .. }));
}

/// An unsynced tail is lost, then the same node mints again: the new dot must not collide with the old one,
/// nor claim it.
#[test]
fn a_lost_tail_does_not_come_back_as_somebody_elses_write() {
    let mut cluster = Cluster::new(3);
    cluster.nodes.get_mut(&A).unwrap().syncs = false;
    let request = cluster.start_request(A, put("k", "first", Cover::Nothing));
    cluster.run();
    assert!(matches!(cluster.replies[&request], Reply::Written { .. }), "B and C hold it");
    cluster.crash(A);
    assert_eq!(cluster.copy(A, "k"), None, "A lost it");
    cluster.start(A);
    cluster.put(A, "k", "second", Cover::Nothing);
    let (mut values, _) = cluster.get(A, "k");
    values.sort();
    assert_eq!(values, ["first", "second"]);
}

#[test]
fn a_full_disk_does_not_stop_the_cluster() {
    let mut cluster = Cluster::new(3);
    cluster.put(A, "k", "before", Cover::Held);
    cluster.nodes.get_mut(&A).unwrap().disk_full = true;
    cluster.put(A, "k", "after", Cover::Held);
    assert_eq!(cluster.get(A, "k").0, ["after"]);
    // The dot of the failed append is out at B and C; the next interval must not claim it.
    cluster.nodes.get_mut(&A).unwrap().disk_full = false;
    cluster.put(A, "k", "sibling", Cover::Nothing);
    let (mut values, _) = cluster.get_with(A, "k", r(Level::All));
    values.sort();
    assert_eq!(values, ["after", "sibling"]);
    for node in [A, B, C] {
        cluster.nodes.get_mut(&node).unwrap().disk_full = true;
    }
    let reply = cluster.request(B, put("k", "nowhere", Cover::Held));
    assert_eq!(reply, Reply::Failed(OpError::Unwritable));
    assert_eq!(cluster.get(C, "k").0.len(), 2, "reads go on");
}

/// The others are lost, and back, while a write waits for its coordinator's disk, which refuses to read its copy: with all of them counted
/// out it surely was not done, and nobody does it afterwards.
#[test]
fn a_write_goes_to_nobody_who_was_counted_out_before_it_had_its_dot() {
    let mut cluster = Cluster::new(3);
    cluster.put(A, "k", "before", Cover::Held);
    cluster.loses = |_, to, message| to == A && matches!(message, Message::Write { .. });
    cluster.put(B, "k", "other", Cover::Held);
    let coordinator = cluster.nodes.get_mut(&A).unwrap();
    coordinator.damaged.insert((place("k"), "k".into()));
    coordinator.refuses_reads = true;
    coordinator.loads = false;
    let id = cluster.start_request(A, put("k", "v", Cover::Nothing));
    // It asks the others first what is there, and then reads its own once more.
    cluster.load(A);
    cluster.nodes.get_mut(&A).unwrap().loads = false;
    cluster.run();
    assert_eq!((cluster.replies.get(&id), cluster.nodes[&A].held_loads.len()), (None, 1));
    for cut in [true, false] {
        cluster.cut(A, B, cut);
        cluster.cut(A, C, cut);
    }
    cluster.load(A);
    let told = cluster.replies.get(&id).cloned();
    cluster.pass(Duration::from_secs(1));
    let done = cluster.get(B, "k").0.contains(&String::from("v"));
    let definite = matches!(&told, Some(Reply::Failed(error)) if !error.changed());
    assert!(definite, "{told:?}");
    assert!(!done, "it was told {told:?}");
}

/// A member that is mistaken, or hostile, acknowledges what it guesses that the coordinator will send, while that waits for its disk.
#[test]
fn who_acknowledges_a_write_before_it_is_sent_is_not_counted() {
    let mut cluster = Cluster::new(3);
    cluster.start_request(A, put("k", "before", Cover::Held));
    let sent = |(_, _, message): &(NodeId, NodeId, Message)| match message {
        Message::Write { call, .. } => Some(call.0),
        _ => None,
    };
    let last = cluster.wire().find_map(sent).unwrap();
    cluster.run();
    cluster.nodes.get_mut(&A).unwrap().loads = false;
    let id = cluster.start_request(A, put("k", "v", Cover::Nothing));
    for call in last..last + 10 {
        for peer in [B, C] {
            let message = Message::Written { call: CallId(call), hints: Vec::new(), outranking: None };
            cluster.input(A, Input::Peer(peer, message));
        }
    }
    assert!(!cluster.replies.contains_key(&id), "nobody has it");
    cluster.load(A);
    cluster.run();
    assert!(matches!(cluster.replies.get(&id), Some(Reply::Written { .. })));
    for node in [A, B, C] {
        assert!(cluster.copy(node, "k").unwrap().contains(&"v".into()), "{node}");
    }
}

#[test]
fn a_damaged_copy_is_unknown_and_healed_from_the_others() {
    let mut cluster = Cluster::new(3);
    cluster.put(A, "k", "v", Cover::Held);
    let record = (place("k"), bytes::Bytes::from("k"));
    cluster.nodes.get_mut(&A).unwrap().damaged.insert(record.clone());
    assert_eq!(cluster.get(A, "k").0, ["v"], "the others answer");
    assert!(!cluster.nodes[&A].damaged.contains(&record), "and the copy is healed");
    assert_eq!(cluster.copy(A, "k").unwrap(), ["v"]);
    // Alone with a damaged copy, nothing is claimed.
    cluster.nodes.get_mut(&A).unwrap().damaged.insert(record);
    cluster.crash(B);
    cluster.crash(C);
    let reply = cluster.request(A, Op::Get { key: "k".into(), options: read_one() });
    assert_eq!(reply, Reply::Failed(OpError::Quorum { need: Need::R, have: 0, want: 1 }));
}

#[test]
fn other_nodes_forward() {
    let mut cluster = Cluster::new(5);
    let list = cluster.preference("k");
    let outsider = list[4];
    cluster.put(outsider, "k", "v", Cover::Held);
    assert_eq!(cluster.get(outsider, "k").0, ["v"]);
    assert_eq!(cluster.copy(outsider, "k"), None);
    let asked =
        cluster.delivered.iter().filter(|(f, _, m)| *f == outsider && matches!(m, Message::Forward { .. }));
    assert_eq!(asked.count(), 2);
}

#[test]
fn a_forwarded_write_whose_coordinator_dies_is_indeterminate() {
    let mut cluster = Cluster::new(5);
    let list = cluster.preference("k");
    let request = cluster.start_request(list[4], put("k", "v", Cover::Held));
    cluster.crash(list[0]);
    cluster.run();
    assert!(matches!(cluster.replies[&request], Reply::Failed(OpError::Indeterminate { .. })));
}

/// Repeated messages count once.
#[test]
fn a_repeated_acknowledgement_is_one_acknowledgement() {
    let mut cluster = Cluster::new(3);
    cluster.nodes.get_mut(&A).unwrap().syncs = false;
    cluster.nodes.get_mut(&C).unwrap().syncs = false;
    let request = cluster.start_request(A, put("k", "v", Cover::Held));
    cluster.run();
    let ack = cluster
        .delivered
        .iter()
        .rev()
        .find(|(from, _, m)| *from == B && matches!(m, Message::Written { .. }));
    let (_, _, ack) = ack.cloned().expect("B acknowledged");
    for _ in 0..3 {
        cluster.input(A, Input::Peer(B, ack.clone()));
    }
    cluster.run();
    assert!(!cluster.replies.contains_key(&request), "B alone is not a quorum of two");
    cluster.sync(A);
    assert!(cluster.replies.contains_key(&request));
}

#[test]
fn a_paused_peer_is_suspected_and_forgiven() {
    let mut cluster = Cluster::new(3);
    cluster.pass(Duration::from_secs(5));
    let alive = |cluster: &Cluster| {
        let list = cluster.nodes[&A].engine.preference(b"k");
        list.iter().any(|(id, _, alive)| *id == C && *alive)
    };
    cluster.pause(C);
    cluster.pass(Duration::from_secs(1));
    assert!(alive(&cluster), "a second of silence is not a failure");
    // Not suspected yet: the write goes to C as well, and C's share is kept as a hint when it stays silent.
    cluster.put(A, "early", "v", Cover::Held);
    cluster.pass(Duration::from_secs(1));
    assert!(!alive(&cluster), "two seconds are");
    cluster.put(A, "late", "v", Cover::Held);
    let all = WriteOptions { w: Some(Level::All), ..WriteOptions::default() };
    let Op::Put { key, value, content_type, expiry, cover, .. } = put("k", "v", Cover::Held) else {
        unreachable!()
    };
    let reply = cluster.request(A, Op::Put { key, value, content_type, expiry, cover, options: all });
    assert_eq!(reply, Reply::Failed(OpError::Quorum { need: Need::W, have: 2, want: 3 }));
    cluster.resume(C);
    assert!(alive(&cluster), "it speaks again");
    cluster.pass(Duration::from_secs(5));
    for key in ["early", "late"] {
        assert_eq!(cluster.copy(C, key).unwrap(), ["v"], "{key}");
    }
    assert_eq!(cluster.hints(A), 0);
}

#[test]
fn siblings_are_bounded_at_coordinators() {
    let mut cluster = Cluster::with(3, |config| config.limits.siblings = 5);
    for i in 0..5 {
        cluster.put(A, "k", &format!("{i}"), Cover::Nothing);
    }
    let reply = cluster.request(A, put("k", "one more", Cover::Nothing));
    assert_eq!(reply, Reply::Failed(OpError::TooManySiblings));
    let (values, context) = cluster.get(B, "k");
    assert_eq!(values.len(), 5);
    cluster.put(A, "k", "merged", Cover::Context(context));
    assert_eq!(cluster.get(B, "k").0, ["merged"]);
}

#[test]
fn a_cluster_of_one_serves() {
    let mut cluster = Cluster::new(1);
    cluster.put(A, "k", "v", Cover::Held);
    assert_eq!(cluster.get(A, "k").0, ["v"]);
    cluster.crash(A);
    cluster.start(A);
    cluster.run();
    assert_eq!(cluster.get_with(A, "k", r(Level::All)).0, ["v"]);
}

#[test]
fn a_repeated_forward_is_coordinated_once() {
    let mut cluster = Cluster::new(5);
    let list = cluster.preference("k");
    let outsider = list[4];
    cluster.put(outsider, "k", "old", Cover::Held);
    let forward = cluster.delivered.iter().find(|(_, _, m)| matches!(m, Message::Forward { .. }));
    let (from, to, forward) = forward.cloned().expect("the outsider forwarded");
    cluster.put(list[1], "k", "new", Cover::Held);
    cluster.input(to, Input::Peer(from, forward));
    cluster.run();
    assert_eq!(cluster.get(list[1], "k").0, ["new"]);
}

/// A peer that claims writes which this run has not made yet is not believed: the next write would pass for
/// replaced.
#[test]
fn claims_about_our_own_future_are_refused() {
    let mut cluster = Cluster::new(3);
    let context = cluster.put(A, "k", "v", Cover::Held);
    let actor = context.seen.spans()[0].actor;
    let mut seen = context.seen.clone();
    let Ok(()) = seen.insert(gramme_vclock::Dot { actor, counter: 1000 });
    let forged = object::encode(&Object::from_parts([], seen).unwrap());
    let message = Message::Write {
        sync: message::Syncing::First,
        call: gramme_quorum::message::CallId(1),
        layout: cluster.memberships[&A].layout().unwrap().version(),
        purpose: gramme_quorum::message::Purpose::Repair,
        key: "k".into(),
        object: forged,
        hints: vec![],
        outranked_by: None,
    };
    cluster.input(A, Input::Peer(B, message));
    cluster.run();
    assert_eq!(cluster.copy(A, "k").unwrap(), ["v"]);
    cluster.put(A, "k", "w", Cover::Held);
    assert_eq!(cluster.get_with(C, "k", r(Level::All)).0, ["w"]);
}

#[test]
fn nothing_is_acknowledged_after_a_failed_sync() {
    let mut cluster = Cluster::new(3);
    cluster.crash(C);
    cluster.nodes.get_mut(&A).unwrap().syncs = false;
    let request = cluster.start_request(A, put("k", "v", Cover::Held));
    cluster.input(A, Input::SyncFailed);
    // A disk that says so all the same: the pages were dropped.
    cluster.input(A, Input::Synced(AppendId(1_000_000), 0));
    cluster.pass(Duration::from_secs(10));
    let reply = cluster.replies.get(&request);
    assert!(matches!(reply, Some(Reply::Failed(OpError::Indeterminate { need: Need::W, .. }))), "{reply:?}");
    // Nor what is there already, by the looks of it.
    let again = cluster.delivered.iter().find_map(|(_, to, m)| match m {
        Message::Write { .. } if *to == B => Some(m.clone()),
        _ => None,
    });
    cluster.delivered.clear();
    cluster.input(A, Input::Peer(B, again.expect("B was sent the write")));
    cluster.pass(Duration::from_secs(1));
    let acknowledged = |m: &Message| matches!(m, Message::Written { .. });
    assert!(!cluster.delivered.iter().any(|(from, _, m)| *from == A && acknowledged(m)));
}

/// What is finished leaves no timer and no state behind.
#[test]
fn nothing_accumulates() {
    let mut cluster = Cluster::new(3);
    for i in 0..200 {
        cluster.put(A, &format!("k{i}"), "v", Cover::Held);
        cluster.get(A, &format!("k{i}"));
    }
    // Heartbeat, gossip and exchange are due, and for five seconds a look whether some record never came.
    for (time, timers) in [(3, 4), (3, 3)] {
        cluster.pass(Duration::from_secs(time));
        let status = cluster.nodes[&A].engine.status(cluster.now.instant);
        assert_eq!((status.requests, status.local, status.timers), (0, 0, timers));
    }
    // A request that lasts past a short timeout leaves its hints all the same.
    cluster.pause(C);
    let timeout = Some(Duration::from_millis(50));
    let options = WriteOptions { w: Some(Level::All), timeout, ..WriteOptions::default() };
    let Op::Put { key, value, content_type, expiry, cover, .. } = put("late", "v", Cover::Held) else {
        unreachable!()
    };
    let reply = cluster.request(A, Op::Put { key, value, content_type, expiry, cover, options });
    assert_eq!(reply, Reply::Failed(OpError::Indeterminate { need: Need::W, have: 2, want: 3 }));
    assert_eq!(cluster.hints(A), 1);
    cluster.resume(C);
    cluster.pass(Duration::from_secs(5));
    assert_eq!(cluster.hints(A), 0);
    assert_eq!(cluster.copy(C, "late").unwrap(), ["v"]);
}

/// A fallback was asked in place of a silent owner and knows nothing, then the owner dies: nobody is left to
/// answer, and the read must say so at once, whatever spare nodes there are.
#[test]
fn a_read_that_runs_out_of_answers_fails() {
    let mut cluster = Cluster::new(6);
    let list = cluster.preference("k");
    cluster.put(list[0], "k", "v", Cover::Held);
    cluster.pause(list[2]);
    let request = cluster.start_request(list[0], Op::Get { key: "k".into(), options: r(Level::All) });
    cluster.pass(Duration::from_millis(500));
    assert!(!cluster.replies.contains_key(&request), "the owner may still answer");
    cluster.crash(list[2]);
    cluster.run();
    let expected = Reply::Failed(OpError::Quorum { need: Need::R, have: 2, want: 3 });
    assert_eq!(cluster.replies.get(&request), Some(&expected));
}

/// A silent owner and the fallback asked in its stead are one copy: the fallback drops its own once the owner has
/// it, so two acknowledgements from them are not W = 2.
#[test]
fn an_owner_and_its_stand_in_are_one_copy() {
    let mut cluster = Cluster::new(4);
    let list = cluster.preference("k");
    cluster.nodes.get_mut(&list[0]).unwrap().syncs = false;
    cluster.pause(list[1]);
    cluster.pause(list[2]);
    let request = cluster.start_request(list[0], put("k", "v", Cover::Held));
    cluster.pass(Duration::from_millis(500));
    let acknowledged = |(from, _, m): &_| *from == list[3] && matches!(m, Message::Written { .. });
    assert!(
        cluster.delivered.iter().any(acknowledged),
        "the one spare node stands in for the slow coordinator"
    );
    cluster.sync(list[0]);
    assert!(!cluster.replies.contains_key(&request), "the coordinator's copy twice is not two copies");
    cluster.resume(list[1]);
    assert!(matches!(cluster.replies[&request], Reply::Written { .. }));
}

#[test]
fn an_object_has_one_spelling() {
    let mut cluster = Cluster::new(3);
    cluster.put(A, "k", "v", Cover::Held);
    let write = cluster.delivered.iter().find_map(|(_, _, m)| match m {
        Message::Write { object, .. } => Some(object.to_vec()),
        _ => None,
    });
    let bytes = write.expect("the write went out");
    assert!(object::decode(&bytes).is_ok());
    // The number of spans, 1, spelt in two bytes.
    let overlong = [&[bytes[0] | 0x80, 0], &bytes[1..]].concat();
    assert_eq!(object::decode(&overlong), Err(object::Malformed));
    assert_eq!(object::decode(&[&bytes[..], &[0]].concat()), Err(object::Malformed));
}

/// A node that starts on a full disk can't store its actor, so it mints nothing; its clients' writes go to others.
#[test]
fn a_node_without_an_actor_forwards_writes() {
    let mut cluster = Cluster::new(3);
    cluster.put(A, "k", "old", Cover::Held);
    cluster.crash(C);
    cluster.start_on_a_full_disk(C);
    cluster.put(C, "k", "new", Cover::Held);
    assert_eq!(cluster.get(C, "k").0, ["new"]);
    let forwards = |(from, _, m): &&(_, _, Message)| *from == C && matches!(m, Message::Forward { .. });
    assert_eq!(cluster.delivered.iter().filter(forwards).count(), 1);
}

/// A node whose disk was full from the start can't mint, and asks the others to; if none of them can, the disks are the reason.
#[test]
fn where_no_disk_has_room_from_the_start_that_is_said() {
    let mut cluster = Cluster::new(3);
    for id in [A, B, C] {
        cluster.crash(id);
        cluster.wipe(id);
        cluster.incomplete.remove(&id);
        cluster.start_on_a_full_disk(id);
    }
    cluster.pass(Duration::from_secs(3));
    assert_eq!(
        cluster.request(A, put("k", "v", Cover::Held)),
        Reply::Failed(OpError::Unwritable),
        "nobody can write"
    );
    for id in [A, B, C] {
        cluster.nodes.get_mut(&id).unwrap().disk_full = false;
    }
    cluster.pass(Duration::from_secs(3));
    cluster.put(A, "k", "v", Cover::Held);
}

/// A replica refuses the write, and takes the same write again for the coordinator, whose own disk is full: that nothing was written
/// can't be said.
#[test]
fn a_refusal_says_nothing_of_what_was_asked_afterwards() {
    let mut cluster = Cluster::new(3);
    cluster.crash(C);
    for id in [A, B] {
        cluster.nodes.get_mut(&id).unwrap().disk_full = true;
    }
    let request = cluster.start_request(A, put("k", "v", Cover::Held));
    let refused = |(_, to, m): &(_, _, Message)| *to == A && matches!(m, Message::Refused { .. });
    while !cluster.wire().any(refused) {
        assert!(cluster.deliver());
    }
    cluster.nodes.get_mut(&B).unwrap().disk_full = false;
    cluster.pass(Duration::from_secs(6));
    assert_eq!(cluster.copy(B, "k").unwrap(), ["v"]);
    assert!(
        matches!(cluster.replies[&request], Reply::Failed(OpError::Indeterminate { .. })),
        "{:?}",
        cluster.replies[&request]
    );
}
