//! Copies that change hands: whoever says that it has all has it, and nobody lets go of what the others lack.

use super::durability::Shadow;
use super::{Checker, Invariant, Outcome};
use crate::time::Time;
use crate::world::HINTS;
use gramme_quorum::Object;
use gramme_ring::{Layout, LayoutVersion, Slot};
use gramme_vclock::{Dot, GrowableDotSet as DotSet};
use std::collections::BTreeMap;

/// A dot that others had durably at some moment: who, and how often each of them had lost something until then.
#[derive(Clone, Debug)]
pub(super) struct Held {
    key: usize,
    dot: Dot,
    by: Vec<(usize, u64)>,
}

/// What a node is to have again: all that it had and another owner had as well.
#[derive(Clone, Debug, Default)]
pub(super) struct Owed {
    /// By this layout.
    layout: Option<LayoutVersion>,
    held: Vec<Held>,
}

/// Changes, by the hashes of their commits.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes(BTreeMap<u64, Change>);

/// What owners are to have before one says that it has all.
#[derive(Clone, Debug, Default)]
struct Change {
    /// Those that gain the key.
    moving: Vec<Held>,
    /// All of them, since reads will ask fewer than meet every former write.
    compared: Vec<Held>,
}

impl Owed {
    /// Whether this history has all of it.
    pub(super) fn is_met(&self, seen: &DotSet) -> bool {
        self.held.iter().all(|held| seen.contains(held.dot))
    }

    fn extend(&mut self, more: Owed) {
        self.layout = self.layout.or(more.layout);
        self.held.extend(more.held);
    }
}

impl Checker {
    /// Reads move to these owners: a majority of them has what a majority of the former ones acknowledged. `None`: of this key one of
    /// both may have lost something.
    pub fn reads_move(&mut self, now: Time, owners: impl Fn(&[u8]) -> Option<(Vec<usize>, Vec<usize>)>) {
        for (number, key) in self.keys.iter().enumerate() {
            let Some((former, owners)) = owners(&key.name) else { continue };
            let damaged = |node: &usize| {
                let copy = self.shadows[*node].copies.get(&number);
                copy.is_some_and(|copy| copy.record.may_be_rotten())
            };
            if former.iter().chain(&owners).any(damaged) {
                continue;
            }
            let strict = |dot: &&Dot| {
                let birth = &key.dots[*dot];
                let op = birth.op.map(|op| &self.requests[op.index()]);
                op.is_some_and(|op| op.strict && op.outcome == Outcome::Ok)
                    && !birth.excused
                    && !birth.is_gone()
            };
            let buffered = self.rules(number).buffered;
            let holders = |dot: Dot| {
                let has = |node: &&usize| {
                    self.shadows[**node].copies.get(&number).is_some_and(|copy| {
                        copy.durable_seen.contains(dot) || buffered && copy.object.seen().contains(dot)
                    })
                };
                owners.iter().filter(has).count()
            };
            // Whoever asks a majority meets one of them.
            let wanted = owners.len().div_ceil(2);
            let few = key.present.iter().filter(strict).find(|dot| holders(**dot) < wanted);
            if let Some(dot) = few {
                let what = format!("reads move to {owners:?}, of whom {} have {dot}", holders(*dot));
                return self.fail(now, Invariant::NothingDroppedEarly, Some(number), what);
            }
        }
    }

    /// Somebody has committed. What a majority of the present owners has by now, new ones are to have. `fallen`: the former W of a key, if
    /// reads will ask too few to meet what was written so: what as many have, all owners are to have.
    pub fn change_begins(
        &mut self,
        commit: u64,
        from: &Layout,
        to: &Layout,
        fallen: impl Fn(&[u8]) -> Option<u8>,
    ) {
        if self.changes.0.contains_key(&commit) {
            return;
        }
        let mut change = Change::default();
        for (number, key) in self.keys.iter().enumerate() {
            let (owners, next) = (self.owners_by(from, &key.name), self.owners_by(to, &key.name));
            let moves = next.iter().any(|node| !owners.contains(node));
            let fallen = fallen(&key.name);
            if !moves && fallen.is_none() {
                continue;
            }
            for dot in key.present.iter() {
                let held = self.held(number, *dot, &owners);
                if held.by.len() > owners.len() / 2 {
                    if fallen.is_some_and(|w| held.by.len() >= usize::from(w)) {
                        change.compared.push(held.clone());
                    }
                    if moves {
                        change.moving.push(held);
                    }
                }
            }
        }
        self.changes.0.insert(commit, change);
    }

