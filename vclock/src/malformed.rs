//! What is wrong with parts that don't make a value.

use crate::dot::Dot;
use core::error::Error;
use core::fmt;

/// Why decoded or handed-in parts don't make a clock, a set or an object.
///
/// Constructors answer it, and [`Checked`](crate::Checked) when decoded; any other decoder's error carries its text, as
/// far as the format keeps texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Malformed {
    /// Actors, spans or dots are out of order.
    Unsorted,
    /// An actor or a dot stands twice.
    Repeated,
    /// A span overlaps the one before it, or starts right after its end.
    Touching,
    /// A counter is 0, which names no event.
    CounterZero,
    /// A span would end past counter 2^64 - 1, or before its start.
    CounterOverflow,
    /// The history lacks a value's dot.
    Unseen(Dot),
    /// There is no room for so many.
    Full,
    /// A raw stamp is 2^63 or more.
    StampOutOfRange,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Unsorted => f.write_str("actors, spans or dots are out of order"),
            Malformed::Repeated => f.write_str("an actor or a dot stands twice"),
            Malformed::Touching => f.write_str("spans overlap or touch"),
            Malformed::CounterZero => f.write_str("a counter is 0"),
            Malformed::CounterOverflow => f.write_str("a span's last counter overflows"),
            Malformed::Unseen(dot) => write!(f, "the history lacks the value {dot}"),
            Malformed::Full => f.write_str("more than there is room for"),
            Malformed::StampOutOfRange => f.write_str("a raw stamp is 2^63 or more"),
        }
    }
}

impl Error for Malformed {}
