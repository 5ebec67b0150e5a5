//! What is slow is not waited for: reads ask for the value twice when they take longer than usual, and requests go to the
//! coordinator that has answered fastest.

mod common;

use common::*;
use gramme_quorum::message::{Message, Purpose};
use gramme_quorum::*;
use gramme_ring::NodeId;

/// The nodes to which requests were forwarded, in order.
fn forwards(cluster: &Cluster) -> Vec<NodeId> {
    let to = |(_, to, message): &(NodeId, NodeId, Message)| {
        matches!(message, Message::Forward { .. }).then_some(*to)
    };
    cluster.delivered.iter().filter_map(to).collect()
}

#[test]
fn a_read_that_takes_longer_than_usual_asks_a_second_replica_for_the_value() {
    let mut cluster = Cluster::new(3);
    cluster.put(A, "k", "v", Cover::Held);
    let get = Op::Get { key: "k".into(), options: ReadOptions::default() };
    let slow = |cluster: &mut Cluster| {
        cluster.nodes.get_mut(&A).unwrap().loads = false;
        let request = cluster.start_request(A, get.clone());
        cluster.run();
        cluster.pass(Duration::from_millis(5));
        let answered = cluster.replies.contains_key(&request);
        cluster.load(A);
        cluster.run();
        answered
    };
    assert!(!slow(&mut cluster), "what is usual is not known yet");
    for _ in 0..128 {
        assert_eq!(cluster.get(A, "k").0, ["v"]);
    }
    assert_eq!(cluster.nodes[&A].engine.status(cluster.now.instant).hedges, 0);
    assert!(slow(&mut cluster), "two others have it");
    assert_eq!(cluster.nodes[&A].engine.status(cluster.now.instant).hedges, 1);
    // One late answer in a hundred changes nothing.
    assert!(slow(&mut cluster));
    // If it is usual, it is not late.
    for _ in 0..64 {
        slow(&mut cluster);
    }
    assert_eq!(cluster.copy(A, "k").unwrap(), ["v"]);
    let hedges = cluster.nodes[&A].engine.status(cluster.now.instant).hedges;
    assert!(hedges >= 2, "{hedges}");
}

#[test]
fn requests_go_to_the_coordinator_that_was_fastest() {
    let mut cluster = Cluster::new(4);
    let list = cluster.preference("k");
    let outside = list[3];
    // The first has a slow disk.
    let request = cluster.start_request(outside, put("k", "1", Cover::Held));
    cluster.nodes.get_mut(&list[0]).unwrap().loads = false;
    cluster.run();
    cluster.pass(Duration::from_millis(50));
    cluster.load(list[0]);
    cluster.run();
    assert!(matches!(cluster.replies[&request], Reply::Written { .. }));
    assert_eq!(forwards(&cluster), [list[0]]);
    cluster.delivered.clear();
    for _ in 0..20 {
        cluster.put(outside, "k", "2", Cover::Held);
    }
    assert!(!forwards(&cluster).contains(&list[0]), "{:?}", forwards(&cluster));
    // It is tried again in time, and is as fast as the others by then.
    for _ in 0..2000 {
        cluster.put(outside, "k", "3", Cover::Held);
        cluster.delivered.retain(|(_, _, message)| matches!(message, Message::Forward { .. }));
    }
    let share = forwards(&cluster).iter().filter(|node| **node == list[0]).count();
    assert!(share > 100, "{share} of 2000");
}

/// One read at a node of a key that all others own, in which all disks but these answer after a while.
fn read_slowly(cluster: &mut Cluster, at: NodeId, key: &str, fast: &[NodeId]) {
    let slow: Vec<NodeId> = cluster.nodes.keys().copied().filter(|id| !fast.contains(id)).collect();
    slow.iter().for_each(|id| cluster.nodes.get_mut(id).unwrap().loads = false);
    let request = cluster.start_request(at, Op::Get { key: key.to_owned().into(), options: r(Level::All) });
    cluster.run();
    cluster.pass(Duration::from_millis(50));
    slow.iter().for_each(|id| cluster.load(*id));
    cluster.run();
    assert!(matches!(cluster.replies[&request], Reply::Read(_)));
}

