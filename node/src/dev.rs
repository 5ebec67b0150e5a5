//! A whole cluster on this machine: every node a process of its own, started, watched and stopped by this one.
//!
//! ```text
//! DIR/dev.toml      how many nodes, and their first port; written last, when all are founded
//! DIR/node1/ …      a data directory each, which `gramme serve --dir DIR/node1` serves alone
//! ```
//!
//! A node that dies stays dead: whoever killed it wants to see what happens. It comes back with the command that is
//! printed. Nodes end when this process does, however it ends: they hold the other end of a pipe.

mod crew;

use crate::birth;
use crate::handle::Addresses;
use crate::identity::{DataDir, DirError, Identity, Membership, write_durably};
use crate::log::say;
use crate::server::{PARTITIONS, REPLICAS, ServeError, tell};
use crew::{Crew, check};
use gramme_ring::{ClusterId, Member, Membership as Ring, NodeId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

const MARK: &str = "dev.toml";

/// Nodes that one machine is asked to run.
pub(crate) const MOST_NODES: u16 = 16;

/// Ports from one node to the next.
const STRIDE: u16 = 10;

/// How long all nodes may take to serve and to find each other.
const START: Duration = Duration::from_secs(30);

/// How long our nodes may take to find each other if they can't find all members, since others live elsewhere.
const MEETING: Duration = Duration::from_secs(3);

/// How long nodes may take to stop before they are killed.
const STOP: Duration = Duration::from_secs(8);

/// What `gramme dev` was told.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) nodes: Option<u16>,
    pub(crate) dir: PathBuf,
    pub(crate) port: Option<u16>,
}

