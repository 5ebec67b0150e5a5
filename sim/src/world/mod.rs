//! A cluster in virtual time: real engines over real stores, joined by a simulated network.
//!
//! The world moves only when told to, event by event, and hands back what concerns whoever drives it: answers to
//! clients and alarms it asked for. Everything else, messages, syncs, timers, connections, happens inside.

mod clients;
mod clogging;
mod control;
mod hearsay;
mod judging;
mod membership;
mod nodes;
mod outcasts;
mod quorums;
mod reach;
mod standstill;
mod wire;

use crate::checker::{Checker, EXPIRED, OpId};
use crate::event_hash::EventHash;
use crate::keyspaces::Named;
use crate::network::Network;
use crate::node::{Fetch, Node};
use crate::queue::Queue;
use crate::rng::{Rng, Tape};
use crate::time::Time;
use crate::timeline::{Mark, Timeline};
use bytes::Bytes;
use clogging::Clog;
use core::time::Duration;
use gramme_node::host::List;
use gramme_quorum::planted::Planted;
use gramme_quorum::{ClusterOp, Input, Limits, LoadId, Reply, Status, Timing};
use gramme_ring::{ClusterId, Layout, LayoutVersion, Member, Membership, NodeId, Slot};
use hearsay::Hearsay;
pub use membership::Alteration;
pub(crate) use membership::Order;
use quorums::{Askings, Mind};
use reach::Disturbed;
use std::collections::BTreeMap;

/// The first of the engine's slots for hints.
pub const HINTS: u16 = 0x8000;
/// A node's answer is late if it comes this long after the request's own limit: timers ring on time, but messages travel.
const GRACE: Duration = Duration::from_secs(1);

/// A read of a disk that is well takes this long at the most.
const READ_TIME: Duration = Duration::from_micros(300);

/// Within this time others tell a node that its disk is an old one.
const TOLD: Duration = Duration::from_secs(3);

/// What a cluster is like.
#[derive(Clone, Debug)]
pub struct Shape {
    /// How many nodes.
    pub nodes: usize,
    /// N.
    pub replicas: u8,
    /// R, unless a read says otherwise.
    pub r: u8,
    /// W, unless a write says otherwise.
    pub w: u8,
    /// Bytes of a store's segment.
    pub segment_bytes: u64,
    /// The engines' waits.
    pub timing: Timing,
    /// The engines' bounds.
    pub limits: Limits,
    /// About how many bytes a node looks through for damage at a time, twice a second; `None`: it does not.
    pub scrub: Option<usize>,
    /// Whether a read of the disk takes time, as one does that the page cache can't answer.
    pub cold: bool,
    /// Nodes beyond those, which are no members until somebody makes them.
    pub spares: usize,
    /// The mistake in the engines, if there is to be one.
    pub planted: Planted,
}

impl Shape {
    /// (3, 2, 2) on so many nodes.
    #[must_use]
    pub fn new(nodes: usize) -> Shape {
        let timing = Timing { exchange: Duration::from_secs(2), expired: EXPIRED, ..Timing::default() };
        Shape {
            nodes,
            replicas: 3,
            r: 2,
            w: 2,
            segment_bytes: 256 << 10,
            timing,
            limits: Limits { value: 1 << 20, ..Limits::default() },
            scrub: None,
            cold: true,
            spares: 0,
            planted: Planted::default(),
        }
    }
}

/// What a client got.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// An answer.
    Reply(Reply),
    /// Nobody there: the request was never sent.
    Refused,
    /// The node died with it.
    Lost,
}

/// What the driver of a world waits for.
#[derive(Clone, Debug, PartialEq)]
pub enum Happening {
    /// A client's request has ended.
    Answered(OpId, Answer),
    /// An alarm that the driver set.
    Alarm(u64),
}

/// How a node goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process dies; the operating system lives on and loses nothing.
    Kill,
    /// The power fails: of what was not synced, anything may be missing.
    PowerCut,
}

