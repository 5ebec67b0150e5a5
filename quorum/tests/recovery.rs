//! A node that lost its disk gets everything back from the others, and says nothing definite before.

mod common;

use common::*;
use gramme_quorum::message::Message;
use gramme_quorum::*;
use gramme_ring::{Change, NodeId};
use std::time::Duration;

fn key(i: usize) -> String {
    format!("key {i}")
}

fn loaded(nodes: u64, keys: usize) -> Cluster {
    let mut cluster = Cluster::new(nodes);
    for i in 0..keys {
        cluster.put(A, &key(i), &format!("value {i}"), Cover::Held);
    }
    cluster
}

fn open(cluster: &Cluster, id: NodeId) -> usize {
    cluster.nodes[&id].engine.status(cluster.now.instant).incomplete_partitions
}

#[test]
fn a_wiped_node_gets_everything_back_without_a_read() {
    // More than one page in the partition of one slot, beside many partitions.
    let mut cluster = loaded(3, 200);
    for i in 0..300 {
        cluster.put(B, &format!("{{one slot}} {i}"), "v", Cover::Held);
    }
    cluster.crash(C);
    cluster.wipe(C);
    cluster.start(C);
    assert_eq!(open(&cluster, C), 256);
    cluster.pass(Duration::from_secs(20));
    assert_eq!(open(&cluster, C), 0);
    assert!(cluster.incomplete.is_empty(), "the next run is complete");
    for i in 0..200 {
        assert_eq!(cluster.copy(C, &key(i)), Some(vec![format!("value {i}")]));
    }
    for i in 0..300 {
        assert_eq!(cluster.copy(C, &format!("{{one slot}} {i}")), Some(vec![String::from("v")]));
    }
    // Alone it can serve all of it.
    cluster.crash(A);
    cluster.crash(B);
    assert_eq!(cluster.get_with(C, &key(7), r(Level::One)).0, ["value 7"]);
}

#[test]
fn what_is_equal_is_not_sent_again() {
    let mut cluster = loaded(3, 100);
    cluster.crash(C);
    cluster.incomplete.insert(C);
    cluster.delivered.clear();
    cluster.start(C);
    cluster.pass(Duration::from_secs(20));
    assert_eq!(open(&cluster, C), 0);
    let copies = cluster.delivered.iter().filter(|(_, _, m)| matches!(m, Message::Copy { .. })).count();
    assert_eq!(copies, 0, "digests agree, so nothing is read");
}

/// Both other owners are witnesses, and one of them sends: the objects themselves from the second page on.
#[test]
fn what_was_lost_is_sent_once() {
    let mut cluster = Cluster::new(3);
    let large = "v".repeat(100_000);
    let value = |i: usize| if i % 50 == 7 { large.clone() } else { format!("v{i}") };
    let keys: Vec<String> = (0..600).map(|i| format!("{{one slot}} {i}")).collect();
    for (i, key) in keys.iter().enumerate() {
        cluster.put(B, key, &value(i), Cover::Held);
    }
    cluster.crash(C);
    cluster.wipe(C);
    cluster.delivered.clear();
    cluster.start(C);
    cluster.pass(Duration::from_secs(20));
    assert_eq!(open(&cluster, C), 0);
    for (i, key) in keys.iter().enumerate() {
        assert_eq!(cluster.copy(C, key), Some(vec![value(i)]));
    }
    let (mut alone, mut listed) = (0, 0);
    for (_, to, message) in &cluster.delivered {
        match message {
            Message::Copy { copy: message::Copy::Object(_), .. } if *to == C => alone += 1,
            Message::Listed { objects, .. } if *to == C => {
                listed += objects.iter().filter(|object| !object.is_empty()).count();
                let bytes: usize = objects.iter().map(|object| object.len()).sum();
                assert!(bytes < 512 << 10, "a page of {bytes} bytes");
            }
            _ => {}
        }
    }
    assert_eq!(alone + listed, keys.len(), "each once");
    assert!(alone < 300, "{alone} of them were asked for one by one");
}

