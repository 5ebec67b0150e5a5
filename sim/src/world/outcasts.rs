//! Members that are given up for dead and are not: until they hear of it they run on, and clients ask them.

use super::{Crash, Event, World};

impl World {
    /// A member is given up as if it were gone for good. It runs on until somebody who knows refuses its connection, as the server does; then
    /// it does nothing more.
    pub fn cast_out(&mut self, node: usize) {
        if !self.is_up(node) {
            return self.lose(node);
        }
        self.fault(&format!("node {node} is given up, and runs on"));
        let site = &mut self.nodes[node];
        (site.gone, site.outcast) = (true, true);
        (site.incomplete, site.unsynced) = (false, false);
        self.checker.casts_out(node);
        self.tell_rules();
    }

    /// Whether a node that runs was given up.
    #[must_use]
    pub fn is_outcast(&self, node: usize) -> bool {
        self.nodes[node].outcast
    }

    /// Those that still run are turned off.
    pub fn end_outcasts(&mut self) {
        for node in 0..self.nodes.len() {
            if self.is_outcast(node) {
                self.crash(node, Crash::PowerCut);
            }
        }
    }

    /// Its process has ended: what it alone has is gone with it.
    pub(super) fn outcast_ends(&mut self, node: usize) {
        if std::mem::take(&mut self.nodes[node].outcast) {
            self.note(&format!("node {node}, which was given up, is gone for good"));
            self.checker.gives_up(self.now, node);
        }
    }

    /// A node has heard who was given up: it ends its connections to those.
    pub(super) fn shuns(&mut self, node: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            if self.is_outcast(other) && self.knows_outcast(node, other) {
                for (at, of) in [(node, other), (other, node)] {
                    self.queue.push(self.now, Event::HangUp { node: at, peer: of });
                }
            }
        }
    }

    /// Whether a node refuses to talk to another that was given up.
    fn knows_outcast(&self, node: usize, other: usize) -> bool {
        let id = self.nodes[other].id;
        self.nodes[node].host.as_ref().is_some_and(|host| host.engine().membership().is_removed(id))
    }

    /// Two nodes can be connected: unless one was given up and the other knows. Then it hears of that.
    pub(super) fn are_turned_away(&mut self, a: usize, b: usize) -> bool {
        let mut turned_away = false;
        for (outcast, other) in [(a, b), (b, a)] {
            if self.is_outcast(outcast) && self.knows_outcast(other, outcast) {
                self.note(&format!("node {outcast} hears from node {other} that it was given up"));
                self.crash(outcast, Crash::Kill);
                turned_away = true;
            }
        }
        turned_away
    }
}
