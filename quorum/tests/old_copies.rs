//! Disks that were put back from older copies, or wiped: found out, and brought up to date.

mod common;

use common::changes::{commit, fill, settle};
use common::{Cluster, lww};
use gramme_quorum::message::Message;
use gramme_quorum::*;
use gramme_ring::gossip::{self, Head};
use gramme_ring::{Change, Layout, Member, NodeId, Slot};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);
const D: NodeId = NodeId(4);

#[test]
fn an_old_copy_of_a_disk_is_found_out_and_brought_up_to_date() {
    let mut cluster = Cluster::new(3);
    fill(&mut cluster, 20);
    cluster.crash(C);
    let old = cluster.disk_of(C);
    cluster.start(C);
    cluster.pass(Duration::from_secs(10));
    for i in 0..20 {
        cluster.put(A, &format!("key {i}"), "newer", Cover::Held);
    }
    cluster.put(A, "new", "newer", Cover::Held);
    cluster.pass(Duration::from_secs(10));
    cluster.crash(C);
    cluster.replace_disk(C, old);
    cluster.start(C);
    cluster.run();
    // Its answers count toward no quorum, even before it knows.
    cluster.crash(B);
    let read = Op::Get { key: "new".into(), options: ReadOptions::default() };
    assert!(matches!(cluster.request(A, read), Reply::Failed(OpError::Quorum { .. })));
    cluster.start(B);
    cluster.pass(Duration::from_secs(20));
    assert_eq!(cluster.copy(C, "new"), Some(vec![String::from("newer")]));
    assert_eq!(cluster.nodes[&C].engine.status(cluster.now.instant).incomplete_partitions, 0);
    cluster.crash(B);
    assert_eq!(cluster.get(A, "new").0, ["newer"]);
}

/// Nobody remembers that it was set back. But it hears that a change of the layout is over which it knows nothing of, and has nothing
/// of what that brought it.
#[test]
fn what_a_change_brought_before_the_disk_was_put_back_is_missing() {
    let mut cluster = Cluster::new(4);
    let mut written = fill(&mut cluster, 60);
    cluster.pass(Duration::from_secs(1));
    let (disk, book) = (cluster.nodes[&C].durable.clone(), cluster.memberships[&C].clone());
    let before = book.layout().unwrap().clone();
    commit(&mut cluster, A, vec![Change::Member(Member::new(C).with_weight(3))]);
    settle(&mut cluster, &mut written);
    let after = cluster.memberships[&C].layout().unwrap().clone();
    let owns = |layout: &Layout, key: &str| layout.is_owner(layout.partition_of(Slot::of(key.as_bytes())), C);
    let key = written.keys().find(|key| owns(&after, key) && !owns(&before, key));
    let key = key.expect("it has gained something").clone();
    let list = cluster.preference(&key);
    let others: Vec<NodeId> = list[..3].iter().copied().filter(|id| *id != C).collect();
    let (has, lacks, fallback) = (others[0], others[1], list[3]);
    // Two owners have this, and a fallback.
    cluster.crash(lacks);
    cluster.put(C, &key, "newest", Cover::Held);
    for id in [fallback, has, C] {
        cluster.crash(id);
    }
    cluster.replace_disk(C, disk);
    cluster.memberships.insert(C, book);
    let mut forgetful = cluster.disk_of(lacks);
    forgetful.retain(|(_, record), _| &record[..] != b"peers");
    cluster.replace_disk(lacks, forgetful);
    cluster.start(lacks);
    cluster.start(C);
    cluster.pass(Duration::from_secs(5));
    assert_eq!(cluster.nodes[&C].engine.membership().layout(), Some(&after));
    let read = Op::Get { key: key.clone().into(), options: ReadOptions::default() };
    let told = cluster.request(C, read);
    assert!(matches!(told, Reply::Failed(OpError::Quorum { need: Need::R, want: 2, .. })), "{told:?}");
    cluster.start(has);
    cluster.start(fallback);
    cluster.pass(Duration::from_secs(20));
    assert_eq!(cluster.nodes[&C].engine.status(cluster.now.instant).incomplete_partitions, 0);
    assert_eq!(cluster.copy(C, &key).unwrap(), ["newest"]);
}

