//! What this node knows of the cluster: the layouts in use, who takes part, and which of two layouts a request goes by.
//!
//! While a transition is live, writes go to the owners of both layouts and reads to those of the old one, until all
//! have everything that they are to own; then reads go to the new owners.

use crate::coordinator::Plan;
use crate::message::Refusal;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use gramme_ring::gossip::Gossip;
use gramme_ring::membership::{Standing, VersionStanding};
use gramme_ring::{Layout, LayoutVersion, Membership, NodeId, Slot, Step, Transition};

#[derive(Debug)]
pub(crate) struct View {
    pub(crate) gossip: Gossip,
    /// Reads go by the layout that is entered.
    moved: bool,
}

impl View {
    pub(crate) fn new(gossip: Gossip) -> View {
        let moved = has_moved(gossip.membership());
        View { gossip, moved }
    }

    /// Takes over what was learned or decided, and is durable.
    pub(crate) fn adopt(&mut self, gossip: Gossip) {
        // What reads have moved to they don't move back from, whatever a displaced commit said.
        *self = View::new(gossip);
    }

    pub(crate) fn membership(&self) -> &Membership {
        self.gossip.membership()
    }

    pub(crate) fn transition(&self) -> Option<Transition<'_>> {
        self.membership().transition()
    }

    /// The layout that reads go by; `None` while nothing is known of any.
    pub(crate) fn reading(&self) -> Option<&Layout> {
        match self.transition() {
            Some(transition) if !self.moved => Some(transition.from()),
            _ => self.membership().layout(),
        }
    }

    /// The layouts that writes go by, the older one first.
    pub(crate) fn writing(&self) -> impl Iterator<Item = &Layout> {
        let from = self.transition().map(|transition| transition.from());
        from.into_iter().chain(self.membership().layout())
    }

    /// The committed layout's version, 0 if there is none.
    pub(crate) fn version(&self) -> LayoutVersion {
        self.membership().layout().map_or(LayoutVersion(0), Layout::version)
    }

    /// What to tell a peer whose request goes by a layout that is not in use here.
    pub(crate) fn check(&self, version: LayoutVersion) -> Result<(), Refusal> {
        match self.membership().judge(version) {
            VersionStanding::Current | VersionStanding::Leaving => Ok(()),
            VersionStanding::Retired | VersionStanding::Unknown => Err(Refusal::Layout(self.version())),
        }
    }

    /// The same for what is merged anyway: to hold more than one should does no harm.
    pub(crate) fn check_write(&self, version: LayoutVersion) -> Result<(), Refusal> {
        match self.membership().judge(version) {
            VersionStanding::Retired => Err(Refusal::Layout(self.version())),
            _ => Ok(()),
        }
    }

    /// The owners of a slot other than this node, but for those that were given up.
    pub(crate) fn other_owners(&self, slot: Slot, me: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let owners =
            self.reading().into_iter().flat_map(move |layout| layout.owners(layout.partition_of(slot)));
        owners.filter(move |node| *node != me && !self.membership().is_removed(*node))
    }

    /// Whether this node keeps a copy of a slot by any layout in use.
    pub(crate) fn is_owner(&self, slot: Slot, node: NodeId) -> bool {
        self.writing().any(|layout| layout.is_owner(layout.partition_of(slot), node))
    }

    /// The owners of a slot in any layout in use, by id.
    pub(crate) fn owners(&self, slot: Slot) -> Vec<NodeId> {
        let mut owners: Vec<NodeId> =
            self.writing().flat_map(|layout| layout.owners(layout.partition_of(slot))).collect();
        owners.sort_unstable();
        owners.dedup();
        owners
    }

    /// The members of the layouts in use that are not given up.
    pub(crate) fn members(&self) -> BTreeSet<NodeId> {
        let members = self.writing().flat_map(|layout| layout.members().iter().map(|member| member.id));
        members.filter(|id| !self.membership().is_removed(*id)).collect()
    }

    /// Whether a node is a member of a layout in use, and not given up.
    pub(crate) fn is_member(&self, node: NodeId) -> bool {
        self.writing().any(|layout| layout.is_member(node)) && !self.membership().is_removed(node)
    }

    /// Members and those who wish to be, without `me`. Who left has to come back by itself.
    pub(crate) fn peers(&self, me: NodeId) -> BTreeSet<NodeId> {
        let mut peers = self.members();
        let known = self.gossip.records().map(|(id, _)| id);
        let left = |id: &NodeId| matches!(self.membership().standing(*id), Some(Standing::Left));
        peers.extend(known.filter(|id| !self.membership().is_removed(*id) && !left(id)));
        peers.remove(&me);
        peers
    }

    /// The plan of a request by one layout.
    pub(crate) fn plan(layout: &Layout, slot: Slot, alive: impl Fn(NodeId) -> bool) -> Plan {
        let preference = layout.preference_while(layout.partition_of(slot), &alive);
        Plan::new(usize::from(copies(layout)), preference, &alive)
    }
}

/// Copies per key: N, or all members where there are fewer.
pub(crate) fn copies(layout: &Layout) -> u8 {
    let members = u8::try_from(layout.members().len()).unwrap_or(u8::MAX);
    layout.replicas().min(members)
}

fn has_moved(membership: &Membership) -> bool {
    membership.transition().is_none_or(|transition| transition.step() >= Step::Moving)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gramme_ring::{Member, Zone};

    #[test]
    fn a_fallback_is_of_the_absent_owner_s_zone() {
        let racks = ["a", "a", "a", "b", "b", "b", "c", "c", "c"].into_iter().zip(1..);
        let members: Vec<Member> =
            racks.map(|(rack, id)| Member::new(NodeId(id)).with_zone(Zone::new(rack).unwrap())).collect();
        let layout = Layout::compute(3, 16, &members, None).unwrap();
        let zone = |id: NodeId| &layout.member(id).unwrap().zone;
        for slot in Slot::all() {
            let owners: Vec<NodeId> = layout.owners(layout.partition_of(slot)).collect();
            for dead in [&owners[..1], &owners[1..2], &owners[..2]] {
                let plan = View::plan(&layout, slot, |id| !dead.contains(&id));
                let stand_ins =
                    plan.targets.iter().filter_map(|target| Some((target.node, target.stands_for?)));
                assert_eq!(stand_ins.clone().count(), dead.len());
                for (node, owner) in stand_ins {
                    assert_eq!(zone(node), zone(owner), "{slot:?}: {node} stands in for {owner}");
                }
            }
        }
    }
}
