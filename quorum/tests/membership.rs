//! Nodes join, leave, are removed and replaced while clients write.

mod common;

use common::changes::{commit, fill, settle};
use common::{Cluster, put};
use gramme_quorum::message::{CallId, Message, Purpose, Syncing, Want};
use gramme_quorum::*;
use gramme_ring::{Change, Member, NodeId, Phase, Slot, Step};
use std::collections::BTreeMap;

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);
const D: NodeId = NodeId(4);

/// A step of the transition that can't be written down is tried again, and not at every occasion.
#[test]
fn a_step_that_cannot_be_written_down_waits_for_room() {
    let mut cluster = Cluster::new(4);
    let mut written = fill(&mut cluster, 40);
    cluster.change(A, ClusterOp::Stage(Change::Leave(D))).unwrap();
    let hash = cluster.nodes[&A].engine.membership().propose().unwrap().hash();
    // An open write of the old layout keeps this node from its first step.
    cluster.nodes.get_mut(&B).unwrap().syncs = false;
    cluster.start_request(B, put("open", "v", Cover::Held));
    cluster.change(A, ClusterOp::Commit(hash)).unwrap();
    cluster.run();
    assert!(cluster.nodes[&B].engine.membership().transition().is_some());
    cluster.nodes.get_mut(&B).unwrap().book_full = true;
    cluster.sync(B);
    cluster.pass(Duration::from_secs(10));
    let refused = cluster.nodes[&B].saves_refused;
    assert!((5..=11).contains(&refused), "{refused} tries in ten seconds");
    cluster.nodes.get_mut(&B).unwrap().book_full = false;
    settle(&mut cluster, &mut written);
    cluster.crash(D);
    check(&mut cluster, &written);
}

/// Whether a hint has served is known only when the copy was looked at once more: it may have changed meanwhile.
#[test]
fn who_leaves_waits_until_what_it_handed_over_is_settled() {
    let mut cluster = Cluster::new(5);
    let list = cluster.preference("k");
    let (owner, leaver) = (list[2], list[3]);
    cluster.crash(owner);
    cluster.put(list[0], "k", "v", Cover::Held);
    assert_eq!(cluster.hints(leaver), 1);
    cluster.loses = |_, _, message| matches!(message, Message::Write { purpose: Purpose::Handoff, .. });
    cluster.start(owner);
    commit(&mut cluster, list[0], vec![Change::Leave(leaver)]);
    let waits = |cluster: &Cluster| {
        let transition = cluster.nodes[&leaver].engine.membership().transition();
        transition.is_some_and(|t| t.step() == Step::Moving && t.waiting_for() == [leaver])
    };
    for _ in 0..300 {
        cluster.pass(Duration::from_millis(100));
    }
    assert!(waits(&cluster), "all but the hint is done");
    cluster.loses = |_, _, _| false;
    cluster.nodes.get_mut(&leaver).unwrap().loads = false;
    cluster.pass(Duration::from_secs(7));
    // The copy is read and sent, and when it has been acknowledged the second look has to wait.
    cluster.load(leaver);
    cluster.nodes.get_mut(&leaver).unwrap().loads = false;
    cluster.run();
    assert_eq!(cluster.copy(owner, "k").unwrap(), ["v"]);
    assert!(waits(&cluster), "it may have changed since it was sent");
    cluster.load(leaver);
    cluster.pass(Duration::from_secs(2));
    assert!(!waits(&cluster));
}

/// A hint is gone when its removal is durable, and not as long as the disk refuses it, or may come back without it.
#[test]
fn who_leaves_waits_until_its_last_hint_is_gone_durably() {
    for full in [false, true] {
        let mut cluster = Cluster::new(5);
        let list = cluster.preference("k");
        let (owner, leaver) = (list[2], list[3]);
        cluster.crash(owner);
        cluster.put(list[0], "k", "v", Cover::Held);
        cluster.loses = |_, _, message| matches!(message, Message::Write { purpose: Purpose::Handoff, .. });
        cluster.start(owner);
        commit(&mut cluster, list[0], vec![Change::Leave(leaver)]);
        let waits = |cluster: &Cluster| {
            let transition = cluster.nodes[&leaver].engine.membership().transition();
            transition.is_some_and(|t| t.step() == Step::Moving && t.waiting_for() == [leaver])
        };
        for _ in 0..300 {
            cluster.pass(Duration::from_millis(100));
        }
        assert!(waits(&cluster), "all but the hint is done");
        cluster.loses = |_, _, _| false;
        let disk = cluster.nodes.get_mut(&leaver).unwrap();
        disk.syncs = full;
        if full {
            disk.refuses = |place| place.0 >= 0x8000;
        }
        for _ in 0..100 {
            cluster.pass(Duration::from_millis(100));
            assert!(waits(&cluster), "what has served is not gone; full: {full}");
        }
        assert_eq!(cluster.copy(owner, "k").unwrap(), ["v"], "its owner has it");
        cluster.nodes.get_mut(&leaver).unwrap().refuses = |_| false;
        cluster.sync(leaver);
        cluster.pass(Duration::from_secs(8));
        assert!(!waits(&cluster));
        assert_eq!(cluster.hints(leaver), 0);
    }
}

