//! What answers may take of this node's memory, for all clients of all protocols together.
//!
//! Counted are answers from the moment a read is handed to the engine (then by an estimate, which the answer's own
//! size replaces) until the socket has taken them. Past the bound reads wait their turn, and no commands are taken in
//! whose answers would add to it. A client that takes no answers while others wait for room is cut off.
//!
//! Not counted is what lies in the system's socket buffers, and what the engine itself holds while it works.

use crate::signal::Signal;
use smol::Timer;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

/// Bytes of all answers of a node whose values have the usual limit.
pub(crate) const ANSWERS: usize = 256 << 20;
/// Answers of more bytes than this are large: they leave room for those that are not.
pub(crate) const LARGE: usize = 64 << 10;
/// Bytes that a client takes at least in one tick, or it takes nothing.
const PACE: usize = 4 << 10;
/// Ticks without taking anything after which a client is cut off, if others wait.
const TICKS: u32 = 5;

/// The account. What it is full of decides who may still add to it: large answers up to three quarters, other reads
/// up to seven eighths, so that a few words can be answered even then.
pub(crate) struct Budget {
    limit: usize,
    used: Cell<usize>,
    /// Reads that wait for room.
    waiting: Cell<usize>,
    /// Raised when they may go on.
    wake: Signal,
    /// Connections that wait to take commands.
    wakers: RefCell<Vec<Waker>>,
    /// How often those were woken.
    wakes: Cell<u64>,
}

impl Budget {
    pub(crate) fn new(limit: usize, wake: Signal) -> Rc<Budget> {
        Rc::new(Budget {
            limit,
            used: Cell::new(0),
            waiting: Cell::new(0),
            wake,
            wakers: RefCell::default(),
            wakes: Cell::new(1),
        })
    }

    /// Bytes that are taken.
    pub(crate) fn used(&self) -> usize {
        self.used.get()
    }

    /// Whether a read that brings `bytes` may begin. One may whenever nothing else is there, whatever it brings.
    pub(crate) fn admits(&self, bytes: usize) -> bool {
        let kept_free = if bytes > LARGE { self.limit / 4 } else { self.limit / 8 };
        self.used.get() == 0 || self.used.get().saturating_add(bytes) <= self.limit - kept_free
    }

    /// Whether that many bytes more are within the bound.
    pub(crate) fn fits(&self, bytes: usize) -> bool {
        self.used.get().saturating_add(bytes) <= self.limit
    }

    /// Whether so little is taken that reads of unknown size may begin.
    pub(crate) fn is_plentiful(&self, bytes: usize) -> bool {
        self.used.get().saturating_add(bytes) <= self.limit / 2
    }

    /// Whether anybody waits for room.
    pub(crate) fn is_short(&self) -> bool {
        self.waiting.get() > 0 || self.used.get() >= self.limit
    }

    /// Whether commands may be taken; if not, `cx` is woken when they may. `asked` is the asking task's own, at first
    /// 0: it tells which call of this was its last, so that it is woken once however often it asks.
    pub(crate) fn has_room(&self, cx: &Context<'_>, asked: &mut u64) -> bool {
        if self.used.get() < self.limit {
            return true;
        }
        if *asked != self.wakes.get() {
            *asked = self.wakes.get();
            self.wakers.borrow_mut().push(cx.waker().clone());
        }
        false
    }

    /// The number of reads that wait for room.
    pub(crate) fn set_waiting(&self, reads: usize) {
        self.waiting.set(reads);
    }

    /// Counts `to` in place of `from`, whether it fits or not.
    pub(crate) fn change(&self, from: usize, to: usize) {
        self.used.set(self.used.get() - from + to);
        if to >= from {
            return;
        }
        if self.waiting.get() > 0 {
            self.wake.raise();
        }
        if self.used.get() < self.limit && !self.wakers.borrow().is_empty() {
            self.wakes.set(self.wakes.get() + 1);
            self.wakers.take().into_iter().for_each(Waker::wake);
        }
    }
}

/// A part of the account, given back when it is dropped.
pub(crate) struct Charge {
    budget: Rc<Budget>,
    bytes: usize,
}

