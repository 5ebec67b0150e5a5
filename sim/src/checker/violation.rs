//! What can be violated.

use crate::time::Time;
use bytes::Bytes;
use core::fmt;

/// The promises that the checker holds a run to. Their numbers are those of the project's list of targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Invariant {
    /// (1) An acknowledged value is readable after healing, unless it was covered.
    AcknowledgedReadable,
    /// (2) A value disappears only if an accepted context, or a plain write's coordinator, covered it.
    OnlyCoveredDisappears,
    /// (3, 4) What an acknowledged write covered does not return; deleted stays deleted.
    CoveredStaysGone,
    /// (5) A dot names one value for ever.
    DotNamesOneValue,
    /// (6) Nothing is invented, and values come back byte for byte.
    NothingInvented,
    /// (7) A replica's durable history of a key never shrinks.
    HistoryNeverShrinks,
    /// (8) A write's context covers the one handed in, and nothing that the writer was not shown.
    ContextCoversWhatWasShown,
    /// (9) With strict quorums a read after a write sees that write or a later one.
    ReadYourWrites,
    /// (9) What is said to be absent is absent at R owners.
    AbsenceIsAQuorum,
    /// (10) A write's stamp exceeds those of all that it covers.
    StampsRise,
    /// (10) In an `lww` keyspace what ranks highest of all that was seen is kept and shown, and nothing else.
    LastWriteWins,
    /// (2) An expired value is not shown, and what has not expired is not hidden.
    ExpiryHides,
    /// (11) An acknowledgement means so many copies on distinct nodes, as durable as the keyspace says.
    AcknowledgedCopies,
    /// (12) Nothing is dropped before somebody else holds it durably.
    NothingDroppedEarly,
    /// (12) Whatever layout a node goes by gives N distinct owners, in as many zones as there can be.
    DistinctOwners,
    /// (12) What a node goes by, and has told others that it does, it has written down.
    WrittenDownFirst,
    /// (13) After healing all replicas of a key are equal.
    Convergence,
    /// (14) After healing all hints are handed over.
    HintsDrain,
    /// (15) After healing all members know the same of the cluster, and no transition is live.
    ViewsEqual,
    /// (16) Every request ends by its deadline, once, and a definite failure is never visible.
    RequestsEnd,
    /// (17) Every bound holds.
    Bounds,
    /// A store opens again after any crash, and an engine never panics.
    Recovery,
    /// With nothing in the way a node does what it is asked, at rest at the cluster's levels and at all replicas.
    Available,
}

impl Invariant {
    /// The number in the project's list, 0 if it is not on it.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Invariant::AcknowledgedReadable => 1,
            Invariant::OnlyCoveredDisappears => 2,
            Invariant::CoveredStaysGone => 3,
            Invariant::DotNamesOneValue => 5,
            Invariant::NothingInvented => 6,
            Invariant::HistoryNeverShrinks => 7,
            Invariant::ContextCoversWhatWasShown => 8,
            Invariant::ReadYourWrites => 9,
            Invariant::AbsenceIsAQuorum => 9,
            Invariant::StampsRise => 10,
            Invariant::LastWriteWins => 10,
            Invariant::ExpiryHides => 2,
            Invariant::AcknowledgedCopies => 11,
            Invariant::NothingDroppedEarly => 12,
            Invariant::DistinctOwners => 12,
            Invariant::WrittenDownFirst => 12,
            Invariant::Convergence => 13,
            Invariant::HintsDrain => 14,
            Invariant::ViewsEqual => 15,
            Invariant::RequestsEnd => 16,
            Invariant::Bounds => 17,
            Invariant::Recovery | Invariant::Available => 0,
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Invariant::AcknowledgedReadable => "an acknowledged value is readable after healing",
            Invariant::OnlyCoveredDisappears => "a value disappears only if it was covered",
            Invariant::CoveredStaysGone => "what was covered stays gone",
            Invariant::DotNamesOneValue => "a dot names one value for ever",
            Invariant::NothingInvented => "nothing is invented",
            Invariant::HistoryNeverShrinks => "a replica's durable history never shrinks",
            Invariant::ContextCoversWhatWasShown => "a context covers what was shown, no more and no less",
            Invariant::ReadYourWrites => "strict quorums read their writes",
            Invariant::AbsenceIsAQuorum => "what is said to be absent is so at R owners",
            Invariant::StampsRise => "a write's stamp exceeds those of what it covers",
            Invariant::LastWriteWins => "where the last write wins, that one is kept and shown",
            Invariant::ExpiryHides => "what has expired is hidden, and nothing else",
            Invariant::AcknowledgedCopies => {
                "an acknowledgement means copies of W owners, as durable as its mode says"
            }
            Invariant::NothingDroppedEarly => "nothing is dropped before another holds it",
            Invariant::DistinctOwners => "every layout gives N distinct owners",
            Invariant::WrittenDownFirst => "what a node goes by it has written down",
            Invariant::Convergence => "replicas converge",
            Invariant::HintsDrain => "hints drain",
            Invariant::ViewsEqual => "members know the same of the cluster",
            Invariant::RequestsEnd => "every request ends once, by its deadline, as what it was",
            Invariant::Bounds => "every bound holds",
            Invariant::Recovery => "a node opens again",
            Invariant::Available => "a cluster does what it is asked when nothing is in the way",
        };
        match self.number() {
            0 => f.write_str(name),
            number => write!(f, "({number}) {name}"),
        }
    }
}

/// One broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub invariant: Invariant,
    /// When it was noticed.
    pub at: Time,
    /// The key concerned, if there is one.
    pub key: Option<Bytes>,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {}: violated: {}: {}", self.at, self.invariant, self.what)?;
        if let Some(key) = &self.key {
            write!(f, " (key {})", key.escape_ascii())?;
        }
        Ok(())
    }
}
