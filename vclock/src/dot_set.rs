//! Exact sets of events.

use crate::buf::{Buf, become_longer, insert_missing};
use crate::causality::Causality;
use crate::checked::{Checked, each};
use crate::dot::{Actor, Dot, Span};
use crate::malformed::Malformed;
use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};
use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

/// An exact set of dots, held as spans.
///
/// A plain version vector says "all of this actor's events up to 7" and so claims events it never saw when counters
/// run across many keys. This set claims what it holds and nothing else. Its spans are sorted by (actor, first),
/// disjoint, and never touch, so that two sets of the same dots are equal span by span.
///
/// ```
/// use gramme_vclock::{Actor, Causality, Dot, FixedDotSet, Span};
///
/// let dot = |counter| Dot { actor: Actor(7), counter };
/// let mut ours = FixedDotSet::<2>::new();
/// ours.insert(dot(1))?;
/// ours.insert(dot(3))?;
/// assert!(ours.contains(dot(3)) && !ours.contains(dot(2))); // the last one seen says nothing of those before it
///
/// let theirs = FixedDotSet::from_spans([dot(2).span()])?;
/// assert_eq!(ours.compare(&theirs), Causality::Concurrent);
/// ours.union(&theirs)?;
/// assert_eq!(ours.spans(), [Span { actor: Actor(7), first: 1, last: 3 }]);
/// # Ok::<(), gramme_vclock::Full>(())
/// ```
#[derive(Clone)]
pub struct DotSet<B> {
    spans: B,
}

/// A [`DotSet`] that grows; no allocation up to 4 spans.
#[cfg(feature = "alloc")]
pub type GrowableDotSet = DotSet<crate::InlineVec<Span, 4>>;

/// A [`DotSet`] of at most `N` spans, without an allocator.
pub type FixedDotSet<const N: usize> = DotSet<heapless::Vec<Span, N>>;

impl<B: Buf<Span>> DotSet<B> {
    /// The empty set.
    #[must_use]
    pub fn new() -> Self {
        DotSet { spans: B::default() }
    }

    /// The union of `spans`, in any order. They are sorted whenever twice as many have come as there were after the last time, so that it
    /// takes the time of a sort, and room for twice as many as the union has. A fixed form that is more than half full takes the rest one by
    /// one, each at the cost of moving what comes after it.
    ///
    /// Those that name no events ([`Span::is_valid`]) add none; where they are a
    /// mistake to be told of, [`from_sorted_spans`](DotSet::from_sorted_spans) has a name for it.
    ///
    /// # Errors
    /// `Full` if they don't fit, or those that have come so far don't at some point: 1, 3, 5 need room for three spans, though 2 and 4 after them
    /// leave one. In ascending order they need no more room than their union has, and with room for all that are given they fit in any.
    pub fn from_spans(spans: impl IntoIterator<Item = Span>) -> Result<Self, B::Full> {
        const FIRST: usize = 16;
        let mut spans = spans.into_iter().filter(|span| span.is_valid());
        let (mut set, mut most) = (DotSet::<B>::new(), FIRST);
        // In any order meanwhile, and some may overlap.
        for span in &mut spans {
            let held = set.spans().len();
            if held == most || set.spans.fits(held + 1).is_err() {
                set.put_in_order();
                most = FIRST.max(2 * set.spans().len());
                if set.spans.fits(most).is_err() {
                    set.insert_span(span)?;
                    break;
                }
            }
            set.spans.push(span)?;
        }
        set.put_in_order();
        spans.try_for_each(|span| set.insert_span(span))?;
        Ok(set)
    }

    fn put_in_order(&mut self) {
        self.spans.as_mut_slice().sort_unstable();
        self.join_touching();
    }

