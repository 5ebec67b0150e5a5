//! The server over real sockets, with a real engine behind it.

use super::testing::{Order, expect, plain, rest, with_server};
use crate::handle::Bounds;
use proptest::prelude::*;
use smol::io::AsyncWriteExt;
use smol::net::TcpStream;
use std::collections::BTreeMap;
use std::net::SocketAddr;

fn with_client<T: Future<Output = ()>>(order: Order, test: impl FnOnce(TcpStream, SocketAddr) -> T) {
    with_server(Bounds::default(), order, plain, async |address, _stop| {
        test(TcpStream::connect(address).await.unwrap(), address).await;
    });
}

/// Each line is sent as an inline command and answered with just these bytes.
fn script(steps: &[(&str, &str)]) {
    with_client(Order::Fifo, async |mut client, _| {
        for (command, answer) in steps {
            expect(&mut client, format!("{command}\r\n").as_bytes(), answer.as_bytes()).await;
        }
    });
}

fn encode(words: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        let word = word.as_ref();
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
    out
}

#[test]
fn plain_values() {
    script(&[
        ("GET a", "$-1\r\n"),
        ("SET a 1", "+OK\r\n"),
        ("get a", "$1\r\n1\r\n"),
        ("SET a \"two\\r\\nlines\"", "+OK\r\n"),
        ("GET a", "$10\r\ntwo\r\nlines\r\n"),
        ("STRLEN a", ":10\r\n"),
        ("STRLEN b", ":0\r\n"),
        ("TYPE a", "+string\r\n"),
        ("TYPE b", "+none\r\n"),
        ("SET '' x", "-ERR a key has 1 to 65536 bytes, this one is empty\r\n"),
        ("SET b ''", "+OK\r\n"),
        ("GET b", "$0\r\n\r\n"),
        ("MSET c 3 d 4 c 5", "+OK\r\n"),
        ("MGET a c x d c", "*5\r\n$10\r\ntwo\r\nlines\r\n$1\r\n5\r\n$-1\r\n$1\r\n4\r\n$1\r\n5\r\n"),
        ("EXISTS a", ":1\r\n"),
        ("EXISTS a a x", ":2\r\n"),
        ("DEL a", ":1\r\n"),
        ("DEL a", ":0\r\n"),
        ("UNLINK a b c", ":2\r\n"),
        ("GET b", "$-1\r\n"),
        ("GETDEL d", "$1\r\n4\r\n"),
        ("GETDEL d", "$-1\r\n"),
        ("SET d 1 GET", "$-1\r\n"),
        ("SET d 2 GET", "$1\r\n1\r\n"),
        ("GETSET d 3", "$1\r\n2\r\n"),
        ("GET d", "$1\r\n3\r\n"),
    ]);
}

#[test]
fn lifetimes() {
    script(&[
        ("TTL a", ":-2\r\n"),
        ("SET a 1", "+OK\r\n"),
        ("TTL a", ":-1\r\n"),
        ("PERSIST a", ":0\r\n"),
        ("EXPIRE a 100", ":1\r\n"),
        ("TTL a", ":100\r\n"),
        ("GET a", "$1\r\n1\r\n"),
        ("EXPIREAT a 32503680000", ":1\r\n"),
        ("EXPIRETIME a", ":32503680000\r\n"),
        ("PEXPIREAT a 32503680000123", ":1\r\n"),
        ("PEXPIRETIME a", ":32503680000123\r\n"),
        ("SET a 2 KEEPTTL", "+OK\r\n"),
        ("PEXPIRETIME a", ":32503680000123\r\n"),
        ("SET a 3", "+OK\r\n"),
        ("TTL a", ":-1\r\n"),
        ("GETEX a EX 50", "$1\r\n3\r\n"),
        ("TTL a", ":50\r\n"),
        ("GETEX a PERSIST", "$1\r\n3\r\n"),
        ("TTL a", ":-1\r\n"),
        ("SETEX b 1000 x", "+OK\r\n"),
        ("TTL b", ":1000\r\n"),
        ("PSETEX b 2000000 x", "+OK\r\n"),
        ("TTL b", ":2000\r\n"),
        ("SET b y EX 7", "+OK\r\n"),
        ("TTL b", ":7\r\n"),
        ("PERSIST b", ":1\r\n"),
        ("TTL b", ":-1\r\n"),
        // What is in the past is over.
        ("SET c 1 PXAT 5", "+OK\r\n"),
        ("GET c", "$-1\r\n"),
        ("EXISTS c", ":0\r\n"),
        ("SET c 1", "+OK\r\n"),
        ("EXPIRE c -1", ":1\r\n"),
        ("GET c", "$-1\r\n"),
        ("EXPIRE c 10", ":0\r\n"),
        ("GETEX c EX 10", "$-1\r\n"),
    ]);
}

