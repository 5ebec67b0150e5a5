//! HTTP/1.1: keys and values for everything that speaks HTTP, and what operators and their tools look at.
//!
//! What bounds it: connections, bytes of a request's head, the time that a head and a body may take, bytes of a
//! body, and bytes of all bodies that are being received; and what answers take, together with those of other
//! protocols, by the node's [budget](crate::budget). When there are too many connections the one gives way that has let
//! us wait longest: for a request, the rest of one, or an answer to be taken; if all are being served, the new one is
//! answered 503.
//!
//! Some heads hyper refuses by itself, by a status alone, to which we add the words: 431 for one of more than 192 KiB, 414 for a
//! request line whose target has more than 65,534 bytes, 400 for what is no HTTP/1.1. So the longest keys, of 65,536 bytes (21,843 of them if all
//! are percent-encoded), can be had by the Redis protocol only.

mod api;
mod body;
mod change;
mod client;
mod keyspaces;
mod kv;
mod members;
mod metrics;
mod plan;
mod query;
mod router;
mod siblings;
mod time;

#[cfg(test)]
mod tests;

use crate::descriptors;
use crate::handle::Handle;
use crate::spawn::Spawner;
use crate::stop::Stop;
use body::Budget;
use client::{Client, Watched};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use smol::future::or;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::{TcpListener, TcpStream};
use smol_hyper::rt::{FuturesIo, SmolTimer};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// Clients at one time, if the process may open eight times as many files; for one more the one that has let us wait
/// longest gives way.
const CLIENTS: usize = 2048;
/// Clients that are being refused at one time; one more is closed without a word.
const REFUSALS: usize = 64;
/// What a client is told when all others are being served.
const FULL: &str = "too many connections are being served at this node; try again\n";
/// Bytes of a request's head: a path and a context of 64 KiB each, and headers as browsers send them.
const HEAD_BYTES: usize = 192 << 10;
/// How long a request's head may take, and a connection may idle.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// How long to wait when the process has no file descriptor for another client.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a client that was told off may take to close.
const LINGER: Duration = Duration::from_secs(1);

/// What all connections share.
struct Server {
    handle: Handle,
    limit: usize,
    clients: RefCell<BTreeMap<u64, Rc<Client>>>,
    next_client: Cell<u64>,
    refusals: Cell<usize>,
    budget: Rc<Budget>,
}

/// Serves HTTP clients until `stop` is requested; returns once every connection has ended.
pub(crate) async fn serve(listener: TcpListener, handle: Handle, spawn: Spawner, stop: Stop) {
    serve_within(CLIENTS.min(descriptors::limit() / 8), listener, handle, spawn, stop).await;
}

