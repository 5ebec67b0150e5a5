#![doc = include_str!("../README.md")]

use gramme_store::{Disk, DiskError, DiskErrorKind, DiskFile, FileDisk};
use memmap2::{MmapOptions, MmapRaw};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Longer writes go through a system call: new pages of a map cost a fault each, which one call for many bytes has the better of.
const MAPPED_WRITE_BYTES: usize = 1024;
/// The files that records are in. The others are short, or read once.
const SEGMENT_SUFFIX: &str = ".seg";

/// A directory of the file system, as a [`FileDisk`] is, with its segments mapped into memory.
#[derive(Debug)]
pub struct MappedDisk {
    files: FileDisk,
}

/// An open file of a [`MappedDisk`].
#[derive(Clone, Debug)]
pub struct MappedFile {
    file: <FileDisk as Disk>::File,
    /// `None` for what is no segment, or can't be mapped.
    mapped: Option<Arc<Mapped>>,
}

#[derive(Debug)]
struct Mapped {
    memory: MmapRaw,
    /// Bytes from the start that the file has: never more than is mapped, and fewer once it was cut.
    len: AtomicUsize,
}

impl MappedDisk {
    /// The disk of this directory, which is made (durably) if it does not exist.
    ///
    /// # Errors
    /// As for [`FileDisk::open`].
    ///
    /// # Safety
    /// For as long as the disk or a file of it lives, nobody but one [`Store`](gramme_store::Store) (or
    /// [`SharedStore`](gramme_store::SharedStore)) may write to the segments in this directory or cut them short. Their bytes are lent as slices that
    /// must not change, and a page that the file no longer has can't be read. A store keeps other stores out by its lock, and never
    /// writes over a record that can be read.
    pub unsafe fn open(directory: impl AsRef<Path>) -> Result<Self, DiskError> {
        FileDisk::open(directory).map(|files| Self { files })
    }

    /// Maps `bytes` of a file, or none: where the system has no room for a map, the file goes on as files do.
    fn map(&self, name: &str, bytes: u64) -> Option<Arc<Mapped>> {
        let len = usize::try_from(bytes).ok().filter(|len| *len > 0)?;
        if !name.ends_with(SEGMENT_SUFFIX) {
            return None;
        }
        let file = File::options().read(true).write(true).open(self.files.path().join(name)).ok()?;
        // Bytes past the end of the file are not memory, whatever was asked for.
        if file.metadata().ok()?.len() < bytes {
            return None;
        }
        let memory = MmapOptions::new().len(len).map_raw(&file).ok()?;
        Some(Arc::new(Mapped { memory, len: AtomicUsize::new(len) }))
    }
}

impl Mapped {
    /// Whether these bytes are in the file still.
    fn holds(&self, offset: u64, len: usize) -> Option<usize> {
        let offset = usize::try_from(offset).ok()?;
        (offset.checked_add(len)? <= self.len.load(Ordering::Acquire)).then_some(offset)
    }
}

impl Disk for MappedDisk {
    type File = MappedFile;
    type Lock = <FileDisk as Disk>::Lock;

    fn lock(&self) -> Result<Self::Lock, DiskError> {
        self.files.lock()
    }

    fn lock_to_read(&self) -> Result<Option<Self::Lock>, DiskError> {
        self.files.lock_to_read()
    }

    fn list(&self) -> Result<Vec<String>, DiskError> {
        self.files.list()
    }

    fn open(&self, name: &str) -> Result<MappedFile, DiskError> {
        let file = self.files.open(name)?;
        let mapped = self.map(name, file.size()?);
        Ok(MappedFile { file, mapped })
    }

    fn create(&self, name: &str, bytes: u64) -> Result<MappedFile, DiskError> {
        let file = self.files.create(name, bytes)?;
        let mapped = self.map(name, bytes);
        Ok(MappedFile { file, mapped })
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        // A map stays with its file, so that a segment's name is no other file's.
        if to.ends_with(SEGMENT_SUFFIX) || from.ends_with(SEGMENT_SUFFIX) {
            return Err(DiskError::new(DiskErrorKind::PermissionDenied, "rename a mapped segment"));
        }
        self.files.rename(from, to)
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.files.remove(name)
    }

    fn sync_dir(&self) -> Result<(), DiskError> {
        self.files.sync_dir()
    }

    fn spare_files(&self) -> usize {
        self.files.spare_files()
    }
}

impl DiskFile for MappedFile {
    fn size(&self) -> Result<u64, DiskError> {
        self.file.size()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize, DiskError> {
        self.file.read_at(offset, into)
    }

    fn lend(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let mapped = self.mapped.as_deref()?;
        let offset = mapped.holds(offset, len)?;
        // SAFETY: these bytes are mapped for as long as `self` lives and stand in the file, and whoever opened the disk promised that
        // nobody changes or cuts them while they can be read.
        Some(unsafe { std::slice::from_raw_parts(mapped.memory.as_ptr().add(offset), len) })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mapped = self.mapped.as_deref().filter(|_| bytes.len() <= MAPPED_WRITE_BYTES);
        let Some((mapped, offset)) =
            mapped.and_then(|mapped| Some((mapped, mapped.holds(offset, bytes.len())?)))
        else {
            return self.file.write_at(offset, bytes);
        };
        // SAFETY: there is room for them in the map and in the file, `bytes` is no part of it, for nothing of what is lent is written to, and
        // a store writes to a file from one thread.
        unsafe {
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                mapped.memory.as_mut_ptr().add(offset),
                bytes.len(),
            );
        }
        Ok(())
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        // Whoever wrote them, through the map or not: the file's pages are the same.
        self.file.sync_data()
    }

    fn truncate(&self, bytes: u64) -> Result<(), DiskError> {
        if let Some(mapped) = &self.mapped {
            mapped.len.fetch_min(usize::try_from(bytes).unwrap_or(usize::MAX), Ordering::Release);
        }
        self.file.truncate(bytes)
    }
}
