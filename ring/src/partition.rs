//! Runs of slots that are owned together.

use core::fmt;
use core::ops::Range;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::slot::{SLOTS, Slot};
use crate::table::TableError;

const SLOT_BITS: u32 = SLOTS.trailing_zeros();

/// How many partitions the slots are divided into: a power of two, `1..=16384`.
///
/// Dynamo's strategy 3 (SOSP 2007, section 6.2): the hash space in Q parts of equal size, placed without regard to
/// where tokens fall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionCount {
    bits: u8,
}

impl PartitionCount {
    /// This many partitions.
    ///
    /// # Errors
    /// [`TableError::PartitionCount`] unless it is a power of two from 1 to 16384.
    ///
    /// ```
    /// use gramme_ring::{PartitionCount, Slot, TableError};
    /// let quarters = PartitionCount::new(4)?;
    /// let partition = quarters.partition_of(Slot::of(b"foo"));
    /// assert_eq!((partition.index(), partition.slots()), (2, 8192..12288));
    /// assert_eq!(PartitionCount::new(100), Err(TableError::PartitionCount(100)));
    /// # Ok::<(), TableError>(())
    /// ```
    pub const fn new(count: u32) -> Result<Self, TableError> {
        if count.is_power_of_two() && count <= SLOTS as u32 {
            // At most 14.
            #[allow(clippy::cast_possible_truncation)]
            Ok(PartitionCount { bits: count.trailing_zeros() as u8 })
        } else {
            Err(TableError::PartitionCount(count))
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        1 << self.bits
    }

    /// The partition that holds a slot.
    pub const fn partition_of(self, slot: Slot) -> Partition {
        Partition { index: slot.index() >> (SLOT_BITS - self.bits as u32), bits: self.bits }
    }

    /// The partition of this number: a look-up like a slice's `get`, `None` from Q on.
    pub const fn partition(self, index: u32) -> Option<Partition> {
        if index < self.get() {
            // Below 16384.
            #[allow(clippy::cast_possible_truncation)]
            Some(Partition { index: index as u16, bits: self.bits })
        } else {
            None
        }
    }

    /// Every partition in ring order.
    pub fn partitions(self) -> impl DoubleEndedIterator<Item = Partition> + ExactSizeIterator + Clone {
        let last = SLOTS >> (SLOT_BITS - u32::from(self.bits));
        (0..last).map(move |index| Partition { index, bits: self.bits })
    }
}

/// A run of `16384 / Q` slots. It knows Q, so that it can name its slots and a partition of another Q is not mistaken
/// for one of this.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Partition {
    index: u16,
    bits: u8,
}

impl Partition {
    /// Its place in ring order, `0..Q`.
    pub const fn index(self) -> u16 {
        self.index
    }

    /// How many partitions there are beside it.
    pub const fn count(self) -> PartitionCount {
        PartitionCount { bits: self.bits }
    }

    /// Its first slot.
    pub const fn first_slot(self) -> Slot {
        match Slot::new(self.index << (SLOT_BITS - self.bits as u32)) {
            Some(slot) => slot,
            // Only made with index < Q.
            None => unreachable!(),
        }
    }

    /// The numbers of its slots.
    pub const fn slots(self) -> Range<u16> {
        let first = self.first_slot().index();
        first..first + (SLOTS >> self.bits)
    }

    /// Whether a slot is one of its own.
    pub const fn contains(self, slot: Slot) -> bool {
        slot.index() >> (SLOT_BITS - self.bits as u32) == self.index
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Partition({} of {})", self.index, self.count().get())
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.index.fmt(f)
    }
}

impl Partition {
    /// The partition, or the index and the bits of Q that make none.
    pub(crate) fn read<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Result<Self, (u16, u8)>, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename = "Partition")]
        struct Raw {
            index: u16,
            bits: u8,
        }
        let Raw { index, bits } = Raw::deserialize(deserializer)?;
        let count = 1u32.checked_shl(u32::from(bits)).and_then(|count| PartitionCount::new(count).ok());
        Ok(count.and_then(|count| count.partition(u32::from(index))).ok_or((index, bits)))
    }
}

impl<'de> Deserialize<'de> for Partition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Partition::read(deserializer)?
            .map_err(|(index, bits)| de::Error::custom(format_args!("no partition {index} of 2^{bits}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_powers_of_two_up_to_the_slots() {
        for bad in [0, 3, 100, 255, 16383, 32768, u32::MAX] {
            assert_eq!(PartitionCount::new(bad), Err(TableError::PartitionCount(bad)));
        }
        for bits in 0..=14 {
            assert_eq!(PartitionCount::new(1 << bits).map(PartitionCount::get), Ok(1 << bits));
        }
    }

    #[test]
    fn partitions_tile_the_slots() {
        for bits in 0..=14 {
            let count = PartitionCount::new(1 << bits).unwrap();
            let mut next = 0;
            for (i, partition) in count.partitions().enumerate() {
                assert_eq!(usize::from(partition.index()), i);
                assert_eq!(partition.slots().start, next);
                assert_eq!(u32::from(partition.slots().end - partition.slots().start), 16384 >> bits);
                for slot in [partition.slots().start, partition.slots().end - 1] {
                    let slot = Slot::new(slot).unwrap();
                    assert_eq!(count.partition_of(slot), partition);
                    assert!(partition.contains(slot));
                }
                let slots = partition.slots();
                let beside = [slots.start.checked_sub(1), (slots.end < SLOTS).then_some(slots.end)];
                assert!(!beside.into_iter().flatten().any(|n| partition.contains(Slot::new(n).unwrap())));
                next = partition.slots().end;
            }
            assert_eq!(next, SLOTS);
            assert_eq!(count.partition(count.get()), None);
        }
    }
}
