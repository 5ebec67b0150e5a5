//! Nodes come and go: what an operator does, and what the judge makes of it.

use super::quorums::{copies, keyspaces};
use super::{Crash, Event, World};
use crate::checker::{Invariant, Unrest};
use crate::keyspaces::Named;
use core::time::Duration;
use gramme_quorum::{ClusterError, ClusterOp, Input, Keyspace, RequestId};
use gramme_ring::{Change, Layout, Member, Membership, NodeId, Phase, Slot, Step, Zone};

/// A change of the membership, by nodes' numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alteration {
    /// A node joins, or a member's weight changes.
    Member(usize, u32),
    /// A member moves to a zone of this number.
    Zone(usize, u8),
    /// So many nodes keep each key.
    Replicas(u8),
    /// A member leaves.
    Leave(usize),
    /// A node that is given up for dead is removed.
    Remove(usize),
}

/// What an operator tells a node.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    Op(ClusterOp),
    /// Commit whatever is staged by then.
    Commit,
}

impl World {
    /// A node writes down what it knows of the cluster. It may be safe long before the node knows, or only just; a full
    /// or failing disk takes it or not.
    pub(super) fn begin_save(&mut self, node: usize, membership: Membership) {
        self.check_acknowledged(node, &membership);
        self.checker.lets_go(node);
        let early = self.disk_rng.chance(500_000);
        let fails = self.nodes[node].disk.refuses && self.disk_rng.chance(500_000);
        let run = self.nodes[node].runs;
        let length = self.disk_rng.between(Duration::from_micros(50), self.nodes[node].sync_time);
        let at = self.now + length;
        // Nothing else happens on the node meanwhile.
        self.stop(node, at);
        if early && !fails {
            self.saved(node, membership);
        } else {
            self.nodes[node].saving = Some(membership);
        }
        self.queue.push(at, Event::Saved { node, run, done: !fails });
    }

    /// Whether it is about to declare that it goes by a new layout alone.
    fn check_acknowledged(&mut self, node: usize, next: &Membership) {
        let id = self.nodes[node].id;
        let phase = |membership: &Membership| membership.transition().and_then(|known| known.phase(id));
        let goes_by = self.nodes[node].host.as_ref().map(|host| host.engine().membership());
        let same = goes_by.filter(|membership| membership.commit_hash() == next.commit_hash());
        if phase(next) == Some(Phase::Acknowledged) && same.is_some_and(|known| phase(known).is_none()) {
            self.checker.acknowledges(self.now, node);
        }
    }

    /// And now it knows.
    pub(super) fn finish_save(&mut self, node: usize, run: u64, done: bool) {
        let site = &self.nodes[node];
        if site.runs != run || site.host.is_none() {
            return;
        }
        self.hash.event(b'W', [self.now.0, node as u64, u64::from(done)], &[]);
        if let Some(membership) = self.nodes[node].saving.take().filter(|_| done) {
            self.saved(node, membership);
        }
        let clock = self.nodes[node].clock.now(self.now);
        if let Some(host) = &mut self.nodes[node].host {
            host.saved(clock, done);
            // It hears of that only when it is noted that its store is an old one, if there is that to be noted.
            let heard = !host.is_warning();
            if heard && done {
                self.checker.syncs_first(node);
            }
            if heard && host.engine().membership().digest() != self.nodes[node].membership.digest() {
                let what = format!("node {node} goes by what it could not write down of the cluster");
                self.checker.fail(self.now, Invariant::WrittenDownFirst, None, what);
            }
        }
        self.tell_keyspaces(node);
        self.knows_members(node);
        self.shuns(node);
        self.after(node);
    }

