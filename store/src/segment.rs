//! Segments: the files of the log.

use crate::chain::SegmentHash;
use crate::checksum::{Place, crc};
use crate::expiry::Expiries;
use crate::key_index::SizeClass;
use crate::record::{Kind, half, word};
use alloc::format;
use alloc::string::String;
use core::fmt;

/// Bytes before a segment's first record.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 64;
/// The version of segments and manifest that this crate writes, and the newest it reads.
pub(crate) const FORMAT: u16 = 4;

const MAGIC: &[u8; 8] = b"gramseg\n";
const SUFFIX: &str = ".seg";

/// A segment's number. Never used twice in one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl SegmentId {
    pub(crate) fn file_name(self) -> String {
        format!("{self}{SUFFIX}")
    }

    /// The id in a segment's file name; `None` for any other file.
    pub(crate) fn of_file_name(name: &str) -> Option<Self> {
        let digits = name.strip_suffix(SUFFIX)?;
        let id = u64::from_str_radix(digits, 16).ok()?;
        // Only our own spelling, so that two names can't mean one segment.
        (Self(id).file_name() == name).then_some(Self(id))
    }
}

/// Who wrote a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentKind {
    /// Writers, in the order of the sequences.
    Log = 1,
    /// Compaction, with the sequences of what it copied.
    Merged = 2,
}

impl SegmentKind {
    pub(crate) fn of_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Log),
            2 => Some(Self::Merged),
            _ => None,
        }
    }
}

/// The first bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) store: [u8; 16],
    pub(crate) id: SegmentId,
    pub(crate) salt: u64,
    pub(crate) kind: SegmentKind,
    /// No record in the segment has a smaller sequence.
    pub(crate) base: u64,
}

/// What stands where a segment header should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderState {
    Sound(SegmentHeader),
    NewerFormat(u16),
    Damaged,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = [0; SEGMENT_HEADER_BYTES];
        out[..8].copy_from_slice(MAGIC);
        out[8..10].copy_from_slice(&FORMAT.to_le_bytes());
        out[10] = self.kind as u8;
        out[16..32].copy_from_slice(&self.store);
        out[32..40].copy_from_slice(&self.id.0.to_le_bytes());
        out[40..48].copy_from_slice(&self.salt.to_le_bytes());
        out[48..56].copy_from_slice(&self.base.to_le_bytes());
        let sum = crc(0, &out[..60]);
        out[60..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// What any header of this store's segment with this id has, and where.
    pub(crate) fn known<'b>(store: &'b [u8; 16], id: &'b [u8; 8]) -> [(usize, &'b [u8]); 4] {
        [(0, MAGIC), (11, &[0; 5]), (16, store), (32, id)]
    }

    pub(crate) fn decode(bytes: &[u8]) -> HeaderState {
        if bytes.len() < SEGMENT_HEADER_BYTES
            || &bytes[..8] != MAGIC
            || crc(0, &bytes[..60]) != half(bytes, 60)
        {
            return HeaderState::Damaged;
        }
        let format = u16::from_le_bytes([bytes[8], bytes[9]]);
        if format > FORMAT {
            return HeaderState::NewerFormat(format);
        }
        let Some(kind) = SegmentKind::of_byte(bytes[10]) else { return HeaderState::Damaged };
        let mut store = [0; 16];
        store.copy_from_slice(&bytes[16..32]);
        HeaderState::Sound(Self {
            store,
            id: SegmentId(word(bytes, 32)),
            salt: word(bytes, 40),
            kind,
            base: word(bytes, 48),
        })
    }
}

