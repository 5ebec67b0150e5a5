//! The Redis protocol, so that every Redis client is one of ours: versions 2 and 3 of it, pipelining, inline
//! commands; `DYN.*` for what Redis has no words for.
//!
//! It is served on two ports. Every node coordinates every key, so the plain one is all that a client needs. The
//! *cluster port* says the same things in the words of Redis Cluster, whose clients then go straight to a replica.
//!
//! [`resp`] reads, [`mod@write`] writes, `command` knows what is asked for, `pipeline` keeps it in order, `connection`
//! moves bytes, `cluster_map` is the ring as clients are told of it.

mod answer;
mod cluster_map;
mod command;
mod connection;
mod key_order;
mod many;
mod pipeline;
pub mod resp;
mod standing;
pub mod write;

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod pressure_tests;
#[cfg(test)]
mod standing_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use crate::descriptors;
use crate::handle::Handle;
use crate::spawn::Spawner;
use crate::stop::Stop;
use connection::Connection;
use gramme_quorum::MAX_KEY;
use gramme_ring::LayoutVersion;
use resp::Limits;
use smol::Async;
use smol::net::{TcpListener, TcpStream};
use standing::{Standing, Verdict};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::hash::RandomState;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The version of Redis whose clients' expectations are met.
const REDIS_VERSION: &str = "7.2.4";
/// Clients at one time, if the process may open twice as many files.
const CLIENTS: usize = 10_000;
/// Bytes read at a time, into room that all connections share.
const READ_BYTES: usize = 64 << 10;
/// How long to wait when the process has no file descriptor for another client.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a port says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A server of its own.
    Plain,
    /// A node of a Redis cluster.
    Cluster,
}

impl Mode {
    /// Redis' word for it.
    const fn name(self) -> &'static str {
        match self {
            Mode::Plain => "standalone",
            Mode::Cluster => "cluster",
        }
    }
}

/// What clients may take of this process.
#[derive(Clone, Copy)]
struct Bounds {
    /// Of one command.
    command: Limits,
    /// Clients at one time; for one more the one that has let us wait longest gives way.
    clients: usize,
    /// Bytes of incomplete commands that all connections together may keep; past it the largest are told off.
    held: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { command: Limits::default(), clients: CLIENTS, held: 256 << 20 }
    }
}

/// What all connections share.
struct Server {
    handle: Handle,
    bounds: Bounds,
    hasher: RandomState,
    scratch: RefCell<Box<[u8]>>,
    clients: RefCell<BTreeMap<u64, Rc<Client>>>,
    next_client: Cell<u64>,
    started: Instant,
    commands: Cell<u64>,
    refused: Cell<u64>,
    /// Bytes of incomplete commands that connections keep.
    held: Cell<usize>,
}

/// What is known of one client.
struct Client {
    id: u64,
    address: SocketAddr,
    local: SocketAddr,
    mode: Mode,
    since: Instant,
    about: RefCell<About>,
    standing: Standing,
    /// The ring in which it was last sent elsewhere.
    redirected: Cell<Option<LayoutVersion>>,
}

/// What a client told about itself.
#[derive(Default)]
struct About {
    name: String,
    library: String,
    library_version: String,
    last_command: &'static str,
    resp: u8,
}

/// Serves Redis clients at all these ports until `stop` is requested; returns once every connection has ended.
pub(crate) async fn serve(
    listeners: impl IntoIterator<Item = (Mode, TcpListener)>,
    handle: Handle,
    spawn: Spawner,
    stop: Stop,
) {
    // A key or a context may be longer than a value, where that is configured to be short.
    let argument = handle.value_limit().max(MAX_KEY);
    let command = Limits { argument, ..Limits::default() };
    // The other half is for HTTP, the store's files and other members.
    let bounds = Bounds { command, clients: CLIENTS.min(descriptors::limit() / 2), ..Bounds::default() };
    serve_within(bounds, listeners, handle, spawn, stop).await;
}

async fn serve_within(
    bounds: Bounds,
    listeners: impl IntoIterator<Item = (Mode, TcpListener)>,
    handle: Handle,
    spawn: Spawner,
    stop: Stop,
) {
    let server = Rc::new(Server {
        handle,
        bounds,
        hasher: RandomState::new(),
        scratch: RefCell::new(vec![0; READ_BYTES].into()),
        clients: RefCell::default(),
        next_client: Cell::new(1),
        started: Instant::now(),
        commands: Cell::new(0),
        refused: Cell::new(0),
        held: Cell::new(0),
    });
    let (alive, ended) = smol::channel::bounded::<()>(1);
    for (mode, listener) in listeners {
        let (server, stop, alive) = (Rc::clone(&server), stop.clone(), alive.clone());
        spawn.spawn(server.listen(mode, listener, spawn.clone(), stop, alive)).detach();
    }
    drop(alive);
    // Nothing is ever sent: this returns when the last connection has dropped its end.
    let _ = ended.recv().await;
}

