//! The server over real sockets, with a real engine behind it.

use super::{serve, serve_within};
use crate::budget::Charge;
use crate::handle::{Bounds, Handle};
use crate::redis::testing::{ME, Order, rest, with_server, with_server_beside};
use gramme_quorum::Keyspace;
use gramme_ring::{ClusterId, Member, Membership, NodeId};
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::TcpStream;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// An answer taken apart.
#[derive(Debug)]
struct Got {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Got {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (field, value) = line.split_once(": ")?;
            field.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    fn context(&self) -> String {
        self.header("x-gramme-context").unwrap_or_else(|| panic!("no context in {self:?}")).to_owned()
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

async fn raw(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may refuse and close before all is sent.
    let _ = stream.write_all(request).await;
    rest(&mut stream).await
}

async fn ask(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Got {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    if !body.is_empty() || method == "PUT" {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    take_apart(&raw(address, &[request.as_bytes(), body].concat()).await)
}

fn take_apart(bytes: &[u8]) -> Got {
    let end =
        bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or_else(|| panic!("{}", bytes.escape_ascii()));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    Got { status: head[9..12].parse().unwrap(), head, body: bytes[end + 4..].to_vec() }
}

fn with_address(test: impl AsyncFnOnce(SocketAddr)) {
    with_server(Bounds::default(), Order::Fifo, serve, async |address, _stop| test(address).await);
}

#[test]
fn a_value_comes_back_as_it_was_written() {
    with_address(async |at| {
        let got = ask(at, "GET", "/kv/a", &[], b"").await;
        assert_eq!((got.status, got.header("x-gramme-context")), (404, None));
        let put = ask(at, "PUT", "/kv/a", &[("Content-Type", "text/plain")], b"hello").await;
        assert_eq!((put.status, put.text()), (204, ""));
        let got = ask(at, "GET", "/kv/a?r=one&timeout=1000", &[], b"").await;
        assert_eq!((got.status, got.text(), got.header("content-type")), (200, "hello", Some("text/plain")));
        let head = ask(at, "HEAD", "/kv/a", &[], b"").await;
        assert_eq!((head.status, head.text(), head.header("content-length")), (200, "", Some("5")));
        assert_eq!(head.context(), got.context());
        // Binary keys, slashes included, and empty values without a type.
        let key = "/kv/%00%ff/%2F?w=1&ttl=100";
        assert_eq!(ask(at, "PUT", key, &[], b"").await.status, 204);
        let got = ask(at, "GET", "/kv/%00%FF%2f/", &[], b"").await;
        assert_eq!(
            (got.status, got.text(), got.header("content-type")),
            (200, "", Some("application/octet-stream"))
        );
    });
}

#[test]
fn siblings_and_what_ends_them() {
    with_address(async |at| {
        let first = ask(at, "PUT", "/kv/cart", &[], b"bread").await.context();
        let with = |context: &str| [("X-Gramme-Context".to_owned(), context.to_owned())];
        let put = async |context: &str, value: &str| {
            let headers = with(context);
            let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            ask(at, "PUT", "/kv/cart", &headers, value.as_bytes()).await
        };
        assert_eq!(put(&first, "milk").await.status, 204);
        assert_eq!(put(&first, "eggs").await.status, 204);
        let both = ask(at, "GET", "/kv/cart", &[], b"").await;
        assert_eq!((both.status, both.header("content-type")), (300, Some("application/json")));
        let shown: Vec<serde_json::Value> = serde_json::from_slice(&both.body).unwrap();
        let mut values: Vec<&str> = shown.iter().map(|s| s["value"].as_str().unwrap()).collect();
        values.sort_unstable();
        assert_eq!(values, ["ZWdncw==", "bWlsaw=="]);
        let parts = ask(at, "GET", "/kv/cart", &[("Accept", "multipart/mixed")], b"").await;
        assert_eq!(
            (parts.status, parts.header("content-type")),
            (300, Some("multipart/mixed; boundary=gramme-0"))
        );
        assert!(
            parts.text().contains("\r\n\r\nmilk\r\n--gramme-0") && parts.text().contains("\r\n\r\neggs\r\n")
        );
        let merged = put(&both.context(), "milk, eggs").await;
        assert_eq!(ask(at, "GET", "/kv/cart", &[], b"").await.text(), "milk, eggs");
        // Deletion takes a context, and leaves one.
        let bare = ask(at, "DELETE", "/kv/cart", &[], b"").await;
        assert_eq!(bare.status, 428);
        let gone = ask(at, "DELETE", "/kv/cart", &[("X-Gramme-Context", &merged.context())], b"").await;
        assert_eq!((gone.status, gone.text()), (204, ""));
        let got = ask(at, "GET", "/kv/cart", &[], b"").await;
        assert_eq!(got.status, 404);
        assert!(!got.context().is_empty());
        // A context is its key's own.
        let foreign = ask(at, "PUT", "/kv/card", &[("X-Gramme-Context", &first)], b"x").await;
        assert_eq!(foreign.status, 400);
        assert!(foreign.text().starts_with("X-Gramme-Context: "), "{foreign:?}");
    });
}

#[test]
fn misuse_is_told() {
    with_address(async |at| {
        let long = "x".repeat(300);
        for (method, path, headers, status, text) in [
            ("GET", "/kv/", &[][..], 400, "a key has 1 to 65536 bytes"),
            ("GET", "/kv/a%", &[], 400, "a % in the address"),
            ("GET", "/kv/a?w=1", &[], 400, "there is no parameter 'w' here; known: r, pr, timeout"),
            ("GET", "/kv/a?r=some", &[], 400, "r is a number"),
            ("GET", "/kv/a?r=4", &[], 400, "r is a number from 1 to"),
            ("GET", "/kv/a?timeout=0", &[], 400, "timeout is in milliseconds"),
            ("PUT", "/kv/a?ttl=0", &[], 400, "ttl is in seconds"),
            ("PUT", "/kv/a?ttl=99999999999999999999", &[], 400, "ttl is in seconds"),
            ("PUT", "/kv/a", &[("Content-Type", long.as_str())], 400, "Content-Type has up to 255"),
            ("PUT", "/kv/a", &[("Content-Encoding", "gzip")], 415, "Content-Encoding"),
            ("PUT", "/kv/a", &[("Content-Range", "bytes 0-1/2")], 400, "a value is written whole"),
            (
                "PUT",
                "/kv/a",
                &[("X-Gramme-Context", "x"), ("X-Gramme-Context", "y")],
                400,
                "X-Gramme-Context: there is",
            ),
            ("POST", "/kv/a", &[], 405, "this address answers GET, HEAD, PUT, DELETE"),
            ("PUT", "/healthz", &[], 405, "this address answers GET, HEAD"),
            ("GET", "/nowhere", &[], 404, "there is nothing at this address"),
        ] {
            let got = ask(at, method, path, headers, b"").await;
            assert_eq!(got.status, status, "{method} {path}: {got:?}");
            assert!(got.text().starts_with(text), "{method} {path}: {got:?}");
        }
        assert_eq!(ask(at, "GET", "/kv/a", &[], b"").await.status, 404, "none of it wrote anything");
    });
}

#[test]
fn too_large_a_body_is_refused_before_it_is_read() {
    with_address(async |at| {
        // Announced: answered without waiting for a byte of it.
        let head = b"PUT /kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 16777217\r\n\r\n";
        assert_eq!(take_apart(&raw(at, head).await).status, 413);
        let head = b"PUT /kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 9223372036854775807\r\n\r\n";
        assert_eq!(take_apart(&raw(at, head).await).status, 413);
        // Not announced: answered when it becomes too much, though more is on its way.
        let mut request = b"PUT /kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..18 {
            request.extend_from_slice(b"100000\r\n");
            request.resize(request.len() + (1 << 20), b'x');
            request.extend_from_slice(b"\r\n");
        }
        let got = take_apart(&raw(at, &request).await);
        assert_eq!((got.status, got.text()), (413, "value: the limit is 16777216 bytes\n"));
        // Just the limit, in chunks.
        let mut request =
            b"PUT /kv/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
                .to_vec();
        for _ in 0..16 {
            request.extend_from_slice(b"100000\r\n");
            request.resize(request.len() + (1 << 20), b'x');
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"0\r\n\r\n");
        assert_eq!(take_apart(&raw(at, &request).await).status, 204);
        assert_eq!(ask(at, "GET", "/kv/a", &[], b"").await.body, vec![b'x'; 16 << 20]);
    });
}

#[test]
fn garbage_and_endless_heads_are_refused() {
    with_address(async |at| {
        let endless = |start: &str| [start.as_bytes().to_vec(), vec![b'x'; 300 << 10]].concat();
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(70_000)).into_bytes();
        let after_another = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
        for (request, status, words) in [
            (b"\x16\x03\x01\0\0\r\n\r\n".to_vec(), 400, "not a well-formed one"),
            (endless("GET / HTTP/1.1\r\nX: "), 431, "more than 196608 bytes"),
            (long, 414, "more than 65534 bytes"),
        ] {
            let got = take_apart(&raw(at, &request).await);
            assert_eq!((got.status, got.header("content-type")), (status, Some("text/plain; charset=utf-8")));
            assert!(got.text().contains(words) && got.text().ends_with('\n'), "{}", got.text());
            // No less on a connection that was used before.
            let mut stream = TcpStream::connect(at).await.unwrap();
            stream.write_all(after_another).await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"ok\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).await.unwrap();
                answer.push(byte[0]);
            }
            let _ = stream.write_all(&request).await;
            let got = take_apart(&rest(&mut stream).await);
            assert!(got.status == status && got.text().contains(words), "{}", got.text());
        }
        assert_eq!(ask(at, "GET", "/healthz", &[], b"").await.text(), "ok\n");
    });
}

#[test]
fn overload_is_told_at_once() {
    with_server(
        Bounds { requests: 0, bytes: 0, ..Bounds::default() },
        Order::Fifo,
        serve,
        async |at, _stop| {
            let got = ask(at, "GET", "/kv/a", &[], b"").await;
            assert_eq!((got.status, got.header("retry-after")), (429, Some("1")));
        },
    );
}

#[test]
fn what_operators_look_at() {
    with_address(async |at| {
        assert_eq!(ask(at, "GET", "/readyz", &[], b"").await.text(), "ready\n");
        let json = async |path| -> serde_json::Value {
            let got = ask(at, "GET", path, &[], b"").await;
            assert_eq!((got.status, got.header("content-type")), (200, Some("application/json")));
            serde_json::from_slice(&got.body).unwrap()
        };
        let status = json("/api/status").await;
        assert_eq!((&status["node"], &status["ready"]), (&"0000000000001234".into(), &true.into()));
        assert_eq!((&status["requests_in_flight"], &status["request_bytes"]), (&0.into(), &0.into()));
        let ring = json("/api/ring").await;
        assert_eq!(
            ring["slots"],
            serde_json::json!([{"first": 0, "last": 16383, "owners": ["0000000000001234"]}])
        );
        assert_eq!(ring["members"][0]["primary"], 16);
        let metrics = ask(at, "GET", "/metrics", &[], b"").await;
        assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4"));
        assert!(metrics.text().contains("# TYPE gramme_ready gauge\ngramme_ready 1\n"), "{metrics:?}");
        assert!(metrics.text().contains("\n# TYPE gramme_request_bytes gauge\ngramme_request_bytes 0\n"));
        for line in metrics.text().lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let family = name.split('{').next().unwrap();
            assert!(metrics.text().contains(&format!("# TYPE {family} ")), "{line}");
            value.parse::<u64>().unwrap();
        }
        let members = json("/api/members").await;
        assert_eq!((members.as_array().unwrap().len(), &members[0]["state"]), (1, &"this".into()));
    });
}

#[test]
fn operators_changes() {
    with_address(async |at| {
        let media = ("Content-Type", "application/json; charset=utf-8");
        let post = async |what: &str, body: &str| {
            ask(at, "POST", &format!("/api/cluster/{what}"), &[media], body.as_bytes()).await
        };
        let plan = async || -> serde_json::Value {
            serde_json::from_slice(&ask(at, "GET", "/api/cluster/plan", &[], b"").await.body).unwrap()
        };
        assert_eq!(plan().await["why"], "nothing is staged");
        for (what, body, status, said) in [
            ("stage", "{", 400, "not understood"),
            ("stage", r#"{"action":"fly","node":"12"}"#, 400, "unknown variant `fly`"),
            ("stage", r#"{"action":"leave","node":"xyz"}"#, 400, "'xyz' is no node id"),
            (
                "stage",
                r#"{"action":"leave","node":"ff"}"#,
                404,
                "no node whose id begins with ff is known here",
            ),
            ("stage", r#"{"action":"join"}"#, 409, "no node waits to join"),
            ("stage", r#"{"action":"join","node":"00"}"#, 409, "it is member"),
            ("stage", r#"{"action":"remove","node":"0000"}"#, 409, "is up"),
            ("stage", r#"{"action":"weight","node":"0000","weight":0}"#, 400, "from 1 to 1048576"),
            ("stage", r#"{"action":"weight","node":"0000","weight":1048577}"#, 400, "from 1 to 1048576"),
            ("commit", r#"{"plan":"12"}"#, 400, "16 hexadecimal digits"),
            ("commit", r#"{"plan":"0123456789abcdef"}"#, 409, "nothing is staged"),
            ("clear", "", 400, "not understood"),
        ] {
            let got = post(what, body).await;
            assert_eq!(got.status, status, "{what} {body}: {}", got.text());
            assert!(got.text().contains(said), "{what} {body}: {}", got.text());
        }
        // A form of another site's page is no operator.
        let form = ("Content-Type", "text/plain");
        assert_eq!(ask(at, "POST", "/api/cluster/clear", &[form], b"{}").await.status, 415);
        assert_eq!(ask(at, "GET", "/api/cluster/stage", &[], b"").await.header("allow"), Some("POST"));
        assert_eq!(post("stage", &" ".repeat(20_000)).await.status, 413);

        assert_eq!(
            post("stage", r#"{"action":"weight","node":"000000000000123","weight":7}"#).await.status,
            200
        );
        assert_eq!(plan().await["staged"][0]["weight"], 7);
        assert_eq!(post("clear", "{}").await.status, 200);
        assert_eq!(plan().await["why"], "nothing is staged");
        // A zone is added to what is staged already, not to what is committed.
        assert_eq!(post("stage", r#"{"action":"weight","node":"0","weight":9}"#).await.status, 200);
        assert_eq!(post("stage", r#"{"action":"zone","node":"0","zone":"cellar"}"#).await.status, 200);
        let looked_at = plan().await;
        assert_eq!(looked_at["staged"].as_array().unwrap().len(), 1);
        assert_eq!(
            (&looked_at["staged"][0]["weight"], &looked_at["staged"][0]["zone"]),
            (&9.into(), &"cellar".into())
        );
        let stale = post("commit", r#"{"plan":"0123456789abcdef"}"#).await;
        assert_eq!(stale.status, 409);
        assert!(stale.text().contains(looked_at["hash"].as_str().unwrap()), "{}", stale.text());
        let done = post("commit", &format!(r#"{{"plan":{}}}"#, looked_at["hash"])).await;
        assert_eq!(done.status, 200, "{}", done.text());
        let done: serde_json::Value = serde_json::from_slice(&done.body).unwrap();
        assert_eq!((&done["version"], &done["plan"]), (&2.into(), &looked_at["hash"]));
        let members: serde_json::Value =
            serde_json::from_slice(&ask(at, "GET", "/api/members", &[], b"").await.body).unwrap();
        assert_eq!((&members[0]["weight"], &members[0]["zone"]), (&9.into(), &"cellar".into()));
        let transfers: serde_json::Value =
            serde_json::from_slice(&ask(at, "GET", "/api/transfers", &[], b"").await.body).unwrap();
        for field in ["version", "hash", "commit"] {
            assert!(!done[field].is_null());
            assert_eq!(transfers[field], done[field], "{field}");
        }
    });
}

/// Another node's commit wins before the operator's connection has its turn. Both make the same layout.
#[test]
fn a_commit_is_answered_as_what_it_was() {
    const OTHER: NodeId = NodeId(2);
    let founded = Membership::found(ClusterId(99), 3, 16, &[ME, OTHER].map(Member::new)).unwrap();
    let rivals = (1..=100).map(|seconds| {
        let mut ring = founded.clone();
        let keyspace = Keyspace { ttl_ms: Some(1000 * seconds), ..Keyspace::default() };
        ring.stage(OTHER, keyspace.change("other:").unwrap()).unwrap();
        ring.commit(ClusterId(99), ring.propose().unwrap().hash()).unwrap();
        ring
    });
    // The smallest hash stands.
    let rival = rivals.min_by_key(Membership::commit_hash).unwrap();
    let stands = format!("{:016x}", rival.commit_hash().unwrap());
    with_server_beside(OTHER, rival, serve, async |at, _stop| {
        let media = ("Content-Type", "application/json");
        let post = async |what: &str, body: &str| -> serde_json::Value {
            let path = format!("/api/cluster/{what}");
            let got = ask(at, "POST", &path, &[media], body.as_bytes()).await;
            assert_eq!(got.status, 200, "{}", got.text());
            serde_json::from_slice(&got.body).unwrap()
        };
        let get = async |path: &str| -> serde_json::Value {
            serde_json::from_slice(&ask(at, "GET", path, &[], b"").await.body).unwrap()
        };
        post("stage", r#"{"action":"keyspace","prefix":"one:","ttl":50}"#).await;
        let plan = get("/api/cluster/plan").await;
        let done = post("commit", &format!(r#"{{"plan":{}}}"#, plan["hash"])).await;
        let now = get("/api/transfers").await;
        assert_eq!((&now["version"], &now["hash"]), (&done["version"], &done["hash"]));
        assert_eq!((&now["commit"], &now["staged"]), (&stands.clone().into(), &1.into()));
        assert_ne!(done["commit"], now["commit"]);
    });
}

#[test]
fn a_stop_closes_idle_connections() {
    with_server(Bounds::default(), Order::Fifo, serve, async |at, stop| {
        let mut idle = TcpStream::connect(at).await.unwrap();
        let mut used = TcpStream::connect(at).await.unwrap();
        crate::redis::testing::expect(
            &mut used,
            b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n",
        )
        .await;
        drop(stop);
        assert_eq!(rest(&mut idle).await, b"");
        assert!(rest(&mut used).await.ends_with(b"ok\n"));
    });
}

/// Gets a value over a connection that stays open.
async fn keep_asking(stream: &mut TcpStream) {
    crate::redis::testing::expect(
        stream,
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
    )
    .await;
    let mut got = Vec::new();
    while !got.ends_with(b"\r\n\r\nok\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        got.push(byte[0]);
    }
}

#[test]
fn the_connection_that_was_idle_longest_gives_way() {
    let serve = |listener, handle, spawn, stop| serve_within(3, listener, handle, spawn, stop);
    with_server(Bounds::default(), Order::Fifo, serve, async |at, _stop| {
        let mut first = TcpStream::connect(at).await.unwrap();
        let mut second = TcpStream::connect(at).await.unwrap();
        keep_asking(&mut first).await;
        keep_asking(&mut second).await;
        // Never says a word, but came after.
        let mut silent = TcpStream::connect(at).await.unwrap();
        keep_asking(&mut first).await;
        let mut fourth = TcpStream::connect(at).await.unwrap();
        keep_asking(&mut fourth).await;
        assert_eq!(rest(&mut second).await, b"");
        keep_asking(&mut first).await;
        keep_asking(&mut silent).await;
    });
}

#[test]
fn a_body_that_does_not_come_gives_way() {
    let serve = |listener, handle, spawn, stop| serve_within(2, listener, handle, spawn, stop);
    with_server(Bounds::default(), Order::Fifo, serve, async |at, _stop| {
        let mut silent = Vec::new();
        for _ in 0..2 {
            let mut client = TcpStream::connect(at).await.unwrap();
            let head = b"PUT /kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
            // Told to go on: its request is known.
            crate::redis::testing::expect(&mut client, head, b"HTTP/1.1 100 Continue\r\n\r\n").await;
            silent.push(client);
        }
        assert_eq!(ask(at, "GET", "/healthz", &[], b"").await.text(), "ok\n");
        assert_eq!(rest(&mut silent[0]).await, b"");
        crate::redis::testing::expect(&mut silent[1], b"hi", b"HTTP/1.1 204 No Content\r\n").await;
    });
}

#[test]
fn who_finds_all_places_taken_is_told_so() {
    let seen: Rc<RefCell<Option<Handle>>> = Rc::default();
    let keep = Rc::clone(&seen);
    let serve = move |listener, handle: Handle, spawn, stop| {
        *keep.borrow_mut() = Some(handle.clone());
        serve_within(2, listener, handle, spawn, stop)
    };
    with_server(Bounds::default(), Order::Fifo, serve, async |at, _stop| {
        let handle = seen.borrow().clone().expect("it serves");
        let mut full = Charge::counted(handle.budget(), 0);
        full.set(crate::budget::ANSWERS - 1024);
        let mut busy = Vec::new();
        for n in 1..=2 {
            let mut client = TcpStream::connect(at).await.unwrap();
            client.write_all(b"GET /kv/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
            // It is being served: its read waits for room.
            while handle.in_flight() < n {
                smol::future::yield_now().await;
            }
            busy.push(client);
        }
        let got = ask(at, "GET", "/kv/a", &[], b"").await;
        assert_eq!((got.status, got.header("retry-after")), (503, Some("1")));
        assert_eq!(got.text(), "too many connections are being served at this node; try again\n");
        drop(full);
        for client in &mut busy {
            assert_eq!(take_apart(&rest(client).await).status, 404);
        }
    });
}

#[test]
fn a_refusal_that_leaves_a_body_unread_says_that_it_closes() {
    with_address(async |at| {
        let body = vec![b'x'; 1 << 20];
        for (head, status, closes) in [
            ("PUT /kv/a HTTP/1.1\r\nX-Gramme-Context: x", 400, true),
            ("PUT /kv/a?w=x HTTP/1.1\r\nX: x", 400, true),
            ("POST /kv/a HTTP/1.1\r\nX: x", 405, true),
            ("PUT /kv/a?w=9 HTTP/1.1\r\nX: x", 400, false),
            ("PUT /kv/a HTTP/1.1\r\nX: x", 204, false),
        ] {
            let mut stream = TcpStream::connect(at).await.unwrap();
            let request = format!("{head}\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
            // What is refused may be closed before all is sent.
            let _ = stream.write_all(&[request.as_bytes(), &body].concat()).await;
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let got = take_apart(&rest(&mut stream).await);
            let said = got.header("connection") == Some("close");
            assert_eq!((got.status, said), (status, closes), "{head}: {got:?}");
        }
        // Nothing is left unread of what had no body.
        let mut stream = TcpStream::connect(at).await.unwrap();
        let twice = b"DELETE /kv/a HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(twice).await.unwrap();
        let got = rest(&mut stream).await;
        assert!(got.starts_with(b"HTTP/1.1 428 ") && got.ends_with(b"ok\n"), "{}", got.escape_ascii());
    });
}

#[test]
fn answers_that_nobody_takes_are_bounded() {
    const LIMIT: usize = 8 << 20;
    let bounds = Bounds { answers: LIMIT, patience: Duration::from_millis(50), ..Bounds::default() };
    let seen: Rc<RefCell<Option<Handle>>> = Rc::default();
    let keep = Rc::clone(&seen);
    let serve = move |listener, handle: Handle, spawn, stop| {
        *keep.borrow_mut() = Some(handle.clone());
        serve(listener, handle, spawn, stop)
    };
    with_server(bounds, Order::Fifo, serve, async |at, _stop| {
        let handle = seen.borrow().clone().expect("it serves");
        let value = vec![b'v'; 4 << 20];
        assert_eq!(ask(at, "PUT", "/kv/big", &[], &value).await.status, 204);
        let mut hogs = Vec::new();
        for _ in 0..16 {
            let mut hog = TcpStream::connect(at).await.unwrap();
            let request = b"GET /kv/big HTTP/1.1\r\nHost: x\r\n\r\n".repeat(8);
            hog.write_all(&request).await.unwrap();
            hogs.push(hog);
        }
        while !handle.budget().is_short() {
            smol::future::yield_now().await;
            assert!(handle.budget().used() <= LIMIT + (4 << 20));
        }
        // They are cut off for those who take what they asked for.
        assert!(ask(at, "GET", "/kv/big", &[], b"").await.body == value);
        drop(hogs);
        while handle.budget().used() > 0 {
            smol::future::yield_now().await;
        }
    });
}

#[test]
fn the_longest_target_is_taken() {
    with_address(async |at| {
        // The longest that hyper takes, "/kv/" included.
        let key = "k".repeat(65_534 - 4);
        assert_eq!(ask(at, "GET", &format!("/kv/{key}"), &[], b"").await.status, 404);
        let got = ask(at, "GET", &format!("/kv/{key}k"), &[], b"").await;
        assert_eq!(got.status, 414);
    });
}
