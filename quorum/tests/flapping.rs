//! A node that comes and goes many times within minutes moves no data but what it missed: membership is explicit, and what others
//! think of a node's health is nobody's business but theirs.

mod common;

use common::*;
use gramme_quorum::message::{Copy, Message, Purpose};
use gramme_quorum::*;
use gramme_ring::{LayoutVersion, NodeId};

const KEYS: usize = 200;
const VALUE: usize = 1000;

/// What was moved between nodes since this was asked last: bytes of objects handed to this node as hints, and of all others that no
/// client has written just now. And how many partitions were offered.
fn moved(cluster: &mut Cluster, flapping: NodeId) -> (usize, usize, usize) {
    let (mut hinted, mut others, mut offers) = (0, 0, 0);
    for (_, to, message) in cluster.delivered.drain(..) {
        match message {
            Message::Write { purpose: Purpose::Write, .. } => {}
            Message::Write { purpose: Purpose::Handoff, object, .. } if to == flapping => {
                hinted += object.len()
            }
            Message::Write { object, .. } => others += object.len(),
            Message::Copy { copy: Copy::Object(object), .. } => others += object.len(),
            Message::Listed { objects, .. } => {
                others += objects.iter().map(|object| object.len()).sum::<usize>()
            }
            Message::Offer { .. } => offers += 1,
            _ => {}
        }
    }
    (hinted, others, offers)
}

/// Nobody has changed the ring, nor is about to.
fn check_ring(cluster: &Cluster, flapping: NodeId) {
    for node in cluster.nodes.values() {
        let membership = node.engine.membership();
        assert_eq!(membership.layout().unwrap().version(), LayoutVersion(1));
        assert!(membership.transition().is_none() && membership.layout().unwrap().is_member(flapping));
        assert_eq!(node.engine.status(cluster.now.instant).gaining_partitions, 0);
    }
}

/// Down and up forty times within four minutes. What happens while it is down is told by how often it has been.
fn flap(
    cluster: &mut Cluster,
    flapping: NodeId,
    crashes: bool,
    mut meanwhile: impl FnMut(&mut Cluster, usize),
) {
    let others: Vec<NodeId> = cluster.nodes.keys().copied().filter(|id| *id != flapping).collect();
    for round in 0..40 {
        if crashes {
            cluster.crash(flapping);
        } else {
            others.iter().for_each(|other| cluster.cut(flapping, *other, true));
        }
        cluster.pass(Duration::from_secs(2));
        meanwhile(cluster, round);
        if crashes {
            cluster.start(flapping);
        } else {
            others.iter().for_each(|other| cluster.cut(flapping, *other, false));
        }
        cluster.pass(Duration::from_secs(4));
        check_ring(cluster, flapping);
    }
}

#[test]
fn flapping_does_not_move_data() {
    let flapping = NodeId(5);
    for crashes in [false, true] {
        let mut cluster = Cluster::new(5);
        for i in 0..KEYS {
            cluster.put(A, &format!("key {i}"), &"v".repeat(VALUE), Cover::Held);
        }
        cluster.pass(Duration::from_secs(60));
        moved(&mut cluster, flapping);
        // Nobody writes: nothing is moved.
        flap(&mut cluster, flapping, crashes, |_, _| {});
        assert_eq!(moved(&mut cluster, flapping), (0, 0, 0), "with nothing missed; it crashes: {crashes}");
        // What is written meanwhile is handed over, once, and nothing else is moved.
        let mut missed = 0;
        flap(&mut cluster, flapping, crashes, |cluster, round| {
            let key = format!("key {round}");
            cluster.put(A, &key, &"w".repeat(VALUE), Cover::Held);
            missed += usize::from(cluster.preference(&key)[..3].contains(&flapping));
        });
        assert!(missed > 10, "it owns some of them: {missed}");
        let (hinted, others, offers) = moved(&mut cluster, flapping);
        assert!(
            (missed * VALUE..missed * (VALUE + 200)).contains(&hinted),
            "{hinted} bytes for {missed} writes"
        );
        assert_eq!((others, offers), (0, 0));
        assert!(cluster.nodes.keys().all(|id| cluster.hints(*id) == 0));
        for i in (0..40).filter(|i| cluster.preference(&format!("key {i}"))[..3].contains(&flapping)) {
            let copy = cluster.copy(flapping, &format!("key {i}")).unwrap();
            assert!(copy.contains(&"w".repeat(VALUE)), "it has all that it has missed");
        }
    }
}