#[test]
fn misuse_is_told_and_does_no_harm() {
    script(&[
        ("FOO", "-ERR unknown command 'FOO', with args beginning with: \r\n"),
        ("FOO bar \"a\\nb\"", "-ERR unknown command 'FOO', with args beginning with: 'bar' 'a\\nb' \r\n"),
        ("GET", "-ERR wrong number of arguments for 'get' command\r\n"),
        ("GET a b", "-ERR wrong number of arguments for 'get' command\r\n"),
        ("MSET a 1 b", "-ERR wrong number of arguments for 'mset' command\r\n"),
        ("SET a 1 EX", "-ERR syntax error\r\n"),
        ("SET a 1 EX x", "-ERR value is not an integer or out of range\r\n"),
        ("SET a 1 EX 0", "-ERR invalid expire time in 'set' command\r\n"),
        ("SET a 1 EX 9223372036854775807", "-ERR invalid expire time in 'set' command\r\n"),
        ("SET a 1 EX 1 PX 1", "-ERR syntax error\r\n"),
        ("SET a 1 KEEPTTL EX 1", "-ERR syntax error\r\n"),
        ("SET a 1 WHAT", "-ERR syntax error\r\n"),
        ("SELECT 0", "+OK\r\n"),
        ("SELECT 1", "-ERR DB index is out of range: there is one database, 0\r\n"),
        ("DYN.PUT a 1 CONTEXT x", "-ERR context: "),
    ]);
    script(&[("GET a", "$-1\r\n")]);
}

#[test]
fn a_long_wrong_word_is_not_repeated_in_full() {
    with_client(Order::Fifo, async |mut client, _| {
        // Each byte of it would be shown as four.
        let long = vec![0xff; 1 << 20];
        for words in [
            &[&b"HELLO"[..], b"3", &long][..],
            &[b"CLIENT", b"SETINFO", &long, b"v"],
            &[b"CLIENT", &long],
            &[b"CONFIG", &long],
            &[b"COMMAND", &long],
            &[b"EXPIRE", b"k", b"9", &long],
            &[b"DYN.GET", b"k", &long],
            &[b"DYN.PUT", b"k", b"v", &long],
            &[b"SET", b"k", b"v", &long],
            &[&long],
            &[b"NOPE", &long, &long, &long, &long],
        ] {
            let answer = ask(&mut client, words).await;
            assert!(answer.starts_with(b"-ERR ") && answer.len() < 2000, "{} bytes", answer.len());
        }
    });
}

#[test]
fn a_short_question_has_no_endless_answer() {
    with_client(Order::Fifo, async |mut client, _| {
        for what in [&b"INFO"[..], b"docs"] {
            let mut words = vec![&b"COMMAND"[..], what];
            words.resize(2 + 1024, b"get");
            assert!(ask(&mut client, &words).await.len() < 200 << 10);
            words.push(b"get");
            let refused =
                format!("-ERR COMMAND {}: up to 1024 names\r\n", what.to_ascii_uppercase().escape_ascii());
            assert_eq!(ask(&mut client, &words).await, refused.as_bytes());
        }
    });
}

#[test]
fn what_would_need_consensus_says_so() {
    let text = " would need consensus, and this store never waits for any: read with DYN.GET, write with DYN.PUT and the \
                context that you were given\r\n";
    for (command, name) in [
        ("SET a 1 NX", "SET NX"),
        ("SET a 1 EX 5 xx", "SET XX"),
        ("SETNX a 1", "SETNX"),
        ("INCR a", "INCR"),
        ("MULTI", "MULTI"),
        ("EXPIRE a 1 GT", "EXPIRE GT"),
    ] {
        script(&[(command, &format!("-ERR {name}{text}")), ("GET a", "$-1\r\n")]);
    }
}

