//! After healing: replicas equal, hints gone, nothing acknowledged missing, nothing covered back.

use super::durability::ShadowCopy;
use super::{Checker, Coverer, Invariant, Outcome};
use crate::time::Time;
use bytes::Bytes;
use gramme_quorum::Op;
use gramme_vclock::Dot;

/// What still keeps the cluster from being at rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unrest {
    /// Which promise it breaks if it lasts.
    pub invariant: Invariant,
    /// The key concerned.
    pub key: Option<Bytes>,
    /// What differs.
    pub what: String,
}

impl Checker {
    /// What still differs between replicas, or waits to be handed over, at these nodes. `owners` names a key's owners by node number;
    /// `hints`: the first slot of the engine's records of hints.
    #[must_use]
    pub fn unrest(
        &self,
        members: &[usize],
        owners: impl Fn(&[u8]) -> Vec<usize>,
        hints: u16,
    ) -> Option<Unrest> {
        for &node in members {
            if let Some((place, record)) = self.own_records(node, hints).next() {
                let what = format!("node {node} keeps a hint in slot {place}: {}", record.escape_ascii());
                return Some(Unrest { invariant: Invariant::HintsDrain, key: None, what });
            }
        }
        // Whatever the mode, the disk has it all before long.
        if let Some((node, what)) = members.iter().find_map(|node| Some((node, self.unsynced(*node)?))) {
            let what = format!("node {node} does not sync {what}");
            return Some(Unrest { invariant: Invariant::AcknowledgedCopies, key: None, what });
        }
        for (number, key) in self.keys.iter().enumerate() {
            let owners = owners(&key.name);
            let live = |node: usize| {
                self.shadows[node].copies.get(&number).and_then(|copy| copy.record.live.as_ref())
            };
            let damaged = |node: &usize| {
                self.shadows[*node].copies.get(&number).is_some_and(|copy| copy.record.is_damaged())
            };
            if let Some(node) = members.iter().copied().find(damaged) {
                let what = format!("node {node}'s copy is damaged, and does not heal");
                return Some(Unrest { invariant: Invariant::Convergence, key: Some(key.name.clone()), what });
            }
            let first = live(owners[0]);
            let unrest =
                |what| Some(Unrest { invariant: Invariant::Convergence, key: Some(key.name.clone()), what });
            if let Some(other) = owners.iter().find(|node| live(**node) != first) {
                let object = |node: usize| self.shadows[node].copies.get(&number).map(|copy| &copy.object);
                return unrest(format!(
                    "nodes {} and {other} differ: {:?} and {:?}",
                    owners[0],
                    object(owners[0]),
                    object(*other)
                ));
            }
            let orphaned =
                |node: usize| self.shadows[node].copies.get(&number).is_some_and(|copy| copy.orphaned);
            let strange = members
                .iter()
                .copied()
                .find(|node| !owners.contains(node) && live(*node).is_some() && !orphaned(*node));
            if let Some(node) = strange {
                return unrest(format!("node {node}, not an owner, still keeps a copy"));
            }
        }
        None
    }

    /// Unrest that has lasted too long.
    pub fn fail_unrest(&mut self, now: Time, unrest: Unrest) {
        let key = unrest.key.map(|key| self.numbers[&key]);
        self.fail(now, unrest.invariant, key, unrest.what);
    }

    /// With the cluster at rest: nothing acknowledged is missing, and nothing covered is back.
    pub fn check_rest(&mut self, now: Time, owners: impl Fn(&[u8]) -> Vec<usize>) {
        for number in 0..self.keys.len() {
            let key = &self.keys[number];
            let owner = owners(&key.name)[0];
            let copy = self.shadows[owner].copies.get(&number);
            let held = |dot| copy.is_some_and(|copy| copy.object.get(dot).is_some());
            let missing = key.present.iter().find(|dot| {
                let birth = &key.dots[*dot];
                let acknowledged =
                    birth.op.is_some_and(|op| self.requests[op.index()].outcome == Outcome::Ok);
                acknowledged
                    && !birth.is_gone()
                    && !birth.excused
                    && !held(**dot)
                    && !self.is_outranked(number, **dot, copy.map(|copy| &copy.object))
                    && !self.took_effect(number, &birth.covered_by, copy)
            });
            if let Some(dot) = missing {
                let birth = &key.dots[dot];
                let op = birth.op.map_or_else(String::new, |op| op.to_string());
                let what = format!(
                    "{op} was acknowledged as {dot}; the replicas do not have it, nor any write that covers it (of {:?})",
                    birth.covered_by
                );
                self.fail(now, Invariant::AcknowledgedReadable, Some(number), what);
                continue;
            }
            let Some(copy) = copy else { continue };
            let mut wrong = None;
            for (dot, _) in copy.object.iter() {
                let birth = &key.dots[&dot];
                if birth.is_gone() {
                    wrong = Some((
                        Invariant::CoveredStaysGone,
                        format!("{dot} was covered by an acknowledged write, and is back"),
                    ));
                }
                if birth.origin().is_some_and(|op| self.requests[op.index()].outcome == Outcome::Failed) {
                    let what = format!("{dot} is kept, though its writer was told that nothing was done");
                    wrong = Some((Invariant::RequestsEnd, what));
                }
            }
            if let Some((invariant, what)) = wrong {
                self.fail(now, invariant, Some(number), what);
            }
        }
    }

    /// Whether one of these writes is in a replica's history: what merely might have been covered, and then was not,
    /// is lost all the same.
    fn took_effect(&self, number: usize, coverers: &[Coverer], copy: Option<&ShadowCopy>) -> bool {
        let key = &self.keys[number];
        let seen = |dot: Dot| copy.is_some_and(|copy| copy.object.seen().contains(dot));
        coverers.iter().any(|coverer| match coverer {
            Coverer::Tombstone(dot) => seen(*dot),
            // Some tombstone since then.
            Coverer::Op(op) if matches!(self.requests[op.index()].op, Op::Delete { .. }) => {
                let since = self.requests[op.index()].submitted;
                key.dots.iter().any(|(dot, birth)| birth.op.is_none() && birth.at >= since && seen(*dot))
            }
            Coverer::Op(op) => key.dots.iter().any(|(dot, birth)| birth.op == Some(*op) && seen(*dot)),
        })
    }
}
