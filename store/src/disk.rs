//! What the store asks of a disk: a flat directory of files that can be read and written at offsets and synced.
//!
//! The store never sees a path. An implementation for files is `FileDisk`, one for memory with faults is
//! `MemDisk`; both need the `std` feature. An implementation for flash needs nothing but this trait.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// A flat directory of named files.
///
/// Nothing that is written, created, renamed or removed is safe from a power cut until it is synced: file bytes and
/// lengths by [`DiskFile::sync_data`], names by [`Disk::sync_dir`]. The store assumes no order between unsynced
/// changes, and only that a rename is all or nothing.
pub trait Disk {
    /// An open file.
    type File: DiskFile;
    /// Held for as long as the directory belongs to this opener; gives it up when dropped.
    type Lock: Send + 'static;

    /// Takes the directory for one opener. [`DiskErrorKind::Locked`] if another one has it.
    fn lock(&self) -> Result<Self::Lock, DiskError>;
    /// Keeps such openers out while somebody reads who may not be allowed to write. [`DiskErrorKind::Locked`] if there is one; `None` if nobody
    /// can be kept out, and nothing is known of one. Unless it is implemented it [locks](Self::lock), where that may be written.
    fn lock_to_read(&self) -> Result<Option<Self::Lock>, DiskError> {
        self.lock().map(Some).or_else(|error| if error.forbids_writing() { Ok(None) } else { Err(error) })
    }
    /// The names of all files, in any order.
    fn list(&self) -> Result<Vec<String>, DiskError>;
    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> Result<Self::File, DiskError>;
    /// Creates a file that must not exist, with `bytes` of room reserved in it where the disk can do that. Reserved
    /// room reads as zeros. With [`DiskErrorKind::NoSpace`] no file is left behind.
    fn create(&self, name: &str, bytes: u64) -> Result<Self::File, DiskError>;
    /// Renames a file over another or to a new name, all or nothing.
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError>;
    /// Removes a file. Open handles to it go on working.
    fn remove(&self, name: &str) -> Result<(), DiskError>;
    /// Makes all names as they stand durable.
    fn sync_dir(&self) -> Result<(), DiskError>;
    /// How many files more can be opened or created, whatever becomes of others, counted up to eight: with fewer the store makes no segments for
    /// puts, so that deletes and compaction go on. As many as one likes, unless it is implemented.
    fn spare_files(&self) -> usize {
        usize::MAX
    }
}

/// An open file. Clones are handles to the same file; one may sync while another writes.
pub trait DiskFile: Clone + Send + 'static {
    /// The file's length in bytes, reserved room included.
    fn size(&self) -> Result<u64, DiskError>;
    /// Reads up to `into.len()` bytes at `offset`, and answers how many: one at least where the file goes on. The store reads on what is
    /// missing. Interrupted transfers are the implementation's to try again.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize, DiskError>;
    /// Fills `into` with the bytes at `offset` if that takes no waiting for the hardware, as from a page cache. `false` (what
    /// this answers unless it is implemented): it would, or there is no telling, or it failed.
    fn read_cached(&self, offset: u64, into: &mut [u8]) -> bool {
        let _ = (offset, into);
        false
    }
    /// Bytes that the disk keeps in memory anyway, such as memory-mapped flash: then reads need no buffer. `None` (what
    /// this does unless it is implemented) has the store [read](Self::read_at) them.
    fn lend(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let _ = (offset, len);
        None
    }
    /// Writes all of `bytes` at `offset`. After an error any part of them may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;
    /// Makes the bytes written so far and the length durable. After an error nothing written since the last success may
    /// be trusted to be on the disk, whatever a later call says.
    fn sync_data(&self) -> Result<(), DiskError>;
    /// Cuts the file to `bytes`, giving back reserved room past it.
    fn truncate(&self, bytes: u64) -> Result<(), DiskError>;
}

