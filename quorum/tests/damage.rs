//! More copies of a key are damaged than W can lose.

mod common;

use common::{A, B, C, Cluster, delete, place, put};
use gramme_quorum::*;
use gramme_ring::NodeId;
use std::time::Duration;

const OWNERS: [NodeId; 3] = [A, B, C];

fn damage(cluster: &mut Cluster, node: NodeId, key: &str, refused: bool) {
    let record = (place(key), bytes::Bytes::copy_from_slice(key.as_bytes()));
    let node = cluster.nodes.get_mut(&node).unwrap();
    assert!(node.damaged.insert(record));
    node.refuses_reads = refused;
}

/// Reads, so that damage is found, and lets it be healed. Whether anybody can be shown the key then.
fn shown(cluster: &mut Cluster, key: &str) -> Option<Vec<String>> {
    for node in OWNERS {
        cluster.request(
            node,
            Op::Get { key: bytes::Bytes::copy_from_slice(key.as_bytes()), options: ReadOptions::default() },
        );
        cluster.pass(Duration::from_secs(6));
    }
    let op = Op::Get { key: bytes::Bytes::copy_from_slice(key.as_bytes()), options: ReadOptions::default() };
    match cluster.request(A, op) {
        Reply::Read(reading) => Some(
            reading.siblings.iter().map(|found| String::from_utf8(found.value.to_vec()).unwrap()).collect(),
        ),
        _ => None,
    }
}

#[test]
fn the_copy_that_is_left_heals_the_others() {
    for left in OWNERS {
        let mut cluster = Cluster::new(3);
        cluster.put(A, "k", "v", Cover::Held);
        for node in OWNERS.into_iter().filter(|node| *node != left) {
            damage(&mut cluster, node, "k", false);
        }
        assert_eq!(shown(&mut cluster, "k"), Some(vec![String::from("v")]), "{left} has it");
        assert_eq!(OWNERS.map(|node| cluster.copy(node, "k").unwrap()), [["v"]; 3]);
        assert!(OWNERS.iter().all(|node| cluster.nodes[node].damaged.is_empty()));
        cluster.put(B, "k", "w", Cover::Held);
        assert_eq!(cluster.get(C, "k").0, ["w"]);
    }
}

#[test]
fn not_while_one_of_them_may_be_read_another_day() {
    let mut cluster = Cluster::new(3);
    // The last write is on A and B alone.
    cluster.put(A, "k", "old", Cover::Held);
    cluster.crash(C);
    cluster.put(A, "k", "new", Cover::Held);
    cluster.loses =
        |from, to, message| (from == C || to == C) && matches!(message, message::Message::Write { .. });
    cluster.start(C);
    cluster.run();
    assert_eq!(cluster.copy(C, "k").unwrap(), ["old"]);
    damage(&mut cluster, A, "k", false);
    damage(&mut cluster, B, "k", true);
    assert_eq!(shown(&mut cluster, "k"), None);
    cluster.nodes.get_mut(&B).unwrap().damaged.clear();
    assert_eq!(shown(&mut cluster, "k"), Some(vec![String::from("new")]));
}

#[test]
fn nor_while_one_of_them_is_down() {
    let mut cluster = Cluster::new(3);
    cluster.put(A, "k", "v", Cover::Held);
    cluster.crash(C);
    damage(&mut cluster, A, "k", false);
    assert_eq!(
        cluster.request(B, Op::Get { key: "k".into(), options: ReadOptions::default() }),
        Reply::Failed(OpError::Quorum { need: Need::R, have: 1, want: 2 })
    );
    cluster.pass(Duration::from_secs(10));
    assert!(!cluster.nodes[&A].damaged.is_empty());
    cluster.start(C);
    assert_eq!(shown(&mut cluster, "k"), Some(vec![String::from("v")]));
}

