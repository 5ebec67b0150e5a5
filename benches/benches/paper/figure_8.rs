//! Figure 8: load balancing efficiency (mean load over the hottest node's) for the metadata that each node keeps.

use std::error::Error;
use std::path::Path;

use gramme_ring::token::{EqualPartitions, TokenRing};
use gramme_ring::{Layout, Member, NodeId};

use crate::chart::{self, Line};
use crate::load::{Load, NODES, REPLICAS, plain, weighted};

/// Every arc of the circle goes to the nodes whose tokens follow.
fn strategy_1(tokens: u32, draw: u64) -> f64 {
    let members = plain(draw);
    let ring = TokenRing::random(tokens, draw, &members).expect("plain members");
    let table = ring.table();
    let mut load = Load::of(&members);
    let positions: Vec<u64> = table.tokens().iter().map(|t| t.position).collect();
    for (i, &position) in positions.iter().enumerate() {
        let before = positions[(i + positions.len() - 1) % positions.len()];
        let mut owners = [NodeId(0); REPLICAS as usize];
        load.add(table.owners(position, &mut owners).iter().copied(), position.wrapping_sub(before) as f64);
    }
    load.efficiency()
}

fn over_partitions(ring: &TokenRing, partitions: EqualPartitions, members: &[Member]) -> f64 {
    let mut load = Load::of(members);
    for p in 0..partitions.count() {
        let mut owners = [NodeId(0); REPLICAS as usize];
        load.add(ring.table().owners(partitions.end(p), &mut owners).iter().copied(), 1.0);
    }
    load.efficiency()
}

/// The paper lets Q be much larger than S * T.
fn strategy_2(tokens: u32, draw: u64) -> f64 {
    let members = plain(draw);
    let ring = TokenRing::random(tokens, draw, &members).expect("plain members");
    let fine = EqualPartitions::new(tokens * NODES * 10).expect("not too many");
    over_partitions(&ring, fine, &members)
}

fn strategy_3(partitions: u32, draw: u64) -> f64 {
    let members = plain(draw);
    let equal = EqualPartitions::new(partitions).expect("not too many");
    let ring = TokenRing::equal(equal, draw, &members, None).expect("plain members");
    over_partitions(&ring, equal, &members)
}

fn layout(partitions: u32, members: &[Member]) -> f64 {
    let layout = Layout::compute(REPLICAS, partitions, members, None).expect("good members");
    Load::of_layout(&layout).efficiency()
}

pub(crate) fn run(draws: u64, file: &Path) -> Result<(), Box<dyn Error>> {
    let mean = |point: &dyn Fn(u64) -> f64| (0..draws).map(point).sum::<f64>() / draws as f64;
    let mut lines = vec![
        Line::new("strategy 1: T random tokens"),
        Line::new("strategy 2: T random tokens, Q equal partitions"),
        Line::new("strategy 2, the partitions' table kept too"),
        Line::new("strategy 3: Q/S tokens, Q equal partitions"),
        Line::new("gramme-ring's Layout"),
        Line::new("the same, weights 1:2:4 and three zones"),
    ];
    let sizes = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];
    for kib in sizes {
        // A token is a position and a node: 8 + 2 bytes. A partition's token needs no position; a layout names all owners.
        let bytes = kib * 1024.0;
        // Between one and some tens of thousands.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let (tokens, singles, triples) = (
            (bytes / 10.0 / f64::from(NODES)) as u32,
            (bytes / 2.0) as u32,
            (bytes / 2.0 / f64::from(REPLICAS)) as u32,
        );
        let power = (triples.next_power_of_two() / if triples.is_power_of_two() { 1 } else { 2 }).min(16_384);
        let points = [
            mean(&|draw| strategy_1(tokens, draw)),
            mean(&|draw| strategy_2(tokens, draw)),
            // Ten partitions of two bytes beside each token.
            mean(&|draw| strategy_2((tokens / 3).max(1), draw)),
            mean(&|draw| strategy_3(singles, draw)),
            mean(&|draw| layout(power, &plain(draw))),
            mean(&|draw| layout(power, &weighted(draw))),
        ];
        for (line, y) in lines.iter_mut().zip(points) {
            line.points.push((kib, y));
        }
    }

    println!("Figure 8: mean over hottest load, S = {NODES}, N = {REPLICAS}, {draws} draws");
    print!("{:<50}", "metadata at each node, KiB");
    sizes.iter().for_each(|kib| print!("{kib:>7}"));
    println!();
    for line in &lines {
        print!("{:<50}", line.name);
        line.points.iter().for_each(|(_, y)| print!("{y:>7.3}"));
        println!();
    }
    chart::efficiency(&lines, file)?;
    println!("drawn to {}\n", file.display());
    Ok(())
}
