//! Sweeping: what this node holds and does not own goes to those who own it, and then from here.
//!
//! Copies stay behind when a partition moves away, or when a fallback stops between a handover and its end. One partition
//! at a time is offered to its owners, who pull it; when a write quorum of them has it durably it is dropped, unless
//! something came meanwhile or this node still keeps hints, whose writes are such copies. While it does, all hints are looked through now and
//! then: partitions of which none is goes all the same.
//!
//! Hints for a node that is no member any more are turned into hints for the present owners of their keys.

use crate::anti_entropy::ends;
use crate::engine::{Engine, Timer};
use crate::handoff::{hint_place, hint_record};
use crate::input::{ListCursor, ListId, Page, Place};
use crate::message::{CallId, Message};
use crate::outcome::Waiting;
use crate::planted::Bug;
use crate::replica::place_of;
use crate::time::{Instant, Now};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use bytes::Bytes;
use gramme_ring::{NodeId, Slot};

/// Retry times after which an offer is made again, what could not be dropped is looked at again, and a hint is looked at again whose heirs'
/// found no room.
const AGAIN: u32 = 5;
/// Retry times after which all hints are looked through again for those that keep a partition here.
const LOOK: u32 = 60;
/// Hints looked at at a time.
const PAGE: usize = 256;

/// What is still to be offered.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    queue: VecDeque<(u16, u16)>,
    /// What has gone to its owners is dropped here.
    drops: bool,
    current: Option<Current>,
    /// Something could not be dropped: it is looked at again, at this time.
    left: Vec<(u16, u16)>,
    again: Instant,
    /// Partitions that were taken, and stay as long as there are hints of theirs.
    held: BTreeSet<(u16, u16)>,
    /// Those of which there are none; they are offered again, and then dropped.
    free: BTreeSet<(u16, u16)>,
    /// A look through all hints, and when there may be one.
    look: Option<Look>,
    look_after: Instant,
    armed: bool,
}

/// A look through all hints.
#[derive(Debug)]
struct Look {
    listing: ListId,
    /// Partitions that have been held, and watched, ever since it began, and of which none was found.
    without: BTreeSet<(u16, u16)>,
}

#[derive(Debug)]
struct Current {
    slots: (u16, u16),
    /// Whether there is anything at all.
    listing: Option<ListId>,
    /// Who was asked, and when last. Whoever is asked again is asked by the same call: an answer to it says that what was here when this
    /// was begun was taken.
    calls: BTreeMap<CallId, (NodeId, Instant)>,
    took: BTreeSet<NodeId>,
}

impl Current {
    /// Whether this was a call to that node, which is open no more.
    fn answered(&mut self, call: CallId, from: NodeId) -> bool {
        let ours = self.calls.get(&call).is_some_and(|(to, _)| *to == from);
        if ours {
            self.calls.remove(&call);
        }
        ours
    }
}

impl Sweep {
    /// Nothing is left to be offered.
    pub(crate) fn is_done(&self) -> bool {
        self.remaining() == 0
    }

    /// A partition is held no more. What a look has passed by while it is not watched it does not know.
    fn unhold(&mut self, slots: (u16, u16)) {
        self.held.remove(&slots);
        if let Some(look) = &mut self.look {
            look.without.remove(&slots);
        }
    }

    /// Partitions that are still to be looked at.
    pub(crate) fn remaining(&self) -> usize {
        self.queue.len() + self.left.len() + self.held.len() + usize::from(self.current.is_some())
    }
}

/// Looking for hints of nodes that are no members.
#[derive(Debug, Default)]
pub(crate) struct Departed {
    listing: Option<ListId>,
    /// A member left meanwhile: once more from the start.
    again: bool,
    /// Members for whom there are hints.
    seen: BTreeSet<NodeId>,
    /// Hints of this page whose heirs' are not durable yet.
    open: usize,
    /// Where the next page begins; and whether this one could be read.
    next: Option<ListCursor>,
    whole: bool,
    /// It could not be read.
    failed: bool,
}

impl Engine {
    /// Begins to offer these partitions, in place of whatever was being offered.
    pub(crate) fn start_sweep(&mut self, now: Now, units: Vec<(u16, u16)>, drops: bool) {
        let armed = self.sweep.armed;
        let look_after = self.sweep.look_after;
        self.sweep = Sweep { queue: units.into(), drops, armed, look_after, ..Sweep::default() };
        self.replica.watch.clear();
        self.next_offer(now);
    }

