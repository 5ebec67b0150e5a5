//! Copies: what each replica holds, what of it would survive a power cut, and what an acknowledgement stands for.

use super::given_back::{GivenBack, lasting, lasting_of};
use super::handover::Owed;
use super::{Checker, Invariant, View};
use crate::time::Time;
use bytes::Bytes;
use core::time::Duration;
use gramme_quorum::Object;
use gramme_ring::{Layout, SLOTS};
use gramme_vclock::{Actor, Dot, GrowableDotSet as DotSet};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A plain write may cover what its coordinator was shown within this time: longer than any request lives.
pub(super) const MEMORY: Duration = Duration::from_secs(60);

/// What one node's store holds, as the appends that its engine asked for say.
#[derive(Clone, Debug, Default)]
pub(super) struct Shadow {
    pub(super) actor: Option<Actor>,
    /// The keyspaces that it goes by.
    pub(super) keyspaces: BTreeSet<usize>,
    pub(super) copies: BTreeMap<usize, ShadowCopy>,
    /// The engine's own records: hints and such.
    pub(super) own: BTreeMap<(u16, Bytes), Record>,
    /// What was appended to and not yet synced.
    dirty: BTreeSet<usize>,
    own_dirty: BTreeSet<(u16, Bytes)>,
    /// How long it has stood still, all together.
    pub(super) slept: Duration,
    /// Objects that messages showed this node lately, by key: when, of the time in which it did not stand still, and their values.
    pub(super) shown: BTreeMap<usize, VecDeque<(Time, Dot)>>,
    /// The layout that it goes by.
    pub(super) layout: Option<Layout>,
    /// The rules as it sees them.
    pub(super) view: View,
    /// Hints that it has made hints for others, since it had not heard that their owners were owners: their records.
    pub(super) remade: BTreeSet<Bytes>,
    /// What it had when it lost its disk.
    pub(super) owed: Owed,
    pub(super) given_back: GivenBack,
    /// Its machine has lost its power, and it has not opened since.
    pub(super) is_dark: bool,
    /// Its disk was set back to an old copy, of which nothing is known until it is opened.
    pub(super) set_back: bool,
    appended: u64,
    /// The sync under way covers appends up to this one.
    syncing: u64,
    /// What it had appended when it began to go by the newest commit that it knows.
    adopted: u64,
    commit: Option<u64>,
}

/// One record through time.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    /// As reads see it.
    pub(super) live: Option<Bytes>,
    /// As it was at the last sync.
    durable: Option<Bytes>,
    /// Appends since then.
    unsynced: VecDeque<(u64, Option<Bytes>)>,
    /// What is durable can't be read any more.
    rotten: bool,
    /// An opening knows that it was there all the same.
    sealed: bool,
    /// An opening did not. A later one may: it finds an index file that the one before could not trust yet.
    overlooked: bool,
}

impl Record {
    fn append(&mut self, number: u64, value: Option<Bytes>) {
        self.live.clone_from(&value);
        self.unsynced.push_back((number, value));
    }

    /// What was appended up to this is durable. Whether anything newer is left.
    fn sync(&mut self, through: u64) -> bool {
        while self.unsynced.front().is_some_and(|(number, _)| *number <= through) {
            self.durable = self.unsynced.pop_front().and_then(|(_, value)| value);
            (self.rotten, self.overlooked) = (false, false);
        }
        !self.unsynced.is_empty()
    }

    /// Whether a store may come back with this after a crash.
    fn may_be(&self, found: Option<&Bytes>, kept_all: bool) -> bool {
        if kept_all {
            return self.live.as_ref() == found && !self.is_damaged();
        }
        self.durable.as_ref() == found && !self.rotten
            || self.unsynced.iter().any(|(_, value)| value.as_ref() == found)
    }

    /// The last appends did not happen: this is what is there. Whether that made a difference.
    fn take_back(&mut self, found: Option<&Bytes>) -> bool {
        let wrong = self.live.as_ref() != found;
        while self.live.as_ref() != found && self.unsynced.pop_back().is_some() {
            self.live = self.unsynced.back().map_or(&self.durable, |(_, value)| value).clone();
        }
        wrong
    }

