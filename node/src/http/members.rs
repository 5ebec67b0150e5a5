//! Who takes part, who wishes to, and how far a change of the layout has come.

use super::Server;
use super::api::{json, look};
use super::router::{Answer, Refusal};
use crate::driver::progress;
use crate::facts::{Facts, Progress};
use crate::handle::Committed;
use crate::identity::members as members_of;
use gramme_quorum::{Engine, Instant, Status};
use gramme_ring::membership::Standing;
use gramme_ring::{Change as Staged, Membership, NodeId, Phase, Step, Transition};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Serialize)]
struct Shown {
    node: String,
    /// `this`, `up`, `suspected` or `down`.
    state: &'static str,
    /// `member`, `joining`, `leaving`, `removed`, `left`, or `waiting` to be staged and committed.
    standing: &'static str,
    /// What a commit would make of it: `join`, `leave`, `remove`, `change`, or null.
    staged: Option<&'static str>,
    zone: String,
    weight: u32,
    redis: String,
    cluster_redis: String,
    http: String,
    peer: String,
}

/// How a node looks from here.
pub(super) fn state(status: &Status, node: NodeId, me: NodeId) -> &'static str {
    match status.peers.iter().find(|peer| peer.id == node) {
        _ if node == me => "this",
        Some(peer) if peer.alive => "up",
        Some(peer) if peer.connected => "suspected",
        _ => "down",
    }
}

/// A node's part in the cluster, as far as that is committed.
pub(super) fn standing(ring: &Membership, node: NodeId) -> &'static str {
    let to = ring.layout().is_some_and(|layout| layout.is_member(node));
    let from = ring.transition().map_or(to, |transition| transition.from().is_member(node));
    match (from, to) {
        _ if ring.is_removed(node) => "removed",
        (true, true) => "member",
        (false, true) => "joining",
        (true, false) => "leaving",
        (false, false) if matches!(ring.standing(node), Some(Standing::Left)) => "left",
        (false, false) => "waiting",
    }
}

/// The member that a node would be after a commit, if it would be one.
pub(super) fn planned(ring: &Membership, node: NodeId) -> Option<gramme_ring::Member> {
    for change in ring.staged() {
        match change {
            Staged::Member(member) if member.id == node => return Some(member),
            Staged::Leave(id) | Staged::Remove(id) if id == node => return None,
            _ => {}
        }
    }
    ring.layout()?.member(node).cloned()
}

/// What a node said of itself.
pub(super) fn facts(engine: &Engine, node: NodeId) -> Option<Facts> {
    Facts::from_bytes(engine.facts(node)?)
}

/// Everyone of whom an operator may speak: members, this node, nodes that are staged, and strangers that are connected.
pub(super) fn known(engine: &Engine, me: NodeId) -> BTreeSet<NodeId> {
    let ring = engine.membership();
    let staged = ring.staged().into_iter().filter_map(|change| match change {
        Staged::Member(member) => Some(member.id),
        Staged::Leave(id) | Staged::Remove(id) => Some(id),
        _ => None,
    });
    let connected = look(engine).peers.into_iter().filter(|peer| peer.connected).map(|peer| peer.id);
    // A stranger counts from when it has said what it wishes to be.
    let connected = connected.filter(|id| facts(engine, *id).is_some());
    let members = members_of(ring).into_iter().map(|member| member.id);
    members.chain([me]).chain(staged).chain(connected).collect()
}

pub(super) fn members(server: &Server) -> Result<Answer, Refusal> {
    let me = server.handle.node();
    let shown: Vec<Shown> = server.handle.engine(|engine| {
        let (status, ring) = (look(engine), engine.membership());
        let members: BTreeMap<NodeId, _> = members_of(ring).into_iter().map(|m| (m.id, m)).collect();
        let mut staged = BTreeMap::new();
        for change in ring.staged() {
            match change {
                Staged::Member(member) if members.contains_key(&member.id) => {
                    staged.insert(member.id, "change")
                }
                Staged::Member(member) => staged.insert(member.id, "join"),
                Staged::Leave(id) => staged.insert(id, "leave"),
                Staged::Remove(id) => staged.insert(id, "remove"),
                _ => None,
            };
        }
        let show = |id: NodeId| {
            let wishes = facts(engine, id);
            let (weight, zone) = match (members.get(&id).cloned().or_else(|| planned(ring, id)), &wishes) {
                (Some(member), _) => (member.weight, member.zone),
                (None, Some(facts)) => (facts.weight, facts.zone.clone()),
                (None, None) => Default::default(),
            };
            let told = || wishes.as_ref().map(|facts| facts.addresses.clone());
            let addresses = server.handle.addresses(id).or_else(told).unwrap_or_default();
            Shown {
                node: id.to_string(),
                state: state(&status, id, me),
                standing: standing(ring, id),
                staged: staged.get(&id).copied(),
                zone: zone.as_str().to_owned(),
                weight,
                redis: addresses.redis,
                cluster_redis: addresses.cluster_redis,
                http: addresses.http,
                peer: addresses.peer,
            }
        };
        known(engine, me).into_iter().map(show).collect()
    });
    json(&shown)
}

