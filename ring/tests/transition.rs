//! No interleaving of a transition hides an acknowledged write from a read.
//!
//! A model of a store in which every node knows only what gossip brought it: writes, reads, transfers, declarations and
//! gossip take place in any order. Reads of R owners, by the reader's own view, must show every write that W owners had
//! acknowledged, by the writer's own view, before the read began.

use std::collections::{BTreeMap, BTreeSet};

use gramme_ring::{Change, ClusterId, Layout, Member, Membership, NodeId, Partition, Phase, Step};

const W: usize = 2;
const R: usize = 2;
const N: usize = 3;

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
    partition: Partition,
    value: u64,
    /// For each layout that has to be satisfied: its owners and those who have answered.
    quorums: Vec<(BTreeSet<NodeId>, BTreeSet<NodeId>)>,
    /// Not delivered yet.
    targets: BTreeSet<NodeId>,
    /// The hashes of these layouts.
    layouts: BTreeSet<u64>,
}

struct Node {
    membership: Membership,
    data: BTreeMap<Partition, BTreeSet<u64>>,
    /// Gains merged from N − W + 1 old owners already.
    copied: BTreeSet<(u64, Partition)>,
}

struct Cluster {
    nodes: BTreeMap<NodeId, Node>,
    ids: Vec<NodeId>,
    writes: Vec<Write>,
    acknowledged: BTreeMap<Partition, BTreeSet<u64>>,
    next: u64,
    reads: BTreeMap<Option<Step>, usize>,
    /// How often a node gave up one commit for another of the same version.
    displaced: usize,
}

impl Cluster {
    /// `rival`: who commits something else meanwhile, and which node that adds.
    fn new(before: &[u64], after: &[u64], rival: Option<(u64, u64)>) -> Cluster {
        let me = NodeId(1);
        let mut start = Membership::new();
        start.stage(me, Change::Partitions(2)).unwrap();
        for &id in before {
            start.stage(me, Change::Member(Member::new(NodeId(id)))).unwrap();
        }
        let hash = start.propose().unwrap().hash();
        start.commit(ClusterId(1), hash).unwrap();
        let mut next = start.clone();
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
                let partition = layouts[0].partition_count().partition(p % 2).unwrap();
                let quorums: Vec<_> = layouts
                    .iter()
                    .map(|l| (l.owners(partition).collect::<BTreeSet<_>>(), BTreeSet::new()))
                    .collect();
                let targets = quorums.iter().flat_map(|(owners, _)| owners.iter().copied()).collect();
                let hashes = layouts.iter().map(|layout| layout.hash()).collect();
                let write = Write {
                    coordinator: n % self.ids.len(),
                    partition,
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
                    let held = self.nodes.get_mut(&to).unwrap().data.entry(write.partition).or_default();
                    held.insert(write.value);
                    for (owners, answered) in &mut write.quorums {
                        if owners.contains(&to) {
                            answered.insert(to);
                        }
                    }
                    if write.quorums.iter().all(|(_, answered)| answered.len() >= W) {
                        self.acknowledged.entry(write.partition).or_default().insert(write.value);
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
                let partition = layout.partition_count().partition(p % 2).unwrap();
                let mut owners: Vec<NodeId> = layout.owners(partition).collect();
                assert_eq!(owners.len(), N);
                owners.remove(skip % N);
                assert_eq!(owners.len(), R);
                let seen: BTreeSet<&u64> =
                    owners.iter().filter_map(|o| self.nodes[o].data.get(&partition)).flatten().collect();
                for value in self.acknowledged.get(&partition).into_iter().flatten() {
                    assert!(
                        seen.contains(value),
                        "{id} misses {value} in {partition:?}, which was acknowledged"
                    );
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

    /// Copies one partition, or declares that there is none to copy.
    fn transfer(&mut self, id: NodeId, skip: usize) {
        let t = self.view(id).transition().unwrap();
        let (from, to) = (t.from().clone(), t.to().clone());
        let missing = to
            .partitions_of(id)
            .map(|(p, _)| p)
            .find(|&p| !from.is_owner(p, id) && !self.nodes[&id].copied.contains(&(to.hash(), p)));
        if let Some(partition) = missing {
            let mut sources: Vec<NodeId> = from.owners(partition).collect();
            sources.rotate_left(skip % N);
            sources.truncate(N - W + 1);
            let copy: Vec<u64> = sources
                .iter()
                .filter_map(|s| self.nodes[s].data.get(&partition))
                .flatten()
                .copied()
                .collect();
            let node = self.nodes.get_mut(&id).unwrap();
            node.copied.insert((to.hash(), partition));
            node.data.entry(partition).or_default().extend(copy);
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
                node.data.retain(|&p, _| layout.is_owner(p, id));
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

/// Before, after.
const CHANGES: [(&[u64], &[u64]); 4] = [
    (&[1, 2, 3], &[1, 2, 3, 4]),
    (&[1, 2, 3, 4], &[1, 2, 3]),
    (&[1, 2, 3, 4], &[1, 4, 5, 6]),
    (&[1, 2, 3], &[4, 5, 6]),
];

/// Returns how many reads took place in each step, as their readers knew it, and how often a commit was displaced.
fn run(seed: u64) -> (BTreeMap<Option<Step>, usize>, usize) {
    let mut random = Random(seed);
    let (before, after) = CHANGES[random.below(CHANGES.len())];
    // A stranger, which adds itself, or a member.
    let rivals = [None, Some((9, 9)), Some((before[2], 9)), Some((before[1], 8))];
    let mut cluster = Cluster::new(before, after, rivals[random.below(4)]);
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
        let partition = u32::try_from(random.below(2)).unwrap();
        cluster.act(match kind {
            0 => Act::Gossip(n, m),
            1 => Act::BeginWrite(n, partition),
            2 => Act::Deliver(n),
            3 => Act::Lose(n),
            4 => Act::Read(n, partition, m),
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
            for skip in 0..4 {
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
        for partition in 0..2 {
            for skip in 0..N {
                cluster.act(Act::Read(n, partition, skip));
            }
        }
    }
    (cluster.reads, cluster.displaced)
}

#[test]
fn an_acknowledged_write_is_always_read() {
    let mut reads: BTreeMap<Option<Step>, usize> = BTreeMap::new();
    let mut displaced = 0;
    for seed in 0..800 {
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
