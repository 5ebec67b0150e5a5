//! How an engine is doing.

use crate::engine::Engine;
use crate::handoff::Handoff;
use crate::peers::Peer;
use crate::time::Instant;
use alloc::vec::Vec;
use gramme_ring::NodeId;

/// A snapshot of counters and peers.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Status {
    /// This run's actor is durable: writes are taken.
    pub ready: bool,
    /// No sync has failed.
    pub writable: bool,
    /// Partitions in which this node may miss data that it acknowledged: there its answers count toward no quorum.
    pub incomplete_partitions: usize,
    /// Partitions that this node is about to own, and is still copying.
    pub gaining_partitions: usize,
    /// Partitions that this node holds and is to own no more, and that are still to be looked at or handed over.
    pub sweeping_partitions: usize,
    /// Requests being coordinated or forwarded here.
    pub requests: usize,
    /// Bytes of their keys and values, and of the objects that they have read or made.
    pub request_bytes: usize,
    /// Writes that are answered and wait for the rest of their replicas.
    pub lingering_writes: usize,
    /// Reads that are.
    pub lingering_reads: usize,
    /// Bytes of the keys and values of both, and of the objects as they are sent.
    pub lingering_bytes: usize,
    /// Local operations that wait for their records, and reads that hang and that nobody waits for any more.
    pub local: usize,
    /// Those that wait for a sync: a disk that hangs lets them grow up to [`Limits::local`](crate::Limits::local), with `local`.
    pub unsynced: usize,
    /// Copies in the log that are yet to be synced, whether anybody waits for that or not: up to four times
    /// [`Limits::local`](crate::Limits::local).
    pub unsynced_copies: usize,
    /// Bytes of keys and values that wait for either.
    pub local_bytes: usize,
    /// Timers set.
    pub timers: usize,
    /// The share that background work gets of what it may do at the most: 100, unless clients' requests take too long.
    pub background_percent: u8,
    /// Reads that took longer than 95 in 100 do and asked a second replica for the value, since the start.
    pub hedges: u64,
    /// Stale copies that reads have repaired, since the start.
    pub repairs: u64,
    /// Damaged records that were replaced from other owners' copies, since the start.
    pub healed: u64,
    /// Hints written, since the start.
    pub hints_kept: u64,
    /// Hints that the store refused although the write itself is here, since the start: their owners get it by reads or by anti-entropy.
    pub hints_refused: u64,
    /// Hints whose owner acknowledged them, since the start.
    pub hints_handed: u64,
    /// Comparisons with another node that found no difference, since the start.
    pub exchanges_equal: u64,
    /// Slots in which another node's copies differed, since the start.
    pub slots_pulled: u64,
    /// The other members.
    pub peers: Vec<PeerStatus>,
}

/// How another member looks from here.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PeerStatus {
    /// Who.
    pub id: NodeId,
    /// A connection stands.
    pub connected: bool,
    /// It is connected and not suspected: requests are sent to it.
    pub alive: bool,
    /// The failure detector's suspicion; 8 and more is failed.
    pub phi: f64,
    /// There are, or may be, hints for it.
    pub hints_pending: bool,
}

impl Engine {
    /// How the engine is doing.
    #[must_use]
    pub fn status(&self, now: Instant) -> Status {
        let peer = |(id, peer): (&NodeId, &Peer)| PeerStatus {
            id: *id,
            connected: peer.connected,
            alive: self.is_alive(*id),
            phi: peer.detector.phi(now),
            hints_pending: self.handoffs.get(id).is_some_and(Handoff::is_pending),
        };
        Status {
            ready: self.ready,
            writable: self.replica.journal.is_writable(),
            incomplete_partitions: self.recovery.remaining().0,
            gaining_partitions: self.recovery.remaining().1,
            sweeping_partitions: self.sweep.remaining(),
            requests: self.open,
            request_bytes: self.open_bytes,
            lingering_writes: self.lingering_writes.count(),
            lingering_reads: self.lingering_reads.count(),
            lingering_bytes: self.lingering_writes.bytes() + self.lingering_reads.bytes(),
            local: self.replica.queues.open(),
            unsynced: self.replica.journal.held(),
            unsynced_copies: self.replica.unsynced_copies(),
            local_bytes: self.replica.bytes(),
            timers: self.timers.len(),
            background_percent: self.admission.clone().percent(now),
            hedges: self.hedges,
            repairs: self.repairs,
            healed: self.healed,
            hints_kept: self.hints_kept,
            hints_refused: self.hints_refused,
            hints_handed: self.hints_handed,
            exchanges_equal: self.anti_entropy.equal,
            slots_pulled: self.anti_entropy.slots,
            peers: self.peers.iter().map(peer).collect(),
        }
    }
}
