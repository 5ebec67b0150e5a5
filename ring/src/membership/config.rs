//! What is staged and committed: a map from subjects to their latest descriptions.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::borrow::Borrow;
use core::ops::Bound;

use serde::{Deserialize, Deserializer, Serialize};

use crate::checked::{Checked, Malformed};
use crate::layout::{LayoutVersion, MAX_MEMBERS};
use crate::member::{Member, Zone, checked_weight, write_weight};
use crate::mix::SequenceHash;
use crate::node::NodeId;
use crate::partition::PartitionCount;
use crate::transition::Trackers;

/// Replicas of each partition unless a change says otherwise.
pub const DEFAULT_REPLICAS: u8 = 3;
/// Partitions unless a change says otherwise.
pub const DEFAULT_PARTITIONS: u32 = 256;
/// Longest name of a setting, in bytes.
pub const MAX_SETTING_NAME: usize = 256;
/// Longest value of a setting, in bytes.
pub const MAX_SETTING_VALUE: usize = 4096;
/// Most names of settings that a cluster remembers. One that was staged once counts, whatever became of it, and is never forgotten: a
/// dropped name is remembered so that whoever staged it before, and was away meanwhile, brings back nothing. Nobody can tell when the
/// last such node has returned, for whoever has read access to a state may merge it later, a node that is to join among them. (A stamp below
/// which all unknown names are old would lose what was staged at a node that had not heard of the drop.) A dropped name can be set again,
/// which takes no further place: who needs new ones time and again takes names from a list of so many. Where so many are known,
/// [`StageError::Full`](super::StageError::Full) refuses new names; those that are known can be set and dropped as ever. Nodes that stage at
/// once may go past it together, up to [`MAX_MERGED_SETTINGS`].
pub const MAX_SETTINGS: usize = 1024;
/// Most ids that a cluster remembers: members, nodes that left, and nodes removed, which are remembered for ever. Where so many are known,
/// [`StageError::Full`](super::StageError::Full) refuses new ones; nodes that stage at once may go past it together, up to
/// [`MAX_MERGED_NODES`].
pub const MAX_KNOWN_NODES: usize = 4 * MAX_MEMBERS;
/// Most ids that a state holds when what many staged at once has come together. A merge fails on no bound: past this one it drops what is
/// staged for the largest ids, counted among all that are known, which comes to the same whatever was merged in which order.
pub const MAX_MERGED_NODES: usize = 2 * MAX_KNOWN_NODES;
/// Most settings that a state holds, as [`MAX_MERGED_NODES`] has it; the last names go.
pub const MAX_MERGED_SETTINGS: usize = 2 * MAX_SETTINGS;
/// Stamps of changes are below this times one more than the version of the committed layout (0 before the first): more than anybody makes
/// between two commits. A state with others is refused, so that who says a large stamp is believed by all or by none; and where that
/// leaves no stamps for others the next commit brings new ones ([`Membership::propose`](super::Membership::propose)).
pub const MAX_CHANGES: u64 = 1 << 32;
/// Stamps are below this in any case, so that the next one exists.
const STAMP_END: u64 = 1 << 63;
/// Versions of committed layouts are below this, 2^31 - 1, so that each commit brings new stamps: a state with a later one is refused
/// ([`Malformed::VersionOutOfRange`]), by all, and nobody makes one
/// ([`LayoutError::Version`](crate::LayoutError::Version)). With a commit a second it takes 68 years to get there.
pub const VERSION_END: u64 = STAMP_END / MAX_CHANGES - 1;

/// What all stamps of a state with this commit are below.
pub(super) fn stamp_end(committed: Option<LayoutVersion>) -> u64 {
    let commits = committed.map_or(0, |version| version.0);
    (commits + 1) * MAX_CHANGES
}

/// What became of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Standing {
    /// It takes part.
    Member {
        /// Its share of the data relative to the others' weights, at least 1.
        #[serde(serialize_with = "write_weight")]
        weight: u32,
        /// Where it stands.
        zone: Zone,
    },
    /// It left, having handed over everything. It may join again.
    Left,
    /// It was given up for dead. Its id is refused for ever.
    Removed,
}

#[derive(Deserialize)]
#[serde(rename = "Standing")]
enum ReadStanding {
    Member { weight: u64, zone: Checked<Zone> },
    Left,
    Removed,
}

impl<'de> Deserialize<'de> for Checked<Standing> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let member = |weight, zone: Checked<Zone>| {
            Ok(Standing::Member { weight: checked_weight(weight)?, zone: zone.0? })
        };
        Ok(Checked(match ReadStanding::deserialize(deserializer)? {
            ReadStanding::Member { weight, zone } => member(weight, zone),
            ReadStanding::Left => Ok(Standing::Left),
            ReadStanding::Removed => Ok(Standing::Removed),
        }))
    }
}

