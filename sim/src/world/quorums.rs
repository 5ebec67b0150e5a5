//! By what a coordinator goes: the rules and layouts that it has itself, from when a request reaches it until it decides.

use super::World;
use crate::checker::{Coordination, OpId, Quorum, View};
use crate::keyspaces::Named;
use crate::time::Time;
use core::time::Duration;
use gramme_quorum::{Cover, Keyspace, Op, Reply};
use gramme_ring::{Layout, Membership, Slot, Step};
use std::collections::BTreeMap;

/// A request that has ended so long ago nobody coordinates any more.
const FORGOTTEN: Duration = Duration::from_secs(6 * 3600);

/// What a request asks for at a node that was asked to coordinate it.
#[derive(Debug)]
pub(super) struct Asking {
    since: Time,
    /// By the layout that reads go by, or by several.
    reading: Vec<Quorum>,
    /// By each layout that writes may go by.
    writing: Vec<Quorum>,
    /// It may begin later than it came, or begin again: what the node goes by then counts as well.
    later: bool,
}

/// The requests that nodes were asked to coordinate, by node.
pub(super) type Askings = BTreeMap<usize, BTreeMap<OpId, Asking>>;

/// What a node asks for follows from this: the rules as it sees them, the layout that it reads by, and those that it writes by, each with
/// the copies of a key.
#[derive(Debug, PartialEq)]
pub(super) struct Mind {
    view: View,
    reading: Option<(u64, u8)>,
    writing: Vec<(u64, u8)>,
}

/// Copies of each key.
pub(super) fn copies(layout: &Layout) -> u8 {
    u8::try_from(layout.owner_count()).unwrap_or(u8::MAX)
}

/// The keyspaces that a node knows.
pub(super) fn keyspaces(membership: &Membership) -> Vec<Named> {
    Keyspace::all(membership).map(|(prefix, one)| (prefix.to_owned(), one)).collect()
}

/// Adds what holds by now: by each layout the least that ever did.
fn fold(all: &mut Vec<Quorum>, more: Vec<Quorum>) {
    for one in more {
        match all.iter_mut().find(|known| known.layout == one.layout) {
            Some(known) => (known.r, known.w) = (known.r.min(one.r), known.w.min(one.w)),
            None => all.push(one),
        }
    }
}

impl Mind {
    /// What is asked for by the layouts that it reads and writes by.
    fn quorums(&self, op: &Op) -> (Vec<Quorum>, Vec<Quorum>) {
        let quorum = |(layout, replicas): &(u64, u8)| self.view.quorum(op, *layout, *replicas);
        (self.reading.iter().map(quorum).collect(), self.writing.iter().map(quorum).collect())
    }
}

impl World {
    /// The rules as a node sees them, if it runs and knows of any layout.
    pub(super) fn view(&self, node: usize) -> Option<View> {
        let membership = self.nodes[node].host.as_ref()?.engine().membership();
        membership.layout()?;
        let from = membership.transition().map(|transition| transition.from());
        let before = from.map(|from| (self.settings_before(membership), from.replicas()));
        Some(View { keyspaces: keyspaces(membership), before, founding: (self.shape.r, self.shape.w) })
    }

    /// The keyspaces that held before the last commit.
    fn settings_before(&self, membership: &Membership) -> Vec<Named> {
        let before = membership.commit_hash().and_then(|commit| self.parents.get(&commit));
        before.and_then(|before| self.settings.get(before)).cloned().unwrap_or_default()
    }

    /// For a change that is under way: the W of a key before it, if by its R reads may miss what was written so, and did not before.
    pub(super) fn fallen(&self, membership: &Membership) -> impl Fn(&[u8]) -> Option<u8> + use<> {
        let founding = (self.shape.r, self.shape.w);
        let view = |keyspaces| View { keyspaces, before: None, founding };
        let (before, now) = (view(self.settings_before(membership)), view(keyspaces(membership)));
        let n = membership.transition().map_or((0, 0), |t| (copies(t.from()), copies(t.to())));
        move |key| {
            let ((r, w), (new, _)) = (before.rules(key, n.0), now.rules(key, n.1));
            // Of W copies those may go that are with owners who go; who becomes one copies all.
            let left = (w + n.1).saturating_sub(n.0);
            (r + w > n.0 && new + left <= n.1).then_some(w)
        }
    }