/// Why the cluster does not run.
#[derive(Debug)]
#[non_exhaustive]
pub(crate) enum DevError {
    /// A node's directory.
    Dir(DirError),
    /// Founding a node.
    Found(ServeError),
    /// `dev.toml`.
    Mark(PathBuf, String),
    /// `--nodes` is not what was founded.
    Nodes { wished: u16, founded: u16, dir: PathBuf },
    /// A founded node's directory is gone.
    NodeMissing(PathBuf),
    /// There are nodes, but no `dev.toml`.
    MarkMissing(PathBuf),
    /// The directory is a single node's.
    IsNode(PathBuf),
    /// None of the founded nodes is a member any more.
    NoneLeft(PathBuf),
    /// Two directories are not of one cluster.
    Strangers(PathBuf, PathBuf),
    /// The ports don't fit below 65536.
    Ports { port: u16, nodes: u16 },
    /// A node of this cluster runs already, as this process if it is known.
    Running(PathBuf, Option<u32>),
    /// Something listens at a port.
    Taken(String, &'static str, io::Error),
    /// A node ended while the cluster was starting.
    Died(usize, ExitStatus),
    /// All nodes have ended.
    AllDied,
    /// The system.
    Io(&'static str, io::Error),
}

impl fmt::Display for DevError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DevError::Dir(error) => error.fmt(f),
            DevError::Found(error) => error.fmt(f),
            DevError::Mark(path, why) => write!(f, "can't use {}: {why}", path.display()),
            DevError::Nodes { wished, founded, dir } => write!(
                f,
                "the cluster in {} was founded with {founded} nodes, not {wished}: leave --nodes away, or found another \
                 with --dir",
                dir.display()
            ),
            DevError::NodeMissing(path) => write!(
                f,
                "{} is missing, and with it a member of the cluster: bring it back, or begin anew in another --dir",
                path.display()
            ),
            DevError::MarkMissing(path) => write!(
                f,
                "{} holds data, but the file {MARK} that describes its cluster is missing: bring that back, serve the \
                 nodes one by one with 'gramme serve --dir', or begin anew in another --dir",
                path.display()
            ),
            DevError::IsNode(path) => write!(
                f,
                "{} is the directory of a single node: serve it with 'gramme serve --dir {}', or choose another --dir",
                path.display(),
                path.display()
            ),
            DevError::NoneLeft(path) => write!(
                f,
                "all nodes in {} have left their cluster or were removed from it: begin anew in another --dir",
                path.display()
            ),
            DevError::Strangers(one, other) => write!(
                f,
                "{} and {} belong to different clusters: bring back the directories that were founded together",
                one.display(),
                other.display()
            ),
            DevError::Ports { port, nodes } => {
                write!(f, "{nodes} nodes from port {port} need ports beyond 65535: choose a lower --port")
            }
            DevError::Running(dir, pid) => {
                write!(f, "the node of this cluster in {} is running already", dir.display())?;
                match pid {
                    Some(pid) => write!(f, " (pid {pid}): stop it first, by 'kill {pid}'"),
                    None => write!(f, ": stop it first"),
                }
            }
            DevError::Taken(address, what, error) => {
                let why = match error.kind() {
                    io::ErrorKind::AddrInUse => "the port is taken".to_owned(),
                    _ => error.to_string(),
                };
                write!(
                    f,
                    "can't serve {what} at {address}: {why}: stop what listens there, or choose others with --port"
                )
            }
            DevError::Died(node, status) => {
                write!(f, "node {node} did not start: {}: see its message above", ending(*status))
            }
            DevError::AllDied => f.write_str("all nodes have ended"),
            DevError::Io(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for DevError {}

impl From<DirError> for DevError {
    fn from(error: DirError) -> Self {
        DevError::Dir(error)
    }
}

/// The file that says what was founded.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    nodes: u16,
    port: u16,
}

impl Mark {
    fn load(dir: &Path) -> Result<Option<Mark>, DevError> {
        let path = dir.join(MARK);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(DevError::Mark(path, e.to_string())),
        };
        let mark: Mark =
            toml::from_str(&text).map_err(|e| DevError::Mark(path.clone(), e.message().to_owned()))?;
        if mark.nodes == 0 || mark.nodes > MOST_NODES {
            return Err(DevError::Mark(path, format!("it says {} nodes", mark.nodes)));
        }
        Ok(Some(mark))
    }

    fn save(&self, dir: &Path) -> Result<(), DevError> {
        let text = format!("# A cluster of 'gramme dev'.\nnodes = {}\nport = {}\n", self.nodes, self.port);
        let path = dir.join(MARK);
        write_durably(&path, text.as_bytes(), 0o644).map_err(|e| DevError::Mark(path, e.to_string()))
    }
}

/// A node's place in the cluster, counted from 1.
fn node_dir(dir: &Path, node: u16) -> PathBuf {
    dir.join(format!("node{node}"))
}

fn addresses(port: u16, node: u16) -> Addresses {
    let first = port + STRIDE * (node - 1);
    let at = |offset: u16| format!("127.0.0.1:{}", first + offset);
    Addresses { redis: at(0), http: at(1), peer: at(2), cluster_redis: at(3) }
}

/// Runs the cluster until it is told to stop.
pub(crate) fn run(wish: &Wish) -> Result<(), DevError> {
    let (mark, crew) = prepare(wish)?;
    for node in crew.numbers.iter().copied() {
        let data = DataDir::new(node_dir(&wish.dir, node));
        match crate::server::lock(&data) {
            // Let go of at once: it is the node's to hold.
            Ok(_) => {}
            Err(ServeError::InUse(dir, pid)) => return Err(DevError::Running(dir, pid)),
            Err(error) => return Err(DevError::Found(error)),
        }
        let at = addresses(mark.port, node);
        let all = [
            ("redis", at.redis),
            ("http", at.http),
            ("peers", at.peer),
            ("redis in cluster mode", at.cluster_redis),
        ];
        for (what, address) in all {
            // A look before the start gives one clear answer instead of one per process.
            TcpListener::bind(&address).map_err(|e| DevError::Taken(address, what, e))?;
        }
    }
    crew.tell(&wish.dir, &mark)?;
    let mut cluster = Cluster::start(&wish.dir, &mark, &crew)?;
    let outcome = cluster.watch();
    cluster.stop();
    outcome
}

/// Founds the cluster, or checks what was founded.
fn prepare(wish: &Wish) -> Result<(Mark, Crew), DevError> {
    let dir = &wish.dir;
    if DataDir::new(dir).load().is_ok_and(|found| found.is_some()) {
        return Err(DevError::IsNode(dir.clone()));
    }
    let founded = Mark::load(dir)?;
    let nodes = wish.nodes.or(founded.as_ref().map(|mark| mark.nodes)).unwrap_or(3);
    let port = wish.port.or(founded.as_ref().map(|mark| mark.port)).unwrap_or(7379);
    if port.checked_add(STRIDE * (nodes - 1) + 3).is_none() {
        return Err(DevError::Ports { port, nodes });
    }
    match founded {
        Some(mark) if mark.nodes != nodes => {
            Err(DevError::Nodes { wished: nodes, founded: mark.nodes, dir: dir.clone() })
        }
        Some(mark) => {
            let former = mark.port;
            let mark = Mark { port, ..mark };
            let crew = check(dir, &mark, former)?;
            Ok((mark, crew))
        }
        None => {
            let mark = Mark { nodes, port };
            found(dir, &mark)?;
            Ok((mark, Crew::whole(nodes)))
        }
    }
}

/// One layout for all nodes; their directories first, then the mark that says they are all there.
fn found(dir: &Path, mark: &Mark) -> Result<(), DevError> {
    let random = |e| DevError::Io("can't draw a random identity", e);
    let first = Identity::random().map_err(random)?;
    let mut identities = vec![first.clone()];
    for _ in 1..mark.nodes {
        identities.push(first.sibling().map_err(random)?);
    }
    let members: Vec<Member> = identities.iter().map(|identity| Member::new(identity.node)).collect();
    let ring = Ring::found(ClusterId(first.cluster), REPLICAS, PARTITIONS, &members)
        .map_err(|e| DevError::Found(ServeError::Layout(e)))?;
    let places: BTreeMap<NodeId, Addresses> =
        (1..).zip(&identities).map(|(node, identity)| (identity.node, addresses(mark.port, node))).collect();
    let membership = Membership { node: first.node, ring, addresses: places };
    for (node, identity) in (1..).zip(&identities) {
        let data = DataDir::new(node_dir(dir, node));
        let membership = Membership { node: identity.node, ..membership.clone() };
        birth::found(&data, identity, &membership).map_err(|error| match error {
            ServeError::StoreWithoutIdentity(_) => DevError::MarkMissing(dir.to_owned()),
            error => DevError::Found(error),
        })?;
        save_settings(&data, &addresses(mark.port, node))?;
    }
    mark.save(dir)
}

fn save_settings(data: &DataDir, at: &Addresses) -> Result<(), DevError> {
    let text = format!(
        "# For 'gramme serve --dir {}'. 'gramme dev' writes this file anew when its ports change.\n\
         redis = \"{}\"\ncluster-redis = \"{}\"\nhttp = \"{}\"\npeer = \"{}\"\n",
        data.path().display(),
        at.redis,
        at.cluster_redis,
        at.http,
        at.peer
    );
    Ok(data.save_settings(&text)?)
}

enum Event {
    Ready(usize),
    Whole(usize),
    /// A node's stdout ended: so has the node.
    Ended(usize),
    /// Somebody wants all this to end.
    Signal,
}

struct Node {
    number: u16,
    dir: PathBuf,
    at: Addresses,
    child: Child,
    ready: bool,
    whole: bool,
    ended: bool,
}

struct Cluster {
    nodes: Vec<Node>,
    events: Receiver<Event>,
    dir: PathBuf,
    /// Its nodes are all members there are.
    alone: bool,
}

impl Cluster {
    fn start(dir: &Path, mark: &Mark, crew: &Crew) -> Result<Cluster, DevError> {
        let (sender, events) = channel();
        listen_for_signals(sender.clone()).map_err(|e| DevError::Io("can't listen for signals", e))?;
        let mut cluster = Cluster { nodes: Vec::new(), events, dir: dir.to_owned(), alone: crew.alone };
        for number in crew.numbers.iter().copied() {
            let dir = node_dir(dir, number);
            match spawn(&dir, number, cluster.nodes.len(), &sender) {
                Ok(child) => cluster.nodes.push(Node {
                    number,
                    dir,
                    at: addresses(mark.port, number),
                    child,
                    ready: false,
                    whole: false,
                    ended: false,
                }),
                Err(error) => {
                    cluster.stop();
                    return Err(DevError::Io("can't start a node", error));
                }
            }
        }
        Ok(cluster)
    }

