//! Room on a full disk: what is put aside for compaction and removals, and to whom it is given.

use crate::chain::ENTRY_BYTES;
use crate::compaction::MAX_VICTIMS;
use crate::disk::{Disk, DiskError, DiskErrorKind, DiskFile};
use crate::error::WriteError;
use crate::manifest::Manifest;
use crate::segment::SEGMENT_HEADER_BYTES;
use crate::segments::not_made;
use crate::store::Store;
use alloc::vec;

/// The file that holds room for compaction on a full disk. It has no contents.
pub(crate) const RESERVE: &str = "RESERVE";

/// A file that is made to ask for room, and removed at once.
pub(crate) const PROBE: &str = "RESERVE.new";

/// File systems give room and take it back in blocks of this many bytes, most of them.
pub(crate) const BLOCK_BYTES: u64 = 4096;
/// Zeros that are written at once.
const PIECE_BYTES: usize = 64 << 10;

impl<D: Disk> Store<D> {
    /// What a change of the manifest takes on a full disk, if there are so many segments more by then.
    fn manifest_bytes(&self, more: usize) -> u64 {
        let chained = (MAX_VICTIMS + 1) * ENTRY_BYTES;
        self.manifest_file_bytes(more) + chained as u64
    }

    fn manifest_file_bytes(&self, more: usize) -> u64 {
        let gaps = self.segments.iter().map(|(_, segment)| segment.torn.len()).sum();
        Manifest::file_bytes(self.segments.iter().count() + more, gaps)
    }

    /// What a merge needs on a full disk: a segment, what is buffered and has to be written before the victims go, and a manifest.
    fn merge_bytes(&self, more: usize) -> u64 {
        self.options.segment_bytes + self.options.write_buffer_bytes as u64 + self.manifest_bytes(more)
    }

    /// Room for removals. There must be many of them where each frees little of many segments.
    fn removal_bytes(&self) -> u64 {
        // They may have to be written with all that is buffered.
        self.options.segment_bytes / 8 + self.options.write_buffer_bytes as u64
    }

    /// What is put aside: what a merge needs, and room for removals, in a small segment of their own if need be.
    fn reserve_wanted(&self) -> u64 {
        // For a few segments more, so that it need not be made anew for each.
        let more = 32 - self.segments.iter().count() % 32;
        self.merge_bytes(more) + SEGMENT_HEADER_BYTES as u64 + self.removal_bytes() + 2 * BLOCK_BYTES
    }

    pub(crate) fn reserve_is_whole(&self) -> bool {
        self.reserve_bytes >= self.reserve_wanted()
    }

    /// What is put aside for the output of a merge.
    pub(crate) fn output_room(&self) -> u64 {
        self.reserve_bytes.saturating_sub(self.options.write_buffer_bytes as u64 + self.manifest_bytes(0))
    }

    /// Puts room aside for a full disk: for compaction, without which writers get no new segment, and for a small segment of
    /// removals, which is made up for with `all` or while the disk is not full.
    pub(crate) fn hold_reserve(&mut self, all: bool) -> Result<(), WriteError> {
        let (needed, wanted) = (self.merge_bytes(1), self.reserve_wanted());
        let before = self.reserve_bytes;
        if before >= wanted || (before >= needed && self.starved && !all) {
            return Ok(());
        }
        // Each try would write it full of zeros again.
        if self.fill_failed && !all {
            return if before < needed { Err(WriteError::NoSpace) } else { Ok(()) };
        }
        // Most often there is not. What is put aside is not given up to find that out.
        if (before > 0 || self.starved)
            && !self.may_have_room(if before < needed && !all { needed - before } else { BLOCK_BYTES })
        {
            return if before < needed { Err(WriteError::NoSpace) } else { Ok(()) };
        }
        self.reserve_bytes = 0;
        // Of what removals are to have as much as there is; and what a merge has given back better too little than none. Other room that
        // is not enough is left to removals.
        let above = (0..=4).rev().map(|part| needed + (wanted - needed) * part / 4);
        let below = (1..if all { 8 } else { 1 }).rev().map(|part| needed * part / 8);
        self.make_first(above.chain(below).filter(|less| *less > before).chain([before]))?;
        if self.reserve_bytes >= needed {
            return Ok(());
        }
        if !all && self.reserve_bytes > before {
            let _ = self.release_reserve();
            self.make_first([before].into_iter())?;
        }
        Err(WriteError::NoSpace)
    }