    /// After a while.
    fn look_again(&mut self, now: Now, slots: (u16, u16)) {
        if self.sweep.left.is_empty() {
            self.sweep.again = now.instant + AGAIN * self.config.timing.retry;
        }
        if !self.sweep.left.contains(&slots) {
            self.sweep.left.push(slots);
        }
    }

    /// A copy was stored, and no hint with it, or could not be dropped. Where this node owns nothing it is looked at when it can have served.
    pub(crate) fn stored_in(&mut self, now: Now, place: Place) {
        let me = self.config.node;
        let Some(slot) = Slot::new(place.0).filter(|slot| !self.view.is_owner(*slot, me)) else { return };
        // The end of a transition looks at everything, and who is no member has nobody to answer for.
        let Some(layout) = self.view.membership().layout().filter(|layout| layout.is_member(me)) else {
            return;
        };
        if self.view.transition().is_none() {
            let unit = ends(layout.partition_of(slot));
            if !self.sweep.queue.contains(&unit) {
                self.sweep.unhold(unit);
                self.look_again(now, unit);
            }
            self.sweep.drops = true;
            self.arm_sweep(now, AGAIN * self.config.timing.retry);
        }
    }

    fn next_offer(&mut self, now: Now) {
        if self.sweep.current.is_some() {
            return;
        }
        let Some(slots) = self.sweep.queue.pop_front() else {
            if !self.sweep.is_done() {
                self.arm_sweep(now, AGAIN * self.config.timing.retry);
            }
            return;
        };
        self.replica.watch.begin(slots);
        let listing = Some(self.out.list(Place(slots.0), Place(slots.1), None, 1));
        self.sweep.current = Some(Current { slots, listing, calls: BTreeMap::new(), took: BTreeSet::new() });
    }

    /// A peer is lost: its answer may be, too, and it may come back without what it took.
    pub(crate) fn sweep_lost(&mut self, node: NodeId) {
        if let Some(current) = &mut self.sweep.current {
            current.calls.retain(|_, (to, _)| *to != node);
            current.took.remove(&node);
        }
    }

    fn arm_sweep(&mut self, now: Now, after: core::time::Duration) {
        if !core::mem::replace(&mut self.sweep.armed, true) {
            self.timers.insert((now.instant + after, Timer::Sweep));
        }
    }

    pub(crate) fn sweep_timer(&mut self, now: Now) {
        self.sweep.armed = false;
        if self.sweep.current.is_some() {
            return self.offer(now);
        }
        let has_hints = self.has_hints();
        let replica = &self.replica;
        let goes = |slots: &(u16, u16)| !has_hints || replica.watch.is_touched(*slots);
        let mut goes: Vec<(u16, u16)> = self.sweep.held.iter().copied().filter(goes).collect();
        if now.instant >= self.sweep.again {
            goes.append(&mut self.sweep.left);
        }
        for slots in goes {
            self.sweep.unhold(slots);
            if !self.sweep.queue.contains(&slots) {
                self.replica.watch.end(slots);
                self.sweep.queue.push_back(slots);
            }
        }
        if !self.sweep.held.is_empty() && self.sweep.look.is_none() && now.instant >= self.sweep.look_after {
            self.sweep.look_after = now.instant + LOOK * self.config.timing.retry;
            let listing = self.out.list(hint_place(NodeId(0)), hint_place(NodeId(u64::MAX)), None, PAGE);
            self.sweep.look = Some(Look { listing, without: self.sweep.held.clone() });
        }
        self.next_offer(now);
    }

    /// A page of all hints. `false` if the listing is for something else.
    fn look_listed(&mut self, now: Now, id: ListId, page: &Option<Page>) -> bool {
        let Some(mut look) = self.sweep.look.take_if(|look| look.listing == id) else { return false };
        // What can't be read may be of any partition.
        let Some(page) = page.as_ref().filter(|page| page.unreadable == 0) else { return true };
        for (record, _) in &page.keys {
            let key = record.get(size_of::<u64>()..).unwrap_or_default();
            if let Some(slots) = self.replica.watch.of(place_of(key)) {
                look.without.remove(&slots);
            }
        }
        if let Some(next) = page.next {
            let (first, last) = (hint_place(NodeId(0)), hint_place(NodeId(u64::MAX)));
            look.listing = self.out.list(first, last, Some(next), PAGE);
            self.sweep.look = Some(look);
            return true;
        }
        if self.config.planted.is(Bug::LookFreesAll) {
            look.without.clone_from(&self.sweep.held);
        }
        look.without.retain(|slots| !self.replica.watch.is_touched(*slots));
        for slots in look.without {
            self.sweep.held.remove(&slots);
            self.sweep.free.insert(slots);
            self.sweep.queue.push_back(slots);
        }
        self.next_offer(now);
        true
    }

