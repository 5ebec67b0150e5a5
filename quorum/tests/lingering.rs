//! What goes on after its answer is bounded, and so is what waits for a disk that hangs. Nothing is lost by that.

mod common;

use common::*;
use gramme_quorum::message::{CallId, Message, Purpose, Refusal, Syncing};
use gramme_quorum::*;
use gramme_ring::NodeId;

/// Requests at one time.
const REQUESTS: usize = 100;
/// Operations that wait for a disk.
const LOCAL: usize = 200;

fn bounded(config: &mut Config) {
    config.limits.requests = REQUESTS;
    config.limits.local = LOCAL;
}

fn status(cluster: &Cluster, id: NodeId) -> Status {
    cluster.nodes[&id].engine.status(cluster.now.instant)
}

fn is_written(cluster: &Cluster, request: RequestId) -> bool {
    matches!(cluster.replies.get(&request), Some(Reply::Written { .. }))
}

#[test]
fn writes_that_wait_for_a_silent_owner_are_bounded_and_leave_their_hints() {
    const WRITES: usize = 10_000;
    // With nobody to stand in for it, and with two.
    for nodes in [3, 5] {
        let mut cluster = Cluster::with(nodes, bounded);
        let list = cluster.preference("{k}");
        let (at, silent) = (list[0], list[2]);
        cluster.pause(silent);
        for i in 0..WRITES {
            let request = cluster.start_request(at, put(&format!("{{k}}{i}"), "v", Cover::Held));
            cluster.run();
            assert!(is_written(&cluster, request), "two owners have it");
            let lingering = status(&cluster, at).lingering_writes;
            assert!(lingering <= REQUESTS, "{lingering} after {i}");
            cluster.delivered.clear();
        }
        let Status { lingering_writes, timers, .. } = status(&cluster, at);
        assert!(timers <= 2 * lingering_writes + 10, "{timers} timers for {lingering_writes} writes");
        assert!(lingering_writes > 0);
        assert_eq!(cluster.hints(at) + lingering_writes, WRITES, "what is waited for no more is hinted");
        // What it was sent is lost, and what it owns it gets from those who keep it.
        cluster.crash(silent);
        cluster.start(silent);
        for _ in 0..100 {
            cluster.pass(Duration::from_millis(100));
            cluster.delivered.clear();
        }
        assert_eq!((cluster.hints(at), status(&cluster, at).lingering_writes), (0, 0));
        assert!((0..WRITES).all(|i| cluster.copy(silent, &format!("{{k}}{i}")).is_some()));
    }
}

#[test]
fn a_write_whose_coordinator_has_no_copy_leaves_one_with_a_fallback() {
    let mut cluster = Cluster::with(5, bounded);
    let list = cluster.preference("{k}");
    let at = list[0];
    cluster.nodes.get_mut(&at).unwrap().disk_full = true;
    cluster.pause(list[2]);
    for i in 0..2 * REQUESTS {
        // The first fallback stands in for the coordinator.
        let request = cluster.start_request(at, put(&format!("{{k}}{i}"), "v", Cover::Held));
        cluster.run();
        assert!(is_written(&cluster, request));
        assert!(status(&cluster, at).lingering_writes <= REQUESTS);
    }
    let kept = (0..2 * REQUESTS).filter(|i| cluster.copy(list[4], &format!("{{k}}{i}")).is_some()).count();
    assert_eq!(kept + status(&cluster, at).lingering_writes, 2 * REQUESTS);
    assert_eq!(cluster.hints(list[4]), kept);
}

#[test]
fn lingering_writes_of_large_values_are_bounded_by_bytes() {
    let mut cluster = Cluster::with(3, bounded);
    cluster.pause(C);
    let value = "x".repeat(4 << 20);
    for i in 0..20 {
        let request = cluster.start_request(A, put(&format!("key {i}"), &value, Cover::Held));
        cluster.run();
        assert!(is_written(&cluster, request));
        cluster.delivered.clear();
        let Status { lingering_bytes, lingering_writes, .. } = status(&cluster, A);
        assert!(lingering_bytes <= 64 << 20, "{lingering_bytes} bytes of {lingering_writes}");
        assert_eq!(lingering_writes + cluster.hints(A), i + 1);
    }
    assert!(cluster.hints(A) > 5);
}

