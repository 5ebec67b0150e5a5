//! Nodes come and go: what an operator does, and what the judge makes of it.

use super::{Crash, World};
use crate::checker::{Invariant, Unrest};
use gramme_quorum::{ClusterOp, Input, RequestId};
use gramme_ring::{Change, Member, Membership, NodeId};

/// A change of the membership, by nodes' numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alteration {
    /// A node joins, or a member's weight changes.
    Member(usize, u32),
    /// A member leaves.
    Leave(usize),
    /// A node that is given up for dead is removed.
    Remove(usize),
}

impl World {
    /// What a node has written down.
    pub(super) fn saved(&mut self, node: usize, membership: Membership) {
        self.hash.event(b'G', [self.now.0, node as u64, membership.digest()], &[]);
        if let Some(layout) = membership.layout() {
            let transition = membership.transition().map(|t| (t.step(), t.waiting_for()));
            let what = format!("node {node} goes by layout {} ({transition:?})", layout.version());
            self.note(&what);
            let layout = self.nodes[node]
                .membership
                .layout()
                .is_none_or(|former| former != layout)
                .then(|| layout.clone());
            self.nodes[node].membership = membership;
            if let Some(layout) = layout
                && layout.version() >= self.layout.version()
            {
                self.layout = layout;
            }
        } else {
            self.nodes[node].membership = membership;
        }
    }

    /// The members, by number.
    #[must_use]
    pub fn members(&self) -> Vec<usize> {
        self.layout.members().iter().map(|member| self.numbers[&member.id]).collect()
    }

    /// Whether a node was lost for good.
    #[must_use]
    pub fn is_gone(&self, node: usize) -> bool {
        self.nodes[node].gone
    }

    /// Nodes that could join.
    #[must_use]
    pub fn spares(&self) -> Vec<usize> {
        let members = self.members();
        (0..self.nodes.len()).filter(|node| !members.contains(node) && !self.nodes[*node].gone).collect()
    }

    /// Whether a transition is live in anybody's eyes.
    #[must_use]
    pub fn is_changing(&self) -> bool {
        self.nodes.iter().any(|node| !node.gone && node.membership.transition().is_some())
    }

    /// An operator alters the membership at a node, and commits.
    pub fn alter(&mut self, at: usize, alterations: &[Alteration]) {
        self.fault(&format!("at node {at}: {alterations:?}"));
        for alteration in alterations {
            let id = |node: usize| self.nodes[node].id;
            let change = match *alteration {
                Alteration::Member(node, weight) => Change::Member(Member::new(id(node)).with_weight(weight)),
                Alteration::Leave(node) => Change::Leave(id(node)),
                Alteration::Remove(node) => Change::Remove(id(node)),
            };
            self.cluster_op(at, ClusterOp::Stage(change));
        }
        self.commit(at);
    }

    /// An operator commits whatever a node has staged, if anything.
    pub fn commit(&mut self, at: usize) {
        let proposal = self.nodes[at].host.as_ref().map(|host| host.engine().membership().propose());
        let Some(Ok(proposal)) = proposal else { return };
        // With fewer members no write could be sure of two copies while one is away.
        let enough = proposal.layout().members().len() >= 3;
        self.cluster_op(at, if enough { ClusterOp::Commit(proposal.hash()) } else { ClusterOp::Clear });
    }

    /// Somebody who is up sees to it that lost nodes are removed, and what waits to be committed is.
    pub fn alter_lost(&mut self) {
        let members = self.members();
        let Some(at) = members.iter().copied().find(|node| self.is_up(*node)) else { return };
        // One that was about to leave is waited for, too.
        let lost: Vec<usize> = (0..self.nodes.len()).filter(|node| self.nodes[*node].gone).collect();
        for lost in lost {
            let id = self.nodes[lost].id;
            let known = self.nodes[at].membership.is_removed(id);
            if !known {
                self.cluster_op(at, ClusterOp::Stage(Change::Remove(id)));
            }
        }
        // Where too few would be left, others take their places.
        let left = self.members().iter().filter(|node| !self.nodes[**node].gone).count();
        for spare in self.spares().into_iter().take(3usize.saturating_sub(left)) {
            let id = self.nodes[spare].id;
            self.cluster_op(at, ClusterOp::Stage(Change::Member(Member::new(id))));
        }
        self.commit(at);
    }

    fn cluster_op(&mut self, at: usize, op: ClusterOp) {
        if self.is_up(at) {
            self.hash.event(b'O', [self.now.0, at as u64, 0], format!("{op:?}").as_bytes());
            self.handle(at, Input::Cluster(RequestId(0), op));
        }
    }

    /// A node goes for good, with its disk.
    pub fn lose(&mut self, node: usize) {
        self.crash(node, Crash::PowerCut);
        self.fault(&format!("node {node} is gone for good"));
        self.nodes[node].gone = true;
        self.nodes[node].incomplete = false;
        self.checker.wiped(node);
    }

    /// What is not at rest about the membership.
    pub(super) fn membership_unrest(&self) -> Option<Unrest> {
        let unrest = |what| Some(Unrest { invariant: Invariant::ViewsEqual, key: None, what });
        let members: Vec<NodeId> = self.layout.members().iter().map(|member| member.id).collect();
        let mut digests = Vec::new();
        for node in self.nodes.iter().filter(|node| members.contains(&node.id)) {
            let Some(host) = &node.host else { return unrest(format!("{} is down", node.id)) };
            let membership = host.engine().membership();
            if let Some(transition) = membership.transition() {
                let (step, late) = (transition.step(), transition.waiting_for());
                let first = late.first().and_then(|id| self.nodes[self.numbers[id]].host.as_ref());
                let status = first.map(|host| host.engine().status(gramme_quorum::Instant::default()));
                return unrest(format!("{} is {step}, waiting for {late:?}: {status:?}", node.id));
            }
            let status = host.engine().status(gramme_quorum::Instant::default());
            if status.sweeping_partitions > 0 {
                return unrest(format!("{} still sweeps: {status:?}", node.id));
            }
            digests.push((node.id, membership.digest()));
        }
        let differs = digests.iter().find(|(_, digest)| *digest != digests[0].1)?;
        unrest(format!("{} and {} know different things", digests[0].0, differs.0))
    }
}
