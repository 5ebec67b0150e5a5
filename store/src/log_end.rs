//! Where the log ends, by what is left of it: what was cut off at the end of a record leaves no trace but what others say of it.

use crate::disk::DiskFile;
use crate::record::HEADER_BYTES;
use crate::recovery::{DamageKind, Recovery, Torn};
use crate::replay::Replay;
use crate::segment::{SEGMENT_HEADER_BYTES, Segment, SegmentKind};
use alloc::vec::Vec;

impl<F: DiskFile> Replay<'_, F> {
    /// Log segments of which no manifest says where they end, in the order of the log.
    fn unsealed(&self) -> Vec<u16> {
        let unsealed = self.segments.iter().filter(|(_, one)| one.kind == SegmentKind::Log && !one.sealed);
        let mut order: Vec<u16> = unsealed.map(|(number, _)| number).collect();
        order.sort_by_key(|number| self.segments[*number].id);
        order
    }

    /// The first of these that has records.
    fn first_used(&self, numbers: &[u16]) -> Option<&Segment<F>> {
        numbers.iter().map(|number| &self.segments[*number]).find(|segment| !segment.is_empty())
    }

    /// A segment that was durable, and of which no manifest says where it ends, may have been cut off where a record ends:
    /// then sequences are missing between it and the next, for the log has them without gaps.
    pub(crate) fn look_for_cuts(&mut self) {
        let order = self.unsealed();
        // A record of which the header is left tells its sequence.
        let has_gap = |recovery: &Recovery, id| {
            recovery.damage.iter().any(|damage| damage.segment == Some(id) && damage.kind.is_unaccounted())
        };
        let mut cuts = Vec::new();
        for (at, number) in order.iter().enumerate() {
            let segment = &self.segments[*number];
            let is_damaged = || self.recovery.damage.iter().any(|damage| damage.segment == Some(segment.id));
            if segment.id >= self.watermark.0 && segment.is_empty() && is_damaged() {
                // A crash leaves the header, which was durable before records came. Whether any did nothing says.
                let (start, end) = (SEGMENT_HEADER_BYTES as u64, segment.capacity);
                self.recovery.torn.push(Torn { segment: segment.id, start, end, slot: None });
                continue;
            }
            if segment.id >= self.watermark.0 || has_gap(&self.recovery, segment.id) {
                continue;
            }
            // The first of its records may be missing, too.
            let noted = self.noted.get(number).copied().unwrap_or(0);
            if noted > segment.last && noted <= self.durable {
                cuts.push(*number);
                continue;
            }
            if segment.is_empty() {
                // Nothing is left, not even the header: then it can't be told from one that was full.
                if is_damaged() {
                    cuts.push(*number);
                }
                continue;
            }
            let next = self.first_used(&order[at + 1..]);
            let due = segment.last + 1;
            let (first, known) =
                next.map_or((u64::MAX, false), |next| (next.first, has_gap(&self.recovery, next.id)));
            if due <= self.durable && first > due && !known {
                cuts.push(*number);
            }
        }
        for number in cuts {
            let segment = &mut self.segments[number];
            let tail = segment.tail;
            // It is sealed as if the record were there that came next, so that the next opening finds it short.
            segment.tail = segment.capacity.min(tail + HEADER_BYTES as u64);
            let end = segment.tail;
            self.note_damage(number, tail, end, DamageKind::CutOff);
        }
    }

    /// Ends of files at the log's end that a crash does not leave where room was reserved: it makes no file shorter. A stop between the
    /// cutting of a segment and the manifest that seals it leaves them, too.
    pub(crate) fn short_ends(&self) -> Vec<Torn> {
        let order = self.unsealed();
        let is_open = |number: u16| {
            let segment = &self.segments[number];
            let at = order.iter().position(|one| *one == number).map(|at| at + 1)?;
            // Before the watermark it is damage, if anything is missing; and where the log goes on nothing is.
            let goes_on = self.first_used(&order[at..]).is_some_and(|next| next.first <= segment.last + 1);
            ((segment.id, segment.tail) >= self.watermark && !goes_on).then_some(segment)
        };
        let short = self.short.iter().filter_map(|(number, len)| Some((is_open(*number)?, *len)));
        short
            .map(|(segment, len)| Torn {
                segment: segment.id,
                start: len.min(segment.tail),
                end: segment.capacity,
                slot: None,
            })
            .collect()
    }
}
