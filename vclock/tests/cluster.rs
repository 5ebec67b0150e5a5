//! Random runs of a small cluster with crashes, drops, handovers and failed appends, against causal histories.
//!
//! The model of a copy is the set of writes that reached it, and nothing else; a merge is their union. A value is live
//! where its write reached and none that reached covers it. The object under test must show the same.

mod common;

use common::serve_other_keys;
use gramme_vclock::{Actor, Dot, GrowableDotSet, GrowableSiblings, Minter, Written};
use proptest::prelude::*;
use std::collections::BTreeSet;

const NODES: usize = 4;
const CLIENTS: usize = 3;

type Object = GrowableSiblings<usize>;
type Writes = BTreeSet<usize>;

#[derive(Clone, Default)]
struct Copy {
    object: Object,
    writes: Writes,
    /// What its node had minted when it came to be there; 0 if the node's store was opened with it.
    since: u64,
}

impl Copy {
    fn merge(&mut self, other: &Copy) {
        let Ok(_) = self.object.merge(other.object.clone());
        self.writes.extend(&other.writes);
    }
}

struct Node {
    copy: Copy,
    durable: Copy,
    minter: Minter,
}

#[derive(Clone, Default)]
struct Context {
    dots: GrowableDotSet,
    covers: Writes,
}

struct Write {
    /// None for a discard, which mints nothing.
    dot: Option<Dot>,
    covers: Writes,
}

struct Cluster {
    nodes: Vec<Node>,
    clients: Vec<Context>,
    /// Everything that was ever sent, to arrive late or again.
    sent: Vec<Copy>,
    writes: Vec<Write>,
    acknowledged: Writes,
    flattened: bool,
    /// Whether nodes remember since when they have held a copy.
    remembers: bool,
    next_actor: u64,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A client writes under its context; the answer waits for the sync, or never comes.
    Write {
        node: usize,
        client: usize,
        acknowledged: bool,
    },
    /// A client forgets its context.
    Forget {
        client: usize,
    },
    /// A client reads through two nodes.
    Read {
        nodes: [usize; 2],
        client: usize,
    },
    /// A client discards what it knows, without a value in its place.
    Discard {
        node: usize,
        client: usize,
    },
    /// A write is minted and sent, but the local append fails.
    WriteNotKept {
        node: usize,
        client: usize,
        to: usize,
    },
    Send {
        from: usize,
        to: usize,
    },
    /// An old message arrives, late or again.
    Late {
        message: prop::sample::Index,
        to: usize,
    },
    Sync {
        node: usize,
    },
    /// The unsynced tail is gone, the store is opened under a new actor.
    Crash {
        node: usize,
    },
    /// The copy goes to another node, which syncs, and is dropped.
    HandOver {
        from: usize,
        to: usize,
    },
    /// Another key of the slot takes a counter.
    Other {
        node: usize,
    },
    /// Another key's copy is dropped.
    DropOther {
        node: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let node = || 0..NODES;
    let client = || 0..CLIENTS;
    let step = prop_oneof![
        8 => (node(), client(), prop::bool::weighted(0.8))
            .prop_map(|(node, client, acknowledged)| Step::Write { node, client, acknowledged }),
        1 => client().prop_map(|client| Step::Forget { client }),
        2 => (node(), node(), client()).prop_map(|(a, b, client)| Step::Read { nodes: [a, b], client }),
        1 => (node(), client()).prop_map(|(node, client)| Step::Discard { node, client }),
        1 => (node(), client(), node()).prop_map(|(node, client, to)| Step::WriteNotKept { node, client, to }),
        4 => (node(), node()).prop_map(|(from, to)| Step::Send { from, to }),
        2 => (any::<prop::sample::Index>(), node()).prop_map(|(message, to)| Step::Late { message, to }),
        1 => node().prop_map(|node| Step::Sync { node }),
        1 => node().prop_map(|node| Step::Crash { node }),
        2 => (node(), node()).prop_map(|(from, to)| Step::HandOver { from, to }),
        1 => node().prop_map(|node| Step::Other { node }),
        1 => node().prop_map(|node| Step::DropOther { node }),
    ];
    prop::collection::vec(step, 1..60)
}

impl Cluster {
    fn new(flattened: bool, remembers: bool) -> Cluster {
        let node = |at: usize| Node {
            copy: Copy::default(),
            durable: Copy::default(),
            minter: Minter::new(Actor(at as u64)),
        };
        Cluster {
            nodes: (0..NODES).map(node).collect(),
            clients: vec![Context::default(); CLIENTS],
            sent: vec![Copy::default()],
            writes: Vec::new(),
            acknowledged: Writes::new(),
            flattened,
            remembers,
            next_actor: 100,
        }
    }

