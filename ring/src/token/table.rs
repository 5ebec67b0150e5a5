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
#[derive(Clone, Copy, Debug)]
pub struct TokenTable<'a> {
    tokens: &'a [Token],
    ids: &'a [NodeId],
    zones: &'a [u32],
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
        Ok(Self::trusted(tokens, ids, zones))
    }

    /// Of slices that were checked.
    pub(super) fn trusted(tokens: &'a [Token], ids: &'a [NodeId], zones: &'a [u32]) -> Self {
        TokenTable { tokens, ids, zones }
    }

    /// The tokens, sorted.
    pub fn tokens(&self) -> &'a [Token] {
        self.tokens
    }

    /// The first distinct nodes that follow `position` clockwise (a token at the position itself is the first), as many
    /// as `buffer` holds or the ring has. Returns them in order.
    pub fn owners<'b>(&self, position: u64, buffer: &'b mut [NodeId]) -> &'b [NodeId] {
        self.extend(position, buffer, 0, |_, _| true)
    }

    /// Like [`owners`](Self::owners), but as long as there are zones without an owner nodes in the others are passed
    /// over; they then follow in ring order, until the buffer is full. With at least as many zones as places no two
    /// owners share a zone.
    pub fn spread_owners<'b>(&self, position: u64, buffer: &'b mut [NodeId]) -> &'b [NodeId] {
        let new_zone = |found: &[NodeId], node: usize| {
            !found.iter().any(|&id| self.zone_of(id) == Some(self.zones[node]))
        };
        let spread = self.extend(position, buffer, 0, new_zone).len();
        self.extend(position, buffer, spread, |_, _| true)
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
