//! Records: the entries of the log, byte by byte (see `FORMAT.md`).
//!
//! A record is a header of 40 bytes, a key, a value and zeros up to a multiple of 8. Header and body have checksums of
//! their own: where only the body is bad, the header still tells whose record it was.

use crate::checksum::{Place, crc};
use alloc::vec::Vec;

/// Bytes of a record before its key.
pub(crate) const HEADER_BYTES: usize = 40;
/// No sequence, id or generation gets as far: what says so is made up.
pub(crate) const MAX_NUMBER: u64 = 1 << 62;
/// Nor so far: from there on a store is not opened, so that no writer comes to the former.
pub(crate) const MAX_OPENED_NUMBER: u64 = MAX_NUMBER / 2;
/// No segment is longer: records are addressed by 32 bits, in units of 8 bytes.
pub(crate) const MAX_SEGMENT_BYTES: u64 = 8 << 32;
/// Records start at multiples of this.
pub(crate) const ALIGN: usize = 8;
/// The longest key: 64 KiB of a user's key and 64 bytes for whoever prefixes it.
pub const MAX_KEY_BYTES: usize = 65_536 + 64;
/// The longest value.
pub const MAX_VALUE_BYTES: usize = 64 << 20;

const VALUE_BITS: u32 = 27;
const KEY_BITS: u32 = 17;
const SLOT_BITS: u32 = 16;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The key has this value.
    Put = 1,
    /// The key is gone.
    Delete = 2,
    /// All keys of the slot with smaller sequences are gone.
    DropSlot = 3,
    /// Everything before (segment `fingerprint`, offset `tag`) was durable when this was written.
    Watermark = 4,
    /// A record of this slot and fingerprint was found damaged by compaction: its key is unknown, not absent.
    Lost = 5,
    /// A put with a stamp from which on it has expired: 8 bytes between key and value, counted as the value's.
    Expiring = 6,
    /// A put with a stamp from which on only the first bytes of its value are to stay, and how many: 12 bytes between key and value, counted
    /// as the value's.
    Shrinking = 7,
}

/// Bytes of the stamp of an expiring put.
pub(crate) const STAMP_BYTES: usize = 8;
/// The most that stands between key and value: the stamp of a shrinking put, and how much stays.
pub(crate) const MAX_TERM_BYTES: usize = STAMP_BYTES + 4;

impl Kind {
    pub(crate) const fn of_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Put,
            2 => Self::Delete,
            3 => Self::DropSlot,
            4 => Self::Watermark,
            5 => Self::Lost,
            6 => Self::Expiring,
            7 => Self::Shrinking,
            _ => return None,
        })
    }

    /// Whether it gives a key a value.
    pub(crate) const fn is_put(self) -> bool {
        matches!(self, Self::Put | Self::Expiring | Self::Shrinking)
    }

    /// Whether time does something to it.
    pub(crate) const fn has_term(self) -> bool {
        self.term_bytes() > 0
    }

    /// Bytes between key and value.
    const fn term_bytes(self) -> usize {
        match self {
            Self::Expiring => STAMP_BYTES,
            Self::Shrinking => MAX_TERM_BYTES,
            _ => 0,
        }
    }
}

/// What time does to a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Term {
    /// Nothing. So it is of all that is no put.
    None,
    /// It is absent from this moment on.
    Expires(u64),
    /// From this moment on all but so many bytes of its value may go.
    Shrinks(u64, u32),
}

impl Term {
    /// Of a put with this term.
    pub(crate) const fn kind(self) -> Kind {
        match self {
            Self::None => Kind::Put,
            Self::Expires(_) => Kind::Expiring,
            Self::Shrinks(..) => Kind::Shrinking,
        }
    }

    pub(crate) const fn expires(self) -> Option<u64> {
        if let Self::Expires(at) = self { Some(at) } else { None }
    }
}

/// A record's header, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) slot: u16,
    pub(crate) key_len: u32,
    pub(crate) value_len: u32,
    pub(crate) sequence: u64,
    pub(crate) fingerprint: u64,
    pub(crate) tag: u64,
    pub(crate) body_crc: u32,
}