#[test]
fn reads_that_wait_for_a_silent_owner_are_bounded_and_repair_those_that_answered() {
    const READS: usize = 1000;
    let mut cluster = Cluster::with(3, bounded);
    // This owner gets nothing but repairs.
    cluster.loses = |_, to, message| {
        to == B && matches!(message, Message::Write { purpose: Purpose::Write | Purpose::Handoff, .. })
    };
    for i in 0..READS {
        cluster.put(A, &format!("key {i}"), "v", Cover::Held);
    }
    cluster.pause(C);
    for i in 0..READS {
        let get = Op::Get { key: format!("key {i}").into(), options: ReadOptions::default() };
        let request = cluster.start_request(A, get);
        cluster.run();
        assert!(
            matches!(&cluster.replies[&request], Reply::Read(reading) if reading.siblings[0].value == "v")
        );
        let lingering = status(&cluster, A).lingering_reads;
        assert!(lingering <= REQUESTS, "{lingering} after {i}");
    }
    let lingering = status(&cluster, A).lingering_reads;
    assert!(lingering > 0);
    let repaired =
        |cluster: &Cluster| (0..READS).filter(|i| cluster.copy(B, &format!("key {i}")).is_some()).count();
    assert_eq!(repaired(&cluster) + lingering, READS, "what is waited for no more is repaired");
    cluster.pass(Duration::from_secs(1));
    assert_eq!((repaired(&cluster), status(&cluster, A).lingering_reads), (READS, 0));
}

#[test]
fn a_disk_whose_sync_hangs_makes_its_node_refuse_writes_and_go_on_reading() {
    let mut cluster = Cluster::with(3, bounded);
    cluster.put(A, "k", "v", Cover::Held);
    cluster.nodes.get_mut(&B).unwrap().syncs = false;
    // It is one of three, and the others take what it refuses.
    for i in 0..3 * LOCAL {
        cluster.put(A, &format!("key {i}"), "v", Cover::Held);
        let Status { local, unsynced, .. } = status(&cluster, B);
        assert!(local + unsynced <= LOCAL, "{local} and {unsynced}");
    }
    let refusals = |cluster: &Cluster| {
        let refused = |(from, _, message): &&(NodeId, NodeId, Message)| {
            *from == B && matches!(message, Message::Refused { why: Refusal::Overloaded, .. })
        };
        cluster.delivered.iter().filter(refused).count()
    };
    assert!(refusals(&cluster) > LOCAL, "its peers are told at once");
    assert_eq!(status(&cluster, B).unsynced, LOCAL);
    // Its clients are served by others, and told of the overload where there are none.
    cluster.put(B, "late", "v", Cover::Held);
    assert_eq!(status(&cluster, B).unsynced, LOCAL);
    for other in [A, C] {
        cluster.cut(B, other, true);
    }
    let options = WriteOptions { w: Some(Level::One), ..WriteOptions::default() };
    let Op::Put { key, value, content_type, expiry, cover, .. } = put("later", "v", Cover::Held) else {
        unreachable!()
    };
    let op = Op::Put { key, value, content_type, expiry, cover, options };
    let request = cluster.start_request(B, op);
    assert_eq!(cluster.replies[&request], Reply::Failed(OpError::Overloaded));
    for other in [A, C] {
        cluster.cut(B, other, false);
    }
    cluster.run();
    assert_eq!(cluster.get(B, "k").0, ["v"], "reads need no sync");
    assert_eq!(cluster.get_with(A, "k", r(Level::All)).0, ["v"]);
    // It hangs no more.
    cluster.sync(B);
    cluster.run();
    assert_eq!(status(&cluster, B).unsynced, 0);
    cluster.put(B, "late", "v", Cover::Held);
    cluster.pass(Duration::from_secs(20));
    assert!(
        (0..3 * LOCAL).all(|i| cluster.copy(B, &format!("key {i}")).is_some()),
        "it has what was kept for it"
    );
    assert_eq!(cluster.hints(A), 0);
}

/// Where an acknowledgement waits for no sync, a hang is not seen by those who wait for one: there are none.
#[test]
fn what_waits_for_a_sync_unasked_is_bounded_too() {
    for durability in [Durability::One, Durability::Interval] {
        let mut cluster = Cluster::with(3, bounded);
        commit(&mut cluster, A, &[("b", Keyspace { durability, ..Keyspace::default() })]);
        cluster.nodes.get_mut(&B).unwrap().syncs = false;
        for i in 0..10 * LOCAL {
            cluster.put(A, &format!("b {i}"), "v", Cover::Held);
            let unsynced = status(&cluster, B).unsynced_copies;
            assert!(unsynced <= 4 * LOCAL, "{unsynced} in {durability}");
            cluster.delivered.clear();
        }
        assert_eq!(status(&cluster, B).unsynced_copies, 4 * LOCAL);
        cluster.put(B, "b late", "v", Cover::Held);
        assert_eq!(status(&cluster, B).unsynced_copies, 4 * LOCAL);
        assert_eq!(cluster.get(B, "b 0").0, ["v"]);
        cluster.sync(B);
        cluster.put(B, "b late", "v", Cover::Held);
        cluster.pass(Duration::from_secs(20));
        assert!((0..10 * LOCAL).all(|i| cluster.copy(B, &format!("b {i}")).is_some()));
        assert_eq!(cluster.hints(A), 0);
    }
}

