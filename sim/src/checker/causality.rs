//! Causality: who may replace whom, what may be claimed, and what a client must be shown.

use super::durability::MEMORY;
use super::given_back::is_of;
use super::{Birth, Checker, Coverer, Invariant, OpId, Outcome, writer_of};
use crate::time::Time;
use bytes::Bytes;
use gramme_quorum::object::weigh;
use gramme_quorum::{Content, Cover, Object, Op, Output, Reading, Reply, Version};
use gramme_ring::SLOTS;
use gramme_vclock::{Dot, GrowableDotSet as DotSet};
use std::collections::BTreeSet;

/// Acknowledged writes of a key that are remembered, to hold reads against.
const MOST_DONE: usize = 16;

impl Checker {
    /// A node has handled one input, and this is all it does about it.
    pub fn acted(&mut self, now: Time, node: usize, outputs: &[Output]) {
        let mut objects = Vec::new();
        for output in outputs {
            match output {
                Output::Append { place, key, value: Some((bytes, _)), .. } if place.0 < SLOTS => {
                    objects.push((self.key_number(key), bytes.clone()));
                }
                Output::Send(_, message) => {
                    self.note_call(message);
                    objects.extend(self.object_of(message));
                }
                _ => {}
            }
        }
        // A write goes to several nodes, and the same bytes need only one look.
        objects.dedup();
        let mut decoded = Vec::new();
        for (number, bytes) in &objects {
            let number = *number;
            match gramme_quorum::object::decode(bytes) {
                Ok(object) => {
                    let weight = object.iter().map(|(_, version)| weigh(version)).sum::<usize>();
                    let key = self.keys[number].name.len();
                    self.heaviest = self.heaviest.max(key + weight.max(bytes.len()));
                    decoded.push((number, object));
                }
                Err(_) => {
                    let what = format!("node {node} puts out an object that does not decode");
                    return self.fail(now, Invariant::NothingInvented, Some(number), what);
                }
            }
        }
        self.births(now, node, &decoded);
        self.note_syncs(node, outputs);
        for (number, object) in &decoded {
            self.check_versions(now, node, *number, object);
            self.check_given_back(now, node, *number, object);
            self.check_claims(now, node, *number, object);
            self.check_last(now, node, *number, object, false);
        }
        self.check_hints(now, node, outputs);
        for output in outputs {
            match output {
                Output::Append { place, key, value, .. } => {
                    let value = value.as_ref().map(|(bytes, _tag)| {
                        let at = objects.iter().position(|(_, known)| known == bytes);
                        (bytes, at.filter(|_| place.0 < SLOTS).map(|at| &decoded[at].1))
                    });
                    self.appended(now, node, place.0, key, value, false);
                }
                Output::DropSlot { place, .. } => self.dropped(now, node, place.0),
                _ => {}
            }
        }
    }

