//! A cluster in virtual time: real engines over real stores, joined by a simulated network.
//!
//! The world moves only when told to, event by event, and hands back what concerns whoever drives it: answers to
//! clients and alarms it asked for. Everything else, messages, syncs, timers, connections, happens inside.

mod control;
mod judging;
mod membership;

use crate::checker::{Checker, Invariant, OpId};
use crate::event_hash::EventHash;
use crate::network::Network;
use crate::node::{Node, Storage};
use crate::queue::Queue;
use crate::rng::Rng;
use crate::time::Time;
use crate::timeline::Timeline;
use bytes::Bytes;
use core::time::Duration;
use gramme_node::host::{Effect, Host};
use gramme_quorum::message::{CallId, Message};
use gramme_quorum::{Input, Output, Reply, RequestId, Timing, wire};
use gramme_ring::{ClusterId, Layout, Member, Membership, NodeId, Slot};
pub use membership::Alteration;
use std::collections::BTreeMap;

/// The first of the engine's slots for hints.
pub const HINTS: u16 = 0x8000;
/// A node's answer is late if it comes this long after the request's own limit: timers ring on time, but messages travel.
const GRACE: Duration = Duration::from_secs(1);

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
    /// Nodes beyond those, which are no members until somebody makes them.
    pub spares: usize,
}

impl Shape {
    /// (3, 2, 2) on so many nodes.
    #[must_use]
    pub fn new(nodes: usize) -> Shape {
        let timing = Timing { exchange: Duration::from_secs(2), ..Timing::default() };
        Shape { nodes, replicas: 3, r: 2, w: 2, segment_bytes: 256 << 10, timing, spares: 0 }
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
        bytes: Bytes,
    },
    Tick {
        node: usize,
    },
    Sync {
        node: usize,
        run: u64,
    },
    /// Look whether two nodes can be connected, and tell the first.
    Probe {
        node: usize,
        peer: usize,
    },
    Maintain {
        node: usize,
    },
    Restart {
        node: usize,
    },
    Alarm(u64),
}

