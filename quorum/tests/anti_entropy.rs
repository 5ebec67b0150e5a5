//! Replicas that differ become equal although nobody reads, and say little once they are.

mod common;

use common::*;
use gramme_quorum::message::{CallId, Copy, Message, Refusal, SumsOf, Want};
use gramme_quorum::*;
use gramme_ring::gossip::Message as Gossiped;
use gramme_ring::{Change, Member, NodeId};
use std::time::Duration;

/// A write that one owner misses, and of which nobody keeps a hint: its coordinator dies before it notices.
fn missed(cluster: &mut Cluster, by: NodeId, op: Op) {
    let coordinator = if by == A { B } else { A };
    cluster.start_request(coordinator, op);
    cluster.lose(|_, to, message| to == by && matches!(message, Message::Write { .. }));
    cluster.run();
    cluster.crash(coordinator);
    cluster.start(coordinator);
    cluster.run();
}

fn minute(cluster: &mut Cluster) {
    cluster.pass(Duration::from_secs(60));
}

#[test]
fn what_a_replica_missed_comes_without_a_read() {
    let mut cluster = Cluster::new(3);
    for i in 0..40 {
        let (by, key) = ([A, B, C][i % 3], format!("key {i}"));
        missed(&mut cluster, by, put(&key, "v", Cover::Held));
        assert_eq!(cluster.copy(by, &key), None, "it has missed it indeed");
    }
    minute(&mut cluster);
    for i in 0..40 {
        for id in [A, B, C] {
            assert_eq!(cluster.copy(id, &format!("key {i}")), Some(vec![String::from("v")]), "{i} at {id}");
        }
    }
}

#[test]
fn a_round_looks_into_all_that_differs() {
    let mut cluster = Cluster::new(3);
    for i in 0..120 {
        missed(&mut cluster, C, put(&format!("key {i}"), "v", Cover::Held));
    }
    // Its own round comes within ten seconds, whomever it asks.
    cluster.pass(Duration::from_secs(11));
    let missing = (0..120).filter(|i| cluster.copy(C, &format!("key {i}")).is_none()).count();
    assert_eq!(missing, 0, "far more partitions differ than are asked for at a time");
}

/// What can't be stored is not fetched over and over.
#[test]
fn a_full_replica_fetches_little_and_all_once_there_is_room() {
    let mut cluster = Cluster::new(3);
    for i in 0..300 {
        missed(&mut cluster, C, put(&format!("key {i}"), "v", Cover::Held));
    }
    cluster.nodes.get_mut(&C).unwrap().refuses = |place| place != RUN_PLACE;
    cluster.delivered.clear();
    minute(&mut cluster);
    let fetched = |(from, _, message): &&(NodeId, NodeId, Message)| {
        *from == C && matches!(message, Message::Read { want: Want::Object, .. })
    };
    let fetches = cluster.delivered.iter().filter(fetched).count();
    assert!((1..=7 * 128).contains(&fetches), "{fetches} objects fetched in a minute, for nothing");
    cluster.nodes.get_mut(&C).unwrap().refuses = |_| false;
    minute(&mut cluster);
    for i in 0..300 {
        assert!(cluster.copy(C, &format!("key {i}")).is_some(), "{i}");
    }
}

#[test]
fn siblings_meet_and_deleted_stays_deleted() {
    let mut cluster = Cluster::new(3);
    let context = cluster.put(A, "gone", "v", Cover::Held);
    missed(&mut cluster, C, delete("gone", Cover::Context(context)));
    missed(&mut cluster, B, put("both", "one", Cover::Nothing));
    missed(&mut cluster, C, put("both", "two", Cover::Nothing));
    assert_eq!(cluster.copy(C, "gone"), Some(vec![String::from("v")]));
    minute(&mut cluster);
    for id in [A, B, C] {
        assert_eq!(cluster.copy(id, "gone"), Some(vec![String::from("(deleted)")]));
        assert_eq!(cluster.copy(id, "both"), Some(vec![String::from("one"), String::from("two")]));
    }
}

/// A member that is down holds a change of the members up, for days maybe; what keeps its owners goes on being compared.
#[test]
fn a_change_that_is_stuck_does_not_stop_it() {
    let mut cluster = Cluster::new(4);
    let (down, joiner) = (NodeId(4), NodeId(5));
    cluster.add(joiner);
    cluster.pass(Duration::from_secs(5));
    cluster.crash(down);
    cluster.change(A, ClusterOp::Stage(Change::Member(Member::new(joiner)))).unwrap();
    let hash = cluster.nodes[&A].engine.membership().propose().unwrap().hash();
    cluster.change(A, ClusterOp::Commit(hash)).unwrap();
    cluster.pass(Duration::from_secs(20));
    // What only A, B and C own, as far as reads are concerned; of some of it the joiner is to have a copy.
    let owned = |cluster: &Cluster, key: &str| {
        let layout = cluster.nodes[&A].engine.reading().expect("there is one");
        let partition = layout.partition_of(gramme_ring::Slot::of(key.as_bytes()));
        [A, B, C].into_iter().all(|id| layout.is_owner(partition, id))
    };
    let mut keys: Vec<String> = (0..100).map(|i| format!("key {i}")).collect();
    keys.retain(|key| owned(&cluster, key));
    assert!(keys.len() >= 10, "{}", keys.len());
    for key in &keys {
        missed(&mut cluster, C, put(key, "v", Cover::Held));
        assert_eq!(cluster.copy(C, key), None);
    }
    minute(&mut cluster);
    assert!(cluster.nodes[&A].engine.membership().transition().is_some(), "it is stuck still");
    for key in &keys {
        assert!(cluster.copy(C, key).is_some(), "{key}");
    }
}

