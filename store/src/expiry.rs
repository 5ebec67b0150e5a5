//! What compaction would get back of records that have expired or may shrink: for each segment how many bytes go by when, roughly.
//!
//! In memory alone. Openings that read a segment learn it on the way; what an index file stands for is read for it by `maintain`,
//! once the store was told the time.

use crate::disk::{Disk, DiskError, DiskFile};
use crate::record::{STAMP_BYTES, Term, record_len};
use crate::scan::{Found, Scan};
use crate::segment::SegmentId;
use crate::store::Store;
use alloc::vec::Vec;

/// Moments that are told apart in a segment.
const MOMENTS: usize = 8;

/// Bytes that go by a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expiring {
    /// What goes of the records: of those that expire all, or with a hash tree, whose sums don't go by the clock, their values.
    pub(crate) goes: u64,
    /// Of that, what comes again as deletes while there may be something older for them to hide.
    pub(crate) may_stay: u64,
}

impl Expiring {
    /// When, and how many, of a record of so many bytes; `None` if none do.
    const fn of(term: Term, record_bytes: usize, key_bytes: usize, has_tree: bool) -> Option<(u64, Self)> {
        let (at, stays, may_stay) = match term {
            Term::None => return None,
            Term::Expires(at) if has_tree => (at, record_len(key_bytes, STAMP_BYTES), 0),
            Term::Expires(at) => (at, 0, record_len(key_bytes, 0)),
            Term::Shrinks(at, kept) => (at, record_len(key_bytes, kept as usize), 0),
        };
        Some((at, Self { goes: (record_bytes - stays) as u64, may_stay: may_stay as u64 }))
    }

    const fn and(self, more: Self) -> Self {
        Self { goes: self.goes + more.goes, may_stay: self.may_stay + more.may_stay }
    }
}

/// What goes of a segment by time, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expiries {
    /// Moments, in order, and what goes by then and did not by the one before.
    moments: Vec<(u64, Expiring)>,
    /// There are records of which it is not known when they expire or shrink.
    pub(crate) unknown: bool,
}

impl Expiries {
    pub(crate) const fn new() -> Self {
        Self { moments: Vec::new(), unknown: false }
    }

    /// Counts what goes of a record of so many bytes.
    pub(crate) fn note(&mut self, term: Term, record_bytes: usize, key_bytes: usize, has_tree: bool) {
        if let Some((at, bytes)) = Expiring::of(term, record_bytes, key_bytes, has_tree)
            && bytes.goes > 0
        {
            self.note_bytes(at, bytes);
        }
    }

    fn note_bytes(&mut self, due: u64, bytes: Expiring) {
        let at = self.moments.partition_point(|(moment, _)| *moment < due);
        match self.moments.get_mut(at) {
            Some((moment, sum)) if *moment == due => *sum = sum.and(bytes),
            _ => self.moments.insert(at, (due, bytes)),
        }
        if self.moments.len() > MOMENTS {
            // Two neighbours become one, at the later moment: nothing counts as expired that is not.
            let pairs = self.moments.windows(2).map(|pair| pair[0].1.goes + pair[1].1.goes);
            let least = pairs.enumerate().min_by_key(|(_, sum)| *sum).map_or(0, |(at, _)| at);
            let (_, sum) = self.moments.remove(least);
            self.moments[least].1 = self.moments[least].1.and(sum);
        }
    }

    /// What may go by now, of records dead or not.
    pub(crate) fn past(&self, now: u64) -> Expiring {
        let past = self.moments.iter().take_while(|(moment, _)| *moment <= now);
        past.fold(Expiring::default(), |sum, (_, bytes)| sum.and(*bytes))
    }
}

/// A segment that is read to learn when its records expire or shrink.
pub(crate) struct Learning<F> {
    pub(crate) number: u16,
    segment: SegmentId,
    scan: Scan<F>,
    expiries: Expiries,
}

impl<F: DiskFile> Learning<F> {
    /// Reads about so many bytes more; answers whether there is more to read.
    fn step(&mut self, budget: u64, has_tree: bool) -> Result<bool, DiskError> {
        let end = self.scan.bytes_read + budget.max(1);
        self.scan.go_by_budget(budget);
        while self.scan.bytes_read < end {
            match self.scan.next()? {
                Found::End { .. } => return Ok(false),
                Found::Record { offset, header, intact: true, .. } if header.kind.has_term() => {
                    let bytes = self.scan.bytes(offset, header.record_len());
                    self.expiries.note(header.term(bytes), bytes.len(), header.key_len as usize, has_tree);
                }
                _ => {}
            }
        }
        Ok(true)
    }
}

impl<D: Disk> Store<D> {
    /// A step of learning when records expire or shrink; answers whether there was anything to do.
    pub(crate) fn learn_expiries(&mut self, budget: u64) -> bool {
        let Some(mut learning) = self.learning.take().or_else(|| self.begin_learning()) else { return false };
        let is_there = |segment: &SegmentId| *segment == learning.segment;
        let Some(segment) = self.segments.get_mut(learning.number).filter(|one| is_there(&one.id)) else {
            return true;
        };
        match learning.step(budget, self.tree.is_some()) {
            Ok(true) => self.learning = Some(learning),
            // What can't be read is left to those who read it for its own sake.
            Ok(false) | Err(_) => segment.expiries = learning.expiries,
        }
        true
    }

    /// Bytes that have expired, or need not stay any more, between then and now, as far as is known; `None` if there is more to learn.
    #[cfg(feature = "std")]
    pub(crate) fn expired_since(&self, before: u64) -> Option<u64> {
        let segments = self.segments.iter().map(|(_, segment)| segment);
        let is_known = |one: &crate::segment::Segment<D::File>| !one.expiries.unknown || !one.finished;
        let expired = segments.map(|one| {
            let past = |now| one.expiries.past(now).goes;
            is_known(one).then(|| past(self.now) - past(before))
        });
        if self.now > before { expired.sum() } else { Some(0) }
    }

    fn begin_learning(&mut self) -> Option<Learning<D::File>> {
        let now = self.now;
        let (number, segment) = self
            .segments
            .iter()
            .find(|(_, segment)| now > 0 && segment.expiries.unknown && segment.finished)?;
        let id = segment.id;
        match Scan::new(segment.file.clone(), segment.place, segment.tail, segment.torn.clone()) {
            Ok(scan) => Some(Learning { number, segment: id, scan, expiries: Expiries::new() }),
            Err(_) => {
                self.segments[number].expiries.unknown = false;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_counts_as_expired_than_is() {
        let mut expiries = Expiries::new();
        let moment = |n: u64| crate::checksum::mix(n) % 1000;
        for n in 0..500 {
            expiries.note_bytes(moment(n), Expiring { goes: 10 + n, may_stay: n });
        }
        assert!(expiries.moments.len() <= MOMENTS);
        let mut last = 0;
        for now in 0..1000 {
            let true_sum: u64 = (0..500).filter(|n| moment(*n) <= now).map(|n| 10 + n).sum();
            let told = expiries.past(now).goes;
            assert!(told <= true_sum && told >= last, "{told} of {true_sum} at {now}");
            last = told;
        }
        assert_eq!(last, (0..500).map(|n| 10 + n).sum::<u64>());
    }
}
