//! The end of a schedule: no more trouble, and everything must come to rest.

use super::world::{CALM_MS, KEYS, REQUEST, World};
use bytes::Bytes;
use gramme_quorum::message::Message;
use gramme_quorum::{Duration, Input, Level, Op, ReadOptions, Reply};
use gramme_ring::NodeId;

impl World {
    /// The trouble ends: what is in flight comes to its end, and what was acknowledged is there.
    pub(super) fn finish(&mut self) {
        for at in 0..self.nodes.len() {
            self.nodes[at].full = false;
            if self.nodes[at].poisoned {
                self.crash(at, false);
            }
        }
        for (at, other) in core::mem::take(&mut self.congested) {
            self.input(at, Input::Congested(NodeId(other as u64 + 1), false));
        }
        for (a, b) in core::mem::take(&mut self.cut) {
            self.link(a, b, true);
        }
        self.rest();
        if !self.strict {
            return;
        }
        let mut reads = Vec::new();
        for at in 0..self.nodes.len() {
            for key in KEYS {
                self.asked += 1;
                let options = ReadOptions { r: Some(Level::All), ..ReadOptions::default() };
                let op = Op::Get { key: Bytes::from_static(key), options };
                reads.push((key, self.request(at, op, REQUEST, Bytes::new())));
            }
        }
        self.rest();
        for (key, request) in reads {
            let Some(Reply::Read(reading)) = self.shown.get(&request) else {
                panic!("{:?} from a healthy cluster", self.shown.get(&request));
            };
            for (_, value) in self.acknowledged.iter().filter(|(of, _)| of == key) {
                let there = reading.siblings.iter().any(|found| found.value == value);
                assert!(there, "{value:?} was acknowledged, and is not in {reading:?}");
            }
        }
    }

    fn rest(&mut self) {
        let end = self.now.instant + Duration::from_millis(CALM_MS);
        while self.now.instant < end {
            let busy = self
                .wire
                .iter()
                .any(|(_, _, m)| !matches!(m, Message::Heartbeat { .. } | Message::Gossip(_)));
            let idle = !busy && self.open.is_empty() && self.nodes.iter().all(|n| n.slow.is_empty());
            self.calm();
            self.check_deadlines();
            if idle {
                self.pass(20);
            }
        }
        // A handoff that its owner refuses for good is tried again and again: let the last try end.
        let mut rounds = 0;
        while !self.wire.is_empty() || self.nodes.iter().any(|n| !n.slow.is_empty()) {
            self.work();
            rounds += 1;
            assert!(rounds < 100, "the engines talk without end, and no time passes");
        }
        assert!(self.open.is_empty(), "requests without a reply: {:?}", self.open.keys());
        for node in &self.nodes {
            let status = node.engine.status(self.now.instant);
            assert_eq!((status.requests, status.local), (0, 0), "left in flight");
            assert!(status.ready, "not ready on a healthy disk");
            // A lie may have told of somebody who is not there and wishes to be a member.
            let is_made_up = |id: NodeId| !self.strict && !(1..=self.nodes.len() as u64).contains(&id.0);
            assert!(status.peers.iter().all(|p| p.alive || is_made_up(p.id)), "{status:?}");
            // A lie may have made a copy that its owner refuses for good: it claims what the owner knows it never wrote.
            let handed_over = status.peers.iter().all(|p| !p.hints_pending);
            assert!(handed_over || !self.strict, "{status:?}");
        }
    }
}
