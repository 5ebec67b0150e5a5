//! Token rings, against walks done by hand and the paper's rules.

use std::collections::{BTreeMap, BTreeSet};

use gramme_ring::token::{
    EqualPartitions, MAX_TOKENS, Token, TokenError, TokenGain, TokenRing, TokenTable, hash_key,
};
use gramme_ring::{Member, NodeId, TableError, Zone};
use proptest::prelude::*;

fn members(count: u64) -> Vec<Member> {
    (0..count).map(|i| Member::new(NodeId(i * 101 + 1))).collect()
}

fn load(ring: &TokenRing) -> BTreeMap<NodeId, usize> {
    let mut load = BTreeMap::new();
    for token in ring.table().tokens() {
        *load.entry(ring.nodes()[token.node as usize]).or_default() += 1;
    }
    load
}

#[test]
fn a_walk_by_hand() {
    // Positions 10 a, 20 b, 30 a, 40 c, 50 d; zones: a and b in 0, c in 1, d in 2.
    let token = |position, node| Token { position, node };
    let tokens = [token(10, 0), token(20, 1), token(30, 0), token(40, 2), token(50, 3)];
    let ids = [NodeId(0xa), NodeId(0xb), NodeId(0xc), NodeId(0xd)];
    let zones = [0, 0, 1, 2];
    let table = TokenTable::new(&tokens, &ids, &zones).unwrap();
    let owners = |position, n| {
        let mut buffer = [NodeId(0); 8];
        table.owners(position, &mut buffer[..n]).iter().map(|id| format!("{:x}", id.0)).collect::<String>()
    };
    let spread = |position, n| {
        let mut buffer = [NodeId(0); 8];
        table
            .spread_owners(position, &mut buffer[..n])
            .iter()
            .map(|id| format!("{:x}", id.0))
            .collect::<String>()
    };
    for (position, expected) in
        [(0, "abc"), (10, "abc"), (11, "bac"), (25, "acd"), (31, "cda"), (41, "dab"), (51, "abc")]
    {
        assert_eq!(owners(position, 3), expected, "{position}");
    }
    assert_eq!(owners(31, 8), "cdab");
    assert_eq!(owners(31, 0), "");
    for (position, expected) in [(0, "acd"), (11, "bcd"), (25, "acd"), (41, "dac"), (51, "acd")] {
        assert_eq!(spread(position, 3), expected, "{position}");
    }
    // Zones exhausted, the rest follows the ring.
    assert_eq!(spread(0, 4), "acdb");
    assert_eq!(spread(0, 8), "acdb");

    let refused =
        |tokens: &[Token], ids: &[NodeId], zones: &[u32]| TokenTable::new(tokens, ids, zones).unwrap_err();
    let swapped = [token(2, 0), token(1, 0)];
    assert_eq!(refused(&swapped, &ids, &zones), TableError::UnsortedTokens);
    assert_eq!(refused(&[token(0, 1), token(1, 4)], &ids, &zones), TableError::UnknownNode { index: 1 });
    assert_eq!(refused(&tokens, &ids, &[0]), TableError::Length { expected: 4, found: 1 });
    for unsorted in [[2, 1, 3, 4], [1, 1, 3, 4]] {
        assert_eq!(refused(&tokens, &unsorted.map(NodeId), &zones), TableError::UnsortedNodes);
    }
    assert_eq!(refused(&[], &[], &[]), TableError::NoNodes);
    assert_eq!(refused(&[], &ids, &zones), TableError::NoTokens);
}

