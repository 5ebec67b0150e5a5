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

/// A value, what is left of one, or a tombstone.
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
    /// A value that expired long ago: this copy has given its bytes back ([`Shrink`]), others may have them still.
    Expired {
        /// Tells it from any other value, as its bytes and type would.
        digest: u64,
    },
}

impl Content {
    /// Bytes of the value.
    pub(crate) fn size(&self) -> usize {
        match self {
            Content::Value { bytes, .. } => bytes.len(),
            Content::Tombstone | Content::Expired { .. } => 0,
        }
    }
}

/// How a record shrinks: all but its first bytes may go, once the wall clock is past a moment for certain
/// ([`Engine::settled_wall`](crate::Engine::settled_wall)). What stays is the object without the values that have expired by then, and has
/// the same digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shrink {
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Bytes that stay; fewer than there are.
    pub kept: usize,
}

impl Version {
    /// Whether it is a value, expired or not, given back or not.
    #[must_use]
    pub const fn is_value(&self) -> bool {
        !matches!(self.content, Content::Tombstone)
    }

    /// Whether readers see it at this wall time.
    #[must_use]
    pub fn is_live(&self, wall_ms: u64) -> bool {
        matches!(self.content, Content::Value { .. }) && self.expiry.is_none_or(|at| at.0 > wall_ms)
    }

    /// What is left of a value that expires when its bytes are given back; `None` of all else.
    #[must_use]
    pub fn given_back(&self) -> Option<Version> {
        let (bytes, content_type) = self.expiring()?;
        let content = Content::Expired { digest: value_digest(bytes, content_type.as_deref()) };
        Some(Version { stamp: self.stamp, expiry: self.expiry, content })
    }

    /// Its value, if that is here and expires some day.
    fn expiring(&self) -> Option<(&Bytes, &Option<String>)> {
        match &self.content {
            Content::Value { bytes, content_type } if self.expiry.is_some() => Some((bytes, content_type)),
            _ => None,
        }
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

/// A value that expires stands at the end, so that it can be cut off.
type Tail = Option<(Bytes, Option<String>)>;

/// The object's bytes, the same for equal objects: first the object without the values that expire, then, if it has any, those.
#[must_use]
pub fn encode(object: &Object) -> Bytes {
    let bytes = Vec::with_capacity(weigh_all(object) + 64);
    if !has_tail(object) {
        return Bytes::from(append(object, bytes));
    }
    let mut lasting = object.clone();
    for (_, version) in lasting.iter_mut() {
        if let Some(rest) = version.given_back() {
            *version = rest;
        }
    }
    Bytes::from(tails(object).fold(append(&lasting, bytes), |bytes, tail| append(&tail, bytes)))
}

/// Reads an object back, or what is left of it once its record has [shrunk](Shrink); what does not obey its invariants is refused.
///
/// # Errors
/// [`Malformed`] for anything that [`encode`] can't have written.
pub fn decode(bytes: &[u8]) -> Result<Object, Malformed> {
    let (mut object, mut rest) = postcard::take_from_bytes::<Object>(bytes).map_err(|_| Malformed)?;
    // What expires is not written in the first part.
    if self::has_tail(&object) {
        return Err(Malformed);
    }
    // Longer spellings of the same numbers, or bytes after the end, would give one object several digests.
    let mut spelt = size(&object);
    let has_tail = !rest.is_empty();
    for (_, version) in object.iter_mut() {
        let Content::Expired { digest } = version.content else { continue };
        if version.expiry.is_none() {
            return Err(Malformed);
        }
        if has_tail {
            let (tail, after) = postcard::take_from_bytes::<Tail>(rest).map_err(|_| Malformed)?;
            (spelt, rest) = (spelt + size(&tail), after);
            let Some((bytes, content_type)) = tail else { continue };
            if value_digest(&bytes, content_type.as_deref()) != digest {
                return Err(Malformed);
            }
            version.content = Content::Value { bytes, content_type };
        }
    }
    let whole = rest.is_empty() && spelt == bytes.len();
    if whole && has_tail == self::has_tail(&object) { Ok(object) } else { Err(Malformed) }
}

/// How the record of an object that was [encoded](encode) to so many bytes shrinks, and its values last so many milliseconds longer than
/// readers see them. `None` if nothing is to be had.
#[must_use]
pub(crate) fn shrink(object: &Object, encoded: usize, lasts_ms: u64) -> Option<Shrink> {
    let expiring = object.iter().filter(|(_, version)| version.expiring().is_some());
    let last = expiring.filter_map(|(_, version)| version.expiry).max()?;
    let values = tail_size(object);
    (values >= MIN_SHRINK).then(|| Shrink { at_ms: last.0.saturating_add(lasts_ms), kept: encoded - values })
}

/// Compares objects between nodes, by their encoding; the key is the cluster's. Of values that expire it tells by their own digests,
/// so that it stays the same when they are given back. Odd if nothing but tombstones is left of it, even
/// otherwise: a store that looks at that knows how many there are.
#[must_use]
pub fn digest(key: &[u8; 16], object: &Object, encoded: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new_with_key(key);
    hasher.write(&encoded[..encoded.len() - tail_size(object)]);
    let deleted = !object.iter().any(|(_, version)| version.is_value());
    hasher.finish() & !1 | u64::from(deleted)
}

/// Fewer bytes of values are not worth a second writing.
const MIN_SHRINK: usize = 64;

/// Whether it has values that expire.
fn has_tail(object: &Object) -> bool {
    object.iter().any(|(_, version)| version.expiring().is_some())
}

/// The values that expire, and a gap for each that was given back.
fn tails(object: &Object) -> impl Iterator<Item = Tail> + '_ {
    object.iter().filter_map(|(_, version)| match version.content {
        Content::Expired { .. } => Some(None),
        _ => version.expiring().map(|(bytes, content_type)| Some((bytes.clone(), content_type.clone()))),
    })
}

/// Bytes of what is encoded after the part that lasts.
fn tail_size(object: &Object) -> usize {
    if has_tail(object) { tails(object).map(|tail| size(&tail)).sum() } else { 0 }
}

/// No secret is in it: dots tell values apart, this only shows where they don't.
fn value_digest(bytes: &[u8], content_type: Option<&str>) -> u64 {
    let mut hasher = SipHasher24::new();
    hasher.write(&(bytes.len() as u64).to_le_bytes());
    hasher.write(bytes);
    if let Some(name) = content_type {
        hasher.write(name.as_bytes());
        hasher.write(&[0xff]);
    }
    hasher.finish()
}

fn append(what: &impl Serialize, bytes: Vec<u8>) -> Vec<u8> {
    postcard::to_extend(what, bytes).expect("serializing into memory does not fail")
}

fn size(what: &impl Serialize) -> usize {
    let size = postcard::serialize_with_flavor(what, postcard::ser_flavors::Size::default());
    size.expect("counting does not fail")
}

/// Roughly how many bytes a version takes, encoded.
#[must_use]
pub fn weigh(version: &Version) -> usize {
    40 + match &version.content {
        Content::Value { bytes, content_type } => bytes.len() + content_type.as_ref().map_or(0, String::len),
        Content::Tombstone | Content::Expired { .. } => 0,
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
            Content::Tombstone | Content::Expired { .. } => None,
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