    /// Takes note of dots never seen before.
    fn births(&mut self, now: Time, node: usize, objects: &[(usize, Object)]) {
        let mut born: Vec<(usize, Dot)> = Vec::new();
        for (number, object) in objects {
            let number = *number;
            for (dot, version) in object.iter() {
                if !self.keys[number].dots.contains_key(&dot) && self.birth(now, node, number, dot, version) {
                    born.push((number, dot));
                }
            }
        }
        // A plain write covers what its coordinator held, had been shown, or minted in the same breath before it; where the last
        // write wins any write does.
        for (number, dot) in &born {
            let birth = &self.keys[*number].dots[dot];
            let lww = self.rules(*number).lww;
            let by = match birth.op {
                Some(op) if lww || self.requests[op.index()].is_plain() => Some(Coverer::Op(op)),
                None if lww || birth.deletes.iter().any(|id| self.requests[id.index()].is_plain()) => {
                    Some(Coverer::Tombstone(*dot))
                }
                _ => None,
            };
            let shadow = &self.shadows[node];
            let mut held: BTreeSet<Dot> = BTreeSet::new();
            held.extend(
                shadow.copies.get(number).into_iter().flat_map(|copy| copy.object.iter().map(|(dot, _)| dot)),
            );
            held.extend(shadow.shown.get(number).into_iter().flatten().map(|(_, dot)| *dot));
            held.extend(
                born.iter().filter(|(key, other)| key == number && other < dot).map(|(_, other)| *other),
            );
            // An earlier round of the same write.
            held.extend(self.keys[*number].present.iter().filter(|other| {
                let other_op = self.keys[*number].dots[*other].op;
                other_op.is_some() && other_op == birth.op
            }));
            held.remove(dot);
            let key = &mut self.keys[*number];
            let beside =
                held.iter().any(|other| key.dots.get(other).is_none_or(|birth| birth.version.is_value()));
            key.dots.get_mut(dot).expect("it was just born").beside = beside;
            let Some(by) = by else { continue };
            key.cover_by(by, |dot| held.contains(&dot));
        }
        for (number, dot) in &born {
            self.born_late(node, *number, *dot);
            let with = objects.iter().filter(|(key, object)| key == number && object.get(*dot).is_some());
            let with: Vec<&Object> = with.map(|(_, object)| object).collect();
            self.keys[*number].replace(*dot, &with);
        }
        for (number, object) in objects {
            let key = &self.keys[*number];
            // Where the last write wins, of two of one stamp the larger dot stays when they meet, be it in the breath of its birth.
            let lww = self.rules(*number).lww;
            let rank = |dot, stamp| if lww { (stamp, Some(dot)) } else { (stamp, None) };
            let newest = object.iter().map(|(dot, version)| rank(dot, version.stamp)).max();
            if !born.iter().any(|(at, dot)| at == number && object.get(*dot).is_some()) {
                continue;
            }
            // What was replaced before is not replaced by this, though what lies between two dots of its context may speak of it.
            let replaced = |dot: Dot| {
                let (stamp, by) = (key.dots[&dot].version.stamp, &key.dots[&dot].covered_by);
                let later = |other: &Birth| {
                    other.version.stamp > stamp && other.op.is_some_and(|op| by.contains(&Coverer::Op(op)))
                };
                key.dots.iter().any(|(other, birth)| later(birth) && !born.contains(&(*number, *other)))
            };
            let covered = key.present.iter().find(|dot| {
                object.seen().contains(**dot)
                    && object.get(**dot).is_none()
                    && newest.is_none_or(|newest| newest <= rank(**dot, key.dots[*dot].version.stamp))
                    && !replaced(**dot)
            });
            if let Some(dot) = covered {
                let what = format!("node {node} covers {dot}, whose stamp is later than any in {object:?}");
                self.fail(now, Invariant::StampsRise, Some(*number), what);
            }
        }
        self.born = born;
    }

    /// The deletes whose a tombstone may be that a node mints now: those that were asked for and not answered yet, or answered by
    /// somebody who does not know, not long ago.
    fn deletes(&self, now: Time, node: usize, number: usize) -> Vec<OpId> {
        let slept = self.shadows[node].slept;
        let may_be = |id: &&OpId| {
            let request = &self.requests[id.index()];
            match request.outcome {
                Outcome::Open => true,
                Outcome::Indeterminate => now.since(request.submitted) <= MEMORY + slept,
                Outcome::Ok | Outcome::Failed => false,
            }
        };
        self.keys[number].deletes.iter().filter(may_be).copied().collect()
    }

    /// A dot that its coordinator replaced in the breath in which it minted it, and sends to somebody all the same: what it minted next
    /// has covered it, and who has that has seen this.
    fn born_late(&mut self, node: usize, number: usize, dot: Dot) {
        let Some(copy) = self.shadows[node].copies.get(&number) else { return };
        if !copy.object.seen().contains(dot) || copy.object.get(dot).is_some() {
            return;
        }
        let durable = u128::from(copy.durable_seen.contains(dot)) << node;
        let lww = self.rules(number).lww;
        let next =
            Dot { actor: dot.actor, counter: dot.counter + 1 }..=Dot { actor: dot.actor, counter: u64::MAX };
        let key = &mut self.keys[number];
        let covers = |(later, birth): (&Dot, &Birth)| match birth.op {
            Some(op) => (lww || self.requests[op.index()].is_plain()).then_some(Coverer::Op(op)),
            None => Some(Coverer::Tombstone(*later)),
        };
        let seen = |(later, _): &(&Dot, &Birth)| copy.object.seen().contains(**later);
        let coverers: Vec<Coverer> = key.dots.range(next).filter(seen).filter_map(covers).collect();
        for by in coverers {
            key.cover_by(by, |other| other == dot);
        }
        let birth = key.dots.get_mut(&dot).expect("it was just born");
        (birth.durable_at, birth.written_at) = (birth.durable_at | durable, birth.written_at | 1 << node);
    }

