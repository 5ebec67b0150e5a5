//! The cluster port: what its clients are told of the ring, and when they are sent elsewhere.

use super::Mode;
use super::testing::{ME, Order, cluster_address, expect, with_server_among};
use crate::handle::{Bounds, Handle};
use gramme_ring::{NodeId, Slot};
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::TcpStream;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;

const OTHERS: [(NodeId, bool); 4] =
    [(NodeId(11), true), (NodeId(12), true), (NodeId(13), false), (NodeId(14), true)];

/// A node with peers of which one is down, serving at a port of this mode.
fn with_port(mode: Mode, test: impl AsyncFnOnce(SocketAddr, Handle)) {
    let seen: Rc<RefCell<Option<Handle>>> = Rc::default();
    let keep = Rc::clone(&seen);
    let serve = move |listener, handle: Handle, spawn, stop| {
        *keep.borrow_mut() = Some(handle.clone());
        super::serve([(mode, listener)], handle, spawn, stop)
    };
    with_server_among(&OTHERS, Bounds::default(), Order::Fifo, serve, async |address, _stop| {
        let handle = seen.borrow().clone().expect("it serves");
        test(address, handle).await;
    });
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("it listens")
}

#[derive(Clone, Debug, PartialEq)]
enum Answer {
    Text(String),
    Number(i64),
    List(Vec<Answer>),
}

impl Answer {
    fn list(&self) -> &[Answer] {
        if let Answer::List(items) = self { items } else { panic!("{self:?} is no list") }
    }

    fn number(&self) -> i64 {
        if let Answer::Number(n) = self { *n } else { panic!("{self:?} is no number") }
    }

    fn text(&self) -> &str {
        if let Answer::Text(text) = self { text } else { panic!("{self:?} is no text") }
    }
}

async fn line(client: &mut TcpStream) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).await.expect("it answers");
        line.push(byte[0]);
    }
    String::from_utf8(line[..line.len() - 2].to_vec()).expect("it is text")
}

async fn answer(client: &mut TcpStream) -> Answer {
    let head = line(client).await;
    let (kind, rest) = head.split_at(1);
    match kind {
        "*" => {
            let mut items = Vec::new();
            for _ in 0..rest.parse::<usize>().expect("a length") {
                items.push(Box::pin(answer(client)).await);
            }
            Answer::List(items)
        }
        "$" => {
            let mut bytes = vec![0; rest.parse::<usize>().expect("a length") + 2];
            client.read_exact(&mut bytes).await.expect("it answers");
            Answer::Text(String::from_utf8(bytes[..bytes.len() - 2].to_vec()).expect("it is text"))
        }
        ":" => Answer::Number(rest.parse().expect("a number")),
        _ => Answer::Text(head),
    }
}

async fn ask(client: &mut TcpStream, command: &str) -> Answer {
    client.write_all(format!("{command}\r\n").as_bytes()).await.expect("it listens");
    answer(client).await
}

/// The nodes that serve a slot without forwarding, as the engine has them.
fn coordinators(handle: &Handle, slot: u16) -> Vec<NodeId> {
    let slot = Slot::new(slot).expect("it is one");
    handle.engine(|engine| engine.coordinators(slot))
}

/// A key that this node coordinates, or does not.
fn key(handle: &Handle, here: bool) -> String {
    let keys = (0..1000).map(|n| format!("key-{n}"));
    let is_here = |key: &String| coordinators(handle, Slot::of(key.as_bytes()).index()).contains(&ME);
    keys.into_iter().find(|key| is_here(key) == here).expect("some are and some are not")
}

/// A node as Redis names it.
fn name(node: NodeId) -> String {
    format!("{node}{}", "0".repeat(24))
}

