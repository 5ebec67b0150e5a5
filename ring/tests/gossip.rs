//! Views converge whatever is lost, repeated or late.

use gramme_ring::gossip::{
    Gossip, GossipError, Head, MAX_FACTS, MAX_STRANGERS, Message, Record, Target, Told,
};
use gramme_ring::{Change, ClusterId, Member, Membership, NodeId, Phase};

/// A small random source (SplitMix64), so that a seed is all that a failure needs.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((x ^ (x >> 31)) % end as u64).unwrap()
    }
}

struct Net {
    nodes: Vec<Gossip>,
    /// From, to, message.
    under_way: Vec<(usize, usize, Message)>,
    /// Bytes of the largest message yet.
    largest: usize,
}

fn id(n: usize) -> NodeId {
    NodeId(n as u64 + 1)
}

impl Net {
    /// Nodes that know one another by the first one's address only.
    fn new(count: usize, seed: u64) -> Net {
        let nodes = (0..count)
            .map(|n| {
                let mut node = Gossip::new(id(n), 1, seed.wrapping_mul(1000) + n as u64);
                node.set_facts(vec![u8::try_from(n % 256).unwrap(); n % 50]).unwrap();
                node
            })
            .collect();
        Net { nodes, under_way: Vec::new(), largest: 0 }
    }

    fn tick(&mut self, n: usize) {
        for (target, message) in self.nodes[n].tick(1) {
            let to = match target {
                Target::Node(NodeId(id)) => usize::try_from(id - 1).unwrap(),
                Target::Seed(seed) => seed,
            };
            if to != n {
                self.under_way.push((n, to, message));
            }
        }
    }

    fn deliver(&mut self, i: usize) {
        let (from, to, message) = self.under_way.swap_remove(i);
        let bytes = postcard::to_allocvec(&message).unwrap();
        self.largest = self.largest.max(bytes.len());
        let message: Message = postcard::from_bytes(&bytes).unwrap();
        let received = self.nodes[to].receive(id(from), message).unwrap();
        assert_eq!(received.ahead_of_self, None);
        if let Some(reply) = received.reply {
            self.under_way.push((to, from, reply));
        }
    }

    /// One tick of each node and all that follows; returns how many messages there were.
    fn round(&mut self) -> usize {
        for n in 0..self.nodes.len() {
            self.tick(n);
        }
        let mut messages = 0;
        while !self.under_way.is_empty() {
            messages += 1;
            self.deliver(self.under_way.len() - 1);
        }
        messages
    }

    fn agree(&self) -> bool {
        self.nodes.windows(2).all(|pair| {
            pair[0].membership() == pair[1].membership() && pair[0].records().eq(pair[1].records())
        })
    }
}

#[test]
fn any_order_any_loss() {
    for seed in 0..25 {
        let mut random = Random(seed);
        let count = 2 + random.below(7);
        let mut net = Net::new(count, seed);
        for n in 0..count {
            net.nodes[0].membership_mut().stage(id(0), Change::Member(Member::new(id(n)))).unwrap();
        }
        let hash = net.nodes[0].membership().propose().unwrap().hash();
        net.nodes[0].membership_mut().commit(ClusterId(1), hash).unwrap();
        // First everything happens: ticks, losses, repetitions, changes at every node at once.
        for _ in 0..300 {
            match random.below(12) {
                0..=3 => net.tick(random.below(count)),
                4..=7 if !net.under_way.is_empty() => net.deliver(random.below(net.under_way.len())),
                8 if !net.under_way.is_empty() => {
                    drop(net.under_way.swap_remove(random.below(net.under_way.len())))
                }
                9 if !net.under_way.is_empty() => {
                    let again = net.under_way[random.below(net.under_way.len())].clone();
                    net.under_way.push(again);
                }
                10 => {
                    let n = random.below(count);
                    net.nodes[n].set_facts(vec![u8::try_from(random.below(256)).unwrap()]).unwrap();
                }
                11 => {
                    let n = random.below(count);
                    let m = net.nodes[n].membership_mut();
                    let weight = u32::try_from(1 + random.below(5)).unwrap();
                    let _ = m.stage(
                        id(n),
                        Change::Member(Member::new(id(random.below(count))).with_weight(weight)),
                    );
                    if let Ok(proposal) = m.propose()
                        && m.cluster().is_some()
                    {
                        m.commit(ClusterId(1), proposal.hash()).unwrap();
                    }
                    let due = m.transition().and_then(|t| t.due(id(n)));
                    if let Some(phase @ Phase::Acknowledged) = due {
                        m.advance(id(n), phase).unwrap();
                    }
                }
                _ => {}
            }
        }
        // Then it is quiet.
        let mut rounds = 0;
        while !net.agree() {
            net.round();
            rounds += 1;
            assert!(rounds < 40, "seed {seed}: {count} nodes do not agree");
        }
        assert_eq!(net.nodes[0].records().count(), count);
    }
}

