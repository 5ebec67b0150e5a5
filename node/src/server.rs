//! One node, from its settings to its last sync.

use crate::birth::{OpenStore, open};
use crate::book::Book;
use crate::clock::Clock;
use crate::config::{Config, ConfigError, Settings};
use crate::driver::{Driver, Hosted, Quiet};
use crate::facts::Facts;
use crate::handle::{Addresses, Bounds, Handle, Parts};
use crate::host::{Host, opening};
use crate::identity::{DataDir, DirError, Identity, Membership};
use crate::log::say;
use crate::mail::Mailbox;
use crate::peer::{Local, Peers, Setting};
use crate::signal::Signal;
use crate::spawn::Spawner;
use crate::stop::{Stop, StopSource, stop};
use crate::{http, redis};
use gramme_quorum::{Config as EngineConfig, Engine, Limits, Timing, wire};
use gramme_ring::LayoutError;
use gramme_ring::NodeId;
use gramme_store::{FileDisk, OpenError};
use gramme_vclock::Actor;
use smol::future::or;
use smol::net::TcpListener;
use smol::{Async, LocalExecutor, Timer};
use std::cell::Cell;
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Partitions of a new cluster, unless it is founded otherwise.
pub(crate) const PARTITIONS: u32 = 256;

/// N of a new cluster; fewer members hold as many copies as there are members.
pub(crate) const REPLICAS: u8 = 3;

/// How long a stop waits for requests in flight, their syncs and their answers.
const PARTING: Duration = Duration::from_secs(5);

/// How often progress is looked at while starting and stopping.
const GLANCE: Duration = Duration::from_millis(1);

/// How long a start waits for its first write to reach the disk before it serves reads only.
const FIRST_WRITE: Duration = Duration::from_secs(1);

