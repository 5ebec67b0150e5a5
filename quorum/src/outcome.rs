//! What came of what was asked of one node's copies.

use crate::input::Place;
use crate::journal::Kept;
use crate::message::{CallId, Refusal};
use crate::object::{Object, Rank};
use crate::op::OpError;
use crate::pull::PullId;
use crate::task::{Reader, Source};
use alloc::boxed::Box;
use alloc::vec::Vec;
use bytes::Bytes;
use gramme_ring::NodeId;
use gramme_vclock::GrowableContext as Context;

/// What waits for the disk.
#[derive(Debug)]
pub(crate) enum Waiting {
    Minted(CallId),
    Merged {
        to: NodeId,
        call: CallId,
        hints: Vec<NodeId>,
        outranking: Option<Bytes>,
    },
    /// The actor of this run.
    Actor,
    /// A hint beside a copy that is there already.
    Hint,
    /// Hints for the heirs of this owner, who is none any more, to this key.
    Inherited(NodeId, Bytes),
    /// The removal of a hint for this owner.
    HintGone(NodeId),
    /// What an object carries that is minted in the same breath and goes out: that it failed here is nothing certain.
    Carried(Box<Waiting>),
    /// An object of a pull.
    Pulled(PullId),
    /// All of a pull.
    PullEnd(PullId),
}

/// A local copy, as a reader gets it.
#[derive(Debug)]
pub(crate) enum Held {
    Object {
        object: Box<Object>,
        encoded: Bytes,
        digest: u64,
    },
    Absent,
    /// It can't be read; `for_good`: and never will be.
    Unknown {
        for_good: bool,
    },
}

/// A write that got its dot.
#[derive(Debug)]
pub(crate) struct Minted {
    pub(crate) call: CallId,
    /// What the other replicas are to merge: all of the object. The new sibling alone would not do: its context
    /// is flattened, and speaks for siblings that were replaced here by others which a replica may still lack.
    pub(crate) object: Object,
    pub(crate) encoded: Bytes,
    pub(crate) context: Context,
    pub(crate) rank: Rank,
    pub(crate) replaced: bool,
    /// Whether this node's own copy took part; not while that is damaged.
    pub(crate) held: bool,
}

/// What came of the tasks of one key.
#[derive(Debug)]
pub(crate) enum Event {
    Read(Bytes, Reader, Held),
    Minted(Box<Minted>),
    MintRefused(CallId, OpError),
    MergeRefused(Source, Refusal),
    /// A merge changed nothing, and what it found is durable already.
    Kept(Kept<Waiting>),
    /// It changed nothing, and nothing becomes durable any more.
    NotKept(Waiting),
    /// The damaged record of this key is replaced.
    Healed(Bytes),
    /// A hint for this owner is among the appends.
    Hinted(NodeId),
    /// A copy is, and no hint with it.
    Stored(Place),
    /// Whether the copy is still what was handed over.
    Settled {
        key: Bytes,
        owner: NodeId,
        digest: Option<u64>,
        current: bool,
    },
    /// The copy of this key is damaged, and somebody wanted it.
    Damaged {
        key: Bytes,
        for_good: bool,
    },
}