/// What a failed sync was to cover waits for nothing any more.
#[test]
fn nothing_is_unsynced_after_a_sync_that_failed() {
    let mut cluster = Cluster::with(3, bounded);
    let interval = Keyspace { durability: Durability::Interval, ..Keyspace::default() };
    commit(&mut cluster, A, &[("b", interval)]);
    cluster.nodes.get_mut(&B).unwrap().syncs = false;
    for i in 0..5 * LOCAL {
        cluster.put(A, &format!("b {i}"), "v", Cover::Held);
    }
    assert_eq!(status(&cluster, B).unsynced_copies, 4 * LOCAL);
    cluster.input(B, Input::SyncFailed);
    assert_eq!(status(&cluster, B).unsynced_copies, 0);
}

#[test]
fn many_writes_that_wait_for_no_sync_are_synced_before_their_time() {
    let mut cluster = Cluster::with(3, bounded);
    commit(&mut cluster, A, &[("b", Keyspace { durability: Durability::Interval, ..Keyspace::default() })]);
    for i in 0..2 * LOCAL {
        cluster.put(A, &format!("b {i}"), "v", Cover::Held);
        assert!(status(&cluster, B).unsynced_copies < LOCAL);
    }
}

#[test]
fn reads_repair_nothing_on_a_disk_that_hangs() {
    let mut cluster = Cluster::with(3, bounded);
    cluster.loses = |_, to, message| {
        to == B && matches!(message, Message::Write { purpose: Purpose::Write | Purpose::Handoff, .. })
    };
    for i in 0..LOCAL {
        cluster.put(A, &format!("stale {i}"), "v", Cover::Held);
    }
    cluster.loses = |_, _, _| false;
    cluster.nodes.get_mut(&B).unwrap().syncs = false;
    for i in 0..LOCAL {
        cluster.put(A, &format!("key {i}"), "v", Cover::Held);
    }
    assert_eq!(status(&cluster, B).unsynced, LOCAL);
    for i in 0..LOCAL {
        assert_eq!(cluster.get(B, &format!("stale {i}")).0, ["v"]);
        assert_eq!(cluster.get(A, &format!("stale {i}")).0, ["v"]);
        let Status { local, unsynced, .. } = status(&cluster, B);
        assert!(local + unsynced <= LOCAL, "{local} and {unsynced}");
        assert_eq!(cluster.copy(B, &format!("stale {i}")), None);
    }
    cluster.sync(B);
    assert_eq!(cluster.get(B, "stale 0").0, ["v"]);
    cluster.run();
    assert!(cluster.copy(B, "stale 0").is_some());
}

#[test]
fn hints_that_have_served_wait_for_a_disk_that_hangs() {
    let mut cluster = Cluster::with(3, bounded);
    cluster.crash(C);
    for i in 0..5 * LOCAL {
        cluster.put(A, &format!("key {i}"), "v", Cover::Held);
    }
    cluster.nodes.get_mut(&A).unwrap().syncs = false;
    cluster.start(C);
    for _ in 0..100 {
        cluster.pass(Duration::from_millis(100));
        let Status { local, unsynced, .. } = status(&cluster, A);
        assert!(local + unsynced <= LOCAL + 32, "{local} and {unsynced}");
    }
    cluster.sync(A);
    cluster.pass(Duration::from_secs(20));
    assert_eq!(cluster.hints(A), 0);
    assert!((0..5 * LOCAL).all(|i| cluster.copy(C, &format!("key {i}")).is_some()));
}

