//! What departures move among few members of unequal weights, and who carries the load of a dead one.

use gramme_ring::{Layout, LayoutError, Member, NodeId};

use crate::flow::flow_optimum;
use crate::least::least_worst;

const REPLICAS: u8 = 3;
const PARTITIONS: u32 = 256;
/// What is asked for.
const LIMIT: f64 = 1.15;

/// SplitMix64.
fn below(state: &mut u64, end: u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut x = *state;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) % end
}

fn random_member(state: &mut u64) -> Member {
    let id = NodeId(below(state, u64::MAX));
    Member::new(id).with_weight(1 << below(state, 3))
}

/// Ratios, and how many were above what is asked for.
#[derive(Default)]
struct Ratios {
    count: u32,
    /// Above 1.15.
    above: u32,
    /// Of these, departures after which another layout of the same members might have moved less.
    avoidable: u32,
    /// Of those above 1.15, replicas that moved and would not have by a minimum-cost flow to the same quotas.
    beyond_flow: u64,
    most: f64,
    /// Moved and bound in all.
    sums: (f64, f64),
}

impl Ratios {
    fn add(&mut self, ratio: f64) {
        self.count += 1;
        self.above += u32::from(ratio > LIMIT);
        self.most = self.most.max(ratio);
    }

    fn moved(&mut self, before: &Layout, after: &Layout) {
        let plan = before.plan(after);
        let (moved, bound) = (f64::from(plan.moved_slots()), f64::from(plan.least_moved_slots()));
        self.sums = (self.sums.0 + moved, self.sums.1 + bound);
        let above = self.above;
        self.add(moved / bound.max(1.0));
        if self.above > above {
            let slots = 16384 / PARTITIONS;
            self.beyond_flow += u64::from(plan.moved_slots() / slots) - flow_optimum(before, after);
        }
    }

    fn show(&self) -> String {
        format!("{:.2}, {} of {}", self.most, self.above, self.count)
    }

    fn mean(&self) -> f64 {
        self.sums.0 / self.sums.1
    }
}

/// Adds every single departure.
fn depart(
    members: &[Member],
    layout: &Layout,
    moved: &mut Ratios,
    mut carried: Option<&mut Ratios>,
) -> Result<(), LayoutError> {
    let mut least = None;
    for gone in members {
        let rest: Vec<Member> = members.iter().filter(|m| m.id != gone.id).cloned().collect();
        let after = Layout::compute(REPLICAS, PARTITIONS, &rest, Some(layout))?;
        let above = moved.above;
        moved.moved(layout, &after);
        if moved.above > above {
            let plan = layout.plan(&after);
            let ratio = f64::from(plan.moved_slots()) / f64::from(plan.least_moved_slots().max(1));
            moved.avoidable += u32::from(ratio > *least.get_or_insert_with(|| least_worst(layout)) + 0.05);
        }
        let Some(carried) = carried.as_deref_mut() else { continue };
        let stand_ins: Vec<NodeId> = layout
            .partitions_of(gone.id)
            .filter_map(|(p, _)| layout.preference(p).nth(usize::from(REPLICAS)))
            .collect();
        let loads = after.balance();
        let over = loads.iter().map(|load| {
            let extra = stand_ins.iter().filter(|&&id| id == load.node).count();
            (layout.partitions_of(load.node).len() + extra) as f64 / f64::from(load.quota)
        });
        carried.add(over.fold(0.0, f64::max));
    }
    Ok(())
}

pub(crate) fn show() -> Result<(), LayoutError> {
    println!("\n80 clusters of each size, weights 1, 2 and 4 by chance, N = {REPLICAS}, Q = {PARTITIONS}.");
    println!(
        "The worst ratio of what moved to the bound, how many were above {LIMIT}; of departures, how many of these by more"
    );
    println!(
        "than 0.05 above what the worst departure from any layout of the members reaches; and all that moved over all"
    );
    println!(
        "bounds. Dead: the most that a member carries while another is dead, over its part of the best layout"
    );
    println!("without that one.");
    println!(
        "| members | a departure | avoidable | in all | dead | 8 changes in a row | in all | a departure after each | avoidable | in all |"
    );
    let (mut above, mut beyond_flow) = (0, 0);
    for count in [4, 5, 6, 7, 8, 9, 12, 16, 30] {
        let [mut fresh, mut dead, mut changes, mut later] = [(); 4].map(|()| Ratios::default());
        for draw in 0..80 {
            let mut state = draw * 1000 + count as u64;
            let mut members: Vec<Member> = (0..count).map(|_| random_member(&mut state)).collect();
            let mut layout = Layout::compute(REPLICAS, PARTITIONS, &members, None)?;
            depart(&members, &layout, &mut fresh, Some(&mut dead))?;
            for _ in 0..8 {
                let at = usize::try_from(below(&mut state, members.len() as u64)).unwrap_or(0);
                match below(&mut state, 3) {
                    0 if members.len() <= count => members.push(random_member(&mut state)),
                    1 if members.len() >= count => drop(members.remove(at)),
                    _ => members[at].weight = 1 << below(&mut state, 3),
                }
                let next = Layout::compute(REPLICAS, PARTITIONS, &members, Some(&layout))?;
                changes.moved(&layout, &next);
                layout = next;
                depart(&members, &layout, &mut later, None)?;
            }
        }
        println!(
            "| {count} | {} | {} | {:.3} | {} | {} | {:.3} | {} | {} | {:.3} |",
            fresh.show(),
            fresh.avoidable,
            fresh.mean(),
            dead.show(),
            changes.show(),
            changes.mean(),
            later.show(),
            later.avoidable,
            later.mean()
        );
        for ratios in [&fresh, &changes, &later] {
            (above, beyond_flow) = (above + ratios.above, beyond_flow + ratios.beyond_flow);
        }
    }
    println!(
        "The {above} above {LIMIT} moved {beyond_flow} replicas more than minimum-cost flows to the same quotas."
    );
    Ok(())
}
