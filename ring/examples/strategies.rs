//! The paper's Figure 8: how well its three strategies balance load for the metadata that each node has to keep, and
//! beside them this crate's layouts. 30 nodes, N = 3, uniform keys; mean load over the hottest node's.
//!
//! `cargo run --release -p gramme-ring --example strategies [figure.svg]`

use std::collections::BTreeMap;
use std::fmt::Write as _;

use gramme_ring::token::{EqualPartitions, TokenRing};
use gramme_ring::{Layout, Member, NodeId};

const NODES: u64 = 30;
const REPLICAS: usize = 3;
/// Rings drawn for each point.
const DRAWS: u64 = 20;

/// Name, colour, points (KiB, efficiency).
type Line = (&'static str, &'static str, Vec<(f64, f64)>);

type Load = BTreeMap<NodeId, f64>;

fn members(draw: u64) -> Vec<Member> {
    (0..NODES)
        .map(|i| Member::new(NodeId((draw * NODES + i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))))
        .collect()
}

fn efficiency(load: &Load) -> f64 {
    let hottest = load.values().copied().fold(0.0, f64::max);
    load.values().sum::<f64>() / NODES as f64 / hottest
}

fn add(load: &mut Load, ring: &TokenRing, position: u64, share: f64) {
    for &id in ring.table().owners(position, &mut [NodeId(0); REPLICAS]) {
        *load.entry(id).or_default() += share;
    }
}

/// Each token's arc goes to the nodes that follow.
fn strategy_1(tokens: u32, draw: u64) -> f64 {
    let Ok(ring) = TokenRing::random(tokens, draw, &members(draw)) else { return f64::NAN };
    let mut load = Load::new();
    let positions: Vec<u64> = ring.table().tokens().iter().map(|t| t.position).collect();
    for (i, &position) in positions.iter().enumerate() {
        let before = positions[(i + positions.len() - 1) % positions.len()];
        add(&mut load, &ring, position, position.wrapping_sub(before) as f64);
    }
    efficiency(&load)
}

fn over_partitions(ring: &TokenRing, partitions: EqualPartitions) -> f64 {
    let mut load = Load::new();
    for p in 0..partitions.count() {
        add(&mut load, ring, partitions.end(p), 1.0);
    }
    efficiency(&load)
}

fn mean(points: impl Fn(u64) -> f64) -> f64 {
    (0..DRAWS).map(points).sum::<f64>() / DRAWS as f64
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A token is a position and a node: 8 + 2 bytes. A partition's token needs no position, a layout names all owners.
    let mut lines: [Line; 4] = [
        ("strategy 1: T random tokens", "#c0392b", Vec::new()),
        ("strategy 2: T random tokens, Q equal partitions", "#d68910", Vec::new()),
        ("strategy 3: Q/S tokens, Q equal partitions", "#2471a3", Vec::new()),
        ("gramme-ring's layout, Q equal partitions", "#1e8449", Vec::new()),
    ];
    for kib in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0] {
        let bytes = kib * 1024.0;
        // Counts of at most tens of thousands.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let (tokens, singles, triples) = (
            (bytes / 10.0 / NODES as f64) as u32,
            (bytes / 2.0) as u32,
            (bytes / 2.0 / REPLICAS as f64) as u32,
        );
        // The paper lets Q be much larger than S * T.
        let fine = EqualPartitions::new(tokens.max(1) * u32::try_from(NODES)? * 10)?;
        let equal = EqualPartitions::new(singles)?;
        let power = if triples.is_power_of_two() { triples } else { triples.next_power_of_two() / 2 };
        let points = [
            mean(|draw| strategy_1(tokens.max(1), draw)),
            mean(|draw| {
                TokenRing::random(tokens.max(1), draw, &members(draw))
                    .map_or(f64::NAN, |ring| over_partitions(&ring, fine))
            }),
            mean(|draw| {
                TokenRing::equal(equal, draw, &members(draw), None)
                    .map_or(f64::NAN, |ring| over_partitions(&ring, equal))
            }),
            mean(|draw| {
                let layout = Layout::compute(3, power.min(16384), &members(draw), None);
                layout.map_or(f64::NAN, |l| {
                    efficiency(&l.balance().iter().map(|load| (load.node, f64::from(load.owned))).collect())
                })
            }),
        ];
        for (line, point) in lines.iter_mut().zip(points) {
            line.2.push((kib, point));
        }
    }

    print!("{:<52}", "metadata at each node, KiB");
    lines[0].2.iter().for_each(|(kib, _)| print!("{kib:>7}"));
    println!();
    for (name, _, points) in &lines {
        print!("{name:<52}");
        points.iter().for_each(|(_, y)| print!("{y:>7.3}"));
        println!();
    }
    if let Some(path) = std::env::args().nth(1) {
        std::fs::write(&path, svg(&lines)?)?;
        println!("drawn to {path}");
    }
    Ok(())
}

fn svg(lines: &[Line]) -> Result<String, std::fmt::Error> {
    let x = |kib: f64| 60.0 + (kib.log2() + 1.0) * 75.0;
    let y = |efficiency: f64| 340.0 - efficiency * 300.0;
    let mut out = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 640 440\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"640\" height=\"440\" fill=\"white\"/>\n",
    );
    for tenth in 0..=5 {
        let (at, label) = (y(f64::from(tenth) / 5.0), f64::from(tenth) / 5.0);
        writeln!(
            out,
            "<path d=\"M60 {at} H600\" stroke=\"#ddd\"/><text x=\"30\" y=\"{}\">{label:.1}</text>",
            at + 4.0
        )?;
    }
    for (kib, _) in &lines[0].2 {
        writeln!(out, "<text x=\"{}\" y=\"358\" text-anchor=\"middle\">{kib}</text>", x(*kib))?;
    }
    writeln!(
        out,
        "<text x=\"60\" y=\"24\">load balancing efficiency (mean over hottest), S = 30, N = 3</text>"
    )?;
    writeln!(out, "<text x=\"600\" y=\"374\" text-anchor=\"end\">metadata at each node, KiB</text>")?;
    for (i, (name, colour, points)) in lines.iter().enumerate() {
        let path: Vec<String> = points.iter().map(|&(kib, e)| format!("{:.1},{:.1}", x(kib), y(e))).collect();
        writeln!(
            out,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>",
            path.join(" ")
        )?;
        writeln!(out, "<text x=\"70\" y=\"{}\" fill=\"{colour}\">{name}</text>", 384 + 15 * i)?;
    }
    out.push_str("</svg>\n");
    Ok(out)
}