    /// The set that has just these spans: sorted by (actor, first), with a gap between any two of one actor, as
    /// [`DotSet::spans`] answers them and encodings hold them.
    ///
    /// # Errors
    /// If they are not so, name no events, or don't fit.
    pub fn from_sorted_spans(spans: impl IntoIterator<Item = Span>) -> Result<Self, Malformed> {
        let mut set = DotSet::new();
        for span in spans {
            set.push_sorted(span)?;
        }
        Ok(set)
    }

    /// Adds a span that must leave a gap to all before it.
    pub(crate) fn push_sorted(&mut self, span: Span) -> Result<(), Malformed> {
        if span.first == 0 {
            return Err(Malformed::CounterZero);
        }
        if span.last < span.first {
            return Err(Malformed::CounterOverflow);
        }
        if let Some(last) = self.spans().last() {
            if (span.actor, span.first) < (last.actor, last.first) {
                return Err(Malformed::Unsorted);
            }
            if last.touches(span) {
                return Err(Malformed::Touching);
            }
        }
        self.spans.push(span).map_err(|_| Malformed::Full)
    }

    /// Whether no dot is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans().is_empty()
    }

    /// The spans: sorted by (actor, first), disjoint, with a gap between any two of one actor.
    #[must_use]
    pub fn spans(&self) -> &[Span] {
        self.spans.as_slice()
    }

    /// Whether `dot` is in the set.
    #[must_use]
    pub fn contains(&self, dot: Dot) -> bool {
        self.contains_span(dot.span())
    }

    /// Whether every dot of `span` is in the set; false for a span that names no events.
    #[must_use]
    pub fn contains_span(&self, span: Span) -> bool {
        let at = self.spans().partition_point(|held| (held.actor, held.last) < (span.actor, span.last));
        span.is_valid()
            && self.spans().get(at).is_some_and(|held| held.actor == span.actor && held.first <= span.first)
    }

    /// The dots of this set that `other` lacks, as spans in order: what a peer that has `other` is to be sent.
    ///
    /// ```
    /// use gramme_vclock::{Actor, FixedDotSet, Span};
    ///
    /// let span = |first, last| Span { actor: Actor(7), first, last };
    /// let ours = FixedDotSet::<4>::from_spans([span(1, 9), span(20, 21)])?;
    /// let theirs = FixedDotSet::<4>::from_spans([span(3, 4), span(8, 20)])?;
    /// assert!(ours.without(&theirs).eq([span(1, 2), span(5, 7), span(21, 21)]));
    /// # Ok::<(), gramme_vclock::Full>(())
    /// ```
    pub fn without<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = Span> + 'a {
        let mut ours = self.spans().iter().copied();
        let mut theirs = other.spans();
        let mut rest: Option<Span> = None;
        core::iter::from_fn(move || {
            loop {
                let span = rest.take().or_else(|| ours.next())?;
                while let [first, later @ ..] = theirs
                    && (first.actor, first.last) < (span.actor, span.first)
                {
                    theirs = later;
                }
                match theirs.first() {
                    Some(cut) if cut.actor == span.actor && cut.first <= span.last => {
                        if cut.last < span.last {
                            rest = Some(Span { first: cut.last + 1, ..span });
                        }
                        if span.first < cut.first {
                            return Some(Span { last: cut.first - 1, ..span });
                        }
                    }
                    _ => return Some(span),
                }
            }
        })
    }

    /// The greatest counter of `actor` in the set.
    #[must_use]
    pub fn last_of(&self, actor: Actor) -> Option<u64> {
        let end = self.spans().partition_point(|held| held.actor <= actor);
        let held = self.spans()[..end].last()?;
        (held.actor == actor).then_some(held.last)
    }

    /// Adds one dot. Counter 0 names no event, and nothing is changed.
    ///
    /// # Errors
    /// `Full` if the dot needs a span of its own and there is no room; nothing is changed then.
    pub fn insert(&mut self, dot: Dot) -> Result<(), B::Full> {
        self.insert_span(dot.span())
    }

    /// Adds every dot of a span. One that names no events ([`Span::is_valid`]) has none, and nothing is changed.
    ///
    /// # Errors
    /// `Full` if it needs a place of its own and there is no room; nothing is changed then.
    pub fn insert_span(&mut self, span: Span) -> Result<(), B::Full> {
        if !span.is_valid() {
            return Ok(());
        }
        let held = self.spans();
        // Every span in from..to overlaps the new one or stands right beside it.
        let from = held.partition_point(|s| (s.actor, s.last.saturating_add(1)) < (span.actor, span.first));
        let to = from
            + held[from..]
                .partition_point(|s| s.actor == span.actor && s.first <= span.last.saturating_add(1));
        if from == to {
            return self.spans.insert(from, span);
        }
        let first = held[from].first.min(span.first);
        let last = held[to - 1].last.max(span.last);
        self.spans.as_mut_slice()[from] = Span { actor: span.actor, first, last };
        self.spans.remove_range(from + 1, to);
        Ok(())
    }

    /// Adds every dot of `other`, and says whether that changed anything.
    ///
    /// # Errors
    /// `Full` if the union has more spans than there is room for; nothing is changed then.
    pub fn union(&mut self, other: &Self) -> Result<bool, B::Full> {
        if aligned(self.spans(), other.spans()) {
            let mut changed = false;
            for (ours, theirs) in self.spans.as_mut_slice().iter_mut().zip(other.spans()) {
                changed |= ours.last < theirs.last;
                ours.last = ours.last.max(theirs.last);
            }
            return Ok(changed);
        }
        let (held, theirs) = (self.spans().len(), other.spans());
        if held < theirs.len() && other.includes(self) {
            become_longer(&mut self.spans, theirs)?;
            return Ok(true);
        }
        if self.spans.fits(held + theirs.len()).is_err() {
            let all = self.joined(other)?;
            let changed = all != *self;
            *self = all;
            return Ok(changed);
        }
        // What touches one of ours widens it where it stands.
        let spans = self.spans.as_mut_slice();
        let (mut changed, mut joins, mut at, mut missing) = (false, false, 0, 0);
        for their in theirs {
            while at < held && spans[at].end() < their.start() - 1 {
                at += 1;
            }
            match &mut spans[at..held] {
                [our, after @ ..] if our.start() - 1 <= their.end() => {
                    changed |= their.first < our.first || our.last < their.last;
                    our.first = our.first.min(their.first);
                    our.last = our.last.max(their.last);
                    joins |= after.first().is_some_and(|next| our.touches(*next));
                }
                _ => missing += 1,
            }
        }
        if joins {
            self.join_touching();
        }
        if missing > 0 {
            // All that touch are joined: a span of theirs lies within one of ours or stands apart from all.
            insert_missing(&mut self.spans, theirs, missing, |our, their| {
                if our.start() > their.start() {
                    Ordering::Greater
                } else if our.end() < their.end() {
                    Ordering::Less
                } else {
                    Ordering::Equal
                }
            })?;
        }
        Ok(changed | (missing > 0))
    }

    /// Makes one span of those that touch.
    fn join_touching(&mut self) {
        let spans = self.spans.as_mut_slice();
        let mut last = 0;
        for at in 1..spans.len() {
            if spans[last].touches(spans[at]) {
                spans[last].last = spans[last].last.max(spans[at].last);
            } else {
                last += 1;
                spans[last] = spans[at];
            }
        }
        self.spans.truncate(last + 1);
    }

    /// The union as a new set.
    pub(crate) fn joined(&self, other: &Self) -> Result<Self, B::Full> {
        self.joined_filling(other, |_| false)
    }

    /// The union as a new set, with those gaps between two spans of one actor filled for which `fill` answers true.
    pub(crate) fn joined_filling(
        &self,
        other: &Self,
        mut fill: impl FnMut(Span) -> bool,
    ) -> Result<Self, B::Full> {
        let (mut left, mut right) = (self.spans(), other.spans());
        let mut all = DotSet { spans: B::with_room(self.spans().len().max(other.spans().len())) };
        loop {
            let next = match (left, right) {
                ([l, rest @ ..], [r, ..]) if l <= r => {
                    left = rest;
                    *l
                }
                (_, [r, rest @ ..]) => {
                    right = rest;
                    *r
                }
                ([l, rest @ ..], []) => {
                    left = rest;
                    *l
                }
                ([], []) => return Ok(all),
            };
            all.append(next, &mut fill)?;
        }
    }

    /// Adds a span that starts no earlier than the last one held, and the gap between the two if `fill` says so.
    fn append(&mut self, span: Span, fill: &mut impl FnMut(Span) -> bool) -> Result<(), B::Full> {
        match self.spans.as_mut_slice().last_mut() {
            Some(last)
                if last.touches(span)
                    || (last.actor == span.actor
                        && fill(Span { actor: span.actor, first: last.last + 1, last: span.first - 1 })) =>
            {
                last.last = last.last.max(span.last);
                Ok(())
            }
            _ => self.spans.push(span),
        }
    }

    /// Whether every dot of `other` is in this set.
    #[must_use]
    pub fn includes(&self, other: &Self) -> bool {
        let held = self.spans();
        if aligned(held, other.spans()) {
            return held
                .iter()
                .zip(other.spans())
                .fold(true, |all, (ours, theirs)| all & (ours.last >= theirs.last));
        }
        let mut rest = other.spans().iter();
        let Some(mut wanted) = rest.next() else { return true };
        for span in held {
            while span.end() >= wanted.end() {
                if span.actor != wanted.actor || span.first > wanted.first {
                    return false;
                }
                match rest.next() {
                    Some(next) => wanted = next,
                    None => return true,
                }
            }
        }
        false
    }

    /// How this set, as a history, relates to another.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Causality {
        Causality::of_aligned(self.spans(), other.spans(), |span: &Span| {
            ((span.actor, span.first), span.last)
        })
        .unwrap_or_else(|| Causality::from_lacks(!self.includes(other), !other.includes(self)))
    }
}

