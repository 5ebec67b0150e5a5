//! Rings that own their tokens: where the strategies place them.

use alloc::collections::BinaryHeap;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use super::table::WithTokens;
use super::{EqualPartitions, MAX_TOKENS, Token, TokenTable};
use crate::layout::single_quotas;
use crate::member::{Member, Zone};
use crate::mix::mix2;
use crate::node::NodeId;
use crate::table::TableError;

/// Why there is no such ring. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenError {
    /// There is nobody to own anything.
    NoMembers,
    /// A member's weight is zero.
    ZeroWeight(NodeId),
    /// A member is named twice.
    DuplicateMember(NodeId),
    /// No tokens for a unit of weight.
    NoTokens,
    /// More than [`MAX_TOKENS`].
    TooManyTokens,
    /// The former ring's tokens are not at the ends of as many equal partitions.
    OtherPartitions,
    /// Parts that make no ring.
    Table(TableError),
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenError::NoMembers => f.write_str("at least one member is needed"),
            TokenError::ZeroWeight(id) => write!(f, "member {id} has weight 0"),
            TokenError::DuplicateMember(id) => write!(f, "member {id} is named twice"),
            TokenError::NoTokens => f.write_str("at least one token is needed"),
            TokenError::TooManyTokens => write!(f, "more than {MAX_TOKENS} tokens"),
            TokenError::Table(error) => error.fmt(f),
            TokenError::OtherPartitions => f.write_str("the former ring has other partitions"),
        }
    }
}

impl core::error::Error for TokenError {}

/// A ring of tokens that owns its table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRing {
    tokens: Vec<Token>,
    ids: Vec<NodeId>,
    zones: Vec<u32>,
    with_tokens: WithTokens,
}

impl TokenRing {
    /// A ring of what [`nodes`](Self::nodes), [`zones`](Self::zones) and the [tokens](TokenTable::tokens) of another were: from a disk, or from a
    /// peer. A ring of [equal](Self::equal) partitions has to be kept like that, for the next depends on it.
    ///
    /// ```
    /// use gramme_ring::token::{EqualPartitions, TokenRing};
    /// use gramme_ring::{Member, NodeId};
    ///
    /// let mut members: Vec<Member> = (1..=4).map(|id| Member::new(NodeId(id))).collect();
    /// let ring = TokenRing::equal(EqualPartitions::new(100)?, 1, &members, None)?;
    /// let (tokens, nodes, zones) = (ring.table().tokens().to_vec(), ring.nodes().to_vec(), ring.zones().to_vec());
    ///
    /// let read = TokenRing::from_parts(tokens, nodes, zones)?;
    /// assert_eq!(read, ring);
    /// members.push(Member::new(NodeId(5)));
    /// let next = TokenRing::equal(EqualPartitions::new(100)?, 1, &members, Some(&read))?;
    /// assert_eq!(next.gains::<1>(&read).count(), 20);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`TokenError::Table`] as [`TokenTable::new`]; [`TokenError::TooManyTokens`].
    pub fn from_parts(
        tokens: Vec<Token>,
        nodes: Vec<NodeId>,
        zones: Vec<u32>,
    ) -> Result<TokenRing, TokenError> {
        if tokens.len() > MAX_TOKENS {
            return Err(TokenError::TooManyTokens);
        }
        let with_tokens = TokenTable::new(&tokens, &nodes, &zones).map_err(TokenError::Table)?.with_tokens;
        Ok(TokenRing { tokens, ids: nodes, zones, with_tokens })
    }

