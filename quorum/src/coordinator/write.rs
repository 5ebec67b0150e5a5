//! Writes: mint a dot here, send the object to the other replicas, answer when W of them hold it.

use super::held::Request;
use super::needs::{indeterminate, out_of_reach};
use super::open_write::{Part, Sent, Write};
use crate::engine::{Engine, Timer};
use crate::keyspace::{Durability, Policy};
use crate::message::{CallId, Message, Purpose, Refusal};
use crate::object::{self, Object};
use crate::op::{Cover, Need, OpError, Reply, WriteOptions};
use crate::outcome::Minted;
use crate::planted::Bug;
use crate::tally::{Shortfall, Tally, Verdict};
use crate::task::{Merge, Mint, Source, Task};
use crate::time::Now;
use crate::view::{View, copies};
use alloc::vec::Vec;
use gramme_ring::{NodeId, Slot};

/// How often a plain write covers what outranks it before it gives up: each round, somebody else's write
/// with a larger stamp must have come in between.
const MAX_ROUNDS: u8 = 8;

impl Engine {
    /// Starts a write for which this node is one of the coordinators.
    pub(crate) fn start_write(&mut self, now: Now, request: Request) {
        let reach = self.write_parts(&request.key, &request.options, |node| self.is_alive(node));
        if let Err(error) = reach {
            return self.answer(request.origin, Reply::Failed(error));
        }
        if self.config.planted.is(Bug::NothingIsWritten) {
            return self
                .answer(request.origin, Reply::Failed(OpError::Quorum { need: Need::W, have: 0, want: 2 }));
        }
        if !self.ready {
            return self.answer(request.origin, Reply::Failed(OpError::Unwritable));
        }
        // Those to whom nothing more should be sent count as absent.
        let takes = |node| self.is_alive(node) && !self.is_congested(node);
        let Ok(parts) = self.write_parts(&request.key, &request.options, takes) else {
            return self.hold_write(now, request);
        };
        // Where the last write wins it has to outrank what any replica has, whatever it covers.
        let plain = match request.cover {
            Cover::Held => true,
            Cover::Amends(_) => false,
            Cover::Nothing | Cover::Context(_) => self.rules(&request.key).policy == Policy::Lww,
        };
        let durability = match request.options.dw {
            Some(_) if !self.config.planted.is(Bug::DwIgnored) => Durability::Group,
            _ => match self.rules(&request.key).durability {
                Durability::One if self.config.planted.is(Bug::OneNeverNow) => Durability::Interval,
                durability => durability,
            },
        };
        let write = Write {
            origin: Some(request.origin),
            key: request.key,
            content: request.content,
            expiry: request.expiry,
            plain,
            durability,
            options: request.options,
            commit: self.view.membership().commit_hash(),
            parts,
            sent: None,
            asked_again: Vec::new(),
            hinted_here: Vec::new(),
            outranking: None,
            uncertain: false,
            overloaded: false,
            weighs: 0,
            lingers: 0,
            began: now.instant,
            deadline: request.deadline,
            patience: now.instant,
            round: 0,
        };
        self.begin_round(now, write, request.cover, request.also);
    }

    /// The quorums of a write, none of them out of reach.
    fn write_parts(
        &self,
        key: &[u8],
        options: &WriteOptions,
        takes: impl Fn(NodeId) -> bool,
    ) -> Result<Vec<Part>, OpError> {
        let mut parts = Vec::new();
        let skipped = self.config.planted.is(Bug::NewLayoutOnly) && self.view.transition().is_some();
        for layout in self.view.writing().skip(usize::from(skipped)) {
            let needs = self.write_needs(key, options, copies(layout))?;
            let plan = View::plan(layout, Slot::of(key), &takes);
            if let Some(Shortfall { need, have, want }) = out_of_reach(&plan, needs) {
                return Err(OpError::Quorum { need, have, want });
            }
            parts.push(Part { plan, tally: Tally::new(needs), hinted: 0 });
        }
        if parts.is_empty() {
            return Err(OpError::Quorum { need: Need::W, have: 0, want: 1 });
        }
        Ok(parts)
    }

