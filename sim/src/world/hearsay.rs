//! What nodes know of each other's logs: who comes back on an old copy of its disk is told so by those who know better.

use super::World;
use crate::checker::Invariant;
use crate::time::Time;
use core::time::Duration;
use gramme_quorum::Run;
use gramme_quorum::message::Message;
use gramme_ring::Membership;
use std::collections::BTreeMap;

/// Within this time a node has written down how far a peer's log had come when it lost its connection to it, if nothing is in the way.
const NOTED: Duration = Duration::from_secs(5);

/// It takes no longer to be told.
const QUIET: Duration = Duration::from_secs(3);

/// How far the log of one run had come.
#[derive(Clone, Copy, Debug)]
struct Known {
    run: Run,
    mark: u64,
}

impl Known {
    /// Whether a run has less than this one told.
    fn outdates(&self, run: Run) -> bool {
        run.number < self.run.number || run.actor != self.run.actor && run.number <= self.mark
    }
}

/// What one node has heard of another.
#[derive(Clone, Copy, Debug)]
struct Heard {
    last: Known,
    /// As its connection ended.
    parted: Option<(Time, Known)>,
    /// What is surely on its disk.
    noted: Option<Known>,
}

/// By the node that knows and the one it knows of.
#[derive(Debug, Default)]
pub(super) struct Hearsay(BTreeMap<(usize, usize), Heard>);

/// Whether a node is a member by a layout in use.
fn has(membership: &Membership, id: gramme_ring::NodeId) -> bool {
    let from = membership.transition().map(|transition| transition.from());
    from.into_iter().chain(membership.layout()).any(|layout| layout.is_member(id))
}

impl World {
    /// A node hears how far another's log has come.
    pub(super) fn hears(&mut self, node: usize, of: usize, message: &Message) {
        let Message::Heartbeat { run, mark, .. } = *message else { return };
        let Some(host) = &self.nodes[node].host else { return };
        if !has(host.engine().membership(), self.nodes[of].id) {
            self.hearsay.0.remove(&(node, of));
            return;
        }
        let news = Heard { last: Known { run, mark }, parted: None, noted: None };
        let heard = self.hearsay.0.entry((node, of)).or_insert(news);
        if !heard.last.outdates(run) {
            let same = heard.last.run.actor == run.actor;
            heard.last = Known { run, mark: if same { mark.max(heard.last.mark) } else { mark } };
        }
    }

    /// A node's connection to another has ended: it writes down what it knows of it.
    pub(super) fn parts(&mut self, node: usize, of: usize) {
        self.note_hearsay(node);
        if let Some(heard) = self.hearsay.0.get_mut(&(node, of)) {
            heard.parted = Some((self.now, heard.last));
        }
    }

    /// What a node was to write down long enough ago it has.
    fn note_hearsay(&mut self, node: usize) {
        let (now, disturbed) = (self.now, self.last_disturbed(node));
        let refuses = self.nodes[node].disk.may_refuse();
        let slow = self.nodes[node].sync_time > Duration::from_secs(1);
        for (_, heard) in self.hearsay.0.range_mut((node, 0)..=(node, usize::MAX)) {
            let is_noted =
                |(at, _): &mut (Time, Known)| disturbed < *at && now.since(*at) >= NOTED && !refuses && !slow;
            if let Some((_, known)) = heard.parted.take_if(is_noted) {
                heard.noted = Some(known);
            }
        }
    }

    /// A node goes down: what it knows from then on is what it has written down.
    pub(super) fn forgets_hearsay(&mut self, node: usize, disk: bool) {
        self.note_hearsay(node);
        self.hearsay.0.retain(|(of, _), heard| {
            if *of != node {
                return true;
            }
            heard.parted = None;
            let noted = heard.noted.filter(|_| !disk);
            heard.last = noted.unwrap_or(heard.last);
            noted.is_some()
        });
    }

    /// A node goes by these members: of others it knows nothing.
    pub(super) fn knows_members(&mut self, node: usize) {
        let Some(host) = &self.nodes[node].host else { return };
        let membership = host.engine().membership();
        let nodes = &self.nodes;
        self.hearsay.0.retain(|(at, of), _| *at != node || has(membership, nodes[*of].id));
    }

    /// A node has been back for a while, and everybody can reach it: if its disk is an old one and somebody knows that, it has been told.
    pub(super) fn check_told(&mut self, node: usize) {
        let site = &self.nodes[node];
        let Some(host) = site.host.as_ref().filter(|_| site.outdated && !site.warned) else { return };
        let run = host.engine().run();
        let knows = |other: &usize| {
            let heard = self.hearsay.0.get(&(*other, node));
            let quiet = |node: usize| self.last_disturbed(node) + QUIET <= self.now;
            heard.is_some_and(|heard| heard.last.outdates(run))
                && self.is_up(*other)
                && quiet(*other)
                && quiet(node)
                && self.is_joined(*other, node, self.now)
                && self.is_joined(node, *other, self.now)
        };
        if let Some(other) = self.members().into_iter().find(knows) {
            let what = format!(
                "node {node} is back on an old disk as {run:?}; node {other} knows better ({:?}), and nobody tells it",
                self.hearsay.0[&(other, node)].last
            );
            self.checker.fail(self.now, Invariant::AbsenceIsAQuorum, None, what);
        }
    }
}
