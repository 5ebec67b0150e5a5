//! The other members: connections, suspicion, heartbeats.

use crate::engine::{Engine, Timer};
use crate::failure_detector::FailureDetector;
use crate::handoff::Handoff;
use crate::latency::Pace;
use crate::message::{CallId, Message};
use crate::opening::{MAX_MARK, Run, Seen};
use crate::planted::Bug;
use crate::time::Now;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use gramme_ring::NodeId;

/// Forwarded requests remembered of each peer.
const MAX_RECENT: usize = 1024;
/// Peers, members and others.
const MAX_PEERS: usize = gramme_ring::membership::MAX_KNOWN_NODES + gramme_ring::gossip::MAX_STRANGERS;

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) connected: bool,
    pub(crate) suspected: bool,
    /// So much waits to be sent to it that no more should be said than needs be.
    pub(crate) congested: bool,
    pub(crate) seen: Seen,
    pub(crate) detector: FailureDetector,
    /// Of requests that were forwarded to it.
    pub(crate) pace: Pace,
    /// The forwarded requests last taken from it, so that one the network repeats is not done twice.
    pub(crate) forwarded: Recent,
}

/// The last few calls, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    order: VecDeque<CallId>,
    calls: BTreeSet<CallId>,
}

impl Recent {
    /// Remembers a call; `false` if it is remembered already.
    pub(crate) fn insert(&mut self, call: CallId) -> bool {
        if !self.calls.insert(call) {
            return false;
        }
        self.order.push_back(call);
        if self.order.len() > MAX_RECENT
            && let Some(oldest) = self.order.pop_front()
        {
            self.calls.remove(&oldest);
        }
        true
    }
}

impl Engine {
    /// Takes a node for a peer, if it is none yet.
    pub(crate) fn add_peer(&mut self, now: Now, node: NodeId) {
        let heartbeat = self.config.timing.heartbeat;
        self.peers.entry(node).or_insert_with(|| Peer {
            connected: false,
            suspected: false,
            congested: false,
            seen: Seen::default(),
            detector: FailureDetector::new(heartbeat, now.instant),
            pace: Pace::default(),
            forwarded: Recent::default(),
        });
        self.handoffs.entry(node).or_insert_with(Handoff::unknown);
    }

    pub(crate) fn connected(&mut self, now: Now, node: NodeId) {
        let heartbeat = self.config.timing.heartbeat;
        let removed = self.view.membership().is_removed(node) || node == self.config.node;
        if removed || !self.peers.contains_key(&node) && self.peers.len() >= MAX_PEERS {
            return;
        }
        self.add_peer(now, node);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.connected = true;
        peer.suspected = false;
        peer.congested = false;
        peer.detector = FailureDetector::new(heartbeat, now.instant);
        self.gossip_with(node);
        self.start_handoff(now, node);
        self.continue_recovery(now);
        self.release_held(now);
    }

    /// This run of this node.
    pub(crate) const fn run(&self) -> Run {
        Run { number: self.opening.number(), actor: self.config.actor }
    }

    pub(crate) fn heartbeat_from(&mut self, node: NodeId, run: Run, mark: u64) {
        let Some(peer) = self.peers.get_mut(&node).filter(|_| mark <= MAX_MARK) else { return };
        if !peer.seen.outdates(run) {
            peer.seen.see(run, mark);
        } else {
            let mark = peer.seen.mark();
            self.out.send(node, Message::Outdated { run, mark });
        }
    }

    /// Whether what this run of a node has is less than the node has told before.
    pub(crate) fn is_outdated(&self, node: NodeId, run: Run) -> bool {
        if self.config.planted.is(Bug::RollbackIgnored) {
            return false;
        }
        let record = self.view.gossip.record(node);
        record.is_some_and(|record| record.head.incarnation > run.number)
            || self.peers.get(&node).is_some_and(|peer| peer.seen.outdates(run))
    }

    /// Messages to this peer pile up, or have gone out.
    pub(crate) fn congestion(&mut self, now: Now, node: NodeId, congested: bool) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.congested = congested;
        if !congested {
            self.resume_handoff(now, node);
            self.release_held(now);
        }
    }

    pub(crate) fn is_congested(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.congested)
    }

    pub(crate) fn disconnected(&mut self, now: Now, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.connected = false;
        self.lost(now, node);
        // Who is no member, and wishes to be none, goes with its connection.
        self.sync_peers(now);
    }

    pub(crate) fn lost(&mut self, now: Now, node: NodeId) {
        self.stop_handoff(node);
        self.offers.retain(|offer| offer.peer != node);
        self.stop_exchange(node);
        self.stop_pulls(now, |pull| pull.peer == node);
        self.writes_lost_peer(now, node);
        self.reads_lost_peer(now, node);
        let calls: Vec<CallId> =
            self.forwards.iter().filter(|(_, f)| f.to == node).map(|(c, _)| *c).collect();
        for call in calls {
            self.forward_lost(call, false);
        }
        self.release_held(now);
    }

    pub(crate) fn heartbeat(&mut self, now: Now) {
        let (run, mark) = (self.run(), self.opening.mark(self.out.durable_puts()));
        let mut lost = Vec::new();
        for (id, peer) in self.peers.iter_mut().filter(|(_, p)| p.connected) {
            self.out.send(*id, Message::Heartbeat { run, mark });
            if !peer.suspected && peer.detector.suspects(now.instant) {
                peer.suspected = true;
                lost.push(*id);
            }
        }
        for node in lost {
            self.lost(now, node);
        }
        self.timers.insert((now.instant + self.config.timing.heartbeat, Timer::Heartbeat));
    }
}
