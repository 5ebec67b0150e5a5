//! Fallbacks, what they keep for others, and how they hand it over.

mod common;

use common::*;
use gramme_quorum::message::{Message, Purpose};
use gramme_quorum::*;
use gramme_ring::NodeId;
use std::collections::BTreeSet;
use std::time::Duration;

#[test]
fn a_fallback_hands_over_and_forgets() {
    let mut cluster = Cluster::new(5);
    let list = cluster.preference("k");
    let (owner, fallback) = (list[2], list[3]);
    cluster.crash(owner);
    cluster.put(list[0], "k", "v", Cover::Held);
    assert_eq!(cluster.copy(fallback, "k").unwrap(), ["v"]);
    assert_eq!(cluster.hints(fallback), 1);
    assert_eq!(cluster.copy(owner, "k"), None);
    cluster.start(owner);
    cluster.pass(Duration::from_secs(3));
    assert_eq!(cluster.copy(owner, "k").unwrap(), ["v"]);
    assert_eq!(cluster.hints(fallback), 0);
    assert_eq!(cluster.copy(fallback, "k"), None, "a fallback keeps nothing that is not its own");
}

/// The owner comes back between the arrival of the deferred write and the moment its hint is on disk: the listing that
/// its return starts finds nothing yet.
#[test]
fn a_hint_that_is_written_while_its_owner_returns_is_handed_over() {
    let mut cluster = Cluster::new(5);
    let list = cluster.preference("k");
    let (owner, fallback) = (list[2], list[3]);
    cluster.crash(owner);
    cluster.nodes.get_mut(&fallback).unwrap().loads = false;
    cluster.start_request(list[0], put("k", "v", Cover::Held));
    cluster.run();
    cluster.start(owner);
    cluster.run();
    cluster.load(fallback);
    assert_eq!(cluster.hints(fallback), 1);
    cluster.pass(Duration::from_secs(3));
    assert_eq!(cluster.copy(owner, "k").unwrap(), ["v"]);
    assert_eq!(cluster.hints(fallback), 0);
}

/// A coordinator stands in for one owner, which is back and has taken its write, before it gives another one up: what it keeps for
/// that one is a copy as well as a hint.
#[test]
fn a_coordinator_that_has_handed_over_keeps_the_write_for_another_owner() {
    let mut cluster = Cluster::with(4, |config| config.timing.exchange = Duration::from_secs(3600));
    let list = cluster.preference("k");
    let (silent, away, fallback) = (list[1], list[2], list[3]);
    cluster.crash(away);
    cluster.start_request(fallback, put("k", "v", Cover::Nothing));
    cluster.lose(|_, to, message| to == silent && matches!(message, Message::Write { .. }));
    cluster.run();
    cluster.start(away);
    cluster.pass(Duration::from_millis(200));
    assert_eq!(cluster.copy(away, "k").unwrap(), ["v"]);
    assert_eq!(cluster.copy(fallback, "k"), None, "it has served");
    cluster.pass(Duration::from_secs(5));
    assert_eq!(cluster.copy(silent, "k").unwrap(), ["v"]);
    assert_eq!((cluster.hints(fallback), cluster.copy(fallback, "k")), (0, None));
}

#[test]
fn a_fallback_keeps_what_another_owner_still_waits_for() {
    let mut cluster = Cluster::new(5);
    let list = cluster.preference("k");
    let (first, second, fallback) = (list[1], list[2], list[3]);
    // Two owners are down in turn, and the same fallback stands in for both.
    cluster.crash(first);
    cluster.put(list[0], "k", "one", Cover::Held);
    cluster.crash(second);
    cluster.put(list[0], "k", "two", Cover::Held);
    assert!(cluster.hints(fallback) >= 1);
    cluster.start(first);
    cluster.pass(Duration::from_secs(3));
    cluster.start(second);
    cluster.pass(Duration::from_secs(3));
    for owner in &list[..3] {
        assert_eq!(cluster.copy(*owner, "k").unwrap(), ["two"], "owner {owner}");
    }
    for other in &list[3..] {
        assert_eq!(cluster.copy(*other, "k"), None, "fallback {other}");
        assert_eq!(cluster.hints(*other), 0);
    }
}

