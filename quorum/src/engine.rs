//! The engine: composition and routing only. Each input goes to the part that knows what it means.

use crate::anti_entropy::{AntiEntropy, SumsFor, SumsId};
use crate::config::Config;
use crate::coordinator::request::Forward;
use crate::coordinator::write::{Request, Write};
use crate::coordinator::{Plan, read::Read};
use crate::failure_detector::FailureDetector;
use crate::handoff::{Forgetting, Handoff, hint_place};
use crate::input::{Input, ListId, LoadId, Output, Place};
use crate::journal::{Durable, Outbox};
use crate::message::{CallId, Copy, Message, Refusal, Want};
use crate::object;
use crate::peers::{Peer, Recent};
use crate::pull::{Budget, Listing, Pull, PullId};
use crate::recovery::Recovery;
use crate::replica::{self, Event, Held, Merge, Reader, Replica, Source, Task, Waiting};
use crate::status::{PeerStatus, Status};
use crate::time::{Instant, Now};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use bytes::Bytes;
use gramme_ring::{Layout, LayoutVersion, NodeId, Slot};
use gramme_vclock::{Hlc, Stamp};

/// Damaged keys being healed at one time.
const MAX_HEALING: usize = 1024;

/// What is due at a time. A timer that comes late, for something long done, does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    WritePatience(CallId),
    WriteDeadline(CallId),
    ReadPatience(CallId),
    ReadDeadline(CallId),
    Forward(CallId),
    Handoff(NodeId),
    Held,
    Heartbeat,
    Exchange,
    Recovery,
    /// There is something left of this second's budget.
    Pulls,
    /// Write this run's actor again: the disk refused it.
    Actor,
}

/// One node's share of the replication: hand it inputs, perform its outputs.
///
/// Single-threaded and without clocks, randomness or I/O of its own: the same inputs give the same outputs,
/// bit for bit.
#[derive(Debug)]
pub struct Engine {
    pub(crate) config: Config,
    pub(crate) layout: Layout,
    pub(crate) out: Outbox,
    pub(crate) replica: Replica,
    pub(crate) writes: BTreeMap<CallId, Write>,
    pub(crate) reads: BTreeMap<CallId, Read>,
    pub(crate) forwards: BTreeMap<CallId, Forward>,
    /// Writes that wait until replicas take messages again, oldest first.
    pub(crate) held: VecDeque<Request>,
    pub(crate) held_bytes: usize,
    pub(crate) timers: BTreeSet<(Instant, Timer)>,
    pub(crate) peers: BTreeMap<NodeId, Peer>,
    pub(crate) handoffs: BTreeMap<NodeId, Handoff>,
    pub(crate) forgetting: BTreeMap<Bytes, Forgetting>,
    pub(crate) hint_loads: BTreeMap<LoadId, Bytes>,
    pub(crate) healing: BTreeSet<Bytes>,
    pub(crate) pulls: BTreeMap<PullId, Pull>,
    pub(crate) pull_calls: BTreeMap<CallId, PullId>,
    pub(crate) listings: BTreeMap<ListId, Listing>,
    pub(crate) recovery: Option<Recovery>,
    pub(crate) anti_entropy: AntiEntropy,
    pub(crate) sums: BTreeMap<SumsId, SumsFor>,
    pub(crate) budget: Budget,
    /// This run's actor is durable: dots may be minted.
    pub(crate) ready: bool,
    /// Requests taken and not answered yet.
    pub(crate) open: usize,
    pub(crate) repairs: u64,
    pub(crate) hints_kept: u64,
    pub(crate) hints_handed: u64,
}