/// Hints and copies that a fallback has dropped move its log on as well: a copy of its disk from after that is older than what it
/// acknowledged since by those few writes alone.
#[test]
fn an_old_copy_is_found_out_after_many_deletes() {
    let mut cluster = Cluster::new(4);
    let list = cluster.preference("{k}");
    let fallback = list[3];
    cluster.crash(list[2]);
    for i in 0..20 {
        cluster.put(list[0], &format!("{{k}}{i}"), "v", Cover::Held);
    }
    assert_eq!(cluster.hints(fallback), 20);
    cluster.start(list[2]);
    cluster.pass(Duration::from_secs(3));
    assert_eq!(cluster.hints(fallback), 0);
    let copy = cluster.nodes[&fallback].durable.clone();
    cluster.crash(list[1]);
    cluster.put(list[0], "{k}later", "v", Cover::Held);
    assert_eq!(cluster.copy(fallback, "{k}later"), Some(vec![String::from("v")]));
    cluster.pass(Duration::from_secs(1));
    cluster.crash(fallback);
    cluster.replace_disk(fallback, copy);
    cluster.delivered.clear();
    cluster.start(fallback);
    cluster.pass(Duration::from_secs(1));
    let told = |(_, to, message): &_| *to == fallback && matches!(message, Message::Outdated { .. });
    assert!(cluster.delivered.iter().any(told));
}

/// Those who could tell have restarted meanwhile, and remember.
#[test]
fn an_old_copy_is_found_out_by_peers_that_have_restarted() {
    // The copy was made before the last opening, or since.
    for since in [false, true] {
        let mut cluster = Cluster::new(3);
        fill(&mut cluster, 20);
        cluster.crash(C);
        let mut old = cluster.disk_of(C);
        cluster.start(C);
        cluster.pass(Duration::from_secs(10));
        if since {
            old = cluster.nodes[&C].durable.clone();
        }
        for i in 0..20 {
            cluster.put(A, &format!("key {i}"), "newer", Cover::Held);
        }
        cluster.pass(Duration::from_secs(10));
        cluster.crash(C);
        cluster.pass(Duration::from_secs(5));
        for id in [A, B] {
            cluster.crash(id);
            cluster.start(id);
            cluster.pass(Duration::from_secs(5));
        }
        cluster.replace_disk(C, old);
        // One witness is not enough to bring it up to date.
        cluster.crash(B);
        cluster.start(C);
        cluster.pass(Duration::from_secs(5));
        let read = Op::Get { key: "nothing".into(), options: ReadOptions::default() };
        assert!(matches!(cluster.request(A, read), Reply::Failed(OpError::Quorum { .. })), "since: {since}");
        cluster.start(B);
        cluster.pass(Duration::from_secs(20));
        assert_eq!(cluster.copy(C, "key 7"), Some(vec![String::from("newer")]));
        assert!(cluster.incomplete.is_empty());
        assert_eq!(cluster.nodes[&C].engine.status(cluster.now.instant).incomplete_partitions, 0);
        // Who was not set back is not suspected.
        for id in [A, B, C] {
            cluster.crash(id);
            cluster.start(id);
            cluster.pass(Duration::from_secs(5));
            assert_eq!(cluster.nodes[&id].engine.status(cluster.now.instant).incomplete_partitions, 0);
        }
    }
}

