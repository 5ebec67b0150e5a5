//! The store for many threads: writes return when they are durable, and share their syncs.

#[cfg(test)]
mod explore;
mod group_commit;
#[cfg(test)]
mod group_commit_tests;
mod upkeep;

use crate::disk::Disk;
use crate::error::{OpenError, ReadError, WriteError};
use crate::options::{Options, Reads};
use crate::read::{Cursor, Page, Read, ValueRef};
use crate::recovery::{Progress, Recovery};
use crate::scrub::Scrubbed;
use crate::segments::is_short_of_numbers;
use crate::snapshot::Snapshot;
use crate::store::{Stats, Store};
use crate::sync::{Durable, Position};
use core::ops::RangeInclusive;
#[cfg(test)]
use explore::{Condvar, Mutex, MutexGuard};
use group_commit::{Board, Syncs};
use std::any::Any;
use std::boxed::Box;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, PoisonError};
#[cfg(not(test))]
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;
use std::vec::Vec;

/// Upkeep looks around after so many bytes were written, became dead, expired or were not to stay any more.
const UPKEEP_EVERY_BYTES: usize = 1 << 20;
/// A write that is refused for want of room lets upkeep have the store first, and waits no longer for that.
const TURN: Duration = Duration::from_millis(10);
/// Why there is a store behind a handle.
const OPEN: &str = "closed only when no handle is left";

/// A store that any number of threads use at once. Clones are handles to the same store; it is closed when the last is
/// dropped.
///
/// A put or delete returns when it is durable. Writers that wait share one sync: one of them runs it, and the others that
/// come while it runs share the next one, for which it is waited as long as a sync usually takes. Reads of values go past the syncs, and many at a time. A thread of the
/// store's own prepares segments and compacts. What reads the disk with the store locked, so that others wait: a listing, the
/// key that a delete is to remove, a new segment's making, a step of a merge or of scrubbing.
///
/// ```
/// use gramme_store::{MemDisk, Options, SharedStore};
///
/// let (store, _) = SharedStore::open(MemDisk::new(), Options::new([7; 16]))?;
/// let written = std::thread::scope(|scope| {
///     let threads: Vec<_> = (0..8u16)
///         .map(|n| scope.spawn({ let store = store.clone(); move || store.put(n, b"key", b"value", 0) }))
///         .collect();
///     threads.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Result<Vec<_>, _>>()
/// })?;
/// assert_eq!(written.len(), 8);
/// assert_eq!(store.get(5, b"key")?.expect("it was put").bytes, b"value");
/// store.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SharedStore<D: Disk + Send + 'static>(Arc<Owner<D>>);

/// A value that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Value {
    /// The value, as it was put, or its beginning if it may [shrink](SharedStore::put_shrinking).
    pub bytes: Vec<u8>,
    /// The tag that was put with it.
    pub tag: u64,
    /// The time from which on it is absent, if it [expires](SharedStore::put_expiring).
    pub expires: Option<u64>,
}

/// What all handles own together; the upkeep thread has the inside only.
struct Owner<D: Disk + Send + 'static> {
    inside: Arc<Inside<D>>,
    upkeep: Option<JoinHandle<()>>,
}

struct Inside<D: Disk> {
    state: Mutex<State<D>>,
    /// What those that wait for a sync are told.
    board: Board,
    /// There may be something to do for the upkeep thread.
    upkeep: Condvar,
    /// Upkeep has had the store.
    turn: Condvar,
}

struct State<D: Disk> {
    /// Gone when the store is closed.
    store: Option<Store<D>>,
    syncs: Syncs,
    /// Bytes that were written or became dead since upkeep last looked around.
    unattended_bytes: usize,
    /// Why the upkeep thread's last round ended early.
    upkeep_error: Option<WriteError>,
    closing: bool,
    /// How often upkeep has had the store.
    turns: u64,
}

