//! How many hops bounded routing takes among 100,000 nodes, and what it costs beside a full view: the memory that either
//! takes, counted, and the bytes that gossip sends, as encoded; at the end what changes of the membership come to.
//!
//! `cargo run --release -p gramme-ring --example hops [nodes]`. It fails if a request ends at another node than the owner, if
//! rank fingers take more hops than their bound, or if anybody is out of reach while all live.

mod costs;
mod news;

use gramme_ring::finger::{FingerTable, Hop, Place, Ring, id_fingers, rank_fingers};
use gramme_ring::{NodeId, TableError};
use std::error::Error;

type Build = for<'b> fn(Ring<'_>, usize, usize, &'b mut [Place]) -> Result<&'b [Place], TableError>;

/// SplitMix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut x = *state;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The hops it took to reach the owner, the first live node at or after the key; `None` if nobody was left to ask.
fn route(
    ring: &[Place],
    sorted: Ring<'_>,
    build: Build,
    successors: usize,
    start: usize,
    key: u64,
    dead: &[bool],
) -> Result<Option<usize>, TableError> {
    let alive = |node: NodeId| usize::try_from(node.0).is_ok_and(|n| !dead[n]);
    let first = ring.partition_point(|place| place.position < key);
    let owner = ring[first..].iter().chain(ring).map(|place| place.node).find(|node| alive(*node));
    let mut at = start;
    for hops in 0..1000 {
        let mut buffer = [ring[0]; 128];
        let fingers = build(sorted, at, successors, &mut buffer)?;
        let before = ring[(at + ring.len() - 1) % ring.len()];
        let table = FingerTable::new(before, ring[at], fingers)?.with_successors(successors);
        match table.next_hop(key, alive) {
            Hop::Here => {
                assert_eq!(owner, Some(ring[at].node));
                return Ok(Some(hops));
            }
            // Final: the owner, or its heir, serves it without looking at its own table.
            Hop::Owner(node) => {
                assert_eq!(owner, Some(node));
                return Ok(Some(hops + 1));
            }
            Hop::Via(node) => at = ring.partition_point(|place| place.node < node),
            Hop::Unreachable => return Ok(None),
        }
    }
    panic!("in circles");
}

/// So many nodes at positions by chance, numbered in the order of these.
fn random_ring(nodes: usize, state: &mut u64) -> Vec<Place> {
    let mut positions: Vec<u64> = (0..nodes).map(|_| random(state)).collect();
    positions.sort_unstable();
    (0..).zip(positions).map(|(i, position)| Place { position, node: NodeId(i) }).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    simulate(std::env::args().nth(1).map_or(Ok(100_000), |n| n.parse())?, 200_000)?;
    costs::compare()?;
    news::show()
}

fn simulate(nodes: usize, requests: usize) -> Result<(), Box<dyn Error>> {
    let (bound, half) = (nodes.next_power_of_two().ilog2() as usize, (nodes as f64).log2() / 2.0 + 1.0);
    let mut state = 1;
    let ring = random_ring(nodes, &mut state);
    let sorted = Ring::new(&ring)?;
    println!("{nodes} nodes, {requests} requests; ceil(log2 S) = {bound}, log2 S / 2 + 1 = {half:.2}");
    println!("{:<34} {:>6} {:>6} {:>6} {:>6} {:>12}", "", "mean", "p50", "p99.9", "most", "unreachable");
    for (name, build, successors, failed) in [
        ("rank fingers", rank_fingers as Build, 1, 0),
        ("rank fingers, 16 successors", rank_fingers, 16, 0),
        ("rank fingers, 16, a tenth dead", rank_fingers, 16, 10),
        ("id fingers", id_fingers, 1, 0),
        ("id fingers, 16 successors", id_fingers, 16, 0),
        ("id fingers, 16, a tenth dead", id_fingers, 16, 10),
    ] {
        let dead: Vec<bool> = (0..nodes).map(|_| random(&mut state) % 100 < failed).collect();
        let mut hops = Vec::with_capacity(requests);
        let mut lost = 0;
        while hops.len() + lost < requests {
            let start = usize::try_from(random(&mut state) % nodes as u64)?;
            if dead[start] {
                continue;
            }
            match route(&ring, sorted, build, successors, start, random(&mut state), &dead)? {
                Some(n) => hops.push(n),
                None => lost += 1,
            }
        }
        hops.sort_unstable();
        let (mean, most) = (hops.iter().sum::<usize>() as f64 / hops.len() as f64, hops[hops.len() - 1]);
        println!(
            "{name:<34} {mean:>6.2} {:>6} {:>6} {most:>6} {lost:>12}",
            hops[hops.len() / 2],
            hops[hops.len() * 999 / 1000],
        );
        assert!(failed > 0 || lost == 0, "{name}: {lost} without an answer");
        let bounded = failed == 0 && name.starts_with("rank");
        assert!(!bounded || (most <= bound && mean <= half), "{name}: {mean} hops, {most} at most");
    }
    Ok(())
}

#[test]
fn every_request_reaches_its_owner_within_the_bound() -> Result<(), Box<dyn Error>> {
    simulate(1_000, 2_000)
}
