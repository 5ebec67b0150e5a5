//! What gossip and failure detection cost and promise as clusters grow, by the very code that the server runs, in virtual time.
//!
//! `cargo run --release -p gramme-sim --example scale` prints the tables of `docs/SCALE.md`. From a fixed seed: it prints the same
//! each time.

use bytes::Bytes;
use gramme_quorum::message::Message;
use gramme_quorum::{Duration, FailureDetector, Instant, Run, Timing, wire};
use gramme_ring::gossip::{Gossip, Message as Gossiped, Target};
use gramme_ring::{Change, ClusterId, Layout, Member, Membership, NodeId};
use gramme_sim::rng::Rng;
use gramme_vclock::Actor;
use std::collections::BTreeMap;

/// Between two nodes, one way.
const DELAY_MICROS: u64 = 500;
const PARTITIONS: u32 = 16_384;

fn main() {
    println!("## Gossip: one peer a second\n");
    println!(
        "| nodes | idle, bytes/s sent by a node | a node's facts change: all know after, mean / worst of {TRIALS} | bytes per node for it | a change of the layout: \
         all know after | bytes per node for it |"
    );
    println!("|---|---|---|---|---|---|");
    for nodes in [10, 30, 100, 300, 1000] {
        gossip(nodes);
    }
    println!("\n## Failure detection: a heartbeat every quarter of a second to each peer\n");
    println!(
        "| network | heartbeats observed | false suspicions of one peer, per hour | of any of 999 peers, per hour | a dead peer is suspected \
         after, mean / worst |"
    );
    println!("|---|---|---|---|---|");
    for network in [
        Network { name: "1 % lost", lost: 0.01, pauses: 0.0 },
        Network { name: "10 % lost", lost: 0.1, pauses: 0.0 },
        Network { name: "30 % lost", lost: 0.3, pauses: 0.0 },
        Network {
            name: "1 % lost; each peer stands still once a minute, up to 1 s",
            lost: 0.01,
            pauses: 1.0,
        },
        Network {
            name: "1 % lost; each peer stands still once a minute, up to 3 s",
            lost: 0.01,
            pauses: 3.0,
        },
    ] {
        detection(&network);
    }
    println!("\n## Heartbeats\n");
    println!("| nodes | bytes/s sent by a node that has nothing else to say |");
    println!("|---|---|");
    let mut beat = Vec::new();
    let run = Run { number: 300, actor: Actor(u64::MAX / 3) };
    wire::encode(
        &Message::Heartbeat {
            run,
            mark: 1_000_000,
            at: Instant(86_400_000_000_000),
            wall_ms: 1_700_000_000_000,
        },
        &mut beat,
    );
    let per_second = 1_000_000 / u64::try_from(Timing::default().heartbeat.as_micros()).expect("short");
    for nodes in [10, 100, 1000] {
        println!("| {nodes} | {} |", (nodes - 1) * per_second * beat.len() as u64);
    }
}

const TRIALS: u64 = 10;

struct Cluster {
    nodes: Vec<Gossip>,
    /// When each node gossips next, and what arrives when: by time in microseconds and order.
    events: BTreeMap<(u64, u64), Event>,
    order: u64,
    now: u64,
    sent: u64,
}

enum Event {
    Tick(usize),
    Arrives { from: NodeId, to: NodeId, message: Gossiped },
}

impl Cluster {
    fn new(nodes: u64, rng: &mut Rng) -> Cluster {
        let members: Vec<Member> = (0..nodes).map(|node| Member::new(id(node))).collect();
        let founded = Membership::found(ClusterId(1), 3, PARTITIONS, &members).expect("a plain cluster");
        let mut cluster = Cluster { nodes: Vec::new(), events: BTreeMap::new(), order: 0, now: 0, sent: 0 };
        for node in 0..nodes {
            let mut gossip = Gossip::new(id(node), 1, rng.bits()).expect("a small incarnation");
            *gossip.membership_mut() = founded.clone();
            gossip.set_facts(vec![b'f'; 100]).expect("short");
            cluster.nodes.push(gossip);
            cluster.push(rng.below(1_000_000), Event::Tick(index(id(node))));
        }
        // Everybody has heard of everybody.
        let records: Vec<_> = cluster
            .nodes
            .iter()
            .map(|node| node.records().next().map(|(id, r)| (id, r.clone())).expect("its own"))
            .collect();
        for node in &mut cluster.nodes {
            let delta = Gossiped::Delta {
                membership: None,
                records: records.clone(),
                ask_membership: false,
                ask: Vec::new(),
            };
            node.receive(id(0), delta).expect("all of them members");
        }
        cluster
    }

    fn push(&mut self, after: u64, event: Event) {
        self.order += 1;
        self.events.insert((self.now + after, self.order), event);
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: Gossiped) {
        let mut bytes = Vec::new();
        wire::encode(&Message::Gossip(message.clone()), &mut bytes);
        self.sent += bytes.len() as u64;
        self.push(DELAY_MICROS, Event::Arrives { from, to, message });
    }

    /// Goes on until `done` or for so many microseconds; how many went by.
    fn run(&mut self, micros: u64, mut done: impl FnMut(&[Gossip], usize) -> bool) -> u64 {
        let began = self.now;
        while let Some(((at, _), event)) = self.events.pop_first() {
            self.now = at;
            if at - began >= micros {
                self.push(0, event);
                return micros;
            }
            match event {
                Event::Tick(node) => {
                    self.push(1_000_000, Event::Tick(node));
                    let from = id(node as u64);
                    for (target, message) in self.nodes[node].tick(0) {
                        if let Target::Node(to) = target {
                            self.send(from, to, message);
                        }
                    }
                }
                Event::Arrives { from, to, message } => {
                    let at = index(to);
                    let received = self.nodes[at].receive(from, message).expect("honest peers");
                    let news = received.membership_changed || !received.records.is_empty();
                    if let Some(reply) = received.reply {
                        self.send(to, from, reply);
                    }
                    if news && done(&self.nodes, at) {
                        return self.now - began;
                    }
                }
            }
        }
        micros
    }
}