#[test]
fn news_reaches_all_in_a_few_rounds() {
    for count in [10, 40, 100] {
        let mut net = Net::new(count, 7);
        let mut founding = 0;
        while !net.agree() {
            net.round();
            founding += 1;
        }
        net.nodes[3].set_facts(b"news".to_vec()).unwrap();
        let mut rounds = 0;
        while !net.agree() {
            net.round();
            rounds += 1;
        }
        // Epidemics take about log2 S + ln S rounds; both directions of an exchange make it fewer.
        let bound = 4 + 2 * count.ilog2();
        assert!(rounds <= bound, "{count} nodes: {rounds} rounds");
        assert!(founding <= 3 * bound, "{count} nodes: {founding} rounds to find each other");
        // Then there is one summary for each tick, unanswered.
        let messages = net.round();
        assert!((count..=2 * count).contains(&messages));
        assert!(net.under_way.is_empty());
    }
}

/// It was sent whole for every declaration: at 200 nodes 228 kB a second from each while a transition was live.
#[test]
fn the_tables_travel_with_a_commit_only() {
    let members: Vec<Member> = (0..20).map(|n| Member::new(id(n))).collect();
    let founded = Membership::found(ClusterId(1), 3, 16384, &members).unwrap();
    let mut net = Net::new(20, 7);
    for node in &mut net.nodes {
        *node.membership_mut() = founded.clone();
    }
    let largest = |net: &mut Net, work: bool| {
        net.largest = 0;
        let mut rounds = 0;
        while !net.agree() || work && net.nodes[0].membership().transition().is_some() {
            net.round();
            for n in (0..20).filter(|_| work) {
                let m = net.nodes[n].membership_mut();
                if let Some(phase) = m.transition().and_then(|t| t.due(id(n))) {
                    m.advance(id(n), phase).unwrap();
                }
                m.settle();
            }
            rounds += 1;
            assert!(rounds < 100);
        }
        net.largest
    };
    largest(&mut net, false);
    let m = net.nodes[3].membership_mut();
    m.stage(id(3), Change::Member(Member::new(id(5)).with_weight(2))).unwrap();
    assert!(largest(&mut net, false) < 200, "for what is staged: {}", net.largest);
    let m = net.nodes[3].membership_mut();
    let hash = m.propose().unwrap().hash();
    m.commit(ClusterId(1), hash).unwrap();
    assert!(largest(&mut net, false) > 2 * 3 * 16384, "for a commit: {}", net.largest);
    // For what all declare, three times, and for the end.
    assert!(largest(&mut net, true) < 200, "for declarations: {}", net.largest);
    assert_eq!(net.nodes[0].membership().layout().unwrap().version().0, 2);
}

