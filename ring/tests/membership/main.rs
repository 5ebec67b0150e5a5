//! Staging, commits and merging.

mod bounds;
mod lies;
mod merging;
mod progress;
mod properties;
mod staging;

use gramme_ring::membership::{MergeError, Progress};
use gramme_ring::{Change, Checked, ClusterId, Member, Membership, NodeId, Phase};

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

/// What the two merge to, or `None` if they gave each other up. Either says so of the other, and keeps what it had.
fn try_joined(mut a: Membership, b: &Membership) -> Option<Membership> {
    let before = a.clone();
    let merged = a.merge(b);
    if let Err(MergeError::Diverged { .. }) = merged {
        assert_eq!(a, before);
        assert_eq!(b.clone().merge(&a), merged);
        return None;
    }
    assert_eq!(merged.unwrap().changed, a != before);
    assert_eq!(a == before, a.digest() == before.digest());
    Some(a)
}

fn joined(a: Membership, b: &Membership) -> Membership {
    try_joined(a, b).unwrap()
}

/// As a node reads its own file, and a peer what it is told.
fn reads_back(m: &Membership) {
    let Checked(back) =
        postcard::from_bytes::<Checked<Membership>>(&postcard::to_allocvec(m).unwrap()).unwrap();
    assert_eq!(back.as_ref(), Ok(m));
    let progress = postcard::to_allocvec(&m.progress()).unwrap();
    let Checked(back) = postcard::from_bytes::<Checked<Progress>>(&progress).unwrap();
    assert_eq!(back, Ok(m.progress()));
}
