//! Staging, commits and merging.

mod merging;
mod progress;
mod properties;
mod staging;

use gramme_ring::{Change, ClusterId, Member, Membership, NodeId, Phase};

const CLUSTER: ClusterId = ClusterId(99);

fn member(id: u64) -> Member {
    Member::new(NodeId(id))
}

fn commit(m: &mut Membership) {
    let hash = m.propose().unwrap().hash();
    m.commit(CLUSTER, hash).unwrap();
}

fn founded(ids: std::ops::RangeInclusive<u64>) -> Membership {
    let mut m = Membership::new();
    m.stage(NodeId(1), Change::Partitions(16)).unwrap();
    for id in ids {
        m.stage(NodeId(1), Change::Member(member(id))).unwrap();
    }
    commit(&mut m);
    m
}

/// Lets everyone declare everything.
fn finish(m: &mut Membership) {
    for phase in [Phase::Acknowledged, Phase::Synced, Phase::Moved] {
        for id in m.transition().unwrap().participants() {
            assert!(m.advance(id, phase).unwrap());
        }
    }
    assert!(m.settle());
}

fn joined(mut a: Membership, b: &Membership) -> Membership {
    let before = a.clone();
    let merged = a.merge(b).unwrap();
    assert_eq!(merged.changed, a != before);
    assert_eq!(a == before, a.digest() == before.digest());
    a
}
