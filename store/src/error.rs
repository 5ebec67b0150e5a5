//! What can go wrong, by stage, and what it left behind.

use crate::disk::DiskError;
use crate::record::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use crate::segment::SegmentId;
use core::fmt;

/// Why a store did not open. Nothing that the store had was changed, except that the leftovers of an interrupted
/// maintenance step may have been cleared away.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// The disk refused an operation. [`DiskErrorKind::Locked`](crate::DiskErrorKind::Locked): another process has the
    /// store open.
    Disk(DiskError),
    /// The directory was written by a newer version of this crate.
    NewerFormat {
        /// The version found.
        found: u16,
        /// The newest version this crate reads.
        supported: u16,
    },
    /// There is no store here. An opening would make one; [`verify`](crate::verify()) does not.
    NoStore,
    /// There are files with names of a store's but no manifest: that was removed, a copy was cut off, or the directory is not a
    /// store's.
    ManifestMissing,
    /// Both copies of the manifest are damaged.
    ManifestDamaged,
    /// The manifest is older than the segments beside it, which hold records it knows nothing of.
    ManifestStale {
        /// A segment that the manifest does not know.
        segment: SegmentId,
    },
    /// A segment that the manifest names is not there.
    SegmentMissing {
        /// The segment.
        segment: SegmentId,
    },
    /// A segment's header is whole, but it is another segment's or another store's.
    SegmentForeign {
        /// The segment whose place it takes, or whose name it has.
        segment: SegmentId,
    },
    /// The manifest's hash key is not the one that the records were written with, so no key would be found. Damage does not do that:
    /// somebody altered the manifest and made its checksum right.
    HashKey {
        /// A segment whose records say so.
        segment: SegmentId,
    },
    /// A sequence, a segment's number or the manifest's generation is so great that what comes after it might not be read any more.
    /// No store gets there by itself.
    NumbersExhausted,
    /// An option is out of its bounds; the text says which.
    Options(&'static str),
}

/// Why a write, or the sync of one, failed. Unless the variant says otherwise the store is as it was before.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteError {
    /// The key is empty or longer than [`MAX_KEY_BYTES`](crate::MAX_KEY_BYTES).
    KeyLength(usize),
    /// The value is longer than [`MAX_VALUE_BYTES`](crate::MAX_VALUE_BYTES).
    ValueLength(usize),
    /// No room. Nothing changed; deletes, [`maintain`](crate::Store::maintain) and reads go on, and puts do again once
    /// there is room.
    NoSpace,
    /// A new segment was needed and could not be made. Nothing changed; the next write tries again.
    NewSegment(DiskError),
    /// [`maintain`](crate::Store::maintain) could not read a record that it was to copy. Nothing is lost by it. It is tried once
    /// more; then the segment's other records are copied, and it stays as it is until the next opening.
    Unreadable(DiskError),
    /// The key can't be deleted: another key with the same fingerprint stands in its place (see [`ReadError::Collision`]).
    /// Nothing changed.
    Collision,
    /// All segment numbers are in use: the store holds more segments than it can address. Use larger ones.
    TooManySegments,
    /// A new segment was needed, and sequences, segments' numbers or the manifest's generations have nearly come to their end. Only a store
    /// whose files were made up comes to that. Nothing changed; reads go on.
    NumbersExhausted,
    /// A sync or a write failed earlier: what is on the disk past the last good sync is not known, so writing has stopped
    /// until the store is opened anew. Reads go on.
    Poisoned,
    /// A write or a sync failed just now, and with it writing has stopped for good. Whether the write that was being
    /// made survives is not known until the next open.
    Disk(DiskError),
    /// The completed sync is not the one that this store began.
    ForeignSync,
    /// The store can't be [synced](crate::Store::sync) here and now, nor closed in good order: a sync was begun and has not been completed. What it was to cover is as
    /// durable as it may become.
    SyncUnderWay,
}