/// Why a node did not start, or could not go on.
#[derive(Debug)]
#[non_exhaustive]
pub(crate) enum ServeError {
    /// The settings.
    Config(ConfigError),
    /// The data directory.
    Dir(DirError),
    /// Another process has the data directory; its id, if it wrote that down.
    InUse(PathBuf, Option<u32>),
    /// A port.
    Listen(&'static str, SocketAddr, io::Error),
    /// The store.
    Store(PathBuf, OpenError),
    /// The store holds data although the directory has no identity.
    StoreWithoutIdentity(PathBuf),
    /// The layout of a new cluster.
    Layout(LayoutError),
    /// The system.
    Io(&'static str, io::Error),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Config(error) => error.fmt(f),
            ServeError::Dir(error) => error.fmt(f),
            ServeError::InUse(path, Some(pid)) => {
                write!(
                    f,
                    "{} is in use by process {pid}: stop that one first, by 'kill {pid}'",
                    path.display()
                )
            }
            ServeError::InUse(path, None) => {
                write!(f, "{} is in use by another process: stop that one first", path.display())
            }
            ServeError::Listen(what, address, error) if error.kind() == io::ErrorKind::AddrInUse => write!(
                f,
                "can't serve {what} at {address}: the port is taken: stop what listens there, or choose another with \
                 --{what}"
            ),
            ServeError::Listen(what, address, error) => {
                write!(f, "can't serve {what} at {address}: {error}: choose another address with --{what}")
            }
            ServeError::Store(path, error) => {
                write!(f, "can't open the store in {}: {error}", path.display())?;
                match error {
                    OpenError::NoStore
                    | OpenError::ManifestMissing
                    | OpenError::ManifestDamaged
                    | OpenError::ManifestStale { .. }
                    | OpenError::SegmentMissing { .. }
                    | OpenError::SegmentForeign { .. }
                    | OpenError::HashKey { .. } => write!(
                        f,
                        "; bring back what is missing, or, if other nodes hold what this one held, remove all of that \
                         directory: the node then takes it back from them"
                    ),
                    _ => Ok(()),
                }
            }
            ServeError::StoreWithoutIdentity(path) => write!(
                f,
                "{} holds data, but the identity file beside it is missing: restore that from a backup",
                path.display()
            ),
            ServeError::Layout(error) => error.fmt(f),
            ServeError::Io(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for ServeError {}

impl From<DirError> for ServeError {
    fn from(error: DirError) -> Self {
        ServeError::Dir(error)
    }
}

impl From<ConfigError> for ServeError {
    fn from(error: ConfigError) -> Self {
        ServeError::Config(error)
    }
}

/// What a parent process is told on stdout, a line each.
pub(crate) mod tell {
    /// Clients are served.
    pub(crate) const READY: &str = "ready";
    /// All other members are connected; said once.
    pub(crate) const WHOLE: &str = "whole";
}

/// Runs a node until it is told to stop. `child`: a parent holds our stdin open for as long as it lives.
pub(crate) fn serve(settings: &Settings, child: bool) -> Result<(), ServeError> {
    let config = Config::new(settings)?;
    crate::descriptors::raise();
    let dir = DataDir::new(&config.dir);
    let _lock = lock(&dir)?;
    let listeners = Listeners::bind(&config)?;
    let (identity, membership, store) = open(&dir, &config, &listeners.addresses)?;

    let executor = Rc::new(LocalExecutor::new());
    let spawn = Spawner::new(&executor);
    let (source, stopping) = stop();
    let node = Node::start(&config, &dir, identity, membership, store, listeners, &spawn, &stopping)?;
    let hosted = Rc::clone(&node.hosted);
    let served = smol::block_on(executor.run(node.run(source, child)));
    // With the tasks go their handles; what is left is ours alone, and can be closed in good order.
    drop(executor);
    close(hosted);
    served
}

fn close(hosted: Rc<Hosted<FileDisk>>) {
    let closed = match Hosted::into_host(hosted) {
        Some(host) => host.into_store().close().map_err(|error| error.to_string()),
        None => Err("a task still holds it, which is a defect of this program".to_owned()),
    };
    if let Err(why) = closed {
        say!(
            "the store was not closed in good order: {why}; nothing is lost by that, the next start reads more of it"
        );
    }
}

/// Holds the data directory for this process, as long as the file is open.
pub(crate) fn lock(dir: &DataDir) -> Result<File, ServeError> {
    let path = dir.path().join(crate::identity::LOCK);
    fs::create_dir_all(dir.path()).map_err(|e| DirError::Io(dir.path().to_owned(), e))?;
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(|e| DirError::Io(path.clone(), e))?;
    match file.try_lock() {
        Ok(()) => {
            // For people who wonder who has it. If it can't be written, they are told less.
            let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let _ = file.read_to_string(&mut text);
            Err(ServeError::InUse(dir.path().to_owned(), text.trim().parse().ok()))
        }
        Err(TryLockError::Error(error)) => Err(DirError::Io(path, error).into()),
    }
}

struct Listeners {
    redis: TcpListener,
    cluster_redis: TcpListener,
    http: TcpListener,
    peer: TcpListener,
    /// As others reach them.
    addresses: Addresses,
}

impl Listeners {
    fn bind(config: &Config) -> Result<Listeners, ServeError> {
        let (redis, redis_at) = listen("redis", &config.redis)?;
        let (cluster_redis, cluster_redis_at) = listen("cluster-redis", &config.cluster_redis)?;
        let (http, http_at) = listen("http", &config.http)?;
        let (peer, peer_at) = listen("peer", &config.peer)?;
        let reach = |at: SocketAddr| match &config.advertise {
            Some(host) => match host.parse::<IpAddr>() {
                Ok(ip) => SocketAddr::new(ip, at.port()).to_string(),
                Err(_) => format!("{host}:{}", at.port()),
            },
            None => at.to_string(),
        };
        let addresses = Addresses {
            peer: reach(peer_at),
            redis: reach(redis_at),
            cluster_redis: reach(cluster_redis_at),
            http: reach(http_at),
        };
        Ok(Listeners { redis, cluster_redis, http, peer, addresses })
    }
}

/// Listens at the first of `candidates` that can be had. The standard library sets `SO_REUSEADDR`, so a restarted
/// node gets its port back at once.
fn listen(what: &'static str, candidates: &[SocketAddr]) -> Result<(TcpListener, SocketAddr), ServeError> {
    let first = candidates.first().copied();
    let bind = || {
        let listener = std::net::TcpListener::bind(candidates)?;
        let at = listener.local_addr()?;
        Ok((Async::new(listener)?.into(), at))
    };
    bind().map_err(|e| match first {
        Some(address) => ServeError::Listen(what, address, e),
        None => ServeError::Config(ConfigError::new(format!("{what} names no address"))),
    })
}

/// A node that serves.
struct Node {
    id: NodeId,
    hosted: Rc<Hosted<FileDisk>>,
    handle: Handle,
    peers: Peers,
    quiet: Quiet,
    clock: Clock,
    listeners: Listeners,
    spawn: Spawner,
    stopping: Stop,
}

impl Node {
    #[allow(clippy::too_many_arguments)] // called once, and each is a thing of its own
    fn start(
        config: &Config,
        dir: &DataDir,
        identity: Identity,
        membership: Membership,
        opened: OpenStore,
        listeners: Listeners,
        spawn: &Spawner,
        stopping: &Stop,
    ) -> Result<Node, ServeError> {
        let clock = Clock::start();
        let [actor, run] = random_words().map_err(|e| ServeError::Io("can't draw random numbers", e))?;
        let mut engine = EngineConfig::new(identity.node, Actor(actor));
        engine.digest_key = identity.digest_key();
        (engine.incomplete, engine.unsynced) = (opened.incomplete, opened.unsynced);
        (engine.r, engine.w) = (config.r, config.w);
        engine.limits = Limits { value: config.value_limit, ..Limits::default() };
        engine.timing = Timing { request: config.timeout, ..Timing::default() };
        let bounds = Bounds { requests: engine.limits.requests, ..Bounds::for_values(config.value_limit) };

        let mut store = opened.store;
        engine.opening = opening(&mut store);
        let mut engine = Engine::new(engine, membership.ring.clone(), clock.now());
        let facts = Facts {
            addresses: listeners.addresses.clone(),
            weight: config.weight,
            zone: config.zone.clone(),
            progress: None,
        };
        if engine.set_facts(facts.to_bytes()).is_err() {
            say!(
                "this node's addresses are too long to be told to others: give shorter names with --advertise"
            );
        }
        let hosted = Hosted::new(Host::new(engine, store, clock.now()));
        let book = Book::new(Some(dir.clone()), membership);
        let wake = Signal::default();
        let handle = Handle::new(
            Parts {
                node: identity.node,
                cluster: identity.cluster,
                seal: identity.seal,
                book: Rc::clone(&book),
                engine: Rc::clone(&hosted) as _,
                bounds,
                value_limit: config.value_limit,
            },
            wake.clone(),
        );
        let mail = Mailbox::new(wake.clone());
        let peers = Peers::start(Setting {
            local: Local {
                node: identity.node,
                cluster: identity.cluster,
                run,
                secret: identity.secret,
                addresses: listeners.addresses.clone(),
            },
            handle: handle.clone(),
            mail: mail.clone(),
            spawn: spawn.clone(),
            stop: stopping.clone(),
            max_frame: wire::max_frame(config.value_limit),
        });
        peers.join(&config.join);
        let quiet = Driver {
            host: Rc::clone(&hosted),
            handle: handle.clone(),
            mail,
            peers: peers.clone(),
            clock,
            book,
            facts,
            dir: dir.clone(),
            wake,
            spawn: spawn.clone(),
        }
        .start()
        .map_err(|e| ServeError::Io("can't start the thread that syncs", e))?;
        Ok(Node {
            id: identity.node,
            hosted,
            handle,
            peers,
            quiet,
            clock,
            listeners,
            spawn: spawn.clone(),
            stopping: stopping.clone(),
        })
    }

    async fn run(self, source: StopSource, child: bool) -> Result<(), ServeError> {
        let asked = Asked::new(child).map_err(|e| ServeError::Io("can't listen for signals", e))?;
        let Listeners { redis, cluster_redis, http, peer, addresses } = self.listeners;
        self.spawn.spawn(self.peers.clone().listen(peer)).detach();

        // Writes are refused until this run's first record is durable; nobody should see that in a healthy start.
        let ready = async {
            let begun = Instant::now();
            while !self.handle.engine(|e| e.status(self.clock.now().instant).ready) {
                if begun.elapsed() >= FIRST_WRITE {
                    say!(
                        "this run's first record is not on the disk yet; is the disk full? reads are served now, \
                         writes as soon as it is"
                    );
                    break;
                }
                Timer::after(GLANCE).await;
            }
            self.peers.settled().await;
            false
        };
        let stopped_early = or(ready, async {
            asked.wait().await;
            true
        })
        .await;
        if stopped_early {
            return Ok(());
        }

        let redis = self.spawn.spawn(redis::serve(
            [(redis::Mode::Plain, redis), (redis::Mode::Cluster, cluster_redis)],
            self.handle.clone(),
            self.spawn.clone(),
            self.stopping.clone(),
        ));
        let http = self.spawn.spawn(http::serve(
            http,
            self.handle.clone(),
            self.spawn.clone(),
            self.stopping.clone(),
        ));
        announce(child, self.id, &addresses);
        let whole = async {
            let others = loop {
                let (connected, others) = self.peers.connected();
                if connected == others {
                    break others;
                }
                Timer::after(10 * GLANCE).await;
            };
            if child {
                tell_parent(tell::WHOLE);
            } else if others > 0 {
                say!("all {others} other members are connected");
            }
            std::future::pending().await
        };
        or(asked.wait(), whole).await;

        say!("stopping");
        drop(source);
        let parting = async {
            redis.await;
            http.await;
            while !self.quiet.is_quiet() {
                Timer::after(GLANCE).await;
            }
            true
        };
        let late = async {
            Timer::after(PARTING).await;
            false
        };
        if !or(parting, or(late, asked.again())).await {
            say!("stopped with requests still in flight; their clients were given no answer");
        }
        Ok(())
    }
}

fn random_words() -> io::Result<[u64; 2]> {
    let mut bytes = [[0; 8]; 2];
    getrandom::fill(bytes.as_flattened_mut()).map_err(io::Error::other)?;
    Ok(bytes.map(u64::from_le_bytes))
}

fn announce(child: bool, node: NodeId, at: &Addresses) {
    if child {
        tell_parent(tell::READY);
    } else {
        let line = format!(
            "gramme: node {node} is ready (pid {}): redis {}, its cluster mode {}, http {}, peers {}\n",
            std::process::id(),
            at.redis,
            at.cluster_redis,
            at.http,
            at.peer
        );
        let mut out = io::stdout().lock();
        let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    }
}

/// A parent that is gone is noticed elsewhere.
fn tell_parent(word: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{word}").and_then(|()| out.flush());
}

/// Requests to end from outside: signals, and a parent that closed our stdin or died.
struct Asked {
    signals: Async<std::os::unix::net::UnixStream>,
    stdin: Option<Async<File>>,
    seen: Cell<bool>,
}

impl Asked {
    fn new(child: bool) -> io::Result<Asked> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
            signal_hook::low_level::pipe::register(signal, theirs.try_clone()?)?;
        }
        let stdin = if child {
            use std::os::fd::AsFd;
            Some(Async::new(File::from(io::stdin().as_fd().try_clone_to_owned()?))?)
        } else {
            None
        };
        Ok(Asked { signals: Async::new(ours)?, stdin, seen: Cell::new(false) })
    }

    async fn wait(&self) {
        if !self.seen.get() {
            or(self.signalled(), self.orphaned()).await;
            self.seen.set(true);
        }
    }

    /// One more signal, after the first: now.
    async fn again(&self) -> bool {
        self.signalled().await;
        false
    }

    async fn signalled(&self) {
        // The pipe is drained, so that a later signal is news again.
        let _ = self.signals.read_with(|mut pipe| pipe.read(&mut [0; 64])).await;
    }

    async fn orphaned(&self) {
        match &self.stdin {
            // Nothing is ever written to it: whatever ends the read is the end.
            Some(stdin) => drop(stdin.read_with(|mut stdin| stdin.read(&mut [0; 64])).await),
            None => std::future::pending().await,
        }
    }
}
