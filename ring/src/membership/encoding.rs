//! A membership's bytes, for gossip and for the node's own file.

use alloc::collections::BTreeSet;
use alloc::string::ToString;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::config::{Config, Flaw};
use super::{ClusterId, Commit, MAX_KNOWN_NODES, Membership};
use crate::layout::Layout;
use crate::node::NodeId;
use crate::transition::Trackers;

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
#[serde(rename = "Commit")]
struct ReadCommit {
    cluster: ClusterId,
    config: Config,
    layout: Layout,
    from: Option<Layout>,
    trackers: Trackers,
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
    staged: Config,
    given_up: BTreeSet<NodeId>,
}

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

impl ReadCommit {
    fn validate(self) -> Result<Commit, Flaw> {
        let ReadCommit { cluster, config, layout, from, trackers } = self;
        config.validate()?;
        if config.members() != layout.members() {
            return Err("the layout's members are not the configuration's");
        }
        if (config.replicas(), config.partitions()) != (layout.replicas(), layout.partitions()) {
            return Err("the layout's N or Q is not the configuration's");
        }
        if let Some(from) = &from
            && (layout.parent() != from.hash() || layout.version().0 - 1 != from.version().0)
        {
            return Err("the layout does not follow the one that it is said to");
        }
        let known = |node| layout.is_member(node) || config.nodes.contains_key(&node);
        if trackers.iter().any(|(node, _)| !known(node)) {
            return Err("a tracker of a node that takes no part");
        }
        if from.is_none() && trackers.iter().next().is_some() {
            return Err("trackers of a transition that has ended");
        }
        Ok(Commit::new(cluster, config, layout, from, trackers))
    }
}

impl<'de> Deserialize<'de> for Membership {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Read { committed, mut staged, given_up } = Read::deserialize(deserializer)?;
        let flaw = |flaw: Flaw| de::Error::custom(flaw.to_string());
        staged.validate().map_err(flaw)?;
        let committed = committed.map(ReadCommit::validate).transpose().map_err(flaw)?;
        if let Some(commit) = &committed {
            // Together as well they have to stay below the bounds, or no other state could be merged any more.
            let mut known = staged.clone();
            known.join(&commit.config);
            known.validate().map_err(flaw)?;
            staged.prune(&commit.config);
        }
        if given_up.len() > MAX_KNOWN_NODES {
            return Err(flaw("too many nodes"));
        }
        Ok(Membership { committed, staged, given_up })
    }
}
