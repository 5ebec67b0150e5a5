//! Writes: mint a dot here, send the object to the other replicas, answer when W of them hold it.

use super::{Origin, Plan, Target};
use crate::engine::{Engine, Timer};
use crate::message::{CallId, Message, Purpose, Refusal};
use crate::object::{Content, Object, Rank};
use crate::op::{Cover, Expiry, Level, Need, OpError, Reply, WriteOptions};
use crate::replica::{Mint, Minted, Task};
use crate::tally::{Shortfall, Tally, Verdict};
use crate::time::{Instant, Now};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bytes::Bytes;
use gramme_ring::NodeId;
use gramme_vclock::GrowableContext as Context;

/// How often a plain write covers what outranks it before it gives up: each round, somebody else's write
/// with a larger stamp must have come in between.
const MAX_ROUNDS: u8 = 8;

/// Bytes of writes that wait until replicas take messages again.
const MAX_HELD: usize = 64 << 20;

/// A write being coordinated here. It lives on after its answer until every replica has it or has a hint.
#[derive(Debug)]
pub(crate) struct Write {
    /// Taken when it is answered.
    origin: Option<Origin>,
    key: Bytes,
    content: Content,
    expiry: Option<Expiry>,
    plain: bool,
    needs: [(Need, u8); 2],
    plan: Plan,
    tally: Tally,
    sent: Option<Sent>,
    /// Siblings that a plain write must cover before it may be acknowledged.
    outranking: Option<Object>,
    /// Owners for which this node has written a hint.
    hinted: usize,
    /// Some replica may have written it without telling.
    uncertain: bool,
    deadline: Instant,
    patience: Instant,
    round: u8,
}

impl Request {
    fn size(&self) -> usize {
        let value = match &self.content {
            Content::Value { bytes, .. } => bytes.len(),
            Content::Tombstone => 0,
        };
        self.key.len() + value
    }
}

/// The write as it went out.
#[derive(Debug)]
struct Sent {
    object: Object,
    encoded: Bytes,
    context: Context,
    rank: Rank,
    replaced: bool,
}

/// A write before it has a plan.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) origin: Origin,
    pub(crate) key: Bytes,
    pub(crate) content: Content,
    pub(crate) expiry: Option<Expiry>,
    pub(crate) cover: Cover,
    pub(crate) options: WriteOptions,
    /// What a read before it has shown.
    pub(crate) also: Option<Object>,
    pub(crate) deadline: Instant,
}

impl Engine {
    /// Starts a write for which this node is one of the coordinators.
    pub(crate) fn start_write(&mut self, now: Now, request: Request) {
        let needs = match self.write_needs(&request.options) {
            Ok(needs) => needs,
            Err(error) => return self.answer(request.origin, Reply::Failed(error)),
        };
        if let Some(Shortfall { need, have, want }) = out_of_reach(&self.plan(&request.key), needs) {
            return self.answer(request.origin, Reply::Failed(OpError::Quorum { need, have, want }));
        }
        if !self.ready {
            return self.answer(request.origin, Reply::Failed(OpError::Unwritable));
        }
        let plan = self.write_plan(&request.key);
        debug_assert!(plan.target(self.config.node).is_some(), "only a coordinator starts a write");
        if out_of_reach(&plan, needs).is_some() {
            let size = request.size();
            if self.held_bytes + size > self.config.limits.object().max(MAX_HELD) {
                return self.answer(request.origin, Reply::Failed(OpError::Overloaded));
            }
            self.held_bytes += size;
            self.timers.insert((request.deadline, Timer::Held));
            return self.held.push_back(request);
        }
        let write = Write {
            origin: Some(request.origin),
            key: request.key,
            content: request.content,
            expiry: request.expiry,
            plain: request.cover == Cover::Held,
            needs,
            tally: Tally::new(needs),
            plan,
            sent: None,
            outranking: None,
            hinted: 0,
            uncertain: false,
            deadline: request.deadline,
            patience: now.instant,
            round: 0,
        };
        self.begin_round(now, write, request.cover, request.also);
    }

    /// A replica takes messages again, or is gone: writes that waited for that are looked at once more.
    pub(crate) fn release_held(&mut self, now: Now) {
        self.held_bytes = 0;
        for request in core::mem::take(&mut self.held) {
            if self.plan(&request.key).target(self.config.node).is_some() {
                self.start_write(now, request);
            } else {
                self.answer(request.origin, Reply::Failed(OpError::Overloaded));
            }
        }
    }

    /// Those whose time is up have done nothing.
    pub(crate) fn expire_held(&mut self, now: Now) {
        let (late, held) =
            core::mem::take(&mut self.held).into_iter().partition(|r| r.deadline <= now.instant);
        self.held = held;
        self.held_bytes = self.held.iter().map(Request::size).sum();
        let late: VecDeque<Request> = late;
        for request in late {
            self.answer(request.origin, Reply::Failed(OpError::Overloaded));
        }
    }

