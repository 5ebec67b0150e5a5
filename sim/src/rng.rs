//! The one source of chance: everything random in a run comes from its seed.

use crate::time::Time;
use bytes::{Buf as _, Bytes};
use core::time::Duration;

/// A small deterministic generator (xoshiro256**, Blackman and Vigna 2018), seeded through splitmix64.
#[derive(Clone, Debug)]
pub struct Rng {
    state: [u64; 4],
    /// Choices are taken from here first, a byte or two for each: whoever changes a byte changes one choice.
    tape: Bytes,
}

/// A run's choices as bytes. The first few say how large a part of the rest each stream of choices has; what is left over then is the
/// last one's. `bits` are no choices: they stay the seed's.
#[derive(Clone, Debug, Default)]
pub struct Tape(Vec<Bytes>);

impl Tape {
    /// The streams' purposes, in the order of their parts: keyspaces; bounds and harm to records; clients; faults; disks; the network.
    const STREAMS: [u64; 6] = [6, 7, 4, 5, 3, 2];

    /// Divides a tape.
    #[must_use]
    pub fn new(mut bytes: Bytes) -> Tape {
        let shares = bytes.split_to(bytes.len().min(Self::STREAMS.len() - 1));
        let total: usize = shares.iter().map(|share| usize::from(*share)).sum::<usize>() + 256;
        let length = bytes.len();
        let mut parts: Vec<Bytes> =
            shares.iter().map(|share| bytes.split_to(length * usize::from(*share) / total)).collect();
        parts.push(bytes);
        Tape(parts)
    }

    /// The generator for one purpose, with its first choices from its part.
    #[must_use]
    pub fn stream(&self, seed: u64, purpose: u64) -> Rng {
        let at = Self::STREAMS.iter().position(|known| *known == purpose);
        let tape = at.and_then(|at| self.0.get(at)).cloned().unwrap_or_default();
        Rng { tape, ..Rng::stream(seed, purpose) }
    }
}

/// One step of splitmix64: spreads a seed over all bits.
#[must_use]
pub const fn splitmix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Rng {
    /// The generator of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Rng {
        let a = splitmix(seed);
        let b = splitmix(a);
        let c = splitmix(b);
        Rng { state: [a, b, c, splitmix(c)], tape: Bytes::new() }
    }

    /// A generator of its own for one purpose, so that what one part draws does not move the others.
    #[must_use]
    pub const fn stream(seed: u64, purpose: u64) -> Rng {
        Rng::new(splitmix(seed).wrapping_add(splitmix(purpose ^ 0x0067_7261_6d6d_6521)))
    }

    fn byte(&mut self) -> Option<u64> {
        self.tape.has_remaining().then(|| u64::from(self.tape.get_u8()))
    }

    /// 64 uniform bits.
    pub const fn bits(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Uniform below `bound`, which is at least 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing is below zero");
        if let Some(first) = self.byte() {
            if bound <= 256 {
                return first % bound;
            }
            let share = u128::from(first << 8 | self.byte().unwrap_or(0));
            return u64::try_from((share * u128::from(bound)) >> 16).expect("a share of the bound");
        }
        let wide = u128::from(self.bits()) * u128::from(bound);
        u64::try_from(wide >> 64).expect("the upper half of a product of two 64-bit numbers")
    }

    /// Uniform index into something of this length.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below a usize")
    }

    /// Uniform in `low..=high`.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True this often in a million.
    pub fn chance(&mut self, per_million: u32) -> bool {
        match self.byte() {
            Some(byte) => byte * 3906 < u64::from(per_million),
            None => self.below(1_000_000) < u64::from(per_million),
        }
    }

    /// Uniform between the two, to the nanosecond.
    pub fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX - 1);
        Duration::from_nanos(self.range(nanos(low), nanos(high).max(nanos(low))))
    }

    /// A moment up to `within` after `now`.
    pub fn soon(&mut self, now: Time, within: Duration) -> Time {
        now + self.between(Duration::ZERO, within)
    }

    /// A long-tailed time with about this mean: mostly shorter, now and then many times as long. Integers only, so that
    /// every platform draws the same.
    pub fn spread(&mut self, mean: Duration) -> Duration {
        let mut scale = mean / 2;
        while self.chance(500_000) && scale < mean * 16 {
            scale *= 2;
        }
        self.between(Duration::ZERO, scale)
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tape_s_bytes_are_choices_and_then_the_seed_s_follow() {
        let tape = Bytes::from_static(&[5, 255, 0, 0xff, 0xff]);
        let mut rng = Rng { tape, ..Rng::new(7) };
        assert_eq!((rng.below(4), rng.chance(999_999), rng.chance(1)), (1, true, true));
        assert_eq!(rng.range(0, 1_000_000), 999_985);
        assert_eq!(rng.bits(), Rng::new(7).bits());
    }

    #[test]
    fn every_stream_has_its_part_of_a_tape() {
        let bytes: Vec<u8> = [51; 5].into_iter().chain(1..=50).collect();
        let tape = Tape::new(Bytes::from(bytes.clone()));
        let firsts = Tape::STREAMS.map(|purpose| tape.stream(1, purpose).below(256));
        assert_eq!(firsts, [1, 5, 9, 13, 17, 21]);
        let all: usize = tape.0.iter().map(Bytes::len).sum();
        assert_eq!(all, 50);
        // One that is too short, and what no tape speaks of, is the seed's.
        for tape in [Tape::default(), Tape::new(Bytes::from_static(&[9, 9]))] {
            assert_eq!(tape.stream(1, 2).below(1_000), Rng::stream(1, 2).below(1_000));
        }
        assert_eq!(tape.stream(1, 1).below(1_000), Rng::stream(1, 1).below(1_000));
    }

    #[test]
    fn one_seed_draws_one_sequence() {
        let draw = |seed| {
            let mut rng = Rng::new(seed);
            [rng.bits(), rng.bits(), rng.bits()]
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert_ne!(Rng::stream(7, 1).bits(), Rng::stream(7, 2).bits());
    }

    #[test]
    fn bounds_are_reached_and_kept() {
        let mut rng = Rng::new(1);
        let mut seen = [false; 5];
        for _ in 0..1000 {
            let at = rng.range(3, 7);
            seen[usize::try_from(at - 3).unwrap()] = true;
        }
        assert_eq!(seen, [true; 5]);
        assert!((0..100_000).filter(|_| rng.chance(250_000)).count().abs_diff(25_000) < 1_000);
    }
}