    fn birth(&mut self, now: Time, node: usize, number: usize, dot: Dot, version: &Version) -> bool {
        let what = if self.shadows[node].actor != Some(dot.actor) {
            Some((
                Invariant::NothingInvented,
                format!("node {node} puts out {dot}, which it did not mint and nobody has"),
            ))
        } else {
            let slot = self.keys[number].slot;
            let other = self.dot_keys.insert((slot, dot), number);
            other.map(|other| {
                let other = self.keys[other].name.escape_ascii().to_string();
                (
                    Invariant::DotNamesOneValue,
                    format!("node {node} mints {dot}, which already names a value of key {other}"),
                )
            })
        };
        if let Some((invariant, what)) = what {
            self.fail(now, invariant, Some(number), what);
            return false;
        }
        let mut deletes = Vec::new();
        let op = match &version.content {
            // Only what readers see no more is given back.
            Content::Expired { .. } => {
                let what = format!("node {node} puts out {dot} without its value, which nobody has seen");
                self.fail(now, Invariant::NothingInvented, Some(number), what);
                return false;
            }
            Content::Tombstone => {
                deletes = self.deletes(now, node, number);
                if deletes.is_empty() {
                    let what = format!("node {node} mints the tombstone {dot}, and no delete is under way");
                    self.fail(now, Invariant::RequestsEnd, Some(number), what);
                    return false;
                }
                None
            }
            Content::Value { bytes, .. } => match self.origin(number, bytes) {
                Some(op) => Some(op),
                None => {
                    let what = format!("node {node} mints {dot} for a value that nobody wrote");
                    self.fail(now, Invariant::NothingInvented, Some(number), what);
                    return false;
                }
            },
        };
        if let Some(op) = op
            && self.requests[op.index()].outcome == Outcome::Ok
        {
            let what = format!("node {node} mints {dot} for {op}, which was acknowledged long ago");
            self.fail(now, Invariant::RequestsEnd, Some(number), what);
        }
        if let Some(op) = op
            && let Some(what) = self.check_amendment(number, op, version)
        {
            self.fail(now, Invariant::StampsRise, Some(number), what);
        }
        if let Some(op) = op
            && let Some(what) = self.check_expiry(now, node, op, version)
        {
            self.fail(now, Invariant::ExpiryHides, Some(number), what);
        }
        // A context handed in before this dot was born can't have shown it; what covers it comes later.
        let birth = Birth {
            op,
            deletes,
            at: now,
            version: version.clone(),
            beside: false,
            covered_by: Vec::new(),
            replaced_by: Vec::new(),
            durable_at: 0,
            written_at: 0,
            lost_at: 0,
            missed_at: 0,
            gone_by: Vec::new(),
            excused: false,
        };
        let lww = self.rules(number).lww;
        let key = &mut self.keys[number];
        key.dots.insert(dot, birth);
        key.present.insert(dot);
        if op.is_some() && !lww {
            key.open.insert(dot);
        }
        true
    }

    /// What was written since an amendment's reader has read outranks it, whoever mints it when.
    fn check_amendment(&self, number: usize, op: OpId, version: &Version) -> Option<String> {
        let amended = |op: OpId| match &self.requests[op.index()].op {
            Op::Put { cover: Cover::Amends(context), .. } => Some(context),
            _ => None,
        };
        let context = amended(op)?;
        let key = &self.keys[number];
        let hidden = key.present.iter().find(|dot| {
            let birth = &key.dots[*dot];
            let plain = birth.op.is_some_and(|op| amended(op).is_none());
            let since = context.stamp < birth.version.stamp && birth.version.stamp <= version.stamp;
            plain && since && !context.seen.contains(**dot)
        });
        hidden.map(|dot| format!("{op} amends what it has read, and outranks {dot}, which it has not"))
    }

    /// The request that wrote this value under this key, byte for byte.
    fn origin(&self, number: usize, value: &Bytes) -> Option<OpId> {
        let op = writer_of(value)?;
        let request = self.requests.get(op.index())?;
        let written = matches!(&request.op, Op::Put { value: written, .. } if written == value);
        (written && request.key == number).then_some(op)
    }

