//! One node's copies: every change to a key goes load, decide, append, in the order in which it came.
//!
//! Operations on one key queue behind its load; when the record is there, all of them are applied and the
//! outcome is appended once. Nothing is cached beyond that: the store is the only truth.

use crate::handoff::hint_record;
use crate::input::{AppendId, LoadId, Loaded, Place};
use crate::journal::{Journal, Kept, Outbox};
use crate::keyspace::{Keyspaces, Policy};
use crate::message::{Refusal, Syncing};
use crate::object::{self, Object, Shrink, Version};
use crate::op::{Cover, OpError};
use crate::outcome::{Event, Minted, Waiting};
use crate::planted::{Bug, Planted};
use crate::queues::Queues;
use crate::task::{Merge, Mint, Source, Task};
use crate::watch::Watch;
use crate::work::{Hint, Work};
use crate::{Config, Limits};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use gramme_ring::Slot;
use gramme_vclock::{
    Actor, GrowableContext as Context, GrowableDotSet as DotSet, Hlc, Minter, WriteError, Written,
};

/// The slot of this node's own records, after the data slots.
pub(crate) const RUN: Place = Place(gramme_ring::SLOTS);
/// The key of this run's record: its actor and which opening of the store it is, 8 bytes each, big-endian.
pub(crate) const RUN_KEY: &[u8] = b"actor";

/// Copies that may be appended and not synced, for each of [`Limits::local`]. A quarter of them is synced before its time.
const UNSYNCED: usize = 4;

#[derive(Debug)]
pub(crate) struct Replica {
    actor: Actor,
    digest_key: [u8; 16],
    /// Milliseconds that a value's bytes stay after it has expired.
    expired_ms: u64,
    limits: Limits,
    planted: Planted,
    pub(crate) keyspaces: Keyspaces,
    minters: BTreeMap<Place, Minter>,
    pub(crate) queues: Queues,
    /// Hints whose removal is not durable yet.
    pub(crate) hints_going: usize,
    /// Bytes of the requests that this node coordinates, with what was minted since they were counted.
    pub(crate) request_bytes: usize,
    pub(crate) clock: Hlc,
    pub(crate) journal: Journal<Waiting>,
    /// The copies that are appended and not synced, and whether one was dropped.
    slot_of: BTreeMap<AppendId, (Place, bool)>,
    /// The hints that are, each with its copy; and the copies whose hints were refused, with their slots.
    hinted: BTreeMap<AppendId, AppendId>,
    bare: BTreeMap<AppendId, Place>,
    /// Slots that are about to be dropped.
    pub(crate) watch: Watch,
}

impl Replica {
    pub(crate) fn new(config: &Config, clock: Hlc) -> Replica {
        Replica {
            actor: config.actor,
            digest_key: config.digest_key,
            expired_ms: u64::try_from(config.timing.expired.as_millis()).unwrap_or(u64::MAX),
            limits: config.limits,
            planted: config.planted,
            keyspaces: Keyspaces::new(config.r, config.w),
            minters: BTreeMap::new(),
            queues: Queues::default(),
            hints_going: 0,
            request_bytes: 0,
            clock,
            journal: Journal::new(),
            slot_of: BTreeMap::new(),
            hinted: BTreeMap::new(),
            bare: BTreeMap::new(),
            watch: Watch::default(),
        }
    }

    /// Whether so many local operations wait for their records that no more are taken from outside.
    pub(crate) const fn is_full(&self) -> bool {
        self.queues.open() >= self.limits.local || self.queues.bytes() >= self.limits.local_bytes
    }

    /// Whether so many wait for their records or for a sync that nothing that changes a record is taken: reads need no sync, and
    /// go on. Nor is it where nobody waits, and a sync that hangs leaves too many copies with the log alone.
    pub(crate) fn is_behind(&self) -> bool {
        self.queues.open() + self.journal.held() >= self.limits.local
            || self.bytes() >= self.limits.local_bytes
            || self.is_hung()
    }