/// An owner without room refuses all that is kept for it: it is asked now and then, not without end, and no key is
/// forgotten behind others.
#[test]
fn a_full_owner_is_offered_its_hints_a_few_at_a_time() {
    let mut cluster = Cluster::new(3);
    cluster.crash(C);
    let keys: Vec<String> = (0..200).map(|i| format!("key {i}")).collect();
    for key in &keys {
        cluster.put(A, key, "v", Cover::Held);
    }
    cluster.start(C);
    cluster.nodes.get_mut(&C).unwrap().refuses = |place| place != RUN_PLACE;
    cluster.delivered.clear();
    cluster.pass(Duration::from_secs(10));
    let offers = cluster.delivered.iter().filter_map(|(_, to, message)| match message {
        Message::Write { purpose: Purpose::Handoff, key, .. } if *to == C => Some(key),
        _ => None,
    });
    let (offers, offered) = (offers.clone().count(), offers.collect::<BTreeSet<_>>().len());
    assert!(offers <= 11 * Limits::default().handoff, "{offers} offers in ten seconds");
    assert_eq!(offered, keys.len(), "each of them has been tried");
    cluster.nodes.get_mut(&C).unwrap().refuses = |_| false;
    cluster.pass(Duration::from_secs(20));
    assert_eq!(cluster.hints(A), 0);
    for key in &keys {
        assert_eq!(cluster.copy(C, key).unwrap(), ["v"]);
    }
}

/// What the owner has taken before a link breaks is not offered to it again: a handoff that begins anew each time never ends where links
/// hold for less long than it takes.
#[test]
fn a_handoff_that_is_cut_goes_on_with_the_rest() {
    let mut cluster = Cluster::new(4);
    let list = cluster.preference("{k}");
    let (owner, fallback) = (list[2], list[3]);
    cluster.crash(owner);
    for i in 0..60 {
        cluster.put(list[0], &format!("{{k}}{i}"), "v", Cover::Held);
    }
    assert_eq!(cluster.hints(fallback), 60);
    cluster.start(owner);
    let mut sent = 0;
    for left in [45, 30, 15] {
        while cluster.hints(fallback) > left {
            assert!(cluster.deliver() || cluster.hints(fallback) <= left);
        }
        cluster.cut(fallback, owner, true);
        cluster.pass(Duration::from_secs(1));
        let rest = cluster.hints(fallback);
        assert!(rest > 0 && rest <= left);
        cluster.delivered.clear();
        cluster.cut(fallback, owner, false);
        sent = rest;
    }
    cluster.pass(Duration::from_secs(10));
    let handed = |(from, to, message): &&_| {
        *from == fallback
            && *to == owner
            && matches!(message, Message::Write { purpose: Purpose::Handoff, .. })
    };
    assert_eq!(cluster.delivered.iter().filter(handed).count(), sent);
    assert_eq!(cluster.hints(fallback), 0);
    assert_eq!(cluster.copy(owner, "{k}59"), Some(vec![String::from("v")]));
}

/// A coordinator without room has no copy beside which it could keep a hint, and nobody else would know what it lacks.
#[test]
fn a_full_coordinator_is_handed_what_it_coordinated() {
    for nodes in [3, 5] {
        let mut cluster = Cluster::new(nodes);
        let list = cluster.preference("k");
        cluster.nodes.get_mut(&list[0]).unwrap().refuses = |place| place != RUN_PLACE;
        cluster.put(list[0], "k", "v", Cover::Held);
        assert_eq!(cluster.copy(list[0], "k"), None);
        let hints = |cluster: &Cluster| list.iter().map(|id| cluster.hints(*id)).sum::<usize>();
        assert_eq!(hints(&cluster), 1, "of {nodes} one keeps it for the coordinator");
        cluster.nodes.get_mut(&list[0]).unwrap().refuses = |_| false;
        // Long before replicas are compared.
        cluster.pass(Duration::from_secs(3));
        assert_eq!(cluster.copy(list[0], "k").unwrap(), ["v"]);
        assert_eq!(hints(&cluster), 0);
    }
}