#[test]
fn the_next_write_goes_to_the_owner_that_answered_the_last_reads_fastest() {
    let mut cluster = Cluster::new(5);
    let keys: Vec<String> = (0..300).map(|i| format!("key {i}")).collect();
    let owns = |cluster: &Cluster, key: &str, node| cluster.preference(key)[..3].contains(&node);
    for fast in [B, C, NodeId(4)] {
        // What it reads it owns itself, and it has never forwarded anything.
        let mine: Vec<&String> = keys.iter().filter(|key| owns(&cluster, key, A)).take(40).collect();
        for key in mine {
            read_slowly(&mut cluster, A, key, &[A, fast]);
        }
        cluster.delivered.clear();
        let others = keys.iter().filter(|key| !owns(&cluster, key, A) && owns(&cluster, key, fast));
        let others: Vec<&String> = others.take(10).collect();
        for key in &others {
            cluster.put(A, key, "v", Cover::Held);
        }
        assert_eq!(forwards(&cluster), vec![fast; others.len()]);
    }
}

#[test]
fn a_node_whose_own_disk_is_the_slow_one_lets_another_owner_coordinate() {
    let mut cluster = Cluster::new(3);
    cluster.put(A, "k", "1", Cover::Held);
    assert!(forwards(&cluster).is_empty());
    read_slowly(&mut cluster, A, "k", &[B, C]);
    cluster.put(A, "k", "2", Cover::Held);
    assert_eq!(forwards(&cluster).len(), 1);
    // Where nobody else can, it does so itself.
    for other in [B, C] {
        cluster.input(other, Input::Congested(A, true));
    }
    cluster.put(A, "k", "3", Cover::Held);
    assert_eq!(cluster.get(A, "k").0, ["3"]);
    for other in [B, C] {
        cluster.input(other, Input::Congested(A, false));
    }
    // And when there were no reads for long that would tell.
    read_slowly(&mut cluster, A, "k", &[B, C]);
    cluster.delivered.clear();
    for i in 0..200 {
        cluster.put(A, "k", &i.to_string(), Cover::Held);
    }
    assert!((1..200).contains(&forwards(&cluster).len()), "{}", forwards(&cluster).len());
    // And when its disk is as fast again as others are.
    read_slowly(&mut cluster, A, "k", &[B, C]);
    for _ in 0..40 {
        cluster.get(A, "k");
    }
    cluster.delivered.clear();
    cluster.put(A, "k", "4", Cover::Held);
    assert!(forwards(&cluster).is_empty());
}

/// What went to a faster one and comes back unheard finds no more room here than anything else.
#[test]
fn what_others_refuse_is_not_taken_beyond_the_limits() {
    let mut cluster = Cluster::with(3, |config| config.limits.local = 4);
    cluster.put(A, "k", "1", Cover::Held);
    read_slowly(&mut cluster, A, "k", &[B, C]);
    for other in [B, C] {
        cluster.input(other, Input::Congested(A, true));
    }
    let request = cluster.start_request(A, put("k", "2", Cover::Held));
    assert!(cluster.wire().any(|(_, _, message)| matches!(message, Message::Forward { .. })));
    cluster.nodes.get_mut(&A).unwrap().loads = false;
    for _ in 0..4 {
        cluster.start_request(A, Op::Get { key: "k".into(), options: ReadOptions::default() });
    }
    cluster.run();
    assert_eq!(cluster.nodes[&A].engine.status(cluster.now.instant).local, 4);
    assert_eq!(cluster.replies[&request], Reply::Failed(OpError::Overloaded));
}

/// Its coordinator has hung, or its answer went with a connection that broke one way: another one is asked long before the deadline.
#[test]
fn a_forwarded_read_that_is_not_answered_is_asked_of_another() {
    let mut cluster = Cluster::new(4);
    let list = cluster.preference("k");
    let outside = list[3];
    cluster.put(outside, "k", "1", Cover::Held);
    cluster.delivered.clear();
    let request =
        cluster.start_request(outside, Op::Get { key: "k".into(), options: ReadOptions::default() });
    let answer = |m: &Message| matches!(m, Message::Forwarded { .. });
    while !cluster.wire().any(|(_, _, m)| answer(m)) {
        assert!(cluster.deliver());
    }
    cluster.lose(|_, _, m| answer(m));
    cluster.pass(Duration::from_millis(900));
    let Some(Reply::Read(reading)) = cluster.replies.get(&request) else { panic!("it has no answer yet") };
    assert_eq!(reading.siblings.len(), 1);
    assert_eq!(forwards(&cluster).len(), 2);
    assert_ne!(forwards(&cluster)[0], forwards(&cluster)[1]);
}

