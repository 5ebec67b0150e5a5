//! Taking many lines into the index at once: slot by slot, each slot's in the order of its table.

use crate::batch::{Chunk, PART_SLOTS};
use crate::disk::DiskFile;
use crate::error::OpenError;
use crate::hash_tree::TreeKey;
use crate::key_index::{Entry, Location};
use crate::record::Kind;
use crate::replay::Replay;
use crate::slot_table::SlotTable;
use crate::summary::Line;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

/// From so many lines on it pays to take in parts of them side by side.
#[cfg(feature = "std")]
const PARALLEL_LINES: usize = if cfg!(test) { 1 << 10 } else { 1 << 16 };

impl<F: DiskFile> Replay<'_, F> {
    /// Takes all pending lines into the index; those of one slot as if in the order that they have.
    pub(crate) fn apply_pending(&mut self) -> Result<(), OpenError> {
        let pending = core::mem::take(&mut self.pending);
        #[cfg(feature = "std")]
        let is_much = pending.iter().map(|(_, batch)| batch.len()).sum::<usize>() >= PARALLEL_LINES;
        // By parts: their lines, by the segments' numbers.
        let mut parts: Vec<Part> = Vec::new();
        for (number, batch) in pending {
            for (part, lines) in batch.into_chunks() {
                if part >= parts.len() {
                    parts.resize_with(part + 1, Vec::new);
                }
                parts[part].push((number, lines));
            }
        }
        if parts.is_empty() {
            return Ok(());
        }
        let context = Context {
            fingerprint_mask: self.plan.fingerprint_mask,
            tree: self.hashes.tree,
            deleted: &self.deleted,
            dropped: &self.dropped,
            segments: self.segments.iter().last().map_or(0, |(number, _)| usize::from(number) + 1),
        };
        let tables = self.index.tables_of(parts.len() * PART_SLOTS);
        let work = parts.into_iter().zip(tables.chunks_mut(PART_SLOTS));
        #[cfg(feature = "std")]
        let outcomes = context.take_all(work, if is_much { self.plan.threads } else { 1 });
        #[cfg(not(feature = "std"))]
        let outcomes = vec![context.take_parts(work)];
        for outcome in &outcomes {
            self.index.note_taken(outcome.keys);
            self.last_sequence = self.last_sequence.max(outcome.last_sequence);
            for (number, live) in (0..).zip(&outcome.live) {
                if *live > 0 {
                    self.segments[number].live += live;
                }
            }
            if let Some(tree) = &mut self.tree {
                outcome.sums.iter().for_each(|(slot, sum, odd)| tree.add_sum(*slot, *sum, *odd));
            }
            self.uncounted.extend(&outcome.uncounted);
        }
        for (number, line) in outcomes.iter().flat_map(|outcome| &outcome.rest) {
            self.apply(*number, line)?;
        }
        Ok(())
    }
}

/// The lines of the slots of one part, by the segments' numbers.
type Part = Vec<(u16, Chunk)>;

/// What all parts need.
struct Context<'r> {
    fingerprint_mask: u64,
    tree: Option<TreeKey>,
    deleted: &'r BTreeMap<(u16, u64), u64>,
    dropped: &'r BTreeMap<u16, u64>,
    /// More than any segment's number.
    segments: usize,
}

/// What came of some parts, but for what is in the tables.
#[derive(Default)]
struct Outcome {
    keys: u64,
    last_sequence: u64,
    /// Bytes, by the segments' numbers.
    live: Vec<u64>,
    /// What each slot's new elements sum up to in the hash tree, and how many have odd tags.
    sums: Vec<(u16, u128, u32)>,
    uncounted: Vec<(u16, u64)>,
    /// Lines that have to be taken in one by one, those of one slot in this order.
    rest: Vec<(u16, Line)>,
}

/// The lines of one slot.
struct Group {
    lines: usize,
    slot: u16,
    /// The order of its lines matters: something is removed.
    is_ordered: bool,
    /// Where its part of the places begins, and its length if its table is filled anew; otherwise 0.
    start: usize,
    homes: u32,
    /// What was not taken because there is an entry with its fingerprint, in the order of places, and whether its line was met
    /// again.
    refused: Vec<(Location, bool)>,
    /// What its new elements sum up to in the hash tree, and how many have odd tags.
    sum: u128,
    odd: u32,
}

impl Group {
    const NEW: Self = Self {
        lines: 0,
        slot: 0,
        is_ordered: false,
        start: 0,
        homes: 0,
        refused: Vec::new(),
        sum: 0,
        odd: 0,
    };

    /// Whether a line was refused, which it was as often as it was repeated.
    fn refuses(&mut self, number: u16, line: &Line) -> bool {
        let due = (number, line.unit, line.size.as_byte());
        let from = self.refused.partition_point(|(place, _)| order(place) < due);
        let mut same = self.refused[from..].iter_mut().take_while(|(place, _)| order(place) == due);
        same.find(|(_, met)| !met).is_some_and(|(_, met)| !core::mem::replace(met, true))
    }
}

/// What refused places are in the order of. Their sizes too: what is taken and what is not must come to the same sum even if an index file
/// lies about a place.
fn order(place: &Location) -> (u16, u32, u8) {
    (place.segment, place.unit, place.size.as_byte())
}

