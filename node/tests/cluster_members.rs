//! Real nodes join, leave, are removed and replaced while clients write, and no acknowledged write is lost.

mod common;

use common::{CHANGE, Client, Cluster, Process, Redis, Resp, eventually, gramme, stderr, within};
use std::fs;

/// Writes, deletes and reads through these nodes while the cluster changes, and a while before and after: nothing is refused, and in the end
/// all is as it was acknowledged, through all of the `survivors`.
fn while_clients_write(
    cluster: &mut Cluster,
    through: &[u16],
    some_die: bool,
    survivors: impl FnOnce(&mut Cluster) -> Vec<u16>,
) {
    let clients = Client::start_each(cluster, through, some_die);
    let survivors = survivors(cluster);
    cluster.wait_until_one_ring(&survivors);
    Client::finish_all(clients, cluster, &survivors);
}

#[test]
fn a_node_joins_and_gets_its_share() {
    let mut cluster = Cluster::start_with_room("joins", 3, 1);
    while_clients_write(&mut cluster, &[0, 1, 2], false, |cluster| {
        let joiner = cluster.join();
        let id = cluster.id(joiner);
        cluster.wait_until_standing(1, &id, "waiting");
        // It is no member, but it forwards.
        eventually("the joiner forwards", || {
            let mut client = Redis::connect(cluster.redis(joiner)).expect("it serves");
            client.set("through the joiner", "v") == Some(Resp::Simple("OK".into()))
        });
        assert_eq!(cluster.owners(0).len(), 3, "nothing has happened yet");

        let said = cluster.change(1, &["stage", "join", &id[..9]]);
        assert!(said.contains(&id) && said.contains("gramme cluster plan"), "{said}");
        let plan = cluster.json(1, &["cluster", "plan"]);
        assert_eq!((&plan["partitions_copied"], &plan["slots_at_risk"]), (&192.into(), &0.into()));
        let shown = cluster.change(1, &["plan"]);
        let hash = plan["hash"].as_str().expect("there is a plan");
        assert!(shown.contains(&format!("gramme cluster commit {hash} --wait")), "{shown}");
        // A plan that nobody has looked at is not committed.
        let other = cluster.ask(1, &["cluster", "commit", "0123456789abcdef"]);
        assert_eq!(other.status.code(), Some(1));
        assert!(stderr(&other).contains(&format!("its plan is now {hash}")), "{}", stderr(&other));
        cluster.commit(1);
        cluster.wait_until_one_ring(&[0, 1, 2, 3]);
        for node in 0..4 {
            let owners = cluster.owners(node);
            assert_eq!(owners.len(), 4);
            assert_eq!(owners[&id], 192, "its fair share of three copies of 256 partitions");
        }
        cluster.wait_until_standing(2, &id, "member");
        vec![0, 1, 2, 3]
    });

    // The command that founded the cluster starts its own nodes, and says whom it does not.
    let id = cluster.id(3);
    for node in 0..4 {
        cluster.node(node).signal("TERM");
        assert!(cluster.node(node).wait().success());
    }
    let mut dev = Process::start(gramme().args(["dev", "--dir"]).arg(&cluster.dir));
    dev.wait_for("Ctrl-C stops them all.");
    assert!(dev.said().contains(&format!("member {id} (127.0.0.1:{}) is not one of", cluster.peer(3))));
    let mut client = Redis::connect(cluster.redis(0)).expect("it serves");
    eventually("enough members have found each other", || {
        client.call(&[b"GET", b"through the joiner"]) == Some(Resp::Bulk(Some(b"v".to_vec())))
    });
    dev.signal("INT");
    assert!(dev.wait().success());
}

