//! Which segments are merged, and when it is worth while.
//!
//! A delete is kept while a segment outside the merge may hold a dead record that is older. One that was just written has no
//! dead records, so when kept deletes pile up, the segments that hold them back are written anew, however live. That bounds
//! them to half of what is live and a segment, and the log to 1.49 times both: 2.25 times what is live, and a few segments.
//!
//! On a full disk a merge must give back a block at least, and where what is put aside is short it may be of any segments that do.
//! Where none do the segments are written anew for the sake of the deletes that they hold back: see [`room`](crate::room) for why
//! that is enough.

use crate::chain::ENTRY_BYTES;
use crate::compaction::Merge;
use crate::disk::Disk;
use crate::room::in_blocks;
use crate::segment::{SEGMENT_HEADER_BYTES, SegmentId};
use crate::store::Store;
use alloc::vec::Vec;

/// Victims of one merge at most.
pub(crate) const MAX_VICTIMS: usize = 32;
/// A segment is small if it has less than one part in this many of what a segment may have.
const SMALL_PART: u64 = 4;
/// Deletes that are kept are worth rewriting live segments when they are more than one part in this many of what is live.
const HELD_PART: u64 = 2;
/// So many small segments are merged even if all of them is live.
const MANY_SMALL: usize = 8;

/// From which write on removals are held back, by whom, and from which on they would be without that segment.
struct Holds {
    least: (u64, u16),
    next: u64,
}

impl Holds {
    /// Removals from this write on are held back by segments other than this one.
    fn all_but(&self, number: u16) -> u64 {
        if self.least.1 == number { self.next } else { self.least.0 }
    }
}

/// A segment that may be merged.
#[derive(Clone, Copy)]
struct Candidate {
    number: u16,
    id: SegmentId,
    first: u64,
    last: u64,
    /// From which write on it holds removals back.
    hides_from: u64,
    /// Bytes of its records, of those removals that others hold back, and of what a merge would copy.
    records: u64,
    held: u64,
    kept: u64,
    /// What a merge copies at most: removals may be held back again by the time that it gets there.
    bound: u64,
    /// No key's record is in it.
    is_dead: bool,
    accepted: bool,
    /// See [`Segment::has_lapsed`](crate::segment::Segment::has_lapsed).
    lapsed: bool,
}

impl Candidate {
    fn tail(&self) -> u64 {
        SEGMENT_HEADER_BYTES as u64 + self.records
    }

    fn dead(&self) -> u64 {
        self.records - self.kept
    }

    fn rank(&self) -> u64 {
        self.kept * 1024 / self.records.max(1)
    }
}

impl<D: Disk> Store<D> {
    /// Chooses the segments that give back most for least copying, if it is worth while.
    pub(crate) fn choose_victims(&self) -> Option<Merge<D::File>> {
        let candidates = self.candidates();
        let chosen = self.choose(&candidates, false).or_else(|| {
            let is_pressed = self.is_short() && self.is_much_held(&candidates);
            is_pressed.then(|| self.choose(&candidates, true)).flatten()
        });
        let (mut victims, bound) = chosen?;
        // The oldest first, so that deletes find what they deleted gone.
        victims.sort_by_key(|one| one.first);
        Some(Merge::new(victims.iter().map(|one| one.number).collect(), bound, &self.segments))
    }

    /// Whether so many removals are held back that segments are worth rewriting for their sake alone, where room is short.
    pub(crate) fn holds_much(&self) -> bool {
        self.is_much_held(&self.candidates())
    }

    fn is_much_held(&self, candidates: &[Candidate]) -> bool {
        candidates.iter().map(|one| one.held).sum::<u64>() >= self.removal_bytes(0) / 6
    }

    fn candidates(&self) -> Vec<Candidate> {
        let holds = self.holds();
        let may_go = self
            .segments
            .iter()
            .filter(|(_, segment)| segment.finished && !segment.sealing)
            .filter(|(_, segment)| !segment.quarantined && !segment.unaccounted);
        let candidates = may_go.map(|(number, segment)| {
            let records = segment.records();
            let held = if holds.all_but(number) <= segment.last { segment.removals } else { 0 };
            let (kept, copied) = segment.kept_puts(self.now);
            Candidate {
                number,
                id: segment.id,
                first: segment.first,
                last: segment.last,
                hides_from: segment.hides_from(),
                records,
                held,
                kept: (kept + held).min(records),
                bound: (copied + segment.removals).min(records),
                is_dead: segment.live == 0,
                accepted: segment.accepted,
                lapsed: segment.has_lapsed(self.now),
            }
        });
        candidates.collect()
    }