/// A fallback mints, hands over, drops its copy and mints again: the second write must not claim the first.
#[test]
fn a_fallback_that_mints_twice_erases_nothing() {
    let mut cluster = Cluster::new(5);
    let list = cluster.preference("k");
    let fallback = list[3];
    for value in ["first", "second"] {
        // Only the fallback is left of the coordinators: it mints.
        for owner in &list[..3] {
            cluster.crash(*owner);
        }
        let w = WriteOptions { w: Some(Level::One), ..WriteOptions::default() };
        let Op::Put { key, value, content_type, expiry, cover, .. } = put("k", value, Cover::Nothing) else {
            unreachable!()
        };
        let op = Op::Put { key, value, content_type, expiry, cover, options: w };
        let reply = cluster.request(fallback, op);
        assert!(matches!(reply, Reply::Written { .. }), "{reply:?}");
        for owner in &list[..3] {
            cluster.start(*owner);
        }
        cluster.pass(Duration::from_secs(5));
        assert_eq!(cluster.copy(fallback, "k"), None, "handed over and dropped");
    }
    let (mut values, _) = cluster.get(list[0], "k");
    values.sort();
    assert_eq!(values, ["first", "second"]);
}

#[test]
fn an_empty_fallback_never_says_absent() {
    let mut cluster = Cluster::new(5);
    let list = cluster.preference("k");
    cluster.put(list[0], "k", "v", Cover::Held);
    for owner in &list[..3] {
        cluster.crash(*owner);
    }
    let reply = cluster.request(list[3], Op::Get { key: "k".into(), options: r(Level::One) });
    assert_eq!(reply, Reply::Failed(OpError::Quorum { need: Need::R, have: 0, want: 1 }));
}

/// A coordinator that stands in for a dead owner owes it a hint like any other fallback.
#[test]
fn a_hint_for_nobody_who_could_be_served_is_refused() {
    let mut cluster = Cluster::new(3);
    for nobody in [A, gramme_ring::NodeId(99)] {
        let call = gramme_quorum::message::CallId(nobody.0);
        let message = Message::Write {
            sync: message::Syncing::First,
            call,
            layout: cluster.memberships[&A].layout().unwrap().version(),
            purpose: gramme_quorum::message::Purpose::Write,
            key: "k".into(),
            object: object::encode(&Object::new()),
            hints: vec![nobody],
            outranked_by: None,
        };
        cluster.input(A, Input::Peer(B, message));
        cluster.run();
        let refused = Message::Refused { call, why: gramme_quorum::message::Refusal::Malformed };
        assert!(cluster.delivered.contains(&(A, B, refused)));
    }
    assert_eq!(cluster.hints(A), 0);
}

#[test]
fn a_fallback_acknowledges_only_if_it_keeps_both_the_write_and_the_hint() {
    let refuses: [fn(Place) -> bool; 2] = [|place| place.0 >= 0x8000, |place| place.0 < 0x4000];
    for refuses in refuses {
        let mut cluster = Cluster::new(5);
        let list = cluster.preference("k");
        cluster.crash(list[2]);
        cluster.crash(list[4]);
        cluster.nodes.get_mut(&list[3]).unwrap().refuses = refuses;
        let Op::Put { key, value, content_type, expiry, cover, .. } = put("k", "v", Cover::Held) else {
            unreachable!()
        };
        let options = WriteOptions { w: Some(Level::All), ..WriteOptions::default() };
        let reply = cluster.request(list[0], Op::Put { key, value, content_type, expiry, cover, options });
        assert_eq!(reply, Reply::Failed(OpError::Indeterminate { need: Need::W, have: 2, want: 3 }));
    }
}