    /// Whether it would be so if all records were read.
    pub(crate) fn is_hung(&self) -> bool {
        self.journal.held() >= self.limits.local
            || self.journal.bytes() >= self.limits.local_bytes
            || self.unsynced_copies() >= UNSYNCED * self.limits.local
    }

    /// Copies that are appended and not synced.
    pub(crate) fn unsynced_copies(&self) -> usize {
        self.slot_of.len()
    }

    /// Bytes of what waits for a record or a sync.
    pub(crate) const fn bytes(&self) -> usize {
        self.queues.bytes() + self.journal.bytes()
    }

    /// Whether a write that this node keeps for an owner waits to be merged into this key.
    pub(crate) fn expects_hint(&self, key: &Bytes) -> bool {
        self.queues.of(key).iter().any(Task::has_hints)
    }

    /// Other rules hold: what waits for its record is acknowledged when it is synced, whatever it was to be when it came.
    pub(crate) fn sync_first(&mut self) {
        for task in self.queues.all_mut() {
            if let Task::Merge(Merge { source: Source::Peer(_, _, sync), .. }) = task {
                *sync = Syncing::First;
            }
        }
    }

    /// A hint for this key is appended: its copy does not go.
    pub(crate) fn spare(&mut self, key: &Bytes) {
        self.watch.touch(place_of(key));
        for task in self.queues.of_mut(key) {
            if let Task::Forget { digest } = task {
                *digest = None;
            }
        }
    }

    /// The same for any key; or it is just being found out whether a hint has served.
    pub(crate) fn expects_hints(&self) -> bool {
        self.queues.all().any(|task| task.has_hints() || matches!(task, Task::Settle { .. }))
    }

    /// Ends the watch over these slots. Whether anything was put into them, or is about to be.
    pub(crate) fn was_touched(&mut self, slots: (u16, u16)) -> bool {
        let waits = |key: &Bytes| (slots.0..=slots.1).contains(&place_of(key).0);
        self.watch.end(slots) || self.queues.keys().any(waits)
    }

    /// Drops all copies of a slot.
    pub(crate) fn drop_slot(&mut self, out: &mut Outbox, place: Place) {
        let id = out.drop_slot(place);
        self.slot_of.insert(id, (place, true));
        self.break_hold(place);
    }

    /// Queues a task for its key, and starts the load that it waits for.
    pub(crate) fn start(&mut self, out: &mut Outbox, key: &Bytes, task: Task) {
        self.queues.push(out, key, task);
    }

