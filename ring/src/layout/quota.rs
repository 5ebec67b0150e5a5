//! How many partitions each member is to own.

use alloc::collections::BinaryHeap;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::{Ordering, Reverse};

use crate::member::{Member, Zone};

/// How many replicas of one partition a zone may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ZoneBounds {
    pub(super) least: usize,
    pub(super) most: usize,
}

/// What every assignment has to satisfy. Members and zones are named by their places in sorted order.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// Owners of each partition: the replicas asked for, or all members if there are fewer.
    pub(super) owners: usize,
    pub(super) partitions: usize,
    pub(super) weights: Vec<u32>,
    pub(super) zone_of: Vec<usize>,
    pub(super) zones: Vec<ZoneBounds>,
    /// Replicas that the zones hold together if each holds its least.
    pub(super) least: usize,
}

impl Shape {
    pub(super) fn new(replicas: u8, partitions: usize, members: &[Member]) -> Shape {
        let mut names: Vec<&Zone> = members.iter().map(|m| &m.zone).collect();
        names.sort_unstable();
        names.dedup();
        let zone_of: Vec<usize> = members
            .iter()
            .map(|m| names.binary_search(&&m.zone).expect("collected from the members"))
            .collect();
        let mut sizes = vec![0usize; names.len()];
        for &zone in &zone_of {
            sizes[zone] += 1;
        }
        let owners = usize::from(replicas).min(members.len());
        // The flattest spread is a level to which zones are filled, the small ones until they are full: with at least `owners` zones one
        // replica for each. What there is room for beyond that is one less in as many zones.
        let placed = |level| sizes.iter().map(|&size| size.min(level)).sum::<usize>();
        let mut most = owners.div_ceil(sizes.len());
        while placed(most) < owners {
            most += 1;
        }
        let least = most - 1;
        let bounds = |&size: &usize| ZoneBounds { least: size.min(least), most: size.min(most) };
        Shape {
            owners,
            partitions,
            weights: members.iter().map(|m| m.weight).collect(),
            zone_of,
            zones: sizes.iter().map(bounds).collect(),
            least: placed(least),
        }
    }

    pub(super) fn members(&self) -> usize {
        self.weights.len()
    }

    /// The members of each zone.
    pub(super) fn members_of_zones(&self) -> Vec<Vec<usize>> {
        let mut lists = vec![Vec::new(); self.zones.len()];
        for (member, &zone) in self.zone_of.iter().enumerate() {
            lists[zone].push(member);
        }
        lists
    }
}

/// Each member's part of `count` things that are owned once: one at least, and beyond that by weight alone, dealt as [`quotas`] are. Where
/// there are more members than things the heaviest have one each.
pub(crate) fn single_quotas(count: usize, members: &[Member], held: &[usize]) -> Vec<usize> {
    let mut quotas = vec![0usize; members.len()];
    let most_each = if members.len() > count { 1 } else { usize::MAX };
    if members.len() <= count {
        // Whose share is below one has one, and the others share what is left; then another's may be below it.
        let mut open: Vec<usize> = (0..members.len()).collect();
        let mut total = count as u64;
        loop {
            let weight: u64 = open.iter().map(|&m| u64::from(members[m].weight)).sum();
            let (before, mut left) = (open.len(), total);
            open.retain(|&m| {
                // Below 2^56: totals are at most 2^24, weights below 2^32.
                let share =
                    usize::try_from(u64::from(members[m].weight) * total / weight).unwrap_or(usize::MAX);
                quotas[m] = share.max(1);
                left -= u64::from(share == 0);
                share > 0
            });
            total = left;
            if open.len() == before {
                break;
            }
        }
    }
    let claim = |quotas: &[usize], member: usize| {
        let (load, weight) = (quotas[member] as u64 + 1, u64::from(members[member].weight));
        Reverse(Claim { load, weight, moves: held[member] <= quotas[member], member })
    };
    let mut claims: BinaryHeap<_> = (0..members.len()).map(|m| claim(&quotas, m)).collect();
    for _ in quotas.iter().sum()..count {
        let Reverse(Claim { member, .. }) = claims.pop().expect("there is room for all");
        quotas[member] += 1;
        if quotas[member] < most_each {
            claims.push(claim(&quotas, member));
        }
    }
    quotas
}

