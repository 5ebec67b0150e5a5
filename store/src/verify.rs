//! Verification: everything that can be said of a store without changing it.

use crate::chain::{Chain, ENTRY_BYTES, Event, Head, SegmentHash};
use crate::checksum::Place;
use crate::disk::{Disk, DiskErrorKind, DiskFile};
use crate::error::OpenError;
use crate::index_file::{self, Subject};
use crate::leftovers::leftovers;
use crate::manifest::{Entry, Manifest};
use crate::open::load;
use crate::read_around::read_around;
use crate::record::{HEADER_BYTES, Header, Kind, MAX_SEGMENT_BYTES};
use crate::recovery::{Damage, DamageKind, Recovery};
use crate::replay::{Plan, Replay};
use crate::scan::{Found, Scan};
use crate::segment::SegmentId;
use crate::summary::{Hashes, Line, Source, Summary};
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use sha2::{Digest, Sha256};
use siphasher::sip::SipHasher13;

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// What an opening that reads everything would report, and with it what only a verification looks at: the segments' hashes
    /// and the chain.
    pub report: Recovery,
    /// The chain's head: to be remembered elsewhere, and handed to a later verification.
    pub head: Head,
    /// Segments that the head stands for. The others (written to since the last sealing) are vouched for by
    /// their records' checksums alone.
    pub sealed_segments: u64,
    /// The store was locked meanwhile. Otherwise it may be open, and what was found wrong may be what changed between two reads.
    pub locked: bool,
}

/// Reads all of a store and says what is wrong with it, without changing anything on the disk, not even what an opening
/// would mend.
///
/// Beyond what an opening sees it hashes every sealed segment and the chain, so that alterations show which
/// the checksums were made to agree with, and segments that were removed or reordered. With `remembered`, the head that an earlier verification
/// of this store gave, it also shows if the store was cut back to an earlier state or rewritten: that head must be in the chain.
///
/// It also compares with the records what is not under those hashes and decides what is found of them: the hash key and the
/// ranges without records that the manifest has, and the index files ([`DamageKind::Hidden`]). What an index file says for the [hash
/// tree](crate::Options::tree_key) is not compared, for its key is not known here: it can make two replicas look different, and
/// hides nothing.
///
/// A chain vouches for what was sealed. Compaction replaces segments, and someone who can write the directory can pretend
/// it did: against that only a head remembered *after* each compaction helps.
///
/// The disk is [locked](Disk::lock_to_read) meanwhile, if it can be by somebody who may not write to it, and [`Verified::locked`] says so.
///
/// # Errors
/// As for [`Store::open`](crate::Store::open), and [`OpenError::NoStore`] if there is none.
pub fn verify<D: Disk>(disk: &D, remembered: Option<Head>) -> Result<Verified, OpenError> {
    let lock = disk.lock_to_read()?;
    let names = disk.list()?;
    let Some((manifest, mut recovery)) = load(disk, &names)? else { return Err(OpenError::NoStore) };
    recovery.leftovers = leftovers(disk, &names, &manifest)?.names.len() as u64;
    let plan = Plan { fingerprint_mask: u64::MAX, tree_key: None, index_files: false, threads: 1 };
    let mut report = Replay::run(disk, &manifest, &plan, recovery, &mut |_| {})?.recovery;

    // Of those it has the first ones of segments; here all are looked for.
    report.damage.retain(|damage| damage.kind != DamageKind::Hidden);
    let hashes = Hashes { fingerprints: SipHasher13::new_with_key(&manifest.hash_key), tree: None };
    let mut sealed_segments = 0;
    for entry in &manifest.entries {
        check_records(disk, &manifest, entry, &hashes, &mut report)?;
        let Some(len) = entry.sealed else { continue };
        let Some(hash) = entry.hash else { continue };
        sealed_segments += 1;
        let (found, unreadable) = hash_of(disk, entry.id, len)?;
        if found != hash && unreadable.is_empty() {
            let kind = DamageKind::Altered;
            report.damage.push(Damage { segment: Some(entry.id), start: 0, end: len, kind });
        }
        // Of those that it refused just now, too, the report has most.
        for (start, end) in unreadable {
            let has = |damage: &Damage| {
                damage.segment == Some(entry.id) && damage.start < end && start < damage.end
            };
            if !report.damage.iter().any(has) {
                let kind = DamageKind::Unreadable;
                report.damage.push(Damage { segment: Some(entry.id), start, end, kind });
            }
        }
    }
    check_chain(disk, &manifest, remembered, &mut report)?;
    report.damage.sort_by_key(|damage| (damage.segment, damage.start));
    Ok(Verified { report, head: manifest.head, sealed_segments, locked: lock.is_some() })
}

