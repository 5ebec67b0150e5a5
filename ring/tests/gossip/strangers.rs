//! The removed, those who left, strangers and floods.

use super::{Net, finish, id, pair};
use gramme_ring::gossip::{
    Gossip, GossipError, Head, INCARNATION_END, MAX_DELTA, MAX_FACTS, MAX_STRANGERS, Message, Record, Target,
    Told,
};
use gramme_ring::membership::MAX_KNOWN_NODES;
use gramme_ring::{Change, ClusterId, Member, Membership, NodeId, Phase};

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
    removed.restart(9).unwrap();
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
fn floods_are_bounded() {
    let mut node = Gossip::new(id(0), 1, 1).unwrap();
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

/// However little each says of itself.
#[test]
fn records_without_facts_take_room_too() {
    let mut node = Gossip::new(NodeId(1), 1, 1).unwrap();
    let most = MAX_DELTA as u64 / 32;
    let members: Vec<Member> = (1..=2 * most).map(|id| Member::new(NodeId(id))).collect();
    *node.membership_mut() = Membership::found(ClusterId(1), 1, 16, &members).unwrap();
    let head = Head { incarnation: INCARNATION_END >> 2, version: u64::MAX };
    let records = members.iter().map(|m| (m.id, Record { head, facts: vec![] })).collect();
    let told = Message::Delta { membership: None, records, ask_membership: false, ask: vec![] };
    node.receive(NodeId(2), told).unwrap();
    let ask = members.iter().map(|m| m.id).collect();
    let ask = Message::Delta { membership: None, records: vec![], ask_membership: false, ask };
    let reply = node.receive(NodeId(2), ask).unwrap().reply.unwrap();
    let bytes = postcard::to_allocvec(&reply).unwrap().len();
    assert!((MAX_DELTA / 2..=MAX_DELTA).contains(&bytes), "{bytes}");
}

/// A record that would be dropped again is not asked for.
#[test]
fn with_all_places_taken_only_who_comes_before_is_asked_for() {
    let mut node = pair(1);
    node.receive(NodeId(2), said_by(1000..1000 + MAX_STRANGERS as u64)).unwrap();
    let asked = |node: &mut Gossip, stranger| {
        let mut heads: Vec<_> = node.records().map(|(id, record)| (id, record.head)).collect();
        heads.push((NodeId(stranger), Head { incarnation: 1, version: 1 }));
        let digest = node.membership().digest();
        let heads = Message::Heads { membership: digest, commit: None, heads };
        match node.receive(NodeId(2), heads).unwrap().reply {
            Some(Message::Delta { ask, .. }) => ask,
            other => {
                assert_eq!(other, None);
                vec![]
            }
        }
    };
    assert_eq!(asked(&mut node, 5000), []);
    assert_eq!(asked(&mut node, 999), [NodeId(999)]);
}

/// Nor do they have to be decoded: whoever makes one up is told the same.
#[test]
fn messages_that_no_node_sends_are_refused() {
    let mut node = pair(1);
    node.receive(id(1), said_by(500..600)).unwrap();
    let before = node.clone();
    let head = |incarnation| Head { incarnation, version: 1 };
    let heads = |heads| Message::Heads { membership: 0, commit: None, heads };
    let delta = |records: Vec<(NodeId, Head)>, ask| {
        let records =
            records.into_iter().map(|(id, head)| (id, Record { head, facts: vec![2; 20] })).collect();
        Message::Delta { membership: None, records, ask_membership: true, ask }
    };
    let twice = vec![(id(7), head(1)), (id(8), head(1)), (id(7), head(2))];
    let out = vec![(id(7), head(1)), (id(8), head(INCARNATION_END))];
    // As many as are looked at, in an order that takes longest.
    let most = MAX_KNOWN_NODES + MAX_STRANGERS;
    let backwards: Vec<_> = (1..most).rev().chain([1]).map(|n| (id(n), head(1))).collect();
    let more = [&backwards[..], &backwards[..1]].concat();
    let ids = |heads: &[(NodeId, Head)]| heads.iter().map(|(id, _)| *id).collect::<Vec<_>>();
    for (message, error) in [
        (heads(twice.clone()), GossipError::Repeated),
        (delta(twice.clone(), vec![]), GossipError::Repeated),
        (delta(vec![], ids(&twice)), GossipError::Repeated),
        (heads(out.clone()), GossipError::IncarnationOutOfRange),
        (delta(out, vec![]), GossipError::IncarnationOutOfRange),
        (delta(vec![], ids(&backwards)), GossipError::Repeated),
        (heads(backwards), GossipError::Repeated),
        (delta(vec![], ids(&more)), GossipError::TooMany),
        (heads(more), GossipError::TooMany),
    ] {
        assert_eq!(node.receive(id(1), message), Err(error));
        assert!(node.membership() == before.membership() && node.records().eq(before.records()));
    }
}

fn said_by(ids: impl Iterator<Item = u64>) -> Message {
    let record = Record { head: Head { incarnation: 1, version: 1 }, facts: vec![1; 20] };
    let records = ids.map(|id| (NodeId(id), record.clone())).collect();
    Message::Delta { membership: None, records, ask_membership: false, ask: vec![] }
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

/// Who leaves takes part until all have moved, and its address is needed as long.
#[test]
fn a_leaving_node_is_heard_until_the_transition_has_ended() {
    let mut node = pair(1);
    node.receive(NodeId(2), said_by(2..3)).unwrap();
    let m = node.membership_mut();
    m.stage(NodeId(1), Change::Leave(NodeId(2))).unwrap();
    m.commit(ClusterId(1), m.propose().unwrap().hash()).unwrap();
    for phase in [Phase::Acknowledged, Phase::Synced, Phase::Moved] {
        node.tick(0);
        assert!(node.record(NodeId(2)).is_some(), "{phase:?}");
        for id in [1, 2] {
            node.membership_mut().advance(NodeId(id), phase).unwrap();
        }
    }
    assert!(node.membership_mut().settle());
    node.tick(0);
    assert!(node.record(NodeId(2)).is_none());
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