/// A write that is answered and waits for a silent owner may end as a hint.
#[test]
fn who_leaves_waits_for_writes_that_may_leave_a_hint() {
    let mut cluster = Cluster::with(3, |config| {
        (config.timing.patience, config.timing.request) = (Duration::from_secs(30), Duration::from_secs(60));
    });
    let (leaver, other, silent) = (A, B, C);
    cluster.loses = |_, to, message| to == C && matches!(message, Message::Write { .. });
    let request = cluster.start_request(leaver, put("k", "v", Cover::Held));
    cluster.run();
    assert!(matches!(cluster.replies[&request], Reply::Written { .. }));
    commit(&mut cluster, other, vec![Change::Leave(leaver)]);
    cluster.pass(Duration::from_secs(25));
    assert_eq!(cluster.nodes[&leaver].engine.status(cluster.now.instant).lingering_writes, 1);
    let transition = cluster.nodes[&leaver].engine.membership().transition();
    assert!(transition.is_some_and(|t| t.waiting_for() == [leaver]), "all but the write is done");
    cluster.pass(Duration::from_secs(6));
    assert_eq!(cluster.hints(leaver), 1, "it is a hint now");
    cluster.loses = |_, _, _| false;
    cluster.pass(Duration::from_secs(20));
    assert!(cluster.nodes[&leaver].engine.membership().transition().is_none());
    assert_eq!(cluster.hints(leaver), 0);
    assert_eq!(cluster.copy(silent, "k").unwrap(), ["v"]);
}

/// Who has said that nothing depends on it takes no more hints.
#[test]
fn who_has_left_stands_in_for_nobody() {
    let mut cluster = Cluster::new(5);
    let list = cluster.preference("k");
    let (owner, leaver) = (list[2], list[3]);
    // A read by the old layout holds up the last step of its coordinator.
    cluster.loses = |_, _, message| matches!(message, Message::Read { .. });
    let timeout = Some(Duration::from_secs(60));
    let options = ReadOptions { pr: Some(Level::All), timeout, ..ReadOptions::default() };
    cluster.start_request(list[0], Op::Get { key: "k".into(), options });
    commit(&mut cluster, list[0], vec![Change::Leave(leaver)]);
    cluster.loses = |_, _, message| matches!(message, Message::Read { want: Want::Object | Want::Digest, key, .. } if key == "k");
    cluster.pass(Duration::from_secs(20));
    let transition = cluster.nodes[&leaver].engine.membership().transition().unwrap();
    assert_eq!((transition.phase(leaver), transition.waiting_for()), (Some(Phase::Moved), vec![list[0]]));
    cluster.crash(owner);
    let request = cluster.start_request(list[0], put("k", "v", Cover::Held));
    cluster.pass(Duration::from_secs(2));
    assert!(matches!(cluster.replies[&request], Reply::Written { .. }));
    let to_leaver = |(_, to, message): &&(NodeId, NodeId, Message)| {
        *to == leaver && matches!(message, Message::Write { hints, .. } if hints == &[owner])
    };
    assert!(cluster.delivered.iter().any(|m| to_leaver(&m)), "it was asked, being the first in line");
    assert_eq!(cluster.hints(leaver), 0);
    let hints: usize = list.iter().filter(|id| **id != owner).map(|id| cluster.hints(*id)).sum();
    assert!(hints > 0, "another keeps it");
}