#[test]
fn replicas_are_as_many_as_asked_for() {
    let ring = TokenRing::random(8, 3, &members(3)).unwrap();
    let table = ring.table();
    for position in (0..64).map(|i| i << 58) {
        let mut buffer = [NodeId(0); 3];
        assert_eq!(table.replicas::<3>(position).unwrap(), table.spread_owners(position, &mut buffer));
    }
    assert_eq!(table.replicas::<4>(7), Err(TableError::TooFewNodes { wanted: 4, found: 3 }));
    assert_eq!(table.replicas::<0>(7), Ok([]));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn equal_partitions_tile_the_circle(count in 1..100_000u32, position in any::<u64>(), p in any::<u32>()) {
        let q = EqualPartitions::new(count).unwrap();
        let of = q.partition_of(position);
        prop_assert!(of < count);
        prop_assert!(position <= q.end(of));
        let p = p % count;
        prop_assert_eq!(q.partition_of(q.end(p)), p);
        prop_assert_eq!(q.partition_of(q.end(p).wrapping_add(1)), (p + 1) % count);
    }

    #[test]
    fn random_tokens_are_consistent(count in 2..20u64, gone in any::<prop::sample::Index>(), key in any::<u64>()) {
        // What the others own stays theirs when one leaves.
        let all = members(count);
        let left: Vec<Member> = {
            let gone = gone.index(all.len());
            all.iter().enumerate().filter(|&(i, _)| i != gone).map(|(_, m)| m.clone()).collect()
        };
        let (before, after) = (TokenRing::random(16, 9, &all).unwrap(), TokenRing::random(16, 9, &left).unwrap());
        let mut buffers = [[NodeId(0); 20]; 2];
        let [a, b] = &mut buffers;
        let gone = all[gone.index(all.len())].id;
        let before: Vec<NodeId> = before.table().owners(key, a).iter().copied().filter(|&id| id != gone).collect();
        prop_assert_eq!(&before[..], after.table().owners(key, b));
        prop_assert_eq!(before.len() as u64, count - 1);
    }

    #[test]
    fn tokens_stolen_and_given(
        weights in prop::collection::vec(1..5u32, 1..12), change in any::<prop::sample::Index>(), count in 1..400u32,
    ) {
        let q = EqualPartitions::new(count).unwrap();
        let members: Vec<Member> =
            (1..).zip(&weights).map(|(id, &weight)| Member::new(NodeId(id)).with_weight(weight)).collect();
        let ring = TokenRing::equal(q, 3, &members, None).unwrap();
        prop_assert_eq!(ring.table().tokens().len(), count as usize);
        // Leaves, or weighs more.
        let mut changed = members.clone();
        let i = change.index(members.len() * 2);
        if i < members.len() && members.len() > 1 { drop(changed.remove(i)); } else { changed[i % members.len()].weight += 2; }
        let next = TokenRing::equal(q, 3, &changed, Some(&ring)).unwrap();
        let (before, after) = (load(&ring), load(&next));
        let total: u32 = changed.iter().map(|m| m.weight).sum();
        for m in &changed {
            let owned = after.get(&m.id).copied().unwrap_or(0);
            // Within one of its share, up to what the others' rounding takes.
            let share = count as usize * m.weight as usize / total as usize;
            prop_assert!(owned + 1 >= share && owned <= share + changed.len(), "{owned} of {share}");
        }
        // Nobody both gives and takes.
        let mut moved = 0;
        for (old, new) in ring.table().tokens().iter().zip(next.table().tokens()) {
            moved += usize::from(ring.nodes()[old.node as usize] != next.nodes()[new.node as usize]);
        }
        let needed: usize =
            changed.iter().map(|m| after.get(&m.id).unwrap_or(&0).saturating_sub(*before.get(&m.id).unwrap_or(&0))).sum();
        prop_assert_eq!(moved, needed);
    }
}

