//! The way from one layout to the next without a moment in which a read could miss a write.
//!
//! Four steps, each ended by every participant having declared the one before (Garage's ack and sync trackers are the
//! model):
//!
//! 1. *Acknowledging.* A node that learns of the new layout sends its further writes to the owners of both and demands a
//!    quorum in each. When its older writes have drained it declares [`Phase::Acknowledged`]. A node that is down holds
//!    this up until it is removed. Who joins answers others, but coordinates nothing yet
//!    ([`Transition::coordinates`]).
//! 2. *Transferring.* All have acknowledged: whatever only the old owners have was complete before now. Each node copies
//!    the slots that it gains, merging from N − W + 1 old owners, and declares [`Phase::Synced`]. Where reads by the new layout ask
//!    fewer owners than that, because N or R falls, it does so with the slots that it keeps as well: it may lack a write that W others have.
//! 3. *Moving.* All are synced: the new owners have everything. Each node moves its reads to the new layout and declares
//!    [`Phase::Moved`]; writes still go to both.
//! 4. *Done.* All have moved: nobody reads from the old owners any more. The old layout retires
//!    ([`Membership::settle`](crate::Membership::settle)), and requests that carry its version are refused.
//!
//! What is declared is never taken back, so trackers merge by maximum and may arrive in any order, any number of times.
//!
//! Each node drives its own part: it does what [`Transition::due`] says next, declares it, and tells the others its state.
//!
//! ```
//! use gramme_ring::{Change, ClusterId, Member, Membership, NodeId, Phase, Step};
//!
//! // Two members, and one that joins. Anybody commits what anybody staged.
//! let members = [1, 2].map(|id| Member::new(NodeId(id)));
//! let mut one = Membership::found(ClusterId(7), 2, 16, &members)?;
//! one.stage(NodeId(3), Change::Member(Member::new(NodeId(3))))?;
//! let proposal = one.propose()?;
//! let plan = one.layout().unwrap().plan(proposal.layout());
//! assert!(plan.gains().all(|gain| gain.node == NodeId(3)), "the others only give");
//! one.commit(ClusterId(7), proposal.hash())?;
//!
//! // What each of the three knows; here gossip is a loop in which everybody hears everybody.
//! let mut nodes = [1, 2, 3].map(|id| (NodeId(id), one.clone()));
//! while nodes.iter().any(|(_, known)| known.transition().is_some()) {
//!     for (id, known) in &mut nodes {
//!         let Some(transition) = known.transition() else { continue };
//!         match transition.due(*id) {
//!             Some(Phase::Acknowledged) => {} // Its older writes have drained: from now on, quorums in both layouts.
//!             Some(Phase::Synced) => {}       // It has copied what it gains.
//!             Some(Phase::Moved) => {}        // It reads by the new layout.
//!             None => {}                      // It waits for others, or all is done.
//!         }
//!         if let Some(phase) = transition.due(*id) {
//!             known.advance(*id, phase)?;
//!         }
//!         known.settle();
//!     }
//!     for to in 0..nodes.len() {
//!         for from in 0..nodes.len() {
//!             let (sender, said) = nodes[from].clone();
//!             nodes[to].1.merge_from(sender, &said)?;
//!         }
//!     }
//! }
//! assert!(nodes.iter().all(|(_, known)| known.layout() == Some(proposal.layout())));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use crate::layout::Layout;
use crate::node::NodeId;

/// What a node has declared in a transition. Ordered: a later phase includes the earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Its writes satisfy quorums in both layouts, and none that did not is under way.
    Acknowledged,
    /// It holds all that it is to own.
    Synced,
    /// Its reads use the new layout.
    Moved,
}

/// Which of the steps a transition is in, as far as the trackers at hand tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Waiting until all write to both layouts.
    Acknowledging,
    /// Waiting until all hold what they are to own.
    Transferring,
    /// Waiting until all read from the new layout.
    Moving,
    /// The old layout can retire.
    Done,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Acknowledging => "acknowledging",
            Step::Transferring => "transferring",
            Step::Moving => "moving",
            Step::Done => "done",
        })
    }
}

/// Why a phase can't be declared. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AdvanceError {
    /// No transition is live.
    NoTransition,
    /// The node takes no part, or was removed.
    NotParticipant(NodeId),
    /// Others have not come far enough, or the node has skipped a phase.
    TooEarly {
        /// The step that the transition is in.
        step: Step,
    },
    /// As many nodes were removed already as a state holds ([`MAX_MERGED_NODES`](crate::membership::MAX_MERGED_NODES)).
    Full,
}

impl fmt::Display for AdvanceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdvanceError::NoTransition => f.write_str("no transition is live"),
            AdvanceError::NotParticipant(id) => write!(f, "node {id} takes no part in the transition"),
            AdvanceError::Full => f.write_str("too many nodes were removed"),
            AdvanceError::TooEarly { step } => write!(f, "too early: the transition is still {step}"),
        }
    }
}

