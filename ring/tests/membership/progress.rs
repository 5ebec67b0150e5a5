//! Transitions and removals, on the way and afterwards.

use gramme_ring::membership::{CommitError, StageError, Standing, VersionStanding};
use gramme_ring::{Change, LayoutVersion, Membership, NodeId, Phase, Step};

use crate::{commit, finish, founded, member, reads_back};

#[test]
fn removed_is_for_ever() {
    let mut m = founded(1..=4);
    let mut stale = m.clone();
    m.stage(NodeId(1), Change::Remove(NodeId(4))).unwrap();
    assert!(!m.is_removed(NodeId(4)), "only staged");
    commit(&mut m);
    assert!(m.is_removed(NodeId(4)));
    // The dead take no part: nobody waits for them.
    assert_eq!(m.transition().unwrap().participants(), [NodeId(1), NodeId(2), NodeId(3)]);
    finish(&mut m);
    for change in [Change::Member(member(4)), Change::Leave(NodeId(4)), Change::Remove(NodeId(4))] {
        assert_eq!(m.stage(NodeId(1), change), Err(StageError::RemovedForEver(NodeId(4))));
    }
    // Staged where the removal was not known, with ever so large a stamp, it comes to nothing.
    for _ in 0..20 {
        stale.stage(NodeId(9), Change::Member(member(4).with_weight(7))).unwrap();
    }
    m.merge(&stale).unwrap();
    assert!(m.staged().is_empty());
    m.stage(NodeId(1), Change::Replicas(2)).unwrap();
    commit(&mut m);
    assert!(m.is_removed(NodeId(4)) && !m.layout().unwrap().is_member(NodeId(4)));
}

#[test]
fn who_joins_coordinates_when_all_have_acknowledged() {
    let mut m = founded(1..=3);
    m.stage(NodeId(1), Change::Member(member(4))).unwrap();
    m.stage(NodeId(1), Change::Leave(NodeId(3))).unwrap();
    commit(&mut m);
    let coordinates = |m: &Membership| [1, 3, 4, 5].map(|id| m.transition().unwrap().coordinates(NodeId(id)));
    for id in 1..=4 {
        assert_eq!(coordinates(&m), [true, true, false, false]);
        m.advance(NodeId(id), Phase::Acknowledged).unwrap();
    }
    assert_eq!(coordinates(&m), [true, true, true, false]);
}

#[test]
fn a_node_that_dies_in_a_transition() {
    let mut m = founded(1..=4);
    m.stage(NodeId(1), Change::Member(member(5))).unwrap();
    commit(&mut m);
    let step = |m: &Membership| m.transition().unwrap().step();
    for id in [1, 2, 3, 5] {
        m.advance(NodeId(id), Phase::Acknowledged).unwrap();
    }
    assert_eq!(step(&m), Step::Acknowledging);
    assert_eq!(m.transition().unwrap().waiting_for(), [NodeId(4)]);
    m.stage(NodeId(1), Change::Remove(NodeId(4))).unwrap();
    assert_eq!(m.propose(), Err(CommitError::TransitionLive(Step::Acknowledging)));

    m.remove_during_transition(NodeId(4)).unwrap();
    assert_eq!(step(&m), Step::Transferring);
    assert_eq!(m.transition().unwrap().waiting_for(), [1, 2, 3, 5].map(NodeId));
    assert!(m.is_removed(NodeId(4)));
    assert!(m.advance(NodeId(4), Phase::Acknowledged).is_err());
    for phase in [Phase::Synced, Phase::Moved] {
        let mut left = [1, 2, 3, 5].map(NodeId).to_vec();
        while !left.is_empty() {
            assert_eq!(m.transition().unwrap().waiting_for(), left);
            assert_eq!(m.advance(left.remove(0), phase), Ok(true));
        }
    }
    assert!(m.settle());
    assert_eq!(m.staged(), [Change::Remove(NodeId(4))]);
    // What is committed is not told once more as given up: no reader would take it.
    let mut removed = m.clone();
    commit(&mut removed);
    assert_eq!(removed.standing(NodeId(4)), Some(&Standing::Removed));
    assert!(removed.is_removed(NodeId(4)) && removed.staged().is_empty());
    reads_back(&removed);
    // Even if that is taken back, no later commit has it as a member.
    m.unstage_all(NodeId(1)).unwrap();
    m.stage(NodeId(1), Change::Replicas(2)).unwrap();
    commit(&mut m);
    assert!(!m.layout().unwrap().is_member(NodeId(4)));
    assert_eq!(m.standing(NodeId(4)), Some(&Standing::Removed));
}

/// A declaration that comes late, or once more, is no error and takes nothing back.
#[test]
fn an_earlier_phase_can_be_declared_again() {
    let mut m = founded(1..=2);
    m.stage(NodeId(1), Change::Member(member(3))).unwrap();
    commit(&mut m);
    let begun = m.clone();
    let phases = [Phase::Acknowledged, Phase::Synced, Phase::Moved];
    for (n, phase) in phases.into_iter().enumerate() {
        for id in [1, 2, 3].map(NodeId) {
            assert_eq!(m.advance(id, phase), Ok(true));
            for earlier in &phases[..=n] {
                assert_eq!(m.advance(id, *earlier), Ok(false));
                assert_eq!(m.transition().unwrap().phase(id), Some(phase));
            }
        }
    }
    // Whether it has ended is told even where no declaration is.
    assert!(m.settle());
    assert_ne!(m.digest(), begun.digest());
}

#[test]
fn versions_are_judged() {
    let mut m = founded(1..=3);
    assert_eq!(Membership::new().judge(LayoutVersion(1)), VersionStanding::Unknown);
    assert_eq!(m.judge(LayoutVersion(1)), VersionStanding::Current);
    m.stage(NodeId(1), Change::Member(member(4))).unwrap();
    commit(&mut m);
    assert_eq!(m.judge(LayoutVersion(1)), VersionStanding::Leaving);
    assert_eq!(m.judge(LayoutVersion(2)), VersionStanding::Current);
    finish(&mut m);
    assert_eq!(m.judge(LayoutVersion(1)), VersionStanding::Retired);
    assert_eq!(m.judge(LayoutVersion(3)), VersionStanding::Unknown);
    // While the next change is live one version is left, not all before it.
    m.stage(NodeId(1), Change::Member(member(5))).unwrap();
    commit(&mut m);
    let standings = [1, 2, 3, 4].map(|version| m.judge(LayoutVersion(version)));
    let [retired, leaving, current, unknown] = standings;
    assert_eq!((retired, leaving), (VersionStanding::Retired, VersionStanding::Leaving));
    assert_eq!((current, unknown), (VersionStanding::Current, VersionStanding::Unknown));
}