#[test]
fn connection_commands() {
    let no_password = "-ERR AUTH <password> called without any password configured for the default user. Are you sure \
                       your configuration is correct?\r\n";
    script(&[
        ("PING", "+PONG\r\n"),
        ("PING hi", "$2\r\nhi\r\n"),
        ("ECHO hi", "$2\r\nhi\r\n"),
        ("AUTH x", no_password),
        ("AUTH default x", "+OK\r\n"),
        ("AUTH eve x", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
        ("CLIENT GETNAME", "$-1\r\n"),
        ("CLIENT SETNAME me", "+OK\r\n"),
        ("CLIENT GETNAME", "$2\r\nme\r\n"),
        ("CLIENT SETNAME \"a b\"", "-ERR Client names"),
    ]);
    script(&[
        ("CLIENT SETINFO LIB-NAME redis-py", "+OK\r\n"),
        ("CLIENT ID", ":1\r\n"),
        ("CLIENT NO-EVICT on", "+OK\r\n"),
        (
            "CLIENT MAINT_NOTIFICATIONS ON",
            "-ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP.\r\n",
        ),
        ("CONFIG GET save appendonly", "*4\r\n$10\r\nappendonly\r\n$3\r\nyes\r\n$4\r\nsave\r\n$0\r\n\r\n"),
        ("HELLO 4", "-NOPROTO unsupported protocol version\r\n"),
        ("GET a", "$-1\r\n"),
        (
            "HELLO 3",
            "%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.2.4\r\n$5\r\nproto\r\n:3\r\n",
        ),
    ]);
    script(&[
        (
            "HELLO 3 AUTH default x SETNAME me",
            "%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.2.4\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:1\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n",
        ),
        ("GET a", "_\r\n"),
        ("CLIENT GETNAME", "$2\r\nme\r\n"),
        (
            "COMMAND INFO get nope",
            "*2\r\n*10\r\n$3\r\nget\r\n:2\r\n~2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n~0\r\n*0\r\n*0\r\n*0\r\n_\r\n",
        ),
        ("COMMAND GETKEYS MSET a 1 b 2", "*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
        ("INFO persistence", "=98\r\ntxt:# Persistence\r\nloading:0\r\n"),
    ]);
    script(&[("RESET", "+RESET\r\n"), ("READONLY", "+OK\r\n"), ("QUIT", "+OK\r\n")]);
}

/// The answer to one command, as text up to the last line end that it takes.
pub(super) async fn ask(client: &mut TcpStream, words: &[&[u8]]) -> Vec<u8> {
    use smol::io::AsyncReadExt;
    client.write_all(&encode(words)).await.unwrap();
    client.write_all(b"PING end\r\n").await.unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"$3\r\nend\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).await.unwrap();
        got.push(byte[0]);
    }
    got.truncate(got.len() - 9);
    got
}

fn bulk(answer: &[u8]) -> Vec<u8> {
    let text = answer.strip_prefix(b"$").unwrap_or_else(|| panic!("{}", answer.escape_ascii()));
    let end = text.windows(2).position(|w| w == b"\r\n").unwrap();
    text[end + 2..text.len() - 2].to_vec()
}

#[test]
fn siblings_live_until_a_write_that_saw_them() {
    with_client(Order::Fifo, async |mut client, _| {
        let one = bulk(&ask(&mut client, &[b"DYN.PUT", b"cart", b"bread"]).await);
        // Two writers with the same context.
        ask(&mut client, &[b"DYN.PUT", b"cart", b"bread, milk", b"CONTEXT", &one]).await;
        let chained = bulk(
            &ask(&mut client, &[b"DYN.PUT", b"cart", b"bread, eggs", b"context", &one, b"W", b"quorum"])
                .await,
        );
        let both = ask(&mut client, &[b"DYN.GET", b"cart", b"R", b"1"]).await;
        let shown = String::from_utf8(both.clone()).unwrap();
        assert!(shown.starts_with("*2\r\n$"), "{shown}");
        assert!(shown.contains("*2\r\n$11\r\nbread, "), "{shown}");
        assert!(shown.contains("bread, milk") && shown.contains("bread, eggs"), "{shown}");
        // A writer that chains its own writes does not erase what it was not shown.
        ask(&mut client, &[b"DYN.PUT", b"cart", b"bread, eggs, tea", b"CONTEXT", &chained]).await;
        let both = ask(&mut client, &[b"DYN.GET", b"cart"]).await;
        let shown = String::from_utf8_lossy(&both).into_owned();
        assert!(shown.contains("bread, milk") && shown.contains("eggs, tea"), "{shown}");
        // EXPIRE keeps both.
        assert_eq!(ask(&mut client, &[b"EXPIRE", b"cart", b"1000"]).await, b":1\r\n");
        let both = ask(&mut client, &[b"DYN.GET", b"cart"]).await;
        let shown = String::from_utf8_lossy(&both).into_owned();
        assert!(shown.contains("bread, milk") && shown.contains("eggs, tea"), "{shown}");
        // Only what is alike becomes one: clients that do this at the same time would multiply it.
        ask(&mut client, &[b"DYN.PUT", b"cart", b"bread, milk"]).await;
        assert_eq!(ask(&mut client, &[b"PERSIST", b"cart"]).await, b":1\r\n");
        let both = ask(&mut client, &[b"DYN.GET", b"cart"]).await;
        assert!(
            both.ends_with(b"*2\r\n$11\r\nbread, milk\r\n$16\r\nbread, eggs, tea\r\n"),
            "{}",
            both.escape_ascii()
        );
        // One that saw both replaces both.
        let seen = bulk(&both[4..both.iter().skip(4).position(|&b| b == b'*').unwrap() + 4]);
        let merged =
            bulk(&ask(&mut client, &[b"DYN.PUT", b"cart", b"all", b"CONTEXT", &seen, b"EX", b"100"]).await);
        assert!(ask(&mut client, &[b"DYN.GET", b"cart"]).await.ends_with(b"*1\r\n$3\r\nall\r\n"));
        assert_eq!(ask(&mut client, &[b"TTL", b"cart"]).await, b":100\r\n");
        // Contexts are sealed to their key.
        let foreign = ask(&mut client, &[b"DYN.PUT", b"card", b"x", b"CONTEXT", &merged]).await;
        assert!(foreign.starts_with(b"-ERR context: "), "{}", foreign.escape_ascii());
        let bare = ask(&mut client, &[b"DYN.DEL", b"cart", b"W", b"1"]).await;
        assert!(bare.starts_with(b"-ERR DYN.DEL needs the CONTEXT"), "{}", bare.escape_ascii());
        bulk(&ask(&mut client, &[b"DYN.DEL", b"cart", b"CONTEXT", &merged]).await);
        assert!(ask(&mut client, &[b"DYN.GET", b"cart"]).await.ends_with(b"*0\r\n"));
        let wrong: [(&[&[u8]], &[u8]); 6] = [
            (&[b"DYN.GET", b"cart", b"R", b"5"], b"-ERR r is a number from 1 to "),
            (&[b"DYN.GET", b"cart", b"R", b"x"], b"-ERR R takes a number"),
            (&[b"DYN.GET", b"cart", b"TIMEOUT", b"0"], b"-ERR TIMEOUT is in milliseconds"),
            (&[b"DYN.GET", b"cart", b"W", b"1"], b"-ERR syntax error: DYN.GET has no option 'W'"),
            (&[b"DYN.GET", b"cart", b"R", b"2", b"r", b"3"], b"-ERR syntax error: R stands there twice"),
            (
                &[b"DYN.PUT", b"cart", b"v", b"EX", b"9", b"PX", b"9"],
                b"-ERR syntax error: an expiry stands there twice",
            ),
        ];
        for (wrong, error) in wrong {
            let answer = ask(&mut client, wrong).await;
            assert!(answer.starts_with(error), "{}", answer.escape_ascii());
        }
        assert_eq!(
            ask(&mut client, &[b"DYN.PREFLIST", b"cart"]).await,
            b"*1\r\n*3\r\n$16\r\n0000000000001234\r\n$7\r\nprimary\r\n$2\r\nup\r\n"
        );
        for (length, error) in [(0, "this one is empty"), (65_537, "this one has 65537")] {
            assert_eq!(
                String::from_utf8(ask(&mut client, &[b"DYN.PREFLIST", &vec![b'k'; length]]).await).unwrap(),
                format!("-ERR a key has 1 to 65536 bytes, {error}\r\n")
            );
        }
        let ring = String::from_utf8(ask(&mut client, &[b"DYN.RING"]).await).unwrap();
        assert!(ring.starts_with("*10\r\n$7\r\nversion\r\n:1\r\n"), "{ring}");
        assert!(ring.ends_with("*1\r\n*3\r\n:0\r\n:16383\r\n*1\r\n$16\r\n0000000000001234\r\n"), "{ring}");
    });
}

#[test]
fn nonsense_is_answered_and_closed_while_others_go_on() {
    with_client(Order::Fifo, async |mut other, address| {
        for (sent, answer) in [
            (
                &b"\x16\x03\x01\x02\x00\x01"[..],
                "-ERR Protocol error: expected '*' or a word, got '\\x16'\r\n",
            ),
            (b"SET a 1\r\n*1\r\n$9999999999\r\n", "+OK\r\n-ERR Protocol error: invalid bulk length\r\n"),
            (b"*2000000\r\n", "-ERR Protocol error: invalid multibulk length\r\n"),
            (b"PING\r\n*1\r\n!", "+PONG\r\n-ERR Protocol error: expected '$', got '!'\r\n"),
            (
                b"POST / HTTP/1.1\r\nHost: x\r\n\r\nSET a 2\r\n",
                "-ERR this is not an HTTP port; nothing was done\r\n",
            ),
            (b"QUIT\r\nSET a 2\r\n", "+OK\r\n"),
        ] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(sent).await.unwrap();
            assert_eq!(String::from_utf8(rest(&mut client).await).unwrap(), answer);
            expect(&mut other, b"PING\r\n", b"+PONG\r\n").await;
        }
        expect(&mut other, b"GET a\r\n", b"$1\r\n1\r\n").await;
    });
}