/// A copy that is there without its hint can be read, so that nobody may say that nothing was written.
#[test]
fn a_copy_without_its_hint_is_no_definite_failure() {
    for coordinator in [0, 3] {
        let mut cluster = Cluster::new(5);
        let list = cluster.preference("k");
        cluster.crash(list[2]);
        for full in [list[0], list[1], list[4]] {
            cluster.nodes.get_mut(&full).unwrap().refuses = |place| place != RUN_PLACE;
        }
        cluster.nodes.get_mut(&list[3]).unwrap().refuses = |place| place.0 >= 0x8000;
        let reply = cluster.request(list[coordinator], put("k", "v", Cover::Held));
        assert_eq!(cluster.copy(list[3], "k").unwrap(), ["v"]);
        assert!(matches!(reply, Reply::Failed(OpError::Indeterminate { .. })), "{reply:?}");
    }
}

#[test]
fn where_no_disk_has_room_for_either_the_failure_is_definite() {
    let mut cluster = Cluster::new(5);
    let list = cluster.preference("k");
    cluster.crash(list[2]);
    for node in cluster.nodes.values_mut() {
        node.disk_full = true;
    }
    let reply = cluster.request(list[0], put("k", "v", Cover::Held));
    assert_eq!(reply, Reply::Failed(OpError::Unwritable));
}

#[test]
fn a_coordinating_fallback_keeps_a_hint() {
    let mut cluster = Cluster::new(5);
    let list = cluster.preference("k");
    cluster.crash(list[2]);
    cluster.put(list[3], "k", "v", Cover::Held);
    assert_eq!(cluster.hints(list[3]), 1, "the fallback coordinated, and stands in for the third owner");
    cluster.start(list[2]);
    cluster.pass(Duration::from_secs(3));
    assert_eq!(cluster.copy(list[2], "k").unwrap(), ["v"]);
    assert_eq!(cluster.hints(list[3]), 0);
    assert_eq!(cluster.copy(list[3], "k"), None);
}

#[test]
fn a_hint_that_a_full_disk_keeps_goes_when_there_is_room() {
    let mut cluster = Cluster::new(3);
    cluster.crash(C);
    cluster.put(A, "k", "v", Cover::Held);
    assert_eq!(cluster.hints(A), 1);
    cluster.nodes.get_mut(&A).unwrap().disk_full = true;
    cluster.start(C);
    cluster.pass(Duration::from_secs(3));
    assert_eq!(cluster.copy(C, "k").unwrap(), ["v"]);
    assert_eq!(cluster.hints(A), 1, "its removal finds no room");
    cluster.nodes.get_mut(&A).unwrap().disk_full = false;
    cluster.pass(Duration::from_secs(3));
    assert_eq!(cluster.hints(A), 0);
}

/// All is handed over, once for each connection, while no hint can be removed for want of room; then one of them is, now and then, to see
/// whether there is room.
#[test]
fn hints_that_a_full_disk_keeps_are_not_handed_over_again_and_again() {
    let mut cluster = Cluster::new(3);
    cluster.crash(C);
    let keys: Vec<String> = (0..200).map(|i| format!("key {i}")).collect();
    for key in &keys {
        cluster.put(A, key, "v", Cover::Held);
    }
    cluster.nodes.get_mut(&A).unwrap().disk_full = true;
    cluster.delivered.clear();
    cluster.start(C);
    cluster.pass(Duration::from_secs(60));
    let offered = |cluster: &Cluster| {
        let handed = |(from, to, message): &&_| {
            (*from, *to) == (A, C) && matches!(message, Message::Write { purpose: Purpose::Handoff, .. })
        };
        cluster.delivered.iter().filter(handed).count()
    };
    let offers = offered(&cluster);
    assert!((200..=265).contains(&offers), "{offers} offers of 200 hints in a minute");
    assert_eq!(cluster.hints(A), 200);
    // Who comes back may have lost them.
    cluster.crash(C);
    cluster.start(C);
    cluster.pass(Duration::from_secs(10));
    assert!((offers + 200..=offers + 215).contains(&offered(&cluster)), "{} offers", offered(&cluster));
    // When there is room one after the other goes.
    cluster.nodes.get_mut(&A).unwrap().disk_full = false;
    cluster.pass(Duration::from_secs(10));
    assert_eq!(cluster.hints(A), 0);
    for key in &keys {
        assert_eq!(cluster.copy(C, key).unwrap(), ["v"]);
    }
}

