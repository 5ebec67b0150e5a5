//! What it takes to heal a replica whose disk is empty, without a read by anybody, and what anti-entropy sends when all are equal.
//!
//! `cargo run --release -p gramme-sim --example wiped -- [KEYS]` prints the table of `docs/SCALE.md` (a million keys). Three nodes, N = 3,
//! R = W = 2, values of 100 bytes: engines and stores as in the server, memory in place of disks, and messages of which every byte is
//! counted. It fails where a copy is missing afterwards, or where more moves than the project allows itself.

use bytes::Bytes;
use gramme_node::host::{Effect, Host, opening};
use gramme_quorum::message::Message;
use gramme_quorum::{
    Config, Cover, Duration, Engine, Input, Instant, Now, Op, Output, Reply, RequestId, WriteOptions, wire,
};
use gramme_ring::{ClusterId, Member, Membership, NodeId};
use gramme_store::{MemDisk, Options, Store};
use gramme_vclock::Actor;
use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

const NODES: u64 = 3;
const PARTITIONS: u32 = 256;
const VALUE_BYTES: usize = 100;
/// What may move for each byte that was lost, and what two nodes may say to each other in a round when nothing differs.
const MOST_MOVED: f64 = 1.3;
const MOST_IDLE: u64 = 4096;

struct Node {
    host: Host<MemDisk>,
    /// Records that its engine had read.
    loads: Rc<Cell<u64>>,
    recovered: bool,
}

/// Bytes of messages that carry or ask for copies and sums; heartbeats and gossip are the same whatever is stored.
#[derive(Clone, Copy, Default)]
struct Sent {
    objects: u64,
    rest: u64,
}

struct Cluster {
    nodes: Vec<Node>,
    membership: Membership,
    wire: VecDeque<(NodeId, NodeId, Message)>,
    now: Now,
    sent: Sent,
    replies: u64,
}

fn open(membership: &Membership, id: NodeId, run: u64, incomplete: bool, now: Now) -> Node {
    let options = Options::new([7; 16]).with_segment_bytes(64 << 20).with_tree_key([9; 16]);
    let (mut store, _) = Store::open(MemDisk::new(), options).expect("an empty disk");
    let mut config = Config::new(id, Actor(id.0 << 32 | run));
    config.digest_key = [9; 16];
    config.incomplete = incomplete;
    config.opening = opening(&mut store);
    let engine = Engine::new(config, membership.clone(), now);
    let mut host = Host::new(engine, store, now);
    let loads = Rc::new(Cell::new(0));
    let counted = Rc::clone(&loads);
    host.observe(Box::new(move |output: &Output| {
        if matches!(output, Output::Load { .. }) {
            counted.set(counted.get() + 1);
        }
    }));
    Node { host, loads, recovered: false }
}

impl Cluster {
    fn new() -> Cluster {
        let members: Vec<Member> = (1..=NODES).map(|id| Member::new(NodeId(id))).collect();
        let membership = Membership::found(ClusterId(1), 3, PARTITIONS, &members).expect("a plain cluster");
        let now = Now { instant: Instant::default(), wall_ms: 1_700_000_000_000 };
        let nodes = members.iter().map(|member| open(&membership, member.id, 1, false, now)).collect();
        let mut cluster =
            Cluster { nodes, membership, wire: VecDeque::new(), now, sent: Sent::default(), replies: 0 };
        for id in 1..=NODES {
            cluster.connect(NodeId(id));
        }
        cluster
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[usize::try_from(id.0 - 1).expect("few")]
    }

    fn connect(&mut self, id: NodeId) {
        for other in (1..=NODES).map(NodeId).filter(|other| *other != id) {
            self.input(id, Input::Connected(other));
            self.input(other, Input::Connected(id));
        }
        self.run();
    }

    fn input(&mut self, id: NodeId, input: Input) {
        let now = self.now;
        self.node(id).host.handle(now, input);
        self.work(id);
    }

    /// Does all that a node asks for.
    fn work(&mut self, id: NodeId) {
        let now = self.now;
        loop {
            let node = self.node(id);
            match node.host.poll() {
                Some(Effect::Send(to, message)) => self.wire.push_back((id, to, message)),
                Some(Effect::Reply(_, reply)) => {
                    assert!(matches!(reply, Reply::Written { .. }), "{reply:?}");
                    self.replies += 1;
                }
                Some(Effect::Save(_)) => node.host.saved(now, true),
                Some(Effect::Fetch(load, job)) => node.host.finish_read(now, load, job.run()),
                Some(Effect::ReadAhead(list, job)) => {
                    job.run();
                    node.host.finish_list(now, list);
                }
                Some(Effect::Recovered) => node.recovered = true,
                Some(Effect::Incomplete) => panic!("no disk was set back"),
                Some(Effect::Cluster(..) | Effect::Known(..)) => {}
                None => match node.host.begin_sync() {
                    Some(job) => node.host.finish_sync(now, job.run()),
                    None => return,
                },
            }
        }
    }

    /// Delivers all messages, and those that they cause.
    fn run(&mut self) {
        let mut bytes = Vec::new();
        while let Some((from, to, message)) = self.wire.pop_front() {
            bytes.clear();
            wire::encode(&message, &mut bytes);
            match message {
                Message::Heartbeat { .. } | Message::Gossip(_) => {}
                Message::Write { .. } | Message::Copy { .. } => self.sent.objects += bytes.len() as u64,
                Message::Listed { ref objects, .. } => {
                    let listed: usize = objects.iter().map(Bytes::len).sum();
                    self.sent.objects += listed as u64;
                    self.sent.rest += (bytes.len() - listed) as u64;
                }
                _ => self.sent.rest += bytes.len() as u64,
            }
            self.input(to, Input::Peer(from, message));
        }
    }

