//! Recovery: a node that may have lost what it acknowledged gets it back from the other owners; a node that is to own
//! more gets that in the same way.
//!
//! Until then its copies are merged by readers and count toward no quorum (those of keys whose writes are synced first do, if all
//! that is missing is what was not synced). N − W + 1 other owners intersect every write
//! quorum that this node was part of, so a partition is complete when it was pulled from that many, each of them
//! complete itself, or lacking no more than writes that its mode lets go with the machine; for each that has damaged copies, one
//! more, if there is one that lacks nothing. W is the least that any keyspace
//! has or had, a majority at the most. (A write acknowledged by a fallback comes back with that one's hint; a write with W = 1
//! may have been here alone, and one that named a W of its own below all of these where nobody asks.)

use crate::config::Unsynced;
use crate::engine::{Engine, Timer};
use crate::keyspace::{Durability, Keyspaces};
use crate::planted::Bug;
use crate::time::{Instant, Now};
use crate::transition::units;
use crate::view::copies;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use gramme_ring::{NodeId, Slot};

/// A peer that has gaps is asked again after a retry time, then after twice as long, and so on so many times.
const MAX_DOUBLINGS: u32 = 4;

/// What is still to be had from others.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    /// Partitions by their first slots.
    open: BTreeMap<u16, Unit>,
    queue: VecDeque<((u16, u16), NodeId)>,
    armed: bool,
    /// So much of all may be missing, and what that is shows when the layout is known.
    all: Option<Missing>,
    /// By what went with the machine, if that is known: keys whose writes are synced first lack none.
    rules: Option<Keyspaces>,
    /// The caller takes this node for incomplete, and is to be told when it no longer is.
    untold: bool,
}

/// What was acknowledged here and may be gone; the graver the later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Missing {
    /// Writes that were acknowledged before they were synced, as their keyspaces allow, and went with the machine.
    Unsynced,
    /// Anything that was ever acknowledged here.
    Lost,
}

/// What came of a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pulled {
    /// All of the peer's copies are here, durably.
    Whole {
        /// There was nothing to be had of some, since they are damaged for good.
        damaged: bool,
    },
    /// The peer may lack something itself.
    Lacking,
    /// All but some of its copies, which can't be read just now, or of which all that anybody has is damaged.
    Gaps,
    Failed,
}

#[derive(Debug)]
struct Unit {
    last: u16,
    missing: Option<Missing>,
    /// Older writes are missing in any case, since this node has just become an owner.
    gained: bool,
    /// Nothing is missing, but reads are about to rely on every owner having what a quorum had.
    compared: bool,
    /// The owners that it was pulled from, each with whether copies of its own are damaged.
    done: Vec<(NodeId, bool)>,
    /// The owners that have said that they lack something themselves.
    lacking: Vec<NodeId>,
    /// Those of which something could not be had, how often in a row, and when to ask again.
    gaps: BTreeMap<NodeId, (u32, Instant)>,
    /// Pulls that came to nothing: another owner is tried first.
    failed: usize,
}

impl Recovery {
    /// Something that was acknowledged here may be missing.
    pub(crate) fn has_lost(&self) -> bool {
        self.all.is_some() || self.open.values().any(Unit::is_lost)
    }

    /// Something that a transition is to bring is still missing, or may be.
    pub(crate) fn has_gains(&self) -> bool {
        self.open.values().any(|unit| unit.gained || unit.compared)
    }

    /// Nothing more is pulled until the timer comes.
    pub(crate) fn rest(&mut self) {
        self.queue.clear();
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    /// Partitions that are not complete here: lost ones, and gained ones.
    pub(crate) fn remaining(&self) -> (usize, usize) {
        let lost = self.open.values().filter(|unit| unit.is_lost()).count();
        (lost, self.open.len() - lost)
    }

    /// The transition that would have brought them is over.
    pub(crate) fn forget_gains(&mut self) {
        self.open.retain(|_, unit| unit.is_lost());
        self.open.values_mut().for_each(|unit| (unit.gained, unit.compared) = (false, false));
    }

    fn insert(&mut self, units: impl IntoIterator<Item = (u16, u16)>, mut why: impl FnMut(&mut Unit)) {
        for (first, last) in units {
            let new = Unit {
                last,
                missing: None,
                gained: false,
                compared: false,
                done: Vec::new(),
                lacking: Vec::new(),
                gaps: BTreeMap::new(),
                failed: 0,
            };
            let unit = self.open.entry(first).or_insert(new);
            why(unit);
            unit.last = unit.last.max(last);
        }
    }
}

impl Unit {
    /// Something that was acknowledged here may be missing.
    const fn is_lost(&self) -> bool {
        self.missing.is_some()
    }
}

impl Engine {
    /// This node's store may have lost something: all that it owns is to be had from others.
    pub(crate) fn lost_all(&mut self, now: Now, missing: Missing) {
        self.recovery.untold = true;
        // A layout that is being written down may make it an owner.
        self.recovery.all = Some(missing).filter(|_| self.view.reading().is_none() || self.is_saving());
        if self.recovery.all.is_some() {
            return;
        }
        let me = self.config.node;
        let owned =
            |(first, _): &(u16, u16)| Slot::new(*first).is_some_and(|slot| self.view.is_owner(slot, me));
        let finest = self.view.writing().max_by_key(|layout| layout.partitions());
        let lost: Vec<(u16, u16)> = finest.into_iter().flat_map(units).filter(owned).collect();
        self.recovery.insert(lost, |unit| unit.missing = unit.missing.max(Some(missing)));
        self.begin_recovery(now);
        self.tell_recovered();
    }

