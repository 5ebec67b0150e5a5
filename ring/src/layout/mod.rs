//! The table of owners, how it is computed and what it answers.

mod budget;
mod encoding;
mod former;
mod fresh;
mod heirs;
mod plan;
mod quota;
mod rank;
mod reassign;
mod tally;

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::member::Member;
use crate::node::NodeId;
use crate::partition::{Partition, PartitionCount};
use crate::preference::Preference;
use crate::slot::Slot;
use crate::table::{OwnerTable, Owners};
use budget::Budget;
pub use plan::{Gain, Loss, NodeChange, Plan};
use quota::Shape;
pub(crate) use quota::single_quotas;
use tally::Tally;

/// Most members that a layout can have.
pub const MAX_MEMBERS: usize = 16_384;

/// The number of a layout: one more than its parent's; the first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LayoutVersion(pub u64);

impl fmt::Display for LayoutVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why there is no layout. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayoutError {
    /// Zero replicas were asked for.
    NoReplicas,
    /// The number of partitions is not a power of two from 1 to 16384.
    PartitionCount(u32),
    /// There is nobody to own anything.
    NoMembers,
    /// More than [`MAX_MEMBERS`] members.
    TooManyMembers(usize),
    /// A member's weight is zero.
    ZeroWeight(NodeId),
    /// A member is named twice.
    DuplicateMember(NodeId),
    /// The version can't be raised, or is zero.
    Version(LayoutVersion),
    /// Decoding only: members are not sorted by id.
    UnsortedMembers,
    /// Decoding only: the table has not min(replicas, members) owners for each partition.
    TableLength {
        /// Entries that the table should have.
        expected: usize,
        /// Entries that it has.
        found: usize,
    },
    /// Decoding only: the table names a member that there is not.
    UnknownOwner(Partition),
    /// Decoding only: a partition names an owner twice.
    RepeatedOwner(Partition),
    /// Decoding only: a partition's owners don't span as many zones as they can.
    Zones(Partition),
    /// Decoding only: the hash beside the table is of another layout.
    Hash {
        /// Of what was decoded.
        expected: u64,
        /// What stands beside it.
        found: u64,
    },
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LayoutError::NoReplicas => f.write_str("at least one replica is needed"),
            LayoutError::PartitionCount(q) => write!(f, "{q} partitions: not a power of two from 1 to 16384"),
            LayoutError::NoMembers => f.write_str("at least one member is needed"),
            LayoutError::TooManyMembers(n) => write!(f, "{n} members: more than {MAX_MEMBERS}"),
            LayoutError::ZeroWeight(id) => write!(f, "member {id} has weight 0"),
            LayoutError::DuplicateMember(id) => write!(f, "member {id} is named twice"),
            LayoutError::Version(version) => write!(f, "{version} is no version, or the last"),
            LayoutError::UnsortedMembers => f.write_str("members are not sorted by id"),
            LayoutError::TableLength { expected, found } => {
                write!(f, "the table has {found} entries in place of {expected}")
            }
            LayoutError::UnknownOwner(p) => write!(f, "partition {p} names an owner that is no member"),
            LayoutError::RepeatedOwner(p) => write!(f, "partition {p} names an owner twice"),
            LayoutError::Zones(p) => write!(f, "partition {p} is not spread over the zones"),
            LayoutError::Hash { expected, found } => {
                write!(f, "the layout's hash is {expected:016x}, the one beside it {found:016x}")
            }
        }
    }
}

impl core::error::Error for LayoutError {}

/// Who owns which partition.
///
/// A layout is computed by one node and carried to the others as a table, with its hash beside it; they check and adopt it,
/// and never compute it themselves. It promises, whether computed or decoded:
/// - every partition has min(replicas, members) owners, all different;
/// - they span as many zones as there are, or one each if there are enough, and are spread over them as flatly as the
///   zones' sizes allow;
/// - equal layouts have equal hashes on every platform.
///
/// A computed layout is balanced besides: the highest load per weight is the least that any layout of these members
/// could have.
#[derive(Clone)]
pub struct Layout {
    version: LayoutVersion,
    parent: u64,
    hash: u64,
    replicas: u8,
    partitions: PartitionCount,
    members: Vec<Member>,
    /// The members' ids again, close together for lookups.
    ids: Vec<NodeId>,
    /// Places in `members`, `owners` for each partition, first owner first.
    places: Vec<u16>,
    owners: usize,
    /// `owned[starts[m]..starts[m + 1]]` are the partitions of the m-th member, ascending.
    starts: Vec<u32>,
    owned: Vec<u16>,
}

