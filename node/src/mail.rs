//! What happened elsewhere on this thread and waits for the driver.

use crate::signal::Signal;
use gramme_quorum::Input;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

/// Bytes of queued messages past which readers let the driver go first.
const ROOM: usize = 256 << 10;

/// A queue of inputs with one reader, the driver. Senders that find it [full](Mailbox::is_full) yield before they
/// read more from their sockets, so it holds little more than one read per connection.
#[derive(Clone)]
pub(crate) struct Mailbox(Rc<Inner>);

struct Inner {
    queue: RefCell<VecDeque<Input>>,
    bytes: Cell<usize>,
    wake: Signal,
}

impl Mailbox {
    /// `wake` is raised at every delivery.
    pub(crate) fn new(wake: Signal) -> Mailbox {
        Mailbox(Rc::new(Inner { queue: RefCell::default(), bytes: Cell::new(0), wake }))
    }

    /// Delivers an input that takes about `bytes` bytes.
    pub(crate) fn deliver(&self, input: Input, bytes: usize) {
        self.0.bytes.set(self.0.bytes.get() + bytes);
        self.0.queue.borrow_mut().push_back(input);
        self.0.wake.raise();
    }

    /// Whether there is enough in it for now.
    pub(crate) fn is_full(&self) -> bool {
        self.0.bytes.get() > ROOM
    }

    /// The driver's side: the oldest input.
    pub(crate) fn next(&self) -> Option<Input> {
        let input = self.0.queue.borrow_mut().pop_front();
        if input.is_none() {
            self.0.bytes.set(0);
        }
        input
    }
}