    /// A load was performed: applies everything that waits for it. `None` if the load is not ours. `is_due`: whether
    /// a task is still wanted; `is_alone`: whether nobody else owns a key, from whom it could be healed.
    pub(crate) fn loaded(
        &mut self,
        out: &mut Outbox,
        wall_ms: u64,
        id: LoadId,
        loaded: &Loaded,
        is_due: impl Fn(&[u8], &Task) -> bool,
        is_alone: impl Fn(&[u8]) -> bool,
    ) -> Option<Vec<Event>> {
        let (key, mut tasks) = self.queues.take(id)?;
        let object = match loaded {
            Loaded::Absent => Some(Object::new()),
            Loaded::Found(bytes) => object::decode(bytes).ok(),
            Loaded::Unknown(_) | Loaded::Damaged => self.planted.is(Bug::DamagedIsAbsent).then(Object::new),
        };
        let mut work = Work {
            damaged: object.is_none(),
            for_good: !matches!(loaded, Loaded::Unknown(_)) || self.planted.is(Bug::RefusedIsDamaged),
            alone: object.is_none() && !matches!(loaded, Loaded::Unknown(_)) && is_alone(&key),
            tag: match loaded {
                Loaded::Unknown(tag) => *tag,
                _ => None,
            },
            object: object.unwrap_or_default(),
            encoded: match loaded {
                Loaded::Found(bytes) => Some(bytes.clone()),
                _ => None,
            },
            changed: false,
            dropped: false,
            waiting: Vec::new(),
            hints: Vec::new(),
            events: Vec::new(),
        };
        if work.damaged {
            // What this copy held is not known, so its spans end here.
            self.break_hold(place_of(&key));
            if self.planted.is(Bug::CounterFromDamaged) {
                self.minters.remove(&place_of(&key));
            }
        }
        // What is appended with this load may yet be refused: who reads sees the record as it is.
        tasks.sort_by_key(|task| !matches!(task, Task::Read(_)));
        let goes = |tasks: &[Task]| tasks.iter().any(|task| matches!(task, Task::Forget { .. }));
        let went = goes(&tasks);
        tasks.retain(|task| is_due(&key, task));
        // What something is put to does not go either.
        let puts = tasks.iter().any(|task| matches!(task, Task::Merge(_) | Task::Mint(_)));
        tasks.retain(|task| !matches!(task, Task::Forget { digest } if puts || digest.is_none()));
        // Whether it is owed to somebody is looked at later.
        if went && !goes(&tasks) {
            work.events.push(Event::Stored(place_of(&key)));
        }
        for task in tasks {
            self.apply(&mut work, wall_ms, &key, task);
        }
        // Unless one of them has healed it.
        if work.damaged {
            work.events.push(Event::Damaged { key: key.clone(), for_good: work.for_good });
        }
        self.finish(out, &key, &mut work);
        Some(work.events)
    }

    fn apply(&mut self, work: &mut Work, wall_ms: u64, key: &Bytes, task: Task) {
        match task {
            Task::Read(reader) => {
                let held = work.held(&self.digest_key);
                work.events.push(Event::Read(key.clone(), reader, held));
            }
            Task::Mint(mint) => self.mint(work, wall_ms, key, mint),
            Task::Merge(merge) => self.merge(work, wall_ms, key, merge),
            Task::Settle { owner, digest } => {
                let now = work.digest(&self.digest_key);
                let current = !work.damaged && (now.is_none() || now == digest);
                let current = current || self.planted.is(Bug::SettleUnchecked);
                if current {
                    work.hints.push((owner, Hint::Served));
                }
                work.events.push(Event::Settled { key: key.clone(), owner, digest: now, current });
            }
            Task::Forget { digest } => {
                if digest.is_some() && work.digest(&self.digest_key) == digest {
                    work.drop_copy();
                    self.break_hold(place_of(key));
                }
            }
            Task::ForgetDamaged => {
                if work.damaged && work.for_good {
                    work.drop_copy();
                    work.damaged = false;
                }
            }
        }
    }

