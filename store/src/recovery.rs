//! What was found at the opening of a store, and what it means.

use crate::segment::SegmentId;
use crate::sync::Position;
use alloc::vec::Vec;

/// The report of an opening.
///
/// Nothing that was acknowledged as durable is missing unless [`damage`](Self::damage) says so; or, where the medium rots
/// *and* the store was not closed, [`torn`](Self::torn): the watermark that tells the two apart becomes durable with the sync
/// after the one that it speaks of, so that what the last sync covered can't be told from what none did.
///
/// Also where the power fails during an opening: a torn place that it has cut off is not reported again by the next.
/// [`verify`](crate::verify()) before it tells of the place and cuts nothing off.
///
/// What nothing tells of: an end of the segment that was written to last, from the end of a record on, that reads as zeros as if it had never
/// been written, the watermarks in it included. Where the disk reserves room for files an end that is *missing* is told, as torn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// There was no store here before.
    pub created: bool,
    /// The store was closed in good order: no write, synced or not, was lost.
    pub clean: bool,
    /// Segments that were read.
    pub segments: u64,
    /// Records that were read and found whole, deletes and watermarks included.
    pub records: u64,
    /// Keys that the store has now.
    pub keys: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Segments that were taken from their index files: their records were not read, and damage to them shows when they are
    /// ([`verify`](crate::verify()) reads everything, and so does an opening without
    /// [index files](crate::Options::index_files)).
    pub index_files: u64,
    /// Index files that were not to be believed: their segments were read instead. A crash leaves such ones, and nothing
    /// is lost by it.
    pub bad_index_files: u64,
    /// Leftovers of an interrupted step that were cleared away: files.
    pub leftovers: u64,
    /// Damage to what was durable.
    pub damage: Vec<Damage>,
    /// What a crash left of writes that were not known to be durable, also where all is there but for a bit that was set right. Not damage: on a medium
    /// that keeps what was synced none of them was acknowledged as durable. On one that rots, it may have been by the last
    /// sync before the power failed.
    pub torn: Vec<Torn>,
}

impl Recovery {
    /// Whether any durable record is damaged or missing. A header or a manifest that could be mended loses nothing. What is
    /// [torn](Self::torn) does not count: each power cut may tear the writes that it interrupts.
    pub fn is_lossy(&self) -> bool {
        self.damage.iter().any(|damage| damage.is_lossy())
    }

    /// Whether a durable record of this slot may be lost, by damage or in what is [torn](Self::torn): then a key of it that is
    /// absent may have been there, and one that is there may have had a newer value. Where a record's header is gone its slot is not known, and
    /// all slots may be affected.
    pub fn affects(&self, slot: u16) -> bool {
        let mut lossy = self.damage.iter().filter(|damage| damage.is_lossy());
        lossy.any(|damage| match damage.kind {
            DamageKind::Record { slot: damaged, .. } => damaged == slot,
            _ => true,
        }) || self.torn.iter().any(|torn| torn.slot.is_none_or(|torn| torn == slot))
    }
}

/// A damaged place in what was durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The segment it is in; `None` for the manifest.
    pub segment: Option<SegmentId>,
    /// First byte.
    pub start: u64,
    /// Past the last byte.
    pub end: u64,
    /// What it is.
    pub kind: DamageKind,
}

impl Damage {
    /// Whether a record may be lost by it.
    pub fn is_lossy(&self) -> bool {
        match self.kind {
            DamageKind::Manifest
            | DamageKind::SegmentHeader
            | DamageKind::Mended { .. }
            | DamageKind::Chain => false,
            DamageKind::Record { .. } | DamageKind::Unknown | DamageKind::Unreadable => true,
            DamageKind::CutOff | DamageKind::Altered | DamageKind::Hidden => true,
            DamageKind::Removed | DamageKind::HeadUnknown => true,
        }
    }
}

/// What is damaged, and with it what may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DamageKind {
    /// One copy of the manifest. Nothing is lost; it has been written anew.
    Manifest,
    /// A segment's header. Nothing is lost: the manifest knows what it said.
    SegmentHeader,
    /// One bit of a record's header. The record could be mended. (Past what is known to be durable a crash may have done that: it is
    /// told among the [torn](Recovery::torn) then.)
    Mended {
        /// The record's slot.
        slot: u16,
    },
    /// A record's key or value. Its header tells which key it was: reads of that key answer
    /// [`ReadError::Damaged`](crate::ReadError::Damaged), never absent, unless a later record settles it. Compaction
    /// leaves a mark in its place, which is told likewise for as long as it counts.
    Record {
        /// The record's slot.
        slot: u16,
        /// The write that it was, wherever compaction moves the mark; `None` if its header went since the opening.
        position: Option<Position>,
    },
    /// Records whose headers are gone, too: which keys they were is not known. An older value of one may have come back.
    Unknown,
    /// The disk refuses to read this place, so which records were in it is not known. Should it be read again later they count as
    /// if nothing had happened: what was deleted meanwhile stays deleted. Until then as for [`Unknown`](Self::Unknown).
    Unreadable,
    /// The segment ends before its last durable record.
    CutOff,
    /// The chain of hashes is damaged or gone. No record is lost; what it vouched for before this place can no longer be shown.
    Chain,
    /// The segment's bytes are not those that were sealed, whether its checksums agree or not. Only
    /// [`verify`](crate::verify()) finds this, and the next three.
    Altered,
    /// Whole records that an opening would not see as they are: the manifest says that there are none, or has another hash key than
    /// they were written with, or an index file says something else of them. Damage does not do that. An opening finds it in the first record of a segment.
    Hidden,
    /// The chain has a segment that the store does not.
    Removed,
    /// The remembered head is not in the chain: the store was cut back to an earlier state, or is another one.
    HeadUnknown,
}

impl DamageKind {
    pub(crate) const fn record(slot: u16, sequence: u64) -> Self {
        Self::Record { slot, position: Some(Position::found(sequence)) }
    }

    /// Whether nobody knows what was there.
    pub(crate) const fn is_unaccounted(self) -> bool {
        matches!(self, Self::Unknown | Self::Unreadable | Self::CutOff)
    }
}

/// How far an opening has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Segments that are taken in.
    pub segments_done: u64,
    /// Segments in all.
    pub segments: u64,
    /// Bytes of the segments that are taken in.
    pub bytes_done: u64,
    /// Bytes of all segments; of the unsealed ones (two or three at most) what they may have.
    pub bytes: u64,
}

/// A range of unsynced writes of which a crash left only pieces; or the end of a file that is shorter than the room that was reserved for it,
/// which no crash makes so. A process that is stopped while it closes or opens the store may leave such an end, and so may openings on a full
/// disk. Only an opening that makes a segment, and sees room reserved for it, tells of such ends: [`verify`](crate::verify()) does not know
/// whether the disk reserves any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Torn {
    /// The segment.
    pub segment: SegmentId,
    /// First byte.
    pub start: u64,
    /// Past the last byte.
    pub end: u64,
    /// The slot of the record that was to stand there, if its header is whole and nothing else may have stood behind it: a record
    /// follows, or its own end was written.
    pub slot: Option<u16>,
}
