//! What comes to the peer port without belonging there: it is sent away in bounded time and memory, in words where
//! it can be told, and nobody else is harmed.

mod common;

use common::{
    Cluster, PATIENCE, Process, Redis, Resp, Scratch, Writer, copy_dir, eventually, free_ports, gramme,
};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("it can be set");
    stream
}

/// Whether the other side closes; how long it took.
fn closed_after(mut stream: TcpStream) -> Duration {
    let begun = Instant::now();
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return begun.elapsed(),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return begun.elapsed(),
            Err(error) => panic!("it was not closed: {error}"),
        }
    }
}

#[test]
fn garbage_huge_claims_and_slow_starters_are_closed() {
    let mut cluster = Cluster::start("garbage", 3);
    let mut client = Redis::connect(cluster.redis(0)).expect("it serves");
    let ok = Some(Resp::Simple("OK".into()));
    assert_eq!(client.set("before", "1"), ok);
    let before = cluster.node(0).resident();

    // Each claims 4 GiB, then goes on as if it had them.
    let claims: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = connect(cluster.peer(0));
            let _ = stream.write_all(&[0xff; 4096]);
            stream
        })
        .collect();
    for stream in claims {
        closed_after(stream);
    }
    // An honest length and checksum around nonsense, and another protocol.
    let nonsense = b"none of this is a hello";
    let mut frame = u32::try_from(nonsense.len()).expect("it is short").to_le_bytes().to_vec();
    frame.extend_from_slice(&crc32fast::hash(nonsense).to_le_bytes());
    frame.extend_from_slice(nonsense);
    for bytes in [&frame[..], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"*1\r\n$4\r\nPING\r\n"] {
        let mut stream = connect(cluster.peer(0));
        stream.write_all(bytes).expect("it reads");
        closed_after(stream);
    }
    // More who say nothing than may wait at a time: the oldest are sent away at once, the rest in a few seconds.
    let silent: Vec<TcpStream> = (0..200).map(|_| connect(cluster.peer(0))).collect();
    // Meanwhile a member gets through.
    cluster.kill(2);
    cluster.restart(2);
    cluster.node(2).wait_for("other members are connected");
    for stream in silent {
        let took = closed_after(stream);
        assert!(took < Duration::from_secs(10), "{took:?}");
    }

    assert_eq!(client.set("after", "2"), ok);
    assert_eq!(Redis::connect(cluster.redis(2)).expect("it serves").get("before"), Some("1".into()));
    let grown = cluster.node(0).resident().saturating_sub(before);
    assert!(grown < 16 << 20, "it took {grown} bytes");
}

#[test]
fn impostors_are_refused_in_words() {
    let mut cluster = Cluster::start("impostors", 3);
    let scratch = Scratch::new("impostors-copies");

    // The same node twice: its directory was copied while it ran.
    let copy = scratch.path("copy");
    copy_dir(&cluster.node_dir(2), &copy);
    let port = free_ports(1);
    let at = |offset: u16| format!("127.0.0.1:{}", port + offset);
    let serve = |dir: &std::path::Path| {
        Process::start(gramme().args(["serve", "--dir"]).arg(dir).args([
            "--redis",
            &at(0),
            "--http",
            &at(1),
            "--peer",
            &at(2),
            "--cluster-redis",
            &at(3),
        ]))
    };
    let mut twin = serve(&copy);
    twin.wait_for("is in use by another running process");
    cluster.node(0).wait_for("is in use by another running process");
    twin.kill();

    // A member whose secret is another.
    cluster.kill(2);
    let identity = cluster.node_dir(2).join("identity");
    let text = fs::read_to_string(&identity).expect("it is there");
    let line = text.lines().find(|l| l.starts_with("secret")).expect("it has a secret");
    fs::write(&identity, text.replace(line, &format!("secret = \"{}\"", "00".repeat(32))))
        .expect("it can be written");
    let mut wrong = Process::start(gramme().args(["serve", "--dir"]).arg(cluster.node_dir(2)));
    wrong.wait_for("the cluster secrets differ");
    wrong.kill();

    // A node of another cluster at a member's address.
    let line = text.lines().find(|l| l.starts_with("cluster")).expect("it has a cluster");
    fs::write(&identity, text.replace(line, "cluster = \"00000000000000ff\"")).expect("it can be written");
    let mut other = Process::start(gramme().args(["serve", "--dir"]).arg(cluster.node_dir(2)));
    other.wait_for("it belongs to another cluster");
    other.kill();

    // None of that kept the real one out.
    fs::write(&identity, text).expect("it can be written");
    cluster.restart(2);
    cluster.node(2).wait_for("other members are connected");
    let mut client = Redis::connect(cluster.redis(2)).expect("it serves");
    assert_eq!(client.set("k", "v"), Some(Resp::Simple("OK".into())));
}

