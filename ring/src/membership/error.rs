//! What can't be staged, committed or merged, and why.

use core::fmt;

use super::ClusterId;
use crate::layout::{LayoutError, LayoutVersion};
use crate::node::NodeId;
use crate::transition::Step;

/// Why a change is not staged. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StageError {
    /// This id was removed; the node has to come back under another.
    RemovedForEver(NodeId),
    /// Leaving or removed, it has to be a member.
    NotMember(NodeId),
    /// A weight of zero.
    ZeroWeight(NodeId),
    /// Zero replicas.
    NoReplicas,
    /// Not a power of two from 1 to 16384.
    PartitionCount(u32),
    /// The name or the value is longer than [`MAX_SETTING_NAME`](super::MAX_SETTING_NAME) or
    /// [`MAX_SETTING_VALUE`](super::MAX_SETTING_VALUE).
    SettingTooLong,
    /// There are [`MAX_SETTINGS`](super::MAX_SETTINGS) or [`MAX_KNOWN_NODES`](super::MAX_KNOWN_NODES) already; or it is of a
    /// known one for which a merge past the bounds leaves no room ([`MAX_MERGED_NODES`](super::MAX_MERGED_NODES)); or stamps are used up until
    /// the next commit ([`MAX_CHANGES`](super::MAX_CHANGES)).
    Full,
}

impl fmt::Display for StageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StageError::RemovedForEver(id) => {
                write!(f, "node {id} was removed and may not return under this id")
            }
            StageError::NotMember(id) => write!(f, "node {id} is no member"),
            StageError::ZeroWeight(id) => write!(f, "node {id} would have weight 0"),
            StageError::NoReplicas => f.write_str("at least one replica is needed"),
            StageError::PartitionCount(q) => write!(f, "{q} partitions: not a power of two from 1 to 16384"),
            StageError::SettingTooLong => f.write_str("the setting's name or value is too long"),
            StageError::Full => f.write_str("too many nodes, settings or changes"),
        }
    }
}

impl core::error::Error for StageError {}

/// Why there is no commit. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CommitError {
    /// Nothing is staged.
    NothingStaged,
    /// The last commit's transition is live.
    TransitionLive(Step),
    /// What is staged is not what was looked at any more: its proposal has this hash.
    Changed(u64),
    /// There is no such layout.
    Layout(LayoutError),
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommitError::NothingStaged => f.write_str("nothing is staged"),
            CommitError::TransitionLive(step) => write!(f, "the last change is still {step}"),
            CommitError::Changed(hash) => {
                write!(f, "what is staged has changed; its plan is now {hash:016x}")
            }
            CommitError::Layout(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for CommitError {}

impl From<LayoutError> for CommitError {
    fn from(error: LayoutError) -> Self {
        CommitError::Layout(error)
    }
}

/// Why two states don't merge. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MergeError {
    /// They are of different clusters.
    OtherCluster {
        /// Ours.
        mine: ClusterId,
        /// The other's.
        theirs: ClusterId,
    },
    /// Two commits of one parent have both been carried to their ends, each by nodes that gave up all of the layout before that took part in the
    /// other: a cluster was torn in two parts that gave each other up, or nobody of that layout is left, and newcomers ended its transition by
    /// themselves, some by one commit and some by the other. Merged, nodes would go by a layout that was never moved to, or all be removed; one of
    /// the two parts has to be founded anew.
    Diverged {
        /// The later of the two versions.
        version: LayoutVersion,
    },
    /// What is staged in a [`Progress`](super::Progress) has this stamp, which no state with this commit has
    /// ([`MAX_CHANGES`](super::MAX_CHANGES)).
    StampOutOfRange(u64),
    /// A node that the commit does not know has declared something for it.
    StrangeTracker(NodeId),
}

impl fmt::Display for MergeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MergeError::OtherCluster { mine, theirs } => {
                write!(f, "of another cluster: {:016x}, not {:016x}", theirs.0, mine.0)
            }
            MergeError::Diverged { version } => {
                write!(
                    f,
                    "the cluster was torn in two at layout {version}: another commit was carried out by others"
                )
            }
            MergeError::StampOutOfRange(stamp) => {
                write!(f, "a change with the stamp {stamp}, more than there are")
            }
            MergeError::StrangeTracker(id) => write!(f, "a tracker of node {id}, which takes no part"),
        }
    }
}

impl core::error::Error for MergeError {}
