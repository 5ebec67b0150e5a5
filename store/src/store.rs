//! The store: writes, reads and listings.

use crate::chain::Chain;
use crate::compaction::Merge;
use crate::disk::{Disk, DiskErrorKind, DiskFile};
use crate::error::WriteError;
use crate::expiry::Learning;
use crate::hash_tree::HashTree;
use crate::key_index::{KeyIndex, Location, SizeClass};
use crate::options::Options;
use crate::record::{Draft, Kind, MAX_KEY_BYTES, MAX_VALUE_BYTES, Term};
use crate::recount::Recounts;
use crate::scrub::Round;
use crate::seal::SealJob;
use crate::segment::SegmentId;
use crate::segments::SegmentTable;
use crate::summary::Hashes;
use crate::sync::{InFlight, Position};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

/// Buffers that grew past this for a long value are given back.
pub(crate) const KEPT_BUFFER_BYTES: usize = 1 << 20;

/// A log-structured store of keys and values, in slots.
///
/// All methods return at once but for the disk calls that they say they make. The store is single-threaded; syncs (and
/// reads, if [`Options::reads`] says so) are jobs that another thread may run.
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
    /// A segment that is being sealed by `maintain`.
    pub(crate) seal_job: Option<SealJob<D::File>>,
    /// A segment that is being read by `maintain` to learn when its records expire or shrink.
    pub(crate) learning: Option<Learning<D::File>>,
    /// A round of scrubbing, and the last segment that it is through with.
    pub(crate) scrub_round: Option<Round<D::File>>,
    pub(crate) scrubbed: SegmentId,
    pub(crate) chain: Chain,
    pub(crate) hashes: Hashes,
    pub(crate) tree: Option<HashTree>,
    /// Entries that the tree does not count: their keys are not known, for their records are damaged.
    pub(crate) uncounted: BTreeSet<(u16, u64)>,
    /// Slots whose sums are to be made anew, in steps.
    pub(crate) recounts: Recounts,
    /// Places were found of which nobody knows what they hold: what is not in the index may be there, and be seen again one day, whether
    /// the caller has accepted its loss or not.
    pub(crate) has_gaps: bool,
    /// It found places of which nobody knows what they held, and the caller has not accepted that: what is not in the index may have been
    /// there.
    pub(crate) has_unknown: bool,
    /// The caller's clock, for records that expire or shrink.
    pub(crate) now: u64,
    /// Room that is put aside for compaction.
    pub(crate) reserve_bytes: u64,
    /// Cuts of that which gave no room, since there was last any.
    pub(crate) vain_cuts: u8,
    /// The disk reserves no room and had too little of it when that was last to be filled: `maintain` tries again, puts don't.
    pub(crate) fill_failed: bool,
    /// The disk was full when a segment was last asked for.
    pub(crate) starved: bool,
    /// So few files could be opened when a segment was last asked for, or so few numbers were left, that compaction is to make fewer.
    pub(crate) few_files: bool,
    /// Bytes of a write that found the disk full, which then had reserved no room for it; 0 once as many were written.
    pub(crate) refused_bytes: usize,
    /// Since then some of the reserve was lent to others: what is left of that is not for plain puts.
    pub(crate) lent: bool,
    /// Which opening this is, of all in this process.
    pub(crate) opening: usize,
    pub(crate) next_sequence: u64,
    /// The last sequence that a sync has covered.
    pub(crate) durable: u64,
    /// The sync that is under way.
    pub(crate) in_flight: Option<InFlight>,
    pub(crate) poisoned: bool,
    /// The end of the active segment, from here on, that the disk has not been given yet; empty unless writes are
    /// [buffered](Options::write_buffer_bytes).
    pub(crate) pending: Pending,
    pub(crate) read_buffer: Vec<u8>,
}

/// Records that are appended, and not written.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) bytes: Vec<u8>,
    /// Where in the active segment they belong.
    pub(crate) start: u64,
    /// A removal is among them.
    pub(crate) urgent: bool,
}

