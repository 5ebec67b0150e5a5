//! Scrubbing: reading what is at rest, so that rot is found while there is still a replica to heal it from.

use crate::disk::{Disk, DiskError};
use crate::error::ReadError;
use crate::record::Kind;
use crate::recovery::{Damage, DamageKind};
use crate::scan::{Found, Scan};
use crate::segment::SegmentId;
use crate::store::Store;
use alloc::vec::Vec;
use core::ops::Range;

/// Where a round of scrubbing is.
pub(crate) struct Round<F> {
    segment: SegmentId,
    pub(crate) number: u16,
    scan: Scan<F>,
    /// Where nothing is left to say whose records they were, in order; records stand between them.
    gaps: Vec<Range<u64>>,
}

/// What a step of [`scrub`](Store::scrub) found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Scrubbed {
    /// Bytes that were read.
    pub bytes: u64,
    /// Damaged records that keys have their values in, each with its slot: [`DamageKind::Record`], of which reads answer
    /// [`ReadError::Damaged`], and [`DamageKind::Mended`], which can still be read. Putting the key again heals it.
    pub damage: Vec<Damage>,
    /// Damaged bytes that no key needs. Compaction clears them away, unless a delete may be among them that still counts.
    pub idle_bytes: u64,
    /// All segments have been read since the last time that this was so, or since the opening.
    pub complete: bool,
}

impl Scrubbed {
    /// What was found before an error comes first: no later call would find it again in this round.
    fn or(self, error: DiskError) -> Result<Self, ReadError> {
        if self == Self::default() { Err(error.into()) } else { Ok(self) }
    }
}

impl<D: Disk> Store<D> {
    /// Reads on through the segments that are written to no more, verifies every record, and says which are damaged. An
    /// opening by index files does not look at records, and a read only at the one that it wants: this looks at all, in rounds.
    ///
    /// To be called now and then; `budget_bytes` bounds what one call reads (it may go over by a megabyte, or by a record that is
    /// longer). Where headers of records are gone it goes through the index, once for each segment and at its end, to find whose they
    /// were. What the disk refuses to read, a
    /// block of 4 KiB twice in a row, is damaged. Nothing is changed.
    ///
    /// # Errors
    /// [`ReadError::Disk`]: the disk fails otherwise. The next call tries again at the same place. What this call had found before that
    /// is answered instead, and the next call meets the error.
    pub fn scrub(&mut self, budget_bytes: usize) -> Result<Scrubbed, ReadError> {
        let mut found = Scrubbed::default();
        while found.bytes < (budget_bytes as u64).max(1) {
            let Some(mut round) = self.scrub_round.take() else {
                match self.begin_scrub_round() {
                    Ok(true) => continue,
                    Ok(false) => {
                        self.scrubbed = SegmentId(0);
                        found.complete = true;
                        break;
                    }
                    Err(error) => return found.or(error),
                }
            };
            if self.segments.get(round.number).is_none_or(|segment| segment.id != round.segment) {
                // Compaction took it meanwhile.
                continue;
            }
            round.scan.go_by_budget(budget_bytes as u64);
            let (before, mark) = (round.scan.bytes_read, round.scan.position());
            let next = round.scan.next();
            found.bytes += round.scan.bytes_read - before;
            match next {
                Err(error) => {
                    round.scan.rewind(mark);
                    self.scrub_round = Some(round);
                    return found.or(error);
                }
                Ok(Found::End { offset }) => {
                    let segment = &self.segments[round.number];
                    if !segment.may_end_early() && offset < segment.tail {
                        round.gaps.push(offset..segment.tail);
                    }
                    self.note_gaps(&round, &mut found);
                    self.scrubbed = round.segment;
                    continue;
                }
                Ok(Found::Gap { start, end, .. }) => round.gaps.push(start..end),
                // Compaction leaves a mark in the place of what it could not copy: that is as lost as it was.
                Ok(Found::Record { offset, header, intact, mended })
                    if mended || !intact || header.kind == Kind::Lost =>
                {
                    let end = offset + header.record_len() as u64;
                    let hit = self.index.get(header.slot, header.fingerprint & self.options.fingerprint_mask);
                    let is_needed = hit.is_some_and(|hit| {
                        hit.location.segment == round.number && hit.location.offset() == offset
                    });
                    if is_needed {
                        let slot = header.slot;
                        let kind = if mended && header.kind != Kind::Lost {
                            DamageKind::Mended { slot }
                        } else {
                            DamageKind::record(slot, header.sequence)
                        };
                        let segment = Some(round.segment);
                        found.damage.push(Damage { segment, start: offset, end, kind });
                    } else {
                        found.idle_bytes += end - offset;
                    }
                }
                Ok(Found::Record { .. } | Found::Searching) => {}
            }
            self.scrub_round = Some(round);
        }
        Ok(found)
    }

    /// Goes to the next segment; answers whether there is one.
    fn begin_scrub_round(&mut self) -> Result<bool, DiskError> {
        let later = |id| id > self.scrubbed;
        let next = self.segments.iter().filter(|(_, segment)| segment.finished && later(segment.id));
        let Some((number, segment)) = next.min_by_key(|(_, segment)| segment.id) else { return Ok(false) };
        let mut scan = Scan::new(segment.file.clone(), segment.place, segment.tail, segment.torn.clone())?;
        scan.read_around();
        self.scrub_round = Some(Round { segment: segment.id, number, scan, gaps: Vec::new() });
        Ok(true)
    }

    /// The index still knows whose records stood in the gaps. It is gone through once, however many they are.
    fn note_gaps(&self, round: &Round<D::File>, found: &mut Scrubbed) {
        if round.gaps.is_empty() {
            return;
        }
        let mut idle: u64 = round.gaps.iter().map(|gap| gap.end - gap.start).sum();
        for slot in self.index.slots(0, u16::MAX) {
            for hit in self.index.page(slot, 0, usize::MAX) {
                let start = hit.location.offset();
                let at = round.gaps.partition_point(|gap| gap.end <= start);
                let Some(gap) = round.gaps.get(at).filter(|gap| gap.contains(&start)) else { continue };
                if hit.location.segment != round.number {
                    continue;
                }
                let end = (start + hit.location.size.bytes()).min(gap.end);
                idle = idle.saturating_sub(end - start);
                let (segment, kind) = (Some(round.segment), DamageKind::Record { slot, position: None });
                found.damage.push(Damage { segment, start, end, kind });
            }
        }
        found.idle_bytes += idle;
        found.damage.sort_by_key(|damage| (damage.segment, damage.start));
    }
}
