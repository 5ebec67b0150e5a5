//! Borrowed tables of owners, tokens and fingers out of arbitrary slices: refused, or they answer like a plain reading.

use crate::source::Source;
use gramme_ring::finger::{FingerTable, Hop, Place, Ring, id_fingers, rank_fingers};
use gramme_ring::token::{EqualPartitions, Token, TokenError, TokenGain, TokenRing, TokenTable};
use gramme_ring::{NodeId, OwnerTable};

/// One table of each kind.
///
/// # Panics
/// If an answer is wrong.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let mut ids: Vec<NodeId> = (0..source.below(9)).map(|_| NodeId(source.byte().into())).collect();
    if source.flag() {
        ids.sort_unstable();
        ids.dedup();
    }
    owners(&ids, &mut source);
    tokens(&ids, &mut source);
    let wide = source.flag();
    let position = |source: &mut Source<'_>| if wide { source.u64() } else { source.byte().into() };
    let mut places: Vec<Place> = (0..source.below(20))
        .map(|n| Place { position: position(&mut source), node: NodeId(n as u64) })
        .collect();
    lone_table(&places, &mut source);
    if source.flag() {
        places.sort_unstable();
        places.dedup_by_key(|place| place.position);
    }
    routes(&places, &mut source);
}

fn owners(ids: &[NodeId], source: &mut Source<'_>) {
    let partitions = 1u32 << source.below(4) | u32::from(source.below(32) == 7);
    let places: Vec<u16> = (0..source.below(40)).map(|_| source.below(10) as u16).collect();
    let Ok(table) = OwnerTable::new(partitions, ids, &places) else { return };
    let row = table.owner_count();
    assert_eq!(places.len(), row * partitions as usize);
    for partition in table.partition_count().partitions() {
        let at = usize::from(partition.index()) * row;
        let owners: Vec<NodeId> = table.owners(partition).collect();
        assert!(owners.iter().eq(places[at..at + row].iter().map(|&place| &ids[usize::from(place)])));
        let ring = places[at..].iter().chain(&places).map(|&place| ids[usize::from(place)]);
        let all = distinct(ring.chain(ids.iter().copied()));
        assert_eq!(all[..row], owners, "an owner twice");
        let mut buffer = [NodeId(0); 12];
        let room = source.below(13);
        assert_eq!(table.preference(partition, &mut buffer[..room]), &all[..room.min(all.len())]);
        assert_eq!(table.replicas::<2>(partition).ok().as_ref().map(|two| &two[..]), owners.get(..2));
    }
}

fn distinct(ids: impl Iterator<Item = NodeId>) -> Vec<NodeId> {
    let mut seen = Vec::new();
    for id in ids {
        if !seen.contains(&id) {
            seen.push(id);
        }
    }
    seen
}

fn tokens(ids: &[NodeId], source: &mut Source<'_>) {
    let zones: Vec<u32> = ids.iter().map(|_| source.below(4) as u32).collect();
    let mut tokens: Vec<Token> = (0..source.below(40))
        .map(|_| Token { position: source.byte().into(), node: source.below(ids.len() + 1) as u32 })
        .collect();
    if source.flag() {
        tokens.retain(|token| (token.node as usize) < ids.len());
        tokens.sort_unstable();
    }
    let owned = TokenRing::from_parts(tokens.clone(), ids.to_vec(), zones.clone());
    let table = TokenTable::new(&tokens, ids, &zones);
    assert_eq!(owned.as_ref().err(), table.as_ref().err().copied().map(TokenError::Table).as_ref());
    let (Ok(owned), Ok(table)) = (owned, table) else { return };
    assert_eq!(owned.gains::<3>(&owned).count(), 0);
    gains(&owned, &mut source.clone());
    for _ in 0..4 {
        let position = u64::from(source.u16());
        let start = tokens.iter().position(|token| token.position >= position).unwrap_or(0);
        let (before, after) = tokens.split_at(start);
        let all = distinct(after.iter().chain(before).map(|token| ids[token.node as usize]));
        let zone = |id: &NodeId| zones[ids.iter().position(|known| known == id).expect("one of them")];
        let firsts: Vec<NodeId> = all
            .iter()
            .enumerate()
            .filter(|(n, id)| all[..*n].iter().all(|other| zone(other) != zone(id)))
            .map(|(_, id)| *id)
            .collect();
        let spread = distinct(firsts.into_iter().chain(all.iter().copied()));
        let mut buffer = [NodeId(0); 12];
        let room = source.below(13);
        assert_eq!(table.owners(position, &mut buffer[..room]), &all[..room.min(all.len())]);
        assert_eq!(table.spread_owners(position, &mut buffer[..room]), &spread[..room.min(all.len())]);
        assert_eq!(table.replicas::<3>(position).ok().as_ref().map(|three| &three[..]), spread.get(..3));
    }
}

