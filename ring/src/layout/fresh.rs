//! Placing every replica without search: when nothing is held yet, or a search takes too long.

use alloc::vec;
use alloc::vec::Vec;

use super::quota::Shape;
use crate::member::Member;
use crate::mix::mix2;

/// Owners for each partition, `shape.owners` in a row, as members' places.
///
/// Partition by partition, each zone gets the floor or the ceiling of its remaining total over the remaining
/// partitions, and within a zone the members are taken whose next turn is most overdue. Turns come at hashed times, one in
/// each of the equal stretches that a member's quota divides the ring into, so that members of one weight don't come
/// together time and again: the neighbours of a node differ from partition to partition, and its load spreads over many
/// when it dies.
/// Since a member that must be in all the remaining partitions is always taken, every bound stays satisfiable to the
/// end and every quota is met exactly, without any search.
///
/// Former owners of a partition come first, so that much stays where it is, though not as much as could.
///
/// A row names its zones in order. Of a zone's members those that were chosen stand by their claims, the most overdue first; by id, where
/// all of them were taken. Who stands behind the ranks that are balanced later stays in this order, so it is told here and left to no
/// library.
pub(super) fn place(shape: &Shape, members: &[Member], quotas: &[usize], former: &[Vec<u16>]) -> Vec<u16> {
    let zone_members = shape.members_of_zones();
    let mut remaining = quotas.to_vec();
    let mut zone_remaining: Vec<usize> =
        zone_members.iter().map(|list| list.iter().map(|&m| quotas[m]).sum()).collect();
    let mut urgency: Vec<u64> =
        (0..quotas.len()).map(|m| schedule(quotas[m], quotas[m], members[m].id.0)).collect();

    let mut table = Vec::with_capacity(shape.partitions * shape.owners);
    let mut extras: Vec<(usize, u64, usize)> = Vec::new();
    let mut candidates: Vec<(Claim, u64, usize)> = Vec::new();
    let mut held_in = vec![usize::MAX; quotas.len()];
    for partition in 0..shape.partitions {
        let left = shape.partitions - partition;
        for &m in former.get(partition).into_iter().flatten() {
            held_in[usize::from(m)] = partition;
        }
        let mut counts: Vec<usize> = zone_remaining.iter().map(|&total| divided(total, left).0).collect();
        let spare = shape.owners - counts.iter().sum::<usize>();
        if spare > 0 {
            extras.clear();
            extras.extend(
                zone_remaining
                    .iter()
                    .enumerate()
                    .map(|(zone, &total)| (divided(total, left).1, zone))
                    .filter(|&(rest, _)| rest > 0)
                    .map(|(rest, zone)| (rest, mix2(zone as u64, partition as u64), zone)),
            );
            extras.select_nth_unstable_by(spare - 1, |a, b| b.cmp(a));
            for &(_, _, zone) in &extras[..spare] {
                counts[zone] += 1;
            }
        }
        for (zone, &count) in counts.iter().enumerate() {
            if count == 0 {
                continue;
            }
            candidates.clear();
            for &m in &zone_members[zone] {
                let claim = match remaining[m] {
                    0 => continue,
                    all if all == left => Claim::Must,
                    _ if held_in[m] == partition => Claim::Holds,
                    _ => Claim::Waits,
                };
                candidates.push((claim, urgency[m], m));
            }
            if candidates.len() > count {
                candidates.select_nth_unstable_by(count - 1, |a, b| b.cmp(a));
                candidates.truncate(count);
                // The selection leaves them in an order of its own. No two are equal.
                candidates.sort_unstable_by(|a, b| b.cmp(a));
            }
            for &(_, _, m) in &candidates {
                table.push(u16::try_from(m).expect("members are counted by u16"));
                remaining[m] -= 1;
                urgency[m] = schedule(remaining[m], quotas[m], members[m].id.0);
            }
            zone_remaining[zone] -= count;
        }
    }
    assert!(remaining.iter().all(|&r| r == 0), "every quota is met");
    table
}

/// Quotient and remainder. Where zones are many, most have less left than there are partitions, and a division takes long.
fn divided(total: usize, left: usize) -> (usize, usize) {
    if total < left { (0, total) } else { (total / left, total % left) }
}

/// How strong a member's claim to a partition is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Claim {
    Waits,
    /// It owned this one before.
    Holds,
    /// It has to own all that are left.
    Must,
}

/// How urgently a member waits for its next partition: when it is due, at a hashed time within the next of its `quota`
/// equal stretches, counted from the end.
fn schedule(remaining: usize, quota: usize, id: u64) -> u64 {
    if remaining == 0 {
        return 0;
    }
    // 2^32 a stretch; both are at most 2^14.
    (((remaining as u64) << 32) - (mix2(id, remaining as u64) >> 32)) / quota as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::quota;
    use crate::member::Zone;
    use crate::node::NodeId;

    /// What a search that took too long is replaced by.
    #[test]
    fn without_search_much_stays_with_former_owners() {
        let member = |i: u32| Member {
            id: NodeId(u64::from(i)),
            weight: 1 + i % 4,
            zone: Zone::new(["a", "b", "c", "d"][i as usize % 3]).unwrap(),
        };
        let mut members: Vec<Member> = (0..12).map(member).collect();
        let mut former = Vec::new();
        for round in 0..4 {
            let shape = Shape::new(5, 256, &members);
            let quotas = quota::quotas(&shape, &vec![0; members.len()]);
            let table = place(&shape, &members, &quotas, &former);
            let rows: Vec<Vec<u16>> = table.chunks_exact(5).map(<[u16]>::to_vec).collect();
            let mut owned = vec![0; members.len()];
            for &m in &table {
                owned[usize::from(m)] += 1;
            }
            assert_eq!(owned, quotas);
            let mut zones = vec![0; shape.zones.len()];
            for row in &rows {
                zones.fill(0);
                row.iter().for_each(|&m| zones[shape.zone_of[usize::from(m)]] += 1);
                assert!(zones.iter().zip(&shape.zones).all(|(&n, z)| (z.least..=z.most).contains(&n)));
                assert!((1..5).all(|at| !row[..at].contains(&row[at])), "distinct");
            }
            if round > 0 {
                let stays =
                    |(row, former): (&Vec<u16>, &Vec<u16>)| row.iter().filter(|m| former.contains(m)).count();
                let stay: usize = rows.iter().zip(&former).map(stays).sum();
                assert!(stay >= 256 * 5 * 4 / 5, "round {round}: {stay}");
            }
            former = rows;
            members[round * 3].weight += 2;
        }
    }
}