    /// What is durable, and the last word so far.
    pub(super) fn at_rest(&self) -> Option<&Bytes> {
        self.durable.as_ref().filter(|_| self.unsynced.is_empty() && !self.rotten)
    }

    /// What is durable is damaged, and nothing else is there.
    pub(super) fn rot(&mut self, sealed: bool) {
        self.sealed = sealed;
        self.rot_again();
    }

    /// It is found to be so.
    pub(super) fn rot_again(&mut self) {
        self.rotten = true;
        self.unsynced.clear();
        self.live.clone_from(&self.durable);
    }

    /// Whether a read may find it damaged.
    pub(super) const fn may_be_rotten(&self) -> bool {
        self.rotten || self.overlooked
    }

    pub(super) const fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// What is durable, read or not.
    pub(super) fn durable_object(&self) -> Object {
        let object = self.durable.as_ref().and_then(|bytes| gramme_quorum::object::decode(bytes).ok());
        object.unwrap_or_default()
    }

    /// After a crash there is something else in the place of what is damaged.
    fn is_replaced_by(&self, found: Option<&Bytes>, kept_all: bool) -> bool {
        self.rotten && self.durable.as_ref() != found && !self.may_be(found, kept_all)
    }

    pub(super) const fn is_rotten(&self) -> bool {
        self.rotten
    }

    /// Whether reads find it damaged.
    pub(super) fn is_damaged(&self) -> bool {
        self.rotten && self.unsynced.is_empty()
    }

    /// Whether a value is sure to be there after a crash.
    pub(super) fn is_durable(&self) -> bool {
        self.durable.is_some() && self.unsynced.iter().all(|(_, value)| value.is_some())
    }

    fn reopen(&mut self, found: Option<Bytes>) {
        let overlooked = self.overlooked && self.unsynced.is_empty();
        *self = Record { live: found.clone(), durable: found, overlooked, ..Record::default() };
    }
}

/// A copy of a key through time.
#[derive(Clone, Debug, Default)]
pub(super) struct ShadowCopy {
    pub(super) record: Record,
    /// `record.live`, decoded.
    pub(super) object: Object,
    /// `record.durable`, its history.
    pub(super) durable_seen: DotSet,
    /// It came through a restart. The hint beside it may not have: a crash came between the two.
    pub(super) orphaned: bool,
    /// What it had when it went with its slot, which the node did not own, until that has all that it is to own. One sync may have
    /// covered both, and the acknowledgement of the one is on its way.
    pub(super) passed_on: DotSet,
    /// How often it was dropped.
    pub(super) drops: u64,
    /// It was damaged once.
    pub(super) rotted: bool,
    /// What it had then.
    pub(super) owed: Owed,
}

impl ShadowCopy {
    /// Whether it is there, and has never seen this.
    pub(super) fn lacks(&self, dot: Dot) -> bool {
        self.record.live.is_some() && !self.object.seen().contains(dot)
    }
}

impl Shadow {
    pub(super) fn new(view: View) -> Shadow {
        Shadow { view, ..Shadow::default() }
    }

    /// Whether its copy of a key knows this, on its disk.
    pub(super) fn has_durably(&self, key: usize, dot: Dot) -> bool {
        self.copies.get(&key).is_some_and(|copy| copy.durable_seen.contains(dot))
    }

    /// Whether the engine keeps this record of its own, a hint.
    pub(super) fn keeps(&self, record: &[u8]) -> bool {
        self.own.iter().any(|((_, key), kept)| kept.live.is_some() && key[..] == *record)
    }
}

impl Checker {
    /// A node starts a run with this actor.
    pub fn opened(&mut self, now: Time, node: usize, actor: Actor) {
        let before = self.shadows.iter().position(|shadow| shadow.actor == Some(actor));
        if let Some(other) = before {
            let what = format!("node {node} opened with node {other}'s actor {actor:?}");
            self.fail(now, Invariant::DotNamesOneValue, None, what);
        }
        let shadow = &mut self.shadows[node];
        (shadow.actor, shadow.is_dark) = (Some(actor), false);
        shadow.adopted = 0;
        shadow.given_back.opens();
        self.begins_anew(node);
    }

