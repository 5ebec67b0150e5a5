//! Going through a segment's records, over damage.
//!
//! A record that does not verify is not the end: the scan looks for the next place where one does. What lies between is
//! reported as a gap; what it means (rot or a torn tail) is for recovery to say.

use crate::checksum::Place;
use crate::disk::{DiskError, DiskFile};
use crate::read_around::read_around;
use crate::record::{ALIGN, HEADER_BYTES, Header};
use crate::segment::SEGMENT_HEADER_BYTES;
use alloc::vec::Vec;

/// Bytes read at once, so few that they stay in the processor's cache; more only for a record that is longer.
const WINDOW_BYTES: usize = 256 << 10;

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
}

/// Goes through the records of one segment.
pub(crate) struct Scan<F> {
    file: F,
    place: Place,
    position: u64,
    limit: u64,
    window: Vec<u8>,
    window_start: u64,
    /// Ranges known to hold no records.
    skip: Vec<(u64, u64)>,
    skipped: usize,
    /// What the disk refuses to read is passed over, as if it were damaged.
    reads_around: bool,
    /// Ranges that it refused.
    unreadable: Vec<(u64, u64)>,
    /// Bytes read from the disk.
    pub(crate) bytes_read: u64,
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
            skip,
            skipped: 0,
            reads_around: false,
            unreadable: Vec::new(),
            bytes_read: 0,
        })
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
        self.skipped = self.skip.partition_point(|(_, end)| *end <= position);
    }

    /// Has the window hold `len` bytes at `offset`, which end before the limit.
    fn load(&mut self, offset: u64, len: usize) -> Result<(), DiskError> {
        let end = self.window_start + self.window.len() as u64;
        if offset >= self.window_start && offset + len as u64 <= end {
            return Ok(());
        }
        let want = (self.limit - offset).min(WINDOW_BYTES.max(len) as u64);
        let want = usize::try_from(want).expect("no longer than a window or a record");
        self.window.resize(want, 0);
        let unreadable = &mut self.unreadable;
        let mut refused = |start, end| match unreadable.last_mut() {
            Some(last) if last.0 <= start && start <= last.1 => last.1 = last.1.max(end),
            _ => unreadable.push((start, end)),
        };
        let read = if self.reads_around {
            read_around(&self.file, offset, &mut self.window, &mut refused)
        } else {
            self.file.read_at(offset, &mut self.window)
        };
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                // What the window holds now is nothing of the disk's: the next try has to read.
                self.window.clear();
                return Err(error);
            }
        };
        // A file that got shorter under our hands reads as zeros: no record verifies there.
        self.window[read..].fill(0);
        self.window_start = offset;
        self.bytes_read += read as u64;
        Ok(())
    }

    /// Bytes of the record that was found last, or inside the window otherwise.
    pub(crate) fn bytes(&self, offset: u64, len: usize) -> &[u8] {
        let at = usize::try_from(offset - self.window_start).expect("inside the window");
        &self.window[at..at + len]
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

    /// The next thing in the segment.
    pub(crate) fn next(&mut self) -> Result<Found, DiskError> {
        while let Some((start, end)) = self.skip.get(self.skipped).copied()
            && start <= self.position
        {
            self.position = self.position.max(end);
            self.skipped += 1;
        }
        let offset = self.position;
        if offset >= self.limit {
            return Ok(Found::End { offset: self.limit });
        }
        let (header, mended) = match self.header_at(offset)? {
            Some(header) => (header, false),
            None => match self.mended_at(offset)? {
                Some(header) => (header, true),
                None => return self.gap(offset),
            },
        };
        let intact = self.body_holds(offset, &header)?;
        self.position = (offset + header.record_len() as u64).min(self.limit);
        Ok(Found::Record { offset, header, intact, mended })
    }

    /// Looks for the next record after something that is none.
    fn gap(&mut self, start: u64) -> Result<Found, DiskError> {
        let mut used = start; // The end of what is not zero.
        let mut offset = start;
        while offset < self.limit {
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
        self.position = self.limit;
        if used == start {
            return Ok(Found::End { offset: start });
        }
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

    /// Resynchronisation believes a record whose body holds, or a header with another one (or the end) right after it.
    fn is_record(&mut self, offset: u64) -> Result<bool, DiskError> {
        let Some(header) = self.header_at(offset)? else { return Ok(false) };
        if self.body_holds(offset, &header)? {
            return Ok(true);
        }
        let next = offset + header.record_len() as u64;
        Ok(next == self.limit || self.header_at(next)?.is_some())
    }
}
