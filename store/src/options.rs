//! What an opener chooses.

use crate::error::OpenError;

const MAX_WRITE_BUFFER_BYTES: usize = 1 << 30;

/// Who waits for the disk when a key is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// [`get`](crate::Store::get) does, always.
    Inline,
    /// Whoever runs the [job](crate::ReadJob) that `get` hands out, unless the disk has [all of it at hand](crate::DiskFile::read_cached):
    /// for an engine of one thread that must not stand still. [`FileDisk`](crate::FileDisk) asks the page cache (Linux 4.14, file systems that can tell; elsewhere all
    /// is read inline).
    Cached,
    /// Whoever runs the job, always.
    Jobs,
}

/// How to open a store.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Bytes of a segment, 4 KiB to 4 GiB; 32 MiB unless set. A record that needs more gets a segment of its own size. May
    /// differ from opening to opening.
    pub segment_bytes: u64,
    /// Sixteen random bytes, fresh at each opening. At the first one they become the store's identity and its hash key;
    /// later they salt the checksums of new segments.
    pub seed: [u8; 16],
    /// Whether [`get`](crate::Store::get) reads from the disk itself (so unless set), or hands out a job.
    pub reads: Reads,
    /// Whether sealed segments get index files, and openings go by them instead of reading every record (true unless
    /// set). Without them an opening finds all damage that there is; with them a damaged record is found when it is read.
    pub index_files: bool,
    /// The key of the [hash tree](crate::HashTree), the same for all stores that are to be compared; none (no tree)
    /// unless set. May differ from opening to opening; the first one with another key takes longer.
    pub tree_key: Option<[u8; 16]>,
    /// Threads that read segments at an opening, and as many that take what was read into the index, if there are more than a
    /// few bytes of them; two unless set. Only with the `std` feature.
    pub open_threads: usize,
    /// Writes are gathered up to so many bytes and then written together, with one call to the disk; 0 unless set: each is
    /// written as it is made. Reads see them at once. What is not written (by a [flush](crate::Store::flush), a sync, or because it has
    /// become enough) goes with the process if that is killed, not only with the power. On a disk that reserves no room
    /// for segments and turns out to be full when a sync begins, the sync is refused, and what is gathered stays so until there is
    /// room. Twice as much of the disk is put aside for compaction. At most 1 GiB.
    pub write_buffer_bytes: usize,
    /// Fewer bits in tests, to force collisions.
    pub(crate) fingerprint_mask: u64,
}

impl Options {
    /// The usual options with this seed.
    pub fn new(seed: [u8; 16]) -> Self {
        Self {
            segment_bytes: 32 << 20,
            seed,
            reads: Reads::Inline,
            index_files: true,
            tree_key: None,
            open_threads: 2,
            write_buffer_bytes: 0,
            fingerprint_mask: u64::MAX,
        }
    }

    /// The same options with segments of this many bytes.
    #[must_use]
    pub fn with_segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// The same options with reads inline or as jobs.
    #[must_use]
    pub fn with_reads(mut self, reads: Reads) -> Self {
        self.reads = reads;
        self
    }

    /// The same options with or without index files.
    #[must_use]
    pub fn with_index_files(mut self, index_files: bool) -> Self {
        self.index_files = index_files;
        self
    }

    /// The same options with a hash tree under this key.
    #[must_use]
    pub fn with_tree_key(mut self, key: [u8; 16]) -> Self {
        self.tree_key = Some(key);
        self
    }

    /// The same options with so many threads at the opening.
    #[must_use]
    pub fn with_open_threads(mut self, threads: usize) -> Self {
        self.open_threads = threads;
        self
    }

    /// The same options with a buffer for so many bytes of writes.
    #[must_use]
    pub fn with_write_buffer(mut self, bytes: usize) -> Self {
        self.write_buffer_bytes = bytes;
        self
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        if !(4096..=4 << 30).contains(&self.segment_bytes) {
            return Err(OpenError::Options("a segment has 4 KiB to 4 GiB"));
        }
        if self.write_buffer_bytes > MAX_WRITE_BUFFER_BYTES {
            return Err(OpenError::Options("a write buffer has up to 1 GiB"));
        }
        Ok(())
    }

    /// Room that puts leave in a segment when no new one can be made.
    pub(crate) fn removal_reserve(&self) -> u64 {
        (self.segment_bytes / 16).min(64 << 10)
    }
}
