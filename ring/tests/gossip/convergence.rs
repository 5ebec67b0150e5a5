//! News reaches everybody, and then it is quiet.

use super::{Net, Random, id, pair};
use gramme_ring::gossip::{Gossip, Message, Target, Told};
use gramme_ring::{Change, ClusterId, Member, Membership, NodeId, Phase};

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

/// One tick in P + 1 goes to a seed as well; where no peer is known, each.
#[test]
fn seeds_are_asked_now_and_then() {
    let mut node = pair(1);
    let members: Vec<Member> = (1..=10).map(|id| Member::new(NodeId(id))).collect();
    let asked = |node: &mut Gossip, seeds| {
        let ticks = (0..10_000).map(|_| node.tick(seeds));
        let targets = ticks.flat_map(|sent| sent.into_iter().map(|(target, _)| target)).collect::<Vec<_>>();
        targets.into_iter().partition::<Vec<_>, _>(|target| matches!(target, Target::Node(_)))
    };
    *node.membership_mut() = Membership::found(ClusterId(1), 3, 16, &members).unwrap();
    let (peers, seeds) = asked(&mut node, 3);
    assert_eq!(peers.len(), 10_000);
    assert!((800..1200).contains(&seeds.len()), "{} of 10,000", seeds.len());
    for seed in 0..3 {
        assert!(seeds.iter().filter(|target| **target == Target::Seed(seed)).count() > 200);
    }
    assert_eq!(asked(&mut node, 0).1, []);
    // The seeds together count as one more peer.
    let (peers, seeds) = asked(&mut pair(1), 3);
    assert_eq!(peers.len(), 10_000);
    assert!((4_500..5_500).contains(&seeds.len()), "{} of 10,000", seeds.len());
    let (peers, seeds) = asked(&mut Gossip::new(NodeId(1), 1, 1).unwrap(), 3);
    assert_eq!((peers.len(), seeds.len()), (0, 10_000));
}

/// Else each call would be news to all.
#[test]
fn the_same_facts_are_no_news() {
    let mut node = pair(1);
    node.set_facts(vec![1]).unwrap();
    let before = (node.record(NodeId(1)).unwrap().clone(), node.summary());
    node.set_facts(vec![1]).unwrap();
    assert_eq!((node.record(NodeId(1)).unwrap().clone(), node.summary()), before);
    node.set_facts(vec![2]).unwrap();
    assert_eq!(node.record(NodeId(1)).unwrap().head.version, before.0.head.version + 1);
}
