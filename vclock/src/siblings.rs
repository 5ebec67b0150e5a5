//! Concurrent values of one key, and the exact history behind them.

use crate::buf::Buf;
use crate::causality::Causality;
use crate::dot::{Dot, Span};
use crate::dot_set::DotSet;
use crate::malformed::Malformed;
use crate::minter::{Minter, WriteError};
use core::fmt;
use core::hash::{Hash, Hasher};
use core::iter::FusedIterator;
use core::marker::PhantomData;
use core::slice;

mod wire;

/// The object behind one key: its concurrent values, each under its dot, and every dot seen of the key.
///
/// A dot that is seen but stands under no value has been replaced (or belongs to no write of this key). That is all
/// there is to [`merge`](Siblings::merge): it is a join, so replicas that have merged the same writes in any order, any
/// number of times, are equal. An object may have a history and no values, and still wins over what it has seen.
///
/// `E` holds the values, `B` the history.
///
/// ```
/// use gramme_vclock::{Actor, FixedDotSet, FixedSiblings, Full, Minter, WriteError};
///
/// let mut minter = Minter::new(Actor(7));
/// let mut object = FixedSiblings::<_, 2, 2>::new();
/// let blind = FixedDotSet::new(); // both writers have read nothing
/// object.write(&blind, &mut minter, "ann")?;
/// object.write(&blind, &mut minter, "bob")?;
/// let stale = object.clone();
/// assert_eq!(object.len(), 2);
///
/// // One who has read both replaces both, and no older copy brings them back.
/// let read = object.seen().clone();
/// object.write(&read, &mut minter, "ann and bob")?;
/// assert!(!object.merge(stale).map_err(WriteError::Full)?.changed);
/// assert!(object.iter().map(|(_, value)| *value).eq(["ann and bob"]));
/// # Ok::<(), WriteError<Full>>(())
/// ```
#[derive(Clone)]
pub struct Siblings<V, E, B> {
    entries: E,
    seen: DotSet<B>,
    value: PhantomData<V>,
}

/// [`Siblings`] that grow; no allocation up to 2 values and 4 spans.
#[cfg(feature = "alloc")]
pub type GrowableSiblings<V> = Siblings<V, crate::InlineVec<(Dot, V), 2>, crate::InlineVec<Span, 4>>;

/// At most `N` [`Siblings`] with a history of at most `S` spans, without an allocator.
pub type FixedSiblings<V, const N: usize, const S: usize> =
    Siblings<V, heapless::Vec<(Dot, V), N>, heapless::Vec<Span, S>>;

/// What a write made.
#[derive(Clone)]
pub struct Written<B> {
    /// The name of the new value.
    pub dot: Dot,
    /// What the writer has been shown now: its next write with this context replaces this one.
    pub context: DotSet<B>,
}

impl<B: Buf<Span>> fmt::Debug for Written<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Written").field("dot", &self.dot).field("context", &self.context).finish()
    }
}

/// What a merge did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Merged {
    /// Whether the object differs from what it was.
    pub changed: bool,
}