impl Engine {
    /// An engine that follows `layout`. Its first output stores this run's actor; until that is durable,
    /// writes are refused (see [`Status::ready`]).
    ///
    /// # Panics
    /// If R or W is zero, or a limit is.
    #[must_use]
    pub fn new(config: Config, layout: Layout, now: Now) -> Engine {
        assert!(config.r >= 1 && config.w >= 1, "R and W are at least 1");
        let limits = config.limits;
        assert!(limits.siblings > 0 && limits.requests > 0 && limits.local > 0 && limits.handoff > 0);
        let detector = FailureDetector::new(config.timing.heartbeat, now.instant);
        let others: Vec<NodeId> =
            layout.members().iter().map(|m| m.id).filter(|id| *id != config.node).collect();
        let peer = |_| Peer {
            connected: false,
            suspected: false,
            congested: false,
            detector: detector.clone(),
            forwarded: Recent::default(),
        };
        let clock = Hlc::new(Stamp::ZERO);
        let mut engine = Engine {
            out: Outbox::new(config.actor.0),
            replica: Replica::new(config.actor, config.digest_key, limits, clock, others.is_empty()),
            writes: BTreeMap::new(),
            reads: BTreeMap::new(),
            forwards: BTreeMap::new(),
            held: VecDeque::new(),
            held_bytes: 0,
            timers: BTreeSet::new(),
            peers: others.iter().map(|id| (*id, peer(*id))).collect(),
            handoffs: others.iter().map(|id| (*id, Handoff::unknown())).collect(),
            forgetting: BTreeMap::new(),
            hint_loads: BTreeMap::new(),
            healing: BTreeSet::new(),
            pulls: BTreeMap::new(),
            pull_calls: BTreeMap::new(),
            listings: BTreeMap::new(),
            recovery: None,
            anti_entropy: AntiEntropy::default(),
            sums: BTreeMap::new(),
            budget: Budget::new(now.instant, config.limits.repair),
            ready: false,
            open: 0,
            repairs: 0,
            hints_kept: 0,
            hints_handed: 0,
            config,
            layout,
        };
        engine.store_actor();
        engine.start_recovery(now);
        engine.timers.insert((now.instant + engine.config.timing.heartbeat, Timer::Heartbeat));
        engine.timers.insert((now.instant + engine.config.timing.exchange, Timer::Exchange));
        engine
    }

