//! Reading records by location.

use crate::checksum::Place;
use crate::disk::{Disk, DiskError, DiskFile};
use crate::error::ReadError;
use crate::key_index::{FINGERPRINT_MASK, Hit, Location};
use crate::options::Reads;
use crate::read_around::read_full;
use crate::record::{HEADER_BYTES, Header, MAX_KEY_BYTES, MAX_TERM_BYTES};
use crate::segment::SegmentId;
use crate::store::{KEPT_BUFFER_BYTES, Pending, Store};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

/// Values up to this size are read through the store's own buffer and copied out: cheaper than clearing a buffer for
/// each.
const SMALL_BYTES: usize = 64 << 10;
/// What a listing reads of a record at first: the header and most keys.
pub(crate) const LIST_BYTES: usize = 256;

/// The answer to a [`get`](crate::Store::get).
pub enum Read<D: Disk> {
    /// The key is not there, nor may damage have taken it unless the caller [accepted](crate::Store::accept_losses) that.
    Absent,
    /// The key's value.
    Value {
        /// The value, as it was put, or its beginning if it may [shrink](crate::Store::put_shrinking).
        value: Vec<u8>,
        /// The tag that was put with it.
        tag: u64,
        /// The time from which on it is absent, if it [expires](crate::Store::put_expiring).
        expires: Option<u64>,
    },
    /// The key is there; its value has to be read by the job.
    Pending(ReadJob<D>),
}

impl<D: Disk> fmt::Debug for Read<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("Absent"),
            Self::Value { value, tag, expires } => f
                .debug_struct("Value")
                .field("bytes", &value.len())
                .field("tag", tag)
                .field("expires", expires)
                .finish(),
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
        if !header.kind.is_put() {
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
    pub(crate) now: u64,
}

impl<D: Disk> ReadJob<D> {
    /// Reads and shows the value to `see` where it stands; `None` if it has expired.
    #[cfg(feature = "std")]
    pub(crate) fn see<R>(self, see: impl FnOnce(ValueRef<'_>) -> R) -> Result<Option<R>, ReadError> {
        let mut buffer = Vec::new();
        let bytes = match self.file.lend(self.spot.offset, self.spot.len) {
            Some(bytes) => bytes,
            None => {
                buffer.resize(self.spot.len, 0);
                let read = read_full(&self.file, self.spot.offset, &mut buffer)?;
                &buffer[..read]
            }
        };
        let header = self.spot.check(bytes, self.slot, &self.key)?;
        let expires = header.term(bytes).expires();
        Ok((!is_past(expires, self.now))
            .then(|| see(ValueRef { bytes: &bytes[header.value_range()], tag: header.tag, expires })))
    }

    /// Reads, if the disk has all of it at hand; else the job is given back.
    fn run_cached(self) -> Result<ReadDone, Self> {
        let mut bytes = vec![0; self.spot.len];
        if !self.file.read_cached(self.spot.offset, &mut bytes) {
            return Err(self);
        }
        Ok(ReadDone { result: Ok(bytes), spot: self.spot, slot: self.slot, key: self.key, now: self.now })
    }

    /// Reads; blocks until the disk has answered.
    pub fn run(self) -> ReadDone {
        let mut bytes = vec![0; self.spot.len];
        let result = read_full(&self.file, self.spot.offset, &mut bytes).map(|read| {
            bytes.truncate(read);
            bytes
        });
        ReadDone { result, spot: self.spot, slot: self.slot, key: self.key, now: self.now }
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
    now: u64,
}

impl ReadDone {
    /// The value, the tag and the stamp; `None` if it has expired.
    pub(crate) fn value(self) -> Result<Option<Owned>, ReadError> {
        let mut bytes = self.result?;
        let header = self.spot.check(&bytes, self.slot, &self.key)?;
        let expires = header.term(&bytes).expires();
        if is_past(expires, self.now) {
            return Ok(None);
        }
        let range = header.value_range();
        bytes.truncate(range.end);
        bytes.drain(..range.start);
        Ok(Some((bytes, header.tag, expires)))
    }
}

pub(crate) fn is_past(expires: Option<u64>, now: u64) -> bool {
    expires.is_some_and(|expires| expires <= now)
}

/// A value, its tag and its stamp.
type Owned = (Vec<u8>, u64, Option<u64>);

/// A key, and the stamp of its record.
type Named = (Vec<u8>, Option<u64>);

/// A value where it stands: in the store's own buffer, or in the disk's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ValueRef<'a> {
    /// The value, as it was put, or its beginning if it may [shrink](Store::put_shrinking).
    pub bytes: &'a [u8],
    /// The tag that was put with it.
    pub tag: u64,
    /// The time from which on it is absent, if it expires.
    pub expires: Option<u64>,
}

impl<D: Disk> Store<D> {
    /// Reads a key's value: from the disk here and now, or as a job, as [`Options::reads`](crate::Options::reads) says.
    ///
    /// # Errors
    /// [`ReadError`]: the key's record is damaged or can't be read, or [may be among what was lost](ReadError::Unknown). That is never
    /// the same as absent.
    pub fn get(&mut self, slot: u16, key: &[u8]) -> Result<Read<D>, ReadError> {
        let Some(hit) = self.index.get(slot, self.fingerprint(key)) else {
            return self.not_found(Read::Absent);
        };
        let spot = self.spot(hit.location);
        let is_pending = self.pending.record(self.active, hit.location, spot.len).is_some();
        let is_small = spot.len <= SMALL_BYTES && self.options.reads != Reads::Jobs;
        if is_small || is_pending {
            let cached = self.options.reads == Reads::Cached;
            let found = self.read_here(&hit, spot, slot, key, cached, |found| Read::Value {
                value: found.bytes.to_vec(),
                tag: found.tag,
                expires: found.expires,
            })?;
            if let Some(found) = found {
                return found.map_or_else(|| self.not_found(Read::Absent), Ok);
            }
        }
        let file = self.segments[hit.location.segment].file.clone();
        let job = ReadJob { file, spot, slot, key: key.to_vec(), now: self.now };
        match self.options.reads {
            Reads::Inline => self.finish_read(job.run()),
            Reads::Cached if !is_small => match job.run_cached() {
                Ok(done) => self.finish_read(done),
                Err(job) => Ok(Read::Pending(job)),
            },
            Reads::Cached | Reads::Jobs => Ok(Read::Pending(job)),
        }
    }

