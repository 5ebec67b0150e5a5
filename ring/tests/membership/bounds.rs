//! States of which each is within its bounds, and which are not so together.

use gramme_ring::gossip::Gossip;
use gramme_ring::membership::{
    MAX_KNOWN_NODES, MAX_MERGED_NODES, MAX_MERGED_SETTINGS, MAX_SETTINGS, StageError,
};
use gramme_ring::{Change, Membership, NodeId};
use proptest::prelude::*;
use serde_json::json;

use crate::{CLUSTER, commit, finish, founded, joined, member, reads_back};

fn set(name: &str) -> Change {
    Change::Setting { name: name.into(), value: Some(vec![1]) }
}

/// Two that gossip until both are quiet; nothing is refused.
fn talk(a: &mut (NodeId, Gossip), b: &mut (NodeId, Gossip)) {
    let mut message = Some(a.1.summary());
    let mut to_b = true;
    while let Some(told) = message {
        let received = if to_b { b.1.receive(a.0, told) } else { a.1.receive(b.0, told) };
        message = received.unwrap().reply;
        to_b = !to_b;
    }
    assert_eq!(a.1.summary(), b.1.summary());
}

/// Two operators, at two nodes, take the last place for a setting at once. Both were told yes.
#[test]
fn two_may_take_the_last_place_at_once() {
    let mut known = founded(1..=3);
    for i in 0..MAX_SETTINGS - 1 {
        known.stage(NodeId(1), set(&format!("s{i}"))).unwrap();
    }
    commit(&mut known);
    finish(&mut known);
    let [mut a, mut b] = [1, 2].map(|id| {
        let mut gossip = Gossip::new(NodeId(id), 1, id).unwrap();
        *gossip.membership_mut() = known.clone();
        (NodeId(id), gossip)
    });
    a.1.membership_mut().stage(NodeId(1), set("left")).unwrap();
    b.1.membership_mut().stage(NodeId(2), set("right")).unwrap();
    talk(&mut a, &mut b);
    assert_eq!(a.1.membership().staged(), [set("left"), set("right")]);
    // Nobody takes another, but all that is known can be set, dropped, taken back and committed.
    let m = a.1.membership_mut();
    assert_eq!(m.stage(NodeId(1), set("third")), Err(StageError::Full));
    m.stage(NodeId(1), set("s7")).unwrap();
    m.unstage_all(NodeId(1)).unwrap();
    m.stage(NodeId(1), set("right")).unwrap();
    m.stage(NodeId(1), Change::Remove(NodeId(3))).unwrap();
    commit(m);
    a.1.set_facts(b"new address".to_vec()).unwrap();
    talk(&mut a, &mut b);
    assert_eq!(a.1.membership(), b.1.membership());
    assert_eq!(b.1.membership().setting("right"), Some(&[1][..]));
    assert!(b.1.membership().is_removed(NodeId(3)));
    assert_eq!(b.1.record(NodeId(1)).unwrap().facts, b"new address");
}

/// The names of one of many nodes that all stage up to the bound and don't hear of each other.
fn flooded(author: u64) -> Membership {
    let mut m = founded(1..=3);
    for i in 0..MAX_SETTINGS {
        // One's names are spread among the others'.
        m.stage(NodeId(author), set(&format!("{i:05}-{author}"))).unwrap();
    }
    m
}

/// More than can be kept: of those that were only staged the first by name stay, the same ones everywhere.
#[test]
fn what_is_past_the_bound_of_merging_is_dropped_alike() {
    let states = [1, 2, 3, 4].map(flooded);
    let whole = states.iter().fold(Membership::new(), joined);
    assert_eq!(whole, states.iter().rev().fold(Membership::new(), joined));
    let names: Vec<String> = (0..MAX_MERGED_SETTINGS / 4)
        .flat_map(|i| (1..=4).map(move |author| format!("{i:05}-{author}")))
        .collect();
    let staged: Vec<Change> = names.iter().map(|name| set(name)).collect();
    assert_eq!(whole.staged(), staged);
    let bytes = postcard::to_allocvec(&whole).unwrap();
    assert_eq!(postcard::from_bytes::<Membership>(&bytes).unwrap(), whole);

    // All of that can be committed. What came before it by name finds no room then, and is not lost nor in the way.
    let mut full = whole.clone();
    commit(&mut full);
    finish(&mut full);
    let mut other = founded(1..=3);
    other.stage(NodeId(2), set("!")).unwrap();
    let merged = joined(full.clone(), &other);
    assert_eq!((merged.staged(), merged.settings().count()), (vec![], MAX_MERGED_SETTINGS));
    let mut m = joined(merged.clone(), &whole);
    assert_eq!(m, merged);
    m.stage(NodeId(1), Change::Remove(NodeId(3))).unwrap();
    m.stage(NodeId(1), Change::Setting { name: names[7].clone(), value: None }).unwrap();
    // The last of all is past the bound now that there is one more before it.
    assert_eq!(m.stage(NodeId(1), set(names.last().unwrap())), Err(StageError::Full));
    commit(&mut m);
    assert_eq!((m.staged(), m.settings().count()), (vec![], MAX_MERGED_SETTINGS - 1));
    let bytes = postcard::to_allocvec(&m).unwrap();
    assert_eq!(postcard::from_bytes::<Membership>(&bytes).unwrap(), m);
    assert_eq!(joined(full, &m), m);
}

