//! Copies that a node holds and does not own go when their owners have them and nobody waits for them, and no sooner.

mod common;

use bytes::Bytes;
use common::changes::commit;
use common::strays::*;
use common::{A, B, C, Cluster, place, put};
use gramme_quorum::message::{CallId, Message};
use gramme_quorum::planted::Planted;
use gramme_quorum::*;
use gramme_ring::{Change, NodeId};
use std::collections::BTreeMap;
use std::time::Duration;

const E: NodeId = NodeId(5);

/// Nothing is compared unasked.
fn quiet(nodes: u64) -> Cluster {
    Cluster::with(nodes, |config| config.timing.exchange = Duration::from_secs(3600))
}

/// The offers of this key's partition that D has made and the owners have got, since it was forgotten what was delivered.
fn offers(cluster: &Cluster, key: &str) -> Vec<(NodeId, CallId)> {
    let offers = cluster.delivered.iter().filter_map(|(_, to, message)| match message {
        Message::Offer { call, slots, .. } if (slots.0..=slots.1).contains(&place(key).0) => {
            Some((*to, *call))
        }
        _ => None,
    });
    offers.collect()
}

/// D keeps one write for C, which is cut off, and has copies of these keys, of other partitions. A and B have taken them, and as soon
/// as D has looked through its hints, and finds none of theirs, they are offered once more and dropped.
fn taken(cluster: &mut Cluster, keys: &[&String]) {
    let others: Vec<u16> = keys.iter().map(|key| partition(key)).collect();
    let kept = owned_in_slot(cluster, |place| !others.contains(&(place.0 / 64)));
    for key in keys.iter().copied().chain([&kept]) {
        cluster.put(A, key, "v", Cover::Held);
    }
    cluster.pass(Duration::from_secs(1));
    for other in [A, B, D] {
        cluster.cut(C, other, true);
    }
    send_copy(cluster, &kept, &[C]);
    for key in keys {
        send_copy(cluster, key, &[]);
    }
    cluster.delivered.clear();
    let took = |message: &Message| matches!(message, Message::Offered { whole: true, .. });
    while cluster.delivered.iter().filter(|(_, _, message)| took(message)).count() < 2 * keys.len() {
        cluster.pass(Duration::from_millis(10));
    }
    assert_eq!((sweeping(cluster), cluster.hints(D)), (keys.len(), 1));
    cluster.delivered.clear();
}

/// From now on the owners' word that they have taken something is lost. Passes time until this is offered.
fn offer_in_vain(cluster: &mut Cluster, key: &str) {
    cluster.loses = |_, _, message| matches!(message, Message::Offered { .. });
    while offers(cluster, key).is_empty() {
        cluster.pass(Duration::from_millis(10));
    }
}

/// The second partition waits until the first is taken when a write comes into it that D is to keep.
#[test]
fn a_hint_that_comes_while_its_partition_waits_to_be_dropped_keeps_it() {
    // In a partition's first slot, or in its last one.
    for slot in [0, 63] {
        let mut cluster = quiet(4);
        let first = owned_by_the_first_three(&cluster);
        let second =
            owned_in_slot(&cluster, |place| place.0 % 64 == slot && place.0 / 64 > partition(&first));
        taken(&mut cluster, &[&first, &second]);
        offer_in_vain(&mut cluster, &first);
        assert!(offers(&cluster, &second).is_empty());
        send_copy(&mut cluster, &second, &[C]);
        cluster.loses = |_, _, _| false;
        cluster.pass(Duration::from_secs(300));
        assert_eq!(cluster.copy(D, &first), None);
        assert_eq!((cluster.hints(D), cluster.copy(D, &second).is_some()), (2, true), "slot {slot}");
    }
}

