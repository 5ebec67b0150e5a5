//! Hinted handoff: deferred writes go to their owner when it is back (Dynamo, section 4.6).
//!
//! A hint is a small record of its own, durable with the write it belongs to: it names an owner and a key.
//! The write itself is this node's copy of the key, so handing over means sending that copy; merging it is a
//! join, so it may be sent twice. A hint goes only when the owner holds, durably, what the copy still is.

use crate::engine::{Engine, Timer};
use crate::input::{AppendId, ListCursor, ListId, LoadId, Loaded, Page, Place};
use crate::message::{CallId, Message, Purpose, Refusal, Syncing};
use crate::outcome::{Held, Waiting};
use crate::planted::Bug;
use crate::replica::{self, place_of};
use crate::task::{Reader, Task};
use crate::time::{Instant, Now};
use crate::window::Window;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use bytes::Bytes;
use gramme_ring::{NodeId, Slot};

/// Bytes of objects on their way to one owner, or one object.
const BYTES: usize = 4 << 20;
/// After so many retry times without progress, answers are taken for lost.
const STALLED: u32 = 5;
/// Keys asked for at a time.
const PAGE: usize = 256;
/// What an owner can't read, and so can't merge, is offered again after a retry time, then after twice as long, and so on so many times.
const MAX_DOUBLINGS: u32 = 4;

/// The handoff to one owner.
#[derive(Debug)]
pub(crate) struct Handoff {
    /// There may be hints for it.
    pending: bool,
    active: bool,
    /// The owner has no room: until the timer comes nothing more is offered.
    resting: bool,
    /// A hint was added, or one could not be handed over, since the listing began.
    again: bool,
    /// It offers one hint alone.
    probes: bool,
    /// A hint was added in this run.
    expected: bool,
    /// Hints can be removed no more in this run, whoever has been handed what they speak of.
    stays: bool,
    /// Some hint may not have been offered, by this connection, since there was last no room to remove one.
    due: bool,
    /// There was no room to remove a hint. When all have been offered one alone is, now and then, until it can be removed.
    unremoved: bool,
    listing: Option<ListId>,
    cursor: Option<ListCursor>,
    queue: VecDeque<Bytes>,
    reading: usize,
    in_flight: BTreeMap<CallId, (Bytes, u64)>,
    window: Window,
    progress: Instant,
    /// The owner could not read what some hint is for, this time; how many times in a row; and until when it is left in peace.
    unread: bool,
    unread_times: u32,
    rests: Instant,
    /// A timer is set.
    armed: bool,
}

/// A fallback's copy that goes once no owner waits for it.
#[derive(Debug)]
pub(crate) struct Forgetting {
    digest: u64,
    /// What looks whether others wait for it.
    loads: Vec<LoadId>,
}

impl Engine {
    /// Keeps a hint for `owner` beside this node's own copy of the key. No write is acknowledged for it; if it is refused, that is
    /// counted, and the owner gets the write in other ways.
    pub(crate) fn keep_hint(&mut self, now: Now, owner: NodeId, key: &Bytes) {
        if !self.view.membership().is_removed(owner) {
            let append = self.append_hint(now, owner, key);
            self.replica.journal.hold_written(append, Waiting::Hint);
            self.out.confirm();
        }
    }

    pub(crate) fn append_hint(&mut self, now: Now, owner: NodeId, key: &Bytes) -> AppendId {
        self.spare(now, key);
        let (place, hint) = hint_record(owner, key);
        let append = self.out.append(place, hint, Some((Bytes::new(), 0)));
        self.expect_handoff(now, owner);
        append
    }

    /// There is something for `owner`: hand it over, at once if it idles, else when it is back or done. A node that writes nothing any
    /// more hands over what it has once; to remove it is the next run's.
    pub(crate) fn expect_handoff(&mut self, now: Now, owner: NodeId) {
        if !self.view.is_member(owner) {
            // It left, and whoever asked for the hint did not know.
            return self.rehint();
        }
        let handoff = self.handoffs.entry(owner).or_default();
        (handoff.expected, handoff.due) = (true, true);
        if !self.replica.journal.is_writable() {
            handoff.stays = true;
        } else if handoff.active {
            handoff.again = true;
        } else {
            // Pending already, it may wait for a connection that has come before its owner was a member.
            (handoff.pending, handoff.rests) = (true, now.instant);
            self.arm_handoff(now, owner);
        }
    }