impl<V, E, B> Siblings<V, E, B>
where
    E: Buf<(Dot, V), Full = B::Full>,
    B: Buf<Span>,
{
    /// The object of a key never written.
    #[must_use]
    pub fn new() -> Self {
        Siblings { entries: E::default(), seen: DotSet::new(), value: PhantomData }
    }

    /// The object with these values, sorted by dot, and this history.
    ///
    /// # Errors
    /// If the values are not sorted, share a dot, don't fit, or have a dot that the history lacks.
    pub fn from_parts(
        entries: impl IntoIterator<Item = (Dot, V)>,
        seen: DotSet<B>,
    ) -> Result<Self, Malformed> {
        let mut list = E::default();
        for entry in entries {
            list.push(entry).map_err(|_| Malformed::Full)?;
        }
        Self::validated(list, seen)
    }

    fn validated(entries: E, seen: DotSet<B>) -> Result<Self, Malformed> {
        let list = entries.as_slice();
        if !list.is_sorted_by_key(|(dot, _)| *dot) {
            return Err(Malformed::Unsorted);
        }
        if !list.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err(Malformed::Repeated);
        }
        match list.iter().find(|(dot, _)| !seen.contains(*dot)) {
            Some((dot, _)) => Err(Malformed::Unseen(*dot)),
            None => Ok(Siblings { entries, seen, value: PhantomData }),
        }
    }

    /// The values, sorted by dot, and the history.
    #[must_use]
    pub fn into_parts(self) -> (E, DotSet<B>) {
        (self.entries, self.seen)
    }

    /// Whether there is neither a value nor a history.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.as_slice().len()
    }

    /// The values, sorted by dot.
    pub fn iter(&self) -> SiblingsIter<'_, V> {
        SiblingsIter(self.entries.as_slice().iter())
    }

    /// The values, sorted by dot, to be changed in place.
    ///
    /// A dot names one value for ever: change only what all replicas change alike, or what they don't compare.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (Dot, &mut V)> + DoubleEndedIterator {
        self.entries.as_mut_slice().iter_mut().map(|(dot, value)| (*dot, value))
    }

    /// The value under a dot.
    #[must_use]
    pub fn get(&self, dot: Dot) -> Option<&V> {
        self.find(dot).ok().map(|at| &self.entries.as_slice()[at].1)
    }

    /// Every dot seen of this key. As a context it covers every value here.
    #[must_use]
    pub fn seen(&self) -> &DotSet<B> {
        &self.seen
    }

    fn find(&self, dot: Dot) -> Result<usize, usize> {
        self.entries.as_slice().binary_search_by(|(held, _)| held.cmp(&dot))
    }

    /// Takes in all that `other` knows: a value stays if both have it, or if one has it and the other has not seen its
    /// dot; the history becomes the union.
    ///
    /// Of an object that comes from outside, ask [`Minter::is_behind`] first.
    ///
    /// # Errors
    /// `Full` if the result has more values or spans than there is room for; nothing is changed then. (`other` is dropped in any
    /// case: who has no other copy of it merges a clone.)
    pub fn merge(&mut self, other: Self) -> Result<Merged, B::Full> {
        let seen = if self.seen.includes(&other.seen) { None } else { Some(self.seen.joined(&other.seen)?) };
        let stays = |dot: Dot| !other.seen.contains(dot) || other.find(dot).is_ok();
        let kept = self.iter().filter(|(dot, _)| stays(*dot)).count();
        let new = other.iter().filter(|(dot, _)| !self.seen.contains(*dot)).count();
        self.entries.fits(kept + new)?;

        let changed = seen.is_some() || kept < self.len();
        if kept < self.len() {
            self.entries.retain(|(dot, _)| stays(*dot));
        }
        if new > 0 {
            for (dot, value) in other.entries {
                // What was seen here and is no value here has been replaced.
                if !self.seen.contains(dot) {
                    self.entries.push((dot, value))?;
                }
            }
            self.entries.as_mut_slice().sort_unstable_by_key(|(dot, _)| *dot);
        }
        if let Some(seen) = seen {
            self.seen = seen;
        }
        Ok(Merged { changed })
    }

    /// Applies a write: `value`, under a new dot of `minter`, replaces exactly the values that `context` covers.
    ///
    /// `self` must be the object that the minter's store holds at that moment. The minter decides how much of its actor's
    /// dots the history then claims; see [`Minter`].
    ///
    /// The context that the writer gets back is `context` and the new dot, *flattened*: a gap between two spans of one
    /// actor is filled if all of it has been seen here and no value here stands in it. However long a writer chains writes without
    /// reading, its context has no more spans that way than there are actors and live siblings, and it never covers a sibling that the
    /// writer was not shown. That is while copies are held: each [`break_hold`](Minter::break_hold) between two writes of the key, whichever
    /// key's copy went ([`write_held`](Siblings::write_held) tells them apart), may leave one span more, if another key took a counter in between; such a gap
    /// is never filled, neither in the context nor in the history. Where that makes a context longer than a token can be (2,000 spans at the least, see
    /// [`MAX_TOKEN`](crate::MAX_TOKEN)), the write stands all the same and it is [`seal`](crate::Context::seal) that answers
    /// [`TooLong`](crate::SealError::TooLong); so it does for a read of that object then. A fixed form is full much sooner, and says so before anything is written.
    /// Since a filled gap speaks for what was replaced *here*, hand the context out (or let it go anywhere) only
    /// together with this object, once that is as durable as the answer promises.
    ///
    /// # Errors
    /// If there is no room (in a fixed form also for the union of history and context alone, which may have spans that the new one
    /// joins, so that the result would have fitted), if the minter's counter is used up, or if history or context name dots that the minter has
    /// yet to mint. Nothing is changed then, nor minted; `value` is dropped.
    pub fn write(
        &mut self,
        context: &DotSet<B>,
        minter: &mut Minter,
        value: V,
    ) -> Result<Written<B>, WriteError<B::Full>> {
        self.write_held(context, minter, minter.held_since(), value)
    }

    /// The same for a store that remembers of each copy since when it has held it: what it drops of other keys
    /// ([`break_hold`](Minter::break_hold)) then costs this one no span.
    ///
    /// `since` is what [`Minter::minted`] was when this copy came to be here, by a write or a merge, where there was none; 0 if it was here when the
    /// store was opened under this actor; and `minted` anew when a write of this key was minted and not kept. Where an actor goes on
    /// after a restart ([`Minter::resume`]) it is as durable as the copy. A larger one costs a span. A smaller one
    /// claims what was dropped, and may lose writes: then [`write`](Siblings::write), which asks for less, is the right one.
    ///
    /// ```
    /// use gramme_vclock::{Actor, FixedSiblings, Full, Minter, WriteError};
    ///
    /// // Room for one span. The first write makes the copy.
    /// let (mut minter, mut object) = (Minter::new(Actor(7)), FixedSiblings::<_, 1, 1>::new());
    /// let since = minter.minted();
    /// for n in 0..100 {
    ///     let read = object.seen().clone();
    ///     object.write_held(&read, &mut minter, since, n)?;
    ///     // Another key is written, handed over and dropped.
    ///     FixedSiblings::<_, 1, 1>::new().write(&Default::default(), &mut minter, n)?;
    ///     minter.break_hold();
    /// }
    /// assert_eq!(object.seen().last_of(Actor(7)), Some(199));
    /// // By the rule for stores that don't know, the next write needs a second one.
    /// let read = object.seen().clone();
    /// assert_eq!(object.write(&read, &mut minter, 100).unwrap_err(), WriteError::Full(Full));
    /// # Ok::<(), WriteError<Full>>(())
    /// ```
    ///
    /// # Errors
    /// As [`write`](Siblings::write).
    pub fn write_held(
        &mut self,
        context: &DotSet<B>,
        minter: &mut Minter,
        since: u64,
        value: V,
    ) -> Result<Written<B>, WriteError<B::Full>> {
        let (dot, own) = minter.next(&self.seen, since)?;
        if minter.is_behind(context) {
            return Err(WriteError::Ahead);
        }
        let (seen, shown) = self.histories_after(context, dot, own).map_err(WriteError::Full)?;

        // A full list from which nothing goes refuses the insertion; one from which something goes has room for it.
        self.remove_unless(|held| !context.contains(held));
        let at = self.entries.as_slice().partition_point(|(held, _)| *held < dot);
        self.entries.insert(at, (dot, value)).map_err(WriteError::Full)?;
        self.seen = seen;
        minter.count(dot);
        Ok(Written { dot, context: shown })
    }

    /// What has been seen after a write, and what its writer has been shown.
    fn histories_after(
        &self,
        context: &DotSet<B>,
        dot: Dot,
        own: Span,
    ) -> Result<(DotSet<B>, DotSet<B>), B::Full> {
        let mut seen = self.seen.joined(context)?;
        seen.insert_span(own)?;
        let shown = context.joined_filling(&DotSet::from_spans([dot.span()])?, |gap| {
            let (Ok(first) | Err(first)) = self.find(Dot { actor: gap.actor, counter: gap.first });
            let stands = self.entries.as_slice().get(first).is_some_and(|(held, _)| gap.contains(*held));
            !stands && seen.contains_span(gap)
        })?;
        Ok((seen, shown))
    }

    /// Removes the values that `context` covers, puts nothing in their place, and says how many there were. The history
    /// takes in the context, which must be one that was handed out here or [sealed](crate::Context::open): one that comes bare from
    /// outside may name dots yet to be minted. No value is lost to them without a word: the store of their actor refuses to
    /// [`write`](Siblings::write) over them ([`WriteError::Ahead`]). [`Minter::is_behind`] tells it before, for the actor of this store.
    ///
    /// # Errors
    /// `Full` if the history needs more room than there is; nothing is changed then.
    pub fn discard(&mut self, context: &DotSet<B>) -> Result<usize, B::Full> {
        self.seen.union(context)?;
        Ok(self.remove_unless(|dot| !context.contains(dot)))
    }

    /// Removes every value but the one under `dot` and says how many that were. They stay seen, so that a merge with
    /// an object that has them doesn't bring them back. `None` if no value stands under `dot`: nothing is changed then.
    pub fn keep_only(&mut self, dot: Dot) -> Option<usize> {
        self.find(dot).ok()?;
        Some(self.remove_unless(|held| held == dot))
    }

    fn remove_unless(&mut self, mut keep: impl FnMut(Dot) -> bool) -> usize {
        let before = self.len();
        self.entries.retain(|(dot, _)| keep(*dot));
        before - self.len()
    }

    /// How this object relates to another: `Before` if a merge would turn it into the other, `After` the reverse,
    /// `Concurrent` if the merge differs from both.
    ///
    /// That is the relation of the histories, told apart further where one side discarded values without writing.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Causality {
        Causality::from_lacks(self.lacks(other), other.lacks(self))
    }

    /// Whether a merge with `other` would change this object.
    fn lacks(&self, other: &Self) -> bool {
        !self.seen.includes(&other.seen)
            || self.iter().any(|(dot, _)| other.seen.contains(dot) && other.find(dot).is_err())
    }

    /// The same object with other values under its dots.
    ///
    /// # Errors
    /// `Full` if the new list has less room than there are values, and the object as it was: no value was changed.
    pub fn map<U, F>(self, mut change: impl FnMut(Dot, V) -> U) -> Result<Siblings<U, F, B>, (Self, B::Full)>
    where
        F: Buf<(Dot, U), Full = B::Full>,
    {
        let mut entries = F::default();
        if let Err(full) = entries.fits(self.len()) {
            return Err((self, full));
        }
        for (dot, value) in self.entries {
            entries.push((dot, change(dot, value))).expect("there is room for all");
        }
        Ok(Siblings { entries, seen: self.seen, value: PhantomData })
    }
}

