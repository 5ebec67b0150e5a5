//! Bounds: none is passed, and whoever comes up against one is told so, and nobody else.

use super::{Checker, Invariant, OpId};
use crate::time::Time;
use gramme_quorum::message::Message;
use gramme_quorum::object::weigh;
use gramme_quorum::{Limits, Object, Op, OpError, Reply, Status, wire};
use gramme_vclock::Dot;

/// What a node had in hand as a request reached it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Requests coordinated or forwarded there.
    pub requests: usize,
    /// Bytes that they take.
    pub request_bytes: usize,
    /// Operations that waited for their records.
    pub local: usize,
    /// Those that waited for a sync.
    pub unsynced: usize,
    /// Copies that were not synced, whether anybody waited for that or not.
    pub copies: usize,
    /// Bytes of values that wait for either.
    pub bytes: usize,
    /// Some peer takes nothing more.
    pub congested: bool,
}

/// Copies that may be unsynced for each operation that may wait.
const UNSYNCED: usize = 4;
/// Owners that one message asks a fallback to keep a write for: one by each layout in use.
const HINTS_AT_ONCE: usize = 2;
/// Keys that one message lists.
const PAGE: usize = 128;
/// Objects that a node's pulls merge at a time, and their ends.
const PULLED: usize = 8 * (16 + 1);

impl Checker {
    /// The nodes' bounds.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// A node has taken a request, or asks another to take it. What it answers at once it answers for a reason.
    pub fn took(&mut self, now: Time, id: OpId, before: Load, elsewhere: bool, at_once: Option<&Reply>) {
        let op = &self.requests[id.index()].op;
        let value = if let Op::Put { value, .. } = op { value.len() } else { 0 };
        // Reads need no sync.
        let waiting = before.local + if op.is_write() { before.unsynced } else { 0 };
        let heavy = before.bytes >= self.limits.local_bytes;
        let crowded =
            before.requests >= self.limits.requests || before.request_bytes >= self.limits.request_bytes;
        // Then its own copies are asked for nothing more, while others' may be.
        let hung = before.copies >= UNSYNCED * self.limits.local;
        let busy = waiting >= self.limits.local || (heavy || hung) && op.is_write();
        let full = crowded || busy;
        // Which of the bytes wait for a sync, and hold up no read, is not told.
        let excused = full || before.congested || heavy;
        let refused = matches!(at_once, Some(Reply::Failed(OpError::Overloaded)));
        let over = value > self.limits.value;
        let too_large = matches!(at_once, Some(Reply::Failed(OpError::ValueTooLarge(most))) if *most == self.limits.value as u64);
        let key = Some(self.requests[id.index()].key);
        if over != too_large {
            let what = format!("{id} has a value past the limit: {over}; it is told so: {too_large}");
            self.fail(now, Invariant::Bounds, key, what);
        } else if (crowded || busy && !elsewhere) && !refused && !over {
            let what = format!("{id} is taken by a node that has {before:?} in hand");
            self.fail(now, Invariant::Bounds, key, what);
        } else if refused && !excused {
            let what =
                format!("{id} is told that there is too much to do, at a node that has {before:?} in hand");
            self.fail(now, Invariant::Bounds, key, what);
        }
    }

    /// What a node has in hand after each thing that it does.
    pub fn check_load(&mut self, now: Time, node: usize, status: &Status) {
        let Limits { requests, request_bytes, local, handoff, .. } = self.limits;
        // Beyond those that come from outside there are the second halves of requests that were taken, and what background work has
        // under way.
        let most = local + 2 * requests + self.shadows.len() * handoff + PULLED;
        let copies = usize::from(self.widest);
        let bounds = [
            (status.requests, requests, "requests in hand"),
            // The last one may go beyond, by its own bytes and what it reads of each copy, or makes and is told of by each.
            (
                status.request_bytes,
                request_bytes + self.longest + copies * self.heaviest,
                "bytes of requests in hand",
            ),
            (status.lingering_writes, requests, "writes that linger"),
            (status.lingering_reads, requests, "reads that linger"),
            (status.unsynced, most, "operations that wait for a sync"),
        ];
        for (count, bound, what) in bounds.into_iter().filter(|(count, bound, _)| count > bound) {
            let what = format!("node {node} has {count} {what}, of at most {bound}");
            self.fail(now, Invariant::Bounds, None, what);
        }
    }

