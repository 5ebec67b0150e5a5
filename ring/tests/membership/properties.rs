//! Random histories: merging is a join, and bytes do no harm.

use gramme_ring::membership::Progress;
use gramme_ring::{Change, Membership, NodeId};
use proptest::prelude::*;

use crate::{CLUSTER, founded, joined, member, try_joined};

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
                // Parts that gave each other up stay apart.
                if let Some(told) = try_joined(nodes[b].clone(), &nodes[a]) {
                    nodes[b] = told;
                }
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
            Act::RemoveDead(n, id) => _ = nodes[n].remove_during_transition(NodeId(id)),
        }
    }
    nodes
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn merging_is_a_join(acts in prop::collection::vec(act(), 1..40)) {
        let nodes = run(&acts);
        for a in &nodes {
            prop_assert_eq!(&joined(a.clone(), a), a);
            for b in &nodes {
                let ab = try_joined(a.clone(), b);
                prop_assert_eq!(&ab, &try_joined(b.clone(), a));
                let Some(ab) = ab else { continue };
                // Absorbs: hearing it again brings nothing.
                prop_assert_eq!(&joined(ab.clone(), a), &ab);
                for c in &nodes {
                    let (Some(bc), Some(_)) = (try_joined(b.clone(), c), try_joined(a.clone(), c)) else { continue };
                    prop_assert_eq!(joined(ab.clone(), c), joined(a.clone(), &bc));
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

    /// Between states of one commit, progress is as good as the whole; for another it is nothing.
    #[test]
    fn progress_merges_like_the_whole(acts in prop::collection::vec(act(), 1..40)) {
        let nodes = run(&acts);
        for a in &nodes {
            let bytes = postcard::to_allocvec(&a.progress()).unwrap();
            let progress: Progress = postcard::from_bytes(&bytes).unwrap();
            prop_assert_eq!(&progress, &a.progress());
            for b in &nodes {
                let mut told = b.clone();
                let merged = told.merge_progress(&progress).unwrap();
                prop_assert_eq!(merged.changed, told != *b);
                prop_assert!(!merged.layout_changed);
                let same = a.commit_hash() == b.commit_hash();
                prop_assert_eq!(told, if same { joined(b.clone(), a) } else { b.clone() });
            }
        }
    }

    #[test]
    fn damaged_progress_does_no_harm(
        acts in prop::collection::vec(act(), 1..30), at in any::<prop::sample::Index>(), flip in 1..=255u8,
    ) {
        for m in run(&acts) {
            let mut bytes = postcard::to_allocvec(&m.progress()).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let Ok(read) = postcard::from_bytes::<Progress>(&bytes) else { continue };
            let mut merged = m.clone();
            let result = merged.merge_progress(&read);
            prop_assert!(result.is_ok_and(|result| result.changed) || merged == m);
            prop_assert_eq!(merged.commit_hash(), m.commit_hash());
            let again = postcard::to_allocvec(&merged).unwrap();
            prop_assert_eq!(postcard::from_bytes::<Membership>(&again).unwrap(), merged);
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
