//! `gramme dev`: a cluster from one command, stopped and started again.

mod common;

use common::{Process, Redis, Resp, Scratch, eventually, free_ports, gramme, is_running, run, stderr};
use std::fs;
use std::net::TcpListener;
use std::path::Path;

fn dev(dir: &Path, port: u16) -> Process {
    let mut process =
        Process::start(gramme().args(["dev", "--dir"]).arg(dir).args(["--port", &port.to_string()]));
    process.wait_for("Ctrl-C stops them all.");
    process
}

/// The pids in the table that `dev` prints.
fn pids(dev: &Process) -> Vec<u32> {
    let said = dev.said();
    let rows = said.lines().filter(|line| line.trim_start().starts_with("node") && line.contains("http://"));
    rows.filter_map(|row| row.split_whitespace().last()?.parse().ok()).collect()
}

#[test]
fn data_survives_ctrl_c_and_other_ports() {
    let scratch = Scratch::new("dev-restart");
    let dir = scratch.path("data");
    let port = free_ports(3);
    let mut first = dev(&dir, port);
    let mut client = Redis::connect(port).expect("it serves");
    for number in 0..100 {
        let (key, value) = (format!("key{number}"), format!("value{number}"));
        assert_eq!(client.set(&key, &value), Some(Resp::Simple("OK".into())));
    }
    let nodes = pids(&first);
    assert_eq!(nodes.len(), 3, "{}", first.said());
    first.signal("INT");
    assert!(first.wait().success(), "{}", first.said());
    assert!(!nodes.into_iter().any(is_running), "no node is left behind");

    let elsewhere = free_ports(3);
    let mut second = dev(&dir, elsewhere);
    for node in 0..3 {
        let mut client = Redis::connect(elsewhere + 10 * node).expect("it serves");
        for number in 0..100 {
            assert_eq!(client.get(&format!("key{number}")), Some(format!("value{number}")));
        }
    }
    second.signal("TERM");
    assert!(second.wait().success(), "{}", second.said());
}

#[test]
fn a_killed_node_is_reported_and_comes_back_by_the_printed_command() {
    let scratch = Scratch::new("dev-kill");
    let dir = scratch.path("data");
    let port = free_ports(3);
    let mut cluster = dev(&dir, port);
    common::signal(pids(&cluster)[1], "KILL");
    cluster.wait_for("was killed; the others go on");
    let mut client = Redis::connect(port).expect("it serves");
    assert_eq!(client.set("greeting", "hello"), Some(Resp::Simple("OK".into())));

    let said = cluster.said();
    let command = said.split("comes back with: ").nth(1).and_then(|rest| rest.lines().next());
    let words: Vec<&str> = command.expect("it says how").split_whitespace().collect();
    let mut node = Process::start(std::process::Command::new(words[0]).args(&words[1..]));
    node.wait_for("other members are connected");
    assert_eq!(Redis::connect(port + 10).expect("it serves").get("greeting"), Some("hello".into()));

    // It is not the cluster's child: it goes on when that stops, which says so, and so does the next start.
    cluster.signal("INT");
    assert!(cluster.wait().success(), "{}", cluster.said());
    let its = node.id().to_string();
    let goes_on = format!("node 2 was started again by another command and goes on (pid {its}; 'kill {its}'");
    eventually("the node that goes on is named", || cluster.said().contains(&goes_on));
    let output = run(&["dev", "--dir", dir.to_str().expect("it is text")]);
    assert_eq!(output.status.code(), Some(1));
    let said = format!("node2 is running already (pid {its}): stop it first, by 'kill {its}'");
    assert!(stderr(&output).contains(&said), "{}", stderr(&output));
    let output = run(&["serve", "--dir", words[words.len() - 1]]);
    assert!(stderr(&output).contains(&format!("is in use by process {its}")), "{}", stderr(&output));
    node.signal("TERM");
    assert!(node.wait().success());
    let mut again = dev(&dir, port);
    again.signal("INT");
    assert!(again.wait().success());
}

#[test]
fn nodes_do_not_outlive_a_killed_parent() {
    let scratch = Scratch::new("dev-orphans");
    let mut cluster = dev(&scratch.path("data"), free_ports(3));
    let nodes = pids(&cluster);
    assert!(nodes.len() == 3 && nodes.iter().all(|pid| is_running(*pid)));
    cluster.kill();
    eventually("all nodes end", || !nodes.iter().any(|pid| is_running(*pid)));
}

#[test]
fn what_does_not_fit_is_refused_in_words() {
    let scratch = Scratch::new("dev-refusals");
    let dir = scratch.path("data");
    let port = free_ports(3);
    let mut cluster = dev(&dir, port);
    cluster.signal("INT");
    assert!(cluster.wait().success());

    let path = dir.to_str().expect("it is text");
    let at = port.to_string();
    let refused = |arguments: &[&str], said: &str| {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&output).contains(said), "{arguments:?}: {}", stderr(&output));
    };
    refused(&["dev", "--dir", path, "--nodes", "5"], "founded with 3 nodes, not 5");
    refused(&["dev", "--dir", &format!("{path}/node1")], "is the directory of a single node");

    let taken = TcpListener::bind(("127.0.0.1", port + 21)).expect("it is free again");
    refused(
        &["dev", "--dir", path, "--port", &at],
        &format!("http at 127.0.0.1:{}: the port is taken", port + 21),
    );
    drop(taken);

    // While it runs nobody's ports are changed: a node that is killed then comes back where the others look for it.
    let settings = |node: u16| fs::read(dir.join(format!("node{node}/gramme.toml"))).expect("it is there");
    let before = [1, 2, 3].map(settings);
    let mut running = dev(&dir, port);
    refused(&["dev", "--dir", path, "--port", &free_ports(3).to_string()], "is running already");
    assert_eq!([1, 2, 3].map(settings), before);
    running.signal("INT");
    assert!(running.wait().success());

    let mark = dir.join("dev.toml");
    let text = fs::read(&mark).expect("it is there");
    fs::remove_file(&mark).expect("it can be removed");
    refused(&["dev", "--dir", path, "--port", &at], "dev.toml");
    fs::write(&mark, text).expect("it can be written");
    // None of the refusals has changed anything.
    let mut again = dev(&dir, port);
    again.signal("INT");
    assert!(again.wait().success());

    fs::rename(dir.join("node2"), scratch.path("elsewhere")).expect("it can be moved");
    refused(&["dev", "--dir", path, "--port", &at], "node2 is missing");
    assert!(!dir.join("node2").exists(), "nothing was made in its place");
}
