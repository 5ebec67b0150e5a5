//! Equal partitions of the circle, and the strategy that gives each a token.

use alloc::collections::BinaryHeap;
use alloc::vec;
use alloc::vec::Vec;

use super::{MAX_TOKENS, Token, TokenError, TokenRing, checked};
use crate::layout::single_quotas;
use crate::mix::mix2;
use crate::node::Member;

/// The circle in Q parts of equal size (up to rounding), Q being any number from 1 to [`MAX_TOKENS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EqualPartitions {
    count: u32,
}

impl EqualPartitions {
    /// Q partitions.
    pub fn new(count: u32) -> Option<Self> {
        (count >= 1 && count as usize <= MAX_TOKENS).then_some(EqualPartitions { count })
    }

    /// Q.
    pub fn count(self) -> u32 {
        self.count
    }

    /// The partition that holds a position.
    pub fn partition_of(self, position: u64) -> u32 {
        let product = u128::from(position) * u128::from(self.count);
        // Below the count.
        u32::try_from(product >> 64).unwrap_or(self.count - 1)
    }

    /// The last position of a partition (counted modulo Q): where its token is, and where to look for owners.
    pub fn end(self, partition: u32) -> u64 {
        // The next one's first position is (partition + 1) * 2^64 / Q, rounded up; 2^64 itself wraps to 0.
        let next = u128::from(partition % self.count) + 1;
        let first = ((next << 64).div_ceil(u128::from(self.count))) & u128::from(u64::MAX);
        u64::try_from(first).unwrap_or(0).wrapping_sub(1)
    }
}

impl TokenRing {
    /// A token at the end of each of Q equal partitions, shared out by weight: the paper's strategy 3.
    ///
    /// With `former`, a ring of as many partitions, tokens stay where they are as far as the new shares allow: nodes that
    /// leave give theirs to the others and nodes that join steal theirs from the others, at random as the paper has it.
    /// The result depends on the arguments only.
    ///
    /// # Errors
    /// [`TokenError`] names what is wrong with the arguments.
    pub fn equal(
        partitions: EqualPartitions,
        seed: u64,
        members: &[Member],
        former: Option<&TokenRing>,
    ) -> Result<TokenRing, TokenError> {
        let members = checked(members)?;
        let count = partitions.count() as usize;
        let mut owner: Vec<Option<u32>> = vec![None; count];
        if let Some(former) = former {
            let ends = (0..partitions.count()).map(|p| partitions.end(p));
            if !former.tokens.iter().map(|t| t.position).eq(ends) {
                return Err(TokenError::OtherPartitions);
            }
            for (owner, token) in owner.iter_mut().zip(&former.tokens) {
                let id = former.ids[token.node as usize];
                *owner =
                    members.binary_search_by_key(&id, |m| m.id).ok().and_then(|at| u32::try_from(at).ok());
            }
        }
        let mut held = vec![0usize; members.len()];
        for &node in owner.iter().flatten() {
            held[node as usize] += 1;
        }
        let quotas = single_quotas(count, &members, &held);

        // In random order the surplus is given up, and what is free is given to who lacks most of its share.
        let mut order: Vec<(u64, usize)> = (0..count).map(|p| (mix2(seed, p as u64), p)).collect();
        order.sort_unstable();
        for &(_, p) in &order {
            if let Some(node) = owner[p].map(|node| node as usize)
                && held[node] > quotas[node]
            {
                held[node] -= 1;
                owner[p] = None;
            }
        }
        // What it lacks of its share in 2^-32, a random tie-break, who.
        let claim = |held: &[usize], node: usize| {
            let lacks = (quotas[node] - held[node]) as u64;
            ((lacks << 32) / quotas[node].max(1) as u64, mix2(seed ^ lacks, node as u64), node)
        };
        let mut claims: BinaryHeap<_> =
            (0..members.len()).filter(|&n| held[n] < quotas[n]).map(|n| claim(&held, n)).collect();
        for &(_, p) in &order {
            if owner[p].is_none() {
                let (.., node) = claims.pop().expect("shares sum up to the partitions");
                owner[p] = u32::try_from(node).ok();
                held[node] += 1;
                if held[node] < quotas[node] {
                    claims.push(claim(&held, node));
                }
            }
        }
        let tokens = (0..partitions.count())
            .zip(owner)
            .map(|(p, node)| Token {
                position: partitions.end(p),
                node: node.expect("every token was given"),
            })
            .collect();
        Ok(Self::assemble(tokens, &members))
    }
}
