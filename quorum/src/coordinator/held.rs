//! Writes that wait until replicas take messages again, since W can't be met without those to whom nothing more should be sent.

use super::Origin;
use crate::engine::{Engine, Timer};
use crate::message::CallId;
use crate::object::{self, Content, Object};
use crate::op::{Cover, Expiry, OpError, Reply, WriteOptions};
use crate::time::{Instant, Now};
use alloc::collections::BTreeMap;
use bytes::Bytes;

/// Bytes of writes that wait.
const MAX_HELD: usize = 64 << 20;

/// Writes that wait, by when their time is up.
pub(crate) type HeldWrites = BTreeMap<Until, Request>;

/// How long a write waits for replicas, and which of those that wait so long it is.
pub(crate) type Until = (Instant, CallId);

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
    /// Once it waits for replicas.
    pub(crate) until: Option<Until>,
}

impl Request {
    /// Whether it deletes whatever is there.
    pub(super) fn is_plain_delete(&self) -> bool {
        matches!((&self.content, &self.cover), (Content::Tombstone, Cover::Held))
    }

    fn size(&self) -> usize {
        self.key.len() + self.content.size() + self.also.as_ref().map_or(0, object::weigh_all)
    }
}

impl Engine {
    /// Lets a write wait as long as a silent replica would be waited for, and no longer: it is told of the overload while there is
    /// time to go elsewhere.
    pub(super) fn hold_write(&mut self, now: Now, mut request: Request) {
        let until = *request.until.get_or_insert_with(|| {
            let patience = now.instant + self.config.timing.patience;
            (patience.min(request.deadline), self.out.call())
        });
        let size = request.size();
        if until.0 <= now.instant || self.held_bytes + size > self.config.limits.object().max(MAX_HELD) {
            return self.answer(request.origin, Reply::Failed(OpError::Overloaded));
        }
        self.held_bytes += size;
        self.open_bytes += size;
        self.held.insert(until, request);
        self.arm_held();
    }

    /// One timer is for all of them. Where it comes too early, since who waited for it waits no more, it does nothing.
    fn arm_held(&mut self) {
        if let Some(((until, _), _)) = self.held.first_key_value() {
            self.timers.insert((*until, Timer::Held));
        }
    }

    /// A replica takes messages again, or is gone: writes that waited for that are looked at once more.
    pub(crate) fn release_held(&mut self, now: Now) {
        self.open_bytes -= core::mem::take(&mut self.held_bytes);
        for request in core::mem::take(&mut self.held).into_values() {
            if self.plan(&request.key).target(self.config.node).is_some() {
                self.start_write(now, request);
            } else {
                self.answer(request.origin, Reply::Failed(OpError::Overloaded));
            }
        }
    }

    /// Those whose time is up have done nothing.
    pub(crate) fn expire_held(&mut self, now: Now) {
        while let Some(first) = self.held.first_entry().filter(|first| first.key().0 <= now.instant) {
            let request = first.remove();
            self.held_bytes -= request.size();
            self.open_bytes -= request.size();
            self.answer(request.origin, Reply::Failed(OpError::Overloaded));
        }
        self.arm_held();
    }
}