impl core::error::Error for AdvanceError {}

/// Who has declared what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Trackers(pub(crate) BTreeMap<NodeId, Phase>);

impl Trackers {
    pub(crate) fn get(&self, node: NodeId) -> Option<Phase> {
        self.0.get(&node).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeId, Phase)> + '_ {
        self.0.iter().map(|(&node, &phase)| (node, phase))
    }

    /// Whether anything changed.
    pub(crate) fn raise(&mut self, node: NodeId, phase: Phase) -> bool {
        let changed = self.get(node) < Some(phase);
        if changed {
            self.0.insert(node, phase);
        }
        changed
    }
}

/// A live transition, seen through what one node knows. See the [module](self) for the steps.
#[derive(Clone, Copy, Debug)]
pub struct Transition<'a> {
    from: &'a Layout,
    to: &'a Layout,
    trackers: &'a Trackers,
    /// Sorted; removed by the commit itself.
    removed: &'a [NodeId],
    /// Given up since.
    given_up: &'a BTreeSet<NodeId>,
}

impl<'a> Transition<'a> {
    pub(crate) fn new(
        from: &'a Layout,
        to: &'a Layout,
        trackers: &'a Trackers,
        removed: &'a [NodeId],
        given_up: &'a BTreeSet<NodeId>,
    ) -> Self {
        Transition { from, to, trackers, removed, given_up }
    }

    /// The layout that is left.
    pub fn from(&self) -> &'a Layout {
        self.from
    }

    /// The layout that is entered.
    pub fn to(&self) -> &'a Layout {
        self.to
    }

    /// What a node has declared.
    pub fn phase(&self, node: NodeId) -> Option<Phase> {
        self.trackers.get(node)
    }

    /// Those whose declarations are waited for: the members of either layout, without the removed, by id.
    pub fn participants(&self) -> Vec<NodeId> {
        let mut ids: Vec<NodeId> =
            self.from.ids().iter().chain(self.to.ids()).copied().filter(|&id| self.takes_part(id)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Whether this node's declarations are waited for.
    pub fn takes_part(&self, node: NodeId) -> bool {
        (self.from.is_member(node) || self.to.is_member(node))
            && self.removed.binary_search(&node).is_err()
            && !self.given_up.contains(&node)
    }

    /// The step that it is in.
    pub fn step(&self) -> Step {
        let members = self.from.ids().iter().chain(self.to.ids()).copied();
        match members.filter(|&id| self.takes_part(id)).map(|id| self.phase(id)).min() {
            Some(None) => Step::Acknowledging,
            Some(Some(Phase::Acknowledged)) => Step::Transferring,
            Some(Some(Phase::Synced)) => Step::Moving,
            Some(Some(Phase::Moved)) | None => Step::Done,
        }
    }

    /// Those who hold up the present step, by id.
    pub fn waiting_for(&self) -> Vec<NodeId> {
        let ends = match self.step() {
            Step::Acknowledging => Phase::Acknowledged,
            Step::Transferring => Phase::Synced,
            Step::Moving | Step::Done => Phase::Moved,
        };
        let mut late = self.participants();
        late.retain(|&id| self.phase(id) < Some(ends));
        late
    }

    /// What this node has to bring about and declare next; `None` if it has to wait for others or takes no part.
    pub fn due(&self, node: NodeId) -> Option<Phase> {
        if !self.takes_part(node) {
            return None;
        }
        match (self.phase(node), self.step()) {
            (None, _) => Some(Phase::Acknowledged),
            (Some(Phase::Acknowledged), Step::Transferring) => Some(Phase::Synced),
            (Some(Phase::Synced), Step::Moving) => Some(Phase::Moved),
            _ => None,
        }
    }

    /// The layout by which this node reads. Its writes go by both.
    pub fn reads_by(&self, node: NodeId) -> &'a Layout {
        if self.phase(node) >= Some(Phase::Moved) { self.to } else { self.from }
    }

    /// Whether this node may coordinate requests: members of the layout that is left all along; a newcomer once all have
    /// acknowledged. Until then another commit may displace this one, and would not wait for who joins by this one only.
    pub fn coordinates(&self, node: NodeId) -> bool {
        self.takes_part(node) && (self.from.is_member(node) || self.step() > Step::Acknowledging)
    }

    /// Whether this node may declare `phase` now; declaring once more what was declared is allowed.
    pub(crate) fn check(&self, node: NodeId, phase: Phase) -> Result<(), AdvanceError> {
        if !self.takes_part(node) {
            return Err(AdvanceError::NotParticipant(node));
        }
        if self.phase(node) >= Some(phase) || self.due(node) == Some(phase) {
            Ok(())
        } else {
            Err(AdvanceError::TooEarly { step: self.step() })
        }
    }
}