/// Whether the spans of both start alike: the usual case of one history and a little more, and the quick one. Only their
/// ends can differ then, and as neither set's spans touch, no end of one reaches the next start of the other.
fn aligned(ours: &[Span], theirs: &[Span]) -> bool {
    let starts = || ours.iter().zip(theirs);
    let same = |ours: &Span, theirs: &Span| (ours.actor == theirs.actor) & (ours.first == theirs.first);
    ours.len() == theirs.len() && starts().fold(true, |all, (ours, theirs)| all & same(ours, theirs))
}

impl<B: Buf<Span>> Default for DotSet<B> {
    fn default() -> Self {
        DotSet::new()
    }
}

impl<B: Buf<Span>> PartialEq for DotSet<B> {
    fn eq(&self, other: &Self) -> bool {
        self.spans() == other.spans()
    }
}

impl<B: Buf<Span>> Eq for DotSet<B> {}

impl<B: Buf<Span>> Hash for DotSet<B> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.spans().hash(state);
    }
}

impl<B: Buf<Span>> fmt::Debug for DotSet<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.spans()).finish()
    }
}

impl<B: Buf<Span>> Serialize for DotSet<B> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.spans().serialize(serializer)
    }
}

impl<'de, B: Buf<Span>> Deserialize<'de> for Checked<DotSet<B>> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut set = DotSet::<B>::new();
        let expecting = "spans sorted by (actor, first) that neither overlap nor touch";
        let well = each(deserializer, expecting, |Checked(span): Checked<Span>| set.push_sorted(span?))?;
        Ok(Checked(well.map(|()| set)))
    }
}

impl<'de, B: Buf<Span>> Deserialize<'de> for DotSet<B> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Checked::<Self>::deserialize(deserializer)?.or_custom()
    }
}