#[test]
fn what_is_left_nowhere_is_not_taken_for_absent() {
    let mut cluster = Cluster::new(3);
    cluster.put(A, "k", "v", Cover::Held);
    for node in OWNERS {
        damage(&mut cluster, node, "k", false);
    }
    assert_eq!(shown(&mut cluster, "k"), None);
    cluster.pass(Duration::from_secs(6));
    let reply = cluster.request(B, put("k", "w", Cover::Held));
    assert!(matches!(reply, Reply::Failed(OpError::Indeterminate { have: 1, .. })), "{reply:?}");
    // By now each has found that nobody has it.
    cluster.put(B, "k", "w", Cover::Held);
    assert_eq!(OWNERS.map(|node| cluster.copy(node, "k").unwrap()), [["w"]; 3]);
    assert_eq!(cluster.get(C, "k").0, ["w"]);
}

#[test]
fn where_one_node_alone_owns_it_a_write_replaces_it() {
    let mut cluster = Cluster::found(3, 1, |_| {});
    let owner = cluster.preference("k")[0];
    let others = OWNERS.into_iter().filter(|node| *node != owner);
    cluster.put(owner, "k", "v", Cover::Held);
    damage(&mut cluster, owner, "k", false);
    let options = ReadOptions::default();
    let read = Op::Get { key: "k".into(), options };
    assert!(matches!(cluster.request(owner, read), Reply::Failed(_)), "unknown is not absent");
    let gone = cluster.request(owner, delete("k", Cover::Held));
    assert!(matches!(gone, Reply::Failed(_)), "a delete reads first: {gone:?}");
    for other in others {
        assert!(matches!(cluster.request(other, put("k", "w", Cover::Held)), Reply::Written { .. }));
        assert_eq!(cluster.get(owner, "k").0, ["w"]);
    }
}

#[test]
fn what_a_disk_refuses_to_read_once_is_replaced_by_nothing() {
    let mut cluster = Cluster::found(3, 1, |_| {});
    let owner = cluster.preference("k")[0];
    cluster.put(owner, "k", "v", Cover::Held);
    damage(&mut cluster, owner, "k", true);
    // Another node keeps it for the owner.
    cluster.put(owner, "k", "w", Cover::Nothing);
    cluster.nodes.get_mut(&owner).unwrap().damaged.clear();
    cluster.pass(Duration::from_secs(10));
    assert_eq!(cluster.copy(owner, "k").unwrap(), ["v", "w"]);
}

/// What a fallback acknowledged in an owner's place the others lack, and its disk is lost as well.
#[test]
fn a_copy_that_a_disk_refuses_to_read_stays_though_the_others_have_none() {
    for w in [1, 2] {
        let mut cluster = Cluster::new(4);
        let owners = cluster.preference("k");
        for node in &owners[1..3] {
            cluster.crash(*node);
        }
        let options = WriteOptions { w: Some(Level::Count(w)), ..WriteOptions::default() };
        let write = Op::Put {
            key: "k".into(),
            value: "v".into(),
            content_type: None,
            expiry: None,
            cover: Cover::Held,
            options,
        };
        assert!(matches!(cluster.request(owners[0], write), Reply::Written { .. }));
        cluster.crash(owners[3]);
        cluster.wipe(owners[3]);
        damage(&mut cluster, owners[0], "k", true);
        for node in &owners[1..3] {
            cluster.start(*node);
        }
        for _ in 0..20 {
            let key = bytes::Bytes::from_static(b"k");
            cluster.request(owners[0], Op::Get { key, options: ReadOptions::default() });
            cluster.pass(Duration::from_secs(30));
        }
        assert_eq!(cluster.copy(owners[0], "k").unwrap(), ["v"], "w = {w}");
        cluster.nodes.get_mut(&owners[0]).unwrap().damaged.clear();
        cluster.pass(Duration::from_secs(10));
        assert_eq!(cluster.get(owners[0], "k").0, ["v"]);
        assert_eq!(cluster.copy(owners[1], "k").unwrap(), ["v"]);
    }
}

