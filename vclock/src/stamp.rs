//! Stamps of a hybrid logical clock.

use crate::checked::Checked;
use crate::malformed::Malformed;
use core::error::Error;
use core::fmt;
use core::str::FromStr;
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// A time that only ranks concurrent values: 48 bits of milliseconds since the Unix epoch, then 16 bits that count
/// within the millisecond (Kulkarni et al., "Logical Physical Clocks", 2014).
///
/// Raw values stay below 2^63, which lasts until the year 6429. At [`Stamp::MAX`] a lift stays where it is, so that
/// whatever this crate computes can be encoded and decoded again.
///
/// Printed and parsed as milliseconds and count, and so in serde's formats for people: JSON's readers may have no number for
/// the raw value.
///
/// ```
/// use gramme_vclock::Stamp;
/// let stamp: Stamp = "1790000000000.3".parse()?;
/// assert_eq!((stamp, stamp.to_string().as_str()), (Stamp::from_parts(1_790_000_000_000, 3), "1790000000000.3"));
/// # Ok::<(), gramme_vclock::ParseStampError>(())
/// ```
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

/// A text that is no stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseStampError {
    /// It is not two decimal numbers with a point between them, or one of them has a sign or zeros before it.
    Syntax,
    /// The milliseconds are 2^47 or more, or the count 2^16 or more.
    OutOfRange,
}

impl fmt::Display for ParseStampError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ParseStampError::Syntax => "a stamp is milliseconds and a count, as 1700000000000.3",
            ParseStampError::OutOfRange => "a stamp's milliseconds are below 2^47, its count below 2^16",
        })
    }
}

impl Error for ParseStampError {}

impl FromStr for Stamp {
    type Err = ParseStampError;

    fn from_str(text: &str) -> Result<Stamp, ParseStampError> {
        let (millis, logical) = text.split_once('.').ok_or(ParseStampError::Syntax)?;
        // Zeros before a number would be other texts for the same stamp.
        let plain = |digits: &str| {
            digits == "0"
                || !digits.starts_with('0')
                    && !digits.is_empty()
                    && digits.bytes().all(|b| b.is_ascii_digit())
        };
        if !plain(millis) || !plain(logical) {
            return Err(ParseStampError::Syntax);
        }
        match (millis.parse::<u64>(), logical.parse::<u16>()) {
            (Ok(millis), Ok(logical)) if millis >> MILLIS_BITS == 0 => Ok(Stamp::from_parts(millis, logical)),
            _ => Err(ParseStampError::OutOfRange),
        }
    }
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

struct Text;

impl Visitor<'_> for Text {
    type Value = Checked<Stamp>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a stamp as milliseconds, a point and a count")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Checked<Stamp>, E> {
        match text.parse() {
            Ok(stamp) => Ok(Checked(Ok(stamp))),
            Err(ParseStampError::OutOfRange) => Ok(Checked(Err(Malformed::StampOutOfRange))),
            Err(ParseStampError::Syntax) => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }
}

impl<'de> Deserialize<'de> for Checked<Stamp> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return deserializer.deserialize_str(Text);
        }
        let raw = u64::deserialize(deserializer)?;
        Ok(Checked(Stamp::from_u64(raw).map_err(|StampOutOfRange| Malformed::StampOutOfRange)))
    }
}

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Stamp, D::Error> {
        Checked::<Self>::deserialize(deserializer)?.or_custom()
    }
}
