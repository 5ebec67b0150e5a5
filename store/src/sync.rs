//! Making writes durable, in two phases, and the proof that they are.

use crate::disk::{Disk, DiskFile};
use crate::error::WriteError;
use crate::record::{Draft, HEADER_BYTES, Kind, Term};
use crate::segment::SegmentId;
use crate::segments::SegmentTable;
use crate::store::{Store, Urgency};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU8, AtomicUsize};

/// A write's place in the order of all writes of a store. Later writes have greater positions, and a write
/// that an opening found keeps its position. One that was lost does not: the next opening may give it to another write.
///
/// Positions compare as their numbers do, whatever store and opening they are of; [`Durable::covers`] tells those apart.
#[derive(Clone, Copy)]
pub struct Position {
    sequence: u64,
    opening: usize,
}

impl Position {
    /// The place of a write in this [opening](next_opening).
    pub(crate) const fn new(sequence: u64, opening: usize) -> Self {
        Self { sequence, opening }
    }

    /// The place of a write that was found, of which it is not known whose it was.
    pub(crate) const fn found(sequence: u64) -> Self {
        Self { sequence, opening: 0 }
    }

    /// The position as a number.
    pub const fn as_u64(self) -> u64 {
        self.sequence
    }
}

impl PartialEq for Position {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for Position {}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Position {
    fn cmp(&self, other: &Self) -> Ordering {
        self.sequence.cmp(&other.sequence)
    }
}

impl Hash for Position {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.sequence.hash(state);
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Position").field(&self.sequence).finish()
    }
}

/// A number that no other opening in this process has: positions do not leave it.
pub(crate) fn next_opening() -> usize {
    static OPENINGS: AtomicUsize = AtomicUsize::new(1);
    OPENINGS.fetch_add(1, Relaxed)
}

/// The proof that all writes through a position are on the disk. Only a store makes one, and only from a sync that
/// succeeded: what must not happen before a write is durable can ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    through: Position,
}

impl Durable {
    pub(crate) const fn new(through: Position) -> Self {
        Self { through }
    }

    /// The last write that is durable.
    pub const fn through(&self) -> Position {
        self.through
    }

    /// Whether the write at `position` is durable. Never of a write of another store, or of another opening of this one: the position of a
    /// write that a crash or a failed sync took may be another write's after the next opening.
    pub const fn covers(&self, position: Position) -> bool {
        position.opening == self.through.opening && position.sequence <= self.through.sequence
    }
}

/// How far one segment is synced by a job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SyncedTo {
    pub(crate) table_index: u16,
    pub(crate) segment: SegmentId,
    pub(crate) tail: u64,
}

/// A sync to be run, here or on another thread, and then handed back to its store.
///
/// If it is dropped instead, run or not, the store begins anew, as if it had not begun; had it failed, writing has stopped for good.
#[must_use = "nothing is durable until the job is run and completed"]
pub struct SyncJob<D: Disk> {
    pub(crate) files: Vec<D::File>,
    /// Why not all that it is to cover was written.
    pub(crate) failed: Option<WriteError>,
    pub(crate) ticket: Ticket,
}

// What became of a sync that was not handed back. One that succeeded may be run once more, too.
const UNDER_WAY: u8 = 0;
const NOT_DONE: u8 = 1;
const FAILED: u8 = 2;

/// A sync that is under way, as its store knows it. It is that whose token shares `end`: no identity or count will do, for a store, its copy
/// and its next opening may have the same.
#[derive(Debug)]
pub(crate) struct InFlight {
    end: Arc<AtomicU8>,
}

/// Tells the store when the sync's job, or what came of it, is dropped.
#[derive(Debug)]
pub(crate) struct Token {
    end: Arc<AtomicU8>,
    /// What to tell then.
    becomes: u8,
}

impl Drop for Token {
    fn drop(&mut self) {
        self.end.store(self.becomes, Release);
    }
}

/// What a sync is for.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) token: Token,
    pub(crate) through: Position,
    pub(crate) reached: Vec<SyncedTo>,
    /// The output of a merge is among the files.
    pub(crate) merged: bool,
}

