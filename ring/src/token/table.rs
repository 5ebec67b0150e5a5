//! Lookups on a table of tokens.

use crate::node::NodeId;
use crate::table::{TableError, check_nodes, exactly};

/// A point of the ring and who owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// Where it is.
    pub position: u64,
    /// Its owner's place among the ring's nodes.
    pub node: u32,
}

/// Tokens and nodes in slices: all lookups, wherever the slices come from, without an allocator.
///
/// ```
/// use gramme_ring::NodeId;
/// use gramme_ring::token::{Token, TokenTable};
///
/// // Four tokens of three nodes; the first two stand in one zone.
/// const IDS: [NodeId; 3] = [NodeId(7), NodeId(8), NodeId(9)];
/// const ZONES: [u32; 3] = [0, 0, 1];
/// const TOKENS: [Token; 4] = [token(100, 0), token(200, 1), token(300, 0), token(400, 2)];
/// const fn token(position: u64, node: u32) -> Token {
///     Token { position, node }
/// }
/// let table = TokenTable::new(&TOKENS, &IDS, &ZONES)?;
///
/// // Clockwise from 150: 8, 7, 9. The spread list passes over 7, which shares the zone of 8.
/// let mut buffer = [NodeId(0); 2];
/// assert_eq!(table.owners(150, &mut buffer), [NodeId(8), NodeId(7)]);
/// assert_eq!(table.spread_owners(150, &mut buffer), [NodeId(8), NodeId(9)]);
/// assert_eq!(table.replicas::<3>(150)?, [NodeId(8), NodeId(9), NodeId(7)]);
/// # Ok::<(), gramme_ring::TableError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct TokenTable<'a> {
    tokens: &'a [Token],
    ids: &'a [NodeId],
    zones: &'a [u32],
    pub(super) with_tokens: WithTokens,
}

/// More nodes or zones than places of any preference list.
const MANY: usize = 256;

/// How many own tokens, or more than that where it is [`MANY`]. A walk ends with the last of them: there is nobody to be found further on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WithTokens {
    nodes: usize,
    zones: usize,
}

impl WithTokens {
    pub(super) fn count(tokens: &[Token], zones: &[u32]) -> WithTokens {
        let all = zones.len();
        let nodes = distinct(tokens.iter().map(|token| token.node), all);
        let in_all = distinct(zones.iter().copied(), MANY);
        let zones = distinct(tokens.iter().map(|token| zones[token.node as usize]), in_all);
        WithTokens {
            nodes: if nodes < MANY { nodes } else { all },
            zones: if zones < MANY { zones } else { usize::MAX },
        }
    }
}

/// How many different ones there are, up to `most` and to [`MANY`], where it stops.
fn distinct(all: impl Iterator<Item = u32>, most: usize) -> usize {
    let (mut seen, mut count) = ([0; MANY], 0);
    for one in all {
        if count == most.min(MANY) {
            break;
        }
        if !seen[..count].contains(&one) {
            seen[count] = one;
            count += 1;
        }
    }
    count
}

impl<'a> TokenTable<'a> {
    /// A table over slices: tokens sorted, ids ascending and of the same length as `zones` (equal numbers for equal
    /// zones), every token's node among them.
    ///
    /// # Errors
    /// [`TableError`] names what isn't so.
    pub fn new(tokens: &'a [Token], ids: &'a [NodeId], zones: &'a [u32]) -> Result<Self, TableError> {
        check_nodes(ids)?;
        if zones.len() != ids.len() {
            return Err(TableError::Length { expected: ids.len(), found: zones.len() });
        }
        if tokens.is_empty() {
            return Err(TableError::NoTokens);
        }
        if !tokens.is_sorted() {
            return Err(TableError::UnsortedTokens);
        }
        if let Some(index) = tokens.iter().position(|t| t.node as usize >= ids.len()) {
            return Err(TableError::UnknownNode { index });
        }
        Ok(Self::trusted(tokens, ids, zones, WithTokens::count(tokens, zones)))
    }

    /// Of slices that were checked.
    pub(super) fn trusted(
        tokens: &'a [Token],
        ids: &'a [NodeId],
        zones: &'a [u32],
        with_tokens: WithTokens,
    ) -> Self {
        TokenTable { tokens, ids, zones, with_tokens }
    }

    /// The tokens, sorted.
    pub fn tokens(&self) -> &'a [Token] {
        self.tokens
    }

    /// The first distinct nodes that follow `position` clockwise (a token at the position itself is the first), as many
    /// as `buffer` holds or the ring has. Returns them in order.
    ///
    /// Walks from token to token until it has them. The last may be far: where a node owns one of Q tokens and is one of the first N, half of Q on
    /// average.
    pub fn owners<'b>(&self, position: u64, buffer: &'b mut [NodeId]) -> &'b [NodeId] {
        self.extend(position, buffer, 0, usize::MAX, |_, _| true)
    }

    /// Like [`owners`](Self::owners), but as long as there are zones without an owner nodes in the others are passed
    /// over; they then follow in ring order, until the buffer is full. With at least as many zones as places no two
    /// owners share a zone.
    ///
    /// Walks until it has met as many zones as it needs: where a zone owns one in a thousand of the tokens and has to be met, a thousand tokens on
    /// average, and as far again as the last owners are if there are fewer zones than places.
    pub fn spread_owners<'b>(&self, position: u64, buffer: &'b mut [NodeId]) -> &'b [NodeId] {
        let new_zone = |found: &[NodeId], node: usize| {
            !found.iter().any(|&id| self.zone_of(id) == Some(self.zones[node]))
        };
        let spread = self.extend(position, buffer, 0, self.with_tokens.zones, new_zone).len();
        self.extend(position, buffer, spread, usize::MAX, |_, _| true)
    }

    /// Exactly `N` owners: distinct nodes, spread over the zones as [`spread_owners`](Self::spread_owners) has it.
    ///
    /// # Errors
    /// [`TableError::TooFewNodes`] if fewer nodes have tokens.
    pub fn replicas<const N: usize>(&self, position: u64) -> Result<[NodeId; N], TableError> {
        exactly(|owners| self.spread_owners(position, owners).len())
    }

    fn zone_of(&self, id: NodeId) -> Option<u32> {
        self.ids.binary_search(&id).ok().map(|at| self.zones[at])
    }

    /// Goes once round and adds those that fit to the `count` that are in the buffer already, up to `most` in all.
    fn extend<'b>(
        &self,
        position: u64,
        buffer: &'b mut [NodeId],
        mut count: usize,
        most: usize,
        fits: impl Fn(&[NodeId], usize) -> bool,
    ) -> &'b [NodeId] {
        let most = most.min(buffer.len()).min(self.with_tokens.nodes);
        for token in self.walk(position) {
            if count == most {
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
