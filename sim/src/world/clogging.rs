//! Receivers that do not drain: what is sent to them piles up at the sender, as with a connection of the server
//! (`node/src/peer/mod.rs`), only that the bounds are as small as a run's load.

use super::{Event, World};
use crate::time::Time;
use bytes::Bytes;
use core::time::Duration;
use gramme_quorum::Input;
use std::collections::VecDeque;

/// What was taken is looked at this often.
const STEP: Duration = Duration::from_millis(20);
/// A write that makes no progress for so long ends its connection.
const STALL: Duration = Duration::from_secs(10);

/// One way through the network that takes little or nothing.
#[derive(Debug)]
pub(super) struct Clog {
    /// What waits, with the receiver's run when it was sent.
    queue: VecDeque<(u64, Bytes)>,
    bytes: usize,
    /// Past so many bytes the sender's engine is told, past three times as many the connection ends.
    limit: usize,
    /// Bytes that go through in a step.
    rate: usize,
    since: Time,
    until: Time,
    /// The sender's engine knows.
    congested: bool,
}

impl World {
    /// Whether a node's engine knows of some peer that it takes nothing more.
    pub(super) fn is_congested(&self, node: usize) -> bool {
        self.clogs.iter().any(|((from, _), clog)| *from == node && clog.congested)
    }

    /// From now on a receiver takes `rate` bytes in 20 ms of what one node sends it, until then; past `limit` bytes the sender's engine
    /// is told that it is congested.
    pub fn clog(&mut self, from: usize, to: usize, rate: usize, limit: usize, until: Time) {
        if self.clogs.contains_key(&(from, to)) {
            return;
        }
        self.fault(&format!("node {to} takes {rate} bytes in 20 ms of what node {from} sends"));
        let clog =
            Clog { queue: VecDeque::new(), bytes: 0, limit, rate, since: self.now, until, congested: false };
        self.clogs.insert((from, to), clog);
        self.disturbs_link(from, to, until);
        self.queue.push(self.now + STEP, Event::Drain { from, to });
    }

    /// Lets everything through again.
    pub fn unclog_all(&mut self) {
        for clog in self.clogs.values_mut() {
            clog.until = self.now;
        }
    }

    /// Whether a message has to wait for its receiver.
    pub(super) fn waits(&mut self, from: usize, to: usize, run: u64, bytes: &Bytes) -> bool {
        let Some(clog) = self.clogs.get_mut(&(from, to)) else { return false };
        clog.queue.push_back((run, bytes.clone()));
        clog.bytes += bytes.len();
        if clog.bytes > clog.limit && !clog.congested {
            clog.congested = true;
            self.congested.push((from, to));
        }
        if clog.bytes > 3 * clog.limit {
            self.hang_up(from, to);
        }
        true
    }

    /// A peer of this node that has become congested, and of which its engine does not know yet.
    pub(super) fn next_congested(&mut self, node: usize) -> Option<usize> {
        let at = self.congested.iter().position(|(from, _)| *from == node)?;
        Some(self.congested.remove(at).1)
    }

    pub(super) fn drain(&mut self, from: usize, to: usize) {
        let Some(clog) = self.clogs.get_mut(&(from, to)) else { return };
        let over = clog.until <= self.now;
        if !over && clog.rate == 0 && !clog.queue.is_empty() && self.now.since(clog.since) > STALL {
            self.clogs.remove(&(from, to));
            self.disturbs_link(from, to, self.now);
            return self.hang_up(from, to);
        }
        let mut room = if over { usize::MAX } else { clog.rate };
        let mut taken = Vec::new();
        // A frame that has begun goes on with the next step.
        while room > 0
            && let Some((run, bytes)) = clog.queue.pop_front()
        {
            clog.bytes -= bytes.len();
            room = room.saturating_sub(bytes.len());
            taken.push((run, bytes));
        }
        let relieved = clog.congested && clog.bytes < clog.limit.div_ceil(4);
        if relieved {
            clog.congested = false;
        }
        if over {
            self.clogs.remove(&(from, to));
            self.disturbs_link(from, to, self.now);
        } else {
            self.queue.push(self.now + STEP, Event::Drain { from, to });
        }
        for (run, bytes) in taken {
            let at = self.network_rng.soon(self.now, Duration::from_millis(1));
            self.queue.push(at, Event::Deliver { from, to, run, bytes });
        }
        if relieved {
            self.note(&format!("node {from} hears that node {to} takes messages again"));
            self.hash.event(b'F', [self.now.0, from as u64, to as u64], &[]);
            let peer = self.nodes[to].id;
            self.handle(from, Input::Congested(peer, false));
        }
    }

    /// A connection has come to its end, and all that waited to be sent with it.
    pub(super) fn forget_clog(&mut self, from: usize, to: usize) {
        if let Some(clog) = self.clogs.get_mut(&(from, to)) {
            clog.queue.clear();
            (clog.bytes, clog.congested) = (0, false);
        }
        self.congested.retain(|way| *way != (from, to));
    }

    /// The sender's side gives a connection up, and dials anew.
    fn hang_up(&mut self, from: usize, to: usize) {
        self.note(&format!("node {from} gives up its connection to node {to}"));
        self.queue.push(self.now, Event::HangUp { node: from, peer: to });
    }
}