    /// What a node goes by, if it runs and knows of any layout.
    fn mind(&self, node: usize) -> Option<Mind> {
        let (view, host) = (self.view(node)?, self.nodes[node].host.as_ref()?);
        let membership = host.engine().membership();
        let transition = membership.transition();
        let reading = match &transition {
            Some(transition) if transition.step() < Step::Moving => Some(transition.from()),
            _ => membership.layout(),
        };
        let writing =
            transition.as_ref().map(|transition| transition.from()).into_iter().chain(membership.layout());
        let named = |layout: &Layout| (layout.hash(), copies(layout));
        Some(Mind { view, reading: reading.map(named), writing: writing.map(named).collect() })
    }

    /// A request reaches a node that may coordinate it.
    pub(super) fn reaches(&mut self, node: usize, id: OpId) {
        let op = &self.checker.request(id).op;
        let (reading, writing) = self.mind(node).map(|mind| mind.quorums(op)).unwrap_or_default();
        // While it writes down something of the cluster it leaves all else for later, and a write may wait for congested replicas.
        let saving = self.nodes[node].paused_until >= self.now;
        let waits = op.is_write() && self.is_congested(node);
        // A plain write may take several rounds, and so may any where the last write wins; a plain delete reads before it writes.
        let several = match op {
            Op::Put { cover, .. } => *cover == Cover::Held || self.checker.is_lww(id),
            Op::Delete { .. } => true,
            Op::Get { .. } => false,
        };
        let later = saving || waits || several;
        let asking = Asking { since: self.now, reading: Vec::new(), writing: Vec::new(), later };
        // The network may bring it twice.
        let asking = self.askings.entry(node).or_default().entry(id).or_insert(asking);
        fold(&mut asking.reading, reading);
        fold(&mut asking.writing, writing);
    }

    /// It asks another to coordinate it first, and may do it itself after all.
    pub(super) fn passes_on(&mut self, node: usize, id: OpId) {
        if let Some(asking) = self.askings.get_mut(&node).and_then(|all| all.get_mut(&id)) {
            asking.later = true;
            // What it goes by now counts as well when it is next looked at.
            self.minds.remove(&node);
        }
    }

    /// A node goes by something else from now on, perhaps.
    pub(super) fn changes_its_mind(&mut self, node: usize) {
        let mind = self.mind(node);
        if mind.is_some() && self.minds.get(&node) == mind.as_ref() {
            return;
        }
        let Some(mut all) = self.askings.remove(&node) else { return };
        let now = self.now;
        all.retain(|id, asking| {
            self.checker.request(*id).ended.is_none() || now.since(asking.since) < FORGOTTEN
        });
        if let Some(mind) = mind {
            for (id, asking) in all.iter_mut().filter(|(_, asking)| asking.later) {
                let (reading, writing) = mind.quorums(&self.checker.request(*id).op);
                fold(&mut asking.reading, reading);
                fold(&mut asking.writing, writing);
            }
            self.minds.insert(node, mind);
        }
        self.askings.insert(node, all);
    }

    /// A coordinator has decided on a request.
    pub(super) fn decided(&mut self, node: usize, id: OpId, reply: &Reply) {
        self.checker.hides(node, id, reply);
        if let Some(by) = self.coordination(node, id) {
            self.checker.coordinated(self.now, id, reply, &by);
        }
    }

    /// By what a node coordinates a request. What it has begun before it heard of a change goes by the former layout alone, until it
    /// declares that all goes by both.
    fn coordination(&self, node: usize, id: OpId) -> Option<Coordination> {
        let asking = self.askings.get(&node)?.get(&id)?;
        let membership = self.nodes[node].host.as_ref()?.engine().membership();
        let (from, to) = match (membership.transition(), membership.layout()) {
            (Some(transition), _) => (Some(transition.from()), Some(transition.to())),
            (None, layout) => (layout, None),
        };
        let both =
            membership.transition().is_some_and(|transition| transition.phase(self.nodes[node].id).is_some());
        let slot = Slot::of(self.checker.request(id).op.key());
        let writing = [from, to.filter(|_| both)].into_iter().flatten().filter_map(|layout| {
            let quorum = asking.writing.iter().find(|quorum| quorum.layout == layout.hash())?;
            let owners = layout.owners(layout.partition_of(slot));
            Some((*quorum, owners.map(|id| (self.numbers[&id], id.0)).collect::<Vec<_>>()))
        });
        let mut writing: Vec<_> = writing.collect();
        // By a layout that was entered since then it asked nobody.
        let least = asking.writing.iter().map(|quorum| quorum.w).min().unwrap_or(0);
        let copies = writing.iter().map(|(quorum, _)| quorum.w).max().unwrap_or(least);
        // For an owner that was given up nobody keeps hints.
        writing.retain(|(_, owners)| owners.iter().all(|(owner, _)| !self.nodes[*owner].gone));
        Some(Coordination { reading: asking.reading.clone(), writing, copies })
    }
}
