//! A handful of engines over disks and links of memory, pumped by hand: every test says what happens when.
#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod changes;
mod requests;
pub(crate) mod strays;

use bytes::Bytes;
use gramme_quorum::message::Message;
use gramme_quorum::planted::Planted;
use gramme_quorum::*;
use gramme_ring::{ClusterId, Member, Membership, NodeId};
use gramme_vclock::Actor;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Bound;

pub(crate) use requests::*;

pub(crate) type Disk = BTreeMap<(Place, Bytes), Bytes>;

pub(crate) struct Node {
    pub(crate) engine: Engine,
    /// What reads see, and what a crash leaves.
    written: Disk,
    pub(crate) durable: Disk,
    /// The records in which they may differ.
    unsynced: BTreeSet<(Place, Bytes)>,
    last: AppendId,
    pub(crate) disk_full: bool,
    /// What is known of the cluster can't be written down.
    pub(crate) book_full: bool,
    pub(crate) saves_refused: usize,
    /// Records that find no room.
    pub(crate) refuses: fn(Place) -> bool,
    /// What removes a record, and nothing else, finds room.
    pub(crate) takes_only_removals: bool,
    pub(crate) syncs: bool,
    /// A sync was asked for.
    wanted: bool,
    pub(crate) loads: bool,
    /// Records whose loads are held back alone.
    pub(crate) hangs: BTreeSet<(Place, Bytes)>,
    /// Answers of loads that are held back.
    pub(crate) held_loads: Vec<Input>,
    pub(crate) lists: bool,
    pub(crate) hint_lists_fail: bool,
    /// The next listing that this names by its first slot, whether it goes on from a page before, and its limit is held back.
    pub(crate) holds: Option<fn(Place, bool, usize) -> bool>,
    /// Answers of listings that are held back.
    pub(crate) held_lists: Vec<Input>,
    /// Records whose bytes are damaged.
    pub(crate) damaged: BTreeSet<(Place, Bytes)>,
    /// The disk refuses to read them, and may think better of it.
    pub(crate) refuses_reads: bool,
    /// Nor can the keys of those be told.
    pub(crate) nameless: bool,
    /// What records may shrink to.
    shrinks: BTreeMap<(Place, Bytes), Shrink>,
}

pub(crate) struct Cluster {
    /// What each node has written down of the cluster.
    pub(crate) memberships: BTreeMap<NodeId, Membership>,
    /// What came of operators' changes.
    pub(crate) changes: BTreeMap<RequestId, Result<(), ClusterError>>,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    down: BTreeMap<NodeId, Disk>,
    cut: BTreeSet<(NodeId, NodeId)>,
    wire: VecDeque<(NodeId, NodeId, Message)>,
    pub(crate) replies: BTreeMap<RequestId, Reply>,
    pub(crate) now: Now,
    /// Added to the wall clock of a node.
    pub(crate) skew: BTreeMap<NodeId, i64>,
    pub(crate) config: fn(&mut Config),
    /// Nodes whose next run is incomplete.
    pub(crate) incomplete: BTreeSet<NodeId>,
    /// Nodes that start from now on hold back the answers of what they load at first.
    pub(crate) starts_late: bool,
    requests: u64,
    runs: u64,
    /// Stopped in mid-life: connections stand, messages pile up, no timer fires.
    paused: BTreeMap<NodeId, Vec<(NodeId, NodeId, Message)>>,
    /// Messages that the network loses from now on.
    pub(crate) loses: fn(NodeId, NodeId, &Message) -> bool,
    /// Every message that was delivered.
    pub(crate) delivered: Vec<(NodeId, NodeId, Message)>,
}

impl Cluster {
    pub(crate) fn new(nodes: u64) -> Cluster {
        Cluster::with(nodes, |_| {})
    }

    pub(crate) fn with(nodes: u64, config: fn(&mut Config)) -> Cluster {
        Cluster::found(nodes, 3, config)
    }