/// What is said of one commit is not taken for another, whatever crossed it on the way; asked back, the whole is told.
#[test]
fn progress_of_another_commit_is_left_alone() {
    let (mut a, mut b) = (pair(1), pair(2));
    a.membership_mut().stage(NodeId(1), Change::Replicas(1)).unwrap();
    let Message::Heads { membership, commit, heads } =
        b.receive(NodeId(1), a.summary()).unwrap().reply.unwrap()
    else {
        panic!()
    };
    assert_eq!(commit, a.membership().commit_hash());
    let told = a.receive(NodeId(2), Message::Heads { membership, commit, heads }).unwrap().reply.unwrap();
    assert!(matches!(
        &told,
        Message::Delta { membership: Some(Told::Progress(_)), ask_membership: true, .. }
    ));
    // Meanwhile something else is committed there.
    b.membership_mut().stage(NodeId(2), Change::Member(Member::new(NodeId(3)))).unwrap();
    let hash = b.membership().propose().unwrap().hash();
    b.membership_mut().commit(ClusterId(1), hash).unwrap();
    let before = b.membership().clone();
    let received = b.receive(NodeId(1), told).unwrap();
    assert!(!received.membership_changed && *b.membership() == before);
    let answer = received.reply.unwrap();
    assert!(matches!(&answer, Message::Delta { membership: Some(Told::All(_)), ask_membership: false, .. }));
    assert!(a.receive(NodeId(2), answer).unwrap().layout_changed);
    assert_eq!(a.membership().commit_hash(), b.membership().commit_hash());
    // And what a staged is still there to be told.
    assert_eq!(a.membership().staged(), [Change::Replicas(1)]);
    let Message::Heads { membership, commit, heads } =
        b.receive(NodeId(1), a.summary()).unwrap().reply.unwrap()
    else {
        panic!()
    };
    let told = a.receive(NodeId(2), Message::Heads { membership, commit, heads }).unwrap().reply.unwrap();
    assert!(b.receive(NodeId(1), told).unwrap().membership_changed);
    assert_eq!(a.membership(), b.membership());
}

#[test]
fn a_node_that_was_rolled_back_learns_of_it() {
    let mut net = Net::new(3, 1);
    while !net.agree() {
        net.round();
    }
    net.nodes[1].set_facts(b"new".to_vec()).unwrap();
    let ahead = net.nodes[1].record(id(1)).unwrap().head;
    while !net.agree() {
        net.round();
    }
    // Restored from an old copy: same incarnation, older version.
    net.nodes[1] = Gossip::new(id(1), 1, 5);
    let Message::Summary { .. } = &net.nodes[1].tick(1)[0].1 else { panic!() };
    let hello = net.nodes[1].tick(1).remove(0).1;
    let heads = net.nodes[0].receive(id(1), hello).unwrap().reply.unwrap();
    let received = net.nodes[1].receive(id(0), heads).unwrap();
    assert_eq!(received.ahead_of_self, Some(ahead));
    net.nodes[1].restart(ahead.incarnation + 1);
    while !net.agree() {
        net.round();
    }
    assert_eq!(net.nodes[0].record(id(1)).unwrap().head, Head { incarnation: 2, version: 0 });
}

/// What it says of itself is not what it said under the same number and version in the time that it has forgotten.
#[test]
fn a_node_that_was_rolled_back_to_an_equal_head_learns_of_it() {
    for starts in [0, 1] {
        let mut net = Net::new(3, 1);
        while !net.agree() {
            net.round();
        }
        let head = net.nodes[1].record(id(1)).unwrap().head;
        let membership = net.nodes[1].membership().clone();
        net.nodes[1] = Gossip::new(id(1), head.incarnation, 5);
        *net.nodes[1].membership_mut() = membership;
        net.nodes[1].set_facts(b"elsewhere".to_vec()).unwrap();
        // It hears of the others again, by words of theirs that are no older than its own.
        let records = [0, 2].map(|n| (id(n), net.nodes[n].record(id(n)).unwrap().clone())).to_vec();
        let told = Message::Delta { membership: None, records, ask_membership: false, ask: vec![] };
        net.nodes[1].receive(id(0), told).unwrap();
        assert_eq!(net.nodes[1].record(id(1)).unwrap().head, head);
        assert!(!net.agree());

        // Whoever of the two begins.
        let (mut from, mut to) = (starts, 1 - starts);
        let mut message = Some(net.nodes[from].summary());
        let mut learnt = None;
        while let Some(next) = message.take() {
            let received = net.nodes[to].receive(id(from), next).unwrap();
            assert!(received.ahead_of_self.is_none() || to == 1);
            learnt = learnt.or(received.ahead_of_self);
            message = received.reply;
            (from, to) = (to, from);
        }
        assert_eq!(learnt, Some(head), "{starts} begins");
        net.nodes[1].restart(head.incarnation + 1);
        while !net.agree() {
            net.round();
        }
        assert_eq!(net.nodes[0].record(id(1)).unwrap().facts, b"elsewhere");
    }
}

