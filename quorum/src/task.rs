//! What is asked of one node's copies.

use crate::input::ListId;
use crate::journal::Weight;
use crate::message::{CallId, Syncing, Want};
use crate::object::{self, Content, Object, Rank};
use crate::op::{Cover, Expiry};
use crate::pull::PullId;
use alloc::vec::Vec;
use gramme_ring::NodeId;

/// Who reads a local copy.
#[derive(Debug)]
pub(crate) enum Reader {
    /// A read coordinated here.
    Coordinator(CallId),
    /// A peer.
    Peer(NodeId, CallId, Want),
    /// Hinted handoff to this owner.
    Handoff(NodeId),
    /// A pull, whose peer has an object with this digest.
    Pull(PullId, u64),
    /// A page for a peer that is to have the objects.
    Listing(ListId),
}

/// Who hands in an object to be merged.
#[derive(Debug)]
pub(crate) enum Source {
    /// A peer, which waits for the acknowledgement.
    Peer(NodeId, CallId, Syncing),
    /// This node's own read repair; nobody waits.
    Repair,
    /// A pull, which waits for it.
    Pull(PullId),
}

/// A write to be given its dot.
#[derive(Debug)]
pub(crate) struct Mint {
    pub(crate) call: CallId,
    pub(crate) content: Content,
    pub(crate) expiry: Option<Expiry>,
    pub(crate) cover: Cover,
    /// To be merged first: what a read or the acknowledgements showed that this copy may lack.
    pub(crate) also: Option<Object>,
    /// For whom hints are to be kept with it, if this node is a fallback.
    pub(crate) hints: Vec<NodeId>,
    pub(crate) sync: Syncing,
}

/// An object to be merged.
#[derive(Debug)]
pub(crate) struct Merge {
    pub(crate) source: Source,
    pub(crate) object: Object,
    pub(crate) outranked_by: Option<Rank>,
    /// For whom hints are to be kept with it, if this node is a fallback.
    pub(crate) hints: Vec<NodeId>,
    /// It comes from enough complete replicas to stand in for a damaged copy.
    pub(crate) heals: bool,
}

#[derive(Debug)]
pub(crate) enum Task {
    Read(Reader),
    Mint(Mint),
    Merge(Merge),
    /// The owner holds what this digest names: if the copy is still that, the hint goes.
    Settle {
        owner: NodeId,
        digest: Option<u64>,
    },
    /// Drop the copy, if it is still what this digest names. `None`: not any more.
    Forget {
        digest: Option<u64>,
    },
    /// Enough complete replicas say that there is no such key: a damaged record may go.
    ForgetDamaged,
}

impl Task {
    /// Whether a hint comes with it.
    pub(crate) const fn has_hints(&self) -> bool {
        matches!(self, Task::Merge(Merge { hints, .. }) | Task::Mint(Mint { hints, .. }) if !hints.is_empty())
    }
}

impl Weight for Task {
    fn weight(&self) -> usize {
        match self {
            Task::Merge(merge) => object::weigh_all(&merge.object),
            Task::Mint(mint) => mint.content.size() + mint.also.as_ref().map_or(0, object::weigh_all),
            Task::Read(_) | Task::Settle { .. } | Task::Forget { .. } | Task::ForgetDamaged => 0,
        }
    }
}
