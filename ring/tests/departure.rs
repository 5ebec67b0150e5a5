//! How much one member's departure moves, and who takes its load while it is merely dead. Among few members of unequal
//! weights this depends on who owns partitions together with whom.

use gramme_ring::{Layout, Member, NodeId};

#[path = "../examples/figures/least.rs"]
mod least;

use least::least_worst;

const REPLICAS: u8 = 3;

fn members(weights: &[u32]) -> Vec<Member> {
    (1u64..)
        .zip(weights)
        .map(|(i, &weight)| Member::new(NodeId(i.wrapping_mul(0x9e37_79b9_7f4a_7c15))).with_weight(weight))
        .collect()
}

fn without(members: &[Member], at: usize) -> Vec<Member> {
    let mut rest = members.to_vec();
    rest.remove(at);
    rest
}

fn compute(partitions: u32, members: &[Member], before: Option<&Layout>) -> Layout {
    Layout::compute(REPLICAS, partitions, members, before).unwrap()
}

/// Slots moved, and the least that quotas allow.
fn moved(before: &Layout, after: &Layout) -> (u32, u32) {
    let plan = before.plan(after);
    (plan.moved_slots(), plan.least_moved_slots())
}

/// All choices of `count` weights, order aside.
fn choices(count: usize, weights: &[u32]) -> Vec<Vec<u32>> {
    let Some((&first, others)) = weights.split_first() else {
        return if count == 0 { vec![Vec::new()] } else { Vec::new() };
    };
    (0..=count)
        .flat_map(|times| {
            choices(count - times, others).into_iter().map(move |rest| {
                let mut all = vec![first; times];
                all.extend(rest);
                all
            })
        })
        .collect()
}

fn assert_departures_move_little(partitions: u32, weights: &[u32]) {
    let members = members(weights);
    let before = compute(partitions, &members, None);
    let mut least = None;
    for at in 0..members.len() {
        let after = compute(partitions, &without(&members, at), Some(&before));
        let (moved, bound) = moved(&before, &after);
        let ratio = f64::from(moved) / f64::from(bound.max(1));
        if ratio > 1.15 {
            let least = *least.get_or_insert_with(|| least_worst(&before));
            assert!(
                ratio <= least + 0.05,
                "{weights:?}, Q = {partitions}: {} goes, {ratio:.3}, {least:.3}",
                weights[at]
            );
        }
    }
}

#[test]
fn a_departure_moves_little_more_than_the_bound() {
    for count in 3..=7 {
        for weights in choices(count, &[1, 2, 4]) {
            assert_departures_move_little(256, &weights);
        }
    }
    for weights in [
        &[1, 1, 1, 4][..],
        &[1, 1, 1, 1, 1, 2],
        &[1, 1, 4, 4, 2, 2, 1],
        &[3, 1, 2, 1, 5, 1, 2],
        &[1, 1, 1, 4, 1, 1, 4, 2],
        &[1, 4, 2, 4, 1, 2, 2, 1, 4],
        &[1, 2, 3, 4, 5, 6, 7, 8, 9],
        &[1, 1, 4, 1, 2, 1, 1, 4, 1, 1],
        &[4, 1, 2, 1, 1, 1, 2, 2, 4, 1, 4, 1],
        &[1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 4],
    ] {
        for partitions in [256, 1024] {
            assert_departures_move_little(partitions, weights);
        }
    }
}

#[test]
fn changes_one_after_another_move_little_more_than_the_bound() {
    let mut list = members(&[1, 4, 1, 1, 4, 1, 1, 1, 2, 4, 2, 2]);
    let mut layout = compute(256, &list, None);
    for step in 0..24u32 {
        let at = step as usize * 7 % list.len();
        match step % 4 {
            0 => list.push(Member::new(NodeId(u64::from(step) + 1)).with_weight(1 << (step / 4 % 3))),
            1 => list[at].weight = [4, 1, 2][step as usize / 4 % 3],
            2 => drop(list.remove(at)),
            _ => list[at].weight = 2,
        }
        let next = compute(256, &list, Some(&layout));
        let (moved, bound) = moved(&layout, &next);
        assert!(f64::from(moved) <= 1.05 * f64::from(bound), "step {step}: {moved} over {bound}");
        for at in 0..list.len() {
            let (moved, bound) = self::moved(&next, &compute(256, &without(&list, at), Some(&next)));
            assert!(
                f64::from(moved) <= 1.05 * f64::from(bound),
                "step {step}, {at} goes: {moved} over {bound}"
            );
        }
        layout = next;
    }
}

