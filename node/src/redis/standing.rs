//! What a connection takes of what all share, and what it is told when that is too much.

use std::cell::{Cell, OnceCell};
use std::task::Waker;
use std::time::{Duration, Instant};

/// One connection's standing among others.
pub(super) struct Standing {
    /// Bytes that it keeps of a command that is not complete.
    pub(super) held: Cell<usize>,
    waits: Cell<Waits>,
    /// When its client last sent the end of a command, or took some of an answer.
    moved: Cell<Instant>,
    verdict: Cell<Option<Verdict>>,
    waker: OnceCell<Waker>,
}

/// What a connection waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    /// The first command, the rest of one, or that an answer is taken.
    Midway,
    /// The next command.
    Idle,
    /// Nothing of its client's: commands are being performed.
    Busy,
}

/// What a connection is to do for the sake of others.
#[derive(Clone, Copy)]
pub(super) enum Verdict {
    /// End: another client needs the place.
    GiveWay,
    /// Let go of an incomplete command, say so, and end.
    TooMuch,
}

impl Standing {
    /// Of a connection that begins.
    pub(super) fn new() -> Standing {
        Standing {
            held: Cell::new(0),
            waits: Cell::new(Waits::Midway),
            moved: Cell::new(Instant::now()),
            verdict: Cell::new(None),
            waker: OnceCell::new(),
        }
    }

    /// The connection runs as the task that this wakes.
    pub(super) fn runs_as(&self, waker: &Waker) {
        self.waker.get_or_init(|| waker.clone());
    }

    /// What it waits for from now on. `moved`: its client did something for it.
    pub(super) fn set_waits(&self, waits: Waits, moved: bool) {
        self.waits.set(waits);
        if moved {
            self.moved.set(Instant::now());
        }
    }

    /// The smallest is the first to give way: those in the middle of something for longer than `patience`, then all,
    /// each by how long it has let us wait. `None` while we let it wait.
    pub(super) fn rank(&self, patience: Duration) -> Option<(bool, Instant)> {
        let since = self.moved.get();
        match self.waits.get() {
            Waits::Midway => Some((since.elapsed() <= patience, since)),
            Waits::Idle => Some((true, since)),
            Waits::Busy => None,
        }
    }

    /// Tells the connection what to do.
    pub(super) fn judge(&self, verdict: Verdict) {
        self.verdict.set(Some(verdict));
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    /// What it was told since the last call.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        self.verdict.take()
    }
}
