//! Membership: gossip once a second, an operator's changes, and what follows from either.
//!
//! A change is made on a copy, written down by the caller ([`Output::Save`](crate::Output::Save)), and only then believed
//! and told: a node that forgot what it has declared would write to the old owners alone while the others count on it.

use crate::engine::{Engine, Timer};
use crate::keyspace::{self, KeyspaceError, Keyspaces, Rules};
use crate::message::Message;
use crate::op::RequestId;
use crate::opening::{MAX_MARK, Opening};
use crate::planted::Bug;
use crate::recovery::Missing;
use crate::time::Now;
use crate::transition;
use crate::view::copies;
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use gramme_ring::gossip::{Gossip, Message as Gossiped, Target};
use gramme_ring::membership::{CommitError, StageError};
use gramme_ring::transition::AdvanceError;
use gramme_ring::{Change, ClusterId, Layout, Membership, NodeId, Phase, Step};

/// In clusters of up to so many a change of the layout is told to all at once; in larger ones gossip spreads it.
const TOLD_AT_ONCE: usize = 64;

/// What an operator wants changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusterOp {
    /// Stage a change, to be looked at and committed. To remove a node for which a transition waits takes effect at once.
    Stage(Change),
    /// Take back all that is staged.
    Clear,
    /// Commit what is staged, if it still is the proposal with this hash. A keyspace that was staged before another commit goes by
    /// what held then: it is staged anew, and the proposal [has changed](CommitError::Changed).
    Commit(u64),
}

/// Why an operator's change was not made. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusterError {
    /// It can't be staged.
    Stage(StageError),
    /// It can't be committed.
    Commit(CommitError),
    /// The node can't be removed from the transition.
    Remove(AdvanceError),
    /// This node is no member; ask one that is.
    NotMember,
    /// Another change is just being written down; try again.
    Busy,
    /// It could not be written down: the disk is full or failed.
    NotSaved,
    /// The number of partitions is chosen when a cluster is founded.
    Partitions,
    /// There can't be such a keyspace.
    Keyspace(KeyspaceError),
    /// With so many replicas R + W would not be more than N any more, for the keyspace with this prefix (none: for all other keys).
    Apart(String),
}

impl fmt::Display for ClusterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClusterError::Stage(error) => error.fmt(f),
            ClusterError::Commit(error) => error.fmt(f),
            ClusterError::Remove(error) => error.fmt(f),
            ClusterError::Keyspace(error) => error.fmt(f),
            ClusterError::NotMember => f.write_str("this node is no member of the cluster: ask one that is"),
            ClusterError::Busy => f.write_str("another change is being written down; try again"),
            ClusterError::NotSaved => {
                f.write_str("the change could not be written down: the disk is full or failed")
            }
            ClusterError::Apart(prefix) => {
                write!(
                    f,
                    "with so many replicas r and w of the keyspace '{prefix}' would promise less than they do: reads could miss \
                     acknowledged writes. Commit higher ones for it first; 'quorum' fits any number of replicas"
                )
            }
            ClusterError::Partitions => {
                f.write_str("the number of partitions is chosen when a cluster is founded")
            }
        }
    }
}

impl core::error::Error for ClusterError {}

/// A change that is being written down.
#[derive(Debug)]
pub(crate) struct Saving {
    gossip: Gossip,
    then: Then,
}

/// What follows when it is.
#[derive(Debug)]
enum Then {
    /// An answer to this node's gossip.
    Reply(NodeId, Option<Gossiped>),
    /// An operator is told this.
    Tell(RequestId, Result<(), ClusterError>),
    /// Nothing.
    Nothing,
}

/// The last commit, and how far the change to it has come.
fn layout_state(membership: &Membership) -> (Option<u64>, Option<Step>) {
    (membership.commit_hash(), membership.transition().map(|transition| transition.step()))
}