    /// There was no room to remove a hint: it stays, and is handed over again.
    pub(crate) fn hint_not_removed(&mut self, now: Now, owner: NodeId) {
        let due = self.handoffs.get(&owner).is_some_and(|handoff| handoff.due);
        self.expect_handoff(now, owner);
        if let Some(handoff) = self.handoffs.get_mut(&owner) {
            (handoff.due, handoff.unremoved) = (due, true);
        }
    }

    /// A hint is gone, durably.
    pub(crate) fn hint_removed(&mut self, now: Now, owner: NodeId) {
        if let Some(handoff) = self.handoffs.get_mut(&owner)
            && core::mem::replace(&mut handoff.unremoved, false)
        {
            self.expect_handoff(now, owner);
        }
    }

    /// The owner is back, or it is time to look again.
    pub(crate) fn start_handoff(&mut self, now: Now, owner: NodeId) {
        if !self.is_alive(owner) {
            return;
        }
        let handoff = self.handoffs.entry(owner).or_default();
        if handoff.active || !handoff.pending {
            return;
        }
        handoff.active = true;
        (handoff.again, handoff.unread) = (false, false);
        let due = core::mem::replace(&mut handoff.due, false);
        handoff.probes = handoff.unremoved && !due;
        handoff.progress = now.instant;
        let place = hint_place(owner);
        handoff.listing = Some(self.out.list(place, place, None, PAGE));
        self.arm_handoff(now, owner);
    }

    /// The retry timer: starts what is pending, restarts what has stalled.
    pub(crate) fn handoff_timer(&mut self, now: Now, owner: NodeId) {
        let Some(handoff) = self.handoffs.get_mut(&owner) else { return };
        handoff.armed = false;
        if handoff.active {
            let rested = core::mem::replace(&mut handoff.resting, false);
            if !rested && now.instant.since(handoff.progress) > STALLED * self.config.timing.retry {
                handoff.stop();
            } else {
                handoff.progress = if rested { now.instant } else { handoff.progress };
                self.arm_handoff(now, owner);
                return self.pump_handoff(now, owner);
            }
        } else if now.instant < handoff.rests {
            return self.arm_handoff(now, owner);
        }
        self.start_handoff(now, owner);
    }

    fn arm_handoff(&mut self, now: Now, owner: NodeId) {
        let handoff = self.handoffs.entry(owner).or_default();
        if !core::mem::replace(&mut handoff.armed, true) {
            self.timers.insert((now.instant + self.config.timing.retry, Timer::Handoff(owner)));
        }
    }

    /// The owner can't be reached: what was under way starts over when it is back.
    pub(crate) fn stop_handoff(&mut self, owner: NodeId) {
        if let Some(handoff) = self.handoffs.get_mut(&owner) {
            handoff.stop();
        }
    }

    pub(crate) fn hints_listed(&mut self, now: Now, id: ListId, page: Option<Page>) {
        let Some((owner, handoff)) = self.handoffs.iter_mut().find(|(_, h)| h.listing == Some(id)) else {
            return;
        };
        let owner = *owner;
        handoff.listing = None;
        handoff.progress = now.instant;
        match page {
            Some(page) => {
                let prefix = owner.0.to_be_bytes();
                let keys = page.keys.iter().filter(|(key, _)| key.starts_with(&prefix));
                let most = if handoff.probes { 1 } else { usize::MAX };
                handoff.queue.extend(keys.map(|(key, _)| key.slice(prefix.len()..)).take(most));
                handoff.cursor = page.next.filter(|_| !handoff.probes || handoff.queue.is_empty());
            }
            None => {
                handoff.cursor = None;
                (handoff.again, handoff.due) = (true, true);
            }
        }
        self.pump_handoff(now, owner);
    }

    fn pump_handoff(&mut self, now: Now, owner: NodeId) {
        // While the disk hangs, no hint that has served can be removed.
        let hung = self.replica.is_behind() || self.hint_loads.len() >= self.config.limits.local;
        let congested = self.is_congested(owner) || hung;
        let limit = self.admission.part(now.instant, self.config.limits.handoff);
        let Some(handoff) = self.handoffs.get_mut(&owner) else { return };
        if !handoff.active || handoff.resting || handoff.listing.is_some() || congested {
            return;
        }
        let unbounded = self.config.planted.is(Bug::HandoffUnbounded);
        let limit = if unbounded { usize::MAX } else { limit.min(handoff.window.room()) };
        while handoff.reading + handoff.in_flight.len() < limit
            && let Some(key) = handoff.queue.pop_front()
        {
            handoff.reading += 1;
            self.replica.start(&mut self.out, &key, Task::Read(Reader::Handoff(owner)));
        }
        if handoff.reading + handoff.in_flight.len() > 0 || !handoff.queue.is_empty() {
            return;
        }
        if let Some(cursor) = handoff.cursor.take() {
            let place = hint_place(owner);
            handoff.listing = Some(self.out.list(place, place, Some(cursor), PAGE));
        } else {
            handoff.active = false;
            handoff.pending = handoff.again;
            if handoff.unread {
                handoff.rests = now.instant + self.config.timing.retry * (1 << handoff.unread_times);
            }
            handoff.unread_times =
                if handoff.unread { handoff.unread_times + 1 } else { 0 }.min(MAX_DOUBLINGS);
            if handoff.pending {
                self.arm_handoff(now, owner);
            }
        }
    }