#[test]
fn a_member_leaves_and_is_not_missed() {
    let mut cluster = Cluster::start("leaves", 4);
    let id = cluster.id(3);
    while_clients_write(&mut cluster, &[0, 1, 2], false, |cluster| {
        cluster.change(3, &["stage", "leave", &id]);
        // Staged at one node is staged at all, and can be taken back by any.
        let staged = |cluster: &Cluster| cluster.json(0, &["transfers"])["staged"].clone();
        eventually("node 0 hears of it", || staged(cluster) == 1);
        cluster.change(0, &["clear"]);
        let output = cluster.ask(0, &["cluster", "commit"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("nothing is staged"), "{}", stderr(&output));

        cluster.change(0, &["stage", "leave", &id]);
        cluster.commit(0);
        cluster.node(3).wait_for("has left the cluster and holds nothing more");
        cluster.node(3).signal("TERM");
        assert!(cluster.node(3).wait().success());
        assert!(!cluster.owners(1).contains_key(&id));
        vec![0, 1, 2]
    });

    // The whole cluster is started again by the command that founded it, without the one that left.
    for node in 0..3 {
        cluster.node(node).signal("TERM");
        assert!(cluster.node(node).wait().success());
    }
    let mut dev = Process::start(gramme().args(["dev", "--dir"]).arg(&cluster.dir));
    dev.wait_for("Ctrl-C stops them all.");
    assert!(dev.said().contains(&format!("node 4 ({id}) is not started: it has left")), "{}", dev.said());
    assert_eq!(cluster.owners(2).len(), 3);
    dev.signal("INT");
    assert!(dev.wait().success());
    // Nor is its directory needed any more; those of members are.
    fs::remove_dir_all(cluster.node_dir(3)).expect("it is there");
    let mut dev = Process::start(gramme().args(["dev", "--dir"]).arg(&cluster.dir));
    dev.wait_for("Ctrl-C stops them all.");
    dev.signal("INT");
    assert!(dev.wait().success());
    fs::remove_dir_all(cluster.node_dir(1)).expect("it is there");
    let output = gramme().args(["dev", "--dir"]).arg(&cluster.dir).output().expect("the binary runs");
    assert!(stderr(&output).contains("node2 is missing, and with it a member of the cluster"));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_dead_member_is_removed_for_ever() {
    let mut cluster = Cluster::start("removed", 4);
    let id = cluster.id(3);
    while_clients_write(&mut cluster, &[0, 1, 2], true, |cluster| {
        let output = cluster.ask(0, &["cluster", "stage", "remove", &id]);
        assert!(
            stderr(&output).contains("is up, and its id would be refused for ever"),
            "{}",
            stderr(&output)
        );
        cluster.kill(3);
        eventually("node 0 notices", || {
            cluster.json(0, &["members"]).as_array().expect("a list").iter().any(|m| m["state"] == "down")
        });
        let output = cluster.ask(0, &["cluster", "stage", "leave", &id]);
        assert!(stderr(&output).contains("can't hand over what it has"), "{}", stderr(&output));
        cluster.change(0, &["stage", "remove", &id]);
        cluster.commit(0);
        cluster.wait_until_one_ring(&[0, 1, 2]);
        assert!(!cluster.owners(1).contains_key(&id));
        vec![0, 1, 2]
    });
    cluster.restart(3);
    cluster.node(3).wait_for("was removed from the cluster, for good");
    let mut redis = Redis::connect(cluster.redis(3)).expect("it still runs");
    // Nobody would ever get what it acknowledged now, and nobody brings it what others have.
    for words in [["DYN.PUT", "k", "v", "W", "1"], ["DYN.GET", "k", "R", "1", ""]] {
        let words: Vec<&[u8]> =
            words.iter().filter(|word| !word.is_empty()).map(|word| word.as_bytes()).collect();
        let answer = redis.call(&words).expect("it answers");
        assert!(
            matches!(&answer, Resp::Error(why) if why.contains("was removed from the cluster")),
            "{answer:?}"
        );
    }
    cluster.node(0).wait_for("was removed from the cluster, for good");
    let output = cluster.ask(0, &["cluster", "stage", "join", &id]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
}

#[test]
fn a_member_is_replaced_by_a_new_node() {
    let mut cluster = Cluster::start_with_room("replaced", 3, 2);
    let (old, dead) = (cluster.id(2), cluster.id(1));
    while_clients_write(&mut cluster, &[0], true, |cluster| {
        let joiner = cluster.join();
        let id = cluster.id(joiner);
        cluster.wait_until_standing(0, &id, "waiting");
        cluster.change(0, &["stage", "replace", &old]);
        let plan = cluster.json(0, &["cluster", "plan"]);
        let moves = plan["moves"].as_array().expect("it is a list");
        assert_eq!(moves.len(), 1, "all goes from one to the other: {plan}");
        assert_eq!((&moves[0]["from"], &moves[0]["to"]), (&old.as_str().into(), &id.as_str().into()));
        cluster.commit(0);
        cluster.wait_until_one_ring(&[0, 1, 3]);
        let owners = cluster.owners(0);
        assert!(owners.contains_key(&id) && !owners.contains_key(&old), "{owners:?}");
        cluster.kill(2);

        // Another one dies and is replaced without its help.
        let joiner = cluster.join();
        let id = cluster.id(joiner);
        cluster.wait_until_standing(0, &id, "waiting");
        cluster.kill(1);
        eventually("node 0 notices", || {
            let members = cluster.json(0, &["members"]);
            members
                .as_array()
                .expect("a list")
                .iter()
                .any(|m| m["node"] == dead.as_str() && m["state"] == "down")
        });
        cluster.change(0, &["stage", "replace", &dead, &id, "--dead"]);
        cluster.commit(0);
        cluster.wait_until_one_ring(&[0, 3, 4]);
        let owners = cluster.owners(4);
        assert!(owners.len() == 3 && owners.contains_key(&id) && !owners.contains_key(&dead), "{owners:?}");
        vec![0, 3, 4]
    });
}

#[test]
fn nodes_that_are_killed_in_a_transition_go_on_with_it() {
    for victim in [1, 3] {
        let mut cluster = Cluster::start_with_room(&format!("killed-{victim}"), 3, 1);
        while_clients_write(&mut cluster, &[0, 2], true, |cluster| {
            let joiner = cluster.join();
            let id = cluster.id(joiner);
            cluster.wait_until_standing(0, &id, "waiting");
            // Not while it is away, or it could not be committed; but before it can have declared anything.
            cluster.change(0, &["stage", "join", &id]);
            cluster.kill(victim);
            cluster.change(0, &["commit"]);
            within(CHANGE, "only the one that was killed is waited for", || {
                let transition = &cluster.json(0, &["transfers"])["transition"];
                let waiting = transition["waiting_for"].as_array().map_or(0, Vec::len);
                transition["step"] == "acknowledging" && waiting == 1
            });
            let output = cluster.ask(2, &["cluster", "commit"]);
            assert_eq!(output.status.code(), Some(1), "one change at a time");
            // It learns of the change only now, and dies again and again on the way.
            for step in ["acknowledging", "transferring", "moving"] {
                cluster.restart(victim);
                within(CHANGE, &format!("the step {step} is over"), || {
                    let now = cluster.json(0, &["transfers"])["transition"]["step"].clone();
                    now != step
                });
                cluster.kill(victim);
            }
            cluster.restart(victim);
            cluster.wait_until_one_ring(&[0, 1, 2, 3]);
            assert_eq!(cluster.owners(2)[&id], 192);
            vec![0, 1, 2, 3]
        });
    }
}

#[test]
fn a_member_that_dies_in_a_transition_can_be_given_up() {
    let mut cluster = Cluster::start_with_room("given-up", 4, 1);
    let dead = cluster.id(3);
    while_clients_write(&mut cluster, &[0, 1], true, |cluster| {
        let joiner = cluster.join();
        let id = cluster.id(joiner);
        cluster.wait_until_standing(0, &id, "waiting");
        cluster.change(0, &["stage", "join", &id, "--weight", "2", "--zone", "cellar"]);
        cluster.kill(3);
        cluster.change(0, &["commit"]);
        within(CHANGE, "the dead one is waited for", || {
            let transfers = cluster.json(1, &["transfers"]);
            transfers["transition"]["waiting_for"] == serde_json::json!([dead])
        });
        let said = cluster.change(1, &["stage", "remove", &dead]);
        assert!(said.contains("is given up now"), "{said}");
        cluster.wait_until_one_ring(&[0, 1, 2, 4]);
        // It still stands in the layout; a second commit takes it out.
        assert!(cluster.owners(0).contains_key(&dead));
        cluster.commit(1);
        cluster.wait_until_one_ring(&[0, 1, 2, 4]);
        let owners = cluster.owners(4);
        assert!(owners.len() == 4 && !owners.contains_key(&dead), "{owners:?}");
        let members = cluster.json(2, &["members"]);
        let shown = members.as_array().expect("a list").iter().find(|member| member["node"] == id.as_str());
        let shown = shown.expect("it is a member");
        assert_eq!((&shown["weight"], &shown["zone"]), (&2.into(), &"cellar".into()));
        vec![0, 1, 2, 4]
    });
}

#[test]
fn a_node_with_a_wrong_secret_does_not_get_in() {
    let mut cluster = Cluster::start_with_room("secrets", 3, 1);
    let seed = format!("127.0.0.1:{}", cluster.peer(0));
    let right = fs::read_to_string(cluster.secret_file()).expect("it is there");
    let wrong = cluster.dir.join("wrong");
    let line =
        |start: &str| right.lines().find(|line| line.starts_with(start)).expect("it has one").to_owned();
    cluster.nodes.push(None);
    for (text, said) in [
        (
            right.replace(&line("secret"), &format!("secret = \"{}\"", "00".repeat(32))),
            "the cluster secrets differ",
        ),
        (right.replace(&line("cluster"), "cluster = \"00000000000000ff\""), "it belongs to another cluster"),
    ] {
        fs::write(&wrong, text).expect("it can be written");
        cluster.found_joiner(3, &wrong, &seed);
        cluster.restart(3);
        cluster.node(3).wait_for(said);
        cluster.kill(3);
        fs::remove_dir_all(cluster.node_dir(3)).expect("it is there");
    }
    cluster.node(0).wait_for("the cluster secrets differ");
    assert_eq!(cluster.json(0, &["members"]).as_array().map(Vec::len), Some(3));

    // Nobody answers at this address; a node that was founded once only needs another one.
    let file = cluster.secret_file();
    cluster.found_joiner(3, &file, "127.0.0.1:1");
    cluster.restart(3);
    cluster.node(3).wait_for("can't join by 127.0.0.1:1");
    let id = cluster.id(3);
    let status = cluster.status(3);
    assert_eq!((&status["standing"], &status["ring_version"]), (&"waiting".into(), &0.into()));
    cluster.kill(3);
    fs::remove_file(&file).expect("it is there");
    cluster.found_joiner(3, &file, &format!("127.0.0.1:1,127.0.0.1:{},{seed}", cluster.peer(3)));
    cluster.restart(3);
    assert_eq!(cluster.id(3), id);
    cluster.wait_until_standing(2, &id, "waiting");
    eventually("it has heard of the cluster", || cluster.status(3)["ring_version"] == 1);
}

#[test]
fn keyspaces_are_committed_like_members() {
    let cluster = Cluster::start("keyspaces", 3);
    cluster.change(0, &["stage", "keyspace", "last:", "--policy", "lww", "--ttl", "3600"]);
    let said = cluster.change(0, &["stage", "keyspace", "fast:", "--w", "one", "--durability", "interval"]);
    assert!(
        said.contains(
            "keys that begin with 'fast:': policy siblings, r default, w one, durability interval, values stay"
        ),
        "{said}"
    );
    cluster.commit(0);
    cluster.wait_until_one_ring(&[0, 1, 2]);
    for node in 0..3 {
        let shown = cluster.json(node, &["keyspaces"]);
        assert_eq!((&shown[0]["prefix"], &shown[0]["w"]), (&"fast:".into(), &"one".into()));
        assert_eq!((&shown[1]["policy"], &shown[1]["ttl"]), (&"lww".into(), &3600.into()));
    }
    let mut clients: Vec<Redis> =
        (0..3).map(|node| Redis::connect(cluster.redis(node)).expect("it serves")).collect();
    for (key, values) in [(&b"last:key"[..], 1), (b"other", 3)] {
        for (node, client) in clients.iter_mut().enumerate() {
            let value = format!("from {node}");
            let told = client.call(&[b"DYN.PUT", key, value.as_bytes()]);
            assert!(matches!(told, Some(Resp::Bulk(Some(_)))), "{told:?}");
        }
        let Some(Resp::Array(read)) = clients[0].call(&[b"DYN.GET", key]) else { panic!("it is read") };
        let Some(Resp::Array(siblings)) = read.get(1) else { panic!("its siblings: {read:?}") };
        assert_eq!(siblings.len(), values);
        assert_eq!(clients[1].call(&[b"GET", key]), Some(Resp::Bulk(Some(b"from 2".to_vec()))));
    }
    let ttl = clients[2].call(&[b"TTL", b"last:key"]);
    assert!(matches!(ttl, Some(Resp::Integer(3590..=3600))), "{ttl:?}");
    assert_eq!(clients[2].call(&[b"PERSIST", b"last:key"]), Some(Resp::Integer(1)));
    assert_eq!(clients[0].call(&[b"TTL", b"last:key"]), Some(Resp::Integer(-1)));
    assert_eq!(clients[2].call(&[b"TTL", b"other"]), Some(Resp::Integer(-1)));

    for (arguments, why) in [
        (&["last:", "--policy", "siblings"][..], "policy of these keys is lww, and stays"),
        (&["x", "--w", "4"], "r and w are numbers from 1 to 3"),
        (&["x", "--r", "some"], "r and w are numbers, or one, quorum, all or default"),
        (&["x", "--policy", "none"], "a policy is siblings or lww"),
        (&["x", "--durability", "some"], "a durability is group, one or interval"),
    ] {
        let output = cluster.ask(1, &[&["cluster", "stage", "keyspace"], arguments].concat());
        assert!(stderr(&output).contains(why), "{}", stderr(&output));
        assert_ne!(output.status.code(), Some(0));
    }
}
