//! What the page cache has forgotten is read from the disk, and nobody else waits for that.
#![cfg(target_os = "linux")]

mod common;

use common::{Cluster, Redis, Resp};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

/// Has the system forget what it has in memory of a node's segments.
fn forget(cluster: &Cluster, node: u16) {
    for entry in std::fs::read_dir(cluster.node_dir(node).join("store")).expect("it has a store") {
        let path = entry.expect("it has a store").path();
        if path.extension().is_some_and(|extension| extension == "seg") {
            let mut dd = Command::new("dd");
            dd.arg(format!("of={}", path.display())).args([
                "oflag=nocache",
                "conv=notrunc,fdatasync",
                "count=0",
            ]);
            assert!(dd.stderr(Stdio::null()).status().expect("there is a dd").success());
        }
    }
}

fn disk_reads(cluster: &Cluster, node: u16) -> u64 {
    let mut stream = TcpStream::connect(("127.0.0.1", cluster.http(node))).expect("it listens");
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
        .expect("it listens");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    let line = text.lines().find_map(|line| line.strip_prefix("gramme_disk_reads_total "));
    line.expect("it counts them").parse().expect("a number")
}

#[test]
fn what_memory_has_forgotten_is_read_from_the_disk() {
    const KEYS: usize = 300;
    let cluster = Cluster::start("cold", 3);
    let mut client = Redis::connect(cluster.redis(0)).expect("it serves");
    let value =
        |key: usize, round: usize| format!("{round}-{key}-{}", "v".repeat(5_000 + 60_000 * (key % 30 / 29)));
    for round in 0..4 {
        for key in 0..KEYS {
            if key % 4 <= round {
                assert_eq!(
                    client.set(&format!("key{key}"), &value(key, round)),
                    Some(Resp::Simple("OK".into()))
                );
            }
        }
        (0..3).for_each(|node| forget(&cluster, node));
        // Many at once, so that some are read while others wait.
        for key in 0..KEYS {
            client.send(&[b"GET", format!("key{key}").as_bytes()]).expect("it serves");
        }
        for key in 0..KEYS {
            let written = (key % 4 <= round).then(|| value(key, round).into_bytes());
            let found = client.receive().expect("it answers");
            assert!(found == Resp::Bulk(written), "key{key}, round {round}");
        }
    }
    let waited: u64 = (0..3).map(|node| disk_reads(&cluster, node)).sum();
    if waited == 0 {
        eprintln!(
            "skipped: the file system of the tests' directory forgets nothing, or can't tell what it has in memory"
        );
    }
}
