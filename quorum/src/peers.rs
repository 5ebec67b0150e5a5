//! The other members: connections, suspicion, heartbeats.

use crate::allowance::Allowance;
use crate::engine::{Engine, Timer};
use crate::failure_detector::FailureDetector;
use crate::handoff::Handoff;
use crate::input::{LoadId, Loaded};
use crate::latency::Paces;
use crate::message::{CallId, Message};
use crate::opening::{MAX_MARK, Run, Seen};
use crate::planted::Bug;
use crate::replica;
use crate::time::{Instant, Now};
use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;
use bytes::Bytes;
use gramme_ring::NodeId;
use gramme_vclock::Actor;

/// What a question for a page or sums costs in bytes, however short its answer.
const QUESTION: usize = 1024;
/// Forwarded requests remembered of each peer.
const MAX_RECENT: usize = 1024;
/// The key of the [notes](Notes), beside this run's record.
const NOTES_KEY: &[u8] = b"peers";
/// Writes of a peer after which it is noted how far its log has come. A note is a write as well, which others note in their turn: with
/// so many between, that comes to an end.
const NOTED: u64 = 256;
/// Peers, members and others.
const MAX_PEERS: usize = gramme_ring::membership::MAX_KNOWN_NODES + gramme_ring::gossip::MAX_STRANGERS;

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) connected: bool,
    pub(crate) suspected: bool,
    /// So much waits to be sent to it that no more should be said than needs be.
    pub(crate) congested: bool,
    pub(crate) seen: Seen,
    /// How far its log had come when that was last noted.
    noted: u64,
    /// When the connection was made, and the clock of the peer in its last heartbeat since.
    pub(crate) since: Instant,
    pub(crate) heard: Option<(Actor, Instant)>,
    /// What its wall clock showed then.
    wall_ms: Option<u64>,
    pub(crate) detector: FailureDetector,
    pub(crate) paces: Paces,
    /// What is answered to its questions for pages and sums.
    pub(crate) allowance: Allowance,
    /// The forwarded requests last taken from it, so that one the network repeats is not done twice.
    pub(crate) forwarded: Recent,
}

