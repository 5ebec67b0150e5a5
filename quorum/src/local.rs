//! What came of this node's own copies: read, minted, merged, stored or not.

use crate::engine::{Engine, Timer};
use crate::input::{AppendId, ListId, LoadId, Loaded, Page};
use crate::journal::Kept;
use crate::message::{CallId, Copy, Message, Refusal, Want};
use crate::op::OpError;
use crate::outcome::{Event, Held, Waiting};
use crate::planted::Bug;
use crate::replica::{self, place_of};
use crate::task::{Reader, Source, Task};
use crate::time::{Duration, Instant, Now};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bytes::Bytes;
use gramme_ring::{NodeId, Slot};
use siphasher::sip::SipHasher24;

/// Damaged keys being healed at one time.
const MAX_HEALING: usize = 1024;
/// A record that the disk has refused to read as often as this, and never has read in between, counts as damaged for good.
const REFUSALS: u8 = 10;
/// With as much time at least from each to the next: what is pulled out by mistake, or hangs, is back by then.
const REFUSED_AGAIN: Duration = Duration::from_secs(360);

/// Records that are counted at one time; others are when there is room.
const MAX_REFUSED: usize = 1 << 16;

/// A copy that can't be read.
#[derive(Debug)]
pub(crate) struct Healing {
    /// When healing it may be tried again.
    pub(crate) again: Instant,
    /// It was found until then that no owner has a whole one.
    pub(crate) lost: bool,
}

/// How often the disk has refused to read which record, and when last: by hashes of their keys, since it may be many.
#[derive(Debug, Default)]
pub(crate) struct Refused(BTreeMap<u64, (u8, Instant)>);

impl Refused {
    /// It was refused once more, or is within the time in which that is not counted.
    fn note(&mut self, hash: u64, now: Instant) {
        if self.0.len() >= MAX_REFUSED && !self.0.contains_key(&hash) {
            let is_old = |last: Instant| now.since(last) > 2 * REFUSED_AGAIN;
            self.0.retain(|_, (times, last)| *times >= REFUSALS || !is_old(*last));
            if self.0.len() >= MAX_REFUSED {
                return;
            }
        }
        let (times, last) = self.0.entry(hash).or_insert((0, now));
        if *times == 0 || now.since(*last) >= REFUSED_AGAIN {
            (*times, *last) = (times.saturating_add(1), now);
        }
    }

    fn is_given_up(&self, hash: u64) -> bool {
        self.0.get(&hash).is_some_and(|(times, _)| *times >= REFUSALS)
    }
}

impl Engine {
    pub(crate) fn store_actor(&mut self) {
        let words = [self.config.actor.0, self.opening.base()];
        let value = Bytes::from(words.map(u64::to_be_bytes).concat());
        let append = self.out.append(replica::RUN, Bytes::from_static(replica::RUN_KEY), Some((value, 0)));
        self.replica.journal.hold(append, Waiting::Actor);
    }

    /// A record was read.
    pub(crate) fn loaded(&mut self, now: Now, id: LoadId, loaded: &Loaded) {
        if self.notes_loaded(id, loaded) || self.hint_loaded(now, id, loaded) {
            return;
        }
        let given_up = self.note_read(id, loaded);
        let loaded = if given_up { &Loaded::Damaged } else { loaded };
        let departed = self.departed.is_some() || self.rehint_armed;
        let (view, me, passing_on) = (&self.view, self.config.node, self.is_passing_on());
        let (writes, planted) = (&self.writes, self.config.planted);
        let is_due = |key: &[u8], task: &Task| match task {
            // It is answered, and nobody is left who would send it to the others.
            Task::Mint(mint) => writes.contains_key(&mint.call) || planted.is(Bug::MintedLate),
            // What was to go belongs to an owner by now, perhaps, or is offered to heirs with all else.
            Task::Forget { .. } => {
                !passing_on && !departed && !view.is_owner(Slot::of(key), me) || planted.is(Bug::OwnerForgets)
            }
            _ => true,
        };
        self.replica.request_bytes = self.open_bytes;
        let lost = |key: &[u8]| self.healing.get(key).is_some_and(|h| h.lost && h.again > now.instant);
        let alone = |key: &[u8]| view.other_owners(Slot::of(key), me).next().is_none() || lost(key);
        let is_alone = |key: &[u8]| planted.alone(alone(key), lost(key));
        if let Some(events) = self.replica.loaded(&mut self.out, now.wall_ms, id, loaded, is_due, is_alone) {
            self.events(now, events);
        }
    }

    /// A record that can be read is no concern any more. Whether one that can't is given up, though its checksum may hold.
    fn note_read(&mut self, id: LoadId, loaded: &Loaded) -> bool {
        if self.healing.is_empty() && self.refused.0.is_empty() {
            return false;
        }
        let Some(key) = self.replica.queues.key(id) else { return false };
        match loaded {
            Loaded::Found(_) | Loaded::Absent => {
                self.healing.remove(key);
                let hash = self.hash(key);
                self.refused.0.remove(&hash);
                false
            }
            Loaded::Unknown(_) => self.refused.is_given_up(self.hash(key)),
            Loaded::Damaged => false,
        }
    }

