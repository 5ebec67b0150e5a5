//! Going through a segment's records, over damage.
//!
//! A record that does not verify is not the end: the scan looks for the next place where one does. What lies between is
//! reported as a gap; what it means (rot or a torn tail) is for recovery to say.

use crate::checksum::Place;
use crate::disk::{DiskError, DiskFile};
use crate::read_around::{read_around, read_full};
use crate::record::{ALIGN, HEADER_BYTES, Header};
use crate::segment::SEGMENT_HEADER_BYTES;
use alloc::vec::Vec;
use core::ops::Range;

/// Bytes read at once, so few that they stay in the processor's cache; more only for a record that is longer.
const WINDOW_BYTES: u64 = 256 << 10;

/// The fewest that are worth a call to the disk.
const MIN_WINDOW_BYTES: u64 = 8 << 10;

/// How much to read at once where a step may read so many bytes in all.
pub(crate) fn window_bytes(budget: u64) -> u64 {
    budget.clamp(MIN_WINDOW_BYTES, WINDOW_BYTES)
}

/// How many times the segment's length may be looked at in vain.
const WASTED_PART: u64 = 64;

/// What stands next in the segment.
#[derive(Debug)]
pub(crate) enum Found {
    /// A record whose header holds.
    Record {
        offset: u64,
        header: Header,
        /// Key, value and padding are what was written.
        intact: bool,
        /// One bit of the header was wrong and has been made right (in memory only).
        mended: bool,
    },
    /// Bytes from `start` to `end` hold no record that verifies. `trailing`: and none comes after them.
    Gap { start: u64, end: u64, trailing: bool },
    /// Nothing but zeros from here to the limit.
    End { offset: u64 },
    /// Nothing yet: a record is looked for past what is none, and a window's worth has been gone through. The next call goes on.
    Searching,
}

/// How far a search for the next record has come.
#[derive(Clone, Copy, Debug)]
struct Search {
    /// Where what is no record begins.
    start: u64,
    /// The end of what is not zero.
    used: u64,
    /// Where to go on.
    offset: u64,
}

/// Goes through the records of one segment.
pub(crate) struct Scan<F> {
    file: F,
    place: Place,
    position: u64,
    limit: u64,
    window: Vec<u8>,
    window_start: u64,
    /// Bytes to read at once.
    window_bytes: u64,
    /// A search for a record that is under way.
    search: Option<Search>,
    /// Ranges known to hold no records.
    skip: Vec<(u64, u64)>,
    skipped: usize,
    /// What the disk refuses to read is passed over, as if it were damaged.
    reads_around: bool,
    /// Ranges that it refused.
    unreadable: Vec<(u64, u64)>,
    /// Bytes read from the disk.
    pub(crate) bytes_read: u64,
    /// Bytes that resynchronisation looked at for headers that turned out to be none.
    wasted: u64,
}

impl<F: DiskFile> Scan<F> {
    /// From the first record to `limit`, or to where the file ends before that. `skip`: ranges to pass over, in order.
    pub(crate) fn new(file: F, place: Place, limit: u64, skip: Vec<(u64, u64)>) -> Result<Self, DiskError> {
        // Cut down to whole units: records start and end at multiples of eight.
        let limit = limit.min(file.size()?) / ALIGN as u64 * ALIGN as u64;
        Ok(Self {
            file,
            place,
            position: SEGMENT_HEADER_BYTES as u64,
            limit,
            window: Vec::new(),
            window_start: 0,
            window_bytes: WINDOW_BYTES,
            search: None,
            skip,
            skipped: 0,
            reads_around: false,
            unreadable: Vec::new(),
            bytes_read: 0,
            wasted: 0,
        })
    }

    /// Reads no more at once than is fit for steps of so many bytes, or than one record has.
    pub(crate) fn go_by_budget(&mut self, bytes: u64) {
        self.window_bytes = window_bytes(bytes);
    }

