//! What a segment holds, as the index wants it: one line for each record, from a scan of the segment or from its index
//! file. Summarising is the part of an opening that needs nothing but the file, so segments can be summarised side by side.

use crate::batch::Batch;
use crate::chain::SegmentHash;
use crate::checksum::Place;
use crate::disk::{DiskError, DiskFile};
use crate::expiry::Expiries;
use crate::hash_tree::TreeKey;
use crate::key_index::{FINGERPRINT_MASK, SizeClass};
use crate::manifest::Entry;
use crate::record::{HEADER_BYTES, Header, Kind, MAX_SEGMENT_BYTES};
use crate::scan::{Found, Scan};
use crate::segment::SegmentId;
use alloc::vec::Vec;
use siphasher::sip::SipHasher13;

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// The low 56 bits.
    pub(crate) fingerprint: u64,
    pub(crate) sequence: u64,
    pub(crate) tag: u64,
    /// The key's hash for the hash tree; 0 if there is no tree, or the key is not known.
    pub(crate) key_hash: u64,
    /// Where it is, in units of 8 bytes.
    pub(crate) unit: u32,
    pub(crate) slot: u16,
    pub(crate) kind: Kind,
    pub(crate) size: SizeClass,
}

/// A place that was not whole, to be judged when the watermark is known.
#[derive(Debug)]
pub(crate) struct Suspect {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) fate: Fate,
    /// The disk refused to read some of it.
    pub(crate) unreadable: bool,
    /// Its own end was not written, or is gone, and no record follows in the segment: nobody knows what else is gone.
    pub(crate) is_last: bool,
}

/// What is left of a record that was not whole.
#[derive(Debug)]
pub(crate) enum Fate {
    /// All of it: one bit of its header was wrong.
    Mended(Line),
    /// Its header.
    Headed(Line),
    /// Nothing to go by.
    Gone,
}

/// What a segment holds besides its lines.
#[derive(Debug)]
pub(crate) struct Summary {
    /// Whole records, watermarks included.
    pub(crate) records: u64,
    /// Bounds of the sequences in the lines. Empty: `first > last`.
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// Bytes of deletes and slot drops.
    pub(crate) removals: u64,
    /// Bytes of puts, and how many more their size classes have.
    pub(crate) puts: u64,
    pub(crate) padding: u64,
    pub(crate) expiries: Expiries,
    /// The greatest of its watermarks.
    pub(crate) watermark: (SegmentId, u64),
    /// The last sequence that was durable, by its watermarks; known from a scan only.
    pub(crate) durable: u64,
    pub(crate) suspects: Vec<Suspect>,
    /// The marks that compaction left for records that it could not copy.
    pub(crate) lost: Vec<Line>,
    /// Where the last record ends, or what a crash left between two.
    pub(crate) end: u64,
    /// Where the reading ended: at the segment's end, or before it if the file is too short.
    pub(crate) read_to: u64,
    pub(crate) bytes_read: u64,
    /// The hash that the segment had when its index file was made, if it has one.
    pub(crate) hash: Option<SegmentHash>,
    pub(crate) source: Source,
}

/// Where a summary comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Scan,
    IndexFile,
    /// There is an index file, and it is not to be believed: the segment was scanned.
    ScanForBadIndexFile,
}

impl Summary {
    pub(crate) const fn new(source: Source) -> Self {
        Self {
            records: 0,
            first: u64::MAX,
            last: 0,
            removals: 0,
            puts: 0,
            padding: 0,
            expiries: Expiries::new(),
            watermark: (SegmentId(0), 0),
            durable: 0,
            suspects: Vec::new(),
            lost: Vec::new(),
            end: crate::segment::SEGMENT_HEADER_BYTES as u64,
            read_to: 0,
            bytes_read: 0,
            hash: None,
            source,
        }
    }

