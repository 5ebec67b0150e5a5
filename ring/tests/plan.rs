//! The plan between two layouts, against a slot-by-slot comparison.

use std::collections::BTreeMap;

use gramme_ring::{Layout, Member, NodeId, Slot};

fn layout(ids: std::ops::Range<u64>, replicas: u8, partitions: u32, previous: Option<&Layout>) -> Layout {
    let members: Vec<Member> = ids.map(|id| Member::new(NodeId(id * 17))).collect();
    Layout::compute(replicas, partitions, &members, previous).unwrap()
}

#[test]
fn a_plan_is_the_difference_slot_by_slot() {
    let first = layout(0..7, 3, 64, None);
    // How many moved more than they had to.
    let mut more = 0;
    for next in [
        layout(0..7, 3, 64, Some(&first)),
        // Nobody gains anything.
        layout(0..7, 2, 64, Some(&first)),
        layout(0..9, 3, 64, Some(&first)),
        layout(3..7, 3, 64, Some(&first)),
        layout(2..8, 2, 256, Some(&first)),
        layout(0..8, 5, 16, Some(&first)),
        layout(0..2, 3, 16384, Some(&first)),
    ] {
        // Gained, lost, for each node.
        let mut expected: BTreeMap<NodeId, (u32, u32)> = BTreeMap::new();
        let mut gains = Vec::new();
        let mut losses = Vec::new();
        // Owned, by the one and by the other.
        let mut owned: BTreeMap<NodeId, [u32; 2]> = BTreeMap::new();
        let mut firsts = 0;
        for slot in Slot::all() {
            let before: Vec<NodeId> = first.owners(first.partition_of(slot)).collect();
            let after: Vec<NodeId> = next.owners(next.partition_of(slot)).collect();
            for (at, owners) in [&before, &after].into_iter().enumerate() {
                owners.iter().for_each(|&id| owned.entry(id).or_default()[at] += 1);
            }
            for &id in after.iter().filter(|id| !before.contains(id)) {
                expected.entry(id).or_default().0 += 1;
                gains.push((slot.index(), id, before.clone()));
            }
            for &id in before.iter().filter(|id| !after.contains(id)) {
                expected.entry(id).or_default().1 += 1;
                losses.push((slot.index(), id));
            }
            firsts += u32::from(before[0] != after[0]);
        }

        let plan = first.plan(&next);
        let mut listed: Vec<(u16, NodeId, Vec<NodeId>)> = plan
            .gains()
            .flat_map(|g| {
                let sources: Vec<NodeId> = g.sources.collect();
                g.slots.map(move |slot| (slot, g.node, sources.clone()))
            })
            .collect();
        listed.sort();
        gains.sort();
        assert_eq!(listed, gains);
        let mut listed: Vec<(u16, NodeId)> =
            plan.losses().flat_map(|l| l.slots.map(move |slot| (slot, l.node))).collect();
        listed.sort_unstable();
        losses.sort_unstable();
        assert_eq!(listed, losses);
        assert_eq!(plan.is_empty(), gains.is_empty() && losses.is_empty());
        assert_eq!(plan.moved_slots() as usize, gains.len());
        assert_eq!(plan.first_owner_changes(), firsts);
        let least = owned.values().map(|[before, after]| after.saturating_sub(*before)).sum();
        assert_eq!(plan.least_moved_slots(), least);
        more += u32::from(plan.moved_slots() > least);
        for n in plan.nodes() {
            let (gained, lost) = expected.remove(&n.node).unwrap_or_default();
            assert_eq!((n.gained, n.lost), (gained, lost));
            assert_eq!(n.weight_before.is_some(), first.is_member(n.node));
            assert_eq!(n.weight_after.is_some(), next.is_member(n.node));
        }
        assert!(expected.is_empty());
    }
    assert!(more > 0, "the least is not what moved");
}
