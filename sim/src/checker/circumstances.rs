//! What holds in the cluster as a request begins and as it is answered, to hold the answer against.

use super::durability::{Shadow, ShadowCopy};
use super::requests::Lacking;
use super::{Birth, Checker, Invariant, OpId};
use crate::time::Time;
use crate::world::HINTS;
use core::time::Duration;
use gramme_quorum::{Cover, Level, Op, Output, Reply};
use gramme_ring::{Layout, LayoutVersion, NodeId, Slot};
use gramme_vclock::Dot;

/// A write lingers no longer than this after its answer, by any clock, before there are hints for whoever is silent.
const LINGERS: Duration = Duration::from_millis(600);

/// A moment's circumstances.
#[derive(Clone, Debug, Default)]
pub struct Circumstances {
    /// The layout that every node goes by and the key's owners by it, each by number and as hints name it; `None` while nodes
    /// go by different ones.
    pub layout: Option<(LayoutVersion, Vec<(usize, u64)>)>,
    /// What the earliest of all wall clocks shows, and the latest.
    pub walls: (u64, u64),
    /// The key's owners, by number, by each layout that some node goes by, with its hash.
    pub owners: Vec<(u64, Vec<usize>)>,
}

impl Checker {
    /// A request begins.
    pub fn begins(&mut self, id: OpId, circumstances: &Circumstances) {
        let key = self.requests[id.index()].key;
        let durable =
            |node: usize| self.shadows[node].copies.get(&key).is_some_and(|copy| copy.record.is_durable());
        let count = |owners: &mut dyn Iterator<Item = usize>| {
            u8::try_from(owners.filter(|node| !durable(*node)).count()).unwrap_or(u8::MAX)
        };
        let settled = circumstances.layout.as_ref();
        let absent =
            settled.map(|(version, owners)| (*version, count(&mut owners.iter().map(|(node, _)| *node))));
        let absences = circumstances.owners.iter();
        let absences =
            absences.map(|(layout, owners)| (*layout, count(&mut owners.iter().copied()))).collect();
        let copies: Vec<Option<&ShadowCopy>> =
            self.shadows.iter().map(|shadow| shadow.copies.get(&key)).collect();
        let lacking = circumstances.owners.iter().map(|(layout, owners)| {
            let is_owner = owners.iter().fold(0u128, |all, node| all | 1 << *node);
            let of = |dot: &Dot| {
                let (mut held, mut others) = (0u128, 0u8);
                for (node, copy) in
                    copies.iter().enumerate().filter_map(|(node, copy)| Some((node, (*copy)?)))
                {
                    if is_owner >> node & 1 == 1 {
                        held |= u128::from(copy.durable_seen.contains(*dot)) << node;
                    } else {
                        others += u8::from(copy.lacks(*dot));
                    }
                }
                let lack = owners.len() - held.count_ones() as usize;
                (*dot, u8::try_from(lack).unwrap_or(u8::MAX), others, held)
            };
            let dots = self.keys[key].done.iter().map(of).collect();
            Lacking { layout: *layout, owners: owners.clone(), dots }
        });
        let lacking = lacking.collect();
        let request = &mut self.requests[id.index()];
        request.lacking = lacking;
        request.absent = absent;
        request.absences = absences;
        request.walls = circumstances.walls;
    }

    /// How many others have a copy without it.
    pub(super) fn others_lack(&self, key: usize, dot: Dot, owners: &[usize]) -> u8 {
        let lacks = |(node, shadow): &(usize, &Shadow)| {
            !owners.contains(node) && shadow.copies.get(&key).is_some_and(|copy| copy.lacks(dot))
        };
        u8::try_from(self.shadows.iter().enumerate().filter(lacks).count()).unwrap_or(u8::MAX)
    }

    /// A copy of a key has changed: reads that are under way may see that of somebody who is no owner, before it changes again.
    pub(super) fn others_changed(&mut self, key: usize) {
        let waiting: Vec<OpId> =
            self.waiting.iter().copied().filter(|id| self.requests[id.index()].key == key).collect();
        for id in waiting {
            let mut lacking = std::mem::take(&mut self.requests[id.index()].lacking);
            for Lacking { owners, dots, .. } in &mut lacking {
                for (dot, _, others, _) in dots {
                    *others = self.others_lack(key, *dot, owners).max(*others);
                }
            }
            self.requests[id.index()].lacking = lacking;
        }
    }

