//! Who names the next event, and how far back its name may speak.

use crate::buf::Buf;
use crate::dot::{Actor, Dot, Span};
use crate::dot_set::DotSet;
use core::error::Error;
use core::fmt;

/// The source of one actor's dots: counters that rise by one from 1, and the memory of when a copy was last dropped.
///
/// Make one with a new random [`Actor`] each time a store is opened, for each group of keys that share a counter (in Gramme, a
/// slot). It can't be copied, only [`Minter::resume`] could set it back, and [`Siblings::write`](crate::Siblings::write) alone
/// mints from it: so, as long as no two minters are given one actor at a time, no dot is issued twice, and what a write claims to have seen of its own actor
/// follows from what the store reported here. Where a new actor for each start would fill a fixed capacity, see
/// [`Minter::resume`].
///
/// # The rule for spans
///
/// The dots of *one* key have gaps where the counter went to other keys. A write closes the gap between the key's last
/// dot of this actor and its own only if the store has held all copies unbroken since it minted that last dot: then no
/// dot of the key can lie in between. After [`break_hold`](Minter::break_hold) it can, with a value that is no longer here, so
/// the next write of each key opens a span of its own. Such spans are never joined again: a history has as many of an actor as there were drops
/// between two writes of its key, and one more. A store that drops copies often remembers since when it has held each of them
/// ([`Siblings::write_held`](crate::Siblings::write_held)): then a drop costs a span of the keys whose copies went, and of no other. Or it shares
/// its counter among few keys.
///
/// A span for each drop of the key's own copy is the price of exactness. A store that forgets a copy can't tell later whether another write
/// of the key went with it, between the dot that it is shown and the one that it mints; nor can anybody to whom it hands its copies. Whoever
/// closed that gap would, where there was one, replace what no writer was shown.
///
/// ```
/// use gramme_vclock::{Actor, FixedSiblings, Full, Minter, Span, WriteError};
///
/// let mut minter = Minter::new(Actor(7));
/// let (mut a, mut b) = (FixedSiblings::<_, 1, 2>::new(), FixedSiblings::<_, 1, 2>::new());
/// // Writes of two keys, one after the other, each by one who has read its key.
/// for n in 0..3 {
///     a.write(&a.seen().clone(), &mut minter, n)?; // 1, 3 and 5
///     b.write(&b.seen().clone(), &mut minter, n)?; // 2, 4 and 6
/// }
/// let span = |first, last| Span { actor: Actor(7), first, last };
/// assert_eq!(a.seen().spans(), [span(1, 5)]); // 2 and 4 are no writes of `a`: to claim them erases nothing
///
/// minter.break_hold(); // a copy of some key was dropped; it could have been one of `a` with 6
/// a.write(&a.seen().clone(), &mut minter, 3)?;
/// assert_eq!(a.seen().spans(), [span(1, 5), span(7, 7)]);
/// # Ok::<(), WriteError<Full>>(())
/// ```
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

    /// The minter of an actor that goes on after a restart: it minted so many dots, and last dropped a copy after so many of
    /// them ([`Minter::minted`] and [`Minter::held_since`], as they were last made durable; a `held_since` beyond `minted` counts as
    /// `minted`).
    ///
    /// A new actor for each start leaves one more span in the history of each key that it writes, and no span ever
    /// goes: a history of fixed capacity is full for good after as many starts. A history has as many spans as there are
    /// devices if each keeps its actor and drops no copy between its writes ([the rule](Minter#the-rule-for-spans)), which is sound on these
    /// conditions alone:
    ///
    /// * Each write, and `minted` and `held_since` with it, is durable *before* its dot leaves the device.
    /// * After each [`break_hold`](Minter::break_hold), `held_since` is durable before the copy goes. Otherwise a write of that key,
    ///   when it is back from a peer that has less of it, would claim what was dropped.
    /// * What is durable can't be rolled back, copied to another device or restored from a backup. A device that finds its
    ///   memory wiped draws a new actor, and takes one more span.
    ///
    /// Break one, and a write that was acknowledged may be lost. If a write or a drop may not have been kept, `held_since` must be
    /// `minted`, which is always right, and costs a span for each start; a dot that may have been minted must not be again.
    ///
    /// ```
    /// use gramme_vclock::{Actor, FixedDotSet, FixedSiblings, Full, Minter, WriteError};
    ///
    /// // Room for one device's span, and no more.
    /// let mut object = FixedSiblings::<_, 1, 1>::new();
    /// let mut minter = Minter::new(Actor(7));
    /// for start in 0..100 {
    ///     let seen = object.seen().clone();
    ///     object.write(&seen, &mut minter, start)?;
    ///     let flash = (object.clone(), minter.minted(), minter.held_since()); // and only then sent
    ///     // A restart.
    ///     (object, minter) = (flash.0, Minter::resume(Actor(7), flash.1, flash.2));
    /// }
    /// assert_eq!(object.seen().last_of(Actor(7)), Some(100));
    ///
    /// // With an actor for each start there is no room for the second.
    /// let seen = object.seen().clone();
    /// let refused = object.write(&seen, &mut Minter::new(Actor(8)), 101);
    /// assert_eq!(refused.unwrap_err(), WriteError::Full(Full));
    /// # Ok::<(), WriteError<Full>>(())
    /// ```
    #[must_use]
    pub const fn resume(actor: Actor, minted: u64, held_since: u64) -> Minter {
        Minter { actor, minted, held_since: if held_since < minted { held_since } else { minted } }
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

    /// The counter of the last dot minted before a copy was last dropped, 0 if none was.
    #[must_use]
    pub const fn held_since(&self) -> u64 {
        self.held_since
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

    /// The dot that a write of the key with this history would get, and the span that it would claim where the store has held the key's
    /// copy since it had minted so many.
    pub(crate) fn next<B: Buf<Span>>(
        &self,
        seen: &DotSet<B>,
        held_since: u64,
    ) -> Result<(Dot, Span), WriteError<B::Full>> {
        if self.is_behind(seen) {
            return Err(WriteError::Ahead);
        }
        let counter = self.minted.checked_add(1).ok_or(WriteError::Overflow)?;
        let dot = Dot { actor: self.actor, counter };
        let first = seen.last_of(self.actor).filter(|last| *last > held_since).unwrap_or(counter);
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
        let (dot, span) = minter.next(&seen, 0).unwrap();
        assert_eq!((dot.counter, span), (u64::MAX, dot.span()));
        minter.count(dot);
        assert_eq!(minter.next(&seen, 0), Err(WriteError::Overflow));
        let all = FixedDotSet::<1>::from_spans([Span { first: 1, ..span }]).unwrap();
        assert!(!minter.is_behind(&all));
    }
}