#[test]
fn a_client_that_closes_its_half_still_gets_its_answers() {
    with_client(Order::Shuffled(3), async |mut client, _| {
        client.write_all(b"SET a 1\r\nGET a\r\nGET b").await.unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(rest(&mut client).await, b"+OK\r\n$1\r\n1\r\n");
    });
}

#[test]
fn too_large_a_value_is_refused_and_the_connection_lives() {
    with_client(Order::Fifo, async |mut client, _| {
        let value = vec![b'x'; (16 << 20) + 1];
        let command = [encode(&[&b"SET"[..], b"a", &value]), b"PING\r\n".to_vec()].concat();
        expect(&mut client, &command, b"-TOOLARGE value: the limit is 16777216 bytes\r\n+PONG\r\n").await;
        let value = &value[..16 << 20];
        expect(&mut client, &encode(&[&b"SET"[..], b"a", value]), b"+OK\r\n").await;
        expect(&mut client, b"STRLEN a\r\n", b":16777216\r\n").await;
        let answer = [b"$16777216\r\n", value, b"\r\n"].concat();
        expect(&mut client, b"GET a\r\n", &answer).await;
    });
}

#[test]
fn a_partial_mset_names_its_keys() {
    let one = Bounds { requests: 1, bytes: 1 << 20, ..Bounds::default() };
    with_server(one, Order::Fifo, plain, async |address, _stop| {
        let mut client = TcpStream::connect(address).await.unwrap();
        expect(
            &mut client,
            b"MSET a 1 b 2 \"c\\n\" 3\r\n",
            b"-INDETERMINATE too many requests in flight at this node; try again; 1 of 3 keys acknowledged, not \
              acknowledged: 'b' 'c\\n'\r\n",
        )
        .await;
        expect(&mut client, b"GET a\r\n", b"$1\r\n1\r\n").await;
        expect(
            &mut client,
            b"MGET a b\r\n",
            b"-OVERLOADED too many requests in flight at this node; try again\r\n",
        )
        .await;
    });
}

