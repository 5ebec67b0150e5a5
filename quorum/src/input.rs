//! What goes into the engine and what comes out of it.

use crate::anti_entropy::SumsId;
use crate::membership::{ClusterError, ClusterOp};
use crate::message::Message;
use crate::object::Shrink;
use crate::op::{Op, Reply, RequestId};
use alloc::boxed::Box;
use alloc::vec::Vec;
use bytes::Bytes;
use gramme_ring::{Membership, NodeId};
use serde::{Deserialize, Serialize};

/// Where a record lies in the store: a data slot (0 to 16383) or one of the engine's own (16384 and up).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place(pub u16);

/// Names an append; they are numbered in the order in which the store must perform them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppendId(pub u64);

/// Names a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoadId(pub u64);

/// Names a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListId(pub u64);

/// What a load found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// The record's value.
    Found(Bytes),
    /// The store has no such record, and knows it.
    Absent,
    /// There is or may be a record, and the disk refuses to read it: another day it may not. Never to be taken for absence. With the
    /// version tag that it was appended with, if the store knows that: what others have under the same tag takes its place.
    Unknown(Option<u64>),
    /// There is a record, it was read, and its checksum does not hold: it won't be read another day either.
    Damaged,
}

/// Where a listing goes on. Each page's is greater than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ListCursor {
    /// The slot.
    pub place: Place,
    /// Where in it, as the store counts; it must stay good across openings of the same store.
    pub at: u64,
}

/// One page of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys in the store's order, each with the version tag of its record.
    pub keys: Vec<(Bytes, u64)>,
    /// Records that are there and whose keys can't be read.
    pub unreadable: u64,
    /// Where to go on; `None` at the end.
    pub next: Option<ListCursor>,
}

/// One thing that happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Input {
    /// A client asks.
    Client(RequestId, Op),
    /// An operator asks; the answer is [`Output::Cluster`].
    Cluster(RequestId, ClusterOp),
    /// A peer's message arrived. Messages may be lost, repeated and reordered.
    Peer(NodeId, Message),
    /// A connection to this peer stands: it can be sent to.
    Connected(NodeId),
    /// There is no connection to this peer.
    Disconnected(NodeId),
    /// More waits to be sent to this peer than it takes: until told otherwise it is sent no more objects than were promised,
    /// and writes are kept for it (`true`). It takes messages again (`false`), as it does when a connection is new.
    Congested(NodeId, bool),
    /// An [`Output::Load`] was performed.
    Loaded(LoadId, Loaded),
    /// An [`Output::List`] was performed; `None` if the store could not.
    Listed(ListId, Option<Page>),
    /// An [`Output::Sums`] was performed.
    Summed(SumsId, Vec<u128>),
    /// An [`Output::Save`] was performed (`true`), or could not be. Handed in before anything else.
    Saved(bool),
    /// An [`Output::Append`] or [`Output::DropSlot`] was refused by the store, which is as it was before.
    AppendFailed(AppendId),
    /// An [`Output::Confirm`] was performed: every append up to and including this one, except those that failed, is in the log and
    /// survives the end of this process, if not of the machine.
    Written(AppendId),
    /// Every append up to and including this one, except those that failed, is on stable storage. And the position of the
    /// store's log up to which all is, as [`Opening::new`](crate::Opening::new) was given it.
    Synced(AppendId, u64),
    /// The store has found damage to a record in this slot, and can't tell whose it is: the other owners are asked.
    Damaged(Place),
    /// A sync failed: nothing that is not yet reported synced ever will be.
    SyncFailed,
    /// Time has passed (see [`crate::Engine::deadline`]).
    Tick,
}

/// One thing to do. The caller performs outputs in the order in which they are polled.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Output {
    /// Send to a peer; if there is no connection, forget it.
    Send(NodeId, Message),
    /// Answer a client.
    Reply(RequestId, Reply),
    /// Read a record, and say so with [`Input::Loaded`]. It sees every earlier append.
    Load {
        /// To be repeated in the answer.
        id: LoadId,
        /// The slot.
        place: Place,
        /// The key.
        key: Bytes,
    },
    /// Write a record. Only a failure is answered at once; success is told by a later [`Input::Synced`], for which an
    /// [`Output::Sync`] will ask.
    Append {
        /// To be repeated in the answer; one more than the last.
        id: AppendId,
        /// The slot.
        place: Place,
        /// The key.
        key: Bytes,
        /// The value and its version tag; `None` removes the record.
        value: Option<(Bytes, u64)>,
        /// What of the value may go one day, whenever the store comes by; its tag stays. A store may as well keep all.
        shrink: Option<Shrink>,
    },
    /// Say with [`Input::Written`] that all appends up to this one were performed, after every [`Input::AppendFailed`] among them.
    Confirm(AppendId),
    /// Make durable what was appended so far. One that is under way already may not cover it.
    Sync,
    /// List the keys of some slots, and say so with [`Input::Listed`]. A key that is there from the first page to the
    /// last is on one of them, whatever is written meanwhile.
    List {
        /// To be repeated in the answer.
        id: ListId,
        /// The first slot.
        first: Place,
        /// The last slot.
        last: Place,
        /// From a former page's `next`; `None` to begin.
        cursor: Option<ListCursor>,
        /// How many keys at the most; at least 1.
        limit: usize,
    },
    /// Add up the records of these slots (first and last of each range), and say so with [`Input::Summed`]: for each range the
    /// sum modulo 2^128 of a hash of key and version tag of each record, under a key that all nodes of the cluster share.
    Sums {
        /// To be repeated in the answer.
        id: SumsId,
        /// The ranges.
        ranges: Vec<(u16, u16)>,
    },
    /// Remove all records of a slot, as an append of the same numbering.
    DropSlot {
        /// To be repeated in the answer; one more than the last append.
        id: AppendId,
        /// The slot.
        place: Place,
    },
    /// Write down the membership, durably and before any later output is performed, and say so with [`Input::Saved`]: the
    /// next run starts from it.
    Save(Box<Membership>),
    /// A node, which may be no member (yet), says this of itself: what was given to [`Engine::set_facts`](crate::Engine::set_facts)
    /// there.
    Known(NodeId, Vec<u8>),
    /// What came of an operator's change: it is durable here, and spreads; or nothing was changed.
    Cluster(RequestId, Result<(), ClusterError>),
    /// This node's store turns out to be older than the cluster remembers it: an old copy, or an empty one. Until
    /// [`Output::Recovered`] every run is [incomplete](crate::Config::incomplete); to be written down before any later output is
    /// performed.
    Incomplete,
    /// All that this node may have lost (see [`Config::incomplete`](crate::Config::incomplete)) is durable here again: the
    /// next run is complete.
    Recovered,
}
