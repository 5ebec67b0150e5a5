//! Room on a full disk: what is put aside for compaction and removals, and to whom it is given.
//!
//! All of a store can be deleted on a full disk, however thinly its deletes are spread, for what is put aside is enough in the
//! worst case. Let a merge have *m* bytes for its output, and let the log be of *n* segments. Taken one after the other they make
//! *g* merges of at most *m* bytes: twice the log over *m* and one more, for two that follow each other have more than *m*
//! together; the log over *m* less the longest segment and one more, for that much each has; never more than *n*. A merge gives back a block of the disk if *b* bytes in its victims are dead, a block's and its header's. So if
//! no merge gives a block back fewer than *g* · *b* bytes are dead; the rest of what was appended are removals that are
//! held back. Once each segment has been written anew none of those is held back any more, and they are dead too. All the while
//! the chain takes an entry for each segment that goes or is made, *c* bytes. So wherever removals have taken *g* · *b* + *c*
//! bytes and more, compaction gives back what is beyond that. Twice as much is put aside for them before puts get a segment,
//! and three times as much where there is room, so that not each removal has segments merged.
//!
//! *m* is a segment, the longest that there is; of a store that has many for the size of its segments, more, so that all that is put
//! aside is least: the square root of six blocks times the log.

use crate::chain::ENTRY_BYTES;
use crate::disk::{Disk, DiskError, DiskErrorKind, DiskFile};
use crate::error::WriteError;
use crate::manifest::Manifest;
use crate::segment::{SEGMENT_HEADER_BYTES, SegmentKind};
use crate::segments::not_made;
use crate::store::{Store, Urgency};
use crate::victims::MAX_VICTIMS;
use alloc::vec;

/// The file that holds room for compaction on a full disk. It has no contents.
pub(crate) const RESERVE: &str = "RESERVE";

/// A file that is made to ask for room, and removed at once.
pub(crate) const PROBE: &str = "RESERVE.new";

/// File systems give room and take it back in blocks of this many bytes, most of them.
pub(crate) const BLOCK_BYTES: u64 = 4096;
/// So much more is given from the reserve where a file system takes more for a file than is in it.
const SCARCE_BYTES: u64 = 4 * BLOCK_BYTES;
/// So often a block is given from the reserve to see whether there is room by that, while there is not.
const MAX_VAIN_CUTS: u8 = 8;
/// Zeros that are written at once.
const PIECE_BYTES: usize = 64 << 10;

impl<D: Disk> Store<D> {
    /// What a change of the manifest takes on a full disk, if there are so many segments more by then.
    pub(crate) fn manifest_bytes(&self, more: usize) -> u64 {
        let chained = (MAX_VICTIMS + 1) * ENTRY_BYTES + self.chain.pending.len();
        self.manifest_file_bytes(more) + in_blocks(chained as u64)
    }

    fn manifest_file_bytes(&self, more: usize) -> u64 {
        let gaps = self.segments.iter().map(|(_, segment)| segment.torn.len()).sum();
        Manifest::file_bytes(self.segments.iter().count() + more, gaps)
    }

    /// Bytes of the log, rounded up so that what is put aside for it need not be made anew for each segment, its segments, likewise, and
    /// the longest of them: with one `more` of so many bytes, if there is to be one.
    fn log_size(&self, more: u64) -> (u64, u64, u64) {
        let tails = self.segments.iter().map(|(_, segment)| segment.tail);
        let (count, bytes, longest) = tails
            .fold((0, more, more), |(count, sum, longest), tail| (count + 1, sum + tail, tail.max(longest)));
        (
            bytes.next_multiple_of((bytes.next_power_of_two() / 8).max(1)),
            (count + 1_u64).next_multiple_of(8),
            longest,
        )
    }

    /// What the output of a merge may have on a full disk.
    pub(crate) fn output_bytes(&self, more: u64) -> u64 {
        let (bytes, _, longest) = self.log_size(more);
        // More than this many victims a merge has not.
        in_blocks((6 * bytes * BLOCK_BYTES).isqrt().min(longest * MAX_VICTIMS as u64).max(longest).max(1))
    }

