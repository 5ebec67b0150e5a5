//! One HTTP connection as the server sees it: whether it lets us wait, and what it holds of answers that its client has
//! not taken.

use crate::budget::{Charge, Stall};
use crate::handle::Handle;
use crate::signal::Signal;
use smol::io::{AsyncRead, AsyncWrite};
use smol::net::TcpStream;
use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

/// What an answer's head takes, roughly.
const HEAD: usize = 512;

/// Where a connection is with its requests.
#[derive(Clone, Copy)]
enum Phase {
    /// Nothing is asked, or not yet in full, since then.
    Idle(Instant),
    /// A request came then, its body is still to come.
    Receiving(Instant),
    /// A request is being answered.
    Busy,
    /// The answer is being written; then the client last took some of it.
    Answered(Instant),
}

pub(super) struct Client {
    phase: Cell<Phase>,
    /// Counts what is being written.
    unsent: RefCell<Charge>,
    /// Counts what was read for the answer, until that is counted itself.
    read: Cell<Option<Charge>>,
    stall: RefCell<Stall>,
    /// The status by which hyper refused a head.
    refused: RefCell<Option<String>>,
    /// Raised when it has to give way.
    pub(super) end: Signal,
}

impl Client {
    pub(super) fn new(handle: &Handle) -> Client {
        Client {
            phase: Cell::new(Phase::Idle(Instant::now())),
            unsent: RefCell::new(Charge::counted(handle.budget(), 0)),
            read: Cell::new(None),
            stall: RefCell::new(Stall::new(handle.budget(), handle.patience())),
            refused: RefCell::default(),
            end: Signal::default(),
        }
    }

    /// Since when it lets us wait: for a request, for the end of one, or for an answer to be taken. `None` while it
    /// is we who let it wait.
    pub(super) fn waited_for_since(&self) -> Option<Instant> {
        match self.phase.get() {
            Phase::Idle(since) | Phase::Receiving(since) | Phase::Answered(since) => Some(since),
            Phase::Busy => None,
        }
    }

    /// A request has come, perhaps without its body.
    pub(super) fn asked(&self, whole: bool) {
        self.phase.set(if whole { Phase::Busy } else { Phase::Receiving(Instant::now()) });
    }

    /// The body has come.
    pub(super) fn received(&self) {
        self.phase.set(Phase::Busy);
    }

    /// Whether a part of the request is still to come.
    pub(super) fn is_receiving(&self) -> bool {
        matches!(self.phase.get(), Phase::Receiving(_))
    }

    /// What its answer is made from is counted already.
    pub(super) fn read(&self, charge: Charge) {
        self.read.set(Some(charge));
    }

    /// An answer with so large a body is handed over to be written.
    pub(super) fn answered(&self, body: usize) {
        self.phase.set(Phase::Answered(Instant::now()));
        self.unsent.borrow_mut().grow(HEAD + body);
        self.read.set(None);
    }

    /// The status that it is still to be told: of a head that no answer of ours belongs to.
    pub(super) fn refused(&self) -> Option<String> {
        self.refused.take()
    }

    /// Notes what is written before anything was asked: only hyper's own refusals are.
    fn refuses(&self, written: &[u8]) -> bool {
        if let Phase::Idle(_) = self.phase.get()
            && let Some(line) =
                written.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.split(|b| *b == b'\r').next())
        {
            *self.refused.borrow_mut() = Some(String::from_utf8_lossy(line).into_owned());
        }
        self.refused.borrow().is_some()
    }

    /// Whether it does not take its answer, and others wait for the room.
    pub(super) fn is_stalled(&self, cx: &mut Context<'_>) -> bool {
        matches!(self.phase.get(), Phase::Answered(_)) && self.stall.borrow_mut().is_over(cx)
    }
}

/// The connection's socket, without hyper's own refusals, which come with no words. Hyper flushes it exactly when everything it was given has been written.
pub(super) struct Watched {
    pub(super) stream: TcpStream,
    pub(super) client: Rc<Client>,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        if self.client.refuses(from) {
            return Poll::Ready(Ok(from.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, from);
        if let Poll::Ready(Ok(n)) = &written {
            self.client.stall.borrow_mut().took(*n);
            if matches!(self.client.phase.get(), Phase::Answered(_)) {
                self.client.phase.set(Phase::Answered(Instant::now()));
            }
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.client.phase.get(), Phase::Answered(_)) {
            self.client.phase.set(Phase::Idle(Instant::now()));
            self.client.unsent.borrow_mut().set(0);
            self.client.stall.borrow_mut().end();
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.client.refused.borrow().is_some() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
