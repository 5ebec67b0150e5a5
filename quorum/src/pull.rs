//! A pull: copying a partition from one peer into this node's own copies.
//!
//! The peer lists its keys page by page, each with the digest of its object. Where the copy here differs, the peer's object
//! is read and merged; the next page is asked for when all of the last one is durable here. After a page of which nothing was
//! here the objects themselves are asked for with the next one. Merging is a join, so a
//! pull may be broken off and begun again anywhere, and costs little where nothing differs.

use crate::allowance::{Allowance, SLICE};
use crate::engine::{Engine, Timer};
use crate::input::ListCursor;
use crate::message::{CallId, Copy, Message, Refusal, Want};
use crate::object;
use crate::outcome::{Held, Waiting};
use crate::planted::Bug;
use crate::recovery::Pulled;
use crate::task::{Merge, Reader, Source, Task};
use crate::time::{Instant, Now};
use crate::window::Window;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use bytes::Bytes;
use gramme_ring::{NodeId, Slot};

/// Offers of peers that wait for their turn.
const MAX_OFFERS: usize = 64;
/// Pulls at a time.
pub(crate) const MAX_PULLS: usize = 8;
/// A peer that had too much to do when asked so many times in a row, a slice of time apart, is let go.
const REFUSALS: u32 = 100;
/// Keys of one pull that are compared, fetched or merged at a time.
const WINDOW: usize = 16;

/// A peer's page.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) call: CallId,
    pub(crate) keys: Vec<(Bytes, u64)>,
    pub(crate) objects: Vec<Bytes>,
    pub(crate) next: Option<ListCursor>,
    pub(crate) complete: bool,
    pub(crate) damaged: bool,
}

/// Names a pull, in this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PullId(CallId);

#[derive(Debug)]
pub(crate) struct Pull {
    pub(crate) peer: NodeId,
    /// First and last.
    pub(crate) slots: (u16, u16),
    /// Where the page in work began.
    cursor: Option<ListCursor>,
    /// Where the next one begins; `None` if the page in work is the last.
    next: Option<ListCursor>,
    /// The question for a page.
    listing: Option<CallId>,
    /// A page is to be asked for, when there is room in the budget.
    asks: bool,
    /// The peer had no time: nothing is asked of it before this, and how often that was so since it gave an answer.
    after: Instant,
    refusals: u32,
    queue: VecDeque<(Bytes, u64)>,
    /// Objects that came with the page, of keys that are not compared yet.
    in_hand: BTreeMap<Bytes, Bytes>,
    /// Keys of the page in work, and how many of them were not here.
    listed: usize,
    absent: usize,
    /// Keys that are compared or merged here.
    local: usize,
    /// Keys to be fetched when there is room in the budget, each with whether there is no such key here.
    wanted: VecDeque<(Bytes, bool)>,
    fetching: BTreeMap<CallId, (Bytes, bool)>,
    /// It comes to nothing.
    failed: bool,
    /// Something could not be had: it goes on, and proves nothing.
    gaps: bool,
    /// Something that the peer had is damaged there for good; or it may lack something.
    damaged: bool,
    lacking: bool,
    /// When something was asked for last, or came, or was merged.
    progress: Instant,
    /// The peer's offer, to be answered when it ends.
    offer: Option<CallId>,
    /// It waits for the disk, and then it ends.
    settling: bool,
}

impl Pull {
    /// Keys of this page that are being compared, fetched or merged.
    fn in_work(&self) -> usize {
        self.local + self.wanted.len() + self.fetching.len()
    }

    /// It waits for an answer. What waits for the budget or the disk here will go on.
    fn is_waiting(&self) -> bool {
        self.listing.is_some() || !self.fetching.is_empty()
    }
}

/// A peer's offer that waits for its turn.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) peer: NodeId,
    call: CallId,
    slots: (u16, u16),
}

/// What pulls may fetch.
#[derive(Debug)]
pub(crate) struct Budget {
    allowance: Allowance,
    window: Window,
}

impl Budget {
    pub(crate) fn new(now: Instant, per_second: u32) -> Budget {
        let window = Window::new(per_second as usize / 10, WINDOW * MAX_PULLS);
        Budget { allowance: Allowance::new(now, per_second), window }
    }

    /// How many objects may be on their way at one time.
    fn room(&self) -> usize {
        if self.allowance.is_spent() { 0 } else { self.window.room() }
    }

    fn spend(&mut self, bytes: usize) {
        self.allowance.spend(bytes);
        self.window.saw(bytes);
    }
}