impl<D: Disk> SyncJob<D> {
    /// Syncs the files; blocks until the disk has answered.
    pub fn run(self) -> SyncDone {
        let mut ticket = self.ticket;
        let result = match self.failed {
            Some(error) => Err(error),
            None => {
                // Should the disk panic, too.
                ticket.token.becomes = FAILED;
                let synced = self.files.iter().try_for_each(DiskFile::sync_data);
                if synced.is_ok() {
                    ticket.token.becomes = NOT_DONE;
                }
                synced.map_err(WriteError::Disk)
            }
        };
        SyncDone { result, ticket }
    }
}

impl<D: Disk> fmt::Debug for SyncJob<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncJob").field("through", &self.ticket.through).finish_non_exhaustive()
    }
}

/// A sync that was run, well or not: for [`Store::complete_sync`](crate::Store::complete_sync).
#[derive(Debug)]
#[must_use = "the store learns of the sync only from complete_sync"]
pub struct SyncDone {
    pub(crate) result: Result<(), WriteError>,
    pub(crate) ticket: Ticket,
}

impl<D: Disk> Store<D> {
    /// Begins a sync of all writes so far, and of what compaction has copied; `None` if there are none, or a sync is under
    /// way (begin again when that is completed; [`durable`](Self::durable) tells the two apart), or writing has stopped. Writes may go on meanwhile; they belong to the next one. What is
    /// [buffered](crate::Options::write_buffer_bytes) is written here; should that fail the job does.
    pub fn begin_sync(&mut self) -> Option<SyncJob<D>> {
        self.note_dropped_sync();
        let through = self.position();
        let merged = self.merge.as_ref().and_then(|merge| merge.output_to_sync());
        if self.poisoned || self.in_flight.is_some() || (through.as_u64() == self.durable && merged.is_none())
        {
            return None;
        }
        let failed = self.flush_for(true).err();
        let end = Arc::new(AtomicU8::new(UNDER_WAY));
        self.in_flight = Some(InFlight { end: end.clone() });
        let token = Token { end, becomes: NOT_DONE };
        // Older segments first, the active one last: its tail is the watermark.
        let reached = self.rolled.iter().chain(&self.active).map(|number| SyncedTo {
            table_index: *number,
            segment: self.segments[*number].id,
            tail: self.segments[*number].tail,
        });
        let reached: Vec<SyncedTo> = reached.collect();
        let numbers = reached.iter().map(|one| one.table_index).chain(merged);
        let files = numbers.map(|number| self.segments[number].file.clone()).collect();
        let ticket = Ticket { token, through, reached, merged: merged.is_some() };
        Some(SyncJob { files, failed, ticket })
    }

    /// Ends a sync that was run. One small write to the disk, the watermark.
    ///
    /// # Errors
    /// [`WriteError::NoSpace`]: what is [buffered](crate::Options::write_buffer_bytes) found no room, so nothing was synced. It can be
    /// read, and is written when there is room.
    /// [`WriteError::Disk`]: the sync failed, nothing that it was to cover is known to be durable, and writing has stopped
    /// for good. [`WriteError::ForeignSync`]: another store's or opening's, or not the one under way; nothing changed.
    pub fn complete_sync(&mut self, done: SyncDone) -> Result<Durable, WriteError> {
        let SyncDone { result, ticket } = done;
        let is_ours = |one: &InFlight| Arc::ptr_eq(&one.end, &ticket.token.end);
        if !self.in_flight.as_ref().is_some_and(is_ours) {
            // It was given up, perhaps.
            return Err(if self.poisoned { WriteError::Poisoned } else { WriteError::ForeignSync });
        }
        self.in_flight = None;
        if let Err(error) = result {
            // A sync that failed leaves nothing known of what it was to cover; one that was not begun leaves all as it was.
            self.poisoned |= error != WriteError::NoSpace;
            return Err(error);
        }
        if self.poisoned {
            return Err(WriteError::Poisoned);
        }
        let synced = |segments: &SegmentTable<D::File>, number: u16| {
            ticket
                .reached
                .iter()
                .any(|one| one.segment == segments[number].id && one.tail == segments[number].tail)
        };
        let segments = &mut self.segments;
        self.rolled.retain(|number| {
            let finished = synced(segments, *number);
            segments[*number].finished = finished;
            !finished
        });
        if let Some(merge) = &mut self.merge {
            merge.note_sync(ticket.merged, ticket.through.as_u64());
        }
        if self.durable == ticket.through.as_u64() {
            return Ok(Durable::new(ticket.through));
        }
        self.durable = ticket.through.as_u64();
        if let Some(last) = ticket.reached.last() {
            self.write_watermark(last);
        }
        Ok(Durable::new(ticket.through))
    }

