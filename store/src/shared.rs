//! The store for many threads: writes return when they are durable, and share their syncs.

use crate::disk::Disk;
use crate::error::{OpenError, ReadError, WriteError};
use crate::options::Options;
use crate::read::{Cursor, Page, Read};
use crate::recovery::Recovery;
use crate::scrub::Scrubbed;
use crate::snapshot::Snapshot;
use crate::store::{Stats, Store};
use crate::sync::{Durable, Position};
use core::ops::RangeInclusive;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::vec::Vec;

/// What the upkeep thread copies before it lets others go on.
const STEP_BYTES: usize = 256 << 10;
/// Upkeep looks around after so many bytes of writes.
const UPKEEP_EVERY_BYTES: usize = 1 << 20;

/// A store that any number of threads use at once. Clones are handles to the same store; it is closed when the last is
/// dropped.
///
/// A put or delete returns when it is durable. Writers that wait share one sync: the first of them runs it, and the others that
/// come while it runs share the next one. Reads go past the syncs, and many at a time. A thread of the
/// store's own prepares segments and compacts.
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
/// assert_eq!(store.get(5, b"key")?, Some((b"value".to_vec(), 0)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SharedStore<D: Disk + Send + 'static>(Arc<Owner<D>>);

/// What all handles own together; the upkeep thread has the inside only.
struct Owner<D: Disk + Send + 'static> {
    inside: Arc<Inside<D>>,
    upkeep: Option<JoinHandle<()>>,
}

struct Inside<D: Disk> {
    state: Mutex<State<D>>,
    /// A sync has ended.
    synced: Condvar,
    /// All writers that are likely to come wait; heard by the one that is about to sync.
    gathered: Condvar,
    /// There may be something to do for the upkeep thread.
    upkeep: Condvar,
}

struct State<D: Disk> {
    /// Gone when the store is closed.
    store: Option<Store<D>>,
    /// A thread runs a sync, or is about to.
    leader: bool,
    /// Writers whose writes no sync has covered yet, the leader among them.
    waiting: usize,
    /// Writers that the last sync served, and those that came while it ran: as many are likely to wait for the next.
    expected: usize,
    /// The usual time of a sync.
    sync_time: Duration,
    unattended_bytes: usize,
    closing: bool,
}

impl<D: Disk + Send + 'static> Clone for SharedStore<D> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<D: Disk> Inside<D> {
    fn state(&self) -> MutexGuard<'_, State<D>> {
        // A panic in another thread was between two operations of the store, or in one that had not changed it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until everything through `position` is durable; syncs if nobody else does.
    fn wait<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<D>>,
        position: Position,
    ) -> Result<Durable, WriteError> {
        if !self.durable(&state).covers(position) {
            state.waiting += 1;
            if state.waiting == state.expected {
                self.gathered.notify_one();
            }
        }
        loop {
            let durable = self.durable(&state);
            if durable.covers(position) {
                return Ok(durable);
            }
            if !state.store.as_ref().is_some_and(Store::writable) {
                return Err(WriteError::Poisoned);
            }
            if state.leader {
                state = self.synced.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.leader = true;
            let (after, result) = self.lead(state);
            state = after;
            state.leader = false;
            self.synced.notify_all();
            result?;
        }
    }

    fn durable(&self, state: &State<D>) -> Durable {
        state.store.as_ref().expect("closed only when no handle is left").durable()
    }

    /// Runs one sync, without the lock while the disk works.
    fn lead<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<D>>,
    ) -> (MutexGuard<'a, State<D>>, Result<(), WriteError>) {
        // Those that the last sync served are about to come again, most of them. Without a wait for them writers fall into two
        // cohorts that take turns, each with half of a sync's worth. It ends when nobody has come for a quarter of the usual time
        // of a sync, and in any case after the whole of it.
        for _ in 0..4 {
            let before = state.waiting;
            if before >= state.expected {
                break;
            }
            let quarter = state.sync_time / 4;
            let missing = |state: &mut State<D>| state.waiting < state.expected;
            (state, _) = self
                .gathered
                .wait_timeout_while(state, quarter, missing)
                .unwrap_or_else(PoisonError::into_inner);
            if state.waiting == before {
                break;
            }
        }
        let served = state.waiting;
        let Some(job) = state.store.as_mut().and_then(Store::begin_sync) else { return (state, Ok(())) };
        drop(state);
        let begun = Instant::now();
        let done = job.run();
        let took = begun.elapsed();
        let mut state = self.state();
        state.sync_time = (state.sync_time * 7 + took) / 8;
        state.expected = state.waiting;
        state.waiting -= served;
        let result = state.store.as_mut().map_or(Ok(()), |store| store.complete_sync(done).map(|_| ()));
        (state, result)
    }

    /// The upkeep thread: steps of maintenance whenever enough has been written.
    fn keep_up(&self) {
        let mut state = self.state();
        while !state.closing {
            if state.unattended_bytes < UPKEEP_EVERY_BYTES {
                state = self.upkeep.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.unattended_bytes = 0;
            loop {
                let Some(store) = &mut state.store else { return };
                // Sealing reads a whole segment: without the lock.
                if let Some(mut job) = store.begin_seal() {
                    drop(state);
                    while let Ok(true) = job.step(STEP_BYTES as u64) {}
                    state = self.state();
                    let Some(store) = &mut state.store else { return };
                    store.end_seal(job);
                    continue;
                }
                // An error is met by the writers, too, when they need what could not be made.
                let Ok(done) = store.maintain(STEP_BYTES) else { break };
                if done.needs_sync {
                    while state.leader {
                        state = self.synced.wait(state).unwrap_or_else(PoisonError::into_inner);
                    }
                    state.leader = true;
                    let (after, _) = self.lead(state);
                    state = after;
                    state.leader = false;
                    self.synced.notify_all();
                } else if !done.more {
                    break;
                }
                if state.closing {
                    return;
                }
                // Let the writers in between two steps.
                drop(state);
                std::thread::yield_now();
                state = self.state();
            }
        }
    }
}