    /// Passes over what the disk refuses to read from here on, as if it were damaged, instead of failing there.
    pub(crate) fn read_around(&mut self) {
        self.reads_around = true;
    }

    /// Whether the disk refused to read any of this range.
    pub(crate) fn is_unreadable(&self, start: u64, end: u64) -> bool {
        self.unreadable.iter().any(|refused| refused.0 < end && start < refused.1)
    }

    /// Where the scan stands.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Goes back to a place where it stood.
    pub(crate) fn rewind(&mut self, position: u64) {
        self.position = position;
        self.search = None;
        self.skipped = self.skip.partition_point(|(_, end)| *end <= position);
    }

    /// Has the window hold `len` bytes at `offset`, which end before the limit.
    fn load(&mut self, offset: u64, len: usize) -> Result<(), DiskError> {
        let end = self.window_start + self.window.len() as u64;
        if offset >= self.window_start && offset + len as u64 <= end {
            return Ok(());
        }
        let want = (self.limit - offset).min(self.window_bytes.max(len as u64));
        let want = usize::try_from(want).expect("no longer than a window or a record");
        self.window.resize(want, 0);
        self.fill(offset, 0..want)?;
        self.window_start = offset;
        Ok(())
    }

    /// Reads what stands at `offset` into a part of the window.
    fn fill(&mut self, offset: u64, part: Range<usize>) -> Result<(), DiskError> {
        let unreadable = &mut self.unreadable;
        let mut refused = |start, end| match unreadable.last_mut() {
            Some(last) if last.0 <= start && start <= last.1 => last.1 = last.1.max(end),
            _ => unreadable.push((start, end)),
        };
        let into = &mut self.window[part.clone()];
        let read = if self.reads_around {
            read_around(&self.file, offset, into, &mut refused)
        } else {
            read_full(&self.file, offset, into)
        };
        match read {
            Ok(read) => {
                // A file that got shorter under our hands reads as zeros: no record verifies there.
                self.window[part.start + read..part.end].fill(0);
                self.bytes_read += read as u64;
                Ok(())
            }
            Err(error) => {
                // What the window holds now is nothing of the disk's: the next try has to read.
                self.window.clear();
                Err(error)
            }
        }
    }

    /// What was not whole may have been read wrong: it is read once more, and nothing but it.
    fn read_again(&mut self, offset: u64, header: Option<&Header>) -> Result<bool, DiskError> {
        let left = self.limit - offset;
        let len = header.map_or(HEADER_BYTES, Header::record_len);
        if len as u64 > left || self.is_unreadable(offset, offset + len as u64) {
            return Ok(false);
        }
        self.load(offset, len)?;
        // Where nothing was written the log ends.
        if self.bytes(offset, ALIGN) == [0; ALIGN] {
            return Ok(false);
        }
        let at = usize::try_from(offset - self.window_start).expect("inside the window");
        self.fill(offset, at..at + len)?;
        Ok(true)
    }

    /// The record at this place: its header, whether that had to be mended, and whether the body is whole.
    fn record_at(&mut self, offset: u64) -> Result<Option<(Header, bool, bool)>, DiskError> {
        match self.header_at(offset)? {
            Some(header) => Ok(Some((header, false, self.body_holds(offset, &header)?))),
            None => Ok(self.mended_at(offset)?.map(|header| (header, true, true))),
        }
    }

    /// Bytes of the record that was found last, or inside the window otherwise.
    pub(crate) fn bytes(&self, offset: u64, len: usize) -> &[u8] {
        let at = usize::try_from(offset - self.window_start).expect("inside the window");
        &self.window[at..at + len]
    }

    /// Whether the last byte of the record that was found last, and is not whole, is missing or as if it had never been written.
    pub(crate) fn has_blank_end(&self, offset: u64, header: &Header) -> bool {
        let len = HEADER_BYTES + header.payload_len();
        header.record_len() as u64 > self.limit - offset || self.bytes(offset, len)[len - 1] == 0
    }