/// Nor do they take anybody for sound before they have read what they had noted.
#[test]
fn nobody_counts_before_it_is_known_what_they_told() {
    let mut cluster = Cluster::new(3);
    fill(&mut cluster, 20);
    let old = cluster.nodes[&C].durable.clone();
    for i in 0..20 {
        cluster.put(A, &format!("key {i}"), "newer", Cover::Held);
    }
    cluster.pass(Duration::from_secs(5));
    cluster.crash(C);
    cluster.pass(Duration::from_secs(5));
    cluster.crash(B);
    cluster.crash(A);
    cluster.starts_late = true;
    cluster.start(A);
    cluster.starts_late = false;
    cluster.nodes.get_mut(&A).unwrap().loads = true;
    assert!(!cluster.nodes[&A].held_loads.is_empty());
    cluster.replace_disk(C, old);
    cluster.loses = |_, to, message| to == C && matches!(message, Message::Outdated { .. });
    cluster.start(C);
    cluster.pass(Duration::from_secs(5));
    let read = || Op::Get { key: "key 7".into(), options: ReadOptions::default() };
    assert!(matches!(cluster.request(A, read()), Reply::Failed(OpError::Quorum { .. })));
    cluster.load(A);
    assert!(matches!(cluster.request(A, read()), Reply::Failed(OpError::Quorum { .. })));
    cluster.loses = |_, _, _| false;
    cluster.start(B);
    cluster.pass(Duration::from_secs(20));
    assert!(matches!(cluster.request(A, read()), Reply::Read(_)));
}

/// A peer's word can't put a node beyond all numbers, from which it would never count again.
#[test]
fn a_mark_that_no_log_comes_to_is_not_believed() {
    let mut cluster = Cluster::new(3);
    fill(&mut cluster, 5);
    cluster.pass(Duration::from_secs(1));
    let run = cluster.delivered.iter().rev().find_map(|(from, _, message)| match message {
        Message::Heartbeat { run, .. } if *from == C => Some(*run),
        _ => None,
    });
    let lie = Message::Outdated { run: run.unwrap(), mark: u64::MAX };
    cluster.input(C, Input::Peer(B, lie));
    assert_eq!(cluster.nodes[&C].engine.status(cluster.now.instant).incomplete_partitions, 0);
    cluster.crash(C);
    cluster.start(C);
    cluster.pass(Duration::from_secs(3));
    assert_eq!(cluster.nodes[&C].engine.status(cluster.now.instant).incomplete_partitions, 0);
}

/// A node that knew that it was wiped and has caught up is told of its past, and need not catch up once more: meanwhile
/// another may depend on it.
#[test]
fn who_has_recovered_in_this_run_stays_recovered() {
    let mut cluster = Cluster::new(3);
    fill(&mut cluster, 30);
    cluster.pass(Duration::from_secs(1));
    cluster.crash(C);
    cluster.wipe(C);
    // Its peers' word of the old marks comes late.
    cluster.loses =
        |_, to, message| to == C && matches!(message, Message::Outdated { .. } | Message::Gossip(_));
    cluster.start(C);
    cluster.pass(Duration::from_secs(3));
    assert!(!cluster.incomplete.contains(&C), "it has recovered");
    cluster.loses = |_, _, _| false;
    cluster.pass(Duration::from_millis(300));
    let told = |(_, to, message): &(NodeId, NodeId, Message)| {
        *to == C && matches!(message, Message::Outdated { .. })
    };
    assert!(cluster.delivered.iter().any(told));
    assert!(!cluster.incomplete.contains(&C));
    assert_eq!(cluster.nodes[&C].engine.status(cluster.now.instant).incomplete_partitions, 0);
    // And it counts.
    cluster.pass(Duration::from_secs(1));
    cluster.crash(B);
    assert_eq!(cluster.get(A, "key 1").0, ["value 1"]);
}

