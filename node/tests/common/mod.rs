//! Real processes, real sockets, real files: what the tests of whole nodes share.
#![allow(dead_code, unreachable_pub)] // each test file uses a part of it

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The same for a change of the members, which takes some rounds of gossip, and syncs at every node.
pub const CHANGE: Duration = Duration::from_secs(180);

/// The binary under test, without settings from outside.
pub fn gramme() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gramme"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GRAMME_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command to its end.
pub fn run(arguments: &[&str]) -> Output {
    gramme().args(arguments).stdin(Stdio::null()).output().expect("the binary runs")
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Waits until `true`; the failure says what for.
pub fn eventually(what: &str, happened: impl FnMut() -> bool) {
    within(PATIENCE, what, happened);
}

/// The same with another patience.
pub fn within(patience: Duration, what: &str, mut happened: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < patience, "it never happened that {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A directory that goes with the test.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("gramme-test-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a directory can be made");
        Scratch(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("its files are kept in {}", self.0.display());
        } else {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// The first of `nodes` times ten ports that are free, and that no other test here is given. Below the range from
/// which the system takes the local ports of outgoing connections.
pub fn free_ports(nodes: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let width = 10 * nodes;
    let start = u16::try_from(std::process::id() % 200).expect("it is below 200") * 100;
    for _ in 0..200 {
        let base = 12_000 + (start + NEXT.fetch_add(width, Ordering::Relaxed)) % 20_000;
        let bind = |port| TcpListener::bind(("127.0.0.1", port)).ok();
        let all: Vec<_> = (base..base + width).map_while(bind).collect();
        if all.len() == usize::from(width) {
            return base;
        }
    }
    panic!("no {width} ports in a row are free");
}

/// A process that ends with the test, and what it has said so far.
pub struct Process {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Process {
    pub fn start(command: &mut Command) -> Process {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary runs");
        let said = Arc::new(Mutex::new(String::new()));
        collect(child.stdout.take().expect("it is piped"), &said);
        collect(child.stderr.take().expect("it is piped"), &said);
        Process { child, said }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn said(&self) -> String {
        self.said.lock().expect("no thread panics with it").clone()
    }

    /// Waits until its output contains `text`.
    pub fn wait_for(&mut self, text: &str) {
        let begun = Instant::now();
        while !self.said().contains(text) {
            if let Some(status) = self.child.try_wait().expect("it can be waited for")
                && !self.said().contains(text)
            {
                panic!("it ended with {status} before it said {text:?}:\n{}", self.said());
            }
            assert!(begun.elapsed() < PATIENCE, "it never said {text:?}:\n{}", self.said());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it can be waited for");
    }

    pub fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        self.wait_within(PATIENCE)
    }

    /// The same with another patience.
    pub fn wait_within(&mut self, patience: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status;
            }
            assert!(begun.elapsed() < patience, "it never ended:\n{}", self.said());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Bytes of memory that are its own.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let line = status.lines().find(|l| l.starts_with("RssAnon:")).expect("Linux says so");
        let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("it is a number");
        kib << 10
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("process {} said:\n{}", self.id(), self.said());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(from: impl Read + Send + 'static, into: &Arc<Mutex<String>>) {
    let into = Arc::clone(into);
    thread::spawn(move || {
        let mut lines = BufReader::new(from);
        let mut line = String::new();
        while lines.read_line(&mut line).is_ok_and(|n| n > 0) {
            into.lock().expect("no thread panics with it").push_str(&line);
            line.clear();
        }
    });
}

pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status();
    assert!(status.expect("there is a kill command").success(), "process {pid} can be signalled");
}

pub fn is_running(pid: u32) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie has ended; it only waits for its parent.
    state.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

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

    /// Waits until all these nodes go by the same layout, and no transition is live.
    pub fn wait_until_one_ring(&self, nodes: &[u16]) {
        within(CHANGE, "all go by one layout", || {
            let seen: Vec<serde_json::Value> =
                nodes.iter().map(|node| self.json(*node, &["transfers"])).collect();
            seen.iter().all(|one| one["transition"].is_null() && one["hash"] == seen[0]["hash"])
        });
    }

    /// The members by a node's layout, each with the partitions that it owns.
    pub fn owners(&self, node: u16) -> BTreeMap<String, u64> {
        let ring = self.json(node, &["ring"]);
        let members = ring["members"].as_array().expect("it is a list").iter();
        let mut owned: BTreeMap<String, u64> = members
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
            assert_eq!(owners.len(), owned.len().min(3), "{run}");
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

/// What a Redis server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resp {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Option<Vec<u8>>),
    Array(Vec<Resp>),
}

/// A Redis client, as small as it gets.
pub struct Redis {
    reader: BufReader<TcpStream>,
}

impl Redis {
    /// `None` if nobody listens.
    pub fn connect(port: u16) -> Option<Redis> {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        Some(Redis { reader: BufReader::new(stream) })
    }

    /// `None` if the connection breaks.
    pub fn call(&mut self, words: &[&[u8]]) -> Option<Resp> {
        self.send(words)?;
        self.receive()
    }

    pub fn send(&mut self, words: &[&[u8]]) -> Option<()> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            bytes.extend_from_slice(word);
            bytes.extend_from_slice(b"\r\n");
        }
        self.reader.get_mut().write_all(&bytes).ok()
    }

    pub fn receive(&mut self) -> Option<Resp> {
        let mut line = String::new();
        self.reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        let (kind, rest) = line.trim_end().split_at(1);
        let number = || rest.parse::<i64>().expect("it is a number");
        Some(match kind {
            "+" => Resp::Simple(rest.to_owned()),
            "-" => Resp::Error(rest.to_owned()),
            ":" => Resp::Integer(number()),
            "$" if rest == "-1" => Resp::Bulk(None),
            "$" => {
                let mut bytes = vec![0; usize::try_from(number()).expect("a length") + 2];
                self.reader.read_exact(&mut bytes).ok()?;
                bytes.truncate(bytes.len() - 2);
                Resp::Bulk(Some(bytes))
            }
            "*" => {
                let mut items = Vec::new();
                for _ in 0..number() {
                    items.push(self.receive()?);
                }
                Resp::Array(items)
            }
            other => panic!("no reply begins with {other:?}"),
        })
    }

    pub fn set(&mut self, key: &str, value: &str) -> Option<Resp> {
        self.call(&[b"SET", key.as_bytes(), value.as_bytes()])
    }

    /// The value; panics on errors.
    pub fn get(&mut self, key: &str) -> Option<String> {
        match self.call(&[b"GET", key.as_bytes()]) {
            Some(Resp::Bulk(value)) => value.map(|v| String::from_utf8(v).expect("it is text")),
            other => panic!("GET {key}: {other:?}"),
        }
    }

    /// All siblings by one replica's word.
    pub fn get_one(&mut self, key: &str) -> Result<Vec<Vec<u8>>, String> {
        match self.call(&[b"DYN.GET", key.as_bytes(), b"R", b"1"]) {
            Some(Resp::Array(items)) => match &items[..] {
                [_, Resp::Array(values)] => Ok(values
                    .iter()
                    .map(|v| match v {
                        Resp::Bulk(Some(value)) => value.clone(),
                        other => panic!("a value is {other:?}"),
                    })
                    .collect()),
                other => panic!("DYN.GET {key}: {other:?}"),
            },
            Some(Resp::Error(error)) => Err(error),
            other => panic!("DYN.GET {key}: {other:?}"),
        }
    }
}

/// Writes through one node until told to stop; remembers what was acknowledged. Every key is written once.
pub struct Writer {
    stop: Arc<std::sync::atomic::AtomicBool>,
    thread: thread::JoinHandle<BTreeMap<String, String>>,
    written: Arc<AtomicCount>,
}

type AtomicCount = std::sync::atomic::AtomicUsize;

impl Writer {
    pub fn start(name: &str, port: u16) -> Writer {
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let written = Arc::new(AtomicCount::new(0));
        let (stopped, counter, name) = (Arc::clone(&stop), Arc::clone(&written), name.to_owned());
        let thread = thread::spawn(move || {
            let mut acknowledged = BTreeMap::new();
            let mut client = None;
            for number in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let (key, value) = (format!("{name}:{number}"), format!("value {number} of {name}"));
                if client.is_none() {
                    client = Redis::connect(port);
                }
                match client.as_mut().map(|c| c.set(&key, &value)) {
                    Some(Some(Resp::Simple(ok))) if ok == "OK" => {
                        acknowledged.insert(key, value);
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                    // Refused, indeterminate, or the node is gone: nothing was promised.
                    Some(Some(_)) => {}
                    Some(None) | None => {
                        client = None;
                        thread::yield_now();
                    }
                }
            }
            acknowledged
        });
        Writer { stop, thread, written }
    }

    pub fn written(&self) -> usize {
        self.written.load(Ordering::Relaxed)
    }

    /// Waits until `more` further writes were acknowledged.
    pub fn wait_for(&self, more: usize) {
        let goal = self.written() + more;
        eventually("enough writes are acknowledged", || self.written() >= goal);
    }

    /// What was acknowledged.
    pub fn finish(self) -> BTreeMap<String, String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a writer does not panic")
    }
}

/// Everything that was acknowledged is there, through this node.
pub fn assert_all_there(port: u16, acknowledged: &BTreeMap<String, String>) {
    let mut client = Redis::connect(port).expect("it serves");
    let all: Vec<_> = acknowledged.iter().collect();
    for some in all.chunks(200) {
        for (key, _) in some {
            client.send(&[b"GET", key.as_bytes()]).expect("it reads");
        }
        for (key, value) in some {
            let expected = Resp::Bulk(Some(value.as_bytes().to_vec()));
            assert_eq!(client.receive(), Some(expected), "{key} through port {port}");
        }
    }
}

/// Copies a directory of plain files and directories.
pub fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory can be made");
    for entry in fs::read_dir(from).expect("it is there") {
        let entry = entry.expect("it can be read");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("it has a type").is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("it can be copied");
        }
    }
}