    /// The caller is to take this node for incomplete, before it goes by a layout that shows so.
    pub(crate) fn tell_incomplete(&mut self) {
        self.recovery.untold = true;
        self.out.incomplete();
    }

    fn tell_recovered(&mut self) {
        let done = self.recovery.untold && !self.recovery.has_lost() && !self.is_saving();
        if done {
            self.recovery.untold = false;
            self.out.recovered();
        }
    }

    /// A transition brings some partitions, and lets reads rely on others being everywhere. What was pulled before has not seen all that
    /// was written by the former layout or rules alone.
    pub(crate) fn gain(&mut self, now: Now, gained: Vec<(u16, u16)>, compared: Vec<(u16, u16)>) {
        if gained.is_empty() && compared.is_empty() {
            return;
        }
        let early = self.config.planted.is(Bug::EarlyPullCounts);
        self.recovery.insert(gained, |unit| {
            unit.gained = true;
            unit.done.retain(|_| early);
        });
        self.recovery.insert(compared, |unit| {
            unit.compared = true;
            unit.done.clear();
        });
        self.recovery.rest();
        self.stop_pulls(now, |_| true);
        self.begin_recovery(now);
        self.continue_recovery(now);
    }

    /// Whether what was lost can be told by now.
    pub(crate) fn resume_recovery(&mut self, now: Now) {
        if let Some(missing) = self.recovery.all {
            self.lost_all(now, missing);
        }
        self.continue_recovery(now);
        self.tell_recovered();
    }

    fn begin_recovery(&mut self, now: Now) {
        if !self.recovery.is_idle() && !core::mem::replace(&mut self.recovery.armed, true) {
            self.timers.insert((now.instant + self.config.timing.retry, Timer::Recovery));
        }
    }

    /// The machine went down with what was not synced. What was, by the rules that this node went by until then, is here.
    pub(crate) fn lost_unsynced(&mut self, now: Now, when: Unsynced) {
        let is_settled = when == Unsynced::Now && self.view.transition().is_none();
        self.recovery.rules = is_settled.then(|| self.replica.keyspaces.clone());
        self.lost_all(now, Missing::Unsynced);
    }

    /// Whether this node may lack writes of this key: some that it acknowledged, or older ones.
    pub(crate) fn is_incomplete(&self, key: &[u8]) -> bool {
        let Some(unit) = self.unit(Slot::of(key)) else { return false };
        let is_synced = |rules: &Keyspaces| rules.of(key).durability == Durability::Group;
        unit.gained
            || match unit.missing {
                None => false,
                Some(Missing::Lost) => true,
                Some(Missing::Unsynced) => !self.recovery.rules.as_ref().is_some_and(is_synced),
            }
    }

    /// Whether what is here will do as a source for others: it lacks nothing, or only what any copy may lack.
    pub(crate) fn is_source(&self, slot: Slot) -> bool {
        self.unit(slot).is_none_or(|unit| !unit.gained && unit.missing != Some(Missing::Lost))
    }

    fn unit(&self, slot: Slot) -> Option<&Unit> {
        let (_, unit) = self.recovery.open.range(..=slot.index()).next_back()?;
        (slot.index() <= unit.last).then_some(unit)
    }

    /// How many other owners intersect every write quorum.
    pub(crate) fn witnesses(&self) -> u8 {
        let others = self.replicas().saturating_sub(1);
        let w = self.replica.keyspaces.least_w(self.replicas());
        (self.replicas() + 1).saturating_sub(w).clamp(1, others.max(1))
    }

