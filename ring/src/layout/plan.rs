//! What a change of layout moves.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use super::Layout;
use crate::node::NodeId;
use crate::partition::{Partition, PartitionCount};
use crate::table::Owners;

/// The difference between two layouts: what an operator looks at before a commit, and what transfers work through after
/// it. Made by [`Layout::plan`].
///
/// ```
/// use gramme_ring::{Layout, Member, NodeId};
/// let mut members: Vec<Member> = (1..=3).map(|id| Member::new(NodeId(id))).collect();
/// let before = Layout::compute(2, 64, &members, None)?;
/// members.push(Member::new(NodeId(4)));
/// let after = Layout::compute(2, 64, &members, Some(&before))?;
///
/// let plan = before.plan(&after);
/// // Node 4 takes its quarter of the 2 * 16384 replicas of slots, and nothing else moves.
/// assert_eq!(plan.moved_slots(), 2 * 16384 / 4);
/// assert!(plan.gains().all(|gain| gain.node == NodeId(4)));
/// # Ok::<(), gramme_ring::LayoutError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    before: &'a Layout,
    after: &'a Layout,
}

/// A node that is to own slots that it does not own yet.
#[derive(Clone, Debug)]
pub struct Gain<'a> {
    /// Who.
    pub node: NodeId,
    /// Which slots: those of one partition, of the layout that divides finer.
    pub slots: Range<u16>,
    /// Who owns them now.
    pub sources: Owners<'a>,
}

/// A node that is to give up slots that it owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Who.
    pub node: NodeId,
    /// Which slots: those of one partition, of the layout that divides finer.
    pub slots: Range<u16>,
}

/// One node's part in a change. Slots are counted once for each replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeChange {
    /// Who.
    pub node: NodeId,
    /// Its weight now, if it is a member.
    pub weight_before: Option<u32>,
    /// Its weight afterwards, if it will be a member.
    pub weight_after: Option<u32>,
    /// Slots that it owns now.
    pub slots_before: u32,
    /// Slots that it will own.
    pub slots_after: u32,
    /// Slots that it receives.
    pub gained: u32,
    /// Slots that it gives up.
    pub lost: u32,
}

impl<'a> Plan<'a> {
    pub(super) fn new(before: &'a Layout, after: &'a Layout) -> Self {
        Plan { before, after }
    }

    /// The finer of the two divisions: within its partitions neither layout changes owners.
    fn count(&self) -> PartitionCount {
        self.before.partition_count().max(self.after.partition_count())
    }

    /// Every (slots, node) that has to be transferred, in order of slots.
    pub fn gains(&self) -> impl Iterator<Item = Gain<'a>> + use<'a> {
        let Plan { before, after } = *self;
        newcomers(self.count(), before, after).map(move |(partition, node)| Gain {
            node,
            slots: partition.slots(),
            sources: before.owners(partition),
        })
    }

    /// Every (slots, node) that is given up, in order of slots.
    pub fn losses(&self) -> impl Iterator<Item = Loss> + use<'a> {
        newcomers(self.count(), self.after, self.before)
            .map(|(partition, node)| Loss { node, slots: partition.slots() })
    }

    /// Whether nobody gains or loses anything. Ranks may still change.
    pub fn is_empty(&self) -> bool {
        self.gains().next().is_none() && self.losses().next().is_none()
    }

    /// Slots that have to be transferred, counted once for each replica.
    pub fn moved_slots(&self) -> u32 {
        self.gains().map(|gain| u32::from(gain.slots.end - gain.slots.start)).sum()
    }

    /// What would have to be transferred in any case: Σ max(0, slots afterwards − slots now) over the nodes.
    pub fn least_moved_slots(&self) -> u32 {
        self.nodes().iter().map(|n| n.slots_after.saturating_sub(n.slots_before)).sum()
    }

    /// Slots whose first owner changes; nothing moves for them alone, but clients' maps change.
    pub fn first_owner_changes(&self) -> u32 {
        self.count()
            .partitions()
            .filter(|&p| self.before.owners(p).next() != self.after.owners(p).next())
            .map(|p| u32::from(p.slots().end - p.slots().start))
            .sum()
    }

    /// Each node's part, for all that are members before or after, by id.
    pub fn nodes(&self) -> Vec<NodeChange> {
        let mut ids: Vec<NodeId> = self.before.ids().iter().chain(self.after.ids()).copied().collect();
        ids.sort_unstable();
        ids.dedup();
        let slots = |layout: &Layout, id| {
            let each = 16384 / layout.partitions();
            layout.place_of(id).map_or(0, |place| layout.owned(place).iter().map(|_| each).sum())
        };
        let mut nodes: Vec<NodeChange> = ids
            .into_iter()
            .map(|node| NodeChange {
                node,
                weight_before: self.before.member(node).map(|m| m.weight),
                weight_after: self.after.member(node).map(|m| m.weight),
                slots_before: slots(self.before, node),
                slots_after: slots(self.after, node),
                gained: 0,
                lost: 0,
            })
            .collect();
        for gain in self.gains() {
            let at =
                nodes.binary_search_by_key(&gain.node, |n| n.node).expect("it is a member of one of the two");
            nodes[at].gained += u32::from(gain.slots.end - gain.slots.start);
        }
        for n in &mut nodes {
            n.lost = n.slots_before + n.gained - n.slots_after;
        }
        nodes
    }
}

/// Each partition's owners by `to` that are none by `from`.
fn newcomers<'a>(
    count: PartitionCount,
    from: &'a Layout,
    to: &'a Layout,
) -> impl Iterator<Item = (Partition, NodeId)> + use<'a> {
    // Marked by partition, so that time grows with the owners and not with their square.
    let mut owned_in: Vec<Option<Partition>> = vec![None; from.ids().len()];
    let places: Vec<Option<usize>> = to.ids().iter().map(|&id| from.place_of(id)).collect();
    count.partitions().flat_map(move |partition| {
        for &place in from.places_of(partition) {
            owned_in[usize::from(place)] = Some(partition);
        }
        let is_new = |&&place: &&u16| {
            places[usize::from(place)].is_none_or(|before| owned_in[before] != Some(partition))
        };
        let new: Vec<NodeId> = to
            .places_of(partition)
            .iter()
            .filter(is_new)
            .map(|&place| to.ids()[usize::from(place)])
            .collect();
        new.into_iter().map(move |node| (partition, node))
    })
}
