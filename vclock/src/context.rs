//! What a client hands back with its next write.

use crate::buf::Buf;
use crate::checked::Checked;
use crate::dot::Span;
use crate::dot_set::DotSet;
use crate::stamp::Stamp;
use core::fmt;
use core::hash::{Hash, Hasher};
use serde::{Deserialize, Deserializer, Serialize};

/// What a writer was shown: the dots its next write replaces, and the largest stamp among them.
///
/// It travels as a sealed token, see [`Context::seal`] and [`Context::open`].
///
/// ```
/// use gramme_vclock::{Actor, Dot, FixedContext, FixedDotSet, SealKey, Stamp, TokenError};
///
/// let seen = FixedDotSet::from_spans([Dot { actor: Actor(7), counter: 1 }.span()]).expect("room for one");
/// let context = FixedContext::<4> { seen, stamp: Stamp::from_parts(1_790_000_000_000, 0) };
///
/// let (secret, cluster, mut out) = (SealKey(*b"sixteen bytes..."), 7, [0; 80]);
/// let length = context.seal(&secret, cluster, b"cart:17", &mut out)?;
/// let token = &out[..length]; // text; a client gives it back with its next write, untouched
/// assert_eq!(FixedContext::open(token, &secret, cluster, b"cart:17"), Ok(context));
/// // What was read of one key covers nothing of another.
/// assert_eq!(FixedContext::<4>::open(token, &secret, cluster, b"cart:18"), Err(TokenError::Forged));
/// # Ok::<(), gramme_vclock::SealError>(())
/// ```
#[derive(Clone, Serialize)]
#[serde(bound = "B: Buf<Span>")]
pub struct Context<B> {
    /// The dots that a write with this context covers.
    pub seen: DotSet<B>,
    /// The largest stamp of the values covered; a stamp minted for such a write is to be past it
    /// ([`Hlc::tick_past`](crate::Hlc::tick_past)).
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

impl<B: Buf<Span>> Hash for Context<B> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.seen, self.stamp).hash(state);
    }
}

impl<B: Buf<Span>> fmt::Debug for Context<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("seen", &self.seen).field("stamp", &self.stamp).finish()
    }
}

#[derive(Deserialize)]
#[serde(rename = "Context", bound = "B: Buf<Span>")]
struct Incoming<B> {
    seen: Checked<DotSet<B>>,
    stamp: Checked<Stamp>,
}

impl<'de, B: Buf<Span>> Deserialize<'de> for Checked<Context<B>> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Incoming { seen: Checked(seen), stamp: Checked(stamp) } = Incoming::deserialize(deserializer)?;
        Ok(Checked(seen.and_then(|seen| Ok(Context { seen, stamp: stamp? }))))
    }
}

impl<'de, B: Buf<Span>> Deserialize<'de> for Context<B> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Checked::<Self>::deserialize(deserializer)?.or_custom()
    }
}
