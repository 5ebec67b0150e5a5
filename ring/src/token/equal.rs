//! Equal partitions of the circle.

use super::MAX_TOKENS;
use crate::table::TableError;

/// The circle in Q parts of equal size (up to rounding), Q being any number from 1 to [`MAX_TOKENS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EqualPartitions {
    count: u32,
}

impl EqualPartitions {
    /// Q partitions.
    ///
    /// ```
    /// use gramme_ring::token::EqualPartitions;
    /// let thirds = EqualPartitions::new(3)?;
    /// assert_eq!((thirds.end(0), thirds.end(2)), (u64::MAX / 3, u64::MAX));
    /// assert_eq!(thirds.partition_of(thirds.end(0) + 1), 1);
    /// # Ok::<(), gramme_ring::TableError>(())
    /// ```
    ///
    /// # Errors
    /// [`TableError::PartitionCount`] if there are none or more than [`MAX_TOKENS`].
    pub fn new(count: u32) -> Result<Self, TableError> {
        if count >= 1 && count as usize <= MAX_TOKENS {
            Ok(EqualPartitions { count })
        } else {
            Err(TableError::PartitionCount(count))
        }
    }

    /// Q.
    pub fn count(self) -> u32 {
        self.count
    }

    /// The partition that holds a position.
    pub fn partition_of(self, position: u64) -> u32 {
        let product = u128::from(position) * u128::from(self.count);
        // Below the count.
        u32::try_from(product >> 64).unwrap_or(self.count - 1)
    }

    /// The last position of a partition (counted modulo Q): where its token is, and where to look for owners.
    pub fn end(self, partition: u32) -> u64 {
        // The next one's first position is (partition + 1) * 2^64 / Q, rounded up; 2^64 itself wraps to 0.
        let next = u128::from(partition % self.count) + 1;
        let first = ((next << 64).div_ceil(u128::from(self.count))) & u128::from(u64::MAX);
        u64::try_from(first).unwrap_or(0).wrapping_sub(1)
    }
}