    /// What a node has written down.
    fn saved(&mut self, node: usize, membership: Membership) {
        self.hash.event(b'G', [self.now.0, node as u64, membership.digest()], &[]);
        if let Some(layout) = membership.layout() {
            let transition = membership.transition().map(|t| (t.step(), t.waiting_for()));
            let what = format!("node {node} goes by layout {} ({transition:?})", layout.version());
            self.note(&what);
            let commit = membership.commit_hash().expect("there is a layout");
            self.settings.entry(commit).or_insert_with(|| keyspaces(&membership));
            // Who has made it has written it down first, and had the one before until then.
            if let Some(before) = self.nodes[node].membership.commit_hash().filter(|before| *before != commit)
            {
                self.parents.entry(commit).or_insert(before);
            }
            if let Some(transition) = membership.transition() {
                let fallen = self.fallen(&membership);
                self.checker.change_begins(commit, transition.from(), transition.to(), fallen);
            }
            self.check_step(node, &membership);
            let from = membership.transition().map(|transition| transition.from());
            for layout in [Some(layout), from].into_iter().flatten() {
                self.checker.check_view(self.now, node, layout);
            }
            let layout = self.nodes[node]
                .membership
                .layout()
                .is_none_or(|former| former != layout)
                .then(|| layout.clone());
            self.nodes[node].membership = membership;
            if let Some(layout) = layout
                && layout.version() >= self.layout.version()
            {
                self.layout = layout;
                self.name_members();
            }
        } else {
            self.nodes[node].membership = membership;
        }
        self.tell_rules();
    }

    /// Tells the judge which N nodes go by, as they have written it down and as they run.
    pub(super) fn tell_rules(&mut self) {
        let nodes = self.nodes.iter().filter(|node| !node.gone);
        let memberships = nodes.flat_map(|node| {
            let runs_by = node.host.as_ref().map(|host| host.engine().membership());
            runs_by.into_iter().chain([&node.membership])
        });
        let layouts = memberships.flat_map(|known| {
            let from = known.transition().map(|transition| transition.from());
            known.layout().into_iter().chain(from)
        });
        let (least, most) =
            layouts.map(copies).fold((u8::MAX, 0), |(least, most), n| (n.min(least), n.max(most)));
        self.checker.in_force(least, most);
    }

    /// A node declares a step of a transition, or hears of one.
    fn check_step(&mut self, node: usize, membership: &Membership) {
        let Some(transition) = membership.transition() else { return };
        let id = self.nodes[node].id;
        let before = self.nodes[node].membership.transition().and_then(|former| former.phase(id));
        let phase = transition.phase(id);
        // One that was set back hears from others what it has declared.
        if phase > before && !self.nodes[node].outdated {
            if before < Some(Phase::Synced) && phase >= Some(Phase::Synced) {
                let commit = membership.commit_hash().expect("there is a layout");
                self.checker.has_gained(self.now, node, commit, transition.from(), transition.to());
            }
            if phase == Some(Phase::Moved) && !transition.to().is_member(id) {
                self.checker.leaves(self.now, node);
            }
        }
        // Reads move to the new owners. Of a key with an owner whose disk is gone, or that counts toward no quorum until it has asked
        // the others what its machine's end took, there may be fewer holders.
        if transition.step() >= Step::Moving && self.moved < transition.to().version() {
            self.moved = transition.to().version();
            let unsound = |node: usize| {
                let site = &self.nodes[node];
                site.gone || site.unsynced || site.incomplete || site.outdated
            };
            let unsound: Vec<bool> = (0..self.nodes.len()).map(unsound).collect();
            let numbers = &self.numbers;
            let by = |layout: &Layout, key: &[u8]| {
                layout.owners(layout.partition_of(Slot::of(key))).map(|id| numbers[&id]).collect::<Vec<_>>()
            };
            let (from, to) = (transition.from(), transition.to());
            let owners = |key: &[u8]| {
                let next = by(to, key);
                let former = by(from, key);
                let all_sound = former.iter().chain(&next).all(|node| !unsound[*node]);
                all_sound.then_some((former, next))
            };
            self.checker.reads_move(self.now, owners);
        }
    }

    /// Tells the judge who is a member.
    pub(super) fn name_members(&mut self) {
        let members = self.members().into_iter().map(|node| (node, self.nodes[node].id.0));
        let members: Vec<_> = members.collect();
        self.checker.set_layout(self.layout.clone(), members);
    }

    /// The members, by number.
    #[must_use]
    pub fn members(&self) -> Vec<usize> {
        self.layout.members().iter().map(|member| self.numbers[&member.id]).collect()
    }

    /// Whether a node was lost for good.
    #[must_use]
    pub fn is_gone(&self, node: usize) -> bool {
        self.nodes[node].gone
    }

    /// Nodes that could join.
    #[must_use]
    pub fn spares(&self) -> Vec<usize> {
        let members = self.members();
        (0..self.nodes.len()).filter(|node| !members.contains(node) && !self.nodes[*node].gone).collect()
    }

    /// Whether a transition is live in anybody's eyes.
    #[must_use]
    pub fn is_changing(&self) -> bool {
        self.nodes.iter().any(|node| !node.gone && node.membership.transition().is_some())
    }

