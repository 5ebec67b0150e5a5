//! Requests: each ends once, by its deadline, and a failure that says "nothing was done" is believed.

use super::{Checker, Invariant, OpId};
use crate::time::Time;
use core::time::Duration;
use gramme_quorum::{Cover, Op, OpError, Reply};
use gramme_ring::LayoutVersion;
use gramme_vclock::{Dot, GrowableDotSet as DotSet};
use std::collections::BTreeSet;

/// What a client knows of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not answered yet.
    Open,
    /// Done.
    Ok,
    /// Surely not done.
    Failed,
    /// Perhaps done: the answer said so, or never came.
    Indeterminate,
}

/// One client request's story.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which key, by the checker's number.
    pub(super) key: usize,
    /// What was asked.
    pub op: Op,
    /// When.
    pub submitted: Time,
    /// When it must have ended.
    pub deadline: Time,
    /// How it ended.
    pub outcome: Outcome,
    /// When it ended, if it did.
    pub ended: Option<Time>,
    /// What its client was told if it was not done.
    pub(super) failure: Option<OpError>,
    /// It asked for a majority of primaries.
    pub(super) strict: bool,
    /// A strict read or plain delete: the dots of strict writes acknowledged before it began.
    pub(super) must_see: DotSet,
    /// Copies that an acknowledgement stands for, as its coordinator sees it.
    pub(super) copies: u8,
    /// Owners that a read asks for, or a plain delete, as its coordinator sees it.
    pub(super) r: u8,
    /// The largest N since it began.
    pub(super) most: u8,
    /// Nodes that have been back on an old disk since it began, without having heard of it, a bit each.
    pub(super) unaware: u128,
    /// The layout as it began, and how many owners by it had nothing durable of the key.
    pub(super) absent: Option<(LayoutVersion, u8)>,
    /// The same by each layout that some node went by then, by its hash.
    pub(super) absences: Vec<(u64, u8)>,
    /// By the same layouts, of writes acknowledged before it began: how many copies that may count for a read had nothing of them.
    pub(super) lacking: Vec<Lacking>,
    /// Between these was the clock of whoever answers it.
    pub(super) walls: (u64, u64),
    /// What who decided on it may have had without its value.
    pub(super) given_back: BTreeSet<Dot>,
}

/// By the layout with this hash: the owners, and of some dots how many owners had not got them durably, how many others had a copy without
/// them, and which owners had them, a bit each.
#[derive(Clone, Debug)]
pub(super) struct Lacking {
    pub(super) layout: u64,
    pub(super) owners: Vec<usize>,
    pub(super) dots: Vec<(Dot, u8, u8, u128)>,
}

impl Request {
    /// Whether it is a plain overwrite or delete.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        matches!(&self.op, Op::Put { cover: Cover::Held, .. } | Op::Delete { cover: Cover::Held, .. })
    }

    /// The context that it was given.
    #[must_use]
    pub const fn context(&self) -> Option<&DotSet> {
        match &self.op {
            Op::Put { cover: Cover::Context(c) | Cover::Amends(c), .. }
            | Op::Delete { cover: Cover::Context(c) | Cover::Amends(c), .. } => Some(&c.seen),
            _ => None,
        }
    }
}

impl Checker {
    /// A client sends a request, to end within `limit`.
    pub fn submitted(&mut self, now: Time, op: Op, limit: Duration) -> OpId {
        let id = OpId(self.requests.len() as u64);
        let key = self.key_number(op.key());
        // A node that writes down something of the cluster takes it later, and unseen.
        let value = if let Op::Put { value, .. } = &op { value.len() } else { 0 };
        self.longest = self.longest.max(op.key().len() + value);
        let majority = self.replicas.0 / 2 + 1;
        let primaries = match &op {
            Op::Get { options, .. } => options.pr,
            Op::Put { options, .. } | Op::Delete { options, .. } => options.pw,
        };
        let strict = primaries.is_some_and(|level| self.resolve(level) >= majority);
        // Whoever coordinates it says what it goes by.
        let founding = self.founding.quorum(&op, 0, self.replicas.0);
        let sees = matches!(&op, Op::Get { .. } | Op::Delete { cover: Cover::Held, .. });
        let request = Request {
            key,
            submitted: now,
            deadline: now + limit,
            outcome: Outcome::Open,
            ended: None,
            failure: None,
            strict,
            must_see: if strict && sees { self.keys[key].strict_done.clone() } else { DotSet::new() },
            copies: founding.w,
            r: founding.r,
            most: self.replicas.1,
            unaware: self.unaware,
            absent: None,
            absences: Vec::new(),
            lacking: Vec::new(),
            walls: (0, u64::MAX),
            given_back: BTreeSet::new(),
            op,
        };
        if matches!(request.op, Op::Delete { .. }) {
            self.keys[key].deletes.push(id);
        }
        // From now on anything in its context may go.
        if let Some(context) = request.context() {
            self.keys[key].cover(id, |dot| context.contains(dot));
        }
        self.requests.push(request);
        self.waiting.insert(id);
        id
    }