    /// Takes one input. All outputs must have been polled before.
    ///
    /// # Panics
    /// If they have not.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.out.assert_drained(&input);
        self.fire_timers(now);
        match input {
            Input::Client(request, op) => self.client(now, request, op),
            Input::Peer(from, message) => self.peer(now, from, message),
            Input::Connected(node) => self.connected(now, node),
            Input::Disconnected(node) => self.disconnected(now, node),
            Input::Congested(node, congested) => self.congestion(now, node, congested),
            Input::Loaded(id, loaded) => {
                if !self.hint_loaded(id, &loaded)
                    && let Some(events) = self.replica.loaded(&mut self.out, now.wall_ms, id, &loaded)
                {
                    self.events(now, events);
                }
            }
            Input::Listed(id, page) => {
                if !self.listed_for(id, &page) {
                    self.hints_listed(now, id, page);
                }
            }
            Input::Summed(id, sums) => self.summed(now, id, sums),
            Input::AppendFailed(append) => {
                for waiting in self.replica.append_failed(append) {
                    self.not_stored(now, waiting, false);
                }
            }
            Input::Synced(through) => {
                for done in self.replica.synced(through) {
                    self.stored(now, done);
                }
            }
            Input::SyncFailed => {
                for waiting in self.replica.journal.sync_failed() {
                    self.not_stored(now, waiting, true);
                }
            }
            Input::Tick => {}
        }
    }

    /// The next thing to do, until `None`.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.poll()
    }

    /// When to hand in [`Input::Tick`] at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The layout in force.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The key's owners and, after them, every other member, each with whether it is an owner and alive.
    #[must_use]
    pub fn preference(&self, key: &[u8]) -> Vec<(NodeId, bool, bool)> {
        let partition = self.layout.partition_of(Slot::of(key));
        let owners = usize::from(self.replicas());
        let list = self.layout.preference(partition);
        list.enumerate().map(|(rank, node)| (node, rank < owners, self.is_alive(node))).collect()
    }

    /// Who coordinates requests for a slot's keys, in order of preference: its owners that are alive, then those who
    /// stand in for the others. Every other node forwards.
    #[must_use]
    pub fn coordinators(&self, slot: Slot) -> Vec<NodeId> {
        self.plan_of(slot).targets.into_iter().map(|target| target.node).collect()
    }

    /// Whether enough nodes are alive for R and W, as they are for requests that don't say.
    #[must_use]
    pub fn can_meet_quorums(&self) -> bool {
        let alive = self.layout.members().iter().filter(|member| self.is_alive(member.id)).count();
        alive >= usize::from(self.config.r.max(self.config.w).min(self.replicas()))
    }

    /// The slots in which this node keeps hints, each once.
    pub fn hint_places(&self) -> impl Iterator<Item = Place> {
        self.peers.keys().map(|id| hint_place(*id)).collect::<BTreeSet<_>>().into_iter()
    }

    /// How the engine is doing.
    #[must_use]
    pub fn status(&self, now: Instant) -> Status {
        let peer = |(id, peer): (&NodeId, &Peer)| PeerStatus {
            id: *id,
            connected: peer.connected,
            alive: self.is_alive(*id),
            phi: peer.detector.phi(now),
            hints_pending: self.handoffs.get(id).is_some_and(Handoff::is_pending),
        };
        Status {
            ready: self.ready,
            writable: self.replica.journal.is_writable(),
            incomplete_partitions: self.incomplete_partitions(),
            requests: self.open,
            local: self.replica.tasks(),
            timers: self.timers.len(),
            repairs: self.repairs,
            hints_kept: self.hints_kept,
            hints_handed: self.hints_handed,
            exchanges_equal: self.anti_entropy.equal,
            slots_pulled: self.anti_entropy.slots,
            peers: self.peers.iter().map(peer).collect(),
        }
    }

    /// Copies per key: N, or all members where there are fewer.
    pub(crate) fn replicas(&self) -> u8 {
        let members = u8::try_from(self.layout.members().len()).unwrap_or(u8::MAX);
        self.layout.replicas().min(members)
    }

    pub(crate) fn is_alive(&self, node: NodeId) -> bool {
        node == self.config.node || self.peers.get(&node).is_some_and(|p| p.connected && !p.suspected)
    }

    pub(crate) fn plan(&self, key: &[u8]) -> Plan {
        self.plan_of(Slot::of(key))
    }

    fn plan_of(&self, slot: Slot) -> Plan {
        let partition = self.layout.partition_of(slot);
        let owners = usize::from(self.replicas());
        Plan::new(owners, self.layout.preference(partition), |node| self.is_alive(node))
    }

    /// The same for a write, with those for absent to whom nothing more should be sent.
    pub(crate) fn write_plan(&self, key: &[u8]) -> Plan {
        let partition = self.layout.partition_of(Slot::of(key));
        let owners = usize::from(self.replicas());
        let takes = |node| self.is_alive(node) && !self.is_congested(node);
        Plan::new(owners, self.layout.preference(partition), takes)
    }

    fn peer(&mut self, now: Now, from: NodeId, message: Message) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.detector.heard(now.instant);
        // A forwarded request that the network repeats is not done twice.
        if let Message::Forward { call, .. } = &message
            && !peer.forwarded.insert(*call)
        {
            return;
        }
        if core::mem::take(&mut peer.suspected) {
            self.start_handoff(now, from);
        }
        // What asks for much more than it says waits for better times.
        if self.is_congested(from)
            && let Message::Read { call, want: Want::Object, .. }
            | Message::Forward { call, .. }
            | Message::List { call, .. } = message
        {
            return self.out.send(from, Message::Refused { call, why: Refusal::Overloaded });
        }
        match message {
            Message::Heartbeat => {}
            Message::Write { call, layout, purpose: _, key, object, hint, outranked_by } => {
                if let Err(why) = self.check_call(layout, &key) {
                    return self.out.send(from, Message::Refused { call, why });
                }
                let Ok(object) = object::decode(&object) else {
                    return self.out.send(from, Message::Refused { call, why: Refusal::Malformed });
                };
                if let Some(owner) = hint {
                    // Nobody stands in for this node here, nor for a stranger.
                    if !self.peers.contains_key(&owner) {
                        return self.out.send(from, Message::Refused { call, why: Refusal::Malformed });
                    }
                    self.forgetting.remove(&key);
                }
                let source = Source::Peer(from, call);
                let merge = Merge { source, object, outranked_by, hint, heals: false };
                self.replica.start(&mut self.out, &key, Task::Merge(merge));
            }
            Message::Read { call, layout, key, want } => match self.check_call(layout, &key) {
                Err(why) => self.out.send(from, Message::Refused { call, why }),
                Ok(()) => {
                    self.replica.start(&mut self.out, &key, Task::Read(Reader::Peer(from, call, want)));
                }
            },
            Message::Written { call, outranking } => {
                if !self.handoff_acknowledged(now, call, from) {
                    let outranking = outranking.and_then(|bytes| object::decode(&bytes).ok());
                    self.write_acknowledged(now, call, from, outranking);
                }
            }
            Message::Copy { call, copy, incomplete } => {
                if !self.pull_copied(now, call, from, &copy) {
                    self.read_copied(now, call, from, copy, incomplete);
                }
            }
            Message::List { call, layout, slots, cursor } => {
                if self.same_layout(from, call, layout) {
                    self.list_for(from, call, slots, cursor);
                }
            }
            Message::Sums { call, layout, of } => {
                if self.same_layout(from, call, layout) {
                    self.sums_for(from, call, &of);
                }
            }
            Message::Summed { call, sums } => self.peer_summed(now, call, from, sums),
            Message::Listed { call, keys, next, complete } => {
                self.pull_listed(now, call, from, keys, next, complete);
            }
            Message::Refused { call, why } => {
                if self.forwards.get(&call).is_some_and(|f| f.to == from) {
                    self.forward_elsewhere(call);
                } else if !self.handoff_refused(now, call, from)
                    && !self.pull_refused(now, call, from)
                    && !self.exchange_refused(call, from)
                {
                    self.write_refused(now, call, from, why);
                    self.read_failed(now, call, from);
                }
            }
            Message::Forward { call, op } => self.forwarded(now, from, call, op),
            Message::Forwarded { call, reply } => self.forward_answered(call, from, reply),
        }
    }

    /// Whether the sender goes by the same layout; if not, its call is refused.
    fn same_layout(&mut self, from: NodeId, call: CallId, layout: LayoutVersion) -> bool {
        let same = layout == self.layout.version();
        if !same {
            let why = Refusal::Layout(self.layout.version());
            self.out.send(from, Message::Refused { call, why });
        }
        same
    }

    fn check_call(&self, layout: LayoutVersion, key: &Bytes) -> Result<(), Refusal> {
        if layout != self.layout.version() {
            Err(Refusal::Layout(self.layout.version()))
        } else if key.is_empty() || key.len() > crate::MAX_KEY {
            Err(Refusal::Malformed)
        } else if self.replica.is_full() {
            Err(Refusal::Overloaded)
        } else {
            Ok(())
        }
    }

    // Time.

    fn fire_timers(&mut self, now: Now) {
        while let Some((at, timer)) = self.timers.first().copied()
            && at <= now.instant
        {
            self.timers.pop_first();
            match timer {
                Timer::WritePatience(call) => self.write_patience(now, call),
                Timer::WriteDeadline(call) => self.write_deadline(now, call),
                Timer::ReadPatience(call) => self.read_patience(now, call),
                Timer::ReadDeadline(call) => self.read_deadline(call),
                Timer::Forward(call) => self.forward_lost(call, true),
                Timer::Handoff(owner) => self.handoff_timer(now, owner),
                Timer::Held => self.expire_held(now),
                Timer::Heartbeat => self.heartbeat(now),
                Timer::Exchange => self.exchange_timer(now),
                Timer::Recovery => self.recovery_timer(now),
                Timer::Pulls => self.pump_waiting(now),
                Timer::Actor => self.store_actor(),
            }
        }
    }

    // The local copies.

    fn store_actor(&mut self) {
        let value = Bytes::copy_from_slice(&self.config.actor.0.to_be_bytes());
        let append = self.out.append(replica::RUN, Bytes::from_static(b"actor"), Some((value, 0)));
        self.replica.journal.hold(append, Waiting::Actor);
    }

    fn events(&mut self, now: Now, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Read(key, reader, held) => self.held(now, key, reader, held),
                Event::Minted(minted) => self.write_minted(now, *minted),
                Event::MintRefused(call, error) => self.write_refused_here(call, error),
                Event::MergeRefused(Source::Peer(to, call), why) => {
                    self.out.send(to, Message::Refused { call, why });
                }
                Event::MergeRefused(Source::Pull(pull), _) => self.pull_merged(now, pull, false),
                Event::MergeRefused(Source::Repair, _) => {}
                Event::Durable(done) => self.stored(now, done),
                Event::Hinted(owner) => {
                    self.hints_kept += 1;
                    self.expect_handoff(now, owner);
                }
                Event::Settled { key, owner, digest, current } => {
                    self.handoff_settled(now, key, owner, digest, current);
                }
                Event::Damaged(key) => {
                    if self.healing.len() < MAX_HEALING && self.healing.insert(key.clone()) {
                        self.start_heal(now, key);
                    }
                }
            }
        }
    }

    fn held(&mut self, now: Now, key: Bytes, reader: Reader, held: Held) {
        match reader {
            Reader::Coordinator(call) => self.read_held(now, call, held),
            Reader::Handoff(owner) => self.handoff_read(now, owner, key, held),
            Reader::Pull(pull, digest) => self.pull_read(now, pull, digest, key, &held),
            Reader::Peer(to, call, want) => {
                let incomplete = self.is_incomplete(Slot::of(&key));
                let copy = match (held, want) {
                    (Held::Unknown, _) => {
                        return self.out.send(to, Message::Refused { call, why: Refusal::Unknown });
                    }
                    (Held::Absent, _) => Copy::Absent,
                    (Held::Object { encoded, .. }, Want::Object) => Copy::Object(encoded),
                    (Held::Object { digest, .. }, Want::Digest) => Copy::Digest(digest),
                };
                self.out.send(to, Message::Copy { call, copy, incomplete });
            }
        }
    }

    /// The only place from which an acknowledgement leaves.
    fn stored(&mut self, now: Now, done: Durable<Waiting>) {
        match done.into_inner() {
            Waiting::Minted(call) => self.write_acknowledged(now, call, self.config.node, None),
            Waiting::Merged { to, call, outranking } => {
                self.out.send(to, Message::Written { call, outranking });
            }
            Waiting::Actor => self.ready = true,
            Waiting::Pulled(pull) => self.pull_merged(now, pull, true),
            Waiting::HintGone(_) | Waiting::Nothing => {}
        }
    }

    /// An append failed, or (`lost`) a sync did, after which the record may or may not be there.
    fn not_stored(&mut self, now: Now, waiting: Waiting, lost: bool) {
        match waiting {
            Waiting::Minted(call) => self.write_failed(now, call, self.config.node, lost),
            // After a failed sync nothing certain can be said, so nothing is said.
            Waiting::Merged { to, call, .. } if !lost => {
                self.out.send(to, Message::Refused { call, why: Refusal::Unwritable });
            }
            Waiting::Actor if !lost => {
                self.timers.insert((now.instant + self.config.timing.retry, Timer::Actor));
            }
            // It is handed over again, and removed when there is room.
            Waiting::HintGone(owner) => self.expect_handoff(now, owner),
            Waiting::Pulled(pull) => self.pull_merged(now, pull, false),
            Waiting::Merged { .. } | Waiting::Actor | Waiting::Nothing => {}
        }
    }
}
