//! Decoding that names what is wrong, whatever the format makes of errors.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::error::Error;
use core::fmt;
use core::marker::PhantomData;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::gossip::MAX_FACTS;
use crate::layout::{LayoutError, LayoutVersion};
use crate::member::ZoneTooLong;
use crate::node::NodeId;
use crate::partition::Partition;
use crate::slot::{SLOTS, Slot};

/// What was decoded, or why it is no such value.
///
/// A malformed [`Layout`](crate::Layout), [`Membership`](crate::Membership) or [`Message`](crate::gossip::Message) is refused when it
/// is decoded, but some formats, postcard among them, drop the text that says why. Decode `Checked<Layout>`,
/// `Checked<Membership>` or `Checked<Message>` to be told; or of a part, `Progress`, `Told`, `Record`, `Head`, `Member`, `Standing`,
/// `Zone`, `Partition` or `Slot`:
/// what can't be read at all, a list that is longer than any may be among it, is the format's error, and what can be read
/// and is malformed has its name here. Both read the same bytes.
///
/// ```
/// use gramme_ring::{Checked, Layout, LayoutError, Malformed, NodeId};
///
/// // Version 1, no parent, N = 1, Q = 1, one node with weight 0; the table, some hash.
/// let bytes = [1, 0, 1, 1, 1, 7, 0, 0, 1, 0, 0];
/// assert!(postcard::from_bytes::<Layout>(&bytes).is_err());
/// let Checked(decoded) = postcard::from_bytes::<Checked<Layout>>(&bytes)?;
/// assert_eq!(decoded, Err(Malformed::Layout(LayoutError::ZeroWeight(NodeId(7)))));
/// # Ok::<(), postcard::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked<T>(pub Result<T, Malformed>);

impl<T> Checked<T> {
    /// The value, or an error of the format with the name as its text.
    pub(crate) fn or_custom<E: de::Error>(self) -> Result<T, E> {
        self.0.map_err(E::custom)
    }
}

/// Why decoded parts don't make a layout, a membership or a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Malformed {
    /// A layout is none.
    Layout(LayoutError),
    /// The keys of a map, or ids, are out of order.
    Unsorted,
    /// A key or an id stands twice.
    Repeated,
    /// A stamp is 2^63 or more, or more than the commits of a state allow ([`MAX_CHANGES`](crate::membership::MAX_CHANGES)).
    StampOutOfRange,
    /// The version of a committed layout is [`VERSION_END`](crate::membership::VERSION_END) or more, which would leave no stamps.
    VersionOutOfRange(LayoutVersion),
    /// Zero replicas.
    NoReplicas,
    /// The number of partitions is not a power of two from 1 to 16384.
    PartitionCount(u32),
    /// A member's weight is zero.
    ZeroWeight(NodeId),
    /// A weight is zero, of a [`Standing`](crate::membership::Standing) by itself.
    NoWeight,
    /// A weight of 2^32 or more.
    WeightTooLarge(u64),
    /// A zone's name of more than [`Zone::MAX_LEN`](crate::Zone::MAX_LEN) bytes.
    ZoneTooLong,
    /// More nodes than [`MAX_MERGED_NODES`](crate::membership::MAX_MERGED_NODES), in one part or together.
    TooManyNodes,
    /// More settings than [`MAX_MERGED_SETTINGS`](crate::membership::MAX_MERGED_SETTINGS), in one part or together.
    TooManySettings,
    /// A setting's name or value is too long.
    SettingTooLong,
    /// The layout's members are not the configuration's.
    OtherMembers,
    /// The layout's N or Q is not the configuration's.
    OtherShape,
    /// The layout does not follow the one that a transition is said to leave.
    OtherParent,
    /// A tracker of a node that takes no part.
    StrangeTracker(NodeId),
    /// Trackers of a transition that has ended.
    EndedTracker,
    /// Something is staged or given up that is committed, just so or later: who made the state would have dropped it.
    Superseded,
    /// A record's incarnation is 2^63 or more.
    IncarnationOutOfRange,
    /// A record's facts are longer than [`MAX_FACTS`](crate::gossip::MAX_FACTS).
    FactsTooLong,
    /// A slot of this number, 16384 or more.
    SlotOutOfRange(u16),
    /// A partition that there is not.
    NoSuchPartition {
        /// Its place in ring order.
        index: u16,
        /// Q as a power of two.
        bits: u8,
    },
}

