//! What a client hands back with its next write.

use crate::buf::Buf;
use crate::dot::Span;
use crate::dot_set::DotSet;
use crate::stamp::Stamp;
use core::fmt;
use serde::{Deserialize, Serialize};

/// What a writer was shown: the dots its next write replaces, and the largest stamp among them.
///
/// It travels as a sealed token, see [`Context::seal`] and [`Context::open`].
#[derive(Clone, Serialize, Deserialize)]
#[serde(bound = "B: Buf<Span>")]
pub struct Context<B> {
    /// The dots that a write with this context covers.
    pub seen: DotSet<B>,
    /// The largest stamp of the values covered; a stamp minted for such a write is past it.
    pub stamp: Stamp,
}

/// A [`Context`] that grows.
#[cfg(feature = "alloc")]
pub type GrowableContext = Context<crate::InlineVec<Span, 4>>;

/// A [`Context`] of at most `N` spans, without an allocator.
pub type FixedContext<const N: usize> = Context<heapless::Vec<Span, N>>;

impl<B: Buf<Span>> Default for Context<B> {
    fn default() -> Self {
        Context { seen: DotSet::new(), stamp: Stamp::ZERO }
    }
}

impl<B: Buf<Span>> PartialEq for Context<B> {
    fn eq(&self, other: &Self) -> bool {
        self.seen == other.seen && self.stamp == other.stamp
    }
}

impl<B: Buf<Span>> Eq for Context<B> {}

impl<B: Buf<Span>> fmt::Debug for Context<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("seen", &self.seen).field("stamp", &self.stamp).finish()
    }
}
