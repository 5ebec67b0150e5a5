//! Rings of tokens: the general form of consistent hashing, with any hash and any number of partitions.
//!
//! Positions are `u64`s on a circle; the caller hashes keys to them as it likes ([`hash_key`] will do). A node owns
//! tokens, which are positions too; a key belongs to the first N distinct nodes whose tokens follow it clockwise. The
//! paper (SOSP 2007, section 6.2) tells of three ways to place tokens and partitions, and all three are here:
//!
//! | strategy | tokens | who owns a key |
//! |---|---|---|
//! | 1 | [`TokenRing::random`]: T for each node, at random | [`TokenTable::owners`] of the key's position |
//! | 2 | the same | Q [`EqualPartitions`]; [`owners`](TokenTable::owners) of the [`end`](EqualPartitions::end) of the key's partition |
//! | 3 | [`TokenRing::equal`]: Q at equal distances, Q/S for each node | the same |
//!
//! [`Layout`](crate::Layout) is strategy 3 taken further: it places each replica, not each token, and so balances and
//! moves better. Tokens are for those who can't agree on a table: with strategy 1 whoever knows the members knows the
//! ring.
//!
//! ```
//! use gramme_ring::token::{EqualPartitions, TokenRing, hash_key};
//! use gramme_ring::{Member, NodeId};
//!
//! let members: Vec<Member> = (1..=5).map(|id| Member::new(NodeId(id))).collect();
//! let position = hash_key(b"cart:alice");
//! let mut owners = [NodeId(0); 3];
//!
//! // Strategy 1: 64 tokens for each unit of weight.
//! let ring = TokenRing::random(64, 1, &members)?;
//! assert_eq!(ring.table().owners(position, &mut owners).len(), 3);
//!
//! // Strategy 2: the same tokens, but 1000 equal partitions.
//! let partitions = EqualPartitions::new(1000).unwrap();
//! let partition = partitions.partition_of(position);
//! ring.table().owners(partitions.end(partition), &mut owners);
//!
//! // Strategy 3: a token at the end of each partition, a fifth of them for each node.
//! let ring = TokenRing::equal(partitions, 1, &members, None)?;
//! ring.table().owners(partitions.end(partition), &mut owners);
//! # Ok::<(), gramme_ring::token::TokenError>(())
//! ```

mod equal;

use alloc::vec::Vec;
use core::fmt;

use crate::mix::{SequenceHash, mix2};
use crate::node::{Member, NodeId, Zone};

pub use equal::EqualPartitions;

/// Most tokens of a ring.
pub const MAX_TOKENS: usize = 1 << 24;

/// A position for a key: 64 well mixed bits, the same on every platform. Not keyed: who chooses keys can choose
/// positions.
pub fn hash_key(key: &[u8]) -> u64 {
    // "GrTokens" in ASCII.
    let mut hash = SequenceHash::new(0x4772_546f_6b65_6e73);
    hash.bytes(key);
    hash.finish()
}

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
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenError::NoMembers => f.write_str("at least one member is needed"),
            TokenError::ZeroWeight(id) => write!(f, "member {id} has weight 0"),
            TokenError::DuplicateMember(id) => write!(f, "member {id} is named twice"),
            TokenError::NoTokens => f.write_str("at least one token is needed"),
            TokenError::TooManyTokens => write!(f, "more than {MAX_TOKENS} tokens"),
            TokenError::OtherPartitions => f.write_str("the former ring has other partitions"),
        }
    }
}

impl core::error::Error for TokenError {}

/// A point of the ring and who owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// Where it is.
    pub position: u64,
    /// Its owner's place among the ring's nodes.
    pub node: u32,
}

/// Tokens and nodes in slices: all lookups, wherever the slices come from, without an allocator.
#[derive(Clone, Copy, Debug)]
pub struct TokenTable<'a> {
    tokens: &'a [Token],
    ids: &'a [NodeId],
    zones: &'a [u32],
}

