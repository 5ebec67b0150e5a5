//! A schedule for a few gossiping nodes, some messages of which are made up.

use crate::source::Source;
use gramme_ring::gossip::{Gossip, HEARSAY_END, MAX_FACTS, MAX_STRANGERS, Message, Target, Told};
use gramme_ring::{Change, ClusterId, Member, Membership, NodeId};
use std::collections::BTreeSet;

/// Messages under way at once; further ones are lost.
const UNDER_WAY: usize = 64;

struct Net {
    nodes: Vec<Gossip>,
    /// From, to, message.
    under_way: Vec<(usize, usize, Message)>,
}

fn id(n: usize) -> NodeId {
    NodeId(n as u64 + 1)
}

/// Ticks, deliveries, losses, repetitions, changes and made-up messages; then quiet.
///
/// # Panics
/// If a refused message changes something, a bound is passed, or the nodes do not agree in the end.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let count = 2 + source.below(4);
    let mut seed = |n| n as u64 + u64::from(source.byte());
    let node = |n| Gossip::new(id(n), 1, seed(n)).expect("a small incarnation");
    let nodes = (0..count).map(node).collect();
    let mut net = Net { nodes, under_way: Vec::new() };
    *net.nodes[0].membership_mut() = crate::ring_membership_decode::founded(ClusterId(1));
    while !source.is_empty() {
        let n = source.below(count);
        match source.below(8) {
            0 | 1 => net.tick(n),
            2 | 3 if !net.under_way.is_empty() => {
                let (from, to, message) = net.under_way.swap_remove(source.below(net.under_way.len()));
                net.deliver(from, to, message);
            }
            4 if !net.under_way.is_empty() => {
                let (from, to, message) = net.under_way[source.below(net.under_way.len())].clone();
                net.deliver(from, to, message);
            }
            5 => {
                let facts = vec![source.byte(); usize::from(source.u16() % 1100)];
                assert_eq!(net.nodes[n].set_facts(facts.clone()).is_ok(), facts.len() <= MAX_FACTS);
            }
            6 => change(net.nodes[n].membership_mut(), id(n), &mut source),
            7 => {
                let len = usize::from(source.byte());
                let bytes = source.bytes(len);
                let read = || postcard::from_bytes::<Message>(bytes);
                if let Ok(message) = crate::meter::within(16_384 + 64 * bytes.len(), read) {
                    assert!(!says_twice(&message), "read, and a node stands twice in a list");
                    if !makes_up_a_commit(&message) {
                        net.deliver(99, n, message.clone());
                        net.deliver(99, n, with_the_first_again(message));
                    }
                }
            }
            // A change from nowhere, under any stamp that can be read.
            _ => {
                let stamp = u64::from(source.u16()) << source.below(48);
                let state = staged(stamp, source.byte().max(1));
                if let Ok(state) = postcard::from_bytes::<Membership>(&state) {
                    let membership = Some(Told::All(Box::new(state)));
                    net.deliver(
                        99,
                        n,
                        Message::Delta { membership, records: vec![], ask_membership: true, ask: vec![] },
                    );
                }
            }
        }
    }
    net.under_way.clear();
    // A record of a node that was made up as newer than its own is waited for in vain, so the nodes restart.
    for _ in 0..40 {
        for n in 0..count {
            net.tick(n);
            while let Some((from, to, message)) = net.under_way.pop() {
                net.deliver(from, to, message);
            }
        }
    }
    // Who had to come back with more than others are believed to know tells it itself.
    for n in 0..count {
        if net.nodes[n].record(id(n)).expect("its own").head.incarnation >= HEARSAY_END {
            for to in (0..count).filter(|&to| to != n) {
                let summary = net.nodes[n].summary();
                net.send(n, to, summary);
                while let Some((from, to, message)) = net.under_way.pop() {
                    net.deliver(from, to, message);
                }
            }
        }
    }
    // Those agree whom all take for members: a stranger's commit waits until the live one has ended, and who left keeps a
    // record of itself that nobody else keeps.
    let told = |node: &Gossip, n: usize| {
        let m = node.membership();
        let mut layouts = m.layout().into_iter().chain(m.transition().map(|t| t.from()));
        !m.is_removed(id(n)) && (m.layout().is_none() || layouts.any(|l| l.is_member(id(n))))
    };
    let rest: Vec<&Gossip> =
        (0..count).filter(|&n| net.nodes.iter().all(|node| told(node, n))).map(|n| &net.nodes[n]).collect();
    for pair in rest.windows(2) {
        assert!(pair[0].membership() == pair[1].membership(), "they do not agree on the cluster");
        let records = |node: &Gossip| node.records().map(|(id, r)| (id, r.clone())).collect::<Vec<_>>();
        assert_eq!(records(pair[0]), records(pair[1]), "they do not agree on the records");
    }
}

