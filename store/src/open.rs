//! Opening a store: reading the log back, judging what is damaged, and making what was found durable.

use crate::chain::{Chain, Event};
use crate::disk::{Disk, DiskErrorKind, DiskFile};
use crate::error::{OpenError, WriteError};
use crate::leftovers::{is_free, leftovers};
use crate::manifest::{Manifest, derive};
use crate::options::Options;
use crate::read_around::{read_around, read_full};
use crate::record::{HEADER_BYTES, Header, MAX_OPENED_NUMBER};
use crate::recount::Recounts;
use crate::recovery::{Damage, DamageKind, Progress, Recovery};
use crate::replay::{Plan, Replay};
use crate::segment::{Segment, SegmentId};
use crate::segments::is_short_of_numbers;
use crate::store::{Identity, Pending, Store};
use crate::sync::next_opening;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;

impl<D: Disk> Store<D> {
    /// Opens the store on a disk, or makes a new one on an empty disk.
    ///
    /// Reads the index files of sealed segments, and the whole of those that have none. What was written before and found whole is durable when this returns, synced or not. On a full
    /// disk the store opens, and puts answer [`WriteError::NoSpace`] until there is room; so it does where the process may open no file more, or
    /// the store has as many segments as it can number. The
    /// report says what was damaged; that is not an error, the rest can be used.
    ///
    /// # Errors
    /// As [`OpenError`] says; the segments are then as they were.
    pub fn open(disk: D, options: Options) -> Result<(Self, Recovery), OpenError> {
        Self::open_with(disk, options, |_| {})
    }