/// It changes nothing of the record that was read before its partition goes, and is acknowledged.
#[test]
fn a_write_that_waits_for_its_record_keeps_the_partition() {
    let mut cluster = quiet(4);
    let key = left_behind(&mut cluster);
    offer_in_vain(&mut cluster, &key);
    let record = (place(&key), Bytes::from(key.clone()));
    cluster.nodes.get_mut(&D).unwrap().hangs.insert(record);
    send_copy(&mut cluster, &key, &[]);
    for (owner, call) in offers(&cluster, &key) {
        cluster.input(D, Input::Peer(owner, Message::Offered { call, whole: true }));
    }
    cluster.load(D);
    assert!(cluster.copy(D, &key).is_some());
    // It goes in the end.
    cluster.loses = |_, _, _| false;
    cluster.pass(Duration::from_secs(60));
    assert_eq!(cluster.copy(D, &key), None);
}

/// More hints than are looked at at a time.
#[test]
fn a_hint_of_any_page_keeps_its_partition() {
    let mut cluster = quiet(4);
    // One of each partition, in its last slot, and many of one.
    let mut keys = BTreeMap::new();
    let mut names = (0..).map(|i| format!("key {i}")).filter(|key| place(key).0 % 64 == 63);
    while keys.len() < 40 {
        let key = names.next().unwrap();
        if cluster.preference(&key)[3] == D {
            keys.entry(partition(&key)).or_insert(key);
        }
    }
    let mut keys: Vec<String> = keys.into_values().collect();
    let tag = keys[0].clone();
    keys.extend((0..300).map(|i| format!("{{{tag}}}{i}")));
    for key in &keys {
        cluster.put(A, key, "v", Cover::Held);
    }
    cluster.pass(Duration::from_secs(1));
    for other in [A, B, D] {
        cluster.cut(C, other, true);
    }
    for key in &keys {
        send_copy(&mut cluster, key, &[]);
        send_copy(&mut cluster, key, &[C]);
    }
    assert_eq!(cluster.hints(D), 340);
    cluster.pass(Duration::from_secs(240));
    let gone: Vec<_> = keys.iter().filter(|key| cluster.copy(D, key).is_none()).collect();
    assert!(gone.is_empty(), "of {gone:?} C would never get what was kept for it");
}

/// It may be of any partition.
#[test]
fn as_long_as_a_hint_can_not_be_read_nothing_goes() {
    let mut cluster = quiet(4);
    let key = owned_by_the_first_three(&cluster);
    taken(&mut cluster, &[&key]);
    let hint = cluster.records(D).find(|(place, _)| *place >= HINT_PLACES.0).cloned().unwrap();
    let node = cluster.nodes.get_mut(&D).unwrap();
    (node.nameless, _) = (true, node.damaged.insert(hint));
    cluster.pass(Duration::from_secs(300));
    assert!(cluster.copy(D, &key).is_some());
    cluster.nodes.get_mut(&D).unwrap().damaged.clear();
    cluster.pass(Duration::from_secs(300));
    assert_eq!(cluster.copy(D, &key), None);
}

/// Something came while a partition was offered, and then all is offered anew, by another layout: it is among that.
#[test]
fn what_came_during_a_former_sweep_is_offered_once_by_the_next() {
    let mut cluster = quiet(4);
    let key = left_behind(&mut cluster);
    offer_in_vain(&mut cluster, &key);
    cluster.put(A, &key, "w", Cover::Held);
    send_copy(&mut cluster, &key, &[]);
    let keyspace = Keyspace { ttl_ms: Some(50_000), ..Keyspace::default() };
    commit(&mut cluster, A, vec![keyspace.change("other:").unwrap()]);
    while cluster.nodes[&D].engine.membership().transition().is_none() {
        assert!(cluster.deliver());
    }
    cluster.loses = |_, _, _| false;
    cluster.delivered.clear();
    cluster.pass(Duration::from_secs(120));
    assert_eq!(cluster.copy(D, &key), None);
    let mut asked: Vec<NodeId> = offers(&cluster, &key).into_iter().map(|(owner, _)| owner).collect();
    asked.sort_unstable();
    assert_eq!(asked, [A, B, C]);
}