impl Header {
    /// Bytes of key and value.
    pub(crate) fn payload_len(&self) -> usize {
        self.key_len as usize + self.value_len as usize
    }

    /// Where the value is in the record.
    pub(crate) fn value_range(&self) -> core::ops::Range<usize> {
        HEADER_BYTES + self.key_len as usize + self.kind.term_bytes()..HEADER_BYTES + self.payload_len()
    }

    /// What time does to it; `bytes`: the record, at least up to its value.
    #[allow(clippy::cast_possible_truncation)] // A value's length was read from fewer bits.
    pub(crate) fn term(&self, bytes: &[u8]) -> Term {
        let at = HEADER_BYTES + self.key_len as usize;
        match self.kind {
            Kind::Expiring => Term::Expires(word(bytes, at)),
            // No writer keeps more than there is.
            Kind::Shrinking => Term::Shrinks(
                word(bytes, at),
                half(bytes, at + STAMP_BYTES).min(self.value_range().len() as u32),
            ),
            _ => Term::None,
        }
    }

    /// Bytes of the whole record, padding included.
    pub(crate) fn record_len(&self) -> usize {
        record_len(self.key_len as usize, self.value_len as usize)
    }

    fn pack(&self) -> u64 {
        (self.kind as u64) << (SLOT_BITS + KEY_BITS + VALUE_BITS)
            | u64::from(self.slot) << (KEY_BITS + VALUE_BITS)
            | u64::from(self.key_len) << VALUE_BITS
            | u64::from(self.value_len)
    }

    /// Reads a header whose checksum holds and whose lengths are possible. `bytes` has at least [`HEADER_BYTES`].
    pub(crate) fn decode(bytes: &[u8], place: Place, offset: u64) -> Option<Self> {
        let packed = word(bytes, 32);
        // The cheap test first: resynchronisation asks this at every eighth byte.
        if packed >> 60 == 0 {
            return None;
        }
        let header = Self::unpack(bytes, packed)?;
        let seed = place.seeds(offset).header;
        (crc(seed, &bytes[4..HEADER_BYTES]) == half(bytes, 0)).then_some(header)
    }

    #[allow(clippy::cast_possible_truncation)] // Fields are cut out of the packed word by their widths.
    fn unpack(bytes: &[u8], packed: u64) -> Option<Self> {
        let value_len = (packed & ((1 << VALUE_BITS) - 1)) as u32;
        let key_len = (packed >> VALUE_BITS & ((1 << KEY_BITS) - 1)) as u32;
        let slot = (packed >> (KEY_BITS + VALUE_BITS)) as u16;
        let (key, value) = (key_len as usize, value_len as usize);
        let kind = Kind::of_byte((packed >> 60) as u8)?;
        let has_key = (1..=MAX_KEY_BYTES).contains(&key);
        let possible = match kind {
            Kind::Put | Kind::Expiring | Kind::Shrinking => {
                has_key && value.checked_sub(kind.term_bytes()).is_some_and(|value| value <= MAX_VALUE_BYTES)
            }
            Kind::Delete => has_key && value == 0,
            Kind::DropSlot | Kind::Lost => key == 0 && value == 0,
            Kind::Watermark => key == 0 && value == 0 && word(bytes, 24) <= MAX_SEGMENT_BYTES,
        };
        if !possible || word(bytes, 8) > MAX_NUMBER {
            return None;
        }
        Some(Self {
            kind,
            slot,
            key_len,
            value_len,
            body_crc: half(bytes, 4),
            sequence: word(bytes, 8),
            fingerprint: word(bytes, 16),
            tag: word(bytes, 24),
        })
    }

    /// Tries to read a header in which one bit is wrong. A CRC of this length tells all single flips apart; since a
    /// longer damage might look like one, the caller must also find the body's checksum right.
    pub(crate) fn mend(bytes: &[u8], place: Place, offset: u64) -> Option<Self> {
        Self::mended(bytes, place, offset).map(|(header, _)| header)
    }

