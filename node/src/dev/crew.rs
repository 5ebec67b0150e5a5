//! Which of the nodes that were founded are started: a cluster's members may be others by now.

use super::{DevError, Mark, addresses, node_dir, save_settings};
use crate::handle::Addresses;
use crate::identity::{DataDir, Membership, members};
use crate::log::say;
use gramme_ring::{Membership as Ring, NodeId};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A node that was founded, is there, and takes part.
struct Founded {
    number: u16,
    data: DataDir,
    id: NodeId,
    membership: Membership,
}

/// Who is to be started: all that were founded, but for those that have left the cluster or were removed since. Nothing is written
/// yet. `former` is the port at which they were before.
pub(super) fn check(dir: &Path, mark: &Mark, former: u16) -> Result<Crew, DevError> {
    let mut found: Vec<Founded> = Vec::new();
    let mut missing = Vec::new();
    let mut first: Option<(u64, PathBuf)> = None;
    for number in 1..=mark.nodes {
        let data = DataDir::new(node_dir(dir, number));
        let Some((identity, membership)) = data.load()? else {
            missing.push(number);
            continue;
        };
        let (cluster, path) = first.get_or_insert_with(|| (identity.cluster, data.path().to_owned()));
        if identity.cluster != *cluster {
            return Err(DevError::Strangers(path.clone(), data.path().to_owned()));
        }
        found.push(Founded { number, data, id: identity.node, membership });
    }
    // Who was away when something was committed does not know of it.
    let newest = found.iter().max_by_key(|node| rank(&node.membership.ring));
    let Some(newest) = newest.map(|node| node.membership.clone()) else {
        return Err(DevError::NodeMissing(node_dir(dir, 1)));
    };
    for number in missing {
        let peer = addresses(former, number).peer;
        let member = |id: &NodeId| {
            takes_part(&newest.ring, *id) && newest.addresses.get(id).is_some_and(|at| at.peer == peer)
        };
        let path = node_dir(dir, number);
        if newest.members().iter().any(|one| member(&one.id)) {
            return Err(DevError::NodeMissing(path));
        }
        say!("{} is gone, and its node is no member of the cluster any more", path.display());
    }
    let (mut found, gone): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|node| takes_part(&newest.ring, node.id));
    for node in gone {
        say!(
            "node {} ({}) is not started: it {}",
            node.number,
            node.id,
            if newest.ring.is_removed(node.id) {
                "was removed from the cluster, for good; its directory can be deleted"
            } else {
                "has left the cluster; served by hand it can join again"
            }
        );
    }
    if found.is_empty() {
        return Err(DevError::NoneLeft(dir.to_owned()));
    }
    let places: BTreeMap<NodeId, Addresses> =
        found.iter().map(|node| (node.id, addresses(mark.port, node.number))).collect();
    let members = newest.members().into_iter().filter(|member| takes_part(&newest.ring, member.id));
    let elsewhere: Vec<NodeId> = members.map(|m| m.id).filter(|id| !places.contains_key(id)).collect();
    for id in &elsewhere {
        let at = newest.addresses.get(id).cloned().unwrap_or_default().peer;
        say!("member {id} ({at}) is not one of the nodes in {}: start it yourself", dir.display());
    }
    let knows = |node: &Founded| places.iter().all(|(id, at)| node.membership.addresses.get(id) == Some(at));
    let moved = mark.port != former || !found.iter().all(knows);
    let numbers = found.iter().map(|node| node.number).collect();
    for node in &mut found {
        node.membership.addresses.extend(places.clone());
    }
    Ok(Crew { numbers, alone: elsewhere.is_empty(), moved: if moved { found } else { Vec::new() } })
}

/// Which of two states of one cluster is the later.
fn rank(ring: &Ring) -> (u64, bool) {
    (ring.layout().map_or(0, |layout| layout.version().0), ring.transition().is_none())
}

/// Whether a node is a member of a layout in use, and not given up.
fn takes_part(ring: &Ring, node: NodeId) -> bool {
    !ring.is_removed(node) && members(ring).iter().any(|member| member.id == node)
}

/// Whom to start.
pub(super) struct Crew {
    pub(super) numbers: Vec<u16>,
    /// They are the whole cluster.
    pub(super) alone: bool,
    /// Those that have to be told where all are now.
    moved: Vec<Founded>,
}

impl Crew {
    /// All of a cluster that was just founded.
    pub(super) fn whole(nodes: u16) -> Crew {
        Crew { numbers: (1..=nodes).collect(), alone: true, moved: Vec::new() }
    }

    /// Tells nodes that do not run their new ports.
    pub(super) fn tell(&self, dir: &Path, mark: &Mark) -> Result<(), DevError> {
        for node in &self.moved {
            save_settings(&node.data, &addresses(mark.port, node.number))?;
            node.data.save_membership(&node.membership)?;
        }
        if self.moved.is_empty() { Ok(()) } else { mark.save(dir) }
    }
}
