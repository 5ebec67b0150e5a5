//! The classic version vector: for each actor, how many of its events were seen.

use crate::buf::{Buf, become_longer, insert_missing};
use crate::causality::Causality;
use crate::checked::{Checked, each};
use crate::dot::{Actor, Dot, Span};
use crate::malformed::Malformed;
use crate::number::Number;
use crate::stamp::Stamp;
use core::error::Error;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::marker::PhantomData;
use core::mem;
use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

/// For each actor, the counter of its last event seen; all its earlier ones count as seen too.
///
/// It fits where each object has counters of its own, without gaps. Where counters run across many objects, use a
/// [`DotSet`](crate::DotSet), which claims nothing that was not seen.
///
/// `B` holds the entries. `T` is kept beside each: nothing, or a [`Stamp`] of the last change, which
/// [`truncate`](VersionVector::truncate) needs.
///
/// ```
/// use gramme_vclock::{Actor, Causality, GrowableVersionVector};
///
/// let mut ours = GrowableVersionVector::new();
/// ours.increment(Actor(1))?;
/// let mut theirs = ours.clone();
/// ours.increment(Actor(1))?;
/// theirs.increment(Actor(2))?;
/// assert_eq!(ours.compare(&theirs), Causality::Concurrent);
/// let Ok(_) = ours.merge(&theirs);
/// assert_eq!(ours.compare(&theirs), Causality::After);
/// # Ok::<(), gramme_vclock::IncrementError<core::convert::Infallible>>(())
/// ```
#[derive(Clone)]
pub struct VersionVector<B, T = ()> {
    entries: B,
    beside: PhantomData<T>,
}

/// One actor's place in a [`VersionVector`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry<T = ()> {
    /// Whose events are counted.
    pub actor: Actor,
    /// The last one seen, at least 1.
    pub counter: u64,
    /// When the entry last changed, if the vector keeps that.
    pub at: T,
}

/// What is kept beside each entry where events are counted or vectors decoded: `()`, or a [`Stamp`]. It can't be implemented elsewhere.
pub trait Beside: Copy + Ord + sealed::Sealed {}

impl Beside for () {}

impl Beside for Stamp {}

mod sealed {
    use super::{Checked, Malformed, Stamp};
    use serde::de::DeserializeOwned;

    pub trait Sealed: Sized {
        type Read: DeserializeOwned;
        fn named(read: Self::Read) -> Result<Self, Malformed>;
        /// This one, or the next after `held` if that is later; `None` if nothing is later than `held`.
        fn past(self, held: Self) -> Option<Self>;
    }

    impl Sealed for () {
        type Read = ();

        fn named((): ()) -> Result<(), Malformed> {
            Ok(())
        }

        fn past(self, (): ()) -> Option<()> {
            Some(())
        }
    }

    impl Sealed for Stamp {
        type Read = Checked<Stamp>;

        fn named(Checked(read): Checked<Stamp>) -> Result<Stamp, Malformed> {
            read
        }

        fn past(self, held: Stamp) -> Option<Stamp> {
            (held < Stamp::MAX).then(|| self.max(held.next()))
        }
    }
}

/// A [`VersionVector`] that grows; no allocation up to 10 actors.
#[cfg(feature = "alloc")]
pub type GrowableVersionVector = VersionVector<crate::InlineVec<Entry, 10>>;

/// A [`VersionVector`] of at most `N` actors, without an allocator.
pub type FixedVersionVector<const N: usize> = VersionVector<heapless::Vec<Entry, N>>;

/// A [`VersionVector`] that grows and remembers when each entry last changed; no allocation up to 10 actors.
#[cfg(feature = "alloc")]
pub type GrowableTimedVector = VersionVector<crate::InlineVec<Entry<Stamp>, 10>, Stamp>;

/// A [`VersionVector`] of at most `N` actors that remembers when each entry last changed, without an allocator.
pub type FixedTimedVector<const N: usize> = VersionVector<heapless::Vec<Entry<Stamp>, N>, Stamp>;

