//! Arbitrary bytes as a layout. What decodes keeps every promise of a layout, and can be followed by another.

use gramme_ring::{Checked, Layout, LayoutError, Malformed, Member, NodeId, Slot, Zone};
use std::collections::BTreeSet;

/// Decodes.
///
/// # Panics
/// If a layout that decodes is none.
pub fn run(data: &[u8]) {
    let bound = 16_384 + 64 * data.len();
    let data = &right_hashes::<Layout>(data);
    let Ok(layout) = crate::meter::within(bound, || postcard::from_bytes::<Layout>(data)) else { return };
    check(&layout);
    let bytes = postcard::to_allocvec(&layout).expect("a layout has an encoding");
    let again: Layout = postcard::from_bytes(&bytes).expect("it can be read back");
    assert!(again == layout && again.hash() == layout.hash());
    assert!(postcard::to_allocvec(&again).expect("again") == bytes);

    let id = layout.members().last().expect("a layout has members").id;
    let Some(id) = id.0.checked_add(1) else { return };
    let members = [layout.members(), &[Member::new(NodeId(id))]].concat();
    match Layout::compute(layout.replicas(), layout.partitions(), &members, Some(&layout)) {
        Ok(next) => {
            check(&next);
            assert_eq!((next.version().0, next.parent()), (layout.version().0 + 1, layout.hash()));
        }
        Err(error) => assert!(matches!(error, LayoutError::Version(_)), "{error}"),
    }
}

/// The same bytes with the right hash wherever one of the first few layouts has another beside it: few would decode else.
pub fn right_hashes<T>(data: &[u8]) -> Vec<u8>
where
    Checked<T>: serde::de::DeserializeOwned,
{
    let varint = |hash: u64| postcard::to_allocvec(&hash).expect("a number has an encoding");
    let mut data = data.to_vec();
    for _ in 0..4 {
        let Ok(Checked(Err(Malformed::Layout(LayoutError::Hash { expected, found })))) =
            postcard::from_bytes::<Checked<T>>(&data)
        else {
            break;
        };
        let (found, expected) = (varint(found), varint(expected));
        let Some(at) = data.windows(found.len()).rposition(|bytes| bytes == found) else { break };
        data.splice(at..at + found.len(), expected);
    }
    data
}

/// The promises of a layout, read off its answers.
///
/// # Panics
/// If one is broken.
pub fn check(layout: &Layout) {
    let members = layout.members();
    assert!(members.is_sorted_by(|a, b| a.id < b.id) && members.iter().all(|m| m.weight > 0));
    let owners = usize::from(layout.replicas()).min(members.len());
    assert_eq!(layout.owner_count(), owners);
    let zones: BTreeSet<_> = members.iter().map(|m| &m.zone).collect();
    let mut owned = vec![0u32; members.len()];
    let place = |id: NodeId| members.binary_search_by_key(&id, |m| m.id).expect("owners are members");
    let rows: Vec<Vec<NodeId>> =
        layout.partition_count().partitions().map(|p| layout.owners(p).collect()).collect();
    assert_eq!(rows.len(), layout.partitions() as usize);
    for (partition, row) in layout.partition_count().partitions().zip(&rows) {
        assert_eq!(row.iter().collect::<BTreeSet<_>>().len(), owners, "an owner is named twice");
        let spanned: BTreeSet<_> = row.iter().map(|id| &members[place(*id)].zone).collect();
        assert_eq!(spanned.len(), zones.len().min(owners), "{row:?} could span more zones");
        let held = |zone: &Zone| row.iter().filter(|id| members[place(**id)].zone == *zone).count();
        let fullest = zones.iter().map(|zone| held(zone)).max().expect("a layout has members");
        let room = |zone: &Zone| members.iter().filter(|m| m.zone == *zone).count() > held(zone);
        assert!(
            zones.iter().all(|zone| held(zone) + 1 >= fullest || !room(zone)),
            "{row:?} could be spread more flatly"
        );
        row.iter().for_each(|id| owned[place(*id)] += 1);
        assert!(members.iter().all(|m| layout.is_owner(partition, m.id) == row.contains(&m.id)));
    }
    for (member, load) in members.iter().zip(layout.balance()) {
        assert_eq!((load.node, load.weight, load.owned), (member.id, member.weight, owned[place(member.id)]));
        assert_eq!(layout.partitions_of(member.id).len(), load.owned as usize);
    }
    // A few preference lists against a walk along the ring.
    let step = (rows.len() / 4).max(1);
    for (at, partition) in layout.partition_count().partitions().enumerate().step_by(step) {
        let mut expected: Vec<NodeId> = Vec::new();
        let ring = (0..rows.len()).flat_map(|step| &rows[(at + step) % rows.len()]);
        for id in ring.copied().chain(members.iter().map(|m| m.id)) {
            if !expected.contains(&id) {
                expected.push(id);
            }
        }
        assert!(layout.preference(partition).eq(expected), "the preference list of {partition:?}");
    }
    for slot in [0, 1, 8191, 16383] {
        let slot = Slot::new(slot).expect("a slot");
        let partition = layout.partition_of(slot);
        assert!(usize::from(slot.index()) * rows.len() / 16384 == usize::from(partition.index()));
    }
}
