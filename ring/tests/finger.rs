//! Requests reach the owner, in no more hops than promised, whoever is dead.

use gramme_ring::finger::{FingerTable, Hop, Place, Ring, id_fingers, rank_fingers};
use gramme_ring::{NodeId, TableError};
use proptest::prelude::*;

type Build = for<'b> fn(Ring<'_>, usize, usize, &'b mut [Place]) -> Result<&'b [Place], TableError>;

fn ring(positions: impl IntoIterator<Item = u64>) -> Vec<Place> {
    let mut positions: Vec<u64> = positions.into_iter().collect();
    positions.sort_unstable();
    positions.dedup();
    (0..).zip(positions).map(|(i, position)| Place { position, node: NodeId(i) }).collect()
}

/// The first live node at or after the key.
fn owner(ring: &[Place], key: u64, alive: impl Fn(NodeId) -> bool) -> NodeId {
    let at = ring.partition_point(|p| p.position < key);
    (0..ring.len()).map(|i| ring[(at + i) % ring.len()].node).find(|&node| alive(node)).unwrap()
}

/// Follows the hops; who got it, and after how many.
fn route(
    ring: &[Place],
    build: Build,
    successors: usize,
    start: usize,
    key: u64,
    alive: impl Fn(NodeId) -> bool + Copy,
) -> Option<(NodeId, u32)> {
    let mut at = start;
    for hops in 0..=ring.len() {
        let mut buffer = [ring[0]; 128];
        let fingers = build(Ring::new(ring).unwrap(), at, successors, &mut buffer).unwrap();
        let before = ring[(at + ring.len() - 1) % ring.len()];
        let table = FingerTable::new(before, ring[at], fingers).unwrap().with_successors(successors);
        let hops = u32::try_from(hops).unwrap();
        match table.next_hop(key, alive) {
            Hop::Here => return Some((ring[at].node, hops)),
            Hop::Owner(node) => return Some((node, hops + 1)),
            Hop::Via(node) => {
                // Closer, or it could go on for ever.
                let next = usize::try_from(node.0).unwrap();
                assert!(key.wrapping_sub(ring[next].position) < key.wrapping_sub(ring[at].position));
                at = next;
            }
            Hop::Unreachable => return None,
        }
    }
    panic!("in circles");
}