    fn begin_round(&mut self, now: Now, mut write: Write, cover: Cover, also: Option<Object>) {
        let call = self.out.call();
        for part in &mut write.parts {
            for target in &part.plan.targets {
                part.tally.ask(target.node, target.stands_for);
            }
        }
        // A coordinator that is a fallback itself keeps a hint like any other.
        let mut hints = write.hints(self.config.node);
        hints.retain(|owner| !self.view.membership().is_removed(*owner));
        if !hints.is_empty() {
            self.spare(now, &write.key);
        }
        let sync = write.sync(self.config.node);
        let also_bytes = also.as_ref().map_or(0, object::weigh_all);
        write.hinted_here.clone_from(&hints);
        let mint =
            Mint { call, content: write.content.clone(), expiry: write.expiry, cover, also, hints, sync };
        write.patience = now.instant + self.config.timing.patience;
        self.timers.insert((write.patience, Timer::WritePatience(call)));
        self.timers.insert((write.deadline, Timer::WriteDeadline(call)));
        let key = write.key.clone();
        write.weighs = write.bytes() + also_bytes;
        self.open_bytes += write.weighs;
        self.writes.insert(call, write);
        self.replica.start(&mut self.out, &key, Task::Mint(mint));
    }

    pub(crate) fn write_refused_here(&mut self, call: CallId, error: OpError) {
        // In a later round something is out already.
        if let Some(mut write) = self.remove_write(call) {
            let error = if write.round == 0 { error } else { indeterminate(write.shortfall()) };
            self.finish_write(&mut write, Reply::Failed(error));
        }
    }

    /// The dot is minted and the local append is under way: send it to the others.
    pub(crate) fn write_minted(&mut self, now: Now, minted: Minted) {
        let Minted { call, object, encoded, context, rank, replaced, held } = minted;
        let Some(write) = self.writes.get_mut(&call) else { return };
        let replaced = replaced || write.sent.as_ref().is_some_and(|s| s.replaced);
        write.sent = Some(Sent { object, encoded, context, rank, replaced });
        self.weigh_write(call);
        let Some(write) = self.writes.get_mut(&call) else { return };
        // Who was lost before is counted out, and surely did nothing; somebody else stands in.
        let mut asked = write.targets();
        asked.retain(|node| write.is_waiting_for(*node));
        for node in asked {
            self.send_write(now, call, node);
        }
        if held {
            self.hint_uncovered(now, call);
        } else {
            self.write_failed(now, call, self.config.node, false);
        }
    }

    /// Counts what a write takes by now, until it is answered.
    fn weigh_write(&mut self, call: CallId) {
        if let Some(write) = self.writes.get_mut(&call).filter(|write| write.is_open()) {
            let bytes = write.bytes();
            self.open_bytes = self.open_bytes + bytes - core::mem::replace(&mut write.weighs, bytes);
        }
    }

    fn send_write(&mut self, now: Now, call: CallId, node: NodeId) {
        let hints = self.writes.get(&call).map_or_else(Vec::new, |write| write.hints(node));
        self.send_write_with(now, call, node, hints);
    }

    fn send_write_with(&mut self, now: Now, call: CallId, node: NodeId, hints: Vec<NodeId>) {
        let Some(write) = self.writes.get(&call) else { return };
        let Some(sent) = &write.sent else { return };
        if node == self.config.node {
            return self.hint_beside(now, call, hints);
        }
        self.out.send(
            node,
            Message::Write {
                sync: write.sync(node),
                call,
                layout: self.view.version(),
                purpose: Purpose::Write,
                key: write.key.clone(),
                object: sent.encoded.clone(),
                hints,
                outranked_by: write.plain.then_some(sent.rank),
            },
        );
    }

    /// This node's copy is in the log already, and now it stands in for these owners as well: it stores hints, which are
    /// acknowledged like those of any other fallback.
    fn hint_beside(&mut self, now: Now, call: CallId, mut hints: Vec<NodeId>) {
        let Some(write) = self.writes.get(&call) else { return };
        hints
            .retain(|owner| !write.hinted_here.contains(owner) && !self.view.membership().is_removed(*owner));
        let Some(sent) = write.sent.as_ref().filter(|_| !hints.is_empty()) else { return };
        let source = Source::Peer(self.config.node, call, write.sync(self.config.node));
        let merge = Merge { source, object: sent.object.clone(), outranked_by: None, hints, heals: false };
        let key = write.key.clone();
        self.spare(now, &key);
        self.replica.start(&mut self.out, &key, Task::Merge(merge));
    }