    /// Every version under a known dot is what it was at first sight.
    pub(super) fn check_versions(&mut self, now: Time, node: usize, number: usize, object: &Object) {
        for (dot, version) in object.iter() {
            match self.keys[number].dots.get(&dot) {
                Some(birth) if is_of(&birth.version, version) => {}
                Some(birth) => {
                    let what =
                        format!("node {node} has {version:?} under {dot}, which names {:?}", birth.version);
                    self.fail(now, Invariant::DotNamesOneValue, Some(number), what);
                }
                None => {
                    let what = format!("node {node} puts out {dot} under a key that has no such write");
                    self.fail(now, Invariant::NothingInvented, Some(number), what);
                }
            }
        }
    }

    /// The central rule: an open dot that is said to be seen must be there.
    fn check_claims(&mut self, now: Time, node: usize, number: usize, object: &Object) {
        let key = &self.keys[number];
        let lost = key.open.iter().find(|dot| object.seen().contains(**dot) && object.get(**dot).is_none());
        if let Some(dot) = lost {
            let op = key.dots[dot].op.map_or_else(String::new, |op| format!(" ({op})"));
            let what = format!(
                "node {node} claims to have seen {dot}{op}, which nothing covers, without its value: {object:?}"
            );
            return self.fail(now, Invariant::OnlyCoveredDisappears, Some(number), what);
        }
        if let Some((dot, by)) = key.revived(object.iter().map(|(dot, _)| dot), object.seen()) {
            let what = format!("node {node} has {dot} again, in whose place it has seen {by}: {object:?}");
            self.fail(now, Invariant::CoveredStaysGone, Some(number), what);
        }
    }

    /// A read's answer, at its client.
    pub(super) fn check_reading(&mut self, now: Time, id: OpId, reading: &Reading) {
        let request = &self.requests[id.index()];
        let number = request.key;
        let key = &self.keys[number];
        let mut wrong = None;
        for found in &reading.siblings {
            let Some(birth) = key.dots.get(&found.dot) else {
                // Its coordinator replaced it in the breath in which it showed it.
                let named = self.dot_keys.contains_key(&(key.slot, found.dot))
                    || self.shadows.iter().all(|shadow| shadow.actor != Some(found.dot.actor));
                let asked = self.origin(number, &found.value).map(|op| self.requests[op.index()].outcome);
                if !named && asked.is_some_and(|outcome| outcome != Outcome::Failed) {
                    continue;
                }
                wrong = Some((
                    Invariant::NothingInvented,
                    format!("{id} read {}, which nobody wrote", found.dot),
                ));
                break;
            };
            let same = matches!(&birth.version.content, Content::Value { bytes, .. } if *bytes == found.value)
                && birth.version.stamp == found.stamp
                && birth.version.expiry == found.expiry;
            if !same {
                let what = format!("{id} read other bytes under {} than were written", found.dot);
                wrong = Some((Invariant::NothingInvented, what));
            }
            if let Some(op) = birth.op
                && self.requests[op.index()].outcome == Outcome::Failed
            {
                let what = format!("{id} read the value of {op}, which was told that nothing was done");
                wrong = Some((Invariant::RequestsEnd, what));
            }
        }
        let shown: BTreeSet<Dot> = reading.siblings.iter().map(|found| found.dot).collect();
        let mut writers: Vec<OpId> = shown.iter().filter_map(|dot| key.dots.get(dot)?.op).collect();
        writers.sort_unstable();
        if let Some(twice) = writers.windows(2).find(|pair| pair[0] == pair[1]) {
            let what = format!("{id} was shown two values of {}, which was asked for once", twice[0]);
            wrong = Some((Invariant::RequestsEnd, what));
        }
        let seen = &reading.context.seen;
        let hidden = key.open.iter().find(|dot| seen.contains(**dot) && !shown.contains(dot));
        let hidden = hidden.filter(|dot| !self.is_hidden_by(request, **dot));
        if let Some(dot) = hidden {
            let what = format!("{id} read a context that covers {dot}, which was not shown");
            wrong = Some((Invariant::ContextCoversWhatWasShown, what));
        }
        if let Some((dot, by)) = key.revived(shown.iter().copied(), seen) {
            let what = format!("{id} was shown {dot}, and knows {by}, which was written in its place");
            wrong = Some((Invariant::CoveredStaysGone, what));
        }
        if let Some(dot) = shown.iter().find(|dot| !seen.contains(**dot)) {
            let what = format!("{id} was shown {dot}, which its context does not cover");
            wrong = Some((Invariant::ContextCoversWhatWasShown, what));
        }
        let undone = |dot: &&Dot| {
            let op = key.dots[*dot].origin().map(|op| self.requests[op.index()].outcome);
            op == Some(Outcome::Failed) && seen.contains(**dot)
        };
        if let Some(dot) = key.present.iter().find(undone) {
            let what = format!("{id} knows of {dot}, whose writer was told that nothing was done");
            wrong = Some((Invariant::RequestsEnd, what));
        }
        if request.strict {
            if let Some(dot) = self.unseen(id, seen) {
                let what = format!(
                    "{id}, a strict read, does not know {dot}, acknowledged before it began; it read {seen:?}"
                );
                wrong = Some((Invariant::ReadYourWrites, what));
            }
            // The winner must not have been over before an acknowledged plain write began.
            let winner = reading.siblings.first().and_then(|found| key.dots.get(&found.dot)?.op);
            // With what outranked it expired, an older one may come to light that nobody had covered.
            let hides = key
                .dots
                .keys()
                .any(|dot| seen.contains(*dot) && !shown.contains(dot) && self.is_hidden_by(request, *dot));
            if !hides
                && let Some(winner) = winner.map(|op| (op, &self.requests[op.index()]))
                && winner.1.strict
                && winner.1.outcome == Outcome::Ok
                && let Some(over) = winner.1.ended
            {
                let stands = |id: OpId| key.dots.values().any(|birth| birth.op == Some(id) && !birth.excused);
                let later = key
                    .plain_done
                    .iter()
                    .find(|(ended, began, id)| *ended < request.submitted && over < *began && stands(*id));
                if let Some((_, _, op)) = later {
                    let what = format!("{id}, a strict read, shows {}, which {op} had overwritten", winner.0);
                    wrong = Some((Invariant::ReadYourWrites, what));
                }
            }
        }
        if let Some((invariant, what)) = wrong {
            self.fail(now, invariant, Some(number), what);
        }
    }