    /// What a merge needs on a full disk: its output, what is buffered and has to be written before the victims go, and a manifest of
    /// so many segments more; and what is lost when the reserve is cut to blocks.
    fn merge_bytes(&self, more: u64, segments: usize) -> u64 {
        self.output_bytes(more)
            + self.options.write_buffer_bytes as u64
            + self.manifest_bytes(segments)
            + 2 * BLOCK_BYTES
    }

    /// Bytes of removals and of what stands between them for which compaction may give nothing back.
    fn unmerged_bytes(&self, more: u64) -> u64 {
        let (bytes, count, longest) = self.log_size(more);
        let output = self.output_bytes(more);
        let one_by_one = output.checked_sub(longest).and_then(|least| bytes.checked_div(least));
        let merges =
            (2 * bytes / output).min(one_by_one.unwrap_or(u64::MAX)).max(count / MAX_VICTIMS as u64) + 1;
        let merges = merges.min(count);
        merges * (BLOCK_BYTES + SEGMENT_HEADER_BYTES as u64) + (count + merges) * ENTRY_BYTES as u64
    }

    /// Room for removals. There must be many of them where each frees little of many segments.
    pub(crate) fn removal_bytes(&self, more: u64) -> u64 {
        let (_, _, longest) = self.log_size(more);
        // They may have to be written with all that is buffered.
        3 * self.unmerged_bytes(more) + longest / 8 + self.options.write_buffer_bytes as u64
    }

    /// What is put aside before a segment of so many bytes is made for puts: what a merge needs, and room for removals, in small segments of their own if need be.
    fn reserve_wanted(&self, more: u64) -> u64 {
        // For a few segments more, so that it need not be made anew for each.
        let segments = 32 - self.segments.iter().count() % 32;
        self.merge_bytes(more, segments) + SEGMENT_HEADER_BYTES as u64 + self.removal_bytes(more)
    }

    /// What puts must leave that get a segment of so many bytes.
    fn reserve_for_puts(&self, more: u64) -> u64 {
        self.merge_bytes(more, 2) + SEGMENT_HEADER_BYTES as u64 + self.removal_bytes(more) * 2 / 3
    }

    /// What removals must leave: what merges need, or compaction could give nothing back. Where too little was put aside to begin with (for
    /// shorter segments, or by an earlier version) a merge may be of any one segment at least.
    fn reserve_for_removals(&self) -> u64 {
        if self.merge.is_some() {
            return self.merge_bytes(self.options.segment_bytes, 1);
        }
        let needed = self.merge_bytes(0, 1);
        if self.reserve_bytes >= needed || self.holds_much() {
            return needed;
        }
        let (_, _, longest) = self.log_size(0);
        let least = needed - self.output_bytes(0) + in_blocks(longest);
        least.min(needed / 2)
    }

    /// Whether removals have taken so much of what is put aside on a full disk that puts get none.
    pub(crate) fn is_short(&self) -> bool {
        self.is_full() && self.reserve_bytes < self.reserve_for_puts(self.options.segment_bytes)
    }

    /// What is put aside for the output of a merge.
    pub(crate) fn output_room(&self) -> u64 {
        let others = self.options.write_buffer_bytes as u64 + self.manifest_bytes(0);
        self.reserve_bytes.saturating_sub(others + 2 * BLOCK_BYTES)
    }

    /// Has back what was given of the reserve, as far as there is room by now: before anybody takes that. What is not enough the next writer
    /// that needs a segment tries to make up for.
    pub(crate) fn make_up(&mut self) {
        if self.is_short() {
            let _ = self.hold_reserve(true);
        }
    }

    /// Puts room aside for a full disk: for compaction, without which writers get no new segment, and for a small segment of
    /// removals, which is made up for with `all` or while the disk is not full.
    pub(crate) fn hold_reserve(&mut self, all: bool) -> Result<(), WriteError> {
        self.hold_reserve_for(self.options.segment_bytes, all)
    }