    fn mint(&mut self, work: &mut Work, wall_ms: u64, key: &Bytes, mint: Mint) {
        // What is here can't be covered, nor counted.
        if work.damaged && mint.also.is_none() {
            work.events.push(Event::MintBlind(mint.call, mint.cover));
            return;
        }
        let own = key.len() + mint.content.size() + mint.also.as_ref().map_or(0, object::weigh_all);
        let others = self.request_bytes.saturating_sub(own);
        if others >= self.limits.request_bytes && !self.planted.is(Bug::RequestBytesUnbounded) {
            work.events.push(Event::MintRefused(mint.call, OpError::Overloaded));
            return;
        }
        let mut object = work.object.clone();
        if let Some(also) = mint.also {
            let Ok(_) = object.merge(also);
        }
        let policy = self.keyspaces.of(key).policy;
        policy.settle(&mut object);
        let held = (object.seen().clone(), object::newest(&object));
        let policy = if self.planted.is(Bug::LwwCoversContextOnly) { Policy::Siblings } else { policy };
        let (context, covered_stamp) = match &mint.cover {
            Cover::Held => held,
            // The last write is to win over what is here, whatever its writer has seen: nobody is to see the others again.
            Cover::Nothing if policy == Policy::Lww => held,
            Cover::Context(context) if policy == Policy::Lww => {
                let (mut seen, newest) = held;
                let Ok(_) = seen.union(&context.seen);
                (seen, newest.max(context.stamp))
            }
            Cover::Nothing => (DotSet::new(), gramme_vclock::Stamp::ZERO),
            Cover::Context(context) | Cover::Amends(context) => (context.seen.clone(), context.stamp),
        };
        if self.claims_the_future(place_of(key), &context) {
            let why = OpError::Misuse(String::from("the context names writes that do not exist"));
            work.events.push(Event::MintRefused(mint.call, why));
            return;
        }
        let replaced = object.iter().any(|(_, v)| v.is_live(wall_ms));
        let tick = self.clock.tick(wall_ms);
        let stamp = match &mint.cover {
            Cover::Amends(_) if !self.planted.is(Bug::AmendmentOutranks) => covered_stamp.next(),
            _ if self.planted.is(Bug::StampNotLifted) => tick,
            _ => object::with_room_below(tick.max(covered_stamp.next())),
        };
        let version = Version { stamp, expiry: mint.expiry, content: mint.content };
        if let Err(error) = self.admit(&object, &context, &version) {
            work.events.push(Event::MintRefused(mint.call, error));
            return;
        }
        let place = place_of(key);
        let Written { dot, context: seen } = match object.write(&context, self.minter(place), version) {
            Ok(written) => written,
            Err(WriteError::Full(never)) => match never {},
            Err(error) => {
                work.events.push(Event::MintRefused(mint.call, OpError::Misuse(alloc::format!("{error}"))));
                return;
            }
        };
        let rank = policy.rank(object.get(dot).expect("it was just written"), dot);
        // An amendment may lose to what came meanwhile.
        policy.settle(&mut object);
        let encoded = object::encode(&object);
        self.request_bytes += encoded.len();
        let context = Context { seen, stamp };
        // A damaged copy is not replaced by what may be less, unless nobody could ever heal it.
        let held = !work.damaged || work.alone;
        if held {
            work.carry();
            work.put(object.clone());
            work.encoded = Some(encoded.clone());
            work.waiting.push((Waiting::Minted(mint.call), mint.sync));
            work.hints.extend(mint.hints.into_iter().map(|owner| (owner, Hint::Kept)));
        } else {
            // A dot that is out and not here: no span may reach across it.
            self.break_hold(place);
        }
        let minted = Minted { call: mint.call, object, encoded, context, rank, replaced, held };
        work.events.push(Event::Minted(Box::new(minted)));
    }

    /// Past the limits, coordinators take no write that would make the object larger still.
    fn admit(&self, object: &Object, context: &DotSet, version: &Version) -> Result<(), OpError> {
        let (mut count, mut bytes, mut kept, mut kept_bytes) = (0, 0, 1, object::weigh(version));
        for (dot, v) in object.iter() {
            let weight = object::weigh(v);
            count += 1;
            bytes += weight;
            if !context.contains(dot) {
                kept += 1;
                kept_bytes += weight;
            }
        }
        let too_many = kept > self.limits.siblings && kept > count;
        let most = if self.planted.is(Bug::ObjectBytesUnbounded) { usize::MAX } else { self.limits.object() };
        let too_large = kept_bytes > most && kept > 1 && kept_bytes > bytes;
        if too_many || too_large { Err(OpError::TooManySiblings) } else { Ok(()) }
    }

    /// Whether this may take the place of a record that can't be read. What the disk only refuses to read may be the last copy of a
    /// write: nothing replaces it but the same again.
    fn replaces(&self, work: &Work, merge: &Merge) -> bool {
        let digest = || object::digest(&self.digest_key, &merge.object, &object::encode(&merge.object));
        work.alone || merge.heals && work.for_good || work.tag.is_some_and(|tag| tag == digest())
    }

