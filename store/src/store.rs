//! The store: writes, reads and listings.

use crate::compaction::Merge;
use crate::disk::{Disk, DiskErrorKind, DiskFile};
use crate::error::{ReadError, WriteError};
use crate::key_index::{Hit, KeyIndex, Location, SizeClass};
use crate::options::Options;
use crate::read::{Cursor, Page, Read, ReadDone, ReadJob, SMALL_BYTES, Spot, value_of};
use crate::record::{Draft, HEADER_BYTES, Header, Kind, MAX_KEY_BYTES, MAX_VALUE_BYTES};
use crate::segments::SegmentTable;
use crate::sync::Position;
use alloc::vec;
use alloc::vec::Vec;
use siphasher::sip::SipHasher13;

/// Buffers that grew past this for a long value are given back.
const KEPT_BUFFER_BYTES: usize = 1 << 20;
/// What a listing reads of a record at first: the header and most keys.
const LIST_BYTES: usize = 256;

/// A log-structured store of keys and values, in slots.
///
/// All methods return at once but for the disk calls that they say they make. The store is single-threaded; syncs (and
/// reads, if [`Options::inline_reads`] is off) are jobs that another thread may run.
pub struct Store<D: Disk> {
    pub(crate) disk: D,
    pub(crate) _lock: D::Lock,
    pub(crate) options: Options,
    pub(crate) identity: Identity,
    pub(crate) segments: SegmentTable<D::File>,
    pub(crate) index: KeyIndex,
    /// Where writes go; none after an opening on a full disk.
    pub(crate) active: Option<u16>,
    /// A segment ready to be the next active one.
    pub(crate) spare: Option<u16>,
    /// Segments that were active and may have unsynced writes.
    pub(crate) rolled: Vec<u16>,
    /// A merge that is under way.
    pub(crate) merge: Option<Merge<D::File>>,
    /// Room for a segment is put aside.
    pub(crate) has_reserve: bool,
    /// The disk was full when a segment was last asked for.
    pub(crate) starved: bool,
    pub(crate) next_sequence: u64,
    /// The last sequence that a sync has covered.
    pub(crate) durable: u64,
    /// The number of the sync that is under way.
    pub(crate) in_flight: Option<u64>,
    pub(crate) syncs_begun: u64,
    pub(crate) poisoned: bool,
    pub(crate) write_buffer: Vec<u8>,
    pub(crate) read_buffer: Vec<u8>,
}

/// Who the store is, from its manifest.
pub(crate) struct Identity {
    pub(crate) store: [u8; 16],
    pub(crate) hash_key: [u8; 16],
    pub(crate) hasher: SipHasher13,
    pub(crate) generation: u64,
    pub(crate) next_segment: u64,
}

/// What the store holds, and what it takes up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Keys in all slots.
    pub keys: u64,
    /// Segments, the active and the spare one included.
    pub segments: u64,
    /// Bytes of records that reads can reach, each rounded up by at most an eighth.
    pub live_bytes: u64,
    /// Bytes of all records, watermarks and deletes.
    pub log_bytes: u64,
    /// Bytes of disk reserved: the capacities of segments that are written to, the lengths of the others.
    pub disk_bytes: u64,
    /// Writes that no sync has covered yet.
    pub unsynced_writes: u64,
}

impl<D: Disk> Store<D> {
    pub(crate) fn fingerprint(&self, key: &[u8]) -> u64 {
        self.identity.hasher.hash(key) & self.options.fingerprint_mask
    }

    /// Sets a key's value. Reads see it at once; it is durable once a sync covers its position. `tag` is kept in memory
    /// beside the key (see [`tag`](Self::tag)).
    ///
    /// One write to the disk; now and then a new segment too, unless [`maintain`](Self::maintain) has prepared one.
    ///
    /// # Errors
    /// As [`WriteError`] says: lengths, no space, a disk that failed. The key then is what it was before.
    pub fn put(&mut self, slot: u16, key: &[u8], value: &[u8], tag: u64) -> Result<Position, WriteError> {
        check_key(key)?;
        if value.len() > MAX_VALUE_BYTES {
            return Err(WriteError::ValueLength(value.len()));
        }
        let fingerprint = self.fingerprint(key);
        let draft =
            Draft { kind: Kind::Put, slot, sequence: self.next_sequence, fingerprint, tag, key, value };
        let location = self.append(&draft, Urgency::Put)?;
        self.segments.gain(location);
        if let Some(old) = self.index.set(slot, fingerprint, location, tag) {
            self.segments.lose(old);
        }
        Ok(Position(draft.sequence))
    }

