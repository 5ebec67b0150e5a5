//! Reading records by location.

use crate::checksum::Place;
use crate::disk::{Disk, DiskError, DiskFile};
use crate::error::ReadError;
use crate::record::{HEADER_BYTES, Header, Kind};
use crate::segment::SegmentId;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

/// Values up to this size are read through the store's own buffer and copied out: cheaper than clearing a buffer for
/// each.
pub(crate) const SMALL_BYTES: usize = 64 << 10;

/// The answer to a [`get`](crate::Store::get).
pub enum Read<D: Disk> {
    /// The key is not there.
    Absent,
    /// The key's value.
    Value {
        /// The value, as it was put.
        value: Vec<u8>,
        /// The tag that was put with it.
        tag: u64,
    },
    /// The key is there; its value has to be read by the job.
    Pending(ReadJob<D>),
}

impl<D: Disk> fmt::Debug for Read<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("Absent"),
            Self::Value { value, tag } => {
                f.debug_struct("Value").field("bytes", &value.len()).field("tag", tag).finish()
            }
            Self::Pending(job) => f.debug_tuple("Pending").field(job).finish(),
        }
    }
}

/// Where a record stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spot {
    pub(crate) segment: SegmentId,
    pub(crate) place: Place,
    pub(crate) offset: u64,
    /// At least the record's length, and not past the end of the segment's records.
    pub(crate) len: usize,
}

impl Spot {
    pub(crate) fn damaged(&self) -> ReadError {
        ReadError::Damaged { segment: self.segment, offset: self.offset }
    }

    /// Checks the record in `bytes`, wanted for this key. Answers its header.
    pub(crate) fn check(&self, bytes: &[u8], slot: u16, key: &[u8]) -> Result<Header, ReadError> {
        let (header, _) = self.record(bytes).ok_or_else(|| self.damaged())?;
        if header.kind != Kind::Put {
            return Err(self.damaged());
        }
        let found = &bytes[HEADER_BYTES..HEADER_BYTES + header.key_len as usize];
        if header.slot != slot || found != key {
            return Err(ReadError::Collision);
        }
        Ok(header)
    }

    /// The record in `bytes` if all of it is whole, or can be made so by one bit of its header.
    pub(crate) fn record<'b>(&self, bytes: &'b [u8]) -> Option<(Header, &'b [u8])> {
        if bytes.len() < HEADER_BYTES {
            return None;
        }
        let header = Header::decode(bytes, self.place, self.offset)
            .or_else(|| Header::mend(bytes, self.place, self.offset))?;
        let body = bytes.get(HEADER_BYTES..header.record_len())?;
        header.body_is_intact(body, self.place, self.offset).then_some((header, body))
    }
}

/// A read to be run, here or on another thread, and then handed back to its store with
/// [`finish_read`](crate::Store::finish_read).
///
/// It stays good whatever the store does meanwhile: it answers what the key was when the read began.
#[must_use = "the value is known only when the job is run and finished"]
pub struct ReadJob<D: Disk> {
    pub(crate) file: D::File,
    pub(crate) spot: Spot,
    pub(crate) slot: u16,
    pub(crate) key: Vec<u8>,
}

impl<D: Disk> ReadJob<D> {
    /// Reads; blocks until the disk has answered.
    pub fn run(self) -> ReadDone {
        let mut bytes = vec![0; self.spot.len];
        let result = self.file.read_at(self.spot.offset, &mut bytes).map(|read| {
            bytes.truncate(read);
            bytes
        });
        ReadDone { result, spot: self.spot, slot: self.slot, key: self.key }
    }
}

impl<D: Disk> fmt::Debug for ReadJob<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadJob").field("spot", &self.spot).finish_non_exhaustive()
    }
}

/// A read that was run, well or not.
#[derive(Debug)]
#[must_use = "finish_read makes the answer of it"]
pub struct ReadDone {
    result: Result<Vec<u8>, DiskError>,
    spot: Spot,
    slot: u16,
    key: Vec<u8>,
}

impl ReadDone {
    /// The value and the tag.
    pub(crate) fn value(self) -> Result<(Vec<u8>, u64), ReadError> {
        let bytes = self.result?;
        let header = self.spot.check(&bytes, self.slot, &self.key)?;
        Ok((value_of(bytes, &header), header.tag))
    }
}

/// Cuts the value out of a record, in its buffer.
pub(crate) fn value_of(mut bytes: Vec<u8>, header: &Header) -> Vec<u8> {
    bytes.truncate(HEADER_BYTES + header.payload_len());
    bytes.drain(..HEADER_BYTES + header.key_len as usize);
    bytes
}

/// Where a listing goes on. It stays good while the slot is written to, and across openings of the same store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor(pub(crate) u64);

impl Cursor {
    /// The beginning of a slot.
    pub const START: Self = Self(0);

    /// The cursor as a number, to be kept or sent.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The cursor of a number. Any number is some place in a slot.
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }
}

/// A part of a slot's keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page {
    /// Keys, in no order that means anything.
    pub keys: Vec<Vec<u8>>,
    /// The tags that were put with them, in the same order.
    pub tags: Vec<u64>,
    /// Keys that are there but could not be read: their records are damaged.
    pub unreadable: u64,
    /// Where to go on; `None` at the end of the slot.
    pub next: Option<Cursor>,
}
