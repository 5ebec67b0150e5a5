//! Engines, their disks and what is between them.

use crate::source::Source;
use bytes::Bytes;
use gramme_quorum::message::Message;
use gramme_quorum::{
    AppendId, Config, Cover, Duration, Engine, Expiry, Input, Instant, Level, ListCursor, Loaded, Now, Op,
    OpError, Opening, Output, Page, Place, RUN_KEY, RUN_PLACE, ReadOptions, Reply, RequestId, WriteOptions,
    object, wire,
};
use gramme_ring::{ClusterId, Member, Membership, NodeId};
use gramme_vclock::{Actor, GrowableContext};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

type Disk = BTreeMap<(Place, Bytes), Bytes>;

/// Where a disk counts its writes.
const POSITION: (Place, Bytes) = (Place(0x7fff), Bytes::from_static(b"position"));

fn position(disk: &Disk) -> u64 {
    disk.get(&POSITION).map_or(0, |bytes| u64::from_be_bytes(bytes[..].try_into().expect("a number")))
}

const MS: u64 = 1_000_000;
pub(super) const REQUEST: Duration = Duration::from_millis(400);
pub(super) const KEYS: [&[u8]; 3] = [b"a", b"b", b"{a}c"];
/// How long the end may take: several deadlines, retries and suspicions.
pub(super) const CALM_MS: u64 = 6_000;

pub(super) struct Node {
    pub(super) engine: Engine,
    written: Disk,
    durable: Disk,
    /// Loads and listings that the disk has not answered yet.
    pub(super) slow: Vec<Input>,
    last_append: AppendId,
    /// A sync is under way: of what, up to where.
    syncing: Option<(AppendId, Disk)>,
    pub(super) full: bool,
    /// A sync failed.
    pub(super) poisoned: bool,
    /// It may have lost what it acknowledged.
    incomplete: bool,
}

pub(super) struct Asked {
    at: usize,
    until: Instant,
    /// The key and value, if it is a write of one.
    value: Option<(Bytes, Bytes)>,
}

pub(super) struct World {
    founded: Membership,
    config: Config,
    pub(super) nodes: Vec<Node>,
    runs: u64,
    pub(super) now: Now,
    pub(super) wire: VecDeque<(usize, usize, Message)>,
    pub(super) cut: BTreeSet<(usize, usize)>,
    /// Who has been told that messages to whom pile up.
    pub(super) congested: BTreeSet<(usize, usize)>,
    pub(super) open: BTreeMap<RequestId, Asked>,
    pub(super) asked: u64,
    contexts: Vec<(Bytes, GrowableContext)>,
    /// No lies, no failing disks, and writes replace nothing: then what was acknowledged is there in the end.
    pub(super) strict: bool,
    pub(super) acknowledged: BTreeSet<(Bytes, Bytes)>,
    pub(super) shown: BTreeMap<RequestId, Reply>,
}

impl World {
    pub(super) fn new(source: &mut Source<'_>) -> World {
        let (shape, mode) = (source.byte(), source.byte());
        let count = 1 + u64::from(shape % 4);
        let replicas = 1 + (shape >> 2) % 3;
        let members: Vec<Member> = (1..=count).map(|id| Member::new(NodeId(id))).collect();
        let founded =
            Membership::found(ClusterId(1), replicas, 8, &members).expect("members and replicas are there");
        let most = replicas.min(u8::try_from(count).expect("four at the most"));
        let mut config = Config::new(NodeId(0), Actor(0));
        config.r = 1 + (shape >> 4) % most;
        config.w = 1 + (shape >> 6) % most;
        config.timing.request = REQUEST;
        config.timing.patience = Duration::from_millis(50);
        config.timing.heartbeat = Duration::from_millis(100);
        config.timing.retry = Duration::from_millis(100);
        config.timing.exchange = Duration::from_millis(300);
        let strict = mode & 1 == 0;
        if mode & 2 != 0 && !strict {
            config.limits.value = 16;
            config.limits.siblings = 3;
            config.limits.requests = 3;
            config.limits.local = 4;
            config.limits.handoff = 1;
        }
        let mut world = World {
            founded,
            config,
            nodes: Vec::new(),
            runs: 0,
            now: Now { instant: Instant(0), wall_ms: 1_750_000_000_000 },
            wire: VecDeque::new(),
            cut: BTreeSet::new(),
            congested: BTreeSet::new(),
            open: BTreeMap::new(),
            asked: 0,
            contexts: Vec::new(),
            strict,
            acknowledged: BTreeSet::new(),
            shown: BTreeMap::new(),
        };
        for at in 0..members.len() {
            let node = world.boot(at, Disk::new(), false);
            world.nodes.push(node);
        }
        for at in 0..world.nodes.len() {
            world.drain(at);
            world.sync_all(at);
        }
        for at in 0..world.nodes.len() {
            world.connect(at, true);
        }
        world
    }

