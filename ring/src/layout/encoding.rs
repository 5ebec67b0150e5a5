//! What goes over the wire and to disk, and the hash over it.

use alloc::vec::Vec;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Layout, LayoutError, LayoutVersion, MAX_MEMBERS};
use crate::checked::{Checked, Malformed, at_most};
use crate::member::Member;
use crate::mix::SequenceHash;
use crate::partition::PartitionCount;
use crate::slot::SLOTS;

/// Separates this hash from others over like numbers ("GrLayout" in ASCII).
const DOMAIN: u64 = 0x4772_4c61_796f_7574;

/// The hash over everything in a layout.
pub(super) fn hash(
    version: LayoutVersion,
    parent: u64,
    replicas: u8,
    partitions: PartitionCount,
    members: &[Member],
    table: &[u16],
) -> u64 {
    let mut hash = SequenceHash::new(DOMAIN);
    hash.number(version.0);
    hash.number(parent);
    hash.number(u64::from(replicas));
    hash.number(u64::from(partitions.get()));
    hash.number(members.len() as u64);
    for member in members {
        hash.number(member.id.0);
        hash.number(u64::from(member.weight));
        hash.bytes(member.zone.as_str().as_bytes());
    }
    for four in table.chunks(4) {
        // Four places to a word; a short last word is padded with ones, which is no place.
        let mut word = [0xff; 8];
        for (bytes, place) in word.chunks_exact_mut(2).zip(four) {
            bytes.copy_from_slice(&place.to_le_bytes());
        }
        hash.number(u64::from_le_bytes(word));
    }
    hash.finish()
}

#[derive(Serialize)]
#[serde(rename = "Layout")]
struct Written<'a> {
    version: LayoutVersion,
    #[serde(with = "crate::hex")]
    parent: u64,
    replicas: u8,
    partitions: u32,
    members: &'a [Member],
    table: &'a [u16],
    #[serde(with = "crate::hex")]
    hash: u64,
}

#[derive(Deserialize)]
#[serde(rename = "Layout")]
struct Read {
    version: LayoutVersion,
    #[serde(with = "crate::hex")]
    parent: u64,
    replicas: u8,
    partitions: u32,
    #[serde(deserialize_with = "at_most::<_, Checked<Member>, MAX_MEMBERS>")]
    members: Vec<Checked<Member>>,
    #[serde(deserialize_with = "at_most::<_, u16, MAX_TABLE>")]
    table: Vec<u16>,
    #[serde(with = "crate::hex")]
    hash: u64,
}

/// Every partition with the most replicas.
const MAX_TABLE: usize = SLOTS as usize * u8::MAX as usize;

impl Serialize for Layout {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Written {
            version: self.version,
            parent: self.parent,
            replicas: self.replicas,
            partitions: self.partitions.get(),
            members: &self.members,
            table: &self.places,
            hash: self.hash,
        }
        .serialize(serializer)
    }
}

/// Everything is checked: an owner table that a decoder lets through satisfies every promise that [`Layout`] makes, the
/// quality of balance apart, and is the one over which its proposer took the hash.
impl<'de> Deserialize<'de> for Checked<Layout> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Read { version, parent, replicas, partitions, members, table, hash } =
            Read::deserialize(deserializer)?;
        let weighed = |Checked(member)| match member {
            Err(Malformed::ZeroWeight(id)) => Err(Malformed::Layout(LayoutError::ZeroWeight(id))),
            member => member,
        };
        let members = members.into_iter().map(weighed).collect::<Result<_, _>>();
        Ok(Checked(members.and_then(|members| {
            let layout = Layout::from_parts(version, parent, replicas, partitions, members, table);
            layout.and_then(|layout| layout.with_hash(hash)).map_err(Malformed::Layout)
        })))
    }
}

impl<'de> Deserialize<'de> for Layout {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Checked::deserialize(deserializer)?.or_custom()
    }
}