/// Both are asked, and the first answers first after all; and where nobody else can be asked it is waited for.
#[test]
fn the_late_answer_of_the_first_coordinator_is_taken() {
    let mut cluster = Cluster::new(4);
    let list = cluster.preference("k");
    let outside = list[3];
    cluster.put(outside, "k", "1", Cover::Held);
    for alone in [false, true] {
        cluster.delivered.clear();
        let get = Op::Get {
            key: "k".into(),
            options: ReadOptions { r: Some(Level::Count(1)), ..ReadOptions::default() },
        };
        let request = cluster.start_request(outside, get);
        let first = cluster.wire().map(|(_, to, _)| *to).next().expect("it is forwarded");
        for other in list[..3].iter().filter(|node| alone && **node != first) {
            cluster.crash(*other);
        }
        // All disks are slow, and then that of the first is not.
        for node in &list[..3] {
            if let Some(node) = cluster.nodes.get_mut(node) {
                node.loads = false;
            }
        }
        cluster.run();
        cluster.pass(Duration::from_millis(900));
        assert!(!cluster.replies.contains_key(&request));
        assert_eq!(forwards(&cluster).len(), if alone { 1 } else { 2 });
        cluster.load(first);
        cluster.run();
        assert!(matches!(cluster.replies[&request], Reply::Read(_)), "alone: {alone}");
        for node in &list[..3] {
            if cluster.nodes.contains_key(node) {
                cluster.load(*node);
            }
        }
        cluster.run();
    }
}

/// Who has just started and is connected with nobody yet has done nothing, and says so: others can.
#[test]
fn a_coordinator_that_reaches_nobody_is_not_the_last_to_be_asked() {
    let mut cluster = Cluster::new(4);
    let list = cluster.preference("k");
    let outside = list[3];
    cluster.put(outside, "k", "1", Cover::Held);
    assert_eq!(forwards(&cluster), [list[0]]);
    for other in &list[1..] {
        cluster.input(list[0], Input::Disconnected(*other));
    }
    cluster.put(outside, "k", "2", Cover::Held);
    assert_eq!(cluster.get(outside, "k").0, ["2"]);
    // Where all say so, it is so.
    for one in &list[1..3] {
        for other in list.iter().filter(|other| *other != one) {
            cluster.input(*one, Input::Disconnected(*other));
        }
    }
    let reply = cluster.request(outside, put("k", "3", Cover::Held));
    assert_eq!(reply, Reply::Failed(OpError::Quorum { need: Need::W, have: 1, want: 2 }));
}

#[test]
fn a_fallback_coordinates_only_where_no_owner_can() {
    let mut cluster = Cluster::new(5);
    let list = cluster.preference("k");
    cluster.crash(list[0]);
    let at = list[4];
    for i in 0..20 {
        let request = cluster.start_request(at, put("k", &i.to_string(), Cover::Held));
        // All owners that are left are slow.
        list[1..3].iter().for_each(|id| cluster.nodes.get_mut(id).unwrap().loads = false);
        cluster.run();
        cluster.pass(Duration::from_millis(50));
        list[1..3].iter().for_each(|id| cluster.load(*id));
        cluster.run();
        assert!(matches!(cluster.replies[&request], Reply::Written { .. }));
    }
    assert!(forwards(&cluster).iter().all(|to| list[1..3].contains(to)), "{:?}", forwards(&cluster));
    assert_eq!(cluster.copy(list[1], "k").unwrap(), ["19"], "each covers the one before");
}

/// It says that it is alive and does nothing of what it is asked.
#[test]
fn a_coordinator_that_never_answers_is_not_asked_for_everything() {
    for refused_first in [false, true] {
        let mut cluster = Cluster::new(5);
        let list = cluster.preference("k");
        let outside = list[4];
        // Until then all answer in no time.
        for _ in 0..3 {
            cluster.put(outside, "k", "1", Cover::Held);
        }
        let silent = if refused_first { list[1] } else { list[0] };
        if refused_first {
            // The first refuses all that is forwarded to it.
            cluster.input(list[0], Input::Congested(outside, true));
        }
        cluster.nodes.get_mut(&silent).unwrap().loads = false;
        cluster.delivered.clear();
        for _ in 0..20 {
            let request = cluster.start_request(outside, put("k", "2", Cover::Held));
            cluster.run();
            cluster.pass(Duration::from_secs(6));
            assert!(cluster.replies.contains_key(&request));
        }
        let asked = forwards(&cluster).iter().filter(|node| **node == silent).count();
        assert!(asked <= 3, "{asked} of 20");
    }
}