#[test]
fn slots_name_for_each_slot_those_who_serve_it_and_every_node_first_as_a_master() {
    for mode in [Mode::Plain, Mode::Cluster] {
        with_port(mode, async |address, handle| {
            let mut client = connect(address).await;
            let runs = ask(&mut client, "CLUSTER SLOTS").await;
            let (mut shown, mut met) = (BTreeMap::new(), BTreeSet::new());
            for run in runs.list() {
                let [first, last, nodes @ ..] = run.list() else { panic!("{run:?}") };
                let nodes: Vec<NodeId> = nodes
                    .iter()
                    .map(|node| {
                        let [host, port, id, names] = node.list() else { panic!("{node:?}") };
                        let node = NodeId(u64::try_from(port.number()).expect("a port"));
                        assert_eq!(format!("{}:{}", host.text(), port.number()), cluster_address(node));
                        assert_eq!((id.text(), names.list()), (name(node).as_str(), &[][..]));
                        node
                    })
                    .collect();
                if met.insert(nodes[0]) {
                    assert_eq!((nodes.len(), first), (1, last), "a node comes first alone: {run:?}");
                } else {
                    assert!(nodes.iter().all(|node| met.contains(node)), "{run:?}");
                }
                for slot in first.number()..=last.number() {
                    let slot = u16::try_from(slot).expect("a slot");
                    assert_eq!(shown.insert(slot, nodes.clone()), None, "slot {slot} comes twice");
                }
            }
            assert_eq!(met, [ME, NodeId(11), NodeId(12), NodeId(14)].into());
            assert_eq!(shown.len(), 16_384);
            for (slot, nodes) in shown {
                let wanted = coordinators(&handle, slot);
                assert_eq!(wanted.len(), 3);
                assert!(nodes == wanted || nodes == wanted[..1], "slot {slot}: {nodes:?}, not {wanted:?}");
            }
        });
    }
}

#[test]
fn nodes_and_shards_give_each_slot_to_its_first_coordinator() {
    with_port(Mode::Cluster, async |address, handle| {
        let mut client = connect(address).await;
        let mut owned = BTreeMap::new();
        let nodes = ask(&mut client, "CLUSTER NODES").await;
        assert_eq!(nodes.text().lines().count(), 5);
        for line in nodes.text().lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [id, at, flags, "-", "0", "0", "1", link, ranges @ ..] = &words[..] else { panic!("{line}") };
            let (address, peer) = at.split_once('@').expect("both ports");
            let node = NodeId(address.rsplit_once(':').expect("a port").1.parse().expect("a number"));
            assert_eq!((*id, address, peer), (name(node).as_str(), cluster_address(node).as_str(), "1"));
            let wanted = match node {
                ME => ("myself,master", "connected"),
                NodeId(13) => ("master,fail", "disconnected"),
                _ => ("master", "connected"),
            };
            assert_eq!((*flags, *link), wanted);
            for range in ranges {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let ends: [u16; 2] = [first, last].map(|slot| slot.parse().expect("a slot"));
                owned.extend((ends[0]..=ends[1]).map(|slot| (slot, node)));
            }
        }
        assert_eq!(owned.len(), 16_384);
        assert!(owned.iter().all(|(slot, node)| coordinators(&handle, *slot)[0] == *node));

        let shards = ask(&mut client, "CLUSTER SHARDS").await;
        assert_eq!(shards.list().len(), 4);
        for shard in shards.list() {
            let [_, slots, _, nodes] = shard.list() else { panic!("{shard:?}") };
            let [node] = nodes.list() else { panic!("{nodes:?}") };
            let field = |name: &str| {
                let at = node.list().iter().position(|a| *a == Answer::Text(name.to_owned()));
                &node.list()[at.expect("it is there") + 1]
            };
            assert_eq!((field("role").text(), field("health").text()), ("master", "online"));
            let id = NodeId(u64::try_from(field("port").number()).expect("a port"));
            assert_eq!(field("id").text(), name(id));
            for range in slots.list().chunks(2) {
                for slot in range[0].number()..=range[1].number() {
                    assert_eq!(owned.remove(&u16::try_from(slot).expect("a slot")), Some(id));
                }
            }
        }
        assert!(owned.is_empty());
    });
}

#[test]
fn the_cluster_port_says_once_where_a_read_should_go_and_forwards_everything_else() {
    with_port(Mode::Cluster, async |address, handle| {
        let (mine, other) = (key(&handle, true), key(&handle, false));
        let slot = Slot::of(other.as_bytes()).index();
        let moved = format!("-MOVED {slot} {}\r\n", cluster_address(coordinators(&handle, slot)[0]));
        let (get, set) = (format!("GET {other}\r\n"), format!("SET {other} 1\r\n"));
        let forwarded = b"-ERR forwarded\r\n";

        let mut client = connect(address).await;
        // Not writes, nor what is pipelined, nor commands of many keys, nor what is served here.
        expect(&mut client, set.as_bytes(), forwarded).await;
        expect(&mut client, format!("{get}{get}").as_bytes(), &forwarded.repeat(2)).await;
        expect(&mut client, format!("PING\r\n{get}").as_bytes(), b"+PONG\r\n-ERR forwarded\r\n").await;
        expect(&mut client, format!("MGET {other} {mine}\r\n").as_bytes(), forwarded).await;
        expect(&mut client, format!("GET {mine}\r\n").as_bytes(), b"$-1\r\n").await;
        let before = handle.forwarded();
        assert_eq!(before, 5);
        for _ in 0..2 {
            let mut client = connect(address).await;
            expect(&mut client, format!("DYN.GET {other}\r\n").as_bytes(), moved.as_bytes()).await;
            expect(&mut client, get.as_bytes(), forwarded).await;
            expect(&mut client, get.as_bytes(), forwarded).await;
        }
        expect(&mut client, get.as_bytes(), moved.as_bytes()).await;
        expect(&mut client, get.as_bytes(), forwarded).await;
        assert_eq!(handle.forwarded(), before + 5);
    });
}

