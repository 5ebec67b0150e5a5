//! Compaction: the live records of a few segments are copied into a new one, which then takes their place.
//!
//! It goes in bounded steps, between which writes and reads go on, and can be cut off anywhere: until the manifest names the
//! output instead of its victims, in one change, an opening finds the victims whole and clears the output away. Records
//! keep their sequences, so that a copy never wins over a later write, wherever it stands.

use crate::chain::Event;
use crate::disk::{Disk, DiskError, DiskErrorKind, DiskFile};
use crate::error::WriteError;
use crate::index_file;
use crate::key_index::{FINGERPRINT_MASK, Hit, Location, SizeClass};
use crate::manifest::SaveError;
use crate::read::is_past;
use crate::record::{Draft, HEADER_BYTES, Header, Kind, Term};
use crate::scan::{Found, Scan};
use crate::segments::SegmentTable;
use crate::store::{KEPT_BUFFER_BYTES, Store};
use alloc::vec::Vec;

/// Copies are written when there are so many bytes of them, at the end of a step, or of a victim.
const GATHER_BYTES: usize = 64 << 10;

/// A merge under way.
pub(crate) struct Merge<F> {
    victims: Vec<u16>,
    /// No other segment has a dead record that is older than this write, nor will one have: what dies later dies of a later write than any in
    /// the victims.
    others_hide_from: u64,
    /// How many victims have been gone through.
    done: usize,
    scan: Option<Scan<F>>,
    /// Made when the first record is to be copied.
    output: Option<u16>,
    /// Bytes that the output will take at most.
    bound: u64,
    phase: Phase,
    /// The last write at the end of the copying. Records were left behind because of writes up to here, so these must be
    /// durable before the victims go.
    seen: u64,
    /// A victim has to stay. Then all must: deletes were left behind on the promise that all go.
    spoiled: bool,
    /// The victim that is being gone through has places that can't be read.
    lossy: bool,
    /// How many victims were gone through, but for one, when the disk last refused to read.
    refused: Option<usize>,
    /// Of the victim that is being gone through; none between steps.
    gathered: Gathered,
}

/// Copies of one victim's records that are to be written behind the output's tail, all with one write. Until that is done the index has
/// the records where they were, and nothing is counted.
#[derive(Default)]
struct Gathered {
    bytes: Vec<u8>,
    copies: Vec<Copied>,
    /// Where in the victim the first of them was met.
    from: u64,
    /// What the victim will have lost of its [live bytes](crate::segment::Segment::live).
    moved: u64,
}

/// What is to be known of a copy once it is written.
struct Copied {
    kind: Kind,
    slot: u16,
    sequence: u64,
    fingerprint: u64,
    tag: u64,
    term: Term,
    key_bytes: usize,
    bytes: usize,
    /// The index has the record in the victim, and is to have it here, or, of a delete, no more.
    moves: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Copying,
    /// All is copied; a sync of the output, and of all writes so far, is to come.
    Copied,
    /// The output is durable, and so is all that made records in the victims dead.
    Synced,
}

impl<F> Merge<F> {
    /// The output, if it waits to be synced.
    pub(crate) fn output_to_sync(&self) -> Option<u16> {
        self.output.filter(|_| self.phase == Phase::Copied)
    }

    /// Whether all that is missing is a sync and a change of the manifest.
    pub(crate) fn is_copied(&self) -> bool {
        self.phase != Phase::Copying
    }

    /// A sync is through: of the output too, if it was `with_output`, and of all writes up to `durable`.
    pub(crate) fn note_sync(&mut self, with_output: bool, durable: u64) {
        let output_is_durable = with_output || self.output.is_none();
        if self.phase == Phase::Copied && output_is_durable && durable >= self.seen {
            self.phase = Phase::Synced;
        }
    }
}

impl<F: DiskFile> Merge<F> {
    /// A merge of these, the oldest first, into at most so many bytes.
    pub(crate) fn new(victims: Vec<u16>, bound: u64, segments: &SegmentTable<F>) -> Self {
        let others = segments.iter().filter(|(number, _)| !victims.contains(number));
        Self {
            others_hide_from: others.map(|(_, one)| one.hides_from()).min().unwrap_or(u64::MAX),
            victims,
            done: 0,
            scan: None,
            output: None,
            bound,
            phase: Phase::Copying,
            seen: 0,
            spoiled: false,
            lossy: false,
            refused: None,
            gathered: Gathered::default(),
        }
    }

