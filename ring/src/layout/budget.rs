//! How long a layout may be searched for.

/// What searches may look at before they end.
#[derive(Clone, Copy)]
pub(super) struct Budget {
    /// Replicas, by the search for paths. It takes thousands of members or dozens of replicas, and many changes at once, to
    /// spend it.
    pub(super) paths: u64,
    /// Replicas, by the search for exchanges. It is spent when weights or zones of hundreds of members change at once.
    pub(super) exchanges: u64,
    /// Demands and replicas, by the search for heirs. It takes a dozen owners to each of thousands of partitions, and dozens of
    /// members of very unequal weights, to spend it.
    pub(super) heirs: u64,
}

impl Budget {
    /// About a second's work, another, and two.
    pub(super) const USUAL: Budget =
        Budget { paths: 100_000_000, exchanges: 24_000_000, heirs: 1_000_000_000 };
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;
    use alloc::format;
    use alloc::vec::Vec;

    use super::Budget;
    use crate::layout::Layout;
    use crate::member::{Member, Zone};
    use crate::mix::mix2;
    use crate::node::NodeId;

    /// What a layout promises however long was searched; answers how many replicas moved.
    fn hold_promises(before: Option<&Layout>, after: &Layout) -> u64 {
        let zones = |ids: &[NodeId]| {
            ids.iter().map(|&id| &after.member(id).unwrap().zone).collect::<BTreeSet<_>>().len()
        };
        let all = zones(after.ids());
        for partition in after.partition_count().partitions() {
            let owners: Vec<NodeId> = after.owners(partition).collect();
            assert_eq!(owners.len(), usize::from(after.replicas()).min(after.members().len()));
            assert_eq!(owners.iter().collect::<BTreeSet<_>>().len(), owners.len());
            assert_eq!(zones(&owners), owners.len().min(all));
        }
        // How flatly they are spread, too.
        let bytes = postcard::to_allocvec(after).unwrap();
        assert_eq!(&postcard::from_bytes::<Layout>(&bytes).unwrap(), after);
        for load in after.balance() {
            assert_eq!(load.owned, load.quota, "as balanced as any");
        }
        let Some(before) = before else { return 0 };
        assert_eq!((after.version().0, after.parent()), (before.version().0 + 1, before.hash()));
        let moved = after.partition_count().partitions().map(|p| {
            let former = before.partition_of(p.first_slot());
            after.owners(p).filter(|&id| !before.is_owner(former, id)).count() as u64
        });
        let moved = moved.sum();
        let had_to = after
            .balance()
            .into_iter()
            .map(|load| u64::from(load.quota).saturating_sub(before.partitions_of(load.node).len() as u64));
        assert!(had_to.sum::<u64>() <= moved);
        moved
    }

    #[test]
    fn promises_hold_however_short_the_search() {
        for spent in [0, 300] {
            let budget = Budget { paths: spent, exchanges: spent, heirs: spent };
            let (mut moved, mut usual, mut others) = (0, 0, 0);
            for case in 0..200 {
                let mut draws = 0;
                let mut below = |end: u64| {
                    draws += 1;
                    mix2(case, draws) % end
                };
                let (count, zones) = (2 + below(20), 1 + below(6));
                let replicas = u8::try_from(1 + below(5)).unwrap();
                let partitions = 1u32 << below(9);
                let member = |id: u64, below: &mut dyn FnMut(u64) -> u64| {
                    let zone = Zone::new(&format!("{}", below(zones))).unwrap();
                    Member::new(NodeId(id)).with_weight(u32::try_from(1 + below(20)).unwrap()).with_zone(zone)
                };
                let mut members: Vec<Member> = (0..count).map(|id| member(id, &mut below)).collect();
                let compute = |budget, members: &[Member], before: Option<&Layout>| {
                    Layout::compute_within(budget, replicas, partitions, members, before).unwrap()
                };
                let mut before = compute(budget, &members, None);
                hold_promises(None, &before);
                for step in 0..4 {
                    for join in 0..=below(3) {
                        let at = usize::try_from(below(members.len() as u64)).unwrap();
                        match below(3) {
                            0 => members[at] = member(members[at].id.0, &mut below),
                            1 if members.len() > 1 => drop(members.remove(at)),
                            _ => members.push(member(100 + 10 * step + join, &mut below)),
                        }
                    }
                    let after = compute(budget, &members, Some(&before));
                    let searched = compute(Budget::USUAL, &members, Some(&before));
                    let (m, u) =
                        (hold_promises(Some(&before), &after), hold_promises(Some(&before), &searched));
                    // Of one change, what fits among few partitions.
                    assert!(
                        m <= u + 8 + 3 * u64::from(partitions) * after.owner_count() as u64 / 10,
                        "{case}"
                    );
                    others += u64::from(after != searched);
                    (moved, usual) = (moved + m, usual + u);
                    members.reverse();
                    assert_eq!(compute(budget, &members, Some(&before)), after, "the order does not matter");
                    before = after;
                }
            }
            // The search is what makes it less: most is placed directly, and what is not, in place of it.
            assert!(others > 50 && usual < moved && moved * 20 < usual * 21, "{others} {usual} {moved}");
        }
    }
}