#[test]
fn what_the_others_have_under_the_same_tag_replaces_what_a_disk_refuses_to_read() {
    let mut cluster = Cluster::new(3);
    cluster.put(A, "k", "v", Cover::Held);
    damage(&mut cluster, A, "k", true);
    assert_eq!(shown(&mut cluster, "k"), Some(vec![String::from("v")]));
    assert!(cluster.nodes[&A].damaged.is_empty(), "it is written anew");
    assert_eq!(cluster.copy(A, "k").unwrap(), ["v"]);
}

/// Ten times, each six minutes or more after the one before, and never read in between.
#[test]
fn what_a_disk_never_reads_again_is_given_up() {
    for read_between in [false, true] {
        let mut cluster = Cluster::with(3, |config| config.timing.exchange = Duration::from_secs(1 << 20));
        cluster.put(A, "k", "old", Cover::Held);
        cluster.loses = |_, to, message| to == A && matches!(message, message::Message::Write { .. });
        cluster.put(B, "k", "new", Cover::Held);
        damage(&mut cluster, A, "k", true);
        let refused = cluster.nodes[&A].damaged.clone();
        for minute in 0..60 {
            if read_between && minute == 30 {
                cluster.nodes.get_mut(&A).unwrap().damaged.clear();
                cluster.request(B, Op::Get { key: "k".into(), options: ReadOptions::default() });
                cluster.nodes.get_mut(&A).unwrap().damaged.clone_from(&refused);
            }
            let kept = read_between || minute < 55;
            assert_eq!(cluster.copy(A, "k").unwrap(), [if kept { "old" } else { "new" }], "minute {minute}");
            cluster.request(B, Op::Get { key: "k".into(), options: ReadOptions::default() });
            cluster.pass(Duration::from_secs(60));
        }
    }
}

/// Each of the two would wait for the other.
#[test]
fn a_wiped_owner_and_another_s_damaged_record_heal() {
    for nameless in [false, true] {
        let mut cluster = Cluster::new(3);
        for n in 0..20 {
            cluster.put(A, &format!("{{k}}{n}"), "v", Cover::Held);
        }
        // A has an older copy than B.
        cluster.crash(A);
        cluster.put(B, "{k}3", "new", Cover::Held);
        cluster.loses = |_, to, message| to == A && matches!(message, message::Message::Write { .. });
        cluster.start(A);
        cluster.crash(C);
        cluster.wipe(C);
        damage(&mut cluster, A, "{k}3", false);
        cluster.nodes.get_mut(&A).unwrap().nameless = nameless;
        cluster.start(C);
        cluster.pass(Duration::from_secs(20));
        assert!(cluster.incomplete.is_empty(), "nameless: {nameless}");
        assert_eq!(cluster.nodes[&C].engine.status(cluster.now.instant).incomplete_partitions, 0);
        cluster.loses = |_, _, _| false;
        assert_eq!(shown(&mut cluster, "{k}3"), Some(vec![String::from("new")]));
        assert_eq!(cluster.copy(A, "{k}3").unwrap(), ["new"]);
    }
}

/// Another owner has to be asked for what a damaged copy may have held.
#[test]
fn who_has_damaged_copies_is_not_witness_enough() {
    let (d, e) = (NodeId(4), NodeId(5));
    let mut cluster = Cluster::found(5, 5, |config| {
        (config.r, config.w) = (3, 3);
        config.timing.exchange = Duration::from_secs(1 << 20);
    });
    // The last write is on A, D and E.
    cluster.loses =
        |_, to, message| [B, C].contains(&to) && matches!(message, message::Message::Write { .. });
    cluster.put(A, "k", "v", Cover::Held);
    cluster.crash(d);
    cluster.crash(e);
    cluster.wipe(e);
    damage(&mut cluster, A, "k", false);
    cluster.start(e);
    cluster.pass(Duration::from_secs(20));
    assert!(cluster.incomplete.contains(&e));
    cluster.start(d);
    cluster.pass(Duration::from_secs(20));
    assert!(cluster.incomplete.is_empty());
    assert_eq!(cluster.copy(e, "k").unwrap(), ["v"]);
}