impl Engine {
    /// Begins to copy these slots from `peer`.
    fn start_pull(&mut self, now: Now, peer: NodeId, slots: (u16, u16), offer: Option<CallId>) {
        let id = PullId(self.out.call());
        let pull = Pull {
            peer,
            slots,
            cursor: None,
            next: None,
            listing: None,
            asks: true,
            after: now.instant,
            refusals: 0,
            queue: VecDeque::new(),
            in_hand: BTreeMap::new(),
            listed: 0,
            absent: 0,
            local: 0,
            wanted: VecDeque::new(),
            fetching: BTreeMap::new(),
            failed: false,
            gaps: false,
            damaged: false,
            lacking: false,
            progress: now.instant,
            offer,
            settling: false,
        };
        self.pulls.insert(id, pull);
        self.ask_page(now, id);
    }

    fn ask_page(&mut self, now: Now, id: PullId) {
        let room = self.budget.room();
        let Some(pull) = self.pulls.get_mut(&id) else { return };
        let objects = pull.listed > 0 && pull.absent == pull.listed;
        pull.asks = true;
        if now.instant < pull.after || objects && room == 0 {
            return;
        }
        pull.asks = false;
        pull.progress = now.instant;
        let call = self.out.call();
        pull.listing = Some(call);
        self.pull_calls.insert(call, id);
        let (layout, slots, cursor) = (self.view.version(), pull.slots, pull.cursor);
        self.out.send(pull.peer, Message::List { call, layout, slots, cursor, objects });
    }

    /// The peer's page.
    pub(crate) fn pull_listed(&mut self, now: Now, from: NodeId, page: Listed) {
        let Listed { call, keys, objects, next, complete, damaged } = page;
        let Some(id) = self.pull_of(call, from) else { return };
        let Some(pull) = self.pulls.get_mut(&id) else { return };
        if pull.listing.take_if(|listing| *listing == call).is_none() {
            return;
        }
        self.pull_calls.remove(&call);
        let slots = pull.slots.0..=pull.slots.1;
        let owners = Slot::new(pull.slots.0).into_iter();
        let alone = owners.flat_map(|slot| self.view.other_owners(slot, self.config.node)).count() < 2;
        let known = |key: &Bytes| {
            !key.is_empty() && key.len() <= crate::MAX_KEY && slots.contains(&Slot::of(key).index())
        };
        (pull.listed, pull.absent, pull.refusals) = (0, 0, 0);
        let onward = next.is_none() || next > pull.cursor;
        (pull.damaged, pull.lacking) = (pull.damaged || damaged, pull.lacking || !complete);
        pull.gaps |= damaged && alone;
        pull.failed |= !complete || !onward || !keys.iter().all(|(key, _)| known(key));
        if !pull.failed {
            let there = keys.iter().zip(objects).filter(|(_, object)| !object.is_empty());
            pull.in_hand = there.map(|((key, _), object)| (key.clone(), object)).collect();
            pull.in_hand.values().for_each(|object| self.budget.spend(object.len()));
            pull.listed = keys.len();
            pull.queue.extend(keys);
        }
        pull.next = next;
        pull.progress = now.instant;
        self.pump_pull(now, id);
    }

    fn pump_pull(&mut self, now: Now, id: PullId) {
        let mut room = self.budget.room();
        room = room.saturating_sub(self.pulls.values().map(|pull| pull.fetching.len()).sum());
        let layout = self.view.version();
        let Some(pull) = self.pulls.get_mut(&id) else { return };
        while room > 0
            && now.instant >= pull.after
            && let Some((key, absent)) = pull.wanted.pop_front()
        {
            room -= 1;
            pull.progress = now.instant;
            let call = self.out.call();
            pull.fetching.insert(call, (key.clone(), absent));
            self.pull_calls.insert(call, id);
            self.out.send(pull.peer, Message::Read { call, layout, key, want: Want::Object });
        }
        while pull.in_work() < WINDOW
            && let Some((key, digest)) = pull.queue.pop_front()
        {
            pull.local += 1;
            self.replica.start(&mut self.out, &key, Task::Read(Reader::Pull(id, digest)));
        }
        if pull.listing.is_some() || pull.asks || !pull.queue.is_empty() || pull.in_work() > 0 {
            return;
        }
        match pull.next {
            _ if pull.failed => self.end_pull(now, id, false),
            None if pull.gaps => self.end_pull(now, id, false),
            None => self.settle_pull(now, id),
            next => {
                pull.cursor = next;
                self.ask_page(now, id);
            }
        }
    }

