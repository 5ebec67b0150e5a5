//! Index files: a sealed segment's lines in a file beside it, so that a start need not read the segment.
//!
//! They are a help and never the truth: one that is missing, cut short, damaged, stale or another segment's is passed
//! over, and the segment is scanned. That is why nothing about them has to be durable, and why a crash can't hurt them.

use crate::batch::Batch;
use crate::chain::SegmentHash;
use crate::checksum::{Place, crc};
use crate::disk::{Disk, DiskError, DiskErrorKind, DiskFile};
use crate::error::OpenError;
use crate::key_index::{FINGERPRINT_BITS, FINGERPRINT_MASK, SizeClass};
use crate::leftovers::begins_like;
use crate::read_around::read_full;
use crate::record::{self, Kind, MAX_NUMBER, MAX_SEGMENT_BYTES, half, word};
use crate::segment::{FORMAT, SEGMENT_HEADER_BYTES, SegmentId};
use crate::summary::{Line, Sink, Source, Summary};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

const MAGIC: &[u8; 8] = b"gramidx\n";
const SUFFIX: &str = ".idx";
const HEADER_BYTES: usize = 160;
/// The oldest version of the format with index files like these.
const OLDEST_FORMAT: u16 = 3;
/// Lines under one checksum.
const BLOCK_LINES: usize = 1024;
/// The longest line: every part is there, and as long as it gets.
const MAX_LINE_BYTES: usize = 8 + 1 + 2 + 5 + 10 + 1 + 8 + 8;
/// Before a block's lines: their bytes and their number. After them: the checksum.
const BLOCK_HEAD_BYTES: usize = 8;
const BLOCK_SUM_BYTES: usize = 8;
/// Bytes read at once: a few blocks, and no more than stays in the processor's cache.
const PIECE_BYTES: usize = 128 << 10;

/// The name of a segment's index file.
pub(crate) fn file_name(segment: SegmentId) -> String {
    format!("{segment}{SUFFIX}")
}

/// The segment whose index file has this name.
pub(crate) fn segment_of_file_name(name: &str) -> Option<SegmentId> {
    let id = SegmentId(u64::from_str_radix(name.strip_suffix(SUFFIX)?, 16).ok()?);
    (file_name(id) == name).then_some(id)
}

