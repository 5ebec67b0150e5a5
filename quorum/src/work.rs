//! One key's record between its load and its append.

use crate::journal::Weight;
use crate::message::Syncing;
use crate::object::{self, Object};
use crate::outcome::{Event, Held, Waiting};
use alloc::boxed::Box;
use alloc::vec::Vec;
use bytes::Bytes;
use gramme_ring::NodeId;

/// What becomes of a hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hint {
    Kept,
    /// Its owner has the write: it goes.
    Served,
}

/// One key's record while its tasks are applied.
pub(crate) struct Work {
    pub(crate) object: Object,
    /// The bytes of `object`, where they are known.
    pub(crate) encoded: Option<Bytes>,
    pub(crate) damaged: bool,
    /// It was read, and is so for good.
    pub(crate) for_good: bool,
    /// Nobody else could heal it: a write may replace it.
    pub(crate) alone: bool,
    /// The digest of the object that can't be read, where the store knows it.
    pub(crate) tag: Option<u64>,
    pub(crate) changed: bool,
    pub(crate) dropped: bool,
    pub(crate) waiting: Vec<(Waiting, Syncing)>,
    /// What becomes of the hints for these owners, in the order of their tasks.
    pub(crate) hints: Vec<(NodeId, Hint)>,
    pub(crate) events: Vec<Event>,
}

impl Work {
    pub(crate) fn put(&mut self, object: Object) {
        self.object = object;
        self.encoded = None;
        self.changed = true;
        self.dropped = false;
        self.damaged = false;
    }

    /// What was done so far goes out with an object that is minted now.
    pub(crate) fn carry(&mut self) {
        for (waiting, _) in &mut self.waiting {
            if matches!(waiting, Waiting::Minted(_) | Waiting::Merged { .. }) {
                let inner = core::mem::replace(waiting, Waiting::Hint);
                *waiting = Waiting::Carried(Box::new(inner));
            }
        }
    }

    pub(crate) fn drop_copy(&mut self) {
        self.object = Object::new();
        self.encoded = None;
        self.changed = true;
        self.dropped = true;
    }

    pub(crate) fn bytes(&mut self) -> Option<Bytes> {
        if self.object.is_empty() {
            return None;
        }
        Some(self.encoded.get_or_insert_with(|| object::encode(&self.object)).clone())
    }

    pub(crate) fn digest(&mut self, key: &[u8; 16]) -> Option<u64> {
        self.bytes().map(|bytes| object::digest(key, &self.object, &bytes))
    }

    pub(crate) fn held(&mut self, digest_key: &[u8; 16]) -> Held {
        if self.damaged {
            return Held::Unknown { for_good: self.for_good };
        }
        match self.bytes() {
            None => Held::Absent,
            Some(encoded) => Held::Object {
                digest: object::digest(digest_key, &self.object, &encoded),
                object: Box::new(self.object.clone()),
                encoded,
            },
        }
    }
}

impl Weight for Waiting {
    fn weight(&self) -> usize {
        match self {
            Waiting::Merged { outranking: Some(siblings), .. } => siblings.len(),
            Waiting::Carried(inner) => inner.weight(),
            _ => 0,
        }
    }
}
