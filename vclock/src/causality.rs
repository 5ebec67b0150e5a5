//! How two histories relate.

use core::cmp::Ordering;
use core::fmt;

/// How one history relates to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Causality {
    /// Both know the same events.
    Equal,
    /// The other knows all that this one knows, and more.
    Before,
    /// This one knows all that the other knows, and more.
    After,
    /// Each knows something that the other does not.
    Concurrent,
}

impl fmt::Display for Causality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Causality::Equal => "equal",
            Causality::Before => "before",
            Causality::After => "after",
            Causality::Concurrent => "concurrent",
        })
    }
}

impl Causality {
    /// From what each side lacks: `this_lacks` says that the other knows something this one does not.
    pub(crate) const fn from_lacks(this_lacks: bool, other_lacks: bool) -> Causality {
        match (this_lacks, other_lacks) {
            (false, false) => Causality::Equal,
            (true, false) => Causality::Before,
            (false, true) => Causality::After,
            (true, true) => Causality::Concurrent,
        }
    }

    /// The relation of two lists that have the same keys in the same order, by their counters: the usual case, and the
    /// quick one. `None` if the keys differ.
    pub(crate) fn of_aligned<T, K: PartialEq>(
        ours: &[T],
        theirs: &[T],
        key_and_counter: impl Fn(&T) -> (K, u64),
    ) -> Option<Causality> {
        if ours.len() != theirs.len() {
            return None;
        }
        let (mut this_lacks, mut other_lacks) = (false, false);
        for (ours, theirs) in ours.iter().zip(theirs) {
            let ((ours_key, ours), (theirs_key, theirs)) = (key_and_counter(ours), key_and_counter(theirs));
            if ours_key != theirs_key {
                return None;
            }
            // Without a branch: which counters are higher no predictor can know.
            this_lacks |= ours < theirs;
            other_lacks |= theirs < ours;
        }
        Some(Causality::from_lacks(this_lacks, other_lacks))
    }

    /// As an ordering: `Less` is [`Before`](Causality::Before), and `None` is [`Concurrent`](Causality::Concurrent).
    #[must_use]
    pub const fn ordering(self) -> Option<Ordering> {
        match self {
            Causality::Equal => Some(Ordering::Equal),
            Causality::Before => Some(Ordering::Less),
            Causality::After => Some(Ordering::Greater),
            Causality::Concurrent => None,
        }
    }

    /// The same relation seen from the other side.
    #[must_use]
    pub const fn reverse(self) -> Causality {
        match self {
            Causality::Before => Causality::After,
            Causality::After => Causality::Before,
            same => same,
        }
    }
}
