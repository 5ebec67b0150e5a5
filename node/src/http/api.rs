//! What operators and their tools look at: JSON, and two words for load balancers.

use super::Server;
use super::router::{Answer, Refusal, text, with_type};
use gramme_quorum::{Instant, Status};
use gramme_ring::Layout;
use hyper::StatusCode;
use serde::Serialize;

const INDEX: &str = "\
Gramme, a replicated key-value store.

GET, HEAD, PUT, DELETE  /kv/{key}     values; keys are percent-encoded
GET                     /api/status   how this node and its peers do
GET                     /api/ring     who owns which slots
GET                     /api/members  who the members are, who wishes to be one, and where they serve
GET                     /api/keyspaces  prefixes of keys with rules of their own
GET                     /api/transfers  how far a change of the layout has come
GET                     /api/cluster/plan    what a commit of all that is staged would bring
POST                    /api/cluster/stage   a change: join, leave, remove, replace, weight, zone or keyspace, in JSON
POST                    /api/cluster/commit  the plan with this hash, in JSON
POST                    /api/cluster/clear   takes back what is staged; the body is {}
GET                     /metrics      counters, for Prometheus
GET                     /healthz      whether this process serves
GET                     /readyz       whether it can meet quorums
";

pub(super) fn index(_: &Server) -> Result<Answer, Refusal> {
    Ok(text(StatusCode::OK, INDEX.to_owned()))
}

/// This process answers.
pub(super) fn healthz(_: &Server) -> Result<Answer, Refusal> {
    Ok(text(StatusCode::OK, "ok\n".to_owned()))
}

/// Reads and writes can be expected to succeed here.
pub(super) fn readyz(server: &Server) -> Result<Answer, Refusal> {
    let (status, quorum) = server.handle.engine(|engine| (look(engine), engine.layout().map_or(1, majority)));
    let alive = 1 + status.peers.iter().filter(|peer| peer.alive).count();
    let obstacle = if !status.ready {
        "starting".to_owned()
    } else if !server.handle.engine(|engine| engine.layout().is_some()) {
        "no cluster has been found yet".to_owned()
    } else if server.handle.is_removed() {
        "this node was removed from the cluster, for good".to_owned()
    } else if !status.writable {
        "the disk failed: this node takes no writes".to_owned()
    } else if alive < quorum {
        format!("{alive} of the {quorum} members that a quorum takes are alive")
    } else {
        return Ok(text(StatusCode::OK, "ready\n".to_owned()));
    };
    Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, obstacle))
}

/// The engine's account. Suspicion levels depend on the engine's own clock and are left out.
pub(super) fn look(engine: &gramme_quorum::Engine) -> Status {
    engine.status(Instant::default())
}

/// Members that must be alive for a majority of each key's replicas, fallbacks included.
fn majority(layout: &Layout) -> usize {
    usize::from(layout.replicas()).min(layout.members().len()) / 2 + 1
}

pub(super) fn json(value: &impl Serialize) -> Result<Answer, Refusal> {
    let body = serde_json::to_vec(value).expect("these structures are always JSON");
    Ok(with_type(StatusCode::OK, "application/json", body.into()))
}

#[derive(Serialize)]
struct NodeStatus {
    node: String,
    cluster: String,
    version: &'static str,
    /// Writes are taken.
    ready: bool,
    /// No sync has failed.
    writable: bool,
    /// New values are refused here until there is room.
    disk_full: bool,
    /// Partitions in which this node may miss data that it acknowledged: there its answers count toward no quorum.
    incomplete_partitions: usize,
    /// Partitions that this node is to own and has still to copy, and those that it holds and owns no more.
    gaining_partitions: usize,
    sweeping_partitions: usize,
    /// This node's part in the cluster: `member`, `joining`, `leaving`, `left`, or `waiting` to be staged and committed.
    standing: &'static str,
    /// The step of the change of the layout that is live, or null.
    transition: Option<String>,
    ring_version: u64,
    replicas: u8,
    requests_in_flight: usize,
    /// Bytes of the keys and values of requests coordinated here, and of the objects that they have read or made.
    request_bytes: usize,
    requests_lingering: usize,
    waiting_for_disk: usize,
    waiting_for_sync: usize,
    /// What background work gets of what it may do at the most: less than 100 when clients' requests take too long.
    background_percent: u8,
    /// Reads that took longer than 95 in 100 do and asked a second replica for the value.
    read_hedges: u64,
    read_repairs: u64,
    /// Damaged records that were replaced from other owners' copies.
    records_healed: u64,
    hints_kept: u64,
    hints_refused: u64,
    hints_handed: u64,
    /// Comparisons with another node that found no difference.
    exchanges_equal: u64,
    /// Slots in which another node's copies differed, and were pulled.
    slots_pulled: u64,
    /// Deleted keys that are remembered here: so that a copy that has missed the deletion does not bring them back.
    tombstones: u64,
    peers: Vec<Peer>,
}

