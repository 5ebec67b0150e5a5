//! A hash tree over slots: what two replicas compare to find out where they differ.
//!
//! The leaf of a slot is the sum (modulo 2^128) of a keyed hash of each of its keys with its tag. A write changes it by
//! one subtraction and one addition, whatever the slot holds, and the order of writes leaves no trace. Sums are keyed, so
//! that nobody who chooses keys can make two contents look alike.

use alloc::boxed::Box;
use core::fmt;
use core::ops::RangeInclusive;
use siphasher::{sip, sip128};

/// Slots below one inner node.
const FAN: usize = 256;

/// The hashes of a tree, under the key that all replicas share.
#[derive(Clone, Copy)]
pub(crate) struct TreeKey {
    keys: sip::SipHasher13,
    elements: sip128::SipHasher13,
}

impl TreeKey {
    pub(crate) fn new(key: &[u8; 16]) -> Self {
        Self { keys: sip::SipHasher13::new_with_key(key), elements: sip128::SipHasher13::new_with_key(key) }
    }

    /// What an index file keeps of a key, so that a start need not read the key itself. Never 0, which stands for unknown.
    pub(crate) fn key_hash(&self, key: &[u8]) -> u64 {
        self.keys.hash(key).max(1)
    }

    /// What tells this tree key from another one: an index file made under that is of no use.
    pub(crate) fn check(&self) -> u64 {
        self.keys.hash(b"gramme-store hash tree")
    }

    pub(crate) fn element(&self, slot: u16, key_hash: u64, tag: u64) -> u128 {
        let mut bytes = [0; 18];
        bytes[..8].copy_from_slice(&key_hash.to_le_bytes());
        bytes[8..16].copy_from_slice(&tag.to_le_bytes());
        bytes[16..].copy_from_slice(&slot.to_le_bytes());
        self.elements.hash(&bytes).into()
    }
}

/// Sums over what each slot holds. Two stores with the same tree key have equal sums for a slot exactly if they hold the
/// same keys with the same tags there (but for one chance in 2^64 for each pair of differing keys).
///
/// A record that is damaged is not counted, so that the comparison with a healthy replica finds it. Two keys of one slot
/// whose 56 bits of fingerprint agree leave the slot's sum wrong until the next opening.
///
/// It also counts the records whose tag is odd: a caller can mark some of its records in that bit, its tombstones, say, and knows at
/// any time how many there are.
///
/// It takes 5 KiB for each 256 slots that hold something.
pub struct HashTree {
    key: TreeKey,
    leaves: Box<[Option<Box<Leaves>>; FAN]>,
    inner: Box<[u128; FAN]>,
    root: u128,
    odd: u64,
}

/// Of 256 slots.
struct Leaves {
    sums: [u128; FAN],
    odd: [u32; FAN],
}

impl HashTree {
    pub(crate) fn new(key: TreeKey) -> Self {
        Self { key, leaves: Box::new([const { None }; FAN]), inner: Box::new([0; FAN]), root: 0, odd: 0 }
    }

    pub(crate) fn key(&self) -> &TreeKey {
        &self.key
    }

    /// The sum over all slots.
    pub const fn root(&self) -> u128 {
        self.root
    }

    /// How many of the records that are counted have an odd tag.
    pub const fn odd(&self) -> u64 {
        self.odd
    }

    /// The sum over one slot.
    pub fn slot(&self, slot: u16) -> u128 {
        let (high, low) = split(slot);
        self.leaves[high].as_ref().map_or(0, |leaves| leaves.sums[low])
    }

    /// The sum over a range of slots: an inner node, of whatever width. Adds up at most 766 numbers.
    pub fn range(&self, slots: RangeInclusive<u16>) -> u128 {
        let (mut next, last) = (u32::from(*slots.start()), u32::from(*slots.end()));
        let mut sum = 0u128;
        while next <= last {
            let (high, low) = (next as usize / FAN, next as usize % FAN);
            if low == 0 && next + 255 <= last {
                sum = sum.wrapping_add(self.inner[high]);
                next += 256;
            } else {
                sum = sum.wrapping_add(self.leaves[high].as_ref().map_or(0, |leaves| leaves.sums[low]));
                next += 1;
            }
        }
        sum
    }