/// A segment's hash, and the ranges that the disk refused to read for it.
fn hash_of<D: Disk>(
    disk: &D,
    segment: SegmentId,
    len: u64,
) -> Result<(SegmentHash, Vec<(u64, u64)>), OpenError> {
    let mut unreadable = Vec::new();
    let file = disk.open(&segment.file_name())?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    let mut at = 0;
    while at < len {
        let want = usize::try_from((len - at).min(1 << 20)).expect("a megabyte at most");
        let mut refused = |start, end| unreadable.push((start, end));
        let read = read_around(&file, at, &mut piece[..want], &mut refused)?;
        // Past the end of a file that was cut: sealing took it for zeros, too.
        let taken = if read == 0 { want } else { read };
        piece[read..taken].fill(0);
        hasher.update(&piece[..taken]);
        at += taken as u64;
    }
    Ok((hasher.finalize().into(), unreadable))
}

/// Goes through a segment's records and looks for what would keep an opening from finding them.
fn check_records<D: Disk>(
    disk: &D,
    manifest: &Manifest,
    entry: &Entry,
    hashes: &Hashes,
    report: &mut Recovery,
) -> Result<(), OpenError> {
    let limit = entry.sealed.unwrap_or(entry.capacity).min(MAX_SEGMENT_BYTES);
    let file = disk.open(&entry.id.file_name())?;
    // Torn ranges are gone through: what a crash tears is no record, wherever one begins to look.
    let scan = Scan::new(file, Place::new(entry.salt, entry.id.0), limit, Vec::new())?;
    let mut records = Records {
        scan,
        hashes,
        entry,
        summary: Summary::new(Source::Scan),
        next: None,
        ended: false,
        hidden: None,
        doubtful: Vec::new(),
    };
    records.scan.read_around();
    if let Some(len) = entry.sealed {
        check_index_file(disk, manifest, entry, len, &mut records, report)?;
    }
    while records.advance()?.is_some() {
        records.next = None;
    }
    // By the bounds in the manifest it is told which of two records of a key is newer.
    let bounds = (records.summary.first, records.summary.last);
    if entry.sealed.is_some() && bounds.0 <= bounds.1 && (bounds.0 < entry.first || bounds.1 > entry.last) {
        records.hide(0..limit);
    }
    if let Some(Range { start, end }) = records.hidden {
        report.damage.push(Damage { segment: Some(entry.id), start, end, kind: DamageKind::Hidden });
    }
    Ok(())
}

/// A segment's whole records, as they stand.
struct Records<'e, F> {
    scan: Scan<F>,
    hashes: &'e Hashes,
    entry: &'e Entry,
    summary: Summary,
    /// The next one, if it is known already.
    next: Option<Line>,
    ended: bool,
    /// From the first record that an opening would not see as it is to the last.
    hidden: Option<Range<u64>>,
    /// Places that hold no whole record, in order.
    doubtful: Vec<Range<u64>>,
}

impl<F: DiskFile> Records<'_, F> {
    /// The next record but watermarks; `None` at the end.
    fn advance(&mut self) -> Result<Option<Line>, OpenError> {
        while self.next.is_none() && !self.ended {
            let found = self.scan.next()?;
            if let Found::Record { offset, header, intact: true, mended: false } = &found {
                let end = offset + header.record_len() as u64;
                let body = &self.scan.bytes(*offset, header.record_len())[HEADER_BYTES..];
                let is_passed_over =
                    self.entry.torn.iter().any(|(from, to)| from < to && *from < end && offset < to);
                if is_passed_over || !is_under_its_fingerprint(header, body, self.hashes) {
                    self.hide(*offset..end);
                }
            }
            let known = self.summary.suspects.len();
            let next = &mut self.next;
            self.ended = !self.summary.take(&self.scan, found, self.hashes, |line| *next = Some(line));
            for suspect in &self.summary.suspects[known..] {
                self.doubtful.push(suspect.start..suspect.end);
            }
        }
        Ok(self.next)
    }

    fn hide(&mut self, range: Range<u64>) {
        let hidden = self.hidden.get_or_insert(range.clone());
        *hidden = hidden.start.min(range.start)..hidden.end.max(range.end);
    }

    /// Compares lines of an index file, in the order of the log, with the records.
    fn compare(&mut self, lines: &[Line]) -> Result<(), OpenError> {
        for line in lines {
            let offset = u64::from(line.unit) * 8;
            while let Some(next) = self.advance()?
                && next.unit < line.unit
            {
                self.hide(of_line(&next));
                self.next = None;
            }
            let next = self.next.filter(|next| next.unit == line.unit);
            if next.is_some() {
                self.next = None;
            }
            if next == Some(Line { key_hash: 0, ..*line }) {
                continue;
            }
            // It may know of records that have rotted since.
            let is_doubtful = self.doubtful.iter().any(|place| place.contains(&offset))
                || (self.ended && offset >= self.summary.read_to);
            if next.is_some() || !is_doubtful {
                self.hide(of_line(line));
            }
        }
        Ok(())
    }
}

