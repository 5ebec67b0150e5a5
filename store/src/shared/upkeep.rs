//! Upkeep of the store for many threads: by a thread of its own, or by hand.

use super::{Inside, MutexGuard, SharedStore, State, TURN, UPKEEP_EVERY_BYTES};
use crate::disk::Disk;
use crate::error::WriteError;
use crate::store::Store;
use crate::upkeep::MergeProgress;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;

/// What the upkeep thread copies before it lets others go on.
const STEP_BYTES: usize = 256 << 10;
impl<D: Disk> Inside<D> {
    /// A sync, and then all upkeep: segments with writes that are not durable are left alone by it.
    pub(super) fn attend_to_all<'a>(
        &'a self,
        state: MutexGuard<'a, State<D>>,
    ) -> (MutexGuard<'a, State<D>>, Result<u64, WriteError>) {
        let (state, synced) = self.sync(state);
        if !matches!(synced, Ok(()) | Err(WriteError::NoSpace)) {
            return (state, synced.map(|()| 0));
        }
        // Where what is buffered finds no room, compaction may make it.
        let (state, attended) = self.attend(state);
        let is_in_vain = attended == Ok(0) && synced.is_err();
        (state, if is_in_vain { Err(WriteError::NoSpace) } else { attended })
    }

    /// Steps of upkeep until there is nothing left to do. Others get their turn between the steps, and while a segment is sealed.
    /// Answers the bytes that were given back.
    fn attend<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<D>>,
    ) -> (MutexGuard<'a, State<D>>, Result<u64, WriteError>) {
        let mut freed = 0;
        while !state.closing {
            if state.store.is_none() {
                break;
            }
            // Sealing reads a whole segment: without the lock.
            if let Some(mut job) = state.act(Store::begin_seal) {
                loop {
                    drop(state);
                    let step = catch_unwind(AssertUnwindSafe(|| job.step(STEP_BYTES as u64)));
                    state = self.state();
                    let more = match step {
                        Ok(more) => matches!(more, Ok(true)),
                        Err(panic) => state.give_up(panic),
                    };
                    if !more || state.closing {
                        break;
                    }
                }
                if state.store.is_some() {
                    state.act(|store| store.end_seal(job));
                }
                continue;
            }
            let done = match state.act(|store| store.maintain(STEP_BYTES)) {
                Ok(done) => done,
                Err(error) => return (state, Err(error)),
            };
            freed += done.freed_bytes;
            if done.needs_sync {
                let (after, synced) = self.sync(state);
                state = after;
                if let Err(error) = synced {
                    return (state, Err(error));
                }
            } else if !done.more {
                break;
            }
            drop(state);
            std::thread::yield_now();
            state = self.state();
            self.took_turn(&mut state);
        }
        (state, Ok(freed))
    }

    /// So many bytes more were written or became dead. Upkeep looks around when there are enough.
    pub(super) fn note_unattended(&self, state: &mut State<D>, bytes: usize) {
        state.unattended_bytes = state.unattended_bytes.saturating_add(bytes);
        if state.unattended_bytes >= UPKEEP_EVERY_BYTES {
            self.upkeep.notify_one();
        }
    }

    fn took_turn(&self, state: &mut State<D>) {
        state.turns += 1;
        self.turn.notify_all();
    }

    /// Waits until upkeep has had the store, once: who writes again and again would leave it no time to make room.
    pub(super) fn give_turn<'a>(&'a self, state: MutexGuard<'a, State<D>>) -> MutexGuard<'a, State<D>> {
        let before = state.turns;
        let waits = |state: &mut State<D>| state.turns == before && !state.closing;
        self.turn.wait_timeout_while(state, TURN, waits).unwrap_or_else(PoisonError::into_inner).0
    }

    /// The upkeep thread: maintenance whenever enough has been written, or has become dead.
    pub(super) fn keep_up(&self) {
        let mut state = self.state();
        while !state.closing {
            if state.unattended_bytes < UPKEEP_EVERY_BYTES {
                state = self.upkeep.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.unattended_bytes = 0;
            self.took_turn(&mut state);
            // Where room or files are short what is not synced is in the way of compaction, and nobody else may come to sync it.
            let is_short = state.store.as_ref().is_some_and(|store| store.is_full() || store.few_files);
            let (after, attended) = if is_short { self.attend_to_all(state) } else { self.attend(state) };
            state = after;
            state.upkeep_error = attended.err();
        }
    }
}

impl<D: Disk + Send + 'static> SharedStore<D> {
    /// Does all upkeep that there is to do, here and now: syncs, seals, gives back room, compacts. Answers the bytes of disk
    /// that were given back. The store's own thread does the same after each megabyte that was written, became dead or [expired](Self::set_time); others go on meanwhile.
    ///
    /// # Errors
    /// As for [`Store::maintain`], and as for [`sync`](Self::sync): a merge ends with one.
    pub fn maintain(&self) -> Result<u64, WriteError> {
        let mut state = self.0.inside.state();
        // Its thread need not look at what is attended to here.
        state.unattended_bytes = 0;
        let (_state, freed) = self.0.inside.attend_to_all(state);
        freed
    }

    /// As [`Store::accept_losses`].
    pub fn accept_losses(&self) {
        let mut state = self.0.inside.state();
        state.store.iter_mut().for_each(Store::accept_losses);
        self.0.inside.note_unattended(&mut state, UPKEEP_EVERY_BYTES);
    }

    /// As [`Store::merge_progress`].
    pub fn merge_progress(&self) -> Option<MergeProgress> {
        self.read(|store| store.merge_progress())
    }

    /// Why the upkeep thread's last round ended early; `None` if it got through. [`WriteError::Poisoned`] after a panic of the disk: there
    /// is no upkeep any more, and nothing is written. A full disk is met by the writers too, an
    /// [unreadable](WriteError::Unreadable) record only here.
    pub fn upkeep_error(&self) -> Option<WriteError> {
        self.0.inside.state().upkeep_error.clone()
    }
}