impl Server {
    /// Accepts clients until `stop` is requested.
    async fn listen(
        self: Rc<Self>,
        mode: Mode,
        listener: TcpListener,
        spawn: Spawner,
        stop: Stop,
        alive: smol::channel::Sender<()>,
    ) {
        loop {
            let accepted = smol::future::or(async { Some(listener.accept().await) }, async {
                stop.requested().await;
                None
            });
            match accepted.await {
                None => break,
                Some(Ok((stream, address))) => {
                    if let Some(connection) = self.admit(mode, stream, address) {
                        let (stop, alive) = (stop.clone(), alive.clone());
                        let server = Rc::clone(&self);
                        spawn.spawn(async move { server.attend(connection, stop, alive).await }).detach();
                    }
                    // Those who were told to end have to get to it, however fast new ones come.
                    smol::future::yield_now().await;
                }
                // The client left before it was accepted.
                Some(Err(e)) if e.kind() == std::io::ErrorKind::ConnectionAborted => {}
                // No file descriptor is left, most likely: wait for one.
                Some(Err(_)) => {
                    smol::Timer::after(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// A connection for the client, if need be in place of one that lets us wait. If all others are being served
    /// there is none.
    fn admit(self: &Rc<Self>, mode: Mode, stream: TcpStream, address: SocketAddr) -> Option<Connection> {
        // Both can only fail if the client is gone again.
        stream.set_nodelay(true).ok()?;
        let local = stream.local_addr().ok()?;
        let stream: Arc<Async<std::net::TcpStream>> = stream.into();
        if self.clients.borrow().len() >= self.bounds.clients && !self.make_room() {
            self.refused.set(self.refused.get() + 1);
            // The socket's buffer is empty: these few bytes fit, or the client is gone.
            let _ = std::io::Write::write(&mut stream.get_ref(), b"-ERR max number of clients reached\r\n");
            return None;
        }
        let id = self.next_client.get();
        self.next_client.set(id + 1);
        let about = RefCell::new(About { resp: 2, last_command: "NULL", ..About::default() });
        let (standing, redirected) = (Standing::new(), Cell::new(None));
        let since = Instant::now();
        let client = Rc::new(Client { id, address, local, mode, since, about, standing, redirected });
        self.clients.borrow_mut().insert(id, Rc::clone(&client));
        Some(Connection::new(Rc::clone(self), client, stream))
    }

    /// Ends the connection whose client has let us wait longest; those in the middle of a command first, once that
    /// has taken as long as one may let others wait. Says whether there was one.
    fn make_room(&self) -> bool {
        let patience = self.handle.patience();
        let mut clients = self.clients.borrow_mut();
        let longest =
            clients.values().filter_map(|client| Some((client.standing.rank(patience)?, client.id))).min();
        let Some((_, id)) = longest else { return false };
        if let Some(client) = clients.remove(&id) {
            client.standing.judge(Verdict::GiveWay);
        }
        true
    }

    /// Counts that a client holds so much of an incomplete command. As long as all together hold too much, the one
    /// that holds most is told off.
    fn hold(&self, client: &Client, bytes: usize) {
        self.held.set(self.held.get() - client.standing.held.replace(bytes) + bytes);
        while self.held.get() > self.bounds.held {
            let clients = self.clients.borrow();
            // One that gives way already is not among them, nor counted for long.
            let Some(most) =
                clients.values().max_by_key(|c| c.standing.held.get()).filter(|c| c.standing.held.get() > 0)
            else {
                return;
            };
            self.held.set(self.held.get() - most.standing.held.take());
            most.standing.judge(Verdict::TooMuch);
        }
    }

    async fn attend(&self, connection: Connection, stop: Stop, _alive: smol::channel::Sender<()>) {
        let id = connection.client();
        // A broken connection is its client's affair.
        let _ = connection.run(stop).await;
        self.clients.borrow_mut().remove(&id);
    }
}

/// Memory of this process, where the system tells.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}
