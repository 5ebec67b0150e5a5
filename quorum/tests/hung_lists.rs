//! Listings that never come back: whoever asked for one goes on, and what a late one missed is not taken for seen.

mod common;

use common::changes::commit;
use common::strays::{D, partition, send_copy};
use common::*;
use gramme_quorum::message::Message;
use gramme_quorum::planted::Planted;
use gramme_quorum::*;
use gramme_ring::Change;

/// The first place of hints.
const HINTS: Place = Place(1 << 15);

/// A member leaves whose disk never answers one of its listings. Whether the change ends.
fn leaves(holds: fn(Place, bool, usize) -> bool) -> bool {
    let mut cluster = Cluster::new(4);
    for i in 0..50 {
        cluster.put(A, &format!("key {i}"), "v", Cover::Held);
    }
    cluster.pass(Duration::from_secs(2));
    cluster.nodes.get_mut(&D).unwrap().holds = Some(holds);
    commit(&mut cluster, A, vec![Change::Leave(D)]);
    for _ in 0..300 {
        cluster.pass(Duration::from_secs(1));
    }
    assert_eq!(cluster.nodes[&D].held_lists.len(), 1, "else this shows nothing");
    cluster.nodes[&A].engine.membership().transition().is_none()
}

#[test]
fn a_partition_whose_listing_hangs_is_offered_all_the_same() {
    assert!(leaves(|_, _, limit| limit == 1));
}

#[test]
fn hints_whose_listing_hangs_are_listed_again() {
    assert!(leaves(|first, _, _| first >= HINTS));
}

#[test]
fn a_peer_whose_pages_hang_is_told_and_asks_again() {
    let mut cluster = Cluster::with(3, |config| config.timing.exchange = Duration::from_secs(2));
    cluster.pass(Duration::from_secs(2));
    cluster.loses = |_, to, message| to == C && matches!(message, Message::Write { .. });
    cluster.put(A, "key", "v", Cover::Held);
    cluster.loses = |_, _, _| false;
    for id in [A, B] {
        cluster.nodes.get_mut(&id).unwrap().lists = false;
    }
    for _ in 0..600 {
        cluster.pass(Duration::from_secs(1));
    }
    for id in [A, B] {
        let node = cluster.nodes.get_mut(&id).unwrap();
        assert!(node.held_lists.len() > 8, "more than a peer may ask for at a time");
        node.lists = true;
    }
    for _ in 0..30 {
        cluster.pass(Duration::from_secs(1));
    }
    assert_eq!(cluster.copy(C, "key"), Some(vec![String::from("v")]));
}

/// D keeps hints for C, more than a page of them, and copies that it does not own. Something comes to two of those partitions, of one of
/// which it keeps a hint, as it begins to look through all hints, `second` seconds after that came to others; the second page
/// takes a while. Whether all copies stay of which it keeps hints.
fn keeps_what_is_hinted(second: u32, planted: Planted) -> bool {
    let mut cluster = Cluster::with(4, |config| config.timing.exchange = Duration::from_secs(3600));
    cluster.crash(D);
    cluster.start_planted(D, planted);
    let left = |key: &String| cluster.preference(key)[3] == D;
    let keys: Vec<String> = (0..).map(|i| format!("key {i}")).filter(left).take(420).collect();
    for key in &keys {
        cluster.put(A, key, "v", Cover::Held);
    }
    cluster.pass(Duration::from_secs(1));
    for peer in [A, B, D] {
        cluster.cut(C, peer, true);
    }
    let mut partitions: Vec<u16> = keys.iter().map(|key| partition(key)).collect();
    partitions.sort_unstable();
    partitions.dedup();
    let in_partition = |wanted: u16| keys.iter().filter(move |key| partition(key) == wanted);
    let without = in_partition(partitions[0]).next().unwrap();
    let with = in_partition(partitions[1]).nth(1).unwrap();
    let beside = |key: &&String| !partitions[..2].contains(&partition(key)) || *key == with;
    let hinted: Vec<&String> = keys.iter().filter(beside).collect();
    for key in &hinted {
        send_copy(&mut cluster, key, &[C]);
    }
    assert!(cluster.hints(D) > 256);
    let other = hinted.iter().find(|key| **key != with).unwrap();
    send_copy(&mut cluster, other, &[]);
    cluster.pass(Duration::from_secs(30));
    cluster.loses = |from, to, message| matches!(message, Message::Write { .. }) && (from, to) == (A, D);
    for now in 0..150 {
        let comes: &[&String] = match now {
            0 => &[other, without, with],
            _ if now == second => &[without, with],
            _ => &[],
        };
        if !comes.is_empty() {
            cluster.nodes.get_mut(&D).unwrap().holds = Some(|first, goes_on, _| first >= HINTS && goes_on);
        }
        for key in comes {
            cluster.put(A, key, &format!("{now}"), Cover::Held);
            send_copy(&mut cluster, key, &[]);
        }
        cluster.pass(Duration::from_secs(1));
        for listed in std::mem::take(&mut cluster.nodes.get_mut(&D).unwrap().held_lists) {
            cluster.input(D, listed);
        }
        cluster.run();
        if hinted.iter().any(|key| cluster.copy(D, key).is_none()) {
            return false;
        }
    }
    true
}

#[test]
fn a_look_through_hints_frees_nothing_that_it_did_not_watch() {
    for second in 60..62 {
        let kept = keeps_what_is_hinted(second, Planted::default());
        assert!(kept, "a partition went of which there was a hint");
    }
}

#[cfg(feature = "planted")]
#[test]
fn a_look_that_frees_all_is_found() {
    assert!(!keeps_what_is_hinted(60, Planted::one(gramme_quorum::planted::Bug::LookFreesAll)));
}
