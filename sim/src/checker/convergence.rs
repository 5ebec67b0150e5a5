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
    /// `hints`: the first slot of the engine's records of hints. `full`: a node whose disk is full, and what hints call it. It may lack
    /// what others have, and keep what has served; they keep hints for it, and nothing else.
    #[must_use]
    pub fn unrest(
        &self,
        members: &[usize],
        owners: impl Fn(&[u8]) -> Vec<usize>,
        hints: u16,
        full: Option<(usize, u64)>,
    ) -> Option<Unrest> {
        let is_full = |node: usize| full.is_some_and(|(full, _)| node == full);
        let is_for_full = |record: &[u8]| full.is_some_and(|(_, id)| record.starts_with(&id.to_be_bytes()));
        for &node in members.iter().filter(|node| !is_full(**node)) {
            let kept = self.own_records(node, hints).find(|(_, record)| !is_for_full(record));
            if let Some((place, record)) = kept {
                let what = format!("node {node} keeps a hint in slot {place}: {}", record.escape_ascii());
                return Some(Unrest { invariant: Invariant::HintsDrain, key: None, what });
            }
        }
        // Whatever the mode, the disk has it all before long.
        if let Some((node, what)) = members.iter().find_map(|node| Some((node, self.unsynced(*node)?))) {
            let what = format!("node {node} does not sync {what}");
            return Some(Unrest { invariant: Invariant::AcknowledgedCopies, key: None, what });
        }
        self.keys.iter().enumerate().find_map(|(number, key)| {
            let what = self.differs(number, members, &owners(&key.name), full)?;
            Some(Unrest { invariant: Invariant::Convergence, key: Some(key.name.clone()), what })
        })
    }

    /// What is not yet as it should be about the copies of a key.
    fn differs(
        &self,
        number: usize,
        members: &[usize],
        owners: &[usize],
        full: Option<(usize, u64)>,
    ) -> Option<String> {
        let copy = |node: usize| self.shadows[node].copies.get(&number);
        let live = |node: usize| copy(node).and_then(|copy| copy.record.live.as_ref());
        let object = |node: usize| copy(node).map(|copy| &copy.object);
        let is_full = |node: usize| full.is_some_and(|(full, _)| node == full);
        let damaged = |node: &usize| copy(*node).is_some_and(|copy| copy.record.is_damaged());
        if let Some(node) = members.iter().find(|node| damaged(node)) {
            return Some(format!("node {node}'s copy is damaged, and does not heal"));
        }
        let mut equal = owners.iter().copied().filter(|node| !is_full(*node));
        let first = equal.next()?;
        if let Some(other) = equal.find(|node| live(*node) != live(first)) {
            return Some(format!(
                "nodes {first} and {other} differ: {:?} and {:?}",
                object(first),
                object(other)
            ));
        }
        if let Some((full, _)) = full
            && let Some(more) = object(full).filter(|_| live(full).is_some())
            && !object(first).is_some_and(|object| object.seen().includes(more.seen()))
        {
            return Some(format!(
                "node {full} alone has seen {more:?}; node {first} has {:?}",
                object(first)
            ));
        }
        let record = full.map(|(_, id)| [&id.to_be_bytes()[..], &self.keys[number].name[..]].concat());
        let serves = |node: usize| record.as_ref().is_some_and(|record| self.shadows[node].keeps(record));
        let strange = |node: &&usize| {
            let orphaned = copy(**node).is_some_and(|copy| copy.orphaned);
            !owners.contains(node)
                && live(**node).is_some()
                && !orphaned
                && !is_full(**node)
                && !serves(**node)
        };
        members.iter().find(strange).map(|node| format!("node {node}, not an owner, still keeps a copy"))
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
            // Of a disk that is full nothing is asked.
            let Some(owner) = owners(&key.name).first().copied() else { continue };
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
            let mut wrong = self.unsettled(number, copy);
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

    /// Where the last write wins there is nothing beside it at rest.
    fn unsettled(&self, number: usize, copy: &ShadowCopy) -> Option<(Invariant, String)> {
        let there = copy.record.live.is_some() && self.rules(number).lww;
        (there && copy.object.iter().count() != 1).then(|| {
            let what = format!("at rest there is more or less than the last write: {:?}", copy.object);
            (Invariant::LastWriteWins, what)
        })
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
