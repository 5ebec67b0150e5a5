//! A cluster of processes, each of which can be killed and started alone.

use super::{CHANGE, Process, Scratch, eventually, free_ports, gramme, run, stderr, stdout, within};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

/// A cluster founded by `gramme dev`, each node served by a process of ours.
pub struct Cluster {
    pub nodes: Vec<Option<Process>>,
    pub port: u16,
    pub dir: PathBuf,
    _scratch: Scratch,
}

impl Cluster {
    pub fn start(name: &str, nodes: u16) -> Cluster {
        Cluster::start_with_room(name, nodes, 0)
    }

    /// The same, with ports for as many nodes that [join](Self::join) later.
    pub fn start_with_room(name: &str, nodes: u16, joiners: u16) -> Cluster {
        let scratch = Scratch::new(name);
        let dir = scratch.path("data");
        let port = free_ports(nodes + joiners);
        let mut dev = Process::start(gramme().args(["dev", "--dir"]).arg(&dir).args([
            "--nodes",
            &nodes.to_string(),
            "--port",
            &port.to_string(),
        ]));
        dev.wait_for("Ctrl-C stops them all.");
        dev.signal("INT");
        assert!(dev.wait().success(), "dev stops well:\n{}", dev.said());
        let mut cluster = Cluster { nodes: (0..nodes).map(|_| None).collect(), port, dir, _scratch: scratch };
        for node in 0..nodes {
            cluster.restart(node);
        }
        for node in cluster.nodes.iter_mut().flatten() {
            node.wait_for("other members are connected");
        }
        cluster
    }

    pub fn node_dir(&self, node: u16) -> PathBuf {
        self.dir.join(format!("node{}", node + 1))
    }

    pub fn redis(&self, node: u16) -> u16 {
        self.port + 10 * node
    }

    pub fn http(&self, node: u16) -> u16 {
        self.redis(node) + 1
    }

    pub fn peer(&self, node: u16) -> u16 {
        self.redis(node) + 2
    }

    /// A file with the cluster's secret.
    pub fn secret_file(&self) -> PathBuf {
        let file = self.dir.join("secret");
        let member = self.node_dir(0);
        let output = run(&["secret", "--dir", member.to_str().expect("it is text")]);
        assert!(output.status.success(), "{}", stderr(&output));
        fs::write(&file, &output.stdout).expect("it can be written");
        file
    }

    /// Starts a new node, the next in number, that is to find the cluster through the first node. It is no member yet.
    pub fn join(&mut self) -> u16 {
        let node = u16::try_from(self.nodes.len()).expect("there are few");
        let secret = self.secret_file();
        self.found_joiner(node, &secret, &format!("127.0.0.1:{}", self.peer(0)));
        self.nodes.push(None);
        self.restart(node);
        node
    }

    /// Makes the directory of a new node with its settings.
    pub fn found_joiner(&self, node: u16, secret: &Path, seeds: &str) {
        let dir = self.node_dir(node);
        fs::create_dir_all(&dir).expect("it can be made");
        let settings = format!(
            "redis = '127.0.0.1:{}'\ncluster-redis = '127.0.0.1:{}'\nhttp = '127.0.0.1:{}'\npeer = '127.0.0.1:{}'\njoin = '{seeds}'\n\
             secret-file = '{}'\n",
            self.redis(node),
            self.redis(node) + 3,
            self.http(node),
            self.peer(node),
            secret.display()
        );
        fs::write(dir.join("gramme.toml"), settings).expect("it can be written");
    }

    /// A node's id, by its own word.
    pub fn id(&self, node: u16) -> String {
        self.status(node)["node"].as_str().expect("it has one").to_owned()
    }

    /// What `gramme WORDS` answers about a node.
    pub fn ask(&self, node: u16, words: &[&str]) -> Output {
        let at = format!("127.0.0.1:{}", self.http(node));
        run(&[words, &["--at", &at]].concat())
    }

    /// The same, understood.
    pub fn json(&self, node: u16, words: &[&str]) -> serde_json::Value {
        let output = self.ask(node, &[words, &["--json"]].concat());
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{words:?}: {e}: {}", stderr(&output)))
    }

