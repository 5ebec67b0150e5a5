//! Checksums that know where they belong.
//!
//! Each checksum starts from a value made of the segment's salt, its id and the offset, so bytes that are whole but stand
//! in the wrong place (stale, misdirected, left over in a recycled block) fail like damaged ones.

use crc32fast::Hasher;

/// The part of a checksum's seed that all records of one segment share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u64);

/// The two seeds of the record at one offset.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seeds {
    pub(crate) header: u32,
    pub(crate) body: u32,
}

impl Place {
    pub(crate) fn new(salt: u64, segment: u64) -> Self {
        Self(mix(salt ^ mix(segment)))
    }

    #[allow(clippy::cast_possible_truncation)] // The two halves of the word.
    pub(crate) fn seeds(self, offset: u64) -> Seeds {
        let word = mix(self.0.wrapping_add(offset));
        Seeds { header: word as u32, body: (word >> 32) as u32 }
    }
}

/// CRC-32 (IEEE) of `bytes` from a seed.
pub(crate) fn crc(seed: u32, bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}

/// SplitMix64's finalizer: a bijection in which every input bit reaches every output bit.
pub(crate) const fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_in_the_wrong_place_fails() {
        let here = Place::new(7, 1);
        let bytes = b"the same bytes";
        let sum = crc(here.seeds(64).body, bytes);
        assert_ne!(sum, crc(here.seeds(72).body, bytes), "another offset");
        assert_ne!(sum, crc(Place::new(7, 2).seeds(64).body, bytes), "another segment");
        assert_ne!(sum, crc(Place::new(8, 1).seeds(64).body, bytes), "another salt");
        assert_eq!(sum, crc(Place::new(7, 1).seeds(64).body, bytes));
    }
}
