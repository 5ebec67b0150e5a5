//! What goes over the network: answers to clients, messages between nodes, and what nodes are told of their connections.

use super::{Answer, Event, World};
use crate::checker::{Invariant, OpId, Standing};
use bytes::Bytes;
use core::time::Duration;
use gramme_quorum::message::{CallId, Message, Purpose, SumsOf};
use gramme_quorum::{Durability, Input, Keyspace, Reply, wire};
use gramme_ring::NodeId;
use gramme_ring::membership::VersionStanding;

/// Bytes a second past which nobody in a simulation comes, and operations.
const JUDGED: u32 = 1 << 20;
const FEW: usize = 1_000;
/// Requests at one node that may not have ended yet.
const RECENT: usize = 500;

impl World {
    pub(super) fn reply(&mut self, node: usize, id: OpId, reply: Reply) {
        self.forget_forwarded(id);
        // Whoever coordinated it has told this node so, or it is this one.
        if self.decisions.remove(&id).as_ref() != Some(&reply) {
            self.decided(node, id, &reply);
        }
        self.check_reach(node, id, &reply);
        self.checker.answering(self.now, id, &reply);
        let mut circumstances = self.circumstances(self.checker.request(id).op.key());
        // Who was given up and runs on has nothing by the layout before, whatever all others go by.
        let is_absent = matches!(&reply, Reply::Read(reading) if reading.context.seen.is_empty());
        circumstances.layout = circumstances.layout.filter(|_| !(is_absent && self.nodes[node].gone));
        self.checker.answers(self.now, id, &reply, &circumstances);
        self.scratch.clear();
        wire::encode(&Message::Forwarded { call: CallId(0), reply: reply.clone() }, &mut self.scratch);
        self.hash.event(b'R', [self.now.0, node as u64, id.0], &self.scratch);
        if !self.nodes[node].requests.remove(&id) {
            let what = format!("node {node} answers {id}, which does not wait for it");
            return self.checker.fail(self.now, Invariant::RequestsEnd, None, what);
        }
        self.said.push((id, reply.clone()));
        let at = self.now + self.network_rng.between(Duration::from_micros(20), Duration::from_micros(300));
        self.queue.push(at, Event::Answer { id, answer: Answer::Reply(reply) });
    }

    /// A request that was forwarded, perhaps, is over.
    pub(super) fn forget_forwarded(&mut self, id: OpId) {
        self.forwarded.retain(|_, forwarded| *forwarded != id);
    }

    pub(super) fn send(&mut self, from: usize, to: NodeId, message: &Message) {
        let Some(peer) = self.numbers.get(&to).copied() else { return };
        self.checker.says(self.now, from, peer, message);
        self.checker.hands_over(self.now, from, peer, message);
        if self.shape.limits.repair < JUDGED {
            let wanted = matches!(message, Message::Read { key, .. } if self.is_wanted(from, key));
            self.checker.fetches(self.now, from, peer, message, wanted);
        }
        if let Message::Refused { call, .. } = message {
            self.refused.push((peer, call.0));
        }
        self.nodes[from].sent += u64::from(is_work(message));
        match message {
            // Asked elsewhere under the same name, it is the same request.
            Message::Forward { call, op, .. } if !self.forwarded.contains_key(&call.0) => {
                // Or it is a delete that has been read for here, and who coordinates its key by now is somebody else.
                let again = || {
                    let same = |id: &&OpId| self.checker.request(**id).op == *op;
                    self.nodes[from].requests.iter().find(same).copied()
                };
                if let Some(id) = self.taking.or_else(again) {
                    self.forwarded.insert(call.0, id);
                    self.passes_on(from, id);
                }
            }
            Message::Forwarded { call, reply } => {
                if let Some(id) = self.forwarded.get(&call.0).copied() {
                    self.decided(from, id, reply);
                    self.decisions.insert(id, reply.clone());
                }
            }
            _ => {}
        }
        let to = peer;
        let arrivals = self.network.send(self.now, from, to, &mut self.network_rng);
        if arrivals[0].is_none() {
            self.faults += u64::from(self.network.believes(from, to));
            return;
        }
        self.scratch.clear();
        wire::encode(message, &mut self.scratch);
        let bytes = Bytes::copy_from_slice(&self.scratch);
        self.checker.check_message(self.now, from, message, bytes.len());
        self.faults += u64::from(arrivals[1].is_some());
        if let Message::Write { purpose: Purpose::Handoff, object, .. } = message {
            let (objects, size) = &mut self.nodes[to].handed_over;
            (*objects, *size) = (*objects + 1, *size + object.len() as u64);
        }
        let run = self.nodes[to].runs;
        self.record(message, (from, to, run, &bytes));
        if self.waits(from, to, run, &bytes) {
            return;
        }
        for at in arrivals.into_iter().flatten() {
            self.queue.push(at, Event::Deliver { from, to, run, bytes: bytes.clone() });
        }
    }

