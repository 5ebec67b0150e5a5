//! A node whose store is an old copy.

use super::{Net, finish, id};
use gramme_ring::gossip::{Gossip, GossipError, Head, INCARNATION_END, Message, Record};
use gramme_ring::{Change, ClusterId, Member};

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
    net.nodes[1] = Gossip::new(id(1), 1, 5).unwrap();
    let Message::Summary { .. } = &net.nodes[1].tick(1)[0].1 else { panic!() };
    let hello = net.nodes[1].tick(1).remove(0).1;
    let heads = net.nodes[0].receive(id(1), hello).unwrap().reply.unwrap();
    let received = net.nodes[1].receive(id(0), heads).unwrap();
    assert_eq!(received.ahead_of_self, Some(ahead));
    net.nodes[1].restart(ahead.incarnation + 1).unwrap();
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
        net.nodes[1] = Gossip::new(id(1), head.incarnation, 5).unwrap();
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
        net.nodes[1].restart(head.incarnation + 1).unwrap();
        while !net.agree() {
            net.round();
        }
        assert_eq!(net.nodes[0].record(id(1)).unwrap().facts, b"elsewhere");
    }
}

/// Among many it is not left to chance who of the two is looked at, and a smaller number does not help.
#[test]
fn of_many_that_agree_the_two_that_meet_tell_of_themselves() {
    for seed in 0..20 {
        let mut net = Net::new(40, seed);
        while !net.agree() {
            net.round();
        }
        let before = net.nodes[1].record(id(1)).unwrap().head;
        net.nodes[1].restart(before.incarnation + 2).unwrap();
        while !net.agree() {
            net.round();
        }
        let head = net.nodes[1].record(id(1)).unwrap().head;
        for smaller in [0, head.incarnation - 1, head.incarnation] {
            net.nodes[1].restart(smaller).unwrap();
            assert_eq!(net.nodes[1].record(id(1)).unwrap().head, head);
        }
        // Heads like its own from a node whose summary says that they hide something.
        let heads = net.nodes[0].records().map(|(id, record)| (id, record.head)).collect();
        let digest = net.nodes[0].membership().digest();
        let heads = Message::Heads { membership: digest, commit: None, heads };
        let reply = net.nodes[1].receive(id(0), heads).unwrap().reply;
        let Some(Message::Delta { records, ask, .. }) = reply else { panic!("no answer") };
        let told: Vec<_> = records.iter().map(|(id, _)| *id).collect();
        assert!(told.contains(&id(0)) && told.contains(&id(1)) && told.len() <= 6, "{told:?}");
        assert_eq!(ask, []);
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
            let mut fresh = Gossip::new(id(node), 2, 5).unwrap();
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

/// Under such a number it would speak, and nobody could read it.
#[test]
fn an_incarnation_out_of_range_is_refused() {
    let refused = Err(GossipError::IncarnationOutOfRange);
    let mut node = Gossip::new(id(0), INCARNATION_END - 2, 1).unwrap();
    for out in [INCARNATION_END, u64::MAX] {
        assert_eq!(Gossip::new(id(0), out, 1).map(drop), refused);
        assert_eq!(node.restart(out), refused);
        assert_eq!(node.record(id(0)).unwrap().head, Head { incarnation: INCARNATION_END - 2, version: 0 });
    }
    node.restart(INCARNATION_END - 1).unwrap();
    let mut other = Gossip::new(id(1), 1, 1).unwrap();
    let record = node.record(id(0)).unwrap().clone();
    let told = Message::Delta {
        membership: None,
        records: vec![(id(0), record)],
        ask_membership: false,
        ask: vec![],
    };
    let bytes = postcard::to_allocvec(&told).unwrap();
    let received = other.receive(id(0), postcard::from_bytes(&bytes).unwrap()).unwrap();
    assert_eq!(received.records, [id(0)]);
}
