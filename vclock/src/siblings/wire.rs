//! Encoding of siblings: the history, then the values sorted by dot. Decoding checks what `from_parts` checks.

use super::Siblings;
use crate::buf::Buf;
use crate::checked::{Checked, each};
use crate::dot::{Dot, Span};
use crate::dot_set::DotSet;
use crate::malformed::Malformed;
use core::marker::PhantomData;
use serde::de::Deserializer;
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
    seen: Checked<DotSet<B>>,
    entries: Entries<V, E>,
}

struct Entries<V, E>(Result<E, Malformed>, PhantomData<V>);

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

impl<'de, V, E, B> Deserialize<'de> for Checked<Siblings<V, E, B>>
where
    V: Deserialize<'de>,
    E: Buf<(Dot, V), Full = B::Full>,
    B: Buf<Span>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Incoming { seen: Checked(seen), entries } = Incoming::<V, E, B>::deserialize(deserializer)?;
        Ok(Checked(seen.and_then(|seen| Siblings::validated(entries.0?, seen))))
    }
}

impl<'de, V, E, B> Deserialize<'de> for Siblings<V, E, B>
where
    V: Deserialize<'de>,
    E: Buf<(Dot, V), Full = B::Full>,
    B: Buf<Span>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Checked::<Self>::deserialize(deserializer)?.or_custom()
    }
}

impl<'de, V: Deserialize<'de>, E: Buf<(Dot, V)>> Deserialize<'de> for Entries<V, E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut list = E::default();
        let take =
            |(Checked(dot), value): (Checked<Dot>, V)| list.push((dot?, value)).map_err(|_| Malformed::Full);
        let well = each(deserializer, "siblings sorted by dot", take)?;
        Ok(Entries(well.map(|()| list), PhantomData))
    }
}
