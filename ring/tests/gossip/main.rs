//! Views converge whatever is lost, repeated or late.

mod convergence;
mod lies;
mod rollback;
mod strangers;

use gramme_ring::gossip::{Gossip, Message, Target};
use gramme_ring::{ClusterId, Member, Membership, NodeId, Phase};

/// A small random source (SplitMix64), so that a seed is all that a failure needs.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((x ^ (x >> 31)) % end as u64).unwrap()
    }
}

struct Net {
    nodes: Vec<Gossip>,
    /// From, to, message.
    under_way: Vec<(usize, usize, Message)>,
    /// Bytes of the largest message yet.
    largest: usize,
}

fn id(n: usize) -> NodeId {
    NodeId(n as u64 + 1)
}

impl Net {
    /// Nodes that know one another by the first one's address only.
    fn new(count: usize, seed: u64) -> Net {
        let nodes = (0..count)
            .map(|n| {
                let mut node = Gossip::new(id(n), 1, seed.wrapping_mul(1000) + n as u64).unwrap();
                node.set_facts(vec![u8::try_from(n % 256).unwrap(); n % 50]).unwrap();
                node
            })
            .collect();
        Net { nodes, under_way: Vec::new(), largest: 0 }
    }

    fn tick(&mut self, n: usize) {
        for (target, message) in self.nodes[n].tick(1) {
            let to = match target {
                Target::Node(NodeId(id)) => usize::try_from(id - 1).unwrap(),
                Target::Seed(seed) => seed,
            };
            if to != n {
                self.under_way.push((n, to, message));
            }
        }
    }

    fn deliver(&mut self, i: usize) {
        let (from, to, message) = self.under_way.swap_remove(i);
        let bytes = postcard::to_allocvec(&message).unwrap();
        self.largest = self.largest.max(bytes.len());
        let message: Message = postcard::from_bytes(&bytes).unwrap();
        let received = self.nodes[to].receive(id(from), message).unwrap();
        assert_eq!(received.ahead_of_self, None);
        if let Some(reply) = received.reply {
            self.under_way.push((to, from, reply));
        }
    }

    /// One tick of each node and all that follows; returns how many messages there were.
    fn round(&mut self) -> usize {
        for n in 0..self.nodes.len() {
            self.tick(n);
        }
        let mut messages = 0;
        while !self.under_way.is_empty() {
            messages += 1;
            self.deliver(self.under_way.len() - 1);
        }
        messages
    }

    fn agree(&self) -> bool {
        self.nodes.windows(2).all(|pair| {
            pair[0].membership() == pair[1].membership() && pair[0].records().eq(pair[1].records())
        })
    }
}

fn pair(n: u64) -> Gossip {
    let mut node = Gossip::new(NodeId(n), 1, n).unwrap();
    *node.membership_mut() =
        Membership::found(ClusterId(1), 3, 16, &[Member::new(NodeId(1)), Member::new(NodeId(2))]).unwrap();
    node
}

fn finish(m: &mut Membership) {
    let hash = m.propose().unwrap().hash();
    m.commit(ClusterId(1), hash).unwrap();
    for phase in [Phase::Acknowledged, Phase::Synced, Phase::Moved] {
        for id in m.transition().unwrap().participants() {
            m.advance(id, phase).unwrap();
        }
    }
    assert!(m.settle());
}