impl Layout {
    /// The layout of these members.
    ///
    /// `replicas` is Dynamo's N, `partitions` its Q: a power of two, `1..=16384`. `previous` is the layout that this
    /// one is to follow: version and parent continue it, and as little data moves as the new members' quotas, distinct
    /// nodes and zones allow; first owners stay where balance allows. It may have another Q or N. The result depends on
    /// the arguments only, not on the order of `members`.
    ///
    /// ```
    /// use gramme_ring::{Layout, LayoutError, Member, NodeId, Zone};
    ///
    /// let rack = |id, zone| Ok::<_, gramme_ring::ZoneTooLong>(Member::new(NodeId(id)).with_zone(Zone::new(zone)?));
    /// let mut members = vec![rack(1, "a")?, rack(2, "a")?, rack(3, "b")?, rack(4, "c")?];
    /// let first = Layout::compute(3, 64, &members, None)?;
    /// // Three zones, so each has one of the three replicas of everything.
    /// for partition in first.partition_count().partitions() {
    ///     let mut zones: Vec<&Zone> = first.owners(partition).map(|id| &first.member(id).unwrap().zone).collect();
    ///     zones.sort();
    ///     zones.dedup();
    ///     assert_eq!(zones.len(), 3);
    /// }
    ///
    /// // A node of twice the weight joins rack a: it takes half of that rack's replicas, and nobody else is touched.
    /// members.push(rack(5, "a")?.with_weight(2));
    /// let second = Layout::compute(3, 64, &members, Some(&first))?;
    /// assert_eq!((second.version().0, second.parent()), (2, first.hash()));
    /// assert_eq!(second.partitions_of(NodeId(5)).len(), 32);
    /// assert_eq!(first.plan(&second).moved_slots(), 32 * (16384 / 64));
    ///
    /// assert_eq!(Layout::compute(3, 100, &members, None).unwrap_err(), LayoutError::PartitionCount(100));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`LayoutError`] names what is wrong with the arguments.
    pub fn compute(
        replicas: u8,
        partitions: u32,
        members: &[Member],
        previous: Option<&Layout>,
    ) -> Result<Layout, LayoutError> {
        Layout::compute_within(Budget::USUAL, replicas, partitions, members, previous)
    }

    fn compute_within(
        budget: Budget,
        replicas: u8,
        partitions: u32,
        members: &[Member],
        previous: Option<&Layout>,
    ) -> Result<Layout, LayoutError> {
        let mut members = members.to_vec();
        members.sort_unstable();
        let count = check(replicas, partitions, &members)?;
        let (version, parent) = match previous {
            None => (LayoutVersion(1), 0),
            Some(p) => {
                let next = p.version.0.checked_add(1).ok_or(LayoutError::Version(p.version))?;
                (LayoutVersion(next), p.hash)
            }
        };
        let shape = Shape::new(replicas, count.get() as usize, &members);
        let former = previous.map_or(Vec::new(), |p| p.as_held_by(&members, count));
        let mut held = vec![0; members.len()];
        for &m in former.iter().flatten() {
            held[usize::from(m)] += 1;
        }
        let quotas = quota::quotas(&shape, &held);
        let mut table = if former.iter().all(Vec::is_empty) {
            fresh::place(&shape, &members, &quotas, &former)
        } else {
            reassign::reassign(budget, &shape, &members, &quotas, &former)
        };
        heirs::provide(budget, &mut table, replicas, &shape, &members, &quotas, &former);
        rank::order(&mut table, shape.owners, members.len(), &former);
        Ok(Layout::assemble(version, parent, replicas, count, members, table))
    }

