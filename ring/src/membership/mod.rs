//! What the cluster has agreed on and what it is about to: a state that any two nodes can merge.
//!
//! Members, their weights and zones, N, Q and named settings are *staged* by anyone, anywhere, in any number; looked at
//! as a [`Plan`](crate::Plan); then *committed* by one node, which computes the [`Layout`] that the others adopt. State
//! spreads by gossip: [`Membership::merge`] is commutative, associative and idempotent, so that all end alike whatever
//! they heard in whatever order.
//!
//! - Of two commits on one parent the one with the smaller hash stands, and what the other changed is staged again.
//! - While the [`Transition`] of a commit is live there is no further commit. A commit whose transition has ended is never
//!   displaced by another of its version.
//! - An id that was removed is refused for ever.
//!
//! ```
//! use gramme_ring::{Change, ClusterId, Member, Membership, NodeId};
//!
//! let me = NodeId(1);
//! let mut here = Membership::new();
//! for id in 1..=3 {
//!     here.stage(me, Change::Member(Member::new(NodeId(id))))?;
//! }
//! let proposal = here.propose()?;
//! here.commit(ClusterId(7), proposal.hash())?;
//! assert_eq!(here.layout().unwrap().members().len(), 3);
//!
//! // A node that knows nothing yet hears of it and asks to join.
//! let mut there = Membership::new();
//! there.merge(&here)?;
//! there.stage(NodeId(4), Change::Member(Member::new(NodeId(4)).with_weight(2)))?;
//! here.merge(&there)?;
//! assert_eq!(here.staged().len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod config;
mod encoding;
mod error;

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::cmp::Reverse;

use serde::{Deserialize, Serialize};

pub use config::{
    Change, DEFAULT_PARTITIONS, DEFAULT_REPLICAS, MAX_KNOWN_NODES, MAX_SETTING_NAME, MAX_SETTING_VALUE,
    MAX_SETTINGS, Standing,
};
use config::{Config, Described};
pub use error::{CommitError, FoundError, MergeError, StageError};

use crate::layout::{Layout, LayoutVersion};
use crate::mix::SequenceHash;
use crate::node::NodeId;
use crate::partition::PartitionCount;
use crate::transition::{AdvanceError, Phase, Step, Trackers, Transition};

/// Separates this hash from others over like numbers ("GrMember" in ASCII).
const DOMAIN: u64 = 0x4772_4d65_6d62_6572;

/// A cluster's identity, drawn at random at its first commit. Two clusters never merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterId(pub u64);

/// What a merge brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merged {
    /// Anything at all: it has to be made durable and told to others.
    pub changed: bool,
    /// Another layout is the committed one now.
    pub layout_changed: bool,
}

/// What a commit would bring; see [`Membership::propose`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    config: Config,
    layout: Layout,
    hash: u64,
}

impl Proposal {
    /// The layout that would be entered.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Over layout and settings: what [`Membership::commit`] asks for, so that nothing is committed that was not looked
    /// at.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

/// A commit that all who hear of it adopt.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Commit {
    cluster: ClusterId,
    config: Config,
    layout: Layout,
    /// The layout before it while the transition is live; `None` when it has ended.
    from: Option<Layout>,
    trackers: Trackers,
    /// Of what makes the commit: cluster, configuration and layout.
    hash: u64,
    /// Ids removed by the configuration, sorted.
    removed: Vec<NodeId>,
}

impl Commit {
    fn new(
        cluster: ClusterId,
        config: Config,
        layout: Layout,
        from: Option<Layout>,
        trackers: Trackers,
    ) -> Commit {
        let mut hash = SequenceHash::new(DOMAIN);
        hash.number(cluster.0);
        hash.number(layout.hash());
        config.hash_into(&mut hash);
        let removed = config.removed();
        Commit { cluster, config, layout, from, trackers, hash: hash.finish(), removed }
    }

    /// Which of two commits stands: the larger. A total order of commits and their ends, so that taking the larger
    /// merges.
    fn rank(&self) -> (LayoutVersion, bool, Reverse<u64>) {
        (self.layout.version(), self.from.is_none(), Reverse(self.hash))
    }

