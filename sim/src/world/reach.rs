//! Who could be reached from where, and since when nothing was in the way: who says that too few can be is held against that.

use super::World;
use crate::checker::{Invariant, OpId};
use crate::time::Time;
use core::time::Duration;
use gramme_quorum::{Op, OpError, Reply, Status};
use gramme_ring::Slot;

/// So long after the last thing that was in the way all know again who is there.
const SETTLED: Duration = Duration::from_secs(4);
/// Who has less time than this may run out of it.
const HURRIED: Duration = Duration::from_secs(1);
/// Nobody refuses to read as long as so much may wait for a disk.
const ROOM: usize = 1_000;

/// When something was in the way for the last time.
#[derive(Debug)]
pub(super) struct Disturbed {
    network: Time,
    nodes: Vec<Time>,
    /// Between two, by the smaller of them and the larger one.
    links: Vec<Time>,
}

impl Disturbed {
    pub(super) fn new(nodes: usize) -> Disturbed {
        Disturbed { network: Time(0), nodes: vec![Time(0); nodes], links: vec![Time(0); nodes * nodes] }
    }
}

impl World {
    /// Something befalls a node, until then at the least.
    pub(super) fn disturbs(&mut self, node: usize, until: Time) {
        let last = &mut self.disturbed.nodes[node];
        *last = until.max(self.now).max(*last);
    }

    /// When something befell a node for the last time.
    pub(super) fn last_disturbed(&self, node: usize) -> Time {
        self.disturbed.nodes[node]
    }

    /// Something befalls the link between two nodes.
    pub(super) fn disturbs_link(&mut self, a: usize, b: usize, until: Time) {
        let last = &mut self.disturbed.links[a.min(b) * self.nodes.len() + a.max(b)];
        *last = until.max(self.now).max(*last);
    }

    /// Something befalls all links.
    pub(super) const fn disturbs_network(&mut self) {
        self.disturbed.network = self.now;
    }

    /// A node tells its client that too few replicas can be reached: something was in the way since the request began, or shortly before.
    pub(super) fn check_reach(&mut self, node: usize, id: OpId, reply: &Reply) {
        let Reply::Failed(OpError::Quorum { need, have, want }) = reply else { return };
        let request = self.checker.request(id);
        let timeout = match &request.op {
            Op::Get { options, .. } => options.timeout,
            Op::Put { options, .. } | Op::Delete { options, .. } => options.timeout,
        };
        let limits = &self.shape.limits;
        // A copy that is damaged, or that there is no time to read, is none that can be reached.
        let refusing = self.shape.scrub.is_some() || limits.local < ROOM || limits.local_bytes < ROOM;
        if refusing || timeout.is_some_and(|timeout| timeout < HURRIED) {
            return;
        }
        let Some(host) = &self.nodes[node].host else { return };
        let membership = host.engine().membership();
        let Some(layout) = membership.layout().filter(|layout| layout.is_member(self.nodes[node].id)) else {
            return;
        };
        let owners = layout.owners(layout.partition_of(Slot::of(request.op.key())));
        let mut asked: Vec<usize> = owners.map(|id| self.numbers[&id]).collect();
        asked.push(node);
        let commit = membership.commit_hash();
        let since = request.submitted;
        let sound = asked.iter().all(|node| self.is_undisturbed(*node, since, commit));
        let pairs = asked.iter().flat_map(|a| asked.iter().map(move |b| (*a, *b))).filter(|(a, b)| a != b);
        let is_fair = self.disturbed.network + SETTLED <= since && self.network.is_fair();
        if sound && is_fair && pairs.into_iter().all(|(a, b)| self.is_joined(a, b, since)) {
            let what = format!(
                "{id} is told at node {node} that {have} of {want} can be reached ({need}), and nothing keeps it and {asked:?} from each other"
            );
            let key = self.checker.number_of(id);
            self.checker.fail(self.now, Invariant::Available, Some(key), what);
        }
    }

    /// Whether a node was well all the time, goes by this commit, and lacks nothing.
    fn is_undisturbed(&self, node: usize, since: Time, commit: Option<u64>) -> bool {
        let site = &self.nodes[node];
        let Some(host) = &site.host else { return false };
        let membership = host.engine().membership();
        let is_whole = || {
            let status = self.status(node);
            let whole = |status: &Status| {
                status.ready && status.incomplete_partitions == 0 && status.gaining_partitions == 0
            };
            status.as_ref().is_some_and(whole)
        };
        self.disturbed.nodes[node] + SETTLED <= since
            && site.paused_until <= self.now
            && site.asleep_until <= self.now
            && site.sync_time <= Duration::from_millis(1)
            && !site.disk.may_refuse()
            && !self.checker.has_damage(node)
            && !(site.gone || site.incomplete || site.outdated || site.unsynced)
            && membership.transition().is_none()
            && membership.commit_hash() == commit
            && is_whole()
    }

    /// Whether two nodes were connected all the time.
    pub(super) fn is_joined(&self, a: usize, b: usize, since: Time) -> bool {
        self.disturbed.links[a.min(b) * self.nodes.len() + a.max(b)] + SETTLED <= since
            && self.network.believes(a, b)
            && !self.network.is_cut(a, b)
            && !self.clogs.contains_key(&(a, b))
    }
}
