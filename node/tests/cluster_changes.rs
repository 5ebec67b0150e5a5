//! Shares, zones and the number of replicas change, and a store is wiped, while clients overwrite, delete and read.

mod common;

use common::{Cluster, Redis, Resp, eventually, stderr};
use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// What a key is known to be: a value, or absent.
type Known = BTreeMap<String, Option<String>>;

/// A client that writes to keys of its own, deletes them, and reads each right after. Nothing may be refused: a quorum is there all the
/// while, and so is the node that it asks.
struct Client {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
    thread: thread::JoinHandle<Known>,
}

impl Client {
    fn start(name: &str, port: u16) -> Client {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, counter, name) = (Arc::clone(&stop), Arc::clone(&rounds), name.to_owned());
        let thread = thread::spawn(move || {
            let (mut known, mut client) = (Known::new(), Redis::connect(port).expect("it serves"));
            for number in 0..usize::MAX {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let key = format!("{name}:{}", number * 7 % 60);
                let value = (number % 5 != 4).then(|| format!("value {number} of {name}"));
                let answer = match &value {
                    Some(value) => client.set(&key, value),
                    None => client.call(&[b"DEL", key.as_bytes()]),
                };
                match answer {
                    Some(Resp::Simple(ok)) if ok == "OK" => {}
                    Some(Resp::Integer(_)) => {}
                    refused => panic!("{key}, write {number}: {refused:?}"),
                }
                let due = Some(Resp::Bulk(value.as_ref().map(|value| value.clone().into_bytes())));
                let read = client.call(&[b"GET", key.as_bytes()]);
                assert_eq!(read, due, "{key}, written through the same node just before");
                counter.fetch_add(1, Ordering::Relaxed);
                known.insert(key, value);
            }
            known
        });
        Client { stop, rounds, thread }
    }

    /// Waits until so many more writes were acknowledged and read.
    fn wait_for(&self, more: usize) {
        let goal = self.rounds.load(Ordering::Relaxed) + more;
        eventually("enough is written and read", || {
            assert!(!self.thread.is_finished(), "a client found something wrong");
            self.rounds.load(Ordering::Relaxed) >= goal
        });
    }

    fn finish(self) -> Known {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a client finds nothing wrong")
    }
}

fn while_clients_work(cluster: &mut Cluster, through: &[u16], change: impl FnOnce(&mut Cluster, &[Client])) {
    let clients: Vec<Client> =
        through.iter().map(|node| Client::start(&format!("through-{node}"), cluster.redis(*node))).collect();
    clients.iter().for_each(|client| client.wait_for(100));
    change(cluster, &clients);
    clients.iter().for_each(|client| client.wait_for(100));
    let known: Vec<Known> = clients.into_iter().map(Client::finish).collect();
    for node in 0..3 {
        let mut client = Redis::connect(cluster.redis(node)).expect("it serves");
        for (key, value) in known.iter().flatten() {
            let due = Some(Resp::Bulk(value.as_ref().map(|value| value.clone().into_bytes())));
            assert_eq!(client.call(&[b"GET", key.as_bytes()]), due, "{key} through node {node}");
        }
    }
}

#[test]
fn shares_zones_and_replicas_change_under_load() {
    let mut cluster = Cluster::start("changes", 4);
    let id = cluster.id(3);
    while_clients_work(&mut cluster, &[0, 1, 2], |cluster, clients| {
        let commit = |cluster: &mut Cluster| {
            cluster.commit(0);
            cluster.wait_until_one_ring(&[0, 1, 2, 3]);
            clients.iter().for_each(|client| client.wait_for(50));
        };
        cluster.change(1, &["stage", "weight", &id, "3"]);
        eventually("node 0 hears of it", || cluster.json(0, &["transfers"])["staged"] == 1);
        let before = cluster.owners(0)[&id];
        commit(cluster);
        assert!(cluster.owners(2)[&id] > before, "a larger share");

        cluster.change(0, &["stage", "zone", &id, "cellar"]);
        commit(cluster);
        let members = cluster.json(2, &["members"]);
        let shown = members.as_array().expect("a list").iter().find(|member| member["node"] == id.as_str());
        assert_eq!(shown.map(|member| &member["zone"]), Some(&"cellar".into()));

        // R = 2 and W = 2 of four would not meet.
        let refused = cluster.ask(0, &["cluster", "stage", "replicas", "4"]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(stderr(&refused).contains("'quorum' fits any number of replicas"), "{}", stderr(&refused));
        let copies = |cluster: &Cluster| cluster.owners(1).values().sum::<u64>();
        for (replicas, sum) in [("2", 512), ("3", 768)] {
            let said = cluster.change(0, &["stage", "replicas", replicas]);
            assert!(said.contains(&format!("each key has {replicas} replicas")), "{said}");
            commit(cluster);
            assert_eq!(copies(cluster), sum);
        }
        cluster.change(0, &["stage", "keyspace", "", "--r", "quorum", "--w", "quorum"]);
        commit(cluster);
        cluster.change(0, &["stage", "replicas", "4"]);
        commit(cluster);
        assert_eq!(copies(cluster), 1024);
    });
}

#[test]
fn a_store_is_wiped_under_load() {
    let mut cluster = Cluster::start("wiped-under-load", 3);
    while_clients_work(&mut cluster, &[0, 1], |cluster, clients| {
        cluster.kill(2);
        clients.iter().for_each(|client| client.wait_for(50));
        fs::remove_dir_all(cluster.node_dir(2).join("store")).expect("it can be removed");
        cluster.restart(2);
        cluster.node(2).wait_for("this node is complete");
        clients.iter().for_each(|client| client.wait_for(50));
    });
}

#[test]
fn with_one_replica_the_settings_of_three_are_no_mistake() {
    let mut cluster = Cluster::start("one-replica", 3);
    cluster.change(0, &["stage", "replicas", "1"]);
    cluster.commit(0);
    cluster.wait_until_one_ring(&[0, 1, 2]);
    // It was started with r = 2 and w = 2, as any node is.
    cluster.kill(2);
    cluster.restart(2);
    cluster.wait_until_one_ring(&[0, 1, 2]);
    let mut client = Redis::connect(cluster.redis(2)).expect("it serves");
    for key in 0..20 {
        assert_eq!(client.set(&format!("k{key}"), "v"), Some(Resp::Simple("OK".into())));
    }
}