    /// Returns when a signal came, or no node is left.
    fn watch(&mut self) -> Result<(), DevError> {
        let begun = Instant::now();
        let patience = if self.alone { START } else { MEETING };
        let mut greeted = false;
        loop {
            if !greeted {
                let all_ready = self.nodes.iter().all(|node| node.ready);
                let late = begun.elapsed() >= patience;
                if all_ready && (late || self.nodes.iter().all(|node| node.whole)) {
                    self.greet();
                    greeted = true;
                }
            }
            let event = if greeted {
                self.events.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                self.events
                    .recv_timeout(patience.saturating_sub(begun.elapsed()).max(Duration::from_millis(100)))
            };
            match event {
                Ok(Event::Ready(at)) => self.nodes[at].ready = true,
                Ok(Event::Whole(at)) => self.nodes[at].whole = true,
                Ok(Event::Ended(at)) => {
                    let status =
                        self.nodes[at].end().map_err(|e| DevError::Io("can't wait for a node", e))?;
                    if !greeted {
                        return Err(DevError::Died(self.nodes[at].number.into(), status));
                    }
                    let node = &self.nodes[at];
                    say!(
                        "node {} (pid {}) {}; the others go on. It comes back with: {} serve --dir {}",
                        node.number,
                        node.child.id(),
                        ending(status),
                        our_name(),
                        node.dir.display()
                    );
                    if self.nodes.iter().all(|node| node.ended) {
                        return Err(DevError::AllDied);
                    }
                }
                Ok(Event::Signal) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(DevError::AllDied),
            }
        }
    }