/// Identities are random 64-bit numbers in a cluster, and as long on the wire; a fixed scramble stands for them.
const SCRAMBLE: u64 = 0x9e37_79b9_7f4a_7c15;
const UNSCRAMBLE: u64 = 0xf1de_83e1_9937_733d;

fn id(node: u64) -> NodeId {
    NodeId((node + 1).wrapping_mul(SCRAMBLE))
}

fn index(id: NodeId) -> usize {
    usize::try_from(id.0.wrapping_mul(UNSCRAMBLE) - 1).expect("few")
}

#[allow(clippy::cast_precision_loss)]
fn gossip(nodes: u64) {
    let mut rng = Rng::new(nodes);
    let mut cluster = Cluster::new(nodes, &mut rng);
    cluster.run(20_000_000, |_, _| false);
    let idle = cluster.sent as f64 / 20.0 / nodes as f64;

    let (mut spent, mut times) = (0.0, Vec::new());
    for trial in 0..TRIALS {
        let teller = index(id(rng.below(nodes)));
        let facts = Bytes::from(format!("facts {trial} of a hundred bytes or so: {:060}", trial)).to_vec();
        cluster.nodes[teller].set_facts(facts).expect("short");
        let version = cluster.nodes[teller].record(id(teller as u64)).expect("its own").head.version;
        let (before, mut know) = (cluster.sent, vec![false; cluster.nodes.len()]);
        know[teller] = true;
        let took = cluster.run(600_000_000, |all, at| {
            know[at] |=
                all[at].record(id(teller as u64)).is_some_and(|record| record.head.version == version);
            know.iter().all(|knows| *knows)
        });
        let took = took as f64 / 1e6;
        times.push(took);
        spent += ((cluster.sent - before) as f64 / nodes as f64 - idle * took).max(0.0);
    }
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    let worst = times.iter().copied().fold(0.0, f64::max);

    // The first node counts double from now on.
    let before = cluster.sent;
    let heavier = Member { weight: 2, ..Member::new(id(0)) };
    let membership = cluster.nodes[0].membership_mut();
    membership.stage(id(0), Change::Member(heavier)).expect("a member");
    let hash = membership.propose().expect("it is staged").hash();
    membership.commit(ClusterId(1), hash).expect("nobody else commits");
    let version = |gossip: &Gossip| gossip.membership().layout().map(Layout::version);
    let (committed, mut know) = (version(&cluster.nodes[0]), vec![false; cluster.nodes.len()]);
    know[0] = true;
    let took = cluster.run(600_000_000, |all, at| {
        know[at] |= version(&all[at]) == committed;
        know.iter().all(|knows| *knows)
    });
    let took = took as f64 / 1e6;
    let layout = (cluster.sent - before) as f64 / nodes as f64 - idle * took;
    println!(
        "| {nodes} | {idle:.0} | {mean:.1} / {worst:.1} s | {:.0} | {took:.1} s | {layout:.0} |",
        spent / TRIALS as f64
    );
}

struct Network {
    name: &'static str,
    /// The chance of a heartbeat to be lost.
    lost: f64,
    /// Once a minute the peer stands still, for up to so many seconds.
    pauses: f64,
}

/// One observer and its peers: detectors know nothing of each other, so pairs stand for a cluster.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn detection(network: &Network) {
    const PEERS: u64 = 999;
    const MINUTES: u64 = 20;
    let beat = Timing::default().heartbeat.as_micros() as u64;
    let chance = |rng: &mut Rng| rng.below(1_000_000) as f64 / 1e6;
    let mut rng = Rng::new(1);
    let (mut wrong, mut beats, mut silences) = (0u64, 0u64, Vec::new());
    for _ in 0..PEERS {
        let mut detector = FailureDetector::new(Duration::from_micros(beat), Instant(0));
        let mut at = rng.below(beat);
        let mut next_pause = rng.below(60_000_000);
        while at < MINUTES * 60_000_000 {
            at += beat;
            if network.pauses > 0.0 && at >= next_pause {
                at += (network.pauses * 1e6 * chance(&mut rng)) as u64;
                next_pause += 60_000_000;
            }
            if chance(&mut rng) < network.lost {
                continue;
            }
            // Most come at once, some stand in a queue.
            let delay = DELAY_MICROS as f64 * (1.0 - (1.0 - chance(&mut rng)).ln());
            let heard = Instant((at + delay as u64) * 1000);
            beats += 1;
            // Silence only grows, so that the moment before the end of it tells whether there was suspicion.
            wrong += u64::from(detector.suspects(heard));
            detector.heard(heard);
        }
        // And then it dies.
        let last = Instant(at * 1000);
        let mut silent = Duration::ZERO;
        while !detector.suspects(last + silent) {
            silent += Duration::from_millis(10);
        }
        silences.push(silent.as_secs_f64());
    }
    let hours = PEERS as f64 * MINUTES as f64 / 60.0;
    let of_one = wrong as f64 / hours;
    let mean = silences.iter().sum::<f64>() / silences.len() as f64;
    let worst = silences.iter().copied().fold(0.0, f64::max);
    println!(
        "| {} | {beats} | {of_one:.4} | {:.1} | {mean:.1} / {worst:.1} s |",
        network.name,
        of_one * PEERS as f64
    );
}