    fn end_transition(&mut self) -> bool {
        // What was declared on the way has no further use. Were it kept, it would depend on who had heard what when.
        self.trackers = Trackers::default();
        self.from.take().is_some()
    }
}

/// What one node knows of the cluster's agreements. See the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    committed: Option<Commit>,
    /// Later than what is committed, subject by subject.
    staged: Config,
    /// Given up while a transition waited for them. Only ever grows, whichever commit stands.
    given_up: BTreeSet<NodeId>,
}

impl Membership {
    /// Nothing known.
    pub fn new() -> Self {
        Membership::default()
    }

    /// A new cluster of these members, committed.
    ///
    /// # Errors
    /// [`FoundError`] if a member or number can't be staged, or if there is no such layout.
    pub fn found(
        cluster: ClusterId,
        replicas: u8,
        partitions: u32,
        members: &[crate::Member],
    ) -> Result<Self, FoundError> {
        let author = members.first().map_or(NodeId(0), |member| member.id);
        let mut founded = Membership::new();
        founded.stage(author, Change::Replicas(replicas))?;
        founded.stage(author, Change::Partitions(partitions))?;
        for member in members {
            founded.stage(author, Change::Member(member.clone()))?;
        }
        let hash = founded.propose()?.hash();
        founded.commit(cluster, hash)?;
        Ok(founded)
    }

