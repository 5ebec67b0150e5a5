//! Who names the next event, and how far back its name may speak.

use crate::buf::Buf;
use crate::dot::{Actor, Dot, Span};
use crate::dot_set::DotSet;
use core::error::Error;
use core::fmt;

/// The source of one actor's dots: counters that rise by one from 1, and the memory of when a copy was last dropped.
///
/// Make one with a new random [`Actor`] each time a store is opened, for each group of keys that share a counter (in Gramme, a
/// slot). It can't be copied, stored or set back, and [`Siblings::write`](crate::Siblings::write) alone mints from it: so
/// no dot is issued twice, and what a write claims to have seen of its own actor follows from what the store reported
/// here.
///
/// # The rule for spans
///
/// The dots of *one* key have gaps where the counter went to other keys. A write closes the gap between the key's last
/// dot of this actor and its own only if the store has held all copies unbroken since it minted that last dot: then no
/// dot of the key can lie in between. After [`break_hold`](Minter::break_hold) it can, with a value that is no longer here, so
/// the next write of each key opens a span of its own.
#[derive(Debug)]
pub struct Minter {
    actor: Actor,
    minted: u64,
    held_since: u64,
}

impl Minter {
    /// A minter that has minted nothing yet. `actor` must be new, and durable before its first dot leaves the machine.
    #[must_use]
    pub const fn new(actor: Actor) -> Minter {
        Minter { actor, minted: 0, held_since: 0 }
    }

    /// Whose dots these are.
    #[must_use]
    pub const fn actor(&self) -> Actor {
        self.actor
    }

    /// The counter of the last dot minted, 0 before the first.
    #[must_use]
    pub const fn minted(&self) -> u64 {
        self.minted
    }

    /// Takes note that the store no longer holds some dot it minted. To be called when it drops a copy of any key, hands one
    /// on, or fails to keep a write that was minted (its append failed, say).
    pub const fn break_hold(&mut self) {
        self.held_since = self.minted;
    }

    /// Whether `seen` names dots of this actor that were never minted: only forgery or a bug does. Merging such a history
    /// would make later writes look replaced, so refuse it.
    #[must_use]
    pub fn is_behind<B: Buf<Span>>(&self, seen: &DotSet<B>) -> bool {
        seen.last_of(self.actor).is_some_and(|last| last > self.minted)
    }

    /// The dot that a write of the key with this history would get, and the span that it would claim.
    pub(crate) fn next<B: Buf<Span>>(&self, seen: &DotSet<B>) -> Result<(Dot, Span), WriteError<B::Full>> {
        if self.is_behind(seen) {
            return Err(WriteError::Ahead);
        }
        let counter = self.minted.checked_add(1).ok_or(WriteError::Overflow)?;
        let dot = Dot { actor: self.actor, counter };
        let first = seen.last_of(self.actor).filter(|last| *last > self.held_since).unwrap_or(counter);
        Ok((dot, Span { first, ..dot.span() }))
    }

    /// Counts the dot that [`Minter::next`] answered as minted.
    pub(crate) const fn count(&mut self, dot: Dot) {
        self.minted = dot.counter;
    }
}

/// Why a write did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteError<F> {
    /// Values, history or context need more room than there is.
    Full(F),
    /// The minter's counter stands at 2^64 - 1.
    Overflow,
    /// The object or the context names dots of the minter's actor that it has not minted.
    Ahead,
}

impl<F: fmt::Display> fmt::Display for WriteError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::Full(full) => full.fmt(f),
            WriteError::Overflow => f.write_str("the counter is used up; nothing was changed"),
            WriteError::Ahead => {
                f.write_str("the history names writes that were never made; nothing was changed")
            }
        }
    }
}

impl<F: fmt::Debug + fmt::Display> Error for WriteError<F> {}

#[cfg(test)]
mod tests {
    use super::{Minter, WriteError};
    use crate::dot::{Actor, Span};
    use crate::dot_set::FixedDotSet;

    #[test]
    fn the_last_counter_is_minted_and_none_after_it() {
        let mut minter = Minter { minted: u64::MAX - 1, ..Minter::new(Actor(1)) };
        let seen = FixedDotSet::<1>::new();
        let (dot, span) = minter.next(&seen).unwrap();
        assert_eq!((dot.counter, span), (u64::MAX, dot.span()));
        minter.count(dot);
        assert_eq!(minter.next(&seen), Err(WriteError::Overflow));
        let all = FixedDotSet::<1>::from_spans([Span { first: 1, ..span }]).unwrap();
        assert!(!minter.is_behind(&all));
    }
}