/// Whether an index file is this store's, whole or half made: its header comes last.
pub(crate) fn is_of_store<F: DiskFile>(file: &F, store: &[u8; 16]) -> Result<bool, OpenError> {
    begins_like(file, &[(0, MAGIC), (16, store)])
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
    /// Bounds of the sequences in it. Empty: `first > last`.
    pub(crate) first: u64,
    pub(crate) last: u64,
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
    /// Lines in the block, and what the next one is told apart from.
    in_block: u32,
    last: Last,
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
        let (place, at) = (subject.place(), HEADER_BYTES as u64);
        Ok(Self { file, place, lines: 0, at, block: Vec::new(), in_block: 0, last: Last::default() })
    }

    pub(crate) fn push(&mut self, line: &Line) -> Result<(), DiskError> {
        if self.in_block == 0 {
            self.block.extend_from_slice(&[0; BLOCK_HEAD_BYTES]);
        }
        encode(line, &mut self.last, &mut self.block);
        self.lines += 1;
        self.in_block += 1;
        if self.in_block as usize == BLOCK_LINES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        if self.in_block > 0 {
            let bytes = u32::try_from(self.block.len() - BLOCK_HEAD_BYTES).expect("lines are short");
            self.block[..4].copy_from_slice(&bytes.to_le_bytes());
            self.block[4..8].copy_from_slice(&self.in_block.to_le_bytes());
            let sum = crc(self.place.seeds(self.at).body, &self.block);
            self.block.extend_from_slice(&u64::from(sum).to_le_bytes());
            self.file.write_at(self.at, &self.block)?;
            self.at += self.block.len() as u64;
            self.block.clear();
            (self.in_block, self.last) = (0, Last::default());
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

/// What a line has in common with the one before it is not written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Last {
    unit: u32,
    sequence: u64,
}

/// Units before a segment's first record, and of the shortest record.
const FIRST_UNIT: u64 = SEGMENT_HEADER_BYTES as u64 / 8;
const LEAST_UNITS: u64 = record::HEADER_BYTES as u64 / 8;

// Of a line's flags: the low four bits are the tag's bytes, less leading zeros.
const HAS_KIND: u8 = 1 << 4;
const HAS_KEY_HASH: u8 = 1 << 5;
const HAS_SEQUENCE: u8 = 1 << 6;

fn encode(line: &Line, last: &mut Last, out: &mut Vec<u8>) {
    let first = line.fingerprint & FINGERPRINT_MASK | u64::from(line.size.as_byte()) << FINGERPRINT_BITS;
    let tag_bytes = 8 - line.tag.leading_zeros() as usize / 8;
    let step = line.sequence.wrapping_sub(last.sequence).wrapping_sub(1);
    let mut flags = tag_bytes.to_le_bytes()[0];
    let mut note = |wanted: bool, flag| flags |= if wanted { flag } else { 0 };
    note(line.kind != Kind::Put, HAS_KIND);
    note(line.key_hash != 0, HAS_KEY_HASH);
    note(step != 0, HAS_SEQUENCE);
    out.extend_from_slice(&first.to_le_bytes());
    out.push(flags);
    out.extend_from_slice(&line.slot.to_le_bytes());
    // Lines are in the order of the log.
    push_number(u64::from(line.unit.wrapping_sub(last.unit)), out);
    if step != 0 {
        // Signed, the sign last: compaction's outputs go back now and then.
        push_number(step << 1 ^ (step.cast_signed() >> 63).cast_unsigned(), out);
    }
    if line.kind != Kind::Put {
        out.push(line.kind as u8);
    }
    if line.key_hash != 0 {
        out.extend_from_slice(&line.key_hash.to_le_bytes());
    }
    out.extend_from_slice(&line.tag.to_le_bytes()[..tag_bytes]);
    *last = Last { unit: line.unit, sequence: line.sequence };
}

/// Seven bits to a byte, the lowest first; the top bit says that more come.
fn push_number(mut number: u64, out: &mut Vec<u8>) {
    while number > 0x7f {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// Reads lines out of a block. Eight bytes more than the lines have must be there.
struct Lines<'b> {
    bytes: &'b [u8],
    at: usize,
    last: Last,
    /// The unit that the next record begins at, at the earliest: records don't overlap.
    least: u64,
    /// By the header: which of two records is newer is told by that.
    sequences: RangeInclusive<u64>,
}

impl Lines<'_> {
    fn word(&mut self, used: usize) -> Option<u64> {
        let raw = self.bytes.get(self.at..self.at + 8)?;
        self.at += used;
        Some(word(raw, 0))
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    #[inline]
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    /// The next line, of a segment with `units`; `None` for what no writer makes.
    #[inline]
    fn next(&mut self, units: u64) -> Option<Line> {
        let first = self.word(8)?;
        let flags = self.byte()?;
        let slot = u16::from_le_bytes([self.byte()?, self.byte()?]);
        let unit = u64::from(self.last.unit).checked_add(self.number()?)?;
        let mut sequence = self.last.sequence.wrapping_add(1);
        if flags & HAS_SEQUENCE != 0 {
            let step = self.number()?;
            sequence = sequence.wrapping_add(step >> 1 ^ (step & 1).wrapping_neg());
        }
        let kind = if flags & HAS_KIND == 0 { Kind::Put } else { Kind::of_byte(self.byte()?)? };
        let key_hash = if flags & HAS_KEY_HASH == 0 { 0 } else { self.word(8)? };
        let tag_bytes = usize::from(flags & 0xf);
        let tag = match tag_bytes {
            0 => 0,
            1..=8 => self.word(tag_bytes)? & u64::MAX >> (64 - 8 * tag_bytes),
            _ => return None,
        };
        let size = SizeClass::of_byte(first.to_le_bytes()[7])?;
        let ends_inside = units.checked_sub(unit).is_some_and(|left| left >= LEAST_UNITS);
        if unit < self.least
            || !ends_inside
            || size.is_empty()
            || kind == Kind::Watermark
            || !self.sequences.contains(&sequence)
        {
            return None;
        }
        self.least = unit + LEAST_UNITS;
        let unit = u32::try_from(unit).ok()?;
        self.last = Last { unit, sequence };
        Some(Line { fingerprint: first & FINGERPRINT_MASK, size, sequence, tag, key_hash, unit, slot, kind })
    }
}

/// A file read from front to back, in pieces.
struct Pieces<'f, F> {
    file: &'f F,
    /// Where in the file the piece begins.
    start: u64,
    piece: Vec<u8>,
    /// What of the piece is read and not used yet.
    unused: core::ops::Range<usize>,
}

impl<F: DiskFile> Pieces<'_, F> {
    /// The next bytes, so many at least and at most a piece; `None` if the file ends before.
    fn see(&mut self, bytes: usize) -> Result<Option<&[u8]>, DiskError> {
        if self.unused.len() < bytes {
            self.piece.copy_within(self.unused.clone(), 0);
            self.start += self.unused.start as u64;
            self.unused = 0..self.unused.len();
            let into = &mut self.piece[self.unused.end..];
            self.unused.end += read_full(self.file, self.start + self.unused.end as u64, into)?;
        }
        Ok(if self.unused.len() < bytes { None } else { Some(&self.piece[self.unused.clone()]) })
    }

    /// Where the next bytes are.
    fn at(&self) -> u64 {
        self.start + self.unused.start as u64
    }
}

