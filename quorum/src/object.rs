//! What is kept under a key: its siblings and the exact history of writes seen.

use crate::keyspace::Policy;
use crate::op::{Expiry, Found, Reading};
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use core::hash::Hasher;
use gramme_vclock::{Dot, GrowableContext as Context, GrowableSiblings, Stamp};
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher24;

/// A key's siblings, and every dot of the key that this copy has seen.
pub type Object = GrowableSiblings<Version>;

/// One sibling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// When it was written; exceeds the stamp of everything that it replaced.
    pub stamp: Stamp,
    /// When readers stop seeing it. Part of the version: it never changes.
    pub expiry: Option<Expiry>,
    /// Its value, or the fact of its deletion.
    pub content: Content,
}

/// A value or a tombstone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// A client's bytes.
    Value {
        /// The bytes.
        bytes: Bytes,
        /// Their MIME type, if one was given.
        content_type: Option<String>,
    },
    /// The key was deleted. Never listed, never beats a live sibling.
    Tombstone,
}

impl Content {
    /// Bytes of the value.
    pub(crate) fn size(&self) -> usize {
        match self {
            Content::Value { bytes, .. } => bytes.len(),
            Content::Tombstone => 0,
        }
    }
}

impl Version {
    /// Whether it is a value, expired or not.
    #[must_use]
    pub const fn is_value(&self) -> bool {
        matches!(self.content, Content::Value { .. })
    }

    /// Whether readers see it at this wall time.
    #[must_use]
    pub fn is_live(&self, wall_ms: u64) -> bool {
        self.is_value() && self.expiry.is_none_or(|at| at.0 > wall_ms)
    }
}

/// The order among siblings: values before tombstones, then the larger stamp, then the larger dot. It does
/// not look at the time of day, so that all replicas agree on it for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rank {
    /// Whether it is a value.
    pub value: bool,
    /// Its stamp.
    pub stamp: Stamp,
    /// Its dot.
    pub dot: Dot,
}

/// Bytes that are no object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl core::fmt::Display for Malformed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("these bytes are not an encoded object")
    }
}

impl core::error::Error for Malformed {}

/// The object's bytes, the same for equal objects.
#[must_use]
pub fn encode(object: &Object) -> Bytes {
    let bytes = postcard::to_extend(object, Vec::with_capacity(weigh_all(object) + 32));
    Bytes::from(bytes.expect("serializing into memory does not fail"))
}

/// Reads an object back; what does not obey its invariants is refused.
///
/// # Errors
/// [`Malformed`] for anything that [`encode`] can't have written.
pub fn decode(bytes: &[u8]) -> Result<Object, Malformed> {
    let object = postcard::from_bytes(bytes).map_err(|_| Malformed)?;
    // Longer spellings of the same numbers, or bytes after the end, would give one object several digests.
    let size = postcard::serialize_with_flavor(&object, postcard::ser_flavors::Size::default());
    if size == Ok(bytes.len()) { Ok(object) } else { Err(Malformed) }
}

/// Compares objects between nodes, by their encoding; the key is the cluster's. Odd if nothing but tombstones is left of it, even
/// otherwise: a store that looks at that knows how many there are.
#[must_use]
pub fn digest(key: &[u8; 16], object: &Object, encoded: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new_with_key(key);
    hasher.write(encoded);
    let deleted = !object.iter().any(|(_, version)| version.is_value());
    hasher.finish() & !1 | u64::from(deleted)
}

/// Roughly how many bytes a version takes, encoded.
#[must_use]
pub fn weigh(version: &Version) -> usize {
    40 + match &version.content {
        Content::Value { bytes, content_type } => bytes.len() + content_type.as_ref().map_or(0, String::len),
        Content::Tombstone => 0,
    }
}

/// Roughly how many bytes all of an object's versions take.
pub(crate) fn weigh_all(object: &Object) -> usize {
    object.iter().map(|(_, version)| weigh(version)).sum()
}

/// An amendment's stamp is the next after what it replaces. Those of other writes are multiples of this, so that as many
/// amendments in a row stay below every write that comes after what they amend.
const AMENDMENTS: u64 = 256;

/// The first stamp from this one on that leaves room for amendments of what is below it.
pub(crate) fn with_room_below(stamp: Stamp) -> Stamp {
    Stamp::from_u64(stamp.as_u64().next_multiple_of(AMENDMENTS)).unwrap_or(Stamp::MAX)
}

/// The largest stamp of an object's siblings.
pub(crate) fn newest(object: &Object) -> Stamp {
    object.iter().map(|(_, v)| v.stamp).max().unwrap_or(Stamp::ZERO)
}

/// What a client sees of an object at this wall time.
pub(crate) fn reading(object: &Object, wall_ms: u64) -> Reading {
    let context = Context { seen: object.seen().clone(), stamp: newest(object) };
    let mut live: Vec<_> = object.iter().filter(|(_, v)| v.is_live(wall_ms)).collect();
    // All of them are values, so that the policy makes no difference.
    live.sort_by_key(|(dot, v)| core::cmp::Reverse((v.stamp, *dot)));
    let siblings = live
        .into_iter()
        .filter_map(|(dot, v)| match &v.content {
            Content::Value { bytes, content_type } => Some(Found {
                dot,
                stamp: v.stamp,
                value: bytes.clone(),
                content_type: content_type.clone(),
                expiry: v.expiry,
            }),
            Content::Tombstone => None,
        })
        .collect();
    Reading { siblings, context }
}

/// The siblings other than `rank`'s own that a reader would show before it; `None` if there are none.
pub(crate) fn outranking(object: &Object, policy: Policy, rank: Rank) -> Option<Object> {
    let entries: Vec<_> = object
        .iter()
        .filter(|(dot, v)| policy.rank(v, *dot) > rank)
        .map(|(dot, v)| (dot, v.clone()))
        .collect();
    if entries.is_empty() {
        return None;
    }
    let mut seen = gramme_vclock::GrowableDotSet::new();
    for (dot, _) in &entries {
        let Ok(()) = seen.insert(*dot);
    }
    Some(Object::from_parts(entries, seen).expect("sorted entries, each of them seen"))
}