    /// The copy here is, with the hints that came with its dot.
    pub(crate) fn write_minted_durably(&mut self, now: Now, call: CallId) {
        if let Some(write) = self.writes.get(&call) {
            let hints = write.hinted_here.clone();
            self.write_acknowledged(now, call, self.config.node, &hints, None);
        }
    }

    /// A replica holds the write, as durably as was asked for, and for these owners a hint.
    pub(crate) fn write_acknowledged(
        &mut self,
        now: Now,
        call: CallId,
        mut from: NodeId,
        hints: &[NodeId],
        outranking: Option<Object>,
    ) {
        // Before it is sent nobody has it, whatever a peer says.
        let Some(write) = self.writes.get_mut(&call).filter(|write| write.sent.is_some()) else { return };
        if self.config.planted.is(Bug::RepeatedAckCounts) && !write.is_waiting_for(from) {
            from = NodeId(!from.0);
            write.parts.iter_mut().for_each(|part| part.tally.ask(from, None));
        }
        // What it was asked first it has done: what it refuses from now on is what it was asked besides.
        write.asked_again.retain(|asked| *asked != from);
        // An acknowledgement of the copy as an owner says nothing of a hint that the same node was asked for later. For who was
        // removed there are none.
        let membership = self.view.membership();
        let is_kept = |owner: NodeId| hints.contains(&owner) || membership.is_removed(owner);
        let is_told = |part: &Part| part.plan.target(from).and_then(|t| t.stands_for).is_none_or(is_kept);
        let parts = write.parts.iter_mut().filter(|part| is_told(part));
        let news = parts.fold(false, |news, part| part.tally.yes(from) | news);
        if !news {
            return;
        }
        let by_default = self.config.planted.is(Bug::OutrankingByDefault) && write.options.pw.is_none();
        if let Some(more) =
            outranking.filter(|_| !self.config.planted.is(Bug::OutrankingIgnored) && !by_default)
        {
            let Ok(_) = write.outranking.get_or_insert_default().merge(more);
            self.weigh_write(call);
        }
        self.advance_write(now, call);
    }

    /// A replica did not take the write (`certain`: and surely never will have), or can't be asked any more.
    pub(crate) fn write_failed(&mut self, now: Now, call: CallId, node: NodeId, uncertain: bool) {
        let Some(write) = self.writes.get_mut(&call) else { return };
        let news = write.parts.iter_mut().fold(false, |news, part| part.tally.no(node) | news);
        if !news {
            return;
        }
        write.uncertain |= uncertain && write.sent.is_some();
        self.replace_target(now, call, node);
        self.advance_write(now, call);
    }

    pub(crate) fn write_refused(&mut self, now: Now, call: CallId, node: NodeId, why: Refusal) {
        let Some(write) = self.writes.get_mut(&call) else { return };
        write.overloaded |= why == Refusal::Overloaded;
        if let Some(at) = write.asked_again.iter().position(|asked| *asked == node) {
            write.asked_again.swap_remove(at);
            return;
        }
        self.write_failed(now, call, node, false);
    }

    /// Asks fallbacks in place of `node`, or leaves hints here.
    fn replace_target(&mut self, now: Now, call: CallId, node: NodeId) {
        let Some(write) = self.writes.get_mut(&call) else { return };
        let mut open = write.targets();
        open.retain(|node| write.is_waiting_for(*node));
        let mut asked = Vec::new();
        for part in &mut write.parts {
            if let Some(target) = part.plan.substitute(node) {
                let twice = self.config.planted.is(Bug::StandInCountsTwice);
                part.tally.ask(target.node, target.stands_for.filter(|_| !twice));
                if !asked.contains(&target.node) {
                    asked.push(target.node);
                }
            }
        }
        // By the other layout it was asked before. It may refuse that, and take this: its last refusal counts.
        let again = asked.iter().filter(|node| open.contains(node) && write.sent.is_some());
        write.asked_again.extend(again);
        for node in asked {
            self.send_write(now, call, node);
        }
        self.hint_uncovered(now, call);
    }

