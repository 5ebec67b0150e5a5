//! A comparison of two replicas by the sums of their slots.

use crate::message::SumsOf;
use alloc::vec::Vec;
use gramme_ring::Partition;

/// Partitions whose slots are asked for at a time.
const MAX_PARTITIONS: usize = 16;

/// Finds out which slots of two replicas differ, by sums of their keys' hashes: first one sum over all that both own, and
/// only where that differs the sums of partitions, and then of slots (Dynamo, section 4.7; the sums stand in for Merkle trees).
///
/// It sends nothing and reads nothing: ask both sides for the sums of [`question`](Self::question), hand both to
/// [`compare`](Self::compare), until there is no question left. Any sum that is the same for the same content will do, if
/// nobody can make others collide: `gramme-store` keeps one for each slot, 128 bits wide and keyed.
///
/// ```
/// use gramme_quorum::Exchange;
/// use gramme_ring::{PartitionCount, Slot};
/// use std::collections::BTreeMap;
///
/// // What stands for a store: each slot's sum.
/// let ours = BTreeMap::from([(5, 17_u128), (900, 4), (901, 8)]);
/// let theirs = BTreeMap::from([(5, 17_u128), (900, 5), (901, 8), (16_000, 1)]);
/// let sum = |store: &BTreeMap<u16, u128>, (first, last): (u16, u16)| store.range(first..=last).map(|(_, sum)| sum).sum();
///
/// // Both own all partitions of a ring of 256.
/// let shared: Vec<_> = PartitionCount::new(256).unwrap().partitions().collect();
/// let mut exchange = Exchange::new(shared.clone());
/// let (mut differing, mut questions) = (Vec::new(), 0);
/// while let Some(question) = exchange.question() {
///     let ranges = question.ranges(&shared).unwrap();
///     let sums = |store| question.answer(ranges.iter().map(|range| sum(store, *range)).collect());
///     let (ours, theirs) = (sums(&ours), sums(&theirs));
///     differing.extend(exchange.compare(&ours, &theirs));
///     questions += 1;
/// }
/// assert_eq!(differing, [900, 16_000]);
/// assert_eq!(questions, 3); // all, partitions, the slots of two of them
/// ```
#[derive(Clone, Debug)]
pub struct Exchange {
    shared: Vec<Partition>,
    question: Option<SumsOf>,
    /// Partitions that differ and were not looked into yet.
    differing: Vec<u16>,
}

impl Exchange {
    /// A comparison of these partitions, which both sides own, in ring order.
    #[must_use]
    pub const fn new(shared: Vec<Partition>) -> Exchange {
        Exchange { shared, question: Some(SumsOf::All), differing: Vec::new() }
    }

    /// Which sums are wanted of both sides; `None` at the end.
    #[must_use]
    pub const fn question(&self) -> Option<&SumsOf> {
        self.question.as_ref()
    }

    /// Takes both sides' sums in answer to the question. Answers the slots that are now known to differ. If the sums are not
    /// equally many the two go by different layouts, and the comparison ends.
    pub fn compare(&mut self, ours: &[u128], theirs: &[u128]) -> Vec<u16> {
        let Some(question) = self.question.take() else { return Vec::new() };
        if ours.len() != theirs.len() {
            return Vec::new();
        }
        let differ = ours.iter().zip(theirs).map(|(a, b)| a != b);
        let mut slots = Vec::new();
        match question {
            SumsOf::All => {
                self.question = (ours != theirs).then_some(SumsOf::Partitions);
                return slots;
            }
            SumsOf::Partitions => {
                let both = self.shared.iter().zip(differ);
                self.differing = both.filter(|(_, differs)| *differs).map(|(p, _)| p.index()).collect();
            }
            SumsOf::Slots(_) => {
                let ranges = question.ranges(&self.shared).unwrap_or_default();
                let both = ranges.into_iter().zip(differ);
                slots.extend(both.filter(|(_, differs)| *differs).map(|((slot, _), _)| slot));
            }
        }
        let next: Vec<u16> = self.differing.drain(..self.differing.len().min(MAX_PARTITIONS)).collect();
        self.question = (!next.is_empty()).then_some(SumsOf::Slots(next));
        slots
    }
}

impl SumsOf {
    /// The slots over which a side makes its sums, first and last, one sum for each pair: `shared` are the partitions that it and the
    /// asking side own, in ring order. `None` if the question makes no sense.
    #[must_use]
    pub fn ranges(&self, shared: &[Partition]) -> Option<Vec<(u16, u16)>> {
        match self {
            SumsOf::All | SumsOf::Partitions => Some(shared.iter().copied().map(ends).collect()),
            SumsOf::Slots(partitions) if partitions.len() > MAX_PARTITIONS => None,
            SumsOf::Slots(partitions) => {
                let known = |index: &u16| shared.binary_search_by_key(index, |p| p.index()).ok();
                let known: Vec<usize> = partitions.iter().map(known).collect::<Option<_>>()?;
                let slots = known.into_iter().flat_map(|at| shared[at].slots());
                Some(slots.map(|slot| (slot, slot)).collect())
            }
        }
    }

    /// What is sent of the sums over [`ranges`](Self::ranges): of all partitions only the total.
    #[must_use]
    pub fn answer(&self, sums: Vec<u128>) -> Vec<u128> {
        match self {
            SumsOf::All => Vec::from([sums.iter().fold(0, |sum: u128, more| sum.wrapping_add(*more))]),
            SumsOf::Partitions | SumsOf::Slots(_) => sums,
        }
    }
}

/// A partition's first slot and its last.
pub(crate) fn ends(partition: Partition) -> (u16, u16) {
    let slots = partition.slots();
    (slots.start, slots.end - 1)
}