    /// Reads a key's value here and now and shows it to `see`, without making a copy of it: out of the store's buffer, or out of
    /// the disk's own memory where that [lends](DiskFile::lend) it. `None` if the key is absent.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn get_with<R>(
        &mut self,
        slot: u16,
        key: &[u8],
        see: impl FnOnce(ValueRef<'_>) -> R,
    ) -> Result<Option<R>, ReadError> {
        let Some(hit) = self.index.get(slot, self.fingerprint(key)) else { return self.not_found(None) };
        let spot = self.spot(hit.location);
        let found = self.read_here(&hit, spot, slot, key, false, see)?.flatten();
        if found.is_none() { self.not_found(None) } else { Ok(found) }
    }

    /// Whether a key that is not found may have been taken by damage, in any slot: a [`get`](Self::get) of it answers
    /// [`ReadError::Unknown`] then. From memory alone.
    pub const fn has_unknown(&self) -> bool {
        self.has_unknown
    }

    /// The answer for a key that was not found, or has expired: `absent`, unless damage may have taken it.
    pub(crate) fn not_found<T>(&self, absent: T) -> Result<T, ReadError> {
        if self.has_unknown { Err(ReadError::Unknown) } else { Ok(absent) }
    }

    /// What `see` makes of the value; `None` within if it has expired. `None` if the disk has it not at hand, and only what is
    /// `cached` is wanted.
    fn read_here<R>(
        &mut self,
        hit: &Hit,
        spot: Spot,
        slot: u16,
        key: &[u8],
        cached: bool,
        see: impl FnOnce(ValueRef<'_>) -> R,
    ) -> Result<Option<Option<R>>, ReadError> {
        let file = &self.segments[hit.location.segment].file;
        let pending = self.pending.record(self.active, hit.location, spot.len);
        let bytes = match pending.or_else(|| file.lend(spot.offset, spot.len)) {
            Some(bytes) => bytes,
            None => {
                if self.read_buffer.len() < spot.len {
                    self.read_buffer.resize(spot.len, 0);
                }
                let buffer = &mut self.read_buffer[..spot.len];
                let read = match cached {
                    true if file.read_cached(spot.offset, buffer) => spot.len,
                    true => return Ok(None),
                    false => read_full(file, spot.offset, buffer)?,
                };
                &self.read_buffer[..read]
            }
        };
        let header = spot.check(bytes, slot, key)?;
        let expires = header.term(bytes).expires();
        let shown = (!is_past(expires, self.now))
            .then(|| see(ValueRef { bytes: &bytes[header.value_range()], tag: header.tag, expires }));
        if self.read_buffer.len() > KEPT_BUFFER_BYTES {
            self.read_buffer = Vec::new();
        }
        Ok(Some(shown))
    }

    /// Makes the answer of a read that was run: [`Read::Value`], or [`Read::Absent`] if it has expired. It is true of the
    /// moment when the read began.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn finish_read(&mut self, done: ReadDone) -> Result<Read<D>, ReadError> {
        match done.value()? {
            Some((value, tag, expires)) => Ok(Read::Value { value, tag, expires }),
            None => self.not_found(Read::Absent),
        }
    }

