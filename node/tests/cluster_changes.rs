//! Shares, zones and the number of replicas change, and a store is wiped, while clients overwrite, delete and read.

mod common;

use common::{Client, Cluster, Redis, Resp, eventually, stderr};
use std::fs;

fn while_clients_work(
    cluster: &mut Cluster,
    through: &[u16],
    some_die: bool,
    change: impl FnOnce(&mut Cluster, &[Client]),
) {
    let clients = Client::start_each(cluster, through, some_die);
    change(cluster, &clients);
    Client::finish_all(clients, cluster, &[0, 1, 2]);
}

#[test]
fn shares_zones_and_replicas_change_under_load() {
    let mut cluster = Cluster::start("changes", 4);
    let id = cluster.id(3);
    while_clients_work(&mut cluster, &[0, 1, 2], false, |cluster, clients| {
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
    while_clients_work(&mut cluster, &[0, 1], true, |cluster, clients| {
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
