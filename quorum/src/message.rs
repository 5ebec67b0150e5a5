//! What engines say to each other. `docs/PROTOCOL.md` has the bytes.

use crate::input::ListCursor;
use crate::object::Rank;
use crate::op::{Op, Reply};
use crate::opening::Run;
use crate::time::Instant;
use alloc::vec::Vec;
use bytes::Bytes;
use gramme_ring::{LayoutVersion, NodeId};
use serde::{Deserialize, Serialize};

/// Names a question to a peer; the answer repeats it. Unique per asking engine and run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CallId(pub u64);

/// Why a replica is handed an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// A client's write.
    Write,
    /// Read repair.
    Repair,
    /// Hinted handoff.
    Handoff,
}

/// How much of an object a reader wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Want {
    /// Everything.
    Object,
    /// Only its digest.
    Digest,
    /// Everything, to replace a damaged copy: what any copy may lack makes it no less complete.
    Source,
}

/// Which sums over slots are asked for. Both sides tell from their layout which partitions they share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SumsOf {
    /// One sum over all shared partitions.
    All,
    /// One for each shared partition, in ring order.
    Partitions,
    /// One for each slot of these partitions.
    Slots(Vec<u16>),
}

/// Why a replica did not do what it was asked. Nothing changed there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// Its disk is full, or its store has stopped writing.
    Unwritable,
    /// Its own copy of the key is damaged and not yet healed.
    Unknown,
    /// It has too much in flight.
    Overloaded,
    /// It follows another layout.
    Layout(LayoutVersion),
    /// What was sent does not decode.
    Malformed,
    /// It is not one of the key's coordinators; ask another.
    NotCoordinator,
    /// Its own copy of the key was read and is damaged: it won't be had from here before it is healed.
    Damaged,
}

/// What a replica does first with a write, to acknowledge it or to make it durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Syncing {
    /// It is synced, then acknowledged.
    First,
    /// It is acknowledged when it is in the log, and synced at once.
    Now,
    /// It is acknowledged when it is in the log, and synced within [`Timing::interval`](crate::Timing::interval).
    Later,
}

/// A replica's copy of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Copy {
    /// The encoded object.
    Object(Bytes),
    /// The digest of the encoded object.
    Digest(u64),
    /// It has none, and knows it.
    Absent,
}

/// One message between engines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// "I am alive"; sent a few times a second.
    Heartbeat {
        /// Which opening of its store this is: its number exceeds all marks of earlier ones.
        run: Run,
        /// How far its log has come, durably.
        mark: u64,
        /// When it was sent, by the sender's own clock: to be repeated by what [is forwarded](Message::Forward) to it.
        at: Instant,
        /// What its wall clock shows, in milliseconds since the Unix epoch: nobody goes by it alone.
        wall_ms: u64,
    },
    /// This run's number is no greater than this mark, which another run of the same node told: its store was put back from an
    /// old copy.
    Outdated {
        /// The run, as its heartbeat told.
        run: Run,
        /// The mark.
        mark: u64,
    },
    /// Merge this object into your copy.
    Write {
        /// Repeated in the acknowledgement.
        call: CallId,
        /// The sender's layout.
        layout: LayoutVersion,
        /// Why.
        purpose: Purpose,
        /// The key.
        key: Bytes,
        /// The encoded object.
        object: Bytes,
        /// The owners for whom the receiver is to keep it, as a fallback: one by each layout in use at the most.
        hints: Vec<NodeId>,
        /// What is to come first, the acknowledgement or the sync.
        sync: Syncing,
        /// For a plain write: report the siblings that it does not cover and that outrank this.
        outranked_by: Option<Rank>,
    },
    /// The object of `call` is merged here, and as durable as was asked for.
    Written {
        /// Which write.
        call: CallId,
        /// The owners for whom it is kept, as that write asked for: one call may send a node several.
        hints: Vec<NodeId>,
        /// Encoded siblings that outrank a plain write, if there are any.
        outranking: Option<Bytes>,
    },
    /// What do you have of this key?
    Read {
        /// Repeated in the answer.
        call: CallId,
        /// The sender's layout.
        layout: LayoutVersion,
        /// The key.
        key: Bytes,
        /// All of it, or a digest.
        want: Want,
    },
    /// The answer to a read.
    Copy {
        /// Which read.
        call: CallId,
        /// What there is.
        copy: Copy,
        /// Whether this replica may miss data: then it counts toward no quorum.
        incomplete: bool,
        /// Which opening of its store this is (see [`Message::Heartbeat`]): one that is too early counts as incomplete.
        run: Run,
    },
    /// A write or read was refused; nothing changed.
    Refused {
        /// Which call.
        call: CallId,
        /// Why.
        why: Refusal,
    },
    /// Coordinate this request in my stead.
    Forward {
        /// Repeated in the answer.
        call: CallId,
        /// The request.
        op: Op,
        /// The latest that was heard of the receiver by this connection: [`Heartbeat::at`](Message::Heartbeat::at). It tells how old
        /// this may be, so that a node that was stopped for a while does nothing that others have given up long ago.
        heard: Option<Instant>,
    },
    /// What a forwarded request came to.
    Forwarded {
        /// Which one.
        call: CallId,
        /// Its answer.
        reply: Reply,
    },
    /// Which keys do you have in this partition?
    List {
        /// Repeated in the answer.
        call: CallId,
        /// The sender's layout.
        layout: LayoutVersion,
        /// The partition's first slot and its last.
        slots: (u16, u16),
        /// From a former page's `next`; `None` to begin.
        cursor: Option<ListCursor>,
        /// With the objects, as far as they go into a page.
        objects: bool,
    },
    /// One page of them.
    Listed {
        /// Which listing.
        call: CallId,
        /// Keys, each with the digest of its object.
        keys: Vec<(Bytes, u64)>,
        /// The encoded objects of the first of them, if they were asked for; an empty one is to be read alone.
        objects: Vec<Bytes>,
        /// Where to go on; `None` at the end.
        next: Option<ListCursor>,
        /// Nothing that this replica ever acknowledged is missing, except for what may have gone with a machine before it was synced,
        /// where the keyspace allows that.
        complete: bool,
        /// Records of these slots are damaged for good, and not even their keys can be told.
        damaged: bool,
        /// Which opening of its store this is.
        run: Run,
    },
    /// What do your copies add up to?
    Sums {
        /// Repeated in the answer.
        call: CallId,
        /// The sender's layout.
        layout: LayoutVersion,
        /// Which sums.
        of: SumsOf,
    },
    /// What is known of the cluster's members, and of what they say of themselves.
    Gossip(gramme_ring::gossip::Message),
    /// Pull these slots from me: you own them, and I don't, or not for long.
    Offer {
        /// Repeated in the answer.
        call: CallId,
        /// The sender's layout.
        layout: LayoutVersion,
        /// The first slot and the last.
        slots: (u16, u16),
    },
    /// The pull has ended.
    Offered {
        /// Which offer.
        call: CallId,
        /// All of it is durable here.
        whole: bool,
    },
    /// The sums.
    Summed {
        /// Which question.
        call: CallId,
        /// In the order of the slots.
        sums: Vec<u128>,
    },
}