#[test]
fn a_wiped_member_counts_toward_no_quorum_until_it_has_everything_back() {
    let mut cluster = Cluster::start("wiped", 3);
    let writer = Writer::start("before", cluster.redis(0));
    writer.wait_for(500);
    let written = writer.finish();
    let key = written.keys().next().expect("some were written").as_bytes();
    cluster.kill(2);
    fs::remove_dir_all(cluster.node_dir(2).join("store")).expect("it can be removed");
    // With one whole replica left it can't be told whether a key exists; "absent" would be a lie.
    cluster.kill(1);
    for _ in 0..2 {
        // Still so at the second start, when the store is there again.
        cluster.restart(2);
        cluster.node(2).wait_for("count toward no quorum");
        assert_eq!(cluster.status(2)["incomplete_partitions"], 256);
        let mut client = Redis::connect(cluster.redis(2)).expect("it serves");
        match client.call(&[b"GET", key]) {
            Some(Resp::Error(text)) => assert!(text.starts_with("QUORUM r"), "{text}"),
            other => panic!("{other:?}"),
        }
        cluster.kill(2);
    }
    cluster.restart(2);
    cluster.restart(1);
    cluster.node(2).wait_for("this node is complete");
    assert_eq!(cluster.status(2)["incomplete_partitions"], 0);
    cluster.kill(2);
    cluster.restart(2);
    assert_eq!(cluster.status(2)["incomplete_partitions"], 0);

    // Nobody has read any of it meanwhile, and alone it has it all.
    cluster.kill(0);
    cluster.kill(1);
    let mut client = Redis::connect(cluster.redis(2)).expect("it serves");
    for (key, value) in &written {
        assert_eq!(client.get_one(key), Ok(vec![value.as_bytes().to_vec()]), "{key}");
    }
}

#[test]
fn seeds_are_asked_until_a_member_is_known() {
    let mut cluster = Cluster::start_with_room("seeds", 3, 2);
    let secret = cluster.secret_file();
    // The only seed is a node that knows nobody itself, and is gone before it does.
    cluster.found_joiner(3, &secret, "127.0.0.1:1");
    cluster.found_joiner(4, &secret, &format!("127.0.0.1:{}", cluster.peer(3)));
    cluster.nodes.push(None);
    cluster.nodes.push(None);
    cluster.restart(3);
    cluster.restart(4);
    let knows_nobody = cluster.id(3);
    cluster.wait_until_standing(4, &knows_nobody, "waiting");
    cluster.kill(3);
    fs::remove_dir_all(cluster.node_dir(3)).expect("it is there");
    // Another node takes its address, and knows the cluster.
    cluster.found_joiner(3, &secret, &format!("127.0.0.1:{}", cluster.peer(0)));
    cluster.restart(3);
    assert_ne!(cluster.id(3), knows_nobody);
    eventually("the second joiner has heard of the cluster", || cluster.status(4)["ring_version"] == 1);
}