    /// All of it is here; what was here before need not be durable yet.
    fn settle_pull(&mut self, now: Now, id: PullId) {
        let Some(pull) = self.pulls.get_mut(&id) else { return };
        if core::mem::replace(&mut pull.settling, true) {
            return;
        }
        if !self.replica.journal.is_writable() {
            return self.pull_not_stored(now, id);
        }
        let waiting = Waiting::PullEnd(id);
        if let Some(done) = self.replica.journal.hold_after(self.out.last_append(), waiting) {
            self.stored(now, done);
        }
    }

    /// What is here of a key that the peer has.
    pub(crate) fn pull_read(&mut self, now: Now, id: PullId, digest: u64, key: Bytes, held: &Held) {
        let Some(pull) = self.pulls.get_mut(&id) else { return };
        pull.local -= 1;
        pull.absent += usize::from(matches!(held, Held::Absent));
        let object = pull.in_hand.remove(&key);
        match held {
            Held::Object { digest: ours, .. } if *ours == digest => {}
            // One that is damaged is being healed, unless the peer's is, too; what the disk refuses to read may be the same as the peer's.
            Held::Object { .. } | Held::Absent | Held::Unknown { .. } => match object {
                Some(object) => self.pull_merge(id, &key, &object),
                None => pull.wanted.push_back((key, matches!(held, Held::Absent))),
            },
        }
        self.pump_pull(now, id);
        self.pump_waiting(now);
    }

    /// Merges the peer's object.
    fn pull_merge(&mut self, id: PullId, key: &Bytes, encoded: &Bytes) {
        let Some(pull) = self.pulls.get_mut(&id) else { return };
        let Ok(object) = object::decode(encoded) else {
            pull.gaps = true;
            return;
        };
        pull.local += 1;
        let source = Source::Pull(id);
        let merge = Merge { source, object, outranked_by: None, hints: Vec::new(), heals: false };
        self.replica.start(&mut self.out, key, Task::Merge(merge));
    }

    /// The peer's object. `false` if that was no pull's call.
    pub(crate) fn pull_copied(&mut self, now: Now, call: CallId, from: NodeId, copy: &Copy) -> bool {
        let Some(id) = self.pull_of(call, from) else { return false };
        self.pull_calls.remove(&call);
        let Some(pull) = self.pulls.get_mut(&id) else { return true };
        let Some((key, _)) = pull.fetching.remove(&call) else { return true };
        pull.progress = now.instant;
        pull.refusals = 0;
        match copy {
            Copy::Object(bytes) => {
                self.budget.spend(bytes.len());
                self.pull_merge(id, &key, bytes);
            }
            Copy::Digest(_) => pull.gaps = true,
            // It was dropped there since it was listed.
            Copy::Absent => {}
        }
        self.pump_pull(now, id);
        self.pump_waiting(now);
        true
    }

    /// The merge is durable, or was refused here.
    pub(crate) fn pull_merged(&mut self, now: Now, id: PullId, durable: bool) {
        let Some(pull) = self.pulls.get_mut(&id) else { return };
        pull.local -= 1;
        pull.gaps |= !durable;
        pull.progress = now.instant;
        self.pump_pull(now, id);
        self.pump_waiting(now);
    }

    /// The merge could not be stored: the disk is full or fails. What else is wanted would be fetched in vain, so it waits for the
    /// next round.
    pub(crate) fn pull_not_stored(&mut self, now: Now, id: PullId) {
        self.stop_exchanges();
        self.recovery.rest();
        self.end_pull(now, id, false);
    }

    /// The peer refused. `false` if that was no pull's call. What it has no time for is asked for again.
    pub(crate) fn pull_refused(&mut self, now: Now, call: CallId, from: NodeId, why: Refusal) -> bool {
        let Some(id) = self.pull_of(call, from) else { return false };
        self.pull_calls.remove(&call);
        if let Some(pull) = self.pulls.get_mut(&id) {
            pull.asks |= pull.listing.take_if(|listing| *listing == call).is_some();
            let key = pull.fetching.remove(&call);
            // What was asked at the same time is refused at the same time.
            if !matches!(why, Refusal::Damaged | Refusal::Unknown) && now.instant >= pull.after {
                pull.refusals += 1;
                pull.after = now.instant + SLICE;
            }
            if why == Refusal::Overloaded && pull.refusals < REFUSALS {
                pull.wanted.extend(key);
            } else if let (Refusal::Damaged | Refusal::Unknown, Some((_, absent))) = (why, key) {
                // Of what is damaged there is nothing to be had, now or later; where nobody has given it yet it is unknown, not absent.
                match why == Refusal::Damaged && !absent {
                    true => pull.damaged = true,
                    false => pull.gaps = true,
                }
                self.pump_pull(now, id);
            } else {
                (pull.failed, pull.asks) = (true, false);
                self.pump_pull(now, id);
            }
            self.pump_waiting(now);
        }
        true
    }

