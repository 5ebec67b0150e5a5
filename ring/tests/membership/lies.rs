//! States that only a liar makes: they may be believed, but nobody ends up with what it can't go on from, or read back.

use std::collections::BTreeSet;

use gramme_ring::membership::{CommitError, MAX_MERGED_NODES, MergeError, Progress, StageError, VERSION_END};
use gramme_ring::transition::AdvanceError;
use gramme_ring::{Change, Checked, LayoutError, LayoutVersion, Malformed, Membership, NodeId};
use serde_json::{Value, json};

use crate::{CLUSTER, commit, finish, founded, joined, member, reads_back};

fn state(change: impl FnOnce(&mut Value)) -> Checked<Membership> {
    let mut state = serde_json::to_value(Membership::new()).unwrap();
    change(&mut state);
    serde_json::from_value(state).unwrap()
}

fn given_up(ids: impl IntoIterator<Item = u64>) -> Membership {
    let ids: Vec<NodeId> = ids.into_iter().map(NodeId).collect();
    state(|state| state["given_up"] = json!(ids)).0.unwrap()
}

fn removing(id: u64) -> Membership {
    let mut m = founded(1..=3);
    m.stage(NodeId(1), Change::Member(member(id))).unwrap();
    commit(&mut m);
    finish(&mut m);
    m.stage(NodeId(1), Change::Remove(NodeId(id))).unwrap();
    commit(&mut m);
    m
}

const MOST: u64 = MAX_MERGED_NODES as u64;

/// A removed id that is larger than all that were given up once made the sum one more than a reader takes.
#[test]
fn as_many_given_up_as_a_merge_takes_are_read_back() {
    let (few, many) = (given_up(10..10 + MOST / 2), given_up(5 + MOST / 2..10 + MOST));
    for id in [4, 9 + MOST, 900_000] {
        let ours = removing(id);
        let whole = joined(joined(ours.clone(), &few), &many);
        assert_eq!(whole, joined(joined(many.clone(), &ours), &few));
        assert_eq!(whole, joined(ours.clone(), &joined(many.clone(), &few)));
        assert!(whole.is_removed(NodeId(id)) && whole.is_removed(NodeId(MOST)));
        reads_back(&whole);
        // Another commit may stand, by which nobody is removed.
        let mut later = founded(1..=3);
        later.stage(NodeId(1), Change::Member(member(7))).unwrap();
        commit(&mut later);
        reads_back(&joined(later.clone(), &whole));
        // Nobody else can be given up then, and so it is said.
        finish(&mut later);
        later.stage(NodeId(1), Change::Member(member(8))).unwrap();
        commit(&mut later);
        later.merge(&given_up(10..10 + MOST - 1)).unwrap();
        later.remove_during_transition(NodeId(3)).unwrap();
        let full = later.clone();
        assert_eq!(later.remove_during_transition(NodeId(2)), Err(AdvanceError::Full));
        assert_eq!(later.remove_during_transition(NodeId(3)), Err(AdvanceError::NotParticipant(NodeId(3))));
        assert_eq!(later, full);
        reads_back(&full);
    }
}

/// Those whom the commit removed count beside those who were given up since.
#[test]
fn nobody_is_given_up_beside_as_many_as_a_state_holds() {
    let mut m = removing(4);
    m.merge(&given_up(10..10 + MOST - 2)).unwrap();
    m.remove_during_transition(NodeId(3)).unwrap();
    let full = m.clone();
    assert_eq!(m.remove_during_transition(NodeId(2)), Err(AdvanceError::Full));
    assert_eq!(m, full);
    reads_back(&full);
}

/// The same ones everywhere, the first by their ids.
#[test]
fn of_more_given_up_the_first_are_kept() {
    let [even, odd, third] = [0, 1, 2].map(|n| given_up((0..MOST).map(|i| 3 * i + n)));
    let whole = joined(joined(even.clone(), &odd), &third);
    assert_eq!(whole, joined(third.clone(), &joined(odd, &even)));
    assert!((0..MOST).all(|id| whole.is_removed(NodeId(id))) && !whole.is_removed(NodeId(MOST)));
    reads_back(&whole);
    // Alone or beside those removed, no others are read.
    let ids: BTreeSet<NodeId> = (10..=10 + MOST).map(NodeId).collect();
    let Checked(read) = state(|state| state["given_up"] = json!(ids));
    assert_eq!(read, Err(Malformed::TooManyNodes));
    let mut progress = serde_json::to_value(Membership::new().progress()).unwrap();
    progress["given_up"] = json!(ids);
    let Checked(read) = serde_json::from_value::<Checked<Progress>>(progress).unwrap();
    assert_eq!(read, Err(Malformed::TooManyNodes));
    let mut beside = serde_json::to_value(removing(4)).unwrap();
    beside["given_up"] = json!(ids.iter().take(MAX_MERGED_NODES).collect::<Vec<_>>());
    let Checked(read) = serde_json::from_value::<Checked<Membership>>(beside).unwrap();
    assert_eq!(read, Err(Malformed::TooManyNodes));
}

/// N, Q or a member staged under this stamp, by who knows of no commit.
fn stamped(stamp: u64) -> Checked<Membership> {
    state(|state| state["staged"]["replicas"] = json!({"stamp": stamp, "author": NodeId(99), "value": 2}))
}