impl<'de> Deserialize<'de> for Standing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Checked::<Self>::deserialize(deserializer)?.or_custom()
    }
}

/// A description with its place in the order of all descriptions of one subject: the largest stands. Stamps are
/// Lamport's: a new one exceeds all that its author has seen. Concurrent ones are ordered by author, and a repeated pair,
/// which only an author that forgot can produce, by value, so that all nodes agree in any case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Described<T> {
    pub(super) stamp: u64,
    pub(super) author: NodeId,
    pub(super) value: T,
}

fn join_one<T: Clone + Ord>(mine: &mut Option<Described<T>>, theirs: &Option<Described<T>>) {
    if *mine < *theirs {
        mine.clone_from(theirs);
    }
}

fn join_map<K: Clone + Ord, T: Clone + Ord>(
    mine: &mut BTreeMap<K, Described<T>>,
    theirs: &BTreeMap<K, Described<T>>,
) {
    for (subject, entry) in theirs {
        match mine.get_mut(subject) {
            Some(known) if &*known >= entry => {}
            Some(known) => known.clone_from(entry),
            None => drop(mine.insert(subject.clone(), entry.clone())),
        }
    }
}

fn shorten<K: Ord, V>(known: &mut BTreeMap<K, V>, most: usize) {
    while known.len() > most {
        known.pop_last();
    }
}

/// What is known of a configuration and what is staged on it, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// The largest.
    pub(super) last_stamp: u64,
    /// How many ids.
    pub(super) nodes: usize,
    /// How many names.
    pub(super) settings: usize,
}

impl Tally {
    pub(super) fn of(base: Option<&Config>, staged: &Config) -> Tally {
        let Some(base) = base else {
            let (nodes, settings) = (staged.nodes.len(), staged.settings.len());
            return Tally { last_stamp: staged.last_stamp(), nodes, settings };
        };
        let nodes = staged.nodes.keys().filter(|id| !base.nodes.contains_key(id)).count();
        let settings = staged.settings.keys().filter(|name| !base.settings.contains_key(*name)).count();
        Tally {
            last_stamp: staged.last_stamp().max(base.last_stamp()),
            nodes: base.nodes.len() + nodes,
            settings: base.settings.len() + settings,
        }
    }
}

/// Whether what is staged for this subject stays, of all that are known.
pub(super) fn is_kept<K: Ord + Borrow<Q>, Q: Ord + ?Sized, V>(
    base: &BTreeMap<K, V>,
    staged: &BTreeMap<K, V>,
    subject: &Q,
    most: usize,
) -> bool {
    let before = (Bound::Unbounded, Bound::Excluded(subject));
    let new = staged.range::<Q, _>(before).filter(|(subject, _)| !base.contains_key((*subject).borrow()));
    base.range::<Q, _>(before).count() + new.count() < most
}

/// The first subject for which a commit on `base` has no room any more; those that are in `base` already have theirs.
pub(super) fn first_without_room<'a, K: Ord, V>(
    base: &BTreeMap<K, V>,
    staged: &'a BTreeMap<K, V>,
    most: usize,
) -> Option<&'a K> {
    staged.keys().filter(|subject| !base.contains_key(*subject)).nth(most.saturating_sub(base.len()))
}

/// Dropped ones are kept as such.
pub(super) type Settings = BTreeMap<Box<str>, Described<Option<Vec<u8>>>>;

/// The latest description of each subject. A join semilattice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Config {
    pub(super) replicas: Option<Described<u8>>,
    pub(super) partitions: Option<Described<u32>>,
    pub(super) nodes: BTreeMap<NodeId, Described<Standing>>,
    pub(super) settings: Settings,
}

impl Config {
    pub(super) fn join(&mut self, other: &Config) {
        join_one(&mut self.replicas, &other.replicas);
        join_one(&mut self.partitions, &other.partitions);
        join_map(&mut self.nodes, &other.nodes);
        join_map(&mut self.settings, &other.settings);
    }

    /// Keeps as much as a merge may hold. What goes has so many known before it that it would go again wherever it came from, so that merging
    /// stays a join: a bound that asked what is committed would not have that, for what is committed changes.
    pub(super) fn shorten(&mut self) {
        shorten(&mut self.nodes, MAX_MERGED_NODES);
        shorten(&mut self.settings, MAX_MERGED_SETTINGS);
    }

    /// Drops what `base` has too, or has later.
    pub(super) fn prune(&mut self, base: &Config) {
        if self.replicas <= base.replicas {
            self.replicas = None;
        }
        if self.partitions <= base.partitions {
            self.partitions = None;
        }
        self.nodes.retain(|id, entry| base.nodes.get(id).is_none_or(|known| known < entry));
        self.settings.retain(|name, entry| base.settings.get(name).is_none_or(|known| known < entry));
    }