#[derive(Serialize)]
struct Transfers {
    #[serde(flatten)]
    committed: Committed,
    /// The change to it, until that is done; then null.
    transition: Option<Change>,
    /// Changes that are staged.
    staged: usize,
    nodes: Vec<Part>,
}

#[derive(Serialize)]
struct Change {
    from: u64,
    /// `acknowledging`, `transferring`, `moving` or `done`.
    step: String,
    /// Who holds up this step.
    waiting_for: Vec<String>,
    /// Partitions to be copied, counted once for each new owner, and those that are.
    to_copy: u32,
    copied: u32,
}

#[derive(Serialize)]
struct Part {
    node: String,
    state: &'static str,
    standing: &'static str,
    /// What it has declared in the transition: `acknowledged`, `synced`, `moved`, or null.
    phase: Option<&'static str>,
    /// Partitions that it gets by the transition, and those of them that it still has to copy.
    gains: u32,
    to_copy: u32,
    /// Partitions that it holds and owns no more, and still has to look through, as far as it is known here.
    to_hand_over: u32,
    /// Partitions in which it may miss what it acknowledged, as far as it is known here.
    incomplete: u32,
}

pub(super) fn transfers(server: &Server) -> Result<Answer, Refusal> {
    let me = server.handle.node();
    let transfers = server.handle.engine(|engine| {
        let (status, ring) = (look(engine), engine.membership());
        let gains = ring.transition().map(gains).unwrap_or_default();
        let mut nodes: Vec<Part> = Vec::new();
        for member in members_of(ring) {
            let id = member.id;
            let told = if id == me {
                progress(engine, Instant::default())
            } else {
                facts(engine, id).and_then(|facts| facts.progress)
            };
            let gains = gains.get(&id).copied().unwrap_or_default();
            nodes.push(Part {
                node: id.to_string(),
                state: state(&status, id, me),
                standing: standing(ring, id),
                phase: ring.transition().and_then(|t| t.phase(id)).map(phase),
                gains,
                to_copy: ring.transition().map_or(0, |transition| to_copy(transition, id, gains, told)),
                to_hand_over: told.map_or(0, |progress| progress.sweeping),
                incomplete: told.map_or(0, |progress| progress.incomplete),
            });
        }
        let transition = ring.transition().map(|transition| {
            let total = gains.values().sum();
            let left: u32 = nodes.iter().map(|part| part.to_copy).sum();
            Change {
                from: transition.from().version().0,
                step: transition.step().to_string(),
                waiting_for: transition.waiting_for().iter().map(NodeId::to_string).collect(),
                to_copy: total,
                copied: total - left,
            }
        });
        Transfers { committed: Committed::of(ring), transition, staged: ring.staged().len(), nodes }
    });
    json(&transfers)
}

const fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Acknowledged => "acknowledged",
        Phase::Synced => "synced",
        Phase::Moved => "moved",
    }
}

/// How many partitions each node gets.
fn gains(transition: Transition<'_>) -> BTreeMap<NodeId, u32> {
    let mut gains = BTreeMap::new();
    for gain in transition.from().plan(transition.to()).gains() {
        *gains.entry(gain.node).or_default() += 1;
    }
    gains
}

/// How many of its gains a node has still to copy. What it told may be of an earlier time.
fn to_copy(transition: Transition<'_>, node: NodeId, gains: u32, told: Option<Progress>) -> u32 {
    match told {
        _ if transition.phase(node) >= Some(Phase::Synced) || !transition.takes_part(node) => 0,
        _ if transition.step() < Step::Transferring => gains,
        Some(progress) if progress.version == transition.to().version().0 => progress.gaining.min(gains),
        _ => gains,
    }
}