    /// Writes the hints for which no fallback is left: this node's own copy serves them. One that it has as a fallback may have served
    /// already, and gone: then it is stored anew. If it is this node that has no copy, another is asked to keep a hint for it.
    fn hint_uncovered(&mut self, now: Now, call: CallId) {
        let Some(write) = self.writes.get_mut(&call) else { return };
        if write.sent.is_none() || self.config.planted.is(Bug::NoHintWithoutFallback) {
            return;
        }
        let key = write.key.clone();
        let mut owners: Vec<NodeId> = Vec::new();
        for part in &mut write.parts {
            owners.extend(part.plan.uncovered.iter().skip(part.hinted));
            part.hinted = part.plan.uncovered.len();
        }
        owners.sort_unstable();
        owners.dedup();
        for owner in owners {
            if owner != self.config.node && !self.view.is_owner(Slot::of(&key), self.config.node) {
                self.hint_beside(now, call, Vec::from([owner]));
            } else if owner != self.config.node {
                self.keep_hint(now, owner, &key);
            } else if let Some(other) = self.other_target(call) {
                // Here, too, its last refusal counts.
                if let Some(write) = self.writes.get_mut(&call)
                    && write.is_waiting_for(other)
                {
                    write.asked_again.push(other);
                }
                self.send_write_with(now, call, other, Vec::from([owner]));
            }
        }
    }

    /// Somebody else who holds the write, or may: nobody who has refused it.
    fn other_target(&self, call: CallId) -> Option<NodeId> {
        let write = self.writes.get(&call)?;
        let may_hold =
            |node| write.parts.iter().any(|p| p.tally.has_agreed(node) || p.tally.is_waiting_for(node));
        let mut others = write.targets();
        others.retain(|node| *node != self.config.node && self.is_alive(*node) && may_hold(*node));
        others.first().copied()
    }

    fn advance_write(&mut self, now: Now, call: CallId) {
        let Some(write) = self.writes.get_mut(&call) else { return };
        if write.origin.is_some() {
            match write.verdict() {
                Verdict::Pending => return,
                Verdict::Met if write.outranking.is_some() && write.round < MAX_ROUNDS => {
                    return self.repeat_write(now, call);
                }
                Verdict::Met if write.outranking.is_some() => {
                    let error = indeterminate(write.shortfall());
                    self.reply_write(call, Reply::Failed(error));
                }
                Verdict::Met => {
                    let sent = write.sent.as_ref().expect("nobody acknowledges what was not sent");
                    let replaced = sent.replaced || self.config.planted.is(Bug::ReplacedLies);
                    let reply = Reply::Written { context: sent.context.clone(), replaced };
                    self.admission.saw(now.instant, now.instant.since(write.began));
                    self.reply_write(call, reply);
                }
                Verdict::Impossible(shortfall) => {
                    let agreed = write.parts.iter().any(|part| part.tally.agreed() > 0);
                    // This node's own copy is in the log by now, unless that was refused: only a power cut could undo it.
                    let kept = write.sent.is_some() && write.is_waiting_for(self.config.node);
                    let nothing = !agreed && !kept && !write.uncertain && write.round == 0;
                    if nothing && write.is_waiting() {
                        // If the rest refuse too, the failure is a definite one: worth the wait.
                        return;
                    }
                    let error = match nothing {
                        true if write.overloaded => OpError::Overloaded,
                        true => OpError::Unwritable,
                        false => indeterminate(shortfall),
                    };
                    self.reply_write(call, Reply::Failed(error));
                }
            }
        }
        let Some(write) = self.writes.get_mut(&call).filter(|write| !write.is_open()) else { return };
        if !write.is_waiting() {
            self.remove_write(call);
        } else if write.lingers == 0 {
            write.lingers = write.bytes();
            self.open_bytes -= core::mem::take(&mut write.weighs);
            self.lingering_writes.set(0, write.lingers);
            self.bound_lingering_writes(now);
        }
    }

    pub(super) fn remove_write(&mut self, call: CallId) -> Option<Write> {
        let write = self.writes.remove(&call)?;
        self.lingering_writes.set(write.lingers, 0);
        self.open_bytes -= write.weighs;
        self.timers.remove(&(write.patience, Timer::WritePatience(call)));
        self.timers.remove(&(write.deadline, Timer::WriteDeadline(call)));
        Some(write)
    }

