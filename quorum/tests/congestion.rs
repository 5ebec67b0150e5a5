//! Peers that take messages more slowly than they come, and objects so large that a few of them are a flood.

mod common;

use common::*;
use gramme_quorum::message::{CallId, Message, Purpose, Refusal, Want};
use gramme_quorum::*;
use gramme_ring::NodeId;
use std::time::Duration;

fn congested(cluster: &mut Cluster, at: NodeId, to: NodeId, congested: bool) {
    cluster.input(at, Input::Congested(to, congested));
}

#[test]
fn a_write_goes_on_without_a_congested_owner_which_gets_it_later() {
    let mut cluster = Cluster::new(3);
    congested(&mut cluster, A, C, true);
    cluster.delivered.clear();
    cluster.put(A, "k", "v", Cover::Held);
    cluster.pass(Duration::from_secs(3));
    assert_eq!(cluster.copy(B, "k"), Some(vec![String::from("v")]));
    let writes = |cluster: &Cluster| {
        let to_c = cluster.delivered.iter().filter(|(from, to, _)| (*from, *to) == (A, C));
        to_c.filter(|(_, _, m)| matches!(m, Message::Write { .. })).count()
    };
    assert_eq!((writes(&cluster), cluster.hints(A)), (0, 1));
    congested(&mut cluster, A, C, false);
    cluster.pass(Duration::from_secs(3));
    assert_eq!(cluster.copy(C, "k"), Some(vec![String::from("v")]));
    assert_eq!((writes(&cluster), cluster.hints(A)), (1, 0));
}

#[test]
fn a_write_that_only_congestion_holds_up_waits() {
    let mut cluster = Cluster::new(3);
    congested(&mut cluster, A, B, true);
    congested(&mut cluster, A, C, true);
    let request = cluster.start_request(A, put("k", "v", Cover::Held));
    cluster.pass(Duration::from_millis(300));
    assert_eq!((cluster.replies.get(&request), cluster.copy(A, "k")), (None, None), "not begun");
    congested(&mut cluster, A, C, false);
    cluster.run();
    assert!(matches!(cluster.replies.get(&request), Some(Reply::Written { .. })));
    // Not for long: as a silent replica is waited for.
    congested(&mut cluster, A, C, true);
    let before = cluster.now.instant;
    let reply = cluster.request(A, put("late", "v", Cover::Held));
    assert_eq!(reply, Reply::Failed(OpError::Overloaded));
    assert!(cluster.now.instant.since(before) <= Duration::from_millis(500));
    assert_eq!(cluster.copy(A, "late"), None, "nothing was done");
    // And not for somebody who is gone.
    let request = cluster.start_request(A, put("gone", "v", Cover::Held));
    cluster.crash(B);
    assert_eq!(cluster.replies.get(&request), None);
    cluster.crash(C);
    let quorum = OpError::Quorum { need: Need::W, have: 1, want: 2 };
    assert_eq!(cluster.replies.get(&request), Some(&Reply::Failed(quorum)));
    let status = cluster.nodes[&A].engine.status(cluster.now.instant);
    assert_eq!(status.requests, 0);
}

#[test]
fn what_waits_is_bounded() {
    let mut cluster = Cluster::new(3);
    congested(&mut cluster, A, B, true);
    congested(&mut cluster, A, C, true);
    let value = "x".repeat(15 << 20);
    let requests: Vec<_> =
        (0..6).map(|i| cluster.start_request(A, put(&format!("key {i}"), &value, Cover::Held))).collect();
    let overloaded =
        requests.iter().filter(|r| cluster.replies.get(r) == Some(&Reply::Failed(OpError::Overloaded)));
    assert_eq!(overloaded.count(), 2, "four of 15 MiB may wait, the others are told at once");
    congested(&mut cluster, A, B, false);
    cluster.run();
    let written = requests.iter().filter(|r| matches!(cluster.replies.get(r), Some(Reply::Written { .. })));
    assert_eq!(written.count(), 4);
}

/// Nodes other than these have room for one operation, which waits for their disk.
fn with_full(nodes: u64, room: &[NodeId]) -> Cluster {
    let mut cluster = Cluster::with(nodes, |config| config.limits.local = 1);
    let full: Vec<NodeId> = cluster.nodes.keys().copied().filter(|id| !room.contains(id)).collect();
    for id in full {
        cluster.nodes.get_mut(&id).unwrap().loads = false;
        let get = Op::Get { key: "other".into(), options: r(Level::One) };
        cluster.start_request(id, get);
        cluster.run();
    }
    cluster.delivered.clear();
    cluster
}

#[test]
fn a_write_that_enough_replicas_have_no_room_for_fails_at_once() {
    // This node's own copy is durable, or in its log.
    for (syncs, have) in [(true, 1), (false, 0)] {
        let mut cluster = with_full(3, &[A]);
        cluster.nodes.get_mut(&A).unwrap().syncs = syncs;
        let request = cluster.start_request(A, put("k", "v", Cover::Held));
        cluster.run();
        let indeterminate = OpError::Indeterminate { need: Need::W, have, want: 2 };
        assert_eq!(cluster.replies.get(&request), Some(&Reply::Failed(indeterminate)), "no time has passed");
        assert!(cluster.copy(A, "k").is_some());
    }
    // Nor can it be stored here: nothing was done, and later there may be room.
    let mut cluster = with_full(3, &[A]);
    cluster.nodes.get_mut(&A).unwrap().disk_full = true;
    let request = cluster.start_request(A, put("k", "v", Cover::Held));
    cluster.run();
    assert_eq!(cluster.replies.get(&request), Some(&Reply::Failed(OpError::Overloaded)));
    for id in [A, B, C] {
        assert_eq!(cluster.copy(id, "k"), None);
    }
}