    /// Remembers a few of the messages of all times.
    fn record(&mut self, message: &Message, (from, to, run, bytes): (usize, usize, u64, &Bytes)) {
        const MOST: usize = 200;
        let odds = match message {
            Message::Heartbeat { .. } | Message::Gossip(_) => 2_000,
            // A request goes with its connection.
            Message::Forward { .. } => 0,
            _ => 50_000,
        };
        if !self.network_rng.chance(odds) {
            return;
        }
        let old = (from, to, run, bytes.clone());
        if self.recorded.len() < MOST {
            self.recorded.push(old);
        } else {
            let at = self.network_rng.index(MOST);
            self.recorded[at] = old;
        }
    }

    /// So many old messages arrive once more, whatever has become of their connections and senders. How many did.
    pub fn replay(&mut self, count: usize) -> usize {
        let count = if self.recorded.is_empty() { 0 } else { count };
        for _ in 0..count {
            let at = self.network_rng.index(self.recorded.len());
            let (from, to, run, bytes) = self.recorded[at].clone();
            self.fault(&format!("an old message from node {from} to node {to} arrives once more"));
            let at = self.network_rng.soon(self.now, Duration::from_millis(500));
            self.queue.push(at, Event::Deliver { from, to, run, bytes });
        }
        count
    }

    pub(super) fn deliver(&mut self, from: usize, to: usize, run: u64, bytes: &Bytes) {
        if !self.is_up(to) || self.network.is_cut(from, to) {
            return;
        }
        self.hash.event(b'D', [self.now.0, from as u64, to as u64], bytes);
        let message = match wire::decode(bytes) {
            Ok(message) => message,
            Err(error) => {
                let what = format!("node {from} sent node {to} what does not decode: {error}");
                return self.checker.fail(self.now, Invariant::NothingInvented, None, what);
            }
        };
        // A request is done by the process to which it was sent or by none: it goes with its connection. Everything else may
        // come as late as it likes.
        if matches!(message, Message::Forward { .. }) && run != self.nodes[to].runs {
            return;
        }
        self.checker.delivered(self.now, to, &message);
        self.checker.asked(to, &message, self.standing(to, &message));
        let present = self.nodes[to].host.as_ref().map(|host| host.engine().run());
        let outdated = matches!(message, Message::Outdated { run, .. } if Some(run) == present);
        if let Some(timeline) = &mut self.timeline {
            timeline.delivered(self.now, from, to, &message);
        }
        if let Message::Forward { call, .. } = &message
            && let Some(id) = self.forwarded.get(&call.0).copied()
        {
            self.reaches(to, id);
        }
        let (sender, is_write) = (from, matches!(message, Message::Write { .. }));
        // Elsewhere there are never so many.
        let asks = match &message {
            Message::Read { call, .. } if self.shape.limits.local < FEW => Some(call.0),
            _ => None,
        };
        let before = (is_write || asks.is_some()).then(|| self.status(to)).flatten();
        let settles = !self.nodes[to].disk.may_refuse();
        self.checker.answered(self.now, to, sender, &message, settles);
        if self.shape.limits.repair < JUDGED {
            self.checker.fetched(self.now, to, sender, &message);
        }
        self.refused.clear();
        self.hears(to, sender, &message);
        let from = self.nodes[from].id;
        self.handle(to, Input::Peer(from, message));
        if let Some((before, after)) = before.zip(self.status(to)) {
            if let Some(call) = asks {
                let refused = self.refused.contains(&(sender, call));
                self.checker.check_asked(self.now, to, before.local, after.local, refused);
            } else {
                self.checker.check_taken(self.now, to, &before, &after);
            }
        }
        // While it writes down something of the cluster it leaves all else for later.
        let saving = self.nodes[to].paused_until >= self.now;
        if outdated && self.is_up(to) && !saving && !self.nodes[to].warned {
            let what = format!("node {to} hears that its store is an old one, and does not care");
            self.checker.fail(self.now, Invariant::AbsenceIsAQuorum, None, what);
        }
    }

