//! What can be staged and committed, and what is refused, decoded or not.

use gramme_ring::membership::{CommitError, StageError, Standing};
use gramme_ring::{Change, Layout, LayoutError, LayoutVersion, Member, Membership, NodeId, Phase, Zone};

use crate::{CLUSTER, commit, finish, founded, member};

#[test]
fn the_first_commit_needs_no_transition() {
    let m = founded(1..=3);
    assert_eq!(m.cluster(), Some(CLUSTER));
    assert!(m.transition().is_none());
    assert!(m.staged().is_empty());
    let layout = m.layout().unwrap();
    assert_eq!((layout.version(), layout.members().len(), layout.partitions()), (LayoutVersion(1), 3, 16));
    assert_eq!(m.standing(NodeId(2)), Some(&Standing::Member { weight: 1, zone: Zone::default() }));
}

/// What a layout refuses is refused by the same name, and what was staged one by one comes to the same.
#[test]
fn founding_is_refused_by_name() {
    let members = [member(3).with_weight(2), member(1), member(2)];
    let found = |replicas, partitions, members: &[Member]| {
        let founded = Membership::found(CLUSTER, replicas, partitions, members);
        let layout = Layout::compute(replicas, partitions, members, None);
        assert_eq!(founded.as_ref().map(|m| m.layout().unwrap()), layout.as_ref());
        founded
    };
    let mut staged = Membership::new();
    staged.stage(NodeId(1), Change::Replicas(2)).unwrap();
    staged.stage(NodeId(1), Change::Partitions(64)).unwrap();
    for n in [1, 2, 0] {
        staged.stage(NodeId(1), Change::Member(members[n].clone())).unwrap();
    }
    commit(&mut staged);
    // In whatever order they are named: of two that found the same, each takes the other for itself.
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut founded = found(2, 64, &order.map(|n| members[n].clone())).unwrap();
        assert_eq!(founded, staged);
        assert!(!founded.merge(&staged).unwrap().changed);
    }
    let twice = [member(1), member(1).with_weight(5), member(2)];
    assert_eq!(found(2, 64, &twice), Err(LayoutError::DuplicateMember(NodeId(1))));
    for (replicas, partitions) in [(3, 256), (2, 256)] {
        assert_eq!(found(replicas, partitions, &[]), Err(LayoutError::NoMembers));
    }
    assert_eq!(found(0, 64, &members), Err(LayoutError::NoReplicas));
    assert_eq!(found(2, 63, &members), Err(LayoutError::PartitionCount(63)));
    assert_eq!(found(2, 64, &[member(1).with_weight(0)]), Err(LayoutError::ZeroWeight(NodeId(1))));
    let many: Vec<Member> = (0..40_000).map(member).collect();
    assert_eq!(found(2, 64, &many), Err(LayoutError::TooManyMembers(40_000)));
}

#[test]
fn nothing_is_committed_that_was_not_looked_at() {
    let mut m = founded(1..=3);
    m.stage(NodeId(1), Change::Setting { name: "a".into(), value: Some(vec![1]) }).unwrap();
    let seen = m.propose().unwrap().hash();
    m.stage(NodeId(2), Change::Setting { name: "a".into(), value: Some(vec![2]) }).unwrap();
    let before = m.clone();
    let now = m.propose().unwrap().hash();
    assert_eq!(m.commit(CLUSTER, seen).unwrap_err(), CommitError::Changed(now));
    assert_eq!(m, before);
    m.commit(CLUSTER, now).unwrap();
    assert_eq!(m.settings().collect::<Vec<_>>(), [("a", &[2u8][..])]);
}

#[test]
fn staging_can_be_taken_back_everywhere() {
    let mut a = founded(1..=3);
    a.stage(NodeId(1), Change::Member(member(4))).unwrap();
    a.stage(NodeId(1), Change::Member(member(2).with_weight(9))).unwrap();
    a.stage(NodeId(1), Change::Replicas(2)).unwrap();
    let mut b = a.clone();
    a.unstage_all(NodeId(1)).unwrap();
    assert!(a.staged().is_empty());
    assert_eq!(a.propose(), Err(CommitError::NothingStaged));
    assert_eq!(b.staged().len(), 3);
    b.merge(&a).unwrap();
    assert!(b.staged().is_empty());
}

/// Who was to leave dies before that is committed; and she who said so may have been wrong.
#[test]
fn leave_and_remove_replace_each_other() {
    let mut m = founded(1..=3);
    for change in [Change::Leave, Change::Remove, Change::Leave] {
        m.stage(NodeId(1), change(NodeId(3))).unwrap();
        assert_eq!(m.staged(), [change(NodeId(3))]);
    }
}

#[test]
fn bad_changes_are_named() {
    let mut m = founded(1..=3);
    let before = m.clone();
    let cases = [
        (Change::Replicas(0), StageError::NoReplicas),
        (Change::Partitions(100), StageError::PartitionCount(100)),
        (Change::Member(member(7).with_weight(0)), StageError::ZeroWeight(NodeId(7))),
        (Change::Leave(NodeId(7)), StageError::NotMember(NodeId(7))),
        (Change::Remove(NodeId(7)), StageError::NotMember(NodeId(7))),
        (Change::Setting { name: "x".repeat(257), value: None }, StageError::SettingTooLong),
        (Change::Setting { name: "x".into(), value: Some(vec![0; 4097]) }, StageError::SettingTooLong),
    ];
    for (change, error) in cases {
        assert_eq!(m.stage(NodeId(1), change), Err(error));
        assert_eq!(m, before);
    }
    for i in 0..1024 {
        m.stage(NodeId(1), Change::Setting { name: format!("s{i}"), value: Some(vec![]) }).unwrap();
    }
    assert_eq!(
        m.stage(NodeId(1), Change::Setting { name: "more".into(), value: None }),
        Err(StageError::Full)
    );
    m.stage(NodeId(1), Change::Setting { name: "s7".into(), value: None }).unwrap();
}

