//! Lookups on borrowed tables of owners, and what can be wrong with a borrowed table. Nothing here allocates.

use core::fmt;
use core::iter::FusedIterator;

use crate::node::NodeId;
use crate::partition::{Partition, PartitionCount};
use crate::slot::Slot;

/// Why a borrowed table is refused, or can't answer. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TableError {
    /// There is nobody to own anything.
    NoNodes,
    /// The ids are not in ascending order, or one is repeated.
    UnsortedNodes,
    /// No node has a token.
    NoTokens,
    /// The tokens are not in ascending order.
    UnsortedTokens,
    /// The fingers are not in order of their distance, one is repeated, or one names the node's own position.
    UnsortedFingers,
    /// Fingers stand between the predecessor and the node itself, or there is a predecessor and no finger.
    ContradictoryFingers,
    /// The places of a ring are not in ascending order of their positions, or two share one.
    UnsortedRing,
    /// The buffer is too short.
    BufferTooShort {
        /// Entries that it has to have.
        needed: usize,
        /// Entries that it has.
        found: usize,
    },
    /// That number of partitions is not allowed here.
    PartitionCount(u32),
    /// A list has not as many entries as the others ask for.
    Length {
        /// Entries that it should have.
        expected: usize,
        /// Entries that it has.
        found: usize,
    },
    /// The entry at this index names a node that there is not.
    UnknownNode {
        /// The entry's place in its slice.
        index: usize,
    },
    /// A partition names an owner twice.
    RepeatedOwner(Partition),
    /// More owners were asked for than there are.
    TooFewNodes {
        /// Owners asked for.
        wanted: usize,
        /// Owners that there are.
        found: usize,
    },
    /// There is no such place in the ring.
    NotInRing {
        /// The place asked for.
        place: usize,
        /// Nodes in the ring.
        nodes: usize,
    },
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TableError::NoNodes => f.write_str("at least one node is needed"),
            TableError::UnsortedNodes => f.write_str("node ids are not ascending"),
            TableError::NoTokens => f.write_str("at least one token is needed"),
            TableError::UnsortedTokens => f.write_str("tokens are not ascending"),
            TableError::UnsortedFingers => f.write_str("fingers are not in order of their distance"),
            TableError::ContradictoryFingers => f.write_str("fingers and predecessor contradict each other"),
            TableError::UnsortedRing => f.write_str("places of a ring are not ascending"),
            TableError::BufferTooShort { needed, found } => {
                write!(f, "a buffer of {found} entries where {needed} are needed")
            }
            TableError::PartitionCount(q) => write!(f, "{q} partitions are not allowed"),
            TableError::Length { expected, found } => {
                write!(f, "a list has {found} entries in place of {expected}")
            }
            TableError::UnknownNode { index } => write!(f, "entry {index} names a node that there is not"),
            TableError::RepeatedOwner(p) => write!(f, "partition {p} names an owner twice"),
            TableError::TooFewNodes { wanted, found } => {
                write!(f, "{wanted} owners wanted, there are {found}")
            }
            TableError::NotInRing { place, nodes } => write!(f, "no place {place} in a ring of {nodes}"),
        }
    }
}

impl core::error::Error for TableError {}

/// Whether these can be a table's nodes.
pub(crate) fn check_nodes(ids: &[NodeId]) -> Result<(), TableError> {
    if ids.is_empty() {
        Err(TableError::NoNodes)
    } else if ids.is_sorted_by(|a, b| a < b) {
        Ok(())
    } else {
        Err(TableError::UnsortedNodes)
    }
}

/// Exactly `N` of what a lookup found.
pub(crate) fn exactly<const N: usize>(
    lookup: impl FnOnce(&mut [NodeId; N]) -> usize,
) -> Result<[NodeId; N], TableError> {
    let mut owners = [NodeId(0); N];
    let found = lookup(&mut owners);
    if found == N { Ok(owners) } else { Err(TableError::TooFewNodes { wanted: N, found }) }
}

