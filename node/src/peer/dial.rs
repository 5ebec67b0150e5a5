//! The sending side: one connection to one peer, kept up for as long as the node runs.

use super::frame::FrameReader;
use super::handshake::{self, HandshakeError, Refusal, Remote};
use super::{Link, Outbox, Peers, STALL};
use crate::log::say;
use gramme_quorum::Input;
use smol::Timer;
use smol::future::or;
use smol::io::AsyncWriteExt;
use smol::net::TcpStream;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The wait before the second attempt; it doubles from then on.
const FIRST_WAIT: Duration = Duration::from_millis(20);

/// The longest wait between attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// How long a peer may be away before we talk about it.
const QUIET: Duration = Duration::from_secs(1);

/// Memory that a buffer keeps between writes.
const KEPT: usize = 1 << 20;

/// Dials `link`'s peer, sends what is appended to its outbox, and begins anew when the connection ends.
pub(super) async fn keep_connected(peers: Peers, link: Rc<Link>) {
    let mail = &peers.0.setting.mail;
    let mut wait = FIRST_WAIT;
    let mut away_since = Instant::now();
    let mut complaint = String::new();
    let mut lost = false;
    while !link.end.get() {
        match connect(&peers, &link).await {
            Ok((stream, remote, reader)) => {
                if lost {
                    say!("connected to node {} at {} again", link.peer, remote.addresses.peer);
                }
                *link.outbox.borrow_mut() = Outbox { connected: true, ..Outbox::default() };
                mail.deliver(Input::Connected(link.peer), 0);
                link.up.raise();
                peers.dialed(&link);
                let end = or(write_outbox(&peers, &link, stream.clone()), closed(stream, reader)).await;
                *link.outbox.borrow_mut() = Outbox::default();
                mail.deliver(Input::Disconnected(link.peer), 0);
                if peers.0.setting.stop.is_requested() || link.end.get() {
                    return;
                }
                say!("lost node {}: {end}", link.peer);
                lost = true;
                (wait, away_since) = (FIRST_WAIT, Instant::now());
                complaint.clear();
            }
            Err(error) => {
                peers.dialed(&link);
                if matches!(error, HandshakeError::Refused(Refusal::Removed(node)) if node == peers.0.setting.local.node)
                {
                    peers.0.setting.handle.note_removed();
                }
                let text = format!(
                    "can't reach node {} at {}: {error}; trying again",
                    link.peer,
                    address(&peers, &link)
                );
                if away_since.elapsed() >= QUIET && text != complaint {
                    say!("{text}");
                    complaint = text;
                    lost = true;
                }
            }
        }
        or(
            async {
                Timer::after(jittered(wait)).await;
            },
            link.nudge.wait(),
        )
        .await;
        wait = (2 * wait).min(LONGEST_WAIT);
    }
}

fn address(peers: &Peers, link: &Link) -> String {
    peers.0.setting.handle.addresses(link.peer).unwrap_or_default().peer
}

async fn connect(peers: &Peers, link: &Link) -> Result<(TcpStream, Remote, FrameReader), HandshakeError> {
    let attempt = async {
        let mut stream = TcpStream::connect(address(peers, link)).await?;
        stream.set_nodelay(true)?;
        let mut reader = FrameReader::new(2 * handshake::LIMIT);
        let remote =
            handshake::dial(&mut stream, &mut reader, &peers.0.setting.local, Some(link.peer)).await?;
        Ok((stream, remote, reader))
    };
    let deadline = async {
        Timer::after(handshake::DEADLINE).await;
        Err(HandshakeError::Deadline)
    };
    let shaken = or(attempt, deadline).await?;
    peers.learn(link.peer, &shaken.1.addresses);
    Ok(shaken)
}

/// Writes whatever is in the outbox, all of it at a time, until that fails; returns why.
async fn write_outbox(peers: &Peers, link: &Link, mut stream: TcpStream) -> io::Error {
    let mut batch = Vec::new();
    loop {
        link.flush.wait().await;
        {
            let mut outbox = link.outbox.borrow_mut();
            if link.end.get() {
                return io::Error::other("it is no peer any more");
            }
            if outbox.overflowed {
                return io::Error::other("it takes messages more slowly than they come; its buffer was full");
            }
            std::mem::swap(&mut outbox.buffer, &mut batch);
            outbox.writing = batch.len();
        }
        if let Err(error) = write_all(peers, link, &mut stream, &batch).await {
            return error;
        }
        batch.clear();
        if batch.capacity() > KEPT {
            batch = Vec::new();
        }
    }
}

async fn write_all(peers: &Peers, link: &Link, stream: &mut TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let stall = async {
            Timer::after(STALL).await;
            Err(io::Error::from(io::ErrorKind::TimedOut))
        };
        let n = or(stream.write(bytes), stall).await?;
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[n..];
        peers.relieve(link, bytes.len());
    }
    Ok(())
}

/// Returns when the peer closes; it has nothing to say on a connection that we dialed.
async fn closed(mut stream: TcpStream, mut reader: FrameReader) -> io::Error {
    match reader.fill(&mut stream).await {
        Ok(0) => io::Error::other("it closed the connection"),
        Ok(_) => io::Error::other("it spoke out of turn"),
        Err(error) => error,
    }
}

/// Between half of `wait` and all of it, so that nodes that lost each other do not return in step.
fn jittered(wait: Duration) -> Duration {
    let mut byte = [0];
    // Without randomness there is no jitter; that is no reason not to dial.
    let _ = getrandom::fill(&mut byte);
    wait / 2 + wait / 2 * u32::from(byte[0]) / 255
}

/// Finds out who listens at an address that an operator named, and dials it from then on. Whoever that is may know
/// nobody, or be gone again before it has told: as long as this node hears no member, it asks again.
pub(super) async fn find(peers: Peers, seed: String) {
    let mut wait = FIRST_WAIT;
    let mut complaint = String::new();
    let mut found = None;
    loop {
        if peers.hears(found) {
            (wait, complaint) = (FIRST_WAIT, String::new());
        } else {
            match ask(&peers, &seed).await {
                Ok(remote) => {
                    peers.learn(remote.node, &remote.addresses);
                    peers.link(remote.node);
                    found = Some(remote.node);
                    complaint.clear();
                }
                Err(error) => {
                    let text = format!("can't join by {seed}: {error}; trying again");
                    if text != complaint {
                        say!("{text}");
                        complaint = text;
                    }
                }
            }
        }
        wait = (2 * wait).min(LONGEST_WAIT);
        Timer::after(jittered(wait)).await;
    }
}

async fn ask(peers: &Peers, seed: &str) -> Result<Remote, HandshakeError> {
    let attempt = async {
        let mut stream = TcpStream::connect(seed).await?;
        stream.set_nodelay(true)?;
        let mut reader = FrameReader::new(2 * handshake::LIMIT);
        handshake::dial(&mut stream, &mut reader, &peers.0.setting.local, None).await
    };
    let deadline = async {
        Timer::after(handshake::DEADLINE).await;
        Err(HandshakeError::Deadline)
    };
    or(attempt, deadline).await
}
