//! What is news to a node that has the same commit.

use alloc::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize};

use super::config::Config;
use super::encoding::{ReadConfig, ReadIds, ReadTrackers};
use super::{Commit, Membership, MergeError, Merged};
use crate::checked::{Checked, Malformed};
use crate::node::NodeId;
use crate::transition::Trackers;

/// What a [`Membership`] knows beyond its commit: who has declared what, whether the transition has ended, what is staged,
/// who was given up. A node that has the same commit lacks nothing else of it, and it is small: the layouts, whose tables
/// are nearly all of a membership's bytes, are left out.
///
/// ```
/// use gramme_ring::{Change, ClusterId, Member, Membership, NodeId};
///
/// let members: Vec<Member> = (1..=50).map(|id| Member::new(NodeId(id))).collect();
/// let mut here = Membership::found(ClusterId(7), 3, 16384, &members)?;
/// let mut there = here.clone();
/// here.stage(NodeId(1), Change::Leave(NodeId(50)))?;
/// assert_eq!(there.commit_hash(), here.commit_hash());
/// let progress = here.progress();
/// assert!(there.merge_progress(&progress)?.changed);
/// assert_eq!(there, here);
/// assert!(postcard::to_allocvec(&here)?.len() > 49_000);
/// assert!(postcard::to_allocvec(&progress)?.len() < 40);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    committed: Option<Since<Trackers>>,
    staged: Config,
    given_up: BTreeSet<NodeId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "Since")]
struct Since<T> {
    #[serde(with = "crate::hex")]
    commit: u64,
    ended: bool,
    trackers: T,
}

impl Progress {
    /// [`Membership::commit_hash`] of the state that it is of, and for.
    pub fn commit_hash(&self) -> Option<u64> {
        self.committed.as_ref().map(|since| since.commit)
    }
}

impl Membership {
    /// A hash over what the last commit made: cluster, configuration and layout. Not keyed: of two states with the same one
    /// it is believed that they have the same commit.
    pub fn commit_hash(&self) -> Option<u64> {
        self.committed.as_ref().map(|commit| commit.hash)
    }

    /// All but the commit.
    pub fn progress(&self) -> Progress {
        let committed = self.committed.as_ref().map(|commit| Since {
            commit: commit.hash,
            ended: commit.from.is_none(),
            trackers: commit.trackers.clone(),
        });
        Progress { committed, staged: self.staged.clone(), given_up: self.given_up.clone() }
    }

    /// Takes over all that the state that `progress` is of knows: what [`merge`](Self::merge) with it would bring. If it is
    /// of another commit than this state's nothing changes, since then there is more to tell.
    ///
    /// # Errors
    /// [`MergeError`] if a node has declared something that the commit does not know, or a stamp is none of this commit's; nothing
    /// was changed then.
    pub fn merge_progress(&mut self, progress: &Progress) -> Result<Merged, MergeError> {
        if progress.commit_hash() != self.commit_hash() {
            return Ok(Merged { changed: false, layout_changed: false });
        }
        let last_stamp = progress.staged.last_stamp();
        if last_stamp >= self.stamp_end() {
            return Err(MergeError::StampOutOfRange(last_stamp));
        }
        let committed = match (&self.committed, &progress.committed) {
            (Some(mine), Some(since)) => {
                if let Some(node) = mine.config.stranger_in(&since.trackers) {
                    return Err(MergeError::StrangeTracker(node));
                }
                let from = mine.from.clone().filter(|_| !since.ended);
                Some(Commit { from, trackers: since.trackers.clone(), ..mine.clone() })
            }
            _ => None,
        };
        let (staged, given_up) = (progress.staged.clone(), progress.given_up.clone());
        self.merge(&Membership::of(committed, staged, given_up))
    }
}

#[derive(Deserialize)]
#[serde(rename = "Progress")]
struct Read {
    committed: Option<Since<ReadTrackers>>,
    staged: ReadConfig,
    given_up: ReadIds,
}

impl Read {
    fn check(self) -> Result<Progress, Malformed> {
        let since = |Since { commit, ended, trackers }: Since<ReadTrackers>| {
            let trackers = Trackers(trackers.check(Malformed::TooManyNodes)?);
            if ended && trackers.iter().next().is_some() {
                return Err(Malformed::EndedTracker);
            }
            Ok(Since { commit, ended, trackers })
        };
        let committed = self.committed.map(since).transpose()?;
        let (staged, given_up) = (self.staged.check()?, self.given_up.check(Malformed::TooManyNodes)?);
        Ok(Progress { committed, staged, given_up })
    }
}

impl<'de> Deserialize<'de> for Checked<Progress> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Checked(Read::deserialize(deserializer)?.check()))
    }
}

impl<'de> Deserialize<'de> for Progress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Checked::<Self>::deserialize(deserializer)?.or_custom()
    }
}
