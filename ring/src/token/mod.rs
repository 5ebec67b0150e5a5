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
//! let partitions = EqualPartitions::new(1000)?;
//! let partition = partitions.partition_of(position);
//! ring.table().owners(partitions.end(partition), &mut owners);
//!
//! // Strategy 3: a token at the end of each partition, a fifth of them for each node.
//! let ring = TokenRing::equal(partitions, 1, &members, None)?;
//! ring.table().owners(partitions.end(partition), &mut owners);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod equal;
#[cfg(feature = "alloc")]
mod gains;
#[cfg(feature = "alloc")]
mod ring;
mod table;

use crate::mix::SequenceHash;

pub use equal::EqualPartitions;
#[cfg(feature = "alloc")]
pub use gains::TokenGain;
#[cfg(feature = "alloc")]
pub use ring::{TokenError, TokenRing};
pub use table::{Token, TokenTable};

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
