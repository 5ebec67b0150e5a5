//! The chain: each segment's hash at its sealing, and each segment's going, one after the other in a file of their own,
//! every entry hashed together with all before it.
//!
//! Whoever remembers a head can later tell whether this is still the same history: nothing that it covers can be altered,
//! removed, reordered or cut off without another head coming out. The manifest says how long the chain is and
//! what its head is; the file is written first, so entries past that length are a crash's leftovers.

use crate::checksum::crc;
use crate::disk::{Disk, DiskError, DiskErrorKind, DiskFile};
use crate::read_around::read_around;
use crate::record::word;
use crate::segment::SegmentId;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;
use sha2::{Digest, Sha256};

/// The chain's file name.
pub(crate) const CHAIN: &str = "CHAIN";
/// Bytes of an entry.
pub(crate) const ENTRY_BYTES: usize = 96;
/// Bytes of an entry that its head covers.
const HASHED_BYTES: usize = 56;

/// SHA-256 of a segment's bytes, header included.
pub(crate) type SegmentHash = [u8; 32];

/// The head of a store's chain: a SHA-256 that stands for all sealed segments that the store ever had, in their order.
/// As text it is 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Head(pub [u8; 32]);

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The text is no [`Head`]: that has 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAHead;

impl fmt::Display for NotAHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a head has 64 hexadecimal digits")
    }
}

impl core::error::Error for NotAHead {}

impl FromStr for Head {
    type Err = NotAHead;

    fn from_str(text: &str) -> Result<Self, NotAHead> {
        let text = text.as_bytes();
        if text.len() != 64 {
            return Err(NotAHead);
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let mut head = [0; 32];
        for (byte, pair) in head.iter_mut().zip(text.chunks_exact(2)) {
            *byte = digit(pair[0]).zip(digit(pair[1])).map(|(high, low)| high << 4 | low).ok_or(NotAHead)?;
        }
        Ok(Self(head))
    }
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The segment was sealed: so many bytes, with this hash.
    Sealed { segment: SegmentId, len: u64, hash: SegmentHash },
    /// The segment's live records were copied elsewhere, and it went.
    Dropped { segment: SegmentId },
}

impl Event {
    fn encode(&self) -> [u8; HASHED_BYTES] {
        let mut out = [0; HASHED_BYTES];
        let (kind, segment) = match self {
            Self::Sealed { segment, len, hash } => {
                out[16..24].copy_from_slice(&len.to_le_bytes());
                out[24..].copy_from_slice(hash);
                (1, segment)
            }
            Self::Dropped { segment } => (2, segment),
        };
        out[0] = kind;
        out[8..16].copy_from_slice(&segment.0.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let segment = SegmentId(word(bytes, 8));
        match bytes[0] {
            1 => {
                let mut hash = [0; 32];
                hash.copy_from_slice(&bytes[24..HASHED_BYTES]);
                Some(Self::Sealed { segment, len: word(bytes, 16), hash })
            }
            2 => Some(Self::Dropped { segment }),
            _ => None,
        }
    }
}

/// The chain's end, and what is not written yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) entries: u64,
    pub(crate) head: Head,
    /// The last entries, to be written before the next manifest.
    pub(crate) pending: Vec<u8>,
}

impl Chain {
    /// The chain of a store that has sealed nothing yet.
    pub(crate) fn new(store: &[u8; 16]) -> Self {
        let first = Sha256::new().chain_update(b"gramme-store chain\n").chain_update(store);
        Self { entries: 0, head: Head(first.finalize().into()), pending: Vec::new() }
    }

    /// Adds an entry. It counts once the next manifest is saved.
    pub(crate) fn push(&mut self, event: &Event) {
        let entry = event.encode();
        self.head = Head(Sha256::new().chain_update(self.head.0).chain_update(entry).finalize().into());
        self.entries += 1;
        let start = self.pending.len();
        self.pending.extend_from_slice(&entry);
        self.pending.extend_from_slice(&self.head.0);
        let sum = crc(0, &self.pending[start..]);
        self.pending.extend_from_slice(&u64::from(sum).to_le_bytes());
    }