    fn greet(&self) {
        let mut text =
            format!("\n{} nodes are up, their data is in {}\n\n", self.nodes.len(), self.dir.display());
        let mut rows = vec![["", "redis", "http", "peers", "redis cluster mode", "pid"].map(str::to_owned)];
        for node in &self.nodes {
            let pid = node.child.id().to_string();
            let name = format!("node{}", node.number);
            rows.push([
                name,
                node.at.redis.clone(),
                format!("http://{}", node.at.http),
                node.at.peer.clone(),
                node.at.cluster_redis.clone(),
                pid,
            ]);
        }
        text.push_str(&crate::cli::table::aligned(&rows, "  "));
        let (first, second) = (&self.nodes[0], self.nodes.get(1).unwrap_or(&self.nodes[0]));
        let last = &self.nodes[self.nodes.len() - 1];
        let port = first.at.redis.rsplit(':').next().unwrap_or_default();
        text.push_str(&format!(
            "\nTry:\n  redis-cli -p {port} set greeting hello\n  curl -i http://{}/kv/greeting\n",
            second.at.http
        ));
        if self.nodes.len() >= 3 {
            text.push_str(&format!(
                "  kill -9 {}    # reads and writes go on; back with: {} serve --dir {}\n",
                last.child.id(),
                our_name(),
                last.dir.display()
            ));
        } else {
            text.push_str(&format!("  {} status --at {}\n", our_name(), first.at.http));
        }
        text.push_str("\nCtrl-C stops them all.\n");
        let mut out = io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// Asks all nodes to stop and kills those that don't.
    fn stop(&mut self) {
        for node in &mut self.nodes {
            // The end of its stdin tells a node to stop, as a signal would.
            drop(node.child.stdin.take());
        }
        let begun = Instant::now();
        while self.nodes.iter().any(|node| !node.ended) {
            match self.events.recv_timeout(STOP.saturating_sub(begun.elapsed())) {
                Ok(Event::Ended(at)) => {
                    if let Ok(status) = self.nodes[at].end()
                        && !status.success()
                    {
                        say!("node {} {} while stopping", self.nodes[at].number, ending(status));
                    }
                }
                Ok(Event::Signal) | Err(_) => break,
                Ok(_) => {}
            }
        }
        for node in self.nodes.iter_mut().filter(|node| !node.ended) {
            say!(
                "node {} did not stop in time and is killed; nothing acknowledged is lost by that",
                node.number
            );
            let _ = node.child.kill();
            let _ = node.end();
        }
        for node in &self.nodes {
            if let Err(ServeError::InUse(dir, pid)) = crate::server::lock(&DataDir::new(&node.dir)) {
                say!(
                    "node {} was started again by another command and goes on{}, with its data in {}",
                    node.number,
                    pid.map_or(String::new(), |pid| format!(" (pid {pid}; 'kill {pid}' stops it)")),
                    dir.display()
                );
            }
        }
    }
}

impl Node {
    fn end(&mut self) -> io::Result<ExitStatus> {
        self.ended = true;
        self.child.wait()
    }
}

/// How to call this program from the shell it was started in: `gramme` where that is what the shell would find,
/// otherwise its path, which under `cargo run` is `target/release/gramme`.
fn our_name() -> String {
    let Ok(program) = env::current_exe() else { return String::from("gramme") };
    let path = env::var_os("PATH").unwrap_or_default();
    if env::split_paths(&path)
        .any(|dir| dir.join("gramme").canonicalize().is_ok_and(|found| found == program))
    {
        return String::from("gramme");
    }
    let here = env::current_dir().unwrap_or_default();
    match program.strip_prefix(&here) {
        // A name without a slash would be looked for in the path.
        Ok(name) if name.components().count() == 1 => format!("./{}", name.display()),
        Ok(below) => below.display().to_string(),
        Err(_) => program.display().to_string(),
    }
}

/// In words, how a process ended.
fn ending(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (_, Some(9)) => "was killed".to_owned(),
        (_, Some(signal)) => format!("was ended by signal {signal}"),
        (Some(0), _) => "has stopped".to_owned(),
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, None) => "ended".to_owned(),
    }
}

