//! No interleaving of a transition hides an acknowledged write from a read.
//!
//! A model of a store in which every node knows only what gossip brought it: writes, reads, transfers, declarations and
//! gossip take place in any order. Reads of R owners, by the reader's own view, must show every write that W owners had
//! acknowledged, by the writer's own view, before the read began.

use std::collections::{BTreeMap, BTreeSet};

use gramme_ring::{Change, ClusterId, Layout, Member, Membership, NodeId, Phase, Slot, Step};

/// One in each partition of the finest division. (N, Q) before and after a change are of these at most.
const SLOTS: u32 = 4;

fn slot(n: u32) -> Slot {
    Slot::all().nth((n % SLOTS * (16384 / SLOTS)) as usize).unwrap()
}

fn owners(layout: &Layout, slot: Slot) -> impl Iterator<Item = NodeId> + '_ {
    layout.owners(layout.partition_of(slot))
}

/// How many owners a write waits for, and of how many a read asks: a majority, and enough to meet every write.
fn w(layout: &Layout) -> usize {
    usize::from(layout.replicas()) / 2 + 1
}

fn r(layout: &Layout) -> usize {
    usize::from(layout.replicas()) + 1 - w(layout)
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Gossip(usize, usize),
    BeginWrite(usize, u32),
    /// Delivers one of the messages under way, and its answer.
    Deliver(usize),
    /// Loses the acknowledgement of one, or the message: it never arrives.
    Lose(usize),
    Read(usize, u32, usize),
    /// Whatever the node can do for the transition now.
    Progress(usize, usize),
}

struct Write {
    coordinator: usize,
    slot: Slot,
    value: u64,
    /// For each layout that has to be satisfied: its owners, those who have answered, and how many have to.
    quorums: Vec<(BTreeSet<NodeId>, BTreeSet<NodeId>, usize)>,
    /// Not delivered yet.
    targets: BTreeSet<NodeId>,
    /// The hashes of these layouts.
    layouts: BTreeSet<u64>,
}

struct Node {
    membership: Membership,
    data: BTreeMap<Slot, BTreeSet<u64>>,
    /// Merged from N − W + 1 old owners already, for the layout of this hash.
    copied: BTreeSet<(u64, Slot)>,
}

struct Cluster {
    nodes: BTreeMap<NodeId, Node>,
    ids: Vec<NodeId>,
    writes: Vec<Write>,
    acknowledged: BTreeMap<Slot, BTreeSet<u64>>,
    next: u64,
    reads: BTreeMap<Option<Step>, usize>,
    /// How often a node gave up one commit for another of the same version.
    displaced: usize,
}

impl Cluster {
    /// `shapes`: N and Q before and after. `rival`: who commits something else meanwhile, and which node that adds.
    fn new(before: &[u64], after: &[u64], shapes: [(u8, u32); 2], rival: Option<(u64, u64)>) -> Cluster {
        let me = NodeId(1);
        let mut start = Membership::new();
        let shape = |m: &mut Membership, (replicas, partitions)| {
            m.stage(me, Change::Replicas(replicas)).unwrap();
            m.stage(me, Change::Partitions(partitions)).unwrap();
        };
        shape(&mut start, shapes[0]);
        for &id in before {
            start.stage(me, Change::Member(Member::new(NodeId(id)))).unwrap();
        }
        let hash = start.propose().unwrap().hash();
        start.commit(ClusterId(1), hash).unwrap();
        let mut next = start.clone();
        if shapes[1] != shapes[0] {
            shape(&mut next, shapes[1]);
        }
        for &id in before.iter().filter(|id| !after.contains(id)) {
            next.stage(me, Change::Leave(NodeId(id))).unwrap();
        }
        for &id in after.iter().filter(|id| !before.contains(id)) {
            next.stage(me, Change::Member(Member::new(NodeId(id)))).unwrap();
        }
        let hash = next.propose().unwrap().hash();
        next.commit(ClusterId(1), hash).unwrap();

        let rival = rival.map(|(at, added)| {
            let mut other = start.clone();
            other.stage(NodeId(at), Change::Member(Member::new(NodeId(added)).with_weight(2))).unwrap();
            let value = Some(at.to_be_bytes().to_vec());
            other.stage(NodeId(at), Change::Setting { name: "s".into(), value }).unwrap();
            let hash = other.propose().unwrap().hash();
            other.commit(ClusterId(1), hash).unwrap();
            (at, added, other)
        });
        let others = rival.iter().flat_map(|(at, added, _)| [at, added]);
        let ids: BTreeSet<NodeId> = before.iter().chain(after).chain(others).map(|&id| NodeId(id)).collect();
        // One node has committed; the others have yet to hear of it.
        let nodes = ids
            .iter()
            .map(|&id| {
                let membership = match &rival {
                    Some((at, _, other)) if id == NodeId(*at) => other.clone(),
                    _ if id == NodeId(before[0]) => next.clone(),
                    _ => start.clone(),
                };
                (id, Node { membership, data: BTreeMap::new(), copied: BTreeSet::new() })
            })
            .collect();
        let ids = ids.into_iter().collect();
        Cluster {
            nodes,
            ids,
            writes: Vec::new(),
            acknowledged: BTreeMap::new(),
            next: 1,
            reads: BTreeMap::new(),
            displaced: 0,
        }
    }

