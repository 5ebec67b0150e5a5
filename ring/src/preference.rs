//! Everyone who may serve a partition, best first.

use core::iter::FusedIterator;

use crate::layout::Layout;
use crate::node::NodeId;

/// The full preference list of a partition; see [`Layout::preference`].
///
/// Walks the ring without allocating: whether a node was seen before is read from the sorted list of its partitions.
#[derive(Clone, Debug)]
pub struct Preference<'a> {
    layout: &'a Layout,
    /// The partition whose list this is.
    start: usize,
    /// Steps along the ring taken from `start`, and the rank within that partition.
    step: usize,
    rank: usize,
    /// Members that own nothing, from this place on, come after the ring.
    idle: usize,
    left: usize,
}

impl<'a> Preference<'a> {
    pub(crate) fn new(layout: &'a Layout, start: usize) -> Self {
        Preference { layout, start, step: 0, rank: 0, idle: 0, left: layout.ids().len() }
    }

    /// Steps from `start` to the first partition of the member at this place.
    fn first_step(&self, place: usize) -> Option<usize> {
        let owned = self.layout.owned(place);
        let at = owned.partition_point(|&p| usize::from(p) < self.start);
        match (owned.get(at), owned.first()) {
            (Some(&p), _) => Some(usize::from(p) - self.start),
            (None, Some(&p)) => Some(usize::from(p) + self.layout.partitions() as usize - self.start),
            (None, None) => None,
        }
    }
}

impl Iterator for Preference<'_> {
    type Item = NodeId;

    fn next(&mut self) -> Option<NodeId> {
        if self.left == 0 {
            return None;
        }
        let partitions = self.layout.partitions() as usize;
        while self.step < partitions {
            let row = self.layout.row((self.start + self.step) % partitions);
            let (step, rank) = (self.step, self.rank);
            (self.step, self.rank) = if rank + 1 == row.len() { (step + 1, 0) } else { (step, rank + 1) };
            let place = usize::from(row[rank]);
            if self.first_step(place) == Some(step) {
                self.left -= 1;
                return Some(self.layout.ids()[place]);
            }
        }
        loop {
            let place = self.idle;
            self.idle += 1;
            if self.layout.owned(place).is_empty() {
                self.left -= 1;
                return Some(self.layout.ids()[place]);
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Preference<'_> {}
impl FusedIterator for Preference<'_> {}
