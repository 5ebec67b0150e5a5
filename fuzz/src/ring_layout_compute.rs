//! Layouts computed from choices, one following the other as members come, go and change weight.

use crate::ring_layout_decode::check;
use crate::source::Source;
use gramme_ring::{Layout, LayoutError, Member, NodeId, Zone};

/// A chain of layouts.
///
/// # Panics
/// If one breaks a layout's promises, or is not balanced, or moves data for nothing.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let mut replicas = source.byte() % 12;
    let mut partitions = 1 << source.below(8);
    let mut members: Vec<Member> = Vec::new();
    let mut previous: Option<Layout> = None;
    for _ in 0..5 {
        for _ in 0..1 + source.below(6) {
            change(&mut members, &mut source);
        }
        if source.byte() > 240 {
            replicas = source.byte() % 12;
            partitions = u32::from(source.u16() % 130);
        }
        let layout = match Layout::compute(replicas, partitions, &members, previous.as_ref()) {
            Ok(layout) => layout,
            Err(error) => {
                let expected = match error {
                    LayoutError::NoReplicas => replicas == 0,
                    LayoutError::NoMembers => members.is_empty(),
                    LayoutError::PartitionCount(_) => !partitions.is_power_of_two(),
                    _ => false,
                };
                assert!(expected, "{error}");
                continue;
            }
        };
        check(&layout);
        balanced(&layout);
        members.reverse();
        let again = Layout::compute(replicas, partitions, &members, previous.as_ref());
        assert!(again.as_ref() == Ok(&layout), "the order of members matters");
        // Following itself, nothing moves.
        let next = Layout::compute(replicas, partitions, &members, Some(&layout)).expect("as before");
        let rows =
            |l: &Layout| l.partition_count().partitions().map(|p| l.owners(p).collect::<Vec<_>>()).collect();
        let (before, after): (Vec<_>, Vec<_>) = (rows(&layout), rows(&next));
        assert_eq!(before, after, "data moves for nothing");
        previous = Some(layout);
        if source.is_empty() {
            break;
        }
    }
}

/// A member joins, leaves, or gets another weight or zone.
fn change(members: &mut Vec<Member>, source: &mut Source<'_>) {
    let choice = source.byte();
    let id = NodeId(u64::from(choice >> 2) * 0x0101_0101_0101_0101);
    let at = members.iter().position(|m| m.id == id);
    match (choice % 4, at) {
        (0, Some(at)) => {
            members.remove(at);
        }
        (1, Some(at)) => members[at].weight = u32::from(source.byte()).max(1),
        (2, Some(at)) => {
            let zone = Zone::new(&"abcd"[..source.below(4)]).expect("a short name");
            members[at] = members[at].clone().with_zone(zone);
        }
        (_, Some(_)) => {}
        (_, None) if members.len() < 12 => {
            let zone = Zone::new(&"abcd"[..source.below(4)]).expect("a short name");
            members.push(Member::new(id).with_weight(u32::from(source.byte() % 16) + 1).with_zone(zone));
        }
        _ => {}
    }
}

/// Nobody carries more per weight than the busiest member must.
fn balanced(layout: &Layout) {
    let loads = layout.balance();
    let least =
        |a: (u32, u32), b: (u32, u32)| u64::from(a.0) * u64::from(b.1) <= u64::from(b.0) * u64::from(a.1);
    let best = loads.iter().map(|l| (l.quota, l.weight)).reduce(|a, b| if least(a, b) { b } else { a });
    let best = best.expect("a layout has members");
    assert!(loads.iter().all(|l| least((l.owned, l.weight), best)), "{loads:?}");
    let total: u64 = loads.iter().map(|l| u64::from(l.owned)).sum();
    assert_eq!(total, u64::from(layout.partitions()) * layout.owner_count() as u64);
}
