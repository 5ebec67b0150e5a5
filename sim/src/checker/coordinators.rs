//! What a coordinator decides is held against the layouts that it goes by itself, whatever others go by.

use super::durability::Shadow;
use super::{Checker, Invariant, OpId, Quorum};
use crate::time::Time;
use gramme_quorum::{Cover, Op, Reply};
use gramme_ring::{Layout, NodeId, Slot};
use gramme_vclock::{Dot, GrowableDotSet as DotSet};

/// By what a coordinator goes as it decides on a request.
#[derive(Clone, Debug, Default)]
pub struct Coordination {
    /// What it asks for by each layout that it may have read by: several if it may have begun before and after reads moved.
    pub reading: Vec<Quorum>,
    /// The same by each of the layouts that it surely writes by, with the owners, each by number and as hints name it.
    pub writing: Vec<(Quorum, Vec<(usize, u64)>)>,
    /// Copies that its acknowledgement stands for, whoever keeps them.
    pub copies: u8,
}

impl Checker {
    /// A coordinator decides: on its client's request, or on one that was forwarded to it.
    pub fn coordinated(&mut self, now: Time, id: OpId, reply: &Reply, by: &Coordination) {
        let request = &mut self.requests[id.index()];
        let (seen, reads) = match (reply, &request.op) {
            (Reply::Read(reading), Op::Get { .. }) => (&reading.context.seen, true),
            (Reply::Written { context, .. }, Op::Delete { cover: Cover::Held, .. }) => (&context.seen, true),
            (Reply::Written { context, .. }, _) => (&context.seen, false),
            _ => return,
        };
        request.r = by.reading.iter().map(|quorum| quorum.r).min().unwrap_or(request.r);
        request.copies = by.copies;
        let is_absent = reads && seen.is_empty();
        if let Reply::Written { replaced: true, .. } = reply {
            self.check_replaced(now, id, seen);
        }
        if matches!(reply, Reply::Written { .. }) {
            by.writing.iter().for_each(|(quorum, owners)| self.check_owners(now, id, seen, owners, quorum.w));
            by.writing
                .iter()
                .for_each(|(quorum, owners)| self.check_outranks(now, id, seen, *quorum, owners));
        }
        if is_absent {
            self.check_absence(now, id, &by.reading);
        }
        if reads {
            let seen = seen.clone();
            self.check_seen(now, id, &seen, &by.reading);
        }
    }

    /// A write that says that it has replaced something knew of a value as it was minted.
    fn check_replaced(&mut self, now: Time, id: OpId, seen: &DotSet) {
        let request = &self.requests[id.index()];
        let dots = &self.keys[request.key].dots;
        let own = self.acknowledged_dots(id, seen);
        // What was minted just before it in the same breath nobody has ever put out.
        let slot = self.keys[request.key].slot;
        let follows_unborn = own.iter().any(|dot| {
            let former = Dot { counter: dot.counter - 1, ..*dot };
            seen.contains(former) && !self.dot_keys.contains_key(&(slot, former))
        });
        let is_known = !follows_unborn && self.unborn(id, seen).is_none();
        if !own.is_empty() && is_known && own.iter().all(|dot| !dots[dot].beside) {
            let what =
                format!("{id} says that it replaced something, and nothing was where {own:?} was minted");
            self.fail(now, Invariant::NothingInvented, Some(request.key), what);
        }
    }

    /// A plain write comes before every write that was acknowledged before it began and that fewer than W owners lacked then, as long as those
    /// have not replaced that since: one of the owners that have taken this one has both, and tells. A fallback that has taken it
    /// in the place of an owner can't tell.
    fn check_outranks(
        &mut self,
        now: Time,
        id: OpId,
        seen: &DotSet,
        quorum: Quorum,
        owners: &[(usize, u64)],
    ) {
        let request = &self.requests[id.index()];
        let key = &self.keys[request.key];
        let Op::Put { cover: Cover::Held, .. } = &request.op else { return };
        let own = self.acknowledged_dots(id, seen);
        let Some(last) = own.iter().map(|dot| (key.dots[dot].version.stamp, *dot)).max() else { return };
        let owned = owners.iter().fold(0, |all, (node, _)| all | 1 << node);
        let takers = |dot: &Dot| key.dots[dot].durable_at | key.dots[dot].written_at;
        if own.iter().any(|dot| takers(dot) & !owned != 0) {
            return;
        }
        let Some(lacking) = request.lacking.iter().find(|by| by.layout == quorum.layout) else { return };
        let comes_before = |(dot, lack, _, held): &&(Dot, u8, u8, u128)| {
            let Some(birth) = key.dots.get(dot) else { return false };
            let stands = |node: &&usize| {
                let copy = self.shadows[**node].copies.get(&request.key);
                held >> **node & 1 == 1
                    && copy.is_some_and(|copy| !copy.rotted && copy.object.get(*dot).is_some())
            };
            let stand = lacking.owners.iter().filter(stands).count();
            let few = lacking.owners.len() - stand < usize::from(quorum.w) && *lack < quorum.w;
            few && birth.op.is_some()
                && !birth.excused
                && birth.missed_at & request.unaware == 0
                && (birth.version.stamp, *dot) > last
        };
        if let Some((dot, ..)) = lacking.dots.iter().find(comes_before) {
            let what = format!(
                "{id} is acknowledged as {own:?}, and {dot}, which was acknowledged before it began, comes before it"
            );
            self.fail(now, Invariant::ReadYourWrites, Some(request.key), what);
        }
    }

