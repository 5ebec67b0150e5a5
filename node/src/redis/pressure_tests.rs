//! Answers that nobody takes, by one client and by many: what they may take together, and who is served meanwhile.

use super::testing::{Order, expect, plain, rest, with_server};
use crate::handle::{Bounds, Handle};
use bytes::Bytes;
use gramme_quorum::{Op, ReadOptions, Reply};
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::TcpStream;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

const LIMIT: usize = 8 << 20;
const BIG: usize = 1 << 20;

/// So many that with one untaken answer each nothing is left, however few commands of each are under way at a time: that depends on
/// how fast they are served.
const HOGS: usize = LIMIT / BIG + 2;

/// For ever, as far as these tests go.
const FOR_EVER: Duration = Duration::from_secs(3600);

fn with_hogs(bounds: Bounds, test: impl AsyncFnOnce(SocketAddr, Handle)) {
    let seen: Rc<RefCell<Option<Handle>>> = Rc::default();
    let keep = Rc::clone(&seen);
    let serve = move |listener, handle: Handle, spawn, stop| {
        *keep.borrow_mut() = Some(handle.clone());
        plain(listener, handle, spawn, stop)
    };
    with_server(bounds, Order::Fifo, serve, async |address, _stop| {
        let handle = seen.borrow().clone().expect("it serves");
        let mut client = TcpStream::connect(address).await.unwrap();
        let set = [
            format!("SET small 1\r\n*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n${BIG}\r\n").into_bytes(),
            vec![b'v'; BIG],
        ];
        expect(&mut client, &[&set.concat()[..], b"\r\n"].concat(), b"+OK\r\n+OK\r\n").await;
        test(address, handle).await;
    });
}

fn bounds() -> Bounds {
    Bounds { answers: LIMIT, wait: FOR_EVER, patience: FOR_EVER, ..Bounds::default() }
}

/// A client that asks for the large value so many times, after it has seen that it is served.
async fn hog(address: SocketAddr, times: usize) -> TcpStream {
    let mut client = TcpStream::connect(address).await.unwrap();
    expect(&mut client, b"GET small\r\n", b"$1\r\n1\r\n").await;
    client.write_all("GET big\r\n".repeat(times).as_bytes()).await.unwrap();
    client
}

/// Lets everybody go on until nothing more is taken and reads wait for room.
async fn until_full(handle: &Handle) {
    let (mut still, mut last) = (0, 0);
    while still < 2000 {
        smol::future::yield_now().await;
        let used = handle.budget().used();
        assert!(used <= LIMIT, "{used}");
        still = if handle.budget().is_short() && used == last { still + 1 } else { 0 };
        last = used;
    }
}

#[test]
fn answers_that_nobody_takes_are_bounded_and_small_ones_go_on() {
    with_hogs(bounds(), async |address, handle| {
        let mut hogs = Vec::new();
        for _ in 0..HOGS {
            hogs.push(hog(address, 16).await);
        }
        until_full(&handle).await;
        let mut other = TcpStream::connect(address).await.unwrap();
        for _ in 0..100 {
            expect(
                &mut other,
                b"SET a 1\r\nGET a\r\nMGET a small\r\n",
                b"+OK\r\n$1\r\n1\r\n*2\r\n$1\r\n1\r\n$1\r\n1\r\n",
            )
            .await;
            assert!(handle.budget().used() <= LIMIT, "{}", handle.budget().used());
        }
        // Those who take their answers after all get all of them, while the others wait.
        let answer = [format!("${BIG}\r\n").as_bytes(), &vec![b'v'; BIG], b"\r\n"].concat();
        for _ in 0..16 {
            let mut got = vec![0; answer.len()];
            for hog in &mut hogs {
                hog.read_exact(&mut got).await.unwrap();
                assert!(got == answer);
            }
            assert!(handle.budget().used() <= LIMIT, "{}", handle.budget().used());
        }
        drop(hogs);
    });
}

