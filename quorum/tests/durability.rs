//! What an acknowledgement means: synced by W replicas, or only written, by what the keyspace says.

mod common;

use common::*;
use gramme_quorum::*;

/// A cluster with a keyspace of each durability, in which disks sync only where `syncs` says so.
fn cluster(syncs: bool) -> Cluster {
    let mut cluster = Cluster::new(3);
    for durability in [Durability::One, Durability::Interval] {
        let keyspace = Keyspace { durability, ..Keyspace::default() };
        let change = keyspace.change(&durability.to_string()).unwrap();
        cluster.change(A, ClusterOp::Stage(change)).unwrap();
    }
    let hash = cluster.nodes[&A].engine.membership().propose().unwrap().hash();
    cluster.change(A, ClusterOp::Commit(hash)).unwrap();
    cluster.pass(Duration::from_secs(20));
    assert!(cluster.nodes.values().all(|node| node.engine.membership().transition().is_none()));
    for node in cluster.nodes.values_mut() {
        node.syncs = syncs;
    }
    cluster
}

fn durable(cluster: &Cluster, key: &str) -> Vec<gramme_ring::NodeId> {
    let record = (place(key), bytes::Bytes::copy_from_slice(key.as_bytes()));
    let nodes = cluster.nodes.iter().filter(|(_, node)| node.durable.contains_key(&record));
    nodes.map(|(id, _)| *id).collect()
}

fn written(reply: &Reply) -> bool {
    matches!(reply, Reply::Written { .. })
}

#[test]
fn only_group_waits_for_the_disk() {
    let mut cluster = cluster(false);
    for key in ["one", "interval"] {
        let reply = cluster.request(B, put(key, "v", Cover::Held));
        assert!(written(&reply), "{key}: {reply:?}");
        assert_eq!(durable(&cluster, key), []);
        assert_eq!(cluster.get(C, key).0, ["v"]);
    }
    let reply = cluster.request(B, put("group", "v", Cover::Held));
    assert_eq!(reply, Reply::Failed(OpError::Indeterminate { need: Need::W, have: 0, want: 2 }));
}

#[test]
fn a_request_that_names_dw_waits_in_any_keyspace() {
    let mut cluster = cluster(false);
    let Op::Put { key, value, content_type, expiry, cover, .. } = put("interval", "v", Cover::Held) else {
        unreachable!()
    };
    let options = WriteOptions { dw: Some(Level::One), ..WriteOptions::default() };
    let op = Op::Put { key, value, content_type, expiry, cover, options };
    let request = cluster.start_request(A, op);
    cluster.run();
    assert!(!cluster.replies.contains_key(&request));
    cluster.sync(B);
    cluster.sync(C);
    cluster.run();
    assert!(cluster.replies.get(&request).is_some_and(written));
}

#[test]
fn in_one_a_single_replica_syncs_at_once_and_the_others_soon() {
    let mut cluster = cluster(true);
    let first = cluster.preference("one")[0];
    cluster.put(B, "one", "v", Cover::Held);
    assert_eq!(durable(&cluster, "one"), [first]);
    cluster.put(B, "interval", "v", Cover::Held);
    cluster.pass(Duration::from_millis(1100));
    assert_eq!(durable(&cluster, "one"), [A, B, C]);
    assert_eq!(durable(&cluster, "interval"), [A, B, C]);
}

#[test]
fn in_interval_nobody_syncs_before_its_time() {
    let mut cluster = cluster(true);
    cluster.pass(Duration::from_secs(3));
    cluster.put(B, "interval", "v", Cover::Held);
    assert_eq!(durable(&cluster, "interval"), []);
    cluster.pass(Duration::from_millis(900));
    assert_eq!(durable(&cluster, "interval"), []);
    cluster.pass(Duration::from_millis(200));
    assert_eq!(durable(&cluster, "interval"), [A, B, C]);
}