    fn merge(&mut self, work: &mut Work, wall_ms: u64, key: &Bytes, merge: Merge) {
        if work.damaged && !self.replaces(work, &merge) {
            work.events.push(Event::MergeRefused(merge.source, Refusal::Unknown));
            return;
        }
        if self.claims_the_future(place_of(key), merge.object.seen()) {
            work.events.push(Event::MergeRefused(merge.source, Refusal::Malformed));
            return;
        }
        if work.damaged {
            work.events.push(Event::Healed(key.clone()));
        }
        self.clock.observe(wall_ms, object::newest(&merge.object));
        let mut object = work.object.clone();
        if self.planted.is(Bug::RepairOverwrites) && matches!(merge.source, Source::Repair) {
            object = Object::new();
        }
        let buries = self.planted.is(Bug::LateTombstoneBuries)
            && merge.heals
            && !merge.object.iter().any(|(_, version)| version.is_value());
        let (object, changed) = self.planted.join(object, merge.object);
        let mut object = self.planted.merged(object, wall_ms);
        if buries {
            object = self.planted.bury(object);
        }
        let policy = self.keyspaces.of(key).policy;
        if self.planted.settle(policy, &mut object) || changed || work.damaged {
            work.put(object);
        }
        let asked = merge.hints.clone();
        let hints = merge.hints.into_iter().filter(|_| !self.planted.is(Bug::FallbackWithoutHint));
        work.hints.extend(hints.map(|owner| (owner, Hint::Kept)));
        match merge.source {
            Source::Peer(to, call, sync) => {
                let outranking =
                    merge.outranked_by.and_then(|rank| object::outranking(&work.object, policy, rank));
                let outranking = outranking.as_ref().map(object::encode);
                work.waiting.push((Waiting::Merged { to, call, hints: asked, outranking }, sync));
            }
            Source::Pull(pull) => work.waiting.push((Waiting::Pulled(pull), Syncing::First)),
            // Nobody waits.
            Source::Repair => {}
        }
    }

    fn finish(&mut self, out: &mut Outbox, key: &Bytes, work: &mut Work) {
        let place = place_of(key);
        let (mut last, mut hints) = (None, Vec::new());
        // Before the copy: a hint without one does no harm, while a copy without a hint can be read and goes nowhere.
        for (owner, change) in core::mem::take(&mut work.hints) {
            let (place, record) = hint_record(owner, key);
            let kept = change == Hint::Kept;
            let id = out.append(place, record, kept.then(|| (Bytes::new(), 0)));
            if kept {
                self.watch.touch(place_of(key));
                hints.push(id);
                if let Some(first) = last {
                    self.journal.link(first, id);
                }
                last = Some(id);
                // Not before: a listing of this owner's hints that began earlier would miss it.
                work.events.push(Event::Hinted(owner));
            } else {
                // Nobody else waits for a removal.
                self.hints_going += 1;
                self.journal.hold(id, Waiting::HintGone(owner));
            }
        }
        if work.changed {
            let reaped =
                self.planted.is(Bug::TombstoneDropped) && !work.object.iter().any(|(_, v)| v.is_value());
            let encoded = if work.dropped || reaped { None } else { work.bytes() };
            let shrink = encoded.as_ref().and_then(|encoded| {
                let shrink = object::shrink(&work.object, encoded.len(), self.expired_ms)?;
                Some(if self.planted.is(Bug::GivenBackEarly) {
                    Shrink { at_ms: 0, ..shrink }
                } else {
                    shrink
                })
            });
            let value = encoded.map(|encoded| {
                let digest = object::digest(&self.digest_key, &work.object, &encoded);
                (encoded, digest)
            });
            let removal = value.is_none();
            if !removal {
                self.watch.touch(place);
            }
            if value.is_some() && last.is_none() {
                work.events.push(Event::Stored(place));
            }
            let id = out.append_shrinking(place, key.clone(), value, shrink);
            self.slot_of.insert(id, (place, removal));
            self.hinted.extend(hints.into_iter().map(|hint| (hint, id)));
            if self.unsynced_copies().is_multiple_of(self.limits.local) {
                self.journal.want_sync();
            }
            // Either of them failing refuses the write.
            if let Some(hint) = last {
                self.journal.link(hint, id);
            }
            last = Some(id);
        }
        let mut confirm = false;
        for (waiting, sync) in core::mem::take(&mut work.waiting) {
            let sync = if self.planted.is(Bug::AckBeforeSync) { Syncing::Later } else { sync };
            match (last, sync) {
                (Some(append), Syncing::First) => self.journal.hold(append, waiting),
                (Some(append), Syncing::Now | Syncing::Later) => {
                    self.journal.hold_written(append, waiting);
                    confirm = true;
                }
                (None, Syncing::First) if !self.journal.is_writable() => {
                    work.events.push(Event::NotKept(waiting));
                }
                (None, Syncing::First) => {
                    let kept = self.journal.hold_after(out.last_append(), waiting);
                    work.events.extend(kept.map(Event::Kept));
                }
                // The load has seen what was appended before.
                (None, Syncing::Now | Syncing::Later) => {
                    work.events.push(Event::Kept(self.journal.pass(waiting)))
                }
            }
            if sync == Syncing::Now {
                self.journal.want_sync();
            }
        }
        if confirm {
            out.confirm();
        }
    }