/// A segment as the running store knows it.
#[derive(Clone, Debug)]
pub(crate) struct Segment<F> {
    pub(crate) id: SegmentId,
    pub(crate) file: F,
    pub(crate) salt: u64,
    pub(crate) place: Place,
    pub(crate) kind: SegmentKind,
    /// Where it must end; room for that much was reserved if the disk can.
    pub(crate) capacity: u64,
    /// Where the next record goes, or where the last one ended.
    pub(crate) tail: u64,
    /// Bounds of the sequences in it. Empty: `first > last`.
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// Bytes of records that the index points to, each rounded up to its size class.
    pub(crate) live: u64,
    /// Bytes of all puts that were written to it, and how many more their size classes have.
    pub(crate) puts: u64,
    pub(crate) padding: u64,
    /// When those of them expire or shrink that do.
    pub(crate) expiries: Expiries,
    /// Bytes of deletes and slot drops.
    pub(crate) removals: u64,
    /// The first write that made a record in it dead, at the latest; none yet: the greatest number, not known: zero.
    pub(crate) died: u64,
    /// The opening found damage in it.
    pub(crate) damaged: bool,
    /// Of that, places of which nobody knows what they held: it stays, so that each opening tells of them, until the caller
    /// has [accepted](crate::Store::accept_losses) what is lost.
    pub(crate) unaccounted: bool,
    /// Where, in order, the opening found records lost, and whether the caller has accepted that: it is merged away, then, and of what is lost nothing is kept.
    pub(crate) losses: alloc::vec::Vec<(u64, u64)>,
    pub(crate) accepted: bool,
    /// It holds a record that the index points to and that can't be found any more: it stays, so that this is not forgotten.
    pub(crate) quarantined: bool,
    /// The manifest names it, or will from its next version on.
    pub(crate) listed: bool,
    /// It was made of what is put aside for removals: other puts may not use it up.
    pub(crate) for_removals: bool,
    /// Reserved room past the tail has been given back.
    pub(crate) trimmed: bool,
    /// Nothing more will be written to it, and what was is durable.
    pub(crate) finished: bool,
    /// The manifest has its final length: everything before `tail` is durable and nothing comes after.
    pub(crate) sealed: bool,
    /// Of all its bytes, once it has been sealed and hashed.
    pub(crate) hash: Option<SegmentHash>,
    /// It has an index file, or is not to have one before the next opening.
    pub(crate) indexed: bool,
    /// It could not be read to be hashed; it is not tried again before the next opening.
    pub(crate) seal_failed: bool,
    /// It is being hashed and indexed; compaction leaves it alone meanwhile.
    pub(crate) sealing: bool,
    /// Ranges that hold no records: what a crash left of unsynced writes. An empty one at the end:
    /// [it may end early](Self::may_end_early).
    pub(crate) torn: alloc::vec::Vec<(u64, u64)>,
}

impl<F> Segment<F> {
    /// An empty segment that can be written to and that the manifest names.
    pub(crate) fn new(id: SegmentId, file: F, place: Place, kind: SegmentKind) -> Self {
        Self {
            id,
            file,
            salt: 0,
            place,
            kind,
            capacity: 0,
            tail: SEGMENT_HEADER_BYTES as u64,
            first: u64::MAX,
            last: 0,
            live: 0,
            puts: 0,
            padding: 0,
            expiries: Expiries::new(),
            removals: 0,
            died: u64::MAX,
            damaged: false,
            unaccounted: false,
            losses: alloc::vec::Vec::new(),
            accepted: false,
            quarantined: false,
            listed: true,
            for_removals: false,
            trimmed: false,
            finished: false,
            sealed: false,
            hash: None,
            indexed: false,
            seal_failed: false,
            sealing: false,
            torn: alloc::vec::Vec::new(),
        }
    }

    pub(crate) fn note_sequence(&mut self, sequence: u64) {
        self.first = self.first.min(sequence);
        self.last = self.last.max(sequence);
    }

    /// Counts a record that was written to it.
    pub(crate) fn note_record(&mut self, kind: Kind, len: u64, size: SizeClass) {
        match kind {
            Kind::Delete | Kind::DropSlot => self.removals += len,
            _ => {
                self.puts += len;
                self.padding += size.bytes() - len;
            }
        }
    }

    /// Bytes that stay of puts that the index points to and that have not expired, as far as is known; and with what the others may leave
    /// behind, at most.
    pub(crate) fn kept_puts(&self, now: u64) -> (u64, u64) {
        let live = self.live_puts();
        if self.damaged {
            return (live, live);
        }
        // What has expired may be dead as well, so that counts once.
        let past = self.expiries.past(now);
        let kept = self.puts.saturating_sub(past.goes);
        (live.min(kept), live.min(kept + past.may_stay))
    }