#[test]
fn values_that_wait_for_a_disk_are_bounded_by_bytes() {
    let mut cluster = Cluster::with(3, |config| config.limits.local_bytes = 1 << 20);
    cluster.nodes.get_mut(&B).unwrap().loads = false;
    let value = "x".repeat(100 << 10);
    for i in 0..20 {
        cluster.put(A, &format!("key {i}"), &value, Cover::Held);
        let bytes = status(&cluster, B).local_bytes;
        assert!(bytes <= (1 << 20) + (101 << 10), "{bytes}");
    }
    cluster.put(B, "late", "v", Cover::Held);
    let request = cluster.start_request(B, Op::Get { key: "late".into(), options: ReadOptions::default() });
    cluster.run();
    assert!(matches!(cluster.replies[&request], Reply::Read(_)), "others read for it, too");
    assert!(status(&cluster, B).local_bytes <= (1 << 20) + (101 << 10));
    cluster.load(B);
    cluster.run();
    assert_eq!(status(&cluster, B).local_bytes, 0);
    cluster.put(B, "late", "v", Cover::Held);
}

#[test]
fn other_coordinators_take_what_is_forwarded_to_a_disk_that_hangs() {
    let mut cluster = Cluster::with(4, bounded);
    let list = cluster.preference("{k}");
    cluster.nodes.get_mut(&list[0]).unwrap().syncs = false;
    for i in 0..2 * LOCAL {
        let reply = cluster.request(list[3], put(&format!("{{k}}{i}"), "v", Cover::Held));
        assert!(matches!(reply, Reply::Written { .. }), "{i}: {reply:?}");
    }
    assert_eq!(status(&cluster, list[0]).unsynced, LOCAL);
}

#[test]
fn nothing_waits_for_a_sync_that_will_never_be() {
    let mut cluster = Cluster::with(3, bounded);
    cluster.put(A, "k", "v", Cover::Held);
    cluster.nodes.get_mut(&B).unwrap().syncs = false;
    let layout = cluster.memberships[&A].layout().unwrap().version();
    let key = bytes::Bytes::from("k");
    let object = cluster.nodes[&A].durable[&(place("k"), key.clone())].clone();
    cluster.put(A, "other", "v", Cover::Held);
    cluster.input(B, Input::SyncFailed);
    for call in 0..2 * LOCAL as u64 {
        let write = Message::Write {
            call: CallId(call),
            layout,
            purpose: Purpose::Write,
            key: key.clone(),
            object: object.clone(),
            hints: Vec::new(),
            sync: Syncing::First,
            outranked_by: None,
        };
        // It is here already, and nobody can tell whether it is durable.
        cluster.input(B, Input::Peer(A, write));
        assert_eq!(status(&cluster, B).unsynced, 0);
    }
}

#[test]
fn a_write_that_ends_at_its_deadline_leaves_no_timer() {
    let mut cluster = Cluster::new(3);
    // The listings that a run begins with are not waited for any more.
    cluster.pass(Duration::from_secs(10));
    let timers = |cluster: &Cluster| status(cluster, A).timers;
    let before = timers(&cluster);
    // Nobody else answers, and its time is shorter than others are waited for.
    cluster.pause(B);
    cluster.pause(C);
    let Op::Put { key, value, content_type, expiry, cover, .. } = put("k", "v", Cover::Held) else {
        unreachable!()
    };
    let options = WriteOptions { timeout: Some(Duration::from_millis(100)), ..WriteOptions::default() };
    let request = cluster.start_request(A, Op::Put { key, value, content_type, expiry, cover, options });
    cluster.pass(Duration::from_millis(120));
    assert!(matches!(cluster.replies.get(&request), Some(Reply::Failed(OpError::Indeterminate { .. }))));
    // The hints that it leaves are synced, and then handed over to two owners; and it is looked whether the record never came.
    assert_eq!(timers(&cluster), before + 4);
}

/// Long keys take as much room as values.
#[test]
fn keys_that_wait_for_the_disk_are_bounded_by_their_bytes() {
    let mut cluster = Cluster::with(3, |config| config.limits.local_bytes = 100_000);
    cluster.pass(Duration::from_secs(1));
    cluster.nodes.get_mut(&B).unwrap().loads = false;
    let layout = cluster.memberships[&B].layout().unwrap().version();
    let want = gramme_quorum::message::Want::Object;
    for call in 0..100 {
        let key = bytes::Bytes::from(vec![b'k'; 60_000]);
        let read = Message::Read { call: gramme_quorum::message::CallId(call), layout, key, want };
        cluster.input(B, Input::Peer(A, read));
    }
    let status = cluster.nodes[&B].engine.status(cluster.now.instant);
    assert!(status.local_bytes <= 160_000, "{}", status.local_bytes);
    assert_eq!(status.local, 2);
    cluster.load(B);
    assert_eq!(cluster.nodes[&B].engine.status(cluster.now.instant).local_bytes, 0);
}
