//! Taking many lines into the index at once: slot by slot, each slot's in the order of its table.

use crate::disk::DiskFile;
use crate::error::OpenError;
use crate::key_index::{Entry, Location, Placed};
use crate::record::Kind;
use crate::replay::Replay;
use crate::summary::Line;
use alloc::vec;
use alloc::vec::Vec;

/// From so many lines on it pays to take them slot by slot, each table while it is in the processor's cache.
const GROUPED_LINES: usize = 4096;
/// A table that has so many times as many entries as come is not worth being laid out anew.
const FEW: usize = 8;

impl<F: DiskFile> Replay<'_, F> {
    /// Takes lines into the index; those of one slot as if in the order that they have.
    pub(crate) fn apply_all(&mut self, number: u16, lines: Vec<Line>) -> Result<(), OpenError> {
        if lines.len() < GROUPED_LINES {
            return lines.iter().try_for_each(|line| self.apply(number, line));
        }
        let slots = lines.iter().map(|line| usize::from(line.slot)).max().map_or(0, |last| last + 1);
        let mut ends = vec![0u32; slots];
        // Where the order matters: something is removed.
        let mut ordered = vec![false; slots];
        for line in &lines {
            let slot = usize::from(line.slot);
            ends[slot] += 1;
            ordered[slot] |= !matches!(line.kind, Kind::Put | Kind::Expiring | Kind::Lost);
            self.last_sequence = self.last_sequence.max(line.sequence);
        }
        let mut start = 0;
        for end in &mut ends {
            start += core::mem::replace(end, start);
        }
        let mask = self.plan.fingerprint_mask;
        let mut grouped = vec![Placed { entry: Entry::NONE, line: 0 }; lines.len()];
        for (at, line) in (0u32..).zip(&lines) {
            let end = &mut ends[usize::from(line.slot)];
            let location = Location { segment: number, unit: line.unit, size: line.size };
            let entry = Entry::new(line.fingerprint & mask, location, line.tag);
            grouped[*end as usize] = Placed { entry, line: at };
            *end += 1;
        }
        let (mut rest, mut scratch, mut taken) = (grouped.as_mut_slice(), Vec::new(), Vec::new());
        let mut begin = 0;
        for (slot, end) in (0u16..=u16::MAX).zip(ends) {
            let (group, after) = rest.split_at_mut((end - core::mem::replace(&mut begin, end)) as usize);
            rest = after;
            let many = (group.len() * FEW) as u64 >= self.index.slot_len(slot);
            if group.is_empty() {
                continue;
            }
            if !many || ordered[usize::from(slot)] || self.removes_from(slot) {
                group.iter().try_for_each(|placed| self.apply(number, &lines[placed.line as usize]))?;
                continue;
            }
            group.sort_unstable_by_key(|placed| placed.entry.fingerprint());
            taken.clear();
            self.index.merge(slot, group, &mut scratch, &mut taken);
            for (placed, taken) in group.iter().zip(&taken) {
                if !taken {
                    self.apply(number, &lines[placed.line as usize])?;
                    continue;
                }
                self.segments.gain(placed.entry.location());
                if self.tree.is_some() {
                    let key_hash = lines[placed.line as usize].key_hash;
                    self.count((slot, placed.entry.fingerprint()), key_hash, placed.entry.tag());
                }
            }
        }
        Ok(())
    }

    /// Whether a delete or a drop that was read before may be newer than what comes for this slot.
    fn removes_from(&self, slot: u16) -> bool {
        self.dropped.contains_key(&slot) || self.deleted.range((slot, 0)..=(slot, u64::MAX)).next().is_some()
    }
}