/// Nor does the recovery of what was lost, while it waits for an owner that is down.
#[test]
fn a_recovery_that_waits_does_not_stop_it() {
    let mut cluster = Cluster::new(3);
    cluster.crash(C);
    cluster.wipe(C);
    cluster.crash(B);
    cluster.start(C);
    cluster.pass(Duration::from_secs(20));
    assert_ne!(cluster.nodes[&C].engine.status(cluster.now.instant).incomplete_partitions, 0);
    let one = WriteOptions { w: Some(Level::One), ..WriteOptions::default() };
    let Op::Put { key, value, content_type, expiry, cover, .. } = put("k", "v", Cover::Held) else {
        unreachable!()
    };
    missed(&mut cluster, C, Op::Put { key, value, content_type, expiry, cover, options: one });
    assert_eq!(cluster.copy(C, "k"), None);
    minute(&mut cluster);
    assert!(cluster.copy(C, "k").is_some());
}

#[test]
fn equal_replicas_exchange_one_sum_a_round() {
    let mut cluster = Cluster::new(3);
    for i in 0..50 {
        missed(&mut cluster, C, put(&format!("key {i}"), "v", Cover::Held));
    }
    minute(&mut cluster);
    cluster.delivered.clear();
    minute(&mut cluster);
    let mut rounds = 0;
    for (_, _, message) in &cluster.delivered {
        match message {
            Message::Heartbeat { .. } | Message::Gossip(Gossiped::Summary { .. }) => {}
            Message::Sums { of: SumsOf::All, .. } => rounds += 1,
            Message::Summed { sums, .. } => assert_eq!(sums.len(), 1),
            other => panic!("{other:?} between equal replicas"),
        }
    }
    assert_eq!(rounds, 18, "each of three nodes, every ten seconds");
    let status = cluster.nodes[&A].engine.status(cluster.now.instant);
    assert!(status.exchanges_equal >= 6, "{status:?}");
}

#[test]
fn only_what_two_nodes_share_is_compared() {
    let mut cluster = Cluster::new(5);
    for i in 0..60 {
        cluster.put(A, &format!("key {i}"), "v", Cover::Held);
    }
    minute(&mut cluster);
    for i in 0..60 {
        let key = format!("key {i}");
        let owners = cluster.preference(&key)[..3].to_vec();
        for id in [1, 2, 3, 4, 5].map(NodeId) {
            assert_eq!(cluster.copy(id, &key).is_some(), owners.contains(&id), "{key} at {id}");
        }
    }
    let pulled: u64 = [1, 2, 3, 4, 5]
        .map(|id| cluster.nodes[&NodeId(id)].engine.status(cluster.now.instant).slots_pulled)
        .iter()
        .sum();
    assert_eq!(pulled, 0, "nothing differed");
}

#[test]
fn large_values_keep_to_the_budget() {
    let mut cluster = Cluster::with(3, |config| config.limits.repair = 100_000);
    let value = "x".repeat(20_000);
    for i in 0..20 {
        missed(&mut cluster, C, put(&format!("{{a}}{i}"), &value, Cover::Held));
    }
    cluster.delivered.clear();
    let mut largest = 0;
    for _ in 0..60 {
        cluster.pass(Duration::from_secs(1));
        let fetched =
            cluster.delivered.iter().filter(|(_, to, m)| *to == C && matches!(m, Message::Copy { .. }));
        largest = largest.max(fetched.count());
        cluster.delivered.clear();
    }
    // Five of 20 kB are a second's worth; a slice may be overdrawn by one.
    assert!((1..=6).contains(&largest), "{largest} in one second");
    for i in 0..20 {
        assert_eq!(cluster.copy(C, &format!("{{a}}{i}")).map(|v| v.len()), Some(1), "{i}");
    }
}

#[test]
fn sums_that_make_no_sense_are_refused() {
    let mut cluster = Cluster::new(3);
    let layout = cluster.memberships[&A].layout().unwrap().version();
    let call = message::CallId(7);
    for partitions in [vec![256], (0..17).collect()] {
        cluster.delivered.clear();
        let of = SumsOf::Slots(partitions);
        cluster.input(A, Input::Peer(B, Message::Sums { call, layout, of }));
        cluster.run();
        let refused = Message::Refused { call, why: message::Refusal::Malformed };
        assert!(cluster.delivered.contains(&(A, B, refused)), "{:?}", cluster.delivered);
    }
    // An answer to nothing.
    cluster.input(A, Input::Peer(B, Message::Summed { call, sums: vec![1; 1000] }));
    cluster.run();
}