    /// Whether there is anything in the partition. `false` if the listing is not the sweep's.
    pub(crate) fn sweep_listed(&mut self, now: Now, id: ListId, page: &Option<Page>) -> bool {
        if self.look_listed(now, id, page) {
            return true;
        }
        let Some(current) = self.sweep.current.as_mut().filter(|c| c.listing == Some(id)) else {
            return false;
        };
        let slots = current.slots;
        current.listing = None;
        if page
            .as_ref()
            .is_some_and(|page| page.keys.is_empty() && page.unreadable == 0 && page.next.is_none())
        {
            self.sweep.current = None;
            self.sweep.free.remove(&slots);
            self.replica.watch.end(slots);
            self.next_offer(now);
        } else {
            self.offer(now);
        }
        true
    }

    /// Offers the partition in hand to those of its owners who have not taken it.
    fn offer(&mut self, now: Now) {
        let layout = self.view.version();
        let me = self.config.node;
        let Some(current) = &self.sweep.current else { return };
        let slots = current.slots;
        let owners = self.new_owners(slots);
        let wanted = usize::from(self.replica.keyspaces.most_w(self.replicas())).min(owners.len()).max(1);
        if current.took.len() >= wanted || self.config.planted.is(Bug::DroppedBeforeTaken) {
            return self.offered_enough(now);
        }
        let patience = AGAIN * self.config.timing.retry;
        let open = current.calls.values().filter(|(_, asked)| now.instant.since(*asked) < patience);
        let open: BTreeSet<NodeId> = open.map(|(node, _)| *node).collect();
        let ask = |node: &NodeId| *node != me && !open.contains(node) && self.is_alive(*node);
        let ask: Vec<NodeId> =
            owners.into_iter().filter(|node| !current.took.contains(node)).filter(ask).collect();
        for node in ask {
            let Some(current) = &mut self.sweep.current else { return };
            let before = current.calls.iter().find(|(_, (to, _))| *to == node).map(|(call, _)| *call);
            let call = before.unwrap_or_else(|| self.out.call());
            current.calls.insert(call, (node, now.instant));
            self.out.send(node, Message::Offer { call, layout, slots });
        }
        self.arm_sweep(now, self.config.timing.retry);
    }

    /// The owners by the layout that is committed, without those given up.
    fn new_owners(&self, (first, _): (u16, u16)) -> Vec<NodeId> {
        let Some(layout) = self.view.membership().layout() else { return Vec::new() };
        let Some(slot) = Slot::new(first) else { return Vec::new() };
        let owners = layout.owners(layout.partition_of(slot));
        owners.filter(|node| !self.view.membership().is_removed(*node)).collect()
    }

    /// An owner has pulled the partition, or could not.
    pub(crate) fn offer_taken(&mut self, now: Now, call: CallId, from: NodeId, whole: bool) {
        let Some(current) = &mut self.sweep.current else { return };
        if !current.answered(call, from) {
            return;
        }
        if whole {
            current.took.insert(from);
            self.offer(now);
        }
    }

    /// Whether that was an offer's call; it is made again later.
    pub(crate) fn offer_refused(&mut self, call: CallId, from: NodeId) -> bool {
        self.sweep.current.as_mut().is_some_and(|current| current.answered(call, from))
    }

    fn offered_enough(&mut self, now: Now) {
        let Some(Current { slots, .. }) = self.sweep.current.take() else { return };
        let touched = self.replica.was_touched(slots) && !self.config.planted.is(Bug::SweepIgnoresArrivals);
        let free = self.sweep.free.remove(&slots) && self.ready && self.departed.is_none();
        if self.sweep.drops {
            let first = Slot::new(slots.0).expect("a partition's slots are slots");
            assert!(!self.view.is_owner(first, self.config.node), "an owner drops nothing");
            if touched {
                self.look_again(now, slots);
            } else if !free && self.has_hints() {
                self.replica.watch.begin(slots);
                self.sweep.held.insert(slots);
            } else {
                for place in (slots.0..=slots.1).map(Place) {
                    self.replica.drop_slot(&mut self.out, place);
                }
            }
        }
        self.next_offer(now);
    }

    // Hints of nodes that are gone.

    /// Looks through all hints for those whose owner is no member any more.
    pub(crate) fn rehint(&mut self) {
        match &mut self.departed {
            Some(departed) => departed.again = true,
            // A run begins with its own record.
            None if self.ready => self.list_hints(None),
            None => {}
        }
    }