    /// Removes a key: for good, once a sync covers the position. A key that is not there costs nothing; the position then
    /// is that of the last write, which may have been its removal.
    ///
    /// One read and one write of the disk. Deletes have room kept for them that puts may not use, so that a full disk can be emptied.
    ///
    /// # Errors
    /// As [`WriteError`] says. The key then is what it was before.
    pub fn delete(&mut self, slot: u16, key: &[u8]) -> Result<Position, WriteError> {
        check_key(key)?;
        let fingerprint = self.fingerprint(key);
        let Some(hit) = self.index.get(slot, fingerprint) else { return self.nothing_to_write() };
        // A put may displace another key once in a few thousand huge stores, and says so at the other's next read. A
        // delete must not: nothing would be left to say it. Where the key can't be read it is taken for the right one.
        if self.key_of(slot, &hit).ok().flatten().is_some_and(|found| found != key) {
            return Err(WriteError::Collision);
        }
        let draft = Draft {
            kind: Kind::Delete,
            slot,
            sequence: self.next_sequence,
            fingerprint,
            tag: 0,
            key,
            value: &[],
        };
        self.append(&draft, Urgency::Removal)?;
        if let Some(old) = self.index.remove(slot, fingerprint) {
            self.segments.lose(old);
        }
        Ok(Position(draft.sequence))
    }

    /// Removes all keys of a slot, with one record and one write to the disk.
    ///
    /// # Errors
    /// As [`WriteError`] says. The slot then is what it was before.
    pub fn drop_slot(&mut self, slot: u16) -> Result<Position, WriteError> {
        if self.index.slot_len(slot) == 0 {
            return self.nothing_to_write();
        }
        let draft = Draft {
            kind: Kind::DropSlot,
            slot,
            sequence: self.next_sequence,
            fingerprint: 0,
            tag: 0,
            key: &[],
            value: &[],
        };
        self.append(&draft, Urgency::Removal)?;
        let segments = &mut self.segments;
        self.index.drop_slot(slot, |location| segments.lose(location));
        Ok(Position(draft.sequence))
    }

    fn nothing_to_write(&self) -> Result<Position, WriteError> {
        if self.poisoned { Err(WriteError::Poisoned) } else { Ok(Position(self.next_sequence - 1)) }
    }

    /// Appends a record to the active segment. On an error nothing has changed, but what stands past the tail.
    fn append(&mut self, draft: &Draft<'_>, urgency: Urgency) -> Result<Location, WriteError> {
        if self.poisoned {
            return Err(WriteError::Poisoned);
        }
        let len = draft.record_len();
        self.make_room(len as u64, urgency)?;
        let active = self.active.expect("room was made in it");
        let segment = &mut self.segments[active];
        let offset = segment.tail;
        self.write_buffer.clear();
        draft.append_to(&mut self.write_buffer, segment.place, offset);
        if let Err(error) = segment.file.write_at(offset, &self.write_buffer) {
            if error.kind() == DiskErrorKind::NoSpace {
                // A part may have been written. It can't be a whole record, and the next write goes over it.
                return Err(WriteError::NoSpace);
            }
            self.poisoned = true;
            return Err(WriteError::Disk(error));
        }
        segment.tail = offset + len as u64;
        segment.note_sequence(draft.sequence);
        if urgency == Urgency::Removal {
            segment.removals += len as u64;
        }
        self.next_sequence += 1;
        if self.write_buffer.capacity() > KEPT_BUFFER_BYTES {
            self.write_buffer = Vec::new();
        }
        Ok(Location {
            segment: active,
            unit: u32::try_from(offset / 8).expect("a segment's capacity is bounded"),
            size: SizeClass::of(len),
        })
    }

    /// Reads a key's value: from the disk here and now, or as a job if [`Options::inline_reads`] is off.
    ///
    /// # Errors
    /// [`ReadError`]: the key's record is damaged or can't be read. That is never the same as absent.
    pub fn get(&mut self, slot: u16, key: &[u8]) -> Result<Read<D>, ReadError> {
        let Some(hit) = self.index.get(slot, self.fingerprint(key)) else { return Ok(Read::Absent) };
        let spot = self.spot(hit.location);
        let file = &self.segments[hit.location.segment].file;
        if !self.options.inline_reads {
            return Ok(Read::Pending(ReadJob { file: file.clone(), spot, slot, key: key.to_vec() }));
        }
        if spot.len > SMALL_BYTES {
            let mut bytes = vec![0; spot.len];
            let read = file.read_at(spot.offset, &mut bytes)?;
            bytes.truncate(read);
            let header = spot.check(&bytes, slot, key)?;
            return Ok(Read::Value { value: value_of(bytes, &header), tag: header.tag });
        }
        if self.read_buffer.len() < spot.len {
            self.read_buffer.resize(spot.len, 0);
        }
        let read = file.read_at(spot.offset, &mut self.read_buffer[..spot.len])?;
        let bytes = &self.read_buffer[..read];
        let header = spot.check(bytes, slot, key)?;
        let start = HEADER_BYTES + header.key_len as usize;
        let value = bytes[start..start + header.value_len as usize].to_vec();
        Ok(Read::Value { value, tag: header.tag })
    }