#[derive(Debug)]
enum Event {
    Request {
        node: usize,
        id: OpId,
    },
    Answer {
        id: OpId,
        answer: Answer,
    },
    Deliver {
        from: usize,
        to: usize,
        /// The receiver's run when it was sent.
        run: u64,
        bytes: Bytes,
    },
    Tick {
        node: usize,
    },
    Sync {
        node: usize,
        run: u64,
    },
    /// A read of the disk ends.
    Fetched {
        node: usize,
        run: u64,
        id: LoadId,
        read: Fetch,
    },
    /// What a listing needs is at hand.
    ReadAhead {
        node: usize,
        run: u64,
        list: List,
    },
    /// Look whether two nodes can be connected, and tell the first.
    Probe {
        node: usize,
        peer: usize,
    },
    /// A receiver that does not drain takes a little.
    Drain {
        from: usize,
        to: usize,
    },
    /// A node gives up its connection to another.
    HangUp {
        node: usize,
        peer: usize,
    },
    Maintain {
        node: usize,
    },
    Restart {
        node: usize,
    },
    /// A node has been up for a while: others have told it if its disk is an old one.
    Told {
        node: usize,
        run: u64,
        /// It could be told the last time.
        again: bool,
    },
    /// What a node was writing down of the cluster is written, or could not be.
    Saved {
        node: usize,
        run: u64,
        done: bool,
    },
    /// An operator asks again.
    Order {
        node: usize,
        run: u64,
        op: ClusterOp,
    },
    Alarm(u64),
}

/// A whole cluster, its network and its judge.
#[derive(Debug)]
pub struct World {
    now: Time,
    queue: Queue<Event>,
    shape: Shape,
    /// The newest layout that anybody has committed to, and the version of the last that reads have moved to.
    layout: Layout,
    moved: LayoutVersion,
    /// The keyspaces that came with each commit, by its hash. Two commits may have one layout.
    settings: BTreeMap<u64, Vec<Named>>,
    /// The commit that each one follows.
    parents: BTreeMap<u64, u64>,
    network: Network,
    clogs: BTreeMap<(usize, usize), Clog>,
    /// Senders and receivers, until the engines are told.
    congested: Vec<(usize, usize)>,
    /// Old messages: from where, to whom, in which of its runs.
    recorded: Vec<(usize, usize, u64, Bytes)>,
    nodes: Vec<Node>,
    numbers: BTreeMap<NodeId, usize>,
    checker: Checker,
    hash: EventHash,
    timeline: Option<Timeline>,
    network_rng: Rng,
    disk_rng: Rng,
    boot_rng: Rng,
    /// No storm rages.
    calm: bool,
    faults: u64,
    half_steps: u64,
    events: u64,
    scratch: Vec<u8>,
    /// The request that a node is just being given, and requests by the calls in which they were forwarded.
    taking: Option<OpId>,
    forwarded: BTreeMap<u64, OpId>,
    /// What those to whom they were forwarded have decided.
    decisions: BTreeMap<OpId, Reply>,
    askings: Askings,
    /// What nodes went by when their requests were last held against that.
    minds: BTreeMap<usize, Mind>,
    /// What nodes have answered since somebody looked.
    said: Vec<(OpId, Reply)>,
    /// What nodes know of each other's logs.
    hearsay: Hearsay,
    /// When something was in the way of requests.
    disturbed: Disturbed,
    /// What was refused as a message was handled: to whom, and by which call.
    refused: Vec<(usize, u64)>,
    /// Whether connections are reset when a link is cut, or just fall silent.
    resets: bool,
}

impl World {
    /// A cluster of this shape, all nodes started and connected; everything in it follows from the seed.
    #[must_use]
    pub fn new(seed: u64, shape: Shape) -> World {
        World::traced(seed, shape, None)
    }

    /// The same, with a timeline of one key.
    #[must_use]
    pub fn traced(seed: u64, shape: Shape, key: Option<Bytes>) -> World {
        World::taped(seed, shape, key, &Tape::default())
    }

    /// The same, with the first choices of its network and its disks from a tape.
    #[must_use]
    pub fn taped(seed: u64, shape: Shape, key: Option<Bytes>, tape: &Tape) -> World {
        let mut boot_rng = Rng::stream(seed, 1);
        let count = shape.nodes + shape.spares;
        let ids: Vec<NodeId> = (0..count).map(|_| NodeId(boot_rng.bits())).collect();
        let members: Vec<Member> = ids[..shape.nodes].iter().map(|id| Member::new(*id)).collect();
        let founded =
            Membership::found(ClusterId(seed), shape.replicas, 64, &members).expect("a plain layout exists");
        let layout = founded.layout().expect("it is committed").clone();
        let known = |at: usize| if at < shape.nodes { founded.clone() } else { Membership::new() };
        let replicas = shape.replicas.min(u8::try_from(shape.nodes).unwrap_or(u8::MAX));
        let mut world = World {
            now: Time(0),
            queue: Queue::default(),
            network: Network::new(count),
            clogs: BTreeMap::new(),
            congested: Vec::new(),
            recorded: Vec::new(),
            nodes: ids.iter().enumerate().map(|(at, id)| Node::new(*id, known(at))).collect(),
            numbers: ids.iter().enumerate().map(|(number, id)| (*id, number)).collect(),
            checker: Checker::new(count, replicas, shape.r.min(replicas), shape.w.min(replicas)),
            hash: EventHash::default(),
            timeline: key.map(Timeline::new),
            network_rng: tape.stream(seed, 2),
            disk_rng: tape.stream(seed, 3),
            boot_rng,
            calm: false,
            faults: 0,
            half_steps: 0,
            events: 0,
            scratch: Vec::new(),
            taking: None,
            forwarded: BTreeMap::new(),
            decisions: BTreeMap::new(),
            askings: Askings::new(),
            minds: BTreeMap::new(),
            said: Vec::new(),
            refused: Vec::new(),
            hearsay: Hearsay::default(),
            disturbed: Disturbed::new(count),
            resets: true,
            moved: layout.version(),
            settings: BTreeMap::new(),
            parents: BTreeMap::new(),
            layout,
            shape,
        };
        world.checker.set_limits(world.shape.limits);
        for node in 0..world.nodes.len() {
            world.checker.names(node, world.nodes[node].id);
        }
        world.name_members();
        for node in 0..world.nodes.len() {
            world.start(node);
        }
        world
    }