    /// [Opens](Self::open) a store and reports progress meanwhile, once for each segment that is taken in.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_with(
        disk: D,
        options: Options,
        mut progress: impl FnMut(Progress),
    ) -> Result<(Self, Recovery), OpenError> {
        options.check()?;
        let lock = disk.lock()?;
        let names = disk.list()?;
        let (manifest, recovery) = match load(&disk, &names)? {
            Some(found) => found,
            None => {
                let (store, hash_key) = (derive(&options.seed, 1), derive(&options.seed, 2));
                let entries = Vec::new();
                let Chain { entries: chain_entries, head, .. } = Chain::new(&store);
                let empty = Manifest {
                    generation: 0,
                    store,
                    hash_key,
                    next_segment: 1,
                    clean: true,
                    chain_entries,
                    head,
                    entries,
                };
                // Before the first segment: segments without a manifest are a sign of loss.
                empty.save(&disk).map_err(crate::manifest::SaveError::disk)?;
                (empty, Recovery { created: true, clean: true, ..Recovery::default() })
            }
        };
        let leftovers = leftovers(&disk, &names, &manifest)?;

        let mut chain = Chain { entries: manifest.chain_entries, head: manifest.head, pending: Vec::new() };
        let chain_is_sound = chain.ends_soundly(&disk)?;

        let plan = Plan::of(&options);
        let replay = Replay::run(&disk, &manifest, &plan, recovery, &mut progress)?;
        let short_ends = replay.short_ends();
        let Replay {
            mut segments,
            index,
            mut recovery,
            last_sequence,
            watermark,
            tree,
            uncounted,
            hashes,
            unchained,
            to_mend,
            ..
        } = replay;
        // What is written next must be readable: this says so before anything is touched.
        if manifest.generation.max(leftovers.next_segment).max(last_sequence) >= MAX_OPENED_NUMBER {
            return Err(OpenError::NumbersExhausted);
        }
        for segment in unchained.iter().map(|number| &segments[*number]) {
            let (segment, len, hash) = (segment.id, segment.tail, segment.hash);
            hash.into_iter().for_each(|hash| chain.push(&Event::Sealed { segment, len, hash }));
        }
        if !chain_is_sound {
            let end = chain.entries * crate::chain::ENTRY_BYTES as u64;
            recovery.damage.push(Damage { segment: None, start: 0, end, kind: DamageKind::Chain });
        }

        // What is about to be served must be as durable as what is about to be written.
        let mut empty = Vec::new();
        for number in segments.iter().map(|(number, _)| number).collect::<Vec<_>>() {
            let segment = &mut segments[number];
            segment.finished = true;
            // What is dead in it was not counted.
            segment.died = 0;
            let mut kinds = recovery.damage.iter().filter(|damage| damage.segment == Some(segment.id));
            let damaged = kinds.clone().next().is_some();
            segment.damaged = damaged;
            segment.losses =
                kinds.clone().filter(|one| one.is_lossy()).map(|one| (one.start, one.end)).collect();
            segment.unaccounted = kinds.clone().any(|damage| damage.kind.is_unaccounted());
            // Compaction would only fail there.
            segment.quarantined = kinds.any(|damage| damage.kind == DamageKind::Unreadable);
            if segment.is_empty() && segment.hash.is_none() && !damaged {
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
                for (_, offset) in to_mend.iter().filter(|(of, _)| *of == number) {
                    mend(segment, *offset)?;
                }
                write_again(segment, watermark)?;
                segment.file.sync_data()?;
                segment.sealed = true;
            }
        }
        recovery.leftovers = leftovers.names.len() as u64;
        // A manifest that was put in place and not synced must not be gone after a power cut that finds these files gone.
        if !leftovers.names.is_empty() {
            disk.sync_dir()?;
        }
        for name in &leftovers.names {
            match disk.remove(name) {
                Err(error) if error.kind() != DiskErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        let identity = Identity {
            store: manifest.store,
            hash_key: manifest.hash_key,
            generation: manifest.generation,
            next_segment: leftovers.next_segment,
        };
        let has_unknown = segments.iter().any(|(_, segment)| segment.unaccounted);
        let reserve_bytes = Self::finds_reserve(&disk);
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
            seal_job: None,
            learning: None,
            scrub_round: None,
            scrubbed: SegmentId(0),
            chain,
            hashes,
            tree,
            uncounted,
            recounts: Recounts::default(),
            has_gaps: has_unknown,
            has_unknown,
            now: 0,
            starved: false,
            few_files: false,
            refused_bytes: 0,
            lent: false,
            reserve_bytes,
            vain_cuts: 0,
            fill_failed: false,
            opening: next_opening(),
            next_sequence: last_sequence + 1,
            durable: last_sequence,
            in_flight: None,
            poisoned: false,
            pending: Pending::default(),
            read_buffer: Vec::new(),
        };
        store.begin_log(&empty)?;
        if !short_ends.is_empty() && store.has_reserved_room()? {
            recovery.torn.extend(short_ends);
        }
        Ok((store, recovery))
    }

    /// Makes the segment that writes go to: never one that was recovered. On a full disk the store has none at first, and
    /// serves reads; the last manifest stands.
    fn begin_log(&mut self, empty: &[u16]) -> Result<(), OpenError> {
        // A merge that a crash cut off has left the room that it was lent: compaction needs it again, and before puts do.
        let (is_new, capacity) = (self.segments.iter().count() == empty.len(), self.options.segment_bytes);
        let made = match is_new {
            true => self.create_segment(capacity),
            false => self.hold_reserve(true).and_then(|()| self.create_for_puts(capacity)),
        };
        match made {
            Ok(active) => self.active = Some(active),
            // What there is can be read, and merged.
            Err(error) if error == WriteError::NoSpace || is_short_of_numbers(&error) => {
                self.starved = error == WriteError::NoSpace;
                for number in empty {
                    self.segments[*number].listed = true;
                }
                return Ok(());
            }
            Err(WriteError::NewSegment(error) | WriteError::Disk(error)) => return Err(error.into()),
            Err(_) => return Err(OpenError::Options("a segment could not be made")),
        }
        for number in empty {
            if let Some(segment) = self.segments.remove(*number) {
                // No manifest names it; should this fail the next opening clears it away.
                let _ = self.disk.remove(&segment.id.file_name());
            }
        }
        Ok(())
    }

    /// Whether the disk has just reserved room. One that is full has not: there openings cut segments and have no room to say so.
    fn has_reserved_room(&self) -> Result<bool, OpenError> {
        let Some(active) = self.active.map(|active| &self.segments[active]) else { return Ok(false) };
        Ok(active.file.size()? >= active.capacity)
    }

    /// Closes the store in good order: syncs, and notes that nothing is missing. A store that is dropped instead is
    /// recovered at the next opening, and loses nothing by it but what a power cut takes.
    ///
    /// # Errors
    /// [`WriteError`]: the sync or the note failed; the next opening recovers what there is. [`WriteError::SyncUnderWay`]: whether
    /// that one succeeds can't be known here; complete it first.
    pub fn close(mut self) -> Result<(), WriteError> {
        // Nothing is buffered after it, so the room that is put aside may go to what is.
        self.pending.urgent = true;
        self.sync()?;
        // A watermark may be left.
        self.pending.urgent = true;
        self.flush()?;
        if self.in_flight.is_some() || self.durable + 1 != self.next_sequence {
            // Another sync would not tell: the operating system gives a failure to the first one that asks.
            return Err(WriteError::SyncUnderWay);
        }
        // Those that were written to since the last manifest: a sync that comes late leaves many of them.
        let open = |segment: &Segment<D::File>| segment.listed && !segment.sealed;
        self.seal_job.take().into_iter().for_each(|job| self.end_seal(job));
        let last: Vec<u16> =
            self.segments.iter().filter(|(_, segment)| open(segment)).map(|(number, _)| number).collect();
        for number in last {
            let segment = &mut self.segments[number];
            segment.file.truncate(segment.tail).map_err(WriteError::Disk)?;
            segment.file.sync_data().map_err(WriteError::Disk)?;
            segment.trimmed = true;
            segment.finished = true;
            // Sealed now, the store starts without reading it. What is left over of older ones is left to `maintain`.
            if !segment.is_empty()
                && let Some(mut job) = self.begin_seal_of(number)
            {
                while let Ok(true) = job.step(u64::MAX) {}
                self.end_seal(job);
            }
        }
        if self.is_full() {
            // What was cut off is put aside, before others have it.
            let _ = self.hold_reserve(true);
        }
        self.save_from_reserve(true).map_err(|error| WriteError::Disk(error.disk()))
    }
}