#[derive(Serialize)]
struct Peer {
    node: String,
    connected: bool,
    alive: bool,
    hints_pending: bool,
}

pub(super) fn status(server: &Server) -> Result<Answer, Refusal> {
    let handle = &server.handle;
    let (status, ring_version, replicas) = handle.engine(|e| {
        (look(e), e.layout().map_or(0, |l| l.version().0), e.layout().map_or(0, Layout::replicas))
    });
    let (standing, transition) = handle.engine(|engine| {
        let ring = engine.membership();
        (super::members::standing(ring, handle.node()), ring.transition().map(|t| t.step().to_string()))
    });
    json(&NodeStatus {
        node: handle.node().to_string(),
        cluster: format!("{:016x}", handle.cluster()),
        version: env!("CARGO_PKG_VERSION"),
        ready: status.ready,
        writable: status.writable,
        disk_full: handle.disk_full(),
        incomplete_partitions: status.incomplete_partitions,
        gaining_partitions: status.gaining_partitions,
        sweeping_partitions: status.sweeping_partitions,
        standing,
        transition,
        ring_version,
        replicas,
        requests_in_flight: handle.in_flight(),
        request_bytes: status.request_bytes,
        requests_lingering: status.lingering_writes + status.lingering_reads,
        waiting_for_disk: status.local,
        waiting_for_sync: status.unsynced,
        background_percent: status.background_percent,
        read_hedges: status.hedges,
        read_repairs: status.repairs,
        records_healed: status.healed,
        hints_kept: status.hints_kept,
        hints_refused: status.hints_refused,
        hints_handed: status.hints_handed,
        exchanges_equal: status.exchanges_equal,
        slots_pulled: status.slots_pulled,
        tombstones: handle.tombstones(),
        peers: status
            .peers
            .iter()
            .map(|peer| Peer {
                node: peer.id.to_string(),
                connected: peer.connected,
                alive: peer.alive,
                hints_pending: peer.hints_pending,
            })
            .collect(),
    })
}

#[derive(Serialize)]
struct Ring {
    version: u64,
    /// Of the whole layout: nodes with the same hash have the same ring.
    hash: String,
    parent: String,
    replicas: u8,
    partitions: u32,
    members: Vec<RingMember>,
    /// Runs of slots with the same owners, in order.
    slots: Vec<Run>,
}

#[derive(Serialize)]
struct RingMember {
    node: String,
    zone: String,
    weight: u32,
    /// Partitions of which it is an owner, and of which it is the first.
    partitions: usize,
    primary: usize,
}

#[derive(Serialize)]
struct Run {
    first: u16,
    last: u16,
    owners: Vec<String>,
}

pub(super) fn ring(server: &Server) -> Result<Answer, Refusal> {
    server.handle.engine(|engine| {
        let Some(layout) = engine.layout() else {
            return Err(Refusal::new(StatusCode::NOT_FOUND, "no layout is known here yet".to_owned()));
        };
        let mut slots: Vec<Run> = Vec::new();
        for partition in layout.partition_count().partitions() {
            let (range, owners) = (partition.slots(), layout.owners(partition));
            let owners: Vec<String> = owners.map(|node| node.to_string()).collect();
            match slots.last_mut() {
                Some(run) if run.owners == owners => run.last = range.end - 1,
                _ => slots.push(Run { first: range.start, last: range.end - 1, owners }),
            }
        }
        let members = layout.members().iter().map(|member| RingMember {
            node: member.id.to_string(),
            zone: member.zone.as_str().to_owned(),
            weight: member.weight,
            partitions: layout.partitions_of(member.id).count(),
            primary: layout.partitions_of(member.id).filter(|(_, rank)| *rank == 0).count(),
        });
        json(&Ring {
            version: layout.version().0,
            hash: format!("{:016x}", layout.hash()),
            parent: format!("{:016x}", layout.parent()),
            replicas: layout.replicas(),
            partitions: layout.partitions(),
            members: members.collect(),
            slots,
        })
    })
}
