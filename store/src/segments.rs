//! The table of segments, and the making of new ones.

use crate::checksum::Place;
use crate::disk::{Disk, DiskError, DiskErrorKind, DiskFile};
use crate::error::WriteError;
use crate::key_index::Location;
use crate::manifest::{Entry, Manifest, SaveError, derive_word};
use crate::record::{HEADER_BYTES, MAX_OPENED_NUMBER};
use crate::segment::{SEGMENT_HEADER_BYTES, Segment, SegmentHeader, SegmentId, SegmentKind};
use crate::store::{Identity, Store, Urgency};
use alloc::vec::Vec;
use core::ops::{Index, IndexMut};

/// Numbers that no new segment is made without: more than the records of those that there are already.
const KEPT_NUMBERS: u64 = 1 << 33;
/// Segments that there are numbers for.
pub(crate) const MAX_SEGMENTS: usize = if cfg!(test) { 64 } else { 1 << 16 };
/// Segments by the small numbers that index entries use for them.
pub(crate) struct SegmentTable<F> {
    places: Vec<Option<Segment<F>>>,
}

impl<F> SegmentTable<F> {
    pub(crate) const fn new() -> Self {
        Self { places: Vec::new() }
    }

    /// Adds a segment; `None` if all numbers are taken.
    pub(crate) fn insert(&mut self, segment: Segment<F>) -> Option<u16> {
        let free = self.places.iter().position(Option::is_none).unwrap_or(self.places.len());
        let number = u16::try_from(free).ok().filter(|_| free < MAX_SEGMENTS)?;
        if free == self.places.len() {
            self.places.push(None);
        }
        self.places[free] = Some(segment);
        Some(number)
    }

    pub(crate) fn remove(&mut self, number: u16) -> Option<Segment<F>> {
        self.places.get_mut(usize::from(number))?.take()
    }

    pub(crate) fn get(&self, number: u16) -> Option<&Segment<F>> {
        self.places.get(usize::from(number))?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, number: u16) -> Option<&mut Segment<F>> {
        self.places.get_mut(usize::from(number))?.as_mut()
    }

    #[allow(clippy::cast_possible_truncation)] // `insert` bounds the numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u16, &Segment<F>)> {
        self.places.iter().enumerate().filter_map(|(number, place)| Some((number as u16, place.as_ref()?)))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Segment<F>> {
        self.places.iter_mut().filter_map(Option::as_mut)
    }

    /// The index points to this record now.
    pub(crate) fn gain(&mut self, location: Location) {
        self[location.segment].live += location.size.bytes();
    }

    /// The index no longer points to this record, because of the write with this sequence or because of a later one.
    pub(crate) fn lose(&mut self, location: Location, sequence: u64) {
        let segment = &mut self[location.segment];
        segment.live -= location.size.bytes();
        segment.died = segment.died.min(sequence);
    }
}

impl<F> Index<u16> for SegmentTable<F> {
    type Output = Segment<F>;

    fn index(&self, number: u16) -> &Segment<F> {
        self.get(number).expect("the index and the lists name segments that exist")
    }
}

impl<F> IndexMut<u16> for SegmentTable<F> {
    fn index_mut(&mut self, number: u16) -> &mut Segment<F> {
        self.get_mut(number).expect("the index and the lists name segments that exist")
    }
}

/// Makes a segment's file with its header, durable by its name too. Nothing points to it yet.
pub(crate) fn create_file<D: Disk>(
    disk: &D,
    header: &SegmentHeader,
    capacity: u64,
) -> Result<Segment<D::File>, DiskError> {
    let name = header.id.file_name();
    let file = disk.create(&name, capacity)?;
    let written =
        file.write_at(0, &header.encode()).and_then(|()| file.sync_data()).and_then(|()| disk.sync_dir());
    if let Err(error) = written {
        // Should this fail too, the next opening clears the file away: no manifest names it.
        let _ = disk.remove(&name);
        return Err(error);
    }
    let place = Place::new(header.salt, header.id.0);
    Ok(Segment { salt: header.salt, capacity, ..Segment::new(header.id, file, place, header.kind) })
}

