//! Arbitrary bytes as a message between engines.

use gramme_quorum::wire;

/// Decodes, encodes, decodes.
///
/// # Panics
/// If a message changes on the way, or more memory is taken than the bytes justify.
pub fn run(data: &[u8]) {
    let bound = 4096 + 256 * data.len();
    let Ok(message) = crate::meter::within(bound, || wire::decode(data)) else { return };
    let mut bytes = b"kept".to_vec();
    wire::encode(&message, &mut bytes);
    let bytes = bytes.strip_prefix(b"kept").expect("what was there stays");
    assert_eq!(wire::decode(bytes), Ok(message));
    // No byte is spare: a longer or shorter frame is another frame.
    assert!(wire::decode(&[bytes, &[0]].concat()).is_err());
    assert!(wire::decode(&bytes[..bytes.len() - 1]).is_err());
}