    /// The victims, and how many bytes their merge takes at most. `presses`: those that hold removals back are worth it.
    fn choose(&self, candidates: &[Candidate], presses: bool) -> Option<(Vec<Candidate>, u64)> {
        let mut candidates = candidates.to_vec();
        let sum = |of: fn(&Candidate) -> u64| candidates.iter().map(of).sum::<u64>();
        let (live, total, all_held) = (sum(|one| one.kept), sum(|one| one.records), sum(|one| one.held));
        let small_bound = self.options.segment_bytes / SMALL_PART;
        let small = candidates.iter().filter(|one| one.tail() < small_bound).count();
        let (is_full, is_short) = (self.is_full(), self.is_short());
        // The balance of space and copying: 1.49 times the space, which index files make 1.7 at most, for less than 0.8 copies
        // of each write.
        let wasteful = total * 100 > live * 149 || is_full;
        // Where there is no room, first those that need none, and none that need more than is put aside. Many small segments are as
        // good as a large one there.
        let most = if is_full { self.output_room() } else { u64::MAX };
        // What has expired may leave deletes.
        let needs_none = |one: &Candidate| one.kept == 0 && one.is_dead;
        let header = SEGMENT_HEADER_BYTES as u64;
        let idle =
            candidates.iter().any(|one| one.kept == 0 && (needs_none(one) || header + one.bound <= most));
        let crowded = presses || all_held > (live - all_held) / HELD_PART + self.options.segment_bytes;
        let given_up = candidates.iter().any(|one| one.accepted);
        let lapses = candidates.iter().any(|one| one.lapsed);
        if !wasteful && !idle && !crowded && !given_up && !lapses && small < MANY_SMALL && !self.few_files {
            return None;
        }
        let last_held = candidates.iter().filter(|one| one.held > 0).map(|one| one.last).max().unwrap_or(0);
        let holding = |one: &Candidate| crowded && one.hides_from <= last_held;
        candidates.sort_by_key(|one| match holding(one) {
            // Behind others they might never fit in.
            _ if one.accepted => (0, 0, one.id),
            // Those that hold back most come first.
            true => (1, one.hides_from, one.id),
            // Of those, as many as can be for least copying.
            false if self.few_files => (2, one.kept, one.id),
            false => (2, one.rank(), one.id),
        });
        let worth = |one: &Candidate| {
            one.is_dead
                || one.accepted
                // What has lapsed is no reason to copy others before it is time for them.
                || (one.dead() * 8 > one.tail() && (wasteful || !lapses || one.lapsed))
                || (is_short && one.dead() > 0)
                || one.tail() < small_bound
                || self.few_files
                || holding(one)
        };
        let wanted = match is_short {
            true => self.output_bytes(0),
            false if self.few_files => self.longer_segment_bytes(),
            false => self.options.segment_bytes,
        };
        let mut victims = Vec::new();
        let mut bound = header;
        for one in candidates {
            let more = bound + one.bound;
            let fits = !is_full || needs_none(&one) || (more <= most && (one.kept == 0 || !idle));
            if !worth(&one) || !fits {
                continue;
            }
            if !victims.is_empty() && more > wanted {
                continue;
            }
            bound = more;
            victims.push(one);
            if victims.len() == MAX_VICTIMS {
                break;
            }
        }
        let releases = victims.iter().any(|one| holding(one) || one.accepted);
        let is_fewer = self.few_files && victims.len() > 1;
        if is_full && !idle && !releases && !is_fewer {
            bound = keep_best(&mut victims);
        }
        let gain: u64 = victims.iter().map(Candidate::dead).sum();
        // One segment without waste would only be copied in place.
        let is_worth = gain > 0 || victims.len() >= MANY_SMALL || idle || releases || is_fewer;
        if victims.is_empty() || !is_worth {
            return None;
        }
        Some((victims, bound))
    }

    fn holds(&self) -> Holds {
        let mut holds = Holds { least: (u64::MAX, 0), next: u64::MAX };
        for (number, segment) in self.segments.iter() {
            let from = segment.hides_from();
            if from < holds.least.0 {
                holds = Holds { least: (from, number), next: holds.least.0 };
            } else {
                holds.next = holds.next.min(from);
            }
        }
        holds
    }
}

/// Keeps of these as many, from the first on, as give back most blocks, what the chain takes for them left out; none if none do. Answers
/// what their merge takes at most.
fn keep_best(victims: &mut Vec<Candidate>) -> u64 {
    let header = SEGMENT_HEADER_BYTES as u64;
    let (mut best, mut kept, mut bound) = ((0, 0, header), 0, header);
    let (mut before, mut chained) = (0, ENTRY_BYTES as u64);
    for (at, one) in victims.iter().enumerate() {
        before += in_blocks(one.tail());
        kept += one.kept;
        bound += one.bound;
        chained += ENTRY_BYTES as u64;
        let after = if kept == 0 { 0 } else { in_blocks(header + kept) };
        let gain = before.saturating_sub(after + chained);
        if gain > best.0 {
            best = (gain, at + 1, bound);
        }
    }
    victims.truncate(best.1);
    best.2
}
