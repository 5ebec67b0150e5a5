//! Who takes part: zones and members.

use alloc::boxed::Box;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use crate::checked::{Checked, Malformed};
use crate::node::NodeId;

/// A place whose nodes fail together: a rack, a room, a data centre.
///
/// At most [`Zone::MAX_LEN`] bytes of UTF-8. The empty zone is the default; nodes that were never given a zone
/// share it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Zone(Box<str>);

impl Zone {
    /// Longest name of a zone, in bytes.
    pub const MAX_LEN: usize = 64;

    /// A zone of this name.
    ///
    /// # Errors
    /// [`ZoneTooLong`] if the name has more than [`Zone::MAX_LEN`] bytes.
    pub fn new(name: &str) -> Result<Self, ZoneTooLong> {
        if name.len() > Self::MAX_LEN { Err(ZoneTooLong) } else { Ok(Zone(name.into())) }
    }

    /// The zone's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({:?})", &*self.0)
    }
}

impl FromStr for Zone {
    type Err = ZoneTooLong;

    fn from_str(name: &str) -> Result<Self, ZoneTooLong> {
        Zone::new(name)
    }
}

/// A zone's name with more than [`Zone::MAX_LEN`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneTooLong;

impl fmt::Display for ZoneTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a zone's name has at most {} bytes", Zone::MAX_LEN)
    }
}

impl core::error::Error for ZoneTooLong {}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Checked<Zone> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl de::Visitor<'_> for Name {
            type Value = Checked<Zone>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a zone's name of at most {} bytes", Zone::MAX_LEN)
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Checked<Zone>, E> {
                Ok(Checked(Zone::new(name).map_err(|ZoneTooLong| Malformed::ZoneTooLong)))
            }
        }
        deserializer.deserialize_str(Name)
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Checked::<Self>::deserialize(deserializer)?.or_custom()
    }
}

/// Writes a weight as wide as it is read, so that one that is too large is told of by name; zero, which nobody would read, is refused.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over like that")]
pub(crate) fn write_weight<S: Serializer>(weight: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    if *weight == 0 {
        return Err(ser::Error::custom(Malformed::NoWeight));
    }
    u64::from(*weight).serialize(serializer)
}

pub(crate) fn checked_weight(read: u64) -> Result<u32, Malformed> {
    match u32::try_from(read) {
        Ok(0) => Err(Malformed::NoWeight),
        Ok(weight) => Ok(weight),
        Err(_) => Err(Malformed::WeightTooLarge(read)),
    }
}

/// A node as the layout sees it.
///
/// ```
/// use gramme_ring::{Member, NodeId, Zone};
/// let large = Member::new(NodeId(4)).with_weight(2).with_zone(Zone::new("rack 7")?);
/// # assert_eq!((large.weight, large.zone.as_str()), (2, "rack 7"));
/// # Ok::<(), gramme_ring::ZoneTooLong>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Member {
    /// Who it is.
    pub id: NodeId,
    /// Its share of the data relative to the others' weights. At least 1; [`Layout::compute`](crate::Layout::compute)
    /// refuses 0, and so do writing and reading.
    #[serde(serialize_with = "write_weight")]
    pub weight: u32,
    /// Where it stands. Replicas are spread over zones.
    pub zone: Zone,
}

#[derive(Deserialize)]
#[serde(rename = "Member")]
struct Read {
    id: NodeId,
    weight: u64,
    zone: Checked<Zone>,
}

impl<'de> Deserialize<'de> for Checked<Member> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Read { id, weight, zone } = Read::deserialize(deserializer)?;
        let member = || Ok(Member { id, weight: checked_weight(weight)?, zone: zone.0? });
        Ok(Checked(member().map_err(|flaw: Malformed| flaw.of(id))))
    }
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Checked::<Self>::deserialize(deserializer)?.or_custom()
    }
}

impl Member {
    /// A member of weight 1 in the default zone.
    pub fn new(id: NodeId) -> Self {
        Member { id, weight: 1, zone: Zone::default() }
    }

    /// The same member with another weight.
    #[must_use]
    pub fn with_weight(self, weight: u32) -> Self {
        Member { weight, ..self }
    }

    /// The same member in another zone.
    #[must_use]
    pub fn with_zone(self, zone: Zone) -> Self {
        Member { zone, ..self }
    }
}