/// A copy from before the node joined does not even know that it owns anything: told that it is an old one, the node is not to take
/// itself for complete by a layout that is about to change. Nor is a crash to make it forget.
#[test]
fn an_old_copy_from_before_the_node_owned_anything_is_incomplete() {
    for remembered in [false, true] {
        let mut cluster = Cluster::new(3);
        let mut written = fill(&mut cluster, 40);
        cluster.add(D);
        cluster.pass(Duration::from_secs(5));
        let (disk, book) = (cluster.nodes[&D].durable.clone(), cluster.memberships[&D].clone());
        commit(&mut cluster, A, vec![Change::Member(Member::new(D))]);
        settle(&mut cluster, &mut written);
        cluster.pass(Duration::from_secs(5));
        cluster.crash(D);
        cluster.replace_disk(D, disk);
        cluster.memberships.insert(D, book);
        cluster.loses = match remembered {
            true => |_, to, message| to == D && matches!(message, Message::Listed { .. }),
            false => |_, to, message| {
                to == D && matches!(message, Message::Listed { .. } | Message::Outdated { .. })
            },
        };
        cluster.start(D);
        cluster.pass(Duration::from_secs(3));
        assert!(cluster.nodes[&D].engine.layout().unwrap().is_member(D));
        assert!(cluster.incomplete.contains(&D), "remembered: {remembered}");
        cluster.crash(D);
        cluster.start(D);
        cluster.pass(Duration::from_secs(3));
        assert!(cluster.nodes[&D].engine.status(cluster.now.instant).incomplete_partitions > 0);
        cluster.loses = |_, _, _| false;
        cluster.pass(Duration::from_secs(20));
        assert!(!cluster.incomplete.contains(&D));
        assert_eq!(cluster.nodes[&D].engine.status(cluster.now.instant).incomplete_partitions, 0);
        let layout = cluster.nodes[&D].engine.layout().unwrap().clone();
        for (key, value) in &written {
            if layout.is_owner(layout.partition_of(Slot::of(key.as_bytes())), D) {
                assert_eq!(cluster.copy(D, key).as_ref(), Some(&vec![value.clone()]), "{key}");
            }
        }
    }
}

/// Who left, was wiped while it owned nothing and joined again has lost nothing, whatever somebody remembers who slept through that.
#[test]
fn a_node_that_was_wiped_between_leaving_and_joining_is_not_accused_by_an_old_copy() {
    let mut cluster = Cluster::new(4);
    let mut written = fill(&mut cluster, 60);
    cluster.pass(Duration::from_secs(3));
    // Who remembers D's log writes that down.
    cluster.crash(D);
    cluster.start(D);
    cluster.pass(Duration::from_secs(3));
    let (disk, book) = (cluster.nodes[&A].durable.clone(), cluster.memberships[&A].clone());
    commit(&mut cluster, B, vec![Change::Leave(D)]);
    settle(&mut cluster, &mut written);
    cluster.crash(D);
    cluster.wipe(D);
    cluster.memberships.remove(&D);
    cluster.start(D);
    cluster.pass(Duration::from_secs(3));
    commit(&mut cluster, B, vec![Change::Member(Member::new(D))]);
    settle(&mut cluster, &mut written);
    cluster.crash(A);
    cluster.replace_disk(A, disk);
    cluster.memberships.insert(A, book);
    cluster.delivered.clear();
    cluster.start(A);
    cluster.pass(Duration::from_secs(20));
    let accused = |node| {
        let told = |(_, to, message): &_| *to == node && matches!(message, Message::Outdated { .. });
        cluster.delivered.iter().any(told)
    };
    assert_eq!((accused(A), accused(D)), (true, false));
    assert!(cluster.incomplete.is_empty());
    for id in [A, D] {
        assert_eq!(cluster.nodes[&id].engine.status(cluster.now.instant).incomplete_partitions, 0);
    }
}

