//! What the cluster has agreed on and what it is about to: a state that any two nodes can merge.
//!
//! Members, their weights and zones, N, Q and named settings are *staged* by anyone, anywhere, in any number; looked at
//! as a [`Plan`](crate::Plan); then *committed* by one node, which computes the [`Layout`] that the others adopt. State
//! spreads by gossip: what merges is commutative, associative and idempotent, so that all end alike whatever
//! they heard in whatever order.
//!
//! - Of two commits on one parent the one with the smaller hash stands, and what the other changed is staged again.
//! - While the [`Transition`] of a commit is live there is no further commit. A commit whose transition has ended is never
//!   displaced by another of its version. Where both have ended their
//!   states don't merge ([`MergeError::Diverged`]), nor do those of later commits of the two as long as
//!   it shows (whom the older had removed when it ended, the newer has not). That takes two parts of a cluster that gave each other up, or that
//!   nobody of the layout before is left: where its members are all dead and given up, those who join by one of two commits have nobody from
//!   whom to hear of the other. While it is live, news of another commit counts only from those who take part in
//!   it ([`Membership::merge_from`]): whoever of them knew a commit with a smaller hash has declared nothing for this one,
//!   so that nobody has moved yet who would have to go back.
//! - An id that a commit removed is refused for ever, whether that commit stands or was displaced.
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
//! there.merge_from(me, &here)?;
//! there.stage(NodeId(4), Change::Member(Member::new(NodeId(4)).with_weight(2)))?;
//! here.merge_from(NodeId(4), &there)?;
//! assert_eq!(here.staged().len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod config;
mod encoding;
mod error;
mod progress;
mod staging;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::cmp::Reverse;

use serde::{Deserialize, Serialize};

pub use config::{
    Change, DEFAULT_PARTITIONS, DEFAULT_REPLICAS, MAX_CHANGES, MAX_KNOWN_NODES, MAX_MERGED_NODES,
    MAX_MERGED_SETTINGS, MAX_SETTING_NAME, MAX_SETTING_VALUE, MAX_SETTINGS, Standing, VERSION_END,
};
use config::{Config, Described, Tally};
pub use error::{CommitError, MergeError, StageError};
pub use progress::Progress;

use crate::layout::{Layout, LayoutError, LayoutVersion};
use crate::mix::SequenceHash;
use crate::node::NodeId;
use crate::transition::{AdvanceError, Phase, Step, Trackers, Transition};

/// Separates this hash from others over like numbers ("GrMember" in ASCII).
const DOMAIN: u64 = 0x4772_4d65_6d62_6572;

/// A cluster's identity, drawn at random at its first commit. Two clusters never merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterId(#[serde(with = "crate::hex")] pub u64);

/// What a merge brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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

    /// Whether two can't be of one history. Every commit is made on one that has ended, and whatever a commit has as removed all
    /// that descend from it have so too. Of two that are versions apart it shows by nothing else: if the older is live, or had nobody
    /// removed that the newer has not, it can't be told.
    fn has_parted_from(&self, other: &Commit) -> bool {
        let (older, newer) =
            if self.layout.version() <= other.layout.version() { (self, other) } else { (other, self) };
        let returned = || older.removed.iter().any(|id| newer.removed.binary_search(id).is_err());
        match newer.layout.version().0 - older.layout.version().0 {
            0 => {
                let ended = older.from.is_none() && newer.from.is_none();
                older.layout.parent() != newer.layout.parent() || ended && older.hash != newer.hash
            }
            1 => older.from.is_none() && (newer.layout.parent() != older.layout.hash() || returned()),
            _ => older.from.is_none() && returned(),
        }
    }

    /// Of all ids removed leaves those that it has not removed itself.
    fn keep_others(&self, given_up: &mut BTreeSet<NodeId>) {
        given_up.extend(&self.removed);
        shorten(given_up);
        given_up.retain(|id| self.removed.binary_search(id).is_err());
    }

    fn end_transition(&mut self) -> bool {
        // What was declared on the way has no further use. Were it kept, it would depend on who had heard what when.
        self.trackers = Trackers::default();
        self.from.take().is_some()
    }
}

/// Keeps as many as a merge may hold, as [`Config::shorten`] does.
fn shorten(removed: &mut BTreeSet<NodeId>) {
    while removed.len() > MAX_MERGED_NODES {
        removed.pop_last();
    }
}

/// What one node knows of the cluster's agreements. See the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    committed: Option<Commit>,
    /// Later than what is committed, subject by subject.
    staged: Config,
    /// Removed without being so by the commit that stands: given up while a transition waited for them, or removed by a
    /// commit that was displaced. With the removed of that commit it only ever grows.
    given_up: BTreeSet<NodeId>,
    /// Of what is committed and staged.
    tally: Tally,
}

impl Membership {
    fn of(committed: Option<Commit>, staged: Config, given_up: BTreeSet<NodeId>) -> Membership {
        let tally = Tally::of(committed.as_ref().map(|c| &c.config), &staged);
        Membership { committed, staged, given_up, tally }
    }

    /// Nothing known.
    pub fn new() -> Self {
        Membership::default()
    }