/// It dies before anybody tells it: the others still come to say one thing of it, and are quiet.
#[test]
fn what_a_dead_node_said_twice_is_one_thing_to_all_in_the_end() {
    for first in [b"elsewhere", b"elsewhen!"] {
        let mut net = Net::new(4, 1);
        net.nodes[1].set_facts(first.to_vec()).unwrap();
        while !net.agree() {
            net.round();
        }
        let head = net.nodes[1].record(id(1)).unwrap().head;
        let told = |facts: &[u8]| Message::Delta {
            membership: None,
            records: vec![(id(1), Record { head, facts: facts.to_vec() })],
            ask_membership: false,
            ask: vec![],
        };
        // What it says after it was rolled back reaches two of them that know nothing of it yet.
        for node in [2, 3] {
            let mut fresh = Gossip::new(id(node), 2, 5);
            *fresh.membership_mut() = net.nodes[0].membership().clone();
            fresh.receive(id(1), told(b"elsewhen?")).unwrap();
            net.nodes[node] = fresh;
        }
        let living = [0, 2, 3];
        let meet = |net: &mut Net, a: usize, b: usize| {
            let mut said = 0;
            let (mut from, mut to) = (a, b);
            let mut message = Some(net.nodes[from].summary());
            while let Some(next) = message.take() {
                said += 1;
                message = net.nodes[to].receive(id(from), next).unwrap().reply;
                (from, to) = (to, from);
            }
            said
        };
        for _ in 0..10 {
            for a in living {
                for b in living.into_iter().filter(|b| *b != a) {
                    meet(&mut net, a, b);
                }
            }
        }
        for a in living {
            assert_eq!(net.nodes[a].record(id(1)), net.nodes[0].record(id(1)));
            for b in living.into_iter().filter(|b| *b != a) {
                assert_eq!(meet(&mut net, a, b), 1, "a summary says that all is known");
            }
        }
    }
}

/// No head tells that its membership is an old copy: the digest does, whoever begins.
#[test]
fn a_membership_that_was_rolled_back_is_made_good() {
    for starts in [0, 1] {
        let mut net = Net::new(3, 1);
        while !net.agree() {
            net.round();
        }
        for step in 0..3 {
            let old = net.nodes[1].clone();
            let membership = net.nodes[0].membership_mut();
            membership.stage(id(0), Change::Member(Member::new(id(step)))).unwrap();
            match step {
                0 => {
                    let hash = membership.propose().unwrap().hash();
                    membership.commit(ClusterId(7), hash).unwrap();
                }
                1 => finish(membership),
                _ => {}
            }
            while !net.agree() {
                net.round();
            }
            net.nodes[1] = old;
            assert!(net.nodes[1].records().eq(net.nodes[0].records()), "the heads are equal");
            let hello = net.nodes[starts].summary();
            net.under_way.push((starts, 1 - starts, hello));
            while !net.under_way.is_empty() {
                net.deliver(0);
            }
            assert_eq!(net.nodes[1].membership(), net.nodes[0].membership());
        }
    }
}

#[test]
fn the_removed_are_refused_and_forgotten() {
    let mut net = Net::new(3, 1);
    for n in 0..3 {
        net.nodes[0].membership_mut().stage(id(0), Change::Member(Member::new(id(n)))).unwrap();
    }
    let m = net.nodes[0].membership_mut();
    let hash = m.propose().unwrap().hash();
    m.commit(ClusterId(1), hash).unwrap();
    while !net.agree() {
        net.round();
    }
    let m = net.nodes[0].membership_mut();
    m.stage(id(0), Change::Remove(id(2))).unwrap();
    let hash = m.propose().unwrap().hash();
    m.commit(ClusterId(1), hash).unwrap();
    while net.nodes[1].membership() != net.nodes[0].membership() {
        net.tick(0);
        net.under_way.retain(|(_, to, _)| *to == 1);
        while !net.under_way.is_empty() {
            net.deliver(0);
        }
    }
    assert!(net.nodes[1].record(id(2)).is_none());
    let hello = net.nodes[2].tick(1).remove(0).1;
    assert_eq!(net.nodes[1].receive(id(2), hello), Err(GossipError::Removed(id(2))));
    assert!((0..200).all(|_| net.nodes[1].tick(0).iter().all(|(target, _)| *target != Target::Node(id(2)))));
}

