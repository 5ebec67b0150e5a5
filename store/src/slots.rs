//! Slots for programs that need none of their own.

use crate::checksum::{crc, mix};

/// How many slots [`slot_of`] chooses from: 0 to 1,023.
pub const KEY_SLOTS: u16 = 1024;

/// A slot for this key, by its bytes, for a program that has no slots of its own: all its keys in one slot would be one table of the
/// index, which is copied whole as it grows, while the store waits. It spreads any keys evenly that nobody chose for the contrary, and is
/// the same in all versions: what was put by it is found by it.
///
/// ```
/// use gramme_store::{KEY_SLOTS, MemDisk, Options, Read, Store, slot_of};
///
/// let (mut store, _) = Store::open(MemDisk::new(), Options::new([7; 16]))?;
/// store.put(slot_of(b"amber"), b"amber", b"fossil resin", 0)?;
/// assert!(matches!(store.get(slot_of(b"amber"), b"amber")?, Read::Value { .. }));
/// // All keys there are: slot by slot.
/// assert_eq!((0..KEY_SLOTS).map(|slot| store.slot_len(slot)).sum::<u64>(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn slot_of(key: &[u8]) -> u16 {
    // The remainder of 1,024 is a slot.
    u16::try_from(mix(crc(0, key).into()) % u64::from(KEY_SLOTS)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    /// What is on disks is found by these.
    #[test]
    fn they_are_what_they_were() {
        let keys: [&[u8]; 4] = [b"", b"amber", b"basalt", &[0xff; 300]];
        assert_eq!(keys.map(slot_of), [431, 872, 221, 548]);
    }

    #[test]
    fn keys_that_look_alike_are_spread_evenly() {
        for prefix in ["", "user:", "a long prefix that all keys have in common/"] {
            let mut counts = [0u32; KEY_SLOTS as usize];
            for n in 0..100 * u32::from(KEY_SLOTS) {
                counts[usize::from(slot_of(format!("{prefix}{n}").as_bytes()))] += 1;
            }
            let (least, most) = (counts.iter().min(), counts.iter().max());
            // Of random places a thousandth part has more than 3.3 deviations of 10.
            assert!(least >= Some(&55) && most <= Some(&145), "{least:?} to {most:?}");
        }
    }
}