/// What kind of thing went wrong, for callers that act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DiskErrorKind {
    /// No file of this name.
    NotFound,
    /// A file of this name exists.
    AlreadyExists,
    /// The disk or the quota is full.
    NoSpace,
    /// Another opener holds the directory.
    Locked,
    /// Not permitted.
    PermissionDenied,
    /// The medium can't be written.
    ReadOnly,
    /// The directory is something else, a plain file for instance.
    NotADirectory,
    /// What has the name is no file, but a directory.
    NotAFile,
    /// The process, or the machine, has as many files open as it may: raise the limit, or use larger segments.
    TooManyFiles,
    /// The power is cut (memory disk only).
    Unplugged,
    /// Anything else: an I/O error.
    Io,
}

/// Bytes of a file's name that an error has room for: the store's own are shorter.
const NAME_BYTES: usize = 23;

/// A file's name, kept without memory of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FileName {
    bytes: [u8; NAME_BYTES],
    len: u8,
}

impl FileName {
    /// `None` if it is empty or too long.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let mut bytes = [0; NAME_BYTES];
        bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        let len = u8::try_from(name.len()).ok().filter(|len| *len > 0)?;
        Some(Self { bytes, len })
    }

    fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or("")
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

/// An error of a disk, with the operation that met it and, where the disk tells, the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DiskError {
    kind: DiskErrorKind,
    operation: &'static str,
    file: Option<FileName>,
    code: Option<i32>,
}

impl DiskError {
    /// An error of `kind` in `operation` ("sync", "create a segment", …).
    pub const fn new(kind: DiskErrorKind, operation: &'static str) -> Self {
        Self { kind, operation, file: None, code: None }
    }

    /// The same error with the operating system's error number.
    #[must_use]
    pub const fn with_code(self, code: Option<i32>) -> Self {
        Self { code, ..self }
    }

    /// The same error with the file's name. One that is longer than any of the store's is left out.
    #[must_use]
    pub fn with_file(self, name: &str) -> Self {
        Self { file: FileName::new(name), ..self }
    }

    #[cfg(feature = "std")]
    pub(crate) const fn with_name(self, file: Option<FileName>) -> Self {
        Self { file, ..self }
    }

    /// What kind of thing went wrong.
    pub const fn kind(&self) -> DiskErrorKind {
        self.kind
    }

    /// Whether it says that nothing may be written here.
    pub(crate) const fn forbids_writing(&self) -> bool {
        matches!(self.kind, DiskErrorKind::ReadOnly | DiskErrorKind::PermissionDenied)
    }

    /// The operation that met the error.
    pub const fn operation(&self) -> &'static str {
        self.operation
    }

    /// The file's name, if it is known.
    pub fn file(&self) -> Option<&str> {
        self.file.as_ref().map(FileName::as_str)
    }

    /// The operating system's error number, if there is one.
    pub const fn code(&self) -> Option<i32> {
        self.code
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            DiskErrorKind::NotFound => "no such file",
            DiskErrorKind::AlreadyExists => "the file exists",
            DiskErrorKind::NoSpace => "no space left",
            DiskErrorKind::Locked => "another process has the directory open",
            DiskErrorKind::PermissionDenied => "permission denied",
            DiskErrorKind::ReadOnly => "the medium is read-only",
            DiskErrorKind::NotADirectory => "not a directory",
            DiskErrorKind::NotAFile => "not a file",
            DiskErrorKind::TooManyFiles => "too many open files",
            DiskErrorKind::Unplugged => "the power is cut",
            DiskErrorKind::Io => "input/output error",
        };
        write!(f, "{}", self.operation)?;
        if let Some(file) = self.file() {
            write!(f, " ({file})")?;
        }
        write!(f, ": {what}")?;
        match self.code {
            Some(code) => write!(f, " (os error {code})"),
            None => Ok(()),
        }
    }
}

impl core::error::Error for DiskError {}
