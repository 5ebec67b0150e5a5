//! The other members: connections, suspicion, heartbeats.

use crate::engine::{Engine, Timer};
use crate::failure_detector::FailureDetector;
use crate::message::{CallId, Message};
use crate::time::Now;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use gramme_ring::NodeId;

/// Forwarded requests remembered of each peer.
const MAX_RECENT: usize = 1024;

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) connected: bool,
    pub(crate) suspected: bool,
    pub(crate) detector: FailureDetector,
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
    pub(crate) fn connected(&mut self, now: Now, node: NodeId) {
        let heartbeat = self.config.timing.heartbeat;
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.connected = true;
        peer.suspected = false;
        peer.detector = FailureDetector::new(heartbeat, now.instant);
        self.out.send(node, Message::Heartbeat);
        self.start_handoff(now, node);
        self.continue_recovery(now);
    }

    pub(crate) fn disconnected(&mut self, now: Now, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.connected = false;
        self.lost(now, node);
    }

    pub(crate) fn lost(&mut self, now: Now, node: NodeId) {
        self.stop_handoff(node);
        self.stop_exchange(node);
        self.stop_pulls(now, |pull| pull.peer == node);
        self.writes_lost_peer(now, node);
        self.reads_lost_peer(now, node);
        let calls: Vec<CallId> =
            self.forwards.iter().filter(|(_, f)| f.to == node).map(|(c, _)| *c).collect();
        for call in calls {
            self.forward_lost(call, false);
        }
    }

    pub(crate) fn heartbeat(&mut self, now: Now) {
        let mut lost = Vec::new();
        for (id, peer) in self.peers.iter_mut().filter(|(_, p)| p.connected) {
            self.out.send(*id, Message::Heartbeat);
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