#[test]
fn fallbacks_take_what_owners_have_no_room_for() {
    let list = Cluster::new(5).preference("k");
    let mut cluster = with_full(5, &[list[0], list[3], list[4]]);
    cluster.put(list[0], "k", "v", Cover::Held);
    for (full, fallback) in [(list[1], list[3]), (list[2], list[4])] {
        assert_eq!((cluster.copy(full, "k"), cluster.hints(fallback)), (None, 1));
    }
}

#[test]
fn a_congested_peer_is_not_sent_what_it_asks_for() {
    let mut cluster = Cluster::new(3);
    cluster.put(A, "k", "v", Cover::Held);
    congested(&mut cluster, A, B, true);
    let layout = cluster.memberships[&A].layout().unwrap().version();
    let (key, call) = (bytes::Bytes::from("k"), CallId(99));
    let get = Op::Get { key: key.clone(), options: ReadOptions::default() };
    for question in [
        Message::Read { call, layout, key: key.clone(), want: Want::Object },
        Message::Forward { call, op: get, heard: None },
        Message::List { call, layout, slots: (0, 63), cursor: None, objects: false },
    ] {
        cluster.delivered.clear();
        cluster.input(A, Input::Peer(B, question));
        cluster.run();
        let refused = Message::Refused { call, why: Refusal::Overloaded };
        assert!(cluster.delivered.contains(&(A, B, refused)));
    }
    // A digest is no burden.
    cluster.delivered.clear();
    cluster.input(A, Input::Peer(B, Message::Read { call, layout, key, want: Want::Digest }));
    cluster.run();
    assert!(
        cluster
            .delivered
            .iter()
            .any(|(from, to, m)| (*from, *to) == (A, B) && matches!(m, Message::Copy { .. }))
    );
}

#[test]
fn large_objects_are_handed_over_one_by_one_and_small_ones_together() {
    for (size, least, most) in [(5 << 20, 1, 1), (100, 20, 32)] {
        let mut cluster = Cluster::new(3);
        cluster.crash(C);
        let value = "x".repeat(size);
        for i in 0..if size > 1000 { 6 } else { 200 } {
            cluster.put(A, &format!("key {i}"), &value, Cover::Held);
        }
        cluster.start(C);
        let (mut largest, mut steps) = (0, 0);
        while cluster.hints(A) > 0 {
            let under_way = cluster.wire().filter(|(from, to, m)| {
                let handoff = matches!(m, Message::Write { purpose: Purpose::Handoff, .. });
                (*from, *to) == (A, C) && handoff
            });
            largest = largest.max(under_way.count());
            if !cluster.deliver() {
                cluster.pass(Duration::from_millis(100));
            }
            steps += 1;
            assert!(steps < 10_000, "the hints do not drain");
        }
        assert!((least..=most).contains(&largest), "{largest} of {size} bytes at a time");
    }
}

/// A plain delete waits with what its read has shown.
#[test]
fn deletes_that_wait_are_bounded_by_what_they_bring() {
    let mut cluster = Cluster::new(3);
    let value = "x".repeat(15 << 20);
    for i in 0..6 {
        cluster.put(A, &format!("key {i}"), &value, Cover::Held);
    }
    congested(&mut cluster, A, B, true);
    congested(&mut cluster, A, C, true);
    let requests: Vec<_> =
        (0..6).map(|i| cluster.start_request(A, delete(&format!("key {i}"), Cover::Held))).collect();
    cluster.run();
    let overloaded =
        requests.iter().filter(|r| cluster.replies.get(r) == Some(&Reply::Failed(OpError::Overloaded)));
    assert_eq!(overloaded.count(), 2);
    congested(&mut cluster, A, B, false);
    cluster.run();
    let written = requests.iter().filter(|r| matches!(cluster.replies.get(r), Some(Reply::Written { .. })));
    assert_eq!(written.count(), 4);
}

/// Each that waits ends in its own time, the first ones first, and one timer is enough for all of them.
#[test]
fn what_waits_ends_in_its_own_time() {
    let mut cluster = Cluster::new(3);
    congested(&mut cluster, A, B, true);
    congested(&mut cluster, A, C, true);
    let timers = |cluster: &Cluster| cluster.nodes[&A].engine.status(cluster.now.instant).timers;
    let before = timers(&cluster);
    let mut requests = Vec::new();
    // The last one has less time than those before it.
    for (i, timeout) in [None, None, None, None, Some(Duration::from_millis(30))].into_iter().enumerate() {
        let Op::Put { key, value, content_type, expiry, cover, options } =
            put(&format!("key {i}"), "v", Cover::Held)
        else {
            unreachable!()
        };
        let options = WriteOptions { timeout, ..options };
        let op = Op::Put { key, value, content_type, expiry, cover, options };
        requests.push(cluster.start_request(A, op));
        cluster.pass(Duration::from_millis(10));
    }
    assert!(timers(&cluster) <= before + 2, "{} after {before}", timers(&cluster));
    let answered = |cluster: &Cluster| -> Vec<bool> {
        requests.iter().map(|request| cluster.replies.contains_key(request)).collect()
    };
    cluster.pass(Duration::from_millis(20));
    assert_eq!(answered(&cluster), [false, false, false, false, true]);
    // 70 ms have passed since the first.
    cluster.pass(Duration::from_millis(345));
    assert_eq!(answered(&cluster), [true, true, false, false, true]);
    cluster.pass(Duration::from_millis(20));
    assert_eq!(answered(&cluster), [true; 5]);
    assert_eq!(timers(&cluster), before);
}
