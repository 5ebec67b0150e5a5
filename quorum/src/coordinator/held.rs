//! Writes that wait until replicas take messages again, since W can't be met without those to whom nothing more should be sent.

use super::Origin;
use crate::engine::{Engine, Timer};
use crate::object::{Content, Object};
use crate::op::{Cover, Expiry, OpError, Reply, WriteOptions};
use crate::time::{Instant, Now};
use alloc::collections::VecDeque;
use bytes::Bytes;

/// Bytes of writes that wait.
const MAX_HELD: usize = 64 << 20;

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
    /// How long it waits for replicas, once it does.
    pub(crate) until: Option<Instant>,
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

impl Engine {
    /// Lets a write wait as long as a silent replica would be waited for, and no longer: it is told of the overload while there is
    /// time to go elsewhere.
    pub(super) fn hold_write(&mut self, now: Now, mut request: Request) {
        let patience = now.instant + self.config.timing.patience;
        let until = *request.until.get_or_insert(patience.min(request.deadline));
        let size = request.size();
        if until <= now.instant || self.held_bytes + size > self.config.limits.object().max(MAX_HELD) {
            return self.answer(request.origin, Reply::Failed(OpError::Overloaded));
        }
        self.held_bytes += size;
        self.timers.insert((until, Timer::Held));
        self.held.push_back(request);
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
        let late = |request: &Request| request.until.is_some_and(|until| until <= now.instant);
        let (late, held): (VecDeque<_>, VecDeque<_>) =
            core::mem::take(&mut self.held).into_iter().partition(late);
        self.held = held;
        self.held_bytes = self.held.iter().map(Request::size).sum();
        for request in late {
            self.answer(request.origin, Reply::Failed(OpError::Overloaded));
        }
    }
}
