//! Real processes, real sockets, real files: what the tests of whole nodes share.
#![allow(dead_code, unused_imports, unreachable_pub)] // each test file uses a part of it

mod client;
mod cluster;
mod redis;

pub use client::Client;
pub use cluster::Cluster;
pub use redis::{Redis, Resp, Writer, assert_all_there};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
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
