//! A fourth node joins a cluster of three. It asks; one of the three looks at the plan and commits; gossip carries the
//! commit, and every node goes the four steps of the transition on its own, whatever it hears when.
//!
//! `cargo run -p gramme-ring --example join`. Every fifth message is lost. It fails if a partition is ever without N
//! copies, if anybody ever reads by an owner without one, or if the nodes don't know the same in the end.

use std::collections::{BTreeSet, VecDeque};
use std::error::Error;

use gramme_ring::gossip::{Gossip, Message, Target};
use gramme_ring::{Change, ClusterId, Member, Membership, NodeId, Partition, Phase, Slot};

const CLUSTER: ClusterId = ClusterId(7);
const N: u8 = 3;
const Q: u32 = 64;
/// A quorum of writes: of N - W + 1 owners at least one has heard of each write.
const W: u8 = 2;

struct Node {
    id: NodeId,
    gossip: Gossip,
    /// Of which partitions it has everything. A real one has the data.
    copies: BTreeSet<Partition>,
}

struct Cluster {
    nodes: Vec<Node>,
    /// From, to, message.
    under_way: VecDeque<(usize, usize, Message)>,
    sent: usize,
}

impl Cluster {
    /// Three nodes that know one another and have what they own, and a fourth that knows the address of the first.
    fn new() -> Result<Cluster, Box<dyn Error>> {
        let members = [1, 2, 3].map(|id| Member::new(NodeId(id)));
        let founded = Membership::found(CLUSTER, N, Q, &members)?;
        let node = |id| {
            let gossip = Gossip::new(NodeId(id), 1, id)?;
            let mut node = Node { id: NodeId(id), gossip, copies: BTreeSet::new() };
            if let Some(layout) = founded.layout().filter(|layout| layout.is_member(node.id)) {
                *node.gossip.membership_mut() = founded.clone();
                node.copies = layout.partitions_of(node.id).map(|(partition, _rank)| partition).collect();
            }
            Ok::<_, Box<dyn Error>>(node)
        };
        let nodes = [node(1)?, node(2)?, node(3)?, node(4)?].into();
        Ok(Cluster { nodes, under_way: VecDeque::new(), sent: 0 })
    }

    /// What a second brings: everybody tells somebody what it knows, and does what is due.
    fn second(&mut self) -> Result<(), Box<dyn Error>> {
        for n in 0..self.nodes.len() {
            for (target, message) in self.nodes[n].gossip.tick(1) {
                let to = match target {
                    Target::Node(id) => self.place(id),
                    Target::Seed(_first) => 0,
                };
                self.send(n, to, message);
            }
        }
        while let Some((from, to, message)) = self.under_way.pop_front() {
            let sender = self.nodes[from].id;
            let received = self.nodes[to].gossip.receive(sender, message)?;
            if received.layout_changed {
                let layout = self.nodes[to].gossip.membership().layout().expect("it has just heard of it");
                println!("  node {} hears of layout {} from node {}", to + 1, layout.version(), from + 1);
            }
            if let Some(reply) = received.reply {
                self.send(to, from, reply);
            }
            self.check();
        }
        for n in 0..self.nodes.len() {
            self.work(n)?;
            self.check();
        }
        Ok(())
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        self.sent += 1;
        if from != to && !self.sent.is_multiple_of(5) {
            self.under_way.push_back((from, to, message));
        }
    }

    /// A node's part in a transition: does what is due, then declares it.
    fn work(&mut self, n: usize) -> Result<(), Box<dyn Error>> {
        let Node { id, gossip, copies } = &self.nodes[n];
        let mut copies = copies.clone();
        if let Some(transition) = gossip.membership().transition()
            && let Some(phase) = transition.due(*id)
        {
            match phase {
                // From now on it writes to the owners by both layouts, and none of its writes to the old ones alone is
                // still under way. Nobody writes here.
                Phase::Acknowledged => {}
                Phase::Synced => {
                    for gain in
                        transition.from().plan(transition.to()).gains().filter(|gain| gain.node == *id)
                    {
                        let first = Slot::new(gain.slots.start).expect("slots have numbers");
                        let partition = transition.to().partition_of(first);
                        // A real one merges what these have.
                        for source in gain.sources.take(usize::from(N - W + 1)) {
                            assert!(self.nodes[self.place(source)].copies.contains(&partition));
                        }
                        copies.insert(partition);
                    }
                }
                // `Transition::reads_by` answers with the new layout from now on.
                Phase::Moved => {}
            }
            println!("  node {}: {phase:?}, {} partitions", n + 1, copies.len());
            self.nodes[n].gossip.membership_mut().advance(NodeId(n as u64 + 1), phase)?;
        }
        let node = &mut self.nodes[n];
        node.copies = copies;
        node.gossip.membership_mut().settle();
        // No transition, or none any more: what it does not own it need not keep.
        let membership = node.gossip.membership();
        if let (None, Some(layout)) = (membership.transition(), membership.layout()) {
            let before = node.copies.len();
            node.copies.retain(|&partition| layout.is_owner(partition, node.id));
            if node.copies.len() < before {
                println!("  node {}: settled, {} of {before} partitions kept", n + 1, node.copies.len());
            }
        }
        Ok(())
    }