    /// From whom a partition can be had, and from how many of them it takes. Where so many owners were given up that there are
    /// not enough, it takes all that are left. What was lost here takes one at least, but for what may go with the machine: where nobody
    /// else can have it, it has gone.
    fn sources(&self, first: u16, missing: Option<Missing>) -> (Vec<NodeId>, usize) {
        let (Some(layout), Some(slot)) = (self.view.reading(), Slot::new(first)) else {
            return (Vec::new(), 1);
        };
        let others = self.other_owners(slot);
        let wanted = copies(layout) + 1 - self.replica.keyspaces.least_w(copies(layout));
        let wanted = usize::from(wanted.max(1));
        let wanted = if self.config.planted.is(Bug::TransferFromOne) { 1 } else { wanted };
        let wanted = wanted.min(others.len()).max(usize::from(missing == Some(Missing::Lost)));
        (others, wanted)
    }

    /// The other owners of a slot, but for those that were given up.
    pub(crate) fn other_owners(&self, slot: Slot) -> Vec<NodeId> {
        self.view.other_owners(slot, self.config.node).collect()
    }

    /// A peer is back, or it is time to look again: who can be pulled from?
    pub(crate) fn continue_recovery(&mut self, now: Now) {
        if self.recovery.is_idle() {
            return;
        }
        let mut queue = Vec::new();
        let mut whole = Vec::new();
        for (&first, unit) in &self.recovery.open {
            let slots = (first, unit.last);
            let (mut owners, wanted) = self.sources(first, unit.missing);
            let done = || unit.done.iter().filter(|(node, _)| owners.contains(node));
            // What a damaged copy held somebody else may have, so another owner stands in for it, if there is one that does not wait itself.
            let more = wanted + done().filter(|(_, damaged)| *damaged).count();
            let whole_ones = owners.iter().filter(|owner| !unit.lacking.contains(owner)).count();
            if done().count() >= wanted.max(more.min(whole_ones)) {
                whole.push(first);
                continue;
            }
            // One at a time: what all of them have is fetched from the first.
            if self.pulls.values().any(|pull| pull.slots == slots) {
                continue;
            }
            let rests = |owner: &NodeId| unit.gaps.get(owner).is_some_and(|(_, again)| *again > now.instant);
            owners.retain(|owner| unit.done.iter().all(|(done, _)| done != owner));
            owners.retain(|owner| self.is_alive(*owner) && !rests(owner));
            if let Some(owner) = owners.get(unit.failed % owners.len().max(1)) {
                queue.push((unit.failed, slots, *owner));
            }
        }
        // Those for which nothing came don't hold up the others.
        queue.sort_by_key(|(failed, ..)| *failed);
        self.recovery.queue = queue.into_iter().map(|(_, slots, owner)| (slots, owner)).collect();
        for first in whole {
            self.recovery.open.remove(&first);
        }
        self.tell_recovered();
        self.pump_pulls(now);
    }

    /// The next partition to be pulled.
    pub(crate) fn next_to_recover(&mut self) -> Option<((u16, u16), NodeId)> {
        while let Some((slots, peer)) = self.recovery.queue.pop_front() {
            if self.recovery.open.get(&slots.0).is_some_and(|unit| unit.last == slots.1) {
                return Some((slots, peer));
            }
        }
        None
    }

    /// A pull has ended.
    pub(crate) fn recovery_pulled(&mut self, now: Now, peer: NodeId, slots: (u16, u16), pulled: Pulled) {
        let Some(unit) = self.recovery.open.get_mut(&slots.0).filter(|unit| unit.last == slots.1) else {
            return;
        };
        unit.lacking.retain(|other| *other != peer);
        if let Pulled::Whole { damaged } = pulled {
            unit.done.push((peer, damaged));
            return self.continue_recovery(now);
        }
        unit.lacking.extend((pulled == Pulled::Lacking).then_some(peer));
        unit.failed += 1;
        if pulled == Pulled::Gaps {
            let (times, again) = unit.gaps.entry(peer).or_insert((0, now.instant));
            *again = now.instant + self.config.timing.retry * (1 << *times);
            *times = (*times + 1).min(MAX_DOUBLINGS);
        }
    }

    /// Ends what has stalled, and looks again.
    pub(crate) fn recovery_timer(&mut self, now: Now) {
        self.recovery.armed = false;
        self.stop_stalled_pulls(now);
        self.continue_recovery(now);
        self.begin_recovery(now);
    }
}
