//! A disk over another one that tells what is asked of it, and refuses what it is told to.
#![allow(dead_code, unreachable_pub)] // Each user takes in a part of it.

use gramme_store::{Disk, DiskError, DiskErrorKind, DiskFile};
use std::ops::Range;
use std::sync::Arc;

/// Something that a disk is asked to do, before it does it.
#[derive(Debug)]
pub enum Op<'n> {
    Lock,
    Open(&'n str),
    Create(&'n str),
    Rename(&'n str),
    Remove(&'n str),
    SyncDir,
    Read(&'n str, Range<u64>),
    Write(&'n str, Range<u64>),
    Sync(&'n str),
    Cut(&'n str),
    /// The last handle goes. This can't be refused.
    Close(&'n str),
}

type Watch = Arc<dyn Fn(Op<'_>) -> Result<(), DiskErrorKind> + Send + Sync>;

#[derive(Clone)]
pub struct Watched<D> {
    disk: D,
    watch: Watch,
}

impl<D> Watched<D> {
    /// `watch` is told of each operation; what it answers with an error is not done.
    pub fn new(disk: D, watch: impl Fn(Op<'_>) -> Result<(), DiskErrorKind> + Send + Sync + 'static) -> Self {
        Self { disk, watch: Arc::new(watch) }
    }

    fn ask(&self, op: Op<'_>, operation: &'static str) -> Result<(), DiskError> {
        (self.watch)(op).map_err(|kind| DiskError::new(kind, operation))
    }

    fn file<F>(&self, name: &str, file: F) -> WatchedFile<F> {
        WatchedFile(Arc::new(Opened { file, name: name.into(), watch: self.watch.clone() }))
    }
}

impl<D: Disk> Disk for Watched<D>
where
    D::File: Sync,
{
    type File = WatchedFile<D::File>;
    type Lock = D::Lock;

    fn lock(&self) -> Result<D::Lock, DiskError> {
        self.ask(Op::Lock, "lock the directory")?;
        self.disk.lock()
    }
    fn list(&self) -> Result<Vec<String>, DiskError> {
        self.disk.list()
    }
    fn open(&self, name: &str) -> Result<Self::File, DiskError> {
        self.ask(Op::Open(name), "open a file")?;
        Ok(self.file(name, self.disk.open(name)?))
    }
    fn create(&self, name: &str, bytes: u64) -> Result<Self::File, DiskError> {
        self.ask(Op::Create(name), "create a file")?;
        Ok(self.file(name, self.disk.create(name, bytes)?))
    }
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.ask(Op::Rename(from), "rename a file")?;
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.ask(Op::Remove(name), "remove a file")?;
        self.disk.remove(name)
    }
    fn sync_dir(&self) -> Result<(), DiskError> {
        self.ask(Op::SyncDir, "sync the directory")?;
        self.disk.sync_dir()
    }
}

pub struct WatchedFile<F>(Arc<Opened<F>>);

impl<F> Clone for WatchedFile<F> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Opened<F> {
    file: F,
    name: String,
    watch: Watch,
}

impl<F> Opened<F> {
    fn ask(&self, op: Op<'_>, operation: &'static str) -> Result<(), DiskError> {
        (self.watch)(op).map_err(|kind| DiskError::new(kind, operation))
    }
}

impl<F> Drop for Opened<F> {
    fn drop(&mut self) {
        let _ = (self.watch)(Op::Close(&self.name));
    }
}

impl<F: DiskFile + Sync> DiskFile for WatchedFile<F> {
    fn size(&self) -> Result<u64, DiskError> {
        self.0.file.size()
    }
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize, DiskError> {
        self.0.ask(Op::Read(&self.0.name, offset..offset + into.len() as u64), "read")?;
        self.0.file.read_at(offset, into)
    }
    fn lend(&self, offset: u64, len: usize) -> Option<&[u8]> {
        self.0.file.lend(offset, len)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.0.ask(Op::Write(&self.0.name, offset..offset + bytes.len() as u64), "write")?;
        self.0.file.write_at(offset, bytes)
    }
    fn sync_data(&self) -> Result<(), DiskError> {
        self.0.ask(Op::Sync(&self.0.name), "sync")?;
        self.0.file.sync_data()
    }
    fn truncate(&self, bytes: u64) -> Result<(), DiskError> {
        self.0.ask(Op::Cut(&self.0.name), "cut a file")?;
        self.0.file.truncate(bytes)
    }
}