/// Writes go on all the time at a node that has much to do: what it owns no more goes all the same.
#[test]
fn what_moved_away_is_dropped_while_clients_write() {
    let mut cluster = Cluster::new(3);
    let written = fill(&mut cluster, 60);
    cluster.add(D);
    cluster.pass(Duration::from_secs(5));
    commit(&mut cluster, A, vec![Change::Member(Member::new(D))]);
    // No moment passes in which this node does not wait for a replica: that one syncs when the next write is under way.
    for i in 0..400 {
        let waits = |key: &String| [A, B].iter().all(|id| cluster.preference(key)[..3].contains(id));
        let key = (0..).map(|j| format!("slow {i} {j}")).find(waits).unwrap();
        cluster.start_request(A, put(&key, "v", Cover::Held));
        cluster.sync(B);
        cluster.nodes.get_mut(&B).unwrap().syncs = false;
        cluster.pass(Duration::from_millis(100));
    }
    assert!(cluster.nodes[&A].engine.membership().transition().is_none());
    assert!(cluster.nodes[&A].engine.status(cluster.now.instant).lingering_writes > 0);
    for key in written.keys() {
        let owns = cluster.preference(key)[..3].contains(&A);
        assert_eq!(cluster.copy(A, key).is_some(), owns, "{key}");
    }
}

/// A full disk takes removals alone: what a node keeps for one who was given up can't be noted for its heirs.
#[test]
fn a_node_with_a_full_disk_leaves() {
    let mut cluster = Cluster::new(5);
    let list = cluster.preference("k");
    let (dead, leaver) = (list[2], list[3]);
    cluster.crash(dead);
    cluster.put(list[0], "k", "v", Cover::Held);
    assert_eq!(cluster.hints(leaver), 1);
    cluster.nodes.get_mut(&leaver).unwrap().takes_only_removals = true;
    commit(&mut cluster, list[0], vec![Change::Remove(dead)]);
    let is_over = |cluster: &Cluster| {
        let others = cluster.nodes.iter().filter(|(id, _)| **id != dead);
        others.into_iter().all(|(_, node)| node.engine.membership().transition().is_none())
    };
    for _ in 0..600 {
        cluster.pass(Duration::from_millis(100));
    }
    assert!(is_over(&cluster));
    commit(&mut cluster, list[0], vec![Change::Leave(leaver)]);
    for _ in 0..600 {
        cluster.pass(Duration::from_millis(100));
    }
    assert!(is_over(&cluster), "it has handed over all that it has");
    let layout = cluster.nodes[&list[0]].engine.layout().unwrap();
    let owners: Vec<NodeId> = layout.owners(layout.partition_of(Slot::of(b"k"))).collect();
    for owner in owners {
        assert_eq!(cluster.copy(owner, "k").unwrap(), ["v"], "{owner}");
    }
}

/// In the end every owner has every key, nobody else has any, and reads find them.
fn check(cluster: &mut Cluster, written: &BTreeMap<String, String>) {
    cluster.pass(Duration::from_secs(30));
    let at = *cluster.nodes.keys().next().unwrap();
    let layout = cluster.nodes[&at].engine.layout().unwrap().clone();
    for (key, value) in written {
        let owners: Vec<NodeId> = layout.owners(layout.partition_of(Slot::of(key.as_bytes()))).collect();
        for id in cluster.nodes.keys() {
            let copy = cluster.copy(*id, key);
            if owners.contains(id) {
                // A write through a fallback may not have known an older value, which then stays beside it.
                let copy = copy.unwrap_or_default();
                assert!(copy.contains(value), "{key} at its owner {id}: {copy:?}");
            } else {
                assert_eq!(copy, None, "{key} at {id}, which does not own it");
            }
        }
        assert_eq!(cluster.get(at, key).0.first(), Some(value), "{key}");
    }
}

#[test]
fn a_node_joins_while_clients_write() {
    let mut cluster = Cluster::new(3);
    let mut written = fill(&mut cluster, 60);
    cluster.add(D);
    cluster.pass(Duration::from_secs(5));
    assert_eq!(
        cluster.nodes[&D].engine.layout().unwrap().version(),
        cluster.nodes[&A].engine.layout().unwrap().version()
    );
    assert_eq!(cluster.get(D, "key 1").0, ["value 1"], "it is no member yet, and forwards");
    commit(&mut cluster, B, vec![Change::Member(Member::new(D))]);
    settle(&mut cluster, &mut written);
    assert!(cluster.nodes[&C].engine.layout().unwrap().is_member(D));
    check(&mut cluster, &written);
}

