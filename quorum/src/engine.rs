//! The engine: composition and routing only. Each input goes to the part that knows what it means.

use crate::admission::Admission;
use crate::anti_entropy::{AntiEntropy, SumsFor, SumsId};
use crate::config::Config;
use crate::coordinator::held::HeldWrites;
use crate::coordinator::lingering::Lingering;
use crate::coordinator::open_write::Write;
use crate::coordinator::request::Forward;
use crate::coordinator::{Plan, read::Read};
use crate::handoff::{Forgetting, Handoff};
use crate::input::{AppendId, Input, ListId, LoadId, Output};
use crate::journal::Outbox;
use crate::keyspace::Durability;
use crate::latency::{Pace, Usual};
use crate::listing::{Gathering, Listing};
use crate::local::{Healing, Refused};
use crate::membership::Saving;
use crate::message::{CallId, Message, Purpose, Refusal, Syncing, Want};
use crate::object;
use crate::opening::Opening;
use crate::peers::{Notes, Peer};
use crate::planted::Bug;
use crate::pull::{Budget, Listed, Offer, Pull, PullId};
use crate::recovery::{Missing, Recovery};
use crate::replica::Replica;
use crate::sweep::{Departed, Sweep};
use crate::task::{Merge, Reader, Source, Task};
use crate::time::{Evenness, Instant, Now};
use crate::view::View;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use bytes::Bytes;
use gramme_ring::gossip::{Gossip, GossipError};
use gramme_ring::{Layout, Membership, NodeId, Slot};
use gramme_vclock::{Hlc, Stamp};

/// What is due at a time. A timer that comes late, for something long done, does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    WritePatience(CallId),
    WriteDeadline(CallId),
    ReadHedge(CallId),
    ReadPatience(CallId),
    ReadDeadline(CallId),
    Forward(CallId),
    ForwardPatience(CallId),
    Handoff(NodeId),
    Held,
    Heartbeat,
    Exchange,
    Gossip,
    /// Something may have been appended that nobody waits for.
    Sync,
    Recovery,
    Sweep,
    Rehint,
    /// There is something left of this second's budget.
    Pulls,
    /// Write this run's actor again: the disk refused it.
    Actor,
    /// Something may have waited too long for its record.
    Overdue,
}

