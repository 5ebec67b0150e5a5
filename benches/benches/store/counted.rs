//! A disk that counts.

use gramme_store::{Disk, DiskError, DiskFile, FileDisk};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A disk that counts what is written to it, to segments and to the rest, and its syncs.
pub(crate) struct Counted {
    disk: FileDisk,
    counts: Arc<Counts>,
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) records: AtomicU64,
    pub(crate) rest: AtomicU64,
    pub(crate) syncs: AtomicU64,
    /// Calls that wrote to segments.
    pub(crate) writes: AtomicU64,
}

#[derive(Clone)]
pub(crate) struct CountedFile {
    file: <FileDisk as Disk>::File,
    is_segment: bool,
    counts: Arc<Counts>,
}

impl Counted {
    pub(crate) fn new(disk: FileDisk, counts: Arc<Counts>) -> Self {
        Self { disk, counts }
    }

    fn file(&self, name: &str, file: <FileDisk as Disk>::File) -> CountedFile {
        CountedFile { file, is_segment: name.ends_with(".seg"), counts: self.counts.clone() }
    }
}

impl Disk for Counted {
    type File = CountedFile;
    type Lock = <FileDisk as Disk>::Lock;

    fn lock(&self) -> Result<Self::Lock, DiskError> {
        self.disk.lock()
    }
    fn list(&self) -> Result<Vec<String>, DiskError> {
        self.disk.list()
    }
    fn open(&self, name: &str) -> Result<CountedFile, DiskError> {
        Ok(self.file(name, self.disk.open(name)?))
    }
    fn create(&self, name: &str, bytes: u64) -> Result<CountedFile, DiskError> {
        Ok(self.file(name, self.disk.create(name, bytes)?))
    }
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.disk.remove(name)
    }
    fn sync_dir(&self) -> Result<(), DiskError> {
        self.disk.sync_dir()
    }
}

impl DiskFile for CountedFile {
    fn size(&self) -> Result<u64, DiskError> {
        self.file.size()
    }
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize, DiskError> {
        self.file.read_at(offset, into)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let count = if self.is_segment { &self.counts.records } else { &self.counts.rest };
        count.fetch_add(bytes.len() as u64, Relaxed);
        self.counts.writes.fetch_add(u64::from(self.is_segment), Relaxed);
        self.file.write_at(offset, bytes)
    }
    fn sync_data(&self) -> Result<(), DiskError> {
        self.counts.syncs.fetch_add(1, Relaxed);
        self.file.sync_data()
    }
    fn truncate(&self, bytes: u64) -> Result<(), DiskError> {
        self.file.truncate(bytes)
    }
}
