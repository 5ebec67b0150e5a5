//! Work off the put path: preparing segments, giving back room, compaction.

use crate::compaction::Progress;
use crate::disk::Disk;
use crate::error::WriteError;
use crate::segments::is_short_of_numbers;
use crate::store::Store;

/// What a step of [`maintain`](Store::maintain) did, and what is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Maintenance {
    /// There is more to do: call again soon.
    pub more: bool,
    /// There is more to do once a sync has been completed ([`begin_sync`](Store::begin_sync) gives one for it).
    pub needs_sync: bool,
    /// A segment was prepared for the puts to come.
    pub prepared: bool,
    /// Bytes of disk that were given back.
    pub freed_bytes: u64,
}

/// How far compaction is with the segments that it is merging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MergeProgress {
    /// Bytes that have been gone through.
    pub bytes_done: u64,
    /// Bytes of all segments of this merge. When `bytes_done` is as much a sync is to come, and then one more step.
    pub bytes: u64,
}

impl<D: Disk> Store<D> {
    /// How far the merge is that [`maintain`](Self::maintain) is at; `None` if it is at none.
    pub fn merge_progress(&self) -> Option<MergeProgress> {
        let (bytes_done, bytes) = self.merge.as_ref()?.progress(&self.segments);
        Some(MergeProgress { bytes_done, bytes })
    }

    /// Tells the store that what the opening found lost has been put again, from a replica say, or is given up. Until then keys that are not
    /// found read as [`Unknown`](crate::ReadError::Unknown), and compaction
    /// leaves segments alone in which it is [not known](crate::DamageKind::Unknown) what was lost, and each opening tells
    /// of them again; deletes that they may need are kept. Afterwards they are merged away, but where a key of the
    /// index has its record in what can't be read. Openings tell of them until that is done. In memory alone; no call to the disk.
    pub fn accept_losses(&mut self) {
        self.has_unknown = false;
        for segment in self.segments.iter_mut() {
            segment.accepted = segment.unaccounted || segment.accepted;
            (segment.unaccounted, segment.quarantined) = (false, false);
        }
    }

    /// Does a bounded piece of the work that is better not done by a put: prepares the next segment when the active one is
    /// half full, gives back room, seals (hashes and indexes) what is full, compacts, and after an opening by index files reads
    /// segments with records that expire or shrink, once, to learn when. To be called now and then, between writes or when idle; `budget_bytes` bounds what one call reads and
    /// copies (it may go over by as much as it is, from 8 KiB to a quarter of a megabyte, and by one record that is longer). One in three bytes of the log may be dead before compaction
    /// begins, but for segments of which time has taken a half and more, and will soon take little of the rest.
    ///
    /// What it does can be cut off by a crash at any point; nothing is lost, and nothing deleted comes back.
    ///
    /// # Errors
    /// [`WriteError::NoSpace`] and others: nothing is lost, and the step will be tried again.
    pub fn maintain(&mut self, budget_bytes: usize) -> Result<Maintenance, WriteError> {
        if self.poisoned {
            return Err(WriteError::Poisoned);
        }
        match self.flush().and_then(|()| self.ask_for_room()) {
            // Compaction may make the room that is missing.
            Err(WriteError::NoSpace) => {}
            flushed => flushed?,
        }
        self.count_files();
        let mut done = Maintenance::default();
        let wanted = self.active.is_none_or(|active| {
            let active = &self.segments[active];
            active.tail > active.capacity / 2
        });
        let mut failed = None;
        // Not at each step of a merge, which ends with a try.
        self.fill_failed &= self.merge.is_some();
        if self.spare.is_none() && wanted {
            match self.create_for_puts(self.options.segment_bytes) {
                Ok(spare) => {
                    self.spare = Some(spare);
                    self.starved = false;
                    done.prepared = true;
                    done.more = true;
                    return Ok(done);
                }
                // Compaction may make the room that is missing.
                Err(WriteError::NoSpace) => {
                    self.starved = true;
                    failed = Some(WriteError::NoSpace);
                }
                // So it may make fewer of the segments that there are.
                Err(error) if is_short_of_numbers(&error) => failed = Some(error),
                Err(error) => return Err(error),
            }
        }
        if self.trim()? {
            self.make_up();
            done.more = true;
            return Ok(done);
        }
        if self.seal(budget_bytes as u64) {
            done.more = true;
            return Ok(done);
        }
        if self.recount(budget_bytes as u64)? {
            done.more = true;
            return Ok(done);
        }
        match self.compact(budget_bytes as u64)? {
            Progress::Idle if self.learn_expiries(budget_bytes as u64) => done.more = true,
            Progress::Idle => {
                // Readers may have kept room that is there by now.
                self.make_up();
                return failed.map_or(Ok(done), Err);
            }
            Progress::More => done.more = true,
            Progress::AwaitsSync => done.needs_sync = true,
            Progress::Finished(bytes) => {
                done.freed_bytes = bytes;
                done.more = true;
            }
        }
        Ok(done)
    }
}