    /// At any moment each partition has N copies, and everybody's reads find them.
    fn check(&self) {
        for node in &self.nodes {
            let membership = node.gossip.membership();
            let reads_by = membership.transition().map(|transition| transition.reads_by(node.id));
            // The newcomer reads by none until it has heard of one.
            let Some(layout) = reads_by.or(membership.layout()) else { continue };
            for partition in layout.partition_count().partitions() {
                let copies = |id: NodeId| self.nodes[self.place(id)].copies.contains(&partition);
                assert_eq!(layout.owners(partition).filter(|&owner| copies(owner)).count(), usize::from(N));
            }
        }
    }

    fn place(&self, id: NodeId) -> usize {
        self.nodes.binary_search_by_key(&id, |node| node.id).expect("nobody else takes part")
    }

    fn agrees(&self) -> bool {
        self.nodes.windows(2).all(|two| two[0].gossip.membership() == two[1].gossip.membership())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut cluster = Cluster::new()?;
    cluster.check();

    println!("node 4 looks for the cluster, and asks to join:");
    while cluster.nodes[3].gossip.membership().cluster().is_none() {
        cluster.second()?;
    }
    let join = Change::Member(Member::new(NodeId(4)));
    cluster.nodes[3].gossip.membership_mut().stage(NodeId(4), join)?;
    while cluster.nodes[1].gossip.membership().staged().is_empty() {
        cluster.second()?;
    }

    println!("node 2 has heard of it, looks at the plan and commits:");
    let membership = cluster.nodes[1].gossip.membership_mut();
    let proposal = membership.propose()?;
    let before = membership.layout().expect("it was founded");
    let plan = before.plan(proposal.layout());
    let each = plan.moved_slots() * Q / 16384;
    println!(
        "  {each} of {} copies move, {} at least",
        u32::from(N) * Q,
        plan.least_moved_slots() * Q / 16384
    );
    for change in plan.nodes() {
        let (owned, owns) = (change.slots_before * Q / 16384, change.slots_after * Q / 16384);
        println!("  node {}: {owned} partitions before, {owns} afterwards", change.node.0);
    }
    assert!(plan.gains().all(|gain| gain.node == NodeId(4)), "the others only give");
    assert_eq!(plan.moved_slots(), plan.least_moved_slots());
    // By hash: what is committed is what was looked at, or nothing.
    membership.commit(CLUSTER, proposal.hash())?;

    let mut seconds = 0;
    while !cluster.agrees() || cluster.nodes[0].gossip.membership().transition().is_some() {
        let step = cluster.nodes[1].gossip.membership().transition().map(|t| (t.step(), t.waiting_for()));
        if let Some((step, late)) = step {
            let late: Vec<u64> = late.iter().map(|id| id.0).collect();
            println!("second {seconds}, as node 2 sees it: {step}, waiting for {late:?}");
        } else {
            println!("second {seconds}: node 2 has settled");
        }
        cluster.second()?;
        seconds += 1;
        assert!(seconds < 100, "lost messages delay, no more");
    }

    let layout = cluster.nodes[3].gossip.membership().layout().expect("it has joined");
    assert_eq!(layout, proposal.layout());
    for node in &cluster.nodes {
        assert!(
            layout.partitions_of(node.id).map(|(partition, _)| partition).eq(node.copies.iter().copied())
        );
    }
    println!("second {seconds}: all know the same; every partition had {N} owners with copies all along");
    Ok(())
}

#[test]
fn nobody_is_ever_without_owners() -> Result<(), Box<dyn Error>> {
    main()
}
