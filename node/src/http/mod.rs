//! HTTP/1.1: keys and values for everything that speaks HTTP, and what operators and their tools look at.
//!
//! What bounds it: connections, bytes of a request's head, the time that a head and a body may take, bytes of a
//! body, and bytes of all bodies that are being received.

mod api;
mod body;
mod kv;
mod metrics;
mod query;
mod router;
mod siblings;
mod time;

#[cfg(test)]
mod tests;

use crate::handle::Handle;
use crate::spawn::Spawner;
use crate::stop::Stop;
use body::Budget;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use smol::future::or;
use smol::io::AsyncReadExt;
use smol::net::{TcpListener, TcpStream};
use smol_hyper::rt::{FuturesIo, SmolTimer};
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

/// Clients at one time; one more is sent away.
const CLIENTS: usize = 2048;
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
    clients: Cell<usize>,
    budget: Rc<Budget>,
}

/// Serves HTTP clients until `stop` is requested; returns once every connection has ended.
pub(crate) async fn serve(listener: TcpListener, handle: Handle, spawn: Spawner, stop: Stop) {
    let server = Rc::new(Server { handle, clients: Cell::new(0), budget: Rc::default() });
    let (alive, ended) = smol::channel::bounded::<()>(1);
    loop {
        let accepted = or(async { Some(listener.accept().await) }, async {
            stop.requested().await;
            None
        });
        match accepted.await {
            None => break,
            Some(Ok((stream, _))) => {
                if server.clients.get() < CLIENTS {
                    let (server, stop, alive) = (Rc::clone(&server), stop.clone(), alive.clone());
                    server.clients.set(server.clients.get() + 1);
                    spawn
                        .spawn(async move {
                            attend(&server, stream, &stop).await;
                            server.clients.set(server.clients.get() - 1);
                            drop(alive);
                        })
                        .detach();
                }
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

/// Serves one client until it leaves or errs; after a stop, until the request in hand is answered.
async fn attend(server: &Rc<Server>, stream: TcpStream, stop: &Stop) {
    // Fails only if the client is gone again.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let shared = Rc::clone(server);
    let service = service_fn(move |request| router::answer(Rc::clone(&shared), request));
    let connection = http1::Builder::new()
        .timer(SmolTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .half_close(true)
        .serve_connection(FuturesIo::new(stream.clone()), service);
    let mut connection = pin!(connection);
    let mut stopped = pin!(stop.requested());
    let mut stopping = false;
    let served = poll_fn(|cx| {
        if !stopping && stopped.as_mut().poll(cx).is_ready() {
            stopping = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    })
    .await;
    // A broken connection is its client's affair. Else it was closed in good order, maybe while its client was
    // sending a body that had been refused: a socket closed with unread bytes takes back the answer.
    if served.is_ok() && !stopping {
        let mut stream = stream;
        let mut scratch = [0; 4096];
        let drain = async { while stream.read(&mut scratch).await.is_ok_and(|n| n > 0) {} };
        let too_long = async {
            smol::Timer::after(LINGER).await;
        };
        or(or(drain, too_long), stop.requested()).await;
    }
}
