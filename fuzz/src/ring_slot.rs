//! Slots of arbitrary keys, against a second reading of the Redis Cluster specification.

use gramme_ring::{SLOTS, Slot};

/// One key.
///
/// # Panics
/// If its slot is another one.
pub fn run(data: &[u8]) {
    assert_eq!(Slot::of(data).index(), crc16(tag(data)) % SLOTS);
    if !data.is_empty() && !data.contains(&b'}') {
        let tagged = [b"a{", data, b"}{b}"].concat();
        // An opening brace within belongs to the tag.
        assert_eq!(Slot::of(&tagged).index(), crc16(data) % SLOTS);
        assert_eq!(Slot::of(&[b"{}", data].concat()).index(), crc16(&[b"{}", data].concat()) % SLOTS);
    }
}

/// The bytes between the first `{` and the first `}` after it, if there are any.
fn tag(key: &[u8]) -> &[u8] {
    let mut parts = key.splitn(2, |b| *b == b'{');
    let (Some(_), Some(rest)) = (parts.next(), parts.next()) else { return key };
    let mut parts = rest.splitn(2, |b| *b == b'}');
    match (parts.next(), parts.next()) {
        (Some(inner), Some(_)) if !inner.is_empty() => inner,
        _ => key,
    }
}

/// CRC-16/XMODEM, a bit at a time.
fn crc16(bytes: &[u8]) -> u16 {
    let mut crc = 0u16;
    for byte in bytes {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
        }
    }
    crc
}
