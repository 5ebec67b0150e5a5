//! Opening a store: reading the log back, judging what is damaged, and making what was found durable.

use crate::checksum::Place;
use crate::disk::{Disk, DiskErrorKind, DiskFile};
use crate::error::{OpenError, WriteError};
use crate::key_index::{KeyIndex, Location, SizeClass};
use crate::manifest::{Entry, MANIFEST, MANIFEST_NEXT, Manifest, derive};
use crate::options::Options;
use crate::record::{HEADER_BYTES, Header, Kind};
use crate::recovery::{Damage, DamageKind, Recovery, Torn};
use crate::scan::{Found, Scan};
use crate::segment::{
    FORMAT, HeaderState, SEGMENT_HEADER_BYTES, Segment, SegmentHeader, SegmentId, SegmentKind,
};
use crate::segments::{RESERVE, SegmentTable};
use crate::store::{Identity, Store};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;
use siphasher::sip::SipHasher13;

impl<D: Disk> Store<D> {
    /// Opens the store on a disk, or makes a new one on an empty disk.
    ///
    /// Reads the whole log. What was written before and found whole is durable when this returns, synced or not. On a full
    /// disk the store opens, and puts answer [`WriteError::NoSpace`] until there is room. The
    /// report says what was damaged; that is not an error, the rest can be used.
    ///
    /// # Errors
    /// As [`OpenError`] says; the segments are then as they were.
    pub fn open(disk: D, options: Options) -> Result<(Self, Recovery), OpenError> {
        options.check()?;
        let lock = disk.lock()?;
        let names = disk.list()?;
        let (manifest, recovery) = match load(&disk, &names)? {
            Some(found) => found,
            None => {
                let (store, hash_key) = (derive(&options.seed, 1), derive(&options.seed, 2));
                let entries = Vec::new();
                let empty =
                    Manifest { generation: 0, store, hash_key, next_segment: 1, clean: true, entries };
                // Before the first segment: segments without a manifest are a sign of loss.
                empty.save(&disk).map_err(crate::manifest::SaveError::disk)?;
                (empty, Recovery { created: true, clean: true, ..Recovery::default() })
            }
        };
        let leftovers = leftovers(&disk, &names, &manifest)?;

        let replay = Replay::run(&disk, &manifest, options.fingerprint_mask, recovery)?;
        let Replay { mut segments, index, mut recovery, last_sequence, watermark, .. } = replay;

        // What is about to be served must be as durable as what is about to be written.
        let mut empty = Vec::new();
        for number in segments.iter().map(|(number, _)| number).collect::<Vec<_>>() {
            let segment = &mut segments[number];
            segment.finished = true;
            if segment.is_empty() && !recovery.damage.iter().any(|damage| damage.segment == Some(segment.id))
            {
                segment.sealed = true;
                segment.listed = false;
                empty.push(number);
                continue;
            }
            // Reserved room that was never used, or that a crash kept from being given back.
            if segment.file.size()? > segment.tail {
                segment.file.truncate(segment.tail)?;
            }
            segment.trimmed = true;
            if !segment.sealed {
                write_again(segment, watermark)?;
                segment.file.sync_data()?;
                segment.sealed = true;
            }
        }
        recovery.leftovers = leftovers.len() as u64;
        for name in &leftovers {
            match disk.remove(name) {
                Err(error) if error.kind() != DiskErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        let identity = Identity {
            store: manifest.store,
            hash_key: manifest.hash_key,
            hasher: SipHasher13::new_with_key(&manifest.hash_key),
            generation: manifest.generation,
            next_segment: manifest.next_segment,
        };
        let mut store = Self {
            disk,
            _lock: lock,
            options,
            identity,
            segments,
            index,
            active: None,
            spare: None,
            rolled: Vec::new(),
            merge: None,
            starved: false,
            has_reserve: names.iter().any(|name| name == RESERVE),
            next_sequence: last_sequence + 1,
            durable: last_sequence,
            in_flight: None,
            syncs_begun: 0,
            poisoned: false,
            write_buffer: Vec::new(),
            read_buffer: Vec::new(),
        };
        store.begin_log(&empty)?;
        Ok((store, recovery))
    }

    /// Makes the segment that writes go to: never one that was recovered. On a full disk the store has none at first, and
    /// serves reads; the last manifest stands.
    fn begin_log(&mut self, empty: &[u16]) -> Result<(), OpenError> {
        match self.create_segment(self.options.segment_bytes) {
            Ok(active) => self.active = Some(active),
            Err(WriteError::NoSpace) => {
                self.starved = true;
                for number in empty {
                    self.segments[*number].listed = true;
                }
                return Ok(());
            }
            Err(WriteError::NewSegment(error) | WriteError::Disk(error)) => return Err(error.into()),
            Err(_) => return Err(OpenError::Options("the store has as many segments as it can number")),
        }
        for number in empty {
            if let Some(segment) = self.segments.remove(*number) {
                // No manifest names it; should this fail the next opening clears it away.
                let _ = self.disk.remove(&segment.id.file_name());
            }
        }
        Ok(())
    }

    /// Closes the store in good order: syncs, and notes that nothing is missing. A store that is dropped instead is
    /// recovered at the next opening, and loses nothing by it but what a power cut takes.
    ///
    /// # Errors
    /// [`WriteError`]: the sync or the note failed; the next opening recovers what there is.
    pub fn close(mut self) -> Result<(), WriteError> {
        self.sync()?;
        if self.in_flight.is_some() || self.durable + 1 != self.next_sequence {
            // A sync is still out. Without its end nothing can be said of the tail.
            return Ok(());
        }
        let mut last: Vec<u16> = self.active.into_iter().chain(self.spare).collect();
        last.extend(self.rolled.iter().copied());
        for number in last {
            let segment = &mut self.segments[number];
            segment.file.truncate(segment.tail).map_err(WriteError::Disk)?;
            segment.file.sync_data().map_err(WriteError::Disk)?;
            segment.finished = true;
        }
        self.save_manifest(true).map_err(|error| WriteError::Disk(error.disk()))
    }
}

/// Reads all of a store and says what an opening would find, without changing anything on the disk, not even what an
/// opening would mend.
///
/// The disk is locked meanwhile, unless it is one that can't be written at all.
///
/// # Errors
/// As for [`Store::open`], and [`OpenError::NoStore`] if there is none.
pub fn verify<D: Disk>(disk: &D) -> Result<Recovery, OpenError> {
    let _lock = match disk.lock() {
        Ok(lock) => Some(lock),
        Err(error) if matches!(error.kind(), DiskErrorKind::ReadOnly | DiskErrorKind::PermissionDenied) => {
            None
        }
        Err(error) => return Err(error.into()),
    };
    let names = disk.list()?;
    let Some((manifest, mut recovery)) = load(disk, &names)? else { return Err(OpenError::NoStore) };
    recovery.leftovers = leftovers(disk, &names, &manifest)?.len() as u64;
    Ok(Replay::run(disk, &manifest, u64::MAX, recovery)?.recovery)
}

/// The manifest and the beginning of a report; `None` if there is no store.
fn load<D: Disk>(disk: &D, names: &[String]) -> Result<Option<(Manifest, Recovery)>, OpenError> {
    match Manifest::load(disk)? {
        Some(found) => {
            let mut recovery = Recovery { clean: found.manifest.clean, ..Recovery::default() };
            recovery.created = found.manifest.next_segment == 1;
            for _ in 0..found.damaged_copies {
                recovery.damage.push(Damage { segment: None, start: 0, end: 0, kind: DamageKind::Manifest });
            }
            Ok(Some((found.manifest, recovery)))
        }
        None if names.iter().any(|name| SegmentId::of_file_name(name).is_some()) => {
            Err(OpenError::ManifestMissing)
        }
        None => Ok(None),
    }
}

/// Files that an interrupted step left behind. A segment that the manifest does not name yet holds records only if the
/// manifest is an old one: that is an error.
fn leftovers<D: Disk>(disk: &D, names: &[String], manifest: &Manifest) -> Result<Vec<String>, OpenError> {
    let mut leftovers = Vec::new();
    for name in names {
        if name == MANIFEST_NEXT {
            leftovers.push(name.clone());
        }
        let Some(id) = SegmentId::of_file_name(name) else { continue };
        if manifest.entries.iter().any(|entry| entry.id == id) {
            continue;
        }
        if id.0 >= manifest.next_segment && name != MANIFEST {
            let file = disk.open(name)?;
            if let HeaderState::Sound(header) = read_header(&file)?
                && header.store == manifest.store
                && header.kind == SegmentKind::Log
                && holds_a_record(&file, &header)?
            {
                return Err(OpenError::ManifestStale { segment: id });
            }
        }
        leftovers.push(name.clone());
    }
    Ok(leftovers)
}

/// Writes the part of a segment that is not known to be durable once more, as it reads. If the sync of it failed in the
/// process before, the operating system counts its pages as clean: a sync alone would succeed and write nothing.
fn write_again<F: DiskFile>(segment: &Segment<F>, watermark: (SegmentId, u64)) -> Result<(), OpenError> {
    let mut offset = match segment.id.cmp(&watermark.0) {
        Ordering::Less => return Ok(()),
        Ordering::Equal => watermark.1,
        Ordering::Greater => 0,
    };
    let mut piece = Vec::new();
    while offset < segment.tail {
        let len = (segment.tail - offset).min(1 << 20);
        piece.resize(usize::try_from(len).expect("a megabyte at most"), 0);
        let read = segment.file.read_at(offset, &mut piece)?;
        if read == 0 {
            break;
        }
        segment.file.write_at(offset, &piece[..read])?;
        offset += read as u64;
    }
    Ok(())
}

fn read_header<F: DiskFile>(file: &F) -> Result<HeaderState, OpenError> {
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    let read = file.read_at(0, &mut bytes)?;
    match SegmentHeader::decode(&bytes[..read]) {
        HeaderState::NewerFormat(found) => Err(OpenError::NewerFormat { found, supported: FORMAT }),
        state => Ok(state),
    }
}

fn holds_a_record<F: DiskFile>(file: &F, header: &SegmentHeader) -> Result<bool, OpenError> {
    let mut scan = Scan::new(file.clone(), Place::new(header.salt, header.id.0), u64::MAX, Vec::new())?;
    loop {
        match scan.next()? {
            Found::Record { .. } => return Ok(true),
            Found::Gap { trailing: false, .. } => {}
            Found::Gap { trailing: true, .. } | Found::End { .. } => return Ok(false),
        }
    }
}

/// A place that was not whole, to be judged when the watermark is known.
struct Suspect {
    segment: u16,
    start: u64,
    end: u64,
    fate: Fate,
}

/// What is left of a record that was not whole.
enum Fate {
    /// All of it: one bit of its header was wrong.
    Mended(Header),
    /// Its header.
    Headed(Header),
    /// Nothing to go by.
    Gone,
}

/// The log being read back into an index.
struct Replay<F> {
    segments: SegmentTable<F>,
    index: KeyIndex,
    recovery: Recovery,
    last_sequence: u64,
    fingerprint_mask: u64,
    /// The greatest (segment, offset) before which all was durable.
    watermark: (SegmentId, u64),
    suspects: Vec<Suspect>,
    /// The sequences of deletes, for puts that are read after them but were written before.
    deleted: BTreeMap<(u16, u64), u64>,
    dropped: BTreeMap<u16, u64>,
}

impl<F: DiskFile> Replay<F> {
    fn run<D: Disk<File = F>>(
        disk: &D,
        manifest: &Manifest,
        fingerprint_mask: u64,
        recovery: Recovery,
    ) -> Result<Self, OpenError> {
        let mut replay = Self {
            segments: SegmentTable::new(),
            index: KeyIndex::default(),
            recovery,
            last_sequence: manifest.entries.iter().map(|entry| entry.last).max().unwrap_or(0),
            fingerprint_mask,
            watermark: (SegmentId(0), 0),
            suspects: Vec::new(),
            deleted: BTreeMap::new(),
            dropped: BTreeMap::new(),
        };
        replay.read_all(disk, manifest)?;
        replay.settle()?;
        replay.recovery.keys = replay.index.len();
        Ok(replay)
    }

    /// Reads all segments that the manifest names, those with the oldest records first.
    fn read_all<D: Disk<File = F>>(&mut self, disk: &D, manifest: &Manifest) -> Result<(), OpenError> {
        let mut order = Vec::with_capacity(manifest.entries.len());
        for entry in &manifest.entries {
            let file = disk.open(&entry.id.file_name()).map_err(|error| match error.kind() {
                DiskErrorKind::NotFound => OpenError::SegmentMissing { segment: entry.id },
                _ => OpenError::Disk(error),
            })?;
            let base = match read_header(&file)? {
                HeaderState::Sound(header) => {
                    if header.store != manifest.store || header.id != entry.id || header.salt != entry.salt {
                        return Err(OpenError::SegmentForeign { segment: entry.id });
                    }
                    header.base
                }
                _ => {
                    self.recovery.damage.push(Damage {
                        segment: Some(entry.id),
                        start: 0,
                        end: SEGMENT_HEADER_BYTES as u64,
                        kind: DamageKind::SegmentHeader,
                    });
                    0
                }
            };
            order.push((if entry.sealed.is_some() { entry.first } else { base }, entry, file));
        }
        order.sort_by_key(|(base, entry, _)| (*base, entry.id));
        let mut bases: Vec<u64> = order.iter().map(|(base, ..)| *base).collect();
        bases.push(u64::MAX);
        for ((_, entry, file), after) in order.into_iter().zip(bases.into_iter().skip(1)) {
            self.read_segment(entry, file)?;
            // A place that was not whole may turn out to be a put that one of these deleted.
            if self.suspects.is_empty() {
                self.deleted.retain(|_, sequence| *sequence > after);
            }
        }
        Ok(())
    }

    fn read_segment(&mut self, entry: &Entry, file: F) -> Result<(), OpenError> {
        let place = Place::new(entry.salt, entry.id.0);
        let segment = Segment {
            id: entry.id,
            file: file.clone(),
            salt: entry.salt,
            place,
            kind: entry.kind,
            capacity: entry.capacity,
            tail: entry.sealed.unwrap_or(SEGMENT_HEADER_BYTES as u64),
            first: u64::MAX,
            last: 0,
            live: 0,
            removals: 0,
            quarantined: false,
            listed: true,
            trimmed: false,
            finished: entry.sealed.is_some(),
            sealed: entry.sealed.is_some(),
            torn: entry.torn.clone(),
        };
        let Ok(number) = self.segments.insert(segment) else {
            return Err(OpenError::Options("the store has more segments than it can number"));
        };
        let mut scan = Scan::new(file, place, entry.sealed.unwrap_or(entry.capacity), entry.torn.clone())?;
        let mut end = SEGMENT_HEADER_BYTES as u64;
        loop {
            match scan.next()? {
                Found::End { offset } => {
                    if !self.segments[number].sealed {
                        self.segments[number].tail = end;
                    } else if offset < self.segments[number].tail {
                        let due = self.segments[number].tail;
                        self.note_damage(number, offset, due, DamageKind::CutOff);
                    }
                    break;
                }
                Found::Gap { start, end: after, trailing } => {
                    if !trailing {
                        end = after;
                    }
                    self.suspects.push(Suspect { segment: number, start, end: after, fate: Fate::Gone });
                }
                Found::Record { offset, header, intact, mended } => {
                    let after = offset + header.record_len() as u64;
                    end = after;
                    self.recovery.records += u64::from(intact);
                    if mended || !intact {
                        let fate = if mended { Fate::Mended(header) } else { Fate::Headed(header) };
                        self.suspects.push(Suspect { segment: number, start: offset, end: after, fate });
                    } else {
                        self.apply(number, offset, &header)?;
                    }
                }
            }
        }
        self.recovery.bytes += scan.bytes_read;
        self.recovery.segments += 1;
        Ok(())
    }

    fn note_damage(&mut self, number: u16, start: u64, end: u64, kind: DamageKind) {
        let segment = Some(self.segments[number].id);
        self.recovery.damage.push(Damage { segment, start, end, kind });
    }

    /// Judges the places that were not whole, now that the watermark is known.
    fn settle(&mut self) -> Result<(), OpenError> {
        for suspect in core::mem::take(&mut self.suspects) {
            let Suspect { segment: number, start, end, fate } = suspect;
            let segment = &mut self.segments[number];
            let (id, tail) = (segment.id, segment.tail);
            if !segment.sealed && (id, start) >= self.watermark {
                // Never known to be durable. Later openings are not to take it for rot. What could be mended is left
                // out, too: it is whole only in memory, and what is shown must be on the disk.
                if start < tail {
                    segment.torn.push((start, end.min(tail)));
                }
                self.recovery.torn.push(Torn { segment: id, start, end });
                continue;
            }
            // The segment keeps its damaged end, so that the next opening reports it again.
            segment.tail = tail.max(end);
            let (kind, header) = match fate {
                Fate::Mended(header) => (DamageKind::Mended { slot: header.slot }, Some(header)),
                Fate::Headed(header) => (DamageKind::Record { slot: header.slot }, Some(header)),
                Fate::Gone => (DamageKind::Unknown, None),
            };
            self.note_damage(number, start, end, kind);
            if let Some(header) = header {
                // The index points to it even if its body is bad: a read finds it damaged, not absent.
                self.apply(number, start, &header)?;
            }
        }
        let (id, durable) = self.watermark;
        let short = self.segments.iter().find(|(_, segment)| segment.id == id && segment.tail < durable);
        if let Some((number, segment)) = short
            && !segment.sealed
        {
            self.note_damage(number, segment.tail, durable, DamageKind::CutOff);
            self.segments[number].tail = durable;
        }
        self.recovery.damage.sort_by_key(|damage| (damage.segment, damage.start));
        Ok(())
    }

    /// Takes a record into the index. The highest sequence wins, in whatever order records come.
    fn apply(&mut self, number: u16, offset: u64, header: &Header) -> Result<(), OpenError> {
        let sequence = header.sequence;
        self.last_sequence = self.last_sequence.max(sequence);
        let fingerprint = header.fingerprint & self.fingerprint_mask;
        let key = (header.slot, fingerprint & ((1 << 56) - 1));
        match header.kind {
            Kind::Watermark => {
                self.watermark = self.watermark.max((SegmentId(header.fingerprint), header.tag));
                return Ok(());
            }
            Kind::Put | Kind::Lost => {
                let location = Location {
                    segment: number,
                    unit: u32::try_from(offset / 8)
                        .map_err(|_| OpenError::Options("a segment is too long"))?,
                    size: SizeClass::of(header.record_len()),
                };
                let dropped = self.dropped.get(&header.slot).is_some_and(|at| *at > sequence);
                let deleted = self.deleted.get(&key).is_some_and(|at| *at > sequence);
                if !dropped && !deleted && self.is_newest(header.slot, fingerprint, sequence)? {
                    self.segments.gain(location);
                    if let Some(old) = self.index.set(header.slot, fingerprint, location, header.tag) {
                        self.segments.lose(old);
                    }
                }
            }
            Kind::Delete => {
                if self.is_newest(header.slot, fingerprint, sequence)?
                    && let Some(old) = self.index.remove(header.slot, fingerprint)
                {
                    self.segments.lose(old);
                }
                let at = self.deleted.entry(key).or_insert(0);
                *at = sequence.max(*at);
            }
            Kind::DropSlot => {
                for hit in self.index.page(header.slot, 0, usize::MAX) {
                    if self.is_newest(header.slot, hit.fingerprint, sequence)?
                        && let Some(old) = self.index.remove(header.slot, hit.fingerprint)
                    {
                        self.segments.lose(old);
                    }
                }
                let at = self.dropped.entry(header.slot).or_insert(0);
                *at = sequence.max(*at);
            }
        }
        let segment = &mut self.segments[number];
        if matches!(header.kind, Kind::Delete | Kind::DropSlot) {
            segment.removals += header.record_len() as u64;
        }
        // After the comparison, which goes by what the segment had before.
        segment.note_sequence(sequence);
        Ok(())
    }

    /// Whether `sequence` is greater than that of the record that the index has for this key.
    fn is_newest(&self, slot: u16, fingerprint: u64, sequence: u64) -> Result<bool, OpenError> {
        let Some(hit) = self.index.get(slot, fingerprint) else { return Ok(true) };
        let segment = &self.segments[hit.location.segment];
        // Most often the segments' ranges tell.
        if sequence > segment.last {
            return Ok(true);
        }
        if sequence < segment.first {
            return Ok(false);
        }
        let offset = hit.location.offset();
        let mut bytes = [0; HEADER_BYTES];
        let read = segment.file.read_at(offset, &mut bytes)?;
        let header = (read == HEADER_BYTES)
            .then(|| {
                Header::decode(&bytes, segment.place, offset)
                    .or_else(|| Header::mend(&bytes, segment.place, offset))
            })
            .flatten();
        // It was whole a moment ago. If it no longer is, the one at hand is all there is.
        Ok(header.is_none_or(|header| sequence > header.sequence))
    }
}
