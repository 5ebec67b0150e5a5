//! What a liar says may be believed; it parts nobody from the others, and nobody is locked out by it.

use super::{finish, id};
use gramme_ring::gossip::{Gossip, GossipError, HEARSAY_END, Head, INCARNATION_END, Message, Record, Told};
use gramme_ring::membership::MergeError;
use gramme_ring::{Change, ClusterId, LayoutVersion, Member, Membership, NodeId};
use serde_json::json;

const LIAR: NodeId = NodeId(99);

fn founded() -> Membership {
    Membership::found(ClusterId(1), 2, 16, &[0, 1, 2].map(|n| Member::new(id(n)))).unwrap()
}

fn nodes() -> Vec<Gossip> {
    let node = |n| {
        let mut node = Gossip::new(id(n), 1, n as u64).unwrap();
        *node.membership_mut() = founded();
        node
    };
    (0..3).map(node).collect()
}

/// From a summary until both are quiet.
fn meet(nodes: &mut [Gossip], a: usize, b: usize) {
    let (mut from, mut to) = (a, b);
    let mut message = Some(nodes[a].summary());
    while let Some(next) = message.take() {
        let received = nodes[to].receive(id(from), next).unwrap();
        if let Some(ahead) = received.ahead_of_self {
            nodes[to].restart(ahead.incarnation + 1).unwrap();
        }
        message = received.reply;
        (from, to) = (to, from);
    }
}

fn all_meet(nodes: &mut [Gossip]) {
    for _ in 0..4 {
        for (a, b) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
            meet(nodes, a, b);
        }
    }
    for pair in nodes.windows(2) {
        assert!(pair[0].membership() == pair[1].membership() && pair[0].records().eq(pair[1].records()));
    }
}

fn told(membership: Membership, records: Vec<(NodeId, Record)>) -> Message {
    let membership = Some(Told::All(Box::new(membership)));
    Message::Delta { membership, records, ask_membership: false, ask: vec![] }
}

fn record(incarnation: u64, facts: &[u8]) -> Record {
    Record { head: Head { incarnation, version: u64::MAX }, facts: facts.to_vec() }
}

/// Two messages once parted the node that heard both from those that had heard neither, for good.
#[test]
fn stamps_from_nowhere_part_nobody() {
    let mut nodes = nodes();
    for leap in 1..200u64 {
        let mut state = serde_json::to_value(Membership::new()).unwrap();
        state["staged"]["replicas"] = json!({"stamp": leap << 32, "author": LIAR, "value": 2});
        let Ok(lie) = serde_json::from_value(state) else { continue };
        let _ = nodes[0].receive(LIAR, told(lie, vec![]));
    }
    nodes[0].set_facts(b"news".to_vec()).unwrap();
    all_meet(&mut nodes);
    assert_eq!(nodes[2].record(id(0)).unwrap().facts, b"news");
    let m = nodes[0].membership_mut();
    m.unstage_all(id(0)).unwrap();
    m.stage(id(0), Change::Remove(id(2))).unwrap();
    finish(m);
    meet(&mut nodes, 0, 1);
    assert!(nodes[1].membership().is_removed(id(2)));
}

/// The records of a message whose membership does not merge are heard all the same.
#[test]
fn records_pass_where_a_membership_does_not() {
    // Of one parent, carried to their ends by others.
    let parted = |gone: usize| {
        let mut m = founded();
        m.stage(id(0), Change::Remove(id(gone))).unwrap();
        finish(&mut m);
        m
    };
    let (ours, theirs) = (parted(2), parted(1));
    {
        let mut node = Gossip::new(id(0), 1, 1).unwrap();
        *node.membership_mut() = ours.clone();
        let received = node.receive(LIAR, told(theirs.clone(), vec![(id(1), record(1, b"here"))])).unwrap();
        assert_eq!(received.refused, Some(MergeError::Diverged { version: LayoutVersion(2) }));
        assert!(!received.membership_changed);
        assert_eq!(node.record(id(1)).map(|r| &r.facts[..]), Some(&b"here"[..]));
        assert_eq!(node.membership(), &ours);
    }
    // Another cluster's nodes may have the same ids.
    let mut node = nodes().remove(0);
    let other = Membership::found(ClusterId(2), 2, 16, &[Member::new(id(1))]).unwrap();
    let refused = node.receive(LIAR, told(other, vec![(id(1), record(1, b"here"))]));
    assert!(matches!(refused, Err(GossipError::Merge(MergeError::OtherCluster { .. }))));
    assert_eq!(node.record(id(1)), None);
}

/// From this incarnation on a node speaks for itself.
#[test]
fn hearsay_ends_where_it_says() {
    for (from, incarnation, believed) in [
        (LIAR, HEARSAY_END - 1, true),
        (LIAR, HEARSAY_END, false),
        (id(1), HEARSAY_END, true),
        (id(1), INCARNATION_END - 1, true),
    ] {
        let mut node = nodes().remove(0);
        let said = Message::Delta {
            membership: None,
            records: vec![(id(1), record(incarnation, b"here"))],
            ask_membership: false,
            ask: vec![],
        };
        node.receive(from, said).unwrap();
        assert_eq!(node.record(id(1)).is_some(), believed, "{incarnation} from {from}");
        // Nor is it passed on.
        let Some(Message::Delta { records, .. }) =
            node.receive(id(2), Message::Heads { membership: 0, commit: None, heads: vec![] }).unwrap().reply
        else {
            panic!("it has a record of itself")
        };
        assert_eq!(records.iter().any(|(of, _)| *of == id(1)), incarnation < HEARSAY_END);
    }
}

/// Whatever others say of it, a node comes back with more, and is believed.
#[test]
fn no_record_is_locked_by_what_others_say() {
    let mut nodes = nodes();
    nodes[0].set_facts(b"here".to_vec()).unwrap();
    for shift in [30, 61, 62, 63] {
        for below in [0, 1, 2] {
            let lie = (id(0), record((1 << shift) - below, b"elsewhere"));
            if lie.1.head.incarnation < INCARNATION_END {
                let said = Message::Delta {
                    membership: None,
                    records: vec![lie],
                    ask_membership: false,
                    ask: vec![],
                };
                nodes[1].receive(LIAR, said).unwrap();
            }
            all_meet(&mut nodes);
            assert_eq!(nodes[2].record(id(0)).unwrap().facts, b"here");
        }
    }
}
