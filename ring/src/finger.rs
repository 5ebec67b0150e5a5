//! Routing in few hops, for clusters in which not every node can know all others.
//!
//! Nodes stand on a circle of `u64` positions; a key belongs to the first node at or after its position. Each node keeps a
//! small table of *fingers* and passes a request to the farthest one that does not overshoot the key, so every hop
//! comes closer and none can go in circles, whatever the tables say. Nothing here allocates: tables are slices.
//!
//! - [`rank_fingers`]: the nodes 1, 2, 4, 8, … places further on. In a stable ring of S nodes let the owner be d < S
//!   places away. The farthest finger before the key is that at the highest bit of d − 1; a hop clears this bit, and
//!   when none is left the owner is the next node. So a request takes one hop for each bit set in d − 1 and one more;
//!   since d − 1 ≤ S − 2 has one of its ⌈log2 S⌉ bits clear, that is at most ⌈log2 S⌉, and half of it on average. A
//!   node finds its fingers without knowing all: that at 2^(k+1) is the 2^k-finger of its own 2^k-finger.
//! - [`id_fingers`]: the owners of the positions at distances 1, 2, 4, … (Chord; SIGCOMM 2001). They need no counting, but
//!   distances on a random circle vary, and so do hops: O(log S) with high probability.
//!
//! Both begin with the node's next few successors, which stand in when nodes in between are dead. The server itself uses
//! the full view of [`Layout`](crate::Layout), Dynamo's zero hops, which costs fewer bytes of gossip up to some
//! 200,000 nodes, and always more memory: `examples/hops.rs` prints both.
//!
//! ```
//! use gramme_ring::NodeId;
//! use gramme_ring::finger::{FingerTable, Hop, Place, rank_fingers};
//!
//! // Eight nodes at 100, 200, .. 800; we are the first.
//! let ring: Vec<Place> = (1..=8).map(|i| Place { position: i * 100, node: NodeId(i) }).collect();
//! let mut buffer = [Place { position: 0, node: NodeId(0) }; 8];
//! let fingers = rank_fingers(&ring, 0, 1, &mut buffer)?;
//! assert_eq!(fingers.iter().map(|f| f.node.0).collect::<Vec<_>>(), [2, 3, 5]);
//!
//! let table = FingerTable::new(ring[7], ring[0], fingers)?;
//! let alive = |_| true;
//! assert_eq!(table.next_hop(50, alive), Hop::Here);
//! assert_eq!(table.next_hop(150, alive), Hop::Owner(NodeId(2)));
//! assert_eq!(table.next_hop(750, alive), Hop::Via(NodeId(5)));
//! // Node 5 is down: a shorter step.
//! assert_eq!(table.next_hop(750, |node| node != NodeId(5)), Hop::Via(NodeId(3)));
//! # Ok::<(), gramme_ring::TableError>(())
//! ```

use crate::node::NodeId;
use crate::table::TableError;

/// A node and where it stands on the circle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Its position. No two nodes share one.
    pub position: u64,
    /// Who it is.
    pub node: NodeId,
}

/// Where a request goes from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// This node owns the key.
    Here,
    /// To the key's owner, or the first live node after it if the owner is down.
    Owner(NodeId),
    /// To a node that is closer to the key.
    Via(NodeId),
    /// All that are known to be closer are down, and so are the successors that could stand in.
    Unreachable,
}

/// What a node knows: its predecessor, its own place, and its fingers.
#[derive(Clone, Copy, Debug)]
pub struct FingerTable<'a> {
    me: Place,
    /// Distance from the predecessor to us; 0 if we are alone.
    own: u64,
    /// In order of their distance.
    fingers: &'a [Place],
    /// How many of them are the node's successors one after another.
    successors: usize,
}

impl<'a> FingerTable<'a> {
    /// A table of fingers in order of their clockwise distance from `me`, the first of which is the node's successor.
    /// Alone on the circle, a node is its own predecessor and has no fingers.
    ///
    /// # Errors
    /// [`TableError::UnsortedFingers`] if they are out of order, repeat, or name this node's own position.
    pub fn new(predecessor: Place, me: Place, fingers: &'a [Place]) -> Result<Self, TableError> {
        let distance = |place: &Place| place.position.wrapping_sub(me.position);
        let first = fingers.first().is_none_or(|f| distance(f) > 0);
        if !first || !fingers.is_sorted_by(|a, b| distance(a) < distance(b)) {
            return Err(TableError::UnsortedFingers);
        }
        Ok(FingerTable {
            me,
            own: me.position.wrapping_sub(predecessor.position),
            fingers,
            successors: fingers.len().min(1),
        })
    }