/// One node's share of the replication: hand it inputs, perform its outputs.
///
/// Single-threaded and without clocks, randomness or I/O of its own: the same inputs give the same outputs,
/// bit for bit.
#[derive(Debug)]
pub struct Engine {
    pub(crate) config: Config,
    pub(crate) view: View,
    pub(crate) saving: Option<Saving>,
    /// The last change could not be written down: none is before this, but an operator's.
    pub(crate) save_after: Instant,
    pub(crate) opening: Opening,
    pub(crate) out: Outbox,
    pub(crate) replica: Replica,
    pub(crate) writes: BTreeMap<CallId, Write>,
    pub(crate) reads: BTreeMap<CallId, Read>,
    pub(crate) lingering_writes: Lingering,
    pub(crate) lingering_reads: Lingering,
    pub(crate) forwards: BTreeMap<CallId, Forward>,
    /// Writes that wait until replicas take messages again.
    pub(crate) held: HeldWrites,
    pub(crate) held_bytes: usize,
    pub(crate) timers: BTreeSet<(Instant, Timer)>,
    pub(crate) peers: BTreeMap<NodeId, Peer>,
    pub(crate) notes: Notes,
    pub(crate) handoffs: BTreeMap<NodeId, Handoff>,
    pub(crate) forgetting: BTreeMap<Bytes, Forgetting>,
    pub(crate) hint_loads: BTreeMap<LoadId, Bytes>,
    /// Copies that can't be read.
    pub(crate) healing: BTreeMap<Bytes, Healing>,
    pub(crate) refused: Refused,
    pub(crate) evenness: Evenness,
    pub(crate) pulls: BTreeMap<PullId, Pull>,
    pub(crate) pull_calls: BTreeMap<CallId, PullId>,
    pub(crate) listings: BTreeMap<ListId, Listing>,
    pub(crate) gatherings: BTreeMap<ListId, Gathering>,
    pub(crate) offers: VecDeque<Offer>,
    pub(crate) recovery: Recovery,
    pub(crate) sweep: Sweep,
    pub(crate) departed: Option<Departed>,
    /// Hints for nodes that are gone are to be looked for again.
    pub(crate) rehint_armed: bool,
    /// The commit, by its hash, whose partitions this node gets, and the one for which it gives others away.
    pub(crate) gaining: Option<u64>,
    pub(crate) offering: Option<u64>,
    pub(crate) anti_entropy: AntiEntropy,
    pub(crate) sums: BTreeMap<SumsId, SumsFor>,
    pub(crate) budget: Budget,
    /// This run's actor is durable: dots may be minted.
    pub(crate) ready: bool,
    /// The position of the store's log up to which all is durable, as far as it was told.
    pub(crate) durable: u64,
    /// The last append for which a sync was asked, and whether a later one will be asked for in time.
    ordered: AppendId,
    /// What was appended before this node went by the membership that it goes by now.
    pub(crate) adopted: AppendId,
    /// The last record that was asked for before that.
    pub(crate) adopted_load: LoadId,
    sync_armed: bool,
    pub(crate) overdue_armed: bool,
    /// Requests taken and not answered yet.
    pub(crate) open: usize,
    /// Their bytes.
    pub(crate) open_bytes: usize,
    /// Bytes of copies that are to heal others.
    pub(crate) heal_bytes: usize,
    pub(crate) admission: Admission,
    /// How long reads take that are answered.
    pub(crate) usual: Usual,
    /// How long this node's own copies take to be read.
    pub(crate) pace: Pace,
    pub(crate) hedges: u64,
    pub(crate) repairs: u64,
    pub(crate) healed: u64,
    pub(crate) hints_kept: u64,
    pub(crate) hints_refused: u64,
    pub(crate) hints_handed: u64,
}

