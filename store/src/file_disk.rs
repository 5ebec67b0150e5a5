//! A disk of files in a directory.

use crate::disk::{Disk, DiskError, DiskErrorKind, DiskFile, FileName};
use crate::read_around::read_full;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::string::String;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

const LOCK: &str = "LOCK";
/// Descriptors that are kept open for nothing, to be given up where the process may open no file more.
const SPARE_FILES: usize = 8;

/// A directory of the file system. The lock is an advisory lock on a file named `LOCK` in it and, on Unix, one on the directory itself,
/// so that nobody gets in who removes the file or puts another in its place. The operating system gives both up when the process ends, however
/// it ends. Some network file systems (NFS) lock files that are open for writing and nothing else: there the file's lock is all there is, and
/// nobody may remove it. Where a file system has no locks at all an opening fails. Who may read the directory and not write it, a
/// [verification](crate::verify()), holds shared ones meanwhile.
///
/// On Unix it keeps eight descriptors once a store is open, which it gives up where the process may open no file more: with what they
/// give deletes and compaction go on.
#[derive(Debug)]
pub struct FileDisk {
    directory: PathBuf,
    spares: Arc<Spares>,
}

/// What is [given up](SPARE_FILES) where no file more may be opened.
#[derive(Debug)]
struct Spares {
    /// The directory, to sync its names without a descriptor more. Where directories can't be opened there is none.
    directory: Option<File>,
    /// Somebody counts on them.
    wanted: AtomicBool,
    /// More handles of the directory.
    kept: Mutex<Vec<File>>,
}

impl Spares {
    fn kept(&self) -> MutexGuard<'_, Vec<File>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps as many as are due, or as can be had; how many.
    fn keep(&self) -> usize {
        let Some(directory) = self.directory.as_ref().filter(|_| cfg!(unix)) else { return usize::MAX };
        let mut kept = self.kept();
        while kept.len() < SPARE_FILES {
            let Ok(spare) = directory.try_clone() else { break };
            kept.push(spare);
        }
        kept.len()
    }
}

/// Has back what was given up, once a file is closed and before others take what is free by that.
#[derive(Debug)]
struct Keeper(Arc<Spares>);

impl Drop for Keeper {
    fn drop(&mut self) {
        if self.0.wanted.load(Ordering::Relaxed) {
            self.0.keep();
        }
    }
}

/// An open file of a [`FileDisk`].
#[derive(Clone, Debug)]
pub struct FileHandle(Arc<Opened>);

#[derive(Debug)]
struct Opened {
    file: File,
    /// For errors.
    name: Option<FileName>,
    /// There is no telling what of it the page cache has.
    opaque: AtomicBool,
    /// The last one, so that the file is closed before it goes.
    _keeper: Keeper,
}

impl FileHandle {
    fn new(file: File, name: &str, spares: &Arc<Spares>) -> Self {
        keep_no_access_time(&file);
        Self(Arc::new(Opened {
            file,
            name: FileName::new(name),
            opaque: AtomicBool::new(false),
            _keeper: Keeper(spares.clone()),
        }))
    }

    fn error(&self, error: &io::Error, operation: &'static str) -> DiskError {
        disk_error(error, operation).with_name(self.0.name)
    }
}

fn disk_error(error: &io::Error, operation: &'static str) -> DiskError {
    let kind = match error.kind() {
        ErrorKind::NotFound => DiskErrorKind::NotFound,
        ErrorKind::AlreadyExists => DiskErrorKind::AlreadyExists,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => DiskErrorKind::NoSpace,
        ErrorKind::PermissionDenied => DiskErrorKind::PermissionDenied,
        ErrorKind::ReadOnlyFilesystem => DiskErrorKind::ReadOnly,
        ErrorKind::NotADirectory => DiskErrorKind::NotADirectory,
        ErrorKind::IsADirectory => DiskErrorKind::NotAFile,
        _ if is_short_of_files(error) => DiskErrorKind::TooManyFiles,
        _ => DiskErrorKind::Io,
    };
    DiskError::new(kind, operation).with_code(error.raw_os_error())
}

/// ENFILE and EMFILE, everywhere.
fn is_short_of_files(error: &io::Error) -> bool {
    cfg!(unix) && matches!(error.raw_os_error(), Some(23 | 24))
}

