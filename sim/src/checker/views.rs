//! What nodes believe of the cluster: whoever goes by a layout goes by one that gives N distinct owners.

use super::{Checker, Invariant};
use crate::time::Time;
use gramme_ring::{Layout, NodeId, Zone};
use std::collections::BTreeSet;

impl Checker {
    /// A node goes by this layout, or by this one too while another is to follow.
    pub fn check_view(&mut self, now: Time, node: usize, layout: &Layout) {
        if self.sound.get(&layout.hash()) == Some(layout) {
            return;
        }
        self.sound.insert(layout.hash(), layout.clone());
        if let Some(what) = flaw(layout) {
            let what = format!("node {node} goes by layout {}, in which {what}", layout.version());
            self.fail(now, Invariant::DistinctOwners, None, what);
        }
    }
}

/// What is wrong with a layout.
fn flaw(layout: &Layout) -> Option<String> {
    let members: BTreeSet<NodeId> = layout.members().iter().map(|member| member.id).collect();
    let zone_of = |id: NodeId| layout.members().iter().find(|member| member.id == id).map(|m| &m.zone);
    let zones: BTreeSet<&Zone> = layout.members().iter().map(|member| &member.zone).collect();
    let wanted = usize::from(layout.replicas()).min(members.len());
    for partition in layout.partition_count().partitions() {
        let owners: Vec<NodeId> = layout.owners(partition).collect();
        let distinct: BTreeSet<NodeId> = owners.iter().copied().collect();
        let spread: BTreeSet<Option<&Zone>> = owners.iter().map(|id| zone_of(*id)).collect();
        let preference: Vec<NodeId> = layout.preference(partition).collect();
        let everybody: BTreeSet<NodeId> = preference.iter().copied().collect();
        if owners.len() != wanted || distinct.len() != wanted || !distinct.is_subset(&members) {
            return Some(format!("partition {partition} has the owners {owners:?}, and N is {wanted}"));
        }
        if spread.len() != wanted.min(zones.len()) {
            return Some(format!("partition {partition}'s owners {owners:?} are in {} zones", spread.len()));
        }
        if !preference.starts_with(&owners) || everybody != members || preference.len() != members.len() {
            return Some(format!("partition {partition} has the preference list {preference:?}"));
        }
    }
    None
}