    fn boot(&mut self, at: usize, disk: Disk, incomplete: bool) -> Node {
        self.runs += 1;
        let mut config = self.config.clone();
        config.node = NodeId(at as u64 + 1);
        config.incomplete = incomplete;
        // Like random ones, actors of later runs sort anywhere among the earlier.
        config.actor = Actor(self.runs.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let run = disk.get(&(RUN_PLACE, Bytes::from_static(RUN_KEY)));
        config.opening = Opening::new(run.map(|bytes| &bytes[..]), position(&disk));
        Node {
            engine: Engine::new(config, self.founded.clone(), self.now),
            written: disk.clone(),
            durable: disk,
            slow: Vec::new(),
            last_append: AppendId(0),
            syncing: None,
            full: false,
            poisoned: false,
            incomplete,
        }
    }

    pub(super) fn step(&mut self, source: &mut Source<'_>) {
        let choice = source.byte();
        let at = usize::from(choice >> 5) % self.nodes.len();
        match choice % 32 {
            0..=5 => self.ask(at, source),
            6..=11 => {
                if let Some((from, to, message)) = self.pick(source) {
                    self.deliver(from, to, message);
                }
            }
            12 => drop(self.pick(source)),
            13 => {
                if let Some((from, to, message)) = self.pick(source) {
                    self.deliver(from, to, message.clone());
                    self.wire.push_back((from, to, message));
                }
            }
            14..=16 => self.answer_slow(at, source),
            17 | 18 => self.begin_sync(at),
            19 | 20 => self.end_sync(at),
            21 => self.sync_all(at),
            22 => self.pass(u64::from(source.byte())),
            23 => self.pass(u64::from(source.byte() % 8)),
            // In order and without trouble, for a while.
            24 | 25 => {
                for _ in 0..source.byte() % 32 {
                    self.calm();
                }
            }
            26 => {
                let other = source.below(self.nodes.len());
                self.cut_or_mend(at, other);
            }
            // A liar's disk may vanish as well.
            27 => self.crash(at, !self.strict && source.flag()),
            28 => self.nodes[at].full = source.flag(),
            29 if !self.strict => self.alter(at, source),
            30 if !self.strict => self.fail(at, source),
            29 | 30 => {
                let other = source.below(self.nodes.len());
                self.congest(at, other);
            }
            // The wall clock jumps, either way.
            _ => self.now.wall_ms = 1_750_000_000_000 + u64::from(source.u16()) * 100,
        }
        self.check_deadlines();
    }

    /// Takes one of the messages under way.
    fn pick(&mut self, source: &mut Source<'_>) -> Option<(usize, usize, Message)> {
        let index = match self.wire.len() {
            0 => return None,
            len => source.below(len.min(256)),
        };
        self.wire.remove(index)
    }

    fn ask(&mut self, at: usize, source: &mut Source<'_>) {
        let (kind, levels) = (source.byte(), source.byte());
        let key = Bytes::from_static(KEYS[usize::from(kind >> 4) % KEYS.len()]);
        let level = |bits: u8| match bits % 8 {
            0 => Some(Level::One),
            1 => Some(Level::Quorum),
            2 => Some(Level::All),
            3 => Some(Level::Count(bits >> 3)),
            _ => None,
        };
        let timeout = (levels > 200).then(|| Duration::from_millis(u64::from(source.byte())));
        self.asked += 1;
        let value = Bytes::from(self.asked.to_string());
        let read = ReadOptions { r: level(levels), pr: level(levels >> 5), timeout };
        let options =
            WriteOptions { w: level(levels), pw: level(levels >> 5), dw: level(levels >> 4), timeout };
        let put = |cover, expiry| {
            let (key, value) = (key.clone(), value.clone());
            Op::Put { key, value, content_type: None, expiry, cover, options }
        };
        let op = match kind % 16 {
            0..=5 => Op::Get { key: key.clone(), options: read },
            _ if self.strict => put(Cover::Nothing, None),
            6 | 7 => put(Cover::Nothing, None),
            8 | 9 => put(Cover::Held, None),
            10 | 11 => match self.contexts.get(usize::from(levels) % self.contexts.len().max(1)) {
                // Usually of another key: the engine is to bear that too.
                Some((_, context)) => put(Cover::Context(context.clone()), None),
                None => put(Cover::Nothing, None),
            },
            12 => put(Cover::Held, Some(Expiry(self.now.wall_ms + u64::from(levels)))),
            13 => Op::Delete { key: key.clone(), cover: Cover::Held, options },
            14 => match self.contexts.last() {
                Some((_, context)) => {
                    Op::Delete { key: key.clone(), cover: Cover::Context(context.clone()), options }
                }
                None => Op::Delete { key: key.clone(), cover: Cover::Nothing, options },
            },
            _ => Op::Put {
                key: Bytes::from(vec![0; [0, 1, 65_536, 65_537][usize::from(levels) % 4]]),
                value: Bytes::from(vec![0; usize::from(levels)]),
                content_type: Some("x".repeat(usize::from(levels) * 2)),
                expiry: None,
                cover: Cover::Held,
                options,
            },
        };
        self.request(at, op, timeout.unwrap_or(REQUEST), value);
    }

    pub(super) fn request(&mut self, at: usize, op: Op, timeout: Duration, value: Bytes) -> RequestId {
        let id = RequestId(self.asked);
        let value = matches!(op, Op::Put { .. }).then(|| (op.key().clone(), value));
        self.open.insert(id, Asked { at, until: self.now.instant + timeout, value });
        self.input(at, Input::Client(id, op));
        id
    }

    /// Hands in one input and performs what comes out, up to what the disk may take its time for.
    pub(super) fn input(&mut self, at: usize, input: Input) {
        self.nodes[at].engine.handle(self.now, input);
        self.drain(at);
    }

    fn drain(&mut self, at: usize) {
        let mut failed = VecDeque::new();
        loop {
            while let Some(output) = self.nodes[at].engine.poll() {
                self.perform(at, output, &mut failed);
            }
            // A refusal is answered at once, before anything else happens.
            let Some(input) = failed.pop_front() else { return };
            self.nodes[at].engine.handle(self.now, input);
        }
    }

    fn perform(&mut self, at: usize, output: Output, failed: &mut VecDeque<Input>) {
        let node = &mut self.nodes[at];
        match output {
            Output::Send(to, message) => {
                let to = usize::try_from(to.0.wrapping_sub(1)).unwrap_or(usize::MAX);
                assert!(to != at, "a message to itself");
                if to >= self.nodes.len() {
                    assert!(!self.strict, "a message to a node that nobody spoke of");
                    return;
                }
                if !self.cut.contains(&(at.min(to), at.max(to))) {
                    self.wire.push_back((at, to, message));
                }
            }
            Output::Reply(request, reply) => self.replied(at, request, reply),
            Output::Load { id, place, key } => {
                let found = node.written.get(&(place, key)).cloned();
                node.slow.push(Input::Loaded(id, found.map_or(Loaded::Absent, Loaded::Found)));
            }
            Output::Append { id, place, key, value, .. } => {
                assert_eq!(id.0, node.last_append.0 + 1, "appends are numbered in order");
                node.last_append = id;
                if node.poisoned || (node.full && value.is_some()) {
                    failed.push_back(Input::AppendFailed(id));
                    return;
                }
                let position = position(&node.written) + 1;
                node.written.insert(POSITION, Bytes::copy_from_slice(&position.to_be_bytes()));
                match value {
                    Some((bytes, _)) => node.written.insert((place, key), bytes),
                    None => node.written.remove(&(place, key)),
                };
            }
            Output::List { id, first, last, cursor, limit } => {
                let start = usize::try_from(cursor.map_or(0, |c| c.at)).unwrap_or(usize::MAX);
                let records = node.written.iter().filter(|((place, _), _)| (first..=last).contains(place));
                let tag = |bytes: &Bytes| match object::decode(bytes) {
                    Ok(object) => object::digest(&[0; 16], &object, bytes),
                    Err(_) => 0,
                };
                let keys = records.map(|((_, key), bytes)| (key.clone(), tag(bytes)));
                let keys: Vec<_> = keys.skip(start).take(limit).collect();
                let at = start.saturating_add(limit) as u64;
                let next = (keys.len() == limit).then_some(ListCursor { place: last, at });
                node.slow.push(Input::Listed(id, Some(Page { keys, unreadable: 0, next })));
            }
            Output::Sums { id, ranges } => {
                let sum = |(first, last): &(u16, u16)| {
                    let range = Place(*first)..=Place(*last);
                    let records = node.written.iter().filter(|((place, _), _)| range.contains(place));
                    let hash = |((_, key), bytes): (&(Place, Bytes), &Bytes)| {
                        let one = |salt: u8| {
                            let mut hasher = DefaultHasher::new();
                            (salt, key, bytes).hash(&mut hasher);
                            hasher.finish()
                        };
                        u128::from(one(0)) << 64 | u128::from(one(1))
                    };
                    records.map(hash).fold(0, u128::wrapping_add)
                };
                node.slow.push(Input::Summed(id, ranges.iter().map(sum).collect()));
            }
            Output::Recovered => node.incomplete = false,
            Output::Incomplete => node.incomplete = true,
            Output::DropSlot { id, place } => {
                node.last_append = id;
                if node.poisoned {
                    failed.push_back(Input::AppendFailed(id));
                } else {
                    node.written.retain(|(slot, _), _| *slot != place);
                }
            }
            // No membership changes here, but lies may say so; what they bring need not last.
            Output::Save(_) => failed.push_front(Input::Saved(false)),
            Output::Confirm(id) => failed.push_back(Input::Written(id)),
            // It syncs when the source says so.
            Output::Sync | Output::Known(..) => {}
            other => panic!("an output that this caller does not know: {other:?}"),
        }
    }

    fn replied(&mut self, at: usize, request: RequestId, reply: Reply) {
        let asked = self.open.remove(&request).expect("one reply to a request that was made, and not before");
        assert_eq!(asked.at, at);
        match &reply {
            Reply::Read(reading) => self.contexts.push((Bytes::new(), reading.context.clone())),
            Reply::Written { context, .. } => {
                self.contexts.push((Bytes::new(), context.clone()));
                self.acknowledged.extend(asked.value);
            }
            Reply::Failed(OpError::Misuse(why)) => assert!(!why.is_empty()),
            Reply::Failed(_) => {}
        }
        if self.contexts.len() > 16 {
            self.contexts.remove(0);
        }
        self.shown.insert(request, reply);
    }

    fn deliver(&mut self, from: usize, to: usize, message: Message) {
        self.input(to, Input::Peer(NodeId(from as u64 + 1), message));
    }

    /// The disk answers one of the loads and listings.
    fn answer_slow(&mut self, at: usize, source: &mut Source<'_>) {
        let slow = self.nodes[at].slow.len();
        if slow > 0 {
            let input = self.nodes[at].slow.remove(source.below(slow.min(256)));
            self.input(at, input);
        }
    }

    fn begin_sync(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if node.syncing.is_none() && !node.poisoned {
            node.syncing = Some((node.last_append, node.written.clone()));
        }
    }

    fn end_sync(&mut self, at: usize) {
        if let Some((through, image)) = self.nodes[at].syncing.take() {
            let position = position(&image);
            self.nodes[at].durable = image;
            self.input(at, Input::Synced(through, position));
        }
    }

    fn sync_all(&mut self, at: usize) {
        self.end_sync(at);
        self.begin_sync(at);
        self.end_sync(at);
    }

    /// Time passes; whoever wants to be woken meanwhile is.
    pub(super) fn pass(&mut self, ms: u64) {
        let end = Instant(self.now.instant.0 + ms * MS);
        loop {
            let due = |(at, node): (usize, &Node)| node.engine.deadline().map(|d| (d, at));
            let next = self.nodes.iter().enumerate().filter_map(due).min();
            let Some((when, at)) = next.filter(|(when, _)| *when <= end) else { break };
            self.clock(when.max(self.now.instant));
            self.input(at, Input::Tick);
            let deadline = self.nodes[at].engine.deadline();
            assert!(
                deadline.is_none_or(|d| d > self.now.instant),
                "woken at {when:?}, to be woken at {deadline:?}"
            );
        }
        self.clock(end);
    }

    fn clock(&mut self, to: Instant) {
        self.now.wall_ms += (to.0 - self.now.instant.0) / MS;
        self.now.instant = to;
    }

    /// A moment without trouble.
    pub(super) fn calm(&mut self) {
        self.work();
        self.pass(2);
    }

    /// All that waits is done once, in order.
    pub(super) fn work(&mut self) {
        for _ in 0..self.wire.len() {
            if let Some((from, to, message)) = self.wire.pop_front() {
                self.deliver(from, to, message);
            }
        }
        for at in 0..self.nodes.len() {
            for input in core::mem::take(&mut self.nodes[at].slow) {
                self.input(at, input);
            }
            self.sync_all(at);
        }
    }

    fn cut_or_mend(&mut self, a: usize, b: usize) {
        if a == b {
            return;
        }
        let pair = (a.min(b), a.max(b));
        let up = self.cut.remove(&pair);
        if !up {
            self.cut.insert(pair);
            self.wire.retain(|(from, to, _)| (*from.min(to), *from.max(to)) != pair);
        }
        self.link(a, b, up);
    }

    pub(super) fn link(&mut self, a: usize, b: usize, up: bool) {
        for (me, other) in [(a, b), (b, a)] {
            let other = NodeId(other as u64 + 1);
            self.input(me, if up { Input::Connected(other) } else { Input::Disconnected(other) });
        }
    }

    /// Links a node with all that it can reach.
    fn connect(&mut self, at: usize, only_later: bool) {
        for other in 0..self.nodes.len() {
            let pair = (at.min(other), at.max(other));
            if other != at && (other > at || !only_later) && !self.cut.contains(&pair) {
                self.link(at, other, true);
            }
        }
    }

    /// What was not synced is gone; the next run starts with what was, or with an empty disk.
    pub(super) fn crash(&mut self, at: usize, wiped: bool) {
        self.open.retain(|_, asked| asked.at != at);
        let disk = if wiped { Disk::new() } else { core::mem::take(&mut self.nodes[at].durable) };
        let incomplete = wiped || self.nodes[at].incomplete;
        for other in 0..self.nodes.len() {
            if other != at {
                self.input(other, Input::Disconnected(NodeId(at as u64 + 1)));
            }
        }
        // Messages of the former run may still arrive.
        self.nodes[at] = self.boot(at, disk, incomplete);
        self.drain(at);
        self.connect(at, false);
    }

    /// Sends what an honest peer would not: a message with a byte changed, or any message at all.
    fn alter(&mut self, at: usize, source: &mut Source<'_>) {
        let mut bytes = Vec::new();
        let from = if source.flag() {
            let Some((from, _, message)) = self.pick(source) else { return };
            wire::encode(&message, &mut bytes);
            let place = usize::from(source.u16()) % bytes.len();
            bytes[place] ^= source.byte();
            from as u64 + 1
        } else {
            let from = source.below(6) as u64;
            let length = usize::from(source.byte());
            bytes.extend_from_slice(source.bytes(length));
            from
        };
        if let Ok(message) = wire::decode(&bytes) {
            self.input(at, Input::Peer(NodeId(from), message));
        }
    }

    /// Messages to another node pile up, or have gone out.
    fn congest(&mut self, at: usize, other: usize) {
        if at != other {
            let now = self.congested.insert((at, other)) || !self.congested.remove(&(at, other));
            self.input(at, Input::Congested(NodeId(other as u64 + 1), now));
        }
    }

    /// Disks fail.
    fn fail(&mut self, at: usize, source: &mut Source<'_>) {
        match source.byte() % 4 {
            3 => {
                let other = source.below(self.nodes.len());
                self.congest(at, other);
            }
            0 => {
                self.nodes[at].poisoned = true;
                self.nodes[at].syncing = None;
                self.input(at, Input::SyncFailed);
            }
            _ => {
                if let Some(slow) = self.nodes[at].slow.pop() {
                    let answer = match slow {
                        Input::Loaded(id, _) => Input::Loaded(id, Loaded::Unknown(None)),
                        Input::Listed(id, _) => Input::Listed(id, None),
                        other => other,
                    };
                    self.input(at, answer);
                }
            }
        }
    }

    pub(super) fn check_deadlines(&mut self) {
        for at in 0..self.nodes.len() {
            if self.nodes[at].engine.deadline().is_some_and(|d| d <= self.now.instant) {
                self.input(at, Input::Tick);
            }
        }
        for (request, asked) in &self.open {
            assert!(asked.until > self.now.instant, "{request:?} has no reply at its deadline");
        }
    }
}
