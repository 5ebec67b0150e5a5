//! What changes of the membership come to: the bytes of the state, and what gossip sends of it, as encoded.

use gramme_ring::gossip::{Gossip, Target};
use gramme_ring::{Change, ClusterId, Member, Membership, NodeId};
use std::error::Error;

use super::random;

const PARTITIONS: u32 = 16_384;

/// Nodes that all know the same, and how many bytes they have sent since.
struct Cluster {
    ids: Vec<NodeId>,
    nodes: Vec<Gossip>,
    sent: usize,
}

fn founded(ids: &[NodeId]) -> Result<Membership, Box<dyn Error>> {
    let members: Vec<Member> = ids.iter().map(|&id| Member::new(id)).collect();
    Ok(Membership::found(ClusterId(1), 3, PARTITIONS, &members)?)
}

/// 64 random bits, as the server's are.
fn ids(count: usize) -> Vec<NodeId> {
    let mut state = 6;
    let mut ids: Vec<NodeId> = (0..count).map(|_| NodeId(random(&mut state))).collect();
    ids.sort_unstable();
    ids
}

impl Cluster {
    fn new(count: usize) -> Result<Cluster, Box<dyn Error>> {
        let ids = ids(count);
        let membership = founded(&ids)?;
        let node = |(n, id): (u64, &NodeId)| {
            let mut node = Gossip::new(*id, 1, n)?;
            *node.membership_mut() = membership.clone();
            Ok::<_, Box<dyn Error>>(node)
        };
        let nodes = (0..).zip(&ids).map(node).collect::<Result<_, _>>()?;
        let mut cluster = Cluster { ids, nodes, sent: 0 };
        while !cluster.agree() {
            cluster.round()?;
        }
        cluster.sent = 0;
        Ok(cluster)
    }

    fn at(&self, id: NodeId) -> Result<usize, Box<dyn Error>> {
        self.ids.binary_search(&id).map_err(|_| "a stranger".into())
    }

    fn agree(&self) -> bool {
        self.nodes.windows(2).all(|pair| pair[0].summary() == pair[1].summary())
    }

    /// A tick of each node, and all that follows from it.
    fn round(&mut self) -> Result<(), Box<dyn Error>> {
        for from in 0..self.nodes.len() {
            for (target, message) in self.nodes[from].tick(0) {
                let Target::Node(to) = target else { return Err("there are no seeds".into()) };
                let (mut from, mut to, mut message) = (from, self.at(to)?, Some(message));
                while let Some(told) = message {
                    self.sent += postcard::to_allocvec(&told)?.len();
                    message = self.nodes[to].receive(self.ids[from], told)?.reply;
                    (from, to) = (to, from);
                }
            }
        }
        Ok(())
    }

    /// Rounds until all know the same, each having declared at once what it could, and bytes sent by each node.
    fn settle(&mut self) -> Result<(usize, usize), Box<dyn Error>> {
        let (before, mut rounds) = (self.sent, 0);
        while !self.agree() || self.nodes[0].membership().transition().is_some() {
            self.round()?;
            rounds += 1;
            for (&id, node) in self.ids.iter().zip(&mut self.nodes) {
                let membership = node.membership_mut();
                if let Some(phase) = membership.transition().and_then(|transition| transition.due(id)) {
                    membership.advance(id, phase)?;
                }
                membership.settle();
            }
        }
        Ok((rounds, (self.sent - before) / self.nodes.len()))
    }
}

pub(super) fn show() -> Result<(), Box<dyn Error>> {
    let thousand = ids(1_000);
    let mut membership = founded(&thousand)?;
    let quiet = postcard::to_allocvec(&membership)?.len();
    membership.stage(thousand[0], Change::Member(Member::new(thousand[1]).with_weight(2)))?;
    let hash = membership.propose()?.hash();
    membership.commit(ClusterId(1), hash)?;
    let live = postcard::to_allocvec(&membership)?.len();
    println!();
    println!(
        "a membership of 1000 nodes, Q = {PARTITIONS}: {quiet} bytes, {live} while a transition is live"
    );
    changes(200)
}

/// A change of so many nodes, from being staged to its transition's end.
fn changes(count: usize) -> Result<(), Box<dyn Error>> {
    let mut cluster = Cluster::new(count)?;
    let heavier = Member::new(cluster.ids[5]).with_weight(2);
    let author = cluster.ids[3];
    cluster.nodes[3].membership_mut().stage(author, Change::Member(heavier))?;
    let (rounds, sent) = cluster.settle()?;
    println!("a change that is staged among {count}: {rounds} rounds, {sent} bytes sent by each node");
    let membership = cluster.nodes[3].membership_mut();
    let hash = membership.propose()?.hash();
    membership.commit(ClusterId(1), hash)?;
    let (rounds, sent) = cluster.settle()?;
    println!(
        "its commit and a transition in which nobody has anything to do: {rounds} rounds, {sent} bytes sent by each node"
    );
    Ok(())
}

#[test]
fn a_change_goes_through() -> Result<(), Box<dyn Error>> {
    changes(8)
}