/// Found by fuzzing: who removed a node kept its record, so that no summary ever equalled another again; and who heard that
/// it was removed itself lost its own record, which it can't do without.
#[test]
fn after_a_removal_all_is_quiet() {
    let mut net = Net::new(3, 1);
    for n in 0..3 {
        net.nodes[0].membership_mut().stage(id(0), Change::Member(Member::new(id(n)))).unwrap();
    }
    let m = net.nodes[0].membership_mut();
    let hash = m.propose().unwrap().hash();
    m.commit(ClusterId(1), hash).unwrap();
    while !net.agree() {
        net.round();
    }
    let m = net.nodes[0].membership_mut();
    m.stage(id(0), Change::Remove(id(2))).unwrap();
    let hash = m.propose().unwrap().hash();
    m.commit(ClusterId(1), hash).unwrap();
    // The removed one hears of it too.
    let [remover, _, removed] = &mut net.nodes[..] else { panic!() };
    let news = Message::Delta {
        membership: Some(Told::All(Box::new(remover.membership().clone()))),
        records: vec![],
        ask_membership: true,
        ask: vec![id(2)],
    };
    assert!(removed.receive(id(0), news).unwrap().membership_changed);
    removed.set_facts(b"still here".to_vec()).unwrap();
    removed.restart(9);
    assert_eq!(removed.record(id(2)).unwrap().head, Head { incarnation: 9, version: 0 });
    assert!(removed.tick(1).len() <= 2);

    net.nodes.pop();
    while !net.agree() {
        for n in 0..2 {
            net.tick(n);
            while let Some(i) = net.under_way.len().checked_sub(1) {
                net.deliver(i);
            }
        }
    }
    for n in 0..2 {
        net.tick(n);
        let messages = net.under_way.len();
        for i in (0..messages).rev() {
            net.deliver(i);
        }
        assert!(net.under_way.is_empty(), "a summary was answered");
    }
}

#[test]
fn parts_of_a_split_ring_find_each_other() {
    let mut net = Net::new(4, 3);
    // Two know each other; so do the other two, among whom is the seed.
    for (a, b) in [(0, 1), (2, 3)] {
        let summary = Message::Summary { membership: 1, records: 1 };
        net.under_way.push((a, b, summary));
        while !net.under_way.is_empty() {
            net.deliver(0);
        }
    }
    assert!(net.nodes.iter().all(|node| node.records().count() == 2));
    for _ in 0..40 {
        net.round();
    }
    assert!(net.agree());
    assert_eq!(net.nodes[0].records().count(), 4);
}

#[test]
fn floods_are_bounded() {
    let mut node = Gossip::new(id(0), 1, 1);
    assert_eq!(node.set_facts(vec![0; MAX_FACTS + 1]), Err(GossipError::FactsTooLong));
    let record = |len| Record { head: Head { incarnation: 1, version: 1 }, facts: vec![0; len] };
    let delta = |records| Message::Delta { membership: None, records, ask_membership: false, ask: vec![] };
    let long = delta(vec![(id(5), record(MAX_FACTS + 1))]);
    assert_eq!(node.receive(id(1), long), Err(GossipError::FactsTooLong));
    let many: Vec<_> = (1..2000).map(|n| (id(n), record(MAX_FACTS))).collect();
    node.receive(id(1), delta(many)).unwrap();
    assert_eq!(node.records().count(), 1 + MAX_STRANGERS);
    // What is asked for comes in parts.
    let ask = Message::Delta {
        membership: None,
        records: vec![],
        ask_membership: false,
        ask: (0..2000).map(id).collect(),
    };
    let Some(Message::Delta { records, .. }) = node.receive(id(1), ask).unwrap().reply else { panic!() };
    assert!(records.len() < 64 && !records.is_empty());
    // All have their turn.
    let mut told = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let ask = (0..2000).map(id).collect();
        let ask = Message::Delta { membership: None, records: vec![], ask_membership: false, ask };
        let Some(Message::Delta { records, .. }) = node.receive(id(1), ask).unwrap().reply else { panic!() };
        told.extend(records.into_iter().map(|(id, _)| id));
    }
    assert_eq!(told.len(), 1 + MAX_STRANGERS);
    // Who has heard something newer is not told the older.
    let newer = (0..2000).map(|n| (id(n), Head { incarnation: 1, version: 2 })).collect();
    let heads = Message::Heads { membership: node.membership().digest(), commit: None, heads: newer };
    let Some(Message::Delta { records, ask, .. }) = node.receive(id(1), heads).unwrap().reply else {
        panic!()
    };
    assert!(records.is_empty() && ask.len() >= MAX_STRANGERS);
}

