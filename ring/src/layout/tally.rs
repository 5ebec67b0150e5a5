//! Who owns one partition, and how many of them are in each zone.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Index;

use super::quota::Shape;

/// A partition's owners, by zone and by member. There may be thousands of both, of which these few are: no others are looked at, and
/// it is emptied at their cost.
pub(super) struct Tally {
    counts: Vec<usize>,
    /// Zones in which somebody was counted.
    counted: Vec<usize>,
    /// How many of them all count toward the least that their zones have to hold.
    met: usize,
    /// When each member was last added, in times that this was emptied.
    added: Vec<u64>,
    now: u64,
}

impl Tally {
    pub(super) fn new(shape: &Shape) -> Self {
        let (counts, added) = (vec![0; shape.zones.len()], vec![0; shape.members()]);
        Tally { counts, counted: Vec::new(), met: 0, added, now: 1 }
    }

    pub(super) fn clear(&mut self) {
        for zone in self.counted.drain(..) {
            self.counts[zone] = 0;
        }
        self.met = 0;
        self.now += 1;
    }

    pub(super) fn add(&mut self, shape: &Shape, member: usize) {
        let zone = shape.zone_of[member];
        if self.counts[zone] == 0 {
            self.counted.push(zone);
        }
        self.met += usize::from(self.counts[zone] < shape.zones[zone].least);
        self.counts[zone] += 1;
        self.added[member] = self.now;
    }

    pub(super) fn has(&self, member: usize) -> bool {
        self.added[member] == self.now
    }

    /// How many replicas are missing in zones that have to hold more.
    pub(super) fn unmet(&self, shape: &Shape) -> usize {
        shape.least - self.met
    }

    /// Whether all zones' bounds are kept.
    pub(super) fn is_within_bounds(&self, shape: &Shape) -> bool {
        self.unmet(shape) == 0 && self.counted.iter().all(|&zone| self.counts[zone] <= shape.zones[zone].most)
    }
}

impl Index<usize> for Tally {
    type Output = usize;

    /// How many are in a zone.
    fn index(&self, zone: usize) -> &usize {
        &self.counts[zone]
    }
}