    /// Makes a segment that puts may fill, if removals still have room after that.
    pub(crate) fn create_for_puts(&mut self, capacity: u64) -> Result<u16, WriteError> {
        self.hold_reserve(false)?;
        let least =
            self.merge_bytes(2) + SEGMENT_HEADER_BYTES as u64 + self.removal_bytes() / 2 + 2 * BLOCK_BYTES;
        // What removals have taken of it is made up for once there is room again.
        if self.reserve_bytes < least && !self.fill_failed && self.may_have_room(least - self.reserve_bytes) {
            self.hold_reserve(true)?;
        }
        if self.reserve_bytes < least {
            return Err(WriteError::NoSpace);
        }
        self.create_segment(capacity)
    }

    /// Makes a small segment of removals from the reserve, if that leaves enough for compaction.
    pub(crate) fn create_from_reserve(&mut self, capacity: u64) -> Result<u16, WriteError> {
        let needed = self.merge_bytes(1);
        // The manifest and the chain may get longer by it.
        let longer = self.manifest_file_bytes(1) - self.manifest_file_bytes(0);
        let spent = capacity + longer + self.chain.pending.len() as u64;
        if self.reserve_bytes < needed + spent && !self.fill_failed {
            // What little room there is beside it may be enough.
            let before = core::mem::take(&mut self.reserve_bytes);
            self.make_first([needed + spent, before].into_iter())?;
        }
        let before = self.reserve_bytes;
        // One that is too small for some merges serves removals as well.
        let kept = if before < needed { needed / 2 } else { needed };
        if before < kept + spent || !self.release_reserve() {
            return Err(WriteError::NoSpace);
        }
        let made = self.create_segment(capacity);
        let _ = self.make_first([before - spent, kept].into_iter());
        made
    }

    /// Whether the disk has so much room more; one that reserves none says so in any case.
    fn may_have_room(&self, bytes: u64) -> bool {
        let made = self.disk.create(PROBE, bytes);
        let _ = self.disk.remove(PROBE);
        !made.is_err_and(|error| error.kind() == DiskErrorKind::NoSpace)
    }

    /// Makes the first of these that there is room for.
    fn make_first(&mut self, sizes: impl Iterator<Item = u64>) -> Result<(), WriteError> {
        for bytes in sizes.filter(|bytes| *bytes > 0) {
            match self.make_reserve(bytes) {
                Err(WriteError::NoSpace) => {}
                made => return made,
            }
        }
        Ok(())
    }

    /// Makes the file that holds room, in the place of one that holds too little. Where the disk reserves none it holds what there is,
    /// if there is less than that.
    fn make_reserve(&mut self, bytes: u64) -> Result<(), WriteError> {
        match self.disk.remove(RESERVE) {
            Err(error) if error.kind() != DiskErrorKind::NotFound => return Err(not_made(error)),
            Err(_) => {}
            // Some file systems (ext4) give room back no sooner.
            Ok(()) => self.disk.sync_dir().map_err(not_made)?,
        }
        let made = self.disk.create(RESERVE, bytes).map_err(not_made)?;
        let mut filled = fill(&made, bytes).map(|()| bytes);
        if filled.as_ref().is_err_and(|error| error.kind() == DiskErrorKind::NoSpace) {
            self.fill_failed = true;
            filled = made.size();
        }
        // What a power cut takes back is not room.
        let synced =
            filled.and_then(|bytes| made.sync_data().and_then(|()| self.disk.sync_dir()).map(|()| bytes));
        if let Err(error) = &synced {
            let _ = self.disk.remove(RESERVE);
            return Err(not_made(*error));
        }
        self.reserve_bytes = synced.unwrap_or(0);
        Ok(())
    }

