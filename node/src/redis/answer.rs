//! How the engine's replies become answers.

use super::write::Writer;
use crate::budget::Charge;
use crate::clock::wall_ms;
use crate::handle::Handle;
use bytes::Bytes;
use gramme_quorum::{OpError, Reading, Reply};

/// A finished answer of a command that took several steps.
pub(super) enum Answer {
    /// `+OK`.
    Ok,
    /// No value.
    Null,
    /// A number.
    Integer(i64),
    /// A value, and what it is counted for.
    Value(Bytes, Charge),
    /// An error with its kind.
    Error(String),
}

impl Answer {
    pub(super) fn write(self, out: &mut Writer) {
        match self {
            Answer::Ok => out.ok(),
            Answer::Null => out.null(),
            Answer::Integer(n) => out.integer(n),
            Answer::Value(value, charge) => {
                out.bulk(&value);
                drop(charge);
            }
            Answer::Error(text) => out.error(&text),
        }
    }
}

impl From<OpError> for Answer {
    fn from(error: OpError) -> Answer {
        Answer::Error(error_text(&error))
    }
}

/// What a client wants to know of one operation.
#[derive(Debug)]
pub(super) enum Shape {
    /// The value that a plain read shows.
    Value,
    /// 1 if there is one.
    Exists,
    /// Its length.
    Length,
    /// The name of its type.
    Type,
    /// How long it lives.
    Lifetime(Lifetime),
    /// That it was written.
    Stored,
    /// 1 if a live value was covered.
    Removed,
    /// All values of this key and their context.
    Siblings(Bytes),
    /// The context that a write of this key returned.
    Context(Bytes),
}

/// The forms in which a lifetime is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lifetime {
    /// Seconds from now.
    Seconds,
    /// Milliseconds from now.
    Millis,
    /// Seconds since the Unix epoch.
    AtSeconds,
    /// Milliseconds since the Unix epoch.
    AtMillis,
}

impl Lifetime {
    /// Redis' answer: -2 without a value, -1 without an expiry.
    fn of(self, reading: &Reading, now_ms: u64) -> i64 {
        let Some(shown) = reading.siblings.first() else { return -2 };
        let Some(expiry) = shown.expiry else { return -1 };
        let left = expiry.0.saturating_sub(now_ms);
        let number = match self {
            Lifetime::Seconds => left.saturating_add(500) / 1000,
            Lifetime::Millis => left,
            Lifetime::AtSeconds => expiry.0 / 1000,
            Lifetime::AtMillis => expiry.0,
        };
        i64::try_from(number).unwrap_or(i64::MAX)
    }
}

impl Shape {
    /// Writes the answer that `reply` comes to.
    pub(super) fn write(&self, handle: &Handle, reply: Reply, out: &mut Writer) {
        match (self, reply) {
            (_, Reply::Failed(error)) => out.error(&error_text(&error)),
            (Shape::Siblings(key), Reply::Read(reading)) => {
                let token = match handle.seal(key, &reading.context) {
                    Ok(token) => token,
                    Err(error) => return out.error(&format!("TOOLARGE context: {error}")),
                };
                out.array(2);
                out.bulk(token.as_bytes());
                out.array(reading.siblings.len());
                for found in &reading.siblings {
                    out.bulk(&found.value);
                }
            }
            (Shape::Lifetime(form), Reply::Read(reading)) => out.integer(form.of(&reading, wall_ms())),
            (shape, Reply::Read(reading)) => {
                let shown = reading.siblings.first();
                match shape {
                    Shape::Exists => out.integer(shown.is_some().into()),
                    Shape::Length => out.count(shown.map_or(0, |found| found.value.len())),
                    Shape::Type => out.simple(if shown.is_some() { "string" } else { "none" }),
                    _ => out.bulk_or_null(shown.map(|found| &found.value)),
                }
            }
            (Shape::Context(key), Reply::Written { context, .. }) => match handle.seal(key, &context) {
                Ok(token) => out.bulk(token.as_bytes()),
                Err(error) => out.error(&format!("TOOLARGE context: {error}; the write was acknowledged")),
            },
            (Shape::Removed, Reply::Written { replaced, .. }) => out.integer(replaced.into()),
            (_, Reply::Written { .. }) => out.ok(),
        }
    }
}

/// An error with its kind in front, as Redis clients know them.
pub(super) fn error_text(error: &OpError) -> String {
    let kind = match error {
        OpError::Quorum { .. } => "QUORUM",
        OpError::Indeterminate { .. } => "INDETERMINATE",
        OpError::Overloaded => "OVERLOADED",
        OpError::Unwritable => "UNWRITABLE",
        OpError::ValueTooLarge(_) | OpError::TooManySiblings => "TOOLARGE",
        _ => "ERR",
    };
    format!("{kind} {error}")
}
