//! How the writers of the store for many threads share their syncs.
//!
//! Syncs are numbered, and who waits for number *n* is of cohort *n*. Its first member gathers: it naps, not for long, while those that
//! the last sync served come again. The member that makes the cohort whole runs the sync at once, so that nobody is woken for it.
//! Who comes while a sync runs is of the next cohort. At a sync's end its cohort is woken and sees, without the store's lock, that its
//! writes are durable; one member of the next cohort is called to lead that.

use super::{Condvar, Inside, Mutex, MutexGuard, OPEN, State, UPKEEP_EVERY_BYTES};
use crate::disk::Disk;
use crate::error::WriteError;
use crate::store::Store;
use crate::sync::{Durable, Position};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// What is known under the store's lock of the syncs.
#[derive(Debug)]
pub(super) struct Syncs {
    stage: Stage,
    /// The last write that the sync under way covers, or that the last one did.
    through: Option<Position>,
    /// Syncs that have ended, well or not.
    ended: u64,
    /// Writers that wait for the next sync to begin.
    waiting: usize,
    /// Writers that the last sync served, and those that came while it ran: as many are likely to wait for the next.
    expected: usize,
    /// The usual time of a sync.
    time: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nobody leads.
    Idle,
    /// The leader waits for others to come.
    Gathering,
    /// The disk works.
    Syncing,
}

impl Default for Syncs {
    fn default() -> Self {
        Self { stage: Stage::Idle, through: None, ended: 0, waiting: 0, expected: 1, time: Duration::ZERO }
    }
}

#[cfg(test)]
impl Syncs {
    /// As if the last sync had served so many.
    pub(super) fn expect(&mut self, writers: usize) {
        self.expected = writers;
    }
}

/// What is made known to those that wait. Locked after the store, if both are.
#[derive(Debug)]
pub(super) struct Board {
    news: Mutex<News>,
    /// A cohort's by its number: two cohorts at most wait at a time.
    cohorts: [Condvar; 2],
}

#[derive(Debug)]
struct News {
    /// Syncs that have ended.
    ended: u64,
    durable: Durable,
    /// The next cohort has members, and nobody to lead them.
    calls: bool,
    /// Writing has stopped for good.
    stopped: bool,
}

impl Board {
    pub(super) fn new(durable: Durable) -> Self {
        let news = News { ended: 0, durable, calls: false, stopped: false };
        Self { news: Mutex::new(news), cohorts: [Condvar::new(), Condvar::new()] }
    }

    fn cohort(&self, number: u64) -> &Condvar {
        &self.cohorts[usize::from(!number.is_multiple_of(2))]
    }