    /// A node declares that it has all that it is to own by a commit and did not before.
    pub fn has_gained(&mut self, now: Time, node: usize, commit: u64, from: &Layout, to: &Layout) {
        self.shadows[node].copies.values_mut().for_each(|copy| copy.passed_on = DotSet::new());
        let owns =
            |layout: &Layout, held: &&Held| self.owners_by(layout, &self.keys[held.key].name).contains(&node);
        let Some(change) = self.changes.0.get(&commit) else { return };
        let moving = change.moving.iter().filter(|held| !owns(from, held));
        let due = moving.chain(&change.compared).filter(|held| owns(to, held));
        let lacking = due.into_iter().find(|held| {
            let kept = held.by.iter().all(|(holder, losses)| self.losses[*holder] == *losses);
            kept && self.lacks(node, held)
        });
        if let Some(Held { key, dot, by }) = lacking.cloned() {
            let what = format!(
                "node {node} says that it has all that it is to own, and lacks {dot}, which {by:?} had"
            );
            self.fail(now, Invariant::NothingDroppedEarly, Some(key), what);
        }
    }

    /// A node has recovered all that it may have lost. `settled`: it goes by the newest layout, and all others do.
    pub fn has_recovered(&mut self, now: Time, node: usize, settled: bool) {
        // While not all go by one layout it is judged the next time that it says so.
        if !settled {
            return;
        }
        let owed = std::mem::take(&mut self.shadows[node].owed);
        let lacks = |held: &&Held| self.lacks(node, held) && self.is_held(node, owed.layout, held);
        if let Some(held) = owed.held.iter().find(lacks) {
            let (key, dot) = (held.key, held.dot);
            let what =
                format!("node {node} says that it has recovered, and lacks {dot}, which {:?} have", held.by);
            self.fail(now, Invariant::Convergence, Some(key), what);
        }
    }

    /// A damaged copy is replaced by this: it has what the copy was, as far as other owners have that.
    pub(super) fn check_healed(&mut self, now: Time, node: usize, key: usize, object: &Object) {
        let Some(copy) = self.shadows[node].copies.get_mut(&key) else { return };
        let owed = copy.owed.clone();
        let lacks = |held: &&Held| !object.seen().contains(held.dot) && self.is_held(node, owed.layout, held);
        if let Some(held) = owed.held.iter().find(lacks) {
            let what = format!(
                "node {node} replaces a damaged copy by {object:?}, which lacks {}, which {:?} have",
                held.dot, held.by
            );
            self.fail(now, Invariant::Convergence, Some(key), what);
        }
    }

    /// What a node has durably of all keys, and other owners as well.
    pub(super) fn owed_all(&self, node: usize) -> Owed {
        let mut owed = Owed::default();
        for (key, copy) in &self.shadows[node].copies {
            owed.extend(self.owed(node, *key, |dot| copy.durable_seen.contains(dot)));
        }
        owed
    }

    /// What of these dots other owners have as well.
    pub(super) fn owed(&self, node: usize, key: usize, had: impl Fn(Dot) -> bool) -> Owed {
        let Some(layout) = &self.layout else { return Owed::default() };
        let mut owners = self.owners_by(layout, &self.keys[key].name);
        if !owners.contains(&node) {
            return Owed::default();
        }
        owners.retain(|owner| *owner != node);
        let dots = self.keys[key].present.iter().copied().filter(|dot| had(*dot));
        let held = dots.map(|dot| self.held(key, dot, &owners)).filter(|held| !held.by.is_empty());
        Owed { layout: Some(layout.version()), held: held.collect() }
    }

    /// A node drops a whole slot: a majority of those who own it, as far as this node knows, has what goes.
    pub(super) fn check_dropped(&mut self, now: Time, node: usize, key: usize) {
        let shadow = &self.shadows[node];
        let (Some(layout), Some(copy)) = (&shadow.layout, shadow.copies.get(&key)) else { return };
        let owners = self.owners_by(layout, &self.keys[key].name);
        let has = |owner: &&usize, dot: Dot| {
            let copy = self.shadows[**owner].copies.get(&key);
            // It has had it and said so, or was given up.
            self.told_and_lost(node, key, **owner, dot)
                || self.gone >> **owner & 1 == 1
                || copy.is_some_and(|copy| copy.durable_seen.contains(dot))
        };
        let copies = u8::try_from(layout.owner_count()).unwrap_or(u8::MAX);
        let wanted = usize::from(shadow.view.rules(&self.keys[key].name, copies).1).min(owners.len());
        let counts = |dot: &Dot| self.keys[key].dots.get(dot).is_some_and(|birth| !birth.excused);
        let counted = copy.object.iter().map(|(dot, _)| dot).filter(counts);
        let few =
            counted.into_iter().find(|dot| owners.iter().filter(|owner| has(owner, *dot)).count() < wanted);
        if let Some(dot) = few {
            let what =
                format!("node {node} drops {dot}, which fewer than {wanted} of {owners:?} have durably");
            self.fail(now, Invariant::NothingDroppedEarly, Some(key), what);
        }
    }

