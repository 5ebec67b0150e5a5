//! What moves from one ring of tokens to the next.

use alloc::vec;
use alloc::vec::Vec;
use core::iter;

use super::{EqualPartitions, Token, TokenRing, TokenTable};
use crate::node::NodeId;

/// Who is to own a stretch of the circle that it does not own yet; see [`TokenRing::gains`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenGain {
    /// Who.
    pub node: NodeId,
    /// The first position of the stretch. It may be past the last, where the stretch goes over the end of the circle.
    pub first: u64,
    /// The last one: a token of one of the two rings stands there, or a partition ends.
    pub last: u64,
}

impl TokenRing {
    /// What moves from `former` to this ring where each key has `N` owners, spread over the zones, by the paper's strategies 1 and 3: for each stretch
    /// between tokens of either ring those who own it here and did not there, the last stretch first. Of two rings of Q equal partitions the
    /// stretches are the partitions. Where partitions and tokens are apart (strategy 2) it is [`gains_of`](Self::gains_of).
    ///
    /// It takes time in proportion to tokens, and memory to nodes.
    pub fn gains<const N: usize>(&self, former: &TokenRing) -> impl Iterator<Item = TokenGain> {
        self.gains_at::<N>(former, ends(self.table().tokens(), former.table().tokens()))
    }

    /// The same by the paper's strategy 2, where the owners of a partition are those of its end: for each partition, the last first.
    ///
    /// ```
    /// use gramme_ring::token::{EqualPartitions, TokenRing, hash_key};
    /// use gramme_ring::{Member, NodeId};
    ///
    /// let mut members: Vec<Member> = (1..=5).map(|id| Member::new(NodeId(id))).collect();
    /// let before = TokenRing::random(64, 42, &members)?;
    /// members.push(Member::new(NodeId(6)));
    /// let after = TokenRing::random(64, 42, &members)?;
    ///
    /// let partitions = EqualPartitions::new(1000)?;
    /// for gain in after.gains_of::<3>(&before, partitions) {
    ///     assert_eq!((gain.node, gain.last), (NodeId(6), partitions.end(partitions.partition_of(gain.first))));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn gains_of<const N: usize>(
        &self,
        former: &TokenRing,
        partitions: EqualPartitions,
    ) -> impl Iterator<Item = TokenGain> {
        self.gains_at::<N>(former, (0..partitions.count()).rev().map(move |p| partitions.end(p)))
    }

    /// Of the stretches with these ends, the last first.
    fn gains_at<const N: usize>(
        &self,
        former: &TokenRing,
        ends: impl Iterator<Item = u64> + Clone,
    ) -> impl Iterator<Item = TokenGain> {
        let (mut now, mut then) = (Sweep::new(self.table(), self), Sweep::new(former.table(), former));
        // The first stretch begins after the last, over the end of the circle.
        let before = ends.clone().skip(1).chain(ends.clone().take(1));
        ends.zip(before).flat_map(move |(last, before)| {
            let first = before.wrapping_add(1);
            let (mut here, mut there) = ([NodeId(0); N], [NodeId(0); N]);
            let owners = now.owners(last, &mut here);
            let former = then.owners(last, &mut there);
            let is_new = move |node: &NodeId| !there[..former].contains(node);
            here.into_iter().take(owners).filter(is_new).map(move |node| TokenGain { node, first, last })
        })
    }
}

/// Where tokens of either ring stand, each position once, the last first.
fn ends(mut a: &[Token], mut b: &[Token]) -> impl Iterator<Item = u64> + Clone {
    iter::from_fn(move || {
        let end = a.last().max(b.last())?.position;
        a = before(a, end);
        b = before(b, end);
        Some(end)
    })
}

/// These without the last of them if it stands there, and all others that do.
fn before(mut tokens: &[Token], position: u64) -> &[Token] {
    while let [rest @ .., token] = tokens
        && token.position == position
    {
        tokens = rest;
    }
    tokens
}

/// The owners at one position after the other, backwards. Who owns the token passed last is the first that follows it clockwise, and else the order
/// stays as it was: so no position needs a walk, however far the last of its owners is.
struct Sweep<'a> {
    tokens: &'a [Token],
    ids: &'a [NodeId],
    /// Of each node, as a number below that of zones.
    zone_of: Vec<usize>,
    /// In the order in which they follow.
    nodes: Recent,
    zones: Recent,
    /// The node of each zone that follows first.
    first_of: Vec<usize>,
}

impl<'a> Sweep<'a> {
    fn new(table: TokenTable<'a>, ring: &'a TokenRing) -> Self {
        let mut zones = ring.zones().to_vec();
        zones.sort_unstable();
        zones.dedup();
        let place = |zone| zones.binary_search(zone).expect("collected from these");
        let mut sweep = Sweep {
            tokens: table.tokens(),
            ids: ring.nodes(),
            zone_of: ring.zones().iter().map(place).collect(),
            nodes: Recent::new(ring.nodes().len()),
            zones: Recent::new(zones.len()),
            first_of: vec![0; zones.len()],
        };
        // Once round, for the tokens that follow those at the end of the circle.
        for token in table.tokens().iter().rev() {
            sweep.pass(token.node as usize);
        }
        sweep
    }

    fn pass(&mut self, node: usize) {
        let zone = self.zone_of[node];
        self.nodes.put_first(node);
        self.zones.put_first(zone);
        self.first_of[zone] = node;
    }

    /// As [`TokenTable::spread_owners`] has them, at a position no later than that asked for before; how many there are.
    fn owners(&mut self, position: u64, buffer: &mut [NodeId]) -> usize {
        while let [rest @ .., token] = self.tokens
            && token.position >= position
        {
            self.pass(token.node as usize);
            self.tokens = rest;
        }
        let mut count = 0;
        let firsts = self.zones.iter().map(|zone| self.first_of[zone]);
        for node in firsts.take(buffer.len()) {
            buffer[count] = self.ids[node];
            count += 1;
        }
        let mut others = self.nodes.iter();
        while count < buffer.len()
            && let Some(node) = others.next()
        {
            if !buffer[..count].contains(&self.ids[node]) {
                buffer[count] = self.ids[node];
                count += 1;
            }
        }
        count
    }
}

/// Those that were put to the front, the latest first: a ring of places, in which the place after the last stands for both ends.
struct Recent {
    /// Before and after each.
    links: Vec<(usize, usize)>,
}

impl Recent {
    fn new(count: usize) -> Self {
        Recent { links: (0..=count).map(|at| (at, at)).collect() }
    }

    fn put_first(&mut self, at: usize) {
        let ends = self.links.len() - 1;
        let (before, after) = self.links[at];
        self.links[before].1 = after;
        self.links[after].0 = before;
        let first = self.links[ends].1;
        self.links[at] = (ends, first);
        self.links[first].0 = at;
        self.links[ends].1 = at;
    }

    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let ends = self.links.len() - 1;
        let place = move |at: usize| (at != ends).then_some(at);
        iter::successors(place(self.links[ends].1), move |&at| place(self.links[at].1))
    }
}