/// Nor do two wiped owners wait for each other, to stand in for a third's damaged copy.
#[test]
fn two_wiped_owners_and_a_damaged_record_heal() {
    let (d, e) = (NodeId(4), NodeId(5));
    let mut cluster = Cluster::found(5, 5, |config| (config.r, config.w) = (3, 3));
    cluster.put(A, "k", "old", Cover::Held);
    cluster.loses = |_, to, message| to == A && matches!(message, message::Message::Write { .. });
    cluster.put(B, "k", "new", Cover::Held);
    cluster.loses = |_, _, _| false;
    for node in [d, e] {
        cluster.crash(node);
        cluster.wipe(node);
    }
    damage(&mut cluster, A, "k", false);
    for node in [d, e] {
        cluster.start(node);
    }
    cluster.pass(Duration::from_secs(30));
    assert!(cluster.incomplete.is_empty());
    cluster.request(A, Op::Get { key: "k".into(), options: ReadOptions::default() });
    cluster.pass(Duration::from_secs(1));
    assert_eq!([A, B, C, d, e].map(|node| cluster.copy(node, "k").unwrap()), [["new"]; 5]);
}

/// However little can be had of it, and nowhere else, what lies behind it is had.
#[test]
fn what_is_listed_after_a_record_that_nobody_can_read_is_had() {
    for refused in [false, true] {
        let mut cluster = Cluster::found(2, 2, |config| (config.r, config.w) = (1, 2));
        let keys: Vec<String> = (0..400).map(|n| format!("{{k}}{n}")).collect();
        for key in &keys {
            cluster.put(A, key, "v", Cover::Held);
        }
        // Whichever is listed first, some are on its page, and on that alone.
        for key in keys.iter().step_by(100) {
            damage(&mut cluster, A, key, refused);
        }
        cluster.crash(B);
        cluster.wipe(B);
        cluster.start(B);
        cluster.pass(Duration::from_secs(30));
        let had = keys.iter().filter(|key| cluster.copy(B, key).is_some()).count();
        assert_eq!(had, 396);
        assert!(cluster.incomplete.contains(&B), "what they held is unknown");
        // It is tried again, and less and less often.
        cluster.delivered.clear();
        cluster.pass(Duration::from_secs(60));
        let lists =
            |(_, _, message): &&(_, _, message::Message)| matches!(message, message::Message::List { .. });
        let lists = cluster.delivered.iter().filter(lists).count();
        assert!((8..60).contains(&lists), "{lists} pages in a minute");
        if refused {
            cluster.nodes.get_mut(&A).unwrap().damaged.clear();
            cluster.pass(Duration::from_secs(30));
            assert_eq!(keys.iter().filter(|key| cluster.copy(B, key).is_some()).count(), 400);
            assert!(cluster.incomplete.is_empty());
        }
    }
}

/// It is found by a read; or by anti-entropy, which compares the slot for another key's sake.
#[test]
fn what_one_other_has_under_the_same_tag_is_enough() {
    for reads in [true, false] {
        let mut cluster = Cluster::new(3);
        cluster.put(A, "{k}", "v", Cover::Held);
        if reads {
            cluster.crash(C);
            damage(&mut cluster, A, "{k}", true);
            cluster.request(B, Op::Get { key: "{k}".into(), options: ReadOptions::default() });
        } else {
            cluster.loses = |_, to, message| to == A && matches!(message, message::Message::Write { .. });
            cluster.put(B, "{k}other", "v", Cover::Held);
            cluster.crash(C);
            damage(&mut cluster, A, "{k}", true);
        }
        cluster.pass(Duration::from_secs(60));
        assert!(cluster.nodes[&A].damaged.is_empty(), "reads: {reads}");
        assert_eq!(cluster.copy(A, "{k}").unwrap(), ["v"]);
    }
}

