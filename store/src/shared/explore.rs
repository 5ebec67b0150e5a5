//! Goes through all interleavings of a few threads, for tests: locks and condition variables that let one thread run at a time, and choose
//! at each step which.
//!
//! A thread can be interrupted before it locks, before it notifies, and at each [`point`]. What is chosen there, which waiter is notified and
//! which wait times out, is gone through depth first; what was come to before by another order of the same steps on the same objects is
//! not gone through again. Threads that all wait are a failure, and so is a run without end. Threads outside of an exploration have the standard library's locks.

use crate::checksum::mix;
use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::format;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::string::String;
use std::sync::{Arc, LockResult, PoisonError, TryLockError};
use std::time::{Duration, Instant};
use std::vec::Vec;

std::thread_local! {
    /// The exploration that this thread is part of, and which of its threads it is.
    static PART: RefCell<Option<(Arc<Scheduler>, usize)>> = const { RefCell::new(None) };
    /// Locks and condition variables that this thread has made since its exploration began: their numbers are the same in each run.
    static MADE: Cell<usize> = const { Cell::new(0) };
}

fn part() -> Option<(Arc<Scheduler>, usize)> {
    PART.with_borrow(Clone::clone)
}

fn number() -> usize {
    MADE.replace(MADE.get() + 1)
}

/// The object of [`point`]s.
const OUTSIDE: usize = 63;
const OBJECTS: usize = 64;
/// A run that takes more comes to no end.
const MOST_STEPS: usize = 10_000;

/// Here other threads may come in between: something is done or seen that locks don't guard.
pub(super) fn point() {
    if let Some((scheduler, me)) = part() {
        scheduler.pause(me, Status::Ready);
        scheduler.state().touch(me, OUTSIDE, 1);
    }
}

pub(super) struct Mutex<T> {
    number: usize,
    inner: std::sync::Mutex<T>,
}

impl<T> Mutex<T> {
    pub(super) fn new(content: T) -> Self {
        Self { number: number(), inner: std::sync::Mutex::new(content) }
    }

    pub(super) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let Some((scheduler, me)) = part() else {
            let guard = |inner| MutexGuard { mutex: self, inner: Some(inner) };
            return self.inner.lock().map(guard).map_err(|error| PoisonError::new(guard(error.into_inner())));
        };
        scheduler.pause(me, Status::Locks(self.number));
        Ok(self.taken())
    }

    /// The scheduler has seen to it that nobody has it.
    fn taken(&self) -> MutexGuard<'_, T> {
        let inner = match self.inner.try_lock() {
            Ok(inner) => inner,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Err(TryLockError::WouldBlock) => panic!("a lock that is free was given"),
        };
        MutexGuard { mutex: self, inner: Some(inner) }
    }
}

impl<T> std::fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mutex({})", self.number)
    }
}

pub(super) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// Gone once it was handed to the standard library.
    inner: Option<std::sync::MutexGuard<'a, T>>,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.inner.as_ref().expect("held")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.inner.as_mut().expect("held")
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        let held = self.inner.take().is_some();
        if let Some((scheduler, me)) = part().filter(|_| held) {
            scheduler.state().unlock(me, self.mutex.number);
        }
    }
}

/// Whether a wait ended because its time was over.
pub(super) struct Waited(bool);

impl Waited {
    pub(super) fn timed_out(&self) -> bool {
        self.0
    }
}

#[derive(Debug)]
pub(super) struct Condvar {
    number: usize,
    inner: std::sync::Condvar,
}

impl Condvar {
    pub(super) fn new() -> Self {
        Self { number: number(), inner: std::sync::Condvar::new() }
    }