/// Why an increment did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IncrementError<F> {
    /// The actor's counter stands at 2^64 - 1.
    Overflow,
    /// There is no room for another actor.
    Full(F),
    /// An entry has [`Stamp::MAX`], and none is later.
    LastStamp,
}

impl<F: fmt::Display> fmt::Display for IncrementError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IncrementError::Overflow => f.write_str("the counter is used up; nothing was changed"),
            IncrementError::Full(full) => full.fmt(f),
            IncrementError::LastStamp => f.write_str("an entry has the last stamp; nothing was changed"),
        }
    }
}

impl<F: fmt::Debug + fmt::Display> Error for IncrementError<F> {}

impl<B: Buf<Entry<T>>, T: Copy + Ord> VersionVector<B, T> {
    /// The vector that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        VersionVector { entries: B::default(), beside: PhantomData }
    }

    /// The entries, sorted by actor.
    #[must_use]
    pub fn entries(&self) -> &[Entry<T>] {
        self.entries.as_slice()
    }

    /// How many actors have an entry.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether nothing was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }

    /// The vector with these entries, sorted by actor.
    ///
    /// # Errors
    /// If they are not sorted, an actor stands twice, a counter is 0, or they don't fit.
    pub fn from_entries(entries: impl IntoIterator<Item = Entry<T>>) -> Result<Self, Malformed> {
        let mut vector = VersionVector::new();
        for entry in entries {
            vector.push_sorted(entry)?;
        }
        Ok(vector)
    }

    /// Adds an entry whose actor must come after all before it.
    fn push_sorted(&mut self, entry: Entry<T>) -> Result<(), Malformed> {
        if entry.counter == 0 {
            return Err(Malformed::CounterZero);
        }
        if let Some(last) = self.entries().last() {
            if entry.actor < last.actor {
                return Err(Malformed::Unsorted);
            }
            if entry.actor == last.actor {
                return Err(Malformed::Repeated);
            }
        }
        self.entries.push(entry).map_err(|_| Malformed::Full)
    }

    fn find(&self, actor: Actor) -> Result<usize, usize> {
        self.entries().binary_search_by_key(&actor, |entry| entry.actor)
    }

    /// The counter of the last event of `actor` that was seen, 0 if none was.
    #[must_use]
    pub fn get(&self, actor: Actor) -> u64 {
        self.find(actor).map_or(0, |at| self.entries()[at].counter)
    }

    /// Whether `dot` was seen.
    #[must_use]
    pub fn contains(&self, dot: Dot) -> bool {
        0 < dot.counter && dot.counter <= self.get(dot.actor)
    }

    /// The events seen, as spans sorted by actor: 1 up to each counter.
    pub fn spans(&self) -> impl ExactSizeIterator<Item = Span> + '_ {
        self.entries().iter().map(|entry| Span { actor: entry.actor, first: 1, last: entry.counter })
    }

    /// Takes in all that `other` has seen, and says whether that changed anything.
    ///
    /// # Errors
    /// `Full` if the result has more actors than there is room for; nothing is changed then.
    pub fn merge(&mut self, other: &Self) -> Result<bool, B::Full> {
        let (held, theirs) = (self.len(), other.entries());
        // Room for all of theirs is enough; only where that lacks, those that are missing here are counted.
        if self.entries.fits(held + theirs.len()).is_err() {
            self.entries.fits(held + count_missing(self.entries(), theirs))?;
        }
        let as_high = |their: &Entry<T>, our: &Entry<T>| (our.counter, our.at) <= (their.counter, their.at);
        if held < theirs.len() && covers_all(theirs, self.entries(), as_high) {
            // Nothing here is newer, as often: theirs takes the place of ours.
            become_longer(&mut self.entries, theirs)?;
            return Ok(true);
        }
        let mut rest = theirs.iter();
        let Some(&(mut hand)) = rest.next() else { return Ok(false) };
        let mut ours = self.entries.as_mut_slice().iter_mut();
        let (mut changed, mut missing) = (false, 0);
        // What both have is raised where it stands, as far as theirs has nobody that is missing here.
        for our in &mut ours {
            if our.actor == hand.actor {
                changed |= our.raise(hand);
                match rest.next() {
                    Some(next) => hand = *next,
                    None => return Ok(changed),
                }
            } else if our.actor > hand.actor {
                mem::swap(our, &mut hand);
                break;
            }
        }
        // The first that is missing has taken its place, and each entry after it takes that of the next. Others that are missing wait.
        let mut rest = rest.as_slice();
        loop {
            while let [their, after @ ..] = rest
                && their.actor < hand.actor
            {
                missing += 1;
                rest = after;
            }
            if let [their, after @ ..] = rest
                && their.actor == hand.actor
            {
                hand.raise(*their);
                rest = after;
            }
            let Some(place) = ours.next() else { break };
            mem::swap(place, &mut hand);
        }
        self.entries.push(hand)?;
        for their in rest {
            self.entries.push(*their)?;
        }
        if missing > 0 {
            self.insert_missing(theirs, missing)?;
        }
        Ok(true)
    }

    /// Adds the entries of `theirs` whose actors have none here, so many: rarely more than the one that `merge` has put in.
    #[cold]
    #[inline(never)]
    fn insert_missing(&mut self, theirs: &[Entry<T>], missing: usize) -> Result<(), B::Full> {
        insert_missing(&mut self.entries, theirs, missing, |our, their| our.actor.cmp(&their.actor))
    }

    /// Whether everything that `other` has seen was seen here.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        covers(self.entries(), other.entries(), no_lower)
    }

    /// How this history relates to another. The times beside the entries have no say in it.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Causality {
        let (ours, theirs) = (self.entries(), other.entries());
        if ours.len() < theirs.len() {
            return Causality::from_lacks(true, !covers(theirs, ours, no_lower));
        }
        if ours.len() > theirs.len() {
            return Causality::from_lacks(!covers(ours, theirs, no_lower), true);
        }
        let (mut less, mut more) = (0_usize, 0_usize);
        for (our, their) in ours.iter().zip(theirs) {
            if our.actor != their.actor {
                // As many actors, but not the same: each side has one that the other lacks.
                return Causality::Concurrent;
            }
            // Counted without a branch: which counters are higher no predictor can know.
            less += usize::from(our.counter < their.counter);
            more += usize::from(their.counter < our.counter);
        }
        Causality::from_lacks(less > 0, more > 0)
    }

    /// Forgets an actor and answers its counter, 0 if it had none.
    pub fn forget(&mut self, actor: Actor) -> u64 {
        self.find(actor).map_or(0, |at| {
            let counter = self.entries()[at].counter;
            self.entries.remove_range(at, at + 1);
            counter
        })
    }
}