    /// The owner takes messages again.
    pub(crate) fn resume_handoff(&mut self, now: Now, owner: NodeId) {
        if let Some(handoff) = self.handoffs.get_mut(&owner) {
            handoff.progress = now.instant;
        }
        self.pump_handoff(now, owner);
    }

    /// The copy that a hint speaks of.
    pub(crate) fn handoff_read(&mut self, now: Now, owner: NodeId, key: Bytes, held: Held) {
        let Some(handoff) = self.handoffs.get_mut(&owner) else { return };
        handoff.reading = handoff.reading.saturating_sub(1);
        match held {
            Held::Object { encoded, digest, .. } if handoff.active => {
                handoff.window.saw(encoded.len());
                let call = self.out.call();
                handoff.in_flight.insert(call, (key.clone(), digest));
                let sent = key.clone();
                self.out.send(
                    owner,
                    Message::Write {
                        sync: Syncing::First,
                        call,
                        layout: self.view.version(),
                        purpose: Purpose::Handoff,
                        key,
                        object: encoded,
                        hints: Vec::new(),
                        outranked_by: None,
                    },
                );
                if self.config.planted.is(Bug::HintDroppedOnSend) {
                    self.settle(owner, &sent, Some(digest));
                }
            }
            Held::Absent => self.settle(owner, &key, None),
            // Damaged: the hint waits until the copy is healed.
            Held::Object { .. } | Held::Unknown { .. } => self.expect_handoff(now, owner),
        }
        self.pump_handoff(now, owner);
    }

    fn settle(&mut self, owner: NodeId, key: &Bytes, digest: Option<u64>) {
        self.replica.start(&mut self.out, key, Task::Settle { owner, digest });
    }

    /// The owner holds it durably. `false` if that was no handoff's call.
    pub(crate) fn handoff_acknowledged(&mut self, now: Now, call: CallId, owner: NodeId) -> bool {
        let Some(handoff) = self.handoffs.get_mut(&owner) else { return false };
        let Some((key, digest)) = handoff.in_flight.remove(&call) else { return false };
        handoff.progress = now.instant;
        self.hints_handed += 1;
        if self.config.planted.is(Bug::HandoffStartsOver) && !handoff.queue.is_empty() {
            handoff.again = true;
            self.pump_handoff(now, owner);
            return true;
        }
        self.settle(owner, &key, Some(digest));
        self.pump_handoff(now, owner);
        true
    }

    /// The owner refused: the hint stays, and is tried again later. If it has no room, or no time, the others wait as well.
    pub(crate) fn handoff_refused(&mut self, now: Now, call: CallId, owner: NodeId, why: Refusal) -> bool {
        let Some(handoff) = self.handoffs.get_mut(&owner) else { return false };
        if handoff.in_flight.remove(&call).is_none() {
            return false;
        }
        (handoff.again, handoff.due) = (true, true);
        handoff.resting |= matches!(why, Refusal::Unwritable | Refusal::Overloaded);
        handoff.unread |= matches!(why, Refusal::Unknown | Refusal::Damaged);
        self.pump_handoff(now, owner);
        true
    }