    /// An operator alters the membership at a node, and commits.
    pub fn alter(&mut self, at: usize, alterations: &[Alteration]) {
        self.fault(&format!("at node {at}: {alterations:?}"));
        for alteration in alterations {
            let id = |node: usize| self.nodes[node].id;
            let known = |node: usize| {
                let known = self.layout.members().iter().find(|member| member.id == id(node));
                known.cloned().unwrap_or_else(|| Member::new(id(node)))
            };
            let change = match *alteration {
                Alteration::Member(node, weight) => Change::Member(known(node).with_weight(weight)),
                Alteration::Zone(node, zone) => {
                    let zone = Zone::new(&format!("zone {zone}")).expect("a short name");
                    Change::Member(known(node).with_zone(zone))
                }
                Alteration::Replicas(replicas) => Change::Replicas(replicas),
                Alteration::Leave(node) => Change::Leave(id(node)),
                Alteration::Remove(node) => Change::Remove(id(node)),
            };
            self.order(at, Order::Op(ClusterOp::Stage(change)));
        }
        self.commit(at);
    }

    /// An operator stages these keyspaces at a node, and commits.
    pub fn commit_keyspaces(&mut self, at: usize, keyspaces: &[Named]) {
        for (prefix, keyspace) in keyspaces {
            self.note(&format!("at node {at}: keyspace {prefix} {keyspace:?}"));
            self.checker.commits(prefix, keyspace);
            let change = keyspace.change(prefix).expect("a keyspace that can be");
            self.order(at, Order::Op(ClusterOp::Stage(change)));
        }
        self.commit(at);
    }

    /// The keyspaces that all members go by, and will after any restart: prefixes, and whether values expire there by themselves.
    #[must_use]
    pub fn keyspaces(&self) -> Vec<(String, bool)> {
        let members = self.members().into_iter().map(|node| &self.nodes[node]).filter(|node| !node.gone);
        let mut memberships = members.flat_map(|node| {
            let runs_by = node.host.as_ref().map(|host| host.engine().membership());
            runs_by.into_iter().chain([&node.membership])
        });
        let Some(first) = memberships.next() else { return Vec::new() };
        let mut all: Vec<(String, bool)> = Keyspace::all(first)
            .map(|(prefix, keyspace)| (prefix.to_owned(), keyspace.ttl_ms.is_some()))
            .collect();
        for membership in memberships.chain([first]) {
            let known = |prefix: &str| Keyspace::all(membership).any(|(known, _)| known == prefix);
            all.retain(|(prefix, _)| membership.transition().is_none() && known(prefix));
        }
        all
    }

    /// Tells the judge which keyspaces a node goes by.
    pub(super) fn tell_keyspaces(&mut self, node: usize) {
        if let Some(host) = &self.nodes[node].host {
            let membership = host.engine().membership();
            let settled = |(prefix, keyspace): (_, Keyspace)| {
                (Keyspace::policy_in_force(membership, prefix) == Some(keyspace.policy)).then_some(prefix)
            };
            self.checker.goes_by(node, Keyspace::all(membership).filter_map(settled));
            self.checker.goes_by_layout(node, host.engine().membership().layout());
            self.checker.adopts(node, host.engine().membership().commit_hash());
        }
        if let Some(view) = self.view(node) {
            self.checker.sees(node, view);
        }
        self.changes_its_mind(node);
        self.tell_rules();
    }

    /// An operator commits whatever a node has staged, if anything.
    pub fn commit(&mut self, at: usize) {
        self.order(at, Order::Commit);
    }

    fn commit_now(&mut self, at: usize) {
        let proposal = self.nodes[at].host.as_ref().map(|host| host.engine().membership().propose());
        let Some(Ok(proposal)) = proposal else { return self.operate(at) };
        // With fewer members no write could be sure of two copies while one is away.
        let enough = proposal.layout().members().len() >= 3;
        self.cluster_op(at, if enough { ClusterOp::Commit(proposal.hash()) } else { ClusterOp::Clear });
    }