    /// Makes the answer of a read that was run. It is [`Read::Value`], and true of the moment when the read began.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn finish_read(&mut self, done: ReadDone) -> Result<Read<D>, ReadError> {
        let (value, tag) = done.value()?;
        Ok(Read::Value { value, tag })
    }

    pub(crate) fn spot(&self, location: Location) -> Spot {
        let segment = &self.segments[location.segment];
        let offset = location.offset();
        let len = location.size.bytes().min(segment.tail - offset);
        Spot {
            segment: segment.id,
            place: segment.place,
            offset,
            len: usize::try_from(len).expect("a record's length fits"),
        }
    }

    /// The tag that was put with a key, from memory alone. The key itself is not compared: another one with the same slot
    /// and 56 bits of fingerprint would be taken for it, about once in 2^56 askings per key of the slot.
    pub fn tag(&self, slot: u16, key: &[u8]) -> Option<u64> {
        Some(self.index.get(slot, self.fingerprint(key))?.tag)
    }

    /// Up to `limit` keys of a slot (at least one is asked for). Goes through the slot's index once and reads each key
    /// from the disk. A key that is there from the first call to the last is listed at least once, whatever is written
    /// between the calls; one that comes or goes may be.
    ///
    /// # Errors
    /// [`ReadError::Disk`]. Damaged records are counted, not failed on: the listing can go on past them.
    pub fn list(&mut self, slot: u16, cursor: Cursor, limit: usize) -> Result<Page, ReadError> {
        let limit = limit.max(1);
        let hits = self.index.page(slot, cursor.0, limit);
        let mut page = Page::default();
        if hits.len() == limit {
            page.next = hits.last().map(|hit| Cursor(hit.fingerprint + 1));
        }
        for hit in hits {
            match self.key_of(slot, &hit)? {
                Some(key) => {
                    page.keys.push(key);
                    page.tags.push(hit.tag);
                }
                None => page.unreadable += 1,
            }
        }
        Ok(page)
    }

    /// Reads a record's key alone. The fingerprint, of which the index and the record have a copy each, vouches for it, so
    /// that the value need not be read.
    fn key_of(&mut self, slot: u16, hit: &Hit) -> Result<Option<Vec<u8>>, ReadError> {
        let spot = self.spot(hit.location);
        let mut read = 0;
        for want in [spot.len.min(LIST_BYTES), spot.len.min(HEADER_BYTES + MAX_KEY_BYTES)] {
            if self.read_buffer.len() < want {
                self.read_buffer.resize(want, 0);
            }
            let file = &self.segments[hit.location.segment].file;
            read += file.read_at(spot.offset + read as u64, &mut self.read_buffer[read..want])?;
            let bytes = &self.read_buffer[..read];
            if read < HEADER_BYTES {
                return Ok(None);
            }
            let header = Header::decode(bytes, spot.place, spot.offset)
                .or_else(|| Header::mend(bytes, spot.place, spot.offset));
            let Some(header) = header.filter(|header| header.kind == Kind::Put && header.slot == slot) else {
                return Ok(None);
            };
            if let Some(key) = bytes.get(HEADER_BYTES..HEADER_BYTES + header.key_len as usize) {
                let sound = self.fingerprint(key) == header.fingerprint;
                return Ok(sound.then(|| key.to_vec()));
            }
        }
        Ok(None)
    }

    /// Keys in all slots.
    pub fn len(&self) -> u64 {
        self.index.len()
    }

    /// Whether no slot has a key.
    pub fn is_empty(&self) -> bool {
        self.index.len() == 0
    }

    /// Keys in one slot.
    pub fn slot_len(&self, slot: u16) -> u64 {
        self.index.slot_len(slot)
    }

    /// Whether writes can be made at all: no sync or write has failed since the opening.
    pub fn writable(&self) -> bool {
        !self.poisoned
    }

    /// The last write's position, whether durable or not.
    pub fn position(&self) -> Position {
        Position(self.next_sequence - 1)
    }

    /// What the store holds and takes up.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats {
            keys: self.index.len(),
            unsynced_writes: self.next_sequence - 1 - self.durable,
            ..Stats::default()
        };
        for (_, segment) in self.segments.iter() {
            stats.segments += 1;
            stats.live_bytes += segment.live;
            stats.log_bytes += segment.tail - crate::segment::SEGMENT_HEADER_BYTES as u64;
            stats.disk_bytes += if segment.trimmed { segment.tail } else { segment.capacity };
        }
        stats
    }
}

/// Who may use the last room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Leaves room for removals.
    Put,
    /// Frees space in the end, so it may use what is left.
    Removal,
}

fn check_key(key: &[u8]) -> Result<(), WriteError> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(WriteError::KeyLength(key.len()));
    }
    Ok(())
}