    pub(super) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        Ok(self.wait_for(guard, None).0)
    }

    pub(super) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        time: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, Waited)> {
        Ok(self.wait_for(guard, Some(time)))
    }

    pub(super) fn wait_timeout_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        time: Duration,
        mut waits: impl FnMut(&mut T) -> bool,
    ) -> LockResult<(MutexGuard<'a, T>, Waited)> {
        let (end, mut waited) = (Instant::now() + time, Waited(false));
        while !waited.0 && waits(&mut guard) {
            (guard, waited) = self.wait_for(guard, Some(end.saturating_duration_since(Instant::now())));
        }
        Ok((guard, waited))
    }

    /// With a time it may time out at any moment.
    fn wait_for<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        time: Option<Duration>,
    ) -> (MutexGuard<'a, T>, Waited) {
        let mutex = guard.mutex;
        let Some((scheduler, me)) = part() else {
            let inner = guard.inner.take().expect("held");
            let (inner, timed_out) = match time {
                Some(time) => {
                    let (inner, result) =
                        self.inner.wait_timeout(inner, time).unwrap_or_else(PoisonError::into_inner);
                    (inner, result.timed_out())
                }
                None => (self.inner.wait(inner).unwrap_or_else(PoisonError::into_inner), false),
            };
            return (MutexGuard { mutex, inner: Some(inner) }, Waited(timed_out));
        };
        drop(guard);
        scheduler.state().touch(me, self.number, 2);
        scheduler.pause(me, Status::Waits { on: self.number, times_out: time.is_some() });
        // Notified, or over: it needs the lock again.
        let timed_out = core::mem::take(&mut scheduler.state().threads[me].timed_out);
        scheduler.pause(me, Status::Locks(mutex.number));
        (mutex.taken(), Waited(timed_out))
    }

    pub(super) fn notify_one(&self) {
        match part() {
            Some((scheduler, me)) => scheduler.notify(me, self.number, false),
            None => self.inner.notify_one(),
        }
    }

    pub(super) fn notify_all(&self) {
        match part() {
            Some((scheduler, me)) => scheduler.notify(me, self.number, true),
            None => self.inner.notify_all(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Ready,
    Locks(usize),
    Waits { on: usize, times_out: bool },
    Ended,
}

#[derive(Clone, Debug)]
struct Thread {
    status: Status,
    timed_out: bool,
    /// Of all that it did, and of what that depended on.
    history: u64,
}

/// One run.
struct Scheduler {
    state: std::sync::Mutex<Run>,
    turns: Vec<std::sync::Condvar>,
}

struct Run {
    threads: Vec<Thread>,
    running: usize,
    locked: [bool; OBJECTS],
    /// Of all that was done to each object.
    histories: [u64; OBJECTS],
    /// What was chosen, and out of how many.
    path: Vec<(usize, usize)>,
    depth: usize,
    /// From here on all was gone through before.
    is_known: bool,
    interruptions: usize,
    bound: usize,
    seen: HashSet<u64>,
    steps: usize,
    failure: Option<String>,
}

impl Run {
    fn touch(&mut self, me: usize, object: usize, what: u64) {
        let thread = &mut self.threads[me].history;
        *thread = mix(*thread ^ mix(self.histories[object] ^ mix(what << 8 | object as u64)));
        self.histories[object] = *thread;
    }

    fn unlock(&mut self, me: usize, mutex: usize) {
        self.locked[mutex] = false;
        self.touch(me, mutex, 3);
    }

    /// One of so many; `what` tells choices apart that come one after the other with nothing done in between.
    fn choose(&mut self, what: u64, options: usize) -> usize {
        if options < 2 {
            return 0;
        }
        if self.depth == self.path.len() {
            if !self.is_known {
                let mut key = mix(what);
                for thread in &self.threads {
                    let status = match thread.status {
                        Status::Ready => 0,
                        Status::Ended => 1,
                        Status::Locks(mutex) => 2 + mutex,
                        Status::Waits { on, times_out } => 100 + 2 * on + usize::from(times_out),
                    };
                    key = mix(mix(key ^ thread.history) ^ status as u64);
                }
                self.is_known = !self.seen.insert(key);
            }
            self.path.push((0, if self.is_known { 1 } else { options }));
        }
        self.depth += 1;
        self.path[self.depth - 1].0
    }

    /// Has the next thread run.
    fn go_on(&mut self, me: usize) {
        self.steps += 1;
        if self.steps > MOST_STEPS {
            return self.fail("no end");
        }
        let can_run = |thread: &Thread| match thread.status {
            Status::Ready => true,
            Status::Locks(mutex) => !self.locked[mutex],
            Status::Waits { times_out, .. } => times_out,
            Status::Ended => false,
        };
        // The one that runs first: so it is interrupted in other runs than the first.
        let others = (0..self.threads.len()).filter(|other| *other != me);
        let mut able: Vec<usize> = core::iter::once(me)
            .chain(others)
            .filter(|one| self.threads.get(*one).is_some_and(can_run))
            .collect();
        let goes_on = able.first() == Some(&me) && !matches!(self.threads[me].status, Status::Waits { .. });
        if goes_on && self.interruptions >= self.bound {
            able.truncate(1);
        }
        if able.is_empty() {
            if self.threads.iter().any(|thread| thread.status != Status::Ended) {
                self.fail("all wait");
            }
            return;
        }
        // Where there is no bound it does not matter who runs now.
        let what = if self.bound == usize::MAX { 0 } else { (self.interruptions << 8 | me << 1) as u64 };
        let next = able[self.choose(what, able.len())];
        self.interruptions += usize::from(goes_on && next != me);
        self.running = next;
        match self.threads[next].status {
            Status::Locks(mutex) => {
                self.locked[mutex] = true;
                self.touch(next, mutex, 4);
            }
            Status::Waits { on, .. } => {
                self.threads[next].timed_out = true;
                self.touch(next, on, 5);
            }
            _ => {}
        }
        self.threads[next].status = Status::Ready;
    }

    fn fail(&mut self, why: &str) {
        let states: Vec<_> = self.threads.iter().map(|thread| thread.status).collect();
        self.failure.get_or_insert_with(|| format!("{why}: {states:?}"));
    }
}

impl Scheduler {
    fn state(&self) -> std::sync::MutexGuard<'_, Run> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets others run, until this thread is chosen to go on.
    fn pause(&self, me: usize, status: Status) {
        let mut state = self.state();
        if state.failure.is_none() {
            state.threads[me].status = status;
            state.go_on(me);
        }
        self.take_turn(state, me);
    }

    fn take_turn(&self, mut state: std::sync::MutexGuard<'_, Run>, me: usize) {
        if state.running != me || state.failure.is_some() {
            self.turns.iter().for_each(std::sync::Condvar::notify_all);
        }
        while state.running != me && state.failure.is_none() {
            state = self.turns[me].wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let failed = state.failure.is_some();
        drop(state);
        // What is dropped on the way out of a panic must not panic.
        assert!(!failed || std::thread::panicking(), "another thread failed");
    }

    fn notify(&self, me: usize, condvar: usize, all: bool) {
        self.pause(me, Status::Ready);
        let mut state = self.state();
        let waits = |thread: &Thread| matches!(thread.status, Status::Waits { on, .. } if on == condvar);
        let mut waiting: Vec<usize> =
            (0..state.threads.len()).filter(|one| waits(&state.threads[*one])).collect();
        if !all && !waiting.is_empty() {
            let chosen = state.choose(1, waiting.len());
            waiting = Vec::from([waiting[chosen]]);
        }
        state.touch(me, condvar, 6);
        for one in waiting {
            state.threads[one].status = Status::Ready;
            state.touch(one, condvar, 7);
        }
    }

    fn run(self: &Arc<Self>, me: usize, act: Box<dyn FnOnce() + Send + '_>) {
        PART.set(Some((self.clone(), me)));
        let done = catch_unwind(AssertUnwindSafe(|| {
            self.take_turn(self.state(), me);
            act();
        }));
        PART.set(None);
        let mut state = self.state();
        if let Err(panic) = done {
            let why = panic.downcast_ref::<String>().map(String::as_str);
            state.fail(why.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic"));
        }
        state.threads[me].status = Status::Ended;
        if state.failure.is_none() {
            state.go_on(me);
        }
        self.turns.iter().for_each(std::sync::Condvar::notify_all);
    }
}

/// Runs the threads that `make` makes in every order in which a thread that could go on is interrupted `bound` times at most; answers how
/// many runs that took.
///
/// # Errors
/// Why a run failed.
pub(super) fn explore<'t>(
    bound: usize,
    make: impl Fn() -> Vec<Box<dyn FnOnce() + Send + 't>>,
) -> Result<u64, String> {
    let (mut path, mut seen, mut runs): (Vec<(usize, usize)>, _, _) = (Vec::new(), HashSet::new(), 0);
    loop {
        MADE.set(0);
        let acts = make();
        let thread = |n| Thread { status: Status::Ready, timed_out: false, history: mix(n) };
        let mut state = Run {
            threads: (0..).map(thread).take(acts.len()).collect(),
            running: 0,
            locked: [false; OBJECTS],
            histories: [0; OBJECTS],
            path,
            depth: 0,
            is_known: false,
            interruptions: 0,
            bound,
            seen,
            steps: 0,
            failure: None,
        };
        // Nobody runs, and one is chosen to.
        state.go_on(acts.len());
        let turns = acts.iter().map(|_| std::sync::Condvar::new()).collect();
        let scheduler = Arc::new(Scheduler { state: std::sync::Mutex::new(state), turns });
        std::thread::scope(|scope| {
            for (me, act) in acts.into_iter().enumerate() {
                let scheduler = &scheduler;
                scope.spawn(move || scheduler.run(me, act));
            }
        });
        runs += 1;
        let mut state = scheduler.state();
        if let Some(failure) = state.failure.take() {
            return Err(format!("{failure}; run {runs}, choices {:?}", state.path));
        }
        (path, seen) = (core::mem::take(&mut state.path), core::mem::take(&mut state.seen));
        // The last choice that has another way to go.
        while path.last().is_some_and(|(chosen, of)| chosen + 1 == *of) {
            path.pop();
        }
        match path.last_mut() {
            Some((chosen, _)) => *chosen += 1,
            None => return Ok(runs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn boxed<'t>(act: impl FnOnce() + Send + 't) -> Box<dyn FnOnce() + Send + 't> {
        Box::new(act)
    }

    #[test]
    fn every_order_is_met_and_none_more_than_its_bound_allows() {
        for (bound, expected) in [(0, 2), (1, 4), (usize::MAX, 6)] {
            let orders = std::sync::Mutex::new(BTreeSet::new());
            let runs = explore(bound, || {
                let taken = Arc::new(Mutex::new(Vec::new()));
                let thread = |me: u8| {
                    let (taken, orders) = (taken.clone(), &orders);
                    boxed(move || {
                        for _ in 0..2 {
                            let mut taken = taken.lock().expect("no panic");
                            taken.push(me);
                            if taken.len() == 4 {
                                orders.lock().expect("no panic").insert(taken.clone());
                            }
                        }
                    })
                };
                Vec::from([thread(1), thread(2)])
            });
            assert!(runs.expect("nothing fails") >= expected);
            assert_eq!(orders.into_inner().expect("no panic").len() as u64, expected, "{bound}");
        }
    }

    #[test]
    fn a_wake_up_that_may_be_lost_is_found_and_one_that_times_out_is_none() {
        let wait = |times_out: bool, first_looks: bool| {
            explore(usize::MAX, || {
                let both = Arc::new((Mutex::new(false), Condvar::new()));
                let other = both.clone();
                let waits = boxed(move || {
                    let mut is_done = both.0.lock().expect("no panic");
                    if times_out {
                        is_done = both.1.wait_timeout(is_done, Duration::ZERO).expect("no panic").0;
                    } else if !(first_looks && *is_done) {
                        is_done = both.1.wait(is_done).expect("no panic");
                    }
                    drop(is_done);
                });
                let notifies = boxed(move || {
                    *other.0.lock().expect("no panic") = true;
                    other.1.notify_one();
                });
                Vec::from([waits, notifies])
            })
        };
        assert!(wait(false, false).expect_err("it may wait too late").starts_with("all wait"));
        assert!(wait(false, true).is_ok());
        assert!(wait(true, false).is_ok());
    }
}
