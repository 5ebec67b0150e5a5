//! Prints what this crate is measured by: balance, movement, time for a layout, time for a lookup.
//!
//! `cargo run --release -p gramme-ring --example figures`; with `extremes` after it, how long layouts take at the bounds of their
//! input.

mod departure;
mod extremes;
mod flow;
mod least;

use std::hint::black_box;
use std::time::Instant;

use gramme_ring::{Layout, LayoutError, Member, NodeId, Slot, Zone};

fn members(count: u64, weights: &[u32], zones: u64) -> Vec<Member> {
    (0..count)
        .map(|i| Member {
            id: NodeId(i.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            weight: weights[usize::try_from(i).unwrap_or(0) % weights.len()],
            // Across the weights, so that every zone has nodes of each.
            zone: Zone::new(&format!("zone {}", i / weights.len() as u64 % zones)).unwrap_or_default(),
        })
        .collect()
}

/// Mean load per weight over the hottest.
fn balance(layout: &Layout) -> f64 {
    let loads = layout.balance();
    let total: f64 = loads.iter().map(|l| f64::from(l.owned)).sum();
    let weight: f64 = loads.iter().map(|l| f64::from(l.weight)).sum();
    let hottest = loads.iter().map(|l| f64::from(l.owned) / f64::from(l.weight)).fold(0.0, f64::max);
    total / weight / hottest
}

fn moved(before: &Layout, after: &Layout) -> (usize, u32) {
    let moved = after
        .partition_count()
        .partitions()
        .map(|p| after.owners(p).filter(|&id| !before.is_owner(p, id)).count())
        .sum();
    let held = |id| u32::try_from(before.partitions_of(id).len()).unwrap_or(u32::MAX);
    let bound = after.balance().iter().map(|l| l.quota.saturating_sub(held(l.node))).sum();
    (moved, bound)
}

fn main() -> Result<(), LayoutError> {
    if std::env::args().nth(1).is_some_and(|what| what == "extremes") {
        return extremes::show();
    }
    println!(
        "{:<44} {:>8} {:>9} {:>7} {:>7} {:>10}",
        "layout (N = 3)", "balance", "moved", "bound", "optimum", "time"
    );
    for (nodes, partitions, weights, zones) in [
        (30, 1024, &[1][..], 1),
        (30, 1024, &[1, 2, 4], 1),
        (30, 1024, &[1, 2, 4], 3),
        (30, 1024, &[1, 2, 4], 5),
        (30, 16384, &[1, 2, 4], 3),
        (1000, 16384, &[1], 1),
        (1000, 16384, &[1, 2, 4], 7),
    ] {
        let name = format!("{nodes} nodes, Q = {partitions}, {} weights, {zones} zones", weights.len());
        let mut list = members(nodes, weights, zones);
        let timed = |list: &[Member], before: Option<&Layout>| {
            // The fastest of five.
            let once = |_| {
                let start = Instant::now();
                Layout::compute(3, partitions, list, before).map(|layout| (layout, start.elapsed()))
            };
            let all = (0..5).map(once).collect::<Result<Vec<_>, _>>()?;
            Ok::<_, LayoutError>(all.into_iter().min_by_key(|(_, time)| *time).expect("five"))
        };
        let show = |what: &str, layout: &Layout, before: Option<&Layout>, time: std::time::Duration| {
            let (moved, bound) = before.map_or((0, 0), |before| moved(before, layout));
            // The whole network takes minutes for the large ones.
            let optimum = match before {
                Some(before) if layout.members().len() * layout.partitions() as usize <= 40_000 => {
                    flow::flow_optimum(before, layout).to_string()
                }
                _ => String::new(),
            };
            println!(
                "{what:<44} {:>8.4} {moved:>9} {bound:>7} {optimum:>7} {:>7.1} ms",
                balance(layout),
                time.as_secs_f64() * 1e3
            );
        };
        let (first, time) = timed(&list, None)?;
        show(&name, &first, None, time);
        list.push(Member { id: NodeId(42), ..list[1].clone() });
        let (joined, time) = timed(&list, Some(&first))?;
        show("  one joins", &joined, Some(&first), time);
        list.remove(0);
        let (left, time) = timed(&list, Some(&joined))?;
        show("  one leaves", &left, Some(&joined), time);
        list[3].weight += 1;
        let (heavier, time) = timed(&list, Some(&left))?;
        show("  one grows heavier", &heavier, Some(&left), time);
        for (i, member) in list.iter_mut().enumerate() {
            member.weight = [3, 1, 2, 5][i % 4];
        }
        let (all, time) = timed(&list, Some(&heavier))?;
        show("  all change", &all, Some(&heavier), time);
    }

    departure::show()?;

    let layout = Layout::compute(3, 16384, &members(1000, &[1], 1), None)?;
    let keys: Vec<String> = (0..4096).map(|i| format!("user:{i:012}")).collect();
    // The fastest of many rounds: what else the machine does is not of interest.
    let mut nanos = f64::INFINITY;
    for _ in 0..500 {
        let start = Instant::now();
        black_box(keys.iter().fold(0u64, |sum, key| {
            let partition = layout.partition_of(Slot::of(black_box(key.as_bytes())));
            layout.owners(partition).fold(sum, |sum, id| sum ^ id.0)
        }));
        nanos = nanos.min(start.elapsed().as_secs_f64() * 1e9 / 4096.0);
    }
    println!("\nowner list of a 17-byte key, hash included, 1,000 nodes: {nanos:.1} ns");
    Ok(())
}