/// Who the store is, from its manifest.
pub(crate) struct Identity {
    pub(crate) store: [u8; 16],
    pub(crate) hash_key: [u8; 16],
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
        self.hashes.fingerprints.hash(key) & self.options.fingerprint_mask
    }

    /// Sets a key's value. Reads see it at once; it is durable once a sync covers its position. `tag` is kept in memory
    /// beside the key (see [`tag`](Self::tag)), and is what the [hash tree](Self::tree) tells versions of a key by.
    ///
    /// One write to the disk, or fewer if writes are [buffered](Options::write_buffer_bytes); now and then a new segment too, unless
    /// [`maintain`](Self::maintain) has prepared one.
    ///
    /// A put that makes its key's record (40 bytes, key and value, rounded up to 8) smaller by a ninth or more has room kept for it on a
    /// full disk, as a [`delete`](Self::delete) has: a tombstone of the caller's own in a value's place, say.
    ///
    /// # Errors
    /// As [`WriteError`] says: lengths, no space, a disk that failed. The key then is what it was before.
    pub fn put(&mut self, slot: u16, key: &[u8], value: &[u8], tag: u64) -> Result<Position, WriteError> {
        self.put_record(slot, key, value, tag, Term::None, Urgency::Put)
    }

    /// As [`put`](Self::put), and has the room kept for it on a full disk that a [`delete`](Self::delete) has: for a few small
    /// records that the caller must be able to write there, a counter of its starts, say. Compaction has back what they replace.
    ///
    /// # Errors
    /// As for [`put`](Self::put).
    pub fn put_urgent(
        &mut self,
        slot: u16,
        key: &[u8],
        value: &[u8],
        tag: u64,
    ) -> Result<Position, WriteError> {
        self.put_record(slot, key, value, tag, Term::None, Urgency::Removal)
    }

    /// [Puts](Self::put) a value that is there until the store's time ([`set_time`](Self::set_time)) is `expires` or later,
    /// in the caller's own unit. It takes 8 bytes more on the disk and none in memory.
    ///
    /// Expiry is a filter at reads and listings, which find the key absent. [`tag`](Self::tag), [`len`](Self::len) and the
    /// hash tree go by what is stored, until compaction has cleared it away; with a hash tree its value goes and it stays, for
    /// the sums of two stores must not depend on their clocks.
    ///
    /// # Errors
    /// As for [`put`](Self::put).
    pub fn put_expiring(
        &mut self,
        slot: u16,
        key: &[u8],
        value: &[u8],
        tag: u64,
        expires: u64,
    ) -> Result<Position, WriteError> {
        self.put_record(slot, key, value, tag, Term::Expires(expires), Urgency::Put)
    }

    /// [Puts](Self::put) a value of which all but the first `kept` bytes may go once the store's time ([`set_time`](Self::set_time)) is
    /// `shrinks` or later, in the caller's own unit. It takes 12 bytes more on the disk, until then, and none in memory. Where `kept` is the
    /// value's length or more it is a plain put.
    ///
    /// What goes, goes when compaction next comes by. Until then reads answer all of the value, and so they may again after an opening that
    /// found compaction not through. The key is never absent by that: listings, [`tag`](Self::tag), [`len`](Self::len) and the
    /// [hash tree](Self::tree) are what they were.
    ///
    /// # Errors
    /// As for [`put`](Self::put).
    pub fn put_shrinking(
        &mut self,
        slot: u16,
        key: &[u8],
        value: &[u8],
        tag: u64,
        shrinks: u64,
        kept: usize,
    ) -> Result<Position, WriteError> {
        let term = match u32::try_from(kept) {
            Ok(bytes) if kept < value.len() => Term::Shrinks(shrinks, bytes),
            _ => Term::None,
        };
        self.put_record(slot, key, value, tag, term, Urgency::Put)
    }

    /// Tells the time, by which records [expire](Self::put_expiring) and [shrink](Self::put_shrinking): 0 after an opening. It may go
    /// back, where a clock was set right: what had expired is there again then, unless compaction has cleared it away.
    pub const fn set_time(&mut self, now: u64) {
        self.now = now;
    }

    fn put_record(
        &mut self,
        slot: u16,
        key: &[u8],
        value: &[u8],
        tag: u64,
        term: Term,
        urgency: Urgency,
    ) -> Result<Position, WriteError> {
        check_key(key)?;
        if value.len() > MAX_VALUE_BYTES {
            return Err(WriteError::ValueLength(value.len()));
        }
        let fingerprint = self.fingerprint(key);
        let sequence = self.next_sequence;
        let draft = Draft { kind: term.kind(), slot, sequence, fingerprint, tag, term, key, value };
        let urgency = if self.shrinks(&draft) { Urgency::Removal } else { urgency };
        let location = self.append(&draft, urgency)?;
        self.segments.gain(location);
        let old = self.index.set(slot, fingerprint, location, tag);
        if let Some(old) = &old {
            self.segments.lose(old.location, sequence);
        }
        if let Some(tree) = &self.tree {
            let key_hash = tree.key().key_hash(key);
            if let Some(old) = old
                && !self.uncounted.remove(&(slot, old.fingerprint))
            {
                self.uncount(slot, fingerprint, key_hash, old.tag);
            }
            self.count(slot, fingerprint, key_hash, tag);
        }
        Ok(Position::new(sequence, self.opening))
    }

    /// Removes a key: for good, once a sync covers the position. A key that is not there costs nothing; the position then
    /// is that of the last write, which may have been its removal. Where the opening found [places that can't be
    /// read](crate::DamageKind::Unreadable) it is written all the same: the key may be in one of them, to be read another day.
    ///
    /// One read and one write of the disk. Deletes have room kept for them that other puts than those that shrink a record may
    /// not use, so that a full disk can be emptied.
    ///
    /// # Errors
    /// As [`WriteError`] says. The key then is what it was before.
    pub fn delete(&mut self, slot: u16, key: &[u8]) -> Result<Position, WriteError> {
        check_key(key)?;
        let fingerprint = self.fingerprint(key);
        let hit = self.index.get(slot, fingerprint);
        if hit.is_none() && !self.may_hide_keys() {
            return self.nothing_to_write();
        }
        // A put may displace another key once in a few thousand huge stores, and says so at the other's next read. A
        // delete must not: nothing would be left to say it. Where the key can't be read it is taken for the right one.
        let found = hit.and_then(|hit| self.key_of(slot, &hit).ok().flatten());
        if found.is_some_and(|(found, _)| found != key) {
            return Err(WriteError::Collision);
        }
        let draft = Draft {
            kind: Kind::Delete,
            slot,
            sequence: self.next_sequence,
            fingerprint,
            tag: 0,
            term: Term::None,
            key,
            value: &[],
        };
        self.append(&draft, Urgency::Removal)?;
        if let Some(old) = self.index.remove(slot, fingerprint) {
            self.segments.lose(old.location, draft.sequence);
            if let Some(tree) = &self.tree
                && !self.uncounted.remove(&(slot, old.fingerprint))
            {
                self.uncount(slot, fingerprint, tree.key().key_hash(key), old.tag);
            }
        }
        Ok(Position::new(draft.sequence, self.opening))
    }

    /// Removes all keys of a slot, with one record and one write to the disk; none if it has no keys, with the exception that
    /// [`delete`](Self::delete) names.
    ///
    /// # Errors
    /// As [`WriteError`] says. The slot then is what it was before.
    pub fn drop_slot(&mut self, slot: u16) -> Result<Position, WriteError> {
        if self.index.slot_len(slot) == 0 && !self.may_hide_keys() {
            return self.nothing_to_write();
        }
        let draft = Draft {
            kind: Kind::DropSlot,
            slot,
            sequence: self.next_sequence,
            fingerprint: 0,
            tag: 0,
            term: Term::None,
            key: &[],
            value: &[],
        };
        self.append(&draft, Urgency::Removal)?;
        let segments = &mut self.segments;
        self.index.drop_slot(slot, |location| segments.lose(location, draft.sequence));
        if let Some(tree) = &mut self.tree {
            tree.clear(slot);
            self.uncounted.retain(|(of, _)| *of != slot);
            self.recounts.cancel(slot);
        }
        Ok(Position::new(draft.sequence, self.opening))
    }

    /// Whether a record takes less than the one that it replaces, by what the index knows of both: of another size class, as all are that are
    /// smaller by a ninth. That frees space in the end, and each key can do it a few
    /// times only, so it spares the reserve. Where nothing is scarce it is not asked.
    fn shrinks(&self, draft: &Draft<'_>) -> bool {
        let len = draft.record_len();
        if self.has_room(len as u64, Urgency::Put) {
            return false;
        }
        let before = self.index.get(draft.slot, draft.fingerprint);
        before.is_some_and(|hit| SizeClass::of(len).bytes() < hit.location.size.bytes())
    }

    /// Whether keys that are not in the index may be in some segment all the same.
    fn may_hide_keys(&self) -> bool {
        let mut segments = self.segments.iter();
        self.has_gaps && segments.any(|(_, one)| one.unaccounted || one.quarantined || one.accepted)
    }

    fn nothing_to_write(&self) -> Result<Position, WriteError> {
        if self.poisoned { Err(WriteError::Poisoned) } else { Ok(self.position()) }
    }

    /// Appends a record to the active segment. On an error nothing has changed, but what stands past the tail.
    fn append(&mut self, draft: &Draft<'_>, urgency: Urgency) -> Result<Location, WriteError> {
        if self.poisoned {
            return Err(WriteError::Poisoned);
        }
        let len = draft.record_len();
        self.make_room(len as u64, urgency)?;
        let active = self.active.expect("room was made in it");
        self.push_pending(active, draft, urgency)?;
        let segment = &mut self.segments[active];
        let offset = segment.tail;
        segment.tail = offset + len as u64;
        segment.note_sequence(draft.sequence);
        let size = SizeClass::of(len);
        segment.note_record(draft.kind, len as u64, size);
        segment.expiries.note(draft.term, len, draft.key.len(), self.tree.is_some());
        self.next_sequence += 1;
        Ok(Location {
            segment: active,
            unit: u32::try_from(offset / 8).expect("a segment's capacity is bounded"),
            size,
        })
    }

    /// Adds a record to those that wait to be written behind the active segment's tail, and writes them if they are
    /// enough. On an error the record is not among them.
    pub(crate) fn push_pending(
        &mut self,
        active: u16,
        draft: &Draft<'_>,
        urgency: Urgency,
    ) -> Result<(), WriteError> {
        let segment = &self.segments[active];
        let (before, was_urgent) = (self.pending.bytes.len(), self.pending.urgent);
        if before == 0 {
            self.pending.start = segment.tail;
        }
        self.pending.urgent |= urgency == Urgency::Removal;
        draft.append_to(&mut self.pending.bytes, segment.place, segment.tail);
        if self.pending.bytes.len() < self.options.write_buffer_bytes {
            return Ok(());
        }
        let flushed = self.flush();
        if flushed.is_err() {
            self.pending.bytes.truncate(before);
            self.pending.urgent = was_urgent;
        }
        flushed
    }

    /// Writes what is [buffered](Options::write_buffer_bytes): it then survives the process, though not yet a power cut. A sync, a close
    /// and [`maintain`](Self::maintain) do so too.
    ///
    /// # Errors
    /// [`WriteError::NoSpace`]: it is still buffered, and can be read. [`WriteError::Disk`]: the write failed, and writing has
    /// stopped for good.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        self.flush_for(false)
    }

    /// Flushes, for a sync that a merge may wait for: that gives more room than it takes.
    pub(crate) fn flush_for(&mut self, sync: bool) -> Result<(), WriteError> {
        if self.pending.bytes.is_empty() {
            return Ok(());
        }
        if self.poisoned {
            return Err(WriteError::Poisoned);
        }
        let is_awaited = sync && self.merge.as_ref().is_some_and(Merge::is_copied);
        let may_borrow = self.pending.urgent || is_awaited;
        if self.lent && !may_borrow {
            self.ask_for_room()?;
        }
        let bytes = self.pending.bytes.len();
        match self.write_pending() {
            Err(WriteError::NoSpace) => {
                self.refused_bytes = bytes;
                let before = self.reserve_bytes;
                if !may_borrow || !self.lend_to_pending(is_awaited) {
                    return Err(WriteError::NoSpace);
                }
                self.lent = true;
                let written = self.write_pending();
                self.take_back(before);
                written?;
            }
            written => {
                written?;
                if !may_borrow && bytes >= self.refused_bytes {
                    self.refused_bytes = 0;
                }
            }
        }
        self.pending.bytes.clear();
        self.pending.urgent = false;
        if self.pending.bytes.capacity() > KEPT_BUFFER_BYTES.max(2 * self.options.write_buffer_bytes) {
            self.pending.bytes = Vec::new();
        }
        Ok(())
    }

    fn write_pending(&mut self) -> Result<(), WriteError> {
        let active = self.active.expect("records were appended to it");
        let file = &self.segments[active].file;
        let Err(error) = file.write_at(self.pending.start, &self.pending.bytes) else { return Ok(()) };
        // A part may have been written: records that are refused, or written elsewhere later. None of them may be met by a
        // recovery. A disk that had no room for them had reserved none, so that cutting the file gives nothing up.
        let undone = match error.kind() {
            DiskErrorKind::NoSpace => file.truncate(self.pending.start),
            _ => Err(error),
        };
        undone.map_or_else(
            |error| {
                self.poisoned = true;
                Err(WriteError::Disk(error))
            },
            |()| Err(WriteError::NoSpace),
        )
    }

    /// The tag that was put with a key, from memory alone; `None` if it is not found, which need not mean that it is
    /// [absent](crate::ReadError::Unknown). The key itself is not compared: another one with the same slot
    /// and 56 bits of fingerprint would be taken for it, about once in 2^56 askings per key of the slot.
    pub fn tag(&self, slot: u16, key: &[u8]) -> Option<u64> {
        Some(self.index.get(slot, self.fingerprint(key))?.tag)
    }

    /// The hash tree over slots, if a [tree key](Options::tree_key) was given.
    pub const fn tree(&self) -> Option<&HashTree> {
        self.tree.as_ref()
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

    /// The slots from `first` to `last` that have keys, in order.
    pub fn slots(&self, first: u16, last: u16) -> impl Iterator<Item = u16> {
        self.index.slots(first, last)
    }

    /// Whether writes can be made at all: no sync or write has failed since the opening.
    pub fn writable(&self) -> bool {
        !self.poisoned && !self.has_lost_sync()
    }

    /// Whether the disk had no room when a segment was last asked for: puts are refused, or will be when the segments that there are
    /// have been filled. [`maintain`](Self::maintain) and puts ask again; where the disk reserves no room `maintain` alone does. There it is
    /// full also when a write found it so, until one goes through.
    pub fn is_full(&self) -> bool {
        self.starved || self.refused_bytes > 0
    }

    /// The last write's position, whether durable or not.
    pub fn position(&self) -> Position {
        Position::new(self.next_sequence - 1, self.opening)
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

impl<D: Disk> Drop for Store<D> {
    fn drop(&mut self) {
        // As if it had been written when it was put. Should that fail it is as lost as in a power cut.
        let _ = self.flush();
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