/// The salt of a new segment. Of one seed, no two ids and generations of a store have the same but by chance; that the seed is
/// [fresh at each opening](crate::Options::seed) is for the caller to see to.
pub(crate) fn new_salt(seed: &[u8; 16], id: SegmentId, generation: u64) -> u64 {
    derive_word(seed, crate::checksum::mix(generation) ^ id.0)
}

impl<D: Disk> Store<D> {
    /// Whether the active segment has room for a record of `len` bytes, and for the watermark that says that it is durable; of a put, whether
    /// it leaves room for removals.
    pub(crate) fn has_room(&self, len: u64, urgency: Urgency) -> bool {
        let Some(active) = self.active.map(|active| &self.segments[active]) else { return false };
        let reserve = match urgency {
            Urgency::Put if active.for_removals => return false,
            Urgency::Put => self.options.removal_reserve(),
            Urgency::Removal => HEADER_BYTES as u64,
        };
        active.room() >= len + reserve
    }

    /// Sees to it that the active segment has room for a record of `len` bytes. On an error nothing has changed.
    pub(crate) fn make_room(&mut self, len: u64, urgency: Urgency) -> Result<(), WriteError> {
        if self.has_room(len, urgency) {
            return Ok(());
        }
        self.flush()?;
        let behind = match urgency {
            Urgency::Put => self.options.removal_reserve(),
            Urgency::Removal => HEADER_BYTES as u64,
        };
        let capacity = SEGMENT_HEADER_BYTES as u64 + len + behind;
        let next = match self.spare {
            Some(spare) if self.segments[spare].capacity >= capacity => spare,
            _ => {
                let full = capacity.max(self.options.segment_bytes);
                self.may_make_segment(urgency)?;
                let made = match urgency {
                    Urgency::Put => self.create_for_puts(full),
                    // The last room goes to small segments of removals, but not that of compaction, which makes more.
                    Urgency::Removal if self.hold_reserve(false).is_err() && self.merge.is_some() => {
                        Err(WriteError::NoSpace)
                    }
                    Urgency::Removal => match self.create_segment(full) {
                        Err(WriteError::NoSpace) => {
                            let small = self.small_segment_bytes(capacity);
                            let made = match self.create_segment(small) {
                                Err(WriteError::NoSpace) => self.create_from_reserve(small),
                                made => made,
                            };
                            if let Ok(made) = &made {
                                self.segments[*made].for_removals = true;
                            }
                            made
                        }
                        made => made,
                    },
                };
                // A removal that still finds room does not mean that there is enough.
                if made == Err(WriteError::NoSpace) {
                    self.starved = true;
                } else if urgency == Urgency::Put {
                    self.starved = false;
                }
                made?
            }
        };
        if let Some(passed) = self.spare.take_if(|spare| *spare != next) {
            // A spare that was too small is passed over for good: the log goes through the ids in order.
            self.segments[passed].finished = true;
        }
        self.spare = None;
        self.rolled.extend(self.active.replace(next));
        Ok(())
    }

    /// Makes a log segment and names it in the manifest. On an error nothing has changed.
    pub(crate) fn create_segment(&mut self, capacity: u64) -> Result<u16, WriteError> {
        let number = self.create_unlisted(capacity, SegmentKind::Log)?;
        let id = self.segments[number].id;
        self.segments[number].listed = true;
        match self.save_manifest(false) {
            Ok(()) => Ok(number),
            Err(SaveError::Unchanged(error)) => {
                self.segments.remove(number);
                let _ = self.disk.remove(&id.file_name());
                Err(not_made(error))
            }
            Err(SaveError::Unknown(error)) => {
                // The manifest that names the segment may stand, so the file must, too.
                self.poisoned = true;
                Err(WriteError::Disk(error))
            }
        }
    }