    /// The hint is gone, or the copy has changed since it was sent.
    pub(crate) fn handoff_settled(
        &mut self,
        now: Now,
        key: Bytes,
        owner: NodeId,
        digest: Option<u64>,
        current: bool,
    ) {
        if !current {
            return self.expect_handoff(now, owner);
        }
        // A fallback's copy has served; an owner's stays. It goes only if no other owner waits for it.
        let mut others = self.view.owners(Slot::of(&key));
        if others.contains(&self.config.node) || self.replica.expects_hint(&key) {
            return;
        }
        // What is handed to one that leaves as well may go with both: this node's heirs are offered the copy with all else.
        if self.is_passing_on() {
            return;
        }
        let Some(digest) = digest else { return };
        // Hints for who is no member become hints for others just now, or later, perhaps of this key.
        if self.departed.is_some() || self.rehint_armed {
            return self.stored_in(now, place_of(&key));
        }
        // Who was an owner when it was kept may be none by now, and still lack it.
        others.extend(self.handoffs.iter().filter(|(_, handoff)| handoff.is_pending()).map(|(id, _)| *id));
        others.sort_unstable();
        others.dedup();
        others.retain(|other| *other != owner);
        if others.is_empty() || self.config.planted.is(Bug::ForgottenWhileOwed) {
            return self.replica.start(&mut self.out, &key, Task::Forget { digest: Some(digest) });
        }
        let mut loads = Vec::new();
        for other in others {
            let (place, hint) = hint_record(other, &key);
            let load = self.out.load(place, hint);
            self.hint_loads.insert(load, key.clone());
            loads.push(load);
        }
        self.forgetting.insert(key, Forgetting { digest, loads });
    }

    /// A hint comes that this copy serves: it does not go. If the hint can't be stored after all, the sweep finds the copy.
    pub(crate) fn spare(&mut self, now: Now, key: &Bytes) {
        self.replica.spare(key);
        if self.forgetting.remove(key).is_some() {
            self.stored_in(now, place_of(key));
        }
    }

    /// Whether another owner still waits for a fallback's copy. `false` if the load is not of a hint.
    pub(crate) fn hint_loaded(&mut self, now: Now, load: LoadId, loaded: &Loaded) -> bool {
        let Some(key) = self.hint_loads.remove(&load) else { return false };
        // Answers that come late are of a former copy, and say nothing of the hints that came with this one.
        let ours = |forgetting: &&mut Forgetting| forgetting.loads.contains(&load);
        let Some(forgetting) = self.forgetting.get_mut(&key).filter(ours) else { return true };
        if *loaded != Loaded::Absent {
            self.forgetting.remove(&key);
            // A hint leads to the copy again; one that can't be read does not.
            if matches!(loaded, Loaded::Unknown(_) | Loaded::Damaged) {
                self.stored_in(now, place_of(&key));
            }
            return true;
        }
        forgetting.loads.retain(|other| *other != load);
        if forgetting.loads.is_empty() {
            let digest = forgetting.digest;
            self.forgetting.remove(&key);
            self.replica.start(&mut self.out, &key, Task::Forget { digest: Some(digest) });
        }
        true
    }
}

impl Default for Handoff {
    fn default() -> Handoff {
        Handoff {
            pending: false,
            active: false,
            resting: false,
            again: false,
            probes: false,
            expected: false,
            stays: false,
            due: true,
            unremoved: false,
            listing: None,
            cursor: None,
            queue: VecDeque::new(),
            reading: 0,
            in_flight: BTreeMap::new(),
            window: Window::new(BYTES, usize::MAX),
            progress: Instant::default(),
            unread: false,
            unread_times: 0,
            rests: Instant::default(),
            armed: false,
        }
    }
}

impl Handoff {
    /// A handoff to a peer that this node may hold hints for from an earlier run.
    pub(crate) fn unknown() -> Handoff {
        Handoff { pending: true, ..Handoff::default() }
    }

    /// A look at all hints has found none for this owner.
    pub(crate) fn found_none(&mut self) {
        self.pending &= self.active || self.expected;
    }

    pub(crate) const fn is_pending(&self) -> bool {
        self.pending || self.stays
    }

    fn stop(&mut self) {
        self.due = true;
        if self.active {
            // Reads under way come back and are put off; their count goes on.
            let Handoff { reading, armed, expected, stays, unremoved, .. } = *self;
            *self =
                Handoff { pending: true, reading, armed, expected, stays, unremoved, ..Handoff::default() };
        }
    }
}

/// The record of a hint: which slot, which key.
pub(crate) fn hint_record(owner: NodeId, key: &[u8]) -> (Place, Bytes) {
    let record = [&owner.0.to_be_bytes(), key].concat();
    (hint_place(owner), Bytes::from(record))
}

/// The slot of the hints for one owner: the upper half of the engine's own slots, by the owner's id. Two
/// owners may share one; the records name the owner.
pub(crate) const fn hint_place(owner: NodeId) -> Place {
    let low = (owner.0 & 0x7fff) as u16;
    Place(0x8000 | low)
}

const _: () = assert!(replica::RUN.0 < 0x8000 && replica::RUN.0 >= gramme_ring::SLOTS);