impl<'a> TokenTable<'a> {
    /// A table over slices: tokens sorted, ids ascending and of the same length as `zones` (equal numbers for equal
    /// zones), every token's node among them. `None` if it isn't so.
    pub fn new(tokens: &'a [Token], ids: &'a [NodeId], zones: &'a [u32]) -> Option<Self> {
        let fits = tokens.is_sorted()
            && ids.windows(2).all(|pair| pair[0] < pair[1])
            && ids.len() == zones.len()
            && tokens.iter().all(|t| (t.node as usize) < ids.len());
        fits.then_some(TokenTable { tokens, ids, zones })
    }

    /// The tokens, sorted.
    pub fn tokens(&self) -> &'a [Token] {
        self.tokens
    }

    /// The first distinct nodes that follow `position` clockwise (a token at the position itself is the first), as many
    /// as `buffer` holds or the ring has. Returns them in order.
    pub fn owners<'b>(&self, position: u64, buffer: &'b mut [NodeId]) -> &'b [NodeId] {
        self.collect(position, buffer, |_, _| true)
    }

    /// Like [`owners`](Self::owners), but as long as there are zones without an owner nodes in the others are passed
    /// over; they then follow in ring order, until the buffer is full. With at least as many zones as places no two
    /// owners share a zone.
    pub fn spread_owners<'b>(&self, position: u64, buffer: &'b mut [NodeId]) -> &'b [NodeId] {
        let spread = self.collect(position, buffer, |found, node| {
            !found.iter().any(|&id| self.zone_of(id) == Some(self.zones[node]))
        });
        let spread = spread.len();
        self.extend(position, buffer, spread, |_, _| true)
    }

    fn zone_of(&self, id: NodeId) -> Option<u32> {
        self.ids.binary_search(&id).ok().map(|at| self.zones[at])
    }

    fn collect<'b>(
        &self,
        position: u64,
        buffer: &'b mut [NodeId],
        fits: impl Fn(&[NodeId], usize) -> bool,
    ) -> &'b [NodeId] {
        self.extend(position, buffer, 0, fits)
    }

    /// Goes once round and adds those that fit to the `count` that are in the buffer already.
    fn extend<'b>(
        &self,
        position: u64,
        buffer: &'b mut [NodeId],
        mut count: usize,
        fits: impl Fn(&[NodeId], usize) -> bool,
    ) -> &'b [NodeId] {
        for token in self.walk(position) {
            if count == buffer.len() || count == self.ids.len() {
                break;
            }
            let node = token.node as usize;
            if !buffer[..count].contains(&self.ids[node]) && fits(&buffer[..count], node) {
                buffer[count] = self.ids[node];
                count += 1;
            }
        }
        &buffer[..count]
    }

    /// Every token once, clockwise from `position`.
    pub fn walk(&self, position: u64) -> impl ExactSizeIterator<Item = Token> + use<'a> {
        let start = self.tokens.partition_point(|t| t.position < position);
        let tokens = self.tokens;
        (0..tokens.len()).map(move |step| {
            let at = start + step;
            tokens[if at < tokens.len() { at } else { at - tokens.len() }]
        })
    }
}

/// A ring of tokens that owns its table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRing {
    tokens: Vec<Token>,
    ids: Vec<NodeId>,
    zones: Vec<u32>,
}

impl TokenRing {
    /// T random tokens for each unit of weight (the paper's strategies 1 and 2).
    ///
    /// The i-th token of a node depends only on its id, i and `seed`: members that come and go, or change weight, move
    /// only their own tokens, and all who know the members and the seed have the same ring.
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

    fn assemble(mut tokens: Vec<Token>, members: &[Member]) -> TokenRing {
        tokens.sort_unstable();
        let mut names: Vec<&Zone> = members.iter().map(|m| &m.zone).collect();
        names.sort_unstable();
        names.dedup();
        let zone = |m: &Member| {
            names.binary_search(&&m.zone).ok().and_then(|at| u32::try_from(at).ok()).unwrap_or(0)
        };
        TokenRing {
            tokens,
            ids: members.iter().map(|m| m.id).collect(),
            zones: members.iter().map(zone).collect(),
        }
    }

    /// The lookups.
    pub fn table(&self) -> TokenTable<'_> {
        TokenTable { tokens: &self.tokens, ids: &self.ids, zones: &self.zones }
    }

    /// The nodes by id; tokens name them by their places.
    pub fn nodes(&self) -> &[NodeId] {
        &self.ids
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