    /// Whether time has taken a half of it and more, and has not much more to take: a merge copies little, and would copy as much later.
    pub(crate) fn has_lapsed(&self, now: u64) -> bool {
        let (kept, _) = self.kept_puts(now);
        let [past, all] = [now, u64::MAX].map(|until| self.expiries.past(until).goes);
        !self.damaged && past > self.records() / 2 && all - past < kept / 2
    }

    /// Bytes of records after the header.
    pub(crate) fn records(&self) -> u64 {
        self.tail - SEGMENT_HEADER_BYTES as u64
    }

    /// Bytes of puts that the index points to, at most. Lengths are known of all puts together, and of those that are dead to within
    /// an eighth: a class has at most nine eighths of what is in it.
    pub(crate) fn live_puts(&self) -> u64 {
        let most = self.live.min(self.records());
        match (self.puts + self.padding).checked_sub(self.live) {
            Some(dead) if !self.damaged => most.min(self.puts.saturating_sub(dead - dead / 9)),
            // What is damaged was not counted as it was written.
            _ => most,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first > self.last
    }

    /// A removal before this write has nothing to remove here: what is here was written after it, or was still
    /// live after it.
    pub(crate) fn hides_from(&self) -> u64 {
        self.first.max(self.died)
    }

    /// Its end could not be read when it was sealed, so that nobody knew whether it had records up to there: an empty range says so.
    pub(crate) fn may_end_early(&self) -> bool {
        self.torn.last() == Some(&(self.tail, self.tail))
    }

    /// Whether all that is lost in this range was told and accepted.
    pub(crate) fn has_accepted(&self, start: u64, end: u64) -> bool {
        let begun = self.losses.partition_point(|told| told.0 <= start);
        self.accepted && begun > 0 && end <= self.losses[begun - 1].1
    }

    pub(crate) fn room(&self) -> u64 {
        self.capacity - self.tail
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Term;
    use alloc::vec::Vec;

    #[test]
    fn names_read_back_and_strangers_are_left_alone() {
        let id = SegmentId(0xfeed);
        assert_eq!(id.file_name(), "000000000000feed.seg");
        assert_eq!(SegmentId::of_file_name("000000000000feed.seg"), Some(id));
        for stranger in
            ["feed.seg", "000000000000FEED.seg", "+00000000000feed.seg", "notes.txt", ".seg", "MANIFEST"]
        {
            assert_eq!(SegmentId::of_file_name(stranger), None, "{stranger}");
        }
    }

    #[test]
    fn what_has_lapsed_is_told_once_waiting_gains_nothing() {
        // Of a tenth of the bytes nine in ten go at each of these moments.
        let lapsed = |moments: &[u64], now| {
            let mut segment = Segment::new(SegmentId(1), (), Place::new(1, 1), SegmentKind::Log);
            segment.tail += 4000;
            (segment.puts, segment.live) = (4000, 4000);
            moments.iter().for_each(|at| segment.expiries.note(Term::Shrinks(*at, 0), 400, 0, false));
            segment.has_lapsed(now)
        };
        assert!(!lapsed(&[5; 8], 4) && lapsed(&[5; 8], 5));
        assert!(!lapsed(&[5; 4], 5), "less than a half");
        let in_turn: Vec<u64> = (1..=9).collect();
        assert_eq!((0..10).find(|now| lapsed(&in_turn, *now)), Some(7), "until then much is to come");
        assert!(lapsed(&[1, 1, 1, 1, 1, 1, 1, 9], 1), "one in ten is to come");
    }

    #[test]
    fn a_header_reads_back_and_every_flip_is_seen() {
        let header =
            SegmentHeader { store: [7; 16], id: SegmentId(5), salt: 6, kind: SegmentKind::Merged, base: 8 };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), HeaderState::Sound(header));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::decode(&bad), HeaderState::Damaged, "bit {bit}");
        }
        assert_eq!(SegmentHeader::decode(&bytes[..63]), HeaderState::Damaged);
    }
}