    /// A layout from what came over the wire, checked.
    fn from_parts(
        version: LayoutVersion,
        parent: u64,
        replicas: u8,
        partitions: u32,
        members: Vec<Member>,
        table: Vec<u16>,
    ) -> Result<Layout, LayoutError> {
        if version.0 == 0 {
            return Err(LayoutError::Version(version));
        }
        if !members.is_sorted_by_key(|m| m.id) {
            return Err(LayoutError::UnsortedMembers);
        }
        let count = check(replicas, partitions, &members)?;
        let shape = Shape::new(replicas, count.get() as usize, &members);
        let expected = shape.partitions * shape.owners;
        if table.len() != expected {
            return Err(LayoutError::TableLength { expected, found: table.len() });
        }
        let mut tally = Tally::new(&shape);
        for (partition, row) in count.partitions().zip(table.chunks_exact(shape.owners)) {
            tally.clear();
            for place in row.iter().map(|&place| usize::from(place)) {
                if place >= members.len() {
                    return Err(LayoutError::UnknownOwner(partition));
                }
                if tally.has(place) {
                    return Err(LayoutError::RepeatedOwner(partition));
                }
                tally.add(&shape, place);
            }
            if !tally.is_within_bounds(&shape) {
                return Err(LayoutError::Zones(partition));
            }
        }
        Ok(Layout::assemble(version, parent, replicas, count, members, table))
    }

    /// The layout, if this is its hash.
    fn with_hash(self, found: u64) -> Result<Layout, LayoutError> {
        match self.hash {
            expected if expected != found => Err(LayoutError::Hash { expected, found }),
            _ => Ok(self),
        }
    }

    fn assemble(
        version: LayoutVersion,
        parent: u64,
        replicas: u8,
        partitions: PartitionCount,
        members: Vec<Member>,
        table: Vec<u16>,
    ) -> Layout {
        let hash = encoding::hash(version, parent, replicas, partitions, &members, &table);
        let owners = usize::from(replicas).min(members.len());
        let mut starts = vec![0u32; members.len() + 1];
        for &m in &table {
            starts[usize::from(m) + 1] += 1;
        }
        for m in 0..members.len() {
            starts[m + 1] += starts[m];
        }
        let mut next = starts.clone();
        let mut owned = vec![0u16; table.len()];
        for (p, row) in (0u16..).zip(table.chunks_exact(owners)) {
            for &m in row {
                let at = &mut next[usize::from(m)];
                owned[*at as usize] = p;
                *at += 1;
            }
        }
        let ids = members.iter().map(|m| m.id).collect();
        Layout {
            version,
            parent,
            hash,
            replicas,
            partitions,
            members,
            ids,
            places: table,
            owners,
            starts,
            owned,
        }
    }

    /// Its number.
    pub fn version(&self) -> LayoutVersion {
        self.version
    }

    /// A hash over everything in it, [`parent`](Self::parent) included; the same on every platform.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The hash of the layout that it follows; 0 for the first.
    pub fn parent(&self) -> u64 {
        self.parent
    }

    /// Dynamo's N, as asked for. With fewer members than this, each partition has all of them as owners.
    pub fn replicas(&self) -> u8 {
        self.replicas
    }

    /// Owners of each partition: min(replicas, members).
    pub fn owner_count(&self) -> usize {
        self.owners
    }

    /// Dynamo's Q.
    pub fn partitions(&self) -> u32 {
        self.partitions.get()
    }

    /// Dynamo's Q as a type, from which partitions are made.
    pub fn partition_count(&self) -> PartitionCount {
        self.partitions
    }