    fn id(&self, n: usize) -> NodeId {
        self.ids[n % self.ids.len()]
    }

    fn view(&self, id: NodeId) -> &Membership {
        &self.nodes[&id].membership
    }

    fn coordinates(&self, id: NodeId) -> bool {
        match self.view(id).transition() {
            Some(transition) => transition.coordinates(id),
            None => self.view(id).layout().unwrap().is_member(id),
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Gossip(a, b) => {
                let (a, b) = (self.id(a), self.id(b));
                let said = self.view(a).clone();
                let known = |cluster: &Cluster| {
                    let layout = cluster.view(b).layout().unwrap();
                    (layout.version(), layout.hash())
                };
                let before = known(self);
                self.nodes.get_mut(&b).unwrap().membership.merge_from(a, &said).unwrap();
                let after = known(self);
                self.displaced += usize::from(after.0 == before.0 && after.1 != before.1);
            }
            Act::BeginWrite(n, p) => {
                let id = self.id(n);
                if !self.coordinates(id) {
                    return;
                }
                let view = self.view(id);
                let layouts: Vec<&Layout> = match view.transition() {
                    Some(t) => vec![t.from(), t.to()],
                    None => vec![view.layout().unwrap()],
                };
                let slot = slot(p);
                let quorums: Vec<_> = layouts
                    .iter()
                    .map(|l| (owners(l, slot).collect::<BTreeSet<_>>(), BTreeSet::new(), w(l)))
                    .collect();
                let targets = quorums.iter().flat_map(|(owners, ..)| owners.iter().copied()).collect();
                let hashes = layouts.iter().map(|layout| layout.hash()).collect();
                let write = Write {
                    coordinator: n % self.ids.len(),
                    slot,
                    value: self.next,
                    quorums,
                    targets,
                    layouts: hashes,
                };
                self.next += 1;
                self.writes.push(write);
            }
            Act::Deliver(i) => {
                let under_way: usize = self.writes.iter().map(|w| w.targets.len()).sum();
                if under_way == 0 {
                    return;
                }
                let mut i = i % under_way;
                for write in &mut self.writes {
                    if i >= write.targets.len() {
                        i -= write.targets.len();
                        continue;
                    }
                    let to = *write.targets.iter().nth(i).unwrap();
                    write.targets.remove(&to);
                    let held = self.nodes.get_mut(&to).unwrap().data.entry(write.slot).or_default();
                    held.insert(write.value);
                    for (owners, answered, _) in &mut write.quorums {
                        if owners.contains(&to) {
                            answered.insert(to);
                        }
                    }
                    if write.quorums.iter().all(|(_, answered, w)| answered.len() >= *w) {
                        self.acknowledged.entry(write.slot).or_default().insert(write.value);
                    }
                    break;
                }
            }
            Act::Lose(i) => {
                if !self.writes.is_empty() {
                    let i = i % self.writes.len();
                    self.writes.remove(i);
                }
            }
            Act::Read(n, p, skip) => {
                let id = self.id(n);
                if !self.coordinates(id) {
                    return;
                }
                let view = self.view(id);
                let layout = match view.transition() {
                    Some(t) => t.reads_by(id),
                    None => view.layout().unwrap(),
                };
                let slot = slot(p);
                let mut owners: Vec<NodeId> = owners(layout, slot).collect();
                let count = owners.len();
                assert_eq!(count, usize::from(layout.replicas()));
                owners.rotate_left(skip % count);
                owners.truncate(r(layout));
                let seen: BTreeSet<&u64> =
                    owners.iter().filter_map(|o| self.nodes[o].data.get(&slot)).flatten().collect();
                for value in self.acknowledged.get(&slot).into_iter().flatten() {
                    assert!(seen.contains(value), "{id} misses {value} in {slot:?}, which was acknowledged");
                }
                let step = view.transition().map(|t| t.step());
                *self.reads.entry(step).or_default() += 1;
            }
            Act::Progress(n, skip) => {
                let id = self.id(n);
                match self.view(id).transition().map(|t| t.due(id)) {
                    Some(Some(Phase::Acknowledged)) => self.acknowledge(id),
                    Some(Some(Phase::Synced)) => self.transfer(id, skip),
                    Some(Some(phase)) => {
                        self.nodes.get_mut(&id).unwrap().membership.advance(id, phase).unwrap();
                    }
                    _ => self.settle(id),
                }
            }
        }
    }