/// How many keys a wiped node has back after ten seconds in which clients write through it, and what it says of its background
/// work then.
fn recovered_in_ten_seconds(slow: bool) -> (usize, u8, Cluster) {
    let mut cluster = Cluster::with(3, |config| config.limits.repair = 200_000);
    let value = "v".repeat(10_000);
    for i in 0..100 {
        cluster.put(A, &format!("key {i}"), &value, Cover::Held);
    }
    cluster.crash(C);
    cluster.wipe(C);
    cluster.start(C);
    for _ in 0..100 {
        cluster.nodes.get_mut(&B).unwrap().syncs = !slow;
        let Op::Put { key, value, content_type, expiry, cover, .. } = put("other", "v", Cover::Held) else {
            unreachable!()
        };
        let options = WriteOptions { w: Some(Level::All), ..WriteOptions::default() };
        let op = Op::Put { key, value, content_type, expiry, cover, options };
        let request = cluster.start_request(C, op);
        cluster.run();
        cluster.pass(Duration::from_millis(100));
        cluster.sync(B);
        cluster.run();
        assert!(matches!(cluster.replies[&request], Reply::Written { .. }));
    }
    let back = (0..100).filter(|i| cluster.copy(C, &format!("key {i}")).is_some()).count();
    let percent = cluster.nodes[&C].engine.status(cluster.now.instant).background_percent;
    (back, percent, cluster)
}

#[test]
fn background_work_yields_to_requests_that_take_too_long() {
    let (all, percent, _) = recovered_in_ten_seconds(false);
    assert_eq!((all, percent), (100, 100));
    let (some, percent, mut cluster) = recovered_in_ten_seconds(true);
    assert!((10..70).contains(&some), "{some}");
    assert!(percent < 10, "{percent}");
    cluster.pass(Duration::from_secs(20));
    assert_eq!(cluster.nodes[&C].engine.status(cluster.now.instant).background_percent, 100);
    assert_eq!(cluster.nodes[&C].engine.status(cluster.now.instant).incomplete_partitions, 0);
}

/// How many hinted writes are on their way to an owner that is back, when its keeper's clients had to wait or not.
fn handed_over_at_once(slow: bool) -> (usize, Cluster) {
    let mut cluster = Cluster::with(3, |config| config.limits.handoff = 20);
    cluster.crash(C);
    for i in 0..100 {
        cluster.put(A, &format!("key {i}"), "v", Cover::Held);
    }
    for _ in 0..60 {
        cluster.nodes.get_mut(&B).unwrap().syncs = !slow;
        let request = cluster.start_request(A, put("other", "v", Cover::Held));
        cluster.run();
        cluster.pass(Duration::from_millis(100));
        cluster.sync(B);
        cluster.run();
        assert!(matches!(cluster.replies[&request], Reply::Written { .. }));
    }
    cluster.delivered.clear();
    cluster.start(C);
    let count = |cluster: &Cluster, which: fn(&Message) -> bool| {
        cluster.delivered.iter().filter(|(_, _, message)| which(message)).count()
    };
    let taken = |message: &Message| matches!(message, Message::Written { .. });
    // It begins with one at a time, not knowing how large they are. Then nothing is acknowledged any more.
    while count(&cluster, taken) < 60 {
        assert!(cluster.deliver());
    }
    cluster.nodes.get_mut(&C).unwrap().syncs = false;
    cluster.run();
    let handed = |message: &Message| matches!(message, Message::Write { purpose: Purpose::Handoff, .. });
    (count(&cluster, handed) - count(&cluster, taken), cluster)
}

#[test]
fn handoff_yields_to_requests_that_take_too_long() {
    assert_eq!(handed_over_at_once(false).0, 20);
    let (some, mut cluster) = handed_over_at_once(true);
    assert!((1..=3).contains(&some), "{some}");
    // With nobody in its way it soon goes on as before.
    cluster.sync(C);
    cluster.pass(Duration::from_secs(20));
    assert_eq!(cluster.nodes[&A].engine.status(cluster.now.instant).background_percent, 100);
    assert_eq!(cluster.hints(A), 0);
    assert!((0..100).all(|i| cluster.copy(C, &format!("key {i}")).is_some()));
}