#[test]
fn the_plain_port_sends_nobody_elsewhere() {
    with_port(Mode::Plain, async |address, handle| {
        let other = key(&handle, false);
        let mut client = connect(address).await;
        for _ in 0..3 {
            expect(&mut client, format!("GET {other}\r\n").as_bytes(), b"-ERR forwarded\r\n").await;
        }
    });
}

#[test]
fn each_port_says_what_it_is() {
    for (mode, word, enabled, setting) in
        [(Mode::Plain, "standalone", 0, "no"), (Mode::Cluster, "cluster", 1, "yes")]
    {
        with_port(mode, async |address, handle| {
            let mut client = connect(address).await;
            let info = ask(&mut client, "INFO").await;
            for line in [
                format!("redis_mode:{word}"),
                format!("cluster_enabled:{enabled}"),
                format!("tcp_port:{}", address.port()),
            ] {
                assert!(info.text().lines().any(|shown| shown == line), "{line}: {info:?}");
            }
            let hello = ask(&mut client, "HELLO 2").await;
            let at = hello.list().iter().position(|a| *a == Answer::Text("mode".to_owned()));
            assert_eq!(hello.list()[at.expect("it is there") + 1].text(), word);
            let setting =
                Answer::List(["cluster-enabled", setting].map(|t| Answer::Text(t.to_owned())).into());
            assert_eq!(ask(&mut client, "CONFIG GET cluster-enabled").await, setting);

            // The rest is the same on both.
            for command in ["READONLY", "READWRITE"] {
                assert_eq!(ask(&mut client, command).await.text(), "+OK");
            }
            assert_eq!(ask(&mut client, "CLUSTER MYID").await.text(), name(ME));
            assert_eq!(ask(&mut client, "CLUSTER KEYSLOT foo").await.number(), 12_182);
            assert_eq!(ask(&mut client, "CLUSTER KEYSLOT a{foo}b").await.number(), 12_182);
            let info = ask(&mut client, "CLUSTER INFO").await;
            for line in
                ["cluster_state:ok", "cluster_slots_ok:16384", "cluster_known_nodes:5", "cluster_size:4"]
            {
                assert!(info.text().lines().any(|shown| shown == line), "{line}: {info:?}");
            }
            let mine = key(&handle, true);
            let slot = Slot::of(mine.as_bytes()).index();
            let count = format!("CLUSTER COUNTKEYSINSLOT {slot}");
            assert_eq!(ask(&mut client, &count).await.number(), 0);
            assert_eq!(ask(&mut client, &format!("SET {mine} 1")).await.text(), "+OK");
            assert_eq!(ask(&mut client, &count).await.number(), 1);
            for (wrong, error) in [
                ("CLUSTER COUNTKEYSINSLOT 16384", "-ERR Invalid slot"),
                ("CLUSTER COUNTKEYSINSLOT -1", "-ERR Invalid slot"),
                ("CLUSTER COUNTKEYSINSLOT x", "-ERR value is not an integer or out of range"),
                ("CLUSTER", "-ERR wrong number of arguments for 'cluster' command"),
                ("CLUSTER SLOTS x", "-ERR wrong number of arguments for 'cluster|slots' command"),
                ("CLUSTER KEYSLOT", "-ERR wrong number of arguments for 'cluster|keyslot' command"),
                ("CLUSTER MEET", "-ERR unknown subcommand 'MEET'. Try CLUSTER HELP."),
            ] {
                assert_eq!(ask(&mut client, wrong).await.text(), error);
            }
        });
    }
}