    /// Makes a change by `gramme cluster WORDS`; what it says.
    pub fn change(&self, node: u16, words: &[&str]) -> String {
        let output = self.ask(node, &[&["cluster"], words].concat());
        assert!(output.status.success(), "{words:?}: {}", stderr(&output));
        stdout(&output)
    }

    /// Commits what is staged and waits until the data has moved.
    pub fn commit(&self, node: u16) {
        let at = format!("127.0.0.1:{}", self.http(node));
        let mut commit = Process::start(gramme().args(["cluster", "commit", "--wait", "--at", &at]));
        assert!(commit.wait_within(CHANGE).success(), "{}", commit.said());
    }

    /// Waits until a node sees another one stand so in the cluster, and connected.
    pub fn wait_until_standing(&self, node: u16, other: &str, standing: &str) {
        eventually(&format!("node {node} sees {other} as {standing}"), || {
            let members = self.json(node, &["members"]);
            members.as_array().expect("it is a list").iter().any(|member| {
                member["node"] == other && member["standing"] == standing && member["state"] != "down"
            })
        });
    }

    /// Waits until all these nodes go by the same commit, and no transition is live.
    pub fn wait_until_one_ring(&self, nodes: &[u16]) {
        within(CHANGE, "all go by one layout", || {
            let seen: Vec<serde_json::Value> =
                nodes.iter().map(|node| self.json(*node, &["transfers"])).collect();
            seen.iter().all(|one| one["transition"].is_null() && one["commit"] == seen[0]["commit"])
        });
    }

    /// The members by a node's layout, each with the partitions that it owns.
    pub fn owners(&self, node: u16) -> BTreeMap<String, u64> {
        let ring = self.json(node, &["ring"]);
        let list = ring["members"].as_array().expect("it is a list");
        let members = list.len() as u64;
        let mut owned: BTreeMap<String, u64> = list
            .iter()
            .map(|member| {
                let id = member["node"].as_str().expect("it has an id");
                (id.to_owned(), member["partitions"].as_u64().expect("a number"))
            })
            .collect();
        // The runs of slots say the same.
        let total: u64 = owned.values().sum();
        let mut slots = 0;
        for run in ring["slots"].as_array().expect("it is a list") {
            let mut owners: Vec<&str> = run["owners"]
                .as_array()
                .expect("a list")
                .iter()
                .filter_map(serde_json::Value::as_str)
                .collect();
            owners.sort_unstable();
            owners.dedup();
            assert_eq!(
                owners.len() as u64,
                ring["replicas"].as_u64().expect("a number").min(members),
                "{run}"
            );
            assert!(owners.iter().all(|id| owned.contains_key(*id)), "{run}");
            slots += (run["last"].as_u64().expect("a number") - run["first"].as_u64().expect("a number") + 1)
                * owners.len() as u64;
        }
        assert_eq!(slots, total * 64, "each partition has 64 slots");
        owned.retain(|_, partitions| *partitions > 0);
        owned
    }

    /// Starts a node that is not running and waits until it serves.
    pub fn restart(&mut self, node: u16) {
        let dir = self.node_dir(node);
        let mut process = Process::start(gramme().args(["serve", "--dir"]).arg(dir));
        process.wait_for("is ready");
        self.nodes[usize::from(node)] = Some(process);
    }

    pub fn node(&mut self, node: u16) -> &mut Process {
        self.nodes[usize::from(node)].as_mut().expect("it runs")
    }

    /// `kill -9`.
    pub fn kill(&mut self, node: u16) {
        self.nodes[usize::from(node)].take().expect("it runs").kill();
    }

    /// What a node's HTTP API says.
    pub fn status(&self, node: u16) -> serde_json::Value {
        let output = run(&["status", "--json", "--at", &format!("127.0.0.1:{}", self.http(node))]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", stderr(&output)))
    }

    /// Waits until `node` sees all others alive and has, or may have, no hints for anyone.
    pub fn wait_until_settled(&self, node: u16) {
        eventually(&format!("node {node} has handed all hints over"), || {
            let status = self.status(node);
            let peers = status["peers"].as_array().expect("it lists its peers");
            peers.iter().all(|peer| peer["alive"] == true && peer["hints_pending"] == false)
        });
    }
}
