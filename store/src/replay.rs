//! Reading the log back into an index, and judging what is damaged.

use crate::batch::Batch;
use crate::checksum::Place;
use crate::disk::{Disk, DiskErrorKind, DiskFile};
use crate::error::OpenError;
use crate::hash_key::{self, HEAD_BYTES, Witness};
use crate::hash_tree::{HashTree, TreeKey};
use crate::index_file::{self, Subject};
use crate::key_index::{KeyIndex, Location};
use crate::manifest::Manifest;
use crate::options::Options;
use crate::read_around::read_around;
use crate::record::{HEADER_BYTES, Header, Kind};
use crate::recount::count_anew;
use crate::recovery::{Damage, DamageKind, Progress, Recovery, Torn};
use crate::segment::{
    FORMAT, HeaderState, SEGMENT_HEADER_BYTES, Segment, SegmentHeader, SegmentId, SegmentKind,
};
use crate::segments::SegmentTable;
use crate::summarise::{Job, News, each_summary};
use crate::summary::{Fate, Hashes, Line, Source, Summary, Suspect};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use siphasher::sip::SipHasher13;

/// Lines are taken into the index together, once they take the room of so many: 40 MiB.
const PENDING_LINES: usize = if cfg!(test) { 1 << 13 } else { 1 << 20 };

/// What a replay needs to know.
pub(crate) struct Plan {
    pub(crate) fingerprint_mask: u64,
    pub(crate) tree_key: Option<[u8; 16]>,
    pub(crate) index_files: bool,
    pub(crate) threads: usize,
}

impl Plan {
    pub(crate) fn of(options: &Options) -> Self {
        Self {
            fingerprint_mask: options.fingerprint_mask,
            tree_key: options.tree_key,
            index_files: options.index_files,
            threads: options.open_threads,
        }
    }
}

/// The log being read back into an index.
pub(crate) struct Replay<'p, F> {
    pub(crate) segments: SegmentTable<F>,
    pub(crate) index: KeyIndex,
    pub(crate) recovery: Recovery,
    pub(crate) last_sequence: u64,
    /// The greatest (segment, offset) before which all was durable.
    pub(crate) watermark: (SegmentId, u64),
    /// The last sequence that was durable, by the same.
    pub(crate) durable: u64,
    pub(crate) tree: Option<HashTree>,
    /// Entries that the tree does not count: their keys are not known.
    pub(crate) uncounted: BTreeSet<(u16, u64)>,
    pub(crate) hashes: Hashes,
    /// Segments with a hash that the chain does not have yet.
    pub(crate) unchained: Vec<u16>,
    pub(crate) plan: &'p Plan,
    /// Records at the end of the log of whose headers one bit is to be set right on the disk: segments and offsets.
    pub(crate) to_mend: Vec<(u16, u64)>,
    suspects: Vec<(u16, Suspect)>,
    /// Segments that are not sealed and whose files are shorter than the room that is reserved for them, with their lengths.
    pub(crate) short: Vec<(u16, u64)>,
    /// The last sequences that the manifest knew of in segments that are not sealed.
    pub(crate) noted: BTreeMap<u16, u64>,
    /// Marks in the place of lost records, and their segments.
    lost: Vec<(u16, Line)>,
    /// What is not in the index yet: batches, each of one segment, in the order of the log.
    pub(crate) pending: Vec<(u16, Batch)>,
    /// The sequences of deletes, for puts that are read after them but were written before.
    pub(crate) deleted: BTreeMap<(u16, u64), u64>,
    pub(crate) dropped: BTreeMap<u16, u64>,
    /// Slots whose sum has to be made anew, from the keys on the disk.
    stale: BTreeSet<u16>,
}

