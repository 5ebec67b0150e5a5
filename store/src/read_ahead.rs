//! Reading ahead: what a listing needs is brought into memory by somebody who may wait for the disk.

use crate::disk::{Disk, DiskFile};
use crate::options::Reads;
use crate::read::{Cursor, LIST_BYTES};
use crate::store::Store;
use alloc::vec::Vec;
use core::fmt;

/// What the disk has not at hand of a [listing](Store::list), to be read here or on another thread. Nothing depends on it: it may
/// be dropped, or run when the store has changed.
#[must_use = "the disk has it at hand only when the job is run"]
pub struct ReadAhead<D: Disk> {
    spots: Vec<(D::File, u64, usize)>,
}

impl<D: Disk> ReadAhead<D> {
    /// Reads; blocks until the disk has answered. What can't be read shows when it is listed.
    pub fn run(self) {
        let mut bytes = [0; LIST_BYTES];
        for (file, offset, len) in self.spots {
            let _ = file.read_at(offset, &mut bytes[..len]);
        }
    }
}

impl<D: Disk> fmt::Debug for ReadAhead<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadAhead").field("records", &self.spots.len()).finish()
    }
}

impl<D: Disk> Store<D> {
    /// What [`list`](Self::list) would wait for: of up to `limit` keys (at least one) of the slots from `first` on, there from `cursor`
    /// on, to `last`. `None` if the disk has all of it at hand, or [`Options::reads`](crate::Options::reads) says
    /// that reads are made inline.
    #[must_use]
    pub fn read_ahead(&self, first: u16, cursor: Cursor, last: u16, limit: usize) -> Option<ReadAhead<D>> {
        if self.options.reads == Reads::Inline {
            return None;
        }
        let (mut left, mut cold) = (limit.max(1), self.options.reads == Reads::Jobs);
        let mut spots = Vec::new();
        for slot in self.slots(first, last) {
            let from = if slot == first { cursor.as_u64() } else { 0 };
            let hits = self.index.page(slot, from, left);
            left -= hits.len();
            for hit in hits {
                let spot = self.spot(hit.location);
                if self.pending.record(self.active, hit.location, spot.len).is_some() {
                    continue;
                }
                let file = &self.segments[hit.location.segment].file;
                let len = spot.len.min(LIST_BYTES);
                // From the first that is not at hand on, the others are likely to be none either.
                cold = cold || !file.read_cached(spot.offset, &mut [0; LIST_BYTES][..len]);
                if cold {
                    spots.push((file.clone(), spot.offset, len));
                }
            }
            if left == 0 {
                break;
            }
        }
        (!spots.is_empty()).then_some(ReadAhead { spots })
    }
}

#[cfg(test)]
mod tests {
    use crate::{Cursor, MemDisk, Options, Reads, Store};

    fn store(reads: Reads) -> Store<MemDisk> {
        let (mut store, _) =
            Store::open(MemDisk::new(), Options::new([1; 16]).with_reads(reads)).expect("opens");
        for slot in [3, 5, 9] {
            for key in 0..10_u8 {
                store.put(slot, &[key], b"value", 0).expect("room");
            }
        }
        store
    }

    #[test]
    fn as_much_is_read_as_is_listed() {
        let store = store(Reads::Jobs);
        let spots = |first, cursor, last, limit| {
            store.read_ahead(first, cursor, last, limit).map_or(0, |job| job.spots.len())
        };
        assert_eq!(spots(0, Cursor::START, 65_535, 1000), 30);
        assert_eq!(spots(4, Cursor::START, 8, 1000), 10);
        assert_eq!(spots(4, Cursor::START, 9, 13), 13);
        assert_eq!(spots(0, Cursor::START, 65_535, 0), 1);
        assert_eq!(spots(6, Cursor::START, 8, 10), 0);
        let page = store.index.page(5, 0, 7);
        let next = Cursor::from_u64(page.last().expect("a page").fingerprint + 1);
        assert_eq!(spots(5, next, 9, 1000), 13);
        // The cursor is one of the first slot alone.
        assert_eq!(spots(4, next, 5, 1000), 10);
    }

    #[test]
    fn inline_nothing_is() {
        let store = store(Reads::Inline);
        assert!(store.read_ahead(0, Cursor::START, 65_535, 1000).is_none());
    }
}