/// A node that writes nothing any more hands over what it keeps, once, and leaves it to its next run to remove the hints.
#[test]
fn hints_that_can_never_be_removed_are_handed_over_once() {
    // The disk fails before the owner is back, or when all is handed over.
    for before in [true, false] {
        let mut cluster = Cluster::new(3);
        cluster.crash(C);
        for i in 0..50 {
            cluster.put(A, &format!("key {i}"), "v", Cover::Held);
        }
        cluster.delivered.clear();
        let fail = |cluster: &mut Cluster| {
            cluster.nodes.get_mut(&A).unwrap().disk_full = true;
            cluster.input(A, Input::SyncFailed);
        };
        cluster.nodes.get_mut(&A).unwrap().syncs = false;
        if before {
            fail(&mut cluster);
            cluster.start(C);
        } else {
            cluster.start(C);
            cluster.run();
            fail(&mut cluster);
        }
        cluster.pass(Duration::from_secs(30));
        let handed = |(from, to, message): &&_| {
            (*from, *to) == (A, C) && matches!(message, Message::Write { purpose: Purpose::Handoff, .. })
        };
        assert_eq!(cluster.delivered.iter().filter(handed).count(), 50);
        assert_eq!(cluster.copy(C, "key 49").unwrap(), ["v"]);
        let status = cluster.nodes[&A].engine.status(cluster.now.instant);
        assert!(status.peers.iter().any(|peer| peer.id == C && peer.hints_pending), "they are there still");
        cluster.crash(A);
        assert_eq!(cluster.hints(A), 50);
        cluster.start(A);
        cluster.pass(Duration::from_secs(3));
        assert_eq!(cluster.hints(A), 0);
    }
}

/// The write is there without it, and nobody waits for it: that it is missing shows.
#[test]
fn a_hint_without_room_is_counted() {
    let mut cluster = Cluster::new(3);
    cluster.crash(C);
    cluster.put(A, "k", "v", Cover::Held);
    let counts = |cluster: &Cluster| {
        let status = cluster.nodes[&A].engine.status(cluster.now.instant);
        (status.hints_kept, status.hints_refused)
    };
    assert_eq!((counts(&cluster), cluster.hints(A)), ((1, 0), 1));
    cluster.nodes.get_mut(&A).unwrap().refuses = |place| place.0 >= 0x8000;
    cluster.put(A, "l", "v", Cover::Held);
    assert_eq!((counts(&cluster), cluster.hints(A)), ((1, 1), 1));
}

/// What a fallback kept goes when it has served, and if the disk refuses that, later.
#[test]
fn a_copy_that_has_served_and_could_not_go_goes_when_there_is_room() {
    let mut cluster = Cluster::new(5);
    let list = cluster.preference("k");
    let (owner, fallback) = (list[2], list[3]);
    cluster.crash(owner);
    cluster.put(list[0], "k", "v", Cover::Held);
    assert_eq!(cluster.hints(fallback), 1);
    cluster.nodes.get_mut(&fallback).unwrap().refuses = |place| place.0 < 0x8000;
    cluster.start(owner);
    // Nor can its slot be dropped when its owners have been asked.
    cluster.pass(Duration::from_secs(60));
    assert_eq!((cluster.copy(owner, "k").is_some(), cluster.hints(fallback)), (true, 0));
    assert!(cluster.copy(fallback, "k").is_some(), "its removal was refused");
    cluster.nodes.get_mut(&fallback).unwrap().refuses = |_| false;
    cluster.pass(Duration::from_secs(30));
    assert_eq!(cluster.copy(fallback, "k"), None);
}