fn weight() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 1..5u32, 2 => 90..110u32, 1 => Just(u32::MAX)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Coverage, whatever the weights: with fewer tokens than members as many members as there are tokens have one.
    #[test]
    fn equal_tokens_give_every_partition_its_owners(
        weights in prop::collection::vec(weight(), 1..40), later in prop::collection::vec(weight(), 1..40), count in 1..300u32,
    ) {
        let q = EqualPartitions::new(count).unwrap();
        let members = |weights: &[u32]| -> Vec<Member> {
            (1..).zip(weights).map(|(id, &weight)| Member::new(NodeId(id)).with_weight(weight)).collect()
        };
        let before = TokenRing::equal(q, 3, &members(&weights), None).unwrap();
        let after = TokenRing::equal(q, 3, &members(&later), Some(&before)).unwrap();
        for (ring, weights) in [(before, weights), (after, later)] {
            let owners = weights.len().min(count as usize);
            prop_assert_eq!(load(&ring).len(), owners);
            for p in 0..count {
                let mut buffer = [NodeId(0); 5];
                let found = ring.table().spread_owners(q.end(p), &mut buffer).iter().collect::<BTreeSet<_>>().len();
                prop_assert_eq!(found, owners.min(5));
            }
            // No more to the light ones than that costs.
            let heaviest = weights.iter().max().unwrap();
            let load = load(&ring);
            let most = (1..).zip(&weights).filter(|(_, weight)| weight == &heaviest).map(|(id, _)| load.get(&NodeId(id)).copied().unwrap_or(0)).max().unwrap();
            prop_assert!(load.values().all(|&tokens| tokens <= most));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A ring that was kept is the same ring to who makes the next; what the next moves is told as owners say key by key.
    #[test]
    fn kept_and_followed(
        weights in prop::collection::vec(1..5u32, 1..12), later in prop::collection::vec(1..5u32, 1..12),
        count in 1..200u32, keys in any::<[u64; 16]>(), equal in any::<bool>(),
    ) {
        let members = |weights: &[u32]| -> Vec<Member> {
            let zone = |id: u64| Zone::new(["a", "b", "c"][usize::try_from(id % 3).unwrap()]).unwrap();
            (1..).zip(weights).map(|(id, &weight)| Member::new(NodeId(id)).with_weight(weight).with_zone(zone(id))).collect()
        };
        let ring = |weights: &[u32], former: Option<&TokenRing>| {
            if equal {
                TokenRing::equal(EqualPartitions::new(count).unwrap(), 3, &members(weights), former).unwrap()
            } else {
                TokenRing::random(4, 3, &members(weights)).unwrap()
            }
        };
        let before = ring(&weights, None);
        let parts = (before.table().tokens().to_vec(), before.nodes().to_vec(), before.zones().to_vec());
        let kept = TokenRing::from_parts(parts.0, parts.1, parts.2).unwrap();
        prop_assert_eq!(&kept, &before);
        let after = ring(&later, Some(&kept));
        prop_assert_eq!(&after, &ring(&later, Some(&before)));
        let gains: Vec<TokenGain> = after.gains::<3>(&kept).collect();
        let edges = gains.iter().flat_map(|gain| [gain.first, gain.last]);
        for key in keys.into_iter().chain(edges) {
            let owners = |ring: &TokenRing| {
                let mut buffer = [NodeId(0); 3];
                ring.table().spread_owners(key, &mut buffer).iter().copied().collect::<BTreeSet<_>>()
            };
            let new: BTreeSet<NodeId> = &owners(&after) - &owners(&before);
            let within = |gain: &&TokenGain| key.wrapping_sub(gain.first) <= gain.last.wrapping_sub(gain.first);
            let told: Vec<NodeId> = gains.iter().filter(within).map(|gain| gain.node).collect();
            prop_assert_eq!(told.len(), new.len(), "each once");
            prop_assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), new);
        }
        prop_assert_eq!(before.gains::<3>(&kept).count(), 0);
        // By partitions, which tokens cut anywhere: owners are those of their ends.
        let q = EqualPartitions::new(count).unwrap();
        let mut expected = Vec::new();
        for p in (0..count).rev() {
            let owners = |ring: &TokenRing| ring.table().spread_owners(q.end(p), &mut [NodeId(0); 3]).to_vec();
            let (was, is) = (owners(&before), owners(&after));
            let first = q.end((p + count - 1) % count).wrapping_add(1);
            let new = is.into_iter().filter(|node| !was.contains(node));
            expected.extend(new.map(|node| TokenGain { node, first, last: q.end(p) }));
        }
        prop_assert_eq!(after.gains_of::<3>(&before, q).collect::<Vec<_>>(), expected);
    }
}