    /// The largest stamp.
    pub(super) fn last_stamp(&self) -> u64 {
        let nodes = self.nodes.values().map(|e| e.stamp);
        let settings = self.settings.values().map(|e| e.stamp);
        let replicas = self.replicas.iter().map(|e| e.stamp);
        let partitions = self.partitions.iter().map(|e| e.stamp);
        nodes.chain(settings).chain(replicas).chain(partitions).max().unwrap_or(0)
    }

    pub(super) fn members(&self) -> Vec<Member> {
        self.nodes
            .iter()
            .filter_map(|(&id, entry)| match &entry.value {
                Standing::Member { weight, zone } => Some(Member { id, weight: *weight, zone: zone.clone() }),
                Standing::Left | Standing::Removed => None,
            })
            .collect()
    }

    /// N, staged or not.
    pub(super) fn replicas(&self) -> u8 {
        self.replicas.as_ref().map_or(DEFAULT_REPLICAS, |e| e.value)
    }

    /// Q, staged or not.
    pub(super) fn partitions(&self) -> u32 {
        self.partitions.as_ref().map_or(DEFAULT_PARTITIONS, |e| e.value)
    }

    pub(super) fn is_removed(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(|entry| entry.value == Standing::Removed)
    }

    /// Sorted.
    pub(super) fn removed(&self) -> Vec<NodeId> {
        self.nodes.iter().filter(|(_, entry)| entry.value == Standing::Removed).map(|(&id, _)| id).collect()
    }

    /// Who has a tracker and is not known here.
    pub(super) fn stranger_in(&self, trackers: &Trackers) -> Option<NodeId> {
        trackers.iter().map(|(node, _)| node).find(|node| !self.nodes.contains_key(node))
    }

    pub(super) fn validate(&self) -> Result<(), Malformed> {
        if self.last_stamp() >= STAMP_END {
            return Err(Malformed::StampOutOfRange);
        }
        if self.replicas.as_ref().is_some_and(|e| e.value == 0) {
            return Err(Malformed::NoReplicas);
        }
        if let Some(e) = &self.partitions {
            PartitionCount::new(e.value).map_err(|_| Malformed::PartitionCount(e.value))?;
        }
        if self.settings.iter().any(|(name, e)| {
            name.len() > MAX_SETTING_NAME || e.value.as_ref().is_some_and(|v| v.len() > MAX_SETTING_VALUE)
        }) {
            return Err(Malformed::SettingTooLong);
        }
        Ok(())
    }

    pub(super) fn hash_into(&self, hash: &mut SequenceHash) {
        hash.number(u64::from(self.replicas.is_some()));
        if let Some(e) = &self.replicas {
            hash.numbers([e.stamp, e.author.0, u64::from(e.value)]);
        }
        hash.number(u64::from(self.partitions.is_some()));
        if let Some(e) = &self.partitions {
            hash.numbers([e.stamp, e.author.0, u64::from(e.value)]);
        }
        hash.number(self.nodes.len() as u64);
        for (id, e) in &self.nodes {
            hash.numbers([id.0, e.stamp, e.author.0]);
            match &e.value {
                Standing::Member { weight, zone } => {
                    hash.numbers([0, u64::from(*weight)]);
                    hash.bytes(zone.as_str().as_bytes());
                }
                Standing::Left => hash.number(1),
                Standing::Removed => hash.number(2),
            }
        }
        hash.number(self.settings.len() as u64);
        for (name, e) in &self.settings {
            hash.bytes(name.as_bytes());
            hash.numbers([e.stamp, e.author.0, u64::from(e.value.is_some())]);
            hash.bytes(e.value.as_deref().unwrap_or_default());
        }
    }
}

/// One staged difference from what is committed. Whatever else a cluster agrees on is a setting, so that these are all the kinds
/// there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Dynamo's N for the cluster.
    Replicas(u8),
    /// Dynamo's Q for the cluster.
    Partitions(u32),
    /// A node joins, or a member's weight or zone changes.
    Member(Member),
    /// A member hands over what it has and goes.
    Leave(NodeId),
    /// A dead member is given up; its id is refused for ever once this is committed.
    Remove(NodeId),
    /// A setting of the whole cluster (a keyspace, say) is set, or dropped. The ring gives it no meaning.
    Setting {
        /// At most [`MAX_SETTING_NAME`] bytes.
        name: String,
        /// At most [`MAX_SETTING_VALUE`] bytes.
        value: Option<Vec<u8>>,
    },
}