#[test]
fn what_is_not_in_the_log_is_not_acknowledged() {
    let mut cluster = cluster(true);
    for id in [A, C] {
        cluster.nodes.get_mut(&id).unwrap().disk_full = true;
    }
    let reply = cluster.request(B, put("interval", "v", Cover::Held));
    assert_eq!(reply, Reply::Failed(OpError::Indeterminate { need: Need::W, have: 1, want: 2 }));
    cluster.nodes.get_mut(&B).unwrap().disk_full = true;
    assert_eq!(cluster.request(B, put("interval 2", "v", Cover::Held)), Reply::Failed(OpError::Unwritable));
}

#[test]
fn a_machine_that_went_down_says_nothing_definite_until_it_has_asked_the_others() {
    let mut cluster = cluster(true);
    cluster.put(A, "interval", "v", Cover::Held);
    for id in [A, C] {
        cluster.crash(id);
    }
    cluster.start(C);
    // What C has lost it would call absent, and B alone is no quorum.
    let reply = cluster.request(C, Op::Get { key: "interval".into(), options: ReadOptions::default() });
    assert!(
        matches!(reply, Reply::Failed(OpError::Quorum { need: Need::R, have: 0 | 1, want: 2 })),
        "{reply:?}"
    );
    cluster.start(A);
    cluster.pass(Duration::from_secs(20));
    assert_eq!(cluster.get(C, "interval").0, ["v"]);
    assert_eq!(cluster.copy(A, "interval").unwrap(), ["v"]);
    assert_eq!(cluster.copy(C, "interval").unwrap(), ["v"]);
    for id in [A, B, C] {
        assert_eq!(cluster.nodes[&id].engine.status(cluster.now.instant).incomplete_partitions, 0);
    }
}

#[test]
fn when_all_machines_go_down_what_was_synced_is_there_and_the_rest_is_let_go() {
    let mut cluster = cluster(true);
    cluster.put(A, "interval 1", "synced", Cover::Held);
    cluster.put(A, "group", "synced", Cover::Held);
    cluster.pass(Duration::from_secs(3));
    cluster.put(A, "interval 2", "lost", Cover::Held);
    for id in [A, B, C] {
        cluster.crash(id);
    }
    for id in [A, B, C] {
        cluster.start(id);
    }
    cluster.pass(Duration::from_secs(20));
    assert_eq!(cluster.get(A, "interval 1").0, ["synced"]);
    assert_eq!(cluster.get(B, "group").0, ["synced"]);
    assert_eq!(cluster.get(C, "interval 2").0, [""; 0], "it went with all its copies, and that is said");
    assert!(cluster.incomplete.is_empty());
    for id in [A, B, C] {
        assert_eq!(cluster.nodes[&id].engine.status(cluster.now.instant).incomplete_partitions, 0);
    }
}

/// A cluster of one, and one that keeps a single copy: nobody else can have what went with the machine.
#[test]
fn who_has_nobody_to_ask_answers_with_what_was_synced() {
    for (nodes, replicas) in [(1, 3), (3, 1)] {
        let mut cluster = Cluster::found(nodes, replicas, |_| {});
        let buffered = Keyspace { durability: Durability::Interval, ..Keyspace::default() };
        common::commit(&mut cluster, A, &[("", buffered)]);
        cluster.put(A, "key", "synced", Cover::Held);
        cluster.pass(Duration::from_secs(3));
        let owner = cluster.preference("key")[0];
        cluster.put(owner, "key 2", "lost", Cover::Held);
        cluster.crash(owner);
        cluster.start(owner);
        cluster.pass(Duration::from_secs(5));
        assert_eq!(cluster.get(owner, "key").0, ["synced"], "{replicas} of {nodes}");
        let status = cluster.nodes[&owner].engine.status(cluster.now.instant);
        assert_eq!(status.incomplete_partitions, 0);
    }
}