trait Named<T> {
    fn named(self, operation: &'static str) -> Result<T, DiskError>;
}

impl<T> Named<T> for io::Result<T> {
    fn named(self, operation: &'static str) -> Result<T, DiskError> {
        self.map_err(|error| disk_error(&error, operation))
    }
}

impl FileDisk {
    /// The disk of this directory, which is made (durably) if it does not exist.
    ///
    /// # Errors
    /// [`DiskErrorKind::NotADirectory`], [`DiskErrorKind::PermissionDenied`] and others; nothing was touched.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, DiskError> {
        // The process may go elsewhere; the store stays.
        let directory = std::path::absolute(directory).named("open the directory")?;
        match std::fs::metadata(&directory) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(DiskError::new(DiskErrorKind::NotADirectory, "open the directory")),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                std::fs::create_dir_all(&directory).named("make the directory")?;
            }
            Err(error) => return Err(disk_error(&error, "open the directory")),
        }
        // The names of all directories that may be new, from the innermost out: made here, or by somebody who did not see
        // to it.
        for parent in directory.ancestors().skip(1) {
            sync_directory(parent)?;
        }
        let opened = File::open(&directory).ok();
        let spares = Spares { directory: opened, wanted: AtomicBool::new(false), kept: Mutex::default() };
        Ok(Self { directory, spares: Arc::new(spares) })
    }

    /// The directory's path.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Opens something, in the place of a spare descriptor where there is no other.
    fn with_spares<T>(&self, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
        loop {
            let opened = open();
            // Another thread may be there first.
            if !opened.as_ref().is_err_and(is_short_of_files) || self.spares.kept().pop().is_none() {
                return opened;
            }
        }
    }
}

fn sync_directory(directory: &Path) -> Result<(), DiskError> {
    let opened = match File::open(directory) {
        // A parent that may be passed through but not read is not one that we made.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(()),
        opened => opened.named("sync the directory")?,
    };
    sync_names(&opened)
}

fn sync_names(directory: &File) -> Result<(), DiskError> {
    match directory.sync_all() {
        // Some file systems have no sync of directories, and no need of it.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::InvalidInput | ErrorKind::Unsupported | ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            Ok(())
        }
        synced => synced.named("sync the directory"),
    }
}

/// A directory's lock, until it is dropped.
#[derive(Debug)]
pub struct FileLock {
    /// The file and, where it can be locked, the directory; who may not write has what can be had of them.
    held: Vec<File>,
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Closing alone is not enough: a process that another thread is just starting has the files open as well for a moment.
        self.held.iter().for_each(|file| drop(file.unlock()));
    }
}

/// Whether there are locks here at all.
fn is_locked(tried: Result<(), std::fs::TryLockError>) -> Result<bool, DiskError> {
    match tried {
        Ok(()) => Ok(true),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(DiskError::new(DiskErrorKind::Locked, "lock the directory"))
        }
        Err(std::fs::TryLockError::Error(_)) => Ok(false),
    }
}

impl Disk for FileDisk {
    type File = FileHandle;
    type Lock = FileLock;

    fn lock(&self) -> Result<FileLock, DiskError> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true);
        let file = self.with_spares(|| options.open(self.at(LOCK))).named("lock the directory")?;
        match file.try_lock() {
            Err(std::fs::TryLockError::Error(error)) => return Err(disk_error(&error, "lock the directory")),
            tried => is_locked(tried)?,
        };
        let mut lock = FileLock { held: Vec::from([file]) };
        if cfg!(unix) {
            // Not the descriptor that this disk has: locks are held by what was opened, and each lock is to be one of its own.
            let directory = self.with_spares(|| File::open(&self.directory)).named("lock the directory")?;
            if is_locked(directory.try_lock())? {
                lock.held.push(directory);
            }
        }
        Ok(lock)
    }

    fn lock_to_read(&self) -> Result<Option<FileLock>, DiskError> {
        match self.lock() {
            Err(error) if error.forbids_writing() => {}
            locked => return locked.map(Some),
        }
        let mut lock = FileLock { held: Vec::new() };
        for path in [self.at(LOCK), self.directory.clone()] {
            // Shared: to others over a network no file can be locked that is not open for writing.
            if let Ok(file) = self.with_spares(|| File::open(&path))
                && is_locked(file.try_lock_shared())?
            {
                lock.held.push(file);
            }
        }
        Ok((!lock.held.is_empty()).then_some(lock))
    }

    fn list(&self) -> Result<Vec<String>, DiskError> {
        let mut names = Vec::new();
        let entries = self.with_spares(|| std::fs::read_dir(&self.directory));
        for entry in entries.named("list the directory")? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry.named("list the directory")?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> Result<FileHandle, DiskError> {
        let path = self.at(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let file = match self.with_spares(|| options.open(&path)) {
            // It can be read at least; a write will say what is wrong.
            Err(error)
                if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) =>
            {
                self.with_spares(|| File::open(&path))
            }
            opened => opened,
        };
        let file = file.named("open a file").map_err(|error| error.with_file(name))?;
        Ok(FileHandle::new(file, name, &self.spares))
    }

    fn create(&self, name: &str, bytes: u64) -> Result<FileHandle, DiskError> {
        let path = self.at(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        let created = self.with_spares(|| options.open(&path));
        let file = created.named("create a file").map_err(|error| error.with_file(name))?;
        if let Err(error) = reserve(&file, bytes) {
            let _ = std::fs::remove_file(&path);
            return Err(disk_error(&error, "reserve room").with_file(name));
        }
        Ok(FileHandle::new(file, name, &self.spares))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let renamed = std::fs::rename(self.at(from), self.at(to));
        renamed.named("rename a file").map_err(|error| error.with_file(from))
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        let removed = std::fs::remove_file(self.at(name));
        removed.named("remove a file").map_err(|error| error.with_file(name))
    }

    fn sync_dir(&self) -> Result<(), DiskError> {
        let opened = self.spares.directory.as_ref();
        opened.map_or_else(|| sync_directory(&self.directory), sync_names)
    }

    fn spare_files(&self) -> usize {
        self.spares.wanted.store(true, Ordering::Relaxed);
        self.spares.keep()
    }
}

/// Reserves room, so that appends neither change the file's length (a sync is 1.5 to 2.6 times as long when they do) nor
/// run out of space.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
    use rustix::io::Errno;
    if bytes == 0 {
        return Ok(());
    }
    // To find out by trying takes a file system long: it hands out all that it has, and takes it back.
    if let Ok(system) = fstatvfs(file) {
        let is_less = |blocks: u64| blocks.saturating_mul(system.f_frsize) < bytes;
        if system.f_blocks > 0 && is_less(system.f_bavail) && (is_less(system.f_bfree) || !may_take_all()) {
            return Err(Errno::NOSPC.into());
        }
    }
    loop {
        match fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Err(Errno::INTR) => {}
            // No reserving on this file system. The file grows as it is written.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
            done => return Ok(done?),
        }
    }
}

