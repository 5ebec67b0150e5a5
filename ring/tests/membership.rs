//! Staging, commits and merging.

use gramme_ring::membership::{CommitError, MergeError, StageError, Standing, VersionStanding};
use gramme_ring::{Change, ClusterId, LayoutVersion, Member, Membership, NodeId, Phase, Step, Zone};
use proptest::prelude::*;

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

#[test]
fn two_commits_on_one_parent_converge() {
    let start = founded(1..=4);
    let (mut a, mut b) = (start.clone(), start.clone());
    a.stage(NodeId(1), Change::Member(member(5))).unwrap();
    b.stage(NodeId(2), Change::Leave(NodeId(3))).unwrap();
    b.stage(NodeId(2), Change::Setting { name: "keyspace/x".into(), value: Some(b"r=1".to_vec()) }).unwrap();
    commit(&mut a);
    commit(&mut b);
    a.advance(NodeId(1), Phase::Acknowledged).unwrap();
    assert_eq!(a.layout().unwrap().parent(), b.layout().unwrap().parent());

    let mut ab = a.clone();
    ab.merge(&b).unwrap();
    let mut ba = b.clone();
    ba.merge(&a).unwrap();
    assert_eq!(ab, ba);
    assert_eq!(ab.layout().unwrap().version(), LayoutVersion(2));
    // One stands; what the other changed is staged again, and nothing else is.
    let a_changes = vec![Change::Member(member(5))];
    let b_changes = vec![
        Change::Leave(NodeId(3)),
        Change::Setting { name: "keyspace/x".into(), value: Some(b"r=1".to_vec()) },
    ];
    if ab.layout() == a.layout() {
        assert_eq!(ab.staged(), b_changes);
        assert_eq!(ab.transition().unwrap().phase(NodeId(1)), Some(Phase::Acknowledged));
    } else {
        assert_eq!(ab.layout(), b.layout());
        assert_eq!(ab.staged(), a_changes);
        assert_eq!(ab.transition().unwrap().phase(NodeId(1)), None, "declared for another layout");
    }
    finish(&mut ab);
    commit(&mut ab);
    finish(&mut ab);
    // Both have been committed in the end, in whatever order.
    assert!(ab.layout().unwrap().is_member(NodeId(5)));
    assert!(!ab.layout().unwrap().is_member(NodeId(3)));
    assert_eq!(ab.setting("keyspace/x"), Some(&b"r=1"[..]));
    assert!(ab.staged().is_empty());
}

#[test]
fn a_finished_commit_is_not_displaced() {
    let start = founded(1..=4);
    let make = |id| {
        let mut m = start.clone();
        m.stage(NodeId(1), Change::Member(member(id))).unwrap();
        commit(&mut m);
        m
    };
    // Whichever of the two would stand: the other is the one that is finished.
    let (x, y) = (make(5), make(6));
    let mut both = x.clone();
    both.merge(&y).unwrap();
    let (stands, mut finished) = if both.layout() == x.layout() { (x, y) } else { (y, x) };
    finish(&mut finished);
    let before = finished.layout().unwrap().hash();
    let merged = finished.merge(&stands).unwrap();
    assert!(merged.changed && !merged.layout_changed);
    assert_eq!(finished.layout().unwrap().hash(), before);
    assert_eq!(finished.staged().len(), 1);
    let mut late = stands;
    assert!(late.merge(&finished).unwrap().layout_changed);
    assert_eq!(late, finished);
}

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
    assert_eq!(m.stage(NodeId(1), Change::Member(member(4))), Err(StageError::RemovedForEver(NodeId(4))));
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

    m.remove_during_transition(NodeId(1), NodeId(4)).unwrap();
    assert_eq!(step(&m), Step::Transferring);
    assert!(m.is_removed(NodeId(4)));
    assert!(m.advance(NodeId(4), Phase::Acknowledged).is_err());
    for phase in [Phase::Synced, Phase::Moved] {
        for id in [1, 2, 3, 5] {
            m.advance(NodeId(id), phase).unwrap();
        }
    }
    assert!(m.settle());
    assert_eq!(m.staged(), [Change::Remove(NodeId(4))]);
    // Even if that is taken back, no later commit has it as a member.
    m.unstage_all(NodeId(1)).unwrap();
    m.stage(NodeId(1), Change::Replicas(2)).unwrap();
    commit(&mut m);
    assert!(!m.layout().unwrap().is_member(NodeId(4)));
    assert_eq!(m.standing(NodeId(4)), Some(&Standing::Removed));
}