fn each_line(part: &Part) -> impl Iterator<Item = (u16, &Line)> {
    part.iter().flat_map(|(number, lines)| lines.iter().map(move |line| (*number, line)))
}

impl Context<'_> {
    /// Takes in all parts, beside their slots' tables, with so many threads.
    #[cfg(feature = "std")]
    fn take_all<'t>(
        &self,
        work: impl Iterator<Item = (Part, &'t mut [SlotTable])> + Send,
        threads: usize,
    ) -> Vec<Outcome> {
        let work = std::sync::Mutex::new(work);
        // The lock is not held while a part is taken in.
        let next = || work.lock().ok()?.next();
        let take = || self.take_parts(core::iter::from_fn(next));
        std::thread::scope(|scope| {
            let spawn = |_| std::thread::Builder::new().spawn_scoped(scope, take).ok();
            // Where the system gives no more threads, those that there are do it.
            let others: Vec<_> = (1..threads).map_while(spawn).collect();
            let mut outcomes = vec![take()];
            for other in others {
                outcomes.push(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            outcomes
        })
    }

    fn take_parts<'t>(&self, work: impl Iterator<Item = (Part, &'t mut [SlotTable])>) -> Outcome {
        let mut outcome = Outcome { live: vec![0; self.segments], ..Outcome::default() };
        let mut places = Vec::new();
        // The memory of a part's lines is free for the next one's tables.
        for (part, tables) in work.filter(|(part, _)| !part.is_empty()) {
            self.take_part(&part, tables, &mut places, &mut outcome);
        }
        outcome
    }

    fn take_part(&self, part: &Part, tables: &mut [SlotTable], places: &mut Vec<u32>, outcome: &mut Outcome) {
        let mut slots = [const { Group::NEW }; PART_SLOTS];
        for (_, line) in each_line(part) {
            let group = &mut slots[usize::from(line.slot) % PART_SLOTS];
            if group.lines == 0 {
                group.slot = line.slot;
                group.is_ordered = self.removes_from(line.slot);
            }
            group.lines += 1;
            group.is_ordered |= !(line.kind.is_put() || line.kind == Kind::Lost);
            outcome.last_sequence = outcome.last_sequence.max(line.sequence);
        }
        places.clear();
        for (group, table) in slots.iter_mut().zip(&*tables) {
            if group.lines > 0 && !group.is_ordered && table.is_worth_filling(group.lines) {
                group.start = places.len();
                group.homes = table.homes_with(group.lines);
                places.resize(group.start + group.homes as usize, 0);
            }
        }
        for (_, line) in each_line(part) {
            let group = &slots[usize::from(line.slot) % PART_SLOTS];
            if group.homes > 0 {
                let home = SlotTable::home(group.homes, line.fingerprint & self.fingerprint_mask);
                places[group.start + home] += 1;
            }
        }
        for (group, table) in slots.iter().zip(&mut *tables).filter(|(group, _)| group.homes > 0) {
            table.begin_fill(&mut places[group.start..][..group.homes as usize]);
        }
        for (number, line) in each_line(part) {
            let at = usize::from(line.slot) % PART_SLOTS;
            let (group, table) = (&mut slots[at], &mut tables[at]);
            let fingerprint = line.fingerprint & self.fingerprint_mask;
            let location = Location { segment: number, unit: line.unit, size: line.size };
            let entry = Entry::new(fingerprint, location, line.tag);
            if group.homes > 0 {
                table.fill(&mut places[group.start..][..group.homes as usize], entry);
            } else if !group.is_ordered {
                match table.find(fingerprint) {
                    Err(gap) => table.insert(gap, entry),
                    Ok(_) => group.refused.push((location, false)),
                }
            }
        }
        for (group, table) in slots.iter_mut().zip(tables) {
            if group.homes > 0 {
                table.end_fill(|refused| group.refused.push((refused, false)));
            }
            group.refused.sort_unstable_by_key(|(place, _)| order(place));
        }
        for (number, line) in each_line(part) {
            let group = &mut slots[usize::from(line.slot) % PART_SLOTS];
            if group.is_ordered || (!group.refused.is_empty() && group.refuses(number, line)) {
                outcome.rest.push((number, *line));
                continue;
            }
            outcome.keys += 1;
            outcome.live[usize::from(number)] += line.size.bytes();
            if let Some(tree) = &self.tree {
                if line.key_hash == 0 {
                    outcome.uncounted.push((line.slot, line.fingerprint & self.fingerprint_mask));
                } else {
                    group.sum = group.sum.wrapping_add(tree.element(line.slot, line.key_hash, line.tag));
                    group.odd += u32::from(line.tag & 1 == 1);
                }
            }
        }
        if self.tree.is_some() {
            let sums = slots.iter().filter(|group| group.lines > 0);
            outcome.sums.extend(sums.map(|group| (group.slot, group.sum, group.odd)));
        }
    }

    /// Whether a delete or a drop that was read before may be newer than what comes for this slot.
    fn removes_from(&self, slot: u16) -> bool {
        self.dropped.contains_key(&slot) || self.deleted.range((slot, 0)..=(slot, u64::MAX)).next().is_some()
    }
}