impl Engine {
    /// Once a second: one peer at random hears what is known here.
    pub(crate) fn gossip_timer(&mut self, now: Now) {
        self.timers.insert((now.instant + self.config.timing.gossip, Timer::Gossip));
        for (target, message) in self.view.gossip.tick(0) {
            if let Target::Node(peer) = target {
                self.out.send(peer, Message::Gossip(message));
            }
        }
    }

    /// Asks one peer to compare what it knows.
    pub(crate) fn gossip_with(&mut self, peer: NodeId) {
        let summary = self.view.gossip.summary();
        self.out.send(peer, Message::Gossip(summary));
    }

    pub(crate) fn gossiped(&mut self, now: Now, from: NodeId, message: Gossiped) {
        // What is not taken in now comes again.
        if self.saving.is_some() {
            return;
        }
        let mut gossip = self.view.gossip.clone();
        let Ok(mut received) = gossip.receive(from, message) else { return };
        if received.membership_changed && now.instant < self.save_after {
            return;
        }
        for id in core::mem::take(&mut received.records) {
            if let Some(record) = gossip.record(id) {
                self.out.known(id, record.facts.clone());
            }
        }
        let reply = received.reply.take();
        if received.membership_changed {
            self.save(gossip, Then::Reply(from, reply));
        } else {
            self.view.gossip = gossip;
            self.sync_peers(now);
            if let Some(reply) = reply {
                self.out.send(from, Message::Gossip(reply));
            }
        }
        if let Some(head) = received.ahead_of_self {
            self.went_backwards(now, head.incarnation);
        }
    }

    /// Others have heard more of this node's store than this opening of it explains: it is an old copy, or was wiped.
    pub(crate) fn went_backwards(&mut self, now: Now, mark: u64) {
        let ignored = self.config.planted.is(Bug::RollbackIgnored);
        if ignored || mark < self.opening.number() || mark > MAX_MARK {
            return;
        }
        // A run that began incomplete, or was told before, gets everything in any case, or has it already.
        let news = !core::mem::replace(&mut self.config.incomplete, true);
        if news {
            // First, since peers won't find out a run that follows the new number.
            self.tell_incomplete();
        }
        self.renumber(self.opening.past(mark));
        if news {
            self.lost_all(now, Missing::Lost);
        }
    }

    /// An operator's change.
    pub(crate) fn cluster_op(&mut self, id: RequestId, op: ClusterOp) {
        if self.saving.is_some() {
            return self.out.cluster(id, Err(ClusterError::Busy));
        }
        let mut gossip = self.view.gossip.clone();
        match self.change(gossip.membership_mut(), op) {
            Ok(told) => self.save(gossip, Then::Tell(id, told)),
            Err(error) => self.out.cluster(id, Err(error)),
        }
    }