    /// A node's store takes an append: a record, and the object that it is if that is known; `slot`: all of its slot goes with it.
    pub(super) fn appended(
        &mut self,
        now: Time,
        node: usize,
        place: u16,
        key: &Bytes,
        value: Option<(&Bytes, Option<&Object>)>,
        slot: bool,
    ) {
        let (value, known) = (value.map(|(bytes, _)| bytes.clone()), value.and_then(|(_, object)| object));
        let shadow = &mut self.shadows[node];
        shadow.appended += 1;
        let number = shadow.appended;
        if place >= SLOTS {
            self.hint_changes(node, place, key);
            let shadow = &mut self.shadows[node];
            let at = (place, key.clone());
            // What is gone already goes without a trace.
            if value.is_some() || shadow.own.get(&at).is_some_and(|record| record.live.is_some()) {
                shadow.own.entry(at.clone()).or_default().append(number, value);
                shadow.own_dirty.insert(at);
            }
            return;
        }
        let key = self.key_number(key);
        let object = match (&value, known) {
            (None, _) => Object::new(),
            (Some(_), Some(object)) => object.clone(),
            (Some(bytes), None) => match gramme_quorum::object::decode(bytes) {
                Ok(object) => object,
                Err(malformed) => {
                    let what = format!("node {node} writes a record that does not decode: {malformed}");
                    return self.fail(now, Invariant::NothingInvented, Some(key), what);
                }
            },
        };
        if self.shadows[node].copies.get(&key).is_some_and(|copy| copy.record.is_damaged()) {
            self.check_healed(now, node, key, &object);
        }
        if value.is_none() {
            // A read that is under way may have seen it.
            let gone = self.shadows[node].copies.get(&key).into_iter();
            let gone: Vec<Dot> = gone.flat_map(|copy| copy.object.iter().map(|(dot, _)| dot)).collect();
            self.shows(now, node, key, gone);
            self.check_drop(now, node, key, slot);
            self.check_hinted(now, node, key);
            let name = self.keys[key].name.clone();
            self.shadows[node].remade.retain(|record| record.get(8..) != Some(&name[..]));
        }
        self.check_siblings(now, node, key, &object);
        let copy = self.shadows[node].copies.entry(key).or_default();
        if value.is_some() && !object.seen().includes(copy.object.seen()) {
            let what = format!("node {node} replaces its copy {:?} by {object:?}", copy.object);
            self.fail(now, Invariant::HistoryNeverShrinks, Some(key), what);
            return;
        }
        // Merging is a join: what a copy has seen and not got any more it does not get back.
        let back = |dot: &Dot| copy.object.seen().contains(*dot) && copy.object.get(*dot).is_none();
        if let Some(dot) = object.iter().map(|(dot, _)| dot).find(back) {
            let what =
                format!("node {node} replaces its copy {:?} by {object:?}, and {dot} is back", copy.object);
            return self.fail(now, Invariant::CoveredStaysGone, Some(key), what);
        }
        copy.orphaned &= value.is_some();
        let is_copy = value.is_some();
        copy.drops += u64::from(!is_copy);
        copy.record.append(number, value.map(|bytes| lasting_of(&object, &bytes)));
        copy.object.clone_from(&object);
        self.shadows[node].given_back.keeps(key, &object);
        self.shadows[node].dirty.insert(key);
        self.others_changed(key);
        if is_copy {
            self.check_last(now, node, key, &object, true);
        }
        if self.rules(key).buffered {
            let key = &mut self.keys[key];
            for dot in key.present.iter().filter(|dot| object.seen().contains(**dot)) {
                key.dots.get_mut(dot).expect("only known dots are present").written_at |= 1 << node;
            }
        }
    }

    /// Whoever coordinates at a node may know of these values for a while.
    pub(super) fn shows(&mut self, now: Time, node: usize, key: usize, dots: Vec<Dot>) {
        let shadow = &mut self.shadows[node];
        let now = Time(0) + now.since(Time(0) + shadow.slept);
        let shown = shadow.shown.entry(key).or_default();
        while shown.front().is_some_and(|(at, _)| now.since(*at) > MEMORY) {
            shown.pop_front();
        }
        shown.extend(dots.into_iter().map(|dot| (now, dot)));
    }

