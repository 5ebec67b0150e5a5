//! What a coordinator decides is held against the layouts that it goes by itself, whatever others go by.

use super::{Checker, Invariant, OpId};
use crate::time::Time;
use gramme_quorum::{Cover, Op, Reply};
use gramme_ring::{Layout, NodeId, Slot};
use gramme_vclock::{Dot, GrowableDotSet as DotSet};

/// By what a coordinator goes as it decides on a request.
#[derive(Clone, Debug, Default)]
pub struct Coordination {
    /// The layouts that reads may go by, by hash: several while they move from one to another.
    pub reading: Vec<u64>,
    /// The owners by each of the layouts that writes surely go by, each by number and as hints name it.
    pub writing: Vec<Vec<(usize, u64)>>,
}

impl Checker {
    /// A coordinator decides: on its client's request, or on one that was forwarded to it.
    pub fn coordinated(&mut self, now: Time, id: OpId, reply: &Reply, by: &Coordination) {
        let request = &self.requests[id.index()];
        let (seen, reads) = match (reply, &request.op) {
            (Reply::Read(reading), Op::Get { .. }) => (&reading.context.seen, true),
            (Reply::Written { context, .. }, Op::Delete { cover: Cover::Held, .. }) => (&context.seen, true),
            (Reply::Written { context, .. }, _) => (&context.seen, false),
            _ => return,
        };
        let is_absent = reads && seen.is_empty();
        if matches!(reply, Reply::Written { .. }) {
            by.writing.iter().for_each(|owners| self.check_owners(now, id, seen, owners));
        }
        if is_absent {
            self.check_absence(now, id, &by.reading);
        }
    }

    /// Nothing is found: so many owners had nothing, by a layout that was in use as the request began. What began by another is not
    /// judged.
    fn check_absence(&mut self, now: Time, id: OpId, reading: &[u64]) {
        let request = &self.requests[id.index()];
        let by = request.absences.iter().filter(|(layout, _)| reading.contains(layout));
        let most = by.map(|(_, absent)| *absent).max();
        let all_known =
            reading.iter().all(|layout| request.absences.iter().any(|(known, _)| known == layout));
        if let Some(absent) = most.filter(|absent| all_known && *absent < request.r) {
            let what = format!(
                "{id} found nothing, when {absent} owners by its coordinator's layout had nothing, and R is {}",
                request.r
            );
            self.fail(now, Invariant::AbsenceIsAQuorum, Some(request.key), what);
        }
    }

    /// The dots that a write was given and that its answer speaks for. What it took more than one round to write has several; whoever
    /// has the last one has seen those before it.
    pub(super) fn acknowledged_dots(&self, id: OpId, seen: &DotSet) -> Vec<Dot> {
        let dots = self.keys[self.requests[id.index()].key].dots.iter();
        dots.filter(|(dot, birth)| birth.origin() == Some(id) && seen.contains(**dot))
            .map(|(dot, _)| *dot)
            .collect()
    }

    /// A dot that an answer covers and that nobody has ever put out: its coordinator replaced it in the same breath.
    pub(super) fn unborn(&self, id: OpId, seen: &DotSet) -> Option<Dot> {
        let key = self.requests[id.index()].key;
        let slot = self.keys[key].slot;
        let lasts = seen.spans().iter().map(|span| Dot { actor: span.actor, counter: span.last });
        lasts.into_iter().find(|dot| !self.dot_keys.contains_key(&(slot, *dot)))
    }

    /// An owner and those who keep its copy for it count once.
    pub(super) fn check_owners(&mut self, now: Time, id: OpId, seen: &DotSet, owners: &[(usize, u64)]) {
        let request = &self.requests[id.index()];
        let number = request.key;
        let key = &self.keys[number];
        let own = self.acknowledged_dots(id, seen);
        // It may have lost to another, or nobody has ever seen it.
        if own.is_empty() {
            return;
        }
        let is_owner = |node: usize| owners.iter().any(|(owner, _)| *owner == node);
        let holders = |dot: &Dot| self.holders(id, *dot);
        let kept_for = |holders: u128, id: u64| {
            let fallbacks =
                (0..self.shadows.len()).filter(|node| holders >> node & 1 == 1 && !is_owner(*node));
            let record = [&id.to_be_bytes(), &key.name[..]].concat();
            let slot = Slot::of(&key.name);
            // One that has not heard yet that this is an owner has made its hint one for those that it knows of.
            let unheard = |layout: &Layout| !layout.is_owner(layout.partition_of(slot), NodeId(id));
            fallbacks.into_iter().any(|node| {
                let shadow = &self.shadows[node];
                let remade = shadow.remade.contains(&record[..]);
                shadow.keeps(&record) || remade || shadow.layout.as_ref().is_some_and(unheard)
            })
        };
        let copies = |dot: &Dot| {
            let holders = holders(dot);
            let held = |(node, id): &&(usize, u64)| holders >> node & 1 == 1 || kept_for(holders, *id);
            owners.iter().filter(held).count()
        };
        // A fallback whose disk is gone had a hint as well.
        if own.iter().any(|dot| {
            let lost = holders(dot) & key.dots[dot].lost_at;
            (0..self.shadows.len()).any(|n| lost >> n & 1 == 1 && !is_owner(n))
        }) {
            return;
        }
        let few =
            own.iter().map(|dot| (copies(dot), dot)).min().filter(|(n, _)| *n < usize::from(request.copies));
        if let Some((copies, dot)) = few {
            let what = format!(
                "{id} is acknowledged with copies of {dot} of {copies} of {owners:x?}, and {} were asked for",
                request.copies
            );
            self.fail(now, Invariant::AcknowledgedCopies, Some(number), what);
        }
    }
}
