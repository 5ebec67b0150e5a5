//! Messages as they are read: what is wrong with one has a name.

use alloc::boxed::Box;
use alloc::vec::Vec;

use serde::{Deserialize, Deserializer};

use super::{Head, Message, Record, Told};
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

fn in_range(head: &Head) -> Result<(), Malformed> {
    if head.is_in_range() { Ok(()) } else { Err(Malformed::IncarnationOutOfRange) }
}

impl Read {
    fn check(self) -> Result<Message, Malformed> {
        Ok(match self {
            Read::Summary { membership, records } => Message::Summary { membership, records },
            Read::Heads { membership, commit, heads } => {
                heads.iter().try_for_each(|(_, head)| in_range(head))?;
                Message::Heads { membership, commit, heads }
            }
            Read::Delta { membership, records, ask_membership, ask } => {
                let membership = membership.map(|Checked(told)| told).transpose()?;
                records.iter().try_for_each(|(_, record)| in_range(&record.head))?;
                Message::Delta { membership, records, ask_membership, ask }
            }
        })
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