impl Charge {
    /// Of bytes that are counted already.
    pub(crate) fn counted(budget: &Rc<Budget>, bytes: usize) -> Charge {
        Charge { budget: Rc::clone(budget), bytes }
    }

    /// Counts `bytes` from now on, whether they fit or not.
    pub(crate) fn set(&mut self, bytes: usize) {
        if bytes != self.bytes {
            self.budget.change(self.bytes, bytes);
            self.bytes = bytes;
        }
    }

    /// Counts `more` bytes.
    pub(crate) fn grow(&mut self, more: usize) {
        self.set(self.bytes + more);
    }

    /// Takes over what another one counts.
    pub(crate) fn absorb(&mut self, mut other: Charge) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Notices that a client does not take what it is sent, while others wait for the room that this takes.
pub(crate) struct Stall {
    budget: Rc<Budget>,
    tick: Duration,
    timer: Option<Timer>,
    taken: usize,
    ticks: u32,
}

impl Stall {
    /// `patience`: how long a client may take nothing.
    pub(crate) fn new(budget: &Rc<Budget>, patience: Duration) -> Stall {
        Stall { budget: Rc::clone(budget), tick: patience / TICKS, timer: None, taken: 0, ticks: 0 }
    }

    /// The client has taken this much.
    pub(crate) fn took(&mut self, bytes: usize) {
        self.taken += bytes;
    }

    /// The client has taken everything.
    pub(crate) fn end(&mut self) {
        (self.timer, self.taken, self.ticks) = (None, 0, 0);
    }

    /// Whether the client, which has more to take, is to be cut off; if not yet, `cx` is woken to look again.
    pub(crate) fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            let timer = self.timer.get_or_insert_with(|| Timer::after(self.tick));
            if Pin::new(timer).poll(cx).is_pending() {
                return false;
            }
            self.timer = None;
            self.ticks = if std::mem::take(&mut self.taken) < PACE { self.ticks + 1 } else { 0 };
            if self.ticks >= TICKS && self.budget.is_short() {
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::task::Poll;

    const MIB: usize = 1 << 20;

    #[test]
    fn what_is_large_leaves_room_for_what_is_not() {
        let budget = Budget::new(8 * MIB, Signal::default());
        assert!(budget.admits(100 * MIB), "alone anything may begin");
        let mut large = Charge::counted(&budget, 0);
        large.set(6 * MIB);
        assert!(!budget.admits(LARGE + 1));
        assert!(budget.admits(LARGE));
        let mut small = Charge::counted(&budget, 0);
        small.set(MIB);
        assert!(!budget.admits(1));
        let (cx, mut asked) = (Context::from_waker(Waker::noop()), 0);
        assert!(budget.has_room(&cx, &mut asked), "a word can be said");
        small.grow(MIB);
        assert!(!budget.has_room(&cx, &mut asked) && budget.is_short());
        assert!(!budget.has_room(&cx, &mut asked));
        assert_eq!(budget.wakers.borrow().len(), 1);
        large.absorb(small);
        assert_eq!(budget.used(), 8 * MIB);
        drop(large);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn room_that_comes_back_is_told() {
        let wake = Signal::default();
        let budget = Budget::new(MIB, wake.clone());
        let mut charge = Charge::counted(&budget, 0);
        charge.set(MIB);
        budget.set_waiting(1);
        charge.set(MIB / 2);
        smol::block_on(wake.wait());
    }

    #[test]
    fn who_takes_nothing_is_cut_off_only_while_others_wait() {
        let budget = Budget::new(MIB, Signal::default());
        let mut stall = Stall::new(&budget, Duration::from_millis(5));
        let mut until = |condition: fn(&Stall, bool) -> bool| {
            smol::block_on(poll_fn(|cx| {
                let over = stall.is_over(cx);
                if condition(&stall, over) { Poll::Ready(over) } else { Poll::Pending }
            }))
        };
        assert!(!until(|stall, over| over || stall.ticks > TICKS), "nobody waits");
        budget.set_waiting(1);
        until(|_, over| over);
    }
}