/// Whether this thread may use the blocks that file systems keep for root: they are root's by its number, which need have no privileges
/// beside that in a container, and those of the privileged.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn may_take_all() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    rustix::process::geteuid().is_root()
        || capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE))
}

/// Has reads leave the file's access time alone, which nobody asks for: to keep it takes a tenth of a small read from the page cache, and
/// dirties the inode once a day. Only a file's owner may; for others it stays as it is.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn keep_no_access_time(file: &File) {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    if let Ok(flags) = fcntl_getfl(file) {
        let _ = fcntl_setfl(file, flags | OFlags::NOATIME);
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn keep_no_access_time(_: &File) {}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn reserve(_: &File, _: u64) -> io::Result<()> {
    Ok(())
}

impl DiskFile for FileHandle {
    fn size(&self) -> Result<u64, DiskError> {
        let metadata = self.0.file.metadata();
        metadata.map(|found| found.len()).map_err(|error| self.error(&error, "ask for a file's length"))
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize, DiskError> {
        loop {
            match read_some(&self.0.file, offset, into) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => return read.map_err(|error| self.error(&error, "read")),
            }
        }
    }

    fn read_cached(&self, offset: u64, into: &mut [u8]) -> bool {
        if !self.0.opaque.load(Ordering::Relaxed) {
            match read_at_hand(&self.0.file, offset, into) {
                Err(error) if error.kind() == ErrorKind::Unsupported => {}
                read => return read.is_ok_and(|read| read == into.len()),
            }
            self.0.opaque.store(true, Ordering::Relaxed);
        }
        // As ever where nobody asks.
        read_full(self, offset, into).is_ok_and(|read| read == into.len())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        write_full(offset, bytes, |at, rest| write_some(&self.0.file, at, rest))
            .map_err(|error| self.error(&error, "write"))
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.0.file.sync_data().map_err(|error| self.error(&error, "sync"))
    }

    fn truncate(&self, bytes: u64) -> Result<(), DiskError> {
        self.0.file.set_len(bytes).map_err(|error| self.error(&error, "cut a file"))
    }
}

/// Writes all of `bytes`, with as many calls of `write` as that takes.
fn write_full(offset: u64, bytes: &[u8], write: impl Fn(u64, &[u8]) -> io::Result<usize>) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match write(offset + done as u64, &bytes[done..]) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => done += written,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads what needs no waiting, or [`ErrorKind::Unsupported`].
#[cfg(target_os = "linux")]
fn read_at_hand(file: &File, offset: u64, into: &mut [u8]) -> io::Result<usize> {
    use rustix::io::{Errno, ReadWriteFlags, preadv2};
    match preadv2(file, &mut [io::IoSliceMut::new(into)], offset, ReadWriteFlags::NOWAIT) {
        Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => Err(ErrorKind::Unsupported.into()),
        read => Ok(read?),
    }
}

