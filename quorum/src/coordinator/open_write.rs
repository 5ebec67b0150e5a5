//! A write under way: what it waits for, by each layout in use.

use super::{Origin, Plan};
use crate::keyspace::Durability;
use crate::message::Syncing;
use crate::object::{self, Content, Object, Rank};
use crate::op::{Expiry, WriteOptions};
use crate::tally::{Shortfall, Tally, Verdict};
use crate::time::Instant;
use alloc::vec::Vec;
use bytes::Bytes;
use gramme_ring::NodeId;
use gramme_vclock::GrowableContext as Context;

/// A write being coordinated here. It lives on after its answer until every replica has it or has a hint.
#[derive(Debug)]
pub(crate) struct Write {
    /// Taken when it is answered.
    pub(super) origin: Option<Origin>,
    pub(super) key: Bytes,
    pub(super) content: Content,
    pub(super) expiry: Option<Expiry>,
    pub(super) plain: bool,
    pub(super) durability: Durability,
    pub(super) options: WriteOptions,
    /// The commit by whose layouts and rules it goes.
    pub(super) commit: Option<u64>,
    /// Its quorum by each layout in use: one, or two while a transition is live. It is acknowledged when all are met.
    pub(super) parts: Vec<Part>,
    pub(super) sent: Option<Sent>,
    /// Nodes to which it went once more, and which have not answered what they were asked before.
    pub(super) asked_again: Vec<NodeId>,
    /// The owners for whom this node keeps a hint from the start.
    pub(super) hinted_here: Vec<NodeId>,
    /// Siblings that a plain write must cover before it may be acknowledged.
    pub(super) outranking: Option<Object>,
    /// Some replica may have written it without telling.
    pub(super) uncertain: bool,
    /// Some replica has too much to do, and may take it later.
    pub(super) overloaded: bool,
    /// Its bytes until it is answered, and once it lingers.
    pub(super) weighs: usize,
    pub(super) lingers: usize,
    pub(super) began: Instant,
    pub(super) deadline: Instant,
    pub(super) patience: Instant,
    pub(super) round: u8,
}

/// The quorum of a write by one layout.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) plan: Plan,
    pub(super) tally: Tally,
    /// Owners for which this node has written a hint.
    pub(super) hinted: usize,
}

impl Write {
    /// Nobody was answered yet.
    pub(crate) fn is_open(&self) -> bool {
        self.origin.is_some()
    }

    /// Its bytes if it is answered and waits for the rest of its replicas, else 0.
    pub(super) const fn lingers(&self) -> usize {
        self.lingers
    }

    /// Whether it goes by this commit. Two on one parent have one version, and one layout if they change settings alone.
    pub(crate) fn goes_by(&self, commit: Option<u64>) -> bool {
        self.commit == commit
    }

    /// The nodes that are asked, each once.
    pub(super) fn targets(&self) -> Vec<NodeId> {
        let targets = self.parts.iter().flat_map(|part| &part.plan.targets);
        let mut nodes: Vec<NodeId> = Vec::new();
        for target in targets {
            if !nodes.contains(&target.node) {
                nodes.push(target.node);
            }
        }
        nodes
    }

    /// The owners for whom a node stands in, by now.
    pub(super) fn hints(&self, node: NodeId) -> Vec<NodeId> {
        let targets = self.parts.iter().filter_map(|part| part.plan.target(node));
        let mut owners: Vec<NodeId> = targets.filter_map(|target| target.stands_for).collect();
        owners.dedup();
        owners
    }

    /// What a replica is to do first.
    pub(super) fn sync(&self, node: NodeId) -> Syncing {
        let first = self.parts.first().and_then(|part| part.plan.targets.first());
        match self.durability {
            Durability::Group => Syncing::First,
            Durability::One if first.is_some_and(|target| target.node == node) => Syncing::Now,
            Durability::One | Durability::Interval => Syncing::Later,
        }
    }

    pub(super) fn is_waiting_for(&self, node: NodeId) -> bool {
        self.parts.iter().any(|part| part.tally.is_waiting_for(node))
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.parts.iter().any(|part| part.tally.waiting().next().is_some())
    }

    /// What it takes: its value, its object as it is sent, and what it is to cover.
    pub(super) fn bytes(&self) -> usize {
        let outranking = self.outranking.as_ref().map_or(0, object::weigh_all);
        outranking
            + self.key.len()
            + self.content.size()
            + self.sent.as_ref().map_or(0, |sent| sent.encoded.len())
    }

    /// The worst of the verdicts.
    pub(super) fn verdict(&self) -> Verdict {
        let mut verdict = Verdict::Met;
        for part in &self.parts {
            match part.tally.verdict() {
                Verdict::Met => {}
                Verdict::Pending => verdict = Verdict::Pending,
                impossible @ Verdict::Impossible(_) => return impossible,
            }
        }
        verdict
    }

    /// What is missing, of the quorum that lacks most.
    pub(super) fn shortfall(&self) -> Shortfall {
        let short = self.parts.iter().map(|part| part.tally.shortfall());
        short.max_by_key(|s| s.want.saturating_sub(s.have)).expect("a write has a quorum")
    }
}

/// The write as it went out.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) object: Object,
    pub(super) encoded: Bytes,
    pub(super) context: Context,
    pub(super) rank: Rank,
    pub(super) replaced: bool,
}