    /// Makes a segment that the manifest does not name: an opening would clear it away. On an error nothing has changed.
    pub(crate) fn create_unlisted(&mut self, capacity: u64, kind: SegmentKind) -> Result<u16, WriteError> {
        let capacity = capacity.next_multiple_of(8);
        let Identity { next_segment, generation, .. } = self.identity;
        if self.next_sequence.max(next_segment).max(generation) >= MAX_OPENED_NUMBER - KEPT_NUMBERS {
            return Err(WriteError::NumbersExhausted);
        }
        let id = SegmentId(next_segment);
        // Even if this comes to nothing the id is not used again.
        self.identity.next_segment += 1;
        let header = SegmentHeader {
            store: self.identity.store,
            id,
            salt: new_salt(&self.options.seed, id, self.identity.generation),
            kind,
            base: self.next_sequence,
        };
        let mut segment = create_file(&self.disk, &header, capacity).map_err(not_made)?;
        segment.listed = false;
        self.segments.insert(segment).ok_or_else(|| {
            let _ = self.disk.remove(&id.file_name());
            WriteError::TooManySegments
        })
    }

    /// Writes the manifest of the segments in the table. What is written to no more and is synced is sealed by it.
    pub(crate) fn save_manifest(&mut self, clean: bool) -> Result<(), SaveError> {
        for segment in self.segments.iter_mut() {
            segment.sealed |= segment.finished;
        }
        let manifest = Manifest {
            generation: self.identity.generation + 1,
            chain_entries: self.chain.entries,
            head: self.chain.head,
            store: self.identity.store,
            hash_key: self.identity.hash_key,
            next_segment: self.identity.next_segment,
            clean,
            entries: entries(&self.segments),
        };
        // The number is used up even by a failure: no two manifests share one.
        self.identity.generation += 1;
        self.chain.save(&self.disk).map_err(SaveError::Unchanged)?;
        manifest.save(&self.disk)
    }

    /// Writes the manifest, on a full disk in the room that is put aside, of which no more is given than it takes.
    pub(crate) fn save_from_reserve(&mut self, clean: bool) -> Result<(), SaveError> {
        let (mut saved, before) = (self.save_manifest(clean), self.reserve_bytes);
        let mut room = self.manifest_bytes(1);
        while let Err(SaveError::Unchanged(error)) = &saved
            && error.kind() == DiskErrorKind::NoSpace
            && (self.cut_reserve(room, 0) || self.release_reserve())
        {
            saved = self.save_manifest(clean);
            room *= 2;
        }
        // The manifest before it has gone.
        if saved.is_ok() {
            self.take_back(before);
        }
        saved
    }
}

/// Whether another segment is one more than can be numbered, or than the process may have open.
pub(crate) fn is_short_of_numbers(error: &WriteError) -> bool {
    match error {
        WriteError::NumbersExhausted | WriteError::TooManySegments => true,
        WriteError::NewSegment(error) => error.kind() == DiskErrorKind::TooManyFiles,
        _ => false,
    }
}

pub(crate) fn not_made(error: DiskError) -> WriteError {
    if error.kind() == DiskErrorKind::NoSpace { WriteError::NoSpace } else { WriteError::NewSegment(error) }
}

/// The manifest's entries for a table of segments, by id.
pub(crate) fn entries<F>(segments: &SegmentTable<F>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = segments
        .iter()
        .filter(|(_, segment)| segment.listed)
        .map(|(_, segment)| Entry {
            id: segment.id,
            salt: segment.salt,
            kind: segment.kind,
            capacity: segment.capacity,
            sealed: segment.sealed.then_some(segment.tail),
            first: segment.first,
            last: segment.last,
            hash: segment.hash,
            torn: segment.torn.clone(),
        })
        .collect();
    entries.sort_unstable_by_key(|entry| entry.id);
    entries
}