/// However far the last owner of a partition is: while each was walked to, this took minutes, and eight times as many tokens hours.
#[test]
fn gains_take_time_in_proportion_to_tokens() {
    let weighing = |light| {
        [(1, 1_000_000), (2, 1_000_000), (3, light)].map(|(id, w)| Member::new(NodeId(id)).with_weight(w))
    };
    let q = EqualPartitions::new(1 << 18).unwrap();
    let before = TokenRing::equal(q, 1, &weighing(1), None).unwrap();
    let after = TokenRing::equal(q, 1, &weighing(1000), Some(&before)).unwrap();
    assert_eq!(load(&before)[&NodeId(3)], 1);
    // All three own all, and with two owners what the light one gained moves, token by token or so.
    assert_eq!(after.gains::<3>(&before).count(), 0);
    assert_eq!(after.gains_of::<3>(&before, q).count(), 0);
    let gains: Vec<TokenGain> = after.gains::<2>(&before).collect();
    assert!(gains.iter().filter(|gain| gain.node == NodeId(3)).count() >= load(&after)[&NodeId(3)] - 1);
    assert_eq!(after.gains_of::<2>(&before, q).collect::<Vec<_>>(), gains);
}

/// The heavy would take all.
#[test]
fn light_members_own_something() {
    let weighing = |weights: &[u32]| -> Vec<Member> {
        (1..).zip(weights).map(|(id, &weight)| Member::new(NodeId(id)).with_weight(weight)).collect()
    };
    let loads = |count, weights: &[u32]| {
        let ring =
            TokenRing::equal(EqualPartitions::new(count).unwrap(), 1, &weighing(weights), None).unwrap();
        load(&ring).into_values().collect::<Vec<_>>()
    };
    assert_eq!(loads(64, &[100, 100, 1]), [32, 31, 1]);
    assert_eq!(loads(10, &[100, 1, 1, 1]), [7, 1, 1, 1]);
    assert_eq!(loads(1 << 20, &[u32::MAX, 1, u32::MAX]), [1 << 19, 1, (1 << 19) - 1]);
    // Too few for all: the heaviest have one each.
    let ring =
        TokenRing::equal(EqualPartitions::new(3).unwrap(), 1, &weighing(&[1, 7, 2, 9, 1]), None).unwrap();
    assert_eq!(load(&ring), BTreeMap::from([2, 3, 4].map(|id| (NodeId(id), 1))));
    assert_eq!(ring.table().replicas::<4>(0), Err(TableError::TooFewNodes { wanted: 4, found: 3 }));
}

/// Where shares are no whole numbers, who holds the odd token keeps it.
#[test]
fn rounding_moves_no_token() {
    let q = EqualPartitions::new(4).unwrap();
    let list = members(3);
    let ids = list.iter().map(|m| m.id).collect();
    let tokens = (0..4).zip([0, 1, 2, 2]).map(|(p, node)| Token { position: q.end(p), node }).collect();
    let former = TokenRing::from_parts(tokens, ids, vec![0; 3]).unwrap();
    assert_eq!(TokenRing::equal(q, 1, &list, Some(&former)).unwrap(), former);
}

/// More nodes and more zones than any preference list has places; three nodes to a zone.
#[test]
fn hundreds_of_zones() {
    let zone = |id: NodeId| (id.0 - 1) / 101 % 300;
    let zoned: Vec<Member> = members(900)
        .into_iter()
        .map(|m| Member { zone: Zone::new(&zone(m.id).to_string()).unwrap(), ..m })
        .collect();
    let ring = TokenRing::random(3, 5, &zoned).unwrap();
    for position in [0, 1 << 40, u64::MAX] {
        let mut buffer = [NodeId(0); 1000];
        let zones = |owners: &[NodeId]| owners.iter().map(|id| zone(*id)).collect::<BTreeSet<_>>().len();
        assert!(zones(ring.table().owners(position, &mut buffer[..290])) < 290);
        for most in [250, 257, 290, 300] {
            assert_eq!(zones(ring.table().spread_owners(position, &mut buffer[..most])), most);
        }
        for owners in [
            ring.table().spread_owners(position, &mut buffer).to_vec(),
            ring.table().owners(position, &mut buffer).to_vec(),
        ] {
            assert_eq!((owners.len(), owners.iter().collect::<BTreeSet<_>>().len()), (900, 900));
        }
    }
}

