//! The manifest: which segments must exist, what is sealed in them, and who the store is.
//!
//! It is small, written anew for each change and put in place by a rename. The file holds it twice, so that one damaged
//! place costs nothing but a line in the recovery report. A segment enters the manifest before the first record enters
//! the segment, and leaves it before its file is removed.

use crate::chain::{Chain, Head, SegmentHash};
use crate::checksum::{crc, mix};
use crate::disk::{Disk, DiskError, DiskErrorKind, DiskFile};
use crate::error::OpenError;
use crate::read_around::read_around;
use crate::record::{MAX_NUMBER, MAX_SEGMENT_BYTES, half, word};
use crate::segment::{FORMAT, SEGMENT_HEADER_BYTES, SegmentId, SegmentKind};
use alloc::vec;
use alloc::vec::Vec;

/// The manifest's file name.
pub(crate) const MANIFEST: &str = "MANIFEST";
/// The next manifest, before it takes the first one's place.
pub(crate) const MANIFEST_NEXT: &str = "MANIFEST.next";

const MAGIC: &[u8; 8] = b"grammfst";
const HEAD_BYTES: usize = 128;
const ENTRY_BYTES: usize = 88;
/// The same in format 1, which had no chain.
const HEAD_BYTES_1: usize = 80;
const ENTRY_BYTES_1: usize = 56;
const GAP_BYTES: usize = 16;
/// Copies end at multiples of this, so that they share no sector.
const COPY_ALIGN: usize = 4096;
/// A file of as many would not fit into any file system.
const MAX_CHAIN_ENTRIES: u64 = 1 << 40;
/// More than a store can have: 65,535 segments with a few gaps each.
const MAX_COPY_BYTES: u64 = 64 << 20;

/// One segment in the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: SegmentId,
    pub(crate) salt: u64,
    pub(crate) kind: SegmentKind,
    pub(crate) capacity: u64,
    /// The end of its records, if it is sealed.
    pub(crate) sealed: Option<u64>,
    /// Bounds of its sequences, if it is sealed. Empty: `first > last`.
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// Of all bytes before its end, if it is sealed and was hashed.
    pub(crate) hash: Option<SegmentHash>,
    /// Ranges without records, left by a crash among unsynced writes.
    pub(crate) torn: Vec<(u64, u64)>,
}

impl Entry {
    fn makes_sense(&self) -> bool {
        let records = SEGMENT_HEADER_BYTES as u64..=MAX_SEGMENT_BYTES;
        records.contains(&self.capacity)
            && self.capacity.is_multiple_of(8)
            && self.sealed.is_none_or(|len| records.contains(&len) && len.is_multiple_of(8))
            && (self.first > self.last || self.last <= MAX_NUMBER)
            && self.torn.iter().all(|(start, end)| start <= end && *end <= MAX_SEGMENT_BYTES)
    }
}

/// Everything the manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) generation: u64,
    pub(crate) store: [u8; 16],
    /// The key of the fingerprints.
    pub(crate) hash_key: [u8; 16],
    /// No segment with this id or a greater one was ever listed.
    pub(crate) next_segment: u64,
    /// The store was closed in good order and not opened since.
    pub(crate) clean: bool,
    /// The length of the chain, and its head.
    pub(crate) chain_entries: u64,
    pub(crate) head: Head,
    pub(crate) entries: Vec<Entry>,
}

/// A manifest as found, and how many of its two copies were whole.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) manifest: Manifest,
    pub(crate) damaged_copies: u8,
}

impl Manifest {
    /// Bytes of a manifest with so many entries, and so many torn ranges in them.
    pub(crate) const fn file_bytes(entries: usize, gaps: usize) -> u64 {
        2 * Self::copy_bytes(entries, gaps) as u64
    }

    const fn copy_bytes(entries: usize, gaps: usize) -> usize {
        (HEAD_BYTES + entries * ENTRY_BYTES + gaps * GAP_BYTES + 4).next_multiple_of(COPY_ALIGN)
    }

