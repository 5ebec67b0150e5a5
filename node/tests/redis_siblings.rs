//! What clients of different nodes see of each other's writes.

mod common;

use common::{Cluster, PATIENCE, Redis, Resp};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

fn text(reply: Option<Resp>) -> String {
    match reply {
        Some(Resp::Bulk(Some(bytes))) => String::from_utf8(bytes).expect("it is text"),
        other => panic!("{other:?} is no text"),
    }
}

/// The context and the values, in order.
fn siblings(client: &mut Redis, key: &str) -> (String, Vec<String>) {
    match client.call(&[b"DYN.GET", key.as_bytes()]) {
        Some(Resp::Array(mut items)) => match (items.pop(), items.pop()) {
            (Some(Resp::Array(values)), context) => {
                let mut values: Vec<String> = values.into_iter().map(|v| text(Some(v))).collect();
                values.sort();
                (text(context), values)
            }
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// Status and whole answer.
fn http(port: u16, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the node serves HTTP");
    stream.set_read_timeout(Some(PATIENCE)).expect("it is not zero");
    stream.write_all(request.as_bytes()).expect("the node reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the node answers in text");
    (answer[9..12].to_owned(), answer)
}

#[test]
fn writers_at_two_nodes_with_one_context_leave_two_values() {
    let cluster = Cluster::start("redis-siblings", 3);
    let [mut a, mut b, mut c] =
        [0, 1, 2].map(|node| Redis::connect(cluster.redis(node)).expect("the node serves"));
    for number in 0..20 {
        let key = format!("cart:{number}");
        let base = text(a.call(&[b"DYN.PUT", key.as_bytes(), b"bread"]));
        let write = |client: &mut Redis, value: &[u8], context: &str| {
            text(client.call(&[b"DYN.PUT", key.as_bytes(), value, b"CONTEXT", context.as_bytes()]))
        };
        write(&mut a, b"bread, milk", &base);
        let chained = write(&mut b, b"bread, eggs", &base);
        // One who only chains its own writes erases nothing that it was not shown.
        write(&mut c, b"bread, eggs, tea", &chained);
        let (context, values) = siblings(&mut b, &key);
        assert_eq!(values, ["bread, eggs, tea", "bread, milk"], "{key}");
        // The same through HTTP; a context is good at every node and through every protocol.
        let get = format!("GET /kv/{key} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let (status, answer) = http(cluster.http(2), &get);
        assert_eq!(status, "300", "{answer}");
        let put = format!(
            "PUT /kv/{key} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Gramme-Context: {context}\r\n\
             Content-Length: 3\r\n\r\nall"
        );
        assert_eq!(http(cluster.http(0), &put).0, "204");
        assert_eq!(siblings(&mut c, &key).1, ["all"], "{key}");
        assert_eq!(b.get(&key).as_deref(), Some("all"));
    }
}

#[test]
fn a_pipeline_is_in_order_at_a_node_that_must_forward() {
    // Five nodes: most keys are not this node's own.
    let cluster = Cluster::start("redis-pipeline", 5);
    let mut client = Redis::connect(cluster.redis(3)).expect("the node serves");
    for number in 0..200 {
        let (key, value) = (format!("k{}", number % 10), number.to_string());
        client.send(&[b"SET", key.as_bytes(), value.as_bytes()]).expect("it takes commands");
        client.send(&[b"GET", key.as_bytes()]).expect("it takes commands");
    }
    for number in 0..200 {
        assert_eq!(client.receive(), Some(Resp::Simple("OK".to_owned())), "{number}");
        assert_eq!(text(client.receive()), number.to_string());
    }
}

#[test]
fn what_cannot_be_met_is_said_at_once() {
    let mut cluster = Cluster::start("redis-quorum", 3);
    cluster.kill(2);
    let mut client = Redis::connect(cluster.redis(0)).expect("the node serves");
    common::eventually("the dead node is noticed", || {
        cluster.status(0)["peers"].as_array().expect("peers").iter().any(|peer| peer["alive"] == false)
    });
    assert_eq!(client.set("a", "1"), Some(Resp::Simple("OK".to_owned())));
    let refused = client.call(&[b"DYN.PUT", b"a", b"2", b"PW", b"3"]);
    assert_eq!(refused, Some(Resp::Error("QUORUM pw: 2 of 3 reachable".to_owned())));
    let refused = client.call(&[b"DYN.GET", b"a", b"PR", b"all"]);
    assert_eq!(refused, Some(Resp::Error("QUORUM pr: 2 of 3 reachable".to_owned())));
    assert_eq!(client.get("a").as_deref(), Some("1"), "the refused write did nothing");
    let get = "GET /kv/a?pr=3 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let (status, answer) = http(cluster.http(1), get);
    assert!(status == "503" && answer.contains("pr: 2 of 3 reachable"), "{answer}");
}

/// Runs these commands on one key, one after the other, at a node, until told to stop; gives the values it was answered.
fn meddler(
    port: u16,
    commands: Vec<Vec<String>>,
    stop: Arc<AtomicBool>,
) -> thread::JoinHandle<BTreeSet<String>> {
    thread::spawn(move || {
        let mut client = Redis::connect(port).expect("the node serves");
        let mut told = BTreeSet::new();
        while !stop.load(Ordering::Relaxed) {
            for words in &commands {
                let words: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
                match client.call(&words) {
                    Some(Resp::Bulk(Some(value))) => {
                        told.insert(String::from_utf8(value).expect("it is text"));
                    }
                    Some(Resp::Bulk(None) | Resp::Integer(_)) => {}
                    other => panic!("{words:?}: {other:?}"),
                }
            }
        }
        told
    })
}

#[test]
fn commands_that_read_first_undo_no_set() {
    let cluster = Cluster::start("redis-amend", 3);
    cluster.change(0, &["stage", "keyspace", "last:", "--policy", "lww"]);
    cluster.commit(0);
    cluster.wait_until_one_ring(&[0, 1, 2]);
    let mut setter = Redis::connect(cluster.redis(0)).expect("the node serves");
    for key in ["k", "last:k"] {
        let words =
            |words: &[&str]| -> Vec<String> { words.iter().map(|word| word.replace('K', key)).collect() };
        let lives = [&["expire", "K", "1000"][..], &["persist", "K"], &["getex", "K", "EX", "2000"]];
        for (commands, deletes) in [(&lives[..], false), (&[&["getdel", "K"][..]], true)] {
            let commands: Vec<_> = commands.iter().map(|c| words(c)).collect();
            let stop = Arc::new(AtomicBool::new(false));
            let meddlers =
                [0, 1, 2].map(|node| meddler(cluster.redis(node), commands.clone(), Arc::clone(&stop)));
            let mut missing = BTreeSet::new();
            for number in 0..150 {
                let value = format!("{deletes} {number}");
                assert_eq!(setter.set(key, &value), Some(Resp::Simple("OK".to_owned())));
                match setter.get(key) {
                    Some(read) => assert_eq!(read, value, "{key}, next to {:?}", commands[0]),
                    None => assert!(deletes && missing.insert(value), "{key} is gone"),
                }
            }
            stop.store(true, Ordering::Relaxed);
            let told: Vec<_> = meddlers.into_iter().map(|m| m.join().expect("it does not panic")).collect();
            let taken: BTreeSet<String> = told.into_iter().flatten().collect();
            let lost: Vec<_> = missing.difference(&taken).collect();
            assert!(lost.is_empty(), "{key}: {lost:?} were deleted by who had not read them");
        }
    }
}
