//! Names of events: who made it, and which of that actor's events it was.

use crate::checked::Checked;
use crate::malformed::Malformed;
use crate::number::Number;
use core::error::Error;
use core::fmt;
use core::str::FromStr;
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// One maker of events.
///
/// Draw a new random one each time a store is opened, and make it durable before its first dot leaves the machine:
/// then no dot is ever issued twice for different values, whatever became of the disk.
///
/// Printed and parsed as 16 lower-case hexadecimal digits.
///
/// ```
/// use gramme_vclock::Actor;
/// let actor: Actor = "00000000000000ff".parse()?;
/// assert_eq!((actor, actor.to_string().as_str()), (Actor(255), "00000000000000ff"));
/// # Ok::<(), gramme_vclock::ParseActorError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Actor(pub u64);

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Actor({self})")
    }
}

/// A text that is no actor: anything but exactly 16 hexadecimal digits, letters among them in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseActorError;

impl fmt::Display for ParseActorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an actor is 16 lower-case hexadecimal digits")
    }
}

impl Error for ParseActorError {}

impl FromStr for Actor {
    type Err = ParseActorError;

    fn from_str(text: &str) -> Result<Self, ParseActorError> {
        // `from_str_radix` alone would let a sign and other spellings through.
        if text.len() != 16 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ParseActorError);
        }
        u64::from_str_radix(text, 16).map(Actor).map_err(|_| ParseActorError)
    }
}

/// One event: the `counter`-th of `actor`, counted from 1.
///
/// Counter 0 names no event: no set contains it, and inserting it changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// Who made the event.
    pub actor: Actor,
    /// Which of the actor's events it is, from 1.
    pub counter: u64,
}

impl Dot {
    /// The span that holds this dot alone.
    #[must_use]
    pub const fn span(self) -> Span {
        Span { actor: self.actor, first: self.counter, last: self.counter }
    }
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.actor, self.counter)
    }
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dot({self})")
    }
}

/// A run of one actor's events, both ends included.
///
/// A span with `first` 0 or with `first` past `last` names no events: no set contains it, and inserting it changes
/// nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Who made the events.
    pub actor: Actor,
    /// Counter of the first event, at least 1.
    pub first: u64,
    /// Counter of the last event, at least `first`.
    pub last: u64,
}

impl Span {
    /// Whether the span names any events: `1 <= first <= last`.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        1 <= self.first && self.first <= self.last
    }

    /// Whether `dot` is one of the span's events.
    #[must_use]
    pub fn contains(self, dot: Dot) -> bool {
        self.actor == dot.actor && self.first <= dot.counter && dot.counter <= self.last && self.first > 0
    }

    /// Actor and first counter as one number: compared without a branch.
    pub(crate) const fn start(self) -> u128 {
        (self.actor.0 as u128) << 64 | self.first as u128
    }

    /// Actor and last counter as one number.
    pub(crate) const fn end(self) -> u128 {
        (self.actor.0 as u128) << 64 | self.last as u128
    }

    /// Whether `next`, which starts no earlier, overlaps this span or follows it without a gap.
    pub(crate) fn touches(self, next: Span) -> bool {
        self.actor == next.actor && next.first <= self.last.saturating_add(1)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.actor, self.first)?;
        if self.first == self.last { Ok(()) } else { write!(f, "..={}", self.last) }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Span({self})")
    }
}

// An actor is random: as eight raw bytes it costs less than as a varint, which would take ten.
impl Serialize for Actor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.to_le_bytes().serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Actor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Actor, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(HexActor)
        } else {
            <[u8; 8]>::deserialize(deserializer).map(|bytes| Actor(u64::from_le_bytes(bytes)))
        }
    }
}

struct HexActor;

impl Visitor<'_> for HexActor {
    type Value = Actor;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an actor as 16 lower-case hexadecimal digits")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Actor, E> {
        text.parse().map_err(|ParseActorError| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

impl Serialize for Dot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.counter == 0 {
            return Err(serde::ser::Error::custom("a dot without an event has no encoding"));
        }
        (self.actor, Number(self.counter)).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Checked<Dot> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (actor, Number(counter)) = <(Actor, Number)>::deserialize(deserializer)?;
        Ok(Checked(if counter == 0 { Err(Malformed::CounterZero) } else { Ok(Dot { actor, counter }) }))
    }
}

impl<'de> Deserialize<'de> for Dot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Dot, D::Error> {
        Checked::<Self>::deserialize(deserializer)?.or_custom()
    }
}

// The end as a distance from the start: short spans stay short, and an end before its start can't be written.
impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !self.is_valid() {
            return Err(serde::ser::Error::custom("a span without events has no encoding"));
        }
        (self.actor, Number(self.first), Number(self.last - self.first)).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Checked<Span> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (actor, Number(first), Number(more)) = <(Actor, Number, Number)>::deserialize(deserializer)?;
        Ok(Checked(match first.checked_add(more) {
            _ if first == 0 => Err(Malformed::CounterZero),
            Some(last) => Ok(Span { actor, first, last }),
            None => Err(Malformed::CounterOverflow),
        }))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        Checked::<Self>::deserialize(deserializer)?.or_custom()
    }
}