    fn encode(&self) -> Vec<u8> {
        let gaps: usize = self.entries.iter().map(|entry| entry.torn.len()).sum();
        let size = Self::copy_bytes(self.entries.len(), gaps);
        let mut out = Vec::with_capacity(2 * size);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&u16::from(self.clean).to_le_bytes());
        out.extend_from_slice(&count(self.entries.len()).to_le_bytes());
        for number in [self.generation, self.next_segment, size as u64] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.store);
        out.extend_from_slice(&self.hash_key);
        out.extend_from_slice(&self.chain_entries.to_le_bytes());
        out.extend_from_slice(&self.head.0);
        out.extend_from_slice(&[0; 16]);
        for entry in &self.entries {
            let flags = u16::from(entry.sealed.is_some()) | u16::from(entry.hash.is_some()) << 1;
            let state = u16::from(entry.kind as u8) | flags << 8;
            out.extend_from_slice(&entry.id.0.to_le_bytes());
            out.extend_from_slice(&entry.salt.to_le_bytes());
            out.extend_from_slice(&entry.capacity.to_le_bytes());
            out.extend_from_slice(&entry.sealed.unwrap_or(0).to_le_bytes());
            out.extend_from_slice(&entry.first.to_le_bytes());
            out.extend_from_slice(&entry.last.to_le_bytes());
            out.extend_from_slice(&state.to_le_bytes());
            out.extend_from_slice(&[0; 2]);
            out.extend_from_slice(&count(entry.torn.len()).to_le_bytes());
            out.extend_from_slice(&entry.hash.unwrap_or_default());
            for (start, end) in &entry.torn {
                out.extend_from_slice(&start.to_le_bytes());
                out.extend_from_slice(&end.to_le_bytes());
            }
        }
        out.resize(size - 4, 0);
        let sum = crc(0, &out);
        out.extend_from_slice(&sum.to_le_bytes());
        out.extend_from_within(..);
        out
    }

    /// One copy. `Ok(None)`: damaged.
    fn decode(copy: &[u8]) -> Result<Option<Self>, OpenError> {
        if copy.len() < HEAD_BYTES_1 + 4 || &copy[..8] != MAGIC {
            return Ok(None);
        }
        let (body, sum) = copy.split_at(copy.len() - 4);
        if crc(0, body) != half(sum, 0) || word(copy, 32) != copy.len() as u64 {
            return Ok(None);
        }
        let found = u16::from_le_bytes([copy[8], copy[9]]);
        if found > FORMAT {
            return Err(OpenError::NewerFormat { found, supported: FORMAT });
        }
        Ok(Self::decode_body(body, found))
    }

    fn decode_body(body: &[u8], format: u16) -> Option<Self> {
        let (head_bytes, entry_bytes) =
            if format == 1 { (HEAD_BYTES_1, ENTRY_BYTES_1) } else { (HEAD_BYTES, ENTRY_BYTES) };
        let mut store = [0; 16];
        let mut hash_key = [0; 16];
        store.copy_from_slice(&body[40..56]);
        hash_key.copy_from_slice(&body[56..72]);
        let mut rest = body.get(head_bytes..)?;
        let listed = half(body, 12) as usize;
        // Checked before memory is taken: the entries must fit into what was read.
        if listed > rest.len() / entry_bytes {
            return None;
        }
        let mut entries = Vec::with_capacity(listed);
        for _ in 0..listed {
            let (entry, after) = rest.split_at_checked(entry_bytes)?;
            let gaps = half(entry, 52) as usize;
            let (ranges, after) = after.split_at_checked(gaps.checked_mul(GAP_BYTES)?)?;
            rest = after;
            let entry = Entry {
                id: SegmentId(word(entry, 0)),
                salt: word(entry, 8),
                kind: SegmentKind::of_byte(entry[48])?,
                capacity: word(entry, 16),
                sealed: (entry[49] & 1 == 1).then_some(word(entry, 24)),
                first: word(entry, 32),
                last: word(entry, 40),
                hash: (entry[49] & 2 == 2 && format > 1).then(|| hash_at(entry, ENTRY_BYTES_1)),
                torn: ranges.chunks_exact(GAP_BYTES).map(|gap| (word(gap, 0), word(gap, 8))).collect(),
            };
            if !entry.makes_sense() {
                return None;
            }
            entries.push(entry);
        }
        let chain = match format {
            1 => Chain::new(&store),
            _ => Chain { entries: word(body, 72), head: Head(hash_at(body, 80)), pending: Vec::new() },
        };
        let (generation, next_segment) = (word(body, 16), word(body, 24));
        // The checksum says that nobody changed it by accident, not that it makes sense.
        let ids = entries.windows(2).all(|pair| pair[0].id < pair[1].id)
            && entries.last().is_none_or(|entry| entry.id.0 < next_segment);
        if !ids || generation.max(next_segment) > MAX_NUMBER || chain.entries > MAX_CHAIN_ENTRIES {
            return None;
        }
        Some(Self {
            chain_entries: chain.entries,
            head: chain.head,
            generation,
            next_segment,
            clean: body[10] & 1 == 1,
            store,
            hash_key,
            entries,
        })
    }

    /// Reads the manifest; `None` if there is none.
    pub(crate) fn load<D: Disk>(disk: &D) -> Result<Option<Found>, OpenError> {
        let file = match disk.open(MANIFEST) {
            Ok(file) => file,
            Err(error) if error.kind() == DiskErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let size = file.size()?;
        if size > 2 * MAX_COPY_BYTES {
            return Err(OpenError::ManifestDamaged);
        }
        let mut bytes = vec![0; usize::try_from(size).map_err(|_| OpenError::ManifestDamaged)?];
        let read = read_around(&file, 0, &mut bytes, &mut |_, _| ())?;
        bytes.truncate(read);
        // Each copy names its own length, so a file that was cut or extended still gives up a whole copy.
        let (first, second) = bytes.split_at(bytes.len() / 2 / COPY_ALIGN * COPY_ALIGN);
        let (first, second) = (Self::decode(first)?, Self::decode(second)?);
        let damaged_copies = u8::from(first.is_none()) + u8::from(second.is_none());
        let newest = match (first, second) {
            (Some(first), Some(second)) if second.generation > first.generation => Some(second),
            (Some(first), _) => Some(first),
            (None, second) => second,
        };
        match newest {
            Some(manifest) => Ok(Some(Found { manifest, damaged_copies })),
            None => Err(OpenError::ManifestDamaged),
        }
    }

    /// Puts this manifest in the place of the last one, durably.
    pub(crate) fn save<D: Disk>(&self, disk: &D) -> Result<(), SaveError> {
        if let Err(error) = self.write_next(disk) {
            // On a full disk the part of it that was written is in the way.
            let _ = disk.remove(MANIFEST_NEXT);
            return Err(SaveError::Unchanged(error));
        }
        match disk.rename(MANIFEST_NEXT, MANIFEST) {
            Ok(()) => disk.sync_dir().map_err(SaveError::Unknown),
            Err(error) if error.kind() == DiskErrorKind::NoSpace => Err(SaveError::Unchanged(error)),
            Err(error) => Err(SaveError::Unknown(error)),
        }
    }

    fn write_next<D: Disk>(&self, disk: &D) -> Result<(), DiskError> {
        match disk.remove(MANIFEST_NEXT) {
            Err(error) if error.kind() != DiskErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let bytes = self.encode();
        let file = disk.create(MANIFEST_NEXT, 0)?;
        file.write_at(0, &bytes)?;
        file.sync_data()
    }
}

/// Why a manifest was not saved.
#[derive(Debug)]
pub(crate) enum SaveError {
    /// The last manifest stands.
    Unchanged(DiskError),
    /// Either may stand after a power cut.
    Unknown(DiskError),
}

impl SaveError {
    pub(crate) fn disk(self) -> DiskError {
        let (Self::Unchanged(error) | Self::Unknown(error)) = self;
        error
    }
}

fn hash_at(bytes: &[u8], at: usize) -> SegmentHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(&bytes[at..at + 32]);
    hash
}

fn count(len: usize) -> u32 {
    u32::try_from(len).expect("far fewer segments and gaps than that")
}

/// Sixteen bytes out of a seed, different for each purpose.
pub(crate) fn derive(seed: &[u8; 16], purpose: u64) -> [u8; 16] {
    let mut out = [0; 16];
    for (index, half) in out.chunks_exact_mut(8).enumerate() {
        half.copy_from_slice(&derive_word(seed, mix(purpose).wrapping_add(index as u64)).to_le_bytes());
    }
    out
}

/// One word out of a seed.
pub(crate) fn derive_word(seed: &[u8; 16], purpose: u64) -> u64 {
    siphasher::sip::SipHasher24::new_with_key(seed).hash(&purpose.to_le_bytes())
}