/// Those who are cut off give all their room back at once: who asks just then must not come behind large reads that have not been told.
#[test]
fn a_small_read_does_not_wait_behind_large_ones_when_room_comes_back() {
    const ROOM: usize = 64 << 20;
    with_hogs(Bounds { answers: ROOM, ..bounds() }, async |address, handle| {
        let mut hogs = Vec::new();
        for _ in 0..ROOM / BIG + 2 {
            hogs.push(hog(address, 16).await);
        }
        let mut turns = 0;
        while !handle.budget().is_short() {
            smol::future::yield_now().await;
            turns += 1;
            assert!(turns < 1_000_000, "{} bytes are taken, and nobody waits", handle.budget().used());
        }
        let taken = handle.budget().used();
        handle.budget().change(taken, 0);
        let options = ReadOptions::default();
        let mut read = handle.call(Op::Get { key: Bytes::from_static(b"small"), options });
        handle.budget().change(0, taken);
        let mut answer = None;
        for _ in 0..10_000 {
            answer = smol::future::poll_once(&mut read).await;
            if answer.is_some() {
                break;
            }
            smol::future::yield_now().await;
        }
        assert!(matches!(answer, Some((Reply::Read(_), _))), "it waits behind large ones");
        drop(hogs);
    });
}

#[test]
fn what_was_counted_is_given_back() {
    with_hogs(bounds(), async |address, handle| {
        for _ in 0..3 {
            let mut hogs = Vec::new();
            for _ in 0..HOGS {
                hogs.push(hog(address, 24).await);
            }
            until_full(&handle).await;
            drop(hogs);
            while handle.budget().used() > 0 || handle.in_flight() > 0 {
                smol::future::yield_now().await;
            }
        }
    });
}

#[test]
fn who_takes_nothing_is_cut_off_once_others_wait() {
    let bounds = Bounds { patience: Duration::from_millis(50), ..bounds() };
    with_hogs(bounds, async |address, handle| {
        let mut hogs = Vec::new();
        for _ in 0..HOGS {
            hogs.push(hog(address, 24).await);
        }
        until_full(&handle).await;
        let mut other = TcpStream::connect(address).await.unwrap();
        let answer = [format!("${BIG}\r\n").as_bytes(), &vec![b'v'; BIG], b"\r\n"].concat();
        expect(&mut other, b"GET big\r\n", &answer).await;
    });
}

#[test]
fn who_waits_too_long_for_room_is_told_so() {
    let bounds = Bounds { wait: Duration::from_millis(50), ..bounds() };
    with_hogs(bounds, async |address, handle| {
        let mut hogs = Vec::new();
        for _ in 0..HOGS {
            hogs.push(hog(address, 24).await);
        }
        until_full(&handle).await;
        let mut other = TcpStream::connect(address).await.unwrap();
        let overloaded = b"-OVERLOADED too many requests in flight at this node; try again\r\n";
        expect(&mut other, b"GET big\r\n", overloaded).await;
        expect(&mut other, b"MGET small big\r\n", overloaded).await;
    });
}

#[test]
fn too_many_values_for_one_answer_are_refused_and_not_fetched() {
    let room_for_one = Bounds { answers: 128 << 20, ..bounds() };
    with_hogs(room_for_one, async |address, handle| {
        let mut client = TcpStream::connect(address).await.unwrap();
        expect(&mut client, b"GET small\r\n", b"$1\r\n1\r\n").await;
        let many = format!("SET big2 x\r\nMGET{} big2\r\nPING\r\n", " big".repeat(1000));
        let refused = b"+OK\r\n-TOOLARGE answer: the values come to more than 67108864 bytes\r\n+PONG\r\n";
        expect(&mut client, many.as_bytes(), refused).await;
        while handle.budget().used() > 0 {
            smol::future::yield_now().await;
        }
        client.write_all(b"QUIT\r\n").await.unwrap();
        assert_eq!(rest(&mut client).await, b"+OK\r\n");
    });
}
