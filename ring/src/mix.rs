//! A small mixing function, for scattering and for hashes of our own tables (not for keys).

/// Stafford's "Mix13" finaliser, the one of SplitMix64: a bijection in which every input bit flips about half of the
/// output's.
pub(crate) const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Mixes two numbers into one; the order matters.
#[cfg(feature = "alloc")]
pub(crate) const fn mix2(a: u64, b: u64) -> u64 {
    mix(mix(a.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ b)
}

/// A hash over a sequence of numbers, the same on every platform: `h = mix(h ^ word) + odd constant` for each word.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SequenceHash(u64);

impl SequenceHash {
    pub(crate) const fn new(domain: u64) -> Self {
        SequenceHash(mix(domain))
    }

    pub(crate) const fn number(&mut self, word: u64) {
        self.0 = mix(self.0 ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
    }

    #[cfg(feature = "alloc")]
    pub(crate) fn numbers<const N: usize>(&mut self, words: [u64; N]) {
        for word in words {
            self.number(word);
        }
    }

    /// The length, then the bytes in little-endian words, the last padded with zeros.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.number(u64::from_le_bytes(word));
        }
    }

    pub(crate) const fn finish(self) -> u64 {
        mix(self.0)
    }
}