    /// Takes note that a sync that was under way will not be completed.
    fn note_dropped_sync(&mut self) {
        let end = self.in_flight.as_ref().map_or(UNDER_WAY, |one| one.end.load(Acquire));
        if end != UNDER_WAY {
            self.in_flight = None;
            // The operating system gives a failure to the first one that asks, and no second one.
            self.poisoned |= end == FAILED;
        }
    }

    /// Whether a sync has failed of which nobody told the store.
    pub(crate) fn has_lost_sync(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|one| one.end.load(Acquire) == FAILED)
    }

    /// Ends what was under way and was lost, a sync or a write: nothing is known of it, so writing has stopped for good.
    #[cfg(feature = "std")]
    pub(crate) fn give_up(&mut self) {
        self.in_flight = None;
        self.poisoned = true;
    }

    /// The proof of what is durable now: all that the opening found, and what syncs have covered since.
    pub fn durable(&self) -> Durable {
        Durable::new(Position::new(self.durable, self.opening))
    }

    /// Begins, runs and completes a sync here and now, if there is anything to sync. All writes so far are durable then.
    ///
    /// # Errors
    /// [`WriteError::SyncUnderWay`]: one was begun elsewhere, which does not cover all of them or is not completed: complete it first.
    /// Others as for [`complete_sync`](Self::complete_sync).
    pub fn sync(&mut self) -> Result<Durable, WriteError> {
        match self.begin_sync() {
            Some(job) => self.complete_sync(job.run()),
            None if self.poisoned => Err(WriteError::Poisoned),
            None if self.durable + 1 != self.next_sequence => Err(WriteError::SyncUnderWay),
            None => Ok(self.durable()),
        }
    }

    /// Says in the log how far it was durable, for a later recovery to tell rot from a torn tail. It is a help, not a
    /// promise: where it finds no room, or would take that of a later one, it is left out.
    fn write_watermark(&mut self, reached: &SyncedTo) {
        let Some(active) = self.active else { return };
        // Every record leaves room for one: that belongs to the watermark that covers all.
        let covers_all = self.durable + 1 == self.next_sequence;
        if self.segments[active].room() < HEADER_BYTES as u64 * if covers_all { 1 } else { 2 } {
            return;
        }
        let draft = Draft {
            kind: Kind::Watermark,
            slot: 0,
            sequence: self.durable,
            fingerprint: reached.segment.0,
            tag: reached.tail,
            term: Term::None,
            key: &[],
            value: &[],
        };
        match self.push_pending(active, &draft, Urgency::Put) {
            Ok(()) => self.segments[active].tail += HEADER_BYTES as u64,
            Err(WriteError::NoSpace) => {}
            // The sync is true all the same, but a disk that fails to write is written to no more.
            Err(_) => self.poisoned = true,
        }
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;
    use crate::{MemDisk, Options};

    #[test]
    fn a_sync_that_was_given_up_is_no_stranger() {
        let (mut store, _) = Store::open(MemDisk::new(), Options::new([7; 16])).expect("opens");
        store.put(1, b"k", b"v", 0).expect("room");
        let done = store.begin_sync().expect("something").run();
        // Another thread's disk panicked meanwhile.
        store.give_up();
        assert_eq!(store.complete_sync(done).err(), Some(WriteError::Poisoned));
    }
}