    /// T random tokens for each unit of weight (the paper's strategies 1 and 2).
    ///
    /// The i-th token of a node depends only on its id, i and `seed`: members that come and go, or change weight, move
    /// only their own tokens, and all who know the members and the seed have the same ring.
    ///
    /// ```
    /// use gramme_ring::token::{TokenRing, hash_key};
    /// use gramme_ring::{Member, NodeId};
    ///
    /// let mut members: Vec<Member> = (1..=5).map(|id| Member::new(NodeId(id)).with_weight(2)).collect();
    /// let before = TokenRing::random(64, 42, &members)?;
    /// assert_eq!(before.table().tokens().len(), 5 * 2 * 64);
    /// // Who has both rings sees which keys go to the sixth node; no key goes to another.
    /// members.push(Member::new(NodeId(6)));
    /// let after = TokenRing::random(64, 42, &members)?;
    /// for key in 0..1000u32 {
    ///     let position = hash_key(&key.to_be_bytes());
    ///     let [was] = before.table().replicas(position)?;
    ///     let [is] = after.table().replicas(position)?;
    ///     assert!(is == was || is == NodeId(6));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`TokenError`] names what is wrong with the arguments.
    pub fn random(tokens_for_weight: u32, seed: u64, members: &[Member]) -> Result<TokenRing, TokenError> {
        let members = checked(members)?;
        if tokens_for_weight == 0 {
            return Err(TokenError::NoTokens);
        }
        let count = |m: &Member| u64::from(m.weight) * u64::from(tokens_for_weight);
        let mut total = 0u64;
        for m in &members {
            total = total.saturating_add(count(m));
        }
        if total > MAX_TOKENS as u64 {
            return Err(TokenError::TooManyTokens);
        }
        let mut tokens = Vec::with_capacity(usize::try_from(total).unwrap_or(0));
        for (node, m) in (0u32..).zip(&members) {
            tokens.extend((0..count(m)).map(|i| Token { position: mix2(mix2(seed, m.id.0), i), node }));
        }
        Ok(Self::assemble(tokens, &members))
    }

    /// A token at the end of each of Q equal partitions, shared out by weight: the paper's strategy 3. Each member has one at least, however
    /// light it is, so that every partition has min(N, members) owners; of more members than partitions the heaviest have one each.
    ///
    /// With `former`, a ring of as many partitions, tokens stay where they are as far as the new shares allow: nodes that
    /// leave give theirs to the others and nodes that join steal theirs from the others, at random as the paper has it.
    /// The result depends on the arguments only.
    ///
    /// ```
    /// use gramme_ring::token::{EqualPartitions, TokenRing};
    /// use gramme_ring::{Member, NodeId};
    ///
    /// let mut members: Vec<Member> = (1..=4).map(|id| Member::new(NodeId(id))).collect();
    /// let before = TokenRing::equal(EqualPartitions::new(100)?, 1, &members, None)?;
    /// members.push(Member::new(NodeId(5)));
    /// let after = TokenRing::equal(EqualPartitions::new(100)?, 1, &members, Some(&before))?;
    /// let of = |token: &gramme_ring::token::Token, ring: &TokenRing| ring.nodes()[token.node as usize];
    /// let pairs = before.table().tokens().iter().zip(after.table().tokens());
    /// // A fifth of the tokens changes hands.
    /// let moved: Vec<NodeId> =
    ///     pairs.filter(|(a, b)| of(a, &before) != of(b, &after)).map(|(_, b)| of(b, &after)).collect();
    /// assert_eq!(moved, [NodeId(5); 20]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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

    fn assemble(mut tokens: Vec<Token>, members: &[Member]) -> TokenRing {
        tokens.sort_unstable();
        let mut names: Vec<&Zone> = members.iter().map(|m| &m.zone).collect();
        names.sort_unstable();
        names.dedup();
        let zone = |m: &Member| {
            names.binary_search(&&m.zone).ok().and_then(|at| u32::try_from(at).ok()).unwrap_or(0)
        };
        let zones: Vec<u32> = members.iter().map(zone).collect();
        let with_tokens = WithTokens::count(&tokens, &zones);
        TokenRing { tokens, ids: members.iter().map(|m| m.id).collect(), zones, with_tokens }
    }

    /// The lookups.
    pub fn table(&self) -> TokenTable<'_> {
        TokenTable::trusted(&self.tokens, &self.ids, &self.zones, self.with_tokens)
    }

    /// The nodes by id; tokens name them by their places.
    pub fn nodes(&self) -> &[NodeId] {
        &self.ids
    }

    /// A number for each node's zone, the same for the same zone.
    pub fn zones(&self) -> &[u32] {
        &self.zones
    }
}

/// Members by id, if a ring can be made of them.
fn checked(members: &[Member]) -> Result<Vec<Member>, TokenError> {
    let mut members = members.to_vec();
    members.sort_unstable();
    if members.is_empty() {
        return Err(TokenError::NoMembers);
    }
    if members.len() > MAX_TOKENS {
        return Err(TokenError::TooManyTokens);
    }
    if let Some(m) = members.iter().find(|m| m.weight == 0) {
        return Err(TokenError::ZeroWeight(m.id));
    }
    if let Some(pair) = members.windows(2).find(|pair| pair[0].id == pair[1].id) {
        return Err(TokenError::DuplicateMember(pair[0].id));
    }
    Ok(members)
}