/// The manifest and the beginning of a report; `None` if there is no store.
pub(crate) fn load<D: Disk>(disk: &D, names: &[String]) -> Result<Option<(Manifest, Recovery)>, OpenError> {
    match Manifest::load(disk)? {
        Some(found) => {
            let mut recovery = Recovery { clean: found.manifest.clean, ..Recovery::default() };
            recovery.created = found.manifest.next_segment == 1;
            for _ in 0..found.damaged_copies {
                recovery.damage.push(Damage { segment: None, start: 0, end: 0, kind: DamageKind::Manifest });
            }
            Ok(Some((found.manifest, recovery)))
        }
        None if is_free(names) => Ok(None),
        None => Err(OpenError::ManifestMissing),
    }
}

/// Sets the bit of a record's header right that is wrong.
fn mend<F: DiskFile>(segment: &Segment<F>, offset: u64) -> Result<(), OpenError> {
    let mut bytes = [0; HEADER_BYTES];
    let read = read_full(&segment.file, offset, &mut bytes)?;
    match Header::mended(&bytes[..read], segment.place, offset) {
        Some((_, mended)) => Ok(segment.file.write_at(offset, &mended)?),
        None => Ok(()),
    }
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
        // What can't be read can't be written again.
        let mut unreadable = Vec::new();
        let read =
            read_around(&segment.file, offset, &mut piece, &mut |start, end| unreadable.push((start, end)))?;
        if read == 0 {
            break;
        }
        let end = offset + read as u64;
        unreadable.push((end, end));
        for (start, after) in unreadable {
            let at = usize::try_from(offset - (end - read as u64)).expect("inside the piece");
            let until = usize::try_from(start - (end - read as u64)).expect("inside the piece");
            if at < until {
                segment.file.write_at(offset, &piece[at..until])?;
            }
            offset = after;
        }
    }
    Ok(())
}