    /// Some wall clock has jumped: whoever answers may have looked at it before or after.
    pub fn clocks_show(&mut self, (earliest, latest): (u64, u64)) {
        for id in &self.waiting {
            let walls = &mut self.requests[id.index()].walls;
            *walls = (walls.0.min(earliest), walls.1.max(latest));
        }
    }

    /// A node is about to answer.
    pub fn answers(&mut self, now: Time, id: OpId, reply: &Reply, circumstances: &Circumstances) {
        let request = &mut self.requests[id.index()];
        let (earliest, latest) = circumstances.walls;
        request.walls = (request.walls.0.min(earliest), request.walls.1.max(latest));
        let request = &self.requests[id.index()];
        let key = request.key;
        let settled = circumstances.layout.as_ref().zip(request.absent);
        let settled = settled.filter(|((version, _), (before, _))| version == before);
        if let (Some(_), Reply::Read(reading)) = (settled, reply) {
            self.check_shown(now, id, reading);
        }
        let request = &self.requests[id.index()];
        let empty = match reply {
            Reply::Read(reading) => {
                let expired = |expiry: gramme_quorum::Expiry| expiry.0 <= request.walls.0;
                let shown = reading.siblings.iter().find(|found| found.expiry.is_some_and(expired));
                if let Some(found) = shown {
                    let what = format!("{id} was shown {}, which had expired on every clock", found.dot);
                    return self.fail(now, Invariant::ExpiryHides, Some(key), what);
                }
                reading.context.seen.is_empty()
            }
            Reply::Written { context, .. } => {
                if let Some(((_, owners), _)) = settled {
                    self.check_owners(now, id, &context.seen, owners, request.copies);
                }
                context.seen.is_empty()
            }
            Reply::Failed(_) => false,
        };
        if let Some((_, (_, absent))) = settled.filter(|_| empty) {
            let request = &self.requests[id.index()];
            let r = match &request.op {
                Op::Get { .. } | Op::Delete { cover: Cover::Held, .. } => request.r,
                Op::Put { .. } | Op::Delete { .. } => return,
            };
            if absent < r {
                let what = format!("{id} found nothing, when {absent} owners had nothing, and R is {r}");
                self.fail(now, Invariant::AbsenceIsAQuorum, Some(key), what);
            }
        }
    }

    /// Layouts call this node so.
    pub fn names(&mut self, node: usize, id: NodeId) {
        self.ids.insert(id.0, node);
    }

    /// The cluster goes by this layout from now on, whose members have these numbers.
    pub fn set_layout(&mut self, layout: Layout, members: impl IntoIterator<Item = (usize, u64)>) {
        self.members = members.into_iter().map(|(node, id)| (id, node)).collect();
        self.ids.extend(self.members.clone());
        self.layout = Some(layout);
    }

    /// A hint goes only when its owner has durably what the copy beside it was.
    pub(super) fn check_hints(&mut self, now: Time, node: usize, outputs: &[Output]) {
        for output in outputs {
            let Output::Append { place, key: record, value: None, .. } = output else { continue };
            let again =
                |other: &Output| matches!(other, Output::Append { key, value: Some(_), .. } if key == record);
            let Some((owner, key)) = record.split_first_chunk::<8>().filter(|_| place.0 >= HINTS) else {
                continue;
            };
            // Somebody has just asked for it: it is made one for those that this node knows of.
            let slot = Slot::of(key);
            let owner_id = NodeId(u64::from_be_bytes(*owner));
            let unheard = |layout: &Layout| !layout.is_owner(layout.partition_of(slot), owner_id);
            if self.shadows[node].layout.as_ref().is_some_and(unheard) {
                self.shadows[node].remade.insert(record.clone());
            }
            if outputs.iter().any(again) {
                continue;
            }
            if let Some(number) = self.numbers.get(key).copied() {
                self.check_heirs(now, node, owner_id, number);
                self.check_owed(now, node, u64::from_be_bytes(*owner), number);
            }
        }
    }