impl<D: Disk + Send + 'static> SharedStore<D> {
    /// Opens a store, as [`Store::open`] does, and starts its upkeep thread.
    ///
    /// # Errors
    /// As for [`Store::open`].
    pub fn open(disk: D, options: Options) -> Result<(Self, Recovery), OpenError> {
        // Reads as jobs: they are run without the lock.
        let (store, recovery) = Store::open(disk, options.with_inline_reads(false))?;
        let state = State {
            store: Some(store),
            leader: false,
            waiting: 0,
            expected: 1,
            sync_time: Duration::ZERO,
            unattended_bytes: UPKEEP_EVERY_BYTES,
            closing: false,
        };
        let inside = Arc::new(Inside {
            state: Mutex::new(state),
            synced: Condvar::new(),
            gathered: Condvar::new(),
            upkeep: Condvar::new(),
        });
        let thread = std::thread::Builder::new().name("store upkeep".into());
        let upkeep = thread.spawn({
            let inside = inside.clone();
            move || inside.keep_up()
        });
        // Without a thread of its own the store works, but is compacted only by `maintain`.
        let upkeep = upkeep.ok();
        Ok((Self(Arc::new(Owner { inside, upkeep })), recovery))
    }

    fn write(
        &self,
        bytes: usize,
        wait: bool,
        act: impl FnOnce(&mut Store<D>) -> Result<Position, WriteError>,
    ) -> Result<(Position, Option<Durable>), WriteError> {
        let inside = &self.0.inside;
        let mut state = inside.state();
        let position = act(state.store.as_mut().expect("closed only when no handle is left"))?;
        state.unattended_bytes += bytes;
        if state.unattended_bytes >= UPKEEP_EVERY_BYTES {
            inside.upkeep.notify_one();
        }
        let durable = if wait { Some(inside.wait(state, position)?) } else { None };
        Ok((position, durable))
    }

    fn read<T>(&self, act: impl FnOnce(&mut Store<D>) -> T) -> T {
        act(self.0.inside.state().store.as_mut().expect("closed only when no handle is left"))
    }

    /// Sets a key's value, and returns when that is durable.
    ///
    /// # Errors
    /// As for [`Store::put`] (nothing changed), or the sync failed ([`WriteError::Disk`], [`WriteError::Poisoned`]: the write can be
    /// read, but may be gone after the next opening).
    pub fn put(&self, slot: u16, key: &[u8], value: &[u8], tag: u64) -> Result<Durable, WriteError> {
        let written = self.write(key.len() + value.len(), true, |store| store.put(slot, key, value, tag))?;
        Ok(written.1.expect("it was waited for"))
    }

    /// Removes a key, and returns when that is durable.
    ///
    /// # Errors
    /// As for [`put`](Self::put).
    pub fn delete(&self, slot: u16, key: &[u8]) -> Result<Durable, WriteError> {
        let written = self.write(key.len(), true, |store| store.delete(slot, key))?;
        Ok(written.1.expect("it was waited for"))
    }

    /// Removes all keys of a slot, and returns when that is durable.
    ///
    /// # Errors
    /// As for [`put`](Self::put).
    pub fn drop_slot(&self, slot: u16) -> Result<Durable, WriteError> {
        let written = self.write(UPKEEP_EVERY_BYTES, true, |store| store.drop_slot(slot))?;
        Ok(written.1.expect("it was waited for"))
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
        Ok(self.write(key.len() + value.len(), false, |store| store.put(slot, key, value, tag))?.0)
    }

    /// Returns when all writes so far are durable.
    ///
    /// # Errors
    /// [`WriteError::Disk`], [`WriteError::Poisoned`]: it is not known which are.
    pub fn sync(&self) -> Result<Durable, WriteError> {
        let state = self.0.inside.state();
        let position = state.store.as_ref().expect("closed only when no handle is left").position();
        self.0.inside.wait(state, position)
    }

    /// A key's value and tag; `None` if it is not there.
    ///
    /// # Errors
    /// As for [`Store::get`]: never for a key that is absent.
    pub fn get(&self, slot: u16, key: &[u8]) -> Result<Option<(Vec<u8>, u64)>, ReadError> {
        match self.read(|store| store.get(slot, key))? {
            Read::Absent => Ok(None),
            Read::Value { value, tag, .. } => Ok(Some((value, tag))),
            Read::Pending(job) => Ok(job.run().value()?.map(|(value, tag, _)| (value, tag))),
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
        let written = self.write(key.len() + value.len(), true, |store| {
            store.put_expiring(slot, key, value, tag, expires)
        })?;
        Ok(written.1.expect("it was waited for"))
    }

    /// As [`Store::set_time`].
    pub fn set_time(&self, now: u64) {
        self.read(|store| store.set_time(now));
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

impl<D: Disk + Send + 'static> Drop for Owner<D> {
    fn drop(&mut self) {
        let mut state = self.inside.state();
        state.closing = true;
        self.inside.upkeep.notify_all();
        drop(state);
        if let Some(upkeep) = self.upkeep.take() {
            // It ends after the step that it is at.
            let _ = upkeep.join();
        }
        let store = self.inside.state().store.take();
        if let Some(store) = store {
            // What could not be synced is left to the next opening to find.
            let _ = store.close();
        }
    }
}

impl<D: Disk + Send + 'static> std::fmt::Debug for SharedStore<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedStore").field("stats", &self.stats()).finish()
    }
}