/// Where a token goes depends on the seed, and what a member owns, gives up or steals lies all over the ring.
#[test]
fn tokens_are_given_and_taken_at_random() {
    let q = EqualPartitions::new(1000).unwrap();
    let owned = |ring: &TokenRing, id: NodeId| -> Vec<bool> {
        ring.table().tokens().iter().map(|t| ring.nodes()[t.node as usize] == id).collect()
    };
    // How many of a member's tokens follow one of its own: k²/1000 of k by chance.
    let in_a_row =
        |ring: &TokenRing, id| owned(ring, id).windows(2).filter(|pair| pair[0] && pair[1]).count();
    let ten = members(10);
    let with_newcomer = |members: &[Member]| [members, &[Member::new(NodeId(5))]].concat();
    let [one, two] = [1, 2].map(|seed| {
        let alone = TokenRing::equal(q, seed, &ten[..1], None).unwrap();
        let half = TokenRing::equal(q, seed, &with_newcomer(&ten[..1]), Some(&alone)).unwrap();
        assert!((200..300).contains(&in_a_row(&half, NodeId(5))), "of 500");
        let shared = TokenRing::equal(q, seed, &ten, None).unwrap();
        assert!(ten.iter().all(|m| (1..25).contains(&in_a_row(&shared, m.id))), "of 100 each");
        let next = TokenRing::equal(q, seed, &with_newcomer(&ten), Some(&shared)).unwrap();
        assert!((1..25).contains(&in_a_row(&next, NodeId(5))), "of 90");
        [shared, next, TokenRing::random(100, seed, &ten).unwrap()]
    });
    for (one, two) in one.iter().zip(&two) {
        // A tenth is the same by chance, of random ones nothing.
        let same = one.table().tokens().iter().zip(two.table().tokens()).filter(|(a, b)| a == b).count();
        assert!(same < 150, "{same}");
    }
}

#[test]
fn owners_are_distinct_and_spread() {
    let zoned: Vec<Member> = members(30)
        .into_iter()
        .enumerate()
        .map(|(i, m)| m.with_zone(Zone::new(["a", "b", "c", "d"][i % 4]).unwrap()))
        .collect();
    let ring = TokenRing::random(32, 5, &zoned).unwrap();
    let zone: BTreeMap<NodeId, &Zone> = zoned.iter().map(|m| (m.id, &m.zone)).collect();
    for i in 0..2000u64 {
        let position = hash_key(&i.to_le_bytes());
        let mut buffer = [NodeId(0); 6];
        let owners = ring.table().spread_owners(position, &mut buffer);
        assert_eq!(owners.iter().collect::<BTreeSet<_>>().len(), 6);
        assert_eq!(owners[..4].iter().map(|id| zone[id]).collect::<BTreeSet<_>>().len(), 4);
    }
}

#[test]
fn weights_are_honoured() {
    let mut list = members(3);
    list[1].weight = 4;
    let ring = TokenRing::random(100, 1, &list).unwrap();
    assert_eq!(load(&ring).into_values().collect::<Vec<_>>(), [100, 400, 100]);
    let equal = TokenRing::equal(EqualPartitions::new(600).unwrap(), 1, &list, None).unwrap();
    assert_eq!(load(&equal).into_values().collect::<Vec<_>>(), [100, 400, 100]);
}

#[test]
fn hashes_are_frozen_and_even() {
    // Rings of different versions must agree.
    let hashes = [hash_key(b""), hash_key(b"foo"), hash_key(b"0123456789")];
    assert_eq!(hashes, [0x0d81_21d3_a540_498e, 0xee82_12ce_d8ec_0c46, 0xf718_b1d3_6711_3b25]);
    let mut bins = [0u32; 64];
    for i in 0..64_000u32 {
        bins[usize::try_from(hash_key(format!("user:{i}").as_bytes()) >> 58).unwrap()] += 1;
    }
    // 1000 each; a spread of five standard deviations.
    assert!(bins.iter().all(|&n| (840..1160).contains(&n)), "{bins:?}");
}

