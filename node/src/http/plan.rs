//! What a commit would bring, for an operator to look at before it.

use super::Server;
use super::api::json;
use super::keyspaces;
use super::router::{Answer, Refusal};
use gramme_ring::{Change, Layout, Membership, NodeId};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize)]
struct Plan {
    /// What to commit; null if there is nothing, or not now.
    hash: Option<String>,
    /// Then why not.
    why: Option<String>,
    /// Versions of the layout now and afterwards.
    from: u64,
    to: Option<u64>,
    /// Partitions that are copied, once for each new owner, and how many would be at the least.
    partitions_copied: u32,
    partitions_copied_at_least: u32,
    /// What that comes to, judging by this node's share of the data; null if it has none.
    bytes_copied: Option<u64>,
    /// Slots of which nodes to be removed hold most copies: what only they have is lost.
    slots_at_risk: u32,
    staged: Vec<Staged>,
    nodes: Vec<Balance>,
    moves: Vec<Move>,
}

/// One staged change.
#[derive(Serialize)]
struct Staged {
    /// `join`, `change`, `leave`, `remove`, `keyspace`, `replicas` or `setting`.
    change: &'static str,
    /// Its subject: a node, or the name of a setting.
    of: Option<String>,
    weight: Option<u32>,
    zone: Option<String>,
    /// A keyspace's rules in words, or the value of another setting or of N.
    value: Option<String>,
}

/// What a node owns now and afterwards, in partitions.
#[derive(Serialize)]
struct Balance {
    node: String,
    zone: String,
    weight_before: Option<u32>,
    weight_after: Option<u32>,
    partitions_before: u32,
    partitions_after: u32,
    /// What it would own afterwards at the best balance that weights and zones allow.
    fair_share: u32,
    first_before: u32,
    first_after: u32,
    gains: u32,
    gives: u32,
}

/// Copies that go from one owner to another.
#[derive(Serialize)]
struct Move {
    /// Who owns it no more; null: one copy more than before.
    from: Option<String>,
    /// Who owns it then; null: one copy fewer.
    to: Option<String>,
    partitions: u32,
    /// Runs of slots, `first-last`.
    slots: Vec<String>,
}

pub(super) fn plan(server: &Server) -> Result<Answer, Refusal> {
    let stored = server.handle.stored_bytes();
    let me = server.handle.node();
    server.handle.engine(|engine| json(&of(engine.membership(), me, stored)))
}

fn of(ring: &Membership, me: NodeId, stored: u64) -> Plan {
    let staged: Vec<Staged> = ring.staged().into_iter().map(|change| describe(ring, change)).collect();
    let mut plan = Plan {
        hash: None,
        why: None,
        from: ring.layout().map_or(0, |layout| layout.version().0),
        to: None,
        partitions_copied: 0,
        partitions_copied_at_least: 0,
        bytes_copied: None,
        slots_at_risk: 0,
        staged,
        nodes: Vec::new(),
        moves: Vec::new(),
    };
    let proposal = match ring.propose() {
        Ok(proposal) => proposal,
        Err(error) => {
            plan.why = Some(error.to_string());
            return plan;
        }
    };
    let Some(before) = ring.layout() else {
        plan.why = Some("no cluster is known here yet".to_owned());
        return plan;
    };
    let after = proposal.layout();
    let difference = before.plan(after);
    let each = 16384 / before.partitions().max(after.partitions());
    plan.hash = Some(format!("{:016x}", proposal.hash()));
    plan.to = Some(after.version().0);
    plan.partitions_copied = difference.moved_slots() / each;
    plan.partitions_copied_at_least = difference.least_moved_slots() / each;
    let mine = before.partitions_of(me).len() as u64 * u64::from(16384 / before.partitions());
    plan.bytes_copied =
        (u64::from(difference.moved_slots()) * stored).checked_div(mine).filter(|_| before.is_member(me));
    plan.slots_at_risk = at_risk(ring, before);
    let balance = |layout: &Layout| -> BTreeMap<NodeId, gramme_ring::Load> {
        layout.balance().into_iter().map(|load| (load.node, load)).collect()
    };
    let (now, then) = (balance(before), balance(after));
    plan.nodes = difference
        .nodes()
        .into_iter()
        .map(|node| {
            let (now, then) = (now.get(&node.node), then.get(&node.node));
            let member = after.member(node.node).or_else(|| before.member(node.node));
            Balance {
                node: node.node.to_string(),
                zone: member.map(|m| m.zone.as_str().to_owned()).unwrap_or_default(),
                weight_before: node.weight_before,
                weight_after: node.weight_after,
                partitions_before: now.map_or(0, |load| load.owned),
                partitions_after: then.map_or(0, |load| load.owned),
                fair_share: then.map_or(0, |load| load.quota),
                first_before: now.map_or(0, |load| load.first),
                first_after: then.map_or(0, |load| load.first),
                gains: node.gained / each,
                gives: node.lost / each,
            }
        })
        .collect();
    plan.moves = moves(&difference, each);
    plan
}

/// Who gives and who gets.
type Pair = (Option<NodeId>, Option<NodeId>);

