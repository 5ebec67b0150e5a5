//! Records that are damaged at rest: each costs one copy of one key, and that one only.

use super::{Checker, Invariant};
use crate::time::Time;
use bytes::Bytes;
use gramme_quorum::Object;
use gramme_ring::SLOTS;
use gramme_vclock::{Dot, GrowableDotSet as DotSet};

impl Checker {
    /// What a node has on its disk and can read: slots, keys, and values. Copies come first, then the engine's own records in slots from
    /// `first` on.
    #[must_use]
    pub fn at_rest(&self, node: usize, first: u16) -> Vec<(u16, Bytes, Bytes)> {
        let shadow = &self.shadows[node];
        let copies = shadow.copies.iter().filter_map(|(key, copy)| {
            let key = &self.keys[*key];
            Some((key.slot, key.name.clone(), copy.record.at_rest()?.clone()))
        });
        let own = shadow.own.iter().filter(|((place, _), _)| *place >= first);
        let own =
            own.filter_map(|((place, key), record)| Some((*place, key.clone(), record.at_rest()?.clone())));
        copies.chain(own).collect()
    }

    /// A node's record can't be read any more. `sealed`: an opening knows that it was there.
    pub fn damaged(&mut self, now: Time, node: usize, place: u16, name: &Bytes, sealed: bool) {
        if place >= SLOTS {
            let own = self.shadows[node].own.entry((place, name.clone())).or_default();
            return own.rot(sealed);
        }
        let key = self.key_number(name);
        self.note_loss(node);
        let seen = self.shadows[node].copies.entry(key).or_default().durable_seen.clone();
        let owed = self.owed(node, key, |dot| seen.contains(dot));
        let copy = self.shadows[node].copies.entry(key).or_default();
        copy.owed = owed;
        copy.record.rot(sealed);
        self.forget_damaged(now, node, key);
    }

    /// What a damaged copy had counts for nothing, whoever asks.
    fn forget_damaged(&mut self, now: Time, node: usize, key: usize) {
        let copy = self.shadows[node].copies.entry(key).or_default();
        copy.rotted = true;
        let durable = std::mem::replace(&mut copy.durable_seen, DotSet::new());
        let object = std::mem::replace(&mut copy.object, Object::new());
        self.copy_lost(now, node, key, |dot| durable.contains(dot) || object.seen().contains(dot));
    }

    /// A node finds a copy damaged, as it opens or although it has written a new one. That must be an old acquaintance.
    pub fn found_damaged(&mut self, now: Time, node: usize, name: &Bytes, why: &str) {
        let key = self.key_number(name);
        let copy = self.shadows[node].copies.entry(key).or_default();
        if copy.record.may_be_rotten() {
            copy.record.rot_again();
            self.forget_damaged(now, node, key);
        } else {
            let what = format!("node {node} can't read {}: {why}", name.escape_ascii());
            self.fail(now, Invariant::HistoryNeverShrinks, None, what);
        }
    }

    /// The same for a record of the engine's own: what was appended since did not find room.
    pub fn found_own_damaged(&mut self, node: usize, place: u16, name: &Bytes) {
        let record = self.shadows[node].own.get_mut(&(place, name.clone()));
        if let Some(record) = record.filter(|record| record.may_be_rotten()) {
            record.rot_again();
        }
    }

    /// A node opens, and in the place of a damaged record it finds what was there before, or nothing. It has to know that its log is
    /// not whole; only of what it was just writing it can't. Whether all is well.
    pub(super) fn found_older(
        &mut self,
        now: Time,
        node: usize,
        key: usize,
        found: &Object,
        told: bool,
    ) -> bool {
        let record = &self.shadows[node].copies[&key].record;
        let (sealed, lost) = (record.is_sealed(), record.durable_object());
        if !told && sealed {
            let what = format!("node {node} does not miss its damaged copy, and takes {found:?} for it");
            self.fail(now, Invariant::HistoryNeverShrinks, Some(key), what);
            return false;
        }
        self.check_versions(now, node, key, found);
        // Nobody knows of the loss: until others have healed it what was written there may be missed.
        if !told {
            let dots: Vec<Dot> = self.keys[key].dots.keys().copied().collect();
            for dot in dots.into_iter().filter(|dot| lost.seen().contains(*dot)) {
                self.excuse(now, key, dot);
            }
        }
        true
    }

    /// Whether all that a node has durably of keys of which some copy is damaged is on another's disk as well, where it can be read.
    pub(crate) fn may_spare(&self, node: usize) -> bool {
        let is_damaged = |key: usize| {
            let mut copies = self.shadows.iter().filter_map(|shadow| shadow.copies.get(&key));
            copies.any(|copy| copy.record.may_be_rotten())
        };
        let elsewhere = |key: usize, dot: Dot| {
            let mut others = self.shadows.iter().enumerate().filter(|(other, _)| *other != node);
            others.any(|(other, shadow)| self.gone >> other & 1 == 0 && shadow.has_durably(key, dot))
        };
        (0..self.keys.len()).filter(|key| is_damaged(*key)).all(|key| {
            let mut own =
                self.keys[key].present.iter().filter(|dot| self.shadows[node].has_durably(key, **dot));
            own.all(|dot| elsewhere(key, *dot))
        })
    }

    /// Whether some copy of a node is damaged.
    #[must_use]
    pub fn has_damage(&self, node: usize) -> bool {
        self.shadows[node].copies.values().any(|copy| copy.record.is_rotten())
    }
}