/// Just then the same write comes once more, from a coordinator by whose layout this is an owner's copy: it is acknowledged.
#[test]
fn a_copy_that_was_to_go_stays_if_it_is_acknowledged_meanwhile() {
    let mut met = 0;
    for rounds in 0..6 {
        let (mut cluster, key) = about_to_go(rounds, Planted::default());
        let Some(before) = cluster.copy(D, &key) else { continue };
        send_copy(&mut cluster, &key, &[]);
        cluster.load(D);
        assert_eq!(cluster.copy(D, &key), Some(before), "after {rounds} rounds");
        met += 1;
        // It goes in the end.
        cluster.pass(Duration::from_secs(60));
        assert_eq!(cluster.copy(D, &key), None);
    }
    assert!(met > 2, "this proves nothing");
}

/// What B has of what it is offered is in its log alone: a power cut takes it.
#[test]
fn what_was_here_before_is_durable_when_a_pull_ends() {
    let mut cluster = quiet(4);
    let key = owned_by_the_first_three(&cluster);
    cluster.nodes.get_mut(&B).unwrap().syncs = false;
    cluster.loses = |from, to, message| match message {
        Message::Write { .. } => to == C || to == D,
        Message::Offered { .. } => from == C,
        _ => false,
    };
    cluster.start_request(A, put(&key, "v", Cover::Held));
    cluster.run();
    assert!(cluster.copy(B, &key).is_some());
    send_copy(&mut cluster, &key, &[]);
    cluster.pass(Duration::from_secs(20));
    assert_eq!((sweeping(&cluster), cluster.copy(D, &key).is_some()), (1, true), "A alone has it for good");
    cluster.crash(B);
    assert_eq!(cluster.copy(B, &key), None);
    cluster.start(B);
    cluster.pass(Duration::from_secs(20));
    assert_eq!((sweeping(&cluster), cluster.copy(D, &key)), (0, None));
    assert!(cluster.copy(B, &key).is_some());
}

/// D keeps a write for B, and for E, which has left: who asked for that did not know. E's hint is to become hints for the owners of now. B has
/// taken the write just now, while D looks for hints of who is gone, and finds that it can't list them yet.
fn stays_for_the_heirs(fails_first: bool) {
    let mut cluster = quiet(5);
    commit(&mut cluster, A, vec![Change::Leave(E)]);
    cluster.pass(Duration::from_secs(30));
    let key = owned_by_the_first_three(&cluster);
    cluster.put(A, &key, "v", Cover::Held);
    cluster.pass(Duration::from_secs(1));
    cluster.nodes.get_mut(&B).unwrap().syncs = false;
    cluster.loses = |_, to, message| to == D && matches!(message, Message::Write { .. });
    cluster.put(A, &format!("{{{key}}} which B has yet to sync"), "v", Cover::Held);
    send_copy(&mut cluster, &key, &[B]);
    cluster.pass(Duration::from_secs(3));
    let node = cluster.nodes.get_mut(&D).unwrap();
    (node.lists, node.hint_lists_fail) = (false, true);
    send_copy(&mut cluster, &key, &[E]);
    assert_eq!(cluster.hints(D), 2);
    if fails_first {
        cluster.list(D);
    }
    cluster.nodes.get_mut(&D).unwrap().loads = false;
    cluster.sync(B);
    cluster.run();
    for _ in 0..2 {
        for load in std::mem::take(&mut cluster.nodes.get_mut(&D).unwrap().held_loads) {
            cluster.input(D, load);
        }
    }
    assert_eq!(cluster.hints(D), 1, "B has it");
    cluster.list(D);
    cluster.load(D);
    assert!(cluster.copy(D, &key).is_some(), "nothing else tells what was kept for E");
    cluster.nodes.get_mut(&D).unwrap().hint_lists_fail = false;
    cluster.pass(Duration::from_secs(60));
    assert_eq!((cluster.hints(D), cluster.copy(D, &key)), (0, None));
}

#[test]
fn a_copy_stays_until_the_heirs_of_who_is_gone_have_their_hints() {
    stays_for_the_heirs(false);
}

/// It has found out just before that.
#[test]
fn a_copy_stays_though_hints_of_who_is_gone_are_looked_for_later() {
    stays_for_the_heirs(true);
}