    /// An append was refused. The dots that it would have stored may be out already, so no span may
    /// reach across them. Answers who waited for it, and what copy it was of and whether that was to go; if it was a hint instead, the
    /// copy may be there.
    pub(crate) fn append_failed(&mut self, append: AppendId) -> (Vec<Waiting>, Option<(Place, bool)>) {
        let copy = self.slot_of.remove(&append);
        self.bare.remove(&append);
        if let Some((place, _)) = copy {
            self.break_hold(place);
        } else if let Some(copy) = self.hinted.remove(&append)
            && let Some((place, _)) = self.slot_of.get(&copy)
        {
            self.bare.insert(copy, *place);
        }
        (self.journal.append_failed(append), copy)
    }

    /// Slots in which a copy is durable by now that no hint speaks of.
    pub(crate) fn bare_through(&mut self, through: AppendId) -> impl Iterator<Item = Place> + use<> {
        let rest = self.bare.split_off(&AppendId(through.0 + 1));
        core::mem::replace(&mut self.bare, rest).into_values()
    }

    /// A sync failed: answers all who waited. None will be made any more.
    pub(crate) fn sync_failed(&mut self) -> Vec<Waiting> {
        self.slot_of.clear();
        (self.hinted, self.bare) = (BTreeMap::new(), BTreeMap::new());
        self.journal.sync_failed()
    }

    pub(crate) fn synced(&mut self, through: AppendId) -> Vec<Kept<Waiting>> {
        self.slot_of = self.slot_of.split_off(&AppendId(through.0 + 1));
        self.hinted = self.hinted.split_off(&AppendId(through.0 + 1));
        self.journal.synced(through)
    }

    /// Whether a history names dots of this run that are not minted yet: only forgery or a bug does, and believing
    /// it would make the next write look replaced.
    fn claims_the_future(&self, place: Place, seen: &DotSet) -> bool {
        match self.minters.get(&place) {
            Some(minter) => minter.is_behind(seen),
            None => Minter::new(self.actor).is_behind(seen),
        }
    }

    fn minter(&mut self, place: Place) -> &mut Minter {
        self.minters.entry(place).or_insert(Minter::new(self.actor))
    }

    fn break_hold(&mut self, place: Place) {
        if !self.planted.is(Bug::IntervalAcrossBreak) {
            self.minter(place).break_hold();
        }
    }
}

/// The slot that a key's record lies in.
pub(crate) fn place_of(key: &[u8]) -> Place {
    Place(Slot::of(key).index())
}
