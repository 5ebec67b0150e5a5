//! What the judge is shown of the stores themselves, after a restart and at rest.

use super::{HINTS, World};
use crate::checker::{Circumstances, Invariant, OpId, Unrest};
use crate::node::Node;
use bytes::Bytes;
use gramme_ring::Slot;
use gramme_store::MemDisk;
use std::collections::BTreeMap;

impl World {
    /// A node has opened its store again: it holds what it held.
    pub(super) fn check_recovered(&mut self, node: usize) {
        let keys: Vec<Bytes> = self.checker.keys().cloned().collect();
        let (kept_all, told) = (self.nodes[node].kept_all, self.nodes[node].incomplete);
        for key in keys {
            match self.nodes[node].read(Slot::of(&key).index(), &key) {
                Ok(found) => self.checker.recovered(self.now, node, &key, found.as_ref(), kept_all, told),
                Err(what) => self.checker.found_damaged(self.now, node, &key, &what),
            }
        }
        let mut own = BTreeMap::new();
        let places: Vec<u16> = self
            .nodes
            .iter()
            .map(|other| HINTS | u16::try_from(other.id.0 & 0x7fff).unwrap_or_default())
            .collect();
        for place in places {
            for key in self.nodes[node].list(place) {
                if let Ok(Some(value)) = self.nodes[node].read(place, &key) {
                    own.insert((place, key), value);
                }
            }
        }
        self.checker.recovered_own(self.now, node, &own, (kept_all, told), HINTS);
    }

    /// What holds just now, for this key.
    pub(super) fn circumstances(&self, key: &[u8]) -> Circumstances {
        let version = self.layout.version();
        let goes_by = |node: &Node| {
            let membership = node.host.as_ref().map_or(&node.membership, |host| host.engine().membership());
            let other = membership.layout().is_some_and(|layout| layout.version() != version);
            !other && membership.transition().is_none()
        };
        let settled = self.nodes.iter().all(|node| node.gone || goes_by(node));
        // For an owner that was given up nobody keeps hints.
        let settled = settled && self.owners(key).iter().all(|node| !self.nodes[*node].gone);
        let owners = |node: usize| (node, self.nodes[node].id.0);
        let layout = settled.then(|| (version, self.owners(key).into_iter().map(owners).collect()));
        Circumstances { layout, walls: self.walls(), owners: Vec::new() }
    }

    /// A key's owners by each layout that some node goes by.
    pub(super) fn owners_by_all(&self, key: &[u8]) -> Vec<(u64, Vec<usize>)> {
        let mut all: Vec<(u64, Vec<usize>)> = Vec::new();
        for node in self.nodes.iter().filter(|node| !node.gone) {
            let membership = node.host.as_ref().map_or(&node.membership, |host| host.engine().membership());
            let from = membership.transition().map(|transition| transition.from());
            for layout in [from, membership.layout()].into_iter().flatten() {
                if all.iter().all(|(known, _)| *known != layout.hash()) {
                    let owners = layout.owners(layout.partition_of(Slot::of(key)));
                    all.push((layout.hash(), owners.map(|id| self.numbers[&id]).collect()));
                }
            }
        }
        all
    }

    /// What the earliest of all wall clocks shows, and the latest.
    pub(super) fn walls(&self) -> (u64, u64) {
        let shows = self.nodes.iter().map(|node| node.clock.now(self.now).wall_ms);
        shows.fold((u64::MAX, 0), |(low, high), wall| (low.min(wall), high.max(wall)))
    }

    /// What still keeps the cluster from being at rest, if anything.
    #[must_use]
    pub fn unrest(&self) -> Option<Unrest> {
        self.unrest_beside(None)
    }

    /// The same, with the disk of one node full, as it stays: what it can't take or remove is no unrest.
    #[must_use]
    pub fn unrest_beside(&self, full: Option<usize>) -> Option<Unrest> {
        let lacks = |node: &usize| self.nodes[*node].incomplete || self.nodes[*node].unsynced;
        if let Some(node) = self.members().into_iter().find(lacks) {
            let open = |node: &crate::node::Node| {
                let status = node.host.as_ref()?.engine().status(gramme_quorum::Instant::default());
                Some((status.incomplete_partitions, status.gaining_partitions))
            };
            let open: Vec<_> = self.nodes.iter().map(open).collect();
            let what = format!("node {node} has not recovered what it lost; what all lack: {open:?}");
            return Some(Unrest { invariant: Invariant::Convergence, key: None, what });
        }
        if let Some(unrest) = self.membership_unrest(full) {
            return Some(unrest);
        }
        let full = full.map(|node| (node, self.nodes[node].id.0));
        self.checker.unrest(&self.members(), |key| self.owners(key), HINTS, full)
    }

    /// The cluster has not come to rest in time.
    pub fn fail_unrest(&mut self, unrest: Unrest) {
        self.checker.fail_unrest(self.now, unrest);
    }

    /// With the cluster at rest: the stores hold what was written, nothing acknowledged is lost, nothing covered is back.
    pub fn check_rest(&mut self) {
        self.check_rest_beside(None);
    }

    /// The same, with the disk of one node full.
    pub fn check_rest_beside(&mut self, full: Option<usize>) {
        let keys: Vec<Bytes> = self.checker.keys().cloned().collect();
        for node in self.members() {
            // It has all that the others have, whether or not anybody could tell that it had lost something.
            self.nodes[node].outdated = false;
            for key in &keys {
                match self.nodes[node].read(Slot::of(key).index(), key) {
                    Ok(found) => self.checker.matches(self.now, node, key, found.as_ref()),
                    Err(what) => {
                        let what = format!("node {node} can't read {}: {what}", key.escape_ascii());
                        self.checker.fail(self.now, Invariant::HistoryNeverShrinks, None, what);
                    }
                }
            }
        }
        let (layout, numbers) = (&self.layout, &self.numbers);
        let owners = |key: &[u8]| {
            let owners = layout.owners(layout.partition_of(Slot::of(key))).map(|id| numbers[&id]);
            owners.filter(|node| Some(*node) != full).collect::<Vec<_>>()
        };
        self.checker.check_rest(self.now, owners);
    }

    /// What each node that runs has done so far beyond saying that it is alive, what it knows of the cluster, and what all its copies
    /// add up to: what it has asked of others, and records looked for, listed, written or dropped.
    #[must_use]
    pub fn work(&self) -> Vec<Option<[u64; 2]>> {
        let done = |node: &Node| node.host.is_some().then_some([node.sent, node.disk_work]);
        self.nodes.iter().map(done).collect()
    }

    /// Since then a cluster at rest, of which nobody asked anything, has had nothing to do.
    pub fn check_quiet(&mut self, before: &[Option<[u64; 2]>]) {
        let after = self.work();
        if let Some(node) = (0..after.len()).find(|node| after[*node] != before[*node]) {
            let what = format!(
                "node {node} sends, reads or writes at rest: {:?}, and {:?} before",
                after[node], before[node]
            );
            self.checker.fail(self.now, Invariant::Convergence, None, what);
        }
    }

    /// With the cluster at rest and nobody away: a node has done what it was asked.
    pub fn check_served(&mut self, id: OpId, node: usize) {
        self.checker.check_served(self.now, id, node);
    }

    /// A node's disk, to be damaged.
    #[must_use]
    pub fn disk(&self, node: usize) -> &MemDisk {
        self.nodes[node].disk.inner()
    }
}