/// What moves to a ring of other tokens, against owners looked up at every end.
fn gains(now: &TokenRing, source: &mut Source<'_>) {
    let other = |token: &Token| Token {
        position: token.position ^ u64::from(source.byte()),
        node: source.below(now.nodes().len()) as u32,
    };
    let mut tokens: Vec<Token> = now.table().tokens().iter().map(other).collect();
    tokens.sort_unstable();
    let then = TokenRing::from_parts(tokens, now.nodes().to_vec(), now.zones().to_vec()).expect("as before");
    let partitions = EqualPartitions::new(1 + source.below(70) as u32).expect("a few");
    let mut tokens_end: Vec<u64> =
        [now, &then].iter().flat_map(|ring| ring.table().tokens()).map(|token| token.position).collect();
    tokens_end.sort_unstable();
    tokens_end.dedup();
    let partitions_end: Vec<u64> = (0..partitions.count()).map(|p| partitions.end(p)).collect();
    let expected = |ends: &[u64]| -> Vec<TokenGain> {
        let owners = |ring: &TokenRing, at| ring.table().spread_owners(at, &mut [NodeId(0); 3]).to_vec();
        let mut moved = Vec::new();
        for (n, &last) in ends.iter().enumerate().rev() {
            let first = ends[(n + ends.len() - 1) % ends.len()].wrapping_add(1);
            let was = owners(&then, last);
            let new = owners(now, last).into_iter().filter(|node| !was.contains(node));
            moved.extend(new.map(|node| TokenGain { node, first, last }));
        }
        moved
    };
    assert!(now.gains::<3>(&then).eq(expected(&tokens_end)));
    assert!(now.gains_of::<3>(&then, partitions).eq(expected(&partitions_end)));
}

/// A table that nobody built: its hops come closer all the same.
fn lone_table(places: &[Place], source: &mut Source<'_>) {
    let [predecessor, me, fingers @ ..] = places else { return };
    let mut fingers = fingers.to_vec();
    let distance = |position: u64| position.wrapping_sub(me.position);
    if source.flag() {
        fingers.sort_unstable_by_key(|place| distance(place.position));
    }
    let Ok(table) = FingerTable::new(*predecessor, *me, &fingers) else { return };
    let table = table.with_successors(source.byte().into());
    let dead = source.u16();
    let alive = |node: NodeId| dead >> (node.0 % 16) & 1 == 0;
    for _ in 0..4 {
        let key = source.u64();
        let place = |id| fingers.iter().find(|place| place.node == id).expect("one of the fingers");
        match table.next_hop(key, alive) {
            Hop::Here | Hop::Unreachable => {}
            Hop::Owner(id) => assert!(alive(id) && distance(place(id).position) >= distance(key)),
            Hop::Via(id) => assert!(alive(id) && (1..distance(key)).contains(&distance(place(id).position))),
        }
    }
}

/// Requests among nodes with fingers of either kind, some of them dead: they end at the first who lives, or nowhere.
fn routes(places: &[Place], source: &mut Source<'_>) {
    let Ok(ring) = Ring::new(places) else { return };
    let successors = source.below(6);
    let dead = if source.flag() { source.u16() } else { 0 };
    let alive = |node: NodeId| dead >> (node.0 % 16) & 1 == 0;
    for _ in 0..4 {
        let (rank, key) = (source.flag(), source.u64() >> if source.flag() { 56 } else { 0 });
        let mut at = source.below(21);
        let mut hops = 0;
        let first = places.partition_point(|place| place.position < key);
        let owner = places[first..].iter().chain(places).map(|place| place.node).find(|node| alive(*node));
        let end = loop {
            let mut buffer = [Place { position: 0, node: NodeId(0) }; 70];
            let build = if rank { rank_fingers } else { id_fingers };
            let Ok(fingers) = build(ring, at, successors, &mut buffer) else {
                assert!(at >= places.len());
                return;
            };
            let before = places[(at + places.len() - 1) % places.len()];
            let table = FingerTable::new(before, places[at], fingers).expect("as it was built");
            match table.with_successors(successors).next_hop(key, alive) {
                Hop::Here => break Some(places[at].node),
                Hop::Owner(node) => {
                    hops += 1;
                    break Some(node);
                }
                Hop::Via(node) => {
                    hops += 1;
                    at = places.iter().position(|place| place.node == node).expect("one of them");
                }
                Hop::Unreachable => break None,
            }
            assert!(hops < places.len(), "in circles");
        };
        // A node that is dead may ask and find the key its own.
        assert!(end.is_none() || end == owner || end.is_some_and(|node| !alive(node)));
        if dead == 0 && successors > 0 {
            assert!(end == owner);
            assert!(!rank || hops <= places.len().next_power_of_two().ilog2() as usize, "{hops} hops");
        }
    }
}