    /// The cluster, once something was committed.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.committed.as_ref().map(|c| c.cluster)
    }

    /// The committed layout: while a transition is live the one that is entered.
    pub fn layout(&self) -> Option<&Layout> {
        self.committed.as_ref().map(|c| &c.layout)
    }

    /// The transition to the committed layout, while it is live.
    pub fn transition(&self) -> Option<Transition<'_>> {
        let commit = self.committed.as_ref()?;
        let from = commit.from.as_ref()?;
        Some(Transition::new(from, &commit.layout, &commit.trackers, &commit.removed, &self.given_up))
    }

    /// A committed setting.
    pub fn setting(&self, name: &str) -> Option<&[u8]> {
        self.committed.as_ref()?.config.settings.get(name)?.value.as_deref()
    }

    /// All committed settings by name.
    pub fn settings(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let settings = self.committed.iter().flat_map(|c| &c.config.settings);
        settings.filter_map(|(name, entry)| Some((&**name, entry.value.as_deref()?)))
    }

    /// What became of a node, as committed.
    pub fn standing(&self, node: NodeId) -> Option<&Standing> {
        self.committed.as_ref()?.config.nodes.get(&node).map(|entry| &entry.value)
    }

    /// Whether a node was removed, so that whatever it sends is to be refused.
    pub fn is_removed(&self, node: NodeId) -> bool {
        self.given_up.contains(&node) || self.base().is_some_and(|config| config.is_removed(node))
    }

    /// A hash over everything, trackers and staged changes included: equal states, and only they but for chance, have
    /// equal digests.
    pub fn digest(&self) -> u64 {
        let mut hash = SequenceHash::new(DOMAIN ^ 1);
        self.staged.hash_into(&mut hash);
        hash.number(self.given_up.len() as u64);
        for node in &self.given_up {
            hash.number(node.0);
        }
        if let Some(commit) = &self.committed {
            hash.number(commit.hash);
            hash.number(u64::from(commit.from.is_none()));
            for (node, phase) in commit.trackers.iter() {
                hash.numbers([node.0, phase as u64]);
            }
        }
        hash.finish()
    }

    fn base(&self) -> Option<&Config> {
        self.committed.as_ref().map(|c| &c.config)
    }

    /// A node's standing with what is staged.
    fn planned_standing(&self, node: NodeId) -> Option<&Standing> {
        let staged = self.staged.nodes.get(&node);
        staged.or_else(|| self.base()?.nodes.get(&node)).map(|entry| &entry.value)
    }

    fn next_stamp(&self) -> Result<u64, StageError> {
        let last = self.staged.last_stamp().max(self.base().map_or(0, Config::last_stamp));
        // One below the decoder's bound.
        if last + 1 >= 1 << 63 { Err(StageError::Full) } else { Ok(last + 1) }
    }

    /// Stages a change, in the name of the node at which the operator asked for it. A later change of the same subject
    /// replaces it.
    ///
    /// # Errors
    /// [`StageError`] says why the change can't be; nothing was changed then.
    pub fn stage(&mut self, author: NodeId, change: Change) -> Result<(), StageError> {
        let stamp = self.next_stamp()?;
        match change {
            Change::Replicas(0) => return Err(StageError::NoReplicas),
            Change::Replicas(value) => self.staged.replicas = Some(Described { stamp, author, value }),
            Change::Partitions(value) => {
                PartitionCount::new(value).ok_or(StageError::PartitionCount(value))?;
                self.staged.partitions = Some(Described { stamp, author, value });
            }
            Change::Member(member) => {
                if member.weight == 0 {
                    return Err(StageError::ZeroWeight(member.id));
                }
                let value = Standing::Member { weight: member.weight, zone: member.zone };
                self.stage_node(member.id, Described { stamp, author, value })?;
            }
            Change::Leave(id) => self.stage_end(id, Described { stamp, author, value: Standing::Left })?,
            Change::Remove(id) => {
                self.stage_end(id, Described { stamp, author, value: Standing::Removed })?
            }
            Change::Setting { name, value } => {
                if name.len() > MAX_SETTING_NAME
                    || value.as_ref().is_some_and(|v| v.len() > MAX_SETTING_VALUE)
                {
                    return Err(StageError::SettingTooLong);
                }
                let name = name.into_boxed_str();
                let known = |c: &Config| c.settings.contains_key(&name);
                let others = self
                    .staged
                    .settings
                    .keys()
                    .filter(|n| self.base().is_none_or(|b| !b.settings.contains_key(*n)));
                let total = others.count() + self.base().map_or(0, |b| b.settings.len());
                if total >= MAX_SETTINGS && !known(&self.staged) && !self.base().is_some_and(known) {
                    return Err(StageError::Full);
                }
                self.staged.settings.insert(name, Described { stamp, author, value });
            }
        }
        Ok(())
    }

    fn stage_node(&mut self, id: NodeId, entry: Described<Standing>) -> Result<(), StageError> {
        if self.is_removed(id) {
            return Err(StageError::RemovedForEver(id));
        }
        if self.planned_standing(id).is_none() {
            let committed = self.base().map_or(0, |b| b.nodes.len());
            let new =
                self.staged.nodes.keys().filter(|id| self.base().is_none_or(|b| !b.nodes.contains_key(id)));
            if committed + new.count() >= MAX_KNOWN_NODES {
                return Err(StageError::Full);
            }
        }
        self.staged.nodes.insert(id, entry);
        Ok(())
    }

    fn stage_end(&mut self, id: NodeId, entry: Described<Standing>) -> Result<(), StageError> {
        // A member by what is committed, whatever is staged: an operator may change her mind from leave to remove.
        let member = |s: Option<&Standing>| matches!(s, Some(Standing::Member { .. }));
        if !member(self.standing(id)) && !member(self.planned_standing(id)) && !self.is_removed(id) {
            return Err(StageError::NotMember(id));
        }
        self.stage_node(id, entry)
    }

    /// Takes back everything that is staged, in the name of `author`: committed values are staged anew, newer than what
    /// they undo, so that the undoing reaches everyone too.
    ///
    /// # Errors
    /// [`StageError::Full`] after 2^63 changes; nothing was changed then.
    pub fn unstage_all(&mut self, author: NodeId) -> Result<(), StageError> {
        let stamp = self.next_stamp()?;
        let base = self.base().cloned().unwrap_or_default();
        if let Some(entry) = &mut self.staged.replicas {
            *entry = Described { stamp, author, value: base.replicas() };
        }
        if let Some(entry) = &mut self.staged.partitions {
            *entry = Described { stamp, author, value: base.partitions() };
        }
        for (id, entry) in &mut self.staged.nodes {
            // Never committed: as if it had left.
            let value = base.nodes.get(id).map_or(Standing::Left, |e| e.value.clone());
            *entry = Described { stamp, author, value };
        }
        for (name, entry) in &mut self.staged.settings {
            let value = base.settings.get(name).and_then(|e| e.value.clone());
            *entry = Described { stamp, author, value };
        }
        Ok(())
    }

    /// What a commit would change, in order of subjects, nodes that were given up first among the nodes. Staged
    /// descriptions that equal the committed ones are not shown, nor those of nodes removed for ever.
    pub fn staged(&self) -> Vec<Change> {
        let empty = Config::default();
        let base = self.base().unwrap_or(&empty);
        let mut changes = Vec::new();
        if let Some(e) = &self.staged.replicas
            && e.value != base.replicas()
        {
            changes.push(Change::Replicas(e.value));
        }
        if let Some(e) = &self.staged.partitions
            && e.value != base.partitions()
        {
            changes.push(Change::Partitions(e.value));
        }
        for &id in &self.given_up {
            if base.nodes.get(&id).is_some_and(|e| e.value != Standing::Removed) {
                changes.push(Change::Remove(id));
            }
        }
        for (&id, e) in self.staged.nodes.iter().filter(|(id, _)| !self.given_up.contains(id)) {
            let before = base.nodes.get(&id).map(|e| &e.value);
            if before == Some(&e.value) || self.is_removed(id) && e.value != Standing::Removed {
                continue;
            }
            match (&e.value, before) {
                (Standing::Member { weight, zone }, _) => {
                    changes.push(Change::Member(crate::Member { id, weight: *weight, zone: zone.clone() }));
                }
                (Standing::Left, Some(Standing::Member { .. })) => changes.push(Change::Leave(id)),
                (Standing::Left, _) => {}
                (Standing::Removed, _) => changes.push(Change::Remove(id)),
            }
        }
        for (name, e) in &self.staged.settings {
            if base.settings.get(name).and_then(|e| e.value.as_ref()) != e.value.as_ref() {
                changes.push(Change::Setting { name: (&**name).into(), value: e.value.clone() });
            }
        }
        changes
    }

    /// The configuration as it would be committed.
    fn planned(&self) -> Config {
        let mut config = self.base().cloned().unwrap_or_default();
        config.join(&self.staged);
        // Removed is the one standing that nothing supersedes.
        if let Some(commit) = &self.committed {
            for (id, entry) in commit.config.nodes.iter().filter(|(_, e)| e.value == Standing::Removed) {
                config.nodes.insert(*id, entry.clone());
            }
        }
        for id in &self.given_up {
            if let Some(entry) = config.nodes.get_mut(id) {
                entry.value = Standing::Removed;
            }
        }
        config
    }

    /// What a commit of everything staged would bring; compare its layout with [`Layout::plan`].
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub fn propose(&self) -> Result<Proposal, CommitError> {
        if self.staged().is_empty() {
            return Err(CommitError::NothingStaged);
        }
        if let Some(transition) = self.transition() {
            return Err(CommitError::TransitionLive(transition.step()));
        }
        let config = self.planned();
        let members = config.members();
        let layout = Layout::compute(config.replicas(), config.partitions(), &members, self.layout())?;
        let mut hash = SequenceHash::new(DOMAIN ^ 2);
        hash.number(layout.hash());
        config.hash_into(&mut hash);
        Ok(Proposal { config, layout, hash: hash.finish() })
    }

    /// Commits what is staged, if it is still the proposal with the hash `seen`, and begins the transition to it. The
    /// first commit founds the cluster under the id `founding`, which later ones ignore.
    ///
    /// # Errors
    /// [`CommitError`] says why not; nothing was changed then.
    pub fn commit(&mut self, founding: ClusterId, seen: u64) -> Result<&Layout, CommitError> {
        let Proposal { config, layout, hash } = self.propose()?;
        if hash != seen {
            return Err(CommitError::Changed(hash));
        }
        let cluster = self.cluster().unwrap_or(founding);
        let from = self.committed.take().map(|c| c.layout);
        let commit = Commit::new(cluster, config, layout, from, Trackers::default());
        self.staged.prune(&commit.config);
        Ok(&self.committed.insert(commit).layout)
    }

    /// Takes over what another node knows.
    ///
    /// The caller refuses states that a removed node sends ([`is_removed`](Self::is_removed)).
    ///
    /// # Errors
    /// [`MergeError`] if it is another cluster's, or too much; nothing was changed then.
    pub fn merge(&mut self, other: &Membership) -> Result<Merged, MergeError> {
        if let (Some(mine), Some(theirs)) = (self.cluster(), other.cluster())
            && mine != theirs
        {
            return Err(MergeError::OtherCluster { mine, theirs });
        }
        let mut known = self.staged.clone();
        for config in [self.base(), Some(&other.staged), other.base()].into_iter().flatten() {
            known.join(config);
        }
        if known.validate().is_err() || self.given_up.union(&other.given_up).count() > MAX_KNOWN_NODES {
            return Err(MergeError::Full);
        }
        let mut changed = false;
        let mut layout_changed = false;
        if let Some(theirs) = &other.committed {
            match &mut self.committed {
                Some(mine) if mine.hash == theirs.hash => {
                    if mine.from.is_some() {
                        for (node, phase) in theirs.trackers.iter() {
                            changed |= mine.trackers.raise(node, phase);
                        }
                    }
                    if theirs.from.is_none() {
                        changed |= mine.end_transition();
                    }
                }
                Some(mine) if mine.rank() > theirs.rank() => {}
                mine => {
                    layout_changed = mine.as_ref().is_none_or(|mine| mine.layout != theirs.layout);
                    changed = true;
                    *mine = Some(theirs.clone());
                }
            }
        }
        if let Some(commit) = &self.committed {
            known.prune(&commit.config);
        }
        changed |= known != self.staged || !other.given_up.is_subset(&self.given_up);
        self.given_up.extend(&other.given_up);
        self.staged = known;
        Ok(Merged { changed, layout_changed })
    }

    /// Declares that `node` has reached a phase of the live transition. Returns whether that is news.
    ///
    /// # Errors
    /// [`AdvanceError`] if it can't have; nothing was changed then.
    pub fn advance(&mut self, node: NodeId, phase: Phase) -> Result<bool, AdvanceError> {
        self.transition().ok_or(AdvanceError::NoTransition)?.check(node, phase)?;
        Ok(self.committed.as_mut().is_some_and(|c| c.trackers.raise(node, phase)))
    }

    /// Removes a dead node while a transition waits for it: nobody waits for it any more, it is refused from now on, and
    /// its removal from the layout is staged in the name of `author`, to be committed when the transition has ended.
    ///
    /// What only this node held is lost.
    ///
    /// # Errors
    /// [`AdvanceError`] if no transition is live, if the node takes no part, or after 2^63 changes; nothing was changed
    /// then.
    pub fn remove_during_transition(&mut self, author: NodeId, node: NodeId) -> Result<(), AdvanceError> {
        let transition = self.transition().ok_or(AdvanceError::NoTransition)?;
        if !transition.takes_part(node) {
            return Err(AdvanceError::NotParticipant(node));
        }
        let stamp = self.next_stamp().map_err(|_| AdvanceError::Full)?;
        self.given_up.insert(node);
        self.staged.nodes.insert(node, Described { stamp, author, value: Standing::Removed });
        Ok(())
    }

    /// Ends the transition if all have moved. Returns whether it ended: the old layout is retired then.
    pub fn settle(&mut self) -> bool {
        let done = self.transition().is_some_and(|t| t.step() == Step::Done);
        if done && let Some(commit) = &mut self.committed {
            commit.end_transition();
        }
        done
    }

    /// How a layout version that a request carries stands to what is known here.
    pub fn judge(&self, version: LayoutVersion) -> VersionStanding {
        let Some(commit) = &self.committed else { return VersionStanding::Unknown };
        let current = commit.layout.version();
        if version > current {
            VersionStanding::Unknown
        } else if version == current {
            VersionStanding::Current
        } else if commit.from.as_ref().is_some_and(|from| from.version() == version) {
            VersionStanding::Leaving
        } else {
            VersionStanding::Retired
        }
    }
}

/// What [`Membership::judge`] says of a layout version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionStanding {
    /// The committed layout's.
    Current,
    /// That of the layout which a live transition leaves; still served.
    Leaving,
    /// Retired: its requests are refused.
    Retired,
    /// Newer than what is known here: the sender's state has to be merged first.
    Unknown,
}
