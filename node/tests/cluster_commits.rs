//! Two operators commit at once, at members that don't hear of each other: one of the two commits stands, and who made the other
//! is told so.

mod common;

use common::{CHANGE, Cluster, Process, eventually, gramme};

/// Stages this at the only node that runs, and commits it; the command waits until the data has moved.
fn commit_alone(cluster: &Cluster, node: u16, words: &[&str]) -> Process {
    cluster.change(node, &[&["stage"], words].concat());
    let at = format!("127.0.0.1:{}", cluster.http(node));
    let mut commit = Process::start(gramme().args(["cluster", "commit", "--wait", "--at", &at]));
    commit.wait_for("committed plan");
    commit
}

/// One commits the keyspace `one:`, the other something else.
fn one_of_two_stands(name: &str, other: impl FnOnce(&Cluster) -> Vec<String>) {
    let mut cluster = Cluster::start(name, 3);
    let other = other(&cluster);
    (1..3).for_each(|node| cluster.kill(node));
    let first = commit_alone(&cluster, 0, &["keyspace", "one:", "--ttl", "50"]);
    cluster.kill(0);
    cluster.restart(1);
    let second = commit_alone(&cluster, 1, &other.iter().map(String::as_str).collect::<Vec<_>>());
    cluster.restart(0);
    cluster.restart(2);
    let ends = [first, second].map(|mut commit| (commit.wait_within(CHANGE).success(), commit.said()));
    let stood = ends.iter().position(|(stood, _)| *stood).unwrap_or_else(|| panic!("neither: {ends:#?}"));
    assert!(ends[stood].1.contains("the data has moved: layout 2 is in force"), "{ends:#?}");
    let (fell, told) = &ends[1 - stood];
    assert!(!fell && told.contains("another commit was made at the same time and won"), "{ends:#?}");

    cluster.wait_until_one_ring(&[0, 1, 2]);
    for node in 0..3 {
        eventually("it knows what is staged", || cluster.json(node, &["transfers"])["staged"] == 1);
        let shown = cluster.json(node, &["keyspaces"]);
        let holds = shown.as_array().expect("a list").iter().any(|one| one["prefix"] == "one:");
        assert_eq!(holds, stood == 0, "{shown}");
    }
}

#[test]
fn of_two_keyspaces_at_once_one_stands() {
    one_of_two_stands("two-keyspaces", |_| ["keyspace", "two:", "--ttl", "60"].map(str::to_owned).into());
}

#[test]
fn of_a_keyspace_and_a_weight_at_once_one_stands() {
    one_of_two_stands("keyspace-and-weight", |cluster| {
        vec!["weight".to_owned(), cluster.id(2), "2".to_owned()]
    });
}