    /// Mints at a node and answers the copy after the write, and the writer's context.
    fn mint(&mut self, node: usize, client: usize) -> (Copy, Context) {
        let this = self.writes.len();
        let Context { mut dots, mut covers } = self.clients[client].clone();
        let node = &mut self.nodes[node];
        let mut copy = node.copy.clone();
        let written = if self.remembers {
            copy.object.write_held(&dots, &mut node.minter, copy.since, this)
        } else {
            copy.object.write(&dots, &mut node.minter, this)
        };
        let Written { dot, context: handed_back } = written.expect("nothing names what is not minted");
        copy.writes.insert(this);
        self.writes.push(Write { dot: Some(dot), covers: covers.clone() });
        covers.insert(this);
        let Ok(()) = dots.insert(dot);
        self.sent.push(copy.clone());
        (copy, Context { dots: if self.flattened { handed_back } else { dots }, covers })
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write { node, client, acknowledged } => {
                let (copy, context) = self.mint(node, client);
                self.nodes[node].copy = copy;
                if acknowledged {
                    self.sync(node);
                    self.acknowledged.insert(self.writes.len() - 1);
                    self.clients[client] = context;
                }
            }
            Step::WriteNotKept { node, client, to } => {
                let (copy, _) = self.mint(node, client);
                let node_of_write = &mut self.nodes[node];
                node_of_write.minter.break_hold();
                node_of_write.copy.since = node_of_write.minter.minted();
                if to != node {
                    self.nodes[to].copy.merge(&copy);
                }
            }
            Step::Forget { client } => self.clients[client] = Context::default(),
            Step::Read { nodes: [a, b], client } => {
                let mut read = self.nodes[a].copy.clone();
                read.merge(&self.nodes[b].copy);
                let covers = self.known_or_covered(&read.writes);
                self.clients[client] = Context { dots: read.object.seen().clone(), covers };
            }
            Step::Discard { node, client } => {
                let Context { dots, covers } = self.clients[client].clone();
                let copy = &mut self.nodes[node].copy;
                let Ok(_) = copy.object.discard(&dots);
                copy.writes.insert(self.writes.len());
                self.writes.push(Write { dot: None, covers });
            }
            Step::Send { from, to } => {
                let copy = self.nodes[from].copy.clone();
                self.nodes[to].copy.merge(&copy);
                self.sent.push(copy);
            }
            Step::Late { message, to } => self.nodes[to].copy.merge(message.get(&self.sent)),
            Step::Sync { node } => self.sync(node),
            Step::Crash { node } => {
                self.next_actor += 1;
                let node = &mut self.nodes[node];
                node.copy = node.durable.clone();
                node.minter = Minter::new(Actor(self.next_actor));
                node.copy.since = 0;
            }
            Step::HandOver { from, to } if from != to => {
                let copy = self.nodes[from].copy.clone();
                self.nodes[to].copy.merge(&copy);
                self.sync(to);
                let dropper = &mut self.nodes[from];
                dropper.minter.break_hold();
                dropper.copy = Copy { since: dropper.minter.minted(), ..Copy::default() };
            }
            Step::HandOver { .. } => {}
            Step::Other { node } => serve_other_keys(&mut self.nodes[node].minter, 1),
            Step::DropOther { node } => self.nodes[node].minter.break_hold(),
        }
        for node in &self.nodes {
            self.check(&node.copy, self.flattened);
        }
    }

    fn sync(&mut self, node: usize) {
        self.nodes[node].durable = self.nodes[node].copy.clone();
    }

    fn known_or_covered(&self, writes: &Writes) -> Writes {
        writes.iter().chain(writes.iter().flat_map(|w| &self.writes[*w].covers)).copied().collect()
    }

    fn live(&self, writes: &Writes) -> Writes {
        let covered = |w: &usize| writes.iter().any(|by| self.writes[*by].covers.contains(w));
        writes.iter().copied().filter(|w| self.writes[*w].dot.is_some() && !covered(w)).collect()
    }

    /// Whether an object shows what reached it. A flattened context may tell of a replacement ahead of the write that
    /// replaced.
    fn check(&self, copy: &Copy, ahead: bool) {
        let held: Writes = copy.object.iter().map(|(_, w)| *w).collect();
        let live = self.live(&copy.writes);
        let minted = |w: &usize| self.writes[*w].dot;
        let seen: Writes = (0..self.writes.len())
            .filter(|w| minted(w).is_some_and(|dot| copy.object.seen().contains(dot)))
            .collect();
        let known: Writes =
            self.known_or_covered(&copy.writes).into_iter().filter(|w| minted(w).is_some()).collect();
        if ahead {
            assert!(held.is_subset(&live), "{held:?} shown of {live:?}");
            assert!(known.is_subset(&seen), "{seen:?} seen of {known:?}");
        } else {
            assert_eq!(held, live);
            assert_eq!(seen, known);
        }
    }

    fn run(flattened: bool, remembers: bool, steps: Vec<Step>) {
        let mut cluster = Cluster::new(flattened, remembers);
        for step in steps {
            cluster.step(step);
        }
        // What is durable is what a cluster comes back with, whatever crashes now.
        let mut all = Copy::default();
        for node in &cluster.nodes {
            all.merge(&node.durable);
        }
        // Discards and unacknowledged writes may have reached a disk or not; no acknowledged write may be missing
        // without a known write that covers it.
        let known = cluster.known_or_covered(&all.writes);
        assert!(cluster.acknowledged.is_subset(&known), "an acknowledged write is lost");
        let shown: Writes = all.object.iter().map(|(_, w)| *w).collect();
        let live = cluster.live(&all.writes);
        let lost: Vec<_> = cluster.acknowledged.intersection(&live).filter(|w| !shown.contains(w)).collect();
        assert!(lost.is_empty(), "acknowledged, covered by nothing known, and not shown: {lost:?}");
        for node in &cluster.nodes {
            all.merge(&node.copy);
        }
        cluster.check(&all, false);
        // Every order and repetition ends there.
        let mut other = Copy::default();
        for copy in cluster.nodes.iter().rev().flat_map(|node| [&node.copy, &node.durable, &node.copy]) {
            other.merge(copy);
        }
        assert_eq!(other.object, all.object);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn exact_contexts_show_the_causal_history(steps in steps(), remembers: bool) {
        Cluster::run(false, remembers, steps);
    }

    #[test]
    fn flattened_contexts_lose_nothing_and_end_alike(steps in steps(), remembers: bool) {
        Cluster::run(true, remembers, steps);
    }
}
