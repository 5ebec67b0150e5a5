//! Preference lists, read from tables of text that say what is meant. See `tests/preference/`.

use std::collections::BTreeMap;

use gramme_ring::{Layout, NodeId};
use serde::Serialize;

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
    let layout: Layout = postcard::from_bytes(&postcard::to_allocvec(&written).unwrap()).unwrap();
    assert!(!expected.is_empty(), "{name}");
    for (p, list) in expected {
        let partition = layout.partition_count().partition(p.into()).unwrap();
        let preference = layout.preference(partition);
        assert_eq!(preference.len(), members.len());
        let found: String = preference.map(|NodeId(id)| char::from(u8::try_from(id).unwrap())).collect();
        assert_eq!(found, list, "{name}, partition {p}");
    }
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