/// What has been said up to the last stamp leaves none for others until the next commit, which may be of nothing.
#[test]
fn stamps_that_are_used_up_come_back_with_a_commit() {
    let end = 1 << 32;
    assert_eq!(stamped(end).0, Err(Malformed::StampOutOfRange));
    let last = stamped(end - 1).0.unwrap();
    let mut m = Membership::new();
    m.merge_from(NodeId(99), &last).unwrap();
    assert_eq!(m.stage(NodeId(1), Change::Member(member(1))), Err(StageError::Full));

    // A member says more of this commit's.
    let mut m = founded(1..=3);
    let mut lie = serde_json::to_value(&m).unwrap();
    let said = |stamp: u64, value: u8| json!({"stamp": stamp, "author": NodeId(99), "value": value});
    lie["staged"]["replicas"] = said(2 * end, 1);
    let Checked(read) = serde_json::from_value::<Checked<Membership>>(lie.clone()).unwrap();
    assert_eq!(read, Err(Malformed::StampOutOfRange));
    let mut progress = serde_json::to_value(m.progress()).unwrap();
    progress["staged"]["replicas"] = said(2 * end, 1);
    let progress: Progress = serde_json::from_value(progress).unwrap();
    let before = m.clone();
    assert_eq!(m.merge_progress(&progress), Err(MergeError::StampOutOfRange(2 * end)));
    assert_eq!(m, before);
    lie["staged"]["replicas"] = said(2 * end - 1, 1);
    let lie: Membership = serde_json::from_value(lie).unwrap();
    m.merge_from(NodeId(99), &lie).unwrap();
    assert_eq!(m.staged(), [Change::Replicas(1)]);
    assert_eq!(m.stage(NodeId(1), Change::Replicas(3)), Err(StageError::Full));
    assert_eq!(m.unstage_all(NodeId(1)), Err(StageError::Full));

    // It changes nothing of what is staged.
    let mut next = m.clone();
    commit(&mut next);
    assert_eq!((next.staged(), next.layout().unwrap().replicas()), (vec![Change::Replicas(1)], 3));
    assert_eq!(next.layout().unwrap().version(), LayoutVersion(2));
    assert!(next.layout().unwrap().plan(m.layout().unwrap()).is_empty());
    // A transition in which someone is dead comes to its end without a stamp, too.
    let mut used_up = serde_json::to_value(&next).unwrap();
    used_up["staged"]["replicas"] = said(3 * end - 1, 1);
    let mut waiting: Membership = serde_json::from_value(used_up).unwrap();
    waiting.remove_during_transition(NodeId(3)).unwrap();
    assert_eq!(waiting.staged(), [Change::Replicas(1), Change::Remove(NodeId(3))]);

    finish(&mut next);
    next.unstage_all(NodeId(1)).unwrap();
    next.stage(NodeId(1), Change::Remove(NodeId(3))).unwrap();
    next.commit(CLUSTER, next.propose().unwrap().hash()).unwrap();
    // Whoever has not heard of it yet.
    for late in [before, m] {
        assert_eq!(joined(late.clone(), &next), next);
        assert_eq!(joined(next.clone(), &late), next);
    }
}

/// A commit that nobody made, with a change under this stamp.
fn made_up(version: u64, stamp: u64) -> Result<Membership, Malformed> {
    let mut lie = serde_json::to_value(founded(1..=3)).unwrap();
    lie["committed"]["config"]["partitions"]["stamp"] = json!(stamp);
    of_version(version, lie)
}

fn of_version(version: u64, mut state: Value) -> Result<Membership, Malformed> {
    let read = |state: &Value| serde_json::from_value::<Checked<Membership>>(state.clone()).unwrap().0;
    state["committed"]["layout"]["version"] = json!(version);
    if let Err(Malformed::Layout(LayoutError::Hash { expected, .. })) = read(&state) {
        state["committed"]["layout"]["hash"] = json!(format!("{expected:016x}"));
    }
    read(&state)
}

/// A transition leaves the version before the one that it enters, whatever else the two say of each other.
#[test]
fn no_version_is_left_out() {
    let mut m = founded(1..=3);
    m.stage(NodeId(1), Change::Member(member(4))).unwrap();
    commit(&mut m);
    let state = serde_json::to_value(&m).unwrap();
    assert_eq!(of_version(2, state.clone()), Ok(m));
    for version in [1, 3, VERSION_END - 1] {
        assert_eq!(of_version(version, state.clone()), Err(Malformed::OtherParent));
    }
}

/// After a version that high no commit would bring new stamps.
#[test]
fn no_commit_is_believed_that_leaves_no_stamps() {
    let last_stamp = (1 << 63) - 1;
    for version in [VERSION_END, 1 << 31, u64::MAX - 1, u64::MAX] {
        let refused = Err(Malformed::VersionOutOfRange(LayoutVersion(version)));
        assert_eq!(made_up(version, last_stamp), refused);
        assert_eq!(made_up(version, 1), refused);
    }
    let version = VERSION_END - 2;
    let end = (version + 1) << 32;
    assert_eq!(made_up(version, end), Err(Malformed::StampOutOfRange));
    let lie = made_up(version, end - 1).unwrap();
    let mut m = founded(1..=3);
    m.merge_from(NodeId(99), &lie).unwrap();
    assert_eq!(m.stage(NodeId(1), Change::Replicas(2)), Err(StageError::Full));
    commit(&mut m);
    finish(&mut m);
    m.stage(NodeId(1), Change::Replicas(2)).unwrap();
    m.unstage_all(NodeId(1)).unwrap();
    reads_back(&m);
    // That was the last, and nobody makes one that others refuse.
    m.stage(NodeId(1), Change::Replicas(2)).unwrap();
    let last = LayoutVersion(VERSION_END - 1);
    assert_eq!(m.propose(), Err(CommitError::Layout(LayoutError::Version(last))));
}