/// Starts one node. It is in a process group of its own, so that Ctrl-C comes to us alone and we stop it in order.
fn spawn(dir: &Path, number: u16, at: usize, events: &Sender<Event>) -> io::Result<Child> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("serve").arg("--dir").arg(dir).arg("--child");
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for variable in
        ["CONFIG", "DIR", "REDIS", "CLUSTER_REDIS", "HTTP", "PEER", "ADVERTISE", "JOIN", "SECRET_FILE"]
    {
        // They are meant for one node, and there are several.
        command.env_remove(format!("GRAMME_{variable}"));
    }
    let mut child = command.spawn()?;
    let stdout = child.stdout.take().expect("it is piped");
    let stderr = child.stderr.take().expect("it is piped");
    let events = events.clone();
    thread::Builder::new().spawn(move || follow(stdout, at, &events))?;
    thread::Builder::new().spawn(move || relay(stderr, number))?;
    Ok(child)
}

/// Hears what a node tells us.
fn follow(stdout: impl Read, at: usize, events: &Sender<Event>) {
    for line in BufReader::new(stdout).lines() {
        let event = match line.as_deref() {
            Ok(tell::READY) => Event::Ready(at),
            Ok(tell::WHOLE) => Event::Whole(at),
            Ok(_) => continue,
            Err(_) => break,
        };
        let _ = events.send(event);
    }
    let _ = events.send(Event::Ended(at));
}

/// Passes a node's log on, with its name.
fn relay(stderr: impl Read, number: u16) {
    let mut lines = BufReader::new(stderr);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        let text = text.strip_prefix("gramme: ").unwrap_or(text);
        let _ = io::stderr().write_all(format!("node{number}: {text}\n").as_bytes());
        line.clear();
    }
}

fn listen_for_signals(events: Sender<Event>) -> io::Result<()> {
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT, signal_hook::consts::SIGHUP] {
        signal_hook::low_level::pipe::register(signal, theirs.try_clone()?)?;
    }
    thread::Builder::new().spawn(move || {
        while ours.read(&mut [0; 16]).is_ok_and(|n| n > 0) {
            if events.send(Event::Signal).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}