    /// All members, sorted by id.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The member of this id.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.place_of(id).map(|place| &self.members[place])
    }

    /// Whether there is a member of this id.
    pub fn is_member(&self, id: NodeId) -> bool {
        self.place_of(id).is_some()
    }

    /// The partition that holds a slot.
    pub fn partition_of(&self, slot: Slot) -> Partition {
        self.partitions.partition_of(slot)
    }

    /// The owners of a partition, first owner first. Given a partition of another Q, those of its first slot.
    pub fn owners(&self, partition: Partition) -> Owners<'_> {
        self.table().owners(partition)
    }

    /// The table of owners alone: what a device without an allocator needs, in slices.
    pub fn table(&self) -> OwnerTable<'_> {
        OwnerTable::trusted(self.partitions, self.owners, &self.ids, &self.places)
    }

    /// Whether this node is one of the partition's owners.
    pub fn is_owner(&self, partition: Partition, node: NodeId) -> bool {
        self.owners(partition).any(|owner| owner == node)
    }

    /// The full preference list of a partition: its owners in order, then every other member once, in the order in
    /// which they own the partitions that follow on the ring; members that own nothing come last, by id.
    ///
    /// The fallbacks are not spread over zones: which zone lacks a copy depends on which owner is absent
    /// ([`preference_while`](Self::preference_while)).
    pub fn preference(&self, partition: Partition) -> Preference<'_> {
        Preference::new(self, self.table().index(partition))
    }

    /// The full preference list of a partition while only some members are alive, so that fallbacks keep copies in as many
    /// zones as owners did. After the owners comes, for each that is not alive, in order, the first live fallback of
    /// a zone in which nobody else has a copy, of the absent owner's own if that is one; if there is none, of its own;
    /// if there is none either, of any: of the next [`LOOK_AHEAD`](Self::LOOK_AHEAD) members on the ring. Then all others. With one zone, or all
    /// owners alive, it is [`preference`](Self::preference).
    ///
    /// ```
    /// use gramme_ring::{Layout, Member, NodeId, Zone};
    /// let racks = ["a", "a", "a", "b", "b", "b", "c", "c", "c"].into_iter().zip(1..);
    /// let members: Vec<Member> = racks
    ///     .map(|(rack, id)| Ok(Member::new(NodeId(id)).with_zone(Zone::new(rack)?)))
    ///     .collect::<Result<_, gramme_ring::ZoneTooLong>>()?;
    /// let layout = Layout::compute(3, 64, &members, None)?;
    /// let zone = |id: NodeId| &layout.member(id).unwrap().zone;
    /// for partition in layout.partition_count().partitions() {
    ///     let dead = layout.owners(partition).next().unwrap();
    ///     let fallback = layout.preference_while(partition, |id| id != dead).nth(3).unwrap();
    ///     assert_eq!(zone(fallback), zone(dead));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn preference_while(
        &self,
        partition: Partition,
        alive: impl Fn(NodeId) -> bool,
    ) -> impl Iterator<Item = NodeId> + '_ {
        let mut rest = self.preference(partition);
        let mut first: Vec<NodeId> = rest.by_ref().take(self.owners).collect();
        let zone = |id: NodeId| self.member(id).map(|member| &member.zone);
        let (live, absent): (Vec<NodeId>, Vec<NodeId>) = first.iter().partition(|&&id| alive(id));
        if !absent.is_empty() {
            first.extend(rest.by_ref().take(Self::LOOK_AHEAD));
        }
        let mut covered: Vec<_> = live.into_iter().map(zone).collect();
        for (next, owner) in (self.owners..).zip(absent) {
            // Of those that are preferred alike the first in ring order.
            let live = (next..first.len()).filter(|&at| alive(first[at]));
            let best = live.min_by_key(|&at| {
                let of = zone(first[at]);
                (covered.contains(&of), of != zone(owner))
            });
            let Some(at) = best else { break };
            covered.push(zone(first[at]));
            first[next..=at].rotate_right(1);
        }
        first.into_iter().chain(rest)
    }

    /// How far [`preference_while`](Self::preference_while) looks for a fallback of the best zone.
    pub const LOOK_AHEAD: usize = OwnerTable::LOOK_AHEAD;

    /// The partitions that a node owns, in ring order, each with the node's rank among the owners (0 is first). Empty
    /// for one that is no member.
    pub fn partitions_of(&self, node: NodeId) -> impl ExactSizeIterator<Item = (Partition, usize)> + '_ {
        let owned = self.place_of(node).map_or(&[][..], |place| self.owned(place));
        owned.iter().map(move |&p| {
            let partition = self.partitions.partition(u32::from(p)).expect("the table names partitions");
            let rank = self.owners(partition).position(|owner| owner == node).expect("it owns this one");
            (partition, rank)
        })
    }

    /// What changing from this layout to `next` moves.
    pub fn plan<'a>(&'a self, next: &'a Layout) -> Plan<'a> {
        Plan::new(self, next)
    }

    /// What each member carries beside what it should, in order of ids.
    ///
    /// ```
    /// use gramme_ring::{Layout, Member, NodeId};
    /// let members = [1, 2, 5].map(|weight| Member::new(NodeId(weight.into())).with_weight(weight));
    /// let layout = Layout::compute(1, 64, &members, None)?;
    /// let owned: Vec<u32> = layout.balance().iter().map(|load| load.owned).collect();
    /// assert_eq!(owned, [8, 16, 40]);
    /// # Ok::<(), gramme_ring::LayoutError>(())
    /// ```
    pub fn balance(&self) -> Vec<Load> {
        let shape = Shape::new(self.replicas, self.partitions.get() as usize, &self.members);
        let held: Vec<usize> = (0..self.members.len()).map(|m| self.owned(m).len()).collect();
        let mut first = vec![0u32; self.members.len()];
        for row in self.places.chunks_exact(self.owners) {
            first[usize::from(row[0])] += 1;
        }
        let quotas = quota::quotas(&shape, &held);
        (0..self.members.len())
            .map(|m| Load {
                node: self.ids[m],
                weight: self.members[m].weight,
                owned: self.starts[m + 1] - self.starts[m],
                first: first[m],
                quota: u32::try_from(quotas[m]).expect("at most the partitions"),
            })
            .collect()
    }

    /// Members' places among the owners of the partition with this index.
    pub(crate) fn row(&self, index: usize) -> &[u16] {
        self.table().row(index)
    }

    /// The places of the owners of a partition of any Q.
    fn places_of(&self, partition: Partition) -> &[u16] {
        self.row(self.table().index(partition))
    }

    /// The partitions of the member at this place, ascending.
    pub(crate) fn owned(&self, place: usize) -> &[u16] {
        &self.owned[self.starts[place] as usize..self.starts[place + 1] as usize]
    }

    /// All members' ids, in order of their places.
    pub(crate) fn ids(&self) -> &[NodeId] {
        &self.ids
    }

    fn place_of(&self, id: NodeId) -> Option<usize> {
        self.ids.binary_search(&id).ok()
    }
}