    /// A dot that a strict request should have seen, and did not. What went with a disk can't be seen, nor what a node lacks that has yet to
    /// hear that its disk is an old one.
    fn unseen(&self, id: OpId, seen: &DotSet) -> Option<Dot> {
        let request = &self.requests[id.index()];
        if seen.includes(&request.must_see) {
            return None;
        }
        let dots = &self.keys[request.key].dots;
        let missed = |(dot, birth): &(&Dot, &Birth)| {
            request.must_see.contains(**dot)
                && !seen.contains(**dot)
                && !birth.excused
                && birth.missed_at & request.unaware == 0
        };
        dots.iter().find(missed).map(|(dot, _)| *dot)
    }

    /// A node is about to answer: what an acknowledgement stands for must hold at this moment.
    pub fn answering(&mut self, now: Time, id: OpId, reply: &Reply) {
        if let Reply::Written { context, .. } = reply {
            let own = self.own_dots(id, &context.seen);
            self.check_copies(now, id, &own, &context.seen);
        }
        let write = self.requests[id.index()].op.is_write();
        if matches!(reply, Reply::Failed(error) if write && !error.changed()) {
            self.check_undone(now, id);
        }
    }

    /// The dots that a write was given. A tombstone does not say whose it is: the newest that the answer covers counts,
    /// or an older one if there was nothing to delete.
    fn own_dots(&self, id: OpId, seen: &DotSet) -> Vec<Dot> {
        let request = &self.requests[id.index()];
        let key = &self.keys[request.key];
        if matches!(request.op, Op::Delete { .. }) {
            let own =
                key.dots.iter().filter(|(dot, birth)| birth.deletes[..] == [id] && seen.contains(**dot));
            if let Some((dot, _)) = own.max_by_key(|(_, birth)| birth.version.stamp) {
                return vec![*dot];
            }
            let tombstones =
                key.present.iter().filter(|dot| key.dots[*dot].op.is_none() && seen.contains(**dot));
            return tombstones.max_by_key(|dot| key.dots[*dot].version.stamp).copied().into_iter().collect();
        }
        key.dots.iter().filter(|(_, birth)| birth.op == Some(id)).map(|(dot, _)| *dot).collect()
    }

