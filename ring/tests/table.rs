//! Owners from borrowed slices, against the layout that they were taken from.

use gramme_ring::{Layout, Member, NodeId, OwnerTable, Slot, TableError, Zone};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_copied_table_answers_like_its_layout(
        weights in prop::collection::vec((1..1000u32, 0..3u8), 1..12), replicas in 1..=5u8, bits in 0..=6u32,
        other in 0..=8u32, at in any::<prop::sample::Index>(),
    ) {
        let member = |(id, &(weight, zone)): (u64, &(u32, u8))| Member::new(NodeId(id)).with_weight(weight)
            .with_zone(Zone::new(&zone.to_string()).unwrap());
        let members: Vec<Member> = (0..).zip(&weights).map(member).collect();
        let layout = Layout::compute(replicas, 1 << bits, &members, None).unwrap();
        let ids = layout.table().nodes().to_vec();
        let places: Vec<u16> = layout.partition_count().partitions().flat_map(|p| layout.owners(p))
            .map(|id| u16::try_from(ids.binary_search(&id).unwrap()).unwrap()).collect();
        let table = OwnerTable::new(1 << bits, &ids, &places).unwrap();
        prop_assert_eq!((table.owner_count(), table.partition_count()), (layout.owner_count(), layout.partition_count()));

        let slot = Slot::new(u16::try_from(at.index(16384)).unwrap()).unwrap();
        prop_assert_eq!(table.partition_of(slot), layout.partition_of(slot));
        // Of this Q and of another.
        for partition in [table.partition_of(slot), gramme_ring::PartitionCount::new(1 << other).unwrap().partition_of(slot)] {
            prop_assert!(table.owners(partition).eq(layout.owners(partition)));
            prop_assert!(table.owners(partition).rev().eq(layout.owners(partition).rev()));
            let all: Vec<NodeId> = layout.preference(partition).collect();
            let mut buffer = [NodeId(0); 16];
            for room in [0, 1, ids.len(), 16] {
                prop_assert_eq!(table.preference(partition, &mut buffer[..room]), &all[..room.min(all.len())]);
            }
            match table.replicas::<3>(partition) {
                Ok(owners) => prop_assert!(layout.owners(partition).take(3).eq(owners)),
                Err(error) => prop_assert_eq!(error, TableError::TooFewNodes { wanted: 3, found: layout.owner_count() }),
            }
        }
    }
}

#[test]
fn bad_tables_are_named() {
    let ids = [NodeId(1), NodeId(2), NodeId(3)];
    let refused = |q, ids: &[NodeId], places: &[u16]| OwnerTable::new(q, ids, places).unwrap_err();
    for q in [0, 3, 32768, u32::MAX] {
        assert_eq!(refused(q, &ids, &[0, 1]), TableError::PartitionCount(q));
    }
    assert_eq!(refused(2, &[], &[]), TableError::NoNodes);
    assert_eq!(refused(2, &[NodeId(2), NodeId(1)], &[0, 1]), TableError::UnsortedNodes);
    assert_eq!(refused(2, &[NodeId(2), NodeId(2)], &[0, 1]), TableError::UnsortedNodes);
    assert_eq!(refused(2, &ids, &[]), TableError::Length { expected: 2, found: 0 });
    assert_eq!(refused(2, &ids, &[0, 1, 2]), TableError::Length { expected: 2, found: 3 });
    assert_eq!(refused(2, &ids, &[0, 1, 3, 1]), TableError::UnknownNode { index: 2 });
    let table = OwnerTable::new(2, &ids, &[0, 1, 2, 1]).unwrap();
    let second = table.partition_count().partition(1).unwrap();
    assert_eq!(refused(2, &ids, &[0, 1, 2, 2]), TableError::RepeatedOwner(second));
    // More owners than nodes would have to repeat one.
    assert!(matches!(refused(1, &ids[..1], &[0, 0]), TableError::RepeatedOwner(_)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

    /// Without an allocator the same nodes stand in for the dead.
    #[test]
    fn stand_ins_are_the_layouts(
        zones in prop::collection::vec(0..4u32, 1..60), replicas in 1..6u8, dead in any::<u64>(), room in 0..60usize,
    ) {
        let members: Vec<Member> = (0..)
            .zip(&zones)
            .map(|(id, zone)| Member::new(NodeId(id)).with_zone(Zone::new(&zone.to_string()).unwrap()))
            .collect();
        let layout = Layout::compute(replicas, 64, &members, None).unwrap();
        let alive = |id: NodeId| dead >> id.0 & 1 == 0;
        let table = layout.table();
        for partition in layout.partition_count().partitions() {
            let mut buffer = [NodeId(0); 60];
            let list = table.preference_while(partition, &zones, alive, &mut buffer).unwrap();
            prop_assert!(layout.preference_while(partition, alive).eq(list.iter().copied()));
            // A shorter buffer holds the same nodes as without the dead, in an order of its own.
            let list = table.preference_while(partition, &zones, alive, &mut buffer[..room]).unwrap();
            let mut list = list.to_vec();
            let mut plain: Vec<NodeId> = layout.preference(partition).take(room).collect();
            list.sort_unstable();
            plain.sort_unstable();
            prop_assert_eq!(list, plain);
        }
        let partition = layout.partition_count().partitions().next().unwrap();
        let short = table.preference_while(partition, &zones[1..], alive, &mut []);
        prop_assert_eq!(short, Err(TableError::Length { expected: zones.len(), found: zones.len() - 1 }));
    }
}
