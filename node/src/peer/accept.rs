//! The receiving side: connections that others dialed.

use super::frame::FrameReader;
use super::handshake::{self, HandshakeError, Refusal, Remote};
use super::{Peers, SILENCE, UNPROVED};
use crate::log::say;
use crate::signal::Signal;
use gramme_quorum::{Input, wire};
use gramme_ring::NodeId;
use smol::Timer;
use smol::future::{or, yield_now};
use smol::net::{TcpListener, TcpStream};
use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long a node id stays taken by a process that has fallen silent.
const IN_USE: Duration = Duration::from_secs(2);

/// How often silent connections are looked for.
const ROUND: Duration = Duration::from_secs(2);

/// At most one line about failed handshakes in this time.
const COMPLAINTS: Duration = Duration::from_secs(1);

/// A pause after a failed accept, which usually means that file descriptors have run out.
const PAUSE: Duration = Duration::from_millis(100);

/// What a reader keeps for one connection between frames.
const READ_ROOM: usize = 32 << 10;

/// How long what a peer sends waits for the connection by which it can be answered.
const ANSWERABLE: Duration = Duration::from_secs(1);

/// A connection that has proved whose it is.
pub(super) struct Incoming {
    serial: u64,
    run: u64,
    heard: Rc<Cell<Instant>>,
    pub(super) end: Signal,
}

impl Peers {
    /// Accepts connections until a stop is requested.
    pub(crate) async fn listen(self, listener: TcpListener) {
        let accepting = async {
            loop {
                match listener.accept().await {
                    Ok((stream, from)) => self.admit_unproved(stream, from),
                    Err(error) => {
                        self.complain(format_args!("can't accept a peer's connection: {error}"));
                        Timer::after(PAUSE).await;
                    }
                }
            }
        };
        let stop = self.0.setting.stop.clone();
        or(or(accepting, self.end_silent()), stop.requested()).await;
    }

    /// Starts a handshake; of too many at a time the oldest ends.
    fn admit_unproved(&self, stream: TcpStream, from: SocketAddr) {
        let serial = self.0.accepted.get();
        self.0.accepted.set(serial + 1);
        let evicted = Signal::default();
        {
            let mut unproved = self.0.unproved.borrow_mut();
            unproved.push_back((serial, evicted.clone()));
            if unproved.len() > UNPROVED
                && let Some((_, oldest)) = unproved.pop_front()
            {
                oldest.raise();
            }
        }
        let peers = self.clone();
        let task = async move {
            let shaken = peers.shake_hands(stream, &evicted).await;
            peers.0.unproved.borrow_mut().retain(|(other, _)| *other != serial);
            match shaken {
                Ok((stream, remote, reader)) => peers.receive(stream, &remote, reader, serial).await,
                Err(HandshakeError::Refused(Refusal::OnlyAsked)) => {}
                Err(error) => peers.complain(format_args!("peer connection from {from}: {error}")),
            }
        };
        self.0.setting.spawn.spawn(task).detach();
    }

    async fn shake_hands(
        &self,
        mut stream: TcpStream,
        evicted: &Signal,
    ) -> Result<(TcpStream, Remote, FrameReader), HandshakeError> {
        let handshake = async {
            stream.set_nodelay(true)?;
            let mut reader = FrameReader::new(2 * handshake::LIMIT);
            let local = &self.0.setting.local;
            let remote =
                handshake::accept(&mut stream, &mut reader, local, |node, run| self.judge(node, run)).await?;
            Ok((remote, reader))
        };
        let deadline = async {
            Timer::after(handshake::DEADLINE).await;
            Err(HandshakeError::Deadline)
        };
        let eviction = async {
            evicted.wait().await;
            Err(HandshakeError::Io(io::Error::other("too many connections without a handshake")))
        };
        let (remote, reader) = or(handshake, or(deadline, eviction)).await?;
        Ok((stream, remote, reader))
    }

    /// Whether a node may connect under this id.
    fn judge(&self, node: NodeId, run: u64) -> Result<(), Refusal> {
        if node == self.0.setting.local.node {
            return Err(Refusal::InUse(node));
        }
        // Who knows the secret may ask to join, unless it was removed.
        if self.0.setting.handle.engine(|engine| engine.membership().is_removed(node)) {
            return Err(Refusal::Removed(node));
        }
        let incoming = self.0.incoming.borrow();
        let taken =
            incoming.get(&node).is_some_and(|other| other.run != run && other.heard.get().elapsed() < IN_USE);
        if taken { Err(Refusal::InUse(node)) } else { Ok(()) }
    }

    /// Reads messages until the connection ends. It replaces a former one of the same node.
    async fn receive(&self, mut stream: TcpStream, remote: &Remote, reader: FrameReader, serial: u64) {
        let heard = Rc::new(Cell::new(Instant::now()));
        let end = Signal::default();
        let entry = Incoming { serial, run: remote.run, heard: Rc::clone(&heard), end: end.clone() };
        if let Some(former) = self.0.incoming.borrow_mut().insert(remote.node, entry) {
            former.end.raise();
        }
        self.learn(remote.node, &remote.addresses);
        // It is there, so it can be dialed.
        let link = self.link(remote.node);
        link.nudge.raise();
        let answerable = async {
            self.settled().await;
            while !link.outbox.borrow().connected {
                link.up.wait().await;
            }
        };
        let enough = async {
            Timer::after(ANSWERABLE).await;
        };
        let reading = async {
            // What it asked before there is a way back would be done, and never answered; and who has not met the others takes them for
            // dead.
            or(answerable, enough).await;
            if let Err(error) = self.read_messages(&mut stream, remote.node, reader, &heard).await {
                self.complain(format_args!("connection from node {}: {error}", remote.node));
            }
        };
        or(reading, or(end.wait(), self.0.setting.stop.requested())).await;
        let mut incoming = self.0.incoming.borrow_mut();
        if incoming.get(&remote.node).is_some_and(|entry| entry.serial == serial) {
            incoming.remove(&remote.node);
        }
    }

    async fn read_messages(
        &self,
        stream: &mut TcpStream,
        from: NodeId,
        shaken: FrameReader,
        heard: &Cell<Instant>,
    ) -> io::Result<()> {
        let mail = &self.0.setting.mail;
        let mut reader = shaken.with_room(READ_ROOM);
        loop {
            while let Some(body) = reader.next(self.0.setting.max_frame)? {
                let message =
                    wire::decode(body).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
                mail.deliver(Input::Peer(from, message), body.len());
            }
            while mail.is_full() {
                yield_now().await;
            }
            if reader.fill(stream).await? == 0 {
                return Ok(());
            }
            heard.set(Instant::now());
        }
    }

    /// Ends connections that have fallen silent: their peer's machine may be gone without a word.
    async fn end_silent(&self) {
        loop {
            Timer::after(ROUND).await;
            for entry in self.0.incoming.borrow().values() {
                if entry.heard.get().elapsed() > SILENCE {
                    entry.end.raise();
                }
            }
        }
    }

    /// Says what strangers do, but not as often as they do it.
    fn complain(&self, what: std::fmt::Arguments<'_>) {
        if self.0.complained.get().is_none_or(|at| at.elapsed() > COMPLAINTS) {
            self.0.complained.set(Some(Instant::now()));
            say!("{what}");
        }
    }
}