/// Of two owners one was wiped, and the other's copy is damaged, or it can't even be told whose that is.
#[test]
fn of_two_owners_a_write_ends_it() {
    for nameless in [false, true] {
        for (r, w) in [(2, 1), (1, 2)] {
            let config: fn(&mut Config) = match w {
                1 => |config| (config.r, config.w) = (2, 1),
                _ => |config| (config.r, config.w) = (1, 2),
            };
            let mut cluster = Cluster::found(2, 2, config);
            let keys: Vec<String> = (0..20).map(|n| format!("{{k}}{n}")).collect();
            for key in &keys {
                cluster.put(A, key, "v", Cover::Held);
            }
            cluster.crash(B);
            cluster.wipe(B);
            damage(&mut cluster, A, &keys[3], false);
            cluster.nodes.get_mut(&A).unwrap().nameless = nameless;
            cluster.start(B);
            cluster.pass(Duration::from_secs(60));
            assert!(cluster.incomplete.contains(&B));
            // The first finds out that nobody has it.
            cluster.request(A, put(&keys[3], "w", Cover::Held));
            cluster.pass(Duration::from_secs(1));
            cluster.put(A, &keys[3], "w", Cover::Held);
            cluster.pass(Duration::from_secs(30));
            assert!(cluster.incomplete.is_empty(), "nameless: {nameless}, r = {r}, w = {w}");
            for (n, key) in keys.iter().enumerate() {
                assert_eq!(cluster.copy(B, key).unwrap(), [if n == 3 { "w" } else { "v" }]);
            }
        }
    }
}

/// What they held nobody knows, so nobody is to say that there is no such key.
#[test]
fn a_change_waits_where_all_copies_of_a_key_are_damaged() {
    let mut cluster = Cluster::new(3);
    let keys: Vec<String> = (0..60).map(|n| format!("key {n}")).collect();
    for key in &keys {
        cluster.put(A, key, "v", Cover::Held);
    }
    let damaged = &keys[..2];
    for key in damaged {
        OWNERS.iter().for_each(|node| damage(&mut cluster, *node, key, false));
    }
    let d = NodeId(4);
    cluster.add(d);
    cluster.pass(Duration::from_secs(5));
    let join = gramme_ring::Change::Member(gramme_ring::Member::new(d));
    common::changes::commit(&mut cluster, A, vec![join]);
    cluster.pass(Duration::from_secs(60));
    let settled = |cluster: &Cluster| cluster.nodes[&A].engine.membership().transition().is_none();
    let gained = |cluster: &Cluster, key: &str| {
        let layout = cluster.nodes[&A].engine.membership().layout().unwrap();
        layout.is_owner(layout.partition_of(gramme_ring::Slot::of(key.as_bytes())), d)
    };
    assert!(damaged.iter().any(|key| gained(&cluster, key)), "this proves nothing");
    assert!(!settled(&cluster));
    // Each finds out that nobody has them; then a write takes their place.
    for key in damaged {
        shown(&mut cluster, key);
        cluster.put(A, key, "w", Cover::Held);
    }
    cluster.pass(Duration::from_secs(30));
    assert!(settled(&cluster));
    for key in &keys {
        assert_eq!(cluster.get(d, key).0, [if damaged.contains(key) { "w" } else { "v" }]);
    }
}