#[cfg(not(target_os = "linux"))]
fn read_at_hand(_: &File, _: u64, _: &mut [u8]) -> io::Result<usize> {
    Err(ErrorKind::Unsupported.into())
}

#[cfg(unix)]
fn read_some(file: &File, offset: u64, into: &mut [u8]) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, into, offset)
}

#[cfg(unix)]
fn write_some(file: &File, offset: u64, bytes: &[u8]) -> io::Result<usize> {
    std::os::unix::fs::FileExt::write_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_some(file: &File, offset: u64, into: &mut [u8]) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, into, offset)
}

#[cfg(windows)]
fn write_some(file: &File, offset: u64, bytes: &[u8]) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_write(file, bytes, offset)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::{Cursor, Options, Read, Reads, Store};

    #[test]
    fn a_write_that_comes_short_is_gone_on_with() {
        let bytes: Vec<u8> = (0..200).collect();
        // At most so many bytes at a time, and each third call is interrupted; then nothing goes any more.
        let attempt = |most: usize, calls_that_go: usize, fails: fn() -> io::Result<usize>| {
            let (file, calls) = (Mutex::new(std::vec![0; 300]), Mutex::new(0));
            let done = write_full(100, &bytes, |at, rest| {
                let mut calls = calls.lock().expect("one thread");
                *calls += 1;
                match *calls {
                    call if call > calls_that_go => fails(),
                    call if call % 3 == 0 => Err(ErrorKind::Interrupted.into()),
                    _ => {
                        let (at, len) = (usize::try_from(at).expect("short"), rest.len().min(most));
                        file.lock().expect("one thread")[at..at + len].copy_from_slice(&rest[..len]);
                        Ok(len)
                    }
                }
            });
            (done.map_err(|error| error.kind()), file.into_inner().expect("one thread"))
        };
        for most in 1..=200 {
            let (done, file) = attempt(most, usize::MAX, || Ok(0));
            assert_eq!((done, &file[100..]), (Ok(()), &bytes[..]), "{most} at a time");
        }
        let (done, file) = attempt(150, 1, || Err(ErrorKind::StorageFull.into()));
        assert_eq!(
            (done, &file[100..250]),
            (Err(ErrorKind::StorageFull), &bytes[..150]),
            "full in the midst"
        );
        assert_eq!(attempt(150, 1, || Ok(0)).0, Err(ErrorKind::WriteZero), "it goes no further");
    }

    /// A store in the build's own directory, which lies on a disk where that can be had.
    #[test]
    fn what_the_page_cache_has_not_is_a_job() {
        let directory = std::env::current_exe().expect("it runs").with_extension("cold");
        let _ = std::fs::remove_dir_all(&directory);
        let disk = FileDisk::open(&directory).expect("room");
        let options = Options::new([1; 16]).with_segment_bytes(1 << 20).with_reads(Reads::Cached);
        let (mut store, _) = Store::open(disk, options).expect("opens");
        let sizes = [100, 100_000];
        for (slot, size) in (0..).zip(sizes) {
            store.put(slot, b"key", &std::vec![7; size], 1).expect("room");
        }
        let is_whole = |read: &Read<FileDisk>, size: usize| matches!(read, Read::Value { value, tag: 1, .. } if *value == std::vec![7; size]);
        for (slot, size) in (0..).zip(sizes) {
            let read = store.get(slot, b"key").expect("readable");
            assert!(is_whole(&read, size), "it was just written: {read:?}");
        }
        store.sync().expect("room");
        let file = File::open(directory.join("0000000000000001.seg")).expect("the segment");
        // A page that some processor has just had in its hands stays; so more than once.
        let forget = || {
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("it may be forgotten")
        };
        forget();
        let mut probe = [0];
        match read_at_hand(&file, 0, &mut probe) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            told => {
                return std::eprintln!("skipped: this file system forgets nothing, or can't tell ({told:?})");
            }
        }
        for (slot, size) in (0..).zip(sizes) {
            let job = (0..10_000).find_map(|_| {
                forget();
                match store.get(slot, b"key").expect("readable") {
                    Read::Pending(job) => Some(job),
                    _ => None,
                }
            });
            let job = job.expect("it is not at hand");
            let read = store.finish_read(job.run()).expect("readable");
            assert!(is_whole(&read, size));
            let again = store.get(slot, b"key").expect("readable");
            assert!(is_whole(&again, size), "it is at hand by now: {again:?}");
        }
        let ahead = |store: &Store<FileDisk>| store.read_ahead(0, Cursor::START, 1, 10);
        let job = (0..10_000).find_map(|_| {
            forget();
            ahead(&store)
        });
        job.expect("it is not at hand").run();
        assert!(ahead(&store).is_none(), "it is at hand by now");
        drop(store);
        std::fs::remove_dir_all(&directory).expect("it is there");
    }
}