    /// A cluster that keeps so many replicas.
    pub(crate) fn found(nodes: u64, replicas: u8, config: fn(&mut Config)) -> Cluster {
        let members: Vec<_> = (1..=nodes).map(|id| Member::new(NodeId(id))).collect();
        let founded = Membership::found(ClusterId(1), replicas, 256, &members).unwrap();
        let mut cluster = Cluster {
            memberships: members.iter().map(|member| (member.id, founded.clone())).collect(),
            changes: BTreeMap::new(),
            nodes: BTreeMap::new(),
            down: (1..=nodes).map(|id| (NodeId(id), Disk::new())).collect(),
            cut: BTreeSet::new(),
            wire: VecDeque::new(),
            replies: BTreeMap::new(),
            now: Now { instant: Instant(0), wall_ms: 1_750_000_000_000 },
            skew: BTreeMap::new(),
            config,
            incomplete: BTreeSet::new(),
            starts_late: false,
            requests: 0,
            runs: 0,
            paused: BTreeMap::new(),
            loses: |_, _, _| false,
            delivered: Vec::new(),
        };
        for id in 1..=nodes {
            cluster.start(NodeId(id));
        }
        cluster.run();
        cluster
    }

    /// Starts a node that knows of nobody; it is connected to all others.
    pub(crate) fn add(&mut self, id: NodeId) {
        self.down.insert(id, Disk::new());
        self.start(id);
    }

    /// Makes an operator's change at a node.
    pub(crate) fn change(&mut self, at: NodeId, op: ClusterOp) -> Result<(), ClusterError> {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.input(at, Input::Cluster(request, op));
        self.changes.remove(&request).expect("an operator is told at once")
    }

    pub(crate) fn disk_of(&self, id: NodeId) -> Disk {
        self.down[&id].clone()
    }

    pub(crate) fn replace_disk(&mut self, id: NodeId, disk: Disk) {
        self.down.insert(id, disk);
    }

    /// Starts a node on what its last crash left, with a new actor.
    pub(crate) fn start(&mut self, id: NodeId) {
        self.start_with(id, false, Planted::default());
    }

    /// The same with a mistake in its engine.
    pub(crate) fn start_planted(&mut self, id: NodeId, planted: Planted) {
        self.start_with(id, false, planted);
    }

    pub(crate) fn start_on_a_full_disk(&mut self, id: NodeId) {
        self.start_with(id, true, Planted::default());
    }

    fn start_with(&mut self, id: NodeId, disk_full: bool, planted: Planted) {
        let disk = self.down.remove(&id).expect("the node is down");
        self.runs += 1;
        let mut config = Config::new(id, Actor(1000 * id.0 + self.runs));
        (self.config)(&mut config);
        config.planted = planted;
        config.incomplete |= self.incomplete.contains(&id);
        let run = disk.get(&(RUN_PLACE, Bytes::from_static(RUN_KEY)));
        config.opening = Opening::new(run.map(|bytes| &bytes[..]), position(&disk));
        let membership = self.memberships.get(&id).cloned().unwrap_or_default();
        // Whoever stops here stops with its machine.
        let lost = run.is_some() && Keyspace::outruns_the_disk(&membership);
        config.unsynced = lost.then_some(Unsynced::Now);
        let engine = Engine::new(config, membership, self.now);
        let node = Node {
            engine,
            written: disk.clone(),
            durable: disk,
            unsynced: BTreeSet::new(),
            last: AppendId(0),
            disk_full,
            book_full: false,
            saves_refused: 0,
            refuses: |_| false,
            takes_only_removals: false,
            syncs: true,
            wanted: false,
            loads: !self.starts_late,
            hangs: BTreeSet::new(),
            held_loads: Vec::new(),
            lists: true,
            hint_lists_fail: false,
            holds: None,
            held_lists: Vec::new(),
            damaged: BTreeSet::new(),
            nameless: false,
            refuses_reads: false,
            shrinks: BTreeMap::new(),
        };
        self.nodes.insert(id, node);
        let inputs = self.perform(id);
        self.feed(id, inputs);
        let others: Vec<NodeId> = self.nodes.keys().copied().filter(|o| *o != id).collect();
        for other in others {
            if !self.cut.contains(&(id, other)) {
                self.link(id, other, true);
            }
        }
    }

    /// Has a node's store give back all that it may. How many records became shorter.
    pub(crate) fn compact(&mut self, id: NodeId) -> usize {
        let now = self.now_at(id);
        let node = self.nodes.get_mut(&id).expect("the node is up");
        let settled = node.engine.settled_wall(now);
        let mut shrunk = 0;
        for (record, shrink) in &node.shrinks {
            let Some(bytes) = node.written.get_mut(record).filter(|_| shrink.at_ms <= settled) else {
                continue;
            };
            shrunk += usize::from(bytes.len() > shrink.kept);
            bytes.truncate(shrink.kept);
            node.durable.insert(record.clone(), bytes.clone());
        }
        shrunk
    }

