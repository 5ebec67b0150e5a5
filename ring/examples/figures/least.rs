//! A ratio to the bound that the worst departure from *any* layout of some members reaches: what departures are measured
//! against.

use gramme_ring::{Layout, Member, NodeId};

/// The least worst ratio of all layouts with the quotas of this one. There must be one zone, and at most 20 members.
///
/// Take some members R, at most N. What they gain when another goes they take over without further moves only in partitions
/// that one of them does not own yet. A partition that j of them don't own has N − |R| + j other owners, so for each
/// (partition, one of R that does not own it) there are at most N − |R| + 1 others whose departure it serves. What is
/// missing to R's gains over all the others' departures is moved beyond the bound, by one of them at least in this ratio.
pub(crate) fn least_worst(layout: &Layout) -> f64 {
    let members = layout.members();
    let departures: Vec<(NodeId, Vec<(NodeId, u32)>)> = members
        .iter()
        .map(|gone| {
            let rest: Vec<Member> = members.iter().filter(|m| m.id != gone.id).cloned().collect();
            let after = Layout::compute(layout.replicas(), layout.partitions(), &rest, Some(layout)).unwrap();
            let changes = layout.plan(&after).nodes().into_iter();
            let grown = changes.map(|n| (n.node, n.slots_after.saturating_sub(n.slots_before)));
            (gone.id, grown.collect())
        })
        .collect();
    let each = 16384 / layout.partitions();
    let absent: Vec<u32> = layout.balance().iter().map(|load| 16384 - load.owned * each).collect();
    let mut worst = 1.0f64;
    for set in 1u32..1 << members.len() {
        let spare = (u32::from(layout.replicas()) + 1).checked_sub(set.count_ones());
        let Some(spare) = spare.filter(|&n| n > 0) else { continue };
        let chosen: Vec<usize> = (0..members.len()).filter(|m| set >> m & 1 == 1).collect();
        let served = spare * chosen.iter().map(|&m| absent[m]).sum::<u32>();
        let chosen: Vec<NodeId> = chosen.into_iter().map(|m| members[m].id).collect();
        let (mut gains, mut bound) = (0, 0);
        for (_, grown) in departures.iter().filter(|(id, _)| !chosen.contains(id)) {
            gains += grown.iter().filter(|(id, _)| chosen.contains(id)).map(|(_, n)| n).sum::<u32>();
            bound += grown.iter().map(|(_, n)| n).sum::<u32>();
        }
        if bound > 0 {
            worst = worst.max(1.0 + f64::from(gains.saturating_sub(served)) / f64::from(bound));
        }
    }
    worst
}