impl Net {
    fn tick(&mut self, n: usize) {
        for (target, message) in self.nodes[n].tick(1) {
            let to = match target {
                Target::Node(NodeId(id)) => usize::try_from(id.wrapping_sub(1)).unwrap_or(usize::MAX),
                Target::Seed(seed) => seed,
            };
            self.send(n, to, message);
        }
    }

    /// To oneself, and to nodes that were made up, nothing arrives.
    fn send(&mut self, from: usize, to: usize, message: Message) {
        if from != to && to < self.nodes.len() && self.under_way.len() < UNDER_WAY {
            self.under_way.push((from, to, message));
        }
    }

    fn deliver(&mut self, from: usize, to: usize, message: Message) {
        let node = &mut self.nodes[to];
        let doubtful = says_twice(&message);
        let before =
            (node.membership().clone(), node.records().map(|(id, r)| (id, r.clone())).collect::<Vec<_>>());
        let received = match node.receive(id(from), message) {
            Ok(received) => received,
            Err(error) => {
                let records = node.records().map(|(id, r)| (id, r.clone())).collect::<Vec<_>>();
                assert!(before == (node.membership().clone(), records), "{error}, and changed all the same");
                return;
            }
        };
        assert!(!doubtful, "something was said twice of one node");
        assert_eq!(received.membership_changed, before.0 != *node.membership());
        let members = node.membership().layout().map_or(0, |l| l.members().len());
        assert!(node.records().count() <= 1 + 2 * members.max(5) + MAX_STRANGERS);
        if let Some(head) = received.ahead_of_self {
            node.restart(head.incarnation + 1).expect("there is a larger one");
        }
        if let Some(reply) = received.reply {
            self.send(to, from, reply);
        }
    }
}

/// A made-up commit would be believed, and part the nodes that it gives up from the others; nobody who knows the cluster's secret sends one.
fn makes_up_a_commit(message: &Message) -> bool {
    match message {
        Message::Delta { membership: Some(Told::All(state)), .. } => state.cluster().is_some(),
        _ => false,
    }
}

/// N, staged under this stamp by who knows of nothing else.
fn staged(stamp: u64, replicas: u8) -> Vec<u8> {
    let n = Some((stamp, 100_u64, replicas));
    let state: (Option<u8>, Option<_>, Option<u8>, [u8; 2], [u8; 1]) = (None, n, None, [0; 2], [0]);
    postcard::to_allocvec(&state).expect("an encoding")
}

/// Whether a node stands twice in a list.
fn says_twice(message: &Message) -> bool {
    let twice = |ids: Vec<NodeId>| ids.iter().collect::<BTreeSet<_>>().len() < ids.len();
    match message {
        Message::Heads { heads, .. } => twice(heads.iter().map(|(id, _)| *id).collect()),
        Message::Delta { records, ask, .. } => {
            twice(records.iter().map(|(id, _)| *id).collect()) || twice(ask.clone())
        }
        _ => false,
    }
}

/// The same, where each list ends with what it began with.
fn with_the_first_again(mut message: Message) -> Message {
    match &mut message {
        Message::Heads { heads, .. } => heads.extend(heads.first().copied()),
        Message::Delta { records, ask, .. } => {
            records.extend(records.first().cloned());
            ask.extend(ask.first().copied());
        }
        _ => {}
    }
    message
}

fn change(m: &mut gramme_ring::Membership, me: NodeId, source: &mut Source<'_>) {
    let node = id(source.below(6));
    match source.below(6) {
        0 => drop(m.stage(me, Change::Member(Member::new(node).with_weight(u32::from(source.byte()))))),
        1 => drop(m.stage(me, Change::Leave(node))),
        2 => drop(m.stage(me, Change::Remove(node))),
        3 => {
            // Only those founded know a cluster; another would never mix with it.
            if m.cluster().is_some()
                && let Ok(proposal) = m.propose()
            {
                m.commit(ClusterId(1), proposal.hash()).expect("as proposed");
            }
        }
        4 => {
            let due = m.transition().and_then(|t| Some((me, t.due(me)?)));
            if let Some((me, phase)) = due {
                m.advance(me, phase).expect("it is due");
            }
            m.settle();
        }
        _ => drop(m.remove_during_transition(node)),
    }
}