fn of_line(line: &Line) -> Range<u64> {
    let start = u64::from(line.unit) * 8;
    start..start + line.size.bytes()
}

/// Whether a whole record is to be found by the key that it has. Compaction keeps deletes whose keys are damaged, with one zero for a key.
fn is_under_its_fingerprint(header: &Header, body: &[u8], hashes: &Hashes) -> bool {
    let key = &body[..header.key_len as usize];
    match header.kind {
        Kind::Delete if key == [0] => true,
        Kind::Put | Kind::Expiring | Kind::Shrinking | Kind::Delete => {
            hashes.fingerprints.hash(key) == header.fingerprint
        }
        Kind::DropSlot | Kind::Watermark | Kind::Lost => true,
    }
}

fn check_index_file<D: Disk>(
    disk: &D,
    manifest: &Manifest,
    entry: &Entry,
    len: u64,
    records: &mut Records<'_, D::File>,
    report: &mut Recovery,
) -> Result<(), OpenError> {
    let file = match disk.open(&index_file::file_name(entry.id)) {
        Err(error) if error.kind() == DiskErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let (store, segment, salt, hash) = (manifest.store, entry.id, entry.salt, entry.hash);
    let (first, last) = (entry.first, entry.last);
    let subject = Subject { store, segment, salt, len, hash, tree: 0, first, last };
    let mut compared = Ok(());
    let told = index_file::read(&file, &subject, &mut |batch| {
        let mut lines: Vec<Line> = batch.into_chunks().flat_map(|(_, chunk)| chunk).collect();
        lines.sort_unstable_by_key(|line| line.unit);
        compared = records.compare(&lines);
        compared.is_ok()
    });
    compared?;
    // An opening passes over one that can't be read, too.
    let Ok(Some(told)) = told else {
        report.bad_index_files += 1;
        return Ok(());
    };
    report.index_files += 1;
    // What it has no line of.
    while let Some(next) = records.advance()? {
        records.hide(of_line(&next));
        records.next = None;
    }
    let found = &records.summary;
    let bounds = |one: &Summary| (one.first, one.last, one.removals, one.watermark);
    if found.suspects.is_empty() && found.read_to == len && bounds(found) != bounds(&told) {
        records.hide(0..len);
    }
    Ok(())
}

/// The chain must follow from its beginning, lead to the manifest's head over the remembered one, and leave exactly the
/// segments that the manifest has.
fn check_chain<D: Disk>(
    disk: &D,
    manifest: &Manifest,
    remembered: Option<Head>,
    report: &mut Recovery,
) -> Result<(), OpenError> {
    let chain = Chain { entries: manifest.chain_entries, head: manifest.head, pending: Vec::new() };
    let mut met = remembered.is_none_or(|head| head == Chain::new(&manifest.store).head);
    let mut alive = BTreeMap::new();
    let broken = chain.replay(disk, &manifest.store, |event, head| {
        met |= remembered == Some(head);
        match event {
            Event::Sealed { segment, len, hash } => drop(alive.insert(segment, (len, hash))),
            Event::Dropped { segment } => drop(alive.remove(&segment)),
        }
    })?;
    if let Some(entry) = broken {
        let start = entry * ENTRY_BYTES as u64;
        let end = manifest.chain_entries * ENTRY_BYTES as u64;
        report.damage.push(Damage { segment: None, start, end, kind: DamageKind::Chain });
    } else {
        for entry in &manifest.entries {
            let known = alive.remove(&entry.id);
            // One that is in the chain has its hash in the manifest that counts the chain's entries.
            if (known.is_some() || entry.hash.is_some()) && known != entry.sealed.zip(entry.hash) {
                let end = entry.sealed.unwrap_or(0);
                report.damage.push(Damage {
                    segment: Some(entry.id),
                    start: 0,
                    end,
                    kind: DamageKind::Altered,
                });
            }
        }
        for (segment, (len, _)) in alive {
            report.damage.push(Damage {
                segment: Some(segment),
                start: 0,
                end: len,
                kind: DamageKind::Removed,
            });
        }
    }
    if !met {
        report.damage.push(Damage { segment: None, start: 0, end: 0, kind: DamageKind::HeadUnknown });
    }
    Ok(())
}
