//! Values that expire: what a store may give back of them, and when.

use super::Checker;
use super::requests::Request;
use bytes::Bytes;
use core::time::Duration;
use gramme_quorum::object::{decode, encode};
use gramme_quorum::{Content, Object, Version};

/// Here values' bytes stay this long after they have expired.
pub const EXPIRED: Duration = Duration::from_secs(6);

/// A record without what its store may have given back: what all that it may have become have in common.
pub(super) fn lasting(record: &Bytes) -> Bytes {
    decode(record).map_or_else(|_| record.clone(), |object| lasting_of(&object, record))
}

/// The same of a record that was decoded.
pub(super) fn lasting_of(object: &Object, record: &Bytes) -> Bytes {
    if object.iter().all(|(_, version)| version.given_back().is_none()) {
        return record.clone();
    }
    let mut object = object.clone();
    for (_, version) in object.iter_mut() {
        if let Some(rest) = version.given_back() {
            *version = rest;
        }
    }
    encode(&object)
}

/// Whether this is the version that was written, or what is left of it.
pub(super) fn is_of(written: &Version, found: &Version) -> bool {
    match found.content {
        Content::Expired { .. } => written.given_back().as_ref() == Some(found),
        _ => written == found,
    }
}

impl Checker {
    /// A node's store is told this time: what expired long before it may be given back there from now on.
    pub fn settled(&mut self, wall_ms: u64) {
        let expired = u64::try_from(EXPIRED.as_millis()).unwrap_or(u64::MAX);
        self.given_back = self.given_back.max(wall_ms.saturating_sub(expired));
    }

    /// What expires by then this request need not be shown.
    pub(super) fn hidden_by(&self, request: &Request) -> u64 {
        request.walls.1.max(self.given_back)
    }
}
