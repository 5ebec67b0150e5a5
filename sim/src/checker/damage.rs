//! Records that rot at rest: each costs one copy of one key, and that one only.

use super::{Checker, Invariant};
use crate::time::Time;
use bytes::Bytes;
use gramme_quorum::Object;
use gramme_vclock::GrowableDotSet as DotSet;

impl Checker {
    /// What a node has of a key, if it is on its disk and readable.
    #[must_use]
    pub fn at_rest(&self, node: usize, name: &Bytes) -> Option<Bytes> {
        let copy = self.shadows[node].copies.get(self.numbers.get(name)?)?;
        copy.record.at_rest().cloned()
    }

    /// A node's copy of a key can't be read any more.
    pub fn damaged(&mut self, node: usize, name: &Bytes) {
        let key = self.key_number(name);
        let copy = self.shadows[node].copies.entry(key).or_default();
        copy.record.rot();
        self.forget_damaged(node, key);
    }

    /// What a damaged copy had counts for nothing, whoever asks.
    fn forget_damaged(&mut self, node: usize, key: usize) {
        let copy = self.shadows[node].copies.entry(key).or_default();
        copy.rotted = true;
        let durable = std::mem::replace(&mut copy.durable_seen, DotSet::new());
        let object = std::mem::replace(&mut copy.object, Object::new());
        self.copy_lost(key, |dot| durable.contains(dot) || object.seen().contains(dot));
    }

    /// A node finds a copy damaged, as it opens or although it has written a new one. That must be an old acquaintance.
    pub fn found_damaged(&mut self, now: Time, node: usize, name: &Bytes, why: &str) {
        let key = self.key_number(name);
        let copy = self.shadows[node].copies.entry(key).or_default();
        if copy.record.is_rotten() {
            copy.record.rot();
            self.forget_damaged(node, key);
        } else {
            let what = format!("node {node} can't read {}: {why}", name.escape_ascii());
            self.fail(now, Invariant::HistoryNeverShrinks, None, what);
        }
    }

    /// Whether some copy of a node is damaged.
    #[must_use]
    pub fn has_damage(&self, node: usize) -> bool {
        self.shadows[node].copies.values().any(|copy| copy.record.is_rotten())
    }

    /// Whether one of these nodes' copies of a key was ever damaged.
    pub(super) fn has_rotted(&self, nodes: u128, key: usize) -> bool {
        let rotted = |node: usize| self.shadows[node].copies.get(&key).is_some_and(|copy| copy.rotted);
        (0..self.shadows.len()).any(|node| nodes >> node & 1 == 1 && rotted(node))
    }
}