/// What came of so many questions of `from`, asked at once: answers and refusals.
fn ask(
    cluster: &mut Cluster,
    from: NodeId,
    question: impl Fn(CallId) -> Message,
    count: u64,
) -> (usize, usize) {
    cluster.delivered.clear();
    for call in 0..count {
        cluster.input(A, Input::Peer(from, question(CallId(call))));
        cluster.run();
    }
    let to = |which: fn(&Message) -> bool| {
        cluster.delivered.iter().filter(|(at, to, m)| (*at, *to) == (A, from) && which(m)).count()
    };
    (
        to(|m| matches!(m, Message::Listed { .. } | Message::Summed { .. })),
        to(|m| matches!(m, Message::Refused { why: Refusal::Overloaded, .. })),
    )
}

#[test]
fn a_peer_that_asks_without_end_is_answered_so_much_and_no_more() {
    let mut cluster = Cluster::with(3, |config| config.limits.repair = 1 << 20);
    for i in 0..200 {
        cluster.put(A, &format!("key {i}"), &"v".repeat(1000), Cover::Held);
    }
    cluster.pass(Duration::from_secs(5));
    let layout = cluster.memberships[&A].layout().unwrap().version();
    let list =
        |objects| move |call| Message::List { call, layout, slots: (0, 16_383), cursor: None, objects };
    let sums = move |call| Message::Sums { call, layout, of: SumsOf::All };
    let slots = move |call| Message::Sums { call, layout, of: SumsOf::Slots((0..16).collect()) };
    // A tenth of a second's share, and the last answer may go beyond.
    let slice = (1 << 20) / 10;
    let tenth = |cluster: &mut Cluster| cluster.pass(Duration::from_millis(100));
    for (bytes, (answered, refused)) in [
        (1024, ask(&mut cluster, B, sums, 10_000)),
        (1024, {
            tenth(&mut cluster);
            ask(&mut cluster, B, list(false), 10_000)
        }),
        (128 * 1000, {
            tenth(&mut cluster);
            ask(&mut cluster, B, list(true), 10_000)
        }),
        (16 * 64 * 16, {
            cluster.pass(Duration::from_secs(1));
            ask(&mut cluster, B, slots, 10_000)
        }),
    ] {
        assert!(answered >= 1 && answered <= slice / bytes + 1, "{answered} of {bytes} bytes");
        assert_eq!(answered + refused, 10_000);
    }
    // Nobody else pays for it, and later there is room again.
    assert_eq!(ask(&mut cluster, C, list(false), 10), (10, 0));
    cluster.pass(Duration::from_secs(1));
    assert_eq!(ask(&mut cluster, B, list(false), 10), (10, 0));
}

#[test]
fn questions_that_wait_for_a_disk_are_few() {
    let mut cluster = Cluster::new(3);
    cluster.put(A, "key", "v", Cover::Held);
    let layout = cluster.memberships[&A].layout().unwrap().version();
    let list = move |call| Message::List { call, layout, slots: (0, 16_383), cursor: None, objects: true };
    cluster.nodes.get_mut(&A).unwrap().loads = false;
    assert_eq!(ask(&mut cluster, B, list, 100), (0, 92));
    assert_eq!(ask(&mut cluster, C, list, 100), (0, 92), "one peer takes nobody else's room");
}

#[test]
fn a_pull_goes_on_where_its_peer_had_no_time() {
    let mut cluster = Cluster::with(3, |config| config.limits.repair = 20_000);
    for i in 0..400 {
        cluster.put(A, &format!("key {i}"), &"v".repeat(200), Cover::Held);
    }
    cluster.crash(C);
    cluster.wipe(C);
    cluster.delivered.clear();
    cluster.start(C);
    for _ in 0..60 {
        cluster.pass(Duration::from_secs(1));
    }
    assert_eq!(cluster.nodes[&C].engine.status(cluster.now.instant).incomplete_partitions, 0);
    assert!((0..400).all(|i| cluster.copy(C, &format!("key {i}")).is_some()));
    let refused = |(_, to, m): &&(NodeId, NodeId, Message)| {
        *to == C && matches!(m, Message::Refused { why: Refusal::Overloaded, .. })
    };
    let refused = cluster.delivered.iter().filter(refused).count();
    assert!(refused > 0, "its peers keep to their own share");
    // Nothing was fetched twice, nor anything asked for in vain more often than there is a share.
    let fetched: usize = cluster
        .delivered
        .iter()
        .map(|(_, to, m)| match m {
            Message::Copy { copy: Copy::Object(object), .. } if *to == C => object.len(),
            Message::Listed { objects, .. } if *to == C => objects.iter().map(|object| object.len()).sum(),
            _ => 0,
        })
        .sum();
    let least = 400 * 200;
    assert!(fetched < 2 * least, "{fetched} bytes of {least}");
    assert!(refused < 60 * 10 * 8, "{refused}");
}