impl Malformed {
    /// Whose it is, where a part by itself did not know.
    pub(crate) fn of(self, id: NodeId) -> Malformed {
        if self == Malformed::NoWeight { Malformed::ZeroWeight(id) } else { self }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Layout(error) => error.fmt(f),
            Malformed::Unsorted => f.write_str("keys or ids are out of order"),
            Malformed::Repeated => f.write_str("a key or an id stands twice"),
            Malformed::StampOutOfRange => f.write_str("a stamp is 2^63 or more, or more than there are"),
            Malformed::VersionOutOfRange(version) => {
                write!(f, "version {version} of a layout, after which no changes are numbered")
            }
            Malformed::NoReplicas => f.write_str("zero replicas"),
            Malformed::PartitionCount(q) => write!(f, "{q} partitions: not a power of two from 1 to 16384"),
            Malformed::ZeroWeight(id) => write!(f, "member {id} has weight 0"),
            Malformed::NoWeight => f.write_str("a weight of zero"),
            Malformed::Superseded => f.write_str("something is staged or given up that is committed"),
            Malformed::WeightTooLarge(weight) => write!(f, "weight {weight}: 2^32 or more"),
            Malformed::ZoneTooLong => ZoneTooLong.fmt(f),
            Malformed::TooManyNodes => f.write_str("too many nodes"),
            Malformed::TooManySettings => f.write_str("too many settings"),
            Malformed::SettingTooLong => f.write_str("a setting is too long"),
            Malformed::OtherMembers => f.write_str("the layout's members are not the configuration's"),
            Malformed::OtherShape => f.write_str("the layout's N or Q is not the configuration's"),
            Malformed::OtherParent => f.write_str("the layout does not follow the one that it is said to"),
            Malformed::StrangeTracker(id) => write!(f, "a tracker of node {id}, which takes no part"),
            Malformed::IncarnationOutOfRange => f.write_str("an incarnation is 2^63 or more"),
            Malformed::FactsTooLong => write!(f, "facts of more than {MAX_FACTS} bytes"),
            Malformed::SlotOutOfRange(index) => write!(f, "slot {index}: a slot is below {SLOTS}"),
            Malformed::NoSuchPartition { index, bits } => write!(f, "no partition {index} of 2^{bits}"),
            Malformed::EndedTracker => f.write_str("trackers of a transition that has ended"),
        }
    }
}

impl Error for Malformed {}

impl<'de> Deserialize<'de> for Checked<Slot> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Checked(Slot::read(deserializer)?.map_err(Malformed::SlotOutOfRange)))
    }
}

impl<'de> Deserialize<'de> for Checked<Partition> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = Partition::read(deserializer)?;
        Ok(Checked(read.map_err(|(index, bits)| Malformed::NoSuchPartition { index, bits })))
    }
}

/// A collection as it was read: its keys were in order, each there once, and no more than `MOST`; or `flaw` says what they were. Of what comes
/// after a flaw nothing is kept.
pub(crate) struct Ascending<T, const MOST: usize> {
    read: T,
    flaw: Option<Disorder>,
}

enum Disorder {
    Repeated,
    Unsorted,
    TooMany,
}

impl<T, const MOST: usize> Ascending<T, MOST> {
    /// What was read, or its flaw, of which `too_many` is the name of one.
    pub(crate) fn check(self, too_many: Malformed) -> Result<T, Malformed> {
        match self.flaw {
            None => Ok(self.read),
            Some(Disorder::Repeated) => Err(Malformed::Repeated),
            Some(Disorder::Unsorted) => Err(Malformed::Unsorted),
            Some(Disorder::TooMany) => Err(too_many),
        }
    }
}

/// What is wrong with a key after `last`, where so many have been read and `most` may be.
fn disorder<K: Ord>(last: Option<&K>, key: &K, read: usize, most: usize) -> Option<Disorder> {
    match last {
        _ if read == most => Some(Disorder::TooMany),
        Some(last) if last == key => Some(Disorder::Repeated),
        Some(last) if last > key => Some(Disorder::Unsorted),
        _ => None,
    }
}

struct Ordered<T, const MOST: usize>(PhantomData<T>);

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>, const MOST: usize> Visitor<'de>
    for Ordered<BTreeMap<K, V>, MOST>
{
    type Value = Ascending<BTreeMap<K, V>, MOST>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map in ascending order of its keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut read, mut flaw) = (BTreeMap::new(), None);
        // To its end, for the format goes on behind it.
        while let Some((key, value)) = map.next_entry::<K, V>()? {
            if flaw.is_none() {
                flaw = disorder(read.last_key_value().map(|(last, _)| last), &key, read.len(), MOST);
            }
            if flaw.is_none() {
                read.insert(key, value);
            }
        }
        Ok(Ascending { read, flaw })
    }
}

impl<'de, K: Deserialize<'de> + Ord, const MOST: usize> Visitor<'de> for Ordered<BTreeSet<K>, MOST> {
    type Value = Ascending<BTreeSet<K>, MOST>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list in ascending order")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let (mut read, mut flaw) = (BTreeSet::new(), None);
        while let Some(key) = seq.next_element::<K>()? {
            if flaw.is_none() {
                flaw = disorder(read.last(), &key, read.len(), MOST);
            }
            if flaw.is_none() {
                read.insert(key);
            }
        }
        Ok(Ascending { read, flaw })
    }
}

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>, const MOST: usize> Deserialize<'de>
    for Ascending<BTreeMap<K, V>, MOST>
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Ordered::<BTreeMap<K, V>, MOST>(PhantomData))
    }
}

impl<'de, K: Deserialize<'de> + Ord, const MOST: usize> Deserialize<'de> for Ascending<BTreeSet<K>, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Ordered::<BTreeSet<K>, MOST>(PhantomData))
    }
}

/// Reads a sequence, refusing it as soon as it is longer than `MAX`.
pub(crate) fn at_most<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MAX: usize>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    struct Bounded<T, const MAX: usize>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Bounded<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MAX} entries")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let claimed = seq.size_hint().unwrap_or(0);
            if claimed > MAX {
                return Err(de::Error::invalid_length(claimed, &self));
            }
            // A claim costs its sender nothing, so it alone reserves little.
            let mut list = Vec::with_capacity(claimed.min(64));
            while let Some(entry) = seq.next_element()? {
                if list.len() == MAX {
                    return Err(de::Error::invalid_length(MAX + 1, &self));
                }
                list.push(entry);
            }
            Ok(list)
        }
    }
    deserializer.deserialize_seq(Bounded::<T, MAX>(PhantomData))
}