    /// A node drops all that it holds of a slot.
    pub(super) fn dropped(&mut self, now: Time, node: usize, slot: u16) {
        for key in self.keys_in(slot) {
            let number = self.numbers[&key];
            if self.shadows[node].copies.get(&number).is_some_and(|copy| copy.record.live.is_some()) {
                self.check_dropped(now, node, number);
                self.appended(now, node, slot, &key, None, true);
            }
        }
    }

    /// A copy goes: somebody else must hold what it has. Who was told so by an owner that has lost it since knows no better.
    fn check_drop(&mut self, now: Time, node: usize, key: usize, slot: bool) {
        let Some(copy) = self.shadows[node].copies.get(&key) else { return };
        let owns = |layout: &Layout| self.owners_by(layout, &self.keys[key].name).contains(&node);
        let whole = copy.record.live.is_some() && !copy.record.is_damaged();
        if !slot && whole && self.shadows[node].layout.as_ref().is_some_and(owns) {
            let what = format!("node {node}, an owner, drops its copy {:?}", copy.object);
            return self.fail(now, Invariant::HistoryNeverShrinks, Some(key), what);
        }
        let lww = self.rules(key).lww;
        let is_needed = |dot: &Dot| {
            let key = &self.keys[key];
            key.open.contains(dot) || lww && key.present.contains(dot) && !key.dots[dot].excused
        };
        let needed: Vec<Dot> = copy.object.iter().map(|(dot, _)| dot).filter(is_needed).collect();
        let passes_on = self.shadows[node].layout.as_ref().is_some_and(|layout| !owns(layout));
        if let Some(copy) = self.shadows[node].copies.get_mut(&key).filter(|_| passes_on) {
            let Ok(_) = copy.passed_on.union(copy.object.seen());
        }
        for dot in needed {
            let kept = self.shadows.iter().enumerate().any(|(other, shadow)| {
                other != node && shadow.copies.get(&key).is_some_and(|copy| copy.durable_seen.contains(dot))
            });
            let mut others = (0..self.shadows.len()).filter(|other| *other != node);
            let excused = others.any(|other| self.told_and_lost(node, key, other, dot));
            if !kept && excused {
                self.excuse(now, key, dot);
            } else if !kept {
                let what = format!("node {node} drops {dot}, which nobody else holds durably");
                self.fail(now, Invariant::NothingDroppedEarly, Some(key), what);
            }
        }
    }

    /// A node goes by this commit from now on, in this run.
    pub fn adopts(&mut self, node: usize, commit: Option<u64>) {
        let shadow = &mut self.shadows[node];
        if shadow.commit != commit {
            (shadow.commit, shadow.adopted) = (commit, shadow.appended);
        }
    }

    /// A node is about to declare that all it takes goes by the newest layout: what it took before it knew of that is on its disk, for what its
    /// acknowledgement meant then it may not mean any more.
    pub fn acknowledges(&mut self, now: Time, node: usize) {
        let shadow = &self.shadows[node];
        let is_late = |key: &&usize| {
            let mut unsynced = shadow.copies[*key].record.unsynced.iter();
            unsynced.any(|(number, value)| *number <= shadow.adopted && value.is_some())
        };
        if let Some(key) = shadow.dirty.iter().find(is_late).copied() {
            let what =
                format!("node {node} acknowledges a layout with a copy not synced that it had before it");
            self.fail(now, Invariant::AcknowledgedCopies, Some(key), what);
        }
    }

    /// A node begins a sync: it covers what was appended until now.
    pub fn sync_begun(&mut self, node: usize) {
        let shadow = &mut self.shadows[node];
        shadow.syncing = shadow.appended;
    }

