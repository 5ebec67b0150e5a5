//! Nodes that are stopped for longer than anybody waits, and go on.

mod common;

use common::{A, B, C, Cluster, delete, put};
use gramme_quorum::message::Message;
use gramme_quorum::*;
use gramme_ring::NodeId;

/// What the stopped node was asked to do is given up by those who asked; later writes are acknowledged without it. When it goes on it
/// does nothing of what it finds in its sockets that could undo those.
fn stopped(seconds: u64) {
    let mut cluster = Cluster::new(4);
    let keys: Vec<String> = (0..40).map(|n| format!("key {n}")).collect();
    for key in &keys {
        cluster.put(A, key, "before", Cover::Held);
    }
    cluster.pass(Duration::from_secs(1));
    // Writes through the node, and of its own, are under way as it stops.
    for key in &keys {
        cluster.start_request(C, put(key, "its own", Cover::Held));
    }
    cluster.pause(C);
    for (n, key) in keys.iter().enumerate() {
        // Those for which it is the coordinator wait for it.
        let op = if n % 2 == 0 { put(key, "given up", Cover::Held) } else { delete(key, Cover::Held) };
        cluster.start_request(A, op);
    }
    cluster.pass(Duration::from_secs(seconds));
    for key in &keys {
        cluster.put(A, key, "after", Cover::Held);
    }
    cluster.resume(C);
    cluster.pass(Duration::from_secs(60));
    for key in &keys {
        for at in [A, B, C] {
            let shown = cluster.get(at, key).0;
            assert_eq!(shown.first().map(String::as_str), Some("after"), "{key} at {at}: {shown:?}");
        }
    }
}

#[test]
fn a_node_that_was_stopped_undoes_nothing_that_was_acknowledged_meanwhile() {
    // For a little longer than it takes to be given up, for minutes, for an hour.
    for seconds in [3, 9, 120, 3600] {
        stopped(seconds);
    }
}

/// What a running node is asked is fresh, whoever asks and whatever the clocks' origins are.
#[test]
fn what_is_forwarded_in_time_is_done() {
    let mut cluster = Cluster::new(4);
    for round in 0..20 {
        for node in [A, B, C, gramme_ring::NodeId(4)] {
            let key = format!("key {round}");
            cluster.put(node, &key, "v", Cover::Held);
            assert_eq!(cluster.get(node, &key).0, ["v"]);
        }
        cluster.pass(Duration::from_millis(700));
        if round == 10 {
            cluster.crash(B);
            cluster.start(B);
        }
    }
    let refused = cluster.delivered.iter().any(|(_, _, message)| {
        matches!(message, message::Message::Refused { why: message::Refusal::Overloaded, .. })
    });
    assert!(!refused);
}

/// The last words of a run, still in a socket when the next one is connected: its clock is no measure of how fresh a request is.
#[test]
fn a_former_run_of_a_coordinator_makes_no_request_old() {
    let mut cluster = Cluster::new(4);
    let list = cluster.preference("k");
    let (coordinator, outside) = (list[0], list[3]);
    cluster.pass(Duration::from_secs(1));
    let run = cluster.nodes[&coordinator].engine.run();
    cluster.crash(coordinator);
    cluster.start(coordinator);
    let at = cluster.now.instant + Duration::from_secs(1_000_000);
    cluster.input(outside, Input::Peer(coordinator, Message::Heartbeat { run, mark: 0, at, wall_ms: 0 }));
    cluster.pass(Duration::from_secs(1));
    cluster.delivered.clear();
    for _ in 0..20 {
        cluster.put(outside, "k", "v", Cover::Held);
    }
    let refused = |(_, to, message): &&(NodeId, NodeId, Message)| {
        *to == outside && matches!(message, Message::Refused { .. })
    };
    assert_eq!(cluster.delivered.iter().filter(refused).count(), 0);
}