    fn acknowledge(&mut self, id: NodeId) {
        let t = self.view(id).transition().unwrap();
        let hash = t.to().hash();
        let drained = self
            .writes
            .iter()
            .filter(|w| self.ids[w.coordinator] == id && !w.layouts.contains(&hash))
            .all(|w| w.targets.is_empty());
        if drained {
            self.nodes.get_mut(&id).unwrap().membership.advance(id, Phase::Acknowledged).unwrap();
        }
    }

    /// Copies one slot, or declares that there is none to copy.
    fn transfer(&mut self, id: NodeId, skip: usize) {
        let t = self.view(id).transition().unwrap();
        let (from, to) = (t.from().clone(), t.to().clone());
        let owns = |layout, slot| owners(layout, slot).any(|owner| owner == id);
        // Who stays may lack what W others have: no read that meets W of the old owners misses it, but a smaller one may.
        let all = r(&to) + w(&from) <= usize::from(from.replicas());
        let missing = (0..SLOTS).map(slot).find(|&slot| {
            owns(&to, slot)
                && (all || !owns(&from, slot))
                && !self.nodes[&id].copied.contains(&(to.hash(), slot))
        });
        if let Some(slot) = missing {
            let mut sources: Vec<NodeId> = owners(&from, slot).collect();
            let count = sources.len();
            sources.rotate_left(skip % count);
            sources.truncate(count - w(&from) + 1);
            let copy: Vec<u64> =
                sources.iter().filter_map(|s| self.nodes[s].data.get(&slot)).flatten().copied().collect();
            let node = self.nodes.get_mut(&id).unwrap();
            node.copied.insert((to.hash(), slot));
            node.data.entry(slot).or_default().extend(copy);
        } else {
            self.nodes.get_mut(&id).unwrap().membership.advance(id, Phase::Synced).unwrap();
        }
    }

    fn settle(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.membership.settle();
        // Who knows that the old layout is retired drops what it owns no more.
        if node.membership.transition().is_none() {
            let layout = node.membership.layout().unwrap().clone();
            if layout.version().0 == 2 {
                node.data.retain(|&slot, _| owners(&layout, slot).any(|owner| owner == id));
            }
        }
    }
}

/// A small random source (SplitMix64), so that a seed is all that a failure needs.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }
}

type Case = (&'static [u64], &'static [u64], [(u8, u32); 2]);

