//! Encoding of siblings: the history, then the values sorted by dot. Decoding checks what `from_parts` checks.

use super::Siblings;
use crate::buf::Buf;
use crate::dot::{Dot, Span};
use crate::dot_set::DotSet;
use crate::malformed::Malformed;
use core::fmt;
use core::marker::PhantomData;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

#[derive(Serialize)]
#[serde(rename = "Siblings", bound = "V: Serialize, B: Buf<Span>")]
struct Outgoing<'a, V, B> {
    seen: &'a DotSet<B>,
    entries: &'a [(Dot, V)],
}

#[derive(Deserialize)]
#[serde(rename = "Siblings", bound = "V: Deserialize<'de>, E: Buf<(Dot, V)>, B: Buf<Span>")]
struct Incoming<V, E, B> {
    seen: DotSet<B>,
    entries: Entries<V, E>,
}

struct Entries<V, E>(E, PhantomData<V>);

impl<V, E, B> Serialize for Siblings<V, E, B>
where
    V: Serialize,
    E: Buf<(Dot, V)>,
    B: Buf<Span>,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Outgoing { seen: &self.seen, entries: self.entries.as_slice() }.serialize(serializer)
    }
}

impl<'de, V, E, B> Deserialize<'de> for Siblings<V, E, B>
where
    V: Deserialize<'de>,
    E: Buf<(Dot, V), Full = B::Full>,
    B: Buf<Span>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Incoming { seen, entries } = Incoming::<V, E, B>::deserialize(deserializer)?;
        Siblings::validated(entries.0, seen).map_err(de::Error::custom)
    }
}

impl<'de, V: Deserialize<'de>, E: Buf<(Dot, V)>> Deserialize<'de> for Entries<V, E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Entries::<V, E>(E::default(), PhantomData))
    }
}

impl<'de, V: Deserialize<'de>, E: Buf<(Dot, V)>> Visitor<'de> for Entries<V, E> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("siblings sorted by dot")
    }

    // A claimed length is never believed: memory is taken as values arrive.
    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Self, A::Error> {
        while let Some(entry) = seq.next_element::<(Dot, V)>()? {
            self.0.push(entry).map_err(|_| de::Error::custom(Malformed::Full))?;
        }
        Ok(self)
    }
}