    pub(crate) fn add(&mut self, slot: u16, key_hash: u64, tag: u64) {
        self.change(slot, self.key.element(slot, key_hash, tag), i64::from(tag & 1 == 1));
    }

    /// Adds an element, or (`by` = −1) subtracts it.
    pub(crate) fn change_by(&mut self, slot: u16, element: u128, tag: u64, by: i64) {
        let change = if by < 0 { element.wrapping_neg() } else { element };
        self.change(slot, change, by * i64::from(tag & 1 == 1));
    }

    /// Adds what elements of a slot sum up to, and how many have odd tags.
    pub(crate) fn add_sum(&mut self, slot: u16, sum: u128, odd: u32) {
        self.change(slot, sum, i64::from(odd));
    }

    pub(crate) fn subtract(&mut self, slot: u16, key_hash: u64, tag: u64) {
        self.change(slot, self.key.element(slot, key_hash, tag).wrapping_neg(), -i64::from(tag & 1 == 1));
    }

    pub(crate) fn clear(&mut self, slot: u16) {
        let (high, low) = split(slot);
        let odd = self.leaves[high].as_ref().map_or(0, |leaves| leaves.odd[low]);
        self.change(slot, self.slot(slot).wrapping_neg(), -i64::from(odd));
    }

    fn change(&mut self, slot: u16, by: u128, odd: i64) {
        let (high, low) = split(slot);
        let leaves =
            self.leaves[high].get_or_insert_with(|| Box::new(Leaves { sums: [0; FAN], odd: [0; FAN] }));
        leaves.sums[low] = leaves.sums[low].wrapping_add(by);
        // Keys whose fingerprints agree may make it go below.
        let before = leaves.odd[low];
        leaves.odd[low] = u32::try_from((i64::from(before) + odd).max(0)).unwrap_or(u32::MAX);
        self.odd = self.odd - u64::from(before) + u64::from(leaves.odd[low]);
        self.inner[high] = self.inner[high].wrapping_add(by);
        self.root = self.root.wrapping_add(by);
    }
}

fn split(slot: u16) -> (usize, usize) {
    (usize::from(slot) / FAN, usize::from(slot) % FAN)
}

impl fmt::Debug for HashTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HashTree({:032x})", self.root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_the_sum_of_its_slots() {
        let mut tree = HashTree::new(TreeKey::new(&[1; 16]));
        for n in 0..5000u64 {
            let word = crate::checksum::mix(n);
            tree.add(u16::try_from(word >> 48).expect("16 bits"), word, n);
        }
        assert_eq!(tree.range(0..=u16::MAX), tree.root());
        assert_eq!(tree.odd(), 2500);
        let word = crate::checksum::mix(1);
        let slot = u16::try_from(word >> 48).expect("16 bits");
        tree.subtract(slot, word, 1);
        assert_eq!(tree.odd(), 2499);
        tree.add(slot, word, 1);
        for (first, last) in [(0, 0), (255, 256), (1, 700), (256, 511), (65_000, u16::MAX), (9, 8)] {
            let sum = (first..=last).fold(0u128, |sum, slot| sum.wrapping_add(tree.slot(slot)));
            assert_eq!(tree.range(first..=last), sum, "{first} to {last}");
        }
        for slot in 0..=u16::MAX {
            tree.clear(slot);
        }
        assert_eq!((tree.root(), tree.range(0..=u16::MAX), tree.odd()), (0, 0, 0));
    }

    #[test]
    fn elements_differ_by_slot_key_tag_and_tree_key() {
        let sum = |tree_key: u8, slot, key: &[u8], tag| {
            let key_of_tree = TreeKey::new(&[tree_key; 16]);
            let mut tree = HashTree::new(key_of_tree);
            tree.add(slot, key_of_tree.key_hash(key), tag);
            tree.root()
        };
        let all = [
            sum(1, 1, b"a", 1),
            sum(2, 1, b"a", 1),
            sum(1, 2, b"a", 1),
            sum(1, 1, b"b", 1),
            sum(1, 1, b"a", 2),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[at + 1..].contains(one));
        }
    }
}
