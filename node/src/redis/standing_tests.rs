//! What clients may hold and how long they may take, when there are many of them.

use super::testing::{Order, expect, rest, with_server};
use super::tests::ask;
use super::{Mode, serve_within};
use crate::budget::Charge;
use crate::handle::{Bounds, Handle};
use smol::io::AsyncWriteExt;
use smol::net::TcpStream;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

const OVERLOADED: &[u8] =
    b"-OVERLOADED too many long commands are being received at this node; try again\r\n";

#[test]
fn what_all_clients_take_together_is_bounded() {
    let bounds = super::Bounds { clients: 10, held: 600_000, ..super::Bounds::default() };
    let serve = move |listener, handle, spawn, stop| {
        serve_within(bounds, [(Mode::Plain, listener)], handle, spawn, stop)
    };
    with_server(Bounds::default(), Order::Fifo, serve, async |address, _stop| {
        let part = [b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$250000\r\n".to_vec(), vec![b'x'; 200_000]].concat();
        let mut clients = Vec::new();
        for _ in 0..4 {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(&part).await.unwrap();
            clients.push(client);
        }
        // Short commands are served.
        let mut other = TcpStream::connect(address).await.unwrap();
        expect(&mut other, b"PING\r\n", b"+PONG\r\n").await;
        let (mut told, mut served) = (0, 0);
        for client in &mut clients {
            // Who was told off may be gone.
            let _ = client.write_all(&[&[b'x'; 50_000][..], b"\r\n"].concat()).await;
            let _ = client.shutdown(std::net::Shutdown::Write);
            match &rest(client).await[..] {
                OVERLOADED => told += 1,
                answer => {
                    assert_eq!(answer, b"+OK\r\n");
                    served += 1;
                }
            }
        }
        assert!(told > 0 && served > 0, "{told} were told off, {served} were served");
    });
}

#[test]
fn many_short_halves_of_commands_are_bounded_too() {
    let bounds = super::Bounds { clients: 100, held: 1 << 20, ..super::Bounds::default() };
    let serve = move |listener, handle, spawn, stop| {
        serve_within(bounds, [(Mode::Plain, listener)], handle, spawn, stop)
    };
    with_server(Bounds::default(), Order::Fifo, serve, async |address, _stop| {
        let mut other = TcpStream::connect(address).await.unwrap();
        expect(&mut other, b"PING\r\n*2\r\n$4\r\nECHO\r\n$2\r\nh", b"+PONG\r\n").await;
        let half = [b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$250000\r\n".to_vec(), vec![b'x'; 60_000]].concat();
        let mut clients = Vec::new();
        for _ in 0..40 {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(&half).await.unwrap();
            clients.push(client);
        }
        // As many stay as fit, and this one and the one that asks.
        let mut asking = TcpStream::connect(address).await.unwrap();
        let begun = std::time::Instant::now();
        loop {
            let text = String::from_utf8(ask(&mut asking, &[b"INFO", b"clients"]).await).unwrap();
            let (_, rest) = text.split_once("connected_clients:").unwrap();
            if rest.lines().next().unwrap().parse::<usize>().unwrap() <= 2 + (1 << 20) / 60_000 {
                break;
            }
            assert!(begun.elapsed().as_secs() < 60, "{text}");
        }
        expect(&mut other, b"i\r\n", b"$2\r\nhi\r\n").await;
        let mut told = 0;
        for client in &mut clients {
            client.shutdown(std::net::Shutdown::Write).unwrap();
            told += usize::from(rest(client).await == OVERLOADED);
        }
        assert!(told >= 40 - (1 << 20) / 60_000, "{told} were told off");
    });
}

/// A server for three clients. Nobody is told apart by how long a test takes.
fn with_three_places(patience: Duration, test: impl AsyncFnOnce(SocketAddr, Handle)) {
    let places = super::Bounds { clients: 3, ..super::Bounds::default() };
    let seen: Rc<RefCell<Option<Handle>>> = Rc::default();
    let keep = Rc::clone(&seen);
    let serve = move |listener, handle: Handle, spawn, stop| {
        *keep.borrow_mut() = Some(handle.clone());
        serve_within(places, [(Mode::Plain, listener)], handle, spawn, stop)
    };
    with_server(Bounds { patience, ..Bounds::default() }, Order::Fifo, serve, async |address, _stop| {
        let handle = seen.borrow().clone().expect("it serves");
        test(address, handle).await;
    });
}

/// Reads until the server has ended the connection in whatever way.
async fn ended(client: &mut TcpStream) -> Vec<u8> {
    use smol::io::AsyncReadExt;
    let mut got = Vec::new();
    let _ = client.read_to_end(&mut got).await;
    got
}

#[test]
fn who_lets_the_server_wait_longest_gives_way() {
    with_three_places(Duration::from_secs(3600), async |address, _| {
        let mut halves = Vec::new();
        for half in [&b"*1"[..], b""] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(half).await.unwrap();
            halves.push(client);
        }
        let mut idle = TcpStream::connect(address).await.unwrap();
        expect(&mut idle, b"PING\r\n", b"+PONG\r\n").await;
        let mut nexts = Vec::new();
        for half in &mut halves {
            let mut next = TcpStream::connect(address).await.unwrap();
            expect(&mut next, b"PING\r\n", b"+PONG\r\n").await;
            nexts.push(next);
            assert_eq!(ended(half).await, b"");
            expect(&mut idle, b"PING\r\n", b"+PONG\r\n").await;
        }
    });
}

#[test]
fn a_command_in_the_middle_gives_way_before_idle_connections_do() {
    with_three_places(Duration::ZERO, async |address, _| {
        let mut idle = TcpStream::connect(address).await.unwrap();
        expect(&mut idle, b"PING\r\n", b"+PONG\r\n").await;
        for _ in 0..10 {
            let mut half = TcpStream::connect(address).await.unwrap();
            expect(&mut half, b"PING\r\nSET a", b"+PONG\r\n").await;
            let mut silent = TcpStream::connect(address).await.unwrap();
            // With them all places are taken.
            let mut next = TcpStream::connect(address).await.unwrap();
            expect(&mut next, b"PING\r\n", b"+PONG\r\n").await;
            assert_eq!(ended(&mut half).await, b"");
            let mut last = TcpStream::connect(address).await.unwrap();
            expect(&mut last, b"PING\r\n", b"+PONG\r\n").await;
            assert_eq!(ended(&mut silent).await, b"");
            for mut client in [next, last] {
                expect(&mut client, b"QUIT\r\n", b"+OK\r\n").await;
                assert_eq!(ended(&mut client).await, b"");
            }
        }
        expect(&mut idle, b"PING\r\n", b"+PONG\r\n").await;
    });
}

#[test]
fn one_client_too_many_is_told_so() {
    with_three_places(Duration::ZERO, async |address, handle| {
        // No room for answers but those of a few words: who reads is being served, for as long as this lasts.
        let mut full = Charge::counted(handle.budget(), 0);
        full.set(crate::budget::ANSWERS - 1024);
        let mut busy = Vec::new();
        for _ in 0..3 {
            let mut client = TcpStream::connect(address).await.unwrap();
            expect(&mut client, b"PING\r\nGET a\r\n", b"+PONG\r\n").await;
            busy.push(client);
        }
        let mut fourth = TcpStream::connect(address).await.unwrap();
        assert_eq!(rest(&mut fourth).await, b"-ERR max number of clients reached\r\n");
        drop(full);
        for client in &mut busy {
            expect(client, b"", b"$-1\r\n").await;
        }
    });
}