impl<B: Buf<Entry<T>>, T: Beside> VersionVector<B, T> {
    /// Counts one more event of `actor`, made at `at`, and answers its dot. An actor without an entry begins at 1: after
    /// [`truncate`](VersionVector::truncate) or [`forget`](VersionVector::forget), [`increment_past`](VersionVector::increment_past) is what it needs.
    ///
    /// The entry's time is later than those of all others, if need be the next after the latest of them: whatever clocks show, an event
    /// comes after what it has seen.
    ///
    /// # Errors
    /// If the counter is used up, there is no room for another actor, or no later time than one that an entry has. Nothing is changed then.
    pub fn increment_at(&mut self, actor: Actor, at: T) -> Result<Dot, IncrementError<B::Full>> {
        self.increment_past(actor, 0, at)
    }

    /// The same for an actor that knows of itself that it counted `last` events before, though its entry may be gone from here: the
    /// dot comes after that one, too.
    ///
    /// # Errors
    /// As for [`increment_at`](VersionVector::increment_at).
    pub fn increment_past(&mut self, actor: Actor, last: u64, at: T) -> Result<Dot, IncrementError<B::Full>> {
        let found = self.find(actor);
        let held = found.map_or(0, |found| self.entries()[found].counter);
        let counter = held.max(last).checked_add(1).ok_or(IncrementError::Overflow)?;
        let at = match self.entries().iter().map(|entry| entry.at).max() {
            Some(latest) => at.past(latest).ok_or(IncrementError::LastStamp)?,
            None => at,
        };
        let entry = Entry { actor, counter, at };
        match found {
            Ok(found) => self.entries.as_mut_slice()[found] = entry,
            Err(place) => self.entries.insert(place, entry).map_err(IncrementError::Full)?,
        }
        Ok(Dot { actor, counter })
    }
}