impl Engine {
    /// An engine that knows this of the cluster: what the last run [saved](Output::Save), what founded the cluster, or
    /// nothing, if it is to join one. Its first output stores this run's actor; until that is durable,
    /// writes are refused (see [`Status::ready`](crate::Status::ready)).
    ///
    /// # Panics
    /// If R or W is zero, or a limit is.
    #[must_use]
    pub fn new(mut config: Config, membership: Membership, now: Now) -> Engine {
        if config.planted.is(Bug::ActorKept) {
            config.actor = gramme_vclock::Actor(config.node.0);
        }
        assert!(config.r >= 1 && config.w >= 1, "R and W are at least 1");
        let limits = config.limits;
        assert!(
            limits.siblings > 0
                && limits.requests > 0
                && limits.request_bytes > 0
                && limits.handoff > 0
                && limits.repair > 0
        );
        assert!(limits.local > 0 && limits.local_bytes > 0);
        let mut gossip = Gossip::new(config.node, config.opening.number(), config.actor.0)
            .expect("an opening's number is in range");
        *gossip.membership_mut() = membership;
        let clock = Hlc::new(Stamp::ZERO);
        let mut engine = Engine {
            out: Outbox::new(config.actor.0, now.instant),
            replica: Replica::new(&config, clock),
            writes: BTreeMap::new(),
            reads: BTreeMap::new(),
            lingering_writes: Lingering::default(),
            lingering_reads: Lingering::default(),
            forwards: BTreeMap::new(),
            held: HeldWrites::new(),
            held_bytes: 0,
            timers: BTreeSet::new(),
            peers: BTreeMap::new(),
            notes: Notes::default(),
            handoffs: BTreeMap::new(),
            forgetting: BTreeMap::new(),
            hint_loads: BTreeMap::new(),
            healing: BTreeMap::new(),
            refused: Refused::default(),
            evenness: Evenness::default(),
            pulls: BTreeMap::new(),
            pull_calls: BTreeMap::new(),
            listings: BTreeMap::new(),
            gatherings: BTreeMap::new(),
            offers: VecDeque::new(),
            recovery: Recovery::default(),
            sweep: Sweep::default(),
            departed: None,
            rehint_armed: false,
            gaining: None,
            offering: None,
            anti_entropy: AntiEntropy::default(),
            sums: BTreeMap::new(),
            budget: Budget::new(now.instant, config.limits.repair),
            ready: false,
            durable: 0,
            ordered: AppendId(0),
            adopted: AppendId(0),
            adopted_load: LoadId(0),
            sync_armed: false,
            overdue_armed: false,
            open: 0,
            open_bytes: 0,
            heal_bytes: 0,
            admission: Admission::new(config.timing.foreground, now.instant),
            usual: Usual::new(),
            pace: Pace::default(),
            hedges: 0,
            repairs: 0,
            healed: 0,
            hints_kept: 0,
            hints_refused: 0,
            hints_handed: 0,
            view: View::new(gossip),
            saving: None,
            save_after: now.instant,
            opening: config.opening,
            config,
        };
        engine.replica.keyspaces.adopt(engine.view.membership());
        engine.store_actor();
        engine.sync_peers(now);
        engine.begin_anew();
        engine.load_notes();
        if engine.config.incomplete {
            engine.lost_all(now, Missing::Lost);
        } else if let Some(when) = engine.config.unsynced
            && !engine.config.planted.is(Bug::UnsyncedIgnored)
        {
            engine.lost_unsynced(now, when);
        }
        let timing = engine.config.timing;
        engine.timers.insert((now.instant + timing.heartbeat, Timer::Heartbeat));
        engine.timers.insert((now.instant + timing.exchange, Timer::Exchange));
        engine.timers.insert((now.instant + timing.gossip, Timer::Gossip));
        engine.layout_changed(now);
        engine.order_sync(now);
        engine
    }

    /// What this node says of itself to all others, where it listens, say; they get it by [`Output::Known`].
    ///
    /// # Errors
    /// [`GossipError::FactsTooLong`] past 2 KiB; nothing was changed then.
    pub fn set_facts(&mut self, facts: Vec<u8>) -> Result<(), GossipError> {
        self.view.gossip.set_facts(facts)
    }