    /// Lets time pass, in steps of the engines' own deadlines.
    fn pass(&mut self, time: Duration) {
        let end = self.now.instant + time;
        while let Some(next) =
            self.nodes.iter().filter_map(|node| node.host.deadline()).min().filter(|next| *next <= end)
        {
            self.advance(next);
            for id in (1..=NODES).map(NodeId) {
                self.input(id, Input::Tick);
                let now = self.now;
                while self.node(id).host.maintain(now, 1 << 20) {
                    self.work(id);
                }
            }
            self.run();
        }
        self.advance(end);
    }

    fn advance(&mut self, to: Instant) {
        let passed = to.since(self.now.instant);
        self.now.instant = self.now.instant + passed;
        self.now.wall_ms += u64::try_from(passed.as_millis()).expect("not so long");
    }

    fn fill(&mut self, keys: u64) {
        let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
        for n in 0..keys {
            let op = Op::Put {
                key: Bytes::from(format!("user:{n:08}")),
                value: value.clone(),
                content_type: None,
                expiry: None,
                cover: Cover::Held,
                options: WriteOptions::default(),
            };
            self.input(NodeId(n % NODES + 1), Input::Client(RequestId(n), op));
            self.run();
            if n % 100 == 99 {
                self.pass(Duration::from_millis(10));
            }
        }
        assert_eq!(self.replies, keys);
    }

    /// Sums over all copies of each node.
    fn sums(&self) -> Vec<u128> {
        let tree = |node: &Node| node.host.store().tree().expect("asked for").range(0..=16_383);
        self.nodes.iter().map(tree).collect()
    }

    fn loads(&self) -> u64 {
        self.nodes.iter().map(|node| node.loads.get()).sum()
    }
}

fn main() {
    let keys: u64 = std::env::args().nth(1).map_or(1_000_000, |keys| keys.parse().expect("a number of keys"));
    let mut cluster = Cluster::new();
    cluster.fill(keys);
    cluster.pass(Duration::from_secs(120));

    // All are equal by now: what is said in a minute of rounds, and what is read for it.
    let (before, loads, minutes) = (cluster.sent, cluster.loads(), 10);
    cluster.pass(Duration::from_secs(60 * minutes));
    let idle = cluster.sent.objects + cluster.sent.rest - before.objects - before.rest;
    // Each node compares itself with one other every ten seconds.
    let rounds = NODES * 6 * minutes;
    let (idle, read) = (idle / rounds, cluster.loads() - loads);

    // One record is its key and its encoded object, as it is held here.
    let sums = cluster.sums();
    let lost: u64 = (0..16_384).map(|slot| cluster.nodes[0].host.store().slot_len(slot)).sum();
    assert_eq!(lost, keys);
    let held = object_bytes(&mut cluster, keys);

    let (victim, before, began) = (NodeId(1), cluster.sent, cluster.now.instant);
    let now = cluster.now;
    let membership = cluster.membership.clone();
    for other in (2..=NODES).map(NodeId) {
        cluster.input(other, Input::Disconnected(victim));
    }
    *cluster.node(victim) = open(&membership, victim, 2, true, now);
    cluster.work(victim);
    cluster.connect(victim);
    while !cluster.node(victim).recovered {
        cluster.pass(Duration::from_secs(1));
        assert!(cluster.now.instant.since(began) < Duration::from_secs(3600), "it does not recover");
    }
    let took = cluster.now.instant.since(began);
    let objects = cluster.sent.objects - before.objects;
    let rest = cluster.sent.rest - before.rest;
    assert_eq!(cluster.sums(), sums, "nobody has read, and all is back");

    #[allow(clippy::cast_precision_loss)]
    let ratio = (objects + rest) as f64 / held as f64;
    println!(
        "| keys | its keys and objects, MB | moved: objects, MB | lists and requests, MB | over what was lost | simulated time | two equal nodes, bytes a round | reads from disk meanwhile |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    #[allow(clippy::cast_precision_loss)]
    let mega = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
    println!(
        "| {keys} | {} | {} | {} | {ratio:.2} | {} s | {idle} | {read} |",
        mega(held),
        mega(objects),
        mega(rest),
        took.as_secs()
    );
    assert!(ratio <= MOST_MOVED, "more moves than {MOST_MOVED} for each byte");
    assert!(idle <= MOST_IDLE && read == 0);
}

/// Bytes of all keys and encoded objects of the first node.
fn object_bytes(cluster: &mut Cluster, keys: u64) -> u64 {
    let node = cluster.node(NodeId(1));
    (0..keys)
        .map(|n| {
            let key = format!("user:{n:08}");
            let slot = gramme_ring::Slot::of(key.as_bytes()).index();
            let store = node.host.store_mut();
            let read = match store.get(slot, key.as_bytes()) {
                Ok(gramme_store::Read::Pending(job)) => store.finish_read(job.run()),
                other => other,
            };
            match read {
                Ok(gramme_store::Read::Value { value, .. }) => (key.len() + value.len()) as u64,
                other => panic!("{key}: {other:?}"),
            }
        })
        .sum()
}