#[test]
fn a_node_leaves_while_clients_write() {
    let mut cluster = Cluster::new(4);
    let mut written = fill(&mut cluster, 60);
    commit(&mut cluster, A, vec![Change::Leave(D)]);
    settle(&mut cluster, &mut written);
    cluster.crash(D);
    check(&mut cluster, &written);
}

#[test]
fn a_dead_node_is_removed_and_its_hints_go_to_the_owners() {
    let mut cluster = Cluster::new(5);
    let mut written = fill(&mut cluster, 60);
    cluster.crash(D);
    for i in 60..100 {
        cluster.put(A, &format!("key {i}"), "hinted", Cover::Held);
        written.insert(format!("key {i}"), String::from("hinted"));
    }
    assert!([A, B, C, NodeId(5)].iter().any(|id| cluster.hints(*id) > 0));
    commit(&mut cluster, A, vec![Change::Remove(D)]);
    settle(&mut cluster, &mut written);
    check(&mut cluster, &written);
    for id in [A, B, C, NodeId(5)] {
        assert_eq!(cluster.hints(id), 0, "hints at {id}");
    }
}

#[test]
fn a_node_is_replaced_by_another() {
    let mut cluster = Cluster::new(3);
    let mut written = fill(&mut cluster, 60);
    cluster.add(D);
    cluster.pass(Duration::from_secs(5));
    commit(&mut cluster, A, vec![Change::Member(Member::new(D)), Change::Leave(C)]);
    settle(&mut cluster, &mut written);
    cluster.crash(C);
    check(&mut cluster, &written);
}

#[test]
fn every_node_restarts_in_every_step() {
    for victim in [A, B, D] {
        let mut cluster = Cluster::new(3);
        let mut written = fill(&mut cluster, 40);
        cluster.add(D);
        cluster.pass(Duration::from_secs(5));
        commit(&mut cluster, B, vec![Change::Member(Member::new(D))]);
        for _ in 0..20 {
            for _ in 0..40 {
                cluster.deliver();
            }
            cluster.crash(victim);
            cluster.start(victim);
        }
        settle(&mut cluster, &mut written);
        check(&mut cluster, &written);
    }
}

/// What a node is to own and does not have yet is no less missing because its machine went down, or its disk was lost.
#[test]
fn a_new_owner_that_comes_back_still_lacks_what_it_is_to_own() {
    for wiped in [false, true] {
        let mut cluster = Cluster::new(3);
        let buffered = Keyspace { durability: Durability::Interval, ..Keyspace::default() };
        commit(&mut cluster, A, vec![buffered.change("buffered").unwrap()]);
        let mut written = fill(&mut cluster, 60);
        settle(&mut cluster, &mut written);
        cluster.add(D);
        cluster.pass(Duration::from_secs(5));
        commit(&mut cluster, B, vec![Change::Member(Member::new(D))]);
        let step = |cluster: &Cluster| cluster.nodes[&D].engine.membership().transition().map(|t| t.step());
        while step(&cluster) != Some(Step::Transferring) {
            assert!(cluster.deliver());
        }
        cluster.crash(D);
        if wiped {
            cluster.wipe(D);
        }
        for other in [A, B, C] {
            cluster.cut(D, other, true);
        }
        cluster.start(D);
        cluster.pass(Duration::from_secs(5));
        let membership = cluster.nodes[&D].engine.membership();
        assert!(membership.transition().unwrap().waiting_for().contains(&D), "wiped: {wiped}");
        for other in [A, B, C] {
            cluster.cut(D, other, false);
        }
        settle(&mut cluster, &mut written);
        check(&mut cluster, &written);
    }
}

#[test]
fn a_member_that_dies_in_mid_transition_is_given_up() {
    let mut cluster = Cluster::new(4);
    let mut written = fill(&mut cluster, 60);
    let joiner = NodeId(5);
    cluster.add(joiner);
    cluster.pass(Duration::from_secs(5));
    cluster.crash(D);
    commit(&mut cluster, A, vec![Change::Member(Member::new(joiner))]);
    cluster.pass(Duration::from_secs(20));
    let transition =
        |cluster: &Cluster| cluster.nodes[&A].engine.membership().transition().map(|t| t.waiting_for());
    assert_eq!(transition(&cluster), Some(vec![D]), "it is waited for");
    cluster.change(B, ClusterOp::Stage(Change::Remove(D))).unwrap();
    settle(&mut cluster, &mut written);
    let hash = cluster.nodes[&C].engine.membership().propose().unwrap().hash();
    cluster.change(C, ClusterOp::Commit(hash)).unwrap();
    settle(&mut cluster, &mut written);
    assert!(!cluster.nodes[&A].engine.layout().unwrap().is_member(D));
    check(&mut cluster, &written);
}