#[test]
fn bad_arguments_are_named() {
    let q = EqualPartitions::new(10).unwrap();
    assert_eq!(TokenRing::random(1, 0, &[]), Err(TokenError::NoMembers));
    assert_eq!(TokenRing::random(0, 0, &members(1)), Err(TokenError::NoTokens));
    assert_eq!(TokenRing::random(u32::MAX, 0, &members(1)), Err(TokenError::TooManyTokens));
    let heavy = [Member::new(NodeId(1)).with_weight(u32::MAX), Member::new(NodeId(2)).with_weight(u32::MAX)];
    assert_eq!(TokenRing::random(u32::MAX, 0, &heavy), Err(TokenError::TooManyTokens));
    let twice = [members(1), members(1)].concat();
    assert_eq!(TokenRing::equal(q, 0, &twice, None), Err(TokenError::DuplicateMember(NodeId(1))));
    let light = [Member::new(NodeId(4)).with_weight(0)];
    assert_eq!(TokenRing::random(1, 0, &light), Err(TokenError::ZeroWeight(NodeId(4))));
    let other = TokenRing::random(10, 0, &members(1)).unwrap();
    assert_eq!(TokenRing::equal(q, 0, &members(1), Some(&other)), Err(TokenError::OtherPartitions));
    let token = |position, node| Token { position, node };
    let parts = |tokens: &[Token], ids: &[u64]| {
        TokenRing::from_parts(tokens.to_vec(), ids.iter().copied().map(NodeId).collect(), vec![0; ids.len()])
    };
    assert!(parts(&[token(1, 1), token(5, 0)], &[4, 6]).is_ok());
    for (tokens, ids, flaw) in [
        (&[token(5, 1), token(1, 0)][..], &[4, 6][..], TableError::UnsortedTokens),
        (&[token(1, 2)], &[4, 6], TableError::UnknownNode { index: 0 }),
        (&[token(1, 0)], &[6, 4], TableError::UnsortedNodes),
        (&[], &[4], TableError::NoTokens),
    ] {
        assert_eq!(parts(tokens, ids), Err(TokenError::Table(flaw)));
    }
    let many = vec![token(0, 0); MAX_TOKENS + 1];
    assert_eq!(TokenRing::from_parts(many, vec![NodeId(4)], vec![0]), Err(TokenError::TooManyTokens));
    for count in [0, (1 << 24) + 1, u32::MAX] {
        assert_eq!(EqualPartitions::new(count), Err(TableError::PartitionCount(count)));
    }
    assert_eq!(EqualPartitions::new(1 << 24).map(EqualPartitions::count), Ok(1 << 24));
}

/// Tokens that nodes drew alike, as `from_parts` takes them: the first by its node stands before the others.
#[test]
fn several_tokens_at_one_position() {
    let ring = |tokens: &[(u64, u32)]| {
        let tokens = tokens.iter().map(|&(position, node)| Token { position, node }).collect();
        TokenRing::from_parts(tokens, (1..=4).map(NodeId).collect(), vec![0; 4]).unwrap()
    };
    let rings = [
        ring(&[(10, 0), (10, 1), (10, 2), (20, 3)]),
        ring(&[(10, 2), (20, 0), (20, 1), (20, 3), (30, 1)]),
        ring(&[(0, 3), (10, 0), (u64::MAX, 1), (u64::MAX, 2)]),
    ];
    let keys = [0, 1, 9, 10, 11, 19, 20, 21, 29, 30, 31, u64::MAX - 1, u64::MAX];
    for (before, after) in rings.iter().flat_map(|before| rings.iter().map(move |after| (before, after))) {
        let gains: Vec<TokenGain> = after.gains::<2>(before).collect();
        for key in keys {
            let owners = |ring: &TokenRing| ring.table().spread_owners(key, &mut [NodeId(0); 2]).to_vec();
            let (was, is) = (owners(before), owners(after));
            let new: BTreeSet<NodeId> = is.into_iter().filter(|id| !was.contains(id)).collect();
            let within =
                |gain: &&TokenGain| key.wrapping_sub(gain.first) <= gain.last.wrapping_sub(gain.first);
            let told: Vec<NodeId> = gains.iter().filter(within).map(|gain| gain.node).collect();
            assert_eq!(told.len(), new.len(), "each once");
            assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), new, "{key}");
        }
    }
}