#[test]
fn rank_fingers_need_at_most_the_logarithm() {
    // Every start and every owner, for every size, however crooked the positions.
    for size in 1..=66u64 {
        let ring = ring((0..size).map(|i| (i * i * i).wrapping_mul(0x0123_4567_89ab)));
        assert_eq!(ring.len() as u64, size);
        let bound = size.next_power_of_two().ilog2();
        let mut total = 0;
        for start in 0..ring.len() {
            for place in &ring {
                for key in [place.position, place.position.wrapping_sub(1)] {
                    let expected = owner(&ring, key, |_| true);
                    let (got, hops) = route(&ring, rank_fingers, 1, start, key, |_| true).unwrap();
                    assert_eq!(got, expected, "{size} nodes, from {start} to {key}");
                    let (skipping, _) = route(&ring, rank_fingers, 4, start, key, |_| true).unwrap();
                    assert_eq!(skipping, expected, "{size} nodes, 4 successors, from {start} to {key}");
                    assert!(hops <= bound, "{size} nodes: {hops} hops");
                    total += hops;
                }
            }
        }
        let mean = f64::from(total) / (2 * size * size) as f64;
        assert!(mean <= (size as f64).log2() / 2.0 + 1.0, "{size}: {mean}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn any_ring_any_fingers(
        positions in prop::collection::vec(any::<u64>(), 1..200), start in any::<prop::sample::Index>(),
        key in any::<u64>(), by_rank in any::<bool>(), successors in 0..20usize,
    ) {
        let ring = ring(positions);
        let start = start.index(ring.len());
        let build: Build = if by_rank { rank_fingers } else { id_fingers };
        let (got, hops) = route(&ring, build, successors, start, key, |_| true).unwrap();
        prop_assert_eq!(got, owner(&ring, key, |_| true));
        if by_rank {
            prop_assert!(hops <= ring.len().next_power_of_two().ilog2());
        }
    }

    #[test]
    fn the_dead_are_passed_over(
        positions in prop::collection::vec(any::<u64>(), 30..200), start in any::<prop::sample::Index>(),
        key in any::<u64>(), by_rank in any::<bool>(), dead in any::<u64>(),
    ) {
        let ring = ring(positions);
        let start = start.index(ring.len());
        let build: Build = if by_rank { rank_fingers } else { id_fingers };
        // A quarter is dead; runs of 16 are next to impossible.
        let alive = |node: NodeId| node.0 == start as u64 || (node.0 ^ dead).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 62 != 0;
        let own = owner(&ring, key, |_| true);
        let got = route(&ring, build, 16, start, key, alive);
        // Who is asked first keeps its own keys.
        prop_assert_eq!(got.map(|g| g.0), Some(if own.0 == start as u64 { own } else { owner(&ring, key, alive) }));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    /// Tables that know few, miss who came and name who has gone: what they share is where each stands.
    #[test]
    fn stale_tables_come_closer_all_the_same(
        positions in prop::collection::vec(any::<u64>(), 2..40), known in any::<[u64; 40]>(), key in any::<u64>(),
    ) {
        let ring = ring(positions);
        for start in 0..ring.len() {
            let mut at = start;
            let mut hops = 0;
            loop {
                let others = (1..ring.len()).map(|step| (at + step) % ring.len()).filter(|&i| known[at] >> i & 1 == 1);
                let fingers: Vec<Place> = others.map(|i| ring[i]).collect();
                let Some(&before) = fingers.last() else { break };
                match FingerTable::new(before, ring[at], &fingers).unwrap().next_hop(key, |_| true) {
                    Hop::Via(node) => at = usize::try_from(node.0).unwrap(),
                    _ => break,
                }
                hops += 1;
                prop_assert!(hops < ring.len(), "in circles");
            }
        }
    }
}

#[test]
fn a_table_out_of_order_is_refused() {
    let ring = ring([10, 20, 30, 40]);
    let table = |fingers: &[Place]| FingerTable::new(ring[3], ring[0], fingers).map(|_| ());
    assert_eq!(table(&ring[1..]), Ok(()));
    assert_eq!(table(&[ring[2], ring[1]]), Err(TableError::UnsortedFingers));
    assert_eq!(table(&[ring[1], ring[1]]), Err(TableError::UnsortedFingers));
    assert_eq!(table(&[ring[0], ring[1]]), Err(TableError::UnsortedFingers), "ourselves");
    let alone = FingerTable::new(ring[0], ring[0], &[]).unwrap();
    assert_eq!(alone.next_hop(99, |_| true), Hop::Here);
}

#[test]
fn fingers_of_nobody() {
    let ring = ring([10, 20, 30, 40]);
    for build in [rank_fingers as Build, id_fingers] {
        let held = [Place { position: 7, node: NodeId(7) }; 8];
        let mut buffer = held;
        assert_eq!(
            build(Ring::new(&ring).unwrap(), 4, 1, &mut buffer),
            Err(TableError::NotInRing { place: 4, nodes: 4 })
        );
        assert_eq!(
            build(Ring::new(&[]).unwrap(), 0, 1, &mut buffer),
            Err(TableError::NotInRing { place: 0, nodes: 0 })
        );
        let short = build(Ring::new(&ring).unwrap(), 3, 2, &mut buffer[..1]);
        assert!(matches!(short, Err(TableError::BufferTooShort { needed: 2.., found: 1 })), "{short:?}");
        assert_eq!(buffer, held, "refused, and changed all the same");
        // More successors than nodes are all the others.
        assert_eq!(build(Ring::new(&ring).unwrap(), 3, usize::MAX, &mut buffer), Ok(&ring[..3]));
        assert_eq!(build(Ring::new(&ring[..1]).unwrap(), 0, 5, &mut buffer), Ok(&[][..]), "alone");
    }
}

#[test]
fn nobody_left_to_ask() {
    let ring = ring([10, 20, 30, 40]);
    let mut buffer = [ring[0]; 8];
    let fingers = rank_fingers(Ring::new(&ring).unwrap(), 0, 1, &mut buffer).unwrap();
    let table = FingerTable::new(ring[3], ring[0], fingers).unwrap();
    assert_eq!(table.next_hop(15, |_| false), Hop::Unreachable);
    assert_eq!(table.next_hop(35, |_| false), Hop::Unreachable);
    assert_eq!(table.next_hop(5, |_| false), Hop::Here);
}

#[test]
fn contradictions_are_refused() {
    let ring = ring([10, 20, 30, 40]);
    let table = |before: Place, fingers: &[Place]| FingerTable::new(before, ring[0], fingers).map(|_| ());
    assert_eq!(table(ring[0], &ring[1..]), Err(TableError::ContradictoryFingers), "its own predecessor");
    assert_eq!(table(ring[2], &ring[1..]), Err(TableError::ContradictoryFingers), "a finger beyond it");
    assert_eq!(table(ring[3], &[]), Err(TableError::ContradictoryFingers), "not alone, and no successor");
    assert_eq!(table(ring[2], &ring[1..3]), Ok(()));
    for bad in [[ring[1], ring[0]], [ring[1], Place { node: NodeId(7), ..ring[1] }]] {
        assert_eq!(Ring::new(&bad).map(|_| ()), Err(TableError::UnsortedRing));
    }
}

/// The table of one is stale, or the owner is dead: who gets the request takes it for another's. It is to serve it.
#[test]
fn the_owner_hop_is_final() {
    let place = |position| Place { position, node: NodeId(position) };
    let (fingers, others) = ([place(300)], [place(100), place(200)]);
    let stale = FingerTable::new(place(300), place(100), &fingers).unwrap();
    let heir = FingerTable::new(place(200), place(300), &others).unwrap();
    assert_eq!(stale.next_hop(150, |_| true), Hop::Owner(NodeId(300)));
    assert_eq!(heir.next_hop(150, |_| true), Hop::Via(NodeId(100)), "routed on, it would come back");
}
