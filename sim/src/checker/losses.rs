//! What goes with a disk: who lacks it from then on, and what nobody has any more.

use super::durability::Shadow;
use super::{Checker, Invariant};
use crate::time::Time;
use gramme_vclock::Dot;
use std::collections::BTreeSet;

impl Checker {
    /// A node loses its disk.
    pub fn wiped(&mut self, now: Time, node: usize) {
        self.note_loss(node);
        let owed = self.owed_all(node);
        let Shadow { actor, slept, .. } = self.shadows[node];
        let lost = std::mem::take(&mut self.shadows[node]);
        let shadow = &mut self.shadows[node];
        (shadow.actor, shadow.slept, shadow.owed) = (actor, slept, owed);
        for (number, copy) in lost.copies {
            self.copy_lost(now, node, number, |dot| {
                copy.durable_seen.contains(dot) || copy.object.seen().contains(dot)
            });
        }
    }

    /// A copy had these dots and has them no more: what nobody else has is lost for good.
    pub(super) fn copy_lost(&mut self, now: Time, node: usize, number: usize, had: impl Fn(Dot) -> bool) {
        for (_, birth) in self.keys[number].dots.iter_mut().filter(|(dot, _)| had(**dot)) {
            (birth.lost_at, birth.missed_at) = (birth.lost_at | 1 << node, birth.missed_at | 1 << node);
        }
        let held = |dot: Dot| {
            self.shadows.iter().any(|shadow| {
                let copy = shadow.copies.get(&number);
                copy.is_some_and(|copy| {
                    copy.durable_seen.contains(dot) || !shadow.is_dark && copy.object.seen().contains(dot)
                })
            })
        };
        let dots = self.keys[number].dots.keys().copied();
        let alone: Vec<Dot> = dots.filter(|dot| had(*dot) && !held(*dot)).collect();
        for dot in alone {
            self.excuse(now, number, dot);
        }
    }

    /// This dot may be lost. With limits on faults no strict write is that was acknowledged when it was synced.
    pub(super) fn excuse(&mut self, now: Time, number: usize, dot: Dot) {
        let key = &self.keys[number];
        let stands =
            key.strict_done.contains(dot) && !key.dots[&dot].is_gone() && !self.rules(number).buffered;
        if self.limited && stands {
            let what = format!("{dot}, which a majority of owners has acknowledged, is nowhere any more");
            self.fail(now, Invariant::AcknowledgedReadable, Some(number), what);
        }
        let copies = || self.shadows.iter().filter_map(|shadow| shadow.copies.get(&number));
        // Where it was seen and is no more, something else has replaced it, too.
        let is_kept = |dot: Dot| {
            let mut seen = copies().filter(|copy| copy.object.seen().contains(dot)).peekable();
            seen.peek().is_some() && seen.all(|copy| copy.object.get(dot).is_some())
        };
        self.keys[number].excuse(dot, is_kept);
    }

    /// A node's disk is replaced by an old copy of itself.
    pub fn set_back(&mut self, now: Time, node: usize) {
        let copies = self.shadows[node].copies.iter();
        let had: BTreeSet<usize> =
            copies.filter(|(_, copy)| copy.record.is_durable()).map(|(key, _)| *key).collect();
        self.wiped(now, node);
        self.shadows[node].set_back = true;
        self.unaware |= 1 << node;
        for id in &self.waiting {
            let request = &mut self.requests[id.index()];
            request.unaware |= 1 << node;
            // What it had as the request began it may lack by now.
            if had.contains(&request.key) {
                let absent = request.absent.iter_mut().map(|(_, absent)| absent);
                let absences = request.absences.iter_mut().map(|(_, absent)| absent);
                let dots = request.lacking.iter_mut().flat_map(|by| &mut by.dots);
                let lacking = dots.map(|(_, lacking, ..)| lacking);
                absent.chain(absences).chain(lacking).for_each(|absent| *absent += 1);
            }
        }
    }

    /// A node's machine loses its power: until it opens nobody knows what is left of what it had not synced.
    pub fn goes_dark(&mut self, node: usize) {
        self.shadows[node].is_dark = true;
    }

    /// A node knows that its disk may lack what it acknowledged, or has had time to hear of it.
    pub const fn warned(&mut self, node: usize) {
        self.unaware &= !(1 << node);
    }
}