    fn header_at(&mut self, offset: u64) -> Result<Option<Header>, DiskError> {
        if self.limit.saturating_sub(offset) < HEADER_BYTES as u64 {
            return Ok(None);
        }
        self.load(offset, HEADER_BYTES)?;
        Ok(Header::decode(self.bytes(offset, HEADER_BYTES), self.place, offset))
    }

    /// Whether the body after this header is whole; `false` too if it goes past the limit.
    fn body_holds(&mut self, offset: u64, header: &Header) -> Result<bool, DiskError> {
        let len = header.record_len();
        if len as u64 > self.limit - offset {
            return Ok(false);
        }
        self.load(offset, len)?;
        Ok(header.body_is_intact(&self.bytes(offset, len)[HEADER_BYTES..], self.place, offset))
    }

    /// A header with one wrong bit is taken only if the body's checksum agrees.
    fn mended_at(&mut self, offset: u64) -> Result<Option<Header>, DiskError> {
        if self.limit.saturating_sub(offset) < HEADER_BYTES as u64 {
            return Ok(None);
        }
        self.load(offset, HEADER_BYTES)?;
        let Some(header) = Header::mend(self.bytes(offset, HEADER_BYTES), self.place, offset) else {
            return Ok(None);
        };
        Ok(self.body_holds(offset, &header)?.then_some(header))
    }

    /// The next thing in the segment. Reads a window at most, and a record that is longer.
    pub(crate) fn next(&mut self) -> Result<Found, DiskError> {
        if let Some(search) = self.search.take() {
            return self.gap(search);
        }
        while let Some((start, end)) = self.skip.get(self.skipped).copied()
            && start <= self.position
        {
            self.position = self.position.max(end);
            self.skipped += 1;
        }
        let offset = self.position;
        if offset >= self.limit {
            // A file that is shorter than its header has lost what comes after that.
            return Ok(Found::End { offset: self.limit.max(SEGMENT_HEADER_BYTES as u64) });
        }
        let mut found = self.record_at(offset)?;
        if !matches!(found, Some((_, false, true)))
            && self.read_again(offset, found.as_ref().map(|(header, ..)| header))?
        {
            found = self.record_at(offset)?;
        }
        let Some((header, mended, intact)) = found else {
            return self.gap(Search { start: offset, used: offset, offset });
        };
        self.position = (offset + header.record_len() as u64).min(self.limit);
        Ok(Found::Record { offset, header, intact, mended })
    }

    /// Looks for the next record after something that is none.
    fn gap(&mut self, search: Search) -> Result<Found, DiskError> {
        let Search { start, mut used, mut offset } = search;
        let before = self.bytes_read;
        while offset < self.limit {
            if offset - search.offset >= self.window_bytes || self.bytes_read - before >= self.window_bytes {
                self.search = Some(Search { start, used, offset });
                return Ok(Found::Searching);
            }
            if let Some((skip, end)) = self.skip.get(self.skipped).copied()
                && skip <= offset
            {
                // A known gap; what comes after it is known to be a record or damage of its own.
                self.position = end;
                self.skipped += 1;
                return Ok(Found::Gap { start, end: skip, trailing: false });
            }
            self.load(offset, ALIGN)?;
            // No record begins with eight zeros: two checksums would have to be zero at once.
            if self.bytes(offset, ALIGN) == [0; ALIGN] {
                offset = self.after_zeros(offset);
                continue;
            }
            if offset > start && self.is_record(offset)? {
                self.position = offset;
                return Ok(Found::Gap { start, end: offset, trailing: false });
            }
            offset += ALIGN as u64;
            used = offset;
        }
        if used == start {
            self.position = self.limit;
            return Ok(Found::End { offset: start });
        }
        // The zeros that follow are the end, and where that is matters to whoever knows where the records ended.
        self.position = used;
        Ok(Found::Gap { start, end: used, trailing: true })
    }