    fn hash(&self, key: &[u8]) -> u64 {
        SipHasher24::new_with_key(&self.config.digest_key).hash(key)
    }

    /// A page of keys was read, or could not be.
    pub(crate) fn listed(&mut self, now: Now, id: ListId, page: Option<Page>) {
        // Else it was waited for long enough.
        if self.out.lists.remove(&id).is_some()
            && !self.listed_for(id, &page)
            && !self.sweep_listed(now, id, &page)
            && !self.hints_looked_through(now, id, &page)
        {
            self.hints_listed(now, id, page);
        }
    }

    /// Answers what has waited for its record for as long as a request may take: as if that could not be read, but a copy that may
    /// be as it should is not healed.
    pub(crate) fn answer_overdue(&mut self, now: Now) {
        let mut events = Vec::new();
        for (key, tasks) in self.replica.queues.overdue(self.config.timing.request) {
            for task in tasks {
                events.push(match task {
                    Task::Read(reader) => Event::Read(key.clone(), reader, Held::Unknown { for_good: false }),
                    Task::Mint(mint) => Event::MintRefused(mint.call, OpError::Overloaded),
                    Task::Merge(merge) => Event::MergeRefused(merge.source, Refusal::Overloaded),
                    Task::Settle { owner, .. } => {
                        Event::Settled { key: key.clone(), owner, digest: None, current: false }
                    }
                    // What was to go is looked at again, and what is damaged is found again.
                    Task::Forget { .. } | Task::ForgetDamaged => Event::Stored(place_of(&key)),
                });
            }
        }
        self.events(now, events);
        // Listings likewise: whoever asked for one asks anew, or tells the peer that did.
        let patience = self.config.timing.request;
        let lists = self.out.lists.iter().filter(|(_, since)| now.instant.since(**since) >= patience);
        for id in lists.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.listed(now, id, None);
        }
    }

    /// Sees to it that nothing waits for its record for ever.
    pub(crate) fn arm_overdue(&mut self) {
        let list = self.out.lists.first_key_value().map(|(_, since)| *since);
        if !self.overdue_armed
            && let Some(since) = self.replica.queues.since().into_iter().chain(list).min()
        {
            self.overdue_armed = true;
            self.timers.insert((since + self.config.timing.request, Timer::Overdue));
        }
    }

    pub(crate) fn events(&mut self, now: Now, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Read(key, reader, held) => self.held(now, key, reader, held),
                Event::Minted(minted) => self.write_minted(now, *minted),
                Event::MintRefused(call, error) => self.write_refused_here(call, error),
                Event::MintBlind(call, cover) => self.mint_blind(now, call, cover),
                Event::MergeRefused(Source::Peer(to, call, _), why) => self.refuse_write(now, to, call, why),
                Event::MergeRefused(Source::Pull(pull), _) => self.pull_merged(now, pull, false),
                Event::MergeRefused(Source::Repair, _) => {}
                Event::Kept(done) => self.stored(now, done),
                Event::NotKept(waiting) => self.not_stored(now, waiting, true),
                Event::Healed(key) => {
                    self.healing.remove(&key);
                    let hash = self.hash(&key);
                    self.refused.0.remove(&hash);
                    self.healed += 1;
                }
                Event::Hinted(owner) => {
                    self.hints_kept += 1;
                    self.expect_handoff(now, owner);
                }
                Event::Stored(place) => self.stored_in(now, place),
                Event::Settled { key, owner, digest, current } => {
                    self.handoff_settled(now, key, owner, digest, current);
                }
                Event::Damaged { key, for_good } => {
                    // Reads that wait are no hindrance: those that found it are among them.
                    if !for_good {
                        let hash = self.hash(&key);
                        self.refused.note(hash, now.instant);
                    }
                    if self.healing.len() >= MAX_HEALING && !self.healing.contains_key(&key) {
                        self.healing.retain(|_, healing| healing.again > now.instant);
                        if self.healing.len() >= MAX_HEALING {
                            continue;
                        }
                    }
                    let new = Healing { again: now.instant, lost: false };
                    let healing = self.healing.entry(key.clone()).or_insert(new);
                    if healing.again <= now.instant && !self.replica.is_hung() {
                        self.start_heal(now, key, for_good);
                    }
                }
            }
        }
    }

    fn held(&mut self, now: Now, key: Bytes, reader: Reader, held: Held) {
        match reader {
            Reader::Coordinator(call) => self.read_held(now, call, held),
            Reader::Handoff(owner) => self.handoff_read(now, owner, key, held),
            Reader::Listing(id) => self.gathered(id, held),
            Reader::Pull(pull, digest) => self.pull_read(now, pull, digest, key, &held),
            Reader::Peer(to, call, want) => {
                let run = self.run();
                let incomplete = match want {
                    Want::Source => !self.is_source(Slot::of(&key)),
                    Want::Object | Want::Digest => self.is_incomplete(&key),
                };
                let copy = match (held, want) {
                    (Held::Unknown { for_good }, _) => {
                        let why = if for_good { Refusal::Damaged } else { Refusal::Unknown };
                        return self.out.send(to, Message::Refused { call, why });
                    }
                    (Held::Absent, _) => Copy::Absent,
                    (Held::Object { encoded, .. }, Want::Object | Want::Source) => Copy::Object(encoded),
                    (Held::Object { digest, .. }, Want::Digest) => Copy::Digest(digest),
                };
                self.out.send(to, Message::Copy { call, copy, incomplete, run });
            }
        }
    }

    pub(crate) fn append_failed(&mut self, now: Now, append: AppendId) {
        let (failed, copy) = self.replica.append_failed(append);
        if let Some((place, true)) = copy {
            // It was to go and stays.
            self.stored_in(now, place);
        }
        for waiting in failed {
            if self.config.planted.is(Bug::AppendFailureIgnored) {
                let done = self.replica.journal.pass(waiting);
                self.stored(now, done);
                continue;
            }
            self.not_stored(now, waiting, copy.is_none());
        }
    }

    pub(crate) fn synced(&mut self, now: Now, through: AppendId, position: u64) {
        self.durable = self.durable.max(position);
        for place in self.replica.bare_through(through) {
            self.stored_in(now, place);
        }
        for done in self.replica.synced(through) {
            self.stored(now, done);
        }
    }

    fn refuse_write(&mut self, now: Now, to: NodeId, call: CallId, why: Refusal) {
        if to == self.config.node {
            self.write_failed(now, call, to, true);
        } else {
            self.out.send(to, Message::Refused { call, why });
        }
    }

    /// The wall time by which records may [shrink](crate::object::Shrink), 0 while that is not certain: this node's clock has to have gone
    /// evenly for a twenty-fourth of [`Timing::expired`](crate::Timing), and the clocks of most members have come as far. What is wrong for longer, on most of
    /// them at once, is believed; when it is set right this says so, and nothing more goes by what was shown before.
    pub fn settled_wall(&mut self, now: Now) -> u64 {
        let settled = self.evenness.look(now, self.config.timing.expired / 24);
        match settled {
            _ if self.config.planted.is(Bug::GivenBackEarly) => now.wall_ms,
            true if self.config.planted.is(Bug::LoneClock) => now.wall_ms,
            true => self.agreed_wall(now.wall_ms).min(now.wall_ms),
            false => 0,
        }
    }

    /// The only place from which an acknowledgement leaves.
    pub(crate) fn stored(&mut self, now: Now, done: Kept<Waiting>) {
        let waiting = match done.into_inner() {
            Waiting::Carried(inner) => *inner,
            waiting => waiting,
        };
        match waiting {
            // It is wrapped once.
            Waiting::Carried(_) => {}
            Waiting::Minted(call) => self.write_minted_durably(now, call),
            Waiting::Merged { to, call, hints, .. } if to == self.config.node => {
                self.write_acknowledged(now, call, to, &hints, None);
            }
            Waiting::Merged { to, call, hints, outranking } => {
                self.out.send(to, Message::Written { call, hints, outranking });
            }
            Waiting::Actor => {
                if !core::mem::replace(&mut self.ready, true) {
                    self.rehint();
                }
            }
            Waiting::Pulled(pull) => self.pull_merged(now, pull, true),
            Waiting::PullEnd(pull) => self.end_pull(now, pull, true),
            Waiting::Hint => self.hints_kept += 1,
            Waiting::Inherited(owner, key) => self.inherited(now, owner, &key, true),
            Waiting::HintGone(owner) => {
                self.replica.hints_going -= 1;
                self.hint_removed(now, owner);
            }
        }
    }

    /// An append failed. `uncertain`: a sync did, or only the append of a hint, after which the record may or may not be there.
    pub(crate) fn not_stored(&mut self, now: Now, waiting: Waiting, uncertain: bool) {
        match waiting {
            Waiting::Minted(call) => self.write_failed(now, call, self.config.node, uncertain),
            // Where nothing certain can be said, nothing is said.
            Waiting::Merged { to, call, .. } if !uncertain => {
                self.refuse_write(now, to, call, Refusal::Unwritable);
            }
            Waiting::Actor if self.replica.journal.is_writable() => {
                self.timers.insert((now.instant + self.config.timing.retry, Timer::Actor));
            }
            Waiting::Carried(inner) => self.not_stored(now, *inner, true),
            Waiting::Hint => self.hints_refused += 1,
            Waiting::Inherited(owner, key) => self.inherited(now, owner, &key, false),
            Waiting::HintGone(owner) => {
                self.replica.hints_going -= 1;
                self.hint_not_removed(now, owner);
            }
            Waiting::Pulled(pull) => self.pull_not_stored(now, pull),
            Waiting::PullEnd(pull) => self.end_pull(now, pull, false),
            Waiting::Merged { .. } | Waiting::Actor => {}
        }
    }
}