    /// Kills a node: what was not synced is gone, and so is what was on its way to or from it.
    pub(crate) fn crash(&mut self, id: NodeId) {
        let node = self.nodes.remove(&id).expect("the node is up");
        self.paused.remove(&id);
        self.down.insert(id, node.durable);
        self.wire.retain(|(from, to, _)| *from != id && *to != id);
        for other in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.input(other, Input::Disconnected(id));
        }
    }

    /// Empties the disk of a node that is down.
    pub(crate) fn wipe(&mut self, id: NodeId) {
        self.down.get_mut(&id).expect("the node is down").clear();
        self.incomplete.insert(id);
    }

    /// Cuts or mends the link between two nodes, both ways.
    pub(crate) fn cut(&mut self, a: NodeId, b: NodeId, cut: bool) {
        for pair in [(a, b), (b, a)] {
            if cut {
                self.cut.insert(pair)
            } else {
                self.cut.remove(&pair)
            };
        }
        self.wire.retain(|(from, to, _)| !self.cut.contains(&(*from, *to)));
        self.link(a, b, !cut);
    }

    fn link(&mut self, a: NodeId, b: NodeId, up: bool) {
        for (me, other) in [(a, b), (b, a)] {
            if self.nodes.contains_key(&me) && self.nodes.contains_key(&other) {
                self.input(me, if up { Input::Connected(other) } else { Input::Disconnected(other) });
            }
        }
    }

    fn now_at(&self, id: NodeId) -> Now {
        let skew = self.skew.get(&id).copied().unwrap_or(0);
        Now { instant: self.now.instant, wall_ms: self.now.wall_ms.checked_add_signed(skew).unwrap() }
    }

    /// Hands one input to a node and does what follows on its disk.
    pub(crate) fn input(&mut self, id: NodeId, input: Input) {
        self.feed(id, VecDeque::from([input]));
    }

    fn feed(&mut self, id: NodeId, mut inputs: VecDeque<Input>) {
        while let Some(input) = inputs.pop_front() {
            let now = self.now_at(id);
            self.nodes.get_mut(&id).unwrap().engine.handle(now, input);
            inputs.extend(self.perform(id));
        }
    }

    fn perform(&mut self, id: NodeId) -> VecDeque<Input> {
        let node = self.nodes.get_mut(&id).unwrap();
        let mut inputs = VecDeque::new();
        while let Some(output) = node.engine.poll() {
            match output {
                Output::Send(to, message) => self.wire.push_back((id, to, message)),
                Output::Reply(request, reply) => {
                    let again = self.replies.insert(request, reply);
                    assert!(again.is_none(), "a request is answered once");
                }
                Output::Load { id: load, place, key } => {
                    let record = (place, key);
                    let loaded = if node.damaged.contains(&record) {
                        let tag = node.written.get(&record).map(tag);
                        if node.refuses_reads { Loaded::Unknown(tag) } else { Loaded::Damaged }
                    } else {
                        node.written.get(&record).cloned().map_or(Loaded::Absent, Loaded::Found)
                    };
                    let hangs = !node.loads || node.hangs.contains(&record);
                    let loaded = Input::Loaded(load, loaded);
                    if !hangs { inputs.push_back(loaded) } else { node.held_loads.push(loaded) }
                }
                Output::Append { id: append, place, key, value, shrink } => {
                    node.last = append;
                    let lacks_room = node.takes_only_removals && value.is_some();
                    if node.disk_full || lacks_room || (node.refuses)(place) {
                        inputs.push_front(Input::AppendFailed(append));
                        continue;
                    }
                    let position = position(&node.written) + 1;
                    node.written.insert(POSITION, position.to_be_bytes().to_vec().into());
                    let record = (place, key);
                    node.damaged.remove(&record);
                    node.unsynced.extend([POSITION, record.clone()]);
                    match shrink {
                        Some(shrink) => node.shrinks.insert(record.clone(), shrink),
                        None => node.shrinks.remove(&record),
                    };
                    match value {
                        Some((bytes, _)) => node.written.insert(record, bytes),
                        None => node.written.remove(&record),
                    };
                }
                Output::List { id: list, first, last, cursor, limit } => {
                    let within = |(place, _): &&(Place, Bytes)| (first..=last).contains(place);
                    let nameless = |record: &&(Place, Bytes)| node.nameless && node.damaged.contains(record);
                    let unreadable = node.damaged.iter().filter(within).filter(nameless).count() as u64;
                    let records = node.written.iter().filter(|(record, _)| within(record));
                    let records = records.filter(|(record, _)| !nameless(record));
                    // In an order that stays, whatever comes and goes meanwhile.
                    let at = |(place, key): &(Place, Bytes)| {
                        let mut hasher = DefaultHasher::new();
                        key.hash(&mut hasher);
                        ListCursor { place: *place, at: hasher.finish() }
                    };
                    let records: BTreeMap<ListCursor, _> =
                        records.map(|record| (at(record.0), record)).collect();
                    let rest = cursor.map_or(Bound::Unbounded, Bound::Excluded);
                    let records = records.range((rest, Bound::Unbounded)).take(limit);
                    let next = records.clone().nth(limit - 1).map(|(at, _)| *at);
                    let keys = records.map(|(_, ((_, key), bytes))| (key.clone(), tag(bytes))).collect();
                    let page = (!(node.hint_lists_fail && first.0 > 16_383)).then_some(Page {
                        keys,
                        unreadable,
                        next,
                    });
                    let listed = Input::Listed(list, page);
                    let held = node.holds.take_if(|holds| holds(first, cursor.is_some(), limit)).is_some();
                    if node.lists && !held { inputs.push_back(listed) } else { node.held_lists.push(listed) }
                }
                Output::Sums { id: sums, ranges } => {
                    let sum = |(first, last): &(u16, u16)| {
                        let range = Place(*first)..=Place(*last);
                        let records = node.written.iter().filter(|((place, _), _)| range.contains(place));
                        let hash = |((_, key), bytes): (&(Place, Bytes), &Bytes)| {
                            let one = |salt: u8| {
                                let mut hasher = DefaultHasher::new();
                                (salt, key, tag(bytes)).hash(&mut hasher);
                                hasher.finish()
                            };
                            u128::from(one(0)) << 64 | u128::from(one(1))
                        };
                        records.map(hash).fold(0, u128::wrapping_add)
                    };
                    inputs.push_back(Input::Summed(sums, ranges.iter().map(sum).collect()));
                }
                Output::Recovered => {
                    self.incomplete.remove(&id);
                }
                Output::Incomplete => {
                    self.incomplete.insert(id);
                }
                Output::DropSlot { id: append, place } => {
                    node.last = append;
                    if node.disk_full || (node.refuses)(place) {
                        inputs.push_front(Input::AppendFailed(append));
                        continue;
                    }
                    let gone = node.written.keys().filter(|(slot, _)| *slot == place).cloned();
                    node.unsynced.extend(gone);
                    node.written.retain(|(slot, _), _| *slot != place);
                }
                Output::Save(_) if node.book_full => {
                    node.saves_refused += 1;
                    assert!(node.saves_refused < 1000, "what can't be written down is tried without end");
                    inputs.push_front(Input::Saved(false));
                }
                Output::Save(membership) => {
                    self.memberships.insert(id, *membership);
                    inputs.push_front(Input::Saved(true));
                }
                Output::Confirm(append) => inputs.push_back(Input::Written(append)),
                Output::Sync => node.wanted = true,
                Output::Known(..) => {}
                Output::Cluster(request, done) => {
                    self.changes.insert(request, done);
                }
                other => panic!("unknown output {other:?}"),
            }
        }
        if node.syncs && node.wanted && inputs.is_empty() {
            node.wanted = false;
            let last = node.last;
            if last.0 > 0 {
                for record in std::mem::take(&mut node.unsynced) {
                    match node.written.get(&record) {
                        Some(bytes) => node.durable.insert(record, bytes.clone()),
                        None => node.durable.remove(&record),
                    };
                }
                node.last = AppendId(0);
                inputs.push_back(Input::Synced(last, position(&node.durable)));
            }
        }
        inputs
    }

    /// Lets a node's sync finish that was held back with `syncs = false`.
    pub(crate) fn sync(&mut self, id: NodeId) {
        self.nodes.get_mut(&id).unwrap().syncs = true;
        let inputs = self.perform(id);
        self.feed(id, inputs);
    }

    /// Answers the loads that were held back with `loads = false` or `hangs`.
    pub(crate) fn load(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.loads = true;
        node.hangs.clear();
        let loads = std::mem::take(&mut node.held_loads).into();
        self.feed(id, loads);
    }

    /// Answers the listings that were held back with `lists = false`.
    pub(crate) fn list(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.lists = true;
        let lists = std::mem::take(&mut node.held_lists).into();
        self.feed(id, lists);
    }

    /// Delivers one message, if there is one.
    pub(crate) fn deliver(&mut self) -> bool {
        let Some((from, to, message)) = self.wire.pop_front() else { return false };
        if (self.loses)(from, to, &message) {
            return true;
        }
        if let Some(pile) = self.paused.get_mut(&to) {
            pile.push((from, to, message));
            return true;
        }
        // Messages cross as bytes.
        let mut bytes = Vec::new();
        wire::encode(&message, &mut bytes);
        let message = wire::decode(&bytes).expect("what was encoded decodes");
        self.delivered.push((from, to, message.clone()));
        if self.nodes.contains_key(&to) && !self.cut.contains(&(from, to)) {
            self.input(to, Input::Peer(from, message));
        }
        true
    }

    /// Loses every message now on the wire that `which` names.
    pub(crate) fn lose(&mut self, which: impl Fn(NodeId, NodeId, &Message) -> bool) {
        self.wire.retain(|(from, to, message)| !which(*from, *to, message));
    }

    /// The messages that are under way.
    pub(crate) fn wire(&self) -> impl Iterator<Item = &(NodeId, NodeId, Message)> {
        self.wire.iter()
    }

    /// Delivers all messages, and those that they cause.
    pub(crate) fn run(&mut self) {
        let mut steps = 0;
        while self.deliver() {
            steps += 1;
            assert!(steps < 1_000_000, "the cluster talks without end");
        }
    }

    /// Lets time pass, in steps of `Tick`s at the engines' own deadlines, delivering everything.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now.instant + time;
        self.run();
        while let Some(next) = self.awake().filter_map(|id| self.nodes[&id].engine.deadline()).min()
            && next <= end
        {
            self.advance(next);
            for id in self.awake().collect::<Vec<_>>() {
                self.input(id, Input::Tick);
            }
            self.run();
        }
        self.advance(end);
    }

    /// Lets time pass, and delivers nothing.
    pub(crate) fn tick(&mut self, time: Duration) {
        self.advance(self.now.instant + time);
        for id in self.awake().collect::<Vec<_>>() {
            self.input(id, Input::Tick);
        }
    }

    fn awake(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.keys().copied().filter(|id| !self.paused.contains_key(id))
    }

    /// Stops a node without killing it.
    pub(crate) fn pause(&mut self, id: NodeId) {
        self.paused.insert(id, Vec::new());
    }

    /// Lets it go on, with everything that has piled up.
    pub(crate) fn resume(&mut self, id: NodeId) {
        self.wake(id);
        self.run();
    }

    /// The same, and nothing is delivered yet.
    pub(crate) fn wake(&mut self, id: NodeId) {
        let pile = self.paused.remove(&id).expect("the node is paused");
        self.wire.extend(pile);
    }

    fn advance(&mut self, to: Instant) {
        let passed = to.since(self.now.instant);
        self.now.instant = self.now.instant + passed;
        self.now.wall_ms += u64::try_from(passed.as_millis()).unwrap();
    }
}