    fn list_hints(&mut self, cursor: Option<ListCursor>) {
        let listing = self.out.list(hint_place(NodeId(0)), hint_place(NodeId(u64::MAX)), cursor, PAGE);
        self.departed.get_or_insert_default().listing = Some(listing);
    }

    /// The hint for an owner that is none any more goes when those for its heirs are durable.
    fn inherit(&mut self, now: Now, owner: NodeId, key: Bytes, members: &BTreeSet<NodeId>) {
        let mut last = None;
        let mut heirs = self.view.owners(Slot::of(&key));
        heirs.retain(|heir| *heir != self.config.node && members.contains(heir));
        heirs.truncate(if self.config.planted.is(Bug::LeaverHintsDropped) { 0 } else { heirs.len() });
        for heir in heirs {
            let append = self.append_hint(now, heir, &key);
            if let Some(before) = last.replace(append) {
                self.replica.journal.link(before, append);
            }
        }
        match last {
            Some(append) => {
                self.replica.journal.hold(append, Waiting::Inherited(owner, key));
                self.departed.iter_mut().for_each(|departed| departed.open += 1);
            }
            None => self.drop_hint(owner, &key),
        }
    }

    /// The hints for the heirs of this one are durable, or could not be stored: then it stays, and is looked at again.
    pub(crate) fn inherited(&mut self, now: Now, owner: NodeId, key: &Bytes, kept: bool) {
        if kept {
            self.hints_kept += 1;
            // Who is a member by now is handed the write itself.
            if self.view.is_member(owner) {
                self.expect_handoff(now, owner);
            } else {
                self.drop_hint(owner, key);
            }
        } else if self.replica.journal.is_writable() {
            self.rehint_later(now);
        }
        if let Some(departed) = &mut self.departed {
            departed.open -= 1;
        }
        self.look_on(now);
    }

    fn rehint_later(&mut self, now: Now) {
        if !core::mem::replace(&mut self.rehint_armed, true) {
            self.timers.insert((now.instant + AGAIN * self.config.timing.retry, Timer::Rehint));
        }
    }

    fn drop_hint(&mut self, owner: NodeId, key: &Bytes) {
        let (place, hint) = hint_record(owner, key);
        self.out.append(place, hint, None);
    }

    pub(crate) fn rehint_timer(&mut self) {
        self.rehint_armed = false;
        self.rehint();
    }

    /// A page of them. `false` if the listing is for something else.
    pub(crate) fn hints_looked_through(&mut self, now: Now, id: ListId, page: &Option<Page>) -> bool {
        if self.departed.as_ref().is_none_or(|departed| departed.listing != Some(id)) {
            return false;
        }
        let members = self.view.members();
        let failed = page.is_none();
        // With no member known there is nobody to hand anything to.
        let page = page.as_ref().filter(|_| !members.is_empty());
        for (record, _) in page.iter().flat_map(|page| &page.keys) {
            let Some((owner, key)) = record.split_first_chunk::<8>() else { continue };
            let owner = NodeId(u64::from_be_bytes(*owner));
            if members.contains(&owner) {
                if let Some(departed) = &mut self.departed {
                    departed.seen.insert(owner);
                }
                continue;
            }
            let key = record.slice_ref(key);
            self.inherit(now, owner, key, &members);
        }
        if let Some(departed) = &mut self.departed {
            departed.listing = None;
            (departed.next, departed.whole) = (page.and_then(|page| page.next), page.is_some());
            departed.failed |= failed;
        }
        self.look_on(now);
        true
    }
    /// Goes to the next page when nothing of this one waits for the disk: no more than a page does at a time.
    fn look_on(&mut self, now: Now) {
        let Some(departed) = self.departed.as_mut().filter(|d| d.listing.is_none() && d.open == 0) else {
            return;
        };
        if let Some(next) = departed.next.take() {
            return self.list_hints(Some(next));
        }
        if core::mem::take(&mut departed.again) {
            departed.seen.clear();
            return self.list_hints(None);
        }
        let Some(Departed { seen, whole, failed, .. }) = self.departed.take() else { return };
        if failed {
            self.rehint_later(now);
        }
        if !whole {
            return;
        }
        let quiet = self.handoffs.iter_mut().filter(|(owner, _)| !seen.contains(owner));
        quiet.for_each(|(_, handoff)| handoff.found_none());
        // Who was no member when it was kept may be one by now.
        for owner in seen {
            self.expect_handoff(now, owner);
        }
    }
}