#[test]
fn decoded_states_are_checked() {
    // Nothing committed; staged: N and Q by node 1 at stamp 5, no nodes, no settings; nobody given up.
    let bytes = |replicas: u8, q: u8, stamp: &[u8]| {
        [&[0, 1], stamp, &[1, replicas, 1], stamp, &[1, q, 0, 0, 0]].concat()
    };
    let read = |bytes: &[u8]| postcard::from_bytes::<Membership>(bytes);
    let good = read(&bytes(2, 16, &[5])).unwrap();
    assert_eq!(good.staged(), [Change::Replicas(2), Change::Partitions(16)]);
    assert!(read(&bytes(0, 16, &[5])).is_err(), "no replicas");
    assert!(read(&bytes(2, 17, &[5])).is_err(), "no such Q");
    // 2^32 and 2^32 - 1: before the first commit there are no others.
    let last = [0xff, 0xff, 0xff, 0xff, 0xf];
    assert!(read(&bytes(2, 16, &[0x80, 0x80, 0x80, 0x80, 0x10])).is_err());
    let mut full = read(&bytes(2, 16, &last)).unwrap();
    assert_eq!(full.stage(NodeId(1), Change::Replicas(1)), Err(StageError::Full));
    assert_eq!(full.unstage_all(NodeId(1)), Err(StageError::Full));

    // A committed state with another Q or N than its layout's, a member without weight, a tracker of a stranger.
    let mut m = founded(1..=3);
    m.stage(NodeId(1), Change::Replicas(2)).unwrap();
    commit(&mut m);
    m.advance(NodeId(2), Phase::Acknowledged).unwrap();
    let good = postcard::to_allocvec(&m).unwrap();
    assert_eq!(read(&good).unwrap(), m);
    // Committed; cluster 99; N: stamp 5, author 1, 2; Q: stamp 1, author 1, 16; three nodes: id, stamp, author, member,
    // weight 1, no zone.
    assert_eq!(good[..18], [1, 99, 1, 5, 1, 2, 1, 1, 1, 16, 3, 1, 2, 1, 0, 1, 0, 2]);
    for (at, value, why) in
        [(5, 3, "another N"), (9, 32, "another Q"), (15, 0, "weight 0"), (15, 2, "another weight")]
    {
        let mut bad = good.clone();
        bad[at] = value;
        assert!(read(&bad).is_err(), "{why}");
    }
    let at = good.len() - 8;
    assert_eq!(
        good[at..],
        [1, 2, 0, 0, 0, 0, 0, 0],
        "one tracker: node 2 has acknowledged; nothing staged or given up"
    );
    let mut bad = good.clone();
    bad[at + 1] = 9;
    assert!(read(&bad).is_err(), "a stranger");

    // Staged before what is committed (N = 7 at stamp 3), or just that (N = 2 at stamp 5): nobody writes it.
    for (stamp, value, well) in [(3, 7, false), (5, 2, false), (5, 3, true), (6, 2, true)] {
        let mut old = good.clone();
        old.splice(at + 3..at + 4, [1, stamp, 1, value]);
        assert_eq!(read(&old).is_ok(), well, "{value} at {stamp}");
        if let Ok(read) = read(&old) {
            assert_eq!(postcard::to_allocvec(&read).unwrap(), old);
        }
    }

    // As many settings as may be, and one more that is staged: one that a merge keeps, or not.
    let named = |first: char| {
        let mut m = founded(1..=1);
        for i in 0..1024 {
            m.stage(NodeId(1), Change::Setting { name: format!("{first}{i}"), value: None }).unwrap();
        }
        m.stage(NodeId(1), Change::Replicas(1)).unwrap();
        m
    };
    let mut m = named('s');
    m.merge(&named('t')).unwrap();
    commit(&mut m);
    let full = postcard::to_allocvec(&m).unwrap();
    assert_eq!(read(&full).unwrap(), m);
    let with = |name: u8| {
        let mut bytes = full.clone();
        let end = bytes.len();
        bytes.splice(end - 2..end - 1, [1, 1, name, 9, 1, 0]);
        read(&bytes)
    };
    assert!(with(b'a').is_ok());
    assert!(with(b'z').is_err(), "no merge would keep it");
}

#[test]
fn who_left_may_return() {
    let mut m = founded(1..=4);
    m.stage(NodeId(1), Change::Leave(NodeId(4))).unwrap();
    commit(&mut m);
    // It lives and takes part.
    assert!(m.transition().unwrap().takes_part(NodeId(4)));
    finish(&mut m);
    assert_eq!(m.stage(NodeId(1), Change::Leave(NodeId(4))), Err(StageError::NotMember(NodeId(4))));
    m.stage(NodeId(1), Change::Member(member(4))).unwrap();
    commit(&mut m);
    assert!(m.layout().unwrap().is_member(NodeId(4)));
}
