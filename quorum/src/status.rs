//! How an engine is doing.

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
    /// Local operations that wait for the disk.
    pub local: usize,
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