fn pair(n: u64) -> Gossip {
    let mut node = Gossip::new(NodeId(n), 1, n);
    *node.membership_mut() =
        Membership::found(ClusterId(1), 3, 16, &[Member::new(NodeId(1)), Member::new(NodeId(2))]).unwrap();
    node
}

fn said_by(ids: impl Iterator<Item = u64>) -> Message {
    let record = Record { head: Head { incarnation: 1, version: 1 }, facts: vec![1; 20] };
    let records = ids.map(|id| (NodeId(id), record.clone())).collect();
    Message::Delta { membership: None, records, ask_membership: false, ask: vec![] }
}

fn finish(m: &mut Membership) {
    let hash = m.propose().unwrap().hash();
    m.commit(ClusterId(1), hash).unwrap();
    for phase in [Phase::Acknowledged, Phase::Synced, Phase::Moved] {
        for id in m.transition().unwrap().participants() {
            m.advance(id, phase).unwrap();
        }
    }
    assert!(m.settle());
}

/// Of a thousand ticks 997 went to nodes that had left, and a newcomer's record found no room.
#[test]
fn who_left_is_forgotten() {
    let mut node = pair(1);
    for n in 10..310 {
        node.membership_mut().stage(NodeId(1), Change::Member(Member::new(NodeId(n)))).unwrap();
        finish(node.membership_mut());
        node.receive(NodeId(n), said_by(n..n + 1)).unwrap();
        assert!(node.record(NodeId(n)).is_some());
        node.membership_mut().stage(NodeId(1), Change::Leave(NodeId(n))).unwrap();
        finish(node.membership_mut());
    }
    for _ in 0..1000 {
        assert!(node.tick(0).iter().all(|(target, _)| *target == Target::Node(NodeId(2))));
    }
    assert_eq!(node.records().count(), 1);
    // Nor is it heard of again, unless it asks to return.
    assert_eq!(node.receive(NodeId(2), said_by(10..11)).unwrap().records, []);
    node.membership_mut().stage(NodeId(10), Change::Member(Member::new(NodeId(10)))).unwrap();
    assert_eq!(node.receive(NodeId(2), said_by(10..11)).unwrap().records, [NodeId(10)]);
    assert_eq!(node.receive(NodeId(999), said_by(999..1000)).unwrap().records, [NodeId(999)]);
}

/// Each kept the first that it heard of, so that their summaries differed for ever.
#[test]
fn too_many_strangers_are_the_same_at_all_and_quiet() {
    let (mut a, mut b) = (pair(1), pair(2));
    a.receive(NodeId(3), said_by(2000..2200)).unwrap();
    b.receive(NodeId(3), said_by(1000..1200)).unwrap();
    // One of those with large ids asks to join.
    a.membership_mut().stage(NodeId(2199), Change::Member(Member::new(NodeId(2199)))).unwrap();
    let exchange = |a: &mut Gossip, b: &mut Gossip| {
        let (mut message, mut count) = (Some(a.summary()), 0);
        while let Some(said) = message.take() {
            count += 1;
            let (from, to) = if count % 2 == 1 { (NodeId(1), &mut *b) } else { (NodeId(2), &mut *a) };
            message = to.receive(from, said).unwrap().reply;
        }
        count
    };
    let mut rounds = 0;
    while exchange(&mut a, &mut b) > 1 {
        rounds += 1;
        assert!(rounds < 10, "never quiet");
    }
    assert!(a.records().filter(|(id, _)| id.0 > 2).eq(b.records().filter(|(id, _)| id.0 > 2)));
    let kept: Vec<u64> = a.records().map(|(id, _)| id.0).filter(|&id| id > 2).collect();
    assert!(kept.iter().copied().eq((1000..1200).chain(2000..2055).chain([2199])));
}