    /// Whether a client's request may have a node ask others for this key.
    fn is_wanted(&self, node: usize, key: &Bytes) -> bool {
        let last = self.askings.get(&node).into_iter().flat_map(|all| all.keys().rev().take(RECENT));
        last.into_iter().any(|id| self.checker.may_be_wanted(self.now, *id, key))
    }

    /// How a node takes a write, by what it knows of the cluster.
    fn standing(&self, node: usize, message: &Message) -> Standing {
        let Message::Write { layout, key, .. } = message else { return Standing::default() };
        let Some(host) = &self.nodes[node].host else { return Standing::default() };
        let membership = host.engine().membership();
        let fits = Keyspace::all(membership).filter(|(prefix, _)| key.starts_with(prefix.as_bytes()));
        let rules = fits.max_by_key(|(prefix, _)| prefix.len());
        Standing {
            held: self.nodes[node].paused_until >= self.now,
            retired: membership.judge(*layout) == VersionStanding::Retired,
            synced: rules.is_none_or(|(_, keyspace)| keyspace.durability == Durability::Group),
        }
    }

    pub(super) fn probe(&mut self, node: usize, peer: usize) {
        if !self.is_up(node) {
            return;
        }
        let awake = self.nodes[peer].asleep_until <= self.now;
        let mut stands = self.is_up(peer) && awake && self.network.can_connect(node, peer);
        if stands && self.are_turned_away(node, peer) {
            if !self.is_up(node) {
                return;
            }
            stands = false;
        }
        if self.network.tell(node, peer, stands) {
            self.disturbs_link(node, peer, self.now);
            if !stands {
                self.parts(node, peer);
            }
            self.forget_clog(node, peer);
            self.hash.event(b'P', [self.now.0, node as u64, peer as u64], &[u8::from(stands)]);
            self.checker.parted(node, peer);
            let id = self.nodes[peer].id;
            self.handle(node, if stands { Input::Connected(id) } else { Input::Disconnected(id) });
        }
    }

    /// A node's connection to another ends; it dials again.
    pub(super) fn end_connection(&mut self, node: usize, peer: usize) {
        if self.is_up(node) && self.network.tell(node, peer, false) {
            self.disturbs_link(node, peer, self.now);
            self.parts(node, peer);
            self.forget_clog(node, peer);
            self.hash.event(b'P', [self.now.0, node as u64, peer as u64], &[0]);
            self.checker.parted(node, peer);
            let id = self.nodes[peer].id;
            self.handle(node, Input::Disconnected(id));
            let at = self.network_rng.soon(self.now, Duration::from_millis(300));
            self.queue.push(at, Event::Probe { node, peer });
        }
    }
}

/// Whether this is asked of another node without need at rest. What is only an answer may be one to a message that came very late.
fn is_work(message: &Message) -> bool {
    match message {
        Message::Write { .. }
        | Message::Read { .. }
        | Message::List { .. }
        | Message::Offer { .. }
        | Message::Forward { .. } => true,
        Message::Sums { of, .. } => *of != SumsOf::All,
        _ => false,
    }
}
