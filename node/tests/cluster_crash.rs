//! Three real nodes, `kill -9`, and no acknowledged write lost.

mod common;

use common::{Cluster, Redis, Resp, Writer, assert_all_there, copy_dir, eventually, run, stderr, stdout};

#[test]
fn any_one_node_may_die_under_load() {
    let mut cluster = Cluster::start("one-dies", 3);
    for victim in 0..3 {
        let writers: Vec<Writer> =
            (0..3).map(|node| Writer::start(&format!("{victim}-{node}"), cluster.redis(node))).collect();
        let survivors: Vec<usize> = (0..3).filter(|node| *node != usize::from(victim)).collect();
        writers[usize::from(victim)].wait_for(50);
        cluster.kill(victim);
        for survivor in &survivors {
            writers[*survivor].wait_for(200);
        }
        cluster.restart(victim);
        for writer in &writers {
            writer.wait_for(100);
        }
        let mut acknowledged: Vec<_> = writers.into_iter().map(Writer::finish).collect();
        for node in 0..3 {
            for written in &acknowledged {
                assert_all_there(cluster.redis(node), written);
            }
        }
        // A deleted key is deleted through every node.
        let (key, _) = acknowledged[0].pop_first().expect("some were written");
        let mut client = Redis::connect(cluster.redis(0)).expect("it serves");
        assert_eq!(client.call(&[b"DEL", key.as_bytes()]), Some(Resp::Integer(1)));
        for node in 0..3 {
            assert_eq!(Redis::connect(cluster.redis(node)).expect("it serves").get(&key), None);
        }
    }
}