    /// A new cluster of these members, committed. Their order does not matter: whoever founds the same has an equal state.
    ///
    /// ```
    /// use gramme_ring::{ClusterId, Member, Membership, NodeId, Slot};
    /// let members = [1, 2, 3].map(|id| Member::new(NodeId(id)));
    /// let founded = Membership::found(ClusterId(7), 2, 64, &members)?;
    /// let layout = founded.layout().unwrap();
    /// assert_eq!(layout.owners(layout.partition_of(Slot::of(b"cart:{alice}"))).len(), 2);
    /// # Ok::<(), gramme_ring::LayoutError>(())
    /// ```
    ///
    /// # Errors
    /// As [`Layout::compute`], if there is no such layout.
    pub fn found(
        cluster: ClusterId,
        replicas: u8,
        partitions: u32,
        members: &[crate::Member],
    ) -> Result<Self, LayoutError> {
        let layout = Layout::compute(replicas, partitions, members, None)?;
        // As if the first by id had staged one after another.
        let mut members: Vec<_> = members.iter().collect();
        members.sort_unstable_by_key(|member| member.id);
        let author = members[0].id;
        let nodes = (3..).zip(members).map(|(stamp, member)| {
            let value = Standing::Member { weight: member.weight, zone: member.zone.clone() };
            (member.id, Described { stamp, author, value })
        });
        let config = Config {
            replicas: Some(Described { stamp: 1, author, value: replicas }),
            partitions: Some(Described { stamp: 2, author, value: partitions }),
            nodes: nodes.collect(),
            settings: BTreeMap::new(),
        };
        let commit = Commit::new(cluster, config, layout, None, Trackers::default());
        Ok(Membership::of(Some(commit), Config::default(), BTreeSet::new()))
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

    /// Whether it is staged that this node becomes a member.
    pub(crate) fn is_to_join(&self, node: NodeId) -> bool {
        self.staged.nodes.get(&node).is_some_and(|entry| matches!(entry.value, Standing::Member { .. }))
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

    /// What a commit of everything staged would bring; compare its layout with [`Layout::plan`].
    ///
    /// Where stamps are used up ([`MAX_CHANGES`]) it brings nothing but new ones, whatever is staged: that stays so, and can be taken
    /// back then.
    ///
    /// ```
    /// use gramme_ring::membership::CommitError;
    /// use gramme_ring::{Change, ClusterId, Member, Membership, NodeId};
    ///
    /// let (me, cluster) = (NodeId(1), ClusterId(7));
    /// let members = [1, 2, 3, 4].map(|id| Member::new(NodeId(id)));
    /// let mut known = Membership::found(cluster, 3, 64, &members)?;
    /// known.stage(me, Change::Leave(NodeId(4)))?;
    /// let proposal = known.propose()?;
    /// let plan = known.layout().unwrap().plan(proposal.layout());
    /// assert_eq!((plan.moved_slots(), plan.nodes()[3].slots_after), (3 * 16384 / 4, 0));
    ///
    /// // Something else was staged meanwhile: what would be committed is not what was looked at.
    /// known.stage(me, Change::Member(Member::new(NodeId(2)).with_weight(2)))?;
    /// assert!(matches!(known.commit(cluster, proposal.hash()), Err(CommitError::Changed(_))));
    /// let seen = known.propose()?.hash();
    /// known.commit(cluster, seen)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub fn propose(&self) -> Result<Proposal, CommitError> {
        let used_up = self.next_stamp().is_err();
        if self.staged().is_empty() && !used_up {
            return Err(CommitError::NothingStaged);
        }
        if let Some(transition) = self.transition() {
            return Err(CommitError::TransitionLive(transition.step()));
        }
        if let Some(layout) = self.layout()
            && layout.version().0 + 1 >= VERSION_END
        {
            return Err(LayoutError::Version(layout.version()).into());
        }
        let config = match self.base() {
            Some(base) if used_up => base.clone(),
            _ => self.planned(),
        };
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
        commit.keep_others(&mut self.given_up);
        self.tally = Tally::of(Some(&commit.config), &self.staged);
        Ok(&self.committed.insert(commit).layout)
    }

    /// Takes over what `sender` knows, as far as it may decide on it: while a transition is live here, a competing commit
    /// counts only from a node that takes part in it. What a stranger staged is merged all the same.
    ///
    /// Let somebody have moved. Then all who take part had declared that they are synced, for a commit that they held for
    /// the one that stands; who had known another with a smaller hash would not have. From then on they refuse to hear of
    /// it: a stranger may have it from a node that has died since.
    ///
    /// The caller refuses states that a removed node sends ([`is_removed`](Self::is_removed)).
    ///
    /// # Errors
    /// As [`merge`](Self::merge).
    pub fn merge_from(&mut self, sender: NodeId, other: &Membership) -> Result<Merged, MergeError> {
        let decides = match (&self.committed, &other.committed) {
            (Some(mine), Some(theirs)) if mine.hash != theirs.hash => {
                mine.layout.version() != theirs.layout.version()
                    || theirs.from.is_none()
                    || mine.has_parted_from(theirs)
                    || self.transition().is_none_or(|t| t.takes_part(sender))
            }
            _ => true,
        };
        if decides { self.merge(other) } else { self.join(other, None) }
    }

    /// Takes over all that another state knows: the join of the two.
    ///
    /// For a state of this node's own, read back from its disk, say. What a peer says goes through
    /// [`merge_from`](Self::merge_from), which knows when not to believe it.
    ///
    /// ```
    /// use gramme_ring::{Change, ClusterId, Member, Membership, NodeId};
    ///
    /// // Two operators commit at once, at nodes that don't hear of each other.
    /// let cluster = ClusterId(7);
    /// let mut one = Membership::found(cluster, 2, 64, &[1, 2].map(|id| Member::new(NodeId(id))))?;
    /// let mut other = one.clone();
    /// one.stage(NodeId(1), Change::Member(Member::new(NodeId(3))))?;
    /// one.commit(cluster, one.propose()?.hash())?;
    /// other.stage(NodeId(2), Change::Member(Member::new(NodeId(4))))?;
    /// other.commit(cluster, other.propose()?.hash())?;
    ///
    /// // Whoever hears of the other first: the same commit stands, and what the other one changed is staged again.
    /// let before = one.clone();
    /// one.merge(&other)?;
    /// other.merge(&before)?;
    /// assert_eq!(one, other);
    /// assert_eq!((one.layout().unwrap().members().len(), one.staged().len()), (3, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`MergeError`] if it is another cluster's or another part's of a torn one; nothing was changed then.
    pub fn merge(&mut self, other: &Membership) -> Result<Merged, MergeError> {
        self.join(other, other.committed.as_ref())
    }

    /// Joins what is staged and given up there, and `committed`.
    fn join(&mut self, other: &Membership, committed: Option<&Commit>) -> Result<Merged, MergeError> {
        if let (Some(mine), Some(theirs)) = (self.cluster(), other.cluster())
            && mine != theirs
        {
            return Err(MergeError::OtherCluster { mine, theirs });
        }
        if let (Some(mine), Some(theirs)) = (&self.committed, committed)
            && mine.has_parted_from(theirs)
        {
            return Err(MergeError::Diverged { version: mine.layout.version().max(theirs.layout.version()) });
        }
        let mut known = self.staged.clone();
        for config in [self.base(), Some(&other.staged), committed.map(|c| &c.config)].into_iter().flatten() {
            known.join(config);
        }
        // Removed stays removed, whichever commit stands.
        let removed = [self.committed.as_ref(), committed].into_iter().flatten().flat_map(|c| &c.removed);
        let mut given_up: BTreeSet<NodeId> =
            self.given_up.iter().chain(&other.given_up).chain(removed).copied().collect();
        known.shorten();
        shorten(&mut given_up);
        let mut changed = false;
        let mut layout_changed = false;
        if let Some(theirs) = committed {
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
            commit.keep_others(&mut given_up);
        }
        changed |= known != self.staged || given_up != self.given_up;
        self.given_up = given_up;
        self.staged = known;
        self.tally = Tally::of(self.base(), &self.staged);
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

    /// Removes a dead node while a transition waits for it: nobody waits for it any more, it is refused from now on, for good, and
    /// its removal from the layout is [staged](Self::staged), to be committed when the transition has ended.
    ///
    /// What only this node held is lost.
    ///
    /// ```
    /// use gramme_ring::{Change, ClusterId, Member, Membership, NodeId, Phase, Step};
    ///
    /// let me = NodeId(1);
    /// let mut known = Membership::found(ClusterId(7), 2, 64, &[1, 2, 3].map(|id| Member::new(NodeId(id))))?;
    /// known.stage(me, Change::Member(Member::new(NodeId(2)).with_weight(2)))?;
    /// known.commit(ClusterId(7), known.propose()?.hash())?;
    /// for alive in [1, 2] {
    ///     known.advance(NodeId(alive), Phase::Acknowledged)?;
    /// }
    /// // Node 3 is dead.
    /// assert_eq!(known.transition().unwrap().waiting_for(), [NodeId(3)]);
    /// known.remove_during_transition(NodeId(3))?;
    /// assert_eq!(known.transition().unwrap().step(), Step::Transferring);
    /// assert_eq!(known.staged(), [Change::Remove(NodeId(3))]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`AdvanceError`] if no transition is live, if the node takes no part, or past [`MAX_MERGED_NODES`]; nothing was changed then.
    pub fn remove_during_transition(&mut self, node: NodeId) -> Result<(), AdvanceError> {
        let transition = self.transition().ok_or(AdvanceError::NoTransition)?;
        if !transition.takes_part(node) {
            return Err(AdvanceError::NotParticipant(node));
        }
        let removed = self.committed.as_ref().map_or(0, |c| c.removed.len());
        // Who takes part is not given up yet.
        if self.given_up.len() + removed >= MAX_MERGED_NODES {
            return Err(AdvanceError::Full);
        }
        self.given_up.insert(node);
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

    /// How a layout version that a request carries stands to what is known here. Of two commits on one parent both have one
    /// version: until the sender has heard which of them stands, its request by the other is judged like one by that.
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