/// Pairs who gets a partition with who gives it away.
fn moves(plan: &gramme_ring::Plan<'_>, each: u32) -> Vec<Move> {
    let mut parties: BTreeMap<u16, (u16, Vec<NodeId>, Vec<NodeId>)> = BTreeMap::new();
    for loss in plan.losses() {
        let entry = parties.entry(loss.slots.start).or_default();
        entry.0 = loss.slots.end - 1;
        entry.1.push(loss.node);
    }
    for gain in plan.gains() {
        let entry = parties.entry(gain.slots.start).or_default();
        entry.0 = gain.slots.end - 1;
        entry.2.push(gain.node);
    }
    let mut pairs: BTreeMap<Pair, Vec<(u16, u16)>> = BTreeMap::new();
    for (first, (last, gives, gets)) in parties {
        for at in 0..gives.len().max(gets.len()) {
            let runs = pairs.entry((gives.get(at).copied(), gets.get(at).copied())).or_default();
            match runs.last_mut() {
                Some(run) if run.1 + 1 == first => run.1 = last,
                _ => runs.push((first, last)),
            }
        }
    }
    let name = |node: Option<NodeId>| node.map(|id| id.to_string());
    pairs
        .into_iter()
        .map(|((from, to), runs)| Move {
            from: name(from),
            to: name(to),
            partitions: runs.iter().map(|(first, last)| u32::from(last - first + 1)).sum::<u32>() / each,
            slots: runs.iter().map(|(first, last)| format!("{first}-{last}")).collect(),
        })
        .collect()
}

/// Slots of which most owners are to be removed.
fn at_risk(ring: &Membership, before: &Layout) -> u32 {
    let staged: Vec<NodeId> = ring
        .staged()
        .into_iter()
        .filter_map(|change| match change {
            Change::Remove(id) => Some(id),
            _ => None,
        })
        .collect();
    let gone = |id: &NodeId| staged.contains(id) || ring.is_removed(*id);
    let doomed = before.partition_count().partitions().filter(|partition| {
        let owners = before.owners(*partition);
        let total = owners.clone().count();
        owners.filter(gone).count() > total / 2
    });
    doomed.map(|partition| u32::from(partition.slots().end - partition.slots().start)).sum()
}

fn describe(ring: &Membership, change: Change) -> Staged {
    let empty = Staged { change: "setting", of: None, weight: None, zone: None, value: None };
    match change {
        Change::Member(member) => Staged {
            change: if ring.layout().is_some_and(|layout| layout.is_member(member.id)) {
                "change"
            } else {
                "join"
            },
            of: Some(member.id.to_string()),
            weight: Some(member.weight),
            zone: Some(member.zone.as_str().to_owned()),
            ..empty
        },
        Change::Leave(id) => Staged { change: "leave", of: Some(id.to_string()), ..empty },
        Change::Remove(id) => Staged { change: "remove", of: Some(id.to_string()), ..empty },
        Change::Replicas(n) => Staged { change: "replicas", value: Some(n.to_string()), ..empty },
        Change::Partitions(q) => Staged { change: "partitions", value: Some(q.to_string()), ..empty },
        ref keyspace if keyspaces::words(keyspace).is_some() => {
            Staged { change: "keyspace", value: keyspaces::words(keyspace), ..empty }
        }
        Change::Setting { name, value } => Staged {
            of: Some(name),
            value: value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
            ..empty
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gramme_ring::{ClusterId, Member};

    fn cluster(nodes: u64) -> Membership {
        let members: Vec<Member> = (1..=nodes).map(|id| Member::new(NodeId(id))).collect();
        Membership::found(ClusterId(1), 3, 256, &members).expect("it can be founded")
    }

    #[test]
    fn a_join_moves_a_fair_share_to_the_new_node_only() {
        let mut ring = cluster(3);
        ring.stage(NodeId(1), Change::Member(Member::new(NodeId(4)))).expect("it can be staged");
        let plan = of(&ring, NodeId(1), 16384);
        assert_eq!((plan.from, plan.to), (1, Some(2)));
        assert_eq!((plan.partitions_copied, plan.partitions_copied_at_least), (192, 192));
        // All three have all of 16384 bytes; a quarter of three copies moves.
        assert_eq!(plan.bytes_copied, Some(3 * 16384 / 4));
        assert_eq!(plan.slots_at_risk, 0);
        assert_eq!(plan.nodes.len(), 4);
        assert!(plan.nodes.iter().all(|n| n.partitions_after == 192 && n.fair_share == 192));
        assert_eq!(plan.moves.len(), 3);
        assert!(plan.moves.iter().all(|m| m.to.as_deref() == Some("0000000000000004") && m.from.is_some()));
        assert_eq!(plan.moves.iter().map(|m| m.partitions).sum::<u32>(), 192);
        let hash = ring.propose().expect("there is something").hash();
        assert_eq!(plan.hash, Some(format!("{hash:016x}")));
    }

    #[test]
    fn removing_most_owners_is_said_to_be_a_risk() {
        let mut ring = cluster(4);
        ring.stage(NodeId(1), Change::Remove(NodeId(4))).expect("it is a member");
        assert_eq!(of(&ring, NodeId(1), 0).slots_at_risk, 0, "of each slot two copies are left");
        ring.stage(NodeId(1), Change::Remove(NodeId(3))).expect("it is a member");
        let plan = of(&ring, NodeId(1), 0);
        // With four nodes each pair shares half of the slots.
        assert!((7000..9500).contains(&plan.slots_at_risk), "{}", plan.slots_at_risk);
        assert_eq!(plan.staged.iter().map(|s| s.change).collect::<Vec<_>>(), ["remove", "remove"]);
    }

    #[test]
    fn with_nothing_staged_there_is_nothing_to_commit() {
        let plan = of(&cluster(1), NodeId(1), 0);
        assert_eq!((plan.hash, plan.why.as_deref()), (None, Some("nothing is staged")));
    }
}
