//! Index files: a sealed segment's lines in a file beside it, so that a start need not read the segment.
//!
//! They are a help and never the truth: one that is missing, cut short, damaged, stale or another segment's is passed
//! over, and the segment is scanned. That is why nothing about them has to be durable, and why a crash can't hurt them.

use crate::chain::SegmentHash;
use crate::checksum::{Place, crc};
use crate::disk::{Disk, DiskError, DiskErrorKind, DiskFile};
use crate::key_index::{FINGERPRINT_BITS, FINGERPRINT_MASK, SizeClass};
use crate::record::{Kind, MAX_NUMBER, MAX_SEGMENT_BYTES, half, word};
use crate::segment::{FORMAT, SEGMENT_HEADER_BYTES, SegmentId};
use crate::summary::{BATCH_LINES, Line, Sink, Source, Summary};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

const MAGIC: &[u8; 8] = b"gramidx\n";
const SUFFIX: &str = ".idx";
const HEADER_BYTES: usize = 160;
pub(crate) const LINE_BYTES: usize = 40;
/// Lines under one checksum.
pub(crate) const BLOCK_LINES: usize = 1024;
const BLOCK_BYTES: usize = BLOCK_LINES * LINE_BYTES + 8;

/// The name of a segment's index file.
pub(crate) fn file_name(segment: SegmentId) -> String {
    format!("{segment}{SUFFIX}")
}

/// The segment whose index file has this name.
pub(crate) fn segment_of_file_name(name: &str) -> Option<SegmentId> {
    let id = SegmentId(u64::from_str_radix(name.strip_suffix(SUFFIX)?, 16).ok()?);
    (file_name(id) == name).then_some(id)
}

/// What an index file must be of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject {
    pub(crate) store: [u8; 16],
    pub(crate) segment: SegmentId,
    pub(crate) salt: u64,
    /// Where the segment's last record ends.
    pub(crate) len: u64,
    /// The segment's hash, if it is known.
    pub(crate) hash: Option<SegmentHash>,
    /// What tells the key of the hash tree; 0 without a tree.
    pub(crate) tree: u64,
}

impl Subject {
    fn place(&self) -> Place {
        // Not the segment's own: a block is not to pass for a piece of the segment.
        Place::new(self.salt ^ u64::from_le_bytes(*MAGIC), self.segment.0)
    }
}

/// Writes an index file, block by block.
pub(crate) struct Writer<F> {
    file: F,
    place: Place,
    lines: u64,
    at: u64,
    block: Vec<u8>,
}

impl<F: DiskFile> Writer<F> {
    /// Makes the file, in the place of one that an interrupted sealing left.
    pub(crate) fn create<D: Disk<File = F>>(disk: &D, subject: &Subject) -> Result<Self, DiskError> {
        let name = file_name(subject.segment);
        match disk.remove(&name) {
            Err(error) if error.kind() != DiskErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.create(&name, 0)?;
        Ok(Self { file, place: subject.place(), lines: 0, at: HEADER_BYTES as u64, block: Vec::new() })
    }

    pub(crate) fn push(&mut self, line: &Line) -> Result<(), DiskError> {
        encode(line, &mut self.block);
        self.lines += 1;
        if self.block.len() == BLOCK_LINES * LINE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        if !self.block.is_empty() {
            let sum = crc(self.place.seeds(self.at).body, &self.block);
            self.block.extend_from_slice(&u64::from(sum).to_le_bytes());
            self.file.write_at(self.at, &self.block)?;
            self.at += self.block.len() as u64;
            self.block.clear();
        }
        Ok(())
    }

    /// Writes the header, with which the file comes into force, and syncs.
    pub(crate) fn finish(mut self, subject: &Subject, summary: &Summary) -> Result<(), DiskError> {
        self.flush()?;
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&u64::from(FORMAT).to_le_bytes());
        out.extend_from_slice(&subject.store);
        let (watermark, offset) = summary.watermark;
        let numbers = [subject.segment.0, subject.salt, subject.len, self.lines, summary.records];
        let more = [summary.first, summary.last, summary.removals, watermark.0, offset, subject.tree];
        for number in numbers.into_iter().chain(more) {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&subject.hash.unwrap_or_default());
        let sum = crc(self.place.seeds(0).header, &out);
        out.extend_from_slice(&u64::from(sum).to_le_bytes());
        debug_assert_eq!(out.len(), HEADER_BYTES, "as the format says");
        self.file.write_at(0, &out)?;
        self.file.sync_data()
    }
}

/// Fingerprint and size class, sequence, tag, key hash, unit, slot, kind, zero.
fn encode(line: &Line, out: &mut Vec<u8>) {
    let first = line.fingerprint & FINGERPRINT_MASK | u64::from(line.size.as_byte()) << FINGERPRINT_BITS;
    for number in [first, line.sequence, line.tag, line.key_hash] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&line.unit.to_le_bytes());
    out.extend_from_slice(&line.slot.to_le_bytes());
    out.extend_from_slice(&[line.kind as u8, 0]);
}

