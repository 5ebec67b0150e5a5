//! Processes that stand still: for less than anybody notices, or for hours.

use super::{Event, GRACE, World};
use crate::time::Time;
use core::time::Duration;

/// Within this time a connection to a process that stands still is given up: what is sent to it fills its buffers first.
const GIVEN_UP: Duration = Duration::from_secs(600);

impl World {
    /// Stops a node's process for a while, as a debugger or a stalled machine does; everything for it waits.
    pub fn pause(&mut self, node: usize, length: Duration) {
        self.fault(&format!("node {node} is stopped for {length:?}"));
        self.stand_still(node, self.now + length);
    }

    /// Stops a node's process for longer than connections to it last. `suspended`: its whole machine, whose monotonic clock stands
    /// still as well.
    pub fn sleep(&mut self, node: usize, length: Duration, suspended: bool) {
        let until = self.now + length;
        let how = if suspended { "suspended" } else { "stopped" };
        self.fault(&format!("node {node} is {how} for {length:?}"));
        if suspended {
            self.nodes[node].clock.suspend(self.now, until);
            for id in self.nodes[node].requests.clone() {
                self.checker.extend_deadline(id, length);
            }
        }
        self.stand_still(node, until);
        self.nodes[node].asleep_until = self.nodes[node].asleep_until.max(until);
        for peer in (0..self.nodes.len()).filter(|peer| *peer != node) {
            for (at, of) in [(node, peer), (peer, node)] {
                let given_up = self.network_rng.soon(self.now, length.min(GIVEN_UP));
                self.queue.push(given_up, Event::HangUp { node: at, peer: of });
                let found = self.network_rng.soon(until, Duration::from_millis(300));
                self.queue.push(found, Event::Probe { node: at, peer: of });
            }
        }
    }

    fn stand_still(&mut self, node: usize, until: Time) {
        self.stop(node, until);
        let stopped = &mut self.nodes[node].stopped_until;
        *stopped = until.max(*stopped);
    }

    /// When the last process that stands still goes on, or has gone on.
    #[must_use]
    pub fn awake(&self) -> Time {
        // Or has written down what it was just writing down of the cluster.
        self.nodes.iter().map(|node| node.stopped_until.max(node.paused_until)).max().unwrap_or(self.now)
    }

    /// Nothing happens on a node until then. What it has begun it ends when it goes on, what has yet to reach it then begins; whatever
    /// waits for other nodes is no later for it.
    pub(super) fn stop(&mut self, node: usize, until: Time) {
        let before = self.nodes[node].paused_until.max(self.now);
        if until <= before {
            return;
        }
        self.nodes[node].paused_until = until;
        self.disturbs(node, until);
        self.checker.stands_still(node, until.since(before));
        for id in &self.nodes[node].requests {
            self.checker.ends_by(*id, until + GRACE);
        }
        for id in &self.nodes[node].expected {
            self.checker.extend_deadline(*id, until.since(before));
        }
    }
}