    /// The answer came.
    pub fn replied(&mut self, now: Time, id: OpId, reply: &Reply) {
        if !self.waiting.remove(&id) {
            let what = format!("{id} was answered twice");
            return self.fail(now, Invariant::RequestsEnd, None, what);
        }
        let outcome = match reply {
            Reply::Read(_) | Reply::Written { .. } => Outcome::Ok,
            Reply::Failed(error) if error.changed() || self.was_repeated(id) => Outcome::Indeterminate,
            Reply::Failed(_) => Outcome::Failed,
        };
        self.end(now, id, outcome);
        let request = &self.requests[id.index()];
        if now > request.deadline {
            let key = request.key;
            let what = format!("{id} ended {:?} late", now.since(request.deadline));
            self.fail(now, Invariant::RequestsEnd, Some(key), what);
        }
        match reply {
            Reply::Read(reading) => self.check_reading(now, id, reading),
            Reply::Written { context, .. } => self.check_written(now, id, &context.seen),
            Reply::Failed(error) => self.check_failure(now, id, error),
        }
    }

    /// The request never reached a node.
    pub fn refused(&mut self, now: Time, id: OpId) {
        if self.waiting.remove(&id) {
            self.end(now, id, Outcome::Failed);
        }
    }

    /// The node died with the request: nobody knows.
    pub fn lost(&mut self, now: Time, id: OpId) {
        if self.waiting.remove(&id) {
            self.end(now, id, Outcome::Indeterminate);
        }
    }

    /// Whatever should have ended by now has.
    pub fn check_deadlines(&mut self, now: Time) {
        let late = self.waiting.iter().find(|id| self.requests[id.index()].deadline < now).copied();
        if let Some(id) = late {
            let key = self.requests[id.index()].key;
            self.waiting.remove(&id);
            self.fail(now, Invariant::RequestsEnd, Some(key), format!("{id} was never answered"));
        }
    }

    /// The node that has this request stands still: the request may take so much longer.
    pub fn extend_deadline(&mut self, id: OpId, by: Duration) {
        let request = &mut self.requests[id.index()];
        request.deadline = request.deadline + by;
    }

    /// The node that has this request goes on shortly before this, and ends then what is late.
    pub fn ends_by(&mut self, id: OpId, at: Time) {
        let request = &mut self.requests[id.index()];
        request.deadline = request.deadline.max(at);
    }

    /// A node stands still for so long: what it has been shown it still knows then.
    pub fn stands_still(&mut self, node: usize, length: Duration) {
        self.shadows[node].slept += length;
    }

    fn end(&mut self, now: Time, id: OpId, outcome: Outcome) {
        let request = &mut self.requests[id.index()];
        request.outcome = outcome;
        request.ended = Some(now);
        let (key, delete) = (request.key, matches!(request.op, Op::Delete { .. }));
        let covers = delete || request.context().is_some();
        if outcome == Outcome::Ok && request.op.is_write() {
            self.acknowledged += 1;
        }
        // It covers nothing after all.
        if outcome == Outcome::Failed && covers {
            let lww = self.rules(key).lww;
            self.keys[key].uncover(id, lww);
        }
    }

    /// The cluster is at rest and nobody is away: a request has to be done.
    pub fn check_served(&mut self, now: Time, id: OpId, node: usize) {
        let request = &self.requests[id.index()];
        if request.outcome != Outcome::Ok {
            let what = format!(
                "at rest, {id} at node {node} is {:?}: {:?} ({:?})",
                request.outcome, request.failure, request.op
            );
            let key = request.key;
            self.fail(now, Invariant::Available, Some(key), what);
        }
    }

    fn check_failure(&mut self, now: Time, id: OpId, error: &OpError) {
        self.requests[id.index()].failure = Some(error.clone());
        let request = &self.requests[id.index()];
        let key = request.key;
        let (have, want) = match error {
            OpError::Quorum { have, want, .. } | OpError::Indeterminate { have, want, .. } => (*have, *want),
            _ => return,
        };
        let read = !request.op.is_write();
        if read && error.changed() {
            let what = format!("{id}, a read, failed as if it could have changed something");
            self.fail(now, Invariant::RequestsEnd, Some(key), what);
        } else if want > request.most || have > request.most {
            let what = format!("{id} failed with {have} of {want} replicas of {}", request.most);
            self.fail(now, Invariant::Bounds, Some(key), what);
        }
    }
}