/// Where one owner can't serve, the others are asked.
#[test]
fn an_owner_from_which_nothing_comes_is_passed_over() {
    let mut cluster = loaded(5, 100);
    cluster.crash(C);
    cluster.wipe(C);
    cluster.loses = |from, to, message| {
        let first = from == A || from == B;
        first && to == C && matches!(message, Message::Listed { .. })
    };
    cluster.start(C);
    cluster.pass(Duration::from_secs(300));
    // Partitions of which one of these two is an owner lack a witness, and the others have both.
    let layout = cluster.nodes[&A].engine.layout().unwrap().clone();
    let served = |partition| layout.owners(partition).all(|owner| owner != A && owner != B);
    let lacking =
        layout.partition_count().partitions().filter(|p| layout.is_owner(*p, C) && !served(*p)).count();
    assert_eq!(open(&cluster, C), lacking);
    for i in 0..100 {
        let owners: Vec<NodeId> =
            layout.owners(layout.partition_of(gramme_ring::Slot::of(key(i).as_bytes()))).collect();
        // From the one that does answer, whoever was asked first.
        if owners.contains(&C) && owners.iter().any(|owner| ![A, B, C].contains(owner)) {
            assert_eq!(cluster.copy(C, &key(i)), Some(vec![format!("value {i}")]));
        }
    }
}

#[test]
fn until_then_its_answers_do_not_count() {
    let mut cluster = loaded(3, 1);
    cluster.crash(C);
    cluster.wipe(C);
    // With one of the two others away there are too few witnesses.
    cluster.crash(B);
    cluster.start(C);
    cluster.pass(Duration::from_secs(5));
    assert_eq!(open(&cluster, C), 256);
    let reply = cluster.request(C, Op::Get { key: "absent".into(), options: r(Level::One) });
    assert!(matches!(reply, Reply::Read(_)), "the other owner knows: {reply:?}");
    let reply = cluster.request(C, Op::Get { key: "absent".into(), options: r(Level::Quorum) });
    assert!(matches!(reply, Reply::Failed(OpError::Quorum { need: Need::R, want: 2, .. })), "{reply:?}");
    // Nor do they count elsewhere: "absent" from it is no second opinion.
    let reply = cluster.request(A, Op::Get { key: "absent".into(), options: r(Level::Quorum) });
    assert!(matches!(reply, Reply::Failed(OpError::Quorum { need: Need::R, want: 2, .. })), "{reply:?}");
    // What it holds is merged all the same, and it takes writes.
    assert_eq!(cluster.get_with(C, &key(0), r(Level::One)).0, ["value 0"]);
    cluster.put(C, "new", "v", Cover::Held);
    cluster.start(B);
    cluster.pass(Duration::from_secs(20));
    assert_eq!(open(&cluster, C), 0);
    assert!(matches!(
        cluster.request(C, Op::Get { key: "absent".into(), options: r(Level::All) }),
        Reply::Read(reading) if reading.siblings.is_empty()
    ));
}

#[test]
fn two_that_lost_everything_do_not_vouch_for_each_other() {
    let mut cluster = loaded(3, 10);
    for id in [B, C] {
        cluster.crash(id);
        cluster.wipe(id);
        cluster.start(id);
    }
    cluster.pass(Duration::from_secs(20));
    assert_eq!((open(&cluster, B), open(&cluster, C)), (256, 256), "one complete owner is no quorum");
    // What is there travels all the same.
    for id in [B, C] {
        assert_eq!(cluster.copy(id, &key(3)), Some(vec![String::from("value 3")]));
    }
}

#[test]
fn a_recovery_survives_lost_messages_crashes_and_writes() {
    let mut cluster = loaded(5, 100);
    cluster.crash(C);
    cluster.wipe(C);
    cluster.start(C);
    let mut requests = Vec::new();
    for round in 0..40 {
        for _ in 0..round {
            cluster.deliver();
        }
        cluster.lose(|from, to, _| (from == C || to == C) && round % 3 == 0);
        match round {
            10 => {
                cluster.crash(A);
                cluster.start(A);
            }
            20 => {
                cluster.crash(C);
                cluster.start(C);
            }
            _ => {}
        }
        requests.push(cluster.start_request(B, put(&key(round), "newer", Cover::Held)));
    }
    cluster.pass(Duration::from_secs(30));
    assert_eq!(open(&cluster, C), 0);
    for i in 0..100 {
        if cluster.preference(&key(i))[..3].contains(&C) {
            // What C coordinated before it had the older value back stands beside that.
            assert!(!cluster.copy(C, &key(i)).unwrap_or_default().is_empty(), "{i} is not back");
            let request = requests.get(i).and_then(|request| cluster.replies.get(request));
            if matches!(request, Some(Reply::Written { .. })) {
                assert_eq!(cluster.get_with(C, &key(i), r(Level::All)).0[0], "newer");
            }
        }
    }
    let status = cluster.nodes[&C].engine.status(cluster.now.instant);
    assert_eq!((status.requests, status.local), (0, 0));
}

