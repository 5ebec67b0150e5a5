//! Mistakes that can be planted into an engine, to see that the simulator's checker finds them.
//!
//! Each is one that an engineer could make: a condition forgotten, a count off by one, a step taken too early. Without the
//! feature `planted` there are none, and the hooks at their places compile to nothing.

use crate::keyspace::Policy;
use crate::object::{Content, Object};
use crate::op::Reading;
use alloc::vec::Vec;

/// At most one of the mistakes, chosen in [`Config::planted`](crate::Config::planted).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Planted(#[cfg(feature = "planted")] Option<Bug>);

macro_rules! bugs {
    ($($(#[doc = $what:literal])* $name:ident,)*) => {
        /// A mistake.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $($(#[doc = $what])* $name,)*
        }

        impl Bug {
            /// All of them, each with its name and what it does.
            pub const ALL: &[(Bug, &str, &str)] =
                &[$((Bug::$name, stringify!($name), concat!($($what),*)),)*];
        }
    };
}

bugs! {
    /// A replica acknowledges a write before it is synced.
    AckBeforeSync,
    /// W is counted one too low.
    WTooLow,
    /// An owner and the fallback that stood in for it count as two copies.
    StandInCountsTwice,
    /// An acknowledgement that the network repeats counts twice.
    RepeatedAckCounts,
    /// However many bytes requests have in hand, more are taken.
    RequestBytesUnbounded,
    /// With no fallback left nobody keeps a hint.
    NoHintWithoutFallback,
    /// A write that may be on a peer that was lost is reported as surely not done.
    LostPeerIsNo,
    /// The coordinator of a plain write does not cover what outranks it.
    OutrankingIgnored,
    /// R is counted one too low.
    RTooLow,
    /// A read that names no primaries is answered with the first copy that has anything.
    FirstValueAnswers,
    /// The answer of a replica that lost its disk counts.
    IncompleteCounts,
    /// A fallback's "absent" counts.
    FallbackAbsentCounts,
    /// A digest counts as an answer whatever it is.
    DigestUnchecked,
    /// Read repair replaces the stale copy instead of merging with it.
    RepairOverwrites,
    /// A read shows the first sibling, and its context covers them all.
    ContextCoversUnshown,
    /// A tombstone with a later stamp hides a live sibling.
    TombstoneBeatsLive,
    /// A forwarded request that the network repeats is done twice.
    ForwardDoneTwice,
    /// A plain delete covers what one copy has, without a read.
    PlainDeleteUnread,
    /// A write that goes by a retired layout is accepted.
    RetiredWriteAccepted,
    /// After a sync that failed, what waited for it is acknowledged.
    SyncFailureIgnored,
    /// A write that the disk refused is acknowledged.
    AppendFailureIgnored,
    /// A fallback keeps the write and no hint.
    FallbackWithoutHint,
    /// A hint goes when its owner acknowledges, though the copy has changed since it was sent.
    SettleUnchecked,
    /// An interval of dots is extended across a copy that was dropped or not stored.
    IntervalAcrossBreak,
    /// A write's stamp is the clock's, even if what it covers has a later one.
    StampNotLifted,
    /// A merge keeps the newest of concurrent siblings.
    MergeDropsSiblings,
    /// A copy of which only tombstones are left is dropped at once.
    TombstoneDropped,
    /// A merge drops what has expired.
    ExpiredDropped,
    /// A value that is to expire some day is given back at once.
    GivenBackEarly,
    /// A node goes by its own clock alone when it gives back what has expired.
    LoneClock,
    /// A hint goes when the write is sent to its owner.
    HintDroppedOnSend,
    /// A fallback drops a copy for which another owner still waits.
    ForgottenWhileOwed,
    /// A copy that was to go goes, though its node has become an owner while the disk read it.
    OwnerForgets,
    /// A write gets its dot though it is answered, and nobody is left who would send it on.
    MintedLate,
    /// A node acknowledges a new layout while writes by the old one alone are under way.
    OldWritesUnderWay,
    /// Reads go to new owners before those have everything.
    ReadsMovedEarly,
    /// A node leaves while it keeps hints.
    LeavesWithHints,
    /// During a transition writes go to the new owners alone.
    NewLayoutOnly,
    /// A new or recovering owner copies from one of the others.
    TransferFromOne,
    /// When R falls, owners do not compare their copies before fewer are asked.
    FallNotCompared,
    /// What a new owner has copied before all write by both layouts counts.
    EarlyPullCounts,
    /// Copies of what moved away are dropped before the new owners have taken them.
    DroppedBeforeTaken,
    /// Copies of what moved away are dropped though something came after they were offered.
    SweepIgnoresArrivals,
    /// What a pull has listed for an earlier offer answers a later one.
    EarlierPullAnswers,
    /// A look through all hints frees whatever partitions are held.
    LookFreesAll,
    /// Anti-entropy skips the first slot that differs.
    SlotSkipped,
    /// What could not be written down of the membership is believed.
    UnsavedBelieved,
    /// That others know of more writes than this store has is ignored.
    RollbackIgnored,
    /// A damaged record counts as absent.
    DamagedIsAbsent,
    /// A node mints under its own id in every run.
    ActorKept,
    /// Where the last write wins, a write covers its context alone, as if others stayed beside it.
    LwwCoversContextOnly,
    /// Where the last write wins, a merge keeps what ranks lowest.
    LwwKeepsFirst,
    /// Where the last write wins, a read shows all that replicas have.
    LwwUnsettled,
    /// That a machine went down with what it had not synced is ignored.
    UnsyncedIgnored,
    /// What is acknowledged before it is synced is never synced for its own sake.
    IntervalNeverSynced,
    /// A request that names DW is acknowledged as its keyspace says.
    DwIgnored,
    /// A keyspace's time to live is ignored.
    TtlIgnored,
    /// Who has yet to hear of a keyspace acknowledges before it syncs.
    UnheardBuffered,
    /// What a node has lost hides that it has yet to gain older writes.
    LossHidesGains,
    /// A damaged copy is replaced by what one other owner has.
    HealedFromOne,
    /// A change to what was read is stamped as a new write.
    AmendmentOutranks,
    /// A tombstone that a fallback hands over buries what was written meanwhile.
    LateTombstoneBuries,
    /// A hint stays until the last one of a listing is acknowledged.
    HandoffStartsOver,
    /// A record that can't be read tells how far the dots of its slot have come: as if there were none.
    CounterFromDamaged,
    /// A merge keeps what either side holds, replaced or not.
    MergeRevives,
    /// A write that is ended early, since too many linger, leaves no hints.
    CutShortWithoutHint,
    /// Every write is refused: no replica can be reached.
    NothingIsWritten,
    /// A write that names no primaries does not cover what outranks it.
    OutrankingByDefault,
    /// What one replica is to sync at once it syncs as late as all others.
    OneNeverNow,
    /// However much a replica has under way, it takes what peers send.
    PeerWriteUnbounded,
    /// Handoff keeps any number of writes in flight.
    HandoffUnbounded,
    /// However many bytes siblings have, another one is taken.
    ObjectBytesUnbounded,
    /// A write is said to have replaced something when it has not.
    ReplacedLies,
    /// Hints for an owner that left become none for its heirs.
    LeaverHintsDropped,
    /// A node acknowledges a new layout before it has synced what it took by the old one.
    UnsyncedAcked,
    /// A read leaves a stale copy as it is.
    NoReadRepair,
    /// However many operations wait for their records, peers' reads are taken.
    PeerReadUnbounded,
    /// Where new rules hold, what waits for its record is acknowledged by the old ones.
    SyncFirstForgotten,
    /// How far peers' logs have come is not written down.
    NotesForgotten,
    /// Who was suspected once stays so for as long as its connection.
    SuspectedForGood,
    /// A damaged copy is replaced by what is left though some owner could not say what it has.
    HealedFromRest,
    /// Where every owner's copy is damaged or gone nothing is taken for all there is.
    NeverAll,
    /// A write replaces a damaged copy though others have the key.
    AlwaysAlone,
    /// Where nobody else owns a key a write does not replace its damaged copy.
    NeverAlone,
    /// A damaged copy is given up before the others have said that they have nothing.
    LostUnasked,
    /// That no owner has a whole copy any more is forgotten.
    LossForgotten,
    /// What a disk refuses to read is taken for damaged.
    RefusedIsDamaged,
    /// That a node is said to own what it has never pulled is ignored.
    SkippedIgnored,
    /// A listing that could not read all keys is taken for whole.
    UnreadableIgnored,
}

impl Planted {
    /// No mistake.
    #[cfg(feature = "planted")]
    pub const NONE: Planted = Planted(None);
    /// No mistake.
    #[cfg(not(feature = "planted"))]
    pub const NONE: Planted = Planted();

    /// This mistake alone.
    #[cfg(feature = "planted")]
    #[must_use]
    pub const fn one(bug: Bug) -> Planted {
        Planted(Some(bug))
    }

    /// Whether it is this mistake.
    #[cfg(feature = "planted")]
    #[must_use]
    pub fn is(self, bug: Bug) -> bool {
        self.0 == Some(bug)
    }

    /// Never: there are none without the feature.
    #[cfg(not(feature = "planted"))]
    #[must_use]
    pub const fn is(self, _: Bug) -> bool {
        false
    }

    /// What a client is shown.
    pub(crate) fn show(self, object: &Object, mut reading: Reading) -> Reading {
        if self.is(Bug::ContextCoversUnshown) {
            reading.siblings.truncate(1);
        }
        if self.is(Bug::TombstoneBeatsLive) {
            let tombstones = object.iter().filter(|(_, version)| version.content == Content::Tombstone);
            let last = tombstones.map(|(_, version)| version.stamp).max();
            reading.siblings.retain(|found| Some(found.stamp) > last);
        }
        reading
    }

    /// What a policy leaves of a merge; whether it has discarded anything.
    pub(crate) fn settle(self, policy: Policy, object: &mut Object) -> bool {
        let policy = if self.is(Bug::MergeDropsSiblings) { Policy::Lww } else { policy };
        if !self.is(Bug::LwwKeepsFirst) || policy != Policy::Lww {
            return policy.settle(object);
        }
        let first = object.iter().map(|(dot, version)| policy.rank(version, dot)).min();
        first.and_then(|first| object.keep_only(first.dot)).is_some_and(|gone| gone > 0)
    }

    /// Whether the others have said all that they ever will of a damaged copy.
    pub(crate) fn all(self, are: bool) -> bool {
        (are || self.is(Bug::HealedFromRest)) && !self.is(Bug::NeverAll)
    }

    /// Whether a damaged copy may be replaced by a write; `lost`: since no owner has a whole one.
    pub(crate) fn alone(self, alone: bool, lost: bool) -> bool {
        (alone || self.is(Bug::AlwaysAlone)) && (lost || !self.is(Bug::NeverAlone))
    }

    /// What becomes of values beside a tombstone that was handed over.
    pub(crate) fn bury(self, object: Object) -> Object {
        let tombstones = object.iter().filter(|(_, version)| version.content == Content::Tombstone);
        let kept = tombstones.map(|(dot, version)| (dot, version.clone())).collect::<Vec<_>>();
        Object::from_parts(kept, object.seen().clone()).expect("fewer of an object's entries")
    }

    /// What comes of merging the second object into the first.
    pub(crate) fn join(self, mut object: Object, other: Object) -> (Object, bool) {
        let both = self.is(Bug::MergeRevives).then(|| (object.clone(), other.clone()));
        let Ok(merged) = object.merge(other);
        let Some((before, other)) = both else { return (object, merged.changed) };
        let entries: alloc::collections::BTreeMap<_, _> =
            before.iter().chain(other.iter()).map(|(dot, version)| (dot, version.clone())).collect();
        let object = Object::from_parts(Vec::from_iter(entries), object.seen().clone());
        (object.expect("sorted entries, each of them seen"), merged.changed)
    }

    /// What a merge has made.
    pub(crate) fn merged(self, object: Object, wall_ms: u64) -> Object {
        if !self.is(Bug::ExpiredDropped) || object.iter().all(|(_, version)| version.expiry.is_none()) {
            return object;
        }
        let kept = object.iter().filter(|(_, version)| !version.is_value() || version.is_live(wall_ms));
        let kept = kept.map(|(dot, version)| (dot, version.clone())).collect::<Vec<_>>();
        Object::from_parts(kept, object.seen().clone()).expect("fewer of an object's entries")
    }
}
