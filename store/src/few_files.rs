//! Few open files: each segment is one, and a process may open so many and no more. Some are kept for compaction and for segments of
//! removals; where there are no others puts get no segment, and compaction makes few long segments of many.

use crate::disk::{Disk, DiskError, DiskErrorKind};
use crate::error::WriteError;
use crate::record::MAX_SEGMENT_BYTES;
use crate::segments::MAX_SEGMENTS;
use crate::store::{Store, Urgency};

/// What a merge needs: its output, and for a moment a manifest or the chain.
const FOR_MERGES: usize = 2;
/// What puts leave. More than this a disk need not count.
const FOR_PUTS: usize = 8;
/// Compaction then makes segments of up to so many times the usual length. Half of that they have, all but one of them, once no two can be
/// merged: half as many as the log would be of segments that are full, and it doubles at most when all that is live gets a delete.
const LENGTHS: u64 = 4;

impl<D: Disk> Store<D> {
    /// Whether a segment may be made for such a write. If not, compaction makes fewer of those that there are.
    pub(crate) fn may_make_segment(&mut self, urgency: Urgency) -> Result<(), WriteError> {
        let least = match urgency {
            Urgency::Put => FOR_PUTS,
            Urgency::Removal => FOR_MERGES + 1,
        };
        let may = if MAX_SEGMENTS - self.segments.iter().count() < least {
            Err(WriteError::TooManySegments)
        } else if self.disk.spare_files() < least {
            Err(WriteError::NewSegment(DiskError::new(DiskErrorKind::TooManyFiles, "make a segment")))
        } else {
            Ok(())
        };
        self.few_files |= may.is_err();
        may
    }

    /// What the output of a merge may have where files are few.
    pub(crate) fn longer_segment_bytes(&self) -> u64 {
        (self.options.segment_bytes * LENGTHS).min(MAX_SEGMENT_BYTES)
    }

    /// Takes note that there are enough again.
    pub(crate) fn count_files(&mut self) {
        self.few_files = self.few_files && self.may_make_segment(Urgency::Put).is_err();
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;
    use crate::{MemDisk, Options};

    fn upkeep(store: &mut Store<MemDisk>) {
        for _ in 0..10_000 {
            store.sync().expect("syncs");
            match store.maintain(1 << 20) {
                Ok(done) if done.more || done.needs_sync => {}
                Ok(_) | Err(WriteError::TooManySegments) => return,
                Err(error) => panic!("{error}"),
            }
        }
        panic!("upkeep comes to no end");
    }

    #[test]
    fn a_store_that_has_all_its_numbers_is_emptied() {
        let options = |seed| Options::new([seed; 16]).with_segment_bytes(4096);
        let disk = MemDisk::new();
        let (mut store, _) = Store::open(disk.clone(), options(1)).expect("opens");
        let refused = (0u32..).find_map(|n| Some((n, store.put(1, &n.to_le_bytes(), &[7; 100], 1).err()?)));
        let (stored, error) = refused.expect("numbers are few");
        assert!(error == WriteError::TooManySegments && store.segments.iter().count() > MAX_SEGMENTS / 2);
        drop(store);
        disk.kill();
        let (mut store, _) = Store::open(disk, options(2)).expect("opens");
        for n in (0..9).flat_map(|from| (from..stored).step_by(9)) {
            let mut deleted = store.delete(1, &n.to_le_bytes());
            if deleted == Err(WriteError::TooManySegments) {
                upkeep(&mut store);
                deleted = store.delete(1, &n.to_le_bytes());
            }
            assert!(deleted.is_ok(), "{n} of {stored}: {deleted:?}");
        }
        upkeep(&mut store);
        assert!(store.is_empty());
        let mut put = |n: u32| {
            let mut done = store.put(1, &n.to_le_bytes(), &[7; 100], 1);
            if done == Err(WriteError::TooManySegments) {
                upkeep(&mut store);
                done = store.put(1, &n.to_le_bytes(), &[7; 100], 1);
            }
            done.is_ok()
        };
        assert!((0..stored).all(&mut put), "as many again");
    }
}