impl<V, E, B> Default for Siblings<V, E, B>
where
    E: Buf<(Dot, V), Full = B::Full>,
    B: Buf<Span>,
{
    fn default() -> Self {
        Siblings::new()
    }
}

impl<V, E, B> PartialEq for Siblings<V, E, B>
where
    V: PartialEq,
    E: Buf<(Dot, V)>,
    B: Buf<Span>,
{
    fn eq(&self, other: &Self) -> bool {
        self.entries.as_slice() == other.entries.as_slice() && self.seen == other.seen
    }
}

impl<V, E, B> Eq for Siblings<V, E, B>
where
    V: Eq,
    E: Buf<(Dot, V)>,
    B: Buf<Span>,
{
}

impl<V, E, B> Hash for Siblings<V, E, B>
where
    V: Hash,
    E: Buf<(Dot, V)>,
    B: Buf<Span>,
{
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.entries.as_slice(), &self.seen).hash(state);
    }
}

impl<'a, V, E, B> IntoIterator for &'a Siblings<V, E, B>
where
    E: Buf<(Dot, V), Full = B::Full>,
    B: Buf<Span>,
{
    type Item = (Dot, &'a V);
    type IntoIter = SiblingsIter<'a, V>;

    fn into_iter(self) -> SiblingsIter<'a, V> {
        self.iter()
    }
}

