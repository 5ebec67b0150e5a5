//! From one layout to the next, this node's part: the four steps of [`gramme_ring::transition`].
//!
//! Acknowledge when every write under way goes by both layouts, and what was acknowledged by former rules is synced; copy what this
//! node is to own; move the reads; before that is declared, offer what this node owns no more to those who do, so that nothing
//! depends on it.

use crate::engine::Engine;
use crate::handoff::Handoff;
use crate::planted::Bug;
use crate::time::Now;
use alloc::vec::Vec;
use gramme_ring::{Layout, NodeId, Phase, Slot, Step, Transition};

impl Engine {
    /// Does what is due, and declares what is done. Looked at after every input while a transition is live.
    pub(crate) fn advance_transition(&mut self, now: Now) {
        if self.saving.is_some() {
            return;
        }
        let me = self.config.node;
        let Some(transition) = self.view.transition() else { return };
        let (from, to) = (transition.from(), transition.to());
        // Of two commits on one parent that change settings alone both have one layout.
        let commit = self.view.membership().commit_hash();
        let due = transition.due(me);
        let reached = match due {
            Some(Phase::Acknowledged) => {
                let synced = self.replica.journal.is_synced(self.adopted);
                let synced = synced || self.config.planted.is(Bug::UnsyncedAcked);
                self.config.planted.is(Bug::OldWritesUnderWay)
                    || synced && !self.writes.values().any(|write| write.is_open() && !write.goes_by(commit))
            }
            Some(Phase::Synced) => {
                if self.gaining != commit {
                    let gains = difference(to, from, me);
                    self.gaining = commit;
                    let stays = |slots: &(u16, u16)| owns(from, *slots, me) && owns(to, *slots, me);
                    let compared: Vec<_> =
                        match self.replica.keyspaces.falls && !self.config.planted.is(Bug::FallNotCompared) {
                            true => units(to).filter(stays).collect(),
                            false => Vec::new(),
                        };
                    self.gain(now, gains, compared);
                }
                let hidden = self.config.planted.is(Bug::LossHidesGains) && self.recovery.has_lost();
                !self.recovery.has_gains() || hidden || self.config.planted.is(Bug::ReadsMovedEarly)
            }
            Some(Phase::Moved) => {
                let version = from.version();
                let stays = to.is_member(me) || self.config.planted.is(Bug::LeavesWithHints);
                if self.offering != commit {
                    // What was taken before is to be among what is offered.
                    if !self.replica.queues.has_loaded(self.adopted_load) {
                        return;
                    }
                    // Who leaves offers what it has kept for others, too: a full disk may have refused hints for their heirs.
                    let losses = match to.is_member(me) {
                        true => difference(from, to, me),
                        false => units(finer(from, to)).collect(),
                    };
                    self.offering = commit;
                    self.start_sweep(now, losses, false);
                }
                let read = self.reads.values().any(|read| read.goes_by(version));
                // A write that has waited for an owner in vain leaves a hint.
                !read && self.sweep.is_done() && (stays || self.writes.is_empty() && !self.has_hints())
            }
            None => {
                if transition.step() == Step::Done {
                    self.decide(now, |membership| membership.settle());
                }
                return;
            }
        };
        if reached && let Some(phase) = due {
            self.decide(now, |membership| membership.advance(me, phase).unwrap_or(false));
        }
    }

    /// Another layout is committed, or the transition has come to another step.
    pub(crate) fn layout_changed(&mut self, now: Now) {
        self.stop_exchanges();
        self.rehint();
        let me = self.config.node;
        let membership = self.view.membership();
        if membership.transition().is_some() {
            // What was to be dropped by the old layout may be this node's by the new one; the end of the transition looks again.
            if self.offering != membership.commit_hash() {
                self.start_sweep(now, Vec::new(), false);
            }
        } else {
            (self.gaining, self.offering) = (None, None);
            self.recovery.forget_gains();
            if let Some(layout) = membership.layout().filter(|layout| layout.is_member(me)) {
                let strays = units(layout).filter(|slots| !owns(layout, *slots, me)).collect();
                self.start_sweep(now, strays, true);
            }
        }
        self.resume_recovery(now);
        self.release_held(now);
    }

    /// Whether this node has said that nothing depends on it any more, since it leaves.
    pub(crate) fn has_left(&self) -> bool {
        let me = self.config.node;
        let left = |t: Transition<'_>| !t.to().is_member(me) && t.phase(me) >= Some(Phase::Moved);
        self.view.transition().is_some_and(left)
    }

    /// Whether this node leaves and has begun to offer all that it has to its heirs: what others have kept for it waits for those, since
    /// nobody would be offered what comes after. One that leaves as well takes its hints with it if they are not taken.
    pub(crate) fn passes_on(&self, from: NodeId) -> bool {
        self.is_passing_on() && self.view.transition().is_some_and(|t| t.to().is_member(from))
    }

    /// Whether this node leaves and has begun to offer all that it has to its heirs.
    pub(crate) fn is_passing_on(&self) -> bool {
        let me = self.config.node;
        self.view.transition().is_some_and(|t| t.step() >= Step::Moving && !t.to().is_member(me))
    }

    /// Whether this node keeps writes for others, or may: after a restart, if the removal of a hint is not durable yet.
    pub(crate) fn has_hints(&self) -> bool {
        // Those for others are found by the look at all hints.
        let kept =
            |(owner, handoff): (&NodeId, &Handoff)| handoff.is_pending() && self.view.is_member(*owner);
        !self.ready
            || self.departed.is_some()
            || self.handoffs.iter().any(kept)
            || self.replica.expects_hints()
            || self.replica.hints_going > 0
    }
}

/// The partitions of a layout, each by its first slot and its last.
pub(crate) fn units(layout: &Layout) -> impl Iterator<Item = (u16, u16)> {
    layout.partition_count().partitions().map(crate::anti_entropy::ends)
}

pub(crate) fn owns(layout: &Layout, (first, _): (u16, u16), node: NodeId) -> bool {
    let slot = Slot::new(first).expect("a partition's slots are slots");
    layout.is_owner(layout.partition_of(slot), node)
}

/// What a node owns by one layout and not by the other, in the finer of their partitions.
fn difference(has: &Layout, lacks: &Layout, node: NodeId) -> Vec<(u16, u16)> {
    units(finer(has, lacks)).filter(|slots| owns(has, *slots, node) && !owns(lacks, *slots, node)).collect()
}

/// The one of two layouts whose partitions are smaller.
fn finer<'l>(one: &'l Layout, other: &'l Layout) -> &'l Layout {
    if one.partitions() >= other.partitions() { one } else { other }
}