    /// A hint for somebody who is no member any more goes: all owners, by the layout that its node goes by, have the copy beside it, or
    /// there are hints for them.
    fn check_heirs(&mut self, now: Time, node: usize, gone: NodeId, number: usize) {
        let shadow = &self.shadows[node];
        let Some(layout) = shadow.layout.as_ref().filter(|layout| !layout.is_member(gone)) else { return };
        let Some(copy) = shadow.copies.get(&number) else { return };
        // It may have got it before it left, and passes it on.
        let passes_on = |dot: Dot| {
            let copy = self.ids.get(&gone.0).and_then(|gone| self.shadows[*gone].copies.get(&number));
            copy.is_some_and(|copy| copy.durable_seen.contains(dot) || copy.passed_on.contains(dot))
        };
        let name = &self.keys[number].name;
        let slot = Slot::of(name);
        for heir in layout.owners(layout.partition_of(slot)) {
            let Some(owner) = self.ids.get(&heir.0).copied().filter(|owner| *owner != node) else { continue };
            let record = [&heir.0.to_be_bytes()[..], &name[..]].concat();
            // A write may have come to the copy since its heirs' hints were written, and its coordinator sees to it itself.
            let lacks = |dot: &Dot| {
                !self.is_under_way(now, number, *dot)
                    && self.shadows[owner].actor != Some(dot.actor)
                    && !self.shadows[owner].has_durably(number, *dot)
                    && !passes_on(*dot)
                    && !self.told_and_lost(node, number, owner, *dot)
            };
            let lacking = copy.object.iter().map(|(dot, _)| dot).find(lacks);
            if let Some(dot) = lacking.filter(|_| !shadow.keeps(&record) && self.gone >> owner & 1 == 0) {
                let what = format!(
                    "node {node} drops its hint for {gone}, which has left, and keeps none for its heir, node {owner}, which lacks {dot}"
                );
                return self.fail(now, Invariant::NothingDroppedEarly, Some(number), what);
            }
        }
    }

    /// Whether a write has not been answered, or so lately that its coordinator still waits for some replica.
    fn is_under_way(&self, now: Time, number: usize, dot: Dot) -> bool {
        let op = self.keys[number].dots.get(&dot).and_then(Birth::origin);
        op.is_some_and(|op| self.requests[op.index()].ended.is_none_or(|ended| now.since(ended) <= LINGERS))
    }

    /// A copy goes: the owners for whom there is a hint beside it have it.
    pub(super) fn check_hinted(&mut self, now: Time, node: usize, number: usize) {
        let name = self.keys[number].name.clone();
        let owners: Vec<u64> = self
            .own_records(node, HINTS)
            .filter_map(|(_, record)| record.split_first_chunk::<8>())
            .filter(|(_, key)| *key == &name[..])
            .map(|(owner, _)| u64::from_be_bytes(*owner))
            .collect();
        for owner in owners {
            self.check_owed(now, node, owner, number);
        }
    }

    fn check_owed(&mut self, now: Time, node: usize, owner: u64, number: usize) {
        // Who owns the key no more needs nothing, and what has acknowledged may be gone.
        let slot = Slot::of(&self.keys[number].name);
        let owns = |layout: &Layout| layout.is_owner(layout.partition_of(slot), NodeId(owner));
        // Who is to own it by a layout that this node has not heard of gets it when that comes.
        let (newest, own) = (self.layout.as_ref(), self.shadows[node].layout.as_ref());
        let due = newest.is_some_and(owns) && own.is_none_or(owns);
        let Some(owner) = self.members.get(&owner).filter(|_| due).copied() else { return };
        // And so does one that has yet to hear of it itself: until then it drops what it takes as a fallback would.
        if !self.shadows[owner].layout.as_ref().is_none_or(owns) {
            return;
        }
        if self.gone >> owner & 1 == 1 {
            return;
        }
        let Some(copy) = self.shadows[node].copies.get(&number) else { return };
        // What it has passed on since it was no owner it gets again, with all that it is to own by now.
        let owners = self.shadows[owner].copies.get(&number);
        let has = |dot: Dot| {
            owners.is_some_and(|copy| copy.durable_seen.contains(dot) || copy.passed_on.contains(dot))
        };
        let lost = |dot: Dot| self.told_and_lost(node, number, owner, dot);
        let lacks = copy.object.iter().map(|(dot, _)| dot).find(|dot| !has(*dot) && !lost(*dot));
        if let Some(dot) = lacks {
            let what =
                format!("node {node} forgets to hand {dot} to node {owner}, which does not have it durably");
            self.fail(now, Invariant::NothingDroppedEarly, Some(number), what);
        }
    }

    pub(super) fn resolve(&self, level: Level) -> u8 {
        level.resolve(self.replicas.0).unwrap_or(0)
    }
}