/// A [`Layout`](crate::Layout)'s table of owners in borrowed slices: who owns a key, on a device that has no allocator.
///
/// The slices may lie in flash, in a received frame, or in a layout ([`Layout::table`](crate::Layout::table)).
///
/// ```
/// use gramme_ring::{NodeId, OwnerTable, Slot};
///
/// // Two partitions with two owners each, first owner first, as places among the ids.
/// const IDS: [NodeId; 3] = [NodeId(7), NodeId(8), NodeId(9)];
/// const PLACES: [u16; 4] = [0, 1, 2, 0];
/// let table = OwnerTable::new(2, &IDS, &PLACES)?;
///
/// let partition = table.partition_of(Slot::of(b"cart:{alice}"));
/// assert!(table.owners(partition).eq([NodeId(7), NodeId(8)]));
/// // Owners, then those who stand in for them.
/// let mut buffer = [NodeId(0); 3];
/// assert_eq!(table.preference(partition, &mut buffer), [NodeId(7), NodeId(8), NodeId(9)]);
/// // Three replicas can't be had.
/// assert!(table.replicas::<2>(partition).is_ok());
/// assert!(table.replicas::<3>(partition).is_err());
/// # Ok::<(), gramme_ring::TableError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct OwnerTable<'a> {
    partitions: PartitionCount,
    /// Owners of each partition.
    owners: usize,
    ids: &'a [NodeId],
    places: &'a [u16],
}

impl<'a> OwnerTable<'a> {
    /// A table of `partitions` rows of equal length in one slice: for each partition its owners, first owner first, as
    /// places in `ids`, which ascend. Nothing is copied; each owner is compared with those before it in its row, so that time grows with
    /// the square of a row's length (up to 65,536 owners: seconds).
    ///
    /// # Errors
    /// [`TableError`] if the number of partitions is not a power of two from 1 to 16384, if there are no nodes, if rows
    /// are empty or of unequal length, or if a row names a node that there is not or an owner twice.
    pub fn new(partitions: u32, ids: &'a [NodeId], places: &'a [u16]) -> Result<Self, TableError> {
        let count = PartitionCount::new(partitions)?;
        check_nodes(ids)?;
        let rows = count.get() as usize;
        let owners = places.len() / rows;
        if owners == 0 || owners * rows != places.len() {
            return Err(TableError::Length { expected: owners.max(1) * rows, found: places.len() });
        }
        if let Some(index) = places.iter().position(|&place| usize::from(place) >= ids.len()) {
            return Err(TableError::UnknownNode { index });
        }
        for (partition, row) in count.partitions().zip(places.chunks_exact(owners)) {
            if (1..row.len()).any(|at| row[..at].contains(&row[at])) {
                return Err(TableError::RepeatedOwner(partition));
            }
        }
        Ok(Self::trusted(count, owners, ids, places))
    }

    /// Of slices that were checked.
    pub(crate) fn trusted(
        partitions: PartitionCount,
        owners: usize,
        ids: &'a [NodeId],
        places: &'a [u16],
    ) -> Self {
        OwnerTable { partitions, owners, ids, places }
    }

    /// The number of partitions.
    pub fn partition_count(&self) -> PartitionCount {
        self.partitions
    }

    /// Owners of each partition.
    pub fn owner_count(&self) -> usize {
        self.owners
    }

