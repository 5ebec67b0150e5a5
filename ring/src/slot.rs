//! Where a key lives: CRC16 slots, as Redis Cluster computes them.

use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

/// Number of slots.
pub const SLOTS: u16 = 16384;

/// One of the [`SLOTS`] parts into which keys are hashed.
///
/// The slot of a key is CRC16 (XMODEM: polynomial 0x1021, no reflection, initial value 0) of its bytes modulo 16384,
/// as the Redis Cluster specification has it. If the key holds a `{`, a `}` after it and at least one byte between the
/// first `{` and the first `}` that follows, only the bytes between are hashed, so that callers can place keys together.
///
/// ```
/// use gramme_ring::Slot;
/// assert_eq!(Slot::of(b"foo").index(), 12182);
/// assert_eq!(Slot::of(b"{user1000}.following"), Slot::of(b"{user1000}.followers"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Slot(u16);

impl Slot {
    /// The slot of a key.
    pub fn of(key: &[u8]) -> Slot {
        Slot(crc16(hash_tag(key)) % SLOTS)
    }

    /// The slot of this number. `None`, from [`SLOTS`] on, has one cause only, as with `NonZero`: whoever tells an operator or a
    /// peer of it knows the number.
    pub const fn new(index: u16) -> Option<Slot> {
        if index < SLOTS { Some(Slot(index)) } else { None }
    }

    /// Its number, `0..16384`.
    pub const fn index(self) -> u16 {
        self.0
    }

    /// Every slot in order.
    pub fn all() -> impl DoubleEndedIterator<Item = Slot> + ExactSizeIterator {
        (0..SLOTS).map(Slot)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({})", self.0)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Slot> for u16 {
    fn from(slot: Slot) -> u16 {
        slot.0
    }
}

impl Slot {
    /// The slot, or the number that is none.
    pub(crate) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Result<Slot, u16>, D::Error> {
        let index = u16::deserialize(deserializer)?;
        Ok(Slot::new(index).ok_or(index))
    }
}

impl<'de> Deserialize<'de> for Slot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Slot::read(deserializer)?
            .map_err(|index| de::Error::custom(format_args!("slot {index}: a slot is below {SLOTS}")))
    }
}

/// The bytes of a key that are hashed.
fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&b| b == b'{') else { return key };
    let rest = &key[open + 1..];
    match rest.iter().position(|&b| b == b'}') {
        None | Some(0) => key,
        Some(close) => &rest[..close],
    }
}

/// `TABLES[k][b]` is the checksum of byte `b` followed by `k` zero bytes, so that eight bytes cost eight independent
/// loads instead of a chain of eight.
const TABLES: [[u16; 256]; 8] = tables();

const fn tables() -> [[u16; 256]; 8] {
    let mut tables = [[0u16; 256]; 8];
    let mut byte: u16 = 0;
    while byte < 256 {
        let mut crc = byte << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        tables[0][byte as usize] = crc;
        byte += 1;
    }
    let mut zeros = 1;
    while zeros < 8 {
        let mut byte = 0;
        while byte < 256 {
            let crc = tables[zeros - 1][byte];
            tables[zeros][byte] = (crc << 8) ^ tables[0][(crc >> 8) as usize];
            byte += 1;
        }
        zeros += 1;
    }
    tables
}

/// CRC16-XMODEM.
pub(crate) fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0u16;
    let (blocks, tail) = bytes.as_chunks::<8>();
    for b in blocks {
        let [high, low] = crc.to_be_bytes();
        crc = TABLES[7][usize::from(b[0] ^ high)]
            ^ TABLES[6][usize::from(b[1] ^ low)]
            ^ TABLES[5][usize::from(b[2])]
            ^ TABLES[4][usize::from(b[3])]
            ^ TABLES[3][usize::from(b[4])]
            ^ TABLES[2][usize::from(b[5])]
            ^ TABLES[1][usize::from(b[6])]
            ^ TABLES[0][usize::from(b[7])];
    }
    for &b in tail {
        let [high, _] = crc.to_be_bytes();
        crc = (crc << 8) ^ TABLES[0][usize::from(high ^ b)];
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc16_check_value() {
        // The check value of CRC-16/XMODEM, given in the Redis Cluster specification too.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(crc16(b""), 0);
    }

    #[test]
    fn crc16_equals_the_bitwise_definition() {
        let bytes: alloc::vec::Vec<u8> = (0..200u8).map(|i| i.wrapping_mul(151).wrapping_add(7)).collect();
        for from in 0..20 {
            for to in from..bytes.len() {
                let mut crc = 0u16;
                for &b in &bytes[from..to] {
                    crc ^= u16::from(b) << 8;
                    for _ in 0..8 {
                        crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
                    }
                }
                assert_eq!(crc16(&bytes[from..to]), crc, "{from}..{to}");
            }
        }
    }

    #[test]
    fn slots_that_redis_gives() {
        // `CLUSTER KEYSLOT` of a Redis 7 server.
        let slots = [
            ("foo", 12182),
            ("bar", 5061),
            ("hello", 866),
            ("somekey", 11058),
            ("foo{hash_tag}", 2515),
            ("{user1000}.following", 3443),
            ("foo{{bar}}zap", 4015),
            ("}{a}", 15495),
            ("", 0),
        ];
        for (key, slot) in slots {
            assert_eq!(Slot::of(key.as_bytes()).index(), slot, "{key}");
        }
    }

    #[test]
    fn hash_tags_of_the_specification() {
        let cases: [(&str, &str); 8] = [
            ("{user1000}.following", "user1000"),
            ("foo{}{bar}", "foo{}{bar}"),
            ("foo{{bar}}zap", "{bar"),
            ("foo{bar}{zap}", "bar"),
            ("foo}bar{", "foo}bar{"),
            ("foo{bar", "foo{bar"),
            ("{}", "{}"),
            ("}{a}", "a"),
        ];
        for (key, tag) in cases {
            assert_eq!(hash_tag(key.as_bytes()), tag.as_bytes(), "{key}");
        }
    }

    #[test]
    fn numbers_past_the_last_slot_are_refused() {
        assert_eq!(Slot::new(16383).map(Slot::index), Some(16383));
        assert_eq!(Slot::new(16384), None);
        assert_eq!(Slot::all().len(), 16384);
    }
}