    /// Answers what the operator is told, apart from what could not be done at all.
    fn change(
        &self,
        membership: &mut Membership,
        op: ClusterOp,
    ) -> Result<Result<(), ClusterError>, ClusterError> {
        let me = self.config.node;
        if !self.view.members().contains(&me) {
            return Err(ClusterError::NotMember);
        }
        // What was staged before another commit is looked at once more.
        let staged = match &op {
            ClusterOp::Stage(change) => Vec::from([change.clone()]),
            ClusterOp::Commit(_) => membership.staged(),
            ClusterOp::Clear => Vec::new(),
        };
        for change in &staged {
            if let Change::Replicas(replicas) = change
                && let Some(prefix) = self.replica.keyspaces.pulled_apart(self.replicas(), *replicas)
            {
                return Err(ClusterError::Apart(prefix.into()));
            }
            keyspace::check(membership, change, self.replicas()).map_err(ClusterError::Keyspace)?;
        }
        let current = |change: Change| self.replica.keyspaces.remember(change, membership.layout());
        match op {
            ClusterOp::Stage(Change::Partitions(_)) => return Err(ClusterError::Partitions),
            ClusterOp::Stage(Change::Remove(id)) if self.holds_up(membership, id) => {
                membership.remove_during_transition(id).map_err(ClusterError::Remove)?;
            }
            ClusterOp::Stage(change) => {
                let change = current(change);
                membership.stage(me, change).map_err(ClusterError::Stage)?;
            }
            ClusterOp::Clear => membership.unstage_all(me).map_err(ClusterError::Stage)?,
            ClusterOp::Commit(hash) => {
                let now = staged.iter().cloned().map(current);
                let stale: Vec<Change> =
                    now.zip(&staged).filter(|(now, was)| now != *was).map(|(now, _)| now).collect();
                if !stale.is_empty() {
                    for change in stale {
                        membership.stage(me, change).map_err(ClusterError::Stage)?;
                    }
                    let proposal = membership.propose().map_err(ClusterError::Commit)?;
                    return Ok(Err(ClusterError::Commit(CommitError::Changed(proposal.hash()))));
                }
                let cluster = membership.cluster().unwrap_or(ClusterId(0));
                membership.commit(cluster, hash).map_err(ClusterError::Commit)?;
                // What is committed with other replicas is to keep its promise among those.
                let mut planned = Keyspaces::new(self.config.r, self.config.w);
                planned.adopt(membership);
                // By N, not by the members that there are: few of them hold all.
                let before = self.view.reading().map_or(0, Layout::replicas);
                let after = membership.layout().map_or(0, Layout::replicas);
                if let Some(prefix) = planned.pulled_apart(before, after) {
                    return Err(ClusterError::Apart(prefix.into()));
                }
            }
        }
        Ok(Ok(()))
    }

    /// Whether a transition waits for a node; or, if that is down, for one that leaves, and may keep writes for it.
    fn holds_up(&self, membership: &Membership, id: NodeId) -> bool {
        let Some(transition) = membership.transition() else { return false };
        let late = transition.waiting_for();
        let leaves = |late: &NodeId| !transition.to().is_member(*late);
        late.contains(&id)
            || transition.step() == Step::Moving
                && transition.takes_part(id)
                && !self.is_alive(id)
                && late.iter().any(leaves)
    }

    /// Makes a change of this node's own, if there is one to make. One that could not be written down rests for a while.
    pub(crate) fn decide(&mut self, now: Now, change: impl FnOnce(&mut Membership) -> bool) {
        if self.saving.is_some() || now.instant < self.save_after {
            return;
        }
        let mut gossip = self.view.gossip.clone();
        if change(gossip.membership_mut()) {
            self.save(gossip, Then::Nothing);
        }
    }

    pub(crate) const fn is_saving(&self) -> bool {
        self.saving.is_some()
    }

    fn save(&mut self, gossip: Gossip, then: Then) {
        if self.has_skipped(gossip.membership()) {
            self.tell_incomplete();
        }
        self.out.save(Box::new(gossip.membership().clone()));
        self.saving = Some(Saving { gossip, then });
    }

    /// What was to be saved is, or could not be.
    pub(crate) fn saved(&mut self, now: Now, done: bool) {
        let Some(Saving { gossip, then }) = self.saving.take() else { return };
        if done || self.config.planted.is(Bug::UnsavedBelieved) {
            self.adopt(now, gossip);
        } else {
            self.save_after = now.instant + self.config.timing.retry;
        }
        self.resume_recovery(now);
        match then {
            Then::Tell(id, told) if done => self.out.cluster(id, told),
            Then::Tell(id, _) => self.out.cluster(id, Err(ClusterError::NotSaved)),
            Then::Reply(to, Some(reply)) if done => self.out.send(to, Message::Gossip(reply)),
            Then::Reply(..) | Then::Nothing => {}
        }
    }

