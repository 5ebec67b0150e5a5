//! A layout in the eyes of the one that is to follow it.

use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::Layout;
use crate::member::Member;
use crate::partition::PartitionCount;
use crate::slot::Slot;

/// One of those who own some of the partitions that become one.
struct Holder {
    place: u16,
    /// How many of them it owns.
    times: u32,
    /// Its best place among their owners.
    best: usize,
}

impl Layout {
    /// Who of these members owns what by this layout, for another Q: for each partition their places in order of rank.
    /// Where several partitions become one, those come first who own most of them.
    pub(super) fn as_held_by(&self, members: &[Member], count: PartitionCount) -> Vec<Vec<u16>> {
        let places: Vec<Option<u16>> = self
            .ids
            .iter()
            .map(|id| members.binary_search_by_key(id, |m| m.id).ok())
            .map(|place| place.map(|place| u16::try_from(place).expect("members are counted by u16")))
            .collect();
        let mut rows = Vec::with_capacity(count.get() as usize);
        let mut holders: Vec<Holder> = Vec::new();
        // Where a member stands in `holders`, if it is there: what is left of other partitions names somebody else, or nobody.
        let mut at = vec![0usize; members.len()];
        for partition in count.partitions() {
            let slots = partition.slots();
            let first = self.table().index(partition);
            let last = usize::from(Slot::new(slots.end - 1).map_or(0, |s| self.partition_of(s).index()));
            holders.clear();
            for p in first..=last {
                for (rank, place) in self.row(p).iter().map(|&m| places[usize::from(m)]).enumerate() {
                    let Some(place) = place else { continue };
                    let at = &mut at[usize::from(place)];
                    match holders.get_mut(*at).filter(|holder| holder.place == place) {
                        Some(Holder { times, best, .. }) => (*times, *best) = (*times + 1, rank.min(*best)),
                        None => {
                            *at = holders.len();
                            holders.push(Holder { place, times: 1, best: rank });
                        }
                    }
                }
            }
            holders.sort_unstable_by_key(|h| (Reverse(h.times), h.best, h.place));
            rows.push(holders.iter().take(self.owners).map(|h| h.place).collect());
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::LayoutVersion;
    use crate::node::NodeId;

    /// By how many partitions they owned; among equals by their best rank, in whichever partition that was; then by id.
    #[test]
    fn of_several_partitions_the_owners_of_most_come_first() {
        let members: Vec<Member> = (1..=4).map(|id| Member::new(NodeId(id))).collect();
        let held = |rows: &[[u16; 3]]| {
            let partitions = u32::try_from(rows.len()).unwrap();
            let (members, table) = (members.clone(), rows.concat());
            let layout = Layout::from_parts(LayoutVersion(1), 0, 3, partitions, members.clone(), table);
            layout.unwrap().as_held_by(&members, PartitionCount::new(1).unwrap()).concat()
        };
        assert_eq!(held(&[[3, 1, 2]]), [3, 1, 2]);
        assert_eq!(held(&[[3, 1, 2], [0, 2, 1]]), [1, 2, 0]);
        assert_eq!(held(&[[2, 3, 1], [1, 2, 3]]), [1, 2, 3]);
        assert_eq!(held(&[[1, 2, 3], [2, 3, 1]]), [1, 2, 3]);
        assert_eq!(held(&[[3, 0, 1], [3, 2, 0], [2, 1, 0], [1, 3, 0]]), [0, 1, 3]);
    }
}