    /// The same for a segment of so many bytes that puts are to have.
    fn hold_reserve_for(&mut self, more: u64, all: bool) -> Result<(), WriteError> {
        let (needed, wanted) = (self.merge_bytes(more, 1), self.reserve_wanted(more));
        let before = self.reserve_bytes;
        let held = |bytes| if bytes < needed { Err(WriteError::NoSpace) } else { Ok(()) };
        if before >= wanted || (before >= needed && self.starved && !all) {
            return Ok(());
        }
        // Each try would write it full of zeros again.
        if self.fill_failed && !all {
            return held(before);
        }
        // Most often there is not.
        let asked = if before < needed && !all { needed - before } else { BLOCK_BYTES };
        if (before > 0 || self.starved) && !self.disk_has_room(asked)? {
            return held(before);
        }
        // Of what removals are to have as much as there is; and what a merge has given back better too little than none.
        self.extend_reserve(wanted)?;
        // Other room that is not enough is left to removals.
        if !all && self.reserve_bytes < needed && self.reserve_bytes > before {
            self.shorten_reserve(before);
        }
        held(self.reserve_bytes)
    }

    /// Makes a segment that puts may fill, if removals still have room after that.
    pub(crate) fn create_for_puts(&mut self, capacity: u64) -> Result<u16, WriteError> {
        self.may_make_segment(Urgency::Put)?;
        // One record may be longer than segments are.
        let more = capacity.max(self.options.segment_bytes);
        self.hold_reserve_for(more, false)?;
        let least = self.reserve_for_puts(more);
        // What removals have taken of it is made up for once there is room again.
        if self.reserve_bytes < least
            && !self.fill_failed
            && self.disk_has_room(least - self.reserve_bytes)?
        {
            self.hold_reserve_for(more, true)?;
        }
        if self.reserve_bytes < least {
            return Err(WriteError::NoSpace);
        }
        self.create_segment(capacity)
    }

    /// How much a segment of removals has that is made from the reserve: whole blocks, an eighth of what there is for them, and
    /// so much at least.
    pub(crate) fn small_segment_bytes(&self, least: u64) -> u64 {
        in_blocks((self.removal_bytes(0) / 8).min(self.options.segment_bytes).max(least))
    }

    /// Makes a small segment of removals from the reserve, if that leaves enough for compaction.
    pub(crate) fn create_from_reserve(&mut self, capacity: u64) -> Result<u16, WriteError> {
        // The manifest and the chain may get longer by it, and the old manifest goes when the new one is there.
        let longer = self.manifest_file_bytes(1) - self.manifest_file_bytes(0);
        let spent = in_blocks(capacity) + longer + in_blocks(self.chain.pending.len() as u64) + BLOCK_BYTES;
        let kept = self.reserve_for_removals();
        if self.reserve_bytes < kept + spent {
            return Err(WriteError::NoSpace);
        }
        let before = self.reserve_bytes;
        let mut made = Err(WriteError::NoSpace);
        if self.cut_reserve(spent + self.manifest_file_bytes(1), 0) {
            made = self.create_segment(capacity);
        }
        while made == Err(WriteError::NoSpace) && self.cut_reserve(SCARCE_BYTES, kept) {
            made = self.create_segment(capacity);
        }
        self.take_back(before);
        made
    }

    /// Makes the output of a merge, on a full disk from the room that is put aside.
    pub(crate) fn create_output(&mut self, capacity: u64) -> Result<u16, WriteError> {
        let (mut made, before) = (self.create_unlisted(capacity, SegmentKind::Merged), self.reserve_bytes);
        let mut lent = capacity;
        while made == Err(WriteError::NoSpace) && self.lend_for_output(lent) {
            made = self.create_unlisted(capacity, SegmentKind::Merged);
            lent = SCARCE_BYTES;
        }
        self.take_back(before);
        let output = made?;
        // Once begun it must come to its end: where the disk reserves no room, and what is put aside may not do, it is written full now.
        if self.is_full() || self.output_room() < capacity {
            let file = self.segments[output].file.clone();
            let filled = match fill(&file, capacity) {
                Err(error) if error.kind() == DiskErrorKind::NoSpace => self.lend_to_output(&file, capacity),
                filled => filled.map_err(not_made),
            };
            if let Err(error) = filled {
                if let Some(left) = self.segments.remove(output) {
                    let _ = self.disk.remove(&left.id.file_name());
                }
                self.take_back(before);
                return Err(error);
            }
            self.take_back(before);
        }
        Ok(output)
    }

