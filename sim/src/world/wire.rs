//! What goes over the network: answers to clients, messages between nodes, and what nodes are told of their connections.

use super::{Answer, Event, World};
use crate::checker::{Invariant, OpId};
use bytes::Bytes;
use core::time::Duration;
use gramme_quorum::message::{CallId, Message};
use gramme_quorum::{Input, Reply, wire};
use gramme_ring::NodeId;

impl World {
    pub(super) fn reply(&mut self, node: usize, id: OpId, reply: Reply) {
        self.checker.answering(self.now, id, &reply);
        let circumstances = self.circumstances(self.checker.request(id).op.key());
        self.checker.answers(self.now, id, &reply, &circumstances);
        self.scratch.clear();
        wire::encode(&Message::Forwarded { call: CallId(0), reply: reply.clone() }, &mut self.scratch);
        self.hash.event(b'R', [self.now.0, node as u64, id.0], &self.scratch);
        if !self.nodes[node].requests.remove(&id) {
            let what = format!("node {node} answers {id}, which does not wait for it");
            return self.checker.fail(self.now, Invariant::RequestsEnd, None, what);
        }
        let at = self.now + self.network_rng.between(Duration::from_micros(20), Duration::from_micros(300));
        self.queue.push(at, Event::Answer { id, answer: Answer::Reply(reply) });
    }

    pub(super) fn send(&mut self, from: usize, to: NodeId, message: &Message) {
        let Some(to) = self.numbers.get(&to).copied() else { return };
        let arrivals = self.network.send(self.now, from, to, &mut self.network_rng);
        if arrivals[0].is_none() {
            self.faults += u64::from(self.network.believes(from, to));
            return;
        }
        self.scratch.clear();
        wire::encode(message, &mut self.scratch);
        let bytes = Bytes::copy_from_slice(&self.scratch);
        self.faults += u64::from(arrivals[1].is_some());
        let run = self.nodes[to].runs;
        for at in arrivals.into_iter().flatten() {
            self.queue.push(at, Event::Deliver { from, to, run, bytes: bytes.clone() });
        }
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
        if let Some(timeline) = &mut self.timeline {
            timeline.delivered(self.now, from, to, &message);
        }
        let from = self.nodes[from].id;
        self.handle(to, Input::Peer(from, message));
    }

    pub(super) fn probe(&mut self, node: usize, peer: usize) {
        if !self.is_up(node) {
            return;
        }
        let stands = self.is_up(peer) && self.network.can_connect(node, peer);
        if self.network.tell(node, peer, stands) {
            self.hash.event(b'P', [self.now.0, node as u64, peer as u64], &[u8::from(stands)]);
            let id = self.nodes[peer].id;
            self.handle(node, if stands { Input::Connected(id) } else { Input::Disconnected(id) });
        }
    }
}
