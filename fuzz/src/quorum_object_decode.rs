//! Arbitrary bytes as a stored object. Copies are compared by the digest of their bytes, so equal objects must have
//! equal bytes, and other spellings must be refused.

use gramme_quorum::object;

/// Decodes and encodes.
///
/// # Panics
/// If other bytes come out than went in.
pub fn run(data: &[u8]) {
    let bound = 4096 + 256 * data.len();
    let Ok(object) = crate::meter::within(bound, || object::decode(data)) else { return };
    let bytes = object::encode(&object);
    assert_eq!(object::decode(&bytes).as_ref(), Ok(&object));
    assert_eq!(bytes, data, "two spellings of {object:?}");
    assert!(object.iter().all(|(dot, _)| object.seen().contains(dot)));
}