    /// Whether a removal with this sequence has nothing left to remove: no segment but the victims has a dead record that is as old.
    const fn is_spent(&self, sequence: u64) -> bool {
        self.others_hide_from > sequence
    }

    /// Bytes of its victims that have been gone through, and of all that there are to go through.
    pub(crate) fn progress(&self, segments: &SegmentTable<F>) -> (u64, u64) {
        let tails = |victims: &[u16]| victims.iter().map(|victim| segments[*victim].tail).sum::<u64>();
        let at = self.scan.as_ref().map_or(0, Scan::position);
        (tails(&self.victims[..self.done]) + at, tails(&self.victims))
    }
}

/// Where a merge stands after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There is nothing to merge.
    Idle,
    /// More steps are to come.
    More,
    /// A sync has to come first.
    AwaitsSync,
    /// The merge is through; bytes of disk given back.
    Finished(u64),
}

impl<D: Disk> Store<D> {
    /// Does a step of compaction: reads and copies about `budget` bytes, or puts a copied segment in its victims' place.
    pub(crate) fn compact(&mut self, budget: u64) -> Result<Progress, WriteError> {
        let Some(mut merge) = self.merge.take().or_else(|| self.choose_victims()) else {
            return Ok(Progress::Idle);
        };
        let progress = match merge.phase {
            Phase::Copying => match self.copy(&mut merge, budget) {
                // Another one may need less room, or none.
                Err(WriteError::NoSpace) if merge.output.is_none() => {
                    self.starved = true;
                    return Err(WriteError::NoSpace);
                }
                copied => copied,
            },
            Phase::Copied => Ok(Progress::AwaitsSync),
            Phase::Synced => return self.replace(merge),
        };
        self.merge = Some(merge);
        progress
    }

    /// Whether no segment but the victims has a record as old as this, dead or live. What was copied from them was live: nothing
    /// that is lost had removed it.
    fn is_oldest(&self, merge: &Merge<D::File>, sequence: u64) -> bool {
        let inside = |number| merge.victims.contains(&number) || merge.output == Some(number);
        let mut others = self.segments.iter().filter(|(number, _)| !inside(*number));
        others.all(|(_, segment)| segment.first > sequence)
    }

    fn copy(&mut self, merge: &mut Merge<D::File>, budget: u64) -> Result<Progress, WriteError> {
        let copied = self.gather(merge, budget);
        // Also what was gathered before something else failed. Should this fail too, that is met again at the next step.
        self.write_gathered(merge).and(copied)
    }

