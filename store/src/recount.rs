//! The sum of a slot, made anew from the keys on the disk.

use crate::disk::{DiskError, DiskFile};
use crate::hash_tree::HashTree;
use crate::key_index::KeyIndex;
use crate::read_around::read_around;
use crate::segments::SegmentTable;
use crate::summary::Hashes;
use alloc::collections::BTreeSet;
use alloc::vec;

/// Makes the sum of a slot from the keys on the disk: one read for each key. Only where damage left no other way, and at an opening
/// that meets the drop of a slot between what it removed and what was put later.
pub(crate) fn count_anew<F: DiskFile>(
    tree: &mut HashTree,
    slot: u16,
    index: &KeyIndex,
    segments: &SegmentTable<F>,
    hashes: &Hashes,
    uncounted: &mut BTreeSet<(u16, u64)>,
) -> Result<(), DiskError> {
    tree.clear(slot);
    for hit in index.page(slot, 0, usize::MAX) {
        let segment = &segments[hit.location.segment];
        let offset = hit.location.offset();
        let len = hit.location.size.bytes().min(segment.tail - offset);
        let mut bytes = vec![0; usize::try_from(len).expect("a record's length fits")];
        let read = read_around(&segment.file, offset, &mut bytes, &mut |_, _| ())?;
        let spot = crate::read::Spot { segment: segment.id, place: segment.place, offset, len: read };
        let line = spot
            .record(&bytes[..read])
            .filter(|(header, _)| header.kind.is_put())
            .map(|(header, body)| hashes.line(offset, &header, Some(&body[..header.key_len as usize])));
        match line {
            Some(line) => {
                uncounted.remove(&(slot, hit.fingerprint));
                tree.add(slot, line.key_hash, hit.tag);
            }
            None => {
                uncounted.insert((slot, hit.fingerprint));
            }
        }
    }
    Ok(())
}