    /// Acknowledgements showed siblings that outrank this plain write: cover them and write again, so that
    /// the client's next read can't show an older value (DESIGN, data model).
    fn repeat_write(&mut self, now: Now, call: CallId) {
        let Some(mut write) = self.remove_write(call) else { return };
        let mut also = write.outranking.take().unwrap_or_default();
        // What the first round has made is no copy of what the second will make: until that is minted there is nothing to be sent.
        if let Some(sent) = write.sent.take() {
            let Ok(_) = also.merge(sent.object);
        }
        write.round += 1;
        write.asked_again.clear();
        write.uncertain = true;
        let takes = |node| self.is_alive(node) && !self.is_congested(node);
        match self.write_parts(&write.key, &write.options, takes) {
            Ok(parts) if self.plan(&write.key).target(self.config.node).is_some() => {
                (write.commit, write.parts) = (self.view.membership().commit_hash(), parts);
            }
            _ => {
                let error = indeterminate(write.shortfall());
                return self.finish_write(&mut write, Reply::Failed(error));
            }
        }
        self.begin_round(now, write, Cover::Held, Some(also));
    }

    /// Who has not answered by now gets a stand-in, or a hint; their late answers still count.
    pub(crate) fn write_patience(&mut self, now: Now, call: CallId) {
        let Some(write) = self.writes.get(&call) else { return };
        let silent = write.targets().into_iter().filter(|node| write.is_waiting_for(*node));
        let silent: Vec<NodeId> = silent.collect();
        let asked = |write: &Write| write.parts.iter().map(|part| part.plan.targets.len()).sum::<usize>();
        let before = asked(write);
        for node in silent {
            self.replace_target(now, call, node);
        }
        let Some(write) = self.writes.get_mut(&call) else { return };
        if write.origin.is_none() && asked(write) == before {
            // Answered, and hinted where it is missing: nothing is left to wait for.
            self.remove_write(call);
        } else {
            self.timers.remove(&(write.patience, Timer::WritePatience(call)));
            write.patience = now.instant + self.config.timing.patience;
            self.timers.insert((write.patience, Timer::WritePatience(call)));
        }
    }

    /// Ends a write that is answered, and is minted no more if it was not yet: who has not taken it by now gets a hint here, beside this node's copy. Where that is missing a
    /// fallback is asked, and not waited for.
    pub(crate) fn end_lingering_write(&mut self, now: Now, call: CallId) {
        let me = self.config.node;
        let Some(write) = self.writes.get_mut(&call) else { return };
        let here = write.parts.iter().any(|part| part.tally.has_agreed(me) || part.tally.is_waiting_for(me));
        for part in write.parts.iter_mut().filter(|_| here) {
            part.plan.spares.clear();
        }
        if !self.config.planted.is(Bug::CutShortWithoutHint) {
            self.write_patience(now, call);
        }
        self.remove_write(call);
    }

    pub(crate) fn write_deadline(&mut self, now: Now, call: CallId) {
        let Some(write) = self.writes.get(&call) else { return };
        if write.is_open() {
            self.admission.saw(now.instant, now.instant.since(write.began));
            // Even if nothing is out yet: who is told so may rely on nothing.
            let error = indeterminate(write.shortfall());
            self.reply_write(call, Reply::Failed(error));
        }
        self.end_lingering_write(now, call);
    }

    /// Everything that waits for this node counts it out.
    pub(crate) fn writes_lost_peer(&mut self, now: Now, node: NodeId) {
        let calls: Vec<CallId> =
            self.writes.iter().filter(|(_, w)| w.is_waiting_for(node)).map(|(c, _)| *c).collect();
        for call in calls {
            self.write_failed(now, call, node, !self.config.planted.is(Bug::LostPeerIsNo));
        }
    }

    fn reply_write(&mut self, call: CallId, reply: Reply) {
        if let Some(origin) = self.writes.get_mut(&call).and_then(|w| w.origin.take()) {
            self.answer(origin, reply);
        }
    }

    fn finish_write(&mut self, write: &mut Write, reply: Reply) {
        if let Some(origin) = write.origin.take() {
            self.answer(origin, reply);
        }
    }
}