    /// The time.
    #[must_use]
    pub const fn now(&self) -> Time {
        self.now
    }

    /// What a clock that is right shows.
    #[must_use]
    pub fn wall_ms(&self) -> u64 {
        crate::clock::EPOCH_MS + self.now.0 / 1_000_000
    }

    /// How many nodes there are.
    #[must_use]
    pub const fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// The judge.
    #[must_use]
    pub const fn checker(&self) -> &Checker {
        &self.checker
    }

    /// The hash over all that happened so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash.value()
    }

    /// How many faults were injected so far; lost, doubled and late messages count one each.
    #[must_use]
    pub const fn faults(&self) -> u64 {
        self.faults
    }

    /// How many processes were killed in the midst of a step so far.
    #[must_use]
    pub const fn half_steps(&self) -> u64 {
        self.half_steps
    }

    /// How many events were handled so far.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// Takes the timeline of the key that is traced.
    pub fn into_timeline(self) -> Option<Timeline> {
        self.timeline
    }

    /// The timeline of the key that is traced.
    #[must_use]
    pub const fn timeline(&self) -> Option<&Timeline> {
        self.timeline.as_ref()
    }

    /// How a node's engine is doing, if it runs.
    #[must_use]
    pub fn status(&self, node: usize) -> Option<Status> {
        let host = self.nodes[node].host.as_ref()?;
        Some(host.engine().status(gramme_quorum::Instant::default()))
    }

    /// How many hints a node keeps, if it runs.
    #[must_use]
    pub fn hints(&self, node: usize) -> u64 {
        self.nodes[node].host.as_ref().map_or(0, |host| host.hints())
    }

    /// How many objects were sent on their way to a node by those who kept hints for it, and of how many bytes.
    #[must_use]
    pub fn handed_over(&self, node: usize) -> (u64, u64) {
        self.nodes[node].handed_over
    }

    /// Whether everything is mended and clients wait: what is asked for meanwhile is read, and nothing is acknowledged.
    #[must_use]
    pub const fn is_calm(&self) -> bool {
        self.calm
    }

    /// A storm begins, or is over.
    pub fn set_calm(&mut self, calm: bool) {
        self.calm = calm;
        self.note(if calm { "the storm is over" } else { "a storm begins" });
    }

    /// A key's owners, by number, in the order of the preference list.
    #[must_use]
    pub fn owners(&self, key: &[u8]) -> Vec<usize> {
        let partition = self.layout.partition_of(Slot::of(key));
        self.layout.owners(partition).map(|id| self.numbers[&id]).collect()
    }

    /// The nodes that do not own a key, in the order in which they stand in.
    #[must_use]
    pub fn fallbacks(&self, key: &[u8]) -> Vec<usize> {
        let partition = self.layout.partition_of(Slot::of(key));
        let owners = self.owners(key);
        let all = self.layout.preference(partition).map(|id| self.numbers[&id]);
        all.filter(|node| !owners.contains(node)).collect()
    }

    /// Whether a node runs.
    #[must_use]
    pub fn is_up(&self, node: usize) -> bool {
        self.nodes[node].host.is_some()
    }

    /// Whether a node runs, and every other one is connected to it, and nothing keeps them from hearing of each other.
    fn is_reachable(&self, node: usize) -> bool {
        let reaches = |other: usize| {
            self.network.believes(node, other)
                && self.network.believes(other, node)
                && self.nodes[other].paused_until <= self.now
                && !self.clogs.contains_key(&(other, node))
                && !self.clogs.contains_key(&(node, other))
        };
        let others = self.members().into_iter().filter(|other| *other != node && !self.nodes[*other].gone);
        self.nodes[node].paused_until <= self.now && others.into_iter().all(reaches)
    }

    // Time.

    /// Lets time pass until something concerns the driver, or until `until`.
    pub fn next(&mut self, until: Time) -> Option<Happening> {
        while self.checker.violation().is_none() {
            let Some((at, event)) = self.queue.pop(until) else {
                self.now = self.now.max(until);
                self.checker.check_deadlines(self.now);
                return None;
            };
            debug_assert!(at >= self.now, "time runs forward");
            self.now = at;
            self.events += 1;
            if let Some(happening) = self.happen(event) {
                return Some(happening);
            }
        }
        None
    }

    fn happen(&mut self, event: Event) -> Option<Happening> {
        // A stopped process sees nothing until it goes on.
        let concerned = match &event {
            Event::Request { node, .. }
            | Event::Deliver { to: node, .. }
            | Event::Tick { node }
            | Event::Sync { node, .. }
            | Event::Fetched { node, .. }
            | Event::ReadAhead { node, .. }
            | Event::Maintain { node }
            | Event::Saved { node, .. }
            | Event::Order { node, .. }
            | Event::Drain { from: node, .. }
            | Event::HangUp { node, .. }
            | Event::Probe { node, .. } => Some(*node),
            Event::Told { .. } | Event::Answer { .. } | Event::Restart { .. } | Event::Alarm(_) => None,
        };
        if let Some(node) = concerned
            && self.nodes[node].paused_until > self.now
        {
            let until = self.nodes[node].paused_until;
            if matches!(event, Event::Tick { .. }) {
                self.nodes[node].timer = Some(until);
            }
            self.queue.push(until, event);
            return None;
        }
        match event {
            Event::Alarm(name) => {
                self.checker.check_deadlines(self.now);
                return Some(Happening::Alarm(name));
            }
            Event::Answer { id, answer } => return Some(self.answer(id, answer)),
            Event::Request { node, id } => {
                // With its connection it may have gone the way of the process.
                if !self.nodes[node].expected.remove(&id) {
                    return None;
                }
                if self.is_up(node) {
                    self.hash.event(b'Q', [self.now.0, node as u64, id.0], &[]);
                    self.nodes[node].requests.insert(id);
                    self.take(node, id);
                } else {
                    return Some(self.answer(id, Answer::Refused));
                }
            }
            Event::Deliver { from, to, run, bytes } => self.deliver(from, to, run, &bytes),
            Event::Tick { node } => {
                if self.nodes[node].timer == Some(self.now) {
                    self.nodes[node].timer = None;
                    self.hash.event(b'T', [self.now.0, node as u64, 0], &[]);
                    self.handle(node, Input::Tick);
                }
            }
            Event::Sync { node, run } => self.finish_sync(node, run),
            Event::Fetched { node, run, id, read } => self.finish_fetch(node, run, id, read),
            Event::ReadAhead { node, run, list } => self.finish_list(node, run, list),
            Event::Probe { node, peer } => self.probe(node, peer),
            Event::Drain { from, to } => self.drain(from, to),
            Event::HangUp { node, peer } => self.end_connection(node, peer),
            Event::Maintain { node } => self.maintain(node),
            Event::Order { node, run, op } => {
                if self.nodes[node].runs == run {
                    self.cluster_op(node, op);
                }
            }
            Event::Saved { node, run, done } => self.finish_save(node, run, done),
            Event::Told { node, run, again } => {
                // Whoever cuts it off from the others hides it from them.
                if self.nodes[node].runs == run && self.is_up(node) {
                    let reachable = self.is_reachable(node);
                    if reachable && again {
                        self.check_told(node);
                    } else if !again {
                        if reachable {
                            self.checker.warned(node);
                        }
                        self.queue.push(self.now + TOLD, Event::Told { node, run, again: reachable });
                    }
                }
            }
            Event::Restart { node } => {
                if !self.is_up(node) && !self.nodes[node].gone {
                    self.start(node);
                }
            }
        }
        None
    }

    fn fault(&mut self, what: &str) {
        self.faults += 1;
        self.note(what);
    }

    fn note(&mut self, what: &str) {
        self.mark(Mark::Note, what);
    }

    fn mark(&mut self, mark: Mark, what: &str) {
        if let Some(timeline) = &mut self.timeline {
            timeline.mark(self.now, mark, what);
        }
    }
}