impl<D: Disk + Send + 'static> Clone for SharedStore<D> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<D: Disk> State<D> {
    /// Has the open store do something. Should the disk panic in it, nobody knows what of it was done: writing has stopped for
    /// good.
    fn act<T>(&mut self, act: impl FnOnce(&mut Store<D>) -> T) -> T {
        let store = self.store.as_mut().expect(OPEN);
        match catch_unwind(AssertUnwindSafe(|| act(store))) {
            Ok(done) => done,
            Err(panic) => self.give_up(panic),
        }
    }

    /// Goes on with a panic of the disk, as that of a thread with which writing has stopped for good.
    fn give_up(&mut self, panic: Box<dyn Any + Send>) -> ! {
        self.store.iter_mut().for_each(Store::give_up);
        self.upkeep_error = Some(WriteError::Poisoned);
        resume_unwind(panic)
    }
}

impl<D: Disk> Inside<D> {
    fn new(store: Store<D>) -> Self {
        let board = Board::new(store.durable());
        let state = State {
            store: Some(store),
            syncs: Syncs::default(),
            unattended_bytes: UPKEEP_EVERY_BYTES,
            upkeep_error: None,
            closing: false,
            turns: 0,
        };
        Self { state: Mutex::new(state), board, upkeep: Condvar::new(), turn: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State<D>> {
        // After a panic in another thread the store has [given up](State::act) writing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Disk + Send + 'static> SharedStore<D> {
    /// Opens a store, as [`Store::open`] does, and starts its upkeep thread.
    ///
    /// # Errors
    /// As for [`Store::open`].
    pub fn open(disk: D, options: Options) -> Result<(Self, Recovery), OpenError> {
        Self::open_with(disk, options, |_| {})
    }

    /// [Opens](Self::open) a store and reports progress meanwhile, as [`Store::open_with`] does.
    ///
    /// # Errors
    /// As for [`Store::open`].
    pub fn open_with(
        disk: D,
        options: Options,
        progress: impl FnMut(Progress),
    ) -> Result<(Self, Recovery), OpenError> {
        // Reads as jobs: they are run without the lock.
        let (store, recovery) = Store::open_with(disk, options.with_reads(Reads::Jobs), progress)?;
        let inside = Arc::new(Inside::new(store));
        let thread = std::thread::Builder::new().name("store upkeep".into());
        let upkeep = thread.spawn({
            let inside = inside.clone();
            move || inside.keep_up()
        });
        // Without a thread of its own the store works, but is compacted only by `maintain`.
        let upkeep = upkeep.ok();
        Ok((Self(Arc::new(Owner { inside, upkeep })), recovery))
    }

    /// Makes a write of about so many bytes; `key`: what it replaces.
    fn write(
        &self,
        slot: u16,
        key: &[u8],
        bytes: usize,
        act: impl FnOnce(&mut Store<D>) -> Result<Position, WriteError>,
    ) -> Result<(MutexGuard<'_, State<D>>, Position), WriteError> {
        let inside = &self.0.inside;
        let mut state = inside.state();
        let (dead, written) = state.act(|store| (store.read_bytes(slot, key).unwrap_or(0), act(store)));
        // Upkeep may make the room that is missing, or fewer segments.
        let is_refused = |error: &WriteError| *error == WriteError::NoSpace || is_short_of_numbers(error);
        let refused = written.as_ref().is_err_and(is_refused);
        let unattended = match &written {
            Ok(_) => bytes + dead,
            Err(_) if refused => UPKEEP_EVERY_BYTES,
            Err(_) => 0,
        };
        inside.note_unattended(&mut state, unattended);
        if refused {
            state = inside.give_turn(state);
        }
        written.map(|position| (state, position))
    }

    fn write_durably(
        &self,
        slot: u16,
        key: &[u8],
        bytes: usize,
        act: impl FnOnce(&mut Store<D>) -> Result<Position, WriteError>,
    ) -> Result<Durable, WriteError> {
        let (state, position) = self.write(slot, key, bytes, act)?;
        self.0.inside.wait(state, position)
    }

    fn read<T>(&self, act: impl FnOnce(&mut Store<D>) -> T) -> T {
        self.0.inside.state().act(act)
    }

    /// Sets a key's value, and returns when that is durable. One that is refused for want of
    /// room wakes the upkeep thread and lets it have the store first, for 10 ms at most: try again later.
    ///
    /// # Errors
    /// As for [`Store::put`] (nothing changed), or the sync failed ([`WriteError::Disk`], [`WriteError::Poisoned`], and
    /// [`WriteError::NoSpace`] with a [buffer](Options::with_write_buffer) on a disk that reserves no room: the write can be read, but
    /// may be gone after the next opening).
    pub fn put(&self, slot: u16, key: &[u8], value: &[u8], tag: u64) -> Result<Durable, WriteError> {
        self.write_durably(slot, key, key.len() + value.len(), |store| store.put(slot, key, value, tag))
    }

    /// Removes a key, and returns when that is durable.
    ///
    /// # Errors
    /// As for [`put`](Self::put).
    pub fn delete(&self, slot: u16, key: &[u8]) -> Result<Durable, WriteError> {
        self.write_durably(slot, key, key.len(), |store| store.delete(slot, key))
    }

    /// Removes all keys of a slot, and returns when that is durable.
    ///
    /// # Errors
    /// As for [`put`](Self::put).
    pub fn drop_slot(&self, slot: u16) -> Result<Durable, WriteError> {
        self.write_durably(slot, b"", UPKEEP_EVERY_BYTES, |store| store.drop_slot(slot))
    }

    /// Sets a key's value without waiting: it can be read, and is durable after the next sync.
    ///
    /// # Errors
    /// As for [`Store::put`].
    pub fn put_unsynced(
        &self,
        slot: u16,
        key: &[u8],
        value: &[u8],
        tag: u64,
    ) -> Result<Position, WriteError> {
        let bytes = key.len() + value.len();
        Ok(self.write(slot, key, bytes, |store| store.put(slot, key, value, tag))?.1)
    }

    /// Returns when all writes so far are durable.
    ///
    /// # Errors
    /// [`WriteError::Disk`], [`WriteError::Poisoned`]: it is not known which are. [`WriteError::NoSpace`] as for [`put`](Self::put).
    pub fn sync(&self) -> Result<Durable, WriteError> {
        let state = self.0.inside.state();
        let position = state.store.as_ref().expect(OPEN).position();
        self.0.inside.wait(state, position)
    }

    /// As [`delete`](Self::delete), without waiting: durable after the next sync.
    ///
    /// # Errors
    /// As for [`Store::delete`].
    pub fn delete_unsynced(&self, slot: u16, key: &[u8]) -> Result<Position, WriteError> {
        Ok(self.write(slot, key, key.len(), |store| store.delete(slot, key))?.1)
    }

    /// As [`put_expiring`](Self::put_expiring), without waiting: durable after the next sync.
    ///
    /// # Errors
    /// As for [`Store::put`].
    pub fn put_expiring_unsynced(
        &self,
        slot: u16,
        key: &[u8],
        value: &[u8],
        tag: u64,
        expires: u64,
    ) -> Result<Position, WriteError> {
        let bytes = key.len() + value.len();
        let put = |store: &mut Store<D>| store.put_expiring(slot, key, value, tag, expires);
        Ok(self.write(slot, key, bytes, put)?.1)
    }

    /// As [`put_shrinking`](Self::put_shrinking), without waiting: durable after the next sync.
    ///
    /// # Errors
    /// As for [`Store::put`].
    pub fn put_shrinking_unsynced(
        &self,
        slot: u16,
        key: &[u8],
        value: &[u8],
        tag: u64,
        shrinks: u64,
        kept: usize,
    ) -> Result<Position, WriteError> {
        let bytes = key.len() + value.len();
        let put = |store: &mut Store<D>| store.put_shrinking(slot, key, value, tag, shrinks, kept);
        Ok(self.write(slot, key, bytes, put)?.1)
    }

    /// As [`drop_slot`](Self::drop_slot), without waiting: durable after the next sync.
    ///
    /// # Errors
    /// As for [`Store::drop_slot`].
    pub fn drop_slot_unsynced(&self, slot: u16) -> Result<Position, WriteError> {
        Ok(self.write(slot, b"", UPKEEP_EVERY_BYTES, |store| store.drop_slot(slot))?.1)
    }

    /// As [`Store::flush`].
    ///
    /// # Errors
    /// As for [`Store::flush`].
    pub fn flush(&self) -> Result<(), WriteError> {
        self.read(Store::flush)
    }

    /// A key's value, tag and time of expiry; `None` if it is not there, or has expired. It is that of the last write, which need not be durable:
    /// another thread may be waiting for the sync that makes it so, or [not wait](Self::put_unsynced). A power cut may take what was shown. Who must
    /// not act on that has [`sync`](Self::sync) return first.
    ///
    /// # Errors
    /// As for [`Store::get`]: never for a key that is absent.
    pub fn get(&self, slot: u16, key: &[u8]) -> Result<Option<Value>, ReadError> {
        let owned = |(bytes, tag, expires)| Value { bytes, tag, expires };
        match self.read(|store| store.get(slot, key))? {
            Read::Absent => Ok(None),
            Read::Value { value, tag, expires } => Ok(Some(owned((value, tag, expires)))),
            Read::Pending(job) => match job.run().value()? {
                None => self.read(|store| store.not_found(None)),
                found => Ok(found.map(owned)),
            },
        }
    }

    /// Shows a key's value to `see`: in the disk's own memory, where that [lends](crate::DiskFile::lend) it. The store is not locked
    /// meanwhile: `see` may use it. `None` if the key is absent.
    ///
    /// # Errors
    /// As for [`Store::get`].
    pub fn get_with<R>(
        &self,
        slot: u16,
        key: &[u8],
        see: impl FnOnce(ValueRef<'_>) -> R,
    ) -> Result<Option<R>, ReadError> {
        match self.read(|store| store.get(slot, key))? {
            Read::Absent => Ok(None),
            Read::Value { value, tag, expires } => Ok(Some(see(ValueRef { bytes: &value, tag, expires }))),
            Read::Pending(job) => match job.see(see)? {
                None => self.read(|store| store.not_found(None)),
                seen => Ok(seen),
            },
        }
    }

    /// Gives up this handle and, if it is the last one, closes the store in good order, as [`Store::close`] does; answers
    /// whether it was the last. A handle that is dropped does the same, and an error then is not told.
    ///
    /// # Errors
    /// As for [`Store::close`].
    pub fn close(self) -> Result<bool, WriteError> {
        match Arc::into_inner(self.0) {
            Some(mut owner) => owner.close().map(|()| true),
            None => Ok(false),
        }
    }

    /// As [`Store::tag`].
    pub fn tag(&self, slot: u16, key: &[u8]) -> Option<u64> {
        self.read(|store| store.tag(slot, key))
    }

    /// As [`Store::list`].
    ///
    /// # Errors
    /// As for [`Store::list`].
    pub fn list(&self, slot: u16, cursor: Cursor, limit: usize) -> Result<Page, ReadError> {
        self.read(|store| store.list(slot, cursor, limit))
    }

    /// As [`Store::put_expiring`], and returns when that is durable.
    ///
    /// # Errors
    /// As for [`put`](Self::put).
    pub fn put_expiring(
        &self,
        slot: u16,
        key: &[u8],
        value: &[u8],
        tag: u64,
        expires: u64,
    ) -> Result<Durable, WriteError> {
        self.write_durably(slot, key, key.len() + value.len(), |store| {
            store.put_expiring(slot, key, value, tag, expires)
        })
    }

    /// As [`Store::put_shrinking`], and returns when that is durable.
    ///
    /// # Errors
    /// As for [`put`](Self::put).
    pub fn put_shrinking(
        &self,
        slot: u16,
        key: &[u8],
        value: &[u8],
        tag: u64,
        shrinks: u64,
        kept: usize,
    ) -> Result<Durable, WriteError> {
        self.write_durably(slot, key, key.len() + value.len(), |store| {
            store.put_shrinking(slot, key, value, tag, shrinks, kept)
        })
    }

    /// As [`Store::set_time`]. The upkeep thread gives back what has expired or may shrink by then, when that is a megabyte or so.
    pub fn set_time(&self, now: u64) {
        let inside = &self.0.inside;
        let mut state = inside.state();
        let expired = state.act(|store| {
            let before = store.now;
            store.set_time(now);
            store.expired_since(before)
        });
        let expired =
            expired.map_or(UPKEEP_EVERY_BYTES, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        inside.note_unattended(&mut state, expired);
    }

    /// As [`Store::snapshot`]: writers wait for the taking of it, and not for the copying.
    ///
    /// # Errors
    /// As for [`Store::snapshot`].
    pub fn snapshot(&self) -> Result<Snapshot<D>, WriteError> {
        self.read(|store| store.snapshot())
    }

    /// As [`Store::scrub`], with the lock held: small budgets let the writers in between.
    ///
    /// # Errors
    /// As for [`Store::scrub`].
    pub fn scrub(&self, budget_bytes: usize) -> Result<Scrubbed, ReadError> {
        self.read(|store| store.scrub(budget_bytes))
    }

    /// The root of the [hash tree](Store::tree), and the sum over each of these ranges of slots; `None` without a tree.
    pub fn tree_sums(&self, ranges: &[RangeInclusive<u16>]) -> Option<(u128, Vec<u128>)> {
        self.read(|store| {
            let tree = store.tree()?;
            Some((tree.root(), ranges.iter().map(|range| tree.range(range.clone())).collect()))
        })
    }

    /// Keys in all slots.
    pub fn len(&self) -> u64 {
        self.read(|store| store.len())
    }

    /// As [`Store::slot_len`].
    pub fn slot_len(&self, slot: u16) -> u64 {
        self.read(|store| store.slot_len(slot))
    }

    /// As [`Store::is_full`].
    pub fn is_full(&self) -> bool {
        self.read(|store| store.is_full())
    }

    /// As [`Store::position`].
    pub fn position(&self) -> Position {
        self.read(|store| store.position())
    }

    /// As [`Store::durable`].
    pub fn durable(&self) -> Durable {
        self.read(|store| store.durable())
    }

    /// Whether no slot has a key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether writes can be made at all: no sync or write has failed since the opening.
    pub fn writable(&self) -> bool {
        self.read(|store| store.writable())
    }

    /// What the store holds and takes up.
    pub fn stats(&self) -> Stats {
        self.read(|store| store.stats())
    }
}

impl<D: Disk + Send + 'static> Owner<D> {
    fn close(&mut self) -> Result<(), WriteError> {
        let mut state = self.inside.state();
        state.closing = true;
        self.inside.upkeep.notify_all();
        drop(state);
        if let Some(upkeep) = self.upkeep.take() {
            // It ends after the step that it is at.
            let _ = upkeep.join();
        }
        let store = self.inside.state().store.take();
        store.map_or(Ok(()), Store::close)
    }
}

impl<D: Disk + Send + 'static> Drop for Owner<D> {
    fn drop(&mut self) {
        // What could not be synced is left to the next opening to find.
        let _ = self.close();
    }
}

impl<D: Disk + Send + 'static> std::fmt::Debug for SharedStore<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedStore").field("stats", &self.stats()).finish()
    }
}