    /// The nodes by id.
    pub fn nodes(&self) -> &'a [NodeId] {
        self.ids
    }

    /// The owners of all partitions, partition by partition, first owners first: each one's place among the [`nodes`](Self::nodes). With
    /// these the table is made [anew](Self::new) where it was carried to.
    pub fn places(&self) -> &'a [u16] {
        self.places
    }

    /// The partition that holds a slot.
    pub fn partition_of(&self, slot: Slot) -> Partition {
        self.partitions.partition_of(slot)
    }

    /// The owners of a partition, first owner first. Given a partition of another Q, those of its first slot.
    pub fn owners(&self, partition: Partition) -> Owners<'a> {
        Owners { places: self.row(self.index(partition)).iter(), ids: self.ids }
    }

    /// Exactly `N` owners of a partition, first owner first.
    ///
    /// # Errors
    /// [`TableError::TooFewNodes`] if a partition has fewer owners.
    pub fn replicas<const N: usize>(&self, partition: Partition) -> Result<[NodeId; N], TableError> {
        exactly(|places| {
            let owners = places.iter_mut().zip(self.owners(partition));
            owners.map(|(place, owner)| *place = owner).count()
        })
    }

    /// The preference list of a partition, as far as the buffer reaches: its owners in order, then every other node once,
    /// in the order in which they own the partitions that follow on the ring; nodes that own nothing come last, by id.
    ///
    /// Compares each owner on the way with all that were found. [`Layout::preference`](crate::Layout::preference), which
    /// has an index, gives the same without a buffer.
    pub fn preference<'b>(&self, partition: Partition, buffer: &'b mut [NodeId]) -> &'b [NodeId] {
        let (after, before) = (&self.places[self.index(partition) * self.owners..], self.places);
        let ring = after.iter().chain(before).map(|&place| self.ids[usize::from(place)]);
        let mut count = 0;
        for id in ring.chain(self.ids.iter().copied()) {
            if count == buffer.len().min(self.ids.len()) {
                break;
            }
            if !buffer[..count].contains(&id) {
                buffer[count] = id;
                count += 1;
            }
        }
        &buffer[..count]
    }

    /// The preference list of a partition while only some nodes are alive, as far as the buffer reaches: after the owners comes, for each that
    /// is not alive, the live fallback whose zone needs a copy most, as [`Layout::preference_while`](crate::Layout::preference_while) has it; then
    /// all others. `zones` has a number for each of the [`nodes`](Self::nodes), the same for the same zone.
    ///
    /// Fallbacks are looked for among the [`LOOK_AHEAD`](Self::LOOK_AHEAD) nodes that follow the owners, as many of them as the buffer holds.
    ///
    /// ```
    /// use gramme_ring::{NodeId, OwnerTable};
    ///
    /// // Two owners of each of two partitions, of five nodes in three zones.
    /// const IDS: [NodeId; 5] = [NodeId(1), NodeId(2), NodeId(3), NodeId(4), NodeId(5)];
    /// const ZONES: [u32; 5] = [0, 1, 1, 2, 0];
    /// let table = OwnerTable::new(2, &IDS, &[0, 1, 2, 3])?;
    /// let partition = table.partition_count().partitions().next().unwrap();
    /// let mut buffer = [NodeId(0); 5];
    /// assert_eq!(table.preference(partition, &mut buffer), [1, 2, 3, 4, 5].map(NodeId));
    /// // Node 5 stands in for node 1, of the same zone.
    /// let list = table.preference_while(partition, &ZONES, |node| node != NodeId(1), &mut buffer)?;
    /// assert_eq!(list, [1, 2, 5, 3, 4].map(NodeId));
    /// # Ok::<(), gramme_ring::TableError>(())
    /// ```
    ///
    /// # Errors
    /// [`TableError::Length`] if there are not as many zones as nodes.
    pub fn preference_while<'b>(
        &self,
        partition: Partition,
        zones: &[u32],
        alive: impl Fn(NodeId) -> bool,
        buffer: &'b mut [NodeId],
    ) -> Result<&'b [NodeId], TableError> {
        if zones.len() != self.ids.len() {
            return Err(TableError::Length { expected: self.ids.len(), found: zones.len() });
        }
        let zone = |id: NodeId| self.ids.binary_search(&id).ok().map(|at| zones[at]);
        let count = self.preference(partition, buffer).len();
        let owners = self.owners.min(count);
        let end = count.min(owners + Self::LOOK_AHEAD);
        let mut next = owners;
        for owner in 0..owners {
            if alive(buffer[owner]) {
                continue;
            }
            let (known, rest) = buffer.split_at(next);
            let stand_ins = &known[owners..];
            let with_copies = || known[..owners].iter().filter(|&&id| alive(id)).chain(stand_ins);
            // Of those that are preferred alike the first in ring order.
            let best = rest[..end - next].iter().enumerate().filter(|&(_, &id)| alive(id)).min_by_key(
                |&(_, &id)| {
                    let of = zone(id);
                    (with_copies().any(|&copy| zone(copy) == of), of != zone(known[owner]))
                },
            );
            let Some((at, _)) = best else { break };
            buffer[next..=next + at].rotate_right(1);
            next += 1;
        }
        Ok(&buffer[..count])
    }

    /// How far [`preference_while`](Self::preference_while) looks for a fallback of the best zone.
    pub const LOOK_AHEAD: usize = 32;

    /// Places of the owners of the partition with this index.
    pub(crate) fn row(&self, index: usize) -> &'a [u16] {
        &self.places[index * self.owners..(index + 1) * self.owners]
    }

    /// The index of the row that answers for a partition of any Q.
    pub(crate) fn index(&self, partition: Partition) -> usize {
        if partition.count() == self.partitions {
            usize::from(partition.index())
        } else {
            usize::from(self.partition_of(partition.first_slot()).index())
        }
    }
}

/// The owners of a partition, first owner first.
#[derive(Clone, Debug)]
pub struct Owners<'a> {
    places: core::slice::Iter<'a, u16>,
    ids: &'a [NodeId],
}

impl Iterator for Owners<'_> {
    type Item = NodeId;

    fn next(&mut self) -> Option<NodeId> {
        self.places.next().map(|&place| self.ids[usize::from(place)])
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.places.size_hint()
    }
}

impl DoubleEndedIterator for Owners<'_> {
    fn next_back(&mut self) -> Option<NodeId> {
        self.places.next_back().map(|&place| self.ids[usize::from(place)])
    }
}

impl ExactSizeIterator for Owners<'_> {}
impl FusedIterator for Owners<'_> {}