    /// Bytes that a read of this key's value will take: its record's, rounded up by at most an eighth. `None` if the key is
    /// not found. From memory alone, like [`tag`](Self::tag).
    pub fn read_bytes(&self, slot: u16, key: &[u8]) -> Option<usize> {
        let hit = self.index.get(slot, self.fingerprint(key))?;
        Some(self.spot(hit.location).len)
    }

    pub(crate) fn spot(&self, location: Location) -> Spot {
        let segment = &self.segments[location.segment];
        let offset = location.offset();
        // What is buffered is written later, under whoever has been lent what stands before it.
        let end = match self.active == Some(location.segment) && !self.pending.bytes.is_empty() {
            true if offset < self.pending.start => self.pending.start,
            _ => segment.tail,
        };
        let len = location.size.bytes().min(end - offset);
        Spot {
            segment: segment.id,
            place: segment.place,
            offset,
            len: usize::try_from(len).expect("a record's length fits"),
        }
    }

    /// Up to `limit` keys of a slot (at least one is asked for). Goes through the slot's index once and reads each key
    /// from the disk. A key that is there from the first call to the last is listed at least once, whatever is written
    /// between the calls; one that comes or goes may be.
    ///
    /// # Errors
    /// [`ReadError::Disk`]. Damaged records are counted, not failed on: the listing can go on past them. Where keys may be missing of which
    /// nobody knows, [`Page::unknown`] says so.
    pub fn list(&mut self, slot: u16, cursor: Cursor, limit: usize) -> Result<Page, ReadError> {
        let limit = limit.max(1);
        let hits = self.index.page(slot, cursor.0, limit);
        let mut page = Page { unknown: self.has_unknown, ..Page::default() };
        if hits.len() == limit {
            page.next = hits.last().map(|hit| Cursor(hit.fingerprint + 1));
        }
        for hit in hits {
            match self.key_of(slot, &hit)? {
                Some((key, expires)) if !is_past(expires, self.now) => {
                    page.keys.push(key);
                    page.tags.push(hit.tag);
                }
                Some(_) => {}
                None => page.unreadable += 1,
            }
        }
        Ok(page)
    }

    /// Reads a record's key alone, and its stamp. The fingerprint, of which the index and the record have a copy each, vouches for the key, so
    /// that the value need not be read.
    pub(crate) fn key_of(&mut self, slot: u16, hit: &Hit) -> Result<Option<Named>, ReadError> {
        let spot = self.spot(hit.location);
        if let Some(bytes) = self.pending.record(self.active, hit.location, spot.len) {
            return Ok(self.key_in(slot, hit, &spot, bytes).flatten());
        }
        let mut read = 0;
        for want in [spot.len.min(LIST_BYTES), spot.len.min(HEADER_BYTES + MAX_KEY_BYTES + MAX_TERM_BYTES)] {
            if self.read_buffer.len() < want {
                self.read_buffer.resize(want, 0);
            }
            let file = &self.segments[hit.location.segment].file;
            read += read_full(file, spot.offset + read as u64, &mut self.read_buffer[read..want])?;
            if let Some(found) = self.key_in(slot, hit, &spot, &self.read_buffer[..read]) {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The key in the beginning of a record; `Some(None)` if it is damaged, `None` if it goes on past these bytes.
    #[allow(clippy::option_option)] // Three answers.
    fn key_in(&self, slot: u16, hit: &Hit, spot: &Spot, bytes: &[u8]) -> Option<Option<Named>> {
        if bytes.len() < HEADER_BYTES {
            return Some(None);
        }
        let header = Header::decode(bytes, spot.place, spot.offset)
            .or_else(|| Header::mend(bytes, spot.place, spot.offset));
        let Some(header) = header.filter(|header| header.kind.is_put() && header.slot == slot) else {
            return Some(None);
        };
        if bytes.len() < header.value_range().start {
            return None;
        }
        let key = &bytes[HEADER_BYTES..HEADER_BYTES + header.key_len as usize];
        let fingerprint = self.fingerprint(key);
        let sound = fingerprint == header.fingerprint && fingerprint & FINGERPRINT_MASK == hit.fingerprint;
        Some(sound.then(|| (key.to_vec(), header.term(bytes).expires())))
    }
}

impl Pending {
    /// The record at this place, if it is not written yet.
    pub(crate) fn record(&self, active: Option<u16>, location: Location, len: usize) -> Option<&[u8]> {
        if self.bytes.is_empty() || active != Some(location.segment) {
            return None;
        }
        let at = usize::try_from(location.offset().checked_sub(self.start)?).ok()?;
        self.bytes.get(at..at + len)
    }
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
    /// Other keys may have been there: a [`get`](crate::Store::get) of any that is not listed answers [`ReadError::Unknown`]. So it goes with
    /// all pages, until the caller [accepts](crate::Store::accept_losses) what is lost.
    pub unknown: bool,
    /// Where to go on; `None` at the end of the slot.
    pub next: Option<Cursor>,
}