    fn begin_round(&mut self, now: Now, mut write: Write, cover: Cover, also: Option<Object>) {
        let call = self.out.call();
        for target in &write.plan.targets {
            write.tally.ask(target.node, target.stands_for);
        }
        // A coordinator that is a fallback itself keeps a hint like any other.
        let stands_for = write.plan.target(self.config.node).and_then(|t| t.stands_for);
        let mint = Mint {
            call,
            content: write.content.clone(),
            expiry: write.expiry,
            cover,
            also,
            hint: stands_for,
        };
        if stands_for.is_some() {
            self.forgetting.remove(&write.key);
        }
        write.patience = now.instant + self.config.timing.patience;
        self.timers.insert((write.patience, Timer::WritePatience(call)));
        self.timers.insert((write.deadline, Timer::WriteDeadline(call)));
        let key = write.key.clone();
        self.writes.insert(call, write);
        self.replica.start(&mut self.out, &key, Task::Mint(mint));
    }

    pub(crate) fn write_refused_here(&mut self, call: CallId, error: OpError) {
        // In a later round something is out already.
        if let Some(mut write) = self.remove_write(call) {
            let error = if write.round == 0 { error } else { indeterminate(write.tally.shortfall()) };
            self.finish_write(&mut write, Reply::Failed(error));
        }
    }

    /// The dot is minted and the local append is under way: send it to the others.
    pub(crate) fn write_minted(&mut self, now: Now, minted: Minted) {
        let Minted { call, object, encoded, context, rank, replaced, held } = minted;
        let Some(write) = self.writes.get_mut(&call) else { return };
        let replaced = replaced || write.sent.as_ref().is_some_and(|s| s.replaced);
        write.sent = Some(Sent { object, encoded, context, rank, replaced });
        let targets = write.plan.targets.clone();
        for target in targets {
            self.send_write(call, target);
        }
        if held {
            self.hint_uncovered(now, call);
        } else {
            self.write_failed(now, call, self.config.node, false);
        }
    }

    fn send_write(&mut self, call: CallId, target: Target) {
        let Some(write) = self.writes.get(&call) else { return };
        let Some(sent) = &write.sent else { return };
        if target.node == self.config.node {
            return;
        }
        self.out.send(
            target.node,
            Message::Write {
                call,
                layout: self.layout.version(),
                purpose: Purpose::Write,
                key: write.key.clone(),
                object: sent.encoded.clone(),
                hint: target.stands_for,
                outranked_by: write.plain.then_some(sent.rank),
            },
        );
    }

    /// A replica holds the write durably.
    pub(crate) fn write_acknowledged(
        &mut self,
        now: Now,
        call: CallId,
        from: NodeId,
        outranking: Option<Object>,
    ) {
        let Some(write) = self.writes.get_mut(&call) else { return };
        if !write.tally.yes(from) {
            return;
        }
        if let Some(more) = outranking {
            let Ok(_) = write.outranking.get_or_insert_default().merge(more);
        }
        self.advance_write(now, call);
    }

    /// A replica did not take the write (`certain`: and surely never will have), or can't be asked any more.
    pub(crate) fn write_failed(&mut self, now: Now, call: CallId, node: NodeId, uncertain: bool) {
        let Some(write) = self.writes.get_mut(&call) else { return };
        if !write.tally.no(node) {
            return;
        }
        write.uncertain |= uncertain && write.sent.is_some();
        self.replace_target(now, call, node);
        self.advance_write(now, call);
    }

    pub(crate) fn write_refused(&mut self, now: Now, call: CallId, node: NodeId, _why: Refusal) {
        self.write_failed(now, call, node, false);
    }

    /// Asks a fallback in place of `node`, or leaves a hint here.
    fn replace_target(&mut self, now: Now, call: CallId, node: NodeId) {
        let Some(write) = self.writes.get_mut(&call) else { return };
        match write.plan.substitute(node) {
            Some(target) => {
                write.tally.ask(target.node, target.stands_for);
                self.send_write(call, target);
            }
            None => self.hint_uncovered(now, call),
        }
    }

    /// Writes the hints for which no fallback is left: this node's own copy serves them.
    fn hint_uncovered(&mut self, now: Now, call: CallId) {
        let Some(write) = self.writes.get_mut(&call) else { return };
        if write.sent.is_none() {
            return;
        }
        let key = write.key.clone();
        let owners: Vec<NodeId> = write.plan.uncovered.iter().skip(write.hinted).copied().collect();
        write.hinted += owners.len();
        for owner in owners {
            if owner != self.config.node {
                self.keep_hint(now, owner, &key);
            }
        }
    }

