//! Coordinating a request: whom to ask, when it is done, what to do about those who did not answer.

mod copies;
pub(crate) mod held;
pub(crate) mod lingering;
mod needs;
pub(crate) mod open_write;
pub(crate) mod read;
pub(crate) mod request;
pub(crate) mod write;

pub use copies::{Answer, Copies};

use self::held::Request;
use crate::message::CallId;
use crate::op::RequestId;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bytes::Bytes;
use gramme_ring::NodeId;

/// Who is to get a request's answer.
#[derive(Debug)]
pub(crate) enum Origin {
    Client(RequestId),
    /// A peer that forwarded it.
    Peer(NodeId, CallId),
    /// A write that needs to know first what is there: a plain delete; or any whose coordinator can't read its copy.
    Before(Box<Request>),
    /// A damaged copy here, to be replaced.
    Heal {
        key: Bytes,
        for_good: bool,
    },
}

/// A node that is asked, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The node.
    pub node: NodeId,
    /// `None`: it is an owner itself. Otherwise it is a fallback and keeps a hint for this owner.
    pub stands_for: Option<NodeId>,
}

/// The sloppy quorum of one request: the first N healthy nodes of the preference list, each entry a primary
/// or a fallback for one owner (Dynamo, section 4.6).
///
/// ```
/// use gramme_quorum::{Plan, Target};
/// use gramme_ring::NodeId;
///
/// let list = [1, 2, 3, 4, 5].map(NodeId);
/// let mut plan = Plan::new(3, list, |node| node != NodeId(2));
/// assert_eq!(plan.targets[2], Target { node: NodeId(4), stands_for: Some(NodeId(2)) });
/// // Node 3 fails in mid-request: the next one in the list stands in.
/// assert_eq!(plan.substitute(NodeId(3)), Some(Target { node: NodeId(5), stands_for: Some(NodeId(3)) }));
/// // Node 1 fails too: nobody is left, and somebody has to remember it.
/// assert_eq!(plan.substitute(NodeId(1)), None);
/// assert_eq!(plan.uncovered, [NodeId(1)]);
///
/// // Of a long list it takes what it may need, and no more.
/// let mut list = (1..).map(NodeId);
/// let plan = Plan::new(3, list.by_ref(), |node| !(2..40).contains(&node.0));
/// assert_eq!((plan.targets[1].node, plan.targets[2].node), (NodeId(40), NodeId(41)));
/// assert_eq!((plan.spares.len(), list.next()), (Plan::SPARES, Some(NodeId(50))));
/// ```
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whom to ask.
    pub targets: Vec<Target>,
    /// Healthy nodes that were not needed, in ring order, a few of them.
    pub spares: VecDeque<NodeId>,
    /// Owners for which no fallback was left.
    pub uncovered: Vec<NodeId>,
    /// Targets for which somebody stands in, or nobody could.
    given_up: Vec<NodeId>,
}

impl Plan {
    /// Fallbacks that a plan knows beyond those it begins with.
    pub const SPARES: usize = 8;

    /// Plans for a preference list whose first `owners` entries are the owners. Of the list no more is taken than it needs: past the owners
    /// one healthy node for each of them that is not, and [`SPARES`](Self::SPARES).
    pub fn new(
        owners: usize,
        preference: impl IntoIterator<Item = NodeId>,
        alive: impl Fn(NodeId) -> bool,
    ) -> Plan {
        let mut plan = Plan {
            targets: Vec::new(),
            spares: VecDeque::new(),
            uncovered: Vec::new(),
            given_up: Vec::new(),
        };
        let mut preference = preference.into_iter();
        for node in preference.by_ref().take(owners) {
            match alive(node) {
                true => plan.targets.push(Target { node, stands_for: None }),
                false => plan.uncovered.push(node),
            }
        }
        let enough = plan.uncovered.len() + Self::SPARES;
        plan.spares.extend(preference.filter(|node| alive(*node)).take(enough));
        for owner in core::mem::take(&mut plan.uncovered) {
            plan.stand_in(owner);
        }
        plan
    }

    /// `failed` will not answer: names the fallback to ask instead. With nobody left, the owner it stood for
    /// (or itself) is added to `uncovered`. A node that is not a target, or was replaced before, changes nothing.
    pub fn substitute(&mut self, failed: NodeId) -> Option<Target> {
        let target = *self.target(failed)?;
        if self.given_up.contains(&failed) {
            return None;
        }
        self.given_up.push(failed);
        self.stand_in(target.stands_for.unwrap_or(failed))
    }

    /// The entry of a node.
    #[must_use]
    pub fn target(&self, node: NodeId) -> Option<&Target> {
        self.targets.iter().find(|t| t.node == node)
    }

    /// How many targets are owners.
    #[must_use]
    pub fn primaries(&self) -> usize {
        self.targets.iter().filter(|t| t.stands_for.is_none()).count()
    }

    fn stand_in(&mut self, owner: NodeId) -> Option<Target> {
        let Some(node) = self.spares.pop_front() else {
            self.uncovered.push(owner);
            return None;
        };
        let target = Target { node, stands_for: Some(owner) };
        self.targets.push(target);
        Some(target)
    }
}