/// Who has no room for what it is to keep has nothing new to offer anybody.
#[test]
fn writes_that_find_no_room_are_not_looked_for() {
    let mut cluster = Cluster::new(5);
    let list = cluster.preference("k");
    let (owner, fallback) = (list[2], list[3]);
    cluster.crash(owner);
    cluster.put(list[0], "k", "v", Cover::Held);
    assert_eq!(cluster.hints(fallback), 1);
    cluster.nodes.get_mut(&fallback).unwrap().takes_only_removals = true;
    for i in 0..300 {
        cluster.put(list[0], &format!("{{k}}{i}"), "v", Cover::Held);
        cluster.pass(Duration::from_secs(1));
    }
    let offers = |(from, _, message): &&(NodeId, NodeId, Message)| {
        *from == fallback && matches!(message, Message::Offer { .. })
    };
    assert_eq!(cluster.delivered.iter().filter(offers).count(), 0);
    assert_eq!(cluster.nodes[&fallback].engine.status(cluster.now.instant).sweeping_partitions, 0);
}

/// Whether others still wait for a copy was looked up once before, for one that was written anew since: those answers, which come late, say
/// nothing of the hints that came with it.
#[test]
fn what_was_looked_up_for_a_former_copy_lets_no_later_one_go() {
    let mut cluster = Cluster::new(4);
    let [first, second, third, fallback] = cluster.preference("k")[..] else { panic!("four nodes") };
    // The first one has what was kept for it; whether the others wait for the copy is being looked up.
    let served = |cluster: &mut Cluster| {
        let handed = |(from, to, m): &(NodeId, NodeId, Message)| {
            (*from, *to) == (fallback, first) && matches!(m, Message::Write { purpose: Purpose::Handoff, .. })
        };
        cluster.delivered.clear();
        while !cluster.delivered.iter().any(handed) {
            cluster.pass(Duration::from_millis(1));
        }
        cluster.nodes.get_mut(&fallback).unwrap().loads = false;
        cluster.sync(first);
        cluster.run();
        let copy = std::mem::take(&mut cluster.nodes.get_mut(&fallback).unwrap().held_loads);
        assert_eq!(copy.len(), 1);
        copy.into_iter().for_each(|loaded| cluster.input(fallback, loaded));
        assert_eq!(cluster.nodes[&fallback].held_loads.len(), 2);
    };
    cluster.pause(first);
    cluster.put(second, "k", "one", Cover::Held);
    cluster.pass(Duration::from_secs(2));
    assert_eq!(cluster.hints(fallback), 1);
    cluster.nodes.get_mut(&first).unwrap().syncs = false;
    cluster.wake(first);
    served(&mut cluster);
    let node = cluster.nodes.get_mut(&fallback).unwrap();
    let late = std::mem::take(&mut node.held_loads);
    node.loads = true;

    // A later write that two of them miss.
    cluster.loses = |_, _, message| matches!(message, Message::Write { purpose: Purpose::Handoff, .. });
    cluster.pause(first);
    cluster.put(third, "k", "two", Cover::Held);
    cluster.pass(Duration::from_secs(2));
    cluster.resume(first);
    cluster.pause(second);
    cluster.pass(Duration::from_secs(10));
    cluster.nodes.get_mut(&first).unwrap().syncs = false;
    cluster.put(third, "k", "three", Cover::Held);
    cluster.pass(Duration::from_secs(2));
    assert_eq!(cluster.hints(fallback), 2);
    cluster.loses = |_, _, _| false;
    served(&mut cluster);
    late.into_iter().for_each(|loaded| cluster.input(fallback, loaded));
    cluster.load(fallback);
    cluster.run();
    assert!(cluster.copy(fallback, "k").is_some(), "a copy for which an owner waits");
    cluster.resume(second);
    cluster.pass(Duration::from_secs(30));
    assert_eq!(cluster.copy(second, "k"), Some(vec![String::from("three")]));
    assert_eq!((cluster.hints(fallback), cluster.copy(fallback, "k")), (0, None));
}