/// What a node was about to drop when it came to own it again stays.
#[test]
fn a_partition_that_comes_back_is_not_dropped() {
    for slow in [B, C, D] {
        comes_back(slow);
    }
}

fn comes_back(slow: NodeId) {
    let joiner = NodeId(5);
    let mut cluster = Cluster::new(4);
    let written = fill(&mut cluster, 100);
    cluster.add(joiner);
    cluster.pass(Duration::from_secs(5));
    let step = |cluster: &Cluster| cluster.nodes[&A].engine.membership().transition().map(|t| t.step());
    let reach = |cluster: &mut Cluster, wanted| {
        while step(cluster) != Some(wanted) {
            assert!(cluster.deliver());
        }
    };
    commit(&mut cluster, B, vec![Change::Member(Member::new(joiner))]);
    reach(&mut cluster, Step::Moving);
    cluster.pause(B);
    cluster.pass(Duration::from_secs(5));
    // When the transition has ended it offers once more what it lost, to drop it, and no answer reaches it.
    cluster.loses = |_, to, message| to == A && matches!(message, Message::Offered { .. });
    cluster.resume(B);
    cluster.pass(Duration::from_secs(3));
    let status = |cluster: &Cluster| cluster.nodes[&A].engine.status(cluster.now.instant);
    assert!(step(&cluster).is_none() && status(&cluster).sweeping_partitions > 0);
    commit(&mut cluster, B, vec![Change::Leave(joiner)]);
    reach(&mut cluster, Step::Transferring);
    cluster.loses = |_, _, _| false;
    // Somebody holds the transition up, while the answers come.
    cluster.pause(slow);
    cluster.pass(Duration::from_secs(20));
    assert_eq!((step(&cluster), status(&cluster).gaining_partitions), (Some(Step::Transferring), 0));
    let layout = cluster.nodes[&A].engine.layout().unwrap().clone();
    for key in written.keys() {
        if layout.is_owner(layout.partition_of(Slot::of(key.as_bytes())), A) {
            assert!(cluster.copy(A, key).is_some(), "{key} is gone from one who is to own it");
        }
    }
}

/// It has offered all that it has to its heirs, or is about to: what came afterwards would go with it.
#[test]
fn who_leaves_takes_nothing_for_itself_any_more() {
    let mut cluster = Cluster::with(4, |config| config.timing.exchange = Duration::from_secs(3600));
    let [keeper, other, leaver, _] = cluster.preference("k")[..] else { panic!("four nodes") };
    cluster.put(keeper, "k", "v", Cover::Held);
    cluster.pass(Duration::from_secs(2));
    let key = bytes::Bytes::from("k");
    let object = cluster.nodes[&keeper].durable[&(common::place("k"), key.clone())].clone();
    let handoff = |cluster: &mut Cluster, call: u64, from: NodeId| {
        let layout = cluster.memberships[&leaver].layout().unwrap().version();
        let (call, purpose, sync) = (CallId(call), Purpose::Handoff, Syncing::First);
        let (key, object, hints) = (key.clone(), object.clone(), Vec::new());
        let write = Message::Write { call, layout, purpose, key, object, hints, sync, outranked_by: None };
        cluster.input(leaver, Input::Peer(from, write));
        let refused = |(_, to, m): &(NodeId, NodeId, Message)| {
            *to == from && matches!(m, Message::Refused { call: refused, .. } if *refused == call)
        };
        cluster.wire().any(refused)
    };
    assert!(!handoff(&mut cluster, 1, keeper));
    commit(&mut cluster, other, vec![Change::Leave(leaver)]);
    let step = |cluster: &Cluster| cluster.memberships[&leaver].transition().map(|t| t.step());
    for _ in 0..100_000 {
        if step(&cluster) == Some(Step::Moving) {
            break;
        }
        if !cluster.deliver() {
            cluster.tick(Duration::from_millis(10));
        }
    }
    assert_eq!(step(&cluster), Some(Step::Moving));
    assert!(handoff(&mut cluster, 2, keeper));
}