    /// The sync has succeeded.
    pub fn sync_done(&mut self, node: usize) {
        let shadow = &mut self.shadows[node];
        let through = shadow.syncing;
        let dirty = std::mem::take(&mut shadow.dirty);
        for number in dirty {
            let copy = shadow.copies.get_mut(&number).expect("only copies are dirty");
            if copy.record.sync(through) {
                shadow.dirty.insert(number);
            }
            // What was live when the sync began mostly is so still.
            let object = match &copy.record.durable {
                durable if *durable == copy.record.live => copy.object.clone(),
                Some(bytes) => {
                    gramme_quorum::object::decode(bytes).expect("it was decoded when it was appended")
                }
                None => Object::new(),
            };
            copy.durable_seen = object.seen().clone();
            let key = &mut self.keys[number];
            for dot in key.present.iter().filter(|dot| copy.durable_seen.contains(**dot)) {
                key.dots.get_mut(dot).expect("only known dots are present").is_durable_at(node);
            }
            // Of what it was there is nothing left to wait for.
            let met = |copy: &ShadowCopy| copy.owed.is_met(&copy.durable_seen);
            if copy.rotted && !copy.record.is_rotten() && met(copy) {
                (copy.rotted, copy.owed) = (false, Owed::default());
            }
        }
        for at in std::mem::take(&mut shadow.own_dirty) {
            let record = shadow.own.get_mut(&at).expect("only records are dirty");
            if record.sync(through) {
                shadow.own_dirty.insert(at);
            } else if record.live.is_none() {
                shadow.own.remove(&at);
            }
        }
    }

    /// A node opens after a crash and finds this under a key: nothing synced may be missing, and nothing may be there
    /// that was never written. `kept_all`: only the process died, not the power. `told`: the node knows that it may lack something.
    pub fn recovered(
        &mut self,
        now: Time,
        node: usize,
        name: &Bytes,
        found: Option<&Bytes>,
        kept_all: bool,
        told: bool,
    ) {
        let key = self.key_number(name);
        let object = match found.map(|bytes| gramme_quorum::object::decode(bytes)) {
            None => Object::new(),
            Some(Ok(object)) => object,
            Some(Err(_)) => {
                let what = format!("node {node} recovers a record that does not decode");
                return self.fail(now, Invariant::NothingInvented, Some(key), what);
            }
        };
        let set_back = self.shadows[node].set_back;
        // What it had given back when the copy was made is not known.
        if !set_back {
            self.check_given_back(now, node, key, &object);
        }
        self.shadows[node].given_back.keeps(key, &object);
        let found = found.map(|bytes| lasting_of(&object, bytes));
        let found = found.as_ref();
        let copy = self.shadows[node].copies.entry(key).or_default();
        let overlooked = copy.record.is_replaced_by(found, kept_all);
        if overlooked {
            if !self.found_older(now, node, key, &object, told) {
                return;
            }
        } else if !set_back && !copy.record.may_be(found, kept_all) {
            let had = &copy.object;
            let what = format!("node {node} recovers {object:?}, and held {had:?} before");
            return self.fail(now, Invariant::HistoryNeverShrinks, Some(key), what);
        }
        let copy = self.shadows[node].copies.entry(key).or_default();
        copy.orphaned = found.is_some();
        copy.record.reopen(found.cloned());
        copy.record.overlooked |= overlooked;
        copy.durable_seen = object.seen().clone();
        let kept = copy.durable_seen.clone();
        let before = std::mem::replace(&mut copy.object, object);
        let keys = &mut self.keys[key];
        for dot in keys.present.iter().filter(|dot| kept.contains(**dot)) {
            let birth = keys.dots.get_mut(dot).expect("only known dots are present");
            birth.is_durable_at(node);
            birth.missed_at &= !(1 << node);
        }
        // A machine without power has lost what it had not synced, as the keyspace lets it.
        if self.rules(key).buffered && !kept.includes(before.seen()) {
            self.copy_lost(now, node, key, |dot| before.seen().contains(dot) && !kept.contains(dot));
        }
    }