    /// Passes over zeros inside the window, a block at a time.
    fn after_zeros(&self, from: u64) -> u64 {
        const BLOCK: usize = 512;
        let end = self.window_start + self.window.len() as u64;
        let mut offset = from;
        while offset + (BLOCK as u64) <= end && self.bytes(offset, BLOCK) == [0; BLOCK] {
            offset += BLOCK as u64;
        }
        if offset == from { from + ALIGN as u64 } else { offset }
    }

    /// Resynchronisation believes a record whose body holds, or a header with another one (or the end) right after it. Headers that
    /// were made up, each with a long body that is none, are not followed for ever.
    fn is_record(&mut self, offset: u64) -> Result<bool, DiskError> {
        let Some(header) = self.header_at(offset)? else { return Ok(false) };
        if self.wasted > self.limit.saturating_mul(WASTED_PART) {
            // Whether records follow is not known: as if it could not be read, so that nobody takes it for a torn end.
            let rest = (offset, self.limit);
            if self.unreadable.last().is_none_or(|last| last.1 < rest.1) {
                self.unreadable.push(rest);
            }
            return Ok(false);
        }
        let before = self.bytes_read;
        if self.body_holds(offset, &header)? {
            return Ok(true);
        }
        let next = offset + header.record_len() as u64;
        let believed = next == self.limit || self.header_at(next)?.is_some();
        if !believed {
            self.wasted += self.bytes_read - before + header.record_len() as u64;
        }
        Ok(believed)
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;
    use crate::Disk;
    use crate::checksum::crc;
    use crate::mem_disk::MemDisk;
    use crate::record::{Draft, Kind};
    use alloc::vec;

    #[test]
    fn headers_that_claim_long_bodies_cost_no_more_than_their_segment_many_times() {
        const LIMIT: usize = 1 << 20;
        let place = Place::new(7, 1);
        let value = vec![0; 300_001];
        let draft = Draft {
            kind: Kind::Put,
            slot: 0,
            sequence: 1,
            fingerprint: 1,
            tag: 1,
            term: crate::record::Term::None,
            key: b"key",
            value: &value,
        };
        let mut record = Vec::new();
        draft.append_to(&mut record, place, 0);
        assert!(!record.len().is_multiple_of(HEADER_BYTES), "none is followed by another");
        let mut bytes = vec![0xee; LIMIT];
        for at in (SEGMENT_HEADER_BYTES + 8..LIMIT - HEADER_BYTES).step_by(HEADER_BYTES) {
            let header = &mut bytes[at..at + HEADER_BYTES];
            header.copy_from_slice(&record[..HEADER_BYTES]);
            let sum = crc(place.seeds(at as u64).header, &header[4..]);
            header[..4].copy_from_slice(&sum.to_le_bytes());
        }
        // What stands behind them is not looked for, so nobody may take it for a torn end.
        let last = LIMIT - 4 * HEADER_BYTES;
        let mut whole = Vec::new();
        Draft { value: b"value", ..draft }.append_to(&mut whole, place, last as u64);
        bytes[last..last + whole.len()].copy_from_slice(&whole);
        let disk = MemDisk::new();
        disk.plant("crafted", &bytes);
        let file = disk.open("crafted").expect("there");
        let mut scan = Scan::new(file, place, LIMIT as u64, Vec::new()).expect("the disk is well");
        let found = loop {
            let before = scan.bytes_read;
            match scan.next().expect("the disk is well") {
                Found::Searching => {}
                found => break found,
            }
            let read = scan.bytes_read - before;
            assert!(read <= 2 * WINDOW_BYTES + 2 * record.len() as u64, "{read} bytes at once");
        };
        let Found::Gap { start, end, trailing: true } = found else { panic!("a gap to the end") };
        assert!(scan.bytes_read < 100 * LIMIT as u64, "{} bytes were read", scan.bytes_read);
        assert!(scan.is_unreadable(start, end));
    }
}