/// Commits keyspaces at a node, and waits until all go by them.
pub(crate) fn commit(cluster: &mut Cluster, at: NodeId, keyspaces: &[(&str, Keyspace)]) {
    for (prefix, keyspace) in keyspaces {
        let change = keyspace.change(prefix).unwrap();
        cluster.change(at, ClusterOp::Stage(change)).unwrap();
    }
    let hash = cluster.nodes[&at].engine.membership().propose().unwrap().hash();
    cluster.change(at, ClusterOp::Commit(hash)).unwrap();
    for _ in 0..100 {
        cluster.pass(Duration::from_millis(200));
        if cluster.nodes.values().all(|node| node.engine.membership().transition().is_none()) {
            return;
        }
    }
    panic!("the commit does not spread");
}

pub(crate) fn lww() -> Keyspace {
    Keyspace { policy: Policy::Lww, ..Keyspace::default() }
}

/// Where a disk counts its writes.
const POSITION: (Place, Bytes) = (Place(0x7fff), Bytes::from_static(b"position"));

/// A record's version tag.
fn tag(bytes: &Bytes) -> u64 {
    object::decode(bytes).map_or(0, |object| object::digest(&[0; 16], &object, bytes))
}

fn position(disk: &Disk) -> u64 {
    disk.get(&POSITION).map_or(0, |bytes| u64::from_be_bytes(bytes[..].try_into().unwrap()))
}

pub(crate) fn place(key: &str) -> Place {
    Place(gramme_ring::Slot::of(key.as_bytes()).index())
}

pub(crate) const A: NodeId = NodeId(1);
pub(crate) const B: NodeId = NodeId(2);
pub(crate) const C: NodeId = NodeId(3);