/// Iterator over the values of [`Siblings`], sorted by dot.
pub struct SiblingsIter<'a, V>(slice::Iter<'a, (Dot, V)>);

impl<V> Clone for SiblingsIter<'_, V> {
    fn clone(&self) -> Self {
        SiblingsIter(self.0.clone())
    }
}

impl<'a, V> Iterator for SiblingsIter<'a, V> {
    type Item = (Dot, &'a V);

    fn next(&mut self) -> Option<(Dot, &'a V)> {
        self.0.next().map(|(dot, value)| (*dot, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<'a, V> DoubleEndedIterator for SiblingsIter<'a, V> {
    fn next_back(&mut self) -> Option<(Dot, &'a V)> {
        self.0.next_back().map(|(dot, value)| (*dot, value))
    }
}

impl<V> ExactSizeIterator for SiblingsIter<'_, V> {}

impl<V> FusedIterator for SiblingsIter<'_, V> {}

impl<V: fmt::Debug> fmt::Debug for SiblingsIter<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

impl<V, E, B> fmt::Debug for Siblings<V, E, B>
where
    V: fmt::Debug,
    E: Buf<(Dot, V)>,
    B: Buf<Span>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Siblings")
            .field("entries", &self.entries.as_slice())
            .field("seen", &self.seen)
            .finish()
    }
}
