//! One number that stands for everything that happened in a run.

use core::hash::Hasher;
use siphasher::sip::SipHasher13;

/// A running hash over a run's events, in their order.
#[derive(Clone, Debug)]
pub struct EventHash(SipHasher13);

impl Default for EventHash {
    fn default() -> Self {
        EventHash(SipHasher13::new_with_keys(0x0000_6772_616d_6d65, 0x0073_696d))
    }
}

impl EventHash {
    /// One more event: what kind, the numbers that tell it, and its bytes.
    pub fn event(&mut self, kind: u8, numbers: [u64; 3], bytes: &[u8]) {
        self.0.write_u8(kind);
        for number in numbers {
            self.0.write(&number.to_le_bytes());
        }
        self.0.write(&(bytes.len() as u64).to_le_bytes());
        self.0.write(bytes);
    }

    /// The hash so far.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_kind_and_boundaries_count() {
        let of = |events: &[(u8, u64, &[u8])]| {
            let mut hash = EventHash::default();
            for (kind, number, bytes) in events {
                hash.event(*kind, [*number, 0, 0], bytes);
            }
            hash.value()
        };
        let base = of(&[(1, 1, b"ab"), (1, 2, b"c")]);
        assert_eq!(base, of(&[(1, 1, b"ab"), (1, 2, b"c")]));
        for other in [
            of(&[(1, 2, b"c"), (1, 1, b"ab")]),
            of(&[(2, 1, b"ab"), (1, 2, b"c")]),
            of(&[(1, 1, b"abc"), (1, 2, b"")]),
            of(&[(1, 1, b"ab"), (1, 2, b"c"), (0, 0, b"")]),
        ] {
            assert_ne!(base, other);
        }
    }
}
