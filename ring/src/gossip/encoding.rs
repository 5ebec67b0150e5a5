//! Messages as they are read: what is wrong with one has a name.

use alloc::boxed::Box;
use alloc::vec::Vec;

use serde::{Deserialize, Deserializer};

use super::{GossipError, Head, MAX_LISTED, Message, Record, Told};
use crate::checked::{Checked, Malformed, at_most};
use crate::membership::{Membership, Progress};
use crate::node::NodeId;

#[derive(Deserialize)]
#[serde(rename = "Message")]
enum Read {
    Summary {
        #[serde(with = "crate::hex")]
        membership: u64,
        #[serde(with = "crate::hex")]
        records: u64,
    },
    Heads {
        #[serde(with = "crate::hex")]
        membership: u64,
        #[serde(with = "crate::hex::option")]
        commit: Option<u64>,
        #[serde(deserialize_with = "at_most::<_, (NodeId, ReadHead), MAX_LISTED>")]
        heads: Vec<(NodeId, ReadHead)>,
    },
    Delta {
        membership: Option<Checked<Told>>,
        #[serde(deserialize_with = "at_most::<_, (NodeId, ReadRecord), MAX_LISTED>")]
        records: Vec<(NodeId, ReadRecord)>,
        ask_membership: bool,
        #[serde(deserialize_with = "at_most::<_, NodeId, MAX_LISTED>")]
        ask: Vec<NodeId>,
    },
}

#[derive(Deserialize)]
#[serde(rename = "Told")]
enum ReadTold {
    All(Box<Checked<Membership>>),
    Progress(Box<Checked<Progress>>),
}

#[derive(Deserialize)]
#[serde(rename = "Head")]
struct ReadHead {
    incarnation: u64,
    version: u64,
}

#[derive(Deserialize)]
#[serde(rename = "Record")]
struct ReadRecord {
    head: ReadHead,
    facts: Vec<u8>,
}

impl From<ReadHead> for Head {
    fn from(ReadHead { incarnation, version }: ReadHead) -> Head {
        Head { incarnation, version }
    }
}

impl From<ReadRecord> for Record {
    fn from(ReadRecord { head, facts }: ReadRecord) -> Record {
        Record { head: head.into(), facts }
    }
}

/// What no message has, whether it was read or made up here.
pub(super) enum Flaw {
    Repeated,
    IncarnationOutOfRange,
    FactsTooLong,
}

impl Flaw {
    fn of_read(self) -> Malformed {
        match self {
            Flaw::FactsTooLong => Malformed::FactsTooLong,
            Flaw::Repeated => Malformed::Repeated,
            Flaw::IncarnationOutOfRange => Malformed::IncarnationOutOfRange,
        }
    }

    pub(super) fn of_received(self) -> GossipError {
        match self {
            Flaw::FactsTooLong => GossipError::FactsTooLong,
            Flaw::Repeated => GossipError::Repeated,
            Flaw::IncarnationOutOfRange => GossipError::IncarnationOutOfRange,
        }
    }
}

impl Message {
    pub(super) fn check(&self) -> Result<(), Flaw> {
        match self {
            Message::Summary { .. } => Ok(()),
            Message::Heads { heads, .. } => {
                heads.iter().try_for_each(|(_, head)| head.check().map(drop))?;
                distinct(heads.iter().map(|(id, _)| *id))
            }
            Message::Delta { records, ask, .. } => {
                records.iter().try_for_each(|(_, record)| record.check())?;
                distinct(records.iter().map(|(id, _)| *id))?;
                distinct(ask.iter().copied())
            }
        }
    }
}

/// Most lists are in order, and compared as they stand; the records of a delta begin at any place.
fn distinct(ids: impl Iterator<Item = NodeId> + Clone) -> Result<(), Flaw> {
    if ids.clone().is_sorted_by(|a, b| a < b) {
        return Ok(());
    }
    let mut sorted: Vec<NodeId> = ids.collect();
    sorted.sort_unstable();
    if sorted.is_sorted_by(|a, b| a < b) { Ok(()) } else { Err(Flaw::Repeated) }
}

impl Read {
    fn check(self) -> Result<Message, Malformed> {
        let message = match self {
            Read::Summary { membership, records } => Message::Summary { membership, records },
            Read::Heads { membership, commit, heads } => {
                let heads = heads.into_iter().map(|(id, head)| (id, head.into())).collect();
                Message::Heads { membership, commit, heads }
            }
            Read::Delta { membership, records, ask_membership, ask } => {
                let membership = membership.map(|Checked(told)| told).transpose()?;
                let records = records.into_iter().map(|(id, record)| (id, record.into())).collect();
                Message::Delta { membership, records, ask_membership, ask }
            }
        };
        message.check().map_err(Flaw::of_read)?;
        Ok(message)
    }
}

impl<'de> Deserialize<'de> for Checked<Message> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Checked(Read::deserialize(deserializer)?.check()))
    }
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Checked::<Self>::deserialize(deserializer)?.or_custom()
    }
}

impl<'de> Deserialize<'de> for Checked<Told> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Checked(match ReadTold::deserialize(deserializer)? {
            ReadTold::All(all) => all.0.map(|membership| Told::All(Box::new(membership))),
            ReadTold::Progress(news) => news.0.map(|progress| Told::Progress(Box::new(progress))),
        }))
    }
}

impl<'de> Deserialize<'de> for Told {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Checked::<Self>::deserialize(deserializer)?.or_custom()
    }
}

impl<'de> Deserialize<'de> for Checked<Head> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let head: Head = ReadHead::deserialize(deserializer)?.into();
        Ok(Checked(head.check().map_err(Flaw::of_read)))
    }
}

impl<'de> Deserialize<'de> for Head {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Checked::<Self>::deserialize(deserializer)?.or_custom()
    }
}

impl<'de> Deserialize<'de> for Checked<Record> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let record: Record = ReadRecord::deserialize(deserializer)?.into();
        Ok(Checked(record.check().map_err(Flaw::of_read).map(|()| record)))
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Checked::<Self>::deserialize(deserializer)?.or_custom()
    }
}