    /// Whether the disk has so much room more; one that reserves none says so in any case.
    fn disk_has_room(&self, bytes: u64) -> Result<bool, WriteError> {
        let made = self.make_probe(bytes)?;
        let _ = self.disk.remove(PROBE);
        Ok(made.is_some())
    }

    /// A file of so many bytes, if there is room for it.
    fn make_probe(&self, bytes: u64) -> Result<Option<D::File>, WriteError> {
        let mut made = self.disk.create(PROBE, bytes);
        if made.as_ref().is_err_and(|error| error.kind() == DiskErrorKind::AlreadyExists) {
            // It could not be removed when it was last made.
            self.disk.remove(PROBE).map_err(not_made)?;
            made = self.disk.create(PROBE, bytes);
        }
        match made {
            Err(error) if error.kind() == DiskErrorKind::NoSpace => Ok(None),
            made => made.map(Some).map_err(not_made),
        }
    }

    /// Makes the reserve as long as this, or as there is room for. None of it is given up for that, not for a moment: others would
    /// take it. Where there is room a new one takes its place; elsewhere zeros are written behind what there is.
    pub(crate) fn extend_reserve(&mut self, wanted: u64) -> Result<(), WriteError> {
        if self.reserve_bytes >= wanted || self.replace_reserve(wanted)? {
            return Ok(());
        }
        let file = match self.disk.open(RESERVE) {
            Err(error) if error.kind() == DiskErrorKind::NotFound => {
                let file = self.disk.create(RESERVE, 0).map_err(not_made)?;
                self.disk.sync_dir().map_err(not_made)?;
                file
            }
            opened => opened.map_err(not_made)?,
        };
        // Writes may be given room that nothing is reserved in: what was written there would not be room when it is cut off again.
        let (mut size, mut more) = (self.reserve_bytes, wanted - self.reserve_bytes);
        while more >= BLOCK_BYTES && size < wanted {
            more = more.min(wanted - size);
            if !self.disk_has_room(more)? {
                more /= 2;
                continue;
            }
            match fill(&file, size + more) {
                Ok(()) => size += more,
                Err(error) if error.kind() == DiskErrorKind::NoSpace => {
                    // The disk reserves no room, or others were there first. What was written is there.
                    self.fill_failed = true;
                    size = file.size().map_err(not_made)?.max(size);
                    break;
                }
                Err(error) => return Err(not_made(error)),
            }
        }
        // What a power cut takes back is not room.
        file.sync_data().map_err(not_made)?;
        self.reserve_bytes = size;
        Ok(())
    }

    /// Makes the file that holds room anew, in the place of the one that there is, if the disk reserves so much beside that.
    fn replace_reserve(&mut self, bytes: u64) -> Result<bool, WriteError> {
        let Some(made) = self.make_probe(bytes)? else { return Ok(false) };
        let replaced = made.size().and_then(|size| {
            if size < bytes {
                return Ok(false);
            }
            made.sync_data().and_then(|()| self.disk.rename(PROBE, RESERVE)).map(|()| true)
        });
        if replaced != Ok(true) {
            let _ = self.disk.remove(PROBE);
            return replaced.map_err(not_made);
        }
        self.reserve_bytes = bytes;
        self.disk.sync_dir().map_err(not_made).map(|()| true)
    }

    /// Cuts the reserve back to so many bytes, for others to have the rest.
    fn shorten_reserve(&mut self, bytes: u64) {
        let cut = match bytes {
            0 => self.disk.remove(RESERVE),
            _ => self.disk.open(RESERVE).and_then(|file| file.truncate(bytes)),
        };
        if cut.is_ok() {
            self.reserve_bytes = bytes;
        }
    }