/// What this node has written down of its peers' runs, so that it knows an old copy of a disk after a restart as well.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// It is being read.
    load: Option<LoadId>,
    /// There is something new to be written.
    new: bool,
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
            noted: 0,
            since: now.instant,
            heard: None,
            wall_ms: None,
            detector: FailureDetector::new(heartbeat, now.instant),
            paces: Paces::default(),
            allowance: Allowance::new(now.instant, self.config.limits.repair),
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
        (peer.since, peer.heard, peer.wall_ms) = (now.instant, None, None);
        peer.detector = FailureDetector::new(heartbeat, now.instant);
        self.gossip_with(node);
        self.start_handoff(now, node);
        self.continue_recovery(now);
        self.release_held(now);
    }

    /// Reads what was written down of the peers.
    pub(crate) fn load_notes(&mut self) {
        self.notes.load = Some(self.out.load(replica::RUN, Bytes::from_static(NOTES_KEY)));
    }

    /// `false` if that was no load of these.
    pub(crate) fn notes_loaded(&mut self, load: LoadId, loaded: &Loaded) -> bool {
        if self.notes.load.take_if(|id| *id == load).is_none() {
            return false;
        }
        let Loaded::Found(bytes) = loaded else { return true };
        let notes: Vec<(NodeId, Seen)> = postcard::from_bytes(bytes).unwrap_or_default();
        for (node, seen) in notes {
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.seen.recall(seen);
                peer.noted = peer.noted.max(seen.mark());
            }
        }
        true
    }

    /// Writes down what there is new. How far a peer's log has come is noted whenever the peer or its connection has come or gone, and
    /// after every few writes of it: all may lose power at one time, and one of them come back as an old copy.
    fn write_notes(&mut self) {
        let forgotten = self.config.planted.is(Bug::NotesForgotten);
        if forgotten || self.notes.load.is_some() || !core::mem::take(&mut self.notes.new) {
            return;
        }
        self.peers.values_mut().for_each(|peer| peer.noted = peer.seen.mark());
        let notes: Vec<(NodeId, Seen)> = self.peers.iter().map(|(id, peer)| (*id, peer.seen)).collect();
        let notes = postcard::to_allocvec(&notes).expect("serializing into memory does not fail");
        self.out.append(replica::RUN, Bytes::from_static(NOTES_KEY), Some((notes.into(), 0)));
    }

    /// This run of this node, as its heartbeats tell it. Its number grows when it is found out, or as long as it owns nothing.
    #[must_use]
    pub const fn run(&self) -> Run {
        Run { number: self.opening.number(), actor: self.config.actor }
    }

    pub(crate) fn heartbeat_from(&mut self, node: NodeId, run: Run, mark: u64, at: Instant, wall_ms: u64) {
        if let Some(peer) = self.peers.get_mut(&node) {
            // The clock of a former run, which may still be heard when the next one is connected, tells nothing of this one's.
            let before = peer.heard.filter(|(actor, _)| *actor == run.actor).map(|(_, at)| at);
            peer.heard = Some((run.actor, before.max(Some(at)).unwrap_or(at)));
            peer.wall_ms = Some(wall_ms);
        }
        let Some(peer) = self.peers.get_mut(&node).filter(|_| mark <= MAX_MARK) else { return };
        if !peer.seen.outdates(run) {
            let other = peer.seen.see(run, mark);
            self.notes.new |= other || peer.seen.mark() >= peer.noted.saturating_add(NOTED);
        } else {
            let mark = peer.seen.mark();
            self.out.send(node, Message::Outdated { run, mark });
        }
    }

    /// Whether a peer may have given up by now what it sent here when it had heard this of this node's clock: it has not
    /// [suspected](FailureDetector) this node as long as it was heard of four heartbeats ago.
    pub(crate) fn is_stale(&self, now: Now, from: NodeId, heard: Option<Instant>) -> bool {
        let Some(peer) = self.peers.get(&from) else { return true };
        let sent_after = heard.unwrap_or(peer.since);
        // What names a later time names another run's.
        sent_after > now.instant || now.instant.since(sent_after) > 4 * self.config.timing.heartbeat
    }

    /// Whether what this run of a node has is less than the node has told before.
    pub(crate) fn is_outdated(&self, node: NodeId, run: Run) -> bool {
        if self.config.planted.is(Bug::RollbackIgnored) {
            return false;
        }
        // What it told before this node's last restart is not known yet.
        let record = self.view.gossip.record(node);
        self.notes.load.is_some()
            || record.is_some_and(|record| record.head.incarnation > run.number)
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

    /// Whether a question of this peer for a page or sums, which is background work here too, is to be answered now.
    pub(crate) fn grants(&mut self, now: Now, node: NodeId) -> bool {
        let percent = self.admission.percent(now.instant);
        let Some(peer) = self.peers.get_mut(&node) else { return false };
        peer.allowance.renew(now.instant, percent);
        let granted = !peer.allowance.is_spent();
        if granted {
            peer.allowance.spend(QUESTION);
        }
        granted
    }

    /// So many bytes were answered.
    pub(crate) fn granted(&mut self, node: NodeId, bytes: usize) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.allowance.spend(bytes);
        }
    }

    pub(crate) fn is_congested(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.congested)
    }

    pub(crate) fn disconnected(&mut self, now: Now, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.connected = false;
        self.notes.new = true;
        self.lost(now, node);
        // Who is no member, and wishes to be none, goes with its connection.
        self.sync_peers(now);
    }

    pub(crate) fn lost(&mut self, now: Now, node: NodeId) {
        self.stop_handoff(node);
        self.offers.retain(|offer| offer.peer != node);
        self.sweep_lost(node);
        self.stop_exchange(node);
        self.stop_pulls(now, |pull| pull.peer == node);
        self.writes_lost_peer(now, node);
        self.reads_lost_peer(now, node);
        let calls: Vec<CallId> =
            self.forwards.iter().filter(|(_, f)| f.to == node).map(|(c, _)| *c).collect();
        for call in calls {
            self.forward_lost(now, call, false);
        }
        self.release_held(now);
    }

    pub(crate) fn heartbeat(&mut self, now: Now) {
        self.write_notes();
        let (run, mark) = (self.run(), self.opening.mark(self.durable));
        let mut lost = Vec::new();
        for (id, peer) in self.peers.iter_mut().filter(|(_, p)| p.connected) {
            self.out.send(*id, Message::Heartbeat { run, mark, at: now.instant, wall_ms: now.wall_ms });
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

    /// A wall time to which most members' clocks have come by what they told last: a few that are ahead don't count. 0 while fewer
    /// than most are heard of.
    pub(crate) fn agreed_wall(&self, mine: u64) -> u64 {
        let members = self.view.members();
        let told = |id: &NodeId| match self.peers.get(id) {
            _ if *id == self.config.node => Some(mine),
            Some(peer) if peer.connected && !peer.suspected => peer.wall_ms,
            _ => None,
        };
        let mut told: Vec<u64> = members.iter().filter_map(told).collect();
        // As many clocks as are most of the members' show this or more.
        let most = members.len() / 2 + 1;
        told.sort_unstable();
        told.len().checked_sub(most).map_or(0, |at| told[at])
    }
}