    /// Somebody who is up sees to it that lost nodes are removed, and what waits to be committed is.
    pub fn alter_lost(&mut self) {
        let members = self.members();
        let sound = |node: &usize| self.is_up(*node) && !self.is_gone(*node);
        let Some(at) = members.iter().copied().find(sound) else { return };
        // One that was about to leave is waited for, too.
        let lost: Vec<usize> = (0..self.nodes.len()).filter(|node| self.nodes[*node].gone).collect();
        for lost in lost {
            let id = self.nodes[lost].id;
            let known = self.nodes[at].membership.is_removed(id);
            if !known {
                self.order(at, Order::Op(ClusterOp::Stage(Change::Remove(id))));
            }
        }
        // Where too few would be left, others take their places.
        let left = self.members().iter().filter(|node| !self.nodes[**node].gone).count();
        for spare in self.spares().into_iter().take(3usize.saturating_sub(left)) {
            let id = self.nodes[spare].id;
            self.order(at, Order::Op(ClusterOp::Stage(Change::Member(Member::new(id)))));
        }
        self.commit(at);
    }

    /// An operator gives a node an order when it has answered the one before.
    fn order(&mut self, at: usize, order: Order) {
        if !self.is_up(at) {
            return;
        }
        self.nodes[at].orders.push_back(order);
        if self.nodes[at].order.is_none() {
            self.operate(at);
        }
    }

    fn operate(&mut self, at: usize) {
        match self.nodes[at].orders.pop_front() {
            Some(Order::Op(op)) => self.cluster_op(at, op),
            Some(Order::Commit) => self.commit_now(at),
            None => {}
        }
    }

    pub(super) fn cluster_op(&mut self, at: usize, op: ClusterOp) {
        if self.is_up(at) {
            self.hash.event(b'O', [self.now.0, at as u64, 0], format!("{op:?}").as_bytes());
            self.nodes[at].order = Some(op.clone());
            self.handle(at, Input::Cluster(RequestId(0), op));
        }
    }

    /// A node has answered its operator.
    pub(super) fn ordered(&mut self, at: usize, done: &Result<(), ClusterError>) {
        let Some(op) = self.nodes[at].order.take() else { return };
        if *done == Err(ClusterError::Busy) {
            // It was just learning something.
            let run = self.nodes[at].runs;
            self.queue.push(self.now + Duration::from_millis(20), Event::Order { node: at, run, op });
        } else if let (ClusterOp::Commit(_), Err(ClusterError::Apart(_) | ClusterError::Keyspace(_))) =
            (op, done)
        {
            // What can't be committed as things are stands in the way of all else that is staged: it is taken back.
            self.cluster_op(at, ClusterOp::Clear);
        } else {
            self.operate(at);
        }
    }

    /// A node goes for good, with its disk.
    pub fn lose(&mut self, node: usize) {
        self.crash(node, Crash::PowerCut);
        self.fault(&format!("node {node} is gone for good"));
        self.forgets_hearsay(node, true);
        self.nodes[node].gone = true;
        self.nodes[node].incomplete = false;
        self.nodes[node].unsynced = false;
        self.checker.gives_up(self.now, node);
        self.tell_rules();
    }

    /// What is not at rest about the membership.
    pub(super) fn membership_unrest(&self, full: Option<usize>) -> Option<Unrest> {
        let unrest = |what| Some(Unrest { invariant: Invariant::ViewsEqual, key: None, what });
        let members: Vec<NodeId> = self.layout.members().iter().map(|member| member.id).collect();
        let mut digests = Vec::new();
        for node in self.nodes.iter().filter(|node| members.contains(&node.id)) {
            let Some(host) = &node.host else { return unrest(format!("{} is down", node.id)) };
            let membership = host.engine().membership();
            if let Some(transition) = membership.transition() {
                let (step, late) = (transition.step(), transition.waiting_for());
                let first = late.first().and_then(|id| self.nodes[self.numbers[id]].host.as_ref());
                let status = first.map(|host| host.engine().status(gramme_quorum::Instant::default()));
                return unrest(format!("{} is {step}, waiting for {late:?}: {status:?}", node.id));
            }
            let status = host.engine().status(gramme_quorum::Instant::default());
            // Who is full takes nothing that it is offered, and who keeps hints for it goes on offering until those are gone.
            if status.sweeping_partitions > 0 && full.is_none() {
                return unrest(format!("{} still sweeps: {status:?}", node.id));
            }
            digests.push((node.id, membership.digest()));
        }
        let differs = digests.iter().find(|(_, digest)| *digest != digests[0].1)?;
        unrest(format!("{} and {} know different things", digests[0].0, differs.0))
    }
}
