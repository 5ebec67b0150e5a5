//! `/metrics`: counters and levels in Prometheus' text format.

use super::router::{Answer, Refusal, with_type};
use super::{Server, api};
use hyper::StatusCode;
use std::fmt::Write as _;

/// Adds a family with one sample, or one for each value of a label.
fn family(text: &mut String, name: &str, kind: &str, help: &str, samples: &[(String, u64)]) {
    // A String takes everything.
    let _ = writeln!(text, "# HELP gramme_{name} {help}\n# TYPE gramme_{name} {kind}");
    for (labels, value) in samples {
        let _ = writeln!(text, "gramme_{name}{labels} {value}");
    }
}

pub(super) fn answer(server: &Server) -> Result<Answer, Refusal> {
    let (status, ring, transition) = server.handle.engine(|engine| {
        let version = engine.layout().map_or(0, |layout| layout.version().0);
        (api::look(engine), version, engine.membership().transition().is_some())
    });
    let mut text = String::new();
    let mut one = |name: &str, kind: &str, help: &str, value: u64| {
        family(&mut text, name, kind, help, &[(String::new(), value)]);
    };
    one("ready", "gauge", "Writes are taken.", status.ready.into());
    one("writable", "gauge", "No sync has failed.", status.writable.into());
    one(
        "disk_full",
        "gauge",
        "New values are refused here until there is room on the disk.",
        server.handle.disk_full().into(),
    );
    one(
        "incomplete_partitions",
        "gauge",
        "Partitions in which the node may miss data; there its answers count toward no quorum.",
        status.incomplete_partitions as u64,
    );
    one(
        "gaining_partitions",
        "gauge",
        "Partitions that the node is to own and has still to copy.",
        status.gaining_partitions as u64,
    );
    one(
        "sweeping_partitions",
        "gauge",
        "Partitions that the node holds and owns no more.",
        status.sweeping_partitions as u64,
    );
    one("transition", "gauge", "A change of the ring is live.", transition.into());
    one("ring_version", "gauge", "Version of the ring in force.", ring);
    one("requests_in_flight", "gauge", "Requests of clients in flight.", server.handle.in_flight() as u64);
    one(
        "request_bytes",
        "gauge",
        "Bytes of the keys and values of requests coordinated here, and of the objects that they have read or made.",
        status.request_bytes as u64,
    );
    one(
        "answer_bytes",
        "gauge",
        "Bytes of answers that are being fetched, wait, or are being sent.",
        server.handle.budget().used() as u64,
    );
    one(
        "requests_lingering",
        "gauge",
        "Requests that are answered and wait for the rest of the replicas.",
        (status.lingering_writes + status.lingering_reads) as u64,
    );
    one(
        "disk_operations_waiting",
        "gauge",
        "Local operations that wait for their records.",
        status.local as u64,
    );
    one(
        "disk_reads_total",
        "counter",
        "Reads of records, and of the keys of a listing, that had to wait for the disk, the page cache having them not.",
        server.handle.disk_reads(),
    );
    one("sync_operations_waiting", "gauge", "Local operations that wait for a sync.", status.unsynced as u64);
    one("http_connections", "gauge", "Connections of HTTP clients.", server.clients.borrow().len() as u64);
    one(
        "requests_forwarded_total",
        "counter",
        "Requests handed to a replica of their key, this node being none.",
        server.handle.forwarded(),
    );
    one("read_hedges_total", "counter", "Reads that asked a second replica for the value.", status.hedges);
    one("read_repairs_total", "counter", "Stale copies that reads have repaired.", status.repairs);
    one(
        "records_healed_total",
        "counter",
        "Damaged records replaced from other owners' copies.",
        status.healed,
    );
    let tombstones = server.handle.tombstones();
    one("tombstones", "gauge", "Deleted keys that are remembered here.", tombstones);
    one("hints_kept_total", "counter", "Hints written for owners that were away.", status.hints_kept);
    one(
        "hints_refused_total",
        "counter",
        "Hints that found no room although the write itself did.",
        status.hints_refused,
    );
    one("hints_handed_total", "counter", "Hints that their owners acknowledged.", status.hints_handed);
    one("exchanges_equal_total", "counter", "Comparisons that found no difference.", status.exchanges_equal);
    one("slots_pulled_total", "counter", "Slots that differed from another node's.", status.slots_pulled);
    if let Some(bytes) = crate::redis::resident_bytes() {
        one("resident_bytes", "gauge", "Memory of this process.", bytes);
    }
    let peers = |of: fn(&gramme_quorum::PeerStatus) -> bool| -> Vec<(String, u64)> {
        status.peers.iter().map(|peer| (format!("{{peer=\"{}\"}}", peer.id), of(peer).into())).collect()
    };
    family(&mut text, "peer_alive", "gauge", "The peer is connected and not suspected.", &peers(|p| p.alive));
    family(
        &mut text,
        "peer_hints_pending",
        "gauge",
        "There are, or may be, hints for it.",
        &peers(|p| p.hints_pending),
    );
    Ok(with_type(StatusCode::OK, "text/plain; version=0.0.4", text.into()))
}