    /// Writes what is pending, durably. After an error it is pending still.
    pub(crate) fn save<D: Disk>(&mut self, disk: &D) -> Result<(), DiskError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let file = match disk.open(CHAIN) {
            Err(error) if error.kind() == DiskErrorKind::NotFound => {
                let file = disk.create(CHAIN, 0)?;
                // Not left to the manifest's sync: a crash may keep that one's name and lose this one.
                disk.sync_dir()?;
                file
            }
            opened => opened?,
        };
        let at = self.entries * ENTRY_BYTES as u64 - self.pending.len() as u64;
        file.write_at(at, &self.pending)?;
        file.sync_data()?;
        self.pending.clear();
        Ok(())
    }

    /// Whether the file ends as it should: cheap, and enough to go on writing to it.
    pub(crate) fn ends_soundly<D: Disk>(&self, disk: &D) -> Result<bool, DiskError> {
        let Some(last) = self.entries.checked_sub(1) else { return Ok(true) };
        let file = match disk.open(CHAIN) {
            Err(error) if error.kind() == DiskErrorKind::NotFound => return Ok(false),
            opened => opened?,
        };
        let mut entry = [0; ENTRY_BYTES];
        let read = read_around(&file, last * ENTRY_BYTES as u64, &mut entry, &mut |_, _| ())?;
        Ok(read == ENTRY_BYTES && Self::entry(&entry).is_some_and(|(_, head)| head == self.head))
    }

    fn entry(bytes: &[u8]) -> Option<(Event, Head)> {
        if u64::from(crc(0, &bytes[..88])) != word(bytes, 88) {
            return None;
        }
        let mut head = [0; 32];
        head.copy_from_slice(&bytes[HASHED_BYTES..88]);
        Some((Event::decode(bytes)?, Head(head)))
    }

    /// Reads the whole chain of this many entries and hashes it anew. `each` gets every entry with the head after it;
    /// answers the first entry that does not follow from those before it, if there is one.
    pub(crate) fn replay<D: Disk>(
        &self,
        disk: &D,
        store: &[u8; 16],
        mut each: impl FnMut(Event, Head),
    ) -> Result<Option<u64>, DiskError> {
        let mut chain = Self::new(store);
        if self.entries == 0 {
            return Ok((chain.head != self.head).then_some(0));
        }
        let file = match disk.open(CHAIN) {
            Err(error) if error.kind() == DiskErrorKind::NotFound => return Ok(Some(0)),
            opened => opened?,
        };
        let mut piece = vec![0; ENTRY_BYTES * 512];
        while chain.entries < self.entries {
            let at = chain.entries * ENTRY_BYTES as u64;
            let read = read_around(&file, at, &mut piece, &mut |_, _| ())?;
            let whole = piece[..read].chunks_exact(ENTRY_BYTES);
            if whole.len() == 0 {
                return Ok(Some(chain.entries));
            }
            for bytes in whole {
                if chain.entries == self.entries {
                    break;
                }
                let at = chain.entries;
                let Some((event, head)) = Self::entry(bytes) else { return Ok(Some(at)) };
                chain.push(&event);
                chain.pending.clear();
                if chain.head != head {
                    return Ok(Some(at));
                }
                each(event, head);
            }
        }
        Ok((chain.head != self.head).then_some(self.entries - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn heads_are_text_and_back() {
        let head = Chain::new(&[3; 16]).head;
        assert_eq!(head.to_string().parse(), Ok(head));
        assert_eq!(head.to_string().len(), 64);
        for wrong in ["", "00", &"g".repeat(64), &"0".repeat(63), &"é".repeat(32)] {
            assert_eq!(wrong.parse::<Head>(), Err(NotAHead), "{wrong}");
        }
    }

    #[test]
    fn the_order_counts() {
        let events = [
            Event::Sealed { segment: SegmentId(1), len: 9, hash: [1; 32] },
            Event::Sealed { segment: SegmentId(2), len: 9, hash: [1; 32] },
            Event::Dropped { segment: SegmentId(1) },
        ];
        let head = |order: [usize; 3]| {
            let mut chain = Chain::new(&[0; 16]);
            order.iter().for_each(|at| chain.push(&events[*at]));
            chain.head
        };
        assert_ne!(head([0, 1, 2]), head([1, 0, 2]));
        for event in events {
            assert_eq!(Event::decode(&event.encode()), Some(event));
        }
    }
}