/// A whole cluster, its network and its judge.
#[derive(Debug)]
pub struct World {
    now: Time,
    queue: Queue<Event>,
    shape: Shape,
    /// The newest layout that anybody has committed to.
    layout: Layout,
    network: Network,
    nodes: Vec<Node>,
    numbers: BTreeMap<NodeId, usize>,
    checker: Checker,
    hash: EventHash,
    timeline: Option<Timeline>,
    network_rng: Rng,
    disk_rng: Rng,
    boot_rng: Rng,
    faults: u64,
    events: u64,
    scratch: Vec<u8>,
    /// How long a sync takes at the most.
    sync_time: Duration,
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
            nodes: ids.iter().enumerate().map(|(at, id)| Node::new(*id, known(at))).collect(),
            numbers: ids.iter().enumerate().map(|(number, id)| (*id, number)).collect(),
            checker: Checker::new(count, replicas, shape.w.min(replicas)),
            hash: EventHash::default(),
            timeline: key.map(Timeline::new),
            network_rng: Rng::stream(seed, 2),
            disk_rng: Rng::stream(seed, 3),
            boot_rng,
            faults: 0,
            events: 0,
            scratch: Vec::new(),
            sync_time: Duration::from_millis(1),
            resets: true,
            layout,
            shape,
        };
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

    /// How many events were handled so far.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// The timeline of the key that is traced.
    #[must_use]
    pub const fn timeline(&self) -> Option<&Timeline> {
        self.timeline.as_ref()
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
            | Event::Maintain { node }
            | Event::Probe { node, .. } => Some(*node),
            Event::Answer { .. } | Event::Restart { .. } | Event::Alarm(_) => None,
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
                if self.is_up(node) {
                    self.hash.event(b'Q', [self.now.0, node as u64, id.0], &[]);
                    self.nodes[node].requests.insert(id);
                    let op = self.checker.request(id).op.clone();
                    self.handle(node, Input::Client(RequestId(id.0), op));
                } else {
                    return Some(self.answer(id, Answer::Refused));
                }
            }
            Event::Deliver { from, to, bytes } => self.deliver(from, to, &bytes),
            Event::Tick { node } => {
                if self.nodes[node].timer == Some(self.now) {
                    self.nodes[node].timer = None;
                    self.hash.event(b'T', [self.now.0, node as u64, 0], &[]);
                    self.handle(node, Input::Tick);
                }
            }
            Event::Sync { node, run } => self.finish_sync(node, run),
            Event::Probe { node, peer } => self.probe(node, peer),
            Event::Maintain { node } => self.maintain(node),
            Event::Restart { node } => {
                if !self.is_up(node) && !self.nodes[node].gone {
                    self.start(node);
                }
            }
        }
        None
    }

    fn answer(&mut self, id: OpId, answer: Answer) -> Happening {
        match &answer {
            Answer::Reply(reply) => self.checker.replied(self.now, id, reply),
            Answer::Refused => self.checker.refused(self.now, id),
            Answer::Lost => self.checker.lost(self.now, id),
        }
        if let Some(timeline) = &mut self.timeline {
            let reply = match &answer {
                Answer::Reply(reply) => Some(reply),
                Answer::Refused | Answer::Lost => None,
            };
            let key = self.checker.request(id).op.key();
            timeline.answered(self.now, &id.to_string(), key, reply);
        }
        Happening::Answered(id, answer)
    }

    // Nodes.

    fn start(&mut self, node: usize) {
        let recovering = self.nodes[node].runs > 0;
        let actor = match self.nodes[node].open(&self.shape, self.now, &mut self.boot_rng) {
            Ok(actor) => actor,
            // Its power failed again while it recovered.
            Err(_) if self.nodes[node].disk.has_failed() => {
                let after = self.nodes[node].disk.armed.take().unwrap_or_default();
                self.fault(&format!("node {node} goes down while it starts"));
                self.nodes[node].disk.inner().crash(self.disk_rng.bits());
                self.nodes[node].kept_all = false;
                return self.restart(node, after);
            }
            // With its disk failing it can't start; whoever supervises it tries again. A full disk is no reason, unless
            // there is no store yet.
            Err(_) if self.nodes[node].disk.fails || self.nodes[node].disk.blank => {
                self.note(&format!("node {node} does not start, for its disk fails"));
                self.nodes[node].disk.inner().kill();
                return self.restart(node, Duration::from_secs(1));
            }
            Err(error) => {
                let what = format!("node {node} does not open: {error}");
                return self.checker.fail(self.now, Invariant::Recovery, None, what);
            }
        };
        self.note(&format!("node {node} starts its run {}", self.nodes[node].runs));
        self.hash.event(b'S', [self.now.0, node as u64, actor.0], &[]);
        self.checker.opened(self.now, node, actor);
        if let Some(timeline) = &mut self.timeline {
            timeline.named(actor, node, self.nodes[node].runs);
        }
        if self.lost_power(node) {
            return;
        }
        if recovering {
            self.check_recovered(node);
        }
        self.after(node);
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            self.network.tell(node, peer, false);
            for (at, of) in [(node, peer), (peer, node)] {
                let when = self.network_rng.soon(self.now, Duration::from_millis(50));
                self.queue.push(when, Event::Probe { node: at, peer: of });
            }
        }
        let when = self.disk_rng.soon(self.now, Duration::from_millis(500));
        self.queue.push(when, Event::Maintain { node });
    }

    fn handle(&mut self, node: usize, input: Input) {
        let now = self.nodes[node].clock.now(self.now);
        let Some(host) = &mut self.nodes[node].host else { return };
        host.handle(now, input);
        self.after(node);
    }

    /// Looks at what a node did, and carries it out.
    fn after(&mut self, node: usize) {
        let outputs = std::mem::take(&mut *self.nodes[node].outputs.borrow_mut());
        if !outputs.is_empty() {
            self.observe(node, &outputs);
        }
        if self.lost_power(node) {
            return;
        }
        let clock = self.nodes[node].clock.now(self.now);
        loop {
            let Some(host) = &mut self.nodes[node].host else { return };
            let Some(effect) = host.poll() else { break };
            match effect {
                Effect::Send(to, message) => self.send(node, to, &message),
                Effect::Reply(id, reply) => self.reply(node, OpId(id.0), reply),
                Effect::Save(membership) => {
                    host.saved(clock, true);
                    self.saved(node, *membership);
                    return self.after(node);
                }
                Effect::Known(..) | Effect::Cluster(..) => {}
                Effect::Incomplete => {
                    self.nodes[node].incomplete = true;
                    self.note(&format!("node {node} is told that its store is an old one"));
                }
                Effect::Recovered => {
                    self.nodes[node].incomplete = false;
                    self.note(&format!("node {node} has recovered all that it may have lost"));
                }
                Effect::Fetch(id, job) => {
                    host.finish_read(clock, id, job.run());
                    return self.after(node);
                }
            }
        }
        self.begin_sync(node);
        self.set_timer(node);
    }

    fn observe(&mut self, node: usize, outputs: &[Output]) {
        for output in outputs {
            if let Output::Append { place, key, value, .. } = output {
                let value = value.as_ref().map_or(&[][..], |(bytes, _)| bytes);
                self.hash.event(b'A', [self.now.0, node as u64, u64::from(place.0)], key);
                self.hash.event(b'V', [0; 3], value);
            }
            if let Some(timeline) = &mut self.timeline {
                timeline.acted(self.now, node, output);
            }
        }
        self.checker.acted(self.now, node, outputs);
        // What was being written as the power failed may be there later, or not.
        if self.nodes[node].disk.refuses && !self.nodes[node].disk.has_failed() {
            self.check_refused(node, outputs);
        }
    }

    /// With a disk that refuses writes, not every append was performed.
    fn check_refused(&mut self, node: usize, outputs: &[Output]) {
        for output in outputs {
            let (place, keys) = match output {
                Output::Append { place, key, .. } => (place.0, vec![key.clone()]),
                Output::DropSlot { place, .. } => (place.0, self.checker.keys_in(place.0)),
                _ => continue,
            };
            for key in keys {
                if let Ok(found) = self.nodes[node].read(place, &key) {
                    self.checker.append_failed(node, place, &key, found.as_ref());
                }
            }
        }
    }

    fn reply(&mut self, node: usize, id: OpId, reply: Reply) {
        self.checker.answering(self.now, id, &reply);
        self.scratch.clear();
        wire::encode(&Message::Forwarded { call: CallId(0), reply: reply.clone() }, &mut self.scratch);
        self.hash.event(b'R', [self.now.0, node as u64, id.0], &self.scratch);
        if !self.nodes[node].requests.remove(&id) {
            let what = format!("node {node} answers {id}, which does not wait for it");
            return self.checker.fail(self.now, Invariant::RequestsEnd, None, what);
        }
        let at = self.now + self.network_rng.between(Duration::from_micros(20), Duration::from_micros(300));
        self.queue.push(at, Event::Answer { id, answer: Answer::Reply(reply) });
    }

    fn send(&mut self, from: usize, to: NodeId, message: &Message) {
        let Some(to) = self.numbers.get(&to).copied() else { return };
        let arrivals = self.network.send(self.now, from, to, &mut self.network_rng);
        if arrivals[0].is_none() {
            self.faults += u64::from(self.network.believes(from, to));
            return;
        }
        self.scratch.clear();
        wire::encode(message, &mut self.scratch);
        let bytes = Bytes::copy_from_slice(&self.scratch);
        self.faults += u64::from(arrivals[1].is_some());
        for at in arrivals.into_iter().flatten() {
            self.queue.push(at, Event::Deliver { from, to, bytes: bytes.clone() });
        }
    }

    fn deliver(&mut self, from: usize, to: usize, bytes: &Bytes) {
        if !self.is_up(to) || self.network.is_cut(from, to) {
            return;
        }
        self.hash.event(b'D', [self.now.0, from as u64, to as u64], bytes);
        let message = match wire::decode(bytes) {
            Ok(message) => message,
            Err(error) => {
                let what = format!("node {from} sent node {to} what does not decode: {error}");
                return self.checker.fail(self.now, Invariant::NothingInvented, None, what);
            }
        };
        self.checker.delivered(self.now, to, &message);
        if let Some(timeline) = &mut self.timeline {
            timeline.delivered(self.now, from, to, &message);
        }
        let from = self.nodes[from].id;
        self.handle(to, Input::Peer(from, message));
    }

    fn probe(&mut self, node: usize, peer: usize) {
        if !self.is_up(node) {
            return;
        }
        let stands = self.is_up(peer) && self.network.can_connect(node, peer);
        if self.network.tell(node, peer, stands) {
            self.hash.event(b'P', [self.now.0, node as u64, peer as u64], &[u8::from(stands)]);
            let id = self.nodes[peer].id;
            self.handle(node, if stands { Input::Connected(id) } else { Input::Disconnected(id) });
        }
    }

    fn begin_sync(&mut self, node: usize) {
        let early = self.disk_rng.chance(500_000);
        let site = &mut self.nodes[node];
        let Some(job) = site.host.as_mut().and_then(Host::begin_sync) else { return };
        self.checker.sync_begun(node);
        // The bytes may be safe long before anybody is told, or only just.
        site.job = Some(if early { Storage::Synced(job.run()) } else { Storage::Syncing(job) });
        if self.lost_power(node) {
            return;
        }
        let site = &self.nodes[node];
        let at = self.now + self.disk_rng.between(Duration::from_micros(50), self.sync_time);
        let run = site.runs;
        self.queue.push(at, Event::Sync { node, run });
    }

    fn finish_sync(&mut self, node: usize, run: u64) {
        let site = &mut self.nodes[node];
        if site.runs != run || site.host.is_none() {
            return;
        }
        let done = match site.job.take() {
            Some(Storage::Syncing(job)) => job.run(),
            Some(Storage::Synced(done)) => done,
            None => return,
        };
        if self.lost_power(node) {
            return;
        }
        self.hash.event(b'Y', [self.now.0, node as u64, run], &[]);
        let site = &mut self.nodes[node];
        let now = site.clock.now(self.now);
        let Some(host) = &mut site.host else { return };
        host.finish_sync(now, done);
        // A sync that fails ends all writing.
        if host.store().writable() {
            self.checker.sync_done(node);
        }
        self.after(node);
    }

    fn maintain(&mut self, node: usize) {
        let Some(host) = &mut self.nodes[node].host else { return };
        let more = host.maintain(64 << 10);
        self.hash.event(b'M', [self.now.0, node as u64, u64::from(more)], &[]);
        if self.lost_power(node) {
            return;
        }
        let wait = if more { Duration::from_millis(5) } else { Duration::from_millis(500) };
        self.queue.push(self.now + wait, Event::Maintain { node });
    }

    fn set_timer(&mut self, node: usize) {
        let site = &mut self.nodes[node];
        let Some(deadline) = site.host.as_ref().and_then(Host::deadline) else { return };
        let at = site.clock.when(deadline, self.now).max(Time(self.now.0 + 1));
        if site.timer.is_none_or(|set| at < set) {
            site.timer = Some(at);
            self.queue.push(at, Event::Tick { node });
        }
    }

    fn fault(&mut self, what: &str) {
        self.faults += 1;
        self.note(what);
    }

    fn note(&mut self, what: &str) {
        if let Some(timeline) = &mut self.timeline {
            timeline.note(self.now, what);
        }
    }
}
