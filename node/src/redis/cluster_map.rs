//! The ring as clients of a Redis cluster are told of it, made anew from the engine whenever one asks.
//!
//! A slot's first *coordinator* is its master to them and the others are its replicas: these nodes serve the slot's keys
//! without forwarding. They are alive, as this node sees it; a node that is not is named for no slot.

use crate::handle::Handle;
use gramme_ring::NodeId;

/// A member with an address that clients can be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MapNode {
    pub(super) id: NodeId,
    /// A name or an IP address, without brackets.
    pub(super) host: String,
    /// Of its cluster port.
    pub(super) port: u16,
    /// At which other members reach it.
    pub(super) peer_port: u16,
    pub(super) alive: bool,
}

impl MapNode {
    /// Redis' form of a node's name: 40 hexadecimal digits, the first of which tell nodes apart.
    pub(super) fn name(&self) -> String {
        name(self.id)
    }
}

pub(super) fn name(id: NodeId) -> String {
    format!("{:0<40}", id.to_string())
}

/// Neighbouring slots with the same coordinators in the same order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u16,
    pub(super) last: u16,
    /// At least one, the preferred one first: indices of the map's nodes.
    pub(super) coordinators: Vec<usize>,
}

pub(super) struct ClusterMap {
    /// Of the ring.
    pub(super) version: u64,
    /// By id.
    pub(super) nodes: Vec<MapNode>,
    /// In order. Slots that nobody serves are left out.
    pub(super) runs: Vec<Run>,
    /// Enough nodes are alive for the default R and W.
    pub(super) serves: bool,
}

impl ClusterMap {
    pub(super) fn of(handle: &Handle) -> ClusterMap {
        let members = handle.members();
        handle.engine(|engine| {
            let layout = engine.reading();
            let nodes: Vec<MapNode> = members
                .iter()
                .filter_map(|member| {
                    let (host, port) = split(&member.addresses.cluster_redis)?;
                    let (_, peer_port) = split(&member.addresses.peer)?;
                    let (host, alive) = (host.to_owned(), false);
                    Some(MapNode { id: member.id, host, port, peer_port, alive })
                })
                .collect();
            let mut map = ClusterMap {
                version: layout.map_or(0, |layout| layout.version().0),
                nodes,
                runs: Vec::new(),
                serves: engine.can_meet_quorums(),
            };
            for (id, _, alive) in engine.preference(&[]) {
                if let Some(at) = map.index(id) {
                    map.nodes[at].alive = alive;
                }
            }
            for partition in layout.into_iter().flat_map(|layout| layout.partition_count().partitions()) {
                let slots = partition.slots();
                let coordinators: Vec<usize> = engine
                    .coordinators(partition.first_slot())
                    .into_iter()
                    .filter_map(|id| map.index(id))
                    .collect();
                match map.runs.last_mut() {
                    Some(run) if run.coordinators == coordinators && run.last + 1 == slots.start => {
                        run.last = slots.end - 1;
                    }
                    _ if coordinators.is_empty() => {}
                    _ => map.runs.push(Run { first: slots.start, last: slots.end - 1, coordinators }),
                }
            }
            map
        })
    }

    fn index(&self, id: NodeId) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == id)
    }

    /// The runs of which a node is the master, as first and last slot.
    pub(super) fn mastered(&self, node: usize) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for run in self.runs.iter().filter(|run| run.coordinators[0] == node) {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == run.first => *last = run.last,
                _ => ranges.push((run.first, run.last)),
            }
        }
        ranges
    }

    /// The runs for `CLUSTER SLOTS`. Many clients give a node the role in which they first see it, and send some commands
    /// to masters only. Here every node is the master of some slots and a replica of others; so each is first named
    /// alone, for one slot of which it is the master.
    pub(super) fn introduced(&self) -> Vec<Run> {
        let alone: Vec<Run> = (0..self.nodes.len())
            .filter_map(|node| self.runs.iter().find(|run| run.coordinators[0] == node))
            .map(|run| Run { first: run.first, last: run.first, coordinators: vec![run.coordinators[0]] })
            .collect();
        let rest = self.runs.iter().filter_map(|run| {
            let taken = alone.iter().any(|one| one.first == run.first);
            let first = run.first + u16::from(taken);
            (first <= run.last).then(|| Run { first, ..run.clone() })
        });
        alone.iter().cloned().chain(rest).collect()
    }
}

/// Where the client of a key should go instead of here: to its first coordinator, if this node is none.
pub(super) fn elsewhere(handle: &Handle, key: &[u8]) -> Option<(u16, String)> {
    let slot = gramme_ring::Slot::of(key);
    let first = handle.engine(|engine| {
        let layout = engine.reading()?;
        if layout.is_owner(layout.partition_of(slot), handle.node()) {
            return None;
        }
        let coordinators = engine.coordinators(slot);
        coordinators.first().copied().filter(|_| !coordinators.contains(&handle.node()))
    })?;
    let members = handle.members();
    let member = members.iter().find(|member| member.id == first)?;
    let (host, port) = split(&member.addresses.cluster_redis)?;
    Some((slot.index(), format!("{host}:{port}")))
}

/// Host and port of an address. Redis writes IPv6 addresses without brackets; clients split at the last colon.
fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some((host, port.parse().ok()?)).filter(|(host, _)| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(split("127.0.0.1:7382"), Some(("127.0.0.1", 7382)));
        assert_eq!(split("[::1]:7382"), Some(("::1", 7382)));
        assert_eq!(split("node.example:1"), Some(("node.example", 1)));
        for wrong in ["", "host", "host:", ":1", "host:x", "host:65536"] {
            assert_eq!(split(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_node_is_introduced_as_a_master_and_no_slot_is_lost_or_named_twice() {
        let node = |n: u16| MapNode {
            id: NodeId(n.into()),
            host: "h".to_owned(),
            port: n,
            peer_port: 0,
            alive: true,
        };
        let run =
            |first, last, coordinators: &[usize]| Run { first, last, coordinators: coordinators.to_vec() };
        let map = ClusterMap {
            version: 1,
            nodes: [0, 1, 2].map(node).to_vec(),
            // The third is the master of one slot, the first of two runs.
            runs: vec![run(0, 9, &[0, 1]), run(10, 10, &[2, 0]), run(11, 19, &[0, 2]), run(20, 29, &[1, 2])],
            serves: true,
        };
        assert_eq!(
            map.introduced(),
            [
                run(0, 0, &[0]),
                run(20, 20, &[1]),
                run(10, 10, &[2]),
                run(1, 9, &[0, 1]),
                run(11, 19, &[0, 2]),
                run(21, 29, &[1, 2])
            ]
        );
        assert_eq!(map.mastered(0), [(0, 9), (11, 19)]);
        assert_eq!(map.mastered(2), [(10, 10)]);
    }
}