/// An object with this value, as some other cluster has minted it.
fn object_of(value: &str) -> bytes::Bytes {
    let mut cluster = Cluster::new(1);
    cluster.put(A, "k", value, Cover::Held);
    cluster.nodes[&A].durable[&(common::place("k"), bytes::Bytes::from("k"))].clone()
}

/// What it took before is offered like all that it has, even if its disk takes long to read what that is to be merged with.
#[test]
fn who_leaves_offers_what_it_took_last() {
    let mut cluster = Cluster::with(4, |config| config.timing.exchange = Duration::from_secs(3600));
    let [keeper, other, leaver, heir] = cluster.preference("k")[..] else { panic!("four nodes") };
    commit(&mut cluster, other, vec![Change::Leave(leaver)]);
    // The heir has all, and the leaver has yet to hear that everybody has.
    let has_all = |cluster: &Cluster| {
        let transition = cluster.nodes[&heir].engine.membership().transition();
        transition.is_some_and(|t| t.phase(heir) >= Some(Phase::Synced))
    };
    let step = |cluster: &Cluster| cluster.memberships[&leaver].transition().map(|t| t.step());
    for _ in 0..100_000 {
        if has_all(&cluster) {
            break;
        }
        if !cluster.deliver() {
            cluster.tick(Duration::from_millis(10));
        }
    }
    assert_eq!((has_all(&cluster), step(&cluster)), (true, Some(Step::Transferring)));
    cluster.nodes.get_mut(&leaver).unwrap().loads = false;
    let (call, purpose, sync) = (CallId(1), Purpose::Handoff, Syncing::First);
    let (layout, object) = (cluster.memberships[&leaver].layout().unwrap().version(), object_of("v"));
    let (key, hints) = (bytes::Bytes::from("k"), Vec::new());
    let write = Message::Write { call, layout, purpose, key, object, hints, sync, outranked_by: None };
    cluster.input(leaver, Input::Peer(keeper, write));
    // Shorter than anything waits for its record.
    cluster.pass(Duration::from_secs(4));
    cluster.load(leaver);
    cluster.pass(Duration::from_secs(60));
    assert_eq!(cluster.copy(heir, "k").unwrap(), ["v"]);
}

/// A write was kept by one that leaves for one that leaves: when that has it, it may go with both, unless its keeper offers it to the heirs.
#[test]
fn who_leaves_keeps_what_it_handed_to_one_that_leaves_too() {
    let mut cluster = Cluster::with(5, |config| config.timing.exchange = Duration::from_secs(3600));
    let [first, second, leaver, keeper, other] = cluster.preference("k")[..] else { panic!("five nodes") };
    for node in [first, second, keeper, other] {
        cluster.cut(leaver, node, true);
    }
    cluster.pass(Duration::from_secs(3));
    cluster.put(first, "k", "v", Cover::Held);
    assert_eq!(cluster.hints(keeper), 1);
    for node in [first, second, other] {
        cluster.cut(leaver, node, false);
    }
    commit(&mut cluster, first, vec![Change::Leave(leaver), Change::Leave(keeper)]);
    let step = |cluster: &Cluster, node| cluster.memberships[&node].transition().map(|t| t.step());
    let mut is_cut = false;
    for _ in 0..20_000 {
        if [leaver, keeper].iter().all(|node| step(&cluster, *node) == Some(Step::Moving)) {
            break;
        }
        // Nobody hears of the key from its keeper.
        if step(&cluster, keeper) == Some(Step::Moving) && !is_cut {
            is_cut = true;
            for node in [first, second, other] {
                cluster.cut(keeper, node, true);
            }
        }
        if !cluster.deliver() {
            cluster.tick(Duration::from_millis(10));
        }
    }
    assert_eq!(step(&cluster, keeper), Some(Step::Moving));
    assert_eq!(cluster.hints(keeper), 1);
    cluster.cut(leaver, keeper, false);
    for _ in 0..60 {
        if cluster.hints(keeper) == 0 {
            break;
        }
        cluster.pass(Duration::from_secs(1));
    }
    assert_eq!(cluster.hints(keeper), 0, "the leaver has taken it");
    assert_eq!(cluster.copy(keeper, "k").unwrap(), ["v"], "its heirs are to be offered it");
    for node in [first, second, other] {
        cluster.cut(keeper, node, false);
    }
    cluster.pass(Duration::from_secs(60));
    assert!(cluster.memberships[&first].transition().is_none());
    for node in [first, second, other] {
        assert_eq!(cluster.copy(node, "k").unwrap(), ["v"], "{node}");
    }
}
