//! What one node tells another: an acknowledgement stands for what it says, and a failure that changed nothing changed nothing.

use super::{Birth, Checker, Coverer, Invariant, OpId, Outcome};
use crate::time::Time;
use bytes::Bytes;
use gramme_quorum::message::{CallId, Copy, Message, Purpose, Syncing};
use gramme_ring::NodeId;
use gramme_vclock::{Dot, GrowableDotSet as DotSet};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Writes between nodes that are remembered until they are acknowledged.
const MOST: usize = 20_000;

/// How a node takes a write, by what it knows as the write arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// It goes by a layout that the node knows to be over.
    pub retired: bool,
    /// By the rules that the node goes by it is synced first.
    pub synced: bool,
    /// The node writes down something of the cluster, and looks at the write only when it goes by that.
    pub held: bool,
}

/// A write that a node was asked to take.
#[derive(Clone, Debug)]
struct Asked {
    key: usize,
    object: Bytes,
    /// For whom hints were to be kept, each time: a node may be asked once more, for another owner's sake.
    hints: Vec<Vec<NodeId>>,
    retired: bool,
    synced: bool,
    /// How often the node had dropped its copy of the key.
    drops: u64,
    /// It has acknowledged it, or has yet to look at it.
    done: bool,
}

/// Writes that nodes were asked to take, by node and call, and in the order in which they arrived.
#[derive(Debug, Default)]
pub(super) struct Asks {
    writes: BTreeMap<(usize, u64), Asked>,
    by_age: VecDeque<(usize, u64)>,
    /// Slots that nodes were offered.
    offers: BTreeMap<(usize, u64), (u16, u16)>,
    /// Dots of keys that the network has brought to a node twice in one message.
    repeated: BTreeSet<(usize, Dot)>,
}

impl Checker {
    /// A message reaches a node, which is about to handle it.
    pub fn delivered(&mut self, now: Time, node: usize, message: &Message) {
        let Some((number, bytes)) = self.object_of(message) else { return };
        let Ok(object) = gramme_quorum::object::decode(&bytes) else { return };
        self.shown_without_values(node, number, &object);
        let held = self.shadows[node].copies.get(&number);
        let dots = object.iter().map(|(dot, _)| dot);
        let new = dots.filter(|dot| held.is_none_or(|copy| copy.object.get(*dot).is_none()));
        let new: Vec<Dot> = new.collect();
        self.shows(now, node, number, new);
    }

    /// The encoded object in a message, and its key.
    pub(super) fn object_of(&mut self, message: &Message) -> Option<(usize, Bytes)> {
        match message {
            Message::Write { key, object, .. } => Some((self.key_number(key), object.clone())),
            Message::Written { call, outranking: Some(object), .. } => {
                Some((*self.calls.get(&call.0)?, object.clone()))
            }
            Message::Copy { call, copy: Copy::Object(object), .. } => {
                Some((*self.calls.get(&call.0)?, object.clone()))
            }
            _ => None,
        }
    }

    /// Remembers a call's key for its answers.
    pub(super) fn note_call(&mut self, message: &Message) {
        const MOST: usize = 20_000;
        if let Message::Write { call, key, .. } | Message::Read { call, key, .. } = message {
            let number = self.key_number(key);
            if self.calls.insert(call.0, number).is_none() {
                self.calls_by_age.push_back(call.0);
            }
            if self.calls_by_age.len() > MOST
                && let Some(old) = self.calls_by_age.pop_front()
            {
                self.calls.remove(&old);
            }
        }
    }

    /// A message is about to be handled by a node, to which it is this much.
    pub fn asked(&mut self, node: usize, message: &Message, standing: Standing) {
        if let Message::Offer { call, slots, .. } = message {
            self.asks.offers.insert((node, call.0), *slots);
            return;
        }
        let Message::Write { call, purpose, key, object, sync, hints, .. } = message else { return };
        let synced = *sync == Syncing::First || standing.synced && *purpose != Purpose::Repair;
        let key = self.key_number(key);
        let asked = Asked {
            key,
            drops: self.shadows[node].copies.get(&key).map_or(0, |copy| copy.drops),
            object: object.clone(),
            hints: vec![hints.clone()],
            retired: standing.retired,
            synced,
            done: standing.held,
        };
        let at = (node, call.0);
        match self.asks.writes.get_mut(&at) {
            // The answer may be that to the first.
            Some(first) => {
                first.retired &= asked.retired;
                first.synced &= asked.synced;
                // The network repeats it.
                if first.hints.contains(hints) {
                    self.may_be_done(key, object);
                } else {
                    first.hints.push(hints.clone());
                }
            }
            None => {
                self.asks.writes.insert(at, asked);
                self.asks.by_age.push_back(at);
            }
        }
        if self.asks.by_age.len() > MOST
            && let Some(oldest) = self.asks.by_age.pop_front()
        {
            self.asks.writes.remove(&oldest);
        }
    }

    /// A node goes by something else of the cluster from now on: what it was asked and has not acknowledged yet waits for its record, and is
    /// synced first, whatever its sender thought.
    pub fn syncs_first(&mut self, node: usize) {
        let all = self.asks.writes.range_mut((node, 0)..=(node, u64::MAX));
        all.filter(|(_, asked)| !asked.done).for_each(|(_, asked)| asked.synced = true);
    }