    /// The same for all of the engine's own records in slots from `first` on: hints.
    pub fn recovered_own(
        &mut self,
        now: Time,
        node: usize,
        found: &BTreeMap<(u16, Bytes), Bytes>,
        (kept_all, told): (bool, bool),
        first: u16,
    ) {
        let set_back = std::mem::take(&mut self.shadows[node].set_back);
        let own = &mut self.shadows[node].own;
        if set_back {
            own.extend(found.keys().map(|at| (at.clone(), Record::default())));
            own.iter_mut().for_each(|(at, record)| record.reopen(found.get(at).cloned()));
        }
        own.retain(|(place, _), _| *place >= first);
        let mut wrong = None;
        for (at, record) in own.iter_mut() {
            // A damaged one is not listed, if it is there at all.
            let missing = record.rotten && (!kept_all || record.is_damaged()) && !found.contains_key(at);
            // In its place an opening may find what was there before: a hint is always the same.
            let older = record.rotten && (told || !record.sealed) && found.get(at) == record.durable.as_ref();
            if !missing && !older && !record.may_be(found.get(at), kept_all) {
                wrong = Some(at.clone());
            }
            record.reopen(found.get(at).cloned());
        }
        let invented = found.keys().find(|at| !own.contains_key(*at)).cloned();
        if let Some((place, key)) = wrong.or(invented) {
            let what =
                format!("node {node}'s record {} in slot {place} is not what it was", key.escape_ascii());
            self.fail(now, Invariant::HistoryNeverShrinks, None, what);
        }
        self.shadows[node].shown.clear();
        self.shadows[node].dirty.clear();
        self.shadows[node].own_dirty.clear();
        self.shadows[node].own.retain(|_, record| record.live.is_some());
    }

    /// Whether a node's copy of a key is, in the shadow, what a read of its store finds.
    pub fn matches(&mut self, now: Time, node: usize, name: &Bytes, found: Option<&Bytes>) {
        let key = self.key_number(name);
        if let Some(object) = found.and_then(|bytes| gramme_quorum::object::decode(bytes).ok()) {
            self.check_given_back(now, node, key, &object);
        }
        let live = self.shadows[node].copies.get(&key).and_then(|copy| copy.record.live.as_ref());
        if live != found.map(lasting).as_ref() {
            let what = format!("node {node}'s store does not hold what was written to it");
            self.fail(now, Invariant::HistoryNeverShrinks, Some(key), what);
        }
    }

    /// Appends may have failed: the store is as it was before them, and so is the shadow.
    pub fn append_failed(&mut self, node: usize, place: u16, name: &Bytes, found: Option<&Bytes>) {
        if place >= SLOTS {
            if let Some(record) = self.shadows[node].own.get_mut(&(place, name.clone())) {
                record.take_back(found);
            }
            return;
        }
        let key = self.key_number(name);
        let Shadow { copies, given_back, .. } = &mut self.shadows[node];
        let Some(copy) = copies.get_mut(&key) else { return };
        let found = found.map(lasting);
        let found = found.as_ref();
        if copy.record.take_back(found) {
            let object =
                found.and_then(|bytes| gramme_quorum::object::decode(bytes).ok()).unwrap_or_default();
            let before = std::mem::replace(&mut copy.object, object);
            let now = &copy.object;
            given_back.keeps(key, now);
            for (dot, birth) in &mut self.keys[key].dots {
                if before.seen().contains(*dot) && !now.seen().contains(*dot) {
                    birth.written_at &= !(1 << node);
                }
            }
        }
    }

    /// What a node has written and not synced, if anything.
    pub(super) fn unsynced(&self, node: usize) -> Option<String> {
        let shadow = &self.shadows[node];
        let copies = shadow.dirty.iter().filter(|key| !shadow.copies[*key].record.unsynced.is_empty());
        let mut copies = copies.map(|key| self.keys[*key].name.escape_ascii().to_string());
        let mut own = shadow.own_dirty.iter().filter(|at| !shadow.own[*at].unsynced.is_empty());
        copies.next().or_else(|| own.next().map(|(place, key)| format!("{place}/{}", key.escape_ascii())))
    }

    /// The records of its own, in slots from `first` on, that a node keeps and can read.
    pub(super) fn own_records(&self, node: usize, first: u16) -> impl Iterator<Item = &(u16, Bytes)> {
        let own = self.shadows[node].own.iter();
        let kept = move |place: u16, record: &Record| {
            place >= first && record.live.is_some() && !record.is_damaged()
        };
        own.filter(move |((place, _), record)| kept(*place, record)).map(|(at, _)| at)
    }
}