    fn pull_of(&self, call: CallId, from: NodeId) -> Option<PullId> {
        let id = *self.pull_calls.get(&call)?;
        (self.pulls.get(&id)?.peer == from).then_some(id)
    }

    /// Ends what has made no progress for long: answers may be lost.
    pub(crate) fn stop_stalled_pulls(&mut self, now: Now) {
        let retry = self.config.timing.retry;
        self.stop_pulls(now, |pull| pull.is_waiting() && now.instant.since(pull.progress) > 2 * retry);
    }

    /// Ends the pulls that `which` names. What they had under way comes back to nobody.
    pub(crate) fn stop_pulls(&mut self, now: Now, which: impl Fn(&Pull) -> bool) {
        let ids: Vec<PullId> = self.pulls.iter().filter(|(_, pull)| which(pull)).map(|(id, _)| *id).collect();
        for id in ids {
            self.end_pull(now, id, false);
        }
    }

    pub(crate) fn end_pull(&mut self, now: Now, id: PullId, whole: bool) {
        let Some(pull) = self.pulls.remove(&id) else { return };
        for call in pull.listing.iter().chain(pull.fetching.keys()) {
            self.pull_calls.remove(call);
        }
        if let Some(call) = pull.offer {
            self.out.send(pull.peer, Message::Offered { call, whole });
        }
        let pulled = match whole {
            true => Pulled::Whole { damaged: pull.damaged },
            false if pull.lacking => Pulled::Lacking,
            false if pull.gaps => Pulled::Gaps,
            false => Pulled::Failed,
        };
        self.recovery_pulled(now, pull.peer, pull.slots, pulled);
        self.pump_pulls(now);
    }

    /// Starts as many pulls as there may be: what recovery needs first, then what differs.
    pub(crate) fn pump_pulls(&mut self, now: Now) {
        while self.pulls.len() < MAX_PULLS {
            let offered = |offer: Offer| (offer.slots, offer.peer, Some(offer.call));
            let plain = |(slots, peer)| (slots, peer, None);
            let next = self.next_to_recover().map(plain);
            let next = next.or_else(|| self.offers.pop_front().map(offered));
            let next = next.or_else(|| self.anti_entropy.queue.pop_front().map(plain));
            let Some((slots, peer, offer)) = next else { break };
            if self.is_alive(peer) {
                self.start_pull(now, peer, slots, offer);
            }
        }
        self.pump_waiting(now);
    }

    /// Lets the pulls go on that wait for room in the budget.
    pub(crate) fn pump_waiting(&mut self, now: Now) {
        let percent = self.admission.percent(now.instant);
        self.budget.allowance.renew(now.instant, percent);
        let waits = |pull: &Pull| pull.asks || !pull.wanted.is_empty();
        let waiting = self.pulls.iter().filter(|(_, pull)| waits(pull)).map(|(id, pull)| (*id, pull.asks));
        for (id, asks) in waiting.collect::<Vec<_>>() {
            if asks { self.ask_page(now, id) } else { self.pump_pull(now, id) }
        }
        if self.pulls.values().any(waits) {
            self.timers.insert((self.budget.allowance.until(), Timer::Pulls));
        }
    }

    /// A peer offers what it does not own, or is about to own no more.
    pub(crate) fn offered(&mut self, now: Now, peer: NodeId, call: CallId, slots: (u16, u16)) {
        let mine = |index| Slot::new(index).is_some_and(|slot| self.view.is_owner(slot, self.config.node));
        let why = if slots.0 > slots.1 || !mine(slots.0) || !mine(slots.1) {
            Refusal::Malformed
        } else if self.offers.len() >= MAX_OFFERS {
            Refusal::Overloaded
        } else {
            let is_it = |pull: &Pull| (pull.peer, pull.slots) == (peer, slots);
            let late = self.config.planted.is(Bug::EarlierPullAnswers);
            let mut pulls = self.pulls.values_mut().filter(|pull| is_it(pull));
            if let Some(pull) = pulls.find(|pull| pull.offer == Some(call) || late && pull.offer.is_some()) {
                pull.offer = Some(call);
                return;
            }
            match self.offers.iter_mut().find(|offer| (offer.peer, offer.slots) == (peer, slots)) {
                Some(offer) => offer.call = call,
                None => self.offers.push_back(Offer { peer, call, slots }),
            }
            // What an earlier offer has begun may have listed less than there is by now.
            self.stop_pulls(now, |pull| is_it(pull) && pull.offer.is_some());
            return self.pump_pulls(now);
        };
        self.out.send(peer, Message::Refused { call, why });
    }
}
