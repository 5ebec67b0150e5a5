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
    let mut rest = object.clone();
    for (_, version) in rest.iter_mut() {
        if let Some(left) = version.given_back() {
            *version = left;
        }
    }
    // What is left when the values that expire are given back is the beginning, and compares as equal.
    let kept = object::encode(&rest);
    assert_eq!(kept, bytes[..kept.len()]);
    assert_eq!(object::decode(&kept).as_ref(), Ok(&rest));
    assert_eq!(object::digest(&[7; 16], &rest, &kept), object::digest(&[7; 16], &object, &bytes));
    assert!(object.iter().all(|(dot, _)| object.seen().contains(dot)));
}
