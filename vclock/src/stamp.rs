//! Stamps of a hybrid logical clock.

use crate::checked::Checked;
use crate::malformed::Malformed;
use core::error::Error;
use core::fmt;
use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

/// A time that only ranks concurrent values: 48 bits of milliseconds since the Unix epoch, then 16 bits that count
/// within the millisecond (Kulkarni et al., "Logical Physical Clocks", 2014).
///
/// Raw values stay below 2^63, which lasts until the year 6429. At [`Stamp::MAX`] a lift stays where it is, so that
/// whatever this crate computes can be encoded and decoded again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp(u64);

const LOGICAL_BITS: u32 = 16;
const MAX_RAW: u64 = (1 << 63) - 1;
/// Bits that hold the milliseconds of a valid stamp.
pub(crate) const MILLIS_BITS: usize = 47;

impl Stamp {
    /// The start of the Unix epoch; no stamp is smaller.
    pub const ZERO: Stamp = Stamp(0);
    /// The greatest stamp.
    pub const MAX: Stamp = Stamp(MAX_RAW);

    /// The stamp of `millis` milliseconds since the Unix epoch and a count within the millisecond; times past
    /// [`Stamp::MAX`] become that.
    #[must_use]
    pub const fn from_parts(millis: u64, logical: u16) -> Stamp {
        if millis >> MILLIS_BITS == 0 { Stamp(millis << LOGICAL_BITS | logical as u64) } else { Stamp::MAX }
    }

    /// The stamp with this raw value.
    ///
    /// # Errors
    /// If the value is 2^63 or more.
    pub const fn from_u64(raw: u64) -> Result<Stamp, StampOutOfRange> {
        if raw <= MAX_RAW { Ok(Stamp(raw)) } else { Err(StampOutOfRange) }
    }

    /// The raw value, below 2^63.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0 >> LOGICAL_BITS
    }

    /// The count within the millisecond.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the low 16 bits are what is asked for")]
    pub const fn logical(self) -> u16 {
        self.0 as u16
    }

    /// The smallest greater stamp; [`Stamp::MAX`] stays as it is.
    #[must_use]
    pub const fn next(self) -> Stamp {
        if self.0 < MAX_RAW { Stamp(self.0 + 1) } else { self }
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stamp({self})")
    }
}

/// Milliseconds and the count within the millisecond, as `1700000000000.3`.
impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.millis(), self.logical())
    }
}

/// A raw stamp was 2^63 or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StampOutOfRange;

impl fmt::Display for StampOutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a raw stamp is 2^63 or more")
    }
}

impl Error for StampOutOfRange {}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Checked<Stamp> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = u64::deserialize(deserializer)?;
        Ok(Checked(Stamp::from_u64(raw).map_err(|StampOutOfRange| Malformed::StampOutOfRange)))
    }
}

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Stamp, D::Error> {
        Checked::<Self>::deserialize(deserializer)?.or_custom()
    }
}