    /// The room that an earlier opening put aside. It may be too little: of segments of another size, and after some power cuts.
    pub(crate) fn finds_reserve(disk: &D) -> u64 {
        disk.open(RESERVE).and_then(|file| file.size()).unwrap_or(0)
    }

    /// Gives the room that was put aside to compaction. Answers whether there was any.
    pub(crate) fn release_reserve(&mut self) -> bool {
        self.reserve_bytes > 0
            && self.gives_room()
            && core::mem::take(&mut self.reserve_bytes) > 0
            && self.disk.remove(RESERVE).is_ok()
    }

    /// Whether there is room where the reserve is cut: a block is. A file system that keeps some for root, of which root has used some,
    /// gives others nothing until it has as much again: the whole reserve would go there.
    fn gives_room(&mut self) -> bool {
        let has_room = |store: &Self| store.disk_has_room(BLOCK_BYTES) != Ok(false);
        if self.reserve_bytes <= BLOCK_BYTES || has_room(self) {
            self.vain_cuts = 0;
            return true;
        }
        if self.vain_cuts < MAX_VAIN_CUTS {
            self.shorten_reserve((self.reserve_bytes - 1) / BLOCK_BYTES * BLOCK_BYTES);
            self.vain_cuts = if has_room(self) { 0 } else { self.vain_cuts + 1 };
        }
        self.vain_cuts == 0
    }

    /// Gives so much of the room that was put aside, if that leaves what is to be kept.
    pub(crate) fn cut_reserve(&mut self, bytes: u64, kept: u64) -> bool {
        // A block more, for what is written need not begin where one does.
        let left = self.reserve_bytes.saturating_sub(bytes + BLOCK_BYTES) / BLOCK_BYTES * BLOCK_BYTES;
        let is_enough = left > 0 && left >= kept;
        let cut = is_enough
            && self.gives_room()
            && self.disk.open(RESERVE).and_then(|file| file.truncate(left)).is_ok();
        if cut {
            self.reserve_bytes = left;
        }
        cut
    }

    /// Has back what was cut off beyond what was needed, up to what there was. What fails here is met by the next writer that needs a segment.
    pub(crate) fn take_back(&mut self, before: u64) {
        if self.reserve_bytes < before {
            let _ = self.extend_reserve(before);
        }
    }

    /// Gives what is buffered room from the reserve, where more room comes of it: removals, and what a merge waits for.
    pub(crate) fn lend_to_pending(&mut self, merge_waits: bool) -> bool {
        let kept = if merge_waits { self.manifest_bytes(0) } else { self.reserve_for_removals() };
        self.cut_reserve(self.pending.bytes.len() as u64, kept)
    }

    /// Whether there is room again for what a write was refused, beside what was lent since: zeros are written where it would be, and
    /// cut off again.
    pub(crate) fn ask_for_room(&mut self) -> Result<(), WriteError> {
        let Some(active) = self.active.filter(|_| self.refused_bytes > 0) else { return Ok(()) };
        let segment = &self.segments[active];
        let at = if self.pending.bytes.is_empty() { segment.tail } else { self.pending.start };
        let refused = self.refused_bytes.max(self.pending.bytes.len()).min(PIECE_BYTES) as u64;
        // What was lent is two blocks at most beyond what was asked for, and there may be some left of the block before.
        let lent = if self.lent { 3 * BLOCK_BYTES } else { 0 };
        let bytes = (refused + lent).min(segment.capacity - at);
        let zeros = vec![0; usize::try_from(bytes).expect("a piece and three blocks")];
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

    /// Gives so much room to the output of a merge, if that leaves enough for the manifest with which it comes into force.
    fn lend_for_output(&mut self, bytes: u64) -> bool {
        let kept = self.options.write_buffer_bytes as u64 + self.manifest_bytes(0);
        self.cut_reserve(bytes, kept)
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

/// What a file of so many bytes takes of the disk.
pub(crate) const fn in_blocks(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES)
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
