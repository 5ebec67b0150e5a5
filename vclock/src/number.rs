//! Counters as serde writes them.

use core::fmt;
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// A counter of up to 64 bits. In formats for people it is text in decimal, as actors and stamps are text: many readers of JSON hold numbers
/// in 53 bits, and would round it unasked.
pub(crate) struct Number(pub(crate) u64);

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(&self.0)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Decimal)
        } else {
            u64::deserialize(deserializer).map(Number)
        }
    }
}

struct Decimal;

impl Visitor<'_> for Decimal {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a counter as decimal text below 2^64")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Number, E> {
        // One spelling: `parse` alone would let a sign and zeros before it through.
        let spelt = text == "0" || text.starts_with(|first: char| ('1'..='9').contains(&first));
        let number = text.parse().ok().filter(|_| spelt).map(Number);
        number.ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}