    /// What was refused arrives once more, and may find room: that it was surely not done holds no longer. Connections repeat
    /// nothing, and on that a definite failure rests.
    fn may_be_done(&mut self, number: usize, object: &Bytes) {
        let Ok(object) = gramme_quorum::object::decode(object) else { return };
        for (dot, _) in object.iter() {
            self.asks.repeated.insert((number, dot));
            let op = self.keys[number].dots.get(&dot).and_then(Birth::origin);
            let Some(op) = op.filter(|op| self.requests[op.index()].outcome == Outcome::Failed) else {
                continue;
            };
            let request = &mut self.requests[op.index()];
            request.outcome = Outcome::Indeterminate;
            let context = request.context().cloned();
            let key = &mut self.keys[number];
            if let Some(context) = context {
                key.cover(op, |dot| context.contains(dot));
            } else if key.dots[&dot].op.is_none() {
                let replaced = |(_, birth): &(&Dot, &Birth)| birth.replaced_by.contains(&dot);
                let replaced: Vec<Dot> = key.dots.iter().filter(replaced).map(|(dot, _)| *dot).collect();
                key.cover_by(Coverer::Tombstone(dot), |dot| replaced.contains(&dot));
            }
        }
    }

    /// Whether the network has repeated some message with what this request wrote.
    pub(super) fn was_repeated(&self, id: OpId) -> bool {
        let number = self.requests[id.index()].key;
        let mut dots = self.keys[number].dots.iter();
        dots.any(|(dot, birth)| birth.origin() == Some(id) && self.asks.repeated.contains(&(number, *dot)))
    }

    /// A node says something to another: that it has what it was asked to take, perhaps.
    pub fn says(&mut self, now: Time, node: usize, to: usize, message: &Message) {
        if let Message::Offered { call, whole: true } = message
            && let Some(slots) = self.asks.offers.remove(&(node, call.0))
        {
            return self.says_all(node, to, slots);
        }
        let Message::Written { call: CallId(call), .. } = *message else { return };
        let Some(asked) = self.asks.writes.get_mut(&(node, call)) else { return };
        asked.done = true;
        let Asked { key, object, retired, synced, drops, .. } = asked.clone();
        if retired {
            let what = format!("node {node} acknowledges a write by a layout that it knows to be over");
            return self.fail(now, Invariant::AcknowledgedCopies, Some(key), what);
        }
        let Ok(object) = gramme_quorum::object::decode(&object) else { return };
        let told = self.told.entry((to, key)).or_default();
        let Ok(_) = told.entry(node).or_default().union(object.seen());
        let copy = self.shadows[node].copies.get(&key);
        // It may have gone to its owner meanwhile, and then from here.
        if copy.is_some_and(|copy| copy.rotted || copy.drops > drops) {
            return;
        }
        let durable = copy.map_or_else(DotSet::new, |copy| copy.durable_seen.clone());
        if synced && !durable.includes(object.seen()) {
            let what = format!(
                "node {node} acknowledges {object:?}, which its rules have it sync first, with {durable:?} on its disk"
            );
            self.fail(now, Invariant::AcknowledgedCopies, Some(key), what);
        }
    }

    /// A node says to another that it has all that it was offered of these slots.
    fn says_all(&mut self, node: usize, to: usize, (first, last): (u16, u16)) {
        for (key, copy) in &self.shadows[node].copies {
            if (first..=last).contains(&self.keys[*key].slot) {
                let told = self.told.entry((to, *key)).or_default();
                let Ok(_) = told.entry(node).or_default().union(&copy.durable_seen);
            }
        }
    }

    /// Whether one node has told another that it has this, and lost it since, or before.
    pub(super) fn told_and_lost(&self, node: usize, key: usize, by: usize, dot: Dot) -> bool {
        let lost = self.keys[key].dots.get(&dot).is_some_and(|birth| birth.lost_at >> by & 1 == 1);
        let told = self.told.get(&(node, key)).and_then(|told| told.get(&by));
        lost && told.is_some_and(|seen| seen.contains(dot))
    }

    /// A write is answered with a failure that changed nothing: nobody has it.
    pub(super) fn check_undone(&mut self, now: Time, id: OpId) {
        if self.was_repeated(id) {
            return;
        }
        let number = self.requests[id.index()].key;
        let own = self.keys[number]
            .dots
            .iter()
            .filter(|(_, birth)| birth.origin() == Some(id))
            .map(|(dot, _)| *dot);
        let held = |dot: Dot| {
            let has = |node: &usize| {
                self.shadows[*node].copies.get(&number).is_some_and(|copy| copy.object.get(dot).is_some())
            };
            (0..self.shadows.len()).find(has).map(|node| (node, dot))
        };
        let held = own.into_iter().find_map(held);
        if let Some((node, dot)) = held {
            let what = format!("{id} is told that nothing was done, and node {node} has {dot}");
            self.fail(now, Invariant::RequestsEnd, Some(number), what);
        }
    }

    /// A node has stored something: none of it is what a client was told is not there.
    pub fn check_not_undone(&mut self, now: Time, node: usize, name: &Bytes) {
        let number = self.key_number(name);
        let Some(copy) = self.shadows[node].copies.get(&number) else { return };
        let undone = |dot: Dot| {
            let op = self.keys[number].dots.get(&dot)?.origin()?;
            (self.requests[op.index()].outcome == Outcome::Failed).then_some((op, dot))
        };
        let undone = copy.object.iter().find_map(|(dot, _)| undone(dot));
        if let Some((op, dot)) = undone {
            let what = format!("node {node} stores {dot}; {op} was told that nothing was done");
            self.fail(now, Invariant::RequestsEnd, Some(number), what);
        }
    }
}