    fn gather(&mut self, merge: &mut Merge<D::File>, budget: u64) -> Result<Progress, WriteError> {
        let mut spent = 0;
        while spent < budget.max(1) {
            let Some(victim) = merge.victims.get(merge.done).copied() else {
                merge.seen = self.next_sequence - 1;
                if merge.output.is_none() && merge.seen == self.durable {
                    merge.phase = Phase::Synced;
                    return Ok(Progress::More);
                }
                merge.phase = Phase::Copied;
                return Ok(Progress::AwaitsSync);
            };
            let segment = &self.segments[victim];
            if segment.live == merge.gathered.moved && segment.removals == 0 && !segment.damaged {
                self.write_gathered(merge)?;
                (merge.scan, merge.lossy) = (None, false);
                merge.done += 1;
                continue;
            }
            let mut scan = match merge.scan.take() {
                Some(scan) => scan,
                None => Scan::new(segment.file.clone(), segment.place, segment.tail, segment.torn.clone())
                    .map_err(WriteError::Unreadable)?,
            };
            scan.go_by_budget(budget);
            let (before, mark) = (scan.bytes_read, scan.position());
            if merge.gathered.bytes.is_empty() {
                merge.gathered.from = mark;
            }
            let found = match scan.next() {
                Ok(found) => found,
                Err(error) => {
                    scan.rewind(mark);
                    // Once it is told, and after that gone around: what else there is to compact must not wait for it.
                    let is_told = merge.refused.replace(merge.done) == Some(merge.done);
                    if is_told && error.kind() == DiskErrorKind::Io {
                        scan.read_around();
                        merge.scan = Some(scan);
                        continue;
                    }
                    merge.scan = Some(scan);
                    return Err(WriteError::Unreadable(error));
                }
            };
            spent += scan.bytes_read - before;
            let copied = match found {
                Found::End { offset } => {
                    merge.scan = Some(scan);
                    self.write_gathered(merge)?;
                    merge.scan = None;
                    merge.done += 1;
                    let segment = &self.segments[victim];
                    merge.lossy |= offset < segment.tail
                        && !segment.may_end_early()
                        && !segment.has_accepted(offset, segment.tail);
                    // A record that can't be read may have been a delete, which an index file may know of: while there is
                    // something older, it must not be forgotten. The index may point to that: nobody told it of the delete.
                    // Where nothing can be read, nothing is known of its age.
                    let lost = core::mem::take(&mut merge.lossy)
                        && (segment.is_empty() || !self.is_oldest(merge, segment.last));
                    let segment = &mut self.segments[victim];
                    // What the index still points to here became unreadable since the opening, header and all.
                    segment.quarantined = segment.live > 0 || lost;
                    merge.spoiled |= segment.quarantined;
                    self.has_gaps |= segment.quarantined;
                    continue;
                }
                Found::Searching => Ok(0),
                Found::Gap { start, end, .. } => {
                    merge.lossy |= !segment.has_accepted(start, end);
                    Ok(0)
                }
                // It may be read another day: nothing takes its place.
                Found::Record { offset, header, intact: false, .. }
                    if scan.is_unreadable(offset, offset + header.record_len() as u64) =>
                {
                    let accepted = segment.has_accepted(offset, scan.position());
                    merge.lossy |= !accepted;
                    // A removal whose header can be read is not lost, and what it hides may live elsewhere.
                    match header.kind {
                        Kind::Delete | Kind::DropSlot if accepted => {
                            self.copy_record(merge, victim, offset, &header, &[])
                        }
                        _ => Ok(0),
                    }
                }
                Found::Record { offset, header, intact, .. } => {
                    let body = if intact { scan.bytes(offset, header.record_len()) } else { &[] };
                    self.copy_record(merge, victim, offset, &header, body)
                }
            };
            match copied {
                Ok(bytes) => spent += bytes,
                Err(error) => {
                    scan.rewind(mark);
                    merge.scan = Some(scan);
                    return Err(error);
                }
            }
            merge.scan = Some(scan);
            if merge.gathered.bytes.len() >= GATHER_BYTES {
                self.write_gathered(merge)?;
            }
        }
        Ok(Progress::More)
    }

    /// Copies a record if it is still of use. `bytes`: the whole record, or nothing if its body is damaged.
    fn copy_record(
        &mut self,
        merge: &mut Merge<D::File>,
        victim: u16,
        offset: u64,
        header: &Header,
        bytes: &[u8],
    ) -> Result<u64, WriteError> {
        let hit = self.index.get(header.slot, header.fingerprint);
        let here = hit.is_some_and(|hit| hit.location.segment == victim && hit.location.offset() == offset);
        let kept = match header.kind {
            Kind::Watermark => false,
            Kind::Put | Kind::Expiring | Kind::Shrinking | Kind::Lost => here,
            // A later write of the key outdoes all that the delete could.
            Kind::Delete => hit.is_none() && !merge.is_spent(header.sequence),
            Kind::DropSlot => !merge.is_spent(header.sequence),
        };
        if !kept {
            return Ok(0);
        }
        let whole = bytes.len() >= HEADER_BYTES;
        let (mut key, mut value, mut term) = (&[][..], &[][..], Term::None);
        if whole {
            key = &bytes[HEADER_BYTES..HEADER_BYTES + header.key_len as usize];
            if header.kind.is_put() {
                (value, term) = (&bytes[header.value_range()], header.term(bytes));
            }
        }
        // What has expired leaves a delete behind, if there may be something older for it to hide. The sums of a hash tree
        // must not go by the clock: with one its value alone goes, and it is past at any time, also before the next opening is told the time.
        if is_past(term.expires(), self.now) && self.tree.is_some() {
            (value, term) = (&[], Term::Expires(0));
        } else if is_past(term.expires(), self.now) {
            let removal = Draft {
                kind: Kind::Delete,
                slot: header.slot,
                sequence: header.sequence,
                fingerprint: header.fingerprint,
                tag: 0,
                term: Term::None,
                key,
                value: &[],
            };
            if !merge.is_spent(header.sequence) {
                return self.add_copy(merge, &removal, hit);
            }
            if let Some(old) = self.index.remove(header.slot, header.fingerprint) {
                self.segments.lose(old.location, header.sequence);
            }
            return Ok(0);
        }
        if let Term::Shrinks(at, kept) = term
            && at <= self.now
        {
            (value, term) = (&value[..kept as usize], Term::None);
        }
        let kind = match header.kind {
            // Unknown is not absent: a damaged record leaves a mark.
            kind if kind.is_put() && !whole => Kind::Lost,
            kind if kind.is_put() => term.kind(),
            // The key of a damaged delete is not known, its fingerprint is: that is all a recovery goes by.
            kind => kind,
        };
        let draft = Draft {
            kind,
            slot: header.slot,
            sequence: header.sequence,
            fingerprint: header.fingerprint,
            tag: header.tag,
            term,
            key: if kind == Kind::Delete && !whole { &[0] } else { key },
            value,
        };
        self.add_copy(merge, &draft, hit.filter(|_| here))
    }