    /// The same, with the bytes as they should be.
    pub(crate) fn mended(bytes: &[u8], place: Place, offset: u64) -> Option<(Self, [u8; HEADER_BYTES])> {
        let mut copy = [0; HEADER_BYTES];
        copy.copy_from_slice(bytes.get(..HEADER_BYTES)?);
        if copy == [0; HEADER_BYTES] {
            return None;
        }
        for bit in 0..HEADER_BYTES * 8 {
            copy[bit / 8] ^= 1 << (bit % 8);
            if let Some(header) = Self::decode(&copy, place, offset) {
                return Some((header, copy));
            }
            copy[bit / 8] ^= 1 << (bit % 8);
        }
        None
    }

    /// Whether `body` (key, value and padding) is what was written here.
    pub(crate) fn body_is_intact(&self, body: &[u8], place: Place, offset: u64) -> bool {
        crc(place.seeds(offset).body, body) == self.body_crc
    }
}

/// Bytes of a record with a key and a value of these lengths.
pub(crate) const fn record_len(key: usize, value: usize) -> usize {
    (HEADER_BYTES + key + value).next_multiple_of(ALIGN)
}

/// What is to be written; the checksums depend on where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draft<'a> {
    pub(crate) kind: Kind,
    pub(crate) slot: u16,
    pub(crate) sequence: u64,
    pub(crate) fingerprint: u64,
    pub(crate) tag: u64,
    pub(crate) term: Term,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

impl Draft<'_> {
    /// Bytes that [`Draft::append_to`] adds.
    pub(crate) fn record_len(&self) -> usize {
        record_len(self.key.len(), self.value_len())
    }

    fn value_len(&self) -> usize {
        self.value.len() + self.term.kind().term_bytes()
    }

    /// Adds the record that belongs at `offset` of the segment of `place` to `out`. Lengths were checked by the caller.
    #[allow(clippy::cast_possible_truncation)] // Asserted first.
    pub(crate) fn append_to(&self, out: &mut Vec<u8>, place: Place, offset: u64) {
        assert!(
            self.key.len() <= MAX_KEY_BYTES && self.value.len() <= MAX_VALUE_BYTES,
            "lengths checked before"
        );
        let start = out.len();
        let total = self.record_len();
        out.reserve(total);
        out.extend_from_slice(&[0; HEADER_BYTES]);
        out.extend_from_slice(self.key);
        match self.term {
            Term::None => {}
            Term::Expires(at) => out.extend_from_slice(&at.to_le_bytes()),
            Term::Shrinks(at, kept) => {
                out.extend_from_slice(&at.to_le_bytes());
                out.extend_from_slice(&kept.to_le_bytes());
            }
        }
        out.extend_from_slice(self.value);
        out.resize(start + total, 0);
        let seeds = place.seeds(offset);
        let header = Header {
            kind: self.kind,
            slot: self.slot,
            key_len: self.key.len() as u32,
            value_len: self.value_len() as u32,
            sequence: self.sequence,
            fingerprint: self.fingerprint,
            tag: self.tag,
            body_crc: crc(seeds.body, &out[start + HEADER_BYTES..]),
        };
        let head = &mut out[start..start + HEADER_BYTES];
        head[4..8].copy_from_slice(&header.body_crc.to_le_bytes());
        head[8..16].copy_from_slice(&header.sequence.to_le_bytes());
        head[16..24].copy_from_slice(&header.fingerprint.to_le_bytes());
        head[24..32].copy_from_slice(&header.tag.to_le_bytes());
        head[32..40].copy_from_slice(&header.pack().to_le_bytes());
        let sum = crc(seeds.header, &head[4..]);
        head[..4].copy_from_slice(&sum.to_le_bytes());
    }
}

/// The little-endian word at `at`.
pub(crate) fn word(bytes: &[u8], at: usize) -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(raw)
}

