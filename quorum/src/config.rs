//! An engine's settings.

use crate::opening::Opening;
use crate::planted::Planted;
use core::time::Duration;
use gramme_ring::NodeId;
use gramme_vclock::Actor;

/// What an engine is told at its start. N comes with the layout.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who we are.
    pub node: NodeId,
    /// The actor of this run: 64 fresh random bits at each open of the store, never used before.
    pub actor: Actor,
    /// Which opening of the store this is.
    pub opening: Opening,
    /// Keys the digests by which copies are compared; the same on all nodes of a cluster, secret from clients.
    pub digest_key: [u8; 16],
    /// The store may have lost acknowledged data (a damage report, a copy restored from elsewhere): answers are merged
    /// by readers but count toward no quorum, until all is back from the other owners
    /// ([`Output::Recovered`](crate::Output::Recovered)).
    pub incomplete: bool,
    /// The store may have lost what was acknowledged before it was synced, and no more: it was not closed in good order, its machine
    /// may have gone down since, and there are keyspaces that allow that
    /// ([`Keyspace::outruns_the_disk`](crate::Keyspace::outruns_the_disk)). Like `incomplete`, until that is back; but others that
    /// have lost something take what is here for enough, and copies of keys whose keyspace syncs first count.
    pub unsynced: Option<Unsynced>,
    /// Replicas that a read asks for, unless it says otherwise: 1 to N.
    pub r: u8,
    /// Replicas that a write asks for, unless it says otherwise: 1 to N.
    pub w: u8,
    /// The bounds.
    pub limits: Limits,
    /// The waits.
    pub timing: Timing,
    /// For tests of tests.
    #[doc(hidden)]
    pub planted: Planted,
}

/// When unsynced writes went with the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// Before this opening of the store, and it lacked nothing before: what was acknowledged went by the rules that the membership has now.
    Now,
    /// Before an earlier one, and this node has not got it all back since: the rules may have been changed meanwhile.
    Earlier,
}

impl Config {
    /// The defaults: R = W = 2, and the bounds and waits of [`Limits`] and [`Timing`].
    #[must_use]
    pub fn new(node: NodeId, actor: Actor) -> Config {
        Config {
            node,
            actor,
            opening: Opening::default(),
            digest_key: [0; 16],
            incomplete: false,
            unsynced: None,
            r: 2,
            w: 2,
            limits: Limits::default(),
            timing: Timing::default(),
            planted: Planted::default(),
        }
    }
}

/// Bounds; past each the answer is an error, at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one value.
    pub value: usize,
    /// Siblings of a key past which coordinators refuse another one. Merges never drop any.
    pub siblings: usize,
    /// Requests being coordinated here at one time, forwarded ones included. As many writes and as many reads may linger: they are
    /// answered and wait for the rest of the replicas, to leave hints for those that stay silent and to repair those that are stale.
    /// Of what comes beyond, the oldest are ended as if those had been waited for in vain.
    pub requests: usize,
    /// Bytes of their keys and values, and of the objects that they have read or made; the last one may go beyond. When there are so many,
    /// requests are refused, and what was taken before and comes to an object only then is refused too, writes before they
    /// have done anything.
    pub request_bytes: usize,
    /// Local operations that wait for a disk: for their record, or for the sync of what they changed. When so many wait for a sync
    /// that hangs, reads are still taken, as long as fewer than this wait for their records. Where acknowledgements wait for no sync, so
    /// many copies are synced before their time, and of four times as many, none of them synced, it is the same.
    pub local: usize,
    /// Bytes of keys and values that wait for their records, and of values that wait for a sync. The last one may go beyond.
    pub local_bytes: usize,
    /// Writes that one peer's handoff keeps in flight.
    pub handoff: usize,
    /// Bytes of objects that recovery and anti-entropy fetch in a second; and bytes of pages and sums that each peer is answered in a
    /// second, a kibibyte for each question at the least. Beyond that its questions are refused as overload.
    pub repair: u32,
}

impl Limits {
    /// Encoded bytes of an object past which coordinators refuse another sibling: a value and a quarter.
    /// Three coordinators that fill one at the same time still stay under a store's record limit.
    #[must_use]
    pub const fn object(&self) -> usize {
        self.value + self.value / 4
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            value: 16 << 20,
            siblings: 100,
            requests: 16_384,
            request_bytes: 256 << 20,
            local: 65_536,
            local_bytes: 256 << 20,
            handoff: 32,
            repair: 16 << 20,
        }
    }
}

/// Waits.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A request without a timeout of its own ends after this. What waits so long for a record of this node's, or for a page of its
    /// keys, is answered as if that could not be read; nothing is done once it comes.
    pub request: Duration,
    /// A replica that has not answered after this is replaced by a fallback; its late answer still counts. A write that can't do without
    /// replicas that take nothing more just now waits for them so long.
    pub patience: Duration,
    /// A heartbeat goes to each peer this often when nothing else does.
    pub heartbeat: Duration,
    /// A node tells one other at random what it knows of the cluster this often.
    pub gossip: Duration,
    /// A node compares its copies with one other node's this often.
    pub exchange: Duration,
    /// If more than one in a hundred of clients' requests take longer than this, background work yields
    /// ([`Admission`](crate::Admission)).
    pub foreground: Duration,
    /// What is not synced before it is acknowledged is synced this soon.
    pub interval: Duration,
    /// Handoff to an owner that refused or fell silent is tried again after this.
    pub retry: Duration,
    /// A value's bytes stay for so long after it has expired, and then may go ([`Shrink`](crate::object::Shrink)): by so much may the clocks of two nodes
    /// differ before one of them gives back what the other still shows.
    pub expired: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            request: Duration::from_secs(5),
            patience: Duration::from_millis(400),
            heartbeat: Duration::from_millis(250),
            gossip: Duration::from_secs(1),
            exchange: Duration::from_secs(10),
            foreground: Duration::from_millis(50),
            interval: Duration::from_secs(1),
            retry: Duration::from_secs(1),
            expired: Duration::from_secs(24 * 3600),
        }
    }
}