    /// A node is given up, and runs on: nobody keeps anything for it.
    pub const fn casts_out(&mut self, node: usize) {
        self.gone |= 1 << node;
    }

    /// A node is given up for dead, and its disk with it.
    pub fn gives_up(&mut self, now: Time, node: usize) {
        self.gone |= 1 << node;
        self.wiped(now, node);
    }

    /// A node says that it may go: it keeps no hint for anybody who is there, and of what was acknowledged nothing that others lack.
    pub fn leaves(&mut self, now: Time, node: usize) {
        let hints = self.own_records(node, HINTS).filter_map(|(_, record)| record.split_first_chunk::<8>());
        let kept = hints
            .map(|(owner, key)| (u64::from_be_bytes(*owner), key))
            // For one that was given up nobody keeps anything.
            .find(|(owner, _)| self.members.get(owner).is_some_and(|node| self.gone >> node & 1 == 0));
        if let Some((owner, key)) = kept {
            let number = self.numbers.get(key).copied();
            let what = format!("node {node} says that it may go, and keeps a hint for {owner:016x}");
            return self.fail(now, Invariant::NothingDroppedEarly, number, what);
        }
        let alone = self.shadows[node].copies.iter().find_map(|(number, copy)| {
            let dots = copy.object.iter().map(|(dot, _)| dot);
            dots.into_iter().find(|dot| self.is_owed(*number, *dot, node)).map(|dot| (*number, dot))
        });
        if let Some((number, dot)) = alone {
            let what = format!("node {node} says that it may go, and nobody else has {dot}");
            self.fail(now, Invariant::NothingDroppedEarly, Some(number), what);
        }
    }

    /// Whether this was acknowledged, still counts, and is nowhere but here.
    fn is_owed(&self, number: usize, dot: Dot, node: usize) -> bool {
        let Some(birth) = self.keys[number].dots.get(&dot) else { return false };
        let acknowledged = birth.origin().is_some_and(|op| self.requests[op.index()].outcome == Outcome::Ok);
        let has = |shadow: &Shadow| {
            let copy = shadow.copies.get(&number);
            copy.is_some_and(|copy| copy.durable_seen.contains(dot) || copy.object.seen().contains(dot))
        };
        let elsewhere = |(other, shadow): (usize, &Shadow)| other != node && has(shadow);
        acknowledged && !birth.is_gone() && !birth.excused && !self.shadows.iter().enumerate().any(elsewhere)
    }

    /// Whether these nodes differ in what they have of a key durably.
    #[must_use]
    pub fn differ(&self, name: &[u8], nodes: &[usize]) -> bool {
        let Some(key) = self.numbers.get(name) else { return false };
        let mut seen =
            nodes.iter().map(|node| self.shadows[*node].copies.get(key).map(|copy| &copy.durable_seen));
        let first = seen.next();
        seen.any(|other| Some(other) != first)
    }

    /// This node has lost something of what was on its disk.
    pub(super) fn note_loss(&mut self, node: usize) {
        self.losses[node] += 1;
    }

    pub(super) fn owners_by(&self, layout: &Layout, name: &[u8]) -> Vec<usize> {
        let owners = layout.owners(layout.partition_of(Slot::of(name)));
        owners.filter_map(|id| self.ids.get(&id.0).copied()).collect()
    }

    fn held(&self, key: usize, dot: Dot, owners: &[usize]) -> Held {
        let has = |node: &usize| {
            self.shadows[*node].copies.get(&key).is_some_and(|copy| copy.durable_seen.contains(dot))
        };
        let by = owners.iter().copied().filter(has).map(|node| (node, self.losses[node])).collect();
        Held { key, dot, by }
    }

    fn lacks(&self, node: usize, held: &Held) -> bool {
        let copy = self.shadows[node].copies.get(&held.key);
        !self.keys[held.key].dots[&held.dot].excused
            && copy.is_none_or(|copy| !copy.rotted && !copy.durable_seen.contains(held.dot))
    }

    /// Whether this node is still to have what another owner by the same layout has had all the time.
    fn is_held(&self, node: usize, by: Option<LayoutVersion>, held: &Held) -> bool {
        let Some(layout) = self.layout.as_ref().filter(|layout| Some(layout.version()) == by) else {
            return false;
        };
        let owners = self.owners_by(layout, &self.keys[held.key].name);
        let has = |(holder, losses): &(usize, u64)| {
            let copy = self.shadows[*holder].copies.get(&held.key);
            self.losses[*holder] == *losses
                && owners.contains(holder)
                && copy.is_some_and(|copy| copy.durable_seen.contains(held.dot))
        };
        owners.contains(&node) && held.by.iter().any(has) && !self.keys[held.key].dots[&held.dot].excused
    }
}