/// Why a read has no answer. It never means that the key is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadError {
    /// The key's record is damaged: its value is unknown.
    Damaged {
        /// The segment that holds it.
        segment: SegmentId,
        /// Where in the segment it begins, in bytes.
        offset: u64,
    },
    /// Another key with the same fingerprint has taken this key's place in the index: whether the key exists is unknown. Once
    /// the other one is deleted nothing is left to say so, and the key reads as absent.
    /// With 70 bits of fingerprint and slot this is to be expected once in a few thousand stores of a billion keys.
    Collision,
    /// The key was not found, and the opening met places of which nobody knows what they held ([`DamageKind::Unknown`],
    /// [`Unreadable`](crate::DamageKind::Unreadable), [`CutOff`](crate::DamageKind::CutOff)): it may have been there. So it goes with every key
    /// that is not found, a deleted one too, until the caller [accepts](crate::Store::accept_losses) what is lost.
    ///
    /// [`DamageKind::Unknown`]: crate::DamageKind::Unknown
    Unknown,
    /// The disk refused to read.
    Disk(DiskError),
}

impl From<DiskError> for OpenError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

impl From<DiskError> for ReadError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(error) => write!(f, "{error}; nothing that the store has was changed"),
            Self::NewerFormat { found, supported } => write!(
                f,
                "the store has format {found}, this program reads up to {supported}; nothing was touched"
            ),
            Self::NoStore => write!(f, "there is no store here; nothing was touched"),
            Self::ManifestMissing => write!(f, "a store's files without a manifest; nothing was touched"),
            Self::ManifestDamaged => {
                write!(f, "both copies of the manifest are damaged; nothing was touched")
            }
            Self::ManifestStale { segment } => {
                write!(f, "the manifest is older than segment {segment}; nothing was touched")
            }
            Self::SegmentMissing { segment } => {
                write!(f, "segment {segment} is missing; nothing was touched")
            }
            Self::HashKey { segment } => write!(
                f,
                "the manifest's hash key is not the one that segment {segment} was written with; nothing was touched"
            ),
            Self::SegmentForeign { segment } => {
                write!(f, "segment {segment} belongs to another store; nothing was touched")
            }
            Self::NumbersExhausted => {
                write!(
                    f,
                    "a sequence or a segment's number is near the end of what there are; nothing was touched"
                )
            }
            Self::Options(what) => write!(f, "bad option: {what}; nothing was touched"),
        }
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyLength(len) => {
                write!(f, "a key of {len} bytes, not 1 to {MAX_KEY_BYTES}; nothing was changed")
            }
            Self::ValueLength(len) => {
                write!(f, "a value of {len} bytes, not up to {MAX_VALUE_BYTES}; nothing was changed")
            }
            Self::NoSpace => write!(f, "no space left; nothing was changed"),
            Self::NewSegment(error) => write!(f, "no new segment: {error}; nothing was changed"),
            Self::Unreadable(error) => write!(f, "{error}, while compacting; nothing was changed"),
            Self::Collision => write!(f, "another key has the same fingerprint; nothing was changed"),
            Self::TooManySegments => write!(f, "too many segments; nothing was changed"),
            Self::NumbersExhausted => write!(f, "the store's numbers are used up; nothing was changed"),
            Self::Poisoned => write!(f, "writing has stopped after an earlier disk error"),
            Self::Disk(error) => write!(f, "{error}; writing has stopped"),
            Self::SyncUnderWay => {
                write!(f, "a sync is under way; what it is to cover is not known to be durable")
            }
            Self::ForeignSync => write!(f, "a sync that this store did not begin; nothing was changed"),
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged { segment, offset } => {
                write!(f, "the record at byte {offset} of segment {segment} is damaged")
            }
            Self::Collision => write!(f, "another key has the same fingerprint"),
            Self::Unknown => write!(f, "the key was not found, and may be among what damage took"),
            Self::Disk(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for OpenError {}
impl core::error::Error for WriteError {}
impl core::error::Error for ReadError {}