/// `None` for what no writer makes.
fn decode(bytes: &[u8; LINE_BYTES], len: u64) -> Option<Line> {
    let first = word(bytes, 0);
    let line = Line {
        fingerprint: first & FINGERPRINT_MASK,
        size: SizeClass::of_byte(bytes[7])?,
        sequence: word(bytes, 8),
        tag: word(bytes, 16),
        key_hash: word(bytes, 24),
        unit: half(bytes, 32),
        slot: u16::from_le_bytes([bytes[36], bytes[37]]),
        kind: Kind::of_byte(bytes[38]).filter(|kind| *kind != Kind::Watermark)?,
    };
    let offset = u64::from(line.unit) * 8;
    let makes_sense = offset >= SEGMENT_HEADER_BYTES as u64 && offset < len && line.sequence <= MAX_NUMBER;
    makes_sense.then_some(line)
}

/// Reads the index file of a segment. `Ok(None)`: it is not to be believed; the lines that the sink got are from blocks that
/// are.
pub(crate) fn read<F: DiskFile>(
    file: &F,
    subject: &Subject,
    sink: Sink<'_>,
) -> Result<Option<Summary>, DiskError> {
    let mut header = [0; HEADER_BYTES];
    if file.read_at(0, &mut header)? < HEADER_BYTES {
        return Ok(None);
    }
    let place = subject.place();
    let Some(lines) = check_header(&header, subject, place) else { return Ok(None) };
    let lines = usize::try_from(lines).unwrap_or(usize::MAX);
    let mut summary = Summary::new(Source::IndexFile);
    summary.records = word(&header, 64);
    (summary.first, summary.last) = (word(&header, 72), word(&header, 80));
    summary.removals = word(&header, 88);
    summary.watermark = (SegmentId(word(&header, 96)), word(&header, 104));
    summary.hash = header[120..152].try_into().ok();
    summary.end = subject.len;
    summary.read_to = subject.len;

    let mut at = HEADER_BYTES as u64;
    let mut left = lines;
    let mut piece = vec![0; BLOCK_BYTES * (lines.div_ceil(BLOCK_LINES)).min(16)];
    let mut batch = Vec::with_capacity(lines.min(BATCH_LINES));
    while left > 0 {
        let want = (left / BLOCK_LINES * BLOCK_BYTES
            + if left.is_multiple_of(BLOCK_LINES) { 0 } else { left % BLOCK_LINES * LINE_BYTES + 8 })
        .min(piece.len());
        if file.read_at(at, &mut piece[..want])? < want {
            return Ok(None);
        }
        for block in piece[..want].chunks(BLOCK_BYTES) {
            let (body, sum) = block.split_at(block.len() - 8);
            if u64::from(crc(place.seeds(at).body, body)) != word(sum, 0) {
                return Ok(None);
            }
            let (raw, _) = body.as_chunks::<LINE_BYTES>();
            for bytes in raw {
                let Some(line) = decode(bytes, subject.len) else { return Ok(None) };
                batch.push(line);
            }
            left -= raw.len();
            at += block.len() as u64;
            if batch.len() >= BATCH_LINES && !sink(core::mem::take(&mut batch)) {
                return Ok(Some(summary));
            }
        }
    }
    summary.bytes_read = at;
    sink(batch);
    Ok(Some(summary))
}

/// The number of lines, if the header is whole and of the very segment.
fn check_header(header: &[u8; HEADER_BYTES], subject: &Subject, place: Place) -> Option<u64> {
    let sum = u64::from(crc(place.seeds(0).header, &header[..HEADER_BYTES - 8]));
    let agrees = &header[..8] == MAGIC
        && word(header, HEADER_BYTES - 8) == sum
        && word(header, 8) == u64::from(FORMAT)
        && header[16..32] == subject.store
        && word(header, 32) == subject.segment.0
        && word(header, 40) == subject.salt
        && word(header, 48) == subject.len
        && subject.hash.is_none_or(|hash| header[120..152] == hash)
        // Without a tree the key hashes are of no interest.
        && (subject.tree == 0 || word(header, 112) == subject.tree);
    let lines = word(header, 56);
    // A record has at least as many bytes as its line.
    let (first, last, removals) = (word(header, 72), word(header, 80), word(header, 88));
    let makes_sense = (first > last || last <= MAX_NUMBER)
        && removals <= subject.len
        && word(header, 96) <= MAX_NUMBER
        && word(header, 104) <= MAX_SEGMENT_BYTES;
    (agrees && makes_sense && lines <= subject.len / LINE_BYTES as u64).then_some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_back() {
        let line = Line {
            fingerprint: FINGERPRINT_MASK,
            sequence: MAX_NUMBER,
            tag: 7,
            key_hash: 8,
            unit: 9,
            slot: 10,
            kind: Kind::DropSlot,
            size: SizeClass::of(40),
        };
        let mut bytes = Vec::new();
        encode(&line, &mut bytes);
        let bytes: [u8; LINE_BYTES] = bytes.try_into().expect("its length");
        assert_eq!(decode(&bytes, 1000), Some(line));
        assert_eq!(decode(&bytes, 72), None, "past the segment's end");
        let mut bad = bytes;
        bad[38] = 99;
        assert_eq!(decode(&bad, 1000), None, "no such kind");
    }
}