    /// Says that the first `count` fingers are the node's successors with nobody between, so that it can skip dead ones
    /// by itself.
    #[must_use]
    pub fn with_successors(self, count: usize) -> Self {
        FingerTable { successors: count.min(self.fingers.len()), ..self }
    }

    /// Where a request for the key at `position` goes, given who is believed alive.
    pub fn next_hop(&self, position: u64, alive: impl Fn(NodeId) -> bool) -> Hop {
        // How far the key lies behind us; within our own arc it is ours.
        let behind = self.me.position.wrapping_sub(position);
        if self.fingers.is_empty() || behind < self.own {
            return Hop::Here;
        }
        let distance = position.wrapping_sub(self.me.position);
        let of = |place: &Place| place.position.wrapping_sub(self.me.position);
        // Fingers before the key and fingers at or after it. (The key is not ours, so its distance is not 0.)
        let split = self.fingers.partition_point(|f| of(f) < distance);
        // Among successors the first at or after the key is its owner: there is nobody between.
        if split < self.successors {
            let heirs = &self.fingers[split..self.successors];
            if let Some(owner) = heirs.iter().find(|f| alive(f.node)) {
                return Hop::Owner(owner.node);
            }
        }
        match self.fingers[..split].iter().rev().find(|f| alive(f.node)) {
            Some(closer) => Hop::Via(closer.node),
            None => Hop::Unreachable,
        }
    }
}

/// The nodes at 1 to `successors` and at all powers of two places after the `me`-th of a sorted ring, as many as
/// `buffer` holds, in order. With room for `successors` and 32 more, none is left out in rings of up to 2^32 nodes.
///
/// # Errors
/// [`TableError::NotInRing`] if `me` is no place in the ring.
pub fn rank_fingers<'b>(
    ring: &[Place],
    me: usize,
    successors: usize,
    buffer: &'b mut [Place],
) -> Result<&'b [Place], TableError> {
    in_ring(ring, me)?;
    let mut count = 0;
    let mut add = |step: usize| {
        if step < ring.len() && count < buffer.len() {
            // Both are below the length.
            buffer[count] = ring[(me + step) % ring.len()];
            count += 1;
        }
    };
    let successors = successors.clamp(1, ring.len());
    (1..=successors).for_each(&mut add);
    let powers = (0..usize::BITS - 1).map(|k| 1usize << k);
    powers.take_while(|&step| step < ring.len()).filter(|&step| step > successors).for_each(&mut add);
    Ok(&buffer[..count])
}

/// The 1st to `successors`-th nodes after the `me`-th of a sorted ring and the owners of the positions 1, 2, 4, …, 2^63
/// after it, each once, as many as `buffer` holds, in order. With room for `successors` and 64 more, none is left out.
///
/// # Errors
/// [`TableError::NotInRing`] if `me` is no place in the ring.
pub fn id_fingers<'b>(
    ring: &[Place],
    me: usize,
    successors: usize,
    buffer: &'b mut [Place],
) -> Result<&'b [Place], TableError> {
    in_ring(ring, me)?;
    let origin = ring[me].position;
    let mut count = 0;
    let mut last = 0;
    let mut add = |place: Place| {
        let distance = place.position.wrapping_sub(origin);
        if distance > last && count < buffer.len() {
            buffer[count] = place;
            count += 1;
            last = distance;
        }
    };
    (1..=successors.max(1))
        .take_while(|&step| step < ring.len())
        .for_each(|step| add(ring[(me + step) % ring.len()]));
    for k in 0..u64::BITS {
        let target = origin.wrapping_add(1 << k);
        let at = ring.partition_point(|place| place.position < target);
        add(ring[at % ring.len()]);
    }
    Ok(&buffer[..count])
}

fn in_ring(ring: &[Place], me: usize) -> Result<(), TableError> {
    if me < ring.len() { Ok(()) } else { Err(TableError::NotInRing { place: me, nodes: ring.len() }) }
}