    /// Waits until sync `number` has ended or writing has stopped, and answers what is durable then; or until this thread is called to see to
    /// that sync, or until `deadline`.
    fn follow(&self, number: u64, deadline: Option<Instant>) -> Option<Durable> {
        let mut is_over = false;
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if news.ended >= number || news.stopped {
                return Some(news.durable);
            }
            // Who gathers leads already.
            if news.calls && news.ended + 1 == number && deadline.is_none() {
                news.calls = false;
                return None;
            }
            if is_over {
                return None;
            }
            let cohort = self.cohort(number);
            news = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                Some(left) => {
                    let (news, waited) =
                        cohort.wait_timeout(news, left).unwrap_or_else(PoisonError::into_inner);
                    is_over = waited.timed_out();
                    news
                }
                None => cohort.wait(news).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

impl<D: Disk> Inside<D> {
    /// Waits until everything through `position` is durable; syncs if nobody else does.
    pub(super) fn wait<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<D>>,
        position: Position,
    ) -> Result<Durable, WriteError> {
        // The sync for which this writer is counted.
        let mut member_of = 0;
        loop {
            let store = state.store.as_ref().expect(OPEN);
            if store.durable().covers(position) {
                let durable = store.durable();
                if state.syncs.stage == Stage::Idle && state.syncs.waiting > 0 {
                    // Who was called and need not lead calls another.
                    self.announce(state);
                }
                return Ok(durable);
            }
            if !store.writable() {
                // The others may wait for one that does as this one does.
                self.announce(state);
                return Err(WriteError::Poisoned);
            }
            let syncs = &mut state.syncs;
            // The one that runs serves all that it covers.
            let is_served = syncs.stage == Stage::Syncing && syncs.through >= Some(position);
            let number = syncs.ended + if is_served || syncs.stage != Stage::Syncing { 1 } else { 2 };
            if member_of != number && !is_served {
                member_of = number;
                syncs.waiting += 1;
            }
            let gathered = match syncs.stage {
                Stage::Idle => self.gather(state),
                Stage::Gathering if syncs.waiting >= syncs.expected => Some(state),
                Stage::Gathering | Stage::Syncing => {
                    drop(state);
                    let durable = self.board.follow(number, None);
                    if let Some(durable) = durable.filter(|durable| durable.covers(position)) {
                        return Ok(durable);
                    }
                    None
                }
            };
            if let Some(state) = gathered {
                let synced = self.run_sync(state);
                if synced == Err(WriteError::NoSpace) {
                    // Upkeep may make the room that was missing.
                    self.state().unattended_bytes = UPKEEP_EVERY_BYTES;
                    self.upkeep.notify_one();
                }
                let durable = synced?;
                if durable.covers(position) {
                    return Ok(durable);
                }
            }
            state = self.state();
        }
    }

    /// Waits for those that the last sync served: they are about to come again, most of them. Without a wait for them writers fall into two
    /// cohorts that take turns, each with half of a sync's worth. It ends after the usual time of a sync. `None` if another took
    /// the sync over meanwhile.
    fn gather<'a>(&'a self, mut state: MutexGuard<'a, State<D>>) -> Option<MutexGuard<'a, State<D>>> {
        let syncs = &mut state.syncs;
        if syncs.waiting >= syncs.expected {
            return Some(state);
        }
        syncs.stage = Stage::Gathering;
        let (number, time) = (syncs.ended + 1, syncs.time);
        drop(state);
        self.board.follow(number, Some(Instant::now() + time));
        let state = self.state();
        let is_mine = state.syncs.stage == Stage::Gathering && state.syncs.ended + 1 == number;
        is_mine.then_some(state)
    }

    /// Runs one sync, without the lock while the disk works. Nobody else may run one.
    fn run_sync<'a>(&'a self, mut state: MutexGuard<'a, State<D>>) -> Result<Durable, WriteError> {
        state.syncs.stage = Stage::Syncing;
        state.syncs.through = state.store.as_ref().map(Store::position);
        let served = std::mem::take(&mut state.syncs.waiting);
        let begun = catch_unwind(AssertUnwindSafe(|| state.act(Store::begin_sync)));
        let done = match begun {
            Ok(None) => return Ok(self.end_sync(state, served)),
            Ok(Some(job)) => {
                drop(state);
                let begun = Instant::now();
                let done = catch_unwind(AssertUnwindSafe(|| job.run()));
                let took = begun.elapsed();
                state = self.state();
                state.syncs.time = (state.syncs.time * 7 + took) / 8;
                done
            }
            Err(panic) => Err(panic),
        };
        let completed = done.and_then(|done| {
            catch_unwind(AssertUnwindSafe(|| state.act(|store| store.complete_sync(done).map(|_| ()))))
        });
        match completed {
            Ok(completed) => {
                let durable = self.end_sync(state, served);
                completed.map(|()| durable)
            }
            Err(panic) => {
                // The others must not wait for it for ever.
                state.store.iter_mut().for_each(Store::give_up);
                self.end_sync(state, served);
                self.state().give_up(panic)
            }
        }
    }

    /// Ends the sync that is under way, which served so many, and lets all go on.
    fn end_sync(&self, mut state: MutexGuard<'_, State<D>>, served: usize) -> Durable {
        let syncs = &mut state.syncs;
        syncs.stage = Stage::Idle;
        syncs.ended += 1;
        syncs.expected = served + syncs.waiting;
        self.announce(state)
    }

    /// Makes known what has come of the syncs. Those whom that concerns are woken without the lock, which is what they need next.
    fn announce(&self, state: MutexGuard<'_, State<D>>) -> Durable {
        let mut news = self.board.news.lock().unwrap_or_else(PoisonError::into_inner);
        let store = state.store.as_ref().expect(OPEN);
        let has_ended = news.ended != state.syncs.ended;
        *news = News {
            ended: state.syncs.ended,
            durable: store.durable(),
            calls: state.syncs.stage == Stage::Idle && state.syncs.waiting > 0,
            stopped: !store.writable(),
        };
        let News { ended, durable, calls, stopped } = *news;
        drop((news, state));
        if has_ended || stopped {
            self.board.cohort(ended).notify_all();
        }
        if stopped {
            self.board.cohort(ended + 1).notify_all();
        } else if calls {
            self.board.cohort(ended + 1).notify_one();
        }
        durable
    }

    /// Syncs, when no sync is under way, and ends that.
    pub(super) fn sync<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<D>>,
    ) -> (MutexGuard<'a, State<D>>, Result<(), WriteError>) {
        while state.syncs.stage == Stage::Syncing {
            if !state.store.as_ref().is_some_and(Store::writable) {
                return (state, Err(WriteError::Poisoned));
            }
            let number = state.syncs.ended + 1;
            drop(state);
            self.board.follow(number, None);
            state = self.state();
        }
        let synced = self.run_sync(state);
        (self.state(), synced.map(|_| ()))
    }
}