/// Found by the property test below, one time in thousands: what one node knew of a transition was forgotten when another
/// commit displaced it, and came back or not according to the order of gossip.
#[test]
fn a_transition_displaced_and_finished_elsewhere() {
    let start = founded(1..=4);
    let make = |id| {
        let mut m = start.clone();
        m.stage(NodeId(1), Change::Member(member(id))).unwrap();
        commit(&mut m);
        m
    };
    let (x, y) = (make(5), make(6));
    let mut both = x.clone();
    both.merge(&y).unwrap();
    let (stands, other) = if both.layout() == x.layout() { (x, y) } else { (y, x) };
    let mut given_up = other.clone();
    given_up.remove_during_transition(NodeId(1), NodeId(4)).unwrap();
    given_up.advance(NodeId(1), Phase::Acknowledged).unwrap();
    let mut finished = other;
    finish(&mut finished);

    let join = |a: &Membership, b: &Membership| joined(a.clone(), b);
    let (p, q) = (join(&join(&given_up, &stands), &finished), join(&given_up, &join(&stands, &finished)));
    assert_eq!(p, q);
    assert_eq!(p, join(&join(&finished, &given_up), &stands));
    // Whatever the order, nobody forgets who was given up.
    assert!(p.is_removed(NodeId(4)));
    assert!(p.staged().contains(&Change::Remove(NodeId(4))));
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

#[test]
fn clusters_do_not_mix() {
    let mut a = founded(1..=3);
    let mut b = Membership::new();
    b.stage(NodeId(8), Change::Member(member(8))).unwrap();
    let hash = b.propose().unwrap().hash();
    b.commit(ClusterId(100), hash).unwrap();
    let before = a.clone();
    assert_eq!(a.merge(&b), Err(MergeError::OtherCluster { mine: CLUSTER, theirs: ClusterId(100) }));
    assert_eq!(a, before);
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
    // 2^63 and 2^63 - 1: the next stamp has to exist.
    let last = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    assert!(read(&bytes(2, 16, &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1])).is_err());
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

    // Staged before what is committed (N = 7 at stamp 3): it comes to nothing.
    let mut old = good.clone();
    old.splice(at + 3..at + 4, [1, 3, 1, 7]);
    assert_eq!(read(&old).unwrap(), m);

    // As many settings as may be, and one more that is staged.
    let mut m = founded(1..=1);
    for i in 0..1024 {
        m.stage(NodeId(1), Change::Setting { name: format!("s{i}"), value: None }).unwrap();
    }
    m.stage(NodeId(1), Change::Replicas(1)).unwrap();
    commit(&mut m);
    let mut full = postcard::to_allocvec(&m).unwrap();
    assert_eq!(read(&full).unwrap(), m);
    let end = full.len();
    full.splice(end - 2..end - 1, [1, 1, b'z', 9, 1, 0]);
    assert!(read(&full).is_err(), "nothing could be merged with it");
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
}

/// What random nodes do.
#[derive(Clone, Debug)]
enum Act {
    Stage(usize, Change),
    Unstage(usize),
    Commit(usize),
    Gossip(usize, usize),
    Advance(usize),
    Settle(usize),
    RemoveDead(usize, u64),
}

const NODES: usize = 4;

fn act() -> impl Strategy<Value = Act> {
    let id = 1..=7u64;
    let node = 0..NODES;
    let change = prop_oneof![
        4 => (id.clone(), 1..4u32).prop_map(|(id, weight)| Change::Member(member(id).with_weight(weight))),
        2 => id.clone().prop_map(|id| Change::Leave(NodeId(id))),
        2 => id.clone().prop_map(|id| Change::Remove(NodeId(id))),
        1 => (1..4u8).prop_map(Change::Replicas),
        1 => (0..4u32).prop_map(|bits| Change::Partitions(1 << bits)),
        1 => (0..3u8, proptest::option::of(prop::collection::vec(any::<u8>(), 0..3)))
            .prop_map(|(name, value)| Change::Setting { name: name.to_string(), value }),
    ];
    prop_oneof![
        6 => (node.clone(), change).prop_map(|(n, change)| Act::Stage(n, change)),
        1 => node.clone().prop_map(Act::Unstage),
        5 => node.clone().prop_map(Act::Commit),
        6 => (node.clone(), node.clone()).prop_map(|(a, b)| Act::Gossip(a, b)),
        8 => node.clone().prop_map(Act::Advance),
        3 => node.clone().prop_map(Act::Settle),
        1 => (node, id).prop_map(|(n, id)| Act::RemoveDead(n, id)),
    ]
}

