//! Preference lists, read from tables of text that say what is meant. See `tests/preference/`.

use std::collections::BTreeMap;

use gramme_ring::token::{Token, TokenTable};
use gramme_ring::{Layout, NodeId};
use serde::Serialize;

mod hashed;

use hashed::hashed;

/// A layout as it is encoded, so that a table can be written down by hand.
#[derive(Serialize)]
struct Written {
    version: u64,
    parent: u64,
    replicas: u8,
    partitions: u32,
    members: Vec<(u64, u32, String)>,
    table: Vec<u16>,
}

fn run(name: &str, text: &str) {
    let mut members: Vec<(char, String)> = Vec::new();
    let mut owners: BTreeMap<u16, String> = BTreeMap::new();
    let mut expected: Vec<(u16, String)> = Vec::new();
    let mut replicas = 0;
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (key, rest) = line.split_once(':').unwrap();
        let letters: String = rest.split_whitespace().filter(|w| *w != "|").collect();
        match key.split_whitespace().collect::<Vec<_>>()[..] {
            ["replicas"] => replicas = letters.parse().unwrap(),
            ["zone", zone] => members.extend(letters.chars().map(|c| (c, zone.to_owned()))),
            ["owners", p] => drop(owners.insert(p.parse().unwrap(), letters)),
            ["list", p] => expected.push((p.parse().unwrap(), letters)),
            _ => panic!("{name}: {line}"),
        }
    }
    members.sort();
    let place = |c: char| u16::try_from(members.iter().position(|m| m.0 == c).unwrap()).unwrap();
    let written = Written {
        version: 1,
        parent: 0,
        replicas,
        partitions: u32::try_from(owners.len()).unwrap(),
        members: members.iter().map(|(c, zone)| (u64::from(*c), 1, zone.clone())).collect(),
        table: owners.values().flat_map(|row| row.chars().map(place)).collect(),
    };
    let layout: Layout = postcard::from_bytes(&hashed(&postcard::to_allocvec(&written).unwrap())).unwrap();
    assert!(!expected.is_empty(), "{name}");
    for (p, list) in expected {
        let partition = layout.partition_count().partition(p.into()).unwrap();
        let preference = layout.preference(partition);
        assert_eq!(preference.len(), members.len());
        let found: String = preference.map(|NodeId(id)| char::from(u8::try_from(id).unwrap())).collect();
        assert_eq!(found, list, "{name}, partition {p}");
    }
}

/// The same for rings of tokens: `list` is in ring order, `spread` over the zones.
fn run_tokens(name: &str, text: &str) {
    let mut members: Vec<(char, String)> = Vec::new();
    let mut tokens: Vec<(u64, char)> = Vec::new();
    let mut expected: Vec<(bool, u64, String)> = Vec::new();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (key, rest) = line.split_once(':').unwrap();
        let words: Vec<&str> = rest.split_whitespace().collect();
        match key.split_whitespace().collect::<Vec<_>>()[..] {
            ["zone", zone] => members.extend(words.concat().chars().map(|c| (c, zone.to_owned()))),
            ["tokens"] => {
                let token = |pair: &[&str]| (pair[0].parse().unwrap(), pair[1].chars().next().unwrap());
                tokens.extend(words.chunks(2).map(token));
            }
            [kind @ ("list" | "spread"), at] => {
                expected.push((kind == "spread", at.parse().unwrap(), words.concat()));
            }
            _ => panic!("{name}: {line}"),
        }
    }
    members.sort();
    let place = |c: char| u32::try_from(members.iter().position(|m| m.0 == c).unwrap()).unwrap();
    let ids: Vec<NodeId> = members.iter().map(|m| NodeId(u64::from(m.0))).collect();
    let zones: Vec<u32> =
        members.iter().map(|m| place(members.iter().find(|other| other.1 == m.1).unwrap().0)).collect();
    let tokens: Vec<Token> = tokens.iter().map(|&(position, c)| Token { position, node: place(c) }).collect();
    let table = TokenTable::new(&tokens, &ids, &zones).unwrap();
    for (spread, at, list) in expected {
        let mut buffer = [NodeId(0); 8];
        let owners =
            if spread { table.spread_owners(at, &mut buffer) } else { table.owners(at, &mut buffer) };
        let found: String = owners.iter().map(|id| char::from(u8::try_from(id.0).unwrap())).collect();
        assert_eq!(found, list, "{name}, position {at}");
    }
}

#[test]
fn token_tables() {
    run_tokens("tokens", include_str!("preference/tokens.txt"));
    run_tokens("token_zones", include_str!("preference/token_zones.txt"));
}

#[test]
fn tables() {
    for (name, text) in [
        ("ring", include_str!("preference/ring.txt")),
        ("weights", include_str!("preference/weights.txt")),
        ("few", include_str!("preference/few.txt")),
        ("idle", include_str!("preference/idle.txt")),
        ("zones", include_str!("preference/zones.txt")),
    ] {
        run(name, text);
    }
}