    /// A read that asks for R copies knows every acknowledged write that fewer than R of them lacked when it began: of those that count, which
    /// are the owners', and those of others that are there.
    fn check_seen(&mut self, now: Time, id: OpId, seen: &DotSet, reading: &[Quorum]) {
        let request = &self.requests[id.index()];
        let key = &self.keys[request.key];
        // A copy of former times may have come to somebody else meanwhile.
        let lacking = |quorum: &Quorum, dot: Dot| {
            let by = request.lacking.iter().find(|by| by.layout == quorum.layout)?;
            let (_, owners, others, _) = by.dots.iter().find(|(of, ..)| *of == dot)?;
            Some(owners.saturating_add(*others.max(&self.others_lack(request.key, dot, &by.owners))))
        };
        let missed = |dot: &&Dot| {
            let few = |quorum: &Quorum| lacking(quorum, **dot).is_some_and(|lacking| lacking < quorum.r);
            let birth = &key.dots[*dot];
            let excused = birth.excused || birth.missed_at & request.unaware != 0;
            !seen.contains(**dot) && !excused && !reading.is_empty() && reading.iter().all(few)
        };
        if let Some(dot) = key.done.iter().find(missed) {
            let by: Vec<_> = reading.iter().map(|quorum| (lacking(quorum, *dot), quorum.r)).collect();
            let what = format!(
                "{id} does not know {dot}, acknowledged before it began, when by its coordinator's layouts so many copies lacked it, and R was: {by:?}"
            );
            self.fail(now, Invariant::ReadYourWrites, Some(request.key), what);
        }
    }

    /// Nothing is found: so many owners had nothing, by a layout that was in use as the request began. What began by another is not
    /// judged.
    fn check_absence(&mut self, now: Time, id: OpId, reading: &[Quorum]) {
        let request = &self.requests[id.index()];
        let absent = |quorum: &Quorum| {
            let by = request.absences.iter().find(|(layout, _)| *layout == quorum.layout);
            by.map(|(_, absent)| (*absent, quorum.r))
        };
        let Some(all) = reading.iter().map(absent).collect::<Option<Vec<_>>>() else { return };
        if !all.is_empty() && all.iter().all(|(absent, r)| absent < r) {
            let what = format!(
                "{id} found nothing, when by its coordinator's layout so many owners had nothing, and R was: {all:?}"
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
    pub(super) fn check_owners(
        &mut self,
        now: Time,
        id: OpId,
        seen: &DotSet,
        owners: &[(usize, u64)],
        wanted: u8,
    ) {
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
            // A fallback whose disk is gone had a hint as well, for one of them.
            let lost = |node: &usize| (holders & key.dots[dot].lost_at) >> node & 1 == 1 && !is_owner(*node);
            owners.iter().filter(held).count() + (0..self.shadows.len()).filter(lost).count()
        };
        let few = own.iter().map(|dot| (copies(dot), dot)).min().filter(|(n, _)| *n < usize::from(wanted));
        if let Some((copies, dot)) = few {
            let what = format!(
                "{id} is acknowledged with copies of {dot} of {copies} of {owners:x?}, and {wanted} were asked for"
            );
            self.fail(now, Invariant::AcknowledgedCopies, Some(number), what);
        }
    }

    /// Nodes that have seen a dot that its coordinator replaced in the breath in which it minted it.
    fn holders_of_unborn(&self, id: OpId, seen: &DotSet) -> u32 {
        let Some(dot) = self.unborn(id, seen) else { return 0 };
        let key = self.requests[id.index()].key;
        let buffered = self.rules(key).buffered;
        let has = |shadow: &&Shadow| {
            shadow.copies.get(&key).is_some_and(|copy| {
                copy.durable_seen.contains(dot) || buffered && copy.object.seen().contains(dot)
            })
        };
        u32::try_from(self.shadows.iter().filter(has).count()).unwrap_or(u32::MAX)
    }

    /// Nodes that have taken in an amendment which has lost to what was here before it, or have what it has lost to.
    fn holders_of_lost(&self, id: OpId, seen: &DotSet) -> u32 {
        let request = &self.requests[id.index()];
        let lost_to = self.outranking(id);
        let Some(context) = request.context().filter(|_| !lost_to.is_empty()) else { return 0 };
        let own = DotSet::from_spans(seen.without(context)).expect("spans of a set are sorted");
        let buffered = self.rules(request.key).buffered;
        let has = |shadow: &&Shadow| {
            shadow.copies.get(&request.key).is_some_and(|copy| {
                let taken_in = |seen: &DotSet| !own.is_empty() && seen.includes(&own);
                taken_in(&copy.durable_seen) || buffered && taken_in(copy.object.seen())
            })
        };
        let taken_in = u32::try_from(self.shadows.iter().filter(has).count()).unwrap_or(u32::MAX);
        lost_to.iter().map(|dot| self.holders(id, *dot).count_ones()).fold(taken_in, u32::max)
    }

    /// An acknowledged write is on as many disks as it asked for.
    pub(super) fn check_copies(&mut self, now: Time, id: OpId, own: &[Dot], seen: &DotSet) {
        let request = &self.requests[id.index()];
        let number = request.key;
        // A plain delete that found nothing to delete writes nothing.
        if own.is_empty() && matches!(request.op, Op::Delete { .. }) {
            return;
        }
        // Each of them, for who has one has seen those before it.
        let acknowledged = own.iter().filter(|dot| seen.contains(**dot));
        let copies = acknowledged.map(|dot| self.holders(id, *dot).count_ones()).min();
        let copies =
            copies.unwrap_or_else(|| self.holders_of_lost(id, seen).max(self.holders_of_unborn(id, seen)));
        if copies < u32::from(request.copies) {
            let what = format!(
                "{id} is acknowledged with {copies} copies of {} ({own:?} of {seen:?})",
                request.copies
            );
            self.fail(now, Invariant::AcknowledgedCopies, Some(number), what);
        }
    }
}
