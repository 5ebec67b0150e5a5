//! One client's connection: reads as long as commands may be taken, starts them at once, writes what is answered
//! in one go when nothing else is to be done.

use super::command::{self, Next, Session};
use super::pipeline::Pipeline;
use super::resp::{Parser, ProtocolError, Request};
use super::standing::{Verdict, Waits};
use super::write::Writer;
use super::{Client, Server};
use crate::budget::Stall;
use crate::stop::Stop;
use smol::Async;
use std::future::{Future, poll_fn};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Room that a connection's answers may keep between requests.
const KEEP_BYTES: usize = 1 << 10;
/// Turns after which a busy connection lets others go first.
const TURNS: usize = 16;

/// How long a client that was told off may take to close.
const LINGER: Duration = Duration::from_secs(1);

/// A socket that remembers what it waits for, so that being woken for another reason costs no system call.
struct Socket {
    stream: Arc<Async<TcpStream>>,
    await_readable: bool,
    await_writable: bool,
}

impl Socket {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            if self.await_readable {
                match self.stream.poll_readable(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(result) => result?,
                }
                self.await_readable = false;
            }
            match self.stream.get_ref().read(into) {
                Ok(n) => {
                    // A short read emptied the socket: the next begins with waiting.
                    self.await_readable = n > 0 && n < into.len();
                    return Poll::Ready(Ok(n));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.await_readable = true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            if self.await_writable {
                match self.stream.poll_writable(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(result) => result?,
                }
                self.await_writable = false;
            }
            match self.stream.get_ref().write(from) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(n) => return Poll::Ready(Ok(n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.await_writable = true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

pub(super) struct Connection {
    server: Rc<Server>,
    client: Rc<Client>,
    socket: Socket,
    parser: Parser,
    pipeline: Pipeline,
    writer: Writer,
    /// Bytes of the writer that were sent.
    sent: usize,
    /// No further command is taken: the client left, asked to, or sent nonsense.
    closing: bool,
    /// The parser may hold a command.
    unparsed: bool,
    /// The client sent a command or took of an answer since it was last noted.
    moved: bool,
    /// A first command came.
    greeted: bool,
    stall: Stall,
    /// When it last asked for room for answers.
    asked: u64,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.server.hold(&self.client, 0);
    }
}

impl Connection {
    pub(super) fn new(server: Rc<Server>, client: Rc<Client>, stream: Arc<Async<TcpStream>>) -> Connection {
        Connection {
            socket: Socket { stream, await_readable: false, await_writable: false },
            parser: Parser::new(server.bounds.command),
            pipeline: Pipeline::new(server.handle.clone(), server.hasher.clone()),
            writer: Writer::default(),
            sent: 0,
            closing: false,
            unparsed: false,
            moved: false,
            greeted: false,
            stall: Stall::new(server.handle.budget(), server.handle.patience()),
            asked: 0,
            server,
            client,
        }
    }

    /// The client's number.
    pub(super) fn client(&self) -> u64 {
        self.client.id
    }

    /// Serves until the client leaves, or a stop is requested and what was in flight is answered.
    pub(super) async fn run(mut self, stop: Stop) -> io::Result<()> {
        let mut stopped = pin!(stop.requested());
        poll_fn(|cx| {
            if !self.closing && stopped.as_mut().poll(cx).is_ready() {
                self.closing = true;
            }
            self.client.standing.runs_as(cx.waker());
            let outcome = self.poll(cx);
            self.note();
            outcome
        })
        .await?;
        smol::future::or(self.linger(), async {
            let too_long = async {
                smol::Timer::after(LINGER).await;
            };
            smol::future::or(stop.requested(), too_long).await;
            Ok(())
        })
        .await
    }

    /// Waits for the client to close, reading what it still sends: a socket that is closed with unread bytes
    /// takes back the last answers, and the client would never learn what it did wrong.
    async fn linger(&mut self) -> io::Result<()> {
        self.socket.stream.get_ref().shutdown(Shutdown::Write)?;
        poll_fn(|cx| {
            if let Some(Verdict::GiveWay) = self.client.standing.verdict() {
                return Poll::Ready(Ok(()));
            }
            for _ in 0..TURNS {
                let mut scratch = self.server.scratch.borrow_mut();
                match self.socket.poll_read(cx, &mut scratch) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(n)) if n > 0 => {}
                    Poll::Ready(end) => return Poll::Ready(end.map(drop)),
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for _ in 0..TURNS {
            match self.client.standing.verdict() {
                Some(Verdict::GiveWay) => return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
                Some(Verdict::TooMuch) => self.let_go(),
                None => {}
            }
            let room = self.server.handle.budget().has_room(cx, &mut self.asked);
            // Everything that can be started or answered now is, before anything is sent.
            let progress = (room && self.take_commands())
                | self.pipeline.collect(cx, &mut self.writer)
                | (room && self.read(cx)?);
            self.count();
            if progress {
                continue;
            }
            if self.unsent() == 0 {
                return if self.closing && self.pipeline.is_empty() {
                    Poll::Ready(Ok(()))
                } else {
                    Poll::Pending
                };
            }
            match self.socket.poll_write(cx, &self.writer.out[self.sent..]) {
                Poll::Pending if self.stall.is_over(cx) => {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                Poll::Pending => return Poll::Pending,
                Poll::Ready(result) => {
                    let n = result?;
                    self.sent += n;
                    self.stall.took(n);
                    self.moved = true;
                }
            }
            if self.unsent() == 0 {
                self.sent = 0;
                self.writer.out.clear();
                self.writer.out.shrink_to(KEEP_BYTES);
                self.stall.end();
                self.count();
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Counts what it holds of answers, beyond what every connection may keep.
    fn count(&mut self) {
        let kept = self.writer.out.capacity();
        self.pipeline.count(if kept > KEEP_BYTES { kept } else { 0 });
    }

    fn unsent(&self) -> usize {
        self.writer.out.len() - self.sent
    }

    /// Reads once, if commands may be taken. Says whether bytes came.
    fn read(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        if self.closing || self.unparsed || !self.pipeline.accepts(self.unsent()) {
            return Ok(false);
        }
        let mut scratch = self.server.scratch.borrow_mut();
        let Poll::Ready(n) = self.socket.poll_read(cx, &mut scratch) else { return Ok(false) };
        match n? {
            0 => self.closing = true,
            n => {
                self.parser.feed(&scratch[..n]);
                self.unparsed = true;
            }
        }
        Ok(true)
    }

    /// Starts commands that were read. Says whether there were any.
    fn take_commands(&mut self) -> bool {
        let mut progress = false;
        while self.unparsed && !self.closing && self.pipeline.accepts(self.writer.out.len() - self.sent) {
            let request = match self.parser.next_command() {
                Ok(Some(request)) => request,
                Ok(None) => {
                    self.unparsed = false;
                    self.server.hold(&self.client, self.parser.kept());
                    return progress;
                }
                Err(error) => {
                    self.protocol_error(error);
                    return true;
                }
            };
            progress = true;
            (self.moved, self.greeted) = (true, true);
            // An answer known at once is written at once if nothing is before it, else queued.
            let direct = self.pipeline.is_empty();
            let first = direct && self.writer.out.is_empty();
            let mut aside = Writer::new(self.writer.version);
            let writer = if direct { &mut self.writer } else { &mut aside };
            let next = match request {
                Request::TooLarge { limit } => {
                    writer.error(&format!("TOOLARGE value: the limit is {limit} bytes"));
                    Next::Answered
                }
                Request::Command(command) => {
                    self.server.commands.set(self.server.commands.get() + 1);
                    let alone = first && command.is_last();
                    command::perform(
                        &mut Session { server: &self.server, client: &self.client, writer, alone },
                        &command,
                    )
                }
            };
            let version = writer.version;
            match next {
                Next::Run(job) => self.pipeline.start(job, version),
                Next::Answered | Next::Close => {
                    if !direct {
                        self.pipeline.answered(aside.out);
                    }
                    self.closing |= matches!(next, Next::Close);
                }
            }
            self.writer.version = version;
        }
        progress
    }

    /// Lets go of an incomplete command: all connections together keep too much, and this one the most.
    fn let_go(&mut self) {
        self.parser = Parser::new(self.server.bounds.command);
        self.unparsed = false;
        self.last_words("OVERLOADED too many long commands are being received at this node; try again");
    }

    /// Notes what this connection waits for.
    fn note(&mut self) {
        let waits = if self.unsent() > 0 {
            Waits::Midway
        } else if self.unparsed || !self.pipeline.is_empty() {
            Waits::Busy
        } else if self.parser.buffered() > 0 || !self.greeted {
            Waits::Midway
        } else {
            Waits::Idle
        };
        self.client.standing.set_waits(waits, std::mem::take(&mut self.moved));
    }

    fn protocol_error(&mut self, error: ProtocolError) {
        self.last_words(&format!("ERR Protocol error: {error}"));
    }

    /// Answers with an error once all that came before is answered, and closes.
    fn last_words(&mut self, error: &str) {
        let mut aside = Writer::new(self.writer.version);
        aside.error(error);
        self.pipeline.answered(aside.out);
        self.closing = true;
    }
}
