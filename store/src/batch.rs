//! Lines on their way into the index, parted by their slots.

use crate::summary::Line;
use alloc::vec::Vec;

/// Slots of one part: so few that the tables of a part's lines stay in the processor's cache.
pub(crate) const PART_SLOTS: usize = 128;
const PARTS: usize = (1 << 16) / PART_SLOTS;

/// Some lines of one part. Of a fixed length, so that none is moved to make room for more.
pub(crate) type Chunk = Vec<Line>;
const CHUNK_LINES: usize = 128;

/// Lines of one segment that are handed on together.
pub(crate) struct Batch {
    /// Chunks that are full, with their parts' numbers.
    full: Vec<(usize, Chunk)>,
    /// One for each part.
    open: Vec<Chunk>,
    len: usize,
    room: usize,
}

impl Batch {
    /// So many lines are handed on together: 10 MiB of them.
    const FULL: usize = 1 << 18;

    pub(crate) fn new() -> Self {
        let mut open = Vec::new();
        open.resize_with(PARTS, Vec::new);
        Self { full: Vec::new(), open, len: 0, room: 0 }
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, line: Line) {
        let part = usize::from(line.slot) / PART_SLOTS;
        if self.open[part].len() == self.open[part].capacity() {
            self.open_next(part);
        }
        self.open[part].push(line);
        self.len += 1;
    }

    #[cold]
    fn open_next(&mut self, part: usize) {
        let old = core::mem::replace(&mut self.open[part], Vec::with_capacity(CHUNK_LINES));
        self.full.push((part, old));
        self.room += CHUNK_LINES;
    }

    #[cfg(feature = "std")]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// For how many lines it has taken memory: many times as many as it has, where they are few and spread over the slots.
    pub(crate) fn room(&self) -> usize {
        self.room
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len >= Self::FULL
    }

    /// The lines, with the numbers of their parts; those of one part in the order of the log.
    pub(crate) fn into_chunks(self) -> impl Iterator<Item = (usize, Chunk)> {
        self.full.into_iter().chain(self.open.into_iter().enumerate()).filter(|(_, chunk)| !chunk.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_index::SizeClass;
    use crate::record::Kind;

    #[test]
    fn its_room_is_the_memory_that_it_takes() {
        for (lines, parts) in [(0, 1), (1, 1), (129, 1), (512, 512), (3 * 512, 512), (70_000, 100)] {
            let mut batch = Batch::new();
            for n in 0..lines {
                let slot = u16::try_from(n % parts * PART_SLOTS).expect("a slot");
                let size = SizeClass::of(100);
                let kind = Kind::Put;
                batch.push(Line {
                    fingerprint: 1,
                    sequence: 1,
                    tag: 0,
                    key_hash: 0,
                    unit: 8,
                    slot,
                    kind,
                    size,
                });
            }
            let room = batch.room();
            let (mut taken, mut held) = (0, 0);
            for (_, chunk) in batch.into_chunks() {
                taken += chunk.capacity();
                held += chunk.len();
            }
            assert_eq!((room, held), (taken, lines), "{lines} lines of {parts} parts");
        }
    }
}