#[test]
fn a_node_that_returns_is_handed_what_it_missed_and_can_go_on_alone() {
    let mut cluster = Cluster::start("returns", 3);
    cluster.kill(2);
    let writer = Writer::start("missed", cluster.redis(0));
    writer.wait_for(500);
    let missed = writer.finish();

    cluster.restart(2);
    for node in 0..3 {
        cluster.wait_until_settled(node);
    }
    cluster.kill(0);
    cluster.kill(1);

    let mut client = Redis::connect(cluster.redis(2)).expect("it serves");
    for (key, value) in &missed {
        assert_eq!(client.get_one(key), Ok(vec![value.as_bytes().to_vec()]), "{key}");
    }
    // Alone it can't promise a quorum, and says so.
    match client.set("alone", "x") {
        Some(Resp::Error(text)) => assert!(text.starts_with("QUORUM w: 1 of 2"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn all_nodes_may_die_at_once() {
    let mut cluster = Cluster::start("all-die", 3);
    let writers: Vec<Writer> =
        (0..3).map(|node| Writer::start(&node.to_string(), cluster.redis(node))).collect();
    writers[1].wait_for(300);
    for node in 0..3 {
        cluster.kill(node);
    }
    let acknowledged: Vec<_> = writers.into_iter().map(Writer::finish).collect();
    for node in 0..3 {
        cluster.restart(node);
    }
    for node in 0..3 {
        cluster.node(node).wait_for("other members are connected");
    }
    for written in &acknowledged {
        assert_all_there(cluster.redis(2), written);
    }
}

#[test]
fn a_polite_stop_answers_first_and_loses_nothing() {
    let mut cluster = Cluster::start("polite", 3);
    let writer = Writer::start("w", cluster.redis(0));
    writer.wait_for(200);
    cluster.node(0).signal("TERM");
    let status = cluster.node(0).wait();
    assert!(status.success(), "{status}");
    assert!(cluster.node(0).said().contains("stopping"));
    assert!(!cluster.node(0).said().contains("still in flight"), "{}", cluster.node(0).said());
    assert!(!cluster.node(0).said().contains("not closed"), "{}", cluster.node(0).said());
    assert_eq!(last_stop(&cluster, 0), "clean");
    let acknowledged = writer.finish();
    assert_all_there(cluster.redis(1), &acknowledged);
    cluster.restart(0);
    cluster.node(0).wait_for("other members are connected");
    assert_all_there(cluster.redis(0), &acknowledged);
    cluster.kill(0);
    assert_eq!(last_stop(&cluster, 0), "unclean");
}

/// What `gramme verify` says of the end of the node's last run.
fn last_stop(cluster: &Cluster, node: u16) -> String {
    let output = run(&["verify", cluster.node_dir(node).to_str().expect("it is text")]);
    let said = stdout(&output);
    let (_, how) = said.split_once("last stop ").unwrap_or_else(|| panic!("{said}{}", stderr(&output)));
    how.lines().next().unwrap_or_default().to_owned()
}

/// The disk of a backup: this node does not know what it misses, nobody keeps a hint of it, and nobody reads it; but the others
/// remember how far its log had come.
#[test]
fn a_member_whose_store_is_an_old_copy_is_found_out_and_made_whole() {
    let mut cluster = Cluster::start("old-copy", 3);
    let writer = Writer::start("before", cluster.redis(0));
    writer.wait_for(100);
    writer.finish();
    cluster.kill(2);
    let (store, old) = (cluster.node_dir(2).join("store"), cluster.node_dir(2).with_file_name("old-copy"));
    copy_dir(&store, &old);
    cluster.restart(2);
    cluster.wait_until_settled(2);
    let writer = Writer::start("after", cluster.redis(0));
    writer.wait_for(300);
    let written = writer.finish();
    for node in 0..3 {
        cluster.wait_until_settled(node);
    }
    cluster.kill(2);
    std::fs::remove_dir_all(&store).expect("it can be removed");
    copy_dir(&old, &store);
    cluster.restart(2);
    cluster.node(2).wait_for("the store is older than the other nodes remember it");
    cluster.node(2).wait_for("this node is complete");
    assert_eq!(cluster.status(2)["incomplete_partitions"], 0);
    cluster.kill(0);
    cluster.kill(1);
    let mut client = Redis::connect(cluster.redis(2)).expect("it serves");
    for (key, value) in &written {
        assert_eq!(client.get_one(key), Ok(vec![value.as_bytes().to_vec()]), "{key}");
    }
}

/// A process that is killed leaves what it wrote to the system; a machine that goes down takes what was not synced. The two are
/// told apart by the boot, which this test changes in its file.
#[test]
fn only_a_machine_that_went_down_makes_unsynced_keyspaces_doubtful() {
    let mut cluster = Cluster::start("unsynced", 3);
    cluster.change(0, &["stage", "keyspace", "fast:", "--durability", "interval"]);
    cluster.commit(0);
    cluster.wait_until_one_ring(&[0, 1, 2]);
    let mut client = Redis::connect(cluster.redis(0)).expect("it serves");
    for i in 0..50 {
        assert_eq!(client.set(&format!("fast:{i}"), "v"), Some(Resp::Simple("OK".into())));
    }
    cluster.kill(2);
    cluster.restart(2);
    cluster.wait_until_settled(2);
    assert_eq!(cluster.status(2)["incomplete_partitions"], 0);
    assert!(!cluster.node(2).said().contains("the machine went down"), "it did not");

    cluster.kill(2);
    let boot = cluster.node_dir(2).join("boot");
    assert!(boot.exists());
    std::fs::write(&boot, "another boot\n").expect("it can be written");
    cluster.restart(2);
    cluster.node(2).wait_for("the machine went down while this node ran");
    cluster.node(2).wait_for("this node is complete");
    assert!(!cluster.node_dir(2).join("incomplete").exists());
    for other in [0, 1] {
        cluster.kill(other);
    }
    let mut client = Redis::connect(cluster.redis(2)).expect("it serves");
    for i in 0..50 {
        assert_eq!(client.get_one(&format!("fast:{i}")), Ok(vec![b"v".to_vec()]));
    }
}

/// A store that is opened by its index files does not look at its records, and what nobody reads rots unseen.
#[test]
fn a_record_that_rots_unread_is_found_and_healed() {
    let mut cluster = Cluster::start("rot", 3);
    let settings = cluster.node_dir(2).join("gramme.toml");
    cluster.node(2).signal("TERM");
    assert!(cluster.node(2).wait().success());
    let text = std::fs::read_to_string(&settings).unwrap_or_default();
    std::fs::write(&settings, format!("{text}\nsegment-bytes = 65536\n")).expect("it can be written");
    cluster.restart(2);
    cluster.node(2).wait_for("other members are connected");
    let value = |i: usize| format!("needle {i:06} {}", "x".repeat(1000));
    let mut client = Redis::connect(cluster.redis(2)).expect("it serves");
    for i in 0..200 {
        assert_eq!(client.set(&format!("rots {i}"), &value(i)), Some(Resp::Simple("OK".into())));
    }
    cluster.wait_until_settled(2);
    // A segment without an index file is read whole when the store is opened: nothing in it would rot unread.
    let needle = value(3).into_bytes();
    let holds = |path: &std::path::PathBuf| {
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(needle.len()).any(|window| window == needle)
    };
    let files = std::fs::read_dir(cluster.node_dir(2).join("store")).expect("it is there");
    let mut holders = files.map(|file| file.expect("it can be listed").path()).filter(holds);
    let (segment, others) = (holders.next().expect("it was written"), holders.count());
    assert_eq!(others, 0);
    eventually("it has its index file", || segment.with_extension("idx").exists());
    cluster.node(2).signal("TERM");
    assert!(cluster.node(2).wait().success());

    // One bit of a value in a segment that is full.
    let mut bytes = std::fs::read(&segment).expect("it is there");
    let at = bytes.windows(needle.len()).position(|window| window == needle).expect("nothing moved it");
    bytes[at + 500] ^= 4;
    std::fs::write(&segment, bytes).expect("it can be written");
    cluster.restart(2);
    cluster.node(2).wait_for("damaged records were found");
    eventually("it was put anew", || cluster.status(2)["records_healed"] == 1);
    cluster.wait_until_settled(2);
    cluster.kill(0);
    cluster.kill(1);
    let mut client = Redis::connect(cluster.redis(2)).expect("it serves");
    for i in 0..200 {
        assert_eq!(client.get_one(&format!("rots {i}")), Ok(vec![value(i).into_bytes()]));
    }
}

#[test]
fn tombstones_are_counted_over_restarts_and_index_files() {
    let mut cluster = Cluster::start("tombstones", 3);
    let mut client = Redis::connect(cluster.redis(0)).expect("it serves");
    for i in 0..20 {
        assert_eq!(client.set(&format!("key {i}"), "v"), Some(Resp::Simple("OK".into())));
    }
    for i in 0..7 {
        assert_eq!(client.call(&[b"DEL", format!("key {i}").as_bytes()]), Some(Resp::Integer(1)));
    }
    let counted = |cluster: &Cluster, node, count: u64| {
        eventually("all copies are deleted", || cluster.status(node)["tombstones"] == count);
    };
    for node in 0..3 {
        counted(&cluster, node, 7);
    }
    cluster.kill(1);
    cluster.restart(1);
    counted(&cluster, 1, 7);
    cluster.node(1).signal("TERM");
    assert!(cluster.node(1).wait().success());
    cluster.restart(1);
    counted(&cluster, 1, 7);
    assert_eq!(client.set("key 3", "again"), Some(Resp::Simple("OK".into())));
    for node in 0..3 {
        counted(&cluster, node, 6);
    }
}
