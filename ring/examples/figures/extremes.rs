//! How long layouts take at the bounds of their input, and what they move then.

use std::fs;
use std::time::Instant;

use gramme_ring::{Layout, LayoutError, MAX_MEMBERS, Member, NodeId, Zone};

const PARTITIONS: u32 = 16_384;
const ZONES: u64 = 20;

fn zone(n: u64) -> Zone {
    Zone::new(&format!("zone {n}")).unwrap_or_default()
}

/// As many members as a layout may have, from this number on.
fn members(first: u64) -> Vec<Member> {
    (first..first + MAX_MEMBERS as u64)
        .map(|n| {
            let id = NodeId(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            Member::new(id)
                .with_weight([1, 2, 4][usize::try_from(n % 3).unwrap_or(0)])
                .with_zone(zone(n / 3 % ZONES))
        })
        .collect()
}

/// Hundredths of a second of processor time that this program has taken, where Linux counts them.
fn processor_time() -> Option<f64> {
    let line = fs::read_to_string("/proc/self/stat").ok()?;
    // User's and system's, the 12th and 13th after the program's name.
    let mut fields = line.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<f64>().ok();
    Some(next()? + next()?)
}

fn timed(
    what: &str,
    replicas: u8,
    members: &[Member],
    before: Option<&Layout>,
) -> Result<Layout, LayoutError> {
    timed_for(what, replicas, PARTITIONS, members, before)
}

fn timed_for(
    what: &str,
    replicas: u8,
    partitions: u32,
    members: &[Member],
    before: Option<&Layout>,
) -> Result<Layout, LayoutError> {
    let (start, processor) = (Instant::now(), processor_time());
    let layout = Layout::compute(replicas, partitions, members, before)?;
    let seconds = match (processor, processor_time()) {
        (Some(before), Some(after)) => (after - before) / 100.0,
        _ => start.elapsed().as_secs_f64(),
    };
    let moved = before.map_or(String::new(), |before| {
        let (start, plan) = (Instant::now(), before.plan(&layout));
        let over = f64::from(plan.moved_slots()) / f64::from(plan.least_moved_slots().max(1));
        let planned = start.elapsed().as_secs_f64();
        format!(", moved {over:.3} times the bound, both counted in {planned:.2} s")
    });
    println!("{replicas:>4} {what:<40} {seconds:>7.2} s{moved}");
    Ok(layout)
}

pub(crate) fn show() -> Result<(), LayoutError> {
    println!("Processor time, where it is told, to one hundredth of a second.");
    println!("{MAX_MEMBERS} members of weights 1, 2 and 4 in {ZONES} zones, Q = {PARTITIONS}");
    let list = members(0);
    for replicas in [3, 9, 64] {
        let first = timed("first", replicas, &list, None)?;
        let mut tenth = list.clone();
        for (old, new) in tenth.iter_mut().zip(members(1 << 20)).step_by(10) {
            *old = new;
        }
        timed("a tenth of the members exchanged", replicas, &tenth, Some(&first))?;
        let weights = list.iter().enumerate().map(|(n, m)| m.clone().with_weight([3, 1, 2, 5][n % 4]));
        timed("all weights change", replicas, &weights.collect::<Vec<_>>(), Some(&first))?;
        let zones = (0..).zip(&list).map(|(n, m): (u64, _)| m.clone().with_zone(zone(n % ZONES)));
        timed("all zones change", replicas, &zones.collect::<Vec<_>>(), Some(&first))?;
        let half: Vec<Member> = list.iter().step_by(2).cloned().collect();
        timed("half of the members leave", replicas, &half, Some(&first))?;
        timed("a replica more", replicas + 1, &list, Some(&first))?;
    }
    println!("64 members of weights 1 to 64³, no zones, Q = {PARTITIONS}");
    let few: Vec<Member> = (1..=64).map(|n| Member::new(NodeId(n.into())).with_weight(n * n * n)).collect();
    for replicas in [16, 32, 48] {
        let first = timed("first", replicas, &few, None)?;
        timed("one leaves", replicas, &[&few[..10], &few[11..]].concat(), Some(&first))?;
        let even: Vec<Member> = few.iter().map(|m| m.clone().with_weight(1)).collect();
        let even = timed("all weights change", replicas, &even, Some(&first))?;
        timed("and back", replicas, &few, Some(&even))?;
    }
    // As many replicas as there may be, none of whose owners was one.
    let first = timed("first", u8::MAX, &list[..MAX_MEMBERS / 2], None)?;
    timed("all members exchanged", u8::MAX, &list[MAX_MEMBERS / 2..], Some(&first))?;
    println!("255 members own everything, 255 replicas each, and others join");
    let even =
        |count: usize| -> Vec<Member> { (0..count as u64).map(|id| Member::new(NodeId(id))).collect() };
    let first = timed("first", u8::MAX, &even(255), None)?;
    for count in [510, 1020, MAX_MEMBERS] {
        timed(&format!("{count} members"), u8::MAX, &even(count), Some(&first))?;
    }
    let uneven = (1..).zip(even(1020)).map(|(n, m): (u64, _)| {
        let weight = u32::try_from(n * n * n % 9973).unwrap_or(1).max(1);
        m.with_weight(weight)
    });
    timed("1020 members of uneven weights", u8::MAX, &uneven.collect::<Vec<_>>(), Some(&first))?;
    let first = timed("first of 128 members, 128 replicas", 128, &even(128), None)?;
    timed("512 members", 128, &even(512), Some(&first))?;
    println!("{MAX_MEMBERS} members, all partitions become one or 16, and again {PARTITIONS}");
    let all = |zone_of: fn(u64) -> u64| -> Vec<Member> {
        (0..).zip(&list).map(|(n, m)| m.clone().with_zone(zone(zone_of(n)))).collect()
    };
    for (what, replicas, list) in
        [("in one zone", u8::MAX, all(|_| 0)), ("each in its own zone", 3, all(|n| n))]
    {
        let first = timed(what, replicas, &list, None)?;
        for partitions in [1, 16] {
            let fewer = timed_for(&format!("Q = {partitions}"), replicas, partitions, &list, Some(&first))?;
            timed("and back", replicas, &list, Some(&fewer))?;
        }
    }
    Ok(())
}
