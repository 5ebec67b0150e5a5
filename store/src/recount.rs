//! The sum of a slot, made anew from the keys on the disk: where damage, or the drop of a slot amid its records, left no other way.

use crate::disk::{Disk, DiskError, DiskFile};
use crate::error::WriteError;
use crate::hash_tree::HashTree;
use crate::key_index::{FINGERPRINT_MASK, Hit, KeyIndex};
use crate::read_around::read_around;
use crate::segments::SegmentTable;
use crate::store::Store;
use crate::summary::Hashes;
use alloc::collections::BTreeSet;
use alloc::vec;

/// Entries of a slot that are taken from the index at once.
const PAGE: usize = 64;

/// Slots whose sums are to be made anew, and one that is being counted.
#[derive(Default)]
pub(crate) struct Recounts {
    slots: BTreeSet<u16>,
    current: Option<Recount>,
}

/// A slot that is being counted, in the order of its fingerprints.
struct Recount {
    slot: u16,
    /// All before this are counted, and writes to them are followed.
    next: u64,
    /// What has been counted, as a tree of its own.
    sum: u128,
    odd: i64,
}

impl Recounts {
    fn ask(&mut self, slot: u16) {
        if self.current.as_ref().is_some_and(|current| current.slot == slot) {
            self.current = None;
        }
        self.slots.insert(slot);
    }

    /// Nothing is left of the slot.
    pub(crate) fn cancel(&mut self, slot: u16) {
        self.slots.remove(&slot);
        if self.current.as_ref().is_some_and(|current| current.slot == slot) {
            self.current = None;
        }
    }

    /// A key of a slot has an element more, or (`by` = −1) less.
    fn follow(&mut self, slot: u16, fingerprint: u64, element: u128, tag: u64, by: i64) {
        let of =
            |current: &&mut Recount| current.slot == slot && fingerprint & FINGERPRINT_MASK < current.next;
        if let Some(current) = self.current.as_mut().filter(of) {
            current.add(element, tag, by);
        }
    }
}

impl Recount {
    fn add(&mut self, element: u128, tag: u64, by: i64) {
        self.sum = self.sum.wrapping_add(if by < 0 { element.wrapping_neg() } else { element });
        self.odd += by * i64::from(tag & 1 == 1);
    }
}

impl<D: Disk> Store<D> {
    /// Counts a key in the hash tree, if there is one.
    pub(crate) fn count(&mut self, slot: u16, fingerprint: u64, key_hash: u64, tag: u64) {
        let Some(tree) = &mut self.tree else { return };
        let element = tree.key().element(slot, key_hash, tag);
        tree.change_by(slot, element, tag, 1);
        self.recounts.follow(slot, fingerprint, element, tag, 1);
    }

    /// Takes a key out of it.
    pub(crate) fn uncount(&mut self, slot: u16, fingerprint: u64, key_hash: u64, tag: u64) {
        let Some(tree) = &mut self.tree else { return };
        let element = tree.key().element(slot, key_hash, tag);
        tree.change_by(slot, element, tag, -1);
        self.recounts.follow(slot, fingerprint, element, tag, -1);
    }

    /// The record of a key turned out to be damaged: the slot is counted anew without it, by `maintain`.
    pub(crate) fn count_no_more(&mut self, slot: u16, fingerprint: u64) {
        if self.tree.is_some() && self.uncounted.insert((slot, fingerprint)) {
            self.recounts.ask(slot);
        }
    }

    /// A step of counting, of about so many bytes read; answers whether there was anything to do. Not amid a merge, which may ask for more
    /// of the same slot, nor while there are records that the disk has not been given.
    pub(crate) fn recount(&mut self, budget: u64) -> Result<bool, WriteError> {
        let Some(key) = self.tree.as_ref().map(|tree| *tree.key()) else { return Ok(false) };
        if self.merge.is_some() || !self.pending.bytes.is_empty() {
            return Ok(false);
        }
        let Recounts { slots, current } = &mut self.recounts;
        let Some(current) = (match current {
            Some(current) => Some(current),
            None => slots.pop_first().map(|slot| current.insert(Recount { slot, next: 0, sum: 0, odd: 0 })),
        }) else {
            return Ok(false);
        };
        let (slot, mut spent) = (current.slot, 0);
        while spent < budget.max(1) {
            let hits = self.index.page(slot, current.next, PAGE);
            for hit in &hits {
                let (hash, bytes) =
                    hash_of(&self.segments, &self.hashes, hit).map_err(WriteError::Unreadable)?;
                spent += bytes;
                match hash {
                    Some(hash) => {
                        self.uncounted.remove(&(slot, hit.fingerprint));
                        current.add(key.element(slot, hash, hit.tag), hit.tag, 1);
                    }
                    None => _ = self.uncounted.insert((slot, hit.fingerprint)),
                }
                current.next = hit.fingerprint + 1;
                if spent >= budget {
                    return Ok(true);
                }
            }
            if hits.len() < PAGE {
                if let Some(tree) = &mut self.tree {
                    tree.clear(slot);
                    tree.add_sum(slot, current.sum, u32::try_from(current.odd.max(0)).unwrap_or(u32::MAX));
                }
                self.recounts.current = None;
                return Ok(true);
            }
        }
        Ok(true)
    }
}

/// The tree's hash of an entry's key, by its record, and the bytes that it takes to read that; `None` if that is damaged.
fn hash_of<F: DiskFile>(
    segments: &SegmentTable<F>,
    hashes: &Hashes,
    hit: &Hit,
) -> Result<(Option<u64>, u64), DiskError> {
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
    Ok((line.map(|line| line.key_hash), len))
}

/// The same at once, for an opening.
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
        match hash_of(segments, hashes, &hit)?.0 {
            Some(hash) => {
                uncounted.remove(&(slot, hit.fingerprint));
                tree.add(slot, hash, hit.tag);
            }
            None => _ = uncounted.insert((slot, hit.fingerprint)),
        }
    }
    Ok(())
}
