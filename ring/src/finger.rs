//! Routing in few hops, for clusters in which not every node can know all others.
//!
//! Nodes stand on a circle of `u64` positions; a key belongs to the first node at or after its position. Each node keeps a
//! small table of *fingers* and passes a request to the farthest one that does not overshoot the key, so every
//! [`Hop::Via`] comes closer to the key. It goes in circles under no tables, however stale or few their fingers, in which each node that is
//! named stands where it stands itself; where a position may change under the same id, who routes bounds the hops of a request.
//! [`Hop::Owner`] is final: who
//! gets a request by it serves it and does not route it again. (Its own table may name another owner: the asker's is
//! stale, or the owner is down and this is its heir. Routed on, such a request could go in circles.) Nothing here
//! allocates: tables are slices.
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
//! the full view of [`Layout`](crate::Layout), Dynamo's zero hops. If each node's facts change once a day that costs fewer
//! bytes of gossip up to some 500 nodes, and always more memory; a layout has at most 16,384 members.
//! `examples/hops` measures both.
//!
//! ```
//! use gramme_ring::NodeId;
//! use gramme_ring::finger::{FingerTable, Hop, Place, Ring, rank_fingers};
//!
//! // Eight nodes at 100, 200, .. 800; we are the first.
//! let ring: Vec<Place> = (1..=8).map(|i| Place { position: i * 100, node: NodeId(i) }).collect();
//! let mut buffer = [Place { position: 0, node: NodeId(0) }; 8];
//! let fingers = rank_fingers(Ring::new(&ring)?, 0, 1, &mut buffer)?;
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

/// All nodes in order of their positions, from which fingers are found. Checked once.
#[derive(Clone, Copy, Debug)]
pub struct Ring<'a>(&'a [Place]);

impl<'a> Ring<'a> {
    /// # Errors
    /// [`TableError::UnsortedRing`] if positions do not ascend.
    pub fn new(places: &'a [Place]) -> Result<Self, TableError> {
        let sorted = places.is_sorted_by(|a, b| a.position < b.position);
        if sorted { Ok(Ring(places)) } else { Err(TableError::UnsortedRing) }
    }

    /// The node at this place.
    fn place(self, me: usize) -> Result<Place, TableError> {
        self.0.get(me).copied().ok_or(TableError::NotInRing { place: me, nodes: self.0.len() })
    }
}

/// Writes them to a buffer, if they fit: they are counted first, so that one that is too short keeps what it held.
fn fill(buffer: &mut [Place], places: impl Iterator<Item = Place> + Clone) -> Result<&[Place], TableError> {
    let (needed, found) = (places.clone().count(), buffer.len());
    let fingers = buffer.get_mut(..needed).ok_or(TableError::BufferTooShort { needed, found })?;
    fingers.iter_mut().zip(places).for_each(|(finger, place)| *finger = place);
    Ok(fingers)
}

/// Where a request goes from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// This node owns the key.
    Here,
    /// To the key's owner, or the first live node after it if the owner is down. The last hop: the receiver serves the
    /// request without asking its own table, or refuses it.
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
    /// [`TableError::UnsortedFingers`] if they are out of order, repeat, or name this node's own position;
    /// [`TableError::ContradictoryFingers`] if one stands beyond the predecessor, or if there are none and the predecessor
    /// is another.
    pub fn new(predecessor: Place, me: Place, fingers: &'a [Place]) -> Result<Self, TableError> {
        let distance = |place: &Place| place.position.wrapping_sub(me.position);
        let first = fingers.first().is_none_or(|f| distance(f) > 0);
        if !first || !fingers.is_sorted_by(|a, b| distance(a) < distance(b)) {
            return Err(TableError::UnsortedFingers);
        }
        // The predecessor is the farthest of all; alone it is at distance 0.
        if distance(&predecessor) < fingers.last().map_or(0, distance)
            || fingers.is_empty() && distance(&predecessor) > 0
        {
            return Err(TableError::ContradictoryFingers);
        }
        Ok(FingerTable {
            me,
            own: me.position.wrapping_sub(predecessor.position),
            fingers,
            successors: fingers.len().min(1),
        })
    }

    /// Says that the first `count` fingers are the node's successors with nobody between, so that it can skip dead ones
    /// by itself. The first is one in any case.
    #[must_use]
    pub fn with_successors(self, count: usize) -> Self {
        // The first is one in any case.
        FingerTable { successors: count.max(1).min(self.fingers.len()), ..self }
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

/// The nodes at 1 to `successors` and at all powers of two places after the `me`-th of a ring, in order. A buffer of
/// `successors` and 32 more is enough in rings of up to 2^32 nodes.
///
/// # Errors
/// [`TableError::NotInRing`] if `me` is no place in the ring, [`TableError::BufferTooShort`] if they don't fit `buffer`:
/// without the farthest, hops would grow with S in place of its logarithm.
pub fn rank_fingers<'b>(
    ring: Ring<'_>,
    me: usize,
    successors: usize,
    buffer: &'b mut [Place],
) -> Result<&'b [Place], TableError> {
    ring.place(me)?;
    let Ring(places) = ring;
    let successors = successors.clamp(1, places.len());
    let powers = (0..usize::BITS - 1).map(|k| 1usize << k).filter(|&step| step > successors);
    let steps = (1..=successors).chain(powers).take_while(|&step| step < places.len());
    // Both are below the length.
    fill(buffer, steps.map(|step| places[(me + step) % places.len()]))
}

/// The 1st to `successors`-th nodes after the `me`-th of a ring and the owners of the positions 1, 2, 4, …, 2^63 after
/// it, each once, in order. A buffer of `successors` and 64 more is enough.
///
/// # Errors
/// As [`rank_fingers`].
pub fn id_fingers<'b>(
    ring: Ring<'_>,
    me: usize,
    successors: usize,
    buffer: &'b mut [Place],
) -> Result<&'b [Place], TableError> {
    let origin = ring.place(me)?.position;
    let Ring(places) = ring;
    let steps = (1..=successors).take_while(|&step| step < places.len());
    let owners = (0..u64::BITS).map(|k| {
        let target = origin.wrapping_add(1 << k);
        places.partition_point(|place| place.position < target)
    });
    let mut last = 0;
    let farther = move |place: &Place| {
        let distance = place.position.wrapping_sub(origin);
        let farther = distance > last;
        last = last.max(distance);
        farther
    };
    fill(
        buffer,
        steps.map(|step| me + step).chain(owners).map(|at| places[at % places.len()]).filter(farther),
    )
}