    /// A node has been sent a write by another: with too much under way for its disk it takes none.
    pub fn check_taken(&mut self, now: Time, node: usize, before: &Status, after: &Status) {
        let Limits { local, local_bytes, .. } = self.limits;
        let waiting = |status: &Status| status.local + status.unsynced;
        let behind = waiting(before) >= local
            || before.local_bytes >= local_bytes
            || before.unsynced_copies >= UNSYNCED * local;
        if behind && waiting(after) > waiting(before) {
            let what = format!(
                "node {node} takes a write of another with {} operations under way, {} bytes and {} copies not synced",
                waiting(before),
                before.local_bytes,
                before.unsynced_copies
            );
            self.fail(now, Invariant::Bounds, None, what);
        }
    }

    /// A node has been asked for its copy by another: with too many operations that wait for their records it refuses that. `refused`: it does.
    pub fn check_asked(&mut self, now: Time, node: usize, before: usize, after: usize, refused: bool) {
        if before >= self.limits.local && after > before && !refused {
            let what = format!("node {node} takes a read of another with {before} operations under way");
            self.fail(now, Invariant::Bounds, None, what);
        }
    }

    /// A node mints a version: no coordinator adds a sibling past the limit.
    pub(super) fn check_siblings(&mut self, now: Time, node: usize, number: usize, object: &Object) {
        let before = self.shadows[node].copies.get(&number).map(|copy| &copy.object);
        let had = before.map_or(0, |object| object.iter().count());
        let minted = |dot: Dot| self.born.contains(&(number, dot));
        let (mut mints, mut has) = (false, 0);
        for (dot, _) in object.iter() {
            mints |= minted(dot);
            // What a merge in the same breath has added was not there, perhaps, when it minted.
            has += usize::from(minted(dot) || before.is_some_and(|object| object.get(dot).is_some()));
        }
        // Nor can be told how many there were, of which it has replaced some.
        let news = |dot: &Dot| {
            object.seen().contains(*dot)
                && !before.is_some_and(|object| object.seen().contains(*dot))
                && !minted(*dot)
        };
        let merged = self.keys[number].dots.keys().any(news);
        let weigh = |object: &Object| object.iter().map(|(_, version)| weigh(version)).sum::<usize>();
        let most = self.limits.object().max(before.map_or(0, weigh));
        if mints && !merged && has > 1 && weigh(object) > most {
            let what = format!("node {node} adds a sibling, and there are {} bytes of {most}", weigh(object));
            self.fail(now, Invariant::Bounds, Some(number), what);
        }
        if mints && !merged && has > had.max(self.limits.siblings) {
            let what =
                format!("node {node} adds to {had} siblings, and {} are the limit", self.limits.siblings);
            self.fail(now, Invariant::Bounds, Some(number), what);
        }
    }

    /// A message is no longer than a frame, and asks for no more than it may.
    pub fn check_message(&mut self, now: Time, from: usize, message: &Message, bytes: usize) {
        let long = bytes > wire::max_frame(self.limits.value);
        let greedy = match message {
            Message::Write { hints, .. } => hints.len() > HINTS_AT_ONCE,
            Message::Listed { keys, .. } => keys.len() > PAGE,
            _ => false,
        };
        if long || greedy {
            let what = format!("node {from} sends {bytes} bytes: {message:?}");
            self.fail(now, Invariant::Bounds, None, what);
        }
    }
}