/// Members before and after, N and Q before and after.
const CHANGES: [Case; 10] = [
    (&[1, 2, 3], &[1, 2, 3, 4], [(3, 2); 2]),
    (&[1, 2, 3, 4], &[1, 2, 3], [(3, 2); 2]),
    (&[1, 2, 3, 4], &[1, 4, 5, 6], [(3, 2); 2]),
    (&[1, 2, 3], &[4, 5, 6], [(3, 2); 2]),
    // Quorums and partitions change, by themselves and with the members.
    (&[1, 2, 3, 4], &[1, 2, 3, 4], [(2, 2), (3, 2)]),
    (&[1, 2, 3, 4], &[1, 2, 3, 4], [(3, 2), (1, 2)]),
    (&[1, 2, 3, 4], &[1, 2, 3, 4], [(3, 1), (3, 4)]),
    (&[1, 2, 3, 4], &[1, 2, 3, 5], [(3, 4), (2, 1)]),
    (&[1, 2, 3], &[2, 3, 4, 5], [(1, 1), (4, 4)]),
    (&[1, 2, 3, 4, 5], &[2, 3, 4], [(5, 2), (3, 4)]),
];

/// Returns how many reads took place in each step, as their readers knew it, and how often a commit was displaced.
fn run(seed: u64) -> (BTreeMap<Option<Step>, usize>, usize) {
    let mut random = Random(seed);
    let (before, after, shapes) = CHANGES[random.below(CHANGES.len())];
    // A stranger, which adds itself, or a member.
    let rivals = [None, Some((9, 9)), Some((before[2], 9)), Some((before[1], 8))];
    let mut cluster = Cluster::new(before, after, shapes, rivals[random.below(4)]);
    // Each run has its own mixture: how often each kind of act comes up.
    let weights: Vec<usize> = [9, 4, 14, 3, 6, 12].iter().map(|&most| 1 + random.below(most)).collect();
    for _ in 0..400 {
        let mut at = random.below(weights.iter().sum());
        let kind = weights
            .iter()
            .position(|&w| {
                if at < w {
                    true
                } else {
                    at -= w;
                    false
                }
            })
            .unwrap();
        let (n, m) = (random.below(64), random.below(64));
        let slot = u32::try_from(random.below(4)).unwrap();
        cluster.act(match kind {
            0 => Act::Gossip(n, m),
            1 => Act::BeginWrite(n, slot),
            2 => Act::Deliver(n),
            3 => Act::Lose(n),
            4 => Act::Read(n, slot, m),
            _ => Act::Progress(n, m),
        });
    }
    // Left to itself, it comes to an end, and nothing is lost.
    // Two commits may take their turns.
    for _ in 0..8 {
        for n in 0..cluster.ids.len() {
            while cluster.writes.iter().any(|w| !w.targets.is_empty()) {
                cluster.act(Act::Deliver(0));
            }
            for skip in 0..8 {
                cluster.act(Act::Progress(n, skip));
            }
        }
        for n in 0..cluster.ids.len() {
            cluster.act(Act::Gossip(n, 0));
        }
        for n in 0..cluster.ids.len() {
            cluster.act(Act::Gossip(0, n));
        }
    }
    for n in 0..cluster.ids.len() {
        let id = cluster.id(n);
        cluster.act(Act::Progress(n, 0));
        assert!(cluster.view(id).transition().is_none(), "{id} has not settled");
        assert_eq!(cluster.view(id), cluster.view(cluster.ids[0]));
        for slot in 0..SLOTS {
            for skip in 0..5 {
                cluster.act(Act::Read(n, slot, skip));
            }
        }
    }
    (cluster.reads, cluster.displaced)
}

#[test]
fn an_acknowledged_write_is_always_read() {
    let mut reads: BTreeMap<Option<Step>, usize> = BTreeMap::new();
    let mut displaced = 0;
    for seed in 0..1000 {
        let (run, gave_way) =
            std::panic::catch_unwind(|| run(seed)).unwrap_or_else(|_| panic!("seed {seed}"));
        displaced += gave_way;
        for (step, count) in run {
            *reads.entry(step).or_default() += count;
        }
    }
    assert!(displaced > 200, "{displaced}");
    // The schedules do get into every step.
    for step in
        [None, Some(Step::Acknowledging), Some(Step::Transferring), Some(Step::Moving), Some(Step::Done)]
    {
        assert!(reads.get(&step).is_some_and(|&n| n > 50), "{reads:?}");
    }
}