#[test]
fn nodes_past_the_bound_too() {
    let flood = |author: u64| {
        let mut m = founded(1..=3);
        for i in 0..MAX_KNOWN_NODES as u64 - 3 {
            m.stage(NodeId(author), Change::Member(member(10 + 3 * i + author))).unwrap();
        }
        assert_eq!(m.stage(NodeId(author), Change::Member(member(9))), Err(StageError::Full));
        m
    };
    let [a, b, c] = [0, 1, 2].map(flood);
    let ab = joined(a.clone(), &b);
    assert_eq!(ab.staged().len() + 3, 2 * MAX_KNOWN_NODES - 3);
    let mut abc = joined(ab, &c);
    assert_eq!(abc, joined(a, &joined(c, &b)));
    assert_eq!(abc.staged().len() + 3, MAX_MERGED_NODES);
    abc.stage(NodeId(1), Change::Remove(NodeId(3))).unwrap();
    abc.unstage_all(NodeId(1)).unwrap();
    abc.stage(NodeId(1), Change::Remove(NodeId(3))).unwrap();
    abc.commit(CLUSTER, abc.propose().unwrap().hash()).unwrap();
    assert!(abc.is_removed(NodeId(3)));
}

/// As many are staged as a merge keeps, beside one that is committed and past them all: a commit has room for all but the last of the new
/// ones.
#[test]
fn a_commit_takes_the_first_new_nodes_that_find_room() {
    let mut m = Membership::new();
    for id in [1, 2, u64::MAX] {
        m.stage(NodeId(1), Change::Member(member(id))).unwrap();
    }
    commit(&mut m);
    let new = 3..1 + MAX_MERGED_NODES as u64;
    let left = |id| (NodeId(id).to_string(), json!({"stamp": 1, "author": NodeId(1), "value": "Left"}));
    let mut flood = serde_json::to_value(Membership::new()).unwrap();
    flood["staged"]["nodes"] = new.clone().map(left).collect::<serde_json::Map<_, _>>().into();
    m.merge(&serde_json::from_value(flood).unwrap()).unwrap();
    // What is said of the last would be dropped by the next merge.
    let full = m.clone();
    assert_eq!(m.stage(NodeId(1), Change::Leave(NodeId(u64::MAX))), Err(StageError::Full));
    assert_eq!(m, full);
    m.stage(NodeId(1), Change::Remove(NodeId(2))).unwrap();
    commit(&mut m);
    reads_back(&m);
    assert_eq!(m.standing(NodeId(u64::MAX)), full.standing(NodeId(u64::MAX)));
    let known = |id| m.standing(NodeId(id)).is_some();
    assert_eq!([new.start, new.end - 2, new.end - 1].map(known), [true, true, false]);
}

/// What one node does that hears of nobody meanwhile.
#[derive(Clone, Debug)]
enum Act {
    /// Stages so many settings, from this number on.
    Flood {
        from: usize,
        count: usize,
    },
    Commit,
    Finish,
    Unstage,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let flood = (0..2000usize, 400..1100usize).prop_map(|(from, count)| Act::Flood { from, count });
    prop::collection::vec(
        prop_oneof![4 => flood, 4 => Just(Act::Commit), 1 => Just(Act::Finish), 1 => Just(Act::Unstage)],
        1..5,
    )
}

/// A third of the names are the same at all nodes.
fn run(node: u64, acts: &[Act]) -> Membership {
    let mut m = founded(1..=3);
    for act in acts {
        match *act {
            Act::Flood { from, count } => {
                for i in from..from + count {
                    let name = if i % 3 == 0 { format!("{i:05}") } else { format!("{i:05}-{node}") };
                    let value = (i % 5 > 0).then(|| node.to_le_bytes().to_vec());
                    let _ = m.stage(NodeId(node), Change::Setting { name, value });
                }
            }
            Act::Commit => {
                if let Ok(proposal) = m.propose() {
                    m.commit(CLUSTER, proposal.hash()).unwrap();
                    assert!(m.staged().is_empty());
                }
            }
            Act::Finish if m.transition().is_some() => finish(&mut m),
            Act::Finish => {}
            Act::Unstage => m.unstage_all(NodeId(node)).unwrap(),
        }
    }
    m
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    /// Whoever hears what in whatever order and by whomever, past the bound as well.
    #[test]
    fn merging_is_a_join_past_the_bound(
        told in prop::collection::vec(acts(), 5), order in Just([0, 1, 2, 3, 4]).prop_shuffle(), cut in 1..4usize,
    ) {
        let states: Vec<Membership> = (1..).zip(&told).map(|(node, acts)| run(node, acts)).collect();
        let join = |a: Option<Membership>, b: Option<Membership>| crate::try_joined(a?, &b?);
        let all = |order: &[usize]| {
            let ordered = order.iter().map(|&n| Some(states[n].clone()));
            ordered.reduce(join).unwrap()
        };
        // Some gave each other up.
        let diverged = states.iter().any(|a| states.iter().any(|b| crate::try_joined(a.clone(), b).is_none()));
        prop_assume!(!diverged);
        let whole = all(&[0, 1, 2, 3, 4]);
        prop_assert_eq!(&all(&order), &whole);
        prop_assert_eq!(&join(all(&order[..cut]), all(&order[cut..])), &whole);
        prop_assert_eq!(&join(all(&order[cut..]), all(&order[..=cut])), &whole);
        let whole = whole.unwrap();
        for state in &states {
            prop_assert_eq!(&joined(whole.clone(), state), &whole);
        }
        let bytes = postcard::to_allocvec(&whole).unwrap();
        prop_assert_eq!(postcard::from_bytes::<Membership>(&bytes).unwrap(), whole);
    }
}