impl<'p, F: DiskFile> Replay<'p, F> {
    pub(crate) fn run<D: Disk<File = F>>(
        disk: &D,
        manifest: &Manifest,
        plan: &'p Plan,
        recovery: Recovery,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Self, OpenError> {
        let hashes = Hashes {
            fingerprints: SipHasher13::new_with_key(&manifest.hash_key),
            tree: plan.tree_key.as_ref().map(TreeKey::new),
        };
        let mut replay = Self {
            segments: SegmentTable::new(),
            index: KeyIndex::default(),
            recovery,
            last_sequence: manifest.entries.iter().map(|entry| entry.last).max().unwrap_or(0),
            watermark: (SegmentId(0), 0),
            durable: 0,
            tree: hashes.tree.map(HashTree::new),
            uncounted: BTreeSet::new(),
            hashes,
            unchained: Vec::new(),
            plan,
            to_mend: Vec::new(),
            suspects: Vec::new(),
            short: Vec::new(),
            noted: BTreeMap::new(),
            lost: Vec::new(),
            pending: Vec::new(),
            deleted: BTreeMap::new(),
            dropped: BTreeMap::new(),
            stale: BTreeSet::new(),
        };
        replay.read_all(disk, manifest, progress)?;
        replay.settle()?;
        replay.recovery.keys = replay.index.len();
        for slot in core::mem::take(&mut replay.stale) {
            if let Some(tree) = &mut replay.tree {
                count_anew(
                    tree,
                    slot,
                    &replay.index,
                    &replay.segments,
                    &replay.hashes,
                    &mut replay.uncounted,
                )?;
            }
        }
        Ok(replay)
    }

    /// Reads all segments that the manifest names, those with the oldest records first.
    fn read_all<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        manifest: &Manifest,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), OpenError> {
        let mut order = Vec::with_capacity(manifest.entries.len());
        let (mut agrees, mut disagree) = (false, Vec::new());
        for entry in &manifest.entries {
            let file = disk.open(&entry.id.file_name()).map_err(|error| match error.kind() {
                DiskErrorKind::NotFound => OpenError::SegmentMissing { segment: entry.id },
                _ => OpenError::Disk(error),
            })?;
            let place = Place::new(entry.salt, entry.id.0);
            let mut head = [0; HEAD_BYTES];
            let read = read_around(&file, 0, &mut head, &mut |_, _| ())?;
            let base = match decode_header(&head[..read])? {
                HeaderState::Sound(header) => {
                    if header.store != manifest.store || header.id != entry.id || header.salt != entry.salt {
                        return Err(OpenError::SegmentForeign { segment: entry.id });
                    }
                    header.base
                }
                _ => {
                    // What its checksum does not vouch for, and what can't be read.
                    self.recovery.damage.push(Damage {
                        segment: Some(entry.id),
                        start: 0,
                        end: SEGMENT_HEADER_BYTES as u64,
                        kind: DamageKind::SegmentHeader,
                    });
                    0
                }
            };
            let subject = entry.sealed.filter(|_| self.plan.index_files).map(|len| Subject {
                store: manifest.store,
                segment: entry.id,
                salt: entry.salt,
                len,
                hash: entry.hash,
                tree: self.hashes.tree.map_or(0, |tree| tree.check()),
                first: entry.first,
                last: entry.last,
            });
            let mask = self.plan.fingerprint_mask;
            match hash_key::ask(&file, &head[..read], place, &self.hashes.fingerprints, mask)? {
                Witness::Agrees => agrees = true,
                Witness::Disagrees(at) => disagree.push((entry.id, at)),
                Witness::Silent => {}
            }
            let job = Job { entry, file, place, base, subject, index: None, index_is_bad: false };
            order.push((if entry.sealed.is_some() { entry.first } else { base }, job));
        }
        for (segment, at) in disagree {
            if !agrees {
                return Err(OpenError::HashKey { segment });
            }
            let (segment, kind) = (Some(segment), DamageKind::Hidden);
            self.recovery.damage.push(Damage { segment, start: at.start, end: at.end, kind });
        }
        order.sort_by_key(|(base, job)| (*base, job.entry.id));
        let (bases, jobs): (Vec<u64>, Vec<Job<'_, F>>) = order.into_iter().unzip();
        let mut state = Progress {
            segments: jobs.len() as u64,
            bytes: jobs.iter().map(|job| job.entry.sealed.unwrap_or(job.entry.capacity)).sum(),
            ..Progress::default()
        };
        let hashes = self.hashes;
        let open_index = |segment| disk.open(&index_file::file_name(segment));
        each_summary(&jobs, &hashes, self.plan.threads, &open_index, |at, news| {
            // Of a segment that is not sealed it is not known before its end what sequences it has.
            let is_sealed = jobs[at].entry.sealed.is_some();
            match news {
                News::Begins => {
                    if !is_sealed {
                        self.apply_pending()?;
                    }
                    self.begin_segment(&jobs[at])
                }
                News::Lines(number, batch) => {
                    self.pending.push((number, batch));
                    if self.pending.iter().map(|(_, batch)| batch.room()).sum::<usize>() >= PENDING_LINES {
                        self.apply_pending()?;
                        self.forget_deleted(bases[at]);
                    }
                    Ok(number)
                }
                News::Ends(number, summary) => {
                    if !is_sealed || at + 1 == jobs.len() {
                        self.apply_pending()?;
                    }
                    self.end_segment(number, &jobs[at], summary)?;
                    if self.pending.is_empty() {
                        self.forget_deleted(bases.get(at + 1).copied().unwrap_or(u64::MAX));
                    }
                    state.segments_done += 1;
                    state.bytes_done += jobs[at].entry.sealed.unwrap_or(jobs[at].entry.capacity);
                    progress(state);
                    Ok(number)
                }
            }
        })
    }

    /// Forgets deletes that are older than all that comes.
    fn forget_deleted(&mut self, after: u64) {
        // A place that was not whole may turn out to be a put that one of these deleted.
        if self.suspects.is_empty() {
            self.deleted.retain(|_, sequence| *sequence > after);
        }
    }

    fn begin_segment(&mut self, job: &Job<'_, F>) -> Result<u16, OpenError> {
        let entry = job.entry;
        let mut segment = Segment {
            salt: entry.salt,
            capacity: entry.capacity,
            tail: entry.sealed.unwrap_or(SEGMENT_HEADER_BYTES as u64),
            hash: entry.hash,
            finished: entry.sealed.is_some(),
            sealed: entry.sealed.is_some(),
            torn: entry.torn.clone(),
            ..Segment::new(entry.id, job.file.clone(), job.place, entry.kind)
        };
        if entry.sealed.is_some() {
            // What it was sealed with, and not what is left of it: its lines may yet come from its index file.
            (segment.first, segment.last) = (entry.first, entry.last);
        }
        self.segments
            .insert(segment)
            .ok_or(OpenError::Options("the store has more segments than it can number"))
    }

    fn end_segment(&mut self, number: u16, job: &Job<'_, F>, summary: Summary) -> Result<(), OpenError> {
        let entry = job.entry;
        let segment = &mut self.segments[number];
        // What can't be read may be as old as anything in it.
        if entry.sealed.is_none() && summary.suspects.iter().any(|suspect| suspect.unreadable) {
            segment.first = segment.first.min(job.base);
        }
        segment.removals += summary.removals;
        (segment.puts, segment.padding, segment.expiries) = (summary.puts, summary.padding, summary.expiries);
        segment.first = segment.first.min(summary.first);
        segment.last = segment.last.max(summary.last);
        // A segment that is not whole gets no index file, and keeps the one that may know what is gone.
        let is_short = entry.sealed.is_some_and(|due| summary.read_to < due) && !segment.may_end_early();
        let is_whole = entry.sealed.is_none() || (!is_short && summary.suspects.is_empty());
        segment.indexed = summary.source == Source::IndexFile || !is_whole;
        // It was hashed, and no manifest came to know. Not hashed anew: it may have rotted since.
        if entry.hash.is_none() && entry.sealed.is_some() && summary.hash.is_some() {
            segment.hash = summary.hash;
            self.unchained.push(number);
        }
        self.last_sequence = self.last_sequence.max(summary.last);
        self.watermark = self.watermark.max(summary.watermark);
        self.durable = self.durable.max(summary.durable);
        if entry.sealed.is_none() {
            segment.tail = summary.end.min(segment.capacity);
            let len = job.file.size()?;
            if len < segment.capacity {
                self.short.push((number, len));
            }
            self.noted.insert(number, entry.last);
        } else if is_short {
            let due = segment.tail;
            self.note_damage(number, summary.read_to, due, DamageKind::CutOff);
        }
        self.suspects.extend(summary.suspects.into_iter().map(|suspect| (number, suspect)));
        self.lost.extend(summary.lost.into_iter().map(|line| (number, line)));
        self.recovery.records += summary.records;
        self.recovery.bytes += summary.bytes_read;
        self.recovery.segments += 1;
        match summary.source {
            Source::Scan => {}
            Source::IndexFile => self.recovery.index_files += 1,
            Source::ScanForBadIndexFile => self.recovery.bad_index_files += 1,
        }
        Ok(())
    }

    pub(crate) fn note_damage(&mut self, number: u16, start: u64, end: u64, kind: DamageKind) {
        let segment = Some(self.segments[number].id);
        self.recovery.damage.push(Damage { segment, start, end, kind });
    }

    /// Judges the places that were not whole, now that the watermark is known.
    fn settle(&mut self) -> Result<(), OpenError> {
        let mut unread = Vec::new();
        for (number, suspect) in core::mem::take(&mut self.suspects) {
            let Suspect { start, end, fate, unreadable, is_last } = suspect;
            let segment = &mut self.segments[number];
            let (id, tail) = (segment.id, segment.tail);
            // A crash tears; it does not make a place unreadable, so that is not taken for its work.
            if !segment.sealed && (id, start) >= self.watermark && !unreadable {
                // All of a record with one wrong bit is there, and what is shown must be on the disk. A crash does that where it tears off
                // a sector's last bytes, a single bit in them, and leaves the rest of the record whole. A watermark has no body to tell.
                if let Fate::Mended(line) = &fate
                    && line.kind != Kind::Watermark
                {
                    self.to_mend.push((number, start));
                    self.recovery.torn.push(Torn { segment: id, start, end, slot: Some(line.slot) });
                    self.segments[number].tail = tail.max(end);
                    self.take(number, start, end, line)?;
                    continue;
                }
                // Never known to be durable. Later openings are not to take it for rot.
                if start < tail {
                    segment.torn.push((start, end.min(tail)));
                }
                // Where the log goes no further, others may have stood behind it.
                let slot = if let Fate::Headed(line) = &fate { Some(line.slot) } else { None };
                let slot = slot.filter(|_| !is_last);
                self.recovery.torn.push(Torn { segment: id, start, end, slot });
                continue;
            }
            // The segment keeps its damaged end, so that the next opening reports it again.
            segment.tail = tail.max(end.min(segment.capacity));
            let (kind, line) = match fate {
                Fate::Mended(line) => (DamageKind::Mended { slot: line.slot }, Some(line)),
                Fate::Headed(line) => (DamageKind::record(line.slot, line.sequence), Some(line)),
                Fate::Gone if unreadable => (DamageKind::Unreadable, None),
                Fate::Gone => (DamageKind::Unknown, None),
            };
            if kind == DamageKind::Unreadable && !segment.sealed {
                unread.push((number, end, (end - start) / HEADER_BYTES as u64 + 1));
            }
            self.note_damage(number, start, end, kind);
            if let Some(line) = line {
                // The index points to it even if its body is bad: a read finds it damaged, not absent.
                self.take(number, start, end, &line)?;
            }
        }
        // Sequences that may be in there are not used again: there may come a day when they can be read.
        self.last_sequence += unread.iter().map(|(_, _, records)| records).sum::<u64>();
        for (number, end, _) in unread {
            let segment = &mut self.segments[number];
            if end == segment.tail {
                segment.torn.push((end, end));
            }
            segment.last = segment.last.max(self.last_sequence);
        }
        let (id, durable) = self.watermark;
        // No record ends past the capacity, whatever a watermark says.
        let durable = self
            .segments
            .iter()
            .find(|(_, one)| one.id == id)
            .map_or(0, |(_, one)| durable.min(one.capacity))
            / 8
            * 8;
        let short = self.segments.iter().find(|(_, segment)| segment.id == id && segment.tail < durable);
        if let Some((number, segment)) = short
            && !segment.sealed
        {
            self.note_damage(number, segment.tail, durable, DamageKind::CutOff);
            self.segments[number].tail = durable;
        }
        self.look_for_cuts();
        self.tell_lost();
        self.recovery.damage.sort_by_key(|damage| (damage.segment, damage.start));
        Ok(())
    }

    /// Takes a record into the index whose place was not whole.
    fn take(&mut self, number: u16, start: u64, end: u64, line: &Line) -> Result<(), OpenError> {
        self.apply(number, line)?;
        let segment = &mut self.segments[number];
        if line.kind != Kind::Watermark {
            segment.note_sequence(line.sequence);
        }
        if matches!(line.kind, Kind::Delete | Kind::DropSlot) {
            segment.removals += end - start;
        }
        Ok(())
    }

    /// A record that was damaged stays so when compaction has left a mark in its place, until its key is put again or deleted.
    fn tell_lost(&mut self) {
        for (number, line) in core::mem::take(&mut self.lost) {
            let hit = self.index.get(line.slot, line.fingerprint & self.plan.fingerprint_mask);
            let location = Location { segment: number, unit: line.unit, size: line.size };
            if hit.is_some_and(|hit| hit.location == location) {
                let start = location.offset();
                let end = start + location.size.bytes();
                self.note_damage(number, start, end, DamageKind::record(line.slot, line.sequence));
            }
        }
    }

    /// Takes a record into the index. The highest sequence wins, in whatever order records come.
    pub(crate) fn apply(&mut self, number: u16, line: &Line) -> Result<(), OpenError> {
        let Line { slot, sequence, .. } = *line;
        self.last_sequence = self.last_sequence.max(sequence);
        let fingerprint = line.fingerprint & self.plan.fingerprint_mask;
        let key = (slot, fingerprint);
        match line.kind {
            Kind::Watermark => {
                self.watermark = self.watermark.max((SegmentId(line.fingerprint), line.tag));
                self.durable = self.durable.max(line.sequence);
            }
            Kind::Put | Kind::Expiring | Kind::Shrinking | Kind::Lost => {
                let dropped =
                    !self.dropped.is_empty() && self.dropped.get(&slot).is_some_and(|at| *at > sequence);
                let deleted =
                    !self.deleted.is_empty() && self.deleted.get(&key).is_some_and(|at| *at > sequence);
                if dropped || deleted {
                    return Ok(());
                }
                let location = Location { segment: number, unit: line.unit, size: line.size };
                let old = match self.index.set_new(slot, fingerprint, location, line.tag) {
                    Some(there) => {
                        if !self.is_newer(number, line, &there.location)? {
                            return Ok(());
                        }
                        self.index.set(slot, fingerprint, location, line.tag)
                    }
                    None => None,
                };
                self.segments.gain(location);
                if let Some(old) = &old {
                    self.segments.lose(old.location, 0);
                }
                if self.tree.is_some() {
                    self.uncount(key, line.key_hash, old.map(|old| old.tag));
                    self.count(key, line.key_hash, line.tag);
                }
            }
            Kind::Delete => {
                if let Some(hit) = self.index.get(slot, fingerprint)
                    && self.is_newer(number, line, &hit.location)?
                {
                    self.index.remove(slot, fingerprint);
                    self.segments.lose(hit.location, 0);
                    self.uncount(key, line.key_hash, Some(hit.tag));
                }
                let at = self.deleted.entry(key).or_insert(0);
                *at = sequence.max(*at);
            }
            Kind::DropSlot => {
                let at = self.dropped.entry(slot).or_insert(0);
                if *at > sequence {
                    // A later one removed all that this could, and what comes goes by that.
                    return Ok(());
                }
                *at = sequence;
                let mut removed = false;
                for hit in self.index.page(slot, 0, usize::MAX) {
                    if self.is_newer(number, line, &hit.location)? {
                        self.index.remove(slot, hit.fingerprint);
                        self.segments.lose(hit.location, 0);
                        self.uncounted.remove(&(slot, hit.fingerprint));
                        removed = true;
                    }
                }
                match &mut self.tree {
                    Some(tree) if self.index.slot_len(slot) == 0 => tree.clear(slot),
                    // Of what went only the key's hash would tell what to subtract.
                    Some(_) if removed => _ = self.stale.insert(slot),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    pub(crate) fn count(&mut self, key: (u16, u64), key_hash: u64, tag: u64) {
        let Some(tree) = &mut self.tree else { return };
        if key_hash == 0 {
            self.uncounted.insert(key);
        } else {
            tree.add(key.0, key_hash, tag);
        }
    }

    fn uncount(&mut self, key: (u16, u64), key_hash: u64, old: Option<u64>) {
        let (Some(tree), Some(old)) = (&mut self.tree, old) else { return };
        if self.uncounted.remove(&key) {
            return;
        }
        if key_hash == 0 {
            self.stale.insert(key.0);
        } else {
            tree.subtract(key.0, key_hash, old);
        }
    }

    /// Whether a line of segment `number` is newer than the record that the index points to.
    fn is_newer(&self, number: u16, line: &Line, there: &Location) -> Result<bool, OpenError> {
        let segment = &self.segments[there.segment];
        if there.segment == number && segment.kind == SegmentKind::Log {
            return Ok(line.unit > there.unit);
        }
        if there.segment != number {
            // Most often the segments' ranges tell.
            if line.sequence > segment.last {
                return Ok(true);
            }
            if line.sequence < segment.first {
                return Ok(false);
            }
        }
        let offset = there.offset();
        let mut bytes = [0; HEADER_BYTES];
        let read = read_around(&segment.file, offset, &mut bytes, &mut |_, _| ())?;
        let header = (read == HEADER_BYTES)
            .then(|| {
                Header::decode(&bytes, segment.place, offset)
                    .or_else(|| Header::mend(&bytes, segment.place, offset))
            })
            .flatten();
        // It was whole when its line was made. If it no longer is nobody knows which is newer: it stays, for a read of it says so.
        Ok(header.is_some_and(|header| line.sequence > header.sequence))
    }
}

pub(crate) fn read_header<F: DiskFile>(file: &F) -> Result<HeaderState, OpenError> {
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    let read = read_around(file, 0, &mut bytes, &mut |_, _| ())?;
    decode_header(&bytes[..read])
}

fn decode_header(bytes: &[u8]) -> Result<HeaderState, OpenError> {
    match SegmentHeader::decode(bytes) {
        HeaderState::NewerFormat(found) => Err(OpenError::NewerFormat { found, supported: FORMAT }),
        state => Ok(state),
    }
}