/// Reads the index file of a segment. `Ok(None)`: it is not to be believed; the lines that the sink got are from blocks that
/// are.
pub(crate) fn read<F: DiskFile>(
    file: &F,
    subject: &Subject,
    sink: Sink<'_>,
) -> Result<Option<Summary>, DiskError> {
    let mut header = [0; HEADER_BYTES];
    if read_full(file, 0, &mut header)? < HEADER_BYTES {
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

    let (mut left, mut least) = (lines, FIRST_UNIT);
    let piece =
        vec![0; PIECE_BYTES.min(lines.saturating_mul(MAX_LINE_BYTES) + BLOCK_HEAD_BYTES + BLOCK_SUM_BYTES)];
    let mut pieces = Pieces { file, start: HEADER_BYTES as u64, piece, unused: 0..0 };
    let mut batch = Batch::new();
    let mut classed = 0;
    while left > 0 {
        let Some(head) = pieces.see(BLOCK_HEAD_BYTES)? else { return Ok(None) };
        let (bytes, count) = (half(head, 0) as usize, half(head, 4) as usize);
        if count == 0 || count > left.min(BLOCK_LINES) || bytes > count * MAX_LINE_BYTES {
            return Ok(None);
        }
        let (at, total) = (pieces.at(), BLOCK_HEAD_BYTES + bytes + BLOCK_SUM_BYTES);
        let Some(block) = pieces.see(total)? else { return Ok(None) };
        let (body, sum) = block[..total].split_at(total - BLOCK_SUM_BYTES);
        if u64::from(crc(place.seeds(at).body, body)) != word(sum, 0) {
            return Ok(None);
        }
        let bytes_of_lines = &block[BLOCK_HEAD_BYTES..total];
        let sequences = summary.first..=summary.last;
        let mut from = Lines { bytes: bytes_of_lines, at: 0, last: Last::default(), least, sequences };
        for _ in 0..count {
            let Some(line) = from.next(subject.len / 8) else { return Ok(None) };
            match line.kind {
                Kind::Delete | Kind::DropSlot => {}
                kind => {
                    classed += line.size.bytes();
                    summary.expiries.unknown |= kind.has_term();
                    if kind == Kind::Lost {
                        summary.lost.push(line);
                    }
                }
            }
            batch.push(line);
        }
        if from.at != bytes {
            return Ok(None);
        }
        least = from.least;
        left -= count;
        pieces.unused.start += total;
        if batch.is_full() && !sink(core::mem::replace(&mut batch, Batch::new())) {
            return Ok(Some(summary));
        }
    }
    summary.bytes_read = pieces.at();
    // What is neither a removal nor a watermark. Of a segment with torn ranges that is more than all puts: of those it has few.
    let watermarks = summary.records.saturating_sub(lines as u64).saturating_mul(record::HEADER_BYTES as u64);
    let others = (SEGMENT_HEADER_BYTES as u64 + summary.removals).saturating_add(watermarks);
    summary.puts = subject.len.saturating_sub(others).min(classed);
    summary.padding = classed - summary.puts;
    sink(batch);
    Ok(Some(summary))
}

/// The number of lines, if the header is whole and of the very segment.
fn check_header(header: &[u8; HEADER_BYTES], subject: &Subject, place: Place) -> Option<u64> {
    let sum = u64::from(crc(place.seeds(0).header, &header[..HEADER_BYTES - 8]));
    let agrees = &header[..8] == MAGIC
        && word(header, HEADER_BYTES - 8) == sum
        && (u64::from(OLDEST_FORMAT)..=u64::from(FORMAT)).contains(&word(header, 8))
        && header[16..32] == subject.store
        && word(header, 32) == subject.segment.0
        && word(header, 40) == subject.salt
        && word(header, 48) == subject.len
        && subject.hash.is_none_or(|hash| header[120..152] == hash)
        // Without a tree the key hashes are of no interest.
        && (subject.tree == 0 || word(header, 112) == subject.tree);
    let lines = word(header, 56);
    let (first, last, removals) = (word(header, 72), word(header, 80), word(header, 88));
    let makes_sense = (first > last || (subject.first <= first && last <= subject.last.min(MAX_NUMBER)))
        && removals <= subject.len
        && word(header, 96) <= MAX_NUMBER
        && word(header, 104) <= MAX_SEGMENT_BYTES;
    // A record has a header at least.
    (agrees && makes_sense && lines <= subject.len / record::HEADER_BYTES as u64).then_some(lines)
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;
    use crate::mem_disk::MemDisk;

    #[test]
    fn lines_read_back() {
        let line = |unit, sequence, tag| Line {
            fingerprint: FINGERPRINT_MASK,
            sequence,
            tag,
            key_hash: 0,
            unit,
            slot: 10,
            kind: Kind::Put,
            size: SizeClass::of(160),
        };
        let lines = [
            line(8, MAX_NUMBER, 0),
            line(28, 0, 0xff),
            line(48, 1, 0x100),
            Line { kind: Kind::DropSlot, size: SizeClass::of(40), ..line(300, 1000, 1 << 63) },
            Line { key_hash: u64::MAX, slot: u16::MAX, ..line(u32::MAX, 3, u64::MAX) },
        ];
        let (mut bytes, mut last) = (Vec::new(), Last::default());
        let mut lens = Vec::new();
        for line in &lines {
            encode(line, &mut last, &mut bytes);
            lens.push(bytes.len());
        }
        assert_eq!(lens[2] - lens[1], 14, "a put that follows the last one, with a tag of two bytes");
        assert!(lens[4] - lens[3] <= MAX_LINE_BYTES);
        bytes.extend_from_slice(&[0xff; BLOCK_SUM_BYTES]);
        let read = |units| {
            let (last, sequences) = (Last::default(), 0..=MAX_NUMBER);
            let mut from = Lines { bytes: &bytes, at: 0, last, least: FIRST_UNIT, sequences };
            lines.iter().map_while(|_| from.next(units)).collect::<Vec<_>>()
        };
        assert_eq!(read(1 << 33), lines);
        assert_eq!(read(304), lines[..3], "past the segment's end");
    }

    #[test]
    fn what_no_writer_makes_is_refused() {
        let line = Line {
            fingerprint: 1,
            sequence: 2,
            tag: 3,
            key_hash: 0,
            unit: 9,
            slot: 10,
            kind: Kind::Delete,
            size: SizeClass::of(40),
        };
        let mut sound = Vec::new();
        encode(&line, &mut Last::default(), &mut sound);
        sound.extend_from_slice(&[0xff; BLOCK_SUM_BYTES]);
        let within = |bytes: &[u8], sequences| {
            Lines { bytes, at: 0, last: Last::default(), least: FIRST_UNIT, sequences }.next(1000)
        };
        let read = |bytes: &[u8]| within(bytes, 2..=2);
        assert_eq!(read(&sound), Some(line));
        assert_eq!(
            (within(&sound, 0..=1), within(&sound, 3..=MAX_NUMBER)),
            (None, None),
            "not by its header"
        );
        // Size class, tag bytes, position, kind.
        for (at, value) in [(7, 0), (7, 255), (8, 0x5f), (11, 1), (13, 4), (13, 99)] {
            let mut bad = sound.clone();
            bad[at] = value;
            assert_eq!(read(&bad), None, "{value} at {at}");
        }
        assert_eq!(read(&sound[..11]), None, "cut");
        assert_eq!(read(&[0xff; 64]), None, "a number without end");
    }

    #[test]
    fn records_that_overlap_are_refused_in_one_block_or_in_two() {
        let disk = MemDisk::new();
        let subject = Subject {
            store: [1; 16],
            segment: SegmentId(1),
            salt: 2,
            len: 1 << 20,
            hash: None,
            tree: 0,
            first: 2,
            last: 2,
        };
        for (before, step, believed) in
            [(0, 5, true), (0, 4, false), (0, 0, false), (1023, 5, true), (1023, 0, false)]
        {
            let mut writer = Writer::create(&disk, &subject).expect("room");
            let mut line = Line {
                fingerprint: 1,
                sequence: 2,
                tag: 0,
                key_hash: 0,
                unit: 8,
                slot: 1,
                kind: Kind::Put,
                size: SizeClass::of(40),
            };
            for _ in 0..before {
                writer.push(&line).expect("room");
                line.unit += 5;
            }
            writer.push(&line).expect("room");
            line.unit += step;
            writer.push(&line).expect("room");
            let summary = Summary { first: 2, last: 2, ..Summary::new(Source::Scan) };
            writer.finish(&subject, &summary).expect("room");
            let file = disk.open(&file_name(subject.segment)).expect("there");
            let believes =
                |subject: &Subject| read(&file, subject, &mut |_| true).expect("the disk is well").is_some();
            assert_eq!(believes(&subject), believed, "{step} units after {before} records");
            for (first, last) in [(3, 4), (1, 1)] {
                assert!(!believes(&Subject { first, last, ..subject }), "the manifest has {first} to {last}");
            }
        }
    }
}