#[test]
fn a_key_that_cannot_be_one_is_refused_before_the_others_are_touched() {
    let empty = "-ERR a key has 1 to 65536 bytes, this one is empty\r\n";
    script(&[
        ("SET a 1", "+OK\r\n"),
        ("MSET a 2 '' 3", empty),
        ("GET a", "$1\r\n1\r\n"),
        ("DEL a ''", empty),
        ("GET a", "$1\r\n1\r\n"),
        ("MGET a ''", empty),
        ("EXISTS '' a", empty),
    ]);
    with_client(Order::Fifo, async |mut client, _| {
        let key = vec![b'k'; 65_537];
        let command = encode(&[&b"MSET"[..], b"a", b"1", &key, b"2"]);
        expect(&mut client, &command, b"-ERR a key has 1 to 65536 bytes, this one has 65537\r\n").await;
        expect(&mut client, b"GET a\r\n", b"$-1\r\n").await;
        let command = encode(&[&b"MSET"[..], b"a", b"1", &key[1..], b"2"]);
        expect(&mut client, &command, b"+OK\r\n").await;
    });
}

#[test]
fn a_stop_answers_what_is_in_flight_and_closes() {
    with_server(Bounds::default(), Order::Shuffled(9), plain, async |address, stop| {
        let mut client = TcpStream::connect(address).await.unwrap();
        let mut idle = TcpStream::connect(address).await.unwrap();
        expect(&mut idle, b"PING\r\n", b"+PONG\r\n").await;
        expect(&mut client, b"PING\r\nSET a 1\r\nSET a 2\r\nGET a\r\n", b"+PONG\r\n").await;
        drop(stop);
        assert_eq!(rest(&mut client).await, b"+OK\r\n+OK\r\n$1\r\n2\r\n");
        assert_eq!(rest(&mut idle).await, b"");
    });
}