    fn adopt(&mut self, now: Now, gossip: Gossip) {
        let changed = layout_state(self.view.membership()) != layout_state(gossip.membership());
        let skipped = self.has_skipped(gossip.membership());
        self.view.adopt(gossip);
        self.replica.keyspaces.adopt(self.view.membership());
        if !self.config.planted.is(Bug::SyncFirstForgotten) {
            self.replica.sync_first();
        }
        // From now on an acknowledgement may mean more than that of what is still unsynced.
        (self.adopted, self.adopted_load) = (self.out.last_append(), self.out.last_load());
        self.replica.journal.want_sync();
        self.sync_peers(now);
        if !changed {
            return;
        }
        if self.peers.len() <= TOLD_AT_ONCE {
            let connected = self.peers.iter().filter(|(_, peer)| peer.connected).map(|(id, _)| *id);
            for peer in connected.collect::<Vec<_>>() {
                self.gossip_with(peer);
            }
        }
        if skipped {
            self.config.incomplete = true;
            self.lost_all(now, Missing::Lost);
        }
        self.begin_anew();
        self.layout_changed(now);
    }

    /// Whether this node is said to own something already that it knows nothing of, and has never pulled: no transition ends without
    /// its members, so its disk is an old one.
    fn has_skipped(&self, after: &Membership) -> bool {
        let before = self.view.membership();
        !self.config.planted.is(Bug::SkippedIgnored)
            && layout_state(before) != layout_state(after)
            && !self.owned_by(after, |gains| !gains).is_subset(&self.owned_by(before, |_| true))
    }

    /// What this node told of its log while it owned nothing, or before that, is not to be held against it when it owns something again.
    pub(crate) fn begin_anew(&mut self) {
        let me = self.config.node;
        let mut layouts = self.view.writing();
        let Some(free) = layouts.next().filter(|layout| !layout.is_member(me)) else { return };
        let opening = self.opening.past_layout(layouts.last().unwrap_or(free).version());
        if opening != self.opening {
            self.renumber(opening);
        }
    }

    /// This run goes by a larger number from now on.
    fn renumber(&mut self, opening: Opening) {
        self.opening = opening;
        let views = [Some(&mut self.view.gossip), self.saving.as_mut().map(|saving| &mut saving.gossip)];
        for gossip in views.into_iter().flatten() {
            gossip.restart(opening.number()).expect("an opening's number is in range");
        }
        // So that the next opening comes after this one.
        self.store_actor();
    }

    /// The partitions that this node owns by the layouts in use; of one that is being entered, if `counts` says so of whether it has
    /// still to get what it gains.
    fn owned_by(&self, membership: &Membership, counts: impl Fn(bool) -> bool) -> BTreeSet<(u16, u16)> {
        let me = self.config.node;
        let transition = membership.transition();
        let gains = transition.as_ref().is_some_and(|transition| transition.phase(me) < Some(Phase::Synced));
        let entered = membership.layout().filter(|_| counts(gains));
        let from = transition.map(|transition| transition.from());
        let layouts: Vec<&Layout> = from.into_iter().chain(entered).collect();
        // All in the finest of their partitions, so that they can be told apart.
        let finest = layouts.iter().max_by_key(|layout| layout.partitions());
        let owned = |slots: &(u16, u16)| layouts.iter().any(|layout| transition::owns(layout, *slots, me));
        finest.into_iter().flat_map(|layout| transition::units(layout)).filter(owned).collect()
    }

    /// Goes by the members that there are now.
    pub(crate) fn sync_peers(&mut self, now: Now) {
        let wanted = self.view.peers(self.config.node);
        let gone: Vec<NodeId> = self.peers.keys().filter(|id| !wanted.contains(id)).copied().collect();
        for id in gone {
            // Strangers stay as long as they are connected, those removed don't.
            let connected = self.peers.get(&id).is_some_and(|peer| peer.connected);
            if connected && !self.view.membership().is_removed(id) {
                continue;
            }
            self.peers.remove(&id);
            self.lost(now, id);
            self.handoffs.remove(&id);
        }
        for id in wanted {
            self.add_peer(now, id);
        }
    }

    /// What holds for a key.
    pub(crate) fn rules(&self, key: &[u8]) -> &Rules {
        self.replica.keyspaces.of(key)
    }

    /// What N is, by the layout that reads go by; 0 if there is none.
    pub(crate) fn replicas(&self) -> u8 {
        self.view.reading().map_or(0, copies)
    }
}