    /// Gathers a copy. `moves`: what the index has in the victim, and is to have of the copy. Answers the copy's bytes.
    fn add_copy(
        &mut self,
        merge: &mut Merge<D::File>,
        draft: &Draft<'_>,
        moves: Option<Hit>,
    ) -> Result<u64, WriteError> {
        let output = match merge.output {
            Some(output) => output,
            None => *merge.output.insert(self.create_output(merge.bound)?),
        };
        let (segment, gathered) = (&self.segments[output], &mut merge.gathered);
        let (bytes, offset) = (draft.record_len(), segment.tail + gathered.bytes.len() as u64);
        draft.append_to(&mut gathered.bytes, segment.place, offset);
        gathered.moved += moves.map_or(0, |hit| hit.location.size.bytes());
        gathered.copies.push(Copied {
            kind: draft.kind,
            slot: draft.slot,
            sequence: draft.sequence,
            fingerprint: draft.fingerprint,
            tag: draft.tag,
            term: draft.term,
            key_bytes: draft.key.len(),
            bytes,
            moves: moves.is_some(),
        });
        Ok(bytes as u64)
    }

    /// Writes what was gathered, and has the index point there. On an error none of it was copied: it is met again.
    fn write_gathered(&mut self, merge: &mut Merge<D::File>) -> Result<(), WriteError> {
        let Some(output) = merge.output.filter(|_| !merge.gathered.bytes.is_empty()) else { return Ok(()) };
        let written = self.write_to_output(output, merge.bound, &merge.gathered.bytes);
        let copies = core::mem::take(&mut merge.gathered.copies);
        match (&written, &mut merge.scan) {
            (Ok(()), _) => copies.iter().for_each(|copied| self.note_copy(output, copied)),
            (Err(_), Some(scan)) => scan.rewind(merge.gathered.from),
            (Err(_), None) => {}
        }
        merge.gathered.moved = 0;
        merge.gathered.bytes.clear();
        if merge.gathered.bytes.capacity() > KEPT_BUFFER_BYTES {
            merge.gathered.bytes = Vec::new();
        }
        written
    }

    fn write_to_output(&mut self, output: u16, bound: u64, bytes: &[u8]) -> Result<(), WriteError> {
        let segment = &self.segments[output];
        let mut written = segment.file.write_at(segment.tail, bytes);
        let is_full = |error: &DiskError| error.kind() == DiskErrorKind::NoSpace;
        if written.as_ref().is_err_and(is_full) {
            // The disk reserves no room, and has too little left.
            let (file, tail) = (segment.file.clone(), segment.tail);
            self.lend_to_output(&file, bound)?;
            written = file.write_at(tail, bytes);
        }
        written.map_err(|error| {
            if is_full(&error) {
                return WriteError::NoSpace;
            }
            self.poisoned = true;
            WriteError::Disk(error)
        })
    }

