//! What a node holds and does not own reaches those who do, whoever of them refuses and whatever answers are lost.

mod common;

use bytes::Bytes;
use common::changes::commit;
use common::strays::*;
use common::{A, B, C, Cluster};
use gramme_quorum::message::{CallId, Message, Purpose, Syncing};
use gramme_quorum::planted::Planted;
use gramme_quorum::*;
use gramme_ring::{Change, NodeId, Slot};
use std::time::Duration;

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

/// A has taken all, and B is about to, when something comes that neither has been shown.
fn something_comes_between(planted: Planted) {
    let mut cluster = Cluster::with(4, |config| config.timing.exchange = Duration::from_secs(5));
    cluster.crash(D);
    cluster.start_planted(D, planted);
    cluster.pass(Duration::from_secs(2));
    let key = left_behind(&mut cluster);
    // B has something to sync before it can say that all is durable.
    cluster.nodes.get_mut(&B).unwrap().syncs = false;
    cluster.put(A, "other", "v", Cover::Held);
    cluster.loses = |from, to, message| match message {
        Message::Offered { .. } => from == C,
        Message::Write { .. } => to == B || to == C,
        _ => false,
    };
    let offered = |(from, to, message): &(NodeId, NodeId, Message)| {
        (*from, *to) == (B, D) && matches!(message, Message::List { .. })
    };
    while !cluster.delivered.iter().any(offered) {
        cluster.pass(Duration::from_millis(100));
    }
    let options = WriteOptions { w: Some(Level::One), ..WriteOptions::default() };
    let (name, value) = (Bytes::from(key.clone()), Bytes::from_static(b"late"));
    let late = Op::Put { key: name, value, content_type: None, expiry: None, cover: Cover::Held, options };
    assert!(matches!(cluster.request(A, late), Reply::Written { .. }));
    send_copy(&mut cluster, &key, &[]);
    cluster.sync(B);
    cluster.run();
    cluster.loses = |_, _, _| false;
    for _ in 0..600 {
        let late = Some(vec![String::from("late")]);
        let owners = [A, B, C].into_iter().filter(|owner| cluster.copy(*owner, &key) == late);
        let few = owners.count() < 2;
        assert!(!few || cluster.copy(D, &key).is_some(), "a copy goes that fewer than two owners have");
        cluster.pass(Duration::from_millis(100));
    }
    assert_eq!(cluster.copy(D, &key), None);
}

#[test]
fn what_comes_while_a_partition_is_taken_is_offered_too() {
    something_comes_between(Planted::default());
}

#[cfg(feature = "planted")]
#[test]
#[should_panic(expected = "fewer than two owners have")]
fn a_sweep_that_ignores_what_comes_is_found() {
    something_comes_between(Planted::one(gramme_quorum::planted::Bug::SweepIgnoresArrivals));
}