    /// The room that an earlier opening put aside. It may be too little: of segments of another size, and after some power cuts.
    pub(crate) fn finds_reserve(disk: &D) -> u64 {
        disk.open(RESERVE).and_then(|file| file.size()).unwrap_or(0)
    }

    /// Gives the room that was put aside to compaction. Answers whether there was any.
    pub(crate) fn release_reserve(&mut self) -> bool {
        core::mem::take(&mut self.reserve_bytes) > 0 && self.disk.remove(RESERVE).is_ok()
    }

    /// Gives so much of the room that was put aside, if that leaves what is to be kept.
    fn cut_reserve(&mut self, bytes: u64, kept: u64) -> bool {
        // A block more, for what is written need not begin where one does.
        let left = self.reserve_bytes.saturating_sub(bytes + BLOCK_BYTES) / BLOCK_BYTES * BLOCK_BYTES;
        let is_enough = left > 0 && left >= kept;
        let cut = is_enough && self.disk.open(RESERVE).and_then(|file| file.truncate(left)).is_ok();
        if cut {
            self.reserve_bytes = left;
        }
        cut
    }

    /// Gives what is buffered room from the reserve, where more room comes of it: removals, and what a merge waits for.
    pub(crate) fn lend_to_pending(&mut self, merge_waits: bool) -> bool {
        let kept = if merge_waits { self.manifest_bytes(0) } else { self.merge_bytes(1) };
        self.cut_reserve(self.pending.bytes.len() as u64, kept)
    }

    /// Whether there is room again for what a write was refused, beside what was lent since: zeros are written where it would be, and
    /// cut off again.
    pub(crate) fn ask_for_room(&mut self) -> Result<(), WriteError> {
        let Some(active) = self.active.filter(|_| self.refused_bytes > 0) else { return Ok(()) };
        let segment = &self.segments[active];
        let at = if self.pending.bytes.is_empty() { segment.tail } else { self.pending.start };
        let refused = self.refused_bytes.max(self.pending.bytes.len()).min(PIECE_BYTES) as u64;
        let lent = if self.lent { 2 * BLOCK_BYTES } else { 0 };
        let bytes = (refused + lent).min(segment.capacity - at);
        let zeros = vec![0; usize::try_from(bytes).expect("a piece and two blocks")];
        let written = segment.file.write_at(at, &zeros);
        let cut = segment.file.truncate(at);
        match written.and(cut) {
            Ok(()) => {
                (self.refused_bytes, self.lent) = (0, false);
                Ok(())
            }
            Err(error) if error.kind() == DiskErrorKind::NoSpace => Err(WriteError::NoSpace),
            Err(error) => {
                self.poisoned = true;
                Err(WriteError::Disk(error))
            }
        }
    }

    /// Gives so much room to the output of a merge, and if there is no more in the reserve all of that.
    pub(crate) fn lend_for_output(&mut self, bytes: u64) -> bool {
        let kept = self.options.write_buffer_bytes as u64 + self.manifest_bytes(0);
        self.cut_reserve(bytes, kept) || self.release_reserve()
    }

    /// The same where the disk reserves no room: the output is written full, or others would take it.
    pub(crate) fn lend_to_output(&mut self, file: &D::File, capacity: u64) -> Result<(), WriteError> {
        let missing = capacity.saturating_sub(file.size().map_err(not_made)?);
        if missing > self.reserve_bytes || !self.lend_for_output(missing) {
            return Err(WriteError::NoSpace);
        }
        fill(file, capacity).map_err(not_made)
    }
}

/// Writes zeros up to `bytes`, where the disk has not reserved so much.
fn fill<F: DiskFile>(file: &F, bytes: u64) -> Result<(), DiskError> {
    let mut at = file.size()?;
    let zeros = vec![0; if at < bytes { PIECE_BYTES } else { 0 }];
    while at < bytes {
        let piece = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(PIECE_BYTES);
        file.write_at(at, &zeros[..piece])?;
        at += piece as u64;
    }
    Ok(())
}