impl<T: Copy + Ord> Entry<T> {
    /// Takes the later of the two entries, and says whether that is another.
    fn raise(&mut self, theirs: Self) -> bool {
        let raised = (self.counter, self.at) < (theirs.counter, theirs.at);
        self.counter = if raised { theirs.counter } else { self.counter };
        self.at = if raised { theirs.at } else { self.at };
        raised
    }
}

fn no_lower<T>(entry: &Entry<T>, than: &Entry<T>) -> bool {
    entry.counter >= than.counter
}

/// Whether each entry of `less` has one in `more` that is at least as high.
#[inline]
fn covers<T>(
    mut more: &[Entry<T>],
    mut less: &[Entry<T>],
    as_high: impl Fn(&Entry<T>, &Entry<T>) -> bool,
) -> bool {
    while less.len() <= more.len() {
        let mut pairs = more.iter().zip(less);
        let Some((held, low)) = pairs.find(|(held, low)| held.actor != low.actor || !as_high(held, low))
        else {
            return true;
        };
        if held.actor >= low.actor {
            return false;
        }
        let rest = pairs.len();
        (more, less) = (&more[less.len() - rest..], &less[less.len() - rest - 1..]);
    }
    false
}

/// The same for where that is likely, and quicker then if it is one actor that `less` lacks, as most often: up to it the entries stand side by
/// side, after it with one between. Which are as high is counted without a branch.
#[inline]
fn covers_all<T>(
    more: &[Entry<T>],
    less: &[Entry<T>],
    as_high: impl Fn(&Entry<T>, &Entry<T>) -> bool,
) -> bool {
    let [_, after @ ..] = more else { return false };
    if after.len() != less.len() {
        return covers(more, less, as_high);
    }
    let (mut at, mut all) = (0, true);
    while at < less.len() && less[at].actor == more[at].actor {
        all &= as_high(&more[at], &less[at]);
        at += 1;
    }
    while at < less.len() {
        if less[at].actor != after[at].actor {
            return false;
        }
        all &= as_high(&after[at], &less[at]);
        at += 1;
    }
    all
}

/// How many actors of `theirs` have no entry in `ours`.
fn count_missing<T>(mut ours: &[Entry<T>], theirs: &[Entry<T>]) -> usize {
    let mut missing = 0;
    for their in theirs {
        while let [our, rest @ ..] = ours
            && our.actor < their.actor
        {
            ours = rest;
        }
        match ours {
            [our, rest @ ..] if our.actor == their.actor => ours = rest,
            _ => missing += 1,
        }
    }
    missing
}

impl<B: Buf<Entry>> VersionVector<B> {
    /// Counts one more event of `actor` and answers its dot.
    ///
    /// # Errors
    /// If the counter is used up, or there is no room for another actor. Nothing is changed then.
    pub fn increment(&mut self, actor: Actor) -> Result<Dot, IncrementError<B::Full>> {
        self.increment_at(actor, ())
    }

    /// Takes in an event that somebody else counted, and with it all earlier ones of its actor, as a vector does; says whether
    /// that is news. Counter 0 names no event.
    ///
    /// # Errors
    /// `Full` if there is no room for another actor. Nothing is changed then.
    pub fn include(&mut self, dot: Dot) -> Result<bool, B::Full> {
        match self.find(dot.actor) {
            Ok(found) => {
                let counter = &mut self.entries.as_mut_slice()[found].counter;
                let news = *counter < dot.counter;
                *counter = dot.counter.max(*counter);
                Ok(news)
            }
            Err(_) if dot.counter == 0 => Ok(false),
            Err(place) => {
                let entry = Entry { actor: dot.actor, counter: dot.counter, at: () };
                self.entries.insert(place, entry).map(|()| true)
            }
        }
    }
}

impl<B: Buf<Entry<Stamp>>> VersionVector<B, Stamp> {
    /// How many pairs the paper keeps.
    pub const PAPER_LIMIT: usize = 10;