/// The little-endian half word at `at`.
pub(crate) fn half(bytes: &[u8], at: usize) -> u32 {
    let mut raw = [0; 4];
    raw.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Vec<u8>, Place) {
        let place = Place::new(99, 3);
        let mut out = Vec::new();
        let draft = Draft {
            kind: Kind::Put,
            slot: 16_383,
            sequence: 0x0123_4567_89ab_cdef,
            fingerprint: u64::MAX,
            tag: 42,
            term: Term::None,
            key: b"key",
            value: b"some value",
        };
        draft.append_to(&mut out, place, 64);
        (out, place)
    }

    #[test]
    fn a_record_reads_back() {
        let (bytes, place) = sample();
        assert_eq!(bytes.len(), 56);
        let header = Header::decode(&bytes, place, 64).expect("valid");
        assert_eq!(
            (header.kind, header.slot, header.key_len, header.value_len, header.tag),
            (Kind::Put, 16_383, 3, 10, 42)
        );
        assert_eq!((header.sequence, header.fingerprint), (0x0123_4567_89ab_cdef, u64::MAX));
        assert!(header.body_is_intact(&bytes[HEADER_BYTES..], place, 64));
    }

    #[test]
    fn what_time_does_to_it_reads_back() {
        let place = Place::new(99, 3);
        let read = |term: Term| {
            let mut out = Vec::new();
            let (fingerprint, key, value): (_, &[u8], &[u8]) = (1, b"key", b"some value");
            let kind = term.kind();
            let draft = Draft { kind, slot: 1, sequence: 2, fingerprint, tag: 3, term, key, value };
            draft.append_to(&mut out, place, 64);
            assert_eq!(out.len(), draft.record_len());
            let header = Header::decode(&out, place, 64).expect("valid");
            assert_eq!((header.kind, &out[header.value_range()]), (kind, value));
            header.term(&out)
        };
        for term in [Term::None, Term::Expires(5), Term::Shrinks(u64::MAX, 0), Term::Shrinks(6, 10)] {
            assert_eq!(read(term), term);
        }
        assert_eq!(read(Term::Shrinks(7, u32::MAX)), Term::Shrinks(7, 10), "no more than there is");
    }

    #[test]
    fn every_single_flip_is_seen_and_in_the_header_mended() {
        let (bytes, place) = sample();
        let sound = Header::decode(&bytes, place, 64);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            if bit < HEADER_BYTES * 8 {
                assert_eq!(Header::decode(&bad, place, 64), None, "bit {bit}");
                assert_eq!(Header::mend(&bad, place, 64), sound, "bit {bit}");
            } else {
                let header = Header::decode(&bad, place, 64).expect("the header is whole");
                assert!(!header.body_is_intact(&bad[HEADER_BYTES..], place, 64), "bit {bit}");
            }
        }
    }

    #[test]
    fn double_flips_in_a_header_are_never_mended() {
        let (bytes, place) = sample();
        for first in (0..HEADER_BYTES * 8).step_by(7) {
            for second in (first + 1..HEADER_BYTES * 8).step_by(5) {
                let mut bad = bytes.clone();
                bad[first / 8] ^= 1 << (first % 8);
                bad[second / 8] ^= 1 << (second % 8);
                assert_eq!(Header::decode(&bad, place, 64), None, "bits {first} and {second}");
                assert_eq!(Header::mend(&bad, place, 64), None, "bits {first} and {second}");
            }
        }
    }

    #[test]
    fn lengths_that_no_writer_makes_are_refused_whatever_the_checksum() {
        let place = Place::new(1, 1);
        let is_possible = |kind, value_len: usize| {
            let header = Header {
                kind,
                slot: 0,
                key_len: 1,
                value_len: u32::try_from(value_len).expect("short"),
                sequence: 1,
                fingerprint: 0,
                tag: 0,
                body_crc: 0,
            };
            let mut bytes = [0; HEADER_BYTES];
            bytes[32..40].copy_from_slice(&header.pack().to_le_bytes());
            bytes[8..16].copy_from_slice(&header.sequence.to_le_bytes());
            let sum = crc(place.seeds(0).header, &bytes[4..]);
            bytes[..4].copy_from_slice(&sum.to_le_bytes());
            Header::decode(&bytes, place, 0) == Some(header)
        };
        assert!(is_possible(Kind::Delete, 0) && !is_possible(Kind::Delete, 5), "a delete carries no value");
        for (kind, least) in [(Kind::Put, 0), (Kind::Expiring, 8), (Kind::Shrinking, 12)] {
            let most = least + MAX_VALUE_BYTES;
            assert!(is_possible(kind, least) && is_possible(kind, most) && !is_possible(kind, most + 1));
            assert!(least == 0 || !is_possible(kind, least - 1), "{kind:?}");
        }
    }
}