/// All lose power at once, so that no connection breaks for anybody, and one comes back from a backup of the week before.
#[test]
fn an_old_copy_is_found_out_after_all_have_lost_power() {
    let mut cluster = Cluster::new(3);
    fill(&mut cluster, 20);
    cluster.pass(Duration::from_secs(5));
    let old = cluster.nodes[&C].durable.clone();
    for i in 0..400 {
        cluster.put(A, &format!("key {i}"), "newer", Cover::Held);
    }
    cluster.pass(Duration::from_secs(1));
    cluster.put(A, "key 7", "newest", Cover::Held);
    for id in [A, B, C] {
        cluster.crash(id);
    }
    cluster.replace_disk(C, old);
    // One of the two that have it is missing.
    cluster.start(C);
    cluster.start(A);
    cluster.pass(Duration::from_secs(2));
    let read = Op::Get { key: "key 7".into(), options: ReadOptions::default() };
    assert!(matches!(cluster.request(C, read), Reply::Failed(OpError::Quorum { .. })));
    cluster.start(B);
    cluster.pass(Duration::from_secs(20));
    assert_eq!(cluster.copy(C, "key 7"), Some(vec![String::from("newest")]));
    assert!(cluster.incomplete.is_empty());
}

/// Nor is who was wiped before it joined accused by what it told as no member, which somebody remembers who stood still meanwhile.
#[test]
fn a_node_that_was_wiped_before_it_joined_is_not_accused() {
    let mut cluster = Cluster::new(3);
    let mut written = fill(&mut cluster, 4);
    cluster.add(D);
    // Its log comes further than the next one's.
    for _ in 0..300 {
        cluster.pass(Duration::from_millis(300));
        cluster.crash(D);
        cluster.start(D);
    }
    cluster.pass(Duration::from_secs(5));
    let number = |cluster: &Cluster| cluster.nodes[&D].engine.run().number;
    let before = number(&cluster);
    cluster.crash(D);
    cluster.wipe(D);
    cluster.memberships.remove(&D);
    for id in [A, B, C] {
        cluster.crash(id);
        cluster.start(id);
    }
    cluster.start(D);
    cluster.pass(Duration::from_secs(5));
    assert!(number(&cluster) < before, "this proves nothing");
    commit(&mut cluster, B, vec![Change::Member(Member::new(D))]);
    settle(&mut cluster, &mut written);
    cluster.pass(Duration::from_secs(5));
    cluster.crash(D);
    cluster.start(D);
    cluster.pass(Duration::from_secs(5));
    let membership = cluster.memberships[&C].digest();
    let heads = vec![(D, Head { incarnation: before, version: 0 })];
    let heads = Message::Gossip(gossip::Message::Heads { membership, commit: None, heads });
    assert!(cluster.incomplete.is_empty());
    cluster.input(D, Input::Peer(C, heads));
    assert!(cluster.incomplete.is_empty(), "{:?}", cluster.incomplete);
    assert_eq!(cluster.nodes[&D].engine.status(cluster.now.instant).incomplete_partitions, 0);
}

/// Whoever has yet to hear of a layout tells of a delete that outranks a write all the same.
#[test]
fn a_delete_that_outranks_a_write_is_told_of_before_a_layout_is_heard_of() {
    let mut cluster = Cluster::new(3);
    common::commit(&mut cluster, A, &[("s:", lww())]);
    cluster.put(A, "s:k", "old", Cover::Held);
    cluster.loses = |_, to, message| to == C && matches!(message, Message::Gossip(_));
    cluster.change(A, ClusterOp::Stage(Keyspace::default().change("x:").unwrap())).unwrap();
    let hash = cluster.nodes[&A].engine.membership().propose().unwrap().hash();
    cluster.change(A, ClusterOp::Commit(hash)).unwrap();
    cluster.pass(std::time::Duration::from_secs(1));
    let version = |node| cluster.nodes[&node].engine.membership().layout().unwrap().version();
    assert!(version(C) < version(B));
    // A's clock is ahead, and B does not hear of its delete but by C.
    cluster.cut(A, B, true);
    cluster.skew.insert(A, 3_600_000);
    assert!(matches!(cluster.request(A, common::delete("s:k", Cover::Held)), Reply::Written { .. }));
    cluster.cut(A, C, true);
    cluster.put(B, "s:k", "new", Cover::Held);
    assert_eq!(cluster.get(B, "s:k").0, ["new"]);
}