    /// Takes down what a scan found next; `each` gets the lines of whole records. Answers whether there is more.
    pub(crate) fn take<F: DiskFile>(
        &mut self,
        scan: &Scan<F>,
        found: Found,
        hashes: &Hashes,
        mut each: impl FnMut(Line),
    ) -> bool {
        match found {
            Found::Searching => {}
            Found::End { offset } => {
                self.read_to = offset;
                self.bytes_read = scan.bytes_read;
                for suspect in &mut self.suspects {
                    suspect.is_last &= suspect.end >= self.end;
                }
                return false;
            }
            Found::Gap { start, end, trailing } => {
                if !trailing {
                    self.end = end;
                }
                let unreadable = scan.is_unreadable(start, end);
                self.suspects.push(Suspect { start, end, fate: Fate::Gone, unreadable, is_last: true });
            }
            Found::Record { offset, header, intact, mended } => {
                // Where the file ends before the record does, so does what is left of it.
                self.end = scan.position();
                self.records += u64::from(intact);
                if intact && !mended && header.kind == Kind::Watermark {
                    self.watermark = self.watermark.max((SegmentId(header.fingerprint), header.tag));
                    self.durable = self.durable.max(header.sequence);
                    return true;
                }
                let key = intact.then(|| {
                    &scan.bytes(offset, header.record_len())
                        [HEADER_BYTES..HEADER_BYTES + header.key_len as usize]
                });
                let line = hashes.line(offset, &header, key);
                if mended || !intact {
                    let fate = if mended { Fate::Mended(line) } else { Fate::Headed(line) };
                    let unreadable = scan.is_unreadable(offset, self.end);
                    if mended && line.kind == Kind::Lost {
                        self.lost.push(line);
                    }
                    let is_last = !intact && scan.has_blank_end(offset, &header);
                    self.suspects.push(Suspect { start: offset, end: self.end, fate, unreadable, is_last });
                } else {
                    self.note(&line, header.record_len());
                    if header.kind.has_term() {
                        let bytes = scan.bytes(offset, header.record_len());
                        let (key_len, has_tree) = (header.key_len as usize, hashes.tree.is_some());
                        self.expiries.note(header.term(bytes), bytes.len(), key_len, has_tree);
                    }
                    each(line);
                }
            }
        }
        true
    }

    fn note(&mut self, line: &Line, bytes: usize) {
        self.first = self.first.min(line.sequence);
        self.last = self.last.max(line.sequence);
        if matches!(line.kind, Kind::Delete | Kind::DropSlot) {
            self.removals += bytes as u64;
        } else {
            self.puts += bytes as u64;
            self.padding += line.size.bytes() - bytes as u64;
        }
        if line.kind == Kind::Lost {
            self.lost.push(*line);
        }
    }
}

/// The hashes that lines are made with.
#[derive(Clone, Copy)]
pub(crate) struct Hashes {
    pub(crate) fingerprints: SipHasher13,
    pub(crate) tree: Option<TreeKey>,
}

impl Hashes {
    /// The line of a record whose key is `key`, or not known.
    pub(crate) fn line(&self, offset: u64, header: &Header, key: Option<&[u8]>) -> Line {
        let key_hash = match (&self.tree, key, header.kind) {
            (Some(tree), Some(key), kind) if kind.is_put() => tree.key_hash(key),
            // Compaction keeps a delete whose key is damaged, under its fingerprint.
            (Some(tree), Some(key), Kind::Delete) if self.fingerprints.hash(key) == header.fingerprint => {
                tree.key_hash(key)
            }
            _ => 0,
        };
        Line {
            fingerprint: if header.kind == Kind::Watermark {
                header.fingerprint
            } else {
                header.fingerprint & FINGERPRINT_MASK
            },
            sequence: header.sequence,
            tag: header.tag,
            key_hash,
            unit: u32::try_from(offset / 8).expect("the scan's limit is in its reach"),
            slot: header.slot,
            kind: header.kind,
            size: SizeClass::of(header.record_len()),
        }
    }
}

/// Takes lines; answers whether more are wanted.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(Batch) -> bool;

/// Reads all records of a segment, around what the disk does not read.
pub(crate) fn scan<F: DiskFile>(
    file: F,
    place: Place,
    entry: &Entry,
    hashes: &Hashes,
    source: Source,
    sink: Sink<'_>,
) -> Result<Summary, DiskError> {
    let limit = entry.sealed.unwrap_or(entry.capacity).min(MAX_SEGMENT_BYTES);
    let mut scan = Scan::new(file, place, limit, entry.torn.clone())?;
    scan.read_around();
    let mut summary = Summary::new(source);
    let mut lines = Batch::new();
    loop {
        let found = scan.next()?;
        let more = summary.take(&scan, found, hashes, |line| lines.push(line));
        if !more {
            sink(lines);
            return Ok(summary);
        }
        if lines.is_full() && !sink(core::mem::replace(&mut lines, Batch::new())) {
            return Ok(summary);
        }
    }
}
