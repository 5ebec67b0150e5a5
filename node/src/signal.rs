//! A flag that one task waits for and others raise, on one thread.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Raised any number of times, seen once. One task at a time may wait.
#[derive(Clone, Default)]
pub(crate) struct Signal(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    raised: bool,
    waiter: Option<Waker>,
}

impl Signal {
    /// Wakes the waiter, or lets the next wait return at once.
    pub(crate) fn raise(&self) {
        let waiter = {
            let mut state = self.0.borrow_mut();
            state.raised = true;
            state.waiter.take()
        };
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    /// Returns once the signal was raised, and lowers it.
    pub(crate) async fn wait(&self) {
        poll_fn(|cx| {
            let mut state = self.0.borrow_mut();
            if std::mem::take(&mut state.raised) {
                Poll::Ready(())
            } else {
                state.waiter = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await;
    }
}
