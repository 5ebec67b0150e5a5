//! Messages as they are read: what is wrong with one has a name.

use alloc::boxed::Box;
use alloc::vec::Vec;

use serde::{Deserialize, Deserializer};

use super::{GossipError, Head, Message, Record, Told};
use crate::checked::{Checked, Malformed};
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
        heads: Vec<(NodeId, Head)>,
    },
    Delta {
        membership: Option<Checked<Told>>,
        records: Vec<(NodeId, Record)>,
        ask_membership: bool,
        ask: Vec<NodeId>,
    },
}

#[derive(Deserialize)]
#[serde(rename = "Told")]
enum ReadTold {
    All(Box<Checked<Membership>>),
    Progress(Box<Checked<Progress>>),
}

/// What no message has, whether it was read or made up here.
pub(super) enum Flaw {
    Repeated,
    IncarnationOutOfRange,
}

impl Flaw {
    fn of_read(self) -> Malformed {
        match self {
            Flaw::Repeated => Malformed::Repeated,
            Flaw::IncarnationOutOfRange => Malformed::IncarnationOutOfRange,
        }
    }

    pub(super) fn of_received(self) -> GossipError {
        match self {
            Flaw::Repeated => GossipError::Repeated,
            Flaw::IncarnationOutOfRange => GossipError::IncarnationOutOfRange,
        }
    }
}

impl Message {
    pub(super) fn check(&self) -> Result<(), Flaw> {
        match self {
            Message::Summary { .. } => Ok(()),
            Message::Heads { heads, .. } => in_range(heads.iter().map(|(_, head)| head))
                .and_then(|()| distinct(heads.iter().map(|(id, _)| *id))),
            Message::Delta { records, ask, .. } => in_range(records.iter().map(|(_, record)| &record.head))
                .and_then(|()| distinct(records.iter().map(|(id, _)| *id)))
                .and_then(|()| distinct(ask.iter().copied())),
        }
    }
}

fn in_range<'a>(mut heads: impl Iterator<Item = &'a Head>) -> Result<(), Flaw> {
    if heads.all(Head::is_in_range) { Ok(()) } else { Err(Flaw::IncarnationOutOfRange) }
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
            Read::Heads { membership, commit, heads } => Message::Heads { membership, commit, heads },
            Read::Delta { membership, records, ask_membership, ask } => {
                let membership = membership.map(|Checked(told)| told).transpose()?;
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