/// A member's claim to one more partition. The smaller the load per weight it would then carry, the sooner it is served.
struct Claim {
    load: u64,
    weight: u64,
    /// Whether it already holds as many: then serving it moves nothing.
    moves: bool,
    member: usize,
}

impl Ord for Claim {
    fn cmp(&self, other: &Self) -> Ordering {
        // load / weight, compared without division: loads are at most 2^24, weights below 2^32.
        (self.load * other.weight)
            .cmp(&(other.load * self.weight))
            .then(self.moves.cmp(&other.moves))
            .then(self.member.cmp(&other.member))
    }
}

impl PartialOrd for Claim {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Claim {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Claim {}

/// The number of partitions for each member that keeps the highest load per weight as low as the bounds allow.
///
/// Partitions are dealt one by one to the member whose load per weight would be the lowest (D'Hondt's method of
/// apportionment, whose result has the least possible maximum). The constraints - no member twice in a partition, zones
/// between their bounds - are nested families with caps, on which dealing greedily is optimal; and every
/// vector of quotas within them can be realised, since spreading each quota evenly over the partitions
/// satisfies every bound of every partition and the constraint matrix is totally unimodular.
/// Among equal claims members that already hold as many come first, so that rounding moves no data.
pub(super) fn quotas(shape: &Shape, held: &[usize]) -> Vec<usize> {
    let mut quotas = vec![0usize; shape.members()];
    let mut zone_totals = vec![0usize; shape.zones.len()];
    let claim = |quotas: &[usize], member: usize| {
        Reverse(Claim {
            load: quotas[member] as u64 + 1,
            weight: u64::from(shape.weights[member]),
            moves: held[member] <= quotas[member],
            member,
        })
    };

    let claims = |quotas: &[usize], members: &[usize]| -> BinaryHeap<_> {
        let open = members.iter().filter(|&&m| quotas[m] < shape.partitions);
        open.map(|&m| claim(quotas, m)).collect()
    };

    // First what each zone must hold.
    for (zone, members) in shape.members_of_zones().into_iter().enumerate() {
        let must = shape.zones[zone].least * shape.partitions;
        serve_below_level(&members, shape, must, &mut quotas);
        zone_totals[zone] = members.iter().map(|&m| quotas[m]).sum();
        let mut claims = claims(&quotas, &members);
        while zone_totals[zone] < must {
            let Reverse(Claim { member, .. }) =
                claims.pop().expect("a zone has a member for each it must hold");
            quotas[member] += 1;
            zone_totals[zone] += 1;
            if quotas[member] < shape.partitions {
                claims.push(claim(&quotas, member));
            }
        }
    }

    // Then the rest, up to what each may hold.
    let mut level = quotas.clone();
    let all: Vec<usize> = (0..shape.members()).collect();
    serve_below_level(&all, shape, shape.owners * shape.partitions, &mut level);
    let mut level_totals = vec![0; shape.zones.len()];
    for (&zone, &quota) in shape.zone_of.iter().zip(&level) {
        level_totals[zone] += quota;
    }
    let fits = |(&total, bounds): (&usize, &ZoneBounds)| total <= bounds.most * shape.partitions;
    if level_totals.iter().sum::<usize>() <= shape.owners * shape.partitions
        && level_totals.iter().zip(&shape.zones).all(fits)
    {
        (quotas, zone_totals) = (level, level_totals);
    }
    let mut left = shape.owners * shape.partitions - zone_totals.iter().sum::<usize>();
    let mut claims = claims(&quotas, &all);
    while left > 0 {
        let Reverse(Claim { member, .. }) = claims.pop().expect("zones have room for all replicas together");
        let zone = shape.zone_of[member];
        if zone_totals[zone] == shape.zones[zone].most * shape.partitions {
            continue;
        }
        quotas[member] += 1;
        zone_totals[zone] += 1;
        left -= 1;
        if quotas[member] < shape.partitions {
            claims.push(claim(&quotas, member));
        }
    }
    quotas
}

/// Serves at once all claims of these members up to a load per weight at which no more than `total` are served in all,
/// nearly as many as that.
fn serve_below_level(members: &[usize], shape: &Shape, total: usize, quotas: &mut [usize]) {
    let mut open = members.to_vec();
    let mut total = total as u64;
    while !open.is_empty() {
        // At this level the members would share out `total` exactly, if they could own parts of partitions.
        let weight: u64 = open.iter().map(|&m| u64::from(shape.weights[m])).sum();
        let before = open.len();
        let mut left = total;
        open.retain(|&m| {
            // Below 2^56: totals are at most 2^24, weights below 2^32.
            let load = usize::try_from(u64::from(shape.weights[m]) * total / weight).unwrap_or(usize::MAX);
            let capped = load >= shape.partitions;
            quotas[m] = quotas[m].max(load.min(shape.partitions));
            if capped {
                left = left.saturating_sub(shape.partitions as u64);
            }
            !capped
        });
        total = left;
        // Who is full leaves more to the others, at a higher level.
        if open.len() == before {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::NodeId;

    fn members(list: &[(u32, &str)]) -> Vec<Member> {
        list.iter()
            .enumerate()
            .map(|(i, &(weight, zone))| Member {
                id: NodeId(i as u64),
                weight,
                zone: Zone::new(zone).unwrap(),
            })
            .collect()
    }

    fn quotas_of(replicas: u8, partitions: usize, list: &[(u32, &str)]) -> Vec<usize> {
        let members = members(list);
        quotas(&Shape::new(replicas, partitions, &members), &vec![0; members.len()])
    }

    #[test]
    fn proportional_to_weights() {
        assert_eq!(quotas_of(1, 128, &[(1, ""), (2, ""), (5, "")]), [16, 32, 80]);
        assert_eq!(quotas_of(2, 16, &[(1, ""), (1, ""), (1, ""), (1, "")]), [8, 8, 8, 8]);
    }

    #[test]
    fn never_more_than_every_partition_once() {
        assert_eq!(quotas_of(2, 16, &[(1, ""), (1, ""), (1000, "")]), [8, 8, 16]);
        assert_eq!(quotas_of(3, 16, &[(1, ""), (u32::MAX, "")]), [16, 16]);
    }

    #[test]
    fn enough_zones_hold_at_most_one_replica_each() {
        assert_eq!(quotas_of(2, 12, &[(1, "a"), (1, "b"), (1, "c"), (1, "c")]), [6, 6, 6, 6]);
        // Zone c would get 16 by weight, but can hold each partition only once.
        assert_eq!(quotas_of(2, 12, &[(1, "a"), (1, "b"), (2, "c"), (2, "c")]), [6, 6, 6, 6]);
        // The heavy ones are full, or nearly: a second partition would weigh more on the light one.
        assert_eq!(quotas_of(2, 12, &[(9, "a"), (9, "b"), (1, "c")]), [12, 11, 1]);
    }

    #[test]
    fn too_few_zones_each_hold_one() {
        // One node in zone a: a copy of everything is its share, whatever its weight.
        assert_eq!(quotas_of(3, 8, &[(1, "a"), (4, "b"), (4, "b"), (4, "b"), (4, "b")]), [8, 4, 4, 4, 4]);
        // Five replicas over three zones: 2, 2, 1, so that any zone may die and a majority is left.
        let shape = Shape::new(
            5,
            8,
            &members(&[(1, "a"), (1, "a"), (1, "a"), (1, "b"), (1, "b"), (1, "b"), (1, "c"), (1, "c")]),
        );
        assert!(shape.zones.iter().all(|z| (z.least, z.most) == (1, 2)));
        // A zone too small for its part leaves it to the others.
        let shape = Shape::new(4, 8, &members(&[(1, "a"), (1, "b"), (1, "b"), (1, "b")]));
        assert_eq!(shape.zones.iter().map(|z| z.most).collect::<Vec<_>>(), [1, 3]);
        // And the others share it out: 1, and 3, 2 and 2 in any order.
        let sizes = [(1, "a"), (4, "b"), (4, "c"), (4, "d")];
        let list: Vec<_> = sizes.iter().flat_map(|&(size, zone)| vec![(1, zone); size]).collect();
        let shape = Shape::new(8, 8, &members(&list));
        let bounds: Vec<_> = shape.zones.iter().map(|z| (z.least, z.most)).collect();
        assert_eq!((bounds, shape.least), (vec![(1, 1), (2, 3), (2, 3), (2, 3)], 7));
    }

    #[test]
    fn rounding_favours_those_that_hold() {
        let members = members(&[(1, ""), (1, ""), (1, "")]);
        let shape = Shape::new(1, 4, &members);
        assert_eq!(quotas(&shape, &[0, 0, 2]), [1, 1, 2]);
        assert_eq!(quotas(&shape, &[1, 2, 1]), [1, 2, 1]);
    }
}