    /// A copy was written at the output's tail.
    fn note_copy(&mut self, output: u16, copied: &Copied) {
        let (slot, fingerprint) = (copied.slot, copied.fingerprint);
        let segment = &mut self.segments[output];
        let (offset, size) = (segment.tail, SizeClass::of(copied.bytes));
        segment.tail += copied.bytes as u64;
        segment.note_sequence(copied.sequence);
        // Should its victims' index files have counted wrong.
        segment.capacity = segment.capacity.max(segment.tail);
        segment.note_record(copied.kind, copied.bytes as u64, size);
        segment.expiries.note(copied.term, copied.bytes, copied.key_bytes, self.tree.is_some());
        if !copied.moves {
            return;
        }
        if copied.kind == Kind::Delete {
            if let Some(old) = self.index.remove(slot, fingerprint) {
                self.segments.lose(old.location, copied.sequence);
            }
            return;
        }
        let unit = u32::try_from(offset / 8).expect("a segment's capacity is bounded");
        let location = Location { segment: output, unit, size };
        self.segments.gain(location);
        if let Some(old) = self.index.set(slot, fingerprint, location, copied.tag) {
            // Should the victim have to stay, what it has of the key is dead before any later delete.
            self.segments.lose(old.location, 0);
        }
        // What is lost is not counted, so that a healthy replica's sum differs.
        if copied.kind == Kind::Lost {
            self.count_no_more(slot, fingerprint & FINGERPRINT_MASK);
        }
    }

    /// Puts the output in the place of its victims: one change of the manifest, then the files go.
    fn replace(&mut self, merge: Merge<D::File>) -> Result<Progress, WriteError> {
        let mark = |store: &mut Self, replaced: bool| {
            for victim in &merge.victims {
                store.segments[*victim].listed = !replaced || merge.spoiled;
            }
            if let Some(output) = merge.output {
                let segment = &mut store.segments[output];
                segment.listed = replaced;
                segment.finished = replaced;
            }
        };
        mark(self, true);
        let chain = self.chain.clone();
        for victim in merge.victims.iter().filter(|_| !merge.spoiled) {
            let segment = &self.segments[*victim];
            if segment.hash.is_some() {
                self.chain.push(&Event::Dropped { segment: segment.id });
            }
        }
        match self.save_from_reserve(false) {
            Ok(()) => {}
            Err(SaveError::Unchanged(error)) => {
                mark(self, false);
                self.chain = chain;
                self.merge = Some(merge);
                return Err(match error.kind() {
                    DiskErrorKind::NoSpace => WriteError::NoSpace,
                    _ => WriteError::NewSegment(error),
                });
            }
            Err(SaveError::Unknown(error)) => {
                self.poisoned = true;
                self.merge = Some(merge);
                return Err(WriteError::Disk(error));
            }
        }
        let mut freed = 0;
        if merge.spoiled {
            // Without any: what it took from the reserve stays away until the victims go.
            return Ok(Progress::Finished(0));
        }
        for victim in merge.victims {
            let Some(segment) = self.segments.remove(victim) else { continue };
            freed += segment.tail;
            self.leave(victim);
            // Readers that have it open read on. Should it not go, the next opening clears it away.
            let _ = self.disk.remove(&segment.id.file_name());
            let _ = self.disk.remove(&index_file::file_name(segment.id));
        }
        if let Some(output) = merge.output {
            freed = freed.saturating_sub(self.segments[output].tail);
        }
        // Before anybody takes what is there again. Where it is not enough, the next writer that needs a segment tries.
        let _ = self.hold_reserve(true);
        Ok(Progress::Finished(freed))
    }

    /// Nobody reads at leisure in a segment that goes: it would keep the segment's room for as long.
    fn leave(&mut self, victim: u16) {
        self.learning.take_if(|learning| learning.number == victim);
        self.scrub_round.take_if(|round| round.number == victim);
    }

    /// Gives back the room past the ends of segments that are written to no more. One step; answers whether there was one.
    pub(crate) fn trim(&mut self) -> Result<bool, WriteError> {
        let Some(segment) = self.segments.iter_mut().find(|segment| segment.finished && !segment.trimmed)
        else {
            return Ok(false);
        };
        // A segment that can't be trimmed takes more room than it needs, no more than that.
        let trimmed = segment.file.truncate(segment.tail);
        segment.trimmed = true;
        trimmed.map(|()| true).map_err(WriteError::NewSegment)
    }
}
