//! Recovery: a node that may have lost what it acknowledged gets it back from the other owners.
//!
//! Until then its copies are merged by readers and count toward no quorum. N − W + 1 other owners intersect every write
//! quorum that this node was part of, so a partition is complete again when it was pulled from that many, each of them
//! complete itself. (A write acknowledged by a fallback comes back with that one's hint; a write with W = 1 may have been here alone.)

use crate::anti_entropy::ends;
use crate::engine::{Engine, Timer};
use crate::time::Now;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use gramme_ring::{NodeId, Slot};

/// What is still to be recovered.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    /// Partitions, with the owners that were pulled from.
    open: BTreeMap<u16, Vec<NodeId>>,
    queue: VecDeque<(u16, NodeId)>,
}

impl Engine {
    /// Begins, if this node's store may have lost something.
    pub(crate) fn start_recovery(&mut self, now: Now) {
        if !self.config.incomplete {
            return;
        }
        let owned = self.layout.partitions_of(self.config.node).map(|(partition, _)| partition);
        let open: BTreeMap<u16, Vec<NodeId>> = owned.map(|p| (p.index(), Vec::new())).collect();
        if open.is_empty() {
            return self.out.recovered();
        }
        self.recovery = Some(Recovery { open, queue: VecDeque::new() });
        self.timers.insert((now.instant + self.config.timing.retry, Timer::Recovery));
    }

    /// Whether this node may lack writes in this slot that it acknowledged.
    pub(crate) fn is_incomplete(&self, slot: Slot) -> bool {
        let partition = self.layout.partition_of(slot).index();
        self.recovery.as_ref().is_some_and(|recovery| recovery.open.contains_key(&partition))
    }

    /// Partitions that may be incomplete here.
    pub(crate) fn incomplete_partitions(&self) -> usize {
        self.recovery.as_ref().map_or(0, |recovery| recovery.open.len())
    }

    /// How many other owners intersect every write quorum.
    pub(crate) fn witnesses(&self) -> u8 {
        let others = self.replicas().saturating_sub(1);
        (self.replicas() + 1).saturating_sub(self.config.w).clamp(1, others.max(1))
    }

    /// A peer is back, or it is time to look again: who can be pulled from?
    pub(crate) fn continue_recovery(&mut self, now: Now) {
        let Some(recovery) = &self.recovery else { return };
        let wanted = usize::from(self.witnesses());
        let count = self.layout.partition_count();
        let mut queue = VecDeque::new();
        for (&index, done) in &recovery.open {
            let Some(partition) = count.partition(index.into()) else { continue };
            let slots = ends(partition);
            let under_way = |node| self.pulls.values().any(|p| p.slots == slots && p.peer == node);
            let mut missing = wanted - done.len();
            for owner in self.layout.owners(partition).filter(|node| *node != self.config.node) {
                if missing > 0 && !done.contains(&owner) && self.is_alive(owner) {
                    missing -= 1;
                    if !under_way(owner) {
                        queue.push_back((index, owner));
                    }
                }
            }
        }
        if let Some(recovery) = &mut self.recovery {
            recovery.queue = queue;
        }
        self.pump_pulls(now);
    }

    /// The next partition to be pulled.
    pub(crate) fn next_to_recover(&mut self) -> Option<((u16, u16), NodeId)> {
        let count = self.layout.partition_count();
        let recovery = self.recovery.as_mut()?;
        while let Some((index, peer)) = recovery.queue.pop_front() {
            if recovery.open.contains_key(&index)
                && let Some(partition) = count.partition(index.into())
            {
                return Some((ends(partition), peer));
            }
        }
        None
    }

    /// A pull has ended; `whole` if all of the peer's copies are here, durably, and the peer was complete.
    pub(crate) fn recovery_pulled(&mut self, peer: NodeId, slots: (u16, u16), whole: bool) {
        let wanted = usize::from(self.witnesses());
        let Some(first) = Slot::new(slots.0) else { return };
        let partition = self.layout.partition_of(first);
        let index = partition.index();
        let Some(recovery) = &mut self.recovery else { return };
        if whole
            && slots == ends(partition)
            && let Some(done) = recovery.open.get_mut(&index)
        {
            done.push(peer);
            if done.len() >= wanted {
                recovery.open.remove(&index);
            }
        }
        if recovery.open.is_empty() {
            self.recovery = None;
            self.out.recovered();
        }
    }

    /// Ends what has stalled, and looks again.
    pub(crate) fn recovery_timer(&mut self, now: Now) {
        if self.recovery.is_none() {
            return;
        }
        self.stop_stalled_pulls(now);
        self.continue_recovery(now);
        if self.recovery.is_some() {
            self.timers.insert((now.instant + self.config.timing.retry, Timer::Recovery));
        }
    }
}