    /// What an amendment has lost to, where the last write wins: it may never come to light.
    pub(super) fn outranking(&self, id: OpId) -> Vec<Dot> {
        let request = &self.requests[id.index()];
        let key = &self.keys[request.key];
        let Op::Put { cover: Cover::Amends(context), .. } = &request.op else { return Vec::new() };
        let lost_to = |(dot, birth): &(&Dot, &Birth)| {
            !context.seen.contains(**dot) && context.stamp < birth.version.stamp
        };
        let lww = self.rules(request.key).lww;
        key.dots.iter().filter(|entry| lww && lost_to(entry)).map(|(dot, _)| *dot).collect()
    }

    /// A write's acknowledgement, at its client.
    pub(super) fn check_written(&mut self, now: Time, id: OpId, seen: &DotSet) {
        let request = &self.requests[id.index()];
        let (number, strict, plain) = (request.key, request.strict, request.is_plain());
        let began = request.submitted;
        let delete = matches!(request.op, Op::Delete { .. });
        let own = self.own_dots(id, seen);
        let key = &self.keys[number];
        let wrong = if let Some(context) = request.context()
            && !seen.includes(context)
        {
            let what = format!("{id} was given {seen:?}, which lacks some of what it handed in: {context:?}");
            Some((Invariant::ContextCoversWhatWasShown, what))
        } else if strict
            && plain
            && delete
            && let Some(dot) = self.unseen(id, seen)
        {
            let what = format!("{id}, a strict delete, does not cover {dot}, acknowledged before it began");
            Some((Invariant::ReadYourWrites, what))
        } else if own.is_empty()
            && !delete
            && self.outranking(id).is_empty()
            && self.unborn(id, seen).is_none()
        {
            Some((
                Invariant::AcknowledgedReadable,
                format!("{id} was acknowledged, and no node ever put it out"),
            ))
        } else if !own.is_empty() && !delete && !own.iter().any(|dot| seen.contains(*dot)) {
            let what = format!("{id} was given {seen:?}, which does not cover its own {own:?}");
            Some((Invariant::ContextCoversWhatWasShown, what))
        } else {
            key.open.iter().find(|dot| seen.contains(**dot) && !own.contains(dot)).map(|dot| {
                let what = format!("{id} was given a context that covers {dot}, which it was not shown");
                (Invariant::ContextCoversWhatWasShown, what)
            })
        };
        if let Some((invariant, what)) = wrong {
            return self.fail(now, invariant, Some(number), what);
        }
        let stamp_of = |dot: &Dot| key.dots[dot].version.stamp;
        let last = own.iter().copied().filter(|dot| seen.contains(*dot)).max_by_key(stamp_of);
        let key = &mut self.keys[number];
        let requests = &self.requests;
        for dot in key.present.clone() {
            let birth = key.dots.get_mut(&dot).expect("only known dots are present");
            // A tombstone does not say whose it is: this one may be its own, of a later round.
            if seen.contains(dot) && !own.contains(&dot) && !birth.deletes.contains(&id) {
                birth.gone_by.push(id);
            }
            // Its own acknowledgement is still to be judged while it is waited for.
            let mut origins = birth.op.iter().chain(&birth.deletes);
            let waited_for = origins.any(|op| requests[op.index()].outcome == Outcome::Open);
            if birth.is_gone() && !waited_for {
                key.present.remove(&dot);
                key.open.remove(&dot);
            }
        }
        if let Some(last) = last {
            key.done.truncate(MOST_DONE - 1);
            key.done.push_front(last);
        }
        if strict && let Some(last) = last {
            let Ok(()) = key.strict_done.insert(last);
            let expires = key.dots[&last].version.expiry.is_some();
            if plain && !delete && !expires {
                key.plain_done.push((now, began, id));
                // Only the one that began last, and those not over when it began, can tell more.
                let newest = key.plain_done.iter().map(|(_, began, _)| *began).max().unwrap_or_default();
                key.plain_done.retain(|(ended, began, _)| *began == newest || *ended > newest);
            }
        }
    }
}