    /// What is known of the cluster: layouts, what is staged, and how far a transition has come.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        self.view.membership()
    }

    /// The nodes to be connected with: members, and those who wish to be.
    pub fn peers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.peers.keys().copied()
    }

    /// What a node said of itself.
    #[must_use]
    pub fn facts(&self, node: NodeId) -> Option<&[u8]> {
        self.view.gossip.record(node).map(|record| &record.facts[..])
    }

    /// Takes one input. All outputs must have been polled before.
    ///
    /// # Panics
    /// If they have not.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.out.assert_drained(&input);
        (self.replica.queues.now, self.out.now) = (now.instant, now.instant);
        self.fire_timers(now);
        match input {
            Input::Client(request, op) => self.client(now, request, op),
            Input::Cluster(id, op) => self.cluster_op(id, op),
            Input::Saved(done) => self.saved(now, done),
            Input::Peer(from, message) => self.peer(now, from, message),
            Input::Connected(node) => self.connected(now, node),
            Input::Disconnected(node) => self.disconnected(now, node),
            Input::Congested(node, congested) => self.congestion(now, node, congested),
            Input::Loaded(id, loaded) => self.loaded(now, id, &loaded),
            Input::Listed(id, page) => self.listed(now, id, page),
            Input::Summed(id, sums) => self.summed(now, id, sums),
            Input::AppendFailed(append) => self.append_failed(now, append),
            Input::Written(through) => {
                for done in self.replica.journal.written(through) {
                    self.stored(now, done);
                }
            }
            Input::Synced(through, position) => self.synced(now, through, position),
            Input::Damaged(place) => self.damaged(now, place),
            Input::SyncFailed => {
                for waiting in self.replica.sync_failed() {
                    if self.config.planted.is(Bug::SyncFailureIgnored) {
                        let done = self.replica.journal.pass(waiting);
                        self.stored(now, done);
                        continue;
                    }
                    self.not_stored(now, waiting, true);
                }
            }
            Input::Tick => {}
        }
        self.advance_transition(now);
        self.order_sync(now);
        self.arm_overdue();
    }

    /// Asks for a sync if somebody waits for it; otherwise sees to it that there is one before long.
    fn order_sync(&mut self, now: Now) {
        if self.replica.journal.take_wanted() {
            self.ordered = self.out.last_append();
            self.out.sync();
        } else if self.ordered < self.out.last_append() && !core::mem::replace(&mut self.sync_armed, true) {
            self.timers.insert((now.instant + self.config.timing.interval, Timer::Sync));
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

    /// The layout that is committed, while a transition is live the one that is entered; `None` while none is known.
    #[must_use]
    pub fn layout(&self) -> Option<&Layout> {
        self.view.membership().layout()
    }

    /// The layout that this node's reads go by: while a transition is live the old one, until all have what they are to own.
    #[must_use]
    pub fn reading(&self) -> Option<&Layout> {
        self.view.reading()
    }

    /// The key's owners, by the layout that reads go by, and after them every other member, each with whether it is an owner and
    /// alive.
    #[must_use]
    pub fn preference(&self, key: &[u8]) -> Vec<(NodeId, bool, bool)> {
        let Some(layout) = self.view.reading() else { return Vec::new() };
        let owners = usize::from(self.replicas());
        let list = layout.preference(layout.partition_of(Slot::of(key)));
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
        let members = self.view.reading().map_or(&[][..], Layout::members);
        let alive = members.iter().filter(|member| self.is_alive(member.id)).count();
        !members.is_empty() && alive >= usize::from(self.most_needed())
    }

    /// How much of what it might do at the most background work is to get now, in percent: for the caller's own, such as its
    /// store's compaction.
    pub fn background(&mut self, now: Instant) -> u8 {
        self.admission.percent(now)
    }

    /// The larger of R and W, for keys without a keyspace.
    fn most_needed(&self) -> u8 {
        let rules = self.replica.keyspaces.others();
        rules.r(self.replicas()).max(rules.w(self.replicas()))
    }

    pub(crate) fn is_alive(&self, node: NodeId) -> bool {
        node == self.config.node || self.peers.get(&node).is_some_and(|p| p.connected && !p.suspected)
    }

    /// Whom to ask for a key, by the layout that reads go by. Its nodes coordinate writes, too: they have what there is.
    pub(crate) fn plan(&self, key: &[u8]) -> Plan {
        self.plan_of(Slot::of(key))
    }

    /// By the layout that reads go by, for writes too: who is in its plan coordinates. So who joins coordinates nothing before all have
    /// declared that they hold what they are to own, which is later than `Transition::coordinates` asks for: by then no other commit
    /// on the same parent can displace the one by which it joins.
    fn plan_of(&self, slot: Slot) -> Plan {
        match self.view.reading() {
            Some(layout) => View::plan(layout, slot, |node| self.is_alive(node)),
            None => Plan::new(0, [], |_| false),
        }
    }

    fn peer(&mut self, now: Now, from: NodeId, message: Message) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.detector.heard(now.instant);
        // A forwarded request that the network repeats is not done twice.
        if let Message::Forward { call, .. } = &message
            && !peer.forwarded.insert(*call)
            && !self.config.planted.is(Bug::ForwardDoneTwice)
        {
            return;
        }
        let forgives = !self.config.planted.is(Bug::SuspectedForGood);
        if forgives && core::mem::take(&mut peer.suspected) {
            self.start_handoff(now, from);
        }
        // What asks for much more than it says waits for better times.
        if self.is_congested(from)
            && let Message::Read { call, want: Want::Object | Want::Source, .. }
            | Message::Forward { call, .. }
            | Message::List { call, .. } = message
        {
            return self.out.send(from, Message::Refused { call, why: Refusal::Overloaded });
        }
        match message {
            Message::Heartbeat { run, mark, at, wall_ms: ms } => self.heartbeat_from(from, run, mark, at, ms),
            Message::Outdated { run, mark } => {
                // A former run's heartbeat may have been late.
                if run == self.run() {
                    self.went_backwards(now, mark);
                }
            }
            Message::Write { call, layout, purpose, key, object, mut hints, sync, outranked_by } => {
                let standing = self.view.check_write(layout);
                let standing =
                    if self.config.planted.is(Bug::RetiredWriteAccepted) { Ok(()) } else { standing };
                let behind = self.replica.is_behind() && !self.config.planted.is(Bug::PeerWriteUnbounded);
                if let Err(why) = standing.and_then(|()| self.check_call(&key, behind)) {
                    return self.refuse(from, call, why);
                }
                let Ok(object) = object::decode(&object) else {
                    return self.out.send(from, Message::Refused { call, why: Refusal::Malformed });
                };
                if purpose == Purpose::Handoff && self.passes_on(from) {
                    return self.out.send(from, Message::Refused { call, why: Refusal::Overloaded });
                }
                // What is for a node that was removed meanwhile is a copy that the owners get in other ways.
                hints.retain(|owner| !self.view.membership().is_removed(*owner));
                // Nobody stands in for this node here, nor for a stranger, nor for many.
                if hints.len() > 2 || hints.iter().any(|owner| !self.peers.contains_key(owner)) {
                    return self.out.send(from, Message::Refused { call, why: Refusal::Malformed });
                }
                if !hints.is_empty() {
                    if self.has_left() && !self.config.planted.is(Bug::LeavesWithHints) {
                        return self.out.send(from, Message::Refused { call, why: Refusal::Overloaded });
                    }
                    self.spare(now, &key);
                }
                // Who has yet to hear that this may be lost with the machine would not look for it afterwards.
                let unheard = self.rules(&key).durability == Durability::Group
                    && !self.config.planted.is(Bug::UnheardBuffered);
                let sync = if unheard && purpose != Purpose::Repair { Syncing::First } else { sync };
                let overwrites = purpose == Purpose::Repair && self.config.planted.is(Bug::RepairOverwrites);
                let source = if overwrites { Source::Repair } else { Source::Peer(from, call, sync) };
                let late = purpose == Purpose::Handoff && self.config.planted.is(Bug::LateTombstoneBuries);
                let merge = Merge { source, object, outranked_by, hints, heals: late };
                self.replica.start(&mut self.out, &key, Task::Merge(merge));
            }
            Message::Read { call, layout, key, want } => {
                let full = self.replica.is_full() && !self.config.planted.is(Bug::PeerReadUnbounded);
                match self.view.check(layout).and_then(|()| self.check_call(&key, full)) {
                    Err(why) => self.refuse(from, call, why),
                    Ok(()) => {
                        self.replica.start(&mut self.out, &key, Task::Read(Reader::Peer(from, call, want)));
                    }
                }
            }
            Message::Written { call, hints, outranking } => {
                if !self.handoff_acknowledged(now, call, from) {
                    let outranking = outranking.and_then(|bytes| object::decode(&bytes).ok());
                    self.write_acknowledged(now, call, from, &hints, outranking);
                }
            }
            Message::Copy { call, copy, incomplete, run } => {
                let incomplete = incomplete || self.is_outdated(from, run);
                if !self.pull_copied(now, call, from, &copy) {
                    self.read_copied(now, call, from, copy, incomplete);
                }
            }
            Message::List { call, layout, slots, cursor, objects } => match self.view.check(layout) {
                Err(why) => self.refuse(from, call, why),
                Ok(()) => self.list_for(now, from, call, slots, cursor, objects),
            },
            Message::Sums { call, layout, of } => {
                if layout == self.view.version() {
                    self.sums_for(now, from, call, of);
                } else {
                    self.refuse(from, call, Refusal::Layout(self.view.version()));
                }
            }
            Message::Gossip(message) => self.gossiped(now, from, message),
            Message::Offered { call, whole } => self.offer_taken(now, call, from, whole),
            Message::Offer { call, layout, slots } => match self.view.check(layout) {
                Err(why) => self.refuse(from, call, why),
                Ok(()) => self.offered(now, from, call, slots),
            },
            Message::Summed { call, sums } => self.peer_summed(now, call, from, sums),
            Message::Listed { call, keys, objects, next, complete, damaged, run } => {
                let complete = complete && !self.is_outdated(from, run);
                self.pull_listed(now, from, Listed { call, keys, objects, next, complete, damaged });
            }
            Message::Refused { call, why } => {
                if let Refusal::Layout(version) = why
                    && version != self.view.version()
                {
                    self.gossip_with(from);
                }
                if self.forwards.get(&call).is_some_and(|f| f.to == from) {
                    self.forward_elsewhere(now, call, Some(why));
                } else if !self.handoff_refused(now, call, from, why)
                    && !self.pull_refused(now, call, from, why)
                    && !self.exchange_refused(call, from)
                    && !self.offer_refused(call, from)
                {
                    self.write_refused(now, call, from, why);
                    self.read_failed(now, call, from, why == Refusal::Damaged);
                }
            }
            Message::Forward { call, op, heard } => self.forwarded(now, from, call, op, heard),
            Message::Forwarded { call, reply } => self.forward_answered(now, call, from, reply),
        }
    }

    /// Refuses a call. Where layouts differ, one of the two has something to learn.
    fn refuse(&mut self, to: NodeId, call: CallId, why: Refusal) {
        self.out.send(to, Message::Refused { call, why });
        if matches!(why, Refusal::Layout(_)) {
            self.gossip_with(to);
        }
    }

    fn check_call(&self, key: &Bytes, full: bool) -> Result<(), Refusal> {
        if key.is_empty() || key.len() > crate::MAX_KEY {
            Err(Refusal::Malformed)
        } else if full {
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
                Timer::ReadHedge(call) => self.hedge_read(call),
                Timer::ReadPatience(call) => self.read_patience(now, call),
                Timer::ReadDeadline(call) => self.read_deadline(now, call),
                Timer::Forward(call) => self.forward_lost(now, call, true),
                Timer::ForwardPatience(call) => self.forward_patience(now, call),
                Timer::Handoff(owner) => self.handoff_timer(now, owner),
                Timer::Held => self.expire_held(now),
                Timer::Heartbeat => self.heartbeat(now),
                Timer::Exchange => self.exchange_timer(now),
                Timer::Gossip => self.gossip_timer(now),
                Timer::Sync => {
                    self.sync_armed = false;
                    let never = self.config.planted.is(Bug::IntervalNeverSynced);
                    if self.ordered < self.out.last_append() && !never {
                        self.replica.journal.want_sync();
                    }
                }
                Timer::Recovery => self.recovery_timer(now),
                Timer::Sweep => self.sweep_timer(now),
                Timer::Rehint => self.rehint_timer(),
                Timer::Pulls => self.pump_waiting(now),
                Timer::Actor => self.store_actor(),
                Timer::Overdue => {
                    self.overdue_armed = false;
                    self.answer_overdue(now);
                }
            }
        }
    }
}
