//! Sealing: a segment that is written to no more is hashed for the chain and gets its index file. Off the put path, in
//! bounded steps, without the store's lock where others wait for it.

use crate::chain::{Event, SegmentHash};
use crate::disk::{Disk, DiskError, DiskFile};
use crate::index_file::{self, Subject, Writer};
use crate::read_around::read_full;
use crate::record::MAX_SEGMENT_BYTES;
use crate::scan::{Scan, window_bytes};
use crate::store::Store;
use crate::summary::{Hashes, Line, Source, Summary};
use alloc::vec::Vec;
use core::fmt;
use sha2::{Digest, Sha256};

/// A segment being sealed. It owns all that it needs and runs without its store.
pub(crate) struct SealJob<F> {
    number: u16,
    subject: Subject,
    file: F,
    hasher: Sha256,
    hashed: u64,
    piece: Vec<u8>,
    scan: Scan<F>,
    hashes: Hashes,
    summary: Summary,
    lines: Vec<Line>,
    /// None if there is no room for an index file, or none is wanted.
    writer: Option<Writer<F>>,
    /// An index file was begun, and is not complete.
    is_partial: bool,
}

impl<F> fmt::Debug for SealJob<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealJob").field("subject", &self.subject).finish_non_exhaustive()
    }
}

impl<F: DiskFile> SealJob<F> {
    /// Reads about so many bytes more; answers whether there is more to do.
    pub(crate) fn step(&mut self, budget: u64) -> Result<bool, DiskError> {
        let mut spent = 0;
        self.scan.go_by_budget(budget);
        while spent < budget.max(1) {
            if self.hashed < self.subject.len {
                let len = (self.subject.len - self.hashed).min(window_bytes(budget));
                self.piece.resize(usize::try_from(len).expect("a piece"), 0);
                let read = read_full(&self.file, self.hashed, &mut self.piece)?;
                // Past the end of a file that was cut it reads as zeros: some hash it must have.
                self.piece[read..].fill(0);
                self.hasher.update(&self.piece);
                self.hashed += len;
                spent += len;
                if self.hashed == self.subject.len {
                    let hash: SegmentHash = self.hasher.finalize_reset().into();
                    // One that was known before stands: should this differ, that is for a verification to say.
                    self.subject.hash.get_or_insert(hash);
                    if self.subject.hash != Some(hash) {
                        self.writer = None;
                    }
                }
                continue;
            }
            let Some(writer) = &mut self.writer else { return Ok(false) };
            let before = self.scan.bytes_read;
            let found = self.scan.next()?;
            let more = self.summary.take(&self.scan, found, &self.hashes, |line| self.lines.push(line));
            spent += self.scan.bytes_read - before;
            // What is not whole has to be found, and reported, at every opening.
            if !self.summary.suspects.is_empty() || (!more && self.summary.read_to < self.subject.len) {
                self.writer = None;
                return Ok(false);
            }
            let written = self.lines.drain(..).try_for_each(|line| writer.push(&line));
            if let Err(error) = written {
                self.writer = None;
                return Err(error);
            }
            if !more {
                let writer = self.writer.take().expect("it was there");
                writer.finish(&self.subject, &self.summary)?;
                self.is_partial = false;
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl<D: Disk> Store<D> {
    /// Begins to seal a segment that is finished and has not been, if there is one.
    pub(crate) fn begin_seal(&mut self) -> Option<SealJob<D::File>> {
        let wanted = self.segments.iter().find(|(_, segment)| {
            segment.finished
                && segment.trimmed
                && segment.listed
                && !segment.sealing
                && !segment.quarantined
                && !segment.is_empty()
                && !segment.seal_failed
                && (segment.hash.is_none() || !segment.indexed)
        });
        let number = wanted?.0;
        self.begin_seal_of(number)
    }

    pub(crate) fn begin_seal_of(&mut self, number: u16) -> Option<SealJob<D::File>> {
        let store = self.identity.store;
        let tree = self.hashes.tree.map_or(0, |tree| tree.check());
        let has_room = !self.is_full() && !self.few_files;
        let wants_index = self.options.index_files && has_room && !self.segments[number].indexed;
        let segment = &mut self.segments[number];
        let subject = Subject {
            store,
            segment: segment.id,
            salt: segment.salt,
            len: segment.tail,
            hash: segment.hash,
            tree,
            first: segment.first,
            last: segment.last,
        };
        let limit = segment.tail.min(MAX_SEGMENT_BYTES);
        let Ok(scan) = Scan::new(segment.file.clone(), segment.place, limit, segment.torn.clone()) else {
            segment.indexed = true;
            segment.seal_failed = true;
            return None;
        };
        segment.sealing = true;
        // An index file is a help: without it the next start takes longer.
        let writer = if wants_index { Writer::create(&self.disk, &subject).ok() } else { None };
        Some(SealJob {
            number,
            subject,
            file: segment.file.clone(),
            hasher: Sha256::new(),
            hashed: 0,
            piece: Vec::new(),
            scan,
            hashes: self.hashes,
            summary: Summary::new(Source::Scan),
            lines: Vec::new(),
            is_partial: writer.is_some(),
            writer,
        })
    }

    /// Ends a sealing, done or failed: an error costs the index file, and the hash until the next opening.
    pub(crate) fn end_seal(&mut self, job: SealJob<D::File>) {
        let current = self.segments.get_mut(job.number).filter(|segment| segment.id == job.subject.segment);
        if job.is_partial || current.is_none() {
            // It would take room, and nobody would go by it.
            let _ = self.disk.remove(&index_file::file_name(job.subject.segment));
        }
        let Some(segment) = current else { return };
        segment.sealing = false;
        segment.indexed = true;
        segment.seal_failed = job.subject.hash.is_none();
        if let (None, Some(hash)) = (segment.hash, job.subject.hash) {
            segment.hash = Some(hash);
            self.chain.push(&Event::Sealed { segment: segment.id, len: segment.tail, hash });
        }
    }

    /// A step of sealing; answers whether there was anything to do.
    pub(crate) fn seal(&mut self, budget: u64) -> bool {
        let Some(mut job) = self.seal_job.take().or_else(|| self.begin_seal()) else { return false };
        match job.step(budget) {
            Ok(true) => self.seal_job = Some(job),
            Ok(false) | Err(_) => self.end_seal(job),
        }
        true
    }
}