/// One command of a random pipeline and what Redis would answer, given what came before.
fn model(state: &mut BTreeMap<String, String>, command: &[String]) -> String {
    let value = |v: Option<&String>| v.map_or("$-1\r\n".to_owned(), |v| format!("${}\r\n{v}\r\n", v.len()));
    let count = |n: usize| format!(":{n}\r\n");
    match command[0].as_str() {
        "SET" if command.len() == 4 => value(state.insert(command[1].clone(), command[2].clone()).as_ref()),
        "SET" => {
            state.insert(command[1].clone(), command[2].clone());
            "+OK\r\n".to_owned()
        }
        "GET" => value(state.get(&command[1])),
        "GETDEL" => value(state.remove(&command[1]).as_ref()),
        "STRLEN" => count(state.get(&command[1]).map_or(0, String::len)),
        "PERSIST" => count(0),
        "DEL" => count(command[1..].iter().filter(|key| state.remove(*key).is_some()).count()),
        "EXISTS" => count(command[1..].iter().filter(|key| state.contains_key(*key)).count()),
        "MGET" => {
            let values: String = command[1..].iter().map(|key| value(state.get(key))).collect();
            format!("*{}\r\n{values}", command.len() - 1)
        }
        "MSET" => {
            state.extend(command[1..].chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())));
            "+OK\r\n".to_owned()
        }
        _ => "+PONG\r\n".to_owned(),
    }
}

fn command() -> impl Strategy<Value = Vec<String>> {
    let key = || prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned);
    let keys = |name: &'static str, most: usize| {
        prop::collection::vec(key(), 1..most).prop_map(move |keys| [vec![name.to_owned()], keys].concat())
    };
    let one = |name: &'static str| key().prop_map(move |key| vec![name.to_owned(), key]);
    let value = || "[a-z]{0,9}".prop_map(|v| v);
    prop_oneof![
        3 => (key(), value()).prop_map(|(k, v)| vec!["SET".to_owned(), k, v]),
        1 => (key(), value()).prop_map(|(k, v)| vec!["SET".to_owned(), k, v, "GET".to_owned()]),
        3 => one("GET"),
        1 => one("GETDEL"),
        1 => one("STRLEN"),
        1 => one("PERSIST"),
        1 => keys("DEL", 4),
        1 => keys("EXISTS", 4),
        1 => keys("MGET", 40),
        1 => prop::collection::vec((key(), value()), 1..4).prop_map(|pairs| {
            let pairs = pairs.into_iter().flat_map(|(k, v)| [k, v]);
            std::iter::once("MSET".to_owned()).chain(pairs).collect()
        }),
        1 => Just(vec!["PING".to_owned()]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// However requests overtake each other behind it, a pipeline is answered as if each command had waited for
    /// the one before.
    #[test]
    fn a_pipeline_takes_effect_in_order(commands in prop::collection::vec(command(), 1..120), seed in any::<u64>()) {
        let mut state = BTreeMap::new();
        let sent: Vec<u8> = commands.iter().flat_map(|c| encode(c)).collect();
        let answers: String = commands.iter().map(|c| model(&mut state, c)).collect();
        with_client(Order::Shuffled(seed), async |mut client, _| {
            expect(&mut client, &sent, answers.as_bytes()).await;
        });
    }
}