    fn advance_write(&mut self, now: Now, call: CallId) {
        let Some(write) = self.writes.get_mut(&call) else { return };
        if write.origin.is_some() {
            match write.tally.verdict() {
                Verdict::Pending => return,
                Verdict::Met if write.outranking.is_some() && write.round < MAX_ROUNDS => {
                    return self.repeat_write(now, call);
                }
                Verdict::Met if write.outranking.is_some() => {
                    let error = indeterminate(write.tally.shortfall());
                    self.reply_write(call, Reply::Failed(error));
                }
                Verdict::Met => {
                    let sent = write.sent.as_ref().expect("nobody acknowledges what was not sent");
                    let reply = Reply::Written { context: sent.context.clone(), replaced: sent.replaced };
                    self.reply_write(call, reply);
                }
                Verdict::Impossible(shortfall) => {
                    let nothing = write.tally.agreed() == 0 && !write.uncertain && write.round == 0;
                    if nothing && write.tally.waiting().next().is_some() {
                        // If the rest refuse too, the failure is a definite one: worth the wait.
                        return;
                    }
                    let error = if nothing { OpError::Unwritable } else { indeterminate(shortfall) };
                    self.reply_write(call, Reply::Failed(error));
                }
            }
        }
        let done =
            self.writes.get(&call).is_some_and(|w| w.origin.is_none() && w.tally.waiting().next().is_none());
        if done {
            self.remove_write(call);
        }
    }

    fn remove_write(&mut self, call: CallId) -> Option<Write> {
        let write = self.writes.remove(&call)?;
        self.timers.remove(&(write.patience, Timer::WritePatience(call)));
        self.timers.remove(&(write.deadline, Timer::WriteDeadline(call)));
        Some(write)
    }

    /// Acknowledgements showed siblings that outrank this plain write: cover them and write again, so that
    /// the client's next read can't show an older value (DESIGN, data model).
    fn repeat_write(&mut self, now: Now, call: CallId) {
        let Some(mut write) = self.remove_write(call) else { return };
        let mut also = write.outranking.take().unwrap_or_default();
        if let Some(sent) = &write.sent {
            let Ok(_) = also.merge(sent.object.clone());
        }
        write.round += 1;
        write.plan = self.write_plan(&write.key);
        write.tally = Tally::new(write.needs);
        write.hinted = 0;
        write.uncertain = true;
        if write.plan.target(self.config.node).is_none() {
            let error = indeterminate(write.tally.shortfall());
            return self.finish_write(&mut write, Reply::Failed(error));
        }
        self.begin_round(now, write, Cover::Held, Some(also));
    }

    /// Who has not answered by now gets a stand-in, or a hint; their late answers still count.
    pub(crate) fn write_patience(&mut self, now: Now, call: CallId) {
        let Some(write) = self.writes.get(&call) else { return };
        let silent: Vec<NodeId> = write.tally.waiting().collect();
        let asked = write.plan.targets.len();
        for node in silent {
            self.replace_target(now, call, node);
        }
        let Some(write) = self.writes.get_mut(&call) else { return };
        if write.origin.is_none() && write.plan.targets.len() == asked {
            // Answered, and hinted where it is missing: nothing is left to wait for.
            self.remove_write(call);
        } else {
            write.patience = now.instant + self.config.timing.patience;
            self.timers.insert((write.patience, Timer::WritePatience(call)));
        }
    }

    pub(crate) fn write_deadline(&mut self, now: Now, call: CallId) {
        self.write_patience(now, call);
        if let Some(mut write) = self.remove_write(call) {
            // Even if nothing is out yet, the mint may still be waiting for its load.
            let error = indeterminate(write.tally.shortfall());
            self.finish_write(&mut write, Reply::Failed(error));
        }
    }

    /// Everything that waits for this node counts it out.
    pub(crate) fn writes_lost_peer(&mut self, now: Now, node: NodeId) {
        let calls: Vec<CallId> =
            self.writes.iter().filter(|(_, w)| w.tally.is_waiting_for(node)).map(|(c, _)| *c).collect();
        for call in calls {
            self.write_failed(now, call, node, true);
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

    fn write_needs(&self, options: &WriteOptions) -> Result<[(Need, u8); 2], OpError> {
        let replicas = self.replicas();
        let resolve = |need, level: Option<Level>, default: u8| match level {
            None => Ok(default.min(replicas)),
            Some(level) => level.resolve(replicas).ok_or(OpError::Level { need, replicas }),
        };
        let w = resolve(Need::W, options.w, self.config.w)?;
        let pw = resolve(Need::Pw, options.pw, 0)?;
        // Every acknowledgement is durable, so DW only asks for more of them.
        let dw = resolve(Need::Dw, options.dw, 0)?;
        Ok([if dw > w { (Need::Dw, dw) } else { (Need::W, w) }, (Need::Pw, pw)])
    }
}

/// What can't be met even if every healthy node agrees.
pub(crate) fn out_of_reach(plan: &Plan, needs: [(Need, u8); 2]) -> Option<Shortfall> {
    let reach = [plan.targets.len(), plan.primaries()].map(|n| u8::try_from(n).unwrap_or(u8::MAX));
    let mut short = needs.into_iter().zip(reach).filter(|((_, want), have)| have < want);
    short.next().map(|((need, want), have)| Shortfall { need, have, want })
}

const fn indeterminate(Shortfall { need, have, want }: Shortfall) -> OpError {
    OpError::Indeterminate { need, have, want }
}