/// A knows from its index which version it has, though it can't read it: if C has that version, from B, all is well. Then
/// C is complete, and A heals from it and B.
#[test]
fn a_damaged_record_of_a_peer_holds_nothing_up() {
    let mut cluster = loaded(3, 20);
    let record = (place(&key(5)), key(5).into());
    cluster.crash(C);
    cluster.wipe(C);
    cluster.nodes.get_mut(&A).unwrap().damaged.insert(record.clone());
    cluster.start(C);
    cluster.pass(Duration::from_secs(30));
    assert_eq!(open(&cluster, C), 0);
    assert_eq!(cluster.copy(C, &key(5)), Some(vec![String::from("value 5")]));
    assert_eq!(cluster.get_with(A, &key(5), r(Level::Quorum)).0, ["value 5"]);
    cluster.pass(Duration::from_secs(5));
    assert!(!cluster.nodes[&A].damaged.contains(&record), "healed");
}

/// A lying peer can't make a node go round in circles, nor take keys from elsewhere for what was asked.
#[test]
fn a_listing_that_makes_no_sense_proves_nothing() {
    let mut cluster = loaded(3, 1);
    cluster.crash(C);
    cluster.wipe(C);
    cluster.start(C);
    let mut asked = Vec::new();
    cluster.lose(|_, to, message| {
        let listing = matches!(message, Message::List { .. });
        listing && to == A
    });
    for (from, to, message) in &cluster.delivered {
        if let (C, B, Message::List { call, .. }) = (*from, *to, message) {
            asked.push(*call);
        }
    }
    for call in asked {
        let cursor = ListCursor { place: Place(0), at: 0 };
        for (keys, next) in [(vec![(key(0).into(), 1)], None), (vec![], Some(cursor)), (vec![], Some(cursor))]
        {
            cluster.input(
                C,
                Input::Peer(
                    B,
                    Message::Listed {
                        call,
                        keys,
                        objects: Vec::new(),
                        next,
                        complete: true,
                        damaged: false,
                        run: Run { number: 9, actor: gramme_vclock::Actor(9) },
                    },
                ),
            );
        }
    }
    assert_eq!(open(&cluster, C), 256);
}

/// N − W + 1 others intersect every write quorum; one alone may have missed what this node acknowledged.
#[test]
fn a_damaged_copy_heals_from_enough_owners() {
    for stale in [B, C] {
        let mut cluster = loaded(3, 1);
        let request = cluster.start_request(A, put(&key(0), "newer", Cover::Held));
        cluster.lose(|_, to, message| to == stale && matches!(message, Message::Write { .. }));
        cluster.run();
        assert!(matches!(cluster.replies.get(&request), Some(Reply::Written { .. })));
        cluster.nodes.get_mut(&A).unwrap().damaged.insert((place(&key(0)), key(0).into()));
        cluster.start_request(A, Op::Get { key: key(0).into(), options: r(Level::One) });
        cluster.run();
        assert_eq!(cluster.copy(A, &key(0)), Some(vec![String::from("newer")]), "with {stale} stale");
    }
}

/// Machines that may have lost unsynced writes count toward no quorum, but a damaged copy heals from them: any copy may
/// lack those. Otherwise they would wait for the damaged one, and that one for them.
#[test]
fn a_damaged_copy_and_machines_that_went_down_do_not_wait_for_each_other() {
    let mut cluster = loaded(3, 20);
    let buffered = Keyspace { durability: Durability::Interval, ..Keyspace::default() };
    cluster.change(A, ClusterOp::Stage(buffered.change("buffered").unwrap())).unwrap();
    let hash = cluster.nodes[&A].engine.membership().propose().unwrap().hash();
    cluster.change(A, ClusterOp::Commit(hash)).unwrap();
    cluster.pass(Duration::from_secs(20));
    let record = (place(&key(7)), key(7).into());
    let node = cluster.nodes.get_mut(&A).unwrap();
    node.damaged.insert(record);
    // Its listing proves nothing to others.
    node.nameless = true;
    for id in [B, C] {
        cluster.crash(id);
    }
    for id in [B, C] {
        cluster.start(id);
    }
    // The store finds it in each round anew.
    for _ in 0..20 {
        cluster.input(A, Input::Damaged(place(&key(7))));
        cluster.pass(Duration::from_secs(3));
    }
    assert_eq!(cluster.copy(A, &key(7)), Some(vec![String::from("value 7")]));
    for id in [A, B, C] {
        assert_eq!(cluster.nodes[&id].engine.status(cluster.now.instant).incomplete_partitions, 0, "{id}");
    }
}