/// By another layout it is an owner of what it offers: answers that come late let nothing go.
#[test]
fn who_becomes_an_owner_of_what_it_offers_keeps_it() {
    let mut cluster = Cluster::with(4, |config| config.timing.exchange = Duration::from_secs(5));
    let key = left_behind(&mut cluster);
    cluster.loses = |from, _, message| from != A && matches!(message, Message::Offered { .. });
    cluster.delivered.clear();
    cluster.pass(Duration::from_secs(10));
    assert_eq!(sweeping(&cluster), 1);
    let offers = cluster.delivered.iter().filter_map(|(_, to, message)| match message {
        Message::Offer { call, .. } if *to != A => Some((*to, *call)),
        _ => None,
    });
    let offers: Vec<_> = offers.collect();
    assert!(offers.len() > 1);
    common::changes::commit(&mut cluster, A, vec![Change::Leave(C)]);
    let layout = |cluster: &Cluster| cluster.memberships[&D].layout().unwrap().version();
    let before = layout(&cluster);
    let answer = |cluster: &mut Cluster| {
        for (node, call) in &offers {
            cluster.input(D, Input::Peer(*node, Message::Offered { call: *call, whole: true }));
        }
        assert!(cluster.copy(D, &key).is_some());
    };
    while layout(&cluster) == before {
        assert!(cluster.deliver());
    }
    answer(&mut cluster);
    cluster.loses = |_, _, _| false;
    while cluster.nodes[&D].engine.membership().transition().is_some() {
        cluster.pass(Duration::from_millis(100));
        answer(&mut cluster);
    }
    cluster.pass(Duration::from_secs(20));
    answer(&mut cluster);
    assert_eq!(sweeping(&cluster), 0);
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

/// Just then somebody has it stand in once more, and the disk takes neither: it is looked at again.
#[test]
fn a_copy_that_could_not_be_replaced_as_it_was_to_go_goes_later() {
    let mut refused = 0;
    for rounds in 0..6 {
        let (mut cluster, key) = about_to_go(rounds, Planted::default());
        send_copy(&mut cluster, &key, &[C]);
        cluster.nodes.get_mut(&D).unwrap().disk_full = true;
        cluster.delivered.clear();
        cluster.load(D);
        cluster.run();
        let is_refused = |(from, _, message): &(NodeId, NodeId, Message)| {
            *from == D && matches!(message, Message::Refused { .. })
        };
        refused += usize::from(cluster.delivered.iter().any(is_refused));
        cluster.nodes.get_mut(&D).unwrap().disk_full = false;
        cluster.pass(Duration::from_secs(60));
        assert_eq!(cluster.copy(D, &key), None, "after {rounds} rounds");
    }
    assert!(refused > 0, "this proves nothing");
}

/// Just then it becomes an owner's.
fn becomes_an_owner(planted: Planted) {
    let mut there = 0;
    for rounds in 0..6 {
        let (mut cluster, key) = about_to_go(rounds, planted);
        commit(&mut cluster, A, vec![Change::Leave(C)]);
        cluster.run();
        let is_owner = |cluster: &Cluster| {
            let to = cluster.memberships[&D].layout().expect("there is one");
            to.is_owner(to.partition_of(Slot::of(key.as_bytes())), D)
        };
        assert!(is_owner(&cluster), "D has yet to hear of it");
        let before = cluster.copy(D, &key);
        cluster.load(D);
        assert_eq!(cluster.copy(D, &key), before, "after {rounds} rounds");
        there += usize::from(before.is_some());
    }
    assert!(there > 2, "this proves nothing");
}

#[test]
fn a_copy_that_was_to_go_stays_with_who_becomes_an_owner() {
    becomes_an_owner(Planted::default());
}

#[cfg(feature = "planted")]
#[test]
#[should_panic(expected = "rounds")]
fn that_it_goes_with_who_becomes_an_owner_is_found() {
    becomes_an_owner(Planted::one(gramme_quorum::planted::Bug::OwnerForgets));
}

/// Just then an older write comes that it is to stand in for: the copy keeps what it has.
#[test]
fn a_copy_that_was_to_go_takes_what_comes_and_shrinks_not() {
    let mut met = 0;
    for rounds in 0..6 {
        let (mut cluster, key) = about_to_go(rounds, Planted::default());
        let Some(before) = cluster.copy(D, &key) else { continue };
        // Some other coordinator's, which knows nothing of that.
        let bytes = Bytes::copy_from_slice(key.as_bytes());
        let mut other = Cluster::new(1);
        other.put(A, &key, "other", Cover::Held);
        let object = other.nodes[&A].durable[&(common::place(&key), bytes.clone())].clone();
        let layout = cluster.memberships[&A].layout().unwrap().version();
        let (call, purpose, sync) = (CallId(2), Purpose::Write, Syncing::First);
        let write = Message::Write {
            call,
            layout,
            purpose,
            key: bytes,
            object,
            hints: vec![C],
            sync,
            outranked_by: None,
        };
        cluster.input(D, Input::Peer(A, write));
        cluster.load(D);
        let after = cluster.copy(D, &key).expect("it has just come");
        assert!(
            before.iter().all(|value| after.contains(value)),
            "{before:?}, and then {after:?}, after {rounds} rounds"
        );
        met += 1;
        cluster.pass(Duration::from_secs(60));
        assert_eq!(cluster.copy(D, &key), None);
    }
    assert!(met > 2, "this proves nothing");
}

/// B has its write, while E, for which D keeps it as well, is out of reach. By the layout of now E owns nothing of it, but who asked for that
/// went by another one, and E's copy may be among the W that were acknowledged.
#[test]
fn a_copy_that_is_kept_for_a_former_owner_stays() {
    const E: NodeId = NodeId(5);
    let mut cluster = Cluster::with(5, |config| config.timing.exchange = Duration::from_secs(3600));
    let key = owned_by_the_first_three(&cluster);
    cluster.put(A, &key, "v", Cover::Held);
    cluster.cut(D, E, true);
    send_copy(&mut cluster, &key, &[B, E]);
    cluster.pass(Duration::from_secs(20));
    assert_eq!(cluster.hints(D), 1, "B has what was kept for it");
    assert!(cluster.copy(D, &key).is_some(), "and E has not");
    cluster.cut(D, E, false);
    // Before E finds that it owns nothing of it.
    cluster.pass(Duration::from_secs(4));
    assert!(cluster.copy(E, &key).is_some());
    assert_eq!(cluster.hints(D), 0);
}

/// The write is refused, and its copy is there: nothing leads to it.
#[test]
fn a_copy_whose_hint_found_no_room_does_not_stay() {
    let mut cluster = Cluster::new(4);
    let key = (0..).map(|i| format!("key {i}")).find(|key| cluster.preference(key)[3] == D).unwrap();
    cluster.put(A, &key, "v", Cover::Held);
    cluster.nodes.get_mut(&D).unwrap().refuses = |place| place.0 >= 0x8000;
    send_copy(&mut cluster, &key, &[B]);
    cluster.pass(Duration::from_secs(1));
    assert_eq!((cluster.hints(D), cluster.copy(D, &key).is_some()), (0, true));
    cluster.pass(Duration::from_secs(30));
    assert!(cluster.copy(D, &key).is_none(), "nobody hands it over, and it does not go");
}

/// D keeps one write for C, which is down for long; all else that it holds are copies that moved away, and that A and B have.
#[test]
fn one_hint_holds_back_its_own_partition_alone() {
    let mut cluster = Cluster::new(4);
    let owned = |cluster: &Cluster, key: &String| cluster.preference(key)[3] == D;
    let keys = (0..).map(|i| format!("key {i}")).filter(|key| owned(&cluster, key)).take(200);
    let keys: Vec<String> = keys.collect();
    for key in &keys {
        cluster.put(A, key, "v", Cover::Held);
    }
    cluster.pass(Duration::from_secs(1));
    for other in [A, B, D] {
        cluster.cut(C, other, true);
    }
    for key in &keys {
        send_copy(&mut cluster, key, if *key == keys[0] { &[C] } else { &[] });
    }
    cluster.pass(Duration::from_secs(240));
    cluster.delivered.clear();
    cluster.pass(Duration::from_secs(600));
    let offers = |(from, _, message): &&(NodeId, NodeId, Message)| {
        *from == D && matches!(message, Message::Offer { .. })
    };
    assert_eq!(cluster.delivered.iter().filter(offers).count(), 0, "nothing is new");
    for key in &keys {
        let stays = partition(key) == partition(&keys[0]);
        assert_eq!(cluster.copy(D, key).is_some(), stays, "{key}");
    }
    assert_eq!((cluster.hints(D), sweeping(&cluster)), (1, 1));
    // What comes into that partition is offered once.
    send_copy(&mut cluster, &keys[0], &[B]);
    for other in [A, B, D] {
        cluster.cut(C, other, false);
    }
    cluster.pass(Duration::from_secs(30));
    assert_eq!((cluster.hints(D), sweeping(&cluster)), (0, 0));
    assert!(keys.iter().all(|key| cluster.copy(D, key).is_none() && cluster.copy(C, key).is_some()));
}

/// D keeps a write for C, which is down for long, and has a copy of another key that moved away.
fn keeps_one_of_two() -> (Cluster, String) {
    let mut cluster = Cluster::new(4);
    let owned = |cluster: &Cluster, key: &String| cluster.preference(key)[3] == D;
    let mut keys = (0..).map(|i| format!("key {i}")).filter(|key| owned(&cluster, key));
    let key = keys.next().unwrap();
    let other = keys.find(|other| partition(other) != partition(&key)).unwrap();
    for key in [&key, &other] {
        cluster.put(A, key, "v", Cover::Held);
    }
    cluster.pass(Duration::from_secs(1));
    for peer in [A, B, D] {
        cluster.cut(C, peer, true);
    }
    send_copy(&mut cluster, &other, &[C]);
    send_copy(&mut cluster, &key, &[]);
    (cluster, key)
}

/// It comes at any time while all hints are looked through and the partition is offered again.
#[test]
fn a_hint_that_comes_to_what_is_about_to_go_keeps_it() {
    let second = Duration::from_secs(1);
    let (mut cluster, key) = keeps_one_of_two();
    let goes = (1..200).find(|_| {
        cluster.pass(second);
        cluster.copy(D, &key).is_none()
    });
    let before = (goes.expect("it goes") - 1) * second;
    let step = |cluster: &mut Cluster| {
        if !cluster.deliver() {
            cluster.tick(Duration::from_millis(50));
        }
    };
    let (mut cluster, key) = keeps_one_of_two();
    cluster.pass(before);
    let steps = (0..1000).find(|_| {
        step(&mut cluster);
        cluster.copy(D, &key).is_none()
    });
    let steps = steps.expect("it goes");
    for steps in steps - 30..=steps {
        let (mut cluster, key) = keeps_one_of_two();
        cluster.pass(before);
        (0..steps).for_each(|_| step(&mut cluster));
        assert!(cluster.copy(D, &key).is_some(), "the last step is the one with which it goes");
        send_copy(&mut cluster, &key, &[C]);
        cluster.pass(Duration::from_secs(300));
        assert_eq!((cluster.hints(D), cluster.copy(D, &key).is_some()), (2, true), "after {steps}");
    }
}

/// B's pull of what D offered first waits for its disk. Something comes to D meanwhile, which D offers anew: B takes that, too, before it says so.
fn offered_twice(planted: Planted) {
    let mut cluster = Cluster::with(4, |config| config.timing.exchange = Duration::from_secs(3600));
    cluster.crash(B);
    cluster.start_planted(B, planted);
    cluster.pass(Duration::from_secs(2));
    let key = left_behind(&mut cluster);
    cluster.nodes.get_mut(&B).unwrap().syncs = false;
    cluster.put(A, &format!("{{{key}}}"), "v", Cover::Held);
    cluster.loses = |from, to, message| match message {
        Message::Write { .. } => from == A || to == B || to == C,
        Message::Offered { .. } => from == C,
        _ => false,
    };
    let listed = |(from, to, message): &(NodeId, NodeId, Message)| {
        (*from, *to) == (B, D) && matches!(message, Message::List { .. })
    };
    while !cluster.delivered.iter().any(listed) {
        cluster.pass(Duration::from_millis(100));
    }
    let offer = cluster.delivered.iter().find_map(|(from, to, message)| match message {
        Message::Offer { call, .. } if (*from, *to) == (D, C) => Some(*call),
        _ => None,
    });
    // Something comes to D that A alone has.
    let options = WriteOptions { w: Some(Level::One), ..WriteOptions::default() };
    let (name, value) = (Bytes::from(key.clone()), Bytes::from_static(b"late"));
    let late = Op::Put { key: name, value, content_type: None, expiry: None, cover: Cover::Held, options };
    assert!(matches!(cluster.request(A, late), Reply::Written { .. }));
    send_copy(&mut cluster, &key, &[]);
    // With A's C's answer is enough, and D sees that something has come.
    cluster.input(D, Input::Peer(C, Message::Offered { call: offer.unwrap(), whole: true }));
    cluster.loses = |from, to, message| match message {
        Message::Write { .. } => from == A || to == B || to == C,
        Message::Offered { .. } | Message::List { .. } => from == C,
        _ => false,
    };
    cluster.pass(Duration::from_secs(8));
    cluster.nodes.get_mut(&B).unwrap().syncs = true;
    cluster.sync(B);
    let late = Some(vec![String::from("late")]);
    for _ in 0..200 {
        cluster.pass(Duration::from_millis(100));
        let owners = [A, B, C].into_iter().filter(|owner| cluster.copy(*owner, &key) == late).count();
        assert!(owners >= 2 || cluster.copy(D, &key).is_some(), "it goes though {owners} owners have it");
    }
    assert_eq!((cluster.copy(B, &key), cluster.copy(D, &key)), (late, None), "in the end it goes");
}

#[test]
fn what_an_earlier_offer_has_begun_does_not_answer_a_later_one() {
    offered_twice(Planted::default());
}

#[cfg(feature = "planted")]
#[test]
#[should_panic(expected = "it goes though")]
fn that_it_answers_a_later_one_is_found() {
    offered_twice(Planted::one(gramme_quorum::planted::Bug::EarlierPullAnswers));
}