impl PartialEq for Layout {
    fn eq(&self, other: &Self) -> bool {
        // All else follows from these.
        self.version == other.version
            && self.parent == other.parent
            && self.replicas == other.replicas
            && self.partitions == other.partitions
            && self.members == other.members
            && self.places == other.places
    }
}

impl Eq for Layout {}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The table would drown everything else.
        f.debug_struct("Layout")
            .field("version", &self.version.0)
            .field("hash", &format_args!("{:016x}", self.hash))
            .field("parent", &format_args!("{:016x}", self.parent))
            .field("replicas", &self.replicas)
            .field("partitions", &self.partitions.get())
            .field("members", &self.members)
            .finish_non_exhaustive()
    }
}

/// Whether a layout can be made of these; members must be sorted.
fn check(replicas: u8, partitions: u32, members: &[Member]) -> Result<PartitionCount, LayoutError> {
    if replicas == 0 {
        return Err(LayoutError::NoReplicas);
    }
    let count = PartitionCount::new(partitions).map_err(|_| LayoutError::PartitionCount(partitions))?;
    if members.is_empty() {
        return Err(LayoutError::NoMembers);
    }
    if members.len() > MAX_MEMBERS {
        return Err(LayoutError::TooManyMembers(members.len()));
    }
    if let Some(member) = members.iter().find(|m| m.weight == 0) {
        return Err(LayoutError::ZeroWeight(member.id));
    }
    if let Some(pair) = members.windows(2).find(|pair| pair[0].id == pair[1].id) {
        return Err(LayoutError::DuplicateMember(pair[0].id));
    }
    Ok(count)
}

/// One member's line in [`Layout::balance`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Who.
    pub node: NodeId,
    /// Its weight.
    pub weight: u32,
    /// Partitions that it owns.
    pub owned: u32,
    /// Partitions of which it is the first owner.
    pub first: u32,
    /// Partitions that it would own at the best balance that its weight and the zones allow.
    pub quota: u32,
}
