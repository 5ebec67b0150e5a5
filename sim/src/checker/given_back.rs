//! Values that expire: what a store may give back of them, and when.

use super::durability::Shadow;
use super::requests::Request;
use super::{Checker, Invariant, OpId};
use crate::time::Time;
use bytes::Bytes;
use core::time::Duration;
use gramme_quorum::object::{decode, encode};
use gramme_quorum::{Content, Object, Reply, Version};
use gramme_vclock::{Actor, Dot};
use std::collections::{BTreeMap, BTreeSet};

/// Here values' bytes stay this long after they have expired.
pub const EXPIRED: Duration = Duration::from_secs(6);

/// The smallest of dots.
const FIRST: Dot = Dot { actor: Actor(0), counter: 0 };

/// A record without what its store may have given back: what all that it may have become have in common.
pub(super) fn lasting(record: &Bytes) -> Bytes {
    decode(record).map_or_else(|_| record.clone(), |object| lasting_of(&object, record))
}

/// The same of a record that was decoded.
pub(super) fn lasting_of(object: &Object, record: &Bytes) -> Bytes {
    if object.iter().all(|(_, version)| version.given_back().is_none()) {
        return record.clone();
    }
    let mut object = object.clone();
    for (_, version) in object.iter_mut() {
        if let Some(rest) = version.given_back() {
            *version = rest;
        }
    }
    encode(&object)
}

/// Whether this is the version that was written, or what is left of it.
pub(super) fn is_of(written: &Version, found: &Version) -> bool {
    match found.content {
        Content::Expired { .. } => written.given_back().as_ref() == Some(found),
        _ => written == found,
    }
}

/// What a node's store may have given back, and what others have shown the node without its value.
#[derive(Clone, Debug, Default)]
pub(super) struct GivenBack {
    /// What has expired by this wall time the store may give back now.
    settled: u64,
    /// When all values that expire of a copy have: by time, and by key.
    due: BTreeSet<(u64, usize)>,
    due_of: BTreeMap<usize, u64>,
    /// Of keys, what its disk may have without its value.
    here: BTreeSet<(usize, Dot)>,
    /// What it may have been told so, in this run.
    told: BTreeSet<(usize, Dot)>,
}

impl GivenBack {
    /// Whether the node may know a write without the value that has expired.
    fn lacks(&self, key: usize, dot: Dot) -> bool {
        self.here.contains(&(key, dot)) || self.told.contains(&(key, dot))
    }

    /// A new process over the same disk.
    pub(super) fn opens(&mut self) {
        self.settled = 0;
        self.told.clear();
    }

    /// This is its copy of a key from now on.
    pub(super) fn keeps(&mut self, key: usize, object: &Object) {
        if let Some(at) = self.due_of.remove(&key) {
            self.due.remove(&(at, key));
        }
        self.here.extend(without_values(object).map(|dot| (key, dot)));
        // All of them go at once.
        let values = object.iter().filter(|(_, version)| version.given_back().is_some());
        let Some(last) = values.filter_map(|(_, version)| version.expiry).max() else { return };
        if last.0 <= self.settled {
            self.here.extend(expiring(object).map(|dot| (key, dot)));
        } else {
            self.due.insert((last.0, key));
            self.due_of.insert(key, last.0);
        }
    }

    /// Keys of which the values may go by now.
    fn settle(&mut self, wall_ms: u64) -> Vec<usize> {
        // It goes back where a clock was set right.
        self.settled = wall_ms;
        let mut keys = Vec::new();
        while self.due.first().is_some_and(|(at, _)| *at <= self.settled) {
            let Some((_, key)) = self.due.pop_first() else { break };
            self.due_of.remove(&key);
            keys.push(key);
        }
        keys
    }
}

fn expiring(object: &Object) -> impl Iterator<Item = Dot> {
    object.iter().filter(|(_, version)| version.given_back().is_some()).map(|(dot, _)| dot)
}

fn without_values(object: &Object) -> impl Iterator<Item = Dot> {
    let is_left = |version: &Version| matches!(version.content, Content::Expired { .. });
    object.iter().filter(move |(_, version)| is_left(version)).map(|(dot, _)| dot)
}

impl Checker {
    /// A node's store is told this time: what expired long before it may be given back there from now on.
    pub fn settled(&mut self, node: usize, wall_ms: u64) {
        let expired = u64::try_from(EXPIRED.as_millis()).unwrap_or(u64::MAX);
        let Shadow { given_back, copies, .. } = &mut self.shadows[node];
        for key in given_back.settle(wall_ms.saturating_sub(expired)) {
            let dots = copies.get(&key).into_iter().flat_map(|copy| expiring(&copy.object));
            given_back.here.extend(dots.map(|dot| (key, dot)));
        }
    }

    /// A node is shown an object by another.
    pub(super) fn shown_without_values(&mut self, node: usize, key: usize, object: &Object) {
        self.shadows[node].given_back.told.extend(without_values(object).map(|dot| (key, dot)));
    }

    /// What a node has without its value its store may have given back, or another has told it so.
    pub(super) fn check_given_back(&mut self, now: Time, node: usize, key: usize, object: &Object) {
        let given_back = &self.shadows[node].given_back;
        let early = without_values(object).find(|dot| !given_back.lacks(key, *dot));
        if let Some(dot) = early {
            let what =
                format!("node {node} has {dot} without its value, which no store was told to give back");
            self.fail(now, Invariant::ExpiryHides, Some(key), what);
        }
    }

    /// A node decides on a read that it coordinates: what it may know without a value it can't show.
    pub fn hides(&mut self, node: usize, id: OpId, reply: &Reply) {
        let Reply::Read(reading) = reply else { return };
        let key = self.requests[id.index()].key;
        let GivenBack { here, told, .. } = &self.shadows[node].given_back;
        let of_key = (key, FIRST)..(key + 1, FIRST);
        let lacking = here.range(of_key.clone()).chain(told.range(of_key)).map(|(_, dot)| *dot);
        let lacking = lacking.filter(|dot| reading.context.seen.contains(*dot));
        self.requests[id.index()].given_back.extend(lacking);
    }

    /// Whether this request need not be shown a write: it has expired by some clock, or whoever coordinates the request may have
    /// it without its value.
    pub(super) fn is_hidden_by(&self, request: &Request, dot: Dot) -> bool {
        let birth = &self.keys[request.key].dots[&dot];
        birth.expiry_is_by(request.walls.1) || request.given_back.contains(&dot)
    }
}