/// Of three owners one is given up, and of the others one has a damaged copy: nobody waits for what will never answer.
#[test]
fn a_damaged_copy_heals_while_an_owner_that_was_given_up_is_replaced() {
    let mut cluster = Cluster::found(4, 3, |_| ());
    for i in 0..20 {
        cluster.put(A, &key(i), &format!("value {i}"), Cover::Held);
    }
    let owners = cluster.preference(&key(7));
    let (dead, at) = (owners[0], owners[1]);
    cluster.crash(dead);
    let node = cluster.nodes.get_mut(&at).unwrap();
    node.damaged.insert((place(&key(7)), key(7).into()));
    // Whoever pulls is told of no name.
    node.nameless = true;
    changes::commit(&mut cluster, at, vec![Change::Remove(dead)]);
    // The store finds it in each round anew.
    for _ in 0..20 {
        cluster.input(at, Input::Damaged(place(&key(7))));
        cluster.pass(Duration::from_secs(6));
    }
    assert!(cluster.nodes[&at].engine.membership().transition().is_none(), "the change ends");
    assert!(cluster.nodes[&at].damaged.is_empty(), "and the copy is healed");
    assert_eq!(cluster.get(at, &key(7)).0, ["value 7"]);
}

/// Sums don't show it, since the index still knows the record, and nobody reads it.
#[test]
fn what_the_store_finds_damaged_is_healed_without_a_read() {
    let mut cluster = loaded(3, 20);
    let record = (place(&key(7)), key(7).into());
    cluster.nodes.get_mut(&C).unwrap().damaged.insert(record.clone());
    cluster.pass(Duration::from_secs(60));
    assert!(cluster.nodes[&C].damaged.contains(&record), "nothing else finds it");
    cluster.input(C, Input::Damaged(place(&key(7))));
    cluster.input(C, Input::Damaged(gramme_quorum::RUN_PLACE));
    cluster.pass(Duration::from_secs(1));
    assert!(cluster.nodes[&C].damaged.is_empty());
    assert_eq!(cluster.copy(C, &key(7)), Some(vec![String::from("value 7")]));
    assert_eq!(cluster.nodes[&C].engine.status(cluster.now.instant).healed, 1);
}

/// What finds it compares many keys at once, which takes up what others may ask of this node meanwhile.
#[test]
fn a_damaged_copy_heals_however_few_may_wait_for_the_disk() {
    let mut cluster = Cluster::with(3, |config| config.limits.local = 4);
    let keys: Vec<String> = (0..20).map(|i| format!("{{k}}{i}")).collect();
    for key in &keys {
        cluster.put(A, key, "v", Cover::Held);
    }
    for key in &keys {
        cluster.nodes.get_mut(&C).unwrap().damaged.insert((place(key), key.clone().into()));
    }
    cluster.input(C, Input::Damaged(place("{k}")));
    cluster.pass(Duration::from_secs(5));
    assert_eq!(cluster.nodes[&C].damaged.len(), 0);
    assert_eq!(cluster.nodes[&C].engine.status(cluster.now.instant).healed, 20);
}

/// What heals it is not taken for another that finds it damaged.
#[test]
fn a_damaged_copy_is_asked_for_once() {
    let mut cluster = Cluster::new(3);
    cluster.put(A, "k", "v", Cover::Held);
    cluster.nodes.get_mut(&C).unwrap().damaged.insert((place("k"), "k".into()));
    cluster.delivered.clear();
    cluster.input(C, Input::Damaged(place("k")));
    cluster.pass(Duration::from_secs(5));
    assert_eq!(cluster.nodes[&C].engine.status(cluster.now.instant).healed, 1);
    let asked = |(from, _, message): &&(NodeId, NodeId, Message)| {
        *from == C && matches!(message, Message::Read { want: message::Want::Source, .. })
    };
    assert_eq!(cluster.delivered.iter().filter(asked).count(), 2, "each of the others");
}
