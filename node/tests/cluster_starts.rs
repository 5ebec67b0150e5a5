//! Nodes that have just started: they meet the others before they answer, and keep whom they have met.

mod common;

use common::{Client, Cluster, Process, Redis, Resp, eventually, gramme};

/// Starts a node without waiting for anything.
fn begin(cluster: &mut Cluster, node: u16) {
    let process = Process::start(gramme().args(["serve", "--dir"]).arg(cluster.node_dir(node)));
    cluster.nodes[usize::from(node)] = Some(process);
}

/// A seed is asked who it is while it is dialed as the member that it is known to be: the one connection must not end the other, with all
/// that was sent on it.
#[test]
fn a_seed_that_is_asked_who_it_is_stays_connected() {
    let mut cluster = Cluster::start_with_room("asked", 3, 1);
    let joiner = cluster.join();
    let id = cluster.id(joiner);
    // Until it is told who the members are it knows none; from then on it has that written down.
    eventually("it knows the members", || {
        cluster.json(joiner, &["members"]).as_array().is_some_and(|members| members.len() == 4)
    });
    for _ in 0..10 {
        cluster.kill(joiner);
        cluster.restart(joiner);
        cluster.node(joiner).wait_for("other members are connected");
        (0..3).for_each(|node| cluster.wait_until_standing(node, &id, "waiting"));
        let said = cluster.node(joiner).said();
        assert!(!said.contains("lost node"), "{said}");
    }
}

#[test]
fn who_has_just_started_refuses_nobody() {
    let mut cluster = Cluster::start("started", 3);
    let ok = Some(Resp::Simple("OK".into()));
    for round in 0..20 {
        cluster.kill(1);
        begin(&mut cluster, 1);
        let mut client = loop {
            if let Some(client) = Redis::connect(cluster.redis(1)) {
                break client;
            }
            std::thread::yield_now();
        };
        assert_eq!(client.set("key", &round.to_string()), ok, "round {round}");
        assert_eq!(client.get("key"), Some(round.to_string()));
        cluster.node(1).wait_for("is ready");
    }
}

/// Others forward to it as soon as it greets them.
#[test]
fn who_has_just_started_is_no_worse_to_forward_to() {
    let mut cluster = Cluster::start("forwarded", 4);
    let through = [0, 2, 3];
    let clients = Client::start_each(&cluster, &through, true);
    for _ in 0..20 {
        cluster.kill(1);
        cluster.restart(1);
        clients.iter().for_each(|client| client.wait_for(50));
    }
    Client::finish_all(clients, &cluster, &[0, 1, 2, 3]);
}