/// Whatever the layout before, what moves is the least that this one allows (`movement.rs`). What earlier changes make it
/// cost now and then beyond the quotas' bound is held here: little in all, and seldom more than any layout would.
#[test]
fn few_members_change_time_and_again() {
    let mut state = 1u64;
    let mut below = |end: u64| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) % end
    };
    for count in 4..=9 {
        let (mut changed, mut departed) = ((0, 0), (0, 0));
        let (mut departures, mut avoidable) = (0, 0);
        for draw in 0..6u64 {
            let mut list = members(&(0..count).map(|_| 1 << below(3)).collect::<Vec<u32>>());
            let mut layout = compute(256, &list, None);
            for step in 0..8 {
                let at = usize::try_from(below(list.len() as u64)).unwrap();
                match below(3) {
                    0 if list.len() <= count => {
                        list.push(Member::new(NodeId(100 * draw + step + 1)).with_weight(1 << below(3)));
                    }
                    1 if list.len() >= count => drop(list.remove(at)),
                    _ => list[at].weight = 1 << below(3),
                }
                let next = compute(256, &list, Some(&layout));
                let (more, bound) = moved(&layout, &next);
                changed = (changed.0 + more, changed.1 + bound);
                layout = next;
                let mut least = None;
                for at in 0..list.len() {
                    let (more, bound) = moved(&layout, &compute(256, &without(&list, at), Some(&layout)));
                    departed = (departed.0 + more, departed.1 + bound);
                    departures += 1;
                    let ratio = f64::from(more) / f64::from(bound.max(1));
                    if ratio > 1.15 {
                        let least = *least.get_or_insert_with(|| least_worst(&layout));
                        avoidable += u32::from(ratio > least + 0.05);
                        assert!(ratio <= 1.75, "{count} members, draw {draw}, step {step}: {ratio:.2}");
                    }
                }
            }
        }
        for (moved, bound) in [changed, departed] {
            assert!(f64::from(moved) <= 1.05 * f64::from(bound), "{count} members: {moved} over {bound}");
        }
        assert!(20 * avoidable <= departures, "{count} members: {avoidable} of {departures}");
    }
}

/// While a member is dead, the first fallback of each of its partitions stands in for it.
#[test]
fn the_load_of_the_dead_is_spread_by_weight() {
    for weights in [
        &[2, 1, 2, 1, 2][..],
        &[1, 1, 4, 1, 4, 4, 1],
        &[1, 4, 1, 4, 4, 2, 1, 1],
        &[1, 1, 1, 4, 1, 1, 2, 4, 4],
        &[1, 1, 1, 4, 4, 1, 1, 1, 4, 1],
        &[4, 1, 2, 1, 1, 1, 2, 2, 4, 1, 4, 1],
    ] {
        let members = members(weights);
        let layout = compute(1024, &members, None);
        for (at, dead) in members.iter().enumerate() {
            let rest = compute(1024, &without(&members, at), Some(&layout));
            let stand_in = |p| layout.preference(p).nth(usize::from(REPLICAS));
            let stand_ins: Vec<NodeId> =
                layout.partitions_of(dead.id).filter_map(|(p, _)| stand_in(p)).collect();
            for load in rest.balance() {
                let extra = stand_ins.iter().filter(|&&id| id == load.node).count();
                let carried = (layout.partitions_of(load.node).len() + extra) as f64;
                // Beside what it would own without the dead one, at the best balance.
                let over = carried / f64::from(load.quota);
                assert!(
                    over <= 1.3,
                    "{weights:?}, {} dead: {load:?} carries {carried}, {over:.2}",
                    dead.weight
                );
            }
        }
    }
}