    /// Drops the entries that changed longest ago, until at most `limit` are left, and says how many went: the paper's
    /// clock truncation (SOSP 2007, section 4.4).
    ///
    /// It bounds the vector at a price. A truncated vector no longer includes what it came after, so versions of one
    /// line may look concurrent, and a reader reconciles what needed no reconciling. Nothing is overwritten because of it, on two conditions.
    /// A version keeps its own event: that is the latest of its vector as it was [counted](VersionVector::increment_past), so that
    /// truncation leaves it, down to a `limit` of 1; but merged with others a vector is no version's any more until it counts an event.
    /// And no actor counts from 1 again: one whose entry went would name its next event as an earlier one, and the new version
    /// would look old. So each keeps its own last counter, and goes on with
    /// [`increment_past`](VersionVector::increment_past). Of entries of one age the one with the smaller actor goes first, so that all replicas
    /// agree.
    pub fn truncate(&mut self, limit: usize) -> usize {
        let excess = self.len().saturating_sub(limit);
        if excess > 1 {
            let entries = self.entries.as_mut_slice();
            entries.select_nth_unstable_by_key(excess - 1, |entry| (entry.at, entry.actor));
            self.entries.remove_range(0, excess);
            self.entries.as_mut_slice().sort_unstable_by_key(|entry| entry.actor);
        } else if excess == 1 {
            // As most often. Of equals, the first.
            let oldest = self.entries().iter().enumerate().min_by_key(|(_, entry)| entry.at);
            let at = oldest.map_or(0, |(at, _)| at);
            self.entries.remove_range(at, at + 1);
        }
        excess
    }
}

impl<B: Buf<Entry<T>>, T: Copy + Ord> Default for VersionVector<B, T> {
    fn default() -> Self {
        VersionVector::new()
    }
}

impl<B: Buf<Entry<T>>, T: Copy + Ord> PartialEq for VersionVector<B, T> {
    fn eq(&self, other: &Self) -> bool {
        self.entries() == other.entries()
    }
}

impl<B: Buf<Entry<T>>, T: Copy + Ord> Eq for VersionVector<B, T> {}

impl<B: Buf<Entry<T>>, T: Copy + Ord + Hash> Hash for VersionVector<B, T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.entries().hash(state);
    }
}

impl<B: Buf<Entry<T>>, T: Copy + Ord> fmt::Debug for VersionVector<B, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.entries().iter().map(|entry| (entry.actor, entry.counter))).finish()
    }
}

impl<T: Serialize> Serialize for Entry<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.counter == 0 {
            return Err(serde::ser::Error::custom("an entry without an event has no encoding"));
        }
        (self.actor, Number(self.counter), &self.at).serialize(serializer)
    }
}

impl<'de, T: Beside> Deserialize<'de> for Checked<Entry<T>> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (actor, Number(counter), read) = <(Actor, Number, T::Read)>::deserialize(deserializer)?;
        Ok(Checked(if counter == 0 {
            Err(Malformed::CounterZero)
        } else {
            T::named(read).map(|at| Entry { actor, counter, at })
        }))
    }
}

impl<'de, T: Beside> Deserialize<'de> for Entry<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Checked::<Self>::deserialize(deserializer)?.or_custom()
    }
}

impl<B: Buf<Entry<T>>, T: Copy + Ord + Serialize> Serialize for VersionVector<B, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.entries().serialize(serializer)
    }
}

impl<'de, B, T> Deserialize<'de> for Checked<VersionVector<B, T>>
where
    B: Buf<Entry<T>>,
    T: Beside,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut vector = VersionVector::<B, T>::new();
        let take = |(actor, Number(counter), read): (Actor, Number, T::Read)| {
            vector.push_sorted(Entry { actor, counter, at: T::named(read)? })
        };
        let well = each(deserializer, "entries sorted by actor", take)?;
        Ok(Checked(well.map(|()| vector)))
    }
}

impl<'de, B, T> Deserialize<'de> for VersionVector<B, T>
where
    B: Buf<Entry<T>>,
    T: Beside,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Checked::<Self>::deserialize(deserializer)?.or_custom()
    }
}