fn run(acts: &[Act]) -> Vec<Membership> {
    let mut nodes = vec![founded(1..=4); NODES];
    for act in acts {
        match act.clone() {
            Act::Stage(n, change) => drop(nodes[n].stage(NodeId(n as u64 + 1), change)),
            Act::Unstage(n) => nodes[n].unstage_all(NodeId(n as u64 + 1)).unwrap(),
            Act::Commit(n) => {
                if let Ok(proposal) = nodes[n].propose() {
                    assert_eq!(
                        &proposal.layout().hash(),
                        &nodes[n].commit(CLUSTER, proposal.hash()).unwrap().hash()
                    );
                    assert!(nodes[n].staged().is_empty());
                }
            }
            Act::Gossip(a, b) => {
                let (from, to) = (nodes[a].clone(), &mut nodes[b]);
                to.merge(&from).unwrap();
            }
            Act::Advance(n) => {
                // Whatever is due for anyone, so that transitions come to an end.
                if let Some(t) = nodes[n].transition() {
                    let due: Vec<_> =
                        t.participants().into_iter().filter_map(|id| Some((id, t.due(id)?))).collect();
                    for (id, phase) in due {
                        nodes[n].advance(id, phase).unwrap();
                    }
                }
            }
            Act::Settle(n) => drop(nodes[n].settle()),
            Act::RemoveDead(n, id) => _ = nodes[n].remove_during_transition(NodeId(n as u64 + 1), NodeId(id)),
        }
    }
    nodes
}

fn joined(mut a: Membership, b: &Membership) -> Membership {
    let before = a.clone();
    let merged = a.merge(b).unwrap();
    assert_eq!(merged.changed, a != before);
    assert_eq!(a == before, a.digest() == before.digest());
    a
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn merging_is_a_join(acts in prop::collection::vec(act(), 1..40)) {
        let nodes = run(&acts);
        for a in &nodes {
            prop_assert_eq!(&joined(a.clone(), a), a);
            for b in &nodes {
                let ab = joined(a.clone(), b);
                prop_assert_eq!(&ab, &joined(b.clone(), a));
                // Absorbs: hearing it again brings nothing.
                prop_assert_eq!(&joined(ab.clone(), a), &ab);
                for c in &nodes {
                    prop_assert_eq!(joined(ab.clone(), c), joined(a.clone(), &joined(b.clone(), c)));
                }
            }
        }
    }

    #[test]
    fn bytes_round_trip(acts in prop::collection::vec(act(), 1..40)) {
        for m in run(&acts) {
            let bytes = postcard::to_allocvec(&m).unwrap();
            let back: Membership = postcard::from_bytes(&bytes).unwrap();
            prop_assert_eq!(back.digest(), m.digest());
            prop_assert_eq!(back, m);
        }
    }

    #[test]
    fn damaged_bytes_do_no_harm(
        acts in prop::collection::vec(act(), 1..30), at in any::<prop::sample::Index>(), flip in 1..=255u8,
    ) {
        for m in run(&acts) {
            let mut bytes = postcard::to_allocvec(&m).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            if let Ok(read) = postcard::from_bytes::<Membership>(&bytes) {
                // Whatever it says, it can be worked with.
                let _ = (read.staged(), read.propose(), read.transition().map(|t| (t.step(), t.waiting_for())));
                let mut merged = m.clone();
                let _ = merged.merge(&read);
                let again = postcard::to_allocvec(&merged).unwrap();
                prop_assert_eq!(postcard::from_bytes::<Membership>(&again).unwrap(), merged);
            }
        }
    }
}