/// All machines go down at once, and one stays away: keys whose writes were synced are there, whatever others may have lost.
#[test]
fn what_is_synced_first_is_not_held_back_by_keys_that_are_not() {
    let mut cluster = Cluster::new(3);
    let buffered = Keyspace { durability: Durability::Interval, ..Keyspace::default() };
    common::commit(&mut cluster, A, &[("key", buffered)]);
    cluster.put(A, "synced", "v", Cover::Held);
    let reply = cluster.request(A, put("key", "v", Cover::Held));
    assert!(written(&reply), "{reply:?}");
    for id in [A, B, C] {
        cluster.crash(id);
    }
    for id in [A, B] {
        cluster.start(id);
    }
    cluster.pass(Duration::from_secs(20));
    assert!(cluster.nodes[&A].engine.status(cluster.now.instant).incomplete_partitions > 0);
    assert_eq!(cluster.get(B, "synced").0, ["v"]);
    cluster.put(B, "new", "v", Cover::Held);
    assert_eq!(cluster.get(A, "new").0, ["v"]);
    is_not_denied(&mut cluster, A);
}

/// Stages and commits at a node, and no more.
fn commit(cluster: &mut Cluster, at: gramme_ring::NodeId, durability: Durability) {
    let change = Keyspace { durability, ..Keyspace::default() }.change("key").unwrap();
    cluster.change(at, ClusterOp::Stage(change)).unwrap();
    let hash = cluster.nodes[&at].engine.membership().propose().unwrap().hash();
    cluster.change(at, ClusterOp::Commit(hash)).unwrap();
}

/// Reads at `at` while A is away: what was acknowledged must not be called absent.
fn is_not_denied(cluster: &mut Cluster, at: gramme_ring::NodeId) {
    let reply = cluster.request(at, Op::Get { key: "key".into(), options: ReadOptions::default() });
    let denied = matches!(&reply, Reply::Read(reading) if reading.siblings.is_empty());
    assert!(!denied, "{reply:?}");
}

#[test]
fn who_has_yet_to_hear_of_buffered_writes_syncs_first() {
    let mut cluster = Cluster::new(3);
    cluster.pass(Duration::from_secs(3));
    // C misses the write, and B has not heard of the keyspace when it comes.
    cluster.cut(A, C, true);
    cluster.loses = |_, to, message| to == B && matches!(message, message::Message::Gossip(_));
    commit(&mut cluster, A, Durability::Interval);
    let reply = cluster.request(A, put("key", "v", Cover::Held));
    assert!(written(&reply), "{reply:?}");
    cluster.crash(B);
    cluster.start(B);
    cluster.cut(A, B, true);
    is_not_denied(&mut cluster, C);
}

#[test]
fn who_buffers_no_more_says_so_only_when_all_is_synced() {
    let mut cluster = Cluster::new(3);
    commit(&mut cluster, A, Durability::Interval);
    cluster.pass(Duration::from_secs(20));
    cluster.cut(A, C, true);
    cluster.cut(B, C, true);
    let reply = cluster.request(A, put("key", "v", Cover::Held));
    assert!(written(&reply), "{reply:?}");
    assert_eq!(durable(&cluster, "key"), []);
    // B writes down that nothing is buffered any more, and then its machine goes down.
    cluster.nodes.get_mut(&B).unwrap().syncs = false;
    commit(&mut cluster, A, Durability::Group);
    cluster.run();
    cluster.cut(A, B, true);
    cluster.cut(B, C, false);
    cluster.crash(B);
    cluster.start(B);
    cluster.run();
    is_not_denied(&mut cluster, C);
}

/// What was acknowledged by former rules is synced when others are to hold, which waits for no interval to be over.
#[test]
fn a_change_of_the_rules_does_not_wait_for_the_interval() {
    let mut cluster = Cluster::with(3, |config| config.timing.interval = Duration::from_secs(3600));
    let interval = Keyspace { durability: Durability::Interval, ..Keyspace::default() };
    common::commit(&mut cluster, A, &[("interval", interval)]);
    cluster.put(A, "interval", "v", Cover::Held);
    assert_eq!(durable(&cluster, "interval"), []);
    common::commit(&mut cluster, A, &[("interval", Keyspace::default())]);
    assert_eq!(durable(&cluster, "interval"), [A, B, C]);
}