/// What such a coordinator can't read it can neither cover nor count: another copy will do.
#[test]
fn writes_by_a_coordinator_that_can_t_read_its_copy_replace_each_other() {
    for refused in [false, true] {
        let mut cluster = Cluster::with(4, |config| config.timing.exchange = Duration::from_secs(1 << 20));
        cluster.put(A, "k", "old", Cover::Held);
        let owners = cluster.preference("k");
        // The one that is down is needed to heal.
        cluster.crash(owners[2]);
        damage(&mut cluster, owners[0], "k", refused);
        for n in 0..5 {
            cluster.put(owners[0], "k", &format!("value {n}"), Cover::Held);
            cluster.pass(Duration::from_secs(1));
            assert_eq!(cluster.copy(owners[1], "k").unwrap(), [format!("value {n}")]);
        }
        // No more of them than are taken anywhere.
        let most = Limits::default().siblings;
        for n in 1..most {
            cluster.put(owners[0], "k", &format!("value {n}"), Cover::Nothing);
        }
        let reply = cluster.request(owners[0], put("k", "one more", Cover::Nothing));
        assert_eq!(reply, Reply::Failed(OpError::TooManySiblings), "refused: {refused}");
        // Where nobody else can be asked it is written all the same.
        cluster.crash(owners[1]);
        let options = WriteOptions { w: Some(Level::One), ..WriteOptions::default() };
        let (key, value) = ("k".into(), "beside".into());
        let write = Op::Put { key, value, content_type: None, expiry: None, cover: Cover::Held, options };
        assert!(matches!(cluster.request(owners[0], write), Reply::Written { .. }));
    }
}

#[test]
fn what_an_owner_can_t_read_is_offered_to_it_less_and_less_often() {
    let mut cluster = Cluster::new(4);
    let owners = cluster.preference("k");
    cluster.put(owners[0], "k", "old", Cover::Held);
    damage(&mut cluster, owners[0], "k", true);
    cluster.put(owners[1], "k", "new", Cover::Held);
    cluster.pass(Duration::from_secs(10));
    cluster.delivered.clear();
    cluster.pass(Duration::from_secs(600));
    let offered = cluster
        .delivered
        .iter()
        .filter(|(_, to, message)| *to == owners[0] && matches!(message, message::Message::Write { .. }));
    let offered = offered.count();
    assert!((20..50).contains(&offered), "{offered} times in ten minutes");
    // A new hint is handed over at once.
    cluster.crash(owners[0]);
    cluster.put(owners[1], "{k}other", "v", Cover::Held);
    cluster.start(owners[0]);
    cluster.pass(Duration::from_secs(5));
    assert_eq!(cluster.copy(owners[0], "{k}other").unwrap(), ["v"]);
    cluster.nodes.get_mut(&owners[0]).unwrap().damaged.clear();
    cluster.pass(Duration::from_secs(70));
    assert_eq!(cluster.copy(owners[0], "k").unwrap(), ["new"]);
    assert_eq!(cluster.hints(owners[3]), 0);
}

#[test]
fn a_record_is_given_up_however_many_others_are_refused() {
    let mut cluster = Cluster::with(3, |config| config.timing.exchange = Duration::from_secs(1 << 20));
    cluster.put(A, "k", "old", Cover::Held);
    let keys: Vec<String> = (0..1100).map(|n| format!("k{n}")).collect();
    for key in &keys {
        cluster.put(A, key, "v", Cover::Held);
    }
    cluster.loses = |_, to, message| to == A && matches!(message, message::Message::Write { .. });
    cluster.put(B, "k", "new", Cover::Held);
    // Nor can they be healed meanwhile.
    cluster.cut(A, C, true);
    cluster.cut(A, B, true);
    keys.iter().for_each(|key| damage(&mut cluster, A, key, true));
    damage(&mut cluster, A, "k", true);
    for round in 0..10 {
        for key in keys.iter().filter(|_| round == 5).map(String::as_str).chain(["k"]) {
            let key = bytes::Bytes::copy_from_slice(key.as_bytes());
            let options = ReadOptions { r: Some(Level::One), ..ReadOptions::default() };
            cluster.start_request(A, Op::Get { key, options });
            cluster.run();
        }
        cluster.pass(Duration::from_secs(361));
    }
    cluster.loses = |_, _, _| false;
    cluster.cut(A, C, false);
    cluster.cut(A, B, false);
    cluster.pass(Duration::from_secs(5));
    cluster.request(A, Op::Get { key: "k".into(), options: ReadOptions::default() });
    cluster.pass(Duration::from_secs(5));
    assert_eq!(cluster.copy(A, "k").unwrap(), ["new"]);
}