async fn serve_within(limit: usize, listener: TcpListener, handle: Handle, spawn: Spawner, stop: Stop) {
    let server = Rc::new(Server {
        handle,
        limit,
        clients: RefCell::default(),
        next_client: Cell::new(0),
        refusals: Cell::new(0),
        budget: Rc::default(),
    });
    let (alive, ended) = smol::channel::bounded::<()>(1);
    loop {
        let accepted = or(async { Some(listener.accept().await) }, async {
            stop.requested().await;
            None
        });
        match accepted.await {
            None => break,
            Some(Ok((stream, _))) => {
                let (server, stop, alive) = (Rc::clone(&server), stop.clone(), alive.clone());
                let admitted = server.admit();
                spawn
                    .spawn(async move {
                        match admitted {
                            Some((id, client)) => {
                                or(attend(&server, &client, stream, &stop), client.end.wait()).await;
                                server.clients.borrow_mut().remove(&id);
                            }
                            None => or(server.refuse(stream), stop.requested()).await,
                        }
                        drop(alive);
                    })
                    .detach();
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
    drop(listener);
    drop(alive);
    // Nothing is ever sent: this returns when the last connection has dropped its end.
    let _ = ended.recv().await;
}

impl Server {
    /// A place for one more client, if need be that of the one that has let us wait longest.
    fn admit(&self) -> Option<(u64, Rc<Client>)> {
        let mut clients = self.clients.borrow_mut();
        if clients.len() >= self.limit {
            let waited_for =
                clients.iter().filter_map(|(id, client)| Some((client.waited_for_since()?, *id)));
            let (_, longest) = waited_for.min()?;
            if let Some(client) = clients.remove(&longest) {
                client.end.raise();
            }
        }
        let id = self.next_client.get();
        self.next_client.set(id + 1);
        let client = Rc::new(Client::new(&self.handle));
        clients.insert(id, Rc::clone(&client));
        Some((id, client))
    }

    /// Tells a client that there is no place for it.
    async fn refuse(&self, stream: TcpStream) {
        if self.refusals.get() >= REFUSALS {
            return;
        }
        self.refusals.set(self.refusals.get() + 1);
        tell_off(stream, "503 Service Unavailable", "Retry-After: 1\r\n", FULL).await;
        self.refusals.set(self.refusals.get() - 1);
    }
}

/// The last answer of a connection, and its end.
async fn tell_off(mut stream: TcpStream, status: &str, header: &str, words: &str) {
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n{header}Connection: close\r\n\r\n\
         {words}",
        words.len()
    );
    // The socket's buffer is empty: it fits, or the client is gone.
    if stream.write_all(answer.as_bytes()).await.is_ok() && stream.shutdown(std::net::Shutdown::Write).is_ok()
    {
        linger(stream).await;
    }
}

/// What is wrong with a head that hyper refused.
fn words_for(status: &str) -> &'static str {
    match status {
        status if status.starts_with("414") => {
            "the address has more than 65534 bytes; longer keys can be had by the Redis protocol\n"
        }
        status if status.starts_with("431") => {
            "the request's head has more than 196608 bytes, or too many headers\n"
        }
        _ => "this is no request of HTTP/1.1, or not a well-formed one\n",
    }
}

/// Waits for the client to close, reading what it still sends: a socket that is closed with unread bytes takes back
/// the last answer.
async fn linger(mut stream: TcpStream) {
    let mut scratch = [0; 4096];
    let drain = async { while stream.read(&mut scratch).await.is_ok_and(|n| n > 0) {} };
    let too_long = async {
        smol::Timer::after(LINGER).await;
    };
    or(drain, too_long).await;
}

/// Serves one client until it leaves or errs, or takes nothing while others wait; after a stop, until the request in
/// hand is answered.
async fn attend(server: &Rc<Server>, client: &Rc<Client>, stream: TcpStream, stop: &Stop) {
    // Fails only if the client is gone again.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let (shared, asking) = (Rc::clone(server), Rc::clone(client));
    let service = service_fn(move |request| router::answer(Rc::clone(&shared), Rc::clone(&asking), request));
    let watched = Watched { stream: stream.clone(), client: Rc::clone(client) };
    let connection = http1::Builder::new()
        .timer(SmolTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .half_close(true)
        .serve_connection(FuturesIo::new(watched), service);
    let mut connection = pin!(connection);
    let mut stopped = pin!(stop.requested());
    let mut stopping = false;
    let served = poll_fn(|cx| {
        if !stopping && stopped.as_mut().poll(cx).is_ready() {
            stopping = true;
            connection.as_mut().graceful_shutdown();
        }
        match connection.as_mut().poll(cx) {
            Poll::Ready(served) => Poll::Ready(served.is_ok()),
            Poll::Pending if client.is_stalled(cx) => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    if let Some(status) = client.refused() {
        return or(tell_off(stream, &status, "", words_for(&status)), stop.requested()).await;
    }
    // A broken connection is its client's affair. Else it was closed in good order, maybe while its client was
    // sending a body that had been refused.
    if served && !stopping {
        or(linger(stream), stop.requested()).await;
    }
}
