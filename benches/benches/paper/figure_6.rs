//! Figure 6: the fraction of nodes out of balance in each half hour of a day, beside the load.
//!
//! A node is out of balance if its load is 15 % or more from the mean. The paper saw about 20 % of the nodes so at an
//! eighth of the peak load, and about 10 % at the peak, and explains: at high load many popular keys are accessed, which
//! spread evenly; at low load few. So here the number of keys in use follows the load, each with as many requests as an
//! exponential distribution of one mean gives.
//!
//! The paper tells neither the tokens of its nodes nor the number of its keys. 44 tokens and 25,000 keys at the peak give
//! what it saw: two parts in three of the variance that the peak shows are where tokens fell, whatever the load.

use std::error::Error;
use std::path::Path;

use gramme_ring::token::{EqualPartitions, TokenRing};
use gramme_ring::{Layout, NodeId, Slot};

use crate::chart::{self, Line};
use crate::load::{Load, REPLICAS, mix, plain, weighted};

const THRESHOLD: f64 = 0.15;
/// Half hours of a day.
const WINDOWS: u64 = 48;
const TOKENS: u32 = 44;
const PARTITIONS: u32 = 1024;
const KEYS_AT_PEAK: f64 = 25_000.0;

/// From an eighth of the peak at night to the peak in the evening.
fn load_at(window: u64) -> f64 {
    let turn = (window as f64 / WINDOWS as f64 - 0.17) * core::f64::consts::TAU;
    0.125 + 0.875 * (1.0 - turn.cos()) / 2.0
}

/// Position and requests of each key in use.
fn keys(draw: u64, window: u64) -> impl Iterator<Item = (u64, f64)> {
    // At most the keys at the peak.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let count = (KEYS_AT_PEAK * load_at(window)) as u64;
    let seed = mix(draw, window);
    (0..count).map(move |key| {
        let uniform = (mix(seed, !key) >> 11) as f64 / (1u64 << 53) as f64;
        (mix(seed, key), -(1.0 - uniform).ln())
    })
}

/// The fractions of one half hour, line by line.
struct Rings {
    random: TokenRing,
    equal: TokenRing,
    partitions: EqualPartitions,
    layout: Layout,
    weighted: Layout,
}

impl Rings {
    fn new(draw: u64) -> Rings {
        let members = plain(draw);
        let partitions = EqualPartitions::new(PARTITIONS).expect("not too many");
        let layout =
            |members: &_| Layout::compute(REPLICAS, PARTITIONS, members, None).expect("good members");
        Rings {
            random: TokenRing::random(TOKENS, draw, &members).expect("plain members"),
            equal: TokenRing::equal(partitions, draw, &members, None).expect("plain members"),
            partitions,
            layout: layout(&members),
            weighted: layout(&weighted(draw)),
        }
    }

    fn out_of_balance(&self, draw: u64, window: u64) -> [f64; 4] {
        let mut loads = [(); 4].map(|()| Load::of(self.layout.members()));
        loads[3] = Load::of(self.weighted.members());
        for (position, requests) in keys(draw, window) {
            let [random, equal, layout, weighted] = &mut loads;
            let mut owners = [NodeId(0); REPLICAS as usize];
            random.add(self.random.table().owners(position, &mut owners).iter().copied(), requests);
            let end = self.partitions.end(self.partitions.partition_of(position));
            equal.add(self.equal.table().owners(end, &mut owners).iter().copied(), requests);
            // A position's first 14 bits are as good as a key's CRC.
            #[allow(clippy::cast_possible_truncation)]
            let slot = Slot::new((position >> 50) as u16).expect("14 bits");
            layout.add(self.layout.owners(self.layout.partition_of(slot)), requests);
            weighted.add(self.weighted.owners(self.weighted.partition_of(slot)), requests);
        }
        loads.map(|load| load.out_of_balance(THRESHOLD))
    }
}

pub(crate) fn run(draws: u64, file: &Path) -> Result<(), Box<dyn Error>> {
    let mut lines = vec![
        Line::new("strategy 1: 44 random tokens"),
        Line::new("strategy 3: Q/S tokens, Q = 1024"),
        Line::new("gramme-ring's Layout, Q = 1024"),
        Line::new("the same, weights 1:2:4 and three zones"),
    ];
    let rings: Vec<Rings> = (0..draws).map(Rings::new).collect();
    for window in 0..WINDOWS {
        let mut mean = [0.0; 4];
        for (draw, rings) in (0..).zip(&rings) {
            for (mean, y) in mean.iter_mut().zip(rings.out_of_balance(draw, window)) {
                *mean += y / draws as f64;
            }
        }
        for (line, y) in lines.iter_mut().zip(mean) {
            line.points.push((window as f64 / 2.0, y));
        }
    }
    let load: Vec<(f64, f64)> = (0..WINDOWS).map(|w| (w as f64 / 2.0, load_at(w))).collect();

    println!("Figure 6: nodes 15 % or more from the mean load, {draws} draws of a day");
    println!("{:<50}{:>16}{:>16}", "", "load < 1/5 peak", "load > 9/10");
    for line in &lines {
        let mean = |wanted: &dyn Fn(f64) -> bool| {
            let chosen: Vec<f64> =
                line.points.iter().zip(&load).filter(|(_, l)| wanted(l.1)).map(|(p, _)| p.1).collect();
            100.0 * chosen.iter().sum::<f64>() / chosen.len() as f64
        };
        println!("{:<50}{:>14.1} %{:>14.1} %", line.name, mean(&|l| l < 0.2), mean(&|l| l > 0.9));
    }
    chart::day(&lines, &load, file)?;
    println!("drawn to {}\n", file.display());
    Ok(())
}
