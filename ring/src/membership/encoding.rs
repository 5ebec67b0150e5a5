//! A membership's bytes, for gossip and for the node's own file.

use alloc::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::config::{Config, Described, Settings, Standing};
use super::{ClusterId, Commit, MAX_MERGED_NODES, MAX_MERGED_SETTINGS, Membership, VERSION_END, shorten};
use crate::checked::{Ascending, Checked, Malformed};
use crate::layout::Layout;
use crate::node::NodeId;
use crate::transition::{Phase, Trackers};

#[derive(Serialize)]
#[serde(rename = "Commit")]
struct WrittenCommit<'a> {
    cluster: ClusterId,
    config: &'a Config,
    layout: &'a Layout,
    from: &'a Option<Layout>,
    trackers: &'a Trackers,
}

#[derive(Deserialize)]
#[serde(rename = "Config")]
pub(super) struct ReadConfig {
    replicas: Option<Described<u8>>,
    partitions: Option<Described<u32>>,
    nodes: Ascending<BTreeMap<NodeId, Described<Checked<Standing>>>, MAX_MERGED_NODES>,
    settings: Ascending<Settings, MAX_MERGED_SETTINGS>,
}

#[derive(Deserialize)]
#[serde(rename = "Commit")]
struct ReadCommit {
    cluster: ClusterId,
    config: ReadConfig,
    layout: Checked<Layout>,
    from: Option<Checked<Layout>>,
    trackers: ReadTrackers,
}

#[derive(Serialize)]
#[serde(rename = "Membership")]
struct Written<'a> {
    committed: Option<WrittenCommit<'a>>,
    staged: &'a Config,
    given_up: &'a BTreeSet<NodeId>,
}

#[derive(Deserialize)]
#[serde(rename = "Membership")]
struct Read {
    committed: Option<ReadCommit>,
    staged: ReadConfig,
    given_up: ReadIds,
}

/// Nobody else takes part than who is known.
pub(super) type ReadTrackers = Ascending<BTreeMap<NodeId, Phase>, MAX_MERGED_NODES>;
pub(super) type ReadIds = Ascending<BTreeSet<NodeId>, MAX_MERGED_NODES>;

impl Serialize for Membership {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let committed = self.committed.as_ref().map(|c| WrittenCommit {
            cluster: c.cluster,
            config: &c.config,
            layout: &c.layout,
            from: &c.from,
            trackers: &c.trackers,
        });
        Written { committed, staged: &self.staged, given_up: &self.given_up }.serialize(serializer)
    }
}

impl ReadConfig {
    pub(super) fn check(self) -> Result<Config, Malformed> {
        let ReadConfig { replicas, partitions, nodes, settings } = self;
        let node = |(id, Described { stamp, author, value }): (NodeId, Described<Checked<Standing>>)| {
            Ok((id, Described { stamp, author, value: value.0.map_err(|flaw| flaw.of(id))? }))
        };
        let nodes =
            nodes.check(Malformed::TooManyNodes)?.into_iter().map(node).collect::<Result<_, Malformed>>()?;
        let config =
            Config { replicas, partitions, nodes, settings: settings.check(Malformed::TooManySettings)? };
        config.validate()?;
        Ok(config)
    }
}

impl ReadCommit {
    fn check(self) -> Result<Commit, Malformed> {
        let config = self.config.check()?;
        let layout = self.layout.0?;
        let from = self.from.map(|from| from.0).transpose()?;
        let trackers = Trackers(self.trackers.check(Malformed::TooManyNodes)?);
        if layout.version().0 >= VERSION_END {
            return Err(Malformed::VersionOutOfRange(layout.version()));
        }
        if config.members() != layout.members() {
            return Err(Malformed::OtherMembers);
        }
        if (config.replicas(), config.partitions()) != (layout.replicas(), layout.partitions()) {
            return Err(Malformed::OtherShape);
        }
        if let Some(from) = &from
            && (layout.parent() != from.hash() || layout.version().0 - 1 != from.version().0)
        {
            return Err(Malformed::OtherParent);
        }
        if from.is_none() && trackers.iter().next().is_some() {
            return Err(Malformed::EndedTracker);
        }
        if let Some(node) = config.stranger_in(&trackers) {
            return Err(Malformed::StrangeTracker(node));
        }
        Ok(Commit::new(self.cluster, config, layout, from, trackers))
    }
}

impl Read {
    fn check(self) -> Result<Membership, Malformed> {
        let staged = self.staged.check()?;
        let given_up = self.given_up.check(Malformed::TooManyNodes)?;
        let committed = self.committed.map(ReadCommit::check).transpose()?;
        if let Some(commit) = &committed {
            // Whoever wrote it had dropped what comes to nothing, so that equal states have one encoding.
            let mut known = staged.clone();
            known.join(&commit.config);
            known.shorten();
            if staged.nodes.keys().any(|id| !known.nodes.contains_key(id)) {
                return Err(Malformed::TooManyNodes);
            }
            if staged.settings.keys().any(|name| !known.settings.contains_key(name)) {
                return Err(Malformed::TooManySettings);
            }
            known.prune(&commit.config);
            if staged != known || given_up.iter().any(|id| commit.config.is_removed(*id)) {
                return Err(Malformed::Superseded);
            }
        }
        let mut kept = given_up.clone();
        match &committed {
            Some(commit) => commit.keep_others(&mut kept),
            None => shorten(&mut kept),
        }
        if kept.len() < given_up.len() {
            return Err(Malformed::TooManyNodes);
        }
        let membership = Membership::of(committed, staged, given_up);
        if membership.tally.last_stamp >= membership.stamp_end() {
            return Err(Malformed::StampOutOfRange);
        }
        Ok(membership)
    }
}

impl<'de> Deserialize<'de> for Checked<Membership> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Checked(Read::deserialize(deserializer)?.check()))
    }
}

impl<'de> Deserialize<'de> for Membership {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Checked::deserialize(deserializer)?.or_custom()
    }
}
