//! The least that a change can move, by a minimum-cost flow: what layouts are measured against.

use std::collections::VecDeque;

use gramme_ring::{Layout, Zone};

/// The least movement to any layout with the same quotas, by successive shortest paths over the whole network.
pub(crate) fn flow_optimum(before: &Layout, after: &Layout) -> u64 {
    let members = after.members();
    let mut zones: Vec<&Zone> = members.iter().map(|m| &m.zone).collect();
    zones.sort();
    zones.dedup();
    let zone_of: Vec<usize> = members.iter().map(|m| zones.binary_search(&&m.zone).unwrap()).collect();
    let size = |z: usize| zone_of.iter().filter(|&&other| other == z).count();
    let owners = after.owner_count();
    // The flattest spread: no zone holds two fewer than another, but one that has no more nodes.
    let placed = |level: usize| (0..zones.len()).map(|z| size(z).min(level)).sum::<usize>();
    let most = (1..).find(|&level| placed(level) >= owners).unwrap();
    let must = placed(most - 1);

    let q = after.partitions() as usize;
    let (source, sink) = (0, 1);
    let partition_node = |p: usize| 2 + p;
    let zone_node = |p: usize, z: usize| 2 + q + p * zones.len() + z;
    let member_node = |m: usize| 2 + q + q * zones.len() + m;
    let mut network = Network::new(2 + q + q * zones.len() + members.len());
    // A bound from below is an arc so cheap that an optimum fills it.
    const MUST: i64 = -1000;
    for (p, partition) in after.partition_count().partitions().enumerate() {
        network.arc(source, partition_node(p), owners, 0);
        for z in 0..zones.len() {
            let least = size(z).min(most - 1);
            network.arc(partition_node(p), zone_node(p, z), least, MUST);
            network.arc(partition_node(p), zone_node(p, z), size(z).min(most) - least, 0);
        }
        let old = before.partition_of(partition.first_slot());
        for (m, member) in members.iter().enumerate() {
            let cost = i64::from(!before.is_owner(old, member.id));
            network.arc(zone_node(p, zone_of[m]), member_node(m), 1, cost);
        }
    }
    for (m, load) in after.balance().iter().enumerate() {
        network.arc(member_node(m), sink, load.quota as usize, 0);
    }
    let (flow, cost) = network.run(source, sink);
    assert_eq!(flow, owners * q);
    u64::try_from(cost - MUST * (must * q) as i64).unwrap()
}

struct Network {
    /// To, capacity left, cost; the reverse arc is the neighbour (index ^ 1).
    arcs: Vec<(usize, usize, i64)>,
    from: Vec<Vec<usize>>,
}

impl Network {
    fn new(nodes: usize) -> Self {
        Network { arcs: Vec::new(), from: vec![Vec::new(); nodes] }
    }

    fn arc(&mut self, a: usize, b: usize, capacity: usize, cost: i64) {
        self.from[a].push(self.arcs.len());
        self.arcs.push((b, capacity, cost));
        self.from[b].push(self.arcs.len());
        self.arcs.push((a, 0, -cost));
    }

    fn run(&mut self, source: usize, sink: usize) -> (usize, i64) {
        let (mut flow, mut cost) = (0, 0);
        loop {
            let mut distance = vec![i64::MAX; self.from.len()];
            let mut by = vec![usize::MAX; self.from.len()];
            let mut queued = vec![false; self.from.len()];
            let mut queue = VecDeque::from([source]);
            distance[source] = 0;
            while let Some(at) = queue.pop_front() {
                queued[at] = false;
                for &i in &self.from[at] {
                    let (to, capacity, step) = self.arcs[i];
                    if capacity > 0 && distance[at] + step < distance[to] {
                        distance[to] = distance[at] + step;
                        by[to] = i;
                        if !queued[to] {
                            queued[to] = true;
                            queue.push_back(to);
                        }
                    }
                }
            }
            if distance[sink] == i64::MAX {
                return (flow, cost);
            }
            let mut at = sink;
            while at != source {
                let i = by[at];
                self.arcs[i].1 -= 1;
                self.arcs[i ^ 1].1 += 1;
                at = self.arcs[i ^ 1].0;
            }
            flow += 1;
            cost += distance[sink];
        }
    }
}
